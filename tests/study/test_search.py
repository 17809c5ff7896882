"""The random search: every draw is in its space and can be run."""

import inspect
import math
from collections import Counter

import numpy as np
import pytest

from alignlab.objectives.preference import PREFERENCE_LOSSES
from alignlab.ppo import PPOConfig
from alignlab.study.chains import chains
from alignlab.study.optimising import DPO_RECIPE, EPISODES, RECIPE, dpo_arm, rl_arm
from alignlab.study.search import KL_LIMIT, SPACES, LogUniform, draw, search_calls
from alignlab.training.dpo import train_dpo
from tests.training.ppo.helpers import QUIET

DRAWS = 400
CHAINS = chains([0, 1], nested=True, base="300k", steps=3, n_pairs=64, k=2)


@pytest.mark.parametrize("method", SPACES)
def test_draws_lie_in_their_space_and_fill_it(method):
    draws = [draw(method, 0, number) for number in range(DRAWS)]
    for name, space in SPACES[method].items():
        values = [configuration[name] for configuration in draws]
        if isinstance(space, LogUniform):
            places = np.log(np.array(values) / space.low)
            places /= math.log(space.high / space.low)
            assert -0.01 < places.min() < 0.05 < 0.95 < places.max() < 1.01
            assert places.mean() == pytest.approx(0.5, abs=4 / math.sqrt(12 * DRAWS))
        else:
            counts = Counter(values)
            assert set(counts) == set(space)
            expected = DRAWS / len(space)
            assert min(counts.values()) > expected - 5 * math.sqrt(expected)


def test_a_draw_depends_on_method_seed_and_number_alone():
    assert draw("RLOO", 3, 5) == draw("RLOO", 3, 5)
    others = [draw("RLOO", 4, 5), draw("RLOO", 3, 6), draw("GRPO", 3, 5)]
    rates = {d["learning_rate"] for d in (draw("RLOO", 3, 5), *others)}
    assert len(rates) == 4
    with pytest.raises(ValueError, match="method is 'SFT'.*'PPO', 'RLOO'"):
        draw("SFT", 0, 0)


@pytest.mark.parametrize("method", ["PPO", "RLOO", "GRPO"])
def test_every_policy_gradient_learns_from_as_many_completions(method):
    of_arms = set(inspect.signature(rl_arm).parameters)
    for arm, call in search_calls(method, CHAINS, tries=60, updates=8, n=3):
        assert arm is rl_arm and call["at"] == [4, 8] and call["n"] == 3
        settings = {k: v for k, v in call.items() if k not in of_arms}
        args = PPOConfig(**RECIPE | settings | QUIET | dict(max_steps=8))
        assert args.batch_size == EPISODES
        assert args.advantages == ("gae" if method == "PPO" else method.lower())
        assert args.kl_limit == KL_LIMIT


def test_dpo_is_given_what_it_takes():
    taken = set(inspect.signature(train_dpo).parameters)
    taken |= set(PREFERENCE_LOSSES[DPO_RECIPE["loss_type"]].hyperparameters)
    for arm, call in search_calls("DPO", CHAINS, tries=20, updates=8, n=3):
        assert arm is dpo_arm and call["at"] == [0.5, 1.0]
        assert {*call} - {"chain", "at", "n"} == set(SPACES["DPO"]) <= taken


def test_every_chain_gets_its_own_draws_and_a_longer_search_begins_with_a_shorter():
    long = search_calls("PPO", CHAINS, tries=5, updates=8, n=3)
    assert search_calls("PPO", CHAINS, tries=2, updates=8, n=3) == long[:4]
    tried = Counter(call["chain"]["seed"] for _, call in long)
    assert tried == {0: 5, 1: 5}
    rates = {call["learning_rate"] for _, call in long}
    assert len(rates) == len(long)


def test_a_run_of_one_update_is_looked_at_once():
    ((_, call),) = search_calls("PPO", CHAINS[:1], tries=1, updates=1, n=1)
    assert call["at"] == [1]
