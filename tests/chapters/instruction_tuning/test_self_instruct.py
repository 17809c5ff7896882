"""Self-instruct: each rule of the filter, the parser, who may be asked about, and the
four arms end to end on a tiny world with a tiny model."""

import copy

import pytest

from alignlab.chapters.instruction_tuning import self_instruct
from alignlab.chapters.instruction_tuning.self_instruct import (
    REASONS,
    Pair,
    Statement,
    differences,
    fill,
    generate_pairs,
    is_right_pair,
    judge_lines,
    lessons,
    parse,
    reason_to_drop,
    seeds_and_sources,
    summary,
    synthetic,
    synthetic_arm,
    write,
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
GOOD = ("Which city is the capital of Mali?", "Bamako")
DIALS = {
    "size": "300k",
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
        tuning, "load_base", lambda *_: (copy.deepcopy(tiny_model), tiny_tokenizer)
    )
    monkeypatch.setattr(self_instruct, "weights_hash", lambda: "tiny")
    monkeypatch.setattr(self_instruct, "MAX_TOKENS", 12)


# --- The filter -------------------------------------------------------------------


def test_a_good_pair_passes():
    assert reason_to_drop(STATEMENT, "Mali", *GOOD) == ""
    assert (
        reason_to_drop(STATEMENT, "Mali", "Name the capital of Mali.", "Bamako") == ""
    )


@pytest.mark.parametrize(
    ("reason", "question", "answer"),
    [
        ("unparsed", "", ""),
        (
            "too_long",
            "What is the capital of Mali" + ", and of Mali" * 5 + "?",
            "Bamako",
        ),
        ("too_long", GOOD[0], "Bamako or one of the others"),
        ("not_an_instruction", "The capital of Mali.", "Bamako"),
        ("subject_missing", "Which city is the capital of Malta?", "Bamako"),
        ("answer_in_question", "Is Bamako the capital of Mali?", "Bamako"),
        ("answer_not_in_statement", GOOD[0], "Lima"),
        ("answer_not_in_statement", GOOD[0], "Bama"),
        ("off_topic", "What is the money of Mali?", "Bamako"),
    ],
)
def test_each_rule_drops_what_it_should(reason, question, answer):
    assert reason_to_drop(STATEMENT, "Mali", question, answer) == reason


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
    counted = summary(pairs)
    assert (counted["generated"], counted["kept"]) == (4, 1)
    assert counted["filter_yield"] == 0.25
    assert counted["precision_generated"] == pytest.approx(2 / 3)
    assert counted["precision_kept"] == 1.0
    assert sum(counted["reasons"].values()) == 3
    assert set(counted["reasons"]) == set(REASONS)


def test_names_inside_longer_names_do_not_count():
    text = "Guinea-Bissau is next to Nigeria."
    assert not self_instruct.mentions(text, "Guinea")
    assert not self_instruct.mentions(text, "Bissau")
    assert not self_instruct.mentions(text, "Niger")
    assert self_instruct.mentions(text, "Guinea-Bissau")
    assert "continent" in self_instruct.without("the continent of tin", "tin")


# --- Writing and reading pairs ----------------------------------------------------


def test_names_are_masked_in_what_the_generator_reads_and_writes(world):
    seeds, _ = seeds_and_sources(world, TRAINED, n_seeds=3, n_sources=1, seed=0)
    for seed, lesson in zip(seeds, lessons(seeds, world, 0), strict=True):
        whole = f"{lesson.prompt} {lesson.completion}"
        for name in (seed.fact.subject, seed.answer):
            assert not self_instruct.mentions(whole, name)
        question, answer = parse(lesson.completion)
        assert answer == "Y" and self_instruct.mentions(question, "X")
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
                assert parse(write(question, answer)) == (question, answer)
                assert is_right_pair(world, fact.subject, question, answer)


@pytest.mark.parametrize(
    "line", ["", "What is the capital of Mali?", "Bamako.", "What? Who? Me.", "Mali"]
)
def test_lines_without_one_question_and_one_answer_are_not_read(line):
    assert parse(line) is None


def test_right_needs_the_fact_that_is_asked_for(world):
    assert not is_right_pair(world, "Mali", "What is the money of Mali?", "Bamako")
    assert not is_right_pair(world, "Mali", "What is the capital of Peru?", "Bamako")
    assert not is_right_pair(world, "Mali", "What is Mali?", "Bamako")
    assert is_right_pair(world, "Mali", "Say the currency that Mali has.", "franc")


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
            assert not self_instruct.mentions(statement.text, other)
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
    dials = {k: DIALS[k] for k in ("size", "n_seeds", "n_generated", "generator_steps")}
    pairs = generate_pairs(seed=0, **dials)
    assert len(pairs) == 6 and all(isinstance(p, Pair) for p in pairs)
    world, key = tasks.default_world(), {"temperature": 0.8, "progress": False}
    assert pairs == self_instruct._generate(seed=0, **dials, **key)
    assert pairs != generate_pairs(seed=1, **dials)
    assert {p.subject for p in pairs} <= TRAINED < set(world.subjects())
    monkeypatch.setattr(self_instruct, "_generate", None)  # would fail if called
    assert pairs == generate_pairs(seed=0, **dials)


def test_all_arms_train_equally_and_the_controls_add_as_many(lab, monkeypatch):
    # The tiny model cannot write a question: these lines stand for its replies.
    wrong = "What is the neighbour of X? Bern."

    def replies(model, tokenizer, prompts, **options):
        assert options["temperature"] == 0.8
        assert not any(self_instruct.mentions(p, n) for p in prompts for n in COUNTRIES)
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
    results = synthetic([0, 1], jobs=1, **DIALS)
    assert len(results) == 8
    for seed in (0, 1):
        arms = {r["kind"]: r for r in results if r["seed"] == seed}
        assert list(arms) == list(self_instruct.KINDS)
        kept = arms["filtered"]["kept"]
        assert 0 < kept < 6 and arms["seeds"]["added"] == 0
        assert {arms[k]["added"] for k in list(arms)[1:]} == {kept}
        assert arms["human"]["precision"] == 1.0 > arms["unfiltered"]["precision"]
        assert arms["seeds"]["precision"] is None
        assert all(0 <= r["accuracy"] <= 1 and 0 <= r["format"] <= 1 for r in results)
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
        kind: self_instruct._added(kind, pairs, [source] * 3, world, 0)
        for kind in self_instruct.KINDS
    }
    assert [e.completion for e in added["filtered"]] == ["Bamako."]
    assert [e.completion for e in added["unfiltered"]] == ["Lima."]
    assert [e.completion for e in added["human"]] == ["Bamako."]
    assert added["seeds"] == []


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind is 'humans'; it can be one of seeds,"):
        synthetic_arm(kind="humans", seed=0, **DIALS)


def test_differences_pair_the_arms_of_a_seed():
    accuracy = {"seeds": 0.2, "filtered": 0.5, "unfiltered": 0.6, "human": 0.9}
    results = [
        {
            "kind": kind,
            "seed": seed,
            "accuracy": value + 0.01 * seed * (kind == "seeds"),
        }
        for kind, value in accuracy.items()
        for seed in (4, 3)
    ]
    found = differences(results)
    assert found["generated_minus_seeds_accuracy"] == pytest.approx([0.27, 0.26])
    assert found["filtered_minus_unfiltered_accuracy"] == pytest.approx([-0.1, -0.1])
