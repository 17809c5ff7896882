"""Bands hold what they promise: other seeds stay inside, a real shift does not."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from alignlab.runs import bands
from alignlab.runs.bands import (
    Band,
    band_of,
    joint_p,
    moderated,
    prior_of,
    tolerance_of,
)


def test_a_band_is_the_prediction_interval_of_students_t():
    values = [0.61, 0.58, 0.66, 0.63, 0.57]
    band = band_of(values, k=3)
    error = np.std(values, ddof=1) * math.sqrt(1 / 5 + 1 / 3)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=error)
    assert band.mean - band.half_width() == pytest.approx(low)
    assert band.mean + band.half_width() == pytest.approx(high)
    assert band.p(high) == pytest.approx(0.05)
    assert band.score(high) == pytest.approx(stats.norm.ppf(0.975))
    assert band.score(low) == pytest.approx(stats.norm.ppf(0.025))


@pytest.mark.parametrize("m, k", [(3, 3), (5, 3), (4, 1), (10, 10)])
def test_other_seeds_are_outside_as_often_as_promised(m, k):
    rng = np.random.default_rng(0)
    p = [
        band_of(rng.normal(3.0, 2.0, m).tolist(), k).p(rng.normal(3.0, 2.0, k).mean())
        for _ in range(1500)
    ]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.02)
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_the_wider_of_spread_and_recorded_interval_counts():
    values = [0.5, 0.52, 0.48]
    by_seeds = band_of(values, 3)
    stated = band_of(values, 3, stated=0.1, stated_df=20.0)
    assert stated.half_width() == pytest.approx(stats.t.ppf(0.975, 20) * 0.1)
    assert by_seeds.half_width() == pytest.approx(
        stats.t.ppf(0.975, 2) * 0.02 * math.sqrt(2 / 3)
    )
    assert band_of(values, 3, stated=0.001).half_width() == by_seeds.half_width()


def test_within_the_tolerance_nothing_counts():
    band = band_of([1.0, 1.0, 1.0], 3, tolerance=0.02)
    assert band.p(0.985) == 1.0 and band.half_width() == 0.02
    assert band.p(0.97) == 0.0  # a constant has no spread to explain it
    assert abs(band.score(0.99)) < 2
    only = Band(2.0, math.nan, 0, 0.0, tolerance=0.1)
    assert only.p(2.09) == 1.0 and only.p(2.2) == 0.0


def test_what_never_varied_is_judged_by_the_odds_of_being_the_odd_one_out():
    assert bands.odd_one_out(5, 1) == pytest.approx(1 / 6)
    assert bands.odd_one_out(3, 3) == pytest.approx(1 / 20)
    band = replace(band_of([0.0] * 5, 1), least_p=1 / 6)
    assert band.p(0.9) == pytest.approx(1 / 6) and band.p(0.0) == 1.0
    assert band.score(0.9) == pytest.approx(-stats.norm.ppf(1 / 12))


def test_a_spread_of_rounding_alone_is_none():
    third = 0.04761904761904758, 0.047619047619047575, 0.047619047619047575
    assert bands.band_of(third, 1).sd == 0.0
    assert bands.band_of([1e-12, 3e-12], 1).sd == pytest.approx(2**0.5 * 1e-12)


def test_a_tolerance_is_two_points_of_a_share_or_three_questions():
    assert tolerance_of("", 0.5, 1000) == 0.02
    assert tolerance_of("", 0.5, 30) == pytest.approx(0.1)
    assert tolerance_of("gold", -3.0, 30) == pytest.approx(0.06)
    assert tolerance_of("gold", 3.0, None, explicit=0.5) == 0.5


def test_the_prior_of_spreads_is_found_again():
    """Variances drawn from the model: d0 = 6 degrees of freedom around s0^2 = 2."""
    rng = np.random.default_rng(1)
    true = 6 * 2.0 / rng.chisquare(6, 20000)
    seen = true * rng.chisquare(4, 20000) / 4
    df, variance = prior_of(seen, 4)
    assert df == pytest.approx(6, rel=0.1)
    assert variance == pytest.approx(2.0, rel=0.05)


def test_equal_spreads_have_an_infinite_prior():
    rng = np.random.default_rng(2)
    seen = 3.0 * rng.chisquare(4, 5000) / 4
    df, variance = prior_of(seen, 4)
    assert df > 50 and variance == pytest.approx(3.0, rel=0.05)


def test_moderated_spreads_lie_between_their_own_and_the_others():
    rng = np.random.default_rng(3)
    recorded = {f"m{i}": rng.normal(0, 0.1, 3).tolist() for i in range(40)}
    recorded["still"] = [0.5, 0.5, 0.5]
    own = {name: band_of(values, 3) for name, values in recorded.items()}
    drawn = moderated(own, dict.fromkeys(own, ""))
    assert all(drawn[name].df > own[name].df for name in own)
    spread = [np.std([b.sd for b in bands.values()]) for bands in (drawn, own)]
    assert spread[0] < spread[1]
    assert 0 < drawn["still"].sd < 0.15
    few = {name: own[name] for name in list(own)[:5]}
    assert moderated(few, dict.fromkeys(few, "")) == few  # too few to learn from


def test_moderation_keeps_the_rate_of_false_alarms():
    """Spreads that differ threefold either way, three seeds against three others."""
    rng = np.random.default_rng(4)
    p = []
    for _ in range(150):
        sd = np.exp(rng.normal(0, 1.0, 40))
        old, new = rng.normal(0, sd, (3, 40)), rng.normal(0, sd, (3, 40)).mean(0)
        own = {str(i): band_of(old[:, i].tolist(), 3) for i in range(40)}
        drawn = moderated(own, dict.fromkeys(own, ""))
        p += [drawn[str(i)].p(new[i]) for i in range(40)]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.01)
    assert np.mean(np.array(p) < 0.001) < 0.0035


def test_scores_of_independent_metrics_add_up_to_chi_square():
    scores = [0.5, -1.2, 2.0, 0.1]
    rng = np.random.default_rng(5)
    much = rng.normal(size=(400, 4))
    h = 4 / (1 + 3 * bands.COMMON)  # so much is always taken to be common
    assert joint_p(scores, much) == pytest.approx(
        stats.chi2.sf(sum(s**2 for s in scores) * h / 4, h), rel=0.05
    )


def test_metrics_that_are_one_count_as_one():
    rng = np.random.default_rng(6)
    one = rng.normal(size=(5, 1)) @ np.ones((1, 6))
    assert bands.effective_number(6, one) == pytest.approx(1.0)
    assert joint_p([2.0] * 6, one) == pytest.approx(2 * stats.norm.sf(2.0))
    assert joint_p([2.0] * 6) == joint_p([2.0] * 6, one)  # nothing known: the same


def simulated(shift, m=5, k=5, metrics=30, factors=2, rho=0.5, checks=100, seed=7):
    """The share of checks that raise an alarm, by single metrics and all together, when
    metrics share a part ``rho`` of their variance with some factors, and all move by
    ``shift`` standard deviations, each in a direction of its own."""
    rng = np.random.default_rng(seed)
    alone = together = 0
    for _ in range(checks):
        sd = np.exp(rng.normal(0, 0.8, metrics))
        loading = rng.normal(size=(factors, metrics))
        loading /= np.linalg.norm(loading, axis=0)

        common = rng.normal(size=(m + k, factors)) @ loading
        own = rng.normal(size=(m + k, metrics))
        drawn = sd * (math.sqrt(rho) * common + math.sqrt(1 - rho) * own)
        old = drawn[:m]
        new = drawn[m:].mean(0) + shift * sd * rng.choice([-1, 1], metrics)
        own = {i: band_of(old[:, i].tolist(), k) for i in range(metrics)}
        named = moderated(own, dict.fromkeys(own, ""))
        p = [named[i].p(new[i]) for i in range(metrics)]
        scores = [own[i].score(new[i]) for i in range(metrics)]
        alone += min(p) <= bands.ERROR / 2 / metrics
        together += joint_p(scores, old) <= bands.ERROR / 2
    return alone / checks, together / checks


def test_other_seeds_raise_no_alarm():
    for seeds in (3, 5):
        alone, together = simulated(shift=0.0, m=seeds, k=seeds)
        assert alone <= 0.03 and together <= 0.02


def test_a_shift_of_one_standard_deviation_of_all_metrics_is_caught():
    """With ten seeds in one notebook, and with five over several notebooks. With five
    in one notebook it takes two standard deviations."""
    assert simulated(shift=1.0, m=10, k=10, metrics=60, checks=30)[1] > 0.9
    assert simulated(shift=1.0, metrics=120, factors=12, checks=20)[1] > 0.9
    assert simulated(shift=2.0, checks=30)[1] > 0.9
