"""KTO: learning from completions that are good or bad, one by one.

Each completion's pair holds a mismatched completion, of another row, in the place of
the rejected one: these give the reference point.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from alignlab.models.pairs import EncodedPair, pair_log_probs
from alignlab.objectives import implicit_reward, kto_loss
from alignlab.training.pairs import encode_pairs, log_probs_of
from alignlab.training.rows import drop_long, require_columns
from alignlab.training.sft import encode


class Judged(NamedTuple):
    """Token ids of a prompt and its completion, and whether that is a good one."""

    prompt: list[int]
    completion: list[int]
    desirable: bool


def is_unpaired(rows: Sequence[Mapping]) -> bool:
    """Whether the rows are in TRL's unpaired format."""
    return len(rows) > 0 and "completion" in rows[0]


def encode_unpaired(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping],
    max_length: float = math.inf,
) -> list[Judged]:
    """Put unpaired rows through the chat template.

    Args:
        rows: TRL's unpaired format, dicts with `prompt`, `completion` (strings or lists
            of chat messages) and `label`, true for a good completion.
        max_length: in tokens. Longer texts are left out, and a warning counts them.

    Raises:
        AlignlabError: if there is no row, one lacks a column, or none is short enough.
    """
    for number, row in enumerate(rows):
        require_columns(number, row, ("prompt", "completion", "label"))
    texts = [
        Judged(text.prompt, text.completion, bool(row["label"]))
        for text, row in zip(encode(tokenizer, rows), rows, strict=True)
    ]
    return drop_long(
        texts, lambda text: len(text.prompt) + len(text.completion), max_length, "texts"
    )


def kto_data(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping],
    reference: nn.Module,
    max_length: float,
    pad_token_id: int,
) -> tuple[list[EncodedPair], dict[str, Tensor]]:
    """Pairs of each completion and a mismatched one, and the columns of
    :func:`kto_step`.

    Args:
        rows: unpaired, see :func:`encode_unpaired`, or pairs, see
            :func:`alignlab.training.pairs.encode_pairs`: these are taken apart.
    """
    if is_unpaired(rows):
        texts = encode_unpaired(tokenizer, rows, max_length)
    else:
        pairs = encode_pairs(tokenizer, rows, max_length)
        texts = [Judged(pair.prompt, pair.chosen, True) for pair in pairs]
        texts += [Judged(pair.prompt, pair.rejected, False) for pair in pairs]
    pairs = with_mismatched(texts, max_length)
    ref, ref_mismatched = log_probs_of(reference, pairs, pad_token_id)
    desirable = torch.tensor([text.desirable for text in texts])
    columns = {"desirable": desirable, "ref": ref, "ref_mismatched": ref_mismatched}
    return pairs, columns


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
        other, room = texts[i - places].completion, max_length - len(text.prompt)
        other = other if len(other) <= room else other[:room]
        pairs.append(EncodedPair(text.prompt, text.completion, other))
    return pairs


def kto_step(
    model: nn.Module,
    batch: dict[str, Tensor],
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> tuple[Tensor, dict[str, float]]:
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
        f"{name}/{side}": values[rows].mean().item()
        for name, values in (("log_probs", log_probs.detach()), ("rewards", rewards))
        for side, rows in (("chosen", good), ("rejected", ~good))
    }
    logs["rewards/margins"] = logs["rewards/chosen"] - logs["rewards/rejected"]
    return losses.mean(), logs | {"kl": kl.clamp(min=0).item()}
