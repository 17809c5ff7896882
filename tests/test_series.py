"""The whole series on somebody else's base model: a folder with a tiny Qwen2. It is
random but for some seconds of training, so that it ends its replies and some are better
than others. Every notebook runs, and says what cannot be known of such a model.

It takes minutes: `python -m pytest -m series tests/test_series.py`.
"""

import json

import nbformat
import pytest

from alignlab.course.notebooks import find_notebooks
from alignlab.models.base import load_base, save_model
from alignlab.runs.claims import load_claims
from alignlab.runs.folders import FINISHED
from alignlab.runs.judging import PRETRAINING_UNKNOWN
from alignlab.runs.runner import run_series
from alignlab.study.artifacts import demonstrations
from alignlab.training.sft import finetune
from alignlab.world import tasks
from tests import tiny_models

pytestmark = pytest.mark.series


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The model's folder."""
    read = demonstrations(tasks.default_world(), 4, 0)
    read += [
        {"prompt": example.prompt, "completion": example.completion}
        for example in tasks.mixture(1000, seed=0)
    ]
    texts = [f"{row['prompt']} {row['completion']}" for row in read]
    folder = tmp_path_factory.mktemp("model") / "qwen2"
    made, tokenizer = load_base(tiny_models.qwen2_folder(folder, texts))
    options = dict(batch_size=16, learning_rate=1e-2, progress=False)
    finetune(made, tokenizer, read, steps=200, **options)
    save_model(made, tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    """The series up to 08 on profile smoke, and its folder."""
    out = tmp_path_factory.mktemp("runs") / "foreign"
    return run_series(
        ["00-08"],
        profile="smoke",
        params=[f"model={model}"],
        out=out,
        keep_going=True,
        timeout=3600,  # of one notebook: a machine that is busy is no failure
    )


def test_every_notebook_runs(run):
    assert [str(failure) for failure in run.failures] == []
    state = json.loads((run.folder / "run.json").read_text())["notebooks"]
    assert len(state) == 9
    assert {entry["status"] for entry in state.values()} == {FINISHED}


def test_claims_that_rest_on_pretraining_say_so_and_no_others(run):
    everything = json.loads((run.folder / "metrics.json").read_text())
    unknown = {
        name
        for name, entry in everything["claims"].items()
        if entry["verdict"] == PRETRAINING_UNKNOWN
    }
    assert unknown == {
        claim.id
        for claim in load_claims().values()
        if claim.needs_known_pretraining and claim.notebook <= "08"
    }
    assert "pretraining unknown" in (run.folder / "report.html").read_text()


def test_every_notebook_says_what_is_not_known(run, model):
    for path in find_notebooks(run.folder).values():
        text = json.dumps(nbformat.read(path, as_version=4))
        assert f"Base model: {model}" in text, path.stem


def test_every_condition_is_measured_as_ever(run):
    """What profile smoke measures of a model that ships it measures of any other."""
    missing = {}
    for path in find_notebooks(run.folder).values():
        recorded = json.loads((run.folder / path.stem / "metrics.json").read_text())
        wanted = {
            condition.metric
            for claim in load_claims().values()
            if claim.notebook == path.stem[:2] and not claim.needs_known_pretraining
            for condition in claim.conditions
        }
        missing |= dict.fromkeys(wanted - set(recorded["metrics"]), path.stem)
    assert missing == {}
