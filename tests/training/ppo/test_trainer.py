"""One PPO update against a plain re-computation of it, and what must not change it."""

import copy
import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from alignlab.models.likelihood import completion_log_probs
from alignlab.ppo import PPOConfig, PPOTrainer
from alignlab.training.ppo.rollout import (
    Episodes,
    PolicyAndValue,
    by_width,
    completion_logits,
)

PROMPTS = [
    {"prompt": "What is the capital of France?", "answer": "Paris"},
    {"prompt": "Is gold a metal?", "answer": "Yes"},
    {"prompt": "Peru", "answer": "sol"},
    {"prompt": "The capital of Kenya, and the number of iron: say", "answer": "no"},
    {"prompt": "Say it in one word:", "answer": "Oslo"},
]
QUIET = dict(use_cpu=True, disable_tqdm=True, report_to="none")


def letters(completions, **columns):
    """A reward that differs between completions: their share of vowels."""
    return [sum(c in "aeiou" for c in text) / 10 for text in completions]


def talkative(model, tokenizer, by=4.0):
    """Let the ending token win now and then, so that completions differ in length."""
    with torch.no_grad():
        model.get_output_embeddings().weight[tokenizer.eos_token_id] *= by
    return model


def trained(model, tokenizer, reward=letters, data=PROMPTS, trainer=None, **settings):
    """The trainer after its updates."""
    defaults = dict(
        max_steps=1,
        per_device_train_batch_size=16,
        num_ppo_epochs=2,
        max_completion_length=10,
        learning_rate=0.05,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0.0,
        kl_coef=0.2,
    )
    args = PPOConfig(**QUIET | defaults | settings)
    trainer = PPOTrainer(model, reward, args, data, processing_class=tokenizer)
    trainer.train()
    return trainer


def parameters(trainer):
    return {n: p.detach().clone() for n, p in trainer.model.named_parameters()}


def assert_same(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], **tolerance, msg=name)


def moved(trainer, model):
    """How far the policy is from where it began."""
    before = dict(model.named_parameters())
    return sum(
        (p - before[n]).abs().max().item() for n, p in trainer.policy.named_parameters()
    )


class Recorder:
    """A reward function that remembers what it was asked about."""

    __name__ = "recorder"

    def __call__(self, completions, prompt_ids, completion_ids):
        self.prompts, self.completions = prompt_ids, completion_ids
        self.rewards = letters(completions)
        return self.rewards


# --- The update itself -------------------------------------------------------------


def says(model, head, prompt, completion, temperature):
    """Log-probabilities and values of one completion's tokens: no batch, no padding."""
    ids = torch.tensor([prompt + completion])
    out = model(ids, output_hidden_states=True)
    at = slice(len(prompt) - 1, -1)
    log_p = (out.logits[0, at] / temperature).log_softmax(-1)
    chosen = log_p[torch.arange(len(completion)), completion]
    values = (out.hidden_states[-1][0, at] @ head["weight"].T)[:, 0] + head["bias"]
    return chosen, values, log_p


def plain_update(model, head, recorder, args):
    """What PPO is, episode by episode with SGD, in the order the papers give it."""
    reference = copy.deepcopy(model)
    episodes = []
    for prompt, completion, reward in zip(
        recorder.prompts, recorder.completions, recorder.rewards, strict=True
    ):
        with torch.no_grad():
            old, values, _ = says(model, head, prompt, completion, args.temperature)
            ref, _, _ = says(reference, head, prompt, completion, args.temperature)
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
            log_probs, values, _ = says(
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
    trainer = trained(
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
    found = parameters(trainer)
    expected = {f"policy.{n}": p for n, p in by_hand.named_parameters()}
    expected |= {f"value_head.{n}": p for n, p in head.items()}
    assert len({len(c) for c in recorder.completions}) > 3
    assert moved(trainer, start) > 0.01
    assert head["weight"].abs().max() > 1e-4
    assert_same(found, expected, rtol=1e-4, atol=2e-6)


def test_accumulation_changes_no_update(tiny_model, tiny_tokenizer):
    talkative(tiny_model, tiny_tokenizer)
    models = [copy.deepcopy(tiny_model) for _ in range(3)]
    cuts = [(16, 1), (4, 4), (2, 8)]
    found = [
        parameters(
            trained(
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
    for other in found[1:]:
        assert_same(other, found[0], rtol=1e-4, atol=2e-6)


def test_minibatches_are_steps_of_their_own(tiny_model, tiny_tokenizer):
    one, many = copy.deepcopy(tiny_model), copy.deepcopy(tiny_model)
    one = trained(one, tiny_tokenizer)
    many = trained(
        many, tiny_tokenizer, per_device_train_batch_size=4, num_mini_batches=4
    )
    assert one.args.batch_size == many.args.batch_size == 16
    moves = [moved(trainer, tiny_model) for trainer in (one, many)]
    assert moves[1] > 1.5 * moves[0]


@pytest.mark.parametrize("pad", ["<|end|>", "a"])
def test_what_padding_holds_changes_nothing(tiny_model, tiny_tokenizer, pad):
    talkative(tiny_model, tiny_tokenizer)
    other = copy.deepcopy(tiny_model)
    expected = parameters(trained(tiny_model, tiny_tokenizer))
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.pad_token = pad
    assert_same(parameters(trained(other, tokenizer)), expected, rtol=0, atol=0)


def test_left_and_right_padding_agree(tiny_model):
    torch.manual_seed(1)
    prompts = [torch.randint(5, 350, (n,)).tolist() for n in (3, 9, 1, 6)]
    sampled = torch.randint(5, 350, (4, 7))
    sampled[1, 2] = sampled[3, 0] = 1  # two of them end early
    episodes = Episodes.pack(prompts, sampled, stop=1, pad=0)
    assert episodes.lengths.tolist() == [7, 3, 7, 1]
    assert episodes.ended.tolist() == [False, True, False, True]
    logits, _ = completion_logits(tiny_model, episodes.input_ids, episodes.asked)
    found = logits.log_softmax(-1)[torch.arange(18), episodes.tokens]
    # The same rows, padded on the left, through a function that has nothing of ours.
    rows = [
        p + c[:n]
        for p, c, n in zip(prompts, sampled.tolist(), episodes.lengths.tolist())
    ]
    width = max(map(len, rows))
    ids = torch.tensor([[4] * (width - len(row)) + row for row in rows])
    seen = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    asked = torch.zeros_like(seen)
    for i, length in enumerate(episodes.lengths.tolist()):
        asked[i, width - length :] = 1
    expected = completion_log_probs(tiny_model, ids, seen, asked)
    expected = expected[asked[:, 1:].bool()]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    spread = episodes.spread(found)
    assert spread.shape == (4, 7)
    torch.testing.assert_close(spread.sum(1)[1], found[7:10].sum())


def test_rows_are_cut_to_what_they_need(tiny_model):
    sampled = torch.tensor([[7, 8, 1, 0], [7, 7, 7, 7], [1, 0, 0, 0]])
    episodes = Episodes.pack([[5, 6], [5], [5, 6, 7]], sampled, stop=1, pad=0)
    episodes.values = episodes.spread(torch.arange(1.0, 9.0))
    assert episodes.values.tolist() == [[1, 2, 3, 0], [4, 5, 6, 7], [8, 0, 0, 0]]
    cut = episodes.take(torch.tensor([2, 0]).numpy())
    assert cut.input_ids.tolist() == [[5, 6, 7, 1, 0], [5, 6, 7, 8, 1]]
    assert cut.values.tolist() == [[8, 0, 0], [1, 2, 3]]
    assert cut.tokens.tolist() == [1, 7, 8, 1]
    joined = Episodes.join([cut, episodes.take(torch.tensor([1]).numpy())])
    assert joined.values.tolist() == [[8, 0, 0, 0], [1, 2, 3, 0], [4, 5, 6, 7]]
    assert joined.completion_ids() == [[1], [7, 8, 1], [7, 7, 7, 7]]


def fits(groups, limit):
    return all(len(g) == 1 or len(g) * g.max() <= limit for g in groups)


def test_groups_of_like_width_are_the_cheapest_there_are():
    random = np.random.default_rng(0)
    for n, price, limit in itertools.product((1, 2, 7), (0, 5, 1000), (15, math.inf)):
        widths = random.integers(1, 20, n)
        groups = by_width(widths, price, limit)
        assert sorted(np.concatenate(groups)) == list(range(n))
        assert fits([widths[g] for g in groups], limit)
        cost = sum(len(g) * widths[g].max() + price for g in groups)
        cuts = itertools.chain.from_iterable(
            itertools.combinations(range(1, n), size) for size in range(n)
        )
        ways = [np.split(np.sort(widths), places) for places in cuts]
        assert cost == min(
            sum(len(part) * part.max() + price for part in parts)
            for parts in ways
            if fits(parts, limit)
        )
        if price == 1000 and limit == math.inf:
            assert len(groups) == 1


def test_grouping_by_width_changes_no_update(tiny_model, tiny_tokenizer, monkeypatch):
    talkative(tiny_model, tiny_tokenizer)
    found = []
    for price, limit in ((0, math.inf), (10**9, math.inf), (10**9, 20)):
        monkeypatch.setattr("alignlab.training.ppo.rollout.GROUP_PRICE", {"cpu": price})
        monkeypatch.setattr("alignlab.training.ppo.rollout.GROUP_LIMIT", {"cpu": limit})
        trainer = trained(copy.deepcopy(tiny_model), tiny_tokenizer, max_steps=2)
        found.append((parameters(trainer), trainer.state.log_history[1]))
    for parameters_then, logged in found[1:]:
        assert_same(found[0][0], parameters_then, rtol=1e-4, atol=2e-6)
        for name in ("kl", "entropy", "loss", "explained_variance"):
            assert found[0][1][name] == pytest.approx(logged[name], rel=1e-3, abs=1e-6)


# --- The value function ------------------------------------------------------------


def gradients_of_value(tiny_model, detach):
    module = PolicyAndValue(tiny_model, detach_value=detach)
    with torch.no_grad():
        module.value_head.weight += 0.1
    ids = torch.randint(5, 350, (2, 6))
    asked = torch.ones(2, 6, dtype=torch.bool)
    _, values = module(ids, asked)
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

    trainer = trained(
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


# --- Switches ----------------------------------------------------------------------


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


@pytest.mark.parametrize("off", [True, False])
def test_without_dropout_the_first_pass_has_ratio_1(tiny_tokenizer, off):
    model = with_dropout(tiny_tokenizer)
    trainer = trained(
        model, tiny_tokenizer, num_ppo_epochs=1, disable_dropout=off, seed=3
    )
    row = trainer.state.log_history[0]
    assert (abs(row["ratio"] - 1) < 1e-5) == off
    assert (row["approx_kl"] < 1e-9) == off
    assert model.transformer.drop.p == 0.3  # the model keeps what it came with


def test_gradient_checkpointing_changes_no_update(tiny_model, tiny_tokenizer):
    other = copy.deepcopy(tiny_model)
    expected = parameters(trained(tiny_model, tiny_tokenizer))
    names = {field.name for field in dataclasses.fields(PPOConfig)}
    new, old = "activation_checkpointing", "gradient_checkpointing"
    trainer = trained(other, tiny_tokenizer, **{new if new in names else old: True})
    assert_same(parameters(trainer), expected, rtol=1e-5, atol=1e-7)


def test_missing_endings_cost_their_penalty(tiny_model, tiny_tokenizer):
    talkative(tiny_model, tiny_tokenizer)
    trainer = trained(tiny_model, tiny_tokenizer, missing_eos_penalty=2.0, kl_coef=0)
    row = trainer.state.log_history[0]
    assert 0.1 < row["eos_rate"] < 0.9
    expected = row["score"] - 2.0 * (1 - row["eos_rate"])
    assert row["return"] == pytest.approx(expected, rel=1e-5)


def test_rewards_are_weighted_normalised_and_clipped(tiny_model, tiny_tokenizer):
    def longer(completions):
        return [float(len(text)) for text in completions]

    trainer = trained(
        tiny_model,
        tiny_tokenizer,
        [letters, longer],
        reward_weights=[2.0, 0.5],
        normalize_rewards="initial",
        cliprange_reward=0.5,
        kl_coef=0,
    )
    row = trainer.state.log_history[0]
    mix = 2 * row["reward/letters"] + 0.5 * row["reward/longer"]
    assert row["score"] == pytest.approx(mix, rel=1e-5)
    scores = torch.tensor([c["score"] for c in trainer.completions])
    white = (scores - scores.mean()) / scores.std(correction=0)
    assert white.abs().max() > 0.5
    expected = white.clamp(-0.5, 0.5).mean().item()
    assert row["return"] == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("how", ["initial", "running"])
def test_score_statistics_are_the_first_updates_or_all(tiny_model, tiny_tokenizer, how):
    seen = []

    def remembered(completions):
        seen.append(letters(completions))
        return seen[-1]

    trainer = trained(
        tiny_model, tiny_tokenizer, remembered, max_steps=3, normalize_rewards=how
    )
    numbers = torch.tensor(seen[:1] if how == "initial" else seen).flatten()
    count, mean, squares = trainer.state.stateful_callbacks["PPOTrainer"]["scores"]
    assert count == len(numbers)
    assert mean == pytest.approx(numbers.mean().item(), rel=1e-5)
    assert squares / count == pytest.approx(numbers.var(correction=0).item(), rel=1e-4)


def test_kl_is_held_at_its_target(tiny_model, tiny_tokenizer):
    trainer = trained(
        tiny_model,
        tiny_tokenizer,
        max_steps=4,
        kl_target=1e-4,
        kl_horizon=100,
        learning_rate=0.5,
    )
    rows = trainer.state.log_history[:4]
    coefficient = 0.2
    for row in rows:
        assert row["kl_coef"] == pytest.approx(coefficient, rel=1e-9)
        error = min(max(row["kl_exact"] / 1e-4 - 1, -0.2), 0.2)
        coefficient *= 1 + error * 16 / 100
    assert rows[1]["kl_coef"] < 0.2 < rows[3]["kl_coef"]


def test_epochs_end_early_beyond_their_kl(tiny_model, tiny_tokenizer):
    trainer = trained(
        tiny_model,
        tiny_tokenizer,
        num_ppo_epochs=8,
        early_stop_kl=1e-3,
        learning_rate=0.5,
    )
    assert 2 <= trainer.state.log_history[0]["epochs"] < 8


# --- What is reported --------------------------------------------------------------


def test_rows_say_what_happened(tiny_model, tiny_tokenizer):
    talkative(tiny_model, tiny_tokenizer)
    start = copy.deepcopy(tiny_model)
    recorder = Recorder()
    trainer = trained(
        tiny_model, tiny_tokenizer, recorder, max_steps=2, learning_rate=0.3
    )
    first, second, _ = trainer.state.log_history
    assert [first["step"], second["step"]] == [1, 2]
    assert [first["episodes"], second["episodes"]] == [16, 32]
    assert first["kl"] == first["kl_exact"] == 0 and second["kl_exact"] > 0
    lengths = torch.tensor([len(c) for c in recorder.completions])
    ended = torch.tensor(
        [c[-1] == tiny_tokenizer.eos_token_id for c in recorder.completions]
    )
    assert second["completion_length"] == pytest.approx(lengths.float().mean().item())
    assert second["eos_rate"] == pytest.approx(ended.float().mean().item())
    assert 0 < second["eos_rate"] < 1
    assert second["score"] == pytest.approx(
        torch.tensor(recorder.rewards).mean().item()
    )
    assert first["explained_variance"] == pytest.approx(0, abs=1e-6)
    for row in (first, second):
        assert all(math.isfinite(value) for value in row.values())
        assert row["tokens_per_second"] > 0

    # Entropy and KL again, of the first update: nothing has been trained yet.
    head = {"weight": torch.zeros(1, 32), "bias": torch.zeros(1)}
    fresh = Recorder()
    trainer = trained(copy.deepcopy(start), tiny_tokenizer, fresh)
    entropies = []
    with torch.no_grad():
        for prompt, completion in zip(fresh.prompts, fresh.completions):
            _, _, log_p = says(start, head, prompt, completion, 1.0)
            entropies += (-(log_p.exp() * log_p).sum(-1)).tolist()
    expected = sum(entropies) / len(entropies)
    assert trainer.state.log_history[0]["entropy"] == pytest.approx(expected, rel=1e-4)


def test_kl_in_the_rows_is_that_of_the_models(tiny_model, tiny_tokenizer):
    talkative(tiny_model, tiny_tokenizer)
    reference = copy.deepcopy(tiny_model)
    torch.manual_seed(5)
    with torch.no_grad():
        for p in reference.parameters():
            p += 0.02 * torch.randn_like(p)
    policy, recorder = copy.deepcopy(tiny_model), Recorder()
    args = PPOConfig(
        max_steps=1, per_device_train_batch_size=16, max_completion_length=10, **QUIET
    )
    trainer = PPOTrainer(
        tiny_model,
        recorder,
        args,
        PROMPTS,
        processing_class=tiny_tokenizer,
        ref_model=copy.deepcopy(reference),
    )
    trainer.train()
    head = {"weight": torch.zeros(1, 32), "bias": torch.zeros(1)}
    sampled, exact = [], []
    with torch.no_grad():
        for prompt, completion in zip(recorder.prompts, recorder.completions):
            a, _, log_p = says(policy, head, prompt, completion, 1.0)
            b, _, log_q = says(reference, head, prompt, completion, 1.0)
            sampled.append((a - b).sum().item())
            exact.append((log_p.exp() * (log_p - log_q)).sum().item())
    row = trainer.state.log_history[0]
    assert row["kl"] == pytest.approx(sum(sampled) / 16, rel=1e-4)
    assert row["kl_exact"] == pytest.approx(sum(exact) / 16, rel=1e-4)
    assert row["kl_exact"] > 0.05
    found = [c["kl"] for c in trainer.completions]
    assert found == pytest.approx(sampled, rel=1e-3, abs=1e-4)


def test_rows_between_logs_are_averaged(tiny_model, tiny_tokenizer):
    other = copy.deepcopy(tiny_model)
    each = trained(tiny_model, tiny_tokenizer, max_steps=4).state.log_history[:4]
    pairs = trained(other, tiny_tokenizer, max_steps=4, logging_steps=2)
    rows = pairs.state.log_history[:2]
    assert [row["step"] for row in rows] == [2, 4]
    assert [row["episodes"] for row in rows] == [32, 64]
    for name in ("score", "entropy", "loss", "grad_norm"):
        expected = (each[2][name] + each[3][name]) / 2
        assert rows[1][name] == pytest.approx(expected, rel=1e-5)


def test_evaluation_repeats_itself_and_reports_samples(tiny_model, tiny_tokenizer):
    args = PPOConfig(
        max_steps=2,
        per_device_train_batch_size=4,
        per_device_eval_batch_size=2,
        max_completion_length=6,
        eval_strategy="steps",
        eval_steps=1,
        learning_rate=0.0,
        **QUIET,
    )
    trainer = PPOTrainer(
        tiny_model,
        letters,
        args,
        PROMPTS,
        eval_dataset=PROMPTS[:3],
        processing_class=tiny_tokenizer,
    )
    before = trainer.evaluate()
    trainer.train()
    rows = [row for row in trainer.state.log_history if "eval_score" in row]
    assert len(rows) == 2
    for row in rows:
        assert row["eval_score"] == before["eval_score"] > 0
        assert row["eval_kl_exact"] == 0
    table = trainer.eval_completions
    assert [row["prompt"] for row in table] == [row["prompt"] for row in PROMPTS[:3]]
    score = sum(row["score"] for row in table) / 3
    assert before["eval_score"] == pytest.approx(score, rel=1e-6)


def test_completions_are_printed_when_asked_for(tiny_model, tiny_tokenizer, capsys):
    trained(tiny_model, tiny_tokenizer, log_completions=3)
    assert "Completions of update 1" in capsys.readouterr().out


def test_scalars_reach_tensorboard(tiny_model, tiny_tokenizer, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained(
        tiny_model,
        tiny_tokenizer,
        output_dir=str(tmp_path),
        report_to="tensorboard",
        save_strategy="no",
        max_steps=2,
    )
    events = EventAccumulator(str(next(tmp_path.rglob("events.*")).parent))
    events.Reload()
    assert len(events.Scalars("train/kl_exact")) == 2


# --- What is written ---------------------------------------------------------------


def test_nothing_is_written_unless_a_folder_is_named(
    tiny_model, tiny_tokenizer, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    trained(tiny_model, tiny_tokenizer)
    assert list(tmp_path.iterdir()) == []


def test_a_saved_policy_is_a_plain_model_with_its_values_beside_it(
    tiny_model, tiny_tokenizer, tmp_path
):
    trainer = trained(tiny_model, tiny_tokenizer)
    trainer.save_model(str(tmp_path))
    loaded, info = AutoModelForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not info["unexpected_keys"]
    ids = torch.randint(5, 350, (2, 8))
    torch.testing.assert_close(loaded(ids).logits, trainer.policy(ids).logits)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    from safetensors.torch import load_file

    value = load_file(tmp_path / "value.safetensors")
    assert value.keys() == {"value_head.weight", "value_head.bias"}
    torch.testing.assert_close(
        value["value_head.weight"], trainer.model.value_head.weight.detach()
    )


def test_the_config_is_left_as_it_was(tiny_model, tiny_tokenizer):
    before = tiny_model.config.to_dict()
    trained(tiny_model, tiny_tokenizer)
    assert tiny_model.config.to_dict() == before
