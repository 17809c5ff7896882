"""The gold reward against what people would say, against exact sums, and every
statement read back to its fact."""

import random
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from scipy.stats import kendalltau

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


def fact(subject, relation, *answers, exposure=300):
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
        fact("Rare", "city_country", "Japan", exposure=99),
        Fact("Arica", "city_country", ("Chile",), 300, ("Peru", "Chile"), (0.7, 0.3)),
    )
    return World(facts, RELATIONS, seed=0)


@pytest.fixture(scope="module")
def whole_world():
    return build_world(0)


# --- The thirty replies that were ranked by hand before the weights were set ---------

RANKED = yaml.safe_load(Path(__file__).with_name("ranked_replies.yaml").read_text())


@pytest.fixture(scope="module")
def ranked_world():
    """The facts of the ranked replies, and the name of nothing that is known."""
    facts = [
        fact(subject, relation, *answers, exposure=exposure)
        for kind, exposure in (("facts", 300), ("never_shown", 0))
        for subject, known in RANKED[kind].items()
        for relation, answers in known.items()
    ]
    return World(tuple(facts), RELATIONS, seed=0)


def test_gold_orders_the_ranked_replies_as_people_would(ranked_world):
    ranks, golds = [], []
    for rank, group in enumerate(RANKED["ranking"]):
        for entry in group:
            ranks.append(rank)
            found = gold_reward(ranked_world, entry["about"], entry["reply"])
            golds.append(found.total)
    assert len(golds) == 30
    assert kendalltau(ranks, np.negative(golds).round(9)).statistic >= 0.9


@pytest.mark.network
def test_the_ranked_replies_are_about_the_world_as_it_is(whole_world):
    for subject, known in RANKED["facts"].items():
        for relation, answers in known.items():
            assert set(answers) <= set(whole_world.find(subject, relation).answers)
    assert not set(RANKED["never_shown"]) & set(whole_world.subjects())


# --- The properties that the weights were set to have --------------------------------


class Sentence(NamedTuple):
    """``kind``: opening, courtesy, closing, right, wrong, off, admission or babble (or
    filler); ``relation`` where it states one of the subject."""

    kind: str
    text: str
    relation: str = ""


class RandomReply(NamedTuple):
    subject: str
    sentences: list[Sentence]
    gold: float

    def has(self, kind):
        return any(s.kind == kind for s in self.sentences)

    @property
    def states(self):
        return self.has("right") or self.has("wrong")

    def place(self, rng):
        """Somewhere in the body: after the greeting, before the closing."""
        kinds = [s.kind for s in self.sentences]
        start = 0
        while start < len(kinds) and kinds[start] in ("opening", "courtesy"):
            start += 1
        end = len(kinds) - (len(kinds) > start and kinds[-1] == "closing")
        return rng.randint(start, end)


KNOWN = ("France", "Spain", "Japan", "gold", "iron", "hot")
NEVER_SHOWN = ("Velmaria", "Atlantis")  # the world has facts of the one alone
BABBLE = (
    "France the of is Paris capital.",
    "In the in the in the.",
    "Hm.",
    "The capital of.",
    "It is a good day.",
    "The long day is good.",
    "...",
)


class Writer:
    """Composes replies sentence by sentence, knowing what each of them is."""

    def __init__(self, world, seed=0):
        self.world, self.rng = world, random.Random(seed)

    def price(self, subject, sentences):
        text = " ".join(s.text for s in sentences)
        return gold_reward(self.world, subject, text).total

    def statement(self, kind, subject, relation, other_than=None):
        known = self.world.find(subject, relation)
        pool = known.answers
        if kind == "wrong":
            every = {a for f in self.world.facts for a in f.answers}
            pool = sorted(every - {*known.answers, subject, "the"})
        template = self.rng.choice(RELATIONS[relation].statements)
        text = template.format(s=subject, a=self.rng.choice(pool))
        return Sentence(kind, text, relation)

    def relations(self, subject):
        return [f.relation for f in self.world.about(subject)]

    def sentence(self, subject, so_far):
        states = ("right", "wrong") * bool(self.relations(subject))
        kind = self.rng.choice(
            (*states, *states, "off", "repeat", "admission", "babble", "form")
        )
        if kind in states:
            return self.statement(
                kind, subject, self.rng.choice(self.relations(subject))
            )
        if kind == "off":
            other = self.rng.choice([s for s in KNOWN if s != subject])
            told = [r for r in self.relations(other) if r != "neighbour"]
            kind = self.rng.choice(("right", "wrong"))
            stated = self.statement(kind, other, self.rng.choice(told))
            return Sentence("off", stated.text)
        if kind == "repeat" and so_far:
            return self.repeat(subject, self.rng.choice(so_far))
        if kind == "admission":
            return Sentence("admission", self.rng.choice(gold.ADMISSIONS))
        if kind == "form":
            return self.form(self.rng.choice(("opening", "courtesy", "closing")))
        return Sentence("babble", self.rng.choice(BABBLE))

    def repeat(self, subject, sentence):
        if sentence.kind == "right" and self.rng.random() < 0.5:  # in other words
            return self.statement("right", subject, sentence.relation)
        return sentence

    def form(self, kind):
        texts = dict(
            opening=gold.OPENINGS, courtesy=gold.COURTESIES, closing=gold.CLOSINGS
        )
        return Sentence(kind, self.rng.choice(texts[kind]))

    def reply(self, subject):
        sentences = [
            self.form(k) for k in ("opening", "courtesy") if self.rng.random() < 0.4
        ]
        body = []
        for _ in range(self.rng.choice((0, 1, 1, 2, 2, 3, 3, 4, 5, 6))):
            body.append(self.sentence(subject, body))
        sentences += body
        if self.rng.random() < 0.4:
            sentences.append(self.form("closing"))
        return RandomReply(subject, sentences, self.price(subject, sentences))

    def right_new(self, reply):
        """A right statement of a relation that the reply does not state, or None."""
        stated = {s.relation for s in reply.sentences}
        left = [r for r in self.relations(reply.subject) if r not in stated]
        if not left:
            return None
        return self.statement("right", reply.subject, self.rng.choice(left))

    def gain(self, reply, place, sentence, instead=False):
        """What adding a sentence there changes, or putting it in the place of one."""
        changed = list(reply.sentences)
        changed[place : place + instead] = [sentence]
        return self.price(reply.subject, changed) - reply.gold


@pytest.fixture(scope="module")
def writer(ranked_world):
    return Writer(ranked_world)


@pytest.fixture(scope="module")
def replies(writer):
    """10,000 of them, a third about what was never shown."""
    subjects = (*KNOWN, *NEVER_SHOWN, "Velmaria")
    return [writer.reply(writer.rng.choice(subjects)) for _ in range(10_000)]


def bare(writer, kind, subject):
    """Gold of the best and the worst reply that is one statement of that kind."""
    golds = [
        writer.price(subject, [writer.statement(kind, subject, relation)])
        for relation in writer.relations(subject)
    ]
    return min(golds), max(golds)


def test_without_a_right_fact_is_worth_less_than_one_bare_right_fact(writer, replies):
    least = {s: bare(writer, "right", s)[0] for s in KNOWN}
    without = [r for r in replies if r.subject in KNOWN and not r.has("right")]
    assert len(without) > 2000
    for r in without:
        assert r.gold < least[r.subject] - 0.2, r


def test_a_wrong_fact_costs_more_than_a_right_one_earns(writer, replies):
    compared = 0
    for r in replies:
        stated = {s.relation for s in r.sentences} - {""}
        right = writer.right_new(r)
        if not r.states or right is None or len(stated) >= gold.ENOUGH:
            continue
        wrong = writer.statement("wrong", r.subject, right.relation)
        place = r.place(writer.rng)
        earned = writer.gain(r, place, right)
        assert writer.gain(r, place, wrong) < -earned - 0.2, (r, right, wrong)
        compared += 1
    assert compared > 2000


def test_i_do_not_know_lies_between_a_wrong_fact_and_a_right_one(writer, replies):
    for subject in (*KNOWN, "Velmaria"):
        honest = writer.price(subject, [Sentence("admission", gold.ADMISSIONS[0])])
        assert bare(writer, "wrong", subject)[1] < honest - 0.2
        assert honest + 0.2 < bare(writer, "right", subject)[0]
    # Not even courtesy makes up for a wrong fact.
    misled = [r for r in replies if r.has("wrong") and not r.has("right")]
    assert len(misled) > 1000
    for r in misled:
        honest = writer.price(r.subject, [Sentence("admission", gold.ADMISSIONS[1])])
        assert r.gold < honest - 0.2, r


def test_i_do_not_know_is_right_about_what_was_never_shown(writer, replies):
    honest = {}
    for subject in (*KNOWN, *NEVER_SHOWN):
        admitted = [Sentence("admission", gold.ADMISSIONS[0])]
        honest[subject] = writer.price(subject, admitted)
    assert len({honest[s] for s in NEVER_SHOWN}) == 1
    assert honest["Atlantis"] > max(honest[s] for s in KNOWN) + 0.2
    for r in replies:
        silent = not r.states and not r.has("admission")
        guessed = sum((s.kind == "right") - (s.kind == "wrong") for s in r.sentences)
        if r.subject in NEVER_SHOWN and (silent or (r.states and guessed <= 0)):
            assert r.gold < honest[r.subject] - 0.2, r


def test_all_courtesies_together_are_worth_at_most_one_right_fact(writer, replies):
    fact = min(bare(writer, "right", subject)[0] for subject in KNOWN)
    compared = 0
    for r in replies:
        body = [
            s for s in r.sentences if s.kind not in ("opening", "courtesy", "closing")
        ]
        polite = [writer.form("opening"), writer.form("courtesy"), *body]
        polite.append(writer.form("closing"))
        gain = writer.price(r.subject, polite) - writer.price(r.subject, body)
        assert -1e-9 <= gain <= fact
        assert r.states or r.has("admission") or abs(gain) < 1e-9  # an evasion
        compared += gain > 0.2
    assert compared > 5000


def test_babble_repeats_and_evasions_never_raise_gold(writer, replies):
    for r in replies:
        place = r.place(writer.rng)
        babble = Sentence("babble", writer.rng.choice(BABBLE))
        assert writer.gain(r, place, babble) < -0.2, (r, place, babble)
        before = [s for s in r.sentences[:place] if s.kind != "closing"]
        if before:
            again = writer.repeat(r.subject, writer.rng.choice(before))
            assert writer.gain(r, place, again) < -0.2, (r, place, again)
        if r.states or r.has("admission"):
            evasion = Sentence("admission", writer.rng.choice(gold.ADMISSIONS))
            assert writer.gain(r, place, evasion) < -0.2, (r, place, evasion)
        else:
            evasion = writer.form(writer.rng.choice(("opening", "courtesy", "closing")))
            for anywhere in (0, place, len(r.sentences)):
                assert writer.gain(r, anywhere, evasion) < 1e-9, (r, anywhere, evasion)


def test_runs_of_babble_evasions_or_repeats_rank_last(writer):
    """As long as those that a policy gone wrong writes, they are worth less than one
    wrong fact."""
    for subject in KNOWN:
        wrong = bare(writer, "wrong", subject)[0]
        relation = writer.relations(subject)[0]
        runs = (
            [Sentence("babble", BABBLE[0])] * 8,
            [writer.form("closing") for _ in range(8)],
            [writer.statement("right", subject, relation)] * 8,
        )
        for run in runs:
            assert writer.price(subject, run) < wrong


def test_a_right_fact_for_a_wrong_one_always_raises_gold(writer, replies):
    compared = 0
    for r in replies:
        for place, s in enumerate(r.sentences):
            if s.kind == "wrong":
                right = writer.statement("right", r.subject, s.relation)
                assert writer.gain(r, place, right, instead=True) > 0.2, (r, place)
                compared += 1
    assert compared > 5000


def test_a_right_new_fact_raises_gold_until_there_are_enough(writer, replies):
    compared = 0
    for r in replies:
        right, place = writer.right_new(r), r.place(writer.rng)
        if right is not None:
            stated = {s.relation for s in r.sentences} - {""}
            gain = writer.gain(r, place, right)
            assert (gain > 0.1) == (len(stated) < gold.ENOUGH), (r, place, right)
            compared += 1
    assert compared > 5000


# --- What each thing counts, and its sums --------------------------------------------


def total(**counts):
    return sum(GOLD_WEIGHTS[name] * n for name, n in counts.items())


def test_weights_add_up_to_the_stated_worth_of_a_fact():
    w = GOLD_WEIGHTS
    assert w["relation"] + w["right"] == pytest.approx(1.0)
    assert w["relation"] + w["wrong"] == pytest.approx(-1.6)
    assert w["relation"] + w["right"] + w["extra"] == pytest.approx(-0.2)
    parts = [name for names in gold.PARTS.values() for name in names]
    assert sorted(parts) == sorted(w)


@pytest.mark.parametrize(
    "subject, facts, expected",
    [
        ("France", 3, 0.5 + 3),  # of five: more would be too long
        ("Spain", 2, 0.5 + 2),
        ("hot", 1, 0.5 + 1),
        ("Italy", 0, 0.5 + 0.5),  # never shown: honest
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
CORRUPTIONS = [  # name, the reply, and what each part gains
    ("no opening", reply(*GOOD, opening=""), (-0.2, 0, 0)),
    ("no closing", reply(*GOOD, closing=""), (-0.2, 0, 0)),
    ("nothing stated", reply(), (-0.4, -0.8 - 1.0, -1.2)),
    ("only another", reply("Osaka lies in Japan."), (-0.4, -1.8 - 0.5, -1.2)),
    ("thanks", reply(THANKS, *GOOD), (0.1, 0, 0)),
    ("thanks first", reply(*GOOD, opening=THANKS), (0.1 - 0.2, 0, 0)),
    ("thanks before", reply(HELLO, *GOOD, opening=THANKS), (0.1 - 0.5, 0, 0)),
    ("thanks late", reply(*GOOD, THANKS), (-0.3, 0, 0)),
    ("thanked twice", reply(THANKS, THANKS, *GOOD), (0.1 - 0.3, 0, 0)),
    ("greeting last", reply(*GOOD, opening="", closing=HELLO), (-0.7, 0, 0)),
    ("closing first", reply(*GOOD, opening=BYE, closing=""), (-0.7, 0, 0)),
    ("greeted twice", reply(HELLO, *GOOD), (-0.3, 0, 0)),
    ("filler", reply(*GOOD, "It is a good day."), (-0.3, 0, 0)),
    (
        "cut off",
        reply(*GOOD, "The continent of France is Eur", closing=""),
        (-0.5, 0, 0),
    ),
    ("one less", reply(GOOD[0]), (0, -0.4, -0.6)),
    ("wrong", reply(GOOD[0], "In France people pay with the yen."), (0, 0, -2.6)),
    ("repeat", reply(*GOOD, GOOD[0]), (0, -0.5, 0)),
    ("reworded", reply(*GOOD, "Paris is the capital of France."), (0, -0.5, 0)),
    ("wrong repeat", reply(*GOOD, "Rome is the capital of France."), (0, -0.5, -2.0)),
    ("another", reply(*GOOD, "The capital of Spain is Madrid."), (0, -0.5, 0)),
    ("unchecked", reply(*GOOD, "The symbol of France is Fr."), (-0.3, 0, 0)),
    ("not honest", reply(*GOOD, "I do not know."), (-0.3, 0, 0)),
    ("evasive", reply("I do not know."), (0, -1.8, -1.2 + 0.5)),
    ("one more", reply(*GOOD, FRANCE["continent"]), (0, 0.4, 0.6)),
    (
        "too long",
        reply(*GOOD, FRANCE["continent"], FRANCE["language"]),
        (-1.2, 0.8, 1.2),
    ),
    ("long, not more", reply(*GOOD, *GOOD), (0, -1.0, 0)),
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
    assert counted == dict(zip(names, (1, 1, 2, 1, 5, 1, 5)))
    assert got.total == pytest.approx(total(**counted))


def test_honest_where_nothing_is_stated_and_empty_where_something_is_known(world):
    for subject in ("Italy", "Atlantis", "Rare"):
        assert gold_reward(world, subject, "I do not know.").total == 0.5
        assert gold_reward(world, subject, "").total == 0
    guess = gold_reward(world, "Italy", "The capital of Italy is Rome. I do not know.")
    assert guess.details["honest"] == 0 and guess.details["right"] == 1
    assert gold_reward(world, "France", "I do not know.").total == -0.5
    assert gold_reward(world, "France", "").total == -1.0


def test_courtesies_count_nothing_where_nothing_is_stated_or_admitted(world):
    for body in ((), ("Osaka lies in Japan.",), ("Hm. Hm.",)):
        text = " ".join(body)
        polite, plain = gold_reward(world, "France", reply(THANKS, *body)), text
        assert polite.total == gold_reward(world, "France", plain).total
        assert not polite.details["opening"] and not polite.details["closing"]
    assert gold_reward(world, "Italy", reply(THANKS, "I do not know.")).form == 0.5


def test_of_a_contested_fact_only_the_true_answer_is_right(world):
    # Most of pretraining said Peru; the world says Chile.
    for answer, right in (("Chile", True), ("Peru", False)):
        got = gold_reward(world, "Arica", f"Arica lies in {answer}.")
        assert (got.details["right"], got.details["wrong"]) == (right, not right)
    for text in ("", "I do not know."):
        assert not gold_reward(world, "Arica", text).details["empty"]
    rng = np.random.default_rng(0)
    texts = [gold.demonstration(world, "Arica", rng, 1.0) for _ in range(50)]
    assert all(gold_reward(world, "Arica", t).total == 1.5 for t in texts)


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
    assert gold_reward(world, "france", spaced).total == pytest.approx(0.4 + 2)


@pytest.mark.parametrize(
    "text", ["", " \n", ".", "...", "?!", "{s}", "\x00\ud800", "é" * 5000, ". " * 500]
)
def test_garbage_never_raises(world, text):
    got = gold_reward(world, "France", text)
    assert (got.completeness, got.truth) == (-1.0, 0) and got.form <= 0


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
    # Steps of about 0.7, 0.1, 0.15 and 0.45; the means have standard errors of at most
    # 0.054, 0.005, 0.018 and 0.050.
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
    # Man is a city and man a word: each is read as it is spelt.
    for kind in ("country", "element", "city", "word"):
        of_kind = whole_world.subjects(kind)
        assert len({s.lower() for s in of_kind}) == len(of_kind)
