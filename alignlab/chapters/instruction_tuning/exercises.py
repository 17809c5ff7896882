"""Exercises of notebook 01: the completion mask, mixture weights, the loss of SFT."""

import math
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from alignlab.course.exercise import (
    Case,
    Exercise,
    Misfit,
    gradient_fault,
    random_texts,
    scalar,
    tensor,
    told_apart,
    unshift,
)

if TYPE_CHECKING:
    from torch import Tensor

END, USER, ASSISTANT = 1, 2, 3  # ids in the shipped tokenizer


# --- 01.1: the mask of what is learnt ---------------------------------------------


def _mask_cases() -> list[Case]:
    """Chats in the shipped template; replies repeat words of their prompts."""
    import torch

    draw, cases = random.Random(0), []
    for prompt_length, reply_length, about in (
        (5, 3, "replies of several words"),
        (3, 0, "an empty reply"),
        (9, 1, "a reply of one word"),
        (2, 8, "replies of several words"),
    ):
        words = [draw.randrange(5, 2048) for _ in range(prompt_length)]
        reply = [
            draw.choice([*words, draw.randrange(5, 2048)]) for _ in range(reply_length)
        ]
        reply[:1] = words[:1] if reply_length else []
        prompt = [USER, *words, END, ASSISTANT]
        whole = [*prompt, *reply, END]
        mask = torch.zeros(len(whole), dtype=torch.float64)
        mask[len(prompt) :] = 1
        args = {"prompt_ids": prompt, "input_ids": whole}
        cases.append(Case(args, mask, about))
    return cases


def _read_mask(output, prompt_ids, input_ids) -> "Tensor":
    length, learnt = len(input_ids), len(input_ids) - len(prompt_ids)
    notes = {
        (length - 1,): "one too short: the mask has an entry for each token; the loss "
        "does the shifting",
        (
            learnt,
        ): "covers the completion only: the prompt's tokens get an entry too, 0",
        (): "one number: the mask has an entry for each token",
        (2 * length - learnt,): "too long: input_ids hold the prompt already",
    }
    return tensor(output, (length,), notes)


def _mask_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    prompt, whole = case.args["prompt_ids"], torch.tensor(case.args["input_ids"])
    right, start = case.expected, len(prompt)
    ends = (whole == END).double()

    def from_token(first: int) -> "Tensor":
        return (torch.arange(len(whole)) >= first).double()

    return {
        "off by one (too early): the prompt's last token is marked as well": [
            from_token(start - 1)
        ],
        "off by one (too late): the completion's first token is left out": [
            from_token(start + 1)
        ],
        "inverted: 1 marks what is learnt, which is the completion": [1 - right],
        "all ones: the prompt is given, not learnt; it gets 0": [
            torch.ones_like(right)
        ],
        "all zeros: nothing can be learnt": [torch.zeros_like(right)],
        "end token left out: without the closing <|end|> the model never learns to "
        "stop": [right - from_token(len(whole) - 1)],
        "end token of the prompt marked: only the <|end|> that closes the completion "
        "is learnt": [right.maximum(ends)],
        "looks at the tokens, not at their places: a reply may repeat words of its "
        "prompt": [1 - torch.isin(whole, torch.tensor(prompt)).double()],
        "the end token alone: the words of the completion are learnt as well": [
            from_token(len(whole) - 1),
            ends,
        ],
        "the first token alone: the whole completion is learnt": [
            from_token(start) - from_token(start + 1)
        ],
        "not 0 and 1: whole numbers other than these weigh tokens": [
            2 * right,
            right * whole,
            right * whole - 100 * (1 - right),
        ],
        "normalised: the loss divides by the number of ones itself": [
            right / right.sum()
        ],
        "counted from the end of a reply as long as the prompt": [
            from_token(len(whole) - len(prompt))
        ],
    }


# --- 01.5: mixture weights --------------------------------------------------------


def _mixture_cases() -> list[Case]:
    sizes = {"capitals": 190, "poems": 12, "sums": 300, "spam": 75}
    few = {"long": 240, "short": 3}
    settings = ((sizes, 2.0), (sizes, 1.0), (few, 5.0), (sizes, 0.5))
    cases = []
    for have, temperature in settings:
        args = {"sizes": have, "temperature": temperature}
        about = f"temperature {temperature:g}"
        cases.append(Case(args, _mixture("temperature", have, temperature), about))
    return cases


def _mixture(scheme: str, sizes: dict[str, int], temperature: float = 1.0) -> "Tensor":
    import torch

    from alignlab.world.tasks import mixture_weights

    weights = mixture_weights(sizes, scheme, temperature=temperature)
    return torch.tensor([weights[name] for name in sizes], dtype=torch.float64)


def _read_mixture(output, sizes, temperature) -> "Tensor":
    if not hasattr(output, "keys"):
        kind = type(output).__name__
        raise Misfit(f"returns a {kind}: return a dictionary from name to weight")
    if set(output.keys()) != set(sizes):
        names = f"{list(output.keys())} where {list(sizes)} is right"
        raise Misfit(f"has other names than sizes: {names}")
    return tensor([output[name] for name in sizes], (len(sizes),))


def _mixture_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    have, temperature = case.args["sizes"], case.args["temperature"]
    sizes = torch.tensor(list(have.values()), dtype=torch.float64)
    shares = sizes / sizes.sum()
    return {
        "power upside down: size^T gives large families even more; a higher "
        "temperature flattens, size^(1/T)": [
            _mixture("temperature", have, 1 / temperature)
        ],
        "not normalised: weights are probabilities and sum to 1": [
            sizes ** (1 / temperature),
            shares ** (1 / temperature),
            sizes ** (1 / temperature) / sizes.sum(),
        ],
        "ignores the temperature: the weights are proportional to size": [
            _mixture("proportional", have)
        ],
        "equal weights: sizes still count, though less at a higher temperature": [
            _mixture("equal", have)
        ],
        "softmax of the sizes: it exponentiates, so the largest family takes nearly "
        "all; use a power": [
            sizes.softmax(0),
            (sizes / temperature).softmax(0),
            shares.softmax(0),
            (shares / temperature).softmax(0),
        ],
        "divided by the temperature: take the power 1/T of each size": [
            shares / temperature
        ],
        "relative to the largest: divide by the sum, so that they sum to 1": [
            (sizes / sizes.max()) ** (1 / temperature),
            sizes / sizes.max(),
        ],
        "logarithms in place of powers: take size^(1/T)": [
            sizes.log() / sizes.log().sum(),
            (sizes.log() / temperature).softmax(0).log(),
        ],
        "the square root, whatever the temperature: take the power 1/T": [
            sizes.sqrt() / sizes.sqrt().sum()
        ],
        "the other way round: a larger family weighs more": [
            sizes ** (-1 / temperature) / (sizes ** (-1 / temperature)).sum()
        ],
        "capped: that is another scheme; take the power 1/T": [
            sizes.clamp(max=cap) / sizes.clamp(max=cap).sum() for cap in (50, 100, 200)
        ],
    }


# --- 01.2: the loss of supervised fine-tuning -------------------------------------


def _loss_cases() -> list[Case]:
    """Prompt, completion, padding in each row; then one that learns a whole row."""
    import torch

    from alignlab.objectives import sft_loss

    spans = (
        ([(3, 4), (2, 9), (6, 9)], "rows of unequal length"),
        ([(4, 5), (1, 10)], "rows of unequal length"),
        ([(0, 10), (5, 7)], "a mask of 1 on the first token, which nothing predicts"),
        ([(2, 6)], "a batch of one row"),
    )
    cases = []
    for seed, (rows, about) in enumerate(spans):
        logits, ids = random_texts(seed, len(rows), 10, 13)
        mask = torch.zeros_like(ids)
        for row, (start, stop) in enumerate(rows):
            mask[row, start:stop] = 1
        args = {"logits": logits, "input_ids": ids, "mask": mask}
        cases.append(Case(args, sft_loss(logits, ids, mask), about))
    return cases


def _read_loss(output, logits, input_ids, mask) -> "Tensor":
    batch, time = mask.shape
    shapes = [(batch,), (batch, time), (batch, time - 1)]
    return scalar(output, shapes, "a loss is a scalar")


def _loss_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    from alignlab.objectives import sequence_log_probs, sft_loss, token_log_probs

    logits, ids, mask = case.args.values()
    right, everything = case.expected, torch.ones_like(mask)
    own = logits[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
    rows = -sequence_log_probs(logits, ids, mask)  # (B,)
    means = -sequence_log_probs(logits, ids, mask, reduction="mean")
    late = -sequence_log_probs(logits, ids, mask.roll(1, dims=1)).sum()
    counts = [x.sum() for x in (mask[:, :-1], mask[:, 1:], mask)]
    until_padding = (mask.flip(1).cumsum(1).flip(1) > 0).long()
    mistakes = {
        "mean of row means: each row counts the same, so a token of a short completion "
        "weighs more; divide the sum over all tokens by their number": [means.mean()],
        "sum, not mean: divide by the number of masked tokens": [rows.sum()],
        "divides by the number of rows: divide by the number of masked tokens": [
            rows.mean()
        ],
        "divides by all tokens: only the masked ones count, above and below": [
            rows.sum() / ids.numel(),
            rows.sum() / ids[:, 1:].numel(),
        ],
        "mask not shifted: column t of the log-probabilities is of token t+1, so it is "
        "the mask of t+1 that belongs to it": [late / count for count in counts],
        "off by one (no shift): each token is scored by the logits of its own "
        "position, which have already seen it": [sft_loss(*unshift(logits, ids, mask))],
        "sign flipped: a loss goes down as the tokens become likelier": [-right],
        "zero: nothing can be learnt": [torch.zeros_like(right)],
        "includes the prompt: the mask says which tokens count": [
            sft_loss(logits, ids, everything),
            sft_loss(logits, ids, until_padding),
        ],
        "counts the first token: nothing predicts it, so it is in the sum never and "
        "must not be in the number either": [rows.sum() / mask.sum()],
        "probabilities, not their logarithms": [
            -(token_log_probs(logits, ids).exp() * mask[:, 1:]).sum()
            / mask[:, 1:].sum()
        ],
        "no softmax: the loss takes log-probabilities, not logits": [
            -(own * mask[:, 1:]).sum() / mask[:, 1:].sum()
        ],
        "inverted: the mask is 1 on what is learnt": [sft_loss(logits, ids, 1 - mask)]
        if (1 - mask)[:, 1:].any()
        else [],
        "perplexity: take the logarithm": [right.exp()],
        "off by one (shifted the wrong way): each token is scored by the logits of the "
        "position after it": [
            sft_loss(*(x.flip(1) for x in (logits, ids, mask))),
        ],
        "in bits: natural logarithms give nats": [right / math.log(2)],
    }
    return told_apart(mistakes, case)


def _loss_teaches(answer: Callable) -> str:
    from alignlab.objectives import sft_loss

    return gradient_fault(answer, sft_loss, _loss_cases(), ["logits"])


# --- The exercises ----------------------------------------------------------------

EXERCISES: dict[str, Exercise] = {
    "01.1": Exercise(
        "my_completion_mask(prompt_ids, input_ids)",
        _mask_cases,
        _read_mask,
        _mask_mistakes,
        "1 on the completion and its closing <|end|>, 0 on the prompt",
        hints=(
            (
                "The list is as long as input_ids. How many of its entries belong "
                "to the prompt?"
            ),
            (
                "Input_ids begin with prompt_ids, and everything after them is the "
                "completion."
            ),
        ),
        minutes=5,
        stars=1,
    ),
    "01.2": Exercise(
        "my_sft_loss(logits, input_ids, mask)",
        _loss_cases,
        _read_loss,
        _loss_mistakes,
        "the same loss and gradient as `alignlab.objectives.sft_loss`",
        hints=(
            (
                "At which position do the logits speak about a token that is "
                "learnt? And is a mean of the rows' means the mean over tokens, if "
                "rows have different lengths?"
            ),
            (
                "One mean over all masked tokens of the batch, of minus the log-"
                "probability that exercise 00.1 computes."
            ),
        ),
        minutes=20,
        stars=2,
        also=_loss_teaches,
        library=("alignlab.objectives.log_probs.sft_loss",),
    ),
    "01.5": Exercise(
        "my_mixture_weights(sizes, temperature)",
        _mixture_cases,
        _read_mixture,
        _mixture_mistakes,
        "the same weights as `alignlab.world.tasks.mixture_weights`",
        hints=(
            (
                "Which power of its size gives a family its own size, and which "
                "gives all the same?"
            ),
            (
                "Temperature 1 is proportional to size, a very high one nearly "
                "equal, and the weights always sum to 1."
            ),
            (
                "`size ** (1 / temperature)` for each family, divided by the sum of "
                "these."
            ),
        ),
        minutes=10,
        stars=1,
        library=("alignlab.world.tasks.mixture_weights",),
    ),
}
