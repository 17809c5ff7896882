"""Last-layer Laplace: a Gaussian around the weights of a layer that gives each option
its logit, as wide as the curvature of the loss allows, in place of one best guess.

Everything below the layer stays fixed, so one model is trained and asked once.
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import softmax


def laplace_covariance(
    features: Float[ndarray, "items options width"],
    probabilities: Float[ndarray, "items options"],
    prior_precision: float = 1.0,
) -> Float[ndarray, "width width"]:
    r"""The covariance of the layer's weights after training.

    .. math:: \Sigma = \Big( \sum_i \Phi_i^\top
        \big( \operatorname{diag}(p_i) - p_i p_i^\top \big) \Phi_i
        + \tau I \Big)^{-1}

    The sum is the Hessian of the training loss (cross-entropy over the options, summed)
    for a layer whose logits are :math:`\Phi_i w`, and the generalised Gauss-Newton
    matrix for one whose logits have :math:`\Phi_i` as their gradient. A usual layer of
    K classes on h has the Kronecker product of I and h as its features.

    Args:
        features: of the items that were trained on: the gradient of each option's logit
            with respect to the weights.
        probabilities: the trained model's for the same options; rows sum to 1.
        prior_precision: tau; higher keeps the weights closer to the trained ones, and
            the predictions nearer to that model's.

    Raises:
        ValueError: if the shapes do not fit or prior_precision is not above 0.

    Source: MacKay (1992); Kristiadi et al. (2020) and Daxberger et al. (2021) for the
    last layer alone.
    """
    if not prior_precision > 0:
        raise ValueError(f"prior_precision is {prior_precision}; it must be above 0")
    features, p = _matching(features, probabilities, "probabilities")
    mean = np.einsum("ik,ikd->id", p, features)
    apart = (features - mean[:, None]) * np.sqrt(p)[:, :, None]
    apart = apart.reshape(-1, features.shape[2])
    curvature = apart.T @ apart
    return np.linalg.inv(curvature + prior_precision * np.eye(len(curvature)))


def laplace_probabilities(
    features: Float[ndarray, "items options width"],
    logits: Float[ndarray, "items options"],
    covariance: Float[ndarray, "width width"],
    n_samples: int = 200,
    seed: int = 0,
) -> Float[ndarray, "items options"]:
    r"""The posterior predictive: the mean of the softmax over draws of the weights.

    .. math:: \bar p = \mathbb E_{\delta \sim N(0, \Sigma)}
        \operatorname{softmax}(z + \Phi \delta)

    Where the features of an item point in directions in which training said little,
    the draws disagree and their mean is less sure.

    Args:
        features: of the items to predict, as for :func:`laplace_covariance`.
        logits: the trained model's, up to a constant for each item.
        covariance: from :func:`laplace_covariance`.
        n_samples: draws of all weights; the error falls with their root.
        seed: of the draws.

    Raises:
        ValueError: if the shapes do not fit or n_samples is not positive.

    Source: Immer et al. (2021), who show that the logits have to be linear in the
    weights, as here.
    """
    if n_samples < 1:
        raise ValueError(f"n_samples is {n_samples}; it must be at least 1")
    features, logits = _matching(features, logits, "logits")
    if np.shape(covariance) != (features.shape[2],) * 2:
        raise ValueError(
            f"covariance has shape {np.shape(covariance)}, and features have "
            f"{features.shape[2]} columns"
        )
    root = np.linalg.cholesky(covariance)
    rng = np.random.default_rng(seed)
    total = np.zeros_like(logits)
    for _ in range(n_samples):
        weights = root @ rng.standard_normal(len(root))
        total += softmax(logits + features @ weights, axis=1)
    return total / n_samples


def _matching(features, values, name: str) -> tuple[ndarray, ndarray]:
    features, values = np.asarray(features, float), np.asarray(values, float)
    if features.ndim != 3 or not features.size or values.shape != features.shape[:2]:
        raise ValueError(
            f"features have shape {features.shape}, {name} {values.shape}: expected "
            "(items, options, width) and (items, options), not empty"
        )
    return features, values
