"""The site: executed notebooks, the claims ledger, the guides and the API reference.

`make site` builds it; the pages that have a source elsewhere are made here first.
"""

import json
import re
import shutil
from pathlib import Path

import alignlab

DOCS = Path(__file__).parent
ROOT = DOCS.parent

project = "alignlab"
author = "the alignlab developers"
copyright = author
version = release = alignlab.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx-mathjax-offline",  # formulas are readable without a network
]
exclude_patterns = ["_build", "jupyter_execute"]
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type"]
default_role = "code"  # the docstrings' backquotes
myst_enable_extensions = ["colon_fence", "dollarmath", "amsmath"]
myst_heading_anchors = 3

nb_execution_mode = "off"  # the outputs are the recorded run's
# Sliders need a kernel; the picture that comes with each of them does not.
nb_mime_priority_overrides = [
    ("html", "application/vnd.jupyter.widget-view+json", None)
]
nb_merge_streams = True

autodoc_typehints = "none"  # the docstrings name shapes and units
autodoc_member_order = "bysource"
autosummary_generate = True
autodoc_class_signature = "separated"  # a config of 150 fields has no use for one line
napoleon_use_ivar = True

html_theme = "sphinx_book_theme"
html_title = "alignlab"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "show_toc_level": 2,
    "use_fullscreen_button": False,
    "home_page_in_toc": True,
}


# --- Pages with a source elsewhere ----------------------------------------------------


def write_notebooks() -> None:
    """Executed notebooks, without what only a front end with a kernel can show."""
    folder = DOCS / "notebooks"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        notebook["metadata"].pop("widgets", None)
        for cell in notebook["cells"]:
            cell["source"] = _relinked("".join(cell["source"]))
            for output in cell.get("outputs", ()):
                page = output.get("data", {}).get("text/html")
                if page:
                    output["data"]["text/html"] = _to_pages("".join(page))
        (folder / path.name).write_text(json.dumps(notebook), encoding="utf-8")


def _relinked(text: str) -> str:
    """Links into the repository become plain text: the site has no such pages."""
    return re.sub(r"(?<!!)\[([^\]]+)\]\((?:\.\./)+[^)]*\)", r"\1", text)


def relink_guide(app, name: str, source: list[str]) -> None:
    """The guides' links into the repository work where the guides are read; those to
    notebooks lead to the notebooks' pages here."""
    if name != "index":
        source[0] = _relinked(source[0].replace("](../notebooks/", "](notebooks/"))


def _to_pages(html: str) -> str:
    """Links to notebooks in tables become links to their pages."""
    return re.sub(r'href="(\d\d_\w+)\.ipynb"', r'href="\1.html"', html)


def skip_borrowed(app, what, name, obj, skip, options) -> bool | None:
    """What scikit-learn puts into each estimator is described there."""
    module = getattr(obj, "__module__", None) or ""
    borrowed = module.startswith("sklearn.") or name.endswith("_request")
    return True if borrowed else None


def setup(app) -> None:
    write_notebooks()
    app.connect("autodoc-skip-member", skip_borrowed)
    app.connect("source-read", relink_guide)
