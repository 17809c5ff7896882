"""Calibration errors, proper scores and selective accuracy of any classifier's output.

numpy in, float out. Of alignlab, only the input checks are used.
"""

import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.fft import dct, idct
from scipy.optimize import brentq

from alignlab.calibration.checks import (
    check_events,
    check_forecasts,
    check_labels,
    check_rows,
    check_rows_and_labels,
    check_two_classes,
    check_weights,
    warn_if_reordered,
)

Strategy = Literal["uniform", "quantile"]
Norm = Literal["l1", "l2", "max"]
ALONE = 0.1  # of all predictions, in bins of their own, is worth a warning
CELLS = 1 << 14  # of the grid of the smooth error
CHUNK = 1 << 15  # predictions at a time: temporaries then stay in the CPU's cache


# --- Which probability, and was it right ------------------------------------------


def top_label(
    probabilities: Float[ndarray, "items classes"] | Sequence[Sequence[float]],
    labels: Int[ndarray, "items"],
) -> tuple[Float[ndarray, "items"], Float[ndarray, "items"]]:
    """The probability of each item's likeliest class, and whether that class is right.

    This is the usual "confidence": ``expected_calibration_error(*top_label(p, y))`` is
    the ECE of Guo et al. (2017). Of classes that tie, the first one counts as the
    answer.

    Args:
        probabilities: (n, K), rows summing to 1; or a list of rows, of any lengths.
        labels: the right class of each item, 0 to K-1.

    Returns:
        confidence and correct, (n,) each; correct is 0 or 1.

    Raises:
        ValueError: naming the argument and the first wrong entry.
    """
    rows, labels = check_rows_and_labels(probabilities, labels)
    if isinstance(rows, ndarray):
        answer = rows.argmax(axis=1)
        return rows[np.arange(len(rows)), answer], (answer == labels).astype(float)
    answer = np.array([row.argmax() for row in rows])
    confidence = np.array([row[a] for row, a in zip(rows, answer)])
    return confidence, (answer == labels).astype(float)


def all_options(
    probabilities: Float[ndarray, "items classes"] | Sequence[Sequence[float]],
    labels: Int[ndarray, "items"],
) -> tuple[Float[ndarray, "options"], Float[ndarray, "options"]]:
    """The probability of every class of every item, and whether it was the right one.

    The reliability diagram of the GPT-4 report (its figure 8) is of this kind. Many
    options are improbable and wrong, so the error is smaller than :func:`top_label`'s;
    the two cannot be compared. The options of one item depend on each other, so use
    :func:`top_label` for intervals, which assume independent predictions.

    Args, raises: as for :func:`top_label`.

    Returns:
        confidence and correct, (n * K,) each, item by item.
    """
    rows, labels = check_rows_and_labels(probabilities, labels)
    confidence = np.concatenate(list(rows))
    ends = np.cumsum([len(row) for row in rows])
    correct = np.zeros(len(confidence))
    correct[ends - [len(row) for row in rows] + labels] = 1.0
    return confidence, correct


# --- Bins -------------------------------------------------------------------------


class ReliabilityCurve(NamedTuple):
    """The content of each bin. Bin b is (edges[b], edges[b + 1]]; the first includes
    its lower edge. An empty bin has count 0 and NaN for confidence and accuracy."""

    edges: Float[ndarray, "bins+1"]
    count: Int[ndarray, "bins"]
    weight: Float[ndarray, "bins"]  # summed weights; the count where there are none
    confidence: Float[ndarray, "bins"]  # mean predicted probability
    accuracy: Float[ndarray, "bins"]  # share that was right


def reliability_curve(
    confidence: Float[ndarray, "items"],
    correct: Int[ndarray, "items"],
    n_bins: int = 15,
    strategy: Strategy = "uniform",
    weights: Float[ndarray, "items"] | None = None,
) -> ReliabilityCurve:
    """Mean confidence against accuracy, bin by bin.

    Edges have the precision of the confidences: a float32 0.1 lies on the edge 0.1.

    Args:
        confidence: a probability for each prediction, from 0 to 1.
        correct: whether the event it predicts happened, 0 or 1.
        n_bins: more bins show finer detail, each from fewer predictions. With
            "quantile", equal confidences stay together, so there may be fewer bins.
        strategy: "uniform" cuts [0, 1] into equal widths; "quantile" puts nearly the
            same number of predictions into every bin.
        weights: how much each prediction counts, at least 0; None counts each once.

    Raises:
        ValueError: naming the argument and the first wrong entry: outside [0, 1], NaN,
            lengths that differ, empty.
    """
    t = tally(confidence, correct, n_bins, strategy, weights)
    with np.errstate(invalid="ignore"):
        return ReliabilityCurve(
            t.edges, t.count, t.weight, t.confidence / t.weight, t.correct / t.weight
        )


class Tally(NamedTuple):
    """Sums over the predictions in each bin, with d = correct - confidence. All binned
    measures are computed from these."""

    edges: Float[ndarray, "bins+1"]
    count: Int[ndarray, "bins"]
    weight: Float[ndarray, "bins"]  # sum of w
    confidence: Float[ndarray, "bins"]  # of w p
    correct: Float[ndarray, "bins"]  # of w y
    squares: Float[ndarray, "bins"]  # of w d²
    own_weight: Float[ndarray, "bins"]  # of w²
    own_squares: Float[ndarray, "bins"]  # of w² d²


def tally(confidence, correct, n_bins, strategy, weights=None) -> Tally:
    """One pass over the predictions; arguments as for :func:`reliability_curve`."""
    confidence, correct = check_events(confidence, correct)
    edges = bin_edges(confidence, n_bins, strategy)
    bins = len(edges) - 1
    if weights is not None:
        weights = check_weights(weights, len(confidence))
    count = np.zeros(bins, dtype=np.int64)
    sums = np.zeros((4 if weights is None else 7, bins))
    for start in range(0, len(confidence), CHUNK):
        part = slice(start, start + CHUNK)
        where = bin_index(confidence[part], edges)
        count += np.bincount(where, minlength=bins)
        p, y = confidence[part].astype(float), correct[part]
        d = y - p
        terms = [p, y, d * d]
        if weights is not None:
            w = weights[part]
            terms = [w * p, w * y, w * d * d, w, w * w, (w * d) ** 2]
        for row, term in zip(sums, terms):
            row += np.bincount(where, term, minlength=bins)
    if weights is None:
        weight = count.astype(float)
        return Tally(edges, count, weight, *sums[:3], weight, sums[2])
    p, y, squares, weight, own_weight, own_squares, _ = sums
    return Tally(edges, count, weight, p, y, squares, own_weight, own_squares)


def bin_edges(confidence, n_bins: int, strategy: Strategy) -> Float[ndarray, "bins+1"]:
    """Edges from 0 to 1, ascending. Inner quantile edges are distinct confidences of
    the data, so that no bin is empty; one at 0 makes the first bin [0, 0]."""
    if n_bins < 1 or int(n_bins) != n_bins:
        raise ValueError(f"n_bins is {n_bins}; it must be a whole number from 1 up")
    if strategy == "uniform":
        edges = np.arange(n_bins + 1) / n_bins  # not linspace: k/n correctly rounded
        return edges.astype(confidence.dtype)
    if strategy != "quantile":
        raise ValueError(f'strategy is {strategy!r}; it can be "uniform" or "quantile"')
    n = len(confidence)
    last = [n * k // n_bins - 1 for k in range(1, n_bins)]  # of each bin, if sorted
    last = sorted({place for place in last if place >= 0})
    inner = np.unique(np.partition(confidence, last)[last]) if last else confidence[:0]
    inner = inner[inner < confidence.max()]  # above the largest a bin would be empty
    return np.concatenate([[0], inner, [1]]).astype(confidence.dtype)


def bin_index(confidence, edges: Float[ndarray, "bins+1"]) -> Int[ndarray, "items"]:
    """The index of each confidence's bin (low, high]; 0 is in the first bin."""
    bins = len(edges) - 1
    if not np.array_equal(edges, (np.arange(bins + 1) / bins).astype(edges.dtype)):
        return np.searchsorted(edges[1:-1], confidence, side="left")
    # Twice as fast as a search. Rounding may carry the product over an edge; comparing
    # with the edge itself corrects that.
    where = (confidence * bins).astype(np.intp)
    where += confidence > edges[where]
    return np.maximum(where - 1, 0)


# --- Calibration errors -----------------------------------------------------------


def expected_calibration_error(
    confidence: Float[ndarray, "items"],
    correct: Int[ndarray, "items"],
    n_bins: int = 15,
    strategy: Strategy = "uniform",
    norm: Norm = "l1",
    debias: bool = False,
    weights: Float[ndarray, "items"] | None = None,
) -> float:
    r"""Distance between confidence and accuracy over the bins.

    .. math:: \sum_b w_b |a_b - c_b|, \qquad \Big(\sum_b w_b (a_b - c_b)^2\Big)^{1/2},
        \qquad \max_b |a_b - c_b|

    with :math:`w_b` the share of bin b, for the norms "l1" (ECE), "l2" (root mean
    square) and "max" (MCE). Chance alone makes each bin's gap differ from 0, so even a
    perfectly calibrated model has an error above 0: the fewer predictions a bin holds,
    the larger. With 15 bins and 1,000 predictions it is about 0.03. Compare with
    :func:`~alignlab.calibration.null_calibration_error`, or remove that excess with
    ``debias``.

    Args:
        confidence, correct, n_bins, strategy, weights: see :func:`reliability_curve`.
        norm: "l1", "l2" or "max".
        debias: for "l2" only. Leave each prediction's product with itself out of the
            squared gaps, which makes their expectation that of the true squared gaps.
            A negative estimate gives 0, and bins of one prediction add nothing;
            there is a warning where these hold more than a tenth of all.

    Raises:
        ValueError: as :func:`reliability_curve`; if the norm is unknown, does not go
            with ``debias``, or no bin holds two predictions to debias with.

    Source: Naeini et al. (2015); Guo et al. (2017); Kumar et al. (2019) for debiasing,
    here with the variance of correct - confidence.
    """
    if norm not in Norm.__args__:
        raise ValueError(f"norm is {norm!r}; it can be one of {Norm.__args__}")
    if debias and norm != "l2":
        raise ValueError(f'debias goes with norm="l2"; norm is {norm!r}')
    t = tally(confidence, correct, n_bins, strategy, weights)
    if debias:
        warn_of_single_predictions(t)
        return float(np.sqrt(max(debiased_squares(t).sum(), 0.0)))
    return binned_error(t, norm)


def binned_error(t: Tally, norm: Norm) -> float:
    """The plug-in error, from the sums of the bins."""
    filled = t.weight > 0
    gap = np.abs(t.correct - t.confidence)[filled] / t.weight[filled]
    share = t.weight[filled] / t.weight.sum()
    if norm == "max":
        return float(gap.max())
    return float(share @ gap if norm == "l1" else np.sqrt(share @ gap**2))


def debiased_squares(t: Tally) -> Float[ndarray, "bins"]:
    r"""Each bin's share of the squared error, unbiased; it may be negative.

    .. math:: \frac{w_b}{w} \cdot
        \frac{(\sum w_i d_i)^2 - \sum w_i^2 d_i^2}{(\sum w_i)^2 - \sum w_i^2}

    Raises:
        ValueError: if no bin holds two predictions.
    """
    pairs = t.weight**2 - t.own_weight
    usable = (t.count > 1) & (pairs > 0)
    if not usable.any():
        raise ValueError(
            f"confidence has no two predictions in one of {len(t.count)} bins, and "
            "debiasing compares predictions of one bin: lower n_bins"
        )
    gap = t.correct - t.confidence
    mean = np.divide(gap**2 - t.own_squares, pairs, np.zeros_like(gap), where=usable)
    return mean * t.weight / t.weight.sum()


def warn_of_single_predictions(t: Tally) -> None:
    """Say so where debiasing leaves out many predictions: alone in their bins, they
    count as calibrated, which makes the error too small."""
    alone = t.weight[t.count == 1].sum() / t.weight.sum()
    if alone > ALONE:
        warnings.warn(
            f"{alone:.0%} of the predictions are alone in one of {len(t.count)} bins "
            "and count as calibrated: lower n_bins, or the error is too small",
            stacklevel=3,
        )


def classwise_calibration_error(
    probabilities: Float[ndarray, "items classes"],
    labels: Int[ndarray, "items"],
    n_bins: int = 15,
    strategy: Strategy = "uniform",
    norm: Norm = "l1",
    debias: bool = False,
    weights: Float[ndarray, "items"] | None = None,
) -> float:
    """The calibration error of each class's own probability, over all classes.

    The mean over classes for "l1", the root of the mean square for "l2", the largest
    for "max". A model can be calibrated in its top label and miscalibrated in every
    class.

    Args:
        probabilities: (n, K), rows summing to 1.
        labels: the right class of each item, 0 to K-1.
        n_bins, strategy, norm, debias, weights: as for
            :func:`expected_calibration_error`.

    Raises:
        ValueError: naming the argument and the first wrong entry.

    Source: Kull et al. (2019), classwise-ECE; Kumar et al. (2019), marginal error.
    """
    warn_if_reordered(probabilities=probabilities, labels=labels)
    probabilities = check_rows(probabilities)
    labels = check_labels(labels, probabilities)
    options = (n_bins, strategy, norm, debias, weights)
    errors = [
        expected_calibration_error(probabilities[:, k], labels == k, *options)
        for k in range(probabilities.shape[1])
    ]
    if norm == "max":
        return max(errors)
    power = 1 if norm == "l1" else 2
    return float(np.mean(np.power(errors, power)) ** (1 / power))


def smooth_calibration_error(
    confidence: Float[ndarray, "items"], correct: Int[ndarray, "items"]
) -> float:
    r"""Calibration error without bins: gaps smoothed by a kernel as wide as the error
    itself.

    .. math:: \sigma = \int_0^1 \Big| \frac1n \sum_i K_\sigma(p_i, t) (y_i - p_i)
        \Big| \, dt

    with K the Gaussian kernel of width :math:`\sigma` reflected at 0 and 1. The right
    side falls as :math:`\sigma` grows, so a single width solves it: that is the error.

    Unlike binned errors, it changes little when a confidence changes a little. It too
    is above 0 for a calibrated model.

    Each prediction is shared between two neighbours of a grid of 16,385 points. That
    changes the error by less than 1 in 1,000 where it is above 0.001.

    Raises:
        ValueError: as :func:`reliability_curve`.

    Source: Błasiok & Nakkiran (2024), "Smooth ECE", section 3.
    """
    confidence, correct = check_events(confidence, correct)
    confidence = confidence.astype(float)
    gaps = _on_grid(confidence, correct - confidence) / len(confidence)
    # The reflected kernel is the heat kernel of [0, 1]: cosines only fade under it.
    waves = dct(gaps, type=1)
    squares = (np.pi * np.arange(CELLS + 1)) ** 2

    def excess(width: float) -> float:
        smoothed = idct(waves * np.exp(-squares * width**2 / 2), type=1)
        return _integral(np.abs(smoothed)) - width

    return float(brentq(excess, 0.0, 2.0, xtol=1e-12)) if excess(0.0) > 1e-9 else 0.0


def _on_grid(place, amount) -> Float[ndarray, "points"]:
    """The density of these amounts at CELLS + 1 points from 0 to 1, each shared between
    the two that are nearest to its place."""
    left = np.minimum((place * CELLS).astype(np.intp), CELLS - 1)
    share = place * CELLS - left
    density = np.bincount(left, amount * (1 - share), CELLS + 1)
    density += np.bincount(left + 1, amount * share, CELLS + 1)
    density[[0, -1]] *= 2  # half as wide a cell
    return density * CELLS


def _integral(density: Float[ndarray, "points"]) -> float:
    return float(density.sum() - density[[0, -1]].sum() / 2) / CELLS


# --- Proper scores ----------------------------------------------------------------


def brier_score(
    probabilities: Float[ndarray, "items"] | Float[ndarray, "items classes"],
    labels: Int[ndarray, "items"],
    weights: Float[ndarray, "items"] | None = None,
) -> float:
    r"""Mean squared distance between probability and outcome; lower is better.

    .. math:: \frac1n \sum_i (p_i - y_i)^2, \qquad
        \frac1n \sum_i \sum_k (p_{ik} - [y_i = k])^2

    Args:
        probabilities: (n,) of an event, for a score from 0 to 1; or (n, K) of all
            classes, for one from 0 to 2. The second is twice the first when K is 2.
        labels: 0 or 1 for the event; or the right class, 0 to K-1.
        weights: how much each prediction counts; None counts each once.

    Raises:
        ValueError: naming the argument and the first wrong entry.

    Source: Brier (1950).
    """
    probabilities, labels = check_forecasts(probabilities, labels)
    if probabilities.ndim == 1:
        return _mean((probabilities - labels) ** 2, weights)
    right = probabilities[np.arange(len(labels)), labels]
    squares = np.einsum("ik,ik->i", probabilities, probabilities) - 2 * right + 1
    return _mean(squares, weights)


class BrierDecomposition(NamedTuple):
    """``brier == reliability - resolution + uncertainty + within_bins``, exactly."""

    brier: float
    reliability: float  # squared gaps: what recalibration can gain
    resolution: float  # variance of the bins' accuracies: higher is better
    uncertainty: float  # variance of the outcome: the score of its mean as forecast
    within_bins: float  # 0 where all forecasts of a bin are equal


def brier_decomposition(
    confidence: Float[ndarray, "items"],
    correct: Int[ndarray, "items"],
    n_bins: int = 15,
    strategy: Strategy = "uniform",
    weights: Float[ndarray, "items"] | None = None,
) -> BrierDecomposition:
    r"""The Brier score of an event's probability, split into its parts.

    .. math:: \sum_b w_b (c_b - a_b)^2 - \sum_b w_b (a_b - \bar a)^2
        + \bar a (1 - \bar a) + \text{within}

    Murphy's identity of the first three terms holds where the forecasts within each bin
    are equal. Otherwise there is a rest: the variance of the forecasts within the bins
    minus twice their covariance with the outcome, which may be negative.

    Args, raises: as for :func:`reliability_curve`.

    Source: Murphy (1973); Stephenson et al. (2008) for the within-bin terms.
    """
    t = tally(confidence, correct, n_bins, strategy, weights)
    total, filled = t.weight.sum(), t.weight > 0
    share, weight = t.weight[filled] / total, t.weight[filled]
    forecast, accuracy = t.confidence[filled] / weight, t.correct[filled] / weight
    mean = t.correct.sum() / total
    reliability = float(share @ (forecast - accuracy) ** 2)
    resolution = float(share @ (accuracy - mean) ** 2)
    uncertainty = float(mean * (1 - mean))
    # The squared differences, minus what the means and outcomes of a bin explain.
    brier = float(t.squares.sum() / total)
    spread = t.squares[filled] / weight - (forecast - accuracy) ** 2
    within = float(share @ (spread - accuracy * (1 - accuracy)))
    return BrierDecomposition(brier, reliability, resolution, uncertainty, within)


def negative_log_likelihood(
    probabilities: Float[ndarray, "items"] | Float[ndarray, "items classes"],
    labels: Int[ndarray, "items"],
    weights: Float[ndarray, "items"] | None = None,
    floor: float = 0.0,
) -> float:
    """Mean of -log of the probability of what happened, in nats; lower is better.

    Args:
        probabilities, labels, weights: as for :func:`brier_score`.
        floor: probabilities below are raised to it. At 0 a single event that was given
            probability 0 and happened makes the score infinite; a higher floor forgives
            more.

    Raises:
        ValueError: naming the argument and the first wrong entry.
    """
    if not 0 <= floor < 1:
        raise ValueError(f"floor is {floor}; it must be at least 0 and less than 1")
    probabilities, labels = check_forecasts(probabilities, labels)
    if probabilities.ndim == 1:
        given = np.where(labels == 1, probabilities, 1 - probabilities)
    else:
        given = probabilities[np.arange(len(labels)), labels]
    with np.errstate(divide="ignore"):
        return _mean(-np.log(np.maximum(given, floor)), weights)


def _mean(values: ndarray, weights) -> float:
    if weights is None:
        return float(values.mean())
    weights = check_weights(weights, len(values))
    counted = weights > 0  # so that 0 times infinity is 0
    return float(weights[counted] @ values[counted] / weights.sum())


# --- Telling right from wrong -----------------------------------------------------


def auroc(
    confidence: Float[ndarray, "items"],
    correct: Int[ndarray, "items"],
    weights: Float[ndarray, "items"] | None = None,
) -> float:
    """Probability that a right prediction has more confidence than a wrong one; ties
    count half. 0.5 is chance, 1 separates them. It does not depend on calibration.

    Raises:
        ValueError: as :func:`reliability_curve`; if all are right or all are wrong.
    """
    from sklearn.metrics import roc_auc_score

    confidence, correct = check_events(confidence, correct)
    check_two_classes(correct, "correct")
    if weights is not None:
        weights = check_weights(weights, len(confidence))
    return float(roc_auc_score(correct, confidence, sample_weight=weights))


class RiskCoverageCurve(NamedTuple):
    """The share that is answered where the confidence is at least ``threshold``, and
    the share of wrong answers among these; from the surest only to all."""

    coverage: Float[ndarray, "thresholds"]
    risk: Float[ndarray, "thresholds"]
    threshold: Float[ndarray, "thresholds"]


def risk_coverage_curve(
    confidence: Float[ndarray, "items"], correct: Int[ndarray, "items"]
) -> RiskCoverageCurve:
    """Risk and coverage of answering only when sure, at every distinct confidence.

    Equal confidences are answered together or not at all. With a useful confidence the
    risk is lower at low coverage; the last point is the error rate of answering all.

    Raises:
        ValueError: as :func:`reliability_curve`.

    Source: El-Yaniv & Wiener (2010).
    """
    confidence, wrong = _surest_first(confidence, correct)
    last = np.flatnonzero(np.append(np.diff(confidence) != 0, True))  # of each tie
    answered = last + 1
    return RiskCoverageCurve(
        answered / len(wrong), np.cumsum(wrong)[last] / answered, confidence[last]
    )


def area_under_risk_coverage(
    confidence: Float[ndarray, "items"], correct: Int[ndarray, "items"]
) -> float:
    r"""Mean risk over the coverages 1/n, 2/n, ..., 1; lower is better.

    .. math:: \frac1n \sum_{k=1}^n \frac1k \sum_{i \le k} [\text{wrong}_i]

    with predictions in order of falling confidence. Within a tie, errors enter evenly:
    that is the mean over all orders. A confidence that knows nothing gives the error
    rate.

    Raises:
        ValueError: as :func:`reliability_curve`.

    Source: Geifman et al. (2019).
    """
    confidence, wrong = _surest_first(confidence, correct)
    starts = np.flatnonzero(np.append(True, np.diff(confidence) != 0))
    sizes = np.diff(np.append(starts, len(wrong)))
    even = np.repeat(np.add.reduceat(wrong, starts) / sizes, sizes)
    return float(np.mean(np.cumsum(even) / np.arange(1, len(wrong) + 1)))


def _surest_first(confidence, correct) -> tuple[ndarray, ndarray]:
    confidence, correct = check_events(confidence, correct)
    order = np.argsort(-confidence, kind="stable")
    return confidence[order], 1.0 - correct[order]
