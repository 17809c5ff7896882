"""Log-probabilities of several options for one prompt, which is read only once.

The prompt goes into the model's cache, and every option continues from there. It works
with gradients as well.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import DynamicCache

from alignlab.models.cache import holds, keeps_cache
from alignlab.models.fit import text_inputs
from alignlab.models.positions import (
    completion_log_probs,
    logits_at,
    pick_log_probs,
)
from alignlab.models.text import pad_left, pad_right


def pack_options(
    prompts: Sequence[Sequence[int]],
    options: Sequence[Sequence[Sequence[int]]],
    pad_token_id: int,
) -> dict[str, Tensor]:
    """Pad prompts on the left and their options on the right.

    Args:
        prompts: token ids of each prompt.
        options: for each prompt, the token ids of its options.

    Returns:
        ``prompt_ids`` and ``prompt_mask``, (P, L); ``option_ids`` and ``option_mask``,
        (R, T), all options of the first prompt first; ``prompt_of``, (R,), the index of
        each option's prompt.

    Raises:
        ValueError: if a prompt or an option has no tokens, or a prompt no options.
    """
    for number, (prompt, own) in enumerate(zip(prompts, options, strict=True)):
        if not len(prompt) or not own or not all(map(len, own)):
            raise ValueError(
                f"prompt {number} has {len(prompt)} tokens, its options "
                f"{[len(option) for option in own]}: each needs at least one"
            )
    counts = torch.tensor([len(own) for own in options])
    flat = [option for own in options for option in own]
    prompt_ids, prompt_mask = pad_left(prompts, pad_token_id)
    option_ids, option_mask = pad_right(flat, pad_token_id)
    return {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "option_ids": option_ids,
        "option_mask": option_mask,
        "prompt_of": torch.arange(len(prompts)).repeat_interleave(counts),
    }


def option_log_probs(
    model: nn.Module, packed: Mapping[str, Tensor]
) -> Float[Tensor, "options"]:
    """Log-probability of every option as the continuation of its prompt, in nats.

    The same as from a row with prompt and option. A model that remembers more than keys
    and values, such as a recurrent one, does read such rows; see
    ``cache.keeps_cache``.

    Args:
        model: a causal language model of `transformers`, also with peft adapters.
        packed: the result of :func:`pack_options`.
    """
    if not keeps_cache(model):
        return _log_probs_of_rows(model, packed)
    ids, mask, owner = (packed[x] for x in ("prompt_ids", "prompt_mask", "prompt_of"))
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    inputs = dict(attention_mask=mask, position_ids=positions, logits_to_keep=1)
    output = model(ids, **text_inputs(model, ids, use_cache=True, **inputs))
    cache = getattr(output, "past_key_values", None)
    if not isinstance(cache, DynamicCache) or not holds(cache, ids.shape[1]):
        return _log_probs_of_rows(model, packed)
    vocabulary = output.logits[:, -1].double().log_softmax(dim=1)  # (P, V)
    log_probs = vocabulary[owner, packed["option_ids"][:, 0]]  # (R,), of first tokens
    if packed["option_ids"].shape[1] > 1:
        cache.batch_select_indices(owner)
        log_probs = log_probs + _log_probs_of_later_tokens(model, packed, cache)
    return log_probs


def _log_probs_of_later_tokens(
    model: nn.Module, packed: Mapping[str, Tensor], cache: DynamicCache
) -> Float[Tensor, "options"]:
    """Log-probability of each option's tokens after its first."""
    ids, mask = packed["option_ids"], packed["option_mask"]
    before = packed["prompt_mask"][packed["prompt_of"]]  # (R, L)
    predicts = mask[:, 1:].bool()  # (R, T-1)
    logits, _ = logits_at(
        model,
        predicts,
        ids[:, :-1],
        attention_mask=torch.cat([before, mask[:, :-1]], dim=1),
        position_ids=before.sum(1, keepdim=True) + mask[:, :-1].cumsum(1) - 1,
        past_key_values=cache,
        use_cache=True,
    )
    flat = pick_log_probs(logits, None, ids[:, 1:][predicts])  # (N,)
    log_probs = flat.new_zeros(predicts.shape).masked_scatter(predicts, flat)
    return log_probs.double().sum(1)


def _log_probs_of_rows(
    model: nn.Module, packed: Mapping[str, Tensor]
) -> Float[Tensor, "options"]:
    """Log-probability of each option, read in a row with its prompt."""
    before = packed["prompt_mask"][packed["prompt_of"]]
    ids = packed["prompt_ids"][packed["prompt_of"]], packed["option_ids"]
    attention = torch.cat([before, packed["option_mask"]], dim=1)
    mask = torch.cat([torch.zeros_like(before), packed["option_mask"]], dim=1)
    log_probs = completion_log_probs(model, torch.cat(ids, dim=1), attention, mask)
    return log_probs.double().sum(1)
