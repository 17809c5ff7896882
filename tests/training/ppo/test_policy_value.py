"""The value function, on the policy's trunk or beside it."""

import copy

import pytest
import torch

from alignlab.training.ppo.policy_value import PolicyAndValue
from tests.training.ppo.helpers import make_and_train, make_trainer, train_by_sgd


def gradients_of_value(tiny_model, detach):
    module = PolicyAndValue(tiny_model, detach_value=detach)
    with torch.no_grad():
        module.value_head.weight += 0.1
    ids = torch.randint(5, 350, (2, 6))
    prediction_mask = torch.ones(2, 6, dtype=torch.bool)
    _, values = module(ids, prediction_mask)
    values.square().sum().backward()
    trunk = [p.grad for p in tiny_model.model.parameters()]
    return module.value_head.weight.grad, trunk


def test_the_critic_gets_a_gradient_and_the_trunk_as_well_unless_detached(tiny_model):
    head, trunk = gradients_of_value(tiny_model, detach=False)
    assert head.abs().min() > 0 and all(g.abs().sum() > 0 for g in trunk)
    tiny_model.zero_grad(set_to_none=True)
    head, trunk = gradients_of_value(tiny_model, detach=True)
    assert head.abs().min() > 0 and all(g is None for g in trunk)


def test_values_start_at_0_and_learn_the_reward(tiny_model, tiny_tokenizer):
    def constant(completions):
        return [0.7] * len(completions)

    trainer = train_by_sgd(
        tiny_model,
        tiny_tokenizer,
        constant,
        max_steps=15,
        optim="adamw_torch",
        learning_rate=3e-3,
        vf_coef=1.0,
        kl_coef=0.0,
        whiten_advantages=False,
        cliprange_value=None,
    )
    values = [row["value"] for row in trainer.state.log_history[:-1]]
    assert values[0] == 0
    assert values[-1] == pytest.approx(0.7, abs=0.1)


def test_a_separate_value_model_is_trained_beside_the_policy(
    tiny_model, tiny_tokenizer, judge
):
    before = copy.deepcopy(judge.state_dict())
    policy = copy.deepcopy(tiny_model.state_dict())
    trainer = make_and_train(tiny_model, tiny_tokenizer, value_model=judge)
    for name, parameter in judge.named_parameters():
        if "embed" not in name:
            assert not torch.equal(parameter, before[name]), name
    assert any(not torch.equal(x, policy[n]) for n, x in tiny_model.named_parameters())
    assert "value_head" not in dict(trainer.model.named_children())


def test_the_value_model_can_start_as_the_reward_model(
    tiny_model, tiny_tokenizer, judge
):
    before = copy.deepcopy(judge.state_dict())
    trainer = make_trainer(
        tiny_model, tiny_tokenizer, judge, value_model="reward model"
    )
    value_model = trainer.model.value_model
    for name, tensor in value_model.state_dict().items():
        assert torch.equal(tensor, before[name])
    trainer.train()
    assert not torch.equal(value_model.score.weight, before["score.weight"])
    for name, tensor in judge.state_dict().items():
        assert torch.equal(tensor, before[name])  # the judge stays what it was
