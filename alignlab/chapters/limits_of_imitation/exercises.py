"""Exercises of notebook 02: confidence in a whole reply, early stopping, the interval
of a rate."""

import math
from typing import TYPE_CHECKING

from alignlab.course.checks import (
    Case,
    Exercise,
    Misfit,
    tensor,
)

if TYPE_CHECKING:
    from torch import Tensor

Z = 1.959963984540054  # of the standard normal, 2.5% are above


# --- 02.3: Wilson's interval ------------------------------------------------------


def _wilson_cases() -> list[Case]:
    """Rates inside, near and at the ends."""
    import torch

    from alignlab.evaluation.intervals import wilson_interval

    cases = []
    for correct, n in ((3, 10), (0, 12), (47, 50)):
        _, low, high = wilson_interval(correct, n)
        limits = torch.tensor([low, high], dtype=torch.float64)
        cases.append(Case({"correct": correct, "n": n}, limits))
    return cases


def _read_limits(output, correct, n) -> "Tensor":
    notes = {
        (): "returns one number: return two, low and high",
        (3,): "returns three numbers: return low and high alone",
    }
    return tensor(output, (2,), notes)


def _wilson_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    correct, n = case.args.values()
    rate = correct / n

    def limits(middle: float, half: float) -> "Tensor":
        return torch.tensor([middle - half, middle + half], dtype=torch.float64)

    def wilson(z=Z, spread=None) -> "Tensor":
        spread = rate * (1 - rate) / n if spread is None else spread
        half = z * math.sqrt(spread + z**2 / (4 * n**2)) / (1 + z**2 / n)
        return limits((rate + z**2 / (2 * n)) / (1 + z**2 / n), half)

    middle = (rate + Z**2 / (2 * n)) / (1 + Z**2 / n)
    wald = Z * math.sqrt(rate * (1 - rate) / n)
    right = case.expected
    return {
        "the normal interval: it has no width at 0 of n, and leaves [0, 1] near it": [
            limits(rate, wald),
            limits(rate, wald).clamp(0, 1),
        ],
        "90%, not 95%: z is 1.96, as 2.5% are left out on either side": [
            wilson(1.6448536)
        ],
        "z left out: this is one standard error": [wilson(1.0)],
        "not pulled to the middle: the interval's centre is (p + z²/2n)/(1 + z²/n)": [
            limits(rate, float(right[1] - right[0]) / 2)
        ],
        "the normal width around Wilson's centre: under the root, z²/4n² is added": [
            limits(middle, wald),
            limits(middle, wald / (1 + Z**2 / n)),
        ],
        "not divided by 1 + z²/n: centre and width both are": [
            limits(
                rate + Z**2 / (2 * n),
                Z * math.sqrt(rate * (1 - rate) / n + Z**2 / (4 * n**2)),
            )
        ],
        "high before low": [right.flip(0)],
        "in percent: rates are shares from 0 to 1": [100 * right],
        "zeros: an interval is never empty": [torch.zeros_like(right)],
    }


# --- 02.1: the probability of a whole reply ---------------------------------------


def _sure_cases() -> list[Case]:
    """Replies of unequal length; what stands on prompt and padding is not 0."""
    import torch

    cases = []
    for seed, masks in (
        (0, [[0, 0, 1, 1, 1, 0], [0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]),
        (1, [[1, 1, 1, 1], [0, 0, 1, 0]]),
        (2, [[0, 1, 1, 1, 1, 0, 0]]),
    ):
        random = torch.Generator().manual_seed(seed)
        mask = torch.tensor(masks)
        log_probs = -torch.rand(mask.shape, dtype=torch.float64, generator=random) - 0.1
        args = dict(log_probs=log_probs, mask=mask)
        cases.append(Case(args, (log_probs * mask).sum(1).exp()))
    return cases


def _read_sure(output, log_probs, mask) -> "Tensor":
    notes = {
        (): "one number for the whole batch: each row is a reply of its own",
        tuple(log_probs.shape): "one number a token: a reply's tokens have to come "
        "together, so multiply their probabilities",
    }
    return tensor(output, (len(log_probs),), notes)


def _sure_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    log_probs, mask = case.args.values()
    right, length = case.expected, mask.sum(1)
    mean = (log_probs * mask).sum(1) / length
    tokens = log_probs.exp() * mask
    return {
        "prompt and padding count: only tokens with mask 1 are the reply": [
            log_probs.sum(1).exp()
        ],
        "the mean over tokens: this is a token's probability, and no longer falls "
        "with the reply's length": [mean.exp()],
        "no exponential: this is still a logarithm": [right.log()],
        "mean of the tokens' probabilities: they all have to come, so multiply": [
            tokens.sum(1) / length
        ],
        "sum of probabilities: it can exceed 1; sum the logarithms": [tokens.sum(1)],
        "perplexity: its inverse, and by token, goes up as a model gets surer": [
            (-mean).exp()
        ],
        "sign flipped: a probability is at most 1": [1 / right],
        "the least sure token: the others have to come as well": [
            log_probs.masked_fill(mask == 0, 0.0).amin(1).exp()
        ],
        "one minus it: that is how unsure the model was": [1 - right],
        "zeros: no reply that was given has probability 0": [torch.zeros_like(right)],
    }


# --- 02.2: early stopping without hindsight ---------------------------------------


def _stop_cases() -> list[Case]:
    """Looks by questions; in the first case two looks are equally good on the half
    that picks, and not on the other."""
    import torch

    cases = []
    for seed, looks, questions in ((0, 5, 40), (1, 7, 30), (2, 4, 60)):
        random = torch.Generator().manual_seed(seed)
        right = (torch.rand(looks, questions, generator=random) < 0.5).long()
        right[1, ::2] = (torch.rand(questions // 2, generator=random) < 0.8).long()
        right[2, 1::2] = (torch.rand(questions // 2, generator=random) < 0.8).long()
        right[-1, 1::2] = 0
        right[-1, 1:6:2] = 1
        right[0, ::2] = 0
        if seed == 0:
            right[3, ::2] = right[1, ::2]
            right[3, 1::2] = 1 - right[1, 1::2]
        cases.append(Case({"right": right}, _stop(right)))
    return cases


def _stop(right, picks=slice(0, None, 2), measures=slice(1, None, 2)) -> "Tensor":
    import torch

    accuracy = right.double()
    look = int(accuracy[:, picks].mean(1).argmax())
    measured = accuracy[:, measures].mean(1)
    return torch.stack(
        [torch.tensor(float(look)).double(), measured[look] - measured[-1]]
    )


def _read_stop(output, right) -> "Tensor":
    if not isinstance(output, tuple):
        raise Misfit("return a pair, (look, drop)")
    return tensor(output, (2,))


def _stop_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    (right,) = case.args.values()
    even, odd, every = slice(0, None, 2), slice(1, None, 2), slice(None)
    expected, accuracy = case.expected, right.double()
    one = torch.tensor([1.0, 0.0], dtype=torch.float64)
    peak = accuracy[:, odd].mean(1).amax() - accuracy[-1, odd].mean()
    last = len(right) - 1 - int(accuracy[:, even].mean(1).flip(0).argmax())
    later = accuracy[last, odd].mean() - accuracy[-1, odd].mean()
    mistakes = {
        "picked and measured on the same questions: a peak is high by luck where it "
        "was picked, so the drop is too large": [_stop(right, even, even)],
        "picked and measured on all questions: a peak is high by luck where it was "
        "picked": [_stop(right, every, every)],
        "the halves are exchanged: questions 0, 2, 4 ... pick": [
            _stop(right, odd, even)
        ],
        "sign flipped: a drop is the accuracy at the stop minus that at the end": [
            expected * torch.tensor([1.0, -1.0])
        ],
        "counted from 1: the first look is number 0": [expected + one],
        "the other half's own peak: that one was picked there as well": [
            torch.stack([expected[0], peak])
        ],
        "the last of equal looks: the first one trains less": [
            torch.stack([torch.tensor(float(last)).double(), later])
        ],
        "zeros: something is lost between the peak and the end": [
            torch.zeros_like(expected)
        ],
    }
    # A case in which a mistake happens to be right says nothing of it.
    return {
        message: outputs
        for message, outputs in mistakes.items()
        if not torch.allclose(outputs[0], expected)
    }


# --- 02.4: the area under an ROC curve --------------------------------------------


def _auc_cases() -> list[Case]:
    """Scores with ties between the two groups, and groups of unequal size."""
    import torch

    cases = []
    for seed, (n, m), shift in ((0, (6, 4), 2), (1, (5, 9), 1), (2, (7, 5), 3)):
        random = torch.Generator().manual_seed(seed)
        benign = torch.randint(-8, 0, (m,), generator=random).double()
        harmful = torch.randint(-8, 0, (n,), generator=random).double() + shift
        harmful[0] = benign[0]  # a tie, whatever was drawn
        args = dict(harmful=harmful, benign=benign)
        cases.append(Case(args, _auc(harmful, benign, 0.5)))
    return cases


def _auc(harmful, benign, tie: float) -> "Tensor":
    difference = harmful[:, None] - benign[None, :]
    return ((difference > 0) + tie * (difference == 0)).double().mean()


def _read_auc(output, harmful, benign) -> "Tensor":
    notes = {
        (len(harmful), len(benign)): "a number a pair: take the mean over all pairs",
        (len(harmful),): "one number a harmful request: take the mean over them, too",
    }
    return tensor(output, (), notes)


def _auc_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    harmful, benign = case.args.values()
    right, pairs = case.expected, len(harmful) * len(benign)
    n = min(len(harmful), len(benign))
    mistakes = {
        "ties count nothing: they count half": [_auc(harmful, benign, 0.0)],
        "ties count in full: they count half": [_auc(harmful, benign, 1.0)],
        "the sides are exchanged: the harmful request is to have the higher score": [
            1 - right
        ],
        "a count: divide by the number of pairs": [right * pairs],
        "in percent: it is a share from 0 to 1": [100 * right],
        "the difference of the means: only which of two scores is higher counts": [
            harmful.mean() - benign.mean()
        ],
        "request by request: every harmful one is compared with every benign one": [
            (harmful[:n] > benign[:n]).double().mean()
            + 0.5 * (harmful[:n] == benign[:n]).double().mean()
        ],
        "zeros: some harmful request has the higher score": [torch.zeros_like(right)],
    }
    return {
        message: outputs
        for message, outputs in mistakes.items()
        if not torch.allclose(outputs[0], right)
    }


# --- The exercises ----------------------------------------------------------------

EXERCISES: dict[str, Exercise] = {
    "02.1": Exercise(
        "my_confidence(log_probs, mask)",
        _sure_cases,
        _read_sure,
        _sure_mistakes,
        "the probability of each reply as a whole",
        "logarithms of probabilities add up where probabilities multiply: sum those "
        "with mask 1 in each row, then take the exponential.",
    ),
    "02.2": Exercise(
        "my_early_stop(right)",
        _stop_cases,
        _read_stop,
        _stop_mistakes,
        "the same look and drop as the library's `early_stop` finds",
        "`right[:, ::2].mean(1)` picks the look; `right[:, 1::2].mean(1)`, there less "
        "what it is at the end, is the drop.",
    ),
    "02.3": Exercise(
        "my_wilson_interval(correct, n)",
        _wilson_cases,
        _read_limits,
        _wilson_mistakes,
        "the same limits as `alignlab.evaluation.intervals.wilson_interval`",
        "centre (p + z²/2n)/(1 + z²/n), half width z √(p(1-p)/n + z²/4n²)/(1 + z²/n), "
        "with z = 1.96 (`statistics.NormalDist().inv_cdf(0.975)` has more digits).",
    ),
    "02.4": Exercise(
        "my_auc(harmful, benign)",
        _auc_cases,
        _read_auc,
        _auc_mistakes,
        "the same area as the library's `area_under_roc`",
        "`harmful[:, None] - benign[None, :]` has the difference of every pair: above "
        "0 counts 1, 0 counts one half; then the mean.",
    ),
}
