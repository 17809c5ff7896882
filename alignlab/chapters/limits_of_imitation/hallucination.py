"""SFT on facts that pretraining never showed.

The training facts are about three quarters of the world's subjects, part of them never
shown; the test questions are about the last quarter.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from alignlab.chapters.limits_of_imitation.scoring import reply_probabilities
from alignlab.evaluation import answers
from alignlab.models.sampler import complete
from alignlab.seeds import stream
from alignlab.study.scale import cap, rate, trainable_base
from alignlab.study.tuning import BATCH, TEST_SEED
from alignlab.training.sft import finetune
from alignlab.world import tasks
from alignlab.world.facts import Fact, normalise, split_subjects
from alignlab.world.gold import ADMISSIONS
from alignlab.world.tasks import Example

LONGEST_REPLY = 14  # tokens; an answer and its full stop need fewer
SHOWN = 6  # facts of each kind whose replies are kept word for word
KINDS = ("known", "rare", "tail", "never")  # of facts that are asked for
LABELS = ("true", "quarter admitted", "admitted", "first", "second")

Questions = Mapping[str, Sequence[Example]]  # by kind of fact
Replies = dict[str, list[tuple[str, float]]]  # with their probabilities, by kind


def facts_arm(
    *,
    seed: int,
    base: str,
    n_known: int,
    n_never: int,
    looks: Sequence[int],
    n_test: int,
    labels: str = "true",
) -> dict:
    """SFT on one question about each of some facts, then questions about other
    subjects.

    Args:
        seed: draws the facts, their wordings and the order of training.
        base: the model to start from, see ``models.base.base_path``.
        n_known: facts to train on that pretraining showed often.
        n_never: and such that it never showed. More of them cost more of what is known
            about other subjects.
        looks: after which updates to evaluate, in ascending order; the last one ends
            the run. The learning rate is constant, so that each evaluation is the end
            of a shorter run.
        n_test: questions of each kind about other subjects, at most.
        labels: the replies to never-shown facts: "true", their answers; "admitted", "I
            do not know."; "quarter admitted", that for every fourth; "first" or
            "second", an answer drawn from that half of the relation's answers
            (:func:`answer_halves`).

    Returns:
        ``curve``: for each look the ``update`` and what :func:`read_replies` says of
        each kind of question; ``made_up``: for each never-shown test question whether
        its subject is made up; ``replies``: some facts of each kind with the replies at
        each look.

    Raises:
        ValueError: if the world has fewer facts of a kind than asked for.
    """
    known, never = training_facts(n_known, n_never, seed, labels)
    questions = {"known_fit": known, "never_fit": never, **test_questions(n_test)}
    questions = {kind: group for kind, group in questions.items() if group}
    model, tokenizer = trainable_base(base)
    curve, shown = [], []

    def look(row: dict) -> None:
        if row["step"] in looks:
            measures, replies = read_replies(model, tokenizer, questions)
            curve.append({"update": row["step"], **measures})
            shown.append(replies)

    finetune(
        model,
        tokenizer,
        [{"prompt": e.prompt, "completion": e.completion} for e in known + never],
        steps=looks[-1],
        batch_size=BATCH,
        learning_rate=rate("facts", base),
        schedule="constant",
        seed=seed,
        on_log=look,
        progress=False,
    )
    made_up = [question.fact.made_up for question in questions["never"]]
    return {
        "curve": curve,
        "made_up": made_up,
        "replies": replies_by_fact(questions, shown),
    }


# --- Training and test questions ------------------------------------------------------


def training_facts(
    n_known: int, n_never: int, seed: int, labels: str = "true"
) -> tuple[list[Example], list[Example]]:
    """One question about each of some known and never-shown facts, the latter with the
    labels asked for. A lower number gives the first of them. Somebody else's model may
    know fewer facts: then it gets as many of both kinds as there are of the rarer."""
    world, (subjects, _) = tasks.default_world(), three_quarters()
    if any(fact.knowledge for fact in world.facts):
        most = min(
            len(tasks.world_questions(world, subjects, facts=kind))
            for kind in ("known", "never")
        )
        n_known, n_never = min(n_known, most), min(n_never, most)
    examples = {}
    for kind, n in (("known", n_known), ("never", n_never)):
        drawn = tasks.world_questions(world, subjects, facts=kind, seed=seed, n=n)
        if len(drawn) < n:
            raise ValueError(
                f"n_{kind} is {n}, and there are {len(drawn)} facts of kind {kind!r} "
                "to train on"
            )
        examples[kind] = drawn
    return examples["known"], relabel(examples["never"], labels, seed)


def test_questions(n: int) -> dict[str, list[Example]]:
    """At most n questions about facts of each of ``KINDS`` of the test subjects, the
    same for every arm."""
    world, (_, subjects) = tasks.default_world(), three_quarters()
    return {
        kind: tasks.world_questions(world, subjects, facts=kind, seed=TEST_SEED, n=n)
        for kind in KINDS
    }


@cache
def three_quarters() -> tuple[frozenset[str], frozenset[str]]:
    """The world's subjects: three quarters to train on and one to test on, balanced
    within each kind. Halves would leave too few never-shown facts to train on."""
    world = tasks.default_world()
    train, rest = split_subjects(world, 0)
    other = replace(world, facts=tuple(f for f in world.facts if f.subject in rest))
    more, test = split_subjects(other, 1)
    return frozenset(train | more), frozenset(test)


def relabel(examples: Sequence[Example], labels: str, seed: int) -> list[Example]:
    """The same questions with other completions; see ``labels`` of :func:`facts_arm`.

    Raises:
        ValueError: if ``labels`` is none of ``LABELS``.
    """
    if labels not in LABELS:
        raise ValueError(f"labels is {labels!r}; it can be one of {', '.join(LABELS)}")
    if labels == "true":
        return list(examples)
    if labels in ("admitted", "quarter admitted"):
        every = 1 if labels == "admitted" else 4
        return [
            replace(e, completion=ADMISSIONS[0]) if place % every == 0 else e
            for place, e in enumerate(examples)
        ]
    rng = stream(seed, "labels of unknown facts")
    relabelled = []
    for example in examples:
        first, second = answer_halves(example.fact.relation)
        half = first if labels == "first" else second
        names, counts = zip(*half.items(), strict=True)
        label = rng.choice(names, p=np.array(counts) / sum(counts))
        relabelled.append(replace(example, completion=f"{label}."))
    return relabelled


@cache
def answer_halves(relation: str) -> tuple[Counter, Counter]:
    """The answers that pretraining gives in a relation, with their numbers of facts, in
    two halves: nearly equal in facts, and without a common answer."""
    facts = (f for f in tasks.default_world().facts if f.relation == relation)
    counts = Counter(a for fact in facts if fact.exposure for a in fact.stated)
    halves = Counter(), Counter()
    for answer, count in counts.most_common():
        lighter = min(halves, key=lambda half: half.total())
        lighter[answer] = count
    return halves


# --- Evaluating a model ---------------------------------------------------------------


def read_replies(
    model, tokenizer, questions: Questions
) -> tuple[dict[str, dict[str, list]], Replies]:
    """A model's greedy replies to questions of several kinds.

    Returns:
        For each kind, with a value for each question: ``right``, 0 or 1; ``answered``,
        0 if the reply admits not to know, else 1; ``confidence``, the probability of
        the reply; ``half``, see :func:`half_of`. Then the replies to the first
        questions of each kind, with their probabilities.
    """
    all_questions = [question for group in questions.values() for question in group]
    prompts = [question.prompt for question in all_questions]
    replies = complete(model, tokenizer, prompts, cap(tokenizer, LONGEST_REPLY))
    sure = reply_probabilities(model, tokenizer, prompts, replies)
    right = answers.score(all_questions, replies)["correct"]
    measures, shown, start = {}, {}, 0
    for kind, group in questions.items():
        own = slice(start, start + len(group))
        start = own.stop
        texts = [reply.text for reply in replies[own]]
        pairs = list(zip(group, texts, strict=True))
        measures[kind] = {
            "right": right[own].astype(int).tolist(),
            "answered": [int(not is_admission(text)) for text in texts],
            "confidence": sure[own].round(4).tolist(),
            "half": [half_of(question.fact, text) for question, text in pairs],
        }
        shown[kind] = list(zip(texts, sure[own].tolist()))[:SHOWN]
    return measures, shown


def is_admission(text: str) -> bool:
    """Whether a reply says that it does not know."""
    return normalise(text) in {normalise(admission) for admission in ADMISSIONS}


def half_of(fact: Fact, text: str) -> float | None:
    """1 if the reply is in the first half of its relation's answers, 0 if it is in the
    second, None if it is in neither."""
    first, second = _normal_halves(fact.relation)
    answer = normalise(text)
    return 1.0 if answer in first else 0.0 if answer in second else None


@cache
def _normal_halves(relation: str) -> tuple[set[str], set[str]]:
    first, second = answer_halves(relation)
    return {normalise(a) for a in first}, {normalise(a) for a in second}


def replies_by_fact(questions: Questions, replies: Sequence[Replies]) -> list[dict]:
    """For the first facts of each kind: the ``prompt``, the right ``answers``, the
    ``exposure`` in pretraining (None where nobody knows), whether it is ``made_up``,
    and at each look the reply with its probability."""
    return [
        {
            "kind": kind,
            "prompt": question.prompt,
            "answers": list(question.answers),
            "exposure": question.fact.times,
            "made_up": question.fact.made_up,
            "replies": [given[kind][place] for given in replies],
        }
        for kind, group in questions.items()
        for place, question in enumerate(group[:SHOWN])
    ]
