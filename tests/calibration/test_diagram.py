"""The diagram shows the curve, the bars of chance and how many are in each bin."""

import matplotlib
import numpy as np
import pytest

from alignlab.calibration import consistency_band, reliability_curve
from alignlab.plots.calibration import reliability_diagram

matplotlib.use("Agg")


@pytest.fixture
def ax():
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def events(n=500):
    rng = np.random.default_rng(0)
    confidence = rng.beta(3, 1.5, n)
    return confidence, (rng.random(n) < confidence**1.5).astype(int)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_it_draws_the_curve_the_bars_and_the_counts(ax, strategy):
    p, y = events()
    drawn = reliability_diagram(p, y, ax=ax, n_bins=10, strategy=strategy)
    curve = reliability_curve(p, y, 10, strategy)
    diagonal, line = ax.lines
    np.testing.assert_array_equal(line.get_xdata(), curve.confidence)
    np.testing.assert_array_equal(line.get_ydata(), curve.accuracy)
    np.testing.assert_array_equal(drawn.count, curve.count)
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
