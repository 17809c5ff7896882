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


class Client(PapermillNotebookClient):
    """Papermill's client of a kernel, which can miss a reply and then wait for ever.

    While it waits for a cell, widgets send messages to the kernel through the same
    socket, outside the event loop, and a reply that arrives just then is not announced.
    So this one looks into the socket every ``LOOK_AGAIN`` seconds.
    """

    def papermill_execute_cells(self) -> None:
        shell = self.kc.shell_channel
        shell.get_msg = partial(look_again, shell.get_msg)
        super().papermill_execute_cells()


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
