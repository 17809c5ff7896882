"""What a graded cell runs in place of the reader's `check`: the same check in a Python
of its own (see grading.py), and a share of the points where the reader's raises.

A cell runs this file by its path, so that nothing the notebook did before counts. That
is no wall: notebooks of people whom one does not trust belong into a container
(docs/teaching.md).
"""

import json
import runpy
from collections.abc import Callable
from pathlib import Path

PREAMBLE = """\
# Graded in a Python of its own, so that nothing above can have changed this check.
import runpy

import alignlab

award = runpy.run_path(f"{{alignlab.__path__[0]}}/course/award.py")
check = award["{kind}"]({argument!r})
"""

grade = runpy.run_path(str(Path(__file__).with_name("grading.py")))["grade"]


def graded(check: str, kind: str, argument: object) -> str:
    """The source of a cell in which a check is graded.

    Args:
        check: the cell as readers have it, ``check("00.1", my_answer)``.
        kind: the function below that makes the ``check`` which it calls.
        argument: what that is given.
    """
    return PREAMBLE.format(kind=kind, argument=argument) + check


def partial_credit(points: float) -> Callable[[str, Callable], float]:
    """A ``check`` that returns points: all of them for a right answer, otherwise in
    proportion to the cases that are right.

    Nbgrader takes a number on a cell's last line for the points of the cell.

    Args:
        points: those of a right answer.
    """

    def check(exercise: str, answer: Callable) -> float:
        result = grade(exercise, answer)
        print(as_shown(result))
        return round(points * result["score"], 2)

    return check


def signed(token: str) -> Callable[[str, Callable], None]:
    """A ``check`` that prints the token and its result: a line that the cells before
    could not know, so that none of them can have written it.

    Args:
        token: a secret that was drawn for this one cell.
    """

    def check(exercise: str, answer: Callable) -> None:
        print(f"\n{token}{json.dumps(grade(exercise, answer))}")

    return check


def as_shown(result: dict) -> str:
    """A result as the check of a notebook shows it."""
    mark = "\N{CHECK MARK}" if result["passed"] else "\N{BALLOT X}"
    hint = f"\n  Hint: {result['hint']}" if result["hint"] else ""
    return f"{mark} Exercise {result['exercise']}: {result['message']}{hint}"
