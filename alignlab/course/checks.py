"""The engine behind ``check``: answers are compared with the library's own.

A wrong answer is also compared with what common mistakes give, so that the message can
name the mistake. Each chapter's exercises.py holds its cases and known mistakes, its
experiments.py what a reader measures and explains.
"""

import functools
import html
import importlib
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path

import alignlab
from alignlab.course.diagnosis import Attempt, fault_of
from alignlab.course.exercise import Case, Exercise, Interpretation, Misfit, copied
from alignlab.course.experiment import ENTRIES, Experiment, graded_report
from alignlab.course.running import (
    Borrowed,
    Raised,
    Runner,
    capped_output,
    exception_at,
)
from alignlab.errors import AlignlabError

SOLUTION = "### BEGIN SOLUTION"


@dataclass(frozen=True)
class CheckResult:
    """What a check found: a box in a notebook, plain text in a terminal.

    ``right`` of the exercise's ``cases`` were right; where later cells need more than
    the values, such as a gradient, that is a case as well. ``hint`` is empty if the
    answer passed.
    """

    exercise: str
    passed: bool
    right: int
    cases: int
    message: str
    hint: str = ""

    @property
    def score(self) -> float:
        """The share of the cases that are right, 0 to 1: for partial credit."""
        return self.right / self.cases

    def to_dict(self) -> dict:
        return asdict(self)

    def __repr__(self) -> str:
        hint = f"\n  Hint: {self.hint}" if self.hint else ""
        return f"{self._mark} Exercise {self.exercise}: {self.message}{hint}"

    def _repr_html_(self) -> str:
        colour = "#2e7d32" if self.passed else "#c62828"
        hint = f"<br><em>Hint: {_as_html(self.hint)}</em>" if self.hint else ""
        return (
            f'<div style="border-left: 4px solid {colour}; padding: 0.5em 1em">'
            f'<strong style="color: {colour}">{self._mark} Exercise '
            f"{_as_html(self.exercise)}</strong><br>{_as_html(self.message)}{hint}</div>"
        )

    @property
    def _mark(self) -> str:
        return "\N{CHECK MARK}" if self.passed else "\N{BALLOT X}"


class CheckFailed(AssertionError):
    """A wrong answer; its ``result`` says what is wrong. In a notebook one line takes
    the place of the traceback, which would only show the inside of the check."""

    def __init__(self, result: CheckResult):
        super().__init__(str(result))
        self.result = result

    def _render_traceback_(self) -> list[str]:  # IPython asks for it
        return [f"CheckFailed: exercise {self.result.exercise}: {self.result.message}"]


def check(exercise: str, answer: Callable | dict) -> CheckResult:
    """Check an answer from a notebook cell: ``check("00.1", my_token_log_probs)``.

    The last line of a cell shows the result. A wrong answer also raises, so that
    nbgrader gives the cell no points and a headless run stops there.

    Args:
        exercise: the number in the exercise's heading.
        answer: the function itself, not what it returns; of an experiment the report.

    Raises:
        CheckFailed: an AssertionError with the message, if the answer is wrong.
        AlignlabError: if there is no such exercise, or a person grades it.
    """
    result = grade(exercise, answer)
    if not result.passed:
        if _is_shipped(answer):
            result = _blames_the_library(result)
        _show(result)
        raise CheckFailed(result)
    return result


def grade(exercise: str, answer: Callable | dict) -> CheckResult:
    """The result of ``check``, neither shown nor raised.

    Raises:
        AlignlabError: if there is no such exercise, or a person grades it.
    """
    task = find_exercise(exercise)
    if isinstance(task, Interpretation):
        raise AlignlabError(
            f"Exercise {exercise} is an interpretation: a person reads it.",
            "Write your answer below the question.",
        )
    hint = task.hints[0]
    if len(task.hints) > 1:
        hint += f' (More: `hint("{exercise}", 2)`.)'
    if isinstance(task, Experiment):
        right, message = graded_report(task, answer)
        passed, count = right == len(ENTRIES), len(ENTRIES)
        shown = "" if passed else hint
        return CheckResult(exercise, passed, right, count, message, shown)
    cases = task.cases()
    count = len(cases) + bool(task.also) + bool(task.tensor_for)
    if not callable(answer):
        name = task.call.partition("(")[0]
        message = (
            f'pass the function itself: check("{exercise}", {name}), not its value'
        )
        return CheckResult(exercise, False, 0, count, message, hint)
    run = Runner(answer, task.library, list(cases[0].args))
    with capped_output():
        right, fault = _graded(task, run, cases)
    if fault:
        return CheckResult(exercise, False, right, count, fault, hint)
    return CheckResult(exercise, True, count, count, f"Right: {task.praise}.")


def _is_shipped(answer: object) -> bool:
    """Whether an answer stands between the marks of a complete notebook's solution,
    which exercises do not have."""
    try:
        return SOLUTION in inspect.getsource(answer)
    except (OSError, TypeError):
        return False


def _blames_the_library(result: CheckResult) -> CheckResult:
    """The result of a solution that came with its notebook."""
    library = find_exercise(result.exercise).library
    named = " or ".join(f"`{name}`" for name in library) or "alignlab"
    message = (
        "the solution that comes with this notebook and the library no longer agree. "
        f"Unless the solution was edited, look for a change in {named}. What the check "
        f"says of the solution: {result.message}"
    )
    return replace(result, message=message, hint="")


def _graded(task: Exercise, run: Runner, cases: list[Case]) -> tuple[int, str]:
    """How many cases are right, and what is wrong ("" if nothing)."""
    tried = [try_case(task, run, case) for case in cases]
    right = sum(attempt.right for attempt in tried)
    if right < len(cases):
        borrowed = any(isinstance(attempt.fault, Borrowed) for attempt in tried)
        again = functools.partial(try_case, task, run)
        return 0 if borrowed else right, fault_of(task, tried, again)
    is_tensor = _all_tensors(tried)
    no_tensor = (
        f"right, but no tensor: {task.tensor_for}; `torch.tensor` or `torch.stack` "
        "makes one of numbers or of tensors"
    )
    also = _guarded(task.also, run) if task.also else ""
    right += (bool(task.also) and not also) + (bool(task.tensor_for) and is_tensor)
    return right, also or (no_tensor if task.tensor_for and not is_tensor else "")


def _all_tensors(tried: list[Attempt]) -> bool:
    import torch

    return all(issubclass(attempt.kind, torch.Tensor) for attempt in tried)


# --- Hints ------------------------------------------------------------------------


@dataclass(frozen=True)
class Hint:
    """One hint of an exercise: a box in a notebook, plain text in a terminal."""

    exercise: str
    stage: int
    stages: int
    text: str

    def __repr__(self) -> str:
        after = f'  Next: hint("{self.exercise}", {self.stage + 1})'
        more = f"\n{after}" if self.stage < self.stages else ""
        return f"Hint {self.stage} of {self.stages}, {self.exercise}: {self.text}{more}"

    def _repr_html_(self) -> str:
        return _as_html(repr(self)).replace("\n", "<br>")


def hint(exercise: str, stage: int = 1) -> Hint:
    """A hint for an exercise, one at a time: ``hint("03.2")``, then
    ``hint("03.2", 2)``. The first never holds the answer.

    Raises:
        AlignlabError: if there is no such exercise, or no such hint.
    """
    hints = find_exercise(exercise).hints
    if stage not in range(1, len(hints) + 1):
        raise AlignlabError(
            f"Exercise {exercise} has no hint {stage!r}.",
            f"It has {len(hints)}, from 1 on.",
        )
    return Hint(exercise, stage, len(hints), hints[stage - 1])


# --- Trying a case ----------------------------------------------------------------


def try_case(task: Exercise, run: Runner, case: Case) -> Attempt:
    """Call an answer on copies of a case's arguments and compare its output."""
    try:
        return _tried(task, run, case)
    except Misfit as misfit:
        return Attempt(case, fault=misfit)


def _tried(task: Exercise, run: Runner, case: Case) -> Attempt:
    given = copied(case.args)
    output = run(*given.values())
    if output is None:
        raise Misfit("returns nothing: is there a `return` on its last line?")
    for name, value in given.items():
        if not _same(value, case.args[name], _spared(task, name, case)):
            raise Misfit(
                f"changes its input: {name} is not what it was before the call; "
                "make a new tensor instead of writing into it"
            )
    try:
        with run.limited():
            numbers = task.read(output, **case.args)
    except (Misfit, KeyboardInterrupt):
        raise
    except BaseException:  # whatever an object does when it is made numbers
        raise Misfit(f"returns a {type(output).__name__} that is no numbers") from None
    right = task.is_right(numbers, case.expected)
    return Attempt(case, numbers, right, type(output))


def _spared(task: Exercise, name: str, case: Case):
    """Where an argument may be overwritten, or None."""
    return case.args["mask"] == 0 if name in task.padded else None


def _same(value, before, spared=None) -> bool:
    if not hasattr(value, "shape"):
        return value == before
    if value.shape != before.shape:
        return False
    same = value == before
    return bool((same if spared is None else same | spared).all())


def _guarded(also: Callable[[Callable], str], run: Runner) -> str:
    try:
        return also(run)
    except Raised as raised:
        return f"{raised}: the values are right, but not what comes after"
    except Misfit as misfit:
        return str(misfit)
    except Exception as error:  # of the gradient, which is not taken by the answer
        return f"{exception_at(error, also)} when its gradient is taken"


# --- Showing a result -------------------------------------------------------------


def _show(result: CheckResult) -> None:
    """A box, where there is a notebook to show it in."""
    ipython = sys.modules.get("IPython")
    if ipython and ipython.get_ipython():
        from IPython.display import display

        display(result)


def _as_html(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


# --- Finding the exercises --------------------------------------------------------


Task = Exercise | Experiment | Interpretation


@functools.cache
def all_exercises() -> dict[str, Task]:
    """The exercises of all chapters by number, in ascending order."""
    exercises: dict[str, Task] = {}
    folder = Path(alignlab.__file__).parent / "chapters"
    for name in ("exercises", "experiments"):
        for file in folder.glob(f"*/{name}.py"):
            module = f"alignlab.chapters.{file.parent.name}.{name}"
            exercises |= importlib.import_module(module).EXERCISES
    return dict(sorted(exercises.items()))


def find_exercise(number: str) -> Task:
    """The exercise with this number, such as "03.2".

    Raises:
        AlignlabError: if there is none; it suggests those with a similar number.
    """
    exercises = all_exercises()
    if number in exercises:
        return exercises[number]
    near = get_close_matches(str(number), exercises, n=2, cutoff=0.5)
    quoted = " or ".join(f'"{name}"' for name in near)
    suggestion = f"Did you mean {quoted}? " if near else ""
    raise AlignlabError(
        f"There is no exercise {number!r}.",
        f"{suggestion}There are {', '.join(exercises)}.",
    )
