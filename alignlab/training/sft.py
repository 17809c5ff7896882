"""Supervised fine-tuning: teach a model to answer as the examples do.

Examples become token ids with a mask on what is learned, the ids become padded batches,
and the shared loop does the rest.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from alignlab.errors import AlignlabError
from alignlab.models.positions import completion_log_probs
from alignlab.models.text import (
    as_messages,
    chat_text,
    context_length,
    pad_right,
    pad_token_id,
)
from alignlab.training.loop import train
from alignlab.training.rows import batches_of_like_length, drop_long, require_columns

LossOn = Literal["completion", "all"]


@dataclass(frozen=True)
class Encoded:
    """One example as tokens; the mask is 1 on those the model is to learn."""

    input_ids: list[int]
    completion_mask: list[int]

    @property
    def prompt(self) -> list[int]:
        """The tokens before the first one to learn."""
        return self.input_ids[: self.completion_mask.index(1)]

    @property
    def completion(self) -> list[int]:
        """The tokens from the first one to learn."""
        return self.input_ids[self.completion_mask.index(1) :]


def encode(
    tokenizer: PreTrainedTokenizerBase,
    examples: list[dict],
    loss_on: LossOn = "completion",
    max_length: float = math.inf,
) -> list[Encoded]:
    """Put examples through the chat template and mark what is learned.

    Args:
        examples: dicts with `prompt` (a string, which becomes one user turn, or a list
            of chat messages) and `completion` (a string, or a list of one assistant
            message).
        loss_on: "completion" marks the completion and its EOS token; "all" also marks
            the prompt, so that the model learns to ask as well.
        max_length: in tokens. Longer examples are left out, and a warning counts them:
            cut short, they would teach the model never to end.

    Raises:
        AlignlabError: if there is no example, one lacks a column, its tokens do not
            begin with its prompt's tokens, or none is short enough.
        ValueError: if loss_on is unknown.
    """
    if loss_on not in LossOn.__args__:
        raise ValueError(f"loss_on is {loss_on!r}; it can be one of {LossOn.__args__}")
    if not len(examples):
        raise AlignlabError("There is no example to encode.", "Pass at least one.")
    chats = [conversation(number, example) for number, example in enumerate(examples)]
    opened = [chat[:-1] for chat in chats]
    prompts = _token_ids(tokenizer, opened, add_generation_prompt=True)
    dialogues = _token_ids(tokenizer, chats)
    encoded = []
    for number, (prompt, dialogue) in enumerate(zip(prompts, dialogues, strict=True)):
        learned = len(dialogue) - len(prompt)
        if dialogue[: len(prompt)] != prompt or not learned:
            raise AlignlabError(
                f"Row {number} ({examples[number]['prompt']!r}): its tokens do not "
                "begin with its prompt's tokens, so there is no boundary to mask at.",
                "The chat template must write prompts alike with and without a reply.",
            )
        mask = [int(loss_on == "all")] * len(prompt) + [1] * learned
        encoded.append(Encoded(dialogue, mask))
    return drop_long(encoded, lambda example: len(example.input_ids), max_length)


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
    encoded: list[Encoded], batch_size: int, seed: int, pad_token_id: int
) -> Iterator[dict[str, Tensor]]:
    """Padded batches without end; see :func:`batches_of_like_length`.

    Args:
        encoded: what :func:`encode` gives.
        batch_size: examples per batch at most.
        seed: fixes every order; the same seed gives the same batches.

    Raises:
        ValueError: if there is no example or batch_size is not positive.
    """
    lengths = [len(example.input_ids) for example in encoded]
    for rows in batches_of_like_length(lengths, batch_size, seed):
        yield collate([encoded[i] for i in rows], pad_token_id)


def sft_step(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict]:
    """`alignlab.objectives.sft_loss` of a batch, with logits of the learned tokens
    only."""
    learned = batch["mask"][:, 1:].sum()
    return -completion_log_probs(model, **batch).sum() / learned, {}


def finetune(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    examples: list[dict],
    *,
    steps: int,
    batch_size: int = 32,
    learning_rate: float,
    seed: int = 0,
    loss_on: LossOn = "completion",
    progress: bool = True,
    **options,
) -> list[dict]:
    """Teach a model, in place, to answer as the examples do.

    Args:
        examples: see :func:`encode`. Those that do not fit into the model's context are
            left out, and a warning counts them.
        steps: ``steps * batch_size / len(examples)`` is the number of epochs.
        batch_size: examples per batch; higher makes each step steadier and more
            expensive.
        learning_rate: the peak; about 1e-3 for a million parameters. Higher learns
            faster until it diverges.
        seed: fixes the order of the examples, and dropout.
        loss_on: "completion" or "all", see :func:`encode`.
        options: further arguments of :func:`alignlab.training.loop.train`.

    Returns:
        The history, one row per step; the loss is in nats per learned token.

    Raises:
        AlignlabError, ValueError: what :func:`encode` and the loop raise.
    """
    encoded = encode(tokenizer, examples, loss_on, context_length(model))
    return train(
        model,
        batches(encoded, batch_size, seed, pad_token_id(tokenizer)),
        sft_step,
        steps=steps,
        learning_rate=learning_rate,
        seed=seed,
        progress=progress,
        **{"description": "fine-tuning"} | options,
    )


def conversation(number: int, example: dict) -> list[dict]:
    """The example as chat messages; the last one is the assistant's.

    Raises:
        AlignlabError: if a column is missing.
    """
    require_columns(number, example, ("prompt", "completion"))
    prompt = as_messages(example["prompt"], "user")
    return prompt + as_messages(example["completion"], "assistant")


def _token_ids(tokenizer, chats: list[list[dict]], **template) -> list[list[int]]:
    texts = [chat_text(tokenizer, chat, **template) for chat in chats]
    return tokenizer(texts, add_special_tokens=False)["input_ids"]
