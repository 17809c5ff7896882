"""Right and wrong answers to the exercises of notebook 00."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from alignlab import objectives as library
from alignlab.models.sampler import _choose

# --- 00.1 -------------------------------------------------------------------------


def pick(table, ids):
    return table.gather(-1, ids[..., None])[..., 0]


def log_probs(logits, ids):
    return pick(logits[:, :-1].log_softmax(-1), ids[:, 1:])


def log_probs_by_hand(logits, ids):
    scores = logits.numpy()
    normal = np.log(np.exp(scores).sum(-1))
    batch, time = ids.shape
    return [
        [scores[b, t, ids[b, t + 1]] - normal[b, t] for t in range(time - 1)]
        for b in range(batch)
    ]


def own_in_place(logits, ids):
    scores = logits[:, :-1].clone()
    scores -= scores.logsumexp(-1, keepdim=True)
    return pick(scores, ids[:, 1:])


def changes_logits(logits, ids):
    logits -= logits.logsumexp(-1, keepdim=True)
    return pick(logits[:, :-1], ids[:, 1:])


TOKENS = {
    "off by one (no shift)": [
        lambda z, x: pick(z.log_softmax(-1), x),
        lambda z, x: pick(z.log_softmax(-1), x)[:, 1:],
        lambda z, x: pick(z.log_softmax(-1), x)[:, :-1],
    ],
    "off by one (shifted the wrong way)": [
        lambda z, x: pick(z[:, 1:].log_softmax(-1), x[:, :-1])
    ],
    "raw logits": [lambda z, x: pick(z[:, :-1], x[:, 1:])],
    "softmax instead of log_softmax": [lambda z, x: log_probs(z, x).exp()],
    "normalised over the wrong axis": [
        lambda z, x: pick(z[:, :-1].log_softmax(1), x[:, 1:]),
        lambda z, x: pick(z.log_softmax(1)[:, :-1], x[:, 1:]),
        lambda z, x: pick(z[:, :-1].log_softmax(0), x[:, 1:]),
    ],
    "sign flipped": [lambda z, x: -log_probs(z, x)],
    "zeros everywhere": [lambda z, x: torch.zeros(x.shape[0], x.shape[1] - 1)],
    "ones everywhere": [lambda z, x: torch.ones(x.shape[0], x.shape[1] - 1)],
    "changes its input: logits": [changes_logits],
    "returns the whole vocabulary": [lambda z, x: z[:, :-1].log_softmax(-1)],
    "returns one number per row": [lambda z, x: log_probs(z, x).sum(1)],
    "returns shape (7, 3)": [lambda z, x: z[0].new_zeros(7, 3)],
    "returns nothing": [lambda z, x: None],
    "returns a str": [lambda z, x: "-0.7"],
    "of the likeliest token": [lambda z, x: z[:, :-1].log_softmax(-1).max(-1).values],
    "the whole distribution's entropy": [
        lambda z, x: torch.distributions.Categorical(logits=z[:, :-1]).entropy(),
        lambda z, x: -torch.distributions.Categorical(logits=z[:, :-1]).entropy(),
    ],
    "a mean over the vocabulary": [lambda z, x: z[:, :-1].log_softmax(-1).mean(-1)],
    "the largest logit taken off": [
        lambda z, x: pick((z - z.max(-1, keepdim=True).values)[:, :-1], x[:, 1:])
    ],
    "in bits": [lambda z, x: log_probs(z, x) / math.log(2)],
    "logarithms to base 10": [lambda z, x: log_probs(z, x) / math.log(10)],
    "backwards": [lambda z, x: log_probs(z, x).flip(1)],
    "added up as it goes": [lambda z, x: log_probs(z, x).cumsum(1)],
    "shifted": [lambda z, x: log_probs(z, x).roll(1, dims=1)],
    "returns NaN": [lambda z, x: log_probs(z, x) + math.nan],
    "rounded": [lambda z, x: log_probs(z, x).round(decimals=2)],
    "every value is 1.001 times": [lambda z, x: log_probs(z, x) * 1.001],
    "every value is 1 too high": [lambda z, x: 1 + log_probs(z, x)],
    "wrong for several rows": [lambda z, x: log_probs(z[:1], x[:1]).expand(len(x), -1)],
    "computes in bfloat16": [lambda z, x: log_probs(z.bfloat16(), x)],
    "computes in float16": [lambda z, x: log_probs(z.half(), x)],
    "returns complex numbers": [lambda z, x: log_probs(z, x) + 0j],
    "returns a tensor on the meta device": [
        lambda z, x: torch.empty(len(x), x.shape[1] - 1, device="meta")
    ],
    "returns rows of unequal lengths": [
        lambda z, x: [row[: i + 1] for i, row in enumerate(log_probs(z, x).tolist())]
    ],
    "calls the library's own": [
        lambda z, x: library.token_log_probs(z, x),
        library.token_log_probs,
    ],
    "not the right values": [lambda z, x: log_probs(z, x) - 0.1 * x[:, 1:]],
}

# --- 00.2 -------------------------------------------------------------------------


def draw(probabilities, generator):
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]


def sampler(reshape):
    """A sampler that is greedy at 0 and draws from reshape(logits, T) otherwise."""

    def answer(logits, temperature, generator):
        if temperature == 0:
            return logits.argmax(-1)
        return draw(reshape(logits, temperature), generator)

    return answer


softened = sampler(lambda z, T: (z / T).softmax(-1))


def sample_by_gumbel(logits, temperature, generator):
    uniform = torch.rand(logits.shape, dtype=logits.dtype, generator=generator)
    return (logits - temperature * (-uniform.log()).log()).argmax(-1)


def sample_by_inversion(logits, temperature, generator):
    if temperature == 0:
        return logits.max(-1).indices
    upto = (logits / temperature).softmax(-1).cumsum(-1)
    uniform = torch.rand(len(logits), 1, dtype=logits.dtype, generator=generator)
    return (upto < uniform).sum(-1).clamp(max=logits.shape[1] - 1)


def scales_in_place(logits, temperature, generator):
    if temperature == 0:
        return logits.argmax(-1)
    logits /= temperature
    return draw(logits.softmax(-1), generator)


def gumbel(logits, generator):
    uniform = torch.rand(logits.shape, dtype=logits.dtype, generator=generator)
    return -(-uniform.log()).log()


def reseeds_as_given(logits, temperature, generator):
    """One seed gives the same draws, and another seed others, but never any more."""
    generator.manual_seed(generator.initial_seed())
    return softened(logits, temperature, generator)


def sample_by_numpy(logits, temperature, generator):
    if temperature == 0:
        return logits.argmax(-1).numpy()
    seed = int(torch.randint(2**31, (1,), generator=generator))
    random = np.random.default_rng(seed)
    upto = np.cumsum((logits / temperature).softmax(-1).numpy(), axis=1)
    return np.argmax(upto > random.random((len(logits), 1)) * upto[:, -1:], axis=1)


SAMPLES = {
    "multiplies by the temperature": [
        sampler(lambda z, T: (z * T).softmax(-1)),
        lambda z, T, g: draw((z * T).softmax(-1), g),  # without a case for 0
    ],
    "ignores the temperature": [
        sampler(lambda z, T: z.softmax(-1)),
        sampler(lambda z, T: z.softmax(-1) / T),  # multinomial normalises it away
        lambda z, T, g: draw(z.softmax(-1), g),
    ],
    "always greedy": [lambda z, T, g: z.argmax(-1)],
    "draws from the uniform distribution": [
        sampler(lambda z, T: torch.ones_like(z)),
        lambda z, T, g: torch.randint(z.shape[1], (len(z),), generator=g),
    ],
    "divides the probabilities": [
        sampler(lambda z, T: (z.softmax(-1) / T).softmax(-1)),
        lambda z, T, g: draw((z.softmax(-1) / T).softmax(-1), g),
    ],
    "uses one row for all": [
        sampler(lambda z, T: (z[:1] / T).softmax(-1).expand_as(z)),
        sampler(lambda z, T: (z[-1:] / T).softmax(-1).expand_as(z)),
    ],
    "temperature 0 is not greedy": [
        lambda z, T, g: draw((z / (T or 1)).softmax(-1), g),
        lambda z, T, g: draw((z / T).softmax(-1), g) if T else z.argmin(-1),
    ],
    "raised RuntimeError": [lambda z, T, g: draw((z / T).softmax(-1), g)],  # NaN at 0
    "ignores the generator": [lambda z, T, g: softened(z, T, None)],
    "changes its input: logits": [scales_in_place],
    "returns a column": [lambda z, T, g: softened(z, T, g)[:, None]],
    "returns the whole vocabulary": [lambda z, T, g: (z / (T or 1)).softmax(-1)],
    "returns one token": [lambda z, T, g: softened(z, T, g)[0]],
    "returns 6, which is no token": [lambda z, T, g: torch.full((len(z),), 6)],
    "returns 0.5, which is no token": [lambda z, T, g: torch.full((len(z),), 0.5)],
    "no softmax": [sampler(lambda z, T: z / T)],
    "softmax over the rows": [sampler(lambda z, T: (z / T).softmax(0))],
    "the temperature counts twice": [sampler(lambda z, T: (z / T**2).softmax(-1))],
    "the root of the temperature": [sampler(lambda z, T: (z / T**0.5).softmax(-1))],
    "sign flipped": [
        sampler(lambda z, T: (-z / T).softmax(-1)),
        lambda z, T, g: (z - T * gumbel(z, g)).argmin(-1) if T else z.argmax(-1),
    ],
    "never the likeliest token": [
        sampler(lambda z, T: (z / T).softmax(-1) * (z < z.amax(-1, keepdim=True)))
    ],
    "reseeds at every call": [
        reseeds_as_given,
        lambda z, T, g: softened(z, T, g.manual_seed(0)),
        lambda z, T, g: softened(z, T, torch.Generator().manual_seed(0)),
    ],
    "the same token in every row": [
        lambda z, T, g: softened(z, T, g)[:1].expand(len(z)),
        lambda z, T, g: torch.zeros(len(z)),
    ],
    "calls the library's own": [_choose],
    "wrong for temperature 0.5": [
        sampler(lambda z, T: (z / max(T, 1)).softmax(-1)),
        sampler(lambda z, T: (z / (1 if T < 1 else T)).softmax(-1)),
    ],
    "wrong for temperature 2": [sampler(lambda z, T: (z / min(T, 1)).softmax(-1))],
    "wrong for temperature 0.5 and for temperature 1": [
        sampler(lambda z, T: (z / (1.15 * T)).softmax(-1))
    ],
}

# --- The tables -------------------------------------------------------------------

WRONG = {"00.1": TOKENS, "00.2": SAMPLES}

RIGHT = {
    "00.1": {
        "gather": log_probs,
        "numpy and loops": log_probs_by_hand,
        "float32": lambda z, x: log_probs(z.float(), x),
        "cross-entropy": lambda z, x: (
            -F.cross_entropy(z[:, :-1].transpose(1, 2), x[:, 1:], reduction="none")
        ),
        "one-hot and einsum": lambda z, x: torch.einsum(
            "btv,btv->bt",
            z[:, :-1].log_softmax(-1),
            F.one_hot(x[:, 1:], z.shape[-1]).double(),
        ),
        "one-hot of float32": lambda z, x: torch.einsum(
            "btv,btv->bt",
            z[:, :-1].log_softmax(-1),
            F.one_hot(x[:, 1:], z.shape[-1]).float(),
        ),
        "numpy with negative strides": lambda z, x: log_probs(
            z.flip(0), x.flip(0)
        ).numpy()[::-1],
        "a list of rows": lambda z, x: list(log_probs(z, x)),
        "a tuple of tuples": lambda z, x: tuple(map(tuple, log_probs(z, x).tolist())),
        "in place on its own": own_in_place,
        "distributions": lambda z, x: torch.distributions.Categorical(
            logits=z[:, :-1]
        ).log_prob(x[:, 1:]),
    },
    "00.2": {
        "softmax and multinomial": softened,
        "float32": lambda z, T, g: softened(z.float(), T, g),
        "Gumbel noise": sample_by_gumbel,
        "inversion": sample_by_inversion,
        "a list": lambda z, T, g: softened(z, T, g).tolist(),
        "numpy with negative strides": lambda z, T, g: softened(
            z.flip(0), T, g
        ).numpy()[::-1],
        "exponentials": sampler(lambda z, T: ((z - z.amax(1, keepdim=True)) / T).exp()),
        "a copy changed in place": lambda z, T, g: scales_in_place(z.clone(), T, g),
        "numpy seeded by a draw": sample_by_numpy,
        "floats": lambda z, T, g: softened(z, T, g).double(),
    },
}
