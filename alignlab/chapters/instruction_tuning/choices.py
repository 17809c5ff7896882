"""Right or wrong without sampling: is the right answer the likeliest of a few?

A model that has not learnt to answer still finds some continuations likelier than
others. So every question gets options, and what is scored is their log-probability.
That has a known chance level, and a value for models whose replies are never right.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from alignlab.calibration.elicitation import multiple_choice
from alignlab.evaluation import answers
from alignlab.seeds import stream
from alignlab.world import tasks
from alignlab.world.tasks import Example

OPTIONS = 4


class Question(NamedTuple):
    """A question and what to choose from; the first option is the right one."""

    example: Example
    options: tuple[str, ...]


def choice_questions(families: Sequence[str], n: int, seed: int) -> list[Question]:
    """Up to n test questions of each family, each with its options."""
    return [
        with_options(example, number + seed)
        for family in families
        for number, example in enumerate(
            tasks.examples(family, n, split="test", seed=seed)
        )
    ]


def with_options(example: Example, seed: int) -> Question:
    """The example with the right answer and up to three wrong ones of its family.

    A classification's options are its labels. Elsewhere those wrong answers come first
    that stand in the prompt, so that copying from it is not enough; the rest are drawn
    from the answers of the family's other items.

    Args:
        seed: draws the wrong answers, and which right one is asked for if there are
            several.
    """
    right = example.completion.removesuffix(".")
    if example.labels:
        return Question(example, (right, *(x for x in example.labels if x != right)))
    rng = stream(seed, f"options of {example.prompt}")
    others = [x for x in _answers(example.family) if not _same(example, x)]
    inside = [x for x in others if _stands_in(x, example.prompt)]
    outside = [x for x in others if not _stands_in(x, example.prompt)]
    wrong = [*rng.permutation(inside), *rng.permutation(outside)][: OPTIONS - 1]
    return Question(example, (right, *map(str, wrong)))


def _answers(family: str) -> list[str]:
    """Every answer of a family that may be trained on, once."""
    replies = (reply for item in tasks.table(family) for reply in item.replies)
    return list(dict.fromkeys(reply.removesuffix(".") for reply in replies))


def _same(example: Example, option: str) -> bool:
    return option in example.answers or answers.is_correct(example, option)


def _stands_in(option: str, prompt: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(option)}(?!\w)", prompt) is not None


def chance(questions: Sequence[Question]) -> dict[str, float]:
    """In each family, the share of right choices of one who draws an option."""
    shares: dict[str, list[float]] = {}
    for question in questions:
        own = shares.setdefault(question.example.family, [])
        own.append(1 / len(question.options))
    return {family: float(np.mean(own)) for family, own in shares.items()}


def under_another(questions: Sequence[Question]) -> list[Question]:
    """The options of each question under the next question of its family, as a control:
    no model can be right, except by telling answers without their question."""
    moved = []
    for family in dict.fromkeys(q.example.family for q in questions):
        own = [q for q in questions if q.example.family == family]
        following = own[1:] + own[:1]
        moved += [
            Question(other.example, question.options)
            for question, other in zip(own, following, strict=True)
        ]
    return moved


def probabilities(
    model,
    tokenizer,
    questions: Sequence[Question],
    *,
    chat: bool = True,
    prompts: Sequence[str] | None = None,
) -> np.ndarray:
    """Probability of the right option among the options, (questions, 2): the
    probability itself, and 1 where it is the largest (a tie counts as its share).

    Args:
        chat: False continues the prompt as plain text, as a base model reads it.
        prompts: to ask instead of the questions' own, such as worked examples.
    """
    asked = prompts or [question.example.prompt for question in questions]
    space = "" if chat else " "
    options = [[f"{space}{x}." for x in question.options] for question in questions]
    choices = multiple_choice(model, tokenizer, asked, options, chat=chat)
    return np.array([[row[0], _won(row)] for row in choices.probabilities])


def _won(row: Sequence[float]) -> float:
    best = np.isclose(row, max(row), rtol=0, atol=1e-12)
    return float(best[0] / best.sum())


def summary(questions: Sequence[Question], scored: np.ndarray) -> dict:
    """Scores of one model, every family with the same weight.

    Returns:
        ``by_family``: in each, the ``accuracy`` of the likeliest option and the
        ``log_likelihood``, the mean log of the right one's probability among the
        options (nats; a guess among four has -1.39); ``accuracy`` and
        ``log_likelihood``, their means over families; ``items``: for each question
        whether it is right, weighted so that their mean is the accuracy.
    """
    families = np.array([question.example.family for question in questions])
    names = list(dict.fromkeys(families.tolist()))
    by_family, items = {}, np.zeros(len(questions))
    for family in names:
        own = families == family
        floored = np.maximum(scored[own, 0], 1e-6)  # one sure error must not decide
        by_family[family] = {
            "accuracy": float(scored[own, 1].mean()),
            "log_likelihood": float(np.log(floored).mean()),
        }
        items[own] = scored[own, 1] * len(questions) / (len(names) * own.sum())
    means = {
        metric: float(np.mean([scores[metric] for scores in by_family.values()]))
        for metric in ("accuracy", "log_likelihood")
    }
    return means | {"by_family": by_family, "items": items.round(9).tolist()}
