"""MMCE against its double sum, its limits, and netcal where that is installed."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from alignlab.objectives import mmce, mmce_loss


def items(n=40, classes=4, seed=0, accuracy=0.5):
    """Logits whose likeliest class is right in about ``accuracy`` of the items."""
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, classes, dtype=torch.float64, generator=random)
    wrong = torch.rand(n, generator=random) > accuracy
    labels = (logits.argmax(1) + wrong.long()) % classes
    return logits, labels


def double_sum(logits, labels, weighted):
    """The definition, a pair at a time."""
    pairs = []
    for row, label in zip(logits.tolist(), labels.tolist()):
        total = math.fsum(map(math.exp, row))
        pairs.append((max(map(math.exp, row)) / total, row.index(max(row)) == label))
    n = len(pairs)
    sizes = {kind: sum(c == kind for _, c in pairs) for kind in (True, False)}
    terms = []
    for r, c in pairs:
        for s, d in pairs:
            share = sizes[c] * sizes[d] if weighted else n * n
            terms.append((c - r) * (d - s) / share * math.exp(-abs(r - s) / 0.4))
    return math.sqrt(math.fsum(terms))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("accuracy", [0.2, 0.5, 0.9])
def test_it_is_its_double_sum(weighted, accuracy):
    logits, labels = items(accuracy=accuracy)
    found = mmce(logits, labels, weighted).item()
    assert found == pytest.approx(double_sum(logits, labels, weighted), rel=1e-10)


@pytest.mark.parametrize("weighted", [False, True])
def test_all_right_and_all_wrong_have_one_kind(weighted):
    logits, _ = items()
    right = logits.argmax(1)
    for labels in (right, (right + 1) % 4):
        expected = double_sum(logits, labels, False)  # one kind has all the weight
        assert mmce(logits, labels, weighted).item() == pytest.approx(expected)


def test_equal_confidences_leave_the_gap():
    logits = torch.tensor([[0.7, 0.1, 0.1, 0.1]]).log().repeat(10, 1)
    labels = torch.tensor([0] * 4 + [1] * 6)  # 0.4 right at confidence 0.7
    assert mmce(logits, labels).item() == pytest.approx(0.3, abs=1e-6)


def test_calibrated_and_over_confident_models_differ():
    random = torch.Generator().manual_seed(1)
    logits = torch.randn(4000, 4, dtype=torch.float64, generator=random)
    labels = torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]
    fair, sure = mmce(logits, labels).item(), mmce(3 * logits, labels).item()
    assert fair < 0.03 < 0.15 < sure


@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_is_that_of_the_value(weighted):
    logits, labels = items(n=9)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: mmce(z, labels, weighted), logits)


def test_a_perfect_batch_has_a_finite_gradient():
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    mmce_loss(logits, torch.tensor([0, 1])).backward()
    assert torch.isfinite(logits.grad).all()


def test_the_loss_is_cross_entropy_and_the_weighted_term():
    logits, labels = items()
    plain = F.cross_entropy(logits, labels)
    expected = plain + 3 * mmce(logits, labels, weighted=True)
    torch.testing.assert_close(mmce_loss(logits, labels, 3.0), expected)
    torch.testing.assert_close(mmce_loss(logits, labels, 0.0), plain)


def test_descending_on_it_calibrates_a_temperature():
    random = torch.Generator().manual_seed(2)
    logits = torch.randn(2000, 4, dtype=torch.float64, generator=random)
    labels = torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]
    inverse = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([inverse], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        mmce(inverse * logits, labels).backward()
        optimizer.step()
    assert inverse.item() == pytest.approx(1.0, abs=0.15)


def test_wrong_arguments_are_named():
    logits, labels = items()
    with pytest.raises(ValueError, match="mmce_weight is -1; it must be at least 0"):
        mmce_loss(logits, labels, -1)
    with pytest.raises(ValueError, match=r"labels\[0\] is 4"):
        mmce(logits, torch.full_like(labels, 4))


def test_netcal_measures_the_same():
    confidence = pytest.importorskip("netcal.metrics.confidence")
    logits, labels = items(n=200)
    p = logits.softmax(1).numpy()
    peer = confidence.MMCE().measure(p, labels.numpy())
    assert mmce(logits, labels).item() == pytest.approx(float(peer), rel=1e-6)


def test_netcal_penalises_the_same():
    penalty = pytest.importorskip("netcal.regularization.MMCEPenalty").MMCEPenalty
    logits, labels = items(n=200)
    peer = penalty(weight=2.0)(logits, labels).item()
    own = mmce_loss(logits, labels, 2.0) - F.cross_entropy(logits, labels)
    assert own.item() == pytest.approx(peer, rel=1e-6)
    assert np.isfinite(peer)
