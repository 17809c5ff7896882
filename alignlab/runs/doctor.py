"""`alignlab doctor`: what this machine has, what it lacks, and what to do about it."""

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import alignlab
from alignlab.cache import cache_dir
from alignlab.errors import AlignlabError
from alignlab.runs.benchmark import matrix_gflops
from alignlab.runs.profiles import load_profiles

LIBRARIES = "torch transformers trl peft accelerate datasets papermill".split()
EXTRAS = {"trl": "[trl]", "papermill": "[run]"}  # the others come with alignlab itself
GB = 1e9


@dataclass(frozen=True)
class Line:
    """A finding; ``remedy`` says what to do if it is not ok."""

    what: str
    finding: str
    ok: bool = True
    remedy: str = ""


def examine() -> Iterator[Line]:
    """Examine everything that a run needs, line by line."""
    yield _python()
    yield from (_library(name) for name in LIBRARIES)
    yield _kernel()
    yield _cores()
    yield _memory()
    yield _disk()
    yield from _sources()
    yield _accelerator()
    yield _speed()


def _python() -> Line:
    ok = sys.version_info >= (3, 11)
    return Line("Python", platform.python_version(), ok, "Use Python 3.11 or newer.")


def _library(name: str) -> Line:
    """Whether a library is installed and not older than the oldest that works."""
    try:
        installed = version(name)
    except PackageNotFoundError:
        remedy = f"python -m pip install 'alignlab{EXTRAS.get(name, '')}'"
        return Line(name, "missing", False, remedy)
    oldest, tested = oldest_versions().get(name, "0"), tested_versions().get(name)
    if _as_numbers(installed) < _as_numbers(oldest):
        remedy = f"python -m pip install --upgrade '{name}>={oldest}'"
        return Line(name, f"{installed}, older than {oldest}", False, remedy)
    same = tested is None or tested == installed.partition("+")[0]
    return Line(name, installed if same else f"{installed} (last tested with {tested})")


def oldest_versions() -> dict[str, str]:
    """The lower bounds that the package declares, by library."""
    try:
        declared = requires("alignlab") or []
    except PackageNotFoundError:  # run from a checkout, not installed
        declared = []
    pattern = re.compile(r"([\w.-]+?)\s*>=\s*([\d.]+)")
    matches = filter(None, (pattern.match(item) for item in declared))
    return {match[1].lower(): match[2] for match in matches}


def tested_versions() -> dict[str, str]:
    """The versions last tested together, if the checkout's list is there."""
    file = Path(alignlab.__file__).parents[1] / "constraints.txt"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)$", text, flags=re.MULTILINE))


def _as_numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("+")[0])[:3])


def _kernel() -> Line:
    """Notebooks run in the kernel "python3", which must be this Python."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        program = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        remedy = "python -m pip install ipykernel"
        return Line("Jupyter kernel", "missing", False, remedy)
    if program in (sys.executable, "python", "python3"):  # Jupyter starts its own
        return Line("Jupyter kernel", "python3, this Python")
    remedy = "python -m ipykernel install --sys-prefix"
    return Line("Jupyter kernel", f"python3 is {program}", False, remedy)


def _cores() -> Line:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    cores = cores or os.cpu_count() or 1
    return Line(
        "cores",
        str(cores),
        cores >= 2,
        "Expect runs to take twice as long.",
    )


def _memory() -> Line:
    import psutil

    free = psutil.virtual_memory().available / GB
    remedy = "The default profile needs 3 GB; close something or use --profile smoke."
    return Line("free memory", f"{free:.1f} GB", free >= 3, remedy)


def _disk() -> Line:
    folder = cache_dir()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free / GB
    remedy = "Sources and artifacts need 2 GB; free some, or set ALIGNLAB_CACHE."
    return Line("cache", f"{folder}, {free:.0f} GB free", free >= 2, remedy)


def _sources() -> Iterator[Line]:
    """The archives that the series itself needs."""
    from alignlab.data.sources import status

    needed = [source for source in status() if source.default]
    missing = [source.name for source in needed if not source.cached]
    finding = f"{len(needed) - len(missing)} of {len(needed)} in the cache"
    remedy = "They are downloaded when needed; or do it now: alignlab data pull"
    yield Line("data sources", finding, not missing, remedy)


def _accelerator() -> Line:
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name(0)
        return Line("accelerator", f"{name}; --profile gpu uses it")
    return Line("accelerator", "none; only profile gpu needs one")


def _speed() -> Line:
    try:
        here = matrix_gflops()
    except OSError as error:
        raise AlignlabError(f"numpy could not be timed: {error}.") from error
    usual = load_profiles()["reference_gflops"]
    times = usual / here
    remedy = f"Expect runs to take about {times:.1f} times as long as stated."
    return Line("speed", f"{here:.0f} GFLOP/s on one thread", here > usual / 3, remedy)
