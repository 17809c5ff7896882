"""A step of sampling without the machinery around it: the same bits."""

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from alignlab.models.cache import empty_cache
from alignlab.models.decoding import can_step, step
from alignlab.models.lean import lean_layers

SIZES = dict(
    vocab_size=50,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=64,
    initializer_range=0.3,
)
MODELS = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "llama with biases, fewer keys and scaled positions": (
        LlamaConfig,
        LlamaForCausalLM,
        dict(
            attention_bias=True,
            mlp_bias=True,
            num_key_value_heads=2,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 1e4,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        ),
    ),
    "mistral": (
        MistralConfig,
        MistralForCausalLM,
        dict(sliding_window=None, num_key_value_heads=2),
    ),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, dict(num_key_value_heads=2)),
    "qwen3": (
        Qwen3Config,
        Qwen3ForCausalLM,
        dict(num_key_value_heads=2, head_dim=16, tie_word_embeddings=True),
    ),
}


@pytest.fixture(params=MODELS)
def model(request):
    config, kind, settings = MODELS[request.param]
    torch.manual_seed(0)
    model = kind(config(**SIZES | settings)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:
                parameter += 0.3 * torch.randn_like(parameter)
    return model


def read_by_model(model, tokens, mask, positions, cache):
    output = model(
        tokens,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return output.logits[:, -1]


@torch.no_grad()
def logits_of_steps(model, padded, take_step):
    """Of eight steps behind a prompt; half of the rows leave after the fourth."""
    random = torch.Generator().manual_seed(1)
    tokens = torch.randint(2, 50, (6, 5), generator=random)
    mask = torch.ones_like(tokens)
    if padded:
        mask[0, :3] = mask[4, :2] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache, seen = empty_cache(model), []
    mask = mask if padded else None
    for number in range(8):
        if number and take_step:
            assert can_step(model, tokens, cache)
            logits, _ = step(model, tokens, mask, positions, cache)
        else:
            logits = read_by_model(model, tokens, mask, positions, cache)
        seen.append(logits)
        tokens, positions = logits.argmax(-1, keepdim=True), positions[:, -1:] + 1
        if number == 4:
            keep = torch.tensor([1, 3, 5])
            tokens, positions = tokens[keep], positions[keep]
            mask = None if mask is None else mask[keep]
            cache.batch_select_indices(keep)
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(len(tokens), 1)], dim=1)
    return seen


@pytest.mark.parametrize("padded", [False, True])
def test_a_step_gives_the_model_s_own_bits(model, padded):
    with lean_layers(model):
        expected = logits_of_steps(model, padded, take_step=False)
        actual = logits_of_steps(model, padded, take_step=True)
    assert torch.cat(expected).std() > 0.1
    for a, b in zip(actual, expected, strict=True):
        assert torch.equal(a, b)


def test_a_step_is_taken_only_where_it_is_the_same():
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    token, cache = torch.tensor([[3]]), empty_cache(model)
    with torch.no_grad():
        assert not can_step(model, token, cache)  # the layers are the usual ones
        with lean_layers(model):
            assert can_step(model, token, cache)
            assert not can_step(model, token.expand(1, 2), cache)
            assert not can_step(model, token, None)
            with torch.autocast("cpu", torch.bfloat16):
                assert not can_step(model, token, cache)
            with torch.enable_grad():
                assert not can_step(model, token, cache)
            model.bfloat16()
            assert not can_step(model, token, cache)
    windows = MistralConfig(**SIZES, sliding_window=4)
    model = MistralForCausalLM(windows).eval()
    with torch.no_grad(), lean_layers(model):
        assert not can_step(model, token, empty_cache(model))
