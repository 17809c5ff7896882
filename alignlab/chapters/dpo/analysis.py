"""From the rows of notebook 05's arms to its numbers: gold at equal distance, upper
envelopes of gold over KL, time to gold, and the distance to the exact optimum."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float

from alignlab.evaluation.curves import mean_height
from alignlab.evaluation.exact import total_variation
from alignlab.objectives.preference import implicit_reward

REACH = 2.5  # nats a reply: envelopes are compared up to here
NATS = 1.0  # a reply: where the family is compared
GRID = np.linspace(0, REACH, 81)

# --- The envelope ---------------------------------------------------------------------


def mixture(
    kl: Float[np.ndarray, "points"], gold: Float[np.ndarray, "points"], limit: float
) -> Float[np.ndarray, "points"]:
    r"""Weights of the mixture of policies with the most gold within a limit of KL.

    Drawing each reply from policy i with probability :math:`w_i` gives the gold
    :math:`w \cdot g`. Its KL to the reference is at most :math:`w \cdot \mathrm{kl}`,
    since KL is convex. So every point on the upper concave envelope can be reached, by
    mixing no more than two policies.

    Args:
        kl: of each policy, in nats per reply.
        gold: of each policy.
        limit: in nats per reply; a higher one allows more gold.

    Raises:
        ValueError: if no policy is within the limit.
    """
    inside, outside = np.flatnonzero(kl <= limit), np.flatnonzero(kl > limit)
    if not len(inside):
        raise ValueError(f"limit is {limit}, and the least KL is {kl.min()}")
    weights = np.zeros(len(kl))
    single = inside[gold[inside].argmax()]
    weights[single], best = 1.0, gold[single]
    for i in inside:
        for j in outside:
            share = (limit - kl[i]) / (kl[j] - kl[i])  # of policy j
            value = (1 - share) * gold[i] + share * gold[j]
            if value > best:
                best, weights = value, np.zeros(len(kl))
                weights[i], weights[j] = 1 - share, share
    return weights


def envelope(
    points: Sequence[Mapping], limits: Float[np.ndarray, "limits"] = GRID
) -> Float[np.ndarray, "limits"]:
    """Gold of the best mixture of policies within each limit of KL.

    The largest of several noisy numbers is biased upwards. So the mixture is picked by
    the gold of every other subject and measured on the rest, then the other way round;
    the result is the mean of the two.

    Args:
        points: policies, the reference among them, each with ``kl`` and ``golds``, the
            gold of every subject.
        limits: in nats per reply.
    """
    kl = np.array([point["kl"] for point in points], float)
    golds = np.array([point["golds"] for point in points], float)  # (points, subjects)
    halves = [golds[:, half::2].mean(axis=1) for half in (0, 1)]
    lines = [
        [mixture(kl, picking, limit) @ measuring for limit in limits]
        for picking, measuring in (halves, halves[::-1])
    ]
    return np.mean(lines, axis=0)


Golds = Mapping[int, Mapping]  # by seed, the reference's point


def starts(rows: Sequence[Mapping]) -> Golds:
    """By seed, the reference's own look, from rows of ``start_arm``."""
    return {row["chain"]["seed"]: row["points"][0] for row in rows}


def points_by_seed(rows: Sequence[Mapping]) -> dict[int, list[Mapping]]:
    """By seed, the looks of all runs; of one that had to stop, those before it did."""
    points: dict[int, list[Mapping]] = {}
    for row in rows:
        points.setdefault(row["chain"]["seed"], []).extend(row["points"])
    return points


def envelopes(
    rows: Sequence[Mapping], start: Golds, limits=GRID
) -> dict[int, Float[np.ndarray, "limits"]]:
    """By seed, the :func:`envelope` of a method's looks together with the reference, as
    gold gained over the reference."""
    return {
        seed: envelope([start[seed] | {"kl": 0.0}, *points], limits)
        - np.mean(start[seed]["golds"])
        for seed, points in points_by_seed(rows).items()
    }


def areas(rows: Sequence[Mapping], start: Golds) -> dict[int, float]:
    """By seed, the mean height of the envelope from 0 to ``REACH`` nats, as gold gained
    over the reference."""
    gained = envelopes(rows, start)
    return {seed: mean_height(GRID, line) for seed, line in gained.items()}


def difference(first: Mapping[int, float], second: Mapping[int, float]) -> list[float]:
    """First minus second, for each seed that both have."""
    return [first[seed] - second[seed] for seed in first if seed in second]


# --- At one distance ------------------------------------------------------------------


def golds_at(row: Mapping, start: Golds, nats: float = NATS) -> np.ndarray:
    """Gold gained about each subject at a distance, between the looks along a run in
    proportion. A run that never gets as far has its last look's.

    Args:
        row: of ``dpo_arm`` or ``rl_arm``.
        start: see :func:`starts`.
        nats: a reply.
    """
    before = np.array(start[row["chain"]["seed"]]["golds"])
    kl = np.maximum.accumulate([0.0, *(point["kl"] for point in row["points"])])
    golds = [before, *(np.array(point["golds"]) for point in row["points"])]
    place = int(np.searchsorted(kl, nats))
    if place == len(kl):
        return golds[-1] - before
    share = (nats - kl[place - 1]) / (kl[place] - kl[place - 1])
    return (1 - share) * golds[place - 1] + share * golds[place] - before


def gains_at(rows: Sequence[Mapping], start: Golds) -> dict[int, float]:
    """By seed, the mean of :func:`golds_at` over subjects, at ``NATS``."""
    return {row["chain"]["seed"]: float(golds_at(row, start).mean()) for row in rows}


def spread(groups: Mapping[str, Sequence[Mapping]], start: Golds) -> dict[int, float]:
    """By seed, gold at ``NATS`` of the best method minus that of the worst.

    The largest of several noisy numbers is too large. So best and worst are picked on
    every other subject and measured on the rest, and the other way round.
    """
    golds: dict[int, list[np.ndarray]] = {}
    for rows in groups.values():
        for row in rows:
            golds.setdefault(row["chain"]["seed"], []).append(golds_at(row, start))
    return {seed: _best_minus_worst(np.array(own)) for seed, own in golds.items()}


def _best_minus_worst(golds: Float[np.ndarray, "methods subjects"]) -> float:
    halves = [golds[:, half::2].mean(axis=1) for half in (0, 1)]
    gaps = [
        measuring[picking.argmax()] - measuring[picking.argmin()]
        for picking, measuring in (halves, halves[::-1])
    ]
    return float(np.mean(gaps))


# --- What it costs --------------------------------------------------------------------


def run_seconds(rows: Sequence[Mapping]) -> dict[int, float]:
    """By seed, the processor's seconds of a run up to its last look, mean over runs."""
    seconds: dict[int, list[float]] = {}
    for row in rows:
        if row["points"]:
            last = row["points"][-1]["seconds"]
            seconds.setdefault(row["chain"]["seed"], []).append(last)
    return {seed: float(np.mean(values)) for seed, values in seconds.items()}


def best_run(rows: Sequence[Mapping], start: Golds, seed: int) -> Mapping:
    """The run of a seed whose best look within ``REACH`` has the most gold on every
    other subject."""

    def picked(row: Mapping) -> float:
        inside = [p for p in row["points"] if p["kl"] <= REACH]
        return max((np.mean(p["golds"][::2]) for p in inside), default=-np.inf)

    return max((row for row in rows if row["chain"]["seed"] == seed), key=picked)


def gold_by_seconds(row: Mapping, start: Golds, before: float = 0.0) -> tuple:
    """Seconds and gold gained along a run, on the subjects that did not pick it.

    Args:
        before: seconds spent before it could begin, such as a reward model's training.
    """
    reference = np.mean(start[row["chain"]["seed"]]["golds"][1::2])
    seconds = [before, *(before + point["seconds"] for point in row["points"])]
    gained = [np.mean(point["golds"][1::2]) - reference for point in row["points"]]
    return np.array(seconds), np.array([0.0, *gained])


def seconds_to(gain: float, seconds: np.ndarray, gained: np.ndarray) -> float:
    """When a run first has this gain, between its looks in proportion; infinite if it
    never has."""
    for place in range(1, len(gained)):
        low, high = gained[place - 1], gained[place]
        if high >= gain > low:
            share = (gain - low) / (high - low)
            return float(
                seconds[place - 1] + share * (seconds[place] - seconds[place - 1])
            )
    return np.inf


def against_optimum(row: Mapping[str, Sequence[float]], beta: float) -> dict:
    """Compare a policy trained in the laboratory with the exact optimum.

    Args:
        row: of ``laboratory.dpo_arm`` or ``laboratory.ppo_arm``.
        beta: that it was trained with.

    Returns:
        Total variation to the optimum of the policy (``variation``) and of the
        reference (``before``); ``implicit``, the implicit reward of every completion,
        and its ``correlation`` with the true reward.
    """
    policy, reference = (
        torch.tensor(row[name], dtype=torch.float64).log()
        for name in ("policy", "reference")
    )
    implicit = implicit_reward(policy, reference, beta).numpy()
    return {
        "variation": total_variation(row["policy"], row["optimum"]).item(),
        "before": total_variation(row["reference"], row["optimum"]).item(),
        "correlation": float(np.corrcoef(implicit, row["reward"])[0, 1]),
        "implicit": implicit,
    }


# --- Cost -----------------------------------------------------------------------------


def training_memory(policy, reward_model) -> list[dict]:
    """Models that DPO and PPO hold at once while training (``held``), and their
    ``megabytes``: the weights of each, with gradients and Adam's two moments for the
    one that is trained. Activations are not counted."""
    sizes = [
        sum(p.numel() * p.element_size() for p in model.parameters()) / 1e6
        for model in (policy, reward_model)
    ]
    return [
        {
            "method": "DPO",
            "models": "policy; of the reference only its log-probabilities",
            "held": 1,
            "megabytes": 4 * sizes[0],
        },
        {
            "method": "PPO",
            "models": "policy with value head, reference, reward model",
            "held": 3,
            "megabytes": 5 * sizes[0] + sizes[1],
        },
    ]
