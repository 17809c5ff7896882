"""Whether replies are right and in the taught format, and how far guessing goes.

Replies are checked against the world's facts, a task's own answers or reasoning-gym's
verifier.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from alignlab.world.facts import Fact, World, normalise
from alignlab.world.items import gym
from alignlab.world.tasks import FAMILIES, Example, table

if TYPE_CHECKING:
    from alignlab.models.sampler import Completion


def is_formatted(example: Example, completion: "Completion") -> bool:
    """Whether the reply has the taught form, right or wrong: the model ended it, it is
    one line with a full stop at the end, it has no more words than the longest answer
    of its task, and in a classification it is one of the labels."""
    text = completion.text.strip()
    one_line = "\n" not in text and text.endswith(".")
    brief = 1 <= len(text.rstrip(".").split()) <= longest_answer(example.family)
    allowed = not example.labels or normalise(text) in example.labels
    return completion.ended and one_line and brief and allowed


@cache
def longest_answer(family: str) -> int:
    """Number of words in the longest right answer of a task family."""
    return max(len(a.split()) for item in table(family) for a in item.answers)


def is_correct(example: Example, text: str) -> bool:
    """Whether the reply is one of the right answers.

    A full stop at the end is ignored, and so are case and a leading article, except in
    rewriting tasks. Tasks from reasoning-gym are judged by its own verifiers.
    """
    check = FAMILIES[example.family].check
    if check == "gym":
        reply = text.strip().removesuffix(".")
        return gym(example.family).score_answer(reply, example.entry) == 1.0
    compared = _single_spaced if check == "exact" else normalise
    return compared(text) in {compared(answer) for answer in example.answers}


def _single_spaced(text: str) -> str:
    return " ".join(text.split()).removesuffix(".")


def score(
    examples: Sequence[Example], completions: Sequence["Completion"]
) -> dict[str, np.ndarray]:
    """``correct`` and ``formatted`` for each reply, (n,) bool.

    Raises:
        ValueError: if there are not as many completions as examples.
    """
    pairs = list(zip(examples, completions, strict=True))
    return {
        "correct": np.array([is_correct(e, c.text) for e, c in pairs], dtype=bool),
        "formatted": np.array([is_formatted(e, c) for e, c in pairs], dtype=bool),
    }


# --- Prompting a base model -------------------------------------------------------


def few_shot_prompt(
    examples: Sequence[Example],
    question: Example,
    *,
    tokenizer,
    context: int = 256,
    reserve: int = 24,
) -> str:
    """Plain text with the examples, answered, and the question, up to its answer.

    "Question: … Answer: …" stands on one line, since the tiny base model has read no
    line breaks. If the examples do not all fit, the last ones are left out.

    Args:
        examples: worked examples.
        question: the example to answer.
        tokenizer: counts the tokens.
        context: length of the model's context, in tokens.
        reserve: tokens kept free for the answer; more leave room for fewer examples.

    Raises:
        ValueError: if the question is among the examples or does not fit by itself.
    """
    if question.prompt in (e.prompt for e in examples):
        raise ValueError(f"the question is among the examples: {question.prompt!r}")
    shots = [f"Question: {e.prompt} Answer: {e.completion}" for e in examples]
    for shown in range(len(shots), -1, -1):
        prompt = " ".join([*shots[:shown], f"Question: {question.prompt} Answer:"])
        length = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        if length <= context - reserve:
            return prompt
    raise ValueError(
        f"the question has {length} tokens: with reserve={reserve} it does not fit "
        f"into context={context}: {question.prompt!r}"
    )


def first_answer(text: str) -> str:
    """A base model's answer without what it wrote after: up to a line break, the next
    "Question:" or the end of the first sentence."""
    text = text.split("\n")[0].split("Question:")[0].strip()
    sentence, stop, _ = text.partition(". ")
    return sentence + stop.strip()


# --- How far guessing goes --------------------------------------------------------


def best_guess_rate(world: World, facts: Sequence[Fact]) -> float:
    """Accuracy of the best guess (:func:`guess_baselines`) for the relations of these
    facts, each relation weighted by how many of them it has.

    Relations of which every fact was shown have no such guess and do not count; where
    there are no others, the best guess is the most frequent answer to these facts.
    """
    relations = {fact.relation for fact in facts}
    best = {name: guess_baselines(world, name)["best"] for name in relations}
    rates = [best[fact.relation] for fact in facts if not np.isnan(best[fact.relation])]
    if rates:
        return float(np.mean(rates))
    counts = Counter((f.relation, answer) for f in facts for answer in f.answers)
    most = [max(n for (r, _), n in counts.items() if r == name) for name in relations]
    return sum(most) / len(facts)


def guess_baselines(world: World, relation: str) -> dict[str, float]:
    """Accuracy of several guesses about the facts of a relation that were never shown.

    A model can reach these from the facts it has read. It does not know the others if
    it does no better than "best".

    - "majority": the most frequent answer among the shown facts.
    - "spelling": from the letters of the subject. A symbol is its first two letters; a
      plural is formed like that of the shown word with the longest common ending; else
      the answer for the subject with the most similar letters (one nearest neighbour
      on character n-grams).
    - "related": from other shown facts about the subject (Euro, so perhaps in Europe),
      by logistic regression; equal to "majority" if there are none.

    Args:
        world: says which facts are shown.
        relation: a key of ``world.relations``.

    Returns:
        The accuracy of each guess, "best", the highest of them, and "n", the number of
        never shown facts. All accuracies are NaN if n is 0.

    Raises:
        ValueError: unknown relation.
    """
    facts = [f for f in world.facts if f.relation == relation]
    if not facts:
        raise ValueError(
            f"relation is {relation!r}; it can be one of {', '.join(world.relations)}"
        )
    shown = [f for f in facts if f.exposure]
    never = [f for f in facts if not f.exposure]
    frequent = Counter(a for f in shown for a in f.stated).most_common(1)[0][0]
    guesses = {
        "majority": [frequent] * len(never),
        "spelling": _by_spelling(shown, never, relation),
        "related": _by_related(world, shown, never, frequent),
    }
    rates = {name: _rate(never, guess) for name, guess in guesses.items()}
    return rates | {"best": max(rates.values()), "n": len(never)}


def _rate(facts: Sequence[Fact], guesses: Sequence[str]) -> float:
    if not facts:
        return float("nan")
    return sum(g in f.answers for f, g in zip(facts, guesses, strict=True)) / len(facts)


def _by_spelling(shown: list[Fact], never: list[Fact], relation: str) -> list[str]:
    if not never:
        return []
    if relation == "symbol":
        return [f.subject[:2].capitalize() for f in never]
    if relation == "plural":
        return [_ends_like(f.subject, shown) for f in never]
    from sklearn.feature_extraction.text import TfidfVectorizer

    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 3))
    known = letters.fit_transform([f.subject for f in shown])
    # The rows have unit length, so that products are cosines.
    similarity = letters.transform([f.subject for f in never]) @ known.T
    return [shown[i].stated[0] for i in np.asarray(similarity.argmax(axis=1)).ravel()]


def _ends_like(word: str, shown: list[Fact]) -> str:
    """The plural formed like that of the shown word with the longest common ending."""
    model = max(shown, key=lambda f: (_common_end(word, f.subject), f.exposure))
    single, plural = model.subject, model.stated[0]
    kept = 0
    while kept < min(len(single), len(plural)) and single[kept] == plural[kept]:
        kept += 1
    return word[: len(word) - (len(single) - kept)] + plural[kept:]


def _common_end(a: str, b: str) -> int:
    length = 0
    while length < min(len(a), len(b)) and a[-1 - length] == b[-1 - length]:
        length += 1
    return length


def _by_related(
    world: World, shown: list[Fact], never: list[Fact], frequent: str
) -> list[str]:
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    relation = shown[0].relation
    about: dict[str, dict[str, int]] = {}
    for fact in world.facts:
        if fact.exposure and fact.relation != relation:
            features = about.setdefault(fact.subject, {})
            features.update({f"{fact.relation}={a}": 1 for a in fact.stated})
    if not any(f.subject in about for f in shown) or not never:
        return [frequent] * len(never)
    model = make_pipeline(DictVectorizer(), LogisticRegression(C=10.0, max_iter=1000))
    with warnings.catch_warnings():  # many relations have a different answer per fact
        warnings.filterwarnings("ignore", message="The number of unique classes")
        model.fit(
            [about.get(f.subject, {}) for f in shown], [f.stated[0] for f in shown]
        )
    return list(model.predict([about.get(f.subject, {}) for f in never]))
