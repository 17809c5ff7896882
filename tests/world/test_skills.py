"""The skills' answers, recomputed from the text of each input."""

import datetime
import re
from string import Formatter

import numpy as np
import pytest

from alignlab.world.skills import SKILLS, statements

WORDS = "zero one two three four five six seven eight nine ten".split()


def parts(x):
    return x.split(", ")


def numbers(x):
    return [int(n) for n in re.findall(r"\d+", x)]


def written_date(x):
    day = datetime.date.fromisoformat(x)
    return f"{day.day} {day:%B} {day.year}"


ORACLES = {
    "copy": lambda x: x,
    "first": lambda x: parts(x)[0],
    "second": lambda x: parts(x)[1],
    "last": lambda x: parts(x)[-1],
    "backwards": lambda x: ", ".join(parts(x)[::-1]),
    "count": lambda x: WORDS[x.count(",") + 1],
    "largest": lambda x: str(sorted(numbers(x))[-1]),
    "smallest": lambda x: str(sorted(numbers(x))[0]),
    "sorted": lambda x: ", ".join(sorted(parts(x), key=int)),
    "sum": lambda x: str(sum(numbers(x))),
    "next": lambda x: str(int(x) + 1),
    "parity": lambda x: "even" if x[-1] in "02468" else "odd",
    "date": written_date,
    "month": lambda x: f"{datetime.date(2000, int(x), 1):%B}",
}


@pytest.mark.parametrize("name", SKILLS)
def test_answers_are_right(name):
    rng = np.random.default_rng(0)
    for _ in range(300):
        x, answer = SKILLS[name].sample(rng)
        assert answer == ORACLES[name](x), x


@pytest.mark.parametrize(
    "name", ["copy", "first", "second", "last", "backwards", "count"]
)
def test_lists_hold_different_words(name):
    rng = np.random.default_rng(0)
    for _ in range(100):
        words = parts(SKILLS[name].sample(rng)[0])
        assert len(set(words)) == len(words) >= 2


@pytest.mark.parametrize("name", SKILLS)
def test_statements_hold_the_input_and_the_answer(name):
    for template in SKILLS[name].statements:
        fields = sorted(f for _, f, _, _ in Formatter().parse(template) if f)
        assert fields == ["a", "x"] and template.endswith(".")


def test_paragraphs_are_true_statements_of_one_skill():
    for paragraph in statements(300, seed=1):
        sentences = re.split(r"(?<=\.) ", paragraph)
        assert 1 <= len(sentences) <= 3
        assert any(all(_states(n, s) for s in sentences) for n in SKILLS), paragraph


def _states(name, sentence):
    """Whether the sentence states this skill, with the right answer."""
    for template in SKILLS[name].statements:
        pattern = re.escape(template).replace(r"\{x\}", "(?P<x>.+?)")
        match = re.fullmatch(pattern.replace(r"\{a\}", "(?P<a>.+)"), sentence)
        try:
            if match and ORACLES[name](match["x"]) == match["a"]:
                return True
        except (ValueError, IndexError):  # the words of another skill
            pass
    return False


def test_paragraphs_are_decided_by_the_seed():
    assert list(statements(20, 1)) == list(statements(20, 1))
    assert list(statements(20, 1)) != list(statements(20, 2))
