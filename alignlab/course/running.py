"""Calling an answer: within a time limit, with an end to what it prints, and with every
way that it can fail turned into a short message.
"""

import contextlib
import io
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import alignlab
from alignlab.course.exercise import Misfit

TIME_LIMIT = 30.0  # seconds for all cases of a check; right answers need one
PRINTED = 2000  # characters of an answer's own output that a check lets through
TOLD = 300  # characters of an error that a message repeats


class Unanswered(Misfit):
    """The stub as it came."""


class Borrowed(Misfit):
    """The answer calls the library's own function."""


class Stopped(Misfit):
    """The answer took too long, or left Python."""


class Raised(Misfit):
    """The answer raised an exception."""


class TimeUp(BaseException):
    """Raised in an answer when its time is up; no ``except Exception`` catches it."""


class Runner:
    """Calls one answer as often as a check needs it.

    Args:
        answer: the function to check.
        library: functions that it may not call, by their full names.
        names: the names of its arguments, to tell their sizes after an exception.
    """

    def __init__(self, answer: Callable, library: Sequence[str], names: Sequence[str]):
        self._answer, self._names = answer, names
        self._library = {place_of(name): name for name in library}
        self._until = time.monotonic() + TIME_LIMIT

    def __call__(self, *args) -> Any:
        """What the answer returns. One that cannot take float64 gets float32, which is
        what the notebooks have.

        Raises:
            Misfit: of a subclass that says why it returned nothing; KeyboardInterrupt
                passes through.
        """
        try:
            return self._call(args)
        except Raised as raised:
            if not re.search(r"dtype|scalar type|[Dd]ouble", str(raised)):
                raise
        return self._call([in_float32(value) for value in args])

    def _call(self, args: Sequence) -> Any:
        called: list[str] = []
        try:
            with self.limited(), _noting_calls(self._library, called):
                output = self._answer(*args)
        except (KeyboardInterrupt, Stopped):
            raise
        except BaseException as error:
            if called:
                raise self._borrowed(called) from None
            raise self._failure(error, args) from None
        if called:
            raise self._borrowed(called)
        return output

    @contextlib.contextmanager
    def limited(self) -> Iterator[None]:
        """What is left of the time.

        Raises:
            Stopped: when it is up.
        """
        message = (
            f"takes longer than {TIME_LIMIT:g} seconds: is there a loop without an end?"
        )
        left = self._until - time.monotonic()
        if left <= 0:
            raise Stopped(message)
        try:
            with _alarm(left):
                yield
        except TimeUp:
            raise Stopped(message) from None

    def _failure(self, error: BaseException, args: Sequence) -> Misfit:
        if isinstance(error, NotImplementedError):
            return Unanswered()
        if isinstance(error, SystemExit):
            return Stopped("calls `sys.exit`, `exit` or `quit`: return the value")
        given = dict(zip(self._names, args))
        return Raised(f"{exception_at(error, self._answer)}, with {sizes(given)}")

    @staticmethod
    def _borrowed(called: list[str]) -> Borrowed:
        return Borrowed(
            f"calls the library's own `{called[0]}`: the exercise is to write it"
        )


def in_float32(value):
    import torch

    return value.float() if getattr(value, "dtype", "") is torch.float64 else value


def place_of(name: str) -> tuple[str, str]:
    """The file that defines a function of ours, and its name there, from its full name
    and without importing it."""
    _, *folders, module, function = name.split(".")
    package = Path(alignlab.__file__).parent
    return str(package.joinpath(*folders, f"{module}.py")), function


@contextlib.contextmanager
def _noting_calls(
    library: Mapping[tuple[str, str], str], called: list[str]
) -> Iterator[None]:
    """Notes which of the functions are called, however they are wrapped."""

    def note(frame, event, arg):
        if event == "call":
            place = frame.f_code.co_filename, frame.f_code.co_name
            if place in library:
                called.append(library[place])

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(before)


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raises TimeUp after so many seconds, and again each second after. Without alarms
    (Windows) or outside the main thread there is no limit."""
    main = threading.current_thread() is threading.main_thread()
    if not (main and hasattr(signal, "setitimer")):
        yield
        return

    def ring(*_):
        raise TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class _Capped(io.TextIOBase):
    """Passes the first characters on, and says once that it drops the rest."""

    def __init__(self, target):
        self._target, self._left = target, PRINTED

    def write(self, text: str) -> int:
        if self._left > 0:
            self._target.write(text[: self._left])
            if len(text) > self._left:
                self._target.write(f"\n[only {PRINTED:,} characters are shown]\n")
            self._left -= len(text)
        return len(text)

    def flush(self) -> None:
        self._target.flush()


@contextlib.contextmanager
def capped_output() -> Iterator[None]:
    """An end to what is printed inside, so that no flood hides the result."""
    out, err = _Capped(sys.stdout), _Capped(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield


# --- Words for what happened ------------------------------------------------------


def exception_at(error: BaseException, answer: Callable) -> str:
    """The exception, and the line of the answer that raised it."""
    try:
        text = str(error)
    except Exception:
        text = "its own message cannot be read"
    text = f"raised {type(error).__name__}: {shortened(text)}"
    file = getattr(getattr(answer, "__code__", None), "co_filename", None)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == file]
    if not own:
        return text
    return f"{text} in line {own[-1].lineno}: `{shortened(own[-1].line, 100)}`"


def sizes(args: Mapping[str, Any]) -> str:
    """Shapes and types of tensors, values of numbers and collections."""

    def size(value) -> str:
        if hasattr(value, "shape"):
            return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
        shown = isinstance(value, (int, float, dict, list))
        return shortened(str(value), 120) if shown else "given"

    return ", ".join(f"{name} {size(value)}" for name, value in args.items())


def shortened(text: str, length: int = TOLD) -> str:
    """The text in one line, without its middle if it is longer."""
    text = " ".join(text[: 20 * length].split())
    if len(text) <= length:
        return text
    return f"{text[: length * 2 // 3]} ... {text[-length // 4 :]}"
