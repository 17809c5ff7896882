"""Exercises of notebook 06: best-of-n without sampling, the entropy of real tokens,
distinct n-grams corrected for length."""

import itertools
import math
from typing import TYPE_CHECKING

from alignlab.course.checks import (
    Case,
    Exercise,
    Misfit,
    normal,
    tensor,
)

if TYPE_CHECKING:
    from torch import Tensor


def _number(output, **given) -> "Tensor":
    """One number, as a tensor of one, so that a mean size is never that of nothing."""
    shape = getattr(output, "shape", ())
    if tuple(shape):
        raise Misfit(f"returns numbers of shape {tuple(shape)}: one number is right")
    return tensor(output, ())


# --- 06.1: best of n without a draw -----------------------------------------------


def _best_cases() -> list[Case]:
    import torch

    from alignlab.evaluation.best_of_n import best_of_n_values

    cases = []
    for seed, count, n in ((0, 6, 2), (1, 9, 4), (2, 5, 5), (3, 8, 1)):
        proxies, golds = normal(seed, 2, count)
        [value] = best_of_n_values(proxies[None].numpy(), golds[None].numpy(), n)
        args = dict(proxies=proxies, golds=golds, n=n)
        cases.append(Case(args, torch.tensor(float(value), dtype=torch.float64)))
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

    chances = over(n - 1)
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
        ],
        "not normalised: divide by the number of ways to choose n": [
            weighed([math.comb(i, n - 1) for i in range(count)])
        ],
        "unsorted: the weights belong to ranks by proxy": [
            (torch.tensor(chances, dtype=torch.float64) * golds).sum()
        ],
        "the plain mean: that is n = 1": [golds.mean()],
        "zeros: that would be no reply at all": [golds.sum() * 0],
    }  # fmt: skip
    return {name: wrong for name, wrong in mistakes.items() if _wrong(case, wrong)}


def _wrong(case: Case, values: list["Tensor"]) -> bool:
    """Whether the mistake shows in this case: at n = 1 or n = N some do not."""
    size = case.expected.abs().mean()
    return all((value - case.expected).abs() > 1e-3 * size for value in values)


# --- 06.2: entropy of real tokens -------------------------------------------------


def _entropy_cases() -> list[Case]:
    import torch

    from alignlab.evaluation.diversity import token_entropy

    cases = []
    for seed, lengths, time, size in (
        (0, [2, 5, 3], 5, 7),
        (1, [4, 1], 6, 3),
        (2, [6], 6, 11),
    ):
        logits = 2 * normal(seed, len(lengths), time, size)
        mask = (torch.arange(time) < torch.tensor(lengths)[:, None]).long()
        args = dict(logits=logits, mask=mask)
        value = token_entropy(logits, mask)
        cases.append(Case(args, torch.tensor(value, dtype=torch.float64)))
    return cases


def _entropy_mistakes(case: Case) -> dict[str, list["Tensor"]]:
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
    }  # fmt: skip
    shown = {name: wrong for name, wrong in mistakes.items() if wrong}
    return {name: wrong for name, wrong in shown.items() if _wrong(case, wrong)}


def _entropy_over(logits, dim: int) -> "Tensor":
    log_p = logits.log_softmax(dim)
    return -(log_p.exp() * log_p).sum(-1)


# --- 06.3: distinct n-grams whatever the length -----------------------------------


def _distinct_cases() -> list[Case]:
    import torch

    from alignlab.evaluation.diversity import adjusted_distinct_n

    cases = []
    for seed, lengths, vocabulary, n in (
        (0, [7, 9, 4], 6, 1),
        (1, [12, 5], 4, 2),
        (2, [30], 9, 1),
        (3, [3, 8, 6], 3, 3),
    ):
        random = torch.Generator().manual_seed(seed)
        replies = [
            torch.randint(vocabulary, (length,), generator=random).tolist()
            for length in lengths
        ]
        value = adjusted_distinct_n(replies, n, vocabulary)
        args = dict(replies=replies, n=n, vocabulary=vocabulary)
        cases.append(Case(args, torch.tensor(value, dtype=torch.float64)))
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
    }
    tensors = {
        name: [torch.tensor(float(value), dtype=torch.float64) for value in values]
        for name, values in mistakes.items()
        if values
    }
    return {name: wrong for name, wrong in tensors.items() if _wrong(case, wrong)}


# --- The exercises ----------------------------------------------------------------

EXERCISES: dict[str, Exercise] = {
    "06.1": Exercise(
        "my_best_of_n(proxies, golds, n)",
        _best_cases,
        _number,
        _best_mistakes,
        "the mean over all ways to choose n, as "
        "`alignlab.evaluation.best_of_n.best_of_n_values` has it",
        "sort gold by proxy; the sample with i others below it is the best of n in "
        "`math.comb(i, n - 1)` of the `math.comb(N, n)` ways to choose them.",
    ),
    "06.2": Exercise(
        "my_token_entropy(logits, mask)",
        _entropy_cases,
        _number,
        _entropy_mistakes,
        "the same as `alignlab.evaluation.diversity.token_entropy`",
        "-Σ p log p over the vocabulary gives (B, T); add up where the mask is 1 and "
        "divide by the number of ones.",
    ),
    "06.3": Exercise(
        "my_adjusted_distinct(replies, n, vocabulary)",
        _distinct_cases,
        _number,
        _distinct_mistakes,
        "the same as `alignlab.evaluation.diversity.adjusted_distinct_n`",
        "with M = V^n possible n-grams and C of them drawn, M (1 - (1 - 1/M)^C) "
        "different ones are expected; divide the number found by that.",
    ),
}
