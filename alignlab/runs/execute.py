"""Execute one notebook with papermill, and say precisely what failed if it does.

The executed copy is called NAME.partial.ipynb until it is complete.
"""

import contextlib
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from alignlab.errors import AlignlabError, needs_extra
from alignlab.runs.environ import variable
from alignlab.runs.watch import Watch

RUNTIME = "JUPYTER_RUNTIME_DIR"


class NotebookFailed(Exception):
    """A notebook did not finish.

    Args:
        notebook: its name.
        reason: the exception, the timeout or the death of the kernel, in one line.
        cell: which code cell, counted from 1 as Jupyter numbers them; 0 before any.
        line: the first line of that cell.
    """

    def __init__(self, notebook: str, reason: str, cell: int = 0, line: str = ""):
        self.notebook, self.reason, self.cell, self.line = notebook, reason, cell, line
        where = f"in cell [{cell}] `{line}`" if cell else "before its first cell"
        super().__init__(f"{notebook} failed {where}: {reason}")


def execute(
    notebook: Path,
    out: Path,
    parameters: dict,
    watch: Watch,
    on_cell: Callable[[int, int], None] = lambda number, of: None,
) -> Path:
    """Execute a notebook in its own kernel, with its own folder as working folder.

    Args:
        notebook: the notebook; it is not changed.
        out: folder for the executed copy: NAME.ipynb, or NAME.failed.ipynb.
        parameters: values for its cell tagged "parameters".
        watch: stops it when its time is up, and measures its memory.
        on_cell: called with the number of the code cell about to run, and their total.

    Returns:
        The executed notebook.

    Raises:
        NotebookFailed: if a cell raised, the time was up, the kernel died, or the
            notebook left before its last cell.
        AlignlabError: if papermill is missing, or a kernel to run it in.
    """
    needs_extra("papermill", "run")
    # Papermill's import takes a second, which `alignlab --help` should not.
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from papermill.exceptions import PapermillExecutionError

    import alignlab.runs.engine  # noqa: F401  (registers itself with papermill)

    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    name, partial = notebook.stem, out / f"{notebook.stem}.partial.ipynb"
    place = _Place(_count_cells(notebook), on_cell)
    try:
        with _place_for_sockets(), watch:
            executed = papermill.execute_notebook(
                str(notebook),
                str(partial),
                parameters,
                engine_name="alignlab",
                kernel_name="python3",
                language="python",
                progress_bar=False,
                cwd=str(notebook.parent),
                on_cell_start=place.moves_to,
                kernel_log=out / f"{name}.log",
            )
    except NoSuchKernel:
        raise AlignlabError(
            "Jupyter has no kernel 'python3'.",
            "Install it: python -m pip install ipykernel",
        ) from None
    except (PapermillExecutionError, RuntimeError, TimeoutError) as error:
        if partial.exists():
            os.replace(partial, out / f"{name}.failed.ipynb")
        reason = _reason(error, watch)
        raise NotebookFailed(name, reason, place.cell, place.line) from error
    if not _reached_its_end(executed):
        os.replace(partial, out / f"{name}.failed.ipynb")
        reason = "it left, with sys.exit or SystemExit, before its last cell"
        raise NotebookFailed(name, reason, place.cell, place.line)
    finished = out / f"{name}.ipynb"
    os.replace(partial, finished)
    return finished


@contextlib.contextmanager
def _place_for_sockets() -> Iterator[None]:
    """A temporary folder for the kernel's connection file where Jupyter's own, in the
    user's home, cannot be written."""
    from jupyter_core.paths import jupyter_runtime_dir

    try:
        usual = Path(jupyter_runtime_dir())
        usual.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=usual).close()
    except OSError:
        with tempfile.TemporaryDirectory(prefix="alignlab-") as folder:
            with variable(RUNTIME, folder):
                yield
        return
    yield


@dataclass
class _Place:
    """Which cell is running: papermill reports each one before it starts."""

    cells: int
    on_cell: Callable[[int, int], None]
    cell: int = 0
    line: str = ""

    def moves_to(self, cell, cell_index: int) -> None:
        if _is_code(cell):
            self.cell += 1
            self.line = cell["source"].strip().splitlines()[0]
            self.on_cell(self.cell, self.cells)


def _count_cells(notebook: Path) -> int:
    """The number of code cells that are not empty, and the injected one."""
    import nbformat

    return 1 + sum(map(_is_code, nbformat.read(notebook, as_version=4).cells))


def _is_code(cell) -> bool:
    return cell["cell_type"] == "code" and bool(cell["source"].strip())


def _reached_its_end(executed) -> bool:
    """Whether no code cell is left that has not begun. Leaving with exit code 0 is no
    error to papermill, which then takes the notebook for complete."""
    return all(
        cell.metadata["papermill"]["status"] != "pending"
        for cell in executed.cells
        if _is_code(cell)
    )


TOLD = 2000  # characters of an exception's message that are told and recorded
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def _reason(error: Exception, watch: Watch) -> str:
    """What went wrong, in one line."""
    if watch.timed_out:
        return f"it was stopped after {watch.timeout:g} seconds"
    if hasattr(error, "ename"):
        message = " ".join(_COLOURS.sub("", str(error.evalue)).split())
        message = message if len(message) <= TOLD else f"{message[:TOLD]} …"
        return f"{error.ename}: {message}" if message else error.ename
    if type(error).__name__ == "DeadKernelError":
        memory = watch.peak_memory / 1e9
        return f"the kernel died holding {memory:.1f} GB; the memory may have run out"
    return f"the kernel did not answer: {' '.join(str(error).split())}"
