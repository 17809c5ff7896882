"""The folder of a run: choosing it, locking it, and reading its run.json.

A killed run leaves notebooks that are waiting or running; only a finished one, with its
executed copy in place, counts.
"""

import itertools
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from alignlab.errors import AlignlabError, explained_if_full
from alignlab.files import read_json, write_text

RUN_FILE, LOCK = "run.json", ".lock"

FINISHED, FAILED = "finished", "failed"
WAITING, RUNNING = "waiting", "running"  # what a killed run leaves behind


def run_folder(
    out: Path | None, resume: bool, profile: str | None
) -> tuple[Path | None, dict]:
    """The folder to write to (None for a new one) and the content of its run.json."""
    if out is None:
        return (latest_run(), read_run(latest_run())) if resume else (None, {})
    out = out.resolve()
    if not (out / RUN_FILE).exists():
        if out.exists() and not _is_free(out):
            raise AlignlabError(
                f"{out} is not a run and not empty.", "Choose another --out."
            )
        return out, {}
    if not resume:
        raise AlignlabError(
            f"{out} already holds a run.", "Add --resume, or choose another --out."
        )
    old = read_run(out)
    if profile not in (None, old["profile"]):
        raise AlignlabError(
            f"{out} is a run of profile {old['profile']}, not {profile}.",
            "Omit --profile, or choose another --out.",
        )
    return out, old


# What a run that was killed before it wrote run.json may leave.
_EARLY = re.compile(r"\.lock|\.latest|\.run-\w+\.json")


def _is_free(folder: Path) -> bool:
    """Whether a folder is empty, except for what a run that was killed early left."""
    return folder.is_dir() and all(_EARLY.fullmatch(p.name) for p in folder.iterdir())


def read_run(folder: Path) -> dict:
    """run.json of a run's folder.

    Raises:
        AlignlabError: if the folder holds no run.
    """
    content = read_json(Path(folder) / RUN_FILE)
    if content is None:
        raise AlignlabError(
            f"{folder} holds no run.", "Name a folder that `alignlab run` wrote."
        )
    return content


def executed_notebooks(folder: Path) -> dict[str, Path]:
    """The executed notebooks of a run, by name.

    Raises:
        AlignlabError: if the folder holds no run, or a notebook is not finished.
    """
    notebooks = read_run(folder)["notebooks"]
    for name, entry in notebooks.items():
        if entry["status"] != FINISHED:
            raise AlignlabError(
                f"{name} is not finished in {folder}.",
                f"Finish it: {resume_command(folder)}",
            )
    return {name: Path(folder) / f"{name}.ipynb" for name in notebooks}


def latest_run() -> Path:
    """The latest run in runs/ of the working folder."""
    latest = Path("runs/latest").resolve()
    if latest.is_file():  # where links cannot be made, it is a file with the path
        latest = Path(latest.read_text(encoding="utf-8").strip())
    if not (latest / RUN_FILE).exists():
        raise AlignlabError(
            f"There is no run in {Path('runs').resolve()}.", "Name one, or start one."
        )
    return latest


def new_folder(profile: str) -> Path:
    """A new folder in runs/ of the working folder, made here, so that two runs that
    start in the same second get one each.

    Raises:
        AlignlabError: if it cannot be made there.
    """
    stem = f"{profile}-{time.strftime('%Y%m%d-%H%M%S')}"
    runs = Path("runs").resolve()
    with explained_if_full(runs, "Free some space, or choose another disk: --out."):
        for number in itertools.count(1):
            folder = runs / (stem if number == 1 else f"{stem}-{number}")
            with suppress(FileExistsError):
                folder.mkdir(parents=True)
                return folder
    raise AssertionError


def point_latest_at(folder: Path) -> None:
    """Link runs/latest to a run, if it is in the default place. The link is made beside
    and renamed: whoever looks finds the former run or this one."""
    if folder.parent != Path("runs").resolve():
        return
    link = folder.parent / "latest"
    beside = folder / ".latest"
    beside.unlink(missing_ok=True)
    try:
        beside.symlink_to(folder.name, target_is_directory=True)
        os.replace(beside, link)
    except OSError:
        write_text(link, str(folder))


@contextmanager
def exclusive(folder: Path) -> Iterator[Path]:
    """Exclusive use of the folder.

    Raises:
        AlignlabError: if another process uses it, it cannot be written, or the disk is
            full.
    """
    more_room = f"Free some space, then continue: {resume_command(folder)}"
    try:
        with explained_if_full(folder, more_room):
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / LOCK, timeout=0):
                yield folder
    except Timeout:
        raise AlignlabError(
            f"Another alignlab is writing to {folder}.",
            "Wait, or choose another --out.",
        ) from None


def resume_command(folder: Path) -> str:
    """The command that continues a run."""
    return f"alignlab run --resume --out {short_path(folder)}"


def short_path(path: Path) -> str:
    """A path relative to the working folder, if that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)
