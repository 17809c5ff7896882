"""DPO and PPO in the exact laboratory find the optimum that is known in closed form."""

import numpy as np
import pytest

from alignlab.chapters.dpo import analysis, laboratory
from alignlab.evaluation.exact import total_variation
from alignlab.study import arms


def test_dpo_finds_the_optimum_and_its_reward():
    found = laboratory.dpo_arm(seed=11, updates=120)
    against = analysis.against_optimum(found, laboratory.BETA)
    assert against["before"] > 0.1 and against["variation"] < 0.02
    assert against["correlation"] > 0.99
    gap = against["implicit"] - np.array(found["reward"])
    assert np.ptp(gap) < 0.1, "the reward, up to a constant"


@pytest.mark.slow
def test_ppo_finds_the_same_optimum():
    found = laboratory.ppo_arm(seed=11, updates=40)
    assert found["optimum"] == pytest.approx(
        laboratory.dpo_arm(seed=11, updates=1)["optimum"], abs=1e-6
    )
    assert analysis.against_optimum(found, laboratory.BETA)["variation"] < 0.02


def test_laboratories_of_two_seeds_differ_in_model_and_reward():
    one, other = laboratory.laboratory(0), laboratory.laboratory(1)
    assert len(one.completions) == 21 and one.policy().sum() == pytest.approx(1)
    assert total_variation(one.policy(), other.policy()) > 0.01
    assert (one.reward - other.reward).abs().max() > 0.1
    assert one.reward.abs().max() <= 1


def test_both_methods_have_all_seeds_and_the_slow_one_comes_first(monkeypatch):
    calls = []

    def run_each(given, **options):
        calls.extend(given)
        return [arm for _, arm in given]

    monkeypatch.setattr(arms, "run_each", run_each)
    groups = laboratory.sweep(seeds=[0, 1], dpo_updates=5, ppo_updates=2, jobs=1)
    assert [(r["seed"], r["updates"]) for r in groups["DPO"]] == [(0, 5), (1, 5)]
    assert [(r["seed"], r["updates"]) for r in groups["PPO"]] == [(0, 2), (1, 2)]
    runs = [run for run, _ in calls]
    assert runs == [laboratory.ppo_arm] * 2 + [laboratory.dpo_arm] * 2
