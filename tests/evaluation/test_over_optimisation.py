"""Gao's forms against curves whose coefficients are known; peaks against what luck
alone would pick."""

import math

import numpy as np
import pytest

from alignlab.evaluation.over_optimisation import (
    FORMS,
    Curve,
    Fit,
    can_be_fitted,
    fit_curves,
    fit_form,
    held_out_error,
    peak_interval,
    turn,
)

# --- Forms --------------------------------------------------------------------------

D = np.linspace(0.6, 5, 12)
TRUTHS = {
    "best-of-n": ((1.5, 0.2), D * (1.5 - 0.2 * D), 1.5 / 0.4),
    "RL": ((1.2, 0.9), D * (1.2 - 0.9 * np.log(D)), math.exp(1.2 / 0.9 - 1)),
    "quadratic": ((0.3, 1.5, 0.2), 0.3 + 1.5 * D - 0.2 * D**2, 1.5 / 0.4),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_fit_finds_the_coefficients_of_its_own_form(form):
    coefficients, gain, peak = TRUTHS[form]
    fit = fit_form(D, gain, form)
    assert fit.coefficients == pytest.approx(coefficients)
    assert fit.peak == pytest.approx(peak)
    np.testing.assert_allclose(fit(D), gain)


@pytest.mark.parametrize("form", FORMS)
def test_a_peak_is_where_the_curve_is_highest(form):
    fit = Fit(form, TRUTHS[form][0])
    fine = np.linspace(0.01, 10, 100_000)
    assert fine[fit(fine).argmax()] == pytest.approx(fit.peak, abs=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_a_curve_that_never_turns_has_no_peak(form):
    assert fit_form(D, 2 * D + 0.1 * D**2, form).peak == math.inf


def test_points_too_near_are_left_out():
    gain = TRUTHS["RL"][1].copy()
    near = np.concatenate([[0.0, 0.2], D])
    fit = fit_form(near, np.concatenate([[9.0, -9.0], gain]), "RL")
    assert fit.coefficients == pytest.approx(TRUTHS["RL"][0])


def test_the_right_form_predicts_best():
    curves = [Curve(D, TRUTHS["RL"][1]), Curve(D + 0.3, None)]
    curves[1] = Curve(D + 0.3, (D + 0.3) * (1.2 - 0.9 * np.log(D + 0.3)))
    errors = {form: held_out_error(curves, form) for form in FORMS}
    assert errors["RL"] == pytest.approx(0, abs=1e-9)
    assert min(errors["best-of-n"], errors["quadratic"]) > 0.01


def test_held_out_errors_are_of_the_others_fit():
    """Two curves that differ by a known amount, each foretold by the other."""
    one, two = D * (1.0 - 0.1 * D), D * (2.0 - 0.1 * D)
    error = held_out_error([Curve(D, one), Curve(D, two)], "best-of-n")
    assert error == pytest.approx(math.sqrt(np.mean(D**2)))
    with pytest.raises(ValueError, match="at least 2"):
        held_out_error([Curve(D, one)], "best-of-n")


def test_the_peak_is_as_uncertain_as_reward_models_differ():
    alike = [Curve(D, D * (1.5 - 0.2 * D))] * 3
    assert peak_interval(alike, "best-of-n") == pytest.approx((3.75, 3.75, 3.75))
    # Peaks at 2.5, 3.75 and 5; of each alone, and of any mixture in between.
    apart = [Curve(D, D * (a - 0.2 * D)) for a in (1.0, 1.5, 2.0)]
    found = peak_interval(apart, "best-of-n")
    assert found == pytest.approx((3.75, 2.5, 5.0))
    assert peak_interval(apart[:1], "best-of-n") == (
        pytest.approx(2.5), -math.inf, math.inf,
    )  # fmt: skip


def test_resamples_that_never_turn_open_the_interval():
    curves = [Curve(D, D * (1.5 - 0.2 * D)), Curve(D, 3 * D + D**2)]
    found = peak_interval(curves, "best-of-n")
    assert found.low == pytest.approx(3.75) and found.high == math.inf


def test_every_curve_needs_as_many_far_points_as_there_are_coefficients():
    far, near = Curve([0.1, 0.5, 3.0], [0, 1, 2]), Curve([0.1, 0.4, 3.0], [0, 1, 2])
    assert can_be_fitted([far, far], "RL")
    assert not can_be_fitted([far, near], "RL")
    assert not can_be_fitted([far], "quadratic")
    assert can_be_fitted([near], "quadratic", near=0.05)


def test_fits_refuse_what_they_cannot_fit():
    with pytest.raises(ValueError, match="'cubic'; it can be one of"):
        fit_form(D, D, "cubic")
    with pytest.raises(ValueError, match="1 points are 0.5 or more away"):
        fit_form([0.1, 1.0], [1.0, 2.0], "RL")
    with pytest.raises(ValueError, match="finite"):
        fit_form([1.0, 2.0], [1.0, math.nan], "RL")
    pooled = fit_curves([Curve([1.0], [1.3]), Curve([2.0], [2.2])], "best-of-n")
    assert pooled.coefficients == pytest.approx((1.5, 0.2))


# --- Peaks --------------------------------------------------------------------------


def test_the_peak_is_picked_on_one_half_and_measured_on_the_other():
    golds = np.array([[0, 0, 1, 1], [3, 1, 2, 0], [2, 0, 5, 3], [1, 1, 0, 0]], float)
    point, rise, fall = turn(golds, np.array([True, True, False, False]))
    assert point == 1  # of 0, 2, 1, 1
    assert rise == pytest.approx(1 - 1) and fall == pytest.approx(0 - 1)
    assert turn(golds, np.array([False, False, True, True])).point == 2


def test_luck_alone_shows_no_fall():
    """Flat runs with noise: the drop from the best point is 0 on average, where the
    same prompts would show one."""
    random = np.random.default_rng(0)
    half = np.arange(20) < 10
    noise = random.normal(size=(2000, 8, 20))
    falls = [turn(run, half).fall for run in noise]
    assert abs(np.mean(falls)) < 4 * np.std(falls) / math.sqrt(2000)
    own = [run.mean(1)[-1] - run.mean(1).max() for run in noise]
    assert np.mean(own) < -0.2


def test_both_halves_are_needed():
    with pytest.raises(ValueError, match="others measure"):
        turn(np.zeros((3, 2)), np.array([True, True]))
    with pytest.raises(ValueError, match=r"\(points, prompts\)"):
        turn(np.zeros((3, 2)), np.array([True, False, True]))
