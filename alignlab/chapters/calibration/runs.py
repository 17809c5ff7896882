"""The arms of notebook 07: the held-out items posed to one model after another, from
the base model to what reinforcement learning makes of it.
"""

from collections.abc import Sequence

from alignlab.chapters.calibration.artifacts import (
    HELD_OUT,
    ask,
    draw_items,
    labels,
    tuned_stages,
)
from alignlab.models.base import load_base
from alignlab.study.arms import run_each


def base_arm(*, seed: int, draws: int, size: str, limit: int = 0) -> dict:
    """The base model on the held-out items, as sentences to complete: ``artifacts.ask``
    and ``artifacts.labels``.

    Args:
        seed, draws, limit: as for ``artifacts.draw_items``.
        size: of the model.
    """
    items = draw_items(HELD_OUT, draws, seed, limit)
    return ask(*load_base(size), items, "statement") | labels(items)


def stages(
    *, seeds: Sequence[int], betas: Sequence[float], steps: int, jobs: int, **common
) -> dict[str, list[dict]]:
    """Rows of every stage, a row a seed: "base", and those of
    ``artifacts.tuned_stages``, where the arguments are explained."""
    rows = tuned_stages(
        seeds=seeds, betas=betas, calibrated=True, steps=steps, jobs=jobs, **common
    )
    options = {name: common[name] for name in ("draws", "limit", "size")}
    base = [(base_arm, dict(seed=s, **options)) for s in seeds]
    return {"base": run_each(base, jobs=jobs, label="base model"), **rows}
