"""`alignlab compare A B`: two runs side by side, seed by seed where they share seeds.

Seeds that both ran have the same questions, the same data and the same first weights,
so the difference of a seed says more than the difference of two means.
"""

import base64
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alignlab.evaluation.intervals import t_interval
from alignlab.files import read_json, write_text
from alignlab.runs.context import METRICS_FILE
from alignlab.runs.report import number, template


@dataclass(frozen=True)
class Pair:
    """One metric in two runs.

    Attributes:
        notebook, metric: which.
        first, second: its values; None where a run has not recorded it.
        difference: second - first; None with one of them missing.
        half: half of the width of the 95% interval of the difference; None without.
        paired: whether that interval is of differences seed by seed.
    """

    notebook: str
    metric: str
    first: float | None
    second: float | None
    half: float | None = None
    paired: bool = False

    @property
    def difference(self) -> float | None:
        if self.first is None or self.second is None:
            return None
        return self.second - self.first

    @property
    def differs(self) -> bool:
        """Whether the interval of the difference leaves out 0; without an interval,
        whether there is any difference at all."""
        return self.difference is None or abs(self.difference) > (self.half or 0.0)


def pairs(first: dict, second: dict) -> list[Pair]:
    """Every metric of the notebooks that two runs share, in the order of the first.

    Args:
        first, second: as metrics.json has them.
    """
    return [
        pair
        for name, section in first["notebooks"].items()
        if name in second["notebooks"]
        for pair in _pairs_of(name, section, second["notebooks"][name])
    ]


def _pairs_of(name: str, first: dict, second: dict) -> Iterator[Pair]:
    same_seeds = first.get("seeds") == second.get("seeds")
    for metric in dict.fromkeys([*first["metrics"], *second["metrics"]]):
        a, b = first["metrics"].get(metric), second["metrics"].get(metric)
        if a is None or b is None or a.get("claim") != b.get("claim"):
            yield Pair(name, metric, a and a["value"], b and b["value"])
            continue
        half, paired = _half_width(a, b, same_seeds)
        yield Pair(name, metric, a["value"], b["value"], half, paired)


def _half_width(a: dict, b: dict, same_seeds: bool) -> tuple[float | None, bool]:
    seeds = a.get("seeds") or [], b.get("seeds") or []
    if same_seeds and len(seeds[0]) == len(seeds[1]) > 1:
        mean, low, _ = t_interval([y - x for x, y in zip(*seeds)])
        return mean - low, True
    halves = [
        (metric["high"] - metric["low"]) / 2
        for metric in (a, b)
        if metric.get("low") is not None
    ]
    return (math.hypot(*halves), False) if len(halves) == 2 else (None, False)


def verdicts_of(first: dict, second: dict) -> list[tuple[str, str, str]]:
    """Claims with their verdicts in both runs; a dash where a run has none."""
    names = dict.fromkeys([*first["claims"], *second["claims"]])
    return [
        (
            name,
            first["claims"].get(name, {}).get("verdict", "–"),
            second["claims"].get(name, {}).get("verdict", "–"),
        )
        for name in names
    ]


# --- A page -----------------------------------------------------------------------


def write_page(
    target: Path, folders: tuple[Path, Path], runs: tuple[dict, dict]
) -> Path:
    """Write a page of its own: verdicts, metrics, and figures side by side.

    Args:
        target: the HTML file.
        folders: of the two runs.
        runs: their metrics.
    """
    shared = [name for name in runs[0]["notebooks"] if name in runs[1]["notebooks"]]
    page = template("compare.html.j2").render(
        names=[folder.name for folder in folders],
        runs=runs,
        verdicts=verdicts_of(*runs),
        pairs=pairs(*runs),
        figures={name: list(_figures(folders, name)) for name in shared},
        number=number,
    )
    return write_text(target, page)


def _figures(folders: tuple[Path, Path], notebook: str) -> Iterator[dict]:
    """The figures of a notebook in two runs, as data URLs; None where one has none."""
    drawn = [_drawn(folder / notebook) for folder in folders]
    for name in dict.fromkeys([*drawn[0], *drawn[1]]):
        images = [figures.get(name, {}).get("image") for figures in drawn]
        caption = next(figures[name]["caption"] for figures in drawn if name in figures)
        yield {
            "name": name,
            "caption": caption,
            "same": images[0] == images[1],
            "images": [image and _as_url(image) for image in images],
        }


def _drawn(folder: Path) -> dict[str, dict]:
    recorded = read_json(folder / METRICS_FILE, default={})
    return {
        figure["name"]: {
            "caption": figure["caption"],
            "image": (folder / figure["file"]).read_bytes(),
        }
        for figure in recorded.get("figures", [])
        if (folder / figure["file"]).exists()
    }


def _as_url(image: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(image).decode("ascii")
