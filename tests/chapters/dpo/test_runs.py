"""The arms of notebook 05: fair comparisons, and runs of a tiny policy."""

import copy
import itertools
import json
import math
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from alignlab import cache
from alignlab.chapters.dpo import analysis
from alignlab.chapters.dpo import runs as dpo
from alignlab.chapters.ppo import artifacts as ppo
from alignlab.chapters.ppo import runs as ppo_runs
from alignlab.chapters.ppo.runs import run_all
from alignlab.models.positions import completion_log_probs
from alignlab.models.reward import reward_model_from
from alignlab.runs.profiles import notebook_settings
from alignlab.study import arms, artifacts
from alignlab.training.sft import collate, encode
from alignlab.world import gold

# --- Gradients ----------------------------------------------------------------------


def test_a_pairs_gradient_is_that_of_its_loss_read_alone(tiny_model, tiny_tokenizer):
    reference = copy.deepcopy(tiny_model)
    with torch.no_grad():
        for weights in tiny_model.parameters():
            weights += 0.02 * torch.randn_like(weights)
    pairs = [
        dict(prompt="Where is Oslo?", chosen="In Norway.", rejected="The yen."),
        dict(prompt="Is gold a metal?", chosen="Yes.", rejected="In one word. Oslo."),
    ]
    found = dpo.pair_gradients(tiny_model, reference, tiny_tokenizer, pairs, 0.7)

    def log_ratio(pair, side):
        texts = encode(tiny_tokenizer, [{**pair, "completion": pair[side]}])
        batch = collate(texts, tiny_tokenizer.pad_token_id)
        with torch.no_grad():
            before = completion_log_probs(reference, **batch).sum()
        return completion_log_probs(tiny_model, **batch).sum() - before

    for number, pair in enumerate(pairs):
        margin = log_ratio(pair, "chosen") - log_ratio(pair, "rejected")
        loss = torch.log1p(torch.exp(-0.7 * margin))
        slopes = torch.autograd.grad(loss, list(tiny_model.parameters()))
        length = math.sqrt(sum((slope**2).sum().item() for slope in slopes))
        assert found["margin"][number] == pytest.approx(margin.item(), abs=1e-3)
        assert found["gradient"][number] == pytest.approx(length, rel=1e-3)
    assert analysis.gradient_summary(found, 0.7)["error"] < 1e-4


# --- The design of the sweeps -------------------------------------------------------

FRONTIER = dict(
    betas=[0.0, 0.2], gold_betas=[0.3], strengths=3, ns=[2, 4], updates=3, n_used=16,
    n=2, jobs=1, size="300k", steps=6, n_pairs=32, k=4,
)  # fmt: skip


@pytest.fixture
def calls(monkeypatch):
    """What the notebook would run; each call gives back its arm."""
    made = []

    def run_each(some, **options):
        made.extend(some)
        json.dumps([arm for _, arm in some])
        return [{**arm, "is": run.__name__, "points": [{"n": 2}]} for run, arm in some]

    monkeypatch.setattr(arms, "run_each", run_each)
    return made


def test_every_method_has_its_strengths_and_seeds(calls):
    rows = dpo.frontier_sweep(
        seeds=[0, 1], family_seeds=[0], gold_seeds=[1], **FRONTIER
    )
    names = [run.__name__ + json.dumps(arm, sort_keys=True) for run, arm in calls]
    assert len(set(names)) == len(names) == 8 + 5 * 3 + 4 + 1 + 2 + 2 + 1
    assert [r["seed"] for r in rows["start"]] == [0, 1]
    for name, method in dpo.FAMILY.items():
        seeds, count = ([0, 1], 4) if name == "DPO" else ([0], 3)
        runs = [(r["beta"], r["seed"]) for r in rows[name]]
        assert runs == list(itertools.product(method.strengths[:count], seeds))
        assert {r["loss_type"] for r in rows[name]} == {method.loss_type}
        assert {(r["n_used"], r["passes"], r["n"]) for r in rows[name]} == {(16, 1, 2)}
    assert [(r["kl_coef"], r["seed"]) for r in rows["PPO on gold"]] == [(0.3, 1)]
    [as_labelled, _] = [r for r in rows["DPO"] if r["beta"] == dpo.TOSSED_BETA]
    assert rows["tossed labels"] == [as_labelled | {"flips": 0.5}]
    assert rows["best of n"] == [{"n": 2, "seed": 0}, {"n": 2, "seed": 1}]


def test_ppo_is_notebook_04s_own(calls, monkeypatch):
    """The very arms of its sweep and start, so that none is run twice."""
    rows = dpo.frontier_sweep(seeds=[0, 1], family_seeds=[], gold_seeds=[], **FRONTIER)
    ours = [call for call in calls if call[0] in (ppo.ppo_arm, ppo.start_arm)]
    common = {name: FRONTIER[name] for name in ("size", "steps", "n_pairs", "k")}
    theirs = []

    def run_each(some, **options):
        theirs.extend(some)
        raise StopIteration

    monkeypatch.setattr(arms, "run_each", run_each)
    with pytest.raises(StopIteration):
        run_all(
            seeds=[0, 1], many_seeds=[], piece_seeds=[], few_seeds=[], dpo_seeds=[],
            betas=[0.0, 0.2], rates=[], grid_betas=[], updates=3, dpo_steps=1, n=2,
            **common,
        )  # fmt: skip
    assert len(ours) == 4 + 2 and all(call in theirs for call in ours)
    assert len(rows["PPO"]) == 4


@pytest.mark.parametrize("profile", ["smoke", "cpu", "full", "gpu"])
def test_the_settings_of_ppo_are_notebook_04s(profile):
    ours, theirs = notebook_settings("05", profile), notebook_settings("04", profile)
    for name in ("size", "steps", "n_pairs", "k", "updates", "betas", "seeds", "n"):
        assert ours[name] == theirs[name], name


def test_noise_tells_the_smoothed_losses_its_rate_and_no_other(calls):
    groups = dpo.noise_sweep(seeds=[0, 1], flips=[0.0, 0.4], jobs=1, n=1)
    for name, rows in groups.items():
        told = [(r["flips"], r["seed"], r.get("label_smoothing")) for r in rows]
        smooth = name in ("cDPO", "robust")
        assert told == [
            (rate, seed, rate if smooth else None)
            for rate in (0.0, 0.4)
            for seed in (0, 1)
        ]
        assert {r["loss_type"] for r in rows} == {dpo.GUARDS[name]}


def test_the_control_differs_in_its_loss_only(calls):
    groups = dpo.close_sweep(seeds=[0, 1], follow=4, jobs=1, size="300k")
    for one, other in zip(groups["DPO"], groups["unweighted"], strict=True):
        assert one.pop("loss_type") == "sigmoid"
        assert other.pop("loss_type") == "unweighted"
        assert one == other and one["beta"] == dpo.BETA
        assert one["rate"] == 2 * dpo.RATE["300k"]


def test_strengths_go_from_far_to_near():
    for method in dpo.FAMILY.values():
        falls = method.loss_type == "orpo"  # its weight is of the preference
        assert list(method.strengths) == sorted(method.strengths, reverse=falls)
        assert len(set(method.strengths)) == 4


# --- Whole arms ---------------------------------------------------------------------

SUBJECTS = {"train": ("France", "gold", "Norway", "iron"), "test": ("Peru", "argon")}
MADE = dict(size="300k", steps=1, n_pairs=6, k=2)
SAID = ["One.", "Two words.", "Oslo, and three.", "The yen."]


@pytest.fixture
def tiny(tmp_path, monkeypatch, tiny_model, tiny_tokenizer):
    """A random reference policy and its comparisons over a few subjects, in an empty
    cache that knows the downloaded sources."""
    sources = cache.cache_dir() / "sources"
    sources.mkdir(parents=True, exist_ok=True)
    os.symlink(sources, tmp_path / "sources")
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    asked = []

    def comparisons(some, n=None, **options):
        asked.append((some, n, options))
        request = gold.request(SUBJECTS[some][0])
        two = [*itertools.permutations(SAID, 2)]
        return [dict(prompt=request, chosen=a, rejected=b) for a, b in two][:n]

    policy = tiny_model, tiny_tokenizer
    monkeypatch.setattr(artifacts, "reference_policy", lambda *a, **o: policy)
    monkeypatch.setattr(artifacts, "candidates", lambda split, k, **o: split)
    monkeypatch.setattr(artifacts, "comparisons", comparisons)
    monkeypatch.setattr(artifacts, "subjects", SUBJECTS.get)
    monkeypatch.setattr(artifacts, "MAX_NEW_TOKENS", 8)
    dpo._comparisons.cache_clear()
    yield asked
    dpo._comparisons.cache_clear()


ARM = dict(loss_type="sigmoid", beta=0.1, n_used=8, passes=2, n=3, rate=1e-3)


@pytest.mark.network
def test_an_arm_learns_from_its_comparisons_and_is_measured(tiny, tiny_model):
    before = copy.deepcopy(tiny_model.state_dict())
    result = dpo.preference_arm(seed=1, follow=2, **ARM, **MADE)
    json.dumps(result)
    for name, value in tiny_model.state_dict().items():
        assert torch.equal(value, before[name]), "the reference stays as it is"
    assert result["stopped"] is None and result["updates"] == 8 * 2 // dpo.BATCH
    assert len(result["golds"]) == 2 and result["kl"] > 0
    assert result["gold"] == pytest.approx(np.mean(result["golds"]))
    learnt, unseen = tiny
    assert learnt == ("train", 6, {"flips": artifacts.FLIPS})
    assert unseen[:2] == ("test", 2)
    assert unseen[2] == {"flips": artifacts.FLIPS, "seed": dpo.HELD_OUT_SEED}
    looks = result["log_ratios"]
    assert looks["pairs"] == [0, 8, 16]
    assert all(values[0] in (0.0, 0.5) for k, values in looks.items() if k != "pairs")
    assert looks["train/chosen"][-1] > looks["train/rejected"][-1], "it has learnt"
    assert len(result["gradients"]["margin"]) == 2
    margin = looks["held_out/chosen"][-1] - looks["held_out/rejected"][-1]
    assert np.mean(result["gradients"]["margin"]) == pytest.approx(margin, abs=1e-3)


@pytest.mark.network
def test_the_seed_draws_the_comparisons_and_nothing_followed_costs_nothing(
    tiny, monkeypatch
):
    learnt = []
    train = dpo.train_dpo

    def train_dpo(policy, tokenizer, pairs, **options):
        learnt.append((pairs, options))
        return train(policy, tokenizer, pairs, **options)

    monkeypatch.setattr(dpo, "train_dpo", train_dpo)
    arm = ARM | MADE | dict(n_used=4, n=1)
    for seed in (0, 0, 1):
        dpo.preference_arm(seed=seed, **arm)
    assert learnt[0][0] == learnt[1][0] != learnt[2][0]
    assert all(len(pairs) == 4 for pairs, _ in learnt)
    assert "eval_pairs" not in learnt[0][1] and len(tiny) == 1, "one draw, then shared"


@pytest.mark.network
def test_a_run_that_explodes_is_told_and_not_measured(tiny):
    result = dpo.preference_arm(seed=0, **ARM | MADE | dict(rate=1e30))
    assert set(result) == {"stopped"} and "loss" in result["stopped"]


@pytest.mark.network
def test_the_same_weights_measure_the_same_whatever_trained_them(
    tiny, tiny_model, tiny_tokenizer, monkeypatch
):
    trained = copy.deepcopy(tiny_model)
    with torch.no_grad():
        for weights in trained.parameters():
            weights += 0.02 * torch.randn_like(weights)

    def by_ppo(**recipe):
        policy = copy.deepcopy(trained)
        state = SimpleNamespace(log_history=[])
        return SimpleNamespace(
            policy=policy, processing_class=tiny_tokenizer, state=state, stopped=None
        )

    def by_dpo(policy, *_, **__):
        policy.load_state_dict(trained.state_dict())
        policy.train()
        return []

    proxy = reward_model_from(tiny_model, seed=0), tiny_tokenizer
    monkeypatch.setattr(artifacts, "reward_model", lambda *a, **o: proxy)
    monkeypatch.setattr(
        artifacts,
        "reference_policy",
        lambda *a, **o: (copy.deepcopy(tiny_model), tiny_tokenizer),
    )
    monkeypatch.setattr(ppo, "train_ppo", by_ppo)
    monkeypatch.setattr(ppo_runs, "train_dpo", by_dpo)
    monkeypatch.setattr(dpo, "train_dpo", by_dpo)
    monkeypatch.setattr(dpo, "_ref_log_probs", lambda *_: None)
    options = dict(seed=4, n=3)
    rates = dict(dpo_steps=1, learning_rate=1e-3, kl_coef=0.1)
    after_ppo = ppo.ppo_arm(updates=1, **options, **MADE)
    after_dpo = ppo_runs.dpo_arm(**rates, **options, **MADE)
    after_family = dpo.preference_arm(**ARM | options | MADE)
    for name in ("history", "seconds"):
        del after_ppo[name]
    assert after_ppo == after_dpo and after_ppo["kl"] > 0
    del after_family["updates"], after_dpo["proxy"]
    assert after_family == after_dpo


@pytest.mark.network
def test_a_run_is_timed_after_a_start_that_is_not(tiny, tiny_model, monkeypatch):
    """And PPO's updates are scaled to those of a run."""
    trained, ticks = [], iter([0.0, 1.0, 10.0, 14.0])
    monkeypatch.setattr(dpo.time, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(
        dpo, "train_dpo", lambda policy, _, pairs, **o: trained.append((pairs, o))
    )
    monkeypatch.setattr(ppo, "timed_arm", lambda **arm: {"seconds": 3.0})
    alone = []
    monkeypatch.setattr(
        dpo,
        "run_alone",
        lambda calls: (
            alone.append(calls) or [{**arm, **run(**arm)} for run, arm in calls]
        ),
    )
    made = MADE | {"n_pairs": 12}
    seconds = dpo.time_each([7], updates=5, n_used=2 * dpo.BATCH, **made)
    assert seconds == {"DPO": {7: 4.0}, dpo.PPO: {7: 15.0}}
    [calls] = alone
    assert [run for run, _ in calls] == [ppo.timed_arm, dpo.timed_arm]
    assert [options["steps"] for _, options in trained] == [1, 2]
    (first, _), (pairs, options) = trained
    assert pairs[: dpo.BATCH] == first and len(pairs) == 12
    assert options["batch_size"] == dpo.BATCH


@pytest.mark.network
def test_ppo_on_gold_is_paid_in_gold(tiny, monkeypatch):
    recipe = {**ppo.RECIPE, "max_completion_length": 8}
    monkeypatch.setattr(ppo, "RECIPE", recipe | {"per_device_train_batch_size": 4})
    built = []
    trainer = dpo.PPOTrainer
    monkeypatch.setattr(
        dpo,
        "PPOTrainer",
        lambda *args, **options: built.append(args) or trainer(*args, **options),
    )
    settings = dict(size="300k", steps=1, n=2)
    result = dpo.gold_ppo_arm(seed=0, kl_coef=0.1, updates=1, **settings)
    json.dumps(result)
    assert result["stopped"] is None and len(result["golds"]) == 2
    [(_, reward, args, _)] = built
    assert reward is ppo.gold_of and args.kl_coef == 0.1 and args.max_steps == 1
    assert args.reward_weights == [dpo.GOLD_SCALE]


@pytest.mark.network
def test_best_of_n_picks_by_the_proxy_reward(monkeypatch):
    def candidate(prompt, golds):
        replies = [SimpleNamespace(text=str(g), gold=SimpleNamespace(total=g))
                   for g in golds]  # fmt: skip
        return SimpleNamespace(prompt=prompt, replies=replies)

    some = [candidate("p", [1.0, 2.0, 4.0]), candidate("q", [5.0, 0.0, 1.0])]
    monkeypatch.setattr(artifacts, "candidates", lambda *a, **o: some)
    monkeypatch.setattr(artifacts, "reward_model", lambda *a, **o: (None, None))
    monkeypatch.setattr(  # it likes little gold
        artifacts, "score", lambda m, t, p, texts: -np.array([float(x) for x in texts])
    )
    made = dict(size="300k", steps=1, n_pairs=4, k=3)
    [one, three] = dpo.best_of_n_arm(seed=0, ns=[1, 3], **made)["points"]
    assert one["golds"] == pytest.approx([7 / 3, 2]) and one["kl"] == 0
    assert three["golds"] == [1.0, 0.0] and three["gold"] == 0.5
    assert three["kl"] == pytest.approx(math.log(3) - 2 / 3)
