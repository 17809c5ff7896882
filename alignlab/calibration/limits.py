"""Limits of a squared calibration error, by inverting a test of each possible size."""

from math import isqrt
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.special import chndtr, chndtrinc

from alignlab.calibration.metrics import Strategy, Tally, debiased_squares, tally

SMOOTH = 0.8  # share of the error probability that level and slope get, bins the rest
MOST_BINS = 256
MANY, CELLS = 200_000, 4096  # from how many predictions on, and how many narrow bins


# --- Bins -------------------------------------------------------------------------


def tallies(confidence, correct, n_bins: int, strategy: Strategy) -> tuple[Tally, ...]:
    """The bins asked for, and the same predictions in about as many bins of equal mass
    as the root of their number, which miss little of a curve.

    Very many predictions are not sorted for the second: it joins narrow bins of equal
    width, unless one of these holds too many of the predictions.
    """
    t, cells = None, None
    if len(confidence) > MANY:
        nested = strategy == "uniform" and n_bins == int(n_bins) > 0
        each = -(-CELLS // n_bins) if nested else 1
        width = n_bins * each if each > 1 else CELLS
        cells = tally(confidence, correct, width, "uniform")
        if each > 1:
            t = joined(cells, np.arange(0, width, each))
    t = tally(confidence, correct, n_bins, strategy) if t is None else t
    n = int(t.count.sum())
    wanted = min(max(min(n_bins, n // 4), isqrt(n), 1), max(n_bins, MOST_BINS))
    if cells is None or cells.count.max() > 2 * n / wanted:
        return t, tally(confidence, correct, wanted, "quantile")
    middle = np.cumsum(cells.count) - cells.count / 2
    place = (middle * wanted / n).astype(int)
    return t, joined(cells, np.flatnonzero(np.diff(place, prepend=-1)))


def joined(t: Tally, starts: Int[ndarray, "joined"]) -> Tally:
    """Neighbouring bins put together; each of the new ones begins at a start."""
    sums = (np.add.reduceat(x, starts) for x in t[1:])
    return Tally(np.append(t.edges[:-1][starts], t.edges[-1]), *sums)


# --- Sums over pairs --------------------------------------------------------------


class PairSum(NamedTuple):
    r"""A sum over pairs of predictions, :math:`\sum_{i \ne j} k_{ij} d_i d_j`.

    Its mean is (a part of) the squared calibration error, whatever the variance of d.
    Centred at 0 it is distributed like :math:`a \chi^2_\nu - a \nu`, with a and
    :math:`\nu` from its variance; at an error :math:`\theta^2` like
    :math:`a \chi^2_\nu(\theta^2 / a) - a \nu`, a noncentral chi-square.
    """

    value: float
    scale: float  # a
    df: float  # nu

    def lower(self, alpha: float) -> float:
        """The error at which a value this high has probability ``alpha``, or 0."""
        if self.scale == 0:
            return max(self.value, 0.0)
        place = self.value / self.scale + self.df
        if place <= 0 or self.p_value() >= alpha:
            return 0.0
        return self.scale * float(chndtrinc(place, self.df, 1 - alpha))

    def upper(self, alpha: float) -> float:
        """The error at which a value this low has probability ``alpha``; a value below
        0 counts as 0, for no error lies below."""
        value = max(self.value, 0.0)
        if self.scale == 0:
            return value
        place = value / self.scale + self.df
        return self.scale * float(chndtrinc(place, self.df, alpha))

    def p_value(self) -> float:
        """The chance of a value this high if the error is 0."""
        if self.scale == 0:
            return float(self.value <= 0)
        place = self.value / self.scale + self.df
        return 1.0 - float(chndtr(place, self.df, 0.0)) if place > 0 else 1.0


# --- Limits and test --------------------------------------------------------------


def limits(t: Tally, fine: Tally, level: float) -> tuple[float, float]:
    """Lower and upper limit of the squared error.

    The upper limit is that of the fine bins, which miss little of a curve. Any bins and
    any smooth summary show at most the whole error, so the lower limit may come from
    those that show most: the gap's level and slope, or else the bins of ``t``.

    Errors below the lowest possible upper limit cannot be missed from above. There the
    lower limit takes all of the error probability, and not half of it.
    """
    alpha = 1 - level
    whole = binned(fine)
    floor = whole._replace(value=0.0).upper(alpha / 2)
    smooth, bins = level_and_slope(fine), binned(t)
    low = _lower(smooth, bins, alpha / 2)
    if low < floor:
        low = min(_lower(smooth, bins, alpha), floor)
    return low, whole.upper(alpha / 2)


def null_p_value(t: Tally, fine: Tally) -> float:
    """Of the hypothesis that the error is 0, from level and slope, and from bins."""
    smooth, bins = level_and_slope(fine, null=True), binned(t, null=True)
    return min(smooth.p_value() / SMOOTH, bins.p_value() / (1 - SMOOTH), 1.0)


def binned(t: Tally, null: bool = False) -> PairSum:
    """Pairs in the same bin. Under the null hypothesis the variance of d is known."""
    value = float(debiased_squares(t).sum())
    filled = t.count > 1
    m, n = t.count[filled], t.count.sum()
    gap, mean = (t.correct - t.confidence)[filled], t.confidence[filled] / m
    spread = mean * (1 - mean)
    if not null:
        sample = np.maximum(t.squares[filled] - gap**2 / m, 0) / (m - 1)
        spread = np.maximum(spread, sample)
    return _pair_sum(value, spread.sum() / n, (spread**2 * m / (m - 1)).sum() / n**2)


def level_and_slope(t: Tally, null: bool = False) -> PairSum:
    """Pairs weighted by :math:`1 + z_i z_j`, with z the standardised rank of the bin.

    It sees a gap that is constant or changes steadily, and much of most others.
    """
    filled = t.count > 0
    m, n = t.count[filled], t.count.sum()
    gap, mean = (t.correct - t.confidence)[filled], t.confidence[filled] / m
    curves = _curves(m)
    sizes = curves.T @ gap / n
    spread = mean * (1 - mean)
    if not null:
        accuracy = np.clip(mean + curves @ sizes, 0, 1)
        spread = np.maximum(spread, accuracy * (1 - accuracy))
    own = (curves**2).sum(1) / n**2  # each prediction's pair with itself
    value = float(sizes @ sizes - own @ t.squares[filled])
    covariance = (curves * (m * spread)[:, None]).T @ curves / n**2
    squares = (covariance**2).sum() - (m * (spread * own) ** 2).sum()
    return _pair_sum(value, np.trace(covariance), max(squares, 0.0))


def _curves(m: Float[ndarray, "bins"]) -> Float[ndarray, "bins curves"]:
    """1 and, with more than one bin, the standardised rank."""
    rank = np.cumsum(m) - m / 2
    rank = rank - np.average(rank, weights=m)
    size = np.sqrt(np.average(rank**2, weights=m))
    ones = np.ones(len(m))
    return np.column_stack([ones, rank / size] if size > 0 else [ones])


def _lower(smooth: PairSum, bins: PairSum, alpha: float) -> float:
    return max(smooth.lower(SMOOTH * alpha), bins.lower((1 - SMOOTH) * alpha))


def _pair_sum(value: float, first: float, second: float) -> PairSum:
    """With the mean and half the variance of the chi-square that matches the sum."""
    if first <= 0 or second <= 0:
        return PairSum(value, 0.0, 0.0)
    return PairSum(value, float(second / first), float(first**2 / second))
