"""Intervals agree with scipy, statsmodels and closed forms, and cover as they claim."""

import math

import numpy as np
import pytest
from scipy import stats

from alignlab.evaluation.intervals import (
    EqualValues,
    Estimate,
    Interval,
    bounded_interval,
    estimate_of_interval,
    mean_of_seeds,
    mean_of_seeds_and_items,
    paired_difference,
    reading,
    t_interval,
    two_level_interval,
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
        (lambda: bounded_interval([0.5, 1.1]), r"in \[0, 1\]; got 1.1"),
        (lambda: bounded_interval([0.5, 0.6], level=1), "level"),
        (lambda: two_level_interval([[1, 2]]), r"1 seeds with \[2\] items"),
        (lambda: two_level_interval([[1], [2]]), r"2 seeds with \[1\] items"),
        (lambda: two_level_interval([[1, 2], [1]]), r"with \[1, 2\] items"),
        (lambda: two_level_interval([[0, 1], [2, 2]], (0, 1)), "got 2"),
        (lambda: two_level_interval([[0, math.nan], [1, 1]]), "not finite"),
    ],
)
def test_bad_arguments_are_named(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_intervals_read_well():
    assert f"{Interval(0.31, 0.24, 0.38):.2f}" == "0.31 (0.24 to 0.38)"
    assert f"{Interval(0.31, -math.inf, math.inf):.2f}" == "0.31"
    assert str(Interval(0.31234, 0.2, 0.4)) == "0.312 (0.2 to 0.4)"


# --- Inside bounds -----------------------------------------------------------


def test_a_bounded_interval_is_students_on_the_logit_of_the_mean():
    rates = [0.9, 0.95, 0.97, 0.92]
    mean, error = np.mean(rates), stats.sem(rates)
    t = stats.t.ppf(0.975, 3)
    middle, half = math.log(mean / (1 - mean)), t * error / (mean * (1 - mean))
    expected = [1 / (1 + math.exp(-(middle + x))) for x in (-half, half)]
    assert bounded_interval(rates) == pytest.approx((mean, *expected))
    # The same rates as differences, from -1 to 1.
    differences = bounded_interval([2 * x - 1 for x in rates], (-1, 1))
    assert differences == pytest.approx([2 * x - 1 for x in (mean, *expected)])


def test_far_from_the_bounds_it_is_students():
    values = [0.501, 0.5, 0.502, 0.499]
    assert bounded_interval(values) == pytest.approx(t_interval(values), abs=1e-5)


def test_it_never_leaves_the_bounds():
    rng = np.random.default_rng(0)
    for _ in range(500):
        rate, n, seeds = rng.random() ** 0.1, rng.integers(1, 50), rng.integers(2, 8)
        rates = rng.binomial(n, rate, size=seeds) / n
        value, low, high = bounded_interval(rates, n=int(n))
        assert 0 <= low <= value <= high <= 1
        assert low < high


@pytest.mark.parametrize("seeds, n", [(3, 200), (5, 50), (5, 200)])
@pytest.mark.parametrize("rate", [0.5, 0.9, 0.99])
def test_it_covers_a_rate_as_often_as_it_says(rate, seeds, n):
    rng = np.random.default_rng(0)
    rates = rng.binomial(n, rate, size=(2000, seeds)) / n
    found = [bounded_interval(row, (0, 1), n) for row in rates]
    coverage = np.mean([low <= rate <= high for _, low, high in found])
    # Three standard errors are 0.015. It may cover more: few items are discrete.
    assert 0.935 <= coverage <= 0.99


@pytest.mark.parametrize("first, second", [(0.5, 0.5), (0.9, 0.8), (0.99, 0.02)])
def test_it_covers_a_difference_of_rates(first, second):
    rng = np.random.default_rng(0)
    shape = (2000, 5)
    differences = rng.binomial(100, first, shape) - rng.binomial(100, second, shape)
    found = [bounded_interval(row, (-1, 1), 100) for row in differences / 100]
    inside = [low <= first - second <= high for _, low, high in found]
    assert 0.935 <= np.mean(inside) <= 0.99


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_equal_values_at_a_bound_give_clopper_and_pearsons_interval(level):
    low = stats.binomtest(40, 40).proportion_ci(level, "exact").low
    assert bounded_interval([1.0] * 5, (0, 1), 40, level) == (1, pytest.approx(low), 1)
    high = bounded_interval([0.0] * 5, (0, 1), 40, level).high
    assert high == pytest.approx(1 - low)
    equal = mean_of_seeds([1.0] * 5, (0, 1), 40)
    assert isinstance(equal, EqualValues)
    assert equal.p_above(0.9) == pytest.approx(
        stats.binomtest(40, 40, 0.9, "greater").pvalue
    )
    assert equal.p_below(0.9) == equal.p_above(1.0) == 1.0
    assert equal.p_above(low) == pytest.approx((1 - level) / 2)


def test_equal_values_inside_the_bounds_keep_a_width_on_both_sides():
    unseen = 1 - 0.025 ** (1 / 100)
    interval = bounded_interval([0.0] * 3, (-1, 1), 100)
    assert interval == pytest.approx((0, -unseen, unseen))
    equal = mean_of_seeds([0.0] * 3, (-1, 1), 100)
    assert equal.p_below(unseen) == pytest.approx(0.025)
    assert equal.p_below(1.5) == 0.0
    off_centre = mean_of_seeds([0.5] * 3, (-1, 1), 100)
    for limit, p in zip(
        off_centre.interval()[1:], (off_centre.p_above, off_centre.p_below)
    ):
        assert p(limit) == pytest.approx(0.025)
    assert equal.standard_error == pytest.approx(unseen / stats.norm.ppf(0.975))


def test_values_equal_but_for_rounding_are_equal():
    values = [0.3, 0.1 + 0.2, 0.3]
    assert isinstance(mean_of_seeds(values, (0, 1), 10), EqualValues)


def test_without_items_or_bounds_equal_values_have_no_width():
    assert bounded_interval([0.5, 0.5]) == (0.5, 0.5, 0.5)
    assert mean_of_seeds([0.5, 0.5], None, 10).interval() == (0.5, 0.5, 0.5)


def test_a_single_seed_inside_bounds_leaves_all_of_them():
    assert bounded_interval([0.3], (0, 1), 10) == (0.3, 0.0, 1.0)
    lone = mean_of_seeds([0.3])
    assert lone.p_above(0.0) == lone.p_below(0.0) == 1.0


# --- p-values ----------------------------------------------------------------


@pytest.mark.parametrize("bounds", [None, (0, 1)])
def test_a_p_value_is_the_level_at_which_the_interval_touches(bounds):
    estimate = mean_of_seeds(VALUES, bounds)
    for level in (0.5, 0.9, 0.999):
        low, high = estimate.interval(level)[1:]
        assert estimate.p_above(low) == pytest.approx((1 - level) / 2)
        assert estimate.p_below(high) == pytest.approx((1 - level) / 2)


def test_p_values_are_scipys():
    expected = stats.ttest_1samp(VALUES, 0.8, alternative="greater").pvalue
    assert mean_of_seeds(VALUES).p_above(0.8) == pytest.approx(expected)
    normal = Estimate(1.0, 0.5)
    assert normal.p_above(0.0) == pytest.approx(stats.norm.sf(2))
    # Beyond the bounds nothing can be.
    assert mean_of_seeds(VALUES, (0, 1)).p_above(1.0) == 1.0
    assert mean_of_seeds(VALUES, (0, 1)).p_above(-0.1) == 0.0


def test_the_standard_error_is_in_the_unit_of_the_metric():
    expected = stats.sem(VALUES)
    assert mean_of_seeds(VALUES).standard_error == pytest.approx(expected)
    assert mean_of_seeds(VALUES, (0, 1)).standard_error == pytest.approx(expected)


@pytest.mark.parametrize("bounds", [None, (0, 1)])
def test_an_interval_gives_its_estimate_back(bounds):
    estimate = mean_of_seeds(VALUES, bounds)
    again = estimate_of_interval(estimate.interval(), bounds, estimate.df)
    assert (again.error, again.df) == pytest.approx((estimate.error, 3))


# --- Seeds and items ---------------------------------------------------------


def table(rng, seeds, items, by_seed, by_item, rest):
    return (
        by_seed * rng.normal(size=(seeds, 1))
        + by_item * rng.normal(size=(1, items))
        + rest * rng.normal(size=(seeds, items))
    )


def test_the_two_level_error_is_that_of_a_two_way_table():
    """Mean squares as statsmodels has them."""
    import pandas as pd
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    values = table(np.random.default_rng(0), 4, 9, 1.0, 1.0, 0.5)
    rows = [(s, i, values[s, i]) for s in range(4) for i in range(9)]
    frame = pd.DataFrame(rows, columns=["seed", "item", "value"])
    squares = anova_lm(ols("value ~ C(seed) + C(item)", frame).fit())["mean_sq"]
    variance = squares.iloc[0] + squares.iloc[1] - squares.iloc[2]
    found = mean_of_seeds_and_items(values)
    assert found.value == pytest.approx(values.mean())
    assert found.error == pytest.approx(math.sqrt(variance / 36))
    parts = squares.to_numpy() / 36
    df = (variance / 36) ** 2 / (parts**2 / [3, 8, 24]).sum()
    assert found.df == pytest.approx(df)


def test_it_is_the_crossed_bootstrap_without_its_bias():
    """With many of both, drawing seeds and items anew gives the same error."""
    rng = np.random.default_rng(0)
    seeds, items = 40, 60
    values = table(rng, seeds, items, 1.0, 1.0, 0.3)
    by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=2000) / seeds
    by_item = rng.multinomial(items, np.full(items, 1 / items), size=2000) / items
    drawn = ((by_seed @ values) * by_item).sum(1)
    assert mean_of_seeds_and_items(values).error == pytest.approx(drawn.std(), rel=0.06)


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize(
    "spreads", [(0.3, 0.3, 0.3), (0.3, 0, 1), (0, 1, 0.3), (0.2, 0.3, 1)], ids=str
)
def test_two_levels_cover_as_often_as_they_say(seeds, spreads):
    rng = np.random.default_rng(0)
    found = [two_level_interval(table(rng, seeds, 40, *spreads)) for _ in range(1000)]
    # Three standard errors are 0.02.
    assert 0.93 <= np.mean([low <= 0 <= high for _, low, high in found]) <= 0.98


def test_other_items_matter_where_seeds_agree():
    """The same answers from every seed: a t-interval over seeds would see nothing."""
    right = np.tile([1.0, 1.0, 1.0, 0.0], (5, 10))
    assert t_interval(right.mean(1)).low == 0.75
    value, low, high = two_level_interval(right, (0, 1))
    wilson = wilson_interval(30, 40)
    assert (low, high) == pytest.approx((wilson.low, wilson.high), abs=0.02)


def test_two_levels_stay_inside_bounds_and_keep_a_width():
    nearly = np.ones((5, 50))
    nearly[0, 0] = 0
    value, low, high = two_level_interval(nearly, (0, 1))
    assert 0 < low < value < high < 1
    value, low, high = two_level_interval(np.ones((5, 50)), (0, 1))
    assert (value, low, high) == (1, pytest.approx(0.025 ** (1 / 50)), 1)
    assert two_level_interval(np.ones((5, 50))) == (1, 1, 1)


def test_weighted_items_may_lie_outside_the_bounds_of_their_mean():
    table = np.array([[1.8, -0.2, 0.1, 0.3], [1.6, 0.0, 0.0, 0.2]])
    interval = two_level_interval(table, (-1, 1))
    assert interval.value == pytest.approx(table.mean())
    assert -1 <= interval.low < interval.value < interval.high <= 1
    with pytest.raises(ValueError, match="values must lie in"):
        two_level_interval(table + 1, (-1, 1))


# --- In words ------------------------------------------------------------------


@pytest.mark.parametrize(
    "low, high, null, said",
    [
        (0.1, 0.3, 0, "up"),
        (-0.3, -0.1, 0, "down"),
        (-0.1, 0.3, 0, "?"),
        (0.1, 0.3, 0.2, "?"),
        (0.1, 0.3, 0.5, "down"),
        (-np.inf, np.inf, 0, "?"),
    ],
)
def test_what_is_said_depends_on_the_interval(low, high, null, said):
    interval = Interval((low + high) / 2 if np.isfinite(low) else 9.0, low, high)
    assert reading(interval, "up", "down", "?", null) == said


@pytest.mark.parametrize(
    "interval, text",
    [
        ((0.5, 0.1, 0.9), "above"),
        ((-0.5, -0.9, -0.1), "below"),
        ((0.1, -0.1, 0.3), "unclear"),
        ((0.5, -np.inf, np.inf), "unclear"),
    ],
)
def test_words_follow_the_interval(interval, text):
    words = ("above", "below", "unclear")
    assert reading(Interval(*interval), *words) == text


def test_words_follow_another_limit():
    words = ("above", "below", "unclear")
    assert reading(Interval(0.6, 0.55, 0.7), *words, null=0.5) == "above"
    assert reading(Interval(0.6, 0.45, 0.7), *words, null=0.5) == "unclear"
