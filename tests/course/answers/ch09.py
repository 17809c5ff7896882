"""Right and wrong answers to the exercises of notebook 09."""

import numpy as np
import torch
import torch.nn.functional as F

from alignlab.chapters.a_real_model import lora as library

# --- 09.1 -------------------------------------------------------------------------


def lora(x, w, a, b, s):
    return x @ w.T + s / len(a) * (x @ a.T @ b.T)


def merged(w, a, b, s):
    return w + s / len(a) * b @ a


def by_loop(x, w, a, b, s):
    rows = [w @ v + s / len(a) * (b @ (a @ v)) for v in x.reshape(-1, x.shape[-1])]
    return torch.stack(rows).reshape(*x.shape[:-1], len(w))


OUTPUTS = {
    "the adapter alone": [lambda x, w, a, b, s: s / len(a) * (x @ a.T @ b.T)],
    "the frozen layer alone": [lambda x, w, a, b, s: x @ w.T],
    "alpha left out": [lambda x, w, a, b, s: x @ w.T + x @ a.T @ b.T],
    "not divided by the rank": [
        lambda x, w, a, b, s: x @ w.T + s * (x @ a.T @ b.T),
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
    "a weight": [
        lambda x, w, a, b, s: merged(w, a, b, s),
        lambda x, w, a, b, s: w,
    ],
    "calls the library's own": [
        library.lora_output,
        lambda x, w, a, b, s: library.lora_output(x, w, a, b, s),
    ],
    "right, but no tensor": [
        lambda x, w, a, b, s: lora(x, w, a, b, s).tolist(),
        lambda x, w, a, b, s: lora(x, w, a, b, s).numpy(),
    ],
    "twice the right values": [lambda x, w, a, b, s: 2 * lora(x, w, a, b, s)],
}

# --- 09.2 -------------------------------------------------------------------------

WEIGHTS = {
    "the change alone": [lambda w, a, b, s: s / len(a) * b @ a],
    "unscaled": [lambda w, a, b, s: w + b @ a],
    "not divided by the rank": [lambda w, a, b, s: w + s * b @ a],
    "the scale upside down": [lambda w, a, b, s: w + len(a) / s * b @ a],
    "subtracted": [lambda w, a, b, s: w - s / len(a) * b @ a],
    "the weight as it was": [lambda w, a, b, s: w, lambda w, a, b, s: w.clone()],
    "transposed": [
        lambda w, a, b, s: merged(w, a, b, s).T,
        lambda w, a, b, s: w.T + s / len(a) * a.T @ b.T,
    ],
    "`down @ up` multiplies": [lambda w, a, b, s: a @ a.T],
    "calls the library's own": [
        library.merged_weight,
        lambda w, a, b, s: library.merged_weight(w, a, b, s),
    ],
    "twice the right values": [lambda w, a, b, s: 2 * merged(w, a, b, s)],
    "half the right values": [lambda w, a, b, s: merged(w, a, b, s) / 2],
    "sign flipped": [lambda w, a, b, s: -merged(w, a, b, s)],
    "every value is 1.001 times": [lambda w, a, b, s: 1.001 * merged(w, a, b, s)],
}

RIGHT = {
    "09.1": {
        "matmul": lora,
        "loop over rows": by_loop,
        "F.linear": lambda x, w, a, b, s: (
            F.linear(x, w) + s / len(a) * F.linear(F.linear(x, a), b)
        ),
        "merged first": lambda x, w, a, b, s: x @ merged(w, a, b, s).T,
        "einsum": lambda x, w, a, b, s: (
            torch.einsum("...i,oi->...o", x, w)
            + torch.einsum("...i,ri,or->...o", x, a, b) * (s / a.shape[0])
        ),
        "scale first": lambda x, w, a, b, s: x @ w.T + x @ (s / len(a) * a).T @ b.T,
        "rank from up": lambda x, w, a, b, s: (
            x @ w.T + (s / b.shape[1]) * (x @ (b @ a).T)
        ),
    },
    "09.2": {
        "matmul": merged,
        "transposed twice": lambda w, a, b, s: w + (a.T @ b.T).T * (s / a.shape[0]),
        "einsum": lambda w, a, b, s: w + s / len(a) * torch.einsum("or,ri->oi", b, a),
        "outer products": lambda w, a, b, s: (
            w + s / len(a) * sum(torch.outer(b[:, r], a[r]) for r in range(len(a)))
        ),
        "numpy": lambda w, a, b, s: (
            np.asarray(w) + s / len(a) * np.asarray(b) @ np.asarray(a)
        ),
        "torch.addmm": lambda w, a, b, s: torch.addmm(w, b, a, alpha=s / len(a)),
        "lists": lambda w, a, b, s: merged(w, a, b, s).tolist(),
    },
}
WRONG = {"09.1": OUTPUTS, "09.2": WEIGHTS}
