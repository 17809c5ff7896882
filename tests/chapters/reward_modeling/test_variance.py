"""Variance components against simulated chains and a library's mixed model."""

import numpy as np
import pytest

from alignlab.chapters.reward_modeling.variance import chance_to_see, components


def simulated(rng, g, m, between, within):
    effects = between * rng.normal(size=(g, 1))
    return 3.0 + effects + within * rng.normal(size=(g, m))


def test_many_references_give_the_components_they_were_drawn_with():
    found = components(simulated(np.random.default_rng(0), 4000, 3, 2.0, 1.0))
    assert found.between == pytest.approx(2.0, rel=0.05)
    assert found.within == pytest.approx(1.0, rel=0.05)
    assert found.share.value == pytest.approx(0.8, abs=0.02)
    assert 0.77 < found.share.low < 0.8 < found.share.high < 0.83


def test_the_estimate_is_that_of_a_mixed_model():
    import statsmodels.api as sm

    values = simulated(np.random.default_rng(1), 12, 4, 1.0, 0.7)
    groups = np.repeat(np.arange(12), 4)
    model = sm.MixedLM(values.ravel(), np.ones(48), groups=groups).fit(reml=True)
    found = components(values)  # of balanced data, restricted likelihood is the same
    assert found.between**2 == pytest.approx(float(model.cov_re[0, 0]), rel=1e-3)
    assert found.within**2 == pytest.approx(model.scale, rel=1e-3)


@pytest.mark.parametrize("between", [0.0, 0.5, 1.0])
def test_the_interval_of_the_share_covers_as_often_as_it_says(between):
    rng = np.random.default_rng(2)
    share = between**2 / (1 + between**2)
    found = [components(simulated(rng, 5, 3, between, 1.0)).share for _ in range(1000)]
    covered = np.mean([f.low <= share <= f.high for f in found])
    # A share of 0 is never missed from below. Three standard errors of 0.95: 0.02.
    assert covered == pytest.approx(0.95 if between else 0.975, abs=0.025)
    width = np.mean([f.high - f.low for f in found])
    assert width > 0.5, "five references tell little, and the interval says so"


def test_units_change_the_spread_and_not_the_share():
    values = simulated(np.random.default_rng(3), 5, 2, 1.0, 1.0)
    one, other = components(values), components(100 * values - 7)
    assert other.share == pytest.approx(one.share)
    assert other.between == pytest.approx(100 * one.between)


def test_draws_that_differ_less_between_than_within_have_no_share():
    found = components([[1.0, 3.0], [1.1, 2.9], [0.9, 3.1]])
    assert found.between == 0 and found.share.value == 0 == found.share.low


@pytest.mark.parametrize("values", [[[1, 2, 3]], [[1], [2]], [[1, 2], [3]]])
def test_designs_that_are_not_nested_are_refused(values):
    with pytest.raises(ValueError, match="each with two draws or more"):
        components(values)
    with pytest.raises(ValueError, match="nothing was drawn anew"):
        components([[1, 1], [2, 2]])


def test_the_chance_to_see_an_effect_is_how_often_it_is_seen():
    from scipy import stats

    rng = np.random.default_rng(4)
    values = 0.02 + 0.015 * rng.normal(size=(4000, 5, 3)).mean(axis=2)
    low = stats.ttest_1samp(values, 0.01, axis=1, alternative="greater").pvalue
    seen = np.mean(low < 0.025)
    expected = chance_to_see(0.02 - 0.01, 0.015, seeds=5, draws=3)
    assert 0.3 < expected < 0.95
    assert seen == pytest.approx(expected, abs=0.025)  # three standard errors
