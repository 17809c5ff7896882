"""The runs of notebook 04: what each differs in, and that none runs twice."""

import itertools
import json

import numpy as np
import pytest

from alignlab.chapters.ppo import runs
from alignlab.ppo import PPOConfig
from alignlab.runs.profiles import notebook_settings
from alignlab.study import arms, artifacts
from alignlab.study.chains import chain_arm, chains
from alignlab.study.optimising import RECIPE, rl_arm, start_arm
from alignlab.study.search import draw

CHAINS = chains([4, 5, 6], nested=True, base="300k", steps=6, n_pairs=8, k=4)
DESIGN = dict(
    chains=CHAINS[:2],
    many_chains=CHAINS,
    few_chains=CHAINS[:1],
    betas=[0.0, 0.2],
    updates=3,
    tries=2,
    repeats=2,
    pieces=True,
    n=1,
)


def settings_of(group):
    """The settings of each arm, without what all arms of a notebook share."""
    shared = ("chain", "at", "n")
    return [{k: v for k, v in arm.items() if k not in shared} for _, arm in group]


@pytest.fixture
def groups():
    return runs.calls(**DESIGN)


def test_arms_are_json_and_end_with_the_run(groups):
    for (kind, member), group in groups.items():
        json.dumps([arm for _, arm in group])
        for function, arm in group:
            if kind == "start":
                assert function is start_arm
            elif member != "DPO":
                assert function is rl_arm and arm["at"][-1] == 3
            assert arm["n"] == 1


def test_every_kind_has_its_chains(groups):
    def seeds(key):
        return [arm["chain"]["seed"] for _, arm in groups[key]]

    for method in ("PPO", "RLOO", "GRPO", "DPO"):
        assert sorted(seeds(("search", method))) == [4, 4, 5, 5]
    assert seeds(("default", None)) == [4, 5, 6] * 2
    assert seeds(("pieces", None)) == seeds(("pieces", "gae")) == [4, 5, 6]
    assert seeds(("sweep", 0.0)) == [4, 5]
    assert seeds(("ladder", "RLOO")) == seeds(("sick", None)) == [4]
    assert seeds(("start", None)) == [4, 5, 6]


def test_repeats_of_the_default_differ_in_the_runs_seed_only(groups):
    first, second = np.array_split(settings_of(groups["default", None]), 2)
    assert list(first) == [{}] * 3
    assert list(second) == [{"run_seed": 1000 + seed} for seed in (4, 5, 6)]
    assert groups["sweep", 0.2] == groups["default", None][:2], "in the cache already"


def test_the_search_tries_what_is_drawn_for_its_seed(groups):
    found = settings_of(groups["search", "PPO"])
    expected = [draw("PPO", seed, number) for number in (0, 1) for seed in (4, 5)]
    for one, other in zip(found, expected, strict=True):
        assert other.items() <= one.items()


def test_without_a_piece_only_that_piece_changes(groups):
    [whole] = {json.dumps(s) for s in settings_of(groups["pieces", None])}
    for name, change in runs.PIECES.items():
        for found in settings_of(groups["pieces", name]):
            assert found == {**json.loads(whole), **change}
            usual = {k: getattr(PPOConfig(), k) for k in change} | dict(RECIPE)
            assert any(found[k] != usual[k] for k in change)


def test_each_rung_leaves_out_less_until_it_is_the_default():
    rungs = list(runs.LADDER.values())
    left_out = [set(a) - set(b) for a, b in itertools.pairwise(rungs[:3])]
    assert left_out == [{"whiten_advantages"}, {"vf_coef", "lam"}]
    assert runs.LADDER["+ KL penalty: PPO"] == {}
    usual = PPOConfig(use_cpu=True)
    for change in (*rungs, *runs.PIECES.values(), runs.SICK):
        assert all(hasattr(usual, name) for name in change)


def test_no_pieces_and_no_search_where_the_profile_has_none():
    groups = runs.calls(**{**DESIGN, "pieces": False, "tries": 0})
    assert not any(kind == "pieces" for kind, _ in groups)
    assert groups["search", "PPO"] == groups["search", "DPO"] == []


@pytest.fixture
def rows(monkeypatch):
    """What the notebook gets, and how often each arm ran."""
    called = []

    def run_each(calls, **options):
        called.extend(calls)
        return [{**arm, "is": run.__name__} for run, arm in calls]

    monkeypatch.setattr(arms, "run_each", run_each)
    return called, runs.run_all(**DESIGN)


def test_no_arm_runs_twice_and_rows_know_what_they_are_for(rows):
    called, kinds = rows
    texts = [run.__name__ + json.dumps(arm, sort_keys=True) for run, arm in called]
    assert len(set(texts)) == len(texts)
    assert {row["without"] for row in kinds["pieces"]} == {None, *runs.PIECES}
    assert list(dict.fromkeys(r["rung"] for r in kinds["ladder"])) == [*runs.LADDER]
    assert {row["method"] for row in kinds["search"]} == {"PPO", "RLOO", "GRPO", "DPO"}
    assert [row["is"] for row in kinds["chains"]] == [chain_arm.__name__] * 3


def test_the_profiles_make_the_recorded_calls():
    settings = notebook_settings("04", "full")
    recorded = dict(
        first_seed=100, nested=True, model="1m", steps=600, n_pairs=4000, k=16,
        updates=8, n=3, tries=8, repeats=3, betas=[0.0, 0.05, 0.2, 0.8],
        many_seeds=10, few_seeds=3, seeds=5, pieces=True, pool=32,
    )  # fmt: skip
    assert {name: settings[name] for name in recorded} == recorded
    for profile in ("smoke", "cpu"):
        settings = notebook_settings("04", profile)
        assert (settings["first_seed"], settings["nested"]) == (0, False)
        assert settings["seeds"] == settings["many_seeds"]


def test_best_of_n_picks_by_the_proxy(monkeypatch):
    golds, proxies = np.array([[0.0, 1, 2, 3]]), np.array([[4.0, 3, 2, 1]])
    chain = "alignlab.study.chains.Chain"
    monkeypatch.setattr(f"{chain}.replies", lambda self, split, k: (split, k))
    monkeypatch.setattr(f"{chain}.reward_model", lambda self, n: ("model", "words"))
    monkeypatch.setattr(artifacts, "golds_of", lambda replies: golds)
    monkeypatch.setattr(
        artifacts,
        "score_candidates",
        lambda model, words, replies: proxies if replies == ("test", 4) else None,
    )
    curve = runs.best_of_n_arm(chain=CHAINS[0], pool=4, ns=[1, 4])["curve"]
    assert [(row["n"], row["gold"], row["proxy"]) for row in curve] == [
        (1, 1.5, 2.5),
        (4, 0.0, 4.0),
    ]
