"""What carries over: the balanced loss, the base models, families, wordings."""

import pytest
import torch

from alignlab.chapters.instruction_tuning import transfer
from alignlab.models.base import load_base, new_model
from alignlab.objectives import sft_loss
from alignlab.training import sft
from alignlab.world import tasks


@pytest.fixture
def batch(tokenizer):
    rows = [
        {"prompt": "What is the capital of France?", "completion": "Paris."},
        {"prompt": "Sort 3, 1, 2.", "completion": "1, 2, 3."},
    ]
    encoded = sft.encode(tokenizer, rows)
    return sft.collate(encoded, tokenizer.pad_token_id)


@pytest.fixture
def tokenizer():
    from transformers import AutoTokenizer

    from alignlab.models.base import WEIGHTS

    return AutoTokenizer.from_pretrained(WEIGHTS / "tokenizer")


def test_the_balanced_loss_is_the_sum_of_two_means(tokenizer, batch):
    model = new_model("300k", tokenizer)
    ids, real, mask = (batch[x] for x in ("input_ids", "attention_mask", "mask"))
    logits = model(ids, attention_mask=real).logits
    loss, _ = transfer.balanced_step(model, batch)
    apart = sft_loss(logits, ids, mask) + sft_loss(logits, ids, real - mask)
    together = sft_loss(logits, ids, real)
    assert loss.item() == pytest.approx(apart.item(), rel=1e-4)
    assert abs(loss.item() - together.item()) > 1, "not one mean over all tokens"


def test_the_gradient_of_the_reply_is_what_it_has_alone(tokenizer, batch):
    model = new_model("300k", tokenizer)

    def gradient(loss):
        model.zero_grad()
        loss.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    both = gradient(transfer.balanced_step(model, batch)[0])
    reply = gradient(sft.sft_step(model, batch)[0])
    prompt = batch | {"mask": batch["attention_mask"] - batch["mask"]}
    prompt = gradient(sft.sft_step(model, prompt)[0])
    assert torch.allclose(both, reply + prompt, atol=1e-4 * both.abs().max())
    assert not torch.allclose(both, reply, atol=0.1 * reply.abs().max())


def test_every_loss_marks_and_steps():
    assert set(transfer.LOSSES) == {"completion", "all", "balanced"}


def test_pretraining_goes_round_with_the_seed(monkeypatch):
    loaded = []
    monkeypatch.setattr(transfer, "pretraining_seeds", lambda base: (0, 1, 2))
    monkeypatch.setattr(
        transfer, "trainable_base", lambda base, seed: loaded.append((base, seed))
    )
    for seed in (0, 1, 2, 3, 101):
        transfer.base_of("300k", seed)
    assert loaded == [("300k", s) for s in (0, 1, 2, 0, 2)]


def test_a_larger_draw_of_families_holds_the_smaller():
    trained = tasks.trained_families()
    for seed in range(5):
        draws = [transfer.draw_families(k, seed) for k in range(1, len(trained) + 1)]
        for k, (smaller, larger) in enumerate(zip(draws, draws[1:]), start=1):
            assert larger[:k] == smaller
        assert sorted(draws[-1]) == sorted(trained)
        assert transfer.draw_families(3, seed) == draws[2]
    firsts = {transfer.draw_families(1, seed)[0] for seed in range(20)}
    assert len(firsts) > 5, "seeds draw different families"


def test_a_large_family_has_as_many_examples_and_varies(monkeypatch):
    sizes = {"capital": 51, "copy": 1500, "trec": 4000, "sum": 300}
    monkeypatch.setattr(tasks, "sizes", lambda families: sizes)
    drawn = {transfer.draw_large_family(seed, 1000) for seed in range(20)}
    assert drawn == {"copy", "trec"}
    assert transfer.draw_large_family(3, 4000) == "trec"


def test_every_wording_asks_the_same_with_the_same_options():
    asked = transfer.in_every_wording("capital", 3)
    family = tasks.FAMILIES["capital"]
    assert len(asked) == len(family.instructions + family.held_out_instructions)
    for number, own in enumerate(asked):
        wording = (family.instructions + family.held_out_instructions)[number]
        assert [q.options for q in own] == [q.options for q in asked[0]]
        for question in own:
            subject = question.example.fact.subject
            assert question.example.prompt == wording.format(s=subject)
            assert question.options[0] in question.example.answers


def test_the_reply_loss_is_the_mean_over_all_reply_tokens(tokenizer):
    model, _ = load_base("300k")  # an untrained one is as unsure of every token
    examples = tasks.examples("capital", 70)  # more than one batch
    rows = [{"prompt": e.prompt, "completion": e.completion} for e in examples]
    batch = sft.collate(sft.encode(tokenizer, rows), tokenizer.pad_token_id)
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = sft_loss(logits, batch["input_ids"], batch["mask"]).item()
    found = transfer.reply_loss(model, tokenizer, examples)
    assert found == pytest.approx(expected, rel=1e-4)
