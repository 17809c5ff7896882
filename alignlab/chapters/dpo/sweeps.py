"""Which runs notebook 05 makes, and for what: a function for each of its sections."""

from collections.abc import Sequence

from alignlab.chapters.dpo import rivals as dpo_rivals
from alignlab.chapters.dpo import runs as dpo
from alignlab.chapters.ppo import runs as ppo
from alignlab.study.arms import run_groups

PPO, GOLD_PPO, BEST_OF_N = "PPO", "PPO on gold", "best of n"
TOSSED, TOSSED_BETA = "tossed labels", 0.2  # one of DPO's strengths
CLOSE_RATE = 2  # times the family's rate: what happens far out is to be seen in time


def optimum_sweep(
    *, seeds: Sequence[int], dpo_updates: int, ppo_updates: int, jobs: int
) -> dict[str, list[dict]]:
    """DPO and PPO in the exact laboratory: for each its rows, one a seed."""
    kinds = {  # what takes longest comes first
        "PPO": (dpo_rivals.optimum_arm, ppo_updates),
        "DPO": (dpo.optimum_arm, dpo_updates),
    }
    calls = {
        name: [(run, dict(seed=seed, updates=updates)) for seed in seeds]
        for name, (run, updates) in kinds.items()
    }
    return run_groups(calls, jobs=jobs, label="laboratory")


def close_sweep(
    *, seeds: Sequence[int], follow: int, jobs: int, **common
) -> dict[str, list[dict]]:
    """The runs that are looked at closely, several passes over few comparisons: DPO,
    and DPO without the weight of its gradient.

    Args:
        follow: pairs that are followed, see ``dpo.preference_arm``.
        common: its other arguments.
    """
    kinds = {"DPO": "sigmoid", "unweighted": "unweighted"}
    rate = CLOSE_RATE * dpo.RATE[common["size"]]
    arm = dict(beta=dpo.BETA, follow=follow, rate=rate, **common)
    calls = {
        name: [
            (dpo.preference_arm, dict(seed=seed, loss_type=loss, **arm))
            for seed in seeds
        ]
        for name, loss in kinds.items()
    }
    return run_groups(calls, jobs=jobs, label="a closer look")


def noise_sweep(
    *, seeds: Sequence[int], flips: Sequence[float], jobs: int, **common
) -> dict[str, list[dict]]:
    """Several passes over few comparisons of which more and more are labelled wrongly:
    plain DPO, and what is said to stand it better. The smoothed losses are told the
    true rate."""
    calls: dict[str, list] = {}
    for name, loss in dpo.GUARDS.items():
        for rate in flips:
            for seed in seeds:
                arm = dict(seed=seed, loss_type=loss, beta=dpo.BETA, flips=rate)
                if name in ("cDPO", "robust"):
                    arm["label_smoothing"] = rate
                calls.setdefault(name, []).append((dpo.preference_arm, arm | common))
    return run_groups(calls, jobs=jobs, label="label noise")


def frontier_sweep(
    *,
    seeds: Sequence[int],
    family_seeds: Sequence[int],
    gold_seeds: Sequence[int],
    betas: Sequence[float],
    gold_betas: Sequence[float],
    strengths: int,
    ns: Sequence[int],
    updates: int,
    n_used: int,
    n: int,
    jobs: int,
    size: str,
    steps: int,
    n_pairs: int,
    k: int,
) -> dict[str, list[dict]]:
    """Every method at each of its strengths.

    Args:
        seeds: of DPO, PPO and best-of-n.
        family_seeds: of the other losses of the family, and of DPO at one strength on
            labels tossed with a coin.
        gold_seeds: of PPO on the gold reward.
        betas, gold_betas: prices of KL for PPO, on the learnt and on the gold reward.
        strengths: of the other losses of the family; fewer leave out the most cautious.
        ns: of best-of-n.
        updates: of PPO. n_used: comparisons that DPO and its family learn from, once.
        n: replies to each request when a policy is measured.

    Returns:
        "start", the reference, and the methods: rows with ``seed``, ``gold``, ``golds``
        and ``kl``, and those of DPO and PPO with ``seconds``.
    """
    model = dict(size=size, steps=steps)
    made = dict(n_pairs=n_pairs, k=k, **model)
    calls = {
        PPO: [  # the very arms of notebook 04, found in the cache where it was run
            (
                ppo.ppo_arm,
                dict(seed=s, kl_coef=b, updates=updates, keep=True, n=n, **made),
            )
            for b in betas
            for s in seeds
        ],
        GOLD_PPO: [
            (
                dpo_rivals.gold_ppo_arm,
                dict(seed=s, kl_coef=b, updates=updates, n=n, **model),
            )
            for b in gold_betas
            for s in gold_seeds
        ],
        BEST_OF_N: [
            (dpo_rivals.best_of_n_arm, dict(seed=s, ns=list(ns), **made)) for s in seeds
        ],
        "start": [(dpo.start_arm, dict(seed=s, n=n, **model)) for s in seeds],
    }
    for name, (loss, far_to_near) in dpo.FAMILY.items():
        calls[name] = [
            (
                dpo.preference_arm,
                dict(seed=s, loss_type=loss, beta=beta, n_used=n_used, passes=1, n=n)
                | made,
            )
            for beta in (far_to_near if name == "DPO" else far_to_near[:strengths])
            for s in (seeds if name == "DPO" else family_seeds)
        ]
    calls[TOSSED] = [
        (run, arm | {"flips": 0.5})
        for run, arm in calls["DPO"]
        if arm["beta"] == TOSSED_BETA and arm["seed"] in family_seeds
    ]
    rows = run_groups(calls, jobs=jobs, label="frontier")
    rows[BEST_OF_N] = [
        point | {"seed": row["seed"]}
        for row in rows[BEST_OF_N]
        for point in row["points"]
    ]
    return rows
