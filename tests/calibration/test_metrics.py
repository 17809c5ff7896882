"""Calibration metrics against the same written out item by item, and at the edges."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.special import softmax

from alignlab.calibration import (
    all_options,
    area_under_risk_coverage,
    auroc,
    brier_decomposition,
    brier_score,
    classwise_calibration_error,
    expected_calibration_error,
    negative_log_likelihood,
    reliability_curve,
    risk_coverage_curve,
    smooth_calibration_error,
    top_label,
)
from alignlab.calibration.metrics import CHUNK, bin_edges, bin_index

BINNED = [
    reliability_curve,
    expected_calibration_error,
    brier_decomposition,
]
PLAIN = [smooth_calibration_error, brier_score, negative_log_likelihood, auroc]
PLAIN += [risk_coverage_curve, area_under_risk_coverage]


def events(n, seed=0, dtype=float, decimals=None):
    """Confidences, some tied when rounded, and outcomes that are too rarely right."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(3, 1.5, n)
    if decimals is not None:
        confidence = confidence.round(decimals)
    return confidence.astype(dtype), (rng.random(n) < confidence**1.5).astype(int)


def choices(n, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    probabilities = softmax(2 * rng.normal(size=(n, classes)), axis=1)
    return probabilities, rng.integers(0, classes, n)


def grouped(confidence, correct, edges, weights=None):
    """(low, high] one item at a time: lists of (weight, p, y) per bin."""
    bins = [[] for _ in edges[1:]]
    weights = np.ones(len(confidence)) if weights is None else weights
    for w, p, y in zip(weights, confidence.tolist(), correct.tolist()):
        place = next(b for b, high in enumerate(edges[1:]) if p <= high)
        bins[place].append((float(w), p, y))
    return bins


def error_by_hand(bins, norm):
    total = sum(w for items in bins for w, _, _ in items)
    gaps = []
    for items in bins:
        weight = sum(w for w, _, _ in items)
        if weight:
            gap = sum(w * (y - p) for w, p, y in items) / weight
            gaps.append((weight / total, abs(gap)))
    if norm == "max":
        return max(gap for _, gap in gaps)
    if norm == "l1":
        return sum(share * gap for share, gap in gaps)
    return math.sqrt(sum(share * gap**2 for share, gap in gaps))


# --- Bins -------------------------------------------------------------------------


@pytest.mark.parametrize("n_bins", [1, 3, 7, 10, 15, 49, 100, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_edge_belongs_to_the_bin_below_it(n_bins, dtype):
    edges = bin_edges(np.zeros(1, dtype), n_bins, "uniform")
    exact = [dtype(k / n_bins) for k in range(n_bins + 1)]
    assert edges.dtype == dtype and edges.tolist() == exact
    k = np.arange(n_bins)
    assert bin_index(edges[1:], edges).tolist() == k.tolist()
    above = np.nextafter(edges[:-1], dtype(1))
    assert bin_index(above, edges).tolist() == k.tolist()
    assert bin_index(edges[:1], edges).tolist() == [0]


def test_fast_index_is_the_search():
    rng = np.random.default_rng(0)
    for n_bins in (2, 9, 15, 33, 999):
        p = np.concatenate([rng.random(5000), rng.integers(0, 101, 5000) / 100])
        edges = bin_edges(p, n_bins, "uniform")
        result = np.searchsorted(edges[1:-1], p, side="left")
        assert (bin_index(p, edges) == result).all()


def test_confidence_one_and_zero_are_in_the_last_and_first_bin():
    """torchmetrics' issue 3510: 0.525 where the definition gives 0.475."""
    assert expected_calibration_error([0.95, 1.0], [1, 0], 10) == pytest.approx(0.475)
    curve = reliability_curve([0.0, 0.05, 0.95, 1.0], [0, 1, 1, 1], n_bins=10)
    assert curve.count.tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]


def test_float32_tenths_lie_on_their_edges():
    tenths = np.arange(1, 11, dtype=np.float32) / np.float32(10)
    assert reliability_curve(tenths, np.ones(10), 10).count.tolist() == [1] * 10


@pytest.mark.parametrize("n", [1, 7, 45, 1000])
@pytest.mark.parametrize("n_bins", [1, 4, 15])
def test_quantile_bins_are_equally_full(n, n_bins):
    confidence, correct = events(n)
    count = reliability_curve(confidence, correct, n_bins, "quantile").count
    assert len(count) == min(n, n_bins) and count.sum() == n
    assert count.max() - count.min() <= 1


def test_quantile_bins_do_not_tear_ties_apart_or_stay_empty():
    confidence = np.array([0.0] * 50 + [0.3] * 30 + [1.0] * 20)
    curve = reliability_curve(confidence, np.ones(100), 10, "quantile")
    assert curve.count.tolist() == [50, 30, 20]
    assert curve.confidence.tolist() == [0.0, pytest.approx(0.3), 1.0]
    tied, correct = events(3000, decimals=2)
    curve = reliability_curve(tied, correct, 15, "quantile")
    assert curve.count.min() > 0 and curve.count.sum() == 3000
    same = reliability_curve(np.full(9, 0.4), np.ones(9), 15, "quantile")
    assert same.count.tolist() == [9]


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("weighted", [False, True])
def test_curve_is_the_bins_written_out(strategy, weighted):
    confidence, correct = events(400, decimals=2)
    weights = np.random.default_rng(1).integers(0, 5, 400) if weighted else None
    curve = reliability_curve(confidence, correct, 12, strategy, weights)
    for b, items in enumerate(grouped(confidence, correct, curve.edges, weights)):
        weight = sum(w for w, _, _ in items)
        assert curve.count[b] == len(items)
        assert curve.weight[b] == pytest.approx(weight)
        if weight:
            mean = sum(w * p for w, p, _ in items) / weight
            assert curve.confidence[b] == pytest.approx(mean)
            share = sum(w * y for w, _, y in items) / weight
            assert curve.accuracy[b] == pytest.approx(share)
        else:
            assert np.isnan([curve.confidence[b], curve.accuracy[b]]).all()


# --- Calibration errors -----------------------------------------------------------


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("decimals", [None, 1])
def test_error_is_the_definition_written_out(norm, strategy, weighted, decimals):
    confidence, correct = events(300, decimals=decimals)
    weights = np.random.default_rng(1).integers(0, 5, 300) if weighted else None
    edges = bin_edges(confidence, 9, strategy)
    expected = error_by_hand(grouped(confidence, correct, edges, weights), norm)
    result = expected_calibration_error(
        confidence, correct, 9, strategy, norm, weights=weights
    )
    assert result == pytest.approx(expected, rel=1e-12) and result > 0.02


def test_many_predictions_are_no_different_from_few():
    confidence, correct = events(3 * CHUNK + 17)
    curve = reliability_curve(confidence, correct)
    where = np.searchsorted(curve.edges[1:-1], confidence)
    assert curve.count.tolist() == np.bincount(where, minlength=15).tolist()
    for b in range(15):
        assert curve.accuracy[b] == pytest.approx(correct[where == b].mean(), rel=1e-12)
        mean = confidence[where == b].mean()
        assert curve.confidence[b] == pytest.approx(mean, rel=1e-12)


def test_a_weight_is_a_number_of_repetitions():
    confidence, correct = events(200)
    times = np.random.default_rng(2).integers(0, 4, 200)
    repeated = np.repeat(confidence, times), np.repeat(correct, times)
    for norm in ("l1", "l2", "max"):
        result = expected_calibration_error(
            confidence, correct, norm=norm, weights=times
        )
        assert result == pytest.approx(
            expected_calibration_error(*repeated, norm=norm), rel=1e-12
        )
    for metric in (brier_score, negative_log_likelihood, auroc):
        weighted = metric(confidence, correct, weights=times)
        assert weighted == pytest.approx(metric(*repeated), rel=1e-12)
    weighted = brier_decomposition(confidence, correct, weights=times)
    assert weighted == pytest.approx(brier_decomposition(*repeated), rel=1e-9)
    p, labels = choices(200)
    for metric in (brier_score, negative_log_likelihood, classwise_calibration_error):
        whole = metric(np.repeat(p, times, axis=0), np.repeat(labels, times))
        assert metric(p, labels, weights=times) == pytest.approx(whole, rel=1e-12)


def test_norms_of_known_gaps():
    """Two bins: half of the items are 0.4 too sure, half are 0.1 too unsure."""
    confidence = np.repeat([0.9, 0.4], 10)
    correct = np.array([1] * 5 + [0] * 5 + [1] * 5 + [0] * 5)
    errors = [
        expected_calibration_error(confidence, correct, 10, norm=norm)
        for norm in ("l1", "l2", "max")
    ]
    assert errors == pytest.approx([0.25, math.sqrt(0.085), 0.4], rel=1e-12)


def test_debiased_square_has_the_expectation_of_the_true_gaps():
    """Exactly, over all outcomes of six forecasts in two bins."""
    confidence = np.array([0.2, 0.3, 0.25, 0.7, 0.9, 0.8])
    chance = np.array([0.1, 0.5, 0.4, 0.9, 0.5, 0.2])
    expected, plug_in = 0.0, 0.0
    for outcome in itertools.product([0, 1], repeat=6):
        outcome = np.array(outcome)
        probability = np.prod(np.where(outcome == 1, chance, 1 - chance))
        squares = 0.0
        for part in (slice(0, 3), slice(3, 6)):
            d = (outcome - confidence)[part]
            squares += (d.sum() ** 2 - (d**2).sum()) / 6 * 0.5
        expected += probability * squares
        result = expected_calibration_error(confidence, outcome, 2, norm="l2")
        plug_in += probability * result**2
        debiased = expected_calibration_error(
            confidence, outcome, 2, norm="l2", debias=True
        )
        assert debiased**2 == pytest.approx(max(squares, 0.0), abs=1e-15)
    gap = chance - confidence
    pairs = itertools.chain(
        itertools.permutations(gap[:3], 2), itertools.permutations(gap[3:], 2)
    )
    assert expected == pytest.approx(sum(a * b for a, b in pairs) / 12, abs=1e-15)
    assert plug_in > expected + 0.02


def test_debiased_square_with_weights_is_its_formula_written_out():
    confidence, correct = events(200)
    weights = np.random.default_rng(1).uniform(0, 3, 200)
    edges = bin_edges(confidence, 5, "uniform")
    total = 0.0
    for items in grouped(confidence, correct, edges, weights):
        pairs = list(itertools.permutations(items, 2))
        products = sum(v * w * (y - p) * (z - q) for (v, p, y), (w, q, z) in pairs)
        share = sum(w for w, _, _ in items) / weights.sum()
        total += share * products / sum(v * w for (v, _, _), (w, _, _) in pairs)
    result = expected_calibration_error(
        confidence, correct, 5, norm="l2", debias=True, weights=weights
    )
    assert result == pytest.approx(math.sqrt(total), rel=1e-9) and result > 0.05


def test_debiasing_brings_a_calibrated_model_to_zero_on_average():
    rng = np.random.default_rng(0)
    plain, debiased = [], []
    for _ in range(300):
        p = rng.beta(3, 1.5, 400)
        y = rng.random(400) < p
        plain.append(expected_calibration_error(p, y, norm="l2") ** 2)
        root = expected_calibration_error(p, y, norm="l2", debias=True)
        debiased.append(root**2)
    assert np.mean(debiased) < 0.5 * np.mean(plain)  # cut at 0, so not 0 itself
    assert np.median(debiased) == pytest.approx(0, abs=2e-4)


def test_top_label_and_all_options():
    p = np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.4, 0.4, 0.2]])
    confidence, correct = top_label(p, [0, 1, 1])
    assert confidence.tolist() == [0.6, 0.6, 0.4]
    assert correct.tolist() == [1, 0, 0]  # of a tie the first counts
    confidence, correct = all_options(p, [0, 1, 1])
    assert confidence.tolist() == p.ravel().tolist()
    assert correct.tolist() == [1, 0, 0, 0, 1, 0, 0, 1, 0]


def test_items_may_have_different_numbers_of_options():
    rows = [[0.9, 0.1], [0.2, 0.3, 0.5], [0.25] * 4]
    confidence, correct = top_label(rows, [1, 2, 0])
    assert (confidence.tolist(), correct.tolist()) == ([0.9, 0.5, 0.25], [0, 1, 1])
    confidence, correct = all_options(rows, [1, 2, 0])
    assert confidence.tolist() == [0.9, 0.1, 0.2, 0.3, 0.5, 0.25, 0.25, 0.25, 0.25]
    assert np.flatnonzero(correct).tolist() == [1, 4, 5]
    with pytest.raises(ValueError, match=r"item 1: labels\[0\] is 3; the classes"):
        top_label(rows, [1, 3, 0])
    with pytest.raises(ValueError, match=r"item 2: probabilities\[0\] sum to 0.9"):
        top_label([[0.9, 0.1], [0.2, 0.3, 0.5], [0.3] * 3], [1, 2, 0])
    with pytest.raises(ValueError, match=r"labels\[2\] is missing"):
        top_label(rows, [1, 2])


def test_classwise_is_each_class_on_its_own():
    p, labels = choices(500, classes=3)
    for norm in ("l1", "l2", "max"):
        each = [
            expected_calibration_error(p[:, k], labels == k, norm=norm)
            for k in range(3)
        ]
        combined = {"l1": np.mean(each), "l2": np.sqrt(np.mean(np.square(each)))}
        combined["max"] = max(each)
        result = classwise_calibration_error(p, labels, norm=norm)
        assert result == pytest.approx(combined[norm], rel=1e-12)


# --- Proper scores ----------------------------------------------------------------


def test_brier_and_likelihood_are_their_sums_written_out():
    p, labels = choices(50)
    squares = [
        sum((p[i, k] - (labels[i] == k)) ** 2 for k in range(4)) for i in range(50)
    ]
    assert brier_score(p, labels) == pytest.approx(math.fsum(squares) / 50, rel=1e-12)
    logs = [-math.log(p[i, labels[i]]) for i in range(50)]
    result = negative_log_likelihood(p, labels)
    assert result == pytest.approx(math.fsum(logs) / 50, rel=1e-12)


def test_two_classes_are_an_event_twice():
    confidence, correct = events(80)
    both = np.column_stack([1 - confidence, confidence])
    assert brier_score(both, correct) == pytest.approx(
        2 * brier_score(confidence, correct), rel=1e-12
    )
    assert negative_log_likelihood(both, correct) == pytest.approx(
        negative_log_likelihood(confidence, correct), rel=1e-12
    )


def test_the_impossible_costs_infinity_unless_a_floor_forgives():
    assert negative_log_likelihood([1.0, 0.5], [0, 1]) == math.inf
    assert negative_log_likelihood([1.0, 0.0], [1, 0]) == 0
    forgiven = negative_log_likelihood([1.0, 0.5], [0, 1], floor=0.01)
    assert forgiven == pytest.approx((math.log(100) + math.log(2)) / 2)
    ignored = negative_log_likelihood([1.0, 0.5], [0, 1], weights=[0, 1])
    assert ignored == pytest.approx(math.log(2))


def murphy_exactly(forecasts, outcomes):
    """Murphy's three terms in fractions, each distinct forecast a bin."""
    n, mean = len(outcomes), Fraction(sum(outcomes), len(outcomes))
    reliability = resolution = Fraction(0)
    for forecast in set(forecasts):
        own = [y for p, y in zip(forecasts, outcomes) if p == forecast]
        share = Fraction(sum(own), len(own))
        reliability += Fraction(len(own), n) * (forecast - share) ** 2
        resolution += Fraction(len(own), n) * (share - mean) ** 2
    return reliability, resolution, mean * (1 - mean)


def test_murphys_identity_on_binned_forecasts():
    rng = np.random.default_rng(3)
    tenths = [Fraction(int(k), 10) for k in rng.integers(1, 11, 500)]
    outcomes = [int(rng.random() < p**2) for p in tenths]
    result = brier_decomposition([float(p) for p in tenths], outcomes, n_bins=10)
    exact = murphy_exactly(tenths, outcomes)
    assert result[1:4] == pytest.approx([float(x) for x in exact], rel=1e-12)
    assert abs(result.within_bins) < 1e-12
    identity = result.reliability - result.resolution + result.uncertainty
    assert identity == pytest.approx(result.brier, abs=1e-12)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("n", [1, 2, 40, 3000])
def test_the_decomposition_adds_up_whatever_the_bins_hold(strategy, n):
    confidence, correct = events(n)
    d = brier_decomposition(confidence, correct, 7, strategy)
    assert d.brier == pytest.approx(brier_score(confidence, correct), abs=1e-15)
    total = d.reliability - d.resolution + d.uncertainty + d.within_bins
    assert total == pytest.approx(d.brier, abs=1e-12)
    assert min(d[1:4]) >= 0


# --- Telling right from wrong -----------------------------------------------------


def test_auroc_is_the_share_of_pairs_in_order():
    confidence, correct = events(120, decimals=1)
    right, wrong = confidence[correct == 1], confidence[correct == 0]
    pairs = [(a > b) + (a == b) / 2 for a in right for b in wrong]
    assert auroc(confidence, correct) == pytest.approx(np.mean(pairs), rel=1e-12)


def test_risk_and_coverage_by_hand():
    curve = risk_coverage_curve([0.9, 0.7, 0.7, 0.2], [1, 0, 1, 0])
    assert curve.threshold.tolist() == [0.9, 0.7, 0.2]
    assert curve.coverage.tolist() == [0.25, 0.75, 1.0]
    assert curve.risk == pytest.approx([0, 1 / 3, 0.5])


def test_area_is_the_mean_over_all_orders_of_ties():
    confidence = np.array([0.9, 0.7, 0.7, 0.7, 0.2, 0.2])
    correct = np.array([1, 0, 1, 1, 0, 1])
    areas = []
    for first in itertools.permutations([1, 2, 3]):
        for last in itertools.permutations([4, 5]):
            wrong = 1 - correct[[0, *first, *last]]
            areas.append(np.mean(np.cumsum(wrong) / np.arange(1, 7)))
    result = area_under_risk_coverage(confidence, correct)
    assert result == pytest.approx(np.mean(areas), rel=1e-12)


def test_areas_of_knowing_all_and_nothing():
    correct = np.array([1] * 60 + [0] * 40)
    assert area_under_risk_coverage(np.full(100, 0.6), correct) == pytest.approx(0.4)
    best = area_under_risk_coverage(np.linspace(1, 0, 100), correct)
    assert best == pytest.approx(sum((k - 60) / k for k in range(61, 101)) / 100)
    worst = area_under_risk_coverage(np.linspace(0, 1, 100), correct)
    assert worst > 0.4 > best


# --- Adversarial and wrong input --------------------------------------------------


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("y", [0, 1])
def test_one_prediction_is_its_own_gap(strategy, p, y):
    for norm in ("l1", "l2", "max"):
        result = expected_calibration_error([p], [y], strategy=strategy, norm=norm)
        assert result == pytest.approx(abs(p - y))
    assert brier_score([p], [y]) == pytest.approx((p - y) ** 2)
    assert area_under_risk_coverage([p], [y]) == 1 - y


def test_one_class_and_certainty():
    assert expected_calibration_error([1.0] * 5, [1] * 5) == 0
    assert expected_calibration_error([0.0] * 5, [1] * 5) == 1
    assert expected_calibration_error([0.0, 1.0], [0, 1], strategy="quantile") == 0
    assert brier_decomposition([0.8] * 5, [1] * 5).uncertainty == 0


@pytest.mark.parametrize("metric", BINNED + PLAIN)
def test_wrong_numbers_are_named_with_their_place(metric):
    names = {brier_score: ("probabilities", "labels")}
    names[negative_log_likelihood] = names[brier_score]
    name, other = names.get(metric, ("confidence", "correct"))
    y = [0, 1, 0, 1]
    for wrong in (1.5, -1e-09, np.nan, np.inf):
        with pytest.raises(ValueError, match=rf"^{name}\[2\] is {wrong}; a proba"):
            metric([0.2, 0.4, wrong, wrong], y)
    for wrong in (2, 0.5, np.nan, -1):
        with pytest.raises(ValueError, match=rf"^{other}\[1\] is {wrong}; it can be"):
            metric([0.2, 0.4, 0.6, 0.8], [0, wrong, wrong, 1])
    with pytest.raises(ValueError, match=rf"{other}\[3\] is missing"):
        metric([0.2, 0.4, 0.6, 0.8], [0, 1, 0])
    with pytest.raises(ValueError, match=rf"{name}\[3\] is missing"):
        metric([0.2, 0.4, 0.6], y)
    with pytest.raises(ValueError, match=f"{name} is empty"):
        metric([], [])
    with pytest.raises(
        ValueError, match=rf"{other} has shape \(2, 2\)|{other} have shape"
    ):
        metric([0.2, 0.4], [[0, 1], [1, 0]])


@pytest.mark.parametrize(
    "metric",
    [
        top_label,
        all_options,
        classwise_calibration_error,
        brier_score,
        negative_log_likelihood,
    ],
)
def test_wrong_rows_are_named_with_their_place(metric):
    p, y = choices(5)
    for place, value, text in (((3, 1), np.nan, "nan"), ((2, 0), -0.5, "-0.5")):
        wrong = p.copy()
        wrong[place] = value
        with pytest.raises(
            ValueError, match=rf"^probabilities\[{place[0]}, {place[1]}\] is {text}"
        ):
            metric(wrong, y)
    wrong = p.copy()
    wrong[3] *= 0.9
    with pytest.raises(ValueError, match=r"^probabilities\[3\] sum to 0.9; each row"):
        metric(wrong, y)
    for label in (4, -1, 1.5, np.nan):
        with pytest.raises(ValueError, match=rf"^labels\[2\] is {label}; the classes"):
            metric(p, [0, 1, label, 0, 0])
    with pytest.raises(ValueError, match=r"labels\[4\] is missing"):
        metric(p, y[:4])
    with pytest.raises(ValueError, match="probabilities is empty"):
        metric(np.zeros((0, 4)), [])
    with pytest.raises(ValueError, match="at least two classes"):
        metric(np.ones((3, 1)), [0, 0, 0])


def test_half_precision_rows_may_sum_to_nearly_one():
    p, y = choices(50)
    half = brier_score(p.astype(np.float16), y)
    assert half == pytest.approx(brier_score(p, y), rel=1e-2)
    single = brier_score(p.astype(np.float32), y)
    assert single == pytest.approx(brier_score(p, y), rel=1e-6)


def test_wrong_dials_are_named():
    p, y = events(20)
    with pytest.raises(ValueError, match="n_bins is 0"):
        reliability_curve(p, y, 0)
    with pytest.raises(ValueError, match="n_bins is 2.5"):
        reliability_curve(p, y, 2.5)
    with pytest.raises(ValueError, match="strategy is 'equal'"):
        expected_calibration_error(p, y, strategy="equal")
    with pytest.raises(ValueError, match="norm is 'l3'"):
        expected_calibration_error(p, y, norm="l3")
    with pytest.raises(ValueError, match="debias goes with norm=\"l2\"; norm is 'l1'"):
        expected_calibration_error(p, y, debias=True)
    with pytest.raises(ValueError, match="no two predictions in one of 15 bins"):
        expected_calibration_error([0.1, 0.9], [0, 1], norm="l2", debias=True)
    with pytest.raises(ValueError, match="floor is 1"):
        negative_log_likelihood(p, y, floor=1)
    with pytest.raises(ValueError, match=r"weights\[3\] is -1.0"):
        expected_calibration_error(p, y, weights=[1, 1, 1, -1] * 5)
    with pytest.raises(ValueError, match=r"weights\[1\] is nan"):
        brier_score(p, y, weights=[1, np.nan] * 10)
    with pytest.raises(
        ValueError, match=r"weights have shape \(3,\); expected \(20,\)"
    ):
        brier_score(p, y, weights=[1, 1, 1])
    with pytest.raises(ValueError, match="weights are all zero"):
        reliability_curve(p, y, weights=np.zeros(20))
    with pytest.raises(ValueError, match=r"correct holds a single class, 1, from cor"):
        auroc([0.2, 0.4], [1, 1])


def test_torch_tensors_and_lists_are_read_as_they_are():
    torch = pytest.importorskip("torch")
    p, y = events(50, dtype=np.float32)
    expected = expected_calibration_error(p, y)
    assert expected_calibration_error(torch.tensor(p), torch.tensor(y)) == expected
    assert expected_calibration_error(p, y.astype(bool)) == expected
    assert expected_calibration_error(p, y.astype(np.uint8)) == expected
    assert expected_calibration_error(p, y.astype(float)) == expected
    as_list = expected_calibration_error(p.tolist(), y.tolist())
    assert as_list == pytest.approx(expected, rel=1e-6)
