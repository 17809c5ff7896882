"""Last-layer Laplace: the Hessian by autograd, limits of the prior, and laplace-torch
where that is installed."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn

from alignlab.calibration.laplace import laplace_covariance, laplace_probabilities


def scorer(n=30, options=4, width=5, seed=0):
    """Features of each option, a layer's weights, and its logits."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, options, width))
    weights = rng.normal(size=width)
    return features, weights, features @ weights


def test_the_precision_is_the_hessian_of_loss_and_prior():
    features, weights, logits = scorer()
    labels = torch.arange(30) % 4  # the Hessian does not depend on them

    def loss(w):
        z = torch.tensor(features) @ w
        return nn.functional.cross_entropy(z, labels, reduction="sum") + 3 * w @ w / 2

    hessian = torch.autograd.functional.hessian(loss, torch.tensor(weights))
    covariance = laplace_covariance(features, softmax(logits, axis=1), 3.0)
    np.testing.assert_allclose(np.linalg.inv(covariance), hessian, rtol=1e-8)


def test_without_items_that_teach_the_prior_is_left():
    features, *_ = scorer()
    certain = np.eye(4)[np.arange(30) % 4]  # no curvature where nothing is in doubt
    covariance = laplace_covariance(features, certain, 4.0)
    np.testing.assert_allclose(covariance, np.eye(5) / 4, atol=1e-12)


def test_more_items_leave_less_open():
    features, _, logits = scorer(n=200)
    p = softmax(logits, axis=1)
    few = laplace_covariance(features[:20], p[:20])
    many = laplace_covariance(features, p)
    assert np.linalg.eigvalsh(few - many).min() > 0


def test_a_strong_prior_gives_the_model_back():
    features, _, logits = scorer()
    p = softmax(logits, axis=1)
    covariance = laplace_covariance(features, p, 1e12)
    result = laplace_probabilities(features, logits, covariance, n_samples=20)
    np.testing.assert_allclose(result, p, atol=1e-4)


def test_the_mean_of_two_options_is_the_logistic_normal_integral():
    nodes, node_weights = np.polynomial.hermite_e.hermegauss(80)
    features = np.array([[[1.0, 2.0], [0.0, 0.0]]])
    logits, covariance = np.array([[1.5, 0.0]]), np.array([[0.5, 0.1], [0.1, 0.3]])
    spread = np.sqrt(features[0, 0] @ covariance @ features[0, 0])
    inside = 1 / (1 + np.exp(-(1.5 + spread * nodes)))
    expected = (inside * node_weights).sum() / node_weights.sum()
    result = laplace_probabilities(features, logits, covariance, n_samples=100_000)
    assert result[0, 0] == pytest.approx(expected, abs=0.003)
    assert result.sum() == pytest.approx(1)
    assert expected < 1 / (1 + np.exp(-1.5)) - 0.05  # it has to be less sure


def test_the_seed_fixes_the_draws():
    features, _, logits = scorer()
    covariance = np.eye(5)
    one = laplace_probabilities(features, logits, covariance, 5, seed=1)
    same = laplace_probabilities(features, logits, covariance, 5, seed=1)
    other = laplace_probabilities(features, logits, covariance, 5, seed=2)
    assert (one == same).all() and (one != other).any()


def test_wrong_arguments_are_named():
    features, _, logits = scorer()
    p = softmax(logits, axis=1)
    with pytest.raises(ValueError, match="prior_precision is 0; it must be above 0"):
        laplace_covariance(features, p, 0)
    with pytest.raises(ValueError, match=r"\(30, 4, 5\), probabilities \(29, 4\)"):
        laplace_covariance(features, p[1:])
    with pytest.raises(ValueError, match="n_samples is 0"):
        laplace_probabilities(features, logits, np.eye(5), 0)
    with pytest.raises(ValueError, match=r"\(4, 4\), and features have 5 columns"):
        laplace_probabilities(features, logits, np.eye(4))


class Classifier(nn.Module):
    """A hidden layer, and a usual last layer of K classes."""

    def __init__(self, width=6, classes=3):
        super().__init__()
        self.hidden, self.last = nn.Linear(4, width), nn.Linear(width, classes)

    def forward(self, x):
        return self.last(torch.tanh(self.hidden(x)))


@pytest.fixture
def trained():
    torch.manual_seed(0)
    x, model = torch.randn(60, 4), Classifier()
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0.3).long()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval(), x, y


def features_of(model, x, classes=3):
    """The gradient of each class's logit with respect to the last layer: the Kronecker
    product of the classes with the hidden features and the bias's 1."""
    with torch.no_grad():
        h = torch.tanh(model.hidden(x)).double().numpy()
    weights = np.einsum("kc,nh->nkch", np.eye(classes), h).reshape(len(h), classes, -1)
    biases = np.broadcast_to(np.eye(classes), (len(h), classes, classes))
    return np.concatenate([weights, biases], axis=2)


def test_laplace_torch_has_the_same_posterior(trained):
    peer = pytest.importorskip("laplace")
    model, x, y = trained
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 20)
    backend = pytest.importorskip("laplace.curvature").CurvlinopsGGN
    la = peer.Laplace(
        model,
        "classification",
        subset_of_weights="last_layer",
        hessian_structure="full",
        prior_precision=2.0,
        backend=backend,
    )
    la.fit(data)
    with torch.no_grad():
        logits = model(x).double().numpy()
    features = features_of(model, x)
    covariance = laplace_covariance(features, softmax(logits, axis=1), 2.0)
    np.testing.assert_allclose(
        covariance, la.posterior_covariance.numpy(), rtol=1e-3, atol=1e-5
    )
    fresh = 3 * torch.randn(40, 4, generator=torch.Generator().manual_seed(5))
    theirs = la(fresh, pred_type="glm", link_approx="mc", n_samples=20_000).numpy()
    with torch.no_grad():
        logits = model(fresh).double().numpy()
    own = laplace_probabilities(features_of(model, fresh), logits, covariance, 20_000)
    np.testing.assert_allclose(own, theirs, atol=0.015)
