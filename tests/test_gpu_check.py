"""scripts/gpu_check: that it runs, and that it fails where it has to."""

import importlib.util
import json
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest
import torch

from alignlab.models.base import device_in_use, use_device

SCRIPT = Path(__file__).parents[1] / "scripts" / "gpu_check"

pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="not in a checkout")


@pytest.fixture
def script():
    loader = SourceFileLoader("gpu_check", str(SCRIPT))
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader("gpu_check", loader)
    )
    loader.exec_module(module)
    before = device_in_use()
    yield module
    use_device(before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_cuda_it_fails_and_says_so(script, capsys):
    assert script.main([]) == 2
    message = capsys.readouterr().err
    assert "no CUDA device" in message and "nothing was checked" in message


def test_the_sampler_is_checked_against_generate(script, tmp_path, capsys):
    file = tmp_path / "gpu_check.json"
    assert (
        script.main(["--device", "cpu", "--only", "sampler", "--json", str(file)]) == 0
    )
    report = json.loads(file.read_text())
    assert report["ok"] and report["where"]["name"] == "cpu"
    assert report["checks"]["sampler"]["float32"]["same tokens"] == 1.0
    assert "nothing of this ran on a GPU" in capsys.readouterr().out


def test_what_does_not_hold_is_the_verdict(script, monkeypatch, capsys):
    def broken(bench):
        raise RuntimeError("a kernel is missing")

    checks = {"fine": lambda bench: {"ok": True}, "wrong": lambda bench: {"ok": False}}
    monkeypatch.setattr(script, "Bench", lambda device, folder: None)
    monkeypatch.setattr(script, "CHECKS", checks | {"broken": broken})
    assert script.main(["--device", "cpu"]) == 1
    printed = capsys.readouterr().out
    assert "FAILED: wrong, broken" in printed and "a kernel is missing" in printed
