"""The same numbers as other libraries give: scikit-learn always, others if installed.

The others (netcal, torchmetrics, uncertainty-calibration, torch-uncertainty, mapie,
betacal, relplot) are heavy or old; install them in an environment of their own and run
this file there. Where conventions differ the difference is stated, and the relation is
tested.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from alignlab.calibration import (
    BetaCalibrator,
    HistogramCalibrator,
    IsotonicCalibrator,
    PlattScaler,
    TemperatureScaler,
    area_under_risk_coverage,
    auroc,
    brier_score,
    classwise_calibration_error,
    cumulative_test,
    expected_calibration_error,
    negative_log_likelihood,
    reliability_curve,
    risk_coverage_curve,
    smooth_calibration_error,
    spiegelhalter_test,
    top_label,
)


def events(name, n=3000, seed=0):
    """Random and adversarial confidences with outcomes."""
    rng = np.random.default_rng(seed)
    p = rng.beta(3, 1.5, n)
    if name == "ties":
        p = rng.integers(0, 20, n) / 20 + 0.025  # never on an edge of 10 bins
    if name == "ends":
        p[: n // 3], p[n // 3 : n // 2] = 1.0, 0.0
    if name == "one":
        p = p[:1]
    y = (rng.random(len(p)) < p**1.5).astype(int)
    if name == "right":
        y[:] = 1
    if name == "wrong":
        y[:] = 0
    return p, y


CASES = ["random", "ties", "ends", "right", "wrong", "one"]


def choices(n=2000, seed=0, scale=2.5):
    """Logits that are too large by ``scale``, and labels."""
    z = 1.5 * np.random.default_rng(seed).normal(size=(n, 4))
    noise = np.random.default_rng(seed + 1).gumbel(size=z.shape)
    return scale * z, (z + noise).argmax(axis=1)


# --- scikit-learn -----------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_curve_and_scores_of_scikit_learn(case):
    p, y = events(case)
    curve = reliability_curve(p, y, n_bins=10)
    accuracy, confidence = calibration_curve(y, p, n_bins=10)
    filled = curve.count > 0
    np.testing.assert_allclose(curve.accuracy[filled], accuracy, rtol=1e-12)
    np.testing.assert_allclose(curve.confidence[filled], confidence, rtol=1e-12)
    assert brier_score(p, y) == pytest.approx(brier_score_loss(y, p, labels=[0, 1]))
    eps = np.finfo(float).eps  # scikit-learn's floor
    result = negative_log_likelihood(p, y, floor=eps)
    assert result == pytest.approx(log_loss(y, p, labels=[0, 1]), rel=1e-12)
    if len(set(y)) == 2:
        assert auroc(p, y) == roc_auc_score(y, p)


def test_scores_of_many_classes_of_scikit_learn():
    z, labels = choices()
    p = softmax(z, axis=1)
    weights = np.random.default_rng(0).random(len(p))
    theirs = brier_score_loss(labels, p, sample_weight=weights, scale_by_half=False)
    assert brier_score(p, labels, weights) == pytest.approx(theirs, rel=1e-12)
    theirs = log_loss(labels, p, sample_weight=weights)
    assert negative_log_likelihood(p, labels, weights) == pytest.approx(theirs)


class Given(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose scores are its input."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, X):
        return X[:, 0] if X.shape[1] == 1 else X

    def predict(self, X):  # CalibratedClassifierCV wants one, and does not call it
        raise NotImplementedError


def calibrated(method, X, y):
    frozen = FrozenEstimator(Given().fit(X, y))
    ensemble = CalibratedClassifierCV(frozen, method=method, ensemble=False)
    return ensemble.fit(X, y).predict_proba(X)


def test_temperature_of_scikit_learn():
    z, labels = choices()
    ours = TemperatureScaler().fit(z, labels).predict_proba(z)
    np.testing.assert_allclose(ours, calibrated("temperature", z, labels), rtol=1e-5)


def test_platt_and_isotonic_of_scikit_learn():
    p, y = events("random")
    score = logit(p)
    ours = PlattScaler().fit(score, y).predict_proba(score)
    theirs = calibrated("sigmoid", score[:, None], y)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    ours = IsotonicCalibrator().fit(p, y).predict_proba(p)
    np.testing.assert_allclose(ours, calibrated("isotonic", p[:, None], y), rtol=1e-12)


# --- netcal -----------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore")
def test_errors_of_netcal(case):
    metrics = pytest.importorskip("netcal.metrics")
    p, y = events(case)
    ece, mce = metrics.ECE(10).measure(p, y), metrics.MCE(10).measure(p, y)
    assert expected_calibration_error(p, y, 10) == pytest.approx(ece, rel=1e-9)
    result = expected_calibration_error(p, y, 10, norm="max")
    assert result == pytest.approx(mce, rel=1e-9)
    if case in ("random", "right", "wrong"):  # theirs cuts between ranks, ours at them
        theirs = metrics.ECE(10, equal_intervals=False).measure(p, y)
        ours = expected_calibration_error(p, y, 10, "quantile")
        assert ours == pytest.approx(theirs, abs=2e-3)


@pytest.mark.filterwarnings("ignore")
def test_temperature_of_netcal_to_three_digits():
    scaling = pytest.importorskip("netcal.scaling")
    z, labels = choices()
    theirs = scaling.TemperatureScaling(method="mle")
    theirs.fit(softmax(z, axis=1), labels, random_state=0)
    ours = TemperatureScaler().fit(z, labels)
    # netcal keeps the factor 1/T and, for many classes, the logits up to a constant.
    result = 1 / float(np.ravel(theirs.temperature)[0])
    assert ours.temperature_ == pytest.approx(result, rel=5e-4)


@pytest.mark.filterwarnings("ignore")
def test_beta_logistic_isotonic_and_histogram_of_netcal():
    scaling = pytest.importorskip("netcal.scaling")
    binning = pytest.importorskip("netcal.binning")
    p, y = events("random")
    p = np.clip(p, 1e-3, 1 - 1e-3)
    beta = scaling.BetaCalibration(method="mle")
    beta.fit(p, y, random_state=0)
    ours = BetaCalibrator().fit(p, y).predict_proba(p)[:, 1]
    np.testing.assert_allclose(ours, beta.transform(p), atol=5e-3)
    logistic = scaling.LogisticCalibration(method="mle", temperature_only=False)
    logistic.fit(p, y, random_state=0)
    ours = PlattScaler().fit(logit(p), y).predict_proba(logit(p))[:, 1]
    np.testing.assert_allclose(ours, logistic.transform(p), atol=5e-3)
    isotonic = binning.IsotonicRegression()
    ours = IsotonicCalibrator().fit(p, y).predict_proba(p)[:, 1]
    np.testing.assert_allclose(ours, np.ravel(isotonic.fit_transform(p, y)), atol=1e-9)
    histogram = binning.HistogramBinning(10)
    ours = HistogramCalibrator(10).fit(p, y).predict_proba(p)[:, 1]
    np.testing.assert_allclose(ours, np.ravel(histogram.fit_transform(p, y)), atol=1e-9)


# --- torchmetrics -----------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_errors_of_torchmetrics_outside_its_fault(case, norm):
    functional = pytest.importorskip("torchmetrics.functional.classification")
    import torch

    p, y = events(case)
    if case == "ends":
        p = np.where(p == 1.0, 1 - 1e-9, p)  # its extra bin for 1.0 is the fault
    theirs = functional.binary_calibration_error(
        torch.tensor(p), torch.tensor(y), n_bins=10, norm=norm
    )
    ours = expected_calibration_error(p, y, 10, norm=norm)
    assert ours == pytest.approx(float(theirs), rel=1e-6, abs=1e-9)


def test_torchmetrics_puts_certainty_in_a_bin_of_its_own():
    """Issue 3510; when this fails, the fault is mended and the exception can go."""
    functional = pytest.importorskip("torchmetrics.functional.classification")
    import torch

    p, y = torch.tensor([0.95, 1.0]), torch.tensor([1, 0])
    theirs = functional.binary_calibration_error(p, y, n_bins=10)
    assert float(theirs) == pytest.approx(0.525)
    assert expected_calibration_error(p, y, 10) == pytest.approx(0.475)


# --- uncertainty-calibration ------------------------------------------------------


def test_debiased_error_of_uncertainty_calibration():
    """Its variance is that of the outcome, ours that of outcome less confidence: the
    same where a bin's confidences are."""
    cal = pytest.importorskip("calibration")
    p, y = events("ties")
    theirs = cal.get_calibration_error(p, y, p=2, debias=True)
    ours = expected_calibration_error(p, y, 20, norm="l2", debias=True)
    assert ours == pytest.approx(theirs, rel=1e-9) and ours > 0.01


def test_plug_in_errors_of_uncertainty_calibration():
    cal = pytest.importorskip("calibration")
    p, y = events("random")
    theirs = cal.get_ece(p, y, num_bins=15)
    assert expected_calibration_error(p, y) == pytest.approx(theirs, rel=1e-9)
    theirs = cal.get_ece_em(p, y, num_bins=15)
    ours = expected_calibration_error(p, y, strategy="quantile")
    assert ours == pytest.approx(theirs, rel=1e-9)
    z, labels = choices(n=1995)  # so that 15 bins of equal mass are the same bins
    q = softmax(z, axis=1)
    theirs = cal.lower_bound_scaling_ce(q, labels, p=2, debias=False, mode="marginal")
    ours = classwise_calibration_error(q, labels, 15, "quantile", "l2")
    assert ours == pytest.approx(theirs, rel=1e-9)
    theirs = cal.get_ece(q, labels, mode="top-label")
    assert expected_calibration_error(*top_label(q, labels)) == pytest.approx(theirs)


# --- relplot ------------------------------------------------------------------------
# It counts half of what lies at exactly 0 or 1, and almost half of what lies within a
# thousandth of them; cuts the kernel off at a distance of a half; and takes the width
# from a grid of 1/1024. Between 0.01 and 0.99 and at these widths, the last is left.


@pytest.mark.parametrize("n", [500, 20_000])
@pytest.mark.parametrize("shape", [(3, 1.5), (8, 1)])
@pytest.mark.parametrize("slope", [0.3, 0.8])
def test_the_smooth_error_is_the_width_that_reproduces_itself_in_relplot(
    n, shape, slope, monkeypatch
):
    relplot = pytest.importorskip("relplot")
    monkeypatch.setattr(relplot.config, "smECE_mesh_pts", 20_001)
    rng = np.random.default_rng(n)
    p = 0.01 + 0.98 * rng.beta(*shape, n)
    y = (rng.random(n) < 0.6 + slope * (p - 0.6)).astype(float)
    ours = smooth_calibration_error(p, y)
    assert relplot.smECE_sigma(p, y, sigma=ours) == pytest.approx(ours, rel=1e-3)
    assert relplot.smECE(p, y) == pytest.approx(ours, abs=1 / 1024)


# --- torch-uncertainty, mapie, betacal --------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_area_of_torch_uncertainty():
    """It takes trapezia between the same points, ours the mean of all: the first and
    last count half there."""
    pytest.importorskip("torchmetrics")
    package = importlib.util.find_spec("torch_uncertainty")
    if package is None:
        pytest.skip("could not import 'torch_uncertainty'")
    import torch

    # The file alone: the package imports torchvision, which the metric does not need.
    folder = Path(package.submodule_search_locations[0])
    path = folder / "metrics" / "classification" / "risk_coverage.py"
    spec = importlib.util.spec_from_file_location("risk_coverage", path)
    metrics = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(metrics)
    p, y = events("random")
    p = 0.5 + p / 2  # so that the class it takes as answered is the event
    theirs = metrics.AURC()
    theirs.update(torch.tensor(p), torch.tensor(y))
    n, risk = len(p), risk_coverage_curve(p, y).risk
    mean = area_under_risk_coverage(p, y)
    trapezia = (n * mean - (risk[0] + risk[-1]) / 2) / (n - 1)
    assert trapezia == pytest.approx(float(theirs.compute()), rel=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_tests_of_mapie():
    theirs = pytest.importorskip("mapie.metrics.calibration")
    rng = np.random.default_rng(0)
    p = rng.beta(3, 1.5, 900)
    y = (rng.random(900) < expit(0.9 * logit(p))).astype(int)
    result = spiegelhalter_test(p, y)
    assert result.statistic == pytest.approx(theirs.spiegelhalter_statistic(y, p))
    assert 0.001 < result.p_value < 0.9
    # Its p-value is one-sided.
    one_sided = theirs.spiegelhalter_p_value(y, p)
    assert result.p_value == pytest.approx(2 * min(one_sided, 1 - one_sided), rel=1e-6)
    result = cumulative_test(p, y)
    statistic = theirs.kolmogorov_smirnov_statistic(y, p)
    assert result.statistic == pytest.approx(statistic, rel=1e-6)
    p_value = theirs.kolmogorov_smirnov_p_value(y, p)
    assert result.p_value == pytest.approx(p_value, abs=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_beta_of_its_authors():
    betacal = pytest.importorskip("betacal")
    p, y = events("random")
    ours = BetaCalibrator().fit(p, y).predict_proba(p)[:, 1]
    theirs = betacal.BetaCalibration(parameters="abm").fit(p[:, None], y).predict(p)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
