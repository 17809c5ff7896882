"""A card of the family: what each loss asks for, and where it ends on two replies."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import brentq
from scipy.special import expit, logit

from alignlab.objectives.preference import (
    dpo_loss,
    kto_loss,
    orpo_loss,
    simpo_loss,
)

FLAT = 1e-9  # a slope that counts as none
FURTHEST = 12.0  # log-odds that count as certain


class Card(NamedTuple):
    """A loss of the family: its formula, in words what it optimises, and how it is
    computed: ``dpo_loss`` with these arguments, or the name of a loss of its own."""

    formula: str
    asks_for: str
    arguments: dict | str


# h is the margin: the log-ratio of the chosen reply less that of the rejected one.
CARDS: Mapping[str, Card] = {
    "DPO": Card(
        r"$-\log\sigma(\beta h)$",
        "odds of the labels; certain labels ask for an infinite margin",
        dict(loss_type="sigmoid"),
    ),
    "cDPO": Card(
        r"$-(1-\epsilon)\log\sigma(\beta h) - \epsilon\log\sigma(-\beta h)$",
        "the same, as if a share ε of the labels were wrong",
        dict(loss_type="sigmoid", label_smoothing=0.25),
    ),
    "IPO": Card(
        r"$(h - \frac{1}{2\beta})^2$",
        "a margin of 1/2β on average, and no more",
        dict(loss_type="ipo"),
    ),
    "KTO": Card(
        r"$1 - \sigma(\pm\beta(\rho - z))$, ρ a log-ratio, z the KL",
        "good replies above a reference point, bad ones below; no pairs",
        "kto",
    ),
    "ORPO": Card(
        r"$-\log p^+ - \beta\log\sigma(\mathrm{logit}\,p^+ - \mathrm{logit}\,p^-)$",
        "imitation of the chosen and odds against the rejected; no reference",
        "orpo",
    ),
    "SimPO": Card(
        r"$-\log\sigma(\beta(\log p^+ - \log p^-) - \gamma)$, p a mean over tokens",
        "a margin of γ in mean log-probability; no reference",
        "simpo",
    ),
    "DPOP": Card(
        r"$-\log\sigma(\beta (h - \lambda\max(0, -\rho^+)))$",
        "DPO, and the chosen reply no less likely than before",
        dict(loss_type="dpop"),
    ),
}


def pair_loss(name: str, first, second, ref_first, ref_second, beta: float):
    """The loss of a pair whose first reply was chosen, (1,) log-probabilities each. Of
    one-token replies, so that a sum over tokens is a mean."""
    arguments = CARDS[name].arguments
    if arguments == "orpo":
        return orpo_loss(first, second, beta)
    if arguments == "simpo":
        return simpo_loss(first, second, beta)
    if arguments == "kto":
        policy, reference = (
            torch.cat([first, second]),
            torch.cat([ref_first, ref_second]),
        )
        kl = (policy.exp() * (policy - reference)).sum().detach()
        good = torch.tensor([True, False])
        return kto_loss(policy, reference, good, kl, beta).sum()[None]
    return dpo_loss(first, second, ref_first, ref_second, beta, **arguments)


def two_replies(
    name: str, preferred: float, reference: float = 0.5, beta: float = 1.0
) -> float:
    """Probability of the first of two replies, of one token each, where a loss of the
    family first has no slope, downhill from the reference; 1 if it falls all the way.

    Args:
        name: a key of ``CARDS``.
        preferred: share of the labels that prefer the first reply.
        reference: the reference's probability of it.
        beta: strength, in each loss's own sense.
    """

    def slope(log_odds: float) -> float:
        return _slope(name, log_odds, preferred, reference, beta)

    place = float(logit(reference))
    steepness = slope(place)
    if abs(steepness) < FLAT:
        return reference
    stride = -math.copysign(0.25, steepness)
    while abs(place) < FURTHEST:
        if slope(place + stride) * steepness <= 0:
            return float(expit(brentq(slope, place, place + stride, xtol=1e-6)))
        place += stride
    return float(stride > 0)


def _slope(
    name: str, log_odds: float, preferred: float, reference: float, beta: float
) -> float:
    """Of the expected loss, in the log-odds of the first reply."""
    ref = torch.tensor([[reference], [1 - reference]], dtype=torch.float64).log()
    place = torch.tensor([log_odds], dtype=torch.float64, requires_grad=True)
    log_probs = F.logsigmoid(place), F.logsigmoid(-place)
    first = pair_loss(name, *log_probs, *ref, beta)
    second = pair_loss(name, *log_probs[::-1], *ref.flip(0), beta)
    loss = (preferred * first + (1 - preferred) * second).sum()
    [slope] = torch.autograd.grad(loss, place)
    return slope.item()


def table(preferences: tuple[float, ...] = (0.8, 1.0)) -> list[dict]:
    """A row for each loss: its formula, what it asks for, and the probability of the
    first of two replies at β = 1, one half to the reference, if so many of the labels
    prefer it."""
    return [
        {
            "loss": name,
            "of a pair": card.formula,
            "asks for": card.asks_for,
            **{
                f"{share:.0%} prefer it": two_replies(name, share)
                for share in preferences
            },
        }
        for name, card in CARDS.items()
    ]
