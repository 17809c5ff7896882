"""Figures of the runs of ``models``: over-fitting, and what each loss does about it.
Seeds are thin lines, their means thick."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import NullLocator

from alignlab.chapters.recalibration.figures import MEASURES
from alignlab.plots.style import interval_line

Path = Sequence[Mapping[str, float]]  # measures at each checkpoint of a run


def over_fitting(
    paths: Sequence[Path],
    checkpoints: Sequence[int],
    best: Sequence[int],
    measures: Sequence[str] = ("nll", "squared"),
):
    """Measures on unseen subjects against updates, and on the right how often the model
    is right beside how sure it is.

    Args:
        paths: of each seed, see ``models_analysis.along``.
        checkpoints: updates taken at each.
        best: for each seed, the updates after which it is best to stop.
        measures: of ``figures.MEASURES``, a panel each.
    """
    figure, panels = plt.subplots(
        1, len(measures) + 1, figsize=(4.4 * (len(measures) + 1), 3.9)
    )
    for axes, measure in zip(panels, measures):
        values = [[point[measure] for point in path] for path in paths]
        interval_line(axes, checkpoints, values, "cross-entropy")
        axes.set_ylabel(MEASURES[measure])
    for number, (measure, label) in enumerate(
        {"accuracy": "share right", "confidence": "mean confidence"}.items()
    ):
        values = [[point[measure] for point in path] for path in paths]
        interval_line(panels[-1], checkpoints, values, label, number)
    panels[-1].set_ylabel("share, probability")
    for axes in panels:
        stopped = float(np.exp(np.mean(np.log(best))))
        axes.axvline(stopped, color="0.4", linestyle=":", label="best to stop (mean)")
        _updates(axes, checkpoints)
    panels[0].set_title("The same questions, over and over")
    panels[0].legend(fontsize=9)
    panels[-1].legend(fontsize=9)
    return figure


def loss_paths(
    paths: Mapping[str, Sequence[Path]],
    checkpoints: Sequence[int],
    measure: str = "squared",
):
    """A panel for each loss but the first: a measure on unseen subjects against
    updates, beside the first loss's mean (dashed).

    Args:
        paths: by loss, for each seed the measures at the checkpoints.
        checkpoints: updates taken at each.
        measure: of ``figures.MEASURES``.
    """
    first, *others = paths
    means = np.mean([[p[measure] for p in path] for path in paths[first]], axis=0)
    figure, panels = plt.subplots(
        1, len(others), figsize=(3.1 * len(others), 3.6), sharey=True, squeeze=False
    )
    for number, (axes, loss) in enumerate(zip(panels[0], others), start=1):
        values = [[point[measure] for point in path] for path in paths[loss]]
        interval_line(axes, checkpoints, values, loss, number, linestyle="-")
        axes.plot(checkpoints, means, color="0.2", linestyle="--", label=first)
        axes.set_title(loss, fontsize=12)
        axes.axhline(0, color="0.6", linewidth=0.8)
        _updates(axes, checkpoints)
    panels[0][0].set_ylabel(MEASURES[measure])
    panels[0][0].legend(fontsize=9)
    return figure


def _updates(axes, checkpoints: Sequence[int]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(checkpoints, [str(step) for step in checkpoints])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("updates")
