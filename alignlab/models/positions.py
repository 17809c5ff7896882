"""Logits and log-probabilities at some positions only.

The output layer is the most expensive part of a small model, so only the hidden states
that predict a wanted token go through it.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from alignlab.models.cache import keeps_cache
from alignlab.models.fit import (
    has_virtual_tokens,
    plain_model,
    text_inputs,
    vocabulary_size,
)
from alignlab.models.lean import Places, has_plain_attention, is_relative, last_mlp_at

LOGITS_LIMIT = 2**27  # numbers in one piece of logits: half a GiB in float32


def logits_at(
    model: nn.Module,
    prediction_mask: Bool[Tensor, "batch time"] | Places,
    input_ids: Int[Tensor, "batch time"],
    **model_inputs,
) -> tuple[Float[Tensor, "tokens vocab"], Float[Tensor, "tokens hidden"]]:
    """Logits and last hidden states where ``prediction_mask`` is True, row by row.

    Args:
        model: a causal language model of `transformers`, also with peft adapters.
        prediction_mask: True at the positions whose logits are wanted: to score a
            token, one position before it. Or the rows and columns of these positions.
        model_inputs: passed on to the model, such as attention_mask, if it takes them.

    Raises:
        ValueError: if the model does not make its logits by one call of one output
            layer, or has virtual tokens; it is read wrongly then, or not at all.
    """
    inputs = text_inputs(model, input_ids, **model_inputs)
    return _read(model, _places(prediction_mask), input_ids, inputs)


def _places(mask: Bool[Tensor, "batch time"] | Places) -> Places:
    """Rows and columns: looked for once, as on a GPU the host waits for that."""
    return mask.nonzero(as_tuple=True) if isinstance(mask, Tensor) else mask


def _read(
    model: nn.Module, places: Places, input_ids: Tensor, inputs: dict, last=None
) -> tuple[Float[Tensor, "tokens vocab"], Float[Tensor, "tokens hidden"]]:
    """Logits at the first ``last`` of the places, by default at all, and hidden states
    at all of them."""
    head, entered = _output_layer(model), []

    def select(module, args):  # a hook, so that scaling or capping still follows
        entered.append(args[0][places])  # (N, H)
        return (entered[-1][None, :last], *args[1:])

    hook = head.register_forward_pre_hook(select)
    try:
        with last_mlp_at(model, places, input_ids.shape[1]):
            logits = model(input_ids, **inputs).logits  # (1, N, V)
    finally:
        hook.remove()
    if len(entered) != 1 or logits.shape[:-1] != (1, len(entered[0][:last])):
        raise ValueError(
            f"a {type(plain_model(model)).__name__} does not make its logits of the "
            "hidden states in one pass through its output layer"
        )
    return logits.squeeze(0), entered[0]  # [0] would copy the gradient in backward


def log_probs_at(
    model: nn.Module,
    places: Places,
    tokens: Int[Tensor, "tokens"],
    input_ids: Int[Tensor, "batch time"],
    rows: Int[Tensor, "tokens"] | None = None,
    **model_inputs,
) -> Float[Tensor, "tokens"]:
    """Log-probability of tokens, in nats: :func:`pick_log_probs` of :func:`logits_at`.

    Of Llama's relatives, logits of more than ``LOGITS_LIMIT`` numbers are made in
    pieces, each once more in the backward pass, so that only one is held at a time.

    Args:
        places: rows and columns of the positions that predict.
        tokens: the tokens predicted.
        rows: which of the places predicts each token; None if each predicts one.
        model_inputs: as for :func:`logits_at`.
    """
    vocabulary = vocabulary_size(model)
    if len(places[0]) * vocabulary <= LOGITS_LIMIT or not is_relative(model):
        logits, _ = logits_at(model, places, input_ids, **model_inputs)
        return pick_log_probs(logits, rows, tokens)
    inputs = text_inputs(model, input_ids, **model_inputs)
    _, hidden = _read(model, places, input_ids, inputs, last=0)
    hidden = hidden if rows is None else hidden[rows]
    head, size = model.get_output_embeddings(), max(1, LOGITS_LIMIT // vocabulary)

    def picked(hidden: Tensor, tokens: Tensor) -> Tensor:
        return pick_log_probs(head(hidden), None, tokens)

    pieces = zip(hidden.split(size), tokens.split(size), strict=True)
    again = dict(use_reentrant=False, preserve_rng_state=False)  # it draws nothing
    return torch.cat([checkpoint(picked, *piece, **again) for piece in pieces])


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
    where = {}
    if not needs_no_mask(model, attention_mask):
        if _reads_padding(model, attention_mask):
            return _of_rows_moved_left(model, input_ids, attention_mask, mask)
        counted = positions_of(attention_mask)
        where = {"attention_mask": attention_mask, "position_ids": counted}
    elif _tells_rows_apart(model):
        return _of_one_row(model, input_ids, attention_mask.bool(), mask)
    # (B, T-1): logits at t predict token t+1, if t is a real token.
    predicts = mask[:, 1:].bool() & attention_mask[:, :-1].bool()
    row, column = _places(predicts)  # (N,)
    tokens = input_ids[row, column + 1]
    log_probs = log_probs_at(
        model, (row, column), tokens, input_ids, use_cache=False, **where
    )
    return log_probs.new_zeros(predicts.shape).index_put((row, column), log_probs)


def _tells_rows_apart(model: nn.Module) -> bool:
    """Whether attention knows by positions that start anew where another text begins:
    flash attention's kernels for texts of various lengths."""
    return model.config._attn_implementation.startswith("flash_attention")


def _of_one_row(
    model: nn.Module, input_ids: Tensor, real: Tensor, mask: Tensor
) -> Float[Tensor, "batch time-1"]:
    """:func:`completion_log_probs` of rows padded on the right, laid end to end in one
    row without padding."""
    places = _places(real)
    inputs = {"position_ids": places[1][None], "use_cache": False}
    index = (real.flatten().cumsum(0) - 1).view_as(real)  # of each token in that row
    predicts = mask[:, 1:].bool() & real[:, 1:]
    row, column = _places(predicts)
    in_row = torch.zeros_like(row), index[row, column]
    tokens = input_ids[row, column + 1]
    log_probs = log_probs_at(model, in_row, tokens, input_ids[places][None], **inputs)
    return log_probs.new_zeros(predicts.shape).index_put((row, column), log_probs)


def positions_of(
    attention_mask: Int[Tensor, "batch time"],
) -> Int[Tensor, "batch time"]:
    """The number of each real token in its row, from 0, wherever the padding is."""
    return (attention_mask.cumsum(1) - 1).clamp(min=0)


def needs_no_mask(model: nn.Module, attention_mask: Tensor | None = None) -> bool:
    """Whether the model reads rows rightly without mask and positions: their padding is
    behind the text, where no real token sees it. With a mask, fast attention kernels
    are out, and there would be a number for each pair of tokens.

    On a CPU it is False: numbers stay as they are recorded.

    Args:
        attention_mask: None if it is known that all padding is behind the text.
    """
    if next(model.parameters()).device.type == "cpu" or not has_plain_attention(model):
        return False
    return attention_mask is None or not _padded_before(attention_mask)


def _padded_before(attention_mask: Tensor) -> bool:
    return bool((attention_mask[:, 1:] > attention_mask[:, :-1]).any())


def _reads_padding(model: nn.Module, attention_mask: Tensor) -> bool:
    """Whether padding before a token may change what the model says of it: recurrent
    layers do not skip it, and some count positions without asking."""
    return _padded_before(attention_mask) and not keeps_cache(model)


def _of_rows_moved_left(
    model: nn.Module, input_ids: Tensor, attention_mask: Tensor, mask: Tensor
) -> Float[Tensor, "batch time-1"]:
    """:func:`completion_log_probs` of the same rows with all padding on the right."""
    order = attention_mask.argsort(dim=1, descending=True, stable=True)
    moved = (x.gather(1, order) for x in (input_ids, attention_mask, mask))
    log_probs = nn.functional.pad(completion_log_probs(model, *moved), (1, 0))
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
