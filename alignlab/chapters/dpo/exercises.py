"""Exercises of notebook 05: the exact optimum, DPO's loss, how hard a pair pulls."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from alignlab.course.checks import (
    Case,
    Exercise,
    close,
    gradient_fault,
    normal,
    scalar,
    tensor,
)

if TYPE_CHECKING:
    from torch import Tensor


# --- 05.1: the best policy at a price of KL ---------------------------------------


def _optimum_cases() -> list[Case]:
    """The last has rewards of hundreds of β, where a plain exponential is infinite."""
    from alignlab.evaluation.exact import optimal_policy

    cases = []
    for seed, count, beta, size in (
        (0, 6, 0.5, 1.0),
        (1, 3, 2.0, 1.0),
        (2, 9, 0.1, 0.5),
        (3, 5, 0.01, 20.0),
    ):
        logits, reward = normal(seed, 2, count)
        args = dict(reference=logits.softmax(0), reward=size * reward, beta=beta)
        cases.append(Case(args, optimal_policy(**args)))
    return cases


def _read_optimum(output, reference, reward, beta) -> "Tensor":
    shape = tuple(reference.shape)
    notes = {(): "one number: return a probability for every completion"}
    return tensor(output, shape, notes)


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
    }
    # A case in which a mistake is right, or has no finite answer, says nothing of it.
    return {
        message: outputs
        for message, outputs in mistakes.items()
        if outputs[0].isfinite().all() and not close(outputs[0], case.expected)
    }


# --- 05.2: the loss ---------------------------------------------------------------


def _dpo_cases() -> list[Case]:
    """Log-probabilities of whole replies; one pair of the last is hopeless, so that
    log(sigmoid) would be minus infinity."""
    import torch

    from alignlab.objectives import dpo_loss

    cases = []
    for seed, pairs, beta, spread in ((0, 5, 0.1, 8.0), (1, 3, 0.5, 3.0), (2, 4, 1, 2)):
        reference = -normal(seed, 2, pairs).abs() * 10 - 5
        policy = reference + spread * normal(seed + 50, 2, pairs)
        if seed == 2:
            policy = policy + torch.tensor([[-900.0, 0, 0, 0], [0, 0, 0, 0]])
        args = dict(policy_chosen=policy[0], policy_rejected=policy[1])
        args |= dict(ref_chosen=reference[0], ref_rejected=reference[1], beta=beta)
        cases.append(Case(args, dpo_loss(**args).mean()))
    return cases


def _read_dpo(output, policy_chosen, **others) -> "Tensor":
    shapes = [tuple(policy_chosen.shape), (1,)]
    return scalar(output, shapes, "take the mean over pairs")


def _dpo_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch
    from torch.nn.functional import logsigmoid

    chosen, rejected, ref_chosen, ref_rejected, beta = case.args.values()
    right = case.expected
    margin = (chosen - ref_chosen) - (rejected - ref_rejected)

    def loss(h):
        return -logsigmoid(h).mean()

    return {
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
        "the reference is added: π over π_ref is a difference of logarithms": [
            loss(beta * ((chosen + ref_chosen) - (rejected + ref_rejected)))
        ],
        "β left out: it multiplies the margin": [loss(margin)],
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
    }


def _dpo_teaches(answer: Callable) -> str:
    from alignlab.objectives import dpo_loss

    def mean_loss(*args):
        return dpo_loss(*args).mean()

    inputs = ("policy_chosen", "policy_rejected")
    return gradient_fault(answer, mean_loss, _dpo_cases()[0], inputs)


# --- 05.3: how hard each pair pulls -----------------------------------------------


def _weight_cases() -> list[Case]:
    import torch

    from alignlab.objectives import dpo_loss

    cases = []
    for seed, pairs, beta in ((0, 5, 0.1), (1, 3, 0.5), (2, 7, 2.0)):
        margin = 4 * normal(seed, pairs)
        h = margin.clone().requires_grad_()
        nothing = torch.zeros_like(h)
        losses = dpo_loss(h, nothing, nothing, nothing, beta)
        (slope,) = torch.autograd.grad(losses.sum(), h)
        cases.append(Case(dict(margin=margin, beta=beta), -slope))
    return cases


def _read_weight(output, margin, beta) -> "Tensor":
    shape = tuple(margin.shape)
    return tensor(output, shape, {(): "one number: every pair has a weight of its own"})


def _weight_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    margin, beta = case.args.values()
    right = case.expected
    return {
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
            beta * torch.sigmoid(-beta * margin) * torch.sigmoid(beta * margin),
            beta**2 * torch.sigmoid(-beta * margin) * torch.sigmoid(beta * margin),
        ],
        "normalised over pairs: each weight is its own": [
            right / right.sum(),
            (-beta * margin).softmax(0),
        ],
        "zeros everywhere: then nothing is learnt": [torch.zeros_like(margin)],
    }


# --- The exercises ----------------------------------------------------------------

EXERCISES: dict[str, Exercise] = {
    "05.1": Exercise(
        "my_optimum(reference, reward, beta)",
        _optimum_cases,
        _read_optimum,
        _optimum_mistakes,
        "the same policy as `alignlab.evaluation.exact.optimal_policy`, also where "
        "exp(r/β) would overflow",
        "log π_ref + r/β, and a softmax: it divides by Z and cannot overflow.",
    ),
    "05.2": Exercise(
        "my_dpo_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)",
        _dpo_cases,
        _read_dpo,
        _dpo_mistakes,
        "the same loss and gradient as `alignlab.objectives.dpo_loss`, also for a "
        "hopeless pair",
        "log π - log π_ref of the chosen reply, minus that of the rejected one, times "
        "β; then minus the log-sigmoid (`F.logsigmoid`), and the mean.",
        also=_dpo_teaches,
    ),
    "05.3": Exercise(
        "my_weight(margin, beta)",
        _weight_cases,
        _read_weight,
        _weight_mistakes,
        "the slope of DPO's loss, as autograd has it",
        "the slope of -log σ(x) is -σ(-x); then the chain rule, for x = β h.",
    ),
}
