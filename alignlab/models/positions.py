"""Logits and log-probabilities at some positions only.

The output layer is the most expensive part of a small model, so only the hidden states
that predict a wanted token go through it.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


def logits_at(
    model: nn.Module,
    prediction_mask: Bool[Tensor, "batch time"],
    input_ids: Int[Tensor, "batch time"],
    **model_inputs,
) -> tuple[Float[Tensor, "tokens vocab"], Float[Tensor, "tokens hidden"]]:
    """Logits and last hidden states where ``prediction_mask`` is True, row by row.

    Args:
        model: a causal language model of `transformers`, also with peft adapters.
        prediction_mask: True at the positions whose logits are wanted: to score a
            token, one position before it.
        model_inputs: passed on to the model, such as attention_mask.
    """
    hidden = []

    def select(module, inputs):  # a hook, so that scaling or capping still follows
        hidden.append(inputs[0][prediction_mask])  # (N, H)
        return (hidden[0][None], *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        logits = model(input_ids, **model_inputs).logits  # (1, N, V)
    finally:
        hook.remove()
    return logits.squeeze(0), hidden[0]  # [0] would copy the gradient in backward


def completion_log_probs(
    model: nn.Module,
    input_ids: Int[Tensor, "batch time"],
    attention_mask: Int[Tensor, "batch time"],
    mask: Int[Tensor, "batch time"],
) -> Float[Tensor, "batch time-1"]:
    """Log-probability of each masked token given those before it, in nats; 0 elsewhere.

    The same as ``token_log_probs(model(...).logits, input_ids)`` where the mask is 1,
    but forward and backward of the tiny model take a quarter to a third less time. The
    sum over a row is the log-probability of its completion.

    Args:
        model: a causal language model of `transformers`, also with peft adapters.
        input_ids: prompts and completions, padded on either side.
        attention_mask: 1 on real tokens, 0 on padding.
        mask: completion mask, 1 on the tokens to score. It does not count at a row's
            first token, which nothing predicts.

    Raises:
        ValueError: if the shapes differ.
    """
    if not input_ids.shape == attention_mask.shape == mask.shape:
        raise ValueError(
            f"input_ids, attention_mask and mask have shapes {tuple(input_ids.shape)}, "
            f"{tuple(attention_mask.shape)} and {tuple(mask.shape)}: they must agree"
        )
    # (B, T-1): logits at t predict token t+1, if t is a real token.
    predicts = mask[:, 1:].bool() & attention_mask[:, :-1].bool()
    logits, _ = logits_at(
        model,
        F.pad(predicts, (0, 1)),
        input_ids,
        attention_mask=attention_mask,
        position_ids=(attention_mask.cumsum(1) - 1).clamp(min=0),  # for left padding
        use_cache=False,
    )
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss = F.cross_entropy(logits, input_ids[:, 1:][predicts], reduction="none")  # (N,)
    return loss.new_zeros(predicts.shape).masked_scatter(predicts, -loss)
