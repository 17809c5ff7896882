"""The runs of notebook 04: PPO as it is and with one thing changed, RLOO and GRPO, and
a random search for these and DPO.

All start from the reference policy of their chain and are looked at on the same unseen
subjects. They differ from ``RECIPE`` and the defaults of ``PPOConfig`` by what they
name.
"""

from collections.abc import Mapping, Sequence

from alignlab.evaluation.best_of_n import best_of_n_curve
from alignlab.study.arms import run_arms, run_groups
from alignlab.study.chains import prepare, scored_pool
from alignlab.study.optimising import RECIPE, rl_arm, start_arm
from alignlab.study.search import SPACES, search_calls

UNCLIPPED = 1e6  # a clip range that no ratio reaches

# Three times the rate and four epochs: a twentieth of all tokens meets the clip range
# (seen on seeds 0 and 1), so that pieces have something to do. On gold, so that a piece
# is not judged by what it does to the flaws of a reward model.
STRESS: Mapping[str, object] = dict(
    reward="gold", learning_rate=3e-4, num_ppo_epochs=4, kl_coef=0.05
)
# PPO under stress without one of its pieces.
PIECES: Mapping[str, dict] = {
    "clipping": dict(cliprange=UNCLIPPED),
    "gae": dict(lam=1.0),
    "whitening": dict(whiten_advantages=False),
    # An untrained head is 0 throughout, which leaves rewards-to-go minus their mean.
    "value": dict(vf_coef=0.0, lam=1.0),
}
# From REINFORCE to PPO: each rung adds to the one before, and the last is RECIPE. Then
# what came after it, which compares the completions of one prompt.
_REINFORCE = dict(
    num_ppo_epochs=1,
    num_mini_batches=1,
    per_device_train_batch_size=64,
    cliprange=UNCLIPPED,
    vf_coef=0.0,
    lam=1.0,
    whiten_advantages=False,
    kl_coef=0.0,
)
_WHITENED = {k: v for k, v in _REINFORCE.items() if k != "whiten_advantages"}
_WITH_VALUES = {k: v for k, v in _WHITENED.items() if k not in ("vf_coef", "lam")}
LADDER: Mapping[str, dict] = {
    "REINFORCE": _REINFORCE,
    "+ baseline, whitened": _WHITENED,
    "+ value function, GAE": _WITH_VALUES,
    "+ epochs, unclipped": dict(kl_coef=0.0, cliprange=UNCLIPPED),
    "+ clipping": dict(kl_coef=0.0),
    "+ KL penalty: PPO": {},
    "RLOO": dict(advantages="rloo", completions_per_prompt=4),
    "GRPO": dict(advantages="grpo", completions_per_prompt=4),
    "GRPO, clip higher": dict(
        advantages="grpo", completions_per_prompt=4, cliprange_high=0.28
    ),
}
SICK: Mapping[str, object] = dict(learning_rate=1e-3, cliprange=UNCLIPPED, kl_coef=0.0)


def run_all(
    *, many_chains: Sequence[dict], jobs: int = 2, **settings
) -> dict[str, list[dict]]:
    """Every run of the notebook, each once, grouped by what it is for. The arguments
    are those of :func:`calls`, and ``jobs``, arms to run at a time.

    Returns:
        "chains", what :func:`alignlab.study.chains.chain_arm` gives of each of
        ``many_chains``; "start", "default", "sweep", "pieces", "ladder", "sick" and
        "search": rows with the arm's parameters and its results. Rows of "pieces" have
        ``without`` (None for all of PPO), those of "ladder" ``rung`` and those of
        "search" ``method``.
    """
    made = prepare(many_chains, jobs=jobs)
    groups = calls(many_chains=many_chains, **settings)
    rows = run_groups(groups, jobs=jobs, label="runs")
    labels = {"pieces": "without", "ladder": "rung", "search": "method"}
    kinds: dict[str, list[dict]] = {kind: [] for kind, _ in groups} | {"chains": made}
    for (kind, member), group in rows.items():
        label = {labels[kind]: member} if kind in labels else {}
        kinds[kind] += [row | label for row in group]
    return kinds


def _repeated(chain: dict, repeat: int) -> dict:
    return {"run_seed": chain["seed"] + 1000 * repeat} if repeat else {}


def calls(
    *,
    chains: Sequence[dict],
    many_chains: Sequence[dict],
    few_chains: Sequence[dict],
    betas: Sequence[float],
    updates: int,
    tries: int,
    repeats: int,
    pieces: bool,
    n: int,
) -> dict[tuple, list[tuple]]:
    """The arms of :func:`run_all`, by kind and member.

    Args:
        chains: of the sweep over betas and of the search.
        many_chains: of the default configuration, ``repeats`` runs on each, and of the
            pieces; ``chains`` are among them.
        few_chains: of the ladder and of the sick run, for their figures.
        betas: prices of KL of the sweep.
        updates: of a run.
        tries: configurations of each method on each chain.
        repeats: runs of the default configuration on each chain.
        pieces: whether to run PPO under stress, without one of its pieces each.
        n: replies to each test request at a look.
    """

    def runs(chains: Sequence[dict], **settings) -> list[tuple]:
        arm = dict(at=[updates], n=n, **settings)
        return [(rl_arm, dict(chain=chain, **arm)) for chain in chains]

    groups: dict[tuple, list[tuple]] = {}
    for method in SPACES:
        groups["search", method] = search_calls(
            method, chains, tries=tries, updates=updates, n=n
        )
    if pieces:
        groups["pieces", None] = runs(many_chains, **STRESS)
        for name, change in PIECES.items():
            groups["pieces", name] = runs(many_chains, **{**STRESS, **change})
    groups["default", None] = [
        run
        for repeat in range(repeats)
        for chain in many_chains
        for run in runs([chain], **_repeated(chain, repeat))
    ]
    for beta in betas:
        own = {} if beta == RECIPE["kl_coef"] else dict(kl_coef=beta)
        groups["sweep", beta] = runs(chains, **own)
    for rung, change in LADDER.items():
        groups["ladder", rung] = runs(few_chains, **change)
    groups["sick", None] = runs(few_chains[:1], **SICK)
    groups["start", None] = [
        (start_arm, dict(chain=chain, n=n)) for chain in many_chains
    ]
    return groups


def best_of_n_arm(*, chain: dict, pool: int, ns: Sequence[int]) -> dict:
    """Best of n of the reference's replies to the test requests, by the chain's reward
    model: ``curve``, see :func:`alignlab.evaluation.best_of_n.best_of_n_curve`.

    Args:
        chain: arguments of :class:`alignlab.study.chains.Chain`.
        pool: replies to each request; more make every number less noisy.
        ns: replies to pick from.
    """
    _, proxies, golds = scored_pool(chain, pool)
    return {"curve": best_of_n_curve(proxies, golds, ns)}


def best_of_n(chains: Sequence[dict], pool: int, *, jobs: int = 2) -> list[dict]:
    """:func:`best_of_n_arm` of each chain, for n = 1, 2, 4, ... up to the pool."""
    ns = [2**power for power in range(pool.bit_length())]
    arms = [dict(chain=chain, pool=pool, ns=ns) for chain in chains]
    return run_arms(best_of_n_arm, arms, jobs=jobs, label="best of n")
