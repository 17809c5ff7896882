"""Exercises of notebook 08: the loss of a temperature, risk against coverage."""

import math
from typing import TYPE_CHECKING

from alignlab.course.checks import (
    Case,
    Exercise,
    generator,
    scalar,
    tensor,
)

if TYPE_CHECKING:
    from torch import Tensor


# --- 08.1: the loss of a temperature ----------------------------------------------


def _scaled_cases() -> list[Case]:
    import torch

    cases = []
    for seed, n, k, temperature in ((0, 7, 4, 2.5), (1, 5, 3, 0.6), (2, 9, 5, 1.7)):
        random = generator(seed)
        logits = 2 * torch.randn(n, k, dtype=torch.float64, generator=random)
        labels = torch.randint(k, (n,), generator=random)
        right = torch.nn.functional.cross_entropy(logits / temperature, labels)
        args = dict(logits=logits, labels=labels, temperature=temperature)
        cases.append(Case(args, right))
    return cases


def _read_scaled(output, logits, labels, temperature) -> "Tensor":
    return scalar(output, {tuple(logits.shape), tuple(labels.shape), (1,)})


def _scaled_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch
    import torch.nn.functional as F

    logits, labels, t = case.args.values()
    right, p = case.expected, (logits / t).softmax(1)
    own = p.gather(1, labels[:, None])[:, 0]
    powered = logits.softmax(1) / t
    return {
        "times T, not divided by it: a higher temperature is less sure": [
            F.cross_entropy(logits * t, labels)
        ],
        "no temperature: the logits are used as they are": [
            F.cross_entropy(logits, labels)
        ],
        "the loss is divided, not the logits": [F.cross_entropy(logits, labels) / t],
        "probabilities are divided, not logits: they no longer sum to 1": [
            -powered.gather(1, labels[:, None]).log().mean()
        ],
        "softmax twice: the loss takes logits": [F.cross_entropy(p, labels)],
        "no softmax: raw logits are no log-probabilities": [
            -(logits / t).gather(1, labels[:, None]).mean()
        ],
        "sum, not mean: divide by the number of items": [right * len(labels)],
        "sign flipped: a loss is lower where what happened is likelier": [-right],
        "mean of probabilities: take the logarithm of each first": [
            -own.mean(),
            -own.mean().log(),
            1 - own.mean(),
        ],
        "of the likeliest class: take the label's probability": [
            -p.max(1).values.log().mean()
        ],
        "in bits: natural logarithms give nats": [right / math.log(2)],
        "zero: every answer would be right and sure": [torch.zeros_like(right)],
    }


# --- 08.2: risk against coverage --------------------------------------------------


def _risk_cases() -> list[Case]:
    import torch

    cases = []
    for seed, n in ((0, 9), (1, 14), (2, 23)):
        random = generator(seed)
        confidence = torch.rand(n, dtype=torch.float64, generator=random)
        correct = (
            torch.rand(n, dtype=torch.float64, generator=random) < confidence
        ).long()
        correct[confidence.argmax()] = 1
        correct[confidence.argmin()] = 0
        args = dict(confidence=confidence, correct=correct)
        cases.append(Case(args, _risks(1 - correct.double(), confidence)))
    return cases


def _risks(wrong: "Tensor", confidence: "Tensor", descending: bool = True) -> "Tensor":
    import torch

    order = confidence.argsort(descending=descending)
    answered = torch.arange(1, len(wrong) + 1, dtype=torch.float64)
    return wrong[order].cumsum(0) / answered


def _read_risk(output, confidence, correct) -> "Tensor":
    shape = tuple(confidence.shape)
    return tensor(output, shape, {(): "one number: a risk for each coverage"})


def _risk_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    confidence, correct = case.args.values()
    wrong = 1 - correct.double()
    order = confidence.argsort(descending=True)
    answered = torch.arange(1, len(wrong) + 1, dtype=torch.float64)
    return {
        "the least sure first: answer the surest ones first": [
            _risks(wrong, confidence, descending=False)
        ],
        "not sorted: the order of the items does not matter, that of their confidence "
        "does": [wrong.cumsum(0) / answered],
        "accuracy: risk is the share of wrong answers": [1 - case.expected],
        "divided by all items: risk is among those that were answered": [
            wrong[order].cumsum(0) / len(wrong)
        ],
        "not cumulative: risk is of all that is answered so far": [wrong[order]],
        "counts: divide by how many were answered": [wrong[order].cumsum(0)],
        "backwards: coverage grows from the first to the last": [case.expected.flip(0)],
        "what it expects, not what happened: risk is the share of wrong answers": [
            (1 - confidence[order]).cumsum(0) / answered
        ],
        "in the items' own order: put the risks in the order of coverage": [
            case.expected[order.argsort()]
        ],
        "zeros: nothing would ever be wrong": [torch.zeros_like(wrong)],
    }


# --- The exercises ----------------------------------------------------------------

EXERCISES: dict[str, Exercise] = {
    "08.1": Exercise(
        "my_scaled_nll(logits, labels, temperature)",
        _scaled_cases,
        _read_scaled,
        _scaled_mistakes,
        "the loss that `alignlab.calibration.TemperatureScaler` makes least",
        "divide the logits by T, take log_softmax over the classes, pick the label's, "
        "then minus the mean.",
    ),
    "08.2": Exercise(
        "my_risks(confidence, correct)",
        _risk_cases,
        _read_risk,
        _risk_mistakes,
        "the same risks as `alignlab.calibration.risk_coverage_curve`",
        "sort by falling confidence; at k the risk is the share of wrong answers among "
        "the first k.",
    ),
}
