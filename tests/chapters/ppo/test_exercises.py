"""The checks of notebook 04 accept right answers, reject wrong ones, and name each
known mistake: a table of mutants, as for the other exercises."""

import math

import pytest
import torch

from alignlab.chapters.ppo.exercises import EXERCISES
from alignlab.course.checks import try_case
from tests.grading import as_params, covers, fails_by_name, passes

# --- 04.1 -------------------------------------------------------------------------


def gae(r, v, m, gamma, lam):
    v, out = v * m, torch.zeros_like(r)
    advantage = following = torch.zeros_like(r[:, 0])
    for t in reversed(range(r.shape[1])):
        delta = r[:, t] + gamma * following - v[:, t]
        advantage = (delta + gamma * lam * advantage) * m[:, t]
        following = v[:, t]
        out[:, t] = advantage
    return out


def gae_by_sums(r, v, m, gamma, lam):
    """Row by row, each advantage as the sum that defines it; NaN in no padding."""
    out = torch.zeros_like(r)
    for row, length in enumerate(m.sum(1).tolist()):
        values = [*v[row, :length].tolist(), 0.0]
        delta = [r[row, t] + gamma * values[t + 1] - values[t] for t in range(length)]
        for t in range(length):
            weights = ((gamma * lam) ** i for i in range(length - t))
            out[row, t] = sum(w * d for w, d in zip(weights, delta[t:]))
    return out


def gae_through_padding(r, v, m, gamma, lam):
    return gae(r, v, torch.ones_like(m), gamma, lam) * m


def gae_forwards(r, v, m, gamma, lam):
    return gae(r.flip(1), v.flip(1), m.flip(1), gamma, lam).flip(1) * m


def spoils_rewards(r, v, m, gamma, lam):
    found = gae(r, v, m, gamma, lam)
    r[:, -1] += 1
    return found


def without_next(r, v, m, gamma, lam):
    out, advantage = torch.zeros_like(r), torch.zeros_like(r[:, 0])
    for t in reversed(range(r.shape[1])):
        advantage = (r[:, t] - v[:, t] + gamma * lam * advantage) * m[:, t]
        out[:, t] = advantage
    return out


def without_baseline(r, v, m, gamma, lam):
    v, out = v * m, torch.zeros_like(r)
    advantage = following = torch.zeros_like(r[:, 0])
    for t in reversed(range(r.shape[1])):
        advantage = (r[:, t] + gamma * following + gamma * lam * advantage) * m[:, t]
        following = v[:, t]
        out[:, t] = advantage
    return out


def value_before(r, v, m, gamma, lam):
    out, advantage = torch.zeros_like(r), torch.zeros_like(r[:, 0])
    for t in reversed(range(r.shape[1])):
        before = v[:, t - 1] if t else 0.0
        delta = r[:, t] + gamma * before - v[:, t]
        advantage = (delta + gamma * lam * advantage) * m[:, t]
        out[:, t] = advantage
    return out


def own_value_again(r, v, m, gamma, lam):
    v, out = v * m, torch.zeros_like(r)
    advantage, following = torch.zeros_like(r[:, 0]), v[:, -1]
    for t in reversed(range(r.shape[1])):
        delta = r[:, t] + gamma * following - v[:, t]
        advantage = (delta + gamma * lam * advantage) * m[:, t]
        following = v[:, t]
        out[:, t] = advantage
    return out


GAES = {
    "padding counts": [gae_through_padding],
    "no value of what follows": [without_next],
    "no baseline": [without_baseline],
    "these are returns": [lambda r, v, m, g, k: (gae(r, v, m, g, k) + v) * m],
    "λ left out": [lambda r, v, m, g, k: gae(r, v, m, g, 1.0)],
    "γ left out": [lambda r, v, m, g, k: gae(r, v, m, 1.0, k)],
    "γ and λ exchanged": [lambda r, v, m, g, k: gae(r, v, m, k, g)],
    "runs forwards": [gae_forwards],
    "one step only": [lambda r, v, m, g, k: gae(r, v, m, g, 0.0)],
    "sign flipped": [lambda r, v, m, g, k: -gae(r, v, m, g, k)],
    "the value before": [value_before],
    "goes on after the end": [own_value_again],
    "zeros everywhere": [lambda r, v, m, g, k: torch.zeros_like(r)],
    "returns several things": [lambda r, v, m, g, k: (gae(r, v, m, g, k), v)],
    "one number a row": [lambda r, v, m, g, k: gae(r, v, m, g, k).sum(1)],
    "one column too few": [lambda r, v, m, g, k: gae(r, v, m, g, k)[:, :-1]],
    "changes its input: rewards": [spoils_rewards],
    "not the right values": [
        lambda r, v, m, g, k: gae(r, v, m, g, k) * 1.001,
        lambda r, v, m, g, k: gae(r, v, m, g, k) + math.nan,
    ],
}

# --- 04.2 -------------------------------------------------------------------------


def mean_of(objective, m):
    return -(objective * m).sum() / m.sum()


def clipped(n, o, a, m, e):
    ratio = (n - o).exp()
    return mean_of(torch.minimum(ratio * a, ratio.clamp(1 - e, 1 + e) * a), m)


def clipped_by_cases(n, o, a, m, e):
    """A token counts for its ratio, unless it has gone far enough the right way."""
    ratio = (n - o).exp()
    limit = torch.where(a > 0, ratio.clamp(max=1 + e), ratio.clamp(min=1 - e))
    return -(limit * a)[m.bool()].mean()


def each_token(n, o, a, m, e):
    ratio = (n - o).exp()
    return -torch.minimum(ratio * a, ratio.clamp(1 - e, 1 + e) * a) * m


def picked(pick):
    def loss(n, o, a, m, e):
        ratio = (n - o).exp()
        return mean_of(pick(ratio * a, ratio.clamp(1 - e, 1 + e) * a), m)

    return loss


def with_ratio(ratio_of):
    def loss(n, o, a, m, e):
        ratio = ratio_of(n, o)
        return mean_of(torch.minimum(ratio * a, ratio.clamp(1 - e, 1 + e) * a), m)

    return loss


def partly_detached(n, o, a, m, e):
    ratio = (n - o).exp()
    ratio = torch.where(a > 0, ratio, ratio.detach())
    return mean_of(torch.minimum(ratio * a, ratio.clamp(1 - e, 1 + e) * a), m)


CLIPS = {
    "sign flipped": [lambda n, o, a, m, e: -clipped(n, o, a, m, e)],
    "maximum, not minimum": [picked(torch.maximum)],
    "not clipped": [picked(lambda plain, near: plain)],
    "clipped only": [picked(lambda plain, near: near)],
    "old over new": [with_ratio(lambda n, o: (o - n).exp())],
    "no exponential": [
        with_ratio(lambda n, o: n - o),
        with_ratio(lambda n, o: 1 + n - o),
    ],
    "ratio of log-probabilities": [with_ratio(lambda n, o: n / o)],
    "padding counts": [
        lambda n, o, a, m, e: clipped(n, o, a, torch.ones_like(m), e),
        lambda n, o, a, m, e: each_token(n, o, a, m, e).mean(),
    ],
    "mean of row means": [
        lambda n, o, a, m, e: (each_token(n, o, a, m, e).sum(1) / m.sum(1)).mean()
    ],
    "sum, not mean": [lambda n, o, a, m, e: each_token(n, o, a, m, e).sum()],
    "divides by the number of rows": [
        lambda n, o, a, m, e: each_token(n, o, a, m, e).sum() / len(n)
    ],
    "clips the advantage": [
        lambda n, o, a, m, e: mean_of((n - o).exp() * a.clamp(-e, e), m),
        lambda n, o, a, m, e: mean_of((n - o).exp() * a.clamp(1 - e, 1 + e), m),
    ],
    "clips around 0": [
        lambda n, o, a, m, e: mean_of(
            torch.minimum((n - o).exp() * a, (n - o).exp().clamp(-e, e) * a), m
        )
    ],
    "zero": [lambda n, o, a, m, e: 0.0],
    "no gradient": [
        lambda n, o, a, m, e: clipped(n, o, a, m, e).item(),
        lambda n, o, a, m, e: clipped(n.detach(), o, a, m, e),
    ],
    "wrong gradient": [partly_detached],
    "not reduced to one number": [each_token],
    "not the right values": [
        lambda n, o, a, m, e: clipped(n, o, a, m, 0.5 * e),
        lambda n, o, a, m, e: clipped(n, o, a, m, e) * 1.001,
    ],
}

# --- 04.3 -------------------------------------------------------------------------


def value_loss(v, o, r, m, e):
    near = o + (v - o).clamp(-e, e)
    errors = torch.maximum((v - r) ** 2, (near - r) ** 2) / 2
    return (errors * m).sum() / m.sum()


def value_loss_by_cases(v, o, r, m, e):
    """The clipped value counts where it is further from the return."""
    near = torch.where(v > o, v.clamp(max=o + e), v.clamp(min=o - e))
    further = torch.where((near - r).abs() > (v - r).abs(), near, v)
    return 0.5 * ((further - r)[m.bool()] ** 2).mean()


def each_error(v, o, r, m, e):
    near = o + (v - o).clamp(-e, e)
    return torch.maximum((v - r) ** 2, (near - r) ** 2) / 2 * m


def with_near(near_of, pick=torch.maximum):
    def loss(v, o, r, m, e):
        return mean_error(pick((v - r) ** 2, (near_of(v, o, e) - r) ** 2), m)

    return loss


def mean_error(errors, m):
    return (errors * m).sum() / m.sum() / 2


def usual_near(v, o, e):
    return o + (v - o).clamp(-e, e)


def unsquared(v, o, r, m, e):
    near = usual_near(v, o, e)
    return mean_error(torch.maximum((v - r).abs(), (near - r).abs()), m)


def values_partly_detached(v, o, r, m, e):
    return value_loss(torch.where(v > o, v, v.detach()), o, r, m, e)


VALUES = {
    "half forgotten": [lambda v, o, r, m, e: 2 * value_loss(v, o, r, m, e)],
    "sign flipped": [lambda v, o, r, m, e: -value_loss(v, o, r, m, e)],
    "minimum, not maximum": [with_near(usual_near, torch.minimum)],
    "not clipped": [lambda v, o, r, m, e: mean_error((v - r) ** 2, m)],
    "clipped only": [
        lambda v, o, r, m, e: mean_error((usual_near(v, o, e) - r) ** 2, m)
    ],
    "clips around 0": [with_near(lambda v, o, e: v.clamp(-e, e))],
    "not squared": [unsquared],
    "old values in place of returns": [
        lambda v, o, r, m, e: mean_error((v - o) ** 2, m)
    ],
    "padding counts": [
        lambda v, o, r, m, e: value_loss(v, o, r, torch.ones_like(m), e),
        lambda v, o, r, m, e: each_error(v, o, r, m, e).mean(),
    ],
    "mean of row means": [
        lambda v, o, r, m, e: (each_error(v, o, r, m, e).sum(1) / m.sum(1)).mean()
    ],
    "sum, not mean": [lambda v, o, r, m, e: each_error(v, o, r, m, e).sum()],
    "zero": [lambda v, o, r, m, e: 0.0],
    "no gradient": [lambda v, o, r, m, e: value_loss(v, o, r, m, e).item()],
    "wrong gradient": [values_partly_detached],
    "not reduced to one number": [each_error],
    "not the right values": [
        lambda v, o, r, m, e: value_loss(v, o, r, m, 0.5 * e),
        lambda v, o, r, m, e: value_loss(v, o, r, m, e) * 1.001,
    ],
}

# --- 04.4 -------------------------------------------------------------------------


def k3(n, o):
    return torch.exp(o - n) - 1 + (n - o)


KLS = {
    "policy and reference exchanged": [lambda n, o: k3(o, n)],
    "k1:": [lambda n, o: n - o],
    "k1 the wrong way round": [lambda n, o: o - n],
    "k2": [lambda n, o: (n - o) ** 2 / 2],
    "only the exponential part": [lambda n, o: (o - n).exp() - 1],
    "1 not taken off": [lambda n, o: (o - n).exp() + n - o],
    "d taken off": [lambda n, o: (o - n).exp() - 1 - (n - o)],
    "absolute value of k1": [lambda n, o: (n - o).abs()],
    "ratio of log-probabilities": [lambda n, o: (-n / o).exp() - 1 + n / o],
    "in bits": [lambda n, o: k3(n, o) / math.log(2)],
    "sign flipped": [lambda n, o: -k3(n, o)],
    "zeros everywhere": [lambda n, o: torch.zeros_like(n)],
    "summed up": [lambda n, o: k3(n, o).sum(1), lambda n, o: k3(n, o).mean()],
    "not the right values": [lambda n, o: k3(n, o) * 1.001],
}

# --- The tables -------------------------------------------------------------------

TABLE = {"04.1": GAES, "04.2": CLIPS, "04.3": VALUES, "04.4": KLS}
REFERENCES = [
    ("04.1", gae),
    ("04.1", gae_by_sums),
    ("04.2", clipped),
    ("04.2", clipped_by_cases),
    ("04.3", value_loss),
    ("04.3", value_loss_by_cases),
    ("04.4", k3),
    ("04.4", lambda n, o: torch.expm1(o - n) + n - o),
]


@pytest.mark.parametrize("number, answer", REFERENCES)
def test_a_right_answer_passes(number, answer):
    passes(number, answer)


@pytest.mark.parametrize("number, name, answer", as_params(TABLE))
def test_a_wrong_answer_fails_under_the_name_of_its_mistake(number, name, answer):
    fails_by_name(number, name, answer)


def test_every_exercise_has_references_and_every_known_mistake_a_mutant():
    covers(REFERENCES, TABLE, EXERCISES)


def test_what_is_said_about_padding_does_not_matter_unless_it_is_no_number():
    task = EXERCISES["04.1"]
    case = task.cases()[0]
    padding = 1 - case.args["mask"]
    for odd, right in ((7.0, True), (math.nan, False)):

        def untidy(*args, odd=odd):
            return gae(*args).where(padding == 0, odd)

        assert try_case(task, untidy, case).right is right
