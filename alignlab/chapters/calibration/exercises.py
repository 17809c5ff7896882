"""Checks of the exercises of notebooks 07 and 08: ECE, the optimum of a reward, a
temperature's loss, risk against coverage.

``checks`` holds what every check is made of; this file the cases and known mistakes.
"""

import math
from typing import TYPE_CHECKING

from alignlab.course.checks import Case, Exercise, _close, _tensor

if TYPE_CHECKING:
    from torch import Tensor


def _generator(seed: int):
    import torch

    return torch.Generator().manual_seed(seed)


def _told_apart(mistakes: dict[str, list["Tensor"]], case: Case):
    """Without the mistakes that happen to be right in this case."""
    return {
        message: outputs
        for message, outputs in mistakes.items()
        if not _close(outputs[0], case.expected)
    }


# --- 07.1: expected calibration error ---------------------------------------------


def _ece_cases() -> list[Case]:
    """Confidences that also lie on the edges, and at 0 and 1."""
    import torch

    cases = []
    for seed, n, bins in ((0, 40, 10), (1, 60, 5), (2, 25, 4)):
        random = _generator(seed)
        confidence = torch.rand(n, dtype=torch.float64, generator=random)
        confidence[:bins] = torch.arange(bins) / bins  # 0 and inner edges
        confidence[bins : bins + 4] = 1.0
        # Surer than right, but for the edges, which are right.
        right = torch.rand(n, dtype=torch.float64, generator=random) < 0.7 * confidence
        right[:bins], right[bins + 2] = True, True
        args = dict(confidence=confidence, correct=right.long(), n_bins=bins)
        cases.append(Case(args, torch.tensor(_ece(**args), dtype=torch.float64)))
    return cases


def _ece(confidence, correct, n_bins: int) -> float:
    from alignlab.calibration.metrics import expected_calibration_error

    return expected_calibration_error(confidence.numpy(), correct.numpy(), n_bins)


def _read_number(output, **args) -> "Tensor":
    items = tuple(next(iter(args.values())).shape)
    note = "not reduced to one number: returns shape {}"
    shapes = {items, items[:1], (1,), (args.get("n_bins", 0),)}
    return _tensor(output, (), {shape: note.format(shape) for shape in shapes})


def _ece_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    confidence, correct, bins = case.args.values()
    n, gap = len(confidence), confidence - correct.double()
    edge = torch.arange(bins + 1, dtype=torch.float64) / bins
    here = (torch.bucketize(confidence, edge) - 1).clamp(min=0)  # (low, high]
    above = torch.bucketize(confidence, edge, right=True) - 1  # [low, high)

    def summed(where=here, of=gap):
        """Sums of confidence - correct over each bin, one for 1.0 alone included."""
        return torch.zeros(bins + 1, dtype=torch.float64).index_add(0, where, of)

    sums, size = summed(), summed(of=torch.ones_like(gap))
    sums, size = sums[size > 0], size[size > 0]
    each = sums.abs() / size
    mistakes = {
        "confidence 1 lies in a bin of its own: bins are (low, high], so the last one "
        "holds it": [summed(above).abs().sum() / n],
        "confidence 1 is left out: the last bin holds it, bins are (low, high]": [
            summed(above, gap * (confidence < 1)).abs().sum() / n
        ],
        "confidence 0 is left out: the first bin holds it as well": [
            summed(of=gap * (confidence > 0)).abs().sum() / n
        ],
        "edges belong to the bin above: bins are (low, high]": [
            summed(above.clamp(max=bins - 1)).abs().sum() / n
        ],
        "plain mean over bins: a bin counts by how many predictions it holds": [
            each.mean(),
            each.sum() / bins,
        ],
        "the largest gap: that is the maximum calibration error": [each.max()],
        "squared gaps: ECE takes absolute values": [
            (size / n * each**2).sum(),
            (size / n * each**2).sum().sqrt(),
        ],
        "signed gaps: without absolute values bins make up for each other": [
            sums.sum() / n,
            -sums.sum() / n,
            sums.sum().abs() / n,
        ],
        "no bins: each prediction's own distance to 0 or 1 is counted": [
            gap.abs().mean()
        ],
        "not divided by the number of predictions": [sums.abs().sum()],
        "zero: that would be a calibrated model": [torch.zeros_like(case.expected)],
    }
    return _told_apart(mistakes, case)


# --- 07.2: what a reward makes of probabilities -----------------------------------


def _optimum_cases() -> list[Case]:
    import torch

    cases = []
    for seed, n, k, beta in ((0, 3, 4, 0.5), (1, 5, 3, 0.1), (2, 2, 6, 1.5)):
        random = _generator(seed)
        logits = torch.randn(n, k, dtype=torch.float64, generator=random)
        p = (1.5 * logits).softmax(1)
        right = (p.log() + p / beta).softmax(1)
        cases.append(Case(dict(p=p, beta=beta), right))
    return cases


def _read_optimum(output, p, beta) -> "Tensor":
    return _tensor(output, tuple(p.shape))


def _optimum_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    p, beta = case.args.values()
    raw = p * (p / beta).exp()
    return {
        "not normalised: the probabilities of an item's options sum to 1": [raw],
        "normalised over the items: each row sums to 1": [raw / raw.sum(0)],
        "normalised over everything: each row sums to 1": [raw / raw.sum()],
        "without the reference: π is proportional to p times the exponential": [
            (p / beta).softmax(1)
        ],
        "times β, not divided by it: the lower the price, the further it goes": [
            (p.log() + p * beta).softmax(1)
        ],
        "sign flipped: what is right more often earns more": [
            (p.log() - p / beta).softmax(1)
        ],
        "β left out": [(p.log() + p).softmax(1)],
        "a power of p: that is a temperature, the reward is p and not its logarithm": [
            (p.log() / beta).softmax(1),
            (p.log() * (1 + 1 / beta)).softmax(1),
        ],
        "log-probabilities: π itself is asked for": [case.expected.log()],
        "p as it was: nothing is tilted": [p],
        "all on the likeliest option: that is the limit for β = 0": [
            torch.nn.functional.one_hot(p.argmax(1), p.shape[1]).double()
        ],
    }


# --- 08.1: the loss of a temperature ----------------------------------------------


def _scaled_cases() -> list[Case]:
    import torch

    cases = []
    for seed, n, k, temperature in ((0, 7, 4, 2.5), (1, 5, 3, 0.6), (2, 9, 5, 1.7)):
        random = _generator(seed)
        logits = 2 * torch.randn(n, k, dtype=torch.float64, generator=random)
        labels = torch.randint(k, (n,), generator=random)
        right = torch.nn.functional.cross_entropy(logits / temperature, labels)
        args = dict(logits=logits, labels=labels, temperature=temperature)
        cases.append(Case(args, right))
    return cases


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
        "of the likeliest class: the label's probability is asked for": [
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
        random = _generator(seed)
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
    return _tensor(output, shape, {(): "one number: a risk for each coverage"})


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
    "07.1": Exercise(
        "my_ece(confidence, correct, n_bins)",
        _ece_cases,
        _read_number,
        _ece_mistakes,
        "the same as `alignlab.calibration.expected_calibration_error`",
        "bin b is (b/B, (b+1)/B], the first also holds 0. In each: mean confidence "
        "less share that is right, its absolute value, weighted by the bin's share of "
        "the items.",
    ),
    "07.2": Exercise(
        "my_optimum(p, beta)",
        _optimum_cases,
        _read_optimum,
        _optimum_mistakes,
        "the policy that earns most at this price of KL",
        "multiply each probability by exp(p / β), then divide each row by its sum.",
    ),
    "08.1": Exercise(
        "my_scaled_nll(logits, labels, temperature)",
        _scaled_cases,
        _read_number,
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
