"""Small notebooks to run: one that records, one that fails, one that never ends."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PARAMETERS = 'profile = "cpu"\nseed = 0\ndevice = "cpu"\nout_dir = ""\nlimit = 1.5'
START = (
    "from alignlab.runs import record, save_figure, show_verdicts, start\n"
    "run = start(NOTEBOOK, profile, seed, device, out_dir)"
)


def write_notebook(path, *sources):
    """A notebook with a parameters cell, a call of start, and these code cells."""
    parameters = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    start = START.replace("NOTEBOOK", repr(path.stem))
    cells = [parameters, *(new_code_cell(text) for text in (start, *sources))]
    nbformat.write(new_notebook(cells=[new_markdown_cell("# A test"), *cells]), path)
    return path


@pytest.fixture
def notebooks(tmp_path):
    """An empty folder of notebooks, with a function that writes one into it."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch, request):
    """The machine is not timed and the package not read again for every test."""
    monkeypatch.setattr("alignlab.runs.runner.matrix_gflops", lambda: 30.0)
    if "package_hash" not in request.node.name:
        monkeypatch.setattr("alignlab.runs.runner.package_hash", lambda: "code")
