"""Runs and their looks: the measure against its parts, runs that stand still against
the start, and what a run is given against what was asked for."""

import time

import numpy as np
import pytest

from alignlab.errors import AlignlabError
from alignlab.models.reward import score
from alignlab.study import artifacts, optimising
from alignlab.study.chains import Chain
from alignlab.study.measure import evaluate_policy
from alignlab.study.optimising import (
    DPO_RECIPE,
    EPISODES,
    LOGGED,
    RECIPE,
    Looks,
    dpo_arm,
    gold_of,
    history_of,
    proxy_of,
    requests,
    rl_arm,
    run_dpo,
    run_rl,
    start_arm,
    trainer_for,
)
from alignlab.training.dpo import train_dpo
from alignlab.world import gold, tasks

pytestmark = [pytest.mark.network, pytest.mark.usefixtures("own_artifacts")]
CHAIN = dict(seed=1, reference_seed=0, base="300k", steps=3, n_pairs=64, k=2)
SHORT = dict(max_completion_length=12)  # PPO's; looks take whole replies
STILL = dict(learning_rate=0.0)
NEARLY_STILL = dict(learning_rate=1e-9)  # train_dpo refuses 0
TIMELESS = ("golds", "proxies", "kl", "entropy", "length", "ended")


def without_time(point):
    return {name: point[name] for name in TIMELESS}


def test_requests_name_their_subject():
    for split in ("train", "test"):
        rows = requests(split)
        assert [row["subject"] for row in rows] == list(artifacts.subjects(split))
        for row in rows:
            (message,) = row["prompt"]
            assert message == {"role": "user", "content": gold.request(row["subject"])}


def test_rewards_are_golds_and_proxies():
    names = list(artifacts.subjects("train"))[:3]
    replies = ["Hello! Paris is nice.", "", "Iron has number 26."]
    world = tasks.default_world()
    assert gold_of(replies, names) == [
        gold.gold_reward(world, *pair).total for pair in zip(names, replies)
    ]
    model, tokenizer = Chain(**CHAIN).reward_model()
    expected = score(model, tokenizer, [gold.request(n) for n in names], replies)
    assert proxy_of(model, tokenizer, names, replies) == expected.tolist()


def test_a_trainer_optimises_one_reward_and_records_gold():
    link = Chain(**CHAIN)
    on_proxy = trainer_for(*link.policy(), link.reward_model()[0], updates=3)
    assert on_proxy.args.reward_weights == [1.0, 0.0]
    assert on_proxy.reward_names[1] == "gold"
    on_gold = trainer_for(*link.policy(), gold_of, kl_coef=0.7)
    assert (on_gold.args.reward_weights, on_gold.reward_names) == ([1.0], ["gold"])
    assert on_proxy.args.max_steps == 3 and on_gold.args.max_steps == 1
    assert on_proxy.args.batch_size == on_gold.args.batch_size == EPISODES
    assert on_proxy.args.kl_coef == RECIPE["kl_coef"]
    assert on_gold.args.kl_coef == 0.7


def test_a_look_is_the_measure_of_the_policy():
    link = Chain(**CHAIN)
    policy, tokenizer = link.policy()
    proxy, _ = link.reward_model()
    (point,) = start_arm(chain=CHAIN, n=2, texts=True)["points"]
    seen = evaluate_policy(policy, tokenizer, policy, seed=1, n=2, proxy=proxy)
    assert point["step"] == 0 and point["texts"] == seen["texts"]
    assert point["each_gold"] == seen["golds"]
    np.testing.assert_allclose(point["each_proxy"], seen["proxies"], rtol=1e-5)
    np.testing.assert_allclose(point["golds"], np.mean(seen["golds"], axis=1))
    assert point["gold"] == pytest.approx(np.mean(seen["golds"]))
    parts = sum(point[part] for part in gold.PARTS)
    assert point["gold"] == pytest.approx(parts)
    assert point["kl"] == pytest.approx(0, abs=1e-6)
    assert len(point["golds"]) == len(artifacts.subjects("test"))


def test_only_due_updates_are_looked_at_and_looking_takes_no_time(monkeypatch):
    def slow(*args, **options):
        while time.process_time() < start + 1.0:
            pass
        cell = [[0.0]]
        seen = dict.fromkeys(("golds", "proxies", *gold.PARTS), cell)
        return seen | dict.fromkeys(("kl", "entropy", "length", "ended"), 0.0)

    looks = Looks(Chain(**CHAIN), [2, 3], 1)
    monkeypatch.setattr(optimising, "evaluate_policy", slow)
    start = time.process_time()
    for step in range(4):
        looks.look(step, looks.reference)
    assert [point["step"] for point in looks.points] == [2, 3]
    assert "texts" not in looks.points[0]
    assert time.process_time() - start >= 1.0
    assert looks.points[1]["seconds"] < 0.5 + looks.points[0]["seconds"]
    assert looks.seconds() < looks.points[0]["seconds"] + 0.5


@pytest.mark.parametrize("reward", ["proxy", "gold"])
def test_a_policy_that_does_not_move_stays_at_the_start(reward):
    run = rl_arm(chain=CHAIN, at=[1, 2], n=1, reward=reward, **STILL, **SHORT)
    (start,) = start_arm(chain=CHAIN, n=1)["points"]
    assert run["stopped"] is None
    assert [point["step"] for point in run["points"]] == [1, 2]
    for point in run["points"]:
        for name, value in without_time(start).items():
            np.testing.assert_allclose(point[name], value, rtol=1e-4, atol=1e-5)
    assert 0 < run["points"][0]["seconds"] < run["points"][1]["seconds"]
    assert len(run["history"]["score"]) == len(run["history"]["reward/gold"]) == 2
    if reward == "gold":
        assert run["history"]["score"] == run["history"]["reward/gold"]
    else:
        assert run["history"]["score"] != run["history"]["reward/gold"]


def test_a_run_repeats_and_its_seed_draws_it():
    options = dict(chain=CHAIN, at=[2], n=1, learning_rate=1e-3, **SHORT)
    first, again = rl_arm(**options), rl_arm(**options)
    other = rl_arm(**options, run_seed=9)
    assert first["history"]["score"] == again["history"]["score"]
    assert without_time(first["points"][0]) == without_time(again["points"][0])
    assert first["history"]["score"] != other["history"]["score"]
    assert first["points"][0]["kl"] > 1e-3


@pytest.mark.parametrize("advantages", ["rloo", "grpo"])
def test_groups_have_no_value_function(advantages):
    settings = dict(advantages=advantages, completions_per_prompt=4, **SHORT)
    run = rl_arm(chain=CHAIN, at=[1], n=1, **settings)
    assert run["history"]["value"] == run["history"]["explained_variance"] == []
    assert len(run["history"]["policy_loss"]) == 1
    assert set(run["history"]) == set(LOGGED)


@pytest.mark.filterwarnings("ignore:PPO stops before update")
def test_a_run_beyond_its_limit_keeps_the_looks_before():
    settings = dict(learning_rate=0.01, kl_coef=0.0, kl_limit=1e-3, **SHORT)
    run = rl_arm(chain=CHAIN, at=[1, 5], n=1, **settings)
    assert run["stopped"] == "the policy went beyond kl_limit"
    assert [point["step"] for point in run["points"]] == [1]


def test_a_run_that_breaks_down_says_why():
    link = Chain(**CHAIN)
    calls = []

    def breaks(completions):
        calls.append(1)
        return [float("nan" if len(calls) > 1 else 0)] * len(completions)

    policy, tokenizer = link.policy()
    run = run_rl(policy, tokenizer, breaks, Looks(link, [1, 3], 1), **SHORT)
    assert "'breaks' returned nan" in run["stopped"]
    assert [point["step"] for point in run["points"]] == [1]
    assert len(run["history"]["score"]) == 1


def test_history_has_a_number_for_each_update():
    link = Chain(**CHAIN)
    trainer = trainer_for(*link.policy(), link.reward_model()[0], updates=2, **SHORT)
    trainer.train()
    history = history_of(trainer)
    assert {name: len(column) for name, column in history.items()} == dict.fromkeys(
        LOGGED, 2
    )
    assert history["kl_exact"][0] == 0 < history["kl_exact"][1]


# --- DPO ------------------------------------------------------------------------------


def lessons(monkeypatch, **options):
    """What ``train_dpo`` is given, and the arm's result."""
    given = {}

    def watched(policy, tokenizer, pairs, **settings):
        given.update(settings, pairs=pairs)
        return train_dpo(policy, tokenizer, pairs, **settings)

    monkeypatch.setattr(optimising, "train_dpo", watched)
    return given, dpo_arm(chain=CHAIN, n=1, **options)


def test_dpo_goes_over_the_chains_comparisons_once(monkeypatch):
    given, run = lessons(monkeypatch, at=[0.5, 1.0])
    pairs = Chain(**CHAIN).comparisons()

    def in_order(rows):
        return sorted(map(str, rows))

    assert in_order(given["pairs"]) == in_order(pairs) and given["pairs"] != pairs
    assert given["steps"] == 2 and given["seed"] == 1
    assert {name: given[name] for name in DPO_RECIPE} == DPO_RECIPE
    assert [point["step"] for point in run["points"]] == [1, 2]
    assert {len(column) for column in run["history"].values()} == {2}
    assert run["stopped"] is None and run["points"][1]["kl"] > 0


def test_fewer_pairs_more_passes_and_other_labels(monkeypatch):
    every, _ = lessons(monkeypatch, at=[1.0], **NEARLY_STILL)
    options = dict(n_used=32, passes=3, flips=1.0, batch_size=16, beta=0.7)
    given, run = lessons(monkeypatch, at=[0.1, 1.0], **options, **NEARLY_STILL)
    assert given["steps"] == 6 and given["beta"] == 0.7
    assert [point["step"] for point in run["points"]] == [1, 6]

    def sides(rows):
        return [{row["chosen"], row["rejected"]} for row in rows]

    assert sides(given["pairs"]) == sides(every["pairs"])[:32]
    assert given["pairs"] != every["pairs"][:32]


def test_dpo_that_does_not_move_stays_at_the_start():
    run = dpo_arm(chain=CHAIN, at=[1.0], n=1, n_used=32, **NEARLY_STILL)
    (start,) = start_arm(chain=CHAIN, n=1)["points"]
    for name, value in without_time(start).items():
        actual = run["points"][0][name]
        np.testing.assert_allclose(actual, value, rtol=1e-4, atol=1e-5)


def test_dpo_that_breaks_down_says_why(monkeypatch):
    def breaks(*args, on_log, **settings):
        on_log({"step": 1, "loss": 0.7})
        raise AlignlabError("The loss is nan.", "Lower it.")

    monkeypatch.setattr(optimising, "train_dpo", breaks)
    link = Chain(**CHAIN)
    run = run_dpo(*link.policy(), [], Looks(link, [2], 1), steps=2)
    assert "The loss is nan" in run["stopped"]
    assert run["points"] == [] and run["history"] == {"loss": [0.7], "step": [1]}
