"""What a chapter does with a model that knows few facts, and of which only made-up
subjects were never shown."""

from dataclasses import replace

import pytest

from alignlab.chapters.limits_of_imitation import (
    elicitation,
    hallucination,
    narrow_data,
)
from alignlab.world import tasks
from alignlab.world.facts import build_world


@pytest.fixture
def foreign(monkeypatch):
    """Twelve capitals and eight symbols that are known, and the made-up subjects."""
    world = build_world(0)

    def real(relation, n):
        own = [f for f in world.facts if f.relation == relation and not f.made_up]
        return [replace(f, exposure=300, shares=(), stated=f.answers,
                        knowledge="HighlyKnown") for f in own[:n]]  # fmt: skip

    invented = [fact for fact in world.facts if fact.made_up]
    facts = (*real("capital", 12), *real("symbol", 8), *invented)
    assert {f.relation for f in invented} > {"capital", "symbol"}
    small = replace(world, facts=facts)
    monkeypatch.setattr(tasks, "default_world", lambda: small)
    everybody = frozenset(small.subjects())
    halves = everybody, everybody
    monkeypatch.setattr(hallucination, "three_quarters", lambda: halves)
    monkeypatch.setattr(narrow_data, "split_subjects", lambda *_: halves)
    return small


def test_facts_to_train_on_are_as_many_of_either_kind(foreign):
    known, never = hallucination.training_facts(128, 128, 0)
    assert len(known) == len(never) == 20
    assert all(e.fact.made_up for e in never)
    assert not any(e.fact.made_up for e in known)
    known, never = hallucination.training_facts(8, 0, 0)  # where there are enough
    assert (len(known), len(never)) == (8, 0)


def test_narrow_and_diverse_data_are_as_many(foreign):
    for data in ("narrow", "diverse"):
        assert len(narrow_data.training_sentences(data, 240, 0)) == 12
        assert len(narrow_data.training_sentences(data, 5, 0)) == 5


def test_the_best_guess_is_that_about_made_up_subjects(foreign, monkeypatch):
    baselines = []

    def guess(world, relation):
        baselines.append(all(f.made_up for f in world.facts if not f.exposure))
        return {"best": 0.25}

    monkeypatch.setattr(elicitation.answers, "guess_baselines", guess)
    rates = elicitation.guess_rates.__wrapped__
    assert rates(False) == rates(True) and rates(False)["capital"] == 0.25
    assert all(baselines) and "plural" not in rates(False)  # nobody made up a plural
    monkeypatch.setattr(elicitation, "guess_rates", rates)
    asked = [dict(made_up=False, relation=name) for name in ("capital", "plural")]
    assert elicitation.guess_rate(asked) == 0.25


def test_a_family_of_which_nothing_is_known_is_left_out(monkeypatch):
    usual = tasks.sizes

    def without_capitals(names, **options):
        return usual(names, **options) | {"capital": 0}

    monkeypatch.setattr(tasks, "sizes", without_capitals)
    families = {example.family for example in tasks.mixture(400, seed=0)}
    assert "capital" not in families and len(families) > 30
    with pytest.raises(ValueError, match="must be positive"):
        tasks.mixture(10, families=["capital"], seed=0)  # asked for by name
