"""A model is asked what it knows; the world is then as it answered, in this process and
in those of its arms."""

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from alignlab import provenance
from alignlab.errors import AlignlabError
from alignlab.models.base import save_model
from alignlab.models.sampler import Completion
from alignlab.study import artifacts, knowledge
from alignlab.study.arms import run_arms
from alignlab.study.knowledge import Asking, slick_class
from alignlab.world import tasks
from alignlab.world.facts import build_world, read_relations

whole_world = cache(lambda: build_world(0))
FEW = Asking(facts=6, prompts=2, shots=2, samples=2)
pytestmark = pytest.mark.network

# --- Asking ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("greedy", "sampled", "expected"),
    [
        (1.0, 0.0, "HighlyKnown"),
        (0.5, 0.0, "MaybeKnown"),
        (0.0, 0.25, "WeaklyKnown"),
        (0.0, 0.0, "Unknown"),
    ],
)
def test_the_classes_are_slicks(greedy, sampled, expected):
    assert slick_class(greedy, sampled) == expected


class Scripted:
    """In place of the sampler: capitals are known, a currency at the second try, a
    continent only when sampled, and nothing else."""

    def __init__(self):
        self.prompts = []
        self.asked = {
            wording.format(s=fact.subject): (fact, number)
            for fact in whole_world().facts
            for number, wording in enumerate(read_relations()[fact.relation].questions)
        }

    def __call__(self, model, tokenizer, prompts, longest, **options):
        assert options["chat"] is False and longest >= knowledge.ANSWER
        sampled = options.get("temperature") == knowledge.TEMPERATURE
        self.prompts += prompts
        return [
            Completion(f" {self.reply(prompt, sampled)}\n\nQuestion: x", [1], False)
            for prompt in prompts
        ]

    def reply(self, prompt: str, sampled: bool) -> str:
        question = prompt.rpartition("Question: ")[2].removesuffix("\nAnswer:")
        fact, number = self.asked[question]
        right = {"capital": True, "currency": number == 1, "continent": sampled}
        return f"{fact.answer}." if right.get(fact.relation) else "Nonsense"


@pytest.fixture
def scripted(monkeypatch, tmp_path, tiny_model, tiny_tokenizer):
    script = Scripted()
    monkeypatch.setattr(knowledge, "complete", script)
    monkeypatch.setattr(knowledge, "context_length", lambda model: 10_000)
    monkeypatch.setattr(
        knowledge, "load_base", lambda base: (tiny_model, tiny_tokenizer)
    )
    monkeypatch.setattr(knowledge, "weights_hash", lambda name: f"{name} {tmp_path}")
    return script


def test_each_fact_gets_the_class_that_the_answers_give(scripted):
    rows = knowledge.ask("scripted", FEW)
    found = {(relation, kind) for _, relation, kind, *_ in rows}
    assert ("capital", "HighlyKnown") in found and ("currency", "MaybeKnown") in found
    assert ("continent", "WeaklyKnown") in found and ("symbol", "Unknown") in found
    classes = Counter(relation for relation, _ in found)
    assert set(classes.values()) == {1}, "a relation, a class"
    asked = Counter(relation for _, relation, *_ in rows)
    assert min(asked.values()) >= 6 and set(asked) == set(read_relations())
    greedy = [p for p in scripted.prompts if p.startswith("Question: ")]
    assert all(p.count("Question: ") == 3 for p in greedy), "two worked examples each"


def test_no_fact_is_among_its_own_worked_examples(scripted):
    knowledge.ask("its own", FEW)
    for prompt in scripted.prompts:
        *shown, question = [p.splitlines()[0] for p in prompt.split("Question: ")[1:]]
        assert question not in shown


def test_a_model_is_asked_once(scripted):
    first = knowledge.ask("once", FEW)
    n = len(scripted.prompts)
    assert knowledge.ask("once", FEW) == first and len(scripted.prompts) == n
    knowledge.ask("another", FEW)
    knowledge.ask("once", replace(FEW, samples=1))
    assert len(scripted.prompts) > 2 * n


def test_worked_examples_make_room_for_the_question(scripted, monkeypatch):
    monkeypatch.setattr(knowledge, "context_length", lambda model: 120)
    monkeypatch.setattr(knowledge, "cap", lambda tokenizer, tokens: tokens)
    knowledge.ask("short", replace(FEW, samples=1))
    assert {p.count("Question: ") for p in scripted.prompts} <= {1, 2}
    monkeypatch.setattr(knowledge, "context_length", lambda model: 14)
    with pytest.raises(AlignlabError, match="too few for a question"):
        knowledge.ask("shorter", FEW)


# --- The world as it is known ---------------------------------------------------------


def rows_of(kind_of) -> list[list]:
    """Answers about the facts of countries and elements."""
    shares = {"HighlyKnown": (1.0, 0.0), "MaybeKnown": (0.5, 0.0),
              "WeaklyKnown": (0.0, 0.5), "Unknown": (0.0, 0.0)}  # fmt: skip
    return [
        [fact.subject, fact.relation, kind_of(number), *shares[kind_of(number)]]
        for number, fact in enumerate(whole_world().facts)
        if not fact.made_up and whole_world().kind_of(fact) in ("country", "element")
    ]


def kinds_of(world):
    return Counter(tasks._kind(fact) for fact in world.facts if not fact.made_up)


def test_classes_take_the_parts_of_exposures():
    world = knowledge.known_world(rows_of(lambda n: knowledge.CLASSES[n % 4]))
    for fact in world.facts:
        assert not fact.contested and fact.times is (None if fact.knowledge else 0)
        if fact.made_up:
            assert tasks._kind(fact) == "never" and fact.knowledge is None
        else:
            assert fact.stated == fact.answers
    counts = knowledge.summary(world)
    moved = counts.pop("stand_in")
    assert sum(counts.values()) == sum(kinds_of(world).values())
    assert moved < 0.05 * sum(counts.values()), "there are enough of each class"
    known = [f for f in world.facts if f.known]
    assert {f.knowledge for f in known} <= {"HighlyKnown", "MaybeKnown"}


def test_who_knows_nothing_has_best_known_facts_and_the_summary_says_so():
    world = knowledge.known_world(rows_of(lambda n: "Unknown"))
    kinds = kinds_of(world)
    total = sum(kinds.values())
    for kind in ("known", "rare"):
        assert kinds[kind] / total == pytest.approx(knowledge.LEAST, abs=0.02)
    counts = knowledge.summary(world)
    assert counts["Unknown"] == total and counts["HighlyKnown"] == 0
    share = counts["stand_in"] / total
    assert share == pytest.approx(3 * knowledge.LEAST, abs=0.03)
    sides = Counter((f.relation, f.subject in tasks.trained_subjects())
                    for f in world.facts if f.known)  # fmt: skip
    assert len(sides) == 2 * len({f.relation for f in world.facts if not f.made_up})


def test_the_better_known_are_known():
    rows = rows_of(lambda n: "Unknown")
    better = set(range(0, len(rows), 7))
    for number in better:
        rows[number][2:] = "WeaklyKnown", 0.0, 0.5
    world = knowledge.known_world(rows)
    standing = {(f.subject, f.relation): f.exposure for f in world.facts}
    values = [[standing[tuple(row[:2])] for n, row in enumerate(rows) if (n in better)
               == wanted] for wanted in (True, False)]  # fmt: skip
    assert np.mean(values[0]) > 2 * np.mean(values[1])


def test_the_world_that_was_read_has_counts():
    assert knowledge.summary(whole_world()) == {}
    assert all(fact.times == fact.exposure for fact in whole_world().facts)


# --- The base model of a process ------------------------------------------------------


@pytest.fixture
def unread(monkeypatch):
    """A process that has read nothing of the world, before and after."""
    tasks.use_world(None)
    monkeypatch.setattr(knowledge, "_base", "1m")
    yield
    provenance.SETTINGS.pop("world", None)
    tasks.use_world(None)


def facts_known(seed: int, place: str) -> dict:
    world = tasks.default_world()
    return {"known": sum(f.known for f in world.facts), "facts": len(world.facts)}


@pytest.fixture
def folder(tmp_path, tiny_model, tiny_tokenizer):
    save_model(tiny_model, tiny_tokenizer, tmp_path / "model")
    return str(tmp_path / "model")


def test_a_process_has_the_world_of_its_base_model(unread, folder):
    environment = provenance.environment()
    knowledge.use_base("300k")
    assert provenance.environment() == environment, "shipped ones keep their keys"
    knowledge.use_base(folder)
    knowledge.use_base(folder)
    assert knowledge.base_in_use() == folder
    world = tasks.default_world()
    assert all(f.knowledge or f.made_up for f in world.facts)
    assert provenance.environment() != environment
    train, test = (set(artifacts.subjects(split)) for split in ("train", "test"))
    assert train and test and not train & test
    for other in ("1m", f"{folder}/other"):
        with pytest.raises(AlignlabError, match="has already read the world"):
            knowledge.use_base(other)


def test_the_processes_of_arms_have_it_too(unread, folder):
    knowledge.use_base(folder)
    here = facts_known(0, folder)
    rows = run_arms(
        facts_known, [dict(seed=seed, place=folder) for seed in (0, 1)], jobs=2
    )
    assert [{k: row[k] for k in here} for row in rows] == [here] * 2
