"""Commands killed with -9 at random moments, and resumed until they are done: nothing
is lost, nothing half-done counts, and the end is that of a run that nobody killed."""

import itertools
import json
import random
import shutil
import time
from functools import partial
from pathlib import Path

import nbformat
import pytest
import yaml

from alignlab import cache
from alignlab.data import sources
from tests.data.toy import WHEEL, cached, index, toy  # noqa: F401
from tests.training.test_pretrain import run as pretrain
from tests.training.test_pretrain import small, tiny_world  # noqa: F401

from .killing import ROOT, Forked, finish, kill_after, start

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


KILLS = 8  # of each command, at least


def killed(start, longest: float, row, check, seed: int = 0) -> None:
    """Start something again and again, and kill it at a random moment each time, until
    it is done.

    Args:
        check: called after each kill.
    """
    moments = random.Random(seed)
    for _ in range(60):
        process = start()
        if not kill_after(process, moments.uniform(0.05, 0.7) * longest):
            assert process.returncode == 0, process.communicate()[0]
            return
        row.tried += 1
        check()
        row.survived, row.kept = row.survived + 1, row.kept + 1
        longest *= 1.05  # on a busy machine it may be too short to get anywhere
    raise AssertionError("it made no progress")


def test_run_and_resume(series, tmp_path, fault):
    row = fault("kill -9 at random moments: run, run --resume")
    arguments = ("run", "--profile", "smoke", "--notebooks", series, "--out")
    began = time.monotonic()
    finish(start(*arguments, "whole", cwd=tmp_path, cache=tmp_path / "other"))
    longest = time.monotonic() - began
    for trial in itertools.takewhile(lambda _: row.tried < KILLS, itertools.count()):
        out, folder, before = tmp_path / f"out{trial}", tmp_path / f"c{trial}", {}

        def command(out=out, folder=folder):
            return start(*arguments, out, "--resume", cwd=tmp_path, cache=folder)

        def check(out=out, folder=folder, before=before):
            now = finished(out)
            assert before.items() <= now.items(), "what is finished is not done again"
            before.update(now)
            intact(folder)

        killed(command, longest, row, check, seed=trial)
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


def test_pretrain(small, tmp_path, fault):  # noqa: F811
    row = fault("kill -9 at random moments: pretrain")
    models = ("300k", "300k-stable")

    def start(out):
        work = partial(pretrain, out, epochs=4.0)
        return Forked(work, tmp_path / "told", cwd=tmp_path)

    began = time.monotonic()
    finish(start(tmp_path / "whole"))
    longest, out = time.monotonic() - began, tmp_path / "out"
    whole = {n: tmp_path / "whole" / n / "model.safetensors" for n in models}
    whole = {name: file.read_bytes() for name, file in whole.items()}

    def check():
        for name in models:  # under its own name only when it is whole
            file = out / name / "model.safetensors"
            assert not file.exists() or file.read_bytes() == whole[name]

    for trial in itertools.takewhile(lambda _: row.tried < KILLS, itertools.count()):
        killed(partial(start, out), longest, row, check, seed=trial)
        assert sorted(p.name for p in out.iterdir()) == sorted(models)
        for name in models:
            file = out / name / "model.safetensors"
            assert file.read_bytes() == whole[name], "to the last bit"
        shutil.rmtree(out)


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

    import trl  # noqa: F401  once, for all that is forked

    import alignlab.training.recipes.run  # noqa: F401

    finish(command(tmp_path / "whole"))
    began = time.monotonic()
    finish(command(tmp_path / "second"))
    longest = time.monotonic() - began
    whole = (tmp_path / "whole" / "model.safetensors").read_bytes()
    out = tmp_path / "out" / "model.safetensors"

    def check():
        assert not out.exists() or out.read_bytes() == whole

    killed(partial(command, tmp_path / "out"), longest, row, check)
    assert row.tried and out.read_bytes() == whole, "to the last bit"
    assert (tmp_path / "out" / "README.md").exists()


def test_data_pull(toy, index, tmp_path, fault):  # noqa: F811
    """Real pip, from a folder: killed anywhere between its start and its end."""
    row = fault("kill -9 at random moments: data pull")

    def pull():
        sources.pull(["toy-source"], progress=False)
        print(sources.read_text("toy-source", "toy/hello.txt"))

    start = partial(Forked, pull, tmp_path / "told", tmp_path)
    began = time.monotonic()
    finish(start())
    longest, moments = time.monotonic() - began, random.Random(0)
    for _ in range(10):
        cached(toy).unlink(missing_ok=True)
        process = start()
        if not kill_after(process, moments.random() * longest):
            assert process.returncode == 0
            continue
        row.tried += 1
        assert "hello\nworld" in finish(start())
        names = {path.name for path in cached(toy).parent.iterdir()}
        assert names == {WHEEL, f"{WHEEL}.lock", f"{WHEEL}.verified"}
        row.survived, row.kept = row.survived + 1, row.kept + 1
    assert row.tried
