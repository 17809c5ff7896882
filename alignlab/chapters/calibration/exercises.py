"""Exercises of notebook 07: expected calibration error, what a reward makes of
probabilities, and the loss that trains it."""

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


# --- 07.1: expected calibration error ---------------------------------------------


def _ece_cases() -> list[Case]:
    """Confidences inside the bins, at 0 and 1, and on edges: there only where every
    float type holds an edge exactly, as it does 1/4, and not 1/10."""
    import torch

    cases = []
    for seed, n, bins, about in (
        (0, 40, 10, "ten bins"),
        (1, 60, 4, "confidences on the edges of bins, at 0 and at 1"),
        (2, 50, 8, "confidences on the edges of bins, at 0 and at 1"),
        (3, 6, 5, "empty bins (the mean of no items is NaN; leave these bins out)"),
        (4, 12, 1, "a single bin"),
    ):
        random = generator(seed)
        confidence = torch.rand(n, dtype=torch.float64, generator=random)
        inside = (confidence * bins) % 1 * 0.8 + 0.1
        confidence = ((confidence * bins).floor() + inside) / bins
        if bins == 5:
            confidence = confidence / 5 + 0.4  # in the middle bin alone
        right = torch.rand(n, dtype=torch.float64, generator=random) < 0.7 * confidence
        if bins in (4, 8):
            confidence[:bins] = torch.arange(bins).double() / bins
            confidence[bins : bins + 4] = 1.0
            # Surer than right, but for the edges, which are right.
            right[:bins], right[bins + 2] = True, True
        args = dict(confidence=confidence, correct=right.long(), n_bins=bins)
        cases.append(Case(args, torch.tensor(_ece(**args), dtype=torch.float64), about))
    return cases


def _ece(confidence, correct, n_bins: int) -> float:
    from alignlab.calibration.metrics import expected_calibration_error

    return expected_calibration_error(confidence.numpy(), correct.numpy(), n_bins)


def _read_ece(output, confidence, correct, n_bins) -> "Tensor":
    shapes = {tuple(confidence.shape), (1,), (n_bins,)} - {()}
    advice = "add up the bins, each weighted by its share of the items"
    empty = "an empty bin has no mean: leave it out"
    return scalar(output, shapes, advice, empty)


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
        "not divided by the number of predictions": [
            sums.abs().sum(),
            sums.abs().sum() / bins,
        ],
        "zero: that would be a calibrated model": [torch.zeros_like(case.expected)],
        "the number of predictions in a bin is left out: each weighs by its share": [
            each.sum()
        ],
        "bins of equal size: they are of equal width, (b/B, (b+1)/B]": [
            _of_equal_size(confidence, gap, bins)
        ],
        "accuracy left out: the distance is between it and the confidence": [
            confidence.mean(),
            summed(of=confidence).sum() / len(size) / n,
        ],
        "the middle of a bin, not its mean confidence": [
            (
                summed(of=(here.clamp(max=bins - 1) + 0.5) / bins - correct.double())
                .abs()
                .sum()
                / n
            )
        ],
        "the lower or the upper edge of a bin, not its mean confidence": [
            summed(of=edge_of / bins - correct.double()).abs().sum() / n
            for edge_of in (here, here + 1)
        ],
        "in percent: ECE is from 0 to 1": [100 * case.expected],
        "only where it is too sure: both signs count": [
            sums.clamp(min=0).sum() / n,
            (-sums).clamp(min=0).sum() / n,
        ],
        "one bin too many or too few: there are B": [
            _ece_with(case, bins + 1),
            _ece_with(case, max(bins - 1, 1)),
        ],
        "the last bin is left out: bins are numbered 0 to B - 1": [
            summed(of=gap * (here < bins - 1)).abs().sum() / n
        ],
        "the first bin is left out: bins are numbered 0 to B - 1": [
            summed(of=gap * (here > 0)).abs().sum() / n
        ],
        "the Brier score: ECE compares bins, not items": [
            (confidence - correct.double()).square().mean()
        ],
        "ten bins, whatever n_bins": [_ece_with(case, 10)],
    }
    return told_apart(mistakes, case)


def _ece_with(case: Case, n_bins: int) -> "Tensor":
    import torch

    return torch.tensor(_ece(**case.args | dict(n_bins=n_bins)), dtype=torch.float64)


def _of_equal_size(confidence, gap, bins: int) -> "Tensor":
    parts = gap[confidence.argsort()].tensor_split(bins)
    return sum(part.sum().abs() for part in parts) / len(gap)


# --- 07.2: what a reward makes of probabilities -----------------------------------


def _optimum_cases() -> list[Case]:
    import torch

    cases = []
    for seed, n, k, beta, about in (
        (0, 3, 4, 0.5, "several items"),
        (1, 5, 3, 0.1, "a low β"),
        (2, 2, 6, 1.5, "a β above 1"),
        (3, 1, 4, 0.4, "a single item"),
    ):
        random = generator(seed)
        logits = torch.randn(n, k, dtype=torch.float64, generator=random)
        p = (1.5 * logits).softmax(1)
        right = (p.log() + p / beta).softmax(1)
        cases.append(Case(dict(p=p, beta=beta), right, about))
    return cases


def _read_optimum(output, p, beta) -> "Tensor":
    notes = {
        (): "one number: return a probability for each option of each item",
        (len(p),): "one number an item: each option has a probability",
        tuple(p.shape[::-1]): "rows and columns exchanged: each row is an item",
    }
    return tensor(output, tuple(p.shape), notes)


def _optimum_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    p, beta = case.args.values()
    raw = p * (p / beta).exp()
    mistakes = {
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
        "log-probabilities: return π itself": [
            case.expected.log(),
            raw.log_softmax(1),
        ],
        "p as it was: nothing is tilted": [p],
        "all on the likeliest option: that is the limit for β = 0": [
            torch.nn.functional.one_hot(p.argmax(1), p.shape[1]).double()
        ],
        "all alike: a likelier option stays likelier": [
            torch.full_like(p, 1 / p.shape[1])
        ],
        "β takes part in the reference: it divides the reward only": [
            ((p.log() + p) / beta).softmax(1),
            (p.log() / beta + p).softmax(1),
            (p.log() * beta + p).softmax(1),
        ],
        "added, not multiplied: π is proportional to p times the exponential": [
            (p + (p / beta).exp()) / (p + (p / beta).exp()).sum(1, keepdim=True),
            (p + (p / beta).softmax(1)) / 2,
        ],
        "no exponential: p is multiplied by e^(p/β)": [
            p * p / (p * p).sum(1, keepdim=True),
            p * (1 + p / beta) / (p * (1 + p / beta)).sum(1, keepdim=True),
        ],
        "divided by the largest: each row sums to 1": [raw / raw.amax(1, keepdim=True)],
        "divided by the sum without p: each row sums to 1": [
            raw / (p / beta).exp().sum(1, keepdim=True)
        ],
        "divided by the number of options: divide by the sum of each row": [
            raw / p.shape[1]
        ],
        "the softmax of a softmax: probabilities are exponentiated again": [
            case.expected.softmax(1),
            raw.softmax(1),
        ],
        "to base 2: the exponential is e^(p/β)": [
            (p * 2 ** (p / beta)) / (p * 2 ** (p / beta)).sum(1, keepdim=True)
        ],
    }
    return told_apart(mistakes, case)


# --- 07.3: a reward over options, exactly ------------------------------------------


def _loss_cases() -> list[Case]:
    """Log-probabilities up to a constant a row, and rewards that are probabilities."""
    cases = []
    for seed, n, k, beta, about in (
        (0, 3, 4, 0.5, "several items"),
        (1, 5, 3, 0.1, "a low β"),
        (2, 2, 4, 2.0, "a β above 1"),
        (3, 1, 4, 0.7, "a single item"),
    ):
        log_probs, reference, logits = normal(seed, 3, n, k)
        args = dict(
            log_probs=log_probs - 6,
            reward=(2 * logits).softmax(1),
            reference=reference - 4,
            beta=beta,
        )
        cases.append(Case(args, _reward_loss(**args), about))
    return cases


def _reward_loss(log_probs, reward, reference, beta):
    from alignlab.chapters.calibration.tuning import reward_loss

    return reward_loss(log_probs, reward, reference, beta)


def _read_loss(output, log_probs, reward, reference, beta) -> "Tensor":
    shapes = {tuple(log_probs.shape), (len(log_probs),), (1,)}
    return scalar(output, shapes, "sum over options, then take the mean over items")


def _loss_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    log_probs, reward, reference, beta = case.args.values()
    policy, start = log_probs.log_softmax(1), reference.log_softmax(1)
    p, q = policy.exp(), start.exp()
    kl, earned = (p * (policy - start)).sum(1), (p * reward).sum(1)
    raw = log_probs.exp()
    mistakes = {
        "sign of the reward: the loss falls as the reward rises": [
            (beta * kl + earned).mean(),
            -case.expected,
        ],
        "sign of the KL: it is a price, so it raises the loss": [
            (-beta * kl - earned).mean()
        ],
        "no KL: nothing keeps the policy near the reference": [-earned.mean()],
        "β left out": [(kl - earned).mean()],
        "β on the reward: it is the price of KL": [(kl - beta * earned).mean()],
        "KL the other way round: the policy's own distribution weighs the logarithms": [
            (beta * (q * (start - policy)).sum(1) - earned).mean()
        ],
        "sum over items, not mean": [(beta * kl - earned).sum()],
        "mean over options: sum over them": [
            beta * (p * (policy - start)).mean() - earned.mean(),
            (beta * p * (policy - start) - p * reward).mean(),
        ],
        "not normalised among the options: take a log-softmax over each row": [
            (
                beta * (raw * (log_probs - reference)).sum(1) - (raw * reward).sum(1)
            ).mean()
        ],
        "cross-entropy: the reward is earned with the probability, not its logarithm": [
            (beta * kl - (policy * reward).sum(1)).mean(),
            -(policy * reward).sum(1).mean(),
        ],
        "expected log-ratio without its weights": [
            (beta * (policy - start).sum(1) - earned).mean()
        ],
        "zero: nothing can be learnt": [torch.zeros_like(case.expected)],
        "the reference is not normalised: take a log-softmax over each row": [
            (beta * (p * (policy - reference)).sum(1) - earned).mean()
        ],
        "the policy is not normalised: take a log-softmax over each row": [
            (beta * (raw * (log_probs - start)).sum(1) - (raw * reward).sum(1)).mean()
        ],
        "the log-softmax over the items: options are in a row": [
            _loss_of(log_probs.log_softmax(0), reward, reference.log_softmax(0), beta)
        ],
        "an entropy in place of the KL: the reference has to be in it": [
            (beta * (p * policy).sum(1) - earned).mean(),
            (-beta * (p * policy).sum(1) - earned).mean(),
        ],
        "the reference's rewards: the policy earns with its own probabilities": [
            (beta * kl - (q * reward).sum(1)).mean()
        ],
        "the likeliest option's reward: all options earn, by their probability": [
            (beta * kl - reward.gather(1, p.argmax(1)[:, None])[:, 0]).mean(),
        ],
        "KL only: the reward comes off": [beta * kl.mean(), kl.mean()],
        "divided by β: it is the price of KL": [(kl / beta - earned).mean()],
        "KL squared": [(beta * kl.square() - earned).mean()],
        "probabilities in the KL, not their logarithms": [
            (beta * (p * (p - q)).sum(1) - earned).mean()
        ],
    }
    return told_apart(mistakes, case)


def _loss_of(policy, reward, start, beta) -> "Tensor":
    return (policy.exp() * (beta * (policy - start) - reward)).sum(1).mean()


def _loss_teaches(answer) -> str:
    return gradient_fault(answer, _reward_loss, _loss_cases(), ("log_probs",))


# --- The exercises ----------------------------------------------------------------

EXERCISES: dict[str, Exercise] = {
    "07.1": Exercise(
        "my_ece(confidence, correct, n_bins)",
        _ece_cases,
        _read_ece,
        _ece_mistakes,
        "the same as `alignlab.calibration.expected_calibration_error`",
        hints=(
            (
                "Into which bin does a confidence of exactly 1/B go, by the "
                "definition? And what does a bin without answers add?"
            ),
            (
                "Bin b is (b/B, (b+1)/B], the first also holds 0. In each: mean "
                "confidence less share that is right, its absolute value, weighted "
                "by the bin's share of the items."
            ),
        ),
        minutes=25,
        stars=3,
        library=(
            "alignlab.calibration.metrics.expected_calibration_error",
            "alignlab.calibration.metrics.reliability_curve",
        ),
    ),
    "07.2": Exercise(
        "my_optimum(p, beta)",
        _optimum_cases,
        _read_optimum,
        _optimum_mistakes,
        "the policy that earns most at this price of KL",
        hints=(
            (
                "First tilt each option by what it can expect to earn. Are rows "
                "still probabilities then?"
            ),
            (
                "Multiply each probability by exp(p / β), then divide each row by "
                "its sum."
            ),
        ),
        minutes=10,
        stars=1,
        library=(
            "alignlab.evaluation.exact.optimal_policy",
            "alignlab.chapters.calibration.analysis.optimal_answers",
        ),
        tensor_for="the next cell calls `.numpy()` on a column",
    ),
    "07.3": Exercise(
        "my_reward_loss(log_probs, reward, reference, beta)",
        _loss_cases,
        _read_loss,
        _loss_mistakes,
        "the loss that the recorded policies are trained with",
        hints=(
            (
                "There is what is earned and what is paid, each a sum over options. "
                "Over which options must both distributions sum to 1?"
            ),
            (
                "Log_softmax both over the options; β times the sum of π (log π − "
                "log π₀) less the sum of π r; then the mean over items."
            ),
        ),
        minutes=20,
        stars=2,
        also=_loss_teaches,
        library=("alignlab.chapters.calibration.tuning.reward_loss",),
    ),
}
