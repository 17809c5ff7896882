"""The checks of notebook 08 accept right answers, reject wrong ones, and name each
known mistake: a table of mutants, as for the other exercises."""

import math

import pytest
import torch
import torch.nn.functional as F

from alignlab.chapters.recalibration.exercises import EXERCISES
from tests.grading import as_params, covers, fails_by_name, passes

# --- 08.1 -------------------------------------------------------------------------


def scaled(z, y, t):
    return F.cross_entropy(z / t, y)


SCALED = {
    "times T, not divided by it": [lambda z, y, t: F.cross_entropy(z * t, y)],
    "no temperature": [lambda z, y, t: F.cross_entropy(z, y)],
    "the loss is divided, not the logits": [lambda z, y, t: F.cross_entropy(z, y) / t],
    "probabilities are divided, not logits": [
        lambda z, y, t: F.nll_loss((z.softmax(1) / t).log(), y)
    ],
    "softmax twice": [lambda z, y, t: F.cross_entropy((z / t).softmax(1), y)],
    "no softmax": [lambda z, y, t: -(z / t)[range(len(y)), y].mean()],
    "sum, not mean": [lambda z, y, t: F.cross_entropy(z / t, y, reduction="sum")],
    "sign flipped": [lambda z, y, t: -scaled(z, y, t)],
    "mean of probabilities": [
        lambda z, y, t: -(z / t).softmax(1)[range(len(y)), y].mean().log()
    ],
    "of the likeliest class": [
        lambda z, y, t: -(z / t).log_softmax(1).max(1).values.mean()
    ],
    "in bits": [lambda z, y, t: scaled(z, y, t) / math.log(2)],
    "zero": [lambda z, y, t: torch.tensor(0.0)],
}

# --- 08.2 -------------------------------------------------------------------------


def risks(c, y):
    order = c.argsort(descending=True)
    return (1 - y[order].double()).cumsum(0) / torch.arange(1, len(c) + 1)


def risks_by_loop(c, y):
    out = []
    for k in range(1, len(c) + 1):
        best = c.topk(k).indices
        out.append(float((y[best] == 0).double().mean()))
    return torch.tensor(out, dtype=torch.float64)


def _falling(c):
    return c.sort(descending=True).values


def _counts(c):
    return torch.arange(1, len(c) + 1)


RISKS = {
    "the least sure first": [lambda c, y: risks(1 - c, y)],
    "not sorted": [lambda c, y: (1 - y.double()).cumsum(0) / _counts(c)],
    "accuracy": [lambda c, y: 1 - risks(c, y)],
    "divided by all items": [lambda c, y: risks(c, y) * _counts(c) / len(c)],
    "not cumulative": [lambda c, y: 1 - y[c.argsort(descending=True)].double()],
    "counts": [lambda c, y: risks(c, y) * _counts(c)],
    "backwards": [lambda c, y: risks(c, y).flip(0)],
    "what it expects, not what happened": [
        lambda c, y: (1 - _falling(c)).cumsum(0) / _counts(c)
    ],
    "in the items' own order": [
        lambda c, y: risks(c, y)[c.argsort(descending=True).argsort()]
    ],
    "zeros": [lambda c, y: torch.zeros(len(c))],
}

# --- The tables -------------------------------------------------------------------

TABLE = {"08.1": SCALED, "08.2": RISKS}
REFERENCES = [
    ("08.1", scaled),
    ("08.1", lambda z, y, t: -(z / t).log_softmax(1)[range(len(y)), y].mean()),
    ("08.2", risks),
    ("08.2", risks_by_loop),
]


@pytest.mark.parametrize("number, answer", REFERENCES)
def test_a_right_answer_passes(number, answer):
    passes(number, answer)


@pytest.mark.parametrize("number, name, answer", as_params(TABLE))
def test_a_wrong_answer_fails_under_the_name_of_its_mistake(number, name, answer):
    fails_by_name(number, name, answer)


def test_every_exercise_has_references_and_every_known_mistake_a_mutant():
    covers(REFERENCES, TABLE, EXERCISES)
