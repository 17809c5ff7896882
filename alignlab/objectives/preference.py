"""Losses that learn from comparisons without a reward model: DPO and its family.

Log-probabilities of whole completions in, one loss per pair (or completion) out. A NaN
or infinite input gives a loss that is not finite, never one that hides it.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

Pairs = Float[Tensor, "pairs"]


def implicit_reward(
    policy: Float[Tensor, "completions"],
    reference: Float[Tensor, "completions"],
    beta: float,
) -> Float[Tensor, "completions"]:
    r"""The reward that the policy maximises: what DPO has learned, in nats.

    .. math:: \hat r(x, y) = \beta \log \frac{\pi(y \mid x)}{\pi_\mathrm{ref}(y \mid x)}

    The optimum of :math:`E_\pi[r] - \beta\,\mathrm{KL}(\pi \| \pi_\mathrm{ref})` is
    :math:`\pi_\mathrm{ref}\, e^{r/\beta} / Z(x)`, so this is :math:`r - \beta \log Z`:
    the true reward up to a constant per prompt, which cancels in every comparison.

    Args:
        policy, reference: log-probability of each completion, summed over its tokens.
        beta: what the policy was trained with.

    Raises:
        ValueError: if beta is not positive, the shapes differ, or there is no
            completion.

    Source: Rafailov et al. (2023), eq. 5.
    """
    _require_positive(beta=beta)
    _require_same_vectors(policy=policy, reference=reference)
    return beta * (policy - reference)


# --- The members of DPO's family -----------------------------------------------------
# Each takes the log-ratios log π - log π_ref of a pair's two completions, in nats.


def sigmoid_loss(
    chosen: Pairs, rejected: Pairs, beta: float, label_smoothing: float = 0.0
) -> Pairs:
    r"""DPO; with label smoothing ε, conservative DPO (cDPO).

    .. math:: -(1-\epsilon) \log \sigma(\beta h) - \epsilon \log \sigma(-\beta h),
        \quad h = \rho^+ - \rho^-

    Source: Rafailov et al. (2023), eq. 7; smoothing from Mitchell (2023).
    """
    as_labelled, flipped = _both_ways(chosen - rejected, beta, label_smoothing)
    return (1 - label_smoothing) * as_labelled + label_smoothing * flipped


def robust_loss(
    chosen: Pairs, rejected: Pairs, beta: float, label_smoothing: float = 0.0
) -> Pairs:
    r"""Robust DPO: on labels that are wrong at rate ε, DPO on the right ones in
    expectation.

    .. math:: \frac{-(1-\epsilon) \log \sigma(\beta h) + \epsilon \log
        \sigma(-\beta h)}{1 - 2\epsilon}, \quad h = \rho^+ - \rho^-

    Source: Chowdhury et al. (2024).
    """
    as_labelled, flipped = _both_ways(chosen - rejected, beta, label_smoothing)
    right, wrong = 1 - label_smoothing, label_smoothing
    return (right * as_labelled - wrong * flipped) / (right - wrong)


def ipo_loss(chosen: Pairs, rejected: Pairs, beta: float) -> Pairs:
    r"""IPO: a margin to reach and not to exceed, in squared nats.

    .. math:: \Big(h - \frac{1}{2\beta}\Big)^2, \quad h = \rho^+ - \rho^-

    Source: Azar et al. (2023), eq. 17, with beta for its τ.
    """
    _require_positive(beta=beta)
    return (chosen - rejected - 1 / (2 * beta)).square()


def hinge_loss(chosen: Pairs, rejected: Pairs, beta: float) -> Pairs:
    r"""Hinge loss: pairs whose rewards differ by 1 or more no longer pull.

    .. math:: \max(0, 1 - \beta h), \quad h = \rho^+ - \rho^-

    Source: Zhao et al. (2023), with a reference as in Liu et al. (2023).
    """
    _require_positive(beta=beta)
    return (1 - beta * (chosen - rejected)).relu()


def dpop_loss(
    chosen: Pairs, rejected: Pairs, beta: float, penalty: float = 50.0
) -> Pairs:
    r"""DPO-positive: DPO that keeps the chosen completion likely.

    .. math:: -\log \sigma\big(\beta (h - \lambda \max(0, -\rho^+))\big),
        \quad h = \rho^+ - \rho^-

    Source: Pal et al. (2024).
    """
    _require_positive(beta=beta)
    _require_at_least_zero(penalty=penalty)
    return -F.logsigmoid(beta * (chosen - rejected - penalty * (-chosen).relu()))


def unweighted_loss(chosen: Pairs, rejected: Pairs, beta: float) -> Pairs:
    r"""A control, not a method: DPO without the weight of its gradient, so that no pair
    ever counts as learned.

    .. math:: -\beta h, \quad h = \rho^+ - \rho^-
    """
    _require_positive(beta=beta)
    return -beta * (chosen - rejected)


# --- Without a reference, without pairs ----------------------------------------------


def orpo_loss(policy_chosen: Pairs, policy_rejected: Pairs, beta: float) -> Pairs:
    r"""Odds-ratio preference optimisation: fine-tuning and preference in one, without a
    reference. In nats per pair.

    .. math:: -\log p^+ - \beta \log \sigma\Big(\log \frac{p^+}{1-p^+}
        - \log \frac{p^-}{1-p^-}\Big), \quad
        p = \exp\Big(\tfrac{1}{|y|} \log \pi(y \mid x)\Big)

    Only the likelihood of the chosen completions keeps the policy near its start.

    Against TRL 1.16 (`trl.experimental.orpo`): the preference term is the same. TRL's
    likelihood term also runs over the prompt and averages over the batch's tokens; ours
    is the mean over the chosen completion's tokens, pair by pair.

    Args:
        policy_chosen, policy_rejected: *mean* log-probabilities over the completions'
            tokens, so below 0.
        beta: the paper's λ; higher weighs the preference more against the likelihood.

    Raises:
        ValueError: if beta is not positive, the shapes differ, a log-probability is
            above 0, or there is no pair.

    Source: Hong et al. (2024), eqs. 4, 6 and 7.
    """
    _require_positive(beta=beta)
    pair = dict(policy_chosen=policy_chosen, policy_rejected=policy_rejected)
    _require_same_vectors(**pair)
    _require_below_zero(**pair)
    log_odds_ratio = _log_odds(policy_chosen) - _log_odds(policy_rejected)
    losses = -policy_chosen - beta * F.logsigmoid(log_odds_ratio)
    return _nan_where_infinite(losses, policy_chosen, policy_rejected)


def simpo_loss(
    policy_chosen: Pairs, policy_rejected: Pairs, beta: float, gamma: float = 0.5
) -> Pairs:
    r"""Simple preference optimisation: the mean log-probability is the reward, without
    a reference. In nats per pair.

    .. math:: -\log \sigma\Big(\frac{\beta}{|y^+|} \log \pi(y^+ \mid x)
        - \frac{\beta}{|y^-|} \log \pi(y^- \mid x) - \gamma\Big)

    Args:
        policy_chosen, policy_rejected: *mean* log-probabilities over the completions'
            tokens.
        beta: scale of the reward, about 2 in the paper. It does not tie the policy to a
            reference, but higher makes a given margin count for more, so that the
            policy moves *less* to reach it.
        gamma: margin by which the chosen reward has to lead, at least 0; higher pushes
            the two further apart.

    Raises:
        ValueError: if beta is not positive, gamma is negative, the shapes differ, or
            there is no pair.

    Source: Meng et al. (2024), eq. 6. The same as `loss_type="simpo"` of
    `trl.experimental.cpo` with `cpo_alpha=0`.
    """
    _require_positive(beta=beta)
    _require_at_least_zero(gamma=gamma)
    _require_same_vectors(policy_chosen=policy_chosen, policy_rejected=policy_rejected)
    margin = policy_chosen - policy_rejected
    return _nan_where_infinite(-F.logsigmoid(beta * margin - gamma), margin)


def kto_loss(
    policy: Float[Tensor, "completions"],
    reference: Float[Tensor, "completions"],
    desirable: Bool[Tensor, "completions"],
    kl: Float[Tensor, ""],
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Float[Tensor, "completions"]:
    r"""Kahneman–Tversky optimisation: from completions that are good or bad, without
    pairs. One loss per completion, between 0 and its weight.

    .. math:: \lambda_D \, [1 - \sigma(\beta (\rho - z))] \ \text{if desirable, else}\
        \lambda_U \, [1 - \sigma(\beta (z - \rho))], \quad
        \rho = \log \pi - \log \pi_\mathrm{ref}

    It saturates on both sides: a completion far from the reference point z hardly
    pulls, whether it is right by far or hopeless. So wrong labels cost less than with
    DPO.

    Args:
        policy, reference: log-probabilities of each completion, summed over its tokens.
        desirable: True for a good one.
        kl: the reference point z in nats, one number for the batch: an estimate of
            KL(policy || reference). It gets no gradient, and below 0 counts as 0.
        beta: higher keeps closer to the reference.
        desirable_weight, undesirable_weight: λ_D and λ_U; raise the weight of the rarer
            kind until both kinds have about the same total weight.

    Raises:
        ValueError: if beta or a weight is not positive, the shapes differ, or there is
            no completion.

    Source: Ethayarajh et al. (2024), section 4. The same as `trl.KTOTrainer`.
    """
    _require_positive(
        beta=beta,
        desirable_weight=desirable_weight,
        undesirable_weight=undesirable_weight,
    )
    _require_same_vectors(policy=policy, reference=reference)
    if desirable.shape != policy.shape or desirable.dtype != torch.bool:
        raise ValueError(
            f"desirable has shape {tuple(desirable.shape)} and type {desirable.dtype}: "
            f"expected one truth value for each of the {len(policy)} completions"
        )
    ahead = policy - reference - kl.detach().clamp(min=0)  # (B,)
    good = desirable_weight * (1 - torch.sigmoid(beta * ahead))
    bad = undesirable_weight * (1 - torch.sigmoid(-beta * ahead))
    return _nan_where_infinite(torch.where(desirable, good, bad), ahead)


# --- What each takes, and the choice among those of DPO's kind -----------------------


class PreferenceLoss(NamedTuple):
    """A loss of the family, and what it takes besides log-probabilities and beta."""

    function: Callable[..., Tensor]
    hyperparameters: tuple[str, ...] = ()
    reference: bool = True  # takes log-ratios to a reference, else log-probabilities
    per_token: bool = False  # these are divided by the completion's number of tokens
    pairs: bool = True  # takes chosen and rejected together, else single completions


PREFERENCE_LOSSES: Mapping[str, PreferenceLoss] = {
    "sigmoid": PreferenceLoss(sigmoid_loss, ("label_smoothing",)),
    "sigmoid_norm": PreferenceLoss(sigmoid_loss, ("label_smoothing",), per_token=True),
    "robust": PreferenceLoss(robust_loss, ("label_smoothing",)),
    "ipo": PreferenceLoss(ipo_loss),
    "ipo_norm": PreferenceLoss(ipo_loss, per_token=True),
    "hinge": PreferenceLoss(hinge_loss),
    "dpop": PreferenceLoss(dpop_loss, ("penalty",)),
    "unweighted": PreferenceLoss(unweighted_loss),
    "orpo": PreferenceLoss(orpo_loss, reference=False, per_token=True),
    "simpo": PreferenceLoss(simpo_loss, ("gamma",), reference=False, per_token=True),
    "kto": PreferenceLoss(
        kto_loss, ("desirable_weight", "undesirable_weight"), pairs=False
    ),
}


def dpo_loss(
    policy_chosen: Pairs,
    policy_rejected: Pairs,
    ref_chosen: Pairs,
    ref_rejected: Pairs,
    beta: float,
    loss_type: str = "sigmoid",
    label_smoothing: float = 0.0,
    *,
    penalty: float = 50.0,
    chosen_tokens: Int[Tensor, "pairs"] | None = None,
    rejected_tokens: Int[Tensor, "pairs"] | None = None,
) -> Pairs:
    r"""Direct preference optimisation: one loss per pair, from log-probabilities alone.

    It applies the ``loss_type``'s function of ``PREFERENCE_LOSSES`` to the log-ratios
    :math:`\rho = \log \pi - \log \pi_\mathrm{ref}` of a pair's two completions; the
    types that end in ``_norm`` divide each by its completion's number of tokens first.

    DPO's gradient is :math:`-\beta\,\sigma(-\beta h)\,\nabla h` with the margin
    :math:`h = \rho^+ - \rho^-`: at the start, where policy and reference are equal,
    every pair weighs β/2, and a pair that is in order by far weighs nothing. It is the
    *margin* that grows; chosen and rejected may both become less likely meanwhile.

    Against TRL 1.16: its ``"sigmoid"`` ignores label_smoothing, ours does not. Its
    ``"ipo"`` averages over tokens, as its source says the authors did, and is our
    ``"ipo_norm"``; our ``"ipo"`` is the paper's equation, over whole completions. The
    same beta means different things in the two. TRL has no DPOP.

    Args:
        policy_chosen, policy_rejected: log-probabilities of the completions under the
            policy, summed over their tokens.
        ref_chosen, ref_rejected: the same under the reference.
        beta: higher keeps closer to the reference. The optimum of DPO is
            :math:`\pi_\mathrm{ref}\, e^{r/\beta}/Z`; IPO's margin to reach is 1/(2β).
        loss_type: "sigmoid", "sigmoid_norm", "robust", "ipo", "ipo_norm", "hinge",
            "dpop" or "unweighted".
        label_smoothing: the rate ε at which labels are taken to be wrong, from 0 up to
            but not including 0.5; higher trusts labels less. For ``"sigmoid"``,
            ``"sigmoid_norm"`` and ``"robust"`` only.
        penalty: DPOP's λ, at least 0; higher holds the chosen completion's probability
            closer to the reference's, or above it. The paper's models used 50.
        chosen_tokens, rejected_tokens: tokens of each completion, at least 1; only the
            types that end in ``_norm`` need them.

    Returns:
        One loss per pair, in nats (in squared nats for IPO).

    Raises:
        ValueError: if a hyperparameter is out of range or has no effect on this type,
            the shapes differ, or there is no pair.
    """
    loss = _dpo_member(loss_type)
    _require_same_vectors(
        policy_chosen=policy_chosen,
        policy_rejected=policy_rejected,
        ref_chosen=ref_chosen,
        ref_rejected=ref_rejected,
    )
    options = {}
    if "label_smoothing" in loss.hyperparameters:
        options["label_smoothing"] = label_smoothing
    elif label_smoothing:
        raise ValueError(
            f"label_smoothing is {label_smoothing}, and loss_type {loss_type!r} does "
            "not use it: leave it at 0, or take sigmoid, sigmoid_norm or robust"
        )
    if "penalty" in loss.hyperparameters:
        options["penalty"] = penalty
    chosen = policy_chosen - ref_chosen  # (B,)
    rejected = policy_rejected - ref_rejected
    if loss.per_token:
        chosen = chosen / _counts("chosen_tokens", chosen_tokens, chosen)
        rejected = rejected / _counts("rejected_tokens", rejected_tokens, rejected)
    losses = loss.function(chosen, rejected, beta, **options)
    return _nan_where_infinite(losses, chosen, rejected)


# --- Small parts ---------------------------------------------------------------------


def _dpo_member(loss_type: str) -> PreferenceLoss:
    dpo = [n for n, loss in PREFERENCE_LOSSES.items() if loss.reference and loss.pairs]
    if loss_type not in dpo:
        raise ValueError(f"loss_type is {loss_type!r}; it can be one of {dpo}")
    return PREFERENCE_LOSSES[loss_type]


def _both_ways(margin: Tensor, beta: float, rate: float) -> tuple[Tensor, Tensor]:
    """DPO's loss at a margin, and at the margin of the flipped label."""
    _require_positive(beta=beta)
    if not 0 <= rate < 0.5:
        raise ValueError(
            f"label_smoothing is {rate}; it is a rate of wrong labels, at least 0 and "
            "less than 0.5"
        )
    return -F.logsigmoid(beta * margin), -F.logsigmoid(-beta * margin)


def _log_odds(log_prob: Tensor) -> Tensor:
    """log p - log(1 - p), exact for p near 0 and near 1."""
    # Where p rounds to 1, the odds are those of the nearest number below: finite, and
    # so is the gradient of both branches.
    log_prob = log_prob.clamp(max=-torch.finfo(log_prob.dtype).eps)
    complement = torch.where(  # each branch where it loses no digits of 1 - p
        log_prob < -0.6931,
        torch.log1p(-log_prob.exp()),
        torch.log(-torch.expm1(log_prob)),
    )
    return log_prob - complement


def _nan_where_infinite(losses: Tensor, *inputs: Tensor) -> Tensor:
    """The losses, but NaN where an input is infinite: a loss that saturates would be
    finite there."""
    return losses + 0 * sum(inputs)


def _counts(name: str, tokens: Tensor | None, like: Tensor) -> Tensor:
    if tokens is None or tokens.shape != like.shape:
        shape = None if tokens is None else tuple(tokens.shape)
        raise ValueError(
            f"{name} is {shape}: a loss type that ends in _norm needs the number of "
            f"tokens of each of the {len(like)} completions"
        )
    return tokens


def _require_positive(**hyperparameters: float) -> None:
    for name, value in hyperparameters.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} is {value}; it must be greater than 0 and finite")


def _require_at_least_zero(**hyperparameters: float) -> None:
    for name, value in hyperparameters.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} is {value}; it must be at least 0 and finite")


def _require_below_zero(**log_probs: Tensor) -> None:
    for name, values in log_probs.items():
        if (values > 0).any():
            place = (values > 0).nonzero()[0].item()
            raise ValueError(
                f"{name}[{place}] is {values[place].item()}: no log-probability is "
                "above 0. Is it a loss, with the other sign?"
            )


def _require_same_vectors(**vectors: Tensor) -> None:
    shapes = {name: tuple(vector.shape) for name, vector in vectors.items()}
    first = next(iter(shapes.values()))
    if len(set(shapes.values())) > 1 or len(first) != 1:
        given = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(
            f"shapes are {given}: expected one number per completion in each"
        )
    if not first[0]:
        raise ValueError(f"{next(iter(shapes))} holds no completion")
