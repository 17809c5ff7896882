"""The card of the family, against the optima that algebra gives."""

import math

import pytest

from alignlab.chapters.dpo import card


@pytest.mark.parametrize(
    ("name", "preferred", "expected"),
    [
        ("DPO", 0.8, 0.8),  # the odds of the labels
        ("DPO", 1.0, 1.0),  # an infinite margin
        ("cDPO", 0.8, 0.75 * 0.8 + 0.25 * 0.2),
        ("cDPO", 1.0, 0.75),
        ("IPO", 0.8, 1 / (1 + math.exp(-0.6 / 2))),  # a margin of (2p - 1)/2β
        ("IPO", 1.0, 1 / (1 + math.exp(-1 / 2))),
        ("SimPO", 1.0, 1.0),
    ],
)
def test_two_replies_end_where_algebra_says(name, preferred, expected):
    assert card.two_replies(name, preferred) == pytest.approx(expected, abs=1e-5)


def test_the_reference_shifts_dpo_by_its_own_odds():
    odds = 0.8 / 0.2 * 0.3 / 0.7
    expected = odds / (1 + odds)
    assert card.two_replies("DPO", 0.8, reference=0.3) == pytest.approx(expected)
    strong = card.two_replies("DPO", 0.8, beta=4.0)
    assert strong == pytest.approx(1 / (1 + 0.25 ** (1 / 4)))


def test_every_loss_has_a_row_and_no_label_moves_none():
    rows = card.table((0.5, 0.8))
    assert [row["loss"] for row in rows] == list(card.CARDS)
    for row in rows:
        assert row["50% prefer it"] == pytest.approx(0.5, abs=1e-5), row["loss"]
        assert row["asks for"] and "$" in row["of a pair"]
