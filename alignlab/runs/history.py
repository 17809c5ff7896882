"""`alignlab history`: one metric over many runs, beside the band of its record."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alignlab.errors import AlignlabError, did_you_mean
from alignlab.runs.bands import Band
from alignlab.runs.compare import band_from, tolerances_of
from alignlab.runs.context import METRICS_FILE
from alignlab.runs.records import read_metrics, sections_of


@dataclass(frozen=True)
class Point:
    """A metric in one run: when and from which commit, with its 95% limits, if any."""

    run: str
    started: str
    commit: str
    value: float
    low: float | None
    high: float | None


def find_runs(folder: Path = Path("runs")) -> list[Path]:
    """The folders of finished runs in a folder of runs."""
    runs = sorted(file.parent for file in folder.glob(f"*/{METRICS_FILE}"))
    return [run for run in runs if not run.is_symlink()]


def points(
    metric: str, runs: Sequence[Path], profile: str | None = None
) -> tuple[str, str, list[Point]]:
    """A metric in every run that has it, the oldest first.

    Args:
        metric: its name, or NN/NAME where several notebooks record that name.
        runs: folders of runs.
        profile: only runs of this one; by default the latest run's.

    Returns:
        The notebook, the profile and the points.

    Raises:
        AlignlabError: if no run has it, or several notebooks do.
    """
    number, _, name = metric.rpartition("/")
    contents = sorted(
        ((run.name, read_metrics(run)) for run in runs),
        key=lambda item: item[1]["started"],
    )
    if not contents:
        raise AlignlabError("There is no finished run.", "Name their folders.")
    profile = profile or contents[-1][1]["profile"]
    contents = [item for item in contents if item[1]["profile"] == profile]
    notebooks = {
        notebook
        for _, content in contents
        for notebook, section in content["notebooks"].items()
        if name in section["metrics"] and notebook.startswith(number)
    }
    if len(notebooks) != 1:
        raise _unclear(metric, name, profile, sorted(notebooks), contents)
    (notebook,) = notebooks
    return notebook, profile, _points(name, notebook, contents)


def _points(name: str, notebook: str, contents: Sequence[tuple]) -> list[Point]:
    result = []
    for run, content in contents:
        entry = content["notebooks"].get(notebook, {"metrics": {}})["metrics"].get(name)
        if entry is not None:
            commit = (content.get("commit") or "")[:7]
            limits = entry.get("low"), entry.get("high")
            result.append(
                Point(run, content["started"], commit, entry["value"], *limits)
            )
    return result


def _unclear(
    metric: str, name: str, profile: str, notebooks: list[str], contents: Sequence
) -> AlignlabError:
    if notebooks:
        choices = " or ".join(f"{notebook[:2]}/{name}" for notebook in notebooks)
        return AlignlabError(f"Several notebooks record {name}.", f"Name {choices}.")
    known = {
        known
        for _, content in contents
        for section in content["notebooks"].values()
        for known in section["metrics"]
    }
    return AlignlabError(
        f"No run of profile {profile} records {metric!r}.",
        did_you_mean(name, sorted(known)).partition(" Known")[0],
    )


def band_in(
    record: Sequence[dict], notebook: str, metric: str, like: dict
) -> Band | None:
    """The band of a metric by a record; None if that has no such metric.

    Args:
        like: an entry of metrics.json with as many seeds as the runs have.
    """
    entries = [
        section["metrics"][metric]
        for section in sections_of(record, notebook)
        if metric in section["metrics"]
    ]
    if not entries:
        return None
    return band_from(entries, like, tolerances_of(notebook).get(metric))


def draw(title: str, history: Sequence[Point], band: Band | None):
    """The figure: a dot a run with its interval, the record's band behind them."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(figsize=(max(5.0, 0.6 * len(history) + 2), 3.6))
    places = range(len(history))
    if band is not None:
        half = band.half_width()
        axes.axhspan(band.mean - half, band.mean + half, color="0.88", label="95% band")
        axes.axhline(band.mean, color="0.5", linestyle="--", label="record")
    for place, point in zip(places, history):
        if point.low is not None:
            axes.plot([place, place], [point.low, point.high], color="C0", linewidth=1)
    axes.plot(places, [point.value for point in history], "o-", color="C0", label="run")
    axes.set_xticks(list(places), [_label(point) for point in history], rotation=45)
    axes.set_ylabel(title)
    axes.legend(frameon=False)
    fig.tight_layout()
    return fig


def _label(point: Point) -> str:
    return f"{point.started[5:16].replace('T', ' ')}\n{point.commit}".strip()
