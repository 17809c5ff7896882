"""The checks of notebooks 07 and 08 accept right answers, reject wrong ones, and name
each known mistake: a table of mutants, as for the other exercises."""

import math

import pytest
import torch
import torch.nn.functional as F

from alignlab.chapters.calibration.exercises import EXERCISES
from alignlab.course.checks import _exercise, grade

# --- 07.1 -------------------------------------------------------------------------


def binned(confidence, correct, n_bins, inside, weigh=lambda gap, m, n: gap.abs() * m):
    """A loop over bins, with what is wrong passed in."""
    n, total = len(confidence), torch.tensor(0.0, dtype=torch.float64)
    for b in range(n_bins + 1):
        here = inside(confidence, b / n_bins, (b + 1) / n_bins, b, n_bins)
        if here.any():
            gap = confidence[here].mean() - correct[here].double().mean()
            total = total + weigh(gap, here.sum(), n) / n
    return total


def right_open(c, low, high, b, n_bins):
    return (c > low) & (c <= high) | (b == 0) & (c == 0)


def above(c, low, high, b, n_bins):
    return (c >= low) & (c < high)


def above_closed(c, low, high, b, n_bins):
    return (c >= low) & ((c < high) | (b == n_bins - 1) & (c == 1)) & (b < n_bins)


def without_one(c, low, high, b, n_bins):
    return (c >= low) & (c < high) & (b < n_bins)


def without_zero(c, low, high, b, n_bins):
    return (c > low) & (c <= high)


def ece(c, y, n_bins):
    return binned(c, y, n_bins, right_open)


def ece_by_index(c, y, n_bins):
    edges = torch.arange(n_bins + 1).double() / n_bins
    where = (torch.searchsorted(edges, c) - 1).clamp(min=0)
    gaps = torch.zeros(n_bins, dtype=c.dtype).index_add(0, where, c - y.double())
    return gaps.abs().sum() / len(c)


def mean_over_bins(c, y, n_bins):
    filled = binned(c, y, n_bins, right_open, lambda gap, m, n: n)
    return binned(c, y, n_bins, right_open, lambda gap, m, n: gap.abs() * n) / filled


def largest(c, y, n_bins):
    gaps = []
    binned(
        c, y, n_bins, right_open, lambda gap, m, n: gaps.append(gap.abs()) or 0 * gap
    )
    return max(gaps)


# --- 07.2 -------------------------------------------------------------------------


def optimum(p, beta):
    return (p.log() + p / beta).softmax(1)


# --- 08.1 -------------------------------------------------------------------------


def scaled(z, y, t):
    return F.cross_entropy(z / t, y)


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


RIGHT = [
    ("07.1", ece),
    ("07.1", ece_by_index),
    ("07.2", optimum),
    ("07.2", lambda p, b: (x := p * torch.exp(p / b)) / x.sum(1, keepdim=True)),
    ("08.1", scaled),
    ("08.1", lambda z, y, t: -(z / t).log_softmax(1)[range(len(y)), y].mean()),
    ("08.2", risks),
    ("08.2", risks_by_loop),
]
MUTANTS = {
    "07.1": [
        ("bin of its own", lambda c, y, n: binned(c, y, n, above)),
        ("confidence 1 is left out", lambda c, y, n: binned(c, y, n, without_one)),
        ("confidence 0 is left out", lambda c, y, n: binned(c, y, n, without_zero)),
        ("the bin above", lambda c, y, n: binned(c, y, n, above_closed)),
        ("plain mean over bins", mean_over_bins),
        ("largest gap", largest),
        ("squared", lambda c, y, n: binned(c, y, n, right_open, _square)),
        ("signed", lambda c, y, n: (c - y.double()).mean()),
        ("no bins", lambda c, y, n: (c - y.double()).abs().mean()),
        ("not divided", lambda c, y, n: ece(c, y, n) * len(c)),
        ("zero", lambda c, y, n: torch.tensor(0.0)),
    ],
    "07.2": [
        ("not normalised", lambda p, b: p * torch.exp(p / b)),
        ("over the items", lambda p, b: (x := p * torch.exp(p / b)) / x.sum(0)),
        ("over everything", lambda p, b: (x := p * torch.exp(p / b)) / x.sum()),
        ("without the reference", lambda p, b: (p / b).softmax(1)),
        ("times β", lambda p, b: (p.log() + p * b).softmax(1)),
        ("sign flipped", lambda p, b: (p.log() - p / b).softmax(1)),
        ("β left out", lambda p, b: (p.log() + p).softmax(1)),
        ("power of p", lambda p, b: (p.log() / b).softmax(1)),
        ("log-probabilities", lambda p, b: optimum(p, b).log()),
        ("p as it was", lambda p, b: p.clone()),
        ("likeliest", lambda p, b: F.one_hot(p.argmax(1), p.shape[1]).double()),
    ],
    "08.1": [
        ("times T", lambda z, y, t: F.cross_entropy(z * t, y)),
        ("no temperature", lambda z, y, t: F.cross_entropy(z, y)),
        ("loss is divided", lambda z, y, t: F.cross_entropy(z, y) / t),
        (
            "probabilities are divided",
            lambda z, y, t: -(z.softmax(1) / t)[range(len(y)), y].log().mean(),
        ),
        ("softmax twice", lambda z, y, t: F.cross_entropy((z / t).softmax(1), y)),
        ("no softmax", lambda z, y, t: -(z / t)[range(len(y)), y].mean()),
        ("sum", lambda z, y, t: F.cross_entropy(z / t, y, reduction="sum")),
        ("sign flipped", lambda z, y, t: -scaled(z, y, t)),
        (
            "mean of probabilities",
            lambda z, y, t: -(z / t).softmax(1)[range(len(y)), y].mean().log(),
        ),
        ("likeliest", lambda z, y, t: -(z / t).log_softmax(1).max(1).values.mean()),
        ("in bits", lambda z, y, t: scaled(z, y, t) / math.log(2)),
        ("zero", lambda z, y, t: torch.tensor(0.0)),
    ],
    "08.2": [
        ("least sure", lambda c, y: risks(1 - c, y)),
        ("not sorted", lambda c, y: (1 - y.double()).cumsum(0) / _counts(c)),
        ("accuracy", lambda c, y: 1 - risks(c, y)),
        ("divided by all", lambda c, y: risks(c, y) * _counts(c) / len(c)),
        ("not cumulative", lambda c, y: 1 - y[c.argsort(descending=True)].double()),
        ("counts", lambda c, y: risks(c, y) * _counts(c)),
        ("backwards", lambda c, y: risks(c, y).flip(0)),
        ("what it expects", lambda c, y: (1 - _falling(c)).cumsum(0) / _counts(c)),
        ("own order", lambda c, y: risks(c, y)[c.argsort(descending=True).argsort()]),
        ("zeros", lambda c, y: torch.zeros(len(c))),
    ],
}  # fmt: skip


def _square(gap, m, n):
    return gap**2 * m


def _falling(c):
    return c.sort(descending=True).values


def _counts(c):
    return torch.arange(1, len(c) + 1)


@pytest.mark.parametrize("number, answer", RIGHT)
def test_a_right_answer_passes(number, answer):
    result = grade(number, answer)
    assert result.passed, result


@pytest.mark.parametrize(
    "number, name, answer",
    [(number, *mutant) for number, some in MUTANTS.items() for mutant in some],
)
def test_a_wrong_answer_fails_under_the_name_of_its_mistake(number, name, answer):
    result = grade(number, answer)
    assert not result.passed
    assert name in result.message


def test_every_known_mistake_has_a_mutant_and_two_references():
    for number, exercise in EXERCISES.items():
        known = {m for case in exercise.cases() for m in exercise.mistakes(case)}
        assert sum(n == number for n, _ in RIGHT) == 2
        for message in known:
            assert any(name in message for name, _ in MUTANTS[number]), message


def test_the_checks_are_found_by_their_number():
    assert all(_exercise(number) is EXERCISES[number] for number in EXERCISES)


def test_a_stub_is_not_answered_yet():
    def stub(*args):
        raise NotImplementedError

    for number in EXERCISES:
        assert "not answered yet" in grade(number, stub).message
