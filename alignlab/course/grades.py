"""`alignlab course grade`: grade a folder of notebooks without nbgrader.

The checks of a submission are put back to those of this release before it runs, so that
only its answers count. Each check prints its result behind a secret of its own.
"""

import csv
import json
import secrets
import tempfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from io import StringIO
from pathlib import Path

from nbformat import NotebookNode

from alignlab.course.award import graded
from alignlab.course.notebooks import find_notebooks, shipped_notebooks
from alignlab.course.opening import is_generated
from alignlab.course.teaching import is_check, profile_from_outside
from alignlab.course.untrusted import run_untrusted
from alignlab.errors import AlignlabError
from alignlab.files import write_json, write_text


@dataclass
class Points:
    """What one check gave: ``score`` is the share of its cases that are right."""

    grade_id: str
    out_of: float
    score: float = 0.0
    message: str = "did not run"

    @property
    def points(self) -> float:
        return round(self.out_of * self.score, 2)


@dataclass
class Grade:
    """The points of one submission; ``by_hand`` are the cells that a person grades."""

    student: str
    notebook: str
    file: str
    checks: list[Points] = field(default_factory=list)
    by_hand: list[str] = field(default_factory=list)
    problem: str = ""

    @property
    def points(self) -> float:
        return round(sum(check.points for check in self.checks), 2)

    @property
    def out_of(self) -> float:
        return sum(check.out_of for check in self.checks)


def grade_folder(
    folder: Path,
    out: Path | None = None,
    seconds: float = 900,
    profile: str = "smoke",
    on_grade: Callable[[Grade], None] = lambda grade: None,
) -> list[Grade]:
    """Grade every notebook below a folder; writes grades.csv and grades.json.

    Args:
        folder: STUDENT/NAME.ipynb, STUDENT/ASSIGNMENT/NAME.ipynb as nbgrader collects
            them, or files named after students.
        out: where the two files go; by default the folder itself.
        seconds: how long one submission may run.
        profile: how much its notebooks compute.
        on_grade: called with each grade as soon as it is there.

    Raises:
        AlignlabError: if the folder holds no notebooks.
    """
    if not (files := submissions(folder)):
        raise AlignlabError(
            f"There are no notebooks in {folder}.", "Name the folder of submissions."
        )
    grades = []
    for file in files:
        grades.append(grade_file(file, folder, seconds, profile))
        on_grade(grades[-1])
    target = out or folder
    write_json(target / "grades.json", [as_record(grade) for grade in grades])
    write_text(target / "grades.csv", as_table(grades))
    return grades


def submissions(folder: Path) -> list[Path]:
    """The notebooks below a folder, without Jupyter's own copies."""
    files = sorted(folder.rglob("*.ipynb"))
    return [
        file
        for file in files
        if not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]


def grade_file(file: Path, folder: Path, seconds: float, profile: str) -> Grade:
    """Grade one submission; whatever is wrong with it is told in ``problem``."""
    import nbformat

    parts = file.relative_to(folder).parts
    grade = Grade(parts[0].removesuffix(".ipynb"), "", str(Path(*parts)))
    try:
        submission = nbformat.read(file, as_version=4)
    except Exception as error:  # whatever a student's file may be
        grade.problem = f"not a notebook: {type(error).__name__}"
        return grade
    model = model_of(submission)
    if model is None:
        grade.problem = "none of its cells belongs to an exercise of this release"
        return grade
    grade.notebook, release = model
    grade.by_hand = [
        cell.metadata.nbgrader.grade_id for cell in release.cells if _by_hand(cell)
    ]
    tokens = {
        cell.metadata.nbgrader.grade_id: secrets.token_hex(16)
        for cell in release.cells
        if is_check(cell)
    }
    with tempfile.TemporaryDirectory() as scratch:
        given, out = Path(scratch, "given.ipynb"), Path(scratch, "executed.ipynb")
        nbformat.write(to_be_run(submission, release, tokens), given)
        grade.problem = run_untrusted(given, out, Path(scratch), seconds, profile)
        ran = nbformat.read(out, as_version=4) if out.exists() else None
    grade.checks = list(read_points(ran, release, tokens))
    return grade


def model_of(submission: NotebookNode) -> tuple[str, NotebookNode] | None:
    """The exercise of this release that a submission answers, by its grade_ids."""
    import nbformat

    ids = {_grade_id(cell) for cell in submission.cells} - {None}
    for path in find_notebooks(shipped_notebooks()).values():
        release = nbformat.read(path, as_version=4)
        if ids & {_grade_id(cell) for cell in release.cells}:
            return path.stem, release
    return None


def to_be_run(
    submission: NotebookNode, release: NotebookNode, tokens: dict[str, str]
) -> NotebookNode:
    """The submission with this release's checks, each of them once, up to the last:
    what comes behind gives no points. A check that was removed comes at the very end,
    so that its answer still counts."""
    checks = {
        cell.metadata.nbgrader.grade_id: _signed(cell, tokens)
        for cell in release.cells
        if is_check(cell)
    }
    notebook = profile_from_outside(deepcopy(submission))
    cells, end = [], 0
    for cell in notebook.cells:
        if is_generated(cell):
            continue
        name = _grade_id(cell)
        if name not in tokens:
            cells.append(cell)
        elif name in checks:
            cells.append(checks.pop(name))
            end = len(cells)
    notebook.cells = cells + list(checks.values()) if checks else cells[:end]
    return notebook


def _signed(check: NotebookNode, tokens: dict[str, str]) -> NotebookNode:
    """A check that prints its result behind the token that is its own."""
    cell = deepcopy(check)
    token = tokens[cell.metadata.nbgrader.grade_id]
    cell.source = graded(cell.source, "signed", token)
    cell.outputs, cell.execution_count = [], None
    return cell


def read_points(
    ran: NotebookNode | None, release: NotebookNode, tokens: dict[str, str]
) -> Iterator[Points]:
    """The points that the outputs of an executed submission show."""
    ran_cells = {_grade_id(cell): cell for cell in ran.cells} if ran else {}
    for check in filter(is_check, release.cells):
        marks = check.metadata.nbgrader
        name = marks.grade_id
        points = Points(name, float(marks.points))
        cell = ran_cells.get(name)
        if cell is not None:
            _read_result(cell, tokens[name], points)
        yield points


def _read_result(cell: NotebookNode, token: str, points: Points) -> None:
    for output in cell.get("outputs", []):
        lines = output.get("text", "").splitlines()
        for line in lines:
            if line.startswith(token):
                result = json.loads(line.removeprefix(token))
                points.score, points.message = result["score"], result["message"]
                return
        if output.output_type == "error":
            points.message = f"{output.ename}: {output.evalue}"[:500]


def _grade_id(cell: NotebookNode) -> str | None:
    return cell.metadata.get("nbgrader", {}).get("grade_id")


def _by_hand(cell: NotebookNode) -> bool:
    """Whether a cell has points that no check gives: an interpretation, in words."""
    marks = cell.metadata.get("nbgrader", {})
    return bool(marks.get("points")) and not is_check(cell)


# --- The two files ----------------------------------------------------------------


def as_record(grade: Grade) -> dict:
    """A grade for grades.json, with every check's message."""
    record = asdict(grade) | {"points": grade.points, "out_of": grade.out_of}
    for entry, check in zip(record["checks"], grade.checks):
        entry["points"] = check.points
    return record


def as_table(grades: list[Grade]) -> str:
    """grades.csv: a line a submission, a column for each check that any of them has."""
    names = sorted({check.grade_id for grade in grades for check in grade.checks})
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["student", "notebook", "points", "out_of", *names, "problem"])
    for grade in grades:
        given = {check.grade_id: check.points for check in grade.checks}
        columns = [given.get(name, "") for name in names]
        head = [_plain(grade.student), grade.notebook, grade.points, grade.out_of]
        writer.writerow([*head, *columns, _plain(grade.problem)])
    return text.getvalue()


def _plain(text: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
