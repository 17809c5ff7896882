"""The progress of a run: a live line per notebook, or plain lines in a log."""

import time

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

MARKS = {"finished": "[green]✓[/]", "failed": "[red]✗[/]", "kept": "[dim]=[/]"}


class Progress:
    """Context manager that is told when a notebook begins, reaches a cell, and ends.

    A terminal shows a bar for every notebook, with its cell and the elapsed time. A
    file gets one line as each notebook ends.
    """

    def __init__(self, console: Console, names: list[str]):
        self._console, self._began = console, {}
        self._width = max(map(len, names), default=0)
        self._live = RichProgress(
            TextColumn("{task.fields[mark]} {task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[where]}"),
            TimeElapsedColumn(),
            console=console,
            refresh_per_second=4,
            disable=not console.is_terminal,
        )
        self._tasks = {
            name: self._live.add_task(
                f"{name:{self._width}}", start=False, total=1, mark=" ", where=""
            )
            for name in names
        }

    def __enter__(self) -> "Progress":
        self._live.start()
        return self

    def __exit__(self, *_) -> None:
        self._live.stop()

    def begin(self, name: str) -> None:
        """The kernel of a notebook is starting."""
        self._began[name] = time.monotonic()
        self._live.start_task(self._tasks[name])
        self._live.update(self._tasks[name], where="starting", mark="[yellow]▶[/]")

    def cell(self, name: str, number: int, of: int) -> None:
        """Code cell ``number`` (from 1) of ``of`` is about to run."""
        where = f"cell {number}/{of}"
        self._live.update(
            self._tasks[name], completed=number - 1, total=of, where=where
        )

    def end(self, name: str, status: str, detail: str = "") -> None:
        """The notebook finished, failed, or was kept from an earlier run."""
        task = self._tasks[name]
        self._live.update(task, mark=MARKS[status], where=status)
        if status != "failed":
            self._live.update(task, total=1, completed=1)
        self._live.stop_task(task)
        seconds = time.monotonic() - self._began.get(name, time.monotonic())
        took = "" if status == "kept" else f" in {seconds:.0f} s"
        line = f"{name}: {status}{took}{', ' + detail if detail else ''}"
        if not self._console.is_terminal:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
