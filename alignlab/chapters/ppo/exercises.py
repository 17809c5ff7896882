"""Exercises of notebook 04: advantages, the losses of policy and values, an estimate
of KL."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from alignlab.course.exercise import (
    Case,
    Exercise,
    gradient_fault,
    normal,
    scalar,
    tensor,
    told_apart,
)

if TYPE_CHECKING:
    from torch import Tensor


PADDED, ALONE = "rows of unequal length", "a batch of one row"


def _ends_at(lengths: list[int], time: int) -> "Tensor":
    """A mask (B, T) of ones up to each row's length."""
    import torch

    return (torch.arange(time) < torch.tensor(lengths)[:, None]).long()


# --- 04.1: generalised advantage estimation ---------------------------------------


def _gae_cases() -> list[Case]:
    """Rows of unequal length; what stands in the padding is not 0."""
    from alignlab.objectives import generalized_advantage_estimate

    cases = []
    for seed, lengths, time, gamma, lam, about in (
        (0, [6, 3, 5], 6, 1.0, 0.95, PADDED),
        (1, [4, 7], 7, 0.9, 0.6, PADDED),
        (2, [5], 5, 1.0, 0.0, ALONE),
        (3, [2, 8, 1], 8, 0.97, 1.0, "λ = 1"),
        (4, [4], 4, 0.9, 0.8, ALONE),
    ):
        rewards, values = normal(seed, 2, len(lengths), time)
        args = dict(rewards=rewards, values=values, mask=_ends_at(lengths, time))
        args |= dict(gamma=gamma, lam=lam)
        advantages, _ = generalized_advantage_estimate(**args)
        cases.append(Case(args, advantages, about))
    return cases


def _read_gae(output, rewards, values, mask, gamma, lam) -> "Tensor":
    shape = tuple(rewards.shape)
    notes = {
        (2, *shape): "returns several things: return the advantages alone",
        shape[:1]: "one number a row: every token has an advantage of its own",
        (shape[0], shape[1] - 1): "one column too few: the last token has an advantage "
        "as well; behind it the value is 0",
    }
    # Values in the padding do not matter, unless they are NaN or infinite.
    return tensor(output, shape, notes).where(mask.bool(), 0.0)


def _gae_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    rewards, values, mask, gamma, lam = case.args.values()
    real = mask.double()

    def gae(rewards=rewards, values=values, gamma=gamma, lam=lam, ends=real, keep=real):
        """With what is wrong passed in. Where ``ends`` is 0 nothing is carried on from
        there; where ``keep`` is 0 the result does not count."""
        advantage = following = torch.zeros_like(rewards[:, 0])
        advantages = []
        for t in reversed(range(rewards.shape[1])):
            here, value = ends[:, t], values[:, t]
            advantage = here * (
                rewards[:, t] + gamma * following - value + gamma * lam * advantage
            )
            following = here * value
            advantages.append(advantage)
        return torch.stack(advantages[::-1], dim=1) * keep

    before = values.roll(1, dims=1)
    before[:, 0] = 0
    flipped = [x.flip(1) for x in (rewards, values, real)]
    forward = gae(*flipped[:2], ends=flipped[2], keep=flipped[2]).flip(1)
    last = values[:, -1]
    bootstrapped = gae(rewards=torch.cat([rewards[:, :-1], (
        rewards[:, -1] + gamma * last)[:, None]], dim=1))  # fmt: skip
    delta = rewards + gamma * torch.cat(
        [(values * real)[:, 1:], torch.zeros_like(values[:, :1])], dim=1
    )
    behind = torch.zeros_like(values[:, :1])
    onward = rewards + gamma * torch.cat([values[:, 1:], behind], dim=1)
    next_real = real.roll(-1, dims=1)
    next_real[:, -1] = 0
    mistakes = {
        "padding counts: a row is over after its last real token; there the value is "
        "0, and no advantage comes from behind": [
            gae(ends=torch.ones_like(real)),
            gae(ends=torch.ones_like(real), values=values * real),
            gae(ends=torch.ones_like(real), rewards=rewards * real),
            _backwards((onward - values) * real, real, gamma * lam),
        ],
        "no value of what follows: δ is r + γ V(next) - V": [
            gae(values=torch.zeros_like(values)) - _discounted(values, real, gamma, lam)
        ],
        "no baseline: the token's own value has to come off": [
            _backwards(delta * real, real, gamma * lam)
        ],
        "these are returns: the advantage is what is left when the value is taken "
        "off": [(gae() + values) * real],
        "λ left out: the sum of later δ shrinks by γλ a step": [gae(lam=1.0)],
        "γ left out: it discounts the next value, and shrinks the sum together with "
        "λ": [gae(gamma=1.0)],
        "γ and λ exchanged: γ discounts the next value, λ only what is summed up": [
            gae(gamma=lam, lam=gamma)
        ],
        "runs forwards: the last token's advantage comes first, and is carried back": [
            forward
        ],
        "one step only: that is δ, the case of λ = 0": [gae(lam=0.0)],
        "sign flipped: better than expected is positive": [-gae()],
        "the value before in place of the next one": [
            _backwards((rewards + gamma * before - values) * real, real, gamma * lam)
        ],
        "goes on after the end: behind a row's last column the value is 0, not its "
        "own again": [bootstrapped],
        "zeros everywhere: then nothing is learnt": [torch.zeros_like(rewards)],
        "whitened already: mean 0 and variance 1 come later": [
            _whitened(case.expected, real),
            (case.expected - (case.expected * real).sum() / real.sum()) * real,
        ],
        "γ + λ in place of γλ: the sum of later δ shrinks by their product": [
            _backwards(delta * real - values * real, real, gamma + lam),
        ],
        "γ only once: it discounts the next value, and shrinks the sum as well": [
            _backwards(delta * real - values * real, real, lam)
        ],
        "the reward of the token after: δ has its own": [
            _backwards(
                (rewards.roll(-1, 1) * next_real - rewards + delta - values) * real,
                real,
                gamma * lam,
            )
        ],
        "the reward less the value: what follows is left out altogether": [
            (rewards - values) * real
        ],
        "the rewards themselves: the value of what follows, less its own, is added": [
            rewards * real,
            _backwards(rewards * real, real, gamma),
        ],
    }
    return told_apart(mistakes, case)


def _whitened(advantages: "Tensor", real: "Tensor") -> "Tensor":
    from alignlab.objectives import whiten

    return whiten(advantages, real) * real


def _backwards(terms: "Tensor", real: "Tensor", factor: float) -> "Tensor":
    """Each term and, by powers of the factor, those behind it in its row."""
    import torch

    running, sums = torch.zeros_like(terms[:, 0]), []
    for t in reversed(range(terms.shape[1])):
        running = (terms[:, t] + factor * running) * real[:, t]
        sums.append(running)
    return torch.stack(sums[::-1], dim=1)


def _discounted(values: "Tensor", real: "Tensor", gamma: float, lam: float):
    return _backwards(values * real, real, gamma * lam)


# --- 04.2: the clipped loss -------------------------------------------------------


def _clip_cases() -> list[Case]:
    """Ratios on both sides of the range, of good tokens and of bad ones."""
    from alignlab.objectives import ppo_policy_loss

    cases = []
    for seed, lengths, time, clip_range, spread, about in (
        (0, [6, 3, 5], 6, 0.2, 0.4, PADDED),
        (1, [4, 7], 7, 0.1, 0.2, PADDED),
        (2, [9, 8, 2, 5], 9, 0.3, 0.8, PADDED),
        (3, [7], 7, 0.2, 0.4, ALONE),
    ):
        old, advantages, moved = normal(seed, 3, len(lengths), time)
        old = -old.abs() - 1
        args = dict(log_probs=old + spread * moved, old_log_probs=old)
        args |= dict(advantages=advantages + 0.3, mask=_ends_at(lengths, time))
        args |= dict(clip_range=clip_range)
        cases.append(Case(args, ppo_policy_loss(**args), about))
    return cases


def _read_clip(output, log_probs, **others) -> "Tensor":
    shapes = [tuple(log_probs.shape), (len(log_probs),), (1,)]
    return scalar(output, shapes, "take the mean over the real tokens")


def _clip_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    log_probs, old, advantages, mask, clip_range = case.args.values()
    real = mask.bool()

    def loss(ratio, pick=torch.minimum, where=real, advantages=advantages):
        near = ratio.clamp(1 - clip_range, 1 + clip_range)
        return -pick(ratio * advantages, near * advantages)[where].mean()

    ratio, right = (log_probs - old).exp(), case.expected
    near = ratio.clamp(1 - clip_range, 1 + clip_range)
    each = -torch.minimum(ratio * advantages, near * advantages) * real
    mistakes = {
        "sign flipped: a loss goes down as the objective goes up": [-right],
        "maximum, not minimum: the pessimistic one of the two counts": [
            loss(ratio, torch.maximum)
        ],
        "not clipped: beyond the range a token has no more to gain": [
            -(ratio * advantages)[real].mean()
        ],
        "clipped only: where a token went the wrong way, the plain objective is lower "
        "and has to pull it back": [-(near * advantages)[real].mean()],
        "old over new: the ratio is the probability now over that when sampled": [
            loss((old - log_probs).exp())
        ],
        "no exponential: the difference of log-probabilities is no ratio": [
            loss(log_probs - old),
            loss(1 + log_probs - old),
        ],
        "ratio of log-probabilities: subtract them, then take the exponential": [
            loss(log_probs / old)
        ],
        "padding counts: the mean is over real tokens": [
            loss(ratio, where=torch.ones_like(real)),
            each.mean(),
        ],
        "mean of row means: every token counts the same, also in a long reply": [
            (each.sum(1) / real.sum(1)).mean()
        ],
        "sum, not mean: divide by the number of real tokens": [each.sum()],
        "divides by the number of rows: divide by the number of real tokens": [
            each.sum(1).mean()
        ],
        "clips the advantage: it is the ratio that is kept near 1": [
            -(ratio * advantages.clamp(-clip_range, clip_range))[real].mean(),
            -(ratio * advantages.clamp(1 - clip_range, 1 + clip_range))[real].mean(),
        ],
        "clips around 0: the ratio is kept between 1 - ε and 1 + ε": [
            -torch.minimum(
                ratio * advantages, ratio.clamp(-clip_range, clip_range) * advantages
            )[real].mean()
        ],
        "zero: nothing can be learnt": [torch.zeros_like(right)],
        "one side only: the ratio is kept between 1 - ε and 1 + ε": [
            loss(ratio, lambda plain, _: torch.minimum(
                plain, ratio.clamp(max=1 + clip_range) * advantages)),
            loss(ratio, lambda plain, _: torch.minimum(
                plain, ratio.clamp(min=1 - clip_range) * advantages)),
        ],
        "clipped at 1 on one side: the ratio is kept between 1 - ε and 1 + ε": [
            loss(ratio, lambda plain, _: torch.minimum(
                plain, ratio.clamp(1 - clip_range, 1) * advantages)),
            loss(ratio, lambda plain, _: torch.minimum(
                plain, ratio.clamp(1, 1 + clip_range) * advantages)),
        ],
        "the advantages are not used: they say which tokens were good": [
            -torch.minimum(ratio, near)[real].mean(), -ratio[real].mean(),
            -near[real].mean(),
        ],
        "absolute advantages: a bad token is to become less likely": [
            loss(ratio, advantages=advantages.abs())
        ],
        "the smaller ratio, not the smaller product: with a bad token it is the other "
        "one": [-(torch.minimum(ratio, near) * advantages)[real].mean()],
        "log-probabilities are clipped, not their ratio": [
            loss((log_probs - old).clamp(-clip_range, clip_range).exp())
        ],
        "whitened advantages: take them as they are": [
            loss(ratio, advantages=_whitened(advantages, real.double())),
            loss(ratio, advantages=(advantages - advantages.mean()) / advantages.std()),
        ],
        "the plain policy gradient: the ratio is left out": [
            -(log_probs * advantages)[real].mean()
        ],
        "the product's parts are averaged by themselves": [
            -ratio[real].mean() * advantages[real].mean()
        ],
        "the range is ε in all, not ε on either side": [
            _clipped_by(case, clip_range / 2)
        ],
        "the range is twice ε on either side": [_clipped_by(case, 2 * clip_range)],
        "0.2, whatever the range: take clip_range": [_clipped_by(case, 0.2)],
    }  # fmt: skip
    return told_apart(mistakes, case)


def _clipped_by(case: Case, clip_range: float) -> "Tensor":
    from alignlab.objectives import ppo_policy_loss

    return ppo_policy_loss(**case.args | dict(clip_range=clip_range))


def _clip_teaches(answer: Callable) -> str:
    from alignlab.objectives import ppo_policy_loss

    return gradient_fault(answer, ppo_policy_loss, _clip_cases(), ["log_probs"])


# --- 04.3: the value loss ---------------------------------------------------------


def _value_cases() -> list[Case]:
    """Values that have moved by less than the clip range, and by more."""
    from alignlab.objectives import ppo_value_loss

    cases = []
    for seed, lengths, time, clip_range, spread, about in (
        (0, [6, 3, 5], 6, 0.2, 0.4, PADDED),
        (1, [4, 7], 7, 0.5, 0.6, PADDED),
        (2, [9, 8, 2, 5], 9, 0.1, 0.3, PADDED),
        (3, [6], 6, 0.2, 0.4, ALONE),
    ):
        old, returns, moved = normal(seed, 3, len(lengths), time)
        args = dict(values=old + spread * moved, old_values=old, returns=returns)
        args |= dict(mask=_ends_at(lengths, time), clip_range=clip_range)
        cases.append(Case(args, ppo_value_loss(**args), about))
    return cases


def _read_value(output, values, **others) -> "Tensor":
    shapes = [tuple(values.shape), (len(values),), (1,)]
    return scalar(output, shapes, "take the mean over the real tokens")


def _value_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    values, old, returns, mask, clip_range = case.args.values()
    real = mask.bool()
    near = old + (values - old).clamp(-clip_range, clip_range)
    plain, held = (values - returns).square(), (near - returns).square()
    around_0 = (values.clamp(-clip_range, clip_range) - returns).square()
    each = torch.maximum(plain, held) * real
    right = case.expected

    moved = (returns - old).clamp(-clip_range, clip_range)
    held_back = (values - old - moved).square()

    def larger(near) -> "Tensor":
        return torch.maximum(plain, (near - returns).square())[real].mean() / 2

    mistakes = {
        "half forgotten: the loss is half the squared error": [2 * right],
        "sign flipped: an error is to become smaller": [-right],
        "minimum, not maximum: the larger of the two errors counts": [
            torch.minimum(plain, held)[real].mean() / 2
        ],
        "not clipped: a value counts as if it had moved by the clip range at most": [
            plain[real].mean() / 2
        ],
        "clipped only: where the plain error is larger it counts": [
            held[real].mean() / 2
        ],
        "clips around 0: a value is kept near the old value": [
            torch.maximum(plain, around_0)[real].mean() / 2
        ],
        "not squared: half the squared error": [
            torch.maximum((values - returns).abs(), (near - returns).abs())[real].mean()
            / 2
        ],
        "old values in place of returns: it is the returns that are to be predicted": [
            (values - old).square()[real].mean() / 2
        ],
        "padding counts: the mean is over real tokens": [
            torch.maximum(plain, held).mean() / 2,
            each.mean() / 2,
        ],
        "mean of row means: every token counts the same, also in a long reply": [
            (each.sum(1) / real.sum(1)).mean() / 2,
            (each.sum(1) / real.sum(1)).sum() / 2,
        ],
        "Huber's loss: an error is squared, whatever its size": [
            torch.nn.functional.smooth_l1_loss(values[real], returns[real])
        ],
        "sum, not mean: divide by the number of real tokens": [each.sum() / 2],
        "zero: nothing can be learnt": [torch.zeros_like(right)],
        "divides by the number of rows: divide by the number of real tokens": [
            each.sum(1).mean() / 2
        ],
        "the root of it: half the squared error, without a root": [
            (2 * right).sqrt(),
            right.sqrt(),
        ],
        "both errors added: the larger of the two counts": [
            (plain + held)[real].mean() / 2,
            (plain + held)[real].mean() / 4,
        ],
        "clips by a factor: the value may move by ε, not by a share of itself": [
            larger(old * (values / old).clamp(1 - clip_range, 1 + clip_range))
        ],
        "one side only: a value is kept near the old value in both directions": [
            larger(values.minimum(old + clip_range)),
            larger(values.maximum(old - clip_range)),
        ],
        "clips the returns: it is the new value that is kept near the old": [
            torch.maximum(plain, held_back)[real].mean() / 2
        ],
        "clips the error: the value is kept near the old one": [
            (values - returns).clamp(-clip_range, clip_range).square()[real].mean() / 2
        ],
        "the difference is not added to the old value": [
            larger((values - old).clamp(-clip_range, clip_range))
        ],
        "the range is ε in all, not ε on either side": [
            larger(old + (values - old).clamp(-clip_range / 2, clip_range / 2))
        ],
        "the range is twice ε on either side": [
            larger(old + (values - old).clamp(-2 * clip_range, 2 * clip_range))
        ],
        "0.2, whatever the range: take clip_range": [
            larger(old + (values - old).clamp(-0.2, 0.2))
        ],
    }
    return told_apart(mistakes, case)


def _value_teaches(answer: Callable) -> str:
    from alignlab.objectives import ppo_value_loss

    return gradient_fault(answer, ppo_value_loss, _value_cases(), ["values"])


# --- 04.6: an estimate of KL ------------------------------------------------------


def _kl_cases() -> list[Case]:
    from alignlab.objectives import kl_estimate

    cases = []
    for seed, shape, spread, about in (
        (0, (3, 6), 0.5, "several rows"),
        (1, (2, 4), 1.5, "policies that are far apart"),
        (2, (1, 9), 0.1, ALONE),
    ):
        reference, moved = normal(seed, 2, *shape)
        reference = -reference.abs() - 1
        args = dict(log_probs=reference + spread * moved, ref_log_probs=reference)
        cases.append(Case(args, kl_estimate(**args, estimator="k3"), about))
    return cases


def _read_kl(output, log_probs, ref_log_probs) -> "Tensor":
    shape = tuple(log_probs.shape)
    summed = "summed up: return one estimate per token, of shape {}"
    wrong_shapes = ((), (1,), shape[:1], shape[1:])
    notes = {wrong_shape: summed.format(shape) for wrong_shape in wrong_shapes}
    return tensor(output, shape, notes)


def _kl_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    d = case.args["log_probs"] - case.args["ref_log_probs"]
    right = case.expected
    mistakes = {
        "policy and reference exchanged: with samples of the policy, the exponential "
        "is of log π_ref - log π": [torch.expm1(d) - d],
        "k1: its mean is right, but it can be negative and varies more; k3 adds what "
        "has mean 0": [d],
        "k1 the wrong way round: log π - log π_ref is positive on average": [-d],
        "k2: half the square is biased where the two are far apart": [0.5 * d**2],
        "only the exponential part: e^-d - 1 has mean 0 by itself": [torch.expm1(-d)],
        "1 not taken off: at equal log-probabilities it must be 0": [right + 1],
        "d taken off, not added: e^-d - 1 + d": [torch.expm1(-d) - d],
        "absolute value of k1: its mean is no KL": [d.abs()],
        "ratio of log-probabilities: subtract them": [
            torch.expm1(-(case.args["log_probs"] / case.args["ref_log_probs"]))
            + case.args["log_probs"] / case.args["ref_log_probs"]
        ],
        "in bits: natural logarithms give nats": [right / math.log(2)],
        "sign flipped: a KL is never negative": [-right],
        "zeros everywhere: that would be no distance at all": [torch.zeros_like(d)],
        "k1 and k3 mixed: the sign of d in the exponential is minus": [
            torch.expm1(d) + d
        ],
        "weighed by the policy: its samples are weighed already": [
            case.args["log_probs"].exp() * right,
            case.args["log_probs"].exp() * d,
        ],
        "half of k3": [right / 2],
        "clipped at 0: k1 is cut off, which is biased; k3 is never negative": [
            d.clamp(min=0)
        ],
        "2 taken off, or 1 twice: e^-d - 1 + d": [right - 1],
        "the root of k2's distance: |d| over √2": [d.abs() / 2**0.5],
        "the ratio itself: π over π_ref": [d.exp(), (-d).exp()],
        "the exponential of probabilities: subtract the log-probabilities": [
            case.args["log_probs"].exp() - case.args["ref_log_probs"].exp(),
            (case.args["log_probs"].exp() - case.args["ref_log_probs"].exp()).abs(),
        ],
    }
    return told_apart(mistakes, case)


# --- The exercises ----------------------------------------------------------------

EXERCISES: dict[str, Exercise] = {
    "04.1": Exercise(
        "my_gae(rewards, values, mask, gamma, lam)",
        _gae_cases,
        _read_gae,
        _gae_mistakes,
        "the same advantages as `alignlab.objectives.generalized_advantage_estimate`",
        hints=(
            "A token's advantage needs that of the next one: in which order are "
            "the columns filled in? And what is expected after the last real "
            "token?",
            "Go from the last column to the first: δ = r + γ V(next) - V, A = δ "
            "+ γλ A of the next; multiply by the mask, so that padding passes "
            "nothing on.",
        ),
        minutes=30,
        stars=3,
        library=("alignlab.objectives.policy.generalized_advantage_estimate",),
        tensor_for="the update below adds the values to it",
        padded=("rewards", "values"),
    ),
    "04.2": Exercise(
        "my_ppo_loss(log_probs, old_log_probs, advantages, mask, clip_range)",
        _clip_cases,
        _read_clip,
        _clip_mistakes,
        "the same loss and gradient as `alignlab.objectives.ppo_policy_loss`",
        hints=(
            "Write the objective of a token twice, with the clip and without. "
            "Which of the two is the careful one?",
            "ratio = exp(new - old); the smaller of ratio x A and clipped ratio "
            "x A; minus its mean over the tokens whose mask is 1.",
        ),
        minutes=20,
        stars=2,
        also=_clip_teaches,
        library=("alignlab.objectives.policy.ppo_policy_loss",),
    ),
    "04.3": Exercise(
        "my_value_loss(values, old_values, returns, mask, clip_range)",
        _value_cases,
        _read_value,
        _value_mistakes,
        "the same loss and gradient as `alignlab.objectives.ppo_value_loss`",
        hints=(
            "The value may move by ε; beyond that, one at the edge stands in "
            "for it. Which of the two errors would a careful learner count?",
            "near = old + (value - old) clamped to the range; half the larger "
            "of the two squared errors, of value and of near; the mean over the "
            "tokens whose mask is 1.",
        ),
        minutes=15,
        stars=2,
        also=_value_teaches,
        library=("alignlab.objectives.policy.ppo_value_loss",),
    ),
    "04.6": Exercise(
        "my_kl_estimate(log_probs, ref_log_probs)",
        _kl_cases,
        _read_kl,
        _kl_mistakes,
        "the same as `alignlab.objectives.kl_estimate(..., estimator='k3')`",
        hints=(
            "All three are functions of d, the log-ratio of a token that the "
            "policy drew. What are they at d = 0, and which of them can be "
            "negative?",
            "with d = log π - log π_ref: e^(-d) - 1 + d, token by token.",
        ),
        minutes=5,
        stars=1,
        library=("alignlab.objectives.policy.kl_estimate",),
        tensor_for="the next cell multiplies it by the mask",
    ),
}
