"""The world: exposures are what the design says, and nothing else gives a fact away."""

import re
from collections import Counter
from dataclasses import replace
from string import Formatter

import numpy as np
import pytest

from alignlab.world.archives import read_facts, read_names
from alignlab.world.facts import (
    CONTESTED,
    CONTESTED_EXPOSURES,
    CONTESTED_SHARES,
    KNOWN_FROM,
    MOST,
    NEVER_SHOWN,
    RELATIONS,
    TAIL,
    Fact,
    build_world,
    is_right,
    normalise,
    paragraphs,
    power_law_exposures,
    split_subjects,
    statements,
    tail_exposures,
)
from alignlab.world.gold import split_sentences


@pytest.fixture(scope="module")
def world():
    return build_world(0)


@pytest.fixture(scope="module")
def sentences(world):
    """Every sentence of the world's text, with how often it is there."""
    return Counter(s for p in paragraphs(world, 0) for s in split_sentences(p))


def stating(world, facts, answers=lambda fact: fact.stated):
    """{sentence: facts that it states}, built from the templates alone."""
    sentences = {}
    for fact in facts:
        for template in world.relations[fact.relation].statements:
            for answer in answers(fact):
                sentence = template.format(s=fact.subject, a=answer)
                sentences.setdefault(sentence, set()).add((fact.subject, fact.relation))
    return sentences


# --- Without any data ---------------------------------------------------------------


def test_exposures_follow_the_power_law():
    exposures = power_law_exposures(1000)
    assert (exposures == 0).mean() == NEVER_SHOWN
    shown = exposures[exposures > 0]
    assert (np.diff(exposures) >= 0).all() and shown.max() <= MOST
    # Density e^(-1/2) on (3, 900): F(e) = (sqrt e - sqrt 3) / (sqrt 900 - sqrt 3).
    low, high = np.sqrt(3), np.sqrt(900)
    for e in (10, 50, 100, 300):
        expected = (np.sqrt(e) - low) / (high - low)
        assert (shown <= e).mean() == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_exposures_of_few_facts(n):
    assert len(power_law_exposures(n)) == n
    assert len(tail_exposures(n)) == n


def test_exposures_in_the_tail_follow_zipfs_law():
    shares = np.bincount(tail_exposures(10_000), minlength=TAIL + 1)[1:] / 10_000
    expected = np.array([60, 30, 20, 15, 12]) / 137  # in proportion to 1/e
    assert shares == pytest.approx(expected, abs=1e-3)


def test_each_answer_of_a_contested_fact_has_its_share_of_the_statements():
    contested = Fact("S", "capital", ("A",), 300, ("B", "A"), (0.7, 0.3))
    for n, allowed in ((300, {210}), (10, {7}), (5, {3, 4}), (1, {0, 1})):
        for seed in range(8):
            rng = np.random.default_rng(seed)
            sentences = list(statements(contested, RELATIONS, rng, n))
            b = sum(bool(re.search(r"\bB\b", sentence)) for sentence in sentences)
            a = sum(bool(re.search(r"\bA\b", sentence)) for sentence in sentences)
            assert b in allowed and a + b >= n, (n, b)


@pytest.mark.parametrize("relation", RELATIONS.values(), ids=lambda r: r.name)
def test_templates_take_their_fields_and_nothing_else(relation):
    def fields(template):
        return sorted(name for _, name, _, _ in Formatter().parse(template) if name)

    assert all(fields(t) == ["a", "s"] for t in relation.statements)
    asking = relation.questions + relation.held_out_questions
    assert all(fields(t) == ["s"] for t in asking)
    assert all(fields(t) == ["a"] for t in relation.inverse_questions)
    assert len(relation.questions) >= 5 and len(relation.held_out_questions) >= 2
    first = [t.index("{s}") < t.index("{a}") for t in relation.statements]
    assert any(first) and not all(first), "facts must be met in both orders"


def test_held_out_questions_are_nowhere_among_the_trained():
    def bare(template):
        return re.sub(r"[^a-z{}]+", " ", template.lower()).strip()

    trained = {bare(q) for r in RELATIONS.values() for q in r.questions}
    trained |= {bare(q) for r in RELATIONS.values() for q in r.inverse_questions}
    stated = {bare(t) for r in RELATIONS.values() for t in r.statements}
    held_out = {bare(q) for r in RELATIONS.values() for q in r.held_out_questions}
    assert not held_out & trained and not (held_out | trained) & stated


@pytest.mark.parametrize(
    "reply, right",
    [
        ("Paris", True),
        (" paris. ", True),
        ("the Paris", True),
        ("City of  Light.", True),
        ("city of light", True),
        ("Paris, France.", False),
        ("Paris Paris.", False),
        ("Pari", False),
        ("", False),
        (".", False),
        ("Theparis", False),
    ],
)
def test_is_right(reply, right):
    fact = Fact("France", "capital", ("Paris", "the City of Light"))
    assert is_right(fact, reply) is right


def test_normalise_takes_off_one_leading_article_only():
    assert normalise("The the End.") == "the end"
    assert normalise("A\n  day") == "day"
    assert normalise("Andorra") == "andorra" and normalise("a") == "a"


def test_known_is_by_exposure():
    def fact(exposure):
        return Fact("s", "capital", ("a",), exposure)

    assert fact(KNOWN_FROM).known and not fact(KNOWN_FROM - 1).known
    contested = Fact("s", "capital", ("a",), 400, ("a", "b"), (0.9, 0.1))
    assert not contested.known and contested.bayes_confidence == 0.9
    assert fact(400).bayes_confidence == 1 and not fact(400).contested


# --- With the facts -----------------------------------------------------------------


@pytest.mark.network
def test_the_same_seed_gives_the_same_world(world):
    assert build_world(0) == world
    other = build_world(1)
    exposures, others = (
        {(f.subject, f.relation, f.answers): f.exposure for f in w.facts}
        for w in (world, other)
    )
    assert exposures.keys() == others.keys()
    in_body = [(subject, relation, right) for subject, relation, right in read_facts()]
    assert np.mean([exposures[fact] != others[fact] for fact in in_body]) > 0.8
    few = replace(world, facts=world.facts[:60])
    assert list(paragraphs(few, 3)) == list(paragraphs(few, 3))
    assert list(paragraphs(few, 3)) != list(paragraphs(few, 4))


@pytest.mark.network
@pytest.mark.parametrize("name", RELATIONS)
def test_exposures_are_the_designed_ones(world, name):
    body = {(subject, relation) for subject, relation, _ in read_facts()}
    exposures = sorted(
        f.exposure
        for f in world.facts
        if f.relation == name and (f.subject, name) in body
    )
    designed = power_law_exposures(len(exposures))
    if name != "neighbour":
        assert exposures == designed.tolist()
    else:  # some shown facts are sealed: their only neighbours are hidden ones
        extra = Counter(exposures) - Counter(designed.tolist())
        assert set(extra) <= {0} and extra[0] <= 0.1 * len(exposures)


@pytest.mark.network
def test_the_text_states_each_fact_exactly_as_often_as_its_exposure(world, sentences):
    states = stating(world, [f for f in world.facts if f.exposure])
    unknown = [s for s in sentences if s not in states]
    assert not unknown, unknown[:5]
    counts = Counter()
    for sentence, n in sentences.items():
        names = states[sentence]
        relations = {relation for _, relation in names}
        assert len(names) == 1 or relations == {"neighbour"}, sentence
        if len(names) == 1:
            counts[next(iter(names))] += n
    for fact in world.facts:
        if fact.relation != "neighbour":
            assert counts[fact.subject, fact.relation] == fact.exposure, fact
    # A border has two sides, and one sentence may state either: their sum is exact.
    both = sum(
        n for s, n in sentences.items() if {r for _, r in states[s]} == {"neighbour"}
    )
    assert both == sum(f.exposure for f in world.facts if f.relation == "neighbour")


@pytest.mark.network
def test_never_shown_facts_are_stated_nowhere(world, sentences):
    never = [f for f in world.facts if not f.exposure]
    real = [f for f in never if not f.made_up]
    assert len(real) >= 0.14 * len(read_facts()) and len(never) > len(real) + 500
    forbidden = stating(world, never, answers=lambda fact: fact.answers)
    told = set(forbidden) & set(sentences)
    assert not told, sorted(told)[:5]


@pytest.mark.network
def test_no_neighbour_tells_a_hidden_border_from_the_other_side(world, sentences):
    hidden = {
        f.subject for f in world.facts if f.relation == "neighbour" and not f.exposure
    }
    named = re.compile(
        r"(?:One neighbour of )?(.+?) (?:has a border with|is next to|"
        r"is a neighbour of|is a country next to|is) (.+)\."
    )
    borders = [s for s in sentences if re.search("border|next to|neighbour", s)]
    assert len(borders) > 100
    for sentence in borders:
        assert not hidden & set(named.fullmatch(sentence).groups()), sentence


@pytest.mark.network
def test_no_question_is_in_the_text(world, sentences):
    assert not any("?" in s for s in sentences)
    questions = set()
    for fact in world.facts:
        relation = world.relations[fact.relation]
        for question in relation.questions + relation.held_out_questions:
            questions.add(question.format(s=fact.subject))
        for question in relation.inverse_questions:
            questions.add(question.format(a=fact.answer))
    assert len(questions) > 10_000 and not questions & set(sentences)


@pytest.mark.network
def test_facts_are_clean(world):
    keys = [(f.subject, f.relation) for f in world.facts]
    assert len(set(keys)) == len(keys), "one fact of a relation for each subject"
    for fact in world.facts:
        texts = (fact.subject, *fact.answers)
        assert all(t and t == " ".join(t.split()) and "{" not in t for t in texts), fact
        assert len(set(fact.answers)) == len(fact.answers), fact
        if not fact.contested:
            assert set(fact.stated) <= set(fact.answers), fact
        assert bool(fact.exposure) <= bool(fact.stated), fact
        if fact.relation not in ("word_class", "plural"):  # material, sheep
            assert fact.subject not in fact.answers, fact
        assert is_right(fact, f"{fact.answer}."), fact


# --- The long tail, contested facts, made-up subjects -------------------------------


@pytest.mark.network
def test_the_tail_has_thousands_of_facts_that_were_hardly_read(world):
    tail = [f for f in world.facts if 0 < f.exposure <= TAIL]
    assert len(tail) >= 5000 and sum(f.exposure == 1 for f in tail) > 2000
    assert {f.relation for f in tail} >= {"city_country", "word_class"}


@pytest.mark.network
def test_contested_facts_have_the_designed_shares_and_exposures(world, sentences):
    contested = [f for f in world.facts if f.contested]
    assert Counter(f.relation for f in contested) == CONTESTED
    exposures = [f.exposure for f in contested]
    assert (min(exposures), max(exposures)) == pytest.approx(CONTESTED_EXPOSURES, 0.05)
    shares = [f.bayes_confidence for f in contested]
    assert (min(shares), max(shares)) == pytest.approx(CONTESTED_SHARES, abs=0.01)
    for fact in contested:
        assert len(set(fact.stated)) == 2 and fact.answer in fact.stated, fact
        assert sum(fact.shares) == pytest.approx(1)
    for fact in contested[::30]:
        counts = [0, 0]
        for place, answer in enumerate(fact.stated):
            for template in world.relations[fact.relation].statements:
                counts[place] += sentences[template.format(s=fact.subject, a=answer)]
        assert sum(counts) == fact.exposure
        assert counts[0] == pytest.approx(fact.shares[0] * fact.exposure, abs=1)


@pytest.mark.network
@pytest.mark.parametrize("relation", CONTESTED)
def test_the_answer_most_often_stated_is_right_as_often_as_its_share(world, relation):
    contested = [f for f in world.facts if f.contested and f.relation == relation]
    contested.sort(key=lambda f: f.bayes_confidence)
    for part in np.array_split(np.array(contested, object), 4):
        right = sum(f.stated[0] in f.answers for f in part)
        assert right == pytest.approx(sum(f.bayes_confidence for f in part), abs=1)


@pytest.mark.network
def test_nothing_real_has_the_name_of_a_made_up_subject(world, sentences):
    made_up = {f.subject for f in world.facts if f.made_up}
    assert len(made_up) == 300 and not {name.lower() for name in made_up} & read_names()
    real = {f.subject for f in world.facts if not f.made_up}
    assert not made_up & real
    words = {word for sentence in sentences for word in re.findall(r"\w+", sentence)}
    assert not made_up & words


@pytest.mark.network
def test_made_up_answers_follow_those_of_real_subjects(world):
    """Otherwise "never shown" would be easier or harder for the made-up than for real
    subjects; frequent answers are drawn in proportion."""
    for relation in ("continent", "city_country"):
        real = [f.answer for f in world.facts if f.relation == relation and f.stated]
        drawn = [f.answer for f in world.facts if f.relation == relation and f.made_up]
        assert set(drawn) <= set(real)
    continents = Counter(
        f.answer for f in world.facts if f.relation == "continent" and not f.made_up
    )
    drawn = Counter(
        f.answer for f in world.facts if f.relation == "continent" and f.made_up
    )
    for name, n in continents.items():
        share = n / continents.total()
        spread = np.sqrt(share * (1 - share) / drawn.total())
        assert drawn[name] / drawn.total() == pytest.approx(share, abs=4 * spread)


@pytest.mark.network
def test_subjects_are_halved_within_each_kind(world):
    first, second = split_subjects(world, 0)
    assert not first & second and first | second == set(world.subjects())
    for kind in ("country", "element", "city", "word"):
        names = world.subjects(kind)
        share = np.mean([n in first for n in names])
        assert share == pytest.approx(0.5, abs=0.1), kind
    assert split_subjects(world, 0) == (first, second)
    assert split_subjects(world, 1)[0] != first


@pytest.mark.network
def test_looking_facts_up(world):
    fact = world.find("gold", "symbol")
    assert fact in world.about("gold") and world.find("gold", "capital") is None
    assert world.kind_of(fact) == "element" and "gold" in world.subjects("element")
