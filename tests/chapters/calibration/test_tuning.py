"""Exact losses on the options of items, and a tiny model tuned on them."""

from functools import partial

import numpy as np
import pytest
import torch

from alignlab.chapters.calibration import artifacts, tuning


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
            tuning.reward_loss(log_probs, torch.tensor([k]), reference, beta)
            for k in range(4)
        ]
        return belief @ torch.stack(losses)

    (slope,) = torch.autograd.grad(expected(best), best)
    (elsewhere,) = torch.autograd.grad(
        expected(at := reference.clone().requires_grad_()), at
    )
    assert slope.norm() < 1e-8 * elsewhere.norm()
    assert expected(best) < expected(reference)  # fmt: skip


def test_the_reward_by_hand():
    policy = torch.tensor([[0.7, 0.3], [0.4, 0.6]]).log()
    reference = torch.tensor([[0.5, 0.5], [0.4, 0.6]]).log()
    kl = 0.7 * np.log(1.4) + 0.3 * np.log(0.6)
    result = tuning.reward_loss(policy, torch.tensor([0, 0]), reference, 2.0)
    assert result.item() == pytest.approx(-(0.7 + 0.4) / 2 + 2.0 * kl / 2, rel=1e-5)


def test_cross_entropy_is_over_the_options():
    log_probs = torch.tensor([[-10.0, -11.0]])
    result = tuning.answer_loss(log_probs, torch.tensor([1]), log_probs)
    assert result.item() == pytest.approx(np.log(1 + np.e), rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_tuning_on_a_reward_makes_the_right_options_likelier(
    tiny_model, tiny_tokenizer, items, monkeypatch, temperature
):
    monkeypatch.setitem(tuning.LEARNING_RATE, "tiny", 3e-3)
    few = items[:12]

    def rewarded():
        log_probs = np.array(
            artifacts.ask(tiny_model, tiny_tokenizer, few)["log_probs"]
        )
        p = np.exp(log_probs / temperature)
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
        size="tiny",
        steps=15,
        seed=0,
        temperature=temperature,
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
        for row, (number, place) in enumerate(
            zip(batch["reference"][:, 0].int().tolist(), batch["right"].tolist())
        ):
            item = few[number]
            own = texts[row * tuning.OPTIONS : (row + 1) * tuning.OPTIONS]
            assert item.right == place
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
