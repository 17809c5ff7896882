"""Confidence intervals, over seeds or over questions.

The seed is the unit of replication, so verdicts rest on t-intervals over seeds. A rate
within one seed (k right of n questions) gets Wilson's interval.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """An estimate with the limits of its confidence interval.

    It unpacks like a tuple, ``record("gain", *interval)``, and formats as a whole:
    ``f"{interval:.2f}"`` gives ``0.31 (0.24 to 0.38)``. Limits are infinite if a single
    value leaves the spread unknown; then only the estimate is written.
    """

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        value = format(self.value, spec)
        if math.isinf(self.low) and math.isinf(self.high):
            return value
        return f"{value} ({format(self.low, spec)} to {format(self.high, spec)})"

    def __str__(self) -> str:
        return format(self, ".3g")


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    r"""Student's interval for the mean of independent values, one per seed.

    .. math:: \bar x \pm t_{n-1,\,(1+\text{level})/2}\; s / \sqrt n

    One value gives infinite limits: a single seed cannot show its own spread.

    Args:
        values: one number per seed, in any unit; the interval has the same unit.
        level: coverage, between 0 and 1; a higher level gives a wider interval.

    Raises:
        ValueError: if there is no value, one is not finite, or level is not in (0, 1).

    Source: Student (1908); exact for normal values, and the honest choice at n = 3.
    """
    values = _finite(values, "values")
    _check_level(level)
    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1:
        return Interval(mean, -math.inf, math.inf)
    from scipy.stats import t

    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = float(t.ppf((1 + level) / 2, n - 1)) * math.sqrt(variance / n)
    return Interval(mean, mean - half, mean + half)


def paired_difference(
    first: Sequence[float], second: Sequence[float], level: float = 0.95
) -> Interval:
    """Student's interval for the mean of ``first - second``, paired by seed.

    Pairing removes what both share (the seed's data, its initial weights), so the
    interval is narrower than for two separate means if they are correlated.

    Args:
        first, second: one value per seed, in the same order of seeds.
        level: coverage; a higher level gives a wider interval.

    Raises:
        ValueError: if the lengths differ, a value is not finite, or none is given.
    """
    first, second = _finite(first, "first"), _finite(second, "second")
    if len(first) != len(second):
        raise ValueError(
            f"first has {len(first)} values and second {len(second)}: each seed needs "
            "one of both"
        )
    return t_interval([a - b for a, b in zip(first, second)], level)


def wilson_interval(correct: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval for a rate: ``correct`` of ``n`` independent questions.

    It stays within [0, 1] and keeps a width at 0 of n and n of n, where the normal
    interval shrinks to a point.

    Args:
        correct: number of right answers, from 0 to n.
        n: number of questions, at least 1.
        level: coverage; a higher level gives a wider interval.

    Raises:
        ValueError: if n < 1, correct is outside 0..n, or level is not in (0, 1).

    Source: Wilson (1927); computed by statsmodels.
    """
    _check_level(level)
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(
            f"correct must be from 0 to n, and n at least 1; got {correct}, {n}"
        )
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(correct, n, alpha=1 - level, method="wilson")
    return Interval(correct / n, max(0.0, float(low)), min(1.0, float(high)))


def _finite(values: Sequence[float], name: str) -> list[float]:
    numbers = [float(value) for value in values]
    if not numbers:
        raise ValueError(f"{name} is empty: an interval needs at least one value")
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{name} holds a number that is not finite: {numbers}")
    return numbers


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, such as 0.95; got {level}")
