"""Where a notebook is graded, the check is the one on disk, and gives a share."""

import json
import sys
import types

import pytest

from alignlab.course import award, checks
from alignlab.course.award import at_least, partial_credit, signed


def right(logits, ids):
    scores = logits[:, :-1].log_softmax(-1)
    return scores.gather(-1, ids[:, 1:, None])[..., 0]


def total(logits, ids, mask):
    return -(right(logits, ids) * mask[:, 1:]).sum()


def half(logits, ids, mask):
    """Right in some of the cases of exercise 01.3."""
    return total(logits, ids, mask) / mask.sum()


def points_of(line, names=None):
    """The value of a graded cell's last line, worth two points."""
    names = {"right": right, **(names or {})}
    *before, last = award.graded(line, "partial_credit", 2).splitlines()
    exec("\n".join(before), names)
    return eval(last, names)


def test_points_are_the_share_of_cases_that_are_right():
    share = checks.grade("01.3", half).score
    assert 0 < share < 1
    assert partial_credit(2)("00.1", right) == 2
    assert partial_credit(4)("01.3", half) == round(4 * share, 2)
    assert partial_credit(2)("00.1", lambda *given: 0) == 0


def test_an_unanswered_exercise_has_no_points_and_raises_nothing():
    def stub(*given):
        raise NotImplementedError

    assert partial_credit(2)("00.1", stub) == 0


def test_otter_gets_true_or_the_reason():
    share = checks.grade("01.3", half).score
    assert at_least(share)("01.3", half) is True
    failed = at_least(1.0)("01.3", half)
    assert isinstance(failed, checks.CheckResult) and failed is not True
    assert "Exercise 01.3" in repr(failed)


def test_a_signed_result_stands_on_a_line_of_its_own(capsys):
    print("no end of line", end="")
    assert signed("secret")("00.1", right) is None
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("secret")
    assert json.loads(line.removeprefix("secret"))["passed"]


@pytest.mark.parametrize("cheat", ["name", "grade", "award", "library", "module"])
def test_nothing_that_the_notebook_changed_reaches_the_check(cheat, monkeypatch):
    passed = checks.CheckResult("00.1", True, 1.0, "Right.")
    names = {}
    if cheat == "name":
        names["check"] = lambda *given: 2.0
    elif cheat == "grade":
        monkeypatch.setattr(checks, "grade", lambda *given: passed)
    elif cheat == "award":
        monkeypatch.setattr(award, "grade", lambda *given: passed)
        monkeypatch.setattr(award, "partial_credit", lambda points: lambda *g: points)
    elif cheat == "library":
        monkeypatch.setattr("alignlab.objectives.token_log_probs", lambda z, x: 0 * z)
    else:
        fake = types.ModuleType("alignlab.course.award")
        fake.partial_credit = lambda points: lambda *given: points
        monkeypatch.setitem(sys.modules, "alignlab.course.award", fake)
    assert points_of('check("00.1", lambda z, x: 0 * z)', names) == 0
    assert points_of('check("00.1", right)', names) == 2


def test_the_notebook_has_its_own_modules_back():
    before = {name: sys.modules[name] for name in sys.modules if "alignlab" in name}
    assert points_of('check("00.1", right)') == 2
    after = {name: sys.modules[name] for name in before}
    assert after == before and sys.modules["alignlab.course.award"] is award
