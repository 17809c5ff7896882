"""Rows of training data: the forms they come in, the columns they need, those that
teach nothing, and batches of like length."""

import json
import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
from transformers import PreTrainedTokenizerBase

from alignlab.data import formats
from alignlab.errors import AlignlabError
from alignlab.models.dialogues import (
    Dialogue,
    Plain,
    Prompt,
    Reply,
    is_whole,
    join,
)
from alignlab.models.templates import content_text, marker_texts, naming
from alignlab.seeds import stream

Item = TypeVar("Item")
OWN_ARGUMENTS = {"add_generation_prompt", "continue_final_message", "tokenize"}
TELLING = 20  # characters; a reply may well begin with a shorter prompt
BLUR = 0.25  # lengths are sorted up to a quarter, so that no two epochs batch alike


def rows_of(dataset: Iterable[Mapping], argument: str = "examples") -> list[dict]:
    """The rows of a data set in any of its usual forms, as dicts.

    Args:
        dataset: a list or another iterable of rows, a ``datasets.Dataset`` or
            ``IterableDataset``, which is read to its end, a generator, or a data frame,
            whose empty cells are missing.
        argument: what the caller calls the data set, for error messages.

    Raises:
        AlignlabError: if it is several splits, a name, or anything else without rows,
            or a row has no columns.
    """
    if isinstance(dataset, Mapping):
        splits = ", ".join(f"{argument}[{name!r}]" for name in dataset)
        raise AlignlabError(
            f"{argument} is a {type(dataset).__name__} with {[*dataset]}, not rows.",
            f"If these are splits, pass one of them: {splits}; if they are columns, "
            "datasets.Dataset.from_dict(...); if it is a row, a list of it.",
        )
    rows = None if isinstance(dataset, str | bytes) else _records(dataset)
    if rows is None:
        raise AlignlabError(
            f"{argument} is {dataset!r:.100}, which has no rows.",
            "Pass a list of dicts, a datasets.Dataset, or another iterable of rows; "
            "alignlab.data.load reads files and names.",
        )
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise AlignlabError(
                f"{argument}[{number}] is no row with columns: {row!r:.100}",
                "Pass rows as dicts, from each column's name to its value.",
            )
    return [dict(row) for row in rows]


def _records(dataset: Iterable) -> list | None:
    """The rows of a data frame or table, without empty cells, or of anything else that
    has rows; None if it has none."""
    if hasattr(dataset, "iterrows"):  # pandas
        records = dataset.to_dict("records")
    elif hasattr(dataset, "to_dicts"):  # polars
        records = dataset.to_dicts()
    elif hasattr(dataset, "to_pylist"):  # pyarrow
        records = dataset.to_pylist()
    elif hasattr(dataset, "__iter__"):
        return list(dataset)
    elif hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"):  # torch
        return [dataset[number] for number in range(len(dataset))]
    else:
        return None
    return [
        {str(name): _plain(x) for name, x in row.items() if not _is_empty(x)}
        for row in records
    ]


def _is_empty(cell: object) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _plain(cell: object) -> object:
    """Arrays as lists: parquet files give conversations as arrays of messages."""
    return cell.tolist() if isinstance(cell, np.ndarray) else cell


def is_desirable(number: int, label: object) -> bool:
    """Whether a row's label says that its completion is a good one.

    Args:
        number: of the row, for the error message.
        label: a boolean; 1, 0 or -1; or a word such as "true", "no" or "-1".

    Raises:
        AlignlabError: if it is anything else.
    """
    try:
        return formats.is_desirable(label)
    except ValueError as error:
        raise AlignlabError(
            f"The label of row {number} is {label!r}, which says neither good nor bad.",
            "Labels are true or false, 1 or 0, 1 or -1, or one of these as text.",
        ) from error


def require_columns(number: int, row: Mapping, names: Sequence[str]) -> None:
    """Refuse a row that lacks one of the columns.

    Raises:
        AlignlabError: naming the row, what it lacks and what it has.
    """
    missing = [name for name in names if row.get(name) is None]
    if missing:
        raise AlignlabError(
            f"Row {number} has no {' and no '.join(missing)}; it has {sorted(row)}.",
            "An example needs prompt and completion, messages or text; a pair chosen "
            "and rejected, and a prompt unless they are conversations; a ranking "
            "prompt and completions; an unpaired row, for KTO, prompt, completion and "
            "label. "
            "alignlab.data.load reads other columns.",
        )


# --- Dialogues of a row ---------------------------------------------------------------


def example_of(number: int, row: Mapping, plain: bool = False) -> Dialogue | Plain:
    """The dialogue of a row to imitate: `prompt` and `completion`, `messages`, of which
    the last is the completion, or a plain `text`, which has no prompt.

    Args:
        plain: strings are plain text, for a tokenizer without a chat template; else a
            string is one turn.

    Raises:
        AlignlabError: if it has none of them, or they do not fit together.
    """
    has = {name for name, value in row.items() if value is not None}
    if "messages" in has and not {"prompt", "completion"} <= has:
        with naming(f"Row {number}"):
            prompt = row.get("prompt")
            messages = join(prompt, _messages(row["messages"])).messages
        return Dialogue(messages[:-1], messages, len(messages) - 1)
    if isinstance(row.get("text"), str) and not {"prompt", "completion"} <= has:
        return Plain("", row["text"])
    require_columns(number, row, ("prompt", "completion"))
    return dialogues_of(number, row["prompt"], [row["completion"]], plain)[0]


def pair_of(
    number: int, row: Mapping, plain: bool = False
) -> tuple[Dialogue | Plain, Dialogue | Plain]:
    """The two dialogues of a row in TRL's preference format, the chosen one first.

    Without a prompt column, ``chosen`` and ``rejected`` are whole conversations, and
    their completions begin where they part.

    Raises:
        AlignlabError: if a column is missing or they do not fit together.
    """
    require_columns(number, row, ("chosen", "rejected"))
    replies = [row["chosen"], row["rejected"]]
    if row.get("prompt") is None and not plain and isinstance(replies[0], str):
        require_columns(number, row, ("prompt",))
    chosen, rejected = dialogues_of(number, row.get("prompt"), replies, plain)
    return chosen, rejected


def dialogues_of(
    number: int, prompt: Prompt | None, completions: Sequence[Reply], plain: bool
) -> list[Dialogue | Plain]:
    """A prompt with each of its completions; see
    :func:`alignlab.models.dialogues.join`.

    Without a prompt, completions are whole and begin where they part, in the last
    message at the latest.

    Raises:
        AlignlabError: if they do not fit together.
    """
    texts = [prompt or "", *completions]
    with naming(f"Row {number}"):
        if all(isinstance(text, str) for text in texts) and plain:
            return _plain_dialogues(prompt, completions)
        if prompt or not all(map(is_whole, completions)):
            return [join(prompt, completion) for completion in completions]
        wholes = [join(None, completion).messages for completion in completions]
    shared = 0
    while all(w[shared : shared + 1] == wholes[0][shared : shared + 1] for w in wholes):
        if shared == min(map(len, wholes)):
            break
        shared += 1
    start = min(shared, *(len(whole) - 1 for whole in wholes))
    return [Dialogue(whole[:start], whole, start) for whole in wholes]


def _plain_dialogues(prompt: str | None, completions: Sequence[str]) -> list[Plain]:
    if prompt is None:  # it is what all have in common, up to the last white space
        shared = os.path.commonprefix(list(completions))
        words = re.match(r"(.*\S)?(?=\s)", shared, re.DOTALL)
        prompt = words[0] if words else ""
        completions = [completion[len(prompt) :] for completion in completions]
    return [Plain(prompt, completion) for completion in completions]


def _messages(messages: object) -> list[dict]:
    if isinstance(messages, str) or not messages:
        raise AlignlabError(
            f"Its messages are {messages!r:.100}.",
            "Give them as a list of dicts with role and content; plain text goes into "
            "a column `text`.",
        )
    return list(messages)


def template_arguments(number: int, row: Mapping, given: Mapping | None = None) -> dict:
    """What a row's chat template is given beside the messages: the arguments for all
    rows, its `tools`, and over both its own column `chat_template_kwargs`.

    Raises:
        AlignlabError: if a column is not what it has to be, or an argument is one that
            this package sets itself.
    """
    read = {}
    for name, kind in (("tools", list), ("chat_template_kwargs", Mapping)):
        value = row.get(name)
        try:
            value = json.loads(value) if isinstance(value, str) else value
        except ValueError:
            pass
        if value and not isinstance(value, kind):
            raise AlignlabError(
                f"The {name} of row {number} are {value!r:.100}.",
                f"Give them as a {'list' if kind is list else 'dict'}.",
            )
        read[name] = value or {}
    own = read["chat_template_kwargs"].items()
    tools = {"tools": read["tools"]} if read["tools"] else {}
    arguments = {**(given or {}), **tools, **{k: v for k, v in own if v is not None}}
    if taken := OWN_ARGUMENTS & arguments.keys():
        raise AlignlabError(
            f"chat_template_kwargs have {', '.join(sorted(taken))}.",
            "Leave them out: where the reply begins follows from the messages.",
        )
    return arguments


def warn_of_oddities(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[Dialogue | Plain]]
) -> None:
    """Count the rows with an empty completion, a completion that begins with its
    prompt, or texts that hold what the chat template writes around turns, and warn if
    there are any.

    Args:
        rows: the dialogues of each row.
    """
    markers = marker_texts(tokenizer)
    counts = {
        "an empty completion": sum(any(map(_is_empty_reply, row)) for row in rows),
        "a completion that begins with its prompt (is it there twice?)": sum(
            any(map(_repeats_prompt, row)) for row in rows
        ),
        f"what the chat template writes, such as {''.join(markers[:1])!r}, as text "
        "(was it applied before?)": sum(
            any(marker in text for d in row for text in _texts(d) for marker in markers)
            for row in rows
        ),
    }
    oddities = [f"{what}: {count}" for what, count in counts.items() if count]
    if oddities:
        warnings.warn(
            f"Of {len(rows)} rows, those with {'; with '.join(oddities)}", stacklevel=4
        )


def _texts(dialogue: Dialogue | Plain) -> list[str]:
    return (
        []
        if isinstance(dialogue, Plain)
        else [content_text(message) for message in dialogue.messages]
    )


def _repeats_prompt(dialogue: Dialogue | Plain) -> bool:
    if isinstance(dialogue, Plain):
        prompt, completion = dialogue
    else:
        prompt, completion = ["", *_texts(dialogue)][-2:]
    return len(prompt.strip()) >= TELLING and completion.startswith(prompt.strip())


def _is_empty_reply(dialogue: Dialogue | Plain) -> bool:
    if isinstance(dialogue, Plain):
        return not dialogue.completion.strip()
    last = dialogue.messages[-1]
    return not content_text(last).strip() and not last.get("tool_calls")


# --- What is left out, and batches ----------------------------------------------------


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
