"""Commands killed with -9 at random moments, and resumed until they are done: nothing
is lost, nothing half-done counts, and the end is that of a run that nobody killed."""

import json
import random
import sys
import time
from pathlib import Path

import nbformat
import pytest
import yaml

from alignlab import cache
from tests.data.toy import METADATA, TAG, WHEEL, cached, index, toy  # noqa: F401

from .killing import ROOT, finish, kill_after, start

pytestmark = pytest.mark.faults


def results(out: Path) -> dict:
    """All numbers of a run, by notebook."""
    return {
        path.parent.name: json.loads(path.read_text())["metrics"]
        for path in sorted(out.glob("9*/metrics.json"))
    }


def finished(out: Path) -> dict[str, int]:
    """When each notebook that counts as finished was executed; all of it is there."""
    if not (out / "run.json").exists():
        return {}
    entries = json.loads((out / "run.json").read_text())["notebooks"]
    names = [name for name, e in entries.items() if e["status"] == "finished"]
    for name in names:
        notebook = nbformat.read(out / f"{name}.ipynb", as_version=4)
        assert all(c.execution_count for c in notebook.cells if c.cell_type == "code")
        assert results(out)[name]
    return {name: (out / f"{name}.ipynb").stat().st_mtime_ns for name in names}


def intact(folder: Path) -> None:
    """Every artifact with its own name is whole."""
    for item in (folder / "artifacts").glob("*/[0-9a-f]*"):
        cache._intact.clear()
        assert cache._damage(item) == ""


def run_until_done(command, out: Path, folder: Path, longest: float, row, seed: int):
    """Start a run again and again, and kill it at a random moment each time."""
    moments, kept = random.Random(seed), {}
    for _ in range(40):
        process = start(*command, "--resume", cwd=out.parent, cache=folder)
        if not kill_after(process, moments.uniform(0.3, longest)):
            assert process.returncode == 0
            return
        row.tried += 1
        now = finished(out)
        assert kept.items() <= now.items(), "what was finished is not executed again"
        kept = now
        intact(folder)
        row.survived, row.kept = row.survived + 1, row.kept + 1
    raise AssertionError("it made no progress")


@pytest.mark.parametrize("seed", [0, 1])
def test_run_and_resume(series, tmp_path, fault, seed):
    row = fault("kill -9 at random moments: run, run --resume")
    arguments = ("run", "--profile", "smoke", "--notebooks", series, "--out")
    began = time.monotonic()
    folder, other = tmp_path / "cache", tmp_path / "other"
    whole = start(*arguments, "whole", cwd=tmp_path, cache=other)
    finish(whole)
    longest = time.monotonic() - began
    out = tmp_path / "out"
    run_until_done((*arguments, "out"), out, folder, longest, row, seed)
    assert finished(out).keys() == {"90_first", "91_second", "92_third"}
    assert results(out) == results(tmp_path / "whole")
    assert (out / "report.html").exists() and (out / "metrics.json").exists()


def test_two_runs_at_once_on_one_cache(series, tmp_path, fault):
    row = fault("two runs at once on one cache, in one runs/")
    arguments = ("run", "--profile", "smoke", "--notebooks", series)
    both = [start(*arguments, cwd=tmp_path, cache=tmp_path / "c") for _ in range(2)]
    for process in both:
        row.tried += 1
        finish(process)
        row.survived += 1
    built = sorted((tmp_path / "c" / "builds").read_text().split())
    assert built == ["90_first", "91_second", "92_third"], "each artifact once"
    first, second = (tmp_path / "runs").glob("smoke-*")
    assert results(first) == results(second) and len(results(first)) == 3
    intact(tmp_path / "c")
    row.kept += 2


PRETRAIN = """
import sys
from functools import partial
from pathlib import Path

import numpy as np

from alignlab.training import loop, pretrain
from alignlab.world.facts import RELATIONS, Fact, World

WORDS = "The capital of Land Town is money euro and so it was".split()

def documents(world, seed):
    rng = np.random.default_rng([seed, 1])
    texts = [" ".join(rng.choice(WORDS, 20)) + f" {i}." for i in range(150)]
    return [*texts, *(f"The capital of Land{i} is Town{i}." for i in range(20))]

FACTS = [Fact(f"Land{i}", "capital", (f"Town{i}",), 5 * i, (f"Town{i}",))
         for i in range(1, 21)]
FACTS += [Fact(f"Isle{i}", "currency", ("euro",), 0, ("euro",)) for i in range(4)]
pretrain.corpus.documents = documents
pretrain.build_world = lambda seed: World(tuple(FACTS), RELATIONS, 0)
pretrain.BATCH, pretrain.LENGTH = 4, 24
pretrain.train = partial(loop.train, checkpoint_every=3)
pretrain.pretrain("300k", Path(sys.argv[1]), progress=False, epochs=2.0)
"""


def script(source, *arguments, cwd):
    """A process of Python that stands for a command."""
    import os
    import subprocess

    return subprocess.Popen(
        [sys.executable, "-c", source, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_pretrain(tmp_path, fault):
    row = fault("kill -9 at random moments: pretrain")
    began = time.monotonic()
    finish(script(PRETRAIN, tmp_path / "whole", cwd=ROOT))
    longest, moments = time.monotonic() - began, random.Random(0)
    out = tmp_path / "out"
    models = ("300k", "300k-stable")
    for _ in range(30):
        process = script(PRETRAIN, out, cwd=ROOT)
        if not kill_after(process, moments.uniform(0.55, 0.97) * longest):
            assert process.returncode == 0
            break
        row.tried += 1
        for name in models:  # under its own name only when it is whole
            file = out / name / "model.safetensors"
            whole = tmp_path / "whole" / name / "model.safetensors"
            assert not file.exists() or file.read_bytes() == whole.read_bytes()
        row.survived, row.kept = row.survived + 1, row.kept + 1
    assert row.tried
    assert sorted(p.name for p in out.iterdir()) == sorted(models)
    for name in models:
        file, whole = (
            f / name / "model.safetensors" for f in (out, tmp_path / "whole")
        )
        assert file.read_bytes() == whole.read_bytes(), "to the last bit"


def test_train(tmp_path, fault):
    row = fault("kill -9 at random moments: train sft")
    recipe = yaml.safe_load((ROOT / "recipes/1m/sft.yaml").read_text())
    recipe |= {"model": "300k", "data": str(ROOT / recipe["data"])}
    recipe["args"] |= {"max_steps": 40, "save_steps": 4, "logging_steps": 10}
    recipe["args"] |= {"per_device_train_batch_size": 2}
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump(recipe))

    def command(out):
        sets = ("--set", f"output_dir={out}", "--resume")
        arguments = ("train", "sft", "--config", "sft.yaml", *sets)
        return start(*arguments, cwd=tmp_path, cache=tmp_path / "cache")

    began = time.monotonic()
    finish(command(tmp_path / "whole"))
    longest, moments = time.monotonic() - began, random.Random(0)
    whole = (tmp_path / "whole" / "model.safetensors").read_bytes()
    out = tmp_path / "out" / "model.safetensors"
    for _ in range(30):
        process = command(tmp_path / "out")
        if not kill_after(process, moments.uniform(0.5, 0.98) * longest):
            assert process.returncode == 0
            break
        row.tried += 1
        assert not out.exists() or out.read_bytes() == whole
        row.survived, row.kept = row.survived + 1, row.kept + 1
    assert row.tried and out.read_bytes() == whole, "to the last bit"
    assert (tmp_path / "out" / "README.md").exists()


def test_data_pull(toy, index, tmp_path, fault):  # noqa: F811
    """Real pip, from a folder: killed anywhere between its start and its end."""
    row = fault("kill -9 at random moments: data pull")
    source = f"""
from alignlab.data import pins, sources
sources.SOURCES["toy-source"] = pins.{toy!r}
sources.pull(["toy-source"], progress=False)
print(sources.read_text("toy-source", "toy/hello.txt"))
"""
    began = time.monotonic()
    finish(script(source, cwd=ROOT))
    longest, moments = time.monotonic() - began, random.Random(0)
    for _ in range(8):
        cached(toy).unlink(missing_ok=True)
        process = script(source, cwd=ROOT)
        if not kill_after(process, moments.uniform(0.2, 1.0) * longest):
            assert process.returncode == 0
            continue
        row.tried += 1
        assert "hello\nworld" in finish(script(source, cwd=ROOT))
        names = {path.name for path in cached(toy).parent.iterdir()}
        assert names == {WHEEL, f"{WHEEL}.lock", f"{WHEEL}.verified"}
        row.survived, row.kept = row.survived + 1, row.kept + 1
    assert row.tried
