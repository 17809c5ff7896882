"""Answers are graded in a Python of their own, where nothing has been redefined."""

import os
import runpy
import sys
import types

import pytest
import torch

import alignlab
from alignlab.course import checks, exercise, grading

pytest.importorskip("cloudpickle")


def afresh() -> dict:
    """What a locked cell runs."""
    return runpy.run_path(f"{alignlab.__path__[0]}/course/grading.py")


def wrong(log_probs, mask):
    return log_probs.sum(1).exp()


def test_a_right_answer_takes_its_own_helpers_along():
    scale = 1.0

    def total(rows):
        return rows.sum(1) * scale

    def confidence(log_probs, mask):
        print("a line of the answer's own")
        return torch.exp(total(log_probs * mask))

    result = grading.check("02.2", confidence)
    assert result["passed"] and result["score"] == 1
    assert result["right"] == result["cases"] == 3


def test_what_a_notebook_redefines_gains_nothing(monkeypatch):
    """Each cheat makes the check of this Python, or what it is made of, say yes."""
    fake = types.ModuleType("alignlab.course.grading")
    fake.check = fake.grade = lambda *args: {"passed": True}
    monkeypatch.setitem(sys.modules, "alignlab.course.grading", fake)
    monkeypatch.setattr(checks, "grade", fake.grade)
    monkeypatch.setattr(exercise, "close", lambda *args: True)
    monkeypatch.setattr(torch, "allclose", lambda *args, **kwargs: True)
    monkeypatch.setattr(torch.Tensor, "__le__", lambda *args: torch.tensor(True))
    with pytest.raises(AssertionError, match="exercise 02.1: prompt and padding count"):
        afresh()["check"]("02.2", wrong)


def test_partial_credit_is_the_share_of_cases():
    def first_row_only(log_probs, mask):
        return (log_probs * mask)[:1].sum(1).exp().expand(len(mask))

    assert grading.grade("02.2", first_row_only)["score"] == pytest.approx(1 / 3)


def test_an_answer_that_ends_python_is_a_failure():
    result = grading.grade("02.2", lambda *args: os.abort())
    assert not result["passed"]
    assert result["message"] == "ended the Python that ran it (exit code -6)"


def test_an_answer_that_cannot_be_interrupted_is_killed():
    def forever(*args):
        while True:
            try:
                while True:
                    pass
            except BaseException:
                continue

    result = grading.grade("02.2", forever, seconds=1)
    assert result["message"] == "takes longer than 1 seconds"


def test_an_unknown_exercise_is_named():
    with pytest.raises(ValueError, match="no exercise '02.9'"):
        grading.grade("02.9", wrong)


def test_an_answer_that_cannot_be_pickled_says_so():
    frozen = sys._getframe()
    result = grading.grade("02.2", lambda *args: frozen)
    assert result["message"].startswith("cannot be taken out of the notebook")
