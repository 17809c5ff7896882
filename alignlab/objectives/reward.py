"""How a reward model learns from comparisons: of two replies, and of a whole ranking.

Rewards in, a loss in nats out. To the losses of comparisons only differences of rewards
matter; centring is what ties their level down.
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
    probability: Float[Tensor, "pairs"] | None = None,
) -> Float[Tensor, ""]:
    r"""Negative log-likelihood that each chosen reply wins, in nats per pair.

    .. math:: -w \log \sigma(d) - (1-w) \log \sigma(-d), \quad d = r^+ - r^- - m,
        \quad w = (1-\epsilon) p + \epsilon (1-p)

    with p = 1 unless labels are soft, and :math:`\epsilon` the smoothing. Rewards are
    identified only up to a constant per prompt: the loss sees differences. At equal
    rewards it is log 2. On labels that are wrong at rate q, no reward model can expect
    less than the entropy H(q), so a training loss below that is memory, not judgement.

    Args:
        chosen: reward of the preferred completion of each pair.
        rejected: reward of the other one.
        margin: how much better the chosen one has to be; a larger margin pushes the two
            scores further apart. None asks for none.
        label_smoothing: the rate at which labels are taken to be wrong, from 0 up to
            but not including 0.5. A higher one keeps differences smaller: the loss is
            then least at d = log((1 - rate) / rate) instead of at infinity.
        probability: soft labels, the probability p of each pair that its chosen reply
            wins: the share of raters who took it, say. Nearer to 0.5 asks for a smaller
            difference. None takes every label as certain.

    Raises:
        ValueError: if the shapes differ, a value is not finite, there is no pair, or
            label_smoothing or a probability is out of range.

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
    given |= {} if margin is None else {"margin": margin}
    given |= {} if probability is None else {"probability": probability}
    _require_same_finite_vectors(**given)
    difference = chosen - rejected
    if margin is not None:
        difference = difference - margin
    wins = 1 - label_smoothing
    if probability is not None:
        _require_probabilities(probability)
        wins = label_smoothing + (1 - 2 * label_smoothing) * probability
    right, wrong = F.logsigmoid(difference), F.logsigmoid(-difference)
    return -(wins * right + (1 - wins) * wrong).mean()


def plackett_luce_loss(rewards: Float[Tensor, "rankings replies"]) -> Float[Tensor, ""]:
    r"""Negative log-likelihood of each ranking of K replies, in nats per ranking.

    .. math:: -\sum_{k=1}^{K} \Big( r_k - \log \sum_{j \ge k} e^{r_j} \Big)

    The best reply is chosen among all, the next among those that remain, and so on.
    With two replies it is the Bradley–Terry loss; at equal rewards it is log K!. One
    ranking of K is one observation: cut into its K(K-1)/2 pairs, it would be counted as
    if they were independent.

    Args:
        rewards: (B, K), the best reply's reward first in each row.

    Raises:
        ValueError: if there is no row, fewer than two replies, or a reward is not
            finite.

    Source: Luce (1959); Plackett (1975); for reward models Rafailov et al. (2023), eq.
        18.
    """
    _require_rankings(rewards)
    # Summed from the worst up: column k holds log sum of exp over replies k..K.
    remaining = rewards.flip(1).logcumsumexp(dim=1).flip(1)  # (B, K)
    return (remaining - rewards).sum(dim=1).mean()


def all_pairs_loss(rewards: Float[Tensor, "rankings replies"]) -> Float[Tensor, ""]:
    r"""Bradley–Terry loss of all the pairs within each ranking, in nats per pair.

    .. math:: -\frac{1}{\binom{K}{2}} \sum_{j<k} \log \sigma(r_j - r_k)

    Every ranking weighs the same, however many pairs it makes; at equal rewards it is
    log 2. All the pairs of a ranking belong in one batch: they share replies, and taken
    as separate examples one epoch would show each reply K-1 times. Unlike
    :func:`plackett_luce_loss` it is the likelihood of no ranking, as the pairs are not
    independent.

    Args:
        rewards: (B, K), the best reply's reward first in each row.

    Raises:
        ValueError: if there is no row, fewer than two replies, or a reward is not
            finite.

    Source: Ouyang et al. (2022, InstructGPT), eq. 1.
    """
    _require_rankings(rewards)
    replies = rewards.shape[1]
    better, worse = torch.triu_indices(replies, replies, 1, device=rewards.device)
    return -F.logsigmoid(rewards[:, better] - rewards[:, worse]).mean()


def centring_loss(rewards: Float[Tensor, "rankings replies"]) -> Float[Tensor, ""]:
    r"""How far the rewards of each comparison are from adding up to 0, squared.

    .. math:: \Big( \sum_{k=1}^{K} r_k \Big)^2

    No loss of comparisons cares about the level of the rewards, so it drifts with the
    seed. Added with a small coefficient (0.01, say), this ties it down and leaves
    differences alone. A higher one brings each comparison's mean nearer to 0.

    Args:
        rewards: (B, K), the rewards of the K replies that were compared; of two replies
            it is TRL's term, whose ``center_rewards_coefficient`` multiplies it.

    Raises:
        ValueError: if there is no row, fewer than two replies, or a reward is not
            finite.

    Source: Eisenstein et al. (2023), eq. 2.
    """
    _require_rankings(rewards)
    return rewards.sum(dim=1).square().mean()


def _require_rankings(rewards: Tensor) -> None:
    if rewards.ndim != 2 or rewards.shape[0] < 1 or rewards.shape[1] < 2:
        raise ValueError(
            f"rewards have shape {tuple(rewards.shape)}; expected (rankings, replies), "
            "best reply first, with at least one ranking of at least two replies"
        )
    _require_finite("rewards", rewards)


def _require_probabilities(probability: Tensor) -> None:
    outside = (probability < 0) | (probability > 1)
    if outside.any():
        place = outside.nonzero()[0].item()
        raise ValueError(
            f"probability[{place}] is {probability[place].item()}; it is the "
            "probability that the chosen reply wins, from 0 to 1"
        )


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
