"""The stages of notebook 07: which arms make their rows."""

import json

import numpy as np
import pytest

from alignlab.chapters.calibration import artifacts
from alignlab.chapters.calibration import runs as arms
from alignlab.chapters.recalibration import runs as next_arms
from alignlab.runs.profiles import notebook_settings


@pytest.fixture
def calls(monkeypatch):
    """What would be run, in order; an arm's row is its arguments."""
    calls = []

    def run_each(each, *, jobs, label):
        calls.extend(each)
        return [{"run": run.__name__, **arm} for run, arm in each]

    for module in (arms, next_arms):
        monkeypatch.setattr(module, "run_each", run_each)
    monkeypatch.setattr("alignlab.study.arms.run_each", run_each)
    return calls


COMMON = dict(draws=1, limit=5, base="300k", n_examples=8, sft_steps=2, answer_steps=1)
RECIPE = dict(seeds=(4, 5), steps=3, updates=6, jobs=1)


def test_stages_have_a_row_for_each_seed(calls):
    rows = arms.stages(betas=(0.2, 1.0), dpo_betas=(1.0,), **RECIPE, **COMMON)
    assert set(rows) == {
        "base",
        "SFT",
        "answers",
        "more answers",
        "reward 0.2",
        "reward 1",
        "DPO",
        "DPO 1",
        "PPO",
        "RLOO",
    }
    assert all(
        [row["seed"] for row in of_stage] == [4, 5] for of_stage in rows.values()
    )
    assert rows["reward 1"][0]["beta"] == 1.0 and rows["reward 1"][0]["steps"] == 3
    assert rows["DPO"][0]["beta"] == artifacts.DPO_BETA
    assert rows["DPO 1"][0]["beta"] == 1.0
    assert rows["PPO"][0]["steps"] == rows["RLOO"][0]["steps"] == 6
    first = [(run, arm["stage"]) for run, arm in calls[:2]]
    assert first == [(artifacts.stage_arm, "answers")] * 2


def test_the_next_notebook_finds_the_same_arms(calls):
    stages = arms.stages(betas=(0.2,), dpo_betas=(), **RECIPE, **COMMON)
    policies = next_arms.policies(**RECIPE, **COMMON)
    assert list(policies) == ["answers", "PPO", "DPO", "more answers"]
    assert all(stages[name] == rows for name, rows in policies.items())


@pytest.mark.parametrize("profile", ["smoke", "cpu", "full", "gpu"])
def test_both_notebooks_set_the_same_recipe(profile):
    names = ("seeds", "first_seed", "model", "n_examples", "sft_steps", "answer_steps")
    names += ("steps", "updates", "draws", "limit")
    first, second = (notebook_settings(n, profile) for n in ("07", "08"))
    assert {n: first[n] for n in names} == {n: second[n] for n in names}


def test_policies_on_contested_facts(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    row = arms.contested_arm(
        seed=0, betas=[0.1, 2.0], steps=3, **(COMMON | dict(limit=40))
    )
    row = json.loads(json.dumps(row))
    answers = {
        name: artifacts.read_answers(row, name)
        for name in ("taught", "before", "0.1", "2")
    }
    assert all((a.rival >= 0).all() for a in answers.values())
    moved = {
        name: np.abs(a.probabilities - answers["before"].probabilities).mean()
        for name, a in answers.items()
    }
    # The lower the price of KL, the further it goes; all start from "before".
    assert moved["0.1"] > moved["2"] > 0 and moved["taught"] > 0


def test_an_unknown_kind_of_aligned_policy_is_an_error():
    with pytest.raises(ValueError, match="kind is 'KTO'; it can be one of"):
        arms.aligned_arm(kind="KTO", chain={}, updates=1, draws=1)


def test_policies_that_learnt_paragraphs_answer_the_same_items(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    chain = dict(seed=0, reference_seed=0, base="300k", steps=2, n_pairs=32, k=4)
    options = dict(updates=1, draws=1, limit=30, jobs=1)
    rows = arms.aligned([chain], **options)
    answers = {kind: artifacts.read_answers(rows[kind][0]) for kind in arms.ALIGNED}
    reference = answers["reference"]
    for kind in ("PPO", "DPO"):
        assert answers[kind].right.tolist() == reference.right.tolist()
        assert not np.allclose(answers[kind].log_probs, reference.log_probs)
