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


@dataclass(frozen=True)
class Completion:
    """One reply: its text without special tokens, its tokens (the ending one included),
    and whether the model ended it itself."""

    text: str
    tokens: list[int]
    ended: bool


class _RoomyLayer(DynamicLayer):
    """Keys and values with room to grow: appending a token writes that token only,
    where the usual layer copies the whole past."""

    def __init__(self, room: int):
        super().__init__()
        self.room, self.length = room, 0

    def update(self, key_states, value_states, *args, **kwargs):
        if not self.is_initialized:
            self.dtype, self.device = key_states.dtype, key_states.device
            self._keys, self._values = (
                self._with_room(x) for x in (key_states, value_states)
            )
            self.is_initialized = True
        end = self.length + key_states.shape[2]
        self._keys[:, :, self.length : end] = key_states
        self._values[:, :, self.length : end] = value_states
        self.length = end
        self.keys, self.values = self._keys[:, :, :end], self._values[:, :, :end]
        return self.keys, self.values

    def batch_select_indices(self, indices):
        self._keys, self._values = self._keys[indices], self._values[indices]
        self.keys = self._keys[:, :, : self.length]
        self.values = self._values[:, :, : self.length]

    def _with_room(self, states: Tensor) -> Tensor:
        batch, heads, _, width = states.shape
        return states.new_empty(batch, heads, self.room, width)


@torch.inference_mode()
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
        eos_token_id: the token that ends a row; None lets every row run to the full
        length.
        pad_token_id: fills a row after its end; by default the ending token does.
        generator: source of the randomness; by default torch's global one.

    Returns:
        The new tokens, as wide as the longest row: (B, T_new).

    Raises:
        ValueError: if the shapes differ, a prompt ends in padding, or temperature or
            max_new_tokens is out of range.
    """
    _require_prompts(input_ids, attention_mask, max_new_tokens, temperature)
    batch, time = input_ids.shape
    if pad_token_id is None:
        pad_token_id = 0 if eos_token_id is None else eos_token_id
    output = input_ids.new_full((batch, max_new_tokens), pad_token_id)
    rows = torch.arange(
        batch, device=input_ids.device
    )  # which row each place now holds
    running = torch.ones_like(rows, dtype=torch.bool)
    cache = _roomy_cache(model, time + max_new_tokens)
    # Without padding there is nothing to mask, and attention takes its fast path.
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
        if eos_token_id is not None:
            running &= chosen != eos_token_id
            left = int(running.sum())
            if left == 0:
                return output[:, : step + 1]
            if left <= 0.75 * len(rows):  # moving the others together pays for itself
                rows, chosen, positions = (
                    rows[running],
                    chosen[running],
                    positions[running],
                )
                mask = None if mask is None else mask[running]
                cache.batch_select_indices(running.nonzero()[:, 0])
                running = running[running]
        tokens, positions = chosen[:, None], positions[:, -1:] + 1
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
    return output


def complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    max_new_tokens: int = 32,
    temperature: float = 0.0,
    seed: int | None = None,
    batch_size: int = 256,
    chat: bool = True,
    progress: bool = False,
) -> list[Completion]:
    """Let the model reply to each prompt, in the order given.

    Args:
        chat: True makes each prompt one user turn of the tokenizer's chat template;
            False feeds the text as it is, for the model to go on.
        max_new_tokens: a reply's length at most.
        temperature: 0 is greedy; higher is more varied.
        seed: the same seed gives the same replies at the same batch_size; None draws on
            torch's global state.
        batch_size: prompts at once; more is faster and takes more memory.
        progress: show a bar.

    Raises:
        AlignlabError: if a prompt and its reply do not fit into the model's positions.
    """
    texts = (
        [_as_chat(tokenizer, prompt) for prompt in prompts] if chat else list(prompts)
    )
    if not texts:
        return []
    ids = tokenizer(texts, add_special_tokens=not chat)["input_ids"]
    _require_room(model, ids, max_new_tokens)
    device = model.device
    generator = None if seed is None else torch.Generator(device).manual_seed(seed)
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    pad = eos if pad is None else pad
    order = sorted(
        range(len(ids)), key=lambda i: len(ids[i])
    )  # like lengths, little padding
    replies: list = [None] * len(ids)
    was_training = model.training
    model.eval()
    bar = tqdm(total=len(ids), desc="replies", disable=not progress)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        input_ids, mask = _pad_left([ids[i] for i in chosen], pad)
        new = sample(
            model,
            input_ids.to(device),
            mask.to(device),
            max_new_tokens,
            temperature,
            eos,
            pad,
            generator,
        )
        for i, row in zip(chosen, new.tolist(), strict=True):
            replies[i] = _completion(tokenizer, row, eos)
        bar.update(len(chosen))
    bar.close()
    model.train(was_training)
    return replies


def _choose(logits: Tensor, temperature: float, generator) -> Tensor:
    """One token a row, (B, V) -> (B,)."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    probabilities = (logits.float() / temperature).softmax(dim=-1)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]


def _roomy_cache(model: PreTrainedModel, room: int) -> DynamicCache:
    """The model's own kind of cache, with plain layers replaced by roomy ones."""
    cache = DynamicCache(config=model.config)
    cache.layers = [
        _RoomyLayer(room) if type(x) is DynamicLayer else x for x in cache.layers
    ]
    return cache


def _as_chat(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    if tokenizer.chat_template is None:
        raise AlignlabError(
            f"The tokenizer {tokenizer.name_or_path!r} has no chat template.",
            "Pass chat=False, or take an instruct model's tokenizer.",
        )
    turn = [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(
        turn, tokenize=False, add_generation_prompt=True
    )


def _pad_left(ids: list[list[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    width = max(len(row) for row in ids)
    padded = [[pad_token_id] * (width - len(row)) + row for row in ids]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in ids]
    return torch.tensor(padded), torch.tensor(mask)


def _completion(
    tokenizer: PreTrainedTokenizerBase, row: list[int], eos: int | None
) -> Completion:
    ended = eos in row
    tokens = row[: row.index(eos) + 1] if ended else row
    return Completion(
        tokenizer.decode(tokens, skip_special_tokens=True).strip(), tokens, ended
    )


def _require_prompts(input_ids, attention_mask, max_new_tokens, temperature) -> None:
    if (
        input_ids.ndim != 2
        or input_ids.shape != attention_mask.shape
        or not input_ids.numel()
    ):
        raise ValueError(
            f"input_ids have shape {tuple(input_ids.shape)} and attention_mask "
            f"{tuple(attention_mask.shape)}: expected (batch, time) twice, not empty"
        )
    if not attention_mask[:, -1].all():
        raise ValueError(
            "a prompt ends in padding: pad on the left, and leave no prompt empty"
        )
    if max_new_tokens < 1 or not 0 <= temperature < float("inf"):
        raise ValueError(
            f"max_new_tokens is {max_new_tokens} and temperature {temperature}: "
            "expected at least 1, and at least 0"
        )


def _require_room(
    model: PreTrainedModel, ids: list[list[int]], max_new_tokens: int
) -> None:
    room = getattr(model.config, "max_position_embeddings", None) or float("inf")
    for number, row in enumerate(ids):
        if not row:
            raise AlignlabError(
                f"Prompt {number} is empty.", "Give the model a text to go on from."
            )
        if len(row) + max_new_tokens > room:
            raise AlignlabError(
                f"Prompt {number} has {len(row)} tokens; {max_new_tokens} new ones do "
                f"not fit into the model's {room} positions.",
                "Shorten the prompt or lower max_new_tokens.",
            )
