"""Checks of the exercises: random inputs, compared with the library's own answers.

A wrong answer is compared with the answers that well-known mistakes give, so that the
message can name the mistake. Passing always means agreeing with the right answer.
"""

import html
import math
import random
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from alignlab.errors import AlignlabError

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-5  # of the right answer's mean size: float32 passes, zeros never do
DRAWS = 4000  # tokens sampled for each row of logits
FALSE_ALARM = 1e-6  # how often a right sampler may look wrong, by its generator's luck
END, USER, ASSISTANT = 1, 2, 3  # the shipped tokenizer's ids


@dataclass(frozen=True)
class CheckResult:
    """What a check found: a box in a notebook, plain text in a terminal.

    ``score`` is the share of the exercise's cases that were right, 0 to 1; ``hint`` is
    empty when all were.
    """

    exercise: str
    passed: bool
    score: float
    message: str
    hint: str = ""

    def to_dict(self) -> dict:
        return asdict(self)

    def __repr__(self) -> str:
        hint = f"\n  Hint: {self.hint}" if self.hint else ""
        return f"{self._mark} Exercise {self.exercise}: {self.message}{hint}"

    def _repr_html_(self) -> str:
        colour = "#2e7d32" if self.passed else "#c62828"
        hint = f"<br><em>Hint: {_as_html(self.hint)}</em>" if self.hint else ""
        return (
            f'<div style="border-left: 4px solid {colour}; padding: 0.5em 1em">'
            f'<strong style="color: {colour}">{self._mark} Exercise '
            f"{_as_html(self.exercise)}</strong><br>{_as_html(self.message)}{hint}</div>"
        )

    @property
    def _mark(self) -> str:
        return "\N{CHECK MARK}" if self.passed else "\N{BALLOT X}"


class CheckFailed(AssertionError):
    """A wrong answer. Its ``result`` says what is wrong; in a notebook one line stands
    in for the traceback, which would only show the inside of the check."""

    def __init__(self, result: CheckResult):
        super().__init__(str(result))
        self.result = result

    def _render_traceback_(self) -> list[str]:  # IPython asks for it
        return [f"CheckFailed: exercise {self.result.exercise}: {self.result.message}"]


def check(exercise: str, answer: Callable) -> CheckResult:
    """Check an answer from a notebook cell: ``check("00.1", my_token_log_probs)``.

    As a cell's last line it shows what came out. A wrong answer also raises, so that
    nbgrader gives the cell no points and a headless run stops there.

    Args:
        exercise: the exercise's number, as its heading has it.
        answer: the function itself, not what it returns.

    Raises:
        CheckFailed: an AssertionError, with the message, if the answer is wrong.
        AlignlabError: if there is no such exercise.
    """
    result = grade(exercise, answer)
    if not result.passed:
        _show(result)
        raise CheckFailed(result)
    return result


def grade(exercise: str, answer: Callable) -> CheckResult:
    """What ``check`` finds, without showing or raising it.

    Raises:
        AlignlabError: if there is no such exercise.
    """
    task = _exercise(exercise)
    if not callable(answer):
        name = task.call.partition("(")[0]
        message = (
            f'pass the function itself: check("{exercise}", {name}), not its value'
        )
        return CheckResult(exercise, False, 0.0, message, task.hint)
    tried = [_try(task, answer, case) for case in task.cases()]
    right = [attempt.right for attempt in tried]
    fault = "" if all(right) else _fault(task, tried)
    if task.also:
        fault = fault or _guarded(task.also, answer)
        right.append(not fault)
    if all(right):
        return CheckResult(exercise, True, 1.0, f"Right: {task.praise}.")
    return CheckResult(exercise, False, sum(right) / len(right), fault, task.hint)


# --- Running an answer ------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One set of arguments, in the order of the signature, and the right output."""

    args: dict[str, Any]
    expected: "Tensor"


@dataclass(frozen=True)
class Attempt:
    """What an answer gave for a case: an output, or why there is none to compare."""

    case: Case
    output: "Tensor | None" = None
    right: bool = False
    unanswered: bool = False
    misfit: str = ""  # not the kind of thing that was asked for
    raised: str = ""


class _Misfit(Exception):
    pass


def _try(task: "Exercise", answer: Callable, case: Case) -> Attempt:
    given = {name: _copy(value) for name, value in case.args.items()}
    try:
        output = answer(*given.values())
    except NotImplementedError:
        return Attempt(case, unanswered=True)
    except Exception as error:
        return Attempt(case, raised=f"{_where(error, answer)}, with {_sizes(given)}")
    try:
        if output is None:
            raise _Misfit("returns nothing: is there a `return` on its last line?")
        for name, value in given.items():
            if not _same(value, case.args[name]):
                raise _Misfit(
                    f"changes its input: {name} is not what it was before the call; "
                    "make a new tensor instead of writing into it"
                )
        output = task.read(output, **case.args)
    except _Misfit as misfit:
        return Attempt(case, misfit=str(misfit))
    return Attempt(case, output, right=task.agrees(output, case.expected))


def _fault(task: "Exercise", tried: list[Attempt]) -> str:
    """The most telling thing to say about attempts of which one or more are wrong."""
    if any(attempt.unanswered for attempt in tried):
        return f"not answered yet: write {task.call}, then run the check again"
    given = [attempt for attempt in tried if attempt.output is not None]
    misfits = [attempt.misfit for attempt in tried if attempt.misfit]
    raised = [attempt.raised for attempt in tried if attempt.raised]
    wrong = [attempt for attempt in given if not attempt.right]
    mistake = _mistake(task, given) if wrong else ""
    if misfits or mistake or raised:
        return (misfits or [mistake] * bool(mistake) or raised)[0]
    return _difference(wrong[0])


def _mistake(task: "Exercise", given: list[Attempt]) -> str:
    """The first known mistake that gives these outputs, in every case it speaks of."""
    tables = [task.mistakes(attempt.case) for attempt in given]
    for message in dict.fromkeys(message for table in tables for message in table):
        if all(
            any(task.agrees(attempt.output, wrong) for wrong in table[message])
            for attempt, table in zip(given, tables)
            if message in table
        ):
            return message
    return ""


def _difference(attempt: Attempt) -> str:
    import torch

    got, expected = attempt.output, attempt.case.expected
    error = (got - expected).abs().nan_to_num(nan=math.inf)
    place = [int(i) for i in torch.unravel_index(error.argmax(), error.shape)]
    at = f" at {place}" if place else ""
    return (
        f"not the right values: {got[tuple(place)]:.4g} where "
        f"{expected[tuple(place)]:.4g} is right{at}, with {_sizes(attempt.case.args)}"
    )


def _guarded(also: Callable[[Callable], str], answer: Callable) -> str:
    try:
        return also(answer)
    except Exception as error:
        return _where(error, answer)


def _where(error: Exception, answer: Callable) -> str:
    """The exception, and the line of the answer that it comes from."""
    text = f"raised {type(error).__name__}: {error}"
    file = getattr(getattr(answer, "__code__", None), "co_filename", None)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == file]
    return f"{text} in line {own[-1].lineno}: `{own[-1].line}`" if own else text


def _sizes(args: Mapping[str, Any]) -> str:
    """Shapes and types of tensors, values of small things."""

    def size(value) -> str:
        if hasattr(value, "shape"):
            return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
        return str(value) if isinstance(value, (int, float, dict, list)) else "given"

    return ", ".join(f"{name} {size(value)}" for name, value in args.items())


def _copy(value):
    if hasattr(value, "clone"):
        return value.clone()
    return value.copy() if isinstance(value, (dict, list)) else value


def _same(value, before) -> bool:
    if hasattr(value, "shape"):
        return value.shape == before.shape and bool((value == before).all())
    return value == before


def _close(got: "Tensor", expected: "Tensor") -> bool:
    """Equal up to a share of the expected values' mean size; NaN never is."""
    return bool((got - expected).abs().max() <= TOLERANCE * expected.abs().mean())


def _tensor(output, shape: tuple, notes: Mapping[tuple, str] | None = None) -> "Tensor":
    """The output as numbers of this shape; ``notes`` explain wrong shapes."""
    import torch

    try:
        tensor = torch.as_tensor(output).detach().to(torch.float64)
    except (TypeError, ValueError, RuntimeError):
        kind = type(output).__name__
        message = f"returns a {kind} where numbers of shape {shape} are asked for"
        raise _Misfit(message) from None
    if tensor.shape != shape:
        found = tuple(tensor.shape)
        note = (notes or {}).get(found, f"returns shape {found} where {shape} is right")
        raise _Misfit(note)
    return tensor


def _normal(seed: int, *shape: int) -> "Tensor":
    """Standard normal numbers of float64, the same ones for the same seed."""
    import torch

    random = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=random)


def _show(result: CheckResult) -> None:
    """A box, where there is a notebook to show it in."""
    ipython = sys.modules.get("IPython")
    if ipython and ipython.get_ipython():
        from IPython.display import display

        display(result)


def _as_html(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


# --- 00.1: the log-probability of each token --------------------------------------


def _random_texts(seed: int, batch: int, time: int, vocabulary: int):
    import torch

    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(
        batch, time, vocabulary, dtype=torch.float64, generator=random
    ).mul(2)
    return logits, torch.randint(vocabulary, (batch, time), generator=random)


def _token_cases() -> list[Case]:
    from alignlab.objectives import token_log_probs

    texts = [
        _random_texts(*size) for size in ((0, 3, 7, 11), (1, 2, 3, 5), (2, 5, 4, 9))
    ]
    return [
        Case({"logits": logits, "input_ids": ids}, token_log_probs(logits, ids))
        for logits, ids in texts
    ]


def _read_tokens(output, logits, input_ids) -> "Tensor":
    batch, time = input_ids.shape
    notes = {
        (batch, time): "off by one (no shift): returns one column a token; nothing "
        "predicts the first token, so (B, T-1) columns are right",
        (batch, time - 1, logits.shape[2]): "returns the whole vocabulary's: pick the "
        "column of the token that came",
        (batch,): "returns one number a row: leave the tokens unsummed",
    }
    return _tensor(output, (batch, time - 1), notes)


def _token_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    from alignlab.objectives import token_log_probs

    logits, ids = case.args["logits"], case.args["input_ids"]
    right, before, next_ids = case.expected, logits[:, :-1], ids[:, 1:]
    raw = right + before.logsumexp(2)
    times = [raw - x.logsumexp(1).gather(1, next_ids) for x in (logits, before)]
    rows = raw - before.logsumexp(0).gather(1, next_ids.T).T
    # Rolled by one, the "next" token is the logits' own.
    own = token_log_probs(*_each_own(logits, ids))  # (B, T)
    return {
        "off by one (no shift): each token is scored by the logits of its own "
        "position, which have already seen it; the logits at t speak of token t+1": [
            own[:, :-1],
            own[:, 1:],
        ],
        "off by one (shifted the wrong way): each token is scored by the logits of the "
        "position after it; the logits at t speak of token t+1": [
            token_log_probs(logits.flip(1), ids.flip(1)).flip(1)
        ],
        "raw logits: they are not normalised yet; log-probabilities are logits less "
        "their log-sum-exp over the vocabulary": [raw],
        "softmax instead of log_softmax: these are probabilities; their logarithms are "
        "asked for": [right.exp()],
        "normalised over the wrong axis: a softmax is over the vocabulary, the last "
        "axis": [*times, rows],
        "sign flipped: a log-probability is never above 0": [-right],
        "zeros everywhere: that would be a model always sure and always right": [
            torch.zeros_like(right)
        ],
        "ones everywhere: a log-probability is never above 0": [torch.ones_like(right)],
    }


def _each_own(*tensors: "Tensor") -> list["Tensor"]:
    """Logits and tokens so arranged that the library's shift is undone."""
    import torch

    logits, *others = tensors
    doubled = [torch.cat([x[:, :1], x], dim=1) for x in others]
    return [torch.cat([logits, logits[:, -1:]], dim=1), *doubled]


# --- 00.2: sampling a token -------------------------------------------------------


def _sample_cases() -> list[Case]:
    import torch

    random = torch.Generator().manual_seed(0)
    rows = torch.rand(3, 6, dtype=torch.float64, generator=random).mul(3)  # (K, V)
    cases = []
    for seed, temperature in enumerate((0.5, 1.0, 2.0, 0.0)):
        args = {
            "logits": rows.repeat(DRAWS, 1),  # (B, V), row by row in turn
            "temperature": temperature,
            "generator": torch.Generator().manual_seed(seed),
        }
        likeliest = torch.eye(6, dtype=torch.float64)[rows.argmax(1)]
        right = (rows / temperature).softmax(1) if temperature else likeliest
        cases.append(Case(args, right))
    return cases


def _read_sample(output, logits, temperature, generator) -> "Tensor":
    """How often each token was drawn for each of the different rows, (K, V)."""
    import torch

    batch, vocabulary = logits.shape
    notes = {
        (batch, 1): "returns a column of shape (B, 1), as `torch.multinomial` does; "
        "`[:, 0]` makes it (B,)",
        (batch, vocabulary): "returns the whole vocabulary's: draw one token a row",
        (): "returns one token: draw one for each row",
    }
    tokens = _tensor(output, (batch,), notes)
    whole = (tokens == tokens.round()) & (tokens >= 0) & (tokens < vocabulary)
    if not whole.all():
        wrong = tokens[~whole][0].item()
        raise _Misfit(
            f"returns {wrong:g}, which is no token: they are 0 to {vocabulary - 1}"
        )
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
    }


def _sample_follows_generator(answer: Callable) -> str:
    import torch

    logits = torch.zeros(64, 6, dtype=torch.float64)
    first, again, other = (
        torch.as_tensor(
            answer(logits.clone(), 1.0, torch.Generator().manual_seed(seed))
        )
        for seed in (1, 1, 2)
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


# --- 01.1: the mask of what is learnt ---------------------------------------------


def _mask_cases() -> list[Case]:
    """Chats in the shipped template; replies repeat words of their prompts."""
    import torch

    draw, cases = random.Random(0), []
    for asked, said in ((5, 3), (3, 0), (9, 1), (2, 8)):
        words = [draw.randrange(5, 2048) for _ in range(asked)]
        reply = [draw.choice([*words, draw.randrange(5, 2048)]) for _ in range(said)]
        reply[:1] = words[:1] if said else []
        prompt = [USER, *words, END, ASSISTANT]
        whole = [*prompt, *reply, END]
        mask = torch.zeros(len(whole), dtype=torch.float64)
        mask[len(prompt) :] = 1
        cases.append(Case({"prompt_ids": prompt, "input_ids": whole}, mask))
    return cases


def _read_mask(output, prompt_ids, input_ids) -> "Tensor":
    length, learnt = len(input_ids), len(input_ids) - len(prompt_ids)
    notes = {
        (length - 1,): "one too short: the mask has an entry for each token; the loss "
        "does the shifting",
        (
            learnt,
        ): "covers the completion only: the prompt's tokens get an entry too, 0",
    }
    return _tensor(output, (length,), notes)


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
        "all zeros: nothing would be learnt": [torch.zeros_like(right)],
        "end token left out: without the closing <|end|> the model never learns to "
        "stop": [right - from_token(len(whole) - 1)],
        "end token of the prompt marked: only the <|end|> that closes the completion "
        "is learnt": [right.maximum(ends)],
        "looks at the tokens, not at their places: a reply may repeat words of its "
        "prompt": [1 - torch.isin(whole, torch.tensor(prompt)).double()],
    }


# --- 01.2: mixture weights --------------------------------------------------------


def _mixture_cases() -> list[Case]:
    sizes = {"capitals": 190, "poems": 12, "sums": 300, "spam": 75}
    few = {"long": 240, "short": 3}
    settings = ((sizes, 2.0), (sizes, 1.0), (few, 5.0), (sizes, 0.5))
    cases = []
    for have, temperature in settings:
        args = {"sizes": have, "temperature": temperature}
        cases.append(Case(args, _mixture("temperature", have, temperature)))
    return cases


def _mixture(scheme: str, sizes: dict[str, int], temperature: float = 1.0) -> "Tensor":
    import torch

    from alignlab.world.tasks import mixture_weights

    weights = mixture_weights(sizes, scheme, temperature=temperature)
    return torch.tensor([weights[name] for name in sizes], dtype=torch.float64)


def _read_mixture(output, sizes, temperature) -> "Tensor":
    if not isinstance(output, Mapping):
        kind = type(output).__name__
        raise _Misfit(
            f"returns a {kind}: a dictionary from name to weight is asked for"
        )
    if set(output) != set(sizes):
        names = f"{list(output)} where {list(sizes)} is right"
        raise _Misfit(f"has other names than sizes: {names}")
    return _tensor([float(output[name]) for name in sizes], (len(sizes),))


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
        ],
        "ignores the temperature: the weights are proportional to size": [
            _mixture("proportional", have)
        ],
        "equal weights: sizes still count, though less at a higher temperature": [
            _mixture("equal", have)
        ],
        "softmax of the sizes: it exponentiates, so the largest family takes nearly "
        "all; it is a power that is asked for": [
            sizes.softmax(0),
            (sizes / temperature).softmax(0),
            shares.softmax(0),
            (shares / temperature).softmax(0),
        ],
    }


# --- 01.3: the loss of supervised fine-tuning -------------------------------------


def _loss_cases() -> list[Case]:
    """Prompt, completion, padding in each row; then one that learns a whole row."""
    import torch

    from alignlab.objectives import sft_loss

    spans = [[(3, 4), (2, 9), (6, 9)], [(4, 5), (1, 10)], [(0, 10), (5, 7)]]
    cases = []
    for seed, rows in enumerate(spans):
        logits, ids = _random_texts(seed, len(rows), 10, 13)
        mask = torch.zeros_like(ids)
        for row, (start, stop) in enumerate(rows):
            mask[row, start:stop] = 1
        args = {"logits": logits, "input_ids": ids, "mask": mask}
        cases.append(Case(args, sft_loss(logits, ids, mask)))
    return cases


def _read_loss(output, logits, input_ids, mask) -> "Tensor":
    batch, time = mask.shape
    unreduced = "not reduced to one number: returns shape {}; a loss is a scalar"
    shapes = [(batch,), (batch, time), (batch, time - 1), (1,)]
    return _tensor(output, (), {shape: unreduced.format(shape) for shape in shapes})


def _loss_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    from alignlab.objectives import sequence_log_probs, sft_loss

    logits, ids, mask = case.args.values()
    right, everything = case.expected, torch.ones_like(mask)
    rows = -sequence_log_probs(logits, ids, mask)  # (B,)
    means = -sequence_log_probs(logits, ids, mask, reduction="mean")
    late = -sequence_log_probs(logits, ids, mask.roll(1, dims=1)).sum()
    counts = [x.sum() for x in (mask[:, :-1], mask[:, 1:], mask)]
    until_padding = (mask.flip(1).cumsum(1).flip(1) > 0).long()
    return {
        "mean of row means: each row counts the same, so a token of a short completion "
        "pulls harder; divide all tokens' sum by all tokens' number": [means.mean()],
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
        "position, which have already seen it": [
            sft_loss(*_each_own(logits, ids, mask))
        ],
        "sign flipped: a loss goes down as the tokens become likelier": [-right],
        "zero: nothing would be learnt": [torch.zeros_like(right)],
        "includes the prompt: the mask says which tokens count": [
            sft_loss(logits, ids, everything),
            sft_loss(logits, ids, until_padding),
        ],
        "counts the first token: nothing predicts it, so it is in the sum never and "
        "must not be in the number either": [rows.sum() / mask.sum()],
    }


def _loss_teaches(answer: Callable) -> str:
    import torch

    from alignlab.objectives import sft_loss

    case = _loss_cases()[0]
    logits, *others = case.args.values()
    logits = logits.requires_grad_()
    loss = answer(logits, *others)
    if not getattr(loss, "requires_grad", False):
        return (
            "no gradient: the value is right but cut off from the logits, so nothing "
            "would be learnt; leave out `.item()`, `.detach()`, `float()`, `no_grad`"
        )
    (found,) = torch.autograd.grad(loss, logits)
    (right,) = torch.autograd.grad(sft_loss(logits, *others), logits)
    if _close(found, right):
        return ""
    return "wrong gradient: the value is right, but part of the way to it is detached"


# --- 03.1: the Bradley-Terry loss -------------------------------------------------


def _comparison_cases() -> list[Case]:
    """Rewards of several sizes; the last differences are beyond what exp can take."""
    import torch

    from alignlab.objectives.reward import bradley_terry_loss

    random = torch.Generator().manual_seed(0)
    cases = []
    for pairs, size in ((7, 1.0), (1, 2.0), (5, 0.2)):
        chosen, rejected = torch.randn(
            2, pairs, dtype=torch.float64, generator=random
        ).mul(size)
        cases.append((chosen + 0.4, rejected))
    chosen = torch.tensor([-900.0, 3.0, 0.0, 800.0], dtype=torch.float64)
    cases.append((chosen, torch.tensor([300.0, -1.0, 0.5, -400.0]).double()))
    return [
        Case({"chosen": c, "rejected": r}, bradley_terry_loss(c, r)) for c, r in cases
    ]


def _read_comparisons(output, chosen, rejected) -> "Tensor":
    unreduced = "not reduced to one number: returns shape {}; take the mean over pairs"
    shapes = [tuple(chosen.shape), (1,), (len(chosen), len(chosen))]
    notes = {shape: unreduced.format(shape) for shape in shapes}
    value = _tensor(output, (), notes)
    if not value.isfinite():
        raise _Misfit(
            "overflows: a difference of -1,200 gives log(0); `torch.nn.functional."
            "logsigmoid` knows how to take the logarithm of a sigmoid"
        )
    return value


def _comparison_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch
    import torch.nn.functional as F

    chosen, rejected = case.args.values()
    d, right = chosen - rejected, case.expected
    return {
        "chosen and rejected exchanged: the loss must fall as the chosen reply's "
        "reward rises above the other": [-F.logsigmoid(-d).mean()],
        "sign flipped: a loss is minus the log-likelihood, and goes down as the labels "
        "become likelier": [-right, F.logsigmoid(-d).mean()],
        "sum, not mean: divide by the number of pairs": [right * len(d)],
        "no logarithm: the mean of probabilities is no likelihood": [
            -d.sigmoid().mean(),
            (-d).sigmoid().mean(),
            d.sigmoid().mean(),
        ],
        "no sigmoid: a difference of rewards is no probability": [-d.mean(), d.mean()],
        "each reply by itself: only the difference of a pair's rewards means "
        "something": [
            -(F.logsigmoid(chosen) + F.logsigmoid(-rejected)).mean(),
            -(F.logsigmoid(chosen) + F.logsigmoid(-rejected)).mean() / 2,
            -F.logsigmoid(chosen).mean(),
        ],
        "a hinge: max(0, 1 - d) is a margin loss, not a likelihood": [
            (1 - d).clamp(min=0).mean()
        ],
        "a squared error: the log-likelihood of a label is asked for": [
            (1 - d.sigmoid()).square().mean(),
            (1 - d).square().mean(),
        ],
        "mean before the sigmoid: each pair has a probability of its own": [
            -F.logsigmoid(d.mean())
        ],
        "zero: nothing would be learnt": [torch.zeros_like(right)],
    }


def _comparison_teaches(answer: Callable) -> str:
    from alignlab.objectives.reward import bradley_terry_loss

    return _same_gradient(answer, bradley_terry_loss, _comparison_cases()[0])


def _same_gradient(answer: Callable, right: Callable, case: Case) -> str:
    """Whether a loss is tied to its inputs by the gradient that it should have."""
    import torch

    inputs = [value.clone().requires_grad_() for value in case.args.values()]
    loss = answer(*inputs)
    if not getattr(loss, "requires_grad", False):
        return (
            "no gradient: the value is right but cut off from the rewards, so nothing "
            "would be learnt; leave out `.item()`, `.detach()`, `float()`, `no_grad`"
        )
    found = torch.autograd.grad(loss, inputs, allow_unused=True)
    expected = torch.autograd.grad(right(*inputs), inputs)
    if all(f is not None and _close(f, e) for f, e in zip(found, expected)):
        return ""
    return "wrong gradient: the value is right, but part of the way to it is detached"


# --- 03.2: what the best forecasts score ------------------------------------------


def _floor_cases() -> list[Case]:
    """Probabilities on both sides of one half; in the last, some are certain."""
    import torch

    random = torch.Generator().manual_seed(0)
    given = [
        torch.rand(9, dtype=torch.float64, generator=random).mul(0.5),
        torch.rand(6, dtype=torch.float64, generator=random),
        torch.tensor([0.75, 0.25, 0.75, 0.5], dtype=torch.float64),
        torch.tensor([0.0, 1.0, 0.9, 0.6], dtype=torch.float64),
    ]
    return [Case({"probability": p}, _floors(p)) for p in given]


def _floors(probability: "Tensor") -> "Tensor":
    import torch

    from alignlab.world.comparisons import brier_floor, nll_floor

    both = [brier_floor(probability.numpy()), nll_floor(probability.numpy())]
    return torch.tensor(both, dtype=torch.float64)


def _read_floors(output, probability) -> "Tensor":
    import torch

    if isinstance(output, (tuple, list)):
        if len(output) != 2:
            raise _Misfit(f"returns {len(output)} things: (brier, nll) is asked for")
        notes = {tuple(probability.shape): "one number for each pair: take the mean"}
        output = torch.stack([_tensor(value, (), notes) for value in output])
    floors = _tensor(output, (2,))
    if floors[1].isnan():
        raise _Misfit(
            "gives NaN where a probability is 0 or 1: 0 log 0 is 0 here, and "
            "`torch.xlogy` knows"
        )
    return floors


def _floor_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    p = case.args["probability"]
    brier, nll = case.expected
    likelier = torch.maximum(p, 1 - p)

    def entropies(x):
        return -(torch.xlogy(x, x) + torch.xlogy(1 - x, 1 - x))

    def both(*values):
        return torch.stack([torch.as_tensor(v, dtype=torch.float64) for v in values])

    half = -torch.xlogy(p, p).mean()
    luck = torch.minimum(p**2, (1 - p) ** 2).mean()
    lucky = -likelier.log().mean()
    once, one_off = p.mean(), entropies(p.mean())
    return {
        "the likelier label only: that is the score when what is likelier comes; with "
        "probability p it does, and otherwise the other label does": [
            both(luck, lucky),
            both(luck, nll),
            both(brier, lucky),
        ],
        "of the mean probability: take each pair's floor, then the mean": [
            both(once * (1 - once), one_off),
            both(brier, one_off),
            both(once * (1 - once), nll),
        ],
        "one outcome only: both labels can come, with p and with 1 - p": [
            both(brier, half),
            both((p * (1 - p) ** 2).mean(), half),
            both((p * (1 - p) ** 2).mean(), nll),
        ],
        "in bits: nats are asked for, natural logarithms": [
            both(brier, nll / math.log(2))
        ],
        "sign flipped: an entropy is not negative": [both(brier, -nll)],
        "summed over pairs: take the mean": [both(brier * len(p), nll * len(p))],
        "exchanged: the Brier score comes first": [both(nll, brier)],
        "both sides counted: p(1 - p) is the floor of one forecast per pair; twice as "
        "much is that of the score over both labels": [both(2 * brier, nll)],
        "zeros: that would need forecasts that know every label": [both(0.0, 0.0)],
    }


# --- 03.3: the Plackett-Luce loss -------------------------------------------------


def _ranking_cases() -> list[Case]:
    import torch

    from alignlab.objectives.reward import plackett_luce_loss

    random = torch.Generator().manual_seed(0)
    cases = []
    for rankings, replies, size in ((3, 4, 1.0), (2, 2, 2.0), (4, 6, 0.5)):
        rewards = torch.randn(
            rankings, replies, dtype=torch.float64, generator=random
        ).mul(size)
        cases.append(Case({"rewards": rewards}, plackett_luce_loss(rewards)))
    return cases


def _read_ranking(output, rewards) -> "Tensor":
    unreduced = (
        "not reduced to one number: returns shape {}; sum over the replies of a "
    )
    unreduced += "ranking, then take the mean over rankings"
    shapes = [(len(rewards),), tuple(rewards.shape), (1,)]
    return _tensor(output, (), {shape: unreduced.format(shape) for shape in shapes})


def _ranking_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    import torch

    from alignlab.objectives.reward import all_pairs_loss, plackett_luce_loss

    rewards, right = case.args["rewards"], case.expected
    rankings, replies = rewards.shape
    everyone = (rewards.logsumexp(1, keepdim=True) - rewards).sum(1).mean()
    pairs = replies * (replies - 1) // 2
    behind = rewards.flip(1).logcumsumexp(1).flip(1)[:, 1:]  # (N, K-1)
    neighbours = torch.nn.functional.softplus(rewards[:, 1:] - rewards[:, :-1])
    if replies == 2:
        return {}  # a ranking of two is a pair, of which half of these are right
    return {
        "ranked the wrong way: the best reply comes first in each row": [
            plackett_luce_loss(rewards.flip(1))
        ],
        "sign flipped: a loss is minus the log-likelihood": [-right],
        "divides by K: a ranking is one observation, summed over its places": [
            right / replies,
            right / (replies - 1),
        ],
        "zero: nothing would be learnt": [torch.zeros_like(right)],
        "leaves out the reply itself: the best of those that remain is one of them": [
            (behind - rewards[:, :-1]).sum(1).mean()
        ],
        "the first place only: after the best, the next is chosen among the rest": [
            (rewards.logsumexp(1) - rewards[:, 0]).mean()
        ],
        "everyone stays in: who has been chosen does not compete for the next place": [
            everyone
        ],
        "pairs of a ranking: that is InstructGPT's loss; here the whole ranking is one "
        "observation": [all_pairs_loss(rewards), all_pairs_loss(rewards) * pairs],
        "neighbours only: each reply is held against all those behind it": [
            neighbours.sum(1).mean(),
            neighbours.mean(),
        ],
        "sum over rankings: take their mean": [right * rankings],
    }


def _ranking_teaches(answer: Callable) -> str:
    from alignlab.objectives.reward import plackett_luce_loss

    return _same_gradient(answer, plackett_luce_loss, _ranking_cases()[0])


# --- The exercises ----------------------------------------------------------------


@dataclass(frozen=True)
class Exercise:
    """One exercise: ``read`` turns an output into a tensor or refuses it, ``mistakes``
    gives what each known mistake would have put out, under the words that name it, and
    ``also`` is asked once all values are right."""

    call: str
    cases: Callable[[], list[Case]]
    read: Callable[..., "Tensor"]
    mistakes: Callable[[Case], dict[str, list["Tensor"]]]
    praise: str
    hint: str
    agrees: Callable[["Tensor", "Tensor"], bool] = _close
    also: Callable[[Callable], str] | None = None


EXERCISES: dict[str, Exercise] = {
    "00.1": Exercise(
        "my_token_log_probs(logits, input_ids)",
        _token_cases,
        _read_tokens,
        _token_mistakes,
        "the same log-probabilities as `alignlab.objectives.token_log_probs`",
        "the logits at t have seen tokens 0 to t and speak of token t+1; normalise "
        "them over the vocabulary, then pick that token's entry.",
    ),
    "00.2": Exercise(
        "my_sample(logits, temperature, generator)",
        _sample_cases,
        _read_sample,
        _sample_mistakes,
        f"the frequencies of {3 * DRAWS:,} draws at each of three temperatures fit, "
        "and temperature 0 is greedy",
        "a low temperature sharpens, a high one flattens, and 0 always takes the "
        "likeliest token.",
        _same_distribution,
        _sample_follows_generator,
    ),
    "01.1": Exercise(
        "my_completion_mask(prompt_ids, input_ids)",
        _mask_cases,
        _read_mask,
        _mask_mistakes,
        "1 on the completion and its closing <|end|>, 0 on the prompt",
        "input_ids begin with prompt_ids, and everything after them is to be learnt.",
    ),
    "01.2": Exercise(
        "my_mixture_weights(sizes, temperature)",
        _mixture_cases,
        _read_mixture,
        _mixture_mistakes,
        "the same weights as `alignlab.world.tasks.mixture_weights`",
        "temperature 1 is proportional to size, a very high one nearly equal, and the "
        "weights always sum to 1.",
    ),
    "01.3": Exercise(
        "my_sft_loss(logits, input_ids, mask)",
        _loss_cases,
        _read_loss,
        _loss_mistakes,
        "the same loss and gradient as `alignlab.objectives.sft_loss`",
        "one mean over all masked tokens of the batch, of minus the log-probability "
        "that exercise 00.1 computes.",
        also=_loss_teaches,
    ),
    "03.1": Exercise(
        "my_bradley_terry_loss(chosen, rejected)",
        _comparison_cases,
        _read_comparisons,
        _comparison_mistakes,
        "the same loss and gradient as `alignlab.objectives.bradley_terry_loss`",
        "minus the logarithm of the probability that the chosen reply wins, which is "
        "the sigmoid of the difference of the two rewards; then the mean.",
        also=_comparison_teaches,
    ),
    "03.2": Exercise(
        "my_floors(probability)",
        _floor_cases,
        _read_floors,
        _floor_mistakes,
        "the same floors as `alignlab.world.comparisons` computes",
        "the best forecast of a pair is its p. Score it if the label comes (with "
        "probability p) and if the other one does, weigh the two, take the mean.",
    ),
    "03.3": Exercise(
        "my_plackett_luce_loss(rewards)",
        _ranking_cases,
        _read_ranking,
        _ranking_mistakes,
        "the same loss and gradient as `alignlab.objectives.plackett_luce_loss`",
        "for place k: log-sum-exp of the rewards from k on, minus the reward at k.",
        also=_ranking_teaches,
    ),
}


def _exercise(number: str) -> Exercise:
    from alignlab.chapters.calibration import exercises as calibration_checks
    from alignlab.chapters.dpo import exercises as dpo_checks
    from alignlab.chapters.limits_of_imitation import exercises as limits_checks
    from alignlab.chapters.ppo import exercises as ppo_checks
    from alignlab.chapters.side_effects import exercises as side_effects_checks

    every = {
        **EXERCISES,
        **limits_checks.EXERCISES,
        **ppo_checks.EXERCISES,
        **dpo_checks.EXERCISES,
        **side_effects_checks.EXERCISES,
        **calibration_checks.EXERCISES,
    }
    if number in every:
        return every[number]
    near = get_close_matches(str(number), every, n=2, cutoff=0.5)
    quoted = " or ".join(f'"{name}"' for name in near)
    remedy = f"Did you mean {quoted}? " if near else ""
    raise AlignlabError(
        f"There is no exercise {number!r}.",
        f"{remedy}There are {', '.join(every)}.",
    )
