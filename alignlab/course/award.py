"""What a graded cell runs in place of the reader's `check`: the check as it is on disk,
whatever the notebook did before, and a share of the points where the reader's raises.

This is no wall: what a notebook does to torch or to Python itself still counts.
Notebooks of people whom one does not trust belong into a container (docs/teaching.md).
"""

import json
import sys
from collections.abc import Callable

import alignlab
from alignlab.course.checks import CheckResult, grade

# The notebook's own alignlab steps aside while the check is imported from disk, so that
# neither names in the notebook nor changed modules reach it. (Nbgrader could hide these
# lines from students, but warns at every cell in which it did.)
PREAMBLE = """\
# Loaded from disk once more, so that nothing above can have changed this check.
import sys

_own = {{name: sys.modules.pop(name) for name in [*sys.modules] if "alignlab" in name}}
from alignlab.course.award import {function}

sys.modules.update(_own)
check = {function}({argument!r})
"""


def graded(check: str, function: str, argument: object) -> str:
    """The source of a cell in which a check is graded.

    Args:
        check: the cell as readers have it, ``check("00.1", my_answer)``.
        function: the one below that makes the ``check`` which it calls.
        argument: what that is given.
    """
    return PREAMBLE.format(function=function, argument=argument) + check


def partial_credit(points: float) -> Callable[[str, Callable], float]:
    """A ``check`` that returns points: all of them for a right answer, otherwise in
    proportion to the cases that are right.

    Nbgrader takes a number on a cell's last line for the points of the cell.

    Args:
        points: those of a right answer.
    """
    fresh = fresh_grade()

    def check(exercise: str, answer: Callable) -> float:
        result = fresh(exercise, answer)
        _show(result)
        return round(points * result.score, 2)

    return check


def at_least(share: float) -> Callable[[str, Callable], bool | CheckResult]:
    """A ``check`` that returns True if this share of the cases is right, and otherwise
    the result, which says what is wrong: a test for otter-grader.

    Args:
        share: 0 to 1.
    """
    fresh = fresh_grade()

    def check(exercise: str, answer: Callable) -> bool | CheckResult:
        result = fresh(exercise, answer)
        return result.score >= share or result

    return check


def signed(token: str) -> Callable[[str, Callable], None]:
    """A ``check`` that prints the token and its result: a line that the cells before
    could not know, so that none of them can have written it.

    Args:
        token: a secret that was drawn for this one cell.
    """
    fresh = fresh_grade()

    def check(exercise: str, answer: Callable) -> None:
        result = fresh(exercise, answer)
        print(f"\n{token}{json.dumps(result.to_dict())}")

    return check


def fresh_grade() -> Callable[[str, Callable], CheckResult]:
    """The function ``grade`` among the modules that are loaded now, also when others
    have taken their places in the meantime."""
    ours = _loaded()

    def among_ours(exercise: str, answer: Callable) -> CheckResult:
        notebooks = _replace(ours)
        try:
            return grade(exercise, answer)
        finally:
            ours.update(_replace(notebooks))

    return among_ours


def _replace(modules: dict) -> dict:
    """Make these the loaded modules of alignlab; returns those that were."""
    before = _loaded()
    for name in before:
        del sys.modules[name]
    sys.modules.update(modules)
    return before


def _loaded() -> dict:
    """The modules of alignlab that are loaded, by name."""
    root = alignlab.__name__
    return {
        name: module
        for name, module in sys.modules.items()
        if name == root or name.startswith(f"{root}.")
    }


def _show(result: CheckResult) -> None:
    """The result's box as an output of its own, since the last line is for points."""
    ipython = sys.modules.get("IPython")
    if ipython and ipython.get_ipython():
        from IPython.display import display

        display(result)
