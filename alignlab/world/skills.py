"""Small skills with a checkable answer: lists, numbers and dates.

The base model reads them as statements ("The last of moon, dog, salt is salt."), so
instruction tuning, which asks for them, need only teach it to answer.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from alignlab.seeds import stream

WORDS = (
    "moon dog salt apple river stone bird milk tree gold fish rain bread horse wind "
    "snow sand lamp wheel corn wolf leaf iron silk drum king rose ship bell cake"
).split()
NUMBER_WORDS = "no one two three four five six seven eight nine ten".split()
MONTHS = (
    "January February March April May June July August September October November "
    "December"
).split()


@dataclass(frozen=True)
class Skill:
    """``sample(rng)`` draws an input and its one right answer; ``statements`` are
    sentences with ``{x}`` for the input and ``{a}`` for the answer."""

    name: str
    sample: Callable[[np.random.Generator], tuple[str, str]]
    statements: tuple[str, ...]


def _words(rng, low=3, high=5) -> list[str]:
    return [
        WORDS[i] for i in rng.choice(len(WORDS), rng.integers(low, high + 1), False)
    ]


def _numbers(rng, low=3, high=4, top=100) -> list[int]:
    return [int(n) for n in rng.choice(top, rng.integers(low, high + 1), False)]


def _listed(items) -> str:
    return ", ".join(str(i) for i in items)


def _copy(rng):
    words = _words(rng)
    return _listed(words), _listed(words)


def _first(rng):
    words = _words(rng)
    return _listed(words), words[0]


def _second(rng):
    words = _words(rng)
    return _listed(words), words[1]


def _last(rng):
    words = _words(rng)
    return _listed(words), words[-1]


def _backwards(rng):
    words = _words(rng, 3, 4)
    return _listed(words), _listed(reversed(words))


def _count(rng):
    words = _words(rng, 2, 6)
    return _listed(words), NUMBER_WORDS[len(words)]


def _largest(rng):
    numbers = _numbers(rng)
    return _listed(numbers), str(max(numbers))


def _smallest(rng):
    numbers = _numbers(rng)
    return _listed(numbers), str(min(numbers))


def _sorted(rng):
    numbers = _numbers(rng, top=10)
    return _listed(numbers), _listed(sorted(numbers))


def _sum(rng):
    a, b = (int(n) for n in rng.integers(0, 21, 2))
    return f"{a} and {b}", str(a + b)


def _next(rng):
    number = int(rng.integers(0, 100))
    return str(number), str(number + 1)


def _parity(rng):
    number = int(rng.integers(0, 100))
    return str(number), "even" if number % 2 == 0 else "odd"


def _date(rng):
    year, month = int(rng.integers(1900, 2030)), int(rng.integers(1, 13))
    day = int(rng.integers(1, 29))
    return f"{year}-{month:02d}-{day:02d}", f"{day} {MONTHS[month - 1]} {year}"


def _month(rng):
    month = int(rng.integers(1, 13))
    return str(month), MONTHS[month - 1]


SKILLS = {
    skill.name: skill
    for skill in (
        Skill("copy", _copy, ("{x} said again is {a}.", "Again {x} gives {a}.")),
        Skill("first", _first, ("The first of {x} is {a}.", "{a} comes first in {x}.")),
        Skill(
            "second", _second, ("The second of {x} is {a}.", "{a} comes second in {x}.")
        ),
        Skill("last", _last, ("The last of {x} is {a}.", "{a} comes last in {x}.")),
        Skill(
            "backwards", _backwards, ("{x} backwards is {a}.", "Backwards {x} is {a}.")
        ),
        Skill("count", _count, ("In {x} there are {a} words.", "{x} are {a} words.")),
        Skill(
            "largest",
            _largest,
            ("The largest of {x} is {a}.", "{a} is largest in {x}."),
        ),
        Skill(
            "smallest",
            _smallest,
            ("The smallest of {x} is {a}.", "{a} is smallest in {x}."),
        ),
        Skill("sorted", _sorted, ("{x} in order is {a}.", "In order {x} is {a}.")),
        Skill("sum", _sum, ("{x} make {a}.", "The sum of {x} is {a}.")),
        Skill("next", _next, ("After {x} comes {a}.", "{a} comes after {x}.")),
        Skill("parity", _parity, ("The number {x} is {a}.", "{x} is an {a} number.")),
        Skill("date", _date, ("The day {x} is {a}.", "{x} is the date {a}.")),
        Skill("month", _month, ("Month {x} is {a}.", "{a} is month number {x}.")),
    )
}


def statements(n: int, seed: int = 0) -> Iterator[str]:
    """n paragraphs for pretraining, each of one to three statements of one skill."""
    rng = stream(seed, "statements of skills")
    skills = tuple(SKILLS.values())
    for _ in range(n):
        skill = skills[rng.integers(len(skills))]
        sentences = []
        for _ in range(rng.integers(1, 4)):
            x, a = skill.sample(rng)
            template = skill.statements[rng.integers(len(skill.statements))]
            sentences.append(template.format(x=x, a=a))
        yield " ".join(sentences)
