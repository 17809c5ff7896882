"""Curves show seeds, mean and interval, and differ from each other without colour."""

import matplotlib
import numpy as np
import pytest

from alignlab.evaluation.intervals import t_interval
from alignlab.plots.style import LINESTYLES, PALETTE, interval_line, use_style

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


def test_neighbours_in_the_palette_differ_in_grey_or_line():
    def grey(colour):
        red, green, blue = matplotlib.colors.to_rgb(colour)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    assert len(set(LINESTYLES)) == len(PALETTE) == len(set(PALETTE))
    assert all(grey(colour) < 0.65 for colour in PALETTE)  # readable on white


def test_the_style_can_be_set_twice():
    with matplotlib.rc_context():
        use_style()
        once = dict(matplotlib.rcParams)
        use_style()
        assert dict(matplotlib.rcParams) == once
        assert matplotlib.rcParams["figure.constrained_layout.use"]
