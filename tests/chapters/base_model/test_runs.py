"""What notebook 00 shows and asks: sample documents, three ways on equal terms."""

from types import SimpleNamespace

import numpy as np

from alignlab.chapters.base_model import runs
from alignlab.world.facts import RELATIONS, Fact, World


def test_documents_of_each_kind_are_shown_in_one_line(monkeypatch):
    long = "word " * 100
    monkeypatch.setattr(
        runs, "paragraphs", lambda world, seed: (f"world {i}" for i in range(40))
    )
    monkeypatch.setattr(runs.corpus, "prose", lambda seed: [long] * 5)
    monkeypatch.setattr(runs, "draw_subjects", lambda world, n, rng: world)
    rows = runs.sample_documents(None, seed=0, n=3)
    assert [r["kind"] for r in rows] == ["world"] * 3 + ["skills"] * 3 + ["prose"] * 3
    assert rows[0]["document"].startswith("world 0")
    assert all(type(r["document"]) is str for r in rows), "not a numpy string"
    assert rows[-1]["document"].endswith("[...]") and len(rows[-1]["document"]) <= 160


def test_a_part_of_the_world_has_all_facts_about_its_subjects():
    facts = [Fact(f"s{i % 5}", r, (f"{i}",), i) for i in range(5) for r in RELATIONS]
    world = World(tuple(facts), RELATIONS, 0)
    part = runs.draw_subjects(world, 2, np.random.default_rng(0))
    assert len(part.subjects()) == 2 and part.relations is RELATIONS
    for subject in part.subjects():
        assert part.about(subject) == world.about(subject)
    others = runs.draw_subjects(world, 2, np.random.default_rng(1))
    assert set(others.subjects()) != set(part.subjects())


def test_three_ways_to_ask_share_their_seeds_and_questions(monkeypatch):
    settings = SimpleNamespace(n_examples=64, steps=3, n_test=2, shots=4, jobs=1)
    seeds, asked = [0, 3], []

    def run_each(calls, **options):
        asked.extend(calls)
        return [{**arm, "run": run} for run, arm in calls]

    monkeypatch.setattr(runs, "run_each", run_each)
    ways = runs.ask_three_ways(seeds, "300k", settings)
    assert list(ways) == ["bare", "few-shot", "tuned"]
    assert [row["shots"] for row in ways["bare"]] == [0, 0]
    assert ways["bare"][0] == ways["bare"][1]
    assert [(row["seed"], row["shots"]) for row in ways["few-shot"]] == [(0, 4), (3, 4)]
    assert {row["run"] for row in ways["tuned"]} == {runs.instruction_arm}
    tuned = [arm for run, arm in asked if run is runs.instruction_arm]
    base = [arm for run, arm in asked if run is runs.untuned_arm]
    assert [arm["seed"] for arm in tuned] == seeds
    assert [(a["seed"], a["shots"]) for a in base] == [(0, 4), (3, 4), (0, 0)]
    assert {(arm["n_test"], arm["size"]) for arm in tuned + base} == {(2, "300k")}


def test_the_policy_is_that_of_the_sweeps(monkeypatch):
    settings = SimpleNamespace(n_examples=64, steps=3)
    monkeypatch.setattr(runs, "sft_policy", lambda seed, **o: (seed, o))
    seed, options = runs.tuned_policy(5, "300k", settings)
    assert seed == 5 and options.pop("progress")
    assert options == {"size": "300k", "n_examples": 64, "steps": 3}
