"""What later chapters take from notebook 04: the policies that PPO gives."""

import json
from pathlib import Path

from alignlab import cache
from alignlab.models.base import load_model, weights_behind
from alignlab.study.chains import Chain
from alignlab.study.optimising import history_of, trainer_for
from alignlab.training.ppo.checkpoints import load_value
from alignlab.training.ppo.policy_value import PolicyAndValue


def ppo_folder(*, chain: dict, updates: int, **hyperparameters) -> Path:
    """Cached folder of the policy after PPO from a chain's reference on its reward
    model, with the value function and ``history.json``.

    Args:
        chain: arguments of :class:`alignlab.study.chains.Chain`; its seed also draws
            prompts, sampling and minibatches.
        updates: more go further from the reference.
        hyperparameters: of :class:`alignlab.ppo.PPOConfig`, in place of those in
            ``alignlab.study.optimising.RECIPE``.

    Raises:
        AlignlabError: if the loss explodes.
    """

    def build(folder: Path) -> None:
        link = Chain(**chain)
        policy, tokenizer = link.policy()
        reward_model, _ = link.reward_model()
        settings = dict(base=link.base, seed=link.seed, updates=updates)
        settings |= hyperparameters
        trainer = trainer_for(policy, tokenizer, reward_model, **settings)
        trainer.train()
        trainer.save_model(str(folder))
        history = json.dumps(history_of(trainer))
        (folder / "history.json").write_text(history, encoding="utf-8")

    key = dict(chain=chain, updates=updates, **hyperparameters)
    key["weights_hash"] = weights_behind(key)
    return cache.artifact("ppo", build, key=key)


def ppo_policy(**recipe):
    """``(model, tokenizer)`` after PPO; the arguments are those of
    :func:`ppo_folder`."""
    return load_model(ppo_folder(**recipe))


def policy_and_value(**recipe):
    """``(PolicyAndValue, tokenizer)`` after PPO; the arguments are those of
    :func:`ppo_folder`."""
    folder = ppo_folder(**recipe)
    policy, tokenizer = load_model(folder)
    model = PolicyAndValue(policy).eval()
    load_value(model, folder)
    return model, tokenizer
