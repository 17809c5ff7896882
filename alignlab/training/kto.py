"""KTO: learning from completions that are good or bad, one by one.

Each completion's pair holds a mismatched completion, of another row, in the place of
the rejected one: these give the reference point.
"""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from alignlab.errors import AlignlabError
from alignlab.models.pairs import EncodedPair, pair_log_probs
from alignlab.objectives import implicit_reward, kto_loss
from alignlab.training.loop import exact
from alignlab.training.pairs import encode_pairs, log_probs_of
from alignlab.training.rows import drop_long, is_desirable, require_columns, rows_of
from alignlab.training.sft import encode


class Judged(NamedTuple):
    """Token ids of a prompt and its completion, and whether that is a good one; the
    mask is 1 on the completion's tokens that count, None if all do."""

    prompt: list[int]
    completion: list[int]
    desirable: bool
    mask: list[int] | None = None


def is_unpaired(rows: Sequence[Mapping]) -> bool:
    """Whether the rows are in TRL's unpaired format."""
    return len(rows) > 0 and rows[0].get("completion") is not None


def encode_unpaired(
    tokenizer: PreTrainedTokenizerBase,
    rows: Iterable[Mapping],
    max_length: float = math.inf,
    chat_template_kwargs: Mapping | None = None,
) -> list[Judged]:
    """Put unpaired rows through the chat template.

    Args:
        rows: any data set in TRL's unpaired format, with `prompt` and `completion`, see
            :func:`alignlab.training.sft.encode`, and `label`, true for a good
            completion, see :func:`alignlab.training.rows.is_desirable`.
        max_length: in tokens. Longer texts are left out, and a warning counts them.
        chat_template_kwargs: see :func:`alignlab.training.sft.encode`.

    Raises:
        AlignlabError: if there is no row, one lacks a column or has a label that says
            neither, labels are 0 and -1, or no text is short enough.
    """
    rows = rows_of(rows, "pairs")
    for number, row in enumerate(rows):
        require_columns(number, row, ("prompt", "completion", "label"))
    labels = [is_desirable(number, row["label"]) for number, row in enumerate(rows)]
    given = {str(row["label"]) for row in rows}
    if {"0", "-1"} <= given:
        raise AlignlabError(
            "Some labels are 0 and some are -1: which of them are bad?",
            "Leave out the rows that are neither good nor bad.",
        )
    if len(set(labels)) == 1 < len(labels):
        warnings.warn(f"All {len(rows)} labels are {labels[0]}", stacklevel=3)
    encoded = encode(tokenizer, rows, chat_template_kwargs=chat_template_kwargs)
    texts = []
    for text, label in zip(encoded, labels, strict=True):
        mask = text.completion_mask[len(text.prompt) :]
        mask = None if all(mask) else mask
        texts.append(Judged(text.prompt, text.completion, label, mask))
    return drop_long(
        texts, lambda text: len(text.prompt) + len(text.completion), max_length, "texts"
    )


def kto_data(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping],
    reference: nn.Module,
    max_length: float,
    pad_token_id: int,
    chat_template_kwargs: Mapping | None = None,
) -> tuple[list[EncodedPair], dict[str, Tensor]]:
    """Pairs of each completion and a mismatched one, and the columns of
    :func:`kto_step`.

    Args:
        rows: unpaired, see :func:`encode_unpaired`, or pairs, see
            :func:`alignlab.training.pairs.encode_pairs`: these are taken apart.
    """
    if is_unpaired(rows):
        texts = encode_unpaired(tokenizer, rows, max_length, chat_template_kwargs)
    else:
        pairs = encode_pairs(tokenizer, rows, max_length, chat_template_kwargs)
        texts = [_judged(p.prompt, p.chosen, p.chosen_mask, True) for p in pairs]
        texts += [_judged(p.prompt, p.rejected, p.rejected_mask, False) for p in pairs]
    pairs = with_mismatched(texts, max_length)
    ref, ref_mismatched = log_probs_of(reference, pairs, pad_token_id)
    desirable = torch.tensor([text.desirable for text in texts])
    columns = {"desirable": desirable, "ref": ref, "ref_mismatched": ref_mismatched}
    return pairs, columns


def _judged(prompt, completion, mask: list[int] | None, desirable: bool) -> Judged:
    """One side of a pair; what does not count before the first token that does, such as
    a history of its own, becomes part of its prompt."""
    start = mask.index(1) if mask else 0
    rest = mask[start:] if mask else [1]
    mask = None if all(rest) else rest
    return Judged(prompt + completion[:start], completion[start:], desirable, mask)


def with_mismatched(texts: Sequence[Judged], max_length: float) -> list[EncodedPair]:
    """Each prompt and completion with another row's completion, cut where it would not
    fit.

    That row is a fixed number of places before, the same for all: the smallest at which
    the fewest prompts meet a completion of their own. Where neighbours differ it is 1,
    as in TRL.
    """
    numbers: dict[tuple, int] = {}
    prompts = [numbers.setdefault(tuple(text.prompt), len(numbers)) for text in texts]
    places = min(
        range(1, len(texts)),
        key=lambda places: (np.roll(prompts, places) == prompts).sum(),
        default=0,
    )
    pairs = []
    for i, text in enumerate(texts):
        other, room = texts[i - places], max_length - len(text.prompt)
        room = None if room >= len(other.completion) else room
        mask = other.mask and other.mask[:room]
        sides = text.completion, other.completion[:room]
        pairs.append(EncodedPair(text.prompt, *sides, text.mask, mask))
    return pairs


def kto_step(
    model: nn.Module,
    batch: dict[str, Tensor],
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean KTO loss of a batch of completions, and what to log.

    The reference point is the batch's mean log-ratio of the mismatched completions; it
    gets no gradient.

    Args:
        batch: pairs of :func:`kto_data`, and of each completion ``desirable``, and the
            reference's log-probabilities of it, ``ref``, and of the mismatched one,
            ``ref_mismatched``, each (B,).
        beta, desirable_weight, undesirable_weight: see
            :func:`alignlab.objectives.kto_loss`.

    Returns:
        The loss; means over the batch's desirable (chosen) and undesirable (rejected)
        completions, ``log_probs/...``, ``rewards/...`` and ``rewards/margins`` as in
        :func:`alignlab.training.dpo.preference_step`, NaN where the batch has none; and
        ``kl``, the reference point in nats.
    """
    log_probs, mismatched = pair_log_probs(model, batch)
    kl = (mismatched - batch["ref_mismatched"]).mean()
    good = batch["desirable"]
    weights = desirable_weight, undesirable_weight
    losses = kto_loss(log_probs, batch["ref"], good, kl, beta, *weights)
    rewards = implicit_reward(log_probs.detach(), batch["ref"], beta)
    logs = {
        f"{name}/{side}": exact(values[rows].mean())
        for name, values in (("log_probs", log_probs.detach()), ("rewards", rewards))
        for side, rows in (("chosen", good), ("rejected", ~good))
    }
    logs["rewards/margins"] = logs["rewards/chosen"] - logs["rewards/rejected"]
    return losses.mean(), logs | {"kl": kl.detach().clamp(min=0)}
