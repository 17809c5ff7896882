"""Preference pairs on their way to a loss: rows become token ids, the reference reads
them once, and batches hold them with its log-probabilities."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from alignlab.errors import AlignlabError
from alignlab.models.base import evaluation_mode
from alignlab.models.lean import lean_layers
from alignlab.models.pairs import (
    EncodedPair,
    pack,
    pair_log_probs,
    require_rows_can_be_shared,
)
from alignlab.seeds import stream
from alignlab.training.rows import drop_uninformative, pair_of
from alignlab.training.sft import encode


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Mapping],
    max_length: float = math.inf,
) -> list[EncodedPair]:
    """Put pairs through the chat template.

    Args:
        pairs: TRL's preference format, dicts with `prompt`, `chosen` and `rejected`,
            each a string or a list of chat messages. Without a `prompt`, `chosen` and
            `rejected` are whole conversations that differ in their last message.
        max_length: in tokens. Pairs with a longer text, and those whose completions are
            the same tokens, are left out, and a warning counts them.

    Raises:
        AlignlabError: if a pair lacks a column, the chat template leaves no boundary
            between prompt and completion, or no pair is left.
    """
    rows = [pair_of(number, pair) for number, pair in enumerate(pairs)]
    if not rows:
        raise AlignlabError("There is no pair to learn from.", "Pass at least one.")
    chosen, rejected = (
        encode(tokenizer, [row | {"completion": row[side]} for row in rows])
        for side in ("chosen", "rejected")
    )
    encoded = [
        EncodedPair(better.prompt, better.completion, worse.completion)
        for better, worse in zip(chosen, rejected, strict=True)
    ]
    return drop_uninformative(encoded, _texts, max_length)


@torch.no_grad()
def log_probs_of(
    model: nn.Module,
    pairs: Sequence[EncodedPair],
    pad_token_id: int,
    batch_size: int = 32,
) -> tuple[Float[Tensor, "pairs"], Float[Tensor, "pairs"]]:
    """Log-probabilities of all chosen and of all rejected completions, in nats, in the
    order given and on the CPU.

    Args:
        model: a causal language model; it reads in eval mode.
        pairs: what :func:`encode_pairs` gives.
        batch_size: pairs at once; higher is faster and takes more memory.

    Raises:
        AlignlabError: if the model cannot read two completions in one row.
    """
    require_rows_can_be_shared(model, longest(pairs))
    device = next(model.parameters()).device
    parts = []
    with evaluation_mode(model), lean_layers(model):
        for start in range(0, len(pairs), batch_size):
            packed = pack(pairs[start : start + batch_size], pad_token_id)
            packed = {name: value.to(device) for name, value in packed.items()}
            parts.append(torch.stack(pair_log_probs(model, packed)).float().cpu())
    chosen, rejected = torch.cat(parts, dim=1)
    return chosen, rejected


def batches(
    pairs: Sequence[EncodedPair],
    columns: Mapping[str, Tensor],
    batch_size: int,
    seed: int,
    pad_token_id: int,
) -> Iterator[dict[str, Tensor]]:
    """Batches without end; each epoch has every pair once, in an order of its own.

    A batch is what :func:`alignlab.models.pairs.pack` gives for its B pairs, and their
    entries of the ``columns``, each (B,). Pairs of any length share a batch: packed,
    they need hardly any padding. An epoch that ``batch_size`` does not divide is cut
    into batches of nearly the same size.

    Raises:
        ValueError: if there is no pair or batch_size is not positive.
    """
    if not pairs or batch_size < 1:
        raise ValueError(
            f"batch_size is {batch_size} with {len(pairs)} pairs; both > 0"
        )
    random = stream(seed, "batches of pairs")
    while True:
        order = random.permutation(len(pairs))
        for rows in np.array_split(order, -(-len(pairs) // batch_size)):
            batch = pack([pairs[i] for i in rows], pad_token_id)
            yield batch | {name: values[rows] for name, values in columns.items()}


def longest(pairs: Sequence[EncodedPair]) -> EncodedPair:
    """The pair with the most tokens."""
    return max(pairs, key=lambda pair: pair.length)


def _texts(pair: EncodedPair) -> list[list[int]]:
    return [pair.prompt + pair.chosen, pair.prompt + pair.rejected]
