"""PPO on the world's task: what an arm records, and what stays in the cache."""

import json

import numpy as np
import pytest

from alignlab.chapters.ppo import analysis, artifacts, runs
from alignlab.study import artifacts as study
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
    start = runs.start_arm(seed=1, n=3, **SETTINGS)
    assert start["kl"] == 0 and set(start) < set(result)
    # The score is the proxy reward alone: gold has weight 0.
    model, tokenizer = tiny
    proxy, _ = study.reward_model(4)
    trainer = artifacts.trainer_for(model, tokenizer, proxy, seed=1)
    trainer.evaluate(artifacts.requests("test", 3))
    actual = trainer.eval_completions
    proxies = [row["reward/LlamaForSequenceClassification"] for row in actual]
    assert start["proxy"] == pytest.approx(np.mean(proxies))
    assert len(actual) == 6
    names = [r["prompt"][0]["content"] for r in actual]
    assert names == [gold.request(s) for s in ("Peru", "argon")] * 3


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
    actual = artifacts.measure(policy, tokenizer, seed=0, n=2, **SETTINGS)
    assert actual["kl"] == pytest.approx(kept["kl"], rel=1e-6)
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
def test_requests_are_about_the_split_and_carry_their_subject():
    rows = artifacts.requests("test", 2)
    names = study.subjects("test")
    assert [row["subject"] for row in rows] == [*names, *names]
    assert rows[0]["prompt"] == [{"role": "user", "content": gold.request(names[0])}]
    world = tasks.default_world()
    reply = gold.demonstration(world, names[0], np.random.default_rng(0), quality=1.0)
    expected = gold.gold_reward(world, names[0], reply).total
    assert artifacts.gold_of([reply, ""], names[:2])[0] == expected
