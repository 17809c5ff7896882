"""SFT on facts that pretraining never showed.

The training facts are about three quarters of the world's subjects, part of them never
shown; the test questions are about the last quarter.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from jaxtyping import Float

from alignlab.evaluation import answers
from alignlab.models.base import load_base
from alignlab.models.positions import completion_log_probs
from alignlab.models.sampler import Completion, complete
from alignlab.models.text import as_messages, encode_prompt
from alignlab.seeds import stream
from alignlab.study.tuning import BATCH, FACTS_RATE, TEST_SEED
from alignlab.training.sft import Encoded, collate, finetune
from alignlab.world import tasks
from alignlab.world.facts import Fact, normalise, split_subjects
from alignlab.world.gold import ADMISSIONS
from alignlab.world.tasks import Example

LONGEST_REPLY = 14  # tokens; an answer and its full stop need fewer
SHOWN = 6  # facts of each kind whose replies are kept word for word
LABELS = ("true", "admission", "first", "second")

Questions = Mapping[str, Sequence[Example]]  # by kind of fact


def facts_arm(
    *,
    seed: int,
    size: str,
    n_facts: int,
    share: float,
    epochs: Sequence[int],
    n_test: int,
    labels: str = "true",
    control: bool = False,
) -> dict:
    """SFT on one question about each of some facts, then questions about other
    subjects.

    Args:
        seed: draws the facts, their wordings and the order of training.
        size: of the base model.
        n_facts: training facts, known and unknown together.
        share: share of them that pretraining never showed, 0 to 1. Higher costs more
            of what is known about other subjects.
        epochs: when to evaluate, in ascending order; the last one ends the run. The
            learning rate is constant, so each evaluation is the end of a shorter run.
        n_test: questions of each kind about other subjects, at most.
        labels: the replies to unknown facts: "true", their answers; "admission", "I do
            not know."; "first" or "second", an answer drawn from that half of the
            relation's answers (:func:`answer_halves`).
        control: train on the known facts alone.

    Returns:
        ``curve``: ``epoch`` and the measures of :func:`evaluate_replies`, one dict per
        evaluation; ``replies``: some facts of each kind with the replies after each.

    Raises:
        ValueError: if the world has fewer facts of a kind than asked for.
    """
    known, unknown = training_facts(n_facts, share, seed, labels)
    examples = known if control else known + unknown
    questions = {"known_fit": known, "unknown_fit": unknown, **test_questions(n_test)}
    model, tokenizer = load_base(size)
    steps_per_epoch = math.ceil(len(examples) / BATCH)
    curve, replies = [], []

    def evaluate(row: dict) -> None:
        epoch, rest = divmod(row["step"], steps_per_epoch)
        if rest == 0 and epoch in epochs:
            measures, given = evaluate_replies(model, tokenizer, questions)
            curve.append({"epoch": epoch, **measures})
            replies.append(given)

    finetune(
        model,
        tokenizer,
        [{"prompt": e.prompt, "completion": e.completion} for e in examples],
        steps=epochs[-1] * steps_per_epoch,
        batch_size=BATCH,
        learning_rate=FACTS_RATE[size],
        schedule="constant",
        seed=seed,
        on_log=evaluate,
        progress=False,
    )
    return {"curve": curve, "replies": replies_by_fact(questions, replies)}


# --- Training and test questions ------------------------------------------------------


def training_facts(
    n: int, share: float, seed: int, labels: str = "true"
) -> tuple[list[Example], list[Example]]:
    """One question about each of n facts: known ones, and the share of them that was
    never shown, with the labels asked for."""
    world, (subjects, _) = tasks.default_world(), three_quarters()
    counts = {"never": round(share * n)}
    counts["known"] = n - counts["never"]
    examples = {}
    for kind, count in counts.items():
        drawn = tasks.world_questions(world, subjects, facts=kind, seed=seed, n=count)
        if len(drawn) < count:
            raise ValueError(
                f"n_facts={n}, share={share} asks for {count} facts of kind {kind!r}, "
                f"and there are {len(drawn)} to train on"
            )
        examples[kind] = drawn
    return examples["known"], relabel(examples["never"], labels, seed)


def test_questions(n: int) -> dict[str, list[Example]]:
    """At most n questions about known, rare and never shown facts of the test subjects,
    the same for every arm."""
    world, (_, subjects) = tasks.default_world(), three_quarters()
    return {
        kind: tasks.world_questions(world, subjects, facts=kind, seed=TEST_SEED, n=n)
        for kind in ("known", "rare", "never")
    }


def never_shown_chance(n: int) -> float:
    """Accuracy of the best guess about the never shown facts in the test questions."""
    facts = [question.fact for question in test_questions(n)["never"]]
    return answers.best_guess_rate(tasks.default_world(), facts)


@cache
def three_quarters() -> tuple[frozenset[str], frozenset[str]]:
    """The world's subjects: three quarters to train on and one to test on, balanced
    within each kind. Halves would leave too few never shown facts to train on."""
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
    if labels == "admission":
        return [replace(e, completion=ADMISSIONS[0]) for e in examples]
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


def evaluate_replies(
    model, tokenizer, questions: Questions
) -> tuple[dict[str, object], dict[str, list[tuple[str, float]]]]:
    """A model's greedy replies to questions of several kinds.

    Returns:
        The measures of each kind that has questions: ``KIND``, share of right replies;
        ``KIND_confidence``, mean probability of the replies; ``KIND_admitted``, share
        of "I do not know."; ``KIND_first``, share in the first half of the relation's
        answers among the replies in either half; and ``known_right``, 0 or 1 for each
        known fact. Then the replies to the first questions of each kind, with their
        probabilities.
    """
    all_questions = [question for group in questions.values() for question in group]
    prompts = [question.prompt for question in all_questions]
    replies = complete(model, tokenizer, prompts, LONGEST_REPLY)
    confidences = reply_probabilities(model, tokenizer, prompts, replies)
    right = answers.score(all_questions, replies)["correct"]
    measures, shown, start = {}, {}, 0
    for kind, group in questions.items():
        if not group:
            continue
        own = slice(start, start + len(group))
        start = own.stop
        measures[kind] = float(right[own].mean())
        measures[f"{kind}_confidence"] = float(confidences[own].mean())
        texts = [reply.text for reply in replies[own]]
        measures[f"{kind}_admitted"] = float(np.mean([is_admission(t) for t in texts]))
        measures[f"{kind}_first"] = share_in_first_half(group, texts)
        if kind == "known":
            measures["known_right"] = right[own].astype(int).tolist()
        shown[kind] = list(zip(texts, confidences[own].tolist()))[:SHOWN]
    return measures, shown


@torch.no_grad()
def reply_probabilities(
    model, tokenizer, prompts: Sequence[str], replies: Sequence[Completion]
) -> Float[np.ndarray, "replies"]:
    """Probability of each reply given its prompt, EOS token included."""
    heads = [encode_prompt(tokenizer, as_messages(p, "user")) for p in prompts]
    rows = [
        Encoded(head + reply.tokens, [0] * len(head) + [1] * len(reply.tokens))
        for head, reply in zip(heads, replies, strict=True)
    ]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].input_ids))
    probabilities = np.empty(len(rows))
    for start in range(0, len(order), 256):
        places = order[start : start + 256]
        batch = collate([rows[i] for i in places], tokenizer.pad_token_id)
        batch = {name: value.to(model.device) for name, value in batch.items()}
        total = completion_log_probs(model, **batch).sum(dim=1)
        probabilities[places] = total.exp().cpu().numpy()
    return probabilities


def is_admission(text: str) -> bool:
    """Whether a reply says that it does not know."""
    return normalise(text) in {normalise(admission) for admission in ADMISSIONS}


def share_in_first_half(questions: Sequence[Example], texts: Sequence[str]) -> float:
    """Share of replies in the first half of their relation's answers, among those in
    either half; 0.5 if there are none."""
    sides = [half_of(q.fact, text) for q, text in zip(questions, texts, strict=True)]
    sides = [side for side in sides if side is not None]
    return float(np.mean(sides)) if sides else 0.5


def half_of(fact: Fact, text: str) -> float | None:
    """1 if the reply is in the first half of its relation's answers, 0 if it is in the
    second, None if it is in neither."""
    for value, half in zip((1.0, 0.0), answer_halves(fact.relation), strict=True):
        if normalise(text) in {normalise(answer) for answer in half}:
            return value
    return None


def replies_by_fact(
    questions: Questions, replies: Sequence[Mapping[str, Sequence[tuple[str, float]]]]
) -> list[dict]:
    """For the first facts of each kind: the ``prompt``, the right ``answers``, the
    ``exposure`` in pretraining, and after each evaluation the reply with its
    probability."""
    return [
        {
            "kind": kind,
            "prompt": question.prompt,
            "answers": list(question.answers),
            "exposure": question.fact.exposure,
            "replies": [given[kind][place] for given in replies],
        }
        for kind, group in questions.items()
        for place, question in enumerate(group[:SHOWN])
    ]
