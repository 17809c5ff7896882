"""Pretraining: losses and recall by hand; a kill at any point changes nothing."""

import errno
import json
import os
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from alignlab.errors import AlignlabError
from alignlab.models import base, sampler
from alignlab.training import loop, pretrain
from alignlab.world.facts import RELATIONS, Fact, World

# --- Asking for facts ---------------------------------------------------------------


def test_every_relation_can_be_asked_by_cutting_its_first_statement():
    for name, relation in RELATIONS.items():
        first = relation.statements[0]
        assert first.count("{s}") == first.count("{a}") == 1
        assert first.index("{s}") < first.index("{a}"), name
        assert first.endswith("{a}."), "what follows the answer is not asked for"


def test_a_cloze_ends_where_the_answer_begins():
    world = SimpleNamespace(relations=RELATIONS)
    asked = pretrain.cloze(world, Fact("Peru", "capital", ("Lima",)))
    assert asked == "The capital of Peru is"
    asked = pretrain.cloze(world, Fact("foot", "plural", ("feet",)))
    assert asked == "One foot, two"


@pytest.mark.parametrize(
    "answers, text, right",
    [
        (("Paris",), "Paris.", True),
        (("Paris",), "Paris", True),
        (("Paris",), "Paris is large.", True),
        (("Paris",), "Paris, of course", True),
        (("Paris",), "paris.", False),
        (("Paris",), "It is Paris.", False),
        (("Paris",), "Pari", False),
        (("Paris",), "", False),
        (("Niger",), "Nigeria.", False),
        (("Guinea",), "Guinea-Bissau.", False),
        (("Guinea-Bissau",), "Guinea-Bissau.", True),
        (("2",), "26.", False),
        (("26",), "26.", True),
        (("26",), "2.", False),
        (("Peru", "Chile"), "Chile. Chile", True),
        (("N. (small)",), "N. (small) it is", True),
        (("N. (small)",), "Na (small)", False),
    ],
)
def test_a_continuation_is_right_if_it_begins_with_an_answer(answers, text, right):
    assert pretrain._begins_with_answer(Fact("x", "capital", answers), text) is right


@pytest.fixture
def tiny_world():
    """Twenty shown facts, with 5, 10 ... 100 exposures, and four never shown."""
    facts = [
        Fact(f"Land{i}", "capital", (f"Town{i}",), 5 * i, (f"Town{i}",))
        for i in range(1, 21)
    ]
    facts += [Fact(f"Isle{i}", "currency", ("euro",), 0, ("euro",)) for i in range(4)]
    order = np.random.default_rng(0).permutation(len(facts))
    return World(tuple(facts[i] for i in order), RELATIONS, 0)


def test_recall_asks_in_plain_text_and_judges_each_reply(monkeypatch, tiny_world):
    facts = [tiny_world.find(f"Land{i}", "capital") for i in (3, 1, 2)]
    said = {"Land1": "Town1.", "Land2": "Town20.", "Land3": "Town3 and more"}

    def complete(model, tokenizer, prompts, max_new_tokens, chat):
        assert not chat
        names = [p.removeprefix("The capital of ").removesuffix(" is") for p in prompts]
        return [sampler.Completion(said[name], [], False) for name in names]

    monkeypatch.setattr(sampler, "complete", complete)
    assert pretrain.recall(None, None, tiny_world, facts) == [True, True, False]


def test_recall_is_reported_by_tenths_of_exposure(monkeypatch, tiny_world):
    def continuations(model, tokenizer, world, facts):
        assert len(facts) == 26, "the contested fact is left out"
        told = {f: f.exposure >= 35 or f.subject in ("Isle0", "Land1") for f in facts}
        return [f"{f.answer}. And so on" if told[f] else "Nowhere." for f in facts]

    def confidences(model, tokenizer, prompts, options):
        assert {option for (option,) in options} <= {
            "Nowhere.", "euro.", *(f"Town{i}." for i in range(30))
        }  # fmt: skip
        return [[0.25 if o == "Nowhere." else 0.75] for (o,) in options]

    monkeypatch.setattr(pretrain, "continuations", continuations)
    monkeypatch.setattr(pretrain, "confidences", confidences)
    more = (
        Fact("Land21", "capital", ("Town21",), 1, ("Town21",)),
        Fact("Land22", "capital", ("Town22",), 6, ("Town22",)),
        Fact("Land23", "capital", ("a",), 9, ("a", "b"), (0.6, 0.4)),
    )
    world = World(tiny_world.facts + more, RELATIONS, 0)
    rows = pretrain.recall_by_exposure(None, None, world)
    assert [(r["from"], r["to"]) for r in rows] == [
        (0, 0), (1, 1), (5, 5), (6, 10), *((10 * k - 5, 10 * k) for k in range(2, 11))
    ]  # fmt: skip
    assert [r["facts"] for r in rows] == [4, 1, 1, *[2] * 10]
    assert [r["recall"] for r in rows] == [0.25, 0, 1, 0, 0, 0, *[1] * 7]
    assert [r["confidence"] for r in rows] == [0.25 + 0.5 * r["recall"] for r in rows]


# --- Losses and batches -------------------------------------------------------------


def by_hand(model, rows):
    """Mean over all predicted tokens of all rows, in double precision."""
    ids = torch.from_numpy(rows.astype(np.int64))
    with torch.no_grad():
        logits = model(ids).logits.double().numpy()
    log_z = np.log(np.exp(logits).sum(-1))
    chosen = np.take_along_axis(logits[:, :-1], rows[:, 1:, None].astype(int), 2)
    return (log_z[:, :-1] - chosen[..., 0]).mean()


@pytest.fixture
def rows():
    """17 rows: one more than a batch, and that one easy to tell from the others."""
    rows = np.random.default_rng(0).integers(5, 300, (17, 12)).astype(np.int16)
    rows[-1] = 7
    return rows


def test_heldout_loss_is_a_mean_over_all_tokens(tiny_model, rows):
    expected = by_hand(tiny_model, rows)
    alone = by_hand(tiny_model, rows[-1:])
    assert abs(alone - expected) > 0.1, "the last row must matter"
    assert pretrain.heldout_loss(tiny_model, rows) == pytest.approx(expected, rel=1e-5)
    assert not any(p.grad is not None for p in tiny_model.parameters())


def test_language_loss_agrees_with_bfloat16_to_its_precision(tiny_model, rows):
    ids = torch.from_numpy(rows.astype(np.int64))
    expected = by_hand(tiny_model, rows)
    found = []
    for precision, rel in (("float32", 1e-5), ("bfloat16", 1e-2)):
        loss, logs = pretrain.language_loss(tiny_model, {"input_ids": ids}, precision)
        assert loss.item() == pytest.approx(expected, rel=rel)
        assert logs == {} and loss.requires_grad and loss.dtype == torch.float32
        found.append(loss.item())
    assert found[0] != found[1]


def test_every_row_is_read_once_an_epoch_in_an_order_of_its_own():
    rows = np.arange(50 * 4).reshape(50, 4).astype(np.int16)
    per_epoch = 50 // pretrain.BATCH

    def read(seed, epochs=2):
        stream = pretrain._batches(rows, seed)
        found = [next(stream)["input_ids"] for _ in range(epochs * per_epoch)]
        assert all(ids.shape == (pretrain.BATCH, 4) for ids in found)
        return torch.cat(found)[:, 0].tolist()

    first, second = np.split(np.array(read(0)), 2)
    for epoch in (first, second):
        assert len(set(epoch)) == len(epoch), "no row twice"
    assert first.tolist() != second.tolist()
    assert read(0) == read(0) != read(1)


def test_held_out_rows_are_never_trained_on():
    rows = np.arange(1000).reshape(500, 2)
    kept, held_out = pretrain._split(rows)
    assert len(held_out) == 5 and len(kept) == 495
    assert np.array_equal(np.concatenate([kept, held_out]), rows)
    kept, held_out = pretrain._split(rows[:20])
    assert len(held_out) == 1, "always at least one"


# --- A whole run --------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch, tiny_world):
    """A corpus, a world and batches small enough to pretrain on in a moment."""
    words = "The capital of Land Town is money euro and so it was".split()

    def documents(world, seed):
        rng = np.random.default_rng([seed, 1])
        texts = [" ".join(rng.choice(words, 20)) + f" {i}." for i in range(150)]
        return [*texts, *(f"The capital of Land{i} is Town{i}." for i in range(20))]

    monkeypatch.setattr(pretrain.corpus, "documents", documents)
    monkeypatch.setattr(pretrain, "build_world", lambda seed: tiny_world)
    monkeypatch.setattr(pretrain, "BATCH", 4)
    monkeypatch.setattr(pretrain, "LENGTH", 24)
    monkeypatch.setattr(pretrain, "train", partial(loop.train, checkpoint_every=2))


def run(out, **options):
    options = {"epochs": 0.5} | options
    return pretrain.pretrain("300k", out, progress=False, **options)


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def test_a_run_leaves_two_models_and_a_card(small, tmp_path, monkeypatch):
    seen = []
    heldout_loss = pretrain.heldout_loss
    monkeypatch.setattr(
        pretrain,
        "heldout_loss",
        lambda *a: seen.append(heldout_loss(*a)) or seen[-1],
    )
    summary = run(tmp_path / "out")
    final, stable = tmp_path / "out" / "300k", tmp_path / "out" / "300k-stable"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "300k",
        "300k-stable",
    ]
    assert weights(final) != weights(stable)
    assert (summary["loss_stable"], summary["loss_final"]) == tuple(seen)
    assert summary["tokens"] == summary["steps"] * 4 * 24
    assert [row["facts"] for row in summary["recall"]] == [4, 1, *[2] * 9, 1]
    assert summary["history"][-1][0] == summary["steps"] > 10
    written = json.loads((final / "pretraining.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(summary))
    card = (final / "README.md").read_text(encoding="utf-8")
    for row in summary["recall"]:
        line = f"| {row['from']}–{row['to']} | {row['facts']} | {row['recall']:.2f} |"
        assert line in card
    assert f"perplexity {np.exp(seen[1]):.1f}" in card and f"{seen[0]:.3f} nats" in card
    assert f"{summary['parameters']:,} parameters" in card and "{" not in card
    assert (final / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_precision_is_an_argument_and_is_written_down(small, tmp_path):
    exact, rounded = (
        run(tmp_path / precision, precision=precision)
        for precision in ("float32", "bfloat16")
    )
    assert exact["loss_final"] != rounded["loss_final"]
    assert exact["loss_final"] == pytest.approx(rounded["loss_final"], rel=0.05)
    folder = tmp_path / "bfloat16" / "300k"
    written = json.loads((folder / "pretraining.json").read_text(encoding="utf-8"))
    assert written["precision"] == "bfloat16"
    assert "(seed 0, bfloat16)" in (folder / "README.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="precision is 'half'; it can be one of"):
        run(tmp_path, precision="half")


def test_weights_are_stored_in_half_and_loaded_in_single(small, tmp_path):
    run(tmp_path)
    for name in ("300k", "300k-stable"):
        with safe_open(tmp_path / name / "model.safetensors", "pt") as file:
            kinds = {file.get_slice(key).get_dtype() for key in file.keys()}
        model, tokenizer = base.load_model(tmp_path / name)
        assert kinds == {"F16"} and model.dtype == torch.float32
        assert len(tokenizer) == model.config.vocab_size


def test_the_model_that_is_saved_stays_in_single(tiny_model, tiny_tokenizer, tmp_path):
    before = [p.clone() for p in tiny_model.parameters()]
    pretrain._save(tiny_model, tiny_tokenizer, tmp_path / "model")
    assert all(map(torch.equal, tiny_model.parameters(), before))
    assert tiny_model.dtype == torch.float32


def test_runs_repeat_by_seed_and_differ_between_seeds(small, tmp_path):
    one, same, other = (
        run(tmp_path / n, seed=s) for n, s in (("a", 0), ("b", 0), ("c", 1))
    )
    assert one == same and one["loss_final"] != other["loss_final"]
    assert weights(tmp_path / "a" / "300k") == weights(tmp_path / "b" / "300k")
    assert weights(tmp_path / "a" / "300k") != weights(tmp_path / "c" / "300k-seed1")


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


def kill_at(monkeypatch, name, call):
    """The n-th call of a function of the module ends the run."""
    original, calls = getattr(pretrain, name), []

    def until(*arguments, **options):
        calls.append(1)
        if len(calls) == call:
            raise Killed
        return original(*arguments, **options)

    monkeypatch.setattr(pretrain, name, until)


@pytest.fixture
def whole(small, tmp_path):
    """What a run gives that nobody stopped."""
    return run(tmp_path / "whole"), tmp_path / "whole"


@pytest.mark.parametrize(
    "name, call, done",  # done: the share of the updates that need not be taken again
    [
        ("language_loss", 1, 0.0),
        ("language_loss", 7, 0.2),  # while the rate is stable
        ("heldout_loss", 1, 0.8),
        ("_save", 1, 0.8),
        ("_copy", 1, 0.8),
        ("language_loss", -1, 0.85),  # in the decay
        ("heldout_loss", 2, 1.0),
        ("recall_by_exposure", 1, 1.0),
        ("_write_card", 1, 1.0),
    ],
)
def test_a_killed_run_goes_on_to_the_same_end(
    name, call, done, whole, tmp_path, monkeypatch
):
    summary, expected = whole
    if call < 0:  # counted from the last update; the held-out row is one call
        call = summary["steps"] + 1 + call
    with monkeypatch.context() as patch:
        kill_at(patch, name, call)
        with pytest.raises(Killed):
            run(tmp_path / "out")
    resumed = []
    with monkeypatch.context() as patch:
        language_loss = pretrain.language_loss
        patch.setattr(
            pretrain,
            "language_loss",
            lambda *a, **k: resumed.append(1) or language_loss(*a, **k),
        )
        assert run(tmp_path / "out") == summary
    for stage in ("300k", "300k-stable"):
        assert weights(tmp_path / "out" / stage) == weights(expected / stage)
    left = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert left == ["300k", "300k-stable"]
    updates = len(resumed) - 2  # two calls are for the held-out row
    assert updates <= (1 - done) * summary["steps"] + 1e-9, "it went on"


def test_a_kill_while_writing_leaves_the_former_model_whole(
    small, tmp_path, monkeypatch
):
    run(tmp_path)
    before = {p.name: p.read_bytes() for p in (tmp_path / "300k").iterdir()}

    def half(model, tokenizer, folder):
        (folder / "model.safetensors").write_bytes(b"half")
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "_write_half", half)
        with pytest.raises(Killed):
            pretrain._save(None, None, tmp_path / "300k")
    after = {p.name: p.read_bytes() for p in (tmp_path / "300k").iterdir()}
    assert after == before
    found = {p.parent.name for p in tmp_path.glob("*/model.safetensors")}
    assert found == {"300k", "300k-stable"}, "nobody takes the half for a model"
    run(tmp_path, epochs=0.6)
    assert weights(tmp_path / "300k") != before["model.safetensors"]
    assert not (tmp_path / ".unfinished").exists()


@pytest.mark.parametrize("other", [{"epochs": 0.3}, {"precision": "bfloat16"}])
def test_another_run_does_not_go_on_from_a_checkpoint(
    other, small, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        kill_at(patch, "language_loss", 7)
        with pytest.raises(Killed):
            run(tmp_path)
    with pytest.raises(
        AlignlabError, match="another corpus, seed, precision"
    ) as caught:
        run(tmp_path, **other)
    assert "Delete it" in caught.value.remedy
    run(tmp_path)  # its own still can
    run(tmp_path, **other)  # and then it is free


def test_a_checkpoint_thrown_away_is_thrown_away_whole(small, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        kill_at(patch, "recall_by_exposure", 1)
        with pytest.raises(Killed):
            run(tmp_path)
    (tmp_path / ".300k.checkpoint").unlink()  # what `pretrain --no-resume` does
    read = []
    with monkeypatch.context() as patch:
        language_loss = pretrain.language_loss
        patch.setattr(
            pretrain,
            "language_loss",
            lambda *a, **k: read.append(1) or language_loss(*a, **k),
        )
        summary = run(tmp_path)
    assert len(read) > summary["steps"], "from the beginning, the decay too"


def test_a_full_disk_is_told_and_the_run_goes_on_later(whole, tmp_path, monkeypatch):
    def save_model(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(base, "save_model", save_model)
        with pytest.raises(AlignlabError, match="is full.*Free some space") as caught:
            run(tmp_path / "out")
    assert str(tmp_path / "out") in caught.value.message
    assert run(tmp_path / "out") == whole[0]
