"""Rollouts: prompts, sampled completions, and what is known about each token."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from alignlab.errors import AlignlabError
from alignlab.models.sampler import sample
from alignlab.models.text import context_length, encode_prompt, pad_left, pad_right
from alignlab.objectives.policy import entropy_and_kl
from alignlab.seeds import stream
from alignlab.training.ppo.config import PPOConfig
from alignlab.training.ppo.policy_value import NextToken
from alignlab.training.rows import rows_of, template_arguments

# How many tokens could be computed in the time that one more forward pass costs.
GROUP_PRICE = {"cpu": 128, "gpu": 8192}
# Tokens in one forward pass. Larger passes fall out of a CPU's cache: a batch of 7,000
# tokens takes a third longer in one pass than in four.
GROUP_LIMIT = {"cpu": 2048, "gpu": math.inf}
# Logits in one forward pass on a GPU: 1 GiB in float32, which an update holds four
# times (log-probabilities, the reference's, and gradients).
GROUP_LOGITS = 2**28


# --- Prompts ------------------------------------------------------------------------


class Prompts(torch.utils.data.Dataset):
    """Prompts as given and as tokens, with the other columns of their data set.

    Args:
        dataset: rows with a ``prompt``, text or a list of chat messages, in any form
            that :func:`alignlab.training.rows.rows_of` reads.
        model: the policy, whose context has to hold prompt and completion.
        argument: what the caller calls the data set, for error messages.

    Raises:
        AlignlabError: if there is no prompt, or one is empty or too long.
    """

    def __init__(self, dataset, tokenizer, model, config: PPOConfig, argument: str):
        rows = rows_of(dataset, argument)
        _require_prompts(rows, argument)
        self.given = [row["prompt"] for row in rows]
        names = [n for n in rows[0] if n not in ("prompt", "chat_template_kwargs")]
        self.columns = {name: [row.get(name) for row in rows] for name in names}
        given = config.chat_template_kwargs
        self.template_kwargs = [
            template_arguments(number, row, given) for number, row in enumerate(rows)
        ]
        self.ids = [
            _encode(tokenizer, prompt, f"{argument}[{number}]", template_kwargs)
            for number, (prompt, template_kwargs) in enumerate(
                zip(self.given, self.template_kwargs, strict=True)
            )
        ]
        room = context_length(model) - config.max_completion_length
        for number, ids in enumerate(self.ids):
            if len(ids) > room:
                raise AlignlabError(
                    f"{argument}[{number}] has {len(ids)} tokens; with "
                    f"max_completion_length={config.max_completion_length} the model's "
                    f"context has room for {room}: {self.given[number]!r:.200}",
                    "Leave such prompts out, or lower max_completion_length.",
                )

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, number: int) -> dict:
        columns = {name: column[number] for name, column in self.columns.items()}
        return {"prompt": self.given[number]} | columns

    def draw(self, update: int, count: int, seed: int) -> list[int]:
        """``count`` rows for one update, from an endless series of epochs that hold
        every prompt once, each in its own random order."""
        places = range(update * count, (update + 1) * count)
        orders = {
            epoch: stream(seed, "PPO prompts", epoch).permutation(len(self))
            for epoch in {place // len(self) for place in places}
        }
        return [int(orders[p // len(self)][p % len(self)]) for p in places]


def _require_prompts(rows: list[dict], argument: str) -> None:
    if not rows:
        raise AlignlabError(f"{argument} has no rows.", "Pass at least one prompt.")
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or "prompt" not in row:
            raise AlignlabError(
                f"{argument}[{number}] has no `prompt`: {row!r:.200}",
                "Give every row one: text, or a list of chat messages.",
            )


def _encode(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str | list[dict],
    place: str,
    template_kwargs: dict,
) -> list[int]:
    if not prompt or not isinstance(prompt, str | list):
        raise AlignlabError(f"{place} is not a prompt: {prompt!r}.", "Leave it out.")
    try:
        ids = encode_prompt(tokenizer, prompt, **template_kwargs)
    except AlignlabError as error:
        raise AlignlabError(f"{place}: {error.message}", error.remedy) from error
    if not ids:
        raise AlignlabError(f"{place} has no tokens: {prompt!r}.", "Leave it out.")
    return ids


# --- Episodes -----------------------------------------------------------------------


@dataclass
class Episodes:
    """Sampled completions, one per row, and what is known about each of their tokens.

    There are three layouts. Here ``p`` is a prompt token, ``c`` a completion token and
    ``.`` padding::

        input_ids (B, W)       per token (B, T)       flat (N,)
        p p c c c .            c c c                  c c c c c c
        p p p p c .            c . .
        p c c . . .            c c .

    ``input_ids`` holds prompt and completion, padded on the right. Everything that is
    known about tokens is per token: column 0 is a completion's first token, and padding
    is 0. A model's output is flat, row by row, as it is computed at the completions'
    tokens only; :meth:`unflatten` lays it out per token.
    """

    input_ids: Int[Tensor, "batch width"]
    prompt_length: Int[Tensor, "batch"]
    mask: Bool[Tensor, "batch time"]  # True on the completion's tokens
    ended: Bool[Tensor, "batch"]  # whether it ends in a stop token
    # Of the policy when it sampled, until :func:`add_predictions` has read them
    logits: Float[Tensor, "batch time vocab"] | None = None
    # How the models saw the tokens when they were sampled: nats, units of reward, nats
    old_log_probs: Float[Tensor, "batch time"] | None = None
    ref_log_probs: Float[Tensor, "batch time"] | None = None
    values: Float[Tensor, "batch time"] | None = None
    entropy: Float[Tensor, "batch time"] | None = None
    exact_kl: Float[Tensor, "batch time"] | None = None
    # What to learn from them, in units of reward
    rewards: Float[Tensor, "batch time"] | None = None
    advantages: Float[Tensor, "batch time"] | None = None
    weights: Float[Tensor, "batch"] | None = None  # of each token in its loss
    returns: Float[Tensor, "batch time"] | None = None

    @classmethod
    def pack(
        cls,
        prompts: list[list[int]],
        sampled: Int[Tensor, "batch time"],
        stop_token_ids: list[int],
        pad_token_id: int,
    ) -> "Episodes":
        """Cut each sampled row after its first stop token and move it up to its
        prompt, so that all padding is on the right."""
        stops = torch.isin(sampled, sampled.new_tensor(stop_token_ids))
        ended = stops.any(1)
        lengths = torch.where(ended, stops.int().argmax(1) + 1, sampled.shape[1])
        sampled = sampled[:, : lengths.max()]
        columns = torch.arange(sampled.shape[1], device=sampled.device)
        rows = [
            prompt + completion[:length]
            for prompt, completion, length in zip(
                prompts, sampled.tolist(), lengths.tolist(), strict=True
            )
        ]
        return cls(
            input_ids=pad_right(rows, pad_token_id)[0].to(sampled.device),
            prompt_length=torch.tensor(
                [len(p) for p in prompts], device=sampled.device
            ),
            mask=columns < lengths[:, None],
            ended=ended,
        )

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def lengths(self) -> Int[Tensor, "batch"]:
        """Tokens of each completion, its stop token included."""
        return self.mask.sum(1)

    @property
    def widths(self) -> Int[Tensor, "batch"]:
        """Tokens of each prompt and completion together."""
        return self.prompt_length + self.lengths

    @property
    def prediction_mask(self) -> Bool[Tensor, "batch width"]:
        """True one position before each completion token, where it is predicted."""
        columns = torch.arange(self.input_ids.shape[1], device=self.mask.device)
        first = self.prompt_length[:, None] - 1
        return (columns >= first) & (columns < first + self.lengths[:, None])

    @property
    def tokens(self) -> Int[Tensor, "tokens"]:
        """The completions' tokens, flat."""
        return self.input_ids[:, 1:][self.prediction_mask[:, :-1]]

    def unflatten(self, flat: Float[Tensor, "tokens"]) -> Float[Tensor, "batch time"]:
        """Lay one number per completion token out per token."""
        flat = flat.float()
        return flat.new_zeros(self.mask.shape).masked_scatter(self.mask, flat)

    def completion_ids(self) -> list[list[int]]:
        return [
            row[start : start + length]
            for row, start, length in zip(
                self.input_ids.tolist(),
                self.prompt_length.tolist(),
                self.lengths.tolist(),
                strict=True,
            )
        ]

    def tensors(self) -> dict[str, Tensor]:
        """The fields that are set, by name."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: x for name, x in named.items() if x is not None}

    def take(self, rows: np.ndarray) -> "Episodes":
        """These rows, without columns that would be all padding."""
        rows = torch.from_numpy(rows).to(self.mask.device)
        time, width = self.lengths[rows].max(), self.widths[rows].max()
        taken = {}
        for name, tensor in self.tensors().items():
            end = width if name == "input_ids" else time
            taken[name] = tensor[rows] if tensor.ndim == 1 else tensor[rows, :end]
        return Episodes(**taken)

    @classmethod
    def join(cls, parts: list["Episodes"]) -> "Episodes":
        """Several batches as one, padded to the widest."""
        if len(parts) == 1:
            return parts[0]
        joined = {}
        for name in parts[0].tensors():
            tensors = [getattr(part, name) for part in parts]
            if tensors[0].ndim == 2:
                width = max(tensor.shape[1] for tensor in tensors)
                tensors = [F.pad(t, (0, width - t.shape[1])) for t in tensors]
            joined[name] = torch.cat(tensors)
        return cls(**joined)


# --- Groups of like width -----------------------------------------------------------


def cheapest_groups(
    widths: np.ndarray, price: int, limit: float = math.inf
) -> list[np.ndarray]:
    """Rows in groups of like width, so that little padding is computed.

    A group costs its number of rows times its greatest width, plus ``price`` tokens. Of
    all ways to split the sorted rows, this is the cheapest in which no group of several
    rows has more than ``limit`` tokens.
    """
    order = np.argsort(widths, kind="stable")
    cost, cut = np.zeros(len(order) + 1), np.zeros(len(order) + 1, dtype=int)
    for end in range(1, len(order) + 1):
        rows = end - np.arange(end)  # in the last group, for each place it may begin
        tokens = rows * widths[order[end - 1]]
        fits = (tokens <= limit) | (rows == 1)
        total = np.where(fits, cost[:end] + tokens + price, math.inf)
        cut[end] = total.argmin()
        cost[end] = total[cut[end]]
    groups, end = [], len(order)
    while end:
        groups.append(order[cut[end] : end])
        end = cut[end]
    return groups[::-1]


def group_by_width(
    widths: np.ndarray, device: torch.device, vocabulary: int = 1
) -> list[np.ndarray]:
    """:func:`cheapest_groups` at what a forward pass costs on this device.

    Args:
        vocabulary: how many logits a token has, if they are computed.
    """
    kind = "cpu" if device.type == "cpu" else "gpu"
    limit = GROUP_LIMIT[kind]
    if kind == "gpu":
        limit = min(limit, GROUP_LOGITS // vocabulary)
    return cheapest_groups(widths, GROUP_PRICE[kind], limit)


def split_by_width(
    episodes: Episodes, rows: np.ndarray, parts: int = 1, vocabulary: int = 1
) -> list[np.ndarray]:
    """These rows of the episodes in at least ``parts`` parts, each of like width; see
    :func:`group_by_width`."""
    widths = episodes.widths.cpu().numpy()
    device = episodes.mask.device
    return [
        part[group]
        for part in np.array_split(rows, parts)
        for group in group_by_width(widths[part], device, vocabulary)
    ]


# --- Sampling, and what the models say about the tokens -----------------------------


def sample_episodes(
    model: nn.Module,
    prompts: list[list[int]],
    *,
    max_new_tokens: int,
    stop_token_ids: list[int],
    pad_token_id: int,
    generator: torch.Generator,
    temperature: float = 1.0,
    vocabulary: int | None = None,
    stop_early: bool = True,
    keep_predictions: bool = False,
) -> Episodes:
    """Complete the prompts, token ids each.

    Args:
        max_new_tokens: longest completion; longer ones are cut.
        stop_token_ids: each ends a completion; without any, all have full length.
        vocabulary: only ids below it are sampled; None samples all.
        temperature: higher explores more.
        stop_early: False samples on to ``max_new_tokens`` even when all rows have
            ended, so that several processes call the model equally often.
        keep_predictions: the model is a ``PolicyAndValue``, and the episodes keep the
            logits and values that it had in sampling, so that :func:`add_predictions`
            need not compute them again. Takes memory for all logits at once.
    """
    input_ids, attention_mask = pad_left(prompts, pad_token_id)
    kept = Kept(len(prompts), max_new_tokens)
    sampled = sample(
        model,
        input_ids.to(generator.device),
        attention_mask.to(generator.device),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        eos_token_id=stop_token_ids if stop_early else None,
        pad_token_id=pad_token_id,
        generator=generator,
        vocabulary=vocabulary,
        observe=kept.add if keep_predictions else None,
    )
    episodes = Episodes.pack(prompts, sampled, stop_token_ids, pad_token_id)
    time = episodes.mask.shape[1]
    if kept.logits is not None:
        episodes.logits = kept.logits[:, :time]
    if kept.values is not None:
        episodes.values = kept.values[:, :time].where(episodes.mask, 0)
    return episodes


@dataclass
class Kept:
    """Logits and values of each step of sampling, empty after a row's end."""

    rows: int
    steps: int
    logits: Float[Tensor, "rows steps vocab"] | None = None
    values: Float[Tensor, "rows steps"] | None = None

    def add(self, step: int, rows: Int[Tensor, "running"], seen: NextToken) -> None:
        if step == 0:
            size, new = (self.rows, self.steps), seen.logits
            self.logits = new.new_empty(*size, new.shape[-1])
            self.values = None if seen.values is None else new.new_empty(size)
        self.logits[rows, step] = seen.logits[:, 0]
        if self.values is not None:
            self.values[rows, step] = seen.values


def predict(
    model: nn.Module, episodes: Episodes, temperature: float = 1.0
) -> tuple[
    Float[Tensor, "batch time"],
    Float[Tensor, "batch time"],
    Float[Tensor, "tokens vocab"],
]:
    """Log-probabilities (nats) and values of the completions' tokens by a
    ``PolicyAndValue``, and the logits they come from."""
    logits, values = model(episodes.input_ids, episodes.prediction_mask)
    logits = at_temperature(logits, temperature)
    log_probs = sampled_log_probs(logits, episodes)
    return log_probs, episodes.unflatten(values), logits


def at_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Logits in float32, divided by the temperature."""
    return logits.float() if temperature == 1 else logits.float() / temperature


def sampled_log_probs(
    logits: Float[Tensor, "tokens vocab"], episodes: Episodes
) -> Float[Tensor, "batch time"]:
    flat = -F.cross_entropy(logits, episodes.tokens, reduction="none")
    return episodes.unflatten(flat)


@torch.no_grad()
def add_predictions(
    episodes: Episodes,
    model: nn.Module,
    ref_logits: Callable[[Episodes], Float[Tensor, "tokens vocab"]],
    temperature: float = 1.0,
) -> None:
    """Set what policy, value function and reference say about the tokens:
    ``old_log_probs``, ``ref_log_probs``, ``values``, ``entropy`` and ``exact_kl``."""
    log_p = _read_policy(episodes, model, temperature)
    log_q = ref_logits(episodes).log_softmax(-1)
    episodes.old_log_probs = _at_tokens(log_p, episodes)
    episodes.ref_log_probs = _at_tokens(log_q, episodes)
    entropies, kls = entropy_and_kl(log_p, log_q)
    episodes.entropy = episodes.unflatten(entropies)
    episodes.exact_kl = episodes.unflatten(kls)


def _read_policy(
    episodes: Episodes, model: nn.Module, temperature: float
) -> Float[Tensor, "tokens vocab"]:
    """Log-probabilities by the policy; sets the values. What sampling has kept is not
    computed again."""
    inputs = episodes.input_ids, episodes.prediction_mask
    if episodes.logits is None:
        logits, values = model(*inputs)
        episodes.values = episodes.unflatten(values)
    else:
        logits, episodes.logits = episodes.logits[episodes.mask], None
        if episodes.values is None:
            episodes.values = episodes.unflatten(model.values_by_model(*inputs))
    return at_temperature(logits, temperature).log_softmax(-1)


def _at_tokens(
    log_probs: Float[Tensor, "tokens vocab"], episodes: Episodes
) -> Float[Tensor, "batch time"]:
    return episodes.unflatten(log_probs.gather(1, episodes.tokens[:, None])[:, 0])
