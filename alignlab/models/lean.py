"""What Llama and its relatives can leave out.

On a processor what is no matrix product takes as long as memory takes, and autograd
goes over it many times: here norms and rotary positions have their gradients written
out, which takes less than half as long. And the last MLP computes only what someone
will look at. Numbers agree but for rounding.
"""

import contextlib
import sys
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

RELATIVES = ("llama", "mistral", "qwen2", "qwen3", "smollm3")  # of the same layers
MODULES = [f"transformers.models.{name}.modeling_{name}" for name in RELATIVES]


@contextlib.contextmanager
def last_mlp_at(model: nn.Module, asked: Bool[Tensor, "batch width"]) -> Iterator[None]:
    """While this is open, the last layer of a model of Llama's ``RELATIVES`` puts only
    the positions asked about through its MLP; at the others the last hidden states mean
    nothing. Behind that MLP no position sees another, so at these nothing changes."""
    parts = list(model.modules())
    related = (part for part in parts if type(part).__module__ in MODULES)
    mlps = [part for part in related if type(part).__name__.endswith("MLP")]
    # Checkpointing computes layers again in the backward pass, when this is closed.
    again = any(getattr(part, "gradient_checkpointing", False) for part in parts)
    if not mlps or again:
        yield
        return

    def select(mlp, inputs):
        return inputs[0][asked]  # (N, hidden)

    def spread(mlp, inputs, output):
        whole = output.new_zeros(*asked.shape, output.shape[-1])
        return whole.index_put((asked,), output)

    with contextlib.ExitStack() as hooks:
        hooks.callback(mlps[-1].register_forward_pre_hook(select).remove)
        hooks.callback(mlps[-1].register_forward_hook(spread).remove)
        yield


@contextlib.contextmanager
def lean_layers() -> Iterator[None]:
    """While this is open, models of Llama's ``RELATIVES`` compute norms and rotary
    positions by the functions below, on a CPU and in float32; elsewhere as ever.

    It changes the classes of `transformers`, for as long as it is open, and no model.
    """
    loaded = [sys.modules[name] for name in MODULES if name in sys.modules]
    with contextlib.ExitStack() as changes:
        for module in loaded:
            for norm in [x for x in vars(module) if x.endswith("RMSNorm")]:
                _swap(changes, getattr(module, norm), "forward", _norm_or)
            _swap(changes, module, "apply_rotary_pos_emb", _rotary_or)
        yield


def _swap(changes: contextlib.ExitStack, owner, name: str, leaner) -> None:
    usual = getattr(owner, name)
    setattr(owner, name, leaner(usual))
    changes.callback(setattr, owner, name, usual)


def _here(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32


def _norm_or(usual):
    def forward(layer, hidden_states):
        if not (_here(hidden_states) and _here(layer.weight)):
            return usual(layer, hidden_states)
        return RMSNorm.apply(hidden_states, layer.weight, layer.variance_epsilon)

    return forward


def _rotary_or(usual):
    def apply_rotary_pos_emb(q, k, cos, sin, unsqueeze_dim=1):
        if not (_here(q) and _here(k) and _here(cos)):
            return usual(q, k, cos, sin, unsqueeze_dim)
        cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        return Rotary.apply(q, cos, sin), Rotary.apply(k, cos, sin)

    return apply_rotary_pos_emb


class RMSNorm(torch.autograd.Function):
    """x r w with r = (mean(x²) + epsilon)^(-1/2) over the last dimension."""

    @staticmethod
    def forward(
        ctx, x: Float[Tensor, "*rows hidden"], weight: Float[Tensor, "hidden"], epsilon
    ) -> Float[Tensor, "*rows hidden"]:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = (length.square_() / x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    def backward(ctx, grad):
        # With g the gradient: r g w - r³ x sum(g w x) / hidden, and sum(g x r) for w.
        x, weight, scale = ctx.saved_tensors
        products = (grad * x).view(-1, x.shape[-1])
        along = (products @ weight).view(scale.shape) * scale.pow(3) / x.shape[-1]
        grad_x = (grad * weight).mul_(scale).addcmul_(x, along, value=-1)
        return grad_x, scale.view(-1) @ products, None


class Rotary(torch.autograd.Function):
    """x cos + (-x₂, x₁) sin, for x = (x₁, x₂), the halves of the last dimension."""

    @staticmethod
    def forward(ctx, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        first, second = sin.chunk(2, dim=-1)
        return _turned(x, cos, first, second)

    @staticmethod
    def backward(ctx, grad):
        cos, sin = ctx.saved_tensors
        first, second = sin.chunk(2, dim=-1)
        return _turned(grad, cos, -second, -first), None, None


def _turned(x: Tensor, cos: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """(x₁ cos - x₂ first, x₂ cos + x₁ second), cos by its own halves."""
    turned = x * cos
    (y1, y2), (x1, x2) = turned.chunk(2, dim=-1), x.chunk(2, dim=-1)
    y1.addcmul_(x2, first, value=-1)
    y2.addcmul_(x1, second)
    return turned
