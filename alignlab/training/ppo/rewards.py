"""Rewards: functions and reward models score completions, and scores become rewards of
tokens."""

import asyncio
import functools
import inspect
import itertools
import math
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from alignlab.errors import AlignlabError
from alignlab.models.base import adapters_base, load_weights
from alignlab.models.named import located
from alignlab.models.reward import load_reward_model, sequence_rewards
from alignlab.models.text import (
    closing_ids,
    context_length,
    encode_dialogues,
    encode_prompt,
    pad_right,
    pad_token_id,
    require_room,
)
from alignlab.objectives import kl_estimate
from alignlab.objectives.policy import EPSILON
from alignlab.training.ppo.config import PPOConfig
from alignlab.training.ppo.reading import Episode, as_text, as_tokens
from alignlab.training.ppo.rollout import Episodes, Prompts, group_by_width

RewardFunction = Callable[..., Iterable[float | None]]
RewardSource = (
    RewardFunction
    | PreTrainedModel
    | str  # a folder or Hub id, of a model and its tokenizer
    | Path
    | tuple[PreTrainedModel | str | Path, PreTrainedTokenizerBase]
)
ALWAYS_OFFERED = ("prompts", "completions", "prompt_ids", "completion_ids")
OFFERED_BY_NAME = ("completion_ended", "chat_template_kwargs")  # not to **columns
LARGEST = torch.finfo(torch.float32).max


# --- Reward functions and models ----------------------------------------------------


@dataclass
class Reward:
    """A named reward function, whose numbers are checked at every call.

    Args:
        model: the reward model behind the function, if there is one.
        tokenizer: of that model.
        reads_tokens: the model reads the policy's tokens, so that its tokenizer is the
            policy's.
    """

    name: str
    function: RewardFunction
    model: nn.Module | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    reads_tokens: bool = False

    def __call__(self, batch: dict[str, list]) -> list[float]:
        """One finite number per completion, or NaN where the function returned None:
        it does not apply there.

        Raises:
            AlignlabError: if the function returns anything else.
        """
        names = argument_names(self.function, batch)
        returned = self.function(**{name: batch[name] for name in names})
        if inspect.isawaitable(returned):
            returned = wait_for(returned)
        n = len(batch["completions"])
        values = values_of(returned, n)
        if values is None or len(values) != n:
            raise AlignlabError(
                f"Reward function {self.name!r} returned {_described(returned, values)}"
                f" for {n} completions, of which the first is "
                f"{batch['completions'][0]!r}.",
                "Return a list of one number per completion, None where the function "
                "does not apply.",
            )
        numbers = [_number(value) for value in values]
        for i, number in enumerate(numbers):
            if number is None:
                self._refuse(values[i], batch, i)
        return numbers

    def _refuse(self, value, batch: dict[str, list], i: int) -> None:
        raise AlignlabError(
            f"Reward function {self.name!r} returned {value!r} for completion {i}, "
            f"{batch['completions'][i]!r}, of prompt {batch['prompts'][i]!r}.",
            "Return a finite number for every completion, None where the function does "
            "not apply.",
        )


def argument_names(function: RewardFunction, offered: Iterable[str]) -> list[str]:
    """Those of the columns that the function has arguments for."""
    parameters = inspect.signature(function).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return [
        name
        for name in offered
        if name in parameters or (takes_all and name not in OFFERED_BY_NAME)
    ]


def values_of(returned, n: int) -> list | None:
    """What a reward function returned as a list, None if its parts have no order or
    there is one number for several completions. Of an endless generator, n + 1."""
    if isinstance(returned, Mapping | Set | str | bytes | bytearray):
        return None
    if isinstance(returned, Tensor):
        returned = returned.detach().cpu()
        exact = returned.double() if returned.is_floating_point() else returned
        returned = exact.numpy()
    elif hasattr(returned, "to_numpy"):  # of pandas
        returned = returned.to_numpy()
    elif hasattr(returned, "__array__") and not isinstance(returned, np.ndarray):
        returned = np.asarray(returned)
    if isinstance(returned, np.ndarray) and returned.ndim:
        return returned.tolist()
    if isinstance(returned, Iterable) and not isinstance(returned, np.ndarray):
        return list(itertools.islice(returned, n + 1))
    return [returned] if n == 1 and returned is not None else None


def _described(returned, values: list | None) -> str:
    shape = getattr(returned, "shape", None)
    if shape is not None and len(shape) != 1:
        return f"{type(returned).__name__} of shape {tuple(shape)}"
    return type(returned).__name__ if values is None else f"{len(values)} numbers"


def _number(value) -> float | None:
    """A finite number; NaN for None, which says "does not apply"; None for the rest."""
    if isinstance(value, list | tuple | np.ndarray | Tensor) and _length(value) == 1:
        value = value[0]  # a row of shape (n, 1)
    if isinstance(value, Tensor):
        value = value.detach()
    if value is None:
        return math.nan
    if isinstance(value, str | bytes):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None
    return number if abs(number) <= LARGEST else None


def _length(value) -> int | None:
    """Length, None of a tensor or array without dimensions."""
    return None if getattr(value, "ndim", 1) == 0 else len(value)


def wait_for(result: Awaitable):
    """The result of an async function. Its event loop stays, as clients that a function
    keeps between calls belong to it, and has a thread of its own, as a notebook has a
    loop running already."""

    async def wait():
        return await result

    return asyncio.run_coroutine_threadsafe(wait(), _event_loop()).result()


@functools.cache
def _event_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


# --- The sources of reward that a trainer is given ----------------------------------


def reward_sources(given: RewardSource | Sequence[RewardSource]) -> list:
    """One or several sources of reward as a list of functions, models and pairs of a
    model and its tokenizer; those given by name are loaded.

    Raises:
        AlignlabError: if there is none, or one cannot give a reward.
    """
    several = isinstance(given, list | tuple) and not _is_pair(given)
    sources = [_loaded(source) for source in (given if several else [given])]
    if not sources:
        _refuse_source(given)
    return sources


def _is_pair(source) -> bool:
    """Whether it is a model, or the name of one, with its tokenizer. Any other tuple
    holds several sources."""
    return (
        isinstance(source, tuple)
        and len(source) == 2
        and isinstance(source[0], nn.Module | str | Path)
        and isinstance(source[1], PreTrainedTokenizerBase | ProcessorMixin)
    )


def _loaded(source: RewardSource):
    if isinstance(source, str | Path):
        return load_reward_model(source)
    if _is_pair(source):
        model, tokenizer = source
        if isinstance(tokenizer, ProcessorMixin):
            tokenizer = tokenizer.tokenizer
        return _loaded_model(model), tokenizer
    is_tokenizer = isinstance(source, PreTrainedTokenizerBase | ProcessorMixin)
    if not callable(source) or is_tokenizer or isinstance(source, type):
        _refuse_source(source)
    return source


def _loaded_model(model):
    """A reward model alone; its folder need not have a tokenizer."""
    if not isinstance(model, str | Path):
        return model
    model = located(model)
    if adapters_base(model) is not None:
        return load_reward_model(model)[0]
    return load_weights(AutoModelForSequenceClassification, model)


def _refuse_source(source) -> None:
    raise AlignlabError(
        f"reward_funcs contains {source!r:.200}.",
        "Pass functions, reward models or their names, or pairs of a model and its "
        "tokenizer: (model, tokenizer).",
    )


def make_rewards(
    sources: list,
    tokenizer,
    config: PPOConfig,
    prompts: Prompts,
    argument: str = "train_dataset",
    **models: nn.Module | None,
) -> list[Reward]:
    """The sources as :class:`Reward` objects; equal names get a number.

    Args:
        argument, models: see :func:`require_fit`.

    Raises:
        AlignlabError: if they do not fit the prompts, see :func:`require_fit`, or there
            are not as many finite weights as sources.
    """
    rewards = []
    for source in sources:
        reward = _make_reward(source, tokenizer)
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
    if weights is not None and not np.isfinite(weights).all():
        raise AlignlabError(f"reward_weights is {weights}.", "Pass finite numbers.")
    require_fit(rewards, prompts, config, argument, **models)
    return rewards


def _make_reward(source, tokenizer) -> Reward:
    if isinstance(source, nn.Module):
        read = functools.partial(as_tokens, tokenizer=tokenizer)
        function = functools.partial(_score, source, tokenizer, read)
        return Reward(type(source).__name__, function, source, tokenizer, True)
    if isinstance(source, tuple):
        model, own = source
        read = functools.partial(as_text, tokenizer=tokenizer, own_tokenizer=own)
        function = functools.partial(_score, model, own, read)
        return Reward(type(model).__name__, function, model, own)
    name = getattr(source, "__name__", type(source).__name__)
    return Reward(name, source)


@torch.no_grad()
def _score(
    model: PreTrainedModel,
    tokenizer,
    read: Callable[[list[Episode]], list[list[int]]],
    *,
    prompts,
    prompt_ids,
    completion_ids,
    completion_ended,
    chat_template_kwargs,
) -> list[float]:
    """What a reward model gives to episodes, read in one of two ways."""
    columns = prompts, prompt_ids, completion_ids, completion_ended
    rows = zip(*columns, chat_template_kwargs, strict=True)
    ids = read([Episode(*row) for row in rows])
    require_room(model, ids, what="Dialogue")
    model.eval()
    scores = np.zeros(len(ids))
    for rows in group_by_width(np.array([len(row) for row in ids]), model.device):
        batch = pad_right([ids[i] for i in rows], pad_token_id(tokenizer))
        batch = [tensor.to(model.device) for tensor in batch]
        scores[rows] = sequence_rewards(model, *batch).tolist()
    return scores.tolist()


# --- Whether rewards and prompts fit together ---------------------------------------


def require_fit(
    rewards: list[Reward],
    prompts: Prompts,
    config: PPOConfig,
    argument: str,
    **models: nn.Module | None,
) -> None:
    """Check that a data set has what the rewards need, before anything is sampled.

    Args:
        argument: what the caller calls the data set.
        models: other models that read the policy's tokens, under their arguments'
            names.

    Raises:
        AlignlabError: if a function needs a column that is not there, a chat template
            is missing, or a model has too few positions.
    """
    new = config.max_completion_length
    longest = max(map(len, prompts.ids)) + new
    for name, model in models.items():
        if model is not None:
            _require_positions(model, longest, argument, name)
    for reward in rewards:
        if reward.model is None:
            _require_columns(reward, prompts, argument)
        else:
            longest = _longest_prompt(reward, prompts) + new
            _require_positions(reward.model, longest, argument, "the reward model")


def _require_positions(
    model: nn.Module, longest: int, argument: str, name: str
) -> None:
    room = context_length(model)
    if longest > room:
        raise AlignlabError(
            f"A prompt of {argument} and its completion may have {longest} tokens; "
            f"{name} has {room} positions.",
            "Lower max_completion_length, or leave out the longest prompts.",
        )


def _longest_prompt(reward: Reward, prompts: Prompts) -> int:
    """Tokens of the longest prompt as the reward model reads it, with what a dialogue's
    end takes beyond the one token that the policy ends by."""
    rows = list(zip(prompts.given, prompts.template_kwargs, strict=True))
    chats = [row for row in rows if not isinstance(row[0], str)]
    end = 1
    for prompt, options in chats[:1]:  # can it read a chat at all?
        encode_dialogues(reward.tokenizer, [prompt], ["Yes."], options)
        end = len(closing_ids(reward.tokenizer, **options))
    ids = prompts.ids
    if not reward.reads_tokens:
        ids = [encode_prompt(reward.tokenizer, prompt, **o) for prompt, o in rows]
    return max(map(len, ids)) + max(end - 1, 0)


def _require_columns(reward: Reward, prompts: Prompts, argument: str) -> None:
    offered = (*ALWAYS_OFFERED, *OFFERED_BY_NAME, *prompts.columns)
    try:
        parameters = inspect.signature(reward.function).parameters.values()
    except (TypeError, ValueError) as error:
        raise AlignlabError(
            f"Reward function {reward.name!r} does not say which arguments it takes.",
            "Wrap it in a function of (prompts, completions).",
        ) from error
    for p in parameters:
        is_free = p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        if p.name not in offered and p.default is p.empty and not is_free:
            raise AlignlabError(
                f"Reward function {reward.name!r} has an argument {p.name!r}, and "
                f"{argument} has no such column; it has "
                f"{', '.join(prompts.columns) or 'none'}.",
                "Rename the column or the argument.",
            )


# --- From scores to the rewards of tokens -------------------------------------------


def weigh(
    function_rewards: Float[Tensor, "batch functions"],
    weights: list[float] | None,
    completions_per_prompt: int = 1,
) -> Float[Tensor, "batch"]:
    """The score of each completion: the weighted sum of its reward functions, without
    those that do not apply (NaN).

    A completion to which none applies is worth the mean of the others of its prompt, or
    of all where none of these has a score, so that it teaches next to nothing.

    Raises:
        AlignlabError: if no function that weighs more than 0 applies to any completion.
    """
    weights = function_rewards.new_tensor(weights or [1.0] * function_rewards.shape[1])
    applies = ~function_rewards.isnan()
    scored = (applies & ((weights != 0) | ~weights.any())).any(1)
    if not scored.any():
        raise AlignlabError(
            f"No reward function applies to any of the {len(scored)} completions: each "
            "returned None for it, or has a weight of 0.",
            "Return a number from at least one of them.",
        )
    scores = (function_rewards.where(applies, 0) @ weights).where(scored, math.nan)
    by_prompt = scores.view(-1, completions_per_prompt).nanmean(1, keepdim=True)
    usual = by_prompt.nan_to_num(scores.nanmean()).expand(-1, completions_per_prompt)
    return scores.where(scored, usual.flatten())


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
