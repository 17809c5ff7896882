"""Killing: a forked process at its n-th operation on files, a command at any moment."""

import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
_EVENTS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "os.chmod"}


def kill_at_every_operation(
    work: Callable[[], object], within: Path, after: Callable[[], object]
) -> int:
    """Do ``work`` in a process that is killed just before its first change of a file
    below ``within``; then in one that is killed before its second, and so on until one
    ends by itself.

    Args:
        after: called after each kill, and must leave things as they were before it.

    Returns:
        How many were killed.
    """
    for number in itertools.count(1):
        child = os.fork()
        if child == 0:
            _work_until(number, work, within)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0
            return number - 1
        after()
    raise AssertionError


def _work_until(number: int, work: Callable, within: Path) -> None:
    left = itertools.count(number - 1, -1)

    def hook(event, arguments):
        if _changes(event, arguments, str(within)) and next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.addaudithook(hook)
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _changes(event: str, arguments: tuple, within: str) -> bool:
    if event == "open":
        path, mode, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        return bool(writes) and str(path).startswith(within)
    if event not in _EVENTS:
        return False
    # shutil.rmtree names files relative to the folder they are in.
    return any(str(a).startswith(within) for a in arguments[:2]) or (
        event in ("os.remove", "os.rmdir") and arguments[-1] != -1
    )


class Forked:
    """Work in a process of its own, forked from this one, which has imported what takes
    seconds; it is used as a ``subprocess.Popen``.

    Args:
        work: returns or leaves with the status.
        output: a file for what it prints.
    """

    def __init__(self, work: Callable[[], object], output: Path, cwd: Path, **env: str):
        self.output, self.returncode = output, None
        output.touch()  # or it might be killed before there is anything to read
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            self._become(work, cwd, env)
        STARTED.append(self)

    def _become(self, work, cwd, env) -> None:
        # A test started in the background ignores Ctrl-C, and so would this.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with self.output.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = (open(fd, "w", closefd=False) for fd in (1, 2))
        status = 1
        try:
            os.chdir(cwd)
            os.environ.update(env)
            work()
            status = 0
        except SystemExit as left:
            status = left.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        until = time.monotonic() + (timeout or 600)
        while self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > until:
                raise subprocess.TimeoutExpired("forked", timeout)
            else:
                time.sleep(0.01)
        return self.output.read_text(), None

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


STARTED: list = []  # all of them, which no test may leave running


def start(*command, cwd: Path, cache: Path, prefix=(), **environment):
    """Start a command of alignlab, as somebody types it; with a prefix such as
    ``setpriv`` it is a program of its own."""
    environment = {
        "PYTHONPATH": str(ROOT),
        "ALIGNLAB_CACHE": str(cache),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        **environment,
    }
    arguments = [str(item) for item in command]
    if not prefix:
        output = Path(tempfile.mkstemp(prefix="alignlab-faults-")[1])
        return Forked(partial(_main, arguments), output, cwd, **environment)
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "alignlab.cli", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    STARTED.append(process)
    return process


def _main(arguments: list[str]) -> None:
    from alignlab.cli import main

    sys.argv = ["alignlab", *arguments]
    main()


def finish(process, status: int | tuple = 0) -> str:
    """What a command printed; its status must be this one or one of these."""
    told = process.communicate(timeout=300)[0]
    wanted = status if isinstance(status, tuple) else (status,)
    assert process.returncode in wanted, told
    return told


def kill_after(process, seconds: float) -> bool:
    """Kill a command, and only it, as the kernel does when memory runs out; whether it
    was still running. What it had started must end by itself."""
    try:
        process.communicate(timeout=seconds)
        return False
    except subprocess.TimeoutExpired:
        pass
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    wait_for(lambda: not any(map(lives, children)), 15)
    return True


def lives(process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.05)
