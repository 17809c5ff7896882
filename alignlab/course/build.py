"""`alignlab build`: make the complete notebook and the exercise from one source.

A source is notebooks/source/NN_name.py, in jupytext's py:percent format, with solutions
between nbgrader's markers. Notebooks are never edited by hand.
"""

import hashlib
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path

from nbformat import NotebookNode

from alignlab.course.notebooks import assigned_names, notebooks_folder
from alignlab.course.opening import is_generated, read_repository, with_opening
from alignlab.errors import AlignlabError, needs_extra
from alignlab.files import write_text
from alignlab.plots.png import compressed

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
BEGIN_RUBRIC, END_RUBRIC = "BEGIN MARK SCHEME", "END MARK SCHEME"  # nbgrader's words
STUB = ("# YOUR CODE HERE", "raise NotImplementedError()")
PARAMETERS = ("profile", "seed", "device", "out_dir")
COLUMNS = 88

KERNEL = {
    "kernelspec": {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"file_extension": ".py", "name": "python"},
}


def build_all(
    folder: Path | None = None, executed: Mapping[str, Path] | None = None
) -> list[Path]:
    """Write every complete notebook and every exercise.

    Other notebooks than the executed ones keep the outputs they have, as long as none
    of their code cells has changed.

    Args:
        folder: the notebooks' folder, which holds source/.
        executed: executed copies to take the outputs from, by the notebooks' names.

    Raises:
        AlignlabError: if a source cannot be built, or the code of an executed copy is
            not that of its source.
    """
    written, executed = [], executed or {}
    for source in sources(folder):
        complete, exercise = versions(source)
        place, exercises = _targets(source)
        if source.stem in executed:
            outputs = _read_executed(executed[source.stem])
            complete = with_outputs(complete, outputs)
        else:
            complete = with_outputs(complete, _read(place), required=False)
        written += [_write(complete, place), _write(exercise, exercises)]
    return written


def check_all(folder: Path | None = None) -> list[str]:
    """How the built notebooks differ from their sources, a line each, and what is wrong
    with the sources themselves. Outputs do not count."""
    problems = []
    for source in sources(folder):
        problems += [f"{source.name}: {fault}" for fault in lint(read_source(source))]
        for expected, place in zip(versions(source), _targets(source)):
            drifted = _drift(expected, _read(place))
            if drifted:
                remedy = "run `alignlab build`"
                problems.append(f"{_name(place)}: {drifted}; {remedy}")
    return problems


def versions(source: Path) -> tuple[NotebookNode, NotebookNode]:
    """The complete notebook of a source and its exercise, with badges and set-up."""
    repository = read_repository(source.parent)
    complete = read_source(source)
    return tuple(
        with_opening(notebook, _name(place), repository)
        for notebook, place in zip(
            (complete, student_version(complete)), _targets(source)
        )
    )


# --- Where things are -------------------------------------------------------------


def sources(folder: Path | None = None) -> list[Path]:
    """notebooks/source/NN_name.py, in ascending order."""
    folder = folder or _folder_with_sources()
    files = sorted((folder / "source").glob("[0-9][0-9]_*.py"))
    if not files:
        raise AlignlabError(
            f"There are no sources in {folder / 'source'}.",
            "Run it in a checkout, or name the folder of notebooks with --notebooks.",
        )
    return files


def _folder_with_sources() -> Path:
    """The notebooks folder of the checkout, even before the first build."""
    for place in (Path.cwd(), *Path.cwd().parents):
        for folder in (place, place / "notebooks"):
            if (folder / "source").is_dir():
                return folder
    return notebooks_folder()


def _targets(source: Path) -> tuple[Path, Path]:
    """Where a source's complete notebook and its exercise go."""
    folder, name = source.parents[1], f"{source.stem}.ipynb"
    return folder / name, folder / "exercises" / name


def _name(place: Path) -> str:
    parents = 3 if place.parent.name == "exercises" else 2
    return "/".join(place.parts[-parents:])


def _read(place: Path) -> NotebookNode | None:
    import nbformat

    return nbformat.read(place, as_version=4) if place.exists() else None


def _write(notebook: NotebookNode, place: Path) -> Path:
    import nbformat

    nbformat.validate(notebook)
    return write_text(place, nbformat.writes(notebook) + "\n")


# --- From the source --------------------------------------------------------------


def read_source(source: Path) -> NotebookNode:
    """The complete notebook of a source, without outputs, with nbgrader's metadata.

    Raises:
        AlignlabError: if markers do not pair up, or two cells have the same grade_id.
    """
    needs_extra("jupytext", "run")
    import jupytext

    notebook = jupytext.reads(source.read_text(encoding="utf-8"), fmt="py:percent")
    notebook.metadata = NotebookNode(deepcopy(KERNEL))
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for cell in notebook.cells:
        for name in [name for name in cell.metadata if name.startswith("lines_to_")]:
            del cell.metadata[name]  # jupytext's notes on blank lines
    _identify(notebook, source.stem)
    _mark_for_grading(notebook, source)
    return notebook


def _identify(notebook: NotebookNode, name: str) -> None:
    """Give cells ids made from their text, so that a new cell changes no other's id."""
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        key = f"{name}\0{cell.cell_type}\0{cell.source}"
        seen[key] = seen.get(key, 0) + 1
        digest = hashlib.sha256(f"{key}\0{seen[key]}".encode())
        cell.id = digest.hexdigest()[:12]


def _mark_for_grading(notebook: NotebookNode, source: Path) -> None:
    """nbgrader's metadata (schema 3) for solutions and for graded checks.

    A cell's metadata in the source may have ``grade_id="nb01-q2"``, ``points=2`` if it
    is graded, or all of ``nbgrader={...}``. Solutions without an id are numbered.
    """
    number, ids = source.stem[:2], set()
    for count, cell in enumerate(_gradable(notebook, source), start=1):
        points = cell.metadata.pop("points", None)
        marks = {
            "grade": points is not None,
            "grade_id": cell.metadata.pop("grade_id", f"nb{number}-s{count}"),
            "locked": not _has_solution(cell),
            "schema_version": 3,
            "solution": _has_solution(cell),
            "task": False,
            **({} if points is None else {"points": points}),
            **cell.metadata.get("nbgrader", {}),
        }
        name = marks["grade_id"]
        if name in ids:
            raise AlignlabError(
                f"{source.name}: two cells have the grade_id {name!r}.", "Rename one."
            )
        ids.add(name)
        cell.metadata["nbgrader"] = marks


def _gradable(notebook: NotebookNode, source: Path) -> Iterator[NotebookNode]:
    for cell in notebook.cells:
        markers = re.findall(f"{BEGIN}|{END}", cell.source)
        if markers != [BEGIN, END] * (len(markers) // 2):
            raise AlignlabError(
                f"{source.name}: BEGIN SOLUTION and END SOLUTION do not pair up in the "
                f"cell that begins {cell.source.splitlines()[0]!r}.",
                "Write one END for each BEGIN.",
            )
        rubrics = re.findall(f"{BEGIN_RUBRIC}|{END_RUBRIC}", cell.source)
        if rubrics not in ([], [BEGIN_RUBRIC, END_RUBRIC]):
            raise AlignlabError(
                f"{source.name}: the rubric of the cell that begins "
                f"{cell.source.splitlines()[0]!r} has no beginning or no end.",
                f"Write {BEGIN_RUBRIC} before it and {END_RUBRIC} behind it.",
            )
        if markers or "grade_id" in cell.metadata or "nbgrader" in cell.metadata:
            yield cell


def _has_solution(cell: NotebookNode) -> bool:
    return BEGIN in cell.source


def student_version(notebook: NotebookNode) -> NotebookNode:
    """The exercise: stubs that raise NotImplementedError in place of the solutions, and
    no rubrics."""
    student = deepcopy(notebook)
    for cell in student.cells:
        cell.source, _ = split_rubric(without_solutions(cell.source))
    return student


def split_rubric(source: str) -> tuple[str, str]:
    """The text of a question, and what its answers are graded by."""
    question, rubric, inside = [], [], False
    for line in source.splitlines():
        if BEGIN_RUBRIC in line or END_RUBRIC in line:
            inside = BEGIN_RUBRIC in line
        else:
            (rubric if inside else question).append(line)
    return "\n".join(question).rstrip(), "\n".join(rubric).strip()


def without_solutions(source: str) -> str:
    """A cell with each solution replaced by the stub, equally indented."""
    lines, inside = [], False
    for line in source.splitlines():
        if line.strip() == BEGIN:
            indent = line[: len(line) - len(line.lstrip())]
            lines += [indent + stub for stub in STUB]
            inside = True
        elif line.strip() == END:
            inside = False
        elif not inside:
            lines.append(line)
    return "\n".join(lines)


# --- Checking --------------------------------------------------------


def lint(notebook: NotebookNode) -> Iterator[str]:
    """What is wrong with a notebook: its parameters cell, or lines too long."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        yield f"{len(tagged)} cells are tagged parameters; there must be one"
    else:
        assigned = assigned_names(tagged[0].source)
        missing = [name for name in PARAMETERS if name not in assigned]
        if missing:
            yield f"the parameters cell does not set {', '.join(missing)}"
    for cell in code:
        for line in cell.source.splitlines():
            if len(line) > COLUMNS:
                start = line.strip()[:40]
                yield f"a line has {len(line)} columns, {COLUMNS} fit: {start}..."


def _drift(expected: NotebookNode, built: NotebookNode | None) -> str | None:
    """How a built notebook differs from its source, apart from outputs."""
    if built is None:
        return "it is missing"
    pairs = list(zip(expected.cells, built.cells))
    for index, (wanted, actual) in enumerate(pairs, start=1):
        if _content(wanted) != _content(actual):
            first = (wanted.source.splitlines() or [""])[0][:50]
            return f"cell {index} ({first!r} in the source) differs"
    if len(expected.cells) != len(built.cells):
        return f"it has {len(built.cells)} cells, its source {len(expected.cells)}"
    return None


def _content(cell: NotebookNode) -> tuple:
    return cell.cell_type, cell.source, cell.id, dict(cell.metadata)


# --- Outputs of a recorded run ----------------------------------------------------


def _read_executed(path: Path) -> NotebookNode:
    """An executed notebook without the cell that papermill injected."""
    import nbformat

    text = path.read_text(encoding="utf-8")
    made = json.loads(text)["metadata"]["papermill"]
    folder, checkout = Path(made["output_path"]).parent, Path(made["input_path"])
    text = text.replace(str(folder), f"runs/{path.parent.name}")
    text = text.replace(f"{checkout.parents[1]}/", "")
    notebook = nbformat.reads(text, as_version=4)
    injected = "injected-parameters"
    notebook.cells = [
        cell for cell in notebook.cells if injected not in cell.metadata.get("tags", [])
    ]
    return notebook


def with_outputs(
    notebook: NotebookNode, executed: NotebookNode | None, required: bool = True
) -> NotebookNode:
    """The notebook with the outputs of an executed copy of the same code.

    Args:
        notebook: fresh from its source.
        executed: the copy; None leaves the notebook without outputs.
        required: whether different code in the copy is an error; otherwise the notebook
            is left without outputs.
    """
    code = _own_code(notebook)
    ran = _own_code(executed) if executed else []
    if [cell.source for cell in code] != [cell.source for cell in ran]:
        if required:
            raise AlignlabError(
                "The run is of other sources: their code has changed since.",
                "Run the notebooks again, then build with that run.",
            )
        return notebook
    counts = iter(range(1, len(code) + 1))
    for cell, done in zip(code, ran):
        if done.get("execution_count") is None:
            continue
        cell.execution_count = next(counts)
        shown = filter(_lasts, done.outputs)
        cell.outputs = [_cleaned(output) for output in shown]
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = cell.execution_count
    return notebook


def _own_code(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells of its source; the others may be newer than a recorded run."""
    return [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and not is_generated(cell)
    ]


def _lasts(output: NotebookNode) -> bool:
    """Whether an output means something without a kernel; sliders and bars do not."""
    return "application/vnd.jupyter.widget-view+json" not in output.get("data", {})


def _cleaned(output: NotebookNode) -> NotebookNode:
    """An output without paths of the machine that made it, and with small pictures."""
    output = deepcopy(output)
    if "metadata" in output:
        output.metadata = NotebookNode()
    if "text" in output:
        output.text = without_paths(output.text)
    for kind, value in output.get("data", {}).items():
        if kind == "image/png":
            output.data[kind] = b64encode(compressed(b64decode(value))).decode()
        elif isinstance(value, str) and not kind.startswith("image/"):
            output.data[kind] = without_paths(value)
    return output


def without_paths(text: str) -> str:
    """Text in which absolute paths start at the project or package."""
    text = re.sub(r"(/[\w.+~-]+)*/ipykernel_\d+/\d+\.py", "cell", text)
    text = re.sub(r"[\w.+~/-]*/site-packages/", "", text)
    return re.sub(r"(/[\w.+~-]+)+/(runs|notebooks|alignlab)/", r"\2/", text)
