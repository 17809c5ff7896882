"""Is rating cheaper than writing? What a comparison and a demonstration cost a person,
what each says, and what the same hours of either buy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alignlab.chapters.reward_modeling.judging import log_probs
from alignlab.chapters.reward_modeling.runs import TEST_REPLIES
from alignlab.seeds import stream
from alignlab.study import artifacts
from alignlab.study.arms import run_arms
from alignlab.study.measure import sample_and_judge
from alignlab.study.scale import rate
from alignlab.study.tuning import BATCH
from alignlab.training.sft import finetune
from alignlab.world import gold
from alignlab.world.comparisons import Row
from alignlab.world.tasks import default_world


@dataclass(frozen=True)
class Pace:
    """How fast people are. These are assumptions about adults who read and type their
    own language, not measurements of labellers.

    Attributes:
        reading: words a minute; Brysbaert (2019), a review of 190 studies.
        composing: words a minute of new text, typed; Karat et al. (1999).
        choosing: seconds to make up one's mind between two replies.
    """

    reading: float = 238.0
    composing: float = 19.0
    choosing: float = 5.0

    def comparison(self, words: float) -> float:
        """Seconds to read this many words and choose."""
        return 60 * words / self.reading + self.choosing

    def demonstration(self, read: float, written: float) -> float:
        """Seconds to read and to write this many words."""
        return 60 * (read / self.reading + written / self.composing)


def comparison_cost(pairs: Sequence[Row], tokenizer, pace: Pace) -> dict[str, float]:
    """Mean ``words``, ``tokens`` and ``seconds`` of a comparison: the request and two
    replies are read; a choice of one in two is all that is written."""
    texts = [(p["prompt"], p["chosen"], p["rejected"]) for p in pairs]
    words = np.array([sum(len(text.split()) for text in row) for row in texts])
    return {
        "words": float(words.mean()),
        "tokens": _tokens(tokenizer, texts),
        "seconds": float(pace.comparison(words).mean()),
    }


def demonstration_cost(rows: Sequence[Row], tokenizer, pace: Pace) -> dict[str, float]:
    """Mean ``words``, ``tokens`` and ``seconds`` of a demonstration: the request is
    read, and the reply is written."""
    read, written = (
        np.array([len(row[name].split()) for row in rows])
        for name in ("prompt", "completion")
    )
    texts = [(row["prompt"], row["completion"]) for row in rows]
    return {
        "words": float((read + written).mean()),
        "tokens": _tokens(tokenizer, texts),
        "seconds": float(pace.demonstration(read, written).mean()),
    }


def _tokens(tokenizer, texts: Sequence[Sequence[str]]) -> float:
    count = lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])  # noqa: E731
    return float(np.mean([sum(map(count, row)) for row in texts]))


def label_bits(flips: float) -> float:
    """Bits that a label says about the gold order of two replies which without it could
    be either way round: 1 minus the entropy of a label that is wrong at this rate."""
    rates = np.array([rate for rate in (flips, 1 - flips) if rate > 0])
    return float(1 + (rates * np.log2(rates)).sum())


def surprise_bits(policy, tokenizer, rows: Sequence[Row]) -> float:
    """Mean bits that a demonstration says to a policy, beyond what it expected: minus
    the binary logarithm of the reply's probability. How it is worded counts as much as
    what it says, so this is more than it says about what is better."""
    prompts, texts = ([row[name] for row in rows] for name in ("prompt", "completion"))
    nats = np.nansum(log_probs(policy, tokenizer, prompts, texts), axis=1)
    return float(-nats.mean() / np.log(2))


def good_demonstrations(n: int, seed: int) -> list[dict]:
    """n replies to requests about training subjects, as good as their writers can make
    them (quality 1), as rows of prompt and completion."""
    world, rng = default_world(), stream(seed, "good demonstrations")
    names = artifacts.subjects("train")
    order = [names[i] for _ in range(-(-n // len(names)))
             for i in rng.permutation(len(names))][:n]  # fmt: skip
    return [
        {
            "prompt": gold.request(name),
            "completion": gold.demonstration(world, name, rng, 1.0),
        }
        for name in order
    ]


def writing_arm(
    *, n: int, epochs: int, seed: int, base: str, steps: int, reference_seed: int
) -> dict:
    """The reference policy after SFT on n good demonstrations: ``golds`` of its replies
    to the test requests, at [subject][reply].

    Args:
        n: demonstrations, see :func:`good_demonstrations`.
        epochs: passes over them, at the rate that made the reference; more fit them
            more closely.
        seed: draws demonstrations, their order and the replies.
        base, steps, reference_seed: of the reference policy.
    """
    policy, tokenizer = artifacts.reference_policy(base, steps, seed=reference_seed)
    finetune(
        policy,
        tokenizer,
        good_demonstrations(n, seed),
        steps=max(1, n * epochs // BATCH),
        batch_size=min(BATCH, n),
        learning_rate=rate("demonstrations", base),
        seed=seed,
        progress=False,
    )
    _, judged = sample_and_judge(policy, tokenizer, seed=seed, n=TEST_REPLIES)
    return {"golds": judged["golds"]}


def writing_sweep(chains: Sequence[dict], *, jobs: int = 2, **common) -> list[dict]:
    """:func:`writing_arm` on every chain."""
    arms = [common | link for link in chains]
    return run_arms(writing_arm, arms, jobs=jobs, label="demonstrations")
