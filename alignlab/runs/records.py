"""What a run is held against: another run, the recorded one, or a baseline that ships.

A record is a list of runs, each as its metrics.json has it. A baseline is a file of
several runs of one profile with different seeds, cut down to what comparing needs;
`alignlab baseline` writes it. Profile full has no baseline of its own: its record is
``figures/recorded.json``, the run behind the README.
"""

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import alignlab
from alignlab.errors import AlignlabError
from alignlab.files import read_json, write_text
from alignlab.runs.context import METRICS_FILE
from alignlab.runs.folders import FINISHED

BASELINES = Path(__file__).with_name("baselines")
RECORDED = Path(alignlab.__file__).parents[1] / "figures" / "recorded.json"

# What a run says of how it was made, in the order it is told.
MADE_BY = ("profile", "params", "started", "commit", "dirty", "package", "weights")
MADE_BY += ("versions", "platform")
# Settings in which the runs of one record may differ.
SEEDS_OF = ("first_seed", "seeds", "jobs")
FEWEST = 3  # runs of a baseline: two may agree by chance


def read_metrics(source: Path) -> dict:
    """All metrics of a run: its folder, or a metrics.json kept from one.

    Raises:
        AlignlabError: if there are none.
    """
    content, file = _read(source)
    if not isinstance(content, dict) or "notebooks" not in content:
        raise AlignlabError(
            f"{file} holds no metrics of a run.",
            "Name a run's folder; `alignlab report FOLDER` writes them again.",
        )
    return content


def read_record(source: Path) -> list[dict]:
    """The runs of a baseline; of anything else, the one run that it is.

    Raises:
        AlignlabError: if it is neither.
    """
    content, _ = _read(source)
    if isinstance(content, dict) and "runs" in content:
        return content["runs"]
    return [read_metrics(source)]


def _read(source: Path) -> tuple[object, Path]:
    file = Path(source) / METRICS_FILE if Path(source).is_dir() else Path(source)
    try:
        return read_json(file), file
    except ValueError:
        raise AlignlabError(
            f"{file} is no JSON.", "Name a run's folder, or its metrics.json."
        ) from None


def shipped_record(profile: str) -> Path:
    """Where the record of a profile ships.

    Raises:
        AlignlabError: if none does.
    """
    path = RECORDED if profile == "full" else BASELINES / f"{profile}.json"
    if not path.exists():
        raise AlignlabError(
            f"No record of profile {profile} ships with this alignlab.",
            "Name one with --against, or check the run by itself with --alone.",
        )
    return path


def sections_of(record: Sequence[dict], name: str) -> list[dict]:
    """What each run of a record has of a notebook, with what made it."""
    return [
        {key: run[key] for key in MADE_BY if key in run} | run["notebooks"][name]
        for run in record
        if name in run["notebooks"]
    ]


# --- Making a baseline ------------------------------------------------------------


def write_baseline(sources: Sequence[Path], target: Path | None = None) -> Path:
    """Make a baseline of finished runs that differ in nothing but their seeds.

    Args:
        sources: their folders; a baseline among them adds its runs.
        target: the file; by default the one that ships for their profile.

    Raises:
        AlignlabError: if there are fewer than three, one is not finished, or two of
            them differ in more than seeds, or not even in these.
    """
    runs = [(source, run) for source in sources for run in read_record(source)]
    if len(runs) < FEWEST:
        raise AlignlabError(
            f"{len(runs)} runs do not tell how far chance moves a metric.",
            f"Make {FEWEST} or more, each with a seed of its own: --param seed=N.",
        )
    for source, run in runs:
        _require_finished(source, run)
    for (first, a), (second, b) in combinations(runs, 2):
        _check_same_but_seeds(first, a, second, b)
    text = _lines({"runs": [_cut_down(run) for _, run in runs]}, depth=6)
    profile = runs[0][1]["profile"]
    return write_text(target or BASELINES / f"{profile}.json", text + "\n")


def _require_finished(source: Path, run: dict) -> None:
    for name, section in run["notebooks"].items():
        # A baseline keeps no status: all that is in one did finish.
        if section.get("status", FINISHED) != FINISHED:
            raise AlignlabError(
                f"{name} is {section['status']} in {source}.",
                f"Finish it: `alignlab run --resume --out {source}`.",
            )


def _check_same_but_seeds(first: Path, a: dict, second: Path, b: dict) -> None:
    for name in a["notebooks"].keys() & b["notebooks"].keys():
        one_section, other_section = a["notebooks"][name], b["notebooks"][name]
        differing = different_settings(
            one_section["settings"], other_section["settings"]
        )
        if a["profile"] != b["profile"]:
            differing["profile"] = a["profile"], b["profile"]
        if differing:
            raise AlignlabError(
                f"{first} and {second} differ in {name}: {describe(differing)}.",
                "A baseline is made of runs that differ in nothing but their seeds.",
            )
        if set(one_section["seeds"]) & set(other_section["seeds"]):
            raise AlignlabError(
                f"{first} and {second} share seeds in {name}: "
                f"{one_section['seeds']} and {other_section['seeds']}.",
                "Run it with others: --param seed=N.",
            )


def different_settings(first: dict, second: dict) -> dict[str, tuple]:
    """Settings that both have, with other values; but for those of seeds."""
    return {
        name: (value, second[name])
        for name, value in first.items()
        if name not in SEEDS_OF and name in second and second[name] != value
    }


def describe(differing: dict[str, tuple]) -> str:
    return ", ".join(f"{name} is {a} and {b}" for name, (a, b) in differing.items())


def _cut_down(content: dict) -> dict:
    """A run without what comparing does not need, such as times and reasons."""
    kept = {name: content[name] for name in MADE_BY if name in content}
    kept["notebooks"] = {
        name: {
            "seeds": section["seeds"],
            "settings": section["settings"],
            "model_hash": section.get("model_hash", ""),
            "metrics": {
                key: {k: v for k, v in metric.items() if v is not None and v != ""}
                for key, metric in section["metrics"].items()
            },
        }
        for name, section in content["notebooks"].items()
    }
    kept["claims"] = {
        claim: {key: value for key, value in entry.items() if key != "reason"}
        for claim, entry in content["claims"].items()
    }
    return kept


def _lines(value: object, depth: int, indent: str = "") -> str:
    """JSON with one entry a line down to some depth, so that changes show as lines."""
    if depth == 0 or not isinstance(value, (dict, list)) or not value:
        return json.dumps(value, allow_nan=False, ensure_ascii=False)
    inner = indent + " "
    if isinstance(value, list):
        items = [inner + _lines(item, depth - 1, inner) for item in value]
        return "[\n" + ",\n".join(items) + f"\n{indent}]"
    items = [
        f"{inner}{json.dumps(key)}: {_lines(item, depth - 1, inner)}"
        for key, item in value.items()
    ]
    return "{\n" + ",\n".join(items) + f"\n{indent}}}"
