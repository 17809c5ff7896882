"""Win rates: ties are half a win, and policies are the unit of replication."""

import math

import numpy as np
import pytest

from alignlab.evaluation.intervals import t_interval
from alignlab.evaluation.win_rate import WinRate, over_seeds, win_rate


def test_ties_are_half_a_win():
    found = win_rate([1, 2, 3, 4], [1, 1, 1, 9])
    assert found == WinRate(wins=2, ties=1, losses=1)
    assert found.rate == 2.5 / 4
    assert win_rate([1, 2, 3, 4], [1, 1, 1, 9], tie=1.5).ties == 2


def test_the_two_sides_add_up_to_one():
    first, second = np.random.default_rng(0).integers(0, 4, size=(2, 5, 30))
    one, other = win_rate(first, second), win_rate(second, first)
    assert one.rate + other.rate == pytest.approx(1)
    assert (one.wins, one.ties) == (other.losses, other.ties) and one.ties > 0


def test_sums_in_another_order_are_a_tie():
    assert win_rate([0.1 + 0.2], [0.3]).ties == 1


def test_over_seeds_policies_are_the_unit():
    rates = [WinRate(3, 0, 1), WinRate(2, 2, 0), WinRate(1, 0, 3)]
    assert over_seeds(rates) == t_interval([0.75, 0.75, 0.25])
    assert over_seeds(rates[:1]).low == -math.inf


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="equal shapes and finite"):
        win_rate([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="equal shapes and finite"):
        win_rate([math.nan], [1.0])
    with pytest.raises(ValueError, match="not all 0"):
        win_rate([], [])
