"""Probabilities of replies are products over their tokens, taken one by one."""

import numpy as np
import pytest
import torch

from alignlab.chapters.limits_of_imitation import scoring
from alignlab.models.sampler import complete
from alignlab.world.safety import REFUSALS

PROMPTS = ["What is the capital of Kenya?", "Is gold a metal?", "Oslo."]


def product(model, tokenizer, prompt, tokens):
    """The probability of tokens after a prompt, one forward pass a token."""
    chat = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(
        chat, tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    probability = 1.0
    for token in tokens:
        logits = model(torch.tensor([ids])).logits[0, -1].double()
        probability *= logits.softmax(-1)[token].item()
        ids.append(token)
    return probability


def test_confidence_is_the_product_of_the_tokens_probabilities(
    tiny_model, tiny_tokenizer
):
    replies = complete(tiny_model, tiny_tokenizer, PROMPTS, 5)
    found = scoring.reply_probabilities(tiny_model, tiny_tokenizer, PROMPTS, replies)
    expected = [
        product(tiny_model, tiny_tokenizer, prompt, reply.tokens)
        for prompt, reply in zip(PROMPTS, replies, strict=True)
    ]
    assert found == pytest.approx(expected, rel=1e-3)


def test_p_refuse_is_the_sum_over_the_refusals_without_their_end(
    tiny_model, tiny_tokenizer
):
    found = scoring.refusal_log_probs(tiny_model, tiny_tokenizer, PROMPTS)
    refusals = [tiny_tokenizer(r, add_special_tokens=False).input_ids for r in REFUSALS]
    expected = [
        np.log(sum(product(tiny_model, tiny_tokenizer, p, r) for r in refusals))
        for p in PROMPTS
    ]
    assert found == pytest.approx(expected, abs=1e-3)


def test_no_refusal_begins_another():
    for one in REFUSALS:
        assert not any(other.startswith(one) for other in REFUSALS if other != one)
