"""Artifacts: built once, named by what made them, complete or not there at all."""

import errno
import json
import math
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from alignlab import cache, errors, provenance
from alignlab.errors import AlignlabError

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def hello(folder):
    (folder / "text").write_text("hello")


# --- Names --------------------------------------------------------------------------


def other(folder):
    (folder / "text").write_text("other")


def test_the_name_is_the_kind_the_key_and_the_code(folder):
    here = sys.modules[__name__]
    one = cache.artifact_path("sft", {"seed": 0, "size": "1m"}, [hello])
    assert one.parent == folder / "artifacts" / "sft"
    assert one == cache.artifact_path("sft", {"size": "1m", "seed": 0}, [hello])
    assert one == cache.artifact_path("sft", {"seed": 0, "size": "1m"}, [hello, hello])
    others = [
        cache.artifact_path("other", {"seed": 0, "size": "1m"}, [hello]),
        cache.artifact_path("sft", {"seed": 1, "size": "1m"}, [hello]),
        cache.artifact_path("sft", {"seed": "0", "size": "1m"}, [hello]),
        cache.artifact_path("sft", {"seed": 0}, [hello]),
        cache.artifact_path("sft", {"seed": 0, "size": "1m"}),
        cache.artifact_path("sft", {"seed": 0, "size": "1m"}, [other]),
        cache.artifact_path("sft", {"seed": 0, "size": "1m"}, [here]),
    ]
    assert len({one, *others}) == 1 + len(others)


@pytest.mark.parametrize(
    "changed",
    [
        {"versions": {**provenance.library_versions(), "torch": "0.1"}},
        {"versions": {**provenance.library_versions(), "trl": "0.1"}},
        {"device": "cuda"},
        {"dtype": "torch.bfloat16"},
    ],
)
def test_other_libraries_devices_and_dtypes_make_another_artifact(monkeypatch, changed):
    computed = []

    def compute():
        computed.append(1)
        return len(computed)

    assert cache.remember("test", compute, key={}) == 1
    usual = provenance.environment()
    monkeypatch.setattr(provenance, "environment", lambda: usual | changed)
    assert cache.remember("test", compute, key={}) == 2
    monkeypatch.undo()


def test_the_code_is_that_of_the_builder_unless_it_is_given():
    built = cache.artifact("test", hello, key={})
    assert built == cache.artifact_path("test", {}, [hello])
    assert built != cache.artifact("test", other, key={})
    given = cache.artifact("test", other, key={}, code=[hello])
    assert (given / "text").read_text() == "hello"


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
    """Everything in the cache but the one lock that stays and what describes it."""
    files = (p for p in folder.rglob("*") if p.is_file())
    apart = ("all.lock", cache.META)
    return [str(p.relative_to(folder)) for p in files if p.name not in apart]


def test_a_build_that_fails_leaves_nothing(folder):
    def broken(folder):
        hello(folder)
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            cache.artifact("test", broken, key={})
        assert contents(folder) == []
        assert not cache.artifact_path("test", {}, [broken]).exists()
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

    cache.artifact("test", build, key={}, code=[cache])
    """
    process = start(script, tmp_path)
    end = time.monotonic() + 60
    while not (tmp_path / "halfway").exists() and time.monotonic() < end:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    half = [name for name in contents(folder) if name.endswith("text")]
    assert len(half) == 1, "the kill came in the middle"
    assert not cache.artifact_path("test", {}, [cache]).exists()
    path = cache.artifact("test", hello, key={}, code=[cache])
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


# --- Bytes that have changed -------------------------------------------------------


def two_files(folder):
    (folder / "inner").mkdir()
    (folder / "weights").write_bytes(b"0123456789")
    (folder / "inner" / "text").write_text("hello")


def flip_a_byte(path):
    (path / "weights").write_bytes(b"0123456780")


def truncate(path):
    (path / "weights").write_bytes(b"01234")


def delete_a_file(path):
    (path / "inner" / "text").unlink()


def lose_the_manifest(path):
    (path / cache.META).unlink()


@pytest.mark.parametrize(
    "harm, named",
    [
        (flip_a_byte, "weights has changed"),
        (truncate, "weights has changed"),
        (delete_a_file, "inner/text is missing"),
        (lose_the_manifest, "incomplete"),
    ],
)
@pytest.mark.parametrize("seen", [True, False], ids=["same process", "another"])
def test_a_damaged_artifact_is_named_and_built_again(harm, named, seen):
    path = cache.artifact("test", two_files, key={})
    assert cache.artifact("test", two_files, key={}) == path
    if not seen:
        cache._intact.clear()
    harm(path)
    if harm is lose_the_manifest:
        cache._intact.clear()  # one that was complete needs no second look
    with pytest.warns(UserWarning, match=f"{path}.*{named}.*built again"):
        assert cache.artifact("test", two_files, key={}) == path
    assert (path / "weights").read_bytes() == b"0123456789"
    assert (path / "inner" / "text").read_text() == "hello"


def test_a_damaged_value_is_computed_again():
    values = iter([1, 2])

    def compute():
        return next(values)

    assert cache.remember("test", compute, key={}) == 1
    (cache.artifact_path("test", {}, [compute]) / "value.json").write_text("9")
    with pytest.warns(UserWarning, match=r"value.json has changed"):
        assert cache.remember("test", compute, key={}) == 2
    assert cache.remember("test", compute, key={}) == 2


def test_files_are_hashed_once_in_a_process(monkeypatch):
    cache.artifact("test", two_files, key={})
    hashed = []
    real = cache._sha256
    monkeypatch.setattr(cache, "_sha256", lambda p: hashed.append(p.name) or real(p))
    for _ in range(3):
        path = cache.artifact("test", two_files, key={})
    assert sorted(hashed) == ["text", "weights"]
    os.utime(path / "weights", (1, 1))
    cache.artifact("test", two_files, key={})
    assert sorted(hashed) == ["text", "text", "weights", "weights"]


def test_what_a_killed_removal_left_is_no_artifact(folder):
    path = cache.artifact("test", two_files, key={})
    (path / "weights").unlink()
    (path / cache.META).unlink()
    cache._intact.clear()
    with pytest.warns(UserWarning, match="incomplete"):
        cache.artifact("test", two_files, key={})
    assert (path / "weights").exists()


def test_values_may_be_nan_and_infinite():
    def compute():
        return [math.nan, math.inf, -math.inf]

    for _ in range(2):
        value = cache.remember("test", compute, key={})
        assert math.isnan(value[0]) and value[1:] == [math.inf, -math.inf]


# --- Code that is edited during the run ---------------------------------------------

EDITED = """
    import importlib, os, textwrap
    import alignlab
    alignlab.__path__.append(str(here))

    def write(name, source):
        path = here / f"{name}.py"
        path.write_text(textwrap.dedent(source))
        os.utime(path, (len(source),) * 2)

    RATE = "rate = {}"
    BUILDER = '''
        {}
        def build(folder):
            {}
            (folder / "rate").write_text(str(rate))
        '''
    line = "from alignlab.zz_rate import rate"
    lazy = sys.argv[2] == "lazy"
    write("zz_rate", RATE.format(1))
    write("zz_build", BUILDER.format("" if lazy else line, line if lazy else ""))
    from alignlab import zz_build
    """


def run_edited(script, tmp_path, mode):
    source = textwrap.dedent(EDITED) + textwrap.dedent(script)
    process = start(source, tmp_path, mode)
    printed = process.communicate(timeout=120)[0].split()
    assert process.returncode == 0
    return printed


def test_an_edit_during_the_run_is_not_stored_under_the_new_name(tmp_path):
    script = """
    before = cache.artifact_path("test", {}, [zz_build])
    write("zz_rate", RATE.format(22))
    path = cache.artifact("test", zz_build.build, key={}, code=[zz_build])
    assert path == before
    print((path / "rate").read_text())
    """
    assert run_edited(script, tmp_path, "eager") == ["1"]
    new = """
    write("zz_rate", RATE.format(22))
    importlib.reload(alignlab.zz_rate), importlib.reload(zz_build)
    path = cache.artifact("test", zz_build.build, key={}, code=[zz_build])
    print((path / "rate").read_text())
    """
    assert run_edited(new, tmp_path, "eager") == ["22"]


def test_an_edit_between_the_name_and_the_import_is_refused(tmp_path):
    script = """
    from alignlab.errors import AlignlabError
    before = cache.artifact_path("test", {}, [zz_build])
    write("zz_rate", RATE.format(22))
    try:
        cache.artifact("test", zz_build.build, key={}, code=[zz_build])
    except AlignlabError as error:
        assert "changed while it was being built" in str(error)
        print(before.exists(), "refused")
    print((cache.artifact("test", zz_build.build, key={}, code=[zz_build]) / "rate")
        .read_text())
    """
    assert run_edited(script, tmp_path, "lazy") == ["False", "refused", "22"]


# --- Locks ----------------------------------------------------------------------------


def locks(folder):
    return [path.name for path in folder.rglob("*.lock")]


def test_locks_do_not_pile_up(folder):
    for n in range(5):
        cache.artifact("test", hello, key={"n": n})
    assert locks(folder) == ["all.lock"]


def test_threads_of_one_process_build_once_and_leave_no_lock(folder):
    built, values = [], []

    def compute():
        built.append(1)
        time.sleep(0.2)
        return len(built)

    def ask():
        values.append(cache.remember("test", compute, key={}))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert built == [1] and values == [1] * 6
    assert locks(folder) == ["all.lock"]


def test_an_artifact_can_be_built_of_others():
    def inner(folder):
        hello(folder)

    def build(folder):
        for n in range(3):
            path = cache.artifact("inner", inner, key={"n": n})
        (folder / "text").write_text((path / "text").read_text() + "!")

    path = cache.artifact("outer", build, key={})
    assert (path / "text").read_text() == "hello!"


# --- Looking after the cache ----------------------------------------------------------


def age(path, days):
    then = time.time() - days * 86_400
    os.utime(path / cache.META, (then, then))


def test_what_is_stored_is_listed_with_size_and_last_use(folder):
    assert cache.stored_artifacts() == []
    path = cache.artifact("arms/some_arm_of_20_chars", two_files, key={})
    cache.artifact("sft", hello, key={})
    first, second = cache.stored_artifacts()
    assert (first.kind, second.kind) == ("arms/some_arm_of_20_chars", "sft")
    assert (first.path, first.size, first.current) == (path, 15, True)
    age(path, 3)
    assert cache.stored_artifacts()[0].used == pytest.approx(time.time() - 259_200, 1)
    cache._intact.clear()
    cache.artifact("arms/some_arm_of_20_chars", two_files, key={})
    assert cache.stored_artifacts()[0].used == pytest.approx(time.time(), abs=60)


def test_what_other_code_or_libraries_made_is_not_current(monkeypatch):
    from alignlab.evaluation import intervals

    cache.artifact("test", hello, key={}, code=[intervals])
    [item] = cache.stored_artifacts()
    assert item.current
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "library_versions", lambda: {"torch": "0.1"})
        assert not cache.stored_artifacts()[0].current
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "code_hash", lambda roots: "other")
        assert not cache.stored_artifacts()[0].current


@pytest.mark.parametrize(
    "wanted, kinds",
    [
        ({"older_than": 10}, ["old"]),
        ({"unused": True}, ["broken", "unused"]),
        ({"older_than": 10, "unused": True}, ["broken", "old", "unused"]),
        ({"everything": True}, ["broken", "old", "recent", "unused"]),
    ],
)
def test_prune_removes_what_is_named_and_nothing_else(folder, wanted, kinds):
    for kind in ("old", "recent", "unused"):
        cache.artifact(kind, hello, key={})
    age(cache.artifact_path("old", {}, [hello]), 20)
    unused = cache.artifact_path("unused", {}, [hello]) / cache.META
    meta = json.loads(unused.read_text())
    unused.write_text(json.dumps(meta | {"versions": {}}))
    (folder / "artifacts" / "broken" / f"{cache.UNFINISHED}{'a' * 20}").mkdir(
        parents=True
    )
    (folder / "sources").mkdir()
    (folder / "sources" / "wheel").write_text("x")
    before = {item.kind for item in cache.stored_artifacts()}
    assert [item.kind for item in cache.prune(**wanted, dry_run=True)] == kinds
    assert {item.kind for item in cache.stored_artifacts()} == before
    assert [item.kind for item in cache.prune(**wanted)] == kinds
    assert {item.kind for item in cache.stored_artifacts()} == before - set(kinds)
    assert (folder / "sources" / "wheel").exists()
    assert locks(folder) == ["all.lock"]


def test_prune_wants_to_know_what():
    with pytest.raises(AlignlabError, match="--older-than DAYS, --unused or --all"):
        cache.prune()


def test_what_is_being_built_is_not_pruned(tmp_path, folder):
    script = """
    def build(folder):
        (folder / "text").write_text("hello")
        (here / "halfway").touch()
        wait_for("go")

    print(cache.artifact("test", build, key={}))
    """
    process = start(script, tmp_path)
    end = time.monotonic() + 60
    while not (tmp_path / "halfway").exists() and time.monotonic() < end:
        time.sleep(0.01)
    [item] = cache.stored_artifacts()
    assert item.path.name.startswith(cache.UNFINISHED)
    assert cache.prune(everything=True) == []
    (tmp_path / "go").touch()
    path = Path(process.communicate(timeout=60)[0].strip())
    assert (path / "text").read_text() == "hello"


def test_values_are_stored_as_json(folder):
    cache.remember("test", lambda: {"a": 1}, key={})
    [path] = contents(folder)
    assert json.loads((folder / path).read_text()) == {"a": 1}
