"""Exercises of notebook 06: best-of-n without sampling, the entropy of real tokens,
distinct n-grams corrected for length."""

import itertools
import math
from typing import TYPE_CHECKING

from alignlab.course.exercise import (
    Case,
    Exercise,
    generator,
    normal,
    scalar,
    told_apart,
)

if TYPE_CHECKING:
    from torch import Tensor


def _read_best(output, proxies, golds, n) -> "Tensor":
    shapes = [tuple(golds.shape), (n,), (1,), (math.comb(len(golds), n),)]
    return scalar(output, shapes, "take the mean over all ways to choose n")


def _read_entropy(output, logits, mask) -> "Tensor":
    shapes = [tuple(mask.shape), (len(mask),), (int(mask.sum()),), (1,)]
    shapes += [tuple(logits.shape)]
    return scalar(output, shapes, "take the mean over the real tokens")


def _read_distinct(output, replies, n, vocabulary) -> "Tensor":
    return scalar(output, [(len(replies),), (1,)], "take all replies together")


# --- 06.1: best of n without a draw -----------------------------------------------


def _best_cases() -> list[Case]:
    import torch

    from alignlab.evaluation.best_of_n import best_of_n_values

    cases = []
    for seed, count, n, about in (
        (0, 6, 2, "two of a pool"),
        (1, 9, 4, "four of a pool"),
        (2, 5, 5, "n = N, all of the pool"),
        (3, 8, 1, "n = 1"),
        (4, 2, 2, "a pool of two"),
        (5, 40, 3, "a large pool"),
    ):
        proxies, golds = normal(seed, 2, count)
        [value] = best_of_n_values(proxies[None].numpy(), golds[None].numpy(), n)
        args = dict(proxies=proxies, golds=golds, n=n)
        right = torch.tensor(float(value), dtype=torch.float64)
        cases.append(Case(args, right, about))
    return cases


def _best_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    proxies, golds, n = case.args.values()
    order = proxies.argsort()
    ranked, count = golds[order], len(golds)

    def weighed(weights) -> "Tensor":
        return (torch.tensor(weights, dtype=torch.float64) * ranked).sum()

    def over(others, how=len) -> list[float]:
        return [math.comb(i, others) / math.comb(count, n) for i in range(count)]

    chances, total = over(n - 1), math.comb(count, n)
    replaced = [((i + 1) / count) ** n - (i / count) ** n for i in range(count)]
    later = [math.comb(i + 1, n) / math.comb(count, n) for i in range(count)]
    by_gold = (torch.tensor(chances, dtype=torch.float64) * golds.sort().values).sum()
    by_proxy = (torch.tensor(chances, dtype=torch.float64) * proxies[order]).sum()
    groups = [golds[i : i + n][proxies[i : i + n].argmax()] for i in range(0, count, n)]
    mistakes = {
        "the proxy is averaged: it only picks; average the gold": [by_proxy],
        "gold picks: the proxy has to, for gold is what one does not have": [by_gold],
        "the worst of n: sort so that the highest proxy comes last": [
            weighed(chances[::-1])
        ],
        "the best of all samples, whatever n": [ranked[-1]],
        "the mean of the n best: only the best one is taken": [ranked[-n:].mean()],
        "with replacement: the n are different samples of the pool": [
            weighed(replaced)
        ],
        "only the first n samples: average over all ways to choose n": [
            golds[:n][proxies[:n].argmax()]
        ],
        "groups of n, each sample in one: right on average, but it throws most of the "
        "choices away": [torch.stack(groups).mean(), torch.stack(groups[: count // n])
                         .mean()],
        "off by one: of the n, n - 1 are among the i samples below": [
            weighed(over(n)), weighed(later),
            weighed([math.comb(i + 1, n - 1) / total for i in range(count)]),
        ],
        "not normalised: divide by the number of ways to choose n": [
            weighed([math.comb(i, n - 1) for i in range(count)]),
            weighed(
                [chance * total / math.comb(count - 1, n - 1) for chance in chances]
            ),
        ],
        "unsorted: the weights belong to ranks by proxy": [
            (torch.tensor(chances, dtype=torch.float64) * golds).sum()
        ],
        "the plain mean: that is n = 1": [golds.mean()],
        "zeros: that would be no reply at all": [golds.sum() * 0],
        "the best gold of all: the proxy picks": [golds.max()],
        "the n best by proxy of all: only the best one of n is taken": [
            proxies.topk(n).values.mean(), golds.topk(n).values.mean(),
        ],
        "a quantile: the best of n is an average over ranks": [
            ranked[min(int(count * n / (n + 1)), count - 1)], ranked.median(),
        ],
        "weighted by the proxy: only its order counts": [
            (proxies.softmax(0) * golds).sum(), (proxies * golds).mean(),
        ],
        "more than the mean: return the gold itself": [case.expected - golds.mean()],
        "the last n samples: average over all ways to choose n": [
            golds[-n:][proxies[-n:].argmax()]
        ],
        "the proxies add up: weights belong to ranks": [
            (golds * proxies).sum() / proxies.sum()
        ],
    }  # fmt: skip
    return told_apart(mistakes, case)


# --- 06.4: entropy of real tokens -------------------------------------------------


def _entropy_cases() -> list[Case]:
    import torch

    from alignlab.evaluation.diversity import token_entropy

    cases = []
    for seed, lengths, time, size, about in (
        (0, [2, 5, 3], 5, 7, "replies of unequal length"),
        (1, [4, 1], 6, 3, "replies of unequal length"),
        (2, [6], 6, 11, "a batch of one row"),
    ):
        logits = 2 * normal(seed, len(lengths), time, size)
        mask = (torch.arange(time) < torch.tensor(lengths)[:, None]).long()
        args = dict(logits=logits, mask=mask)
        value = token_entropy(logits, mask)
        right = torch.tensor(value, dtype=torch.float64)
        cases.append(Case(args, right, about))
    return cases


def _entropy_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    logits, mask = case.args.values()
    log_p, real = logits.log_softmax(-1), mask.double()
    p = log_p.exp()
    every = -(p * log_p).sum(-1)  # (B, T)
    count, size = real.sum(), logits.shape[-1]
    right = case.expected
    mistakes = {
        "padding counts: the mean is over tokens whose mask is 1": [every.mean()],
        "padding is zeroed but still counted: divide by the number of real tokens": [
            (every * real).sum() / real.numel()
        ],
        "a mean of means: short replies count as much as long ones; every token "
        "should count once": [((every * real).sum(1) / real.sum(1)).mean()],
        "summed over a reply: return nats per token": [
            (every * real).sum(1).mean()
        ],
        "summed up: divide by the number of real tokens": [(every * real).sum()],
        "sign flipped: entropy is never negative": [-right],
        "of logits, not of log-probabilities: take log_softmax first": [
            (-(p * logits).sum(-1) * real).sum() / count
        ],
        "softmax over the wrong dimension: the vocabulary is the last": [
            (_entropy_over(logits, 1) * real).sum() / count
        ] if logits.shape[1] > 1 else [],
        "the log-probability of the likeliest token, not the mean over the "
        "vocabulary": [(-log_p.max(-1).values * real).sum() / count],
        "the mean over the vocabulary instead of the sum": [right / size],
        "in bits: natural logarithms give nats": [right / math.log(2)],
        "a share of the greatest: leave log V out": [right / math.log(size)],
        "cross-entropy with a uniform guess: weigh by p, not by 1/V": [
            (-log_p.mean(-1) * real).sum() / count
        ],
        "zeros: nothing would be left to chance": [right * 0],
        "perplexity: take the logarithm, or leave the exponential out": [
            right.exp(), (every.exp() * real).sum() / count,
        ],
        "no logarithm: the sum of squared probabilities": [
            ((p * p).sum(-1) * real).sum() / count,
            (1 - (p * p).sum(-1))[real > 0].mean(),
        ],
        "the padding alone: the mask is 1 on real tokens": [
            (every * (1 - real)).sum() / (1 - real).sum()
        ],
        "of the mean distribution: entropy first, then the mean over tokens": [
            _entropy_of((p * real[..., None]).sum((0, 1)) / count),
            _entropy_of(p.mean((0, 1))),
        ],
        "the last token only: every real token counts": [
            every[:, -1].mean(),
            every[torch.arange(len(mask)), mask.sum(1) - 1].mean(),
        ],
        "the mask on the logits: it leaves a uniform guess in the padding": [
            _entropies(logits * real[..., None]).mean(),
            _entropies(logits * real[..., None]).sum() / count,
        ],
        "divided by the number of rows and columns that are there: only the mask "
        "counts": [(every * real).sum() / logits.shape[1]],
        "a median: take the mean": [every[real > 0].median()],
        "the largest or the smallest: take the mean": [
            every[real > 0].max(), every[real > 0].min(),
        ],
    }  # fmt: skip
    shown = {name: wrong for name, wrong in mistakes.items() if wrong}
    return told_apart(shown, case)


def _entropies(logits: "Tensor") -> "Tensor":
    return _entropy_over(logits, -1)


def _entropy_of(p: "Tensor") -> "Tensor":
    import torch

    return -torch.xlogy(p, p).sum()


def _entropy_over(logits, dim: int) -> "Tensor":
    log_p = logits.log_softmax(dim)
    return -(log_p.exp() * log_p).sum(-1)


# --- 06.5: distinct n-grams whatever the length -----------------------------------


def _distinct_cases() -> list[Case]:
    import torch

    from alignlab.evaluation.diversity import adjusted_distinct_n

    cases = []
    for seed, lengths, vocabulary, n, about in (
        (0, [7, 9, 4], 6, 1, "single tokens"),
        (1, [12, 5], 4, 2, "pairs of tokens"),
        (2, [30], 9, 1, "a single reply"),
        (3, [3, 8, 6], 3, 3, "n-grams of three"),
        (4, [1, 6, 0, 9], 5, 2, "replies shorter than n"),
    ):
        random = generator(seed)
        replies = [
            torch.randint(vocabulary, (length,), generator=random).tolist()
            for length in lengths
        ]
        value = adjusted_distinct_n(replies, n, vocabulary)
        args = dict(replies=replies, n=n, vocabulary=vocabulary)
        cases.append(Case(args, torch.tensor(value, dtype=torch.float64), about))
    return cases


def _distinct_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    replies, n, vocabulary = case.args.values()

    def grams_of(rows, size=n) -> list[tuple]:
        return [tuple(r[i : i + size]) for r in rows for i in range(len(r) - size + 1)]

    def adjusted(grams, possible) -> float:
        return len(set(grams)) / (possible * (1 - (1 - 1 / possible) ** len(grams)))

    grams = grams_of(replies)
    different, count, possible = len(set(grams)), len(grams), vocabulary**n
    joined = grams_of([list(itertools.chain(*replies))])
    expected = possible * (1 - (1 - 1 / possible) ** count)
    tokens = sum(map(len, replies))
    apart = [tuple(r[i : i + n]) for r in replies for i in range(0, len(r) - n + 1, n)]
    pieces = [tuple(r[i : i + n]) for r in replies for i in range(len(r))]
    short = [g for r in replies for g in grams_of([r])[:-1]]
    each = [adjusted(grams_of([r]), possible) for r in replies if len(r) >= n]
    mistakes = {
        "not adjusted: divided by the number of n-grams, so that long replies look "
        "poorer": [different / count],
        "divided by all that there could be: few tokens cannot show them all": [
            different / possible
        ],
        "the vocabulary of single tokens: there are V^n different n-grams": (
            [adjusted(grams, vocabulary)] if n > 1 else []
        ),
        "n-grams reach from one reply into the next": (
            [adjusted(joined, possible)] if n > 1 and len(replies) > 1 else []
        ),
        "a mean over replies: take their n-grams together": (
            [sum(each) / len(each)] if len(replies) > 1 else []
        ),
        "single tokens, whatever n": (
            [adjusted(grams_of(replies, 1), vocabulary)] if n > 1 else []
        ),
        "how many are expected: divide what was found by it": [
            possible * (1 - (1 - 1 / possible) ** count)
        ],
        "the expected share of what is missing: take it off 1": [
            different / (possible * (1 - 1 / possible) ** count)
        ],
        "upside down: expected over found": [
            possible * (1 - (1 - 1 / possible) ** count) / different
        ],
        "the number of different ones: divide by the number expected": [different],
        "zeros: the replies are not empty": [0.0],
        "every n-gram counts: only different ones do": [
            count / (possible * (1 - (1 - 1 / possible) ** count))
        ],
        "as many draws as tokens: C is the number of n-grams": (
            [different / (possible * (1 - (1 - 1 / possible) ** tokens))]
            if n > 1
            else []
        ),
        "as many draws as replies: C is the number of n-grams": [
            different / (possible * (1 - (1 - 1 / possible) ** len(replies)))
        ],
        "V times n n-grams: there are V^n": (
            [adjusted(grams, vocabulary * n), adjusted(grams, n**vocabulary)]
            if n > 1
            else []
        ),
        "the words in use, not the vocabulary: M = V^n": [
            adjusted(grams, len({t for r in replies for t in r}) ** n)
        ],
        "n-grams do not overlap: each token begins one, but the last n - 1": (
            [adjusted(apart, possible), len(set(apart)) / expected] if n > 1 else []
        ),
        "one n-gram too few: the last one counts as well": [adjusted(short, possible)],
        "pieces at the end of a reply that are shorter than n: n-grams have n tokens": (
            [adjusted(pieces, possible)] if n > 1 else []
        ),
        "n-grams of another length: they have n tokens": [
            adjusted(grams_of(replies, n + 1), vocabulary ** (n + 1)),
            adjusted(grams_of(replies, n + 1), possible),
        ],
        "the order is lost: an n-gram is a sequence": (
            [
                len({tuple(sorted(g)) for g in grams}) / expected,
                len({frozenset(g) for g in grams}) / expected,
            ]
            if n > 1
            else []
        ),
        "(1 - 1/M) times C: it is to the power C": [
            different / (possible * (1 - (1 - 1 / possible) * count))
        ],
        "how many are missing: divide those found by those expected": [
            expected - different,
            1 - different / expected,
        ],
    }
    tensors = {
        name: [torch.tensor(float(value), dtype=torch.float64) for value in values]
        for name, values in mistakes.items()
        if values
    }
    return told_apart(tensors, case)


# --- The exercises ----------------------------------------------------------------

EXERCISES: dict[str, Exercise] = {
    "06.1": Exercise(
        "my_best_of_n(proxies, golds, n)",
        _best_cases,
        _read_best,
        _best_mistakes,
        "the mean over all ways to choose n, as "
        "`alignlab.evaluation.best_of_n.best_of_n_values` has it",
        hints=(
            (
                "Sort the replies by proxy reward. If the i-th is the best of n, "
                "where do the other n - 1 come from, and in how many ways?"
            ),
            (
                "Sort gold by proxy; the sample with i others below it is the best "
                "of n in `math.comb(i, n - 1)` of the `math.comb(N, n)` ways to "
                "choose them."
            ),
        ),
        minutes=25,
        stars=3,
        library=(
            "alignlab.evaluation.best_of_n.best_of_n_values",
            "alignlab.evaluation.best_of_n.best_of_n_probabilities",
        ),
    ),
    "06.4": Exercise(
        "my_token_entropy(logits, mask)",
        _entropy_cases,
        _read_entropy,
        _entropy_mistakes,
        "the same as `alignlab.evaluation.diversity.token_entropy`",
        hints=(
            (
                "First the entropy of each token, (B, T). Then why is the mean over "
                "tokens not the mean of the rows' means?"
            ),
            (
                "-Σ p log p over the vocabulary gives (B, T); add up where the mask "
                "is 1 and divide by the number of ones."
            ),
        ),
        minutes=15,
        stars=2,
        library=(
            "alignlab.evaluation.diversity.token_entropy",
            "alignlab.objectives.policy.entropy",
        ),
    ),
    "06.5": Exercise(
        "my_adjusted_distinct(replies, n, vocabulary)",
        _distinct_cases,
        _read_distinct,
        _distinct_mistakes,
        "the same as `alignlab.evaluation.diversity.adjusted_distinct_n`",
        hints=(
            (
                "There are two counts: all n-grams, each within its reply, and the "
                "different ones among them. What does the second grow with, even if "
                "replies are drawn at random?"
            ),
            (
                "With M = V^n possible n-grams and C of them drawn, M (1 - (1 - "
                "1/M)^C) different ones are expected; divide the number found by "
                "that."
            ),
        ),
        minutes=20,
        stars=2,
        library=("alignlab.evaluation.diversity.adjusted_distinct_n",),
    ),
}
