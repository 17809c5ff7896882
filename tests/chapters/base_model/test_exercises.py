"""The checks of notebook 00 accept right answers, reject wrong ones, and name each
known mistake: a table of mutants, as for the other exercises."""

import math

import numpy as np
import pytest
import torch

from alignlab.chapters.base_model.exercises import EXERCISES
from tests.grading import as_params, covers, fails_by_name, passes, tells_mistakes_apart

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
    "not the right values": [
        lambda z, x: log_probs(z, x) * 1.001,
        lambda z, x: log_probs(z, x) + math.nan,
        lambda z, x: log_probs(z, x) / math.log(2),
    ],
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
    "ignores the generator": [
        lambda z, T, g: softened(z, T, None),
        lambda z, T, g: softened(z, T, torch.Generator().manual_seed(0)),
    ],
    "changes its input: logits": [scales_in_place],
    "returns a column": [lambda z, T, g: softened(z, T, g)[:, None]],
    "returns the whole vocabulary": [lambda z, T, g: (z / (T or 1)).softmax(-1)],
    "returns one token": [lambda z, T, g: softened(z, T, g)[0]],
    "returns 6, which is no token": [lambda z, T, g: torch.full((len(z),), 6)],
    "returns 0.5, which is no token": [lambda z, T, g: torch.full((len(z),), 0.5)],
    "not the right values": [
        sampler(lambda z, T: (z / (1.15 * T)).softmax(-1)),
        lambda z, T, g: softened(z, T, g)[:1].expand(len(z)),  # one draw for all
        lambda z, T, g: torch.zeros(len(z)),
        sampler(lambda z, T: (z / T**2).softmax(-1)),
    ],
}

# --- The tables -------------------------------------------------------------------

TABLE = {"00.1": TOKENS, "00.2": SAMPLES}
REFERENCES = [
    ("00.1", log_probs),
    ("00.1", log_probs_by_hand),
    ("00.1", lambda z, x: log_probs(z.float(), x)),
    ("00.2", softened),
    ("00.2", lambda z, T, g: softened(z.float(), T, g)),
    ("00.2", sample_by_gumbel),
    ("00.2", sample_by_inversion),
]


@pytest.mark.parametrize("number, answer", REFERENCES)
def test_a_right_answer_passes(number, answer):
    passes(number, answer)


@pytest.mark.parametrize("number, name, answer", as_params(TABLE))
def test_a_wrong_answer_fails_under_the_name_of_its_mistake(number, name, answer):
    fails_by_name(number, name, answer)


def test_every_exercise_has_references_and_every_known_mistake_a_mutant():
    covers(REFERENCES, TABLE, EXERCISES)


def test_the_cases_tell_every_two_known_mistakes_apart():
    tells_mistakes_apart(EXERCISES)
