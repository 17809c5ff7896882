"""Grading without nbgrader: whatever is handed in, there is a grade or a reason."""

import csv
import json
from copy import deepcopy
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import alignlab
from alignlab.course import grades
from alignlab.course.grades import Grade, Points, as_table, grade_folder, to_be_run
from alignlab.course.untrusted import run_untrusted
from alignlab.errors import AlignlabError

TOKEN = '["signed"](\''  # what stands before it in a graded cell
ROOT = Path(alignlab.__file__).parents[1]
ANSWER = """\
def my_token_log_probs(logits, input_ids):
    scores = logits[:, :-1].log_softmax(-1)
    return scores.gather(-1, input_ids[:, 1:, None])[..., 0]"""
SHAPE = "def my_token_log_probs(logits, input_ids):\n    return logits"
CHEAT = """\
check = lambda *given: None
import runpy
import alignlab.course.award as award
award.signed = lambda token: print(token + '{"score": 1}')
award.grade = lambda *given: {"score": 1, "message": "Right."}
my_token_log_probs = lambda *given: 0"""


def marks(grade_id, **others):
    plain = dict(grade=False, locked=False, solution=False, task=False)
    return {"nbgrader": plain | dict(grade_id=grade_id, schema_version=3) | others}


def exercise(answer="raise NotImplementedError()", check='check("00.1", ' + "{})"):
    graded = marks("nb00-q1-check", grade=True, locked=True, points=2)
    return new_notebook(
        cells=[
            new_markdown_cell("# Title"),
            new_code_cell("from alignlab.course import check"),
            new_code_cell(answer, metadata=marks("nb00-q1", solution=True)),
            new_code_cell(check.format("my_token_log_probs"), metadata=graded),
        ]
    )


@pytest.fixture
def release(tmp_path, monkeypatch):
    """A release with one short exercise, in place of the shipped notebooks."""
    folder = tmp_path / "release"
    folder.mkdir()
    nbformat.write(exercise(), folder / "00_base_model.ipynb")
    monkeypatch.setattr(grades, "shipped_notebooks", lambda: folder)
    return exercise()


@pytest.fixture
def submitted(tmp_path):
    """A function that hands in a notebook for a student."""

    def hand_in(student, notebook):
        path = tmp_path / "submitted" / student / "00_base_model.ipynb"
        path.parent.mkdir(parents=True)
        if isinstance(notebook, str):
            path.write_text(notebook)
        else:
            nbformat.write(notebook, path)

    return hand_in


@pytest.fixture
def without_kernel(monkeypatch):
    """Every check of a submission comes out half right, without running anything."""

    def run(given, out, folder, seconds, profile):
        notebook = nbformat.read(given, as_version=4)
        for cell in notebook.cells:
            if TOKEN in cell.source:
                token = cell.source.partition(TOKEN)[2][:32]
                result = json.dumps({"score": 0.5, "message": "half"})
                cell.outputs = [new_output("stream", text=f"\n{token}{result}\n")]
        nbformat.write(notebook, out)
        return ""

    monkeypatch.setattr(grades, "run_untrusted", run)


@pytest.mark.slow  # three kernels
def test_right_answers_wrong_ones_and_cheats_are_told_apart(
    release, submitted, tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    submitted("ada", exercise(ANSWER))
    submitted("bob", exercise(SHAPE))
    submitted("eve", exercise(CHEAT, check="print('{}')"))
    graded = grade_folder(tmp_path / "submitted", seconds=120)
    assert [(item.student, item.points) for item in graded] == [
        ("ada", 2), ("bob", 0), ("eve", 0)
    ]  # fmt: skip
    assert "shape" in graded[1].checks[0].message
    assert not any(item.problem for item in graded)


@pytest.mark.slow  # a kernel
def test_a_run_is_stopped_and_sees_no_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    told = "import os, time\nprint(os.environ.get('MY_TOKEN'), os.environ['HOME'])"
    cells = [new_code_cell(told), new_code_cell("time.sleep(60)"), new_code_cell("1")]
    given, out = tmp_path / "given.ipynb", tmp_path / "out.ipynb"
    nbformat.write(new_notebook(cells=cells), given)
    assert run_untrusted(given, out, tmp_path, 8, "smoke") == "stopped after 8 seconds"
    first, slow, last = nbformat.read(out, as_version=4).cells
    assert first.outputs[0].text == f"None {tmp_path}\n"
    assert slow.outputs[0].output_type == "error"
    assert not last.outputs


def test_both_files_are_written(release, submitted, tmp_path, without_kernel):
    submitted("ada", exercise(ANSWER))
    grade_folder(tmp_path / "submitted", out=tmp_path / "grades")
    (row,) = csv.DictReader((tmp_path / "grades/grades.csv").open())
    assert row == {
        "student": "ada", "notebook": "00_base_model", "points": "1.0",
        "out_of": "2.0", "nb00-q1-check": "1.0", "problem": "",
    }  # fmt: skip
    (record,) = json.loads((tmp_path / "grades/grades.json").read_text())
    assert record["checks"][0]["message"] == "half" and record["points"] == 1


@pytest.mark.parametrize(
    "notebook, problem",
    [
        ("{", "not a notebook: NotJSONError"),
        ("", "not a notebook: NotJSONError"),
        (new_notebook(), "none of its cells belongs to an exercise"),
    ],
)
def test_what_is_no_submission_is_named(
    release, submitted, tmp_path, without_kernel, notebook, problem
):
    submitted("ada", notebook)
    (graded,) = grade_folder(tmp_path / "submitted")
    assert graded.points == 0 and graded.problem.startswith(problem)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(AlignlabError, match="no notebooks in"):
        grade_folder(tmp_path)


@pytest.mark.parametrize("change", ["nothing", "edited", "removed", "twice"])
def test_each_check_is_the_releases_and_runs_once(release, change):
    submission = exercise(ANSWER)
    if change == "edited":
        submission.cells[3].source = "pass"
    elif change == "removed":
        del submission.cells[3]
    elif change == "twice":
        submission.cells.insert(2, deepcopy(submission.cells[3]))
        submission.cells[2].source = "pass"
    cells = to_be_run(submission, release, {"nb00-q1-check": "secret"}).cells
    checks = [cell for cell in cells if f"{TOKEN}secret" in cell.source]
    (check,) = checks
    assert 'check("00.1", my_token_log_probs)' in check.source
    assert not any(cell.source == "pass" for cell in cells)
    assert cells[-1] is check


@pytest.mark.parametrize("removed", [False, True])
def test_nothing_runs_in_vain_behind_the_last_check(release, removed):
    submission = exercise(ANSWER)
    submission.cells.append(new_code_cell("train_for_an_hour()"))
    if removed:  # its answer may stand anywhere
        del submission.cells[3]
    cells = to_be_run(submission, release, {"nb00-q1-check": "secret"}).cells
    assert any("an_hour" in cell.source for cell in cells) == removed


def test_output_without_the_secret_gives_no_points(release):
    ran = exercise(ANSWER)
    forged = '{"score": 1, "message": "Right."}'
    ran.cells[3].outputs = [new_output("stream", text=f"{'0' * 32}{forged}\n")]
    (points,) = grades.read_points(ran, release, {"nb00-q1-check": "secret"})
    assert points.points == 0


def test_a_table_has_a_column_for_each_check_and_no_formulas():
    one = Grade("=SUM(A1)", "00_x", "a", [Points("nb00-q1-check", 2, 0.5, "half")])
    other = Grade("bob", "01_y", "b", [Points("nb01-q1-check", 1, 1.0, "Right.")])
    first, second = csv.DictReader(as_table([one, other]).splitlines())
    assert first["student"] == "'=SUM(A1)" and first["nb00-q1-check"] == "1.0"
    assert first["nb01-q1-check"] == "" and second["points"] == "1.0"
