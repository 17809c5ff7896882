"""Reliability diagrams show the curve, what chance would, and how many are in a bin."""

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
from alignlab.plots.calibration import reliability_diagram, reliability_panels
from tests.drawing import drawn

pytestmark = pytest.mark.usefixtures("style")


@pytest.fixture
def ax():
    return plt.subplots()[1]


def events(n=500):
    rng = np.random.default_rng(0)
    confidence = rng.beta(3, 1.5, n)
    return confidence, (rng.random(n) < confidence**1.5).astype(int)


def surely(n=500, low=0.95):
    """Confidences at the end, right 15% less often than they say."""
    rng = np.random.default_rng(0)
    confidence = low + (1 - low) * rng.random(n)
    return confidence, (rng.random(n) < confidence - 0.15).astype(int)


def bars_of(ax):
    segments = ax.collections[0].get_segments()
    return {x: (low, high) for (x, low), (_, high) in segments}


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_it_draws_the_curve_and_the_bars_of_bins_that_are_not_empty(ax, strategy):
    p, y = events()
    p = p[p > 0.25]
    y = y[: len(p)]
    curve_drawn = reliability_diagram(p, y, ax=ax, n_bins=10, strategy=strategy)
    curve = reliability_curve(p, y, 10, strategy)
    there = curve.count > 0
    assert there.all() == (strategy == "quantile")
    _, line = ax.lines
    np.testing.assert_array_equal(line.get_xdata(), curve.confidence)
    np.testing.assert_array_equal(line.get_ydata(), curve.accuracy)
    np.testing.assert_array_equal(curve_drawn.count, curve.count)
    low, high = consistency_band(p, 10, strategy)
    expected = zip(curve.confidence[there], zip(low[there], high[there]))
    assert bars_of(ax) == dict(expected)
    assert line.get_zorder() > ax.collections[0].get_zorder()


def test_the_strip_counts_the_predictions(ax):
    p, y = events()
    curve = reliability_diagram(p, y, ax=ax, n_bins=10)
    (strip,) = ax.child_axes
    assert [bar.get_height() for bar in strip.patches] == curve.count.tolist()
    texts = [text.get_text() for text in strip.texts]
    assert texts == [str(n) if n else "" for n in curve.count]
    other = plt.subplots()[1]
    reliability_diagram(*surely(), ax=other)
    heights = [bar.get_height() for bar in other.child_axes[0].patches]
    assert sum(heights) == 500 and len(heights) == 40


@pytest.mark.parametrize("share, kind", [(0.49, "equal width"), (0.52, "equal number")])
def test_auto_takes_quantile_bins_if_more_than_half_lie_in_one_bin(ax, share, kind):
    n = 1000
    few = round(share * n)
    p = np.concatenate([np.linspace(0.91, 0.99, few), np.linspace(0.01, 0.9, n - few)])
    reliability_diagram(p, p > 0.5, ax=ax, n_bins=10, of="stated")
    label = ax.child_axes[0].get_xlabel()
    assert label == f"confidence (stated)\n10 bins of {kind}"


CASES = {
    "at the end": surely(),
    "twenty": events(20),
    "digits": (np.arange(220) % 11 / 10, np.arange(220) % 3 > 0),
    "one value": (np.full(50, 0.9), np.arange(50) % 5 > 0),
    "0 and 1": (np.arange(50) % 2.0, np.arange(50) % 2),
}


@pytest.mark.parametrize("size", [(7.2, 4.2), (3.4, 4.6)])
@pytest.mark.parametrize("case", CASES)
def test_no_point_or_bar_is_clipped_and_the_legend_covers_none(ax, case, size):
    ax.figure.set_size_inches(size)
    reliability_diagram(*CASES[case], ax=ax, label=case)
    drawn(ax.figure)
    points = ax.transData.transform(ax.lines[-1].get_xydata())
    points = points[~np.isnan(points).any(axis=1)]
    radius = ax.lines[-1].get_markersize() / 2
    box, legend = ax.bbox, ax.get_legend().get_window_extent()
    assert (points[:, 0] > box.x0 + 1).all() and (points[:, 0] < box.x1 - 1).all()
    assert (points[:, 1] > box.y0 + 1).all() and (points[:, 1] < box.y1 - 1).all()
    assert points[:, 1].max() + radius < legend.y0
    bottom, top = ax.get_ylim()
    assert all(bottom < low and high < top for low, high in bars_of(ax).values())
    assert max(ax.get_yticks()) <= 1 + 1e-9


def test_bars_are_no_wider_than_the_distance_of_their_points(ax):
    p, y = surely()
    reliability_diagram(1 - 20 * (1 - p) ** 2, y, ax=ax)  # closer at the end
    drawn(ax.figure)
    [width] = ax.collections[0].get_linewidths()  # in 1/72 of an inch
    x = ax.transData.transform(ax.lines[-1].get_xydata())[:, 0]
    assert 1 <= width < np.diff(x).min() * 72 / ax.figure.dpi


def test_the_legend_has_the_error_beside_that_of_chance(ax):
    p, y = events()
    reliability_diagram(p, y, ax=ax, label="SFT")
    reliability_diagram(p, 1 - y, ax=ax, label="other", color=1, counts=False)
    *marks, first, second = ax.get_legend_handles_labels()[1]
    assert marks == ["calibrated", "95% of points, if calibrated"]
    assert first.startswith("SFT: ECE 0.1") and "by chance 0.0" in first
    assert second.startswith("other: ECE 0.") and "15 bins of equal width" in second
    assert len(ax.child_axes) == 1 and len(ax.lines) == 3
    assert ax.lines[1].get_color() != ax.lines[2].get_color()


def test_it_takes_the_current_axes_and_renders(ax):
    p, y = events(20)
    reliability_diagram(p, y, n_bins=5)
    assert ax.lines
    ax.figure.canvas.draw()
    with pytest.raises(ValueError, match=r"correct\[19\] is missing"):
        reliability_diagram(p, y[:19], ax=ax)


@pytest.mark.parametrize("number", [1, 2, 4, 5, 8])
def test_panels_wrap_share_their_axes_and_have_one_legend(number):
    names = [f"model {k} with quite a long name of its own" for k in range(number)]
    pairs = {name: events(100 + 50 * k) for k, name in enumerate(names)}
    figure = reliability_panels(pairs, n_bins=8)
    figure.canvas.draw()
    panels = figure.axes
    assert len(panels) == number
    rows = {round(panel.get_position().y0, 3) for panel in panels}
    assert len(rows) == (1 if number <= 4 else 2)
    assert len({(panel.get_xlim(), panel.get_ylim()) for panel in panels}) == 1
    for panel, (name, pair) in zip(panels, pairs.items()):
        title = panel.get_title(loc="left")
        assert title.replace("\n", " ").startswith(name)
        assert f"ECE {expected_calibration_error(*pair, 8):.3f}, by chance" in title
        curve = reliability_curve(*pair, 8)
        np.testing.assert_array_equal(panel.lines[-1].get_ydata(), curve.accuracy)
        assert not panel.texts and panel.get_legend() is None
    titles = [panel._left_title.get_window_extent() for panel in panels]
    for k, box in enumerate(titles):
        others = [panel.bbox for panel in panels] + titles[k + 1 :]
        assert not any(box.overlaps(other) for other in others)
    [legend] = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["calibrated", "95% of points, if calibrated", "a bin"]
    assert figure.get_supxlabel() == "confidence (top label), 8 bins of equal width"


def test_panels_have_quantile_bins_if_one_model_needs_them_and_zoom_if_all_do():
    mixed = reliability_panels({"a": events(), "b": surely()})
    sure = reliability_panels({"a": surely(), "b": surely(300)})
    for figure in (mixed, sure):
        assert figure.get_supxlabel().endswith("10 bins of equal number")
    assert mixed.axes[0].get_xlim()[0] < 0 and sure.axes[0].get_xlim()[0] > 0.9
    with pytest.raises(ValueError, match="top_labels is empty"):
        reliability_panels({})


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


def test_the_explorer_draws_at_the_temperature_of_its_slider(explorer, monkeypatch):
    monkeypatch.setattr(plots, "temperature_diagram", lambda *given: given[2])
    plots.temperature_explorer(np.zeros((9, 4)), np.zeros(9, int), start=2.0)
    [slider] = explorer.controls
    assert explorer.pictures == [2.0]
    slider.value = 4.0
    assert explorer.pictures == [pytest.approx(4.0)]
