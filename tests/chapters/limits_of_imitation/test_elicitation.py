"""What SFT elicits: untouched subjects, every kind of fact, fair guesses."""

import pytest

from alignlab.chapters.limits_of_imitation import elicitation
from alignlab.evaluation import answers
from alignlab.models.sampler import Completion
from alignlab.world import tasks
from alignlab.world.facts import split_subjects


@pytest.fixture(scope="module")
def halves():
    return split_subjects(tasks.default_world(), 0)


def test_training_asks_about_known_facts_of_one_half_and_repeats_none_too_soon(halves):
    world = tasks.default_world()
    known = {
        (f.subject, f.relation)
        for f in world.facts
        if f.known and f.subject in halves[0]
    }
    n = len(known)
    questions = elicitation.training_questions(world, halves[0], n + 10, seed=3)
    facts = [(e.fact.subject, e.fact.relation) for e in questions]
    assert set(facts[:n]) == known and len(facts) == n + 10
    assert set(facts[n:]) <= known


def test_the_test_asks_the_other_half_about_every_kind(halves):
    asked = elicitation.test_questions(tasks.default_world(), halves[1], 40)
    kinds = (*elicitation.KINDS, "new_wording")
    for kind in kinds:
        group = [question for k, question in asked if k == kind]
        assert len(group) == 40
        assert all(q.fact.subject in halves[1] for q in group)
    facts = {kind: [q.fact for k, q in asked if k == kind] for kind in kinds}
    assert all(f.known for f in facts["known"] + facts["new_wording"])
    assert all(1 <= f.exposure <= 5 for f in facts["tail"])
    assert all(f.exposure == 0 for f in facts["never"])
    assert {f.made_up for f in facts["never"]} == {True, False}
    assert all(f.contested for f in facts["contested"])


def test_a_contested_fact_has_a_majority_and_a_rival(halves):
    asked = elicitation.test_questions(tasks.default_world(), halves[1], 5)
    question = next(q for kind, q in asked if kind == "contested")
    majority, rival = question.fact.stated
    said = [
        elicitation.describe("contested", question, text)
        for text in (f"{majority}.", f"{rival}.", "Nonsense.")
    ]
    assert [d["majority"] for d in said] == [1, 0, 0]
    assert [d["rival"] for d in said] == [0, 1, 0]
    assert [d["right"] for d in said] == [
        int(a in question.answers) for a in (majority, rival, "Nonsense")
    ]
    assert said[0]["share"] == question.fact.shares[0]
    known = next(q for kind, q in asked if kind == "known")
    assert elicitation.describe("known", known, known.completion)["majority"] == 0


def test_guesses_about_real_subjects_do_not_hang_on_made_up_ones(monkeypatch):
    seen = []

    def baselines(world, relation):
        seen.append((world, relation))
        return {"best": 0.5}

    monkeypatch.setattr(answers, "guess_baselines", baselines)
    elicitation.guess_rates.cache_clear()
    try:
        assert set(elicitation.guess_rates()) == set(tasks.default_world().relations)
        assert not any(f.made_up for world, _ in seen for f in world.facts)
        seen.clear()
        assert "neighbour" not in elicitation.guess_rates(True), "none is made up"
        assert all(f.made_up or f.exposure for world, _ in seen for f in world.facts)
        assert elicitation.guess_rate([dict(made_up=True, relation="capital")]) == 0.5
    finally:
        elicitation.guess_rates.cache_clear()


def test_an_arm_describes_every_reply(monkeypatch, tiny_model, tiny_tokenizer):
    trained = []
    monkeypatch.setattr(
        elicitation,
        "tune",
        lambda examples, **more: trained.extend(examples) or (None, None),
    )
    monkeypatch.setattr(
        elicitation,
        "reply",
        lambda model, tokenizer, examples: [
            Completion(e.completion, [], True) for e in examples
        ],
    )
    found = elicitation.elicitation_arm(seed=0, base="300k", steps=2, n_test=4)
    assert len(trained) == 32
    assert len(found["asked"]) == 4 * 6
    assert all(q["right"] for q in found["asked"] if q["kind"] in ("known", "never"))
    subjects = {e.fact.subject for e in trained}
    assert not any(s in q["prompt"].split() for q in found["asked"] for s in subjects)
