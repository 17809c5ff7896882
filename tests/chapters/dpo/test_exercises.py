"""The checks of notebook 05 accept right answers, reject wrong ones, and name each
known mistake: a table of mutants, as for the other exercises."""

import math

import pytest
import torch
import torch.nn.functional as F

from alignlab.chapters.dpo.exercises import EXERCISES
from tests.grading import as_params, covers, fails_by_name, passes

# --- 05.1 -------------------------------------------------------------------------


def optimum(p, r, b):
    return (p.log() + r / b).softmax(0)


def optimum_by_sums(p, r, b):
    weights = p * ((r - r.max()) / b).exp()
    return weights / weights.sum()


def plain_exponential(p, r, b):
    weights = p * (r / b).exp()
    return weights / weights.sum()


OPTIMA = {
    "not normalised": [lambda p, r, b: p * (r / b).exp()],
    "β on the wrong side": [lambda p, r, b: (p.log() + r * b).softmax(0)],
    "β left out": [lambda p, r, b: (p.log() + r).softmax(0)],
    "no reference": [lambda p, r, b: (r / b).softmax(0)],
    "the reference's probabilities": [lambda p, r, b: (p + r / b).softmax(0)],
    "sign flipped": [lambda p, r, b: (p.log() - r / b).softmax(0)],
    "the best completion only": [
        lambda p, r, b: F.one_hot(r.argmax(), len(r)).to(r.dtype)
    ],
    "log-probabilities": [lambda p, r, b: (p.log() + r / b).log_softmax(0)],
    "the reference itself": [lambda p, r, b: p.clone()],
    "one number": [lambda p, r, b: optimum(p, r, b) @ r],
    "not the right values": [
        lambda p, r, b: optimum(p, r, b) * 1.001,
        plain_exponential,
    ],
}

# --- 05.2 -------------------------------------------------------------------------


def margin(c, j, rc, rj):
    return (c - rc) - (j - rj)


def dpo(c, j, rc, rj, b):
    return -F.logsigmoid(b * margin(c, j, rc, rj)).mean()


def dpo_by_softplus(c, j, rc, rj, b):
    return F.softplus(b * ((j - rj) - (c - rc))).mean()


def of_margin(change):
    """DPO's loss with something else for β times the margin."""
    return lambda c, j, rc, rj, b: -F.logsigmoid(change(c, j, rc, rj, b)).mean()


def naive(c, j, rc, rj, b):
    return -torch.sigmoid(b * margin(c, j, rc, rj)).log().mean()


DPOS = {
    "sign flipped": [lambda *a: -dpo(*a)],
    "chosen and rejected exchanged": [
        of_margin(lambda c, j, rc, rj, b: -b * margin(c, j, rc, rj)),
        lambda c, j, rc, rj, b: dpo(j, c, rj, rc, b),
    ],
    "no reference": [of_margin(lambda c, j, rc, rj, b: b * (c - j))],
    "policy and reference exchanged for the rejected": [
        of_margin(lambda c, j, rc, rj, b: b * ((c - rc) - (rj - j)))
    ],
    "the reference is added": [
        of_margin(lambda c, j, rc, rj, b: b * ((c + rc) - (j + rj)))
    ],
    "β left out": [of_margin(lambda c, j, rc, rj, b: margin(c, j, rc, rj))],
    "divided by β": [of_margin(lambda c, j, rc, rj, b: margin(c, j, rc, rj) / b)],
    "β outside": [lambda c, j, rc, rj, b: b * dpo(c, j, rc, rj, 1.0)],
    "no logarithm": [
        lambda c, j, rc, rj, b: (1 - torch.sigmoid(b * margin(c, j, rc, rj))).mean(),
        lambda c, j, rc, rj, b: -torch.sigmoid(b * margin(c, j, rc, rj)).mean(),
    ],
    "no weight": [lambda c, j, rc, rj, b: -(b * margin(c, j, rc, rj)).mean()],
    "mean before the sigmoid": [
        of_margin(lambda c, j, rc, rj, b: (b * margin(c, j, rc, rj)).mean())
    ],
    "sum, not mean": [lambda *a: dpo(*a) * len(a[0])],
    "in bits": [lambda *a: dpo(*a) / math.log(2)],
    "zero": [lambda *a: 0.0],
    "no gradient": [
        lambda *a: dpo(*a).item(),
        lambda c, j, rc, rj, b: dpo(c.detach(), j.detach(), rc, rj, b),
    ],
    "wrong gradient": [lambda c, j, rc, rj, b: dpo(c, j.detach(), rc, rj, b)],
    "not reduced to one number": [
        lambda c, j, rc, rj, b: -F.logsigmoid(b * margin(c, j, rc, rj))
    ],
    "not the right values": [lambda *a: dpo(*a) * 1.001, naive],
}

# --- 05.3 -------------------------------------------------------------------------


def weight(h, b):
    return b * torch.sigmoid(-b * h)


def weight_by_autograd(h, b):
    h = h.clone().requires_grad_()
    (slope,) = torch.autograd.grad(F.softplus(-b * h).sum(), h)
    return -slope


WEIGHTS = {
    "the wrong way round": [lambda h, b: b * torch.sigmoid(b * h)],
    "β in front left out": [lambda h, b: torch.sigmoid(-b * h)],
    "β inside left out": [lambda h, b: b * torch.sigmoid(-h)],
    "no β at all": [lambda h, b: torch.sigmoid(-h)],
    "the loss": [lambda h, b: -F.logsigmoid(b * h)],
    "sign flipped": [lambda h, b: -weight(h, b)],
    "the same for all": [
        lambda h, b: torch.full_like(h, b),
        lambda h, b: torch.full_like(h, b / 2),
    ],
    "the curvature": [
        lambda h, b: weight(h, b) * torch.sigmoid(b * h),
        lambda h, b: b * weight(h, b) * torch.sigmoid(b * h),
    ],
    "normalised over pairs": [
        lambda h, b: weight(h, b) / weight(h, b).sum(),
        lambda h, b: (-b * h).softmax(0),
    ],
    "zeros everywhere": [lambda h, b: torch.zeros_like(h)],
    "one number": [lambda h, b: weight(h, b).mean()],
    "not the right values": [lambda h, b: weight(h, b) * 1.001],
}

# --- The tables -------------------------------------------------------------------

TABLE = {"05.1": OPTIMA, "05.2": DPOS, "05.3": WEIGHTS}
REFERENCES = [
    ("05.1", optimum),
    ("05.1", optimum_by_sums),
    ("05.2", dpo),
    ("05.2", dpo_by_softplus),
    ("05.3", weight),
    ("05.3", weight_by_autograd),
]


@pytest.mark.parametrize("number, answer", REFERENCES)
def test_a_right_answer_passes(number, answer):
    passes(number, answer)


@pytest.mark.parametrize("number, name, answer", as_params(TABLE))
def test_a_wrong_answer_fails_under_the_name_of_its_mistake(number, name, answer):
    fails_by_name(number, name, answer)


def test_every_exercise_has_references_and_every_known_mistake_a_mutant():
    covers(REFERENCES, TABLE, EXERCISES)
