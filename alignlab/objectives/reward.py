"""How a reward model learns from comparisons: of two replies, and of a whole ranking.

Rewards in, a loss in nats out. Only differences of rewards matter to either loss.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def bradley_terry_loss(
    chosen: Float[Tensor, "pairs"],
    rejected: Float[Tensor, "pairs"],
    margin: Float[Tensor, "pairs"] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    r"""Negative log-likelihood that each chosen reply wins, in nats per pair.

    .. math:: -(1-\epsilon) \log \sigma(d) - \epsilon \log \sigma(-d),
        \quad d = r^+ - r^- - m

    Rewards are identified only up to a constant per prompt: the loss sees differences.
    At equal rewards it is log 2. On labels that are wrong at rate q, no reward model
    can expect less than the entropy H(q), so a training loss below that is memory, not
    judgement.

    Args:
        chosen: reward of the preferred completion of each pair.
        rejected: reward of the other one.
        margin: how much better the chosen one has to be; a larger margin pushes the two
            scores further apart. None asks for none.
        label_smoothing: the rate at which labels are taken to be wrong, from 0 up to
            but not including 0.5. A higher one keeps differences smaller: the loss is
            then least at d = log((1 - rate) / rate) instead of at infinity.

    Raises:
        ValueError: if the shapes differ, a value is not finite, there is no pair, or
            label_smoothing is out of range.

    Source: Bradley & Terry (1952); Ouyang et al. (2022), eq. 1; margin from Touvron et
    al. (2023), section 3.2.2; smoothing as in Mitchell (2023), the note on conservative
    DPO.
    """
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(
            f"label_smoothing is {label_smoothing}; it is a rate of wrong labels, "
            "at least 0 and less than 0.5"
        )
    given = {"chosen": chosen, "rejected": rejected}
    _require_same_finite_vectors(
        **given if margin is None else {**given, "margin": margin}
    )
    difference = chosen - rejected
    if margin is not None:
        difference = difference - margin
    right, wrong = F.logsigmoid(difference), F.logsigmoid(-difference)
    return -((1 - label_smoothing) * right + label_smoothing * wrong).mean()


def plackett_luce_loss(rewards: Float[Tensor, "rankings replies"]) -> Float[Tensor, ""]:
    r"""Negative log-likelihood of each ranking of K replies, in nats per ranking.

    .. math:: -\sum_{k=1}^{K} \Big( r_k - \log \sum_{j \ge k} e^{r_j} \Big)

    The best reply is chosen among all, the next among those that remain, and so on.
    With two replies it is the Bradley–Terry loss; at equal rewards it is log K!. One
    ranking of K is
    one observation: cut into its K(K-1)/2 pairs, it would be counted as if they were
    independent.

    Args:
        rewards: (B, K), the best reply's reward first in each row.

    Raises:
        ValueError: if there is no row, fewer than two replies, or a reward is not
            finite.

    Source: Luce (1959); Plackett (1975); for reward models Rafailov et al. (2023), eq.
        18.
    """
    if rewards.ndim != 2 or rewards.shape[0] < 1 or rewards.shape[1] < 2:
        raise ValueError(
            f"rewards have shape {tuple(rewards.shape)}; expected (rankings, replies), "
            "best reply first, with at least one ranking of at least two replies"
        )
    _require_finite("rewards", rewards)
    # Summed from the worst up: column k holds log sum of exp over replies k..K.
    remaining = rewards.flip(1).logcumsumexp(dim=1).flip(1)  # (B, K)
    return (remaining - rewards).sum(dim=1).mean()


def _require_same_finite_vectors(**vectors: Tensor) -> None:
    shapes = {name: tuple(vector.shape) for name, vector in vectors.items()}
    if len(set(shapes.values())) > 1 or any(
        len(shape) != 1 for shape in shapes.values()
    ):
        given = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"shapes are {given}: expected one number per pair in each")
    for name, vector in vectors.items():
        if not len(vector):
            raise ValueError(f"{name} holds no pair")
        _require_finite(name, vector)


def _require_finite(name: str, values: Tensor) -> None:
    if not torch.isfinite(values).all():
        place = (~torch.isfinite(values)).nonzero()[0].tolist()
        value = values[tuple(place)].item()
        raise ValueError(f"{name}{place} is {value}; rewards must be finite numbers")
