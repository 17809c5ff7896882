"""The papermill engine behind `alignlab run`: tells of each cell, logs the kernel.

Papermill's own engine lets the kernel write to the terminal; here its log is a file.
"""

from collections.abc import Callable
from pathlib import Path

from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.log import logger


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
            kernel_log: file for what the kernel itself writes; cells' output is not it.
            on_cell_start: called with ``cell`` and ``cell_index`` before each cell.
            start_timeout: seconds to wait for the kernel to answer.
        """
        client = PapermillNotebookClient(
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
