"""The experiments of notebook 02: updates are equal, seeds are shared."""

from collections import Counter

import pytest

from alignlab.chapters.limits_of_imitation import real_refusals, runs
from alignlab.errors import AlignlabError


def test_all_arms_about_facts_have_as_many_updates(monkeypatch):
    monkeypatch.setattr(runs, "run_groups", lambda groups, **more: groups)
    groups = runs.sweep_facts(
        seeds=[0, 1],
        costly_seeds=[0],
        n_facts=8,
        n_admission_facts=20,
        looks=[2, 4],
        base="x",
    )
    arms = {name: [arm for _, arm in calls] for name, calls in groups.items()}
    assert {name: [a["seed"] for a in own] for name, own in arms.items()} == {
        "known alone": [0, 1],
        "mixture": [0, 1],
        "answering": [0, 1],
        "admitting": [0, 1],
        "first half": [0],
        "second half": [0],
    }
    assert {a["looks"][-1] for own in arms.values() for a in own} == {4}
    sizes = {name: (own[0]["n_known"], own[0]["n_never"]) for name, own in arms.items()}
    assert sizes["known alone"] == (8, 0) and sizes["mixture"] == (8, 8)
    assert sizes["answering"] == sizes["admitting"] == (20, 20)
    assert arms["answering"][0]["labels"] == "quarter admitted"
    assert arms["admitting"][0]["labels"] == "admitted"


def test_a_look_has_to_be_at_half_of_the_updates():
    with pytest.raises(ValueError, match="one has to be at 2.5, half of the last"):
        runs.sweep_facts(
            seeds=[0],
            costly_seeds=[0],
            n_facts=8,
            n_admission_facts=8,
            looks=[2, 5],
        )


def test_the_safety_sweep_shares_seeds_and_totals_between_its_arms(monkeypatch):
    monkeypatch.setattr(runs, "run_arms", lambda run, arms, **more: arms)
    arms = runs.sweep_safety(seeds=[0, 1], ns=[30, 0], n_contrast=30, total=99)
    counts = Counter((a["n_refusals"], a["n_look_alikes"]) for a in arms)
    assert counts == {(0, 0): 2, (30, 0): 2, (30, 30): 2}
    assert {a["total"] for a in arms} == {99}


def test_elicitation_has_an_arm_a_seed(monkeypatch):
    monkeypatch.setattr(runs, "run_arms", lambda run, arms, **more: arms)
    arms = runs.sweep_elicitation(seeds=[3, 4], steps=5)
    assert arms == [dict(seed=3, steps=5), dict(seed=4, steps=5)]


def test_narrow_and_diverse_data_share_their_seeds(monkeypatch):
    monkeypatch.setattr(runs, "run_arms", lambda run, arms, **more: arms)
    arms = runs.sweep_narrow_data(seeds=[0, 1], n=5)
    counts = Counter((a["data"], a["seed"], a["n"]) for a in arms)
    assert counts == {(d, s, 5): 1 for d in ("diverse", "narrow") for s in (0, 1)}


def test_sets_of_real_prompts_that_cannot_be_loaded_are_left_out(monkeypatch, capsys):
    def load(name, path=None):
        if name == "xstest":
            raise AlignlabError("Cannot load it.", "Give path=.")
        return [{"prompt": f"{name} {i}"} for i in range(5)]

    monkeypatch.setattr(real_refusals.sources, "load", load)
    monkeypatch.setattr(runs, "run_arms", lambda run, arms, **more: arms)
    arms = runs.sweep_real_prompts(model="some/model", n=3)
    assert capsys.readouterr().out.count("is left out: Cannot load it.") == 2
    assert [arm["prompts"] for arm in arms] == [
        name for name, (of, _) in real_refusals.SETS.items() if of != "xstest"
    ]
