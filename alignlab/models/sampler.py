"""Batched generation with little overhead for a small model.

Greedy decoding gives the same tokens as ``model.generate``. Rows that have ended leave
the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer
from transformers.utils import ModelOutput

from alignlab.models.base import evaluation_mode
from alignlab.models.text import (
    Prompt,
    as_messages,
    encode_prompt,
    pad_left,
    pad_token_id,
    require_room,
)
from alignlab.seeds import torch_seed

FULL_ENOUGH = 0.9  # below this share of running rows, the ended ones leave the batch
SPARE_TOKENS = 16  # more takes more memory, fewer means copying more often


@dataclass(frozen=True)
class Completion:
    """A reply: its text without special tokens, its tokens including EOS, and whether
    the model ended it with EOS."""

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
    observe: Callable[[int, Int[Tensor, "rows"], ModelOutput], None] | None = None,
) -> Int[Tensor, "batch new"]:
    """Continue each row until it reaches EOS or has ``max_new_tokens`` new tokens.

    Args:
        model: a causal language model; put it in eval mode first if it has dropout.
        input_ids: the prompts, padded on the left.
        attention_mask: 1 on the prompts' tokens, 0 on padding.
        temperature: divides the logits. Higher is more varied, 1 is the model's own
            distribution, 0 is greedy.
        eos_token_id: the token that ends a row; None runs every row to full length.
        pad_token_id: fills a row after its end; by default EOS does.
        generator: source of randomness; by default torch's global one.
        observe: called at each step with its number, the rows still in the batch, some
            of which may have ended, and the model's output for them.

    Returns:
        The new tokens, (B, T_new), as wide as the longest new row.

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
    # Without padding no mask is needed, which saves building one at every step.
    mask = None if attention_mask.all() else attention_mask
    positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
    tokens = input_ids
    for step in range(max_new_tokens):
        outputs = model(
            tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        if observe is not None:
            observe(step, rows, outputs)
        chosen = _choose(outputs.logits[:, -1], temperature, generator)  # (B,)
        output[rows[running], step] = chosen[running]
        running &= chosen != end
        if not running.any():
            return output[:, : step + 1]
        if running.sum() <= FULL_ENOUGH * len(rows):
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
    prompts: Sequence[Prompt],
    max_new_tokens: int = 32,
    temperature: float = 0.0,
    seed: int | None = None,
    batch_size: int = 256,
    chat: bool = True,
    progress: bool = False,
) -> list[Completion]:
    """The model's reply to each prompt, in the order given.

    Args:
        prompts: strings, or lists of chat messages.
        max_new_tokens: the longest reply allowed.
        temperature: 0 is greedy; higher is more varied.
        seed: the same seed and batch_size give the same replies; None draws from
            torch's global generator.
        batch_size: prompts at once; more is faster and takes more memory.
        chat: True puts each prompt through the chat template, a string as one user
            turn; False lets the model continue the text as it stands.
        progress: show a progress bar.

    Raises:
        AlignlabError: if a prompt is empty or does not fit, with ``max_new_tokens``
            more, into the model's context, or if the tokenizer has no chat template.
    """
    if not prompts:
        return []
    ids = [
        encode_prompt(tokenizer, as_messages(prompt, "user") if chat else prompt)
        for prompt in prompts
    ]
    require_room(model, ids, max_new_tokens)
    generator = None
    if seed is not None:
        generator = torch.Generator(model.device)
        generator.manual_seed(torch_seed(seed, "completions"))
    end, pad = tokenizer.eos_token_id, pad_token_id(tokenizer)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # for little padding
    replies: list = [None] * len(ids)
    bar = tqdm(total=len(ids), desc="replies", disable=not progress)
    with evaluation_mode(model), bar:
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            batch = pad_left([ids[i] for i in numbers], pad)
            batch = [tensor.to(model.device) for tensor in batch]
            new = sample(
                model, *batch, max_new_tokens, temperature, end, pad, generator
            )
            for i, tokens in zip(numbers, new.tolist(), strict=True):
                replies[i] = _completion(tokenizer, tokens)
            bar.update(len(numbers))
    return replies


class _SpareLayer(DynamicLayer):
    """Keys and values of one layer, in tensors with room for more tokens. A plain
    ``DynamicLayer`` copies everything it holds at every token."""

    def update(self, key_states, value_states, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.held = key_states[:, :, :0], value_states[:, :, :0]
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        if end > self.held[0].shape[2]:
            self.held = [_with_spare(held[:, :, :start], end) for held in self.held]
        for held, new in zip(self.held, (key_states, value_states)):
            held[:, :, start:end] = new
        self.keys, self.values = (held[:, :, :end] for held in self.held)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self.held = self.keys, self.values


def _with_spare(held: Tensor, end: int) -> Tensor:
    rows, heads, start, width = held.shape
    larger = held.new_empty(rows, heads, end + SPARE_TOKENS, width)
    larger[:, :, :start] = held
    return larger


def _cache(model: PreTrainedModel) -> DynamicCache:
    """An empty cache; layers of other kinds (such as sliding windows) stay as is."""
    cache = DynamicCache(config=model.config)
    cache.layers = [
        _SpareLayer() if type(layer) is DynamicLayer else layer
        for layer in cache.layers
    ]
    return cache


def _choose(logits: Tensor, temperature: float, generator) -> Tensor:
    """A token per row, (B, V) -> (B,), by inverting the cumulative distribution: one
    random number per row. ``torch.multinomial`` draws one per vocabulary entry."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    precise = torch.float32 if logits.device.type == "mps" else torch.float64
    probabilities = (logits.float() / temperature).softmax(dim=-1)
    cumulative = probabilities.cumsum(dim=-1, dtype=precise)
    uniform = torch.rand(
        len(cumulative), 1, dtype=precise, device=logits.device, generator=generator
    )
    targets = uniform * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, targets, right=True)[:, 0]
    return tokens.clamp(max=logits.shape[1] - 1)  # in case rounding reaches the end


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
            "both must be (batch, time), and not empty"
        )
    if not attention_mask[:, -1].all():
        raise ValueError(
            "attention_mask marks the end of a prompt as padding: pad on the left, "
            "and leave out empty prompts"
        )
    if max_new_tokens < 1 or not 0 <= temperature < float("inf"):
        raise ValueError(
            f"max_new_tokens is {max_new_tokens} and temperature {temperature}: "
            "they must be at least 1 and at least 0"
        )
