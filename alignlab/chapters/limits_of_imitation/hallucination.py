"""SFT on facts that pretraining never showed: the arms of notebook 02's first half.

The training facts are about three quarters of the world's subjects, a share of them
never shown; what is asked is about the last quarter. Every arm is the same run with one
thing changed, looked at after several epochs.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from jaxtyping import Float

from alignlab.chapters.instruction_tuning.runs import TEST_SEED
from alignlab.evaluation import answers
from alignlab.models.base import load_base
from alignlab.models.likelihood import completion_log_probs
from alignlab.models.sampler import Completion, complete
from alignlab.study.arms import run_arms
from alignlab.study.tuning import BATCH, FACTS_RATE
from alignlab.training.sft import Encoded, collate, finetune
from alignlab.world import tasks
from alignlab.world.facts import Fact, normalise, split_subjects
from alignlab.world.gold import ADMISSIONS
from alignlab.world.tasks import Example

LONGEST_REPLY = 14  # tokens; an answer and its full stop need fewer
SHOWN = 6  # facts of each kind whose replies are kept word for word
LABELS = ("true", "admission", "first", "second")


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
    """SFT on one question for each of some facts, then questions about other subjects.

    Args:
        seed: draws the facts and their wordings, and the order of training.
        size: of the base model.
        n_facts: facts trained on, known and unknown together.
        share: of them never shown in pretraining, 0 to 1.
        epochs: after which to look, ascending; the last one ends the run. The learning
            rate is constant, so each look is the end of a shorter run.
        n_test: questions of each kind about other subjects, at most.
        labels: what the unknown facts are answered with: "true", their answers;
            "admission", "I do not know."; "first" or "second", an answer drawn from
            that half of the relation's answers (:func:`answer_halves`).
        control: leave the unknown facts out: as many known ones, no others.

    Returns:
        ``curve``, for each epoch what :func:`look` measures; ``replies``, some facts of
        every kind with what was replied after each epoch and how surely.

    Raises:
        ValueError: if the world has fewer facts of a kind than are asked for.
    """
    known, unknown = training_facts(n_facts, share, seed, labels)
    learnt = known if control else known + unknown
    asked = {"known_fit": known, "unknown_fit": unknown, **test_questions(n_test)}
    model, tokenizer = load_base(size)
    per_epoch = math.ceil(len(learnt) / BATCH)
    curve, shown = [], []

    def see(row: dict) -> None:
        epoch, rest = divmod(row["step"], per_epoch)
        if rest == 0 and epoch in epochs:
            measured, replies = look(model, tokenizer, asked)
            curve.append({"epoch": epoch, **measured})
            shown.append(replies)

    finetune(
        model,
        tokenizer,
        [{"prompt": e.prompt, "completion": e.completion} for e in learnt],
        steps=epochs[-1] * per_epoch,
        batch_size=BATCH,
        learning_rate=FACTS_RATE[size],
        schedule="constant",
        seed=seed,
        on_log=see,
        progress=False,
    )
    return {"curve": curve, "replies": along_epochs(asked, shown)}


def facts_sweep(
    *, seeds, costly_seeds, shares, more_shares, half=0.5, jobs=2, **common
) -> list[dict]:
    """Every arm of the first half of the notebook, at the same ``common`` parameters.

    Args:
        seeds: of each share in ``shares`` with its control, and of the admissions.
        costly_seeds: of the shares in between, ``more_shares``, with their controls,
            and of the two arms whose labels come from one half of the answers each.
        half: the share of unknown facts where other labels than the true ones are
            given.
    """
    arms = [
        dict(seed=seed, share=share, control=control, labels="true")
        for some, of in ((shares, seeds), (more_shares, costly_seeds))
        for share in some
        for control in ((False, True) if 0 < share < 1 else (False,))
        for seed in of
    ]
    arms += [dict(seed=s, share=half, labels="admission") for s in seeds]
    arms += [
        dict(seed=s, share=half, labels=labels)
        for labels in ("first", "second")
        for s in costly_seeds
    ]
    arms = [{"control": False, **arm, **common} for arm in arms]
    return run_arms(facts_arm, arms, jobs=jobs, label="unknown facts")


# --- What is trained on, and what is asked --------------------------------------------


def training_facts(
    n: int, share: float, seed: int, labels: str = "true"
) -> tuple[list[Example], list[Example]]:
    """One question for each of n facts about the subjects to train on: known facts, and
    the share that was never shown, these with the labels asked for."""
    world, (subjects, _) = tasks.default_world(), three_quarters()
    counts = {"never": round(share * n)}
    counts["known"] = n - counts["never"]
    found = {}
    for kind, count in counts.items():
        some = tasks.world_questions(world, subjects, facts=kind, seed=seed, n=count)
        if len(some) < count:
            raise ValueError(
                f"n_facts={n}, share={share} asks for {count} facts of kind {kind!r}, "
                f"and there are {len(some)} to train on"
            )
        found[kind] = some
    return found["known"], relabel(found["never"], labels, seed)


def test_questions(n: int) -> dict[str, list[Example]]:
    """At most n questions of each kind of fact (known, rare, never shown) about the
    other subjects. The same ones for every arm."""
    world, (_, subjects) = tasks.default_world(), three_quarters()
    return {
        kind: tasks.world_questions(world, subjects, facts=kind, seed=TEST_SEED, n=n)
        for kind in ("known", "rare", "never")
    }


@cache
def three_quarters() -> tuple[frozenset[str], frozenset[str]]:
    """The world's subjects, three quarters to train on and one to ask about, balanced
    within each kind. Halves would leave too few never-shown facts to train on."""
    world = tasks.default_world()
    train, rest = split_subjects(world, 0)
    other = replace(world, facts=tuple(f for f in world.facts if f.subject in rest))
    more, test = split_subjects(other, 1)
    return frozenset(train | more), frozenset(test)


def relabel(examples: Sequence[Example], labels: str, seed: int) -> list[Example]:
    """The same questions with other replies to imitate; see ``labels`` of
    :func:`facts_arm`.

    Raises:
        ValueError: on labels that are none of ``LABELS``.
    """
    if labels not in LABELS:
        raise ValueError(f"labels is {labels!r}; it can be one of {', '.join(LABELS)}")
    if labels == "true":
        return list(examples)
    if labels == "admission":
        return [replace(e, completion=ADMISSIONS[0]) for e in examples]
    rng = np.random.default_rng([seed, 20])
    drawn = []
    for example in examples:
        frequent = answer_halves(example.fact.relation)[LABELS.index(labels) - 2]
        names, counts = zip(*frequent.items(), strict=True)
        label = rng.choice(names, p=np.array(counts) / sum(counts))
        drawn.append(replace(example, completion=f"{label}."))
    return drawn


@cache
def answer_halves(relation: str) -> tuple[Counter, Counter]:
    """The answers that pretraining gives in a relation, with how many facts have each,
    in two halves of nearly the same number of facts and no answer in common."""
    shown = (f for f in tasks.default_world().facts if f.relation == relation)
    frequent = Counter(a for fact in shown if fact.exposure for a in fact.stated)
    halves = Counter(), Counter()
    for answer, count in frequent.most_common():
        lighter = min(halves, key=lambda half: half.total())
        lighter[answer] = count
    return halves


# --- Looking at a model ---------------------------------------------------------------


def look(model, tokenizer, asked: dict[str, list[Example]]) -> tuple[dict, dict]:
    """How a model answers questions of several kinds, greedily.

    Returns:
        ``measured``: for each kind that has questions, ``KIND``: share of right replies
        (to known facts also ``known_right``, 0 or 1 for every question);
        ``KIND_confidence``: mean probability of the reply given;
        ``KIND_wrong_confidence``: the same of wrong ones; ``KIND_admitted``: share of
        "I do not know."; ``KIND_first``: of the replies that are in one of the
        relation's halves of answers, the share in the first. And ``replies`` with their
        probabilities, of the first few questions of each kind.
    """
    kinds = [kind for kind, some in asked.items() if some]
    questions = [q for kind in kinds for q in asked[kind]]
    prompts = [q.prompt for q in questions]
    replies = complete(model, tokenizer, prompts, LONGEST_REPLY)
    sure = confidence(model, tokenizer, prompts, replies)
    right = answers.score(questions, replies)["correct"]
    admitted = np.array([is_admission(r.text) for r in replies])
    side = np.array(
        [half_of(q.fact, r.text) for q, r in zip(questions, replies, strict=True)]
    )
    measured, shown, start = {}, {}, 0
    for kind in kinds:
        at = slice(start, start + len(asked[kind]))
        start = at.stop
        measured[kind] = float(right[at].mean())
        measured[f"{kind}_confidence"] = float(sure[at].mean())
        wrong = sure[at][~right[at]]
        measured[f"{kind}_wrong_confidence"] = (
            float(wrong.mean()) if len(wrong) else 0.0
        )
        measured[f"{kind}_admitted"] = float(admitted[at].mean())
        sided = side[at][~np.isnan(side[at])]
        measured[f"{kind}_first"] = float(sided.mean()) if len(sided) else 0.5
        shown[kind] = [
            (replies[i].text, float(sure[i])) for i in range(*at.indices(at.stop))
        ]
        shown[kind] = shown[kind][:SHOWN]
        if kind == "known":
            measured["known_right"] = right[at].astype(int).tolist()
    return measured, shown


@torch.no_grad()
def confidence(
    model, tokenizer, prompts: Sequence[str], replies: Sequence[Completion]
) -> Float[np.ndarray, "replies"]:
    """Probability of each reply as a whole, its ending included, given its prompt."""
    turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
    texts = tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True
    )
    heads = tokenizer(texts, add_special_tokens=False)["input_ids"]
    rows = [
        Encoded(head + reply.tokens, [0] * len(head) + [1] * len(reply.tokens))
        for head, reply in zip(heads, replies, strict=True)
    ]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].input_ids))
    found = np.empty(len(rows))
    for start in range(0, len(order), 256):
        some = order[start : start + 256]
        batch = collate([rows[i] for i in some], tokenizer.pad_token_id)
        batch = {name: value.to(model.device) for name, value in batch.items()}
        total = completion_log_probs(model, **batch).sum(dim=1)
        found[some] = total.exp().cpu().numpy()
    return found


def is_admission(text: str) -> bool:
    """Whether a reply says that it does not know."""
    return normalise(text) in {normalise(admission) for admission in ADMISSIONS}


def half_of(fact: Fact, text: str) -> float:
    """1 if the reply is an answer of the relation's first half, 0 if of the second, NaN
    if of neither."""
    for value, half in zip((1.0, 0.0), answer_halves(fact.relation), strict=True):
        if normalise(text) in {normalise(answer) for answer in half}:
            return value
    return math.nan


def along_epochs(asked: dict[str, list[Example]], shown: Sequence[dict]) -> list[dict]:
    """For some facts of each kind: what was asked, how often pretraining showed it, the
    right answer, and after each look the reply and its probability."""
    return [
        {
            "kind": kind,
            "prompt": question.prompt,
            "answers": list(question.answers),
            "exposure": question.fact.exposure,
            "replies": [look[kind][place] for look in shown],
        }
        for kind, questions in asked.items()
        for place, question in enumerate(questions[:SHOWN])
    ]
