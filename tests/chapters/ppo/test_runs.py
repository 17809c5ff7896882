"""The arms of notebook 04: a fair design, and DPO on the reward model's comparisons."""

import itertools
import json

import pytest

from alignlab.chapters.ppo import artifacts, runs
from alignlab.chapters.ppo.artifacts import RECIPE
from alignlab.ppo import PPOConfig
from alignlab.study import arms
from alignlab.study import artifacts as study
from alignlab.world import gold

SETTINGS = dict(size="300k", steps=1, n_pairs=4, k=2)

# --- The design of the arms ---------------------------------------------------------


@pytest.fixture
def design(monkeypatch):
    """What the notebook would run, and the rows that it would get."""
    called = []

    def run_each(calls, **options):
        called.extend(calls)
        json.dumps([arm for _, arm in calls])
        return [{**arm, "is": run.__name__} for run, arm in calls]

    monkeypatch.setattr(arms, "run_each", run_each)
    rows = runs.run_all(
        seeds=[0, 1],
        many_seeds=[0, 1, 2],
        piece_seeds=[0, 1],
        few_seeds=[0],
        dpo_seeds=[0, 1],
        betas=[0.0, 0.05, 0.2],
        rates=[1.5e-4, 1e-3],
        grid_betas=[0.05, 0.2],
        updates=3,
        dpo_steps=4,
        n=1,
        size="300k",
        steps=6,
        n_pairs=8,
        k=4,
    )
    return called, rows


def test_no_arm_runs_twice_and_ppo_comes_first(design):
    called, rows = design
    names = [run.__name__ + json.dumps(arm, sort_keys=True) for run, arm in called]
    assert len(set(names)) == len(names)
    kinds = [run in (artifacts.ppo_arm, artifacts.path_arm) for run, _ in called]
    assert kinds == sorted(kinds, reverse=True), "the longest first"
    assert {r["is"] for r in rows["dpo"]} == {"dpo_arm"}
    assert {r["is"] for r in rows["start"]} == {"start_arm"}
    for name in ("default", "sweep", "grid"):
        assert {r["is"] for r in rows[name]} == {"ppo_arm"}
    for name in ("pieces", "sick"):  # what their policies are worth, nobody asks
        assert {r["is"] for r in rows[name]} == {"path_arm"}


def test_every_row_knows_its_seed_rate_and_price(design):
    _, rows = design
    assert [r["seed"] for r in rows["start"]] == [0, 1, 2]
    assert [r["seed"] for r in rows["default"]] == [0, 1, 2]
    assert {(r["rate"], r["beta"]) for r in rows["default"]} == {
        (1.5e-4, artifacts.BETA)
    }
    assert [(r["seed"], r["num_ppo_epochs"]) for r in rows["eager"]] == [(0, 4), (1, 4)]
    swept = [(r["beta"], r["seed"]) for r in rows["sweep"]]
    assert swept == [(b, s) for b in (0.0, 0.05, 0.2) for s in (0, 1)]
    grid = {(1.5e-4, 0.05), (1.5e-4, 0.2), (1e-3, 0.05), (1e-3, 0.2)}
    for name in ("grid", "dpo"):
        assert {(r["rate"], r["beta"]) for r in rows[name]} == grid
        assert len(rows[name]) == 8
    assert [(r["rung"], r["seed"]) for r in rows["ladder"]] == [
        (rung, 0) for rung in runs.LADDER
    ]
    assert [(r["without"], r["seed"]) for r in rows["pieces"]] == [
        (piece, seed) for piece in runs.PIECES for seed in (0, 1)
    ]


def test_an_ablation_differs_from_the_default_in_its_piece_only(design):
    _, rows = design
    usual = {k: v for k, v in rows["default"][0].items() if k not in ("keep", "beta")}
    usual["is"] = "path_arm"
    for row in rows["pieces"]:
        if row["seed"] == 0:
            changed = {k for k in row if row[k] != usual.get(k, None)} - {
                "without", "beta",
            }  # fmt: skip
            assert changed == set(runs.PIECES[row["without"]])


def test_every_rung_of_the_ladder_adds_something_until_it_is_the_default(design):
    _, rows = design
    rungs = list(runs.LADDER.values())
    left_out = [set(a) - set(b) for a, b in itertools.pairwise(rungs[:3])]
    assert left_out == [{"whiten_advantages"}, {"vf_coef", "lam"}]
    assert rungs[-1] == {"kl_coef": artifacts.BETA}
    last = {k: v for k, v in rows["ladder"][-1].items() if k != "rung"}
    assert last == rows["default"][0]


def test_the_default_is_the_libraries_own():
    assert PPOConfig().kl_coef == artifacts.BETA
    others = runs.SICK, runs.EAGER
    for arm in (*runs.PIECES.values(), *runs.LADDER.values(), *others):
        usual = PPOConfig(use_cpu=True)
        assert all(hasattr(usual, name) for name in arm)
    for piece in (*runs.PIECES.values(), runs.EAGER):
        usual = {name: getattr(PPOConfig(), name) for name in piece}
        assert any((usual | artifacts.RECIPE)[name] != piece[name] for name in piece)


# --- DPO -----------------------------------------------------------------------------

REPLIES = ["One.", "Two.", "Three."]
PAIRS = [
    {"prompt": gold.request("France"), "chosen": a, "rejected": b}
    for a, b in itertools.permutations(REPLIES, 2)
]
DPO = dict(seed=3, dpo_steps=2, learning_rate=1e-2, kl_coef=0.2, **SETTINGS)


@pytest.fixture
def dpo_runs(tiny, monkeypatch):
    """What DPO is called with, on six comparisons."""
    called = []
    monkeypatch.setattr(study, "candidates", lambda *a, **o: "replies")
    monkeypatch.setattr(
        study, "comparisons", lambda *of: PAIRS if of == ("replies", 4) else None
    )
    train = runs.train_dpo

    def train_dpo(policy, tokenizer, rows, **options):
        called.append((rows, options))
        return train(policy, tokenizer, rows, **options)

    monkeypatch.setattr(runs, "train_dpo", train_dpo)
    return called


@pytest.mark.network
def test_dpo_gets_the_comparisons_of_the_reward_model(dpo_runs):
    result = runs.dpo_arm(n=2, **DPO)
    [(rows, options)] = dpo_runs
    assert sorted(map(str, rows)) == sorted(map(str, PAIRS))
    assert options["beta"] == 0.2 and options["seed"] == 3
    assert result["kl"] > 0 and result["stopped"] is None and "proxy" in result


@pytest.mark.network
def test_what_is_timed_runs_alone_after_a_start_that_is_not(dpo_runs, monkeypatch):
    alone = []

    def run_alone(calls):
        alone.append(calls)
        return [{**arm, **run(**arm)} for run, arm in calls]

    monkeypatch.setattr(runs, "run_alone", run_alone)
    seconds = runs.time_each([0, 1], dpo_steps=2, **SETTINGS)
    assert [run for calls in alone for run, _ in calls] == [
        artifacts.timed_arm, runs.timed_dpo_arm,
    ] * 2  # fmt: skip
    assert [options["steps"] for _, options in dpo_runs] == [1, 2, 1, 2]
    for rows in seconds.values():
        assert [row["seed"] for row in rows] == [0, 1]
        assert all(row["seconds"] > 0 for row in rows)
    usual = RECIPE["learning_rate"], artifacts.BETA
    for row in seconds["DPO"]:
        assert (row["learning_rate"], row["kl_coef"]) == usual
    assert all(row["kl_coef"] == artifacts.BETA for row in seconds["PPO"])
    ticks = iter([0.0, 1.0, 10.0, 16.0])  # starts and ends of the two runs
    monkeypatch.setattr(runs.time, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(runs, "train_dpo", lambda *a, **o: None)
    assert runs.timed_dpo_arm(**DPO) == {"seconds": 3.0}
