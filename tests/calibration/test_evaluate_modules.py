"""`evaluate.load(path)` gives the library's own numbers, in batches too."""

import pickle

import evaluate
import numpy as np
import pytest

from alignlab import calibration
from alignlab.calibration.evaluate_modules import module_names, module_path


@pytest.fixture
def load(tmp_path):
    return lambda name: evaluate.load(module_path(name), cache_dir=str(tmp_path))


def events(n=400):
    rng = np.random.default_rng(0)
    confidence = rng.beta(3, 1.5, n)
    return confidence, (rng.random(n) < confidence**1.5).astype(int)


def test_every_module_says_what_it_takes(load):
    assert len(module_names()) == 5
    for name in module_names():
        metric = load(name)
        features = {"predictions", "references"}
        assert metric.name == name and set(metric.features) == features
        assert metric.description and metric.citation.startswith("@")
        assert "Returns:" in metric.inputs_description
        assert pickle.loads(pickle.dumps(type(metric))) is type(metric)
    with pytest.raises(ValueError, match="name is 'ece'; there are area_under"):
        module_path("ece")


@pytest.mark.parametrize("options", [{}, {"n_bins": 7, "strategy": "quantile"}])
def test_expected_calibration_error(load, options):
    p, y = events()
    results = load("expected_calibration_error").compute(
        predictions=p, references=y, **options
    )
    error = calibration.expected_calibration_error(p, y, **options)
    assert results["expected_calibration_error"] == error
    assert results["by_chance"] == calibration.null_calibration_error(p, **options)
    rms = calibration.calibration_error_interval(p, y, options.get("n_bins", 15))
    assert [results["rms"], results["rms_low"], results["rms_high"]] == list(rms)


def test_it_gathers_batches_and_takes_certainty_for_what_it_is(load):
    metric = load("expected_calibration_error")
    metric.add_batch(predictions=[0.95], references=[1])
    metric.add_batch(predictions=[1.0], references=[0])
    results = metric.compute(n_bins=10)
    assert results["expected_calibration_error"] == pytest.approx(0.475)
    assert "rms" not in results


def test_smooth_brier_and_risk_coverage(load):
    p, y = events()
    results = load("smooth_calibration_error").compute(predictions=p, references=y)
    smooth = calibration.smooth_calibration_error(p, y)
    assert results == {"smooth_calibration_error": smooth}
    results = load("brier_decomposition").compute(predictions=p, references=y)
    assert results == calibration.brier_decomposition(p, y)._asdict()
    metric = load("area_under_risk_coverage")
    results = metric.compute(predictions=p, references=y)
    area = calibration.area_under_risk_coverage(p, y)
    assert results["area_under_risk_coverage"] == area
    assert results["error_rate"] == pytest.approx(1 - y.mean())
    assert results["auroc"] == calibration.auroc(p, y)
    assert "auroc" not in metric.compute(predictions=[0.5, 0.7], references=[1, 1])


def test_classwise(load):
    rng = np.random.default_rng(0)
    p, labels = rng.dirichlet(np.ones(3), 300), rng.integers(0, 3, 300)
    results = load("classwise_calibration_error").compute(
        predictions=p, references=labels, norm="l2"
    )
    expected = calibration.classwise_calibration_error(p, labels, norm="l2")
    assert results["classwise_calibration_error"] == pytest.approx(expected, rel=1e-12)


def test_wrong_numbers_are_named(load):
    metric = load("expected_calibration_error")
    with pytest.raises(ValueError, match=r"confidence\[1\] is 1.5"):
        metric.compute(predictions=[0.5, 1.5], references=[0, 1])
