"""Rows of training data: the columns they need, those that teach nothing, and batches
of like length."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from alignlab.errors import AlignlabError
from alignlab.seeds import stream

Item = TypeVar("Item")
BLUR = 0.25  # lengths are sorted up to a quarter, so that no two epochs batch alike


def require_columns(number: int, row: Mapping, names: Sequence[str]) -> None:
    """Refuse a row that lacks one of the columns.

    Raises:
        AlignlabError: naming the row, what it lacks and what it has.
    """
    missing = [name for name in names if name not in row]
    if missing:
        raise AlignlabError(
            f"Row {number} has no {' and no '.join(missing)}; it has {sorted(row)}.",
            "An example needs prompt and completion; a pair prompt, chosen and "
            "rejected; a ranking prompt and completions; an unpaired row prompt, "
            "completion and label.",
        )


def pair_of(number: int, row: Mapping) -> dict:
    """The ``prompt``, ``chosen`` and ``rejected`` of a row in TRL's preference format.

    Without a prompt column, ``chosen`` and ``rejected`` are whole conversations that
    share everything but their last message, which becomes the prompt.

    Raises:
        AlignlabError: if a column is missing or the two conversations share no prompt.
    """
    require_columns(number, row, ("chosen", "rejected"))
    chosen, rejected = row["chosen"], row["rejected"]
    if "prompt" not in row and not isinstance(chosen, str) and chosen[:-1]:
        if chosen[:-1] != rejected[:-1]:
            raise AlignlabError(
                f"The two conversations of row {number} differ before their last "
                "message, and it has no prompt.",
                "Add a prompt column, and leave the prompt out of both.",
            )
        return dict(prompt=chosen[:-1], chosen=chosen[-1:], rejected=rejected[-1:])
    require_columns(number, row, ("prompt",))
    return dict(prompt=row["prompt"], chosen=chosen, rejected=rejected)


def drop_uninformative(
    items: Sequence[Item],
    texts_of: Callable[[Item], list[list[int]]],
    max_length: float,
    what: str = "pairs",
) -> list[Item]:
    """Leave out comparisons that are too long or compare equal texts, and warn.

    A completion that is cut short says something else, and equal ones hold no
    preference.

    Args:
        texts_of: gives the texts that an item compares, each prompt and completion, as
            token ids.
        max_length: of a text, in tokens.
        what: what the items are called in the warning.

    Raises:
        AlignlabError: if none is left.
    """
    short = [item for item in items if max(map(len, texts_of(item))) <= max_length]
    kept = [item for item in short if len(set(map(tuple, texts_of(item)))) > 1]
    if len(kept) < len(items):
        counts = (
            f"of {len(items)} {what}, {len(items) - len(short)} have a text of more "
            f"than {max_length} tokens and {len(short) - len(kept)} compare equal texts"
        )
        if not kept:
            raise AlignlabError(
                f"None is left to learn from: {counts}.", "Pass others."
            )
        warnings.warn(f"{counts}; they were left out", stacklevel=4)
    return kept


def drop_long(
    items: Sequence[Item],
    length_of: Callable[[Item], int],
    max_length: float,
    what: str = "examples",
) -> list[Item]:
    """Leave out what is longer than ``max_length`` tokens, and warn.

    Raises:
        AlignlabError: if none is short enough.
    """
    kept = [item for item in items if length_of(item) <= max_length]
    if not kept:
        raise AlignlabError(
            f"None of the {len(items)} {what} fits into {max_length} tokens.",
            f"The shortest has {min(map(length_of, items))}.",
        )
    if dropped := len(items) - len(kept):
        warnings.warn(
            f"{dropped} of {len(items)} {what} are longer than {max_length} tokens and "
            "were left out",
            stacklevel=4,
        )
    return kept


def batches_of_like_length(
    lengths: Sequence[int], batch_size: int, seed: int
) -> Iterator[np.ndarray]:
    """Row numbers of batches, without end; each epoch has every row once, in an order
    of its own.

    Rows of like length share a batch, so that little is padding; which rows, and the
    order of the batches, is random. An epoch that ``batch_size`` does not divide is cut
    into batches of nearly the same size instead of leaving a small one, whose few rows
    would weigh more.

    Args:
        lengths: of the rows, in tokens.
        batch_size: rows per batch at most.
        seed: fixes every order.

    Raises:
        ValueError: if there is no row or batch_size is not positive.
    """
    if not len(lengths) or batch_size < 1:
        raise ValueError(
            f"batch_size is {batch_size} with {len(lengths)} rows; both > 0"
        )
    lengths = np.array(lengths)
    random = stream(seed, "batches of like length")
    while True:
        blurred = lengths * random.uniform(1, 1 + BLUR, size=len(lengths))
        epoch = np.array_split(blurred.argsort(), -(-len(lengths) // batch_size))
        for number in random.permutation(len(epoch)):
            yield epoch[number]
