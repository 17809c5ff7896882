"""Best of n: what the sample that a proxy ranks highest among n is worth.

Computed from N samples of each prompt as the mean over all ways to draw n of them, so
that nothing is left to chance.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from alignlab.evaluation.exact import best_of_n_kl


def best_of_n_probabilities(
    proxies: Float[np.ndarray, "prompts samples"], n: int
) -> Float[np.ndarray, "prompts samples"]:
    r"""Probability of each sample to be picked from n that are drawn without
    replacement; rows sum to 1.

    .. math:: \frac{\binom{u}{n} - \binom{u-t}{n}}{t \binom{N}{n}}

    with u the samples whose proxy is not higher, and t those with the same proxy (the
    sample itself among them): a tie is broken at random, so tied samples share evenly.

    Args:
        proxies: only their order within a prompt counts.
        n: samples to pick from; higher follows the proxy more closely.

    Raises:
        ValueError: if proxies are not of shape (prompts, samples), or n is not between
            1 and the number of samples.

    Source: Nakano et al. (2021), WebGPT, appendix I, for t = 1.
    """
    proxies = np.asarray(proxies, float)
    if proxies.ndim != 2:
        raise ValueError(
            f"proxies have shape {proxies.shape}; expected (prompts, samples)"
        )
    count = proxies.shape[1]
    if not 1 <= n <= count:
        raise ValueError(f"n is {n}; of {count} samples it can be 1 to {count}")
    # Integers up to the division, since differences of floats would lose digits.
    ways = [math.comb(u, n) for u in range(count + 1)]

    def share(up_to: int, tied: int) -> float:
        return (ways[up_to] - ways[up_to - tied]) / ways[count] / tied

    probabilities = np.empty_like(proxies)
    for row, chances in zip(proxies, probabilities, strict=True):
        _, level, tied = np.unique(row, return_inverse=True, return_counts=True)
        up_to = tied.cumsum()
        by_level = [share(*pair) for pair in zip(up_to.tolist(), tied.tolist())]
        chances[:] = np.array(by_level)[level]
    return probabilities


def best_of_n_values(
    proxies: Float[np.ndarray, "prompts samples"],
    values: Float[np.ndarray, "prompts samples"],
    n: int,
) -> Float[np.ndarray, "prompts"]:
    """Expected value of the sample with the highest proxy among n, for each prompt.

    It is unbiased for best-of-n of fresh samples and has the least variance that N
    samples allow (a U-statistic).

    Args:
        proxies, n: see :func:`best_of_n_probabilities`. Above N/10 the estimate rests
            on few samples.
        values: what is averaged: gold, or the proxy itself.

    Raises:
        ValueError: if the shapes differ, or as :func:`best_of_n_probabilities` does.

    Source: Nakano et al. (2021), appendix I; Hilton & Gao (2022), Measuring Goodhart's
    law.
    """
    probabilities = best_of_n_probabilities(proxies, n)
    values = np.asarray(values, float)
    if values.shape != probabilities.shape:
        raise ValueError(
            f"proxies have shape {probabilities.shape} and values {values.shape}: "
            "expected (prompts, samples) twice"
        )
    pairs = zip(probabilities, values, strict=True)
    return np.array([chances @ row for chances, row in pairs])


def best_of_n_curve(
    proxies: Float[np.ndarray, "prompts samples"],
    golds: Float[np.ndarray, "prompts samples"],
    ns: Sequence[int],
) -> list[dict]:
    """A row for each n: ``n``; ``kl`` to the policy that was sampled, in nats (exact if
    no two completions tie, else an upper bound); ``gold`` and ``proxy``, means over the
    prompts."""
    return [
        {
            "n": n,
            "kl": best_of_n_kl(n),
            "gold": float(best_of_n_values(proxies, golds, n).mean()),
            "proxy": float(best_of_n_values(proxies, proxies, n).mean()),
        }
        for n in ns
    ]
