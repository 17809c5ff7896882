"""The arms of notebook 06 on a tiny policy, and their design."""

import numpy as np
import pytest

from alignlab.chapters.side_effects import analysis
from alignlab.chapters.side_effects import runs as side_effects
from alignlab.runs.profiles import notebook_settings
from alignlab.study import artifacts
from alignlab.study.chains import Chain, chains

SUBJECTS = artifacts.TESTED
[CHAIN] = chains([0], nested=False, base="300k", steps=2, n_pairs=8, k=2)


def all_calls(**changes):
    settings = dict(
        chains=[CHAIN],
        control_chains=[CHAIN],
        few_chains=[CHAIN],
        at=[1, 2],
        control_at=[2],
        dpo_at=[1.0],
        remedies=True,
        ns=[8],
        pool=2,
        temperatures=[1.0, 2.0],
        n=2,
    )
    return side_effects.calls(**{**settings, **changes})


def test_the_control_differs_by_reward_rate_and_looks_alone():
    groups = all_calls()
    (_, long), (_, control) = groups["ppo"][0], groups["control"][0]
    changed = {
        name
        for name in long.keys() | control.keys()
        if long.get(name) != control.get(name)
    }
    assert changed == {"at", "learning_rate", "reward"}


def test_a_remedy_changes_one_thing():
    groups = all_calls()
    [(_, long)] = groups["ppo"]
    [(_, price)] = groups["remedy price"]
    assert price == long | {"kl_coef": side_effects.PRICE}
    [(_, weak)] = groups["remedy weak"]
    pairs = {"n_pairs": side_effects.WEAK_PAIRS}
    assert weak == long | {"chain": CHAIN | pairs}
    assert not [name for name in all_calls(remedies=False) if "remedy" in name]


def test_long_runs_are_looked_at_where_the_policy_is_heated():
    assert side_effects.HEATED in notebook_settings("06", "full")["at"]


@pytest.mark.network
def test_an_ensemble_of_equal_members_is_its_member(monkeypatch):
    monkeypatch.setattr(side_effects, "OTHERS", (0, 0))
    link = Chain(**CHAIN)
    reward = side_effects.ensemble_reward(link, "worst")
    replies = [(c.prompt, c.replies[0].text) for c in link.replies()[:12]]
    found = np.array(reward(*zip(*replies)))
    from alignlab.models.reward import score

    own = score(*link.reward_model(), *zip(*replies))
    assert np.corrcoef(found, own)[0, 1] == pytest.approx(1, abs=1e-5)


@pytest.mark.network
def test_judges_read_the_replies_of_every_look():
    [(_, long)] = all_calls()["ppo"]
    found = side_effects.judge_arm(chain=CHAIN, run=long)
    assert np.shape(found["start"]) == (3, 2 * SUBJECTS)
    assert np.shape(found["scores"]) == (3, 2, 2 * SUBJECTS)
    rows = side_effects.run_groups(
        {"run": [(side_effects.rl_arm, long)]}, jobs=1, label="again"
    )["run"]
    own = np.ravel(rows[0]["points"][1]["each_proxy"])
    assert found["scores"][0][1] == pytest.approx(own.tolist(), abs=1e-4)


@pytest.mark.network
def test_the_reference_is_heated_without_training():
    found = side_effects.temperature_arm(
        chain=CHAIN, updates=0, temperatures=[0.5, 1.5], n=2
    )["by_temperature"]
    assert [row["temperature"] for row in found] == [0.5, 1.5]
    assert np.shape(found[0]["golds"]) == (SUBJECTS, 2)
    assert found[0]["texts"] != found[1]["texts"]


@pytest.mark.network
def test_a_pool_has_gold_and_proxy_of_every_reply():
    found = side_effects.pool_arm(chain=CHAIN, pool=2, n_pairs=8)
    assert np.shape(found["golds"]) == np.shape(found["proxies"]) == (SUBJECTS, 2)
    curve = analysis.best_of_n_curve(
        np.array(found["proxies"]), np.array(found["golds"]), [1, 2]
    )
    assert curve[0]["gold"] == pytest.approx(np.mean(found["golds"]))
