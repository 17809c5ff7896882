"""Best-of-n against enumeration and the exact laboratory, Gao's forms against curves
whose coefficients are known, peaks against what luck alone would pick."""

import itertools
import math

import numpy as np
import pytest
import torch

from alignlab.evaluation import exact
from alignlab.evaluation.over_optimisation import (
    FORMS,
    Curve,
    Fit,
    best_of_n_values,
    can_be_fitted,
    fit_curves,
    fit_form,
    held_out_error,
    peak_interval,
    turn,
)

# --- Best of n ----------------------------------------------------------------------


def by_enumeration(proxies, values, n):
    """Mean over all subsets of n, in each over the samples that tie for best."""
    found = []
    for row, worth in zip(proxies, values):
        picked = []
        for subset in itertools.combinations(range(len(row)), n):
            best = max(row[i] for i in subset)
            picked.append(np.mean([worth[i] for i in subset if row[i] == best]))
        found.append(np.mean(picked))
    return np.array(found)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3, 6, 7])
def test_best_of_n_is_the_mean_over_all_subsets(n, ties):
    random = np.random.default_rng(n)
    proxies, values = random.normal(size=(2, 4, 7))
    if ties:
        proxies = random.integers(0, 3, size=(4, 7)).astype(float)
    found = best_of_n_values(proxies, values, n)
    np.testing.assert_allclose(found, by_enumeration(proxies, values, n), atol=1e-12)


def test_equal_proxies_say_nothing():
    values = np.random.default_rng(0).normal(size=(3, 9))
    for n in (1, 4, 9):
        found = best_of_n_values(np.ones((3, 9)), values, n)
        np.testing.assert_allclose(found, values.mean(axis=1), atol=1e-12)


def test_best_of_n_of_samples_is_unbiased_for_the_exact_laboratory():
    """Samples of a policy that can be enumerated, against its exact best-of-n."""
    model, _ = exact.few_word_model(words=3, seed=1)
    completions = exact.every_completion(vocabulary=4, length=3)
    with torch.no_grad():
        reference = exact.log_probs_of_all(model, [1, 2], completions).exp().double()
    reference = (reference / reference.sum()).numpy()
    random = np.random.default_rng(0)
    proxy, gold = random.normal(size=(2, len(completions)))
    pools = random.choice(len(completions), size=(4000, 12), p=reference)
    for n in (1, 3, 8):
        estimates = best_of_n_values(proxy[pools], gold[pools], n)
        truth = float(exact.best_of_n(reference, proxy, n) @ torch.tensor(gold))
        error = estimates.std() / math.sqrt(len(estimates))
        assert abs(estimates.mean() - truth) < 4 * error
        assert error < 0.05


def test_the_analytic_kl_is_exact_where_nothing_ties_and_a_bound_elsewhere():
    """log n - (n-1)/n against the enumerated best-of-n policy."""
    for n in (2, 4, 16, 64):
        gaps = []
        for count in (10, 100, 1000, 10_000):
            reference = np.full(count, 1 / count)
            policy = exact.best_of_n(reference, np.arange(count), n)
            gaps.append(exact.best_of_n_kl(n) - float(exact.kl(policy, reference)))
        assert all(gap > 0 for gap in gaps), "a bound"
        assert sorted(gaps, reverse=True) == gaps, "closer with more completions"
        assert gaps[-1] < 0.01 * exact.best_of_n_kl(n)
    coarse = exact.best_of_n(np.full(100, 0.01), np.arange(100) // 50, 16)
    ties = float(exact.kl(coarse, np.full(100, 0.01)))
    assert ties == pytest.approx(math.log(2), abs=1e-3), "two levels: one bit"


@pytest.mark.parametrize("n", [0, 4])
def test_n_has_to_fit(n):
    with pytest.raises(ValueError, match=f"n is {n}; of 3 samples it can be 1 to 3"):
        best_of_n_values(np.zeros((2, 3)), np.zeros((2, 3)), n)


def test_shapes_have_to_agree():
    with pytest.raises(ValueError, match=r"\(prompts, samples\) twice"):
        best_of_n_values(np.zeros((2, 3)), np.zeros((3, 2)), 1)


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


def test_the_right_form_foretells_best():
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
    with pytest.raises(ValueError, match="it takes two"):
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
