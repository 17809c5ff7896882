"""What a model gives to several continuations of one prompt, which it reads only once.

It is read into the model's cache, from where every option goes on by itself. Beside a
row of prompt and option for each, that saves all readings of the prompt but one; with
gradient, too.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from alignlab.models.likelihood import _output_layer_sees, completion_log_probs


def pack_options(
    prompts: Sequence[Sequence[int]],
    options: Sequence[Sequence[Sequence[int]]],
    pad_token_id: int,
) -> dict[str, Tensor]:
    """Lay prompts and their options out, the prompts padded on the left and the options
    on the right.

    Args:
        prompts: token ids. options: of each prompt, the token ids of its continuations.

    Returns:
        ``prompt_ids`` and ``prompt_mask``, (P, L); ``option_ids`` and ``option_mask``,
        (R, T), all options of the first prompt first; ``prompt_of``, (R,), the number
        of each option's prompt.

    Raises:
        ValueError: if a prompt or an option has no token.
    """
    for number, (prompt, own) in enumerate(zip(prompts, options, strict=True)):
        if not len(prompt) or not own or not all(map(len, own)):
            raise ValueError(
                f"prompt {number} has {len(prompt)} tokens, its options "
                f"{[len(option) for option in own]}: each needs one at least"
            )
    counts = torch.tensor([len(own) for own in options])
    flat = [option for own in options for option in own]
    return {
        "prompt_ids": _padded(prompts, pad_token_id, "left"),
        "prompt_mask": _padded([[1] * len(p) for p in prompts], 0, "left"),
        "option_ids": _padded(flat, pad_token_id, "right"),
        "option_mask": _padded([[1] * len(option) for option in flat], 0, "right"),
        "prompt_of": torch.arange(len(prompts)).repeat_interleave(counts),
    }


def option_log_probs(
    model: nn.Module, packed: Mapping[str, Tensor]
) -> Float[Tensor, "options"]:
    """Log-probability of every option as its prompt's continuation, in nats.

    It is that of the option in a row behind its prompt. As with
    ``completion_log_probs``, only states that foretell an option's token meet the
    output layer. A model that remembers in another way than by keys and values, such as
    a recurrent one, reads the prompt again for each option.

    Args:
        model: a causal language model of `transformers`, also with peft adapters.
        packed: what :func:`pack_options` gives.
    """
    mask, owner = packed["prompt_mask"], packed["prompt_of"]
    read = model(
        packed["prompt_ids"],
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        use_cache=True,
        logits_to_keep=1,
    )
    memory = getattr(read, "past_key_values", None)
    if not isinstance(memory, DynamicCache):
        return _read_apart(model, packed)
    first = read.logits[:, -1].double().log_softmax(dim=1)  # (P, V)
    found = first[owner, packed["option_ids"][:, 0]]  # (R,)
    if packed["option_ids"].shape[1] > 1:
        memory.batch_select_indices(owner)
        found = found + _of_the_rest(model, packed, memory)
    return found


def _of_the_rest(
    model: nn.Module, packed: Mapping[str, Tensor], memory: DynamicCache
) -> Float[Tensor, "options"]:
    """Log-probability of each option's tokens behind its first."""
    ids, mask = packed["option_ids"], packed["option_mask"]
    before = packed["prompt_mask"][packed["prompt_of"]]  # (R, L)
    asked = mask[:, 1:].bool()  # (R, T-1)
    with _output_layer_sees(model, asked):
        logits = model(
            ids[:, :-1],
            attention_mask=torch.cat([before, mask[:, :-1]], dim=1),
            position_ids=before.sum(1, keepdim=True) + mask[:, :-1].cumsum(1) - 1,
            past_key_values=memory,
            use_cache=True,
        ).logits[0]  # (N, V), a row for each token asked about
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss = nn.functional.cross_entropy(logits, ids[:, 1:][asked], reduction="none")
    return loss.new_zeros(asked.shape).masked_scatter(asked, -loss).double().sum(1)


def _read_apart(
    model: nn.Module, packed: Mapping[str, Tensor]
) -> Float[Tensor, "options"]:
    """The same from a row of prompt and option each."""
    before = packed["prompt_mask"][packed["prompt_of"]]
    ids = packed["prompt_ids"][packed["prompt_of"]], packed["option_ids"]
    seen = torch.cat([before, packed["option_mask"]], dim=1)
    asked = torch.cat([torch.zeros_like(before), packed["option_mask"]], dim=1)
    found = completion_log_probs(model, torch.cat(ids, dim=1), seen, asked)
    return found.double().sum(1)


def _padded(rows: Sequence[Sequence[int]], value: int, side: str) -> Tensor:
    tensors = [torch.tensor(row) for row in rows]
    return pad_sequence(tensors, True, value, padding_side=side)
