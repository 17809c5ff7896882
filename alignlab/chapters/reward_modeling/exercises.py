"""Exercises of notebook 03: the Bradley-Terry loss, the best reachable scores, the
Plackett-Luce loss.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from alignlab.course.checks import (
    Case,
    Exercise,
    Misfit,
    gradient_fault,
    scalar,
    tensor,
)

if TYPE_CHECKING:
    from torch import Tensor


# --- 03.1: the Bradley-Terry loss -------------------------------------------------


def _comparison_cases() -> list[Case]:
    """Rewards of several sizes; the last differences are beyond what exp can take."""
    import torch

    from alignlab.objectives.reward import bradley_terry_loss

    random = torch.Generator().manual_seed(0)
    cases = []
    for pairs, size in ((7, 1.0), (1, 2.0), (5, 0.2)):
        chosen, rejected = torch.randn(
            2, pairs, dtype=torch.float64, generator=random
        ).mul(size)
        cases.append((chosen + 0.4, rejected))
    chosen = torch.tensor([-900.0, 3.0, 0.0, 800.0], dtype=torch.float64)
    cases.append((chosen, torch.tensor([300.0, -1.0, 0.5, -400.0]).double()))
    return [
        Case({"chosen": c, "rejected": r}, bradley_terry_loss(c, r)) for c, r in cases
    ]


def _read_comparisons(output, chosen, rejected) -> "Tensor":
    shapes = [tuple(chosen.shape), (1,), (len(chosen), len(chosen))]
    value = scalar(output, shapes, "take the mean over pairs")
    if not value.isfinite():
        raise Misfit(
            "overflows: a difference of -1,200 gives log(0); `torch.nn.functional."
            "logsigmoid` computes the logarithm of a sigmoid safely"
        )
    return value


def _comparison_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch
    import torch.nn.functional as F

    chosen, rejected = case.args.values()
    d, right = chosen - rejected, case.expected
    return {
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
    }


def _comparison_teaches(answer: Callable) -> str:
    from alignlab.objectives.reward import bradley_terry_loss

    return gradient_fault(answer, bradley_terry_loss, _comparison_cases()[0])


# --- 03.2: what the best forecasts score ------------------------------------------


def _floor_cases() -> list[Case]:
    """Probabilities on both sides of one half; in the last, some are certain."""
    import torch

    random = torch.Generator().manual_seed(0)
    given = [
        torch.rand(9, dtype=torch.float64, generator=random).mul(0.5),
        torch.rand(6, dtype=torch.float64, generator=random),
        torch.tensor([0.75, 0.25, 0.75, 0.5], dtype=torch.float64),
        torch.tensor([0.0, 1.0, 0.9, 0.6], dtype=torch.float64),
    ]
    return [Case({"probability": p}, _floors(p)) for p in given]


def _floors(probability: "Tensor") -> "Tensor":
    import torch

    from alignlab.world.ceilings import brier_floor, nll_floor

    both = [brier_floor(probability.numpy()), nll_floor(probability.numpy())]
    return torch.tensor(both, dtype=torch.float64)


def _read_floors(output, probability) -> "Tensor":
    import torch

    if isinstance(output, (tuple, list)):
        if len(output) != 2:
            raise Misfit(f"returns {len(output)} things: return (brier, nll)")
        notes = {tuple(probability.shape): "one number for each pair: take the mean"}
        output = torch.stack([tensor(value, (), notes) for value in output])
    floors = tensor(output, (2,))
    if floors[1].isnan():
        raise Misfit(
            "gives NaN where a probability is 0 or 1: 0 log 0 is 0 here, and "
            "`torch.xlogy` does that"
        )
    return floors


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
    return {
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
    }


# --- 03.3: the Plackett-Luce loss -------------------------------------------------


def _ranking_cases() -> list[Case]:
    import torch

    from alignlab.objectives.reward import plackett_luce_loss

    random = torch.Generator().manual_seed(0)
    cases = []
    for rankings, replies, size in ((3, 4, 1.0), (2, 2, 2.0), (4, 6, 0.5)):
        rewards = torch.randn(
            rankings, replies, dtype=torch.float64, generator=random
        ).mul(size)
        cases.append(Case({"rewards": rewards}, plackett_luce_loss(rewards)))
    return cases


def _read_ranking(output, rewards) -> "Tensor":
    shapes = [(len(rewards),), tuple(rewards.shape), (1,)]
    advice = "sum over the replies of a ranking, then take the mean over rankings"
    return scalar(output, shapes, advice)


def _ranking_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    from alignlab.objectives.reward import all_pairs_loss, plackett_luce_loss

    rewards, right = case.args["rewards"], case.expected
    rankings, replies = rewards.shape
    everyone = (rewards.logsumexp(1, keepdim=True) - rewards).sum(1).mean()
    pairs = replies * (replies - 1) // 2
    behind = rewards.flip(1).logcumsumexp(1).flip(1)[:, 1:]  # (N, K-1)
    neighbours = torch.nn.functional.softplus(rewards[:, 1:] - rewards[:, :-1])
    if replies == 2:
        return {}  # a ranking of two is a pair, of which half of these are right
    return {
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
    }


def _ranking_teaches(answer: Callable) -> str:
    from alignlab.objectives.reward import plackett_luce_loss

    return gradient_fault(answer, plackett_luce_loss, _ranking_cases()[0])


# --- The exercises ----------------------------------------------------------------

EXERCISES: dict[str, Exercise] = {
    "03.1": Exercise(
        "my_bradley_terry_loss(chosen, rejected)",
        _comparison_cases,
        _read_comparisons,
        _comparison_mistakes,
        "the same loss and gradient as `alignlab.objectives.bradley_terry_loss`",
        "minus the logarithm of the probability that the chosen reply wins, which is "
        "the sigmoid of the difference of the two rewards; then the mean.",
        also=_comparison_teaches,
    ),
    "03.2": Exercise(
        "my_floors(probability)",
        _floor_cases,
        _read_floors,
        _floor_mistakes,
        "the same floors as `alignlab.world.ceilings` computes",
        "the best forecast of a pair is its p. Score it if the label comes (with "
        "probability p) and if the other one does, weigh the two, take the mean.",
    ),
    "03.3": Exercise(
        "my_plackett_luce_loss(rewards)",
        _ranking_cases,
        _read_ranking,
        _ranking_mistakes,
        "the same loss and gradient as `alignlab.objectives.plackett_luce_loss`",
        "for place k: log-sum-exp of the rewards from k on, minus the reward at k.",
        also=_ranking_teaches,
    ),
}
