"""Whole assignments, from the release to the grades of five students: with nbgrader,
with `alignlab course grade`, and with otter-grader where it is installed.

It takes minutes: `python -m pytest -m roundtrip`, and `-k 00` for one notebook only.
"""

import csv
import json
import os
import re
import subprocess
import sys
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest

import alignlab
from alignlab.course.checks import find_exercise
from alignlab.course.notebooks import find_notebooks, shipped_notebooks
from alignlab.course.otter import export_for_otter
from alignlab.course.teaching import is_check, new_course

pytestmark = pytest.mark.roundtrip

NUMBERS = ("00", "04", "07")
STUDENTS = ("solved", "half", "untouched", "redefines", "borrows")
STUB = "raise NotImplementedError()"
# What nbgrader says of its own doing: a question in words gets its rubric back, which
# was not released. And what nbconvert says of pictures.
EXPECTED = r"'checksum' for cell nb\d\d-q\d+ has changed|Alternative text is missing"
OTTERS_KERNEL = "Kernel is running over TCP without encryption"
REDEFINES = """\
check = lambda *given: 2.0
import sys
from types import SimpleNamespace
import alignlab.course.award
import alignlab.course.checks
right = lambda *given: alignlab.course.checks.CheckResult("0", True, 1, 1, "Right.")
alignlab.course.checks.check = alignlab.course.checks.grade = right
alignlab.course.award.partial_credit = lambda points: lambda *given: points
alignlab.course.award.grade = lambda *given: dict(passed=True, score=1.0, hint="")
sys.modules["alignlab.course.grading"] = SimpleNamespace(grade=right, check=right)
"""


class Question(NamedTuple):
    """An exercise of a notebook, in the order of its stubs."""

    exercise: str
    answer: str
    points: float
    grade_id: str


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def questions(notebook) -> list[Question]:
    found = []
    for cell in filter(is_check, notebook.cells):
        exercise, answer = re.search(r'check\("(.+?)", (\w+)\)', cell.source).groups()
        marks = cell.metadata.nbgrader
        found.append(Question(exercise, answer, marks.points, marks.grade_id))
    return found


def hand_in(release, solved, asked, student):
    """What a student makes of a released notebook, whose stubs stand in the order of
    the questions. One hands in all of it; to save time the others end with the last
    question, as nothing behind it gives points."""
    notebook, answers = deepcopy(release), iter(asked)
    for cell, solution in zip(code_cells(notebook), code_cells(solved)):
        if STUB not in cell.source:
            continue
        question = next(answers)
        if student in expected_of(asked)[question.exercise]:
            cell.source = solution.source
        elif student == "redefines":
            cell.source = REDEFINES + cell.source
        elif student == "borrows":
            cell.source = borrowed(question) or cell.source
    assert next(answers, None) is None, "a question without a stub"
    if student != "solved":
        del notebook.cells[_after_the_last_question(notebook) :]
    return notebook


def _after_the_last_question(notebook) -> int:
    """Behind nbgrader's last graded cell, or otter's last call of its tests."""
    return 1 + max(
        position
        for position, cell in enumerate(notebook.cells)
        if is_check(cell) or "grader.check(" in cell.source
    )


def expected_of(asked) -> dict[str, set[str]]:
    """Who has the points of each exercise. The first half are done in "half": an
    experiment uses the functions before it."""
    return {
        question.exercise: {"solved", "half"} if 2 * done < len(asked) else {"solved"}
        for done, question in enumerate(asked)
    }


def points_of(asked, student) -> float:
    expected = expected_of(asked)
    return sum(q.points for q in asked if student in expected[q.exercise])


def borrowed(question) -> str:
    """The library's own function under the name of the answer."""
    library = getattr(find_exercise(question.exercise), "library", ())
    if not library:
        return ""
    module, _, function = library[0].rpartition(".")
    return f"from {module} import {function} as {question.answer}"


def run(*arguments, cwd, expected=EXPECTED):
    """The output of a command, which must succeed and warn of nothing unexpected."""
    paths = {  # nbgrader calls alembic by its name
        "PYTHONPATH": str(Path(alignlab.__file__).parents[1]),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | paths | {"ALIGNLAB_PROFILE": "smoke"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(done.stdout[-20_000:])
    assert done.returncode == 0
    warned = [line for line in done.stdout.splitlines() if "warn" in line.lower()]
    unexpected = [line for line in warned if not re.search(expected, line)]
    assert not unexpected, "\n".join(unexpected)
    return done.stdout


def read(path):
    return nbformat.read(path, as_version=4)


@pytest.fixture(scope="module", params=NUMBERS)
def course(request, tmp_path_factory):
    """A course of one notebook, released, with what five students handed in: its
    folder, the assignment's name and the questions."""
    folder = tmp_path_factory.mktemp("course") / "alignment"
    name = new_course(folder, [request.param])[-1].stem
    asked = questions(read(find_notebooks(shipped_notebooks())[request.param]))
    if find_spec("nbgrader"):
        run("nbgrader", "generate_assignment", name, cwd=folder)
        release = read(folder / "release" / name / f"{name}.ipynb")
    else:
        release = read(shipped_notebooks() / "exercises" / f"{name}.ipynb")
    source = read(folder / "source" / name / f"{name}.ipynb")
    for student in STUDENTS:
        place = folder / "submitted" / student / name / f"{name}.ipynb"
        place.parent.mkdir(parents=True)
        nbformat.write(hand_in(release, source, asked, student), place)
    return folder, name, asked


def test_the_release_holds_no_solution(course):
    pytest.importorskip("nbgrader")
    folder, name, _ = course
    text = (folder / "release" / name / f"{name}.ipynb").read_text()
    assert "SOLUTION" not in text and "MARK SCHEME" not in text and STUB in text


def test_nbgrader_grades_without_a_warning(course):
    pytest.importorskip("nbgrader")
    folder, name, asked = course
    run("nbgrader", "autograde", name, cwd=folder)
    run("nbgrader", "export", cwd=folder)
    with (folder / "grades.csv").open() as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file)}
    assert {student: float(rows[student]["raw_score"]) for student in STUDENTS} == {
        student: points_of(asked, student) for student in STUDENTS
    }
    borrower = folder / "autograded" / "borrows" / name / f"{name}.ipynb"
    assert "calls the library's own" in borrower.read_text()


def test_nbgrader_shows_students_what_was_wrong(course):
    pytest.importorskip("nbgrader")
    folder, name, _ = course
    run("nbgrader", "generate_feedback", name, cwd=folder)
    for student in STUDENTS:
        page = (folder / "feedback" / student / name / f"{name}.html").read_text()
        assert ("\N{BALLOT X} Exercise" in page) == (student != "solved")


def test_course_grade_agrees(course, tmp_path):
    folder, name, asked = course
    run("alignlab.cli", "course", "grade", "submitted", "--out", tmp_path, cwd=folder)
    with (tmp_path / "grades.csv").open() as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    records = {
        record["student"]: record
        for record in json.loads((tmp_path / "grades.json").read_text())
    }
    expected = expected_of(asked)
    for student in STUDENTS:
        row, record = rows[student], records[student]
        assert float(row["points"]) == record["points"] == points_of(asked, student)
        assert row["notebook"] == name and row["problem"] == record["problem"] == ""
        for question in asked:
            full = student in expected[question.exercise]
            assert float(row[question.grade_id]) == question.points * full
    told = [check["message"] for check in records["borrows"]["checks"]]
    assert any("calls the library's own" in message for message in told)


@pytest.fixture(scope="module", params=NUMBERS)
def otter(request, tmp_path_factory):
    """What `otter assign` makes of a notebook after running its tests on the solutions:
    the folder, the notebook's name and the questions."""
    pytest.importorskip("otter", reason="otter-grader is not installed")
    folder = tmp_path_factory.mktemp("otter") / "assignments"
    (source,) = export_for_otter(folder, [request.param])
    folder = source.parent
    run("otter", "assign", source.name, "dist", cwd=folder, expected=OTTERS_KERNEL)
    asked = questions(read(find_notebooks(shipped_notebooks())[request.param]))
    return folder / "dist", source.stem, asked


def test_otter_finds_the_tests_and_removes_solutions(otter):
    folder, name, asked = otter
    released = read(folder / "student" / f"{name}.ipynb")
    assert set(released.metadata.otter.tests) == {
        question.grade_id.replace("-", "_").removesuffix("_check") for question in asked
    }
    text = (folder / "student" / f"{name}.ipynb").read_text()
    assert "SOLUTION" not in text and "MARK SCHEME" not in text
    assert sum(STUB in cell.source for cell in code_cells(released)) == len(asked)


@pytest.mark.parametrize("student", STUDENTS)
def test_otter_grades(otter, tmp_path, student):
    folder, name, asked = otter
    released = read(folder / "student" / f"{name}.ipynb")
    solved = read(folder / "autograder" / f"{name}.ipynb")
    nbformat.write(
        hand_in(released, solved, asked, student), tmp_path / f"{name}.ipynb"
    )
    (grader,) = (folder / "autograder").glob("*.zip")
    command = "otter", "run", f"{name}.ipynb", "-a", grader, "-o", "."
    run(*command, cwd=tmp_path, expected=OTTERS_KERNEL)
    results = json.loads((tmp_path / "results.json").read_text())["tests"]
    given = sum(test.get("score", 0) for test in results)
    assert given == pytest.approx(points_of(asked, student))
