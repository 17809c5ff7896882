"""The engine behind ``check``: answers are compared with the library's own.

A wrong answer is also compared with what common mistakes give, so that the message can
name the mistake. Each chapter's exercises.py holds its cases and known mistakes.
"""

import functools
import html
import importlib
import math
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import alignlab
from alignlab.errors import AlignlabError

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-5  # of the right answer's mean size: float32 passes, zeros never do


@dataclass(frozen=True)
class CheckResult:
    """What a check found: a box in a notebook, plain text in a terminal.

    ``score`` is the share of the exercise's cases that the answer got right, 0 to 1;
    ``hint`` is empty if it got all of them.
    """

    exercise: str
    passed: bool
    score: float
    message: str
    hint: str = ""

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


def check(exercise: str, answer: Callable) -> CheckResult:
    """Check an answer from a notebook cell: ``check("00.1", my_token_log_probs)``.

    The last line of a cell shows the result. A wrong answer also raises, so that
    nbgrader gives the cell no points and a headless run stops there.

    Args:
        exercise: the number in the exercise's heading.
        answer: the function itself, not what it returns.

    Raises:
        CheckFailed: an AssertionError with the message, if the answer is wrong.
        AlignlabError: if there is no such exercise.
    """
    result = grade(exercise, answer)
    if not result.passed:
        _show(result)
        raise CheckFailed(result)
    return result


def grade(exercise: str, answer: Callable) -> CheckResult:
    """The result of ``check``, neither shown nor raised.

    Raises:
        AlignlabError: if there is no such exercise.
    """
    task = find_exercise(exercise)
    if not callable(answer):
        name = task.call.partition("(")[0]
        message = (
            f'pass the function itself: check("{exercise}", {name}), not its value'
        )
        return CheckResult(exercise, False, 0.0, message, task.hint)
    tried = [try_case(task, answer, case) for case in task.cases()]
    right = [attempt.right for attempt in tried]
    fault = "" if all(right) else _fault(task, tried)
    if task.also:
        fault = fault or _guarded(task.also, answer)
        right.append(not fault)
    if all(right):
        return CheckResult(exercise, True, 1.0, f"Right: {task.praise}.")
    return CheckResult(exercise, False, sum(right) / len(right), fault, task.hint)


# --- Running an answer ------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """Arguments in the order of the signature, and the right output."""

    args: dict[str, Any]
    expected: "Tensor"


@dataclass(frozen=True)
class Attempt:
    """An answer's output for a case, or why there is none to compare."""

    case: Case
    output: "Tensor | None" = None
    right: bool = False
    unanswered: bool = False
    misfit: str = ""  # why it is not the kind of thing that the exercise wants
    raised: str = ""


class Misfit(Exception):
    """An output that is not the kind of thing the exercise wants; says why."""


def try_case(task: "Exercise", answer: Callable, case: Case) -> Attempt:
    """Call an answer on copies of a case's arguments and compare its output."""
    given = {name: _copy(value) for name, value in case.args.items()}
    try:
        output = answer(*given.values())
    except NotImplementedError:
        return Attempt(case, unanswered=True)
    except Exception as error:
        return Attempt(case, raised=f"{_where(error, answer)}, with {_sizes(given)}")
    try:
        if output is None:
            raise Misfit("returns nothing: is there a `return` on its last line?")
        for name, value in given.items():
            if not _same(value, case.args[name]):
                raise Misfit(
                    f"changes its input: {name} is not what it was before the call; "
                    "make a new tensor instead of writing into it"
                )
        output = task.read(output, **case.args)
    except Misfit as misfit:
        return Attempt(case, misfit=str(misfit))
    return Attempt(case, output, right=task.agrees(output, case.expected))


def _fault(task: "Exercise", tried: list[Attempt]) -> str:
    """The most helpful message about attempts of which at least one is wrong."""
    if any(attempt.unanswered for attempt in tried):
        return f"not answered yet: write {task.call}, then run the check again"
    given = [attempt for attempt in tried if attempt.output is not None]
    misfits = [attempt.misfit for attempt in tried if attempt.misfit]
    raised = [attempt.raised for attempt in tried if attempt.raised]
    wrong = [attempt for attempt in given if not attempt.right]
    mistake = _mistake(task, given) if wrong else ""
    if misfits or mistake or raised:
        return (misfits or [mistake] * bool(mistake) or raised)[0]
    return _difference(wrong[0])


def _mistake(task: "Exercise", given: list[Attempt]) -> str:
    """The first known mistake that explains all outputs of the cases it applies to."""
    tables = [task.mistakes(attempt.case) for attempt in given]
    for message in dict.fromkeys(message for table in tables for message in table):
        if all(
            any(task.agrees(attempt.output, wrong) for wrong in table[message])
            for attempt, table in zip(given, tables)
            if message in table
        ):
            return message
    return ""


def _difference(attempt: Attempt) -> str:
    import torch

    got, expected = attempt.output, attempt.case.expected
    error = (got - expected).abs().nan_to_num(nan=math.inf)
    place = [int(i) for i in torch.unravel_index(error.argmax(), error.shape)]
    at = f" at {place}" if place else ""
    return (
        f"not the right values: {got[tuple(place)]:.4g} where "
        f"{expected[tuple(place)]:.4g} is right{at}, with {_sizes(attempt.case.args)}"
    )


def _guarded(also: Callable[[Callable], str], answer: Callable) -> str:
    try:
        return also(answer)
    except Exception as error:
        return _where(error, answer)


def _where(error: Exception, answer: Callable) -> str:
    """The exception, and the line of the answer that raised it."""
    text = f"raised {type(error).__name__}: {error}"
    file = getattr(getattr(answer, "__code__", None), "co_filename", None)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == file]
    return f"{text} in line {own[-1].lineno}: `{own[-1].line}`" if own else text


def _sizes(args: Mapping[str, Any]) -> str:
    """Shapes and types of tensors, values of numbers and collections."""

    def size(value) -> str:
        if hasattr(value, "shape"):
            return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
        return str(value) if isinstance(value, (int, float, dict, list)) else "given"

    return ", ".join(f"{name} {size(value)}" for name, value in args.items())


def _copy(value):
    if hasattr(value, "clone"):
        return value.clone()
    return value.copy() if isinstance(value, (dict, list)) else value


def _same(value, before) -> bool:
    if hasattr(value, "shape"):
        return value.shape == before.shape and bool((value == before).all())
    return value == before


def close(got: "Tensor", expected: "Tensor") -> bool:
    """Whether values agree up to ``TOLERANCE`` of the expected values' mean size; NaN
    never agrees."""
    return bool((got - expected).abs().max() <= TOLERANCE * expected.abs().mean())


def tensor(output, shape: tuple, notes: Mapping[tuple, str] | None = None) -> "Tensor":
    """The output as float64 numbers of this shape.

    Raises:
        Misfit: if it has another shape, in the words that ``notes`` has for it, or is
            no numbers at all.
    """
    import torch

    try:
        numbers = torch.as_tensor(output).detach().to(torch.float64)
    except (TypeError, ValueError, RuntimeError):
        kind = type(output).__name__
        message = f"returns a {kind}; it must return numbers of shape {shape}"
        raise Misfit(message) from None
    if numbers.shape != shape:
        found = tuple(numbers.shape)
        note = (notes or {}).get(found, f"returns shape {found}, not {shape}")
        raise Misfit(note)
    return numbers


def scalar(output, shapes: Iterable[tuple], advice: str = "") -> "Tensor":
    """The output as one number; ``shapes`` are those of numbers not yet reduced, and
    ``advice`` says how to reduce them.

    Raises:
        Misfit: if it is not one number.
    """
    note = "not reduced to one number: returns shape {}"
    note += f"; {advice}" if advice else ""
    return tensor(output, (), {shape: note.format(shape) for shape in shapes})


def normal(seed: int, *shape: int) -> "Tensor":
    """Standard normal numbers in float64, the same for the same seed."""
    import torch

    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def generator(seed: int):
    """A torch generator with this seed."""
    import torch

    return torch.Generator().manual_seed(seed)


def random_texts(seed: int, batch: int, time: int, vocabulary: int):
    """Logits (B, T, V) and token ids (B, T)."""
    import torch

    random = generator(seed)
    shape = batch, time, vocabulary
    logits = torch.randn(*shape, dtype=torch.float64, generator=random).mul(2)
    return logits, torch.randint(vocabulary, (batch, time), generator=random)


def unshift(logits: "Tensor", *others: "Tensor") -> list["Tensor"]:
    """Logits (B, T, V) and tokens (B, T), longer by one so that the library's functions
    score each token by the logits at its own position."""
    import torch

    doubled = [torch.cat([x[:, :1], x], dim=1) for x in others]
    return [torch.cat([logits, logits[:, -1:]], dim=1), *doubled]


def gradient_fault(
    answer: Callable, right: Callable, case: Case, inputs: Sequence[str] = ()
) -> str:
    """What is wrong with the gradient of a loss whose value is right; "" if nothing.

    Args:
        answer, right: the loss to check and the correct one.
        case: the arguments to call both with.
        inputs: which of them the loss must have a gradient for; all if empty.
    """
    import torch

    args = {name: _copy(value) for name, value in case.args.items()}
    leaves = [args[name].requires_grad_() for name in inputs or args]
    loss = answer(*args.values())
    if not getattr(loss, "requires_grad", False):
        names = " and ".join(inputs or args)
        return (
            f"no gradient: the value is right but cut off from {names}, so nothing can "
            "be learnt; leave out `.item()`, `.detach()`, `float()`, `no_grad`"
        )
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    expected = torch.autograd.grad(right(*args.values()), leaves)
    if all(f is not None and close(f, e) for f, e in zip(found, expected)):
        return ""
    return "wrong gradient: the value is right, but part of its inputs is detached"


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


@dataclass(frozen=True)
class Exercise:
    """One exercise of a notebook.

    Attributes:
        call: the signature that the answer must have.
        cases: the arguments to try, with the right outputs.
        read: turns an output and the case's arguments into a tensor, or raises Misfit.
        mistakes: for a case, what each known mistake gives, by the words that name it.
        praise, hint: what a right and a wrong answer are told.
        agrees: whether an output is the expected one.
        also: a last check once all values are right; returns what is wrong, or "".
    """

    call: str
    cases: Callable[[], list[Case]]
    read: Callable[..., "Tensor"]
    mistakes: Callable[[Case], dict[str, list["Tensor"]]]
    praise: str
    hint: str
    agrees: Callable[["Tensor", "Tensor"], bool] = close
    also: Callable[[Callable], str] | None = None


@functools.cache
def all_exercises() -> dict[str, Exercise]:
    """The exercises of all chapters by number, in ascending order."""
    exercises: dict[str, Exercise] = {}
    folder = Path(alignlab.__file__).parent / "chapters"
    for file in folder.glob("*/exercises.py"):
        name = f"alignlab.chapters.{file.parent.name}.exercises"
        exercises |= importlib.import_module(name).EXERCISES
    return dict(sorted(exercises.items()))


def find_exercise(number: str) -> Exercise:
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
