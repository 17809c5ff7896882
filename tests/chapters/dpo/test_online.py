"""Online DPO: whose replies the pairs are, and who orders them."""

import copy
import json

import matplotlib.pyplot as plt
import pytest

from alignlab.chapters.dpo import online
from alignlab.models.reward import reward_model_from
from alignlab.study import artifacts
from alignlab.study.optimising import dpo_arm, rl_arm

SUBJECTS = {"train": ("France", "gold", "Norway", "iron"), "test": ("Peru", "argon")}


# --- Pairs --------------------------------------------------------------------------


def test_best_and_worst_of_each_request_make_its_pair():
    texts = [*"abcd", *"efgh", *"ijkl"]
    rewards = [1, 4, 2, 3, 5, 5, 5, 5, 0, -2, 7, 7]
    prompts = ["p"] * 4 + ["q"] * 4 + ["r"] * 4
    pairs, gaps = online.best_and_worst(prompts, texts, rewards)
    assert pairs == [
        dict(prompt="p", chosen="b", rejected="a"),
        dict(prompt="r", chosen="k", rejected="j"),  # of q's replies none is better
    ]
    assert gaps == [3.0, 9.0]


def vowels(model, tokenizer, subjects, texts):
    """A reward that a random policy can learn: the share of its letters a and e."""
    return [sum(text.count(c) for c in "ae") / (1 + len(text)) for text in texts]


@pytest.fixture
def chain(monkeypatch, tiny_model, tiny_tokenizer):
    """A chain of a random policy, and a reward that it can learn in four rounds."""

    class TinyChain:
        base = "1m"

        def __init__(self, *, seed):
            self.seed = seed

        def policy(self):
            return copy.deepcopy(tiny_model), tiny_tokenizer

        def reward_model(self):
            return reward_model_from(tiny_model, 0), tiny_tokenizer

    monkeypatch.setattr(online, "Chain", TinyChain)
    monkeypatch.setattr(online, "proxy_of", vowels)
    monkeypatch.setattr(artifacts, "subjects", SUBJECTS.get)
    monkeypatch.setattr(artifacts, "MAX_NEW_TOKENS", 8)
    monkeypatch.setattr(online, "REPLIES", 16)
    monkeypatch.setattr(online, "RATE", 1e-2)
    return dict(seed=2)


@pytest.mark.network
def test_pairs_are_the_writers_own_replies(chain, monkeypatch):
    """The policy's change from round to round with what it learns, the reference's
    never do; and the policy learns what the reward asks for."""
    written = []
    fresh_pairs = online.fresh_pairs

    def watched(writer, *args, **options):
        written.append(sum(p.double().sum().item() for p in writer.parameters()))
        return fresh_pairs(writer, *args, **options)

    monkeypatch.setattr(online, "fresh_pairs", watched)
    row = online.online_arm(chain=chain, rounds=4, n=2)
    json.dumps(row)
    assert row["stopped"] is None and len(set(written)) == 4
    assert [p["step"] / online.STEPS for p in row["points"]] == [1, 2, 4]
    assert row["points"][-1]["kl"] > row["points"][0]["kl"] > 0
    rewards = row["history"]["reward"]
    written.clear()
    fixed = online.online_arm(chain=chain, rounds=4, n=2, writer="reference")
    assert len(set(written)) == 1
    assert fixed["history"]["reward"][0] == rewards[0], "the same first round"
    assert rewards[-1] > max(fixed["history"]["reward"]) + 0.01
    assert fixed["points"][-1]["kl"] > 0
    assert all(0 <= share <= 1 for share in row["history"]["accuracy"])


@pytest.mark.network
def test_an_exploded_run_is_told(chain, monkeypatch):
    monkeypatch.setattr(online, "RATE", 1e30)
    row = online.online_arm(chain=chain, rounds=1, n=1)
    assert "loss" in row["stopped"] and row["points"] == []


def test_no_other_writer():
    with pytest.raises(ValueError, match="'annotator'"):
        online.online_arm(chain={}, rounds=1, n=1, writer="annotator")


def test_writers_differ_in_nothing_else_and_the_others_are_as_they_are():
    sizes = dict(rounds=8, updates=4, n_used=96, n=3)
    groups = online.calls(chains=[{"seed": 0}, {"seed": 1}], **sizes)
    json.dumps([arm for group in groups.values() for _, arm in group])
    for calls in groups.values():
        assert [arm["chain"]["seed"] for _, arm in calls] == [0, 1]
    (run, own), (_, fixed) = groups["online"][0], groups["offline, reward model"][0]
    assert fixed == own | {"writer": "reference"} and run is online.online_arm
    run, people = groups["offline, people"][0]
    assert run is dpo_arm and people["n_used"] == 96
    run, ppo = groups["PPO"][0]
    assert run is rl_arm and ppo["at"] == [1, 2, 4]


# --- Numbers and the figure ---------------------------------------------------------


def a_row(seed, points, **history):
    points = [dict(kl=kl, gold=gold) for kl, gold in points]
    return dict(chain=dict(seed=seed), points=points, history=history)


def test_gain_at_a_distance_lies_between_two_looks():
    row = a_row(0, [(0.5, 1.5), (1.5, 2.5), (4.0, 0.0)])
    assert online.gain_at(row, 1.0, 0.25) == pytest.approx(0.25)
    assert online.gain_at(row, 1.0, 1.0) == pytest.approx(1.0)
    assert online.gain_at(row, 1.0, 9.0) == pytest.approx(-1.0), "its last look's"
    rows = [row, a_row(7, [(2.0, 3.0)])]
    assert online.gains_at(rows, {0: 1.0, 7: 2.0}, 1.0) == {0: 1.0, 7: 0.5}


def test_the_figure_shows_every_run_and_its_mean():
    rows = [
        a_row(0, [(1.0, 2.0), (2.0, 4.0)], reward=[0.0, 1.0]),
        a_row(1, [(3.0, 2.0), (4.0, 6.0)], reward=[0.0, 3.0]),
    ]
    groups = {"online": rows, "PPO": [r | {"history": {}} for r in rows]}
    left, right = online.paths(groups, {0: 1.0, 1: 1.0}).axes
    drawn = [line.get_xydata().tolist() for line in left.lines]
    assert [[0, 0], [1, 1], [2, 3]] in drawn and [[0, 0], [2, 1], [3, 4]] in drawn
    assert [text.get_text() for text in left.get_legend().texts] == ["online", "PPO"]
    assert [text.get_text() for text in right.get_legend().texts] == ["online"]
    assert right.lines[-1].get_ydata().tolist() == [0.0, 2.0]
    plt.close("all")
