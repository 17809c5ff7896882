"""PPO on the world's task: what an arm records, and what stays in the cache."""

import json

import numpy as np
import pytest

from alignlab.chapters.ppo import analysis, artifacts
from alignlab.errors import AlignlabError
from alignlab.study import artifacts as study
from alignlab.study.measure import measure
from alignlab.training.ppo.policy_value import PolicyAndValue
from alignlab.world import gold, tasks

SETTINGS = dict(size="300k", steps=1, n_pairs=4, k=2)


@pytest.mark.network
def test_an_arm_optimises_the_proxy_and_records_gold(tiny):
    result = artifacts.ppo_arm(seed=1, updates=2, n=3, **SETTINGS)
    json.dumps(result)
    logged = result["history"]
    assert set(logged) == set(artifacts.LOGGED)
    assert all(len(values) == 2 for values in logged.values())
    assert result["stopped"] is None and result["seconds"] > 0
    assert logged["kl_exact"][0] == 0 < logged["kl_exact"][1]
    parts = result["form"] + result["completeness"] + result["truth"]
    assert result["gold"] == pytest.approx(parts, abs=1e-5)
    assert 0 < result["length"] <= 8 and 0 <= result["ended"] <= 1
    start = artifacts.start_arm(seed=1, n=3, **SETTINGS)
    assert start["kl"] == 0 and set(start) < set(result)
    # The score is the proxy reward alone: gold has weight 0.
    trainer = artifacts.trainer_for(*tiny, study.reward_model(4)[0])
    assert trainer.args.reward_weights == [1.0, 0.0]
    assert trainer.reward_names == ["LlamaForSequenceClassification", "gold"]


@pytest.mark.network
def test_a_kept_policy_is_the_one_that_was_measured(tiny, monkeypatch):
    recipe = dict(seed=0, updates=1, kl_coef=0.3, **SETTINGS)
    kept = artifacts.ppo_arm(n=2, keep=True, **recipe)
    plain = artifacts.ppo_arm(n=2, **recipe)
    for name in ("gold", "proxy", "kl", "entropy"):
        assert kept[name] == pytest.approx(plain[name], rel=1e-5)
    assert kept["history"]["kl_exact"] == plain["history"]["kl_exact"]
    monkeypatch.setattr(artifacts, "train_ppo", None)  # from the cache
    policy, tokenizer = artifacts.ppo_policy(0.3, 0, updates=1, **SETTINGS)
    judges = artifacts.judges(**SETTINGS)
    measured = measure(policy, tokenizer, **judges, seed=0, n=2)
    assert measured == {name: kept[name] for name in measured}
    model, _ = artifacts.load_policy_and_value(artifacts.ppo_folder(**recipe))
    assert isinstance(model, PolicyAndValue)
    assert model.value_head.weight.abs().max() > 0, "the trained value head"


@pytest.mark.network
def test_a_run_that_explodes_is_told_and_not_measured(tiny, monkeypatch):
    monkeypatch.setattr("alignlab.training.ppo.update.LOSS_LIMIT", 1e-12)
    result = artifacts.ppo_arm(seed=0, updates=2, n=1, **SETTINGS)
    assert "the loss is" in result["stopped"] and "gold" not in result
    assert all(values == [] for values in result["history"].values())
    assert analysis.failed({**result, "seed": 0}, [dict(seed=0, gold=2.0)])


@pytest.mark.network
def test_the_first_update_is_not_timed(tiny, monkeypatch):
    trained = []
    train_ppo = artifacts.train_ppo

    def train(**recipe):
        trained.append(train_ppo(**recipe))
        return trained[-1]

    monkeypatch.setattr(artifacts, "train_ppo", train)
    timed = artifacts.timed_arm(seed=0, kl_coef=0.05, **SETTINGS)
    history = artifacts.history_of(trained[0])
    seconds = artifacts.seconds_of_updates(history)
    assert len(seconds) == 1 + artifacts.TIMED_UPDATES
    assert seconds[0] == sum(
        history[f"seconds_{part}"][0] for part in ("rollout", "reward", "update")
    )
    assert timed == {"seconds": pytest.approx(seconds[1:].mean())}
    monkeypatch.setattr("alignlab.training.ppo.update.LOSS_LIMIT", 1e-12)
    with pytest.raises(AlignlabError, match="cannot be timed"):
        artifacts.timed_arm(seed=0, kl_coef=0.05, **SETTINGS)


@pytest.mark.network
def test_requests_are_about_the_split_and_carry_their_subject():
    rows = artifacts.requests("test")
    names = study.subjects("test")
    assert [row["subject"] for row in rows] == [*names]
    assert rows[0]["prompt"] == [{"role": "user", "content": gold.request(names[0])}]
    world = tasks.default_world()
    reply = gold.demonstration(world, names[0], np.random.default_rng(0), quality=1.0)
    expected = gold.gold_reward(world, names[0], reply).total
    assert artifacts.gold_of([reply, ""], names[:2])[0] == expected
