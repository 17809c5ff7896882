"""Verdicts follow from intervals and thresholds, and from nothing else."""

from dataclasses import replace

import pytest

from alignlab.runs import profiles
from alignlab.runs.claims import (
    INCONCLUSIVE,
    NEEDS_FULL,
    NOT_MEASURED,
    NOT_REPRODUCED,
    REPRODUCED,
    Claim,
    Condition,
    VerdictTable,
    judge_claim,
    judge_interval,
    judge_notebook,
    load_claims,
)


@pytest.mark.parametrize(
    "low, high, direction, threshold, verdict",
    [
        (0.51, 0.60, "above", 0.5, REPRODUCED),
        (0.50, 0.60, "above", 0.5, INCONCLUSIVE),  # touches from within: not beyond
        (0.40, 0.60, "above", 0.5, INCONCLUSIVE),
        (0.40, 0.50, "above", 0.5, NOT_REPRODUCED),  # touches from the other side
        (0.40, 0.49, "above", 0.5, NOT_REPRODUCED),
        (0.50, 0.50, "above", 0.5, NOT_REPRODUCED),
        (0.51, 0.51, "above", 0.5, REPRODUCED),
        (-0.2, -0.1, "below", 0.0, REPRODUCED),
        (-0.2, 0.0, "below", 0.0, INCONCLUSIVE),
        (-0.2, 0.1, "below", 0.0, INCONCLUSIVE),
        (0.0, 0.1, "below", 0.0, NOT_REPRODUCED),
        (0.1, 0.2, "below", 0.0, NOT_REPRODUCED),
        (0.0, 0.0, "below", 0.0, NOT_REPRODUCED),
    ],
)
def test_an_interval_must_lie_wholly_beyond_its_threshold(
    low, high, direction, threshold, verdict
):
    assert judge_interval(low, high, direction, threshold) == verdict


def test_below_mirrors_above():
    for low, high in [(-1, 1), (0, 1), (1, 2), (-1, 0), (-2, -1), (0, 0)]:
        above = judge_interval(low, high, "above", 0.0)
        assert judge_interval(-high, -low, "below", 0.0) == above


GAIN = Condition("gain", "above", 0.1, "the effect")
CONTROL = Condition("control", "below", 0.05, "(control) nothing without it")
CLAIM = Claim("demo", "00", "It helps.", "gain", "none", "", (GAIN, CONTROL), 3)


LONE = {"value": 0.2, "low": None, "high": None, "seeds": None}


def metric(low, high, seeds=3):
    middle = (low + high) / 2
    return {"value": middle, "low": low, "high": high, "seeds": [middle] * seeds}


HOLDS = {"gain": metric(0.2, 0.3), "control": metric(-0.1, 0.0)}


@pytest.mark.parametrize(
    "changed, verdict",
    [
        ({}, REPRODUCED),
        ({"gain": metric(0.0, 0.3)}, INCONCLUSIVE),
        ({"gain": metric(0.0, 0.05)}, NOT_REPRODUCED),
        ({"control": metric(0.1, 0.2)}, NOT_REPRODUCED),
        ({"control": metric(0.0, 0.2)}, INCONCLUSIVE),
        # One condition that fails outweighs one that is open.
        ({"gain": metric(0.0, 0.3), "control": metric(0.1, 0.2)}, NOT_REPRODUCED),
        ({"gain": metric(0.2, 0.3, seeds=2)}, NEEDS_FULL),
        ({"gain": metric(0.0, 0.05, seeds=1)}, NEEDS_FULL),
        ({"gain": {**LONE, "low": 0.15, "high": 0.25}}, NEEDS_FULL),
        ({"gain": LONE}, NEEDS_FULL),
        ({"gain": {**LONE, "seeds": [0.2, 0.2, 0.2]}}, INCONCLUSIVE),
        ({"gain": None}, NOT_MEASURED),
        ({"gain": None, "control": metric(0.1, 0.2, seeds=1)}, NOT_MEASURED),
    ],
)
def test_a_claim_holds_if_all_of_its_conditions_do(changed, verdict):
    metrics = {name: item for name, item in {**HOLDS, **changed}.items() if item}
    assert judge_claim(CLAIM, metrics).verdict == verdict


def test_the_reason_names_what_decides():
    fails = judge_claim(CLAIM, {**HOLDS, "control": metric(0.1, 0.2)})
    assert fails.reason == "control = 0.15 (0.1 to 0.2), wanted below 0.05"
    missing = judge_claim(CLAIM, {"control": HOLDS["control"]})
    assert missing.reason == "gain: not measured (wanted above 0.1)"
    assert "gain" in judge_claim(CLAIM, HOLDS).reason


def test_a_metric_of_another_name_does_not_count():
    assert judge_claim(CLAIM, {"Gain": metric(0.2, 0.3)}).verdict == NOT_MEASURED


def test_the_fixed_thresholds_have_not_moved():
    fixed = {
        ("sft_minus_base_format", "above"): 0.5,
        ("sft_minus_base_accuracy", "above"): 0.1,
        ("sft_minus_fewshot_format", "above"): 0.0,
        ("n90_format_over_n90_accuracy", "below"): 0.25,
        ("shuffled_control_format", "above"): 0.9,
        ("shuffled_control_accuracy_gap", "above"): 0.1,
        ("completion_minus_full_accuracy", "above"): 0.0,
        ("sft_minus_base_held_out", "above"): 0.05,
        ("sft_minus_single_task_held_out", "above"): 0.05,
        ("sft_minus_fewshot_held_out", "above"): 0.0,
        ("spread_ratio_sft_over_base", "below"): 1.0,
        ("slope_per_doubling_large", "above"): 0.0,
        ("control_one_task_slope", "below"): 0.05,
        ("size_difference_in_slope", "above"): 0.0,
        ("proportional_minus_equal_small_task_accuracy", "below"): 0.0,
        ("worst_family_gain_equal_over_proportional", "above"): 0.0,
        ("generated_minus_seeds_accuracy", "above"): 0.0,
        ("filtered_minus_unfiltered_accuracy", "above"): 0.0,
        ("mid_minus_after_task", "above"): 0.0,
        ("mid_minus_after_forgetting", "below"): 0.0,
    }
    written = {
        (condition.metric, condition.direction): condition.threshold
        for claim in load_claims().values()
        for condition in claim.conditions
    }
    assert {key: written[key] for key in fixed} == fixed


def test_every_claim_of_notebooks_00_and_01_is_there():
    by_notebook = {}
    for claim in load_claims().values():
        by_notebook.setdefault(claim.notebook, []).append(claim.id)
        assert claim.min_seeds >= 3
        assert all([claim.claim, claim.measured_as, claim.control, claim.reference])
    assert by_notebook["00"] == ["base-ignores"]
    assert by_notebook["01"] == [
        "sft-format", "sft-mask", "sft-zeroshot", "sft-robust", "sft-diversity",
        "sft-mixture", "sft-synthetic", "midtrain",
    ]  # fmt: skip
    assert [item.claim.id for item in judge_notebook("01", {})] == by_notebook["01"]


@pytest.mark.parametrize(
    "second, said",
    [
        ("{metric: gain, direction: above, threshold: 0, why: x}", "own metric"),
        ("{metric: loss, direction: under, threshold: 0, why: x}", "'under'"),
    ],
)
def test_a_claims_file_that_cannot_be_judged_is_refused(
    tmp_path, monkeypatch, second, said
):
    chapter = tmp_path / "chapter"
    chapter.mkdir()
    (chapter / "profiles.yaml").write_text('notebook: "00"')
    text = ""
    for name, line in (
        ("a", "{metric: gain, direction: above, threshold: 0, why: x}"),
        ("b", second),
    ):
        text += (
            f"{name}:\n  claim: c\n  measured_as: m\n  control: n\n"
            f"  reference: r\n  min_seeds: 3\n  conditions:\n    - {line}\n"
        )
    (chapter / "claims.yaml").write_text(text)
    monkeypatch.setattr(profiles, "CHAPTERS", tmp_path)
    load_claims.cache_clear()
    try:
        with pytest.raises(ValueError, match=said):
            load_claims()
    finally:
        load_claims.cache_clear()


def test_verdicts_show_themselves_as_text_and_as_a_table():
    sly = replace(CLAIM, claim="a < b & c")
    table = VerdictTable([judge_claim(sly, {**HOLDS, "gain": metric(0.0, 0.3)})])
    assert repr(table).splitlines()[0].split() == ["≈", "inconclusive", "demo"]
    page = table._repr_html_()
    assert "a &lt; b &amp; c" in page and "0.150 (0.000 to 0.300)" in page
    assert "above&nbsp;0.1" in page and "below&nbsp;0.05" in page
