"""What could be read off a policy's states."""

import numpy as np
import pytest
import torch

from alignlab.chapters.ppo.values import linear_fit, states_of


def test_the_fit_is_that_of_least_squares():
    rng = np.random.default_rng(0)
    states, weights = rng.normal(size=(50, 4)) + 3, np.array([1.0, -2.0, 0.0, 0.5])
    fitted = linear_fit(states, states @ weights + 7, ridge=1e-9)
    others = rng.normal(size=(5, 4))
    assert fitted(others) == pytest.approx(others @ weights + 7)


def test_ridge_is_data_that_says_nothing():
    """The same as least squares with rows of sqrt(ridge) that have target 0."""
    rng = np.random.default_rng(1)
    states, targets = rng.normal(size=(30, 3)), rng.normal(size=30)
    spread, gap = states - states.mean(0), targets - targets.mean()
    rows = np.vstack([spread, np.sqrt(5.0) * np.eye(3)])
    weights, *_ = np.linalg.lstsq(rows, np.append(gap, np.zeros(3)), rcond=None)
    others = rng.normal(size=(4, 3))
    expected = targets.mean() + (others - states.mean(0)) @ weights
    assert linear_fit(states, targets, 5.0)(others) == pytest.approx(expected)


@pytest.mark.parametrize("batch_size", [2, 128])
def test_states_are_those_that_each_token_comes_from(
    tiny_model, tiny_tokenizer, batch_size
):
    prompts = ["Peru", "Is gold a metal?", "Say it:"]
    replies = ["Yes.", "No, it is not.", "a"]
    found = list(states_of(tiny_model, tiny_tokenizer, prompts, replies, batch_size))
    for prompt, reply, states in zip(prompts, replies, found, strict=True):
        chat = [{"role": "user", "content": prompt}]
        asked = tiny_tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=True
        )
        start = tiny_tokenizer(asked, add_special_tokens=False)["input_ids"]
        whole = tiny_tokenizer.apply_chat_template(
            [*chat, {"role": "assistant", "content": reply}], tokenize=False
        )
        ids = tiny_tokenizer(whole, add_special_tokens=False)["input_ids"]
        out = tiny_model(torch.tensor([ids]), output_hidden_states=True)
        expected = out.hidden_states[-1][0, len(start) - 1 : -1].detach()
        assert states.shape == expected.shape
        np.testing.assert_allclose(states, expected, rtol=1e-4, atol=1e-5)
