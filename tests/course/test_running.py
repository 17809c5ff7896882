"""Whatever an answer does, a reader meets a short message and the notebook goes on."""

import math
import signal
import sys
import threading
import time

import pytest
import torch

from alignlab.course import running
from alignlab.course.checks import grade
from alignlab.objectives import token_log_probs

SHORT = 700  # characters


def confidence(log_probs, mask):
    """A right answer to exercise 02.1."""
    return (log_probs * mask).sum(1).exp()


def message_of(answer) -> str:
    result = grade("02.2", answer)
    assert not result.passed
    assert len(result.message) < SHORT
    return result.message


def raising(error):
    def answer(*args):
        raise error

    return answer


class Unspeakable(Exception):
    def __str__(self):
        raise ValueError("no words")


class NoNumber:
    def __array__(self, *args, **kwargs):
        raise SystemExit


# --- Time -------------------------------------------------------------------------


def forever(*args):
    while True:
        pass


def forever_in_vain(*args):
    """What a broad except around a loop does to the first alarm."""
    for _ in range(2):
        try:
            while True:
                pass
        except BaseException:
            continue


@pytest.mark.parametrize(
    "answer", [forever, forever_in_vain, lambda *args: time.sleep(60)]
)
def test_an_answer_without_an_end_is_stopped(answer, monkeypatch):
    monkeypatch.setattr(running, "TIME_LIMIT", 0.2)
    begun = time.monotonic()
    assert message_of(answer).startswith("takes longer than 0.2 seconds")
    assert time.monotonic() - begun < 20  # not once for each case


def test_an_alarm_of_somebody_else_is_put_back():
    before = signal.getsignal(signal.SIGALRM)
    assert grade("02.2", confidence).passed
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_answers_are_checked_in_other_threads_too():
    results = []
    thread = threading.Thread(target=lambda: results.append(grade("02.2", confidence)))
    thread.start()
    thread.join()
    assert results[0].passed


# --- Ways out ---------------------------------------------------------------------


@pytest.mark.parametrize("leave", [sys.exit, lambda: raising(SystemExit(0))()])
def test_leaving_python_is_no_answer(leave):
    assert message_of(lambda *args: leave()).startswith("calls `sys.exit`")


@pytest.mark.parametrize(
    "error, words",
    [
        (ValueError("x" * 100_000), "raised ValueError: xxx"),
        (ValueError("a\n\n  b"), "raised ValueError: a b"),
        (Unspeakable(), "raised Unspeakable: its own message cannot be read"),
        (RecursionError("maximum recursion depth"), "raised RecursionError"),
        (MemoryError(), "raised MemoryError"),
        (GeneratorExit(), "raised GeneratorExit"),
        (BaseExceptionGroup("two", [KeyError(1), SystemExit()]), "raised BaseExc"),
    ],
)
def test_exceptions_of_any_kind_are_short_messages(error, words):
    assert message_of(raising(error)).startswith(words)


def test_an_endless_recursion_is_a_message():
    def answer(*args):
        return answer(*args)

    assert message_of(answer).startswith("raised RecursionError")


# --- What is printed --------------------------------------------------------------


def test_a_flood_of_print_is_cut_and_a_few_lines_are_not(capsys):
    def answer(log_probs, mask):
        print("looking at", len(mask), "rows")
        return confidence(log_probs, mask)

    assert grade("02.2", answer).passed
    assert capsys.readouterr().out.startswith("looking at 3 rows\n")

    def flood(log_probs, mask):
        print("x" * 100_000)
        print("y" * 100_000, file=sys.stderr)
        return confidence(log_probs, mask)

    assert grade("02.2", flood).passed
    shown = capsys.readouterr()
    for text in shown:
        assert len(text) < running.PRINTED + 100
        assert text.endswith("[only 2,000 characters are shown]\n")


# --- What is returned -------------------------------------------------------------


@pytest.mark.parametrize(
    "output, words",
    [
        (None, "returns nothing"),
        ("0.5, 0.1, 0.2", "returns a str"),
        ({"a": 0.5}, "returns a dict"),
        ([0.5, None, 0.2], "returns a list; it must return numbers of shape"),
        ([[0.5, 0.1], [0.2]], "returns rows of unequal lengths"),
        ([], "returns shape (0,)"),
        (object(), "returns a object"),
        (NoNumber(), "returns a NoNumber that is no numbers"),
        (torch.empty(3, device="meta"), "returns a tensor on the meta device"),
        (torch.ones(3) * 1j, "returns complex numbers"),
        (torch.ones(3).bfloat16(), "computes in bfloat16"),
        (torch.ones(1).expand(10**12), "returns shape (1000000000000,)"),
        (lambda: 1, "returns a function"),
        (iter([0.5]), "returns a list_iterator"),
    ],
)
def test_outputs_that_are_no_numbers_are_named(output, words):
    assert message_of(lambda *args: output).startswith(words)


@pytest.mark.parametrize("value, name", [(math.nan, "NaN"), (-math.inf, "infinity")])
def test_values_that_are_not_finite_are_counted(value, name):
    def answer(log_probs, mask):
        return confidence(log_probs, mask).index_fill(0, torch.tensor([0]), value)

    assert message_of(answer).startswith(f"returns {name}, at 1 of 3 places")


# --- The library's own function ---------------------------------------------------


def wrapped(logits, input_ids):
    try:
        return token_log_probs(logits, input_ids).clone()
    except Exception:
        return None


@pytest.mark.parametrize(
    "answer", [token_log_probs, wrapped, lambda z, x: map(token_log_probs, [z], [x])]
)
def test_the_library_function_is_no_answer_however_it_is_wrapped(answer):
    result = grade("00.1", answer)
    if isinstance(answer(torch.ones(1, 2, 3), torch.ones(1, 2).long()), map):
        assert result.message.startswith("returns a map")  # which has not called it
        return
    assert result.message.startswith(
        "calls the library's own `alignlab.objectives.log_probs.token_log_probs`"
    )
    assert result.score == 0


def test_a_profiler_goes_on_after_the_check():
    seen = []
    sys.setprofile(lambda *args: seen.append(args[1]))
    try:
        grade("02.2", confidence)
        after = sys.getprofile()
    finally:
        sys.setprofile(None)
    assert after is not None and seen


# --- Types ------------------------------------------------------------------------


def test_an_answer_that_takes_float32_only_is_given_it():
    def answer(log_probs, mask):
        return torch.einsum("bt,bt->b", log_probs, mask.float()).exp()

    with pytest.raises(RuntimeError):
        answer(torch.ones(1, 2).double(), torch.ones(1, 2))
    assert grade("02.2", answer).passed
