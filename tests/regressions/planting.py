"""Planting a regression into a copy of alignlab, and asking who notices."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from alignlab.files import read_json
from alignlab.runs.compare import check_run
from alignlab.runs.records import read_metrics, read_record

ROOT = Path(__file__).resolve().parents[2]
SEED = 1  # of the runs: with 0, a seed that is dropped for 0 would not show


@dataclass(frozen=True)
class Mutant:
    """A regression: what of a file of alignlab becomes what, and who has to notice: a
    unit test, and a notebook on profile smoke with so many seeds."""

    name: str
    file: str
    before: str
    after: str
    why: str
    test: str
    notebook: str
    seeds: int = 1


def mutants() -> dict[str, Mutant]:
    entries = yaml.safe_load(Path(__file__).with_name("mutants.yaml").read_text())
    return {name: Mutant(name, **entry) for name, entry in entries.items()}


def planted(folder: Path, *wanted: Mutant) -> Path:
    """A copy of the checkout in ``folder`` with some regressions; files that stay as
    they are share their bytes."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("alignlab", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore, copy_function=_link)
    for name in ("pyproject.toml", "figures", "notebooks", "recipes", "docs"):
        (folder / name).symlink_to(ROOT / name)
    for mutant in wanted:
        path = folder / "alignlab" / mutant.file
        text = path.read_text(encoding="utf-8")
        assert text.count(mutant.before) == 1, f"{mutant.name} fits nothing"
        path.unlink()  # or the original would change as well
        path.write_text(text.replace(mutant.before, mutant.after), encoding="utf-8")
    return folder


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # on another disk
        shutil.copyfile(source, target)


def python(copy: Path, *arguments: str, **environment: str):
    """Run a module of Python on a copy."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
    )


def unit_test(copy: Path, node: str):
    """Run one of the copy's tests, up to its first failure."""
    return python(copy, "pytest", "-q", "-x", "-p", "no:cacheprovider", node)


def run_notebook(
    copy: Path, notebook: str, out: Path, *options: str, seeds: int = 1, **environment
):
    """Execute a notebook on profile smoke with the copy's alignlab."""
    arguments = [notebook, "--profile", "smoke", "--param", f"seed={SEED}"]
    arguments += ["--param", f"seeds={seeds}"] if seeds > 1 else []
    arguments += ["--notebooks", str(copy / "notebooks"), "--out", str(out), *options]
    return python(copy, "alignlab.cli", "run", *arguments, **environment)


def noticed(run: Path, record: Path) -> str:
    """What a run of one notebook shows that its record does not: the cell that failed,
    or how many metrics have other digits."""
    ((name, entry),) = read_json(run / "run.json")["notebooks"].items()
    if entry["status"] != "finished":
        reason = entry.get("reason", entry["status"])
        exercise = re.search(r"Exercise \d\d\.\d+", reason)
        return f"{name[:2]} fails: {exercise[0] if exercise else reason[:60]}"
    rows = check_run(read_metrics(run), read_record(record)).comparisons
    other = sum(row.same is False for row in rows)
    return f"{name[:2]}: {other} of {len(rows)} metrics"


def check(copy: Path, run: Path, record: Path, *options: str):
    """`alignlab check`, by the copy."""
    arguments = [str(run), "--against", str(record), *options]
    return python(copy, "alignlab.cli", "check", *arguments)
