"""How sure a language model is, asked in five ways: the probability of options, of a
whole reply, of "True"; what it says itself; how often it says the same again.

Any causal LM of `transformers`, in batches; numpy out, for `alignlab.calibration`.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignlab.errors import AlignlabError
from alignlab.models.options import option_log_probs, pack_options
from alignlab.models.sampler import complete
from alignlab.world.facts import normalise

Prompt = str | list[dict]
Reduction = Literal["sum", "mean"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
IS_IT_TRUE = "Question: {question} Proposed answer: {answer} Is that true? Answer:"
BANK = tuple("0123456789")


# --- Multiple choice --------------------------------------------------------------


class Choices(NamedTuple):
    """What the model gives to each option. Arrays where every item has the same number
    of options, lists of rows elsewhere; ``top_label`` and ``all_options`` take both."""

    probabilities: Float[ndarray, "items options"] | list[ndarray]  # rows sum to 1
    outside: Float[ndarray, "items"]  # probability of going on with none of them
    log_probs: Float[ndarray, "items options"] | list[ndarray]  # nats, sum or mean


def multiple_choice(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    options: Sequence[str] | Sequence[Sequence[str]],
    *,
    reduction: Reduction = "sum",
    end: bool = False,
    chat: bool = True,
    batch_size: int = 256,
    progress: bool = False,
) -> Choices:
    r"""The probability of each option as the prompt's continuation, over the options.

    .. math:: p_k = \frac{\exp \ell_k}{\sum_j \exp \ell_j}, \qquad
        \ell_k = \sum_t \log \pi(o_{k,t} \mid x, o_{k,<t})

    Two customs, one function. *Letters*: the prompt lists the options
    (:func:`letter_prompt`), and ``options`` are the letters. *Cloze*: the prompt is the
    bare question, and ``options`` are the answers themselves.

    Renormalising hides how much the model wanted to say something else, so that share
    is given as ``outside``. Where it is large, the confidence is about a game that the
    model does not play: the format is wrong before the calibration is.

    Args:
        prompts: strings, or lists of chat messages.
        options: the same list for every prompt, or one list per prompt. With
            ``chat=False`` each starts with the space that follows the prompt.
        reduction: "sum" is the option's probability; "mean" divides the log-probability
            by the number of tokens, so that long options are not less likely for being
            long, and is then no probability before it is renormalised.
        end: True adds the token that ends a reply to each option. "Niger" and "Nigeria"
            then exclude each other; without it an option also stands for whatever goes
            on from it.
        chat: True puts each prompt through the chat template, a string as one user
            turn; False feeds the text as it is.
        batch_size: rows at once; more takes more memory. Prompts are read once for all
            of their options; options of one token each, such as letters, then cost one
            row a prompt, others one row each.
        progress: show a bar.

    Raises:
        ValueError: if the reduction is unknown, the numbers of prompts and lists of
            options differ, or a prompt has no option.
        AlignlabError: if a prompt with its option is too long for the model, or its
            tokens do not begin with the prompt's.
    """
    if reduction not in Reduction.__args__:
        raise ValueError(f'reduction is {reduction!r}; it can be "sum" or "mean"')
    options = _one_list_each(options, len(prompts))
    start, tails = _tokens(tokenizer, prompts, options, end, chat)
    sums = _score(model, tokenizer, start, tails, batch_size, progress)
    outside = [_outside(row, own) for row, own in zip(sums, tails)]
    if reduction == "mean":
        sums = [row / [len(t) for t in own] for row, own in zip(sums, tails)]
    shares = [np.exp(row - np.logaddexp.reduce(row)) for row in sums]
    return Choices(_stacked(shares), np.array(outside), _stacked(sums))


def letter_prompt(question: str, options: Sequence[str], separator: str = "\n") -> str:
    """The question with its options under letters, for a letter to follow.

    Args:
        question: as a sentence of its own.
        options: at most 26.
        separator: between the lines; a space for a model that has read no line breaks.
    """
    if not 0 < len(options) <= len(LETTERS):
        raise ValueError(f"options are {len(options)}; there are letters for 1 to 26")
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options)]
    return separator.join([question, *lines, "Answer:"])


# --- The probability of a reply ---------------------------------------------------


def sequence_probability(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    completions: Sequence[str],
    *,
    reduction: Reduction = "sum",
    end: bool = True,
    chat: bool = True,
    batch_size: int = 256,
    progress: bool = False,
) -> Float[ndarray, "items"]:
    r"""The probability of each completion given its prompt.

    .. math:: \pi(y \mid x) = \prod_t \pi(y_t \mid x, y_{<t})

    Of a free answer it is the probability of these very words: other wordings of the
    same answer are left out, so it is too small where there are many
    (:func:`self_consistency` counts those together).

    Args:
        completions: one per prompt.
        reduction: "sum" as above; "mean" its geometric mean per token, which does not
            fall with length and is no longer a probability of anything.
        end: whether the token that ends the reply counts too.
        prompts, chat, batch_size, progress: as for :func:`multiple_choice`.

    Raises: as :func:`multiple_choice`.
    """
    own = [[completion] for completion in completions]
    settings = dict(reduction=reduction, end=end, chat=chat)
    settings |= dict(batch_size=batch_size, progress=progress)
    found = multiple_choice(model, tokenizer, prompts, own, **settings)
    return np.exp(np.asarray(found.log_probs).reshape(-1))


# --- Asking the model about its own answer ----------------------------------------


class Elicited(NamedTuple):
    """A confidence for each item, and how much probability lay on no allowed reply."""

    confidence: Float[ndarray, "items"]
    outside: Float[ndarray, "items"]


def p_true(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    answers: Sequence[str],
    *,
    template: str = IS_IT_TRUE,
    words: tuple[str, str] = (" True", " False"),
    chat: bool = False,
    batch_size: int = 256,
    progress: bool = False,
) -> Elicited:
    r"""The model as judge of an answer: the share of "True" among "True" and "False".

    Args:
        questions, answers: one answer, usually the model's own, per question.
        template: the prompt, with {question} and {answer}.
        words: the two verdicts, the good one first, spaced as they follow the prompt.
        chat, batch_size, progress: as for :func:`multiple_choice`.

    Raises:
        ValueError: if there are not as many answers as questions; else as
            :func:`multiple_choice`.

    Source: Kadavath et al. (2022), section 4.
    """
    _require_as_many("questions", questions, "answers", answers)
    pairs = zip(questions, answers)
    prompts = [template.format(question=q, answer=a) for q, a in pairs]
    settings = dict(chat=chat, batch_size=batch_size, progress=progress)
    found = multiple_choice(model, tokenizer, prompts, list(words), **settings)
    return Elicited(found.probabilities[:, 0], found.outside)


def bank_confidence(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    bank: Sequence[str] = BANK,
    values: Sequence[float] | None = None,
    chat: bool = True,
    batch_size: int = 256,
    progress: bool = False,
) -> Elicited:
    """A confidence that the model says in one word of a bank, such as a digit.

    The mean of the words' values under the model's probabilities for them: finer than
    the likeliest word, and it needs no sampling. For a model that was trained to give
    its confidence so, or shown how in the prompt.

    Args:
        prompts: they end where the word follows.
        bank: the words, by default the ten digits.
        values: what each stands for; by default the middles of as many equal parts of
            [0, 1], so that 7 of ten digits is 0.75.
        chat, batch_size, progress: as for :func:`multiple_choice`.

    Raises:
        ValueError: if there are not as many values as words, or one is not a
            probability.

    Source: Lin, Hilton & Evans (2022), "Teaching models to express their uncertainty in
    words", for the training; the mean is ours.
    """
    middles = (np.arange(len(bank)) + 0.5) / len(bank)
    values = middles if values is None else np.asarray(values, dtype=float)
    _require_as_many("bank", bank, "values", values)
    if not ((values >= 0) & (values <= 1)).all():
        first = int(np.flatnonzero(~((values >= 0) & (values <= 1)))[0])
        raise ValueError(f"values[{first}] is {values[first]}; it is from 0 to 1")
    settings = dict(chat=chat, batch_size=batch_size, progress=progress)
    found = multiple_choice(model, tokenizer, prompts, list(bank), **settings)
    return Elicited(found.probabilities @ values, found.outside)


def verbalised_confidence(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 16,
    chat: bool = True,
    batch_size: int = 256,
    progress: bool = False,
) -> tuple[Float[ndarray, "items"], list[str]]:
    """The confidence that the model writes when asked for one, and what it wrote.

    Greedy replies, read by :func:`parse_confidence`. A reply without a number gives
    NaN: say how many there were before leaving them out, for which they are is not
    random.

    Args:
        prompts: they ask for a probability in per cent, or from 0 to 1.
        max_new_tokens: a reply's length at most.
        chat, batch_size, progress: as for :func:`multiple_choice`.

    Source: Tian et al. (2023).
    """
    settings = dict(chat=chat, batch_size=batch_size, progress=progress)
    replies = complete(model, tokenizer, list(prompts), max_new_tokens, **settings)
    texts = [reply.text for reply in replies]
    return np.array([parse_confidence(text) for text in texts], dtype=float), texts


_NUMBER = r"(\d+(?:\.\d+)?|\.\d+)"
_PERCENT = re.compile(rf"(-?){_NUMBER}\s*(?:%|per ?cent)")
_RATIO = re.compile(rf"(-?){_NUMBER}\s*(?:/|out of)\s*{_NUMBER}")
_PLAIN = re.compile(rf"(-?){_NUMBER}")


def parse_confidence(text: str) -> float:
    """The first probability that a text states, from 0 to 1; NaN if there is none.

    Looked for in this order: per cent ("85%", "85 percent"), ratios ("9/10", "9 out of
    10"), and numbers, where up to 1 is a probability ("0.85") and from above 1 to 100 a
    per cent ("85"). What is above 1 in the end, or negative, is NaN.
    """
    if match := _PERCENT.search(text):
        value = float(match[2]) / 100
    elif match := _RATIO.search(text):
        value = float(match[2]) / float(match[3]) if float(match[3]) else math.nan
    elif match := _PLAIN.search(text):
        value = float(match[2])
        value = value / 100 if value > 1 else value
    else:
        return math.nan
    return value if value <= 1 and not match[1] else math.nan


# --- Asking again -----------------------------------------------------------------


class Consistency(NamedTuple):
    """The most frequent answer to each prompt, its share of the samples, and those."""

    answers: list[str]
    confidence: Float[ndarray, "items"]
    samples: list[list[str]]


def self_consistency(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    n_samples: int = 10,
    temperature: float = 1.0,
    max_new_tokens: int = 32,
    normalise: Callable[[str], str] = normalise,
    seed: int = 0,
    chat: bool = True,
    batch_size: int = 256,
    progress: bool = False,
) -> Consistency:
    """How often the model, sampled again, gives the answer it gives most often.

    It counts wordings together, which :func:`sequence_probability` cannot. Of ten
    samples it is a multiple of a tenth, and even a model that guesses among K answers
    shows more than 1/K: the most frequent one was picked for being so.

    Args:
        n_samples: replies to each prompt; more make it finer and dearer.
        temperature: 1 is the model's own distribution; lower makes it surer.
        max_new_tokens: a reply's length at most.
        normalise: what two replies must have in common to count as the same answer; by
            default case, a closing full stop and a leading article do not matter.
        seed: the same seed gives the same samples.
        prompts, chat, batch_size, progress: as for :func:`multiple_choice`.

    Returns:
        Of answers that tie, the one that was sampled first.

    Raises:
        ValueError: if n_samples is not positive.

    Source: Wang et al. (2023).
    """
    if n_samples < 1:
        raise ValueError(f"n_samples is {n_samples}; it must be at least 1")
    replies = complete(
        model,
        tokenizer,
        [prompt for prompt in prompts for _ in range(n_samples)],
        max_new_tokens,
        temperature,
        seed,
        batch_size,
        chat,
        progress,
    )
    texts = [reply.text for reply in replies]
    samples = [texts[i : i + n_samples] for i in range(0, len(texts), n_samples)]
    answers, shares = [], []
    for own in samples:
        keys = [normalise(text) for text in own]
        key, times = Counter(keys).most_common(1)[0]  # ties in order of first sight
        answers.append(own[keys.index(key)])
        shares.append(times / n_samples)
    return Consistency(answers, np.array(shares), samples)


# --- Scoring ----------------------------------------------------------------------


def _tokens(tokenizer, prompts, options, end: bool, chat: bool):
    """Token ids of each prompt, and of each of its options as they follow it."""
    texts = [_text(tokenizer, prompt, chat) for prompt in prompts]
    if not texts:
        raise ValueError("prompts are empty")
    special = dict(add_special_tokens=not chat)
    start = tokenizer(texts, **special)["input_ids"]
    joined = [text + option for text, own in zip(texts, options) for option in own]
    whole = iter(tokenizer(joined, **special)["input_ids"])
    close = [tokenizer.eos_token_id] if end else []
    tails = []
    for number, (ids, own) in enumerate(zip(start, options)):
        rows = [next(whole) for _ in own]
        for row, option in zip(rows, own):
            if row[: len(ids)] != ids or len(row) == len(ids) or not ids:
                raise AlignlabError(
                    f"Prompt {number}: the tokens of the prompt with option {option!r} "
                    "do not begin with the prompt's and go on from there.",
                    "Put the space that divides them into the option, and leave neither"
                    " empty.",
                )
        tails.append([row[len(ids) :] + close for row in rows])
    return start, tails


def _text(tokenizer, prompt: Prompt, chat: bool) -> str:
    if not chat:
        return prompt
    if tokenizer.chat_template is None:
        raise AlignlabError(
            f"The tokenizer {tokenizer.name_or_path!r} has no chat template.",
            "Pass chat=False, or take an instruct model's tokenizer.",
        )
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True
    )


@torch.no_grad()
def _score(model, tokenizer, start, tails, batch_size: int, progress: bool) -> list:
    """Log-probabilities of each prompt's options, in batches with little padding."""
    _require_room(model, start, tails)
    pad = tokenizer.pad_token_id
    pad = tokenizer.eos_token_id if pad is None else pad
    width = [max(map(len, own)) for own in tails]  # there are more of these rows
    order = sorted(range(len(start)), key=lambda i: (width[i], len(start[i])))
    at_once = max(1, batch_size // _most_rows(tails))
    found: list = [None] * len(start)
    was_training = model.training
    model.eval()
    with tqdm(total=len(start), desc="prompts", disable=not progress) as bar:
        for at in range(0, len(order), at_once):
            some = order[at : at + at_once]
            own = [tails[i] for i in some]
            packed = pack_options([start[i] for i in some], own, pad)
            packed = {name: value.to(model.device) for name, value in packed.items()}
            values = iter(option_log_probs(model, packed).cpu().tolist())
            for i in some:
                found[i] = np.array([next(values) for _ in tails[i]], dtype=float)
            bar.update(len(some))
    model.train(was_training)
    return found


def _most_rows(tails) -> int:
    """Rows that a prompt takes: options of one token each need none of their own."""
    one_token_each = all(len(tail) == 1 for own in tails for tail in own)
    return 1 if one_token_each else max(map(len, tails))


def _outside(log_probs: ndarray, tails: list[list[int]]) -> float:
    """Probability of none of the options. One that goes on from another, or repeats it,
    is part of that other's probability already."""
    counted = {}
    for value, tail in zip(log_probs, map(tuple, tails)):
        shorter = {tuple(t) for t in tails if len(t) < len(tail)}
        if not any(tail[: len(t)] == t for t in shorter):
            counted[tail] = math.exp(value)
    return min(max(1 - math.fsum(counted.values()), 0.0), 1.0)


def _one_list_each(options, n: int) -> list[list[str]]:
    if options and all(isinstance(option, str) for option in options):
        return [list(options)] * n
    if len(options) != n:
        raise ValueError(f"options are {len(options)} lists for {n} prompts")
    for number, own in enumerate(options):
        if not len(own):
            raise ValueError(f"options[{number}] is empty: a prompt needs an option")
    return [list(own) for own in options]


def _stacked(rows: list[ndarray]) -> ndarray | list[ndarray]:
    return np.stack(rows) if len({len(row) for row in rows}) == 1 else rows


def _require_as_many(one: str, first, other: str, second) -> None:
    if len(first) != len(second):
        raise ValueError(
            f"{one} are {len(first)} and {other} {len(second)}: there must be as many"
        )


def _require_room(model, start, tails) -> None:
    room = getattr(model.config, "max_position_embeddings", None) or math.inf
    longest = max(len(ids) + max(map(len, own)) for ids, own in zip(start, tails))
    if longest > room:
        raise AlignlabError(
            f"A prompt with its option has {longest} tokens; the model has positions "
            f"for {room}.",
            "Shorten the prompt.",
        )
