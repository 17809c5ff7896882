"""Atomic writes: a reader sees the old file or the new one, never half of one.

Everything is written under a temporary name in the same folder and then renamed.
"""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from alignlab.errors import AlignlabError


def write_atomically(path: Path, write: Callable[[Path], None]) -> Path:
    """Let ``write(temporary)`` fill a temporary file, then rename it to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix
    )
    os.close(handle)
    try:
        write(Path(name))
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write text atomically, as UTF-8."""
    return write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: object) -> Path:
    """Write JSON atomically. NaN and infinities are refused: JSON has neither."""
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    return write_text(path, text + "\n")


def read_json(path: Path, default: object = None) -> object:
    """The JSON value of a file, or ``default`` if there is no such file.

    Raises:
        AlignlabError: if the file holds something else.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
    except ValueError as error:  # also of bytes that are no UTF-8
        raise AlignlabError(
            f"{path} is damaged: it is no JSON ({error}).",
            "Restore it, or delete it and run again what wrote it.",
        ) from error
