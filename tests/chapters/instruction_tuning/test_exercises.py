"""The checks of notebook 01 accept right answers, reject wrong ones, and name each
known mistake: a table of mutants, as for the other exercises."""

import math

import numpy as np
import pytest
import torch

from alignlab.chapters.instruction_tuning.exercises import EXERCISES
from tests.grading import as_params, covers, fails_by_name, passes, tells_mistakes_apart


def pick(table, ids):
    return table.gather(-1, ids[..., None])[..., 0]


def log_probs(logits, ids):
    return pick(logits[:, :-1].log_softmax(-1), ids[:, 1:])


# --- 01.1 -------------------------------------------------------------------------


def mask_of(prompt, whole):
    return [0] * len(prompt) + [1] * (len(whole) - len(prompt))


def consumes_prompt(prompt, whole):
    mask = mask_of(prompt, whole)
    prompt.clear()
    return mask


END = 1

MASKS = {
    "off by one (too early)": [
        lambda p, x: [0] * (len(p) - 1) + mask_of(p, x)[-1:] * (len(x) - len(p) + 1)
    ],
    "off by one (too late)": [lambda p, x: [int(i > len(p)) for i in range(len(x))]],
    "inverted": [lambda p, x: [1 - m for m in mask_of(p, x)]],
    "all ones": [lambda p, x: [1] * len(x)],
    "all zeros": [lambda p, x: [0] * len(x)],
    "end token left out": [lambda p, x: mask_of(p, x)[:-1] + [0]],
    "end token of the prompt marked": [
        lambda p, x: [m or int(t == END) for m, t in zip(mask_of(p, x), x)]
    ],
    "looks at the tokens, not at their places": [
        lambda p, x: [int(t not in p) for t in x]
    ],
    "one too short": [lambda p, x: mask_of(p, x)[1:]],
    "covers the completion only": [lambda p, x: [1] * (len(x) - len(p))],
    "changes its input: prompt_ids": [consumes_prompt],
    "not the right values": [
        lambda p, x: [2 * m for m in mask_of(p, x)],
        lambda p, x: [int(i >= 8) for i in range(len(x))],
    ],
}

# --- 01.2 -------------------------------------------------------------------------


def normalised(weight):
    def answer(sizes, temperature):
        weights = {name: weight(size, temperature) for name, size in sizes.items()}
        return {name: w / sum(weights.values()) for name, w in weights.items()}

    return answer


weights_of = normalised(lambda n, T: n ** (1 / T))


def weights_by_logs(sizes, temperature):
    logits = torch.tensor(list(sizes.values())).log() / temperature  # float32
    return dict(reversed(list(zip(sizes, logits.softmax(0)))))


MIXTURES = {
    "power upside down": [normalised(lambda n, T: n**T)],
    "not normalised": [
        lambda s, T: {k: n ** (1 / T) for k, n in s.items()},
        lambda s, T: {k: (n / sum(s.values())) ** (1 / T) for k, n in s.items()},
    ],
    "ignores the temperature": [
        normalised(lambda n, T: n),
        normalised(lambda n, T: n / T),
    ],
    "equal weights": [normalised(lambda n, T: 1)],
    "softmax of the sizes": [
        normalised(lambda n, T: math.exp(n)),
        normalised(lambda n, T: math.exp(n / T)),
    ],
    "returns a list": [lambda s, T: list(weights_of(s, T).values())],
    "has other names than sizes": [lambda s, T: {}],
    "changes its input: sizes": [lambda s, T: (weights_of(s, T), s.clear())[0]],
    "not the right values": [
        normalised(lambda n, T: n**0.5),
        normalised(lambda n, T: min(n, 100)),
        lambda s, T: dict.fromkeys(s, 0.0),
    ],
}

# --- 01.3 -------------------------------------------------------------------------


def loss_of(logits, ids, mask):
    return -(log_probs(logits, ids) * mask[:, 1:]).sum() / mask[:, 1:].sum()


def loss_by_selection(logits, ids, mask):
    kept = mask[:, 1:].bool()
    return torch.nn.functional.cross_entropy(logits[:, :-1][kept], ids[:, 1:][kept])


def total(logits, ids, mask):
    return -(log_probs(logits, ids) * mask[:, 1:]).sum()


def row_means(logits, ids, mask):
    kept = log_probs(logits, ids) * mask[:, 1:]
    return -(kept.sum(1) / mask[:, 1:].sum(1)).mean()


def half_detached(logits, ids, mask):
    normal = logits.logsumexp(-1, keepdim=True).detach()
    return -(pick((logits - normal)[:, :-1], ids[:, 1:]) * mask[:, 1:]).sum() / (
        mask[:, 1:].sum()
    )


LOSSES = {
    "mean of row means": [row_means],
    "sum, not mean": [total],
    "divides by the number of rows": [lambda z, x, m: total(z, x, m) / len(x)],
    "divides by all tokens": [
        lambda z, x, m: -(log_probs(z, x) * m[:, 1:]).mean(),
        lambda z, x, m: total(z, x, m) / x.numel(),
    ],
    "mask not shifted": [
        lambda z, x, m: -(log_probs(z, x) * m[:, :-1]).sum() / m[:, :-1].sum(),
        lambda z, x, m: -(log_probs(z, x) * m[:, :-1]).sum() / m.sum(),
    ],
    "off by one (no shift)": [
        lambda z, x, m: -(pick(z.log_softmax(-1), x) * m).sum() / m.sum()
    ],
    "sign flipped": [lambda z, x, m: -loss_of(z, x, m)],
    "zero": [lambda z, x, m: 0.0, lambda z, x, m: (z * 0).sum()],
    "includes the prompt": [
        lambda z, x, m: -log_probs(z, x).mean(),
        lambda z, x, m: loss_of(z, x, (m.flip(1).cumsum(1) > 0).flip(1)),
    ],
    "counts the first token": [lambda z, x, m: total(z, x, m) / m.sum()],
    "no gradient": [
        lambda z, x, m: loss_of(z, x, m).item(),
        lambda z, x, m: loss_of(z.detach(), x, m),
    ],
    "wrong gradient": [half_detached],
    "not reduced to one number": [
        lambda z, x, m: -(log_probs(z, x) * m[:, 1:]).sum(1) / m[:, 1:].sum(),
        lambda z, x, m: -log_probs(z, x) * m[:, 1:],
    ],
    "changes its input: mask": [
        lambda z, x, m: (loss_of(z, x, m), m.zero_())[0],
    ],
    "not the right values": [
        lambda z, x, m: loss_of(z, x, m) * 1.001,
        lambda z, x, m: loss_of(z, x, m) / math.log(2),
    ],
}

# --- The tables -------------------------------------------------------------------

TABLE = {"01.1": MASKS, "01.2": MIXTURES, "01.3": LOSSES}
REFERENCES = [
    ("01.1", mask_of),
    ("01.1", lambda p, x: np.arange(len(x)) >= len(p)),
    ("01.2", weights_of),
    ("01.2", weights_by_logs),
    ("01.3", loss_of),
    ("01.3", loss_by_selection),
    ("01.3", lambda z, x, m: loss_of(z.float(), x, m)),
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
