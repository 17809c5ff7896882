"""`alignlab check` and `compare`: is a run sound, and does it agree with another?

Two measurements agree if their difference lies within their intervals combined.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from alignlab.errors import AlignlabError
from alignlab.files import read_json
from alignlab.runs.context import METRICS_FILE
from alignlab.runs.folders import FINISHED
from alignlab.runs.judging import NOT_MEASURED, REPRODUCED

# How much a number without an interval may change, as a share of the earlier one.
PLAIN_TOLERANCE = 0.05


@dataclass(frozen=True)
class Difference:
    """One metric in two runs.

    ``band`` is the half-width of the interval of their difference, or 5% of the first
    where there are no intervals; ``agrees`` says that ``second - first`` lies within.
    """

    notebook: str
    metric: str
    first: float
    second: float
    band: float

    @property
    def agrees(self) -> bool:
        return abs(self.second - self.first) <= self.band


def read_metrics(source: Path) -> dict:
    """All metrics of a run: its folder, or a metrics.json kept from one.

    Raises:
        AlignlabError: if there are none.
    """
    file = Path(source) / METRICS_FILE if Path(source).is_dir() else Path(source)
    content = read_json(file)
    if not isinstance(content, dict) or "notebooks" not in content:
        raise AlignlabError(
            f"{file} holds no metrics of a run.",
            "Name a run's folder; `alignlab report FOLDER` writes them again.",
        )
    return content


def compare_runs(first: dict, second: dict) -> list[Difference]:
    """Every metric that two runs have in common, in the order of the second.

    Metrics that were recorded for different claims are not the same.
    """
    differences = []
    for notebook, section in second["notebooks"].items():
        before = first["notebooks"].get(notebook, {}).get("metrics", {})
        for name, metric in section["metrics"].items():
            if name in before and _same_claim(before[name], metric):
                band = _band(before[name], metric)
                values = before[name]["value"], metric["value"]
                differences.append(Difference(notebook, name, *values, band))
    return differences


def _same_claim(first: dict, second: dict) -> bool:
    claims = first.get("claim"), second.get("claim")
    return None in claims or claims[0] == claims[1]


def _band(first: dict, second: dict) -> float:
    halves = [_half_width(metric) for metric in (first, second)]
    known = [half for half in halves if half is not None]
    if known:
        return math.hypot(*known)
    return PLAIN_TOLERANCE * abs(first["value"])


def _half_width(metric: dict) -> float | None:
    if metric["low"] is None or metric["high"] is None:
        return None
    return (metric["high"] - metric["low"]) / 2


def check_run(run: dict, baseline: dict | None = None) -> list[str]:
    """What is wrong with a run, a line each; empty if it is sound.

    A run is sound if every notebook finished, every number is finite and every claim
    has a verdict (*needs profile full* is one). Compared with a baseline, metrics must
    also agree, none may be missing, and what was reproduced must still be.
    """
    problems = []
    for name, section in run["notebooks"].items():
        if section["status"] != FINISHED:
            problems.append(f"{name} is {section['status']}, not finished")
        for metric, entry in section["metrics"].items():
            if not math.isfinite(entry["value"]):
                problems.append(f"{name}: {metric} is {entry['value']}")
    for claim, entry in run["claims"].items():
        if entry["verdict"] == NOT_MEASURED:
            problems.append(f"claim {claim} has no verdict: {entry['reason']}")
    return problems + (_drift(baseline, run) if baseline else [])


def _drift(baseline: dict, run: dict) -> list[str]:
    """Where a run disagrees with its baseline, for the notebooks that it ran."""
    problems = [
        f"{item.notebook}: {item.metric} was {item.first:.4g} and is "
        f"{item.second:.4g}, more than {item.band:.2g} apart"
        for item in compare_runs(baseline, run)
        if not item.agrees
    ]
    for name, section in run["notebooks"].items():
        before = baseline["notebooks"].get(name, {"metrics": {}})["metrics"]
        gone = [metric for metric in before if metric not in section["metrics"]]
        problems += [f"{name}: {metric} is no longer recorded" for metric in gone]
    for claim, entry in run["claims"].items():
        before = baseline["claims"].get(claim, {}).get("verdict")
        if before == REPRODUCED and entry["verdict"] != REPRODUCED:
            problems.append(f"claim {claim} was reproduced and is {entry['verdict']}")
    return problems
