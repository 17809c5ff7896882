"""The written-out layers against those of `transformers`, and finite differences."""

import importlib

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.llama import modeling_llama

from alignlab.models.lean import MODULES, RELATIVES, RMSNorm, Rotary, lean_layers
from alignlab.ppo import PPOConfig, PPOTrainer
from alignlab.training.ppo.rollout import completion_logits, training_mode


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
    with torch.no_grad():  # norms are made with weights of 1, which hide mistakes
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
    """To a share of each parameter's greatest gradient, which must be some."""
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        size = gradient.abs().max().item()
        assert size > 0, name
        torch.testing.assert_close(
            found[name], gradient, rtol=0, atol=1e-5 * size, msg=name
        )


@pytest.mark.parametrize("family", RELATIVES)
def test_a_models_loss_and_gradients_stay_as_they_were(family, monkeypatch):
    model = small_model(family)
    expected, gradients = loss_and_gradients(model)
    calls = {RMSNorm: 0, Rotary: 0}
    for layer in calls:
        counted = _counting(layer, calls, layer.apply)
        monkeypatch.setattr(layer, "apply", counted)
    with lean_layers():
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
def test_what_is_asked_about_stays_as_it_was(family, checkpointing):
    model = small_model(family)
    ids = torch.randint(50, (4, 9), generator=torch.Generator().manual_seed(0))
    asked = torch.rand(ids.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    assert 0 < asked.sum() < asked.numel()

    def gradients(logits):
        model.zero_grad()
        logits.square().sum().backward()
        return gradients_of(model)

    expected = model(ids).logits[asked]
    expected_gradients = gradients(expected)
    if checkpointing:
        model.gradient_checkpointing_enable()
        training_mode(model, dropout=False)
    rows = []
    last = model.model.layers[-1].mlp.down_proj
    last.register_forward_hook(lambda *args: rows.append(args[1][0][..., 0].numel()))
    found, _ = completion_logits(model, ids, asked)
    assert rows == [asked.numel() if checkpointing else asked.sum()]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert_alike(gradients(found), expected_gradients)
    assert not model.model.layers[-1].mlp._forward_hooks


def test_nothing_is_left_behind_even_after_an_error():
    modules = [importlib.import_module(name) for name in MODULES]
    norms = [
        getattr(module, name)
        for module in modules
        for name in vars(module)
        if name.endswith("RMSNorm")
    ]
    assert len(norms) == len(RELATIVES)

    def state():
        rotary = [module.apply_rotary_pos_emb for module in modules]
        return rotary + [norm.forward for norm in norms]

    before = state()
    with pytest.raises(KeyError), lean_layers(), lean_layers():
        assert not any(a is b for a, b in zip(before, state()))
        raise KeyError
    assert all(a is b for a, b in zip(before, state()))


def test_other_precisions_are_left_to_the_model_itself(monkeypatch):
    def never(*args):
        raise AssertionError("was called")

    monkeypatch.setattr(RMSNorm, "apply", never)
    monkeypatch.setattr(Rotary, "apply", never)
    model = small_model("llama", torch.bfloat16)
    expected, _ = loss_and_gradients(model)
    with lean_layers():
        assert loss_and_gradients(model)[0] == expected


def test_gradients_agree_with_finite_differences():
    torch.manual_seed(0)

    def new(*shape):
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    x, weight = new(2, 3, 8), new(8)
    assert torch.autograd.gradcheck(lambda *a: RMSNorm.apply(*a, 1e-5), (x, weight))
    cos, sin = new(1, 1, 3, 8).detach(), new(1, 1, 3, 8).detach()
    heads = new(2, 3, 2, 8)  # as attention has them: the time before the heads
    assert torch.autograd.gradcheck(
        lambda q: Rotary.apply(q.transpose(1, 2), cos, sin), (heads,)
    )


def test_it_is_open_while_ppo_trains_and_evaluates(
    tiny_model, tiny_tokenizer, tmp_path
):
    usual, seen = modeling_llama.apply_rotary_pos_emb, []

    def reward(completions):
        seen.append(modeling_llama.apply_rotary_pos_emb is usual)
        return [0.0] * len(completions)

    args = PPOConfig(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=2,
        max_completion_length=2,
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
    )
    rows = [{"prompt": "Peru"}, {"prompt": "Is gold a metal?"}]
    trainer = PPOTrainer(
        tiny_model, reward, args, rows, rows, processing_class=tiny_tokenizer
    )
    trainer.train()
    trainer.evaluate()
    assert seen == [False, False]
    assert modeling_llama.apply_rotary_pos_emb is usual
