"""The policies of PPO that stay in the cache for other notebooks."""

import json

import pytest
import torch

from alignlab.chapters.ppo import artifacts
from alignlab.training.ppo.policy_value import PolicyAndValue

CHAIN = dict(seed=3, reference_seed=0, base="300k", steps=1, n_pairs=4, k=2)


@pytest.mark.network
def test_a_policy_is_trained_once_and_comes_with_its_value_function(tiny, monkeypatch):
    trained = []
    trainer_for = artifacts.trainer_for

    def counted(*models, **settings):
        trained.append(settings)
        return trainer_for(*models, **settings)

    monkeypatch.setattr(artifacts, "trainer_for", counted)
    recipe = dict(chain=CHAIN, updates=2, kl_coef=0.3)
    policy, tokenizer = artifacts.ppo_policy(**recipe)
    model, _ = artifacts.policy_and_value(**recipe)
    assert trained == [dict(base="300k", seed=3, updates=2, kl_coef=0.3)]
    assert isinstance(model, PolicyAndValue)
    assert model.value_head.weight.abs().max() > 0, "the trained value head"
    reference, _ = tiny
    pairs = zip(policy.parameters(), reference.parameters(), strict=True)
    assert any(not torch.equal(*pair) for pair in pairs)
    folder = artifacts.ppo_folder(**recipe)
    history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    assert len(history["kl_exact"]) == 2 and history["kl_exact"][0] == 0
