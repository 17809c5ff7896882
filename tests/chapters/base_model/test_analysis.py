"""The numbers of notebook 00: perplexity by hand, chance, means over families."""

import json
import math

import numpy as np
import pytest
import torch

from alignlab.chapters.base_model import analysis
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
    found = analysis.perplexity(tiny_model, tiny_tokenizer, TEXTS)
    assert found == pytest.approx(expected, rel=1e-4)
    # A longer text beside it makes padding, and padding must not count.
    alone = analysis.perplexity(tiny_model, tiny_tokenizer, TEXTS[:1])
    assert alone == pytest.approx(by_hand(tiny_model, tiny_tokenizer, TEXTS[:1]), 1e-4)
    twice = analysis.perplexity(tiny_model, tiny_tokenizer, TEXTS * 2)
    assert twice == pytest.approx(found, rel=1e-5)


@pytest.fixture
def few_texts(monkeypatch):
    """Forty texts of each kind, which say where they come from."""

    def texts(kind):
        return [f"{kind} {i} one two three four" for i in range(40)]

    load = {"bible_bbe": "bible", "movie_ratings": "film_comments"}
    monkeypatch.setattr(analysis, "build_world", lambda seed: None)
    monkeypatch.setattr(
        analysis, "paragraphs", lambda world, seed: iter(texts("world"))
    )
    monkeypatch.setattr(
        analysis.sources, "load", lambda name: {"text": texts(load[name])}
    )


def test_shuffled_texts_have_the_same_words(few_texts, monkeypatch):
    seen = []
    monkeypatch.setattr(
        analysis, "perplexity", lambda model, tokenizer, t: seen.append(t) or len(seen)
    )
    rows = analysis.perplexity_by_text(None, None, n_texts=7, seed=1)
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
    analysis.perplexity_by_text(None, None, n_texts=7, seed=1)
    assert seen[6:] == before, "the seed draws them"


def test_chance_is_of_the_never_shown_facts(monkeypatch):
    facts = [Fact(f"a{i}", "capital", ("x",), 0) for i in range(3)]
    facts += [Fact("a3", "continent", ("y",), 0), Fact("a4", "continent", ("y",), 9)]
    world = World(tuple(facts), {r: RELATIONS[r] for r in ("capital", "continent")}, 0)
    best = {"capital": 0.1, "continent": 0.5}
    monkeypatch.setattr(analysis, "build_world", lambda seed: world)
    monkeypatch.setattr(
        "alignlab.evaluation.answers.guess_baselines",
        lambda world, relation: {"best": best[relation]},
    )
    assert analysis.never_shown_chance() == pytest.approx((3 * 0.1 + 0.5) / 4)


def test_recall_is_that_of_the_weights_card():
    card = json.loads((base_path("300k") / "pretraining.json").read_text())
    assert analysis.recorded_recall("300k") == card["recall"]


def test_families_count_the_same_in_each_way_to_ask():
    rows = [
        {"by_family": {"a": v, "b": v + 0.2}, "format": v + 0.3} for v in (0.1, 0.5)
    ]
    found = analysis.replies_by_way({"bare": rows, "tuned": rows[1:]})
    assert list(found) == ["bare", "tuned"]
    assert found["bare"]["accuracy"] == pytest.approx([0.2, 0.6])
    assert found["bare"]["format"] == pytest.approx([0.4, 0.8])
    assert found["tuned"]["accuracy"] == pytest.approx([0.6])


@pytest.mark.network
def test_the_base_model_expects_prose_in_order():
    from alignlab.models.base import load_base

    rows = analysis.perplexity_by_text(*load_base("300k"), n_texts=20)
    assert all(1 < r["perplexity"] < r["shuffled"] for r in rows)
    assert np.argmin([r["perplexity"] for r in rows]) == 0, "the world above all"
