"""The experiments of notebook 01: arms differ in one thing, and nothing leaks."""

import json
from collections import Counter

import pytest

from alignlab.chapters.instruction_tuning import mid_training, runs
from alignlab.study import tuning
from alignlab.world import tasks
from alignlab.world.facts import split_subjects
from alignlab.world.tasks import Example

# --- Examples -----------------------------------------------------------------------


def test_shuffled_replies_stay_in_their_family_and_none_is_lost(world):
    subjects = {f"Land{i}" for i in range(12)}
    examples = runs.questions_about(world, subjects, 36, seed=0)
    examples.append(Example("opposite", "Opposite of hot?", "cold.", ("cold",)))
    shuffled = runs.shuffle_completions(examples, seed=1)
    for name in ("prompt", "family", "answers", "fact"):
        assert [getattr(e, name) for e in shuffled] == [
            getattr(e, name) for e in examples
        ]
    for family in {e.family for e in examples}:
        before = Counter(e.completion for e in examples if e.family == family)
        assert before == Counter(e.completion for e in shuffled if e.family == family)
    moved = sum(a.completion != b.completion for a, b in zip(examples, shuffled))
    assert moved > 27, "of 36; in a random order one in twelve stays"
    assert shuffled[-1] == examples[-1], "alone in its family"
    assert runs.shuffle_completions(examples, seed=1) == shuffled
    assert runs.shuffle_completions(examples, seed=2) != shuffled


# --- The design of the sweeps -------------------------------------------------------


@pytest.fixture
def arms(monkeypatch):
    """What a sweep would run, instead of running it."""

    def designed(name, **settings):
        found = []
        monkeypatch.setattr(
            runs,
            "run_arms",
            lambda run, arms, **options: found.append((run, arms)) or [],
        )
        getattr(runs, f"sweep_{name}")(**settings)
        [(run, arms)] = found
        json.dumps(arms)
        return run, arms

    return designed


def differences(arms):
    """Names of the parameters that are not the same in all arms."""
    names = {name for arm in arms for name in arm}
    values = {n: {json.dumps(arm.get(n)) for arm in arms} for n in names}
    return {name for name in names if len(values[name]) > 1}


COMMON = {"seeds": [0, 3], "base": "300k", "steps": 4, "n_test": 2}


def test_the_curve_over_n_has_its_control_at_the_largest_n(arms):
    run, found = arms("few_examples", ns=[0, 4, 64], **COMMON)
    assert run is runs.few_examples_arm
    plain = [(a["seed"], a["n"]) for a in found if not a["shuffled"]]
    assert plain == [(s, n) for s in (0, 3) for n in (0, 4, 64)]
    assert [(a["seed"], a["n"]) for a in found if a["shuffled"]] == [
        (0, 64),
        (3, 64),
    ]
    assert differences(found) == {"seed", "n", "shuffled"}


def test_arms_of_the_diversity_sweep_differ_in_families_only(arms):
    settings = COMMON | {"n_examples": 64, "ks": [1, 5, 99]}
    run, found = arms("diversity", **settings)
    assert run is runs.transfer_arm and len(found) == 2 * 3
    assert differences(found) == {"seed", "families"}
    assert {a["weights"] for a in found} == {"equal"}
    for seed in (0, 3):
        of_seed = [a["families"] for a in found if a["seed"] == seed]
        assert of_seed == [runs.draw_families(k, seed) for k in (1, 5, 99)]
        assert [len(f) for f in of_seed] == [1, 5, len(tasks.trained_families())]


def test_the_control_of_diversity_changes_the_number_of_examples_only(arms):
    run, found = arms("volume", ns=[8, 64], **COMMON)
    assert run is runs.transfer_arm
    assert differences(found) <= {"seed", "families", "n_examples"}
    for seed in (0, 3):
        of_seed = [a for a in found if a["seed"] == seed]
        assert [a["n_examples"] for a in of_seed] == [8, 64]
        assert of_seed[0]["families"] == of_seed[1]["families"]
        [family] = of_seed[0]["families"]
        assert tasks.sizes([family])[family] >= 64


def test_the_other_sweeps_change_one_thing(arms):
    mixed = COMMON | {"n_examples": 64}
    run, found = arms("mixtures", schemes=["equal", "capped"], **mixed)
    assert run is runs.instruction_arm and differences(found) == {"seed", "weights"}
    run, found = arms("losses", **mixed)
    assert run is runs.mask_arm and differences(found) == {"seed", "loss_on"}
    assert {a["loss_on"] for a in found} == {"completion", "all", "balanced"}
    run, found = arms("mixed", n_wording_test=3, **mixed)
    assert run is runs.transfer_arm and differences(found) == {"seed"}


def test_diversity_rows_say_how_many_families_they_are_from(monkeypatch):
    monkeypatch.setattr(runs, "run_arms", lambda run, arms, **options: arms)
    settings = COMMON | {"n_examples": 64, "ks": [1, 3]}
    assert [row["k"] for row in runs.sweep_diversity(**settings)] == [1, 3, 1, 3]


def test_generated_instructions_are_compared_for_every_seed(arms):
    own = {"n_seeds": 2, "n_generated": 6, "generator_steps": 2}
    run, found = arms("self_instruct", **COMMON, **own)
    assert run is runs.self_instruct.self_instruct_arm
    assert differences(found) == {"seed", "kind"}
    assert [a["seed"] for a in found[:2]] == [0, 3], "two generators side by side"


def test_mid_training_starts_with_the_arms_that_others_wait_for(monkeypatch):
    monkeypatch.setattr(runs, "run_arms", lambda run, arms, **options: arms)
    written = []
    monkeypatch.setattr(runs, "load_base", lambda base: (None, "tokenizer"))
    monkeypatch.setattr(mid_training, "text_rows", lambda *a: written.append(a))
    settings = {"decay_steps": 2, "n_questions": 4, "n_documents": 50}
    for known, expected in ((False, [("tokenizer", 50)]), (True, [])):
        written.clear()
        monkeypatch.setattr(runs, "is_remembered", lambda run, arm, known=known: known)
        found = runs.sweep_mid_training(seeds=[3, 5], base="300k", **settings)
        assert written == expected, "the corpus is written once, before the arms"
    names = [(arm["arm"], arm["seed"]) for arm in found]
    assert names == [(a, s) for a in mid_training.ARMS for s in (3, 5)]


@pytest.mark.parametrize("shipped", [(0,), (0, 1, 2)])
def test_each_base_model_is_asked_bare_once_and_stands_for_its_seeds(
    monkeypatch, shipped
):
    found = []

    def run_arms(run, arms, **options):
        assert run is runs.untuned_choices_arm
        found.extend(arms)
        return [{**arm, "accuracy": arm["shots"] + arm["seed"]} for arm in arms]

    monkeypatch.setattr(runs, "run_arms", run_arms)
    monkeypatch.setattr(runs, "pretraining_seeds", lambda base: shipped)
    settings = {k: v for k, v in COMMON.items() if k != "steps"}
    settings["seeds"] = [3, 4, 6]
    rows = runs.sweep_untuned(shots=4, n_wording_test=2, **settings)
    bare = [a["seed"] for a in found if not a["shots"]]
    assert bare == ([0] if len(shipped) == 1 else [0, 1])
    models = [0, 0, 0] if len(shipped) == 1 else [0, 1, 0]
    expected = [(s, 0, m) for s, m in zip([3, 4, 6], models)]
    expected += [(s, 4, 4 + s) for s in (3, 4, 6)]
    assert [(r["seed"], r["shots"], r["accuracy"]) for r in rows] == expected


# --- Whole arms ---------------------------------------------------------------------


@pytest.fixture
def trained_on(monkeypatch):
    """The examples that the arms fine-tune on, in order."""
    seen = []

    def tune(examples, **options):
        seen.append(list(examples))
        return tuning.tune(examples, **options)

    monkeypatch.setattr(runs, "tune", tune)
    return seen


def is_share(value):
    return 0 <= value <= 1


@pytest.mark.network
def test_few_examples_come_from_one_half_and_the_other_is_asked(
    trained_on, monkeypatch
):
    asked = []
    judge = runs.judge
    monkeypatch.setattr(
        runs, "judge", lambda qs, replies: asked.append(qs) or judge(qs, replies)
    )
    common = dict(seed=0, base="300k", steps=2, n_test=6)
    results = [
        runs.few_examples_arm(n=0, shuffled=False, **common),
        runs.few_examples_arm(n=20, shuffled=False, **common),
        runs.few_examples_arm(n=20, shuffled=True, **common),
    ]
    for result in results:
        assert set(result) == {"accuracy", "format"} and is_share(result["accuracy"])
    plain, shuffled = trained_on  # n = 0 trains on nothing
    assert len(plain) == len(shuffled) == 20
    assert [e.prompt for e in plain] == [e.prompt for e in shuffled]
    assert plain != shuffled
    first, second = split_subjects(tasks.default_world(), 0)
    assert all(e.fact.subject in first and e.fact.known for e in plain)
    assert asked[0] == asked[1] == asked[2] and len(asked[0]) == 6
    assert all(q.fact.subject in second and q.fact.known for q in asked[0])
