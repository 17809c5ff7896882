r"""How far a run may lie from its record before that is drift.

Everything rests on the record. What a run says of its own precision is not believed,
or values times -7 with huge intervals would pass.

**One metric.** The record has m values of it, one for each seed (or for each run, where
runs have one seed). If their mean is x and their standard deviation s, the mean of k
other seeds lies within

.. math:: x \pm t_{\nu}\, s \sqrt{1/m + 1/k}

a prediction interval of Student's t. Where the record states an interval that also
allows for other questions, and that is wider, it takes the place of s. Few seeds tell
little about s, so within a unit it is drawn towards that of the other metrics, as far
as those resemble each other (:func:`moderated`).

**Equivalence.** No difference below the metric's tolerance counts, however small the
spread: seeds that all reach 1.000 do not forbid 0.998.

**All metrics together.** Each alone may stay inside its band while all of them move.
:func:`joint_p` adds up their squares, over each notebook and over the run, and allows
for metrics that move together.

One check of a run of any size gives a false alarm in about one case of a hundred: half
of that is for single metrics, half for sums, each shared equally (Bonferroni).

Source: Smyth (2004), Linear models and empirical Bayes methods, for the spread; Bai and
Saranadasa (1996), Effect of high dimension, for metrics that are correlated.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.special import chdtrc, digamma, ndtr, ndtri, polygamma, stdtr, stdtrit

ERROR = 0.01  # of one check: half for single metrics, half for sums
LEVEL = 0.95  # of the bands that are shown
SHARE, RELATIVE, ITEMS = 0.02, 0.02, 3  # tolerances, see ``tolerance_of``
COMMON = 0.05  # the least squared correlation that few seeds are taken to have shown
ROUNDING = 1e-9  # of the largest value: such a spread is none
FEW = 8  # fewer metrics of a unit say nothing about each other's spread


@dataclass(frozen=True)
class Band:
    """Where a metric of a run of ``k`` seeds is expected, by its record.

    Attributes:
        mean: of the recorded values.
        sd: their standard deviation; NaN with fewer than two.
        df: its degrees of freedom; 0 if there is no spread to judge by.
        factor: 1/m + 1/k: ``sd`` times its root is the error of the prediction.
        stated: the error of the prediction by the recorded interval; 0 without one.
        stated_df: of the interval.
        tolerance: differences up to this never count.
        least_p: no p-value is below this, see :func:`odd_one_out`.
    """

    mean: float
    sd: float
    df: float
    factor: float
    stated: float = 0.0
    stated_df: float = math.inf
    tolerance: float = 0.0
    least_p: float = 0.0

    @property
    def _error(self) -> tuple[float, float]:
        """The larger of the two errors, and its degrees of freedom."""
        by_seeds = self.sd * math.sqrt(self.factor) if self.df else 0.0
        if by_seeds >= self.stated:
            return by_seeds, self.df or math.inf
        return self.stated, self.stated_df

    def half_width(self, level: float = LEVEL) -> float:
        """Half of the width of the band at a level, in the metric's unit."""
        error, df = self._error
        return max(quantile((1 + level) / 2, df) * error, self.tolerance)

    def p(self, value: float) -> float:
        """Two-sided p-value of a value under the record; 1 within the tolerance, and 0
        beyond it where nothing else is known."""
        distance = abs(value - self.mean)
        if distance <= self.tolerance:
            return 1.0
        error, df = self._error
        p = 2 * _below(-distance / error, df) if error else 0.0
        return max(p, self.least_p)

    def score(self, value: float) -> float:
        """The value as a draw from the standard normal, which it is if nothing has
        changed. Errors are at least a third of the tolerance."""
        error, df = self._error
        error = max(error, self.tolerance / 3)
        if value == self.mean:
            return 0.0
        p = _below(-abs(value - self.mean) / error, df) if error else 0.0
        p = max(p, self.least_p / 2, 1e-300)
        return math.copysign(float(ndtri(p)), value - self.mean)


def quantile(share: float, df: float) -> float:
    """Of Student's t; with infinite ``df``, of the normal distribution."""
    return float(stdtrit(df, share) if math.isfinite(df) else ndtri(share))


def _below(t: float, df: float) -> float:
    return float(stdtr(df, t) if math.isfinite(df) else ndtr(t))


def band_of(
    values: Sequence[float],
    k: int,
    tolerance: float = 0.0,
    stated: float = 0.0,
    stated_df: float = math.inf,
) -> Band:
    """The band of the mean of ``k`` new values.

    Args:
        values: recorded ones: of seeds, or of runs.
        k: how many the new run has of them.
        tolerance, stated, stated_df: as in :class:`Band`.
    """
    m = len(values)
    mean = math.fsum(values) / m
    if m < 2:
        return Band(mean, math.nan, 0, 0.0, stated, stated_df, tolerance)
    squares = math.fsum((value - mean) ** 2 for value in values)
    sd = math.sqrt(squares / (m - 1))
    if sd <= ROUNDING * max(map(abs, values)):
        sd = 0.0
    return Band(mean, sd, m - 1, 1 / m + 1 / k, stated, stated_df, tolerance)


def odd_one_out(m: int, k: int) -> float:
    """The chance, at most, that of m + k values of one kind the m that were recorded
    are all equal and none of the k new ones is: 1 in (m + k choose k). It is all there
    is to say of a metric that did not vary and of which nothing else is known."""
    return 1 / math.comb(m + k, k)


def tolerance_of(
    unit: str, value: float, n: int | None, explicit: float | None = None
) -> float:
    """What never counts as a difference.

    Args:
        unit: "" for a share, of which two points never count, nor three questions of
            ``n``; of other units it is 2% of the value.
        value: the recorded mean.
        n: questions behind each value, if that is known.
        explicit: the metric's own, from its chapter's profiles.yaml.
    """
    if explicit is not None:
        return explicit
    if unit == "" and abs(value) <= 1:
        return max(SHARE, ITEMS / n if n else 0.0)
    return RELATIVE * abs(value)


# --- Spreads that lean on each other ----------------------------------------------


def moderated(bands: Mapping[str, Band], units: Mapping[str, str]) -> dict[str, Band]:
    r"""Bands whose standard deviations are drawn towards each other.

    Suppose the true variances of a unit's metrics scatter like
    :math:`d_0 s_0^2 / \chi^2_{d_0}`. Then the best guess of one of them is
    :math:`(d_0 s_0^2 + \nu s^2) / (d_0 + \nu)`, which has :math:`d_0 + \nu` degrees of
    freedom. The scatter of the recorded ones says how large :math:`d_0` is: little
    where spreads differ a thousandfold, much where they are alike.

    Args:
        bands: by the metrics' names.
        units: of each metric.
    """
    groups: dict[tuple, list[str]] = {}
    for name, band in bands.items():
        if band.df:
            groups.setdefault((units[name], band.df), []).append(name)
    result = dict(bands)
    for (_, df), names in groups.items():
        varying = [bands[name].sd for name in names if bands[name].sd > 0]
        if len(varying) >= FEW:
            prior = prior_of(np.square(varying), df)
            result |= {name: _drawn(bands[name], *prior) for name in names}
    return result


def _drawn(band: Band, prior_df: float, prior: float) -> Band:
    prior_df = min(prior_df, 1e6)  # in place of infinity
    total = prior_df + band.df
    variance = (prior_df * prior + band.df * band.sd**2) / total
    return replace(band, sd=math.sqrt(variance), df=total)


def prior_of(variances: Float[np.ndarray, "metrics"], df: float) -> tuple[float, float]:
    r"""d_0 and s_0^2 of variances with ``df`` degrees of freedom each, by the mean and
    the variance of their logarithms. d_0 is infinite if they scatter no more than
    equal ones would."""
    logs = np.log(variances) - digamma(df / 2) + math.log(df / 2)
    excess = float(logs.var(ddof=1) - polygamma(1, df / 2))
    if excess <= 0:
        return math.inf, float(np.exp(logs.mean()))
    half = _inverse_trigamma(excess)
    return 2 * half, float(np.exp(logs.mean() + digamma(half) - math.log(half)))


def _inverse_trigamma(value: float) -> float:
    """Newton's method on 1/trigamma, which is nearly linear."""
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += step
        if abs(step) < 1e-10 * x:
            break
    return x


# --- All metrics together ---------------------------------------------------------


def joint_p(
    scores: Sequence[float], recorded: Float[np.ndarray, "seeds metrics"] | None = None
) -> float:
    r"""p-value that metrics have not moved, by the sum of their squared scores.

    Scores of independent metrics would give :math:`\chi^2_M`. Correlated ones give, in
    mean and variance, :math:`g\,\chi^2_h` with :math:`h = M^2 / \sum \rho_{ij}^2` and
    :math:`g = M / h` (Satterthwaite).

    Args:
        scores: of :meth:`Band.score`.
        recorded: values of metrics that have one for every seed (or run) of the record,
            to tell how correlated all are; without them, as if they were one metric.
    """
    count = len(scores)
    if count == 0:
        return 1.0
    h = effective_number(count, recorded)
    total = math.fsum(score**2 for score in scores)
    return float(chdtrc(h, total * h / count))


def effective_number(
    count: int, recorded: Float[np.ndarray, "seeds metrics"] | None
) -> float:
    """How many independent metrics vary as ``count`` of these do: from 1 to about 20.

    The mean of squared correlations of m seeds is 1/(m - 1) where there is none; what
    lies above that is the metrics' own. So few seeds often show none that is there:
    without a least value, 3 to 5 seeds gave five times as many alarms as they should.
    """
    if recorded is None or len(recorded) < 3:
        return 1.0
    varying = recorded[:, recorded.std(0) > 0]
    if varying.shape[1] < 2:
        return 1.0
    r2 = np.corrcoef(varying, rowvar=False) ** 2
    pairs = r2[np.triu_indices_from(r2, 1)]
    df = len(recorded) - 1
    common = max((float(pairs.mean()) - 1 / df) / (1 - 1 / df), COMMON)
    return count / (1 + (count - 1) * common)
