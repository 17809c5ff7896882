"""Losses that teach a reward model from comparisons: of two replies, or of a ranking.

Rewards in, a loss in nats out. The losses see differences of rewards only; centring
fixes their level. A reward that is not finite gives a loss that is not finite.
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
    identified only up to a constant per prompt, because the loss sees differences. At
    equal rewards it is log 2. On labels that are wrong at rate q, no reward model can
    expect less than the entropy H(q), so a lower training loss means memorised labels.

    Args:
        chosen: reward of the preferred completion of each pair.
        rejected: reward of the other one.
        margin: how much better the chosen one has to be; a larger margin pushes the two
            rewards further apart. None is a margin of 0.
        label_smoothing: the rate at which labels are taken to be wrong, from 0 up to
            but not including 0.5. Higher keeps differences smaller: the loss is then
            least at d = log((1 - rate) / rate) instead of at infinity.
        probability: soft labels, the probability p that the chosen reply wins, such as
            the share of raters who preferred it. Nearer to 0.5 asks for a smaller
            difference. None takes every label as certain.

    Raises:
        ValueError: if the shapes differ, there is no pair, or label_smoothing or a
            probability is out of range.

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
    _require_same_vectors(**given)
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
    With two replies it is the Bradley–Terry loss; at equal rewards it is log K!. A
    ranking of K is one observation; its K(K-1)/2 pairs are not independent.

    Args:
        rewards: (B, K), the best reply's reward first in each row.

    Raises:
        ValueError: if there is no row, or fewer than two replies.

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

    Every ranking weighs the same, however many pairs it has; at equal rewards it is
    log 2. All pairs of a ranking belong in one batch: as separate examples, one epoch
    would show each reply K-1 times. Unlike :func:`plackett_luce_loss` it is not the
    likelihood of a ranking, as the pairs are not independent.

    Args:
        rewards: (B, K), the best reply's reward first in each row.

    Raises:
        ValueError: if there is no row, or fewer than two replies.

    Source: Ouyang et al. (2022, InstructGPT), eq. 1.
    """
    _require_rankings(rewards)
    replies = rewards.shape[1]
    better, worse = torch.triu_indices(replies, replies, 1, device=rewards.device)
    difference = rewards[:, better] - rewards[:, worse]
    # A saturated loss would hide an infinite reward; 0 times it is NaN.
    return (0 * difference - F.logsigmoid(difference)).mean()


def centring_loss(rewards: Float[Tensor, "rankings replies"]) -> Float[Tensor, ""]:
    r"""Squared sum of each comparison's rewards, mean over comparisons.

    .. math:: \Big( \sum_{k=1}^{K} r_k \Big)^2

    Losses of comparisons ignore the level of the rewards, so it drifts with the seed.
    Added with a small coefficient (0.01, say), this fixes the level and leaves
    differences alone. A higher coefficient brings each comparison's mean nearer to 0.

    Args:
        rewards: (B, K), the rewards of the K replies that were compared. With two
            replies this is what TRL multiplies by ``center_rewards_coefficient``.

    Raises:
        ValueError: if there is no row, or fewer than two replies.

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


def _require_probabilities(probability: Tensor) -> None:
    outside = ~((probability >= 0) & (probability <= 1))
    if outside.any():
        place = outside.nonzero()[0].item()
        raise ValueError(
            f"probability[{place}] is {probability[place].item()}; it is the "
            "probability that the chosen reply wins, from 0 to 1"
        )


def _require_same_vectors(**vectors: Tensor) -> None:
    shapes = {name: tuple(vector.shape) for name, vector in vectors.items()}
    if len(set(shapes.values())) > 1 or any(
        len(shape) != 1 for shape in shapes.values()
    ):
        given = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"shapes are {given}: expected one number per pair in each")
    if not len(next(iter(vectors.values()))):
        raise ValueError(f"{next(iter(vectors))} holds no pair")
