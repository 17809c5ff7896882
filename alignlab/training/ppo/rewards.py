"""Rewards: functions and reward models score completions, and scores become rewards of
tokens."""

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignlab.errors import AlignlabError
from alignlab.models import reward as reward_models
from alignlab.models.text import (
    context_length,
    pad_right,
    pad_token_id,
    require_room,
)
from alignlab.objectives import kl_estimate
from alignlab.objectives.policy import EPSILON
from alignlab.training.ppo.config import PPOConfig
from alignlab.training.ppo.rollout import Episodes, Prompts, group_by_width

RewardFunction = Callable[..., Sequence[float]]
RewardSource = (
    RewardFunction
    | PreTrainedModel
    | tuple[PreTrainedModel, PreTrainedTokenizerBase]
    | str  # a folder or Hub id, of both
    | Path
)
TOKEN_COLUMNS = ("prompt_ids", "completion_ids")  # what a reward model reads


# --- Reward functions and models ----------------------------------------------------


@dataclass
class Reward:
    """A named reward function, whose numbers are checked at every call.

    Args:
        arguments: the columns that the function is given.
        model: the reward model behind the function, if there is one.
    """

    name: str
    function: RewardFunction
    arguments: tuple[str, ...]
    model: nn.Module | None = None

    def __call__(self, batch: dict[str, list]) -> list[float]:
        """One finite number per completion.

        Raises:
            AlignlabError: if the function returns anything else.
        """
        n = len(batch["completions"])
        returned = self.function(**{name: batch[name] for name in self.arguments})
        if returned is None or not hasattr(returned, "__len__") or len(returned) != n:
            is_sized = hasattr(returned, "__len__")
            given = f"{len(returned)} numbers" if is_sized else type(returned).__name__
            raise AlignlabError(
                f"Reward function {self.name!r} returned {given} for {n} completions, "
                f"of which the first is {batch['completions'][0]!r}.",
                "Return a list of one float per completion.",
            )
        return [self._finite(value, batch, i) for i, value in enumerate(returned)]

    def _finite(self, value, batch: dict[str, list], i: int) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if math.isfinite(number):
            return number
        raise AlignlabError(
            f"Reward function {self.name!r} returned {value!r} for completion {i}, "
            f"{batch['completions'][i]!r}, of prompt {batch['prompts'][i]!r}.",
            "Return a finite number for every completion.",
        )


def reward_sources(given: RewardSource | Sequence[RewardSource]) -> list:
    """One or several sources of reward as a list; those given by name are loaded.

    Raises:
        AlignlabError: if there is none, or one cannot give a reward.
    """
    pair = isinstance(given, tuple) and given and isinstance(given[0], nn.Module)
    sources = list(given) if isinstance(given, list | tuple) and not pair else [given]
    sources = [
        reward_models.load_reward_model(source)
        if isinstance(source, str | Path)
        else source
        for source in sources
    ]
    for source in sources or [None]:
        if not callable(source) and not isinstance(source, tuple):
            raise AlignlabError(
                f"reward_funcs contains {source!r}.",
                "Pass functions, reward models, or pairs of a model and its tokenizer.",
            )
    return sources


def make_rewards(
    sources: list, tokenizer, config: PPOConfig, prompts: Prompts
) -> list[Reward]:
    """The sources as :class:`Reward` objects; equal names get a number.

    Raises:
        AlignlabError: if a function needs a column that is not there, a reward model's
            context is too short, or there are not as many weights as sources.
    """
    rewards = []
    for source in sources:
        reward = _make_reward(source, tokenizer, config, prompts)
        taken = sum(other.name.split("#")[0] == reward.name for other in rewards)
        reward.name += f"#{taken + 1}" if taken else ""
        rewards.append(reward)
    weights = config.reward_weights
    if weights is not None and len(weights) != len(rewards):
        raise AlignlabError(
            f"reward_weights has {len(weights)} numbers for {len(rewards)} reward "
            "functions.",
            "Pass one for each.",
        )
    return rewards


def _make_reward(source, tokenizer, config: PPOConfig, prompts: Prompts) -> Reward:
    if isinstance(source, nn.Module):
        longest = max(map(len, prompts.ids)) + config.max_completion_length
        room = context_length(source)
        if longest > room:
            raise AlignlabError(
                f"A prompt and its completion may have {longest} tokens; the reward "
                f"model has {room} positions.",
                "Lower max_completion_length, or leave out the longest prompts.",
            )
        function = functools.partial(_score_tokens, source, tokenizer)
        return Reward(type(source).__name__, function, TOKEN_COLUMNS, source)
    if isinstance(source, tuple):
        model, own_tokenizer = source
        function = functools.partial(_score_texts, model, own_tokenizer, tokenizer)
        arguments = ("prompts", "completions", *TOKEN_COLUMNS)
        return Reward(type(model).__name__, function, arguments, model)
    name = getattr(source, "__name__", type(source).__name__)
    return Reward(name, source, _argument_names(source, name, prompts))


def _argument_names(
    function: RewardFunction, name: str, prompts: Prompts
) -> tuple[str, ...]:
    """The columns that a reward function has arguments for."""
    offered = ("prompts", "completions", *TOKEN_COLUMNS, *prompts.columns)
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return offered
    for p in parameters:
        required = p.default is p.empty and p.kind != p.VAR_POSITIONAL
        if p.name not in offered and required:
            raise AlignlabError(
                f"Reward function {name!r} has an argument {p.name!r}, and "
                "train_dataset has no such column; it has "
                f"{', '.join(prompts.columns) or 'none'}.",
                "Rename the column or the argument.",
            )
    return tuple(p.name for p in parameters if p.name in offered)


@torch.no_grad()
def _score_tokens(
    model: PreTrainedModel, tokenizer, *, prompt_ids, completion_ids
) -> list[float]:
    """Score the very tokens that were sampled."""
    ids = [p + c for p, c in zip(prompt_ids, completion_ids, strict=True)]
    model.eval()
    scores = np.zeros(len(ids))
    for rows in group_by_width(np.array([len(row) for row in ids]), model.device):
        batch = pad_right([ids[i] for i in rows], pad_token_id(tokenizer))
        batch = [tensor.to(model.device) for tensor in batch]
        scores[rows] = reward_models.sequence_rewards(model, *batch).tolist()
    return scores.tolist()


def _score_texts(
    model: PreTrainedModel,
    own_tokenizer,
    tokenizer,
    *,
    prompts,
    completions,
    prompt_ids,
    completion_ids,
) -> list[float]:
    """Score text with a reward model that has a tokenizer of its own: chats go through
    its chat template, plain text stays as it is."""
    if not isinstance(prompts[0], str):
        scores = reward_models.score(model, own_tokenizer, prompts, completions)
        return scores.tolist()
    ids = [p + c for p, c in zip(prompt_ids, completion_ids, strict=True)]
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    eos = own_tokenizer.eos_token_id
    ids = own_tokenizer(texts)["input_ids"]
    ids = [row + ([] if eos is None else [eos]) for row in ids]
    require_room(model, ids, what="Dialogue")
    empty = [[] for _ in ids]
    return _score_tokens(model, own_tokenizer, prompt_ids=ids, completion_ids=empty)


# --- From scores to the rewards of tokens -------------------------------------------


def weigh(
    function_rewards: Float[Tensor, "batch functions"], weights: list[float] | None
) -> Float[Tensor, "batch"]:
    """The score of each completion: the weighted sum of its reward functions."""
    weights = weights or [1.0] * function_rewards.shape[1]
    return function_rewards @ function_rewards.new_tensor(weights)


def normalize(
    scores: Float[Tensor, "batch"],
    statistics: list[float],
    how: str,
) -> tuple[Float[Tensor, "batch"], list[float]]:
    """Scores shifted and scaled to mean 0 and variance 1, and the updated statistics.

    Args:
        statistics: count, mean and sum of squared differences of earlier scores.
        how: "initial" only ever takes the first scores into the statistics, "running"
            all of them; "none" does nothing.
    """
    if how == "none":
        return scores, statistics
    if how == "running" or statistics[0] == 0:
        statistics = add_to_statistics(statistics, scores)
    count, mean, squares = statistics
    return (scores - mean) / math.sqrt(squares / count + EPSILON), statistics


def add_to_statistics(
    statistics: list[float], new: Float[Tensor, "batch"]
) -> list[float]:
    """Count, mean and sum of squared differences with new numbers added.

    Source: Chan et al. (1979).
    """
    count, mean, squares = statistics
    new = new.double()
    n, new_mean = len(new), new.mean().item()
    new_squares = (new - new_mean).square().sum().item()
    total, gap = count + n, new_mean - mean
    squares += new_squares + gap**2 * count * n / total
    return [total, mean + gap * n / total, squares]


def penalize_missing_eos(
    scores: Float[Tensor, "batch"], ended: Bool[Tensor, "batch"], penalty: float | None
) -> Float[Tensor, "batch"]:
    return scores - (penalty or 0.0) * ~ended


def token_rewards(
    episodes: Episodes,
    scores: Float[Tensor, "batch"],
    kl_coef: float,
    config: PPOConfig,
) -> Float[Tensor, "batch time"]:
    """The reward of each token: its completion's score at the last token, minus the
    price of its KL where that is part of the reward.

    With an exact KL, a token pays for the KL at the token that follows, which it leads
    to; the KL of its own choice is differentiated in the loss.
    """
    mask = episodes.mask
    rewards = torch.zeros_like(episodes.values)
    if config.kl_in == "reward" and config.kl_estimator == "k1":
        log_ratio = kl_estimate(episodes.old_log_probs, episodes.ref_log_probs, "k1")
        rewards = -kl_coef * log_ratio * mask
    if config.kl_in == "reward" and config.kl_estimator == "exact":
        following = F.pad(episodes.exact_kl[:, 1:], (0, 1))
        rewards = -kl_coef * config.gamma * following * mask
    last = F.one_hot(mask.sum(1) - 1, mask.shape[1])
    return rewards + scores[:, None] * last
