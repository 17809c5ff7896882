"""The stages of notebook 07: which arms make their rows."""

import pytest

from alignlab.chapters.calibration import artifacts
from alignlab.chapters.calibration import runs as arms


@pytest.fixture
def calls(monkeypatch):
    """What would be run, in order; an arm's row is its arguments."""
    calls = []

    def run_each(each, *, jobs, label):
        calls.extend(each)
        return [{"run": run.__name__, **arm} for run, arm in each]

    monkeypatch.setattr(arms, "run_each", run_each)
    monkeypatch.setattr(artifacts, "run_each", run_each)
    monkeypatch.setattr("alignlab.study.arms.run_each", run_each)
    return calls


COMMON = dict(draws=1, limit=5, size="300k", n_examples=8, sft_steps=2)


def test_stages_have_a_row_for_each_seed(calls):
    rows = arms.stages(seeds=(4, 5), betas=(0.2, 1.0), steps=3, jobs=1, **COMMON)
    assert list(rows) == [
        "base",
        "reward 0.2",
        "reward 1",
        "DPO",
        "cross-entropy",
        "calibrated, reward 0.2",
        "calibrated, reward 1",
        "SFT",
    ]
    assert all(
        [row["seed"] for row in of_stage] == [4, 5] for of_stage in rows.values()
    )
    assert rows["calibrated, reward 1"][0]["calibrated"]
    assert rows["DPO"][0]["kind"] == "dpo" and rows["DPO"][0]["steps"] == 3
    assert all(row["run"] == "base_arm" for row in rows["base"])
    assert calls[:2] == [(artifacts.sft_arm, dict(seed=s, **COMMON)) for s in (4, 5)]


def test_the_next_notebook_finds_the_same_arms(calls):
    options = dict(seeds=(4,), betas=(0.2,), steps=3, jobs=1)
    rows = arms.stages(**options, **COMMON)
    tuned = artifacts.tuned_stages(**options, **COMMON)
    assert list(tuned) == ["reward 0.2", "DPO", "cross-entropy", "SFT"]
    assert all(rows[name] == of_stage for name, of_stage in tuned.items())


def test_the_base_models_row_carries_its_items_labels(
    monkeypatch, tiny_model, tiny_tokenizer
):
    monkeypatch.setattr(arms, "load_base", lambda size: (tiny_model, tiny_tokenizer))
    row = arms.base_arm(seed=1, draws=1, size="tiny", limit=6)
    answers = artifacts.read_answers(row)
    items = artifacts.draw_items(artifacts.HELD_OUT, 1, 1, 6)
    assert answers.right.tolist() == [item.right for item in items]
    assert answers.log_probs.shape == (6, 4)
