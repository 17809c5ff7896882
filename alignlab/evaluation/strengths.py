"""Bradley–Terry strengths of systems, from how often each was preferred to another."""

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.special import expit, log_expit


def bradley_terry_strengths(
    wins: Float[np.ndarray, "K K"],
) -> tuple[Float[np.ndarray, "K"], Float[np.ndarray, "K K"]]:
    r"""Maximum-likelihood strengths of K systems, the first one's being 0, with their
    covariance, in logits.

    .. math:: P(i \succ j) = \sigma(s_i - s_j), \qquad
        \max_s \sum_{ij} w_{ij} \log \sigma(s_i - s_j)

    With two systems :math:`s_2 = \log(w_{21} / w_{12})`, of variance
    :math:`1/w_{21} + 1/w_{12}`.

    Args:
        wins: w, how often the row's system was preferred to the column's; ties as half
            a win for both. A prior is so many wins more: with half a win each way it is
            Jeffreys' for two systems, and the maximum is finite from the first rating
            on. More prior wins shrink the strengths towards 0.

    Raises:
        ValueError: if wins is not square, or leaves a strength without bounds.

    Source: Bradley & Terry (1952); the prior for two systems: Firth (1993).
    """
    wins = np.asarray(wins, float)
    if wins.ndim != 2 or wins.shape[0] != wins.shape[1] or not _is_bounded(wins):
        raise ValueError(
            f"wins is {wins.tolist()}; expected a square matrix in which no group of "
            "systems only ever wins, only ever loses, or is never compared"
        )

    def loss(free: np.ndarray) -> tuple[float, np.ndarray]:
        gaps = np.subtract.outer(*[np.append(0, free)] * 2)
        missing = wins * expit(-gaps)
        return -(wins * log_expit(gaps)).sum(), (missing.sum(0) - missing.sum(1))[1:]

    def information(free: np.ndarray) -> np.ndarray:
        gaps = np.subtract.outer(*[np.append(0, free)] * 2)
        weights = (wins + wins.T) * expit(gaps) * expit(-gaps)
        return (np.diag(weights.sum(1)) - weights)[1:, 1:]

    start = np.zeros(len(wins) - 1)
    best = minimize(
        loss, start, jac=True, hess=information, method="trust-exact", tol=1e-9
    )
    covariance = np.zeros(wins.shape)
    covariance[1:, 1:] = np.linalg.inv(information(best.x))
    return np.append(0, best.x), covariance


def _is_bounded(wins: np.ndarray) -> bool:
    """Whether wins lead from every system to every other one (Ford, 1957)."""
    reach = np.linalg.matrix_power((wins > 0) + np.eye(len(wins)), len(wins))
    return bool((reach > 0).all())
