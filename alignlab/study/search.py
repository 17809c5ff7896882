"""Random search over a declared space, with the same number of configurations for every
method: PPO, RLOO, GRPO and DPO."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from alignlab.seeds import stream
from alignlab.study.optimising import EPISODES, dpo_arm, rl_arm

LOOKS = (0.5, 1.0)  # shares of a run after which it is looked at
KL_LIMIT = 50.0  # nats a reply: a run beyond is lost, and ends there


class LogUniform(NamedTuple):
    """Positive numbers, each factor between low and high as likely as any other."""

    low: float
    high: float


# Fixed before any run. Tuples are choices of equal chance. The learning rates span two
# orders of magnitude around what Adam does with a million parameters; prices of KL are
# standard deviations of reward per nat, for DPO nats per nat.
_POLICY_GRADIENT: Mapping[str, object] = {
    "learning_rate": LogUniform(1e-5, 1e-3),
    "num_ppo_epochs": (1, 2, 4),
    "num_mini_batches": (1, 2, 4),
    "cliprange": LogUniform(0.05, 0.5),
    "kl_coef": LogUniform(0.02, 1.0),
}
SPACES: Mapping[str, Mapping[str, object]] = {
    "PPO": _POLICY_GRADIENT
    | {"lam": (0.9, 0.95, 1.0), "vf_coef": LogUniform(0.01, 1.0)},
    "RLOO": _POLICY_GRADIENT | {"completions_per_prompt": (2, 4, 8)},
    "GRPO": _POLICY_GRADIENT | {"completions_per_prompt": (2, 4, 8)},
    "DPO": {
        "learning_rate": LogUniform(1e-5, 1e-3),
        "beta": LogUniform(0.02, 1.0),
        "batch_size": (16, 32, 64),
        "label_smoothing": (0.0, 0.1, 0.25),
    },
}


def draw(method: str, seed: int, number: int) -> dict:
    """One configuration of a method's space.

    Args:
        method: a key of ``SPACES``.
        seed: of the chain it is tried on.
        number: which one; the first few of a longer search are a shorter one.

    Raises:
        ValueError: if the method is unknown.
    """
    if method not in SPACES:
        raise ValueError(f"method is {method!r}; it can be one of {[*SPACES]}")
    rng = stream(seed, f"configurations of {method}", number)
    return {name: _value(space, rng) for name, space in SPACES[method].items()}


def _value(space: LogUniform | tuple, rng: np.random.Generator) -> float | int:
    if isinstance(space, LogUniform):
        low, high = math.log(space.low), math.log(space.high)
        return float(f"{math.exp(rng.uniform(low, high)):.3g}")
    return space[rng.integers(len(space))]


def search_calls(
    method: str,
    chains: Sequence[dict],
    *,
    tries: int,
    updates: int,
    n: int,
) -> list[tuple]:
    """Arms for ``run_each``: ``tries`` configurations of a method on each chain.

    Args:
        tries: on each chain.
        updates: of a policy gradient's run. DPO goes once over all comparisons.
        n: replies to each test request at each look.
    """
    return [
        _call(method, chain, draw(method, chain["seed"], number), updates, n)
        for number in range(tries)
        for chain in chains
    ]


def _call(method, chain, settings, updates, n) -> tuple:
    common = dict(chain=chain, n=n)
    if method == "DPO":
        return dpo_arm, dict(at=list(LOOKS), **settings, **common)
    advantages = "gae" if method == "PPO" else method.lower()
    batch = EPISODES // settings["num_mini_batches"]
    due = sorted({max(1, round(share * updates)) for share in LOOKS})
    return rl_arm, dict(
        at=due,
        advantages=advantages,
        kl_limit=KL_LIMIT,
        per_device_train_batch_size=batch,
        **settings,
        **common,
    )
