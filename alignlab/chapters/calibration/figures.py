"""Figures of notebook 07. Seeds are thin lines or dots, closed forms dashed lines."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from alignlab.calibration.metrics import top_label
from alignlab.plots.calibration import reliability_diagram
from alignlab.plots.style import MARKERS, PALETTE, interval_line


def diagrams(answers: Mapping[str, tuple[np.ndarray, np.ndarray]], n_bins: int = 10):
    """A reliability diagram for each model, side by side.

    Args:
        answers: by the model's name, its confidences and whether it was right.
        n_bins: equal widths.
    """
    figure, panels = plt.subplots(
        1, len(answers), figsize=(3.4 * len(answers), 4.6), squeeze=False
    )
    for number, (axes, (name, pair)) in enumerate(zip(panels[0], answers.items())):
        reliability_diagram(*pair, ax=axes, n_bins=n_bins, label="", color=number)
        axes.set_title(name, fontsize=13)
        told = axes.get_legend_handles_labels()[1][-1].removeprefix(": ")
        axes.get_legend().remove()
        ece, chance = told.split(", ")
        axes.text(0.04, 0.97, f"{ece}\n{chance}", va="top", fontsize=10)
        if number:
            axes.set_ylabel("")
    return figure


def stages(values: Mapping[str, Sequence[float]], temperatures: Mapping[str, Sequence]):
    """Mean squared calibration error and fitted temperature of each stage; dots are
    seeds.

    Args:
        values: by stage, the error of each seed, without bias (it may be below 0).
        temperatures: by stage, of each seed.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 0.5 * len(values) + 1.8))
    for axes, by_stage in ((left, values), (right, temperatures)):
        for place, some in enumerate(by_stage.values()):
            color = PALETTE[place % len(PALETTE)]
            axes.plot(some, [place] * len(some), ".", color=color, alpha=0.6)
            marker = MARKERS[place % len(MARKERS)]
            axes.plot(np.mean(some), place, marker, color=color, markersize=9)
        axes.set_yticks(range(len(by_stage)), list(by_stage))
        axes.invert_yaxis()
    right.set_yticklabels([])
    left.axvline(0, color="0.4", linestyle="--", linewidth=1)
    right.axvline(1, color="0.4", linestyle="--", linewidth=1)
    left.set(xlabel="mean squared error, without bias", title="Calibration error")
    right.set(
        xlabel="temperature that fits (1: none needed)",
        title="How much too sure",
        xscale="log",
    )
    ticks = [t for t in (0.5, 0.7, 1, 1.5, 2, 3, 5, 10) if _within(t, temperatures)]
    right.set_xticks(ticks, [f"{t:g}" for t in ticks])
    right.minorticks_off()
    return figure


def _within(tick: float, by_stage: Mapping[str, Sequence]) -> bool:
    every = [value for some in by_stage.values() for value in some] + [1.0]
    return min(every) * 0.75 <= tick <= max(every) * 1.4


def gaps(
    by_model: Mapping[str, Sequence[Sequence[float]]],
    exposures: Sequence[str],
    title: str = "Too sure where it never read the fact",
):
    """Signed gap, confidence less accuracy, by how often the fact was read.

    Args:
        by_model: by name, one row a seed, a gap for each class of exposure.
        exposures: what these classes are called.
        title: of the figure.
    """
    figure, axes = plt.subplots(figsize=(8, 4))
    for number, (name, rows) in enumerate(by_model.items()):
        interval_line(axes, range(len(exposures)), rows, name, number)
    axes.axhline(0, color="0.3", linewidth=1)
    axes.set_xticks(range(len(exposures)), exposures)
    axes.set(
        xlabel="times that pretraining stated the fact",
        ylabel="confidence − accuracy",
        title=title,
    )
    axes.legend()
    return figure


def against_optimum(
    betas: Sequence[float],
    measured: Sequence[Sequence[float]],
    predicted: Sequence[Sequence[float]],
    start: Sequence[float],
):
    """Over-confidence of tuned policies over the price β, with the closed form.

    Args:
        betas: prices of KL.
        measured, predicted: confidence less accuracy, one row a seed.
        start: of the policy before, a value a seed.
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
        rows: of ``plug_in_bias``.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    for number, bins in enumerate(sorted({row["bins"] for row in rows})):
        some = sorted((r for r in rows if r["bins"] == bins), key=lambda r: r["n"])
        x = np.log10([row["n"] for row in some])
        for axes, name in ((left, "ece"), (right, "squared")):
            axes.plot(
                x,
                [row[name] for row in some],
                color=PALETTE[number],
                marker=MARKERS[number],
                label=f"{bins} bins",
            )
            axes.set_xticks(x, [f"{row['n']:,}" for row in some])
    left.set(ylim=(0, None), ylabel="ECE", title="A perfect model's ECE")
    reach = max(0.01, *(abs(row["squared"]) * 1.2 for row in rows))
    right.set(ylim=(-reach, reach), title="The same, debiased")
    right.set_ylabel("mean squared error")
    right.axhline(0, color="0.4", linestyle="--", linewidth=1)
    for axes in (left, right):
        axes.set_xlabel("predictions")
    left.legend()
    return figure


def at_temperature(
    log_probs: Float[np.ndarray, "items options"],
    right: Int[np.ndarray, "items"],
    temperature: float,
    n_bins: int = 10,
):
    """The reliability diagram of answers whose logits are divided by a temperature."""
    figure, axes = plt.subplots(figsize=(4.6, 5.2))
    probabilities = softmax(np.asarray(log_probs) / temperature, axis=1)
    reliability_diagram(
        *top_label(probabilities, right),
        ax=axes,
        n_bins=n_bins,
        label=f"T = {temperature:.2f}",
    )
    axes.set_title("Turn the temperature")
    axes.legend(loc="upper left", fontsize=9)
    return figure


def temperature_explorer(log_probs, right, start: float = 1.0, n_bins: int = 10):
    """A slider for the temperature, over the diagram and its ECE. The picture at
    ``start`` stays where no widget can run.

    Args:
        log_probs: of the options, (items, options).
        right: the place of the right one.
        start: the slider's first value.
        n_bins: of the diagram.
    """
    import ipywidgets
    from IPython.display import display

    slider = ipywidgets.FloatLogSlider(
        start, base=10, min=-0.7, max=1.0, step=0.02, description="T"
    )

    def picture(temperature: float):
        figure = at_temperature(log_probs, right, temperature, n_bins)
        plt.close(figure)  # it is shown once, by display
        return figure

    display(slider)
    shown = display(picture(start), display_id=True)
    slider.observe(lambda change: shown.update(picture(change.new)), "value")
