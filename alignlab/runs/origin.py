"""What a run was made by: commit, weights, libraries, machine."""

import functools
import hashlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import alignlab
from alignlab.models.base import WEIGHTS
from alignlab.provenance import LIBRARIES


def origin() -> dict:
    """As ``run.json`` has it: commit and whether anything was changed since (both None
    outside a checkout), a hash of each folder of weights, versions and machine."""
    root = Path(alignlab.__file__).parents[1]
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": commit,
        "dirty": None if commit is None else bool(changes),
        "weights": weight_hashes(),
        "versions": library_versions(),
        "platform": f"{platform.system()} {platform.machine()}, {processor()}, "
        f"{os.cpu_count()} cores",
    }


def weight_hashes() -> dict[str, str]:
    """A short hash of every folder of weights that ships: its parameters, tokenizer,
    chat template and configuration."""
    folders = sorted(path for path in WEIGHTS.iterdir() if path.is_dir())
    return {path.name: _hash(path) for path in folders}


def _hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix not in (".md", ".png"):
            digest.update(path.name.encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def library_versions() -> dict[str, str]:
    """Versions of Python, alignlab and the libraries that numbers pass through."""
    versions = {"python": platform.python_version(), "alignlab": alignlab.__version__}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "missing"
    return versions


@functools.cache
def processor() -> str:
    """The processor's model, since other models round otherwise."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return " ".join(names[0].split()) if names else "unknown processor"


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says of the checkout that ``folder`` is; None if it is none."""
    if not (folder / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
