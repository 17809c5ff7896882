"""The arms of notebook 04: closed forms of what is read off runs, fair arms, one update
of the tiny policy from end to end."""

import itertools
import json
import math
import os

import numpy as np
import pytest
import torch

from alignlab import cache
from alignlab.chapters.ppo import runs as sweeps
from alignlab.objectives import exact_kl
from alignlab.ppo import PPOConfig
from alignlab.study import arms
from alignlab.study import artifacts as alignment
from alignlab.training.ppo.rollout import PolicyAndValue
from alignlab.world import gold, tasks

# --- Numbers read off runs ----------------------------------------------------------


def end(seed=0, gold=1.0, kl=1.0, stopped=None, **others):
    return dict(seed=seed, gold=gold, kl=kl, stopped=stopped, **others)


START = [end(seed=0, gold=2.0, kl=0.0), end(seed=1, gold=3.0, kl=0.0)]


def test_a_gain_is_over_the_start_of_the_same_seed():
    rows = [end(seed=1, gold=3.5), end(seed=0, gold=3.5)]
    assert sweeps.gain(rows, START, "gold").tolist() == [0.5, 1.5]


@pytest.mark.parametrize(
    "row, expected",
    [
        (end(gold=2.1), False),
        (end(gold=2.0), False),
        (end(gold=1.9), True),
        (end(seed=1, gold=2.1), True),
        (end(gold=9.0, kl=15.0), False),
        (end(gold=9.0, kl=15.1), True),
        (end(gold=9.0, kl=math.nan), True),
        (end(gold=math.nan), True),
        ({"seed": 0, "stopped": "the loss is inf"}, True),
    ],
)
def test_what_counts_as_a_failure(row, expected):
    assert sweeps.failed(row, START) is expected


def test_rates_and_spreads_are_by_seed():
    rows = [end(0, 4.0), end(0, 1.0), end(1, 3.0), end(1, 3.5)]
    assert sweeps.failure_rates(rows, START) == {0: 0.5, 1: 0.0}
    assert sweeps.spreads(rows, START) == {0: 3.0, 1: 0.5}
    stopped = {"seed": 1, "stopped": "inf"}
    assert sweeps.spreads([*rows, stopped], START) == {0: 3.0, 1: 0.5}
    assert sweeps.spreads([rows[3], stopped], START) == {1: 0.5}, "no better than start"


def test_the_height_of_a_curve_is_its_mean_over_kl():
    # A straight line from 1 to 3 over 4 nats; its updates may come in any order of KL.
    kl, values = [0, 1, 4, 2], [1, 1.5, 3, 2]
    assert sweeps.height(kl, values, 4) == pytest.approx(2)
    assert sweeps.height(kl, values, 2) == pytest.approx(1.5)
    steps = sweeps.height([0, 1, 1, 2], [0, 0, 6, 6], 2, points=20_001)
    assert steps == pytest.approx(3, rel=1e-3)
    with pytest.raises(ValueError, match="ends at 4 nats, before 5"):
        sweeps.height(kl, values, 5)


def test_a_piece_is_worth_what_is_lost_at_equal_kl():
    def run(seed, kl, values):
        return {"seed": seed, "history": {"kl_exact": kl, "reward/gold": values}}

    whole = [run(0, [0, 4], [1, 5]), run(1, [0, 2], [0, 4]), run(2, [0, 1], [0, 9])]
    # Half as steep, and further away: only the range that both reach counts.
    ablated = [run(1, [0, 8], [0, 8]), run(0, [0, 2], [1, 2])]
    lost = sweeps.lost_without(whole, ablated)
    assert lost == pytest.approx([2 - 1.5, 2 - 1])
    assert sweeps.lost_without(whole, whole) == pytest.approx([0, 0, 0])


def test_growth_is_over_the_last_third():
    assert sweeps.growth([0, 1, 2, 3, 3, 3, 3, 3.5, 4]) == pytest.approx(1.0)
    assert sweeps.growth([0, 5, 5, 5]) == 0
    assert sweeps.growth([0, 5]) == 5
    assert sweeps.growth([3]) == 0


def test_seconds_are_for_each_completion_learnt_from():
    ppo = [dict(seed=0, updates=2, seconds=64), dict(seed=0, updates=2, seconds=192)]
    dpo = [dict(seed=3, dpo_steps=4, seconds=64)]
    assert sweeps.seconds_per_completion(ppo) == {0: 1.0}
    assert sweeps.seconds_per_completion(dpo) == {3: 0.25}


# --- Best of n ----------------------------------------------------------------------


def test_best_of_n_is_the_mean_over_all_draws():
    random = np.random.default_rng(0)
    proxies, golds = random.normal(size=(2, 3, 6))
    rows = sweeps.best_of_n_curve(proxies, golds, [1, 2, 4, 6])
    for row in rows:
        draws = list(itertools.combinations(range(6), row["n"]))
        picked = [
            (golds[i, best], proxies[i, best])
            for i in range(3)
            for draw in draws
            for best in [max(draw, key=lambda j, i=i: proxies[i, j])]
        ]
        assert row["gold"] == pytest.approx(np.mean([g for g, _ in picked]))
        assert row["proxy"] == pytest.approx(np.mean([p for _, p in picked]))
        n = row["n"]
        assert row["kl"] == pytest.approx(math.log(n) - (n - 1) / n)
    with pytest.raises(ValueError, match="n is 7; there are 6 samples"):
        sweeps.best_of_n_curve(proxies, golds, [7])


def test_a_proxy_that_is_gold_gains_most_and_a_blind_one_nothing():
    golds = np.random.default_rng(1).normal(size=(400, 8))
    best = sweeps.best_of_n_curve(golds, golds, [1, 8])
    blind = sweeps.best_of_n_curve(np.random.default_rng(2).normal(size=golds.shape),
                                   golds, [1, 8])  # fmt: skip
    assert best[1]["gold"] - best[0]["gold"] == pytest.approx(1.4236, abs=0.1)
    assert abs(blind[1]["gold"] - blind[0]["gold"]) < 0.15


# --- Gradients of KL ----------------------------------------------------------------


def test_only_k1_in_the_reward_and_k2_in_the_loss_have_the_gradient_of_the_kl():
    rows = {(r["estimator"], r["place"]): r for r in sweeps.kl_gradients()}
    assert len(rows) == 6
    for right in (("k1", "reward"), ("k2", "loss")):
        assert rows[right]["cosine"] == pytest.approx(1)
        assert rows[right]["error"] == pytest.approx(0, abs=1e-9)
    nothing = rows["k1", "loss"]
    assert nothing["error"] == pytest.approx(1) and math.isnan(nothing["cosine"])
    for wrong in (("k2", "reward"), ("k3", "reward"), ("k3", "loss")):
        assert rows[wrong]["error"] > 0.1 and rows[wrong]["cosine"] < 0.999


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
    rows = sweeps.arms(
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
    kinds = [run in (sweeps.ppo_arm, sweeps.path_arm) for run, _ in called]
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
    assert {(r["rate"], r["beta"]) for r in rows["default"]} == {(1.5e-4, sweeps.BETA)}
    assert [(r["seed"], r["num_ppo_epochs"]) for r in rows["eager"]] == [(0, 4), (1, 4)]
    swept = [(r["beta"], r["seed"]) for r in rows["sweep"]]
    assert swept == [(b, s) for b in (0.0, 0.05, 0.2) for s in (0, 1)]
    grid = {(1.5e-4, 0.05), (1.5e-4, 0.2), (1e-3, 0.05), (1e-3, 0.2)}
    for name in ("grid", "dpo"):
        assert {(r["rate"], r["beta"]) for r in rows[name]} == grid
        assert len(rows[name]) == 8
    assert [(r["rung"], r["seed"]) for r in rows["ladder"]] == [
        (rung, 0) for rung in sweeps.LADDER
    ]
    assert [(r["without"], r["seed"]) for r in rows["pieces"]] == [
        (piece, seed) for piece in sweeps.PIECES for seed in (0, 1)
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
            assert changed == set(sweeps.PIECES[row["without"]])


def test_every_rung_of_the_ladder_adds_something_until_it_is_the_default(design):
    _, rows = design
    rungs = list(sweeps.LADDER.values())
    left_out = [set(a) - set(b) for a, b in itertools.pairwise(rungs[:3])]
    assert left_out == [{"whiten_advantages"}, {"vf_coef", "lam"}]
    assert rungs[-1] == {"kl_coef": sweeps.BETA}
    last = {k: v for k, v in rows["ladder"][-1].items() if k != "rung"}
    assert last == rows["default"][0]


def test_the_default_is_the_libraries_own():
    assert PPOConfig().kl_coef == sweeps.BETA
    others = sweeps.SICK, sweeps.EAGER
    for dials in (*sweeps.PIECES.values(), *sweeps.LADDER.values(), *others):
        usual = PPOConfig(use_cpu=True)
        assert all(hasattr(usual, name) for name in dials)
    for piece in (*sweeps.PIECES.values(), sweeps.EAGER):
        assert any(getattr(PPOConfig(), name) != value for name, value in piece.items())


# --- Whole arms ---------------------------------------------------------------------


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """An empty cache that knows the downloaded sources."""
    sources = cache.cache_dir() / "sources"
    sources.mkdir(parents=True, exist_ok=True)
    os.symlink(sources, tmp_path / "sources")
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))


@pytest.fixture
def tiny(own_cache, monkeypatch, tiny_model, tiny_tokenizer):
    """A random reference policy and reward model over a few subjects, in no time."""
    import copy

    from alignlab.models.reward import reward_model_from

    def reference_policy(size, steps, **options):
        return copy.deepcopy(tiny_model), tiny_tokenizer

    def reward_model(n, **options):
        return reward_model_from(tiny_model, seed=0), tiny_tokenizer

    names = {"train": ("France", "gold", "Norway", "iron"), "test": ("Peru", "argon")}
    monkeypatch.setattr(alignment, "reference_policy", reference_policy)
    monkeypatch.setattr(alignment, "reward_model", reward_model)
    monkeypatch.setattr(alignment, "subjects", names.get)
    recipe = {**sweeps.RECIPE, "max_completion_length": 8}
    recipe["per_device_train_batch_size"] = 4
    monkeypatch.setattr(sweeps, "RECIPE", recipe)
    return tiny_model, tiny_tokenizer


MADE = dict(size="300k", steps=1, n_pairs=4, k=2)


@pytest.mark.network
def test_an_arm_learns_from_the_learnt_reward_and_looks_at_gold(tiny):
    result = sweeps.ppo_arm(seed=1, updates=2, n=3, **MADE)
    json.dumps(result)
    logged = result["history"]
    assert set(logged) == set(sweeps.LOGGED)
    assert all(len(values) == 2 for values in logged.values())
    assert result["stopped"] is None and result["seconds"] > 0
    assert logged["kl_exact"][0] == 0 < logged["kl_exact"][1]
    parts = result["form"] + result["completeness"] + result["truth"]
    assert result["gold"] == pytest.approx(parts, abs=1e-5)
    assert 0 < result["length"] <= 8 and 0 <= result["ended"] <= 1
    start = sweeps.start_arm(seed=1, n=3, **MADE)
    assert start["kl"] == 0 and set(start) < set(result)
    # The score is the learnt reward alone: gold has weight 0.
    model, tokenizer = tiny
    learnt, _ = alignment.reward_model(4)
    trainer = sweeps.trainer_for(model, tokenizer, learnt, seed=1)
    trainer.evaluate(sweeps.requests("test", 3))
    found = trainer.eval_completions
    learnt_alone = [row["reward/LlamaForSequenceClassification"] for row in found]
    assert start["proxy"] == pytest.approx(np.mean(learnt_alone))
    assert len(found) == 6
    names = [r["prompt"][0]["content"] for r in found]
    assert names == [gold.request(s) for s in ("Peru", "argon")] * 3


@pytest.mark.network
def test_a_kept_policy_is_the_one_that_was_measured(tiny, monkeypatch):
    recipe = dict(seed=0, updates=1, kl_coef=0.3, **MADE)
    kept = sweeps.ppo_arm(n=2, keep=True, **recipe)
    plain = sweeps.ppo_arm(n=2, **recipe)
    for name in ("gold", "proxy", "kl", "entropy"):
        assert kept[name] == pytest.approx(plain[name], rel=1e-5)
    assert kept["history"]["kl_exact"] == plain["history"]["kl_exact"]
    monkeypatch.setattr(sweeps, "trained", None)  # from the cache
    policy, tokenizer = sweeps.ppo_policy(0.3, 0, updates=1, **MADE)
    found = sweeps.measure(policy, tokenizer, seed=0, n=2, **MADE)
    assert found["kl"] == pytest.approx(kept["kl"], rel=1e-6)
    model, _ = sweeps.with_value(sweeps.ppo_folder(**recipe))
    assert isinstance(model, PolicyAndValue)
    assert model.value_head.weight.abs().max() > 0, "the trained value head"


@pytest.mark.network
def test_a_run_that_explodes_is_told_and_not_measured(tiny, monkeypatch):
    result = sweeps.ppo_arm(seed=0, updates=2, n=1, loss_limit=1e-12, **MADE)
    assert "the loss is" in result["stopped"] and "gold" not in result
    assert all(values == [] for values in result["history"].values())
    assert sweeps.failed({**result, "seed": 0}, START)


@pytest.mark.network
def test_dpo_gets_the_comparisons_of_the_reward_model(tiny, monkeypatch):
    said = ["One.", "Two.", "Three."]
    pairs = [
        {"prompt": gold.request("France"), "chosen": a, "rejected": b}
        for a, b in itertools.permutations(said, 2)
    ]
    asked, learnt = [], []
    monkeypatch.setattr(alignment, "candidates", lambda *a, **o: "replies")
    monkeypatch.setattr(
        alignment, "comparisons", lambda some, n: asked.append((some, n)) or pairs
    )
    train = sweeps.train_dpo

    def train_dpo(policy, tokenizer, rows, **options):
        learnt.append((rows, options))
        return train(policy, tokenizer, rows, **options)

    monkeypatch.setattr(sweeps, "train_dpo", train_dpo)
    arm = dict(n=2, seed=3, dpo_steps=2, learning_rate=1e-2, kl_coef=0.2)
    result = sweeps.dpo_arm(**arm, **MADE)
    assert asked == [("replies", 4)]
    [(rows, options)] = learnt
    assert sorted(map(str, rows)) == sorted(map(str, pairs))
    assert options["beta"] == 0.2 and options["seed"] == 3
    assert result["kl"] > 0 and result["stopped"] is None and result["seconds"] > 0


# --- One reply ----------------------------------------------------------------------


def test_an_episode_holds_what_the_models_say_of_each_token(tiny_model, tiny_tokenizer):
    import copy

    model = PolicyAndValue(tiny_model).eval()
    torch.nn.init.normal_(model.value_head.weight)
    reference = copy.deepcopy(tiny_model)
    with torch.no_grad():
        reference.model.embed_tokens.weight += 0.05
    episode, tokens = sweeps.one_episode(
        model, reference, tiny_tokenizer, "Where is Oslo?", seed=2, max_new_tokens=9
    )
    [ids] = episode.completion_ids()
    assert tokens == [tiny_tokenizer.decode([i]) for i in ids]
    start = int(episode.prompt_length)
    with torch.no_grad():
        logits = tiny_model(episode.input_ids).logits[0, start - 1 : -1]
        ref_logits = reference(episode.input_ids).logits[0, start - 1 : -1]
    for found, said in (
        (episode.old_log_probs, logits),
        (episode.ref_log_probs, ref_logits),
    ):
        expected = said.log_softmax(-1)[torch.arange(len(ids)), ids]
        torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-5)
    kl = exact_kl(logits, ref_logits)
    torch.testing.assert_close(episode.exact_kl[0], kl, rtol=1e-3, atol=1e-5)
    log_probs, values, _ = sweeps.says(model, episode)
    assert log_probs.requires_grad and values.requires_grad
    torch.testing.assert_close(values.detach(), episode.values)


@pytest.mark.network
def test_requests_are_about_the_split_and_carry_their_subject():
    rows = sweeps.requests("test", 2)
    names = alignment.subjects("test")
    assert [row["subject"] for row in rows] == [*names, *names]
    assert rows[0]["prompt"] == [{"role": "user", "content": gold.request(names[0])}]
    world = tasks.default_world()
    reply = gold.best_reply(world, names[0], np.random.default_rng(0))
    expected = gold.gold_reward(world, names[0], reply).total
    assert sweeps.gold_of([reply, ""], names[:2])[0] == expected
