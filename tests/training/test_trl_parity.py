"""Our losses against TRL's, on the same batch, template and model."""

import pytest
import torch

from alignlab.models.reward import reward_model_from
from alignlab.objectives import sft_loss
from alignlab.training.recipes import (
    compare_reward_losses,
    compare_sft_losses,
    trl_reward_loss,
    trl_sft_loss,
)
from alignlab.training.sft import collate, encode

EXAMPLES = [
    {"prompt": "What is the capital of France?", "completion": "Paris"},
    {"prompt": "Is gold a metal?", "completion": "Yes. Its number is 79."},
    {
        "prompt": [
            {"role": "system", "content": "Say it in one word."},
            {"role": "user", "content": "The capital of Norway?"},
        ],
        "completion": "Oslo",
    },
]
PAIRS = [
    {"prompt": "Is gold a metal?", "chosen": "Yes.", "rejected": "The yen is money."},
    {"prompt": "The number of iron?", "chosen": "26", "rejected": ""},
    {
        "prompt": EXAMPLES[2]["prompt"],
        "chosen": "Oslo",
        "rejected": [{"role": "assistant", "content": "The capital is Oslo."}],
    },
]


def test_trl_starts_at_the_same_loss(tiny_model, tiny_tokenizer, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = [p.clone() for p in tiny_model.parameters()]
    batch = collate(encode(tiny_tokenizer, EXAMPLES), tiny_tokenizer.pad_token_id)
    logits = tiny_model(batch["input_ids"], batch["attention_mask"]).logits
    ours = sft_loss(logits, batch["input_ids"], batch["mask"]).item()
    theirs = trl_sft_loss(tiny_model, tiny_tokenizer, EXAMPLES)
    assert theirs == pytest.approx(ours, abs=1e-5)
    both = compare_sft_losses(tiny_model, tiny_tokenizer, EXAMPLES)
    assert both == pytest.approx((ours, ours), abs=1e-5)
    for p, old in zip(tiny_model.parameters(), before, strict=True):
        assert torch.equal(p, old)


@pytest.mark.parametrize("coefficient", [None, 0.5])
@pytest.mark.parametrize("with_margin", [False, True])
def test_trl_starts_at_the_same_reward_loss(
    tiny_model, tiny_tokenizer, monkeypatch, coefficient, with_margin
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = reward_model_from(tiny_model)
    torch.nn.init.normal_(
        model.score.weight, generator=torch.Generator().manual_seed(1)
    )
    before = [p.clone() for p in model.parameters()]
    margins = [1.0, 0.0, 2.5] if with_margin else 3 * [0.0]
    pairs = [
        pair | ({"margin": margin} if with_margin else {})
        for pair, margin in zip(PAIRS, margins, strict=True)
    ]
    ours, theirs = compare_reward_losses(
        model, tiny_tokenizer, pairs, coefficient or 0.0
    )
    assert theirs == pytest.approx(ours, abs=1e-5)
    alone = trl_reward_loss(model, tiny_tokenizer, pairs, coefficient)
    assert alone == pytest.approx(ours, abs=1e-5)
    plain, _ = compare_reward_losses(model, tiny_tokenizer, PAIRS)
    assert (abs(ours - plain) > 0.1) == (with_margin or coefficient is not None)
    for p, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, old)
