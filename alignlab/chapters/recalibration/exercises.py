"""Exercises of notebook 08: the loss of a temperature, risk against coverage, focal
loss, a reward for stated confidence."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from alignlab.course.exercise import (
    Case,
    Exercise,
    generator,
    gradient_fault,
    normal,
    scalar,
    tensor,
    told_apart,
)

if TYPE_CHECKING:
    from torch import Tensor


# --- 08.1: the loss of a temperature ----------------------------------------------


def _scaled_cases() -> list[Case]:
    import torch

    cases = []
    for seed, n, k, temperature, about in (
        (0, 7, 4, 2.5, "a temperature above 1"),
        (1, 5, 3, 0.6, "a temperature below 1"),
        (2, 9, 5, 1.7, "a temperature above 1"),
        (3, 1, 4, 1.3, "a single item"),
    ):
        random = generator(seed)
        logits = 2 * torch.randn(n, k, dtype=torch.float64, generator=random)
        labels = torch.randint(k, (n,), generator=random)
        right = torch.nn.functional.cross_entropy(logits / temperature, labels)
        args = dict(logits=logits, labels=labels, temperature=temperature)
        cases.append(Case(args, right, about))
    return cases


def _read_scaled(output, logits, labels, temperature) -> "Tensor":
    shapes = {tuple(logits.shape), tuple(labels.shape), (len(labels), 1), (1,)}
    return scalar(output, shapes, "take the mean over items")


def _scaled_teaches(answer: Callable) -> str:
    def right(logits, labels, temperature):
        import torch

        return torch.nn.functional.cross_entropy(logits / temperature, labels)

    return gradient_fault(answer, right, _scaled_cases(), ["temperature"])


def _scaled_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch
    import torch.nn.functional as F

    logits, labels, t = case.args.values()
    right, p = case.expected, (logits / t).softmax(1)
    own = p.gather(1, labels[:, None])[:, 0]
    powered = logits.softmax(1) / t
    mistakes = {
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
        "normalised over the items: a softmax is over the classes": [
            -(logits / t).log_softmax(0).gather(1, labels[:, None]).mean()
        ],
        "a mean over the classes as well: pick the label's": [
            -(logits / t).log_softmax(1).mean()
        ],
        "divided by the number of classes: divide by that of the items": [
            right * len(labels) / logits.shape[1],
            right / logits.shape[1],
        ],
        "a power of T: divide the logits by T itself": [
            F.cross_entropy(logits / t**2, labels),
            F.cross_entropy(logits / t**0.5, labels),
            F.cross_entropy(logits / math.exp(t), labels),
            F.cross_entropy(logits / math.log(t), labels),
        ],
        "times T²: that scaling is for distillation": [right * t**2],
        "the loss is multiplied, not the logits divided": [
            F.cross_entropy(logits, labels) * t
        ],
        "smoothed labels: only the label's own probability counts": [
            F.cross_entropy(logits / t, labels, label_smoothing=s)
            for s in (0.05, 0.1, 0.2)
        ],
        "perplexity: take the logarithm": [right.exp()],
        "the Brier score: the exercise is the log loss": [
            (p - F.one_hot(labels, p.shape[1])).square().sum(1).mean(),
            (p - F.one_hot(labels, p.shape[1])).square().mean(),
        ],
        "each class against all others: a softmax, not a sigmoid": [
            -F.logsigmoid(logits / t).gather(1, labels[:, None]).mean(),
            F.binary_cross_entropy_with_logits(
                logits / t, F.one_hot(labels, p.shape[1]).double()
            ),
        ],
        "the entropy: what happened is in the labels": [-(p * p.log()).sum(1).mean()],
        "the wrong class: labels count from 0": [
            F.cross_entropy(logits / t, (labels + 1) % logits.shape[1]),
            F.cross_entropy(logits / t, (labels - 1) % logits.shape[1]),
        ],
    }
    return told_apart(mistakes, case)


# --- 08.6: risk against coverage --------------------------------------------------

MANY = "many items"


def _risk_cases() -> list[Case]:
    import torch

    cases = []
    for seed, n, about in ((0, 9, "few items"), (1, 14, MANY), (2, 23, MANY)):
        random = generator(seed)
        confidence = torch.rand(n, dtype=torch.float64, generator=random)
        correct = (
            torch.rand(n, dtype=torch.float64, generator=random) < confidence
        ).long()
        correct[confidence.argmax()] = 1
        correct[confidence.argmin()] = 0
        args = dict(confidence=confidence, correct=correct)
        cases.append(Case(args, _risks(1 - correct.double(), confidence), about))
    single = dict(confidence=torch.tensor([0.7]).double(), correct=torch.tensor([0]))
    return [*cases, Case(single, torch.ones(1).double(), "a single item")]


def _risks(wrong: "Tensor", confidence: "Tensor", descending: bool = True) -> "Tensor":
    import torch

    order = confidence.argsort(descending=descending)
    answered = torch.arange(1, len(wrong) + 1, dtype=torch.float64)
    return wrong[order].cumsum(0) / answered


def _read_risk(output, confidence, correct) -> "Tensor":
    shape = tuple(confidence.shape)
    n = len(confidence)
    notes = {
        (): "one number: a risk for each coverage",
        (n - 1,): "one too few: coverage goes up to 1, when all N are answered",
        (n + 1,): "one too many: coverage begins at 1/N, when one is answered",
        (2, n): "two rows: return the risks alone",
    }
    remedy = "at coverage 1/N one item is answered, so nothing is divided by 0"
    return tensor(output, shape, notes, remedy)


def _risk_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    confidence, correct = case.args.values()
    wrong = 1 - correct.double()
    order = confidence.argsort(descending=True)
    answered = torch.arange(1, len(wrong) + 1, dtype=torch.float64)
    above = torch.tensor([float(wrong[confidence > c].mean()) if (confidence > c).any()
                          else 0.0 for c in confidence[order]]).double()  # fmt: skip
    mistakes = {
        "the least sure first: answer the surest ones first": [
            _risks(wrong, confidence, descending=False)
        ],
        "not sorted: the items come in the order of their confidence": [
            wrong.cumsum(0) / answered
        ],
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
        "the k-th is left out: at coverage k/N all of the k surest are answered": [
            above,
            torch.cat([torch.zeros(1).double(), case.expected[:-1]]),
        ],
        "divided by k - 1 or k + 1: k are answered": [
            wrong[order].cumsum(0) / (answered + 1),
            wrong[order].cumsum(0) / (answered - 1).clamp(min=1),
        ],
        "the overall risk everywhere: it is the last value only": [
            wrong.mean().expand_as(wrong)
        ],
        "the coverages: return the risks": [answered / len(wrong)],
        "the risk of what is left: count those that are answered": [
            _risks(wrong, confidence, descending=False).flip(0)
        ],
        "counts of right answers: divide, and take the wrong ones": [
            correct[order].double().cumsum(0)
        ],
        "one minus confidence: risk is what happened, sorted by confidence": [
            1 - confidence[order]
        ],
        "an area so far: return the risk itself": [
            case.expected.cumsum(0) / len(wrong),
            case.expected.cumsum(0) / answered,
        ],
        "sorted by what was right: only the confidence is known beforehand": [
            wrong.sort().values.cumsum(0) / answered,
            wrong.sort(descending=True).values.cumsum(0) / answered,
        ],
        "accuracy of the least sure first: both order and outcome are reversed": [
            1 - _risks(wrong, confidence, descending=False)
        ],
        "in percent: a risk is from 0 to 1": [100 * case.expected],
    }
    return told_apart(mistakes, case)


# --- 08.4: focal loss -------------------------------------------------------------


def _focal_cases() -> list[Case]:
    from alignlab.objectives import focal_loss

    cases = []
    for seed, n, k, gamma, about in (
        (0, 7, 4, 2.0, "γ = 2"),
        (1, 5, 3, 0.0, "γ = 0, which is cross-entropy"),
        (2, 9, 5, 0.5, "γ below 1"),
        (3, 1, 4, 8.0, "a single item"),
    ):
        logits, labels = 2 * normal(seed, n, k), normal(seed + 50, n, k).argmax(1)
        args = dict(logits=logits, labels=labels, gamma=gamma)
        cases.append(Case(args, focal_loss(**args), about))
    return cases


def _read_focal(output, logits, labels, gamma) -> "Tensor":
    shapes = {tuple(logits.shape), tuple(labels.shape), (len(labels), 1), (1,)}
    return scalar(output, shapes, "take the mean over items")


def _focal_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    logits, labels, gamma = case.args.values()
    log_all = logits.log_softmax(1)
    log_p = log_all.gather(1, labels[:, None])[:, 0]
    p, right = log_p.exp(), case.expected
    mistakes = {
        "sign flipped: a loss is lower where what happened is likelier": [-right],
        "sum, not mean: divide by the number of items": [right * len(labels)],
        "no focus: the factor (1 - p)^γ is left out": [-log_p.mean()],
        "the wrong factor: easy items count less, so it is (1 - p)^γ, not p^γ": [
            -(p**gamma * log_p).mean()
        ],
        "γ multiplies, it is a power": [
            -(gamma * (1 - p) * log_p).mean(),
            -((1 - gamma * p) * log_p).mean(),
            -gamma * log_p.mean(),
        ],
        "γ on the whole: only 1 - p is taken to its power": [
            (-(1 - p) * log_p).pow(gamma).mean(),
            (-log_p).pow(gamma).mean(),
        ],
        "γ = 2, whatever is given": [-((1 - p) ** 2 * log_p).mean()],
        "one power more or less": [
            -((1 - p) ** (gamma + 1) * log_p).mean(),
            -((1 - p) ** (gamma - 1) * log_p).mean(),
        ],
        "no logarithm: take the log-probability": [
            -((1 - p) ** gamma * p).mean(),
            ((1 - p) ** gamma).mean(),
            ((1 - p) ** (gamma + 1)).mean(),
        ],
        "the logarithm of 1 - p: take that of p": [
            -((1 - p) ** gamma * (1 - p).log()).mean()
        ],
        "the factor of the mean: each item has its own": [
            -((1 - p.mean()) ** gamma * log_p.mean()),
            -((1 - p) ** gamma).mean() * log_p.mean(),
        ],
        "divided by the sum of the factors: divide by the number of items": [
            -((1 - p) ** gamma * log_p).sum() / ((1 - p) ** gamma).sum()
        ],
        "over all classes: only the label's counts": [
            -((1 - log_all.exp()) ** gamma * log_all).sum(1).mean(),
            -((1 - log_all.exp()) ** gamma * log_all).mean(),
        ],
        "of the likeliest class: take the label's probability": [
            -((1 - log_all.amax(1).exp()) ** gamma * log_all.amax(1)).mean()
        ],
        "1 - log p in place of 1 - p": [-((1 - log_p) ** gamma * log_p).mean()],
        "normalised over the items: a softmax is over the classes": [
            _focal_of(logits.log_softmax(0).gather(1, labels[:, None]), gamma)
        ],
        "no softmax: raw logits are no log-probabilities": [
            -((1 - logits.gather(1, labels[:, None]).sigmoid()) ** gamma
              * logits.gather(1, labels[:, None])).mean()
        ],
        "in bits: natural logarithms give nats": [right / math.log(2)],
        "zero: nothing can be learnt": [torch.zeros_like(right)],
    }  # fmt: skip
    return told_apart(mistakes, case)


def _focal_of(log_p: "Tensor", gamma: float) -> "Tensor":
    return -((1 - log_p.exp()) ** gamma * log_p).mean()


def _focal_teaches(answer: Callable) -> str:
    from alignlab.objectives import focal_loss

    return gradient_fault(answer, focal_loss, _focal_cases(), ["logits"])


# --- 08.5: a reward with a Brier score --------------------------------------------


def _reward_cases() -> list[Case]:
    cases = []
    for seed, shape, weight, about in (
        (0, (8,), 1.0, "a weight of 1"),
        (1, (5,), 0.0, "a weight of 0"),
        (2, (6,), 4.0, "a weight above 1"),
        (3, (7,), -1.0, "a weight below 0"),
        (4, (9, 3), 0.5, "a table of attempts by questions, as the loop below has it"),
    ):
        right = (normal(seed, *shape) > 0).double()
        confidence = normal(seed + 50, *shape).sigmoid()
        args = dict(right=right, confidence=confidence, weight=weight)
        value = right - weight * (confidence - right).square()
        cases.append(Case(args, value, about))
    return cases


def _read_reward(output, right, confidence, weight) -> "Tensor":
    return tensor(output, tuple(right.shape), {(): "one number: each answer has its"})


def _reward_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    right, stated, weight = case.args.values()
    off = stated - right
    mistakes = {
        "sign flipped: the distance comes off": [right + weight * off.square()],
        "not squared: a distance alone pays best at 0 or 1": [
            right - weight * off.abs()
        ],
        "signed distances: the square makes both sides count": [right - weight * off],
        "the weight is left out": [right - off.square()],
        "the weight is squared as well": [right - (weight * off).square()],
        "the weight on what was right: it is that of the Brier score": [
            weight * right - off.square(),
            weight * (right - off.square()),
        ],
        "being right is left out": [-weight * off.square()],
        "being right alone: what was said counts as well": [right],
        "1 less the score: who is wrong starts from 0, not from 1": [
            1 - weight * off.square()
        ],
        "the log score: take the Brier score, a square": [
            right + weight * (right * stated.log() + (1 - right) * (1 - stated).log())
        ],
        "the square of the confidence: take it of its distance from right": [
            right - weight * stated.square(),
            right - weight * (1 - stated).square(),
        ],
        "the mean over answers: each has its own": [
            case.expected.mean().expand_as(off)
        ],
        "the score only where it is right: it counts where it is wrong, too": [
            right * (1 - weight * off.square()),
            right - weight * right * off.square(),
        ],
        "the score only where it is wrong: it counts where it is right, too": [
            right - weight * (1 - right) * off.square()
        ],
        "the square of it all: only the distance is squared": [
            (right - weight * off).square()
        ],
        "the distance from the wrong label: the score is of confidence less right": [
            right - weight * (stated - (1 - right)).square()
        ],
        "another power: the distance is squared": [
            right - weight * off.abs() ** 3,
            right - weight * off.abs().sqrt(),
        ],
        "half the square": [right - weight * off.square() / 2],
        "both options counted: that is twice the square": [
            right - 2 * weight * off.square()
        ],
        "pays for confidence: it is the distance that is taken off": [
            right + weight * stated,
            right * stated,
            right - weight * stated,
        ],
        "the other way round: less what was wrong": [1 - case.expected],
        "zeros: nothing can be learnt": [torch.zeros_like(off)],
    }
    return told_apart(mistakes, case)


# --- The exercises ----------------------------------------------------------------

EXERCISES: dict[str, Exercise] = {
    "08.1": Exercise(
        "my_scaled_nll(logits, labels, temperature)",
        _scaled_cases,
        _read_scaled,
        _scaled_mistakes,
        "the loss that `alignlab.calibration.TemperatureScaler` makes least",
        hints=(
            (
                "Three steps: scale, normalise, pick. What would go wrong if you "
                "normalised first?"
            ),
            (
                "Divide the logits by T, take log_softmax over the classes, pick "
                "the label's, then minus the mean."
            ),
        ),
        minutes=10,
        stars=1,
        also=_scaled_teaches,
        library=("alignlab.calibration.metrics.negative_log_likelihood",),
    ),
    "08.4": Exercise(
        "my_focal(logits, labels, gamma)",
        _focal_cases,
        _read_focal,
        _focal_mistakes,
        "the same loss and gradient as `alignlab.objectives.focal_loss`",
        hints=(
            (
                "Begin with cross-entropy, minus the label's log-probability. How "
                "much should an item count that is already likely?"
            ),
            (
                "With p the label's probability: minus (1 - p) to the power γ times "
                "log p; then the mean over items."
            ),
        ),
        minutes=15,
        stars=2,
        also=_focal_teaches,
        library=("alignlab.objectives.calibration.focal_loss",),
    ),
    "08.5": Exercise(
        "my_reward(right, confidence, weight)",
        _reward_cases,
        _read_reward,
        _reward_mistakes,
        "being right, less the weighted Brier score of what was said",
        hints=(
            (
                "What does one lose who says c, if the answer turns out right, and "
                "what if it turns out wrong?"
            ),
            (
                "Right is 0 or 1; take off the weight times the square of "
                "confidence less right."
            ),
        ),
        minutes=5,
        stars=1,
        tensor_for="the loop below takes its mean",
    ),
    "08.6": Exercise(
        "my_risks(confidence, correct)",
        _risk_cases,
        _read_risk,
        _risk_mistakes,
        "the same risks as `alignlab.calibration.risk_coverage_curve`",
        hints=(
            (
                "In which order are questions answered? Count the wrong ones as you "
                "go along."
            ),
            (
                "Sort by falling confidence; at k the risk is the share of wrong "
                "answers among the first k."
            ),
        ),
        minutes=15,
        stars=2,
        library=(
            "alignlab.calibration.metrics.risk_coverage_curve",
            "alignlab.calibration.metrics.area_under_risk_coverage",
        ),
    ),
}
