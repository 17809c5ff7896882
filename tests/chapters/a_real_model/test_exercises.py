"""The checks of notebook 09 accept right answers, reject wrong ones, and name each
known mistake."""

import pytest
from tests.grading import as_params, covers, fails_by_name, passes, tells_mistakes_apart

from alignlab.chapters.a_real_model.exercises import EXERCISES


def lora(x, weight, down, up, alpha):
    return x @ weight.T + alpha / len(down) * (x @ down.T @ up.T)


def merged(weight, down, up, alpha):
    return weight + alpha / len(down) * up @ down


REFERENCES = [
    ("09.1", lora),
    ("09.1", lambda x, w, a, b, alpha: x @ merged(w, a, b, alpha).T),
    ("09.2", merged),
    ("09.2", lambda w, a, b, alpha: w + (a.T @ b.T).T * (alpha / a.shape[0])),
]
MISTAKES = {
    "09.1": {
        "the adapter alone": [lambda x, w, a, b, s: s / len(a) * (x @ a.T @ b.T)],
        "the frozen layer alone": [lambda x, w, a, b, s: x @ w.T],
        "alpha left out": [lambda x, w, a, b, s: x @ w.T + x @ a.T @ b.T],
        "not divided by the rank": [
            lambda x, w, a, b, s: x @ w.T + s * (x @ a.T @ b.T)
        ],
        "multiplied by the rank": [
            lambda x, w, a, b, s: x @ w.T + s * len(a) * (x @ a.T @ b.T)
        ],
        "the scale upside down": [
            lambda x, w, a, b, s: x @ w.T + len(a) / s * (x @ a.T @ b.T)
        ],
        "the frozen layer scaled as well": [
            lambda x, w, a, b, s: s / len(a) * (x @ w.T + x @ a.T @ b.T)
        ],
        "subtracted": [lambda x, w, a, b, s: 2 * (x @ w.T) - lora(x, w, a, b, s)],
        "only the way down": [lambda x, w, a, b, s: x @ a.T],
    },
    "09.2": {
        "the change alone": [lambda w, a, b, s: s / len(a) * b @ a],
        "unscaled": [lambda w, a, b, s: w + b @ a],
        "not divided by the rank": [lambda w, a, b, s: w + s * b @ a],
        "the scale upside down": [lambda w, a, b, s: w + len(a) / s * b @ a],
        "subtracted": [lambda w, a, b, s: 2 * w - merged(w, a, b, s)],
        "the weight as it was": [lambda w, a, b, s: w + 0 * b @ a],
        "transposed": [lambda w, a, b, s: merged(w, a, b, s).T],
    },
}


@pytest.mark.parametrize("number, answer", REFERENCES)
def test_right_answers_pass(number, answer):
    passes(number, answer)


@pytest.mark.parametrize("number, name, answer", as_params(MISTAKES))
def test_mistakes_are_named(number, name, answer):
    fails_by_name(number, name, answer)


def test_every_exercise_and_known_mistake_is_covered():
    covers(REFERENCES, MISTAKES, EXERCISES)
    tells_mistakes_apart(EXERCISES)
