"""Self-instruct: how pairs are written and read, who may be asked about, and the four
kinds of arms end to end on a tiny world with a tiny model."""

import copy

import numpy as np
import pytest

from alignlab.chapters.instruction_tuning import self_instruct
from alignlab.chapters.instruction_tuning.pair_filter import is_right_pair, mentions
from alignlab.chapters.instruction_tuning.self_instruct import (
    Pair,
    Statement,
    added_examples,
    fill,
    generate_pairs,
    generator_examples,
    judge_lines,
    parse_line,
    seeds_and_sources,
    self_instruct_arm,
    write_line,
)
from alignlab.models.sampler import Completion
from alignlab.study import tuning
from alignlab.world import tasks
from alignlab.world.facts import RELATIONS, Fact, World

COUNTRIES = {  # capital, money, neighbours
    "Mali": ("Bamako", "franc", ("Niger", "Guinea")),
    "Niger": ("Niamey", "franc", ("Mali", "Chad")),
    "Chad": ("Ndjamena", "franc", ("Niger",)),
    "Peru": ("Lima", "sol", ("Chile",)),
    "Chile": ("Santiago", "peso", ("Peru",)),
    "Japan": ("Tokyo", "yen", ()),
    "Guinea": ("Conakry", "franc", ("Mali",)),
    "Norway": ("Oslo", "krone", ()),
}
TRAINED = {"Mali", "Niger", "Peru", "Japan"}
STATEMENT = "Bamako is the capital of Mali."
SETTINGS = {
    "base": "300k",
    "n_seeds": 2,
    "n_generated": 6,
    "steps": 2,
    "generator_steps": 2,
    "n_test": 4,
}


@pytest.fixture
def world():
    facts = []
    for name, (capital, money, neighbours) in COUNTRIES.items():
        facts.append(Fact(name, "capital", (capital,), 300, (capital,)))
        facts.append(Fact(name, "currency", (money,), 280, (money,)))
        if neighbours:
            facts.append(Fact(name, "neighbour", neighbours, 270, neighbours))
    never = Fact("Mali", "language", ("French",), 0, ("French",))
    return World((*facts, never), RELATIONS, 0)


@pytest.fixture
def lab(world, tiny_model, tiny_tokenizer, monkeypatch, tmp_path):
    """The tiny world is the default one, the tiny model every base model."""
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(tasks, "default_world", lambda: world)
    monkeypatch.setattr(tasks, "trained_subjects", lambda: frozenset(TRAINED))
    monkeypatch.setattr(
        tuning, "trainable_base", lambda *_: (copy.deepcopy(tiny_model), tiny_tokenizer)
    )
    monkeypatch.setattr(self_instruct, "weights_hash", lambda base: "tiny")
    monkeypatch.setattr(self_instruct, "MAX_TOKENS", 12)


# --- Writing and reading pairs ----------------------------------------------------


def test_names_are_masked_in_what_the_generator_reads_and_writes(world):
    seeds, _ = seeds_and_sources(world, TRAINED, n_seeds=3, n_sources=1, seed=0)
    for seed, example in zip(seeds, generator_examples(seeds, world, 0), strict=True):
        whole = f"{example.prompt} {example.completion}"
        for name in (seed.fact.subject, seed.answer):
            assert not mentions(whole, name)
        question, answer = parse_line(example.completion)
        assert answer == "Y" and mentions(question, "X")
        asked = fill(question, seed.fact.subject, seed.answer)
        assert is_right_pair(world, seed.fact.subject, asked, seed.answer)


def test_masks_are_filled_once_and_only_as_whole_words():
    assert fill("X is not Xe, Y.", "Y", "X") == "Y is not Xe, X."


def test_every_question_of_people_is_read_back_as_written_and_judged_right(world):
    for fact in world.facts:
        relation = RELATIONS[fact.relation]
        for wording in relation.questions + relation.held_out_questions:
            question = wording.format(s=fact.subject)
            for answer in fact.answers:
                assert parse_line(write_line(question, answer)) == (question, answer)
                assert is_right_pair(world, fact.subject, question, answer)


@pytest.mark.parametrize(
    "line", ["", "What is the capital of Mali?", "Bamako.", "What? Who? Me.", "Mali"]
)
def test_lines_without_one_question_and_one_answer_are_not_read(line):
    assert parse_line(line) is None


def test_a_question_kept_before_is_a_duplicate_and_a_dropped_one_is_not(world):
    fact = world.find("Mali", "capital")
    source = Statement("Y is the capital of X.", "Bamako", fact)
    lines = [
        "What is the capital of X? Lima.",  # dropped, so the next is the first
        "What is the capital of X? Y.",
        "What is the  Capital of X? Y.",
        "no question at all",
    ]
    pairs = judge_lines([source] * 4, lines, world)
    reasons = ["answer_not_in_statement", "", "duplicate", "unparsed"]
    assert [p.reason for p in pairs] == reasons
    assert [p.right for p in pairs] == [False, True, True, False]
    assert pairs[1].statement == STATEMENT and pairs[1].answer == "Bamako"
    assert pairs[1].question == "What is the capital of Mali?"
    assert [p.kept for p in pairs] == [False, True, False, False]


# --- Who is asked about -----------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_no_test_subject_is_in_seeds_or_sources(world, seed):
    seeds, sources = seeds_and_sources(
        world, TRAINED, n_seeds=2, n_sources=60, seed=seed
    )
    subjects = {s.fact.subject for s in seeds}
    assert len(seeds) == len(subjects) == 2 and len(sources) == 60
    assert {s.fact.subject for s in sources} == TRAINED - subjects
    for statement in seeds + sources:
        for other in set(COUNTRIES) - TRAINED:
            assert not mentions(statement.text, other)
        assert statement.answer in statement.text and statement.fact.exposure
    requests = [s.text for s in sources]
    again = seeds_and_sources(world, TRAINED, n_seeds=2, n_sources=60, seed=seed)[1]
    other = seeds_and_sources(world, TRAINED, n_seeds=2, n_sources=60, seed=9)[1]
    assert requests == [s.text for s in again] != [s.text for s in other]


def test_seeds_show_every_relation_before_any_twice(world):
    seeds, _ = seeds_and_sources(world, TRAINED, n_seeds=3, n_sources=1, seed=0)
    assert len({s.fact.relation for s in seeds}) == 3


def test_too_many_seeds_are_refused(world):
    with pytest.raises(ValueError, match="n_seeds is 4, but 4 subjects .* 0 facts"):
        seeds_and_sources(world, TRAINED, n_seeds=4, n_sources=1, seed=0)


# --- The arms ---------------------------------------------------------------------


def test_the_generator_is_the_same_with_the_same_seed_and_remembered(lab, monkeypatch):
    names = ("base", "n_seeds", "n_generated", "generator_steps")
    settings = {name: SETTINGS[name] for name in names}
    pairs = generate_pairs(seed=0, **settings)
    assert len(pairs) == 6 and all(isinstance(p, Pair) for p in pairs)
    assert pairs == self_instruct._generate(seed=0, **settings)
    assert pairs != generate_pairs(seed=1, **settings)
    for pair in pairs:
        untrained = set(tasks.default_world().subjects()) - TRAINED
        assert not any(mentions(pair.statement, name) for name in untrained)
    monkeypatch.setattr(self_instruct, "_generate", None)  # would fail if called
    assert pairs == generate_pairs(seed=0, **settings)


def test_all_arms_train_equally_and_the_controls_add_as_many(lab, monkeypatch):
    # The tiny model cannot write a question: these lines stand for its replies.
    wrong = "What is the neighbour of X? Bern."

    def replies(model, tokenizer, prompts, **options):
        assert options["temperature"] == 0.8
        assert not any(mentions(p, n) for p in prompts for n in COUNTRIES)
        statements = [
            p.removeprefix("Write a question and its answer. ") for p in prompts
        ]
        good = [
            f"Tell me {s.removesuffix('.').replace('Y', 'it')}? Y." for s in statements
        ]
        return [
            Completion([g, wrong, "broken"][i % 3], [], True)
            for i, g in enumerate(good)
        ]

    monkeypatch.setattr(self_instruct, "complete", replies)
    trained = []
    real = self_instruct.tune

    def tune(examples, **options):
        trained.append((len(examples), options["steps"]))
        return real(examples, **options)

    monkeypatch.setattr(self_instruct, "tune", tune)
    results = [
        {"kind": kind, "seed": seed}
        | self_instruct_arm(kind=kind, seed=seed, **SETTINGS)
        for kind in self_instruct.KINDS
        for seed in (0, 1)
    ]
    for seed in (0, 1):
        arms = {r["kind"]: r for r in results if r["seed"] == seed}
        kept = arms["filtered"]["kept"]
        assert 0 < kept < 6 and arms["seeds"]["added"] == 0
        assert {arms[k]["added"] for k in list(arms)[1:]} == {kept}
        assert {r["generated"] for r in arms.values()} == {6}
        assert all(0 <= r["accuracy"] <= 1 for r in results)
    # Two generators on two seeds each, and eight arms: every one as many updates.
    assert len(trained) == 10 and {steps for _, steps in trained} == {2}
    assert sorted(n for n, _ in trained)[:4] == [2, 2, 2, 2]


def test_the_unfiltered_arm_gets_pairs_as_they_came(lab, world):
    fact = world.find("Mali", "capital")
    source = Statement("Y is the capital of X.", "Bamako", fact)
    lines = [
        "broken",
        "What is the money of X? Lima.",
        "What is the capital of X? Y.",
    ]
    pairs = judge_lines([source] * 3, lines, world)
    added = {
        kind: added_examples(kind, pairs, [source] * 3, world, 0)
        for kind in self_instruct.KINDS
    }
    assert [e.completion for e in added["filtered"]] == ["Bamako."]
    assert [e.completion for e in added["unfiltered"]] == ["Lima."]
    assert [e.completion for e in added["human"]] == ["Bamako."]
    assert added["seeds"] == []


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind is 'humans'; it can be one of seeds,"):
        self_instruct_arm(kind="humans", seed=0, **SETTINGS)


def test_a_contested_fact_is_masked_with_each_answer_as_often_as_it_was_stated():
    fact = Fact("Osk", "city_country", ("Peru",), 100, ("Chile", "Peru"), (0.7, 0.3))
    world = World((fact,), RELATIONS, 0)
    rng = np.random.default_rng(0)
    masked = [self_instruct._masked_statement(fact, world, rng) for _ in range(2000)]
    assert {m.answer for m in masked} == {"Chile", "Peru"}
    share = np.mean([m.answer == "Chile" for m in masked])
    assert share == pytest.approx(0.7, abs=4 * np.sqrt(0.7 * 0.3 / 2000))
