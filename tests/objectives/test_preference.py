"""DPO and its family against their equations, and what each is known for."""

import math

import pytest
import torch

from alignlab.objectives import (
    PREFERENCE_LOSSES,
    bradley_terry_loss,
    dpo_loss,
    implicit_reward,
    kto_loss,
    orpo_loss,
    simpo_loss,
)

TYPES = [n for n, loss in PREFERENCE_LOSSES.items() if loss.reference and loss.pairs]
BETA, RATE, PENALTY = 0.3, 0.2, 5.0


def log_probs(rows, seed=0):
    """(rows, 9) sums of log-probabilities, float64."""
    torch.manual_seed(seed)
    return -20 * torch.rand(rows, 9, dtype=torch.float64) - 1


def counts(seed=0):
    torch.manual_seed(seed)
    return {
        "chosen_tokens": torch.randint(1, 9, (9,)),
        "rejected_tokens": torch.randint(1, 9, (9,)),
    }


def smoothing(loss_type):
    return RATE if "label_smoothing" in PREFERENCE_LOSSES[loss_type][1] else 0.0


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def written_out(loss_type, chosen, rejected, chosen_tokens, rejected_tokens):
    """One pair's loss of its two log-ratios, in plain Python."""
    if loss_type.endswith("_norm"):
        chosen, rejected = chosen / chosen_tokens, rejected / rejected_tokens
    h = chosen - rejected
    right, wrong = math.log(sigmoid(BETA * h)), math.log(1 - sigmoid(BETA * h))
    if loss_type in ("sigmoid", "sigmoid_norm"):
        return -(1 - RATE) * right - RATE * wrong
    if loss_type == "robust":
        return (-(1 - RATE) * right + RATE * wrong) / (1 - 2 * RATE)
    if loss_type in ("ipo", "ipo_norm"):
        return (h - 1 / (2 * BETA)) ** 2
    if loss_type == "hinge":
        return max(0.0, 1 - BETA * h)
    if loss_type == "dpop":
        return -math.log(sigmoid(BETA * (h - PENALTY * max(0.0, -chosen))))
    assert loss_type == "unweighted"
    return -BETA * h


@pytest.mark.parametrize("loss_type", TYPES)
def test_each_type_is_its_equation_written_out(loss_type):
    values, tokens = log_probs(4), counts()
    found = dpo_loss(
        *values, BETA, loss_type, smoothing(loss_type), penalty=PENALTY, **tokens
    )
    expected = [
        written_out(loss_type, pc - rc, pr - rr, ct, rt)
        for pc, pr, rc, rr, ct, rt in zip(
            *values.tolist(), *(t.tolist() for t in tokens.values()), strict=True
        )
    ]
    assert found.shape == (9,)
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("loss_type", TYPES)
def test_gradients_are_those_of_finite_differences(loss_type):
    values, tokens = log_probs(4).requires_grad_(), counts()

    def loss(values):
        rate = smoothing(loss_type)
        return dpo_loss(*values, BETA, loss_type, rate, penalty=PENALTY, **tokens)

    assert torch.autograd.gradcheck(loss, values)


def test_dpo_is_bradley_terry_on_implicit_rewards():
    pc, pr, rc, rr = log_probs(4)
    rewards = implicit_reward(pc, rc, BETA), implicit_reward(pr, rr, BETA)
    for rate in (0.0, RATE):
        expected = bradley_terry_loss(*rewards, label_smoothing=rate)
        found = dpo_loss(pc, pr, rc, rr, BETA, label_smoothing=rate).mean()
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_a_policy_that_is_its_reference_costs_log_two_and_every_pair_weighs_alike():
    pc, pr = log_probs(2).requires_grad_()
    losses = dpo_loss(pc, pr, pc.detach(), pr.detach(), BETA)
    assert losses.tolist() == pytest.approx([math.log(2)] * 9, rel=1e-12)
    chosen, rejected = torch.autograd.grad(losses.sum(), (pc, pr))
    assert chosen.tolist() == pytest.approx([-BETA / 2] * 9, rel=1e-12)
    assert rejected.tolist() == pytest.approx([BETA / 2] * 9, rel=1e-12)


def test_a_pair_weighs_as_much_as_it_is_in_the_wrong_order():
    h = torch.linspace(-30, 30, 13, dtype=torch.float64).requires_grad_()
    zero = torch.zeros_like(h)
    (weight,) = torch.autograd.grad(dpo_loss(h, zero, zero, zero, BETA).sum(), h)
    expected = [-BETA * sigmoid(-BETA * x) for x in h.tolist()]
    assert weight.tolist() == pytest.approx(expected, rel=1e-10)
    losses = dpo_loss(h, zero, zero, zero, BETA, "unweighted")
    (weight,) = torch.autograd.grad(losses.sum(), h)
    assert weight.tolist() == pytest.approx([-BETA] * 13, rel=1e-12)


@pytest.mark.parametrize("loss_type", TYPES)
def test_a_hopeless_pair_does_not_overflow(loss_type):
    far = torch.tensor([-1e4])
    zero, one = torch.zeros(1), torch.ones(1)
    losses = dpo_loss(
        far, zero, zero, zero, 1.0, loss_type, chosen_tokens=one, rejected_tokens=one
    )
    expected = {"ipo": 10000.5**2, "ipo_norm": 10000.5**2, "dpop": 51e4, "hinge": 10001}
    assert losses.item() == pytest.approx(expected.get(loss_type, 1e4), rel=1e-5)


def at(margin, loss_type, rate=0.0):
    """The loss of a pair of that margin."""
    zero = torch.zeros(1, dtype=torch.float64)
    return dpo_loss(zero + margin, zero, zero, zero, BETA, loss_type, rate).item()


@pytest.mark.parametrize(
    "loss_type, rate, best",
    [
        ("sigmoid", RATE, math.log((1 - RATE) / RATE) / BETA),
        ("ipo", 0.0, 1 / (2 * BETA)),
    ],
)
def test_cdpo_and_ipo_stop_at_a_margin_where_dpo_goes_on(loss_type, rate, best):
    lowest = at(best, loss_type, rate)
    assert lowest < min(
        at(best - 0.01, loss_type, rate), at(best + 0.01, loss_type, rate)
    )
    assert at(best, "sigmoid") > at(best + 10, "sigmoid") > at(best + 100, "sigmoid")


def test_robust_on_labels_wrong_at_its_rate_is_dpo_on_right_ones_in_expectation():
    for margin in (-7.0, 0.0, 2.5):
        right, wrong = at(margin, "robust", RATE), at(-margin, "robust", RATE)
        expected = at(margin, "sigmoid")
        assert (1 - RATE) * right + RATE * wrong == pytest.approx(expected, rel=1e-12)


def test_hinge_is_content_from_a_reward_margin_of_one():
    assert at(1 / BETA + 1e-9, "hinge") == 0 < at(1 / BETA - 0.1, "hinge")


def test_dpop_is_dpo_until_the_chosen_completion_loses_probability():
    pc, pr, rc, rr = log_probs(4)
    above = torch.maximum(pc, rc + 0.5)
    torch.testing.assert_close(
        dpo_loss(above, pr, rc, rr, BETA, "dpop"), dpo_loss(above, pr, rc, rr, BETA)
    )
    below = (rc - 0.5).requires_grad_()
    losses = dpo_loss(below, below.detach() - 9, rc, rr, BETA, "dpop", penalty=PENALTY)
    (pull,) = torch.autograd.grad(losses.sum(), below)
    plain = dpo_loss(below, below.detach() - 9, rc, rr, BETA).sum()
    (weaker,) = torch.autograd.grad(plain, below)
    assert (pull < (1 + PENALTY) * weaker).all()  # the weight grew as well as the pull
    no_penalty = dpo_loss(pc, pr, rc, rr, BETA, "dpop", penalty=0.0)
    torch.testing.assert_close(no_penalty, dpo_loss(pc, pr, rc, rr, BETA))


def test_the_token_averaged_types_are_the_others_on_averages():
    pc, pr, rc, rr = log_probs(4)
    tokens = counts()
    c, r = tokens.values()
    for loss_type in ("sigmoid", "ipo"):
        found = dpo_loss(pc, pr, rc, rr, BETA, loss_type + "_norm", **tokens)
        expected = dpo_loss(pc / c, pr / r, rc / c, rr / r, BETA, loss_type)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
        assert not torch.allclose(found, dpo_loss(pc, pr, rc, rr, BETA, loss_type))


# --- without a reference, without pairs -----------------------------------------------


def test_orpo_is_likelihood_and_odds_written_out():
    chosen, rejected = log_probs(2) / 8
    expected = []
    for c, r in zip(chosen.tolist(), rejected.tolist(), strict=True):
        odds = [math.exp(x) / (1 - math.exp(x)) for x in (c, r)]
        expected.append(-c - BETA * math.log(sigmoid(math.log(odds[0] / odds[1]))))
    found = orpo_loss(chosen, rejected, BETA)
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("log_prob", [-1e-5, -0.01, -0.6931, -0.6932, -5.0, -80.0])
def test_odds_keep_their_digits_near_both_ends(log_prob):
    """In float32, against float64's expm1; against itself at even odds."""
    even = torch.tensor([-math.log(2)])
    log_odds = log_prob - math.log(-math.expm1(log_prob))
    likely = orpo_loss(torch.tensor([log_prob]), even, 1.0).item() + log_prob
    unlikely = orpo_loss(even, torch.tensor([log_prob]), 1.0).item() - math.log(2)
    assert likely == pytest.approx(math.log1p(math.exp(-log_odds)), rel=1e-4, abs=1e-7)
    assert unlikely == pytest.approx(math.log1p(math.exp(log_odds)), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("log_prob", [0.0, -1e-9, -1e-4, -0.6931, -1.0, -90.0])
def test_orpos_gradient_is_finite_everywhere(log_prob):
    pair = torch.tensor([[log_prob], [-1.0]], requires_grad=True)
    for chosen, rejected in (pair, pair.flip(0)):
        (grad,) = torch.autograd.grad(orpo_loss(chosen, rejected, 1.0).sum(), pair)
        assert torch.isfinite(grad).all()


def test_simpo_is_its_equation_and_gamma_a_head_start():
    chosen, rejected = log_probs(2) / 8
    expected = [
        -math.log(sigmoid(2.5 * (c - r) - 0.7))
        for c, r in zip(chosen.tolist(), rejected.tolist(), strict=True)
    ]
    found = simpo_loss(chosen, rejected, 2.5, 0.7)
    assert found.tolist() == pytest.approx(expected, rel=1e-10)
    behind = simpo_loss(chosen - 0.7 / 2.5, rejected, 2.5, 0.0)
    torch.testing.assert_close(found, behind)


def test_kto_is_its_equation_for_good_and_bad():
    policy, reference = log_probs(2)
    desirable = torch.arange(9) % 3 == 0
    found = kto_loss(policy, reference, desirable, torch.tensor(1.5), BETA, 1.2, 0.8)
    expected = [
        1.2 * (1 - sigmoid(BETA * (p - r - 1.5)))
        if good
        else 0.8 * (1 - sigmoid(BETA * (1.5 - (p - r))))
        for p, r, good in zip(
            policy.tolist(), reference.tolist(), desirable.tolist(), strict=True
        )
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-10)


def test_ktos_reference_point_gets_no_gradient_and_is_never_negative():
    policy, reference = log_probs(2)
    good = torch.ones(9, dtype=torch.bool)
    kl = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    assert not kto_loss(policy, reference, good, kl, BETA).requires_grad
    below = kto_loss(policy, reference, good, torch.tensor(-3.0), BETA)
    torch.testing.assert_close(
        below, kto_loss(policy, reference, good, torch.tensor(0.0), BETA)
    )


def test_kto_lets_go_of_what_is_far_on_either_side_where_dpo_does_not():
    rho = torch.tensor([-100.0, 0.0, 100.0]).requires_grad_()
    zero, good = torch.zeros(3), torch.ones(3, dtype=torch.bool)
    losses = kto_loss(rho, zero, good, torch.tensor(0.0), 1.0)
    (kto,) = torch.autograd.grad(losses.sum(), rho)
    (dpo,) = torch.autograd.grad(dpo_loss(rho, zero, zero, zero, 1.0).sum(), rho)
    assert kto[[0, 2]].abs().max() < 1e-6 < kto[1].abs()
    assert dpo[0].item() == pytest.approx(-1) and dpo[2].abs() < 1e-6


def test_gradients_of_the_others_are_those_of_finite_differences():
    values = (log_probs(2) / 8).requires_grad_()
    good = torch.arange(9) % 2 == 0
    for loss in (
        lambda v: orpo_loss(*v, BETA),
        lambda v: simpo_loss(*v, BETA),
        lambda v: kto_loss(*v, good, torch.tensor(0.4), BETA),
    ):
        assert torch.autograd.gradcheck(loss, values)


# --- wrong arguments ------------------------------------------------------------------

Z = torch.zeros(3)


def test_wrong_hyperparameters_are_named_with_their_values():
    for beta in (0.0, -0.1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"beta is {beta}; .* greater than 0"):
            dpo_loss(Z, Z, Z, Z, beta)
    with pytest.raises(ValueError, match="beta is 0"):
        implicit_reward(Z, Z, 0)
    with pytest.raises(ValueError, match="beta is 0"):
        orpo_loss(Z - 1, Z - 1, 0)
    with pytest.raises(ValueError, match="beta is -1"):
        simpo_loss(Z, Z, -1)
    with pytest.raises(ValueError, match="gamma is -1"):
        simpo_loss(Z, Z, 1, -1)
    with pytest.raises(ValueError, match="undesirable_weight is 0"):
        kto_loss(Z, Z, Z == 0, Z[0], 1.0, 1.0, 0)
    with pytest.raises(ValueError, match="loss_type is 'dpo'; it can be one of"):
        dpo_loss(Z, Z, Z, Z, 1.0, "dpo")
    with pytest.raises(ValueError, match="penalty is -1"):
        dpo_loss(Z, Z, Z, Z, 1.0, "dpop", penalty=-1)
    for rate in (-0.1, 0.5):
        with pytest.raises(ValueError, match=f"label_smoothing is {rate}"):
            dpo_loss(Z, Z, Z, Z, 1.0, label_smoothing=rate)


@pytest.mark.parametrize("loss_type", ["ipo", "ipo_norm", "hinge", "dpop"])
def test_a_smoothing_that_would_not_act_is_refused(loss_type):
    with pytest.raises(ValueError, match=f"0.1, and loss_type '{loss_type}' does"):
        dpo_loss(Z, Z, Z, Z, 1.0, loss_type, 0.1)


def test_wrong_vectors_are_named_with_their_place():
    with pytest.raises(ValueError, match=r"ref_chosen \(4,\)"):
        dpo_loss(Z, Z, torch.zeros(4), Z, 1.0)
    with pytest.raises(ValueError, match=r"policy_chosen \(3, 1\)"):
        dpo_loss(*4 * [Z[:, None]], 1.0)
    with pytest.raises(ValueError, match="policy_chosen holds no completion"):
        dpo_loss(*4 * [Z[:0]], 1.0)
    with pytest.raises(ValueError, match=r"policy_rejected\[2\] is 0.5.*other sign"):
        orpo_loss(Z, torch.tensor([-1, -1, 0.5]), 1.0)
    with pytest.raises(ValueError, match=r"desirable has shape \(3,\) .*float32"):
        kto_loss(Z, Z, Z, Z[0], 1.0)
    with pytest.raises(ValueError, match="rejected_tokens is None: .* 3 completions"):
        dpo_loss(*4 * [Z], 1.0, "ipo_norm", chosen_tokens=Z + 1)
    with pytest.raises(ValueError, match=r"chosen_tokens is \(2,\): .* 3 completions"):
        dpo_loss(*4 * [Z], 1.0, "ipo_norm", chosen_tokens=torch.ones(2))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("loss_type", TYPES)
def test_a_number_that_is_not_finite_gives_a_loss_that_is_not(loss_type, place, bad):
    """Also where the loss is saturated, and for that pair alone."""
    values, tokens = log_probs(4), counts()
    values[place, 2] = bad
    losses = dpo_loss(*values, BETA, loss_type, smoothing(loss_type), **tokens)
    assert torch.isfinite(losses).tolist() == [i != 2 for i in range(9)]


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
@pytest.mark.parametrize("place", range(2))
def test_so_do_the_others(place, bad):
    values = log_probs(2) / 8
    values[place, 2] = bad
    good = torch.arange(9) % 2 == 0
    for losses in (
        orpo_loss(*values, BETA),
        simpo_loss(*values, BETA),
        kto_loss(*values, good, torch.tensor(0.4), BETA),
        kto_loss(*values, ~good, torch.tensor(0.4), BETA),
    ):
        assert torch.isfinite(losses).tolist() == [i != 2 for i in range(9)]
    for kl in (math.nan, math.inf):
        assert kto_loss(*log_probs(2), good, torch.tensor(kl), BETA).isnan().all()


def test_a_completion_without_tokens_has_no_mean():
    tokens = torch.tensor([1, 0, 2])
    for values in ([Z, Z, Z, Z], [Z - 1, Z, Z, Z]):
        losses = dpo_loss(
            *values, 1.0, "ipo_norm", chosen_tokens=tokens, rejected_tokens=Z + 1
        )
        assert torch.isfinite(losses).tolist() == [True, False, True]
