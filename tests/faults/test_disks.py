"""Disks that are full or may only be read: one line says so, and what is done stays."""

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from .killing import finish, start
from .test_kills import finished, intact, results

pytestmark = pytest.mark.faults
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


@contextmanager
def small_disk(folder: Path, kilobytes: int):
    """A disk of its own for a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def read_only(folder: Path):
    """Everybody, root too, may only read it."""
    _mount("--bind", folder, folder)
    try:
        _mount("-o", "remount,ro,bind", folder)
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def _mount(*arguments):
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")


def enlarge(folder: Path) -> None:
    _mount("-o", "remount,size=50m", folder)


@pytest.fixture
def run(series, tmp_path, require_root):
    """A function that starts a run of the series."""

    def command(*more, cwd=tmp_path, cache=tmp_path / "cache", **environment):
        arguments = ("run", "--profile", "smoke", "--notebooks", series, *more)
        return start(*arguments, cwd=cwd, cache=cache, **environment)

    return command


@pytest.fixture
def whole():
    """What the series records, whatever happens on the way."""
    names = ("90_first", "91_second", "92_third")
    answer = dict(low=None, high=None, claim=None, seeds=None, unit="", n=None)
    sizes = {name: 5000 * len(name) + 1.5 for name in names}
    return {name: {"answer": answer | {"value": x}} for name, x in sizes.items()}


def in_one_line(told: str, *words: str) -> None:
    """The error is one line with these words, and there is no traceback."""
    [line] = [line for line in told.splitlines() if line.startswith("error:")]
    assert all(word in line for word in words), told
    assert "Traceback" not in told


@pytest.mark.parametrize("kilobytes", [4, 28])
def test_the_disk_of_the_run_is_full(run, whole, tmp_path, fault, kilobytes):
    row = fault("disk full: --out")
    with small_disk(tmp_path / "out", kilobytes) as out:
        row.tried += 1
        told = finish(run("--out", out), (1, 2))
        in_one_line(told, "full") if "is full" in told else in_one_line(told, "space")
        row.survived += 1
        before = finished(out)
        enlarge(out)
        finish(run("--out", out, "--resume"))
        assert before.items() <= finished(out).items()
        assert results(out) == whole
        row.kept += 1


@pytest.mark.parametrize("kilobytes", [4, 40, 60])
def test_the_disk_of_the_cache_is_full(run, whole, tmp_path, fault, kilobytes):
    row = fault("disk full: cache")
    with small_disk(tmp_path / "cache", kilobytes) as folder:
        row.tried += 1
        told = finish(run("--out", "out"), (1, 2))
        in_one_line(told, "The disk that holds", str(folder), "ALIGNLAB_CACHE")
        row.survived += 1
        intact(folder)
        before = finished(tmp_path / "out")
        enlarge(folder)
        finish(run("--out", "out", "--resume"))
        assert before.items() <= finished(tmp_path / "out").items()
        assert results(tmp_path / "out") == whole
        row.kept += 1


def test_the_disk_of_temporary_files_is_full(run, whole, tmp_path, fault):
    row = fault("disk full: /tmp")
    with small_disk(tmp_path / "tmp", 4) as folder:
        with suppress_full():
            (folder / "filler").write_bytes(b"x" * 100_000)
        row.tried += 1
        finish(run("--out", "out", TMPDIR=str(folder)))
        row.survived += 1
        assert results(tmp_path / "out") == whole
        row.kept += 1


@contextmanager
def suppress_full():
    try:
        yield
    except OSError:
        pass


def test_folders_that_may_only_be_read(run, whole, tmp_path, fault):
    row = fault("read-only: --out, runs/, cache")
    for name in ("place", "done", "cache"):
        (tmp_path / name).mkdir()
    with read_only(tmp_path / "place") as place:
        for command in (
            run("--out", place / "out"),
            run("--out", place),
            run(cwd=place),
        ):
            row.tried += 1
            in_one_line(finish(command, 2), f"Cannot write to {place}", "--out")
            row.survived, row.kept = row.survived + 1, row.kept + 1
    with read_only(tmp_path / "cache") as folder:
        row.tried += 1
        told = finish(run("--out", "out"), 1)
        in_one_line(told, f"Cannot write to {folder}: Read-only file", "ALIGNLAB_CACHE")
        row.survived += 1
    finish(run("--out", "out", "--resume"))
    row.kept += results(tmp_path / "out") == whole
    with read_only(tmp_path / "cache"):  # all is in it
        row.tried += 1
        finish(run("--out", "again"))
        row.survived, row.kept = row.survived + 1, row.kept + 1
    with read_only(tmp_path / "again") as out:
        before = finished(out)
        for command in ("run", "report"):
            row.tried += 1
            process = (
                run("--out", out, "--resume")
                if command == "run"
                else start("report", out, cwd=tmp_path, cache=tmp_path / "cache")
            )
            in_one_line(finish(process, 2), f"Cannot write to {out}")
            row.survived += 1
            row.kept += finished(out) == before


def test_a_home_that_may_only_be_read(run, whole, tmp_path, fault):
    """Jupyter and IPython keep files there, and so does alignlab unless it is told."""
    row = fault("read-only home")
    (tmp_path / "home").mkdir()
    with read_only(tmp_path / "home") as home:
        in_home = {name: "" for name in os.environ if name.startswith(("XDG", "JUP"))}
        in_home |= {"HOME": str(home)}
        row.tried += 1
        told = finish(run("--out", "out", cache="", **in_home), 1)
        in_one_line(told, f"Cannot write to {home}/.cache/alignlab", "ALIGNLAB_CACHE")
        row.survived += 1
        finish(run("--out", "out", "--resume", **in_home))
        row.kept += results(tmp_path / "out") == whole


def test_somebody_else_who_owns_nothing(series, require_root, fault):
    """As a program of its own, by a user who may not write where root works."""
    spawns = "import subprocess, sys; subprocess.run([sys.executable, '-c', ''])"
    program = [*NOBODY, sys.executable, "-c", spawns]
    if subprocess.run(program, cwd="/", capture_output=True).returncode:
        pytest.skip("nobody else may run this Python")
    row = fault("read-only home and --out, as an unprivileged user")
    place = Path(tempfile.mkdtemp(prefix="alignlab-faults-"))
    try:
        notebooks = shutil.copytree(series, place / "notebooks")
        (place / "home").mkdir()
        (place / "work").mkdir()
        for folder in (place, notebooks, place / "home"):
            folder.chmod(0o755)
        os.chown(place / "work", 65534, 65534)
        command = ("run", "--profile", "smoke", "--notebooks", notebooks, "--out")
        options = {"prefix": NOBODY, "cwd": place / "work", "HOME": str(place / "home")}
        row.tried += 2
        told = finish(start(*command, place / "two", cache="cache", **options), 2)
        in_one_line(told, f"Cannot write to {place}/two: Permission denied", "--out")
        finish(start(*command, "one", cache=place / "work" / "cache", **options))
        row.survived += 2
        row.kept += 2 * (len(finished(place / "work" / "one")) == 3)
    finally:
        shutil.rmtree(place)
