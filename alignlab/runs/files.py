"""Writing files whole: a reader sees the old file or the new one, never a half.

Everything is written under a temporary name in the same folder and renamed.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], None]) -> Path:
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
    """Write text whole, as UTF-8."""
    return write_whole(path, lambda file: file.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: object) -> Path:
    """Write JSON whole; NaN and infinities are refused, for JSON has neither."""
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    return write_text(path, text + "\n")


def read_json(path: Path, default: object = None) -> object:
    """The JSON value of a file, or ``default`` if there is no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The remedy for an unknown name: the nearest known one, and the list of all."""
    known = [str(item) for item in known]
    near = get_close_matches(str(name), known, n=1, cutoff=0.5)
    listed = f"Known: {', '.join(known)}." if known else "There are none."
    return f"Did you mean {near[0]!r}? {listed}" if near else listed
