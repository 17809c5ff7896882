"""Curves show seeds, mean and interval, and differ from each other without colour."""

import matplotlib
import numpy as np
import pytest

from alignlab.evaluation.intervals import t_interval
from alignlab.plots.style import (
    LINESTYLES,
    MARKERS,
    PALETTE,
    by_seed,
    dot_rows,
    dots,
    interval_line,
    series_style,
    use_style,
)

matplotlib.use("Agg")


@pytest.fixture
def ax():
    import matplotlib.pyplot as plt

    with matplotlib.rc_context():
        figure, axes = plt.subplots()
        yield axes
        plt.close(figure)


def test_it_draws_every_seed_the_mean_and_the_t_interval(ax):
    rows = [[0.0, 1.0, 2.0], [1.0, 1.0, 3.0], [0.5, 1.0, 4.0]]
    intervals = interval_line(ax, [1, 2, 4], rows, "SFT", color=1)
    *seeds, mean = [line.get_ydata().tolist() for line in ax.lines]
    assert seeds == rows
    assert mean == pytest.approx(np.mean(rows, axis=0))
    assert intervals == [t_interval(values) for values in zip(*rows)]
    band = ax.collections[0].get_paths()[0].vertices
    for x, (_, low, high) in zip([1, 2, 4], intervals):
        drawn = band[band[:, 0] == x][:, 1]
        assert [drawn.min(), drawn.max()] == pytest.approx([low, high])
    assert ax.get_legend_handles_labels()[1] == ["SFT"]


def test_one_seed_is_a_line_without_a_band(ax):
    interval_line(ax, [1, 2], [[0.1, 0.2]], "base")
    assert len(ax.lines) == 1 and not ax.collections


@pytest.mark.parametrize("rows", [[], [[1.0]], [[1.0, 2.0], [1.0]]])
def test_rows_that_do_not_fit_x_are_named(ax, rows):
    with pytest.raises(ValueError, match="one row per seed with 2 values"):
        interval_line(ax, [1, 2], rows, "x")


def test_rows_become_a_table_by_seed():
    rows = [
        {"seed": s, "n": n, "format": 10 * s + n} for n in (16, 0, 4) for s in (3, 1)
    ]
    xs, values = by_seed(rows, "n", "format")
    assert xs == [0, 4, 16]
    assert values.tolist() == [[10, 14, 26], [30, 34, 46]]


def test_neighbours_in_the_palette_differ_in_grey_or_line():
    def grey(colour):
        red, green, blue = matplotlib.colors.to_rgb(colour)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    assert len(set(LINESTYLES)) == len(PALETTE) == len(set(PALETTE))
    assert all(grey(colour) < 0.65 for colour in PALETTE)  # readable on white


def test_many_series_all_look_different():
    styles = [series_style(i, "color", "marker", "linestyle") for i in range(14)]
    assert len({tuple(style.values()) for style in styles}) == 14
    assert series_style(2, "color", "marker") == {"color": PALETTE[2], "marker": "^"}
    assert series_style(9, "color", "hatch").keys() == {"color", "hatch"}


def test_dots_show_every_seed_and_bar_their_mean(ax):
    groups = {"base": [0.1, 0.3], "SFT": [0.7]}
    dots(ax, groups, number=1, shift=0.2)
    seeds = [line for line in ax.lines if line.get_marker() == MARKERS[1]]
    assert [line.get_ydata().tolist() for line in seeds] == list(groups.values())
    assert [list(line.get_xdata()) for line in seeds] == [[0.2, 0.2], [1.2]]
    bars = [line for line in ax.lines if line not in seeds]
    assert [line.get_ydata()[0] for line in bars] == pytest.approx([0.2, 0.7])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["base", "SFT"]


def test_horizontal_dots_start_at_the_top(ax):
    dots(ax, {"base": [0.1, 0.3], "SFT": [0.7]}, horizontal=True)
    assert list(ax.lines[0].get_xdata()) == [0.1, 0.3]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["base", "SFT"]
    low, high = ax.get_ylim()
    assert low > high


def test_rows_of_dots_start_at_the_top_and_mark_their_means(ax):
    groups = {"base": [0.1, 0.3], "SFT": [0.7, 0.9]}
    dot_rows(ax, groups)
    seeds = [line for line in ax.lines if line.get_marker() == "."]
    means = [line for line in ax.lines if line.get_marker() != "."]
    assert [list(line.get_xdata()) for line in seeds] == list(groups.values())
    assert [line.get_marker() for line in means] == list(MARKERS[:2])
    assert [line.get_xdata()[0] for line in means] == pytest.approx([0.2, 0.8])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["base", "SFT"]
    low, high = ax.get_ylim()
    assert low > high


def test_the_style_can_be_set_twice():
    with matplotlib.rc_context():
        use_style()
        once = dict(matplotlib.rcParams)
        use_style()
        assert dict(matplotlib.rcParams) == once
        assert matplotlib.rcParams["figure.constrained_layout.use"]
