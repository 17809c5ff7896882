"""What notebook 00 trains: three models on equal terms, and a reader of pairs."""

from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest

from alignlab.chapters.base_model import runs
from alignlab.world.facts import Fact
from alignlab.world.tasks import Example


def test_every_model_is_asked_the_same_questions(monkeypatch):
    settings = SimpleNamespace(
        n_examples=64, steps=3, reader_steps=5, n_test=2, shots=4, jobs=1
    )
    seeds, calls = [0, 3], []

    def run_each(arms, **options):
        calls.extend(arms)
        ways = ("bare", "cloze", "few-shot", "chat")
        return [
            {w: {"right": (run, arm["seed"], w), "formatted": w} for w in ways}
            for run, arm in arms
        ]

    monkeypatch.setattr(runs, "run_each", run_each)
    asked = runs.ask_all(seeds, "300k", settings)
    expected = {
        "base, bare": (runs.base_arm, (0, 0), "bare"),
        "base, cloze": (runs.base_arm, (0, 0), "cloze"),
        "base, few-shot": (runs.base_arm, (0, 3), "few-shot"),
        "reader, bare": (runs.reader_arm, (0, 3), "bare"),
        "reader, cloze": (runs.reader_arm, (0, 3), "cloze"),
        "reader, few-shot": (runs.reader_arm, (0, 3), "few-shot"),
        "tuned": (runs.tuned_arm, (0, 3), "chat"),
    }
    assert list(asked) == list(expected)
    for name, (run, own_seeds, way) in expected.items():
        assert asked[name]["right"] == [(run, seed, way) for seed in own_seeds], name
        assert asked[name]["formatted"] == [way, way]
    arms = [arm for _, arm in calls]
    assert {(arm["n_test"], arm["base"]) for arm in arms} == {(2, "300k")}
    assert {arm["shots"] for arm in arms if "shots" in arm} == {4}
    steps = {run: arm.get("steps") for run, arm in calls}
    assert steps == {runs.reader_arm: 5, runs.tuned_arm: 3, runs.base_arm: None}


@pytest.fixture
def small_world(monkeypatch):
    """Ten known facts whose questions are trained on, in a new order for every seed."""

    def world_questions(world, subjects, seed):
        assert subjects == {"trained"}
        order = np.random.default_rng(seed).permutation(10)
        fact = Fact("s", "capital", ("a",), 200)
        return [Example("capital", f"q{i}?", f"a{i}.", ("a",), fact) for i in order]

    monkeypatch.setattr(runs.tasks, "default_world", lambda: None)
    monkeypatch.setattr(runs.tasks, "trained_subjects", lambda: {"trained"})
    monkeypatch.setattr(runs.tasks, "world_questions", world_questions)


def test_pairs_stand_as_few_shot_prompts_have_them(small_world):
    documents = list(runs.pair_documents(0, 50))
    pairs = [text.split("Question: ")[1:] for text in documents]
    assert {len(own) for own in pairs} == {2, 3, 4, 5, 6}
    shown = [pair.strip() for own in pairs for pair in own]
    assert all(pair == f"q{pair[1]}? Answer: a{pair[1]}." for pair in shown), (
        "each question with its own answer"
    )
    counts = [sum(p.startswith(f"q{i}?") for p in shown) for i in range(10)]
    assert max(counts) - min(counts) <= 1, "every fact once before any again"
    assert documents == list(runs.pair_documents(0, 50))
    assert documents != list(runs.pair_documents(1, 50))


def test_a_quarter_of_a_readers_rows_are_pairs():
    text, pairs = np.arange(60).reshape(30, 2), 100 + np.arange(10).reshape(5, 2)
    batches = [b["input_ids"] for b in islice(runs.reading_batches(text, pairs, 0), 5)]
    assert {tuple(batch.shape) for batch in batches} == {(runs.ROWS, 2)}
    rows = np.concatenate([batch.numpy() for batch in batches])
    of_pairs = rows[rows[:, 0] >= 100]
    assert len(of_pairs) == 5 * runs.PAIR_ROWS
    assert len(of_pairs) / len(rows) == 0.25
    every, counts = np.unique(of_pairs[:, 0], return_counts=True)
    assert every.tolist() == pairs[:, 0].tolist() and set(counts) == {4}
    read = rows[rows[:, 0] < 100][:30]
    assert len(np.unique(read[:, 0])) == 30, "all of the text before any again"
    again = next(runs.reading_batches(text, pairs, 0))["input_ids"]
    assert (again == batches[0]).all()


@pytest.mark.network
def test_plain_documents_are_of_every_kind_in_proportion():
    documents = runs.plain_documents(0)
    world = runs.tasks.default_world()
    stated = sum(fact.exposure for fact in world.facts)
    assert 0.02 < len(documents) / stated < 0.06
    assert not any("Question:" in text for text in documents)
    assert documents == runs.plain_documents(0)
