"""Log-probabilities of tokens and completions, which every objective is made of.

A NaN or infinite logit of a token that counts gives a result that is not finite.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

IGNORED = -100  # a target that cross-entropy skips


def token_log_probs(
    logits: Float[Tensor, "batch time vocab"], input_ids: Int[Tensor, "batch time"]
) -> Float[Tensor, "batch time-1"]:
    r"""Log-probability of each token given the tokens before it, in nats.

    .. math:: \ell_{b,t} = \log \mathrm{softmax}(z_{b,t})_{x_{b,t+1}}

    Column t belongs to token t+1: the logits at t have seen tokens 0 to t and predict
    the next one. So the first token has no column, and the last logits predict nothing
    in the row. Padding gets a meaningless number too; mask it out.

    Args:
        logits: the model's output, before any softmax; divide them by the temperature
            first if it is not 1.
        input_ids: the tokens that the model read, of the same batch and length.

    Raises:
        ValueError: if the shapes do not fit or a token is not in the vocabulary.
    """
    _require_tokens_of(logits, input_ids)
    return _shifted(logits, input_ids, torch.ones_like(input_ids, dtype=torch.bool))


def sequence_log_probs(
    logits: Float[Tensor, "batch time vocab"],
    input_ids: Int[Tensor, "batch time"],
    mask: Int[Tensor, "batch time"],
    reduction: Literal["sum", "mean"] = "sum",
) -> Float[Tensor, "batch"]:
    r"""Log-probability of each row's completion given its prompt, in nats.

    .. math:: \log \pi(y \mid x) = \sum_t m_{t+1} \, \ell_t

    ``"sum"`` is the log-probability of the whole completion, which DPO and PPO use;
    ``"mean"`` divides by its length, as SimPO and ORPO do, so that long completions are
    not less likely for being long. The two rank completions differently.

    Args:
        logits, input_ids: as for :func:`token_log_probs`.
        mask: completion mask, 1 on the completion's tokens, 0 on prompt and padding.
            Its first column does not count: nothing predicts a row's first token.
        reduction: ``"sum"`` (nats per completion) or ``"mean"`` (nats per token). A row
            without a completion token has 0 under both.

    Raises:
        ValueError: if the shapes do not fit or the reduction is unknown.
    """
    if reduction not in ("sum", "mean"):
        raise ValueError(f'reduction is {reduction!r}; it can be "sum" or "mean"')
    kept, real = _masked_log_probs(logits, input_ids, mask)
    total = kept.sum(dim=1)  # (B,)
    return total if reduction == "sum" else total / real.sum(dim=1).clamp(min=1)


def sft_loss(
    logits: Float[Tensor, "batch time vocab"],
    input_ids: Int[Tensor, "batch time"],
    mask: Int[Tensor, "batch time"],
) -> Float[Tensor, ""]:
    r"""Mean negative log-likelihood of the batch's masked tokens, in nats per token.

    .. math:: -\frac{\sum_{b,t} m_{b,t+1} \, \ell_{b,t}}{\sum_{b,t} m_{b,t+1}}

    The mean is over all tokens, not over the rows' own means. With row means, each
    token of a one-word answer would pull twenty times as hard as each token of a
    twenty-word one, and splitting a batch in two would change the gradient. With the
    token mean every token counts once, and the exponential of the loss is the
    perplexity. A uniform model scores log(vocabulary size).

    Args:
        logits, input_ids: as for :func:`token_log_probs`.
        mask: 1 on the tokens to learn, 0 on the others (the first column does not
            count). With 1 on the completion only, the model learns to answer; with 1 on
            the prompt too, it also learns to ask.

    Raises:
        ValueError: if the shapes do not fit or the mask is 0 on every token.
    """
    kept, real = _masked_log_probs(logits, input_ids, mask)
    count = real.sum()
    if count == 0:
        raise ValueError(
            "mask has no token to learn in the whole batch (its first column does not "
            "count): check where prompts end and how rows were cut"
        )
    return -kept.sum() / count


def _shifted(logits: Tensor, input_ids: Tensor, mask: Tensor) -> Tensor:
    """Log-probabilities of tokens 1 to T-1; 0, without gradient, where the mask is."""
    # At least float32: a sum over a completion needs more than bfloat16's three digits.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = F.pad(input_ids.masked_fill(~mask, IGNORED)[:, 1:], (0, 1), value=IGNORED)
    # Targets move, logits stay: cutting off the last logits would copy all the others.
    # Cross-entropy takes half the time and memory of gather minus logsumexp.
    loss = F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=IGNORED
    )
    return -loss.view(targets.shape)[:, :-1]  # (B, T-1)


def _masked_log_probs(logits, input_ids, mask) -> tuple[Tensor, Tensor]:
    """Log-probabilities with 0 where the mask is 0, and the mask, both (B, T-1)."""
    _require_tokens_of(logits, input_ids)
    if mask.shape != input_ids.shape:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)} and input_ids "
            f"{tuple(input_ids.shape)}: each token needs its place in the mask"
        )
    return _shifted(logits, input_ids, mask.bool()), mask[:, 1:].bool()


def _require_tokens_of(logits: Tensor, input_ids: Tensor) -> None:
    if logits.ndim != 3 or logits.shape[:2] != input_ids.shape:
        raise ValueError(
            f"logits have shape {tuple(logits.shape)} and input_ids "
            f"{tuple(input_ids.shape)}: expected (batch, time, vocabulary) and "
            "(batch, time)"
        )
    if not input_ids.numel():
        raise ValueError(f"input_ids of shape {tuple(input_ids.shape)} hold no token")
    low, high = input_ids.aminmax()  # cross-entropy would silently skip a -100
    if low < 0 or high >= logits.shape[2]:
        raise ValueError(
            f"input_ids run from {low} to {high}; the logits' vocabulary has "
            f"{logits.shape[2]} tokens, 0 to {logits.shape[2] - 1}"
        )
