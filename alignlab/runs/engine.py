"""The papermill engine behind `alignlab run`: reports each cell, logs the kernel.

Papermill's own engine lets the kernel write to the terminal; this one logs to a file.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from queue import Empty

from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.log import logger

LOOK_AGAIN = 2.0  # seconds
OUTPUT_LIMIT = 1_000_000  # characters of a cell's outputs that are kept
LINE_LIMIT = 20_000  # characters of a line of a traceback
CUT = (
    f"\n[alignlab: this cell's output is longer than {OUTPUT_LIMIT:,} characters; the "
    "rest is not kept]\n"
)


class Client(PapermillNotebookClient):
    """Papermill's client of a kernel, which can miss a reply and then wait for ever.

    While it waits for a cell, widgets send messages to the kernel through the same
    socket, outside the event loop, and a reply that arrives just then is not announced.
    So this one looks into the socket every ``LOOK_AGAIN`` seconds.

    Of a cell's outputs it keeps ``OUTPUT_LIMIT`` characters, and says so: a loop that
    prints for an hour must not become a notebook that nothing can open.
    """

    def papermill_execute_cells(self) -> None:
        shell = self.kc.shell_channel
        shell.get_msg = partial(look_again, shell.get_msg)
        self._kept: dict[int, int] = {}  # characters, by cell
        super().papermill_execute_cells()

    def output(self, outs, msg, display_id, cell_index):
        """Add a message to a cell's outputs, as far as there is room."""
        if self.clear_before_next_output:
            self._kept[cell_index] = 0
        kept = self._kept.get(cell_index, 0)
        more = size_of(msg["content"])
        if kept + more > OUTPUT_LIMIT:
            self._kept[cell_index] = OUTPUT_LIMIT + 1  # from now on nothing
            if kept > OUTPUT_LIMIT and msg["msg_type"] != "error":
                return None
            shorten(msg, OUTPUT_LIMIT - kept)
            display_id = None  # what replaces it cannot be updated
        else:
            self._kept[cell_index] = kept + more
        return super().output(outs, msg, display_id, cell_index)

    def clear_output(self, outs, msg, cell_index):
        super().clear_output(outs, msg, cell_index)
        if not outs:
            self._kept[cell_index] = 0


def size_of(content: object) -> int:
    """Characters of all text in the content of a message."""
    if isinstance(content, str):
        return len(content)
    if isinstance(content, dict):
        return sum(map(size_of, content.values()))
    return sum(map(size_of, content)) if isinstance(content, list) else 0


def shorten(msg: dict, room: int) -> None:
    """Cut a message down: printed text to ``room`` characters, each line of a traceback
    to ``LINE_LIMIT``, and pictures and pages altogether. ``CUT`` says so."""
    content = msg["content"]
    if msg["msg_type"] == "error":
        content["evalue"] = content["evalue"][:LINE_LIMIT]
        content["traceback"] = [line[:LINE_LIMIT] for line in content["traceback"]]
        return
    text = content["text"][:room] if msg["msg_type"] == "stream" else ""
    msg["msg_type"] = msg["header"]["msg_type"] = "stream"
    msg["content"] = {"name": content.get("name", "stdout"), "text": text + CUT}


async def look_again(
    get_msg: Callable[..., Awaitable[dict]], timeout: float | None = None
) -> dict:
    """The next message; without a timeout, keep asking until there is one.

    Raises:
        queue.Empty: if none has come by the timeout.
    """
    while timeout is None:
        try:
            return await get_msg(timeout=LOOK_AGAIN)
        except Empty:
            continue
    return await get_msg(timeout=timeout)


class LoggingEngine(NBClientEngine):
    """Executes a notebook as papermill does, with two more arguments."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man,
        kernel_name: str,
        kernel_log: Path,
        on_cell_start: Callable,
        start_timeout: float = 60,
        **_,
    ):
        """Run every cell.

        Args:
            nb_man: papermill's manager of the notebook.
            kernel_name: the kernel to start.
            kernel_log: file for what the kernel writes, apart from cells' outputs.
            on_cell_start: called with ``cell`` and ``cell_index`` before each cell.
            start_timeout: seconds to wait for the kernel to answer.
        """
        client = Client(
            nb_man,
            kernel_name=kernel_name,
            startup_timeout=start_timeout,
            on_cell_start=on_cell_start,
            iopub_timeout=60,  # outputs may come late on a busy machine
            log=logger,
        )
        with kernel_log.open("wb") as log:
            return client.execute(stdout=log, stderr=log)


papermill_engines.register("alignlab", LoggingEngine)
