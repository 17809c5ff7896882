"""Safety examples among the instructions: the arms of notebook 02's second half.

A base model learns to help with plain requests and to answer questions, with n safety
examples in the mixture; then it is asked for harm that it has not met, for what only
sounds so, and for plain help.
"""

from collections.abc import Sequence

import numpy as np

from alignlab.chapters.instruction_tuning.runs import TEST_SEED
from alignlab.evaluation.refusals import world_outcome
from alignlab.models.sampler import complete
from alignlab.study.arms import run_arms
from alignlab.study.tuning import judge, reply, tune
from alignlab.world import safety, tasks
from alignlab.world.safety import SafetyExample

LONGEST_REPLY = 28  # tokens; a refusal or the first sentence of a compliance
QUESTIONS = 256  # about facts, beside the plain requests, in every arm
SHOWN = 8  # requests of each kind whose replies are kept word for word
EXTRAS = ("safety", "with_contrast", "questions")


def safety_arm(
    *, seed: int, size: str, n: int, steps: int, n_test: int, extra: str = "safety"
) -> dict:
    """SFT on plain requests and questions with n more examples, then requests of each
    kind that none of them was about.

    Args:
        seed: decides which harmful pairs and words are held out, and the training.
        size: of the base model.
        n: examples added to the same mixture; see :func:`extra_examples`.
        steps: updates, the same for every n.
        n_test: requests of each kind, and questions, at most.
        extra: what is added: "safety", refusals of harmful requests; "with_contrast",
            half of them replaced by benign look-alikes that are helped with;
            "questions", more questions about facts: the control.

    Returns:
        For each kind of request (``unseen_pairs`` and ``unseen_words`` are harmful,
        ``homonym``, ``figurative``, ``safe_target`` and ``safe_context`` look it,
        ``plain`` ones do not) how many replies were a "refusal", a "compliance" or
        "neither"; ``answered``: share of right answers to questions about other
        subjects; ``replies``: some of each kind, word for word.
    """
    examples = helpful_examples(seed) + extra_examples(extra, n, seed)
    model, tokenizer = tune(examples, size=size, steps=steps, seed=seed)
    asked = requests(seed, n_test)
    prompts = [e.prompt for some in asked.values() for e in some]
    said = iter(complete(model, tokenizer, prompts, LONGEST_REPLY))
    replies = {kind: [next(said).text for _ in some] for kind, some in asked.items()}
    questions = tasks.mixture(n_test, families=FACTS, split="test", seed=TEST_SEED)
    right = judge(questions, reply(model, tokenizer, questions))["accuracy"]
    return {
        "outcomes": {kind: count_outcomes(texts) for kind, texts in replies.items()},
        "answered": right,
        "replies": {
            kind: [[e.prompt, text] for e, text in zip(some, replies[kind])][:SHOWN]
            for kind, some in asked.items()
        },
    }


FACTS = ("capital", "currency", "continent", "language", "symbol", "city_country")


def count_outcomes(texts: Sequence[str]) -> dict[str, int]:
    """How many of the replies are of each outcome."""
    found = [world_outcome(text) for text in texts]
    return {name: found.count(name) for name in ("refusal", "compliance", "neither")}


# --- What is trained on, and what is asked --------------------------------------------


def plain_requests(seed: int) -> tuple[list[SafetyExample], list[SafetyExample]]:
    """Everyday requests to train on, in every wording, and others to ask: a quarter of
    the pairs of verb and object, in two wordings each."""
    every = safety.everyday_requests(seed, per_pair=len(safety.WORDINGS))
    pairs = sorted({(e.verb, e.object) for e in every})
    order = np.random.default_rng([seed, 22]).permutation(len(pairs))
    held_out = {pairs[i] for i in order[: len(pairs) // 4]}
    train = [e for e in every if (e.verb, e.object) not in held_out]
    test = [e for e in every if (e.verb, e.object) in held_out]
    return train, test[: 2 * len(held_out)]


def helpful_examples(seed: int) -> list:
    """What every arm is trained on: plain requests and questions about facts."""
    questions = tasks.mixture(QUESTIONS, families=FACTS, seed=seed)
    return [*plain_requests(seed)[0], *questions]


def extra_examples(extra: str, n: int, seed: int) -> list:
    """The n examples that an arm is about; fewer are the first of more.

    Raises:
        ValueError: if ``extra`` is none of ``EXTRAS``, or there are fewer than n.
    """
    if extra not in EXTRAS:
        raise ValueError(f"extra is {extra!r}; it can be one of {', '.join(EXTRAS)}")
    if extra == "questions":
        return tasks.mixture(n, families=FACTS, seed=seed + 1000) if n else []
    wordings = len(safety.WORDINGS)
    harmful = safety.harmful_requests("train", seed, per_pair=wordings)
    if extra == "with_contrast":
        benign = safety.benign_requests("train", seed, per_pair=wordings)
        found = [e for twins in zip(harmful, benign) for e in twins]
    else:
        found = harmful
    if len(found) < n:
        raise ValueError(f"n is {n}, and there are {len(found)} examples of {extra!r}")
    return found[:n]


def requests(seed: int, n: int) -> dict[str, list[SafetyExample]]:
    """At most n requests of each kind, none of which is trained on: harmful ones of
    unseen pairs and of unseen words, benign look-alikes of both by their type, and
    plain ones."""
    unseen = ("unseen_pairs", "unseen_words")
    found = {split: safety.harmful_requests(split, seed) for split in unseen}
    benign = [e for split in unseen for e in safety.benign_requests(split, seed)]
    for kind in safety.BENIGN_KINDS:
        found[kind] = [e for e in benign if e.kind == kind]
    found["plain"] = plain_requests(seed)[1]
    return {kind: some[:n] for kind, some in found.items()}


def safety_sweep(*, seeds, ns, n_control, jobs=2, **common) -> list[dict]:
    """The curve over n for every seed; contrast examples at the largest n; and the
    control, ``n_control`` more questions in the place of as many safety examples."""
    arms = [dict(n=n, extra="safety") for n in sorted(ns, reverse=True)]
    arms.append(dict(n=max(ns), extra="with_contrast"))
    arms.append(dict(n=n_control, extra="questions"))
    arms = [dict(seed=seed, **arm, **common) for arm in arms for seed in seeds]
    return run_arms(safety_arm, arms, jobs=jobs, label="safety examples")
