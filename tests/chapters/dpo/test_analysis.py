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


def run(seed, *points, stopped=None):
    return {"chain": {"seed": seed}, "points": list(points), "stopped": stopped}


START_OF = {0: START[0], 1: START[1]}


def test_areas_are_mean_gains_over_the_reference_of_the_same_seed():
    rows = [run(0, point(2.5, [5.0, 5.0, 7.0, 7.0])), run(1, point(5, [6.0] * 4))]
    found = analysis.areas(rows, START_OF)
    # From 0 to 2.5 nats: a straight line to +4, and one to +2 (half of the way to 5).
    assert found == {0: pytest.approx(2.0), 1: pytest.approx(1.0)}
    lines = analysis.envelopes(rows, START_OF)
    assert all(line[0] == pytest.approx(0) for line in lines.values())
    stopped = [run(0, stopped="the loss is inf"), rows[1]]
    assert analysis.areas(stopped, START_OF) == {0: pytest.approx(0), 1: found[1]}
    assert set(analysis.areas(rows[:1], START_OF)) == {0}, "no run, no area"


def test_differences_are_seed_by_seed():
    areas = {"a": {0: 1.0, 1: 5.0}, "b": {1: 2.0, 0: 1.5}, "c": {0: 0.0, 1: 2.5, 2: 9}}
    assert analysis.difference(areas["a"], areas["b"]) == [-0.5, 3.0]
    assert analysis.difference(areas["c"], areas["a"]) == [-1.0, -2.5]


# --- At one distance ----------------------------------------------------------------


def test_gold_at_a_distance_lies_between_two_looks_or_is_the_last():
    row = run(1, point(0.5, [3.0] * 4), point(2.5, [7.0] * 4))
    assert analysis.golds_at(row, START_OF, 0.25) == pytest.approx([0.5] * 4)
    assert analysis.golds_at(row, START_OF, 1.5) == pytest.approx([3.0] * 4)
    assert analysis.golds_at(row, START_OF, 9.0) == pytest.approx([5.0] * 4)
    assert analysis.gains_at([row], START_OF) == {1: pytest.approx(2.0)}
    back = run(1, point(2.0, [4.0] * 4), point(1.0, [0.0] * 4))
    assert analysis.golds_at(back, START_OF, 1.0) == pytest.approx([1.0] * 4), (
        "a run that comes back nearer counts on its way out"
    )


def test_the_spread_of_equal_methods_is_nothing_on_average():
    random = np.random.default_rng(5)
    start = {0: point(0, [0.0] * 60)}
    spreads = [
        analysis.spread(
            {
                str(i): [run(0, point(1, random.normal(size=60).tolist()))]
                for i in range(7)
            },
            start,
        )[0]
        for _ in range(200)
    ]
    assert abs(np.mean(spreads)) < 3 * np.std(spreads) / math.sqrt(200)
    apart = {str(i): [run(0, point(1, [float(i)] * 60))] for i in range(3)}
    assert analysis.spread(apart, start) == {0: 2.0}


# --- What it costs ------------------------------------------------------------------


def test_seconds_to_a_gain_are_read_between_looks():
    seconds, gained = np.array([10.0, 20.0, 40.0]), np.array([0.0, 0.1, 0.5])
    assert analysis.seconds_to(0.3, seconds, gained) == pytest.approx(30)
    assert analysis.seconds_to(0.05, seconds, gained) == pytest.approx(15)
    assert analysis.seconds_to(0.6, seconds, gained) == math.inf


def test_the_best_run_is_picked_on_even_subjects_and_read_on_odd_ones():
    first = run(1, point(1, [9.0, 0.0, 9.0, 0.0], seconds=3.0))
    other = run(1, point(1, [0.0, 9.0, 0.0, 9.0], seconds=4.0))
    far = run(1, point(9, [99.0] * 4, seconds=5.0))
    assert analysis.best_run([other, first, far], START_OF, 1) is first
    seconds, gained = analysis.gold_by_seconds(first, START_OF, before=7.0)
    assert seconds.tolist() == [7, 10] and gained.tolist() == [0, -2]
    assert analysis.run_seconds([first, other]) == {1: 3.5}


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
