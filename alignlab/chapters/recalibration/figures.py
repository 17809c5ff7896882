"""Figures of notebook 08. Seeds are thin lines or dots."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.ticker import MaxNLocator

from alignlab.calibration.metrics import risk_coverage_curve
from alignlab.plots.style import dot_rows, interval_line, series_style

MEASURES = {
    "squared": "mean squared calibration error",
    "brier": "Brier score",
    "nll": "log loss (nats)",
    "accuracy": "share right",
    "aurc": "area under risk–coverage",
}


def method_dots(
    by_method: Mapping[str, Sequence[Mapping[str, float]]],
    measures: Sequence[str],
    title: str,
):
    """A row for each method, a panel for each measure; dots are seeds, large markers
    their means.

    Args:
        by_method: by name, a dict of measures for each seed. The first method is the
            one to compare with: a dashed line marks its mean.
        measures: of ``MEASURES``.
        title: of the first panel.
    """
    figure, panels = plt.subplots(
        1,
        len(measures),
        figsize=(3.6 * len(measures), 0.42 * len(by_method) + 1.6),
        squeeze=False,
        sharey=True,
    )
    for axes, measure in zip(panels[0], measures):
        values = {n: [row[measure] for row in rows] for n, rows in by_method.items()}
        dot_rows(axes, values)
        first = np.mean(next(iter(values.values())))
        axes.axvline(first, color="0.4", linestyle="--", linewidth=1)
        axes.set_xlabel(MEASURES[measure])
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_title(" ", fontsize=13)
    panels[0][0].set_title(title, fontsize=13)
    return figure


def sizes(rows: Sequence[Sequence[Mapping]], measures: Sequence[str], most: int):
    """How good a recalibration is by the number of items it is fitted on.

    Args:
        rows: those of ``analysis.by_size`` for each seed.
        measures: of ``MEASURES``.
        most: the n that is all items there are.
    """
    figure, panels = plt.subplots(
        1, len(measures), figsize=(5.0 * len(measures), 3.9), squeeze=False
    )
    methods = list(dict.fromkeys(row["method"] for row in rows[0]))
    ns = list(dict.fromkeys(row["n"] for row in rows[0]))
    for axes, measure in zip(panels[0], measures):
        for number, method in enumerate(methods):
            values = [
                [row[measure] for row in of_seed if row["method"] == method]
                for of_seed in rows
            ]
            interval_line(axes, range(len(ns)), values, method, number)
        names = [f"{n:,}\n(all)" if n == most else f"{n:,}" for n in ns]
        axes.set_xticks(range(len(ns)), names)
        axes.set(xlabel="items to fit on", ylabel=MEASURES[measure])
        axes.set_title(" ")
    panels[0][0].set_title("With little data, few numbers")
    panels[0][0].legend(fontsize=9)
    return figure


def heat(table: Float[np.ndarray, "fitted judged"], fitted: Sequence[str], judged):
    """Mean squared error of what is judged (columns) at the temperature of what it was
    fitted on (rows).

    Args:
        table: that of ``analysis.transfer``.
        fitted: names of the rows, the first of them "none".
        judged: names of the columns.
    """
    import seaborn as sns

    figure, axes = plt.subplots(
        figsize=(1.5 * len(judged) + 2.4, 0.55 * len(fitted) + 1.6)
    )
    sns.heatmap(
        table,
        annot=True,
        fmt=".3f",
        cmap="Greys",
        cbar=False,
        vmin=0,
        vmax=max(float(np.max(table)) * 1.3, 0.01),
        xticklabels=list(judged),
        yticklabels=list(fitted),
        linewidths=1,
        ax=axes,
        annot_kws={"fontsize": 11},
    )
    axes.set(xlabel="judged on", ylabel="temperature from")
    axes.set_title("Mean squared error")
    axes.tick_params(rotation=0)
    return figure


def members(
    by_kind: Mapping[str, Sequence[Sequence[Mapping]]],
    alone: Mapping[str, Sequence[Mapping]],
    measures: Sequence[str],
):
    """What more members bring, and what one model of the same compute does.

    Args:
        by_kind: by name, for each seed the rows of ``analysis.by_members``.
        alone: by name, for each seed the scores of one model.
        measures: of ``MEASURES``.
    """
    figure, panels = plt.subplots(
        1, len(measures), figsize=(4.2 * len(measures), 4.1), squeeze=False
    )
    for axes, measure in zip(panels[0], measures):
        for number, (name, rows) in enumerate(by_kind.items()):
            x = [row["members"] for row in rows[0]]
            values = [[row[measure] for row in of_seed] for of_seed in rows]
            interval_line(axes, x, values, name, number)
        for number, (name, rows) in enumerate(alone.items(), start=len(by_kind)):
            level = np.mean([row[measure] for row in rows])
            style = series_style(number, "color", "linestyle")
            axes.axhline(level, **style, label=name)
        axes.set_xticks(x)
        axes.set(xlabel="members", ylabel=MEASURES[measure])
        axes.set_title(" ")
    panels[0][0].set_title("More opinions")
    panels[0][-1].legend(fontsize=9)
    return figure


def selective(top_labels: Mapping[str, tuple[np.ndarray, np.ndarray]]):
    """The share of wrong answers among those that are given, by how many are given.

    Args:
        top_labels: by name, confidences in answers to the same items, and whether they
            were right.
    """
    figure, axes = plt.subplots(figsize=(7.5, 4.2))
    for number, (name, pair) in enumerate(top_labels.items()):
        curve = risk_coverage_curve(*pair)
        axes.plot(
            curve.coverage,
            curve.risk,
            **series_style(number, "color", "linestyle"),
            label=name,
        )
    axes.axhline(curve.risk[-1], color="0.4", linewidth=1, label="answering all")
    axes.set(
        xlim=(0, 1),
        ylim=(0, max(2.2 * curve.risk[-1], 0.01)),  # the few surest may be anything
        xlabel="share of questions answered, the surest first",
        ylabel="share of those that is wrong",
        title="Answer only when sure",
    )
    axes.legend(fontsize=10)
    return figure
