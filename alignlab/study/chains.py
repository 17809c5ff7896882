"""The chain behind a run: a reference policy, its replies, comparisons of them and the
reward model that learnt from these. Whatever is random in it nests in one seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from alignlab.study import artifacts
from alignlab.study.arms import run_arms
from alignlab.world.comparisons import Candidates


@dataclass(frozen=True)
class Chain:
    """What one seed starts from; every link comes from the cache if it is there.

    Args:
        seed: draws the comparisons, their labels and the reward model's head.
        reference_seed: draws demonstrations, reference policy and its replies. Where
            seeds nest it is the same as ``seed``.
        base, steps: of the reference policy.
        n_pairs: comparisons; more bring the reward model closer to gold.
        k: replies to each training request that they are drawn from.
    """

    seed: int
    reference_seed: int
    base: str
    steps: int
    n_pairs: int
    k: int

    def policy(self):
        """``(model, tokenizer)`` of the reference policy: a new copy at each call."""
        return artifacts.reference_policy(self.base, self.steps, self.reference_seed)

    def replies(self, split: str = "train", k: int | None = None) -> list[Candidates]:
        """k replies of the reference policy to each request of a split."""
        return artifacts.candidates(
            split,
            k or self.k,
            base=self.base,
            steps=self.steps,
            seed=self.reference_seed,
            reference_seed=self.reference_seed,
        )

    def comparisons(self, flips: float = artifacts.FLIPS) -> list[dict]:
        """The comparisons that the reward model learnt from; other ``flips`` label the
        same pairs with another rate of errors."""
        key = (self.reference_seed, self.base, self.steps, self.k)
        return _comparisons(key, self.n_pairs, self.seed, flips)

    def held_out_comparisons(
        self, n: int, flips: float = artifacts.FLIPS
    ) -> list[dict]:
        """n comparisons about test subjects, as noisy as those of training."""
        replies = self.replies("test")
        return artifacts.comparisons(replies, n, flips=flips, seed=self.seed)

    def reward_model(self, n_pairs: int | None = None, *, seed: int | None = None):
        """``(model, tokenizer)`` of the reward model.

        Args:
            n_pairs: fewer or more comparisons than the chain has; a smaller number is
                the beginning of the chain's own.
            seed: of another reward model on the same replies, for ensembles.
        """
        return artifacts.reward_model(
            n_pairs or self.n_pairs,
            k=self.k,
            seed=self.seed if seed is None else seed,
            base=self.base,
            steps=self.steps,
            reference_seed=self.reference_seed,
            reply_seed=self.reference_seed,
        )


@lru_cache(maxsize=4)  # the arms of a process want the same few
def _comparisons(key: tuple, n_pairs: int, seed: int, flips: float) -> list[dict]:
    reference_seed, base, steps, k = key
    chain = Chain(seed, reference_seed, base, steps, n_pairs, k)
    return artifacts.comparisons(chain.replies(), n_pairs, flips=flips, seed=seed)


def chains(seeds: Sequence[int], *, nested: bool, **settings) -> list[dict]:
    """A chain for each seed, as arguments of :class:`Chain` that JSON can hold.

    Args:
        nested: whether each seed has a reference policy and replies of its own; else
            all have those of seed 0, and what is measured holds given that policy.
        settings: ``base``, ``steps``, ``n_pairs`` and ``k``.
    """
    return [dict(seed=s, reference_seed=s if nested else 0, **settings) for s in seeds]


def chain_arm(*, chain: dict, pool: int = 0) -> dict:
    """Make what a chain's arms share, so that they do not wait for each other, and give
    the ``mean`` and ``sd`` of its proxy reward over the reference's replies to training
    requests, and the ``gold`` of these.

    Args:
        pool: replies to each test request to sample as well.
    """
    link = Chain(**chain)
    replies = link.replies()
    model = link.reward_model()
    proxies = artifacts.score_candidates(*model, replies[:64])
    if pool:
        link.replies("test", pool)
    return {
        "mean": float(proxies.mean()),
        "sd": float(proxies.std()),
        "gold": float(np.mean(artifacts.golds_of(replies))),
    }


def prepare(chains: Sequence[dict], *, pool: int = 0, jobs: int = 2) -> list[dict]:
    """:func:`chain_arm` of each chain, before several arms want the same."""
    arms = [dict(chain=chain, pool=pool) for chain in chains]
    return run_arms(chain_arm, arms, jobs=jobs, label="chains")


def scored_pool(
    chain: dict, pool: int, n_pairs: int | None = None
) -> tuple[
    list[Candidates],
    Float[np.ndarray, "subjects replies"],
    Float[np.ndarray, "subjects replies"],
]:
    """The reference's replies to the test requests, with the proxy and the gold reward
    of each: what best of n picks from.

    Args:
        pool: replies to each request; more make every number less noisy.
        n_pairs: comparisons of the reward model, by default the chain's.
    """
    link = Chain(**chain)
    replies = link.replies("test", pool)
    proxies = artifacts.score_candidates(*link.reward_model(n_pairs), replies)
    return replies, proxies, artifacts.golds_of(replies)
