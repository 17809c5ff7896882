"""Ensembles: dropout at prediction, models of several seeds, several wordings of a
question. Where the members disagree, their mean is less sure.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from alignlab.calibration.checks import (
    SINGLE,
    as_array,
    in_full_precision,
    is_half,
)
from alignlab.calibration.elicitation import (
    Choices,
    Prompt,
    multiple_choice,
)
from alignlab.errors import AlignlabError

Predict = Callable[[nn.Module], Float[ndarray, "items classes"]]
SUBLAYERS = ("mlp", "self_attn", "attn")  # as decoder blocks of `transformers` name it


@contextmanager
def dropout(model: nn.Module, rate: float) -> Iterator[nn.Module]:
    """Within this context, a random share of each sublayer's output is set to 0 and the
    rest scaled up in proportion, in training mode or not.

    Most language models have no dropout; this adds it, for training and for prediction.
    Use it for both: a model that was not trained with dropout only gets worse by it.

    Args:
        model: a model of `transformers` whose blocks have an ``mlp`` or an attention
            named ``self_attn`` or ``attn``.
        rate: the share set to 0; higher drops more, 0 nothing.

    Raises:
        ValueError: if rate is not at least 0 and less than 1.
        AlignlabError: if no such sublayer is found.

    Source: Srivastava et al. (2014); placed as in Vaswani et al. (2017), section 5.4.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate is {rate}; it must be at least 0 and less than 1")

    def drop(module, inputs, output):
        first, *rest = output if isinstance(output, tuple) else (output,)
        first = F.dropout(first, rate, training=True)
        return (first, *rest) if isinstance(output, tuple) else first

    layers = [
        m for name, m in model.named_modules() if name.split(".")[-1] in SUBLAYERS
    ]
    if not layers:
        raise AlignlabError(
            f"{type(model).__name__} has no sublayer named {', '.join(SUBLAYERS)}.",
            "Take a model with one of these, or add dropout to its modules yourself.",
        )
    hooks = [module.register_forward_hook(drop) for module in layers]
    try:
        yield model
    finally:
        for hook in hooks:
            hook.remove()


def mc_dropout(
    model: nn.Module,
    predict: Predict,
    *,
    n_passes: int = 10,
    rate: float,
    seed: int = 0,
) -> Float[ndarray, "members items classes"]:
    """Probabilities from several passes, each with other entries dropped.

    Args:
        predict: ``predict(model)`` gives (n, K) probabilities, for instance
            ``lambda m: multiple_choice(m, tokenizer, prompts, letters).probabilities``.
        n_passes: members; each takes as long as a prediction.
        rate: see :func:`dropout`; use the rate of the training.
        seed: the same seed gives the same passes. torch's global state does not change.

    Raises:
        ValueError: if n_passes is not positive or rate is out of range.

    Source: Gal & Ghahramani (2016).
    """
    if n_passes < 1:
        raise ValueError(f"n_passes is {n_passes}; it must be at least 1")
    members = []
    with dropout(model, rate), torch.random.fork_rng():
        torch.manual_seed(seed)
        for _ in range(n_passes):
            members.append(_rows(predict(model), len(members)))
    return _stacked(members)


def deep_ensemble(
    models: Sequence[nn.Module], predict: Predict
) -> Float[ndarray, "members items classes"]:
    """Probabilities of models that differ in their seeds (weights, order of data).

    Raises:
        ValueError: if there is no model.

    Source: Lakshminarayanan et al. (2017).
    """
    if not len(models):
        raise ValueError("models is empty: an ensemble needs a member")
    return _stacked([_rows(predict(m), number) for number, m in enumerate(models)])


def prompt_ensemble(
    model, tokenizer, wordings: Sequence[Sequence[Prompt]], options, **settings
) -> Float[ndarray, "members items classes"]:
    """Probabilities of one model for several wordings of the prompts.

    Args:
        wordings: for each member its prompts, with the items in the same order.
        options, settings: as for ``multiple_choice``; the options are the same for
            every wording.

    Raises:
        ValueError: if there is no wording, they are of different numbers of items, or
            the items have different numbers of options; else as ``multiple_choice``.

    Source: Jiang et al. (2023), "Calibrating Language Models via Augmented Prompt
    Ensembles", for the idea.
    """
    if not len(wordings):
        raise ValueError("wordings is empty: an ensemble needs a member")
    return _stacked(
        [
            _rows(multiple_choice(model, tokenizer, prompts, options, **settings), m)
            for m, prompts in enumerate(wordings)
        ]
    )


def ensemble_probabilities(
    members: Float[ndarray, "members items classes"],
    how: Literal["arithmetic", "geometric"] = "arithmetic",
) -> Float[ndarray, "items classes"]:
    """One distribution per item from those of all members.

    Args:
        members: (M, n, K), rows summing to 1.
        how: "arithmetic" is the mean, which is never surer than the members on
            average; "geometric" the normalised mean of logarithms, which is surer and
            gives 0 to a class that has probability 0 for any member.

    Raises:
        ValueError: if members has another shape, rows do not sum to 1, ``how`` is
            unknown, or, with "geometric", every class has probability 0 for a member.
    """
    members = _checked(members)
    if how == "arithmetic":
        return members.mean(axis=0)
    if how != "geometric":
        raise ValueError(f'how is {how!r}; it can be "arithmetic" or "geometric"')
    with np.errstate(divide="ignore"):
        logs = np.log(members).mean(axis=0)
    top = logs.max(axis=1, keepdims=True)
    if not np.isfinite(top).all():
        first = int(np.flatnonzero(~np.isfinite(top[:, 0]))[0])
        raise ValueError(
            f"members[:, {first}] give every class probability 0 at least once"
        )
    shares = np.exp(logs - top)
    return shares / shares.sum(axis=1, keepdims=True)


class Uncertainty(NamedTuple):
    """In nats per item; ``total == expected + disagreement``."""

    total: Float[ndarray, "items"]  # entropy of the mean
    expected: Float[ndarray, "items"]  # mean entropy of the members
    disagreement: Float[ndarray, "items"]  # mean KL of the members to their mean


def ensemble_uncertainty(
    members: Float[ndarray, "members items classes"],
) -> Uncertainty:
    r"""The entropy of the ensemble, and how much of it is the members' disagreement.

    .. math:: H(\bar p) = \frac1M \sum_m H(p_m) + \frac1M \sum_m
        \mathrm{KL}(p_m \,\|\, \bar p)

    Uncertainty that all members share lies in the question; their disagreement lies in
    the models, and more data would reduce it.

    Raises:
        ValueError: if the shape is not (M, n, K) or rows do not sum to 1.

    Source: Depeweg et al. (2018).
    """
    members = _checked(members)
    total = _entropy(members.mean(axis=0))
    expected = _entropy(members).mean(axis=0)
    return Uncertainty(total, expected, np.maximum(total - expected, 0))


def _entropy(p: ndarray) -> ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.where(p > 0, p * np.log(p), 0.0).sum(axis=-1)


def _rows(probabilities, member: int) -> Float[ndarray, "items classes"]:
    """A member's prediction as numpy, also where it is a tensor."""
    if isinstance(probabilities, Choices):
        probabilities = probabilities.probabilities
    if isinstance(probabilities, (list, tuple)):
        lengths = sorted({len(row) for row in probabilities if np.ndim(row)})
        if len(lengths) > 1:
            raise ValueError(
                f"members[{member}] has items with {lengths[0]} to {lengths[-1]} "
                "options, and an ensemble needs the same number for every item: take "
                "the items of each number apart"
            )
    array = as_array(probabilities, f"members[{member}]")
    return in_full_precision(array) if is_half(probabilities) else array


def _stacked(members: list[ndarray]) -> Float[ndarray, "members items classes"]:
    for number, member in enumerate(members):
        if member.shape != members[0].shape:
            raise ValueError(
                f"members[{number}] has shape {member.shape} and members[0] "
                f"{members[0].shape}: each needs the same items and classes"
            )
    return np.stack(members)


def _checked(members) -> Float[ndarray, "members items classes"]:
    array = as_array(members, "members").astype(float, copy=False)
    if array.ndim != 3 or not array.size:
        raise ValueError(
            f"members have shape {array.shape}; expected (members, items, classes)"
        )
    array = in_full_precision(array) if is_half(members) else array
    sums = array.sum(axis=2, keepdims=True)
    wrong = ~(array >= 0) | ~(np.abs(sums - 1) < SINGLE)
    if wrong.any():
        member, item, _ = np.argwhere(wrong)[0]
        raise ValueError(
            f"members[{member}, {item}] are {array[member, item]}: probabilities are "
            "at least 0 and sum to 1"
        )
    return array
