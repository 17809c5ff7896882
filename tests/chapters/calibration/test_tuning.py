"""Exact losses on the options of items, and a tiny model tuned on them."""

from functools import partial

import numpy as np
import pytest
import torch

from alignlab.chapters.calibration import artifacts, tuning
from alignlab.study import scale


@pytest.fixture(scope="module")
def items():
    return artifacts.draw_items(artifacts.HELD_OUT, 1, 3)


# --- Losses -------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
def test_the_reward_is_best_served_by_the_closed_form(beta):
    reference = torch.randn(1, 4, dtype=torch.float64, generator=torch.manual_seed(0))
    belief = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    best = (reference + belief / beta).requires_grad_()

    def expected(log_probs):  # over which option turns out to be right
        losses = [
            tuning.reward_loss(log_probs, right[None], reference, beta)
            for right in torch.eye(4, dtype=torch.float64)
        ]
        return belief @ torch.stack(losses)

    (slope,) = torch.autograd.grad(expected(best), best)
    (elsewhere,) = torch.autograd.grad(
        expected(at := reference.clone().requires_grad_()), at
    )
    assert slope.norm() < 1e-8 * elsewhere.norm()
    assert expected(best) < expected(reference)
    # So it is the same whether rewards are tossed or their expectation is given.
    known = tuning.reward_loss(best, belief[None], reference, beta)
    assert known.item() == pytest.approx(expected(best).item())


def test_the_reward_by_hand():
    policy = torch.tensor([[0.7, 0.3], [0.4, 0.6]]).log()
    reference = torch.tensor([[0.5, 0.5], [0.4, 0.6]]).log()
    kl = 0.7 * np.log(1.4) + 0.3 * np.log(0.6)
    result = tuning.reward_loss(policy, torch.eye(2)[[0, 0]], reference, 2.0)
    assert result.item() == pytest.approx(-(0.7 + 0.4) / 2 + 2.0 * kl / 2, rel=1e-5)


def test_cross_entropy_is_over_the_options():
    log_probs = torch.tensor([[-10.0, -11.0]])
    result = tuning.answer_loss(log_probs, torch.tensor([[0.0, 1.0]]), log_probs)
    assert result.item() == pytest.approx(np.log(1 + np.e), rel=1e-5)
    belief = torch.tensor([[0.7, 0.3]])
    best = belief.log().requires_grad_()
    tuning.answer_loss(best, belief, log_probs).backward()
    assert best.grad.abs().max() < 1e-6


def test_tuning_on_a_reward_makes_the_right_options_likelier(
    tiny_model, tiny_tokenizer, items, monkeypatch
):
    monkeypatch.setitem(scale.RATES["options"], "tiny", 3e-3)
    few = items[:12]

    def rewarded():
        log_probs = np.array(
            artifacts.ask(tiny_model, tiny_tokenizer, few)["log_probs"]
        )
        p = np.exp(log_probs)
        p /= p.sum(axis=1, keepdims=True)
        return p[range(len(few)), [item.right for item in few]].mean()

    before = rewarded()
    loss = partial(tuning.reward_loss, beta=0.05)
    tuning.tune_on_options(
        tiny_model,
        tiny_tokenizer,
        few,
        artifacts.ask(tiny_model, tiny_tokenizer, few)["log_probs"],
        loss,
        base="tiny",
        steps=15,
        seed=0,
    )
    assert rewarded() > before + 0.2


def test_batches_keep_items_and_what_is_true_of_them_together(tiny_tokenizer, items):
    few = items[:30]
    reference = [[float(n), 0.0, 0.0, 0.0] for n in range(len(few))]
    batches = tuning.option_batches(tiny_tokenizer, few, reference, seed=0)
    seen = []
    for _ in range(2):  # an epoch
        batch = next(batches)
        prompts = tiny_tokenizer.batch_decode(batch["prompt_ids"])
        texts = tiny_tokenizer.batch_decode(batch["option_ids"])
        assert batch["prompt_of"].tolist() == [
            row for row in range(len(prompts)) for _ in range(tuning.OPTIONS)
        ]
        for row, (number, belief) in enumerate(
            zip(batch["reference"][:, 0].int().tolist(), batch["reward"].tolist())
        ):
            item = few[number]
            own = texts[row * tuning.OPTIONS : (row + 1) * tuning.OPTIONS]
            assert belief == pytest.approx(item.belief.tolist())
            assert all(f"{o}.<|end|>" in t for o, t in zip(item.options, own))
            assert item.question in prompts[row]
            seen.append(number)
    assert sorted(seen) == list(range(len(few)))


def test_pairs_have_a_wrong_answer_that_the_policy_is_likely_to_give(items):
    few = items[:20] * 100
    likely = []
    for item in few:
        row = np.full(tuning.OPTIONS, -50.0)
        row[item.right], row[(item.right + 1) % tuning.OPTIONS] = 0.0, -1.0
        row[(item.right + 2) % tuning.OPTIONS] = -1.0 - np.log(3)
        likely.append(row)
    pairs = tuning.answer_pairs(few, likely, seed=0)
    first = 0
    for item, pair in zip(few, pairs, strict=True):
        assert pair["chosen"] == f"{item.options[item.right]}."
        assert pair["prompt"] == item.question
        first += pair["rejected"] == f"{item.options[(item.right + 1) % 4]}."
        assert pair["rejected"] != pair["chosen"]
    assert first / len(few) == pytest.approx(0.75, abs=0.04)


@pytest.mark.parametrize("method", tuning.METHODS)
def test_ppo_and_rloo_are_rewarded_for_right_answers_only(
    tiny_model, tiny_tokenizer, items, monkeypatch, method
):
    """The reward function that the trainer gets knows which item was asked."""
    seen = {}

    class Trainer:
        def __init__(self, policy, functions, args, data, processing_class):
            seen.update(reward=functions[0], args=args, data=data)

        def train(self):
            seen["trained"] = True

    monkeypatch.setattr(tuning, "PPOTrainer", Trainer)
    monkeypatch.setitem(scale.RATES["answers"], "tiny", 1e-4)
    few = items[:3]
    options = dict(beta=0.3, base="tiny", steps=7, seed=5)
    tuning.tune_by_sampling(tiny_model, tiny_tokenizer, few, method, **options)
    rows = seen["data"]
    assert [row["prompt"][0]["content"] for row in rows] == [i.question for i in few]
    said = [f"{item.options[item.right]}." for item in few]
    numbers = [row["number"] for row in rows]
    assert seen["reward"](said, numbers) == [1.0, 1.0, 1.0]
    wrong = [item.options[item.right - 1] for item in few]
    assert seen["reward"](wrong, numbers) == [0.0, 0.0, 0.0]
    args = seen["args"]
    assert (args.kl_coef, args.max_steps, args.seed) == (0.3, 7, 5)
    assert args.advantages == ("gae" if method == "PPO" else "rloo")
    assert seen["trained"]
