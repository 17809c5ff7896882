"""Logits and log-probabilities at some positions only.

The output layer is the most expensive part of a small model, so only the hidden states
that predict a wanted token go through it.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from alignlab.models.cache import keeps_cache
from alignlab.models.fit import has_virtual_tokens, plain_model, text_inputs
from alignlab.models.lean import last_mlp_at


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
        model_inputs: passed on to the model, such as attention_mask, if it takes them.

    Raises:
        ValueError: if the model does not make its logits by one call of one output
            layer, or has virtual tokens; it is read wrongly then, or not at all.
    """
    head = _output_layer(model)
    inputs = text_inputs(model, input_ids, **model_inputs)
    entered = []

    def select(module, args):  # a hook, so that scaling or capping still follows
        entered.append(args[0][prediction_mask])  # (N, H)
        return (entered[-1][None], *args[1:])

    hook = head.register_forward_pre_hook(select)
    try:
        with last_mlp_at(model, prediction_mask):
            logits = model(input_ids, **inputs).logits  # (1, N, V)
    finally:
        hook.remove()
    if len(entered) != 1 or logits.shape[:-1] != (1, len(entered[0])):
        raise ValueError(
            f"a {type(plain_model(model)).__name__} does not make its logits of the "
            "hidden states in one pass through its output layer"
        )
    return logits.squeeze(0), entered[0]  # [0] would copy the gradient in backward


def _output_layer(model: nn.Module) -> nn.Module:
    head = model.get_output_embeddings()
    if head is None or has_virtual_tokens(model):
        raise ValueError(
            f"a {type(plain_model(model)).__name__} has no output layer, or virtual "
            "tokens before the text: see alignlab.models.fit.require_causal_lm"
        )
    return head


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
    if _reads_padding(model, attention_mask):
        return _of_rows_moved_left(model, input_ids, attention_mask, mask)
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
    log_probs = pick_log_probs(logits, None, input_ids[:, 1:][predicts])  # (N,)
    return log_probs.new_zeros(predicts.shape).masked_scatter(predicts, log_probs)


def _reads_padding(model: nn.Module, attention_mask: Tensor) -> bool:
    """Whether padding before a token may change what the model says of it: recurrent
    layers do not skip it, and some count positions without asking."""
    padded_before = (attention_mask[:, 1:] > attention_mask[:, :-1]).any()
    return bool(padded_before) and not keeps_cache(model)


def _of_rows_moved_left(
    model: nn.Module, input_ids: Tensor, attention_mask: Tensor, mask: Tensor
) -> Float[Tensor, "batch time-1"]:
    """:func:`completion_log_probs` of the same rows with all padding on the right."""
    order = attention_mask.argsort(dim=1, descending=True, stable=True)
    moved = (x.gather(1, order) for x in (input_ids, attention_mask, mask))
    log_probs = F.pad(completion_log_probs(model, *moved), (1, 0))
    return torch.zeros_like(log_probs).scatter(1, order, log_probs)[:, 1:]


def pick_log_probs(
    logits: Float[Tensor, "positions vocab"],
    rows: Int[Tensor, "tokens"] | None,
    tokens: Int[Tensor, "tokens"],
) -> Float[Tensor, "tokens"]:
    """``logits.log_softmax(dim=1)[rows, tokens]``, at least float32.

    The logits must not be used afterwards: on a CPU they are overwritten.

    Args:
        rows: the row that predicts each token; None if each row predicts one.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    rows = torch.arange(len(logits), device=logits.device) if rows is None else rows
    return _PickLogProbs.apply(logits, rows, tokens)


class _PickLogProbs(torch.autograd.Function):
    """With half of autograd's memory: these tensors are a small model's largest, and
    on a CPU new memory takes about as long to touch as to use."""

    @staticmethod
    def forward(ctx, logits, rows, tokens):
        # The CPU's kernel reads a row before it writes it: output may be input.
        output = logits if logits.device.type == "cpu" else None
        log_probs = torch.log_softmax(logits, dim=1, out=output)
        ctx.save_for_backward(log_probs, rows, tokens)
        return log_probs[rows, tokens]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        # With g the gradient: g at the token, and -p sum(g) over its row.
        log_probs, rows, tokens = ctx.saved_tensors
        totals = grad.new_zeros(len(log_probs)).index_add_(0, rows, grad)
        grad_logits = log_probs.exp().mul_(-totals[:, None])
        places = rows * log_probs.shape[1] + tokens  # some may occur twice
        grad_logits.view(-1).index_add_(0, places, grad)
        return grad_logits, None, None
