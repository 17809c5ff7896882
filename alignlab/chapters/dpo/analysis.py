"""What the runs of notebook 05 say: the upper envelope of reward over KL, its mean
height, and how a trained policy compares with the exact optimum.

Runs come as the arms of ``dpo`` and ``dpo_rivals`` give them. Nothing is trained here.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from scipy.special import expit
from scipy.stats import spearmanr

from alignlab.evaluation.exact import total_variation
from alignlab.objectives.preference import implicit_reward

REACH = 4.0  # nats a reply: envelopes are compared up to here
GRID = np.linspace(0, REACH, 81)

# --- The envelope ---------------------------------------------------------------------


def mixture(
    kl: Float[np.ndarray, "points"], gold: Float[np.ndarray, "points"], limit: float
) -> Float[np.ndarray, "points"]:
    r"""How often to take which policy, for most gold at no more KL than the limit.

    To draw from policy i with probability :math:`w_i` gives the gold :math:`w \cdot g`,
    and its KL to the reference is at most :math:`w \cdot \mathrm{kl}`, for KL is
    convex. So whatever lies on the upper concave envelope of the points can be had. Of
    points on that envelope never more than two are mixed.

    Args:
        kl: nats a reply; one of them within the limit.
        gold: of each policy.
        limit: nats a reply.

    Raises:
        ValueError: if no policy is within the limit.
    """
    inside, outside = np.flatnonzero(kl <= limit), np.flatnonzero(kl > limit)
    if not len(inside):
        raise ValueError(f"limit is {limit}, and the least KL is {kl.min()}")
    weights = np.zeros(len(kl))
    best = inside[gold[inside].argmax()]
    weights[best], most = 1.0, gold[best]
    for i in inside:
        for j in outside:
            share = (limit - kl[i]) / (kl[j] - kl[i])  # of the one outside
            value = (1 - share) * gold[i] + share * gold[j]
            if value > most:
                most, weights = value, np.zeros(len(kl))
                weights[i], weights[j] = 1 - share, share
    return weights


def envelope(
    points: Sequence[Mapping], limits: Float[np.ndarray, "limits"] = GRID
) -> Float[np.ndarray, "limits"]:
    """Gold of the best mixture of policies within each limit of KL.

    The best of several noisy numbers is too good. So the mixture is picked by the gold
    of every other subject and measured on the rest, then the other way round, and the
    mean of the two is what comes back.

    Args:
        points: policies, the reference among them, each with ``kl`` and ``golds``, the
            gold of every subject.
        limits: nats a reply.
    """
    kl = np.array([point["kl"] for point in points], float)
    golds = np.array([point["golds"] for point in points], float)  # (points, subjects)
    halves = [golds[:, half::2].mean(axis=1) for half in (0, 1)]
    found = [
        [mixture(kl, picks, limit) @ counts for limit in limits]
        for picks, counts in (halves, halves[::-1])
    ]
    return np.mean(found, axis=0)


def envelopes(
    runs: Sequence[Mapping], start: Sequence[Mapping], limits=GRID
) -> dict[int, Float[np.ndarray, "limits"]]:
    """By seed, the :func:`envelope` of one method's runs and the reference policy, as
    gold gained over the reference. A run that had to stop is not on it.

    Args:
        runs: of one method, with ``seed``; of the seeds that start has, others do not
            count.
        start: the reference, measured with each seed.
    """
    found = {}
    for one in start:
        own = [r for r in runs if r["seed"] == one["seed"] and not r.get("stopped")]
        if any(r["seed"] == one["seed"] for r in runs):
            found[one["seed"]] = envelope([one, *own], limits) - np.mean(one["golds"])
    return found


def areas(runs: Sequence[Mapping], start: Sequence[Mapping]) -> dict[int, float]:
    """By seed, the mean height of the envelope from 0 to ``REACH`` nats, in gold gained
    over the reference."""
    gained = envelopes(runs, start)
    return {
        seed: float(np.trapezoid(line, GRID) / REACH) for seed, line in gained.items()
    }


def difference(one: Mapping[int, float], other: Mapping[int, float]) -> list[float]:
    """The first minus the second, for each seed that both have."""
    return [one[seed] - other[seed] for seed in one if seed in other]


def spread(areas_of: Mapping[str, Mapping[int, float]]) -> list[float]:
    """Best minus worst method, for each seed that all of them have."""
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
    r"""What a pair's gradient should be multiplied by, and what it is.

    Args:
        gradients: as ``dpo.pair_gradients`` measures them.

    Returns:
        For each pair ``expected``, :math:`\sigma(-\beta h)`, how wrong the policy has
        it; ``measured``, the length of the loss's gradient over β times that of the
        margin's own.
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
    """``error``, the largest deviation of a measured weight, as a share of what is
    expected; ``rank_correlation`` (Spearman) of the weight with the length of the
    gradient."""
    weights = gradient_weights(gradients, beta)
    deviation = np.abs(weights["measured"] / weights["expected"] - 1)
    correlation = spearmanr(weights["expected"], gradients["gradient"]).statistic
    return {"error": float(deviation.max()), "rank_correlation": float(correlation)}


# --- The exact laboratory -------------------------------------------------------------


def against_optimum(found: Mapping[str, Sequence[float]], beta: float) -> dict:
    """A trained policy of the laboratory against the exact optimum.

    Args:
        found: as ``dpo.optimum_arm`` gives it.
        beta: the price that it was trained at.

    Returns:
        ``variation``, total variation to the optimum; ``before``, the reference's;
        ``correlation`` of the implicit reward with the true one over all replies, and
        ``implicit``, that reward, (replies,).
    """
    import torch

    policy, reference = (
        torch.tensor(found[name], dtype=torch.float64).log()
        for name in ("policy", "reference")
    )
    implicit = implicit_reward(policy, reference, beta).numpy()
    return {
        "variation": total_variation(found["policy"], found["optimum"]).item(),
        "before": total_variation(found["reference"], found["optimum"]).item(),
        "correlation": float(np.corrcoef(implicit, found["reward"])[0, 1]),
        "implicit": implicit,
    }


# --- Cost -----------------------------------------------------------------------------


def held(policy, reward_model) -> list[dict]:
    """Models that must be there at once while training, and their megabytes: weights of
    each, and of what is trained gradients and Adam's two moments as well. Activations
    are not in it."""
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
