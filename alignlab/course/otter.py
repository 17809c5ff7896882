"""`alignlab course otter`: the notebooks as `otter assign` of otter-grader reads them.

Otter looks for raw cells that say where a question and its tests begin and end, takes
solutions out by markers of its own, and compares what tests return with what they did.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path

from nbformat import NotebookNode

from alignlab.course.award import graded
from alignlab.course.build import BEGIN, END, STUB, without_rubric
from alignlab.course.teaching import chosen_notebooks, is_check, profile_from_outside
from alignlab.files import write_text

SHARES = (0.25, 0.5, 0.75, 1.0)  # a test each: of the cases that are right

CONFIG = """\
# ASSIGNMENT CONFIG
name: {name}
strip_solutions_from_all_cells: true
requirements: [alignlab]
export_cell: {{pdf: false}}
generate: {{seed_variable: null}}
"""


def export_for_otter(folder: Path, wanted: Sequence[str] = ()) -> list[Path]:
    """Write NAME/NAME.ipynb of every notebook, for `otter assign NAME.ipynb dist`.

    Args:
        folder: new, or empty.
        wanted: numbers of notebooks, "04"; by default all.

    Raises:
        AlignlabError: if the folder holds something, or there is no such notebook.
    """
    import nbformat

    written = []
    for path in chosen_notebooks(folder, wanted):
        notebook = for_otter(nbformat.read(path, as_version=4), path.stem)
        place = folder / path.stem / path.name
        written.append(write_text(place, nbformat.writes(notebook) + "\n"))
    return written


def for_otter(complete: NotebookNode, name: str) -> NotebookNode:
    """A complete notebook as otter's source: each check becomes a question whose tests
    ask for a quarter more of the right cases each."""
    notebook = profile_from_outside(deepcopy(complete))
    cells = [_raw(CONFIG.format(name=name))]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if is_check(cell):
            cells += _question(cell)
        else:
            cell.source = without_rubric(with_otters_markers(cell.source))
            cell.metadata.pop("nbgrader", None)
            cells.append(cell)
    notebook.cells = cells
    return notebook


def with_otters_markers(source: str) -> str:
    """A cell whose solutions otter takes out, leaving the stub that ours leave."""
    lines = []
    for line in source.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        if line.strip() == BEGIN:
            lines += [f'{indent}""" # BEGIN PROMPT', *(indent + stub for stub in STUB)]
            lines += [f'{indent}""" # END PROMPT']
            lines += [f"{indent}# BEGIN SOLUTION NO PROMPT"]
        elif line.strip() == END:
            lines.append(f"{indent}# END SOLUTION")
        else:
            lines.append(line)
    return "\n".join(lines)


def _question(check: NotebookNode) -> Iterator[NotebookNode]:
    marks = check.metadata.nbgrader
    name = marks.grade_id.replace("-", "_").removesuffix("_check")
    yield _raw(f"# BEGIN QUESTION\nname: {name}\npoints: {marks.points}")
    yield _raw("# BEGIN TESTS")
    yield from (_test(check.source, share) for share in SHARES)
    yield _raw("# END TESTS")
    yield _raw("# END QUESTION")


def _test(check: str, share: float) -> NotebookNode:
    from nbformat.v4 import new_code_cell, new_output

    right = new_output("execute_result", {"text/plain": "True"}, execution_count=1)
    return new_code_cell(graded(check, "at_least", share), outputs=[right])


def _raw(text: str) -> NotebookNode:
    from nbformat.v4 import new_raw_cell

    return new_raw_cell(text)
