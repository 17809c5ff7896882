"""Where a notebook is graded, the check is the one on disk, and gives a share."""

import json
import sys
import types

import pytest

from alignlab.course import award, checks

pytest.importorskip("cloudpickle")
pytestmark = pytest.mark.slow  # each grade starts a Python and loads torch


def right(logits, ids):
    scores = logits[:, :-1].log_softmax(-1)
    return scores.gather(-1, ids[:, 1:, None])[..., 0]


def points_of(line, names=None):
    """The value of a graded cell's last line, worth two points."""
    names = {"right": right, **(names or {})}
    *before, last = award.graded(line, "partial_credit", 2).splitlines()
    exec("\n".join(before), names)
    return eval(last, names)


@pytest.fixture
def half(monkeypatch):
    """Every grade is half of the cases, without a Python of its own."""
    result = dict(
        exercise="00.1", passed=False, score=0.5, message="half", hint="Think."
    )
    monkeypatch.setattr(award, "grade", lambda *given: result)


def test_points_are_the_share_of_cases_that_are_right(half, capsys):
    assert award.partial_credit(3)("00.1", right) == 1.5
    assert "Exercise 00.1: half\n  Hint: Think." in capsys.readouterr().out


def test_a_signed_result_stands_on_a_line_of_its_own(half, capsys):
    print("no end of line", end="")
    assert award.signed("secret")("00.1", right) is None
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("secret")
    assert json.loads(line.removeprefix("secret"))["score"] == 0.5


def test_nothing_that_the_notebook_changed_reaches_the_check(monkeypatch, capsys):
    passed = dict(exercise="00.1", passed=True, score=1.0, message="Right.", hint="")
    fake = types.ModuleType("alignlab.course.award")
    fake.partial_credit = lambda points: lambda *given: points
    monkeypatch.setitem(sys.modules, "alignlab.course.award", fake)
    monkeypatch.setattr(award, "grade", lambda *given: passed)
    monkeypatch.setattr(checks, "grade", lambda *given: passed)
    monkeypatch.setattr("alignlab.objectives.token_log_probs", lambda z, x: 0 * z)
    names = {"check": lambda *given: 2.0, "partial_credit": fake.partial_credit}
    assert points_of('check("00.1", lambda z, x: 0 * z)', names) == 0
    assert "Exercise 00.1" in capsys.readouterr().out


def test_a_right_answer_has_all_points_and_a_stub_none():
    def stub(*given):
        raise NotImplementedError

    assert points_of('check("00.1", right)') == 2
    assert points_of('check("00.1", stub)', {"stub": stub}) == 0
