"""What notebook 00 shows is chosen by fixed rules, and said as it came out."""

from types import SimpleNamespace

import numpy as np
import pytest

from alignlab.chapters.base_model import showing
from alignlab.models.sampler import Completion
from alignlab.world.facts import RELATIONS, Fact, World


def completion(text, ended=True):
    return Completion(text, [1], ended)


# --- What is shown --------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, shown",
    [
        ("A film about two friends.", True),
        ("The class of the word glass is a mass of sand.", True),
        ("Asia has a skilled warden.", True),
        ("And the Lord said to Moses", False),
        ("They KILLED it", False),
        ("what a stupid film", False),
        ("the priests' altars", False),
    ],
)
def test_texts_are_left_out_by_whole_words(text, shown):
    assert showing.presentable(text) == shown


def test_a_completion_says_how_it_ended():
    assert showing.what_followed(completion("Berlin.")) == "Berlin."
    assert showing.what_followed(completion("Berlin and", False)) == "Berlin and [...]"
    assert "ends here" in showing.what_followed(completion(" "))
    assert "not shown" in showing.what_followed(completion("God is"))


def facts_with(*exposures, relation="capital"):
    return [Fact(f"s{e}", relation, (f"a{e}",), e, (f"a{e}",)) for e in exposures]


def test_the_most_stated_fact_is_not_contested():
    facts = facts_with(5, 40, 20) + facts_with(90, relation="symbol")
    facts.append(Fact("c", "capital", ("x",), 99, ("x", "y"), (0.6, 0.4)))
    world = World(tuple(facts), RELATIONS, 0)
    assert showing.most_stated(world, "capital").subject == "s40"


def test_a_thinner_world_keeps_its_proportions():
    facts = facts_with(0, 1000, 4000)
    world = World(tuple(facts), RELATIONS, 0)
    thin = showing.thinned(world, 0.1, np.random.default_rng(0))
    never, some, many = (fact.exposure for fact in thin.facts)
    assert never == 0 and 70 < some < 130 and 340 < many < 460
    assert [f.subject for f in thin.facts] == [f.subject for f in facts]
    assert all(type(f.exposure) is int for f in thin.facts)


# --- Completions ----------------------------------------------------------------------


def test_statements_and_questions_are_of_the_same_fact(monkeypatch):
    fact = Fact("Peru", "capital", ("Lima",), 7, ("Lima",))
    asked = []

    def complete(model, tokenizer, prompts, **options):
        asked.extend(prompts)
        return [completion("Lima."), completion("")]

    monkeypatch.setattr(showing, "complete", complete)
    [row] = showing.first_completions(None, None, [fact], World((fact,), RELATIONS, 0))
    assert asked == ["The capital of Peru is", "What is the capital of Peru?"]
    assert (row["read"], row["completed"], row["answered"]) == (7, True, False)
    assert (row["statement"], row["question"]) == tuple(asked)


def row(then, answered=False, completed=True):
    return {"then": completion(then), "answered": answered, "completed": completed}


@pytest.mark.parametrize(
    "rows, expected",
    [
        ([row(""), row("")], "after 2 of the 2 questions it ends the text at once."),
        ([row(""), row("It is.")], "at once and after 1 it writes on, 1 times beside"),
        ([row("Lima.", True), row("So.")], "questions: after 2 it writes on, 1 times"),
    ],
)
def test_the_sentence_says_what_happened(rows, expected):
    text = showing.on_completions(rows)
    assert expected in text and "completes 2 of 2 statements" in text
    assert ("ends the text" in text) == any(not r["then"].text for r in rows)


def test_continuations_are_counted_before_some_are_left_out(monkeypatch):
    drawn = ["a", "a", "the Lord", "b"]
    monkeypatch.setattr(
        showing, "complete", lambda *args, **options: [completion(t) for t in drawn]
    )
    shown, different = showing.continuations(None, None, "x", 1.0, n=4, seed=0)
    assert shown == ["a", "a", "b"] and different == 3


def test_the_card_of_next_tokens_is_html_without_a_kernel(monkeypatch):
    tokens = [(" <b>", 0.75), (" x", 0.25)]
    monkeypatch.setattr(showing, "next_tokens", lambda *args: tokens)
    card = showing.next_token_card(None, None, "a < b", 0.5)
    assert "a &lt; b" in card and "&lt;b&gt;" in card and "<b>" not in card
    assert "75.0%" in card and "0.5" in card
    assert "Write something" in showing.next_token_card(None, None, " ", 0.5)


# --- The world and the road -----------------------------------------------------------


def test_documents_of_each_kind_are_presentable_and_in_one_line(monkeypatch):
    long = "word " * 100
    prose = [*["the Lord", "I hate it"] * 20, *[long] * 5]
    monkeypatch.setattr(
        showing, "paragraphs", lambda world, seed: (f"world {i}" for i in range(40))
    )
    monkeypatch.setattr(showing.corpus, "prose", lambda seed: prose)
    monkeypatch.setattr(showing, "thinned", lambda world, share, rng: world)
    rows = showing.sample_documents(None, seed=0, n=3)
    assert [r["kind"] for r in rows] == ["world"] * 3 + ["skills"] * 3 + ["prose"] * 3
    assert rows[0]["document"] == "world 0"
    assert all(r["document"].startswith("word word") for r in rows[6:])
    assert rows[-1]["document"].endswith("[...]") and len(rows[-1]["document"]) <= 160


def test_contested_facts_are_chosen_by_share(monkeypatch):
    facts = [
        Fact(f"s{i}", "capital", ("A",), 90, ("A", "B") if i else ("B", "A"), shares)
        for i, shares in enumerate([(0.5, 0.5), (0.9, 0.1), (0.7, 0.3)])
    ]
    world = World((*facts, *facts_with(40)), RELATIONS, 0)
    asked = []

    def confidences(model, tokenizer, prompts, options):
        asked.extend(zip(prompts, options, strict=True))
        return [[0.6, 0.2]] * len(prompts)

    monkeypatch.setattr(showing, "confidences", confidences)
    rows = showing.contested_examples(None, None, world, shares=(0.72, 0.4))
    assert asked == [
        ("The capital of s2 is", ["A.", "B."]),
        ("The capital of s0 is", ["B.", "A."]),
    ]
    assert [r["share of its statements"] for r in rows] == [0.7, 0.3, 0.5, 0.5]
    assert [r["probability"] for r in rows] == [0.6, 0.2] * 2
    assert [r["between the two"] for r in rows] == pytest.approx([0.75, 0.25] * 2)
    assert [r["goes on"] for r in rows] == ["A", "B", "B", "A"]
    assert [r["true"] for r in rows] == ["yes", "no", "no", "yes"]
    text = showing.on_contested_examples(rows)
    assert "0.75, 0.75, where its share is 0.70, 0.50: up to 0.25 apart" in text


def test_statements_stand_beside_their_notebook_and_verdict():
    def verdict(number, name, claim):
        return SimpleNamespace(
            claim=SimpleNamespace(claim=claim, notebook=number), verdict=name
        )

    found = [verdict("00", "open", "a < b"), verdict("03", "shut", "c")]
    found.append(verdict("03", "open", "d"))
    table = showing.statements_table(
        found, {"open": "o", "shut": "s"}, {"00": "00_x.ipynb", "03": "03_y.ipynb"}
    )
    assert "3 statements: 2 open, 1 shut" in table
    assert "a &lt; b" in table and 'href="03_y.ipynb"' in table
    assert table.count("o&nbsp;open") == 2
