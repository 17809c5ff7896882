"""`alignlab run`: execute the numbered notebooks, one after the other.

A run is a folder: run.json says what was done, and each notebook has an executed copy
and a folder of metrics and figures. Only a finished notebook has its plain name.
"""

import contextlib
import hashlib
import json
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

import alignlab
from alignlab.cache import cache_dir, require_unchanged
from alignlab.course.notebooks import notebooks_folder
from alignlab.files import write_json
from alignlab.runs.benchmark import matrix_gflops
from alignlab.runs.context import METRICS_FILE, SETTINGS_FILE
from alignlab.runs.execute import NotebookFailed, execute
from alignlab.runs.folders import (
    FAILED,
    FINISHED,
    RUN_FILE,
    RUNNING,
    WAITING,
    exclusive,
    new_folder,
    point_latest_at,
    resume_command,
    run_folder,
)
from alignlab.runs.notebooks import (
    assign_parameters,
    read_parameters,
    select_notebooks,
)
from alignlab.runs.origin import library_versions, origin
from alignlab.runs.profiles import (
    check_profile,
    load_profiles,
    named_only,
    notebook_settings,
    timeout_seconds,
)
from alignlab.runs.progress import Progress
from alignlab.runs.watch import Watch

# Parts of the package that no number in a notebook depends on.
NOT_IN_FINGERPRINT = (
    "cli.py",
    "course/build.py",
    "course_cli.py",
    "results_cli.py",
    "runs/arc.py",
    "runs/bands.py",
    "runs/baselines/",
    "runs/compare.py",
    "runs/doctor.py",
    "runs/history.py",
    "runs/ledger.py",
    "runs/likeness.py",
    "runs/origin.py",
    "runs/pairs.py",
    "runs/progress.py",
    "runs/publish.py",
    "runs/records.py",
    "runs/report.py",
    "runs/results.py",
    "runs/summary.py",
    "runs/templates/",
    "runs/webpages.py",
)


@dataclass(frozen=True)
class Job:
    """One notebook of a run, and a hash of everything that its result depends on; that
    of a base model which does not ship also by itself."""

    notebook: Path
    parameters: dict
    settings: dict
    fingerprint: str
    model_hash: str

    @property
    def name(self) -> str:
        return self.notebook.stem


@dataclass(frozen=True)
class RunResult:
    """The folder of the run, and what failed in it."""

    folder: Path
    failures: tuple[NotebookFailed, ...]


def run_series(
    wanted: Sequence[str] = (),
    *,
    profile: str | None = None,
    params: Sequence[str] = (),
    out: Path | None = None,
    resume: bool = False,
    timeout: float | None = None,
    keep_going: bool = False,
    notebooks: Path | None = None,
    console: Console | None = None,
) -> RunResult:
    """Execute notebooks in ascending order and write the report.

    Args:
        wanted: numbers and ranges, "00", "03-05"; when empty all notebooks, but for
            those that the profile leaves out (see ``named_only``).
        profile: smoke, cpu (the default), full or gpu.
        params: NAME=VALUE pairs for the notebooks' parameters cells and settings.
        out: the run's folder; by default runs/PROFILE-TIME.
        resume: continue the run in ``out`` (by default the latest one), keeping what
            finished with the same sources, parameters and code.
        timeout: seconds that a notebook may take; by default the profile's.
        keep_going: continue with the next notebook after one failed.
        notebooks: their folder; by default that of the checkout, or the one that the
            run to resume was given.
        console: where progress is shown.

    A run that is stopped, by Ctrl-C or SIGTERM, says how to continue it and writes the
    report of what is finished.

    Raises:
        AlignlabError: if an argument is wrong, or the folder cannot be written or its
            disk is full.
    """
    console = console or Console(stderr=True)
    folder, old = run_folder(out, resume, profile)
    profile = check_profile(profile or old.get("profile") or "cpu")
    wanted = wanted or _numbers_of(old)
    params = params or old.get("params", [])
    given = notebooks or old.get("notebooks_folder")
    place = notebooks_folder(Path(given) if given else None)
    chosen = select_notebooks(place, wanted, named_only(profile))
    jobs = _jobs(chosen, profile, params)
    from alignlab.runs.report import write_report

    with exclusive(folder or new_folder(profile)) as folder:
        point_latest_at(folder)
        state = _describe(old, profile, list(params))
        state["notebooks_folder"] = str(place) if given else None
        if profile == "full" and state["dirty"]:
            console.print(
                "note: changes that are in no commit; `alignlab publish` will refuse "
                "this run",
                soft_wrap=True,
            )
        (folder / METRICS_FILE).unlink(missing_ok=True)  # no longer complete
        seconds = timeout or timeout_seconds(profile)
        try:
            with _leaves_on_sigterm():
                failures = _run_all(jobs, folder, state, seconds, keep_going, console)
        except (KeyboardInterrupt, SystemExit):
            console.print(
                f"Stopped. To continue: {resume_command(folder)}", soft_wrap=True
            )
            write_report(folder)
            raise
        write_report(folder)
    return RunResult(folder, tuple(failures))


@contextlib.contextmanager
def _leaves_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the kernel and what it started, as Ctrl-C does, and then leaves with
    the status 143 that a process has which the signal ended."""

    def leave(number, frame):
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# --- What to run -----------------------------------------------------------


def _jobs(notebooks: Sequence[Path], profile: str, params: Sequence[str]) -> list[Job]:
    device = load_profiles()["profiles"][profile].get("device", "cpu")
    usual = {"profile": profile, "device": device}
    package = package_hash()
    jobs = []
    assigned = assign_parameters(read_parameters(params), notebooks, profile)
    for notebook, (own, overrides) in assigned.items():
        parameters = {**usual, **own}
        if parameters["device"] != "cpu":  # torch is slow to import
            from alignlab.models.base import require_device

            require_device(parameters["device"])
        overrides = _with_whole_path(overrides)
        settings = notebook_settings(notebook.name[:2], profile, **overrides)
        model = _contents_of(settings["model"])
        versions = library_versions()
        inputs = [_sources(notebook), parameters, settings, model, package, versions]
        text = json.dumps(inputs, sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()
        jobs.append(Job(notebook, parameters, overrides, digest, model))
    return jobs


def _with_whole_path(overrides: dict) -> dict:
    """Settings whose ``model``, where it is a folder, has its whole path: a kernel runs
    in another folder than the command."""
    from alignlab.models.base import is_shipped

    model = overrides.get("model")
    if model is None or is_shipped(model) or not Path(model).expanduser().exists():
        return overrides
    return {**overrides, "model": str(Path(model).expanduser().resolve())}


def _contents_of(model: str) -> str:
    """A hash of the base model, which has to be there before a kernel starts; of those
    that ship nothing, as the package's own hash covers them.

    Raises:
        AlignlabError: if there is no such model, or one that was converted into the
            cache has changed since.
    """
    from alignlab.models.base import base_path, is_shipped, weights_hash

    path = base_path(model)
    if path.is_relative_to(cache_dir() / "models"):
        require_unchanged(path)
    return "" if is_shipped(model) else weights_hash(model)


def _sources(notebook: Path) -> list[list[str]]:
    """The cells without outputs, which executing a notebook would change."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [[cell["cell_type"], "".join(cell["source"])] for cell in cells]


def package_hash() -> str:
    """Hash of every file of the package that a notebook's numbers may depend on."""
    root = Path(alignlab.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if (
            path.is_dir()
            or "__pycache__" in name
            or name.startswith(NOT_IN_FINGERPRINT)
        ):
            continue
        digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _describe(old: dict, profile: str, params: list[str]) -> dict:
    return {
        "profile": profile,
        "params": params,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "package": package_hash(),
        **origin(),
        "gflops": round(matrix_gflops(), 1),
        "notebooks": old.get("notebooks", {}),
    }


def _numbers_of(old: dict) -> list[str]:
    return [name[:2] for name in old.get("notebooks", {})]


# --- Running it ---------------------------------------------------------------------


def _run_all(
    jobs: Sequence[Job],
    folder: Path,
    state: dict,
    timeout: float,
    keep_going: bool,
    console: Console,
) -> list[NotebookFailed]:
    """Run the jobs in turn; run.json is written before and after each of them."""
    failures = []
    _enter_jobs(jobs, folder, state)
    with Progress(console, [job.name for job in jobs]) as progress:
        for job in jobs:
            entry = state["notebooks"][job.name]
            if entry["status"] == FINISHED:
                progress.end(job.name, "kept")
                continue
            entry.update(status=RUNNING, commit=state["commit"], dirty=state["dirty"])
            write_json(folder / RUN_FILE, state)
            failure = _run_one(job, folder, entry, timeout, progress)
            write_json(folder / RUN_FILE, state)
            if failure is not None:
                failures.append(failure)
                if not keep_going:
                    break
    return failures


def _enter_jobs(jobs: Sequence[Job], folder: Path, state: dict) -> None:
    """Enter every job into the state; what finished with the same inputs is kept."""
    for job in jobs:
        old = state["notebooks"].get(job.name, {})
        same = old.get("fingerprint") == job.fingerprint
        whole = (folder / f"{job.name}.ipynb").exists()
        if not (old.get("status") == FINISHED and same and whole):
            state["notebooks"][job.name] = {"status": WAITING}
    state["notebooks"] = dict(sorted(state["notebooks"].items()))
    write_json(folder / RUN_FILE, state)


def _run_one(
    job: Job, folder: Path, entry: dict, timeout: float, progress: Progress
) -> NotebookFailed | None:
    """Execute a job and enter the outcome."""
    _clear(folder, job.name)
    write_json(folder / job.name / SETTINGS_FILE, job.settings)
    parameters = {**job.parameters, "out_dir": str(folder / job.name)}
    began, watch, failure = time.monotonic(), Watch(timeout), None
    progress.begin(job.name)
    try:
        on_cell = partial(progress.cell, job.name)
        execute(job.notebook, folder, parameters, watch, on_cell)
    except NotebookFailed as error:
        failure = error
    entry.update(
        status=FAILED if failure else FINISHED,
        fingerprint=job.fingerprint,
        parameters=job.parameters,
        settings=job.settings,
        model_hash=job.model_hash,
        seconds=round(time.monotonic() - began, 1),
        peak_memory_mb=round(watch.peak_memory / 1e6),
    )
    if failure:
        entry.update(cell=failure.cell, line=failure.line, reason=failure.reason)
    progress.end(job.name, entry["status"], failure.reason if failure else "")
    return failure


# All files of a run's folder that are about one notebook, apart from those in the
# folder of its own. Others may begin with its name too, and are the user's.
OF_A_NOTEBOOK = (
    ".ipynb",
    ".partial.ipynb",
    ".failed.ipynb",
    ".html",
    ".failed.html",
    ".log",
)


def _clear(folder: Path, name: str) -> None:
    """Remove what an earlier attempt left of a notebook."""
    for ending in OF_A_NOTEBOOK:
        (folder / f"{name}{ending}").unlink(missing_ok=True)
    shutil.rmtree(folder / name, ignore_errors=True)
