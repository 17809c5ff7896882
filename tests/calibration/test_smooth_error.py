"""The smooth calibration error: its definition, written out, and known values. A peer's
numbers are in ``test_parity``."""

import numpy as np
import pytest
from scipy import stats

from alignlab.calibration import (
    expected_calibration_error,
    metrics,
    smooth_calibration_error,
)


def test_smooth_error_of_a_constant_forecast_is_its_gap():
    correct = np.array([1, 0, 0, 0] * 50)
    assert smooth_calibration_error(np.full(200, 0.75), correct) == pytest.approx(0.5)
    assert smooth_calibration_error(np.full(200, 0.25), correct) == 0


def smoothed_gap(p, y, width, points=8001):
    """By its definition: a Gaussian at each prediction and at its mirror images."""
    t = np.linspace(0, 1, points)
    images = np.concatenate(
        [2 * k + side * p for k in range(-4, 5) for side in (1, -1)]
    )
    gaps = np.tile(y - p, 18) / len(p)
    kernel = stats.norm.pdf(t[:, None], images[None], width)
    return np.trapezoid(np.abs(kernel @ gaps), t)


@pytest.mark.parametrize("shape", ["uniform", "at the end", "digits", "0 and 1"])
@pytest.mark.parametrize("slope", [0.2, 0.8])
def test_smooth_error_is_the_width_at_which_the_smoothed_gap_equals_it(shape, slope):
    """Gaps change their sign where the confidence is 0.6, so the width matters."""
    rng = np.random.default_rng(0)
    p = {
        "uniform": rng.random(200),
        "at the end": rng.beta(40, 1, 200),
        "digits": rng.integers(0, 11, 200) / 10,
        "0 and 1": np.arange(200) % 2.0,
    }[shape]
    y = (rng.random(200) < 0.6 + slope * (p - 0.6)).astype(int)
    error = smooth_calibration_error(p, y)
    assert smoothed_gap(p, y, error) == pytest.approx(error, rel=1e-4)


def test_smooth_error_of_right_answers_that_are_sure_is_0():
    assert smooth_calibration_error(np.array([0.0, 1.0, 1.0]), [0, 1, 1]) == 0


@pytest.mark.parametrize("n", [2, 1000])
def test_smooth_error_of_gaps_of_one_sign_is_their_mean(n):
    p = np.linspace(0, 0.9, n)
    assert smooth_calibration_error(p, np.ones(n)) == pytest.approx(np.mean(1 - p))


def test_smooth_error_on_a_finer_grid_is_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    p = rng.beta(3, 1.5, 100_000)
    y = rng.random(100_000) < p
    coarse = smooth_calibration_error(p, y)
    monkeypatch.setattr(metrics, "CELLS", 1 << 18)
    assert coarse == pytest.approx(smooth_calibration_error(p, y), rel=1e-4)


def test_smooth_error_hardly_moves_when_confidences_do():
    """A jump over a bin's edge moves the binned error by a quarter, the smooth not."""
    correct = np.array([1, 0] * 100)
    below, above = np.tile([0.5, 0.5], 100), np.tile([0.5, 0.5 + 1e-9], 100)
    jump = abs(
        expected_calibration_error(below, correct, 2)
        - expected_calibration_error(above, correct, 2)
    )
    assert jump == pytest.approx(0.5, abs=1e-6)
    smooth = smooth_calibration_error(below, correct)
    assert smooth_calibration_error(above, correct) == pytest.approx(smooth, abs=1e-4)
