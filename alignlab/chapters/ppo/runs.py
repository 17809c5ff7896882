"""The arms of notebook 04: PPO on the proxy reward, as it is and with one thing
changed, and DPO on the comparisons behind that reward.

All start from one reference policy and are measured on the same unseen subjects. They
differ from ``RECIPE`` and the defaults of ``PPOConfig`` by what they name.
"""

import itertools
import time
from collections.abc import Mapping, Sequence

from alignlab.chapters.ppo.artifacts import (
    BETA,
    RECIPE,
    judges,
    path_arm,
    ppo_arm,
    start_arm,
    timed_arm,
)
from alignlab.errors import AlignlabError
from alignlab.seeds import stream
from alignlab.study import artifacts as study
from alignlab.study.arms import run_alone, run_groups
from alignlab.study.measure import measure
from alignlab.training.dpo import train_dpo

PENALISED = 0.2  # the price at which the claim on reward and KL is judged
UNCLIPPED = 1e6  # a clip range that no ratio reaches
PAIRS = 32  # of a step of DPO, as many completions as PPO's update has

# PPO without one of its pieces.
PIECES: Mapping[str, dict] = {
    "clipping": dict(cliprange=UNCLIPPED),
    "gae": dict(lam=1.0),
    "whitening": dict(whiten_advantages=False),
    # An untrained head is 0 throughout, which leaves rewards-to-go minus their mean.
    "value": dict(vf_coef=0.0, lam=1.0),
}
# From REINFORCE to PPO. Each rung adds to the one before; the last is the default.
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
    "+ KL penalty: PPO": dict(kl_coef=BETA),
}
EAGER: Mapping[str, object] = dict(num_ppo_epochs=4)  # as TRL's PPO had it
SICK: Mapping[str, object] = dict(
    learning_rate=1.5e-3, cliprange=UNCLIPPED, kl_coef=0.0
)


# --- Arms -----------------------------------------------------------------------------


def dpo_arm(
    *,
    n: int,
    seed: int,
    dpo_steps: int,
    learning_rate: float,
    kl_coef: float,
    size: str,
    steps: int,
    n_pairs: int,
    k: int,
) -> dict:
    """DPO on the comparisons behind the reward model, measured on unseen subjects.

    Args:
        n: replies to each test request.
        seed: draws which of the comparisons are used, and their order.
        dpo_steps: updates of ``PAIRS`` pairs; each pair comes at most once.
        learning_rate: the peak; higher learns sooner and fails sooner.
        kl_coef: DPO's β, a price of KL in the same unit of reward. Higher keeps closer
            to the reference.

    Returns:
        ``stopped``, why it had to stop, or None; unless it had to,
        :func:`alignlab.study.measure.measure`.
    """
    settings = dict(size=size, steps=steps, n_pairs=n_pairs, k=k)
    recipe = dict(learning_rate=learning_rate, kl_coef=kl_coef, **settings)
    try:
        policy, tokenizer, _ = _run_dpo(seed=seed, dpo_steps=dpo_steps, **recipe)
    except AlignlabError as error:
        return {"stopped": str(error)}
    result = measure(policy, tokenizer, **judges(**settings), seed=seed, n=n)
    return result | {"stopped": None}


def _run_dpo(
    *, seed, dpo_steps, learning_rate, kl_coef, size, steps, n_pairs, k
) -> tuple:
    """Policy, tokenizer, and the seconds of training."""
    candidates = study.candidates("train", k, size=size, steps=steps)
    pairs = study.comparisons(candidates, n_pairs)
    order = stream(seed, "DPO pairs beside PPO").permutation(len(pairs))
    policy, tokenizer = study.reference_policy(size, steps)
    start = time.perf_counter()
    train_dpo(
        policy,
        tokenizer,
        [pairs[i] for i in order[: PAIRS * dpo_steps]],
        beta=kl_coef,
        steps=dpo_steps,
        batch_size=PAIRS,
        learning_rate=learning_rate,
        seed=seed,
        progress=False,
    )
    return policy, tokenizer, time.perf_counter() - start


# --- What it costs --------------------------------------------------------------------


def timed_dpo_arm(*, dpo_steps: int, **recipe) -> dict:
    """``seconds`` of a step of DPO, with what the reference thinks of its pairs: the
    mean over a run of ``dpo_steps`` steps. A short run comes first and does not count.
    The other arguments are those of :func:`dpo_arm`, without n."""
    _run_dpo(dpo_steps=1, **recipe)
    _, _, seconds = _run_dpo(dpo_steps=dpo_steps, **recipe)
    return {"seconds": seconds / dpo_steps}


def time_each(
    seeds: Sequence[int], *, dpo_steps: int, **settings
) -> dict[str, list[dict]]:
    """Seconds of an update of PPO and of a step of DPO, each run alone on one thread:
    rows of "PPO" and of "DPO".

    Args:
        dpo_steps: of the run that is timed.
        settings: ``size``, ``steps``, ``n_pairs`` and ``k`` of policy and reward model.
    """
    ppo = dict(kl_coef=BETA, **settings)
    dpo = dict(learning_rate=RECIPE["learning_rate"], dpo_steps=dpo_steps, **ppo)
    arms = [(timed_arm, ppo), (timed_dpo_arm, dpo)]  # by turns, as load changes
    calls = [(run, dict(seed=seed, **arm)) for seed in seeds for run, arm in arms]
    rows = run_alone(calls)
    return {"PPO": rows[::2], "DPO": rows[1::2]}


# --- The whole notebook ---------------------------------------------------------------


def run_all(
    *,
    seeds: Sequence[int],
    many_seeds: Sequence[int],
    piece_seeds: Sequence[int],
    few_seeds: Sequence[int],
    dpo_seeds: Sequence[int],
    betas: Sequence[float],
    rates: Sequence[float],
    grid_betas: Sequence[float],
    updates: int,
    dpo_steps: int,
    n: int,
    jobs: int = 2,
    **settings,
) -> dict[str, list[dict]]:
    """Every run of the notebook, each once, grouped by what it is for.

    Args:
        seeds: of the sweep and of the grid.
        many_seeds: of the default configuration, to count failures.
        piece_seeds: of PPO without one of its pieces, and of PPO with four epochs; they
            are among many_seeds.
        few_seeds: of the ladder and of the sick run, for their figures.
        dpo_seeds: of DPO's default configuration.
        betas: prices of KL of the sweep, at the default rate.
        rates, grid_betas: the grid, of PPO and of DPO.
        updates: of PPO. dpo_steps: of DPO.
        n: replies to each test request.
        jobs: arms to run at a time.
        settings: ``size``, ``steps``, ``n_pairs`` and ``k`` of policy and reward model.

    Returns:
        "start", "default", "eager", "sweep", "pieces", "ladder", "sick", "grid" and
        "dpo": rows with the arm's parameters and its results. Rows of "pieces" and
        "ladder" also have ``without`` and ``rung``. Every row of PPO and DPO has
        ``rate`` and ``beta``, even where they are the defaults.
    """
    usual_rate = RECIPE["learning_rate"]
    common = dict(updates=updates, **settings)

    def paths(seeds: Sequence[int], **hyperparameters) -> list[tuple]:
        arm = dict(**hyperparameters, **common)
        return [(path_arm, dict(seed=s, **arm)) for s in seeds]

    def ends(beta: float, seeds: Sequence[int], **hyperparameters) -> list[tuple]:
        arm = dict(kl_coef=beta, keep=True, n=n, **common, **hyperparameters)
        return [(ppo_arm, dict(seed=s, **arm)) for s in seeds]

    # What takes longest comes first: the runs of PPO, then the others.
    calls = {("default", None): ends(BETA, many_seeds)}
    eager = dict(n=n, **EAGER, **common)
    calls["eager", None] = [(ppo_arm, dict(seed=s, **eager)) for s in piece_seeds]
    calls["sick", None] = paths(few_seeds, **SICK)
    calls |= {("sweep", beta): ends(beta, seeds) for beta in betas}
    calls |= {("pieces", name): paths(piece_seeds, **d) for name, d in PIECES.items()}
    calls |= {("ladder", name): paths(few_seeds, **d) for name, d in LADDER.items()}
    calls["ladder", "+ clipping"] = ends(0.0, few_seeds)
    calls["ladder", "+ KL penalty: PPO"] = ends(BETA, few_seeds)
    cells = list(itertools.product(rates, grid_betas))
    for rate, beta in cells:
        changed = {} if rate == usual_rate else {"learning_rate": rate}
        calls["grid", (rate, beta)] = ends(beta, seeds, **changed)
    every_seed = sorted({*seeds, *many_seeds, *dpo_seeds})
    calls["start", None] = [
        (start_arm, dict(seed=s, n=n, **settings)) for s in every_seed
    ]
    for rate, beta in cells:
        usual = (rate, beta) == (usual_rate, BETA)
        arm = dict(learning_rate=rate, kl_coef=beta, dpo_steps=dpo_steps, n=n)
        calls["dpo", (rate, beta)] = [
            (dpo_arm, dict(seed=s, **arm, **settings))
            for s in (dpo_seeds if usual else seeds)
        ]
    groups = run_groups(calls, jobs=jobs, label="PPO")

    def rows(kind: str, label: str = "") -> list[dict]:
        return [
            {"rate": usual_rate, "beta": BETA, **_with_short_names(row)}
            | ({label: member} if label else {})
            for (group, member), group_rows in groups.items()
            if group == kind
            for row in group_rows
        ]

    kinds = ("start", "default", "eager", "sick", "sweep", "grid", "dpo")
    labelled = {"pieces": rows("pieces", "without"), "ladder": rows("ladder", "rung")}
    return {kind: rows(kind) for kind in kinds} | labelled


def _with_short_names(row: dict) -> dict:
    names = {"learning_rate": "rate", "kl_coef": "beta"}
    return {names.get(name, name): value for name, value in row.items()}
