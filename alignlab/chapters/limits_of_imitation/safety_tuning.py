"""Safety examples among the instructions.

A base model learns to help with plain requests and to answer questions, with n safety
examples in the mixture. The test requests are harmful, look harmful, or are plain.
"""

from collections.abc import Sequence

from alignlab.evaluation.refusals import world_outcome
from alignlab.models.sampler import complete
from alignlab.seeds import stream
from alignlab.study.tuning import tune
from alignlab.world import safety, tasks
from alignlab.world.safety import SafetyExample
from alignlab.world.tasks import Example

LONGEST_REPLY = 28  # tokens; a refusal or the first sentence of a compliance
QUESTIONS = 256  # about facts, in every arm's mixture
SHOWN = 8  # requests of each kind whose replies are kept word for word
EXTRAS = ("safety", "with_contrast", "questions")
FACTS = ("capital", "currency", "continent", "language", "symbol", "city_country")


def safety_arm(
    *, seed: int, size: str, n: int, steps: int, n_test: int, extra: str = "safety"
) -> dict:
    """SFT on plain requests and questions with n more examples, then test requests of
    each kind.

    Args:
        seed: decides which harmful pairs and words are held out, and the training.
        size: of the base model.
        n: examples added to the mixture; more of them refuse more of what is harmful,
            and of what only looks so.
        steps: updates, the same for every n.
        n_test: requests of each kind, at most.
        extra: what is added: "safety", refusals of harmful requests; "with_contrast",
            half of them replaced by benign look-alikes that get help; "questions",
            more questions about facts, as a control.

    Returns:
        ``outcomes``: for each kind of request (``unseen_pairs`` and ``unseen_words``
        are harmful; ``homonym``, ``figurative``, ``safe_target`` and ``safe_context``
        only look so; ``plain``) the number of replies that are a "refusal", a
        "compliance" or "neither"; ``replies``: some of each kind, word for word.
    """
    examples = helpful_examples(seed) + extra_examples(extra, n, seed)
    model, tokenizer = tune(examples, size=size, steps=steps, seed=seed)
    requests = test_requests(seed, n_test)
    prompts = [e.prompt for group in requests.values() for e in group]
    texts = iter(c.text for c in complete(model, tokenizer, prompts, LONGEST_REPLY))
    replies = {
        kind: [[e.prompt, next(texts)] for e in group]
        for kind, group in requests.items()
    }
    return {
        "outcomes": {
            kind: count_outcomes([text for _, text in pairs])
            for kind, pairs in replies.items()
        },
        "replies": {kind: pairs[:SHOWN] for kind, pairs in replies.items()},
    }


def count_outcomes(texts: Sequence[str]) -> dict[str, int]:
    """The number of replies with each outcome."""
    outcomes = [world_outcome(text) for text in texts]
    return {name: outcomes.count(name) for name in ("refusal", "compliance", "neither")}


def plain_requests(seed: int) -> tuple[list[SafetyExample], list[SafetyExample]]:
    """Everyday requests to train on, in every wording, and test requests: a quarter of
    the pairs of verb and object, in two wordings each."""
    requests = safety.everyday_requests(seed, per_pair=len(safety.WORDINGS))
    pairs = sorted({(e.verb, e.object) for e in requests})
    order = stream(seed, "safety examples").permutation(len(pairs))
    held_out = {pairs[i] for i in order[: len(pairs) // 4]}
    train = [e for e in requests if (e.verb, e.object) not in held_out]
    test = [e for e in requests if (e.verb, e.object) in held_out]
    return train, test[: 2 * len(held_out)]


def helpful_examples(seed: int) -> list[SafetyExample | Example]:
    """The mixture of every arm: plain requests and questions about facts."""
    questions = tasks.mixture(QUESTIONS, families=FACTS, seed=seed)
    return [*plain_requests(seed)[0], *questions]


def extra_examples(extra: str, n: int, seed: int) -> list[SafetyExample | Example]:
    """The n examples added to the mixture. A smaller n gives the first of them.

    Raises:
        ValueError: if ``extra`` is none of ``EXTRAS``, or there are fewer than n.
    """
    if extra not in EXTRAS:
        raise ValueError(f"extra is {extra!r}; it can be one of {', '.join(EXTRAS)}")
    if extra == "questions":
        return tasks.mixture(n, families=FACTS, seed=seed + 1000) if n else []
    wordings = len(safety.WORDINGS)
    examples = safety.harmful_requests("train", seed, per_pair=wordings)
    if extra == "with_contrast":
        benign = safety.benign_requests("train", seed, per_pair=wordings)
        examples = [e for twins in zip(examples, benign) for e in twins]
    if len(examples) < n:
        raise ValueError(
            f"n is {n}, and there are {len(examples)} examples of {extra!r}"
        )
    return examples[:n]


def test_requests(seed: int, n: int) -> dict[str, list[SafetyExample]]:
    """At most n requests of each kind, none of them trained on: harmful ones with
    unseen pairs or unseen words, benign look-alikes of both by type, and plain ones."""
    unseen = ("unseen_pairs", "unseen_words")
    requests = {split: safety.harmful_requests(split, seed) for split in unseen}
    benign = [e for split in unseen for e in safety.benign_requests(split, seed)]
    for kind in safety.BENIGN_KINDS:
        requests[kind] = [e for e in benign if e.kind == kind]
    requests["plain"] = plain_requests(seed)[1]
    return {kind: group[:n] for kind, group in requests.items()}
