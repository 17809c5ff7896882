"""The checks of notebook 02 accept right answers, reject wrong ones, and name each
known mistake: a table of mutants, as for the other exercises."""

import math
from statistics import NormalDist

import pytest
import torch

from alignlab.chapters.limits_of_imitation.exercises import EXERCISES
from tests.grading import as_params, covers, fails_by_name, passes

Z = NormalDist().inv_cdf(0.975)

# --- 02.1 -------------------------------------------------------------------------


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
    "not the right values": [
        lambda x, m: sure(x, m) * 1.001,
        lambda x, m: sure(x, m) + math.nan,
    ],
}

# --- 02.2 -------------------------------------------------------------------------


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
    "not the right values": [lambda r: (stop(r)[0], stop(r)[1] + 0.01)],
}

# --- 02.3 -------------------------------------------------------------------------


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
    "not the right values": [lambda k, n: (wilson(k, n)[0], 1.0)],
}

# --- 02.4 -------------------------------------------------------------------------


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


AREAS = {
    "ties count nothing": [lambda h, b: pairs_of(h, b, 0)],
    "ties count in full": [lambda h, b: pairs_of(h, b, 1)],
    "the sides are exchanged": [lambda h, b: pairs_of(b, h)],
    "a count": [lambda h, b: pairs_of(h, b) * len(h) * len(b)],
    "in percent": [lambda h, b: 100 * pairs_of(h, b)],
    "the difference of the means": [lambda h, b: h.mean() - b.mean()],
    "request by request": [one_by_one],
    "zeros": [lambda h, b: 0.0],
    "a number a pair": [lambda h, b: (h[:, None] > b[None, :]).double()],
    "one number a harmful request": [lambda h, b: (h[:, None] > b).double().mean(1)],
    "not the right values": [lambda h, b: pairs_of(h, b) + 0.01],
}

# --- All of them ------------------------------------------------------------------

TABLE = {"02.1": SURE, "02.2": STOPS, "02.3": WILSONS, "02.4": AREAS}
REFERENCES = [
    ("02.1", sure),
    ("02.1", sure_by_product),
    ("02.2", stop),
    ("02.2", stop_by_counting),
    ("02.3", wilson),
    ("02.3", wilson_by_roots),
    ("02.4", pairs_of),
    ("02.4", auc_by_ranks),
]


@pytest.mark.parametrize("number, answer", REFERENCES)
def test_a_right_answer_passes(number, answer):
    passes(number, answer)


@pytest.mark.parametrize("number, name, answer", as_params(TABLE))
def test_a_wrong_answer_fails_under_the_name_of_its_mistake(number, name, answer):
    fails_by_name(number, name, answer)


def test_every_exercise_has_references_and_every_known_mistake_a_mutant():
    covers(REFERENCES, TABLE, EXERCISES)


def test_the_drop_is_what_the_analysis_finds():
    from alignlab.chapters.limits_of_imitation.analysis import early_stop

    for case in EXERCISES["02.2"].cases():
        looks = [
            {"update": look, "known": {"right": row}}
            for look, row in enumerate(case.args["right"].tolist())
        ]
        found = early_stop(looks)
        assert [found["update"], found["drop"]] == pytest.approx(case.expected.tolist())


def test_the_area_is_what_the_analysis_finds():
    from alignlab.chapters.limits_of_imitation.analysis import area_under_roc

    for case in EXERCISES["02.4"].cases():
        assert area_under_roc(*case.args.values()) == pytest.approx(
            float(case.expected)
        )
