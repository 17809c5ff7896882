"""Are replies right, and are they in the format that was taught?

Both are checked by program, against the world's facts, a task's own answer or
reasoning-gym's verifier; beside them, what a guesser who knows nothing can reach.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from alignlab.evaluation.intervals import Interval, wilson_interval
from alignlab.world.facts import Fact, World, normalise
from alignlab.world.tasks import FAMILIES, Example, gym, table

if TYPE_CHECKING:
    from alignlab.models.sampler import Completion


def is_formatted(example: Example, completion: "Completion") -> bool:
    """Whether the reply has the taught form: ended by the model, one line, closed by a
    full stop, no more words than the longest answer of its task has (the answer and not
    a sentence around it) and, in a classification, one of its labels. Being right is
    not asked for."""
    text = completion.text.strip()
    one_line = "\n" not in text and text.endswith(".")
    brief = 1 <= len(text.rstrip(".").split()) <= longest_answer(example.family)
    allowed = not example.labels or normalise(text) in example.labels
    return completion.ended and one_line and brief and allowed


@cache
def longest_answer(family: str) -> int:
    """Words of the longest right answer in a task family."""
    return max(len(a.split()) for item in table(family) for a in item.answers)


def is_correct(example: Example, text: str) -> bool:
    """Whether the reply is one of the right answers.

    A closing full stop never matters. Case and a leading article matter only in
    rewriting. Where the task is reasoning-gym's, its own verifier decides.
    """
    check = FAMILIES[example.family].check
    if check == "gym":
        reply = text.strip().removesuffix(".")
        return gym(example.family).score_answer(reply, example.entry) == 1.0
    compare = _spaced if check == "exact" else normalise
    return compare(text) in {compare(answer) for answer in example.answers}


def _spaced(text: str) -> str:
    return " ".join(text.split()).removesuffix(".")


def score(
    examples: Sequence[Example], completions: Sequence["Completion"]
) -> dict[str, np.ndarray]:
    """Each reply judged: {"correct": (n,) bool, "formatted": (n,) bool}.

    Raises:
        ValueError: if there are not as many completions as examples.
    """
    pairs = list(zip(examples, completions, strict=True))
    return {
        "correct": np.array([is_correct(e, c.text) for e, c in pairs], dtype=bool),
        "formatted": np.array([is_formatted(e, c) for e, c in pairs], dtype=bool),
    }


def by_family(
    examples: Sequence[Example], outcome: Sequence[bool], by: str = "family"
) -> dict[str, Interval]:
    """The rate of an outcome in each group, with Wilson's 95% interval.

    Args:
        examples: what was asked.
        outcome: (n,) true or false for each, for instance ``score(...)["correct"]``.
        by: the attribute to group by, "family" or "category".

    Raises:
        ValueError: if the lengths differ.
    """
    groups: dict[str, list[bool]] = {}
    for example, value in zip(examples, outcome, strict=True):
        groups.setdefault(getattr(example, by), []).append(bool(value))
    return {name: wilson_interval(sum(v), len(v)) for name, v in groups.items()}


# --- Asking a base model ----------------------------------------------------------


def few_shot_prompt(
    examples: Sequence[Example],
    question: Example | str,
    k: int,
    *,
    tokenizer,
    context: int = 256,
    reserve: int = 24,
) -> str:
    """Plain text that shows k answered questions and ends where the next answer begins.

    "Question: … Answer: …" on one line, since the tiny base model has read no line
    breaks. The first k examples are shown, fewer where they do not fit.

    Args:
        examples: the demonstrations.
        question: what is asked; an example's prompt, its answer unseen.
        k: how many demonstrations; 0 gives the bare question in the same form.
        tokenizer: counts the tokens.
        context: tokens that the model can read.
        reserve: tokens of it kept free for the answer; more leave room for fewer shots.

    Raises:
        ValueError: if k is negative or exceeds the examples, the question is among
            those shown, or it does not fit even alone.
    """
    asked = question if isinstance(question, str) else question.prompt
    if not 0 <= k <= len(examples):
        raise ValueError(f"k={k} must be between 0 and the {len(examples)} examples")
    if asked in (e.prompt for e in examples[:k]):
        raise ValueError(f"the question is among the demonstrations: {asked!r}")
    shots = [f"Question: {e.prompt} Answer: {e.completion}" for e in examples[:k]]
    for shown in range(k, -1, -1):
        prompt = " ".join([*shots[:shown], f"Question: {asked} Answer:"])
        length = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        if length <= context - reserve:
            return prompt
    raise ValueError(
        f"{length} tokens and {reserve} in reserve exceed context={context}: {asked!r}"
    )


def first_answer(text: str) -> str:
    """What a base model answered before it went on: up to a line break, the next
    "Question:", or the end of the first sentence."""
    text = text.split("\n")[0].split("Question:")[0].strip()
    sentence, stop, _ = text.partition(". ")
    return sentence + stop.strip()


# --- What knowing nothing is worth ------------------------------------------------


def guess_baselines(world: World, relation: str) -> dict[str, float]:
    """How often a guess is right about facts that were never shown.

    A model that has read the shown facts and knows nothing of the others can reach
    these, so "it does not know" means no better than "best".

    - "majority": the most frequent answer among the shown facts.
    - "spelling": from the subject's letters. A symbol is the first two letters; a
      plural ends as that of the shown word with the longest common ending; else the
      answer of the shown subject with the most similar letters (one nearest neighbour
      on character n-grams).
    - "related": from the subject's other, shown facts (Euro, so perhaps in Europe), by
      logistic regression; equal to "majority" where subjects have no other facts.

    Args:
        world: says which facts are shown.
        relation: a key of ``world.relations``.

    Returns:
        The accuracy of each, their maximum as "best", and "n", the number of
        never-shown facts. All accuracies are NaN where n is 0.

    Raises:
        ValueError: unknown relation.
    """
    facts = [f for f in world.facts if f.relation == relation]
    if not facts:
        raise ValueError(f"unknown relation {relation!r}: {', '.join(world.relations)}")
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
    # Rows have unit length: the largest product is the smallest angle.
    alike = letters.transform([f.subject for f in never]) @ known.T
    return [shown[i].stated[0] for i in np.asarray(alike.argmax(axis=1)).ravel()]


def _ends_like(word: str, shown: list[Fact]) -> str:
    """The plural made as that of the shown word which ends most alike (man, men)."""
    model = max(shown, key=lambda f: (_common_end(word, f.subject), f.exposure))
    single, plural = model.subject, model.stated[0]
    kept = 0
    while kept < min(len(single), len(plural)) and single[kept] == plural[kept]:
        kept += 1
    return word[: len(word) - (len(single) - kept)] + plural[kept:]


def _common_end(one: str, other: str) -> int:
    length = 0
    while length < min(len(one), len(other)) and one[-1 - length] == other[-1 - length]:
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
    with warnings.catch_warnings():  # nearly as many answers as facts: as it should be
        warnings.filterwarnings("ignore", message="The number of unique classes")
        model.fit(
            [about.get(f.subject, {}) for f in shown], [f.stated[0] for f in shown]
        )
    return list(model.predict([about.get(f.subject, {}) for f in never]))
