"""Judging replies, on examples and a world made by hand."""

import math

import numpy as np
import pytest

from alignlab.evaluation.answers import (
    best_guess_rate,
    few_shot_prompt,
    first_answer,
    guess_baselines,
    is_correct,
    is_formatted,
    score,
)
from alignlab.models.sampler import Completion
from alignlab.world.facts import RELATIONS, Fact, World
from alignlab.world.tasks import Example

CAPITAL = Example("capital", "What is the capital of France?", "Paris.", ("Paris",))
SPAM = Example("sms_spam", "Is this spam or ham? Hi", "ham.", ("ham",))
CAPITALS = Example("capitals", "Write salt in capitals.", "SALT.", ("SALT",))
ORDER = Example(
    "polite", "Say it with please: Go in.", "Please go in.", ("Please go in.",)
)


def reply(text, ended=True):
    return Completion(text, [], ended)


@pytest.mark.parametrize(
    "example, text, ended, expected",
    [
        (CAPITAL, "Paris.", True, True),
        (CAPITAL, "Rome.", True, True),  # wrong, but in the right form
        (CAPITAL, "Paris.", False, False),
        (CAPITAL, "Paris", True, False),
        (CAPITAL, "Paris.\nRome.", True, False),
        (CAPITAL, "", True, False),
        (CAPITAL, ".", True, False),
        (CAPITAL, "Port of Spain.", True, True),
        (CAPITAL, "The capital of France is Paris.", True, False),
        (SPAM, "spam.", True, True),
        (SPAM, "Ham.", True, True),
        (SPAM, "Paris.", True, False),
        (SPAM, "ham or spam.", True, False),
    ],
)
def test_is_formatted(example, text, ended, expected):
    assert is_formatted(example, reply(text, ended)) is expected


@pytest.mark.parametrize(
    "example, text, expected",
    [
        (CAPITAL, "paris", True),
        (CAPITAL, "The Paris.", True),
        (CAPITAL, "Paris, France.", False),
        (CAPITAL, "", False),
        (CAPITALS, "SALT", True),
        (CAPITALS, "salt.", False),
        (CAPITALS, "Salt.", False),
        (ORDER, "Please go  in", True),
        (ORDER, "please go in.", False),
        (ORDER, "Go in.", False),
    ],
)
def test_is_correct(example, text, expected):
    assert is_correct(example, text) is expected


def test_any_of_the_answers_is_right():
    spain = Example("neighbour", "?", "France.", ("Portugal", "France"))
    assert is_correct(spain, "portugal.") and not is_correct(spain, "Portugal France.")


def test_score_judges_each_reply():
    judged = score(
        [CAPITAL, CAPITAL, SPAM],
        [reply("Paris."), reply("Paris", False), reply("Rome.")],
    )
    assert judged["correct"].dtype == judged["formatted"].dtype == bool
    np.testing.assert_array_equal(judged["correct"], [True, True, False])
    np.testing.assert_array_equal(judged["formatted"], [True, False, False])
    with pytest.raises(ValueError):
        score([CAPITAL], [])


# --- Few-shot -----------------------------------------------------------------------


def by_words(text, add_special_tokens):
    """A tokenizer to which every word is one token."""
    return {"input_ids": text.split()}


SHOTS = [
    Example("capital", f"What is the capital of {s}?", f"{a}.", (a,))
    for s, a in [("Norway", "Oslo"), ("Peru", "Lima"), ("Kenya", "Nairobi")]
]


def test_few_shot_prompt_shows_the_answers_and_ends_before_the_next():
    prompt = few_shot_prompt(SHOTS[:2], CAPITAL, tokenizer=by_words)
    assert prompt == (
        "Question: What is the capital of Norway? Answer: Oslo. "
        "Question: What is the capital of Peru? Answer: Lima. "
        "Question: What is the capital of France? Answer:"
    )
    bare = few_shot_prompt([], CAPITAL, tokenizer=by_words)
    assert bare == "Question: What is the capital of France? Answer:"


def test_few_shot_prompt_fits_the_context():
    # 9 words a shot, 8 for the question: 26 leave room for two shots, 25 for one.
    for room, shots in ((35, 3), (26, 2), (25, 1), (8, 0)):
        prompt = few_shot_prompt(
            SHOTS, CAPITAL, tokenizer=by_words, context=room + 5, reserve=5
        )
        assert prompt.count("Answer:") - 1 == shots
    with pytest.raises(ValueError, match="8 tokens.*does not fit into context=12"):
        few_shot_prompt(SHOTS, CAPITAL, tokenizer=by_words, context=12, reserve=5)


def test_few_shot_prompt_never_shows_the_answer():
    with pytest.raises(ValueError, match="among the examples"):
        few_shot_prompt([*SHOTS, CAPITAL], CAPITAL, tokenizer=by_words)


@pytest.mark.parametrize(
    "text, answer",
    [
        ("Paris. The capital of Norway is Oslo.", "Paris."),
        ("Paris\nQuestion: What", "Paris"),
        ("Paris Question: What is", "Paris"),
        (" Paris.", "Paris."),
        ("-6.", "-6."),
        ("", ""),
    ],
)
def test_first_answer(text, answer):
    assert first_answer(text) == answer


# --- Guessing -----------------------------------------------------------------------


def a_world(*facts):
    return World(
        tuple(Fact(s, r, (a,), exposure, (a,)) for s, r, a, exposure in facts),
        RELATIONS,
        0,
    )


def test_symbols_are_guessed_by_their_first_letters():
    world = a_world(
        ("iron", "symbol", "Fe", 100),
        ("neon", "symbol", "Ne", 0),
        ("gold", "symbol", "Au", 0),
        ("argon", "symbol", "Ar", 0),
        ("cobalt", "symbol", "Co", 0),
    )
    rates = guess_baselines(world, "symbol")
    assert rates == {
        "majority": 0,
        "spelling": 0.75,
        "related": 0,
        "best": 0.75,
        "n": 4,
    }


def test_plurals_are_guessed_by_their_ending():
    world = a_world(
        ("man", "plural", "men", 100),
        ("knife", "plural", "knives", 100),
        ("woman", "plural", "women", 0),
        ("wife", "plural", "wives", 0),
        ("child", "plural", "children", 0),
    )
    assert guess_baselines(world, "plural")["spelling"] == pytest.approx(2 / 3)


def test_the_majority_is_counted_among_shown_facts_only():
    world = a_world(
        ("Ab", "continent", "Asia", 5),
        ("Ac", "continent", "Asia", 5),
        ("Ad", "continent", "Europe", 500),
        ("Ae", "continent", "Europe", 0),
        ("Af", "continent", "Europe", 0),
        ("Ag", "continent", "Asia", 0),
        ("Ah", "continent", "Europe", 0),
    )
    rates = guess_baselines(world, "continent")
    assert rates["majority"] == rates["related"] == 0.25 and rates["n"] == 4


def test_similar_names_and_related_facts_help_a_guesser():
    shown = [(f"Kala{c}stan", "continent", "Asia", 9) for c in "bdf"]
    shown += [(f"Port {c}o", "continent", "Europe", 9) for c in "bdf"]
    money = [(f"Kala{c}stan", "currency", "som", 9) for c in "bdf"]
    money += [(f"Port {c}o", "currency", "euro", 9) for c in "bdf"]
    hidden = [("Kalanstan", "continent", "Asia", 0), ("Xyz", "continent", "Europe", 0)]
    money += [("Xyz", "currency", "euro", 9), ("Kalanstan", "currency", "som", 0)]
    rates = guess_baselines(a_world(*shown, *hidden, *money), "continent")
    assert rates["spelling"] >= 0.5 and rates["related"] >= 0.5
    assert rates["best"] == max(rates["majority"], rates["spelling"], rates["related"])
    only = a_world(*shown, *hidden[1:], *money)
    assert guess_baselines(only, "continent")["related"] == 1.0


def test_a_guesser_sees_no_hidden_fact():
    shown = [(f"K{c}", "continent", "Asia", 9) for c in "abcd"]
    shown += [(f"P{c}", "continent", "Europe", 9) for c in "abc"]
    money = [(f"K{c}", "currency", "som", 9) for c in "abcd"]
    money += [(f"P{c}", "currency", "euro", 9) for c in "abc"]
    for exposure, expected in ((9, 1.0), (0, 0.0)):  # unseen, it is guessed Asian
        facts = [("X", "continent", "Europe", 0), ("X", "currency", "euro", exposure)]
        rates = guess_baselines(a_world(*shown, *money, *facts), "continent")
        assert rates["related"] == expected


def test_the_best_guess_is_weighted_by_the_facts(monkeypatch):
    best = {"capital": 0.1, "continent": 0.7}
    monkeypatch.setattr(
        "alignlab.evaluation.answers.guess_baselines",
        lambda world, relation: {"best": best[relation]},
    )
    facts = [Fact(f"a{i}", "capital", ("x",), 0) for i in range(3)]
    facts.append(Fact("a3", "continent", ("y",), 0))
    assert best_guess_rate(None, facts) == pytest.approx(0.25)


def test_where_every_fact_was_shown_the_best_guess_is_the_most_frequent_answer():
    shown = [(f"{c}land", "continent", "Asia", 9) for c in "abc"]
    shown += [("dland", "continent", "Europe", 9), ("iron", "symbol", "Fe", 9)]
    world = a_world(*shown)
    facts = [f for f in world.facts if f.relation == "continent"]
    assert best_guess_rate(world, facts) == pytest.approx(3 / 4)
    assert best_guess_rate(world, list(world.facts)) == pytest.approx(4 / 5)


def test_nothing_hidden_has_no_rate_and_unknown_relations_are_named():
    rates = guess_baselines(a_world(("iron", "symbol", "Fe", 9)), "symbol")
    assert rates["n"] == 0 and math.isnan(rates["best"])
    with pytest.raises(ValueError, match="relation is 'colour'"):
        guess_baselines(a_world(("iron", "symbol", "Fe", 9)), "colour")
