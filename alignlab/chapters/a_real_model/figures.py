"""Figures of notebook 09: dots are seeds, bars their 95% intervals."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from alignlab.evaluation.intervals import t_interval
from alignlab.plots.style import dots, interval_line, series_style

CHANCE = {"linestyle": ":", "color": "0.4"}


def spread(axes, groups: Mapping[str, Sequence[float]], number=0, shift=0.0) -> None:
    """A dot for each seed, their mean and its 95% t-interval, a column each group."""
    dots(axes, groups, number, shift)
    for place, values in enumerate(groups.values()):
        if len(values) > 1:
            mean, low, high = t_interval(values)
            axes.errorbar(
                place + shift + 0.2, mean, [[mean - low], [high - mean]],
                color="0.2", capsize=4, linewidth=1.5,
            )  # fmt: skip


def panels(columns: Mapping[str, Mapping[str, Sequence[float]]], title: str):
    """A panel for each measure: by the measure's name, the seeds of each policy."""
    figure, grid = plt.subplots(1, len(columns), figsize=(4.1 * len(columns), 3.6))
    for axes, (name, groups) in zip(np.atleast_1d(grid), columns.items()):
        spread(axes, groups)
        axes.set_title(name, fontsize="small")
        axes.tick_params(axis="x", labelsize="small")
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def accuracy(
    scores: Mapping[str, Sequence[float]], ceiling: Sequence[float], title: str
):
    """Share of pairs that each score has in the order of the held-out raters; dashed,
    what the other raters reach together."""
    figure, axes = plt.subplots(figsize=(7.5, 3.8))
    spread(axes, scores)
    axes.axhline(np.mean(ceiling), color="0.2", linestyle="--")
    axes.text(-0.45, np.mean(ceiling) + 0.01, "other raters together", fontsize=10)
    axes.axhline(0.5, **CHANCE)
    axes.set(ylabel="unseen pairs in order", ylim=(0.35, 1.02), title=title)
    return figure


def along(
    curves: Mapping[str, Mapping[str, Sequence[Sequence[float]]]],
    title: str,
    unit: str = "update",
):
    """Training curves: by the measure and the method, a row a seed over updates, or
    whatever the ``unit`` of training is."""
    figure, grid = plt.subplots(1, len(curves), figsize=(5.2 * len(curves), 3.7))
    for axes, (measure, methods) in zip(np.atleast_1d(grid), curves.items()):
        for number, (method, rows) in enumerate(methods.items()):
            steps = range(1, len(rows[0]) + 1)
            interval_line(axes, steps, rows, method, number)
        axes.set(xlabel=unit, ylabel=measure)
        axes.xaxis.get_major_locator().set_params(integer=True)
    np.atleast_1d(grid)[0].legend()
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def gains(
    proxy: Mapping[str, Sequence[float]],
    judge: Mapping[str, Sequence[float]],
    title: str,
):
    """What the reward model and the held-out judge see of each method's gain."""
    figure, axes = plt.subplots(figsize=(7.5, 3.8))
    _side_by_side(axes, {"reward model, optimised": proxy, "judge, held out": judge})
    axes.axhline(0, **CHANCE)
    axes.set(ylabel="gain over SFT\n(points of the raters)", title=title)
    return figure


def refusals(
    harmful: Mapping[str, Sequence[float]],
    benign: Mapping[str, Sequence[float]],
    title: str,
):
    """Share refused of harmful and of benign requests, by what the model learnt."""
    figure, axes = plt.subplots(figsize=(8.5, 3.8))
    _side_by_side(axes, {"harmful": harmful, "benign, sounds edgy": benign})
    axes.set(ylabel="refused", ylim=(-0.05, 1.05), title=title)
    return figure


def _side_by_side(axes, measures: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Two measures of the same groups, in colours of their own."""
    for number, (label, groups) in enumerate(measures.items()):
        spread(axes, groups, number, shift=0.34 * number - 0.2)
        style = series_style(number, "color", "marker")
        axes.plot([], [], **style, linestyle="", label=label)
    axes.legend()
