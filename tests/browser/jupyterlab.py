"""A JupyterLab, and what a reader does in it: open a notebook, run it, move sliders."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

SECONDS = 1000  # Playwright counts in milliseconds
NO_NEWS = {"notification": {"fetchNews": "false", "checkForUpdates": False}}


@contextmanager
def serving(folder: Path, settings: dict | None = None):
    """The address of a JupyterLab that shows a folder, with files ``settings`` of
    ``@jupyterlab/apputils-extension``.

    Raises:
        RuntimeError: with the server's log, if it does not answer.
    """
    home = folder / ".jupyter"
    place = home / "settings" / "@jupyterlab" / "apputils-extension"
    place.mkdir(parents=True)
    for name, content in (NO_NEWS | (settings or {})).items():
        (place / f"{name}.jupyterlab-settings").write_text(json.dumps(content))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        *("--ServerApp.port", str(port), "--ServerApp.port_retries", "0"),
        *("--ServerApp.root_dir", str(folder), "--IdentityProvider.token", ""),
        "--LabApp.expose_app_in_browser=True",
    ]
    environment = os.environ | {
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
    }
    log = home / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(server, address, log)
            yield address
        finally:
            server.terminate()  # it ends its kernels, too
            server.wait(30)


def _wait_for(server: subprocess.Popen, address: str, log: Path) -> None:
    for _ in range(120):
        try:
            urllib.request.urlopen(f"{address}/api", timeout=5).close()
            return
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.5)
    raise RuntimeError(f"JupyterLab does not answer:\n{log.read_text()[-3000:]}")


# --- Notebooks ------------------------------------------------------------------------

NOTEBOOK = "window.jupyterapp.shell.currentWidget"
STATE = f"""() => {{
  const panel = {NOTEBOOK};
  const cells = panel.content.widgets.filter(
    cell => cell.model.type === 'code' && cell.model.sharedModel.source.trim());
  const outputs = cells.flatMap(cell => cell.model.outputs.toJSON());
  return {{
    status: panel.sessionContext.session?.kernel?.status,
    waiting: cells.filter(cell => !cell.model.executionCount).length,
    errors: outputs.filter(output => output.output_type === 'error')
      .map(output => output.ename + ': ' + output.evalue),
  }};
}}"""
SCROLL = f"""index => {{
  const cells = {NOTEBOOK}.content;
  cells.activeCellIndex = index;
  return cells.scrollToItem(index, 'start');
}}"""
WITH_WIDGETS = f"""() => {NOTEBOOK}.content.widgets.flatMap((cell, index) =>
  cell.model.type === 'code' && cell.model.outputs.toJSON().some(
    output => output.data?.['application/vnd.jupyter.widget-view+json'])
  ? [index] : [])"""


def open_notebook(page, address: str, name: str) -> None:
    """Open a notebook of the folder, in a workspace of its own."""
    page.goto(f"{address}/lab/tree/{name}?reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60 * SECONDS)
    page.wait_for_function(
        f"() => {NOTEBOOK}?.sessionContext?.session?.kernel?.status === 'idle'",
        timeout=60 * SECONDS,
    )


def run_all(page, seconds: float) -> list[str]:
    """Run all cells from the menu, and wait. Returns the errors in their outputs.

    Raises:
        TimeoutError: if it takes longer.
    """
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        state = page.evaluate(STATE)
        if state["errors"] or (state["status"] == "idle" and not state["waiting"]):
            return state["errors"]
        page.wait_for_timeout(SECONDS)
    raise TimeoutError(f"after {seconds} seconds: {state}")


def cells_with_widgets(page) -> list[int]:
    """Their places in the notebook."""
    return page.evaluate(WITH_WIDGETS)


def scroll_to(page, index: int):
    """The outputs of a cell, once they are on the screen."""
    page.evaluate(SCROLL, index)
    cell = page.locator(f'.jp-Notebook [data-windowed-list-index="{index}"]')
    cell.locator(".jupyter-widgets").first.wait_for(timeout=30 * SECONDS)
    return cell.locator(".jp-Cell-outputWrapper")


# --- Controls -------------------------------------------------------------------------

PICTURE = """outputs => [...outputs.querySelectorAll('.jp-OutputArea-output')]
  .filter(output => !output.querySelector('.jupyter-widgets'))
  .map(output => output.innerHTML).join('')"""


def picture(outputs) -> str:
    """What stands below the widgets of a cell, as HTML with its images in it."""
    return outputs.evaluate(PICTURE)


def changed(outputs, before: str, seconds: float = 30) -> bool:
    """Whether the picture becomes another one; waits until it stays as it is and the
    kernel has nothing more to do."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        now = picture(outputs)
        outputs.page.wait_for_timeout(0.5 * SECONDS)
        idle = outputs.page.evaluate(STATE)["status"] == "idle"
        if idle and now != before and now == picture(outputs):
            return True
    return False


def drag(handle) -> None:
    """Move a slider by mouse, from one half of its track to the other."""
    mouse, track = handle.page.mouse, handle.locator("xpath=ancestor::div[2]")
    box, line = handle.bounding_box(), track.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    left = x < line["x"] + line["width"] / 2
    mouse.move(x, y)
    mouse.down()
    mouse.move(line["x"] + line["width"] * (0.8 if left else 0.2), y, steps=4)
    mouse.up()


def press_arrow(handle) -> None:
    """Move a slider by one step with an arrow key, away from its nearer end."""
    names = "aria-valuenow", "aria-valuemin", "aria-valuemax"
    value, least, most = (float(handle.get_attribute(name)) for name in names)
    handle.focus()
    handle.press("ArrowRight" if value < (least + most) / 2 else "ArrowLeft")
