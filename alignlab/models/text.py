"""From text to token ids: chat template, EOS token, padding, room in the context."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from alignlab.errors import AlignlabError

Prompt = str | list[dict]  # a string is one user turn
Reply = str | list[dict]  # a string is one assistant turn
Padded = tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]]


def as_messages(text: str | list[dict], role: str) -> list[dict]:
    """Chat messages: a string becomes one message of that role, a list stays."""
    return [{"role": role, "content": text}] if isinstance(text, str) else list(text)


def chat_text(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict],
    *,
    add_generation_prompt: bool = False,
) -> str:
    """The conversation as the tokenizer's chat template writes it.

    Args:
        add_generation_prompt: end with the opening of an assistant turn, so that the
            model replies next.

    Raises:
        AlignlabError: if the tokenizer has no chat template.
    """
    if tokenizer.chat_template is None:
        raise AlignlabError(
            f"The tokenizer {tokenizer.name_or_path!r} has no chat template.",
            "Take an instruct model's tokenizer, set tokenizer.chat_template, or use "
            "plain text (chat=False where there is such an argument).",
        )
    return tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=add_generation_prompt
    )


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """Token ids of a prompt, ready for a completion to follow.

    Chat messages go through the chat template, which brings its own special tokens.
    A string is plain text and gets the tokenizer's special tokens, unless it already
    starts with BOS.

    Raises:
        AlignlabError: if the prompt is a chat and there is no chat template.
    """
    if not isinstance(prompt, str):
        text = chat_text(tokenizer, prompt, add_generation_prompt=True)
        return tokenizer(text, add_special_tokens=False)["input_ids"]
    bos = tokenizer.bos_token
    has_bos = bos is not None and prompt.startswith(bos)
    return tokenizer(prompt, add_special_tokens=not has_bos)["input_ids"]


def encode_dialogues(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    completions: Sequence[Reply],
) -> list[list[int]]:
    """Token ids of each prompt with its completion, through the chat template at once.

    Raises:
        ValueError: if there are not as many completions as prompts.
        AlignlabError: if there is no chat template, or it does not end a reply with the
            tokenizer's EOS token.
    """
    if len(prompts) != len(completions):
        raise ValueError(
            f"prompts has {len(prompts)} entries and completions {len(completions)}: "
            "each completion needs the prompt it replies to"
        )
    if not len(prompts):
        return []
    texts = [
        chat_text(
            tokenizer, as_messages(prompt, "user") + as_messages(reply, "assistant")
        )
        for prompt, reply in zip(prompts, completions, strict=True)
    ]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    for number, row in enumerate(ids):
        if tokenizer.eos_token_id not in row[-2:]:  # some templates add a line break
            raise AlignlabError(
                f"Dialogue {number} does not end in the EOS token "
                f"{tokenizer.eos_token!r}: the model cannot see that it is over.",
                "Set tokenizer.eos_token to what ends a turn of the chat template.",
            )
    return ids


def context_length(model: nn.Module) -> float:
    """Longest text the model reads, in tokens; infinite if its config has no limit."""
    config = model.config
    if hasattr(config, "get_text_config"):  # models that read more than text
        config = config.get_text_config()
    return getattr(config, "max_position_embeddings", None) or float("inf")


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
    """The tokenizer's padding token; its EOS token where it has none."""
    pad = tokenizer.pad_token_id
    return tokenizer.eos_token_id if pad is None else pad
