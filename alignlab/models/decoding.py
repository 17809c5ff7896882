"""The next token of Llama and its relatives, without the machinery around a step.

A step of a small model on a CPU is more overhead than arithmetic. Here the layers'
modules are called one after the other, with the results that the model itself gives.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from alignlab.models.cache import SpareLayer
from alignlab.models.lean import MODULES, is_lean, rms_norm, rotate

MODELS = (  # whose layers do no more than the ones below
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
)


def can_step(
    model: nn.Module, input_ids: Int[Tensor, "batch time"], cache: DynamicCache | None
) -> bool:
    """Whether :func:`step` may take the place of the model: for one token a row, with
    lean layers, in float32 on a CPU, and keys and values in the sampler's cache."""
    kind = type(model)
    if input_ids.shape[1] != 1 or kind.__name__ not in MODELS:
        return False
    if kind.__module__ not in MODULES:  # another class under the same name
        return False
    if torch.is_grad_enabled() or model.config._attn_implementation != "sdpa":
        return False
    if torch.is_autocast_enabled("cpu") or cache is None:
        return False
    norms = [layer.input_layernorm.weight.data for layer in model.model.layers]
    if any(type(weight) is not Tensor or not weight.numel() for weight in norms):
        return False  # spread over processes
    if any(x.device.type != "cpu" or x.dtype != torch.float32 for x in norms):
        return False
    kept = all(type(layer) is SpareLayer for layer in cache.layers)
    return kept and is_lean(model.model.norm)


def step(
    model: nn.Module,
    input_ids: Int[Tensor, "batch 1"],
    attention_mask: Int[Tensor, "batch width"] | None,
    position_ids: Int[Tensor, "batch 1"],
    cache: DynamicCache,
) -> tuple[Float[Tensor, "batch vocab"], Float[Tensor, "batch hidden"]]:
    """Logits of the next token and the hidden states that they come from; the cache
    keeps the token."""
    x = model.model.embed_tokens(input_ids)  # (B, 1, H)
    cos, sin = model.model.rotary_emb(x, position_ids)
    positions = cos[:, None], *sin[:, None].chunk(2, dim=-1)
    mask = None
    if attention_mask is not None and not attention_mask.all():
        mask = attention_mask[:, None, None].bool()
    for layer, kept in zip(model.model.layers, cache.layers, strict=True):
        attended = _attend(
            layer.self_attn, _norm(layer.input_layernorm, x), positions, mask, kept
        )
        x = x + attended
        x = x + layer.mlp(_norm(layer.post_attention_layernorm, x))
    hidden = _norm(model.model.norm, x).squeeze(1)
    return model.lm_head(hidden[None]).squeeze(0), hidden


def _attend(
    attention: nn.Module,
    x: Tensor,
    positions: tuple[Tensor, Tensor, Tensor],
    mask: Tensor | None,
    kept: SpareLayer,
) -> Float[Tensor, "batch 1 hidden"]:
    shape = (*x.shape[:-1], -1, attention.head_dim)
    query, key = attention.q_proj(x).view(shape), attention.k_proj(x).view(shape)
    if hasattr(attention, "q_norm"):
        query, key = _norm(attention.q_norm, query), _norm(attention.k_norm, key)
    query, key = (rotate(y.transpose(1, 2), *positions) for y in (query, key))
    value = attention.v_proj(x).view(shape).transpose(1, 2)
    key, value = kept.update(key, value)
    attended, _ = sdpa_attention_forward(
        attention, query, key, value, mask, dropout=0.0, scaling=attention.scaling
    )
    return attention.o_proj(attended.reshape(*x.shape[:-1], -1))


def _norm(layer: nn.Module, x: Tensor) -> Tensor:
    return rms_norm(x, layer.weight, layer.variance_epsilon)[0]
