"""Reward models: learn from pairs or rankings which reply people prefer.

Comparisons become token ids, the ids become padded batches, and the shared loop does
the rest.
"""

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignlab.errors import AlignlabError
from alignlab.models.base import evaluation_mode
from alignlab.models.dialogues import (
    Dialogue,
    Plain,
    encode_conversations,
    encode_plain,
)
from alignlab.models.fit import require_scalar_head, require_vocabulary
from alignlab.models.reward import read_before_padding, sequence_rewards
from alignlab.models.text import context_length, pad_right, pad_token_id
from alignlab.objectives.reward import (
    all_pairs_loss,
    bradley_terry_loss,
    centring_loss,
    plackett_luce_loss,
)
from alignlab.training.loop import train
from alignlab.training.parts import in_parts, parts_of
from alignlab.training.rows import (
    batches_of_like_length,
    dialogues_of,
    drop_uninformative,
    pair_of,
    require_columns,
    rows_of,
    template_arguments,
    warn_of_oddities,
)

RankingLoss = Literal["plackett_luce", "all_pairs"]
RANKING_LOSSES = {"plackett_luce": plackett_luce_loss, "all_pairs": all_pairs_loss}


@dataclass(frozen=True)
class Comparison:
    """Token ids of two or more dialogues that end in the replies compared, the best one
    first; of a pair also its margin, and how probable it was that the first one won."""

    dialogues: list[list[int]]
    margin: float | None = None
    probability: float | None = None

    @property
    def longest(self) -> int:
        return max(map(len, self.dialogues))


def encode(
    tokenizer: PreTrainedTokenizerBase,
    examples: Iterable[Mapping],
    soft_labels: bool = False,
    max_length: float = math.inf,
    chat_template_kwargs: Mapping | None = None,
) -> list[Comparison]:
    """Put pairs or rankings through the chat template.

    Args:
        examples: any data set of pairs, see
            :func:`alignlab.training.pairs.encode_pairs`, or of rankings, with `prompt`
            and `completions`, best first and the same number in each. Pairs may also
            have a `margin`: how much better the chosen reply has to be.
        soft_labels: learn from each pair's `probability` that the chosen reply wins
            instead of the bare label; for pairs only.
        max_length: in tokens. Comparisons with a longer dialogue, and those whose
            replies are all the same, are left out, and a warning counts them.
        chat_template_kwargs: see :func:`alignlab.training.sft.encode`.

    Raises:
        AlignlabError: if there is no example, one lacks a column or has a number out of
            range, its parts do not fit together, or none is left.
    """
    examples = rows_of(examples)
    if not examples:
        raise AlignlabError(
            "There is no comparison to learn from.", "Pass at least one."
        )
    plain = tokenizer.chat_template is None
    rows = [_dialogues(n, example, plain) for n, example in enumerate(examples)]
    width = len(rows[0])
    for number, dialogues in enumerate(rows):
        if len(dialogues) != width:
            raise AlignlabError(
                f"Row {number} compares {len(dialogues)} replies, and the first "
                f"{width}.",
                "Pass the same number in each.",
            )
    warn_of_oddities(tokenizer, rows)
    kwargs = [
        template_arguments(number, row, chat_template_kwargs)
        for number, row in enumerate(examples)
    ]
    ids = _encode_wholes(tokenizer, rows, kwargs)
    with_margin = width == 2 and any("margin" in example for example in examples)
    comparisons = [
        Comparison(
            ids[number],
            _number(number, example, "margin") if with_margin else None,
            _number(number, example, "probability", 0, 1) if soft_labels else None,
        )
        for number, example in enumerate(examples)
    ]
    return drop_uninformative(
        comparisons, lambda each: each.dialogues, max_length, "comparisons"
    )


def collate(comparisons: Sequence[Comparison], pad_token_id: int) -> dict[str, Tensor]:
    """Pad on the right into ``input_ids`` and ``attention_mask``, each (B, K, T), and
    ``margin`` and ``probability``, each (B,), where the comparisons have them."""
    dialogues = [dialogue for each in comparisons for dialogue in each.dialogues]
    shape = len(comparisons), len(comparisons[0].dialogues), -1
    input_ids, attention_mask = pad_right(dialogues, pad_token_id)
    batch = {
        "input_ids": input_ids.view(shape),
        "attention_mask": attention_mask.view(shape),
    }
    for name in ("margin", "probability"):
        values = [getattr(each, name) for each in comparisons]
        if None not in values:
            batch[name] = torch.tensor(values)
    return batch


def batches(
    comparisons: Sequence[Comparison],
    batch_size: int,
    seed: int,
    pad_token_id: int,
    parts: int = 1,
) -> Iterator[dict[str, Tensor] | list[dict[str, Tensor]]]:
    """Padded batches without end; see :func:`batches_of_like_length`. The replies of a
    comparison stay together. With several ``parts``, each batch is a list of so many.

    Raises:
        ValueError: if there is no comparison or batch_size is not positive.
    """
    lengths = [each.longest for each in comparisons]
    for rows in batches_of_like_length(lengths, batch_size, seed):
        batch = [
            collate([comparisons[i] for i in part], pad_token_id)
            for part in in_parts(rows, parts)
        ]
        yield batch[0] if parts == 1 else batch


def reward_step(
    model: nn.Module,
    batch: dict[str, Tensor],
    ranking_loss: RankingLoss = "plackett_luce",
    label_smoothing: float = 0.0,
    center_rewards_coefficient: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch that :func:`collate` made, and what to log.

    In nats per comparison; under "all_pairs" per pair. The logs are ``accuracy`` (see
    :func:`order_accuracy`) and ``gap``, the mean of the best reply's reward minus the
    last one's.

    Args:
        ranking_loss, label_smoothing, center_rewards_coefficient: see
            :func:`train_reward_model`.

    Raises:
        ValueError: if a hyperparameter is unknown or out of range, or label smoothing
            is asked for with rankings.
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
    rewards = rewards.detach()
    gap = (rewards[:, 0] - rewards[:, -1]).mean()
    return loss, {"accuracy": _order_accuracy(rewards), "gap": gap}


def order_accuracy(rewards: Float[Tensor, "rankings replies"]) -> float:
    """Share of the pairs within each row, best first, that the rewards put in the right
    order. A tie counts one half, so that a constant reward is at chance."""
    return _order_accuracy(rewards).item()


def _order_accuracy(rewards: Tensor) -> Float[Tensor, ""]:
    replies = rewards.shape[1]
    better, worse = torch.triu_indices(replies, replies, 1, device=rewards.device)
    difference = rewards[:, better] - rewards[:, worse]
    return (0.5 + 0.5 * difference.sign()).mean()


def train_reward_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Iterable[Mapping],
    *,
    epochs: int = 1,
    batch_size: int = 32,
    learning_rate: float,
    seed: int = 0,
    disable_dropout: bool = True,
    validation: Iterable[Mapping] | None = None,
    soft_labels: bool = False,
    label_smoothing: float = 0.0,
    center_rewards_coefficient: float = 0.0,
    ranking_loss: RankingLoss = "plackett_luce",
    chat_template_kwargs: Mapping | None = None,
    accumulate: int | None = None,
    progress: bool = True,
    **options,
) -> list[dict]:
    """Teach a reward model, in place, to put replies in the order people put them.

    The model's ``config.pad_token_id`` becomes the tokenizer's padding token, so that
    `transformers` reads the saved model where it was trained: at the last token that is
    not that one. Where EOS serves as padding, this is the last token before EOS.

    Args:
        model: a sequence classifier with one label, see
            :func:`alignlab.models.reward.reward_model_from`.
        examples: any data set of pairs or rankings, see :func:`encode`. Those that do
            not fit into the model's context are left out, and a warning counts them.
        epochs: passes over the examples. More fit the labels more closely, including
            the wrong ones; one is usual for reward models.
        batch_size: comparisons per batch; higher makes each step steadier and more
            expensive.
        learning_rate: the peak; about 1e-3 for a million parameters. Higher learns
            faster until it diverges.
        seed: fixes the order of the examples, and dropout where there is any.
        disable_dropout: False trains with the model's dropout. That fights overfitting,
            but adds noise to the difference of each pair's two rewards.
        validation: comparisons to evaluate after each epoch; the model ends with the
            weights of the epoch that had the lowest loss on them. None keeps the last.
        soft_labels: see :func:`encode`.
        label_smoothing: rate at which labels are taken to be wrong; higher keeps
            differences smaller. For pairs only.
        center_rewards_coefficient: higher ties the level of the rewards closer to 0
            (see :func:`alignlab.objectives.centring_loss`); 0.01 is usual.
        ranking_loss: of rankings of more than two, "plackett_luce" or "all_pairs".
        chat_template_kwargs: see :func:`encode`.
        accumulate: parts that each batch is computed in, one after the other; more take
            less memory and more time, and leave the result as it is. None takes as many
            as :func:`alignlab.training.parts.parts_of` finds.
        options: further arguments of :func:`alignlab.training.loop.train`.

    Returns:
        The history, one row per step, with ``loss``, ``accuracy`` and ``gap`` of its
        batch (see :func:`reward_step`), and with ``validation_loss`` and
        ``validation_accuracy`` in the last row of each epoch.

    Raises:
        AlignlabError: if the model does not give one number per text, nothing of it can
            be trained, the tokenizer has tokens that it lacks, or what :func:`encode`
            and the loop raise.
        ValueError: if a hyperparameter is out of range.
    """
    if epochs < 1 or batch_size < 1 or not center_rewards_coefficient >= 0:
        raise ValueError(
            f"epochs is {epochs}, batch_size {batch_size} and "
            f"center_rewards_coefficient {center_rewards_coefficient}: expected at "
            "least 1, 1 and 0"
        )
    require_scalar_head(model)
    require_vocabulary(model, tokenizer)
    room, pad = context_length(model), pad_token_id(tokenizer)
    read = partial(
        encode,
        tokenizer,
        soft_labels=soft_labels,
        max_length=room,
        chat_template_kwargs=chat_template_kwargs,
    )
    comparisons = read(examples)
    before = model.config.pad_token_id
    read_before_padding(model, pad)
    if hasattr(model, "peft_config") and model.config.pad_token_id != before:
        warnings.warn(
            f"The reward model's config.pad_token_id was {before} and is now {pad}, "
            "the tokenizer's, which is not saved with adapters. Load them by "
            "alignlab.models.reward.load_reward_model, set it again, or save "
            "model.merge_and_unload().",
            stacklevel=2,
        )
    step = partial(
        reward_step,
        ranking_loss=ranking_loss,
        label_smoothing=label_smoothing,
        center_rewards_coefficient=center_rewards_coefficient,
    )
    if accumulate is None:
        lengths = [each.longest * len(each.dialogues) for each in comparisons]
        accumulate = parts_of(model, lengths, batch_size, options)
    steps_per_epoch = -(-len(comparisons) // batch_size)
    best: dict = {}
    if validation is not None:
        _require_free(options)
        held_out = read(validation)
        evaluate = partial(_evaluate, model, held_out, step, batch_size, pad)
        options["on_log"] = partial(_keep_best, best, model, evaluate, steps_per_epoch)
    history = train(
        model,
        batches(comparisons, batch_size, seed, pad, accumulate),
        step,
        steps=epochs * steps_per_epoch,
        learning_rate=learning_rate,
        seed=seed,
        disable_dropout=disable_dropout,
        progress=progress,
        **{"description": "reward model"} | options,
    )
    if best:
        model.load_state_dict(best["weights"])
    return history


# --- Keeping the best epoch -----------------------------------------------------------


def _require_free(options: dict) -> None:
    """Validation uses the loop's ``on_log``, row by row, and a resumed run would lack
    the weights of the epochs before."""
    taken = options.keys() & {"on_log", "log_every", "checkpoint"}
    if taken:
        raise ValueError(f"{', '.join(sorted(taken))} cannot go with validation")


def _keep_best(
    best: dict, model: nn.Module, evaluate: Callable, every: int, row: dict
) -> None:
    """After each epoch, evaluate the model, write that into the history's row, and copy
    the weights if it is the best so far."""
    if row["step"] % every:
        return
    row["validation_loss"], row["validation_accuracy"] = evaluate()
    if row["validation_loss"] < best.get("loss", math.inf):
        best["loss"] = row["validation_loss"]
        best["weights"] = copy.deepcopy(model.state_dict())


@torch.no_grad()
def _evaluate(model, comparisons, step, batch_size, pad) -> tuple[float, float]:
    """Mean loss and accuracy over all the comparisons."""
    ordered = sorted(comparisons, key=lambda comparison: comparison.longest)
    loss = accuracy = 0.0
    with evaluation_mode(model):
        for start in range(0, len(ordered), batch_size):
            rows = ordered[start : start + batch_size]
            batch = collate(rows, pad)
            batch = {name: value.to(model.device) for name, value in batch.items()}
            batch_loss, logs = step(model, batch)
            loss += batch_loss.item() * len(rows) / len(ordered)
            accuracy += logs["accuracy"].item() * len(rows) / len(ordered)
    return loss, accuracy


# --- Reading a row --------------------------------------------------------------------


def _dialogues(number: int, example: Mapping, plain: bool) -> list[Dialogue | Plain]:
    """The dialogues that an example compares, the best first."""
    if example.get("completions") is None:
        return list(pair_of(number, example, plain))
    replies = list(example["completions"])
    if len(replies) < 2:
        raise AlignlabError(
            f"Row {number} ranks {len(replies)} completions.",
            "A ranking needs at least two.",
        )
    if isinstance(replies[0], str):
        require_columns(number, example, ("prompt",))
    return dialogues_of(number, example.get("prompt"), replies, plain)


def _encode_wholes(
    tokenizer, rows: Sequence[Sequence[Dialogue | Plain]], kwargs: Sequence[Mapping]
) -> list[list[list[int]]]:
    """The token ids of each row's dialogues."""
    numbered = [(number, each) for number, row in enumerate(rows) for each in row]
    chats = [(n, each.messages) for n, each in numbered if isinstance(each, Dialogue)]
    messages = [each for _, each in chats]
    chat_ids = encode_conversations(tokenizer, messages, [kwargs[n] for n, _ in chats])
    plains = [each for _, each in numbered if isinstance(each, Plain)]
    chat_ids, plain = iter(chat_ids), iter(encode_plain(tokenizer, plains))
    return [
        [
            next(chat_ids) if isinstance(each, Dialogue) else next(plain).input_ids
            for each in row
        ]
        for row in rows
    ]


def _number(number: int, example: Mapping, name: str, low=-math.inf, high=math.inf):
    value = example.get(name)
    try:
        usable = math.isfinite(value) and low <= value <= high
    except TypeError:
        usable = False
    if not usable:
        bounds = "" if math.isinf(low) else f" from {low} to {high}"
        raise AlignlabError(
            f"The {name} of row {number} is {value!r}.",
            f"It has to be a finite number{bounds}.",
        )
    return float(value)
