"""Artifacts: built once, named by what made them, whole or not there at all."""

import errno
import importlib
import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import alignlab
from alignlab import cache, errors
from alignlab.errors import AlignlabError

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def hello(folder):
    (folder / "text").write_text("hello")


# --- Names --------------------------------------------------------------------------


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Modules that count as part of alignlab, from a folder of this test."""
    monkeypatch.setattr(alignlab, "__path__", [*alignlab.__path__, str(tmp_path)])

    def write(**sources):
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))

    def clear():
        importlib.invalidate_caches()
        cache._syntax.cache_clear()
        cache._is_ours.cache_clear()
        for name in [n for n in sys.modules if n.startswith("alignlab.zz")]:
            del sys.modules[name]
            delattr(alignlab, name.removeprefix("alignlab."))

    def hashed(name="zz_top"):
        clear()
        return cache.code_hash([ModuleType(f"alignlab.{name}")])

    yield SimpleNamespace(write=write, hashed=hashed)
    clear()


TOP = """
    def top(x):
        return x + 1
    """


def test_comments_docstrings_and_layout_do_not_count(library):
    library.write(zz_top=TOP)
    before = library.hashed()
    library.write(
        zz_top='''
        """What this is for."""
        # How it came about.
        def top(x):
            """One more."""

            return (x
                    + 1)  # one
        '''
    )
    assert library.hashed() == before


@pytest.mark.parametrize(
    "changed",
    [
        "def top(x):\n    return x + 2",
        "def top(x, y=0):\n    return x + 1",
        "LIMIT = 3\ndef top(x):\n    return x + 1",
        "def top(x):\n    'One more.'\n    return x + 1.0",
    ],
)
def test_what_the_code_does_counts(library, changed):
    library.write(zz_top=TOP)
    before = library.hashed()
    library.write(zz_top=changed)
    assert library.hashed() != before


@pytest.mark.parametrize(
    "line",
    [
        "import alignlab.zz_middle",
        "from alignlab import zz_middle",
        "from alignlab.zz_middle import middle",
        "def top():\n    from alignlab.zz_middle import middle",
    ],
)
def test_what_an_import_of_an_import_does_counts(library, line):
    library.write(zz_top=line, zz_middle="import alignlab.zz_deep\nmiddle = 1")
    library.write(zz_deep="deep = 1", zz_other="other = 1")
    before = library.hashed()
    library.write(zz_other="other = 2")
    assert library.hashed() == before, "nobody imports this one"
    library.write(zz_deep="deep = 2")
    assert library.hashed() != before


def test_a_circle_of_imports_ends(library):
    library.write(zz_top="import alignlab.zz_deep", zz_deep="import alignlab.zz_top")
    before = library.hashed()
    assert library.hashed("zz_deep") == before, "each is made of both"
    library.write(zz_deep="import alignlab.zz_top\nx = 1")
    assert library.hashed() != before


def test_what_carries_results_about_does_not_count(library, monkeypatch):
    library.write(zz_top="import alignlab.zz_deep", zz_deep="import alignlab.zz_last")
    library.write(zz_last="last = 1")
    monkeypatch.setattr(cache, "_PASSIVE", ("alignlab.zz_deep",))
    before = library.hashed()
    library.write(zz_deep="deep = 2", zz_last="last = 2")
    assert library.hashed() == before
    monkeypatch.undo()
    assert {"alignlab.cache", "alignlab.errors"} <= set(cache._PASSIVE)


def test_the_name_is_the_kind_the_key_and_the_code(library, folder):
    library.write(zz_top=TOP, zz_deep="")
    library.hashed()
    code = [ModuleType("alignlab.zz_top")]
    one = cache.artifact_path("sft", {"seed": 0, "size": "1m"}, code)
    assert one.parent == folder / "artifacts" / "sft"
    assert one == cache.artifact_path("sft", {"size": "1m", "seed": 0}, code)
    others = [
        cache.artifact_path("other", {"seed": 0, "size": "1m"}, code),
        cache.artifact_path("sft", {"seed": 1, "size": "1m"}, code),
        cache.artifact_path("sft", {"seed": "0", "size": "1m"}, code),
        cache.artifact_path("sft", {"seed": 0}, code),
        cache.artifact_path("sft", {"seed": 0, "size": "1m"}),
        cache.artifact_path("sft", {"seed": 0, "size": "1m"}, [*code, *code]),
    ]
    assert one == others.pop(), "twice the same module is the same code"
    assert len({one, *others}) == 1 + len(others)


def test_the_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("ALIGNLAB_CACHE", "~/somewhere")
    assert cache.cache_dir() == Path.home() / "somewhere"
    monkeypatch.setenv("ALIGNLAB_CACHE", "")
    assert cache.cache_dir().name == "alignlab", "empty means not chosen"


# --- Built once, whole --------------------------------------------------------------


def test_an_artifact_is_built_once_for_each_key():
    built = []

    def build(folder):
        built.append(folder)
        hello(folder)

    paths = [cache.artifact("test", build, key={"n": n}) for n in (0, 0, 1, 0)]
    assert len(built) == 2
    assert paths[0] == paths[1] == paths[3] != paths[2]
    assert all((path / "text").read_text() == "hello" for path in paths)


def test_what_is_built_needs_no_lock(monkeypatch):
    built = cache.artifact("test", hello, key={})
    monkeypatch.setattr(cache, "FileLock", full)  # as in a folder one may only read
    assert cache.artifact("test", hello, key={}) == built


def test_a_value_is_computed_once_and_always_comes_back_the_same():
    computed = []

    def compute():
        computed.append(1)
        return {"pair": (1, 2.5), "nothing": None, "name": "Bogotá"}

    values = [cache.remember("test", compute, key={}) for _ in range(2)]
    assert len(computed) == 1
    assert values == [{"pair": [1, 2.5], "nothing": None, "name": "Bogotá"}] * 2


def test_what_is_built_does_not_depend_on_the_number_of_threads():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert cache.remember("count", torch.get_num_threads, key={}) == 1
        with pytest.raises(ZeroDivisionError):
            cache.remember("count", lambda: 1 / 0, key={"of": 2})
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def contents(folder):
    """Everything in the cache but locks."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")
    return [str(p.relative_to(folder)) for p in files]


def test_a_build_that_fails_leaves_nothing(folder):
    def broken(folder):
        hello(folder)
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            cache.artifact("test", broken, key={})
        assert contents(folder) == []
        assert not cache.artifact_path("test", {}).exists()
    path = cache.artifact("test", hello, key={})
    assert (path / "text").read_text() == "hello"


def test_a_value_that_is_no_json_leaves_nothing(folder):
    with pytest.raises(TypeError):
        cache.remember("test", lambda: {1, 2}, key={})
    assert contents(folder) == []
    assert cache.remember("test", lambda: [1, 2], key={}) == [1, 2]


PROLOGUE = """
import sys, time
from pathlib import Path
from alignlab import cache

here = Path(sys.argv[1])

def wait_for(*names):
    end = time.monotonic() + 60
    while not all((here / name).exists() for name in names):
        assert time.monotonic() < end, f"waited too long for {names}"
        time.sleep(0.01)
"""


def start(script, folder, *arguments):
    source = PROLOGUE + textwrap.dedent(script)
    command = [sys.executable, "-c", source, str(folder), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_two_processes_at_once_build_once(tmp_path):
    script = """
    me = sys.argv[2]

    def compute():
        with open(here / "builds", "a") as log:
            log.write(me)
        wait_for("started-a", "started-b")
        time.sleep(0.5)  # the other one is at the lock
        return me

    cache.cache_dir()
    (here / f"started-{me}").touch()
    print(cache.remember("test", compute, key={}))
    """
    both = [start(script, tmp_path, me) for me in "ab"]
    printed = [process.communicate(timeout=120)[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert (tmp_path / "builds").read_text() == printed[0] == printed[1]


def test_a_killed_build_is_not_taken_for_whole(tmp_path, folder):
    script = """
    def build(folder):
        (folder / "text").write_text("hel")
        (here / "halfway").touch()
        wait_for("never")

    cache.artifact("test", build, key={})
    """
    process = start(script, tmp_path)
    end = time.monotonic() + 60
    while not (tmp_path / "halfway").exists() and time.monotonic() < end:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    [half] = contents(folder)
    assert half.endswith("text"), "the kill came in the middle"
    assert not cache.artifact_path("test", {}).exists()
    path = cache.artifact("test", hello, key={})
    assert (path / "text").read_text() == "hello"
    assert contents(folder) == [str((path / "text").relative_to(folder))]


# --- A full disk --------------------------------------------------------------------


def full(folder):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def over_quota(folder):
    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


def as_safetensors_says(folder):
    raise RuntimeError("I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("build", [full, over_quota, as_safetensors_says])
def test_a_full_disk_is_told_with_the_remedy(build, folder):
    with pytest.raises(AlignlabError, match="is full") as caught:
        cache.artifact("test", build, key={})
    assert str(folder) in caught.value.message
    assert "ALIGNLAB_CACHE" in caught.value.remedy
    assert contents(folder) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has none")
def test_a_disk_that_is_really_full():
    with pytest.raises(AlignlabError, match="is full"):
        cache.artifact("test", lambda _: Path("/dev/full").write_text("x"), key={})


def test_a_library_that_does_not_say_why_it_failed(monkeypatch, folder):
    def build(folder):
        hello(folder)
        raise RuntimeError("unexpected pos 576 vs 534")  # torch.save

    with pytest.raises(RuntimeError, match="unexpected pos"):
        cache.artifact("test", build, key={})

    def disk_usage(path):  # full while what was built is still there
        return SimpleNamespace(free=0 if contents(folder) else 10**6)

    monkeypatch.setattr(errors.shutil, "disk_usage", disk_usage)
    with pytest.raises(AlignlabError, match="is full"):
        cache.artifact("test", build, key={})


def test_a_disk_without_room_for_the_lock(monkeypatch):
    monkeypatch.setattr(cache, "FileLock", full)
    with pytest.raises(AlignlabError, match="is full.*ALIGNLAB_CACHE"):
        cache.artifact("test", hello, key={})


def test_other_errors_pass_as_they_are(monkeypatch):
    space = SimpleNamespace(free=0)
    monkeypatch.setattr(errors.shutil, "disk_usage", lambda folder: space)

    def build(folder):
        raise AlignlabError("No source.", "Fetch it.")

    with pytest.raises(AlignlabError, match="No source. Fetch it."):
        cache.artifact("test", build, key={})


def test_values_are_stored_as_json(folder):
    cache.remember("test", lambda: {"a": 1}, key={})
    [path] = contents(folder)
    assert json.loads((folder / path).read_text()) == {"a": 1}
