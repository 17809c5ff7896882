"""From the rows of notebook 05's arms to its numbers: upper envelopes of gold over KL,
gradient weights, and the distance to the exact optimum."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import expit
from scipy.stats import spearmanr

from alignlab.evaluation.curves import mean_height
from alignlab.evaluation.exact import total_variation
from alignlab.objectives.preference import implicit_reward

REACH = 4.0  # nats a reply: envelopes are compared up to here
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


def envelopes(
    runs: Sequence[Mapping], start: Sequence[Mapping], limits=GRID
) -> dict[int, Float[np.ndarray, "limits"]]:
    """By seed, the :func:`envelope` of a method's runs together with the reference, as
    gold gained over the reference. Runs that failed are left out.

    Args:
        runs: of one method. Seeds that ``start`` does not have are ignored.
        start: the reference, measured with each seed.
    """
    lines = {}
    for reference in start:
        seed = reference["seed"]
        own = [run for run in runs if run["seed"] == seed]
        points = [reference, *(run for run in own if not run.get("stopped"))]
        if own:
            lines[seed] = envelope(points, limits) - np.mean(reference["golds"])
    return lines


def areas(runs: Sequence[Mapping], start: Sequence[Mapping]) -> dict[int, float]:
    """By seed, the mean height of the envelope from 0 to ``REACH`` nats, as gold gained
    over the reference."""
    gained = envelopes(runs, start)
    return {seed: mean_height(GRID, line) for seed, line in gained.items()}


def difference(first: Mapping[int, float], second: Mapping[int, float]) -> list[float]:
    """First minus second, for each seed that both have."""
    return [first[seed] - second[seed] for seed in first if seed in second]


def spread(areas_of: Mapping[str, Mapping[int, float]]) -> list[float]:
    """Best minus worst method, for each seed that all methods have."""
    common = set.intersection(*(set(by_seed) for by_seed in areas_of.values()))
    ranges = []
    for seed in sorted(common):
        values = [by_seed[seed] for by_seed in areas_of.values()]
        ranges.append(max(values) - min(values))
    return ranges


# --- Gradients ------------------------------------------------------------------------


def gradient_weights(
    gradients: Mapping[str, Sequence[float]], beta: float
) -> dict[str, np.ndarray]:
    r"""The weight of each pair in DPO's gradient, by theory and as measured.

    Args:
        gradients: as ``runs.pair_gradients`` gives them.
        beta: that the losses were computed with.

    Returns:
        For each pair ``expected``, :math:`\sigma(-\beta h)`: the probability the policy
        gives to the wrong order; ``measured``, the norm of the loss's gradient over β
        times the norm of the margin's gradient.
    """
    margin, gradient, of_margin = (
        np.array(gradients[name]) for name in ("margin", "gradient", "of_margin")
    )
    return {
        "expected": expit(-beta * margin),
        "measured": gradient / (beta * of_margin),
    }


def gradient_summary(
    gradients: Mapping[str, Sequence[float]], beta: float
) -> dict[str, float]:
    """``error``, the largest relative deviation of a measured weight from the expected
    one; ``rank_correlation``, Spearman's, of the expected weight with the norm of the
    gradient."""
    weights = gradient_weights(gradients, beta)
    deviation = np.abs(weights["measured"] / weights["expected"] - 1)
    correlation = spearmanr(weights["expected"], gradients["gradient"]).statistic
    return {"error": float(deviation.max()), "rank_correlation": float(correlation)}


# --- The exact laboratory -------------------------------------------------------------


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
