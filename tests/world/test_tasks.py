"""The instruction mixture: what is held out stays out; every reply can be checked."""

import math
import re
from collections import Counter

import pytest

from alignlab.evaluation.answers import is_correct, is_formatted
from alignlab.models.sampler import Completion
from alignlab.world import tasks
from alignlab.world.facts import split_subjects
from alignlab.world.tasks import (
    FAMILIES,
    default_world,
    examples,
    held_out_families,
    mixture,
    mixture_weights,
    sizes,
    table,
    trained_families,
    trained_subjects,
    world_questions,
)
from alignlab.world.texts import read_texts

EVERY = list(FAMILIES)


def bare(text):
    """An instruction without case, signs and what fills it in."""
    return re.sub(r"[^a-z{}]+", " ", text.lower()).strip()


# --- The families, without any data -------------------------------------------------


def test_there_are_enough_families_in_six_categories():
    categories = {f.category for f in FAMILIES.values()}
    assert len(FAMILIES) >= 20 and len(categories) == 6
    for category in categories:
        members = [f for f in FAMILIES.values() if f.category == category]
        assert any(f.held_out for f in members), category
        assert sum(not f.held_out for f in members) >= 3, category
    assert set(trained_families()) | set(held_out_families()) == set(FAMILIES)
    assert not set(trained_families()) & set(held_out_families())
    assert {"last", "smallest", "symbol_of"} <= set(held_out_families())


@pytest.mark.parametrize("name", EVERY)
def test_each_family_has_enough_wordings(name):
    family = FAMILIES[name]
    trained = {bare(w) for w in family.instructions}
    held_out = {bare(w) for w in family.held_out_instructions}
    assert len(trained) == len(family.instructions) >= 5
    assert len(held_out) == len(family.held_out_instructions) >= 2
    assert not trained & held_out


def test_no_held_out_wording_is_trained_in_any_family():
    trained = {bare(w) for n in trained_families() for w in FAMILIES[n].instructions}
    held_out = {bare(w) for f in FAMILIES.values() for w in f.held_out_instructions}
    held_out |= {bare(w) for n in held_out_families() for w in FAMILIES[n].instructions}
    assert not trained & held_out


def test_every_written_wording_is_used():
    texts = read_texts("instructions")
    assert set(texts["tasks"]) < set(FAMILIES)
    assert set(texts["inverse_held_out"]) == set(tasks.INVERSES)


# --- Weights ------------------------------------------------------------------------


def test_weights_by_hand():
    have = {"a": 100, "b": 400, "c": 1600}
    assert mixture_weights(have, "proportional") == pytest.approx(
        {"a": 100 / 2100, "b": 400 / 2100, "c": 1600 / 2100}
    )
    assert mixture_weights(have, "capped", cap=300) == pytest.approx(
        {"a": 100 / 700, "b": 300 / 700, "c": 300 / 700}
    )
    assert mixture_weights(have, "temperature", temperature=2) == pytest.approx(
        {"a": 10 / 70, "b": 20 / 70, "c": 40 / 70}
    )
    assert mixture_weights(have, "equal") == pytest.approx(dict.fromkeys("abc", 1 / 3))


def test_weights_at_their_limits():
    have = {"a": 3, "b": 50, "c": 2000}
    proportional = mixture_weights(have, "proportional")
    equal = mixture_weights(have, "equal")
    assert mixture_weights(have, "temperature", temperature=1) == proportional
    assert mixture_weights(have, "temperature", temperature=1e9) == pytest.approx(equal)
    assert mixture_weights(have, "capped", cap=2000) == proportional
    assert mixture_weights(have, "capped", cap=3) == pytest.approx(equal)
    smallest = [
        mixture_weights(have, "temperature", temperature=t)["a"] for t in (1, 2, 4)
    ]
    assert smallest == sorted(smallest), "a higher temperature is flatter"


@pytest.mark.parametrize(
    "arguments",
    [
        {"scheme": "flat"},
        {"sizes": {"a": 0}},
        {"sizes": {}},
        {"cap": 0},
        {"temperature": 0.0},
    ],
)
def test_wrong_weights_are_refused(arguments):
    with pytest.raises(ValueError, match="scheme|positive"):
        mixture_weights(**({"sizes": {"a": 1}} | arguments))


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown family 'capitol'"):
        examples("capitol")
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        examples("month", split="dev")
    with pytest.raises(ValueError, match="unknown facts 'some'"):
        examples("month", facts="some")
    for phrasing in ("new", -1, 99):
        with pytest.raises(ValueError, match="numbers 0 to 6"):
            examples("month", phrasing=phrasing)
    with pytest.raises(ValueError, match="weights are for"):
        mixture(3, families=["month"], weights={"next": 1.0})


# --- Generated inputs ---------------------------------------------------------------


def test_examples_are_distinct_and_decided_by_the_seed():
    drawn = examples("first", 50, seed=1)
    assert len(drawn) == len({e.prompt for e in drawn}) == 50
    assert drawn == examples("first", 50, seed=1) != examples("first", 50, seed=2)
    assert (
        len(examples("month"))
        == sizes(["month"])["month"]
        == len(examples("month", 99))
    )


def test_phrasing_chooses_the_wording():
    family = FAMILIES["next"]
    every = family.instructions + family.held_out_instructions

    def used(phrasing):
        prompts = [e.prompt for e in examples("next", phrasing=phrasing)]
        return {re.sub(r"\d+", "{x}", p) for p in prompts}

    assert used("trained") == set(family.instructions)
    assert used("held_out") == set(family.held_out_instructions)
    for index, wording in enumerate(every):
        assert used(index) == {wording}


def test_mixture_uses_every_input_before_one_comes_again():
    have = sizes(["month"])["month"]
    drawn = mixture(3 * have, families=["month"], seed=5)
    assert set(Counter(e.answers for e in drawn).values()) == {3}


def test_mixture_follows_the_weights():
    weights = {"first": 0.7, "sum": 0.2, "parity": 0.1}
    drawn = mixture(4000, families=weights, weights=weights, seed=0)
    counts = Counter(e.family for e in drawn)
    assert len(drawn) == 4000
    for name, weight in weights.items():  # five standard deviations
        slack = 5 * math.sqrt(weight * (1 - weight) / 4000)
        assert counts[name] / 4000 == pytest.approx(weight, abs=slack)
    assert [e.family for e in drawn[:30]] != sorted(e.family for e in drawn[:30])
    assert drawn == mixture(4000, families=weights, weights=weights, seed=0)


# --- Every family, with its data ----------------------------------------------------


@pytest.mark.network
@pytest.mark.parametrize("name", EVERY)
def test_no_test_input_is_in_train(name):
    def inputs(split):
        return {tuple(bare_input(v) for v in i.fields.values()) for i in table(name)
                if i.split == split}  # fmt: skip

    def bare_input(value):
        return " ".join(re.findall(r"\w+|[-+]", value)).casefold()

    train, test = inputs("train"), inputs("test")
    assert train and test and not train & test
    prompts = {e.prompt for e in examples(name, facts="all")}
    for phrasing in ("trained", "held_out"):
        questions = examples(name, split="test", facts="all", phrasing=phrasing)
        assert not prompts & {e.prompt for e in questions}


@pytest.mark.network
@pytest.mark.parametrize("name", EVERY)
def test_every_example_is_well_formed_and_its_own_completion_right(name):
    for split in ("train", "test"):
        for phrasing in ("trained", "held_out"):
            for e in examples(name, split=split, phrasing=phrasing, facts="all", n=400):
                assert e.prompt == " ".join(e.prompt.split()) and len(e.prompt) <= 215
                assert not re.search(r"[{}]\w*[{}]?$", e.prompt)
                assert e.completion.endswith(".") and not e.completion.endswith("..")
                assert e.answers and all(a.strip(". ") for a in e.answers)
                if e.fact is not None and e.fact.contested:
                    assert e.completion == f"{e.fact.stated[0]}.", "as most say"
                else:
                    assert is_correct(e, e.completion), e
                assert is_formatted(e, Completion(e.completion, [], True)), e
                assert not is_correct(e, "quite another thing."), e


@pytest.mark.network
@pytest.mark.parametrize("name", [f.name for f in FAMILIES.values() if f.labels])
def test_labels_are_balanced_and_known(name):
    for split in ("train", "test"):
        labels = Counter(i.answers[0] for i in table(name) if i.split == split)
        assert set(labels) == set(FAMILIES[name].labels)
        assert max(labels.values()) / sum(labels.values()) <= 0.6, labels


@pytest.mark.network
def test_no_answer_of_a_skill_dominates():
    for name in EVERY:
        if not FAMILIES[name].labels and name not in ("month", "continent"):
            answers = Counter(i.answers[0] for i in table(name))
            share = answers.most_common(1)[0][1] / answers.total()
            assert share <= 0.35, (name, answers.most_common(1))


# --- The world's facts --------------------------------------------------------------


@pytest.mark.network
def test_training_asks_about_known_facts_of_one_half_only():
    first, second = split_subjects(default_world(), 0)
    assert trained_subjects() == first
    for example in mixture(4000, seed=0):
        if example.fact is not None:
            assert example.fact.known and example.fact.subject in first
    for name in ("capital", "symbol", "opposite_of"):
        questions = examples(name, split="test")
        assert questions and all(e.fact.subject in second for e in questions)


@pytest.mark.network
def test_training_tells_no_fact_that_was_never_shown():
    borders = {f.subject: f for f in default_world().facts if f.relation == "neighbour"}
    drawn = [e for n in trained_families() for e in examples(n) if e.fact is not None]
    assert len(drawn) > 700
    for e in drawn:
        reply = e.completion.removesuffix(".")
        assert e.fact.exposure > 0
        assert reply in e.fact.stated or reply == e.fact.subject
        if e.family == "neighbour":  # nor from the other side
            assert borders[reply].exposure > 0, e


@pytest.mark.network
@pytest.mark.parametrize(
    "facts", ["known", "rare", "tail", "never", "made_up", "contested", "all"]
)
def test_facts_are_chosen_by_exposure(facts):
    fits = {
        "known": lambda f: 100 <= f.exposure and not f.shares,
        "rare": lambda f: 5 < f.exposure < 100 and not f.shares,
        "tail": lambda f: 0 < f.exposure <= 5,
        "never": lambda f: f.exposure == 0,
        "made_up": lambda f: f.made_up,
        "contested": lambda f: f.shares,
        "all": lambda f: True,
    }[facts]
    questions = examples("city_country", facts=facts, split="test")
    expected = [
        f.subject
        for f in default_world().facts
        if f.relation == "city_country"
        and fits(f)
        and f.subject not in trained_subjects()
    ]
    assert sorted(e.fact.subject for e in questions) == sorted(expected) and expected


@pytest.mark.network
def test_world_questions_ask_the_other_half():
    world = default_world()
    _, second = split_subjects(world, 0)
    questions = world_questions(world, second, phrasing="held_out", seed=1)
    assert len(questions) == sum(f.known and f.subject in second for f in world.facts)
    for e in questions:
        templates = world.relations[e.fact.relation].held_out_questions
        assert e.prompt in [t.format(s=e.fact.subject) for t in templates]
        assert e.family == e.fact.relation and is_correct(e, e.fact.answer)
    assert questions == world_questions(world, second, phrasing="held_out", seed=1)
    assert questions[:7] == world_questions(
        world, second, phrasing="held_out", seed=1, n=7
    )
    assert world_questions(world, []) == []


@pytest.mark.network
def test_inverse_questions_give_the_answer_and_want_the_subject():
    subjects = ["France", "gold", "calf"]
    questions = world_questions(default_world(), subjects, inverse=True, facts="all")
    assert {e.family for e in questions} == {
        "capital_of",
        "symbol_of",
        "number_of",
        "plural_of",
    }
    for e in questions:
        assert e.fact.answer in e.prompt and e.fact.subject not in e.prompt
        assert is_correct(e, e.fact.subject) and not is_correct(e, e.fact.answer)


@pytest.mark.network
def test_a_plural_of_two_words_has_two_right_answers():
    shared = [i for i in table("plural_of") if len(i.answers) > 1]
    for item in shared:
        assert item.fact.subject in item.answers


@pytest.mark.network
def test_swapping_tells_only_what_is_known_from_both_sides():
    facts = {f.subject: f for f in default_world().facts if f.relation == "neighbour"}
    for item in table("swap"):
        pattern = r"(.+) (is next to|has a border with|is a neighbour of) (.+)\."
        one, verb, other = re.fullmatch(pattern, item.fields["x"]).groups()
        assert item.answers == (f"{other} {verb} {one}.",)
        assert facts[one].known and facts[other].known
        assert (one in trained_subjects()) == (other in trained_subjects())
