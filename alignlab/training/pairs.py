"""Preference pairs on their way to a loss: rows become token ids, the reference reads
them once, and batches hold them with its log-probabilities."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from alignlab.errors import AlignlabError
from alignlab.models.base import evaluation_mode
from alignlab.models.dialogues import Encoded
from alignlab.models.fit import says_how_to_save_memory
from alignlab.models.lean import lean_layers
from alignlab.models.pairs import (
    EncodedPair,
    pack,
    pack_apart,
    pair_log_probs,
    require_rows_can_be_shared,
)
from alignlab.models.positions import needs_no_mask
from alignlab.seeds import stream
from alignlab.training.parts import in_parts
from alignlab.training.rows import (
    drop_uninformative,
    pair_of,
    rows_of,
    template_arguments,
    warn_of_oddities,
)
from alignlab.training.sft import encode_rows

Layout = Callable[[Sequence[EncodedPair], int], dict[str, Tensor]]


def layout_for(model: nn.Module, longest: EncodedPair) -> Layout:
    """How a model reads pairs: several in a row, or, where it reads rows without a mask
    (on a GPU), each completion in a row of its own, which fast attention can read.

    Raises:
        AlignlabError: if it cannot read two completions in one row.
    """
    if needs_no_mask(model):
        return pack_apart
    require_rows_can_be_shared(model, longest)
    return pack


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase,
    pairs: Iterable[Mapping],
    max_length: float = math.inf,
    chat_template_kwargs: Mapping | None = None,
) -> list[EncodedPair]:
    """Put pairs through the chat template.

    The prompt is what both sides begin with, up to the first token that counts. All
    turns of the assistant in a completion count, and each side keeps its own history.

    Args:
        pairs: any data set in TRL's preference format, with `prompt`, `chosen` and
            `rejected`, each a string or a list of chat messages, and, if rows have
            them, `tools` and `chat_template_kwargs`. A prompt that ends in an
            assistant's message is continued. `chosen` and `rejected` may hold the
            prompt; without a `prompt` they are whole conversations, and their
            completions begin where they part. If the tokenizer has no chat template,
            strings are plain text.
        max_length: in tokens. Pairs with a longer text, and those whose completions are
            the same tokens, are left out, and a warning counts them.
        chat_template_kwargs: see :func:`alignlab.training.sft.encode`.

    Raises:
        AlignlabError: if a pair lacks a column, its parts do not fit together, the chat
            template leaves no boundary between prompt and completion, or no pair is
            left.
    """
    rows = rows_of(pairs, "pairs")
    if not rows:
        raise AlignlabError("There is no pair to learn from.", "Pass at least one.")
    plain = tokenizer.chat_template is None
    sides = [pair_of(number, row, plain) for number, row in enumerate(rows)]
    kwargs = [
        template_arguments(number, row, chat_template_kwargs)
        for number, row in enumerate(rows)
    ]
    warn_of_oddities(tokenizer, sides)
    encoded = [_as_pair(*own) for own in encode_rows(tokenizer, sides, kwargs)]
    return drop_uninformative(encoded, _texts, max_length)


def _as_pair(chosen: Encoded, rejected: Encoded) -> EncodedPair:
    both = enumerate(zip(chosen.input_ids, rejected.input_ids))
    parting = next((place for place, (a, b) in both if a != b), math.inf)
    learned = (side.completion_mask.index(1) for side in (chosen, rejected))
    start = min(parting, *learned)
    masks = (side.completion_mask[start:] for side in (chosen, rejected))
    return EncodedPair(
        chosen.input_ids[:start],
        chosen.input_ids[start:],
        rejected.input_ids[start:],
        *(None if all(mask) else mask for mask in masks),
    )


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
    lay_out = layout_for(model, longest(pairs))
    device = next(model.parameters()).device
    parts = []
    remedy = says_how_to_save_memory("Leave out the longest texts.")
    with evaluation_mode(model), lean_layers(model), remedy:
        for start in range(0, len(pairs), batch_size):
            packed = lay_out(pairs[start : start + batch_size], pad_token_id)
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
    layout: Layout = pack,
    parts: int = 1,
) -> Iterator[dict[str, Tensor] | list[dict[str, Tensor]]]:
    """Batches without end; each epoch has every pair once, in an order of its own.

    A batch is what the ``layout`` gives for its B pairs, and their entries of the
    ``columns``, each (B,); with several ``parts``, a list of so many. Pairs of any
    length share a batch: packed, they need hardly any padding. An epoch that
    ``batch_size`` does not divide is cut into batches of nearly the same size.

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
            batch = [
                layout([pairs[i] for i in part], pad_token_id)
                | {name: values[part] for name, values in columns.items()}
                for part in in_parts(rows, parts)
            ]
            yield batch[0] if parts == 1 else batch


def number_of_pairs(batch: Mapping[str, Tensor]) -> int:
    """Of a batch in either layout."""
    return len(batch["chosen_tokens"])


def longest(pairs: Sequence[EncodedPair]) -> EncodedPair:
    """The pair with the most tokens."""
    return max(pairs, key=lambda pair: pair.length)


def _texts(pair: EncodedPair) -> list[list[int]]:
    return [pair.prompt + pair.chosen, pair.prompt + pair.rejected]
