"""The runs of notebook 05: the family of DPO on the same comparisons, and DPO against
PPO, each with the same number of configurations drawn at random.

The closer look at pairs is in :mod:`closer`, pairs of the policy's own replies in
:mod:`online`, and the exact laboratory in :mod:`laboratory`.
"""

import time
from collections.abc import Mapping, Sequence

from alignlab.evaluation.best_of_n import best_of_n_values
from alignlab.evaluation.exact import best_of_n_kl
from alignlab.study.arms import run_groups
from alignlab.study.chains import Chain, prepare, scored_pool
from alignlab.study.optimising import dpo_arm, rl_arm, start_arm
from alignlab.study.scale import rate, reward_model_of
from alignlab.study.search import search_calls
from alignlab.training.reward import train_reward_model

# One strength each, from what beta means to the loss: IPO's target margin is 5 nats;
# ORPO's beta weighs the preference against the likelihood; SimPO's multiplies a margin
# in nats a token. A run passes through every distance up to its end, so a strength
# decides where it ends more than what it has on the way.
FAMILY: Mapping[str, dict] = {
    "DPO": dict(loss_type="sigmoid", beta=0.1),
    "cDPO": dict(loss_type="sigmoid", beta=0.1, label_smoothing=0.25),
    "IPO": dict(loss_type="ipo", beta=0.1),
    "KTO": dict(loss_type="kto", beta=0.1),
    "ORPO": dict(loss_type="orpo", beta=2.0),
    "SimPO": dict(loss_type="simpo", beta=4.0),
    "DPOP": dict(loss_type="dpop", beta=0.1),
}
WEAK_BETA, STRONG_BETA = 0.02, 0.2  # of DPO, to see what beta does
LOOKS = [0.15, 0.4, 1.0]  # shares of a run after which it is looked at
GOLD_PRICES = (0.05, 0.2)  # of a nat, for PPO on gold
TIMED = 500  # comparisons of the reward model that is timed
PPO, GOLD_PPO, BEST_OF_N = "PPO", "PPO on gold", "best of n"


def best_of_n_arm(*, chain: dict, pool: int) -> dict:
    """The reference's replies to the test requests, picked by the chain's reward model.

    Args:
        pool: replies to each request that are picked from.

    Returns:
        ``points``, for n = 1, 2, 4, ... up to the pool: ``n``; ``golds`` of the
        subjects, the mean over all ways to draw n of the pool; ``gold``, their mean;
        ``kl`` in nats a reply, exact if no two replies tie, else an upper bound.
    """
    _, proxies, golds = scored_pool(chain, pool)
    points = []
    for n in (2**power for power in range(pool.bit_length())):
        picked = best_of_n_values(proxies, golds, n)  # (subjects,)
        points.append(
            dict(n=n, kl=best_of_n_kl(n), gold=picked.mean(), golds=picked.tolist())
        )
    return {"points": points, "stopped": None}


def reward_seconds_arm(*, chain: dict) -> dict:
    """``seconds`` of the processor that the chain's reward model takes to train: those
    of ``TIMED`` of its comparisons, in proportion."""
    link = Chain(**chain)
    policy, tokenizer = link.policy()
    pairs = link.comparisons()
    timed = pairs[:TIMED]
    model = reward_model_of(policy, link.seed)
    start = time.process_time()
    train_reward_model(
        model,
        tokenizer,
        timed,
        epochs=1,
        learning_rate=rate("reward", link.base),
        seed=link.seed,
        progress=False,
    )
    seconds = time.process_time() - start
    return {"seconds": seconds * len(pairs) / len(timed)}


def run_all(
    *, chains: Sequence[dict], pool: int, jobs: int = 2, **settings
) -> dict[str, list[dict]]:
    """Every run of the family and of the contest, by :func:`calls`' names."""
    prepare(chains, pool=pool, jobs=jobs)
    groups = calls(chains=chains, pool=pool, **settings)
    return run_groups(groups, jobs=jobs, label="runs")


def calls(
    *,
    chains: Sequence[dict],
    family_chains: Sequence[dict],
    family_used: int,
    tries: int,
    updates: int,
    gold_at: Sequence[int],
    pool: int,
    n: int,
) -> dict[str, list[tuple]]:
    """The arms by name, for :func:`alignlab.study.arms.run_groups`.

    Args:
        chains: of the contest of DPO and PPO, and of best of n.
        family_chains: of the family; among chains.
        family_used: comparisons that the family learns from, once.
        tries: configurations of DPO and of PPO on each chain; 0 leaves the contest out.
        updates: of PPO.
        gold_at: updates of PPO on gold to look after; none leaves it out.
        pool: replies to each test request that the best is picked from.
        n: replies to each test request at a look.

    Returns:
        "start", the reference; each name of ``FAMILY``, "weak" and "strong", DPO at
        other prices, and "tossed", DPO on labels tossed with a coin; "search DPO",
        "search PPO", ``GOLD_PPO``, ``BEST_OF_N`` and "reward seconds".
    """
    family = dict(at=LOOKS, n=n, n_used=family_used)

    def learn(**settings) -> list[tuple]:
        return [
            (dpo_arm, dict(chain=chain, **family, **settings))
            for chain in family_chains
        ]

    groups = {"start": [(start_arm, dict(chain=chain, n=n)) for chain in chains]}
    for name, settings in FAMILY.items():
        groups[name] = learn(**settings)
    dpo = FAMILY["DPO"]
    groups["weak"] = learn(**{**dpo, "beta": WEAK_BETA})
    groups["strong"] = learn(**{**dpo, "beta": STRONG_BETA})
    groups["tossed"] = learn(**dpo, flips=0.5)
    for method in ("DPO", PPO):
        groups[f"search {method}"] = search_calls(
            method, chains, tries=tries, updates=updates, n=n
        )
    groups[GOLD_PPO] = [
        (
            rl_arm,
            dict(chain=chain, at=list(gold_at), n=n, reward="gold", kl_coef=price),
        )
        for price in GOLD_PRICES
        for chain in chains
        if gold_at
    ]
    groups[BEST_OF_N] = [
        (best_of_n_arm, dict(chain=chain, pool=pool)) for chain in chains
    ]
    groups["reward seconds"] = [
        (reward_seconds_arm, dict(chain=chain)) for chain in chains
    ]
    return groups
