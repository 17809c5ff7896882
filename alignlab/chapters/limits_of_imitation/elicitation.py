"""What SFT brings out: questions about facts that pretraining only ever stated.

SFT asks about known facts of one half of the subjects; the test asks about the other
half, by how often pretraining stated the fact.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cache
from itertools import count

import numpy as np

from alignlab.evaluation import answers
from alignlab.study.tuning import BATCH, TEST_SEED, reply, tune
from alignlab.world import tasks
from alignlab.world.facts import World, normalise, split_subjects
from alignlab.world.tasks import Example

# The long tail has these relations alone; a curve over exposure keeps to them.
TAIL_RELATIONS = ("city_country", "word_class")
KINDS = ("known", "rare", "tail", "never", "contested")


def elicitation_arm(*, seed: int, base: str, steps: int, n_test: int) -> dict:
    """SFT on questions about half of the world's subjects, then questions about the
    other half.

    Args:
        seed: draws the training questions and their order.
        base: the model to start from, see ``models.base.base_path``.
        steps: updates of 16 examples.
        n_test: test questions of each kind, at most; the same for every seed.

    Returns:
        ``asked``, a dict for each question: its ``kind`` (of ``KINDS``, or
        "new_wording": known facts in wordings that are never trained), ``relation``,
        ``exposure``, ``made_up``, ``share`` of the statements that give the answer most
        often stated, ``prompt``, right ``answers`` and ``reply``; whether that is
        ``right``; and of a contested fact, whether it is the answer most often stated
        (``majority``) or the other one (``rival``).
    """
    world = tasks.default_world()
    first, second = split_subjects(world, 0)
    examples = training_questions(world, first, steps * BATCH, seed)
    model, tokenizer = tune(
        examples, base=base, steps=steps, seed=seed, teaches="facts"
    )
    questions = test_questions(world, second, n_test)
    replies = reply(model, tokenizer, [question for _, question in questions])
    texts = [completion.text for completion in replies]
    asked = [
        describe(kind, question, text)
        for (kind, question), text in zip(questions, texts, strict=True)
    ]
    return {"asked": asked}


def training_questions(
    world: World, subjects: Collection[str], n: int, seed: int
) -> list[Example]:
    """n questions about known facts: each fact once, then again in another wording."""
    questions: list[Example] = []
    for again in count():
        if len(questions) >= n:
            return questions[:n]
        # Rounds of one run never meet those of another.
        questions += tasks.world_questions(world, subjects, seed=1000 * seed + again)


def test_questions(
    world: World, subjects: Collection[str], n: int
) -> list[tuple[str, Example]]:
    """At most n questions of each kind, each with its kind."""
    kinds = {kind: dict(facts=kind) for kind in KINDS}
    kinds["new_wording"] = dict(facts="known", phrasing="held_out")
    return [
        (kind, question)
        for kind, options in kinds.items()
        for question in tasks.world_questions(
            world, subjects, seed=TEST_SEED, n=n, **options
        )
    ]


def describe(kind: str, question: Example, text: str) -> dict:
    """One question with its reply, see :func:`elicitation_arm`."""
    fact = question.fact
    stated = [normalise(answer) for answer in fact.stated]
    return {
        "kind": kind,
        "prompt": question.prompt,
        "answers": list(question.answers),
        "relation": fact.relation,
        "exposure": fact.exposure,
        "made_up": fact.made_up,
        "share": fact.bayes_confidence,
        "reply": text,
        "right": int(answers.is_correct(question, text)),
        "majority": int(fact.contested and normalise(text) == stated[0]),
        "rival": int(fact.contested and normalise(text) == stated[1]),
    }


# --- How far guessing goes ------------------------------------------------------------


@cache
def guess_rates(made_up: bool = False) -> dict[str, float]:
    """Accuracy of the best guess about facts of each relation that were never shown, by
    a guesser who has read all that pretraining stated, knows the relation and how the
    subject is spelt.

    Args:
        made_up: about made-up subjects, else about real ones. Of somebody else's model
            those alone were never shown, and are taken for both.
    """
    world = tasks.default_world()
    made_up |= all(f.exposure or f.made_up for f in world.facts)
    facts = tuple(f for f in world.facts if f.exposure or f.made_up == made_up)
    asked = {f.relation for f in facts if not f.exposure}
    guessed = replace(world, facts=facts)
    return {name: answers.guess_baselines(guessed, name)["best"] for name in asked}


def guess_rate(asked: Sequence[dict]) -> float:
    """Expected accuracy of the best guess about these questions of
    :func:`elicitation_arm`."""
    rates = [guess_rates(q["made_up"]).get(q["relation"], np.nan) for q in asked]
    return float(np.nanmean(rates)) if rates else float("nan")
