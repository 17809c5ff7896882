"""Intervals agree with scipy, statsmodels and closed forms, and cover as they claim."""

import math

import numpy as np
import pytest
from scipy import stats

from alignlab.evaluation.intervals import (
    Interval,
    paired_difference,
    t_interval,
    wilson_interval,
)

VALUES = [0.81, 0.77, 0.92, 0.85]


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_t_interval_is_scipys(level):
    low, high = stats.ttest_1samp(VALUES, 0).confidence_interval(level)
    assert t_interval(VALUES, level) == pytest.approx((np.mean(VALUES), low, high))


def test_t_interval_of_two_values_is_the_closed_form():
    # With one degree of freedom t is Cauchy: t_0.975 = tan(0.475 pi) = 12.706.
    half = math.tan(0.475 * math.pi) * 0.5
    assert t_interval([0.0, 1.0]) == pytest.approx((0.5, 0.5 - half, 0.5 + half))


def test_t_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    samples = rng.normal(3.0, 2.0, size=(2000, 3))
    inside = [low <= 3.0 <= high for _, low, high in map(t_interval, samples)]
    # 2,000 trials: the standard error of the coverage is 0.005.
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


def test_one_seed_has_no_spread_to_show():
    assert t_interval([0.3]) == (0.3, -math.inf, math.inf)


def test_equal_values_give_an_interval_of_no_width():
    assert t_interval([1.0, 1.0, 1.0]) == (1.0, 1.0, 1.0)


def test_paired_difference_is_scipys_and_narrower_than_unpaired():
    first = [0.9, 0.7, 0.8, 0.6]
    second = [0.8, 0.61, 0.7, 0.49]
    low, high = stats.ttest_rel(first, second).confidence_interval(0.95)
    paired = paired_difference(first, second)
    assert paired == pytest.approx((0.1, low, high))
    unpaired = stats.ttest_ind(first, second).confidence_interval(0.95)
    assert paired.high - paired.low < 0.2 * (unpaired.high - unpaired.low)


@pytest.mark.parametrize("correct, n", [(0, 10), (3, 10), (10, 10), (41, 250)])
def test_wilson_interval_is_the_closed_form(correct, n):
    z, rate = stats.norm.ppf(0.975), correct / n
    middle = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(rate * (1 - rate) / n + (z / (2 * n)) ** 2)
    expected = (rate, middle - half, middle + half)
    assert wilson_interval(correct, n) == pytest.approx(expected, abs=1e-12)
    assert 0 <= wilson_interval(correct, n).low <= wilson_interval(correct, n).high <= 1


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: t_interval([]), "empty"),
        (lambda: t_interval([0.1, math.nan]), "not finite"),
        (lambda: t_interval([0.1, 0.2], level=95), "level"),
        (lambda: paired_difference([1, 2], [1]), "2 values and second 1"),
        (lambda: wilson_interval(11, 10), "11, 10"),
        (lambda: wilson_interval(0, 0), "0, 0"),
    ],
)
def test_bad_arguments_are_named(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_intervals_read_well():
    assert f"{Interval(0.31, 0.24, 0.38):.2f}" == "0.31 (0.24 to 0.38)"
    assert f"{Interval(0.31, -math.inf, math.inf):.2f}" == "0.31"
    assert str(Interval(0.31234, 0.2, 0.4)) == "0.312 (0.2 to 0.4)"
