"""Smoke of every notebook on the pretend device, kernels included. That takes half an
hour, so it runs when it is asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NUMBERS = [path.name[:2] for path in sorted((ROOT / "notebooks").glob("0[0-8]*.ipynb"))]

pytestmark = pytest.mark.skipif(
    "ALIGNLAB_PRETEND_NOTEBOOKS" not in os.environ,
    reason="takes half an hour: set ALIGNLAB_PRETEND_NOTEBOOKS=1",
)


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
def test_notebook_runs_on_the_device(number, tmp_path):
    folders = [str(Path(__file__).parent), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, folders)),
        "ALIGNLAB_PRETEND_DEVICE": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "alignlab.cli", "run", number]
    command += ["--profile", "smoke", "--out", str(tmp_path / "run")]
    command += ["--param", "device=pretend", "--param", "jobs=1", "--timeout", "3000"]
    run = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
