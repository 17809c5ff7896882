"""A run that was not started as it was asked for says so, and how it is done."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from alignlab.errors import AlignlabError
from alignlab.training.recipes.launch import (
    processes_asked_for,
    require_started_as_asked,
)

ROOT = Path(__file__).parents[3]
FSDP = {"ACCELERATE_USE_FSDP": "true"}


def check(world_size=1, on_cpu=True, environment=None, **more):
    require_started_as_asked(world_size, on_cpu, environment=environment or {}, **more)


def test_what_was_asked_for_passes():
    check()
    check(launcher=["--num_processes", "1", "x.py"])
    check(2, launcher=["--num-processes=2", "x.py"], in_recipe=2)
    check(8, on_cpu=False, environment=FSDP, gpus=1)


@pytest.mark.parametrize(
    "options, said",
    [
        (
            dict(launcher=["--cpu", "--num_processes", "2", "x.py"]),
            "asked for 2 processes, and started 1: with --cpu it always starts one",
        ),
        (dict(environment=FSDP, world_size=2), "accelerate shards nothing"),
        (dict(on_cpu=False, gpus=4), "One process sees 4 GPUs"),
        (dict(in_recipe=8), "The recipe is for 8 processes, and there is 1"),
        (dict(in_recipe=8, world_size=2), "there are 2"),
    ],
)
def test_what_was_not_asked_for_is_refused(options, said):
    with pytest.raises(AlignlabError) as error:
        check(**options)
    assert said in str(error.value) and "accelerate launch" in str(error.value)


def test_a_configuration_file_says_how_many(tmp_path):
    config = str(ROOT / "recipes" / "ddp_cpu.yaml")
    assert processes_asked_for(["--config_file", config, "x.py"]) == 2
    assert processes_asked_for(["--config_file", config, "-m", "x", "--n", "3"]) == 2
    given = ["--config_file", config, "--num_processes", "3", "x.py"]
    assert processes_asked_for(given) == 3
    assert processes_asked_for(["x.py", "--num_processes", "5"]) is None


@pytest.mark.slow
@pytest.mark.parametrize("way", ["-m", "command"])
def test_accelerate_on_cpus_without_a_configuration_is_refused(tmp_path, way):
    """accelerate would start one process in silence."""
    recipe = ["sft", "--config", "recipes/1m/sft.yaml", "--dry-run"]
    recipe += ["--set", f"output_dir={tmp_path}"]
    module = ["-m", "alignlab.train", *recipe]
    script = [str(Path(sys.executable).with_name("alignlab")), "train", *recipe]
    if way == "command" and not Path(script[0]).exists():
        pytest.skip("the command alignlab is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "--cpu"]
        + ["--num_processes", "2", *(module if way == "-m" else script)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode != 0
    assert "asked for 2 processes, and started 1" in done.stderr, done.stderr[-2000:]
