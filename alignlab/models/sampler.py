"""Batched generation, lean enough for a model of a million parameters.

The same tokens as ``model.generate`` under greedy decoding; rows that have ended stop
costing anything.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer

from alignlab.errors import AlignlabError

CROWDED = 0.9  # when fewer of the rows still run, the ended ones leave the batch
ROOM = 16  # tokens; more takes memory, less copies more often


@dataclass(frozen=True)
class Completion:
    """One reply: its text without special tokens, its tokens (the ending one included),
    and whether the model ended it itself."""

    text: str
    tokens: list[int]
    ended: bool


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    input_ids: Int[Tensor, "batch time"],
    attention_mask: Int[Tensor, "batch time"],
    max_new_tokens: int,
    temperature: float = 1.0,
    eos_token_id: int | None = None,
    pad_token_id: int | None = None,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "batch new"]:
    """Continue each row, token by token, until it ends or is ``max_new_tokens`` long.

    Args:
        model: a causal language model; put it into eval mode first if it has dropout.
        input_ids: the prompts, padded on the left.
        attention_mask: 1 on the prompts' tokens, 0 on padding.
        temperature: divides the logits. Higher is more varied, 1 is the model's own
            distribution, 0 takes the likeliest token (greedy).
        eos_token_id: the token that ends a row; None runs every row to full length.
        pad_token_id: fills a row after its end; by default the ending token does.
        generator: source of the randomness; by default torch's global one.

    Returns:
        The new tokens, as wide as the longest row: (B, T_new).

    Raises:
        ValueError: if the shapes differ, a prompt ends in padding, or temperature or
            max_new_tokens is out of range.
    """
    _require_prompts(input_ids, attention_mask, max_new_tokens, temperature)
    end = -1 if eos_token_id is None else eos_token_id
    fill = max(end, 0) if pad_token_id is None else pad_token_id
    output = input_ids.new_full((len(input_ids), max_new_tokens), fill)
    rows = torch.arange(len(input_ids), device=input_ids.device)  # still in the batch
    running = torch.ones_like(rows, dtype=torch.bool)
    cache = _cache(model)
    # Without padding nothing needs hiding, and no mask has to be built at every step.
    mask = None if attention_mask.all() else attention_mask
    positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
    tokens = input_ids
    for step in range(max_new_tokens):
        logits = model(
            tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]  # (B, V)
        chosen = _choose(logits, temperature, generator)  # (B,)
        output[rows[running], step] = chosen[running]
        running &= chosen != end
        if not running.any():
            return output[:, : step + 1]
        if running.sum() <= CROWDED * len(rows):
            keep = running.nonzero()[:, 0]
            rows, running, chosen, positions = (
                x[keep] for x in (rows, running, chosen, positions)
            )
            mask = None if mask is None else mask[keep]
            cache.batch_select_indices(keep)
        tokens, positions = chosen[:, None], positions[:, -1:] + 1
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
    return output


def complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str] | list[list[dict]],
    max_new_tokens: int = 32,
    temperature: float = 0.0,
    seed: int | None = None,
    batch_size: int = 256,
    chat: bool = True,
    progress: bool = False,
) -> list[Completion]:
    """Let the model reply to each prompt, in the order given.

    Args:
        prompts: strings, or lists of chat messages.
        chat: True puts each prompt through the tokenizer's chat template, a string as
            one user turn; False feeds the text as it is, for the model to go on.
        max_new_tokens: a reply's length at most.
        temperature: 0 is greedy; higher is more varied.
        seed: the same seed gives the same replies at the same batch_size; None draws on
            torch's global state.
        batch_size: prompts at once; more is faster and takes more memory.
        progress: show a bar.

    Raises:
        AlignlabError: if a prompt and its reply do not fit into the model's positions.
    """
    texts = [_as_chat(tokenizer, p) for p in prompts] if chat else list(prompts)
    if not texts:
        return []
    ids = tokenizer(texts, add_special_tokens=not chat)["input_ids"]
    _require_room(model, ids, max_new_tokens)
    generator = (
        seed if seed is None else torch.Generator(model.device).manual_seed(seed)
    )
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    pad = end if pad is None else pad
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # so little is padding
    replies: list = [None] * len(ids)
    was_training = model.training
    model.eval()
    with tqdm(total=len(ids), desc="replies", disable=not progress) as bar:
        for start in range(0, len(order), batch_size):
            some = order[start : start + batch_size]
            prompt = [
                x.to(model.device) for x in _pad_left([ids[i] for i in some], pad)
            ]
            new = sample(
                model, *prompt, max_new_tokens, temperature, end, pad, generator
            )
            for i, tokens in zip(some, new.tolist(), strict=True):
                replies[i] = _completion(tokenizer, tokens)
            bar.update(len(some))
    model.train(was_training)
    return replies


class _Roomy(DynamicLayer):
    """The keys and values of one layer, in tensors with room for some more: a plain
    ``DynamicLayer`` copies all that it holds for every token."""

    def update(self, key_states, value_states, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.held = key_states[:, :, :0], value_states[:, :, :0]
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        if end > self.held[0].shape[2]:
            self.held = [_with_room(held[:, :, :start], end) for held in self.held]
        for held, new in zip(self.held, (key_states, value_states)):
            held[:, :, start:end] = new
        self.keys, self.values = (held[:, :, :end] for held in self.held)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self.held = self.keys, self.values


def _with_room(held: Tensor, end: int) -> Tensor:
    rows, heads, start, width = held.shape
    roomy = held.new_empty(rows, heads, end + ROOM, width)
    roomy[:, :, :start] = held
    return roomy


def _cache(model: PreTrainedModel) -> DynamicCache:
    """An empty cache; layers of another kind than usual (a sliding window) stay."""
    cache = DynamicCache(config=model.config)
    cache.layers = [
        _Roomy() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


def _choose(logits: Tensor, temperature: float, generator) -> Tensor:
    """One token a row, (B, V) -> (B,): the one where a uniform number falls among the
    cumulated probabilities. ``torch.multinomial`` draws a number for every token."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    precise = torch.float32 if logits.device.type == "mps" else torch.float64
    probabilities = (logits.float() / temperature).softmax(dim=-1)
    upto = probabilities.cumsum(dim=-1, dtype=precise)
    drawn = torch.rand(
        len(upto), 1, dtype=precise, device=upto.device, generator=generator
    )
    chosen = torch.searchsorted(upto, drawn * upto[:, -1:], right=True)[:, 0]
    return chosen.clamp(max=upto.shape[1] - 1)  # should rounding reach the very end


def _as_chat(tokenizer: PreTrainedTokenizerBase, prompt: str | list[dict]) -> str:
    if tokenizer.chat_template is None:
        raise AlignlabError(
            f"The tokenizer {tokenizer.name_or_path!r} has no chat template.",
            "Pass chat=False, or take an instruct model's tokenizer.",
        )
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True
    )


def _pad_left(ids: list[list[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    width = max(len(row) for row in ids)
    padded = [[pad_token_id] * (width - len(row)) + row for row in ids]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in ids]
    return torch.tensor(padded), torch.tensor(mask)


def _completion(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> Completion:
    end = tokenizer.eos_token_id
    ended = end in tokens
    tokens = tokens[: tokens.index(end) + 1] if ended else tokens
    text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
    return Completion(text, tokens, ended)


def _require_prompts(input_ids, attention_mask, max_new_tokens, temperature) -> None:
    shape, mask_shape = tuple(input_ids.shape), tuple(attention_mask.shape)
    if len(shape) != 2 or shape != mask_shape or 0 in shape:
        raise ValueError(
            f"input_ids have shape {shape} and attention_mask {mask_shape}: "
            "expected (batch, time) twice, not empty"
        )
    if not attention_mask[:, -1].all():
        raise ValueError(
            "attention_mask says that a prompt ends in padding: pad on the left, "
            "and leave no prompt empty"
        )
    if max_new_tokens < 1 or not 0 <= temperature < float("inf"):
        raise ValueError(
            f"max_new_tokens is {max_new_tokens} and temperature {temperature}: "
            "expected at least 1, and at least 0"
        )


def _require_room(model: PreTrainedModel, ids: list[list[int]], new: int) -> None:
    room = getattr(model.config, "max_position_embeddings", None) or float("inf")
    for number, row in enumerate(ids):
        if not row:
            raise AlignlabError(
                f"Prompt {number} is empty.", "Give the model a text to go on from."
            )
        if len(row) + new > room:
            raise AlignlabError(
                f"Prompt {number} has {len(row)} tokens; {new} new ones do not fit "
                f"into the model's {room} positions.",
                "Shorten the prompt or lower max_new_tokens.",
            )
