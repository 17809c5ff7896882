"""`alignlab claims` tells how each claim could fail, and what was claimed before."""

import json

import pytest

from alignlab.errors import AlignlabError
from alignlab.runs.ledger import explain, find_claim, former_claims, judged_claims


def recorded(folder):
    def metric(low, high):
        return {"value": (low + high) / 2, "low": low, "high": high, "seeds": [0] * 3}

    metrics = {"gain": metric(0.2, 0.6), "twin": metric(-0.1, 0.0)}
    content = {"notebooks": {"00_base_model": {"metrics": metrics}}, "claims": {}}
    (folder / "metrics.json").write_text(json.dumps(content))
    return folder / "metrics.json"


def test_a_claim_is_explained_with_all_that_could_break_it(demo_claim, tmp_path):
    verdicts = judged_claims(recorded(tmp_path))
    text = explain(find_claim("demo-2", verdicts))
    assert text.startswith("demo-2, notebook 00: ✓ reproduced\nIt helps.\n")
    for line in (
        "gain = 0.4 (0.2 to 0.6), wanted above 0.1 (null 0)",
        "smallest effect worth the name: 0.1; power to see twice that: 16%",
        "cannot leave -1 to 1",
        "control, twin = -0.05",
        "broken if: the twin gains as much",
        "Chosen by looking: five seeds",
        "Replaces demo (reproduced): the twin could not win",
        "At least 3 seeds; power 16%",
    ):
        assert line in text


def test_without_a_recorded_run_nothing_is_measured(demo_claim, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (verdict,) = judged_claims().values()
    assert verdict.verdict == "not measured"
    assert "gain: not measured, wanted above 0.1" in explain(verdict)


def test_the_id_of_a_replaced_claim_leads_to_its_successor(demo_claim, tmp_path):
    verdicts = judged_claims(recorded(tmp_path))
    assert find_claim("demo", verdicts).claim.id == "demo-2"
    assert [(old.id, new.id) for old, new in former_claims()] == [("demo", "demo-2")]
    with pytest.raises(AlignlabError, match="no claim 'demo-3'.*'demo-2'"):
        find_claim("demo-3", verdicts)


def test_the_model_of_a_run_decides_what_can_be_judged(
    write_claims, demo_entry, tmp_path
):
    rests_on = {"needs_known_pretraining": "how often a fact was stated"}
    write_claims({"demo-2": demo_entry | rests_on})
    file = recorded(tmp_path)
    content = json.loads(file.read_text())
    for model, verdict in (("1m", "reproduced"), ("a/b", "pretraining unknown")):
        content["notebooks"]["00_base_model"]["settings"] = {"model": model}
        file.write_text(json.dumps(content))
        judged = find_claim("demo-2", judged_claims(file))
        assert judged.verdict == verdict
    text = explain(judged)
    assert "Needs to be known of the pretraining: how often a fact was stated." in text
    assert "gain = 0.4 (0.2 to 0.6)" in text and "✓" not in text
