"""Ceilings and floors, by enumeration of every label and against other forecasts."""

import math
from itertools import product

import numpy as np
import pytest

from alignlab.world.ceilings import (
    accuracy_ceiling,
    brier_floor,
    gold_order_accuracy,
    label_agreement,
    nll_floor,
)


def test_ceilings_are_what_the_best_forecaster_gets_by_enumeration():
    p = np.random.default_rng(0).uniform(size=7)
    p[0] = 1.0
    accuracy = brier = nll = agreement = wrong_floor = 0.0
    for labels in product([0, 1], repeat=len(p)):
        y = np.array(labels)
        chance = np.prod(np.where(y, p, 1 - p))
        accuracy += chance * np.mean((p > 0.5) == y)
        brier += chance * np.mean((p - y) ** 2)
        if chance:
            nll -= chance * np.mean(np.log(np.where(y, p, 1 - p)))
        agreement += chance * np.mean(np.where(y, p, 1 - p))
        wrong_floor += chance * np.mean(np.minimum(p**2, (1 - p) ** 2))
    assert accuracy_ceiling(p) == pytest.approx(accuracy, rel=1e-12)
    assert brier_floor(p) == pytest.approx(brier, rel=1e-12)
    assert nll_floor(p) == pytest.approx(nll, rel=1e-12)
    assert label_agreement(p) == pytest.approx(agreement, rel=1e-12)
    assert brier > 1.2 * wrong_floor  # E[min(p², (1-p)²)] is below every forecaster


def test_no_other_forecast_does_better_than_the_floors():
    p = np.random.default_rng(1).uniform(size=50)
    for q in (p + 0.03, p - 0.03, 0.9 * p + 0.05, np.full(50, 0.5)):
        q = q.clip(1e-6, 1 - 1e-6)
        assert np.mean(p * (1 - q) ** 2 + (1 - p) * q**2) > brier_floor(p)
        assert -np.mean(p * np.log(q) + (1 - p) * np.log(1 - q)) > nll_floor(p)


def test_ceilings_at_the_ends_and_their_symmetry():
    coin, sure = np.full(3, 0.5), np.array([0.0, 1.0])
    assert (accuracy_ceiling(coin), accuracy_ceiling(sure)) == (0.5, 1.0)
    assert (brier_floor(coin), brier_floor(sure)) == (0.25, 0.0)
    assert nll_floor(coin) == pytest.approx(math.log(2)) and nll_floor(sure) == 0.0
    assert (label_agreement(coin), label_agreement(sure)) == (0.5, 1.0)
    p = np.random.default_rng(2).uniform(size=20)
    for measure in (accuracy_ceiling, brier_floor, nll_floor, label_agreement):
        assert measure(p) == pytest.approx(measure(1 - p), rel=1e-12)


@pytest.mark.parametrize("p", [[], [0.5, math.nan], [1.2], [-0.1], [[0.5]], 0.5])
@pytest.mark.parametrize(
    "measure", [accuracy_ceiling, brier_floor, nll_floor, label_agreement]
)
def test_ceilings_check_probabilities(measure, p):
    with pytest.raises(ValueError, match="probability has shape"):
        measure(p)


def test_gold_order_accuracy_by_hand():
    golds = [(1, 0), (1, 0), (0, 1), (1, 1)]  # the last is a tie, and left out
    pairs = [{"gold_chosen": a, "gold_rejected": b} for a, b in golds]
    assert gold_order_accuracy(pairs, [3.0, -1.0, -0.5, 9.0]) == pytest.approx(2 / 3)
    assert gold_order_accuracy(pairs, np.zeros(4)) == 0.5
    for bad in ([1.0], [1.0, math.nan, 0, 0], np.ones((4, 1))):
        with pytest.raises(ValueError, match="differences have shape"):
            gold_order_accuracy(pairs, bad)
    with pytest.raises(ValueError, match="all 1 are of equal gold"):
        gold_order_accuracy(pairs[3:], [1.0])
