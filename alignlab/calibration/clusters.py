"""Calibration errors of several models (seeds) on items that hang together by fact.

The same fact is asked of every seed, and often more than once. What one seed gets wrong
the others get wrong too, so neither items nor seeds alone are independent. Here both
are samples: other facts, and other seeds, would give another error.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from alignlab.calibration.checks import as_array, check_events, check_same_length
from alignlab.calibration.metrics import Strategy, bin_edges, bin_index
from alignlab.evaluation.intervals import (
    Estimate,
    Interval,
    mean_of_seeds_and_items,
)

Predictions = tuple[Float[ndarray, "seeds items"], Int[ndarray, "seeds items"]]


def clustered_squared_error(
    confidence: Float[ndarray, "seeds items"],
    correct: Int[ndarray, "seeds items"],
    facts: Sequence | ndarray,
    n_bins: int = 15,
    strategy: Strategy = "quantile",
    level: float = 0.95,
) -> Interval:
    r"""The mean squared calibration gap over seeds, debiased, and an interval in which
    both seeds and facts are random.

    .. math:: T = \frac1n \sum_b m_b
        \frac{(\sum_i d_i)^2 - \sum_f (\sum_{i \in f} d_i)^2}
        {m_b^2 - \sum_f m_{bf}^2}

    for each seed, with d = correct - confidence, :math:`m_b` items in bin b and
    :math:`m_{bf}` of them of fact f. Only pairs of different facts are compared, as
    items of one fact may depend on each other. With one item for each fact it is the T
    of ``squared_error_interval``.

    T is no mean of items. Within fixed bins it is linearised by the jackknife: leaving
    fact f out gives the pseudo-value :math:`F T - (F - 1) T_{-f}`, and the table of
    seeds and facts is then that of ``mean_of_seeds_and_items``, whose error has a
    closed form; the interval is Student's, with at most S - 1 degrees of freedom. In
    simulations of 3, 5 and 10 seeds it covers 0.95 to 1.00. Where the models are
    calibrated, it is about 1.4 times as wide as it need be.

    The value may be negative, and so may be the limits.

    Args:
        confidence, correct: a row per seed.
        facts: the fact that each item asks about, any labels: (items,) if all seeds
            are asked the same items in the same order, or a row per seed, each with all
            of the facts.
        n_bins, strategy: see ``reliability_curve``; each seed has its own bins.
        level: coverage; a higher level gives a wider interval.

    Raises:
        ValueError: as ``reliability_curve``; if there are fewer than two seeds or
            facts, lengths differ, or no bin of a seed holds two facts.

    Source: Efron (1982), The Jackknife; Owen (2007), The pigeonhole bootstrap.
    """
    values, table = _table(confidence, correct, facts, n_bins, strategy)
    return _around(values.mean(), table, level)


def clustered_difference(
    first: Predictions,
    second: Predictions,
    facts: Sequence | ndarray,
    n_bins: int = 15,
    strategy: Strategy = "quantile",
    level: float = 0.95,
) -> Interval:
    """The mean squared calibration gap of one group of models minus that of another on
    the same items, and an interval in which both seeds and facts are random.

    Row s of both groups belongs to the same seed, such as two arms that start from the
    same base model. What they share cancels, so the interval is narrower than for two
    separate groups. Rows that share nothing may be paired in any order.

    Args:
        first, second: ``(confidence, correct)`` of each group, (seeds, items) each.
        facts, n_bins, strategy, level: as for :func:`clustered_squared_error`.

    Raises:
        ValueError: as there; if the groups differ in seeds or items.
    """
    shapes = [np.shape(group[0]) for group in (first, second)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"first has shape {shapes[0]} and second {shapes[1]}: each seed needs "
            "both, on the same items"
        )
    (a, table), (b, other) = (
        _table(*group, facts, n_bins, strategy) for group in (first, second)
    )
    return _around((a - b).mean(), table - other, level)


def _around(value: float, table: Float[ndarray, "seeds facts"], level) -> Interval:
    """An interval around the value itself, which the jackknife's mean is a little off.

    The squared gaps of seeds are skewed. With more than S - 1 degrees of freedom, which
    the facts may give, five seeds that differ cover only 0.90.
    """
    estimate = mean_of_seeds_and_items(table.tolist())
    df = min(estimate.df, len(table) - 1)
    return Estimate(float(value), estimate.standard_error, df).interval(level)


def _table(confidence, correct, facts, n_bins, strategy):
    """The error of each seed, (seeds,), and its pseudo-values, (seeds, facts)."""
    confidence = np.atleast_2d(as_array(confidence, "confidence"))
    correct = np.atleast_2d(as_array(correct, "correct"))
    if len(confidence) < 2 or confidence.shape != correct.shape:
        raise ValueError(
            f"confidence has shape {confidence.shape} and correct {correct.shape}; "
            "both must be (seeds, items), with at least two seeds"
        )
    names, fact = _numbered(facts, confidence)
    seeds = [
        _jackknife(*row, n_bins, strategy)
        for row in zip(confidence, correct, fact, strict=True)
    ]
    values = np.array([value for value, _ in seeds])
    without = np.array([row for _, row in seeds])
    return values, len(names) * values[:, None] - (len(names) - 1) * without


def _numbered(facts, confidence) -> tuple[ndarray, Int[ndarray, "seeds items"]]:
    """The different facts, and the number of each item's in each seed."""
    facts = as_array(facts, "facts", text=True)
    if facts.ndim < 2:
        check_same_length(**{"confidence[0]": confidence[0], "facts": facts})
        facts = np.broadcast_to(facts, confidence.shape)
    if facts.shape != confidence.shape:
        raise ValueError(
            f"facts has shape {facts.shape} and confidence {confidence.shape}; facts "
            "must be (items,), or of the same shape"
        )
    names, fact = np.unique(facts, return_inverse=True)
    fact = fact.reshape(facts.shape)
    if len(names) < 2:
        raise ValueError(f"facts holds only {names[0]!s}; at least two are needed")
    for seed, row in enumerate(fact):
        absent = np.flatnonzero(np.bincount(row, minlength=len(names)) == 0)
        if len(absent):
            raise ValueError(
                f"facts[{seed}] has no item of {names[absent[0]]!s}, which another "
                "seed has: every seed must be asked about every fact"
            )
    return names, fact


def _jackknife(confidence, correct, fact, n_bins, strategy):
    """The squared error of one seed, and that without each fact, in the same bins."""
    confidence, correct = check_events(confidence, correct)
    edges = bin_edges(confidence, n_bins, strategy)
    bins, facts = len(edges) - 1, fact.max() + 1
    # Sums over the items of a fact in a bin, for the pairs that occur.
    cells, cell = np.unique(
        bin_index(confidence, edges) * facts + fact, return_inverse=True
    )
    where, owner = cells // facts, cells % facts
    gap = np.bincount(cell, correct - confidence.astype(float))
    size = np.bincount(cell).astype(float)

    gaps, sizes, own_gaps, own_sizes = (
        np.bincount(where, x, minlength=bins) for x in (gap, size, gap**2, size**2)
    )
    parts = _squares(gaps, sizes, own_gaps, own_sizes)
    if not (sizes**2 > own_sizes).any():
        raise ValueError(
            f"confidence has no two facts in one of {bins} bins, and debiasing "
            "compares facts of one bin: lower n_bins"
        )
    changed = _squares(
        gaps[where] - gap,
        sizes[where] - size,
        own_gaps[where] - gap**2,
        own_sizes[where] - size**2,
    )
    n, items = len(confidence), np.bincount(fact)
    change = np.bincount(owner, changed - parts[where], minlength=facts)
    return parts.sum() / n, (parts.sum() + change) / (n - items)


def _squares(gaps, sizes, own_gaps, own_sizes) -> Float[ndarray, "bins"]:
    """Sizes of bins times their unbiased squared gaps; 0 with fewer than two facts."""
    pairs = sizes**2 - own_sizes
    return np.divide(
        sizes * (gaps**2 - own_gaps), pairs, np.zeros_like(pairs), where=pairs > 0.5
    )
