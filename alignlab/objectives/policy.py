"""What PPO optimises: the KL that ties a policy to its reference, advantages, the two
clipped losses, and the diagnostics of an update. Everything is (batch, time) over the
tokens of completions, with a mask that is 1 on real tokens; padding never counts.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

KlEstimator = Literal["k1", "k2", "k3"]
Mask = Bool[Tensor, "batch time"] | Int[Tensor, "batch time"]
EPSILON = 1e-8  # under the root of a variance, as in lm-human-preferences
GRPO_EPSILON = 1e-4  # beside a standard deviation of rewards, as in TRL and verl
ADAPTIVE_CLIP = 0.2  # an error of more than a fifth of the target counts as a fifth


# --- How far the policy is from its reference --------------------------------------


def kl_estimate(
    log_probs: Float[Tensor, "*shape"],
    ref_log_probs: Float[Tensor, "*shape"],
    estimator: KlEstimator = "k1",
) -> Float[Tensor, "*shape"]:
    r"""KL(policy ‖ reference) estimated at each sampled token, in nats.

    With :math:`d = \log \pi - \log \pi_\mathrm{ref}` of a token drawn from the policy:

    .. math:: k_1 = d, \qquad k_2 = d^2 / 2, \qquad k_3 = e^{-d} - 1 + d

    As a *value*, k1 and k3 have the KL as their mean, and k2 is slightly biased where
    the two are close; k2 and k3 are never negative and vary far less. The *gradient* is
    different, because the policy also decides which tokens are drawn:

    ========  ======================  ==============================
    \         in the reward           as a loss, differentiated
    ========  ======================  ==============================
    k1        the gradient of the KL  0 on average
    k2        wrong                   the gradient of the KL
    k3        wrong                   that of KL(reference ‖ policy)
    ========  ======================  ==============================

    Args:
        log_probs: of the sampled tokens under the policy.
        ref_log_probs: of the same tokens under the reference.
        estimator: "k1", "k2" or "k3".

    Raises:
        ValueError: if the shapes differ or the estimator is unknown.

    Source: Schulman (2020), "Approximating KL divergence"; on gradients Liu et al.
    (2025), "Rethinking KL regularization in RLHF".
    """
    _require_same_shape(log_probs=log_probs, ref_log_probs=ref_log_probs)
    difference = log_probs - ref_log_probs
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return 0.5 * difference.square()
    if estimator == "k3":
        return torch.expm1(-difference) + difference
    raise ValueError(f'estimator is {estimator!r}; it can be "k1", "k2" or "k3"')


def exact_kl(
    logits: Float[Tensor, "*shape vocab"], ref_logits: Float[Tensor, "*shape vocab"]
) -> Float[Tensor, "*shape"]:
    r"""KL(policy ‖ reference) of the next token, summed over the vocabulary, in nats.

    .. math:: \sum_v \pi(v) \, (\log \pi(v) - \log \pi_\mathrm{ref}(v))

    It has no sampling noise. Summed over a sampled completion's tokens it estimates the
    KL of whole completions, unbiased and with less variance than k1.

    Raises:
        ValueError: if the shapes differ.
    """
    _require_same_shape(logits=logits, ref_logits=ref_logits)
    return kl_of(_log_softmax(logits), _log_softmax(ref_logits))


def kl_of(
    log_p: Float[Tensor, "*shape vocab"], log_q: Float[Tensor, "*shape vocab"]
) -> Float[Tensor, "*shape"]:
    """:func:`exact_kl` of log-probabilities."""
    # A token that cannot come adds 0, also where the reference cannot give it either.
    difference = (log_p - log_q).masked_fill(log_p == -torch.inf, 0)
    return (log_p.exp() * difference).sum(dim=-1)


def entropy(logits: Float[Tensor, "*shape vocab"]) -> Float[Tensor, "*shape"]:
    r"""Entropy of the next token, :math:`-\sum_v \pi(v) \log \pi(v)`, in nats: 0 if one
    token is certain, log(vocabulary size) if all are equally likely."""
    return entropy_of(_log_softmax(logits))


def entropy_of(log_p: Float[Tensor, "*shape vocab"]) -> Float[Tensor, "*shape"]:
    """:func:`entropy` of log-probabilities."""
    # A token that cannot come adds 0; exp(-inf) * -inf would be NaN.
    return -(log_p.exp() * log_p.masked_fill(log_p == -torch.inf, 0)).sum(dim=-1)


def entropy_and_kl(
    log_p: Float[Tensor, "*shape vocab"], log_q: Float[Tensor, "*shape vocab"]
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """:func:`entropy_of` and :func:`kl_of` at once, in a third of the time."""
    p = log_p.exp()
    entropies = -torch.linalg.vecdot(p, log_p)
    kls = torch.linalg.vecdot(p, log_p - log_q)
    if kls.isnan().any() or entropies.isnan().any():  # a token that cannot come
        return entropy_of(log_p), kl_of(log_p, log_q)
    return entropies, kls


def adaptive_kl_coef(
    kl_coef: float, kl: float, *, target: float, horizon: float, episodes: int
) -> float:
    r"""The KL coefficient after an update that measured ``kl``.

    .. math:: \beta \big(1 + \mathrm{clip}(\mathrm{KL} / \mathrm{target} - 1,
        -0.2, 0.2) \; n / \mathrm{horizon}\big)

    It grows while the KL is above its target and shrinks while the KL is below, by at
    most a fifth per ``horizon`` episodes.

    Args:
        kl_coef: the coefficient that the update used.
        kl: mean KL of a completion, in nats.
        target: the KL to hold, in nats; higher lets the policy move further away.
        horizon: episodes over which the coefficient may change by a fifth; higher
            reacts more slowly.
        episodes: in the update.

    Raises:
        ValueError: if target or horizon is not positive.

    Source: Ziegler et al. (2019), section 2.2.
    """
    if not target > 0 or not horizon > 0:
        raise ValueError(f"target is {target} and horizon {horizon}; both must be > 0")
    error = min(max(kl / target - 1, -ADAPTIVE_CLIP), ADAPTIVE_CLIP)
    return kl_coef * (1 + error * episodes / horizon)


# --- How much better a token did than expected -------------------------------------


def generalized_advantage_estimate(
    rewards: Float[Tensor, "batch time"],
    values: Float[Tensor, "batch time"],
    mask: Mask,
    gamma: float = 1.0,
    lam: float = 0.95,
) -> tuple[Float[Tensor, "batch time"], Float[Tensor, "batch time"]]:
    r"""Advantage and return of each token, in units of reward.

    .. math:: \delta_t = r_t + \gamma V_{t+1} - V_t, \qquad
        A_t = \delta_t + \gamma\lambda A_{t+1}, \qquad R_t = A_t + V_t

    A completion is an episode that ends with its last real token, so the value after it
    is 0, also where the completion was cut at the maximum length.

    Args:
        rewards: what each token earned.
        values: the return expected before each token was chosen.
        mask: 1 on real tokens, which are contiguous in each row; padding may be on
            either side.
        gamma: discount per token. Lower weighs later rewards less; 1 does not discount,
            so that a reward at the end counts in full for the first token.
        lam: 1 uses the rewards that came, minus the value (no bias, more variance); 0
            relies on the next token's value (bias, less variance).

    Returns:
        ``(advantages, returns)``, 0 on padding. Returns are the values' targets.

    Raises:
        ValueError: if the shapes differ, or gamma or lam is outside [0, 1].

    Source: Schulman et al. (2016), eq. 16.
    """
    _require_same_shape(rewards=rewards, values=values, mask=mask)
    if not 0 <= gamma <= 1 or not 0 <= lam <= 1:
        raise ValueError(f"gamma is {gamma} and lam {lam}; both are between 0 and 1")
    real = mask.bool()
    rewards, values = _without_padding(mask, rewards, values)
    steps = zip(
        rewards.flip(1).unbind(1),
        values.flip(1).unbind(1),
        real.flip(1).unbind(1),
        strict=True,
    )
    advantage = next_value = rewards.new_zeros(len(rewards))
    advantages = []
    for reward, value, is_real in steps:  # from the last token to the first
        delta = reward + gamma * next_value - value
        advantage = (delta + gamma * lam * advantage) * is_real
        next_value = value
        advantages.append(advantage)
    advantages = torch.stack(advantages[::-1], dim=1)  # (B, T)
    return advantages, advantages + values


def rloo_advantages(
    scores: Float[Tensor, "completions"], completions_per_prompt: int
) -> Float[Tensor, "completions"]:
    r"""Each score minus the mean score of its prompt's other completions.

    .. math:: A_i = r_i - \frac{1}{k - 1} \sum_{j \ne i} r_j

    The baseline does not depend on the completion, so the policy gradient stays
    unbiased; no value function is needed.

    Args:
        scores: in units of reward; the k completions of a prompt stand together.
        completions_per_prompt: k; more make a better baseline of each prompt, and leave
            fewer prompts for the same number of completions.

    Raises:
        ValueError: if there are fewer than 2 completions per prompt, or the scores are
            no whole number of prompts.

    Source: Kool et al. (2019); Ahmadian et al. (2024), "Back to basics", eq. 7.
    """
    groups = _by_prompt(scores, completions_per_prompt)
    centred = groups - groups.mean(dim=1, keepdim=True)
    return (centred * completions_per_prompt / (completions_per_prompt - 1)).flatten()


def grpo_advantages(
    scores: Float[Tensor, "completions"],
    completions_per_prompt: int,
    scale_rewards: bool = True,
) -> Float[Tensor, "completions"]:
    r"""Each score compared with all completions of its prompt.

    .. math:: A_i = \frac{r_i - \mathrm{mean}(r)}{\mathrm{std}(r) + 10^{-4}}

    Args:
        scores, completions_per_prompt: see :func:`rloo_advantages`.
        scale_rewards: True divides by the standard deviation, as GRPO does. Every
            prompt then pulls equally hard, which is a bias: those on which nearly all
            completions are good, or nearly all bad, count for more than their rewards
            say. False only subtracts the mean.

    Raises:
        ValueError: as :func:`rloo_advantages`.

    Source: Shao et al. (2024), "DeepSeekMath", section 4.1; on the bias Liu et al.
    (2025), "Understanding R1-Zero-like training".
    """
    groups = _by_prompt(scores, completions_per_prompt)
    centred = groups - groups.mean(dim=1, keepdim=True)
    if scale_rewards:
        centred = centred / (groups.std(dim=1, keepdim=True) + GRPO_EPSILON)
    return centred.flatten()


def _by_prompt(scores: Tensor, k: int) -> Float[Tensor, "prompts k"]:
    if k < 2 or scores.ndim != 1 or len(scores) % k:
        raise ValueError(
            f"scores have shape {tuple(scores.shape)} with {k} completions per prompt: "
            "expected at least 2 per prompt, and all of each prompt's"
        )
    return scores.view(-1, k)


def whiten(
    values: Float[Tensor, "batch time"], mask: Mask, shift_mean: bool = True
) -> Float[Tensor, "batch time"]:
    """Values scaled to variance 1 over the real tokens; 0 on padding.

    Args:
        shift_mean: also shift their mean to 0; False keeps the mean, as for rewards,
            whose sign matters.

    Raises:
        ValueError: if the shapes differ or there is no real token.

    Source: Ziegler et al. (2019), the code of lm-human-preferences.
    """
    mean = masked_mean(values, mask)
    variance = masked_mean((values - mean).square(), mask)
    whitened = (values - mean) * torch.rsqrt(variance + EPSILON)
    if not shift_mean:
        whitened = whitened + mean
    return whitened.masked_fill(~mask.bool(), 0)


# --- The two losses ----------------------------------------------------------------


def ppo_policy_loss(
    log_probs: Float[Tensor, "batch time"],
    old_log_probs: Float[Tensor, "batch time"],
    advantages: Float[Tensor, "batch time"],
    mask: Mask,
    clip_range: float = 0.2,
    clip_range_high: float | None = None,
) -> Float[Tensor, ""]:
    r"""PPO's clipped objective, negated: mean over the real tokens.

    .. math:: -\min\big(\rho A, \; \mathrm{clip}(\rho, 1-\epsilon, 1+\epsilon_h) A\big),
        \qquad \rho = \pi(a) / \pi_\mathrm{old}(a)

    A good token that is already ``clip_range`` likelier pulls no further; nor does a
    bad one that is as much less likely.

    Args:
        log_probs: of the sampled tokens, under the policy being trained.
        old_log_probs: the same at the time of sampling; they get no gradient.
        advantages: see :func:`generalized_advantage_estimate`.
        mask: 1 on real tokens.
        clip_range: how far a token's probability may move in one update, as a share.
            Lower is more careful; infinity does not clip.
        clip_range_high: how far it may rise, where that is not the same. Higher lets
            unlikely tokens rise sooner, which keeps entropy up.

    Raises:
        ValueError: if the shapes differ, there is no real token, or a clip range is not
            positive.

    Source: Schulman et al. (2017), eq. 7; clip_range_high from Yu et al. (2025, DAPO),
    section 3.1.
    """
    _require_same_shape(
        log_probs=log_probs,
        old_log_probs=old_log_probs,
        advantages=advantages,
        mask=mask,
    )
    high = clip_range if clip_range_high is None else clip_range_high
    for name, value in (("clip_range", clip_range), ("clip_range_high", high)):
        if not value > 0:
            raise ValueError(f"{name} is {value}; it must be positive")
    log_probs, old_log_probs, advantages = _without_padding(
        mask, log_probs, old_log_probs, advantages
    )
    ratio = (log_probs - old_log_probs).exp()
    clipped = ratio.clamp(1 - clip_range, 1 + high)
    return masked_mean(-torch.minimum(ratio * advantages, clipped * advantages), mask)


def ppo_value_loss(
    values: Float[Tensor, "batch time"],
    old_values: Float[Tensor, "batch time"],
    returns: Float[Tensor, "batch time"],
    mask: Mask,
    clip_range: float | None = 0.2,
) -> Float[Tensor, ""]:
    r"""Half the squared error of the values, clipped: mean over the real tokens.

    .. math:: \tfrac12 \max\big((V - R)^2, \;
        (\mathrm{clip}(V, V_\mathrm{old} \pm \epsilon) - R)^2\big)

    Args:
        values: of the value function now.
        old_values: of the value function at the time of sampling.
        returns: the targets.
        mask: 1 on real tokens.
        clip_range: how far a value may move in one update, in units of reward; lower is
            more careful. It is an absolute number: 0.2 is little for rewards of 10 and
            more. None does not clip.

    Raises:
        ValueError: if the shapes differ, there is no real token, or clip_range is not
            positive.

    Source: the code of OpenAI baselines (ppo2) and lm-human-preferences; Huang et al.
    (2024), "The N+ implementation details of RLHF with PPO".
    """
    _require_same_shape(
        values=values, old_values=old_values, returns=returns, mask=mask
    )
    values, old_values, returns = _without_padding(mask, values, old_values, returns)
    error = (values - returns).square()
    if clip_range is not None:
        if not clip_range > 0:
            raise ValueError(f"clip_range is {clip_range}; it must be positive or None")
        near = old_values + (values - old_values).clamp(-clip_range, clip_range)
        error = torch.maximum(error, (near - returns).square())
    return 0.5 * masked_mean(error, mask)


# --- Diagnostics -------------------------------------------------------------------


def ppo_diagnostics(
    log_probs: Float[Tensor, "batch time"],
    old_log_probs: Float[Tensor, "batch time"],
    advantages: Float[Tensor, "batch time"],
    mask: Mask,
    clip_range: float = 0.2,
    clip_range_high: float | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """How far this update has moved the policy, as means over the real tokens.

    - "approx_kl": KL(old policy ‖ policy) in nats per token, by k3 with the two roles
      swapped, because the old policy sampled the tokens. 0.001 to 0.02 is healthy.
    - "clip_fraction": share of tokens whose gradient is stopped by clipping.
    - "ratio": mean of policy over old policy. It stays near 1; where it drifts, the
      probabilities of a few tokens have exploded.

    Args: as for :func:`ppo_policy_loss`.
    """
    log_probs, old_log_probs, advantages = _without_padding(
        mask, log_probs, old_log_probs, advantages
    )
    ratio = (log_probs - old_log_probs).exp()
    approx_kl = kl_estimate(old_log_probs, log_probs, "k3")
    high = clip_range if clip_range_high is None else clip_range_high
    stopped = ((advantages > 0) & (ratio > 1 + high)) | (
        (advantages < 0) & (ratio < 1 - clip_range)
    )
    return {
        "approx_kl": masked_mean(approx_kl, mask),
        "clip_fraction": masked_mean(stopped.to(ratio.dtype), mask),
        "ratio": masked_mean(ratio, mask),
    }


def explained_variance(
    values: Float[Tensor, "batch time"],
    returns: Float[Tensor, "batch time"],
    mask: Mask,
) -> Float[Tensor, ""]:
    r"""Share of the returns' variance that the values predict, over the real tokens.

    .. math:: 1 - \mathrm{Var}(R - V) / \mathrm{Var}(R)

    1 is a perfect value function, 0 is as good as a constant, below 0 is worse than
    that. It is NaN where the returns do not vary.
    """
    unexplained, total = _variance(returns - values, mask), _variance(returns, mask)
    rounding = EPSILON**1.5 * masked_mean(returns.square(), mask)
    return torch.where(total > rounding, 1 - unexplained / total, torch.nan)


def masked_mean(values: Float[Tensor, "*shape"], mask: Tensor) -> Float[Tensor, ""]:
    """Mean where the mask is 1; everything else, even NaN, has no influence and gets no
    gradient.

    Raises:
        ValueError: if the shapes differ or the mask is 0 everywhere.
    """
    _require_same_shape(values=values, mask=mask)
    real = mask.bool()
    count = real.sum()
    if count == 0:
        raise ValueError(f"mask of shape {tuple(mask.shape)} has no real token")
    return values.masked_fill(~real, 0).sum() / count


def _variance(values: Tensor, mask: Tensor) -> Tensor:
    return masked_mean((values - masked_mean(values, mask)).square(), mask)


def _without_padding(mask: Tensor, *tensors: Tensor) -> list[Tensor]:
    # A masked mean alone is not enough: a NaN times its gradient of 0 is NaN.
    padding = ~mask.bool()
    return [tensor.masked_fill(padding, 0) for tensor in tensors]


def _log_softmax(logits: Tensor) -> Tensor:
    # At least float32: probabilities of rare tokens need more than bfloat16's digits.
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def _require_same_shape(**tensors: Tensor) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        given = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"shapes are {given}: they must agree")
