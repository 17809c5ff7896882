"""Right and wrong answers to the exercises of notebook 01."""

import math

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from alignlab import objectives as library
from alignlab.world.tasks import mixture_weights


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


def mask_by_loop(prompt, whole):
    mask = []
    for place, _ in enumerate(whole):
        mask.append(1 if place >= len(prompt) else 0)
    return mask


def mask_in_place(prompt, whole):
    for place in range(len(whole)):
        whole[place] = 0 if prompt else 1
        if prompt:
            prompt.pop()
    return whole


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
    "the end token alone": [
        lambda p, x: [int(i == len(x) - 1) for i in range(len(x))],
        lambda p, x: [int(t == END) for t in x],
    ],
    "the first token alone": [
        lambda p, x: [int(i == len(p)) for i in range(len(x))],
    ],
    "not 0 and 1": [
        lambda p, x: [2 * m for m in mask_of(p, x)],
        lambda p, x: [m * t for m, t in zip(mask_of(p, x), x)],
        lambda p, x: [-100] * len(p) + x[len(p) :],
    ],
    "normalised": [lambda p, x: np.array(mask_of(p, x)) / sum(mask_of(p, x))],
    "counted from the end": [
        lambda p, x: [int(i >= len(x) - len(p)) for i in range(len(x))]
    ],
    "one number": [lambda p, x: len(x) - len(p)],
    "too long": [lambda p, x: [0] * len(p) + [1] * len(x)],
    "returns nothing": [lambda p, x: mask_of(p, x).reverse()],
    "backwards": [lambda p, x: mask_of(p, x)[::-1]],
    "wrong at the last place only": [
        lambda p, x: mask_of(p, x) if len(x) > len(p) + 1 else [0] * len(x),
    ],
    "not the right values": [
        lambda p, x: [int(i >= 8) for i in range(len(x))],
    ],
}

# --- 01.5 -------------------------------------------------------------------------


def normalised(weight):
    def answer(sizes, temperature):
        weights = {name: weight(size, temperature) for name, size in sizes.items()}
        return {name: w / sum(weights.values()) for name, w in weights.items()}

    return answer


weights_of = normalised(lambda n, T: n ** (1 / T))


def weights_by_logs(sizes, temperature):
    logits = torch.tensor(list(sizes.values())).log() / temperature  # float32
    return dict(reversed(list(zip(sizes, logits.softmax(0)))))


def weights_by_numpy(sizes, temperature):
    powers = np.array(list(sizes.values())) ** (1 / temperature)
    return dict(zip(sizes, powers / powers.sum()))


def weights_by_loop(sizes, temperature):
    total, weights = 0.0, {}
    for name in sizes:
        weights[name] = math.exp(math.log(sizes[name]) / temperature)
        total += weights[name]
    for name in weights:
        weights[name] /= total
    return weights


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
    "divided by the temperature": [
        lambda s, T: {k: n / sum(s.values()) / T for k, n in s.items()}
    ],
    "relative to the largest": [
        lambda s, T: {k: (n / max(s.values())) ** (1 / T) for k, n in s.items()},
        lambda s, T: {k: n / max(s.values()) for k, n in s.items()},
    ],
    "logarithms in place of powers": [normalised(lambda n, T: math.log(n))],
    "the square root": [normalised(lambda n, T: n**0.5)],
    "the other way round": [normalised(lambda n, T: n ** (-1 / T))],
    "capped": [normalised(lambda n, T: min(n, 100))],
    "always 0": [lambda s, T: dict.fromkeys(s, 0.0)],
    "in percent": [lambda s, T: {k: 100 * w for k, w in weights_of(s, T).items()}],
    "one minus": [lambda s, T: {k: 1 - w for k, w in weights_of(s, T).items()}],
    "rounded": [lambda s, T: {k: round(w, 2) for k, w in weights_of(s, T).items()}],
    "calls the library's own": [
        lambda s, T: mixture_weights(s, "temperature", temperature=T)
    ],
    "wrong for temperature": [
        lambda s, T: weights_of(s, int(T)) if T >= 1 else weights_of(s, 1),
    ],
    "out of order": [
        lambda s, T: dict(zip(s, sorted(weights_of(s, T).values(), reverse=True))),
    ],
    "returns 9e+04: this is from 0 to 1": [
        lambda s, T: {k: int(n ** (1 / T)) for k, n in s.items()}
    ],
}

# --- 01.2 -------------------------------------------------------------------------


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


def loss_by_loops(logits, ids, mask):
    total, count = 0.0, 0
    for row, scores in enumerate(logits):
        for t in range(1, len(scores)):
            if mask[row, t]:
                total = total - scores[t - 1].log_softmax(0)[ids[row, t]]
                count += 1
    return total / count


def loss_in_place(logits, ids, mask):
    losses = -log_probs(logits, ids)
    losses *= mask[:, 1:]
    return losses.sum().div_(mask[:, 1:].sum())


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
    "probabilities, not their logarithms": [
        lambda z, x, m: -(log_probs(z, x).exp() * m[:, 1:]).sum() / m[:, 1:].sum()
    ],
    "no softmax": [
        lambda z, x, m: -(pick(z[:, :-1], x[:, 1:]) * m[:, 1:]).sum() / m[:, 1:].sum()
    ],
    "inverted": [lambda z, x, m: loss_of(z, x, 1 - m)],
    "perplexity": [lambda z, x, m: loss_of(z, x, m).exp()],
    "in bits": [lambda z, x, m: loss_of(z, x, m) / math.log(2)],
    "logarithms to base 10": [lambda z, x, m: loss_of(z, x, m) / math.log(10)],
    "every value is 1.001 times": [lambda z, x, m: loss_of(z, x, m) * 1.001],
    "calls the library's own": [
        library.sft_loss,
        lambda z, x, m: library.sft_loss(z, x, m),
    ],
    "right only for a batch of one row": [
        lambda z, x, m: (
            row_means(z[:1], x[:1], m[:1]) if len(x) > 1 else row_means(z, x, m)
        )
    ],
    "returns a str": [lambda z, x, m: f"{loss_of(z, x, m):.3f}"],
    "off by one (shifted the wrong way)": [
        lambda z, x, m: loss_of(z.flip(1), x.flip(1), m.flip(1))
    ],
}

# --- The tables -------------------------------------------------------------------

WRONG = {"01.1": MASKS, "01.5": MIXTURES, "01.2": LOSSES}

RIGHT = {
    "01.1": {
        "lists": mask_of,
        "numpy of booleans": lambda p, x: np.arange(len(x)) >= len(p),
        "a tensor": lambda p, x: torch.tensor(mask_of(p, x)),
        "a tuple": lambda p, x: tuple(mask_of(p, x)),
        "floats": lambda p, x: [float(m) for m in mask_of(p, x)],
        "numpy with negative strides": lambda p, x: np.array(mask_of(p, x)[::-1])[::-1],
        "a loop": mask_by_loop,
        "0-d tensors": lambda p, x: [torch.tensor(m) for m in mask_of(p, x)],
        "a copy that is changed": lambda p, x: mask_in_place(list(p), list(x)),
    },
    "01.5": {
        "powers": weights_of,
        "logarithms in float32": weights_by_logs,
        "0-d tensors": lambda s, T: {
            k: torch.tensor(w) for k, w in weights_of(s, T).items()
        },
        "numpy": weights_by_numpy,
        "shares first": lambda s, T: weights_of(
            {k: n / sum(s.values()) for k, n in s.items()}, T
        ),
        "a series": lambda s, T: pd.Series(weights_of(s, T)),
        "a loop": weights_by_loop,
        "in another order": lambda s, T: dict(reversed(weights_of(s, T).items())),
    },
    "01.2": {
        "gather": loss_of,
        "cross-entropy of those selected": loss_by_selection,
        "float32": lambda z, x, m: loss_of(z.float(), x, m),
        "ignored labels": lambda z, x, m: F.cross_entropy(
            z[:, :-1].transpose(1, 2),
            x.masked_fill(m == 0, -100)[:, 1:],
        ),
        "loops": loss_by_loops,
        "einsum": lambda z, x, m: (
            -torch.einsum("bt,bt->", log_probs(z, x), m[:, 1:].double())
            / m[:, 1:].sum()
        ),
        "einsum in float32": lambda z, x, m: (
            -torch.einsum("bt,bt->", log_probs(z, x), m[:, 1:].float()) / m[:, 1:].sum()
        ),
        "of shape (1,)": lambda z, x, m: loss_of(z, x, m)[None],
        "in place on its own": loss_in_place,
    },
}
