"""A store that machines share: what one built, others fetch, whole or not at all."""

import errno
import json
import os
import warnings
import zipfile

import fsspec
import pytest

from alignlab import cache, store
from alignlab.errors import AlignlabError

from .test_cache import full


@pytest.fixture(params=["memory://alignlab", "file"])
def url(request, tmp_path, monkeypatch):
    """A store in memory, and one in a folder."""
    url = f"file://{tmp_path}/store" if request.param == "file" else request.param
    monkeypatch.setenv(store.STORE, url)
    yield url
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that goes on as another machine, with a cache of its own."""

    def use(name):
        monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / name))

    use("first")
    return use


built = []


def build(folder):
    built.append(folder)
    (folder / "inner").mkdir()
    (folder / "inner" / "weights").write_bytes(b"0123456789")


@pytest.fixture(autouse=True)
def nothing_built():
    built.clear()


def files_of(url):
    files, root = fsspec.core.url_to_fs(url)
    return sorted(path[len(root) :] for path in files.find(root))


def test_what_one_machine_built_another_fetches(url, machine):
    path = cache.artifact("arms/demo", build, key={})
    machine("second")
    same = cache.artifact("arms/demo", build, key={})
    assert len(built) == 1
    assert same.name == path.name and same != path
    assert (same / "inner" / "weights").read_bytes() == b"0123456789"
    meta = [json.loads((each / cache.META).read_text()) for each in (path, same)]
    assert meta[0] == meta[1]
    assert files_of(url) == [f"/arms/demo/{path.name}.zip"]
    assert cache.artifact("arms/demo", build, key={}) == same
    assert not list(same.parent.glob(f"{cache.UNFINISHED}*"))


def value():
    built.append(1)
    return {"a": [1.5]}


def test_values_are_fetched_too(url, machine):
    assert cache.remember("demo", value, key={}) == {"a": [1.5]}
    machine("second")
    assert cache.remember("demo", value, key={}) == {"a": [1.5]}
    assert built == [1]


def rewritten(url, change):
    """Let something happen to the one file of the store."""
    files, root = fsspec.core.url_to_fs(url)
    [path] = files.find(root)
    files.pipe_file(path, change(files.cat_file(path)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda packed: packed.replace(b"0123456789", b"0123456780"), "Bad CRC"),
        (lambda packed: packed[: len(packed) // 2], "not a zip file"),
        (lambda packed: b"", "not a zip file"),
    ],
)
def test_what_is_damaged_in_the_store_is_built_again(url, machine, change, said):
    path = cache.artifact("demo", build, key={})
    rewritten(url, change)
    machine("second")
    with pytest.warns(UserWarning, match=f"Could not fetch demo/{path.name}.*{said}"):
        same = cache.artifact("demo", build, key={})
    assert len(built) == 2
    assert (same / "inner" / "weights").read_bytes() == b"0123456789"
    machine("third")
    cache.artifact("demo", build, key={})
    assert len(built) == 2, "the store has the whole one again"


def test_what_is_not_what_its_manifest_says_is_built_again(url, machine, tmp_path):
    """Hashes decide, as they do in the cache."""
    path = cache.artifact("demo", build, key={})
    (path / "inner" / "weights").write_bytes(b"0123456780")
    store.put(f"demo/{path.name}", path)
    machine("second")
    with pytest.warns(UserWarning, match="In the store, .*weights has changed"):
        same = cache.artifact("demo", build, key={})
    assert (same / "inner" / "weights").read_bytes() == b"0123456789"


def test_a_store_that_fails_during_a_run_only_warns(url, machine, monkeypatch):
    def fails(url):
        raise ConnectionError("no route\nto host.")

    monkeypatch.setattr(store, "_opened", fails)
    with pytest.warns(UserWarning, match="Could not .* says no route.$") as caught:
        path = cache.artifact("demo", build, key={})
    assert [str(item.message)[:16] for item in caught] == [
        "Could not fetch ",
        "Could not store ",
    ]
    assert (path / "inner" / "weights").exists()


def test_an_upload_that_is_cut_short_shows_nothing(url, machine, monkeypatch):
    def dies(self, *arguments):
        raise ConnectionError("lost")

    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="lost"):
        patch.setattr(zipfile.ZipFile, "write", dies)
        cache.artifact("demo", build, key={})
    assert not [name for name in files_of(url) if name.endswith(".zip")]
    machine("second")
    cache.artifact("demo", build, key={})
    assert len(built) == 2


def test_a_store_is_tried_before_a_run(url):
    with warnings.catch_warnings(action="error"):
        store.require_store(url)
    assert files_of(url) == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense://x", "Protocol not known: nonsense"),
        ("file:///dev/null/x", "Not a directory"),
        ("https://127.0.0.1:9/x", "cannot be used"),
    ],
)
def test_a_store_that_cannot_be_used_is_refused(url, said):
    with pytest.raises(AlignlabError, match=said) as error:
        store.require_store(url)
    assert url in error.value.message and "fsspec" in error.value.remedy
    assert len(str(error.value).splitlines()) == 1


def test_without_a_store_nothing_is_asked(machine, monkeypatch):
    monkeypatch.delenv(store.STORE, raising=False)
    monkeypatch.setattr(store, "_opened", lambda url: pytest.fail("asked"))
    cache.artifact("demo", build, key={})


# --- Folders on a network -----------------------------------------------------------


@pytest.mark.parametrize(
    "raised",
    [OSError(errno.ENOLCK, os.strerror(errno.ENOLCK)), NotImplementedError("no flock")],
)
def test_a_file_system_without_locks_is_named(machine, monkeypatch, raised):
    def fails(self, *arguments, **options):
        raise raised

    monkeypatch.setattr(cache.FileLock, "acquire", fails)
    with pytest.raises(AlignlabError, match="has no locks") as error:
        cache.artifact("demo", build, key={})
    assert "--store URL" in error.value.remedy
    monkeypatch.setattr(cache, "FileLock", full)
    with pytest.raises(AlignlabError, match="is full"):
        cache.artifact("demo", build, key={})


def test_what_another_machine_finished_first_stays(machine):
    """A network's file system may show a new folder late, even to who has the lock."""

    def slow(folder):
        path = cache.artifact_path("demo", {}, [build])
        path.mkdir()
        build(path)
        build(folder)
        (path / "inner" / "weights").write_bytes(b"theirs")

    path = cache.artifact("demo", slow, key={}, code=[build])
    assert (path / "inner" / "weights").read_bytes() == b"theirs"
    assert not list(path.parent.glob(f"{cache.UNFINISHED}*"))
