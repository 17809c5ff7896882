"""The stages of training and evaluation on the pretend device: that every tensor is
where it should be, and how often the host would wait for a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("stages.py")
RUNS = ("sft", "sampler", "reward_model", "ppo", "ppo_lora", "grpo", "dpo", "kto")

pytestmark = pytest.mark.skipif(
    not hasattr(torch._C, "_acc"), reason="torch cannot have devices made in Python"
)


def run_stages(*arguments: str) -> dict:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def stages() -> dict:
    return run_stages()


@pytest.mark.parametrize("name", [*RUNS, "elicitation"])
def test_stage_runs_on_the_device(stages, name):
    assert "error" not in stages[name], stages[name]["error"]


def test_a_tensor_left_on_the_cpu_is_refused(stages):
    assert "two devices, pretend:0 and cpu" in stages["planted"]["error"]


def test_ppo_computes_on_the_device(stages):
    assert stages["ppo"]["device"].startswith("pretend")
