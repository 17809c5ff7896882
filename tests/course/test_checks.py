"""The checks accept right answers, reject wrong ones, and name each known mistake.

A table of mutants: for each exercise the reference answers, then, under the name that
the message must begin with, the ways to make that mistake.
"""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from alignlab.course import check
from alignlab.course.checks import EXERCISES, CheckFailed, CheckResult, grade
from alignlab.errors import AlignlabError
from tests.grading import as_params, fails_by_name, stub

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
    "returns one number a row": [lambda z, x: log_probs(z, x).sum(1)],
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

# --- 03.1 -------------------------------------------------------------------------

F = torch.nn.functional


def comparison_loss(chosen, rejected):
    return -F.logsigmoid(chosen - rejected).mean()


def changes_chosen(chosen, rejected):
    chosen -= rejected
    return -F.logsigmoid(chosen).mean()


COMPARISONS = {
    "chosen and rejected exchanged": [lambda c, r: comparison_loss(r, c)],
    "sign flipped": [
        lambda c, r: -comparison_loss(c, r),
        lambda c, r: -comparison_loss(r, c),
    ],
    "sum, not mean": [lambda c, r: comparison_loss(c, r) * len(c)],
    "no logarithm": [
        lambda c, r: -(c - r).sigmoid().mean(),
        lambda c, r: (r - c).sigmoid().mean(),
    ],
    "no sigmoid": [lambda c, r: (r - c).mean()],
    "each reply by itself": [
        lambda c, r: -(F.logsigmoid(c) + F.logsigmoid(-r)).mean(),
        lambda c, r: -F.logsigmoid(c).mean(),
    ],
    "a hinge": [lambda c, r: (1 - c + r).relu().mean()],
    "a squared error": [lambda c, r: (1 - (c - r).sigmoid()).square().mean()],
    "mean before the sigmoid": [lambda c, r: -F.logsigmoid((c - r).mean())],
    "zero": [lambda c, r: (c * 0).sum()],
    "overflows": [
        lambda c, r: -(c - r).sigmoid().log().mean(),
        lambda c, r: -(c.exp() / (c.exp() + r.exp())).log().mean(),
    ],
    "not reduced to one number": [
        lambda c, r: -F.logsigmoid(c - r),
        lambda c, r: -F.logsigmoid(c[:, None] - r),
    ],
    "no gradient": [
        lambda c, r: comparison_loss(c, r).item(),
        lambda c, r: comparison_loss(c.detach(), r.detach()),
    ],
    "wrong gradient": [lambda c, r: comparison_loss(c, r.detach())],
    "changes its input: chosen": [changes_chosen],
    "not the right values": [
        lambda c, r: comparison_loss(c, r) * 1.001,
        lambda c, r: comparison_loss(c, r) / math.log(2),
        lambda c, r: comparison_loss(c - 0.1, r),
    ],
}

# --- 03.2 -------------------------------------------------------------------------


def entropy(p):
    return -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p))


def floors_of(p):
    return (p * (1 - p)).mean(), entropy(p).mean()


def floors_by_hand(p):
    brier = nll = 0.0
    for q in p.tolist():
        brier += (q * (1 - q) ** 2 + (1 - q) * q**2) / len(p)
        nll -= sum(x * math.log(x) for x in (q, 1 - q) if x) / len(p)
    return [brier, nll]


FLOORS = {
    "the likelier label only": [
        lambda p: (
            torch.minimum(p**2, (1 - p) ** 2).mean(),
            -torch.maximum(p, 1 - p).log().mean(),
        ),
        lambda p: (torch.minimum(p, 1 - p).square().mean(), entropy(p).mean()),
    ],
    "of the mean probability": [
        lambda p: floors_of(p.mean()),
        lambda p: (floors_of(p)[0], entropy(p.mean())),
    ],
    "one outcome only": [
        lambda p: (floors_of(p)[0], -torch.xlogy(p, p).mean()),
        lambda p: ((p * (1 - p) ** 2).mean(), entropy(p).mean()),
    ],
    "in bits": [lambda p: (floors_of(p)[0], entropy(p).mean() / math.log(2))],
    "sign flipped": [lambda p: (floors_of(p)[0], -entropy(p).mean())],
    "summed over pairs": [lambda p: ((p * (1 - p)).sum(), entropy(p).sum())],
    "exchanged": [lambda p: floors_of(p)[::-1]],
    "both sides counted": [lambda p: (2 * floors_of(p)[0], floors_of(p)[1])],
    "zeros": [lambda p: (0.0, 0.0)],
    "gives NaN where a probability is 0 or 1": [
        lambda p: (floors_of(p)[0], -(p * p.log() + (1 - p) * (1 - p).log()).mean())
    ],
    "one number for each pair": [lambda p: (p * (1 - p), entropy(p))],
    "returns 3 things": [lambda p: (*floors_of(p), 0.0)],
    "returns shape ()": [lambda p: floors_of(p)[0]],
    "changes its input: probability": [lambda p: (floors_of(p), p.zero_())[0]],
    "not the right values": [
        lambda p: tuple(1.001 * value for value in floors_of(p)),
        lambda p: (0.1875, 0.5623),  # of a quarter of wrong labels, whatever is given
    ],
}

# --- 03.3 -------------------------------------------------------------------------


def ranking_loss(rewards):
    behind = rewards.flip(1).logcumsumexp(1).flip(1)
    return (behind - rewards).sum(1).mean()


def ranking_by_hand(rewards):
    total = 0.0
    for row in rewards:
        for k in range(len(row)):
            total = total + row[k:].logsumexp(0) - row[k]
    return total / len(rewards)


def in_pairs(rewards):
    _, k = rewards.shape
    best, worse = torch.triu_indices(k, k, 1)
    return F.softplus(rewards[:, worse] - rewards[:, best])


def without_itself(rewards):
    behind = rewards.flip(1).logcumsumexp(1).flip(1)
    return (behind[:, 1:] - rewards[:, :-1]).sum(1).mean()


RANKINGS = {
    "ranked the wrong way": [lambda r: ranking_loss(r.flip(1))],
    "sign flipped": [lambda r: -ranking_loss(r)],
    "divides by K": [lambda r: ranking_loss(r) / r.shape[1]],
    "zero": [lambda r: (r * 0).sum()],
    "leaves out the reply itself": [without_itself],
    "the first place only": [lambda r: (r.logsumexp(1) - r[:, 0]).mean()],
    "everyone stays in": [lambda r: -r.log_softmax(1).sum(1).mean()],
    "pairs of a ranking": [
        lambda r: in_pairs(r).mean(),
        lambda r: in_pairs(r).sum(1).mean(),
    ],
    "neighbours only": [lambda r: F.softplus(r[:, 1:] - r[:, :-1]).sum(1).mean()],
    "sum over rankings": [lambda r: ranking_loss(r) * len(r)],
    "not reduced to one number": [
        lambda r: r.flip(1).logcumsumexp(1).flip(1) - r,
        lambda r: (r.flip(1).logcumsumexp(1).flip(1) - r).sum(1),
    ],
    "no gradient": [lambda r: ranking_loss(r).item()],
    "wrong gradient": [
        lambda r: ranking_loss(r.detach()) + (r - r.detach()).sum(),
    ],
    "changes its input: rewards": [lambda r: (ranking_loss(r), r.zero_())[0]],
    "not the right values": [
        lambda r: ranking_loss(r) * 1.001,
        lambda r: ranking_loss(r[:1]),
    ],
}

# --- The tables -------------------------------------------------------------------

REFERENCES = [
    ("00.1", log_probs),
    ("00.1", log_probs_by_hand),
    ("00.1", lambda z, x: log_probs(z.float(), x)),
    ("00.2", softened),
    ("00.2", lambda z, T, g: softened(z.float(), T, g)),
    ("00.2", sample_by_gumbel),
    ("00.2", sample_by_inversion),
    ("01.1", mask_of),
    ("01.1", lambda p, x: np.arange(len(x)) >= len(p)),
    ("01.2", weights_of),
    ("01.2", weights_by_logs),
    ("01.3", loss_of),
    ("01.3", loss_by_selection),
    ("01.3", lambda z, x, m: loss_of(z.float(), x, m)),
    ("03.1", comparison_loss),
    ("03.1", lambda c, r: F.softplus(r - c).mean()),
    ("03.1", lambda c, r: comparison_loss(c.float(), r.float())),
    ("03.2", floors_of),
    ("03.2", floors_by_hand),
    ("03.2", lambda p: torch.stack(floors_of(p.float()))),
    ("03.3", ranking_loss),
    ("03.3", ranking_by_hand),
    ("03.3", lambda r: ranking_loss(r.float())),
]
TABLE = {
    "00.1": TOKENS,
    "00.2": SAMPLES,
    "01.1": MASKS,
    "01.2": MIXTURES,
    "01.3": LOSSES,
    "03.1": COMPARISONS,
    "03.2": FLOORS,
    "03.3": RANKINGS,
}


@pytest.mark.parametrize("number, answer", REFERENCES)
def test_a_right_answer_passes(number, answer):
    result = check(number, answer)
    assert result.passed and result.score == 1, result
    assert result.message.startswith("Right: ") and not result.hint


@pytest.mark.parametrize("number, name, answer", as_params(TABLE))
def test_a_wrong_answer_fails_under_the_name_of_its_mistake(number, name, answer):
    fails_by_name(number, name, answer)


@pytest.mark.parametrize("number", EXERCISES)
def test_a_stub_is_not_answered_yet(number):
    result = grade(number, stub)
    assert not result.passed and result.score == 0
    assert result.message.startswith("not answered yet: write my_")


def test_every_exercise_has_a_reference_and_at_least_four_mutants():
    assert {number for number, _ in REFERENCES} == set(EXERCISES) == set(TABLE)
    assert all(len(table) >= 4 for table in TABLE.values())


@pytest.mark.parametrize("number", EXERCISES)
def test_every_mistake_that_the_check_knows_has_a_mutant(number):
    first = EXERCISES[number].cases()[0]
    known = {message.partition(":")[0] for message in EXERCISES[number].mistakes(first)}
    tested = set(TABLE[number])
    assert all(any(k.startswith(name) for name in tested) for k in known)


@pytest.mark.parametrize("number", EXERCISES)
def test_the_cases_tell_every_two_known_mistakes_apart(number):
    task = EXERCISES[number]
    tables = [task.mistakes(case) for case in task.cases()]
    tables = [table for table in tables if table]
    for one in tables[0]:
        for other in tables[0]:
            if one != other:
                assert not all(
                    task.agrees(output, wrong)
                    for table in tables
                    for output, wrong in zip(table[one][:1], table[other][:1])
                ), (one, other)


# --- What a reader meets ----------------------------------------------------------


def test_a_failed_check_raises_an_assertion_error_that_says_why():
    with pytest.raises(AssertionError, match="sign flipped: .*\n  Hint: ") as caught:
        check("00.1", lambda z, x: -log_probs(z, x))
    assert isinstance(caught.value, CheckFailed) and not caught.value.result.passed


def test_the_score_is_the_share_of_cases_that_are_right():
    # Wrong where the first token is masked in, right in the two other cases, and the
    # gradient is not asked for before the values are right.
    assert grade("01.3", lambda z, x, m: total(z, x, m) / m.sum()).score == 2 / 4
    assert grade("01.3", lambda z, x, m: loss_of(z, x, m).item()).score == 3 / 4


def test_an_exception_is_told_with_its_line_and_the_shapes():
    message = grade("00.1", lambda z, x: z.no_such_thing).message
    assert message.startswith("raised AttributeError: ")
    assert "no_such_thing).message`" in message
    assert message.endswith("logits (3, 7, 11) float64, input_ids (3, 7) int64")


def test_an_exception_names_small_arguments_by_value():
    message = grade("01.2", lambda sizes: sizes).message
    assert "raised TypeError" in message and "'poems': 12" in message
    assert message.endswith("temperature 2.0")


def test_the_result_in_place_of_the_function_is_told_apart():
    result = grade("01.1", [0, 0, 1])
    assert not result.passed
    assert 'check("01.1", my_completion_mask)' in result.message


def test_an_interrupt_is_not_an_answer():
    def interrupted(*args):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grade("00.1", interrupted)


@pytest.mark.parametrize("wrong, near", [("00.01", "00.1"), ("01.03", "01.3")])
def test_an_unknown_exercise_is_an_error_with_suggestions(wrong, near):
    with pytest.raises(AlignlabError, match=f'"{near}"') as caught:
        check(wrong, log_probs)
    assert "01.2" in caught.value.remedy
    with pytest.raises(AlignlabError, match="no exercise 7"):
        check(7, log_probs)


def test_results_are_text_html_and_json():
    result = CheckResult("00.1", False, 0.5, "a < b, see `mask[:, 1:]`", "shift")
    assert repr(result) == (
        "\u2717 Exercise 00.1: a < b, see `mask[:, 1:]`\n  Hint: shift"
    )
    assert "a &lt; b, see <code>mask[:, 1:]</code>" in result._repr_html_()
    assert CheckResult(**json.loads(json.dumps(result.to_dict()))) == result
    assert "Hint" not in CheckResult("00.1", True, 1.0, "Right.")._repr_html_()


def test_a_notebook_shows_a_box_and_one_line_for_a_traceback():
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    shell = InteractiveShell.instance()
    try:
        with capture_output() as shown:
            cell = 'from alignlab.course import check\ncheck("01.1", lambda p, x: [])'
            outcome = shell.run_cell(cell)
    finally:
        InteractiveShell.clear_instance()
    assert isinstance(outcome.error_in_exec, AssertionError)
    assert "<strong" in shown.outputs[0].data["text/html"]
    assert shown.stdout.count("CheckFailed: exercise 01.1: ") == 1
    assert "Traceback" not in shown.stdout + shown.stderr


def test_importing_the_checks_imports_no_torch():
    code = "import sys, alignlab.course; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
