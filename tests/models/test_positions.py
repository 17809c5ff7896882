"""Logits at some positions against the logits at all of them."""

import copy

import pytest
import torch

from alignlab.models import positions
from alignlab.models.fit import output_width
from alignlab.models.positions import (
    completion_log_probs,
    log_probs_at,
    logits_at,
    pick_log_probs,
)
from alignlab.models.text import pad_left, pad_right
from alignlab.objectives import token_log_probs
from tests.models.conftest import KINDS


@pytest.fixture(params=["llama", "gpt2", "granite", "lora"])
def model(request, model_of):
    return model_of(request.param)


@pytest.fixture
def batch():
    torch.manual_seed(1)
    ids = torch.randint(0, 60, (4, 9))
    lengths = torch.tensor([9, 5, 7, 2])[:, None]
    attention = (torch.arange(9) < lengths).long()
    mask = attention * (torch.arange(9) >= torch.tensor([4, 4, 0, 9])[:, None])
    return ids, attention, mask  # the last row has nothing masked in


@torch.no_grad()
def test_logits_and_hidden_states_are_those_of_the_whole_model(model, batch):
    ids, attention, mask = batch
    mask = mask.bool()
    whole = model(ids, attention_mask=attention, output_hidden_states=True)
    logits, hidden = logits_at(model, mask, ids, attention_mask=attention)
    torch.testing.assert_close(logits, whole.logits[mask], rtol=1e-10, atol=1e-12)
    last = whole.hidden_states[-1][mask]
    torch.testing.assert_close(hidden, last, rtol=1e-10, atol=1e-12)
    one = torch.zeros_like(mask)
    one[1, 2] = True
    logits, hidden = logits_at(model, one, ids, attention_mask=attention)
    torch.testing.assert_close(logits, whole.logits[1:2, 2], rtol=1e-10, atol=1e-12)
    assert hidden.shape == (1, last.shape[1])


def test_gradients_are_those_of_the_whole_model(tiny_model, batch):
    ids, attention, mask = batch
    mask, parameters = mask.bool(), list(tiny_model.double().parameters())
    whole = tiny_model(ids, attention_mask=attention).logits[mask]
    expected = torch.autograd.grad(whole.square().sum(), parameters)
    logits, _ = logits_at(tiny_model, mask, ids, attention_mask=attention)
    found = torch.autograd.grad(logits.square().sum(), parameters)
    for a, b in zip(found, expected, strict=True):  # norms are computed in float32
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6 * b.abs().max().item())


def test_masked_tokens_have_the_log_probs_of_the_whole_model(model, batch):
    ids, attention, mask = batch
    every = token_log_probs(model(ids, attention_mask=attention).logits, ids)
    found = completion_log_probs(model, *batch)
    torch.testing.assert_close(found, every * mask[:, 1:], rtol=1e-10, atol=1e-12)
    assert every.std() > 0.1


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_picked_log_probs_and_their_gradients_are_those_of_log_softmax(kind):
    torch.manual_seed(0)
    hidden = torch.randn(6, 5, dtype=kind, requires_grad=True)
    weight = (3 * torch.randn(5, 300)).to(kind).requires_grad_()
    rows, tokens = torch.tensor([0, 2, 2, 2, 5]), torch.tensor([7, 8, 8, 299, 0])
    upstream = torch.randn(5)
    at_least_single = torch.promote_types(kind, torch.float32)

    def plain(logits):
        return logits.to(at_least_single).log_softmax(dim=1)[rows, tokens]

    values = []
    for function in (plain, lambda logits: pick_log_probs(logits, rows, tokens)):
        picked = function(hidden @ weight)
        gradients = torch.autograd.grad(
            picked, (hidden, weight), upstream.to(at_least_single)
        )
        values.append((picked, *gradients))
    assert values[1][0].dtype == at_least_single
    for expected, found in zip(*values, strict=True):
        torch.testing.assert_close(found, expected)
    one_each = pick_log_probs(hidden @ weight, None, torch.arange(6))
    expected = (hidden @ weight).to(at_least_single).log_softmax(dim=1)
    torch.testing.assert_close(one_each, expected[range(6), range(6)])


def test_gradients_of_picked_log_probs_agree_with_finite_differences():
    torch.manual_seed(0)
    logits = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    rows, tokens = torch.tensor([0, 2, 2, 2, 3]), torch.tensor([7, 8, 8, 1, 0])
    assert torch.autograd.gradcheck(
        lambda x: pick_log_probs(2 * x, rows, tokens), (logits,)
    )


def test_what_was_picked_has_as_many_gradients_as_wanted():
    logits = torch.randn(2, 9, requires_grad=True)
    picked = pick_log_probs(2 * logits, None, torch.tensor([3, 4]))
    first, second = (
        torch.autograd.grad(picked.sum(), logits, retain_graph=True) for _ in range(2)
    )
    assert torch.equal(*first, *second) and first[0].abs().min() > 0


def test_the_side_of_the_padding_changes_nothing(model, batch):
    ids, attention, mask = batch
    right = completion_log_probs(model, *batch)
    order = attention.argsort(dim=1, stable=True)  # padding first
    left = completion_log_probs(
        model, ids.gather(1, order), attention.gather(1, order), mask.gather(1, order)
    )
    torch.testing.assert_close(left.sum(1), right.sum(1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture_says_of_a_token_what_it_says_of_the_row_alone(
    model_of, kind
):
    """Padded on the right without a mask, as PPO has it, and on either side with one;
    in train mode as well."""
    model, tokens = model_of(kind).float(), torch.randint(1, 60, (3, 11))
    lengths, first = [11, 3, 7], [4, 1, 5]  # of the row, and of its completion
    rows = [row[:length] for row, length in zip(tokens.tolist(), lengths)]
    expected = []
    for row in rows:
        logits = model(torch.tensor([row]), use_cache=False).logits[0]
        expected.append(logits.log_softmax(-1)[range(len(row) - 1), row[1:]])
    picked = torch.cat([x[start - 1 :] for x, start in zip(expected, first)])
    mask = [[0] * start + [1] * (len(row) - start) for row, start in zip(rows, first)]
    for pad in (pad_left, pad_right):
        (ids, real), (counted, _) = pad(rows, 0), pad(mask, 0)
        found = completion_log_probs(model, ids, real, counted)
        where = counted[:, 1:].bool()
        torch.testing.assert_close(found[where], picked, rtol=1e-4, atol=1e-4)
        assert (found[~where] == 0).all()
    predicts = (counted[:, 1:] > 0).double()
    predicts = torch.nn.functional.pad(predicts, (0, 1)).bool()
    every = torch.ones_like(ids)
    for training in (False, True):
        for part in model.modules():
            part.training = training and not isinstance(part, torch.nn.Dropout)
        logits, hidden = logits_at(
            model, predicts, ids, attention_mask=every, use_cache=False
        )
        found = pick_log_probs(logits, None, ids[:, 1:][predicts[:, :-1]])
        torch.testing.assert_close(found, picked, rtol=1e-4, atol=1e-4)
    assert hidden.shape == (len(picked), output_width(model))
    assert picked.std() > 0.05


def test_models_that_are_read_wrongly_are_refused(tiny_model, batch, monkeypatch):
    ids, attention, mask = batch
    peft = pytest.importorskip("peft")
    settings = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    prefixed = peft.get_peft_model(copy.deepcopy(tiny_model), settings)
    with pytest.raises(ValueError, match="virtual tokens"):
        logits_at(prefixed, mask.bool(), ids)
    forward = tiny_model.forward

    def twice(*arguments, **inputs):
        tiny_model.lm_head(torch.zeros(4, 9, 32))
        return forward(*arguments, **inputs)

    monkeypatch.setattr(tiny_model, "forward", twice)
    with pytest.raises(ValueError, match="in one pass through its output layer"):
        logits_at(tiny_model, mask.bool(), ids)


def test_the_model_is_left_as_it_was(tiny_model, batch):
    ids, attention, mask = batch
    completion_log_probs(tiny_model, *batch)
    assert tiny_model(ids).logits.shape == (4, 9, tiny_model.config.vocab_size)
    with pytest.raises(IndexError):
        completion_log_probs(tiny_model, ids + 1000, attention, mask)
    assert tiny_model(ids).logits.shape == (4, 9, tiny_model.config.vocab_size)


def test_an_empty_mask_gives_zeros_and_shapes_must_agree(tiny_model, batch):
    ids, attention, mask = batch
    assert (completion_log_probs(tiny_model, ids, attention, 0 * mask) == 0).all()
    with pytest.raises(ValueError, match=r"\(4, 9\), \(4, 9\) and \(4, 8\)"):
        completion_log_probs(tiny_model, ids, attention, mask[:, 1:])


def test_logits_in_pieces_give_the_same(tiny_model, batch, monkeypatch):
    ids, attention, mask = batch
    model, parameters = tiny_model.double(), list(tiny_model.parameters())
    whole = completion_log_probs(model, *batch)
    expected = torch.autograd.grad(whole.square().sum(), parameters)
    widths = []
    model.lm_head.register_forward_hook(lambda m, x, y: widths.append(y.shape[-2]))
    monkeypatch.setattr(positions, "LOGITS_LIMIT", 3 * model.config.vocab_size)
    pieces = completion_log_probs(model, *batch)
    torch.testing.assert_close(pieces, whole, rtol=1e-12, atol=0)
    assert max(widths) == 3 and widths[0] == 0
    found = torch.autograd.grad(pieces.square().sum(), parameters)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6 * b.abs().max().item())


def test_a_token_may_share_its_row_with_another_in_pieces(
    tiny_model, batch, monkeypatch
):
    ids, attention, _ = batch
    places = torch.tensor([0, 0, 1]), torch.tensor([1, 3, 2])
    rows, tokens = torch.tensor([0, 0, 2, 1]), torch.tensor([5, 6, 7, 8])
    inputs = dict(attention_mask=attention, use_cache=False)
    whole = log_probs_at(tiny_model, places, tokens, ids, rows, **inputs)
    monkeypatch.setattr(positions, "LOGITS_LIMIT", 1)
    pieces = log_probs_at(tiny_model, places, tokens, ids, rows, **inputs)
    torch.testing.assert_close(pieces, whole)


def test_padding_behind_a_text_needs_no_mask(tiny_model, batch, monkeypatch):
    """What a GPU does, on the CPU."""
    expected = completion_log_probs(tiny_model, *batch)
    asked = []

    def needs_no_mask(model, attention_mask=None):
        asked.append(positions._padded_before(attention_mask))
        return not asked[-1]

    monkeypatch.setattr(positions, "needs_no_mask", needs_no_mask)
    found = completion_log_probs(tiny_model, *batch)
    torch.testing.assert_close(found, expected)
    moved = [x.flip(1) for x in batch]  # padding on the left does need one
    completion_log_probs(tiny_model, *moved)
    assert asked == [False, True]


def test_rows_end_to_end_give_the_same(tiny_model, batch, monkeypatch):
    """As flash attention reads them; here a mask tells them apart."""
    parameters = list(tiny_model.parameters())
    expected = completion_log_probs(tiny_model, *batch)
    shapes = []
    tiny_model.model.embed_tokens.register_forward_pre_hook(
        lambda module, inputs: shapes.append(inputs[0].shape)
    )
    monkeypatch.setattr(positions, "needs_no_mask", lambda model, mask: True)
    monkeypatch.setattr(positions, "_tells_rows_apart", lambda model: True)
    found = completion_log_probs(tiny_model, *batch)
    assert shapes == [(1, batch[1].sum())]
    torch.testing.assert_close(found, expected)
    for a, b in zip(
        torch.autograd.grad(found.square().sum(), parameters),
        torch.autograd.grad(expected.square().sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * b.abs().max().item())
