"""Which notebooks there are, which of them are meant, and what parameters they take."""

import ast
import contextlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

import alignlab
from alignlab.errors import AlignlabError
from alignlab.runs.files import did_you_mean
from alignlab.runs.profiles import notebook_dials

NAME = re.compile(r"\d\d_\w+\.ipynb")

# Set by the runner itself, so they cannot come through --param.
OWN_PARAMETERS = {"profile": "--profile NAME", "out_dir": "--out FOLDER"}


def notebooks_folder(given: Path | None = None) -> Path:
    """The folder of numbered notebooks: the one given, or the nearest of: the working
    folder and those above it, and the checkout that the package is installed from."""
    if given is not None:
        if not given.is_dir():
            raise AlignlabError(f"there is no folder {given}.", "Check --notebooks.")
        return given.resolve()
    here = Path.cwd()
    for folder in (here, *here.parents, Path(alignlab.__file__).parents[1]):
        for candidate in (folder, folder / "notebooks"):
            if _numbered(candidate):
                return candidate
    raise AlignlabError(
        f"no notebooks were found in {here}/notebooks.",
        "Run it inside a checkout, or say where they are with --notebooks.",
    )


def _numbered(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.ipynb") if NAME.fullmatch(path.name))


def find_notebooks(folder: Path) -> dict[str, Path]:
    """The notebooks of a folder by number, in ascending order."""
    found: dict[str, Path] = {}
    for path in _numbered(folder):
        number = path.name[:2]
        if number in found:
            raise AlignlabError(
                f"two notebooks in {folder} have the number {number}: "
                f"{found[number].name} and {path.name}.",
                "Rename one of them.",
            )
        found[number] = path
    if not found:
        raise AlignlabError(
            f"{folder} holds no notebooks.", "They are named like 00_name.ipynb."
        )
    return found


def select_notebooks(folder: Path, wanted: Sequence[str] = ()) -> list[Path]:
    """The notebooks that "00", "03-05" name, in ascending order; all if none is named.

    Each builds on the ones before it, so ascending order is the order of dependency.

    Raises:
        AlignlabError: if a number is no number or there is no such notebook.
    """
    found = find_notebooks(folder)
    numbers = {number for item in wanted for number in _numbers(item)}
    for number in sorted(numbers):
        if number not in found:
            listed = ", ".join(path.stem for path in found.values())
            raise AlignlabError(f"there is no notebook {number}.", f"Known: {listed}.")
    return [path for number, path in found.items() if not numbers or number in numbers]


def _numbers(item: str) -> list[str]:
    match = re.fullmatch(r"(\d{1,2})(?:-(\d{1,2}))?", item)
    if match is None or int(match[2] or match[1]) < int(match[1]):
        raise AlignlabError(
            f"{item!r} is no notebook's number.", "Give numbers like 00 or 03-05."
        )
    return [f"{n:02d}" for n in range(int(match[1]), int(match[2] or match[1]) + 1)]


def read_parameters(pairs: Iterable[str]) -> dict[str, object]:
    """``["steps=20", "name=abc"]`` as a dictionary; values are read as Python literals
    or as lists of YAML, the way the profiles write them, and as text where they are
    neither.

    Raises:
        AlignlabError: if an item is not NAME=VALUE, or sets what has its own option.
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


def share_out(
    parameters: dict[str, object], notebooks: Sequence[Path], profile: str
) -> dict[Path, tuple[dict, dict]]:
    """For each notebook, the parameters its own cell takes and the dials it takes.

    Raises:
        AlignlabError: if a parameter is known to none of the notebooks.
    """
    known: set[str] = set()
    shared = {}
    for notebook in notebooks:
        cell = set(cell_parameters(notebook))
        dials = set(notebook_dials(notebook.name[:2], profile)) - cell
        known |= cell | dials
        shared[notebook] = (
            {name: value for name, value in parameters.items() if name in cell},
            {name: value for name, value in parameters.items() if name in dials},
        )
    for name in parameters:
        if name not in known:
            settable = sorted(known - set(OWN_PARAMETERS))
            raise AlignlabError(
                f"no selected notebook has a parameter or dial {name!r}.",
                did_you_mean(name, settable),
            )
    for notebook, (_, dials) in shared.items():
        notebook_dials(notebook.name[:2], profile, **dials)  # refuses wrong kinds
    return shared


def cell_parameters(notebook: Path) -> list[str]:
    """Names assigned in the cells tagged "parameters"."""
    import nbformat

    names = []
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", []):
            names += assigned_names(cell.source)
    return names


def assigned_names(source: str) -> list[str]:
    """Names that the top level of a piece of Python assigns to."""
    names = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        else:
            continue
        names += [target.id for target in targets if isinstance(target, ast.Name)]
    return names
