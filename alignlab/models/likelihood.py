"""What a model thinks of given text: log-probabilities of the tokens a mask picks out.

The vocabulary's matrix is the dearest part of a small model, so only those tokens meet
it.
"""

from contextlib import contextmanager

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


def completion_log_probs(
    model: nn.Module,
    input_ids: Int[Tensor, "batch time"],
    attention_mask: Int[Tensor, "batch time"],
    mask: Int[Tensor, "batch time"],
) -> Float[Tensor, "batch time-1"]:
    """Log-probability of each masked token given those before it, in nats; 0 elsewhere.

    It is ``token_log_probs(model(...).logits, input_ids)`` where the mask is 1, at a
    third less time on the tiny model, where logits for every token of prompt and
    padding would be most of the work. Sums over rows are the completions'
    log-probabilities.

    Args:
        model: a causal language model of `transformers`, also with peft adapters.
        input_ids: prompts and completions, padded on either side.
        attention_mask: 1 on real tokens, 0 on padding.
        mask: 1 on the tokens asked about. The first column is not read.

    Raises:
        ValueError: if the shapes differ.
    """
    if not input_ids.shape == attention_mask.shape == mask.shape:
        raise ValueError(
            f"input_ids, attention_mask and mask have shapes {tuple(input_ids.shape)}, "
            f"{tuple(attention_mask.shape)} and {tuple(mask.shape)}: they must agree"
        )
    asked = mask[:, 1:].bool()  # (B, T-1): logits at t speak of token t+1
    with _output_layer_sees(model, F.pad(asked, (0, 1))):
        logits = model(
            input_ids, use_cache=False, **_masking(attention_mask)
        ).logits  # (1, N, V)
    found = -F.cross_entropy(
        logits[0], input_ids[:, 1:][asked], reduction="none"
    )  # (N,)
    result = found.new_zeros(asked.shape)
    result[asked] = found
    return result


@contextmanager
def _output_layer_sees(model: nn.Module, where: Tensor):
    """Let only the hidden states at ``where`` (B, T) through to the output layer.

    A hook, so that whatever a model does after that layer (scaling, capping) still
    happens.
    """

    def select(module, inputs):
        return (inputs[0][where][None], *inputs[1:])  # (1, N, hidden)

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()


def _masking(attention_mask: Tensor) -> dict[str, Tensor]:
    """The arguments that hide the padding.

    Padding on the right needs none: a causal model's tokens never look that way.
    Without a mask, attention takes its fast path.
    """
    if bool((attention_mask[:, 1:] <= attention_mask[:, :-1]).all()):
        return {}
    positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
    return {"attention_mask": attention_mask, "position_ids": positions}
