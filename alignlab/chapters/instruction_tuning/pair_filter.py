"""Which generated question and answer pairs to keep, and which of them are right.

The filter needs a plain sentence and what it is about, and no answers; whether a pair
is right is looked up in the world, and the filter never sees it.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import chain

from alignlab.world.facts import RELATIONS, World, is_right

MAX_WORDS = 16  # in a question; people's have 12 at most
MAX_ANSWER_WORDS = 5


def reason_to_drop(
    statement: str, subject: str, question: str, answer: str, kept: Iterable[str] = ()
) -> str:
    """The first rule that a pair breaks, or "" if it breaks none.

    Args:
        statement: the sentence that the generator was asked about.
        subject: what the statement is about.
        question, answer: what the generator wrote; empty if it could not be parsed.
        kept: the questions kept so far, each through :func:`fold`.
    """
    broken = {
        "unparsed": not question or not answer,
        "too_long": len(question.split()) > MAX_WORDS
        or len(answer.split()) > MAX_ANSWER_WORDS,
        "not_an_instruction": not is_instruction(question),
        "subject_missing": not mentions(question, subject),
        "answer_in_question": mentions(question, answer),
        "answer_not_in_statement": not mentions(statement, answer),
        "off_topic": not shared_words(question, statement, subject, answer),
        "duplicate": fold(question) in kept,
    }
    return next((rule for rule, is_broken in broken.items() if is_broken), "")


def is_instruction(question: str) -> bool:
    """Whether the text ends like a question or begins like a command."""
    command = question.startswith(("Name ", "Tell ", "Say ", "Give ", "Write "))
    return question.endswith("?") or command


_STOP_WORDS = frozenset(
    "a an the this that is are was be do does has have can of in on at to for from "
    "with by as and or not what which who where how one more than it its".split()
)


def shared_words(question: str, statement: str, *names: str) -> set[str]:
    """Words that question and statement share, without names and stop words: "What is
    the money of Mali?" shares none with "Bamako is the capital of Mali."
    """
    for name in names:
        question, statement = without(question, name), without(statement, name)
    return (_words(question) & _words(statement)) - _STOP_WORDS


def mentions(text: str, phrase: str) -> bool:
    """Whether the text contains the phrase as whole words: Nigeria does not mention
    Niger, nor Guinea-Bissau Guinea."""
    return bool(_whole_words(phrase).search(text))


def without(text: str, phrase: str) -> str:
    """The text with every whole-word occurrence of the phrase removed."""
    return _whole_words(phrase).sub(" ", text)


def fold(question: str) -> str:
    """Lower case and single spaces, to recognise duplicates."""
    return " ".join(question.lower().split())


def _whole_words(phrase: str) -> re.Pattern:
    return re.compile(rf"(?<![\w-]){re.escape(phrase)}(?![\w-])")


# --- What the filter cannot see -----------------------------------------------------


def is_right_pair(world: World, subject: str, question: str, answer: str) -> bool:
    """Whether the question asks for a fact about the subject and the answer is right.

    A pair can pass the filter and still be wrong: "What is the money of Mali? Bamako."
    """
    if not question or not mentions(question, subject):
        return False
    facts = (world.find(subject, name) for name in asked_relations(question, subject))
    return any(fact is not None and is_right(fact, answer) for fact in facts)


def asked_relations(question: str, subject: str) -> list[str]:
    """The relations that the question most likely asks for, in the model's own words.

    Each word counts for the relations in whose wordings it occurs, and more if few
    relations share it. All relations with the highest score are returned, or none if no
    word counts for any.
    """
    words = _words(without(question, subject))
    weights = _word_weights()
    scores = {
        name: sum(weight for word, weight in weights[name].items() if word in words)
        for name in weights
    }
    best = max(scores.values())
    return [name for name, s in scores.items() if best > 0 and math.isclose(s, best)]


@cache
def _word_weights() -> dict[str, dict[str, float]]:
    """For each relation the words of its questions (held-out ones too) and statements,
    weighted by log(relations / relations with that word)."""
    words = {
        name: _words(" ".join(r.questions + r.held_out_questions + r.statements))
        for name, r in RELATIONS.items()
    }
    shared = Counter(chain.from_iterable(words.values()))
    return {
        name: {word: math.log(len(words) / shared[word]) for word in sorted(own)}
        for name, own in words.items()
    }


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", re.sub(r"{\w}", " ", text.lower())))
