"""Right and wrong answers to the exercises of notebook 07."""

import numpy as np
import torch
import torch.nn.functional as F

from alignlab.calibration.metrics import expected_calibration_error
from alignlab.chapters.calibration.tuning import reward_loss as library_loss
from alignlab.evaluation.exact import optimal_policy

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


def by_quantiles(c, y, n_bins):
    gaps = (c - y.double())[c.argsort()]
    return sum(part.sum().abs() for part in gaps.tensor_split(n_bins)) / len(c)


def at_edges(part):
    """With a place of the bin, as a share of its width, for the mean confidence."""

    def answer(c, y, n_bins):
        edges = torch.arange(n_bins + 1).double() / n_bins
        where = (torch.searchsorted(edges, c) - 1).clamp(min=0)
        gaps = (where + part) / n_bins - y.double()
        return sum(gaps[where == b].sum().abs() for b in range(n_bins)) / len(c)

    return answer


def without_looking(c, y, n_bins):
    """A loop that takes means of empty bins."""
    total = 0.0
    for b in range(n_bins):
        here = right_open(c, b / n_bins, (b + 1) / n_bins, b, n_bins)
        gap = (c[here].mean() - y[here].double().mean()).abs()
        total = total + gap * here.sum() / len(c)
    return total


def fills_empty_bins(c, y, n_bins):
    """Takes the distance of an empty bin to be 1 / B, as if it held an item."""
    total = ece(c, y, n_bins)
    for b in range(n_bins):
        here = right_open(c, b / n_bins, (b + 1) / n_bins, b, n_bins)
        total = total + (0 if here.any() else 1 / (n_bins * len(c)))
    return total


def ece_by_ceilings(c, y, n_bins):
    where = ((c * n_bins).ceil().long() - 1).clamp(min=0)
    gaps = torch.bincount(where, weights=c - y, minlength=n_bins)
    return gaps.abs().sum() / len(c)


def ece_by_numpy(c, y, n_bins):
    c, y = c.numpy(), y.numpy()
    where = np.digitize(c, np.linspace(0, 1, n_bins + 1)[1:-1], right=True)
    bins = [where == b for b in range(n_bins)]
    return sum(abs(c[b].mean() - y[b].mean()) * b.mean() for b in bins if b.any())


def ece_by_linspace(c, y, n_bins):
    edges, total = torch.linspace(0, 1, n_bins + 1), 0.0
    for low, high in zip(edges[:-1], edges[1:]):
        here = (c > low) & (c <= high)
        if low == 0:
            here |= c == 0
        if here.sum() > 0:
            gap = c[here].mean() - y[here].float().mean()
            total += here.float().mean() * gap.abs()
    return total


def ece_by_histogram(c, y, n_bins):
    edges = np.arange(n_bins + 1) / n_bins
    edges[0] = -1.0
    # Mirrored, as numpy's bins are closed on the left.
    gaps, _ = np.histogram(-c.numpy(), bins=-edges[::-1], weights=(c - y).numpy())
    last = (c - y)[c == 0].sum().item()
    zero = np.histogram(-c.numpy(), bins=-edges[::-1])[0].sum() == len(c)
    return (np.abs(gaps).sum() + (0 if zero else abs(last))) / len(c)


def ece_with_buffers(c, y, n_bins):
    """Fits float32 only, as index_add takes one type."""
    where = (torch.bucketize(c, torch.arange(n_bins + 1) / n_bins) - 1).clamp(min=0)
    sums = torch.zeros(n_bins).index_add(0, where, c - y)
    return sums.abs().sum() / len(c)


def ece_by_one_hot(c, y, n_bins):
    where = ((c * n_bins).ceil() - 1).clamp(min=0).long()
    member = F.one_hot(where, n_bins).to(c.dtype)
    return torch.einsum("nb,n->b", member, c - y).abs().sum() / len(c)


def ece_in_python(c, y, n_bins):
    bins = {}
    for sure, right in zip(c.tolist(), y.tolist()):
        place = next(b for b in range(n_bins) if sure <= (b + 1) / n_bins)
        bins.setdefault(place, []).append(sure - right)
    return sum(abs(sum(gaps)) for gaps in bins.values()) / len(c)


def ece_with_nan_to_num(c, y, n_bins):
    total = 0.0
    for b in range(n_bins):
        here = right_open(c, b / n_bins, (b + 1) / n_bins, b, n_bins)
        gap = (c[here].mean() - y[here].double().mean()).abs().nan_to_num(0)
        total = total + gap * here.sum() / len(c)
    return total


ECES = {
    "confidence 1 lies in a bin of its own": [lambda c, y, n: binned(c, y, n, above)],
    "confidence 1 is left out": [lambda c, y, n: binned(c, y, n, without_one)],
    "confidence 0 is left out": [lambda c, y, n: binned(c, y, n, without_zero)],
    "edges belong to the bin above": [lambda c, y, n: binned(c, y, n, above_closed)],
    "plain mean over bins": [mean_over_bins],
    "the largest gap": [largest],
    "squared gaps": [lambda c, y, n: binned(c, y, n, right_open, _square)],
    "signed gaps": [
        lambda c, y, n: (c - y.double()).mean(),
        lambda c, y, n: (c.mean() - y.double().mean()).abs(),
    ],
    "no bins": [lambda c, y, n: (c - y.double()).abs().mean()],
    "not divided by the number of predictions": [lambda c, y, n: ece(c, y, n) * len(c)],
    "zero": [lambda c, y, n: torch.tensor(0.0)],
    "the number of predictions in a bin is left out": [
        lambda c, y, n: binned(c, y, n, right_open, lambda gap, m, n: gap.abs() * n)
    ],
    "bins of equal size": [by_quantiles],
    "accuracy left out": [lambda c, y, n: c.mean()],
    "the middle of a bin": [at_edges(0.5)],
    "the lower or the upper edge": [at_edges(0.0), at_edges(1.0)],
    "in percent": [lambda c, y, n: 100 * ece(c, y, n)],
    "only where it is too sure": [
        lambda c, y, n: binned(
            c, y, n, right_open, lambda gap, m, n: gap.clamp(min=0) * m
        ),
    ],
    "one bin too many": [
        lambda c, y, n: ece(c, y, n + 1),
        lambda c, y, n: ece(c, y, n - 1) if n > 1 else ece(c, y, n),
    ],
    "the last bin is left out": [
        lambda c, y, n: binned(c, y, n, lambda *a: right_open(*a) & (a[3] < n - 1))
    ],
    "the first bin is left out": [
        lambda c, y, n: binned(c, y, n, lambda *a: right_open(*a) & (a[3] > 0))
    ],
    "the Brier score": [lambda c, y, n: ((c - y.double()) ** 2).mean()],
    "ten bins": [lambda c, y, n: ece(c, y, 10)],
    "returns NaN: an empty bin has no mean": [without_looking],
    "wrong for empty bins": [
        lambda c, y, n: ece(c, y, n) if len(c) > 6 else torch.tensor(0.5)
    ],
    "wrong for ten bins and for empty bins": [fills_empty_bins],
    "calls the library's own": [
        lambda c, y, n: expected_calibration_error(c.numpy(), y.numpy(), n)
    ],
    "not reduced to one number": [lambda c, y, n: (c - y).abs()],
    "changes its input: confidence": [lambda c, y, n: ece(c, y, n) + c.mul_(0).sum()],
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
    "all alike": [lambda p, b: torch.full_like(p, 1 / p.shape[1])],
    "β takes part in the reference": [
        lambda p, b: ((p.log() + p) / b).softmax(1),
        lambda p, b: (p.log() * b + p).softmax(1),
    ],
    "added, not multiplied": [
        lambda p, b: (x := p + torch.exp(p / b)) / x.sum(1, keepdim=True),
        lambda p, b: (p + (p / b).softmax(1)) / 2,
    ],
    "no exponential": [
        lambda p, b: (x := p * p / b) / x.sum(1, keepdim=True),
        lambda p, b: (x := p * (1 + p / b)) / x.sum(1, keepdim=True),
    ],
    "divided by the largest": [
        lambda p, b: (x := p * torch.exp(p / b)) / x.max(1, keepdim=True).values
    ],
    "divided by the sum without p": [lambda p, b: p * (p / b).softmax(1)],
    "divided by the number of options": [
        lambda p, b: p * torch.exp(p / b) / p.shape[1]
    ],
    "the softmax of a softmax": [
        lambda p, b: optimum(p, b).softmax(1),
        lambda p, b: (p * torch.exp(p / b)).softmax(1),
    ],
    "to base 2": [lambda p, b: (x := p * 2 ** (p / b)) / x.sum(1, keepdim=True)],
    "one number an item": [lambda p, b: optimum(p, b).max(1).values],
    "rows and columns exchanged": [lambda p, b: optimum(p, b).T],
    "calls the library's own": [
        lambda p, b: torch.stack([optimal_policy(row, row, b) for row in p])
    ],
    "right, but no tensor": [
        lambda p, b: optimum(p, b).tolist(),
        lambda p, b: optimum(p, b).numpy(),
    ],
    "every value is 1.001 times": [lambda p, b: 1.001 * optimum(p, b)],
    "right only for a single item": [lambda p, b: optimum(p[:1], b).expand_as(p)],
    "changes its input: p": [
        lambda p, b: p.mul_((p / b).exp()).div_(p.sum(1)[:, None])
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


def reward_loss_by_distributions(log_probs, reward, reference, beta):
    policy = torch.distributions.Categorical(logits=log_probs)
    start = torch.distributions.Categorical(logits=reference)
    kl = torch.distributions.kl_divergence(policy, start)
    return (beta * kl - (policy.probs * reward).sum(-1)).mean()


def reward_loss_by_loop(log_probs, reward, reference, beta):
    total = 0.0
    for x, r, ref in zip(log_probs, reward, reference):
        p, q = x.softmax(0), ref.softmax(0)
        total = total + beta * (p * (p / q).log()).sum() - p @ r
    return total / len(log_probs)


def _of_raw(combine):
    """A loss of log-probabilities before and after normalising."""
    return lambda x, r, ref, b: combine(
        x, x.log_softmax(1), r, ref, ref.log_softmax(1), b
    )


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
    "the reference is not normalised": [
        _of_raw(
            lambda x, lp, r, ref, lq, b: (
                b * (lp.exp() * (lp - ref)).sum(1) - (lp.exp() * r).sum(1)
            ).mean()
        )
    ],
    "the policy is not normalised": [
        _of_raw(
            lambda x, lp, r, ref, lq, b: (
                b * (x.exp() * (x - lq)).sum(1) - (x.exp() * r).sum(1)
            ).mean()
        )
    ],
    "the log-softmax over the items": [
        lambda x, r, ref, b: (
            (x.softmax(0) * (b * (x.log_softmax(0) - ref.log_softmax(0)) - r))
            .sum(1)
            .mean()
        )
    ],
    "an entropy in place of the KL": [
        _of_parts(lambda p, lp, lq, kl, e, r, b: (b * (p * lp).sum(1) - e).mean())
    ],
    "the reference's rewards": [
        _of_parts(
            lambda p, lp, lq, kl, e, r, b: (b * kl - (lq.exp() * r).sum(1)).mean()
        )
    ],
    "the likeliest option's reward": [
        _of_parts(
            lambda p, lp, lq, kl, e, r, b: (
                b * kl - r[range(len(p)), p.argmax(1)]
            ).mean()
        )
    ],
    "KL only": [
        _of_parts(lambda p, lp, lq, kl, e, r, b: (b * kl).mean()),
        _of_parts(lambda p, lp, lq, kl, e, r, b: kl.mean()),
    ],
    "divided by β": [_of_parts(lambda p, lp, lq, kl, e, r, b: (kl / b - e).mean())],
    "KL squared": [_of_parts(lambda p, lp, lq, kl, e, r, b: (b * kl**2 - e).mean())],
    "probabilities in the KL": [
        _of_parts(
            lambda p, lp, lq, kl, e, r, b: (b * (p * (p - lq.exp())).sum(1) - e).mean()
        )
    ],
    "wrong gradient": [
        _of_parts(
            lambda p, lp, lq, kl, e, r, b: (
                b * (p * (lp.detach() - lq)).sum(1) - (p.detach() * r).sum(1)
            ).mean()
        ),
        _of_parts(lambda p, lp, lq, kl, e, r, b: (b * kl - e.detach()).mean()),
    ],
    "not reduced to one number": [_of_parts(lambda p, lp, lq, kl, e, r, b: b * kl - e)],
    "every value is 1.001 times": [lambda *args: 1.001 * reward_loss(*args)],
    "calls the library's own": [library_loss],
    "right only for a single item": [
        lambda x, r, ref, b: reward_loss(x[:1], r[:1], ref[:1], b)
    ],
}

# --- The tables -------------------------------------------------------------------

WRONG = {"07.1": ECES, "07.2": OPTIMA, "07.3": REWARDS}

RIGHT = {
    "07.1": {
        "a loop over bins": ece,
        "an index": ece_by_index,
        "float32": lambda c, y, n: ece_with_buffers(c.float(), y, n),
        "ceilings": ece_by_ceilings,
        "numpy's edges": ece_by_numpy,
        "linspace": ece_by_linspace,
        "a histogram": ece_by_histogram,
        "buffers of float32": ece_with_buffers,
        "a float": lambda c, y, n: float(ece(c, y, n)),
        "a one-hot matrix": ece_by_one_hot,
        "plain Python": ece_in_python,
        "empty bins turned from NaN to 0": ece_with_nan_to_num,
    },
    "07.2": {
        "a softmax": optimum,
        "exponentials": lambda p, b: (
            (x := p * torch.exp(p / b)) / x.sum(1, keepdim=True)
        ),
        "float32": lambda p, b: optimum(p.float(), b),
        "a list of rows, stacked": lambda p, b: torch.stack(
            [optimum(row[None], b)[0] for row in p]
        ),
        "einsum": lambda p, b: torch.einsum(
            "nk,n->nk", x := p * torch.exp(p / b), 1 / x.sum(1)
        ),
        "normalize": lambda p, b: F.normalize(p * torch.exp(p / b), p=1, dim=1),
        "numpy, made a tensor": lambda p, b: torch.from_numpy(
            (x := p.numpy() * np.exp(p.numpy() / b)) / x.sum(1, keepdims=True)
        ),
        "in place on its own": lambda p, b: (
            p.div(b).exp_().mul_(p).div_((p * (p / b).exp()).sum(-1, keepdim=True))
        ),
        "transposed twice": lambda p, b: (x := (p * (p / b).exp()).T).div(x.sum(0)).T,
    },
    "07.3": {
        "one sum": reward_loss,
        "torch's KL": reward_loss_by_library,
        "float32": lambda x, r, ref, b: reward_loss(
            x.float(), r.float(), ref.float(), b
        ),
        "distributions": reward_loss_by_distributions,
        "a loop": reward_loss_by_loop,
        "a mean over everything, times K": lambda x, r, ref, b: (
            (
                parts_of(x, r, ref)[0]
                * (b * (parts_of(x, r, ref)[1] - parts_of(x, r, ref)[2]) - r)
            ).mean()
            * x.shape[1]
        ),
        "einsum": lambda x, r, ref, b: (
            torch.einsum(
                "nk,nk->",
                x.softmax(1),
                b * (x.log_softmax(1) - ref.log_softmax(1)) - r,
            )
            / len(x)
        ),
        "of shape (1,)": lambda *args: reward_loss(*args)[None],
        "cross-entropy less entropy": lambda x, r, ref, b: (
            b
            * (
                F.cross_entropy(ref, x.softmax(1))
                - torch.distributions.Categorical(logits=x).entropy().mean()
            )
            - (x.softmax(1) * r).sum() / len(x)
        ),
    },
}
