"""Which notebooks a run executes, and which parameters and settings each one takes."""

import ast
import contextlib
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import yaml

from alignlab.course.notebooks import assigned_names, find_notebooks
from alignlab.errors import AlignlabError, did_you_mean
from alignlab.runs.profiles import check_type, notebook_settings
from alignlab.store import without_password

# Set by the runner itself, so they cannot come through --param.
OWN_PARAMETERS = {"profile": "--profile NAME", "out_dir": "--out FOLDER"}
RENAMED = {"size": "model"}  # what a setting was called before
SECRET = re.compile(
    r"(.*_)?(token|password|passwd|secret|credentials?|(api|access|secret)_?key)", re.I
)


def select_notebooks(
    folder: Path, wanted: Sequence[str] = (), named_only: Collection[str] = ()
) -> list[Path]:
    """The notebooks that "00", "03-05" name, in ascending order; without names, all but
    those that run only when they are named.

    Each builds on the ones before it, so ascending order is the order of dependency.

    Args:
        named_only: the numbers of the latter, see
            :func:`alignlab.runs.profiles.named_only`.

    Raises:
        AlignlabError: if a number is no number or there is no such notebook.
    """
    by_number = find_notebooks(folder)
    numbers = {number for item in wanted for number in _numbers(item)}
    for number in sorted(numbers):
        if number not in by_number:
            listed = ", ".join(path.stem for path in by_number.values())
            raise AlignlabError(f"There is no notebook {number}.", f"Known: {listed}.")
    numbers = numbers or by_number.keys() - set(named_only)
    return [path for number, path in by_number.items() if number in numbers]


def _numbers(item: str) -> list[str]:
    match = re.fullmatch(r"(\d{1,2})(?:-(\d{1,2}))?", item)
    if match is None or int(match[2] or match[1]) < int(match[1]):
        raise AlignlabError(
            f"{item!r} is not the number of a notebook.",
            "Give numbers like 00 or 03-05.",
        )
    return [f"{n:02d}" for n in range(int(match[1]), int(match[2] or match[1]) + 1)]


def read_parameters(pairs: Iterable[str]) -> dict[str, object]:
    """``["steps=20", "name=abc"]`` as a dictionary; values are read as Python literals
    or as lists of YAML, the way the profiles write them, and as text where they are
    neither.

    Raises:
        AlignlabError: if an item is not NAME=VALUE, sets what has its own option, has
            a name of former times, or seems to hold a secret.
    """
    parameters = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise AlignlabError(
                f"--param {pair!r} is not of the form NAME=VALUE.",
                "Write it as --param seed=3.",
            )
        if name in OWN_PARAMETERS:
            raise AlignlabError(
                f"--param cannot set {name}.", f"Use {OWN_PARAMETERS[name]}."
            )
        if SECRET.fullmatch(name) or without_password(value) != value:
            raise AlignlabError(
                f"--param {name} seems to hold a secret, and a run records its "
                "parameters.",
                "Pass it in an environment variable, which no record holds.",
            )
        if name in RENAMED:
            raise AlignlabError(
                f"--param {pair}: {name!r} is called {RENAMED[name]!r} now.",
                f"Write --param {RENAMED[name]}={value}.",
            )
        parameters[name] = _literal(value)
    return parameters


def _literal(value: str) -> object:
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    with contextlib.suppress(ValueError, SyntaxError):
        return ast.literal_eval(value)
    if value.startswith("["):
        with contextlib.suppress(yaml.YAMLError):
            return yaml.safe_load(value)
    return value


def assign_parameters(
    parameters: dict[str, object], notebooks: Sequence[Path], profile: str
) -> dict[Path, tuple[dict, dict]]:
    """For each notebook, those that its parameters cell takes and those that override
    its settings.

    Raises:
        AlignlabError: if a parameter is known to none of the notebooks, or it or a
            setting is given a value of the wrong type.
    """
    known: set[str] = set()
    assigned = {}
    for notebook in notebooks:
        cell = cell_parameters(notebook)
        settings = set(notebook_settings(notebook.name[:2], profile)) - cell.keys()
        known |= cell.keys() | settings
        for name in parameters.keys() & cell.keys():
            check_type("parameter", name, parameters[name], cell[name])
        assigned[notebook] = (
            {name: value for name, value in parameters.items() if name in cell},
            {name: value for name, value in parameters.items() if name in settings},
        )
    for name in parameters:
        if name not in known:
            raise AlignlabError(
                f"No selected notebook has a parameter or setting {name!r}.",
                did_you_mean(name, sorted(known - set(OWN_PARAMETERS))),
            )
    for notebook, (_, settings) in assigned.items():
        notebook_settings(notebook.name[:2], profile, **settings)  # checks the types
    return assigned


def cell_parameters(notebook: Path) -> dict[str, object]:
    """Names assigned in the cell tagged "parameters", with their values where these are
    literals, else None; none without such a cell.

    Raises:
        AlignlabError: if there are two such cells, or it holds anything but plain
            assignments, such as a magic or a shell command: only names it is seen to
            assign can be set from outside.
    """
    import nbformat

    sources = [
        cell.source
        for cell in nbformat.read(notebook, as_version=4).cells
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", [])
    ]
    if len(sources) > 1:
        raise AlignlabError(
            f'{notebook.name} has {len(sources)} cells with the tag "parameters"; '
            "values are set behind the first one, and the others would undo that.",
            "Put all parameters into one cell.",
        )
    for source in sources:
        line = _line_that_is_no_assignment(source)
        if line is not None:
            raise AlignlabError(
                f"Line {line} of the parameters cell of {notebook.name} is no plain "
                f"assignment: `{source.splitlines()[line - 1].strip()}`.",
                'Keep lines like `seed = 0` in the cell with the tag "parameters", and '
                "move all others, such as magics and imports, to a cell of their own.",
            )
    return _assigned(sources[0]) if sources else {}


def _assigned(source: str) -> dict[str, object]:
    """The names that assignments give a value to, with the values that are literals."""
    values = dict.fromkeys(assigned_names(source))
    for node in ast.parse(source).body:
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            if target is not None:
                with contextlib.suppress(ValueError):
                    values[target.id] = ast.literal_eval(node.value)
    return values


def _line_that_is_no_assignment(source: str) -> int | None:
    """The number of the first line that does anything but give names a value."""
    try:
        body = ast.parse(source).body
    except SyntaxError as error:  # a magic, a shell command, or a slip
        return min(error.lineno or 1, len(source.splitlines()))
    for node in body:
        annotated = isinstance(node, ast.AnnAssign) and node.value is not None
        targets = [node.target] if annotated else getattr(node, "targets", [])
        plain = annotated or isinstance(node, ast.Assign)
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        named = all(isinstance(target, ast.Name) for target in targets)
        if not is_text and not (plain and named):
            return node.lineno
    return None
