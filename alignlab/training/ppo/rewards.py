"""Where PPO's rewards come from: Python functions and reward models, each asked with
what it wants to know and held to one finite number for each completion."""

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignlab.errors import AlignlabError
from alignlab.models import reward as reward_models
from alignlab.training.ppo.config import PPOConfig
from alignlab.training.ppo.rollout import Prompts, alike

RewardFunction = Callable[..., Sequence[float]]
RewardSource = (
    RewardFunction
    | PreTrainedModel
    | tuple[PreTrainedModel, PreTrainedTokenizerBase]
    | str  # a folder or Hub id, of both
    | Path
)
TOKENS = ("prompt_ids", "completion_ids")  # what a reward model reads


@dataclass
class Reward:
    """A reward function with its name, checked at every call."""

    name: str
    function: RewardFunction
    wants: tuple[str, ...]
    model: nn.Module | None = None

    def __call__(self, batch: dict[str, list]) -> list[float]:
        """One finite number for each completion.

        Raises:
            AlignlabError: if the function gives anything else.
        """
        n = len(batch["completions"])
        found = self.function(**{name: batch[name] for name in self.wants})
        if found is None or not hasattr(found, "__len__") or len(found) != n:
            size = len(found) if hasattr(found, "__len__") else None
            given = f"{type(found).__name__}" if size is None else f"{size} numbers"
            raise AlignlabError(
                f"Reward function {self.name!r} returned {given} for {n} completions, "
                f"of which the first is {batch['completions'][0]!r}.",
                "Return a list of one float for each completion.",
            )
        return [self._number(value, batch, i) for i, value in enumerate(found)]

    def _number(self, value, batch: dict[str, list], i: int) -> float:
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


def reward_sources(given) -> list:
    """One or several sources of reward as a list, those loaded that only have a name.

    Raises:
        AlignlabError: if there is none, or one can give no reward.
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
                f"reward_funcs holds {source!r}.",
                "Pass functions, reward models, or pairs of a model and its tokenizer.",
            )
    return sources


def named_rewards(sources, tokenizer, args: PPOConfig, prompts: Prompts):
    rewards = []
    for source in sources:
        reward = _reward_of(source, tokenizer, args, prompts)
        taken = sum(other.name.split("#")[0] == reward.name for other in rewards)
        reward.name += f"#{taken + 1}" if taken else ""
        rewards.append(reward)
    weights = args.reward_weights
    if weights is not None and len(weights) != len(rewards):
        raise AlignlabError(
            f"reward_weights has {len(weights)} numbers for {len(rewards)} reward "
            "functions.",
            "Pass one for each.",
        )
    return rewards


def _reward_of(source, tokenizer, args: PPOConfig, prompts: Prompts) -> Reward:
    if isinstance(source, nn.Module):
        longest = max(map(len, prompts.ids)) + args.max_completion_length
        room = reward_models.positions(source)
        if longest > room:
            raise AlignlabError(
                f"A prompt and its completion may have {longest} tokens; the reward "
                f"model has {room} positions.",
                "Lower max_completion_length, or leave out the longest prompts.",
            )
        read = functools.partial(_score_tokens, source, tokenizer)
        return Reward(type(source).__name__, read, TOKENS, source)
    if isinstance(source, tuple):
        model, own = source
        read = functools.partial(_score_texts, model, own, tokenizer)
        wants = ("prompts", "completions", *TOKENS)
        return Reward(type(model).__name__, read, wants, model)
    name = getattr(source, "__name__", type(source).__name__)
    return Reward(name, source, _wanted(source, name, prompts))


def _wanted(function: RewardFunction, name: str, prompts: Prompts) -> tuple[str, ...]:
    """The arguments that a reward function is given: those it names."""
    always = ("prompts", "completions")
    offered = (*always, *TOKENS, *prompts.columns)
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return offered
    for p in parameters:
        if (
            p.name not in offered
            and p.default is p.empty
            and p.kind != p.VAR_POSITIONAL
        ):
            raise AlignlabError(
                f"Reward function {name!r} asks for {p.name!r}, and train_dataset has "
                f"no such column; it has {', '.join(prompts.columns) or 'none'}.",
                "Rename the column or the argument.",
            )
    return tuple(p.name for p in parameters if p.name in offered)


@torch.no_grad()
def _score_tokens(model, tokenizer, *, prompt_ids, completion_ids):
    """A reward model that reads the policy's tokens reads them as they were sampled."""
    ids = [p + c for p, c in zip(prompt_ids, completion_ids, strict=True)]
    model.eval()
    found = np.zeros(len(ids))
    for rows in alike(np.array([len(row) for row in ids]), model.device):
        batch = reward_models.pad_right([ids[i] for i in rows], tokenizer)
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        found[rows] = reward_models.sequence_rewards(model, **batch).tolist()
    return found.tolist()


def _score_texts(
    model, own, tokenizer, *, prompts, completions, prompt_ids, completion_ids
):
    """Another tokenizer's reward model reads text: chats through its own template,
    plain text as it is."""
    if not isinstance(prompts[0], str):
        return reward_models.score(model, own, prompts, completions)
    ids = [p + c for p, c in zip(prompt_ids, completion_ids, strict=True)]
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    end = [] if own.eos_token_id is None else [own.eos_token_id]
    ids = [row + end for row in own(texts)["input_ids"]]
    reward_models.require_room(model, ids)
    nothing = [[] for _ in ids]
    return _score_tokens(model, own, prompt_ids=ids, completion_ids=nothing)


def moments(count: int, mean: float, squares: float, new: Tensor):
    """Count, mean and sum of squared differences with new numbers added (Welford;
    Chan et al., 1979)."""
    new = new.double()
    n, new_mean = len(new), new.mean().item()
    new_squares = (new - new_mean).square().sum().item()
    total, gap = count + n, new_mean - mean
    squares += new_squares + gap**2 * count * n / total
    return total, mean + gap * n / total, squares
