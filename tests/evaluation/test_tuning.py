"""The expected best of n trials, against all subsets, known maxima and fresh draws."""

import itertools

import numpy as np
import pytest

from alignlab.evaluation.intervals import t_interval
from alignlab.evaluation.tuning import expected_best, expected_best_curve


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(3, 7))


@pytest.mark.parametrize("n", range(1, 8))
def test_it_is_the_mean_maximum_of_all_subsets(values, n):
    expected = [
        np.mean([max(subset) for subset in itertools.combinations(row, n)])
        for row in values
    ]
    np.testing.assert_allclose(expected_best(values, n), expected, rtol=1e-12)


def test_it_goes_from_the_mean_to_the_maximum_and_never_falls(values):
    curve = np.array([expected_best(values, n) for n in range(1, 8)])
    np.testing.assert_allclose(curve[0], values.mean(1), rtol=1e-12)
    np.testing.assert_allclose(curve[-1], values.max(1), rtol=1e-12)
    assert (np.diff(curve, axis=0) > 0).all()


@pytest.mark.parametrize("n", [1, 3, 40])
def test_the_maximum_of_n_numbered_balls(n):
    balls = np.random.default_rng(0).permutation(np.arange(1, 41))[None]
    assert expected_best(balls, n)[0] == pytest.approx(n * 41 / (n + 1), rel=1e-12)


def test_it_is_right_on_average_where_drawing_with_replacement_is_too_low():
    """The maximum of 4 uniform draws is worth 4/5."""
    draws = np.random.default_rng(0).random((20_000, 6))
    ranks = np.arange(7) / 6
    with_replacement = np.sort(draws) @ np.diff(ranks**4)
    error = draws.max(1).std() / np.sqrt(len(draws))
    assert expected_best(draws, 4).mean() == pytest.approx(0.8, abs=4 * error)
    assert with_replacement.mean() < 0.8 - 20 * error


def test_what_a_trial_was_picked_by_need_not_be_what_it_counts():
    picked_by, counted = np.array([[3.0, 1.0, 2.0]]), np.array([[10.0, 30.0, 50.0]])
    assert expected_best(picked_by, 3, counted)[0] == pytest.approx(10)
    pairs = (10 + 10 + 50) / 3  # of trials 1 and 2, 1 and 3, 2 and 3
    assert expected_best(picked_by, 2, counted)[0] == pytest.approx(pairs)


def test_no_trial_seems_better_than_another_on_what_it_was_not_picked_by():
    noise = np.random.default_rng(0).normal(size=(2, 4000, 8))
    flattered = expected_best(noise[0], 8).mean()
    assert flattered == pytest.approx(1.42, abs=0.05)  # of 8 normal values
    assert abs(expected_best(noise[0], 8, noise[1]).mean()) < 4 / np.sqrt(4000)


def test_a_curve_has_students_interval_over_seeds(values):
    curve = expected_best_curve(values)
    assert len(curve) == 7
    assert curve[3] == t_interval(expected_best(values, 4))
    (wide,) = expected_best_curve(values, [4], level=0.99)
    assert wide.low < curve[3].low < curve[3].high < wide.high


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(n=0), "n is 0"),
        (dict(n=8), "n is 8"),
        (dict(values=np.full((3, 7), np.nan)), "finite value"),
        (dict(measured=np.full((3, 7), np.inf)), "finite value"),
        (dict(measured=np.zeros((3, 6))), "shape"),
    ],
)
def test_wrong_arguments(values, wrong, message):
    with pytest.raises(ValueError, match=message):
        expected_best(**dict(values=values, n=2) | wrong)
