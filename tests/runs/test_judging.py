"""Verdicts follow from intervals and thresholds, and err as seldom as they say."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from alignlab.evaluation.intervals import t_interval
from alignlab.runs.claims import Claim, Condition
from alignlab.runs.judging import (
    EQUIVALENT,
    INCONCLUSIVE,
    LEGEND,
    NEEDS_FULL,
    NOT_MEASURED,
    NOT_REPRODUCED,
    PRETRAINING_UNKNOWN,
    REPRODUCED,
    SIGNS,
    UNINFORMATIVE,
    VerdictTable,
    holm,
    holm_over,
    judge_claim,
    show_p,
    show_power,
)

EFFECT = Condition("gain", "above", 0.1, "the effect", null=0.0)
OTHER = Condition("loss", "below", -0.1, "the other effect", null=0.0)
LEVEL = Condition("format", "above", 0.9, "a level")
CONTROL = Condition(
    "twin", "below", 0.05, "nothing without it", control=True, breaks_if="it gains"
)
CLAIM = Claim(
    "demo", "00", "It helps.", "gain", "none", "", (EFFECT, OTHER, CONTROL), 3
)


def given(low, high, seeds=3):
    """A metric with an interval of its own."""
    middle = (low + high) / 2
    return {"value": middle, "low": low, "high": high, "seeds": [middle] * seeds}


def by_seeds(seeds, **more):
    return {**t_interval(seeds)._asdict(), "seeds": list(seeds), **more}


def alone(condition, metric):
    claim = replace(CLAIM, conditions=(condition,), min_seeds=1)
    return judge_claim(claim, {condition.metric: metric}).findings[0]


@pytest.mark.parametrize(
    "low, high, direction, threshold, result",
    [
        (0.51, 0.60, "above", 0.5, REPRODUCED),
        (0.50, 0.60, "above", 0.5, INCONCLUSIVE),  # touches from within: not beyond
        (0.40, 0.60, "above", 0.5, INCONCLUSIVE),
        (0.40, 0.4999, "above", 0.5, NOT_REPRODUCED),
        (0.50, 0.50, "above", 0.5, NOT_REPRODUCED),  # of no width, on its threshold
        (0.51, 0.51, "above", 0.5, REPRODUCED),
        (-0.2, -0.1, "below", 0.0, REPRODUCED),
        (-0.2, 0.0, "below", 0.0, INCONCLUSIVE),
        (-0.2, 0.1, "below", 0.0, INCONCLUSIVE),
        (0.0001, 0.1, "below", 0.0, NOT_REPRODUCED),
        (0.0, 0.0, "below", 0.0, NOT_REPRODUCED),
    ],
)
def test_an_interval_must_lie_wholly_beyond_its_threshold(
    low, high, direction, threshold, result
):
    condition = Condition("x", direction, threshold, "")
    assert alone(condition, given(low, high)).result == result


def test_an_effect_of_exactly_the_smallest_size_is_neither_shown_nor_none():
    for condition, value in ((EFFECT, 0.1), (OTHER, -0.1)):
        assert alone(condition, by_seeds([value] * 3)).result == NOT_REPRODUCED
        assert alone(condition, by_seeds([value / 2] * 3)).result == EQUIVALENT
        assert alone(condition, by_seeds([value * 2] * 3)).result == REPRODUCED


def test_p_values_are_scipys_over_seeds():
    seeds = [0.12, 0.2, 0.15, 0.11]
    finding = alone(EFFECT, by_seeds(seeds))
    expected = stats.ttest_1samp(seeds, 0.1, alternative="greater").pvalue
    assert finding.p == pytest.approx(expected)
    assert finding.p_against == pytest.approx(1 - expected)
    mirrored = alone(OTHER, by_seeds([-x for x in seeds]))
    assert mirrored.p == pytest.approx(expected)


def test_p_values_of_a_given_interval_are_normal():
    metric = {"value": 0.2, "low": 0.2 - 0.098, "high": 0.2 + 0.098, "seeds": None}
    assert alone(EFFECT, metric).p == pytest.approx(stats.norm.sf(2.0), rel=1e-3)
    # Limits that are not those of the seeds were given.
    assert alone(EFFECT, {**metric, "seeds": [0.1, 0.3]}).p == alone(EFFECT, metric).p


def test_inside_bounds_the_verdict_is_that_of_the_recorded_interval():
    """Values near a bound: beyond the threshold exactly if the interval is."""
    from alignlab.evaluation.intervals import mean_of_seeds

    rate = Condition("rate", "above", 0.9, "", bounds=(0.0, 1.0))
    rng = np.random.default_rng(0)
    for rates in rng.binomial(40, 0.97, size=(50, 4)) / 40:
        interval = mean_of_seeds(rates, (0, 1), 40).interval()
        metric = dict(interval._asdict(), seeds=list(rates), n=40, interval="seeds")
        assert (alone(rate, metric).result == REPRODUCED) == (interval.low > 0.9)


def test_equivalent_needs_two_one_sided_tests_at_5_percent():
    def interval_90(low, high):
        half = (high - low) / 2 * stats.norm.ppf(0.975) / stats.norm.ppf(0.95)
        return given((low + high) / 2 - half, (low + high) / 2 + half)

    for low, high, result in [
        (-0.099, 0.099, EQUIVALENT),
        (-0.101, 0.099, INCONCLUSIVE),
        (-0.090, 0.101, INCONCLUSIVE),
        (-0.020, 0.020, EQUIVALENT),  # and not beyond at 2.5%: equivalent wins
        (-0.150, -0.120, NOT_REPRODUCED),
    ]:
        assert alone(EFFECT, interval_90(low, high)).result == result
        # A level has no value of no effect, and a control no merit in showing nothing.
        level = replace(EFFECT, null=None)
        assert alone(level, interval_90(low, high)).result != EQUIVALENT
        control = replace(EFFECT, control=True)
        assert alone(control, interval_90(low, high)).result != EQUIVALENT


BEYOND, SMALL, AGAINST, OPEN = (0.2, 0.3), (-0.02, 0.02), (-0.4, -0.3), (0.0, 0.3)
HELD, BROKEN, UNCLEAR = (-0.1, 0.0), (0.1, 0.2), (0.0, 0.2)

# Effect, other effect (mirrored), control: the verdict. Every row of the table.
TRUTH = [
    (BEYOND, BEYOND, HELD, REPRODUCED),
    (BEYOND, SMALL, HELD, EQUIVALENT),
    (SMALL, BEYOND, HELD, EQUIVALENT),
    (SMALL, SMALL, HELD, EQUIVALENT),
    (BEYOND, AGAINST, HELD, NOT_REPRODUCED),
    (SMALL, AGAINST, HELD, NOT_REPRODUCED),
    (OPEN, AGAINST, HELD, NOT_REPRODUCED),
    (AGAINST, AGAINST, HELD, NOT_REPRODUCED),
    (BEYOND, OPEN, HELD, INCONCLUSIVE),
    (SMALL, OPEN, HELD, INCONCLUSIVE),
    (OPEN, OPEN, HELD, INCONCLUSIVE),
    *((a, b, UNCLEAR, INCONCLUSIVE) for a in (BEYOND, SMALL, AGAINST, OPEN)
      for b in (BEYOND, SMALL, AGAINST, OPEN)),
    *((a, b, BROKEN, UNINFORMATIVE) for a in (BEYOND, SMALL, AGAINST, OPEN)
      for b in (BEYOND, SMALL, AGAINST, OPEN)),
    (None, BEYOND, BROKEN, NOT_MEASURED),
    (BEYOND, BEYOND, None, NOT_MEASURED),
]  # fmt: skip


@pytest.mark.parametrize("effect, other, control, verdict", TRUTH)
def test_the_truth_table(effect, other, control, verdict):
    metrics = {
        "gain": effect and given(*effect),
        "loss": other and given(-other[1], -other[0]),
        "twin": control and given(*control),
    }
    metrics = {name: metric for name, metric in metrics.items() if metric}
    judged = judge_claim(CLAIM, metrics)
    assert judged.verdict == verdict
    for few in metrics:
        fewer = {**metrics, few: given(0, 1, seeds=2)}
        expected = NOT_MEASURED if len(metrics) < 3 else NEEDS_FULL
        assert judge_claim(CLAIM, fewer).verdict == expected


def test_a_claim_about_pretraining_has_no_verdict_on_a_model_of_other_people():
    metrics = {"gain": given(0.2, 0.3), "loss": given(-0.3, -0.2), "twin": given(-1, 0)}
    rests = replace(CLAIM, needs_known_pretraining="how often a fact was stated")
    for model in (None, "300k", "1m"):
        assert judge_claim(rests, metrics, model) == replace(
            judge_claim(CLAIM, metrics), claim=rests
        )
    judged = judge_claim(rests, metrics, "some/folder")
    assert judged.verdict == PRETRAINING_UNKNOWN
    assert judged.reason.startswith(
        "nobody knows how often a fact was stated in the pretraining of some/folder"
    )
    assert [f.value for f in judged.findings] == [0.25, -0.25, -0.5]
    assert {f.result for f in judged.findings} == {None}
    assert judged.p is None and judged.power is None and holm_over([judged]) == {}
    # Nor is it "not measured" where nothing could be measured.
    assert judge_claim(rests, {}, "some/folder").verdict == PRETRAINING_UNKNOWN
    # What any model can show is judged as ever.
    assert judge_claim(CLAIM, metrics, "some/folder") == judge_claim(CLAIM, metrics)
    table = VerdictTable([judged])
    assert repr(table).startswith("? pretraining unknown demo\n")
    for shown in (repr(table), table._repr_html_()):
        assert judged.reason in shown and "✓" not in shown


def test_a_lone_value_is_inconclusive():
    metric = {"value": 0.2, "low": None, "high": None, "seeds": [0.2, 0.2, 0.2]}
    assert alone(EFFECT, metric).result == INCONCLUSIVE
    claim = replace(CLAIM, conditions=(EFFECT,))
    metric["seeds"] = None
    assert judge_claim(claim, {"gain": metric}).verdict == NEEDS_FULL


def test_the_reason_names_what_decides():
    held = {"gain": given(0.2, 0.3), "loss": given(-0.3, -0.2), "twin": given(-0.1, 0)}
    fails = judge_claim(CLAIM, {**held, "twin": given(0.1, 0.2)})
    assert fails.reason == "twin = 0.15 (0.1 to 0.2), wanted below 0.05"
    missing = judge_claim(CLAIM, {name: held[name] for name in ("gain", "twin")})
    expected = "loss: not measured, wanted below -0.1 (null 0)"
    assert missing.reason == expected
    assert "gain" in judge_claim(CLAIM, held).reason


def test_a_metric_of_another_name_or_claim_does_not_count():
    claim = replace(CLAIM, conditions=(EFFECT,))
    for metrics in (
        {"Gain": given(1, 2)},
        {"gain": {**given(1, 2), "claim": "former"}},
    ):
        assert judge_claim(claim, metrics).verdict == NOT_MEASURED
    metrics = {"gain": {**given(1, 2), "claim": "demo"}}
    assert judge_claim(claim, metrics).verdict == REPRODUCED


def test_one_small_p_among_many_conditions_is_no_refutation():
    """Holm within the effects: p = 0.01 refutes alone, and not beside six others."""
    half = stats.norm.ppf(0.975)
    metric = {"value": -stats.norm.ppf(0.99), "seeds": [0.0] * 3}
    metric |= {"low": metric["value"] - half, "high": metric["value"] + half}
    levels = tuple(Condition(f"m{i}", "above", 0.0, "") for i in range(7))
    metrics = {item.metric: given(-1.0, 1.0) for item in levels} | {"m0": metric}
    seven = replace(CLAIM, conditions=levels)
    assert judge_claim(seven, metrics).verdict == INCONCLUSIVE
    alone = replace(CLAIM, conditions=levels[:1])
    assert judge_claim(alone, metrics).verdict == NOT_REPRODUCED


def test_controls_do_not_weigh_on_the_effects():
    """Nor effects on controls: each are a family of their own."""
    half = stats.norm.ppf(0.975)
    at = -stats.norm.ppf(0.99)
    metric = {"value": at, "low": at - half, "high": at + half, "seeds": [0.0] * 3}
    effect = Condition("effect", "above", 0.0, "")
    controls = tuple(
        Condition(f"m{i}", "above", 0.0, "", control=True, breaks_if="x")
        for i in range(5)
    )
    claim = replace(CLAIM, conditions=(effect, *controls))
    metrics = {item.metric: given(1.0, 2.0) for item in controls} | {"effect": metric}
    assert judge_claim(claim, metrics).verdict == NOT_REPRODUCED


def test_holm_is_statsmodels():
    rng = np.random.default_rng(0)
    for size in (1, 2, 7, 15):
        p_values = rng.random(size) ** 3
        expected = multipletests(p_values, method="holm")[1]
        assert holm(p_values) == pytest.approx(expected)
    assert holm([]) == []


def simulated(means, claim, runs=2000, seeds=5, seed=0):
    """Verdicts on many runs of a claim whose metrics have these means and spread 1."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(runs, len(means), seeds)) + np.array(means)[:, None]
    names = [item.metric for item in claim.conditions]
    return [
        judge_claim(claim, dict(zip(names, map(by_seeds, run)))).verdict
        for run in values
    ]


def rate(verdicts, verdict):
    return np.mean([item == verdict for item in verdicts])


def test_false_verdicts_are_as_rare_as_promised():
    # 2,000 runs: three standard errors of a rate of 0.025 are 0.010, of 0.05 0.015.
    seven = tuple(Condition(f"m{i}", "above", 1.0, "") for i in range(7))
    claim = replace(CLAIM, conditions=seven)
    at_threshold = simulated([1.0] * 7, claim)
    assert rate(at_threshold, NOT_REPRODUCED) <= 0.025 + 0.010
    assert rate(at_threshold, NOT_REPRODUCED) > 0.01  # but not for want of trying
    # The worst case for "reproduced": all but one far beyond.
    one = simulated([1.0] + [9.0] * 6, claim)
    assert rate(one, REPRODUCED) == pytest.approx(0.025, abs=0.010)
    # At the edge of the region "equivalent" errs in one of 20; far inside it is found.
    wide = (Condition("m", "above", 5.0, "", null=0.0),)
    claim = replace(CLAIM, conditions=wide)
    assert rate(simulated([5.0], claim), EQUIVALENT) == pytest.approx(0.05, abs=0.015)
    assert rate(simulated([-5.0], claim), EQUIVALENT) == pytest.approx(0.05, abs=0.015)
    assert rate(simulated([0.0], claim), EQUIVALENT) > 0.99


def test_a_control_on_its_threshold_is_rarely_called_broken():
    controls = tuple(
        Condition(f"m{i}", "above", 0.0, "", control=True, breaks_if="x")
        for i in range(4)
    )
    verdicts = simulated([0.0] * 4, replace(CLAIM, conditions=controls))
    assert 0.01 < rate(verdicts, UNINFORMATIVE) <= 0.025 + 0.010


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_power_is_statsmodels_and_what_simulation_gives(seeds):
    values = np.linspace(-1, 1, seeds)
    values = 0.3 + 0.08 * values / values.std(ddof=1)
    finding = alone(EFFECT, by_seeds(values))
    expected = TTestPower().power(0.1 / 0.08, seeds, 0.025, alternative="larger")
    assert finding.power == pytest.approx(expected, abs=1e-6)
    condition = replace(EFFECT, threshold=1.0)
    spread = by_seeds((values - 0.3) / 0.08)
    claim = replace(CLAIM, conditions=(condition,))
    power = judge_claim(claim, {"gain": spread}).power
    found = rate(simulated([2.0], claim, seeds=seeds), REPRODUCED)
    assert found == pytest.approx(power, abs=0.035)


def test_power_of_a_claim_is_the_least_of_its_conditions():
    metrics = {"gain": given(0.2, 0.3), "loss": given(-0.5, -0.1), "twin": given(0, 0)}
    judged = judge_claim(CLAIM, metrics)
    powers = [finding.power for finding in judged.findings]
    assert powers[2] is None and judged.power == powers[1] < powers[0]
    assert judge_claim(replace(CLAIM, conditions=(LEVEL,)), {}).power is None
    # Twice the smallest effect may be out of bounds: then the bound is supposed.
    rate = Condition("gain", "above", 0.9, "", null=0.5, bounds=(0.0, 1.0))
    nearer = replace(rate, bounds=None)
    metric = given(0.7, 0.8)
    assert alone(rate, metric).power < alone(nearer, metric).power
    # A control that has to show nothing is to hold if there is nothing.
    nothing = replace(CONTROL, threshold=0.1, null=0.0)
    assert alone(nothing, given(0.3, 0.4)).power == pytest.approx(
        stats.norm.sf(stats.norm.ppf(0.975) - 0.1 / (0.05 / stats.norm.ppf(0.975)))
    )


def test_power_survives_effects_of_no_spread():
    assert alone(EFFECT, by_seeds([0.2, 0.2, 0.2])).power == 1.0
    assert alone(EFFECT, by_seeds([0.2, 0.2, 0.2 + 1e-9])).power == 1.0


def test_holm_over_the_ledger_counts_what_has_a_verdict():
    metrics = {"gain": given(0.2, 0.3), "loss": given(-0.3, -0.2), "twin": given(-1, 0)}
    first = judge_claim(CLAIM, metrics)
    worst = max(finding.p for finding in first.findings)
    assert first.p == worst == first.findings[2].p
    second = replace(first, claim=replace(CLAIM, id="second"))
    missing = judge_claim(replace(CLAIM, id="third"), {})
    assert missing.p is None
    adjusted = holm_over([first, second, missing])
    assert adjusted == {"demo": 2 * worst, "second": 2 * worst}


def test_numbers_read_well():
    shown = [show_p(p) for p in (None, 0.0, 0.02, 0.026, 0.5)]
    assert shown == ["–", "✓ < 0.001", "✓ 0.020", "0.026", "0.50"]
    assert [show_power(x) for x in (None, 0.474, 1.0)] == ["–", "47%", "> 99%"]
    assert SIGNS.keys() == LEGEND.keys() and len(set(SIGNS.values())) == len(SIGNS)


def test_verdicts_show_themselves_as_text_and_as_a_table():
    sly = replace(CLAIM, claim="a < b & c", chosen_by_looking="x < y")
    held = {"gain": given(0.0, 0.3), "loss": given(-0.3, -0.2), "twin": given(-0.1, 0)}
    judged = judge_claim(sly, held)
    lines = repr(VerdictTable([judged])).splitlines()
    assert lines[0].split()[:3] == ["≈", "inconclusive", "demo,"]
    assert "power" in lines[0] and lines[-1].strip() == "chosen by looking: x < y"
    assert lines[3].strip().startswith("(control) twin")
    page = VerdictTable([judged])._repr_html_()
    assert "a &lt; b &amp; c" in page and "x &lt; y" in page
    assert "0.150 (0.000&nbsp;to&nbsp;0.300)" in page
    assert "above&nbsp;0.1&nbsp;(null&nbsp;0)" in page
    assert "an interval is too wide to say" in page
    assert repr(VerdictTable([])) == "this notebook has no claims"
    assert math.isfinite(judged.power)
