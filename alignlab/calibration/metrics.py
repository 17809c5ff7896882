"""How far probabilities are from what happens: calibration errors, proper scores and
selective accuracy, for any classifier's output.

numpy in, float out. Nothing here knows of language models or of the rest of alignlab.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

Strategy = Literal["uniform", "quantile"]
Norm = Literal["l1", "l2", "max"]
CHUNK = 1 << 15  # predictions at a time: the temporaries stay in the processor's cache


# --- Which probability, and was it right ------------------------------------------


def top_label(
    probabilities: Float[ndarray, "items classes"] | Sequence[Sequence[float]],
    labels: Int[ndarray, "items"],
) -> tuple[Float[ndarray, "items"], Float[ndarray, "items"]]:
    """The probability of each item's likeliest class, and whether that class is right.

    It is what "confidence" mostly means: ``expected_calibration_error(*top_label(p,
    y))`` is the ECE of Guo et al. (2017). Of classes that tie, the first one counts as
    the answer.

    Args:
        probabilities: (n, K), rows summing to 1; or a list of rows, of any lengths.
        labels: the right class of each item, 0 to K-1.

    Returns:
        confidence and correct, (n,) each; correct is 0 or 1.

    Raises:
        ValueError: naming the argument and the first wrong entry.
    """
    rows, labels = _rows_and_labels(probabilities, labels)
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

    The GPT-4 report's reliability diagram (its figure 8) is of this kind. Many options
    are improbable and wrong, so the error is smaller than :func:`top_label`'s; the two
    cannot be compared. The options of one item depend on each other: intervals that
    take predictions as independent are for :func:`top_label`.

    Args, raises: as for :func:`top_label`.

    Returns:
        confidence and correct, one after the other over all items: (n * K,) each.
    """
    rows, labels = _rows_and_labels(probabilities, labels)
    confidence = np.concatenate(list(rows))
    ends = np.cumsum([len(row) for row in rows])
    correct = np.zeros(len(confidence))
    correct[ends - [len(row) for row in rows] + labels] = 1.0
    return confidence, correct


# --- Bins -------------------------------------------------------------------------


class ReliabilityCurve(NamedTuple):
    """What each bin holds; bin b is (edges[b], edges[b + 1]], the first with its lower
    edge. An empty bin has count 0 and NaN for confidence and accuracy."""

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
    """Mean confidence against the share that was right, bin by bin.

    Args:
        confidence: a probability for each prediction, 0 and 1 included.
        correct: whether what it speaks of happened, 0 or 1.
        n_bins: more bins show more and know less about each. Under "quantile" equal
            confidences are never torn apart, so there may be fewer bins.
        strategy: "uniform" cuts [0, 1] into equal widths; "quantile" puts nearly the
            same number of predictions into every bin.
        weights: how much each prediction counts, at least 0; None counts each once.

    Edges have the precision of the confidences: a float32 0.1 lies on the edge 0.1.

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
    """Sums over the predictions in each bin, with d = correct - confidence: all that
    any binned measure needs."""

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
    confidence = check_probabilities(confidence, "confidence")
    correct = check_binary(correct, "correct")
    check_same_length(confidence=confidence, correct=correct)
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
        one = count.astype(float)
        return Tally(edges, count, one, *sums[:3], one, sums[2])
    p, y, squares, weight, own_weight, own_squares, _ = sums
    return Tally(edges, count, weight, p, y, squares, own_weight, own_squares)


def bin_edges(confidence, n_bins: int, strategy: Strategy) -> Float[ndarray, "bins+1"]:
    """Ascending from 0 to 1. Inner quantile edges are confidences that occur, each
    once, so that no bin is empty; one at 0 makes the first bin [0, 0]."""
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
    inner = inner[inner < confidence.max()]  # above the greatest a bin would be empty
    return np.concatenate([[0], inner, [1]]).astype(confidence.dtype)


def bin_index(confidence, edges: Float[ndarray, "bins+1"]) -> Int[ndarray, "items"]:
    """Which bin (low, high] each confidence is in; 0 is in the first one."""
    bins = len(edges) - 1
    if not np.array_equal(edges, (np.arange(bins + 1) / bins).astype(edges.dtype)):
        return np.searchsorted(edges[1:-1], confidence, side="left")
    # Twice as fast as a search. The product may be rounded over an edge, in either
    # direction; the comparison with the edge itself puts that right.
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
    square) and "max" (MCE). Chance alone makes each bin's gap differ from 0, so a
    perfectly calibrated model has an error above 0, the larger the fewer predictions a
    bin holds: 15 bins show about 0.03 at 1,000 predictions. Compare with
    :func:`~alignlab.calibration.null_calibration_error`, or take away that excess by
    ``debias``.

    Args:
        confidence, correct, n_bins, strategy, weights: see :func:`reliability_curve`.
        norm: "l1", "l2" or "max".
        debias: for "l2" only. Leave each prediction's product with itself out of the
            squared gaps; what is left has the expectation of the true squared gaps. It
            is 0 where the estimate is negative, and bins of one prediction add nothing.

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
        return float(np.sqrt(max(debiased_squares(t).sum(), 0.0)))
    return binned_error(t, norm)


def binned_error(t: Tally, norm: Norm) -> float:
    """The plug-in error of bins already summed up."""
    filled = t.weight > 0
    gap = np.abs(t.correct - t.confidence)[filled] / t.weight[filled]
    share = t.weight[filled] / t.weight.sum()
    if norm == "max":
        return float(gap.max())
    return float(share @ gap if norm == "l1" else np.sqrt(share @ gap**2))


def debiased_squares(t: Tally) -> Float[ndarray, "bins"]:
    r"""Each bin's share of the squared error, without bias; it may be negative.

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
    for "max". A model can be calibrated in its top label and wrong about every class.

    Args:
        probabilities: (n, K), rows summing to 1.
        labels: the right class of each item, 0 to K-1.
        n_bins, strategy, norm, debias, weights: as for
            :func:`expected_calibration_error`.

    Raises:
        ValueError: naming the argument and the first wrong entry.

    Source: Kull et al. (2019), classwise-ECE; Kumar et al. (2019), marginal error.
    """
    probabilities, labels = check_rows(probabilities), np.asarray(labels)
    check_labels(labels, probabilities)
    dials = (n_bins, strategy, norm, debias, weights)
    errors = [
        expected_calibration_error(probabilities[:, k], labels == k, *dials)
        for k in range(probabilities.shape[1])
    ]
    if norm == "max":
        return max(errors)
    power = 1 if norm == "l1" else 2
    return float(np.mean(np.power(errors, power)) ** (1 / power))


def smooth_calibration_error(
    confidence: Float[ndarray, "items"], correct: Int[ndarray, "items"]
) -> float:
    """Calibration error without bins: gaps smoothed by a kernel whose width is chosen
    as large as the error itself.

    It changes little when a confidence changes a little, which no binned error does,
    and it too is above 0 for a calibrated model.

    Raises:
        ValueError: as :func:`reliability_curve`.

    Source: Błasiok & Nakkiran (2024); computed by their package `relplot`.
    """
    confidence = check_probabilities(confidence, "confidence").astype(float)
    correct = check_binary(correct, "correct").astype(float)
    check_same_length(confidence=confidence, correct=correct)
    import relplot

    return float(relplot.smECE(confidence, correct))


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
    probabilities, labels = _probabilities_and_labels(probabilities, labels)
    if probabilities.ndim == 1:
        return _mean((probabilities - labels) ** 2, weights)
    right = probabilities[np.arange(len(labels)), labels]
    squares = np.einsum("ik,ik->i", probabilities, probabilities) - 2 * right + 1
    return _mean(squares, weights)


class BrierDecomposition(NamedTuple):
    """``brier == reliability - resolution + uncertainty + within_bins``, exactly."""

    brier: float
    reliability: float  # squared gaps: what recalibration can win
    resolution: float  # how far the bins' accuracies lie apart: higher is better
    uncertainty: float  # variance of the outcome: the score of always saying its mean
    within_bins: float  # what the bins hide; 0 where all forecasts of a bin are equal


def brier_decomposition(
    confidence: Float[ndarray, "items"],
    correct: Int[ndarray, "items"],
    n_bins: int = 15,
    strategy: Strategy = "uniform",
    weights: Float[ndarray, "items"] | None = None,
) -> BrierDecomposition:
    r"""The Brier score of an event's probability, taken apart.

    .. math:: \sum_b w_b (c_b - a_b)^2 - \sum_b w_b (a_b - \bar a)^2
        + \bar a (1 - \bar a) + \text{within}

    Murphy's identity of the first three terms holds for forecasts that are equal within
    each bin. Others also vary inside their bins: the variance of the forecasts there
    less twice their covariance with the outcome, which may be negative.

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
    # The squared differences, less what a bin's own means and its outcomes explain.
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
    """Mean of -log of the probability given to what happened, in nats; lower is better.

    Args:
        probabilities, labels, weights: as for :func:`brier_score`.
        floor: probabilities below are raised to it. At 0 a single impossible event
            that happened makes the score infinite, as it should for a model that must
            not be certain; a higher floor forgives more.

    Raises:
        ValueError: naming the argument and the first wrong entry.
    """
    if not 0 <= floor < 1:
        raise ValueError(f"floor is {floor}; it must be at least 0 and less than 1")
    probabilities, labels = _probabilities_and_labels(probabilities, labels)
    if probabilities.ndim == 1:
        given = np.where(labels == 1, probabilities, 1 - probabilities)
    else:
        given = probabilities[np.arange(len(labels)), labels]
    with np.errstate(divide="ignore"):
        return _mean(-np.log(np.maximum(given, floor)), weights)


# --- Telling right from wrong -----------------------------------------------------


def auroc(
    confidence: Float[ndarray, "items"],
    correct: Int[ndarray, "items"],
    weights: Float[ndarray, "items"] | None = None,
) -> float:
    """Chance that a right prediction has more confidence than a wrong one; ties count
    half. 0.5 knows nothing, 1 separates them. Calibration does not matter to it.

    Raises:
        ValueError: as :func:`reliability_curve`; if all are right or all are wrong.
    """
    from sklearn.metrics import roc_auc_score

    confidence = check_probabilities(confidence, "confidence")
    correct = check_binary(correct, "correct")
    check_same_length(confidence=confidence, correct=correct)
    check_two_classes(correct, "correct")
    if weights is not None:
        weights = check_weights(weights, len(confidence))
    return float(roc_auc_score(correct, confidence, sample_weight=weights))


class RiskCoverageCurve(NamedTuple):
    """Answer only where the confidence is at least ``threshold``: the share answered,
    and the share of wrong ones among those. From the surest to all."""

    coverage: Float[ndarray, "thresholds"]
    risk: Float[ndarray, "thresholds"]
    threshold: Float[ndarray, "thresholds"]


def risk_coverage_curve(
    confidence: Float[ndarray, "items"], correct: Int[ndarray, "items"]
) -> RiskCoverageCurve:
    """What answering only when sure would do, at every threshold that makes a change.

    Equal confidences are answered together or not at all. A useful confidence has a
    risk that falls with coverage; the last point is the error rate of answering all.

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

    with predictions in order of falling confidence. Within a tie the order is unknown,
    so its mean over all orders is taken: errors enter evenly. Knowing nothing gives the
    error rate.

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
    confidence = check_probabilities(confidence, "confidence")
    correct = check_binary(correct, "correct")
    check_same_length(confidence=confidence, correct=correct)
    order = np.argsort(-confidence, kind="stable")
    return confidence[order], 1.0 - correct[order]


# --- What may come in -------------------------------------------------------------


def check_probabilities(values, name: str) -> Float[ndarray, "items"]:
    """One probability per prediction, in float32 or float64.

    Raises:
        ValueError: if the shape is another, or a value is NaN or outside [0, 1].
    """
    array = _floats(values, name)
    if array.ndim != 1:
        raise ValueError(
            f"{name} has shape {array.shape}; expected one number per item"
        )
    _require_inside(array, name)
    return array


def check_binary(values, name: str) -> ndarray:
    """0 or 1 per prediction; booleans too.

    Raises:
        ValueError: if the shape is another or a value is neither.
    """
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(
            f"{name} has shape {array.shape}; expected one number per item"
        )
    if not len(array):
        raise ValueError(f"{name} is empty")
    if array.dtype.kind in "biu" and array.min() >= 0 and array.max() <= 1:
        return array  # a tenth of the time of comparing every entry
    good = (array == 0) | (array == 1)
    if not np.all(good):
        first = int(np.flatnonzero(~good)[0])
        raise ValueError(f"{name}[{first}] is {array[first]}; it can be 0 or 1")
    return array


def check_rows(probabilities) -> Float[ndarray, "items classes"]:
    """A probability for each class of each item, rows summing to 1.

    Raises:
        ValueError: if the shape is another, a value is NaN or outside [0, 1], or a row
            does not sum to 1 (within 1e-5; 1e-2 in half precision).
    """
    given = np.asarray(probabilities)
    array = _floats(probabilities, "probabilities")
    if array.ndim != 2 or array.shape[1] < 2:
        raise ValueError(
            f"probabilities have shape {array.shape}; expected (items, classes), with "
            "at least two classes"
        )
    _require_inside(array, "probabilities")
    total = array.sum(axis=1, dtype=float)
    wrong = np.abs(total - 1) > (1e-2 if given.dtype == np.float16 else 1e-5)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"probabilities[{first}] sum to {total[first]:.6g}; each row must sum to 1"
        )
    return array


def check_labels(labels, probabilities: Float[ndarray, "items classes"]) -> ndarray:
    """The right class of each item, as whole numbers from 0 to K-1.

    Raises:
        ValueError: if there are not as many as rows, or one is not such a number.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise ValueError(f"labels have shape {labels.shape}; expected one per item")
    check_same_length(probabilities=probabilities, labels=labels)
    classes = probabilities.shape[1]
    good = (labels >= 0) & (labels < classes) & (labels % 1 == 0)
    if not np.all(good):
        first = int(np.flatnonzero(~good)[0])
        raise ValueError(
            f"labels[{first}] is {labels[first]}; the classes are 0 to {classes - 1}"
        )
    return labels.astype(np.intp)


def check_same_length(**arrays) -> None:
    """Raise ValueError, naming the first entry that is missing, if lengths differ."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        short = min(lengths, key=lengths.get)
        told = " and ".join(f"{name} has {n}" for name, n in lengths.items())
        raise ValueError(f"{told} values: {short}[{lengths[short]}] is missing")


def check_weights(weights, n: int) -> Float[ndarray, "items"]:
    """A finite weight of at least 0 for each of n items, not all of them 0."""
    weights = np.asarray(weights, dtype=float)
    if weights.shape != (n,):
        raise ValueError(f"weights have shape {weights.shape}; expected ({n},)")
    good = (weights >= 0) & np.isfinite(weights)
    if not good.all():
        first = int(np.flatnonzero(~good)[0])
        raise ValueError(
            f"weights[{first}] is {weights[first]}; weights are at least 0"
        )
    if not weights.any():
        raise ValueError("weights are all zero, from weights[0] on")
    return weights


def check_two_classes(correct, name: str) -> None:
    """Raise ValueError if every entry is the same."""
    if np.all(correct == correct[0]):
        raise ValueError(
            f"{name} holds a single class, {correct[0]}, from {name}[0] on: right and "
            "wrong ones are needed"
        )


def _floats(values, name: str) -> ndarray:
    array = np.asarray(values)
    if array.dtype != np.float32:
        array = array.astype(float, copy=False)
    if not array.size:
        raise ValueError(f"{name} is empty")
    return array


def _require_inside(array: ndarray, name: str) -> None:
    if array.min() >= 0 and array.max() <= 1:  # NaN fails either
        return
    first = np.argwhere(~((array >= 0) & (array <= 1)))[0]
    place = ", ".join(map(str, first))
    raise ValueError(
        f"{name}[{place}] is {array[tuple(first)]}; a probability is from 0 to 1"
    )


def _probabilities_and_labels(probabilities, labels) -> tuple[ndarray, ndarray]:
    if np.ndim(probabilities) == 1:
        probabilities = check_probabilities(probabilities, "probabilities")
        labels = check_binary(labels, "labels")
        check_same_length(probabilities=probabilities, labels=labels)
        return probabilities.astype(float, copy=False), labels.astype(float)
    probabilities = check_rows(probabilities)
    labels = check_labels(labels, probabilities)
    return probabilities.astype(float, copy=False), labels


def _rows_and_labels(probabilities, labels):
    """A matrix where all rows are equally long, else a list of rows; labels fit."""
    if isinstance(probabilities, ndarray) or len({len(r) for r in probabilities}) == 1:
        rows = check_rows(probabilities)
        return rows, check_labels(labels, rows)
    labels = np.asarray(labels)
    check_same_length(probabilities=probabilities, labels=labels)
    rows, found = [], []
    for number, row in enumerate(probabilities):
        try:
            rows.append(check_rows(np.asarray(row)[None])[0])
            found.append(check_labels(labels[number : number + 1], rows[-1][None])[0])
        except ValueError as error:
            raise ValueError(f"item {number}: {error}") from error
    return rows, np.array(found)


def _mean(values: ndarray, weights) -> float:
    if weights is None:
        return float(values.mean())
    weights = check_weights(weights, len(values))
    counted = weights > 0  # so that 0 times infinity is 0
    return float(weights[counted] @ values[counted] / weights.sum())
