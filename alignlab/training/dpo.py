"""Preference optimisation without a reward model: DPO and its family.

The reference reads all pairs once, and the shared loop does the rest: one pass per
step, with chosen and rejected behind one prompt.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignlab.errors import AlignlabError
from alignlab.models.base import load_model
from alignlab.models.fit import (
    require_causal_lm,
    require_vocabulary,
    trained_parameters,
)
from alignlab.models.pairs import (
    EncodedPair,
    pair_log_probs,
)
from alignlab.models.text import context_length, pad_token_id
from alignlab.objectives import (
    PREFERENCE_LOSSES,
    dpo_loss,
    implicit_reward,
    kto_loss,
)
from alignlab.training.kto import is_unpaired, kto_data, kto_step
from alignlab.training.loop import exact, train
from alignlab.training.pairs import (
    batches,
    encode_pairs,
    layout_for,
    log_probs_of,
    longest,
    number_of_pairs,
)
from alignlab.training.parts import parts_of
from alignlab.training.rows import rows_of

SIDES = ("chosen", "rejected")


def train_dpo(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Iterable[Mapping],
    *,
    loss_type: str = "sigmoid",
    beta: float = 0.1,
    steps: int,
    batch_size: int = 32,
    learning_rate: float,
    seed: int = 0,
    disable_dropout: bool = True,
    reference: PreTrainedModel | str | Path | None = None,
    ref_log_probs: tuple[Tensor, Tensor] | None = None,
    eval_pairs: Iterable[Mapping] | Mapping[str, Iterable[Mapping]] | None = None,
    eval_every: int | None = None,
    chat_template_kwargs: Mapping | None = None,
    accumulate: int | None = None,
    progress: bool = True,
    **options,
) -> list[dict]:
    """Teach a policy, in place, to prefer the chosen completions.

    Args:
        policy: a causal language model, usually fine-tuned on the chosen completions,
            also with trainable adapters.
        pairs: any data set of pairs, see
            :func:`alignlab.training.pairs.encode_pairs`. For "kto" they are taken
            apart; it also takes unpaired rows, see
            :func:`alignlab.training.kto.encode_unpaired`. Texts that do not fit into
            the policy's context are left out, and a warning counts them. Refused are
            several splits at once, a prompt that its whole conversations do not begin
            with, and labels that say neither good nor bad.
        loss_type: a key of :data:`alignlab.objectives.PREFERENCE_LOSSES`.
        beta: strength, in each loss's own sense; see `alignlab.objectives`. With a
            reference, higher keeps closer to it.
        steps: ``steps * batch_size / len(pairs)`` is the number of epochs.
        batch_size: pairs per batch, or completions if the rows are unpaired. Higher
            makes each step steadier and more expensive.
        learning_rate: the peak; higher leaves the reference sooner, and less steadily.
        seed: fixes the order of the pairs, and dropout where there is any.
        disable_dropout: False trains with the policy's dropout. That adds noise to the
            log-ratios, and the loss no longer starts at log 2.
        reference: what the policy is held to: a model, or the folder or Hub id of one.
            None is the policy as it comes in. Its log-probabilities are computed once,
            before the first step, so that no second model is kept; "orpo" and "simpo"
            train without any.
        ref_log_probs: what :func:`alignlab.training.pairs.log_probs_of` gives for the
            reference and these pairs, so that several runs on the same pairs compute it
            once. "kto", "orpo" and "simpo" ignore it.
        eval_pairs: pairs to evaluate along the way, or several lists of them by name,
            such as ``{"train": ..., "held_out": ...}``.
        eval_every: steps between two evaluations, by default a tenth of all. The last
            step always has one.
        chat_template_kwargs: see :func:`alignlab.training.sft.encode`.
        accumulate: parts that each batch is computed in, one after the other; more take
            less memory and more time, and leave the result as it is. None takes as many
            as :func:`alignlab.training.parts.parts_of` finds; "kto", whose reference
            point is a mean over the whole batch, takes one.
        options: hyperparameters of the loss, as ``PREFERENCE_LOSSES`` lists them and
            `alignlab.objectives` explains them, and further arguments of
            :func:`alignlab.training.loop.train`.

    Returns:
        The history, one row per step, with the loss and the logs of
        :func:`preference_step` or :func:`alignlab.training.kto.kto_step`: of the policy
        before that step, on its batch. Rows with an evaluation also have, of the policy
        after the step and under the list's name ("eval" if it has none),
        ``eval/log_probs/chosen`` and ``.../rejected``, ``eval/log_ratios/chosen`` and
        ``.../rejected`` (means in nats per completion; the ratios are to the reference,
        whatever the loss) and ``eval/accuracies``, the share of pairs whose chosen
        completion has the higher log-ratio.

    Raises:
        AlignlabError: if the policy is no causal language model, nothing of it can be
            trained or the tokenizer has tokens that it lacks, a row lacks a column or
            none is left to learn from, the reference has another vocabulary, a model
            cannot read two completions in one row, or the loop raises one.
        ValueError: if the loss or a hyperparameter is unknown, a hyperparameter is out
            of range, or ``ref_log_probs`` are of another number of pairs.
    """
    names = {n for loss in PREFERENCE_LOSSES.values() for n in loss.hyperparameters}
    hyperparameters = {name: options.pop(name) for name in names & options.keys()}
    step = _step_of(loss_type, beta, hyperparameters)
    if loss_type == "kto" and (accumulate or 1) > 1:
        raise ValueError(
            f'accumulate is {accumulate}; for "kto" it must be 1, as the reference '
            "point is a mean over the whole batch"
        )
    require_causal_lm(policy)
    trained_parameters(policy)  # refuses a frozen one before the reference reads
    if isinstance(reference, str | Path):
        reference = _load_reference(reference)
    reference = policy if reference is None else reference
    if PREFERENCE_LOSSES[loss_type].reference or eval_pairs is not None:
        require_causal_lm(reference)
    require_vocabulary(policy, tokenizer)
    _require_same_vocabulary(policy, reference)
    max_length, pad = context_length(policy), pad_token_id(tokenizer)
    encode = partial(
        encode_pairs,
        tokenizer,
        max_length=max_length,
        chat_template_kwargs=chat_template_kwargs,
    )
    rows = rows_of(pairs, "pairs")
    if loss_type == "kto":
        examples, columns = kto_data(
            tokenizer, rows, reference, max_length, pad, chat_template_kwargs
        )
        if not is_unpaired(rows):
            batch_size *= 2  # completions, as many as the other losses see in a step
    else:
        examples = encode(rows)
        columns = {}
        if PREFERENCE_LOSSES[loss_type].reference:
            columns = _reference_columns(reference, examples, ref_log_probs, pad)
    layout = layout_for(policy, longest(examples))
    if accumulate is None and loss_type != "kto":
        lengths = [pair.length for pair in examples]
        accumulate = parts_of(policy, lengths, batch_size, options)
    if eval_pairs is not None:
        lists = eval_pairs if isinstance(eval_pairs, Mapping) else {"eval": eval_pairs}
        lists = {name: encode(rows) for name, rows in lists.items()}
        every = max(1, steps // 10) if eval_every is None else eval_every
        evaluate = _evaluation(policy, reference, lists, pad)
        options["on_log"] = _every(every, steps, evaluate, options.get("on_log"))
    return train(
        policy,
        batches(examples, columns, batch_size, seed, pad, layout, accumulate or 1),
        step,
        steps=steps,
        learning_rate=learning_rate,
        seed=seed,
        disable_dropout=disable_dropout,
        progress=progress,
        **{"description": loss_type, "weigh": number_of_pairs} | options,
    )


def preference_step(
    model: nn.Module,
    batch: dict[str, Tensor],
    loss_type: str = "sigmoid",
    beta: float = 0.1,
    **hyperparameters: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean loss of a batch of pairs, and what to log.

    Args:
        batch: what :func:`alignlab.training.pairs.batches` gives; for losses with a
            reference also its log-probabilities of the completions, ``ref_chosen`` and
            ``ref_rejected``, each (B,).
        loss_type, beta, hyperparameters: see :func:`train_dpo`.

    Returns:
        The loss in its own unit per pair, and the batch's means of
        ``log_probs/chosen`` and ``log_probs/rejected`` (nats per completion),
        ``rewards/chosen``, ``rewards/rejected`` and ``rewards/margins`` (implicit
        rewards; without a reference β times the mean log-probability of the tokens),
        and ``rewards/accuracies``, the share of pairs whose chosen completion has the
        higher reward. A tie counts one half; TRL counts it as wrong.

    Raises:
        ValueError: if a hyperparameter is out of range.
    """
    loss = PREFERENCE_LOSSES[loss_type]
    log_probs = pair_log_probs(model, batch)  # chosen and rejected, (B,) each
    tokens = batch["chosen_tokens"], batch["rejected_tokens"]
    if loss.reference:
        reference = batch["ref_chosen"], batch["ref_rejected"]
        hyperparameters |= dict(chosen_tokens=tokens[0], rejected_tokens=tokens[1])
        losses = dpo_loss(*log_probs, *reference, beta, loss_type, **hyperparameters)
        both = zip(log_probs, reference, strict=True)
        rewards = [implicit_reward(own, fixed, beta) for own, fixed in both]
    else:
        means = [own / count for own, count in zip(log_probs, tokens, strict=True)]
        losses = loss.function(*means, beta, **hyperparameters)
        rewards = [beta * mean for mean in means]
    return losses.mean(), _logs(*log_probs, *rewards)


def _logs(chosen, rejected, reward_chosen, reward_rejected) -> dict[str, Tensor]:
    means = torch.stack([chosen, rejected, reward_chosen, reward_rejected]).detach()
    names = [f"{name}/{side}" for name in ("log_probs", "rewards") for side in SIDES]
    logs = dict(zip(names, exact(means.mean(dim=1)), strict=True))
    logs["rewards/margins"] = logs["rewards/chosen"] - logs["rewards/rejected"]
    logs["rewards/accuracies"] = _accuracy(reward_chosen, reward_rejected)
    return logs


def _accuracy(chosen: Tensor, rejected: Tensor) -> Float[Tensor, ""]:
    return (0.5 + 0.5 * (chosen - rejected).detach().sign()).mean()


# --- Before the first step ------------------------------------------------------------


def _step_of(loss_type: str, beta: float, hyperparameters: dict) -> Callable:
    """The loss function for the loop. A hyperparameter out of range shows in a trial on
    one number, before the reference has read all pairs."""
    if loss_type not in PREFERENCE_LOSSES:
        raise ValueError(
            f"loss_type is {loss_type!r}; it can be one of {[*PREFERENCE_LOSSES]}"
        )
    loss = PREFERENCE_LOSSES[loss_type]
    for name in hyperparameters.keys() - set(loss.hyperparameters):
        own = ", ".join(loss.hyperparameters) or "none besides beta"
        raise ValueError(
            f"{name} is {hyperparameters[name]}, and loss_type {loss_type!r} has no "
            f"such hyperparameter; it has {own}"
        )
    number = torch.full((1,), -1.0)
    if not loss.pairs:
        is_good = torch.tensor([False])
        kto_loss(number, number, is_good, number[0], beta, **hyperparameters)
        return partial(kto_step, beta=beta, **hyperparameters)
    loss.function(number, number, beta, **hyperparameters)
    return partial(preference_step, loss_type=loss_type, beta=beta, **hyperparameters)


def _reference_columns(
    reference: nn.Module,
    pairs: Sequence[EncodedPair],
    ref_log_probs: tuple[Tensor, Tensor] | None,
    pad: int,
) -> dict[str, Tensor]:
    """The reference's log-probabilities of the pairs, unless they are given already."""
    if ref_log_probs is None:
        ref_log_probs = log_probs_of(reference, pairs, pad)
    counts = [len(log_probs) for log_probs in ref_log_probs]
    if counts != [len(pairs)] * 2:
        raise ValueError(
            f"ref_log_probs are of {counts[0]} chosen and {counts[1]} rejected "
            f"completions; there are {len(pairs)} pairs to learn from"
        )
    return dict(zip(("ref_chosen", "ref_rejected"), ref_log_probs, strict=True))


def _load_reference(name_or_path: str | Path) -> PreTrainedModel:
    try:
        return load_model(name_or_path)[0]
    except AlignlabError as error:
        raise AlignlabError(
            f"reference is {str(name_or_path)!r}, which cannot be loaded: "
            f"{error.message}",
            error.remedy,
        ) from error


def _require_same_vocabulary(policy: nn.Module, reference: nn.Module) -> None:
    models = policy, reference
    own, other = (len(model.get_input_embeddings().weight) for model in models)
    if own != other:
        raise AlignlabError(
            f"The reference has a vocabulary of {other} tokens and the policy one of "
            f"{own}: their log-probabilities are of different texts.",
            "Pass the model that the policy came from, or none.",
        )


# --- Evaluating pairs along the way ---------------------------------------------------


def _evaluation(
    policy: nn.Module,
    reference: nn.Module,
    lists: Mapping[str, Sequence[EncodedPair]],
    pad: int,
) -> Callable[[], dict[str, float]]:
    """A function that measures the policy on each list of pairs against the reference,
    which reads them now."""
    before = {
        name: log_probs_of(reference, pairs, pad) for name, pairs in lists.items()
    }

    def evaluate() -> dict[str, float]:
        metrics = {}
        for name, pairs in lists.items():
            now = log_probs_of(policy, pairs, pad)
            both = zip(now, before[name], strict=True)
            ratios = [log_probs - ref for log_probs, ref in both]
            for i, side in enumerate(SIDES):
                metrics[f"{name}/log_probs/{side}"] = now[i].mean().item()
                metrics[f"{name}/log_ratios/{side}"] = ratios[i].mean().item()
            metrics[f"{name}/accuracies"] = _accuracy(*ratios).item()
        return metrics

    return evaluate


def _every(every: int, steps: int, evaluate, then: Callable | None) -> Callable:
    """An ``on_log`` that evaluates at every so many steps, and at the last."""

    def on_log(row: dict) -> None:
        if row["step"] % every == 0 or row["step"] == steps:
            row |= evaluate()
        if then is not None:
            then(row)

    return on_log
