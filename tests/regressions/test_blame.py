"""Where the library is at fault, the reader is not blamed."""

import linecache
import textwrap

import pytest

from alignlab.course.checks import CheckFailed, check
from alignlab.objectives import reward

ANSWER = """
def answer(chosen, rejected):
    {mark}
    import torch.nn.functional as F

    return -F.logsigmoid(chosen - rejected).mean()
"""


def written(mark):
    """An answer as from a notebook's cell, whose source can be seen."""
    source, name = textwrap.dedent(ANSWER.format(mark=mark)), f"<cell {mark}>"
    linecache.cache[name] = len(source), None, source.splitlines(True), name
    names = {}
    exec(compile(source, name, "exec"), names)
    return names["answer"]


@pytest.fixture
def broken_library(monkeypatch):
    """The reward model's loss with the wrong sign, as a regression may leave it."""
    right = reward.bradley_terry_loss

    def swapped(chosen, rejected, *rest):
        return right(rejected, chosen, *rest)

    monkeypatch.setattr(reward, "bradley_terry_loss", swapped)


def test_the_solution_that_ships_points_to_the_library(broken_library):
    with pytest.raises(CheckFailed) as error:
        check("03.1", written("### BEGIN SOLUTION"))
    said = error.value.result
    assert "`alignlab.objectives.reward.bradley_terry_loss`" in said.message
    assert "the solution that comes with this notebook and the library" in said.message
    assert said.hint == ""


def test_a_readers_own_answer_is_judged_as_ever(broken_library):
    with pytest.raises(CheckFailed) as error:
        check("03.1", written("# mine"))
    assert "library" not in error.value.result.message and error.value.result.hint
