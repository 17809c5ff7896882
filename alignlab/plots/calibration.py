"""Reliability diagrams: confidence against accuracy, with what chance alone would show.

For any classifier's output, on any matplotlib axis.
"""

from typing import TYPE_CHECKING

from jaxtyping import Float, Int
from numpy import ndarray

from alignlab.calibration.inference import consistency_band, null_calibration_error
from alignlab.calibration.metrics import (
    ReliabilityCurve,
    Strategy,
    expected_calibration_error,
    reliability_curve,
)
from alignlab.plots.style import MARKERS, PALETTE

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

    A point below the diagonal is over-confident. Grey bars are where a calibrated
    model's points would lie in ``level`` of cases, at these confidences and this n: a
    point within its bar shows nothing. The legend gives the ECE beside the ECE that
    chance alone would show, and the strip below how many predictions a bin holds.

    Args:
        confidence, correct, n_bins, strategy: see ``reliability_curve``.
        ax: where to draw; None takes the current axes.
        label: the model's name in the legend.
        color: a place in the palette, which also chooses the marker.
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
        import matplotlib.pyplot as plt

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
        color=PALETTE[color % len(PALETTE)],
        marker=MARKERS[color % len(MARKERS)],
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
    """How many predictions each bin holds, below the diagram and on its x axis."""
    strip = ax.inset_axes([0, -0.24, 1, 0.2], sharex=ax)
    low, high = curve.edges[:-1], curve.edges[1:]
    bars = strip.bar(
        (low + high) / 2, curve.count, high - low, color="0.75", edgecolor="white"
    )
    told = [f"{count:,}" if count else "" for count in curve.count]
    strip.bar_label(bars, told, rotation=90, padding=2, fontsize="xx-small")
    strip.set(ylim=(0, 2.2 * curve.count.max()), yticks=[], xlabel="confidence")
    strip.set_ylabel("n", rotation=0, va="center")
    ax.tick_params(labelbottom=False)
