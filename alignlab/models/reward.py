"""Reward models: a policy's trunk with a scalar head, which reads a whole dialogue.

It is a genuine ``AutoModelForSequenceClassification`` with one label: whatever takes a
reward model of `transformers` or TRL takes this one.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignlab.errors import AlignlabError
from alignlab.models.base import device_in_use

Prompt = str | list[dict]  # a string is one user turn
Reply = str | list[dict]  # a string is one assistant turn
Combination = Literal["mean", "worst", "penalised"]


def reward_model_from(policy: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """A reward model with a copy of the policy's trunk and a new scalar head.

    The head starts small, so that rewards start near 0 and the first updates do not
    have to undo it first; not at 0, so that the trunk learns from the first update on.

    Args:
        policy: a causal language model; merge peft adapters into it first.
        seed: of the head, and of nothing else.

    Raises:
        AlignlabError: if `transformers` has no classifier on this kind of trunk.

    Source: Stiennon et al. (2020), appendix B.1, for starting from the SFT policy; the
    head's spread as in Ziegler et al. (2019), further reduced.
    """
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(policy.config)
    config.num_labels = 1
    try:
        model = AutoModelForSequenceClassification.from_config(
            config, dtype=policy.dtype
        )
        model.base_model.load_state_dict(policy.base_model.state_dict())
        head = model.score
    except (ValueError, RuntimeError, AttributeError) as error:
        raise AlignlabError(
            f"Cannot put a scalar head on a {type(policy).__name__}: "
            f"{str(error).splitlines()[0]}",
            "Pass a plain causal LM of `transformers` (peft adapters merged).",
        ) from error
    generator = torch.Generator().manual_seed(seed)
    hidden = head.weight.shape[1]
    start = torch.randn(1, hidden, generator=generator) / (hidden + 1)
    with torch.no_grad():
        head.weight.copy_(start)
    return model.to(policy.device).train(policy.training)


def load_reward_model(name_or_path: str | Path):
    """``(model, tokenizer)`` from a folder that ``models.base.save_model`` wrote, or
    from a Hub id, on the device that ``use_device`` named.

    Raises:
        AlignlabError: if the checkpoint does not give one number a dialogue: from a
            language model, `transformers` would make one with a random head.
    """
    from transformers import (
        AutoConfig,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )

    labels = AutoConfig.from_pretrained(name_or_path).num_labels
    if labels != 1:
        raise AlignlabError(
            f"{name_or_path} is no reward model: it has {labels} labels, not 1.",
            "Make one from a policy with `reward_model_from(policy)`.",
        )
    model = AutoModelForSequenceClassification.from_pretrained(name_or_path)
    tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    return model.to(device_in_use()), tokenizer


def sequence_rewards(
    model: nn.Module,
    input_ids: Int[Tensor, "batch time"],
    attention_mask: Int[Tensor, "batch time"],
) -> Float[Tensor, "batch"]:
    """The reward of each row, read off at its last real token; at least float32.

    `transformers` looks for the last token that is not ``config.pad_token_id``. Where
    the ending token is also the padding, as with many tokenizers that have none, that
    is one token too early. The mask knows better, under padding on either side.

    Args:
        model: a sequence classifier with one label, also with LoRA adapters.
        input_ids: whole dialogues, padded on either side.
        attention_mask: 1 on real tokens, 0 on padding.

    Raises:
        ValueError: if the shapes differ or a row is nothing but padding.
    """
    if input_ids.shape != attention_mask.shape or not attention_mask.any(dim=1).all():
        raise ValueError(
            f"input_ids have shape {tuple(input_ids.shape)} and attention_mask "
            f"{tuple(attention_mask.shape)}: expected one shape, and a real token a row"
        )
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = plain.base_model(
        input_ids,
        attention_mask=attention_mask,
        position_ids=(attention_mask.cumsum(1) - 1).clamp(min=0),
        use_cache=False,
    ).last_hidden_state  # (B, T, hidden)
    last = attention_mask.shape[1] - 1 - attention_mask.flip(1).argmax(1)  # (B,)
    rows = torch.arange(len(last), device=last.device)
    rewards = plain.score(hidden[rows, last])[:, 0]  # (B,)
    return rewards.to(torch.promote_types(rewards.dtype, torch.float32))


@torch.no_grad()
def score(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    completions: Sequence[Reply],
    batch_size: int = 256,
) -> np.ndarray:
    """The reward of each completion as the reply to its prompt, in the order given.

    Args:
        prompts: strings, or lists of chat messages.
        completions: one for each prompt, as text without special tokens; the chat
            template puts the token that ends it.
        batch_size: dialogues at once; more is faster and takes more memory. It changes
            no reward beyond rounding.

    Returns:
        (N,) of float64. Rewards have no unit and no zero: only differences between
        replies to one prompt mean something.

    Raises:
        ValueError: if there are not as many completions as prompts, or batch_size is
            not positive.
        AlignlabError: if a dialogue does not fit into the model's positions.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    ids = encode_dialogues(tokenizer, prompts, completions)
    require_room(model, ids)
    rewards = np.zeros(len(ids))
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # so little is padding
    was_training = model.training
    model.eval()
    for start in range(0, len(order), batch_size):
        some = order[start : start + batch_size]
        batch = pad_right([ids[i] for i in some], tokenizer)
        batch = {name: value.to(model.device) for name, value in batch.items()}
        rewards[some] = sequence_rewards(model, **batch).double().cpu().numpy()
    model.train(was_training)
    return rewards


def combine(
    scores: Float[np.ndarray, "members replies"],
    how: Combination = "mean",
    *,
    reference: Float[np.ndarray, "members others"] | None = None,
    penalty: float = 1.0,
) -> Float[np.ndarray, "replies"]:
    r"""One reward from the scores of an ensemble of reward models.

    "mean" is :math:`\bar r`; "worst" is the least of the members' scores; "penalised"
    is :math:`\bar r - \lambda \, \mathrm{var}(r)`, the variance being that between the
    members (divided by their number). The last two trust a reply less where the members
    disagree, so that a policy gains less from the faults of one of them.

    Args:
        scores: (M, N), a row for each member, as :func:`score` gives it.
        how: "mean", "worst" or "penalised".
        reference: (M, R), each member's scores of the same replies to compare with,
            such as the SFT policy's. Each member's mean over these becomes its zero.
            Without it members with another level, which means nothing, count as in
            disagreement.
        penalty: :math:`\lambda`; higher avoids disagreement more.

    Raises:
        ValueError: if the shapes do not fit, a score is not finite, or ``how`` is
            unknown.

    Source: Coste et al. (2024), section 3.2; Eisenstein et al. (2023) on the level.
    """
    if how not in Combination.__args__:
        raise ValueError(f"how is {how!r}; it can be one of {Combination.__args__}")
    scores = _finite_rows("scores", scores)
    if reference is not None:
        reference = _finite_rows("reference", reference)
        if len(reference) != len(scores):
            raise ValueError(
                f"reference has {len(reference)} rows and scores {len(scores)}: both "
                "need one for each member of the ensemble"
            )
        scores = scores - reference.mean(axis=1, keepdims=True)
    if how == "worst":
        return scores.min(axis=0)
    mean = scores.mean(axis=0)
    return mean if how == "mean" else mean - penalty * scores.var(axis=0)


def encode_dialogues(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    completions: Sequence[Reply],
) -> list[list[int]]:
    """Each prompt with its completion as token ids, through the chat template once.

    Raises:
        ValueError: if there are not as many completions as prompts.
        AlignlabError: if there is no chat template, or it does not end a reply with the
            tokenizer's ending token.
    """
    if len(prompts) != len(completions):
        raise ValueError(
            f"prompts has {len(prompts)} entries and completions {len(completions)}: "
            "each completion needs the prompt it replies to"
        )
    if tokenizer.chat_template is None:
        raise AlignlabError(
            f"The tokenizer {tokenizer.name_or_path!r} has no chat template.",
            "Take an instruct model's tokenizer, or set tokenizer.chat_template.",
        )
    if not len(prompts):
        return []
    pairs = zip(prompts, completions, strict=True)
    chats = [turns(p, "user") + turns(c, "assistant") for p, c in pairs]
    texts = tokenizer.apply_chat_template(chats, tokenize=False)
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    for number, row in enumerate(ids):
        if tokenizer.eos_token_id not in row[-2:]:  # some templates add a line break
            raise AlignlabError(
                f"Dialogue {number} does not end in the token "
                f"{tokenizer.eos_token!r}: the model could not see that it is whole.",
                "Set tokenizer.eos_token to what ends a turn of the chat template.",
            )
    return ids


def turns(text: str | list[dict], role: str) -> list[dict]:
    """Chat messages: a string is one turn of that role, messages are as they are."""
    return [{"role": role, "content": text}] if isinstance(text, str) else list(text)


def require_room(model: nn.Module, ids: list[list[int]]) -> None:
    """Raise an ``AlignlabError`` if a row does not fit into the model's positions."""
    room = positions(model)
    for number, row in enumerate(ids):
        if len(row) > room:
            raise AlignlabError(
                f"Dialogue {number} has {len(row)} tokens; the model has {room} "
                "positions.",
                "Shorten its prompt or its completion.",
            )


def positions(model: nn.Module) -> float:
    """The longest text the model reads, in tokens; infinite if its config says none."""
    return getattr(model.config, "max_position_embeddings", None) or float("inf")


def pad_right(
    ids: list[list[int]], tokenizer: PreTrainedTokenizerBase
) -> dict[str, Tensor]:
    """``input_ids`` and ``attention_mask``, (B, T), as wide as the longest row."""
    pad = tokenizer.pad_token_id
    pad = tokenizer.eos_token_id if pad is None else pad
    width = max(len(row) for row in ids)
    padded = [row + [pad] * (width - len(row)) for row in ids]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in ids]
    return {"input_ids": torch.tensor(padded), "attention_mask": torch.tensor(mask)}


def _finite_rows(name: str, values) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or not values.size:
        raise ValueError(
            f"{name} has shape {values.shape}; expected (members, replies), not empty"
        )
    if not np.isfinite(values).all():
        place = np.argwhere(~np.isfinite(values))[0].tolist()
        raise ValueError(f"{name}{place} is {values[tuple(place)]}; must be finite")
    return values
