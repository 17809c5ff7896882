"""The arms of notebook 06 on a tiny policy, and their design."""

import numpy as np
import pytest

from alignlab.chapters.side_effects import analysis
from alignlab.chapters.side_effects import runs as side_effects
from alignlab.study import arms, artifacts

MADE = dict(size="300k", steps=6, k=4)
SUBJECTS = artifacts.TESTED

# --- Arms -----------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    """What is trained here is nobody else's."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        from alignlab.cache import cache_dir

        for name in ("sources", "artifacts/world"):
            if (cache_dir() / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).symlink_to(cache_dir() / name)
        patch.setenv("ALIGNLAB_CACHE", str(folder))
        yield


@pytest.fixture(scope="module")
def runs(own_cache):
    common = dict(seed=0, at=[1, 2], n=2, n_pairs=32, **MADE)
    return {
        "proxy": side_effects.ppo_arm(temperatures=[1.0, 2.0], **common),
        "gold": side_effects.ppo_arm(reward="gold", **common),
        "worst": side_effects.ppo_arm(reward="worst", members=[0, 1], **common),
        "dpo": side_effects.dpo_arm(**common),
    }


def test_every_run_is_evaluated_before_it_starts_and_then_as_told(runs):
    for run in runs.values():
        assert [point["step"] for point in run["points"]] == [0, 1, 2]
        assert run["stopped"] is None
        kl = analysis.over_points(run, "kl")
        assert kl[0] == pytest.approx(0, abs=1e-6) and (kl[1:] > 0).all()
        for point in run["points"]:
            for column in ("texts", "golds", "proxies"):
                assert np.shape(point[column]) == (SUBJECTS, 2)


def test_evaluations_along_the_way_change_nothing(runs):
    common = dict(seed=0, at=[2], n=2, n_pairs=32, **MADE)
    for name, arm in (("proxy", side_effects.ppo_arm), ("dpo", side_effects.dpo_arm)):
        first, last = arm(**common)["points"]
        assert [first, last] == [runs[name]["points"][0], runs[name]["points"][2]]


def test_all_start_from_the_same_replies(runs):
    first = [run["points"][0]["texts"] for run in runs.values()]
    assert all(texts == first[0] for texts in first)
    assert runs["proxy"]["points"][2]["texts"] != first[0]


def test_replies_stand_with_their_subject_and_are_worth_what_gold_says(runs):
    from alignlab.world import gold, tasks

    world = tasks.default_world()
    point = runs["proxy"]["points"][1]
    for place, name in enumerate(artifacts.subjects("test")):
        for text, worth in zip(point["texts"][place], point["golds"][place]):
            truth = gold.gold_reward(world, name, text).total
            assert worth == pytest.approx(truth, abs=1e-5)


def test_the_control_optimises_gold_and_the_others_do_not(runs):
    for point in runs["gold"]["points"]:
        assert point["golds"] == point["proxies"]
    assert runs["proxy"]["points"][0]["proxies"] != runs["gold"]["points"][0]["golds"]
    proxy, dpo = (runs[name]["points"][0]["proxies"] for name in ("proxy", "dpo"))
    np.testing.assert_allclose(proxy, dpo, rtol=1e-4)  # the same reward model


def test_an_ensemble_is_no_better_than_its_worst_member(runs):
    from alignlab.models.reward import score

    point = runs["worst"]["points"][0]
    name = artifacts.subjects("test")[0]
    request = f"Tell me about {name}."
    levels = [
        (one.prompt, one.replies[0].text)
        for one in artifacts.candidates("train", 4, size="300k", steps=6)
    ][: side_effects.LEVELS]
    members = []
    for seed in (0, 1):
        model = artifacts.reward_model(32, k=4, seed=seed, size="300k", steps=6)
        [worth] = score(*model, [request], [point["texts"][0][0]])
        members.append(worth - score(*model, *zip(*levels)).mean())
    assert point["proxies"][0][0] == pytest.approx(min(members), abs=1e-5)


def test_temperatures_are_tried_once_and_make_replies_more_varied(runs):
    by_temperature = runs["proxy"]["by_temperature"]
    assert [row["temperature"] for row in by_temperature] == [1.0, 2.0]
    assert all(np.shape(row["texts"]) == (SUBJECTS, 2) for row in by_temperature)
    assert runs["gold"]["by_temperature"] == []
    reference = side_effects.reference_arm(
        seed=0, n=2, temperatures=[0.0, 1.0], size="300k", steps=6
    )["by_temperature"]
    assert all(len(set(some)) == 1 for some in reference[0]["texts"]), "greedy"
    assert any(len(set(some)) == 2 for some in reference[1]["texts"])


def test_reward_models_of_several_trunks_judge_the_same_pool():
    own = side_effects.pool_arm(seed=0, n_pairs=32, trunk="300k", pool=3, **MADE)
    other = side_effects.pool_arm(seed=1, n_pairs=32, trunk="300k", pool=3, **MADE)
    assert np.shape(own["proxies"]) == (SUBJECTS, 3)
    assert own != other
    golds = analysis.pool_golds(3, "300k", 6)
    assert golds.shape == (SUBJECTS, 3) and np.isfinite(golds).all()


def test_a_trunk_of_another_size_is_another_model():
    large, tokenizer = artifacts.reward_model(16, trunk="1m", **MADE)
    small, same = artifacts.reward_model(16, trunk="300k", **MADE)
    assert large.num_parameters() > 2 * small.num_parameters()
    assert tokenizer.get_vocab() == same.get_vocab()


def test_no_arm_is_run_twice_and_seeds_are_shared(monkeypatch):
    asked = []

    def run_each(calls, jobs, label):
        asked.extend(calls)
        return [{**arm, "points": []} for _, arm in calls]

    monkeypatch.setattr(arms, "run_each", run_each)
    monkeypatch.setattr(side_effects, "_prepare", lambda *_, **__: None)
    rows = side_effects.run_all(
        seeds=[0, 1, 2],
        few_seeds=[0],
        at=[1, 2],
        control_at=[2],
        dpo_at=[1],
        n=2,
        temperatures=[1.0],
        betas=[0.1, 0.2],
        ensembles=["worst"],
        weak_pairs=[8],
        ns=[8, 32],
        trunks=["300k", "1m"],
        pool=4,
        n_pairs=32,
        **MADE,
    )
    assert {name: len(some) for name, some in rows.items()} == {
        "ensemble": 1, "ppo": 3, "control": 3, "dpo": 1, "weak": 1, "beta": 2,
        "pool": 12, "reference": 3,
    }  # fmt: skip
    assert len(asked) == 26
    assert all(row["reward"] == "gold" and row["at"] == [2] for row in rows["control"])
    assert {row["seed"] for row in rows["ppo"]} == {0, 1, 2}
    assert all("kl_coef" not in row for row in rows["ppo"]), "no price of KL"
    assert rows["ensemble"][0]["members"] == [0, 1, 2]
