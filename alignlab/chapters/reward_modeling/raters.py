"""Reward models from human judgement: each of 23,703 texts was rated by 15 people or
more.

One rating of each of two texts makes a noisy label; held-out raters stand in for gold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from alignlab.chapters.reward_modeling.runs import (
    bag_of_words,
    reward_differences,
    train_from_reference,
)
from alignlab.data import sources
from alignlab.data.readers import split_of
from alignlab.models.reward import score
from alignlab.seeds import stream
from alignlab.study.arms import run_arms
from alignlab.study.tuning import TEST_SEED
from alignlab.world.ceilings import gold_order_accuracy
from alignlab.world.comparisons import Row, Summary, require_columns

# All on one scale, from -4 (extremely negative) to 4, so that a reward model of one
# domain can be tested on the others.
DOMAINS = {
    "movies": "movie_ratings",
    "tweets": "tweet_ratings",
    "products": "amazon_ratings",
    "editorials": "nyt_ratings",
}
PROMPT = "Say something positive."  # the texts are replies to it


@dataclass(frozen=True)
class RatedText:
    """A text with its ratings from -4 to 4: those that labels are made from, and those
    of the held-out raters."""

    text: str
    ratings: tuple[int, ...]
    held_out: tuple[int, ...]


def load_rated(domain: str, split: str | None = None, seed: int = 0) -> list[RatedText]:
    """The texts of a domain, with half of each text's raters held out.

    The base model has read these texts in pretraining, test texts included, but no
    ratings.

    Args:
        domain: one of ``DOMAINS``.
        split: "train" (four texts in five), "test", or None for all. Near copies of a
            text are in the same split, see ``readers.split_of``.
        seed: draws which raters are held out, independently of the split.

    Raises:
        ValueError: on an unknown domain or split.
        AlignlabError: if the data cannot be downloaded.
    """
    if domain not in DOMAINS or split not in (None, "train", "test"):
        raise ValueError(
            f"domain is {domain!r} and split {split!r}; expected one of "
            f"{', '.join(DOMAINS)}, and 'train', 'test' or None"
        )
    rng = stream(seed, "halves of raters")
    table = sources.load(DOMAINS[domain])
    texts = [
        divide_raters(text, ratings, rng)
        for text, ratings in zip(table["text"], table["ratings"], strict=True)
    ]
    return [t for t in texts if split is None or split_of(t.text) == split]


def divide_raters(
    text: str, ratings: Sequence[int], rng: np.random.Generator
) -> RatedText:
    """Hold out half of a text's raters, drawn at random and rounded down.

    Raises:
        ValueError: if there are fewer than two ratings, or one is not finite.
    """
    if len(ratings) < 2 or not np.isfinite(ratings).all():
        raise ValueError(
            f"ratings of {text!r} are {list(ratings)}; expected two finite ones or more"
        )
    shuffled = [ratings[i] for i in rng.permutation(len(ratings))]
    half = len(shuffled) // 2
    text = " ".join(text.split())
    return RatedText(text, tuple(shuffled[half:]), tuple(shuffled[:half]))


def rated_pairs(
    texts: Sequence[RatedText], n: int, rng: np.random.Generator
) -> tuple[list[Row], Summary]:
    """Compare random pairs of texts by one rating of each.

    Args:
        texts: of one split; each may be in many pairs.
        n: pairs to draw. Where both raters gave the same score there is no label, so
            fewer come back.
        rng: draws the pairs, and a rater for each text.

    Returns:
        Rows, and a summary of what was dropped. The columns are ``prompt`` (always
        ``PROMPT``), ``chosen`` and ``rejected``; ``probability``, see
        :func:`preferred_by`, from the held-out raters; ``gold_chosen`` and
        ``gold_rejected``, mean ratings of the held-out raters; ``panel_chosen`` and
        ``panel_rejected``, mean ratings of the others; ``tie``, whether the held-out
        means are equal; ``noisy``, whether they contradict the label.

    Raises:
        ValueError: if there are fewer than two texts, n is not positive, or no pair is
            left.
    """
    if len(texts) < 2 or n < 1:
        raise ValueError(
            f"texts are {len(texts)} and n is {n}; expected at least 2, and at least 1"
        )
    first = rng.integers(len(texts), size=n)
    second = (first + rng.integers(1, len(texts), size=n)) % len(texts)
    pairs, dropped = [], {"identical": 0, "rated alike": 0}
    for left, right in ((texts[i], texts[j]) for i, j in zip(first, second)):
        scores = [
            text.ratings[rng.integers(len(text.ratings))] for text in (left, right)
        ]
        if left.text == right.text:
            dropped["identical"] += 1
        elif scores[0] == scores[1]:
            dropped["rated alike"] += 1
        else:
            order = (left, right) if scores[0] > scores[1] else (right, left)
            pairs.append(_pair(*order))
    if not pairs:
        raise ValueError(f"texts: all {n} pairs were dropped: {dropped}")
    noted = {
        "ties": sum(pair["tie"] for pair in pairs),
        "noisy": sum(pair["noisy"] for pair in pairs),
    }
    return pairs, Summary(len(pairs), dropped, noted)


def _pair(chosen: RatedText, rejected: RatedText) -> Row:
    golds = float(np.mean(chosen.held_out)), float(np.mean(rejected.held_out))
    return {
        "prompt": PROMPT,
        "chosen": chosen.text,
        "rejected": rejected.text,
        "probability": preferred_by(chosen.held_out, rejected.held_out),
        "gold_chosen": golds[0],
        "gold_rejected": golds[1],
        "panel_chosen": float(np.mean(chosen.ratings)),
        "panel_rejected": float(np.mean(rejected.ratings)),
        "tie": golds[0] == golds[1],
        "noisy": golds[0] < golds[1],
    }


def preferred_by(first: Sequence[float], second: Sequence[float]) -> float:
    """Share of the pairs of raters, one of each text, in which the first text has the
    higher score. Pairs with equal scores are left out; 0.5 if none is left."""
    difference = np.subtract.outer(np.asarray(first), np.asarray(second))
    wins, losses = (difference > 0).sum(), (difference < 0).sum()
    return float(wins / (wins + losses)) if wins + losses else 0.5


# --- How far people agree -------------------------------------------------------------
# To compare with a reward model's ``gold_order_accuracy`` on the same pairs.


def rater_agreement(pairs: Sequence[Row]) -> float:
    """How often a label, made by one rater of each text, agrees with the order of the
    held-out means: the accuracy of single people. A model trained on many of them can
    be more accurate. Ties of the held-out means are left out.

    Raises:
        ValueError: if there is no pair, a column is missing, or all are ties.
    """
    return gold_order_accuracy(pairs, np.ones(len(pairs)))


def panel_agreement(pairs: Sequence[Row]) -> float:
    """How often the mean of all raters who are not held out agrees with the order of
    the held-out means: the accuracy of some ten people together.

    It is a ceiling in practice but not in theory: the mean of many more raters would
    agree with the held-out ones a little more often.

    Raises:
        ValueError: if there is no pair, a column is missing, or all are ties.
    """
    require_columns(pairs, ("panel_chosen", "panel_rejected"))
    differences = [pair["panel_chosen"] - pair["panel_rejected"] for pair in pairs]
    return gold_order_accuracy(pairs, differences)


# --- Arms -----------------------------------------------------------------------------


def rater_arm(*, domain: str, n: int, n_test: int, seed: int, **policy) -> dict:
    """A reward model trained on one domain and tested on all of them.

    Args:
        domain: to train on, one of ``DOMAINS``.
        n: training pairs to draw, see :func:`rated_pairs`.
        n_test: test pairs to draw in each domain, the same for all arms.
        seed: draws the training pairs, the head and the order.
        policy: base, steps and reference_seed of the reference policy.

    Returns:
        ``kept``, pairs with a label; ``accuracy``, for each domain how often the
        ``reward_model``, the ``bag_of_words``, ``one_rater`` and the ``panel`` have the
        order of the held-out means.
    """
    rng = stream(seed, "rated pairs")
    pairs, _ = rated_pairs(load_rated(domain, "train"), n, rng)
    reward_model = train_from_reference(pairs, seed=seed, **policy)
    rewards = {
        "reward_model": partial(_score_texts, *reward_model),
        "bag_of_words": bag_of_words(pairs, seed),
    }
    accuracy = {}
    for name in DOMAINS:
        test_pairs = rated_test_pairs(name, n_test)
        accuracy[name] = {
            kind: gold_order_accuracy(
                test_pairs, reward_differences(reward, test_pairs)
            )
            for kind, reward in rewards.items()
        }
        accuracy[name]["one_rater"] = rater_agreement(test_pairs)
        accuracy[name]["panel"] = panel_agreement(test_pairs)
    return {"kept": len(pairs), "accuracy": accuracy}


def _score_texts(model, tokenizer, texts: Sequence[str]) -> np.ndarray:
    return score(model, tokenizer, [PROMPT] * len(texts), texts)


def rated_test_pairs(domain: str, n: int) -> list[Row]:
    """Comparisons of test texts, the same for every arm."""
    texts = load_rated(domain, "test")
    return rated_pairs(texts, n, stream(TEST_SEED, "rated test pairs"))[0]


def sweep(
    chains: Sequence[dict], *, domain: str = "movies", jobs: int = 2, **common
) -> list[dict]:
    """:func:`rater_arm` on every chain."""
    arms = [dict(domain=domain, **common, **link) for link in chains]
    return run_arms(rater_arm, arms, jobs=jobs, label="real raters")
