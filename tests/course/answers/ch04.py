"""Right and wrong answers to notebook 04; those to 04.1 are in ch04_gae.py."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from alignlab import objectives as library
from tests.course.answers import ch04_gae

# --- 04.2 -------------------------------------------------------------------------


def mean_of(objective, m):
    return -(objective * m).sum() / m.sum()


def clipped(n, o, a, m, e):
    ratio = (n - o).exp()
    return mean_of(torch.minimum(ratio * a, ratio.clamp(1 - e, 1 + e) * a), m)


def clipped_by_cases(n, o, a, m, e):
    """A token counts for its ratio, unless it has gone far enough the right way."""
    ratio = (n - o).exp()
    limit = torch.where(a > 0, ratio.clamp(max=1 + e), ratio.clamp(min=1 - e))
    return -(limit * a)[m.bool()].mean()


def each_token(n, o, a, m, e):
    ratio = (n - o).exp()
    return -torch.minimum(ratio * a, ratio.clamp(1 - e, 1 + e) * a) * m


def picked(pick):
    def loss(n, o, a, m, e):
        ratio = (n - o).exp()
        return mean_of(pick(ratio * a, ratio.clamp(1 - e, 1 + e) * a), m)

    return loss


def with_ratio(ratio_of):
    def loss(n, o, a, m, e):
        ratio = ratio_of(n, o)
        return mean_of(torch.minimum(ratio * a, ratio.clamp(1 - e, 1 + e) * a), m)

    return loss


def partly_detached(n, o, a, m, e):
    ratio = (n - o).exp()
    ratio = torch.where(a > 0, ratio, ratio.detach())
    return mean_of(torch.minimum(ratio * a, ratio.clamp(1 - e, 1 + e) * a), m)


def picked_ratio(near_of):
    def loss(n, o, a, m, e):
        ratio = (n - o).exp()
        return mean_of(torch.minimum(ratio * a, near_of(ratio, e) * a), m)

    return loss


def with_ratio_of(ratio_of):
    def loss(n, o, a, m, e):
        ratio = ratio_of(n - o, e)
        return mean_of(torch.minimum(ratio * a, ratio.clamp(1 - e, 1 + e) * a), m)

    return loss


def clipped_by_loop(n, o, a, m, e):
    total = 0.0
    for row, t in m.nonzero().tolist():
        ratio = (n[row, t] - o[row, t]).exp()
        total = total - min(ratio * a[row, t], ratio.clamp(1 - e, 1 + e) * a[row, t])
    return total / m.sum()


CLIPS = {
    "sign flipped": [lambda n, o, a, m, e: -clipped(n, o, a, m, e)],
    "maximum, not minimum": [picked(torch.maximum)],
    "not clipped": [picked(lambda plain, near: plain)],
    "clipped only": [picked(lambda plain, near: near)],
    "old over new": [with_ratio(lambda n, o: (o - n).exp())],
    "no exponential": [
        with_ratio(lambda n, o: n - o),
        with_ratio(lambda n, o: 1 + n - o),
    ],
    "ratio of log-probabilities": [with_ratio(lambda n, o: n / o)],
    "padding counts": [
        lambda n, o, a, m, e: clipped(n, o, a, torch.ones_like(m), e),
        lambda n, o, a, m, e: each_token(n, o, a, m, e).mean(),
    ],
    "mean of row means": [
        lambda n, o, a, m, e: (each_token(n, o, a, m, e).sum(1) / m.sum(1)).mean()
    ],
    "sum, not mean": [lambda n, o, a, m, e: each_token(n, o, a, m, e).sum()],
    "divides by the number of rows": [
        lambda n, o, a, m, e: each_token(n, o, a, m, e).sum() / len(n)
    ],
    "clips the advantage": [
        lambda n, o, a, m, e: mean_of((n - o).exp() * a.clamp(-e, e), m),
        lambda n, o, a, m, e: mean_of((n - o).exp() * a.clamp(1 - e, 1 + e), m),
    ],
    "clips around 0": [
        lambda n, o, a, m, e: mean_of(
            torch.minimum((n - o).exp() * a, (n - o).exp().clamp(-e, e) * a), m
        )
    ],
    "zero": [lambda n, o, a, m, e: 0.0],
    "no gradient": [
        lambda n, o, a, m, e: clipped(n, o, a, m, e).item(),
        lambda n, o, a, m, e: clipped(n.detach(), o, a, m, e),
    ],
    "wrong gradient": [partly_detached],
    "not reduced to one number": [each_token],
    "one side only": [
        picked_ratio(lambda ratio, e: ratio.clamp(max=1 + e)),
        picked_ratio(lambda ratio, e: ratio.clamp(min=1 - e)),
    ],
    "the advantages are not used": [
        lambda n, o, a, m, e: clipped(n, o, torch.ones_like(a), m, e),
        lambda n, o, a, m, e: mean_of((n - o).exp(), m),
    ],
    "absolute advantages": [lambda n, o, a, m, e: clipped(n, o, a.abs(), m, e)],
    "the smaller ratio": [
        lambda n, o, a, m, e: mean_of(
            torch.minimum((n - o).exp(), (n - o).exp().clamp(1 - e, 1 + e)) * a, m
        )
    ],
    "log-probabilities are clipped": [with_ratio_of(lambda d, e: d.clamp(-e, e).exp())],
    "whitened advantages": [
        lambda n, o, a, m, e: clipped(n, o, library.whiten(a, m), m, e),
        lambda n, o, a, m, e: clipped(n, o, (a - a.mean()) / a.std(), m, e),
    ],
    "the plain policy gradient": [lambda n, o, a, m, e: mean_of(n * a, m)],
    "the product's parts": [
        lambda n, o, a, m, e: mean_of((n - o).exp(), m) * ch04_gae.mean_over(a, m)
    ],
    "the range is ε in all": [lambda n, o, a, m, e: clipped(n, o, a, m, 0.5 * e)],
    "the range is twice ε": [lambda n, o, a, m, e: clipped(n, o, a, m, 2 * e)],
    "0.2, whatever the range": [lambda n, o, a, m, e: clipped(n, o, a, m, 0.2)],
    "every value is 1.001 times": [
        lambda n, o, a, m, e: clipped(n, o, a, m, e) * 1.001
    ],
    "calls the library's own": [
        library.ppo_policy_loss,
        lambda n, o, a, m, e: library.ppo_policy_loss(n, o, a, m, e),
    ],
    "wrong for rows of unequal length": [
        lambda n, o, a, m, e: clipped(n[:1], o[:1], a[:1], m[:1], e)
    ],
    "changes its input: advantages": [
        lambda n, o, a, m, e: clipped(n, o, a.mul_(m), m, e)
    ],
    "clipped at 1 on one side": [
        picked_ratio(lambda ratio, e: ratio.clamp(1 - e, 1)),
        picked_ratio(lambda ratio, e: ratio.clamp(1, 1 + e)),
    ],
}

# --- 04.3 -------------------------------------------------------------------------


def value_loss(v, o, r, m, e):
    near = o + (v - o).clamp(-e, e)
    errors = torch.maximum((v - r) ** 2, (near - r) ** 2) / 2
    return (errors * m).sum() / m.sum()


def value_loss_by_cases(v, o, r, m, e):
    """The clipped value counts where it is further from the return."""
    near = torch.where(v > o, v.clamp(max=o + e), v.clamp(min=o - e))
    further = torch.where((near - r).abs() > (v - r).abs(), near, v)
    return 0.5 * ((further - r)[m.bool()] ** 2).mean()


def each_error(v, o, r, m, e):
    near = o + (v - o).clamp(-e, e)
    return torch.maximum((v - r) ** 2, (near - r) ** 2) / 2 * m


def with_near(near_of, pick=torch.maximum):
    def loss(v, o, r, m, e):
        return mean_error(pick((v - r) ** 2, (near_of(v, o, e) - r) ** 2), m)

    return loss


def mean_error(errors, m):
    return (errors * m).sum() / m.sum() / 2


def usual_near(v, o, e):
    return o + (v - o).clamp(-e, e)


def unsquared(v, o, r, m, e):
    near = usual_near(v, o, e)
    return mean_error(torch.maximum((v - r).abs(), (near - r).abs()), m)


def values_partly_detached(v, o, r, m, e):
    return value_loss(torch.where(v > o, v, v.detach()), o, r, m, e)


def value_loss_by_loop(v, o, r, m, e):
    total = 0.0
    for new, old, wanted in zip(v[m == 1], o[m == 1], r[m == 1]):
        near = old + (new - old).clamp(-e, e)
        total = total + max((new - wanted) ** 2, (near - wanted) ** 2)
    return total / (2 * m.sum())


VALUES = {
    "half forgotten": [lambda v, o, r, m, e: 2 * value_loss(v, o, r, m, e)],
    "sign flipped": [lambda v, o, r, m, e: -value_loss(v, o, r, m, e)],
    "minimum, not maximum": [with_near(usual_near, torch.minimum)],
    "not clipped": [lambda v, o, r, m, e: mean_error((v - r) ** 2, m)],
    "clipped only": [
        lambda v, o, r, m, e: mean_error((usual_near(v, o, e) - r) ** 2, m)
    ],
    "clips around 0": [with_near(lambda v, o, e: v.clamp(-e, e))],
    "not squared": [unsquared],
    "old values in place of returns": [
        lambda v, o, r, m, e: mean_error((v - o) ** 2, m)
    ],
    "padding counts": [
        lambda v, o, r, m, e: value_loss(v, o, r, torch.ones_like(m), e),
        lambda v, o, r, m, e: each_error(v, o, r, m, e).mean(),
    ],
    "mean of row means": [
        lambda v, o, r, m, e: (each_error(v, o, r, m, e).sum(1) / m.sum(1)).mean()
    ],
    "sum, not mean": [lambda v, o, r, m, e: each_error(v, o, r, m, e).sum()],
    "zero": [lambda v, o, r, m, e: 0.0],
    "no gradient": [lambda v, o, r, m, e: value_loss(v, o, r, m, e).item()],
    "wrong gradient": [values_partly_detached],
    "not reduced to one number": [each_error],
    "divides by the number of rows": [
        lambda v, o, r, m, e: each_error(v, o, r, m, e).sum() / len(v)
    ],
    "the root of it": [
        lambda v, o, r, m, e: (2 * value_loss(v, o, r, m, e)).sqrt(),
        lambda v, o, r, m, e: value_loss(v, o, r, m, e).sqrt(),
    ],
    "both errors added": [
        lambda v, o, r, m, e: mean_error(
            (v - r) ** 2 + (usual_near(v, o, e) - r) ** 2, m
        )
    ],
    "clips by a factor": [with_near(lambda v, o, e: o * (v / o).clamp(1 - e, 1 + e))],
    "one side only": [
        with_near(lambda v, o, e: v.minimum(o + e)),
        with_near(lambda v, o, e: v.maximum(o - e)),
    ],
    "clips the returns": [
        lambda v, o, r, m, e: mean_error(
            torch.maximum((v - r) ** 2, (v - o - (r - o).clamp(-e, e)) ** 2), m
        )
    ],
    "clips the error": [lambda v, o, r, m, e: mean_error((v - r).clamp(-e, e) ** 2, m)],
    "the difference is not added": [with_near(lambda v, o, e: (v - o).clamp(-e, e))],
    "calls the library's own": [library.ppo_value_loss],
    "every value is 1.001 times": [
        lambda v, o, r, m, e: value_loss(v, o, r, m, e) * 1.001
    ],
    "wrong for rows of unequal length": [
        lambda v, o, r, m, e: value_loss(v[:1], o[:1], r[:1], m[:1], e)
    ],
    "the range is ε in all": [lambda v, o, r, m, e: value_loss(v, o, r, m, 0.5 * e)],
    "the range is twice ε": [lambda v, o, r, m, e: value_loss(v, o, r, m, 2 * e)],
    "0.2, whatever the range": [lambda v, o, r, m, e: value_loss(v, o, r, m, 0.2)],
    "Huber's loss": [lambda v, o, r, m, e: F.smooth_l1_loss(v[m == 1], r[m == 1])],
}

# --- 04.6 -------------------------------------------------------------------------


def k3(n, o):
    return torch.exp(o - n) - 1 + (n - o)


def kl_in_place(n, o):
    d = n - o
    estimate = d.neg().exp_().sub_(1)
    return estimate.add_(d)


KLS = {
    "policy and reference exchanged": [lambda n, o: k3(o, n)],
    "k1:": [lambda n, o: n - o],
    "k1 the wrong way round": [lambda n, o: o - n],
    "k2": [lambda n, o: (n - o) ** 2 / 2],
    "only the exponential part": [lambda n, o: (o - n).exp() - 1],
    "1 not taken off": [lambda n, o: (o - n).exp() + n - o],
    "d taken off": [lambda n, o: (o - n).exp() - 1 - (n - o)],
    "absolute value of k1": [lambda n, o: (n - o).abs()],
    "ratio of log-probabilities": [lambda n, o: (-n / o).exp() - 1 + n / o],
    "in bits": [lambda n, o: k3(n, o) / math.log(2)],
    "sign flipped": [lambda n, o: -k3(n, o)],
    "zeros everywhere": [lambda n, o: torch.zeros_like(n)],
    "summed up": [lambda n, o: k3(n, o).sum(1), lambda n, o: k3(n, o).mean()],
    "k1 and k3 mixed": [lambda n, o: (n - o).exp() - 1 + n - o],
    "weighed by the policy": [
        lambda n, o: n.exp() * k3(n, o),
        lambda n, o: n.exp() * (n - o),
    ],
    "half of k3": [lambda n, o: k3(n, o) / 2],
    "clipped at 0": [lambda n, o: (n - o).clamp(min=0)],
    "2 taken off": [lambda n, o: (o - n).exp() - 2 + n - o],
    "the root of k2's distance": [lambda n, o: ((n - o) ** 2 / 2).sqrt()],
    "the ratio itself": [lambda n, o: (n - o).exp(), lambda n, o: (o - n).exp()],
    "the exponential of probabilities": [
        lambda n, o: n.exp() - o.exp(),
        lambda n, o: (n.exp() - o.exp()).abs(),
    ],
    "every value is 1.001 times": [lambda n, o: k3(n, o) * 1.001],
    "calls the library's own": [
        library.kl_estimate,
        lambda n, o: library.kl_estimate(n, o, estimator="k3"),
    ],
    "right, but no tensor": [lambda n, o: k3(n, o).numpy()],
    "added up as it goes": [lambda n, o: k3(n, o).cumsum(1)],
    "returns NaN": [lambda n, o: n.exp().log1p() * math.inf - math.inf],
    "returns -0.5484: this is never negative": [
        lambda n, o: torch.expm1(torch.expm1(o - n))
    ],
}

# --- The tables -------------------------------------------------------------------

WRONG = {"04.1": ch04_gae.WRONG, "04.2": CLIPS, "04.3": VALUES, "04.6": KLS}

RIGHT = {
    "04.1": ch04_gae.RIGHT,
    "04.2": {
        "the smaller product": clipped,
        "by cases": clipped_by_cases,
        "float32": lambda n, o, a, m, e: clipped(n.float(), o.float(), a.float(), m, e),
        "the larger of minus": lambda n, o, a, m, e: torch.maximum(
            -a * (n - o).exp(), -a * (n - o).exp().clamp(1 - e, 1 + e)
        )[m.bool()].mean(),
        "a loop": clipped_by_loop,
        "einsum in float32": lambda n, o, a, m, e: (
            torch.einsum("bt,bt->", each_token(n, o, a, m, e), m.float()) / m.sum()
        ),
        "rows weighed": lambda n, o, a, m, e: (
            (each_token(n, o, a, m, e).sum(1) / m.sum(1)) * m.sum(1) / m.sum()
        ).sum(),
        "of shape (1,)": lambda n, o, a, m, e: clipped(n, o, a, m, e)[None],
        "masked select": lambda n, o, a, m, e: (
            each_token(n, o, a, m, e).masked_select(m == 1).mean()
        ),
    },
    "04.3": {
        "the larger error": value_loss,
        "by cases": value_loss_by_cases,
        "float32": lambda v, o, r, m, e: value_loss(
            v.float(), o.float(), r.float(), m, e
        ),
        "half of the largest": lambda v, o, r, m, e: (
            0.5
            * torch.stack([v - r, usual_near(v, o, e) - r])
            .square()
            .amax(0)[m == 1]
            .mean()
        ),
        "min and max": lambda v, o, r, m, e: mean_error(
            torch.maximum(
                (v - r).square(),
                (torch.min(torch.max(v, o - e), o + e) - r).square(),
            ),
            m,
        ),
        "a loop": value_loss_by_loop,
        "einsum": lambda v, o, r, m, e: (
            torch.einsum("bt,bt->", each_error(v, o, r, m, e), m.double()) / m.sum()
        ),
        "of shape (1,)": lambda v, o, r, m, e: value_loss(v, o, r, m, e).reshape(1),
    },
    "04.6": {
        "the formula": k3,
        "expm1": lambda n, o: torch.expm1(o - n) + n - o,
        "float32": lambda n, o: k3(n.double(), o.double()).float(),
        "a ratio": lambda n, o: o.exp() / n.exp() - 1 - (o - n),
        "rows that are stacked": lambda n, o: torch.stack(
            [k3(x, y) for x, y in zip(n, o)]
        ),
        "numpy, made a tensor": lambda n, o: torch.tensor(
            np.expm1((o - n).numpy()) + (n - o).numpy()
        ),
        "in place on its own": kl_in_place,
        "a Bregman divergence": lambda n, o: (x := (o - n).exp()) - 1 - x.log(),
    },
}
