"""Right and wrong answers to the exercises of notebook 06."""

import itertools
import math
import random
from collections import Counter

import numpy as np
import torch

from alignlab import objectives as library
from alignlab.evaluation.best_of_n import best_of_n_values
from alignlab.evaluation.diversity import adjusted_distinct_n, token_entropy

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


def best_by_draws(p, g, n):
    chosen = [random.sample(range(len(p)), n) for _ in range(2000)]
    return sum(float(g[max(some, key=lambda i: p[i])]) for some in chosen) / 2000


def best_by_numpy(p, g, n):
    falling = g.numpy()[np.argsort(p.numpy())[::-1]]
    below = range(len(falling))[::-1]
    total = math.comb(len(falling), n)
    return np.dot(falling, [math.comb(i, n - 1) / total for i in below])


def best_by_weights(p, g, n):
    total = math.comb(len(g), n)
    weights = torch.tensor([math.comb(i, n - 1) / total for i in range(len(g))])
    return weights.to(g.dtype) @ g[p.argsort()]


def best_by_loop(p, g, n):
    worth = 0.0
    for proxy, gold in zip(p.tolist(), g.tolist()):
        below = sum(other < proxy for other in p.tolist())
        worth += math.comb(below, n - 1) / math.comb(len(p), n) * gold
    return worth


def best_of_pairs(pairs, n):
    return sum(
        gold * math.comb(i, n - 1) / math.comb(len(pairs), n)
        for i, (_, gold) in enumerate(pairs)
    )


def best_by_shares(p, g, n):
    """By the chance that all n are among the i + 1 worst, less that of the i worst."""
    ranked, total = ranked_by_proxy(p, g), math.comb(len(g), n)
    upto = [math.comb(i, n) / total for i in range(len(g) + 1)]
    return sum(x * (upto[i + 1] - upto[i]) for i, x in enumerate(ranked))


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
    "the best gold of all": [lambda p, g, n: g.max()],
    "the n best by proxy": [
        lambda p, g, n: p.topk(n).values.mean(),
        lambda p, g, n: g.topk(n).values.mean(),
    ],
    "a quantile": [lambda p, g, n: g[p.argsort()].median()],
    "weighted by the proxy": [
        lambda p, g, n: (p.softmax(0) * g).sum(),
        lambda p, g, n: (p * g).mean(),
    ],
    "more than the mean": [lambda p, g, n: best(p, g, n) - float(g.mean())],
    "the last n samples": [lambda p, g, n: g[-n:][p[-n:].argmax()]],
    "the proxies add up": [lambda p, g, n: (p * g).sum() / p.sum()],
    "drawn at random": [best_by_draws],
    "not reduced to one number": [
        lambda p, g, n: g,
        lambda p, g, n: torch.tensor([best(p, g, n), best(p, g, n)]),
    ],
    "every value is 1.001 times": [lambda p, g, n: best(p, g, n) * 1.001],
    "wrong for": [lambda p, g, n: best(p, g, min(n, 2))],
    "calls the library's own": [
        lambda p, g, n: float(best_of_n_values(p[None].numpy(), g[None].numpy(), n)[0])
    ],
    "changes its input: golds": [lambda p, g, n: (best(p, g, n), g.zero_())[0]],
    "raised IndexError": [lambda p, g, n: sum(g[i + n] for i in range(len(g)))],
    "not the right values": [lambda p, g, n: best(p, g.round(decimals=1), n)],
}

# --- 06.4 -------------------------------------------------------------------------


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


def entropy_of(p):
    return -torch.xlogy(p, p).sum()


def entropy_by_loop(logits, mask):
    total, count = 0.0, 0
    for row, kept in zip(logits, mask):
        for scores in row[: int(kept.sum())]:
            p = scores.softmax(0).tolist()
            total -= sum(x * math.log(x) for x in p)
            count += 1
    return total / count


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
    "perplexity": [
        lambda x, m: entropy(x, m).exp(),
        lambda x, m: each_entropy(x).exp()[m.bool()].mean(),
    ],
    "no logarithm": [
        lambda x, m: (x.softmax(-1) ** 2).sum(-1)[m.bool()].mean(),
        lambda x, m: (1 - (x.softmax(-1) ** 2).sum(-1))[m.bool()].mean(),
    ],
    "the padding alone": [lambda x, m: each_entropy(x)[m == 0].mean()],
    "of the mean distribution": [
        lambda x, m: entropy_of(x.softmax(-1)[m.bool()].mean(0)),
        lambda x, m: entropy_of(x.softmax(-1).mean((0, 1))),
    ],
    "the last token only": [
        lambda x, m: each_entropy(x)[:, -1].mean(),
        lambda x, m: each_entropy(x)[range(len(m)), m.sum(1) - 1].mean(),
    ],
    "the mask on the logits": [lambda x, m: each_entropy(x * m[..., None]).mean()],
    "divided by the number of rows and columns": [
        lambda x, m: (each_entropy(x) * m).sum() / x.shape[1]
    ],
    "a median": [lambda x, m: each_entropy(x)[m.bool()].median()],
    "the largest or the smallest": [
        lambda x, m: each_entropy(x)[m.bool()].max(),
        lambda x, m: each_entropy(x)[m.bool()].min(),
    ],
    "not reduced to one number": [
        lambda x, m: each_entropy(x),
        lambda x, m: each_entropy(x)[m.bool()],
        lambda x, m: (each_entropy(x) * m).sum(1) / m.sum(1),
    ],
    "every value is 1.001 times": [lambda x, m: entropy(x, m) * 1.001],
    "wrong for replies of unequal length": [lambda x, m: entropy(x[:1], m[:1])],
    "calls the library's own": [
        token_entropy,
        lambda x, m: library.entropy(x)[m.bool()].mean(),
    ],
    "changes its input: logits": [lambda x, m: entropy(x.sub_(x.max()), m)],
}

# --- 06.5 -------------------------------------------------------------------------


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


def of_grams(found, possible):
    return len(set(found)) / expected(len(found), possible)


def distinct_by_loops(replies, n, vocabulary):
    seen, count = {}, 0
    for reply in replies:
        for start in range(len(reply)):
            gram = reply[start : start + n]
            if len(gram) == n:
                count += 1
                seen[tuple(gram)] = True
    return len(seen) / expected(count, vocabulary**n)


def distinct_by_strings(replies, n, vocabulary):
    found = [" ".join(map(str, gram)) for gram in grams(replies, n)]
    return of_grams(found, vocabulary**n)


def distinct_by_unfolding(replies, n, vocabulary):
    long = [torch.tensor(reply) for reply in replies if len(reply) >= n]
    found = torch.cat([reply.unfold(0, n, 1) for reply in long])
    return len(found.unique(dim=0)) / expected(len(found), vocabulary**n)


def consumes_tokens(replies, n, vocabulary):
    """Leaves the outer list alone, and empties the lists in it."""
    value = distinct(replies, n, vocabulary)
    for reply in replies:
        reply.clear()
    return value


def consumes_replies(replies, n, vocabulary):
    value = distinct(replies, n, vocabulary)
    replies.pop()
    return value


def grams_by_count(replies, n, vocabulary):
    """Counts a reply that is too short as one with a negative number of n-grams."""
    count = sum(len(reply) - n + 1 for reply in replies)
    return len(set(grams(replies, n))) / expected(count, vocabulary**n)


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
    "every n-gram counts": [
        lambda r, n, v: len(grams(r, n)) / expected(len(grams(r, n)), v**n)
    ],
    "as many draws as tokens": [
        lambda r, n, v: (
            len(set(grams(r, n))) / expected(sum(map(len, r)), v**n)
            if n > 1
            else 0.9 * distinct(r, n, v)
        )
    ],
    "as many draws as replies": [
        lambda r, n, v: len(set(grams(r, n))) / expected(len(r), v**n)
    ],
    "V times n": [
        lambda r, n, v: len(set(grams(r, n))) / expected(len(grams(r, n)), v * n)
    ],
    "the words in use": [lambda r, n, v: distinct(r, n, len(set(itertools.chain(*r))))],
    "n-grams do not overlap": [
        lambda r, n, v: of_grams(
            [tuple(x[i : i + n]) for x in r for i in range(0, len(x) - n + 1, n)], v**n
        )
    ],
    "one n-gram too few": [
        lambda r, n, v: of_grams(
            [tuple(x[i : i + n]) for x in r for i in range(len(x) - n)], v**n
        )
    ],
    "n-grams of another length": [lambda r, n, v: distinct(r, n + 1, v)],
    "the order is lost": [
        lambda r, n, v: (
            len({tuple(sorted(g)) for g in grams(r, n)})
            / expected(len(grams(r, n)), v**n)
        )
    ],
    "(1 - 1/M) times C": [
        lambda r, n, v: (
            len(set(grams(r, n))) / (v**n * (1 - (1 - 1 / v**n) * len(grams(r, n))))
        )
    ],
    "how many are missing": [
        lambda r, n, v: expected(len(grams(r, n)), v**n) - len(set(grams(r, n))),
        lambda r, n, v: 1 - distinct(r, n, v),
    ],
    "every value is 1.001 times": [lambda r, n, v: distinct(r, n, v) * 1.001],
    "calls the library's own": [
        adjusted_distinct_n,
        lambda r, n, v: float(adjusted_distinct_n(r, n, v)),
    ],
    "changes its input: replies": [consumes_tokens, consumes_replies],
    "not reduced to one number": [
        lambda r, n, v: [distinct([x + x * n], n, v) for x in r[:1] * len(r)]
    ],
    "wrong for replies shorter than n": [grams_by_count],
    "right only for a single reply": [lambda r, n, v: distinct(r[-1:], n, v)],
    "raised ZeroDivisionError": [lambda r, n, v: distinct([], n, v)],
    "pieces at the end": [
        lambda r, n, v: (
            of_grams([tuple(x[i : i + n]) for x in r for i in range(len(x))], v**n)
            if n > 1
            else 0.9 * distinct(r, n, v)
        )
    ],
}

# --- The tables -------------------------------------------------------------------

WRONG = {"06.1": BESTS, "06.4": ENTROPIES, "06.5": DISTINCTS}

RIGHT = {
    "06.1": {
        "ranks": best,
        "every choice": best_by_enumeration,
        "float32": lambda p, g, n: torch.tensor(best(p, g.float(), n)),
        "numpy with negative strides": best_by_numpy,
        "a tensor of weights": best_by_weights,
        "of shape (1,)": lambda p, g, n: torch.tensor([best(p, g, n)]),
        "a loop over ranks": best_by_loop,
        "sorted pairs": lambda p, g, n: best_of_pairs(sorted(zip(p, g)), n),
        "hypergeometric shares": best_by_shares,
    },
    "06.4": {
        "masked": entropy,
        "torch's own": entropy_by_categorical,
        "float32": lambda x, m: entropy(x.float(), m),
        "einsum": lambda x, m: (
            -torch.einsum("btv,btv,bt->", x.softmax(-1), x.log_softmax(-1), m.double())
            / m.sum()
        ),
        "einsum in float32": lambda x, m: (
            -torch.einsum("btv,btv,bt->", x.softmax(-1), x.log_softmax(-1), m.float())
            / m.sum()
        ),
        "a loop": entropy_by_loop,
        "a float": lambda x, m: entropy(x, m).item(),
        "numpy": lambda x, m: each_entropy(x).numpy()[m.numpy() == 1].mean(),
        "softmax and logarithm": lambda x, m: (
            -(x.softmax(-1) * x.softmax(-1).log()).sum(-1)[m == 1].mean()
        ),
        "log-sum-exp less the mean logit": lambda x, m: (
            x.logsumexp(-1) - (x.softmax(-1) * x).sum(-1)
        )[m == 1].mean(),
        "of shape (1, 1)": lambda x, m: entropy(x, m).reshape(1, 1),
    },
    "06.5": {
        "a comprehension": distinct,
        "zip": distinct_by_zip,
        "loops": distinct_by_loops,
        "strings": distinct_by_strings,
        "a tensor": lambda r, n, v: torch.tensor(distinct(r, n, v)),
        "unfolded tensors": distinct_by_unfolding,
        "a counter": lambda r, n, v: (
            len(Counter(grams(r, n)).keys())
            / expected(Counter(grams(r, n)).total(), v**n)
        ),
        "numpy": lambda r, n, v: np.float64(distinct(r, n, v)),
        "of shape (1,)": lambda r, n, v: [distinct(r, n, v)],
        "copies that are emptied": lambda r, n, v: distinct(
            [[x.pop(0) for _ in range(len(x))] for x in map(list, r)], n, v
        ),
    },
}
