"""Running the arms of an experiment: side by side, remembered, with a progress bar.

An *arm* is one training run with one seed: a dict of parameters that goes into a
function and comes back as a dict of numbers.
"""

import json
import sys
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence

from joblib import Parallel, delayed
from tqdm.auto import tqdm

from alignlab import cache
from alignlab.models.base import device_in_use, use_device, weights_hash

Arm = dict[str, object]
Call = tuple[Callable[..., dict], Arm]


def run_arms(
    run: Callable[..., dict], arms: Sequence[Arm], *, jobs: int = 2, label: str = ""
) -> list[dict]:
    """``run(**arm)`` for every arm, in the order given, each computed at most once.

    Arms run in ``jobs`` processes of one thread each: at this size that is faster than
    one process of ``jobs`` threads, and the same numbers come out whatever ``jobs`` is.
    What is done is remembered, so a run that was stopped goes on where it was.

    Args:
        run: a module-level function of keyword arguments, to a JSON-able dict. Its
            module and what that module imports from alignlab decide whether a
            remembered result still counts.
        arms: the parameters of each arm, JSON-able.
        jobs: arms at a time; 1 runs them in this process.
        label: what the progress bar calls the experiment.

    Returns:
        One dict per arm: its parameters and its results.
    """
    calls = [(run, arm) for arm in arms]
    return run_each(calls, jobs=jobs, label=label or run.__name__)


def run_each(calls: Sequence[Call], *, jobs: int = 2, label: str) -> list[dict]:
    """As :func:`run_arms`, for arms of several functions: ``run(**arm)`` for every
    ``(run, arm)``. Put the longest first, so that no process is idle at the end."""
    bar = tqdm(calls, desc=label, unit="arm")
    if jobs == 1 or all(is_remembered(*call) for call in calls):
        return [_remembered(*call, device=device_in_use()) for call in bar]
    # Workers that grew large are replaced, which is of no interest to a reader.
    warnings.filterwarnings("ignore", "A worker stopped", UserWarning)
    worker = {"quiet": True, "device": device_in_use()}
    with Parallel(n_jobs=jobs, return_as="generator", batch_size=1) as parallel:
        results = []
        for result in parallel(delayed(_remembered)(*call, **worker) for call in calls):
            results.append(result)
            bar.update()
    bar.close()
    return results


def run_groups(
    groups: Mapping[Hashable, Sequence[Call]], *, jobs: int = 2, label: str
) -> dict[Hashable, list[dict]]:
    """As :func:`run_each`, for arms by what they are for: the rows of each group.

    An arm that stands in several groups is run once."""
    calls = {_text(call): call for some in groups.values() for call in some}
    results = run_each(list(calls.values()), jobs=jobs, label=label)
    found = dict(zip(calls, results, strict=True))
    return {
        name: [found[_text(call)] for call in some] for name, some in groups.items()
    }


def _text(call: Call) -> str:
    run, arm = call
    return f"{run.__module__}.{run.__name__} {json.dumps(arm, sort_keys=True)}"


def is_remembered(run: Callable, arm: Arm) -> bool:
    """Whether the arm's result is in the cache."""
    return cache.artifact_path(**_identity(run, arm)).exists()


def _identity(run: Callable, arm: Arm) -> dict:
    # A retrained base model makes other results, like a changed recipe.
    return dict(
        kind=f"arms/{run.__name__}",
        key={**arm, "base": weights_hash()},
        code=[sys.modules[run.__module__]],
    )


def _remembered(
    run: Callable, arm: Arm, quiet: bool = False, device: str | None = None
) -> dict:
    if quiet:
        from transformers.utils import logging

        logging.disable_progress_bar()  # its bars would land in the notebook
    if device is not None:
        use_device(device)
    result = cache.remember(compute=lambda: run(**arm), **_identity(run, arm))
    return {**arm, **result}
