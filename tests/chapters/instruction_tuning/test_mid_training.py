"""Mid-training's arms: what each reads, when, at what learning rate, and how it is
compared."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from alignlab.chapters.instruction_tuning import mid_training as mt
from alignlab.models import base
from alignlab.objectives import sft_loss
from alignlab.study.scale import rate
from alignlab.training import pretrain
from alignlab.training.sft import Encoded, collate, encode

HIGH, LOW = (rate(what, "300k") for what in ("text", "tasks"))
UPDATES, WIDTH = 20, 12
ROWS = np.random.default_rng(0).integers(5, 300, (40, WIDTH)).astype(np.int16)


@pytest.fixture(scope="module")
def encoded(tiny_tokenizer):
    names = ["France", "Norway", "Peru", "Japan the second"]
    examples = [
        {"prompt": f"Where is {names[i % 4]}, number {i}?", "completion": "Oslo."}
        for i in range(50)
    ]
    return encode(tiny_tokenizer, examples)


def plan(arm, n_rows=40, n_replayed=6, updates=UPDATES):
    return mt.plan_stages(
        arm,
        n_rows=n_rows,
        n_replayed=n_replayed,
        updates=updates,
        decay_rate=HIGH,
        sft_rate=LOW,
    )


def read(arm, encoded):
    """Every batch of an arm, in order."""
    return [b for s in plan(arm) for b in mt.stage_batches(s, ROWS, encoded, 0)]


def rows_of(batches):
    rows = [b["text_input_ids"] for b in batches if "text_input_ids" in b]
    return torch.cat(rows).tolist()


def examples_of(batches):
    found = [b for b in batches if "input_ids" in b]
    return [
        ids[mask.bool()].tolist()
        for batch in found
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]


# --- Equal tokens -------------------------------------------------------------------


@pytest.mark.parametrize("arm", mt.ARMS)
def test_every_arm_reads_every_row_and_every_example_once_in_one_order(arm, encoded):
    batches = read(arm, encoded)
    assert rows_of(batches) == ROWS.tolist()
    assert examples_of(batches) == [e.input_ids for e in encoded]


@pytest.mark.parametrize("arm", mt.ARMS)
def test_tokens_are_counted_as_the_loop_counts_them(
    arm, encoded, tiny_model, tiny_tokenizer
):
    pad = tiny_tokenizer.pad_token_id
    result = mt.run_stages(tiny_model, plan(arm), ROWS, encoded, pad, seed=0)
    assert result["text_tokens"] == ROWS.size
    assert result["sft_tokens"] == sum(len(e.input_ids) for e in encoded)
    assert len(result["curve"]) == result["updates"]
    # Counted by the training loop, from what it was given:
    assert result["curve"][-1][0] == result["text_tokens"] + result["sft_tokens"]
    tokens = [row[0] for row in result["curve"]]
    assert all(np.diff(tokens) > 0)


def test_no_update_is_empty_and_the_examples_are_spread_evenly(encoded):
    for arm in mt.ARMS:
        for stage in plan(arm):
            batches = mt.stage_batches(stage, ROWS, encoded, 0)
            assert len(batches) == stage.updates and all(batches)
    sizes = [len(b["input_ids"]) for b in read("mid", encoded)]
    assert set(sizes) == {2, 3} and sum(sizes) == 50
    assert [len(b["text_input_ids"]) for b in read("mid", encoded)] == [2] * UPDATES


def test_replayed_rows_are_the_last_and_spread_over_the_whole_stage(encoded):
    decay, later = plan("replay")
    assert decay.updates == 17  # 34 of 40 rows, two an update
    batches = mt.stage_batches(later, ROWS, encoded, 0)
    assert rows_of(batches) == ROWS[-6:].tolist()
    where = [k for k, b in enumerate(batches) if "text_input_ids" in b]
    assert where == [3, 6, 9, 13, 16, 19]


def test_replay_of_nothing_is_the_stage_after():
    decay, later = plan("replay", n_replayed=0)
    assert decay == plan("after")[0] and decay.is_pure_decay(len(ROWS))
    assert not any("text_input_ids" in b for b in mt.stage_batches(later, ROWS, [], 0))


def test_budget_makes_the_share_it_names():
    for share in (0.05, 0.2, 0.5):
        budget = mt.token_budget(245_760, share)
        assert budget / (245_760 + budget) == pytest.approx(share, abs=1e-5)


@pytest.mark.parametrize("budget", [200, 1000, 3001])
def test_examples_fill_the_budget_to_within_one(budget, tiny_tokenizer, mixture):
    chosen = mt.draw_examples(tiny_tokenizer, budget, 0)
    lengths = [len(e.input_ids) for e in chosen]
    assert sum(lengths[:-1]) < budget <= sum(lengths)


def test_mixed_batches_hold_the_designed_share(tiny_tokenizer, mixture):
    rows = np.full((32 * 16, WIDTH), 9, np.int16)
    budget = mt.token_budget(rows.size, 0.2)
    encoded = mt.draw_examples(tiny_tokenizer, budget, 0)
    [stage] = plan("mid", n_rows=len(rows), updates=32)
    batches = mt.stage_batches(stage, rows, encoded, 0)
    examples = np.array([int(b["attention_mask"].sum()) for b in batches])
    text = np.array([b["text_input_ids"].numel() for b in batches])
    assert set(text) == {16 * WIDTH}
    assert examples.sum() / (examples + text).sum() == pytest.approx(0.2, abs=0.005)
    assert np.abs(examples / (examples + text) - 0.2).max() < 0.15


# --- Learning rates -----------------------------------------------------------------


def rates(arm, encoded, model):
    result = mt.run_stages(model, plan(arm), ROWS, encoded, 0, seed=0)
    return np.array([row[1] for row in result["curve"]])


def linear(steps, peak):
    """A twentieth of the steps up, then a straight line that ends one step above 0."""
    warm = max(1, steps // 20)
    k = np.arange(steps)
    return np.where(
        k < warm, peak * (k + 1) / warm, peak * (steps - k) / (steps - warm)
    )


def cosine(steps, peak):
    warm = max(1, steps // 20)
    k = np.arange(steps)
    fall = peak * 0.5 * (1 + np.cos(math.pi * (k - warm) / (steps - warm)))
    return np.where(k < warm, peak * (k + 1) / warm, fall)


def test_learning_rates_follow_their_closed_forms(encoded, tiny_model):
    found = {arm: rates(arm, encoded, tiny_model) for arm in mt.ARMS}
    decay = linear(UPDATES, HIGH)
    sft = cosine(UPDATES, LOW)
    np.testing.assert_allclose(found["mid"], decay)
    np.testing.assert_allclose(found["after"], [*decay, *sft])
    np.testing.assert_allclose(found["after_high_rate"], [*decay, *decay])
    np.testing.assert_allclose(found["replay"], [*linear(17, HIGH), *sft])


def test_control_meets_each_example_at_the_rate_of_the_mixture(encoded):
    [mixed], [_, later] = plan("mid"), plan("after_high_rate")
    for one, other in zip(
        mt.stage_batches(mixed, ROWS, encoded, 0),
        mt.stage_batches(later, ROWS, encoded, 0),
        strict=True,
    ):
        assert torch.equal(one["input_ids"], other["input_ids"])
    for name in ("updates", "learning_rate", "schedule"):
        assert getattr(mixed, name) == getattr(later, name)


# --- The loss -----------------------------------------------------------------------


def test_mixture_loss_weighs_each_source_by_its_tokens(encoded, tiny_model):
    text = torch.from_numpy(ROWS[:3].astype(np.int64))
    batch = {"text_input_ids": text} | collate(encoded[:5], 0)
    loss, _ = mt.mixture_loss(tiny_model, batch)
    examples = collate(encoded[:5], 0)
    logits = tiny_model(
        examples["input_ids"], attention_mask=examples["attention_mask"]
    ).logits
    on_examples = sft_loss(logits, examples["input_ids"], examples["mask"])
    on_text = pretrain.language_loss(tiny_model, {"input_ids": text})[0]
    n, m = text.numel(), sum(len(e.input_ids) for e in encoded[:5])
    expected = (n * on_text + m * on_examples) / (n + m)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_mixture_loss_of_one_source_is_that_source_alone(encoded, tiny_model):
    text = torch.from_numpy(ROWS[:3].astype(np.int64))
    alone, _ = mt.mixture_loss(tiny_model, {"text_input_ids": text})
    assert torch.equal(
        alone, pretrain.language_loss(tiny_model, {"input_ids": text})[0]
    )
    examples = collate(encoded[:5], 0)
    doubled, _ = mt.mixture_loss(tiny_model, collate(encoded[:5] * 2, 0))
    once, _ = mt.mixture_loss(tiny_model, examples)
    assert doubled.item() == pytest.approx(once.item(), rel=1e-5)


def test_with_the_loss_on_all_the_mixture_is_a_mean_over_tokens(tiny_model):
    # Text cut into examples of its own: then both parts are one kind, and their mixture
    # is the mean over all the tokens that have one before them.
    few = ROWS[:4].astype(int).tolist()
    as_examples = collate([Encoded(row, [1] * WIDTH) for row in few[3:]], 0)
    mixed, _ = mt.mixture_loss(
        tiny_model, {"text_input_ids": torch.tensor(few[:3])} | as_examples
    )
    whole = pretrain.language_loss(tiny_model, {"input_ids": torch.tensor(few)})[0]
    assert mixed.item() == pytest.approx(whole.item(), rel=2e-2)  # text in bfloat16


# --- Text ---------------------------------------------------------------------------


def test_held_out_documents_are_the_last_and_never_trained_on():
    documents = [str(i) for i in range(10_000)]
    everything, held_out = mt.split_documents(documents)
    assert held_out == documents[-90:] and everything == documents[:-90]
    some, held_out = mt.split_documents(documents, 500)
    assert some == documents[:500] and held_out == documents[-50:]
    some, held_out = mt.split_documents(documents, 5000)
    assert held_out == documents[-90:]


def test_rows_are_drawn_once_each_and_by_the_seed():
    drawn = mt.draw_rows(ROWS, 30, seed=1)
    assert len({tuple(row) for row in drawn.tolist()}) == 30
    assert {tuple(row) for row in drawn.tolist()} <= {tuple(r) for r in ROWS.tolist()}
    assert np.array_equal(drawn, mt.draw_rows(ROWS, 30, seed=1))
    assert not np.array_equal(drawn, mt.draw_rows(ROWS, 30, seed=2))
    with pytest.raises(ValueError, match="n_documents"):
        mt.draw_rows(ROWS, len(ROWS) + 1, seed=0)


# --- Whole arms ---------------------------------------------------------------------


@pytest.fixture
def mixture(monkeypatch):
    def fake(n, *, split="train", seed=0):
        rng = np.random.default_rng(seed)
        ask = "What is the capital of {}, in one word?".format
        names = ["France", "Norway", "Kenya", "the yen"]
        return [
            SimpleNamespace(prompt=ask(names[rng.integers(4)]), completion="Paris.")
            for _ in range(n)
        ]

    monkeypatch.setattr(mt.tasks, "mixture", fake)


@pytest.fixture
def small(monkeypatch, tmp_path, mixture, tiny_model, tiny_tokenizer):
    """Everything that whole arms need, in miniature: base model, corpus, questions."""
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(base, "WEIGHTS", tmp_path)
    monkeypatch.setattr(mt, "weights_hash", lambda base: "tiny")
    base.save_model(tiny_model, tiny_tokenizer, tmp_path / "300k-stable")
    monkeypatch.setattr(mt.tasks, "default_world", lambda: None)
    words = "The capital of Norway is Oslo . Iron has the number 26".split()
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, 400)) for _ in range(100)]
    monkeypatch.setattr(mt.corpus, "documents", lambda world: texts)

    scores = {"accuracy": 0.0, "format": 0.0}
    monkeypatch.setattr(mt.tuning, "reply", lambda *arguments: [])
    monkeypatch.setattr(mt.tuning, "judge", lambda *arguments: scores)
    return {
        "base": "300k",
        "seed": 0,
        "decay_steps": 2,
        "sft_share": 0.2,
        "replay_share": 0.3,
    }


def test_arms_of_a_seed_have_equal_tokens_and_one_reference(small):
    results = [mt.mid_training_arm(arm=arm, **small) for arm in mt.ARMS]
    assert len({r["text_tokens"] for r in results}) == 1
    assert len({r["sft_tokens"] for r in results}) == 1
    assert len({r["text_loss_before"] for r in results}) == 1
    assert len({r["text_loss"] for r in results}) == len(mt.ARMS)
    first = results[0]
    share = first["sft_tokens"] / (first["sft_tokens"] + first["text_tokens"])
    assert share == pytest.approx(0.2, abs=0.003)
    assert first["text_tokens"] == 2 * mt.ROWS * 256
    assert [r["updates"] for r in results] == [4, 2, 4, 4]
    for r in results:
        assert r["forgetting"] == r["text_loss"] - r["text_loss_before"]
        assert len(r["curve"]) == r["updates"]
        assert r["curve"][-1][0] == r["text_tokens"] + r["sft_tokens"]
    json.dumps(results)


def test_only_arms_that_go_on_from_the_reference_wait_for_it(small, monkeypatch):
    called = []

    def noted(name, original):
        return lambda *args, **options: (
            called.append(name) or original(*args, **options)
        )

    for name in ("decayed_base", "run_stages"):
        monkeypatch.setattr(mt, name, noted(name, getattr(mt, name)))
    first = {}
    for arm in mt.ARMS:
        called.clear()
        mt.mid_training_arm(arm=arm, **small)
        first[arm] = called[0]
    waits = {arm for arm, name in first.items() if name == "decayed_base"}
    assert waits == {"after", "after_high_rate"}


def test_arms_repeat_by_seed_and_differ_between_seeds(small, monkeypatch, tmp_path):
    before = {a: mt.mid_training_arm(arm=a, **small) for a in ("mid", "after")}
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "another"))
    for arm, result in before.items():
        assert mt.mid_training_arm(arm=arm, **small) == result
    other = mt.mid_training_arm(arm="mid", **small | {"seed": 1})
    assert other["text_loss"] != before["mid"]["text_loss"]


def test_going_on_from_the_stored_decay_is_the_same_as_never_stopping(
    small, tiny_model, tiny_tokenizer
):
    stored = mt.mid_training_arm(arm="after", **small)
    text, held_out = mt.text_rows(tiny_tokenizer)
    rows = mt.draw_rows(text, 2 * mt.ROWS, seed=0)
    encoded = mt.draw_examples(tiny_tokenizer, mt.token_budget(rows.size, 0.2), 0)
    stages = plan("after", n_rows=2 * mt.ROWS, updates=2)
    mt.run_stages(tiny_model, stages, rows, encoded, tiny_tokenizer.pad_token_id, 0)
    assert stored["text_loss"] == pretrain.heldout_loss(tiny_model, held_out)


def test_an_untouched_model_forgets_nothing(small, tiny_tokenizer):
    _, held_out = mt.text_rows(tiny_tokenizer)
    folder = mt.decayed_base(seed=0, base="300k", decay_steps=2, n_documents=None)
    before = json.loads((folder / "measured.json").read_text())["text_loss"]
    model, _ = base.load_model(folder)
    assert pretrain.heldout_loss(model, held_out) == before


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"arm": "middle"}, "middle"),
        ({"arm": "mid", "sft_share": 1.0}, "sft_share"),
        ({"arm": "mid", "replay_share": -0.1}, "replay_share"),
        ({"arm": "mid", "decay_steps": 1000}, "n_documents"),
        ({"arm": "replay", "sft_share": 0.9, "replay_share": 0.9}, "replay_share"),
        ({"arm": "mid", "sft_share": 1e-6}, "sft_share"),
        ({"arm": "mid", "n_documents": 1, "decay_steps": 9}, "lower it to 0"),
    ],
)
def test_wrong_arguments_are_named(wrong, says, small):
    with pytest.raises(ValueError, match=says):
        mt.mid_training_arm(**small | wrong)
