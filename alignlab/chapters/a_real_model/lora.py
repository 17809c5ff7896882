"""LoRA by hand, in two functions: what a linear layer with an adapter gives, and the
plain layer that gives the same."""

from jaxtyping import Float
from torch import Tensor


def lora_output(
    x: Float[Tensor, "*batch in"],
    weight: Float[Tensor, "out in"],
    down: Float[Tensor, "rank in"],
    up: Float[Tensor, "out rank"],
    alpha: float,
) -> Float[Tensor, "*batch out"]:
    r"""A linear layer without bias and its adapter:

    .. math:: y = W x + \frac{\alpha}{r} B A x

    Args:
        weight: W, which stays as it is.
        down, up: A and B, of rank r.
        alpha: higher makes the adapter count for more.

    Source: Hu et al. (2022), LoRA, section 4.1.
    """
    scale = alpha / len(down)
    return x @ weight.T + scale * (x @ down.T @ up.T)


def merged_weight(
    weight: Float[Tensor, "out in"],
    down: Float[Tensor, "rank in"],
    up: Float[Tensor, "out rank"],
    alpha: float,
) -> Float[Tensor, "out in"]:
    """The weight of a plain layer that gives the same as :func:`lora_output`."""
    return weight + alpha / len(down) * up @ down
