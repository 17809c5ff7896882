"""Temperature by Brier score: against brute force, scipy from many starts, and cases
where the answer is known."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import check_estimator

from alignlab.calibration import TemperatureScaler, brier_score, top_label
from tests.calibration.test_estimators import (
    BLOBS,
    NOT_APPLICABLE,
    columns_as_logits,
    drawn,
    logits,
    options_of_some,
)


def fitted(z, labels, weights=None, loss="brier"):
    return TemperatureScaler(loss).fit(z, labels, sample_weight=weights).temperature_


def score(z, labels, temperature, weights=None):
    """The Brier score by its definition, class by class."""
    p = softmax(z / temperature, axis=1)
    outcome = np.eye(z.shape[1])[labels]
    return np.average(((p - outcome) ** 2).sum(axis=1), weights=weights)


def by_brute_force(z, labels, weights=None):
    """The best of a grid of 4,000, and again of one between its neighbours."""
    low, high = -8.0, 8.0
    for _ in range(4):
        grid = np.linspace(low, high, 4001 if high - low > 1 else 201)
        scores = [score(z, labels, np.exp(t), weights) for t in grid]
        at = int(np.argmin(scores))
        low, high = grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)]
    return np.exp(grid[at])


def by_many_starts(z, labels, weights=None):
    """Nelder-Mead of `brier_score` over log T from 33 starts, the best kept."""

    def objective(log_t):
        p = softmax(z / np.exp(log_t[0]), axis=1)
        return brier_score(p, labels, weights)

    options = {"xatol": 1e-9, "fatol": 1e-15}
    ends = [
        minimize(objective, [start], method="Nelder-Mead", options=options)
        for start in np.linspace(-4, 4, 33)
    ]
    return float(np.exp(min(ends, key=lambda end: end.fun).x[0]))


def mixed(n, unknown=0.05, seed=0):
    """Log-odds of answers that are right as often as they say at T = 1.2, and a share
    that is as sure, and right in one case of two."""
    rng = np.random.default_rng(seed)
    sure = rng.gamma(4, 2.5, n)
    known = rng.random(n) >= unknown
    return sure, rng.random(n) < np.where(known, expit(sure / 1.2), 0.5), known


def two_valleys(few):
    """Log-odds of 0.01 that are right nine times in ten, and of 30 that are right three
    times in four: each kind alone has its optimum far from the other's."""
    z = np.repeat([0.01, 30.0], [few, 1000 - few])
    right = np.concatenate([np.arange(few) % 10 > 0, np.arange(1000 - few) % 4 > 0])
    return np.column_stack([0 * z, z]), right.astype(int)


# --- The optimum ------------------------------------------------------------------


@pytest.mark.parametrize("case", ["plain", "weighted", "mixed", "heavy tails"])
def test_it_is_the_best_of_a_grid_and_of_many_starts(case):
    z, weights = logits(400), None
    labels = drawn(z / 1.8)
    if case == "weighted":
        weights = np.random.default_rng(5).integers(0, 4, 400)
    if case == "mixed":
        sure, right, _ = mixed(2000)
        z, labels = np.column_stack([0 * sure, sure]), right.astype(int)
    if case == "heavy tails":
        z = z * np.random.default_rng(6).lognormal(0, 2, 400)[:, None]
    temperature = fitted(z, labels, weights)
    assert temperature == pytest.approx(by_brute_force(z, labels, weights), rel=1e-5)
    assert temperature == pytest.approx(by_many_starts(z, labels, weights), rel=1e-5)


@pytest.mark.parametrize("few", [200, 700])
def test_of_two_valleys_it_takes_the_deeper(few):
    z, labels = two_valleys(few)
    grid = np.exp(np.linspace(-8, 8, 400))
    scores = np.array([score(z, labels, t) for t in grid])
    inner = scores[1:-1]
    valleys = grid[1:-1][(inner < scores[:-2]) & (inner < scores[2:])]
    assert len(valleys) == 2
    best = by_brute_force(z, labels)
    assert fitted(z, labels) == pytest.approx(best, rel=1e-5)
    assert (best < 1) == (few == 700)


def test_it_recovers_the_factor_that_logits_were_scaled_by():
    z = logits(20_000)
    labels = drawn(z)
    once = fitted(z, labels)
    assert once == pytest.approx(1, rel=0.03)
    for factor in (1e-9, 2.5, 1e6):
        assert fitted(factor * z, labels) == pytest.approx(factor * once, rel=1e-6)


def test_it_is_a_known_ratio_for_two_answers():
    """Every margin 2, right three times in four: T = 2 / log 3, by hand."""
    margin, right = np.full(400, 2.0), np.tile([1, 1, 1, 0], 100)
    assert fitted(margin, right) == pytest.approx(2 / np.log(3), rel=1e-6)


@pytest.mark.parametrize("mask", [-np.inf, -1e9])
def test_masked_options_have_no_part_in_it(mask):
    z, there, labels = options_of_some()
    given, true = np.where(there, z, mask), np.where(there, z, -np.inf)
    scaler = TemperatureScaler("brier").fit(given, labels)
    assert scaler.temperature_ == pytest.approx(by_brute_force(true, labels), rel=1e-5)
    assert (scaler.predict_proba(given)[~there] == 0).all()


def test_a_weight_is_a_number_of_repetitions():
    z = logits(300)
    labels, times = drawn(z / 2), np.random.default_rng(0).integers(0, 4, 300)
    repeated = fitted(np.repeat(z, times, axis=0), np.repeat(labels, times))
    assert fitted(z, labels, times) == pytest.approx(repeated, rel=1e-6)


# --- When to take which -----------------------------------------------------------


def test_items_that_nobody_can_know_drag_the_log_loss_and_not_the_brier_score():
    """Of the items that can be known, 1.2 is the truth by construction."""
    sure, right, known = mixed(20_000)
    for loss in ("nll", "brier"):
        alone = fitted(sure[known], right[known], loss=loss)
        assert alone == pytest.approx(1.2, rel=0.05)
    nll, brier = (fitted(sure, right, loss=loss) for loss in ("nll", "brier"))
    assert nll - 1.2 > 4 * (brier - 1.2) > 0 and nll > 2 * 1.2


def test_one_sure_and_wrong_item_moves_the_log_loss_ever_further():
    z = logits(500)[:, :2]
    labels = drawn(z)
    moved = {"nll": [], "brier": []}
    for sure in (10.0, 200.0):
        with_one = np.vstack([z, [0, sure]]), np.append(labels, 0)
        for loss, temperatures in moved.items():
            temperatures.append(fitted(*with_one, loss=loss))
    assert moved["nll"][1] > 3 * moved["nll"][0]
    assert moved["brier"][1] == pytest.approx(moved["brier"][0], rel=0.01)


def test_where_one_temperature_mends_the_model_both_losses_agree():
    z = logits(20_000)
    labels = drawn(z / 2)
    p = TemperatureScaler("brier").fit(z, labels).predict_proba(z)
    assert fitted(z, labels) == pytest.approx(fitted(z, labels, loss="nll"), rel=0.05)
    confidence, correct = top_label(p, labels)
    assert confidence.mean() == pytest.approx(correct.mean(), abs=0.015)


# --- Where there is no optimum ----------------------------------------------------


def test_it_says_when_it_ends_at_a_bound():
    z = logits(300)
    with pytest.warns(ConvergenceWarning, match="every answer is right"):
        assert 0 < fitted(z, z.argmax(axis=1)) < 1e-3
    with pytest.warns(ConvergenceWarning, match="no better than chance"):
        assert 1e3 < fitted(z, z.argmin(axis=1)) < np.inf
    with pytest.warns(ConvergenceWarning, match="least where the model is surest"):
        assert fitted(np.repeat([0.01, 10.0], [900, 100]), np.arange(1000) < 900) < 1e-3
    with pytest.warns(ConvergenceWarning, match="every row is constant"):
        assert fitted(np.ones((4, 2)), [0, 1, 0, 1]) == 1


def test_another_loss_is_refused_on_fitting():
    with pytest.raises(ValueError, match="loss is 'mse'; it can be one of"):
        TemperatureScaler("mse").fit(logits(9), drawn(logits(9)))


@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_own_checks():
    scaler = columns_as_logits(TemperatureScaler).set_params(loss="brier")
    expected = NOT_APPLICABLE | BLOBS
    checks = check_estimator(
        scaler, expected_failed_checks=expected, on_fail=None, on_skip=None
    )
    failed = [c["check_name"] for c in checks if c["status"] == "failed"]
    assert failed == [] and sum(c["status"] == "passed" for c in checks) > 50
