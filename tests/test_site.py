"""The site builds without a warning, no link leads nowhere, nothing comes from afar."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ELSEWHERE = re.compile(r"[a-z]+:|//")


class Page(HTMLParser):
    """The links of a page, the anchors that others may lead to, and its scripts."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.ids, self.scripts = [], set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids.add(values.get("id"))
        self.links += [values[name] for name in ("href", "src") if values.get(name)]
        if tag == "script" and values.get("src"):
            self.scripts.append(values["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for name in ("myst_nb", "sphinx_book_theme", "sphinx_copybutton", "sphinx_design"):
        pytest.importorskip(name, reason="the site needs alignlab[site]")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going"]
    command += ["-d", folder / "doctrees", ROOT / "docs", folder / "html"]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    html = folder / "html"
    pages = [p for p in html.rglob("*.html") if html / "_static" not in p.parents]
    return {path: Page(path) for path in pages}


@pytest.mark.slow
def test_every_link_leads_somewhere(site):
    broken = []
    for path, page in site.items():
        for link in page.links:
            address, _, anchor = link.partition("#")
            if ELSEWHERE.match(link):
                continue
            target = path
            if address:
                target = (path.parent / address.partition("?")[0]).resolve()
            if not target.exists():
                broken.append((path.name, link))
            elif anchor and target in site and anchor not in site[target].ids:
                broken.append((path.name, link))
    assert not broken


@pytest.mark.slow
def test_scripts_come_with_the_site(site):
    assert not [s for page in site.values() for s in page.scripts if "//" in s]


@pytest.mark.slow
def test_it_has_a_page_for_every_notebook_and_guide(site):
    pages = {path.stem for path in site}
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    guides = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert notebooks | guides | {"claims", "ppo", "objectives"} <= pages
