"""A store of artifacts for machines without a common folder: what one of them built,
the others fetch.

It is any place that fsspec can reach ("s3://bucket/alignlab", "sftp://host/folder",
"file:///mnt/shared"). Each artifact is one zip file there, named as in the cache.
"""

import contextlib
import os
import re
import shutil
import socket
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from alignlab.errors import AlignlabError

STORE = "ALIGNLAB_STORE"  # the environment variable that holds the store's URL


def store_url() -> str:
    """The URL of the store in use; "" if there is none."""
    return os.environ.get(STORE, "")


def require_store(url: str) -> None:
    """Refuse a store that cannot be written and read.

    Raises:
        AlignlabError: with the remedy.
    """
    try:
        files, root = _opened(url)
        trial = f"{root}/trial-{_here()}"
        files.makedirs(root, exist_ok=True)
        files.pipe_file(trial, b"alignlab")
        same = files.cat_file(trial) == b"alignlab"
        files.rm_file(trial)
    except Exception as error:  # each kind of store has its own types
        raise AlignlabError(
            f"The store {without_password(url)} cannot be used: {_said(error)}.",
            "Give a URL that fsspec can write to (file:///mnt/shared, s3://bucket/name "
            "with `pip install s3fs` and credentials), on every machine.",
        ) from error
    if not same:
        raise AlignlabError(
            f"The store {without_password(url)} gives back other bytes than it was "
            "given."
        )


def fetch(name: str, folder: Path) -> bool:
    """Unpack an artifact of the store into a new folder.

    Args:
        name: "KIND/HASH", as in the cache.
        folder: is made; nothing is left of it where the artifact cannot be had.

    Returns:
        Whether the store has it. A store that cannot be read only warns: what is not
        fetched is built.
    """
    with _only_warning(f"Could not fetch {name}"):
        files, root = _opened(store_url())
        with files.open(f"{root}/{name}.zip") as file, zipfile.ZipFile(file) as packed:
            _require_plain(packed, file.seek(0, os.SEEK_END))
            packed.extractall(folder)
        return True
    shutil.rmtree(folder, ignore_errors=True)
    return False


def _require_plain(packed: zipfile.ZipFile, size: int) -> None:
    """Refuse a zip file that :func:`put` cannot have written: one whose entries would
    take more room than the file itself, or lie outside the folder they are for."""
    entries = packed.infolist()
    if sum(entry.file_size for entry in entries) > size:
        raise zipfile.BadZipFile("it grows when it is unpacked")
    for entry in entries:
        name = PurePosixPath(entry.filename)
        if name.is_absolute() or ".." in name.parts:
            raise zipfile.BadZipFile(f"{entry.filename!r} lies outside its folder")


def put(name: str, folder: Path) -> None:
    """Copy an artifact into the store, where it shows once it is whole. A store that
    cannot be written only warns, because the artifact itself is safe in the cache."""
    with _only_warning(f"Could not store {name}"):
        files, root = _opened(store_url())
        target = f"{root}/{name}.zip"
        partial = f"{target}.{_here()}"
        files.makedirs(target.rpartition("/")[0], exist_ok=True)
        with files.open(partial, "wb") as file, zipfile.ZipFile(file, "w") as packed:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    packed.write(path, path.relative_to(folder))
        files.mv(partial, target)


def _opened(url: str):
    """The file system of a store, and the store's folder in it."""
    import fsspec

    files, root = fsspec.core.url_to_fs(url)
    return files, root.rstrip("/")


def _here() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


def _said(error: Exception) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return without_password(text)


def without_password(text: str) -> str:
    """Text whose URLs show neither user and password nor a query, which may hold a
    key."""
    text = re.sub(r"(\w+://)[^/\s@]+@", r"\1…@", text)
    return re.sub(r"(\w+://[^\s?]+)\?\S+", r"\1?…", text)


@contextlib.contextmanager
def _only_warning(what: str) -> Iterator[None]:
    """Turn errors into a warning; that the store lacks something is not even one."""
    try:
        yield
    except FileNotFoundError:
        pass
    except Exception as error:  # each kind of store has its own types
        warnings.warn(
            f"{what}: the store {without_password(store_url())} says {_said(error)}.",
            stacklevel=4,
        )
