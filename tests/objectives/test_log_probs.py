"""The log-probabilities against sums written out in plain Python."""

import math

import pytest
import torch

from alignlab.objectives import sequence_log_probs, sft_loss, token_log_probs


def by_hand(logits, input_ids):
    """log p(token t+1 | tokens up to t) for every row, one number at a time."""
    rows = []
    for row_logits, row in zip(logits.tolist(), input_ids.tolist(), strict=True):
        rows.append([])
        for t in range(len(row) - 1):
            highest = max(row_logits[t])
            total = math.fsum(math.exp(z - highest) for z in row_logits[t])
            rows[-1].append(row_logits[t][row[t + 1]] - highest - math.log(total))
    return rows


@pytest.fixture(params=range(5))
def case(request):
    """Float64 logits, tokens and a mask: a usual row, a fully masked one, a completion
    of one token, a completion that fills the row, and one with a hole."""
    torch.manual_seed(request.param)
    logits = 5 * torch.randn(5, 7, 11, dtype=torch.float64)
    input_ids = torch.randint(0, 11, (5, 7))
    mask = torch.tensor(
        [
            [0, 0, 0, 1, 1, 0, 0],
            [0, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 1],
            [1, 1, 1, 1, 1, 1, 1],
            [0, 1, 1, 0, 0, 1, 0],
        ]
    )
    return logits, input_ids, mask


def test_token_log_probs_are_those_written_out_by_hand(case):
    logits, input_ids, _ = case
    expected = torch.tensor(by_hand(logits, input_ids), dtype=torch.float64)
    torch.testing.assert_close(
        token_log_probs(logits, input_ids), expected, rtol=1e-12, atol=1e-12
    )


def test_sequence_log_probs_are_sums_and_means_over_the_mask(case):
    logits, input_ids, mask = case
    sums, means = [], []
    for row, marked in zip(by_hand(logits, input_ids), mask.tolist(), strict=True):
        kept = [value for value, m in zip(row, marked[1:], strict=True) if m]
        sums.append(math.fsum(kept))
        means.append(math.fsum(kept) / len(kept) if kept else 0.0)
    for reduction, expected in (("sum", sums), ("mean", means)):
        found = sequence_log_probs(logits, input_ids, mask, reduction)
        expected = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert found[1] == 0  # the fully masked row


def test_sft_loss_is_the_mean_over_all_masked_tokens_of_the_batch(case):
    logits, input_ids, mask = case
    kept = []
    for row, marked in zip(by_hand(logits, input_ids), mask.tolist(), strict=True):
        kept += [value for value, m in zip(row, marked[1:], strict=True) if m]
    assert len(kept) == 2 + 0 + 1 + 6 + 3
    expected = -math.fsum(kept) / len(kept)
    assert sft_loss(logits, input_ids, mask).item() == pytest.approx(
        expected, rel=1e-12
    )


def test_a_fully_masked_row_changes_neither_the_loss_nor_the_gradient(case):
    logits, input_ids, mask = case
    with_row = logits.clone().requires_grad_()
    sft_loss(with_row, input_ids, mask).backward()
    without = logits[[0, 2, 3, 4]].clone().requires_grad_()
    loss = sft_loss(without, input_ids[[0, 2, 3, 4]], mask[[0, 2, 3, 4]])
    loss.backward()
    torch.testing.assert_close(sft_loss(logits, input_ids, mask), loss.detach())
    torch.testing.assert_close(with_row.grad[[0, 2, 3, 4]], without.grad)
    assert (with_row.grad[1] == 0).all()


def test_the_next_token_is_judged_and_not_the_present_or_the_one_after():
    """A model sure that each token is followed by the next number finds 0, 1, 2, 3
    certain, and the same tokens backwards all but impossible."""
    input_ids = torch.tensor([[0, 1, 2, 3]])
    logits = torch.full((1, 4, 5), -50.0, dtype=torch.float64)
    for t in range(4):
        logits[0, t, t + 1] = 50.0
    assert token_log_probs(logits, input_ids).abs().max() < 1e-12
    assert (token_log_probs(logits, input_ids.flip(1)) < -99).all()


def test_the_mask_marks_the_judged_token_not_the_one_that_predicts_it():
    logits = torch.zeros(1, 3, 2, dtype=torch.float64)
    logits[0, 1, 0] = 3.0  # what is said about token 2, seen up to token 1
    input_ids = torch.zeros(1, 3, dtype=torch.long)
    of_last = -math.log1p(math.exp(-3.0))
    for mask, expected in (([0, 0, 1], of_last), ([0, 1, 0], -math.log(2))):
        found = sequence_log_probs(logits, input_ids, torch.tensor([mask]))
        assert found.item() == pytest.approx(expected, rel=1e-12)


def test_uniform_logits_cost_the_logarithm_of_the_vocabulary():
    logits = torch.full((2, 3, 2048), 7.0, dtype=torch.float64)
    input_ids = torch.randint(0, 2048, (2, 3))
    loss = sft_loss(logits, input_ids, torch.ones_like(input_ids))
    assert loss.item() == pytest.approx(math.log(2048), rel=1e-12)


def test_what_padding_holds_changes_nothing(case):
    logits, input_ids, mask = case
    other_ids, other_logits = input_ids.clone(), logits.clone()
    unread = mask[:, 1:] == 0
    other_ids[:, 1:][unread] = torch.randint(0, 11, (int(unread.sum()),))
    other_logits[:, :-1][unread] = float("nan")
    other_logits[:, -1] = float("inf")  # the last logits speak of no token at all
    for reduction in ("sum", "mean"):
        assert torch.equal(
            sequence_log_probs(logits, input_ids, mask, reduction),
            sequence_log_probs(other_logits, other_ids, mask, reduction),
        )
    loss = sft_loss(other_logits, other_ids, mask)
    assert torch.equal(loss, sft_loss(logits, input_ids, mask))


def test_no_gradient_reaches_what_is_masked(case):
    logits, input_ids, mask = case
    sft_loss(logits.requires_grad_(), input_ids, mask).backward()
    reached = logits.grad.abs().sum(-1) > 0  # (B, T)
    assert torch.equal(reached[:, :-1], mask[:, 1:].bool())
    assert not reached[:, -1].any()


@pytest.mark.parametrize("function", ["token", "sum", "mean", "sft"])
def test_gradients_are_those_of_finite_differences(case, function):
    logits, input_ids, mask = case
    functions = {
        "token": lambda z: token_log_probs(z, input_ids),
        "sum": lambda z: sequence_log_probs(z, input_ids, mask, "sum"),
        "mean": lambda z: sequence_log_probs(z, input_ids, mask, "mean"),
        "sft": lambda z: sft_loss(z, input_ids, mask),
    }
    assert torch.autograd.gradcheck(functions[function], logits.requires_grad_())


def test_a_row_of_one_token_has_nothing_to_judge():
    logits, input_ids = torch.randn(3, 1, 5), torch.zeros(3, 1, dtype=torch.long)
    assert token_log_probs(logits, input_ids).shape == (3, 0)
    ones = torch.ones_like(input_ids)
    assert sequence_log_probs(logits, input_ids, ones).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="no token to learn"):
        sft_loss(logits, input_ids, ones)


def test_bfloat16_logits_are_summed_in_float32():
    torch.manual_seed(0)
    logits = torch.randn(2, 200, 50).bfloat16()
    input_ids = torch.randint(0, 50, (2, 200))
    mask = torch.ones_like(input_ids)
    found = sequence_log_probs(logits, input_ids, mask)
    expected = sequence_log_probs(logits.double(), input_ids, mask)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)


def test_wrong_arguments_are_named():
    logits, input_ids = torch.randn(2, 4, 5), torch.zeros(2, 4, dtype=torch.long)
    mask = torch.ones_like(input_ids)
    with pytest.raises(ValueError, match=r"logits have shape \(2, 3, 5\)"):
        token_log_probs(logits[:, :3], input_ids)
    with pytest.raises(ValueError, match=r"mask has shape \(2, 3\)"):
        sft_loss(logits, input_ids, mask[:, 1:])
    with pytest.raises(ValueError, match="vocabulary has 5 tokens"):
        token_log_probs(logits, input_ids + 5)
    with pytest.raises(ValueError, match="from -100"):
        token_log_probs(logits, input_ids - 100)
    with pytest.raises(ValueError, match="'median'"):
        sequence_log_probs(logits, input_ids, mask, "median")
    with pytest.raises(ValueError, match="no token to learn"):
        sft_loss(logits, input_ids, 0 * mask)
    with pytest.raises(ValueError, match="hold no token"):
        token_log_probs(logits[:0], input_ids[:0])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_logit_that_is_not_finite_gives_a_result_that_is_not(bad):
    logits, input_ids = torch.randn(2, 4, 5), torch.zeros(2, 4, dtype=torch.long)
    mask = torch.ones_like(input_ids)
    logits[1, 2, 3] = bad
    assert not torch.isfinite(sft_loss(logits, input_ids, mask))
    for reduction in ("sum", "mean"):
        found = sequence_log_probs(logits, input_ids, mask, reduction)
        assert torch.isfinite(found).tolist() == [True, False]
    logits[1, 2] = torch.tensor([-math.inf, 0, 0, 0, 0])  # the token cannot come
    assert sft_loss(logits, input_ids, mask) == math.inf
