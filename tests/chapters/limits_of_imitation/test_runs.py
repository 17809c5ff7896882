"""The experiments of notebook 02: every mixture has its control, seeds are shared."""

from collections import Counter

from alignlab.chapters.limits_of_imitation import real_refusals, runs
from alignlab.errors import AlignlabError


def test_the_sweep_has_a_control_for_every_mixture_and_labels_at_one_share(monkeypatch):
    monkeypatch.setattr(runs, "run_arms", lambda run, arms, **more: arms)
    arms = runs.sweep_facts(
        seeds=[0, 1], costly_seeds=[0], shares=[0.0, 0.5], more_shares=[0.25], size="x"
    )
    counts = Counter((a["share"], a["control"], a["labels"]) for a in arms)
    assert counts == {
        (0.0, False, "true"): 2,
        (0.5, False, "true"): 2,
        (0.5, True, "true"): 2,
        (0.25, False, "true"): 1,
        (0.25, True, "true"): 1,
        (0.5, False, "admission"): 2,
        (0.5, False, "first"): 1,
        (0.5, False, "second"): 1,
    }


def test_the_safety_sweep_shares_seeds_between_its_arms(monkeypatch):
    monkeypatch.setattr(runs, "run_arms", lambda run, arms, **more: arms)
    arms = runs.sweep_safety(seeds=[0, 1], ns=[0, 30], n_control=30, size="x")
    counts = Counter((a["extra"], a["n"]) for a in arms)
    assert counts == {
        ("safety", 0): 2,
        ("safety", 30): 2,
        ("with_contrast", 30): 2,
        ("questions", 30): 2,
    }


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
