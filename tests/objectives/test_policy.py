"""PPO's objectives against closed forms, enumeration and other implementations."""

import math

import numpy as np
import pytest
import torch

from alignlab.objectives import (
    adaptive_kl_coef,
    entropy,
    exact_kl,
    explained_variance,
    generalized_advantage_estimate,
    kl_estimate,
    masked_mean,
    ppo_diagnostics,
    ppo_policy_loss,
    ppo_value_loss,
    whiten,
)
from alignlab.objectives.policy import entropy_and_kl, entropy_of, kl_of

JUNK = [math.nan, math.inf, -math.inf, 1e30, -7.0]


def masks(batch, time, seed=0):
    """Rows with 1 to ``time`` real tokens, padded on the right, on the left, on both
    sides."""
    random = np.random.default_rng(seed)
    mask = torch.zeros(batch, time, dtype=torch.long)
    for row in range(batch):
        length = random.integers(1, time + 1)
        start = random.choice([0, time - length, (time - length) // 2])
        mask[row, start : start + length] = 1
    return mask


def filled(values, mask, junk):
    """The same values, with junk for padding."""
    return torch.where(mask.bool(), values, torch.full_like(values, junk))


# --- KL ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shift", "kl", "spread", "bias"),
    [(0.1, 0.005, (20.0, 1.42, 1.42), 0.0025), (1.0, 0.5, (2.0, 1.73, 1.70), 0.25)],
)
def test_kl_estimates_have_schulmans_bias_and_spread(shift, kl, spread, bias):
    # N(0, 1) against N(shift, 1), integrated: no sample, so no tolerance for chance.
    x = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    weight = torch.exp(-0.5 * x**2) / math.sqrt(2 * math.pi) * (x[1] - x[0])
    log_p, log_q = -0.5 * x**2, -0.5 * (x - shift) ** 2
    for estimator, expected in zip(("k1", "k2", "k3"), spread, strict=True):
        k = kl_estimate(log_p, log_q, estimator)
        mean = (weight * k).sum().item()
        deviation = (weight * (k - mean) ** 2).sum().sqrt().item()
        off = {"k1": 0.0, "k2": bias * kl, "k3": 0.0}[estimator]
        assert mean == pytest.approx(kl + off, rel=1e-6, abs=1e-12)
        assert deviation / kl == pytest.approx(expected, rel=0.005)
    assert (kl_estimate(log_p, log_q, "k3") >= 0).all()


@pytest.fixture
def bandit():
    torch.manual_seed(0)
    logits = torch.randn(6, dtype=torch.float64, requires_grad=True)
    return logits, torch.randn(6, dtype=torch.float64)


def kl_gradients(logits, reference):
    """Of KL(policy ‖ reference) and of KL(reference ‖ policy)."""
    log_p, log_q = logits.log_softmax(0), reference.log_softmax(0)
    reverse = (log_p.exp() * (log_p - log_q)).sum()
    forward = (log_q.exp() * (log_q - log_p)).sum()
    return [
        torch.autograd.grad(k, logits, retain_graph=True)[0] for k in (reverse, forward)
    ]


def expected_gradient(logits, reference, estimator, place):
    """Averaged over the six actions with their own probabilities: exact."""
    log_p, log_q = logits.log_softmax(0), reference.log_softmax(0)
    k = kl_estimate(log_p, log_q, estimator)
    weight = log_p.detach().exp()
    objective = weight * (k if place == "loss" else k.detach() * log_p)
    return torch.autograd.grad(objective.sum(), logits)[0]


def test_which_kl_gradients_are_right(bandit):
    reverse, forward = kl_gradients(*bandit)
    expected = {
        ("k1", "reward"): reverse,
        ("k2", "loss"): reverse,
        ("k1", "loss"): torch.zeros_like(reverse),
        ("k3", "loss"): forward,
        ("k3", "reward"): reverse - forward,
    }
    for (estimator, place), gradient in expected.items():
        found = expected_gradient(*bandit, estimator, place)
        torch.testing.assert_close(found, gradient, rtol=1e-9, atol=1e-12)
    assert torch.cosine_similarity(reverse, reverse - forward, dim=0) < 0.9


def test_exact_kl_is_the_mean_of_k1_and_torchs():
    torch.manual_seed(1)
    logits, reference = torch.randn(2, 3, 7), torch.randn(2, 3, 7)
    log_p, log_q = logits.log_softmax(-1), reference.log_softmax(-1)
    expected = (log_p.exp() * kl_estimate(log_p, log_q, "k1")).sum(-1)
    torchs = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=logits),
        torch.distributions.Categorical(logits=reference),
    )
    torch.testing.assert_close(exact_kl(logits, reference), expected)
    torch.testing.assert_close(exact_kl(logits, reference), torchs)
    assert expected.min() > 0.05


def test_entropy_runs_from_0_to_log_of_the_vocabulary():
    certain = torch.tensor([0.0, -torch.inf, -torch.inf])
    assert entropy(certain) == 0
    assert exact_kl(certain, certain) == 0
    assert entropy(torch.zeros(2, 8)).tolist() == pytest.approx([math.log(8)] * 2)
    half = entropy(torch.tensor([1.0, 1.0, -torch.inf]))
    assert half.item() == pytest.approx(math.log(2))


def test_half_precision_logits_are_summed_in_float32():
    logits = torch.randn(4, 5000).bfloat16()
    assert entropy(logits).dtype == torch.float32
    torch.testing.assert_close(entropy(logits), entropy(logits.float()))


def test_adaptive_kl_coefficient_follows_zieglers_rule():
    after = adaptive_kl_coef(1.0, 12.0, target=6.0, horizon=10_000, episodes=64)
    assert after == pytest.approx(1.00128, rel=1e-9)
    below = adaptive_kl_coef(0.5, 5.4, target=6.0, horizon=10_000, episodes=64)
    assert below == pytest.approx(0.5 * (1 - 0.1 * 64 / 10_000), rel=1e-9)
    assert adaptive_kl_coef(0.3, 6.0, target=6.0, horizon=1, episodes=9) == 0.3
    with pytest.raises(ValueError, match="target is 0"):
        adaptive_kl_coef(1.0, 1.0, target=0, horizon=10, episodes=1)


# --- Advantages --------------------------------------------------------------------


def gae_by_definition(rewards, values, mask, gamma, lam):
    """Sums of discounted TD errors, episode by episode: no recursion."""
    advantages = np.zeros(rewards.shape)
    for row in range(len(rewards)):
        at = np.flatnonzero(mask[row])
        r, v = rewards[row, at], np.append(values[row, at], 0.0)
        delta = r + gamma * v[1:] - v[:-1]
        for i in range(len(at)):
            powers = (gamma * lam) ** np.arange(len(at) - i)
            advantages[row, at[i]] = (powers * delta[i:]).sum()
    return advantages


def gae_as_mixture_of_returns(rewards, values, mask, gamma, lam):
    """The exponentially weighted mean of all n-step advantages (Schulman, eq. 16)."""
    advantages = np.zeros(rewards.shape)
    for row in range(len(rewards)):
        at = np.flatnonzero(mask[row])
        r, v = rewards[row, at], np.append(values[row, at], 0.0)
        n = len(at)
        for i in range(n):
            total, left = 0.0, 1.0
            for k in range(1, n - i + 1):
                discounted = (gamma ** np.arange(k) * r[i : i + k]).sum()
                step = discounted + gamma**k * v[i + k] - v[i]
                weight = left * (1 - lam) if k < n - i else left
                total, left = total + weight * step, left * lam
            advantages[row, at[i]] = total
    return advantages


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.7), (1, 1), (1, 0)])
@pytest.mark.parametrize("other", [gae_by_definition, gae_as_mixture_of_returns])
def test_gae_agrees_with_independent_implementations(gamma, lam, other):
    torch.manual_seed(2)
    mask = masks(9, 7)
    rewards, values = torch.randn(2, 9, 7, dtype=torch.float64)
    advantages, returns = generalized_advantage_estimate(
        rewards, values, mask, gamma, lam
    )
    expected = other(rewards.numpy(), values.numpy(), mask.numpy(), gamma, lam)
    np.testing.assert_allclose(advantages.numpy(), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(returns, (advantages + values) * mask)


def test_gae_at_lambda_1_is_reward_to_go_less_value_and_at_0_the_td_error():
    rewards = torch.tensor([[0.0, 1.0, 2.0, 99.0]])
    values = torch.tensor([[0.5, 0.25, -1.0, 99.0]])
    mask = torch.tensor([[1, 1, 1, 0]])
    to_go, _ = generalized_advantage_estimate(rewards, values, mask, 1.0, 1.0)
    assert to_go.tolist() == [[2.5, 2.75, 3.0, 0.0]]
    td, returns = generalized_advantage_estimate(rewards, values, mask, 1.0, 0.0)
    assert td.tolist() == [[-0.25, -0.25, 3.0, 0.0]]
    assert returns.tolist() == [[0.25, 0.0, 2.0, 0.0]]


@pytest.mark.parametrize("junk", JUNK)
def test_gae_and_whitening_do_not_look_at_padding(junk):
    torch.manual_seed(3)
    mask = masks(6, 5)
    rewards, values = torch.randn(2, 6, 5)
    clean = generalized_advantage_estimate(rewards * mask, values * mask, mask)
    dirty = generalized_advantage_estimate(
        filled(rewards, mask, junk), filled(values, mask, junk), mask
    )
    torch.testing.assert_close(dirty, clean, rtol=0, atol=0)
    whitened = whiten(filled(values, mask, junk), mask)
    torch.testing.assert_close(whitened, whiten(values * mask, mask), rtol=0, atol=0)


def test_left_and_right_padding_give_the_same_advantages():
    rewards, values = torch.randn(2, 3, 4)
    right, left = torch.zeros(3, 9), torch.zeros(3, 9)
    right[:, :4], left[:, 5:] = 1, 1
    on_right = [torch.nn.functional.pad(x, (0, 5)) for x in (rewards, values)]
    on_left = [torch.nn.functional.pad(x, (5, 0)) for x in (rewards, values)]
    a, _ = generalized_advantage_estimate(*on_right, right)
    b, _ = generalized_advantage_estimate(*on_left, left)
    torch.testing.assert_close(a[:, :4], b[:, 5:], rtol=0, atol=0)


def test_whitening_gives_variance_1_and_keeps_the_mean_if_told():
    torch.manual_seed(4)
    mask = masks(8, 6)
    values = 3 + 5 * torch.randn(8, 6)
    real = mask.bool()
    for shift in (True, False):
        white = whiten(values, mask, shift_mean=shift)
        assert white[real].var(correction=0).item() == pytest.approx(1, rel=1e-5)
        expected = 0 if shift else values[real].mean().item()
        assert white[real].mean().item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert (white[~real] == 0).all() and (~real).sum() > 5


# --- Losses ------------------------------------------------------------------------


def test_policy_loss_by_hand():
    # Ratios 1.5, 1.5, 0.5, 0.5, 1.1 with advantages 1, -1, 1, -1, 2, clipped at 0.2.
    ratio = torch.tensor([[1.5, 1.5, 0.5, 0.5, 1.1]])
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0, 2.0]])
    log_probs = ratio.log().requires_grad_()
    mask = torch.ones(1, 5)
    loss = ppo_policy_loss(log_probs, torch.zeros(1, 5), advantages, mask, 0.2)
    assert loss.item() == pytest.approx(-(1.2 - 1.5 + 0.5 - 0.8 + 2.2) / 5, rel=1e-6)
    loss.backward()
    # No pull where the ratio has gone far enough in the advantage's direction.
    expected = torch.tensor([[0.0, 1.5, -0.5, 0.0, -2.2]]) / 5
    torch.testing.assert_close(log_probs.grad, expected)
    found = ppo_diagnostics(log_probs, torch.zeros(1, 5), advantages, mask, 0.2)
    assert found["clip_fraction"].item() == pytest.approx(2 / 5)
    assert found["ratio"].item() == pytest.approx(ratio.mean().item())
    k3 = (ratio - 1 - ratio.log()).mean().item()
    assert found["approx_kl"].item() == pytest.approx(k3, rel=1e-5)


def test_clip_higher_by_hand():
    """Ratios above 1 may go to 1.4, those below to 0.8."""
    ratio = torch.tensor([[1.3, 1.5, 1.5, 0.7, 0.7]])
    advantages = torch.tensor([[1.0, 1.0, -1.0, 1.0, -1.0]])
    log_probs = ratio.log().requires_grad_()
    given = torch.zeros(1, 5), advantages, torch.ones(1, 5), 0.2, 0.4
    loss = ppo_policy_loss(log_probs, *given)
    assert loss.item() == pytest.approx(-(1.3 + 1.4 - 1.5 + 0.7 - 0.8) / 5, rel=1e-6)
    loss.backward()
    expected = torch.tensor([[-1.3, 0.0, 1.5, -0.7, 0.0]]) / 5
    torch.testing.assert_close(log_probs.grad, expected)
    found = ppo_diagnostics(log_probs, *given)
    assert found["clip_fraction"].item() == pytest.approx(2 / 5)


def test_equal_clip_ranges_are_one():
    torch.manual_seed(5)
    mask = masks(5, 6)
    new, old, advantages = torch.randn(3, 5, 6)
    given = new, old, advantages, mask, 0.3
    assert ppo_policy_loss(*given, 0.3) == ppo_policy_loss(*given)
    assert ppo_policy_loss(*given, 0.6) < ppo_policy_loss(*given)


def test_on_policy_the_policy_gradient_is_reinforces():
    torch.manual_seed(5)
    mask = masks(5, 6)
    log_probs = torch.randn(5, 6, requires_grad=True)
    advantages = torch.randn(5, 6)
    ppo_policy_loss(log_probs, log_probs.detach(), advantages, mask).backward()
    expected = -advantages * mask / mask.sum()
    torch.testing.assert_close(log_probs.grad, expected)


def test_value_loss_by_hand():
    values = torch.tensor([[1.0, 1.0, 0.1, 5.0]], requires_grad=True)
    old, returns = torch.zeros(1, 4), torch.tensor([[2.0, -1.0, 1.0, 5.0]])
    mask = torch.tensor([[1, 1, 1, 0]])
    # Clipped to 0.2 it is 1.8 from its return, so that counts; -1 is 2 away unclipped.
    loss = ppo_value_loss(values, old, returns, mask, 0.2)
    assert loss.item() == pytest.approx(0.5 * (1.8**2 + 2**2 + 0.9**2) / 3, rel=1e-6)
    loss.backward()
    expected = torch.tensor([[0.0, 2.0, -0.9, 0.0]]) / 3
    torch.testing.assert_close(values.grad, expected)
    plain = ppo_value_loss(values, old, returns, mask, None)
    assert plain.item() == pytest.approx(0.5 * (1 + 4 + 0.81) / 3, rel=1e-6)


@pytest.mark.parametrize("junk", JUNK)
def test_losses_and_their_gradients_do_not_look_at_padding(junk):
    torch.manual_seed(6)
    mask = masks(6, 5)
    new, old, advantages, returns = torch.randn(4, 6, 5)

    def everything(fill):
        a, b, c, d = (filled(x, mask, fill) for x in (new, old, advantages, returns))
        a.requires_grad_()
        policy = ppo_policy_loss(a, b, c, mask)
        value = ppo_value_loss(a, b, d, mask)
        (gradient,) = torch.autograd.grad(policy + value, a)
        seen = ppo_diagnostics(a, b, c, mask) | {
            "explained": explained_variance(a, d, mask),
            "kl": masked_mean(kl_estimate(a, b, "k3"), mask),
        }
        return policy, value, gradient, *seen.values()

    for clean, dirty in zip(everything(0.0), everything(junk), strict=True):
        assert clean.abs().sum() > 0
        torch.testing.assert_close(dirty, clean, rtol=0, atol=0)


def test_explained_variance_at_its_landmarks():
    torch.manual_seed(7)
    mask = masks(20, 6)
    returns = torch.randn(20, 6)
    constant = torch.full_like(returns, 0.3)
    assert explained_variance(returns + 2, returns, mask).item() == pytest.approx(1)
    found = explained_variance(constant, returns, mask).item()
    assert found == pytest.approx(0, abs=1e-6)
    assert explained_variance(-returns, returns, mask).item() == pytest.approx(-3)
    assert explained_variance(returns, constant, mask).isnan()


# --- Wrong arguments ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, m: kl_estimate(x, x[:1]), r"log_probs \(2, 3\)"),
        (lambda x, m: kl_estimate(x, x, "k4"), "estimator is 'k4'"),
        (lambda x, m: exact_kl(x, x[:1]), "ref_logits"),
        (lambda x, m: generalized_advantage_estimate(x, x, m[:1]), r"mask \(1, 3\)"),
        (lambda x, m: generalized_advantage_estimate(x, x, m, gamma=1.1), "gamma is"),
        (lambda x, m: generalized_advantage_estimate(x, x, m, lam=-1), "lam -1"),
        (lambda x, m: whiten(x, 0 * m), "no real token"),
        (lambda x, m: ppo_policy_loss(x, x, x, m, 0), "clip_range is 0"),
        (lambda x, m: ppo_policy_loss(x, x, x, m, 0.2, 0), "clip_range_high is 0"),
        (lambda x, m: ppo_policy_loss(x, x, x[:1], m), r"advantages \(1, 3\)"),
        (lambda x, m: ppo_value_loss(x, x, x, m, -1), "clip_range is -1"),
        (lambda x, m: ppo_value_loss(x, x, x, 0 * m), "no real token"),
        (lambda x, m: masked_mean(x, m[0]), r"mask \(3,\)"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.randn(2, 3), torch.ones(2, 3))


def test_entropy_and_kl_at_once_are_those_of_each():
    random = torch.Generator().manual_seed(0)
    log_p, log_q = torch.randn(2, 5, 40, generator=random).log_softmax(-1)
    assert_both(log_p, log_q)
    log_p[2, 7] = log_q[2, 7] = -torch.inf  # a token that cannot come
    assert_both(log_p, log_q)


def assert_both(log_p, log_q):
    entropies, kls = entropy_and_kl(log_p, log_q)
    torch.testing.assert_close(entropies, entropy_of(log_p), rtol=1e-6, atol=0)
    torch.testing.assert_close(kls, kl_of(log_p, log_q), rtol=1e-6, atol=0)
    assert kls.min() > 0.1
