"""The checks of notebook 03 accept right answers, reject wrong ones, and name each
known mistake: a table of mutants, as for the other exercises."""

import math

import pytest
import torch

from alignlab.chapters.reward_modeling.exercises import EXERCISES
from tests.grading import as_params, covers, fails_by_name, passes, tells_mistakes_apart

# --- 03.1 -------------------------------------------------------------------------

F = torch.nn.functional


def comparison_loss(chosen, rejected):
    return -F.logsigmoid(chosen - rejected).mean()


def changes_chosen(chosen, rejected):
    chosen -= rejected
    return -F.logsigmoid(chosen).mean()


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
    "overflows": [
        lambda c, r: -(c - r).sigmoid().log().mean(),
        lambda c, r: -(c.exp() / (c.exp() + r.exp())).log().mean(),
    ],
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
    "not the right values": [
        lambda c, r: comparison_loss(c, r) * 1.001,
        lambda c, r: comparison_loss(c, r) / math.log(2),
        lambda c, r: comparison_loss(c - 0.1, r),
    ],
}

# --- 03.2 -------------------------------------------------------------------------


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
    "gives NaN where a probability is 0 or 1": [
        lambda p: (floors_of(p)[0], -(p * p.log() + (1 - p) * (1 - p).log()).mean())
    ],
    "one number for each pair": [lambda p: (p * (1 - p), entropy(p))],
    "returns 3 things": [lambda p: (*floors_of(p), 0.0)],
    "returns shape ()": [lambda p: floors_of(p)[0]],
    "changes its input: probability": [lambda p: (floors_of(p), p.zero_())[0]],
    "not the right values": [
        lambda p: tuple(1.001 * value for value in floors_of(p)),
        lambda p: (0.1875, 0.5623),  # of a quarter of wrong labels, whatever is given
    ],
}

# --- 03.3 -------------------------------------------------------------------------


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
    "not the right values": [
        lambda r: ranking_loss(r) * 1.001,
        lambda r: ranking_loss(r[:1]),
    ],
}

# --- The tables -------------------------------------------------------------------

TABLE = {"03.1": COMPARISONS, "03.2": FLOORS, "03.3": RANKINGS}
REFERENCES = [
    ("03.1", comparison_loss),
    ("03.1", lambda c, r: F.softplus(r - c).mean()),
    ("03.1", lambda c, r: comparison_loss(c.float(), r.float())),
    ("03.2", floors_of),
    ("03.2", floors_by_hand),
    ("03.2", lambda p: torch.stack(floors_of(p.float()))),
    ("03.3", ranking_loss),
    ("03.3", ranking_by_hand),
    ("03.3", lambda r: ranking_loss(r.float())),
]


@pytest.mark.parametrize("number, answer", REFERENCES)
def test_a_right_answer_passes(number, answer):
    passes(number, answer)


@pytest.mark.parametrize("number, name, answer", as_params(TABLE))
def test_a_wrong_answer_fails_under_the_name_of_its_mistake(number, name, answer):
    fails_by_name(number, name, answer)


def test_every_exercise_has_references_and_every_known_mistake_a_mutant():
    covers(REFERENCES, TABLE, EXERCISES)


def test_the_cases_tell_every_two_known_mistakes_apart():
    tells_mistakes_apart(EXERCISES)
