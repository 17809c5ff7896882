"""Reports of experiments: what they earn, and what of a source says how to write one.
The tables of right and wrong reports are in tests/course/answers/experiments.py."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import alignlab
from alignlab.course.checks import all_exercises, grade
from alignlab.course.exercise import Interpretation
from alignlab.course.experiment import ENTRIES, Experiment, outcome_of, unlike_means

SOURCES = sorted(
    (Path(alignlab.__file__).parents[1] / "notebooks/source").glob("[0-9]*.py")
)
TASKS = all_exercises()
HEADING = re.compile(
    r"\*\*(Exercise|Experiment|Interpretation) (\d\d\.\d)\*\* · (★+) · (\d+) minutes · "
    r'`hint\("(\d\d\.\d)"\)`'
)


def measured() -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(3, 30, dtype=torch.float64, generator=generator)
    return rows + torch.tensor([[3.0], [2.0], [1.0]])


def report(rows: torch.Tensor, **changed) -> dict:
    change = (rows[-1] - rows[0]).numpy()
    return {
        "prediction": "rises",
        "settings": [0.02, 0.2, 2.0],
        "measured": rows,
        "difference": change.mean(),
        "error": change.std(ddof=1) / np.sqrt(len(change)),
        "outcome": "falls",
    } | changed


def test_a_right_report_tells_what_happened_and_that_the_prediction_failed():
    result = grade("05.3", report(measured()))
    assert result.passed and result.score == 1 and not result.hint
    assert re.fullmatch(
        r"Right: it falls \(-\d\.\d+, standard error 0\.\d+\), predicted was 'rises'\.",
        result.message,
    )
    held = grade("05.3", report(measured(), prediction="falls")).message
    assert held.endswith("as predicted.")


@pytest.mark.parametrize(
    "changed, right",
    [
        (dict(prediction="perhaps"), 5),
        (dict(difference=7.0), 5),
        (dict(difference=7.0, error=7.0), 4),
        (dict(outcome="stays"), 5),
        (dict(settings=[0.02, 2.0], measured=measured()[[0, 2]]), 5),
        # Nothing is earned by what rests on numbers that were not measured.
        (dict(measured=[[3.0] * 30, [2.0] * 30, [1.0] * 30]), 2),
        (dict(measured=None), 2),
        (dict(settings=[0.02, 0.2, 200.0]), 1),
        (dict(settings=None), 1),
    ],
)
def test_each_entry_is_a_sixth(changed, right):
    assert grade("05.3", report(measured(), **changed)).score == right / len(ENTRIES)


def test_no_report_earns_nothing():
    for nothing in (None, lambda: report(measured()), [], "falls", {}):
        assert grade("05.3", nothing).score == 0


def test_a_difference_below_two_errors_is_none():
    change = torch.tensor([1.0, -1.0] * 50, dtype=torch.float64)  # its error is 0.1005
    assert outcome_of(change + 0.19) == "stays" == outcome_of(change - 0.19)
    assert outcome_of(change + 0.21) == "rises"
    assert outcome_of(change - 0.21) == "falls"
    assert outcome_of(torch.zeros(5)) == "stays"


def test_means_may_differ_as_far_as_chance_allows():
    settings, rows = torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 3.0], [5.0, 7.0]])
    right, slack = torch.tensor([2.0, 6.5]), torch.tensor([0.1, 0.6])
    assert unlike_means(settings, rows, right, slack) == ""
    assert "at 2 the mean is 6, where 6.5" in unlike_means(
        settings, rows, right, slack / 2
    )


def test_a_report_is_graded_where_the_notebook_cannot_reach():
    from alignlab.course.grading import grade as grade_elsewhere

    told = grade_elsewhere("05.3", report(measured(), outcome="stays"))
    assert told["score"] == 5 / 6 and told["message"].startswith("outcome is 'stays'")


# --- What sources say of their exercises ------------------------------------------


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_headings_are_in_order_and_tell_minutes_stars_and_the_hint(source):
    found = HEADING.findall(source.read_text(encoding="utf-8"))
    numbers = [number for _, number, *_ in found]
    assert numbers == [n for n in TASKS if n.startswith(source.stem[:2])]
    kinds = {"Experiment": Experiment, "Interpretation": Interpretation}
    for kind, number, stars, minutes, hinted in found:
        task = TASKS[number]
        assert isinstance(task, kinds.get(kind, object)) and hinted == number
        assert (len(stars), int(minutes)) == (task.stars, task.minutes)
    assert {"Experiment", "Interpretation"} <= {kind for kind, *_ in found}


def test_every_exercise_has_two_hints_or_more():
    assert all(len(task.hints) >= 2 for task in TASKS.values())
    assert all(1 <= task.stars <= 3 for task in TASKS.values())
