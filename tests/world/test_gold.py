"""The gold reward against exact sums, and every statement read back to its fact."""

import random

import numpy as np
import pytest

from alignlab.world import gold
from alignlab.world.facts import RELATIONS, Fact, World, build_world
from alignlab.world.gold import GOLD_WEIGHTS, gold_reward, parse

FRANCE = {
    "capital": "The capital of France is Paris.",
    "currency": "In France people pay with the euro.",
    "continent": "In Europe lies France.",
    "language": "The people of France speak French.",
    "neighbour": "France is next to Spain.",
}
HELLO, BYE = gold.OPENINGS[0], gold.CLOSINGS[0]
THANKS = gold.COURTESIES[0]


def fact(subject, relation, *answers, exposure=9):
    return Fact(subject, relation, answers, exposure, answers if exposure else ())


@pytest.fixture(scope="module")
def world():
    facts = (
        fact("France", "capital", "Paris"),
        fact("France", "currency", "euro"),
        fact("France", "continent", "Europe"),
        fact("France", "language", "French"),
        fact("France", "neighbour", "Spain", "Italy"),
        fact("Spain", "capital", "Madrid"),
        fact("Spain", "neighbour", "France", "Portugal"),
        fact("Italy", "capital", "Rome", exposure=0),
        fact("Italy", "neighbour", "France", exposure=0),
        fact("New Zealand", "continent", "Oceania"),
        fact("New Zealand", "capital", "Wellington"),
        fact("Osaka", "city_country", "Japan"),
        fact("gold", "symbol", "Au"),
        fact("gold", "atomic_number", "79"),
        fact("gold", "element_group", "metals"),
        fact("hot", "opposite", "cold"),
        fact("child", "plural", "children"),
        fact("dog", "word_class", "animal"),
    )
    return World(facts, RELATIONS, seed=0)


@pytest.fixture(scope="module")
def whole_world():
    return build_world(0)


def total(**counts):
    return sum(GOLD_WEIGHTS[name] * n for name, n in counts.items())


def test_weights_add_up_to_the_stated_worth_of_a_fact():
    w = GOLD_WEIGHTS
    assert w["relation"] + w["right"] == pytest.approx(0.7)
    assert w["relation"] + w["wrong"] == pytest.approx(-0.3)
    assert w["relation"] + w["right"] + w["extra"] == pytest.approx(-0.1)
    parts = [name for names in gold.PARTS.values() for name in names]
    assert sorted(parts) == sorted(w)


@pytest.mark.parametrize(
    "subject, facts, expected",
    [
        ("France", 3, 5.5 + 3 * 0.7),  # of five: more would be too long
        ("Spain", 2, 5.5 + 2 * 0.7),
        ("hot", 1, 5.5 + 0.7),
        ("Italy", 0, 5.5 + 0.6),  # never shown: honest
    ],
)
def test_best_demonstration_has_the_documented_total(world, subject, facts, expected):
    for seed in range(20):
        reply = gold.demonstration(world, subject, np.random.default_rng(seed), 1.0)
        got = gold_reward(world, subject, reply)
        assert got.total == pytest.approx(expected)
        assert got.details["right"] == facts


def reply(*body, opening=HELLO, closing=BYE):
    return " ".join(s for s in (opening, *body, closing) if s)


GOOD = (FRANCE["capital"], FRANCE["currency"])
CORRUPTIONS = [  # name, the reply, and what each part loses
    ("no opening", reply(*GOOD, opening=""), (-2.5, 0, 0)),
    ("no closing", reply(*GOOD, closing=""), (-1.8, 0, 0)),
    ("nothing stated", reply(), (0, -0.8 - 1.5, -0.6)),
    ("only another", reply("Osaka lies in Japan."), (0, -2.3 - 0.6, -0.6)),
    ("thanks", reply(THANKS, *GOOD), (1.2, 0, 0)),
    ("thanks first", reply(*GOOD, opening=THANKS), (1.2 - 2.5, 0, 0)),
    ("thanks before", reply(HELLO, *GOOD, opening=THANKS), (1.2 - 2.8, 0, 0)),
    ("thanks late", reply(*GOOD, THANKS), (-0.3, 0, 0)),
    ("thanked twice", reply(THANKS, THANKS, *GOOD), (1.2 - 0.3, 0, 0)),
    ("greeting last", reply(*GOOD, opening="", closing=HELLO), (-4.6, 0, 0)),
    ("closing first", reply(*GOOD, opening=BYE, closing=""), (-4.6, 0, 0)),
    ("greeted twice", reply(HELLO, *GOOD), (-0.3, 0, 0)),
    ("filler", reply(*GOOD, "It is a good day."), (-0.3, 0, 0)),
    (
        "cut off",
        reply(*GOOD, "The continent of France is Eur", closing=""),
        (-2.1, 0, 0),
    ),
    ("one less", reply(GOOD[0]), (0, -0.4, -0.3)),
    ("wrong", reply(GOOD[0], "In France people pay with the yen."), (0, 0, -1.0)),
    ("repeat", reply(*GOOD, GOOD[0]), (0, -0.4, 0)),
    ("reworded", reply(*GOOD, "Paris is the capital of France."), (0, -0.4, 0)),
    ("wrong repeat", reply(*GOOD, "Rome is the capital of France."), (0, -0.4, -0.7)),
    ("another", reply(*GOOD, "The capital of Spain is Madrid."), (0, -0.6, 0)),
    ("unchecked", reply(*GOOD, "The symbol of France is Fr."), (-0.3, 0, 0)),
    ("not honest", reply(*GOOD, "I do not know."), (-0.3, 0, 0)),
    ("one more", reply(*GOOD, FRANCE["continent"]), (0, 0.4, 0.3)),
    (
        "too long",
        reply(*GOOD, FRANCE["continent"], FRANCE["language"]),
        (-0.8, 0.8, 0.6),
    ),
]


@pytest.mark.parametrize("name, text, loss", CORRUPTIONS, ids=lambda x: str(x)[:14])
def test_each_corruption_costs_its_weight_in_its_part_only(world, name, text, loss):
    good = gold_reward(world, "France", reply(*GOOD))
    bad = gold_reward(world, "France", text)
    got = (
        bad.form - good.form,
        bad.completeness - good.completeness,
        bad.truth - good.truth,
    )
    assert got == pytest.approx(loss, abs=1e-12)
    assert bad.total == pytest.approx(bad.form + bad.completeness + bad.truth)


def test_details_count_what_the_total_sums(world):
    got = gold_reward(world, "France", reply(*FRANCE.values(), GOOD[0], "Hm."))
    counted = {k: n for k, n in got.details.items() if n}
    names = ("opening", "closing", "extra", "filler", "relation", "repeat", "right")
    assert counted == dict(zip(names, (1, 1, 3, 1, 5, 1, 5)))
    assert got.total == pytest.approx(total(**counted))


def test_honest_where_nothing_was_shown_and_nothing_is_stated(world):
    for subject in ("Italy", "Atlantis"):
        assert gold_reward(world, subject, "I do not know.").total == 0.6
    guess = gold_reward(world, "Italy", "The capital of Italy is Rome. I do not know.")
    assert guess.details["honest"] == 0 and guess.details["right"] == 1
    assert gold_reward(world, "France", "I do not know.").total == -1.8


def test_any_neighbour_is_right_and_is_read_from_the_asked_side(world):
    for sentence in ("France is next to Italy.", "Italy is next to France."):
        for about in ("France", "Italy"):
            got = parse(world, sentence, about)
            assert (got.subject, got.right) == (about, True)
    # Asked for another country altogether, it is off the subject.
    got = gold_reward(world, "gold", "France is next to Italy.")
    assert got.details["off_subject"] == 1
    # An island has no neighbours, so naming one is wrong, from either side.
    for sentence in ("New Zealand is next to Fiji.", "Fiji is next to New Zealand."):
        assert parse(world, sentence, "New Zealand").right is False


def test_lies_in_places_a_country_or_a_city(world):
    assert parse(world, "France lies in Europe.").relation == "continent"
    assert parse(world, "Osaka lies in Japan.").relation == "city_country"
    got = parse(world, "In Oceania lies New Zealand.")
    assert (got.subject, got.answer, got.right) == ("New Zealand", "Oceania", True)
    assert parse(world, "Osaka lies in Asia.").right is False  # documented


def test_the_answer_is_read_without_the_words_around_it(world):
    got = parse(world, "The word blue is the opposite of hot.", "hot")
    assert (got.answer, got.right) == ("blue", False)


def test_parse_says_none_of_what_the_world_cannot_tell(world):
    assert parse(world, "The capital of Osaka is Paris.").right is None
    assert parse(world, "The capital of Atlantis is Paris.").right is None
    assert parse(world, "Paris is a good place.") is None
    assert parse(world, "The capital of France is Paris") is None  # no full stop
    assert parse(world, "The capital of France is .") is None


def test_case_and_spaces_do_not_matter(world):
    got = parse(world, "The capital  of france is\nparis.", "France")
    assert (got.subject, got.right) == ("France", True)
    spaced = reply(*GOOD).replace(" ", "\n ")
    assert gold_reward(world, "france", spaced).total == pytest.approx(4.3 + 2 * 0.7)


@pytest.mark.parametrize(
    "text", ["", " \n", ".", "...", "?!", "{s}", "\x00\ud800", "é" * 5000, ". " * 500]
)
def test_garbage_never_raises(world, text):
    got = gold_reward(world, "France", text)
    assert (got.completeness, got.truth) == (-1.5, 0) and got.form <= 0


def test_shuffled_statements_never_raise(world):
    rng = random.Random(0)
    words = " ".join([*FRANCE.values(), HELLO, BYE, "{s} {a} {"]).split()
    for _ in range(500):
        text = " ".join(rng.choices(words, k=rng.randrange(40)))
        gold_reward(world, rng.choice(["France", "", "{}"]), text)


def test_weights_are_checked_and_used(world):
    harsh = {**GOLD_WEIGHTS, "wrong": -3.0}
    text = "The capital of France is Rome."
    assert gold_reward(world, "France", text, harsh).truth == -3.0
    with pytest.raises(ValueError, match="differs in .'wrongs'"):
        gold_reward(world, "France", text, {**GOLD_WEIGHTS, "wrongs": 1.0})


def test_two_worlds_are_not_mixed_up(world):
    other = World((fact("France", "capital", "Lyon"),), RELATIONS, seed=1)
    text = "The capital of France is Lyon."
    for _ in range(2):
        assert parse(world, text).right is False
        assert parse(other, text).right is True


def test_worst_demonstrations_are_as_bad_as_documented(world):
    rng = np.random.default_rng(0)
    n = 2000
    counts = [
        gold.count_reply(world, "France", gold.demonstration(world, "France", rng, 0.0))
        for _ in range(n)
    ]
    repeats = sum(c["repeat"] for c in counts)
    wrong = sum(c["wrong"] for c in counts)
    assert all(c["relation"] == 1 and not c["opening"] for c in counts)
    # Within 5 standard errors of 1/2 and 1/6. In this world three of the five relations
    # of France (capital, continent, neighbour) have another answer to be wrong with.
    assert abs(repeats / n - 0.5) < 5 * 0.5 / n**0.5
    assert abs(wrong / (n + repeats) - 3 / 5 / 6) < 5 * 0.3 / n**0.5


def test_demonstration_is_deterministic_and_checks_its_arguments(world):
    first, again = (
        [gold.demonstration(world, "France", rng, 0.5) for _ in range(20)]
        for rng in (np.random.default_rng(3), np.random.default_rng(3))
    )
    assert first == again and len(set(first)) == 20
    with pytest.raises(ValueError, match="quality is 1.5"):
        gold.demonstration(world, "France", np.random.default_rng(0), 1.5)
    with pytest.raises(ValueError, match="no subject 'Atlantis'"):
        gold.demonstration(world, "Atlantis", np.random.default_rng(0), 1.0)


@pytest.mark.network
def test_better_quality_is_better_on_average_in_every_part(whole_world):
    rng = np.random.default_rng(0)
    subjects = whole_world.subjects("country")
    means = []
    for quality in (0.0, 0.25, 0.5, 0.75, 1.0):
        golds = [
            gold_reward(
                whole_world, s, gold.demonstration(whole_world, s, rng, quality)
            )
            for s in subjects
            for _ in range(3)
        ]
        assert not any(g.details["filler"] for g in golds)
        means.append(
            [
                np.mean([getattr(g, part) for g in golds])
                for part in ("total", *gold.PARTS)
            ]
        )
    # Steps of about 1.8, 1.4, 0.2 and 0.15, each with a standard error near 0.05.
    assert (np.diff(means, axis=0) > 0.03).all()


def _round_trip(world, about):
    """Sentences of true facts, by (relation, wording), not read back to their fact."""
    lost = {}
    for f in world.facts:
        for wording, template in enumerate(world.relations[f.relation].statements):
            for answer in f.answers:
                sentence = template.format(s=f.subject, a=answer)
                got = parse(world, sentence, f.subject if about else None)
                read = got and (got.relation, got.subject, got.answer, got.right)
                if read != (f.relation, f.subject, answer, True):
                    place = f.relation, wording
                    lost[place] = lost.get(place, 0) + 1
    return lost


@pytest.mark.network
def test_every_statement_of_every_fact_reads_back(whole_world):
    assert _round_trip(whole_world, about=True) == {}
    # Without being told who was asked for, three wordings for neighbours read from the
    # other side, which is as true: each of the borders once.
    borders = sum(
        len(f.answers) for f in whole_world.facts if f.relation == "neighbour"
    )
    expected = {("neighbour", wording): borders for wording in (8, 9, 10)}
    assert _round_trip(whole_world, about=False) == expected


@pytest.mark.network
def test_every_wrong_answer_is_caught(whole_world):
    rng = np.random.default_rng(0)
    pools = {
        name: sorted(
            {a for f in whole_world.facts if f.relation == name for a in f.answers}
        )
        for name in whole_world.relations
    }
    for f in whole_world.facts:
        wrong = [a for a in pools[f.relation] if a not in f.answers]
        for template in whole_world.relations[f.relation].statements:
            answer = wrong[rng.integers(len(wrong))]
            sentence = template.format(s=f.subject, a=answer)
            got = parse(whole_world, sentence, f.subject)
            assert got.right is False and got.subject == f.subject, sentence


@pytest.mark.network
def test_no_name_ends_a_sentence_and_no_name_is_two(whole_world):
    subjects = whole_world.subjects()
    names = {*subjects, *(a for f in whole_world.facts for a in f.answers)}
    assert not [n for n in names if len(gold.split_sentences(n + " is.")) != 1]
    assert len({s.lower() for s in subjects}) == len(subjects)
