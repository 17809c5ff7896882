"""Run a notebook that somebody else wrote: in a process of its own, without this
process's environment, and not for longer than it may.

    python -m alignlab.course.untrusted IN.ipynb OUT.ipynb SECONDS

That protects from slips and from endless loops. It is no sandbox: the notebook may read
what its user may read, and use the network. docs/teaching.md says how to have one.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from alignlab.cache import cache_dir
from alignlab.errors import needs_extra

# What a kernel needs of the environment. Anything else may be a password.
KEPT = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LANG", "LC_ALL", "TZ", "SYSTEMROOT")


def run_untrusted(
    notebook: Path, out: Path, folder: Path, seconds: float, profile: str
) -> str:
    """Execute a notebook, going on behind cells that raise.

    Args:
        notebook: what to run; it is not changed.
        out: where the executed copy goes, with the cells that ran until time was up.
        folder: its working folder and home.
        seconds: of all cells together.
        profile: of the notebook, through ALIGNLAB_PROFILE.

    Returns:
        What went wrong with the run as a whole, or "".

    Raises:
        AlignlabError: if nbclient is missing.
    """
    needs_extra("nbclient", "run")
    command = [sys.executable, "-m", __spec__.name, str(notebook), str(out)]
    process = subprocess.Popen(
        [*command, str(seconds)],
        cwd=folder,
        env=_environment(folder, profile),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _, errors = process.communicate(timeout=seconds + 60)  # to start and to write
    except subprocess.TimeoutExpired:
        return f"stopped after {seconds:g} seconds"
    finally:
        _end(process)
    lines = errors.strip().splitlines()
    return lines[-1] if process.returncode and lines else ""


def _environment(home: Path, profile: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return kept | {
        "HOME": str(home),
        "ALIGNLAB_CACHE": str(cache_dir().absolute()),
        "ALIGNLAB_PROFILE": profile,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }


def _end(process: subprocess.Popen) -> None:
    """End a process and all that it started: its kernel has a session of its own."""
    import psutil

    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    for child in children:
        child.kill()
    process.kill()
    process.wait()


def main(notebook: str, out: str, seconds: str) -> None:
    """Execute all cells, and write what came of them, whatever happens."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import DeadKernelError

    content = nbformat.read(notebook, as_version=4)
    end = time.monotonic() + float(seconds)

    def remaining(cell) -> float:
        if time.monotonic() > end:
            raise TimeoutError
        return end - time.monotonic()

    client = NotebookClient(
        content,
        timeout_func=remaining,
        interrupt_on_timeout=True,
        allow_errors=True,
        kernel_name="python3",
    )
    try:
        client.execute()
    except DeadKernelError:
        sys.exit("the kernel died")
    except TimeoutError:
        sys.exit(f"stopped after {float(seconds):g} seconds")
    finally:
        nbformat.write(content, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
