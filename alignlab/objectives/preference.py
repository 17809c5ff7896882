"""How a policy learns from comparisons directly: DPO and its family.

Log-probabilities of whole completions in, one loss a pair (or a completion) out. Each
loss says what it takes for noise, for strength and for length.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

DpoLossType = Literal[
    "sigmoid",
    "sigmoid_norm",
    "ipo",
    "ipo_norm",
    "hinge",
    "robust",
    "dpop",
    "unweighted",
]
SMOOTHED = ("sigmoid", "sigmoid_norm", "robust")  # those that know of wrong labels


def implicit_reward(
    policy: Float[Tensor, "completions"],
    reference: Float[Tensor, "completions"],
    beta: float,
) -> Float[Tensor, "completions"]:
    r"""The reward of which the policy would be the best: what DPO has learnt, in nats.

    .. math:: \hat r(x, y) = \beta \log \frac{\pi(y \mid x)}{\pi_\mathrm{ref}(y \mid x)}

    The optimum of :math:`E_\pi[r] - \beta\,\mathrm{KL}(\pi \| \pi_\mathrm{ref})` is
    :math:`\pi_\mathrm{ref}\, e^{r/\beta} / Z(x)`, so this is :math:`r - \beta \log Z`:
    the true reward up to a constant per prompt, which every comparison cancels.

    Args:
        policy, reference: log-probability of each completion, summed over its tokens.
        beta: what the policy was trained with.

    Raises:
        ValueError: if beta is not positive, the shapes differ, a number is not finite,
            or there is none.

    Source: Rafailov et al. (2023), eq. 5.
    """
    _require_positive(beta=beta)
    _require_same_finite_vectors(policy=policy, reference=reference)
    return beta * (policy - reference)


def dpo_loss(
    policy_chosen: Float[Tensor, "pairs"],
    policy_rejected: Float[Tensor, "pairs"],
    ref_chosen: Float[Tensor, "pairs"],
    ref_rejected: Float[Tensor, "pairs"],
    beta: float,
    loss_type: DpoLossType = "sigmoid",
    label_smoothing: float = 0.0,
    *,
    penalty: float = 50.0,
    chosen_tokens: Int[Tensor, "pairs"] | None = None,
    rejected_tokens: Int[Tensor, "pairs"] | None = None,
) -> Float[Tensor, "pairs"]:
    r"""Direct preference optimisation: one loss a pair, of log-probabilities alone.

    With the log-ratios :math:`\rho = \log \pi - \log \pi_\mathrm{ref}` of a pair's two
    completions and the margin :math:`h = \rho^+ - \rho^-`, in nats, the types are:

    * ``"sigmoid"``, DPO, and conservative DPO with label_smoothing ε:
      :math:`-(1-\epsilon) \log \sigma(\beta h) - \epsilon \log \sigma(-\beta h)`.
    * ``"robust"``: :math:`[-(1-\epsilon) \log \sigma(\beta h) + \epsilon \log
      \sigma(-\beta h)] / (1 - 2\epsilon)`. On labels that are wrong at rate ε its
      expectation is DPO's on right ones.
    * ``"ipo"``: :math:`(h - \tfrac{1}{2\beta})^2`. A margin to reach, not to exceed.
    * ``"hinge"``: :math:`\max(0, 1 - \beta h)`.
    * ``"dpop"``, DPO-positive: :math:`-\log \sigma(\beta (h - \lambda \max(0,
      -\rho^+)))`. It keeps the chosen completion likely.
    * ``"unweighted"``: :math:`-\beta h`. A control, not a method: DPO without the
      weight of its gradient, so that no pair is ever learnt enough.
    * ``"sigmoid_norm"`` and ``"ipo_norm"``: each ρ divided by its completion's tokens,
      so h is in nats a token.

    DPO's gradient is :math:`-\beta\,\sigma(-\beta h)\,\nabla h`: at the start, where
    policy and reference are one, every pair weighs β/2, and a pair that is in order by
    far weighs nothing. It is the *margin* that grows; chosen and rejected may both lose
    probability meanwhile.

    Against TRL 1.16: its ``"sigmoid"`` ignores label_smoothing, ours does not. Its
    ``"ipo"`` averages over tokens, as its source says the authors did, and is our
    ``"ipo_norm"``; our ``"ipo"`` is the paper's equation, of whole completions. The
    same beta means different things in the two. DPOP it does not have.

    Args:
        policy_chosen, policy_rejected: log-probabilities of the completions under the
            policy, summed over their tokens.
        ref_chosen, ref_rejected: the same under the reference.
        beta: higher keeps closer to the reference. The optimum of DPO is
            :math:`\pi_\mathrm{ref}\, e^{r/\beta}/Z`; for IPO it is τ, and the margin to
            reach is 1/(2β).
        loss_type: see above.
        label_smoothing: the rate ε at which labels are taken to be wrong, from 0 up to
            but not including 0.5. Higher trusts labels less. Only ``"sigmoid"``,
            ``"sigmoid_norm"`` and ``"robust"`` know of it.
        penalty: DPOP's λ, at least 0; higher holds the chosen completion closer to the
            reference's probability or above. The paper's models used 50.
        chosen_tokens, rejected_tokens: tokens of each completion; the types that end in
            ``_norm`` need them, and no other looks at them.

    Returns:
        One loss a pair, in nats (in squared nats for IPO).

    Raises:
        ValueError: if beta is not positive, another dial is out of range or has no
            effect on this type, the shapes differ, a number is not finite, or there is
            no pair.

    Source: Rafailov et al. (2023), eq. 7; smoothing from Mitchell (2023); robust from
    Chowdhury et al. (2024); IPO from Azar et al. (2023), eq. 17; hinge from Zhao et al.
    (2023), with a reference as in Liu et al. (2023); DPOP from Pal et al. (2024).
    """
    _require_dpo_dials(beta, loss_type, label_smoothing, penalty)
    _require_same_finite_vectors(
        policy_chosen=policy_chosen,
        policy_rejected=policy_rejected,
        ref_chosen=ref_chosen,
        ref_rejected=ref_rejected,
    )
    chosen = policy_chosen - ref_chosen  # (B,)
    rejected = policy_rejected - ref_rejected
    if loss_type in ("sigmoid_norm", "ipo_norm"):
        chosen = chosen / _counts("chosen_tokens", chosen_tokens, chosen)
        rejected = rejected / _counts("rejected_tokens", rejected_tokens, rejected)
    margin = chosen - rejected
    if loss_type == "dpop":
        margin = margin - penalty * (-chosen).relu()
    return _loss_at(margin, beta, loss_type, label_smoothing)


def orpo_loss(
    policy_chosen: Float[Tensor, "pairs"],
    policy_rejected: Float[Tensor, "pairs"],
    beta: float,
) -> Float[Tensor, "pairs"]:
    r"""Odds-ratio preference optimisation: fine-tuning and preference in one, without a
    reference. In nats a pair.

    .. math:: -\log p^+ - \beta \log \sigma\Big(\log \frac{p^+}{1-p^+}
        - \log \frac{p^-}{1-p^-}\Big), \quad
        p = \exp\Big(\tfrac{1}{|y|} \log \pi(y \mid x)\Big)

    Nothing holds the policy to where it came from but the likelihood of the chosen
    completions.

    Against TRL 1.16 (`trl.experimental.orpo`): the preference term is the same. Its
    likelihood term also runs over the prompt and averages over the batch's tokens; ours
    is the mean over the chosen completion's tokens, pair by pair.

    Args:
        policy_chosen, policy_rejected: *mean* log-probabilities over the completions'
            tokens, so below 0.
        beta: the paper's λ; higher weighs the preference against the likelihood.

    Raises:
        ValueError: if beta is not positive, the shapes differ, a number is not finite
            or above 0, or there is no pair.

    Source: Hong et al. (2024), eqs. 4, 6 and 7.
    """
    _require_positive(beta=beta)
    _require_same_finite_vectors(
        policy_chosen=policy_chosen, policy_rejected=policy_rejected
    )
    _require_below_zero(policy_chosen=policy_chosen, policy_rejected=policy_rejected)
    log_odds_ratio = _log_odds(policy_chosen) - _log_odds(policy_rejected)
    return -policy_chosen - beta * F.logsigmoid(log_odds_ratio)


def simpo_loss(
    policy_chosen: Float[Tensor, "pairs"],
    policy_rejected: Float[Tensor, "pairs"],
    beta: float,
    gamma: float = 0.5,
) -> Float[Tensor, "pairs"]:
    r"""Simple preference optimisation: the mean log-probability is the reward, without
    a reference. In nats a pair.

    .. math:: -\log \sigma\Big(\frac{\beta}{|y^+|} \log \pi(y^+ \mid x)
        - \frac{\beta}{|y^-|} \log \pi(y^- \mid x) - \gamma\Big)

    Args:
        policy_chosen, policy_rejected: *mean* log-probabilities over the completions'
            tokens.
        beta: scale of the reward, about 2 in the paper. Not a tie to a reference:
            higher makes a given margin count for more, so that the policy moves *less*
            to be content.
        gamma: margin by which the chosen reward has to lead, at least 0; higher pushes
            the two further apart.

    Raises:
        ValueError: if beta is not positive, gamma is negative, the shapes differ, a
            number is not finite, or there is no pair.

    Source: Meng et al. (2024), eq. 6. The same as `loss_type="simpo"` of
    `trl.experimental.cpo` with `cpo_alpha=0`.
    """
    _require_positive(beta=beta)
    _require_at_least_zero(gamma=gamma)
    _require_same_finite_vectors(
        policy_chosen=policy_chosen, policy_rejected=policy_rejected
    )
    return -F.logsigmoid(beta * (policy_chosen - policy_rejected) - gamma)


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
    pairs. One loss a completion, between 0 and its weight.

    .. math:: \lambda_D \, [1 - \sigma(\beta (\rho - z))] \ \text{if desirable, else}\
        \lambda_U \, [1 - \sigma(\beta (z - \rho))], \quad
        \rho = \log \pi - \log \pi_\mathrm{ref}

    It saturates on both sides: a completion far from the reference point z, in order or
    hopeless, hardly pulls. So wrong labels cost less than with DPO.

    Args:
        policy, reference: log-probabilities of each completion, summed over its tokens.
        desirable: True for a good one.
        kl: the reference point z in nats, one number for the batch: an estimate of
            KL(policy || reference). It gets no gradient, and below 0 counts as 0.
        beta: higher keeps closer to the reference.
        desirable_weight, undesirable_weight: λ_D and λ_U; raise the weight of the rarer
            kind until the two sums are alike.

    Raises:
        ValueError: if beta or a weight is not positive, the shapes differ, a number is
            not finite, or there is no completion.

    Source: Ethayarajh et al. (2024), section 4. The same as `trl.KTOTrainer`.
    """
    _require_positive(
        beta=beta,
        desirable_weight=desirable_weight,
        undesirable_weight=undesirable_weight,
    )
    _require_same_finite_vectors(policy=policy, reference=reference)
    if desirable.shape != policy.shape or desirable.dtype != torch.bool:
        raise ValueError(
            f"desirable has shape {tuple(desirable.shape)} and type {desirable.dtype}: "
            f"expected one truth value for each of the {len(policy)} completions"
        )
    ahead = policy - reference - kl.detach().clamp(min=0)  # (B,)
    good = desirable_weight * (1 - torch.sigmoid(beta * ahead))
    bad = undesirable_weight * (1 - torch.sigmoid(-beta * ahead))
    return torch.where(desirable, good, bad)


def _loss_at(margin: Tensor, beta: float, loss_type: str, smoothing: float) -> Tensor:
    if loss_type in ("ipo", "ipo_norm"):
        return (margin - 1 / (2 * beta)).square()
    if loss_type == "hinge":
        return (1 - beta * margin).relu()
    if loss_type == "unweighted":
        return -beta * margin
    as_labelled = -F.logsigmoid(beta * margin)
    if not smoothing:
        return as_labelled
    the_other_way = -F.logsigmoid(-beta * margin)
    right, wrong = 1 - smoothing, smoothing
    if loss_type == "robust":
        return (right * as_labelled - wrong * the_other_way) / (right - wrong)
    return right * as_labelled + wrong * the_other_way


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


def _counts(name: str, tokens: Tensor | None, like: Tensor) -> Tensor:
    if tokens is None or tokens.shape != like.shape or not (tokens > 0).all():
        given = None if tokens is None else tokens.tolist()
        raise ValueError(
            f"{name} is {given}: a loss type that ends in _norm needs the number of "
            f"tokens of each of the {len(like)} completions, at least 1"
        )
    return tokens


def _require_dpo_dials(beta, loss_type, label_smoothing, penalty) -> None:
    if loss_type not in DpoLossType.__args__:
        raise ValueError(
            f"loss_type is {loss_type!r}; it can be one of {DpoLossType.__args__}"
        )
    _require_positive(beta=beta)
    _require_at_least_zero(penalty=penalty)
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(
            f"label_smoothing is {label_smoothing}; it is a rate of wrong labels, "
            "at least 0 and less than 0.5"
        )
    if label_smoothing and loss_type not in SMOOTHED:
        raise ValueError(
            f"label_smoothing is {label_smoothing}, which loss_type {loss_type!r} does "
            f"not know of: leave it at 0, or take one of {SMOOTHED}"
        )


def _require_positive(**dials: float) -> None:
    for name, value in dials.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} is {value}; it must be greater than 0 and finite")


def _require_at_least_zero(**dials: float) -> None:
    for name, value in dials.items():
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


def _require_same_finite_vectors(**vectors: Tensor) -> None:
    shapes = {name: tuple(vector.shape) for name, vector in vectors.items()}
    if len(set(shapes.values())) > 1 or len(next(iter(shapes.values()))) != 1:
        given = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(
            f"shapes are {given}: expected one number per completion in each"
        )
    for name, vector in vectors.items():
        if not len(vector):
            raise ValueError(f"{name} holds no completion")
        if not torch.isfinite(vector).all():
            place = (~torch.isfinite(vector)).nonzero()[0].item()
            raise ValueError(
                f"{name}[{place}] is {vector[place].item()}; log-probabilities must be "
                "finite numbers"
            )
