"""The checks of notebook 06 accept right answers, reject wrong ones, and name each
known mistake: a table of mutants, as for the other exercises."""

import itertools
import math

import pytest
import torch

from alignlab.chapters.side_effects.exercises import EXERCISES
from tests.grading import as_params, covers, fails_by_name, passes

# --- 06.1 -------------------------------------------------------------------------


def ranked_by_proxy(proxies, golds):
    return golds[proxies.argsort()].tolist()


def best(p, g, n):
    total = math.comb(len(g), n)
    ranked = enumerate(ranked_by_proxy(p, g))
    return sum(math.comb(i, n - 1) / total * worth for i, worth in ranked)


def best_by_enumeration(p, g, n):
    subsets = [list(s) for s in itertools.combinations(range(len(p)), n)]
    return torch.stack([g[s][p[s].argmax()] for s in subsets]).mean()


def best_with_replacement(p, g, n):
    count = len(g)
    ranked = enumerate(ranked_by_proxy(p, g))
    return sum((((i + 1) / count) ** n - (i / count) ** n) * x for i, x in ranked)


def off_by_one(p, g, n):
    total = math.comb(len(g), n)
    ranked = enumerate(ranked_by_proxy(p, g))
    return sum(math.comb(i, n) / total * worth for i, worth in ranked)


def off_by_one_above(p, g, n):
    total = math.comb(len(g), n)
    ranked = enumerate(ranked_by_proxy(p, g))
    return sum(math.comb(i + 1, n) / total * worth for i, worth in ranked)


def in_groups(p, g, n):
    places = range(0, len(g), n)
    return torch.stack([g[i : i + n][p[i : i + n].argmax()] for i in places]).mean()


def in_whole_groups(p, g, n):
    places = range(0, len(g) // n * n, n)
    return torch.stack([g[i : i + n][p[i : i + n].argmax()] for i in places]).mean()


BESTS = {
    "the proxy is averaged": [lambda p, g, n: best(p, p, n)],
    "gold picks": [lambda p, g, n: best(g, g, n)],
    "the worst of n": [lambda p, g, n: best(-p, g, n)],
    "the best of all samples": [lambda p, g, n: g[p.argmax()]],
    "the mean of the n best": [lambda p, g, n: g[p.argsort()][-n:].mean()],
    "with replacement": [best_with_replacement],
    "only the first n": [lambda p, g, n: g[:n][p[:n].argmax()]],
    "groups of n": [in_groups, in_whole_groups],
    "off by one": [off_by_one, off_by_one_above],
    "not normalised": [lambda p, g, n: best(p, g, n) * math.comb(len(g), n)],
    "unsorted": [lambda p, g, n: best(torch.arange(len(p)), g, n)],
    "the plain mean": [lambda p, g, n: g.mean()],
    "zeros": [lambda p, g, n: 0.0],
    "returns numbers of shape": [lambda p, g, n: g],
    "not the right values": [lambda p, g, n: best(p, g, n) * 1.001],
}

# --- 06.2 -------------------------------------------------------------------------


def each_entropy(logits):
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def entropy(logits, mask):
    return each_entropy(logits)[mask.bool()].mean()


def entropy_by_categorical(logits, mask):
    every = torch.distributions.Categorical(logits=logits).entropy()
    return (every * mask).sum() / mask.sum()


def over_time(logits, mask):
    log_p = logits.log_softmax(1)
    return (-(log_p.exp() * log_p).sum(-1) * mask).sum() / mask.sum()


ENTROPIES = {
    "padding counts": [lambda x, m: each_entropy(x).mean()],
    "padding is zeroed": [lambda x, m: (each_entropy(x) * m).mean()],
    "a mean of means": [lambda x, m: ((each_entropy(x) * m).sum(1) / m.sum(1)).mean()],
    "summed over a reply": [lambda x, m: (each_entropy(x) * m).sum(1).mean()],
    "summed up": [lambda x, m: (each_entropy(x) * m).sum()],
    "sign flipped": [lambda x, m: -entropy(x, m)],
    "of logits": [lambda x, m: -(x.softmax(-1) * x).sum(-1)[m.bool()].mean()],
    "softmax over the wrong dimension": [over_time],
    "the log-probability of the likeliest": [
        lambda x, m: -x.log_softmax(-1).max(-1).values[m.bool()].mean()
    ],
    "the mean over the vocabulary": [lambda x, m: entropy(x, m) / x.shape[-1]],
    "in bits": [lambda x, m: entropy(x, m) / math.log(2)],
    "a share of the greatest": [lambda x, m: entropy(x, m) / math.log(x.shape[-1])],
    "cross-entropy with a uniform guess": [
        lambda x, m: -x.log_softmax(-1).mean(-1)[m.bool()].mean()
    ],
    "zeros": [lambda x, m: 0.0],
    "returns numbers of shape": [lambda x, m: each_entropy(x)],
    "not the right values": [lambda x, m: entropy(x, m) * 1.001],
}

# --- 06.3 -------------------------------------------------------------------------


def grams(replies, n):
    return [tuple(r[i : i + n]) for r in replies for i in range(len(r) - n + 1)]


def expected(count, possible):
    return possible * (1 - (1 - 1 / possible) ** count)


def distinct(replies, n, vocabulary):
    found = grams(replies, n)
    return len(set(found)) / expected(len(found), vocabulary**n)


def distinct_by_zip(replies, n, vocabulary):
    found = []
    for reply in replies:
        found += zip(*(reply[i:] for i in range(n)))
    possible = vocabulary**n
    unseen = math.exp(len(found) * math.log1p(-1 / possible))
    return torch.tensor(len(set(found)) / (possible * (1 - unseen)))


def one_by_one(replies, n, vocabulary):
    each = [distinct([r], n, vocabulary) for r in replies if len(r) >= n]
    return sum(each) / len(each)


def missing(replies, n, vocabulary):
    found, possible = grams(replies, n), vocabulary**n
    return len(set(found)) / (possible * (1 - 1 / possible) ** len(found))


DISTINCTS = {
    "not adjusted": [lambda r, n, v: len(set(grams(r, n))) / len(grams(r, n))],
    "divided by all that there could be": [
        lambda r, n, v: len(set(grams(r, n))) / v**n
    ],
    "the vocabulary of single tokens": [
        lambda r, n, v: len(set(grams(r, n))) / expected(len(grams(r, n)), v)
    ],
    "n-grams reach from one reply": [
        lambda r, n, v: distinct([list(itertools.chain(*r))], n, v)
    ],
    "a mean over replies": [one_by_one],
    "single tokens": [lambda r, n, v: distinct(r, 1, v)],
    "how many are expected": [lambda r, n, v: expected(len(grams(r, n)), v**n)],
    "the expected share of what is missing": [missing],
    "upside down": [lambda r, n, v: 1 / distinct(r, n, v)],
    "the number of different ones": [lambda r, n, v: len(set(grams(r, n)))],
    "zeros": [lambda r, n, v: 0.0],
    "not the right values": [lambda r, n, v: distinct(r, n, v) * 1.001],
}

# --- The tables -------------------------------------------------------------------

TABLE = {"06.1": BESTS, "06.2": ENTROPIES, "06.3": DISTINCTS}
REFERENCES = [
    ("06.1", best),
    ("06.1", best_by_enumeration),
    ("06.2", entropy),
    ("06.2", entropy_by_categorical),
    ("06.3", distinct),
    ("06.3", distinct_by_zip),
]


@pytest.mark.parametrize("number, answer", REFERENCES)
def test_a_right_answer_passes(number, answer):
    passes(number, answer)


@pytest.mark.parametrize("number, name, answer", as_params(TABLE))
def test_a_wrong_answer_fails_under_the_name_of_its_mistake(number, name, answer):
    fails_by_name(number, name, answer)


def test_every_exercise_has_references_and_every_known_mistake_a_mutant():
    covers(REFERENCES, TABLE, EXERCISES)
