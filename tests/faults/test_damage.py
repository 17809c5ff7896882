"""Bytes that changed on the disk: named and rebuilt, or refused by name; and clocks
that were set."""

import json
import os
import zipfile

import pytest
import torch

from alignlab import cache
from alignlab.errors import AlignlabError
from alignlab.files import read_json
from alignlab.runs import runner
from alignlab.runs.folders import read_run
from alignlab.training import loop, pretrain
from alignlab.training.recipes.checkpoints import damage, seal


def flip(path, at):
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1
    path.write_bytes(content)


def truncate(path, at):
    path.write_bytes(path.read_bytes()[: at % path.stat().st_size])


HARMS = (flip, truncate)


@pytest.mark.parametrize("harm", HARMS)
def test_a_model_in_the_cache(tmp_path, monkeypatch, fault, harm):
    row = fault(f"corrupt artifact: {harm.__name__}")
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))

    def build(folder):
        from safetensors.torch import save_file

        save_file({"weight": torch.arange(500.0)}, folder / "model.safetensors")

    path = cache.artifact("model", build, key={}, code=[cache])
    good = (path / "model.safetensors").read_bytes()
    for at in range(0, len(good), len(good) // 9):
        cache._intact.clear()  # as in another process
        harm(path / "model.safetensors", at)
        row.tried += 1
        with pytest.warns(UserWarning, match="model.safetensors has changed.*again"):
            assert cache.artifact("model", build, key={}, code=[cache]) == path
        row.survived += 1
        row.kept += (path / "model.safetensors").read_bytes() == good
    assert row.tried == row.kept


def test_an_artifact_of_an_older_cache_is_sealed_once(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    built = []

    def compute():
        built.append(1)
        return len(built)

    assert cache.remember("value", compute, key={}, code=[cache]) == 1
    path = cache.artifact_path("value", {}, [cache])
    meta = json.loads((path / cache.META).read_text())
    hashes = meta.pop("files")
    (path / cache.META).write_text(json.dumps(meta))
    cache._intact.clear()
    assert cache.seal(path) and not cache.seal(path)
    assert json.loads((path / cache.META).read_text()) == meta | {"files": hashes}
    assert cache.remember("value", compute, key={}, code=[cache]) == 1
    flip(path / "value.json", 0)
    with pytest.warns(UserWarning, match="value.json has changed"):
        assert cache.remember("value", compute, key={}, code=[cache]) == 2
    (path / cache.META).unlink()
    with pytest.raises(AlignlabError, match="no complete artifact"):
        cache.seal(path)


@pytest.mark.parametrize("harm", HARMS)
def test_a_model_that_was_converted_into_the_cache(tmp_path, monkeypatch, fault, harm):
    row = fault(f"corrupt converted model: {harm.__name__}")
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    folder = tmp_path / "models" / "gguf-x"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    weights = folder / "model.safetensors"
    for at in (0, 500, 999):
        weights.write_bytes(b"0" * 1000)
        (folder / cache.META).unlink(missing_ok=True)
        runner._contents_of(str(folder))
        harm(weights, at)
        row.tried += 1
        with pytest.raises(AlignlabError, match="model.safetensors has.*Delete the"):
            runner._contents_of(str(folder))
        row.survived, row.kept = row.survived + 1, row.kept + 1


@pytest.mark.parametrize("harm", HARMS)
def test_a_checkpoint_of_pretraining(tmp_path, tiny_model, fault, harm):
    """torch reads a flipped bit without a word."""
    row = fault(f"corrupt checkpoint of `pretrain`: {harm.__name__}")
    path = tmp_path / ".1m.checkpoint"
    optimizer = torch.optim.AdamW(tiny_model.parameters())
    loop._save(path, tiny_model, optimizer, (1, 1, 1.0, []))
    pretrain._require_whole(path)
    good = path.read_bytes()
    with zipfile.ZipFile(path) as archive:  # where the tensors are, not the padding
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    for step in range(5):
        harm(path, largest.header_offset + 200 + step * largest.file_size // 6)
        row.tried += 1
        with pytest.raises(AlignlabError, match="checkpoint is damaged: .*Delete it"):
            pretrain._require_whole(path)
        row.survived, row.kept = row.survived + 1, row.kept + 1
        path.write_bytes(good)


@pytest.mark.parametrize("harm", [*HARMS, lambda path, at: path.unlink()])
def test_a_checkpoint_of_training(tmp_path, fault, harm):
    name = harm.__name__ if harm in HARMS else "a file is gone"
    row = fault(f"corrupt checkpoint of `train`: {name}")
    for name in ("model.safetensors", "optimizer.pt", "trainer_state.json"):
        (tmp_path / name).write_bytes(os.urandom(2000))
        assert damage(tmp_path) == "", "without a seal it is believed"
    seal(tmp_path)
    assert damage(tmp_path) == ""
    for name in ("model.safetensors", "optimizer.pt", "trainer_state.json"):
        good = (tmp_path / name).read_bytes()
        harm(tmp_path / name, 999)
        row.tried += 1
        assert damage(tmp_path) == name
        row.survived, row.kept = row.survived + 1, row.kept + 1
        (tmp_path / name).write_bytes(good)


def test_a_record(tmp_path, fault):
    row = fault("corrupt run.json")
    path = tmp_path / "run.json"
    for content in (b"", b'{"profile": "cp', b"\xff\xfe\x00"):
        path.write_bytes(content)
        row.tried += 1
        for read in (lambda: read_run(tmp_path), lambda: read_json(path)):
            with pytest.raises(
                AlignlabError, match=f"{path} is damaged: it is no JSON"
            ):
                read()
        row.survived, row.kept = row.survived + 1, row.kept + 1


@pytest.mark.parametrize("years", [-20, 20])
def test_a_clock_that_was_set(tmp_path, monkeypatch, fault, years):
    """All files have times long ago, or ones that are still to come."""
    row = fault("clock set by 20 years: artifacts")
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    values = iter([1, 2])

    def compute():
        return next(values)

    row.tried += 1
    assert cache.remember("value", compute, key={}, code=[cache]) == 1
    cache._intact.clear()
    for path in (tmp_path / "cache").rglob("*"):
        then = path.stat().st_mtime + years * 365 * 86_400
        os.utime(path, (then, then))
    assert cache.remember("value", compute, key={}, code=[cache]) == 1
    row.survived, row.kept = row.survived + 1, row.kept + 1
