"""Right and wrong answers to the exercises of notebook 02."""

import math
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import torch
from scipy.stats import norm

from alignlab.calibration.metrics import auroc
from alignlab.chapters.limits_of_imitation.analysis import area_under_roc
from alignlab.evaluation.intervals import wilson_interval

Z = NormalDist().inv_cdf(0.975)

# --- 02.2 -------------------------------------------------------------------------


def sure(x, m):
    return (x * m).sum(1).exp()


def sure_by_product(x, m):
    """Token by token, as a product of probabilities."""
    rows = zip(x.exp().tolist(), m.tolist(), strict=True)
    return torch.tensor([math.prod(p for p, k in zip(*r) if k) for r in rows])


def spoils(x, m):
    found = sure(x, m)
    x *= m
    return found


def mean_of(x, m):
    return (x * m).sum(1) / m.sum(1)


SURE = {
    "prompt and padding count": [lambda x, m: x.sum(1).exp()],
    "the mean over tokens": [lambda x, m: mean_of(x, m).exp()],
    "no exponential": [lambda x, m: (x * m).sum(1)],
    "mean of the tokens' probabilities": [lambda x, m: mean_of(x.exp(), m)],
    "sum of probabilities": [lambda x, m: (x.exp() * m).sum(1)],
    "perplexity": [lambda x, m: (-mean_of(x, m)).exp()],
    "sign flipped": [lambda x, m: (-(x * m).sum(1)).exp()],
    "the least sure token": [lambda x, m: (x * m).min(1).values.exp()],
    "one minus it": [lambda x, m: 1 - sure(x, m)],
    "zeros": [lambda x, m: torch.zeros(len(x))],
    "one number for the whole batch": [lambda x, m: sure(x, m).mean()],
    "one number a token": [lambda x, m: x.exp()],
    "changes its input: log_probs": [spoils],
    "returns nothing": [lambda x, m: None],
    "inverted": [lambda x, m: (x * (1 - m)).sum(1).exp()],
    "the exponential comes last": [lambda x, m: (x.exp() * m).prod(1)],
    "the surest token": [lambda x, m: (x.exp() * m).max(1).values],
    "one token only": [
        lambda x, m: x[range(len(m)), m.argmax(1)].exp(),
        lambda x, m: x[:, -1].exp(),
    ],
    "divided by all columns": [lambda x, m: (x * m).mean(1).exp()],
    "the batch multiplied up": [
        lambda x, m: (x * m).sum().exp().expand(len(x)),
        lambda x, m: (x * m).sum(0)[: len(x)].exp(),
    ],
    "normalised over the batch": [lambda x, m: sure(x, m) / sure(x, m).sum()],
    "the mask is moved by one": [
        lambda x, m: (x[:, :-1] * m[:, 1:]).sum(1).exp(),
        lambda x, m: (x[:, 1:] * m[:, :-1]).sum(1).exp(),
    ],
    "every value is 1.001 times": [lambda x, m: sure(x, m) * 1.001],
    "returns NaN": [lambda x, m: sure(x, m) + math.nan],
    "the root": [lambda x, m: sure(x, m).sqrt()],
    "in percent": [lambda x, m: 100 * sure(x, m)],
    "wrong at the last place only": [
        lambda x, m: x.where(m == 1, 0)[:, : int(m[0].sum()) + 2].sum(1).exp()
    ],
}

# --- 02.1 -------------------------------------------------------------------------


def stop(right, picks=slice(0, None, 2), measures=slice(1, None, 2)):
    accuracy = right.double()
    epoch = int(accuracy[:, picks].mean(1).argmax())
    measured = accuracy[:, measures].mean(1)
    return epoch, measured[epoch] - measured[-1]


def stop_by_counting(right):
    rows = right.tolist()
    counts = [sum(row[0::2]) for row in rows]
    epoch = counts.index(max(counts))
    kept, end = sum(rows[epoch][1::2]), sum(rows[-1][1::2])
    return epoch, (kept - end) / len(rows[0][1::2])


def last_of_equal(right):
    picked = right[:, ::2].double().mean(1)
    epoch = int((picked == picked.max()).nonzero().max())
    measured = right[:, 1::2].double().mean(1)
    return epoch, measured[epoch] - measured[-1]


def own_peak(right):
    measured = right[:, 1::2].double().mean(1)
    return stop(right)[0], measured.max() - measured[-1]


def share(right):
    """The accuracy on the questions that measure."""
    return right[:, 1::2].double().mean(1)


def at(right, look):
    return look, share(right)[look] - share(right)[-1]


def stop_in_float32(right):
    look = right[:, ::2].mean(1).argmax().item()
    measured = right[:, 1::2].mean(1)
    return look, (measured[look] - measured[-1]).item()


def stop_by_numpy(right):
    right = np.asarray(right)
    look = np.argmax(right[:, ::2].mean(axis=1))
    return look, right[look, 1::2].mean() - right[-1, 1::2].mean()


EVEN, ODD, ALL = slice(0, None, 2), slice(1, None, 2), slice(None)
STOPS = {
    "picked and measured on the same questions": [lambda r: stop(r, EVEN, EVEN)],
    "picked and measured on all questions": [lambda r: stop(r, ALL, ALL)],
    "the halves are exchanged": [lambda r: stop(r, ODD, EVEN)],
    "sign flipped": [lambda r: (stop(r)[0], -stop(r)[1])],
    "counted from 1": [lambda r: (stop(r)[0] + 1, stop(r)[1])],
    "the other half's own peak": [own_peak],
    "the last of equal looks": [last_of_equal],
    "zeros": [lambda r: (0, 0.0)],
    "return a pair": [lambda r: stop(r)[1]],
    "the halves of the table": [
        lambda r: stop(r, slice(0, r.shape[1] // 2), slice(r.shape[1] // 2, None))
    ],
    "measured on all questions": [lambda r: stop(r, EVEN, ALL)],
    "counts, not accuracies": [lambda r: (stop(r)[0], stop(r)[1] * r[:, ODD].shape[1])],
    "divided by all questions": [
        lambda r: (stop(r)[0], stop(r)[1] * r[:, ODD].shape[1] / r.shape[1])
    ],
    "less than the first look": [
        lambda r: (stop(r)[0], (share(r)[stop(r)[0]] - share(r)[0]))
    ],
    "the accuracy at the stop": [lambda r: (stop(r)[0], share(r)[stop(r)[0]])],
    "the end on other questions": [
        lambda r: (stop(r)[0], share(r)[stop(r)[0]] - r[-1, EVEN].double().mean()),
        lambda r: (stop(r)[0], share(r)[stop(r)[0]] - r[-1].double().mean()),
    ],
    "the drop comes second": [lambda r: stop(r)[::-1]],
    "the worst look": [lambda r: at(r, int(r[:, EVEN].sum(1).argmin()))],
    "questions and looks exchanged": [lambda r: stop(r.T)],
    "in percent": [lambda r: (stop(r)[0], 100 * stop(r)[1])],
    "changes its input: right": [lambda r: (stop(r), r.zero_())[0]],
    "wrong for two looks that are equally good": [
        lambda r: (
            at(r, int(r[:, EVEN].double().mean(1).topk(2).indices.max()))
            if len(r) == 5
            else stop(r)
        )
    ],
    "returns nothing": [lambda r: None],
    "the second number is wrong": [lambda r: (stop(r)[0], stop(r)[1] + 0.01)],
    "the drop as a share": [lambda r: (stop(r)[0], stop(r)[1] / share(r)[stop(r)[0]])],
    "counted from the end": [lambda r: (stop(r)[0] - len(r), stop(r)[1])],
    "right only for": [lambda r: at(r, 1)],
}

# --- 02.5 -------------------------------------------------------------------------


def wilson(k, n, z=Z):
    p = k / n
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    return middle - half, middle + half


def wilson_by_roots(k, n):
    """The rates q at which (p - q)² = z² q(1 - q)/n: a quadratic's two roots."""
    p, a = k / n, Z**2 / n
    roots = [1 + a, -(2 * p + a), p * p]
    square = math.sqrt(max(roots[1] ** 2 - 4 * roots[0] * roots[2], 0))
    return tuple((-roots[1] + sign * square) / (2 * roots[0]) for sign in (-1, 1))


def wald(k, n):
    p = k / n
    half = Z * math.sqrt(p * (1 - p) / n)
    return p - half, p + half


def around(middle, interval):
    half = (interval[1] - interval[0]) / 2
    return middle - half, middle + half


def undivided(k, n):
    p = k / n
    half = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return p + Z**2 / (2 * n) - half, p + Z**2 / (2 * n) + half


def of_spread(k, n, spread):
    """Limits around the right centre, from another variance."""
    half = Z * math.sqrt(spread(k / n)) / (1 + Z**2 / n)
    return around(sum(wilson(k, n)) / 2, (-half, half))


def z_not_squared(k, n):
    p = k / n
    half = Z * math.sqrt(p * (1 - p) / n + Z / (4 * n**2)) / (1 + Z / n)
    return around((p + Z / (2 * n)) / (1 + Z / n), (-half, half))


def agresti_coull(k, n):
    trials = n + Z**2
    p = (k + Z**2 / 2) / trials
    half = Z * math.sqrt(p * (1 - p) / trials)
    return p - half, p + half


def wilson_scaled(k, n):
    low, high = (
        (k + Z**2 / 2 + sign * Z * math.sqrt(k * (n - k) / n + Z**2 / 4)) / (n + Z**2)
        for sign in (-1, 1)
    )
    return [low, high]


WILSONS = {
    "the normal interval": [wald],
    "90%": [lambda k, n: wilson(k, n, NormalDist().inv_cdf(0.95))],
    "z left out": [lambda k, n: wilson(k, n, 1.0)],
    "not pulled to the middle": [lambda k, n: around(k / n, wilson(k, n))],
    "the normal width around Wilson's centre": [
        lambda k, n: around(sum(wilson(k, n)) / 2, wald(k, n))
    ],
    "not divided by 1 + z²/n": [undivided],
    "high before low": [lambda k, n: wilson(k, n)[::-1]],
    "in percent": [lambda k, n: [100 * x for x in wilson(k, n)]],
    "zeros": [lambda k, n: (0.0, 0.0)],
    "returns one number": [lambda k, n: wilson(k, n)[0]],
    "returns three numbers": [lambda k, n: (k / n, *wilson(k, n))],
    "raised ZeroDivisionError": [lambda k, n: (n / k, 1.0)],
    "99%": [lambda k, n: wilson(k, n, NormalDist().inv_cdf(0.995))],
    "z is 2": [lambda k, n: wilson(k, n, 2)],
    "z not squared": [z_not_squared],
    "4n, not 4n²": [
        lambda k, n: of_spread(k, n, lambda p: p * (1 - p) / n + Z**2 / (4 * n))
    ],
    "divided by n - 1": [
        lambda k, n: of_spread(
            k, n, lambda p: p * (1 - p) / (n - 1) + Z**2 / (4 * n**2)
        )
    ],
    "the root left out": [
        lambda k, n: of_spread(
            k, n, lambda p: (p * (1 - p) / n + Z**2 / (4 * n**2)) ** 2
        )
    ],
    "cut off at 0 and 1": [
        lambda k, n: [min(max(x, 0.0), 1.0) for x in around(k / n, wilson(k, n))]
    ],
    "centre and half width": [
        lambda k, n: (sum(wilson(k, n)) / 2, (wilson(k, n)[1] - wilson(k, n)[0]) / 2)
    ],
    "Agresti and Coull's interval": [agresti_coull],
    "calls the library's own": [
        lambda k, n: wilson_interval(k, n)[1:],
        wilson_interval,
    ],
    "always 0.1": [lambda k, n: (0.1, 0.1)],
    "the second number is wrong": [lambda k, n: (wilson(k, n)[0], 1.0)],
    "one minus": [lambda k, n: [1 - x for x in wilson(k, n)]],
    "n left out under the root": [
        lambda k, n: of_spread(k, n, lambda p: p * (1 - p) + Z**2 / (4 * n**2))
    ],
}

# --- 02.6 -------------------------------------------------------------------------


def pairs_of(h, b, tie=0.5):
    difference = h[:, None] - b[None, :]
    return ((difference > 0) + tie * (difference == 0)).double().mean()


def auc_by_ranks(h, b):
    """From the sum of the harmful ones' ranks, as Mann and Whitney have it."""
    from scipy.stats import rankdata

    ranks = rankdata([*h.tolist(), *b.tolist()])[: len(h)]
    return (ranks.sum() - len(h) * (len(h) + 1) / 2) / (len(h) * len(b))


def one_by_one(h, b):
    n = min(len(h), len(b))
    difference = h[:n] - b[:n]
    return ((difference > 0) + 0.5 * (difference == 0)).double().mean()


def auc_by_loops(h, b):
    won = 0.0
    for x in h.tolist():
        for y in b.tolist():
            won += 1.0 if x > y else 0.5 if x == y else 0.0
    return won / (len(h) * len(b))


def auc_by_search(h, b):
    ranked = b.sort().values
    below = torch.searchsorted(ranked, h)
    upto = torch.searchsorted(ranked, h, right=True)
    return (below + upto).double().mean() / 2 / len(b)


AREAS = {
    "ties count nothing": [lambda h, b: pairs_of(h, b, 0)],
    "ties count in full": [lambda h, b: pairs_of(h, b, 1)],
    "the sides are exchanged": [lambda h, b: pairs_of(b, h)],
    "a count": [lambda h, b: pairs_of(h, b) * len(h) * len(b)],
    "in percent": [lambda h, b: 100 * pairs_of(h, b)],
    "the difference of the means": [lambda h, b: h.mean() - b.mean()],
    "request by request": [one_by_one],
    "zeros": [lambda h, b: 0.0],
    "not reduced to one number": [
        lambda h, b: (h[:, None] > b[None, :]).double(),
        lambda h, b: (h[:, None] > b).double().mean(1),
        lambda h, b: (h[:, None] > b).double().mean(0),
    ],
    "from -1 to 1": [lambda h, b: (h[:, None] - b).sign().mean()],
    "only the means are compared": [lambda h, b: float(h.mean() > b.mean())],
    "all against all": [
        lambda h, b: pairs_of(torch.cat([h, b]), torch.cat([h, b])),
        lambda h, b: pairs_of(h, torch.cat([h, b])),
    ],
    "against the median": [
        lambda h, b: (h > b.median()).double().mean(),
        lambda h, b: (h > b.mean()).double().mean(),
    ],
    "against the best": [
        lambda h, b: (h > b.max()).double().mean(),
        lambda h, b: (h > b.min()).double().mean(),
    ],
    "divided by the wrong number": [
        lambda h, b: pairs_of(h, b) * len(b) / len(h),
        lambda h, b: pairs_of(h, b) * len(b),
        lambda h, b: pairs_of(h, b) * len(h),
    ],
    "the size of the differences": [
        lambda h, b: (h[:, None] - b).sigmoid().mean(),
        lambda h, b: (h[:, None] - b).clamp(min=0).mean(),
    ],
    "odds": [lambda h, b: pairs_of(h, b) / (1 - pairs_of(h, b))],
    "the distance from chance": [lambda h, b: pairs_of(h, b) - 0.5],
    "calls the library's own": [
        lambda h, b: auroc([*h, *b], [1] * len(h) + [0] * len(b)),
        area_under_roc,
    ],
    "right only for a single harmful request": [
        lambda h, b: pairs_of(h[1:], b) if len(h) > 1 else pairs_of(h, b)
    ],
    "every value is 0.01 too high": [lambda h, b: pairs_of(h, b) + 0.01],
    "rounded": [lambda h, b: round(float(pairs_of(h, b)), 2)],
    "returns 4.524: this is from 0 to 1": [
        lambda h, b: pairs_of(h, b) * len(h) * len(b) / (len(h) + len(b)) / 0.6
    ],
}

# --- The tables -------------------------------------------------------------------

WRONG = {"02.2": SURE, "02.1": STOPS, "02.5": WILSONS, "02.6": AREAS}

RIGHT = {
    "02.2": {
        "vectorised": sure,
        "a product": sure_by_product,
        "einsum in float32": lambda x, m: torch.einsum("bt,bt->b", x, m.float()).exp(),
        "numpy": lambda x, m: np.exp((x.numpy() * m.numpy()).sum(1)),
        "numpy with negative strides": lambda x, m: sure(x.flip(0), m.flip(0)).numpy()[
            ::-1
        ],
        "a list of 0-d tensors": lambda x, m: [
            row[kept == 1].sum().exp() for row, kept in zip(x, m)
        ],
        "masked probabilities are 1": lambda x, m: (
            x.exp().masked_fill(m == 0, 1).prod(1)
        ),
        "float32": lambda x, m: sure(x.float(), m.float()),
        "a copy in place": lambda x, m: x.clone().mul_(m).sum(1).exp_(),
        "a tuple of floats": lambda x, m: tuple(sure(x, m).tolist()),
    },
    "02.1": {
        "a tuple": stop,
        "by counting": stop_by_counting,
        "a list": lambda r: list(stop(r)),
        "a tensor": lambda r: torch.tensor(stop(r)),
        "numpy": lambda r: np.array(stop(r)),
        "0-d tensors": lambda r: (torch.tensor(stop(r)[0]), stop(r)[1]),
        "float32": lambda r: stop_in_float32(r.float()),
        "numpy all along": stop_by_numpy,
    },
    "02.5": {
        "the formula": wilson,
        "the roots of a quadratic": wilson_by_roots,
        "z = 1.96": lambda k, n: wilson(k, n, 1.96),
        "a list": lambda k, n: list(wilson(k, n, 1.96)),
        "a tensor of float32": lambda k, n: torch.tensor(wilson(k, n)),
        "numpy": lambda k, n: np.array(wilson(k, n)),
        "0-d tensors": lambda k, n: tuple(map(torch.tensor, wilson(k, n))),
        "scipy's z": lambda k, n: wilson(k, n, float(norm.ppf(0.975))),
        "scaled by n + z²": wilson_scaled,
        "Fractions as rates": lambda k, n: tuple(
            float(x) for x in wilson(Fraction(k), n)
        ),
    },
    "02.6": {
        "all pairs": pairs_of,
        "ranks": auc_by_ranks,
        "loops": auc_by_loops,
        "a float": lambda h, b: pairs_of(h, b).item(),
        "numpy": lambda h, b: np.mean(
            (np.sign(h.numpy()[:, None] - b.numpy()) + 1) / 2
        ),
        "sorted search": auc_by_search,
        "float32": lambda h, b: pairs_of(h.float(), b.float()).float(),
        "of shape (1,)": lambda h, b: pairs_of(h, b)[None],
        "heaviside": lambda h, b: torch.heaviside(
            h[:, None] - b, torch.tensor(0.5, dtype=h.dtype)
        ).mean(),
        "where": lambda h, b: torch.where(
            h[:, None] == b, 0.5, (h[:, None] > b).double()
        ).mean(),
    },
}
