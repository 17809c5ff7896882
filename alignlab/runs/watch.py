"""Watches the processes that a notebook starts: their memory and their time.

A thread looks twice a second, or less often where that is costly. When the time is up
it kills the kernel and everything it started, so a timeout also works inside compiled
code.
"""

import threading
import time

import psutil


class Watch:
    """Context manager around the execution of one notebook.

    Args:
        timeout: seconds until everything is killed.
        every: seconds between two looks; more where looking takes long, as it does at
            gigabytes of memory, so that it has a fiftieth of a processor at most.

    Attributes:
        timed_out: whether the time was up and the processes were killed.
        peak_memory: the most memory that they used together, in bytes. Shared pages,
            such as torch's code, count once on Linux and in each process elsewhere.
    """

    def __init__(self, timeout: float, every: float = 0.5):
        self.timed_out, self.peak_memory = False, 0
        self.timeout, self._every = timeout, every
        self._before = set(psutil.Process().children(recursive=True))
        self._seen: set[psutil.Process] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_repeatedly, daemon=True)

    def __enter__(self) -> "Watch":
        self._deadline = time.monotonic() + self.timeout
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()
        self._kill()  # a worker that outlived its kernel

    def _look_repeatedly(self) -> None:
        pause = self._every
        while not self._stop.wait(pause):
            began = time.thread_time()
            self._look()
            left = self._deadline - time.monotonic()
            if left < 0:
                self.timed_out = True
                self._kill()
            pause = max(self._every, 50 * (time.thread_time() - began))
            if left > 0:
                pause = min(pause, left + self._every)

    def _look(self) -> None:
        now = set(psutil.Process().children(recursive=True)) - self._before
        self._seen |= now
        self.peak_memory = max(self.peak_memory, sum(map(_memory_of, now)))

    def _kill(self) -> None:
        for process in self._seen:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass


def _memory_of(process: psutil.Process) -> int:
    try:
        memory = process.memory_full_info()
        return getattr(memory, "pss", memory.rss)
    except psutil.NoSuchProcess:
        return 0
    except psutil.AccessDenied:
        return process.memory_info().rss
