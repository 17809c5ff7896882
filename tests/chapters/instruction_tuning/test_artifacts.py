"""What other chapters use: fair questions, no leaks, arms measured by the same rule."""

import json
import os
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from alignlab import cache
from alignlab.chapters.instruction_tuning import artifacts
from alignlab.models.sampler import Completion
from alignlab.study import tuning
from alignlab.world import tasks
from alignlab.world.facts import KNOWN_FROM, RELATIONS, split_subjects
from alignlab.world.tasks import Example


def test_families_count_the_same():
    by_family = {"a": 1.0, "b": 0.0, "c": 0.5}
    assert artifacts.mean_over(by_family, ["a", "c"]) == 0.75
    assert artifacts.mean_over(by_family, by_family) == 0.5


def test_an_arm_is_scored_over_trained_and_held_out_families(monkeypatch):
    by_family = dict.fromkeys(tasks.trained_families(), 0.25)
    by_family |= dict.fromkeys(tasks.held_out_families(), 0.75)
    monkeypatch.setattr(artifacts, "accuracy_by_family", lambda qs, replies: by_family)
    monkeypatch.setattr(artifacts, "judge", lambda qs, replies: {"format": 0.5})
    expected = {"trained": 0.25, "held_out": 0.75, "format": 0.5}
    assert artifacts.score_by_family([], []) == expected | {"by_family": by_family}


# --- Questions about facts ------------------------------------------------------------


@pytest.mark.parametrize("n", [5, 36, 100])
def test_questions_ask_each_known_fact_before_any_comes_again(world, n):
    subjects = {f"Land{i}" for i in range(12)} | {"Rareland", "Newland"}
    asked = artifacts.questions_about(world, subjects, n, seed=3)
    assert len(asked) == n
    assert all(e.fact.known for e in asked)
    counts = Counter((e.fact.subject, e.family) for e in asked)
    assert len(counts) == min(n, 36)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert asked == artifacts.questions_about(world, subjects, n, seed=3)
    other = artifacts.questions_about(world, subjects, n, seed=4)
    assert [e.prompt for e in asked] != [e.prompt for e in other]
    if n == 100:  # a second time mostly in other words
        first, second = ({e.prompt for e in asked[k : k + 36]} for k in (0, 36))
        assert len(first & second) < 18


def test_fewer_questions_are_the_first_of_more(world):
    subjects = {f"Land{i}" for i in range(12)}
    many = artifacts.questions_about(world, subjects, 100, seed=0)
    assert artifacts.questions_about(world, subjects, 10, seed=0) == many[:10]


# --- Asking the base model ----------------------------------------------------------


@pytest.mark.parametrize(
    "text, cut, ended",
    [
        ("Paris. Question: What is", "Paris.", True),
        ("Paris.\nOslo.", "Paris.", True),
        ("Paris. And more of it", "Paris.", True),
        ("Paris", "Paris", False),
        ("Paris.", "Paris.", False),
        ("", "", False),
    ],
)
def test_a_few_shot_reply_ends_where_the_next_question_begins(text, cut, ended):
    found = artifacts.cut_after_answer(Completion(text, [7, 8], False))
    assert found == Completion(cut, [7, 8], ended)
    assert artifacts.cut_after_answer(Completion(text, [7], True)).ended


def test_worked_examples_are_of_the_family_and_from_training(
    monkeypatch, tiny_tokenizer
):
    drawn = []

    def examples(family, n, *, split, seed):
        drawn.append((family, n, split, seed))
        towns = {"France": "Paris", "Norway": "Oslo", "Peru": "Lima"}
        return [Example(family, f"{k}?", f"{v}.", (v,)) for k, v in towns.items()][:n]

    monkeypatch.setattr(tasks, "examples", examples)
    question = Example("capital", "Kenya?", "Nairobi.", ("Nairobi",))
    assert artifacts.plain_prompt(tiny_tokenizer, question, 0, 5) == "Kenya?"
    prompt = artifacts.plain_prompt(tiny_tokenizer, question, 2, 5)
    assert prompt == (
        "Question: France? Answer: Paris. Question: Norway? Answer: Oslo. "
        "Question: Kenya? Answer:"
    )
    assert drawn == [("capital", 2, "train", 5)]


# --- Whole arms ---------------------------------------------------------------------


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """An empty cache that knows the downloaded sources."""
    sources = cache.cache_dir() / "sources"
    sources.mkdir(parents=True, exist_ok=True)
    os.symlink(sources, tmp_path / "sources")
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))


@pytest.fixture
def trained_on(monkeypatch):
    """What the arms fine-tune on, in order."""
    seen, losses = [], []

    def tune(examples, **options):
        seen.append(list(examples))
        losses.append(options.get("loss_on", "completion"))
        return original(examples, **options)

    original = tuning.tune
    monkeypatch.setattr(tuning, "tune", tune)
    monkeypatch.setattr(artifacts, "tune", tune)
    return SimpleNamespace(examples=seen, losses=losses)


def is_share(value):
    return 0 <= value <= 1


def asked_of(examples):
    return {e.prompt for e in examples}


@pytest.mark.network
def test_test_questions_are_of_every_family_and_never_in_training():
    asked = artifacts.test_questions(3)
    assert asked == artifacts.test_questions(3)
    assert Counter(e.family for e in asked) == dict.fromkeys(tasks.FAMILIES, 3)
    for family in tasks.FAMILIES:
        wordings = tasks.FAMILIES[family].instructions
        prompts = {
            split: {
                wording.format(**item.fields)
                for item in tasks.table(family)
                if item.split == split
                for wording in wordings
            }
            for split in ("train", "test")
        }
        mine = asked_of(e for e in asked if e.family == family)
        assert mine <= prompts["test"] and not mine & prompts["train"]


@pytest.mark.network
def test_an_instruction_arm_is_a_mixture_learnt_and_asked_back(own_cache, trained_on):
    recipe = dict(seed=1, base="300k", n_examples=48, steps=2, n_test=1)
    result = artifacts.instruction_arm(**recipe)
    assert set(result) == {"by_family", "trained", "held_out", "format"}
    assert set(result["by_family"]) == set(tasks.FAMILIES)
    assert all(map(is_share, [*result["by_family"].values(), result["format"]]))
    for name in ("trained", "held_out"):
        families = getattr(tasks, f"{name}_families")()
        mean = np.mean([result["by_family"][f] for f in families])
        assert result[name] == pytest.approx(mean)
    assert json.loads(json.dumps(result)) == result
    [examples] = trained_on.examples
    assert examples == tasks.mixture(48, weights="capped", seed=1)
    assert not asked_of(examples) & asked_of(artifacts.test_questions(20))
    # The same without the stored policy, which the later notebooks start from:
    families = list(tasks.trained_families())
    assert artifacts.instruction_arm(families=families, **recipe) == result
    artifacts.instruction_arm(**recipe)
    assert len(trained_on.examples) == 2, "the policy was there already"
    artifacts.instruction_arm(loss_on="all", **recipe)
    assert trained_on.examples[2] == examples, "only the loss is another"
    assert trained_on.losses == ["completion", "completion", "all"]


@pytest.mark.network
def test_the_base_model_is_asked_bare_and_after_worked_examples(monkeypatch):
    asked = []
    original = artifacts.complete

    def complete(model, tokenizer, prompts, longest, **options):
        assert longest == 24
        asked.append((prompts, options["chat"]))
        return original(model, tokenizer, prompts, longest, **options)

    monkeypatch.setattr(artifacts, "complete", complete)
    bare = artifacts.untuned_arm(seed=0, base="300k", n_test=1)
    shown = artifacts.untuned_arm(seed=0, base="300k", shots=3, n_test=1)
    assert set(bare) == set(shown) and is_share(shown["trained"])
    assert [chat for _, chat in asked] == [False, False]
    questions = artifacts.test_questions(1)
    assert asked[0][0] == [q.prompt for q in questions]
    for prompt, question in zip(asked[1][0], questions, strict=True):
        assert prompt.endswith(f"Question: {question.prompt} Answer:")
        assert 1 <= prompt.count("Answer:") - 1 <= 3


@pytest.mark.network
def test_elicitation_asks_the_untouched_half_about_four_kinds_of_facts(
    trained_on, monkeypatch
):
    asked = []
    judge = artifacts.judge
    monkeypatch.setattr(
        artifacts, "judge", lambda qs, replies: asked.append(qs) or judge(qs, replies)
    )
    result = artifacts.elicitation_arm(seed=0, base="300k", steps=2, n_test=30)
    kinds = {"known", "known_new_wording", "rare", "never"}
    assert set(result) == kinds | {"format", "chance"}
    assert all(map(is_share, result.values()))
    first, second = split_subjects(tasks.default_world(), 0)
    [examples] = trained_on.examples
    assert len(examples) == 2 * tuning.BATCH, "as many as are read"
    assert all(e.fact.subject in first and e.fact.known for e in examples)
    for questions in asked:
        assert len(questions) == 30
        assert all(q.fact.subject in second for q in questions)
    known, new_wording, rare, never = asked
    assert all(q.fact.known for q in (*known, *new_wording))
    assert all(0 < q.fact.exposure < KNOWN_FROM for q in rare)
    assert all(q.fact.exposure == 0 for q in never)
    for q in new_wording:
        held_out = RELATIONS[q.family].held_out_questions
        assert q.prompt in {w.format(s=q.fact.subject) for w in held_out}
    trained = asked_of(examples)
    assert not trained & asked_of([*known, *new_wording, *rare, *never])
