"""Reward models: a policy's trunk with a scalar head that scores a whole dialogue.

They are plain ``AutoModelForSequenceClassification`` models with one label, as
`transformers` and TRL expect.
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
from alignlab.models.base import device_in_use, evaluation_mode
from alignlab.models.lean import last_mlp_at, lean_layers
from alignlab.models.text import (
    Prompt,
    Reply,
    encode_dialogues,
    pad_right,
    pad_token_id,
    require_room,
)
from alignlab.seeds import torch_seed

Combination = Literal["mean", "worst", "penalised"]


def reward_model_from(policy: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """A reward model with a copy of the policy's trunk and a new scalar head.

    The head starts small, so that rewards start near 0, but not at 0, so that the trunk
    learns from the first step on.

    Args:
        policy: a causal language model; merge peft adapters into it first.
        seed: of the head's initial weights.

    Raises:
        AlignlabError: if `transformers` has no classifier for this kind of trunk.

    Source: Stiennon et al. (2020), appendix B.1, start from the SFT policy; the head's
    initial spread is that of Ziegler et al. (2019), further reduced.
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
    generator = torch.Generator().manual_seed(torch_seed(seed, "reward head"))
    hidden = head.weight.shape[1]
    start = torch.randn(1, hidden, generator=generator) / (hidden + 1)
    with torch.no_grad():
        head.weight.copy_(start)
    return model.to(policy.device).train(policy.training)


def load_reward_model(name_or_path: str | Path, dtype=None):
    """``(model, tokenizer)`` from a folder that ``models.base.save_model`` wrote, or
    from a Hub id, on the device that ``models.base.use_device`` named.

    Args:
        dtype: precision of the weights, such as ``torch.bfloat16``; None takes the one
            that the checkpoint names.

    Raises:
        AlignlabError: if the checkpoint does not give one number per dialogue. From a
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
            "Start one from a policy: `reward_model_from(policy)`.",
        )
    precision = {} if dtype is None else {"dtype": dtype}
    model = AutoModelForSequenceClassification.from_pretrained(
        name_or_path, **precision
    )
    tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    return model.to(device_in_use()), tokenizer


def sequence_rewards(
    model: nn.Module,
    input_ids: Int[Tensor, "batch time"],
    attention_mask: Int[Tensor, "batch time"],
) -> Float[Tensor, "batch"]:
    """The reward of each row, read at its last real token; at least float32.

    `transformers` itself looks for the last token that is not ``config.pad_token_id``,
    which is one too early where EOS serves as padding. Here the mask decides.

    Args:
        model: a sequence classifier with one label, also with LoRA adapters.
        input_ids: whole dialogues, padded on either side.
        attention_mask: 1 on real tokens, 0 on padding.

    Raises:
        ValueError: if the shapes differ or a row holds only padding.
    """
    if input_ids.shape != attention_mask.shape or not attention_mask.any(dim=1).all():
        raise ValueError(
            f"input_ids have shape {tuple(input_ids.shape)} and attention_mask "
            f"{tuple(attention_mask.shape)}: they must agree, with a real token a row"
        )
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    last = attention_mask.shape[1] - 1 - attention_mask.flip(1).argmax(1)  # (B,)
    is_last = torch.arange(attention_mask.shape[1], device=last.device) == last[:, None]
    with last_mlp_at(plain, is_last):
        hidden = plain.base_model(
            input_ids,
            attention_mask=attention_mask,
            position_ids=(attention_mask.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
        ).last_hidden_state  # (B, T, hidden)
    rewards = plain.score(hidden[is_last])[:, 0]  # (B,)
    return rewards.to(torch.promote_types(rewards.dtype, torch.float32))


@torch.no_grad()
def score(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    completions: Sequence[Reply],
    batch_size: int = 256,
) -> np.ndarray:
    """The reward of each completion of its prompt, in the order given.

    Args:
        prompts: strings, or lists of chat messages.
        completions: one per prompt, strings without special tokens (the chat template
            adds EOS) or lists of chat messages.
        batch_size: dialogues at once; more is faster and takes more memory, and changes
            rewards by rounding only.

    Returns:
        (N,) of float64. Rewards have no unit and no zero: only differences between
        completions of one prompt mean something.

    Raises:
        ValueError: if there are not as many completions as prompts, or batch_size is
            not positive.
        AlignlabError: if a dialogue does not fit into the model's context.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    ids = encode_dialogues(tokenizer, prompts, completions)
    require_room(model, ids, what="Dialogue")
    rewards = np.zeros(len(ids))
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # for little padding
    with evaluation_mode(model), lean_layers(model):
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            batch = pad_right([ids[i] for i in numbers], pad_token_id(tokenizer))
            batch = [tensor.to(model.device) for tensor in batch]
            rewards[numbers] = sequence_rewards(model, *batch).double().cpu().numpy()
    return rewards


def combine(
    scores: Float[np.ndarray, "members replies"],
    how: Combination = "mean",
    *,
    reference: Float[np.ndarray, "members others"] | None = None,
    penalty: float = 1.0,
) -> Float[np.ndarray, "replies"]:
    r"""One reward from the scores of an ensemble of reward models.

    "mean" is :math:`\bar r`; "worst" is the lowest score of a member; "penalised" is
    :math:`\bar r - \lambda \, \mathrm{var}(r)`, with the variance between the members
    (divided by their number). The last two trust a reply less where members disagree,
    so that a policy gains less from one member's faults.

    Args:
        scores: (M, N), a row for each member, as :func:`score` gives it.
        how: "mean", "worst" or "penalised".
        reference: (M, R), the members' scores of some common replies, such as the SFT
            policy's; each member's mean over them becomes its zero. Without it, members
            that differ in level, which means nothing, count as disagreeing.
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
                "need one per member of the ensemble"
            )
        scores = scores - reference.mean(axis=1, keepdims=True)
    if how == "worst":
        return scores.min(axis=0)
    mean = scores.mean(axis=0)
    return mean if how == "mean" else mean - penalty * scores.var(axis=0)


def _finite_rows(name: str, values) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or not values.size:
        raise ValueError(
            f"{name} has shape {values.shape}; it must be (members, replies), not empty"
        )
    if not np.isfinite(values).all():
        place = np.argwhere(~np.isfinite(values))[0].tolist()
        raise ValueError(f"{name}{place} is {values[tuple(place)]}; it must be finite")
    return values
