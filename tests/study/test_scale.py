"""Shipped sizes train as they always did; larger ones at lower rates, with LoRA."""

import copy
import math

import pytest
import torch

from alignlab.errors import AlignlabError
from alignlab.models import base as models
from alignlab.models.reward import load_reward_model, reward_model_from, score
from alignlab.study import scale
from tests import tiny_models

TODAY = {  # what every recorded arm was trained with
    "tasks": (1.5e-3, 1e-3),
    "facts": (1e-3, 5e-4),
    "demonstrations": (2e-3, 1.5e-3),
    "reward": (1.5e-3, 7e-4),
    "options": (5e-4, 3e-4),
    "answers": (3e-4, 2e-4),
    "stated": (1e-3, 5e-4),
    "text": (6e-3, 4e-3),
}
IDS = torch.tensor([[5, 6, 7, 8, 9]])

# --- Rates ----------------------------------------------------------------------------


def test_the_shipped_sizes_keep_their_rates():
    assert scale.RATES.keys() == TODAY.keys()
    for what, rates in TODAY.items():
        assert tuple(scale.rate(what, size) for size in ("300k", "1m")) == rates
    assert scale.scaled(2.5e-4, "1m") == scale.scaled(2.5e-4, "300k") == 2.5e-4


def test_other_rates_fall_with_the_root_of_the_parameters(monkeypatch):
    sizes = {"small": 4_000_000, "large": 64_000_000, "vast": 6_400_000_000}
    monkeypatch.setattr(scale, "parameter_count", sizes.get)
    assert scale.rate("tasks", "small") == pytest.approx(1e-3 / 2)
    assert scale.rate("facts", "large") == pytest.approx(5e-4 / 8 * 10), "with LoRA"
    assert scale.scaled(1e-4, "vast") == pytest.approx(1e-4 / 80 * 10)
    assert scale.scaled(1e-2, "large") == scale.HIGHEST
    with pytest.raises(ValueError, match="what is 'x'; it can be one of tasks"):
        scale.rate("x", "1m")


# --- Adapters -------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A tiny Qwen2 in a folder."""
    model = tiny_models.model("qwen2", vocab_size=tiny_models.VOCABULARY + 8)
    tokenizer = tiny_models.tokenizer("chatml")
    model.config.pad_token_id = tokenizer.pad_token_id
    models.save_model(model, tokenizer, tmp_path / "qwen2")
    return tmp_path / "qwen2"


@pytest.fixture
def adapted(folder, monkeypatch):
    """A policy whose adapters have learnt something."""
    monkeypatch.setattr(models, "LARGE", 10)
    model, tokenizer = scale.trainable_base(folder)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    return model.eval(), tokenizer


def test_only_large_models_get_adapters_and_they_begin_as_nothing(folder, monkeypatch):
    plain, _ = scale.trainable_base(folder)
    assert all(p.requires_grad for p in plain.parameters())
    monkeypatch.setattr(models, "LARGE", 10)
    before = torch.get_rng_state()
    model, _ = scale.trainable_base(folder)
    again, _ = scale.trainable_base(folder)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(model(IDS).logits, plain(IDS).logits)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert all("lora" in n or "model.norm" in n for n in trained) and trained
    same = dict(again.named_parameters())
    assert all(torch.equal(p, same[name]) for name, p in trained.items())
    shipped, _ = scale.trainable_base("300k")
    assert not hasattr(shipped, "peft_config")


def test_a_sharpened_policy_comes_back_from_its_adapters(adapted, tmp_path):
    model, tokenizer = adapted
    before = model(IDS).logits.clone()
    scale.sharpen(model, 0.7)
    after = model(IDS).logits
    torch.testing.assert_close(after * 0.7, before)
    models.save_model(model, tokenizer, tmp_path / "policy")
    assert not (tmp_path / "policy" / "model.safetensors").exists()
    again, _ = models.load_model(tmp_path / "policy")
    assert torch.equal(again.eval()(IDS).logits, after)


def test_a_reward_model_starts_from_the_policys_trunk(adapted, tmp_path):
    policy, tokenizer = adapted
    trunk = copy.deepcopy(policy).merge_and_unload().model(IDS).last_hidden_state
    model = scale.reward_model_of(policy, seed=3)
    hidden = model.get_base_model().model(IDS).last_hidden_state
    torch.testing.assert_close(hidden, trunk, rtol=1e-4, atol=1e-5)
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert any("score" in n for n in trained) and any("lora" in n for n in trained)
    asked = ["Is gold a metal?"], ["Yes."]
    expected = score(model, tokenizer, *asked)
    models.save_model(model, tokenizer, tmp_path / "reward")
    again = load_reward_model(tmp_path / "reward")
    assert score(*again, *asked) == pytest.approx(expected, rel=1e-5)


def test_without_adapters_it_is_the_usual_reward_model(tiny_model):
    ours, theirs = (
        make(tiny_model, 3) for make in (scale.reward_model_of, reward_model_from)
    )
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)


# --- Temperature ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "qwen3", "gemma3", "mamba"])
def test_logits_are_divided_whatever_the_last_norm(name):
    model = tiny_models.model(name)
    before = model(IDS).logits.clone()
    scale.sharpen(model, 0.7)
    torch.testing.assert_close(model(IDS).logits * 0.7, before, rtol=1e-4, atol=1e-4)


def test_where_they_cannot_the_model_stays_as_it_is():
    model = tiny_models.model("recurrent gemma")  # caps its logits
    before = model(IDS).logits.clone()
    with pytest.raises(AlignlabError, match="cannot be divided by a temperature"):
        scale.sharpen(model, 0.7)
    assert torch.equal(model(IDS).logits, before)


def test_the_shipped_models_norm_is_divided_and_nothing_else():
    model, _ = models.load_base("300k")
    start = {name: value.clone() for name, value in model.state_dict().items()}
    scale.sharpen(model, 0.7)
    for name, value in model.state_dict().items():
        expected = start[name] / 0.7 if name == "model.norm.weight" else start[name]
        assert torch.equal(value, expected), name


# --- Room for replies -----------------------------------------------------------------


def test_other_tokenizers_have_room_for_the_same_texts():
    _, ours = models.load_base("300k")
    assert scale.cap(ours, 24) == 24 and scale.cap(ours, 64) == 64
    theirs = tiny_models.tokenizer()  # nearly a token a letter
    text = "The capital of Papua New Guinea is Bandar Seri Begawan."
    need, have = (len(t(text)["input_ids"]) for t in (theirs, ours))
    assert scale.cap(theirs, have) >= need > have
    assert math.isclose(scale.cap(theirs, 240) / 240, scale.cap(theirs, 24) / 24,
                        rel_tol=0.05)  # fmt: skip
