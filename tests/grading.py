"""What tests of the exercises' checks share: right answers pass, and every mistake that
a check knows has an answer that makes it."""

import itertools

import pytest

from alignlab.course.checks import grade


def as_params(table):
    """The answers of a table, {exercise: {mistake: answers}}, each as a parameter."""
    return [
        pytest.param(number, name, answer, id=f"{number} {name} {index}")
        for number, mistakes in table.items()
        for name, answers in mistakes.items()
        for index, answer in enumerate(answers)
    ]


def stub(*args):
    raise NotImplementedError()


def passes(number, answer):
    result = grade(number, answer)
    assert result.passed and result.score == 1, result
    assert result.message.startswith("Right: ") and not result.hint


def fails_by_name(number, name, answer):
    result = grade(number, answer)
    assert not result.passed and 0 <= result.score < 1 and result.hint
    assert result.message.startswith(name), result.message


def covers(references, table, exercises):
    """Every exercise has references and a stub's message, and every known mistake of
    every case is in the table."""
    assert {number for number, _ in references} == set(exercises) == set(table)
    for number, task in exercises.items():
        unanswered = grade(number, stub)
        assert unanswered.message.startswith("not answered yet: write my_")
        assert not unanswered.passed and unanswered.score == 0
        assert len(table[number]) >= 4
        known = {
            message.partition(":")[0]
            for case in task.cases()
            for message in task.mistakes(case)
        }
        tested = {name.partition(":")[0] for name in table[number]}
        assert all(any(k.startswith(name) for name in tested) for k in known)


def tells_mistakes_apart(exercises):
    """No two known mistakes of an exercise give the same outputs in all its cases."""
    for number, task in exercises.items():
        tables = [table for case in task.cases() if (table := task.mistakes(case))]
        for one, other in itertools.permutations(tables[0], 2):
            assert not all(
                task.agrees(table[one][0], table[other][0])
                for table in tables
                if one in table and other in table
            ), (number, one, other)
