"""The checks of notebook 07 accept right answers, reject wrong ones, and name each
known mistake: a table of mutants, as for the other exercises."""

import pytest
import torch
import torch.nn.functional as F

from alignlab.chapters.calibration.exercises import EXERCISES
from tests.grading import as_params, covers, fails_by_name, passes

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


def _square(gap, m, n):
    return gap**2 * m


ECES = {
    "confidence 1 lies in a bin of its own": [lambda c, y, n: binned(c, y, n, above)],
    "confidence 1 is left out": [lambda c, y, n: binned(c, y, n, without_one)],
    "confidence 0 is left out": [lambda c, y, n: binned(c, y, n, without_zero)],
    "edges belong to the bin above": [lambda c, y, n: binned(c, y, n, above_closed)],
    "plain mean over bins": [mean_over_bins],
    "the largest gap": [largest],
    "squared gaps": [lambda c, y, n: binned(c, y, n, right_open, _square)],
    "signed gaps": [lambda c, y, n: (c - y.double()).mean()],
    "no bins": [lambda c, y, n: (c - y.double()).abs().mean()],
    "not divided by the number of predictions": [lambda c, y, n: ece(c, y, n) * len(c)],
    "zero": [lambda c, y, n: torch.tensor(0.0)],
}

# --- 07.2 -------------------------------------------------------------------------


def optimum(p, beta):
    return (p.log() + p / beta).softmax(1)


OPTIMA = {
    "not normalised": [lambda p, b: p * torch.exp(p / b)],
    "normalised over the items": [lambda p, b: (x := p * torch.exp(p / b)) / x.sum(0)],
    "normalised over everything": [lambda p, b: (x := p * torch.exp(p / b)) / x.sum()],
    "without the reference": [lambda p, b: (p / b).softmax(1)],
    "times β, not divided by it": [lambda p, b: (p.log() + p * b).softmax(1)],
    "sign flipped": [lambda p, b: (p.log() - p / b).softmax(1)],
    "β left out": [lambda p, b: (p.log() + p).softmax(1)],
    "a power of p": [lambda p, b: (p.log() / b).softmax(1)],
    "log-probabilities": [lambda p, b: optimum(p, b).log()],
    "p as it was": [lambda p, b: p.clone()],
    "all on the likeliest option": [
        lambda p, b: F.one_hot(p.argmax(1), p.shape[1]).double()
    ],
}

# --- 07.3 -------------------------------------------------------------------------


def reward_loss(log_probs, reward, reference, beta):
    policy, start = log_probs.log_softmax(1), reference.log_softmax(1)
    p = policy.exp()
    return (p * (beta * (policy - start) - reward)).sum(1).mean()


def reward_loss_by_library(log_probs, reward, reference, beta):
    """KL by torch, whose arguments are the other way round."""
    policy, start = log_probs.log_softmax(1), reference.log_softmax(1)
    kl = F.kl_div(start, policy, reduction="batchmean", log_target=True)
    return beta * kl - torch.einsum("nk,nk->n", policy.exp(), reward).mean()


def parts_of(log_probs, reward, reference):
    policy, start = log_probs.log_softmax(1), reference.log_softmax(1)
    p = policy.exp()
    return p, policy, start, (p * (policy - start)).sum(1), (p * reward).sum(1)


def _of_parts(combine):
    """A loss of p, log p, log of the reference, the KL, what is earned, and beta."""
    return lambda x, r, ref, b: combine(*parts_of(x, r, ref), r, b)


REWARDS = {
    "sign of the reward": [
        _of_parts(lambda p, lp, lq, kl, e, r, b: (b * kl + e).mean()),
        lambda *args: -reward_loss(*args),
    ],
    "sign of the KL": [_of_parts(lambda p, lp, lq, kl, e, r, b: (-b * kl - e).mean())],
    "no KL": [_of_parts(lambda p, lp, lq, kl, e, r, b: -e.mean())],
    "β left out": [_of_parts(lambda p, lp, lq, kl, e, r, b: (kl - e).mean())],
    "β on the reward": [_of_parts(lambda p, lp, lq, kl, e, r, b: (kl - b * e).mean())],
    "KL the other way round": [
        _of_parts(
            lambda p, lp, lq, kl, e, r, b: (
                b * (lq.exp() * (lq - lp)).sum(1) - e
            ).mean()
        )
    ],
    "sum over items": [_of_parts(lambda p, lp, lq, kl, e, r, b: (b * kl - e).sum())],
    "mean over options": [
        _of_parts(lambda p, lp, lq, kl, e, r, b: (b * p * (lp - lq) - p * r).mean())
    ],
    "not normalised": [
        lambda x, r, ref, b: (b * x.exp() * (x - ref) - x.exp() * r).sum(1).mean()
    ],
    "cross-entropy": [
        _of_parts(lambda p, lp, lq, kl, e, r, b: (b * kl - (lp * r).sum(1)).mean()),
        _of_parts(lambda p, lp, lq, kl, e, r, b: -(lp * r).sum(1).mean()),
    ],
    "expected log-ratio without its weights": [
        _of_parts(lambda p, lp, lq, kl, e, r, b: (b * (lp - lq).sum(1) - e).mean())
    ],
    "zero": [lambda x, r, ref, b: 0 * x.sum()],
    "no gradient": [lambda *args: reward_loss(*args).detach()],
}

# --- The tables -------------------------------------------------------------------

TABLE = {"07.1": ECES, "07.2": OPTIMA, "07.3": REWARDS}
REFERENCES = [
    ("07.1", ece),
    ("07.1", ece_by_index),
    ("07.2", optimum),
    ("07.2", lambda p, b: (x := p * torch.exp(p / b)) / x.sum(1, keepdim=True)),
    ("07.3", reward_loss),
    ("07.3", reward_loss_by_library),
]


@pytest.mark.parametrize("number, answer", REFERENCES)
def test_a_right_answer_passes(number, answer):
    passes(number, answer)


@pytest.mark.parametrize("number, name, answer", as_params(TABLE))
def test_a_wrong_answer_fails_under_the_name_of_its_mistake(number, name, answer):
    fails_by_name(number, name, answer)


def test_every_exercise_has_references_and_every_known_mistake_a_mutant():
    covers(REFERENCES, TABLE, EXERCISES)
