"""The arms of notebook 07: the held-out items posed to one model after another, from
the base model to what rewards and preferences make of it.
"""

from collections.abc import Sequence
from copy import deepcopy
from functools import partial

from alignlab.chapters.calibration.artifacts import (
    DPO_BETA,
    HELD_OUT,
    JUDGED_BETA,
    ask,
    draw_items,
    labels,
    stage_arm,
    taught_policy,
)
from alignlab.chapters.calibration.tuning import (
    OPTIONS,
    answer_loss,
    reward_loss,
    tune_on_options,
)
from alignlab.chapters.ppo.artifacts import ppo_policy
from alignlab.study.arms import run_each, run_groups
from alignlab.study.chains import Chain, chain_arm
from alignlab.study.optimising import DPO_RECIPE
from alignlab.study.scale import scaled
from alignlab.training.dpo import train_dpo

ALIGNED = ("reference", "PPO", "DPO")


# --- Contested facts ------------------------------------------------------------------


def contested_arm(
    *,
    seed: int,
    betas: Sequence[float],
    steps: int,
    draws: int,
    base: str,
    n_examples: int,
    sft_steps: int,
    answer_steps: int,
    limit: int = 0,
) -> dict:
    """Policies on contested facts about held-out subjects after training on those about
    others: first by cross-entropy, a proper score, then by a reward.

    What is right is tossed anew each time by the shares of the statements, so that
    nothing can be memorised; the gradients are those of the expectation.

    Args:
        seed: of SFT, of the items and of their order.
        betas: of the reward; higher keeps closer to the policy before.
        steps: optimizer steps by cross-entropy, and again by the reward.
        draws: items of each fact.
        base, n_examples, sft_steps, answer_steps, limit: of the policy before, see
            ``artifacts.taught_policy``.

    Returns:
        ``labels``; the log-probs of the options under the policy of
        ``artifacts.taught_policy``, ``taught``, after cross-entropy, ``before``, and
        after the reward at each beta, "0.2" (or another).
    """
    items = draw_items(HELD_OUT, draws, seed, kinds="contested")
    training = draw_items(("train",), draws, seed, kinds="contested")
    policy, tokenizer = taught_policy(
        seed=seed,
        base=base,
        n_examples=n_examples,
        sft_steps=sft_steps,
        answer_steps=answer_steps,
        limit=limit,
    )
    row = {"taught": ask(policy, tokenizer, items)["log_probs"], **labels(items)}
    options = dict(base=base, steps=steps, seed=seed)
    nowhere = [[0.0] * OPTIONS] * len(training)  # cross-entropy has no reference
    tune_on_options(policy, tokenizer, training, nowhere, answer_loss, **options)
    row["before"] = ask(policy, tokenizer, items)["log_probs"]
    reference = ask(policy, tokenizer, training)["log_probs"]
    for beta in betas:
        tuned = deepcopy(policy)
        loss = partial(reward_loss, beta=beta)
        tune_on_options(tuned, tokenizer, training, reference, loss, **options)
        row[f"{beta:g}"] = ask(tuned, tokenizer, items)["log_probs"]
    return row


# --- The policies of notebooks 04 and 05 ----------------------------------------------


def aligned_arm(
    *,
    kind: str,
    chain: dict,
    updates: int,
    draws: int,
    limit: int = 0,
) -> dict:
    """A policy that learnt to reply with paragraphs, on the held-out items.

    Args:
        kind: "reference", which demonstrations taught; "PPO" or "DPO" of the recipes of
            notebooks 04 and 05 from there.
        chain: arguments of :class:`alignlab.study.chains.Chain`.
        updates: of PPO.
        draws, limit: as for ``artifacts.draw_items``.

    Raises:
        ValueError: if there is no such kind.
    """
    if kind not in ALIGNED:
        raise ValueError(f"kind is {kind!r}; it can be one of {ALIGNED}")
    link = Chain(**chain)
    if kind == "PPO":
        policy, tokenizer = ppo_policy(chain=chain, updates=updates)
    else:
        policy, tokenizer = link.policy()
    if kind == "DPO":
        pairs = link.comparisons()
        steps = max(1, len(pairs) // DPO_RECIPE["batch_size"])
        options = dict(steps=steps, seed=link.seed, schedule="constant", progress=False)
        options["learning_rate"] = scaled(DPO_RECIPE["learning_rate"], link.base)
        train_dpo(policy, tokenizer, pairs, **{**DPO_RECIPE, **options})
    items = draw_items(HELD_OUT, draws, link.seed, limit)
    return ask(policy, tokenizer, items) | labels(items)


def aligned(
    chains: Sequence[dict], *, updates: int, draws: int, limit: int, jobs: int
) -> dict[str, list[dict]]:
    """Rows of :func:`aligned_arm` for each of ``ALIGNED``, a row a chain."""
    run_each([(chain_arm, dict(chain=c)) for c in chains], jobs=jobs, label="chains")
    common = dict(updates=updates, draws=draws, limit=limit)
    calls = {
        kind: [(aligned_arm, dict(kind=kind, chain=c, **common)) for c in chains]
        for kind in ALIGNED
    }
    return run_groups(calls, jobs=jobs, label="policies of 04 and 05")


# --- Sweeps ---------------------------------------------------------------------------


def stages(
    *,
    seeds: Sequence[int],
    betas: Sequence[float],
    dpo_betas: Sequence[float],
    steps: int,
    updates: int,
    jobs: int,
    **common,
) -> dict[str, list[dict]]:
    """Rows of every stage, a row a seed.

    Args:
        seeds: of SFT, of what follows, and of the items.
        betas: of the exact reward; ``JUDGED_BETA`` is that of PPO and RLOO.
        dpo_betas: ``DPO_BETA`` is run in any case.
        steps: optimizer steps after SFT.
        updates: of PPO and RLOO.
        jobs: arms at a time.
        common: ``draws``, ``limit``, ``base``, ``n_examples`` and ``sft_steps``.

    Returns:
        "base", "SFT", "answers", "reward 0.2" (and other betas), "DPO" (at
        ``DPO_BETA``), "DPO 1" (and other betas), "PPO", "RLOO" and "more answers", the
        control.
    """
    recipes = {f"reward {b:g}": dict(stage="reward", beta=b) for b in betas}
    recipes["more answers"] = dict(stage="more answers")
    recipes["DPO"] = dict(stage="DPO", beta=DPO_BETA)
    for beta in dpo_betas:
        recipes[f"DPO {beta:g}"] = dict(stage="DPO", beta=beta)
    recipes = {name: dict(steps=steps, **r) for name, r in recipes.items()}
    for stage in ("PPO", "RLOO"):
        recipes[stage] = dict(stage=stage, beta=JUDGED_BETA, steps=updates)
    calls = {
        name: [(stage_arm, dict(seed=s, **recipe, **common)) for s in seeds]
        for name, recipe in {
            **{stage: dict(stage=stage) for stage in ("answers", "SFT", "base")},
            **recipes,
        }.items()
    }
    # First what the others start from.
    run_each(calls["answers"], jobs=jobs, label="SFT on answers")
    return run_groups(calls, jobs=jobs, label="stages")


def contested(*, seeds: Sequence[int], jobs: int, **settings) -> list[dict]:
    """Rows of :func:`contested_arm`, a row a seed."""
    calls = [(contested_arm, dict(seed=s, **settings)) for s in seeds]
    return run_each(calls, jobs=jobs, label="contested facts")
