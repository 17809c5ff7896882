"""The lean layers against those of `transformers` and against finite differences."""

import copy
from pickle import dumps, loads

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.llama import modeling_llama

from alignlab.models.lean import RELATIVES, RMSNorm, Rotary, lean_layers
from alignlab.models.positions import logits_at


def small_model(family, dtype=torch.float32):
    config = AutoConfig.for_model(
        family,
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    with torch.no_grad():  # initial norm weights of 1 would hide mistakes
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 2)
    return model


def loss_and_gradients(model):
    ids = torch.randint(50, (3, 9), generator=torch.Generator().manual_seed(0))
    model.zero_grad()
    loss = model(ids, labels=ids).loss
    loss.backward()
    return loss.item(), gradients_of(model)


def gradients_of(model):
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_alike(found, expected):
    """Up to a small share of each parameter's largest gradient, which must not be 0."""
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        size = gradient.abs().max().item()
        assert size > 0, name
        torch.testing.assert_close(
            found[name], gradient, rtol=0, atol=1e-5 * size, msg=name
        )


@pytest.mark.parametrize("family", RELATIVES)
def test_loss_and_gradients_agree_to_rounding(family, monkeypatch):
    model = small_model(family)
    expected, gradients = loss_and_gradients(model)
    calls = {RMSNorm: 0, Rotary: 0}
    for layer in calls:
        counted = _counting(layer, calls, layer.apply)
        monkeypatch.setattr(layer, "apply", counted)
    with lean_layers(model):
        found, lean_gradients = loss_and_gradients(model)
    assert calls[RMSNorm] >= 5 and calls[Rotary] == 4
    assert found == pytest.approx(expected, rel=1e-6)
    assert_alike(lean_gradients, gradients)


def _counting(layer, calls, apply):
    def counted(*args):
        calls[layer] += 1
        return apply(*args)

    return counted


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", RELATIVES)
def test_the_last_mlp_computes_only_the_wanted_positions(family, checkpointing):
    model = small_model(family)
    ids = torch.randint(50, (4, 9), generator=torch.Generator().manual_seed(0))
    wanted = torch.rand(ids.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    assert 0 < wanted.sum() < wanted.numel()

    def gradients(logits):
        model.zero_grad()
        logits.square().sum().backward()
        return gradients_of(model)

    expected = model(ids).logits[wanted]
    expected_gradients = gradients(expected)
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.train()
    rows = []
    last = model.model.layers[-1].mlp.down_proj
    last.register_forward_hook(lambda *args: rows.append(args[1][0][..., 0].numel()))
    logits, _ = logits_at(model, wanted, ids)
    assert rows == [wanted.numel() if checkpointing else wanted.sum()]
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)
    assert_alike(gradients(logits), expected_gradients)
    assert not model.model.layers[-1].mlp._forward_hooks


def kinds(model):
    """The classes of the layers that can be lean."""
    layers = [m for m in model.modules() if m is not model]
    found = [type(m) for m in layers if type(m).__name__.endswith(LEAN)]
    assert len(found) >= 7
    return found


LEAN = ("RMSNorm", "Attention")


def logits_of(model):
    with torch.no_grad():
        return model(torch.arange(20).view(2, 10)).logits


@pytest.mark.parametrize("family", RELATIVES)
def test_an_error_inside_restores_the_model(family):
    model = small_model(family)
    usual, expected = kinds(model), logits_of(model)
    with pytest.raises(KeyError), lean_layers(model), lean_layers(model):
        assert not set(kinds(model)) & set(usual)
        raise KeyError
    assert kinds(model) == usual
    assert torch.equal(logits_of(model), expected)


def test_of_two_regions_the_last_to_close_restores():
    """Not nested: the first to open is the first to close."""
    model = small_model("llama")
    usual = kinds(model)
    first, second = lean_layers(model), lean_layers(model, model)
    first.__enter__()
    lean = kinds(model)
    second.__enter__()
    assert kinds(model) == lean
    first.__exit__(None, None, None)
    assert kinds(model) == lean
    second.__exit__(None, None, None)
    assert kinds(model) == usual
    with lean_layers(model):
        assert kinds(model) == lean
    assert kinds(model) == usual


def test_other_models_of_the_class_stay_as_they_are():
    model, other = small_model("llama"), small_model("llama")
    usual, expected = kinds(other), logits_of(other)
    forward, rotary = usual[0].forward, modeling_llama.apply_rotary_pos_emb
    with lean_layers(model):
        assert kinds(other) == usual and usual[0].forward is forward
        assert modeling_llama.apply_rotary_pos_emb is rotary
        assert torch.equal(logits_of(other), expected)
        assert not torch.equal(logits_of(model), expected), "by rounding"
    assert torch.equal(logits_of(model), expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: loads(dumps(m))])
def test_copies_made_inside_are_of_the_plain_model(copied):
    model = small_model("llama")
    usual, expected = kinds(model), logits_of(model)
    with lean_layers(model):
        twin = copied(model)
        lean = logits_of(model)
    assert kinds(twin) == usual
    assert torch.equal(logits_of(twin), expected)
    with lean_layers(twin):
        assert torch.equal(logits_of(twin), lean)
    assert kinds(twin) == usual


def test_adapted_and_wrapped_models_are_lean_as_well():
    peft = pytest.importorskip("peft")
    model = small_model("llama")
    usual = kinds(model)
    wrapped = nn.Sequential(peft.get_peft_model(model, peft.LoraConfig(r=2)))
    with lean_layers(wrapped):
        assert not set(kinds(model)) & set(usual)
    assert kinds(model) == usual


def test_checkpointing_recomputes_what_was_computed():
    model = small_model("llama").train()
    with lean_layers(model):
        expected = loss_and_gradients(model)
        model.gradient_checkpointing_enable()
        found = loss_and_gradients(model)
    assert found[0] == expected[0]
    assert_alike(found[1], expected[1])


def test_other_precisions_use_the_models_own_layers(monkeypatch):
    def never(*args):
        raise AssertionError("was called")

    monkeypatch.setattr(RMSNorm, "apply", never)
    monkeypatch.setattr(Rotary, "apply", never)
    model = small_model("llama", torch.bfloat16)
    expected, _ = loss_and_gradients(model)
    with lean_layers(model):
        assert loss_and_gradients(model)[0] == expected


def test_gradients_agree_with_finite_differences():
    torch.manual_seed(0)

    def new(*shape):
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    x, weight = new(2, 3, 8), new(8)
    assert torch.autograd.gradcheck(lambda *a: RMSNorm.apply(*a, 1e-5), (x, weight))
    cos, sin = new(1, 1, 3, 8).detach(), new(1, 1, 3, 8).detach()
    heads = new(2, 3, 2, 8)  # as in attention: time before heads
    assert torch.autograd.gradcheck(
        lambda q: Rotary.apply(q.transpose(1, 2), cos, sin), (heads,)
    )


def test_non_contiguous_tensors_are_read_as_they_are():
    torch.manual_seed(0)
    x = torch.randn(8, 5, 3, requires_grad=True)
    weight = torch.randn(8, requires_grad=True)
    upstream = torch.randn(8, 5, 3)

    def results(rows, gradient):
        out = RMSNorm.apply(rows, weight, 1e-5)
        return out, *torch.autograd.grad(out, (x, weight), gradient)

    strided = results(x.transpose(0, 2), upstream.transpose(0, 2))
    dense = results(
        x.transpose(0, 2).contiguous(), upstream.transpose(0, 2).contiguous()
    )
    for found, expected in zip(strided, dense, strict=True):
        torch.testing.assert_close(found, expected)
