"""Exact ceilings and floors: what the best possible model can expect on labels that are
drawn with known probabilities. Each is the same for p and 1-p, so it does not matter
which reply's probability is given.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.special import entr

from alignlab.world.comparisons import Row, require_columns
from alignlab.world.gold import SAME_GOLD


def accuracy_ceiling(probability: Sequence[float]) -> float:
    r"""The best expected accuracy on the labels, :math:`E[\max(p, 1-p)]`, reached by
    always predicting the likelier one. In [0.5, 1]; noisier annotators lower it.

    Raises:
        ValueError: if there is no probability, or one is outside [0, 1].
    """
    p = _require_probabilities(probability)
    return float(np.maximum(p, 1 - p).mean())


def brier_floor(probability: Sequence[float]) -> float:
    r"""The lowest expected Brier score, :math:`E[p(1-p)]`, of one forecast per pair.

    The forecast p errs by (1-p)² with probability p and by p² otherwise:
    :math:`p(1-p)^2 + (1-p)p^2 = p(1-p)`. It is not :math:`\min(p^2, (1-p)^2)`, the
    error when the likelier label comes, which no forecaster can count on. In [0, 0.25].

    Raises:
        ValueError: if there is no probability, or one is outside [0, 1].
    """
    p = _require_probabilities(probability)
    return float((p * (1 - p)).mean())


def nll_floor(probability: Sequence[float]) -> float:
    r"""The lowest expected Bradley–Terry loss, in nats per pair: the mean entropy
    :math:`E[H(p)] = E[-p \log p - (1-p) \log(1-p)]`. In [0, log 2].

    Raises:
        ValueError: if there is no probability, or one is outside [0, 1].
    """
    p = _require_probabilities(probability)
    return float((entr(p) + entr(1 - p)).mean())


def label_agreement(probability: Sequence[float]) -> float:
    r"""How often two independent labels of the same pair agree,
    :math:`E[p^2 + (1-p)^2]`: what studies report as agreement between annotators. A
    model can do better, up to :func:`accuracy_ceiling`.

    Raises:
        ValueError: if there is no probability, or one is outside [0, 1].
    """
    p = _require_probabilities(probability)
    return float((p**2 + (1 - p) ** 2).mean())


def gold_order_accuracy(
    pairs: Sequence[Row], differences: Float[np.ndarray, "pairs"]
) -> float:
    """Share of the pairs that a reward puts in the order of their gold, whatever the
    label says. It can reach 1, however noisy the labels are.

    Pairs of equal gold are left out. A difference of 0 counts as half right, so a
    constant reward is at chance.

    Args:
        pairs: with ``gold_chosen`` and ``gold_rejected``.
        differences: for each pair, the reward of the chosen reply minus that of the
            rejected one.

    Raises:
        ValueError: if the lengths differ, a difference is NaN, a column is missing, or
            every pair is a tie.
    """
    require_columns(pairs, ("gold_chosen", "gold_rejected"))
    differences = np.asarray(differences, dtype=float)
    if differences.shape != (len(pairs),) or np.isnan(differences).any():
        raise ValueError(
            f"differences have shape {differences.shape} for {len(pairs)} pairs; "
            "expected one number for each, and no NaN"
        )
    gaps = np.array([pair["gold_chosen"] - pair["gold_rejected"] for pair in pairs])
    decided = np.abs(gaps) >= SAME_GOLD
    if not decided.any():
        raise ValueError(
            f"pairs: all {len(pairs)} are of equal gold, so none has an order"
        )
    return float((0.5 + 0.5 * np.sign(differences * gaps)[decided]).mean())


def _require_probabilities(probability: Sequence[float]) -> np.ndarray:
    p = np.asarray(probability, dtype=float)
    if p.ndim != 1 or not len(p) or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(
            f"probability has shape {p.shape} and values {p.ravel()[:5]}…; expected "
            "one number in [0, 1] per pair, and at least one pair"
        )
    return p
