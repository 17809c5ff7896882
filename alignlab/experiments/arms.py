"""Running the arms of an experiment: side by side, remembered, with a progress bar.

An *arm* is one training run with one seed: a dict of parameters that goes into a
function and comes back as a dict of numbers.
"""

import sys
from collections.abc import Callable, Sequence

from joblib import Parallel, delayed
from tqdm.auto import tqdm

from alignlab import cache

Arm = dict[str, object]


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
    bar = tqdm(arms, desc=label or run.__name__, unit="arm")
    tasks = [delayed(_remembered)(run, arm, one_thread=jobs > 1) for arm in arms]
    if jobs == 1 or all(is_remembered(run, arm) for arm in arms):
        return [_remembered(run, arm) for arm in bar]
    with Parallel(n_jobs=jobs, return_as="generator", batch_size=1) as parallel:
        results = []
        for result in parallel(tasks):
            results.append(result)
            bar.update()
    bar.close()
    return results


def _remembered(run, arm: Arm, one_thread: bool = False) -> dict:
    if one_thread:
        import torch

        torch.set_num_threads(1)
    result = cache.remember(
        f"arms/{run.__name__}", lambda: run(**arm), key=arm, code=recipe(run)
    )
    return {**arm, **result}


def is_remembered(run: Callable, arm: Arm) -> bool:
    """Whether the arm's result is in the cache."""
    kind = f"arms/{run.__name__}"
    return cache.artifact_path(kind, arm, recipe(run)).exists()


def recipe(run: Callable) -> list:
    """The function's module and every alignlab module that it leads to, by name: the
    code on which a result depends."""
    found = {}
    todo = [sys.modules[run.__module__]]
    while todo:
        module = todo.pop()
        if module.__name__ in found or not _ours(module.__name__):
            continue
        found[module.__name__] = module
        todo += [m for m in map(_module_of, vars(module).values()) if m is not None]
    return [found[name] for name in sorted(found)]


def _ours(name: str) -> bool:
    passive = ("alignlab.experiments.arms", "alignlab.cache", "alignlab.errors")
    return name.startswith("alignlab.") and name not in passive


def _module_of(value: object):
    if type(value) is type(sys):
        return value
    return sys.modules.get(getattr(value, "__module__", None) or "")
