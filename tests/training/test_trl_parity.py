"""Our loss against TRL's, on the same batch, template and model."""

import pytest
import torch

from alignlab.objectives import sft_loss
from alignlab.training.recipes import compare_sft_losses, trl_sft_loss
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
