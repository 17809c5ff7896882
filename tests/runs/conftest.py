"""Small notebooks to run: one that records, one that fails, one that never ends."""

import copy
import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from alignlab.runs import profiles
from alignlab.runs.claims import load_claims

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


@pytest.fixture
def write_claims(tmp_path, monkeypatch):
    """A function that makes these the claims of chapter 00, the only one."""
    folder = tmp_path / "chapters" / "demo"
    folder.mkdir(parents=True)
    monkeypatch.setattr(profiles, "CHAPTERS", folder.parent)

    def write(claims, number="00"):
        chapter = {"notebook": number, "settings": {"first_seed": {"smoke": 0}}}
        chapter["settings"]["first_seed"] |= {"cpu": 0, "full": 100, "gpu": 100}
        # JSON is YAML, except that a key null would be text.
        text = json.dumps(claims).replace('"null":', "null:")
        (folder / "profiles.yaml").write_text(json.dumps(chapter))
        (folder / "claims.yaml").write_text(text)
        load_claims.cache_clear()

    yield write
    load_claims.cache_clear()


EFFECT = {"metric": "gain", "direction": "above", "threshold": 0.1, "null": 0.0}
EFFECT |= {"bounds": [-1, 1], "why": "one answer in ten"}
CONTROL = {"metric": "twin", "direction": "below", "threshold": 0.05, "why": "nothing"}
CONTROL |= {"control": True, "breaks_if": "the twin gains as much"}
DEMO = {
    "claim": "It helps.",
    "measured_as": "accuracy with it, minus without",
    "control": "a twin without the cause",
    "reference": "Nobody (2020)",
    "min_seeds": 3,
    "chosen_by_looking": "five seeds",
    "former": [
        {"id": "demo", "verdict": "reproduced", "why": "the twin could not win"}
    ],
    "conditions": [EFFECT, CONTROL],
}


@pytest.fixture
def demo_entry():
    """What claims.yaml says of an effect "gain" and a control "twin"."""
    return copy.deepcopy(DEMO)


@pytest.fixture
def demo_claim(write_claims, demo_entry):
    """The claim demo-2, the only one."""
    write_claims({"demo-2": demo_entry})
    return load_claims()["demo-2"]
