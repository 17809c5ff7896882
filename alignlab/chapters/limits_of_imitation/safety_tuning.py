"""Safety examples among the instructions.

A base model learns to help with plain requests and to answer questions, with n safety
examples in the mixture. The test requests are harmful, look harmful, or are plain.
"""

from collections.abc import Mapping, Sequence

from alignlab.chapters.limits_of_imitation.scoring import refusal_log_probs
from alignlab.evaluation.refusals import world_outcome
from alignlab.models.sampler import complete
from alignlab.seeds import stream
from alignlab.study.scale import cap
from alignlab.study.tuning import tune
from alignlab.world import safety, tasks
from alignlab.world.safety import SafetyExample
from alignlab.world.tasks import Example

LONGEST_REPLY = 28  # tokens; a refusal or the first sentence of a compliance
SHOWN = 8  # requests of each kind whose replies are kept word for word
FACTS = ("capital", "currency", "continent", "language", "symbol", "city_country")


def safety_arm(
    *,
    seed: int,
    base: str,
    n_refusals: int,
    n_look_alikes: int = 0,
    total: int,
    steps: int,
    n_test: int,
) -> dict:
    """SFT on a mixture of ``total`` examples, then test requests of each kind.

    Args:
        seed: decides which harmful pairs and words are held out, and the training.
        base: the model to start from, see ``models.base.base_path``.
        n_refusals: examples that refuse a harmful request; more refuse more of what is
            harmful, and of what only looks so.
        n_look_alikes: examples that help with what only looks harmful; more take back
            refusals of such requests, and of some harmful ones.
        total: examples in all; the others are plain requests and questions.
        steps: updates of 16 examples.
        n_test: requests of each kind, at most.

    Returns:
        ``outcomes``: for each kind of request (``unseen_pairs`` and ``unseen_words``
        are harmful; ``homonym``, ``figurative``, ``safe_target`` and ``safe_context``
        only look so; ``plain``) the number of replies that are a "refusal", a
        "compliance" or "neither"; ``replies``: some of each kind that can be shown,
        word for word; ``log_p_refuse``: of each request of
        :func:`requests_to_tell_apart`.
    """
    examples = training_mixture(n_refusals, n_look_alikes, total, seed)
    model, tokenizer = tune(examples, base=base, steps=steps, seed=seed)
    requests = test_requests(seed, n_test)
    prompts = [e.prompt for group in requests.values() for e in group]
    longest = cap(tokenizer, LONGEST_REPLY)
    texts = iter(c.text for c in complete(model, tokenizer, prompts, longest))
    replies = {
        kind: [[e.prompt, next(texts)] for e in group]
        for kind, group in requests.items()
    }
    return {
        "outcomes": {
            kind: count_outcomes([text for _, text in pairs])
            for kind, pairs in replies.items()
        },
        "replies": {
            kind: [p for e, p in zip(requests[kind], pairs) if is_mild(e)][:SHOWN]
            for kind, pairs in replies.items()
        },
        "log_p_refuse": {
            kind: refusal_log_probs(model, tokenizer, [e.prompt for e in group])
            .round(4)
            .tolist()
            for kind, group in requests_to_tell_apart(seed, n_test).items()
        },
    }


def count_outcomes(texts: Sequence[str]) -> dict[str, int]:
    """The number of replies with each outcome."""
    outcomes = [world_outcome(text) for text in texts]
    return {name: outcomes.count(name) for name in ("refusal", "compliance", "neither")}


def is_mild(example: SafetyExample) -> bool:
    """Whether a request can be shown: it does not speak of hurting anybody."""
    hurts = example.harmful or example.kind == "safe_context"
    return not (hurts and example.verb in safety.verbs_of("violence"))


# --- The mixture ----------------------------------------------------------------------


def training_mixture(
    n_refusals: int, n_look_alikes: int, total: int, seed: int
) -> list[SafetyExample | Example]:
    """``total`` examples: refusals, look-alikes that are helped with, and for the rest
    as many plain requests as questions. A smaller number of a kind gives the first
    ones.

    Raises:
        ValueError: if there are fewer examples of a kind than asked for.
    """
    wordings = len(safety.WORDINGS)
    n_others = total - n_refusals - n_look_alikes
    n_plain = n_others // 2
    return [
        *_first(n_refusals, safety.harmful_requests("train", seed, wordings)),
        *_first(n_look_alikes, safety.benign_requests("train", seed, wordings)),
        *_first(n_plain, plain_requests(seed)[0]),
        *tasks.mixture(n_others - n_plain, families=FACTS, seed=seed),
    ]


def _first(n: int, examples: Sequence[SafetyExample]) -> Sequence[SafetyExample]:
    if not 0 <= n <= len(examples):
        raise ValueError(f"{n} examples are asked for, and there are {len(examples)}")
    return examples[:n]


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


# --- Test requests --------------------------------------------------------------------


def test_requests(seed: int, n: int) -> dict[str, list[SafetyExample]]:
    """At most n requests of each kind, none of them trained on: harmful ones with
    unseen pairs or unseen words, benign look-alikes of both by type, and plain ones."""
    groups = requests_to_tell_apart(seed)
    benign = groups["look_alikes_of_pairs"] + groups["look_alikes_of_words"]
    requests = {kind: groups[kind] for kind in ("unseen_pairs", "unseen_words")}
    for kind in safety.BENIGN_KINDS:
        requests[kind] = [e for e in benign if e.kind == kind]
    requests["plain"] = groups["plain"]
    return {kind: group[:n] for kind, group in requests.items()}


def requests_to_tell_apart(
    seed: int, n: int | None = None
) -> Mapping[str, list[SafetyExample]]:
    """At most n of the same requests, the look-alikes with the harmful ones whose verbs
    they have: those of unseen pairs, and those of unseen words."""
    groups = {}
    for split in ("unseen_pairs", "unseen_words"):
        groups[split] = safety.harmful_requests(split, seed)
        look_alikes = f"look_alikes_of_{split.removeprefix('unseen_')}"
        groups[look_alikes] = safety.benign_requests(split, seed)
    groups["plain"] = plain_requests(seed)[1]
    return {kind: group[:n] for kind, group in groups.items()}
