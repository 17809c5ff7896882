"""From text to token ids: prompts, dialogues and replies, padding, room in the context.

A string stands for one turn, a list for chat messages.
"""

from collections.abc import Mapping, Sequence
from itertools import takewhile

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from alignlab.errors import AlignlabError
from alignlab.models.dialogues import (
    Plain,
    Prompt,
    Reply,
    encode_conversations,
    encode_plain,
    join,
)
from alignlab.models.fit import plain_model
from alignlab.models.templates import (
    as_messages,
    chat_text,
    closing_ids,
    end_token_ids,
    marker_ids,
    naming,
    plain_ids,
    prompt_text,
)

__all__ = [
    "Prompt",
    "Reply",
    "as_messages",
    "chat_text",
    "closing_ids",
    "completion_text",
    "context_length",
    "encode_dialogues",
    "encode_prompt",
    "end_token_ids",
    "pad_left",
    "pad_right",
    "pad_token_id",
    "require_room",
]

Padded = tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]]


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, **chat_template_kwargs
) -> list[int]:
    """Token ids of a prompt, ready for a completion to follow.

    Chat messages go through the chat template, which brings its own special tokens; if
    the last one is the assistant's, it is unfinished and will be continued. A string is
    plain text and gets the tokenizer's special tokens in front, unless it already
    starts with BOS. Those that the tokenizer puts behind a text, such as EOS, are left
    out.

    Raises:
        AlignlabError: if the prompt is a chat and there is no chat template, or it does
            not take the chat.
    """
    if not isinstance(prompt, str):
        text = prompt_text(tokenizer, list(prompt), **chat_template_kwargs)
        return tokenizer(text, add_special_tokens=False)["input_ids"]
    return plain_ids(tokenizer, prompt)


def encode_dialogues(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    completions: Sequence[Reply],
    chat_template_kwargs: Mapping | Sequence[Mapping | None] | None = None,
) -> list[list[int]]:
    """Token ids of each prompt with its completion, through the chat template at once.

    See :func:`alignlab.models.dialogues.join` for what a completion may be. Where the
    template does not end the last turn, EOS follows it, and a warning says so. If the
    tokenizer has no chat template, strings are plain text, with EOS behind them.

    Args:
        chat_template_kwargs: what else the template reads, for all dialogues or one
            (or None) for each.

    Raises:
        ValueError: if there are not as many completions as prompts.
        AlignlabError: if there is no chat template for messages, a dialogue does not
            fit together, or there is nothing to end it with.
    """
    if len(prompts) != len(completions):
        raise ValueError(
            f"prompts has {len(prompts)} entries and completions {len(completions)}: "
            "each completion needs the prompt it replies to"
        )
    texts = [*prompts, *completions]
    if tokenizer.chat_template is None and all(isinstance(t, str) for t in texts):
        plains = [Plain(*pair) for pair in zip(prompts, completions, strict=True)]
        return [encoded.input_ids for encoded in encode_plain(tokenizer, plains)]
    if isinstance(chat_template_kwargs, Mapping) or chat_template_kwargs is None:
        chat_template_kwargs = [chat_template_kwargs] * len(prompts)
    kwargs = [dict(each or {}) for each in chat_template_kwargs]
    conversations = []
    for number, (prompt, reply) in enumerate(zip(prompts, completions, strict=True)):
        with naming(f"Dialogue {number}"):
            conversations.append(join(prompt, reply).messages)
    return encode_conversations(tokenizer, conversations, kwargs)


def completion_text(
    tokenizer: PreTrainedTokenizerBase,
    tokens: Sequence[int],
    model: nn.Module | None = None,
) -> str:
    """The text of a sampled reply: up to the first token that ends it, without padding,
    BOS and the tokens by which the chat template marks turns. Other special tokens,
    such as ``<think>``, stay.

    Args:
        tokens: prompt excluded.
        model: its generation config may name further tokens that end a reply.
    """
    ends, hidden = end_token_ids(tokenizer, model), marker_ids(tokenizer)
    reply = takewhile(lambda token: token not in ends, tokens)
    return tokenizer.decode([token for token in reply if token not in hidden]).strip()


def context_length(model: nn.Module) -> float:
    """Longest text the model reads, in tokens; infinite if its config has no limit."""
    config = model.config
    if hasattr(config, "get_text_config"):  # models that read more than text
        config = config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None) or 0
    if positions <= 0:  # -1 in XLNet
        return float("inf")
    return positions - first_position(model)


def first_position(model: nn.Module) -> int:
    """Where the positions of tokens begin: mostly at 0, in RoBERTa and its relatives
    behind the one that padding has."""
    trunk = getattr(plain_model(model), "base_model", None)
    embeddings = getattr(trunk, "embeddings", None)
    padding = getattr(
        getattr(embeddings, "position_embeddings", None), "padding_idx", None
    )
    return 0 if padding is None else padding + 1


def require_room(
    model: nn.Module, ids: list[list[int]], new_tokens: int = 0, what: str = "Prompt"
) -> None:
    """Check that every row has tokens and, with ``new_tokens`` more, fits the context.

    Args:
        what: what a row is called in the error message.

    Raises:
        AlignlabError: naming the first row that is empty or too long.
    """
    room = context_length(model)
    for number, row in enumerate(ids):
        if not row:
            raise AlignlabError(
                f"{what} {number} is empty.", "Leave it out, or give it some text."
            )
        if len(row) + new_tokens > room:
            new = f", and {new_tokens} new ones are to follow" if new_tokens else ""
            raise AlignlabError(
                f"{what} {number} has {len(row)} tokens{new}; the model has {room} "
                "positions.",
                "Shorten it, or lower max_new_tokens." if new else "Shorten it.",
            )


def pad_left(ids: Sequence[Sequence[int]], pad_token_id: int) -> Padded:
    """``(input_ids, attention_mask)``, each as wide as the longest row."""
    width = max(map(len, ids))
    padded = [[pad_token_id] * (width - len(row)) + list(row) for row in ids]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in ids]
    return torch.tensor(padded), torch.tensor(mask)


def pad_right(ids: Sequence[Sequence[int]], pad_token_id: int) -> Padded:
    """``(input_ids, attention_mask)``, each as wide as the longest row."""
    width = max(map(len, ids))
    padded = [list(row) + [pad_token_id] * (width - len(row)) for row in ids]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in ids]
    return torch.tensor(padded), torch.tensor(mask)


def pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The tokenizer's padding token; its EOS token where it has none.

    Raises:
        AlignlabError: if it has neither.
    """
    pad = tokenizer.pad_token_id
    pad = tokenizer.eos_token_id if pad is None else pad
    if pad is None:
        raise AlignlabError(
            "The tokenizer has neither a padding nor an EOS token.",
            "Set tokenizer.eos_token, and tokenizer.pad_token if they are to differ.",
        )
    return pad
