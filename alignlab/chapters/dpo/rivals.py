"""What DPO is held against in notebook 05, beside notebook 04's own runs of PPO on the
learnt reward: PPO on the gold reward, best-of-n; and PPO on the exact laboratory.

Measured on the same subjects and in the same way as ``dpo`` measures its own.
"""

from collections.abc import Sequence

from alignlab.chapters.dpo.runs import LAB_LENGTH, LAB_PROMPT, laboratory, measure
from alignlab.chapters.ppo import runs as ppo
from alignlab.errors import AlignlabError
from alignlab.evaluation.exact import best_of_n_kl, optimal_policy
from alignlab.evaluation.over_optimisation import best_of_n_values
from alignlab.models.base import device_in_use
from alignlab.ppo import PPOConfig, PPOTrainer
from alignlab.study import artifacts as alignment

# Over the reference's replies gold spreads by 2.0 and the learnt reward by 0.8. At one
# scale, one rate and one price of KL suit both.
GOLD_SCALE = 0.4


def gold_ppo_arm(
    *, seed: int, kl_coef: float, updates: int, n: int, size: str, steps: int
) -> dict:
    """PPO on the gold reward, at the learnt one's scale; all else, the unit of
    ``kl_coef`` too, is as in :func:`alignlab.chapters.ppo.runs.ppo_arm`."""
    policy, tokenizer = alignment.reference_policy(size, steps)
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
    reference, _ = alignment.reference_policy(size, steps)
    found = measure(trainer.policy, tokenizer, reference, seed=seed, n=n)
    return found | {"stopped": None}


def best_of_n_arm(
    *, seed: int, ns: Sequence[int], size: str, steps: int, n_pairs: int, k: int
) -> dict:
    """The reference's replies, picked by the reward model that PPO optimises, averaged
    over all ways to draw n of the k replies to each request.

    Args:
        seed: of the replies.
        ns: how many to pick from, each at most k.

    Returns:
        ``points``: for each n ``n``, ``golds`` of the subjects, ``gold``, their mean,
        and ``kl``, nats a reply: exact if no two replies tie, else an upper bound.
    """
    made = dict(size=size, steps=steps)
    some = alignment.candidates("test", k, seed=seed, **made)
    model = alignment.reward_model(n_pairs, k=k, **made)
    rewards, golds = alignment.score_candidates(*model, some), alignment.golds_of(some)
    points = []
    for n in ns:
        picked = best_of_n_values(rewards, golds, n)  # (subjects,)
        points.append(dict(n=n, golds=picked.tolist(), kl=best_of_n_kl(n)))
        points[-1]["gold"] = float(picked.mean())
    return {"points": points}


def optimum_arm(*, seed: int, updates: int) -> dict[str, list[float]]:
    """PPO on the laboratory's reward: as
    :func:`alignlab.chapters.dpo.runs.optimum_arm`, of 256 sampled replies an update."""
    lab = laboratory(seed)
    worth = dict(zip(lab.completions, lab.reward.tolist(), strict=True))

    def reward(completion_ids):
        return [worth[tuple(ids)] for ids in completion_ids]

    reference = lab.policy()
    args = PPOConfig(
        seed=seed,
        max_steps=updates,
        per_device_train_batch_size=256,
        num_ppo_epochs=4,
        max_completion_length=LAB_LENGTH,
        learning_rate=3e-3,
        max_grad_norm=0.0,
        kl_coef=lab.beta,
        lam=1.0,
        vf_coef=1.0,
        cliprange_value=None,
        whiten_advantages=False,
        use_cpu=device_in_use() == "cpu",
        disable_tqdm=True,
        report_to="none",
    )
    trainer = PPOTrainer(
        lab.model,
        reward,
        args,
        [{"prompt": LAB_PROMPT}],
        processing_class=lab.tokenizer,
    )
    trainer.train()
    optimum = optimal_policy(reference, lab.reward, lab.beta)
    return {
        "reference": reference.tolist(),
        "policy": lab.policy(trainer.policy).tolist(),
        "optimum": optimum.tolist(),
        "reward": lab.reward.tolist(),
    }
