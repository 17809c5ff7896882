"""Reward models: learn from pairs or rankings which reply people prefer.

Comparisons become token ids, the ids become padded batches, and the shared loop does
the rest. An ensemble is the same run with several seeds, side by side.
"""

import copy
import hashlib
import math
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from joblib import Parallel, delayed
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from alignlab import cache
from alignlab.errors import AlignlabError
from alignlab.models.base import save_model
from alignlab.models.reward import (
    encode_dialogues,
    load_reward_model,
    pad_right,
    positions,
    reward_model_from,
    sequence_rewards,
)
from alignlab.objectives.reward import (
    all_pairs_loss,
    bradley_terry_loss,
    centring_loss,
    plackett_luce_loss,
)
from alignlab.training.loop import train

RankingLoss = Literal["plackett_luce", "all_pairs"]
RANKING_LOSSES = {"plackett_luce": plackett_luce_loss, "all_pairs": all_pairs_loss}
BLUR = 0.25  # lengths are sorted up to a quarter, so that no two epochs batch alike


@dataclass(frozen=True)
class Comparison:
    """Whole dialogues as tokens, the one with the best reply first, and what else is
    known of a pair: its margin, and how probable it was that the first one won."""

    dialogues: list[list[int]]
    margin: float | None = None
    probability: float | None = None

    @property
    def longest(self) -> int:
        return max(len(dialogue) for dialogue in self.dialogues)


def encode(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Mapping],
    soft_labels: bool = False,
    max_length: float = math.inf,
) -> list[Comparison]:
    """Put pairs or rankings through the chat template, once.

    Args:
        examples: pairs, dicts with `prompt`, `chosen` and `rejected`, or rankings, with
            `prompt` and `completions`, best first and as many in each. Prompts are
            strings (one user turn) or lists of chat messages. Pairs may also have a
            `margin`: how much better the chosen reply has to be.
        soft_labels: learn from each pair's `probability` that the chosen reply wins,
            rather than from the bare label; for pairs only.
        max_length: comparisons with a longer dialogue, in tokens, are left out, and a
            warning says how many; likewise those whose replies are all the same, which
            teach nothing.

    Raises:
        AlignlabError: if there is no example, one lacks a column or has a number out of
            range, or none is left.
    """
    if not len(examples):
        raise AlignlabError(
            "There is no comparison to learn from.", "Pass at least one."
        )
    replies = [_replies(number, example) for number, example in enumerate(examples)]
    width = len(replies[0])
    for number, row in enumerate(replies):
        if len(row) != width:
            raise AlignlabError(
                f"Example {number} compares {len(row)} replies, and the first {width}.",
                "Pass as many in each.",
            )
    prompts = [example["prompt"] for example in examples for _ in range(width)]
    ids = encode_dialogues(tokenizer, prompts, [r for row in replies for r in row])
    with_margin = width == 2 and any("margin" in example for example in examples)
    comparisons = [
        Comparison(
            ids[width * number : width * (number + 1)],
            _number(number, example, "margin") if with_margin else None,
            _number(number, example, "probability", 0, 1) if soft_labels else None,
        )
        for number, example in enumerate(examples)
    ]
    return _worth_learning(comparisons, max_length)


def collate(
    comparisons: Sequence[Comparison], tokenizer: PreTrainedTokenizerBase
) -> dict[str, Tensor]:
    """Pad on the right into ``input_ids`` and ``attention_mask``, each (B, K, T), and
    ``margin`` and ``probability``, each (B,), where the comparisons have them."""
    rows = [dialogue for each in comparisons for dialogue in each.dialogues]
    shape = len(comparisons), len(comparisons[0].dialogues), -1
    batch = {name: x.view(shape) for name, x in pad_right(rows, tokenizer).items()}
    for name in ("margin", "probability"):
        values = [getattr(each, name) for each in comparisons]
        if None not in values:
            batch[name] = torch.tensor(values)
    return batch


def batches(
    comparisons: Sequence[Comparison],
    batch_size: int,
    seed: int,
    tokenizer: PreTrainedTokenizerBase,
) -> Iterator[dict[str, Tensor]]:
    """Batches for ever; each epoch has every comparison once, in an order of its own.

    The replies of a comparison stay together, comparisons of like length share a batch,
    and all batches have nearly the same size (see ``training.sft.batches``).

    Raises:
        ValueError: if there is no comparison or batch_size is not positive.
    """
    if not comparisons or batch_size < 1:
        raise ValueError(
            f"batch_size is {batch_size} with {len(comparisons)} comparisons; both > 0"
        )
    lengths = np.array([comparison.longest for comparison in comparisons])
    random = np.random.default_rng(seed)
    while True:
        blurred = lengths * random.uniform(1, 1 + BLUR, size=len(lengths))
        epoch = np.array_split(blurred.argsort(), -(-len(lengths) // batch_size))
        for number in random.permutation(len(epoch)):
            yield collate([comparisons[i] for i in epoch[number]], tokenizer)


def reward_step(
    model: nn.Module,
    batch: dict[str, Tensor],
    ranking_loss: RankingLoss = "plackett_luce",
    label_smoothing: float = 0.0,
    center_rewards_coefficient: float = 0.0,
) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch that :func:`collate` made, and what to log of it.

    In nats per comparison; under "all_pairs" per pair. Logged are ``accuracy`` (see
    :func:`order_accuracy`) and ``gap``, the mean of the best reply's reward minus the
    last one's.

    Raises:
        ValueError: if an option is out of range or asks rankings for what pairs have.
    """
    if ranking_loss not in RANKING_LOSSES:
        raise ValueError(
            f"ranking_loss is {ranking_loss!r}; it can be one of {RankingLoss.__args__}"
        )
    ids, mask = batch["input_ids"], batch["attention_mask"]  # (B, K, T)
    rewards = sequence_rewards(model, ids.flatten(0, 1), mask.flatten(0, 1))
    rewards = rewards.view(ids.shape[:2])  # (B, K)
    if rewards.shape[1] == 2:
        margin, probability = batch.get("margin"), batch.get("probability")
        loss = bradley_terry_loss(
            *rewards.unbind(1), margin, label_smoothing, probability
        )
    elif label_smoothing:
        raise ValueError(f"label_smoothing is {label_smoothing}; it is for pairs only")
    else:
        loss = RANKING_LOSSES[ranking_loss](rewards)
    if center_rewards_coefficient:
        loss = loss + center_rewards_coefficient * centring_loss(rewards)
    gap = (rewards[:, 0] - rewards[:, -1]).mean().item()
    return loss, {"accuracy": order_accuracy(rewards.detach()), "gap": gap}


def order_accuracy(rewards: Float[Tensor, "rankings replies"]) -> float:
    """Share of the pairs within each row, best first, that the rewards put in the right
    order. A tie counts one half, so that a constant reward is at chance."""
    replies = rewards.shape[1]
    better, worse = torch.triu_indices(replies, replies, 1, device=rewards.device)
    difference = rewards[:, better] - rewards[:, worse]
    return (0.5 + 0.5 * difference.sign()).mean().item()


def train_reward_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Mapping],
    *,
    epochs: int = 1,
    batch_size: int = 32,
    learning_rate: float,
    seed: int = 0,
    validation: Sequence[Mapping] | None = None,
    soft_labels: bool = False,
    label_smoothing: float = 0.0,
    center_rewards_coefficient: float = 0.0,
    ranking_loss: RankingLoss = "plackett_luce",
    progress: bool = True,
    **options,
) -> list[dict]:
    """Teach a reward model, in place, to put replies in the order people put them.

    Args:
        model: see ``models.reward.reward_model_from``.
        examples: pairs or rankings, see :func:`encode`.
        epochs: passes over the examples. More fit the labels more closely, the wrong
            ones too: reward models are often trained for one.
        batch_size: comparisons in a batch.
        learning_rate: the peak; about 1e-3 for a million parameters.
        seed: fixes the order of the examples, and dropout.
        validation: comparisons to judge the model by after each epoch; it ends with the
            weights of the epoch whose loss on them was least. None keeps the last.
        soft_labels: see :func:`encode`.
        label_smoothing: rate at which labels are taken to be wrong; higher keeps
            differences smaller. For pairs only.
        center_rewards_coefficient: higher ties the level of the rewards nearer to 0
            (see ``objectives.centring_loss``); 0.01 is usual.
        ranking_loss: of rankings of more than two, "plackett_luce" or "all_pairs".
        options: further arguments of :func:`alignlab.training.loop.train`.

    Returns:
        The history, one row a step, with ``loss``, ``accuracy`` and ``gap`` of its
        batch (see :func:`reward_step`), and with ``validation_loss`` and
        ``validation_accuracy`` in the last row of each epoch.

    Raises:
        AlignlabError: what :func:`encode` and the loop raise.
        ValueError: if an argument is out of range.
    """
    if epochs < 1 or batch_size < 1 or not center_rewards_coefficient >= 0:
        raise ValueError(
            f"epochs is {epochs}, batch_size {batch_size} and "
            f"center_rewards_coefficient {center_rewards_coefficient}: expected at "
            "least 1, 1 and 0"
        )
    encoded = encode(tokenizer, examples, soft_labels, positions(model))
    step = partial(
        reward_step,
        ranking_loss=ranking_loss,
        label_smoothing=label_smoothing,
        center_rewards_coefficient=center_rewards_coefficient,
    )
    steps_an_epoch = -(-len(encoded) // batch_size)
    options = {"description": "reward model"} | options
    best: dict = {}
    if validation is not None:
        held_out = encode(tokenizer, validation, soft_labels, positions(model))
        judge = partial(_judge, model, held_out, step, batch_size, tokenizer)
        keep = partial(_keep_best, best, model, judge, steps_an_epoch)
        options = _watched_by(keep, options)
    history = train(
        model,
        batches(encoded, batch_size, seed, tokenizer),
        step,
        steps=epochs * steps_an_epoch,
        learning_rate=learning_rate,
        seed=seed,
        progress=progress,
        **options,
    )
    if best:
        model.load_state_dict(best["weights"])
    return history


def train_ensemble(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Mapping],
    *,
    seeds: Sequence[int],
    jobs: int = 2,
    progress: bool = True,
    **settings,
) -> list[PreTrainedModel]:
    """Reward models that differ in nothing but their seed, trained side by side.

    A seed draws the head and the order of the examples, so the members agree on what
    the comparisons settle and differ where they leave it open. Each is trained once and
    then comes from the cache. ``models.reward.combine`` makes one reward of theirs.

    Args:
        policy: what every member starts from (see ``models.reward``).
        seeds: one for each member.
        jobs: members at a time, in processes of one thread each; 1 trains them in this
            process.
        progress: show a bar of the members.
        settings: arguments of :func:`train_reward_model`, JSON-able; with the policy,
            the examples and the seed they are what a cached member is found by.

    Returns:
        The models, in the order of the seeds.
    """
    members = [
        dict(seed=seed, policy=policy, tokenizer=tokenizer, examples=examples)
        for seed in seeds
    ]
    if all(_artifact_of(**each, **settings)[0].exists() for each in members):
        jobs = 1
    tasks = [
        delayed(_train_member)(**each, **settings, one_thread=jobs > 1)
        for each in members
    ]
    folders = Parallel(n_jobs=jobs, return_as="generator", batch_size=1)(tasks)
    bar = tqdm(folders, "reward models", len(members), disable=not progress)
    return [load_reward_model(folder)[0] for folder in bar]


def _train_member(policy, tokenizer, examples, seed, one_thread, **settings) -> Path:
    if one_thread:
        torch.set_num_threads(1)
        logging.disable_progress_bar()  # its bars would land in the notebook

    def build(folder: Path) -> None:
        model = reward_model_from(policy, seed)
        train_reward_model(
            model, tokenizer, examples, seed=seed, progress=False, **settings
        )
        save_model(model, tokenizer, folder)

    _, identity = _artifact_of(policy, tokenizer, examples, seed, **settings)
    return cache.artifact("reward", build, **identity)


def _artifact_of(policy, tokenizer, examples, seed, **settings) -> tuple[Path, dict]:
    """Where a member is cached, and what identifies it there."""
    digest = hashlib.sha256(tokenizer.chat_template.encode())
    for name, tensor in policy.state_dict().items():
        values = tensor.detach().cpu().contiguous().view(torch.uint8)
        digest.update(name.encode() + values.numpy().tobytes())
    key = dict(start=digest.hexdigest(), examples=list(examples), seed=seed, **settings)
    identity = dict(key=key, code=[sys.modules[__name__]])
    return cache.artifact_path("reward", **identity), identity


def _keep_best(best: dict, model, judge, every: int, row: dict) -> None:
    """After each epoch: judge the model, note it in the history's row, and put the
    weights aside if it is the best so far."""
    if row["step"] % every:
        return
    row["validation_loss"], row["validation_accuracy"] = judge()
    if row["validation_loss"] < best.get("loss", math.inf):
        best["loss"] = row["validation_loss"]
        best["weights"] = copy.deepcopy(model.state_dict())


def _watched_by(keep, options: dict) -> dict:
    # The checkpoint, as a resumed run would lack the weights of the epochs before.
    taken = options.keys() & {"on_log", "log_every", "checkpoint"}
    if taken:
        raise ValueError(f"{', '.join(sorted(taken))} cannot go with validation")
    return options | {"on_log": keep}


@torch.no_grad()
def _judge(model, comparisons, step, batch_size, tokenizer) -> tuple[float, float]:
    """Mean loss and accuracy over all the comparisons."""
    ordered = sorted(comparisons, key=lambda comparison: comparison.longest)
    loss = accuracy = 0.0
    was_training = model.training
    model.eval()
    for start in range(0, len(ordered), batch_size):
        some = ordered[start : start + batch_size]
        batch = collate(some, tokenizer)
        batch = {name: value.to(model.device) for name, value in batch.items()}
        batch_loss, logs = step(model, batch)
        loss += batch_loss.item() * len(some) / len(ordered)
        accuracy += logs["accuracy"] * len(some) / len(ordered)
    model.train(was_training)
    return loss, accuracy


def _replies(number: int, example: Mapping) -> list:
    """The replies that an example compares, the best first."""
    names = ("completions",) if "completions" in example else ("chosen", "rejected")
    missing = [name for name in ("prompt", *names) if name not in example]
    if missing:
        raise AlignlabError(
            f"Example {number} has no {' and no '.join(missing)}; "
            f"it has {sorted(example)}.",
            "A pair needs prompt, chosen and rejected; a ranking prompt and "
            "completions.",
        )
    if "completions" not in example:
        return [example["chosen"], example["rejected"]]
    if len(example["completions"]) < 2:
        raise AlignlabError(
            f"Example {number} ranks {len(example['completions'])} completions.",
            "A ranking needs at least two.",
        )
    return list(example["completions"])


def _number(number: int, example: Mapping, name: str, low=-math.inf, high=math.inf):
    value = example.get(name)
    try:
        usable = math.isfinite(value) and low <= value <= high
    except TypeError:
        usable = False
    if not usable:
        bounds = "" if math.isinf(low) else f" from {low} to {high}"
        raise AlignlabError(
            f"The {name} of example {number} is {value!r}.",
            f"It has to be a finite number{bounds}.",
        )
    return float(value)


def _worth_learning(comparisons: list[Comparison], max_length) -> list[Comparison]:
    short = [each for each in comparisons if each.longest <= max_length]
    kept = [each for each in short if len(set(map(tuple, each.dialogues))) > 1]
    if len(kept) < len(comparisons):
        reasons = (
            f"{len(comparisons) - len(short)} of {len(comparisons)} comparisons are "
            f"longer than {max_length} tokens and in {len(short) - len(kept)} all "
            "replies are the same"
        )
        if not kept:
            raise AlignlabError(
                f"None is left to learn from: {reasons}.", "Pass others."
            )
        warnings.warn(f"{reasons}; they were left out", stacklevel=4)
    return kept
