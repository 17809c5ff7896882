"""The folder of a run: which one it is, whose it is, and what run.json in it says.

A run that was killed leaves notebooks that wait or are running; only one that is
finished, with its executed copy in place, counts.
"""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from alignlab.errors import AlignlabError
from alignlab.runs.files import read_json

RUN_FILE, LOCK = "run.json", ".lock"

FINISHED, FAILED = "finished", "failed"
WAITING, RUNNING = "waiting", "running"  # what a killed run leaves behind


def run_folder(
    out: Path | None, resume: bool, profile: str | None
) -> tuple[Path | None, dict]:
    """The folder to write to (None: a new one) and the run.json it holds already."""
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
            "Leave --profile away, or choose another --out.",
        )
    return out, old


def _is_free(folder: Path) -> bool:
    """An empty folder, but for the lock of a run killed before it had begun."""
    return folder.is_dir() and all(item.name == LOCK for item in folder.iterdir())


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


def latest_run() -> Path:
    """The run that was started last below the working folder."""
    latest = Path("runs/latest").resolve()
    if latest.is_file():  # where links cannot be made, it is a file with the path
        latest = Path(latest.read_text(encoding="utf-8").strip())
    if not (latest / RUN_FILE).exists():
        raise AlignlabError(
            f"there is no run in {Path('runs').resolve()}.", "Name one, or start one."
        )
    return latest


def new_folder(profile: str) -> Path:
    stem = f"{profile}-{time.strftime('%Y%m%d-%H%M%S')}"
    names = [stem, *(f"{stem}-{n}" for n in range(2, 100))]
    return next(
        Path("runs", name).resolve()
        for name in names
        if not Path("runs", name).exists()
    )


def point_latest_at(folder: Path) -> None:
    """runs/latest, for runs that lie where runs lie by default."""
    if folder.parent != Path("runs").resolve():
        return
    link = folder.parent / "latest"
    link.unlink(missing_ok=True)
    try:
        link.symlink_to(folder.name, target_is_directory=True)
    except OSError:
        link.write_text(str(folder), encoding="utf-8")


@contextmanager
def exclusive(folder: Path) -> Iterator[Path]:
    """The folder for us alone; a full disk is told in one line, with the remedy."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=0):
            yield folder
    except Timeout:
        raise AlignlabError(
            f"another alignlab is writing to {folder}.", "Wait for it, or choose --out."
        ) from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise AlignlabError(
            f"the disk that holds {folder} is full.",
            f"Free some space, then continue: {resume_command(folder)}",
        ) from None


def resume_command(folder: Path) -> str:
    """What to type to go on with a run."""
    return f"alignlab run --resume --out {short_path(folder)}"


def short_path(path: Path) -> str:
    """A path as one would type it here."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)
