"""Right and wrong answers to the exercises of notebook 03."""

import math

import numpy as np
import torch
from scipy.special import xlogy

from alignlab import objectives as library
from alignlab.world.ceilings import brier_floor, nll_floor

# --- 03.1 -------------------------------------------------------------------------

F = torch.nn.functional


def comparison_loss(chosen, rejected):
    return -F.logsigmoid(chosen - rejected).mean()


def changes_chosen(chosen, rejected):
    chosen -= rejected
    return -F.logsigmoid(chosen).mean()


def comparison_by_loop(chosen, rejected):
    total = 0.0
    for up, down in zip(chosen, rejected):
        total = total + F.softplus(down - up)
    return total / len(chosen)


def papered_over(chosen, rejected):
    """The value is right where sigmoid is 0, but the gradient passes through log(0)."""
    d = chosen - rejected
    return -torch.where(d > -700, d.sigmoid().log(), d).mean()


COMPARISONS = {
    "chosen and rejected exchanged": [lambda c, r: comparison_loss(r, c)],
    "sign flipped": [
        lambda c, r: -comparison_loss(c, r),
        lambda c, r: -comparison_loss(r, c),
    ],
    "sum, not mean": [lambda c, r: comparison_loss(c, r) * len(c)],
    "no logarithm": [
        lambda c, r: -(c - r).sigmoid().mean(),
        lambda c, r: (r - c).sigmoid().mean(),
    ],
    "no sigmoid": [lambda c, r: (r - c).mean()],
    "each reply by itself": [
        lambda c, r: -(F.logsigmoid(c) + F.logsigmoid(-r)).mean(),
        lambda c, r: -F.logsigmoid(c).mean(),
    ],
    "a hinge": [lambda c, r: (1 - c + r).relu().mean()],
    "a squared error": [lambda c, r: (1 - (c - r).sigmoid()).square().mean()],
    "mean before the sigmoid": [lambda c, r: -F.logsigmoid((c - r).mean())],
    "zero": [lambda c, r: (c * 0).sum()],
    "not reduced to one number": [
        lambda c, r: -F.logsigmoid(c - r),
        lambda c, r: -F.logsigmoid(c[:, None] - r),
    ],
    "no gradient": [
        lambda c, r: comparison_loss(c, r).item(),
        lambda c, r: comparison_loss(c.detach(), r.detach()),
    ],
    "wrong gradient": [lambda c, r: comparison_loss(c, r.detach())],
    "changes its input: chosen": [changes_chosen],
    "returns infinity: a difference of -1,200": [
        lambda c, r: -(c - r).sigmoid().log().mean(),
        lambda c, r: (1 + (r - c).exp()).log().mean(),
    ],
    "returns NaN: a difference of -1,200": [
        lambda c, r: -(c.exp() / (c.exp() + r.exp())).log().mean(),
    ],
    "wrong for a difference of -1,200": [
        lambda c, r: -(c - r).sigmoid().clamp(min=1e-12).log().mean(),
        lambda c, r: -((c - r).sigmoid() + 1e-20).log().mean(),
        lambda c, r: -(c - r).sigmoid().log().nan_to_num(neginf=-100).mean(),
        lambda c, r: -F.logsigmoid((c - r).clamp(-50, 50)).mean(),
    ],
    "in bits": [lambda c, r: comparison_loss(c, r) / math.log(2)],
    "the sigmoid twice": [lambda c, r: -F.logsigmoid((c - r).sigmoid()).mean()],
    "both orders counted": [
        lambda c, r: comparison_loss(c, r) + comparison_loss(r, c),
        lambda c, r: (comparison_loss(c, r) + comparison_loss(r, c)) / 2,
    ],
    "every chosen reply against every rejected": [
        lambda c, r: -F.logsigmoid(c[:, None] - r).mean()
    ],
    "a share of the pairs": [
        lambda c, r: (c < r).double().mean(),
        lambda c, r: (c > r).double().mean(),
    ],
    "a ratio of the rewards": [
        lambda c, r: -F.logsigmoid(c / r).mean(),
        lambda c, r: -(c / (c + r)).log().mean(),
    ],
    "absolute differences": [lambda c, r: -F.logsigmoid((c - r).abs()).mean()],
    "the worst or the middle pair": [
        lambda c, r: F.softplus(r - c).max(),
        lambda c, r: F.softplus(r - c).median(),
    ],
    "every value is 1.001 times": [lambda c, r: comparison_loss(c, r) * 1.001],
    "calls the library's own": [
        library.bradley_terry_loss,
        lambda c, r: library.plackett_luce_loss(torch.stack([c, r], 1)),
    ],
    "the gradient is NaN": [papered_over],
    "right only for a single pair": [lambda c, r: comparison_loss(c[:1], r[:1])],
    "returns nothing": [lambda c, r: print(end="")],
    "not the right values": [lambda c, r: comparison_loss(c - 0.1, r)],
    "the rejected reply's log-sigmoid comes off": [
        lambda c, r: (F.logsigmoid(r) - F.logsigmoid(c)).mean()
    ],
}

# --- 03.4 -------------------------------------------------------------------------


def entropy(p):
    return -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p))


def floors_of(p):
    return (p * (1 - p)).mean(), entropy(p).mean()


def floors_by_hand(p):
    brier = nll = 0.0
    for q in p.tolist():
        brier += (q * (1 - q) ** 2 + (1 - q) * q**2) / len(p)
        nll -= sum(x * math.log(x) for x in (q, 1 - q) if x) / len(p)
    return [brier, nll]


def floors_by_numpy(p):
    p = p.numpy()
    return np.array([np.mean(p * (1 - p)), -np.mean(xlogy(p, p) + xlogy(1 - p, 1 - p))])


FLOORS = {
    "the likelier label only": [
        lambda p: (
            torch.minimum(p**2, (1 - p) ** 2).mean(),
            -torch.maximum(p, 1 - p).log().mean(),
        ),
        lambda p: (torch.minimum(p, 1 - p).square().mean(), entropy(p).mean()),
    ],
    "of the mean probability": [
        lambda p: floors_of(p.mean()),
        lambda p: (floors_of(p)[0], entropy(p.mean())),
    ],
    "one outcome only": [
        lambda p: (floors_of(p)[0], -torch.xlogy(p, p).mean()),
        lambda p: ((p * (1 - p) ** 2).mean(), entropy(p).mean()),
    ],
    "in bits": [lambda p: (floors_of(p)[0], entropy(p).mean() / math.log(2))],
    "sign flipped": [lambda p: (floors_of(p)[0], -entropy(p).mean())],
    "summed over pairs": [lambda p: ((p * (1 - p)).sum(), entropy(p).sum())],
    "exchanged": [lambda p: floors_of(p)[::-1]],
    "both sides counted": [lambda p: (2 * floors_of(p)[0], floors_of(p)[1])],
    "zeros": [lambda p: (0.0, 0.0)],
    "one number for each pair": [lambda p: (p * (1 - p), entropy(p))],
    "returns 3 things": [lambda p: (*floors_of(p), 0.0)],
    "changes its input: probability": [lambda p: (floors_of(p), p.zero_())[0]],
    "returns NaN, at 1 of 2 places: 0 log 0 is 0": [
        lambda p: (floors_of(p)[0], -(p * p.log() + (1 - p) * (1 - p).log()).mean())
    ],
    "returns one number": [lambda p: floors_of(p)[0]],
    "a coin's score": [
        lambda p: (0.25, math.log(2)),
        lambda p: (floors_of(p)[0], math.log(2)),
    ],
    "the share of errors": [
        lambda p: (torch.minimum(p, 1 - p).mean(), entropy(p).mean())
    ],
    "the probability itself": [
        lambda p: (p.mean(), entropy(p).mean()),
        lambda p: ((p**2).mean(), entropy(p).mean()),
        lambda p: (((1 - p) ** 2).mean(), entropy(p).mean()),
        lambda p: (floors_of(p)[0], p.mean()),
    ],
    "the root of the Brier score": [
        lambda p: (floors_of(p)[0] ** 0.5, floors_of(p)[1]),
        lambda p: ((p * (1 - p)).sqrt().mean(), floors_of(p)[1]),
    ],
    "half of the Brier score": [lambda p: (floors_of(p)[0] / 2, floors_of(p)[1])],
    "a cross-entropy with one half": [
        lambda p: (
            (floors_of(p)[0], -(p.log() + (1 - p).log()).mean() / 2)
            if p.prod() and (1 - p).prod()
            else floors_of(p)
        )
    ],
    "the spread of the probabilities": [
        lambda p: (p.var(correction=0), entropy(p).mean())
    ],
    "always the same": [lambda p: (0.1875, 0.5623)],  # of a quarter of wrong labels
    "every value is 1.001 times": [
        lambda p: tuple(1.001 * value for value in floors_of(p))
    ],
    "wrong for": [
        lambda p: floors_of(p[(p > 0) & (p < 1)]),
    ],
    "calls the library's own": [
        lambda p: (brier_floor(p.tolist()), nll_floor(p.tolist()))
    ],
    "returns a dict": [lambda p: dict(brier=floors_of(p)[0], nll=floors_of(p)[1])],
    "returns a str": [lambda p: "brier, nll"],
    "the chance that two labels agree": [
        lambda p: ((p**2 + (1 - p) ** 2).mean(), entropy(p).mean())
    ],
    "the second number is wrong": [
        lambda p: (floors_of(p)[0], entropy(p.clamp(0.01, 0.99)).mean()),
        lambda p: (floors_of(p)[0], entropy(p)[entropy(p) > 0].mean()),
        lambda p: (floors_of(p)[0], -p.clamp(1e-9).log().mean()),
    ],
}

# --- 03.5 -------------------------------------------------------------------------


def ranking_loss(rewards):
    behind = rewards.flip(1).logcumsumexp(1).flip(1)
    return (behind - rewards).sum(1).mean()


def ranking_by_hand(rewards):
    total = 0.0
    for row in rewards:
        for k in range(len(row)):
            total = total + row[k:].logsumexp(0) - row[k]
    return total / len(rewards)


def in_pairs(rewards):
    _, k = rewards.shape
    best, worse = torch.triu_indices(k, k, 1)
    return F.softplus(rewards[:, worse] - rewards[:, best])


def without_itself(rewards):
    behind = rewards.flip(1).logcumsumexp(1).flip(1)
    return (behind[:, 1:] - rewards[:, :-1]).sum(1).mean()


def later(rewards):
    """At each place the log-sum-exp of the rewards from there on."""
    return rewards.flip(1).logcumsumexp(1).flip(1)


def ranking_by_mask(rewards):
    k = rewards.shape[1]
    gone = torch.ones(k, k).tril(-1).bool()
    rivals = rewards[:, None, :].masked_fill(gone, -math.inf)
    return (rivals.logsumexp(2) - rewards).sum(1).mean()


RANKINGS = {
    "ranked the wrong way": [lambda r: ranking_loss(r.flip(1))],
    "sign flipped": [lambda r: -ranking_loss(r)],
    "divides by K": [lambda r: ranking_loss(r) / r.shape[1]],
    "zero": [lambda r: (r * 0).sum()],
    "leaves out the reply itself": [without_itself],
    "the first place only": [lambda r: (r.logsumexp(1) - r[:, 0]).mean()],
    "everyone stays in": [lambda r: -r.log_softmax(1).sum(1).mean()],
    "pairs of a ranking": [
        lambda r: in_pairs(r).mean(),
        lambda r: in_pairs(r).sum(1).mean(),
    ],
    "neighbours only": [lambda r: F.softplus(r[:, 1:] - r[:, :-1]).sum(1).mean()],
    "sum over rankings": [lambda r: ranking_loss(r) * len(r)],
    "not reduced to one number": [
        lambda r: r.flip(1).logcumsumexp(1).flip(1) - r,
        lambda r: (r.flip(1).logcumsumexp(1).flip(1) - r).sum(1),
    ],
    "no gradient": [lambda r: ranking_loss(r).item()],
    "wrong gradient": [
        lambda r: ranking_loss(r.detach()) + (r - r.detach()).sum(),
    ],
    "changes its input: rewards": [lambda r: (ranking_loss(r), r.zero_())[0]],
    "in bits": [lambda r: ranking_loss(r) / math.log(2)],
    "no logarithm": [
        lambda r: -(r - later(r)).sum(1).exp().mean(),
        lambda r: -(r - later(r)).exp().sum(1).mean(),
    ],
    "the wrong axis": [
        lambda r: (r.flip(0).logcumsumexp(0).flip(0) - r).sum(0).mean(),
        lambda r: (r.flip(0).logcumsumexp(0).flip(0) - r).sum(1).mean(),
    ],
    "no exponentials": [lambda r: (r.flip(1).cumsum(1).flip(1) - r).sum(1).mean()],
    "the first two only": [
        lambda r: (later(r) - r)[:, :2].sum(1).mean(),
        lambda r: F.softplus(r[:, 1] - r[:, 0]).mean(),
        lambda r: F.softplus(r[:, -1] - r[:, 0]).mean(),
    ],
    "the first place left out": [lambda r: (later(r) - r)[:, 1:].sum(1).mean()],
    "every value is 1.001 times": [lambda r: ranking_loss(r) * 1.001],
    "calls the library's own": [
        library.plackett_luce_loss,
        lambda r: library.plackett_luce_loss(r) * 1.0,
    ],
    "right only for a single ranking": [lambda r: ranking_loss(r[:1])],
    "returns nothing": [lambda r: None],
}

# --- The tables -------------------------------------------------------------------

WRONG = {"03.1": COMPARISONS, "03.4": FLOORS, "03.5": RANKINGS}

RIGHT = {
    "03.1": {
        "logsigmoid": comparison_loss,
        "softplus": lambda c, r: F.softplus(r - c).mean(),
        "float32": lambda c, r: comparison_loss(c.float(), r.float()),
        "logsumexp": lambda c, r: (torch.stack([c, r]).logsumexp(0) - c).mean(),
        "logaddexp": lambda c, r: torch.logaddexp(torch.zeros_like(c), r - c).mean(),
        "a loop": comparison_by_loop,
        "cross-entropy": lambda c, r: F.cross_entropy(
            torch.stack([c, r], 1), torch.zeros(len(c), dtype=torch.long)
        ),
        "with logits": lambda c, r: F.binary_cross_entropy_with_logits(
            c - r, torch.ones_like(c)
        ),
        "of shape (1,)": lambda c, r: comparison_loss(c, r).reshape(1),
        "in place on its own": lambda c, r: F.logsigmoid(c - r).neg_().mean(),
        "einsum": lambda c, r: -torch.einsum("n->", F.logsigmoid(c - r)) / c.numel(),
    },
    "03.4": {
        "xlogy": floors_of,
        "by hand": floors_by_hand,
        "float32": lambda p: torch.stack(floors_of(p.float())),
        "a list": lambda p: list(floors_of(p)),
        "numpy": floors_by_numpy,
        "entr": lambda p: (
            (p - p**2).mean(),
            (torch.special.entr(p) + torch.special.entr(1 - p)).mean(),
        ),
        "NaN replaced by the 0 that is right": lambda p: (
            (p * (1 - p)).mean(),
            -(p * p.log() + (1 - p) * (1 - p).log()).nan_to_num(0.0).mean(),
        ),
        "floats": lambda p: tuple(float(x) for x in floors_of(p)),
        "of shape (1, 2)[0]": lambda p: torch.stack(floors_of(p))[None][0],
        "a clamp that shows nowhere": lambda p: (
            (p * (1 - p)).mean(),
            -(p * p.clamp(1e-300).log() + (1 - p) * (1 - p).clamp(1e-300).log()).mean(),
        ),
    },
    "03.5": {
        "logcumsumexp": ranking_loss,
        "by hand": ranking_by_hand,
        "float32": lambda r: ranking_loss(r.float()),
        "slices": lambda r: sum(
            (r[:, k:].logsumexp(1) - r[:, k]).mean() for k in range(r.shape[1])
        ),
        "log-softmax of what remains": lambda r: (
            -sum(r[:, k:].log_softmax(1)[:, 0] for k in range(r.shape[1])).mean()
        ),
        "a mask": ranking_by_mask,
        "without the last place": lambda r: sum(
            (r[:, k:].logsumexp(1) - r[:, k]).mean() for k in range(r.shape[1] - 1)
        ),
        "exponentials": lambda r: (
            (r.exp().flip(1).cumsum(1).flip(1).log() - r).sum(1).mean()
        ),
        "of shape (1, 1)": lambda r: ranking_loss(r).reshape(1, 1),
    },
}
