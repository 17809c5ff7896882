"""Figures of notebook 07. Seeds are thin lines or dots, closed forms dashed lines."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from alignlab.plots.style import dot_rows, interval_line, series_style


def stages(
    errors: Mapping[str, Sequence[float]], temperatures: Mapping[str, Sequence[float]]
):
    """Mean squared calibration error and fitted temperature of each stage; dots are
    seeds.

    Args:
        errors: by stage, of each seed, without bias (they may be below 0).
        temperatures: by stage, of each seed.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 0.5 * len(errors) + 1.8))
    for axes, by_stage in ((left, errors), (right, temperatures)):
        dot_rows(axes, by_stage)
    right.set_yticklabels([])
    left.axvline(0, color="0.4", linestyle="--", linewidth=1)
    right.axvline(1, color="0.4", linestyle="--", linewidth=1)
    left.set(xlabel="mean squared error, without bias", title="Calibration error")
    right.set(
        xlabel="temperature that fits (1: none needed)",
        title="How much too sure",
        xscale="log",
    )
    values = [1.0, *(value for row in temperatures.values() for value in row)]
    low, high = min(values) * 0.75, max(values) * 1.4
    ticks = [t for t in (0.5, 0.7, 1, 1.5, 2, 3, 5, 10) if low <= t <= high]
    right.set_xticks(ticks, [f"{t:g}" for t in ticks])
    right.minorticks_off()
    return figure


def against_optimum(
    betas: Sequence[float],
    measured: Sequence[Sequence[float]],
    predicted: Sequence[Sequence[float]],
    start: Sequence[float],
):
    """How sure policies become over β, with the closed form.

    Args:
        betas: of the reward.
        measured, predicted: confidence minus the share of statements, one row a seed.
        start: that of the policy before, a value a seed.
    """
    figure, axes = plt.subplots(figsize=(7.5, 4))
    order = np.argsort(betas)
    x = np.log10(np.asarray(betas, float)[order])
    interval_line(axes, x, np.asarray(measured)[:, order], "after training", 0)
    interval_line(axes, x, np.asarray(predicted)[:, order], "π ∝ π₀·exp(p/β)", 1)
    axes.axhline(np.mean(start), color="0.2", linestyle=":", label="before: π₀")
    axes.margins(y=0.12)
    axes.set_xticks(x, [f"{betas[i]:g}" for i in order])
    axes.set(
        xlabel="price β of a nat of KL",
        ylabel="confidence − share of statements",
        title="How sure a reward for right answers makes",
    )
    axes.legend()
    return figure


def against_shares(
    by_name: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]], n_bins: int = 8
):
    """The share of the statements that give a contested answer over the probability
    with which a policy says it, a panel for each policy; thin lines are seeds.

    Args:
        by_name: by the panel's title, for each seed the probability of an answer and
            its share, both stated answers of every fact.
        n_bins: of equally many answers by probability.
    """
    figure, panels = plt.subplots(
        1, len(by_name), figsize=(3.6 * len(by_name), 4), sharey=True, squeeze=False
    )
    for number, (axes, (name, seeds)) in enumerate(zip(panels[0], by_name.items())):
        places, rows = [], []
        for probability, share in seeds:
            bins = np.array_split(np.argsort(probability, kind="stable"), n_bins)
            places.append([probability[b].mean() for b in bins])
            rows.append([share[b].mean() for b in bins])
        interval_line(axes, np.mean(places, axis=0), rows, "_mean", number)
        axes.plot([0, 1], [0, 1], color="0.4", linestyle="--", linewidth=1.2)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability of the answer")
        axes.set_title(name, fontsize=12)
    panels[0][0].set_ylabel("share of the statements")
    return figure


def earnings(costs: Sequence[float], by_name: Mapping[str, Sequence[Sequence[float]]]):
    """Mean earnings a question over the cost of a wrong answer.

    Args:
        costs: of a wrong answer, where a right one earns 1 and none earns nothing.
        by_name: by the name of a line, a row a seed.
    """
    figure, axes = plt.subplots(figsize=(7.5, 4.2))
    for number, (name, rows) in enumerate(by_name.items()):
        interval_line(axes, costs, rows, name, number)
    axes.axhline(0, color="0.4", linewidth=1)
    lowest = min(np.mean(rows, axis=0).min() for rows in by_name.values())
    axes.set(
        xlim=(min(costs), max(costs)),
        ylim=(max(lowest * 1.1, -1.0), None),
        xlabel="cost of a wrong answer (a right one earns 1)",
        ylabel="earned a question",
        title="What a confidence that can be believed is worth",
    )
    axes.legend(fontsize=10)
    return figure


def repairs(
    errors: Mapping[str, Sequence[float]], hidden: Mapping[str, Sequence[float]]
):
    """What is left of the calibration error after each repair, over all items and
    between kinds of facts; dots are seeds.

    Args:
        errors: by repair, mean squared calibration error of each seed.
        hidden: by repair, grouping loss of each seed.
    """
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 0.5 * len(errors) + 1.8), sharey=True
    )
    dot_rows(left, errors)
    dot_rows(right, hidden)
    for axes in (left, right):
        axes.axvline(0, color="0.4", linestyle="--", linewidth=1)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    left.set(xlabel="mean squared error, without bias", title="Over all facts")
    right.set(xlabel="variance between kinds of facts", title="Hidden within bins")
    return figure


def chance(rows: Sequence[Mapping]):
    """ECE of perfectly calibrated answers over their number, a line for each number of
    bins; and the debiased error, which is 0.

    Args:
        rows: those of ``analysis.plug_in_bias``.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    for number, bins in enumerate(sorted({row["bins"] for row in rows})):
        line = sorted((r for r in rows if r["bins"] == bins), key=lambda r: r["n"])
        style = series_style(number, "color", "marker")
        x = np.log10([row["n"] for row in line])
        for axes, name in ((left, "ece"), (right, "squared")):
            axes.plot(x, [row[name] for row in line], **style, label=f"{bins} bins")
            axes.set_xticks(x, [f"{row['n']:,}" for row in line])
    left.set(ylim=(0, None), ylabel="ECE", title="A perfect model's ECE")
    reach = max(0.01, *(abs(row["squared"]) * 1.2 for row in rows))
    right.set(ylim=(-reach, reach), title="The same, debiased")
    right.set_ylabel("mean squared error")
    right.axhline(0, color="0.4", linestyle="--", linewidth=1)
    for axes in (left, right):
        axes.set_xlabel("predictions")
    left.legend()
    return figure
