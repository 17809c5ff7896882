"""Supervised fine-tuning: teach a model to answer as the examples do.

Examples become token ids with a mask on what is learnt, the ids become padded batches,
and the shared loop does the rest.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from alignlab.errors import AlignlabError
from alignlab.models.likelihood import completion_log_probs
from alignlab.training.loop import train

LossOn = Literal["completion", "all"]
BLUR = 0.25  # lengths are sorted up to a quarter, so that no two epochs batch alike


@dataclass(frozen=True)
class Encoded:
    """One example as tokens; the mask is 1 on those the model is to learn."""

    input_ids: list[int]
    completion_mask: list[int]


def encode(
    tokenizer: PreTrainedTokenizerBase,
    examples: list[dict],
    loss_on: LossOn = "completion",
    max_length: int | None = None,
) -> list[Encoded]:
    """Put examples through the chat template and mark what is learnt.

    Args:
        examples: dicts with `prompt` (a string, which becomes one user turn, or a list
            of chat messages) and `completion` (a string, or a list of one assistant
            message).
        loss_on: "completion" marks the reply and the token that ends it; "all" also
            marks the prompt, so that the model learns to ask as well.
        max_length: longer examples are left out, and a warning says how many. Cut
            short, they would teach the model never to end.

    Raises:
        AlignlabError: if an example lacks a column, or its prompt's tokens are not how
            the tokens of the whole begin, or none is short enough.
    """
    if loss_on not in LossOn.__args__:
        raise ValueError(f"loss_on is {loss_on!r}; it can be one of {LossOn.__args__}")
    if not len(examples):
        raise AlignlabError("There is no example to encode.", "Pass at least one.")
    chats = [messages(number, example) for number, example in enumerate(examples)]
    asked = [chat[:-1] for chat in chats]
    prompts = _tokens(tokenizer, asked, add_generation_prompt=True)
    wholes = _tokens(tokenizer, chats)
    encoded = []
    for number, (prompt, whole) in enumerate(zip(prompts, wholes, strict=True)):
        if whole[: len(prompt)] != prompt or len(whole) == len(prompt):
            raise AlignlabError(
                f"Example {number} ({examples[number]['prompt']!r}): its tokens do not "
                "begin with its prompt's tokens, so there is no boundary to mask at.",
                "The chat template must write prompts alike with and without a reply.",
            )
        learnt = len(whole) - len(prompt)
        mask = [int(loss_on == "all")] * len(prompt) + [1] * learnt
        encoded.append(Encoded(whole, mask))
    return encoded if max_length is None else _short_enough(encoded, max_length)


def show_mask(
    tokenizer: PreTrainedTokenizerBase, encoded: Encoded
) -> list[tuple[str, bool]]:
    """Each token's text and whether it is trained on, for a reader to look at."""
    tokens = zip(encoded.input_ids, encoded.completion_mask, strict=True)
    return [(tokenizer.decode([token]), bool(learnt)) for token, learnt in tokens]


def collate(encoded: list[Encoded], pad_token_id: int) -> dict[str, Tensor]:
    """Pad on the right, into input_ids, attention_mask and mask, each (B, T)."""
    shape = len(encoded), max(len(example.input_ids) for example in encoded)
    batch = {
        "input_ids": torch.full(shape, pad_token_id),
        "attention_mask": torch.zeros(shape, dtype=torch.long),
        "mask": torch.zeros(shape, dtype=torch.long),
    }
    for row, example in enumerate(encoded):
        length = len(example.input_ids)
        batch["input_ids"][row, :length] = torch.tensor(example.input_ids)
        batch["attention_mask"][row, :length] = 1
        batch["mask"][row, :length] = torch.tensor(example.completion_mask)
    return batch


def batches(
    encoded: list[Encoded], batch_size: int, seed: int, pad_token_id: int
) -> Iterator[dict[str, Tensor]]:
    """Batches for ever; each epoch has every example once, in an order of its own.

    Examples of like length share a batch, so that little is padding; which ones, and
    the order of the batches, is random. An epoch that ``batch_size`` does not divide is
    cut into batches of nearly the same size rather than leaving a small one, whose few
    examples would pull harder.

    Args:
        encoded: what :func:`encode` gives.
        batch_size: examples in a batch at most.
        seed: fixes every order; the same seed gives the same batches.

    Raises:
        ValueError: if there is no example or batch_size is not positive.
    """
    if not encoded or batch_size < 1:
        raise ValueError(
            f"batch_size is {batch_size} with {len(encoded)} examples; both > 0"
        )
    lengths = np.array([len(example.input_ids) for example in encoded])
    random = np.random.default_rng(seed)
    while True:
        blurred = lengths * random.uniform(1, 1 + BLUR, size=len(lengths))
        epoch = np.array_split(blurred.argsort(), -(-len(lengths) // batch_size))
        for number in random.permutation(len(epoch)):
            yield collate([encoded[i] for i in epoch[number]], pad_token_id)


def sft_step(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict]:
    """`alignlab.objectives.sft_loss` of a batch, by way of the learnt tokens only."""
    learnt = batch["mask"][:, 1:].sum()
    return -completion_log_probs(model, **batch).sum() / learnt, {}


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
    max_length: int | None = None,
    progress: bool = True,
    **options,
) -> list[dict]:
    """Teach a model, in place, to answer as the examples do.

    Args:
        examples: see :func:`encode`.
        steps: updates; ``steps * batch_size / len(examples)`` is the number of epochs.
        batch_size: examples in a batch; more makes each update steadier and dearer.
        learning_rate: the peak; about 1e-3 for a million parameters.
        seed: fixes the order of the examples, and dropout.
        loss_on: "completion" or "all", see :func:`encode`.
        max_length: in tokens; by default as many as the model has positions for.
        options: further arguments of :func:`alignlab.training.loop.train`.

    Returns:
        The history of the training, one row a step; the loss is in nats per learnt
        token.
    """
    if max_length is None:
        max_length = getattr(model.config, "max_position_embeddings", None)
    encoded = encode(tokenizer, examples, loss_on, max_length)
    pad = tokenizer.pad_token_id
    pad = tokenizer.eos_token_id if pad is None else pad
    data = batches(encoded, batch_size, seed, pad)
    options = {"description": "fine-tuning"} | options
    return train(
        model,
        data,
        sft_step,
        steps=steps,
        learning_rate=learning_rate,
        seed=seed,
        progress=progress,
        **options,
    )


def messages(number: int, example: dict) -> list[dict]:
    """The example as one conversation, which ends in the assistant's reply."""
    missing = [column for column in ("prompt", "completion") if column not in example]
    if missing:
        raise AlignlabError(
            f"Example {number} has no {' and no '.join(missing)}; "
            f"it has {sorted(example)}.",
            "Each example needs a prompt and a completion.",
        )
    prompt, completion = example["prompt"], example["completion"]
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if isinstance(completion, str):
        completion = [{"role": "assistant", "content": completion}]
    return [*prompt, *completion]


def _tokens(tokenizer, chats: list[list[dict]], **template) -> list[list[int]]:
    if tokenizer.chat_template is None:
        raise AlignlabError(
            f"The tokenizer {tokenizer.name_or_path!r} has no chat template.",
            "Take an instruct model's tokenizer, or set tokenizer.chat_template.",
        )
    texts = tokenizer.apply_chat_template(chats, tokenize=False, **template)
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def _short_enough(encoded: list[Encoded], max_length: int) -> list[Encoded]:
    kept = [example for example in encoded if len(example.input_ids) <= max_length]
    if not kept:
        raise AlignlabError(
            f"None of the {len(encoded)} examples fits into {max_length} tokens.",
            f"The shortest has {min(len(example.input_ids) for example in encoded)}.",
        )
    if dropped := len(encoded) - len(kept):
        warnings.warn(
            f"{dropped} of {len(encoded)} examples are longer than {max_length} tokens "
            "and were left out",
            stacklevel=3,
        )
    return kept
