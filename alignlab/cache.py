"""Artifacts built once: a folder or a small JSON value, named by all that made it.

The name is a hash of the parameters, the code, the libraries, the device and the dtype:
whatever changes a result also changes its name.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import platformdirs
from filelock import FileLock, Timeout

from alignlab import provenance, store
from alignlab.errors import AlignlabError, explained_if_full
from alignlab.files import write_text

META = ".artifact.json"  # in each artifact: what made it, and the hash of every file
UNFINISHED = ".building-"

Code = Sequence[ModuleType | Callable]


def cache_dir() -> Path:
    """The folder for all that is downloaded or built: ``$ALIGNLAB_CACHE``, or the
    user's cache folder. It may be deleted at any time; it will be filled again."""
    path = os.environ.get("ALIGNLAB_CACHE") or platformdirs.user_cache_dir("alignlab")
    return Path(path).expanduser()


def artifact_path(kind: str, key: Mapping, code: Code = ()) -> Path:
    """Where the artifact of this key and code lives, whether or not it exists yet."""
    identity = {"key": key, **_made_by(code)}
    text = json.dumps(identity, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:20]
    return cache_dir() / "artifacts" / kind / name


def _made_by(code: Code) -> dict:
    roots = provenance.root_names(code)
    return {
        "roots": roots,
        "code": provenance.code_hash(roots),
        **provenance.environment(),
    }


def artifact(
    kind: str, build: Callable[[Path], None], *, key: Mapping, code: Code = ()
) -> Path:
    """The folder that ``build(folder)`` fills, built at most once for all that it
    depends on: key, code, libraries, device and dtype.

    ``build`` writes into a temporary folder that is renamed when it returns, so a
    killed build leaves nothing that looks complete. If two processes ask at once, one
    builds and the other waits. An artifact whose files have changed since is reported
    in a warning and built again. Where a store is named (:mod:`alignlab.store`), it is
    asked first and given what was built.

    Args:
        kind: a short name for people who look into the cache ("sft", "tasks").
        build: fills the folder it is given.
        key: what the artifact depends on besides code (parameters, seed); JSON-able.
        code: functions, or whole modules, whose behaviour it depends on; by default
            ``build`` and the function that defines it, with all that these use.

    Raises:
        AlignlabError: if the disk is full, or the code was edited and loaded while the
            artifact was being built.
    """
    code = code or (build,)
    path = artifact_path(kind, key, code)
    if path.exists() and not _damage(path):
        return path
    with explained_if_full(cache_dir(), _MORE_ROOM), _locked(path):
        damage = path.exists() and _damage(path)
        if damage:
            warnings.warn(f"{damage}; {kind} is built again.", stacklevel=2)
            shutil.rmtree(path)
        if not path.exists() and not _fetched(path):
            _build(build, path, kind, key, code)
            if store.store_url():
                store.put(_stored_name(path), path)
    return path


def remember(
    kind: str, compute: Callable[[], object], *, key: Mapping, code: Code = ()
) -> object:
    """The JSON value that ``compute()`` returns, computed once as by ``artifact``."""

    def build(folder: Path) -> None:
        (folder / "value.json").write_text(json.dumps(compute()), encoding="utf-8")

    path = artifact(kind, build, key=key, code=code or (compute,))
    return json.loads((path / "value.json").read_text(encoding="utf-8"))


# --- Building ---------------------------------------------------------------------

_MORE_ROOM = "Free some space, or set ALIGNLAB_CACHE to a folder on another disk."


def _build(build: Callable, path: Path, kind: str, key: Mapping, code: Code) -> None:
    """Build beside the path and rename; the caller holds the path's lock.

    Torch uses one thread: with several, sums are taken in another order, training
    amplifies the difference, and the result would depend on who built it.
    """
    unfinished = path.with_name(UNFINISHED + path.name)
    shutil.rmtree(unfinished, ignore_errors=True)  # of a killed build
    unfinished.mkdir(parents=True)
    began = time.time()
    try:
        with explained_if_full(cache_dir(), _MORE_ROOM), one_thread():
            build(unfinished)
            if artifact_path(kind, key, code) != path:
                raise AlignlabError(
                    f"Code or data behind {kind!r} changed while it was being built.",
                    "Run it again; in a notebook, restart the kernel first.",
                )
            meta = {"kind": kind, "key": key, **_made_by(code)}
            meta |= {"created": began, "seconds": round(time.time() - began, 1)}
            meta["files"] = _hashed(unfinished)
            (unfinished / META).write_text(json.dumps(meta), encoding="utf-8")
            _move_into_place(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _move_into_place(unfinished: Path, path: Path) -> None:
    """Rename a finished artifact. In a folder on a network another machine may have
    been first although the lock was ours and the path did not show; theirs stays."""
    try:
        os.replace(unfinished, path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _fetched(path: Path) -> bool:
    """Whether the store had the artifact, whole; the caller holds the path's lock."""
    unfinished = path.with_name(UNFINISHED + path.name)
    shutil.rmtree(unfinished, ignore_errors=True)
    if not store.store_url() or not store.fetch(_stored_name(path), unfinished):
        return False
    if damage := _damage(unfinished):
        warnings.warn(f"In the store, {damage}; it is built again.", stacklevel=3)
        shutil.rmtree(unfinished)
        return False
    _move_into_place(unfinished, path)
    return True


def _stored_name(path: Path) -> str:
    return path.relative_to(cache_dir() / "artifacts").as_posix()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread, and on as many as before afterwards."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def _locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Exclusive use of an artifact's name among all processes and threads; without
    waiting, whether it could be had.

    The lock file is removed afterwards. Lock files are opened and removed only under
    the lock ``all.lock``, so nobody can hold one that was removed.

    Raises:
        AlignlabError: if the file system has no locks, as some on networks.
    """
    folder = cache_dir() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{path.name.removeprefix(UNFINISHED)}.lock")
    with _explained_if_lockless(folder):
        while not (acquired := _acquired(lock, folder)) and wait:
            time.sleep(0.05)
    if not acquired:
        yield False
        return
    try:
        yield True
    finally:
        with FileLock(folder / "all.lock"):
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)


_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def _explained_if_lockless(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, NotImplementedError) as error:  # the latter: filelock, of ENOSYS
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        raise AlignlabError(
            f"The file system of {folder} has no locks: {error}.",
            "Mount it with locks (NFS 4, or `flock` for Lustre), or give each machine "
            "an ALIGNLAB_CACHE of its own and all of them one --store URL.",
        ) from error


def _acquired(lock: FileLock, folder: Path) -> bool:
    with FileLock(folder / "all.lock"):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
    return True


# --- Checking what is stored ------------------------------------------------------


def seal(path: Path) -> bool:
    """Record the hashes of an artifact's files where none are recorded, as in caches of
    former versions; its files are believed as they are this once, and checked whenever
    they are read from then on.

    Args:
        path: the artifact's folder, complete.

    Returns:
        Whether it had none.

    Raises:
        AlignlabError: if the folder has no description of what made it: it was not
            finished, or is no artifact.
    """
    try:
        meta = json.loads((path / META).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AlignlabError(
            f"{path} is no complete artifact: {META} cannot be read.", "Delete it."
        ) from error
    if "files" in meta:
        return False
    write_text(path / META, json.dumps(meta | {"files": _hashed(path)}))
    return True


def require_unchanged(folder: Path) -> None:
    """Refuse a folder of the cache that is no artifact, such as a converted model, if
    its files have changed since this was first asked.

    Raises:
        AlignlabError: naming the file.
    """
    if not (folder / META).exists():
        with contextlib.suppress(OSError):  # a cache that may only be read
            write_text(folder / META, json.dumps({"files": _hashed(folder)}))
    if (folder / META).exists() and (damage := _damage(folder)):
        raise AlignlabError(f"{damage}.", "Delete the folder; it is made again.")


def _hashed(folder: Path) -> dict[str, list]:
    """Size and SHA-256 of every file in a folder, ``META`` aside."""
    return {
        name: [size, _sha256(folder / name)]
        for name, (size, _) in _files(folder).items()
    }


_intact: dict[Path, dict] = {}  # sizes and times of files, when they were last hashed


def _damage(path: Path) -> str:
    """What is wrong with the files of an artifact; "" if nothing is. Files are hashed
    once in a process, and again if their size or time has changed."""
    files = _files(path)
    if _intact.get(path) == files:
        return ""
    try:
        stored = json.loads((path / META).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError):
        return f"{path} is incomplete"
    for name, (size, digest) in stored.items():
        if name not in files:
            return f"{path} is damaged: {name} is missing"
        if files[name][0] != size or _sha256(path / name) != digest:
            return f"{path} is damaged: {name} has changed"
    _intact[path] = files
    with contextlib.suppress(OSError):  # a cache that may only be read
        os.utime(path / META)  # when it was last used
    return ""


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file in a folder, ``META`` aside, by relative path."""
    states = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != META:
            state = path.stat()
            name = path.relative_to(folder).as_posix()
            states[name] = state.st_size, state.st_mtime_ns
    return states


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- Looking after the cache ------------------------------------------------------


_NAME = re.compile(rf"({re.escape(UNFINISHED)})?[0-9a-f]{{20}}")


@dataclass(frozen=True)
class Stored:
    """An artifact in the cache.

    Attributes:
        kind: what it is, as the code that built it calls it.
        path: its folder.
        size: bytes.
        used: when it was last used, in seconds since the epoch.
        current: whether today's code and libraries would find it; also true if that
            cannot be told, because code outside alignlab built it.
    """

    kind: str
    path: Path
    size: int
    used: float
    current: bool


def stored_artifacts() -> list[Stored]:
    """All artifacts in the cache, by kind; remains of killed builds are not current."""
    root = cache_dir() / "artifacts"
    artifacts = []
    for folder, subfolders, _ in os.walk(root):
        path = Path(folder)
        if _NAME.fullmatch(path.name):
            subfolders.clear()
            artifacts.append(_stored(path, path.parent.relative_to(root).as_posix()))
    return sorted(artifacts, key=lambda item: (item.kind, item.path))


def _stored(path: Path, kind: str) -> Stored:
    size = sum(size for size, _ in _files(path).values())
    try:
        meta = json.loads((path / META).read_text(encoding="utf-8"))
        current = _is_current(tuple(meta["roots"]), meta["code"], meta["versions"])
        used = (path / META).stat().st_mtime
    except (OSError, ValueError, KeyError):
        current, used = False, path.stat().st_mtime
    return Stored(kind, path, size, used, current)


def _is_current(roots: tuple[str, ...], code: str, versions: dict) -> bool:
    if versions != provenance.library_versions():
        return False
    if not all(root.startswith("alignlab.") for root in roots):
        return True  # somebody's own code, which cannot be found from here
    try:
        return code == provenance.code_hash(roots)
    except (OSError, SyntaxError):
        return False


def prune(
    *,
    older_than: float | None = None,
    unused: bool = False,
    everything: bool = False,
    dry_run: bool = False,
) -> list[Stored]:
    """Remove artifacts that any of the conditions names; downloads stay.

    Args:
        older_than: those not used for so many days.
        unused: those that today's code or libraries would not find.
        everything: all of them.
        dry_run: remove nothing, only say what would go.

    Returns:
        What was removed.

    Raises:
        AlignlabError: if no condition is given.
    """
    if older_than is None and not unused and not everything:
        raise AlignlabError(
            "Nothing says what to remove.", "Give --older-than DAYS, --unused or --all."
        )
    oldest = -1.0 if older_than is None else time.time() - older_than * 86_400
    chosen = [
        item
        for item in stored_artifacts()
        if everything or item.used < oldest or (unused and not item.current)
    ]
    return chosen if dry_run else [item for item in chosen if _removed(item.path)]


def _removed(path: Path) -> bool:
    """Remove an artifact, unless it is just being built."""
    with _locked(path, wait=False) as free:
        if free:
            shutil.rmtree(path, ignore_errors=True)
            path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    return free
