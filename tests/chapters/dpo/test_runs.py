"""The arms of notebook 05: fair comparisons, and runs of a tiny policy."""

import numpy as np
import pytest

from alignlab.chapters.dpo import runs as dpo
from alignlab.chapters.ppo import runs as ppo
from alignlab.evaluation.exact import best_of_n_kl
from alignlab.runs.profiles import notebook_settings
from alignlab.study.chains import Chain, chains

TINY = dict(base="300k", steps=2, n_pairs=8, k=2)
FULL = dict(base="1m", steps=600, n_pairs=4000, k=16)


def full_calls():
    links = chains(range(100, 105), nested=True, **FULL)
    return dpo.calls(
        chains=links,
        family_chains=links,
        family_used=1500,
        tries=8,
        updates=8,
        gold_at=[6, 12],
        pool=32,
        n=3,
    )


def test_dpo_and_ppo_have_as_many_configurations_on_the_same_chains():
    groups = full_calls()
    for method in ("DPO", "PPO"):
        assert len(groups[f"search {method}"]) == 40
    seeds = {
        method: sorted(arm["chain"]["seed"] for _, arm in groups[f"search {method}"])
        for method in ("DPO", "PPO")
    }
    assert seeds["DPO"] == seeds["PPO"] == sorted([*range(100, 105)] * 8)


def test_the_contest_is_that_of_notebook_04():
    """The same arms, so that each runs once for both notebooks."""
    links = chains(range(100, 105), nested=True, **FULL)
    theirs = ppo.calls(
        chains=links,
        many_chains=links,
        few_chains=links[:1],
        betas=[],
        updates=8,
        tries=8,
        repeats=1,
        pieces=False,
        n=3,
    )
    groups = full_calls()
    for method in ("DPO", "PPO"):
        assert groups[f"search {method}"] == theirs["search", method]


def test_full_profiles_of_04_and_05_agree_on_what_they_share():
    ours, theirs = (notebook_settings(number, "full") for number in ("05", "04"))
    for name in ("model", "steps", "n_pairs", "k", "n", "updates", "tries", "nested"):
        assert ours[name] == theirs[name], name


def test_the_family_differs_by_the_loss_alone():
    groups = full_calls()
    own = {name: groups[name][0][1] for name in dpo.FAMILY}
    settings = {"loss_type", "beta", "label_smoothing"}
    rest = [{k: v for k, v in arm.items() if k not in settings} for arm in own.values()]
    assert all(arm == rest[0] for arm in rest)
    [tossed] = {arm["flips"] for _, arm in groups["tossed"]}
    assert tossed == 0.5


@pytest.mark.network
def test_best_of_one_is_the_reference_and_more_follow_the_reward_model():
    [link] = chains([0], nested=False, **TINY)
    found = dpo.best_of_n_arm(chain=link, pool=4)["points"]
    assert [point["n"] for point in found] == [1, 2, 4]
    assert [point["kl"] for point in found] == [best_of_n_kl(n) for n in (1, 2, 4)]
    from alignlab.study import artifacts

    replies = Chain(**link).replies("test", 4)
    golds = artifacts.golds_of(replies)
    assert found[0]["golds"] == pytest.approx(golds.mean(axis=1).tolist())
    proxies = artifacts.score_candidates(*Chain(**link).reward_model(), replies)
    tops = [
        np.mean(row[scores == scores.max()])
        for row, scores in zip(golds, proxies, strict=True)
    ]
    assert found[2]["golds"] == pytest.approx(tops)


@pytest.mark.network
def test_a_reward_models_seconds_are_in_proportion(monkeypatch):
    monkeypatch.setattr(dpo, "TIMED", 4)
    clock = iter([1.0, 3.0])
    monkeypatch.setattr(dpo.time, "process_time", lambda: next(clock))
    monkeypatch.setattr(dpo, "train_reward_model", lambda *args, **options: None)
    [link] = chains([0], nested=False, **TINY)
    assert dpo.reward_seconds_arm(chain=link) == {"seconds": 2.0 * 8 / 4}
