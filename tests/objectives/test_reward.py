"""The reward losses against their closed forms and their probabilities written out."""

import itertools
import math

import pytest
import torch

from alignlab.objectives import (
    all_pairs_loss,
    bradley_terry_loss,
    centring_loss,
    plackett_luce_loss,
)


def rewards(*shape, seed=0):
    torch.manual_seed(seed)
    return 3 * torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("with_margin", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_bradley_terry_is_the_mean_of_logs_written_out(smoothing, with_margin, soft):
    chosen, rejected = rewards(2, 9)
    margin = rewards(9, seed=1).abs() if with_margin else None
    probability = torch.linspace(0, 1, 9, dtype=torch.float64) if soft else None
    losses = []
    for i in range(9):
        difference = chosen[i].item() - rejected[i].item()
        difference -= margin[i].item() if with_margin else 0.0
        wins = 1 / (1 + math.exp(-difference))
        # A label says "chosen" with probability p, and is turned round at the rate.
        p = probability[i].item() if soft else 1.0
        right = p * (1 - smoothing) + (1 - p) * smoothing
        losses.append(-right * math.log(wins) - (1 - right) * math.log(1 - wins))
    found = bradley_terry_loss(chosen, rejected, margin, smoothing, probability).item()
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


def test_soft_labels_are_least_at_their_log_odds_and_as_good_as_many_hard_ones():
    zero = torch.zeros(4, dtype=torch.float64)
    p = torch.tensor([0.1, 0.5, 0.7, 0.99], dtype=torch.float64)
    best = torch.logit(p).requires_grad_()
    loss = bradley_terry_loss(best, zero, probability=p)
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).mean()
    assert loss.item() == pytest.approx(entropy.item(), rel=1e-12)
    (slope,) = torch.autograd.grad(loss, best)
    assert slope.abs().max() < 1e-12
    # Seven raters of ten one way, three the other: one pair with a soft label.
    reward = rewards(2)
    first, second = reward[[0] * 7 + [1] * 3], reward[[1] * 7 + [0] * 3]
    seven = torch.tensor([0.7], dtype=torch.float64)
    one = bradley_terry_loss(reward[:1], reward[1:], probability=seven)
    torch.testing.assert_close(one, bradley_terry_loss(first, second))


def test_all_pairs_is_the_mean_over_each_rankings_pairs_written_out():
    table = rewards(3, 4)
    losses = [
        math.log(1 + math.exp(worse - better))
        for row in table.tolist()
        for better, worse in itertools.combinations(row, 2)
    ]
    assert len(losses) == 18
    expected = math.fsum(losses) / 18
    assert all_pairs_loss(table).item() == pytest.approx(expected, rel=1e-10)
    turned = all_pairs_loss(table.flip(1)).item()
    assert abs(turned - expected) > 0.1  # best first


def test_all_pairs_of_two_is_a_pair_and_equal_rewards_cost_log_two():
    pairs = rewards(7, 2)
    torch.testing.assert_close(all_pairs_loss(pairs), bradley_terry_loss(*pairs.T))
    equal = all_pairs_loss(torch.full((3, 6), 1e3, dtype=torch.float64))
    assert equal.item() == pytest.approx(math.log(2), rel=1e-12)


def test_centring_is_the_mean_square_of_sums_and_pulls_on_no_difference():
    table = rewards(5, 3).requires_grad_()
    loss = centring_loss(table)
    expected = math.fsum(math.fsum(row) ** 2 for row in table.tolist()) / 5
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    (slope,) = torch.autograd.grad(loss, table)
    torch.testing.assert_close(slope, slope[:, :1].expand(5, 3))
    assert slope.abs().min() > 1e-3
    assert centring_loss(torch.tensor([[2.0, -2.0]])).item() == 0


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
    soft = torch.linspace(0, 1, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda c, r: bradley_terry_loss(c, r, probability=soft), (chosen, rejected)
    )
    for of_rankings in (plackett_luce_loss, all_pairs_loss, centring_loss):
        assert torch.autograd.gradcheck(of_rankings, rewards(3, 4).requires_grad_())


def test_wrong_arguments_are_named():
    three, four = torch.zeros(3), torch.zeros(4)
    with pytest.raises(ValueError, match=r"chosen \(3,\), rejected \(4,\)"):
        bradley_terry_loss(three, four)
    with pytest.raises(ValueError, match=r"margin \(4,\)"):
        bradley_terry_loss(three, three, margin=four)
    with pytest.raises(ValueError, match=r"chosen \(3, 1\)"):
        bradley_terry_loss(three[:, None], three[:, None])
    with pytest.raises(ValueError, match="chosen holds no pair"):
        bradley_terry_loss(three[:0], three[:0])
    for rate in (-0.1, 0.5):
        with pytest.raises(ValueError, match=f"label_smoothing is {rate}"):
            bradley_terry_loss(three, three, label_smoothing=rate)
    with pytest.raises(ValueError, match=r"probability \(4,\)"):
        bradley_terry_loss(three, three, probability=four)
    for outside in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=rf"probability\[1\] is {outside:.1f}"):
            soft = torch.tensor([1, outside, 0], dtype=torch.float64)
            bradley_terry_loss(three, three, probability=soft)


@pytest.mark.parametrize(
    "of_rankings", [plackett_luce_loss, all_pairs_loss, centring_loss]
)
def test_wrong_rankings_are_named(of_rankings):
    for shape in ((3,), (0, 3), (3, 1)):
        with pytest.raises(ValueError, match="rewards have shape"):
            of_rankings(torch.zeros(shape))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_a_reward_that_is_not_finite_gives_a_loss_that_is_not(place, bad):
    """Also where the loss is saturated."""
    table = rewards(3, 2)
    table[1, place] = bad
    for of_rankings in (plackett_luce_loss, all_pairs_loss, centring_loss):
        assert not torch.isfinite(of_rankings(table))
    margin = torch.ones(3, dtype=torch.float64)
    for settings in ({}, {"label_smoothing": 0.1}, {"margin": margin}):
        assert not torch.isfinite(bradley_terry_loss(*table.T, **settings))
    margin[1] = bad
    assert not torch.isfinite(bradley_terry_loss(*rewards(3, 2).T, margin))
