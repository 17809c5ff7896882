"""The filter of generated pairs: each of its rules, and what it cannot see."""

import pytest

from alignlab.chapters.instruction_tuning.pair_filter import (
    is_right_pair,
    mentions,
    reason_to_drop,
    without,
)
from alignlab.world.facts import RELATIONS, Fact, World

STATEMENT = "Bamako is the capital of Mali."
GOOD = ("Which city is the capital of Mali?", "Bamako")


@pytest.fixture
def world():
    facts = []
    for name, capital, money in (("Mali", "Bamako", "franc"), ("Peru", "Lima", "sol")):
        facts.append(Fact(name, "capital", (capital,), 300, (capital,)))
        facts.append(Fact(name, "currency", (money,), 280, (money,)))
    return World(tuple(facts), RELATIONS, 0)


def test_a_good_pair_passes():
    assert reason_to_drop(STATEMENT, "Mali", *GOOD) == ""
    assert (
        reason_to_drop(STATEMENT, "Mali", "Name the capital of Mali.", "Bamako") == ""
    )


@pytest.mark.parametrize(
    ("reason", "question", "answer"),
    [
        ("unparsed", "", ""),
        (
            "too_long",
            "What is the capital of Mali" + ", and of Mali" * 5 + "?",
            "Bamako",
        ),
        ("too_long", GOOD[0], "Bamako or one of the others"),
        ("not_an_instruction", "The capital of Mali.", "Bamako"),
        ("subject_missing", "Which city is the capital of Malta?", "Bamako"),
        ("answer_in_question", "Is Bamako the capital of Mali?", "Bamako"),
        ("answer_not_in_statement", GOOD[0], "Lima"),
        ("answer_not_in_statement", GOOD[0], "Bama"),
        ("off_topic", "What is the money of Mali?", "Bamako"),
    ],
)
def test_each_rule_drops_what_it_should(reason, question, answer):
    assert reason_to_drop(STATEMENT, "Mali", question, answer) == reason


def test_a_question_kept_before_is_a_duplicate():
    kept = {"which city is the capital of mali?"}
    assert reason_to_drop(STATEMENT, "Mali", *GOOD, kept) == "duplicate"
    shouted = (GOOD[0].replace("city ", "City  "), GOOD[1])
    assert reason_to_drop(STATEMENT, "Mali", *shouted, kept) == "duplicate"


def test_names_inside_longer_names_do_not_count():
    text = "Guinea-Bissau is next to Nigeria."
    assert not mentions(text, "Guinea")
    assert not mentions(text, "Bissau")
    assert not mentions(text, "Niger")
    assert mentions(text, "Guinea-Bissau")
    assert "continent" in without("the continent of tin", "tin")


def test_right_needs_the_fact_that_is_asked_for(world):
    assert not is_right_pair(world, "Mali", "What is the money of Mali?", "Bamako")
    assert not is_right_pair(world, "Mali", "What is the capital of Peru?", "Bamako")
    assert not is_right_pair(world, "Mali", "What is Mali?", "Bamako")
    assert is_right_pair(world, "Mali", "Say the currency that Mali has.", "franc")
