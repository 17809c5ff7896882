"""Right and wrong answers to the exercises of notebook 05."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import softmax as scipy_softmax

from alignlab import objectives as library
from alignlab.evaluation.exact import optimal_policy

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
    "all alike": [lambda p, r, b: torch.full_like(p, 1 / len(p))],
    "divided by the number": [lambda p, r, b: p * (r / b).exp() / len(p)],
    "Z without the reference": [lambda p, r, b: p * (r / b).softmax(0)],
    "divided by the largest": [
        lambda p, r, b: (x := p * (r / b).exp()) / x.max(),
    ],
    "added up, not multiplied": [
        lambda p, r, b: (x := p + (r / b).exp()) / x.sum(),
        lambda p, r, b: (p + (r / b).softmax(0)) / 2,
        lambda p, r, b: p + r / b,
    ],
    "no exponential": [
        lambda p, r, b: (x := p * r / b) / x.sum(),
        lambda p, r, b: (x := p * (1 + r / b)) / x.sum(),
    ],
    "β in the reference's power": [
        lambda p, r, b: ((p.log() + r) / b).softmax(0),
        lambda p, r, b: (p.log() * b + r).softmax(0),
    ],
    "the better completions only": [
        lambda p, r, b: (x := p * (r >= r.mean())) / x.sum()
    ],
    "the softmax of a softmax": [lambda p, r, b: optimum(p, r, b).softmax(0)],
    "every value is 1.001 times": [lambda p, r, b: optimum(p, r, b) * 1.001],
    "returns NaN, at 2 of 5 places: exp(r/β) is infinite": [plain_exponential],
    "wrong for rewards of hundreds": [
        lambda p, r, b: plain_exponential(p, r, b).nan_to_num(0.0),
        lambda p, r, b: plain_exponential(p, r.clamp(-5, 5), b),
    ],
    "calls the library's own": [
        optimal_policy,
        lambda p, r, b: optimal_policy(p, r, b),
    ],
    "right, but no tensor": [
        lambda p, r, b: optimum(p, r, b).tolist(),
        lambda p, r, b: optimum(p, r, b).numpy(),
    ],
    "out of order": [lambda p, r, b: optimum(p, r, b).sort().values],
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


def dpo_by_loop(c, j, rc, rj, b):
    losses = [
        -F.logsigmoid(b * ((w - x) - (y - z))) for w, x, y, z in zip(c, rc, j, rj)
    ]
    return sum(losses) / len(losses)


def papered_over(c, j, rc, rj, b):
    """The value is right where sigmoid is 0, but the gradient passes through log(0)."""
    h = b * margin(c, j, rc, rj)
    return -torch.where(h > -700, h.sigmoid().log(), h).mean()


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
    "the reference is added, or the two": [
        of_margin(lambda c, j, rc, rj, b: b * ((c + rc) - (j + rj))),
        lambda c, j, rc, rj, b: dpo(c, j, rj, rc, b),
    ],
    "the chosen reply only": [
        of_margin(lambda c, j, rc, rj, b: b * (c - rc)),
        lambda c, j, rc, rj, b: -(c - rc).mean(),
        lambda c, j, rc, rj, b: -c.mean(),
    ],
    "each reply by itself": [
        lambda c, j, rc, rj, b: (
            -(F.logsigmoid(b * (c - rc)) + F.logsigmoid(-b * (j - rj))).mean()
        )
    ],
    "squared": [
        lambda c, j, rc, rj, b: (margin(c, j, rc, rj) - 1 / (2 * b)).square().mean()
    ],
    "a hinge": [lambda c, j, rc, rj, b: (1 - b * margin(c, j, rc, rj)).relu().mean()],
    "β on the policy only": [
        of_margin(lambda c, j, rc, rj, b: b * (c - j) - (rc - rj))
    ],
    "ratios of log-probabilities": [
        of_margin(lambda c, j, rc, rj, b: b * (c / rc - j / rj))
    ],
    "probabilities of whole replies": [
        of_margin(lambda c, j, rc, rj, b: b * ((c - rc).exp() - (j - rj).exp()))
    ],
    "every chosen reply against every rejected": [
        of_margin(lambda c, j, rc, rj, b: b * ((c - rc)[:, None] - (j - rj)))
    ],
    "a share of the pairs": [
        lambda *a: (margin(*a[:4]) < 0).double().mean(),
        lambda *a: (margin(*a[:4]) > 0).double().mean(),
    ],
    "every value is 1.001 times": [lambda *a: dpo(*a) * 1.001],
    "returns infinity: log(sigmoid) is minus infinity": [naive],
    "wrong for a margin of -900": [
        lambda *a: -(a[4] * margin(*a[:4])).sigmoid().clamp(1e-30).log().mean(),
        lambda *a: (
            -(a[4] * margin(*a[:4])).sigmoid().log().nan_to_num(neginf=-99).mean()
        ),
    ],
    "the gradient is NaN": [papered_over],
    "calls the library's own": [
        library.dpo_loss,
        lambda *a: library.dpo_loss(*a).mean(),
    ],
    "right only for a single pair": [lambda *a: dpo(*(x[:1] for x in a[:4]), a[4])],
    "β counts twice": [lambda c, j, rc, rj, b: dpo(c, j, rc, rj, b * b)],
}

# --- 05.5 -------------------------------------------------------------------------


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
    "divided by β": [
        lambda h, b: torch.sigmoid(-b * h) / b,
        lambda h, b: b * torch.sigmoid(-h / b),
    ],
    "β counts twice": [lambda h, b: b**2 * torch.sigmoid(-b * h)],
    "the logarithm of it": [
        lambda h, b: b * F.logsigmoid(-b * h),
        lambda h, b: F.logsigmoid(-b * h),
    ],
    "0 or 1": [lambda h, b: b * (h < 0)],
    "an exponential": [lambda h, b: b * (-b * h).exp()],
    "a tanh": [lambda h, b: b * torch.tanh(-b * h)],
    "the loss times β": [lambda h, b: b * F.softplus(-b * h)],
    "times the margin": [lambda h, b: h * torch.sigmoid(-b * h)],
    "divided by the number of pairs": [lambda h, b: weight(h, b) / len(h)],
    "absolute margins": [lambda h, b: weight(h.abs(), b)],
    "every value is 1.001 times": [lambda h, b: weight(h, b) * 1.001],
    "backwards": [lambda h, b: weight(h, b).flip(0)],
    "returns NaN": [lambda h, b: weight(h, b) * math.nan],
    "changes its input: margin": [lambda h, b: b * h.mul_(-b).sigmoid()],
    "returns a str": [lambda h, b: "beta * sigmoid(-beta * margin)"],
    "one number": [lambda h, b: weight(h, b).mean()],
}

# --- The tables -------------------------------------------------------------------

WRONG = {"05.1": OPTIMA, "05.2": DPOS, "05.5": WEIGHTS}

RIGHT = {
    "05.1": {
        "a softmax": optimum,
        "sums": optimum_by_sums,
        "float32": lambda p, r, b: optimum(p.float(), r.float(), b),
        "log-sum-exp": lambda p, r, b: ((x := p.log() + r / b) - x.logsumexp(0)).exp(),
        "one row": lambda p, r, b: optimum(p, r, b)[None][0],
        "tensors that are stacked": lambda p, r, b: torch.stack(list(optimum(p, r, b))),
        "numpy, made a tensor": lambda p, r, b: torch.tensor(
            scipy_softmax(np.log(p.numpy()) + r.numpy() / b)
        ),
        "in place on its own": lambda p, r, b: (
            p.log().add_(r / b).sub_((r / b).max()).softmax(0)
        ),
        "one over a sum": lambda p, r, b: torch.stack(
            [1 / (p / q * ((r - s) / b).exp()).sum() for q, s in zip(p, r)]
        ),
    },
    "05.2": {
        "logsigmoid": dpo,
        "softplus": dpo_by_softplus,
        "float32": lambda *a: dpo(*(x.float() for x in a[:4]), a[4]),
        "differences first": lambda c, j, rc, rj, b: (
            -F.logsigmoid(b * ((c - j) - (rc - rj))).mean()
        ),
        "a loop": dpo_by_loop,
        "with logits": lambda *a: F.binary_cross_entropy_with_logits(
            a[4] * margin(*a[:4]), torch.ones_like(a[0])
        ),
        "logaddexp": lambda *a: torch.logaddexp(
            torch.zeros_like(a[0]), -a[4] * margin(*a[:4])
        ).mean(),
        "of shape (1,)": lambda *a: dpo(*a)[None],
        "a sum that is divided": lambda *a: (
            F.softplus(-a[4] * margin(*a[:4])).sum() / len(a[0])
        ),
    },
    "05.5": {
        "a sigmoid": weight,
        "autograd": weight_by_autograd,
        "float32": lambda h, b: weight(h.float(), b),
        "one over": lambda h, b: b / (1 + (b * h).exp()),
        "a list of floats": lambda h, b: [
            b / (1 + math.exp(b * x)) for x in h.tolist()
        ],
        "a list of 0-d tensors": lambda h, b: list(weight(h, b)),
        "a tuple": lambda h, b: tuple(weight(h, b).tolist()),
        "numpy with negative strides": lambda h, b: weight(h.flip(0), b).numpy()[::-1],
        "one minus": lambda h, b: b * (1 - (b * h).sigmoid()),
        "a tanh": lambda h, b: b * (1 - (b * h / 2).tanh()) / 2,
    },
}
