"""Right and wrong answers to exercise 04.1, generalised advantage estimation."""

import math

import numpy as np
import torch

from alignlab import objectives as library


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


def gae_with(r, v, m, gamma, factor):
    """With something else for γλ."""
    v, out = v * m, torch.zeros_like(r)
    advantage = following = torch.zeros_like(r[:, 0])
    for t in reversed(range(r.shape[1])):
        delta = r[:, t] + gamma * following - v[:, t]
        advantage = (delta + factor * advantage) * m[:, t]
        following = v[:, t]
        out[:, t] = advantage
    return out


def gae_stacked(r, v, m, gamma, lam):
    columns, advantage, following = [], 0, 0
    for reward, value, real in zip(r.T.flip(0), (v * m).T.flip(0), m.T.flip(0)):
        advantage = real * (reward + gamma * (following + lam * advantage) - value)
        following = value
        columns.insert(0, advantage)
    return torch.stack(columns, dim=1)


def gae_by_matrix(r, v, m, gamma, lam):
    v, time = v * m, r.shape[1]
    following = torch.cat([v[:, 1:], torch.zeros_like(v[:, :1])], dim=1)
    delta = (r + gamma * following - v) * m
    steps = torch.arange(time) - torch.arange(time)[:, None]
    powers = torch.where(steps >= 0, (gamma * lam) ** steps.clamp(min=0).double(), 0)
    return (delta @ powers.T) * m


def gae_in_place(r, v, m, gamma, lam):
    out, v = (r * m).clone(), (v * m).clone()
    out -= v
    out[:, :-1] += gamma * v[:, 1:]
    for t in range(r.shape[1] - 2, -1, -1):
        out[:, t] += gamma * lam * out[:, t + 1]
    return out


def gae_by_numpy(r, v, m, gamma, lam):
    v, advantage, out = v * m, np.zeros(len(r)), []
    for t in range(r.shape[1])[::-1]:
        following = v[:, t + 1] if t + 1 < r.shape[1] else 0.0
        delta = r[:, t] + gamma * following - v[:, t]
        advantage = (delta + gamma * lam * advantage) * m[:, t]
        out.append(advantage)
    return np.stack(out, axis=1)[:, ::-1]


def gae_of_numbers(r, v, m, gamma, lam):
    return torch.tensor(
        gae_by_numpy(r.numpy(), v.numpy(), m.numpy(), gamma, lam).tolist()
    )


def mean_over(values, m):
    return (values * m).sum() / m.sum()


WRONG = {
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
    "whitened already": [
        lambda r, v, m, g, k: library.whiten(gae(r, v, m, g, k), m),
        lambda r, v, m, g, k: (x := gae(r, v, m, g, k)) - mean_over(x, m),
    ],
    "γ + λ in place of γλ": [lambda r, v, m, g, k: gae_with(r, v, m, g, g + k)],
    "γ only once": [lambda r, v, m, g, k: gae_with(r, v, m, g, k)],
    "the reward of the token after": [
        lambda r, v, m, g, k: gae(
            torch.cat([(r * m)[:, 1:], torch.zeros_like(r[:, :1])], 1), v, m, g, k
        )
    ],
    "the reward less the value": [lambda r, v, m, g, k: (r - v) * m],
    "the rewards themselves": [
        lambda r, v, m, g, k: r * m,
        lambda r, v, m, g, k: gae(r, 0 * v, m, g, 1.0),
    ],
    "every value is 1.001 times": [lambda r, v, m, g, k: gae(r, v, m, g, k) * 1.001],
    "returns NaN": [
        lambda r, v, m, g, k: gae(r, v, m, g, k) + math.nan,
        lambda r, v, m, g, k: gae(r, v, m, g, k).masked_fill(m == 0, math.nan),
    ],
    "calls the library's own": [
        lambda r, v, m, g, k: library.generalized_advantage_estimate(r, v, m, g, k)[0]
    ],
    "right, but no tensor": [
        lambda r, v, m, g, k: gae(r, v, m, g, k).tolist(),
        lambda r, v, m, g, k: gae(r, v, m, g, k).numpy(),
    ],
    "right only for a batch of one row": [
        lambda r, v, m, g, k: gae(r[:1], v[:1], m[:1], g, k).expand_as(r)
    ],
    "changes its input: mask": [
        lambda r, v, m, g, k: (gae(r, v, m, g, k), m.fill_(1))[0]
    ],
}

RIGHT = {
    "a loop": gae,
    "sums, row by row": gae_by_sums,
    "columns that are stacked": gae_stacked,
    "a matrix of powers": gae_by_matrix,
    "float32": lambda r, v, m, g, k: gae(r.float(), v.float(), m, g, k),
    "other values in the padding": lambda r, v, m, g, k: gae(r, v, m, g, k).where(
        m == 1, 7.0
    ),
    "the padding of its input zeroed": lambda r, v, m, g, k: gae(
        r.mul_(m), v.mul_(m), m, g, k
    ),
    "in place on a clone": gae_in_place,
    "numpy, made a tensor": lambda r, v, m, g, k: torch.from_numpy(
        gae_by_numpy(r.numpy(), v.numpy(), m.numpy(), g, k).copy()
    ),
    "tensors of single numbers": gae_of_numbers,
}
