"""Exercises of notebook 03: the Bradley-Terry loss, the best reachable scores, the
Plackett-Luce loss.
"""

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


# --- 03.1: the Bradley-Terry loss -------------------------------------------------

HIDDEN = "a clamp, an epsilon or `nan_to_num` only hides that sigmoid is 0 there"


def _comparison_cases() -> list[Case]:
    """Rewards of several sizes; the last differences are beyond what exp can take."""
    import torch

    from alignlab.objectives.reward import bradley_terry_loss

    cases = []
    for seed, pairs, size, about in (
        (0, 7, 1.0, "several pairs"),
        (1, 1, 2.0, "a single pair"),
        (2, 5, 0.2, "small differences"),
    ):
        chosen, rejected = size * normal(seed, 2, pairs)
        cases.append((chosen + 0.4, rejected, about))
    chosen = torch.tensor([-900.0, 3.0, 0.0, 800.0], dtype=torch.float64)
    rejected = torch.tensor([300.0, -1.0, 0.5, -400.0], dtype=torch.float64)
    cases.append((chosen, rejected, f"a difference of -1,200 ({HIDDEN})"))
    return [
        Case({"chosen": c, "rejected": r}, bradley_terry_loss(c, r), about)
        for c, r, about in cases
    ]


def _read_comparisons(output, chosen, rejected) -> "Tensor":
    shapes = [tuple(chosen.shape), (1,), (len(chosen), len(chosen))]
    safe = (
        "a difference of -1,200 gives log(0); `torch.nn.functional.logsigmoid` "
        "computes the logarithm of a sigmoid safely"
    )
    return scalar(output, shapes, "take the mean over pairs", safe)


def _comparison_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch
    import torch.nn.functional as F

    chosen, rejected = case.args.values()
    d, right = chosen - rejected, case.expected
    mistakes = {
        "chosen and rejected exchanged: the loss must fall as the chosen reply's "
        "reward rises above the other": [-F.logsigmoid(-d).mean()],
        "sign flipped: a loss is minus the log-likelihood, and goes down as the labels "
        "become likelier": [-right, F.logsigmoid(-d).mean()],
        "sum, not mean: divide by the number of pairs": [right * len(d)],
        "no logarithm: the mean of probabilities is no likelihood": [
            -d.sigmoid().mean(),
            (-d).sigmoid().mean(),
            d.sigmoid().mean(),
        ],
        "no sigmoid: a difference of rewards is no probability": [-d.mean(), d.mean()],
        "each reply by itself: only the difference of a pair's rewards means "
        "something": [
            -(F.logsigmoid(chosen) + F.logsigmoid(-rejected)).mean(),
            -(F.logsigmoid(chosen) + F.logsigmoid(-rejected)).mean() / 2,
            -F.logsigmoid(chosen).mean(),
        ],
        "a hinge: max(0, 1 - d) is a margin loss, not a likelihood": [
            (1 - d).clamp(min=0).mean()
        ],
        "a squared error: use the log-likelihood of the label": [
            (1 - d.sigmoid()).square().mean(),
            (1 - d).square().mean(),
        ],
        "mean before the sigmoid: each pair has a probability of its own": [
            -F.logsigmoid(d.mean())
        ],
        "zero: nothing can be learnt": [torch.zeros_like(right)],
        "in bits: natural logarithms give nats": [right / math.log(2)],
        "the sigmoid twice: logsigmoid takes the difference itself": [
            -F.logsigmoid(d.sigmoid()).mean()
        ],
        "the rejected reply's log-sigmoid comes off: there is one sigmoid, of the "
        "difference": [-(F.logsigmoid(chosen) - F.logsigmoid(rejected)).mean()],
        "both orders counted: only the one that was seen is made likely": [
            -(F.logsigmoid(d) + F.logsigmoid(-d)).mean(),
            -(F.logsigmoid(d) + F.logsigmoid(-d)).mean() / 2,
        ],
        "every chosen reply against every rejected one: a pair is of one prompt": [
            F.softplus(rejected[None] - chosen[:, None]).mean()
        ],
        "a share of the pairs, not a likelihood: it has no gradient": [
            (d < 0).double().mean(),
            (d > 0).double().mean(),
        ],
        "a ratio of the rewards: only their difference means something": [
            -(chosen / (chosen + rejected)).log().mean(),
            -F.logsigmoid(chosen / rejected).mean(),
        ],
        "absolute differences: it matters which of the two is higher": [
            -F.logsigmoid(d.abs()).mean()
        ],
        "the worst or the middle pair: take the mean over pairs": [
            F.softplus(-d).max(),
            F.softplus(-d).median(),
        ],
    }
    return told_apart(mistakes, case)


def _comparison_teaches(answer: Callable) -> str:
    from alignlab.objectives.reward import bradley_terry_loss

    return gradient_fault(answer, bradley_terry_loss, _comparison_cases())


# --- 03.4: what the best forecasts score ------------------------------------------


def _floor_cases() -> list[Case]:
    """Probabilities on both sides of one half; in the last, some are certain."""
    import torch

    random = generator(0)
    given = (
        (torch.rand(9, generator=random) / 2, "probabilities below one half"),
        (torch.rand(6, generator=random), "probabilities on both sides of one half"),
        (torch.tensor([0.75, 0.25, 0.75, 0.5]), "probabilities around one half"),
        (torch.tensor([0.0, 1.0, 0.9, 0.6]), "probabilities of 0 and 1"),
        (torch.tensor([0.2]), "a single pair"),
    )
    cases = [(p.double(), about) for p, about in given]
    return [Case({"probability": p}, _floors(p), about) for p, about in cases]


def _floors(probability: "Tensor") -> "Tensor":
    import torch

    from alignlab.world.ceilings import brier_floor, nll_floor

    both = [brier_floor(probability.numpy()), nll_floor(probability.numpy())]
    return torch.tensor(both, dtype=torch.float64)


def _read_floors(output, probability) -> "Tensor":
    count = len(probability)
    notes = {
        (): "returns one number: return two, (brier, nll)",
        (3,): "returns 3 things: return (brier, nll)",
        (2, count): "one number for each pair: take the mean",
        (count, 2): "one number for each pair: take the mean",
        (count,): "one number for each pair: take the mean, and return (brier, nll)",
    }
    remedy = "0 log 0 is 0 here, and `torch.xlogy` does that"
    return tensor(output, (2,), notes, remedy)


def _floor_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    p = case.args["probability"]
    brier, nll = case.expected
    likelier = torch.maximum(p, 1 - p)

    def entropies(x):
        return -(torch.xlogy(x, x) + torch.xlogy(1 - x, 1 - x))

    def both(*values):
        return torch.stack([torch.as_tensor(v, dtype=torch.float64) for v in values])

    half = -torch.xlogy(p, p).mean()
    luck = torch.minimum(p**2, (1 - p) ** 2).mean()
    lucky = -likelier.log().mean()
    once, one_off = p.mean(), entropies(p.mean())
    mistakes = {
        "the likelier label only: that is the score when what is likelier comes; with "
        "probability p it does, and otherwise the other label does": [
            both(luck, lucky),
            both(luck, nll),
            both(brier, lucky),
        ],
        "of the mean probability: take each pair's floor, then the mean": [
            both(once * (1 - once), one_off),
            both(brier, one_off),
            both(once * (1 - once), nll),
        ],
        "one outcome only: both labels can come, with p and with 1 - p": [
            both(brier, half),
            both((p * (1 - p) ** 2).mean(), half),
            both((p * (1 - p) ** 2).mean(), nll),
        ],
        "in bits: use nats, natural logarithms": [both(brier, nll / math.log(2))],
        "sign flipped: an entropy is not negative": [both(brier, -nll)],
        "summed over pairs: take the mean": [both(brier * len(p), nll * len(p))],
        "exchanged: the Brier score comes first": [both(nll, brier)],
        "both sides counted: p(1 - p) is the floor of one forecast per pair; twice as "
        "much is that of the score over both labels": [both(2 * brier, nll)],
        "zeros: that would need forecasts that know every label": [both(0.0, 0.0)],
        "a coin's score: the best forecast is p, not one half": [
            both(0.25, math.log(2)),
            both(0.25, nll),
            both(brier, math.log(2)),
        ],
        "the share of errors: that is the floor of accuracy": [
            both((1 - likelier).mean(), nll),
            both((1 - likelier).mean(), lucky),
        ],
        "the probability itself, not what is expected of its score": [
            both(once, nll),
            both((p**2).mean(), nll),
            both(((1 - p) ** 2).mean(), nll),
            both(brier, -p.log().mean()),
            both(brier, once),
        ],
        "the root of the Brier score: squares stay squares": [
            both(brier.sqrt(), nll),
            both((p * (1 - p)).sqrt().mean(), nll),
        ],
        "the chance that two labels agree: p(1 - p) is what is left": [
            both((p**2 + (1 - p) ** 2).mean(), nll)
        ],
        "half of the Brier score: p(1 - p) is all of it": [both(brier / 2, nll)],
        "a cross-entropy with one half: the best forecast is p": [
            both(brier, -(0.5 * p.log() + 0.5 * (1 - p).log()).mean())
        ],
        "the spread of the probabilities, not of the labels": [
            both(((p - once) ** 2).mean(), nll)
        ],
    }
    return told_apart(mistakes, case)


# --- 03.5: the Plackett-Luce loss -------------------------------------------------


def _ranking_cases() -> list[Case]:

    from alignlab.objectives.reward import plackett_luce_loss

    cases = []
    for seed, rankings, replies, size, about in (
        (0, 3, 4, 1.0, "several rankings"),
        (1, 2, 2, 2.0, "rankings of two"),
        (2, 4, 6, 0.5, "several rankings"),
        (3, 1, 5, 1.0, "a single ranking"),
    ):
        rewards = size * normal(seed, rankings, replies)
        cases.append(Case({"rewards": rewards}, plackett_luce_loss(rewards), about))
    return cases


def _read_ranking(output, rewards) -> "Tensor":
    shapes = [(len(rewards),), tuple(rewards.shape), (1,)]
    advice = "sum over the replies of a ranking, then take the mean over rankings"
    remedy = "`logsumexp` takes the logarithm of a sum of exponentials safely"
    return scalar(output, shapes, advice, remedy)


def _ranking_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    from alignlab.objectives.reward import all_pairs_loss, plackett_luce_loss

    rewards, right = case.args["rewards"], case.expected
    rankings, replies = rewards.shape
    everyone = (rewards.logsumexp(1, keepdim=True) - rewards).sum(1).mean()
    pairs = replies * (replies - 1) // 2
    behind = rewards.flip(1).logcumsumexp(1).flip(1)[:, 1:]  # (N, K-1)
    neighbours = torch.nn.functional.softplus(rewards[:, 1:] - rewards[:, :-1])
    remaining = rewards.flip(1).logcumsumexp(1).flip(1)
    sums = rewards.flip(1).cumsum(1).flip(1)
    mistakes = {
        "ranked the wrong way: the best reply comes first in each row": [
            plackett_luce_loss(rewards.flip(1))
        ],
        "sign flipped: a loss is minus the log-likelihood": [-right],
        "divides by K: a ranking is one observation, summed over its places": [
            right / replies,
            right / (replies - 1),
        ],
        "zero: nothing can be learnt": [torch.zeros_like(right)],
        "leaves out the reply itself: the best of those that remain is one of them": [
            (behind - rewards[:, :-1]).sum(1).mean()
        ],
        "the first place only: after the best, the next is chosen among the rest": [
            (rewards.logsumexp(1) - rewards[:, 0]).mean()
        ],
        "everyone stays in: who has been chosen does not compete for the next place": [
            everyone
        ],
        "pairs of a ranking: that is InstructGPT's loss; here the whole ranking is one "
        "observation": [all_pairs_loss(rewards), all_pairs_loss(rewards) * pairs],
        "neighbours only: each reply is held against all those behind it": [
            neighbours.sum(1).mean(),
            neighbours.mean(),
        ],
        "sum over rankings: take their mean": [right * rankings],
        "in bits: natural logarithms give nats": [right / math.log(2)],
        "no logarithm: the loss is minus the logarithm of a product": [
            -(rewards - remaining).sum(1).exp().mean(),
            (rewards - remaining).sum(1).exp().mean(),
            -(rewards - remaining).exp().sum(1).mean(),
        ],
        "the wrong axis: the replies of a ranking are in a row": [
            (rewards.flip(0).logcumsumexp(0).flip(0) - rewards).sum(0).mean(),
            (rewards.flip(0).logcumsumexp(0).flip(0) - rewards).sum(1).mean(),
        ],
        "no exponentials: the rivals' rewards enter as e^r": [
            (sums - rewards).sum(1).mean(),
            -(rewards / sums).abs().log().sum(1).mean(),
        ],
        "the first two only: every place of the ranking counts": [
            (remaining - rewards)[:, :2].sum(1).mean(),
            torch.nn.functional.softplus(rewards[:, 1] - rewards[:, 0]).mean(),
            torch.nn.functional.softplus(rewards[:, -1] - rewards[:, 0]).mean(),
        ],
        "the first place left out: the best reply is chosen among all": [
            (remaining - rewards)[:, 1:].sum(1).mean()
        ],
    }
    return told_apart(mistakes, case)


def _ranking_teaches(answer: Callable) -> str:
    from alignlab.objectives.reward import plackett_luce_loss

    return gradient_fault(answer, plackett_luce_loss, _ranking_cases())


# --- The exercises ----------------------------------------------------------------

EXERCISES: dict[str, Exercise] = {
    "03.1": Exercise(
        "my_bradley_terry_loss(chosen, rejected)",
        _comparison_cases,
        _read_comparisons,
        _comparison_mistakes,
        "the same loss and gradient as `alignlab.objectives.bradley_terry_loss`",
        hints=(
            (
                "How probable is it, under the model, that the chosen reply wins? A "
                "loss makes what was seen likely. And is the logarithm of a "
                "sigmoid finite where the sigmoid is 0?"
            ),
            (
                "Minus the logarithm of the probability that the chosen reply wins, "
                "which is the sigmoid of the difference of the two rewards; then "
                "the mean."
            ),
        ),
        minutes=10,
        stars=1,
        also=_comparison_teaches,
        library=(
            "alignlab.objectives.reward.bradley_terry_loss",
            "alignlab.objectives.reward.plackett_luce_loss",
            "alignlab.objectives.reward.all_pairs_loss",
        ),
    ),
    "03.4": Exercise(
        "my_floors(probability)",
        _floor_cases,
        _read_floors,
        _floor_mistakes,
        "the same floors as `alignlab.world.ceilings` computes",
        hints=(
            (
                "Say p, and the label comes with probability p: what is the score "
                "if it comes, what if it does not, and how often is either?"
            ),
            (
                "The best forecast of a pair is its p. Score it if the label comes "
                "(with probability p) and if the other one does, weigh the two, "
                "take the mean."
            ),
        ),
        minutes=15,
        stars=2,
        library=(
            "alignlab.world.ceilings.brier_floor",
            "alignlab.world.ceilings.nll_floor",
        ),
    ),
    "03.5": Exercise(
        "my_plackett_luce_loss(rewards)",
        _ranking_cases,
        _read_ranking,
        _ranking_mistakes,
        "the same loss and gradient as `alignlab.objectives.plackett_luce_loss`",
        hints=(
            (
                "The logarithm of a product is a sum over places. Which replies are "
                "still there at place k?"
            ),
            (
                "For place k: log-sum-exp of the rewards from k on, minus the "
                "reward at k."
            ),
        ),
        minutes=15,
        stars=2,
        also=_ranking_teaches,
        library=("alignlab.objectives.reward.plackett_luce_loss",),
    ),
}
