"""Intervals that cover, nulls that match closed forms, tests with the right level."""

import math
from functools import partial

import numpy as np
import pytest
from scipy import stats

from alignlab.calibration import (
    auroc,
    bootstrap_interval,
    brier_score,
    calibration_error_interval,
    calibration_summary,
    calibration_test,
    consistency_band,
    cumulative_test,
    expected_calibration_error,
    null_calibration_error,
    smooth_calibration_error,
    spiegelhalter_test,
    squared_error_difference,
    squared_error_interval,
)
from alignlab.calibration.inference import _brownian_exceeds
from alignlab.calibration.metrics import bin_edges, bin_index


def shifted(rng, n, gap):
    """Confidences, and outcomes that happen less often by ``gap``, everywhere."""
    confidence = rng.uniform(0.35, 0.95, n)
    return confidence, (rng.random(n) < confidence - gap).astype(int)


# --- What chance shows ------------------------------------------------------------


def test_null_error_is_the_exact_one_of_a_small_case():
    """Two bins of two: every outcome counted."""
    p = np.array([0.2, 0.3, 0.6, 0.9])
    expected = 0.0
    for outcome in np.ndindex(2, 2, 2, 2):
        y = np.array(outcome)
        chance = np.prod(np.where(y == 1, p, 1 - p))
        expected += chance * expected_calibration_error(p, y, 2)
    result = null_calibration_error(p, 2, n_samples=20_000)
    assert result == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_null_error_is_that_of_normal_gaps_where_bins_are_full(strategy):
    confidence = np.random.default_rng(0).beta(4, 2, 20_000)
    edges = bin_edges(confidence, 15, strategy)
    where = bin_index(confidence, edges)
    variance = np.bincount(where, confidence * (1 - confidence))
    closed = np.sqrt(2 * variance / np.pi).sum() / 20_000
    result = null_calibration_error(confidence, strategy=strategy, n_samples=1000)
    assert result == pytest.approx(closed, rel=0.02)
    root = null_calibration_error(confidence, 15, strategy, "l2")
    count = np.bincount(where)
    filled = count > 0
    mean_square = (variance[filled] / count[filled]).sum() / 20_000
    assert root == pytest.approx(math.sqrt(mean_square), rel=0.05)  # Jensen: just below
    assert null_calibration_error(confidence, 15, strategy, "max") > root


def test_null_error_falls_with_the_root_of_n_and_is_reproducible():
    p = np.random.default_rng(1).beta(4, 2, 8000)
    few, many = null_calibration_error(p[:500]), null_calibration_error(p)
    assert few == pytest.approx(4 * many, rel=0.15)
    assert null_calibration_error(p) == many != null_calibration_error(p, seed=1)


def test_consistency_band_is_the_binomial_one_of_equal_forecasts():
    confidence = np.repeat([0.3, 0.8], [50, 200])
    low, high = consistency_band(confidence, 10, n_samples=20_000)
    for b, (n, p) in {2: (50, 0.3), 7: (200, 0.8)}.items():
        expected = stats.binom.ppf([0.025, 0.975], n, p) / n
        assert [low[b], high[b]] == pytest.approx(expected, abs=1.01 / n)
    assert np.isnan(low).sum() == np.isnan(high).sum() == 8
    wider = consistency_band(confidence, 10, level=0.999)
    assert wider[0][7] < low[7] and wider[1][7] > high[7]


# --- Intervals --------------------------------------------------------------------


def test_value_is_its_formula_written_out():
    p, y = shifted(np.random.default_rng(0), 120, 0.1)
    t = 0.0
    for part in np.split(np.argsort(p), 4):
        d = (y - p)[part]
        t += (d.sum() ** 2 - (d**2).sum()) / (len(d) - 1) / 120
    result = squared_error_interval(p, y, n_bins=4)
    assert result.value == pytest.approx(t, rel=1e-12)
    root = calibration_error_interval(p, y, n_bins=4)
    assert root == pytest.approx([math.sqrt(max(x, 0)) for x in result], rel=1e-12)
    point = expected_calibration_error(p, y, 4, "quantile", "l2", debias=True)
    assert root.value == pytest.approx(point, rel=1e-12)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_summary_is_the_single_numbers(strategy):
    p, y = shifted(np.random.default_rng(0), 300, 0.1)
    result = calibration_summary(p, y, 10, strategy)
    single = partial(expected_calibration_error, p, y, 10, strategy)
    assert result.n == 300 and result.accuracy == pytest.approx(y.mean())
    assert result.confidence == pytest.approx(p.mean())
    assert (result.ece, result.mce) == (single(), single(norm="max"))
    assert result.rms == calibration_error_interval(p, y, 10, strategy)
    assert result.brier == pytest.approx(brier_score(p, y), rel=1e-12)


@pytest.mark.parametrize("gap", [0.0, 0.05, 0.15])
@pytest.mark.parametrize("n", [200, 1000])
@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_interval_covers_the_truth(gap, n, strategy):
    rng = np.random.default_rng(int(1000 * gap) + n)
    hits, rejected = 0, 0
    for _ in range(500):
        result = calibration_error_interval(*shifted(rng, n, gap), strategy=strategy)
        hits += result.low <= gap <= result.high
        rejected += result.low > 0
    assert hits / 500 >= 0.93
    if gap == 0:
        assert rejected / 500 <= 0.07  # it spends its whole error probability here
    if gap == 0.15:
        assert rejected / 500 >= 0.95  # it covers because it is right, not because wide


def test_interval_covers_a_gap_that_changes_with_confidence():
    """Over-confident above, under-confident below: the root mean square of both."""
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(500):
        confidence = rng.uniform(0.2, 0.9, 800)
        gap = np.where(confidence > 0.55, 0.1, -0.1)  # on an edge of 14 equal bins
        correct = rng.random(800) < confidence - gap
        low, high = calibration_error_interval(confidence, correct, 14)[1:]
        hits += low <= 0.1 <= high
    assert hits / 500 >= 0.93


def test_bootstrap_of_the_plug_in_error_misses_and_says_so():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(20):
        p, y = shifted(rng, 500, 0.0)
        with pytest.warns(UserWarning, match="plug-in error.*calibration_error_interv"):
            result = bootstrap_interval(
                expected_calibration_error, p, y, n_resamples=100, seed=seed
            )
        hits += result.low <= 0 <= result.high
    assert hits == 0


def pair_of_models(rng, n, gaps, shared):
    """Two models asked the same items; ``shared`` of the luck is common to both."""
    confidence = rng.uniform(0.35, 0.95, n)
    other = np.clip(confidence + rng.normal(0, 0.02, n), 0.3, 1.0)
    luck = rng.random(n)
    own = np.where(rng.random(n) < shared, luck, rng.random(n))
    first = confidence, (luck < confidence - gaps[0]).astype(int)
    return first, (other, (own < other - gaps[1]).astype(int))


@pytest.mark.parametrize("gaps", [(0.0, 0.0), (0.05, 0.05), (0.15, 0.05)])
@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_difference_covers_and_gains_from_pairing(gaps, shared):
    rng = np.random.default_rng(7)
    truth = gaps[0] ** 2 - gaps[1] ** 2
    hits, widths, apart = 0, [], []
    for _ in range(300):
        first, second = pair_of_models(rng, 600, gaps, shared)
        result = squared_error_difference(first, second)
        hits += result.low <= truth <= result.high
        widths.append(result.high - result.low)
        order = rng.permutation(600)  # other items: nothing is shared
        _, low, high = squared_error_difference(first, [x[order] for x in second])
        apart.append(high - low)
    assert hits / 300 >= 0.93
    ratio = np.mean(widths) / np.mean(apart)
    assert ratio < 0.9 if shared else 0.95 < ratio < 1.02


def test_a_model_does_not_differ_from_itself():
    p, y = shifted(np.random.default_rng(0), 500, 0.1)
    result = squared_error_difference((p, y), (p, y))
    own = squared_error_interval(p, y)
    assert result.value == 0
    assert result.high - result.low < 0.3 * (own.high - own.low)


def test_bootstrap_covers_a_mean():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        x = rng.normal(1.0, 1.0, 60)
        result = bootstrap_interval(np.mean, x, n_resamples=200, seed=seed)
        hits += result.low <= 1.0 <= result.high
    assert 0.88 <= hits / 200 <= 0.98


def test_bootstrap_draws_items_together_and_groups_whole():
    p, y = shifted(np.random.default_rng(0), 300, 0.1)
    same = bootstrap_interval(lambda a, b: float(np.mean(a - b)), p, p, n_resamples=50)
    assert same == (0, 0, 0)
    score = bootstrap_interval(brier_score, p, y, n_resamples=300)
    assert score.value == brier_score(p, y) and score.low < score.value < score.high
    # Ten copies of each item know no more than one does.
    copies = bootstrap_interval(
        brier_score,
        np.repeat(p, 10),
        np.repeat(y, 10),
        groups=np.repeat(np.arange(300), 10),
        n_resamples=300,
    )
    assert copies.high - copies.low == pytest.approx(score.high - score.low, rel=0.25)
    threes = np.repeat(np.arange(100), 3)
    result = bootstrap_interval(
        lambda key: np.unique(key, return_counts=True)[1].min() % 3 + len(key),
        threes,
        groups=threes,
        n_resamples=50,
    )
    assert result == (300, 300, 300)  # all the members of a group, or none
    again = bootstrap_interval(brier_score, p, y, n_resamples=300)
    assert again == score


def test_bootstrap_warns_of_plug_in_errors_only(recwarn):
    p, y = shifted(np.random.default_rng(0), 60, 0.1)
    root = partial(expected_calibration_error, norm="l2", debias=True)
    for metric in (brier_score, auroc, root):
        bootstrap_interval(metric, p, y, n_resamples=5)
    assert not recwarn.list
    for metric in (partial(expected_calibration_error, n_bins=5),):
        with pytest.warns(UserWarning, match="plug-in"):
            bootstrap_interval(metric, p, y, n_resamples=2)
    with pytest.warns(UserWarning, match="smooth_calibration_error is a plug-in"):
        bootstrap_interval(smooth_calibration_error, p, y, n_resamples=1)


# --- Tests ------------------------------------------------------------------------


def test_spiegelhalter_by_hand():
    p, y = np.array([0.2, 0.7, 0.9]), np.array([1, 1, 0])
    top = 0.8 * 0.6 + 0.3 * -0.4 + -0.9 * -0.8
    bottom = 0.36 * 0.16 + 0.16 * 0.21 + 0.64 * 0.09
    z = top / math.sqrt(bottom)
    result = spiegelhalter_test(p, y)
    assert result.statistic == pytest.approx(z, rel=1e-12)
    assert result.p_value == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-12)


@pytest.mark.parametrize(
    "test", [calibration_test, spiegelhalter_test, cumulative_test]
)
def test_tests_reject_five_in_a_hundred_calibrated_models_and_find_others(test):
    rng = np.random.default_rng(0)
    calibrated, extreme = [], []
    for _ in range(600):
        p = rng.beta(2, 1, 800)
        y = rng.random(800) < p
        calibrated.append(test(p, y).p_value < 0.05)
        over = np.clip(p + 0.25 * (p - 0.5), 0, 1)
        extreme.append(test(over, y).p_value < 0.05)
    assert 0.03 <= np.mean(calibrated) <= 0.07
    assert np.mean(extreme) > 0.5


def test_spiegelhalter_tells_the_direction():
    rng = np.random.default_rng(0)
    p = rng.beta(1, 1, 4000)
    y = rng.random(4000) < p
    sure, shy = np.clip(1.3 * p - 0.15, 0, 1), 0.7 * p + 0.15
    assert spiegelhalter_test(sure, y).statistic > 3
    assert spiegelhalter_test(shy, y).statistic < -3


def test_cumulative_statistic_by_hand_and_blind_to_the_order_of_ties():
    p, y = np.array([0.5, 0.2, 0.5, 0.8]), np.array([1, 1, 0, 0])
    path = [0.8, 0.8, 0.0]  # after 0.2, after both of 0.5, after 0.8
    scale = math.sqrt(0.16 + 0.25 + 0.25 + 0.16)
    result = cumulative_test(p, y)
    assert result.statistic == pytest.approx(max(path) / scale, rel=1e-12)
    swapped = cumulative_test(p[[2, 1, 0, 3]], y[[2, 1, 0, 3]])
    assert swapped == pytest.approx(result, rel=1e-12)


def test_both_series_of_the_brownian_maximum_agree():
    # 2.2414 is the 95% point of the maximum of |W|.
    assert _brownian_exceeds(2.24140) == pytest.approx(0.05, abs=1e-5)
    assert _brownian_exceeds(1 - 1e-12) == pytest.approx(_brownian_exceeds(1), rel=1e-9)
    steps = np.random.default_rng(0).normal(size=(4000, 1000)) / math.sqrt(1000)
    largest = np.abs(steps.cumsum(axis=1)).max(axis=1)
    for x in (0.6, 1.2, 1.8):
        result = _brownian_exceeds(x)
        assert result == pytest.approx((largest > x).mean(), abs=0.03)


def test_wrong_arguments_are_named():
    p, y = shifted(np.random.default_rng(0), 20, 0.1)
    with pytest.raises(ValueError, match="confidence holds only 0, 0.5 and 1"):
        spiegelhalter_test([0.5, 1.0], [1, 1])
    with pytest.raises(ValueError, match="confidence holds only 0 and 1"):
        cumulative_test([0.0, 1.0], [0, 1])
    for level in (0, 1, 1.5):
        for call in (
            squared_error_interval,
            calibration_error_interval,
            calibration_summary,
        ):
            with pytest.raises(ValueError, match="level must be between 0 and 1"):
                call(p, y, level=level)
    with pytest.raises(ValueError, match=r"second has 19 values: second\[19\] is miss"):
        squared_error_difference((p, y), (p[:19], y[:19]))
    with pytest.raises(ValueError, match=r"arrays\[1\]\[19\] is missing"):
        bootstrap_interval(brier_score, p, y[:19])
    with pytest.raises(ValueError, match="no item"):
        bootstrap_interval(brier_score)
    with pytest.raises(ValueError, match="norm is 'l0'"):
        null_calibration_error(p, norm="l0")
    with pytest.raises(ValueError, match=r"confidence\[1\] is 2.0"):
        consistency_band([0.5, 2.0])
    with pytest.raises(ValueError, match="lower n_bins"):
        calibration_error_interval([0.5], [1])
