"""Errors a person can act on: what went wrong, with which value, and the remedy."""

import errno
import importlib.util
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from enum import IntEnum
from pathlib import Path


class Status(IntEnum):
    """What the command line's exit code stands for."""

    SOUND = 0
    FAILED = 1  # a notebook, a check of data, a build
    WRONG = 2  # arguments, or anything else that an error tells how to mend
    DRIFTED = 3  # from the record
    CRASHED = 4  # alignlab itself: a bug


class AlignlabError(Exception):
    """A failure the user can mend. The command line prints it in one line, without a
    traceback, and exits with status 2.

    Args:
        message: what went wrong, naming the argument and its value.
        remedy: what to do about it, as an imperative ("run `alignlab data pull`").
    """

    def __init__(self, message: str, remedy: str | None = None):
        self.message, self.remedy = message, remedy
        super().__init__(message if remedy is None else f"{message} {remedy}")


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The remedy for an unknown name: the closest known one, then all of them."""
    known = [str(item) for item in known]
    close = get_close_matches(str(name), known, n=1, cutoff=0.5)
    listed = f"Known: {', '.join(known)}." if known else "There are none."
    return f"Did you mean {close[0]!r}? {listed}" if close else listed


def needs_extra(module: str, extra: str) -> None:
    """Check that a module is there which only one of alignlab's extras brings.

    Raises:
        AlignlabError: if it is not; it names the extra.
    """
    if importlib.util.find_spec(module) is None:
        raise AlignlabError(
            f"This needs {module}, which is not installed.",
            f"Install it: python -m pip install 'alignlab[{extra}]'",
        )


@contextmanager
def explained_if_full(folder: Path, remedy: str) -> Iterator[None]:
    """Turn whatever a library says when the disk of ``folder`` is full, or the folder
    may not be written to, into one sentence with a remedy; every other error passes.

    Args:
        remedy: for a full disk.

    Raises:
        AlignlabError: if the disk is full, or the folder cannot be written.
    """
    try:
        yield
    except AlignlabError:
        raise
    except Exception as error:
        if reason := _says_unwritable(error, folder):
            raise AlignlabError(
                f"Cannot write to {folder}: {reason}.", WRITABLE
            ) from error
        if not _says_full(error) and not _is_full(folder):
            raise
        raise AlignlabError(f"The disk that holds {folder} is full.", remedy) from error


WRITABLE = (
    "Make it writable, or choose another folder: --out FOLDER for a run, "
    "ALIGNLAB_CACHE for the cache."
)
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


def _says_unwritable(error: Exception, folder: Path) -> str:
    """Why ``folder``, a folder above it or a file below it could not be written; "" if
    the error is about something else."""
    if not isinstance(error, OSError) or error.errno not in _NOT_WRITABLE:
        return ""
    if not isinstance(error.filename, str | os.PathLike):
        return ""
    file, folder = Path(error.filename).absolute(), Path(folder).absolute()
    about = file.is_relative_to(folder) or folder.is_relative_to(file)
    return error.strerror if about else ""


def _says_full(error: Exception) -> bool:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or "No space left on device" in str(error)  # safetensors


def _is_full(folder: Path) -> bool:
    # torch and numpy do not say why they could not write.
    try:
        return shutil.disk_usage(folder).free < 2**16
    except OSError:
        return False
