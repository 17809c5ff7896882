"""Losses for training that keep confidence honest: focal, label smoothing, Brier, MMCE.

Logits and right classes (options, letters or tokens) in, a mean over items out. A logit
of NaN or +inf gives a loss of NaN; one of -inf is a class of probability 0.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

KERNEL_WIDTH = 0.4  # of MMCE's Laplacian kernel, in confidence


def focal_loss(
    logits: Float[Tensor, "items classes"],
    labels: Int[Tensor, "items"],
    gamma: float = 2.0,
) -> Float[Tensor, ""]:
    r"""Cross-entropy with less weight on items that are already right, mean over items,
    in nats.

    .. math:: -(1 - p_y)^\gamma \log p_y

    It is at least the cross-entropy minus gamma times the entropy of p, so it rewards
    doubt: models end less over-confident, and under-confident if gamma is large.

    Args:
        logits: before any softmax.
        labels: the right class of each item, 0 to K-1.
        gamma: 0 is cross-entropy; higher ignores easy items earlier.

    Raises:
        ValueError: if the shapes do not fit, there is no item, a label is not a class
            or gamma is negative.

    Source: Lin et al. (2017), eq. 4; Mukhoti et al. (2020) for its calibration.
    """
    if not gamma >= 0:
        raise ValueError(f"gamma is {gamma}; it must be at least 0")
    right = _right_log_probs(logits, labels)
    # 1 - p without cancelling; above 0, where a power below 1 has a finite slope.
    doubt = (-torch.expm1(right)).clamp(min=torch.finfo(right.dtype).tiny)
    return -(doubt**gamma * right).mean()


def label_smoothing_loss(
    logits: Float[Tensor, "items classes"],
    labels: Int[Tensor, "items"],
    label_smoothing: float = 0.1,
) -> Float[Tensor, ""]:
    r"""Cross-entropy to softened targets, mean over items, in nats.

    .. math:: -(1-\epsilon) \log p_y - \frac{\epsilon}{K} \sum_k \log p_k

    It is least at :math:`p_y = 1 - \epsilon + \epsilon / K`, the same for every item:
    confidence is capped, and differences between certain and uncertain items shrink.

    Args:
        logits, labels: as for :func:`focal_loss`.
        label_smoothing: from 0 (cross-entropy) up to but not including 1; higher caps
            confidence lower. With a vocabulary of thousands nearly all of it goes to
            tokens that make no sense.

    Raises:
        ValueError: as :func:`focal_loss`, or if label_smoothing is out of range.

    Source: Szegedy et al. (2016), section 7; Müller et al. (2019) for its calibration.
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(
            f"label_smoothing is {label_smoothing}; it is at least 0 and less than 1"
        )
    _require_labelled(logits, labels)
    return F.cross_entropy(_exact(logits), labels, label_smoothing=label_smoothing)


def brier_loss(
    logits: Float[Tensor, "items classes"], labels: Int[Tensor, "items"]
) -> Float[Tensor, ""]:
    r"""Squared distance of the probabilities to the outcome, mean over items.

    .. math:: \sum_k (p_k - [y = k])^2

    From 0 to 2. Like cross-entropy it is least at the true probabilities, but a
    confidently wrong item costs at most 2 and has hardly any gradient: alone, the loss
    learns slowly.

    Args, raises: as for :func:`focal_loss`.

    Source: Brier (1950).
    """
    _require_labelled(logits, labels)
    p = _exact(logits).softmax(dim=1)
    right = p.gather(1, labels[:, None])[:, 0]
    return (p.square().sum(dim=1) - 2 * right + 1).mean()


def task_and_brier_loss(
    logits: Float[Tensor, "items classes"],
    labels: Int[Tensor, "items"],
    brier_weight: float = 1.0,
) -> Float[Tensor, ""]:
    r"""Two objectives: cross-entropy for the task, Brier score for its confidence.

    .. math:: -\log p_y + w \sum_k (p_k - [y = k])^2

    Args:
        logits, labels: as for :func:`focal_loss`.
        brier_weight: 0 is cross-entropy; higher weighs the Brier score more.

    Raises:
        ValueError: as :func:`focal_loss`, or if brier_weight is negative.

    Source: the supervised form of Damani et al. (2025), who reward correctness and the
    Brier score together.
    """
    if not brier_weight >= 0:
        raise ValueError(f"brier_weight is {brier_weight}; it must be at least 0")
    task = -_right_log_probs(logits, labels).mean()
    return task + brier_weight * brier_loss(logits, labels)


def mmce(
    logits: Float[Tensor, "items classes"],
    labels: Int[Tensor, "items"],
    weighted: bool = False,
) -> Float[Tensor, ""]:
    r"""Maximum mean calibration error: how far apart, seen through a kernel, confidence
    and correctness are in a batch; differentiable, without bins.

    .. math:: \Big[ \sum_{i,j} \frac{(c_i - r_i)(c_j - r_j)}{n^2}
        \, e^{-|r_i - r_j| / 0.4} \Big]^{1/2}

    with :math:`r_i = \max_k p_{ik}` the confidence in the likeliest class and
    :math:`c_i` 1 if that class is right, else 0. It is 0 where confidence is the share
    right at every level of confidence.

    Args:
        logits, labels: as for :func:`focal_loss`. No gradient passes through c.
        weighted: give the right items, and the wrong ones, half of the weight each, as
            Kumar et al. do for training, where few items are still wrong:
            :math:`c_i - r_i` is divided by the share of its kind. The value is then no
            calibration error: it is 0 where both kinds have the same confidences.

    Raises:
        ValueError: if the shapes do not fit, there is no item, or a label is no class.

    Source: Kumar, Sarawagi & Jain (2018), eq. 3 and its weighted form in section 3.
    """
    _require_labelled(logits, labels)
    confidence, likeliest = _exact(logits).softmax(dim=1).max(dim=1)
    correct = (likeliest == labels).to(confidence.dtype)
    gaps = (correct - confidence) / len(labels)
    if weighted:
        share = correct.mean()
        gaps = gaps / torch.where(correct > 0, share, 1 - share)
    kernel = torch.exp((confidence[:, None] - confidence).abs() / -KERNEL_WIDTH)
    squared = gaps @ kernel @ gaps
    # Above 0, where a root has a finite slope; rounding can take the sum below it.
    return squared.clamp(min=torch.finfo(squared.dtype).eps ** 2).sqrt()


def mmce_loss(
    logits: Float[Tensor, "items classes"],
    labels: Int[Tensor, "items"],
    mmce_weight: float = 2.0,
) -> Float[Tensor, ""]:
    r"""Cross-entropy plus the weighted :func:`mmce` of the batch.

    .. math:: -\log p_y + \lambda \, \mathrm{MMCE}_w

    Args:
        logits, labels: as for :func:`focal_loss`. The second term compares the items of
            a batch with each other, so it needs a batch of dozens.
        mmce_weight: lambda; 0 is cross-entropy, higher weighs the second term more.

    Raises:
        ValueError: as :func:`focal_loss`, or if mmce_weight is negative.

    Source: Kumar, Sarawagi & Jain (2018), section 4.
    """
    if not mmce_weight >= 0:
        raise ValueError(f"mmce_weight is {mmce_weight}; it must be at least 0")
    task = -_right_log_probs(logits, labels).mean()
    return task + mmce_weight * mmce(logits, labels, weighted=True)


def _right_log_probs(logits: Tensor, labels: Tensor) -> Float[Tensor, "items"]:
    _require_labelled(logits, labels)
    return -F.cross_entropy(_exact(logits), labels, reduction="none")


def _exact(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _require_labelled(logits: Tensor, labels: Tensor) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not logits.numel():
        raise ValueError(
            f"logits have shape {tuple(logits.shape)}, labels {tuple(labels.shape)}: "
            "expected (items, classes) and (items,), not empty"
        )
    low, high = labels.aminmax()
    if low < 0 or high >= logits.shape[1]:
        wrong = (labels < 0) | (labels >= logits.shape[1])
        first = int(wrong.nonzero()[0])
        raise ValueError(
            f"labels[{first}] is {labels[first].item()}; the classes are 0 to "
            f"{logits.shape[1] - 1}"
        )
