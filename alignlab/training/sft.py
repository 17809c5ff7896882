"""Supervised fine-tuning: teach a model to answer as the examples do.

Examples become token ids with a mask on what is learned, the ids become padded batches,
and the shared loop does the rest.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from alignlab.errors import AlignlabError
from alignlab.models.dialogues import (
    Dialogue,
    Encoded,
    Plain,
    encode_plain,
    encode_turns,
)
from alignlab.models.fit import require_causal_lm, require_vocabulary
from alignlab.models.positions import completion_log_probs
from alignlab.models.text import context_length, pad_right, pad_token_id
from alignlab.training.loop import train
from alignlab.training.parts import in_parts, parts_of
from alignlab.training.rows import (
    batches_of_like_length,
    drop_long,
    example_of,
    rows_of,
    template_arguments,
    warn_of_oddities,
)

LossOn = Literal["completion", "assistant", "all"]


def encode(
    tokenizer: PreTrainedTokenizerBase,
    examples: Iterable[Mapping],
    loss_on: LossOn = "completion",
    max_length: float = math.inf,
    chat_template_kwargs: Mapping | None = None,
) -> list[Encoded]:
    """Put examples through the chat template and mark what is learned.

    A row has one of TRL's formats:

    - `prompt` and `completion`, each a string, which becomes one turn, or a list of
      chat messages. A prompt that ends in an assistant's message is continued. A
      completion that is a whole conversation has to begin with the prompt.
    - `messages`, a whole conversation; its last message is the completion.
    - `text`, plain text, all of which is learned, with EOS behind it.

    Rows may also have `tools` and `chat_template_kwargs`. If the tokenizer has no chat
    template, strings are plain text, with EOS behind the completion.

    Args:
        examples: any data set, see :func:`alignlab.training.rows.rows_of`.
        loss_on: "completion" marks the assistant's turns of the completion, each with
            the token that ends it, "assistant" all turns of the assistant; "all" also
            marks the rest, so that the model learns to ask as well.
        max_length: in tokens. Longer examples are left out, and a warning counts them:
            cut short, they would teach the model never to end.
        chat_template_kwargs: what else the chat template reads, such as
            ``enable_thinking``; a row's own column wins over it.

    Raises:
        AlignlabError: if there is no example, one lacks a column, its tokens do not
            begin with its prompt's tokens, the template writes a turn to learn
            differently from how the model has to write it, or none is short enough.
        ValueError: if loss_on is unknown.
    """
    if loss_on not in LossOn.__args__:
        raise ValueError(f"loss_on is {loss_on!r}; it can be one of {LossOn.__args__}")
    rows = rows_of(examples)
    if not rows:
        raise AlignlabError("There is no example to encode.", "Pass at least one.")
    plain = tokenizer.chat_template is None
    dialogues = [[example_of(number, row, plain)] for number, row in enumerate(rows)]
    kwargs = [
        template_arguments(number, row, chat_template_kwargs)
        for number, row in enumerate(rows)
    ]
    warn_of_oddities(tokenizer, dialogues)
    learned = encode_rows(tokenizer, dialogues, kwargs, loss_on)
    encoded = [own[0] for own in learned if own[0].completion_mask != [1]]  # empty text
    return drop_long(encoded, lambda example: len(example.input_ids), max_length)


def encode_rows(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Sequence[Dialogue | Plain]],
    kwargs: Sequence[Mapping],
    loss_on: LossOn = "completion",
) -> list[list[Encoded]]:
    """The dialogues of each row as tokens, all through the tokenizer at once.

    Args:
        kwargs: of each row, arguments of the chat template.
        loss_on: see :func:`encode`.
    """
    numbered = [(number, each) for number, row in enumerate(rows) for each in row]
    chats = [(n, each) for n, each in numbered if isinstance(each, Dialogue)]
    plains = [each for _, each in numbered if isinstance(each, Plain)]
    encoded_chats = iter(
        encode_turns(
            tokenizer,
            [dialogue for _, dialogue in chats],
            [_learned_turns(dialogue, loss_on) for _, dialogue in chats],
            [kwargs[number] for number, _ in chats],
            [f"Row {number}" for number, _ in chats],
        )
    )
    encoded_plains = iter(encode_plain(tokenizer, plains))
    encoded = [
        [
            next(encoded_chats if isinstance(e, Dialogue) else encoded_plains)
            for e in row
        ]
        for row in rows
    ]
    if loss_on == "all":
        ids = [[each.input_ids for each in row] for row in encoded]
        encoded = [[Encoded(each, [1] * len(each)) for each in row] for row in ids]
    return encoded


def _learned_turns(dialogue: Dialogue, loss_on: LossOn) -> list[int]:
    last = len(dialogue.messages) - 1
    first = {"completion": dialogue.start, "assistant": 0, "all": last}[loss_on]
    turns = enumerate(dialogue.messages)
    return [n for n, turn in turns if n >= first and turn["role"] == "assistant"]


def show_mask(
    tokenizer: PreTrainedTokenizerBase, encoded: Encoded
) -> list[tuple[str, bool]]:
    """Each token's text and whether the model learns it, for a reader to look at."""
    tokens = zip(encoded.input_ids, encoded.completion_mask, strict=True)
    return [(tokenizer.decode([token]), bool(learned)) for token, learned in tokens]


def collate(encoded: list[Encoded], pad_token_id: int) -> dict[str, Tensor]:
    """Pad on the right, into input_ids, attention_mask and mask, each (B, T)."""
    ids, attention_mask = pad_right([e.input_ids for e in encoded], pad_token_id)
    mask, _ = pad_right([e.completion_mask for e in encoded], 0)
    return {"input_ids": ids, "attention_mask": attention_mask, "mask": mask}


def batches(
    encoded: list[Encoded],
    batch_size: int,
    seed: int,
    pad_token_id: int,
    parts: int = 1,
) -> Iterator[dict[str, Tensor] | list[dict[str, Tensor]]]:
    """Padded batches without end; see :func:`batches_of_like_length`.

    Args:
        encoded: what :func:`encode` gives.
        batch_size: examples per batch at most.
        seed: fixes every order; the same seed gives the same batches.
        parts: more than one gives each batch as a list of so many.

    Raises:
        ValueError: if there is no example or batch_size is not positive.
    """
    lengths = [len(example.input_ids) for example in encoded]
    for rows in batches_of_like_length(lengths, batch_size, seed):
        batch = [
            collate([encoded[i] for i in part], pad_token_id)
            for part in in_parts(rows, parts)
        ]
        yield batch[0] if parts == 1 else batch


def learned_tokens(batch: dict[str, Tensor]) -> int:
    """How many tokens of a batch are learned."""
    return int(batch["mask"][:, 1:].sum())


def sft_step(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict]:
    """`alignlab.objectives.sft_loss` of a batch, with logits of the learned tokens
    only."""
    learned = batch["mask"][:, 1:].sum()
    return -completion_log_probs(model, **batch).sum() / learned, {}


def finetune(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    examples: Iterable[Mapping],
    *,
    steps: int,
    batch_size: int = 32,
    learning_rate: float,
    seed: int = 0,
    loss_on: LossOn = "completion",
    chat_template_kwargs: Mapping | None = None,
    accumulate: int | None = None,
    progress: bool = True,
    **options,
) -> list[dict]:
    """Teach a model, in place, to answer as the examples do.

    Args:
        model: a causal language model, also with trainable adapters.
        examples: any data set in one of TRL's formats, see :func:`encode`. Those that
            do not fit into the model's context are left out, and a warning counts them.
            Refused are several splits at once, conversations that do not begin with
            their prompt or end in a reply, and turns that the template rewrites.
        steps: ``steps * batch_size / len(examples)`` is the number of epochs.
        batch_size: examples per batch; higher makes each step steadier and more
            expensive.
        learning_rate: the peak; about 1e-3 for a million parameters. Higher learns
            faster until it diverges.
        seed: fixes the order of the examples, and dropout.
        loss_on: "completion", "assistant" or "all", see :func:`encode`.
        chat_template_kwargs: see :func:`encode`.
        accumulate: parts that each batch is computed in, one after the other; more take
            less memory and more time, and leave the result as it is. None takes as many
            as :func:`alignlab.training.parts.parts_of` finds.
        options: further arguments of :func:`alignlab.training.loop.train`.

    Returns:
        The history, one row per step; the loss is in nats per learned token.

    Raises:
        AlignlabError: if the model is no causal language model, nothing of it can be
            trained, or the tokenizer has tokens that it lacks.
        AlignlabError, ValueError: what :func:`encode` and the loop raise.
    """
    require_causal_lm(model)
    require_vocabulary(model, tokenizer)
    room = context_length(model)
    encoded = encode(tokenizer, examples, loss_on, room, chat_template_kwargs)
    if accumulate is None:
        lengths = [len(example.input_ids) for example in encoded]
        accumulate = parts_of(model, lengths, batch_size, options)
    return train(
        model,
        batches(encoded, batch_size, seed, pad_token_id(tokenizer), accumulate),
        sft_step,
        steps=steps,
        learning_rate=learning_rate,
        seed=seed,
        progress=progress,
        **{"description": "fine-tuning", "weigh": learned_tokens} | options,
    )


def conversation(number: int, example: Mapping) -> list[dict]:
    """The example as chat messages; the last one is the assistant's.

    Raises:
        AlignlabError: if a column is missing.
    """
    return example_of(number, example).messages
