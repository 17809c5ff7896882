"""How much of a spread comes from which link of the chain: a nested design with two
levels, references and what is drawn anew on each of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import f as f_distribution
from scipy.stats import nct, t

from alignlab.evaluation.intervals import Interval


class Components(NamedTuple):
    """Standard deviations between references and within one, in the unit of the
    values, and the share of the variance that lies between references."""

    between: float
    within: float
    share: Interval


def components(values: Sequence[Sequence[float]], level: float = 0.95) -> Components:
    r"""Random effects of references and of the draws on each, by the method of moments.

    For g references with m draws each, :math:`x_{ij} = \mu + b_i + w_{ij}`: with the
    mean squares between and within references,

    .. math:: \hat\sigma_w^2 = MS_w, \qquad
        \hat\sigma_b^2 = \max\left(0, \frac{MS_b - MS_w}{m}\right), \qquad
        \text{share} = \frac{\sigma_b^2}{\sigma_b^2 + \sigma_w^2}.

    The interval of the share comes from :math:`F = MS_b / MS_w` and is exact for normal
    effects, within [0, 1]. It is wide: with five references of three draws, a share of
    one half is known to within about 0.4 on either side.

    Args:
        values: (g, m), a row for each reference; g and m at least 2.
        level: coverage; higher is wider.

    Raises:
        ValueError: if there are fewer than two rows or columns, the rows have not the
            same length, or all values within the rows are equal.

    Source: Searle, Casella & McCulloch (1992), Variance Components, sections 3.6, 3.7.
    """
    rows = {len(row) for row in values}
    if len(values) < 2 or len(rows) != 1 or rows == {1}:
        raise ValueError(
            f"values have rows of {sorted(rows)} for {len(values)} references; "
            "expected two or more of the same length, each with two draws or more"
        )
    x = np.asarray(values, float)
    g, m = x.shape
    ms_between = m * x.mean(axis=1).var(ddof=1)
    ms_within = x.var(axis=1, ddof=1).mean()
    if ms_within == 0:
        raise ValueError("values are equal within each row: nothing was drawn anew")
    ratio = ms_between / ms_within
    ends = f_distribution.ppf([(1 + level) / 2, (1 - level) / 2], g - 1, g * (m - 1))
    limits = [_share(ratio / end, m) for end in ends]
    between = max(0.0, (ms_between - ms_within) / m)
    return Components(
        float(np.sqrt(between)),
        float(np.sqrt(ms_within)),
        Interval(_share(ratio, m), *limits),
    )


def _share(ratio: float, m: int) -> float:
    return float(np.clip((ratio - 1) / (ratio - 1 + m), 0, 1))


def chance_to_see(
    beyond: float, spread: float, seeds: int, draws: int = 1, error: float = 0.025
) -> float:
    """Power: the chance that a t-interval over seeds lies beyond a threshold.

    Args:
        beyond: how far beyond it the effect is.
        spread: standard deviation of one draw, in the same unit; higher lowers it.
        seeds: at least 2.
        draws: averaged in each seed, as if all of the spread were between draws.
        error: one-sided; 0.025 is that of a 95% interval.
    """
    df, noncentrality = seeds - 1, beyond * np.sqrt(seeds * draws) / spread
    return float(nct.sf(t.ppf(1 - error, df), df, noncentrality))
