"""The measurements of notebook 00: perplexity by hand, chance, three ways to ask."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from alignlab.chapters.base_model import runs as measured
from alignlab.models.base import base_path
from alignlab.world.facts import RELATIONS, Fact, World

TEXTS = ["The capital of France is Paris.", "Peru", "Is gold a metal? Yes, it is."]


def by_hand(model, tokenizer, texts):
    """Each text alone, unpadded, in double precision."""
    surprise = tokens = 0
    for text in texts:
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            logits = model(ids).logits[0].double()
        for t in range(ids.shape[1] - 1):
            share = math.exp(logits[t, ids[0, t + 1]]) / logits[t].exp().sum().item()
            surprise -= math.log(share)
            tokens += 1
    return math.exp(surprise / tokens)


def test_perplexity_is_of_each_text_alone(tiny_model, tiny_tokenizer):
    expected = by_hand(tiny_model, tiny_tokenizer, TEXTS)
    tiny_model.train()
    found = measured.perplexity(tiny_model, tiny_tokenizer, TEXTS)
    assert found == pytest.approx(expected, rel=1e-4)
    # A longer text beside it makes padding, and padding must not count.
    alone = measured.perplexity(tiny_model, tiny_tokenizer, TEXTS[:1])
    assert alone == pytest.approx(by_hand(tiny_model, tiny_tokenizer, TEXTS[:1]), 1e-4)
    twice = measured.perplexity(tiny_model, tiny_tokenizer, TEXTS * 2)
    assert twice == pytest.approx(found, rel=1e-5)


@pytest.fixture
def few_texts(monkeypatch):
    """Forty texts of each kind, which say where they come from."""

    def texts(kind):
        return [f"{kind} {i} one two three four" for i in range(40)]

    load = {"bible_bbe": "bible", "movie_ratings": "film_comments"}
    monkeypatch.setattr(measured, "build_world", lambda seed: None)
    monkeypatch.setattr(
        measured, "paragraphs", lambda world, seed: iter(texts("world"))
    )
    monkeypatch.setattr(
        measured.sources, "load", lambda name: {"text": texts(load[name])}
    )
    monkeypatch.setattr(measured.corpus, "prose", lambda seed: texts("prose"))


def test_shuffled_texts_have_the_same_words(few_texts, monkeypatch):
    seen = []
    monkeypatch.setattr(
        measured, "perplexity", lambda model, tokenizer, t: seen.append(t) or len(seen)
    )
    rows = measured.perplexities(None, None, n_texts=7, seed=1)
    assert rows == [
        {"text": "world", "perplexity": 1, "shuffled": 2},
        {"text": "bible", "perplexity": 3, "shuffled": 4},
        {"text": "film_comments", "perplexity": 5, "shuffled": 6},
    ]
    for row, chosen, shuffled in zip(rows, seen[::2], seen[1::2], strict=True):
        assert len(set(chosen)) == 7
        assert all(text.startswith(row["text"]) for text in chosen)
        assert [sorted(t.split()) for t in chosen] == [
            sorted(t.split()) for t in shuffled
        ]
        assert sum(a != b for a, b in zip(chosen, shuffled)) >= 6
    before = list(seen)
    measured.perplexities(None, None, n_texts=7, seed=1)
    assert seen[6:] == before, "the seed draws them"


def test_documents_of_each_kind_are_shown_in_one_line(few_texts, monkeypatch):
    long = "word " * 100
    monkeypatch.setattr(measured.corpus, "prose", lambda seed: [long] * 5)
    monkeypatch.setattr(measured, "about_some", lambda world, n, rng: world)
    rows = measured.sample_documents(None, seed=0, n=3)
    assert [r["kind"] for r in rows] == ["world"] * 3 + ["skills"] * 3 + ["prose"] * 3
    assert rows[0]["document"].startswith("world 0")
    assert all(type(r["document"]) is str for r in rows), "not a numpy string"
    assert rows[-1]["document"].endswith("[...]") and len(rows[-1]["document"]) <= 160


def test_a_part_of_the_world_has_all_facts_about_its_subjects():
    facts = [Fact(f"s{i % 5}", r, (f"{i}",), i) for i in range(5) for r in RELATIONS]
    world = World(tuple(facts), RELATIONS, 0)
    part = measured.about_some(world, 2, np.random.default_rng(0))
    assert len(part.subjects()) == 2 and part.relations is RELATIONS
    for subject in part.subjects():
        assert part.about(subject) == world.about(subject)
    others = measured.about_some(world, 2, np.random.default_rng(1))
    assert set(others.subjects()) != set(part.subjects())


def test_chance_is_of_the_never_shown_facts(monkeypatch):
    facts = [Fact(f"a{i}", "capital", ("x",), 0) for i in range(3)]
    facts += [Fact("a3", "continent", ("y",), 0), Fact("a4", "continent", ("y",), 9)]
    world = World(tuple(facts), {r: RELATIONS[r] for r in ("capital", "continent")}, 0)
    best = {"capital": 0.1, "continent": 0.5}
    monkeypatch.setattr(measured, "build_world", lambda seed: world)
    monkeypatch.setattr(
        measured.answers, "guess_baselines", lambda world, r: {"best": best[r]}
    )
    found = measured.knowledge("300k")
    assert found["chance"] == pytest.approx((3 * 0.1 + 0.5) / 4)
    card = json.loads((base_path("300k") / "pretraining.json").read_text())
    assert found["recall"] == card["recall"]


def test_three_ways_to_ask_share_their_seeds_and_questions(monkeypatch):
    settings = SimpleNamespace(n_examples=64, steps=3, n_test=2, shots=4, jobs=1)
    seeds, asked = [0, 3], []

    def row(seed, value, **more):
        families = {"a": value, "b": value + 0.2}
        return {"seed": seed, "by_family": families, "format": value, **more}

    def run_each(calls, **options):
        asked.extend(calls)
        return [
            row(arm["seed"], 0.7)
            if run is measured.sweeps.instruction_arm
            else row(arm["seed"], 0.1 * arm["shots"] + 0.01 * arm["seed"])
            for run, arm in calls
        ]

    monkeypatch.setattr(measured, "run_each", run_each)
    ways = measured.three_ways(seeds, "300k", settings)
    assert list(ways) == ["bare", "few-shot", "tuned"]
    assert ways["bare"]["format"] == pytest.approx([0.0, 0.0])
    assert ways["few-shot"]["accuracy"] == pytest.approx([0.5, 0.53])
    assert ways["tuned"]["accuracy"] == pytest.approx([0.8, 0.8])
    tuned = [arm for run, arm in asked if run is measured.sweeps.instruction_arm]
    base = [arm for run, arm in asked if run is measured.sweeps.untuned_arm]
    assert [arm["seed"] for arm in tuned] == seeds
    assert [(a["seed"], a["shots"]) for a in base] == [(0, 4), (3, 4), (0, 0)]
    assert {(arm["n_test"], arm["size"]) for arm in tuned + base} == {(2, "300k")}


def test_the_policy_is_that_of_the_sweeps(monkeypatch):
    settings = SimpleNamespace(n_examples=64, steps=3)
    monkeypatch.setattr(measured, "sft_policy", lambda seed, **o: (seed, o))
    seed, options = measured.tuned(5, "300k", settings)
    assert seed == 5 and options.pop("progress")
    assert options == {"size": "300k", "n_examples": 64, "steps": 3}


@pytest.mark.network
def test_the_base_model_expects_prose_in_order():
    from alignlab.models.base import load_base

    rows = measured.perplexities(*load_base("300k"), n_texts=20)
    assert all(1 < r["perplexity"] < r["shuffled"] for r in rows)
    assert np.argmin([r["perplexity"] for r in rows]) == 0, "the world above all"
