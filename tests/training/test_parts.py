"""Batches in parts: the same training as in one, and how many parts there are."""

import copy

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from alignlab.models.reward import reward_model_from
from alignlab.training import parts
from alignlab.training.dpo import train_dpo
from alignlab.training.loop import train
from alignlab.training.parts import in_parts, parts_of
from alignlab.training.reward import train_reward_model
from alignlab.training.sft import batches, encode, finetune, learned_tokens, sft_step

PAIRS = [
    {"prompt": "The capital of France?", "chosen": "Paris", "rejected": "Oslo."},
    {"prompt": "Is gold a metal?", "chosen": "Yes. It is.", "rejected": "No"},
    {"prompt": "The number of iron?", "chosen": "26", "rejected": "Iron is 79."},
    {"prompt": "The money of Peru?", "chosen": "the sol", "rejected": "the yen"},
    {"prompt": "What is Oslo?", "chosen": "The capital of Norway", "rejected": "gold"},
]
EXAMPLES = [{"prompt": p["prompt"], "completion": p["chosen"]} for p in PAIRS]
FEW = dict(learning_rate=1e-3, progress=False, batch_size=5)


def trained(model, stage, **settings):
    """History and parameters after a few steps on a copy, in float64."""
    own = copy.deepcopy(model).double()
    history = stage(own, **FEW | settings)
    return history, [p.detach() for p in own.parameters()]


def sft_stage(tokenizer):
    return lambda model, **settings: finetune(
        model, tokenizer, EXAMPLES, steps=3, **settings
    )


def dpo_stage(tokenizer):
    return lambda model, **settings: train_dpo(
        model, tokenizer, PAIRS, steps=3, **settings
    )


def reward_stage(tokenizer):
    return lambda model, **settings: train_reward_model(
        reward_model_from(model) if not hasattr(model, "score") else model,
        tokenizer,
        PAIRS,
        epochs=3,
        **settings,
    )


@pytest.mark.parametrize("stage", [sft_stage, dpo_stage, reward_stage])
@pytest.mark.parametrize("n", [2, 4])
def test_parts_add_up_to_the_batch(tiny_model, tiny_tokenizer, stage, n):
    model = tiny_model if stage is not reward_stage else reward_model_from(tiny_model)
    whole, expected = trained(model, stage(tiny_tokenizer), accumulate=1)
    apart, found = trained(model, stage(tiny_tokenizer), accumulate=n)
    for a, b in zip(whole, apart, strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - {"seconds"}:
            assert b[name] == pytest.approx(a[name], rel=1e-6, abs=1e-8), name
    moved = max((p - q).abs().max() for p, q in zip(expected, model.parameters()))
    for p, q in zip(expected, found, strict=True):
        assert (p - q).abs().max() < 1e-4 * moved


def test_parts_count_by_their_tokens(tiny_model, tiny_tokenizer):
    """Replies of one and of many tokens: a mean of the parts' means would differ."""
    rows = [{"prompt": "Say", "completion": "No"}]
    rows += [{"prompt": "Say", "completion": "Paris. Oslo. " * 5}]
    encoded = encode(tiny_tokenizer, rows)

    def losses(weigh, n):
        given = batches(encoded, 2, 0, tiny_tokenizer.pad_token_id, n)
        settings = dict(steps=1, learning_rate=1e-9, progress=False)
        model = copy.deepcopy(tiny_model)
        return train(model, given, sft_step, weigh=weigh, **settings)[0]["loss"]

    whole = losses(learned_tokens, 1)
    assert losses(learned_tokens, 2) == pytest.approx(whole, rel=1e-5)
    assert losses(len, 2) != pytest.approx(whole, rel=1e-3)


def test_kto_does_not_accumulate(tiny_model, tiny_tokenizer):
    with pytest.raises(ValueError, match='for "kto" it must be 1'):
        train_dpo(
            tiny_model, tiny_tokenizer, PAIRS, loss_type="kto", steps=1,
            accumulate=2, **FEW,
        )  # fmt: skip


@pytest.mark.parametrize("size", ["300k", "1m", "3m"])
def test_a_batch_of_a_model_that_ships_is_one_part(size, tiny_tokenizer):
    from alignlab.models.base import CONTEXT, new_model

    model = new_model(size, tiny_tokenizer)
    assert parts_of(model, [CONTEXT] * 40, 32, {}) == 1


def test_parts_keep_activations_within_the_limit(tiny_model, monkeypatch):
    # 20 texts of 10 tokens: 3 layers of 8 · 32 + 4 · 96 numbers of 4 bytes a token
    needed = 20 * 10 * 3 * (8 * 32 + 4 * 96) * 4
    monkeypatch.setattr(parts, "ACTIVATIONS", needed)
    assert parts_of(tiny_model, [10] * 50, 20, {}) == 1
    monkeypatch.setattr(parts, "ACTIVATIONS", needed / 3 + 1)
    assert parts_of(tiny_model, [10] * 50, 20, {}) == 3
    assert parts_of(tiny_model, [10] * 50, 20, {"autocast": "bfloat16"}) == 2
    assert parts_of(tiny_model, [10] * 50, 20, {"gradient_checkpointing": True}) < 3
    # Adapters on a base in bfloat16: the same of 2 bytes, and copies of 4
    adapted = get_peft_model(
        copy.deepcopy(tiny_model).bfloat16(), LoraConfig(target_modules="all-linear")
    )
    copies = 20 * 10 * 3 * (6 * 32 + 96) * 4
    monkeypatch.setattr(parts, "ACTIVATIONS", needed / 2 + copies)
    assert parts_of(adapted, [10] * 50, 20, {}) == 1
    monkeypatch.setattr(parts, "ACTIVATIONS", needed / 2 + copies - 1)
    assert parts_of(adapted, [10] * 50, 20, {}) == 2
    monkeypatch.setattr(parts, "ACTIVATIONS", 1)
    assert parts_of(tiny_model, [10] * 50, 20, {}) == 20


def test_no_part_is_empty():
    assert [len(part) for part in in_parts(np.arange(5), 3)] == [2, 2, 1]
    assert [len(part) for part in in_parts(np.arange(2), 4)] == [1, 1]


@pytest.mark.parametrize("stage", [sft_stage, dpo_stage, reward_stage])
def test_checkpointing_changes_nothing(tiny_model, tiny_tokenizer, stage):
    model = tiny_model if stage is not reward_stage else reward_model_from(tiny_model)
    plain, expected = trained(model, stage(tiny_tokenizer))
    own = copy.deepcopy(model).double()
    history = stage(tiny_tokenizer)(own, gradient_checkpointing=True, **FEW)
    assert [r["loss"] for r in history] == pytest.approx([r["loss"] for r in plain])
    assert not any(getattr(m, "gradient_checkpointing", 0) for m in own.modules())
    for p, q in zip(expected, own.parameters(), strict=True):
        torch.testing.assert_close(p, q.detach())


def test_autocast_computes_in_the_dtype_and_keeps_the_weights(
    tiny_model, tiny_tokenizer
):
    stage, seen = sft_stage(tiny_tokenizer), []
    exact = stage(copy.deepcopy(tiny_model), **FEW)[0]["loss"]
    tiny_model.lm_head.register_forward_hook(lambda m, x, y: seen.append(y.dtype))
    loss = stage(tiny_model, autocast="bfloat16", **FEW)[0]["loss"]
    assert torch.bfloat16 in seen
    assert loss == pytest.approx(exact, rel=0.02) and loss != exact
    assert {p.dtype for p in tiny_model.parameters()} == {torch.float32}
