"""From the rows of notebook 01's arms to its numbers. Nothing is trained here."""

from collections.abc import Sequence

import numpy as np

from alignlab.chapters.instruction_tuning.artifacts import mean_over
from alignlab.evaluation.curves import slope_per_doubling
from alignlab.plots.style import by_seed
from alignlab.study.arms import pick
from alignlab.world import tasks


def paired_differences(
    rows: Sequence[dict], metric: str, column: str, one: str, other: str
) -> list[float]:
    """``metric`` of the arms whose ``column`` is ``one`` minus that of the arms whose
    ``column`` is ``other``, seed by seed."""
    pairs = zip(pick(rows, **{column: one}), pick(rows, **{column: other}), strict=True)
    return [a[metric] - b[metric] for a, b in pairs]


# --- How few examples -----------------------------------------------------------------


def n_at_share(ns: Sequence[int], values: Sequence[float], share: float = 0.9) -> float:
    """The number of examples at which a curve first reaches a share of its ceiling.

    The ceiling is the highest value. Between two points n is interpolated in
    log2(1 + n). A curve that starts above the target gives its first n, at least 1.
    """
    target = share * max(values)
    places = np.log2(1 + np.asarray(ns, float))
    for i, value in enumerate(values):
        if value >= target:
            if i == 0:
                return float(max(ns[0], 1))
            part = (target - values[i - 1]) / (value - values[i - 1])
            place = places[i - 1] + part * (places[i] - places[i - 1])
            return float(max(2**place - 1, 1))
    raise ValueError(f"values={values!r} never reach {share} of their own maximum")


def examples_needed(rows: Sequence[dict], metric: str) -> np.ndarray:
    """:func:`n_at_share` of the metric over n, one value per seed."""
    ns, curves = by_seed(pick(rows, shuffled=False), "n", metric)
    return np.array([n_at_share(ns, values) for values in curves])


def gap_to_shuffled(rows: Sequence[dict], metric: str) -> np.ndarray:
    """The metric at the largest n minus that of the shuffled control, by seed."""
    _, curves = by_seed(pick(rows, shuffled=False), "n", metric)
    return curves[:, -1] - [row[metric] for row in pick(rows, shuffled=True)]


# --- Task families --------------------------------------------------------------------


def diversity_slopes(rows: Sequence[dict], size: str) -> np.ndarray:
    """Gain in held-out accuracy from twice as many families, one value per seed."""
    ks, curves = by_seed(pick(rows, size=size), "k", "held_out")
    return np.array([slope_per_doubling(ks, values) for values in curves])


def small_families() -> tuple[str, ...]:
    """The half of the trained families with the fewest distinct examples."""
    counts = tasks.sizes()
    ordered = sorted(tasks.trained_families(), key=lambda name: counts[name])
    return tuple(ordered[: round(0.5 * len(ordered))])


def accuracy_on(
    rows: Sequence[dict], families: Sequence[str], scheme: str
) -> np.ndarray:
    """Mean accuracy over these families under a scheme of weights, by seed."""
    chosen = pick(rows, weights=scheme)
    return np.array([mean_over(row["by_family"], families) for row in chosen])


def worst_family_gain(rows: Sequence[dict], one: str, other: str) -> list[float]:
    """Accuracy of the worst family under one scheme of weights minus that of the worst
    under another, seed by seed. Only families count that some scheme solves: at least
    half of the answers are right, as a mean over seeds."""
    solved = _solved_families(rows)

    def worst(scheme: str) -> list[float]:
        return [
            min((row["by_family"][name] for name in solved), default=0.0)
            for row in pick(rows, weights=scheme)
        ]

    return [a - b for a, b in zip(worst(one), worst(other), strict=True)]


def _solved_families(rows: Sequence[dict]) -> list[str]:
    schemes = [pick(rows, weights=w) for w in {row["weights"] for row in rows}]
    return [
        name
        for name in tasks.trained_families()
        if any(np.mean([r["by_family"][name] for r in arms]) >= 0.5 for arms in schemes)
    ]


# --- Wordings -------------------------------------------------------------------------


def relative_spread(by_wording: Sequence[Sequence[float]]) -> float:
    """What is lost by not knowing the best wording: 1 - mean / best accuracy, averaged
    over families. It is 0 if all wordings are equal and 1 - 1/k if only one of k works.
    Families that no wording solves are left out."""
    lost = [1 - np.mean(row) / max(row) for row in by_wording if max(row) > 0]
    return float(np.mean(lost)) if lost else 1.0


def spreads(rows: Sequence[dict], tuned: bool) -> np.ndarray:
    """:func:`relative_spread` before or after SFT, one value per seed."""
    return np.array([relative_spread(r["by_wording"]) for r in pick(rows, tuned=tuned)])


def base_solves_any(rows: Sequence[dict]) -> bool:
    """Whether the base model is right in any wording of any family."""
    untuned = pick(rows, tuned=False)
    return any(max(family) > 0 for row in untuned for family in row["by_wording"])
