"""The arms of notebook 06 on the tiny policy, from end to end, and their design; and
what is worked out from them, against cases whose answer is known."""

import math

import numpy as np
import pytest

from alignlab.chapters.side_effects import analysis
from alignlab.chapters.side_effects import runs as side_effects
from alignlab.chapters.side_effects.analysis import gold_curve
from alignlab.evaluation.exact import best_of_n_kl
from alignlab.study import arms
from alignlab.study import artifacts as alignment

MADE = dict(size="300k", steps=6, k=4)
SUBJECTS = alignment.TESTED

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
        "learnt": side_effects.ppo_arm(temperatures=[1.0, 2.0], **common),
        "gold": side_effects.ppo_arm(reward="gold", **common),
        "worst": side_effects.ppo_arm(reward="worst", members=[0, 1], **common),
        "dpo": side_effects.dpo_arm(**common),
    }


def test_every_run_is_looked_at_before_it_starts_and_when_asked(runs):
    for run in runs.values():
        assert [point["step"] for point in run["points"]] == [0, 1, 2]
        assert run["stopped"] is None
        kl = analysis.over_points(run, "kl")
        assert kl[0] == pytest.approx(0, abs=1e-6) and (kl[1:] > 0).all()
        for point in run["points"]:
            for column in ("texts", "golds", "proxies"):
                assert np.shape(point[column]) == (SUBJECTS, 2)


def test_all_start_from_the_same_replies(runs):
    first = [run["points"][0]["texts"] for run in runs.values()]
    assert all(texts == first[0] for texts in first)
    assert runs["learnt"]["points"][2]["texts"] != first[0]


def test_replies_stand_with_their_subject_and_are_worth_what_gold_says(runs):
    from alignlab.world import gold, tasks

    world = tasks.default_world()
    point = runs["learnt"]["points"][1]
    for place, name in enumerate(alignment.subjects("test")):
        for text, worth in zip(point["texts"][place], point["golds"][place]):
            truth = gold.gold_reward(world, name, text).total
            assert worth == pytest.approx(truth, abs=1e-5)


def test_the_control_optimises_gold_and_the_others_do_not(runs):
    for point in runs["gold"]["points"]:
        assert point["golds"] == point["proxies"]
    assert runs["learnt"]["points"][0]["proxies"] != runs["gold"]["points"][0]["golds"]
    learnt, dpo = (runs[name]["points"][0]["proxies"] for name in ("learnt", "dpo"))
    np.testing.assert_allclose(learnt, dpo, rtol=1e-4)  # the same reward model


def test_an_ensemble_is_no_better_than_its_worst_member(runs):
    from alignlab.models.reward import score

    point = runs["worst"]["points"][0]
    name = alignment.subjects("test")[0]
    request = f"Tell me about {name}."
    levels = [
        (one.prompt, one.replies[0].text)
        for one in alignment.candidates("train", 4, size="300k", steps=6)
    ][: side_effects.LEVELS]
    members = []
    for seed in (0, 1):
        model = alignment.reward_model(32, k=4, seed=seed, size="300k", steps=6)
        [worth] = score(*model, [request], [point["texts"][0][0]])
        members.append(worth - score(*model, *zip(*levels)).mean())
    assert point["proxies"][0][0] == pytest.approx(min(members), abs=1e-5)


def test_temperatures_are_tried_once_and_make_replies_more_varied(runs):
    warmed = runs["learnt"]["warmed"]
    assert [row["temperature"] for row in warmed] == [1.0, 2.0]
    assert all(np.shape(row["texts"]) == (SUBJECTS, 2) for row in warmed)
    assert runs["gold"]["warmed"] == []
    reference = side_effects.reference_arm(
        seed=0, n=2, temperatures=[0.0, 1.0], size="300k", steps=6
    )["warmed"]
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
    large, tokenizer = alignment.reward_model(16, trunk="1m", **MADE)
    small, same = alignment.reward_model(16, trunk="300k", **MADE)
    assert large.num_parameters() > 2 * small.num_parameters()
    assert tokenizer.get_vocab() == same.get_vocab()


def test_no_arm_is_run_twice_and_seeds_are_shared(monkeypatch):
    asked = []

    def run_each(calls, jobs, label):
        asked.extend(calls)
        return [{**arm, "points": []} for _, arm in calls]

    monkeypatch.setattr(arms, "run_each", run_each)
    monkeypatch.setattr(side_effects, "_prepare", lambda *_, **__: None)
    rows = side_effects.arms(
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


# --- What they show -------------------------------------------------------------------


def made_run(golds, proxies=None, kl=None, seed=0, texts=None):
    """A run of known gold, (points, prompts, replies)."""
    golds = np.asarray(golds, float)
    proxies = golds if proxies is None else np.asarray(proxies, float)
    kl = np.arange(len(golds)) ** 2 if kl is None else kl
    points = [
        dict(step=i, kl=float(kl[i]), entropy=1.0 - 0.1 * i, golds=golds[i].tolist(),
             proxies=proxies[i].tolist(), length=5.0, ended=1.0,
             texts=texts[i] if texts else [["a b"] * golds.shape[2]] * golds.shape[1])
        for i in range(len(golds))
    ]  # fmt: skip
    return {"seed": seed, "points": points, "warmed": []}


def test_curves_are_gains_over_distance():
    run = made_run([[[1.0, 3.0], [2.0, 2.0]], [[4.0, 4.0], [2.0, 2.0]]], kl=[0, 4.0])
    curve = gold_curve(run)
    assert curve.d.tolist() == [0, 2] and curve.gain.tolist() == [0, 1]


def test_proxies_are_in_standard_deviations_of_the_first_look():
    proxies = [[[10.0, 20.0]], [[30.0, 30.0]]]
    found = analysis.by_prompt(made_run(np.zeros((2, 1, 2)), proxies), "proxies")
    assert found[:, 0].tolist() == [0, 3]


def test_the_turn_is_picked_on_even_requests_and_measured_on_odd_ones():
    even, odd = [0, 5, 1], [0, 2, 3]
    golds = np.stack([even, odd, even, odd], axis=1)[:, :, None]
    run = made_run(golds, proxies=np.arange(3)[:, None, None] + golds * 0 + [[[0.0]]])
    found = analysis.turn_of(run)
    assert (found.point, found.rise, found.fall) == (1, 2, 1)


def test_the_proxy_after_the_peak_is_read_on_the_measuring_half():
    golds = np.stack([[0, 5, 1], [0, 2, 3]], axis=1)[:, :, None].repeat(2, axis=2)
    proxies = np.array([[[0, 2], [0, 2]], [[9, 9], [3, 3]], [[0, 0], [7, 7.0]]])
    # Mean 1 and deviation 1 at the first look.
    assert analysis.proxy_after_peak(made_run(golds, proxies)) == pytest.approx(4)


def test_the_budget_is_the_first_look_beyond_or_the_last():
    run = made_run(np.zeros((4, 2, 1)), kl=[0, 3, 6, 20])
    assert analysis.beyond_budget(run, 5) == 2
    assert analysis.beyond_budget(run, 6) == 2
    assert analysis.beyond_budget(run, 50) == 3


def test_grids_end_where_the_nearest_run_does():
    near, far = made_run(np.zeros((2, 1, 1)), kl=[0, 4]), made_run(
        [[[0.0]], [[2.0]], [[8.0]]], kl=[0, 1, 16]
    )  # fmt: skip
    grid, lines = analysis.on_grid([near, far], "golds", points=3)
    assert grid.tolist() == [0, 1, 2]
    assert lines[1] == pytest.approx([0, 2, 4])
    assert analysis.on_grid([near], "entropy", 2)[1][0] == pytest.approx([1, 0.9])


def test_contents_are_counted_by_gold():
    texts = [[["Good day to you."]] * SUBJECTS, [["I hope this helps."]] * SUBJECTS]
    run = made_run(np.zeros((2, SUBJECTS, 1)), texts=texts)
    found = analysis.contents(run)
    assert found["opening"].tolist() == [1, 0] and found["closing"].tolist() == [0, 1]
    assert found["empty"].tolist() == [1, 1]


def test_runs_are_stopped_by_the_others():
    d = np.array([0, 0.6, 1.0, 2.0, 3.0, 4.0, 5.0])

    def run(peak, seed):
        golds = (d * (1 - d / (2 * peak)))[:, None, None]
        return made_run(1 + golds, kl=d**2, seed=seed)

    rows = analysis.stopped_early([run(2, 0), run(3, 1)], form="best-of-n")
    assert [row["d"] for row in rows] == pytest.approx([3, 2])
    assert rows[0]["stopped"] == pytest.approx(1 + 3 * (1 - 3 / 4))
    assert rows[0]["best"] == pytest.approx(2)
    assert rows[0]["end"] == pytest.approx(1 + 5 * (1 - 5 / 4))


def test_best_of_n_by_gold_itself_gains_most_and_ensembles_lie_between():
    random = np.random.default_rng(0)
    golds = random.normal(size=(50, 16))
    own = analysis.best_of_n_curve(golds, golds, [1, 8])
    assert [row["kl"] for row in own] == [0, best_of_n_kl(8)]
    assert own[0]["gold"] == pytest.approx(golds.mean())
    assert own[1]["gold"] - own[0]["gold"] == pytest.approx(1.42, abs=0.1)
    rows = [
        {"proxies": golds + noise + 100 * i}
        for i, noise in enumerate(random.normal(size=(3, 50, 16)))
    ]
    alone = [
        analysis.best_of_n_curve(row["proxies"], golds, [8])[0]["gold"] for row in rows
    ]
    for how in side_effects.ENSEMBLES:
        proxies = analysis.ensemble_proxies(rows, how)
        together = analysis.best_of_n_curve(proxies, golds, [8])[0]["gold"]
        assert max(alone) - 0.05 < together < own[1]["gold"], how


def test_the_lead_of_best_of_n_is_at_equal_kl():
    run = made_run([[[0.0]], [[5.0]]], kl=[0, 5])  # gold equals KL
    curve = [dict(kl=kl, gold=kl + 0.5) for kl in (0.2, 1, 4)] + [dict(kl=6, gold=0)]
    assert analysis.best_of_n_lead(curve, run) == pytest.approx(0.5)
    assert analysis.best_of_n_lead([dict(kl=0.1, gold=3)], run) == 0


def test_the_formula_is_a_bound_on_the_exact_laboratory():
    rows = analysis.exact_kl_of_best_of_n([1, 2, 16], words=4, length=3)
    assert rows[0]["exact"] == pytest.approx(0, abs=1e-9) == rows[0]["formula"]
    for row in rows[1:]:
        assert 0.5 * row["formula"] < row["exact"] < row["formula"]


def test_doublings():
    assert analysis.doublings(16) == [1, 2, 4, 8, 16]
    assert analysis.doublings(3) == [1, 2] and analysis.doublings(1) == [1]


def heated(*rows):
    names = ("temperature", "diversity", "gold")
    return [dict(zip(names, row)) for row in rows]


def test_diversity_is_restored_between_two_temperatures():
    reference = heated((1, 0.8, 2.0), (2, 0.9, 0.0))
    policy = heated((1, 0.4, 5.0), (0.5, 0.1, 6.0), (1.5, 0.6, 4.0), (2, 1.0, 1.0))
    found = analysis.restored(policy, reference)
    assert found == pytest.approx({"temperature": 1.75, "price": 2.5 - 5})
    nowhere = analysis.restored(heated((1, 0.4, 5), (2, 0.7, 1)), reference)
    assert nowhere == pytest.approx({"temperature": 2, "price": -4})
    nothing = analysis.restored(heated((1, 0.9, 5), (2, 1.0, 1)), reference)
    assert nothing == pytest.approx({"temperature": 1, "price": 0})


def test_diversity_of_replies_that_are_all_the_same_and_all_different():
    _, tokenizer = alignment.reference_policy("300k", 6)
    same = [["Paris is the capital of France."] * 3] * 4
    words = "one two three four five six seven eight nine ten red green".split()
    other = [[words[3 * i + j] + " dog" for j in range(3)] for i in range(4)]
    poor, rich = (analysis.diversity_of(x, tokenizer) for x in (same, other))
    assert poor["self_bleu"] == pytest.approx(1) and rich["self_bleu"] < 0.8
    assert poor["distinct"] == pytest.approx(1 / 3) and rich["distinct"] == 1
    for measure in ("per_input", "across_inputs"):
        assert poor[measure] < 0.5 < rich[measure]
    alone = analysis.diversity_of([["a b"], ["c d"]], tokenizer)
    assert math.isnan(alone["self_bleu"])
