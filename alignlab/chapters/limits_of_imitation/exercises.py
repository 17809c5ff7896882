"""Exercises of notebook 02: confidence in a whole reply, early stopping, the interval
of a rate."""

import math
from typing import TYPE_CHECKING

from alignlab.course.exercise import (
    Case,
    Exercise,
    close,
    generator,
    normal,
    scalar,
    tensor,
    told_apart,
)

if TYPE_CHECKING:
    from torch import Tensor

Z = 1.959963984540054  # of the standard normal, 2.5% are above


# --- 02.5: Wilson's interval ------------------------------------------------------


def _wilson_cases() -> list[Case]:
    """Rates inside, near and at the ends."""
    import torch

    from alignlab.evaluation.intervals import wilson_interval

    cases = []
    for correct, n, about in (
        (3, 10, "rates inside"),
        (0, 12, "a rate of 0"),
        (47, 50, "rates inside"),
        (8, 8, "a rate of 1"),
        (350, 1000, "many trials"),
    ):
        _, low, high = wilson_interval(correct, n)
        limits = torch.tensor([low, high], dtype=torch.float64)
        cases.append(Case({"correct": correct, "n": n}, limits, about))
    return cases


def _to_three_digits(got: "Tensor", expected: "Tensor") -> bool:
    """Also with z = 1.96, but not with 1.95 or 2."""
    return close(got, expected, tolerance=1e-4)


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
    mistakes = {
        "the normal interval: it has no width at 0 of n, and leaves [0, 1] near it": [
            limits(rate, wald),
            limits(rate, wald).clamp(0, 1),
        ],
        "90%, not 95%: z is 1.96, as 2.5% are left out on either side": [
            wilson(1.6448536)
        ],
        "99%, not 95%: z is 1.96, as 2.5% are left out on either side": [
            wilson(2.5758293)
        ],
        "z is 2: that is a rule of thumb, 1.96 leaves out 2.5% on either side": [
            wilson(2.0)
        ],
        "z not squared: z²/n and z²/4n² have squares": [
            limits(
                (rate + Z / (2 * n)) / (1 + Z / n),
                Z * math.sqrt(rate * (1 - rate) / n + Z / (4 * n**2)) / (1 + Z / n),
            ),
            limits(
                (rate + Z / (2 * n)) / (1 + Z**2 / n), float(right[1] - right[0]) / 2
            ),
        ],
        "4n, not 4n², under the root": [
            limits(
                middle,
                Z * math.sqrt(rate * (1 - rate) / n + Z**2 / (4 * n)) / (1 + Z**2 / n),
            )
        ],
        "divided by n - 1: the variance of a rate is p(1-p)/n": [
            wilson(spread=rate * (1 - rate) / (n - 1))
        ],
        "the root left out: it is over p(1-p)/n + z²/4n²": [
            limits(
                middle,
                Z * (rate * (1 - rate) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n),
            )
        ],
        "cut off at 0 and 1 around the rate: the centre moves to the middle": [
            limits(rate, float(right[1] - right[0]) / 2).clamp(0, 1)
        ],
        "centre and half width: return centre less and centre plus half": [
            torch.tensor([middle, float(right[1] - middle)]).double()
        ],
        "Agresti and Coull's interval: the same centre, but another width": [
            limits(middle, Z * math.sqrt(middle * (1 - middle) / (n + Z**2)))
        ],
        "z left out: this is one standard error": [wilson(1.0)],
        "not pulled to the middle: the interval's centre is (p + z²/2n)/(1 + z²/n)": [
            limits(rate, float(right[1] - right[0]) / 2)
        ],
        "the normal width around Wilson's centre: under the root, z²/4n² is added": [
            limits(middle, wald),
            limits(middle, wald / (1 + Z**2 / n)),
        ],
        "n left out under the root: it is over p(1-p)/n + z²/4n²": [
            wilson(spread=rate * (1 - rate))
        ],
        "not divided by 1 + z²/n: centre and width both are": [
            limits(rate + Z**2 / (2 * n), float(right[1] - right[0]) / 2),
            limits(middle, float(right[1] - right[0]) / 2 * (1 + Z**2 / n)),
            limits(
                rate + Z**2 / (2 * n),
                Z * math.sqrt(rate * (1 - rate) / n + Z**2 / (4 * n**2)),
            ),
        ],
        "high before low": [right.flip(0)],
        "in percent: rates are shares from 0 to 1": [100 * right],
        "zeros: an interval is never empty": [torch.zeros_like(right)],
    }
    return told_apart(mistakes, case)


# --- 02.2: the probability of a whole reply ---------------------------------------


def _sure_cases() -> list[Case]:
    """Replies of unequal length; what stands on prompt and padding is not 0."""
    import torch

    cases = []
    for seed, masks, about in (
        (
            0,
            [[0, 0, 1, 1, 1, 0], [0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]],
            "replies of unequal length",
        ),
        (1, [[1, 1, 1, 1], [0, 0, 1, 0]], "replies of unequal length"),
        (2, [[0, 1, 1, 1, 1, 0, 0]], "a batch of one row"),
    ):
        random = generator(seed)
        mask = torch.tensor(masks)
        log_probs = -torch.rand(mask.shape, dtype=torch.float64, generator=random) - 0.1
        args = dict(log_probs=log_probs, mask=mask)
        cases.append(Case(args, (log_probs * mask).sum(1).exp(), about))
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
    last = (mask * torch.arange(mask.shape[1])).argmax(1)
    mistakes = {
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
        "inverted: the mask is 1 on the reply": [(log_probs * (1 - mask)).sum(1).exp()],
        "the exponential comes last: masked tokens have probability 1, not 0": [
            (log_probs.exp() * mask).prod(1)
        ],
        "the surest token: the others have to come as well": [tokens.amax(1)],
        "one token only: a reply's tokens have to come together": [
            log_probs[torch.arange(len(mask)), mask.argmax(1)].exp(),
            log_probs[:, -1].exp(),
            log_probs[torch.arange(len(mask)), last].exp(),
        ],
        "divided by all columns: this is a mean, of tokens and of padding": [
            (log_probs * mask).mean(1).exp()
        ],
        "the batch multiplied up: each row is a reply of its own": [
            right.prod().expand_as(right),
            (log_probs * mask).sum(0)[: len(right)].exp()
            if mask.shape[1] >= len(right) > 1
            else right * math.nan,
        ],
        "normalised over the batch: each row is a reply of its own": [
            right / right.sum()
        ],
        "the mask is moved by one: here token and log-probability share a column": [
            (log_probs[:, :-1] * mask[:, 1:]).sum(1).exp(),
            (log_probs[:, 1:] * mask[:, :-1]).sum(1).exp(),
        ],
    }
    return told_apart(mistakes, case)


# --- 02.1: early stopping without hindsight ---------------------------------------


def _stop_cases() -> list[Case]:
    """Looks by questions; in the first case two looks are equally good on the half
    that picks, and not on the other."""
    import torch

    cases = []
    for seed, looks, questions, peak, about in (
        (0, 5, 40, 1, "two looks that are equally good"),
        (1, 7, 30, 4, "looks that differ"),
        (2, 4, 60, 2, "looks that differ"),
        (3, 6, 21, 3, "an odd number of questions"),
    ):
        random = generator(seed)
        right = (torch.rand(looks, questions, generator=random) < 0.5).long()
        good = (torch.rand(questions, generator=random) < 0.8).long()
        right[peak, ::2], right[peak - 1, 1::2] = good[::2], good[1::2]
        right[-1, 1::2] = 0
        right[-1, 1:6:2] = 1
        right[0, ::2] = 0
        if seed == 0:
            right[3, ::2] = right[1, ::2]  # the peak once more
            right[3, 1::2] = 1 - right[1, 1::2]
        cases.append(Case({"right": right}, _stop(right), about))
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
    wanted = "return a pair, (look, drop)"
    return tensor(output, (2,), {(): wanted, (len(right),): wanted, (3,): wanted})


def _stop_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    (right,) = case.args.values()
    even, odd, every = slice(0, None, 2), slice(1, None, 2), slice(None)
    expected, accuracy = case.expected, right.double()
    one_look = torch.tensor([1.0, 0.0], dtype=torch.float64)
    look, n, measured = int(expected[0]), right.shape[1], accuracy[:, odd].mean(1)
    worst = accuracy[:, even].mean(1).argmin()
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
        "counted from 1: the first look is number 0": [expected + one_look],
        "the other half's own peak: that one was picked there as well": [
            torch.stack([expected[0], peak])
        ],
        "the last of equal looks: the first one trains less": [
            torch.stack([torch.tensor(float(last)).double(), later])
        ],
        "zeros: something is lost between the peak and the end": [
            torch.zeros_like(expected)
        ],
        "the halves of the table: questions 0, 2, 4 ... pick, not the first half": [
            _stop(right, slice(0, n // 2), slice(n // 2, None))
        ],
        "measured on all questions: those that picked have been lucky already": [
            _stop(right, even, every)
        ],
        "counts, not accuracies: divide by the number of questions": [
            expected * torch.tensor([1.0, accuracy[0, odd].numel()])
        ],
        "divided by all questions: only the odd ones are measured": [
            expected * torch.tensor([1.0, accuracy[0, odd].numel() / n])
        ],
        "less than the first look: the drop is what is lost from there to the end": [
            torch.stack(
                [expected[0], accuracy[look, odd].mean() - accuracy[0, odd].mean()]
            )
        ],
        "the accuracy at the stop: take off that of the last epoch": [
            torch.stack([expected[0], accuracy[look, odd].mean()])
        ],
        "the end on other questions: both accuracies are of questions 1, 3, 5 ...": [
            torch.stack(
                [expected[0], accuracy[look, odd].mean() - accuracy[-1, even].mean()]
            ),
            torch.stack(
                [expected[0], accuracy[look, odd].mean() - accuracy[-1].mean()]
            ),
        ],
        "the drop comes second: return (look, drop)": [expected.flip(0)],
        "the worst look: take that with the highest accuracy": [
            torch.stack([worst.double(), measured[worst] - measured[-1]])
        ],
        "questions and looks exchanged: each row is a look": [
            _stop(right.T.contiguous())
        ],
        "the drop as a share of the accuracy at the stop: return the difference": [
            torch.stack([expected[0], (measured[look] - measured[-1]) / measured[look]])
        ],
        "counted from the end: the first look is number 0": [
            expected - len(right) * one_look
        ],
        "in percent: accuracies are shares from 0 to 1": [
            expected * torch.tensor([1.0, 100.0])
        ],
    }
    return told_apart(mistakes, case)


# --- 02.6: the area under an ROC curve --------------------------------------------


def _auc_cases() -> list[Case]:
    """Scores with ties between the two groups, and groups of unequal size."""
    import torch

    cases = []
    for seed, (n, m), shift, about in (
        (0, (6, 4), 2, "ties"),
        (1, (5, 9), 1, "ties"),
        (2, (7, 5), 3, "ties"),
        (3, (1, 4), 2, "a single harmful request"),
    ):
        random = generator(seed)
        benign = torch.randint(-8, 0, (m,), generator=random).double()
        harmful = torch.randint(-8, 0, (n,), generator=random).double() + shift
        harmful[0] = benign[0]  # a tie, whatever was drawn
        args = dict(harmful=harmful, benign=benign)
        cases.append(Case(args, _auc(harmful, benign, 0.5), about))
    harmful, benign = normal(4, 6) + 1, normal(5, 8)
    args = dict(harmful=harmful, benign=benign)
    return [*cases, Case(args, _auc(harmful, benign, 0.5), "scores without ties")]


def _auc(harmful, benign, tie: float) -> "Tensor":
    difference = harmful[:, None] - benign[None, :]
    return ((difference > 0) + tie * (difference == 0)).double().mean()


def _read_auc(output, harmful, benign) -> "Tensor":
    shapes = [(len(harmful), len(benign)), (len(harmful),), (len(benign),)]
    return scalar(output, shapes, "take the mean over all pairs")


def _auc_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    harmful, benign = case.args.values()
    right, pairs = case.expected, len(harmful) * len(benign)
    n, both = min(len(harmful), len(benign)), torch.cat([harmful, benign])
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
        "from -1 to 1: a pair the wrong way round counts 0, not -1": [2 * right - 1],
        "only the means are compared: compare every pair": [
            (harmful.mean() > benign.mean()).double()
        ],
        "all against all: a pair is one harmful and one benign request": [
            _auc(both, both, 0.5),
            _auc(harmful, both, 0.5),
        ],
        "against the median of the others: compare every pair": [
            (harmful > benign.median()).double().mean(),
            (harmful > benign.mean()).double().mean(),
        ],
        "against the best or the worst only: compare every pair": [
            (harmful > benign.max()).double().mean(),
            (harmful > benign.min()).double().mean(),
            (harmful >= benign.max()).double().mean(),
        ],
        "divided by the wrong number: there are H x B pairs": [
            right * pairs / len(harmful) ** 2,
            right * pairs / len(both) ** 2,
            right * pairs / len(harmful),
            right * pairs / len(benign),
        ],
        "the size of the differences: only which of two scores is higher counts": [
            (harmful[:, None] - benign).sigmoid().mean(),
            (harmful[:, None] - benign).relu().mean(),
        ],
        "odds: it is a share of all pairs": [right / (1 - right)],
        "the distance from chance: 0.5 is what a coin has": [right - 0.5],
    }
    return told_apart(mistakes, case)


# --- The exercises ----------------------------------------------------------------

EXERCISES: dict[str, Exercise] = {
    "02.1": Exercise(
        "my_early_stop(right)",
        _stop_cases,
        _read_stop,
        _stop_mistakes,
        "the same look and drop as the library's `early_stop` finds",
        hints=(
            (
                "The two halves of the questions have different jobs: one picks, "
                "the other measures. Which of them may the `argmax` see?"
            ),
            (
                "`right[:, ::2].mean(1)` picks the look; `right[:, 1::2].mean(1)`, "
                "there less what it is at the end, is the drop."
            ),
        ),
        minutes=15,
        stars=2,
        library=("alignlab.chapters.limits_of_imitation.analysis.early_stop",),
    ),
    "02.2": Exercise(
        "my_confidence(log_probs, mask)",
        _sure_cases,
        _read_sure,
        _sure_mistakes,
        "the probability of each reply as a whole",
        hints=(
            (
                "A reply's probability is a product over its tokens, and you have "
                "logarithms. Which tokens must not count?"
            ),
            (
                "Logarithms of probabilities add up where probabilities multiply: "
                "sum those with mask 1 in each row, then take the exponential."
            ),
        ),
        minutes=10,
        stars=1,
    ),
    "02.5": Exercise(
        "my_wilson_interval(correct, n)",
        _wilson_cases,
        _read_limits,
        _wilson_mistakes,
        "the same limits as `alignlab.evaluation.intervals.wilson_interval`",
        hints=(
            (
                "Where (p - q)² equals z² q(1 - q)/n, there is a quadratic equation "
                "for q. Which z leaves 2.5% on either side?"
            ),
            (
                "centre (p + z²/2n)/(1 + z²/n), half width z √(p(1-p)/n + "
                "z²/4n²)/(1 + z²/n), with z = 1.96."
            ),
        ),
        minutes=20,
        stars=2,
        agrees=_to_three_digits,
        library=("alignlab.evaluation.intervals.wilson_interval",),
    ),
    "02.6": Exercise(
        "my_auc(harmful, benign)",
        _auc_cases,
        _read_auc,
        _auc_mistakes,
        "the same area as the library's `area_under_roc`",
        hints=(
            (
                "How many pairs of a harmful and a benign request are there? Ask of "
                "each pair which of the two has the higher score."
            ),
            (
                "`harmful[:, None] - benign[None, :]` has the difference of every "
                "pair: above 0 counts 1, 0 counts one half; then the mean."
            ),
        ),
        minutes=10,
        stars=2,
        library=(
            "alignlab.chapters.limits_of_imitation.analysis.area_under_roc",
            "alignlab.calibration.metrics.auroc",
        ),
    ),
}
