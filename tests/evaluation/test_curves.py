"""Slopes and heights of curves whose values are known in closed form."""

import numpy as np
import pytest

from alignlab.evaluation.curves import mean_height, slope_per_doubling


def test_the_slope_is_what_a_doubling_brings():
    ns = [1, 3, 11, 39]
    assert slope_per_doubling(ns, 0.2 + 0.03 * np.log2(ns)) == pytest.approx(0.03)
    assert slope_per_doubling(ns, [0.4] * 4) == pytest.approx(0, abs=1e-12)
    assert slope_per_doubling([1, 2], [0.5, 0.4]) == pytest.approx(-0.1)


def test_the_height_is_the_mean_over_x_not_over_points():
    # Straight from 0 to 1 between 2 and 10, wherever the points are: one half.
    for x in ([2, 10], [2, 3, 4, 10], [2, 9, 10]):
        assert mean_height(x, [(v - 2) / 8 for v in x]) == pytest.approx(0.5)
    assert mean_height([0, 1, 3], [0.0, 1.0, 1.0]) == pytest.approx((0.5 + 2.0) / 3)
    assert mean_height([4], [0.3]) == 0.3


def test_a_curve_that_rises_sooner_is_higher():
    x = [1, 2, 4, 8]
    assert mean_height(x, [0, 1, 1, 1]) > mean_height(x, [0, 0, 1, 1]) + 0.1
