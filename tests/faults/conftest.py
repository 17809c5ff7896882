"""What the fault suite shares: its table, and a series of tiny notebooks.

``python -m pytest tests/faults -m "faults or not faults"`` does every fault for real
and prints the table: how often each was tried, how often alignlab survived it (it
went on, or said in a line what to do), and how often nothing was lost or half-believed.
"""

import os
from dataclasses import dataclass

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from .killing import STARTED, Forked


@dataclass
class Row:
    """A line of the table."""

    fault: str
    tried: int = 0
    survived: int = 0
    kept: int = 0


TABLE: dict[str, Row] = {}


@pytest.fixture
def fault(request):
    """A function that opens the row of a fault."""
    return lambda name: TABLE.setdefault(name, Row(name))


def pytest_terminal_summary(terminalreporter):
    if not TABLE:
        return
    terminalreporter.section("faults")
    width = max(map(len, TABLE))
    line = f"{'fault':{width}}  tried  survived  nothing lost"
    terminalreporter.write_line(line)
    for row in TABLE.values():
        line = f"{row.fault:{width}}  {row.tried:5}  {row.survived:8}  {row.kept:12}"
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def leaves_nothing_running():
    yield
    for process in STARTED:
        process.kill()
        process.communicate()
    for process in STARTED:  # several may have written into one file
        if isinstance(process, Forked):
            process.output.unlink(missing_ok=True)
    STARTED.clear()


@pytest.fixture(scope="session")
def imported():
    """Everything that a run imports, once, for all that is forked."""
    import nbconvert  # noqa: F401
    import papermill  # noqa: F401


PARAMETERS = 'profile = "smoke"\nseed = 0\ndevice = "cpu"\nout_dir = ""\nlimit = 1.5'
# What runs.start and record do, without the seconds that their import takes.
START = """import contextlib, time
from pathlib import Path
from alignlab import cache
from alignlab.files import write_json
cache.one_thread = contextlib.nullcontext"""
BUILD = """def build(folder):
    with open(cache.cache_dir() / "builds", "a") as log:
        log.write("{name}\\n")
    time.sleep(0.3)
    (folder / "value").write_text("{name}" * 5000)

text = (cache.artifact("demo", build, key=dict(name="{name}"), code=[cache]) / "value")
size = len(text.read_text())"""
RECORD = """answer = dict(value=size + limit + seed, low=None, high=None, claim=None)
answer |= dict(seeds=None, unit="", n=None)
record = dict(metrics=dict(answer=answer), figures=[], settings=dict(), seeds=[0])
write_json(Path(out_dir) / "metrics.json", record)
print("x" * 2000)"""


@pytest.fixture
def write_notebook(tmp_path, imported):
    """A function that writes a notebook that builds an artifact and records a number,
    or one with the cells it is given."""
    folder = tmp_path / "notebooks"

    def write(name, *sources):
        folder.mkdir(exist_ok=True)
        parameters = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
        texts = [text.format(name=name) for text in (START, *(() if sources else BOTH))]
        cells = [parameters, *map(new_code_cell, (*texts, *sources))]
        nbformat.write(new_notebook(cells=cells), folder / f"{name}.ipynb")
        return folder

    return write


BOTH = (BUILD, RECORD)


@pytest.fixture
def series(write_notebook):
    """The folder of three such notebooks."""
    for name in ("90_first", "91_second", "92_third"):
        folder = write_notebook(name)
    return folder


@pytest.fixture
def require_root():
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk and to become somebody else")
