"""One update against a plain recomputation of it, and what must not change it."""

import copy
import dataclasses
import inspect
import math

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from alignlab.errors import AlignlabError
from alignlab.models.lean import lean_layers
from alignlab.objectives import entropy, generalized_advantage_estimate
from alignlab.ppo import PPOConfig, ppo_update
from alignlab.training.ppo.rollout import predict
from tests.training.ppo.helpers import (
    QUIET,
    Recorder,
    assert_same,
    config,
    make_and_train,
    make_trainer,
    moved,
    parameters,
    recompute,
    talkative,
    train_by_sgd,
)


def plain_update(model, head, recorder, args):
    """What PPO is, episode by episode with SGD, in the order the papers give it."""
    reference = copy.deepcopy(model)
    episodes = []
    for prompt, completion, reward in zip(
        recorder.prompts, recorder.completions, recorder.rewards, strict=True
    ):
        with torch.no_grad():
            old, values, _ = recompute(
                model, head, prompt, completion, args.temperature
            )
            ref, _, _ = recompute(reference, head, prompt, completion, args.temperature)
        rewards = [-args.kl_coef * (a - b) for a, b in zip(old.tolist(), ref.tolist())]
        rewards[-1] += reward
        v = values.tolist() + [0.0]
        advantages, running = [0.0] * len(rewards), 0.0
        for t in reversed(range(len(rewards))):
            delta = rewards[t] + args.gamma * v[t + 1] - v[t]
            running = delta + args.gamma * args.lam * running
            advantages[t] = running
        advantages = torch.tensor(advantages)
        episodes.append([prompt, completion, old, values, advantages])
    every = torch.cat([episode[4] for episode in episodes])
    mean, spread = every.mean(), every.std(correction=0)
    trained = [*model.parameters(), *head.values()]
    for _ in range(args.num_ppo_epochs):
        total = 0.0
        for prompt, completion, old, old_values, advantages in episodes:
            log_probs, values, _ = recompute(
                model, head, prompt, completion, args.temperature
            )
            returns, white = advantages + old_values, (advantages - mean) / spread
            ratio, low, high = (log_probs - old).exp(), 1 - 0.2, 1 + 0.2
            surrogate = torch.min(ratio * white, ratio.clamp(low, high) * white)
            near = old_values + (values - old_values).clamp(-0.2, 0.2)
            error = torch.max((values - returns) ** 2, (near - returns) ** 2)
            total = total + (-surrogate + args.vf_coef * 0.5 * error).sum()
        gradients = torch.autograd.grad(total / len(every), trained)
        with torch.no_grad():
            for parameter, gradient in zip(trained, gradients, strict=True):
                parameter -= args.learning_rate * gradient


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_an_update_is_the_one_computed_by_hand(tiny_model, tiny_tokenizer, temperature):
    talkative(tiny_model, tiny_tokenizer)
    by_hand, start = copy.deepcopy(tiny_model), copy.deepcopy(tiny_model)
    recorder = Recorder()
    trainer = train_by_sgd(
        tiny_model,
        tiny_tokenizer,
        recorder,
        num_ppo_epochs=3,
        temperature=temperature,
        vf_coef=0.5,
    )
    head = {
        "weight": torch.zeros(1, 32, requires_grad=True),
        "bias": torch.zeros(1, requires_grad=True),
    }
    plain_update(by_hand, head, recorder, trainer.args)
    actual = parameters(trainer)
    expected = {f"policy.{n}": p for n, p in by_hand.named_parameters()}
    expected |= {f"value_head.{n}": p for n, p in head.items()}
    assert len({len(c) for c in recorder.completions}) > 3
    assert moved(trainer, start) > 0.01
    assert head["weight"].abs().max() > 1e-4
    assert_same(actual, expected, rtol=1e-4, atol=2e-6)


def test_accumulation_changes_no_update(tiny_model, tiny_tokenizer):
    talkative(tiny_model, tiny_tokenizer)
    models = [copy.deepcopy(tiny_model) for _ in range(3)]
    cuts = [(16, 1), (4, 4), (2, 8)]
    actual = [
        parameters(
            train_by_sgd(
                model,
                tiny_tokenizer,
                per_device_train_batch_size=size,
                gradient_accumulation_steps=steps,
                num_mini_batches=2,
                max_steps=2,
            )
        )
        for model, (size, steps) in zip(models, cuts, strict=True)
    ]
    for other in actual[1:]:
        assert_same(other, actual[0], rtol=1e-4, atol=2e-6)


def test_minibatches_are_steps_of_their_own(tiny_model, tiny_tokenizer):
    one, many = copy.deepcopy(tiny_model), copy.deepcopy(tiny_model)
    one = train_by_sgd(one, tiny_tokenizer)
    many = train_by_sgd(
        many, tiny_tokenizer, per_device_train_batch_size=4, num_mini_batches=4
    )
    assert one.args.batch_size == many.args.batch_size == 16
    moves = [moved(trainer, tiny_model) for trainer in (one, many)]
    assert moves[1] > 1.5 * moves[0]


@pytest.mark.parametrize("pad", ["<|end|>", "a"])
def test_what_padding_holds_changes_nothing(tiny_model, tiny_tokenizer, pad):
    talkative(tiny_model, tiny_tokenizer)
    other = copy.deepcopy(tiny_model)
    expected = parameters(train_by_sgd(tiny_model, tiny_tokenizer))
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.pad_token = pad
    assert_same(parameters(train_by_sgd(other, tokenizer)), expected, rtol=0, atol=0)


def test_grouping_by_width_changes_no_update(tiny_model, tiny_tokenizer, monkeypatch):
    talkative(tiny_model, tiny_tokenizer)
    actual = []
    for price, limit in ((0, math.inf), (10**9, math.inf), (10**9, 20)):
        monkeypatch.setattr("alignlab.training.ppo.rollout.GROUP_PRICE", {"cpu": price})
        monkeypatch.setattr("alignlab.training.ppo.rollout.GROUP_LIMIT", {"cpu": limit})
        trainer = train_by_sgd(copy.deepcopy(tiny_model), tiny_tokenizer, max_steps=2)
        actual.append((parameters(trainer), trainer.state.log_history[1]))
    for parameters_then, logged in actual[1:]:
        assert_same(actual[0][0], parameters_then, rtol=1e-4, atol=2e-6)
        for name in ("kl", "entropy", "loss", "explained_variance"):
            assert actual[0][1][name] == pytest.approx(logged[name], rel=1e-3, abs=1e-6)


def with_dropout(tokenizer):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=64,
        initializer_range=0.2,
        resid_pdrop=0.3,
        attn_pdrop=0.3,
        embd_pdrop=0.3,
        eos_token_id=tokenizer.eos_token_id,
    )
    return GPT2LMHeadModel(config)


def test_training_uses_no_dropout_so_the_first_pass_has_ratio_1(tiny_tokenizer):
    model = with_dropout(tiny_tokenizer)
    trainer = train_by_sgd(model, tiny_tokenizer, num_ppo_epochs=1, seed=3)
    row = trainer.state.log_history[0]
    assert abs(row["ratio"] - 1) < 1e-5
    assert row["approx_kl"] < 1e-9
    assert model.transformer.drop.p == 0.3  # the model keeps what it came with


def test_gradient_checkpointing_changes_no_update(tiny_model, tiny_tokenizer):
    other = copy.deepcopy(tiny_model)
    expected = parameters(train_by_sgd(tiny_model, tiny_tokenizer))
    names = {field.name for field in dataclasses.fields(PPOConfig)}
    new, old = "activation_checkpointing", "gradient_checkpointing"
    trainer = train_by_sgd(
        other, tiny_tokenizer, **{new if new in names else old: True}
    )
    assert_same(parameters(trainer), expected, rtol=1e-5, atol=1e-7)


def test_epochs_end_early_beyond_their_kl(tiny_model, tiny_tokenizer):
    trainer = train_by_sgd(
        tiny_model,
        tiny_tokenizer,
        num_ppo_epochs=8,
        early_stop_kl=1e-3,
        learning_rate=0.5,
    )
    assert 2 <= trainer.state.log_history[0]["epochs"] < 8


def test_a_loss_that_is_no_number_stops_before_the_step(
    tiny_model, tiny_tokenizer, tmp_path
):
    args = config(
        max_steps=5,
        output_dir=str(tmp_path),
        save_steps=1,
        cliprange_value=None,
        vf_coef=1.0,
        whiten_advantages=False,
    )
    calls = []

    def explodes(completions):
        calls.append(1)
        return [1e30 if len(calls) > 2 else 1.0] * len(completions)

    trainer = make_trainer(tiny_model, tiny_tokenizer, explodes, args=args)
    with pytest.raises(AlignlabError, match=r"In update 3 the loss is .*checkpoint-2"):
        trainer.train()
    for parameter in tiny_model.parameters():
        assert parameter.isfinite().all()


def test_an_exploded_loss_stops_without_a_checkpoint(
    tiny_model, tiny_tokenizer, monkeypatch
):
    monkeypatch.setattr("alignlab.training.ppo.update.LOSS_LIMIT", 0.01)
    with pytest.raises(AlignlabError, match="In update 1 the loss.*none was written"):
        make_and_train(tiny_model, tiny_tokenizer, args=config(vf_coef=1.0))


# --- ppo_update, called directly ----------------------------------------------------


SETTINGS = dict(
    per_device_train_batch_size=4,
    gradient_accumulation_steps=2,
    num_mini_batches=2,
    num_ppo_epochs=3,
    max_grad_norm=0.5,
    entropy_coef=0.01,
    whiten_rewards=True,
)


@pytest.fixture
def update(tiny_model, tiny_tokenizer, monkeypatch):
    """What the trainer passed to its last update, and what came of it."""
    seen = {}

    def recorded(model, optimizer, episodes, *args):
        seen["model"], seen["episodes"] = copy.deepcopy(model), copy.deepcopy(episodes)
        seen["steps"] = ppo_update(model, optimizer, episodes, *args)
        return seen["steps"]

    monkeypatch.setattr("alignlab.training.ppo.trainer.ppo_update", recorded)
    talkative(tiny_model, tiny_tokenizer)

    def train(**settings):
        trainer = train_by_sgd(tiny_model, tiny_tokenizer, **settings)
        return seen | {"parameters": parameters(trainer)}

    return train


@pytest.mark.parametrize(
    "settings", [SETTINGS, dict(kl_estimator="k3", kl_in="loss", temperature=0.7)]
)
def test_ppo_update_called_directly_is_a_step_of_the_trainer(update, settings):
    expected = update(**settings)
    model, episodes = expected["model"], expected["episodes"]
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    config = PPOConfig(**QUIET | dict(num_ppo_epochs=2, max_grad_norm=0.0) | settings,
                       kl_coef=0.2)  # fmt: skip
    with lean_layers(model):  # as the trainer has it
        steps = ppo_update(model, optimizer, episodes, config)
    assert steps == expected["steps"] and len(steps) > 1
    actual = {name: p.detach() for name, p in model.named_parameters()}
    assert_same(actual, expected["parameters"], rtol=0, atol=0)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters()))


def test_its_source_can_be_read_at_a_glance():
    lines = inspect.getsource(ppo_update).splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 88


def updated(seen, **settings):
    """``(model, episodes, steps)`` of a direct update."""
    model, episodes = copy.deepcopy(seen["model"]), copy.deepcopy(seen["episodes"])
    optimizer = torch.optim.SGD(model.parameters(), lr=settings.pop("lr", 0.05))
    return model, episodes, ppo_update(model, optimizer, episodes, PPOConfig(
        **QUIET, **settings))  # fmt: skip


@pytest.mark.parametrize("whiten_advantages", [False, True])
def test_whitened_rewards_have_variance_1_and_keep_their_mean(
    update, whiten_advantages
):
    seen = update(num_ppo_epochs=1)
    settings = dict(whiten_rewards=True, whiten_advantages=whiten_advantages, lam=0.95)
    _, episodes, _ = updated(seen, **settings)
    mask = episodes.mask
    real = episodes.rewards[mask]
    rewards = (episodes.rewards - real.mean()) / real.std(correction=0) + real.mean()
    expected, returns = generalized_advantage_estimate(
        rewards * mask, episodes.values, mask, 1.0, 0.95
    )
    torch.testing.assert_close(episodes.returns, returns, rtol=1e-4, atol=1e-5)
    if whiten_advantages:
        expected = (expected - expected[mask].mean()) / expected[mask].std(correction=0)
        expected = expected * mask
    torch.testing.assert_close(episodes.advantages, expected, rtol=1e-4, atol=1e-5)


def test_a_higher_entropy_coefficient_keeps_the_policy_more_varied(update):
    seen = update(num_ppo_epochs=1)
    entropies = []
    for coefficient in (0.0, 1.0):
        model, episodes, _ = updated(seen, entropy_coef=coefficient)
        _, _, logits = predict(model, episodes)
        entropies.append(entropy(logits).mean().item())
    assert entropies[1] > entropies[0] + 1e-3


def test_clip_ranges_bound_what_an_update_can_do(update):
    seen = update(num_ppo_epochs=1)
    wide, narrow = (
        updated(seen, cliprange=c, num_ppo_epochs=6, lr=0.2)[2] for c in (1e6, 0.01)
    )
    assert wide[-1]["clip_fraction"] == 0 < narrow[-1]["clip_fraction"]
    assert narrow[-1]["approx_kl"] < wide[-1]["approx_kl"]


def test_clip_higher_lets_probabilities_rise_but_fall_no_further(update):
    seen = update(num_ppo_epochs=1)
    options = dict(cliprange=0.01, num_ppo_epochs=6, lr=0.2)
    same, equal, higher = (
        updated(seen, cliprange_high=high, **options)[2] for high in (None, 0.01, 1e6)
    )
    assert equal == same
    assert 0 < higher[-1]["clip_fraction"] < same[-1]["clip_fraction"]
    assert higher[-1]["approx_kl"] > same[-1]["approx_kl"]


def test_an_exact_kl_needs_the_reference(update):
    seen = update(num_ppo_epochs=1)
    with pytest.raises(ValueError, match="needs ref_logits"):
        updated(seen, kl_estimator="exact")
