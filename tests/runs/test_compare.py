"""Runs agree where their intervals allow it, and a sound run has nothing to hide."""

import copy
import math

import pytest

from alignlab.errors import AlignlabError
from alignlab.runs.compare import check_run, compare_runs, read_metrics


def metric(value, half=None):
    limits = (None, None) if half is None else (value - half, value + half)
    return {"value": value, "low": limits[0], "high": limits[1]}


SOUND = {
    "notebooks": {
        "00_x": {
            "status": "finished",
            "metrics": {"gain": metric(1.0, 0.3), "loss": metric(2.0)},
        }
    },
    "claims": {
        "good": {"verdict": "reproduced", "reason": ""},
        "few": {"verdict": "needs profile full", "reason": ""},
        "open": {"verdict": "inconclusive", "reason": ""},
        "bad": {"verdict": "not reproduced", "reason": ""},
    },
}


def changed(path, value):
    run = copy.deepcopy(SOUND)
    place = run
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return run


METRICS = ("notebooks", "00_x", "metrics")


def test_a_sound_run_has_no_problems():
    assert check_run(SOUND) == []
    assert check_run(SOUND, baseline=SOUND) == []


@pytest.mark.parametrize(
    "path, value, said",
    [
        (("notebooks", "00_x", "status"), "failed", "00_x is failed, not finished"),
        (("notebooks", "00_x", "status"), "running", "00_x is running"),
        ((*METRICS, "gain"), metric(math.nan), "00_x: gain is nan"),
        (("claims", "good", "verdict"), "not measured", "claim good has no verdict"),
    ],
)
def test_what_is_not_sound_is_named(path, value, said):
    (problem,) = check_run(changed(path, value))
    assert problem.startswith(said)


@pytest.mark.parametrize(
    "name, value, agrees",
    [
        # Intervals of half-width 0.3 and 0.4: their difference has one of 0.5.
        ("gain", metric(1.49, 0.4), True),
        ("gain", metric(1.51, 0.4), False),
        ("gain", metric(0.51, 0.4), True),
        ("gain", metric(0.49, 0.4), False),
        ("gain", metric(1.29), True),
        ("gain", metric(1.31), False),
        ("loss", metric(2.09), True),  # without intervals: 5%
        ("loss", metric(1.89), False),
    ],
)
def test_two_runs_agree_if_their_intervals_allow_it(name, value, agrees):
    run = changed((*METRICS, name), value)
    differences = {item.metric: item for item in compare_runs(SOUND, run)}
    assert differences[name].agrees == agrees
    assert bool(check_run(run, baseline=SOUND)) == (not agrees)


def test_metrics_of_different_claims_are_not_compared():
    before = changed((*METRICS, "gain"), {**metric(1.0, 0.3), "claim": "mask"})
    for claim, compared in [("mask", True), (None, True), ("mask-2", False)]:
        run = changed((*METRICS, "gain"), {**metric(9.0, 0.3), "claim": claim})
        names = [item.metric for item in compare_runs(before, run)]
        assert ("gain" in names) == compared
        assert bool(check_run(run, before)) == compared


def test_a_lost_metric_and_a_lost_verdict_are_drift():
    run = changed(METRICS, {"gain": metric(1.0, 0.3)})
    assert check_run(run, SOUND) == ["00_x: loss is no longer recorded"]
    run = changed(("claims", "good", "verdict"), "inconclusive")
    assert check_run(run, SOUND) == ["claim good was reproduced and is inconclusive"]
    run = changed(("claims", "open", "verdict"), "not reproduced")
    assert check_run(run, SOUND) == []


def test_notebooks_that_were_not_run_are_no_drift():
    run = changed(("notebooks",), {})
    assert check_run(run, SOUND) == []


def test_what_holds_no_metrics_is_named(tmp_path):
    with pytest.raises(
        AlignlabError, match=f"{tmp_path}/metrics.json holds no metrics"
    ):
        read_metrics(tmp_path)
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(AlignlabError, match="other.json holds no metrics"):
        read_metrics(tmp_path / "other.json")
