"""Run the arms of an experiment: in parallel, from the cache where they are known, with
a progress bar.

An *arm* is one run with one seed: a dict of parameters for a function that returns a
dict of numbers.
"""

import json
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from joblib import Parallel, delayed
from tqdm.auto import tqdm

from alignlab import cache
from alignlab.errors import AlignlabError
from alignlab.models.base import device_in_use, use_device, weights_behind
from alignlab.study import workers
from alignlab.study.knowledge import base_in_use, use_base

Arm = dict[str, object]
Call = tuple[Callable[..., dict], Arm]


def run_arms(
    run: Callable[..., dict], arms: Sequence[Arm], *, jobs: int = 2, label: str = ""
) -> list[dict]:
    """``run(**arm)`` for every arm, in the order given; cached results are reused.

    Arms run in ``jobs`` processes of one thread each: with models this small that is
    faster than one process of ``jobs`` threads. The numbers do not depend on ``jobs``.
    Every result is cached as soon as it is there, so an interrupted experiment resumes
    where it stopped. If a Dask scheduler was named (:mod:`alignlab.study.workers`), the
    arms run on its workers, one at a time on each, whatever ``jobs`` is.

    Args:
        run: a module-level function of keyword arguments that returns a dict JSON can
            hold. A cached result counts as long as its code, with all that it uses of
            alignlab, stays the same.
        arms: the parameters of each arm, which JSON can hold.
        jobs: arms to run at a time; 1 runs them in this process.
        label: title of the progress bar.

    Returns:
        A row for each arm: its parameters and its results.
    """
    calls = [(run, arm) for arm in arms]
    return run_each(calls, jobs=jobs, label=label or run.__name__)


def run_each(calls: Sequence[Call], *, jobs: int = 2, label: str) -> list[dict]:
    """As :func:`run_arms`, for arms of several functions: ``run(**arm)`` for every
    ``(run, arm)``. With the longest ones first, no process is idle at the end."""
    bar = tqdm(calls, desc=label, unit="arm")
    here = jobs == 1 and not workers.scheduler_address()
    if here or all(is_remembered(*call) for call in calls):
        return [_remembered(*call) for call in bar]
    settings = device_in_use(), base_in_use()
    tasks = [
        partial(_in_another_process, *call, _path(*call).name, *settings)
        for call in calls
    ]
    results = []
    for result in _results(tasks, jobs):
        results.append(result)
        bar.update()
    bar.close()
    return results


def _results(tasks: Sequence[Callable[[], dict]], jobs: int) -> Iterator[dict]:
    """What each of them returns, in their order, from the processes that there are."""
    if address := workers.scheduler_address():
        yield from workers.results(tasks, address)
        return
    # joblib warns when it replaces a worker that has grown large.
    warnings.filterwarnings("ignore", "A worker stopped", UserWarning)
    with Parallel(jobs, return_as="generator", batch_size=1) as parallel:
        yield from parallel(delayed(task)() for task in tasks)


def run_groups(
    groups: Mapping[Hashable, Sequence[Call]], *, jobs: int = 2, label: str
) -> dict[Hashable, list[dict]]:
    """As :func:`run_each`, for groups of arms: the rows of each group. An arm that is
    in several groups runs once."""
    calls = {_text(call): call for group in groups.values() for call in group}
    results = run_each(list(calls.values()), jobs=jobs, label=label)
    rows = dict(zip(calls, results, strict=True))
    return {
        name: [rows[_text(call)] for call in group] for name, group in groups.items()
    }


def _text(call: Call) -> str:
    run, arm = call
    return f"{run.__module__}.{run.__name__} {json.dumps(arm, sort_keys=True)}"


def pick(rows: Sequence[dict], **parameters) -> list[dict]:
    """The rows of the arms with these parameters, sorted by seed.

    Raises:
        ValueError: if there is none.
    """
    picked = [
        row
        for row in rows
        if all(row[name] == value for name, value in parameters.items())
    ]
    if not picked:
        raise ValueError(f"no arm with {parameters} among {len(rows)}")
    return sorted(picked, key=lambda row: row["seed"])


def is_remembered(run: Callable, arm: Arm) -> bool:
    """Whether the arm's result is in the cache."""
    return _path(run, arm).exists()


def _path(run: Callable, arm: Arm) -> Path:
    return cache.artifact_path(**_identity(run, arm))


def _identity(run: Callable, arm: Arm) -> dict:
    # A retrained base model invalidates results just as changed code does.
    return dict(
        kind=f"arms/{run.__name__}",
        key={**arm, "weights_hash": weights_behind(arm)},
        code=[run],
    )


def _remembered(run: Callable, arm: Arm) -> dict:
    result = cache.remember(compute=lambda: run(**arm), **_identity(run, arm))
    return {**arm, **result}


def _in_another_process(
    run: Callable, arm: Arm, name: str, device: str, base: str
) -> dict:
    """An arm in a process of its own, where it must be what the experiment takes it
    for: ``name`` is that of its artifact."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # its bars would land in the notebook
    quiet_empty_replies()
    workers.use_own_gpu(device)
    use_device(device)
    use_base(base)
    if name != _path(run, arm).name:
        raise AlignlabError(
            f"What {run.__name__} depends on changed after the experiment began.",
            "Start it again; in a notebook, restart the kernel first. On other "
            "machines, bring alignlab to the same state and restart the workers.",
        )
    return _remembered(run, arm)


def quiet_empty_replies() -> None:
    """No warning of empty completions: arms also train on what policies reply, and now
    and then that is nothing."""
    warnings.filterwarnings("ignore", ".*with an empty completion: [^;]*$", UserWarning)


def run_alone(calls: Sequence[Call]) -> list[dict]:
    """``run(**arm)`` for every ``(run, arm)``, for measuring times: nothing comes from
    the cache of arms, and one arm at a time runs in this process, on one thread. What
    an arm itself takes from the cache (a policy, a reward model) still comes from it.

    Returns:
        A row for each arm: its parameters and its results.
    """
    with cache.one_thread():
        return [{**arm, **run(**arm)} for run, arm in calls]
