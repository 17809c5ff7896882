"""Reliability diagrams: confidence against accuracy, with what chance alone would show.

For any classifier's output; a slider for its temperature; gaps by class of items.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.special import softmax

from alignlab.calibration.inference import consistency_band, null_calibration_error
from alignlab.calibration.metrics import (
    ReliabilityCurve,
    Strategy,
    expected_calibration_error,
    reliability_curve,
    top_label,
)
from alignlab.plots.style import interval_line, series_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DRAWS = 50_000_000  # random numbers for the bars at most: about half a second


def reliability_diagram(
    confidence: Float[ndarray, "items"],
    correct: Int[ndarray, "items"],
    *,
    ax: "Axes | None" = None,
    n_bins: int = 15,
    strategy: Strategy = "uniform",
    label: str = "model",
    color: int = 0,
    level: float = 0.95,
    counts: bool = True,
) -> ReliabilityCurve:
    """Draw each bin's accuracy over its mean confidence.

    A point below the diagonal is over-confident. Grey bars show where the points of a
    calibrated model with these confidences would lie in ``level`` of cases: a point
    within its bar may be there by chance. The legend gives the ECE and the ECE that
    chance alone would show, the strip below the number of predictions in each bin.

    Args:
        confidence, correct, n_bins, strategy: see ``reliability_curve``.
        ax: where to draw; None takes the current axes.
        label: the model's name in the legend.
        color: a place in the palette, which also sets the marker.
        level: coverage of each bar; higher makes them longer.
        counts: False leaves out the bars and the strip, for a second model on the same
            axes.

    Returns:
        The curve that was drawn.

    Raises:
        ValueError: as ``reliability_curve``.

    Source: Guo et al. (2017), figure 1; the bars Bröcker & Smith (2007).
    """
    if ax is None:
        ax = plt.gca()
    binning = n_bins, strategy
    curve = reliability_curve(confidence, correct, *binning)
    draws = max(100, min(1000, DRAWS // len(confidence)))
    if counts:
        low, high = consistency_band(confidence, *binning, level, draws)
        ax.vlines(curve.confidence, low, high, color="0.75", linewidth=7, zorder=1)
        _strip(ax, curve)
    ax.plot([0, 1], [0, 1], color="0.4", linestyle="--", linewidth=1.2, zorder=2)
    error = expected_calibration_error(confidence, correct, *binning)
    chance = null_calibration_error(confidence, *binning, n_samples=min(draws, 200))
    ax.plot(
        curve.confidence,
        curve.accuracy,
        **series_style(color, "color", "marker"),
        linewidth=1.2,
        label=f"{label}: ECE {error:.3f}, by chance {chance:.3f}",
        zorder=3,
    )
    ax.set(xlim=(0, 1), ylim=(0, 1), ylabel="share right", aspect="equal")
    if not ax.child_axes:
        ax.set_xlabel("confidence")
    ax.legend(loc="upper left")
    return curve


def _strip(ax: "Axes", curve: ReliabilityCurve) -> None:
    """The number of predictions in each bin, below the diagram and on its x axis."""
    strip = ax.inset_axes([0, -0.24, 1, 0.2], sharex=ax)
    low, high = curve.edges[:-1], curve.edges[1:]
    bars = strip.bar(
        (low + high) / 2, curve.count, high - low, color="0.75", edgecolor="white"
    )
    labels = [f"{count:,}" if count else "" for count in curve.count]
    strip.bar_label(bars, labels, rotation=90, padding=2, fontsize="xx-small")
    strip.set(ylim=(0, 2.2 * curve.count.max()), yticks=[], xlabel="confidence")
    strip.set_ylabel("n", rotation=0, va="center")
    ax.tick_params(labelbottom=False)


def temperature_diagram(
    logits: Float[ndarray, "items options"],
    labels: Int[ndarray, "items"],
    temperature: float,
    n_bins: int = 10,
):
    """The reliability diagram of the likeliest options at a temperature.

    Args:
        logits: of the options, up to a constant a row.
        labels: index of the right option.
        temperature: divides the logits; a higher one is less sure.
        n_bins: as for :func:`reliability_diagram`.
    """
    figure, axes = plt.subplots(figsize=(4.6, 5.2))
    probabilities = softmax(logits / temperature, axis=1)
    reliability_diagram(
        *top_label(probabilities, labels),
        ax=axes,
        n_bins=n_bins,
        label=f"T = {temperature:.2f}",
    )
    axes.set_title("Turn the temperature")
    axes.legend(loc="upper left", fontsize=9)
    return figure


def temperature_explorer(
    logits: Float[ndarray, "items options"],
    labels: Int[ndarray, "items"],
    start: float = 1.0,
    n_bins: int = 10,
) -> None:
    """A slider for the temperature over :func:`temperature_diagram`. The picture at
    ``start``, the slider's first value, stays where no widget can run."""
    import ipywidgets
    from IPython.display import display

    slider = ipywidgets.FloatLogSlider(
        start, base=10, min=-0.7, max=1.0, step=0.02, description="T"
    )

    def picture(temperature: float):
        figure = temperature_diagram(logits, labels, temperature, n_bins)
        plt.close(figure)  # it is shown once, by display
        return figure

    display(slider)
    shown = display(picture(start), display_id=True)
    slider.observe(lambda change: shown.update(picture(change.new)), "value")


def gap_lines(
    gaps: Mapping[str, Sequence[Sequence[float]]], exposures: Sequence[str], title: str
):
    """Confidence minus accuracy, by how often pretraining stated the fact.

    Args:
        gaps: by the name of a line, one row a seed, a gap for each class of exposure.
        exposures: what these classes are called.
        title: of the figure.
    """
    figure, axes = plt.subplots(figsize=(8, 4))
    for number, (name, rows) in enumerate(gaps.items()):
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
