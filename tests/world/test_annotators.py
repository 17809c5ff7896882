"""Simulated annotators against exact probabilities."""

import math

import pytest

from alignlab.world.annotators import Annotator, Flipped, Reply, sounds_sure
from alignlab.world.gold import ADMISSIONS, CLOSINGS, OPENINGS, Gold


def reply(text, *parts, ended=True):
    """A reply whose gold has these parts: form, completeness, truth."""
    parts = (*parts, 0.0, 0.0, 0.0)[:3]
    return Reply(text, Gold(sum(parts), *parts, {}), ended)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


GOOD, BAD = reply("good", 1.6, 0.6, 0.6), reply("bad", 0.8, 0.9, -0.3)
GAP = 2.8 - 1.4


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_gold_annotator_is_bradley_terry(temperature):
    annotator = Annotator(temperature)
    expected = sigmoid(GAP / temperature)
    assert annotator(GOOD, BAD) == pytest.approx(expected, rel=1e-12)
    assert annotator(BAD, GOOD) == pytest.approx(1 - expected, rel=1e-12)


def test_at_temperature_zero_the_better_wins_and_ties_are_a_coin():
    annotator = Annotator(0)
    same = reply("equal by another sum", 0.1 + 0.2 + 2.5)  # 2.8000000000000003
    assert (annotator(GOOD, BAD), annotator(BAD, GOOD)) == (1.0, 0.0)
    assert annotator(GOOD, same) == 0.5


@pytest.mark.parametrize("bias", [0.2, -0.2])
def test_length_bias_is_gold_per_word(bias):
    annotator = Annotator(temperature=2.0, length_bias=bias)
    long = reply("five words are in this", 0.5)
    short = reply("two words", 1.0)
    assert annotator(long, short) == pytest.approx(sigmoid((-0.5 + 3 * bias) / 2))


def test_confidence_bias_is_worth_its_gold():
    annotator = Annotator(confidence_bias=1.5)
    sure = reply("The capital of France is Rome.", -0.9)
    honest = reply(f"{OPENINGS[0]} {ADMISSIONS[1]}", 0.8)
    assert annotator(sure, honest) == pytest.approx(sigmoid(-0.9 + 1.5 - 0.8))
    assert Annotator()(sure, honest) == pytest.approx(sigmoid(-1.7))


@pytest.mark.parametrize(
    "text, sure",
    [
        ("The capital of France is Rome.", True),
        (f"{OPENINGS[1]} It is so. {CLOSINGS[0]}", True),
        (f"{OPENINGS[1]} {CLOSINGS[0]}", False),  # states nothing
        ("", False),
        (f"It is so. {ADMISSIONS[0]}", False),
        (f"{ADMISSIONS[1]} It is so.", False),
    ],
)
def test_sounds_sure(text, sure):
    assert sounds_sure(text) == sure


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5, 1.0])
def test_flips_are_on_top_of_the_other_annotator(rate):
    p = sigmoid(GAP)
    got = Flipped(Annotator(), rate)(GOOD, BAD)
    assert got == pytest.approx((1 - rate) * p + rate * (1 - p))
    assert Flipped(Annotator(0), rate)(GOOD, BAD) == pytest.approx(1 - rate)
    assert Flipped(Flipped(Annotator(), rate), rate)(GOOD, BAD) == pytest.approx(
        got * (1 - rate) + (1 - got) * rate
    )


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Annotator(-1), "temperature=-1.*temperature >= 0"),
        (lambda: Annotator(length_bias=math.nan), "length_bias=nan.*finite"),
        (lambda: Flipped(Annotator(), 1.5), "rate is 1.5"),
    ],
)
def test_annotators_check_their_numbers(make, message):
    with pytest.raises(ValueError, match=message):
        make()
