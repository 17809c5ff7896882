"""Training steps: fine-tuning at neutral hyperparameters, else their formulas."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from alignlab.calibration.training import loss_step, mixup_step, token_logits
from alignlab.objectives import focal_loss, label_smoothing_loss
from alignlab.training.loop import train
from alignlab.training.sft import Encoded, batches, collate, encode, sft_step

EXAMPLES = [
    {"prompt": "What is the capital of Kenya?", "completion": "Nairobi."},
    {"prompt": "Is gold a metal?", "completion": "Yes."},
    {"prompt": "Say it in one word.", "completion": "Oslo."},
    {"prompt": "The money of Japan?", "completion": "The yen."},
]


@pytest.fixture
def batch(tiny_tokenizer):
    encoded = encode(tiny_tokenizer, EXAMPLES)
    return collate(encoded, tiny_tokenizer.pad_token_id)


def test_token_logits_speak_of_the_masked_tokens(tiny_model, batch):
    logits, labels = token_logits(tiny_model, **batch)
    assert len(labels) == batch["mask"].sum()
    loss, _ = sft_step(tiny_model, batch)
    torch.testing.assert_close(F.cross_entropy(logits, labels), loss)
    with pytest.raises(ValueError, match="mask has no token to learn"):
        token_logits(tiny_model, **(batch | {"mask": 0 * batch["mask"]}))


def test_neutral_dials_are_supervised_fine_tuning(tiny_model, batch):
    expected, _ = sft_step(tiny_model, batch)
    for step in (
        loss_step(F.cross_entropy),
        loss_step(partial(focal_loss, gamma=0)),
        loss_step(partial(label_smoothing_loss, label_smoothing=0)),
        mixup_step(0),
    ):
        result, logs = step(tiny_model, batch)
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
        assert logs == {}


def test_another_loss_is_that_loss(tiny_model, batch):
    result, _ = loss_step(partial(focal_loss, gamma=3))(tiny_model, batch)
    expected = focal_loss(*token_logits(tiny_model, **batch), gamma=3)
    torch.testing.assert_close(result, expected)


ROWS = [
    ([7, 8, 9, 10, 11, 12], [0, 0, 0, 0, 1, 1]),
    ([20, 21, 22, 23, 24, 25, 26, 27, 28], [0, 0, 1, 1, 1, 1, 1, 1, 1]),
]


@pytest.mark.parametrize("rows", [[ROWS[0], ROWS[0]], ROWS], ids=["equal", "unequal"])
def test_mixup_is_its_formula_written_out(rows, tiny_model, monkeypatch):
    """Two rows, blended 3 to 1 with each other, their ends put together."""
    encoded = [Encoded(ids, mask) for ids, mask in rows]
    if rows[0] == rows[1]:
        encoded[1] = Encoded(rows[0][0][::-1], rows[0][1])
    monkeypatch.setattr(torch, "randperm", lambda n, device: torch.tensor([1, 0]))
    monkeypatch.setattr(
        "alignlab.calibration.training._blend_shares",
        lambda alpha, n: torch.tensor([0.75, 0.75]),
    )
    result, _ = mixup_step(0.4)(tiny_model, collate(encoded, 0))
    loss, tokens = 0.0, 0.0
    for own, other in (encoded, encoded[::-1]):
        n, m = len(own.input_ids), len(other.input_ids)
        mine, theirs = (
            tiny_model.get_input_embeddings()(torch.tensor(row.input_ids))
            for row in (own, other)
        )
        blend, both = mine.clone(), min(n, m)
        blend[n - both :] = 0.75 * mine[n - both :] + 0.25 * theirs[m - both :]
        logs = tiny_model(inputs_embeds=blend[None]).logits[0].log_softmax(1)
        for share, row, shift in ((0.75, own, 0), (0.25, other, n - m)):
            for place, learnt in enumerate(row.completion_mask):
                if learnt and place + shift >= 1:  # a real token comes before it
                    loss -= share * logs[place + shift - 1, row.input_ids[place]]
                    tokens += share
    torch.testing.assert_close(result, loss / tokens, rtol=1e-4, atol=1e-5)


def test_mixup_reads_unequal_lengths_and_ignores_padding(tiny_model, batch):
    torch.manual_seed(0)
    first, _ = mixup_step(0.4)(tiny_model, batch)
    wider = {name: F.pad(value, (0, 5)) for name, value in batch.items()}
    torch.manual_seed(0)
    second, _ = mixup_step(0.4)(tiny_model, wider)
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
    torch.manual_seed(1)
    other, _ = mixup_step(0.4)(tiny_model, batch)
    assert abs(first - other) > 1e-4


def losses_of(model, tokenizer, step):
    data = batches(encode(tokenizer, EXAMPLES), 4, 0, tokenizer.pad_token_id)
    rows = train(model, data, step, steps=30, learning_rate=3e-3, progress=False)
    return [row["loss"] for row in rows]


@pytest.mark.parametrize("step", [loss_step(focal_loss), mixup_step(0.3)])
def test_the_loop_learns_with_either_step_and_repeats_itself(
    step, tiny_model, tiny_tokenizer
):
    twin = copy.deepcopy(tiny_model)
    losses = losses_of(tiny_model, tiny_tokenizer, step)
    assert losses[-1] < 0.7 * losses[0]
    assert losses_of(twin, tiny_tokenizer, step) == losses


def test_training_with_focal_loss_ends_less_sure(tiny_model, tiny_tokenizer):
    """Memorising the same answers, both are right; focal loss stops pushing earlier."""
    data = encode(tiny_tokenizer, EXAMPLES)
    whole = collate(data, tiny_tokenizer.pad_token_id)
    sure = {}
    for name, loss in (
        ("plain", F.cross_entropy),
        ("focal", partial(focal_loss, gamma=5)),
    ):
        model = copy.deepcopy(tiny_model)
        rows = batches(data, 4, 0, tiny_tokenizer.pad_token_id)
        train(
            model, rows, loss_step(loss), steps=60, learning_rate=3e-3, progress=False
        )
        logits, labels = token_logits(model, **whole)
        assert (logits.argmax(dim=1) == labels).float().mean() > 0.8
        sure[name] = logits.softmax(dim=1).max(dim=1).values.mean().item()
    assert sure["focal"] < sure["plain"] - 0.03


def test_alpha_must_not_be_negative():
    with pytest.raises(ValueError, match="alpha is -1"):
        mixup_step(-1)
