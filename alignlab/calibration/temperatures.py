"""The temperature at which the log loss or the Brier score is least.

Logits are given in units of their own spread, so log T is looked for around 0.
"""

from functools import partial

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.optimize import brentq, minimize_scalar
from scipy.special import softmax

WIDEST = 10.0  # of |log T|
GRID = 201  # of log T: steps of 0.1, finer than a softmax of 50,000 options turns
LEVEL = 1e-12  # of a Brier score: a valley is deeper
CHANCE = "the logits are no better than chance"


def least_log_loss(
    gaps: Float[ndarray, "items classes"], weights: Float[ndarray, "items"]
) -> tuple[float, str | None]:
    """log T, and if it is a bound of the search, why.

    Args:
        gaps: logits minus that of the right class; -inf for masked options.
        weights: of the items, summing to 1.
    """
    slope = partial(_slope, gaps, weights)
    if slope(-WIDEST) <= 0:
        return -WIDEST, "every answer is right"
    if slope(WIDEST) >= 0:
        return WIDEST, CHANCE
    return brentq(slope, -WIDEST, WIDEST, xtol=1e-13), None


def _slope(gaps, weights, log_t: float) -> float:
    """Of the cross-entropy, by 1/T; it rises with 1/T."""
    shares = softmax(gaps / np.exp(log_t), axis=1)
    pull = np.multiply(shares, gaps, out=np.zeros_like(gaps), where=shares > 0)
    return float(weights @ pull.sum(axis=1))


def least_brier(
    logits: Float[ndarray, "items classes"],
    codes: Int[ndarray, "items"],
    weights: Float[ndarray, "items"],
) -> tuple[float, str | None]:
    """log T, and if it is a bound of the search, why. Every valley of a grid is
    searched.

    Args:
        logits: -inf for masked options.
        codes: the right class of each item.
        weights: of the items, summing to 1.
    """
    score = partial(_brier, logits, codes, weights)
    grid = np.linspace(-WIDEST, WIDEST, GRID)
    on_grid = np.array([score(log_t) for log_t in grid])
    middle = on_grid[1:-1]
    valleys = (middle <= on_grid[:-2]) & (middle <= on_grid[2:])
    results = [
        minimize_scalar(
            score, bounds=grid[[at, at + 2]], method="bounded", options={"xatol": 1e-10}
        )
        for at in np.flatnonzero(valleys & (middle < on_grid[[0, -1]].min() - LEVEL))
    ]
    if results:
        return float(min(results, key=lambda result: result.fun).x), None
    if on_grid[0] <= on_grid[-1]:
        return -WIDEST, "the Brier score is least where the model is surest"
    return WIDEST, CHANCE


def _brier(logits, codes, weights, log_t: float) -> float:
    """Weighted mean over items, at this temperature; the weights sum to 1."""
    p = softmax(logits / np.exp(log_t), axis=1)
    squares = np.einsum("ik,ik->i", p, p) - 2 * p[np.arange(len(codes)), codes] + 1
    return float(weights @ squares)
