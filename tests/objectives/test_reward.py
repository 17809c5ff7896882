"""The reward losses against their closed forms and their probabilities written out."""

import itertools
import math

import pytest
import torch

from alignlab.objectives import bradley_terry_loss, plackett_luce_loss


def rewards(*shape, seed=0):
    torch.manual_seed(seed)
    return 3 * torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("with_margin", [False, True])
def test_bradley_terry_is_the_mean_of_logs_written_out(smoothing, with_margin):
    chosen, rejected = rewards(2, 9)
    margin = rewards(9, seed=1).abs() if with_margin else None
    losses = []
    for i in range(9):
        difference = chosen[i].item() - rejected[i].item()
        difference -= margin[i].item() if with_margin else 0.0
        wins = 1 / (1 + math.exp(-difference))
        losses.append(
            -(1 - smoothing) * math.log(wins) - smoothing * math.log(1 - wins)
        )
    found = bradley_terry_loss(chosen, rejected, margin, smoothing).item()
    assert found == pytest.approx(math.fsum(losses) / 9, rel=1e-10)


def test_equal_rewards_cost_log_two_and_only_differences_count():
    chosen, rejected = rewards(2, 6)
    same = bradley_terry_loss(chosen, chosen)
    assert same.item() == pytest.approx(math.log(2), rel=1e-12)
    moved = bradley_terry_loss(chosen + 5, rejected + 5)
    torch.testing.assert_close(moved, bradley_terry_loss(chosen, rejected))


def test_hopeless_pairs_cost_their_difference_and_do_not_overflow():
    far = torch.tensor([1e4], dtype=torch.float64)
    assert bradley_terry_loss(-far, far).item() == pytest.approx(2e4, rel=1e-12)
    assert bradley_terry_loss(far, -far).item() == pytest.approx(0, abs=1e-12)


def test_smoothed_loss_is_least_at_the_log_odds_of_a_right_label():
    best = math.log(0.9 / 0.1)
    zero = torch.zeros(1, dtype=torch.float64)

    def loss(difference):
        return bradley_terry_loss(zero + difference, zero, label_smoothing=0.1).item()

    entropy = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    assert loss(best) == pytest.approx(entropy, rel=1e-12)
    assert loss(best) < min(loss(best - 0.01), loss(best + 0.01))


def test_plackett_luce_is_the_product_of_choices_written_out():
    table = rewards(4, 5)
    losses = []
    for row in table.tolist():
        probability = 1.0
        for k in range(5):
            weights = [math.exp(value) for value in row[k:]]
            probability *= weights[0] / math.fsum(weights)
        losses.append(-math.log(probability))
    expected = math.fsum(losses) / 4
    assert plackett_luce_loss(table).item() == pytest.approx(expected, rel=1e-10)


def test_probabilities_of_all_rankings_add_up_to_one():
    row = rewards(4)
    orders = torch.stack([row[list(p)] for p in itertools.permutations(range(4))])
    total = sum(math.exp(-plackett_luce_loss(order[None]).item()) for order in orders)
    assert total == pytest.approx(1, rel=1e-12)


def test_a_ranking_of_two_is_a_pair_and_equal_rewards_cost_log_k_factorial():
    pairs = rewards(7, 2)
    torch.testing.assert_close(
        plackett_luce_loss(pairs), bradley_terry_loss(pairs[:, 0], pairs[:, 1])
    )
    equal = plackett_luce_loss(torch.full((3, 6), 1e3, dtype=torch.float64))
    assert equal.item() == pytest.approx(math.log(math.factorial(6)), rel=1e-12)


def test_gradients_are_those_of_finite_differences():
    chosen, rejected, margin = rewards(3, 5).requires_grad_().unbind()
    assert torch.autograd.gradcheck(
        lambda c, r, m: bradley_terry_loss(c, r, m, 0.1), (chosen, rejected, margin)
    )
    assert torch.autograd.gradcheck(plackett_luce_loss, rewards(3, 4).requires_grad_())


def test_wrong_arguments_are_named():
    three, four = torch.zeros(3), torch.zeros(4)
    with pytest.raises(ValueError, match=r"chosen \(3,\), rejected \(4,\)"):
        bradley_terry_loss(three, four)
    with pytest.raises(ValueError, match=r"margin \(4,\)"):
        bradley_terry_loss(three, three, margin=four)
    with pytest.raises(ValueError, match=r"chosen \(3, 1\)"):
        bradley_terry_loss(three[:, None], three[:, None])
    with pytest.raises(ValueError, match=r"rejected\[1\] is nan"):
        bradley_terry_loss(three, torch.tensor([0, float("nan"), 0]))
    with pytest.raises(ValueError, match="chosen holds no pair"):
        bradley_terry_loss(three[:0], three[:0])
    for rate in (-0.1, 0.5):
        with pytest.raises(ValueError, match=f"label_smoothing is {rate}"):
            bradley_terry_loss(three, three, label_smoothing=rate)
    for shape in ((3,), (0, 3), (3, 1)):
        with pytest.raises(ValueError, match="rewards have shape"):
            plackett_luce_loss(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"rewards\[1, 0\] is inf"):
        plackett_luce_loss(torch.tensor([[0.0, 1.0], [float("inf"), 0.0]]))
