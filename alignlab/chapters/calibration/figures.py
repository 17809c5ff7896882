"""Figures of notebook 07. Seeds are thin lines or dots, closed forms dashed lines."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from alignlab.plots.calibration import reliability_diagram
from alignlab.plots.style import dot_rows, interval_line, series_style


def diagrams(top_labels: Mapping[str, tuple[np.ndarray, np.ndarray]], n_bins: int = 10):
    """A reliability diagram for each model, side by side.

    Args:
        top_labels: by the model's name, its confidences and whether it was right.
        n_bins: equal widths.
    """
    figure, panels = plt.subplots(
        1, len(top_labels), figsize=(3.4 * len(top_labels), 4.6), squeeze=False
    )
    for number, (axes, (name, pair)) in enumerate(zip(panels[0], top_labels.items())):
        reliability_diagram(*pair, ax=axes, n_bins=n_bins, label="", color=number)
        axes.set_title(name, fontsize=13)
        label = axes.get_legend_handles_labels()[1][-1].removeprefix(": ")
        axes.get_legend().remove()
        ece, chance = label.split(", ")
        axes.text(0.04, 0.97, f"{ece}\n{chance}", va="top", fontsize=10)
        if number:
            axes.set_ylabel("")
    return figure


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
    """Over-confidence of tuned policies over β, with the closed form.

    Args:
        betas: of the reward.
        measured, predicted: confidence minus accuracy, one row a seed.
        start: that of the policy before, a value a seed.
    """
    figure, axes = plt.subplots(figsize=(7.5, 4))
    order = np.argsort(betas)
    x = np.log10(np.asarray(betas, float)[order])
    interval_line(axes, x, np.asarray(measured)[:, order], "after training", 0)
    interval_line(axes, x, np.asarray(predicted)[:, order], "π ∝ p·exp(p/β)", 1)
    axes.axhline(np.mean(start), color="0.2", linestyle=":", label="before")
    axes.margins(y=0.12)
    axes.set_xticks(x, [f"{betas[i]:g}" for i in order])
    axes.set(
        xlabel="price β of a nat of KL",
        ylabel="confidence − accuracy",
        title="How sure a reward for right answers makes",
    )
    axes.legend()
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
