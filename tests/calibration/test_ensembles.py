"""Ensembles: closed forms of the mixture, dropout that drops what it says."""

import math

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from alignlab.calibration import negative_log_likelihood
from alignlab.calibration.elicitation import multiple_choice
from alignlab.calibration.ensembles import (
    deep_ensemble,
    dropout,
    ensemble_probabilities,
    ensemble_uncertainty,
    mc_dropout,
    prompt_ensemble,
)
from alignlab.errors import AlignlabError

PROMPTS = ["The capital of Norway is", "The money of Peru is the"]
OPTIONS = [" Paris", " Oslo", " yen"]


def members(m=5, n=40, k=4, seed=0):
    return softmax(2 * np.random.default_rng(seed).normal(size=(m, n, k)), axis=2)


@pytest.fixture
def predict(tiny_tokenizer):
    def of(model):
        result = multiple_choice(model, tiny_tokenizer, PROMPTS, OPTIONS, chat=False)
        return result.probabilities

    return of


# --- Dropout ----------------------------------------------------------------------


class Block(nn.Module):
    """One sublayer whose output is all ones."""

    def __init__(self):
        super().__init__()
        self.mlp = nn.Identity()

    def forward(self, x):
        return self.mlp(x)


def test_dropout_drops_its_share_and_keeps_the_mean():
    block, ones = Block().eval(), torch.ones(1000, 100)
    torch.manual_seed(0)
    with dropout(block, 0.3):
        out = block(ones)
    assert sorted(out.unique().tolist()) == pytest.approx([0, 1 / 0.7])
    assert (out == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert out.mean().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(block(ones), ones)  # and is gone afterwards


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_dropout_reaches_every_sublayer_in_either_mode(kind, tiny_model):
    torch.manual_seed(0)
    model = tiny_model
    if kind == "gpt2":
        model = GPT2LMHeadModel(
            GPT2Config(vocab_size=60, n_embd=16, n_layer=2, n_head=2)
        )
        model.eval()
    ids = torch.randint(5, 60, (2, 7))
    plain = model(ids).logits
    with dropout(model, 0.0):
        torch.testing.assert_close(model(ids).logits, plain)
    for train in (False, True):
        model.train(train)
        with dropout(model, 0.2):
            first, second = model(ids).logits, model(ids).logits
        assert (first - second).abs().max() > 1e-3 and torch.isfinite(first).all()
    model.eval()
    torch.testing.assert_close(model(ids).logits, plain)
    names = [n.split(".")[-1] for n, _ in model.named_modules()]
    assert sum(n in ("mlp", "attn", "self_attn") for n in names) == 2 * (
        3 if kind == "llama" else 2
    )


def test_a_model_learns_under_dropout(tiny_model):
    ids = torch.randint(5, 60, (8, 7))
    with dropout(tiny_model, 0.1):
        tiny_model(ids, labels=ids).loss.backward()
    gradient = tiny_model.get_input_embeddings().weight.grad
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0


def test_mc_dropout_is_reproducible_and_leaves_no_trace(tiny_model, predict):
    before = predict(tiny_model)
    state = torch.get_rng_state()
    first = mc_dropout(tiny_model, predict, rate=0.2, n_passes=4)
    second = mc_dropout(tiny_model, predict, rate=0.2, n_passes=4)
    other = mc_dropout(tiny_model, predict, rate=0.2, n_passes=4, seed=1)
    assert first.shape == (4, 2, 3) and np.array_equal(first, second)
    assert not np.array_equal(first, other) and not np.array_equal(first[0], first[1])
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(predict(tiny_model), before)
    nothing = mc_dropout(tiny_model, predict, rate=0.0, n_passes=2)
    np.testing.assert_allclose(nothing, np.stack([before, before]), rtol=1e-6)


# --- Members ----------------------------------------------------------------------


def test_members_are_stacked_in_order(tiny_model, tiny_tokenizer, predict):
    own = predict(tiny_model)
    with torch.no_grad():
        tiny_model.get_output_embeddings().weight.mul_(0.5)
    other = predict(tiny_model)

    def switch(weight):
        with torch.no_grad():
            tiny_model.get_output_embeddings().weight.mul_(weight)
        return tiny_model

    result = deep_ensemble([switch(2.0)], predict)
    np.testing.assert_allclose(result, own[None], rtol=1e-5)
    assert np.abs(own - other).max() > 1e-3
    again = [f"Say: {prompt}" for prompt in PROMPTS]
    result = prompt_ensemble(
        tiny_model, tiny_tokenizer, [PROMPTS, again], OPTIONS, chat=False
    )
    np.testing.assert_allclose(result[0], own, rtol=1e-5)
    alone = multiple_choice(tiny_model, tiny_tokenizer, again, OPTIONS, chat=False)
    np.testing.assert_allclose(result[1], alone.probabilities, rtol=1e-5)


def test_members_have_the_same_items_and_options(tiny_model, tiny_tokenizer):
    models = tiny_model, tiny_tokenizer
    ragged = [[" Paris", " Oslo"], [" yen", " sol", " euro"]]
    with pytest.raises(ValueError, match=r"members\[0\] has items with 2 to 3 options"):
        prompt_ensemble(*models, [PROMPTS, PROMPTS], ragged, chat=False)
    with pytest.raises(ValueError, match=r"members\[1\] has shape \(1, 3\) and"):
        prompt_ensemble(*models, [PROMPTS, PROMPTS[:1]], OPTIONS, chat=False)
    of_tensors = [torch.ones(2) / 2, torch.ones(3) / 3]
    with pytest.raises(ValueError, match=r"members\[0\] has items with 2 to 3 options"):
        deep_ensemble([tiny_model], lambda _: of_tensors)
    same = deep_ensemble([tiny_model], lambda _: [torch.ones(2) / 2] * 3)
    assert same.shape == (1, 3, 2)


def test_a_model_with_dropout_is_asked_all_the_same():
    """Dropout makes equal texts differ, which is not seeing later tokens."""
    from tests.tiny_models import model, tokenizer

    llama = model()
    with dropout(llama, 0.5):
        ask = [multiple_choice(llama, tokenizer(), PROMPTS, OPTIONS, chat=False)]
        ask.append(multiple_choice(llama, tokenizer(), PROMPTS, OPTIONS, chat=False))
    first, second = (answers.probabilities for answers in ask)
    assert not np.array_equal(first, second)


# --- Their mean -------------------------------------------------------------------


def test_means_by_hand():
    two = np.array([[[0.9, 0.1]], [[0.5, 0.5]]])
    assert ensemble_probabilities(two)[0] == pytest.approx([0.7, 0.3])
    right, wrong = math.sqrt(0.9 * 0.5), math.sqrt(0.1 * 0.5)
    geometric = ensemble_probabilities(two, "geometric")[0]
    assert geometric == pytest.approx(
        [right / (right + wrong), wrong / (right + wrong)]
    )


def test_the_mean_scores_at_least_as_well_as_a_member_on_average():
    """Jensen, for every item and so for every data set."""
    p, labels = members(), np.random.default_rng(1).integers(0, 4, 40)
    alone = np.mean([negative_log_likelihood(member, labels) for member in p])
    for how in ("arithmetic", "geometric"):
        mixed = ensemble_probabilities(p, how)
        assert mixed.sum(axis=1) == pytest.approx(np.ones(40))
        assert negative_log_likelihood(mixed, labels) < alone


def test_uncertainty_is_divided_into_doubt_and_disagreement():
    p = members()
    result = ensemble_uncertainty(p)
    mean = p.mean(axis=0)
    divergence = (p * np.log(p / mean)).sum(axis=2).mean(axis=0)
    np.testing.assert_allclose(result.disagreement, divergence, rtol=1e-9)
    np.testing.assert_allclose(result.total, result.expected + divergence, rtol=1e-9)


def test_agreement_and_certainty_are_the_two_ends():
    same = np.repeat(members(1), 5, axis=0)
    assert ensemble_uncertainty(same).disagreement == pytest.approx(0, abs=1e-12)
    apart = np.eye(4)[:, None, :]  # each member sure of another class
    result = ensemble_uncertainty(apart)
    assert (result.total[0], result.expected[0]) == pytest.approx((math.log(4), 0))
    assert result.disagreement[0] == pytest.approx(math.log(4))


def test_wrong_arguments_are_named(tiny_model, tiny_tokenizer, predict):
    p = members(2, 3, 4)
    with pytest.raises(ValueError, match=r"members have shape \(3, 4\)"):
        ensemble_probabilities(p[0])
    wrong = p.copy()
    wrong[1, 2, 0] = np.nan
    with pytest.raises(ValueError, match=r"members\[1, 2\] are \[ *nan"):
        ensemble_uncertainty(wrong)
    with pytest.raises(ValueError, match=r"members\[0, 0\]"):
        ensemble_probabilities(p * 0.9)
    with pytest.raises(ValueError, match="how is 'median'"):
        ensemble_probabilities(p, "median")
    with pytest.raises(ValueError, match=r"members\[:, 0\] give every class prob"):
        ensemble_probabilities(np.eye(4)[:, None, :], "geometric")
    for rate in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"rate is {rate}"):
            mc_dropout(tiny_model, predict, rate=rate)
    with pytest.raises(ValueError, match="n_passes is 0"):
        mc_dropout(tiny_model, predict, rate=0.1, n_passes=0)
    with pytest.raises(ValueError, match="models is empty"):
        deep_ensemble([], predict)
    with pytest.raises(ValueError, match="wordings is empty"):
        prompt_ensemble(tiny_model, tiny_tokenizer, [], OPTIONS)
    with pytest.raises(AlignlabError, match="Linear has no sublayer named mlp"):
        with dropout(nn.Linear(2, 2), 0.1):
            pass
