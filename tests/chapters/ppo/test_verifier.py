"""A verifier as reward: what is asked, what is paid for, how answers are counted."""

import copy
import itertools
import json

import matplotlib.pyplot as plt
import numpy as np
import pytest

from alignlab.chapters.ppo import verifier
from alignlab.models.sampler import Completion
from alignlab.world.tasks import Example

ASKED = [
    Example("count", f"How many words has {text}?", f"{answer}.", (answer,))
    for text, answer in (("a", "one"), ("b b", "two"), ("c c c", "three"))
]


# --- Questions and rewards ------------------------------------------------------------


@pytest.mark.network
@pytest.mark.parametrize("domain", ["lists", "facts"])
def test_no_question_is_both_trained_on_and_held_out(domain):
    train, test = (verifier.questions(domain, s, 40, seed=3) for s in verifier.SPLITS)
    assert len(train) == len(test) == 40
    assert len({e.prompt for e in train}) == 40
    assert not {e.prompt for e in train} & {e.prompt for e in test}
    again = verifier.questions(domain, "train", 40, seed=3)
    other = verifier.questions(domain, "train", 40, seed=4)
    assert train == again and train != other


@pytest.mark.network
def test_facts_are_split_by_subject_and_half_of_them_are_rare():
    train, test = (verifier.questions("facts", s, 40, seed=0) for s in verifier.SPLITS)
    assert not {e.fact.subject for e in train} & {e.fact.subject for e in test}
    for asked in (train, test):
        assert sum(e.fact.known for e in asked) == 20


@pytest.mark.network
def test_every_kind_of_list_is_asked_for_alike():
    asked = verifier.questions("lists", "test", 40, seed=0)
    families = [e.family for e in asked]
    assert {families.count(name) for name in verifier.FAMILIES["lists"]} == {10}


def test_unknown_domains_and_rewards_are_refused():
    with pytest.raises(ValueError, match="poems"):
        verifier.questions("poems", "train", 4, seed=0)
    settings = dict(domain="lists", at=[1], n_questions=4, n=2, samples=2)
    with pytest.raises(ValueError, match="gold"):
        verifier.verifier_arm(chain={}, reward="gold", **settings)


@pytest.mark.network
def test_the_verifier_pays_for_right_answers_to_the_question_asked():
    reward = verifier.verifier_of(ASKED)
    texts = ["two.", "Two", "two words.", "three.", ""]
    assert reward(texts, number=[1, 1, 1, 1, 1]) == [1, 1, 0, 0, 0]
    assert reward(["three.", "three."], number=[2, 0]) == [1, 0]


def test_a_tossed_coin_reads_nothing_and_repeats_by_seed():
    texts = ["right"] * 2000 + ["wrong"] * 2000
    rewards = verifier.tossed_coin(1)(texts)
    assert set(rewards) == {0.0, 1.0}
    assert abs(np.mean(rewards[:2000]) - np.mean(rewards[2000:])) < 0.06
    assert rewards == verifier.tossed_coin(1)(["other"] * 4000)
    toss = verifier.tossed_coin(1)
    assert toss(texts) != toss(texts)


# --- Counting -------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_pass_at_k_is_the_mean_over_all_choices_of_k(k):
    answers = [[1, 0, 0, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 0]]
    exact = np.mean(
        [np.mean([max(c) for c in itertools.combinations(a, k)]) for a in answers]
    )
    right = [sum(a) for a in answers]
    assert verifier.pass_at_k(right, 5, k) == pytest.approx(exact)


@pytest.mark.parametrize("k", [0, 6])
def test_pass_at_k_needs_k_answers(k):
    with pytest.raises(ValueError, match="from 1 to samples"):
        verifier.pass_at_k([1], 5, k)


def row_of(*looks, stopped=None):
    """A run of four answers to each of two questions: right ones, greedy ones."""
    points = [
        {"step": i, **{s: dict(right=r, greedy=g) for s in verifier.SPLITS}}
        for i, (r, g) in enumerate(looks)
    ]
    return dict(points=points, samples=4, stopped=stopped)


def test_gains_are_counted_from_the_first_look_and_from_its_greedy_answers():
    row = row_of(([1, 1], [1, 0]), ([4, 4], [0, 0]), ([4, 2], [1, 1]))
    assert verifier.gains([row], "test", 1) == [0.75 - 0.25]
    assert verifier.gains([row], "test", 4) == [0.0]
    assert verifier.gains([row], "test", "greedy") == [0.5]
    assert verifier.over_cooling([row], "train") == [0.75 - 0.5]


def test_looks_count_the_answers_of_each_question(monkeypatch):
    said = iter(["one.", "two.", "nine."] + ["one."] * 2 + ["two.", "x"] + ["x"] * 2)

    asked = [e.prompt for e in ASKED]

    def complete(policy, tokenizer, prompts, **options):
        each = 2 if "temperature" in options else 1
        assert list(prompts) == [p for p in asked for _ in range(each)]
        return [Completion(next(said), [1], True) for _ in prompts]

    def kl_and_entropy(policy, reference, tokenizer, prompts, replies):
        assert [r.text for r in replies] == ["one.", "two.", "x"]
        assert list(prompts) == asked
        return 0.5, 0.25

    monkeypatch.setattr(verifier, "complete", complete)
    monkeypatch.setattr(verifier, "kl_and_entropy", kl_and_entropy)
    monkeypatch.setattr(verifier, "cap", lambda tokenizer, tokens: tokens)
    point = verifier.look(None, None, None, {"test": ASKED}, samples=2, seed=0)
    assert point["test"] == dict(
        right=[2, 1, 0],
        greedy=[1, 1, 0],
        kl=0.5,
        entropy=0.25,
        texts=["one.", "two.", "x"],
    )


# --- The arm, with a random policy ----------------------------------------------------


@pytest.fixture
def tiny_chain(monkeypatch, tiny_model, tiny_tokenizer):
    class TinyChain:
        base = "1m"

        def __init__(self, *, seed):
            self.seed = seed

        def policy(self):
            return copy.deepcopy(tiny_model), tiny_tokenizer

    def questions(domain, split, n, seed):
        return [ASKED[i % 3] for i in range(n)]

    monkeypatch.setattr(verifier, "Chain", TinyChain)
    monkeypatch.setattr(verifier, "questions", questions)
    monkeypatch.setattr(verifier, "MAX_NEW_TOKENS", 4)
    monkeypatch.setattr(verifier, "cap", lambda tokenizer, tokens: tokens)
    small = dict(per_device_train_batch_size=32, max_completion_length=4)
    monkeypatch.setattr(verifier, "VERIFIED", {**verifier.VERIFIED, **small})
    return dict(seed=2)


SETTINGS = dict(at=[2, 4], n_questions=8, n=3, samples=8)


@pytest.mark.network
def test_a_run_learns_what_the_verifier_pays_for(tiny_chain, monkeypatch):
    monkeypatch.setattr(
        verifier.answers, "is_correct", lambda example, text: "a" in text
    )
    settings = dict(SETTINGS, at=[12], learning_rate=3e-3)
    arm = dict(chain=tiny_chain, domain="lists", **settings)
    row = verifier.verifier_arm(reward="verifier", **arm)
    json.dumps(row)
    assert row["stopped"] is None and [p["step"] for p in row["points"]] == [0, 12]
    assert row["points"][0]["test"]["kl"] == 0 < row["points"][1]["test"]["kl"]
    row = {**arm, **row}
    learnt = verifier.gains([row], "test", 1)[0]
    assert learnt > 0.2
    tossed = {**arm, **verifier.verifier_arm(reward="random", **arm)}
    assert verifier.gains([tossed], "test", 1)[0] < learnt - 0.2


@pytest.mark.network
def test_the_calls_are_arms_and_their_rows_can_be_drawn(tiny_chain):
    groups = verifier.calls(chains=[tiny_chain], **SETTINGS)
    assert list(groups) == list(verifier.ARMS)
    (run, arm), *_ = groups["facts", "verifier"]
    assert run is verifier.verifier_arm and json.loads(json.dumps(arm)) == arm
    rows = {
        name: [{**arm, **run(**arm)} for run, arm in group]
        for name, group in groups.items()
    }
    figures = [
        verifier.draw_accuracy(rows, "title"),
        verifier.draw_pass_at_k(rows["lists", "verifier"], "title"),
    ]
    assert [len(figure.axes) for figure in figures] == [3, 2]
    lines = figures[0].axes[0].get_lines()
    assert list(lines[0].get_xdata()) == [0, 2, 4]
    for figure in figures:
        plt.close(figure)


def test_the_table_has_answers_that_changed_with_their_marks(monkeypatch):
    monkeypatch.setattr(verifier, "questions", lambda *args: ASKED)
    texts = [["one.", "one.", "one."], ["one.", "two.", "six."]]
    points = [{"test": dict(texts=column)} for column in texts]
    row = dict(points=points, domain="lists", chain=dict(seed=0), n=3, n_questions=3)
    table = verifier.answer_table(row, "test", count=5)
    assert [(line["before"], line["after"]) for line in table] == [
        ("one. (wrong)", "two. (right)"),
        ("one. (wrong)", "six. (wrong)"),
    ]
    assert len(verifier.answer_table(row, "test", count=1)) == 1


def test_stopped_runs_are_left_out_unless_all_are():
    whole, stopped = row_of(([1], [1])), row_of(([1], [1]), stopped="a loss exploded")
    assert verifier.complete_runs([whole, stopped]) == [whole]
    assert verifier.complete_runs([stopped]) == [stopped]
