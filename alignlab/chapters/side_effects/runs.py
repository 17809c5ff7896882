"""The runs of notebook 06: PPO far beyond its best, a control on gold that goes as far,
DPO, remedies, and what may be asked of the texts that they leave behind.

All are arms of :mod:`alignlab.study.optimising` but for the ensembles, the judges and
the temperatures, which need more than one reward model or the policy itself.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from alignlab.models.reward import combine, score
from alignlab.study import artifacts
from alignlab.study.arms import run_groups
from alignlab.study.chains import Chain, prepare, scored_pool
from alignlab.study.measure import sample_and_judge
from alignlab.study.optimising import (
    Looks,
    dpo_arm,
    rl_arm,
    run_rl,
    start_arm,
    trainer_for,
)
from alignlab.world import gold

# Small steps and a value head that does not train the trunk: the run passes 8 nats in
# its thirty updates, and does not fall apart before (seen on seeds 0 and 1).
LONG: Mapping[str, object] = dict(
    learning_rate=1.5e-4, cliprange=0.1, detach_value=True, kl_coef=0.0
)
# On gold the same run is slower, so that it gets as far at twice the rate.
CONTROL: Mapping[str, object] = {**LONG, "learning_rate": 3e-4, "reward": "gold"}
DPO_BETA = 0.05  # a lower beta goes further from the reference
PRICE = 0.2  # of a nat, where a price is the remedy
WEAK_PAIRS = 500  # comparisons of a weaker reward model
OTHERS = (1000, 2000)  # added to a chain's seed: reward models of other comparisons
ENSEMBLES = ("mean", "worst")
HEATED = 6  # updates of LONG before the policy is heated: near its best


# --- Ensembles and judges -------------------------------------------------------------


def ensemble_reward(chain: Chain, how: str) -> Callable:
    """A reward function that combines three reward models of a chain: its own and those
    of two other draws of comparisons of the same replies. Each is brought to the same
    level on the reference's replies; see :func:`alignlab.models.reward.combine`."""
    seeds = [chain.seed, *(chain.seed + other for other in OTHERS)]
    members = [chain.reward_model(seed=seed) for seed in seeds]
    typical = [(c.prompt, c.replies[0].text) for c in chain.replies()]

    def scores(prompts, completions) -> np.ndarray:
        return np.stack([score(*member, prompts, completions) for member in members])

    levels = scores(*zip(*typical))

    def reward(prompts, completions) -> list[float]:
        return combine(scores(prompts, completions), how, reference=levels).tolist()

    return reward


def ensemble_arm(
    *, chain: dict, how: str, at: Sequence[int], n: int, texts: bool = False
) -> dict:
    """The long run on an ensemble's reward: ``points``, ``history`` and ``stopped`` as
    :func:`alignlab.study.optimising.rl_arm` gives them. Its proxy is that of the
    chain's own reward model.

    Args:
        how: "mean", or "worst", the least of the members' rewards.
        chain, at, n, texts: see :func:`alignlab.study.optimising.rl_arm`.
    """
    link = Chain(**chain)
    policy, tokenizer = link.policy()
    looks = Looks(link, at, n, texts)
    reward = ensemble_reward(link, how)
    whose = dict(base=link.base, seed=link.seed)
    return run_rl(policy, tokenizer, reward, looks, **whose, **LONG)


def judge_arm(*, chain: dict, run: dict) -> dict:
    """What other reward models of the chain say of the replies along its long run.

    Args:
        chain: see :class:`alignlab.study.chains.Chain`.
        run: the arguments of the ``rl_arm`` whose texts are judged, from the cache.

    Returns:
        ``scores`` at [judge][look][reply], the chain's own reward model first; before
        them those of the reference at ``start`` [judge][reply].
    """
    link = Chain(**chain)
    [start, *rows] = (
        row
        for group in run_groups(
            {
                "start": [(start_arm, dict(chain=chain, n=run["n"], texts=True))],
                "run": [(rl_arm, run)],
            },
            jobs=1,
            label="judged",
        ).values()
        for row in group
    )
    points = [start["points"][0], *rows[0]["points"]]
    requests = [gold.request(name) for name in artifacts.subjects("test")]
    prompts = [request for request in requests for _ in range(run["n"])]
    seeds = [link.seed, *(link.seed + other for other in OTHERS)]
    scores = []
    for seed in seeds:
        member = link.reward_model(seed=seed)
        texts = [[text for row in point["texts"] for text in row] for point in points]
        scores.append([score(*member, prompts, replies).tolist() for replies in texts])
    return {"start": [s[0] for s in scores], "scores": [s[1:] for s in scores]}


# --- Temperature ----------------------------------------------------------------------


def temperature_arm(
    *, chain: dict, updates: int, temperatures: Sequence[float], n: int
) -> dict:
    """The policy after some updates of the long run, sampled at several temperatures.

    Args:
        updates: 0 samples the reference itself.
        temperatures: higher is more varied.
        n: replies to each test request.

    Returns:
        ``by_temperature``: rows of ``temperature``, and ``texts`` and ``golds`` at
        [subject][reply].
    """
    link = Chain(**chain)
    policy, tokenizer = link.policy()
    if updates:
        reward, _ = link.reward_model()
        whose = dict(base=link.base, seed=link.seed, updates=updates)
        trainer = trainer_for(policy, tokenizer, reward, **whose, **LONG)
        trainer.train()
        policy = trainer.policy
    rows = []
    for temperature in temperatures:
        _, columns = sample_and_judge(
            policy, tokenizer, seed=link.seed, n=n, temperature=temperature
        )
        kept = {name: columns[name] for name in ("texts", "golds")}
        rows.append({"temperature": temperature, **kept})
    return {"by_temperature": rows}


# --- Best of n ------------------------------------------------------------------------


def pool_arm(*, chain: dict, pool: int, n_pairs: int) -> dict:
    """Gold and proxy rewards of the reference's replies to the test requests: ``golds``
    and ``proxies`` at [subject][reply].

    Args:
        pool: replies to each request.
        n_pairs: comparisons of the reward model.
    """
    replies, proxies, golds = scored_pool(chain, pool, n_pairs)
    texts = [[reply.text for reply in c.replies] for c in replies]
    return {"golds": golds.tolist(), "proxies": proxies.tolist(), "texts": texts}


# --- All runs of the notebook ---------------------------------------------------------


def run_all(
    *, chains: Sequence[dict], pool: int, jobs: int = 2, **settings
) -> dict[str, list[dict]]:
    """Every run of the notebook, by its purpose: rows with an arm's parameters and
    results. The arguments are those of :func:`calls`."""
    prepare(chains, pool=pool, jobs=jobs)
    groups = calls(chains=chains, pool=pool, **settings)
    rows = run_groups(groups, jobs=jobs, label="runs")
    kinds: dict[str, list[dict]] = {}
    for name, group in rows.items():
        kind, _, how = name.partition(" ")
        kinds.setdefault(kind, []).extend(row | {"how": how} for row in group)
    return kinds


def calls(
    *,
    chains: Sequence[dict],
    control_chains: Sequence[dict],
    few_chains: Sequence[dict],
    at: Sequence[int],
    control_at: Sequence[int],
    dpo_at: Sequence[float],
    remedies: bool,
    ns: Sequence[int],
    pool: int,
    temperatures: Sequence[float],
    n: int,
) -> dict[str, list[tuple]]:
    """The arms of :func:`run_all`, by kind.

    Args:
        chains: of the long runs, of best of n and of heating.
        control_chains: of the long runs on gold.
        few_chains: of DPO, of the remedies and of the judges' ensembles.
        at, control_at: updates to look after.
        dpo_at: shares of a run of DPO to look after.
        remedies: whether to run a price of KL, ensembles and a weaker reward model.
        ns: comparisons of the reward models that pick the best of the pool.
        pool: replies to each test request that the best is picked from.
        temperatures: to sample the reference and the policy at.
        n: replies to each test request at a look.
    """
    long = dict(at=list(at), n=n, texts=True, **LONG)
    control = dict(at=list(control_at), n=n, texts=True, **CONTROL)

    def arms(run: Callable, chains: Sequence[dict], **arm) -> list[tuple]:
        return [(run, dict(chain=chain, **arm)) for chain in chains]

    groups = {
        "ppo": arms(rl_arm, chains, **long),
        "control": arms(rl_arm, control_chains, **control),
        "start": arms(start_arm, chains, n=n, texts=True),
        "dpo": arms(
            dpo_arm, few_chains, at=list(dpo_at), n=n, texts=True, beta=DPO_BETA
        ),
    }
    if remedies:
        groups["remedy price"] = arms(rl_arm, few_chains, **{**long, "kl_coef": PRICE})
        groups["remedy weak"] = [
            (rl_arm, dict(chain={**chain, "n_pairs": WEAK_PAIRS}, **long))
            for chain in few_chains
        ]
        for how in ENSEMBLES:
            groups[f"remedy {how}"] = arms(
                ensemble_arm, few_chains, how=how, at=list(at), n=n, texts=True
            )
        groups["judged"] = [
            (judge_arm, dict(chain=chain, run=dict(chain=chain, **long)))
            for chain in chains
        ]
    for count in ns:
        groups[f"pool {count}"] = arms(pool_arm, chains, pool=pool, n_pairs=count)
    for name, updates in (("reference", 0), ("policy", HEATED)):
        groups[f"heated {name}"] = arms(
            temperature_arm,
            chains,
            updates=updates,
            temperatures=list(temperatures),
            n=n,
        )
    return groups
