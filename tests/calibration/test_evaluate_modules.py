"""`evaluate.load(path)` gives the library's own numbers, in batches too."""

import json
import os
import pickle
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import evaluate
import numpy as np
import pytest
import yaml

import alignlab
from alignlab import calibration
from alignlab.calibration.evaluate_modules import module_names, module_path
from alignlab.calibration.evaluate_modules.hub import write_module
from alignlab.errors import AlignlabError


@pytest.fixture
def load(tmp_path):
    return lambda name: evaluate.load(module_path(name), cache_dir=str(tmp_path))


def events(n=400):
    rng = np.random.default_rng(0)
    confidence = rng.beta(3, 1.5, n)
    return confidence, (rng.random(n) < confidence**1.5).astype(int)


def test_every_module_says_what_it_takes(load):
    assert len(module_names()) == 5
    for name in module_names():
        metric = load(name)
        features = {"predictions", "references"}
        assert metric.name == name and set(metric.features) == features
        assert metric.description and metric.citation.startswith("@")
        assert "Returns:" in metric.inputs_description
        assert pickle.loads(pickle.dumps(type(metric))) is type(metric)
    with pytest.raises(ValueError, match="name is 'ece'; there are area_under"):
        module_path("ece")


@pytest.mark.parametrize("options", [{}, {"n_bins": 7, "strategy": "quantile"}])
def test_expected_calibration_error(load, options):
    p, y = events()
    results = load("expected_calibration_error").compute(
        predictions=p, references=y, **options
    )
    error = calibration.expected_calibration_error(p, y, **options)
    assert results["expected_calibration_error"] == error
    assert results["by_chance"] == calibration.null_calibration_error(p, **options)
    rms = calibration.calibration_error_interval(p, y, options.get("n_bins", 15))
    assert [results["rms"], results["rms_low"], results["rms_high"]] == list(rms)


def test_it_gathers_batches_and_takes_certainty_for_what_it_is(load):
    metric = load("expected_calibration_error")
    metric.add_batch(predictions=[0.95], references=[1])
    metric.add_batch(predictions=[1.0], references=[0])
    results = metric.compute(n_bins=10)
    assert results["expected_calibration_error"] == pytest.approx(0.475)
    assert "rms" not in results


def test_results_say_which_confidence_they_are_of(load):
    given = dict(predictions=[0.9, 0.6, 0.8], references=[1, 0, 1])
    metric = load("expected_calibration_error")
    assert metric.compute(**given)["of"] == "confidence"
    assert metric.compute(**given, of="P(True)")["of"] == "P(True)"
    assert "of: which probability" in metric.inputs_description
    rows = dict(predictions=[[0.9, 0.1], [0.4, 0.6]], references=[0, 1])
    assert load("classwise_calibration_error").compute(**rows)["of"] == "every class"


def test_smooth_brier_and_risk_coverage(load):
    p, y = events()
    results = load("smooth_calibration_error").compute(predictions=p, references=y)
    smooth = calibration.smooth_calibration_error(p, y)
    assert results == {"smooth_calibration_error": smooth, "of": "confidence"}
    results = load("brier_decomposition").compute(predictions=p, references=y)
    parts = calibration.brier_decomposition(p, y)._asdict()
    assert results == parts | {"of": "confidence"}
    metric = load("area_under_risk_coverage")
    results = metric.compute(predictions=p, references=y)
    area = calibration.area_under_risk_coverage(p, y)
    assert results["area_under_risk_coverage"] == area
    assert results["error_rate"] == pytest.approx(1 - y.mean())
    assert results["auroc"] == calibration.auroc(p, y)
    assert "auroc" not in metric.compute(predictions=[0.5, 0.7], references=[1, 1])


def test_classwise(load):
    rng = np.random.default_rng(0)
    p, labels = rng.dirichlet(np.ones(3), 300), rng.integers(0, 3, 300)
    results = load("classwise_calibration_error").compute(
        predictions=p, references=labels, norm="l2"
    )
    expected = calibration.classwise_calibration_error(p, labels, norm="l2")
    assert results["classwise_calibration_error"] == pytest.approx(expected, rel=1e-12)


def test_wrong_numbers_are_named(load):
    metric = load("expected_calibration_error")
    with pytest.raises(ValueError, match=r"confidence\[1\] is 1.5"):
        metric.compute(predictions=[0.5, 1.5], references=[0, 1])


# --- In the Hub's layout ------------------------------------------------------------

FRESH = """
import json, sys
import evaluate
metric = evaluate.load(sys.argv[1])
given = json.loads(sys.argv[2])
print(json.dumps([metric.name, metric.compute(**given)]))
"""


def in_a_fresh_process(path, given, tmp_path):
    """Offline, elsewhere, and with no module in the cache."""
    variables = {
        "HF_HUB_OFFLINE": "1",
        "HF_EVALUATE_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "home"),
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "PYTHONPATH": str(Path(alignlab.__file__).parents[1]),
    }
    command = [sys.executable, "-c", FRESH, str(path), json.dumps(given)]
    process = subprocess.run(
        command,
        env=os.environ | variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.parametrize("as_script", [False, True])
def test_a_written_folder_loads_offline_in_a_fresh_process(tmp_path, as_script):
    p, y = events(200)
    given = {"predictions": p.tolist(), "references": y.tolist(), "of": "stated"}
    name = "smooth_calibration_error"
    folder = write_module(name, tmp_path / "to publish")
    path = folder / f"{name}.py" if as_script else folder
    loaded, results = in_a_fresh_process(path, given, tmp_path)
    error = calibration.smooth_calibration_error(p, y)
    assert loaded == name and results == {name: pytest.approx(error), "of": "stated"}


def test_every_module_is_written_as_the_hub_wants_it(tmp_path, monkeypatch):
    shown = []
    widget = SimpleNamespace(launch_gradio_widget=shown.append)
    monkeypatch.setitem(sys.modules, "evaluate.utils", widget)
    for name in module_names():
        folder = write_module(name, tmp_path)
        files = {path.name for path in folder.iterdir()}
        assert files == {f"{name}.py", "README.md", "requirements.txt", "app.py"}
        head, text = (folder / "README.md").read_text().split("---\n")[1:]
        card = yaml.safe_load(head)
        assert card["sdk"] == "gradio" and card["tags"] == ["evaluate", "metric"]
        assert card["description"] and "predictions:" in text and "@" in text
        asked = f"alignlab=={alignlab.__version__}\n"
        assert (folder / "requirements.txt").read_text() == asked
        runpy.run_path(str(folder / "app.py"))
        assert shown[-1].name == name
        example = text.split("```python")[1].split("```")[0]
        exec(example.replace(f'"{name}"', repr(str(folder))), {})


def test_a_folder_with_files_is_left_as_it_is(tmp_path):
    name = "brier_decomposition"
    folder = write_module(name, tmp_path, "alignlab @ git+https://example.org/a.git")
    assert (folder / "requirements.txt").read_text().startswith("alignlab @ git+")
    with pytest.raises(AlignlabError, match="is not empty"):
        write_module(name, tmp_path)
    with pytest.raises(ValueError, match="name is 'ece'"):
        write_module("ece", tmp_path)
