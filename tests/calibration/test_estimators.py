"""Recalibrators: closed forms, scikit-learn's own checks, and what must not happen."""

import warnings

import numpy as np
import pytest
from scipy.special import expit, log_softmax, logit, logsumexp, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import check_estimator

from alignlab.calibration import (
    BetaCalibrator,
    HistogramCalibrator,
    IsotonicCalibrator,
    MatrixScaler,
    PlattScaler,
    TemperatureScaler,
    VectorScaler,
    negative_log_likelihood,
    reliability_curve,
)

FROM_LOGITS = [TemperatureScaler, VectorScaler, MatrixScaler]
FROM_CONFIDENCE = [BetaCalibrator, IsotonicCalibrator, HistogramCalibrator]


def drawn(logits, seed=0):
    """A label for each row, from the softmax of its logits."""
    noise = np.random.default_rng(seed).gumbel(size=np.shape(logits))
    return (logits + noise).argmax(axis=1)


def logits(n, classes=4, seed=1):
    return 1.5 * np.random.default_rng(seed).normal(size=(n, classes))


def events(n, seed=2):
    """Calibrated confidences and their outcomes."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(3, 2, n)
    return confidence, (rng.random(n) < confidence).astype(int)


# --- scikit-learn's conventions ---------------------------------------------------
# Its checks feed features of any number and range. Here the first of them becomes what
# the estimator is about, logits or a confidence; all the rest is the code under test.


def named(adapted, estimator):
    """An instance that can be pickled: its class is where its name says."""
    adapted.__name__ = adapted.__qualname__ = f"Adapted{estimator.__name__}"
    globals()[adapted.__name__] = adapted
    return adapted()


def columns_as_logits(estimator):
    class Adapted(estimator):
        def fit(self, X, y, sample_weight=None):
            self._columns = len(np.unique(np.asarray(y)))
            return super().fit(X, y, sample_weight)

        def _logits(self, array):
            return array[:, np.arange(self._columns) % array.shape[1]]

    return named(Adapted, estimator)


def first_column(estimator):
    class Adapted(estimator):
        def _score(self, array):
            squashed = array[:, 0] if estimator is PlattScaler else expit(array[:, 0])
            return super()._score(squashed[:, None])

    return named(Adapted, estimator)


# A classifier must tell blobs apart; most of these only rescale one column.
NOT_APPLICABLE = {"check_fit1d": "one number per item is what they are made for"}
BLOBS = {"check_classifiers_train": "recalibrates one column, which cannot suffice"}


@pytest.mark.parametrize("estimator", [*FROM_LOGITS, PlattScaler, *FROM_CONFIDENCE])
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_own_checks(estimator):
    adapt = columns_as_logits if estimator in FROM_LOGITS else first_column
    learns = estimator in (VectorScaler, MatrixScaler)
    expected = NOT_APPLICABLE | ({} if learns else BLOBS)
    checks = check_estimator(
        adapt(estimator), expected_failed_checks=expected, on_fail=None, on_skip=None
    )
    failed = [c["check_name"] for c in checks if c["status"] == "failed"]
    excused = {c["check_name"] for c in checks if c["status"] == "xfail"}
    passed = [c for c in checks if c["status"] == "passed"]
    assert failed == [] and excused == set(expected) and len(passed) > 50


# --- Temperature ------------------------------------------------------------------


def test_temperature_recovers_the_factor_that_logits_were_scaled_by():
    z = logits(20_000)
    labels = drawn(z)
    scaler = TemperatureScaler().fit(2.5 * z, labels)
    once = TemperatureScaler().fit(z, labels)
    assert scaler.temperature_ == pytest.approx(2.5 * once.temperature_, rel=1e-7)
    assert scaler.temperature_ == pytest.approx(2.5, rel=0.03)
    np.testing.assert_allclose(
        scaler.predict_proba(2.5 * z), softmax(z / once.temperature_, axis=1), rtol=1e-6
    )


def test_temperature_is_where_the_likelihood_has_no_slope():
    z = logits(3000)
    labels = drawn(z / 1.7)
    t = TemperatureScaler().fit(z, labels).temperature_
    expected = (softmax(z / t, axis=1) * z).sum(axis=1).mean()
    assert expected == pytest.approx(z[np.arange(3000), labels].mean(), rel=1e-6)


def test_temperature_is_a_known_ratio_for_two_answers():
    """Every margin m, right three times in four: T = m / log 3, by hand."""
    margin = np.full(400, 2.0)
    right = np.tile([1, 1, 1, 0], 100)
    scaler = TemperatureScaler().fit(margin, right)
    assert scaler.temperature_ == pytest.approx(2 / np.log(3), rel=1e-6)
    assert scaler.predict_proba([2.0])[0] == pytest.approx([0.25, 0.75], rel=1e-6)
    two = TemperatureScaler().fit(np.column_stack([0 * margin, margin]), right)
    assert two.temperature_ == pytest.approx(scaler.temperature_, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0, 1e6, 1e9])
def test_temperature_neither_diverges_nor_turns_negative(scale):
    z = logits(500)
    t = TemperatureScaler().fit(scale * z, drawn(z)).temperature_
    assert t == pytest.approx(scale, rel=0.2)


def test_temperature_says_when_there_is_no_optimum():
    z = logits(300)
    with pytest.warns(ConvergenceWarning, match="every answer is right"):
        right = TemperatureScaler().fit(z, z.argmax(axis=1))
    with pytest.warns(ConvergenceWarning, match="no better than chance"):
        wrong = TemperatureScaler().fit(z, z.argmin(axis=1))
    assert 0 < right.temperature_ < 1e-3 and 1e3 < wrong.temperature_ < np.inf
    assert np.isfinite(right.predict_proba(z)).all()


def test_temperature_keeps_every_answer():
    z = logits(400)
    scaler = TemperatureScaler().fit(z, drawn(z / 3))
    assert (scaler.predict(z) == z.argmax(axis=1)).all()


def test_temperature_needs_not_see_every_class():
    z = logits(500)
    labels = drawn(z) % 2
    scaler = TemperatureScaler().fit(z, labels)
    assert scaler.classes_.tolist() == [0, 1, 2, 3]
    assert scaler.predict_proba(z).shape == (500, 4)


def best_temperature(z, labels):
    """Where the cross-entropy is least, on a grid that is refined ten times."""
    low, high = -12.0, 12.0
    shifted = z - z[np.arange(len(z)), labels][:, None]
    for _ in range(10):
        grid = np.linspace(low, high, 61)
        with np.errstate(over="ignore"):
            loss = [logsumexp(shifted / np.exp(t), axis=1).mean() for t in grid]
        at = int(np.argmin(loss))
        low, high = grid[max(at - 1, 0)], grid[min(at + 1, 60)]
    return np.exp(grid[at])


def slope(z, labels, temperature):
    """Of the cross-entropy, in units of the spread of the logits."""
    real = np.where(np.isneginf(z), 0, z)
    mean = (softmax(z / temperature, axis=1) * real).sum(axis=1)
    return (mean - real[np.arange(len(z)), labels]).mean() / real.std()


def options_of_some(n=900, classes=6, seed=3):
    """Logits, which options there are (two at least), and right ones among them."""
    rng = np.random.default_rng(seed)
    z = 2.0 * rng.normal(size=(n, classes))
    there = np.arange(classes) < rng.integers(2, classes + 1, n)[:, None]
    there[: n // 3, 1:3] = False  # whole columns
    there[: n // 3, 3:] = True
    return z, there, drawn(np.where(there, z, -np.inf) / 1.8, seed)


MASKS = {
    "-inf": -np.inf,
    "-1e4": -1e4,
    "-1e9": -1e9,
    "-1e30": -1e30,
    "float16": float(np.finfo(np.float16).min),
    "float32": float(np.finfo(np.float32).min),
    "float64": float(np.finfo(np.float64).min),
}


@pytest.mark.parametrize("mask", [*MASKS, "added -1e4", "added -1e9", "log-softmax"])
def test_masked_options_have_no_part_in_the_temperature(mask):
    z, there, labels = options_of_some()
    if mask.startswith("added"):
        given = np.where(there, z, z.astype(np.float32) + np.float32(mask.split()[1]))
    elif mask == "log-softmax":
        given = log_softmax(np.where(there, z, -1e9), axis=1)
    else:
        given = np.where(there, z, MASKS[mask])
    scaler = TemperatureScaler().fit(given, labels)
    true = np.where(there, z, -np.inf)
    best = best_temperature(true, labels)
    assert scaler.temperature_ == pytest.approx(best, rel=1e-6)
    assert abs(slope(true, labels, scaler.temperature_)) < 1e-9
    p = scaler.predict_proba(given)
    np.testing.assert_allclose(p, softmax(true / best, axis=1), rtol=1e-5, atol=0)
    assert (p[~there] == 0).all()


@pytest.mark.parametrize("mask", MASKS)
def test_masked_options_have_no_part_in_vector_scaling(mask):
    z, there, labels = options_of_some()
    given, true = np.where(there, z, MASKS[mask]), np.where(there, z, -np.inf)
    scaler = VectorScaler().fit(given, labels)
    p = scaler.predict_proba(given)
    error = p.copy()
    error[np.arange(len(z)), labels] -= 1
    assert (p[~there] == 0).all()
    assert np.abs(error.mean(axis=0)).max() < 1e-6
    assert np.abs((error * np.where(there, z, 0)).mean(axis=0)).max() < 1e-6
    plain = TemperatureScaler().fit(true, labels).predict_proba(true)
    loss = negative_log_likelihood(p, labels)
    assert loss < negative_log_likelihood(plain, labels)
    with pytest.raises(ValueError, match=r"X\[0, 1\] is a masked option, which Matrix"):
        MatrixScaler().fit(given, labels)


def test_rows_of_different_lengths_are_masked_at_their_ends():
    rng = np.random.default_rng(0)
    rows = [2 * rng.normal(size=n) for n in rng.integers(2, 6, 400)]
    labels = np.array([drawn(row[None] / 2, i)[0] for i, row in enumerate(rows)])
    matrix = np.full((400, 5), -np.inf)
    for own, row in zip(matrix, rows):
        own[: len(row)] = row
    ragged = TemperatureScaler().fit(rows, labels)
    assert ragged.temperature_ == TemperatureScaler().fit(matrix, labels).temperature_
    np.testing.assert_array_equal(
        ragged.predict_proba(rows), ragged.predict_proba(matrix)
    )
    short = ragged.predict_proba([rows[0][:2]])
    assert short.shape == (1, 5) and short[0, 2:].tolist() == [0, 0, 0]


@pytest.mark.parametrize("mask", [-np.inf, -1e9, -1e4])
@pytest.mark.parametrize("estimator", [TemperatureScaler, VectorScaler])
def test_the_right_option_cannot_be_masked(estimator, mask):
    z, there, labels = options_of_some()
    given, named = np.where(there, z, mask), r"X\[17, 1\] is -.*masked.* y\[17\] is 1"
    assert not there[17, 1]
    labels[17] = 1
    with pytest.raises(ValueError, match=named):
        estimator().fit(given, labels)
    weights = np.ones(len(z))
    weights[:5] = 0  # rows keep their numbers
    with pytest.raises(ValueError, match=named):
        estimator().fit(given, labels, weights)
    weights[17] = 0
    estimator().fit(given, labels, weights)


def test_an_item_has_an_option_left():
    z, _, labels = options_of_some(60)
    z[7] = -np.inf
    with pytest.raises(ValueError, match=r"X\[7, 0\] is -inf"):
        TemperatureScaler().fit(z, labels)
    z[7] = np.inf
    with pytest.raises(ValueError, match=r"X\[7, 0\] is inf"):
        TemperatureScaler().fit(z, labels)


@pytest.mark.parametrize("constant", [0.0, 0.3, -5.0, 1e5])
def test_constant_logits_say_nothing_about_temperature(constant):
    z, labels = np.full((60, 3), constant), np.tile([0, 1, 2], 20)
    rounded = z + 1e-16 * np.random.default_rng(0).normal(size=z.shape) * constant
    masked = np.where(np.arange(3) == (labels[:, None] + 1) % 3, -1e9, z)
    for given in (z, rounded, masked, np.log(softmax(z, axis=1))):
        with pytest.warns(ConvergenceWarning, match="every row is constant"):
            scaler = TemperatureScaler().fit(given, labels)
        assert scaler.temperature_ == 1
    assert scaler.predict_proba(z) == pytest.approx(np.full((60, 3), 1 / 3))


@pytest.mark.parametrize("n", [3, 10, 1000])
@pytest.mark.parametrize("scale", [1e-3, 1e5])
@pytest.mark.parametrize("sharp", [0.05, 0.3, 1.0, 3.0])
def test_temperature_is_the_optimum_or_a_bound_that_is_named(n, scale, sharp):
    for seed in range(2):
        z = np.random.default_rng(seed).normal(size=(n, 4))
        labels = drawn(sharp * z, seed)
        if len(set(labels)) == 1:
            continue
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            t = TemperatureScaler().fit(scale * z, labels).temperature_
        if not caught:
            assert abs(slope(z, labels, t / scale)) < 1e-9
            # A grid knows a flat optimum less well than the slope does.
            assert t / scale == pytest.approx(best_temperature(z, labels), rel=1e-3)
            continue
        assert "the bound of the search" in str(caught[0].message)
        falls = slope(z, labels, t / scale) > 0
        assert (z.argmax(1) == labels).all() or (falls and t > 1000 * scale)


def test_one_broken_item_does_not_move_the_bounds():
    z = logits(300)
    broken = np.vstack([z, [[1e12, 0, 0, 0]]])
    labels = np.append(z.argmax(axis=1), 0)
    with pytest.warns(ConvergenceWarning, match="every answer is right"):
        scaler = TemperatureScaler().fit(broken, labels)
    assert scaler.temperature_ < 1e-3


@pytest.mark.parametrize("gap", [1e-3, 1e-12, 1e-200])
def test_one_answer_that_is_hardly_wrong_bounds_the_temperature(gap):
    """Of margins 1 and one of -gap, the slope is 0 at (n - 1) exp(-1/T) = gap / 2."""
    margin, right = np.append(np.ones(99), gap), np.append(np.ones(99), 0)
    t = TemperatureScaler().fit(2 * margin, right).temperature_ / 2
    assert t == pytest.approx(1 / np.log(99 / (gap / 2)), rel=3e-5 + gap)


def test_probabilities_in_place_of_logits_are_noticed():
    z = logits(300)
    labels, p = drawn(z), softmax(z, axis=1)
    with pytest.warns(UserWarning, match="may hold probabilities .*logarithm"):
        TemperatureScaler().fit(p, labels)
    with pytest.warns(UserWarning, match="may hold probabilities .*log-odds"):
        TemperatureScaler().fit(p.max(axis=1), p.argmax(axis=1) == labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logs = TemperatureScaler().fit(np.log(p), labels)
        plain = TemperatureScaler().fit(z, labels)
    assert logs.temperature_ == pytest.approx(plain.temperature_, rel=1e-9)


@pytest.mark.parametrize("estimator", [VectorScaler, MatrixScaler])
def test_separable_logits_have_no_best_factors(estimator):
    z = logits(200)
    with pytest.warns(ConvergenceWarning, match="every answer can be made right"):
        estimator().fit(z, z.argmax(axis=1))


# --- Vector and matrix ------------------------------------------------------------


def test_vector_scaling_recovers_factors_and_offsets():
    z = logits(60_000, classes=3)
    factor, offset = np.array([0.5, 1.0, 1.5]), np.array([-0.5, 0.2, 0.3])
    scaler = VectorScaler().fit(z, drawn(factor * z + offset))
    assert scaler.coef_ == pytest.approx(factor, abs=0.05)
    assert scaler.intercept_ == pytest.approx(offset, abs=0.05)


def test_vector_scaling_is_at_a_stationary_point():
    z = logits(800)
    labels = drawn(z / 2)
    scaler = VectorScaler().fit(z, labels)
    error = scaler.predict_proba(z)
    error[np.arange(800), labels] -= 1
    assert np.abs(error.mean(axis=0)).max() < 1e-6
    assert np.abs((error * z).mean(axis=0)).max() < 1e-6


def test_matrix_scaling_recovers_a_linear_map():
    z = logits(60_000, classes=3)
    turned = np.array([[1.0, 0.4, 0.0], [0.0, 0.8, 0.3], [-0.2, 0.0, 1.2]])
    scaler = MatrixScaler().fit(z, drawn(z @ turned.T))
    centred = turned - turned.mean(axis=0)  # a softmax sees differences of classes
    result = scaler.coef_ - scaler.coef_.mean(axis=0)
    assert result == pytest.approx(centred, abs=0.06)


def test_more_freedom_fits_the_calibration_split_better():
    z = logits(600)
    labels = drawn(z / 2 + np.array([0.5, 0, 0, -0.5]))
    fits = [e().fit(z, labels).predict_proba(z) for e in FROM_LOGITS]
    temperature, vector, matrix = (negative_log_likelihood(p, labels) for p in fits)
    assert temperature > vector + 1e-3 > matrix + 1e-3


def test_matrix_scaling_of_two_classes_is_logistic_regression():
    z = logits(500, classes=2)
    labels = drawn(z / 2)
    p = MatrixScaler().fit(z, labels).predict_proba(z)
    plain = LogisticRegression(C=np.inf, tol=1e-8).fit(z, labels).predict_proba(z)
    np.testing.assert_allclose(p, plain, rtol=1e-5)


@pytest.mark.parametrize("estimator", [VectorScaler, MatrixScaler])
def test_a_class_that_never_occurs_is_named(estimator):
    with pytest.raises(ValueError, match="y never has class 2 of 4"):
        estimator().fit(logits(30), np.tile([0, 1, 3], 10))


# --- From one number --------------------------------------------------------------


def test_platt_recovers_a_logistic_curve():
    confidence, right = events(40_000)
    score = (logit(confidence) - 0.7) / 1.8
    scaler = PlattScaler().fit(score, right)
    assert scaler.coef_ == pytest.approx(1.8, rel=0.05)
    assert scaler.intercept_ == pytest.approx(0.7, abs=0.05)


def test_platt_of_one_score_is_its_smoothed_share():
    """Without a slope the curve's mean is that of Platt's targets."""
    right = np.array([1] * 30 + [0] * 10)
    p = PlattScaler().fit(np.zeros(40), right).predict_proba([0.0])[0, 1]
    assert p == pytest.approx((30 * 31 / 32 + 10 / 12) / 40, rel=1e-6)


def test_platt_stays_finite_on_separable_scores():
    score = np.linspace(-1, 1, 40)
    scaler = PlattScaler().fit(score, score > 0)
    assert 0 < scaler.coef_ < np.inf
    assert scaler.predict_proba([1.0])[0, 1] < 1


@pytest.mark.parametrize("sentinel", [-1e9, 1e9, -1e7, np.finfo("f4").min])
def test_platt_says_when_a_score_is_far_from_all_others(sentinel):
    confidence, right = events(2_000)
    score = logit(confidence)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        slope = PlattScaler().fit(score, right).coef_
        heavy = np.random.default_rng(0).standard_t(2, 2_000)
        PlattScaler().fit(1e6 * heavy, heavy > 0)
        PlattScaler().fit(np.where(right, 1.0, 0.0), np.roll(right, 1))
    score[7] = sentinel
    with pytest.warns(UserWarning, match="1 of 2000 scores lie .* such as"):
        bent = PlattScaler().fit(score, right)
    assert abs(bent.coef_) < slope / 10


def test_beta_holds_the_identity_and_recovers_its_own_curve():
    confidence, right = events(60_000)
    same = BetaCalibrator().fit(confidence, right)
    assert (same.a_, same.b_) == pytest.approx((1, 1), abs=0.06)
    assert same.c_ == pytest.approx(0, abs=0.06)
    bent = expit(0.5 * np.log(confidence) - 2 * np.log1p(-confidence) - 0.4)
    happened = np.random.default_rng(5).random(60_000) < bent
    result = BetaCalibrator().fit(confidence, happened)
    assert [result.a_, result.b_, result.c_] == pytest.approx([0.5, 2, -0.4], abs=0.1)


def test_beta_never_falls():
    confidence, right = events(2000)
    grid = np.linspace(0, 1, 101)
    for labels in (right, 1 - right, (confidence > 0.3) & (confidence < 0.6)):
        fitted = BetaCalibrator().fit(confidence, labels)
        assert fitted.a_ >= 0 and fitted.b_ >= 0
        p = fitted.predict_proba(grid)[:, 1]
        assert np.isfinite(p).all() and (np.diff(p) >= 0).all()
    against = BetaCalibrator().fit(confidence, 1 - right).predict_proba([0.2, 0.8])
    assert against[:, 1] == pytest.approx([1 - right.mean()] * 2, rel=1e-9)


def test_isotonic_is_pool_adjacent_violators_by_hand():
    fitted = IsotonicCalibrator().fit([0.1, 0.2, 0.3, 0.4, 0.5], [0, 1, 0, 1, 1])
    p = fitted.predict_proba([0.0, 0.1, 0.2, 0.25, 0.3, 0.4, 1.0])[:, 1]
    assert p == pytest.approx([0, 0, 0.5, 0.5, 0.5, 1, 1])


def test_isotonic_never_falls_and_keeps_the_mean():
    confidence, right = events(500)
    p = IsotonicCalibrator().fit(confidence, right).predict_proba(confidence)[:, 1]
    assert (np.diff(p[confidence.argsort()]) >= 0).all()
    assert p.mean() == pytest.approx(right.mean(), rel=1e-12)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_histogram_gives_each_bin_its_accuracy(strategy):
    confidence, right = events(700)
    fitted = HistogramCalibrator(10, strategy).fit(confidence, right)
    curve = reliability_curve(confidence, right, 10, strategy)
    filled = curve.count > 0
    assert fitted.accuracy_[filled] == pytest.approx(curve.accuracy[filled], rel=1e-12)
    p = fitted.predict_proba(confidence)[:, 1]
    assert p.mean() == pytest.approx(right.mean(), rel=1e-12)


def test_an_empty_bin_of_a_histogram_keeps_its_middle():
    fitted = HistogramCalibrator(4).fit([0.1, 0.2, 0.9, 1.0], [0, 1, 1, 1])
    p = fitted.predict_proba([0.0, 0.25, 0.26, 0.6, 1.0])[:, 1]
    assert p == pytest.approx([0.5, 0.5, 0.375, 0.625, 1.0])


@pytest.mark.parametrize("estimator", [PlattScaler, *FROM_CONFIDENCE])
def test_a_weight_is_a_number_of_repetitions(estimator):
    confidence, right = events(60)
    times = np.random.default_rng(0).integers(0, 4, 60)
    weighted = estimator().fit(confidence, right, sample_weight=times)
    repeated = estimator().fit(np.repeat(confidence, times), np.repeat(right, times))
    grid = np.linspace(0, 1, 21)
    np.testing.assert_allclose(
        weighted.predict_proba(grid), repeated.predict_proba(grid), atol=1e-6
    )


def test_over_confident_probabilities_are_repaired_on_another_split():
    truth, right = events(20_000)
    given = expit(2.5 * logit(np.clip(truth, 1e-9, 1 - 1e-9)))
    first, second = slice(0, 10_000), slice(10_000, None)
    before = negative_log_likelihood(given[second], right[second])
    best = negative_log_likelihood(truth[second], right[second])
    for estimator in (BetaCalibrator, IsotonicCalibrator, HistogramCalibrator):
        fitted = estimator().fit(given[first], right[first])
        p = fitted.predict_proba(given[second])[:, 1]
        after = negative_log_likelihood(p, right[second], floor=1e-3)
        assert best <= after < best + 0.2 * (before - best), estimator.__name__


# --- Wrong arguments --------------------------------------------------------------


@pytest.mark.parametrize("estimator", FROM_CONFIDENCE)
def test_what_is_not_a_probability_is_named(estimator):
    with pytest.raises(ValueError, match=r"X\[1\] is 1.5; a probability"):
        estimator().fit([0.5, 1.5, 0.2], [0, 1, 1])
    fitted = estimator().fit([0.2, 0.5, 0.9], [0, 1, 1])
    with pytest.raises(ValueError, match=r"X\[0\] is -0.1"):
        fitted.predict_proba([-0.1])


@pytest.mark.parametrize("estimator", [*FROM_LOGITS, PlattScaler, *FROM_CONFIDENCE])
def test_wrong_arguments_are_named(estimator):
    calibrator = estimator()
    x, y = [0.2, 0.4, 0.6, 0.8], [0, 1, 0, 1]
    with pytest.raises(ValueError, match=r"X\[2, 0\] is NaN"):
        calibrator.fit([0.2, 0.4, np.nan, 0.8], y)
    with pytest.raises(ValueError, match=r"X has 4 and y has 3 values: y\[3\]"):
        calibrator.fit(x, y[:3])
    with pytest.raises(ValueError, match=r"y holds a single class, 1, from y\[0\] on"):
        calibrator.fit(x, [1, 1, 1, 1])
    with pytest.raises(ValueError, match=r"y\[1\] is NaN"):
        calibrator.fit(x, [0, np.nan, 0, 1])
    with pytest.raises(ValueError, match=r"weights\[3\] is -1"):
        calibrator.fit(x, y, sample_weight=[1, 1, 1, -1])
    with pytest.raises(ValueError, match="0 sample"):
        calibrator.fit([], [])


def test_labels_and_columns_must_fit():
    with pytest.raises(ValueError, match="y has 3 classes and X 2 columns"):
        TemperatureScaler().fit(logits(6, classes=2), [0, 1, 2, 0, 1, 2])
    with pytest.raises(ValueError, match=r"y\[2\] is 2, a third class"):
        PlattScaler().fit([0.1, 0.2, 0.3], [0, 1, 2])
    with pytest.raises(ValueError, match="X has 2 columns"):
        PlattScaler().fit(np.zeros((4, 2)), [0, 1, 0, 1])
    named = TemperatureScaler().fit(logits(40, 3), np.tile(["a", "b", "c", "a"], 10))
    assert named.classes_.tolist() == ["a", "b", "c"]
    assert set(named.predict(logits(9, 3))) <= {"a", "b", "c"}
