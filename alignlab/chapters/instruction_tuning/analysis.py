"""From the rows of notebook 01's arms to its numbers. Nothing is trained here."""

from collections.abc import Mapping, Sequence

import numpy as np

from alignlab.chapters.instruction_tuning.artifacts import mean_over
from alignlab.evaluation.intervals import Interval
from alignlab.plots.style import by_seed
from alignlab.study.arms import pick
from alignlab.world import tasks


def paired_differences(
    rows: Sequence[dict], metric: str, column: str, value: str, control: str
) -> list[float]:
    """``metric`` of the arms whose ``column`` is ``value`` minus that of the arms
    whose ``column`` is ``control``, seed by seed."""
    pairs = zip(
        pick(rows, **{column: value}), pick(rows, **{column: control}), strict=True
    )
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


def doublings(few: Sequence[float], many: Sequence[float]) -> np.ndarray:
    """log2 of the ratio few / many, one value per seed. Their mean is the log2 of the
    geometric mean of the ratios."""
    return np.log2(np.asarray(few, float) / np.asarray(many, float))


def gap_to_shuffled(rows: Sequence[dict], metric: str) -> np.ndarray:
    """The metric at the largest n minus that of the shuffled control, by seed."""
    _, curves = by_seed(pick(rows, shuffled=False), "n", metric)
    return curves[:, -1] - [row[metric] for row in pick(rows, shuffled=True)]


# --- Questions that are the same for every seed ---------------------------------------


def items(rows: Sequence[dict], column: str = "items", **parameters) -> np.ndarray:
    """(seeds, items) of the arms with these parameters; the mean is their accuracy."""
    return np.array([row[column] for row in pick(rows, **parameters)])


def behind(values: np.ndarray) -> dict:
    """What ``runs.record`` gets beside the mean of (seeds, items): the items, whose
    interval allows for other seeds and other items, or the value of a single seed."""
    return {"items": values} if len(values) > 1 else {"seeds": values.mean(1)}


def slopes_by_item(rows: Sequence[dict]) -> np.ndarray:
    """(seeds, items): each question's gain from twice as many families. The slope is
    linear in the accuracies, so its mean over questions is the slope of the mean."""
    ks = sorted({row["k"] for row in rows})
    table = np.stack([items(rows, k=k) for k in ks])  # (ks, seeds, items)
    slope = np.polyfit(np.log2(ks), table.reshape(len(ks), -1), 1)[0]
    return slope.reshape(table.shape[1:])


def at_chance(
    groups: Sequence[Sequence[dict]], chance: Mapping[str, float], margin: float = 0.1
) -> list[str]:
    """Held-out families in which no group of arms is above chance by ``margin``, as a
    mean over its seeds."""

    def best(family: str) -> float:
        return max(
            np.mean([row["by_family"][family]["accuracy"] for row in rows])
            for rows in groups
        )

    return [name for name, guess in chance.items() if best(name) < guess + margin]


# --- Task families --------------------------------------------------------------------


def small_families() -> tuple[str, ...]:
    """The half of the trained families with the fewest distinct examples."""
    counts = tasks.sizes()
    known = [name for name in tasks.trained_families() if counts[name]]
    ordered = sorted(known, key=lambda name: counts[name])
    return tuple(ordered[: round(0.5 * len(ordered))])


def accuracy_on(
    rows: Sequence[dict], families: Sequence[str], scheme: str
) -> np.ndarray:
    """Mean accuracy over these families under a scheme of weights, by seed."""
    chosen = pick(rows, weights=scheme)
    return np.array([mean_over(row["by_family"], families) for row in chosen])


def worst_family_gain(rows: Sequence[dict], scheme: str, control: str) -> list[float]:
    """Accuracy of the worst family under one scheme of weights minus that of the worst
    under another, seed by seed. Only families count that some scheme solves: at least
    half of the answers are right, as a mean over seeds."""
    solved = _solved_families(rows)

    def worst(scheme: str) -> list[float]:
        return [
            min((row["by_family"][name] for name in solved), default=0.0)
            for row in pick(rows, weights=scheme)
        ]

    return [a - b for a, b in zip(worst(scheme), worst(control), strict=True)]


def _solved_families(rows: Sequence[dict]) -> list[str]:
    schemes = [pick(rows, weights=w) for w in {row["weights"] for row in rows}]
    return [
        name
        for name in rows[0]["by_family"]
        if name in tasks.trained_families()
        and any(
            np.mean([r["by_family"][name] for r in arms]) >= 0.5 for arms in schemes
        )
    ]


# --- Wordings -------------------------------------------------------------------------


def spread_over_wordings(rows: Sequence[dict]) -> np.ndarray:
    """For each seed, the standard deviation over wordings of the mean probability of
    the right option, averaged over families."""
    rows = sorted(rows, key=lambda row: row["seed"])
    return np.array(
        [np.mean([np.std(own) for own in r["wordings"].values()]) for r in rows]
    )


# --- In words -------------------------------------------------------------------------


def reading(interval: Interval, smallest: float, words: Mapping[str, str]) -> str:
    """The words that fit an interval: "more" if it lies above ``smallest``, "less" if
    below minus ``smallest``, "same" if within the two, else "open"."""
    if interval.low > smallest:
        return words["more"]
    if interval.high < -smallest:
        return words["less"]
    within = -smallest < interval.low and interval.high < smallest
    return words["same" if within else "open"]
