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


def test_the_device_refuses_what_a_gpu_refuses(stages):
    errors = stages["refusals"]["errors"]
    assert list(errors) == ["numpy", "two devices", "generator", "index"]
    assert stages["refusals"]["allowed"] == [4.0]  # by an index and a number of the CPU


def test_ppo_computes_on_the_device(stages):
    assert stages["ppo"]["device"].startswith("pretend")


@pytest.mark.parametrize("name", ["sft", "dpo"])
def test_training_computes_what_it_does_on_a_cpu(stages, name):
    own = stages[name]
    assert own["loss"] == pytest.approx(own["loss on a CPU"], rel=1e-4)


def test_replies_and_scores_are_those_of_a_cpu(stages):
    assert stages["sampler"]["greedy as on a CPU"]
    own = stages["reward_model"]
    assert own["scores"] == pytest.approx(own["scores on a CPU"], rel=1e-4)


# --- How often the host waits ---------------------------------------------------------

CEILINGS = {"sampler": 0.13, "sft": 3, "reward_model": 3, "dpo": 3}


@pytest.mark.parametrize("name", CEILINGS)
def test_host_waits_no_more_often_than_it_has_to(stages, name):
    """For each sampled token, and for each training step without a row to keep."""
    assert stages[name]["syncs"] <= CEILINGS[name], stages[name]["where"]


@pytest.mark.parametrize("name", ["ppo", "ppo_lora", "grpo"])
def test_an_update_waits_less_than_200_times(stages, name):
    """Of two updates, with two epochs each and eight sampled tokens."""
    assert sum(stages[name]["where"].values()) <= 2 * 200, stages[name]["where"]


def test_docs_tell_the_ceilings():
    text = (SCRIPT.parents[2] / "docs" / "gpu.md").read_text(encoding="utf-8")
    for number in CEILINGS.values():
        assert f"| {number} |" in text
