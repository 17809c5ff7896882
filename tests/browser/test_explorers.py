"""Every notebook in a real JupyterLab: it runs, and whatever control a reader moves, by
mouse or by keyboard, the picture below it changes.

Needs Chromium and Playwright, and takes minutes:
`python -m pytest -m browser tests/browser`.
"""

import os
import re
import shutil
from pathlib import Path

import nbformat
import pytest

from alignlab.course.build import read_source
from tests.browser.jupyterlab import (
    cells_with_widgets,
    changed,
    drag,
    open_notebook,
    picture,
    press_arrow,
    run_all,
    scroll_to,
    serving,
)

pytestmark = pytest.mark.browser

SOURCES = sorted(Path("notebooks/source").glob("[0-9]*.py"))
MOST_SECONDS = 900  # for all cells of a notebook


@pytest.fixture(scope="module")
def chromium():
    api = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
    with api.sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        place = shutil.which("chromium") or own
        if not Path(place).exists():
            pytest.skip(
                "needs Chromium: neither on the PATH nor installed by Playwright"
            )
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=place, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(chromium, tmp_path_factory):
    """A JupyterLab with every notebook on profile smoke."""
    pytest.importorskip("jupyterlab", reason="needs JupyterLab")
    folder = tmp_path_factory.mktemp("notebooks")
    for source in SOURCES:
        notebook = read_source(source)
        for cell in notebook.cells:
            if "parameters" in cell.metadata.get("tags", []):
                cell.source = cell.source.replace('"cpu"  #', '"smoke"  #')
        nbformat.write(notebook, folder / f"{source.stem}.ipynb")
    with serving(folder) as address:
        yield address


@pytest.fixture
def page(chromium):
    """A page; what goes wrong in its scripts fails the test."""
    page, wrong = chromium.new_page(viewport={"width": 1400, "height": 1100}), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    yield page
    page.close()
    assert wrong == []


@pytest.mark.parametrize("name", [source.stem for source in SOURCES])
def test_every_control_changes_its_picture(name, page, address):
    open_notebook(page, address, f"{name}.ipynb")
    assert run_all(page, MOST_SECONDS) == []
    moved = 0
    for index in cells_with_widgets(page):
        outputs = scroll_to(page, index)
        if outputs.locator(".alignlab-rating").count():
            rate(outputs)
        moved += move_all(outputs)
    assert moved or name.startswith("09"), "a notebook without an explorer"


def move_all(outputs) -> int:
    """Move all controls of a cell; how many there are."""
    sliders = outputs.locator(".noUi-handle")
    for slider in sliders.all():
        for move in (drag, press_arrow):
            before = picture(outputs)
            move(slider)
            assert changed(outputs, before), (move.__name__, slider.get_attribute("id"))
    menus = outputs.locator("select")
    for menu in menus.all():
        before = picture(outputs)
        menu.select_option(index=menu.locator("option").count() - 1)
        assert changed(outputs, before)
    fields = outputs.locator(".widget-text input")
    for field in fields.all():
        before = picture(outputs)
        field.fill("The capital of France is")
        field.press("Enter")
        assert changed(outputs, before)
    return sliders.count() + menus.count() + fields.count()


def rate(outputs) -> None:
    """Rate two pairs, one with the mouse and one with a key."""
    place = outputs.locator(".rating-line").first
    number = int(re.search(r"pair (\d+) of", place.inner_text())[1])
    outputs.locator(".rate-left").click()
    place.get_by_text(f"pair {number + 1} of").wait_for()
    outputs.locator(".rating-keys").focus()
    outputs.page.keyboard.press("ArrowRight")
    place.get_by_text(f"pair {number + 2} of").wait_for()
