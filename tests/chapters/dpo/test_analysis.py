"""The numbers of notebook 05, against closed forms and a linear programme."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from alignlab.chapters.dpo import analysis, laboratory

# --- The envelope -------------------------------------------------------------------


def by_linear_programme(kl, gold, limit):
    """Most gold of any mixture with no more KL than the limit."""
    ones = np.ones((1, len(kl)))
    return -linprog(-gold, kl[None], [limit], ones, [1.0], bounds=(0, 1)).fun


@pytest.mark.parametrize("limit", [0.0, 0.3, 1.7, 4.0, 50.0])
def test_a_mixture_is_the_best_that_a_linear_programme_finds(limit):
    random = np.random.default_rng(7)
    for _ in range(20):
        kl, gold = np.append(0, random.exponential(3, 6)), random.normal(size=7)
        weights = analysis.mixture(kl, gold, limit)
        assert weights.sum() == pytest.approx(1) and weights.min() >= 0
        assert weights @ kl <= limit + 1e-9 and (weights > 0).sum() <= 2
        assert weights @ gold == pytest.approx(by_linear_programme(kl, gold, limit))


def test_nothing_within_the_limit_is_refused():
    with pytest.raises(ValueError, match="limit is 1, and the least KL is 2"):
        analysis.mixture(np.array([2.0, 3.0]), np.array([0.0, 1.0]), 1)


def point(kl, golds, seed=0, **others):
    return dict(seed=seed, kl=kl, golds=golds, gold=float(np.mean(golds)), **others)


START = [point(0, [1.0, 1.0, 3.0, 3.0]), point(0, [2.0] * 4, seed=1)]


def test_an_envelope_is_concave_and_never_falls():
    runs = [point(1, [4] * 4), point(2, [3] * 4), point(4, [6] * 4), point(9, [0] * 4)]
    found = analysis.envelope([point(0, [2] * 4), *runs], np.array([0, 0.5, 1, 2.5, 8]))
    assert found == pytest.approx([2, 3, 4, 4 + 2 / 3 * 1.5, 6])


def test_the_best_of_noise_is_no_gain():
    """The largest of many equal policies' means is too high; the envelope is not."""
    random = np.random.default_rng(3)
    gains, naive = [], []
    for _ in range(200):
        golds = random.normal(size=(8, 40))
        points = [point(0, golds[0].tolist())]
        points += [point(1, some.tolist()) for some in golds[1:]]
        gains.append(analysis.envelope(points, np.array([2.0]))[0])
        naive.append(golds.mean(axis=1).max())
    assert abs(np.mean(gains)) < 3 * np.std(gains) / math.sqrt(200)
    assert np.mean(naive) > 0.15


def test_halves_are_every_other_subject():
    points = [point(0, [0, 0, 0, 0]), point(1, [1, -1] * 2), point(1, [0, 3] * 2)]
    # Picked by even subjects: the second, worth -1 on odd ones; by odd ones: the third.
    assert analysis.envelope(points, np.array([1.0])) == pytest.approx([-0.5])


def test_areas_are_mean_gains_over_the_reference_of_the_same_seed():
    run = [point(4, [5.0, 5.0, 7.0, 7.0]), point(8, [6.0] * 4, seed=1)]
    found = analysis.areas(run, START)
    # From 0 to 4 nats: a straight line to +4, and one to +2 (half of the way to 8).
    assert found == {0: pytest.approx(2.0), 1: pytest.approx(1.0)}
    lines = analysis.envelopes(run, START)
    assert all(line[0] == pytest.approx(0) for line in lines.values())
    stopped = [{"seed": 0, "stopped": "the loss is inf"}, *run[1:]]
    assert analysis.areas(stopped, START) == {0: pytest.approx(0), 1: found[1]}
    assert set(analysis.areas(run[:1], START)) == {0}, "no run, no area"


def test_differences_and_spreads_are_seed_by_seed():
    areas = {"a": {0: 1.0, 1: 5.0}, "b": {1: 2.0, 0: 1.5}, "c": {0: 0.0, 1: 2.5, 2: 9}}
    assert analysis.difference(areas["a"], areas["b"]) == [-0.5, 3.0]
    assert analysis.difference(areas["c"], areas["a"]) == [-1.0, -2.5]
    assert analysis.spread(areas) == [1.5, 3.0]


# --- Gradients ----------------------------------------------------------------------


def test_the_summary_finds_a_weight_that_is_off():
    margin, of_margin = np.array([-9.0, 0.0, 4.0, 30.0]), np.array([2.0, 5.0, 1.0, 3.0])
    weight = 1 / (1 + np.exp(0.3 * margin))
    gradient = 0.3 * weight * of_margin
    measured = dict(margin=margin, gradient=gradient, of_margin=of_margin)
    found = analysis.gradient_weights(measured, 0.3)
    assert found["expected"] == pytest.approx(weight)
    assert found["measured"] == pytest.approx(weight)
    summary = analysis.gradient_summary(measured, 0.3)
    assert summary["error"] < 1e-12
    assert summary["rank_correlation"] == pytest.approx(0.8)  # one swap of neighbours
    measured["gradient"] = gradient * [1, 1.1, 1, 1]
    assert analysis.gradient_summary(measured, 0.3)["error"] == pytest.approx(0.1)


# --- Optimum, memory ----------------------------------------------------------------


def test_against_the_optimum_the_optimum_itself_is_perfect():
    found = laboratory.dpo_arm(seed=12, updates=1)
    against = analysis.against_optimum(found | {"policy": found["optimum"]}, 0.5)
    assert against["variation"] == 0 and against["correlation"] == pytest.approx(1)
    assert against["before"] > 0.1


def test_what_is_held_counts_weights_gradients_and_moments():
    policy, judge = torch.nn.Linear(10, 10, bias=False), torch.nn.Linear(10, 1, False)
    ours, theirs = analysis.training_memory(policy, judge)
    assert ours["held"] == 1 and theirs["held"] == 3
    assert ours["megabytes"] == pytest.approx(4 * 400 / 1e6)
    assert theirs["megabytes"] == pytest.approx((4 * 400 + 400 + 40) / 1e6)
