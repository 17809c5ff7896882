"""The cells that `alignlab build` puts behind a notebook's title: badges that open it
elsewhere, and the set-up on Google Colab, which does nothing anywhere else.

Both need the repository's address, which is kept in notebooks/source/repository.txt.
"""

import re
from pathlib import Path

from nbformat import NotebookNode

import alignlab
from alignlab.errors import AlignlabError
from alignlab.files import write_text

TAG = "set-up"  # of generated cells: they stand in no source and show no outputs
FILE = "repository.txt"

SET_UP = """\
# @title Set-up on Google Colab (`drive`: a folder of your Drive, to keep models in)
{repository}
drive = ""  # @param {{type: "string"}}
import sys

if "google.colab" in sys.modules:  # elsewhere this cell does nothing
    from importlib.metadata import distributions

    if not any(d.version == "{version}" for d in distributions(name="alignlab")):
        assert repository, "fill in `repository`: https://github.com/OWNER/NAME"
        get_ipython().system(f"pip install -q {{repository}}/archive/HEAD.zip")
    from alignlab.course.colab import set_up

    set_up("{version}", drive)"""
ASKED = 'repository = ""  # @param {type: "string"}'


def read_repository(source: Path) -> str:
    """The repository's address, or "" if none is set.

    Args:
        source: the folder notebooks/source.
    """
    file = source / FILE
    return file.read_text(encoding="utf-8").strip() if file.exists() else ""


def set_repository(source: Path, url: str) -> None:
    """Keep the repository's address for this build and all later ones.

    Raises:
        AlignlabError: if it is no GitHub repository, which is all that Colab opens.
    """
    url = url.strip().removesuffix("/").removesuffix(".git")
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", url):
        raise AlignlabError(
            f"--repository {url!r} is not the address of a GitHub repository.",
            "Give one like https://github.com/OWNER/NAME: Colab opens no others.",
        )
    write_text(source / FILE, url + "\n")


def with_opening(notebook: NotebookNode, place: str, repository: str) -> NotebookNode:
    """The notebook with badges, if the repository is known, and the set-up cell.

    They come behind the title and before the cell of parameters, which the set-up
    neither reads nor sets.

    Args:
        notebook: changed in place, and returned.
        place: its path in the repository, "notebooks/04_ppo.ipynb".
        repository: address of the repository, or "".
    """
    cells = [badges(place, repository)] if repository else []
    cells.append(set_up_cell(place, repository))
    titled = bool(notebook.cells) and notebook.cells[0].cell_type == "markdown"
    notebook.cells[titled:titled] = cells
    return notebook


def badges(place: str, repository: str) -> NotebookNode:
    """Links that open the notebook in Colab and in Binder."""
    from nbformat.v4 import new_markdown_cell

    name = repository.removeprefix("https://github.com/")
    colab = f"https://colab.research.google.com/github/{name}/blob/main/{place}"
    binder = f"https://mybinder.org/v2/gh/{name}/HEAD?urlpath=lab/tree/{place}"
    image = "https://colab.research.google.com/assets/colab-badge.svg"
    text = (
        f"[![Open in Colab]({image})]({colab})\n"
        f"[![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})"
    )
    return new_markdown_cell(
        text, metadata={"tags": [TAG]}, id=f"badges-{Path(place).stem[:2]}"
    )


def set_up_cell(place: str, repository: str) -> NotebookNode:
    """The set-up on Colab, folded so that its title and its parameters are seen."""
    from nbformat.v4 import new_code_cell

    given = f'repository = "{repository}"' if repository else ASKED
    source = SET_UP.format(version=alignlab.__version__, repository=given)
    folded = {"cellView": "form", "jupyter": {"source_hidden": True}, "tags": [TAG]}
    return new_code_cell(source, metadata=folded, id=f"set-up-{Path(place).stem[:2]}")


def repository_of(notebook: NotebookNode) -> str:
    """The repository's address that a built notebook has in its set-up cell, or ""."""
    for cell in filter(is_generated, notebook.cells):
        address = re.search(r'^repository = "([^"]+)"', cell.source, flags=re.MULTILINE)
        if address:
            return address[1]
    return ""


def is_generated(cell: NotebookNode) -> bool:
    """Whether a cell is one of these."""
    return TAG in cell.metadata.get("tags", [])
