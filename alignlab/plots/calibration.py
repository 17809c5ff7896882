"""Reliability diagrams: confidence against accuracy, with what chance alone would show.

For any classifier's output; a slider for its temperature; gaps by class of items.
"""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Literal

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.special import softmax

from alignlab.calibration.checks import as_array
from alignlab.calibration.inference import consistency_band, null_calibration_error
from alignlab.calibration.metrics import (
    ReliabilityCurve,
    Strategy,
    expected_calibration_error,
    reliability_curve,
    top_label,
)
from alignlab.plots.explorers import explore
from alignlab.plots.style import interval_line, series_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Binning = Strategy | Literal["auto"]
CALIBRATED = "calibrated"
DRAWS = 50_000_000  # random numbers for the bars at most: about half a second
PILED = 0.5  # of all confidences in one of equally wide bins: too many
ROOM = 0.06  # of the axis's height, between the legend and the points


def reliability_diagram(
    confidence: Float[ndarray, "items"],
    correct: Int[ndarray, "items"],
    *,
    ax: "Axes | None" = None,
    n_bins: int = 15,
    strategy: Binning = "auto",
    label: str = "model",
    color: int = 0,
    level: float = 0.95,
    counts: bool = True,
    of: str = "",
) -> ReliabilityCurve:
    """Draw each bin's accuracy over its mean confidence.

    A point below the diagonal is over-confident. Grey bars show where the points of a
    calibrated model with these confidences would lie in ``level`` of cases: a point
    within its bar may be there by chance. The legend gives the ECE and the ECE that
    chance alone would show, the strip below where the predictions lie, and the x axis
    which bins these are. Quantile bins that lie in less than half of [0, 1] fill the
    axes, which are then no longer square.

    Args:
        confidence, correct, n_bins: see ``reliability_curve``.
        strategy: "uniform", "quantile" as for ``reliability_curve``; "auto" takes
            "quantile" if one of the equally wide bins would hold more than half of the
            predictions, else "uniform".
        ax: where to draw; None takes the current axes.
        label: the model's name in the legend.
        color: a place in the palette, which also sets the marker.
        level: coverage of each bar; higher makes them longer.
        counts: False leaves out the bars and the strip, for a second model on the same
            axes.
        of: which confidence it is, such as "top label", "all options", "stated" or
            "P(True)"; stands on the x axis.

    Returns:
        The curve that was drawn.

    Raises:
        ValueError: as ``reliability_curve``.

    Source: Guo et al. (2017), figure 1; the bars Bröcker & Smith (2007).
    """
    if ax is None:
        ax = plt.gca()
    confidence = as_array(confidence, "confidence")
    strategy = _resolved(strategy, [confidence], n_bins)
    curve = reliability_curve(confidence, correct, n_bins, strategy)
    bins = _bins_in_words(curve, strategy)
    if counts:
        ax.plot([0, 1], [0, 1], color="0.4", ls="--", lw=1.2, label=CALIBRATED)
        _bars(ax, curve, confidence, n_bins, strategy, level)
        _strip(ax, curve, confidence, strategy, _x_label(of, bins))
    ece, chance = _errors(confidence, correct, n_bins, strategy)
    bins = "" if counts else f"\n{bins}"
    style = series_style(color, "color", "marker")
    label = f"{label}: ECE {ece:.3f}, by chance {chance:.3f}{bins}"
    ax.plot(
        curve.confidence, curve.accuracy, **style, lw=1.2, ms=6, label=label, zorder=3
    )
    ax.set_ylabel("share right")
    if not ax.child_axes:
        ax.set_xlabel(_x_label(of, ""))
    _fit_axes([ax], zoom=strategy == "quantile")
    _legend_above(ax)
    return curve


def _legend_above(ax: "Axes") -> None:
    """A legend in the axes, above all points: there the axis has no ticks."""
    low, high = ax.get_ylim()
    ticks = [tick for tick in ax.get_yticks() if low <= tick <= min(high, 1 + 1e-9)]
    ax.set_yticks(ticks)
    legend = ax.legend(loc="upper left", fontsize="small")
    legend.set_in_layout(False)  # a long label must not shrink the axes
    ax.figure.draw_without_rendering()
    share = legend.get_window_extent().height / ax.bbox.height
    ax.set_ylim(low, low + (high - low) / (1 - min(share + ROOM, 0.7)))


def reliability_panels(
    top_labels: Mapping[str, tuple[Float[ndarray, "items"], Int[ndarray, "items"]]],
    *,
    n_bins: int = 10,
    strategy: Binning = "auto",
    level: float = 0.95,
    of: str = "top label",
    columns: int = 4,
):
    """A reliability diagram for each model, on the same axes and with the same bins.

    The title of each panel has its ECE, and what chance alone would show; a legend
    above names the marks.

    Args:
        top_labels: by the model's name, its confidences and whether it was right.
        n_bins, level, of: as for :func:`reliability_diagram`.
        strategy: "auto" takes quantile bins for all if it would for one of them.
        columns: panels side by side at most; further ones go to the next row.

    Raises:
        ValueError: as ``reliability_curve``, or if there is no model.
    """
    if not top_labels:
        raise ValueError("top_labels is empty: there is no model to draw")
    confidences = [confidence for confidence, _ in top_labels.values()]
    strategy = _resolved(strategy, confidences, n_bins)
    figure, panels = _grid(len(top_labels), columns)
    for axes, (name, pair) in zip(panels, top_labels.items()):
        curve = reliability_curve(*pair, n_bins, strategy)
        axes.plot([0, 1], [0, 1], color="0.4", ls="--", lw=1.2, label=CALIBRATED)
        _bars(axes, curve, pair[0], n_bins, strategy, level)
        _points(axes, curve, 0, "a bin")
        ece, chance = _errors(*pair, n_bins, strategy)
        title = f"{fill(name, 24)}\nECE {ece:.3f}, by chance {chance:.3f}"
        axes.set_title(title, fontsize="small")
    _fit_axes(panels, zoom=strategy == "quantile")
    bins = _bins_in_words(curve, strategy)
    figure.supxlabel(_x_label(of, bins).replace("\n", ", "), fontsize="medium")
    figure.supylabel("share right", fontsize="medium")
    handles, labels = panels[0].get_legend_handles_labels()
    place = "outside upper left"
    figure.legend(handles, labels, loc=place, ncols=3, fontsize="small")
    return figure


def _grid(number: int, columns: int):
    """A figure and so many panels that share their axes, in rows of equal length as
    far as possible."""
    rows = -(-number // columns)
    columns = -(-number // rows)
    figure, panels = plt.subplots(
        rows,
        columns,
        figsize=(max(2.7 * columns + 0.5, 5.0), 3.0 * rows + 1.0),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    panels = panels.ravel()
    for spare in panels[number:]:
        spare.remove()
    for above in panels[max(number - columns, 0) : number]:
        above.tick_params(labelbottom=True)
    return figure, panels[:number]


def _resolved(strategy: Binning, confidences, n_bins: int) -> Strategy:
    """What "auto" stands for."""
    if strategy != "auto":
        return strategy
    for confidence in confidences:
        outcome = np.zeros(len(confidence))  # has no part in the counts
        count = reliability_curve(confidence, outcome, n_bins, "uniform").count
        if count.max() > PILED * count.sum():
            return "quantile"
    return "uniform"


def _bins_in_words(curve: ReliabilityCurve, strategy: Strategy) -> str:
    kind = "of equal width" if strategy == "uniform" else "of equal number"
    number = len(curve.count)
    return f"{number} bin{'s' if number > 1 else ''} {kind}"


def _x_label(of: str, bins: str) -> str:
    return (f"confidence ({of})" if of else "confidence") + f"\n{bins}".rstrip()


def _errors(confidence, correct, n_bins: int, strategy: Strategy):
    """The ECE, and what chance alone would show."""
    draws = max(100, min(200, DRAWS // len(confidence)))
    return (
        expected_calibration_error(confidence, correct, n_bins, strategy),
        null_calibration_error(confidence, n_bins, strategy, n_samples=draws),
    )


def _bars(ax: "Axes", curve, confidence, n_bins, strategy, level: float) -> None:
    """Where the points of a calibrated model would lie, behind the points and no wider
    than the distance between them."""
    draws = max(100, min(1000, DRAWS // len(confidence)))
    low, high = consistency_band(confidence, n_bins, strategy, level, draws)
    there = curve.count > 0
    at = curve.confidence[there]
    reach = max(at.max() - at.min(), 1e-9) if strategy == "quantile" else 1.0
    nearest = np.diff(at).min() / reach if len(at) > 1 else 1.0
    width = float(np.clip(150 * nearest, 1.0, 5.0))
    label = f"{level:.0%} of points, if calibrated"
    bars = low[there], high[there]
    ax.vlines(at, *bars, color="0.75", linewidth=width, label=label, zorder=1)


def _points(ax: "Axes", curve: ReliabilityCurve, color: int, label: str) -> None:
    style = series_style(color, "color", "marker") | dict(lw=1.2, ms=6, zorder=3)
    ax.plot(curve.confidence, curve.accuracy, **style, label=label)


def _strip(ax: "Axes", curve, confidence, strategy: Strategy, x_label: str) -> None:
    """How many predictions lie where, below the diagram and on its x axis: in each of
    equally wide bins, or, since all quantile bins hold as many, in finer ones."""
    strip = ax.inset_axes([0, -0.24, 1, 0.2], sharex=ax)
    edges = curve.edges
    if strategy == "quantile":
        edges = np.linspace(confidence.min() - 1e-3, confidence.max() + 1e-3, 41)
    count, _ = np.histogram(confidence, edges)
    if strategy == "uniform":
        count = curve.count  # the bins are closed above, those of numpy below
    low, wide = edges[:-1], np.diff(edges)
    bars = strip.bar(low + wide / 2, count, wide, color="0.75", ec="white", lw=0.5)
    if strategy == "uniform":
        labels = [f"{n:,}" if n else "" for n in count]
        strip.bar_label(bars, labels, rotation=90, padding=2, fontsize="xx-small")
    room = 2.2 if strategy == "uniform" else 1.1
    strip.set(ylim=(0, room * count.max()), yticks=[], xlabel=x_label)
    strip.set_ylabel("n", rotation=0, va="center")
    ax.tick_params(labelbottom=False)


def _fit_axes(panels: Sequence["Axes"], zoom: bool) -> None:
    """Limits that clip no point and no bar, the same for all: all of [0, 1], or, to
    zoom in, the part of it where the points are if that is less than half."""
    lines = [line for ax in panels for line in ax.lines]
    lines = [line for line in lines if line.get_label() != CALIBRATED]
    x = np.concatenate([line.get_xdata() for line in lines])
    y = [line.get_ydata() for line in lines]
    for ax in panels:
        y += [bar[:, 1] for bars in ax.collections for bar in bars.get_segments()]
    left, right = np.nanmin(x), np.nanmax(x)
    low, high = np.nanmin(np.concatenate(y)), np.nanmax(np.concatenate(y))
    zoom = zoom and right - left < 0.5
    if zoom:
        x_limits = _padded(left, right)
        y_limits = _padded(min(low, left), max(high, right))
    else:
        x_limits = y_limits = _padded(0.0, 1.0)
    for ax in panels:
        ax.set(xlim=x_limits, ylim=y_limits, aspect="auto" if zoom else "equal")


def _padded(low: float, high: float) -> tuple[float, float]:
    room = max(0.04 * (high - low), 0.002)
    return low - room, high + room


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
    figure, axes = plt.subplots(figsize=(7.2, 5.2))
    probabilities = softmax(logits / temperature, axis=1)
    reliability_diagram(
        *top_label(probabilities, labels),
        ax=axes,
        n_bins=n_bins,
        strategy="uniform",  # so that only the temperature moves the picture
        label=f"T = {temperature:.2f}",
        of="top label",
    )
    axes.set(title="Turn the temperature", aspect="auto")  # the legend fits in
    return figure


def temperature_explorer(
    logits: Float[ndarray, "items options"],
    labels: Int[ndarray, "items"],
    start: float = 1.0,
    n_bins: int = 10,
) -> None:
    """A slider for the temperature, which starts at ``start``, over
    :func:`temperature_diagram`."""
    import ipywidgets

    slider = ipywidgets.FloatLogSlider(
        start, base=10, min=-0.7, max=1.0, step=0.02, description="T"
    )
    explore([slider], lambda: temperature_diagram(logits, labels, slider.value, n_bins))


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
