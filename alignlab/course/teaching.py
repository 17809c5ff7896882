"""`alignlab course new`: a course for nbgrader, made of the notebooks of this release.

`nbgrader generate_assignment` then releases each of them without its solutions.
"""

import re
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

from nbformat import NotebookNode

from alignlab.course.award import graded
from alignlab.course.notebooks import find_notebooks, shipped_notebooks
from alignlab.errors import AlignlabError, did_you_mean
from alignlab.files import write_text

CONFIG = '''\
"""nbgrader's settings for this course; `nbgrader --help-all` explains each of them."""

import os
import warnings

from jupyter_client import KernelManager

c = get_config()  # noqa: F821

c.CourseDirectory.course_id = "{course_id}"

# Seconds, since a cell may train: of one cell, and until a kernel answers.
c.Execute.timeout = 1800
c.Execute.startup_timeout = 180

# Grading needs the wiring of a notebook, not its results: seconds instead of minutes.
# What students run themselves is on profile cpu, unless they set ALIGNLAB_PROFILE, too.
os.environ.setdefault("ALIGNLAB_PROFILE", "smoke")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What a kernel sends is encrypted, where Jupyter can: others may share this computer.
if hasattr(KernelManager, "transport_encryption"):
    c.KernelManager.transport_encryption = "auto"

# Of nbgrader's own queries; there is nothing in a course that could change them.
warnings.filterwarnings("ignore", module=r"nbgrader\\.api")
'''

ROSTER = """\
id,first_name,last_name,email
ada,Ada,Lovelace,ada@example.org
alan,Alan,Turing,alan@example.org
"""


def new_course(folder: Path, wanted: Sequence[str] = ()) -> list[Path]:
    """Write a course: source/NAME/NAME.ipynb of every notebook, nbgrader_config.py and
    an example roster.csv.

    Args:
        folder: new, or empty.
        wanted: numbers of notebooks, "04"; by default all.

    Returns:
        The files written.

    Raises:
        AlignlabError: if the folder holds something, or there is no such notebook.
    """
    import nbformat

    notebooks = chosen_notebooks(folder, wanted)
    course_id = re.sub(r"\W+", "_", folder.resolve().name)
    config = CONFIG.format(course_id=course_id)
    written = [
        write_text(folder / "nbgrader_config.py", config),
        write_text(folder / "roster.csv", ROSTER),
    ]
    for path in notebooks:
        notebook = for_nbgrader(nbformat.read(path, as_version=4))
        place = folder / "source" / path.stem / path.name
        written.append(write_text(place, nbformat.writes(notebook) + "\n"))
    return written


def chosen_notebooks(folder: Path, wanted: Sequence[str]) -> list[Path]:
    """The notebooks of this release that a new folder is made of.

    Raises:
        AlignlabError: if the folder holds something, or there is no such notebook.
    """
    if folder.exists() and any(folder.iterdir()):
        raise AlignlabError(f"{folder} is not empty.", "Name a new folder.")
    notebooks = find_notebooks(shipped_notebooks())
    for number in wanted:
        if number not in notebooks:
            remedy = did_you_mean(number, notebooks)
            raise AlignlabError(f"There is no notebook {number!r}.", remedy)
    return [notebooks[number] for number in (wanted or notebooks)]


def for_nbgrader(complete: NotebookNode) -> NotebookNode:
    """A complete notebook as nbgrader's source: without outputs, its checks imported
    afresh and giving points, its profile taken from outside."""
    notebook = profile_from_outside(deepcopy(complete))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if is_check(cell):
            points = cell.metadata.nbgrader.points
            cell.source = graded(cell.source, "partial_credit", points)
    return notebook


def profile_from_outside(notebook: NotebookNode) -> NotebookNode:
    """The notebook with ALIGNLAB_PROFILE, where it is set, as its profile."""
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            pattern = r'^profile = "(\w+)"'
            given = r'profile = os.environ.get("ALIGNLAB_PROFILE", "\1")'
            source, count = re.subn(pattern, given, cell.source, flags=re.MULTILINE)
            cell.source = f"import os\n\n{source}" if count else source
    return notebook


def is_check(cell: NotebookNode) -> bool:
    """Whether a cell is a check that gives points and that students must not change."""
    marks = cell.metadata.get("nbgrader", {})
    graded = marks.get("grade", False) and marks.get("locked", False)
    return cell.cell_type == "code" and graded
