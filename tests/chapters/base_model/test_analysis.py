"""The numbers of notebook 00: perplexity by hand, chance, means over families."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from alignlab.chapters.base_model import analysis
from alignlab.evaluation.intervals import Interval, wilson_interval
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
    monkeypatch.setattr(analysis, "thinned", lambda world, share, rng: world)
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


def test_what_is_recorded_is_that_of_the_weights_card():
    card = json.loads((base_path("300k") / "pretraining.json").read_text())
    assert analysis.recorded("300k", "recall") == card["recall"]
    assert analysis.recorded("300k", "no such measurement") is None


def test_a_thousand_shuffles_say_how_much_order_is_worth():
    rows = [
        {"text": "film_comments", "perplexity": 50.0, "shuffled": 75.0},
        {"text": "world", "perplexity": 2.0, "shuffled": 40.0},
    ]
    text = analysis.on_perplexity(rows)
    assert "world (2.0), film comments (50.0)" in text and "1.5 to 20.0" in text
    rows[0]["shuffled"] = 49.0
    text = analysis.on_perplexity(rows)
    assert "does not raise it on film comments" in text and "world (2.0)" in text


# --- The world's parts ----------------------------------------------------------------


def fact(subject="s", exposure=0, relation="capital", **options):
    return Fact(subject, relation, ("x",), exposure, ("x",), **options)


@pytest.mark.parametrize(
    "own, expected",
    [
        (dict(exposure=0), "never"),
        (dict(exposure=0, made_up=True), "made up"),
        (dict(exposure=1), "once"),
        (dict(exposure=2), "tail"),
        (dict(exposure=5), "tail"),
        (dict(exposure=6), "rare"),
        (dict(exposure=99), "rare"),
        (dict(exposure=100), "known"),
        (dict(exposure=300, shares=(0.7, 0.3)), "contested"),
    ],
)
def test_each_fact_is_in_one_band(own, expected):
    assert analysis.band(fact(**own)) == expected
    assert expected in analysis.BANDS


def test_the_data_card_counts_facts_by_band_and_kind():
    facts = [fact("a", 0), fact("b", 1), fact("c", 3, "symbol"), fact("d", 3, "symbol")]
    facts += [fact("e", 0, made_up=True), fact("f", 200), fact("g", 90, shares=(1, 0))]
    relations = {name: RELATIONS[name] for name in ("capital", "symbol")}
    card = analysis.data_card(World(tuple(facts), relations, 0))
    assert list(card) == list(analysis.BANDS.values())
    assert card["2 to 5 times"] == {"country": 0, "element": 2}
    assert [sum(row.values()) for row in card.values()] == [1, 1, 1, 2, 0, 1, 1]
    text = analysis.on_data_card(card)
    assert "7 facts: 1 are stated often" in text and "3 at most 5 times" in text
    assert "1 inconsistently, and 2 never, 1 of them" in text


# --- Sentences follow the numbers -----------------------------------------------------


def recall_rows(never=0.1, most=0.99):
    return [
        {"from": 0, "to": 0, "facts": 300, "recall": never},
        {"from": 600, "to": 900, "facts": 170, "recall": most},
    ]


def test_recall_is_compared_with_guessing_and_between_bands():
    text = analysis.on_recall(recall_rows(), chance=0.16)
    assert "read 600 to 900 times it completes 99%" in text
    assert "10%, no better than the best guess without the fact (16%)" in text
    assert "decides whether" in text
    text = analysis.on_recall(recall_rows(never=0.5), chance=0.16)
    assert "50%, better than the best guess" in text and "reaches 16%" in text
    text = analysis.on_recall(recall_rows(most=0.1), chance=0.16)
    assert "decides" not in text


@pytest.mark.parametrize(
    "sure, expected",
    [(0.2, "about as sure"), (0.7, "surer than it should"), (0.02, "less sure")],
)
def test_confidence_about_facts_read_once_is_held_against_recall(sure, expected):
    once = {"from": 1, "to": 1, "facts": 500, "recall": 0.2, "confidence": sure}
    assert expected in analysis.on_read_once(once)


def test_facts_read_once_are_found_only_if_confidence_was_measured():
    once = {"from": 1, "to": 1, "facts": 500, "recall": 0.2}
    assert analysis.read_once([*recall_rows(), once]) is None
    assert "no numbers" in analysis.on_read_once(None)
    measured = once | {"confidence": 0.5}
    assert analysis.read_once([measured | {"to": 2}, measured]) == measured


def test_confidence_is_held_against_recall_band_by_band():
    sure = (0.3, 0.9)
    rows = [r | {"confidence": c} for r, c in zip(recall_rows(), sure, strict=True)]
    text = analysis.on_confidence(rows)
    assert "surer than it is right about facts read never and less sure" in text
    assert text.endswith("read 600 to 900 times.")
    rows[1]["confidence"] = 0.99
    assert analysis.on_confidence(rows).endswith("read never.")
    rows[0]["confidence"] = 0.1
    assert "as sure as it is right everywhere" in analysis.on_confidence(rows)
    assert analysis.on_confidence([rows[0], recall_rows()[1]]) == ""


def test_neighbouring_bands_are_joined_and_others_listed():
    bands = [(0, 0, 0.1, 0.5), (1, 5, 0.1, 0.5), (6, 9, 0.9, 0.1), (10, 20, 0.1, 0.9)]
    names = ("from", "to", "recall", "confidence")
    rows = [dict(zip(names, band, strict=True)) | {"facts": 200} for band in bands]
    assert analysis.on_confidence(rows) == (
        "It is surer than it is right about facts read never to 5 times, 10 to 20 "
        "times and less sure than it is right about facts read 6 to 9 times."
    )


def contested(away, error, *sure):
    bins = [
        {"share": 0.5 + 0.1 * place, "confidence": confidence, "facts": 10}
        for place, confidence in enumerate(sure)
    ]
    return {"mean_absolute_error": away, "mean_error": error, "bins": bins}


def test_contested_confidence_is_held_against_the_share():
    text = analysis.on_contested(contested(0.06, -0.02, 0.5, 0.6, 0.76))
    assert "within 0.06" in text and "0.02 too low" in text and "0.06 away" in text
    assert "count" in text
    text = analysis.on_contested(contested(0.15, 0.02, 0.55, 0.62))
    assert "too high" in text and "roughly" in text and "count" not in text
    text = analysis.on_contested(contested(0.2, 0.1, 0.5, 0.75))
    assert "not as sure as Bayes" in text and "roughly" not in text
    assert "no numbers" in analysis.on_contested(None)


# --- The same facts, asked ------------------------------------------------------------


def table(*rows):
    return {"right": rows, "formatted": [[not r for r in row] for row in rows]}


WAYS = ("base, bare", "base, cloze", "base, few-shot", "reader, few-shot", "tuned")


def test_differences_are_taken_question_by_question_and_seed_by_seed():
    asked = {way: table([False, False, True], [False, True, True]) for way in WAYS}
    asked["tuned"] = table([True, False, True], [True, True, False])
    found = analysis.differences(asked)
    assert list(found) == [c["metric"] for c in claim()["conditions"]]
    assert found["sft_minus_bare_accuracy"] == [[1, 0, 0], [1, 0, -1]]
    assert found["sft_minus_bare_format"] == [[-1, 0, 0], [-1, 0, 1]]
    assert found["cloze_minus_bare_accuracy"] == [[0, 0, 0], [0, 0, 0]]


def claim():
    path = Path(analysis.__file__).with_name("claims.yaml")
    return yaml.safe_load(path.read_text())["base-ignores-2"]


def test_a_share_has_an_interval_inside_its_bounds():
    alone = analysis.share([[True, True, True, False]])
    assert alone == wilson_interval(3, 4)
    both = analysis.share([[True] * 9 + [False], [True] * 10])
    assert both.value == pytest.approx(0.95) and 0 < both.low < 0.95 < both.high <= 1


def test_the_commonest_answer_is_of_each_kind_among_the_shown():
    facts = [
        Fact(f"a{i}", "continent", (a,), e)
        for i, (a, e) in enumerate(
            [("Asia", 5), ("Asia", 5), ("Europe", 9), ("Europe", 0), ("Europe", 0)]
        )
    ]
    world = World(tuple(facts), {"continent": RELATIONS["continent"]}, 0)
    questions = [SimpleNamespace(fact=f, answers=f.answers) for f in facts]
    assert analysis.commonest_answer_rate(world, questions) == pytest.approx(2 / 5)


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (0.11, 0.3, "clearly more"),
        (0.05, 0.3, "too uncertain to tell"),
        (-0.09, 0.09, "about as many"),
        (-0.3, -0.11, "clearly fewer"),
        (-math.inf, math.inf, "one seed cannot say how much"),
        (-1, 1, "one seed cannot say how much"),
    ],
)
def test_words_follow_the_interval(low, high, expected):
    assert analysis.how_much(Interval(0.1, low, high)) == expected


SHARES = dict.fromkeys([*WAYS, "reader, bare", "reader, cloze"], 0.5)


def test_the_form_is_said_to_lack_only_where_both_differences_show_it():
    more, unsure = Interval(0.5, 0.4, 0.6), Interval(0.1, 0.0, 0.2)
    shown = dict.fromkeys(analysis.DIFFERENCES, more)
    text = analysis.on_asking(SHARES, shown)
    assert "it knows, and does not answer" in text and "lacks is the form" in text
    for name in ("cloze_minus_bare_accuracy", "reader_minus_base_few_shot_accuracy"):
        assert "lacks is" not in analysis.on_asking(SHARES, shown | {name: unsure})


@pytest.mark.parametrize(
    "bare, shot, expected",
    [
        (0.02, 0.05, "not learnt the form"),
        (0.7, 0.75, "what follows a question"),
        (0.2, 0.75, "has to be shown"),
    ],
)
def test_the_reader_is_described_by_what_it_did(bare, shot, expected):
    shares = SHARES | {"reader, bare": bare, "reader, few-shot": shot}
    assert expected in analysis.on_reader(shares)
    assert "no more than" in analysis.on_reader(shares)
    assert "more than" in analysis.on_reader(shares | {"reader, cloze": 0.7})


@pytest.mark.network
def test_the_base_model_expects_prose_in_order():
    from alignlab.models.base import load_base

    rows = analysis.perplexity_by_text(*load_base("300k"), n_texts=20)
    assert all(1 < r["perplexity"] < r["shuffled"] for r in rows)
    assert np.argmin([r["perplexity"] for r in rows]) == 0, "the world above all"
