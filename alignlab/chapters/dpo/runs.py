"""The arms of notebook 05: DPO, its family, PPO and best-of-n at several strengths.

All share one reference policy and the subjects they are measured on. DPO and its family
train on the comparisons behind notebook 03's reward model.
"""

import copy
import functools
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from alignlab.chapters.ppo import artifacts as ppo
from alignlab.errors import AlignlabError
from alignlab.evaluation.best_of_n import best_of_n_values
from alignlab.evaluation.exact import best_of_n_kl
from alignlab.models.base import device_in_use
from alignlab.models.pairs import pack, pair_log_probs
from alignlab.objectives.preference import PREFERENCE_LOSSES, dpo_loss
from alignlab.ppo import PPOConfig, PPOTrainer
from alignlab.seeds import stream
from alignlab.study import artifacts
from alignlab.study.arms import run_alone, run_groups
from alignlab.study.measure import measure
from alignlab.training.dpo import train_dpo
from alignlab.training.pairs import encode_pairs, log_probs_of

BATCH = 8  # pairs an update: small, to get the most updates out of few pairs
# One peak rate for the whole family, since Adam's steps ignore the scale of a loss. Of
# four rates tried with DPO on training subjects, this one gained the most gold for its
# KL. A higher rate moves away from the reference faster and less steadily.
RATE = {"300k": 5e-4, "1m": 2.5e-4}
BETA = 0.1  # of the runs of the closer look and of label noise
CLOSER_LOOK_RATE = 2  # times RATE, so that late stages come within few updates
HELD_OUT_SEED = 5  # of the comparisons about unseen subjects
EVALUATIONS = 8  # of log-ratios, spread evenly over a run
# Over the reference's replies gold has a standard deviation of 2.0 and the proxy reward
# of 0.8. On one scale, the same learning rate and KL prices suit both.
GOLD_SCALE = 0.4
PPO, GOLD_PPO, BEST_OF_N = "PPO", "PPO on gold", "best of n"
TOSSED, TOSSED_BETA = "tossed labels", 0.2  # the beta is one of DPO's strengths


class Method(NamedTuple):
    """A loss of ``train_dpo`` with four values of its ``beta``, from the one that goes
    furthest from the reference to the most cautious."""

    loss_type: str
    strengths: tuple[float, float, float, float]


# Chosen once, from what beta means to each loss: IPO's target margins are 25, 5, 1 and
# 0.25 nats; ORPO's beta weighs the preference against the likelihood; SimPO's
# multiplies a margin in nats per token.
FAMILY: Mapping[str, Method] = {
    "DPO": Method("sigmoid", (0.02, 0.2, 1.0, 5.0)),
    "IPO": Method("ipo", (0.02, 0.1, 0.5, 2.0)),
    "KTO": Method("kto", (0.02, 0.2, 1.0, 5.0)),
    "ORPO": Method("orpo", (10.0, 2.0, 0.5, 0.1)),
    "SimPO": Method("simpo", (1.0, 4.0, 16.0, 64.0)),
    "DPOP": Method("dpop", (0.02, 0.2, 1.0, 5.0)),
}
# Losses that allow for wrong labels or bound the margin, and plain DPO.
GUARDS: Mapping[str, str] = {
    "DPO": "sigmoid",
    "cDPO": "sigmoid",
    "robust": "robust",
    "IPO": "ipo",
}


# --- DPO and its family ---------------------------------------------------------------


def preference_arm(
    *,
    seed: int,
    loss_type: str,
    beta: float,
    n_used: int,
    passes: int,
    n: int,
    size: str,
    steps: int,
    k: int,
    n_pairs: int,
    flips: float = artifacts.FLIPS,
    follow: int = 0,
    split: str = "test",
    rate: float | None = None,
    **options: float,
) -> dict:
    """Train with one loss of the family and measure the policy at the end.

    Args:
        seed: draws the comparisons to train on, their order and, at the end, the
            replies.
        loss_type, beta, options: see :func:`alignlab.training.dpo.train_dpo`.
        n_used: comparisons to train on; more teach more.
        passes: over these; more fit them more closely.
        n: replies to each request.
        size, steps: of the reference policy.
        k, n_pairs: ``n_used`` are drawn from the ``n_pairs`` comparisons of k replies
            to each training request that the reward model was trained on.
        flips: rate of wrong labels.
        follow: how many training pairs, and as many pairs about unseen subjects, have
            their log-ratios evaluated along the run. Each of the unseen pairs also has
            its gradient measured at the end. 0 does neither.
        split: where replies are measured.
        rate: peak learning rate, by default ``RATE``.

    Returns:
        What :func:`alignlab.study.measure.measure` gives (nothing if training failed);
        ``updates``; ``stopped``, why training failed, or None. If pairs are followed,
        also ``log_ratios``, see :func:`_log_ratios`, and ``gradients``, see
        :func:`pair_gradients`.
    """
    drawn = (seed, n_used, size, steps, k, n_pairs, flips)
    pairs = _drawn_pairs(*drawn)
    reference, tokenizer = artifacts.reference_policy(size, steps)
    loss = PREFERENCE_LOSSES[loss_type]
    needs_reference = loss.reference and loss.pairs
    ref_log_probs = _ref_log_probs(*drawn) if needs_reference else None
    policy = copy.deepcopy(reference)
    unseen = _unseen_pairs(follow, flips, size=size, steps=steps, k=k) if follow else []
    updates = max(1, n_used * passes // BATCH)
    if follow:
        options |= dict(
            eval_pairs={"train": pairs[:follow], "held_out": unseen},
            eval_every=max(1, updates // EVALUATIONS),
        )
    try:
        history = train_dpo(
            policy,
            tokenizer,
            pairs,
            loss_type=loss_type,
            beta=beta,
            steps=updates,
            batch_size=BATCH,
            learning_rate=RATE[size] if rate is None else rate,
            seed=seed,
            ref_log_probs=ref_log_probs,
            progress=False,
            **options,
        )
    except AlignlabError as error:
        return {"stopped": str(error)}
    result = measure(policy, tokenizer, reference, seed=seed, n=n, split=split)
    result |= {"stopped": None, "updates": updates}
    if follow:
        result["log_ratios"] = _log_ratios(history)
        gradients = pair_gradients(policy, reference, tokenizer, unseen, beta)
        result["gradients"] = gradients
    return result


@functools.cache  # shared by the arms of one process
def _comparisons(size, steps, k, n_pairs, flips) -> list[dict]:
    replies = artifacts.candidates("train", k, size=size, steps=steps)
    return artifacts.comparisons(replies, n_pairs, flips=flips)


@functools.cache
def _ref_log_probs(*drawn) -> tuple[Tensor, Tensor]:
    """The reference's log-probabilities of ``_drawn_pairs(*drawn)``."""
    _, _, size, steps, *_ = drawn
    reference, tokenizer = artifacts.reference_policy(size, steps)
    encoded = encode_pairs(tokenizer, _drawn_pairs(*drawn))
    return log_probs_of(reference, encoded, tokenizer.pad_token_id)


def _drawn_pairs(seed: int, n_used: int, *source) -> list[dict]:
    """``n_used`` of ``_comparisons(*source)``, in random order."""
    pairs = _comparisons(*source)
    order = stream(seed, "DPO pairs").permutation(len(pairs))
    return [pairs[i] for i in order[:n_used]]


def _unseen_pairs(count, flips, *, size, steps, k) -> list[dict]:
    """Comparisons about test subjects, equally noisy, the same for all arms."""
    replies = artifacts.candidates("test", k, size=size, steps=steps)
    return artifacts.comparisons(replies, count, flips=flips, seed=HELD_OUT_SEED)


def _log_ratios(history: Sequence[dict]) -> dict[str, list[float]]:
    """The evaluations along a run, by name: ``pairs`` trained on so far; mean
    log-ratios in nats, such as ``held_out/chosen``; ``held_out/accuracy``. Each list
    begins with the reference itself."""
    rows = [row for row in history if "held_out/accuracies" in row]
    series = {"pairs": [0, *(row["step"] * BATCH for row in rows)]}
    for split in ("train", "held_out"):
        for side in ("chosen", "rejected"):
            ratios = [row[f"{split}/log_ratios/{side}"] for row in rows]
            series[f"{split}/{side}"] = [0.0, *ratios]
        accuracies = [row[f"{split}/accuracies"] for row in rows]
        series[f"{split}/accuracy"] = [0.5, *accuracies]
    return series


def pair_gradients(
    policy, reference, tokenizer, pairs: Sequence[Mapping], beta: float
) -> dict[str, list[float]]:
    """Gradient of each pair by itself.

    Returns:
        A number for each pair: ``margin`` h, the difference of its log-ratios in nats;
        ``gradient`` and ``of_margin``, the norms over all parameters of the gradients
        of its DPO loss and of h.
    """
    encoded = encode_pairs(tokenizer, pairs)
    ref_log_probs = torch.stack(
        log_probs_of(reference, encoded, tokenizer.pad_token_id)
    )
    result: dict[str, list[float]] = {"margin": [], "gradient": [], "of_margin": []}
    parameters = [p for p in policy.parameters() if p.requires_grad]
    for number, pair in enumerate(encoded):
        batch = pack([pair], tokenizer.pad_token_id)
        batch = {name: x.to(policy.device) for name, x in batch.items()}
        log_probs = pair_log_probs(policy, batch)
        ref = ref_log_probs[:, number : number + 1].to(policy.device)
        margin = ((log_probs[0] - ref[0]) - (log_probs[1] - ref[1])).sum()
        loss = dpo_loss(*log_probs, *ref, beta).sum()
        result["margin"].append(margin.item())
        for name, value in (("gradient", loss), ("of_margin", margin)):
            gradients = torch.autograd.grad(value, parameters, retain_graph=True)
            norms = torch.stack([gradient.norm() for gradient in gradients])
            result[name].append(norms.norm().item())
    return result


# --- PPO on gold, best-of-n -----------------------------------------------------------


def gold_ppo_arm(
    *, seed: int, kl_coef: float, updates: int, n: int, size: str, steps: int
) -> dict:
    """PPO on the gold reward, scaled to the spread of the proxy reward. All else,
    including the unit of ``kl_coef`` and what it returns, is as in
    :func:`ppo.ppo_arm`, without ``proxy`` and the path."""
    policy, tokenizer = artifacts.reference_policy(size, steps)
    args = PPOConfig(
        **ppo.RECIPE,
        reward_weights=[GOLD_SCALE],
        seed=seed,
        max_steps=updates,
        kl_coef=kl_coef,
        use_cpu=device_in_use() == "cpu",
        disable_tqdm=True,
        report_to="none",
    )
    trainer = PPOTrainer(
        policy, ppo.gold_of, args, ppo.requests("train"), processing_class=tokenizer
    )
    try:
        trainer.train()
    except AlignlabError as error:
        return {"stopped": str(error)}
    reference, _ = artifacts.reference_policy(size, steps)
    result = measure(trainer.policy, tokenizer, reference, seed=seed, n=n)
    return result | {"stopped": None}


def best_of_n_arm(
    *, seed: int, ns: Sequence[int], size: str, steps: int, n_pairs: int, k: int
) -> dict:
    """The reference's replies, picked by the reward model that PPO optimises.

    Args:
        seed: of the replies.
        ns: how many replies to pick from, each at most k.

    Returns:
        ``points``, one for each n: ``n``; ``golds`` of the subjects, the mean over all
        ways to draw n of the k replies; ``gold``, their mean; ``kl`` in nats per reply,
        exact if no two replies tie, else an upper bound.
    """
    model = dict(size=size, steps=steps)
    replies = artifacts.candidates("test", k, seed=seed, **model)
    reward_model = artifacts.reward_model(n_pairs, k=k, **model)
    proxies = artifacts.score_candidates(*reward_model, replies)
    golds = artifacts.golds_of(replies)
    points = []
    for n in ns:
        picked = best_of_n_values(proxies, golds, n)  # (subjects,)
        points.append(dict(n=n, golds=picked.tolist(), kl=best_of_n_kl(n)))
        points[-1]["gold"] = float(picked.mean())
    return {"points": points}


# --- What a run costs -----------------------------------------------------------------


def timed_arm(
    *, seed: int, n_used: int, size: str, steps: int, n_pairs: int, k: int
) -> dict:
    """``seconds`` of a run of DPO as the frontier has it, with what the reference
    thinks of the pairs. A run of one update comes first and does not count."""
    pairs = _drawn_pairs(seed, n_used, size, steps, k, n_pairs, artifacts.FLIPS)

    def seconds_of(updates: int) -> float:
        policy, tokenizer = artifacts.reference_policy(size, steps)
        start = time.perf_counter()
        train_dpo(
            policy,
            tokenizer,
            pairs[: updates * BATCH],
            beta=BETA,
            steps=updates,
            batch_size=BATCH,
            learning_rate=RATE[size],
            seed=seed,
            progress=False,
        )
        return time.perf_counter() - start

    seconds_of(1)
    return {"seconds": seconds_of(max(1, n_used // BATCH))}


def time_each(
    seeds: Sequence[int], *, updates: int, n_used: int, **made
) -> dict[str, dict[int, float]]:
    """Seconds of a run of DPO and of a run of PPO by seed, each alone on one thread. Of
    PPO's ``updates``, ``ppo.TIMED_UPDATES`` are timed.

    Args:
        updates: of PPO.
        n_used: comparisons that DPO trains on.
        made: ``size``, ``steps``, ``n_pairs`` and ``k``, see :func:`preference_arm`.
    """
    ppo_arm, dpo_arm = dict(kl_coef=ppo.BETA, **made), dict(n_used=n_used, **made)
    arms = [(ppo.timed_arm, ppo_arm), (timed_arm, dpo_arm)]  # by turns, as load changes
    calls = [(run, dict(seed=seed, **arm)) for seed in seeds for run, arm in arms]
    rows = run_alone(calls)
    return {
        "DPO": {row["seed"]: row["seconds"] for row in rows[1::2]},
        PPO: {row["seed"]: updates * row["seconds"] for row in rows[::2]},
    }


# --- The sweeps, one for each section -------------------------------------------------


def close_sweep(
    *, seeds: Sequence[int], follow: int, jobs: int, **common
) -> dict[str, list[dict]]:
    """The closer look, several passes over few comparisons: "DPO", and "unweighted",
    which is DPO without the weight of its gradient.

    Args:
        follow: pairs to evaluate, see :func:`preference_arm`.
        common: the other arguments of :func:`preference_arm`.
    """
    losses = {"DPO": "sigmoid", "unweighted": "unweighted"}
    rate = CLOSER_LOOK_RATE * RATE[common["size"]]
    arm = dict(beta=BETA, follow=follow, rate=rate, **common)
    calls = {
        name: [
            (preference_arm, dict(seed=seed, loss_type=loss, **arm)) for seed in seeds
        ]
        for name, loss in losses.items()
    }
    return run_groups(calls, jobs=jobs, label="a closer look")


def noise_sweep(
    *, seeds: Sequence[int], flips: Sequence[float], jobs: int, **common
) -> dict[str, list[dict]]:
    """The losses in ``GUARDS`` at several rates of wrong labels, with several passes
    over few comparisons. cDPO and robust DPO are told the true rate."""
    calls: dict[str, list] = {}
    for name, loss in GUARDS.items():
        for rate in flips:
            for seed in seeds:
                arm = dict(seed=seed, loss_type=loss, beta=BETA, flips=rate)
                if name in ("cDPO", "robust"):
                    arm["label_smoothing"] = rate
                calls.setdefault(name, []).append((preference_arm, arm | common))
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
        family_seeds: of the other losses, and of DPO at one strength on tossed labels.
        gold_seeds: of PPO on the gold reward.
        betas, gold_betas: PPO's KL prices, on the proxy and on the gold reward; higher
            keeps closer to the reference.
        strengths: of each of the other losses; fewer leave out the most cautious.
        ns: of best-of-n.
        updates: of PPO.
        n_used: comparisons that DPO and its family train on, once.
        n: replies to each request when a policy is measured.
        size, steps, n_pairs, k: see :func:`preference_arm`.

    Returns:
        By method, and "start" for the reference: rows with ``seed``, ``gold``,
        ``golds`` and ``kl``.
    """
    model = dict(size=size, steps=steps)
    source = dict(n_pairs=n_pairs, k=k, **model)
    calls = {
        PPO: [  # notebook 04's own arms, from the cache where it was run
            (
                ppo.ppo_arm,
                dict(seed=s, kl_coef=b, updates=updates, keep=True, n=n, **source),
            )
            for b in betas
            for s in seeds
        ],
        GOLD_PPO: [
            (gold_ppo_arm, dict(seed=s, kl_coef=b, updates=updates, n=n, **model))
            for b in gold_betas
            for s in gold_seeds
        ],
        BEST_OF_N: [
            (best_of_n_arm, dict(seed=s, ns=list(ns), **source)) for s in seeds
        ],
        "start": [(ppo.start_arm, dict(seed=s, n=n, **source)) for s in seeds],
    }
    for name, (loss, betas_of_loss) in FAMILY.items():
        arm = dict(loss_type=loss, n_used=n_used, passes=1, n=n, **source)
        calls[name] = [
            (preference_arm, dict(seed=s, beta=beta, **arm))
            for beta in (betas_of_loss if name == "DPO" else betas_of_loss[:strengths])
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
