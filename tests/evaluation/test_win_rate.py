"""Win rates: ties are halves, a judge who likes the first place wins nothing by it."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from alignlab.evaluation.intervals import t_interval
from alignlab.evaluation.win_rate import (
    WinRate,
    judge_both_orders,
    over_seeds,
    win_rate,
)


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


def test_the_interval_is_wilsons():
    found = WinRate(wins=14, ties=4, losses=22).interval()
    n, p, z = 40, 0.4, norm.ppf(0.975)
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert found == pytest.approx((p, middle - half, middle + half))
    assert WinRate(3, 0, 0).interval().low > 0.4


def test_over_seeds_policies_are_the_unit():
    rates = [WinRate(3, 0, 1), WinRate(2, 2, 0), WinRate(1, 0, 3)]
    assert over_seeds(rates) == t_interval([0.75, 0.75, 0.25])
    assert over_seeds(rates[:1]).low == -math.inf


PROMPTS, LONG, SHORT = ["p"] * 4, ["long"] * 4, ["s"] * 4


def test_a_judge_of_replies_is_consistent():
    found = judge_both_orders(
        lambda p, a, b: 0.9 if len(a) > len(b) else 0.1, PROMPTS, LONG, SHORT
    )
    assert found.win_rate == WinRate(4, 0, 0)
    assert found.consistency == 1 and found.first_place == 0.5
    lost = judge_both_orders(
        lambda p, a, b: 0.9 if len(a) > len(b) else 0.1, PROMPTS, SHORT, LONG
    )
    assert lost.win_rate == WinRate(0, 0, 4)


def test_a_judge_of_places_gives_ties():
    found = judge_both_orders(lambda p, a, b: 0.8, PROMPTS, LONG, SHORT)
    assert found.win_rate == WinRate(0, 4, 0)
    assert found.consistency == 0 and found.first_place == 1
    last = judge_both_orders(lambda p, a, b: 0.2, PROMPTS, LONG, SHORT)
    assert last.first_place == 0


def test_a_tie_in_one_order_leaves_the_other_to_decide():
    def judge(prompt, a, b):
        return 0.5 if a == "long" else 0.1

    found = judge_both_orders(judge, PROMPTS, LONG, SHORT)
    assert found.win_rate == WinRate(4, 0, 0) and found.consistency == 0
    assert found.first_place == pytest.approx((0.5 + 0) / 2)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="as many finite scores"):
        win_rate([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="as many finite scores"):
        win_rate([math.nan], [1.0])
    with pytest.raises(ValueError, match="not all of them 0"):
        win_rate([], [])
    with pytest.raises(ValueError, match="2 prompts with 1 and 2 replies"):
        judge_both_orders(lambda *_: 1.0, ["p", "q"], ["a"], ["a", "b"])
