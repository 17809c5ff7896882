"""How certain a calibration error is: what chance alone would show, intervals,
differences between two models on the same items, and tests.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy import stats

from alignlab.calibration.checks import (
    as_array,
    check_events,
    check_probabilities,
    check_same_length,
)
from alignlab.calibration.limits import limits, null_p_value, tallies
from alignlab.calibration.metrics import (
    Norm,
    Strategy,
    Tally,
    bin_edges,
    bin_index,
    binned_error,
    classwise_calibration_error,
    debiased_squares,
    expected_calibration_error,
    smooth_calibration_error,
    tally,
    warn_of_single_predictions,
)
from alignlab.evaluation.intervals import Interval

PLUG_IN = (
    expected_calibration_error,
    classwise_calibration_error,
    smooth_calibration_error,
)


# --- What chance alone would show ---------------------------------------------------


def null_calibration_error(
    confidence: Float[ndarray, "items"],
    n_bins: int = 15,
    strategy: Strategy = "uniform",
    norm: Norm = "l1",
    n_samples: int = 200,
    seed: int = 0,
) -> float:
    """The error that a perfectly calibrated model with these confidences would show.

    It is the mean of ``expected_calibration_error`` over outcomes drawn from the
    confidences themselves. An error near it is no sign of miscalibration.

    Args:
        confidence, n_bins, strategy, norm: as for the error it is compared with.
        n_samples: draws; more give a more precise mean, in proportionally more time.
        seed: the same seed gives the same number.

    Raises:
        ValueError: as ``expected_calibration_error``.
    """
    if norm not in Norm.__args__:
        raise ValueError(f"norm is {norm!r}; it can be one of {Norm.__args__}")
    gaps, share = _null_gaps(confidence, n_bins, strategy, n_samples, seed)
    if norm == "max":
        return float(gaps.max(axis=1).mean())
    errors = gaps @ share if norm == "l1" else np.sqrt(gaps**2 @ share)
    return float(errors.mean())


def consistency_band(
    confidence: Float[ndarray, "items"],
    n_bins: int = 15,
    strategy: Strategy = "uniform",
    level: float = 0.95,
    n_samples: int = 1000,
    seed: int = 0,
) -> tuple[Float[ndarray, "bins"], Float[ndarray, "bins"]]:
    """Where the accuracy of each bin would lie, in ``level`` of cases, if the model
    were calibrated: the bars of a reliability diagram. NaN for an empty bin.

    The level holds for each bin. At 0.95, about every second diagram of a calibrated
    model with 15 bins has a point outside its bar.

    Args:
        confidence, n_bins, strategy: as for ``reliability_curve``.
        level: a higher level gives wider bars.
        n_samples, seed: as for :func:`null_calibration_error`.

    Returns:
        low and high, one accuracy per bin each.

    Source: Bröcker & Smith (2007).
    """
    _check_level(level)
    confidence = check_probabilities(confidence, "confidence")
    edges = bin_edges(confidence, n_bins, strategy)
    right, count = _null_right(confidence, edges, n_samples, seed)
    with np.errstate(invalid="ignore"):
        accuracy = right / count  # (samples, bins)
    tail = (1 - level) / 2
    # A share of m takes m + 1 values: interpolating between two would cover less.
    low = np.quantile(accuracy, tail, axis=0, method="lower")
    high = np.quantile(accuracy, 1 - tail, axis=0, method="higher")
    return low, high


def _null_gaps(confidence, n_bins, strategy, n_samples, seed):
    """|accuracy - confidence| of the non-empty bins in each draw, and their shares."""
    confidence = check_probabilities(confidence, "confidence")
    edges = bin_edges(confidence, n_bins, strategy)
    right, count = _null_right(confidence, edges, n_samples, seed)
    where = bin_index(confidence, edges)
    expected = np.bincount(where, confidence, minlength=len(count))
    filled = count > 0
    gaps = np.abs(right - expected)[:, filled] / count[filled]
    return gaps, count[filled] / count.sum()


def _null_right(confidence, edges, n_samples: int, seed: int):
    """The number of right predictions in each bin when outcomes are drawn from the
    confidences, (samples, bins), and the number of predictions in each, (bins,)."""
    where, bins = bin_index(confidence, edges), len(edges) - 1
    rng = np.random.default_rng(seed)
    right = np.empty((n_samples, bins))
    for row in right:
        correct = rng.random(len(confidence)) < confidence
        row[:] = np.bincount(where[correct], minlength=bins)
    return right, np.bincount(where, minlength=bins)


# --- Intervals --------------------------------------------------------------------


def squared_error_interval(
    confidence: Float[ndarray, "items"],
    correct: Int[ndarray, "items"],
    n_bins: int = 15,
    strategy: Strategy = "quantile",
    level: float = 0.95,
) -> Interval:
    r"""The mean squared calibration gap, unbiased, and its interval.

    .. math:: T = \frac1n \sum_b \frac{(\sum d)^2 - \sum d^2}{m_b - 1}

    with d = correct - confidence and :math:`m_b` predictions in bin b. T may be
    negative; average T over seeds, not its root.

    The interval inverts tests. Its lower limit is the larger of two: that of the gap's
    level and slope, :math:`\sum_{i \ne j} (1 + z_i z_j) d_i d_j / n^2` with z the
    standardised rank of the confidence, and that of T. Neither exceeds the squared gap
    on average. The first needs few predictions for the usual gaps, that is for
    over-confidence of any form; the second sees the others. The upper limit is that of
    T with about :math:`\sqrt n` bins of equal mass, and so holds for gaps that change
    within one of the ``n_bins``. Each is a limit of a scaled noncentral chi-square.
    Both are moved to T where T lies outside.

    In simulations (``benchmarks/results/calibration_coverage.md``) it covers as often
    as it says from 200 predictions on. At 500 with a gap of 0.05 the lower limit is
    above 0 in about 60%, where T with its standard error gives 2%.

    Args:
        confidence, correct: see ``reliability_curve``. Predictions must be independent,
            such as the top label of each question; if they are not, see
            ``clustered_squared_error``.
        n_bins, strategy: see ``reliability_curve``; "quantile" makes T least noisy.
        level: coverage; a higher level gives a wider interval.

    Raises:
        ValueError: as ``reliability_curve``, or if no bin holds two predictions.

    Source: the noncentral chi-square follows Sun et al. (2024), "A Confidence Interval
    for the l2 Expected Calibration Error", who use its normal limit; the sum over pairs
    is Widmann et al. (2019)'s, with another kernel.
    """
    _check_level(level)
    return _squared_error(*tallies(confidence, correct, n_bins, strategy), level)


def calibration_error_interval(
    confidence: Float[ndarray, "items"],
    correct: Int[ndarray, "items"],
    n_bins: int = 15,
    strategy: Strategy = "quantile",
    level: float = 0.95,
) -> Interval:
    """The root mean square calibration error, debiased, and its interval.

    It is the root of :func:`squared_error_interval`, negative values taken as 0; the
    value is ``expected_calibration_error(..., norm="l2", debias=True)``. A lower limit
    of 0 means that the predictions may be calibrated.

    Args, raises: as for :func:`squared_error_interval`.
    """
    return _root(squared_error_interval(confidence, correct, n_bins, strategy, level))


class CalibrationSummary(NamedTuple):
    """The main calibration measures of one set of predictions."""

    n: int
    accuracy: float
    confidence: float  # mean; above the accuracy means over-confident
    ece: float  # expected calibration error
    mce: float  # the largest gap of a bin
    rms: Interval  # debiased root mean square error
    brier: float
    of: str = "confidence"  # which one


def calibration_summary(
    confidence: Float[ndarray, "items"],
    correct: Int[ndarray, "items"],
    n_bins: int = 15,
    strategy: Strategy = "uniform",
    level: float = 0.95,
    of: str = "confidence",
) -> CalibrationSummary:
    """The main calibration measures, from one pass over the predictions.

    Args:
        confidence, correct, n_bins, strategy: see ``reliability_curve``; all measures
            share the bins.
        level: coverage of the interval of ``rms``, see
            :func:`calibration_error_interval`.
        of: which confidence it is, such as "top label", "all options", "stated" or
            "P(True)": their errors cannot be compared, so the summary says it.

    Raises:
        ValueError: as ``reliability_curve``, or if no bin holds two predictions.
    """
    _check_level(level)
    t, fine = tallies(confidence, correct, n_bins, strategy)
    n = int(t.count.sum())
    return CalibrationSummary(
        n,
        float(t.correct.sum() / n),
        float(t.confidence.sum() / n),
        binned_error(t, "l1"),
        binned_error(t, "max"),
        _root(_squared_error(t, fine, level)),
        float(t.squares.sum() / n),
        of,
    )


def squared_error_difference(
    first: tuple[Float[ndarray, "items"], Int[ndarray, "items"]],
    second: tuple[Float[ndarray, "items"], Int[ndarray, "items"]],
    n_bins: int = 15,
    strategy: Strategy = "quantile",
    level: float = 0.95,
) -> Interval:
    r"""The mean squared calibration gap of one model minus that of another on the same
    items, and its interval.

    Each model has its own bins. An item that both models get right, or both get wrong,
    moves both estimates in the same direction. Taking that into account makes the
    interval narrower than for two separate samples:

    .. math:: V = V_1 + V_2 - \frac{2}{n^2} \Big[ 4 \sum_i g_{1i} e_{1i} g_{2i} e_{2i}
        + 2 \sum_{bc} \frac{(\sum_{i \in bc} e_{1i} e_{2i})^2}
        {(m_b - 1)(m_c - 1)} \Big]

    with e the deviation of d from its bin's mean and g the signed root of the bin's
    unbiased squared gap.

    Args:
        first, second: ``(confidence, correct)`` of each, items in the same order.
        n_bins, strategy, level: as for :func:`squared_error_interval`.

    Raises:
        ValueError: as :func:`squared_error_interval`; if the two have different
            lengths.
    """
    _check_level(level)
    check_same_length(first=first[0], second=second[0])
    n = len(first[0])
    squares, variances, pulls, deviations, places, counts = [], [], [], [], [], []
    for confidence, correct in (first, second):
        t = tally(confidence, correct, n_bins, strategy)
        warn_of_single_predictions(t)
        p, y = _pair(confidence, correct)
        where = bin_index(check_probabilities(confidence, "confidence"), t.edges)
        gap = (t.correct - t.confidence) / np.maximum(t.count, 1)
        pull = np.sign(gap) * np.sqrt(np.maximum(_squared_gaps(t), 0))
        squares.append(float(debiased_squares(t).sum()))
        variances.append(_variance(t))
        deviations.append(y - p - gap[where])
        pulls.append(pull[where])
        places.append(where)
        counts.append(t.count)
    both = deviations[0] * deviations[1]
    rows, columns = len(counts[0]), len(counts[1])
    cells = np.bincount(places[0] * columns + places[1], both, rows * columns)
    pairs = np.outer(*(np.maximum(count - 1, 1) for count in counts))
    shared = 4 * (pulls[0] * pulls[1] * both).sum()
    shared += 2 * (cells.reshape(rows, columns) ** 2 / pairs).sum()
    variance = max(sum(variances) - 2 * shared / n**2, 0.0)
    value, half = squares[0] - squares[1], _z(level) * float(np.sqrt(variance))
    return Interval(value, value - half, value + half)


def _squared_error(t: Tally, fine: Tally, level: float) -> Interval:
    warn_of_single_predictions(t)
    value = float(debiased_squares(t).sum())
    low, high = limits(t, fine, level)
    return Interval(value, min(low, value), max(high, value))


def _root(squared: Interval) -> Interval:
    return Interval(*(float(np.sqrt(max(x, 0.0))) for x in squared))


def _squared_gaps(t: Tally) -> Float[ndarray, "bins"]:
    """Each bin's unbiased squared gap; 0 where a bin holds fewer than two."""
    return debiased_squares(t) * t.weight.sum() / np.maximum(t.weight, 1)


def _variance(t: Tally) -> float:
    r"""Of the squared error, for predictions that count once each:

    .. math:: V = \frac{1}{n^2} \sum_b \Big[ 4 m_b s_b^2 D_b^+
        + \frac{2 s_b^4 m_b}{m_b - 1} \Big]

    with :math:`s_b^2` the variance of d in bin b and :math:`D_b^+` its unbiased squared
    gap or 0. The second part is left where the model is calibrated.
    """
    enough = t.count > 1
    m, gap = t.count[enough], (t.correct - t.confidence)[enough]
    spread = np.maximum(t.squares[enough] - gap**2 / m, 0) / (m - 1)  # s²
    true_gap = np.maximum(_squared_gaps(t)[enough], 0)
    terms = 4 * m * spread * true_gap + 2 * spread**2 * m / (m - 1)
    return float(terms.sum() / t.count.sum() ** 2)


def bootstrap_interval(
    metric: Callable[..., float],
    *arrays: ndarray,
    groups: ndarray | None = None,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of a metric of paired arrays.

    Use it for the Brier score, NLL, AUROC, accuracy, areas, and their differences on
    the same items, but not for a plug-in calibration error: each resample adds sampling
    noise to the gaps, which the error counts as miscalibration. The interval then lies
    too high, and for a calibrated model it never covers the truth. There is a warning;
    use :func:`calibration_error_interval` instead.

    Args:
        metric: takes the resampled arrays and returns a number. Set its options with
            ``functools.partial`` or a lambda.
        arrays: of equal length; item i is drawn in all of them together.
        groups: a key per item. Whole groups are drawn, for items that depend on each
            other, such as the options of one question.
        n_resamples: more give more precise limits.
        level: coverage; a higher level gives a wider interval.
        seed: the same seed gives the same limits.

    Raises:
        ValueError: if the lengths differ, there is no item, or level is not in (0, 1).

    Source: Efron & Tibshirani (1993).
    """
    _check_level(level)
    if not arrays or not len(arrays[0]):
        raise ValueError("arrays are empty: there is no item to draw")
    arrays = [as_array(a, f"arrays[{i}]", text=True) for i, a in enumerate(arrays)]
    named = {f"arrays[{i}]": array for i, array in enumerate(arrays)}
    check_same_length(**named if groups is None else {**named, "groups": groups})
    plain = metric.func if isinstance(metric, partial) else metric
    debiased = isinstance(metric, partial) and metric.keywords.get("debias")
    if plain in PLUG_IN and not debiased:
        warnings.warn(
            f"{plain.__name__} is a plug-in error: its bootstrap interval lies too "
            "high (use calibration_error_interval)",
            stacklevel=2,
        )
    draw = _drawer(len(arrays[0]), groups, np.random.default_rng(seed))
    values = []
    for _ in range(n_resamples):
        items = draw()
        values.append(metric(*(array[items] for array in arrays)))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(metric(*arrays)), float(low), float(high))


def _drawer(n: int, groups, rng) -> Callable[[], Int[ndarray, "items"]]:
    if groups is None:
        return lambda: rng.integers(0, n, n)
    _, group = np.unique(as_array(groups, "groups", text=True), return_inverse=True)
    order, sizes = np.argsort(group, kind="stable"), np.bincount(group)
    members = np.split(order, np.cumsum(sizes)[:-1])
    return lambda: np.concatenate(
        [members[g] for g in rng.integers(0, len(members), len(members))]
    )


# --- Tests ------------------------------------------------------------------------


class CalibrationTest(NamedTuple):
    """A small p-value is evidence against calibration; a large one is none for it."""

    statistic: float
    p_value: float


def calibration_test(
    confidence: Float[ndarray, "items"],
    correct: Int[ndarray, "items"],
    n_bins: int = 15,
) -> CalibrationTest:
    r"""Whether the model is calibrated, against gaps of every form.

    It combines two sums over pairs of predictions, by Bonferroni at 80% and 20% of the
    level: :math:`\sum_{i \ne j} (1 + z_i z_j) d_i d_j` with z the standardised rank of
    the confidence, which sees a gap that is constant or changes steadily; and the sum
    over pairs in the same bin, which sees every gap that is wider than a bin. It asks
    what ``calibration_error_interval`` asks: if its lower limit is above 0, this test
    rejects at the same level, with rare exceptions. The test rejects a little more
    often, because it takes the variance that a calibrated model would have.

    Of the others, :func:`cumulative_test` sees a gap of one sign best, and gaps whose
    signs cancel hardly; :func:`spiegelhalter_test` sees confidences that are too
    extreme, or not extreme enough, and no shift at 1/2.

    Args:
        n_bins: of equal mass. More bins see narrower gaps, and all gaps less well.

    Returns:
        The mean squared calibration error, debiased, and the p-value.

    Raises:
        ValueError: as ``squared_error_interval``.
    """
    t, fine = tallies(confidence, correct, n_bins, "quantile")
    value = float(debiased_squares(t).sum())
    return CalibrationTest(value, null_p_value(t, fine))


def spiegelhalter_test(
    confidence: Float[ndarray, "items"], correct: Int[ndarray, "items"]
) -> CalibrationTest:
    r"""Whether the Brier score is that of calibrated confidences. Two-sided, no bins.

    .. math:: z = \frac{\sum_i (y_i - p_i)(1 - 2 p_i)}
        {\sqrt{\sum_i (1 - 2 p_i)^2 p_i (1 - p_i)}} \sim N(0, 1)

    It detects confidences that are too extreme (z > 0) or not extreme enough (z < 0),
    but no shift at p = 1/2.

    Raises:
        ValueError: as ``reliability_curve``; if every confidence is 0, 1/2 or 1, where
            the statistic has no variance.

    Source: Spiegelhalter (1986).
    """
    p, y = _pair(confidence, correct)
    variance = float(((1 - 2 * p) ** 2 * p * (1 - p)).sum())
    if variance == 0:
        raise ValueError(
            f"confidence holds only 0, 0.5 and 1 (confidence[0] is {p[0]}): the test "
            "has no variance there"
        )
    z = float(((y - p) * (1 - 2 * p)).sum() / np.sqrt(variance))
    return CalibrationTest(z, float(2 * stats.norm.sf(abs(z))))


def cumulative_test(
    confidence: Float[ndarray, "items"], correct: Int[ndarray, "items"]
) -> CalibrationTest:
    r"""Whether errors of one sign accumulate anywhere along the confidences. No bins.

    .. math:: S = \max_k \Big| \sum_{i \le k} (y_i - p_i) \Big|
        \Big/ \sqrt{\sum_i p_i (1 - p_i)}

    in order of confidence. If the model is calibrated, the sum tends to a Brownian
    motion, whose largest distance from 0 has a known distribution. Ties are added up at
    once.

    Raises:
        ValueError: as ``reliability_curve``; if every confidence is 0 or 1, where the
            statistic has no variance.

    Source: Arrieta-Ibarra et al. (2022), the Kolmogorov–Smirnov form.
    """
    p, y = _pair(confidence, correct)
    variance = float((p * (1 - p)).sum())
    if variance == 0:
        raise ValueError(
            f"confidence holds only 0 and 1 (confidence[0] is {p[0]}): the test has no "
            "variance there"
        )
    order = np.argsort(p, kind="stable")
    last = np.flatnonzero(np.append(np.diff(p[order]) != 0, True))  # of each tie
    path = np.cumsum((y - p)[order])[last]
    largest = float(np.abs(path).max() / np.sqrt(variance))
    return CalibrationTest(largest, _brownian_exceeds(largest))


def _brownian_exceeds(x: float) -> float:
    """P(max |W| > x) for a Brownian motion W on [0, 1]; Feller's two series."""
    if x < 1:
        odd = 2 * np.arange(20) + 1
        within = np.exp(-((odd * np.pi) ** 2) / (8 * x * x)) * (-1.0) ** np.arange(20)
        return float(1 - 4 / np.pi * (within / odd).sum())
    # By reflection; nothing cancels where the probability is small.
    odd, sign = 2 * np.arange(20) + 1, (-1.0) ** np.arange(20)
    return float(min(4 * (sign * stats.norm.sf(odd * x)).sum(), 1.0))


def _pair(confidence, correct) -> tuple[ndarray, ndarray]:
    confidence, correct = check_events(confidence, correct)
    return confidence.astype(float), correct.astype(float)


def _z(level: float) -> float:
    return float(stats.norm.ppf((1 + level) / 2))


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, such as 0.95; got {level}")
