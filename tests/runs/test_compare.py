"""A sound run has nothing to hide; what moved, is gone, or turned round is drift."""

import math

import pytest

from alignlab.runs import compare
from alignlab.runs.compare import DRIFTED, FAILED, SOUND, band_from, check_run

from .recorded_runs import NAME, changed, make_run, metric

RECORD = [make_run(0), make_run(3), make_run(6), make_run(9)]
METRICS = ("notebooks", NAME, "metrics")


def drifts(run, record=RECORD, **options):
    outcome = check_run(run, record, **options)
    assert outcome.state == (DRIFTED if outcome.drifts else SOUND)
    return [str(problem) for problem in outcome.drifts]


def test_a_run_is_sound_against_itself_and_against_other_seeds():
    assert check_run(make_run(0)).state == SOUND
    assert drifts(make_run(3)) == []
    for seed in (20, 30, 40, 50, 60):
        assert drifts(make_run(seed)) == []
        assert drifts(make_run(seed), RECORD[:1]) == []


def test_what_is_broken_by_itself_fails():
    late = changed(make_run(0), "notebooks", NAME, "status", to="failed")
    late["notebooks"][NAME]["reason"] = "ValueError: no"
    outcome = check_run(late)
    assert outcome.state == FAILED
    assert str(outcome.failures[0]) == f"{NAME}: failed, not finished: ValueError: no"
    nan = changed(make_run(0), *METRICS, "m1", "value", to=math.nan)
    assert [str(p) for p in check_run(nan).failures] == [f"{NAME}: m1 is nan"]
    assert check_run(nan, RECORD).state == FAILED


def test_a_notebook_that_failed_early_is_a_failure_and_nothing_else():
    """It has recorded no settings, no seeds and no verdict."""
    run = changed(make_run(20), "notebooks", NAME, to={"status": "failed"})
    run["notebooks"][NAME] |= {"settings": {}, "seeds": [], "metrics": {}}
    run["claims"]["gain"]["verdict"] = "not measured"
    outcome = check_run(run, RECORD)
    assert outcome.state == FAILED and outcome.drifts == [] == outcome.changes


def test_an_unmeasured_claim_is_a_failure_of_the_recorded_profile_only():
    open_ = changed(make_run(0), "claims", "gain", "verdict", to="not measured")
    assert check_run(open_).state == SOUND
    assert check_run(changed(open_, "profile", to="full")).state == FAILED
    both = [
        changed(run, "claims", "gain", "verdict", to="not measured") for run in RECORD
    ]
    assert check_run(open_, both).state == SOUND
    (lost,) = drifts(open_)
    assert lost.startswith(
        f"{NAME}: claim gain was reproduced and is not measured: m0 is "
    )


def test_a_metric_far_outside_its_band_is_drift():
    moved = changed(make_run(20), *METRICS, "m3", "value", to=0.9)
    (problem,) = drifts(moved)
    assert problem.startswith(f"{NAME}: m3 is 0.9 and was 0.")


def test_many_metrics_that_move_a_little_are_drift():
    """Three times as far as the seeds of a run scatter, where one metric alone would
    have to move further."""
    record = [make_run(seed) for seed in range(0, 24, 3)]
    outcome = check_run(make_run(40, shift=0.04), record)
    (problem,) = [str(p) for p in outcome.drifts]
    assert f"{NAME}: metrics moved together" in problem
    assert not any(row.drifted for row in outcome.comparisons)


def test_what_a_run_says_of_its_own_precision_is_not_believed():
    """Values times -7 with huge intervals, which an earlier check took for sound."""
    run = make_run(20)
    for entry in run["notebooks"][NAME]["metrics"].values():
        entry["value"] *= -7
        entry["low"], entry["high"] = -1000.0, 1000.0
    assert len(drifts(run)) > 10
    assert len(drifts(run, RECORD[:1])) > 10


@pytest.mark.parametrize(
    "path, to, said",
    [
        ((*METRICS, "m2"), None, "m2 is no longer recorded"),
        (("claims", "gain"), None, "claim gain was reproduced and is gone"),
        ((*METRICS, "m2", "n"), 1, "m2 rests on n = 1, in the record on 200"),
        ((*METRICS, "m2", "n"), None, "m2 rests on n = None, in the record on 200"),
        ((*METRICS, "m2", "seeds"), [0.5, 0.5], "m2 rests on 2 seeds"),
        (("notebooks", NAME, "seeds"), [20, 21], "it has 2 seeds, in the record 3"),
        ((*METRICS, "m0", "claim"), None, "m0 no longer decides claim gain"),
    ],
)
def test_what_is_gone_is_drift(path, to, said):
    found = drifts(changed(make_run(20), *path, to=to))
    assert any(said in problem for problem in found), found


def test_a_claim_that_another_replaced_is_not_missed(demo_claim):
    """demo-2 stands in claims.yaml and replaces demo."""
    record = [
        changed(run, "claims", "demo", to=run["claims"]["gain"]) for run in RECORD
    ]
    assert drifts(make_run(20), record) == []
    record = [changed(run, "claims", "dem", to=run["claims"]["gain"]) for run in RECORD]
    assert drifts(make_run(20), record) == [
        f"{NAME}: claim dem was reproduced and is gone"
    ] or drifts(make_run(20), record) == ["claim dem was reproduced and is gone"]


@pytest.mark.parametrize(
    "before, now, is_drift",
    [
        ("reproduced", "inconclusive", False),
        ("inconclusive", "reproduced", False),
        ("reproduced", "uninformative", False),
        ("reproduced", "not reproduced", True),
        ("reproduced", "equivalent", True),
        ("not reproduced", "reproduced", True),
        ("not measured", "reproduced", False),
    ],
)
def test_every_change_of_a_verdict_is_listed_with_its_metric(before, now, is_drift):
    record = [changed(run, "claims", "gain", "verdict", to=before) for run in RECORD]
    run = changed(make_run(20), "claims", "gain", "verdict", to=now)
    outcome = check_run(run, record)
    (change,) = outcome.changes
    assert str(change).startswith(f"claim gain was {before} and is {now}: m0 is 0.")
    assert bool(outcome.drifts) == is_drift


def test_a_verdict_that_one_of_the_recorded_runs_had_is_no_change():
    record = [*RECORD]
    record[1] = changed(record[1], "claims", "gain", "verdict", to="inconclusive")
    run = changed(make_run(20), "claims", "gain", "verdict", to="inconclusive")
    assert check_run(run, record).changes == []


# --- To the last digit ------------------------------------------------------------


def test_the_same_seeds_are_told_to_be_the_same_or_not():
    assert "all 12 metrics are those of the recorded run" in str(
        check_run(make_run(3), RECORD).notes
    )
    nearly = changed(make_run(3), *METRICS, "m1", "value", to=0.5)
    outcome = check_run(nearly, RECORD)
    assert outcome.state == SOUND
    assert "1 of 12 metrics are not to the digit" in str(outcome.notes)
    assert "digit" not in str(check_run(make_run(20), RECORD).notes)


def test_identical_allows_no_other_digit():
    assert drifts(make_run(3), identical=True) == []
    value = make_run(3)["notebooks"][NAME]["metrics"]["m1"]["value"]
    nearly = changed(make_run(3), *METRICS, "m1", "value", to=math.nextafter(value, 1))
    (problem,) = drifts(nearly, identical=True)
    assert problem.startswith(f"{NAME}: m1 is ")
    assert "not the recorded run's value of these seeds" in problem
    narrower = changed(make_run(3), *METRICS, "m1", "low", to=0.0)
    assert len(drifts(narrower, identical=True)) == 1
    (problem,) = drifts(make_run(20), identical=True)
    assert "no recorded run has the seeds [20, 21, 22]" in problem


# --- What a band is made of -------------------------------------------------------


def test_the_seeds_of_a_single_run_are_the_sample_and_of_several_the_runs():
    entries = [run["notebooks"][NAME]["metrics"]["m1"] for run in RECORD]
    now = make_run(20)["notebooks"][NAME]["metrics"]["m1"]
    one, several = band_from(entries[:1], now), band_from(entries, now)
    assert (one.df, one.factor) == (2, pytest.approx(2 / 3))
    assert (several.df, several.factor) == (3, pytest.approx(5 / 4))
    assert several.mean == pytest.approx(sum(e["value"] for e in entries) / 4)


def test_a_constant_alarms_only_if_questions_stand_behind_it():
    """1.0 of 200 questions in four runs cannot be 0.2; a number without questions that
    was always 0 may be another for once."""
    for n, alarms in ((200, 1), (None, 0)):
        entry = metric([1.0, 1.0, 1.0], n=n)
        record = [changed(run, *METRICS, "m1", to=entry) for run in RECORD]
        run = changed(make_run(20), *METRICS, "m1", to=metric([0.2, 0.2, 0.2], n=n))
        assert len(drifts(run, record)) == alarms


def test_one_seed_knows_of_itself_only():
    record = [make_run(0, seeds=1)]
    moved = changed(make_run(0, seeds=1), *METRICS, "m1", "value", to=0.9)
    assert len(drifts(moved, record)) == 1
    assert drifts(make_run(6, seeds=1), record, unlike=True) == []


def test_an_interval_over_items_is_heeded_where_it_is_wider():
    entry = metric([0.5, 0.51, 0.52], interval="items", df=50.0)
    entry |= {"low": 0.41, "high": 0.61}
    band = band_from([entry], entry)
    assert band.half_width() == pytest.approx(0.1 * math.sqrt(2), rel=1e-6)


@pytest.mark.parametrize("value, said", [(1.04, 0), (1.06, 1)])
def test_a_tolerance_from_profiles_yaml_replaces_the_spread(monkeypatch, value, said):
    monkeypatch.setattr(compare, "tolerances_of", lambda name: {"m1": 0.05})
    record = [changed(run, *METRICS, "m1", "value", to=1.0) for run in RECORD]
    run = changed(make_run(20), *METRICS, "m1", "value", to=value)
    assert len([p for p in drifts(run, record) if "m1 is" in p]) == said


def test_some_metrics_may_be_lacking(monkeypatch):
    """Those whose chapter says so, and not where the same seeds are asked for."""
    run = changed(make_run(20), *METRICS, "m1", to=None)
    assert drifts(run) == [f"{NAME}: m1 is no longer recorded"]
    monkeypatch.setattr(compare, "occasional_metrics", lambda name: ["m1"])
    outcome = check_run(run, RECORD)
    assert outcome.state == SOUND
    assert [note for note in outcome.notes if "m1 is no longer recorded" in note]
    same = changed(make_run(0), *METRICS, "m1", to=None)
    assert drifts(same, identical=True) == [f"{NAME}: m1 is no longer recorded"]
    thinner = changed(make_run(20), *METRICS, "m1", "seeds", to=[0.5, 0.5])
    assert any("m1 rests on 2 seeds" in problem for problem in drifts(thinner))


def test_timings_are_compared_where_asked(monkeypatch):
    monkeypatch.setattr(compare, "tolerances_of", lambda name: {"m1": "timing"})
    run = changed(make_run(20), *METRICS, "m1", "value", to=50.0)
    assert drifts(run) == []
    assert any("m1 is 50" in problem for problem in drifts(run, timings=True))


def test_metrics_of_different_claims_are_not_compared():
    record = [changed(run, *METRICS, "m1", "claim", to="mask") for run in RECORD]
    run = changed(make_run(20), *METRICS, "m1", to=metric([9, 9, 9], claim="mask-2"))
    rows = check_run(run, record).comparisons
    assert "m1" not in [row.metric for row in rows]
