"""The sweeps of notebook 01: closed forms of what is measured, fair arms, no leaks."""

import json
import os
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from alignlab import cache
from alignlab.chapters.instruction_tuning import runs as sweeps
from alignlab.models.sampler import Completion
from alignlab.study import tuning
from alignlab.world import tasks
from alignlab.world.facts import KNOWN_FROM, RELATIONS, Fact, World, split_subjects
from alignlab.world.tasks import Example

# --- Reading numbers off curves -----------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_n_is_read_off_between_the_points_in_doublings(scale):
    # Straight in log2(1 + n): 0, 1, 2, 3, 4 doublings.
    ns, values = [0, 1, 3, 7, 15], scale * np.array([0, 0.25, 0.5, 0.75, 1])
    assert sweeps.n_at_share(ns, values) == pytest.approx(2**3.6 - 1)
    assert sweeps.n_at_share(ns, values, 0.75) == pytest.approx(7)
    assert sweeps.n_at_share(ns, values, 0.5) == pytest.approx(3)
    assert sweeps.n_at_share(ns, values, 1.0) == pytest.approx(15)


def test_the_first_crossing_counts_and_the_ceiling_is_the_highest_point():
    values = [0, 0.95, 0.5, 1.0]
    assert sweeps.n_at_share([0, 1, 3, 7], values, 0.95) == pytest.approx(1)
    falling = [0.0, 0.5, 1.0, 0.2]
    assert sweeps.n_at_share([0, 1, 3, 7], falling, 1.0) == pytest.approx(3)


def test_n_is_at_least_one():
    assert sweeps.n_at_share([0, 4], [0.95, 1.0]) == 1
    assert sweeps.n_at_share([8, 64], [0.95, 1.0]) == 8
    assert sweeps.n_at_share([0, 1], [0.0, 1.0], 0.1) == 1, "not a tenth of an example"


def test_more_than_the_ceiling_is_never_reached():
    with pytest.raises(ValueError, match="never reach 1.5"):
        sweeps.n_at_share([1, 2], [0.5, 1.0], 1.5)


def test_the_slope_is_what_a_doubling_brings():
    ks = [1, 3, 11, 39]
    assert sweeps.slope_per_doubling(ks, 0.2 + 0.03 * np.log2(ks)) == pytest.approx(
        0.03
    )
    assert sweeps.slope_per_doubling(ks, [0.4] * 4) == pytest.approx(0, abs=1e-12)
    assert sweeps.slope_per_doubling([1, 2], [0.5, 0.4]) == pytest.approx(-0.1)


def test_the_spread_over_wordings():
    assert sweeps.relative_spread([[0.3, 0.3, 0.3]]) == pytest.approx(0)
    assert sweeps.relative_spread([[0, 0.8, 0, 0]]) == pytest.approx(3 / 4)
    rows = [[1.0, 0.5], [0.2, 0.2], [0.0, 0.0]]
    assert sweeps.relative_spread(rows) == pytest.approx((0.25 + 0) / 2)
    assert sweeps.relative_spread(np.array(rows) / 2) == sweeps.relative_spread(rows)


def test_families_count_the_same():
    by_family = {"a": 1.0, "b": 0.0, "c": 0.5}
    assert sweeps.mean_over(by_family, ["a", "c"]) == 0.75
    assert sweeps.mean_over(by_family, by_family) == 0.5


def test_an_arm_is_summed_up_over_trained_and_held_out_families(monkeypatch):
    by_family = dict.fromkeys(tasks.trained_families(), 0.25)
    by_family |= dict.fromkeys(tasks.held_out_families(), 0.75)
    monkeypatch.setattr(sweeps, "accuracy_by_family", lambda qs, replies: by_family)
    monkeypatch.setattr(sweeps, "judge", lambda qs, replies: {"format": 0.5})
    expected = {"trained": 0.25, "held_out": 0.75, "format": 0.5}
    assert sweeps.summary([], []) == expected | {"by_family": by_family}


@pytest.fixture
def three_families(monkeypatch):
    monkeypatch.setattr(tasks, "trained_families", lambda: ("a", "b", "c"))


def scored(seed, weights, a, b, c):
    by_family = {"a": a, "b": b, "c": c, "held out": 0.5}
    return {"seed": seed, "weights": weights, "by_family": by_family}


def test_the_worst_family_that_can_be_solved_is_compared_within_a_seed(three_families):
    rows = [
        scored(0, "equal", 0.9, 0.6, 0.0),
        scored(1, "equal", 0.4, 0.8, 0.1),
        scored(1, "proportional", 0.3, 0.7, 0.9),
        scored(0, "proportional", 0.2, 1.0, 0.0),
        scored(0, "third", 0.0, 0.0, 0.3),
        scored(1, "third", 0.0, 0.0, 0.3),
    ]
    # No scheme solves c: the best reaches 0.45 over both seeds. So it does not count.
    gain = sweeps.worst_family_gain(rows, "equal", "proportional")
    assert gain == pytest.approx([0.6 - 0.2, 0.4 - 0.3])
    back = sweeps.worst_family_gain(rows, "proportional", "equal")
    assert sorted(back) == pytest.approx(sorted(-g for g in gain))


def test_a_family_that_any_scheme_solves_counts(three_families):
    rows = [
        scored(0, "equal", 0.9, 0.9, 0.1),
        scored(0, "proportional", 0.9, 0.9, 0.2),
        scored(0, "third", 0.0, 0.0, 0.5),
    ]
    gain = sweeps.worst_family_gain(rows, "equal", "proportional")
    assert gain == pytest.approx([-0.1])


def test_where_nothing_is_solved_no_scheme_gains(three_families):
    rows = [scored(0, w, 0.1, 0.1, 0.1) for w in ("equal", "proportional")]
    assert sweeps.worst_family_gain(rows, "equal", "proportional") == [0.0]


def test_small_families_have_the_fewest_examples(monkeypatch):
    sizes = {"a": 5, "b": 900, "c": 30, "d": 10, "held out": 1}
    monkeypatch.setattr(tasks, "sizes", lambda: sizes)
    monkeypatch.setattr(tasks, "trained_families", lambda: ("a", "b", "c", "d"))
    assert sweeps.small_families() == ("a", "d")
    assert sweeps.small_families(0.25) == ("a",)
    assert sweeps.small_families(1) == ("a", "d", "c", "b")


def test_a_larger_draw_of_families_holds_the_smaller():
    trained = tasks.trained_families()
    for seed in range(5):
        draws = [sweeps.drawn_families(k, seed) for k in range(1, len(trained) + 1)]
        for k, (smaller, larger) in enumerate(zip(draws, draws[1:]), start=1):
            assert larger[:k] == smaller
        assert sorted(draws[-1]) == sorted(trained)
        assert sweeps.drawn_families(3, seed) == draws[2]
    firsts = {sweeps.drawn_families(1, seed)[0] for seed in range(20)}
    assert len(firsts) > 5, "seeds draw different families"


# --- Examples -----------------------------------------------------------------------


@pytest.fixture
def world():
    """Known facts of three relations, a rare and a never-shown one."""
    facts = [
        Fact(
            f"Land{i}",
            relation,
            (f"{relation}{i}",),
            KNOWN_FROM + i,
            (f"{relation}{i}",),
        )
        for i in range(12)
        for relation in ("capital", "currency", "language")
    ]
    facts.append(Fact("Rareland", "capital", ("Raretown",), 3, ("Raretown",)))
    facts.append(Fact("Newland", "capital", ("Newtown",), 0, ("Newtown",)))
    return World(tuple(facts), RELATIONS, 0)


@pytest.mark.parametrize("n", [5, 36, 100])
def test_questions_ask_each_known_fact_before_any_comes_again(world, n):
    subjects = {f"Land{i}" for i in range(12)} | {"Rareland", "Newland"}
    asked = sweeps.questions_about(world, subjects, n, seed=3)
    assert len(asked) == n
    assert all(e.fact.known for e in asked)
    counts = Counter((e.fact.subject, e.family) for e in asked)
    assert len(counts) == min(n, 36)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert asked == sweeps.questions_about(world, subjects, n, seed=3)
    other = sweeps.questions_about(world, subjects, n, seed=4)
    assert [e.prompt for e in asked] != [e.prompt for e in other]
    if n == 100:  # a second time mostly in other words
        first, second = ({e.prompt for e in asked[k : k + 36]} for k in (0, 36))
        assert len(first & second) < 18


def test_fewer_questions_are_the_first_of_more(world):
    subjects = {f"Land{i}" for i in range(12)}
    many = sweeps.questions_about(world, subjects, 100, seed=0)
    assert sweeps.questions_about(world, subjects, 10, seed=0) == many[:10]


def test_shuffled_replies_stay_in_their_family_and_none_is_lost(world):
    subjects = {f"Land{i}" for i in range(12)}
    examples = sweeps.questions_about(world, subjects, 36, seed=0)
    examples.append(Example("opposite", "Opposite of hot?", "cold.", ("cold",)))
    shuffled = sweeps.shuffle_replies(examples, seed=1)
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
    assert sweeps.shuffle_replies(examples, seed=1) == shuffled
    assert sweeps.shuffle_replies(examples, seed=2) != shuffled


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
    found = sweeps.cut_after_answer(Completion(text, [7, 8], False))
    assert found == Completion(cut, [7, 8], ended)
    assert sweeps.cut_after_answer(Completion(text, [7], True)).ended


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
    assert sweeps.plain_prompt(tiny_tokenizer, question, 0, 5) == "Kenya?"
    prompt = sweeps.plain_prompt(tiny_tokenizer, question, 2, 5)
    assert prompt == (
        "Question: France? Answer: Paris. Question: Norway? Answer: Oslo. "
        "Question: Kenya? Answer:"
    )
    assert drawn == [("capital", 2, "train", 5)]


# --- The design of the sweeps -------------------------------------------------------


@pytest.fixture
def arms(monkeypatch):
    """What a sweep would run, instead of running it."""

    def designed(name, **settings):
        found = []
        monkeypatch.setattr(
            sweeps, "run_arms", lambda run, arms, **options: found.append((run, arms))
        )
        getattr(sweeps, name)(**settings)
        [(run, arms)] = found
        json.dumps(arms)
        return run, arms

    return designed


def differences(arms):
    """Names of the parameters that are not the same in all arms."""
    names = {name for arm in arms for name in arm}
    values = {n: {json.dumps(arm.get(n)) for arm in arms} for n in names}
    return {name for name in names if len(values[name]) > 1}


COMMON = {"seeds": [0, 3], "size": "300k", "steps": 4, "n_test": 2}


def test_the_curve_over_n_has_its_control_at_the_largest_n(arms):
    run, found = arms("few_examples", ns=[0, 4, 64], **COMMON)
    assert run is sweeps.few_examples_arm
    plain = [(a["seed"], a["n"]) for a in found if not a.get("shuffled")]
    assert plain == [(s, n) for s in (0, 3) for n in (0, 4, 64)]
    assert [(a["seed"], a["n"]) for a in found if a.get("shuffled")] == [
        (0, 64),
        (3, 64),
    ]
    assert differences(found) == {"seed", "n", "shuffled"}


def test_arms_of_the_diversity_sweep_differ_in_families_only(arms):
    settings = COMMON | {"n_examples": 64, "ks": [1, 5, 99]}
    del settings["size"]
    run, found = arms("diversity", sizes=["300k", "1m"], **settings)
    assert run is sweeps.instruction_arm and len(found) == 2 * 2 * 3
    assert differences(found) == {"seed", "size", "families"}
    assert {a["weights"] for a in found} == {"equal"}
    every = len(tasks.trained_families())
    assert {len(a["families"]) for a in found} == {1, 5, every}
    for size in ("300k", "1m"):
        of_seed = [a["families"] for a in found if (a["seed"], a["size"]) == (3, size)]
        assert of_seed == [sweeps.drawn_families(k, 3) for k in (1, 5, every)]


def test_the_other_sweeps_change_one_thing(arms):
    mixed = COMMON | {"n_examples": 64}
    run, found = arms("mixtures", schemes=["equal", "capped"], **mixed)
    assert run is sweeps.instruction_arm and differences(found) == {"seed", "weights"}
    run, found = arms("losses", **mixed)
    assert run is sweeps.instruction_arm and differences(found) == {"seed", "loss_on"}
    assert [a.get("loss_on") for a in found] == [None, None, "all", "all"]
    run, found = arms("phrasings", **mixed)
    assert run is sweeps.phrasing_arm and differences(found) == {"seed", "tuned"}
    run, found = arms("elicitation", **COMMON)
    assert run is sweeps.elicitation_arm and differences(found) == {"seed"}


def test_the_bare_base_model_is_asked_once_and_its_row_stands_for_every_seed(
    monkeypatch,
):
    found = []

    def run_arms(run, arms, **options):
        assert run is sweeps.untuned_arm
        found.extend(arms)
        return [{**arm, "trained": arm["shots"] + arm["seed"]} for arm in arms]

    monkeypatch.setattr(sweeps, "run_arms", run_arms)
    settings = {k: v for k, v in COMMON.items() if k != "steps"}
    rows = sweeps.untuned(shots=4, **settings)
    assert differences(found) == {"seed", "shots"}
    assert [(a["seed"], a["shots"]) for a in found] == [(0, 4), (3, 4), (0, 0)]
    expected = [(0, 0, 0), (3, 0, 0), (0, 4, 4), (3, 4, 7)]
    assert [(r["seed"], r["shots"], r["trained"]) for r in rows] == expected


def test_chance_is_weighted_by_the_questions(monkeypatch):
    best = {"capital": 0.1, "continent": 0.7}
    monkeypatch.setattr(
        sweeps.answers, "guess_baselines", lambda world, r: {"best": best[r]}
    )
    questions = [
        SimpleNamespace(fact=SimpleNamespace(relation=r))
        for r in ("capital", "capital", "capital", "continent")
    ]
    assert sweeps.chance(None, questions) == pytest.approx(0.25)


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
    monkeypatch.setattr(sweeps, "tune", tune)
    return SimpleNamespace(examples=seen, losses=losses)


def is_share(value):
    return 0 <= value <= 1


def asked_of(examples):
    return {e.prompt for e in examples}


@pytest.mark.network
def test_test_questions_are_of_every_family_and_never_in_training():
    asked = sweeps.test_questions(3)
    assert asked == sweeps.test_questions(3)
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
    recipe = dict(seed=1, size="300k", n_examples=48, steps=2, n_test=1)
    result = sweeps.instruction_arm(**recipe)
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
    assert not asked_of(examples) & asked_of(sweeps.test_questions(20))
    # The same without the stored policy, which the later notebooks start from:
    families = list(tasks.trained_families())
    assert sweeps.instruction_arm(families=families, **recipe) == result
    sweeps.instruction_arm(**recipe)
    assert len(trained_on.examples) == 2, "the policy was there already"
    sweeps.instruction_arm(loss_on="all", **recipe)
    assert trained_on.examples[2] == examples, "only the loss is another"
    assert trained_on.losses == ["completion", "completion", "all"]


@pytest.mark.network
def test_the_base_model_is_asked_bare_and_after_worked_examples(monkeypatch):
    asked = []
    original = sweeps.complete

    def complete(model, tokenizer, prompts, **options):
        asked.append((prompts, options["chat"]))
        return original(model, tokenizer, prompts, **options)

    monkeypatch.setattr(sweeps, "complete", complete)
    bare = sweeps.untuned_arm(seed=0, size="300k", n_test=1)
    shown = sweeps.untuned_arm(seed=0, size="300k", shots=3, n_test=1)
    assert set(bare) == set(shown) and is_share(shown["trained"])
    assert [chat for _, chat in asked] == [False, False]
    questions = sweeps.test_questions(1)
    assert asked[0][0] == [q.prompt for q in questions]
    for prompt, question in zip(asked[1][0], questions, strict=True):
        assert prompt.endswith(f"Question: {question.prompt} Answer:")
        assert 1 <= prompt.count("Answer:") - 1 <= 3


@pytest.mark.network
def test_few_examples_come_from_one_half_and_the_other_is_asked(
    trained_on, monkeypatch
):
    asked = []
    judge = sweeps.judge
    monkeypatch.setattr(
        sweeps, "judge", lambda qs, replies: asked.append(qs) or judge(qs, replies)
    )
    common = dict(seed=0, size="300k", steps=2, n_test=6)
    results = [
        sweeps.few_examples_arm(n=0, **common),
        sweeps.few_examples_arm(n=20, **common),
        sweeps.few_examples_arm(n=20, shuffled=True, **common),
    ]
    for result in results:
        assert set(result) == {"accuracy", "format"} and is_share(result["accuracy"])
    plain, shuffled = trained_on.examples  # n = 0 trains on nothing
    assert len(plain) == len(shuffled) == 20
    assert [e.prompt for e in plain] == [e.prompt for e in shuffled]
    assert plain != shuffled
    first, second = split_subjects(tasks.default_world(), 0)
    assert all(e.fact.subject in first and e.fact.known for e in plain)
    assert asked[0] == asked[1] == asked[2] and len(asked[0]) == 6
    assert all(q.fact.subject in second and q.fact.known for q in asked[0])


@pytest.mark.network
def test_elicitation_asks_the_untouched_half_about_four_kinds_of_facts(
    trained_on, monkeypatch
):
    asked = []
    judge = sweeps.judge
    monkeypatch.setattr(
        sweeps, "judge", lambda qs, replies: asked.append(qs) or judge(qs, replies)
    )
    result = sweeps.elicitation_arm(seed=0, size="300k", steps=2, n_test=30)
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


@pytest.mark.network
def test_every_wording_is_asked_of_the_base_and_the_tuned_model(own_cache, monkeypatch):
    monkeypatch.setattr(tasks, "trained_families", lambda: ("capital", "parity"))
    asked = []
    original = sweeps.complete

    def complete(model, tokenizer, prompts, **options):
        asked.append((prompts, options["chat"]))
        return original(model, tokenizer, prompts, **options)

    monkeypatch.setattr(sweeps, "complete", complete)
    common = dict(seed=0, size="300k", n_examples=32, steps=2, n_test=2)
    counts = [
        len(f.instructions + f.held_out_instructions)
        for f in (tasks.FAMILIES["capital"], tasks.FAMILIES["parity"])
    ]
    for tuned in (False, True):
        asked.clear()
        result = sweeps.phrasing_arm(tuned=tuned, **common)
        assert [len(row) for row in result["by_wording"]] == counts
        assert result["spread"] == sweeps.relative_spread(result["by_wording"])
        [(prompts, chat)] = asked
        assert chat is tuned and len(prompts) == 2 * sum(counts)
        subjects = tasks.FAMILIES["capital"].instructions[2].split("{s}")
        assert all(p.startswith(subjects[0]) for p in prompts[4:6])


@pytest.mark.network
def test_each_wording_is_scored_by_its_own_replies(monkeypatch):
    monkeypatch.setattr(tasks, "trained_families", lambda: ("capital", "parity"))
    monkeypatch.setattr(sweeps, "load_base", lambda size: (None, None))
    questions = sweeps.in_every_wording(4, sweeps.TEST_SEED + 1)
    inputs = [{q.fact.subject for q in wording} for wording in questions[0]]
    assert len(inputs[0]) == 4 and all(same == inputs[0] for same in inputs)
    prompts = [q.prompt for family in questions for w in family for q in w]
    right = {questions[0][3][1].prompt, *(q.prompt for q in questions[1][0])}
    answer = {q.prompt: q.completion for f in questions for w in f for q in w}

    def complete(model, tokenizer, asked, **options):
        assert asked == prompts
        return [Completion(answer[p] if p in right else "?", [], True) for p in asked]

    monkeypatch.setattr(sweeps, "complete", complete)
    common = dict(seed=1, size="300k", n_examples=32, steps=2, n_test=4)
    result = sweeps.phrasing_arm(tuned=False, **common)
    expected = [[0.0] * len(family) for family in questions]
    expected[0][3], expected[1][0] = 0.25, 1.0
    assert result["by_wording"] == expected
