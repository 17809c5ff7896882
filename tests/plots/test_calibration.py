"""Reliability diagrams show the curve, what chance would, and how many are in a bin."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.special import softmax

from alignlab.calibration import (
    consistency_band,
    expected_calibration_error,
    reliability_curve,
    top_label,
)
from alignlab.plots import calibration as plots
from alignlab.plots.calibration import reliability_diagram
from tests.drawing import drawn

pytestmark = pytest.mark.usefixtures("style")


@pytest.fixture
def ax():
    return plt.subplots()[1]


def events(n=500):
    rng = np.random.default_rng(0)
    confidence = rng.beta(3, 1.5, n)
    return confidence, (rng.random(n) < confidence**1.5).astype(int)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_it_draws_the_curve_the_bars_and_the_counts(ax, strategy):
    p, y = events()
    curve_drawn = reliability_diagram(p, y, ax=ax, n_bins=10, strategy=strategy)
    curve = reliability_curve(p, y, 10, strategy)
    diagonal, line = ax.lines
    np.testing.assert_array_equal(line.get_xdata(), curve.confidence)
    np.testing.assert_array_equal(line.get_ydata(), curve.accuracy)
    np.testing.assert_array_equal(curve_drawn.count, curve.count)
    low, high = consistency_band(p, 10, strategy)
    segments = ax.collections[0].get_segments()
    bars = {x: (a, b) for (x, a), (_, b) in segments if not np.isnan(a)}
    for x, a, b in zip(curve.confidence, low, high):
        if not np.isnan(x):
            assert bars[x] == (a, b)
    (strip,) = ax.child_axes
    assert [bar.get_height() for bar in strip.patches] == curve.count.tolist()
    texts = [text.get_text() for text in strip.texts]
    assert texts == [str(n) if n else "" for n in curve.count]


def test_the_legend_has_the_error_beside_that_of_chance(ax):
    p, y = events()
    reliability_diagram(p, y, ax=ax, label="SFT")
    reliability_diagram(p, 1 - y, ax=ax, label="other", color=1, counts=False)
    first, second = ax.get_legend_handles_labels()[1]
    assert first.startswith("SFT: ECE 0.1") and "by chance 0.0" in first
    assert second.startswith("other: ECE 0.")
    colors = {line.get_color() for line in ax.lines[1::2]}
    assert len(ax.child_axes) == 1 and len(colors) == 2


def test_it_takes_the_current_axes_and_renders(ax):
    p, y = events(20)
    reliability_diagram(p, y, n_bins=5)
    assert ax.lines
    ax.figure.canvas.draw()
    with pytest.raises(ValueError, match=r"correct\[19\] is missing"):
        reliability_diagram(p, y[:19], ax=ax)


def test_gaps_have_a_line_for_each_model_and_seed():
    rows = {"base": [[0.4, 0.0], [0.5, 0.1]], "SFT": [[0.6, 0.0], [0.5, -0.1]]}
    [axes] = drawn(plots.gap_lines(rows, ["never", "often"], "Gaps")).axes
    means = [line.get_ydata() for line in axes.lines if line.get_label() in rows]
    assert np.allclose(means, [[0.45, 0.05], [0.55, -0.05]])


def test_the_temperature_moves_the_diagram_and_its_ece():
    rng = np.random.default_rng(0)
    logits = 4 * rng.normal(size=(500, 4))
    right = (logits / 4 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    for temperature in (1.0, 4.0):
        [axes, *_] = plots.temperature_diagram(logits, right, temperature).axes
        pair = top_label(softmax(logits / temperature, axis=1), right)
        label = axes.get_legend_handles_labels()[1][-1]
        assert f"T = {temperature:.2f}: ECE" in label
        assert f"{expected_calibration_error(*pair, 10):.3f}" in label


def test_the_explorer_shows_a_picture_and_draws_it_anew_when_its_slider_moves(
    monkeypatch,
):
    import IPython.display

    temperatures, shown = [], []

    def temperature_diagram(logits, labels, temperature, n_bins):
        temperatures.append(temperature)
        return plt.figure()

    def display(thing, display_id=False):
        shown.append(thing)
        return SimpleNamespace(update=shown.append)

    monkeypatch.setattr(plots, "temperature_diagram", temperature_diagram)
    monkeypatch.setattr(IPython.display, "display", display)
    plots.temperature_explorer(np.zeros((9, 4)), np.zeros(9, int), start=2.0)
    slider, picture = shown
    assert temperatures == [2.0] and isinstance(picture, plt.Figure)
    slider.value = 4.0
    assert temperatures == [2.0, pytest.approx(4.0)] and len(shown) == 3
