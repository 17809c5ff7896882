"""The report says what the run's folder holds, and draws intervals where they lie."""

import json

import pytest

from alignlab.errors import AlignlabError
from alignlab.runs.claims import Condition, claims_as_json
from alignlab.runs.judging import Finding
from alignlab.runs.report import interval_plot, number, seconds, write_report

RUN = {
    "profile": "cpu",
    "params": ["seed=1"],
    "started": "2026-01-01T00:00:00Z",
    "versions": {"python": "3.11"},
    "platform": "a machine",
    "gflops": 120.0,
    "notebooks": {
        "00_base_model": {"status": "finished", "seconds": 40.0, "peak_memory_mb": 900},
        "01_instruction_tuning": {"status": "running"},
    },
}


def metric(*values, claim=None):
    middle = sum(values) / len(values)
    return {
        "value": middle, "low": min(values), "high": max(values), "claim": claim,
        "seeds": list(values), "unit": "", "n": None,
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path, write_claims, demo_entry):
    loss = {"metric": "loss", "direction": "below", "threshold": 1.0, "why": "x"}
    write_claims(
        {
            "demo-2": demo_entry,
            "other": demo_entry | {"conditions": [loss], "former": []},
        }
    )
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    metrics = {
        "gain": metric(0.7, 0.8, 0.9),
        "twin": metric(-0.2, -0.1, 0.0),
        "a<b": metric(1.0),
    }
    recorded = {
        "metrics": metrics, "figures": [], "settings": {"steps": 7}, "seeds": [0, 1, 2]
    }  # fmt: skip
    (tmp_path / "00_base_model").mkdir()
    (tmp_path / "00_base_model/metrics.json").write_text(json.dumps(recorded))
    return tmp_path


def test_the_page_has_verdicts_times_and_metrics(folder):
    page = write_report(folder).read_text()
    assert "✓ reproduced" in page and "– not measured" in page
    assert "0.800 (0.700 to 0.900)" in page
    assert "steps=7" in page and "a&lt;b" in page and "a<b" not in page
    assert "1 of 2" in page and "running" in page and "not executed" in page


def test_the_page_tells_how_a_claim_could_fail_and_what_it_replaces(folder):
    page = " ".join(write_report(folder).read_text().split())
    assert "wanted above 0.1 (null 0), 3 seeds, power 50%" in page
    assert "<b>Control</b>, broken if the twin gains as much." in page
    assert (
        "<b>Replaces</b> <code>demo</code> (reproduced): the twin could not win" in page
    )
    assert "<b>Chosen by looking.</b> five seeds" in page
    assert "∅ uninformative: a control failed" in page
    # Holm: one claim has a verdict, so its p is that of its own conditions.
    assert '<td class="small">✓ 0.002</td>' in page


def test_a_model_of_other_people_leaves_claims_about_pretraining_open(
    folder, write_claims, demo_entry
):
    rests_on = {"needs_known_pretraining": "how often a fact was stated"}
    write_claims({"demo-2": demo_entry | rests_on})
    file = folder / "00_base_model/metrics.json"
    recorded = json.loads(file.read_text()) | {"settings": {"model": "a/b"}}
    file.write_text(json.dumps(recorded))
    page = write_report(folder).read_text()
    reason = "nobody knows how often a fact was stated in the pretraining of a/b"
    assert f"<b>No verdict:</b> {reason}" in page
    assert "0.800 (0.700 to 0.900)" in page  # what was measured stands there
    kept = json.loads((folder / "metrics.json").read_text())["claims"]["demo-2"]
    assert kept["verdict"] == "pretraining unknown" and reason in kept["reason"]


def test_seconds_are_scaled_to_the_reference_machine(folder, monkeypatch):
    profiles = {"reference_gflops": 60.0}
    monkeypatch.setattr("alignlab.runs.report.load_profiles", lambda: profiles)
    monkeypatch.setattr("alignlab.runs.report.budget_seconds", lambda *_: 64.0)
    page = write_report(folder).read_text()
    # 40 s at 120 GFLOP/s are 80 s at 60, a quarter more than the budget of 64.
    assert '<td class="number">80</td>' in page and "125%" in page
    assert 'class="bar over"' in page


def test_metrics_of_all_notebooks_come_in_one_file(folder):
    write_report(folder)
    everything = json.loads((folder / "metrics.json").read_text())
    assert everything["claims"]["demo-2"]["verdict"] == "reproduced"
    assert everything["claims"]["demo-2"]["power"] == pytest.approx(0.5, abs=0.01)
    assert everything["claims"]["other"]["verdict"] == "not measured"
    assert everything["notebooks"]["00_base_model"]["metrics"]["a<b"]["value"] == 1.0
    assert everything["notebooks"]["01_instruction_tuning"]["status"] == "running"


def test_a_run_is_judged_by_the_claims_it_was_run_with(
    folder, write_claims, demo_entry
):
    """Moving a threshold later, or deleting a claim, changes no old verdict."""
    file = folder / "00_base_model/metrics.json"
    recorded = json.loads(file.read_text()) | {"claims": claims_as_json("00")}
    file.write_text(json.dumps(recorded))
    page = write_report(folder).read_text()
    before = json.loads((folder / "metrics.json").read_text())["claims"]
    demo_entry["conditions"][0]["threshold"] = 0.95
    write_claims({"demo-2": demo_entry})
    assert write_report(folder).read_text() == page
    after = json.loads((folder / "metrics.json").read_text())["claims"]
    assert after == before and after["demo-2"]["verdict"] == "reproduced"


def test_verdicts_of_before_runs_kept_their_claims_stay(
    folder, write_claims, demo_entry
):
    write_report(folder)
    before = json.loads((folder / "metrics.json").read_text())["claims"]
    demo_entry["conditions"][0]["threshold"] = 0.95
    write_claims({"demo-2": demo_entry})
    write_report(folder)
    after = json.loads((folder / "metrics.json").read_text())["claims"]
    assert after == before and after["demo-2"]["verdict"] == "reproduced"


def test_making_it_twice_gives_the_same(folder):
    assert write_report(folder).read_text() == write_report(folder).read_text()


def test_a_folder_without_a_run_is_an_error(tmp_path):
    with pytest.raises(AlignlabError, match="holds no run"):
        write_report(tmp_path)


@pytest.mark.parametrize("direction", ["above", "below"])
def test_an_interval_is_drawn_beside_its_threshold(direction):
    condition = Condition("gain", direction, 0.0, "")
    plot = interval_plot(Finding(condition, "", 2.0, 1.0, 4.0, 3))
    assert 0 < plot["threshold"] < plot["low"] < plot["value"] < plot["high"] < 180
    # Equal distances are drawn equal: 0 to 1 to 2 on one scale.
    step = plot["low"] - plot["threshold"]
    assert plot["value"] - plot["low"] == pytest.approx(step, abs=0.2)
    wanted = plot["wanted_from"], plot["wanted_from"] + plot["wanted_width"]
    inside = wanted[0] <= plot["low"] and plot["high"] <= wanted[1]
    assert inside == (direction == "above")


def test_an_interval_of_no_width_on_its_threshold_can_be_drawn():
    plot = interval_plot(
        Finding(Condition("x", "above", 1.0, ""), "", 1.0, 1.0, 1.0, 3)
    )
    assert plot["low"] == plot["threshold"] == 90.0


def test_no_effect_is_drawn_too():
    condition = Condition("gain", "above", 1.0, "", null=0.0)
    plot = interval_plot(Finding(condition, "", 2.0, 1.5, 4.0, 3))
    assert 0 < plot["null"] < plot["threshold"] < plot["low"]


def test_without_an_interval_nothing_is_drawn():
    assert interval_plot(Finding(Condition("x", "above", 1.0, ""), "", 1.0)) is None


def test_numbers_and_durations_read_well():
    values = [None, 0.0, 0.12345, 12.345, 1234.5, 1e-5, 1e9]
    expected = ["–", "0.000", "0.123", "12.3", "1,234", "1.00e-05", "1.00e+09"]
    assert [number(value) for value in values] == expected
    assert [seconds(value) for value in (None, 3.21, 123.4)] == ["–", "3.2", "123"]
