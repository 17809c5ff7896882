"""Workers on this machine or on others: a Dask cluster for the arms of a run.

Whoever starts a run names the scheduler; the notebooks' kernels find its address in the
environment. Tasks go to Dask itself: joblib's backend for it would run them in the
calling process whenever the cluster has one worker, as after the other died.
"""

import contextlib
import functools
import itertools
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

import alignlab
from alignlab import cache, provenance
from alignlab.errors import AlignlabError
from alignlab.store import STORE, require_store, store_url

ADDRESS = "ALIGNLAB_DASK"  # the environment variable that holds the scheduler's address
PATIENCE = 10  # seconds to wait for the scheduler, and then for a first worker
START = "dask worker {address} --nworkers N --nthreads 1"


def scheduler_address() -> str:
    """Address of the Dask scheduler whose workers run the arms; "" if there is none."""
    return os.environ.get(ADDRESS, "")


@contextlib.contextmanager
def engaged(
    backend: str | None = None, address: str | None = None, store: str | None = None
) -> Iterator[None]:
    """Run arms on the workers of a cluster, and keep artifacts in a store as well, here
    and in the processes that are started meanwhile.

    Args:
        backend: "dask", or None for processes of this machine.
        address: of its scheduler ("tcp://host:8786").
        store: URL of the store, see :mod:`alignlab.store`; not needed where
            ``ALIGNLAB_CACHE`` is one folder for all machines.

    Raises:
        AlignlabError: if the scheduler does not answer, has no workers or has some that
            are not fit (see :func:`unfitness`), or the store cannot be used.
    """
    if backend not in (None, "dask"):
        raise AlignlabError(f"backend is {backend!r}.", "The one there is: dask.")
    if (backend is None) != (address is None):
        raise AlignlabError(
            "--backend and --address go together.",
            "For example: --backend dask --address tcp://HOST:8786.",
        )
    chosen = {name: url for name, url in ((ADDRESS, address), (STORE, store)) if url}
    if store:
        require_store(store)
    with _environment(chosen):
        if address:
            with _cluster(address):
                pass  # say now what is wrong with it
        yield


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def results(tasks: Sequence[Callable[[], dict]], address: str) -> Iterator[dict]:
    """What each task returns, in their order, from the workers of this scheduler. Of a
    worker that dies, the tasks go to another one.

    Raises:
        AlignlabError: see :func:`engaged`.
    """
    with _cluster(address) as (client, wanted):
        futures = [
            client.submit(_in_worker, task, wanted, pure=False) for task in tasks
        ]
        for future in futures:
            yield future.result()


@contextlib.contextmanager
def _cluster(address: str) -> Iterator[tuple]:
    """A client of the scheduler, and what its workers must meet, for :func:`unfitness`;
    those that there are do."""
    with _client(address) as client, _shared_folder() as token:
        wanted = {"versions": versions(), "token": token, "store": store_url()}
        faults = client.run(unfitness, wanted, on_error="return")
        for worker, fault in faults.items():
            if str(fault):  # or an exception, where alignlab is missing
                raise _refusal(worker, fault)
        yield client, wanted


def _in_worker(task: Callable[[], dict], wanted: dict) -> dict:
    """A task in a worker, which may have joined after the others were looked at."""
    from distributed import get_worker

    if fault := unfitness(wanted):
        raise _refusal(get_worker().address, fault)
    os.environ.pop(ADDRESS, None)  # an arm's own arms stay in its process
    if wanted["store"]:
        os.environ[STORE] = wanted["store"]
    return task()


@contextlib.contextmanager
def _client(address: str):
    try:
        from distributed import Client
    except ImportError:
        raise AlignlabError(
            "Dask is not installed.",
            "Install it: python -m pip install 'alignlab[dask]'",
        ) from None
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise AlignlabError(
            f"No Dask scheduler answers at {address}: {str(error).splitlines()[0]}.",
            "Start one with `dask scheduler` and give the address that it prints.",
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError:
            raise AlignlabError(
                f"The Dask scheduler at {address} has no workers.",
                f"Start some on each machine: {START.format(address=address)}",
            ) from None
        yield client


@contextlib.contextmanager
def _shared_folder() -> Iterator[str]:
    """Name of a file in the cache, by which workers tell whether they see this one."""
    cache.cache_dir().mkdir(parents=True, exist_ok=True)
    token = cache.cache_dir() / f".seen-by-workers-{uuid.uuid4().hex}"
    token.touch()
    try:
        yield token.name
    finally:
        token.unlink(missing_ok=True)


def versions() -> dict[str, str]:
    """Of alignlab and of the libraries that results pass through."""
    return {"alignlab": alignlab.__version__, **provenance.library_versions()}


def unfitness(wanted: dict, dask_worker=None) -> str:
    """Why this worker must not run arms for the process that wants them; "" if it may.

    Its libraries must have the same versions, on which results depend. It must share
    the cache folder or have a store. It must run one task at a time, because threads of
    a process share torch's random numbers, and seeds would no longer decide a result.

    Args:
        wanted: ``versions``, ``token`` and ``store`` of that process.
        dask_worker: Dask's worker of this process; by default that of this task.
    """
    from distributed import get_worker

    own = versions()
    for name in sorted({*own, *wanted["versions"]}):
        here, there = own.get(name, "none"), wanted["versions"].get(name, "none")
        if here != there:
            return f"it has {name} {here}, and this run {there}"
    if not wanted["store"] and not (cache.cache_dir() / wanted["token"]).exists():
        return f"its cache, {cache.cache_dir()}, is not the folder of this run's"
    threads = (dask_worker or get_worker()).state.nthreads
    return "" if threads == 1 else f"it runs {threads} tasks at a time"


def _refusal(worker: str, fault: str | Exception) -> AlignlabError:
    return AlignlabError(
        f"The worker {worker} is refused: {fault}.",
        "Start every worker in an environment like this one, with --nthreads 1 and "
        "ALIGNLAB_CACHE on a folder that all share (or a run with --store URL).",
    )


# --- One GPU a process ------------------------------------------------------------


def use_own_gpu(device: str) -> None:
    """Make "cuda" mean another GPU in each process of this machine: the first process
    has the first GPU, and with more processes than GPUs they take turns. "cuda:1" and
    "cpu" say themselves what they mean.

    Args:
        device: what models will be loaded onto.
    """
    import torch

    if device == "cuda" and (gpus := torch.cuda.device_count()) > 1:
        torch.cuda.set_device(process_number() % gpus)  # of this thread


@functools.cache
def process_number() -> int:
    """Lowest number, from 0, that no other living process of this user on this machine
    has. It is kept until the process ends, however it ends."""
    folder = Path(tempfile.gettempdir(), f"alignlab-processes-{os.getuid()}")
    folder.mkdir(exist_ok=True)
    for number in itertools.count():
        lock = FileLock(folder / f"{number}.lock")
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0)
            _numbers.append(lock)  # dropped, it would be released
            return number


_numbers: list[FileLock] = []
