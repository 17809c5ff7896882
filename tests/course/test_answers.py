"""Right answers in many styles pass every check, and wrong ones fail under the name of
their mistake: the tables are in tests/course/answers, a file for each chapter.
"""

from importlib import import_module

import pytest

from alignlab.course.checks import all_exercises, grade
from alignlab.course.exercise import Exercise, Interpretation

NAMES = [*(f"ch{n:02d}" for n in range(10)), "experiments"]
CHAPTERS = [import_module(f"tests.course.answers.{name}") for name in NAMES]
RIGHT = {number: table for c in CHAPTERS for number, table in c.RIGHT.items()}
WRONG = {number: table for c in CHAPTERS for number, table in c.WRONG.items()}
UNNAMED = "not the right values"  # what a message begins with that names no mistake
STYLES, MUTANTS, NAMED = 6, 15, 0.9


def mutants(number: str) -> list:
    """The wrong answers to an exercise, each with what its message begins with."""
    return [(name, x) for name, answers in WRONG[number].items() for x in answers]


def checked() -> dict[str, object]:
    """The exercises that a program can check."""
    return {
        number: task
        for number, task in all_exercises().items()
        if not isinstance(task, Interpretation)
    }


def known_mistakes(task: Exercise) -> set[str]:
    return {m.partition(":")[0] for case in task.cases() for m in task.mistakes(case)}


@pytest.mark.parametrize("number", RIGHT)
def test_right_answers_pass_in_any_style(number):
    assert len(RIGHT[number]) >= STYLES
    results = {style: grade(number, answer) for style, answer in RIGHT[number].items()}
    refused = {style: r.message for style, r in results.items() if not r.passed}
    assert not refused
    assert all(r.score == 1 and not r.hint for r in results.values())
    assert all(r.message.startswith("Right: ") for r in results.values())


@pytest.mark.parametrize("number", WRONG)
def test_wrong_answers_fail_under_the_name_of_their_mistake(number):
    assert len(mutants(number)) >= MUTANTS
    faults = []
    for name, answer in mutants(number):
        result = grade(number, answer)
        if result.passed or result.score == 1 or not result.hint:
            faults.append(f"{name}: passes")
        elif not result.message.startswith(name):
            faults.append(f"{name}: the message is {result.message!r}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "number", [n for n, task in checked().items() if isinstance(task, Exercise)]
)
def test_every_known_mistake_has_a_wrong_answer_that_makes_it(number):
    untested = {
        known
        for known in known_mistakes(all_exercises()[number])
        if not any(known.startswith(name.partition(":")[0]) for name in WRONG[number])
    }
    assert not untested


def test_the_shares_that_are_accepted_rejected_and_named():
    """Read them with ``pytest -s``."""
    rows = []
    for number in checked():
        wrong = mutants(number)
        named = sum(name != UNNAMED for name, _ in wrong)
        rows.append((number, len(RIGHT[number]), len(wrong), named))
    print(f"\n{'exercise':>8} {'right':>6} {'wrong':>6} {'named':>6}")
    for number, right, wrong, named in rows:
        print(f"{number:>8} {right:>6} {wrong:>6} {named / wrong:>6.0%}")
    _, right, wrong, named = map(sum, zip(*((0, *row[1:]) for row in rows)))
    print(f"{'all':>8} {right:>6} {wrong:>6} {named / wrong:>6.1%}")
    assert all(named / wrong >= NAMED for _, _, wrong, named in rows)


def test_every_exercise_has_its_tables():
    assert set(RIGHT) == set(WRONG) == set(checked())
