"""`alignlab course otter`: the notebooks as `otter assign` of otter-grader reads them.

Otter looks for raw cells that say where a question, its tests and its solution begin
and end, and takes solutions out by markers of its own.
"""

import ast
import builtins
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path

from nbformat import NotebookNode

from alignlab.course.build import BEGIN, END, STUB, split_rubric
from alignlab.course.opening import repository_of
from alignlab.course.teaching import chosen_notebooks, is_check, profile_from_outside
from alignlab.files import write_text

CONFIG = """\
# ASSIGNMENT CONFIG
name: {name}
requirements: ["alignlab @ {repository}/archive/HEAD.zip"]
strip_solutions_from_all_cells: true
tests: {{ok_format: false}}
export_cell: {{pdf: false}}
generate: {{seed_variable: null}}
"""

# Tests of one question share their global names, which no notebook sees: the first one
# grades the answer, in a Python of its own, and all of them look at the result.
GRADE = """\
def at_least_{percent}({names}):
    global result
    import runpy

    import alignlab

    award = runpy.run_path(f"{{alignlab.__path__[0]}}/course/award.py")
    check = award["grade"]
{before}    result = {check}
    assert result["score"] >= {share}, award["told"](result)"""
LOOK = """\
def at_least_{percent}():
    assert result["score"] >= {share}, "less than {percent} percent of the cases"\
"""
SHARES = (0.25, 0.5, 0.75, 1.0)  # a test each: of the cases that are right


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
    ask for a quarter more of the right cases each, and each interpretation one that is
    graded by hand."""
    notebook = profile_from_outside(deepcopy(complete))
    repository = repository_of(notebook) or "https://github.com/OWNER/NAME"
    cells = [_raw(CONFIG.format(name=name, repository=repository))]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if is_check(cell):
            cells += _question(cell)
        elif cell.metadata.get("nbgrader", {}).get("task"):
            cells += _interpretation(cell)
        else:
            cell.source = with_otters_markers(cell.source)
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


# --- Questions --------------------------------------------------------------------


def _question(check: NotebookNode) -> Iterator[NotebookNode]:
    yield _raw(_begin(check))
    yield _raw("# BEGIN TESTS")
    for test in quarters_of(check.source):
        yield _code(test)
    yield _raw("# END TESTS")
    yield _raw("# END QUESTION")


def quarters_of(check: str) -> Iterator[str]:
    """The functions that otter calls with the notebook's names.

    Args:
        check: the cell as readers have it; the check is its last line.
    """
    *before, last = ast.parse(check).body
    given = {
        "names": ", ".join(sorted(_names(check, ast.Load) - _names(check, ast.Store))),
        "before": "".join(f"    {ast.unparse(line)}\n" for line in before),
        "check": ast.unparse(last),
    }
    for share, form in zip(SHARES, (GRADE, LOOK, LOOK, LOOK)):
        yield form.format(share=share, percent=round(100 * share), **given)


def _names(source: str, context: type) -> set[str]:
    """The names of a notebook that a cell reads (ast.Load) or assigns (ast.Store)."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)]
    names = {node.id for node in nodes if isinstance(node.ctx, context)}
    return names - {"check"} - set(dir(builtins))


def _interpretation(task: NotebookNode) -> Iterator[NotebookNode]:
    """The question for students, and its rubric where otter has a solution."""
    question, rubric = split_rubric(task.source)
    yield _raw(_begin(task) + "\nmanual: true")
    yield _text(question)
    yield _raw("# BEGIN SOLUTION")
    yield _text(rubric)
    yield _raw("# END SOLUTION")
    yield _raw("# END QUESTION")


def _begin(cell: NotebookNode) -> str:
    marks = cell.metadata.nbgrader
    name = marks.grade_id.replace("-", "_").removesuffix("_check")
    return f"# BEGIN QUESTION\nname: {name}\npoints: {marks.points}"


def _raw(text: str) -> NotebookNode:
    from nbformat.v4 import new_raw_cell

    return new_raw_cell(text)


def _text(text: str) -> NotebookNode:
    from nbformat.v4 import new_markdown_cell

    return new_markdown_cell(text)


def _code(text: str) -> NotebookNode:
    from nbformat.v4 import new_code_cell

    return new_code_cell(text)
