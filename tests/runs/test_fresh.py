"""A fresh run sees no artifact, leaves none, and finds the data archives."""

import os

from alignlab.cache import cache_dir, remember
from alignlab.runs.fresh import empty_cache


def value_of(number):
    return number


def test_a_fresh_cache_has_the_archives_and_no_artifact(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources/archive.whl").write_text("data")
    calls = []

    def ask():
        return remember("k", lambda: calls.append(1) or 7, key={}, code=[value_of])

    assert ask() == ask() == 7 and len(calls) == 1
    with empty_cache() as folder:
        assert cache_dir() == folder and os.environ["ALIGNLAB_CACHE"] == str(folder)
        assert (folder / "sources/archive.whl").read_text() == "data"
        (folder / "sources/new.whl").write_text("downloaded")
        assert ask() == 7 and len(calls) == 2
    assert not folder.exists() and cache_dir() == tmp_path
    assert ask() == 7 and len(calls) == 2
    assert {path.name for path in (tmp_path / "sources").iterdir()} == {
        "archive.whl",
        "new.whl",
    }


def test_without_a_variable_there_is_none_afterwards(tmp_path, monkeypatch):
    monkeypatch.delenv("ALIGNLAB_CACHE", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path))
    with empty_cache():
        pass
    assert "ALIGNLAB_CACHE" not in os.environ
