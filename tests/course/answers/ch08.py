"""Right and wrong answers to the exercises of notebook 08."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from alignlab import objectives as library
from alignlab.calibration.metrics import negative_log_likelihood, risk_coverage_curve

# --- 08.1 -------------------------------------------------------------------------


def scaled(z, y, t):
    return F.cross_entropy(z / t, y)


def scaled_by_loop(z, y, t):
    total = 0.0
    for row, label in zip(z, y):
        total = total - (row / t).log_softmax(0)[label]
    return total / len(y)


SCALED = {
    "times T, not divided by it": [lambda z, y, t: F.cross_entropy(z * t, y)],
    "no temperature": [
        lambda z, y, t: F.cross_entropy(z, y),
        lambda z, y, t: F.cross_entropy(z + t, y),
        lambda z, y, t: F.cross_entropy(z - t, y),
    ],
    "the loss is divided, not the logits": [
        lambda z, y, t: F.cross_entropy(z, y) / t,
        lambda z, y, t: F.nll_loss(z.log_softmax(1) / t, y),
    ],
    "probabilities are divided, not logits": [
        lambda z, y, t: F.nll_loss((z.softmax(1) / t).log(), y)
    ],
    "softmax twice": [lambda z, y, t: F.cross_entropy((z / t).softmax(1), y)],
    "no softmax": [lambda z, y, t: -(z / t)[range(len(y)), y].mean()],
    "sum, not mean": [lambda z, y, t: F.cross_entropy(z / t, y, reduction="sum")],
    "sign flipped": [lambda z, y, t: -scaled(z, y, t)],
    "mean of probabilities": [
        lambda z, y, t: -(z / t).softmax(1)[range(len(y)), y].mean().log()
    ],
    "of the likeliest class": [
        lambda z, y, t: -(z / t).log_softmax(1).max(1).values.mean()
    ],
    "in bits": [lambda z, y, t: scaled(z, y, t) / math.log(2)],
    "zero": [lambda z, y, t: torch.tensor(0.0)],
    "normalised over the items": [
        lambda z, y, t: -(z / t).log_softmax(0)[range(len(y)), y].mean()
    ],
    "a mean over the classes": [lambda z, y, t: -(z / t).log_softmax(1).mean()],
    "divided by the number of classes": [
        lambda z, y, t: scaled(z, y, t) / z.shape[1],
        lambda z, y, t: scaled(z, y, t) * len(y) / z.shape[1],
    ],
    "a power of T": [
        lambda z, y, t: scaled(z, y, t**2),
        lambda z, y, t: scaled(z, y, t**0.5),
        lambda z, y, t: scaled(z, y, math.exp(t)),
    ],
    "times T²": [lambda z, y, t: scaled(z, y, t) * t**2],
    "perplexity": [lambda z, y, t: scaled(z, y, t).exp()],
    "the Brier score": [
        lambda z, y, t: (
            ((z / t).softmax(1) - F.one_hot(y, z.shape[1])).square().sum(1).mean()
        )
    ],
    "each class against all others": [
        lambda z, y, t: -F.logsigmoid(z / t)[range(len(y)), y].mean()
    ],
    "the entropy": [
        lambda z, y, t: torch.distributions.Categorical(logits=z / t).entropy().mean()
    ],
    "the wrong class": [lambda z, y, t: scaled(z, (y + 1) % z.shape[1], t)],
    "no gradient": [
        lambda z, y, t: scaled(z, y, float(t)),
        lambda z, y, t: scaled(z, y, t).item() if isinstance(t, float) else 0.0,
    ],
    "not reduced to one number": [
        lambda z, y, t: F.cross_entropy(z / t, y, reduction="none")
    ],
    "every value is 1.001 times": [lambda z, y, t: 1.001 * scaled(z, y, t)],
    "logarithms to base 10": [lambda z, y, t: scaled(z, y, t) / math.log(10)],
    "calls the library's own": [
        lambda z, y, t: negative_log_likelihood((z / t).softmax(1).numpy(), y.numpy())
    ],
    "changes its input: logits": [lambda z, y, t: F.cross_entropy(z.div_(t), y)],
    "the loss is multiplied": [lambda z, y, t: F.cross_entropy(z, y) * t],
    "smoothed labels": [lambda z, y, t: F.cross_entropy(z / t, y, label_smoothing=0.1)],
}

# --- 08.6 -------------------------------------------------------------------------


def risks(c, y):
    order = c.argsort(descending=True)
    return (1 - y[order].double()).cumsum(0) / torch.arange(1, len(c) + 1)


def risks_by_loop(c, y):
    out = []
    for k in range(1, len(c) + 1):
        best = c.topk(k).indices
        out.append(float((y[best] == 0).double().mean()))
    return torch.tensor(out, dtype=torch.float64)


def _falling(c):
    return c.sort(descending=True).values


def _counts(c):
    return torch.arange(1, len(c) + 1)


def risks_by_numpy(c, y):
    order = np.argsort(c.numpy())[::-1]
    wrong = 1 - y.numpy()[order]
    rising = wrong.sum() - np.cumsum(wrong[::-1])[::-1] + wrong
    return (rising[::-1] / np.arange(1, len(wrong) + 1)[::-1])[::-1]


def risks_by_matrix(c, y):
    wrong = 1 - y[c.argsort(descending=True)].double()
    below = torch.ones(len(c), len(c), dtype=wrong.dtype).tril()
    return below @ wrong / below.sum(1)


def risks_in_python(c, y):
    pairs = sorted(zip(c.tolist(), y.tolist()), key=lambda pair: -pair[0])
    found, wrong = [], 0
    for k, (_, right) in enumerate(pairs, start=1):
        wrong += not right
        found.append(wrong / k)
    return tuple(found)


def risks_in_place(c, y):
    wrong = 1.0 - y[c.argsort(descending=True)]
    for k in range(1, len(wrong)):
        wrong[k] += wrong[k - 1]
    wrong /= _counts(c)
    return wrong


RISKS = {
    "the least sure first": [lambda c, y: risks(1 - c, y)],
    "not sorted": [lambda c, y: (1 - y.double()).cumsum(0) / _counts(c)],
    "accuracy": [lambda c, y: 1 - risks(c, y)],
    "divided by all items": [lambda c, y: risks(c, y) * _counts(c) / len(c)],
    "not cumulative": [lambda c, y: 1 - y[c.argsort(descending=True)].double()],
    "counts": [lambda c, y: risks(c, y) * _counts(c)],
    "backwards": [lambda c, y: risks(c, y).flip(0)],
    "what it expects, not what happened": [
        lambda c, y: (1 - _falling(c)).cumsum(0) / _counts(c)
    ],
    "in the items' own order": [
        lambda c, y: risks(c, y)[c.argsort(descending=True).argsort()]
    ],
    "zeros": [lambda c, y: torch.zeros(len(c))],
    "the k-th is left out": [
        lambda c, y: torch.cat([torch.zeros(1), risks(c, y)[:-1]])
    ],
    "divided by k - 1": [
        lambda c, y: risks(c, y) * _counts(c) / (_counts(c) + 1),
        lambda c, y: risks(c, y) * _counts(c) / (_counts(c) - 1).clamp(min=1),
    ],
    "the overall risk": [lambda c, y: (1 - y.double()).mean().expand(len(c))],
    "the coverages": [lambda c, y: _counts(c) / len(c)],
    "the risk of what is left": [lambda c, y: risks(1 - c, y).flip(0)],
    "counts of right answers": [
        lambda c, y: y[c.argsort(descending=True)].double().cumsum(0)
    ],
    "one minus confidence": [lambda c, y: 1 - _falling(c)],
    "an area so far": [
        lambda c, y: risks(c, y).cumsum(0) / len(c),
        lambda c, y: risks(c, y).cumsum(0) / _counts(c),
    ],
    "sorted by what was right": [
        lambda c, y: (
            (1 - y.sort(descending=True).values.double()).cumsum(0) / _counts(c)
        ),
        lambda c, y: (1 - y.sort().values.double()).cumsum(0) / _counts(c),
    ],
    "accuracy of the least sure": [lambda c, y: 1 - risks(1 - c, y)],
    "in percent": [lambda c, y: 100 * risks(c, y)],
    "one number": [lambda c, y: risks(c, y)[-1]],
    "one too few": [lambda c, y: risks(c, y)[:-1]],
    "one too many": [lambda c, y: torch.cat([torch.zeros(1), risks(c, y)])],
    "two rows": [lambda c, y: (_counts(c) / len(c), risks(c, y))],
    "returns NaN": [
        lambda c, y: risks(c, y) * _counts(c) / (_counts(c) - 1) * math.nan
    ],
    "calls the library's own": [
        lambda c, y: risk_coverage_curve(c.numpy(), y.numpy())[1]
    ],
    "changes its input: confidence": [
        lambda c, y: (risks(c, y), c.copy_(_falling(c)))[0]
    ],
}

# --- 08.4 -------------------------------------------------------------------------


def log_p_of(z, y):
    return z.log_softmax(1).gather(1, y[:, None])[:, 0]


def focal(z, y, gamma):
    log_p = log_p_of(z, y)
    return -((1 - log_p.exp()) ** gamma * log_p).mean()


def focal_by_loop(z, y, gamma):
    total = 0.0
    for row, label in zip(z, y):
        p = row.softmax(0)[label]
        total = total - (1 - p) ** gamma * p.log()
    return total / len(y)


def focal_of(factor):
    """With something else for the factor (1 - p)^γ."""
    return lambda z, y, g: -(factor(log_p_of(z, y).exp(), g) * log_p_of(z, y)).mean()


FOCALS = {
    "sign flipped": [lambda z, y, g: -focal(z, y, g)],
    "sum, not mean": [lambda z, y, g: focal(z, y, g) * len(y)],
    "no focus": [lambda z, y, g: F.cross_entropy(z, y)],
    "the wrong factor": [focal_of(lambda p, g: p**g)],
    "γ multiplies": [
        focal_of(lambda p, g: g * (1 - p)),
        focal_of(lambda p, g: 1 - g * p),
        lambda z, y, g: g * F.cross_entropy(z, y),
    ],
    "γ on the whole": [
        lambda z, y, g: ((1 - log_p_of(z, y).exp()) * -log_p_of(z, y)).pow(g).mean(),
        lambda z, y, g: (-log_p_of(z, y)).pow(g).mean(),
    ],
    "γ = 2, whatever is given": [focal_of(lambda p, g: (1 - p) ** 2)],
    "one power more or less": [
        focal_of(lambda p, g: (1 - p) ** (g + 1)),
        focal_of(lambda p, g: (1 - p) ** (g - 1)),
    ],
    "no logarithm": [
        lambda z, y, g: -((1 - (p := log_p_of(z, y).exp())) ** g * p).mean(),
        lambda z, y, g: ((1 - log_p_of(z, y).exp()) ** g).mean(),
    ],
    "the logarithm of 1 - p": [
        lambda z, y, g: -((1 - (p := log_p_of(z, y).exp())) ** g * (1 - p).log()).mean()
    ],
    "the factor of the mean": [
        lambda z, y, g: (1 - log_p_of(z, y).exp().mean()) ** g * F.cross_entropy(z, y),
        lambda z, y, g: (
            ((1 - log_p_of(z, y).exp()) ** g).mean() * F.cross_entropy(z, y)
        ),
    ],
    "divided by the sum of the factors": [
        lambda z, y, g: focal(z, y, g) / ((1 - log_p_of(z, y).exp()) ** g).mean()
    ],
    "over all classes": [
        lambda z, y, g: -((1 - z.softmax(1)) ** g * z.log_softmax(1)).sum(1).mean(),
        lambda z, y, g: -((1 - z.softmax(1)) ** g * z.log_softmax(1)).mean(),
    ],
    "of the likeliest class": [lambda z, y, g: focal(z, z.argmax(1), g)],
    "1 - log p": [lambda z, y, g: -((1 - log_p_of(z, y)) ** g * log_p_of(z, y)).mean()],
    "normalised over the items": [
        lambda z, y, g: (
            -((1 - (x := z.log_softmax(0).gather(1, y[:, None])).exp()) ** g * x).mean()
        )
    ],
    "no softmax": [
        lambda z, y, g: (
            -((1 - (x := z.gather(1, y[:, None])).sigmoid()) ** g * x).mean()
        )
    ],
    "in bits": [lambda z, y, g: focal(z, y, g) / math.log(2)],
    "zero": [lambda z, y, g: 0.0 * z.sum()],
    "no gradient": [lambda z, y, g: focal(z, y, g).item()],
    "wrong gradient": [
        lambda z, y, g: (
            -((1 - log_p_of(z, y).exp().detach()) ** g * log_p_of(z, y)).mean()
        )
    ],
    "not reduced to one number": [
        lambda z, y, g: -((1 - log_p_of(z, y).exp()) ** g * log_p_of(z, y))
    ],
    "calls the library's own": [library.focal_loss],
    "every value is 1.001 times": [lambda z, y, g: focal(z, y, g) * 1.001],
}

# --- 08.5 -------------------------------------------------------------------------


def reward(y, c, w):
    return y - w * (c - y) ** 2


def reward_by_cases(y, c, w):
    return torch.where(y == 1, 1 - w * (1 - c) ** 2, -w * c**2)


def reward_by_loop(y, c, w):
    out = torch.empty_like(c)
    for place in range(c.numel()):
        right, sure = y.reshape(-1)[place], c.reshape(-1)[place]
        out.view(-1)[place] = right - w * (sure - right) ** 2
    return out


REWARDS = {
    "sign flipped": [lambda y, c, w: y + w * (c - y) ** 2],
    "not squared": [lambda y, c, w: y - w * (c - y).abs()],
    "signed distances": [lambda y, c, w: y - w * (c - y)],
    "the weight is left out": [lambda y, c, w: y - (c - y) ** 2],
    "the weight is squared": [lambda y, c, w: y - (w * (c - y)) ** 2],
    "the weight on what was right": [
        lambda y, c, w: w * y - (c - y) ** 2,
        lambda y, c, w: w * (y - (c - y) ** 2),
    ],
    "being right is left out": [lambda y, c, w: -w * (c - y) ** 2],
    "being right alone": [lambda y, c, w: y.clone()],
    "1 less the score": [lambda y, c, w: 1 - w * (c - y) ** 2],
    "the log score": [lambda y, c, w: y + w * (y * c.log() + (1 - y) * (1 - c).log())],
    "the square of the confidence": [
        lambda y, c, w: y - w * c**2,
        lambda y, c, w: y - w * (1 - c) ** 2,
    ],
    "the mean over answers": [lambda y, c, w: reward(y, c, w).mean().expand_as(y)],
    "the score only where it is right": [
        lambda y, c, w: y * (1 - w * (1 - c) ** 2),
    ],
    "the score only where it is wrong": [lambda y, c, w: y - w * (1 - y) * c**2],
    "half the square": [lambda y, c, w: y - w * (c - y) ** 2 / 2],
    "both options counted": [lambda y, c, w: y - 2 * w * (c - y) ** 2],
    "pays for confidence": [
        lambda y, c, w: y + w * c,
        lambda y, c, w: y * c,
        lambda y, c, w: y - w * c,
    ],
    "the other way round": [lambda y, c, w: 1 - reward(y, c, w)],
    "zeros": [lambda y, c, w: torch.zeros_like(y)],
    "one number": [lambda y, c, w: reward(y, c, w).mean()],
    "right, but no tensor": [
        lambda y, c, w: reward(y, c, w).tolist(),
        lambda y, c, w: reward(y, c, w).numpy(),
    ],
    "changes its input: confidence": [lambda y, c, w: y - w * c.sub_(y).square()],
    "wrong for a table": [
        lambda y, c, w: reward(y, c, w) if y.dim() == 1 else reward(y, c, w).flip(0) * 2
    ],
    "the square of it all": [lambda y, c, w: (y - w * (c - y)) ** 2],
    "the distance from the wrong label": [lambda y, c, w: y - w * (c - 1 + y) ** 2],
    "another power": [lambda y, c, w: y - w * (c - y).abs() ** 3],
}

# --- The tables -------------------------------------------------------------------

WRONG = {"08.1": SCALED, "08.6": RISKS, "08.4": FOCALS, "08.5": REWARDS}

RIGHT = {
    "08.1": {
        "cross-entropy": scaled,
        "an index": lambda z, y, t: -(z / t).log_softmax(1)[range(len(y)), y].mean(),
        "float32": lambda z, y, t: scaled(z.float(), y, t),
        "log-sum-exp": lambda z, y, t: (
            (z / t).logsumexp(1) - (z / t).gather(1, y[:, None])[:, 0]
        ).mean(),
        "one-hot": lambda z, y, t: (
            -(F.one_hot(y, z.shape[1]) * (z / t).log_softmax(1)).sum() / len(y)
        ),
        "one-hot and einsum in float32": lambda z, y, t: (
            -torch.einsum(
                "nk,nk->", F.one_hot(y, z.shape[1]).float(), (z / t).log_softmax(1)
            )
            / len(y)
        ),
        "distributions": lambda z, y, t: (
            -torch.distributions.Categorical(logits=z / t).log_prob(y).mean()
        ),
        "a loop": scaled_by_loop,
        "softmax and logarithm": lambda z, y, t: (
            -(z / t).softmax(1).log()[range(len(y)), y].mean()
        ),
        "of shape (1,)": lambda z, y, t: scaled(z, y, t)[None],
        "times one over T": lambda z, y, t: F.cross_entropy(z * (1 / t), y),
    },
    "08.6": {
        "sorted": risks,
        "a loop": risks_by_loop,
        "numpy with negative strides": risks_by_numpy,
        "a list of floats": lambda c, y: risks(c, y).tolist(),
        "float32": lambda c, y: risks(c.float(), y).float(),
        "a list of 0-d tensors": lambda c, y: list(risks(c, y)),
        "a triangular matrix": risks_by_matrix,
        "plain Python": risks_in_python,
        "one minus accuracy": lambda c, y: (
            1 - y[(-c).argsort()].double().cumsum(0) / _counts(c)
        ),
        "in place on its own": risks_in_place,
    },
    "08.4": {
        "the formula": focal,
        "a loop": focal_by_loop,
        "float32": lambda z, y, g: focal(z.float(), y, g),
        "cross-entropy of each": lambda z, y, g: (
            (1 - (-(x := F.cross_entropy(z, y, reduction="none"))).exp()) ** g * x
        ).mean(),
        "an index": lambda z, y, g: (
            -((1 - z.softmax(1)[range(len(y)), y]) ** g * log_p_of(z, y)).mean()
        ),
        "one-hot and einsum": lambda z, y, g: (
            -torch.einsum(
                "nk,nk,nk->",
                F.one_hot(y, z.shape[1]).double(),
                (1 - z.softmax(1)) ** g,
                z.log_softmax(1),
            )
            / len(y)
        ),
        "of shape (1,)": lambda z, y, g: focal(z, y, g)[None],
        "the probability of the others": lambda z, y, g: (
            -(
                z.softmax(1)
                .masked_fill(F.one_hot(y, z.shape[1]).bool(), 0)
                .sum(1)
                .pow(g)
                * log_p_of(z, y)
            ).mean()
        ),
    },
    "08.5": {
        "the formula": reward,
        "by cases": reward_by_cases,
        "a loop": reward_by_loop,
        "float32": lambda y, c, w: reward(y.float(), c.float(), w),
        "multiplied out": lambda y, c, w: y - w * (c * c - 2 * c * y + y * y),
        "rows that are stacked": lambda y, c, w: torch.stack(
            [reward(a, b, w) for a, b in zip(y, c)]
        ),
        "in place on its own": lambda y, c, w: (c - y).square_().mul_(-w).add_(y),
        "numpy, made a tensor": lambda y, c, w: torch.from_numpy(
            reward(y.numpy(), c.numpy(), w)
        ),
    },
}
