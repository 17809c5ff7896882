"""Bradley–Terry strengths against their closed form and against other libraries."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit, logit

from alignlab.evaluation.strengths import bradley_terry_strengths


@pytest.mark.parametrize("won, lost", [(1.5, 0.5), (12, 4.5), (0.5, 40.5), (3000, 2)])
def test_two_systems_have_the_closed_form_of_log_odds(won, lost):
    strengths, covariance = bradley_terry_strengths([[0, lost], [won, 0]])
    assert strengths == pytest.approx([0, np.log(won / lost)], abs=1e-6)
    assert covariance[1, 1] == pytest.approx(1 / won + 1 / lost, rel=1e-5)
    assert covariance[0].tolist() == [0, 0]


def test_three_systems_agree_with_a_logistic_regression():
    wins = np.array([[0, 7, 2.5], [11, 0, 4], [9.5, 6, 0]])
    rows, weights = [], []
    for i, j in zip(*np.nonzero(wins)):
        rows.append(np.eye(3)[i] - np.eye(3)[j])
        weights.append(wins[i, j])
    # Each comparison is a row that was won, weighted by how often.
    design, ones = np.array(rows)[:, 1:], np.ones(len(rows))
    model = sm.GLM(ones, design, sm.families.Binomial(), freq_weights=weights)
    fitted = model.fit(tol=1e-12)
    strengths, covariance = bradley_terry_strengths(wins)
    assert strengths[1:] == pytest.approx(fitted.params, abs=1e-6)
    assert covariance[1:, 1:] == pytest.approx(fitted.cov_params(), rel=1e-5)


def test_exact_shares_give_back_the_strengths_that_they_come_from():
    true = np.array([0.0, 1.3, -0.7, 2.2])
    shares = expit(np.subtract.outer(true, true)) * (1 - np.eye(4)) * 50
    assert bradley_terry_strengths(shares)[0] == pytest.approx(true, abs=1e-6)


def test_half_a_win_each_way_is_jeffreys_prior():
    # Jeffreys' prior of a rate is Beta(1/2, 1/2); in logits, the mode of its posterior
    # after 3 of 4 is found on a grid.
    grid = np.linspace(-5, 5, 100_001)
    log_posterior = 3.5 * np.log(expit(grid)) + 1.5 * np.log(expit(-grid))
    strengths, _ = bradley_terry_strengths([[0, 1.5], [3.5, 0]])
    assert strengths[1] == pytest.approx(grid[log_posterior.argmax()], abs=1e-4)
    assert strengths[1] == pytest.approx(logit(3.5 / 5), abs=1e-6)


@pytest.mark.parametrize(
    "wins",
    [
        [[0, 0], [1, 0]],
        [[0, 0], [0, 0]],
        [[0, 1, 0], [1, 0, 0], [0, 0, 0]],
        [[0, 1, 1], [1, 0, 1], [0, 0, 0]],
        [[0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]],
        [[0, 1]],
    ],
    ids=["only wins", "nothing", "never compared", "only loses", "group", "shape"],
)
def test_a_strength_without_bounds_is_refused(wins):
    with pytest.raises(ValueError, match="expected a square matrix"):
        bradley_terry_strengths(wins)


def test_a_cycle_of_wins_is_bounded():
    cycle = [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert bradley_terry_strengths(cycle)[0] == pytest.approx([0, 0, 0], abs=1e-8)
