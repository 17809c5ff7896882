"""Losses for calibration against their formulas written out and their optima."""

import math

import pytest
import torch
import torch.nn.functional as F

from alignlab.objectives import (
    brier_loss,
    focal_loss,
    label_smoothing_loss,
    mmce_loss,
    task_and_brier_loss,
)

LOSSES = [
    focal_loss,
    label_smoothing_loss,
    brier_loss,
    task_and_brier_loss,
    mmce_loss,
]


def items(n=7, classes=5, seed=0):
    torch.manual_seed(seed)
    logits = 2 * torch.randn(n, classes, dtype=torch.float64)
    return logits, torch.randint(0, classes, (n,))


def probabilities(logits):
    for row in logits.tolist():
        weights = [math.exp(value) for value in row]
        yield [weight / math.fsum(weights) for weight in weights]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_is_its_formula_written_out(gamma):
    logits, labels = items()
    expected = [
        -((1 - p[y]) ** gamma) * math.log(p[y])
        for p, y in zip(probabilities(logits), labels.tolist())
    ]
    found = focal_loss(logits, labels, gamma).item()
    assert found == pytest.approx(math.fsum(expected) / 7, rel=1e-10)


def test_label_smoothing_is_its_formula_written_out():
    logits, labels = items()
    expected = [
        -0.9 * math.log(p[y]) - 0.1 / 5 * sum(map(math.log, p))
        for p, y in zip(probabilities(logits), labels.tolist())
    ]
    found = label_smoothing_loss(logits, labels, 0.1).item()
    assert found == pytest.approx(math.fsum(expected) / 7, rel=1e-10)


def test_brier_and_both_objectives_are_their_formulas_written_out():
    logits, labels = items()
    rows = list(zip(probabilities(logits), labels.tolist()))
    squares = [sum((p[k] - (k == y)) ** 2 for k in range(5)) for p, y in rows]
    brier = math.fsum(squares) / 7
    assert brier_loss(logits, labels).item() == pytest.approx(brier, rel=1e-10)
    task = -math.fsum(math.log(p[y]) for p, y in rows) / 7
    found = task_and_brier_loss(logits, labels, 0.3).item()
    assert found == pytest.approx(task + 0.3 * brier, rel=1e-10)


def test_at_zero_every_hyperparameter_gives_cross_entropy():
    logits, labels = items()
    plain = F.cross_entropy(logits, labels)
    torch.testing.assert_close(focal_loss(logits, labels, 0), plain)
    torch.testing.assert_close(label_smoothing_loss(logits, labels, 0), plain)
    torch.testing.assert_close(task_and_brier_loss(logits, labels, 0), plain)


def best_probability(loss, share):
    """Where a loss is least when the first of two classes is right in ``share``."""
    p = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    logits = torch.stack([p.log(), (1 - p).log()], dim=1)
    expected = [
        share * loss(row[None], torch.tensor([0])).item()
        + (1 - share) * loss(row[None], torch.tensor([1])).item()
        for row in logits
    ]
    return p[min(range(999), key=expected.__getitem__)].item()


def test_proper_losses_are_least_at_the_truth_and_the_others_less_sure():
    assert best_probability(brier_loss, 0.8) == pytest.approx(0.8, abs=1e-3)
    assert best_probability(task_and_brier_loss, 0.8) == pytest.approx(0.8, abs=1e-3)
    smoothed = best_probability(label_smoothing_loss, 1.0)
    assert smoothed == pytest.approx(1 - 0.1 + 0.1 / 2, abs=1e-3)
    assert 0.5 < best_probability(focal_loss, 0.8) < 0.75


def test_focal_is_bounded_below_by_entropy_less_cross_entropy():
    logits, labels = items(200)
    log_p = logits.log_softmax(dim=1)
    entropy = -(log_p.exp() * log_p).sum(dim=1).mean()
    for gamma in (1.0, 2.0, 3.0):
        bound = F.cross_entropy(logits, labels) - gamma * entropy
        assert focal_loss(logits, labels, gamma) >= bound


def test_gradients_are_those_of_finite_differences():
    logits, labels = items(4, 3)
    logits.requires_grad_()
    for loss in LOSSES:
        assert torch.autograd.gradcheck(lambda z, f=loss: f(z, labels), logits)


def test_certainty_has_a_finite_loss_and_gradient():
    logits = torch.tensor([[1e4, 0.0], [0.0, 1e4]], requires_grad=True)
    labels = torch.tensor([0, 0])
    for loss in (*LOSSES, lambda z, y: focal_loss(z, y, 0.5)):
        (gradient,) = torch.autograd.grad(loss(logits, labels), logits)
        assert torch.isfinite(gradient).all()
    right = torch.tensor([0, 1])
    assert focal_loss(logits, right).item() == pytest.approx(0, abs=1e-12)
    assert brier_loss(logits, 1 - right).item() == pytest.approx(2)


def test_half_precision_is_computed_in_single():
    logits, labels = items(64)
    for loss in LOSSES:
        half = loss(logits.to(torch.bfloat16), labels)
        assert half.dtype == torch.float32
        rounded = loss(logits.to(torch.bfloat16).double(), labels)
        assert half.item() == pytest.approx(rounded.item(), rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_wrong_arguments_are_named(loss):
    logits, labels = items()
    with pytest.raises(ValueError, match=r"shape \(7, 5\), labels \(6,\)"):
        loss(logits, labels[:6])
    with pytest.raises(ValueError, match="not empty"):
        loss(logits[:0], labels[:0])
    wrong = labels.clone()
    wrong[3] = 5
    with pytest.raises(ValueError, match=r"labels\[3\] is 5; the classes are 0 to 4"):
        loss(logits, wrong)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_logit_that_is_not_finite_gives_a_loss_that_is_not(loss, bad):
    logits, labels = items()
    for wrong in (0, 1):
        broken = logits.clone()
        broken[2, (labels[2] + wrong) % 5] = bad
        assert loss(broken, labels).isnan()


def test_a_logit_of_minus_infinity_is_a_class_that_cannot_be():
    logits, labels = items()
    masked = torch.cat([logits, torch.full((7, 1), -math.inf)], dim=1)
    for loss in (focal_loss, brier_loss, task_and_brier_loss):
        torch.testing.assert_close(loss(masked, labels), loss(logits, labels))


def test_hyperparameters_out_of_range_are_named():
    logits, labels = items()
    with pytest.raises(ValueError, match="gamma is -1"):
        focal_loss(logits, labels, -1)
    for smoothing in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"label_smoothing is {smoothing}"):
            label_smoothing_loss(logits, labels, smoothing)
    with pytest.raises(ValueError, match="brier_weight is -2"):
        task_and_brier_loss(logits, labels, -2)
