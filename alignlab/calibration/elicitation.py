"""Five ways to get a language model's confidence: the probability of options, of a
whole reply, or of "True"; what it says when asked; how often it repeats an answer.

For any causal LM of `transformers`, in batches; returns numpy for alignlab.calibration.
"""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignlab.calibration.stated import parse_confidence
from alignlab.errors import AlignlabError
from alignlab.models.fit import require_causal_lm, require_vocabulary
from alignlab.models.options import option_log_probs, pack_options
from alignlab.models.sampler import complete
from alignlab.models.templates import prompt_text
from alignlab.models.text import (
    Prompt,
    as_messages,
    closing_ids,
    encode_prompt,
    end_token_ids,
    pad_token_id,
    require_room,
)
from alignlab.world.facts import normalise

Reduction = Literal["sum", "mean"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
IS_IT_TRUE = "Question: {question} Proposed answer: {answer} Is that true? Answer:"
BANK = tuple("0123456789")
MOSTLY = 0.5  # of the probability outside the options is worth a warning


# --- Multiple choice --------------------------------------------------------------


class Choices(NamedTuple):
    """The probabilities of the options. Arrays where every item has the same number of
    options, else lists of rows; ``top_label`` and ``all_options`` take both."""

    probabilities: Float[ndarray, "items options"] | list[ndarray]  # rows sum to 1
    outside: Float[ndarray, "items"]  # probability of continuing with none of them
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
    chat_template_kwargs: Mapping | None = None,
) -> Choices:
    r"""The probability of each option as the prompt's continuation, over the options.

    .. math:: p_k = \frac{\exp \ell_k}{\sum_j \exp \ell_j}, \qquad
        \ell_k = \sum_t \log \pi(o_{k,t} \mid x, o_{k,<t})

    There are two formats. *Letters*: the prompt lists the options
    (:func:`letter_prompt`), and ``options`` are the letters. *Cloze*: the prompt is the
    bare question, and ``options`` are the answers themselves.

    Normalising over the options hides how likely the model was to say something else;
    ``outside`` is that probability. Where it is large, the model does not follow the
    format, and its confidence among the options means little. Of letters, above a half
    gives a warning; of cloze answers, which have many wordings, it is no surprise. An
    option counts as it is spelt: " A" and "A" are different tokens.

    Args:
        prompts: strings, or lists of chat messages; an assistant's turn at the end of
            one is continued.
        options: the same list for every prompt, or one list per prompt. With
            ``chat=False`` each starts with the space that follows the prompt.
        reduction: "sum" is the option's log-probability; "mean" divides it by the
            number of tokens, so that long options are not less likely for their length.
        end: True adds to each option what ends a reply: the chat template's end of
            turn, and behind plain text the EOS token. "Niger" and "Nigeria" then
            exclude each other; without it an option includes all its continuations.
        chat: True applies the chat template, with a string as one user turn; False
            uses strings as the plain text that they are.
        batch_size: rows at once; more take more memory. Each prompt is read once for
            all its options. Options of one token each, such as letters, then take one
            row per prompt, others one row each.
        progress: show a progress bar.
        chat_template_kwargs: what else the chat template reads, such as
            ``{"enable_thinking": False}``.

    Raises:
        ValueError: if the reduction is unknown, the numbers of prompts and lists of
            options differ, or a prompt has no option.
        AlignlabError: if a prompt with an option is too long for the model, or its
            tokens do not begin with those of the prompt; if there is no chat template
            (with ``chat``) or no token that ends a reply (with ``end``), or the model
            is no causal LM or lacks some of the tokenizer's tokens.
    """
    if reduction not in Reduction.__args__:
        raise ValueError(f'reduction is {reduction!r}; it can be "sum" or "mean"')
    options = _one_list_each(options, len(prompts))
    _require_readable(model, tokenizer)
    start, tails = _tokens(
        tokenizer, prompts, options, end, chat, chat_template_kwargs or {}
    )
    sums = _score(model, tokenizer, start, tails, batch_size, progress)
    outside = [_outside(row, own) for row, own in zip(sums, tails)]
    if all(option.strip(" \n().:") in {*LETTERS} for own in options for option in own):
        _warn_if_outside(np.array(outside), "the letters")
    if reduction == "mean":
        sums = [row / [len(t) for t in own] for row, own in zip(sums, tails)]
    shares = [np.exp(row - np.logaddexp.reduce(row)) for row in sums]
    return Choices(_stacked(shares), np.array(outside), _stacked(sums))


def letter_prompt(question: str, options: Sequence[str], separator: str = "\n") -> str:
    """The question and its options, each after a letter, for a letter to follow.

    Args:
        question: as a sentence of its own.
        options: at most 26.
        separator: between the lines; use a space for a model that knows no line breaks.
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
    chat_template_kwargs: Mapping | None = None,
) -> Float[ndarray, "items"]:
    r"""The probability of each completion given its prompt.

    .. math:: \pi(y \mid x) = \prod_t \pi(y_t \mid x, y_{<t})

    It is the probability of these very words. A free answer with many wordings is
    likelier than each of them; :func:`self_consistency` counts wordings together.

    Args:
        completions: one per prompt.
        reduction: "sum" as above; "mean" is the geometric mean per token, which does
            not fall with length and is not a probability of anything.
        end: include what ends the reply: the chat template's end of turn, and behind
            plain text the EOS token.
        prompts, chat, batch_size, progress, chat_template_kwargs: as for
            :func:`multiple_choice`.

    Raises: as :func:`multiple_choice`.
    """
    own = [[completion] for completion in completions]
    settings = dict(reduction=reduction, end=end, chat=chat)
    settings |= dict(batch_size=batch_size, progress=progress)
    settings |= dict(chat_template_kwargs=chat_template_kwargs)
    choices = multiple_choice(model, tokenizer, prompts, own, **settings)
    return np.exp(np.asarray(choices.log_probs).reshape(-1))


# --- Asking the model about its own answer ----------------------------------------


class Elicited(NamedTuple):
    """A confidence for each item, and the probability of no allowed reply."""

    confidence: Float[ndarray, "items"]
    outside: Float[ndarray, "items"]


def p_true(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    answers: Sequence[str],
    *,
    template: str = IS_IT_TRUE,
    words: tuple[str | Sequence[str], str | Sequence[str]] = (" True", " False"),
    chat: bool = False,
    batch_size: int = 256,
    progress: bool = False,
    chat_template_kwargs: Mapping | None = None,
) -> Elicited:
    """The model's verdict on an answer: the probability of "True" against "False".

    ``outside`` is the probability of neither; above a half gives a warning, because the
    verdict then rests on what the model hardly ever says. A word counts only as it is
    spelt. Where a model answers in several ways, list them, and each verdict has the
    sum: ``words=((" True", " true", " Yes"), (" False", " false", " No"))``.

    Args:
        questions, answers: one answer, usually the model's own, per question.
        template: the prompt, with {question} and {answer}.
        words: the verdicts for true and false, with the space that follows the prompt;
            each a word, or several that mean the same.
        chat, batch_size, progress, chat_template_kwargs: as for
            :func:`multiple_choice`.

    Raises:
        ValueError: if there are not as many answers as questions, or the two verdicts
            share a word; else as :func:`multiple_choice`.

    Source: Kadavath et al. (2022), section 4.
    """
    _require_as_many("questions", questions, "answers", answers)
    true, false = ([w] if isinstance(w, str) else list(w) for w in words)
    if set(true) & set(false) or not true or not false:
        raise ValueError(f"words are {words!r}; each verdict needs words of its own")
    pairs = zip(questions, answers)
    prompts = [template.format(question=q, answer=a) for q, a in pairs]
    options = [[*true, *false]] * len(prompts)
    _require_readable(model, tokenizer)
    start, tails = _tokens(
        tokenizer, prompts, options, False, chat, chat_template_kwargs or {}
    )
    sums = _score(model, tokenizer, start, tails, batch_size, progress)
    n, sides = len(true), []
    for row, own in zip(sums, tails):
        parts = row[:n][_distinct(own[:n])], row[n:][_distinct(own[n:])]
        sides.append([np.logaddexp.reduce(part) for part in parts])
    shares = [np.exp(row[0] - np.logaddexp.reduce(row)) for row in sides]
    outside = [_outside(row, own) for row, own in zip(sums, tails)]
    result = Elicited(np.array(shares), np.array(outside))
    _warn_if_outside(result.outside, "the two verdicts")
    return result


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
    chat_template_kwargs: Mapping | None = None,
) -> Elicited:
    """The confidence that the model states with one word of a bank, such as a digit.

    It is the mean of the words' values under the model's probabilities: finer than the
    likeliest word, and without sampling. The model must have been trained to state its
    confidence this way, or shown how in the prompt.

    Args:
        prompts: each ends where the word follows.
        bank: the words, by default the ten digits.
        values: the confidence of each word, by default the middles of equal parts of
            [0, 1], so that 7 of ten digits is 0.75.
        chat, batch_size, progress, chat_template_kwargs: as for
            :func:`multiple_choice`.

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
    settings |= dict(chat_template_kwargs=chat_template_kwargs)
    choices = multiple_choice(model, tokenizer, prompts, list(bank), **settings)
    _warn_if_outside(choices.outside, "a word of the bank")
    return Elicited(choices.probabilities @ values, choices.outside)


def verbalised_confidence(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 16,
    chat: bool = True,
    batch_size: int = 256,
    progress: bool = False,
    chat_template_kwargs: Mapping | None = None,
) -> tuple[Float[ndarray, "items"], list[str]]:
    """The confidence that the model writes when asked for one, and its replies.

    Replies are greedy and read by :func:`parse_confidence`. A reply without a number
    gives NaN. Report how many there are before you leave them out: they are not random.

    Args:
        prompts: each asks for a probability in per cent, or from 0 to 1.
        max_new_tokens: longest reply.
        chat, batch_size, progress, chat_template_kwargs: as for
            :func:`multiple_choice`.

    Source: Tian et al. (2023).
    """
    settings = dict(chat=chat, batch_size=batch_size, progress=progress)
    settings |= dict(chat_template_kwargs=chat_template_kwargs)
    _require_readable(model, tokenizer)
    replies = complete(model, tokenizer, list(prompts), max_new_tokens, **settings)
    texts = [reply.text for reply in replies]
    return np.array([parse_confidence(text) for text in texts], dtype=float), texts


# --- Asking again -----------------------------------------------------------------


class Consistency(NamedTuple):
    """The most frequent answer to each prompt, its share of the samples, and these."""

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
    chat_template_kwargs: Mapping | None = None,
) -> Consistency:
    """The share of samples that give the most frequent answer.

    It counts wordings together, which :func:`sequence_probability` cannot. With ten
    samples it is a multiple of a tenth, and a model that guesses among K answers gets
    more than 1/K, because the most frequent answer is chosen after the fact.

    Args:
        n_samples: replies to each prompt; more make the share finer and take longer.
        temperature: 1 is the model's own distribution; lower makes it surer.
        max_new_tokens: longest reply.
        normalise: replies with the same normalised text count as the same answer; by
            default case, a final full stop and a leading article do not matter.
        seed: the same seed gives the same samples.
        prompts, chat, batch_size, progress, chat_template_kwargs: as for
            :func:`multiple_choice`.

    Returns:
        Among answers that tie, the one that was sampled first.

    Raises:
        ValueError: if n_samples is not positive.

    Source: Wang et al. (2023).
    """
    if n_samples < 1:
        raise ValueError(f"n_samples is {n_samples}; it must be at least 1")
    _require_readable(model, tokenizer)
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
        chat_template_kwargs,
    )
    texts = [reply.text for reply in replies]
    samples = [texts[i : i + n_samples] for i in range(0, len(texts), n_samples)]
    answers, shares = [], []
    for own in samples:
        keys = [normalise(text) for text in own]
        key, times = Counter(keys).most_common(1)[0]  # the first of those that tie
        answers.append(own[keys.index(key)])
        shares.append(times / n_samples)
    return Consistency(answers, np.array(shares), samples)


# --- Scoring ----------------------------------------------------------------------


def _require_readable(model, tokenizer) -> None:
    """Refuse what is no causal LM for this tokenizer."""
    require_causal_lm(model)
    require_vocabulary(model, tokenizer)


def _tokens(
    tokenizer, prompts, options, end: bool, chat: bool, chat_template_kwargs: Mapping
):
    """Token ids of each prompt, and of each of its options as its continuation."""
    if not len(prompts):
        raise ValueError("prompts are empty")
    plain = [isinstance(prompt, str) and not chat for prompt in prompts]
    texts = [
        prompt
        if is_plain
        else prompt_text(tokenizer, as_messages(prompt, "user"), **chat_template_kwargs)
        for prompt, is_plain in zip(prompts, plain)
    ]
    ends = {
        is_plain: _end_of_reply(tokenizer, is_plain, chat_template_kwargs)
        for is_plain in set(plain if end else ())
    }
    joined = [text + option for text, own in zip(texts, options) for option in own]
    start = tokenizer(texts, add_special_tokens=False)["input_ids"]
    encoded = iter(tokenizer(joined, add_special_tokens=False)["input_ids"])
    tails = []
    for number, (is_plain, own) in enumerate(zip(plain, options)):
        ids, rows = start[number], [next(encoded) for _ in own]
        if is_plain:  # with special tokens in front, such as BOS
            start[number] = encode_prompt(tokenizer, texts[number])
            front = start[number][: len(start[number]) - len(ids)]
            ids, rows = start[number], [front + row for row in rows]
        new = [_behind(ids, *each, number) for each in zip(rows, own)]
        tails.append([tail + ends.get(is_plain, []) for tail in new])
    return start, tails


def _behind(prompt: list[int], row: list[int], option: str, number: int) -> list[int]:
    """The option's tokens, in a row of the prompt with it."""
    if row[: len(prompt)] != prompt or len(row) == len(prompt) or not prompt:
        raise AlignlabError(
            f"Prompt {number}: the tokens of the prompt with option {option!r} are not "
            "those of the prompt and some more.",
            "Put the space between them into the option, and leave neither empty.",
        )
    return row[len(prompt) :]


def _end_of_reply(tokenizer, is_plain: bool, chat_template_kwargs: Mapping):
    """Tokens that a model writes behind its reply, up to the one at which it stops:
    EOS behind plain text, else what the chat template has there."""
    if not is_plain:
        closing = closing_ids(tokenizer, **chat_template_kwargs)
        stops = end_token_ids(tokenizer)
        places = (place for place, token in enumerate(closing) if token in stops)
        return closing[: next(places, len(closing)) + 1]
    if tokenizer.eos_token_id is None:
        raise AlignlabError(
            "The tokenizer has no EOS token to end a plain text with.",
            "Set tokenizer.eos_token, or pass end=False.",
        )
    return [tokenizer.eos_token_id]


@torch.no_grad()
def _score(model, tokenizer, start, tails, batch_size: int, progress: bool) -> list:
    """Log-probabilities of each prompt's options, in batches with little padding."""
    longest = [ids + max(own, key=len) for ids, own in zip(start, tails)]
    require_room(model, longest, what="With its longest option, prompt")
    pad = pad_token_id(tokenizer)
    width = [max(map(len, own)) for own in tails]  # there are more of these rows
    order = sorted(range(len(start)), key=lambda i: (width[i], len(start[i])))
    at_once = max(1, batch_size // _rows_per_prompt(tails))
    scores: list = [None] * len(start)
    was_training = model.training
    model.eval()
    with tqdm(total=len(start), desc="prompts", disable=not progress) as bar:
        for at in range(0, len(order), at_once):
            batch = order[at : at + at_once]
            own = [tails[i] for i in batch]
            packed = pack_options([start[i] for i in batch], own, pad)
            packed = {name: value.to(model.device) for name, value in packed.items()}
            values = iter(option_log_probs(model, packed).cpu().tolist())
            for i in batch:
                scores[i] = np.array([next(values) for _ in tails[i]], dtype=float)
            bar.update(len(batch))
    model.train(was_training)
    return scores


def _rows_per_prompt(tails) -> int:
    """Rows that a prompt takes at most: options of one token need none of their own."""
    one_token_each = all(len(tail) == 1 for own in tails for tail in own)
    return 1 if one_token_each else max(map(len, tails))


def _outside(log_probs: ndarray, tails: list[list[int]]) -> float:
    """Probability of none of the options."""
    inside = math.fsum(math.exp(log_probs[i]) for i in _distinct(tails))
    return min(max(1 - inside, 0.0), 1.0)


def _distinct(tails: list[list[int]]) -> list[int]:
    """The options whose probabilities add up: one that continues or repeats another is
    already part of the other's probability."""
    places = {tuple(tail): place for place, tail in enumerate(tails)}
    starts = [{tail[:n] for n in range(1, len(tail))} for tail in places]
    return [i for i, own in zip(places.values(), starts) if not own & set(places)]


def _warn_if_outside(outside: Float[ndarray, "items"], what: str) -> None:
    """Say so where most of the next words' probability is left out."""
    mostly = outside > MOSTLY
    if mostly.any():
        warnings.warn(
            f"for {mostly.sum()} of {len(outside)} items the model would rather say "
            f"something else than {what} (with probability {outside.mean():.3f} on "
            "average), and the shares among them mean little: show the format in the "
            "prompt, apply the chat template, or list other spellings",
            stacklevel=3,
        )


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


def _require_as_many(name: str, values, other_name: str, others) -> None:
    if len(values) != len(others):
        raise ValueError(
            f"{name} are {len(values)} and {other_name} {len(others)}: there must be "
            "as many"
        )
