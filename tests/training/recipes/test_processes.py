"""`alignlab train` under `accelerate launch`: two processes make the run of one at the
same global batch, also when they are killed on the way and resumed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from alignlab.training.recipes.config import read_recipe
from alignlab.training.recipes.run import train

ROOT = Path(__file__).parents[3]
STEPS, SAVED = 6, 2
# Sums over a batch are taken in another order, which Adam makes more of where gradients
# are near 0. Measured: losses up to 2e-6 apart, weights up to 6e-5, 4e-8 on average; a
# step of Adam moves a weight by 2e-3.
LOSSES, WEIGHTS, MEAN = 1e-4, 4e-4, 1e-6
SMALL = [f"args.max_steps={STEPS}", f"args.save_steps={SAVED}", "model=300k"]
SMALL += ["args.disable_tqdm=true", "args.logging_steps=1"]
OF_PPO = ["args.max_completion_length=8", "args.local_rollout_forward_batch_size=8"]


def settings(stage, folder, batch):
    more = OF_PPO if stage == "ppo" else []
    own = [f"output_dir={folder}", f"args.per_device_train_batch_size={batch}"]
    return [*SMALL, *own, *more]


def command(stage, folder):
    """Two processes, with half of the batch each."""
    recipe = str(ROOT / "recipes" / "ddp_cpu.yaml")
    launch = [sys.executable, "-m", "accelerate.commands.launch"]
    launch += ["--config_file", recipe, "--main_process_port", "0"]
    launch += ["-m", "alignlab.train", stage, "--config", f"recipes/1m/{stage}.yaml"]
    changes = settings(stage, folder, batch=4)
    return launch + [word for change in changes for word in ("--set", change)]


def start(stage, folder, *more):
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1"}
    return subprocess.Popen(
        [*command(stage, folder), *more],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_after(process, checkpoint, seconds=300):
    """Kill every process of the run, without warning, once a checkpoint is whole."""
    end = time.monotonic() + seconds
    while not (checkpoint / "trainer_state.json").exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    everyone = psutil.Process(process.pid).children(recursive=True)
    for each in [process, *everyone]:  # workers have sessions of their own
        each.kill()
    process.wait()
    psutil.wait_procs(everyone)


def history(folder):
    state = folder / f"checkpoint-{STEPS}" / "trainer_state.json"
    rows = json.loads(state.read_text())["log_history"]
    return [row["loss"] for row in rows if "loss" in row]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "dpo", "ppo"])
def test_two_processes_killed_and_resumed_make_the_run_of_one(
    stage, tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    one, two = tmp_path / "one", tmp_path / "two"
    changes = settings(stage, one, batch=8)
    train(read_recipe(stage, f"recipes/1m/{stage}.yaml", changes))
    process = start(stage, two)
    kill_after(process, two / f"checkpoint-{SAVED}")
    last = max(two.glob("checkpoint-*"), key=lambda path: path.name)
    assert last.name != f"checkpoint-{STEPS}"
    resumed = start(stage, two, "--resume")
    said, _ = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, said[-3000:]
    assert "Continues from" in said and "2 processes (DDP)" in said
    assert len(history(one)) == STEPS
    assert history(two) == pytest.approx(history(one), abs=LOSSES)
    weights, other = (load_file(f / "model.safetensors") for f in (one, two))
    for name, tensor in weights.items():
        apart = (tensor - other[name]).abs()
        assert apart.max() < WEIGHTS and apart.mean() < MEAN, name
