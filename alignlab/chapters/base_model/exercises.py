"""Exercises of notebook 00: the log-probability of each token, sampling a token."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from alignlab.course.exercise import (
    Case,
    Exercise,
    Misfit,
    generator,
    random_texts,
    tensor,
    told_apart,
    unshift,
)

if TYPE_CHECKING:
    from torch import Tensor

DRAWS = 4000  # tokens sampled for each row of logits
FALSE_ALARM = 1e-6  # how often a right sampler may look wrong by chance


# --- 00.1: the log-probability of each token --------------------------------------


def _token_cases() -> list[Case]:
    from alignlab.objectives import token_log_probs

    cases = []
    for size, about in (
        ((0, 3, 7, 11), "several rows"),
        ((1, 1, 6, 5), "a batch of one row"),
        ((2, 5, 4, 9), "several rows"),
        ((3, 2, 2, 7), "texts of two tokens"),
    ):
        logits, ids = random_texts(*size)
        args = {"logits": logits, "input_ids": ids}
        cases.append(Case(args, token_log_probs(logits, ids), about))
    return cases


def _read_tokens(output, logits, input_ids) -> "Tensor":
    batch, time = input_ids.shape
    notes = {
        (batch, time): "off by one (no shift): returns one column per token; nothing "
        "predicts the first token, so (B, T-1) columns are right",
        (batch, time - 1, logits.shape[2]): "returns the whole vocabulary: pick the "
        "column of the token that follows",
        (batch,): "returns one number per row: do not sum over the tokens",
    }
    return tensor(output, (batch, time - 1), notes)


def _token_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    from alignlab.objectives import token_log_probs

    logits, ids = case.args["logits"], case.args["input_ids"]
    right, before, next_ids = case.expected, logits[:, :-1], ids[:, 1:]
    raw = right + before.logsumexp(2)
    times = [raw - x.logsumexp(1).gather(1, next_ids) for x in (logits, before)]
    rows = raw - before.logsumexp(0).gather(1, next_ids.T).T
    # Rolled by one, the "next" token is the logits' own.
    own = token_log_probs(*unshift(logits, ids))  # (B, T)
    mistakes = {
        "off by one (no shift): each token is scored by the logits of its own "
        "position, which have already seen it; the logits at t predict token t+1": [
            own[:, :-1],
            own[:, 1:],
        ],
        "off by one (shifted the wrong way): each token is scored by the logits of the "
        "position after it; the logits at t predict token t+1": [
            token_log_probs(logits.flip(1), ids.flip(1)).flip(1)
        ],
        "raw logits: they are not normalised yet; log-probabilities are logits less "
        "their log-sum-exp over the vocabulary": [raw],
        "softmax instead of log_softmax: these are probabilities; return their "
        "logarithms": [right.exp()],
        "normalised over the wrong axis: a softmax is over the vocabulary, the last "
        "axis": [*times, rows],
        "sign flipped: a log-probability is never above 0": [-right],
        "zeros everywhere: that model would be always sure and always right": [
            torch.zeros_like(right)
        ],
        "ones everywhere: a log-probability is never above 0": [torch.ones_like(right)],
        "of the likeliest token, not of the one that came: input_ids say which": [
            before.log_softmax(2).amax(2)
        ],
        "the whole distribution's entropy: pick one token's log-probability": [
            torch.distributions.Categorical(logits=before).entropy(),
            -torch.distributions.Categorical(logits=before).entropy(),
        ],
        "a mean over the vocabulary: pick the column of the token that follows": [
            before.log_softmax(2).mean(2)
        ],
        "the largest logit taken off, not the log-sum-exp": [raw - before.amax(2)],
    }
    return told_apart(mistakes, case)


# --- 00.2: sampling a token -------------------------------------------------------


def _sample_cases() -> list[Case]:
    import torch

    rows = torch.rand(3, 6, dtype=torch.float64, generator=generator(0)).mul(
        3
    )  # (K, V)
    cases = []
    for seed, temperature in enumerate((0.5, 1.0, 2.0, 0.0)):
        args = {
            "logits": rows.repeat(DRAWS, 1),  # (B, V), row by row in turn
            "temperature": temperature,
            "generator": generator(seed),
        }
        likeliest = torch.eye(6, dtype=torch.float64)[rows.argmax(1)]
        right = (rows / temperature).softmax(1) if temperature else likeliest
        cases.append(Case(args, right, f"temperature {temperature:g}"))
    return cases


def _read_sample(output, logits, temperature, generator) -> "Tensor":
    """How often each token was drawn for each of the different rows, (K, V)."""
    import torch

    batch, vocabulary = logits.shape
    notes = {
        (batch, 1): "returns a column of shape (B, 1), as `torch.multinomial` does; "
        "`[:, 0]` makes it (B,)",
        (batch, vocabulary): "returns the whole vocabulary: draw one token per row",
        (): "returns one token: draw one for each row",
    }
    tokens = tensor(output, (batch,), notes)
    whole = (tokens == tokens.round()) & (tokens >= 0) & (tokens < vocabulary)
    if not whole.all():
        wrong = tokens[~whole][0].item()
        raise Misfit(
            f"returns {wrong:g}, which is no token: they are 0 to {vocabulary - 1}"
        )
    if temperature and (tokens == tokens[0]).all():
        raise Misfit("the same token in every row: draw for each row by itself")
    drawn = torch.nn.functional.one_hot(tokens.long(), vocabulary).double()
    return drawn.view(DRAWS, -1, vocabulary).mean(0)


def _same_distribution(got: "Tensor", expected: "Tensor") -> bool:
    """Pearson's chi-square test; where only one token is possible, every draw is it."""
    from scipy.stats import chi2

    possible = expected > 0
    misfit = (got - expected)[possible] ** 2 / expected[possible]
    freedom = int(possible.sum()) - len(expected)
    statistic = DRAWS * misfit.sum().item()
    return statistic <= chi2.isf(FALSE_ALARM, freedom) if freedom else statistic == 0


def _sample_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    temperature, rows = case.args["temperature"], case.args["logits"][:3]
    softened = rows / (temperature or 1)
    greedy = (
        "temperature 0 is not greedy: it means the likeliest token; dividing by 0 does "
        "not give it, so treat 0 by itself"
    )
    if temperature == 0:
        return {}  # the mistakes below may treat it as they like
    probabilities = rows.softmax(1)
    return {
        greedy: [case.expected],
        "multiplies by the temperature: the logits are divided by it, so that a higher "
        "one flattens the distribution": [(rows * temperature).softmax(1)],
        "ignores the temperature: the draws are as if it were 1": [probabilities],
        "always greedy: the likeliest token every time; draw from the distribution": [
            torch.eye(rows.shape[1], dtype=rows.dtype)[rows.argmax(1)]
        ],
        "draws from the uniform distribution: the logits decide how likely each token "
        "is": [torch.full_like(rows, 1 / rows.shape[1])],
        "divides the probabilities, not the logits: temperature comes before the "
        "softmax": [(probabilities / temperature).softmax(1)],
        "uses one row for all: each row of logits has a distribution of its own": [
            (row / temperature).softmax(0).expand_as(rows) for row in rows
        ],
        "no softmax: a token's weight is the exponential of its logit": [
            softened / softened.sum(1, keepdim=True)
        ],
        "softmax over the rows: the vocabulary is the last axis": [
            softened.softmax(0) / softened.softmax(0).sum(1, keepdim=True)
        ],
        "the temperature counts twice: divide by it once": [
            (rows / temperature**2).softmax(1)
        ],
        "the root of the temperature: divide by the temperature itself": [
            (rows / temperature**0.5).softmax(1)
        ],
        "sign flipped: a higher logit is likelier": [(-softened).softmax(1)],
        "never the likeliest token: it has to be drawn as well": [
            _without_likeliest(softened)
        ],
    }


def _without_likeliest(logits: "Tensor") -> "Tensor":
    return logits.masked_fill(logits == logits.amax(1, keepdim=True), -1e9).softmax(1)


def _sample_follows_generator(answer: Callable) -> str:
    import torch

    logits = torch.zeros(64, 6, dtype=torch.float64)
    random = generator(1)
    first, second, again, other = (
        tensor(answer(logits.clone(), 1.0, given), (64,))
        for given in (random, random, generator(1), generator(2))
    )
    if torch.equal(first, second):
        return (
            "reseeds at every call: two draws in a row are the same; only draw from "
            "the generator, and leave its seed alone"
        )
    if torch.equal(first, again) and not torch.equal(first, other):
        return ""
    how = (
        "two seeds give the same" if torch.equal(first, other) else "one seed gives two"
    )
    return (
        f"ignores the generator: {how} draws; pass it on, as in "
        "`torch.multinomial(..., generator=generator)`, so that a run can be repeated"
    )


# --- The exercises ----------------------------------------------------------------

EXERCISES: dict[str, Exercise] = {
    "00.1": Exercise(
        "my_token_log_probs(logits, input_ids)",
        _token_cases,
        _read_tokens,
        _token_mistakes,
        "the same log-probabilities as `alignlab.objectives.token_log_probs`",
        hints=(
            (
                "Which logits have seen everything before token t, and not t "
                "itself? Then what are the last logits of a row for, and what the "
                "first token?"
            ),
            (
                "The logits at t have seen tokens 0 to t and predict token t+1; "
                "normalise them over the vocabulary, then pick that token's entry."
            ),
        ),
        minutes=15,
        stars=2,
        library=("alignlab.objectives.log_probs.token_log_probs",),
    ),
    "00.2": Exercise(
        "my_sample(logits, temperature, generator)",
        _sample_cases,
        _read_sample,
        _sample_mistakes,
        f"the frequencies of {3 * DRAWS:,} draws at each of three temperatures fit, "
        "and temperature 0 is greedy",
        hints=(
            (
                "What does a small temperature do to the distance between the "
                "likeliest logit and the others? And what is left in the limit, at "
                "0, where nothing can be divided?"
            ),
            (
                "A low temperature sharpens, a high one flattens, and 0 always "
                "takes the likeliest token."
            ),
            (
                "`(logits / temperature).softmax(-1)`, then one draw per row with "
                "`torch.multinomial` and the generator; `argmax` at 0."
            ),
        ),
        minutes=15,
        stars=2,
        agrees=_same_distribution,
        also=_sample_follows_generator,
        library=("alignlab.models.sampler._choose",),
    ),
}
