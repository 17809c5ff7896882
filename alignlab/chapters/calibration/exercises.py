"""Exercises of notebook 07: expected calibration error, what a reward makes of
probabilities, and the loss that trains it."""

from typing import TYPE_CHECKING

from alignlab.course.checks import (
    Case,
    Exercise,
    close,
    generator,
    gradient_fault,
    normal,
    scalar,
    tensor,
)

if TYPE_CHECKING:
    from torch import Tensor


def _told_apart(mistakes: dict[str, list["Tensor"]], case: Case):
    """Without the mistakes that happen to be right in this case."""
    return {
        message: outputs
        for message, outputs in mistakes.items()
        if not close(outputs[0], case.expected)
    }


# --- 07.1: expected calibration error ---------------------------------------------


def _ece_cases() -> list[Case]:
    """Confidences that also lie on the edges, and at 0 and 1."""
    import torch

    cases = []
    for seed, n, bins in ((0, 40, 10), (1, 60, 5), (2, 25, 4)):
        random = generator(seed)
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


def _read_ece(output, confidence, correct, n_bins) -> "Tensor":
    return scalar(output, {tuple(confidence.shape), (1,), (n_bins,)})


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
        random = generator(seed)
        logits = torch.randn(n, k, dtype=torch.float64, generator=random)
        p = (1.5 * logits).softmax(1)
        right = (p.log() + p / beta).softmax(1)
        cases.append(Case(dict(p=p, beta=beta), right))
    return cases


def _read_optimum(output, p, beta) -> "Tensor":
    return tensor(output, tuple(p.shape))


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
        "log-probabilities: return π itself": [case.expected.log()],
        "p as it was: nothing is tilted": [p],
        "all on the likeliest option: that is the limit for β = 0": [
            torch.nn.functional.one_hot(p.argmax(1), p.shape[1]).double()
        ],
    }


# --- 07.3: a reward over options, exactly ------------------------------------------


def _loss_cases() -> list[Case]:
    """Log-probabilities up to a constant a row, and rewards that are probabilities."""
    cases = []
    for seed, n, k, beta in ((0, 3, 4, 0.5), (1, 5, 3, 0.1), (2, 2, 4, 2.0)):
        log_probs, reference, logits = normal(seed, 3, n, k)
        args = dict(
            log_probs=log_probs - 6,
            reward=(2 * logits).softmax(1),
            reference=reference - 4,
            beta=beta,
        )
        cases.append(Case(args, _reward_loss(**args)))
    return cases


def _reward_loss(log_probs, reward, reference, beta):
    from alignlab.chapters.calibration.tuning import reward_loss

    return reward_loss(log_probs, reward, reference, beta)


def _read_loss(output, log_probs, reward, reference, beta) -> "Tensor":
    return scalar(output, {tuple(log_probs.shape), (len(log_probs),)})


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
            (beta * p * (policy - start) - p * reward).mean()
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
    }
    return _told_apart(mistakes, case)


def _loss_teaches(answer) -> str:
    return gradient_fault(answer, _reward_loss, _loss_cases()[0], ("log_probs",))


# --- The exercises ----------------------------------------------------------------

EXERCISES: dict[str, Exercise] = {
    "07.1": Exercise(
        "my_ece(confidence, correct, n_bins)",
        _ece_cases,
        _read_ece,
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
    "07.3": Exercise(
        "my_reward_loss(log_probs, reward, reference, beta)",
        _loss_cases,
        _read_loss,
        _loss_mistakes,
        "the loss that the recorded policies are trained with",
        "log_softmax both over the options; β times the sum of π (log π − log π₀) less "
        "the sum of π r; then the mean over items.",
        also=_loss_teaches,
    ),
}
