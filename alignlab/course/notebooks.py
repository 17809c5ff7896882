"""Where the numbered notebooks are, and what names their cells assign."""

import ast
import re
import shutil
from pathlib import Path

import alignlab
from alignlab.errors import AlignlabError

NAME = re.compile(r"\d\d_\w+\.ipynb")


def notebooks_folder(given: Path | None = None) -> Path:
    """The folder of numbered notebooks: the one given, or the nearest of the working
    folder, those above it, and the checkout that the package is installed from.

    Raises:
        AlignlabError: if there is none.
    """
    if given is not None:
        if not given.is_dir():
            raise AlignlabError(f"There is no folder {given}.", "Check --notebooks.")
        return given.resolve()
    here = Path.cwd()
    for folder in (here, *here.parents, Path(alignlab.__file__).parents[1]):
        for candidate in (folder, folder / "notebooks"):
            if _numbered(candidate):
                return candidate
    raise AlignlabError(
        f"No notebooks were found in {here}/notebooks.",
        "Copy them there with `alignlab notebooks .`, or say where they are with "
        "--notebooks.",
    )


def _numbered(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.ipynb") if NAME.fullmatch(path.name))


def find_notebooks(folder: Path) -> dict[str, Path]:
    """The notebooks of a folder by number, in ascending order.

    Raises:
        AlignlabError: if there are none, or two have the same number.
    """
    by_number: dict[str, Path] = {}
    for path in _numbered(folder):
        number = path.name[:2]
        if number in by_number:
            raise AlignlabError(
                f"Two notebooks in {folder} have the number {number}: "
                f"{by_number[number].name} and {path.name}.",
                "Rename one of them.",
            )
        by_number[number] = path
    if not by_number:
        raise AlignlabError(
            f"{folder} holds no notebooks.", "They are named like 00_name.ipynb."
        )
    return by_number


def shipped_notebooks() -> Path:
    """The folder of the built notebooks that belong to this release: the checkout's or,
    if alignlab was installed from a wheel, one inside the package.

    Raises:
        AlignlabError: if the package came without them.
    """
    package = Path(alignlab.__file__).parent
    for folder in (package / "notebooks", package.parent / "notebooks"):
        if _numbered(folder):
            return folder
    raise AlignlabError(
        f"{package} came without notebooks.",
        "Install alignlab from its repository or a wheel, or run `alignlab build`.",
    )


def copy_notebooks(target: Path) -> tuple[list[Path], list[Path]]:
    """Copy notebooks, and exercises/ below them, into a folder: ``(copied, kept)``.
    What is there already may hold somebody's work, so it is kept."""
    source = shipped_notebooks()
    copied, kept = [], []
    for notebook in _numbered(source) + _numbered(source / "exercises"):
        place = target / notebook.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            kept.append(place)
        else:
            shutil.copyfile(notebook, place)
            copied.append(place)
    return copied, kept


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
