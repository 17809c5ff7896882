"""What later chapters take from notebook 04: PPO on the world's task, the policies that
it gives, measured on unseen subjects, and the time it takes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from alignlab import cache
from alignlab.errors import AlignlabError
from alignlab.models.base import device_in_use, load_model, weights_hash
from alignlab.models.reward import score
from alignlab.ppo import PPOConfig, PPOTrainer
from alignlab.study import artifacts as study
from alignlab.study.measure import measure
from alignlab.training.ppo.checkpoints import load_value
from alignlab.training.ppo.policy_value import PolicyAndValue
from alignlab.world import gold, tasks

# Everything else is as PPOConfig has it. 64 episodes an update in two minibatches.
# Higher rates learn sooner and fail sooner.
RECIPE: Mapping[str, object] = dict(
    per_device_train_batch_size=32,
    num_mini_batches=2,
    learning_rate=1.5e-4,
    lr_scheduler_type="constant",
    lam=0.95,
    max_completion_length=study.MAX_NEW_TOKENS,
)
BETA = 0.05  # PPOConfig's kl_coef, in units of reward per nat
TIMED_UPDATES = 2  # after a first one, which also loads code and memory
LOGGED = (
    "score",
    "score_std",
    "reward/gold",
    "return",
    "kl",
    "kl_exact",
    "entropy",
    "completion_length",
    "eos_rate",
    "value",
    "explained_variance",
    "policy_loss",
    "value_loss",
    "approx_kl",
    "clip_fraction",
    "ratio",
    "grad_norm",
    "seconds_rollout",
    "seconds_reward",
    "seconds_update",
)


# --- A trainer on the world's task ----------------------------------------------------


def requests(split: str) -> list[dict]:
    """Prompts for PPO: a request for every subject of a split, "train" or "test", with
    its subject."""
    return [
        {"prompt": [{"role": "user", "content": gold.request(name)}], "subject": name}
        for name in study.subjects(split)
    ]


def gold_of(completions: Sequence[str], subject: Sequence[str]) -> list[float]:
    """The gold reward of each completion, as a reward function for PPO."""
    world = tasks.default_world()
    pairs = zip(subject, completions, strict=True)
    return [gold.gold_reward(world, *pair).total for pair in pairs]


gold_of.__name__ = "gold"  # what the trainer's logs call it


def proxy_of(
    model, tokenizer, subjects: Sequence[str], replies: Sequence[str]
) -> list[float]:
    """A reward model's reward of replies to the requests about these subjects."""
    prompts = [gold.request(name) for name in subjects]
    return score(model, tokenizer, prompts, replies).tolist()


def trainer_for(
    policy,
    tokenizer,
    reward_model,
    *,
    seed: int = 0,
    updates: int = 1,
    **hyperparameters,
) -> PPOTrainer:
    """A trainer that optimises the proxy reward and only records the gold one.

    Args:
        policy: what to train, in place.
        reward_model: the proxy; it reads the policy's tokens.
        seed: of prompts, sampling and minibatches.
        updates: of 64 episodes each.
        hyperparameters: of :class:`PPOConfig`, in place of those in ``RECIPE``.
    """
    args = PPOConfig(
        seed=seed,
        max_steps=updates,
        reward_weights=[1.0, 0.0],
        use_cpu=device_in_use() == "cpu",
        disable_tqdm=True,
        report_to="none",
        **{**RECIPE, **hyperparameters},
    )
    return PPOTrainer(
        policy,
        [reward_model, gold_of],
        args,
        requests("train"),
        processing_class=tokenizer,
    )


def train_ppo(
    *,
    seed: int,
    updates: int,
    size: str,
    steps: int,
    n_pairs: int,
    k: int,
    **hyperparameters,
) -> PPOTrainer:
    """The trainer after PPO from the reference policy. If the loss explodes, training
    stops there, and the trainer's ``stopped`` says why; else it is None.

    Args:
        seed, updates, hyperparameters: see :func:`trainer_for`.
        size, steps: of the reference policy.
        n_pairs, k: comparisons, and replies per subject, behind the reward model.
    """
    policy, tokenizer = study.reference_policy(size, steps)
    proxy, _ = study.reward_model(n_pairs, k=k, size=size, steps=steps)
    trainer = trainer_for(
        policy, tokenizer, proxy, seed=seed, updates=updates, **hyperparameters
    )
    trainer.stopped = None
    try:
        trainer.train()
    except AlignlabError as error:
        trainer.stopped = str(error)
    return trainer


def history_of(trainer: PPOTrainer) -> dict[str, list[float]]:
    """What the trainer logged: for each name in ``LOGGED``, a number per update."""
    rows = [row for row in trainer.state.log_history if "kl_exact" in row]
    return {name: [row[name] for row in rows] for name in LOGGED}


# --- Policies in the cache ------------------------------------------------------------


def ppo_folder(**recipe) -> Path:
    """Cached folder of a policy after PPO, with its value function and
    ``history.json``. The arguments are those of :func:`train_ppo`."""

    def build(folder: Path) -> None:
        trainer = train_ppo(**recipe)
        trainer.save_model(str(folder))
        logged = history_of(trainer) | {"stopped": trainer.stopped}
        (folder / "history.json").write_text(json.dumps(logged), encoding="utf-8")

    key = recipe | {"base": weights_hash()}
    return cache.artifact("ppo", build, key=key)


def ppo_policy(beta: float = BETA, seed: int = 0, **settings):
    """``(model, tokenizer)`` after PPO at a price ``beta`` of KL.

    Args:
        beta: higher keeps closer to the reference, 0 lets go.
        seed: of prompts, sampling and minibatches.
        settings: the other arguments of :func:`train_ppo`.
    """
    return load_model(ppo_folder(kl_coef=beta, seed=seed, **settings))


def load_policy_and_value(folder: Path):
    """``(PolicyAndValue, tokenizer)`` from a :func:`ppo_folder`."""
    policy, tokenizer = load_model(folder)
    model = PolicyAndValue(policy).eval()
    load_value(model, folder)
    return model, tokenizer


# --- Arms of PPO ----------------------------------------------------------------------


def judges(*, size: str, steps: int, n_pairs: int, k: int) -> dict:
    """The ``reference`` and ``proxy`` of :func:`alignlab.study.measure.measure`; the
    arguments are those of :func:`train_ppo`."""
    reference, _ = study.reference_policy(size, steps)
    proxy, _ = study.reward_model(n_pairs, k=k, size=size, steps=steps)
    return {"reference": reference, "proxy": proxy}


def start_arm(*, seed: int, n: int, **settings) -> dict:
    """The reference policy itself, measured.

    Args:
        seed: of the sampling.
        n: replies to each test request.
        settings: of :func:`judges`.
    """
    policy, tokenizer = study.reference_policy(settings["size"], settings["steps"])
    return measure(policy, tokenizer, **judges(**settings), seed=seed, n=n)


def ppo_arm(*, n: int, keep: bool = False, **recipe) -> dict:
    """One PPO run, and what its policy is worth on unseen subjects.

    Args:
        n: replies to each test request.
        keep: leave the policy in the cache, for other notebooks.
        recipe: see :func:`train_ppo`.

    Returns:
        What :func:`path_arm` gives and, unless the run had to stop,
        :func:`alignlab.study.measure.measure`.
    """
    policy, tokenizer, result = _run_ppo(keep, recipe)
    if result["stopped"] is None:
        settings = {name: recipe[name] for name in ("size", "steps", "n_pairs", "k")}
        seed = recipe["seed"]
        result |= measure(policy, tokenizer, **judges(**settings), seed=seed, n=n)
    return result


def path_arm(**recipe) -> dict:
    """One PPO run without a measure of its policy: ``history``, see
    :func:`history_of`; ``seconds`` of training; ``stopped``, why it had to stop, or
    None. The arguments are those of :func:`train_ppo`."""
    _, _, result = _run_ppo(False, recipe)
    return result


def _run_ppo(keep: bool, recipe: dict):
    """Policy, tokenizer, and the result of :func:`path_arm`."""
    if keep:
        folder = ppo_folder(**recipe)
        history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
        stopped = history.pop("stopped")
        policy, tokenizer = load_model(folder)
    else:
        trainer = train_ppo(**recipe)
        policy, tokenizer = trainer.policy, trainer.processing_class
        history, stopped = history_of(trainer), trainer.stopped
    seconds = float(np.sum(seconds_of_updates(history)))
    result = {"history": history, "stopped": stopped, "seconds": seconds}
    return policy, tokenizer, result


def timed_arm(*, updates: int = TIMED_UPDATES, **recipe) -> dict:
    """``seconds`` of an update of PPO: the mean of ``updates`` after a first one.

    Run it with :func:`alignlab.study.arms.run_alone`. The other arguments are those of
    :func:`train_ppo`.

    Raises:
        AlignlabError: if the run has to stop.
    """
    trainer = train_ppo(updates=1 + updates, **recipe)
    if trainer.stopped is not None:
        raise AlignlabError(
            f"PPO cannot be timed: {trainer.stopped}", "Take another seed."
        )
    return {"seconds": float(np.mean(seconds_of_updates(history_of(trainer))[1:]))}


def seconds_of_updates(
    history: Mapping[str, Sequence[float]],
) -> Float[np.ndarray, "updates"]:
    """Seconds of each update, from a :func:`history_of` a run."""
    parts = ("rollout", "reward", "update")
    return np.sum([history[f"seconds_{part}"] for part in parts], axis=0)
