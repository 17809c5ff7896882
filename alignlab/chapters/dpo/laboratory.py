"""DPO and PPO in an exact laboratory: a transformer with 21 possible completions, whose
optimal policy is known."""

import copy
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.evaluation.exact import (
    bradley_terry,
    every_completion,
    expected_dpo_loss,
    few_word_model,
    log_probs_of_all,
    optimal_policy,
)
from alignlab.models.base import device_in_use
from alignlab.ppo import PPOConfig, PPOTrainer
from alignlab.seeds import stream
from alignlab.study.arms import run_groups
from alignlab.training.loop import train

WORDS, MAX_LENGTH, BETA = 4, 2, 0.5
PROMPT = "a b"


class Laboratory(NamedTuple):
    """A transformer, its one prompt, all its completions and the reward of each."""

    model: torch.nn.Module
    tokenizer: object
    prompt: list[int]
    completions: list[tuple[int, ...]]
    reward: Float[Tensor, "completions"]  # between -1 and 1
    beta: float

    def policy(self, model=None) -> Float[Tensor, "completions"]:
        """Probability of every completion under ``model``, by default the reference."""
        model = self.model if model is None else model
        with torch.no_grad():
            return log_probs_of_all(model, self.prompt, self.completions).exp()


def laboratory(seed: int) -> Laboratory:
    """A random transformer over four words, whose completions have at most two tokens,
    with a random reward.

    Args:
        seed: of the weights and of the reward.
    """
    model, tokenizer = few_word_model(WORDS, seed)
    prompt = tokenizer(PROMPT)["input_ids"]
    completions = every_completion(len(tokenizer), MAX_LENGTH)
    reward = stream(seed, "laboratory reward").uniform(-1, 1, len(completions))
    return Laboratory(
        model, tokenizer, prompt, completions, torch.as_tensor(reward), BETA
    )


def dpo_arm(*, seed: int, updates: int) -> dict[str, list[float]]:
    """DPO on unlimited comparisons.

    Returns:
        Probabilities of all completions before (``reference``) and after training
        (``policy``) and at the ``optimum``, and the ``reward`` of each.
    """
    lab = laboratory(seed)
    ref_log_probs = lab.policy().log()
    preferences = bradley_terry(lab.reward)

    def step(policy, _):
        log_probs = log_probs_of_all(policy, lab.prompt, lab.completions)
        loss = expected_dpo_loss(log_probs, ref_log_probs, preferences, lab.beta)
        return loss, {}

    policy = copy.deepcopy(lab.model)
    no_batches = itertools.repeat({})
    train(policy, no_batches, step, steps=updates, learning_rate=1e-2, progress=False)
    return _outcome(lab, policy)


def ppo_arm(*, seed: int, updates: int) -> dict[str, list[float]]:
    """PPO on the reward itself, 256 sampled completions an update; returns what
    :func:`dpo_arm` does."""
    lab = laboratory(seed)
    reward_of = dict(zip(lab.completions, lab.reward.tolist(), strict=True))

    def reward(completion_ids):
        return [reward_of[tuple(ids)] for ids in completion_ids]

    args = PPOConfig(
        seed=seed,
        max_steps=updates,
        per_device_train_batch_size=256,
        num_ppo_epochs=4,
        max_completion_length=MAX_LENGTH,
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
    prompts = [{"prompt": PROMPT}]
    policy = copy.deepcopy(lab.model)
    trainer = PPOTrainer(policy, reward, args, prompts, processing_class=lab.tokenizer)
    trainer.train()
    return _outcome(lab, trainer.policy)


def _outcome(lab: Laboratory, policy) -> dict[str, list[float]]:
    reference = lab.policy()
    optimum = optimal_policy(reference, lab.reward, lab.beta)
    return {
        "reference": reference.tolist(),
        "policy": lab.policy(policy).tolist(),
        "optimum": optimum.tolist(),
        "reward": lab.reward.tolist(),
    }


def sweep(
    *, seeds: Sequence[int], dpo_updates: int, ppo_updates: int, jobs: int
) -> dict[str, list[dict]]:
    """The rows of "DPO" and of "PPO", one for each seed."""
    arms = {"PPO": (ppo_arm, ppo_updates), "DPO": (dpo_arm, dpo_updates)}  # slow first
    calls = {
        name: [(run, dict(seed=seed, updates=updates)) for seed in seeds]
        for name, (run, updates) in arms.items()
    }
    return run_groups(calls, jobs=jobs, label="laboratory")
