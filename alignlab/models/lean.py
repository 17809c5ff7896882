"""Layers of Llama and its relatives that cost less on a CPU.

Norms and rotary positions have hand-written gradients, in less than half autograd's
time, and the last MLP computes only the positions wanted. Results agree to rounding.
"""

import contextlib
import functools
import types
from collections.abc import Callable, Iterator
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

Places = tuple[Int[Tensor, "places"], Int[Tensor, "places"]]
RELATIVES = ("llama", "mistral", "qwen2", "qwen3", "smollm3")  # with the same layers
MODULES = [f"transformers.models.{name}.modeling_{name}" for name in RELATIVES]


def is_relative(model: nn.Module) -> bool:
    """Whether the model is of one of the kinds in ``RELATIVES``."""
    return getattr(model.config, "model_type", None) in RELATIVES


def has_plain_attention(model: nn.Module) -> bool:
    """Whether the model is one of Llama's ``RELATIVES`` in which a token sees all those
    before it, so that padding behind a text needs no mask."""
    windowed = getattr(model.config, "sliding_window", None) is not None
    return is_relative(model) and not windowed


@contextlib.contextmanager
def last_mlp_at(model: nn.Module, places: Places, width: int) -> Iterator[None]:
    """Meanwhile, the last layer puts only some positions through its MLP; the last
    hidden states elsewhere mean nothing.

    Args:
        places: rows and columns of the positions, as ``mask.nonzero(as_tuple=True)``
            gives them.
        width: of the rows.

    After that MLP no position sees another, so those wanted stay as they are. Models
    other than Llama's ``RELATIVES`` and those with gradient checkpointing compute all
    positions: checkpointing recomputes layers in the backward pass, when this is over.
    """
    if width == 1:  # a step of sampling: nothing to leave out
        yield
        return
    parts = list(model.modules())
    mlps = [part for part in parts if _is_relatives(part, "MLP")]
    if not mlps or any(getattr(p, "gradient_checkpointing", False) for p in parts):
        yield
        return

    def select(mlp, inputs):
        shapes.append(inputs[0].shape)
        return inputs[0][places]  # (N, hidden)

    def spread(mlp, inputs, output):
        return output.new_zeros(shapes.pop()).index_put(places, output)

    shapes: list[torch.Size] = []
    with contextlib.ExitStack() as hooks:
        hooks.callback(mlps[-1].register_forward_pre_hook(select).remove)
        hooks.callback(mlps[-1].register_forward_hook(spread).remove)
        yield


# --- Norms and rotary positions -------------------------------------------------------

_REGIONS: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()  # open on a layer


@contextlib.contextmanager
def lean_layers(*models: nn.Module) -> Iterator[None]:
    """Meanwhile, those of the models that are Llama's ``RELATIVES`` compute norms and
    rotary positions by the functions below, on a CPU and in float32.

    Only these models change, not the classes of `transformers`. Regions may overlap:
    the last to close restores the layers. Copies and pickles made inside are of the
    plain model. With gradient checkpointing the backward pass belongs inside as well.
    """
    layers = [
        layer
        for model in models
        for layer in model.modules()
        if _is_relatives(layer, ("RMSNorm", "Attention"))
    ]
    with contextlib.ExitStack() as on_exit:
        for layer in layers:
            _make_lean(layer)
            on_exit.callback(_restore, layer)
        yield


def _is_relatives(layer: nn.Module, endings: str | tuple[str, ...]) -> bool:
    kind = type(layer)
    return kind.__module__ in MODULES and kind.__name__.endswith(endings)


def is_lean(layer: nn.Module) -> bool:
    """Whether a region of :func:`lean_layers` is open on the layer."""
    return layer in _REGIONS


def _make_lean(layer: nn.Module) -> None:
    _REGIONS[layer] = _REGIONS.get(layer, 0) + 1
    if _REGIONS[layer] == 1:
        layer.__class__ = _lean_class(type(layer))


def _restore(layer: nn.Module) -> None:
    _REGIONS[layer] -= 1
    if _REGIONS[layer] == 0:
        layer.__class__ = type(layer).__base__
        del _REGIONS[layer]


@functools.cache
def _lean_class(usual: type[nn.Module]) -> type[nn.Module]:
    """A subclass under the same name that computes leaner."""

    def __reduce_ex__(self, protocol):  # copies and pickles are of the usual class
        state = usual.__reduce_ex__(self, protocol)[2]
        return object.__new__, (usual,), state

    lean = _lean_norm if usual.__name__.endswith("RMSNorm") else _lean_attention
    names = {
        "forward": lean(usual.forward),
        "__reduce_ex__": __reduce_ex__,
        "__module__": usual.__module__,
        "__qualname__": usual.__qualname__,
    }
    return type(usual.__name__, (usual,), names)


def _is_cpu_float32(*tensors: Tensor) -> bool:
    return all(x.device.type == "cpu" and x.dtype == torch.float32 for x in tensors)


def _lean_norm(usual: Callable) -> Callable:
    @functools.wraps(usual)
    def forward(layer, hidden_states):
        if not _is_cpu_float32(hidden_states, layer.weight):
            return usual(layer, hidden_states)
        return RMSNorm.apply(hidden_states, layer.weight, layer.variance_epsilon)

    return forward


def _lean_attention(usual: Callable) -> Callable:
    """The same function, to which ``apply_rotary_pos_emb`` is the lean one."""
    if "apply_rotary_pos_emb" not in usual.__code__.co_names:
        return usual
    usual_rotary = usual.__globals__["apply_rotary_pos_emb"]

    def apply_rotary_pos_emb(q, k, cos, sin, unsqueeze_dim=1):
        if not _is_cpu_float32(q, k, cos):
            return usual_rotary(q, k, cos, sin, unsqueeze_dim)
        cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        return Rotary.apply(q, cos, sin), Rotary.apply(k, cos, sin)

    names = usual.__globals__ | {"apply_rotary_pos_emb": apply_rotary_pos_emb}
    forward = types.FunctionType(
        usual.__code__, names, usual.__name__, usual.__defaults__, usual.__closure__
    )
    forward.__kwdefaults__ = usual.__kwdefaults__
    return functools.update_wrapper(forward, usual)


def rms_norm(
    x: Float[Tensor, "*rows hidden"], weight: Float[Tensor, "hidden"], epsilon: float
) -> tuple[Float[Tensor, "*rows hidden"], Float[Tensor, "*rows 1"]]:
    """x r w and r, see :class:`RMSNorm`."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    scale = (length.square_() / x.shape[-1]).add_(epsilon).rsqrt_()
    return (x * scale).mul_(weight), scale


class RMSNorm(torch.autograd.Function):
    """x r w with r = (mean(x²) + epsilon)^(-1/2) over the last dimension."""

    @staticmethod
    def forward(
        ctx, x: Float[Tensor, "*rows hidden"], weight: Float[Tensor, "hidden"], epsilon
    ) -> Float[Tensor, "*rows hidden"]:
        y, scale = rms_norm(x, weight, epsilon)
        ctx.save_for_backward(x, weight, scale)
        return y

    @staticmethod
    def backward(ctx, grad):
        # With g the gradient: r g w - r³ x sum(g w x) / hidden, and sum(g x r) for w.
        x, weight, scale = ctx.saved_tensors
        products = (grad * x).reshape(-1, x.shape[-1])
        along = (products @ weight).view(scale.shape) * scale.pow(3) / x.shape[-1]
        grad_x = (grad * weight).mul_(scale).addcmul_(x, along, value=-1)
        return grad_x, scale.reshape(-1) @ products, None


class Rotary(torch.autograd.Function):
    """x cos + (-x₂, x₁) sin, for x = (x₁, x₂), the halves of the last dimension."""

    @staticmethod
    def forward(ctx, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        first, second = sin.chunk(2, dim=-1)
        return rotate(x, cos, first, second)

    @staticmethod
    def backward(ctx, grad):
        cos, sin = ctx.saved_tensors
        first, second = sin.chunk(2, dim=-1)
        return rotate(grad, cos, -second, -first), None, None


def rotate(x: Tensor, cos: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """(x₁ cos - x₂ first, x₂ cos + x₁ second), cos by its own halves."""
    rotated = x * cos
    (y1, y2), (x1, x2) = rotated.chunk(2, dim=-1), x.chunk(2, dim=-1)
    y1.addcmul_(x2, first, value=-1)
    y2.addcmul_(x1, second)
    return rotated
