"""Exercises of notebook 05: the exact optimum, DPO's loss, how hard a pair pulls."""

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


# --- 05.1: the best policy at a price of KL ---------------------------------------


def _optimum_cases() -> list[Case]:
    """The last has rewards of hundreds of β, where a plain exponential is infinite."""
    from alignlab.evaluation.exact import optimal_policy

    cases = []
    for seed, count, beta, size, about in (
        (0, 6, 0.5, 1.0, "a β below 1"),
        (1, 3, 2.0, 1.0, "a β above 1"),
        (2, 9, 0.1, 0.5, "a low β"),
        (3, 5, 0.01, 20.0, "rewards of hundreds of β"),
    ):
        logits, reward = normal(seed, 2, count)
        args = dict(reference=logits.softmax(0), reward=size * reward, beta=beta)
        cases.append(Case(args, optimal_policy(**args), about))
    return cases


def _read_optimum(output, reference, reward, beta) -> "Tensor":
    shape = tuple(reference.shape)
    notes = {(): "one number: return a probability for every completion"}
    remedy = (
        "exp(r/β) is infinite where r is hundreds of β; a softmax of log π_ref + r/β "
        "is not"
    )
    return tensor(output, shape, notes, remedy)


def _optimum_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    reference, reward, beta = case.args.values()
    tilted = reference * (reward / beta).exp()
    mistakes = {
        "not normalised: divide by Z, so that the probabilities sum to 1": [tilted],
        "β on the wrong side: a higher β keeps closer to the reference, so the reward "
        "is divided by it": [(reference.log() + reward * beta).softmax(0)],
        "β left out": [(reference.log() + reward).softmax(0)],
        "no reference: the optimum weighs the reference, it does not replace it": [
            (reward / beta).softmax(0)
        ],
        "the reference's probabilities where its log-probabilities belong": [
            (reference + reward / beta).softmax(0)
        ],
        "sign flipped: more reward makes a completion likelier": [
            (reference.log() - reward / beta).softmax(0)
        ],
        "the best completion only: that is the limit of β to 0": [
            torch.eye(len(reward), dtype=reward.dtype)[reward.argmax()]
        ],
        "log-probabilities: take their exponential": [case.expected.log()],
        "the reference itself: that is the limit of an infinite β": [reference],
        "all alike: that takes no account of reference and reward": [
            torch.full_like(reference, 1 / len(reference))
        ],
        "divided by the number of completions: divide by the sum Z": [
            tilted / len(reference)
        ],
        "Z without the reference: sum up π_ref times the exponential": [
            tilted / (reward / beta).exp().sum()
        ],
        "divided by the largest: divide by the sum Z": [tilted / tilted.max()],
        "added up, not multiplied: π_ref is tilted by a factor": [
            (reference + (reward / beta).exp()) / (1 + (reward / beta).exp().sum()),
            (reference + (reward / beta).softmax(0)) / 2,
            reference + reward / beta,
        ],
        "no exponential: π_ref is multiplied by e^(r/β)": [
            reference * reward / beta / (reference * reward / beta).sum(),
            reference * (1 + reward / beta) / (reference * (1 + reward / beta)).sum(),
        ],
        "β in the reference's power: it divides the reward only": [
            ((reference.log() + reward) / beta).softmax(0),
            (reference.log() / beta + reward).softmax(0),
            (reference.log() * beta + reward).softmax(0),
        ],
        "the better completions only: every one keeps some probability": [
            (reference * (reward >= reward.mean()))
            / (reference * (reward >= reward.mean())).sum()
        ],
        "the softmax of a softmax: probabilities are exponentiated again": [
            case.expected.softmax(0)
        ],
    }
    return told_apart(mistakes, case)


# --- 05.2: the loss ---------------------------------------------------------------

HOPELESS = (
    "a margin of -900 (a clamp, an epsilon or `nan_to_num` only hides that sigmoid is "
    "0 there)"
)


def _dpo_cases() -> list[Case]:
    """Log-probabilities of whole replies; one pair of the last is hopeless, so that
    log(sigmoid) would be minus infinity."""
    import torch

    from alignlab.objectives import dpo_loss

    cases = []
    for seed, pairs, beta, spread, about in (
        (0, 5, 0.1, 8.0, "several pairs"),
        (1, 3, 0.5, 3.0, "several pairs"),
        (2, 4, 1, 2, HOPELESS),
        (3, 1, 0.2, 4.0, "a single pair"),
    ):
        reference = -normal(seed, 2, pairs).abs() * 10 - 5
        policy = reference + spread * normal(seed + 50, 2, pairs)
        if seed == 2:
            policy = policy + torch.tensor([[-900.0, 0, 0, 0], [0, 0, 0, 0]])
        args = dict(policy_chosen=policy[0], policy_rejected=policy[1])
        args |= dict(ref_chosen=reference[0], ref_rejected=reference[1], beta=beta)
        cases.append(Case(args, dpo_loss(**args).mean(), about))
    return cases


def _read_dpo(output, policy_chosen, **others) -> "Tensor":
    shapes = [tuple(policy_chosen.shape), (1,)]
    remedy = "log(sigmoid) is minus infinity at -900; `F.logsigmoid` is not"
    return scalar(output, shapes, "take the mean over pairs", remedy)


def _dpo_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch
    from torch.nn.functional import logsigmoid

    chosen, rejected, ref_chosen, ref_rejected, beta = case.args.values()
    right = case.expected
    margin = (chosen - ref_chosen) - (rejected - ref_rejected)

    def loss(h):
        return -logsigmoid(h).mean()

    log_odds = torch.logit(chosen.exp()) - torch.logit(rejected.exp())
    mistakes = {
        "sign flipped: a loss is minus the log-likelihood": [-right],
        "chosen and rejected exchanged: the chosen one's log-ratio comes first": [
            loss(-beta * margin)
        ],
        "no reference: take the reference's log-probabilities off": [
            loss(beta * (chosen - rejected))
        ],
        "policy and reference exchanged for the rejected one": [
            loss(beta * ((chosen - ref_chosen) + (rejected - ref_rejected)))
        ],
        "the reference is added, or the two references are exchanged: π over π_ref is "
        "a difference of logarithms": [
            loss(beta * ((chosen + ref_chosen) - (rejected + ref_rejected)))
        ],
        "β left out: it multiplies the margin": [loss(margin)],
        "β counts twice: it multiplies the margin once": [loss(beta**2 * margin)],
        "divided by β: it multiplies the margin": [loss(margin / beta)],
        "β outside: it belongs inside the sigmoid": [beta * loss(margin)],
        "no logarithm: that is the probability of the other order": [
            torch.sigmoid(-beta * margin).mean(),
            -torch.sigmoid(beta * margin).mean(),
        ],
        "no weight: without the sigmoid no pair is ever learnt enough": [
            -(beta * margin).mean()
        ],
        "mean before the sigmoid: each pair has a loss of its own": [
            loss((beta * margin).mean())
        ],
        "sum, not mean: divide by the number of pairs": [right * len(chosen)],
        "in bits: natural logarithms give nats": [right / math.log(2)],
        "zero: nothing can be learnt": [torch.zeros_like(right)],
        "the chosen reply only: the margin is its log-ratio less the other's": [
            loss(beta * (chosen - ref_chosen)),
            -(chosen - ref_chosen).mean(),
            -chosen.mean(),
        ],
        "each reply by itself: only the difference of the two is compared": [
            loss(beta * (chosen - ref_chosen)) + loss(-beta * (rejected - ref_rejected))
        ],
        "squared: that is IPO's loss": [
            (margin - 1 / (2 * beta)).square().mean(),
            (beta * margin - 1).square().mean(),
        ],
        "a hinge: max(0, 1 - βh) is another loss": [(1 - beta * margin).relu().mean()],
        "β on the policy only: it multiplies the whole margin": [
            loss(beta * (chosen - rejected) - (ref_chosen - ref_rejected))
        ],
        "ratios of log-probabilities: subtract them": [
            loss(beta * (chosen / ref_chosen - rejected / ref_rejected))
        ],
        "probabilities of whole replies: use their logarithms": [
            loss(
                beta
                * (
                    (chosen - ref_chosen).exp().nan_to_num(posinf=1e9)
                    - (rejected - ref_rejected).exp().nan_to_num(posinf=1e9)
                )
            ),
            loss(beta * log_odds),
        ],
        "every chosen reply against every rejected one: a pair is of one prompt": [
            loss(
                beta
                * ((chosen - ref_chosen)[:, None] - (rejected - ref_rejected)[None])
            )
        ],
        "a share of the pairs, not a likelihood: it has no gradient": [
            (margin < 0).double().mean(),
            (margin > 0).double().mean(),
        ],
    }
    return told_apart(mistakes, case)


def _dpo_teaches(answer: Callable) -> str:
    from alignlab.objectives import dpo_loss

    def mean_loss(*args):
        return dpo_loss(*args).mean()

    inputs = ("policy_chosen", "policy_rejected")
    return gradient_fault(answer, mean_loss, _dpo_cases(), inputs)


# --- 05.5: how hard each pair pulls -----------------------------------------------


def _weight_cases() -> list[Case]:
    import torch

    from alignlab.objectives import dpo_loss

    cases = []
    for seed, pairs, beta, about in (
        (0, 5, 0.1, "a low β"),
        (1, 3, 0.5, "a β below 1"),
        (2, 7, 2.0, "a β above 1"),
        (3, 1, 0.2, "a single pair"),
    ):
        margin = 4 * normal(seed, pairs)
        h = margin.clone().requires_grad_()
        nothing = torch.zeros_like(h)
        losses = dpo_loss(h, nothing, nothing, nothing, beta)
        (slope,) = torch.autograd.grad(losses.sum(), h)
        cases.append(Case(dict(margin=margin, beta=beta), -slope, about))
    return cases


def _read_weight(output, margin, beta) -> "Tensor":
    shape = tuple(margin.shape)
    return tensor(output, shape, {(): "one number: every pair has a weight of its own"})


def _weight_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    margin, beta = case.args.values()
    right = case.expected
    mistakes = {
        "the wrong way round: a pair in order by far weighs nothing": [
            beta * torch.sigmoid(beta * margin)
        ],
        "β in front left out: it is β σ(-β h)": [torch.sigmoid(-beta * margin)],
        "β inside left out: it is β σ(-β h)": [beta * torch.sigmoid(-margin)],
        "no β at all: it is β σ(-β h)": [torch.sigmoid(-margin)],
        "the loss: return its slope": [torch.nn.functional.softplus(-beta * margin)],
        "sign flipped: a weight is positive": [-right],
        "the same for all: that is the unweighted variant": [
            torch.full_like(margin, beta),
            torch.full_like(margin, beta / 2),
        ],
        "the curvature: one derivative is enough": [
            torch.sigmoid(-beta * margin) * torch.sigmoid(beta * margin),
            beta * torch.sigmoid(-beta * margin) * torch.sigmoid(beta * margin),
            beta**2 * torch.sigmoid(-beta * margin) * torch.sigmoid(beta * margin),
        ],
        "normalised over pairs: each weight is its own": [
            right / right.sum(),
            (-beta * margin).softmax(0),
            right.softmax(0),
        ],
        "zeros everywhere: then nothing is learnt": [torch.zeros_like(margin)],
        "divided by β: it is β σ(-β h)": [
            torch.sigmoid(-beta * margin) / beta,
            beta * torch.sigmoid(-margin / beta),
        ],
        "β counts twice: it is β σ(-β h)": [beta**2 * torch.sigmoid(-beta * margin)],
        "the logarithm of it: leave the log-sigmoid to the loss": [
            beta * torch.nn.functional.logsigmoid(-beta * margin),
            torch.nn.functional.logsigmoid(-beta * margin),
            beta * torch.nn.functional.logsigmoid(beta * margin),
        ],
        "0 or 1: the weight falls off smoothly": [
            beta * (margin < 0),
            beta * (margin < 1 / beta),
        ],
        "an exponential: the slope of a log-sigmoid is a sigmoid": [
            beta * (-beta * margin).exp()
        ],
        "a tanh: the slope of a log-sigmoid is a sigmoid": [
            beta * torch.tanh(-beta * margin)
        ],
        "the loss times β: return its slope": [
            beta * torch.nn.functional.softplus(-beta * margin)
        ],
        "times the margin: that is the slope in β": [
            margin * torch.sigmoid(-beta * margin),
            beta * margin * torch.sigmoid(-beta * margin),
        ],
        "divided by the number of pairs: a pair's weight is its own": [
            right / len(margin)
        ],
        "absolute margins: a pair in order and one out of order differ": [
            beta * torch.sigmoid(-beta * margin.abs())
        ],
    }
    return told_apart(mistakes, case)


# --- The exercises ----------------------------------------------------------------

EXERCISES: dict[str, Exercise] = {
    "05.1": Exercise(
        "my_optimum(reference, reward, beta)",
        _optimum_cases,
        _read_optimum,
        _optimum_mistakes,
        "the same policy as `alignlab.evaluation.exact.optimal_policy`, also where "
        "exp(r/β) would overflow",
        hints=(
            (
                "Take the logarithm of the formula: which of its terms differ "
                "between replies, and what turns logarithms into probabilities that "
                "sum to 1?"
            ),
            "log π_ref + r/β, and a softmax: it divides by Z and cannot overflow.",
        ),
        minutes=15,
        stars=2,
        library=("alignlab.evaluation.exact.optimal_policy",),
        tensor_for="the next cell mixes it with other policies",
    ),
    "05.2": Exercise(
        "my_dpo_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)",
        _dpo_cases,
        _read_dpo,
        _dpo_mistakes,
        "the same loss and gradient as `alignlab.objectives.dpo_loss`, also for a "
        "hopeless pair",
        hints=(
            (
                "Each reply has a log-ratio of policy and reference. Which "
                "difference of the two is the margin? And what is "
                "log(sigmoid(-900)) in floating point?"
            ),
            (
                "log π - log π_ref of the chosen reply, minus that of the rejected "
                "one, times β; then minus the log-sigmoid (`F.logsigmoid`), and the "
                "mean."
            ),
        ),
        minutes=20,
        stars=2,
        also=_dpo_teaches,
        library=("alignlab.objectives.preference.dpo_loss",),
    ),
    "05.5": Exercise(
        "my_weight(margin, beta)",
        _weight_cases,
        _read_weight,
        _weight_mistakes,
        "the slope of DPO's loss, as autograd has it",
        hints=(
            (
                "Differentiate the loss of one pair by its margin; the bracket is "
                "the margin's own gradient."
            ),
            "The slope of -log σ(x) is -σ(-x); then the chain rule, for x = β h.",
        ),
        minutes=10,
        stars=1,
    ),
}
