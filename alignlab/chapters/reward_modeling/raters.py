"""Real human judgement: comparisons made of what people said of the same texts.

Each of 23,703 texts was rated by 15 people or more. One of them a side makes a label,
noisy as labels are; those held out from that say what there was to learn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alignlab.data import sources
from alignlab.data.readers import split_of
from alignlab.world.comparisons import (
    Row,
    Summary,
    accuracy_ceiling,
    gold_order_accuracy,
    require_columns,
)

# All were rated from -4 (extremely negative) to 4 by the same people's rules, so that a
# reward model of one domain can be tried on the next.
DOMAINS = {
    "movies": "movie_ratings",
    "tweets": "tweet_ratings",
    "products": "amazon_ratings",
    "editorials": "nyt_ratings",
}
PROMPT = "Say something positive."  # a text is the reply; the more positive one wins


@dataclass(frozen=True)
class RatedText:
    """A text and its ratings, -4 to 4: those that labels are made of, and those of the
    raters held out, who stand in for the truth."""

    text: str
    ratings: tuple[int, ...]
    held_out: tuple[int, ...]


def load_rated(domain: str, split: str | None = None, seed: int = 0) -> list[RatedText]:
    """The texts of a domain, half of each text's raters held out.

    The series' base model read these texts in pretraining, those for testing too, but
    never a rating.

    Args:
        domain: one of ``DOMAINS``.
        split: "train" (four texts in five), "test", or None for all. Copies and near
            copies of a text are on one side (``readers.split_of``).
        seed: which raters are held out; a text's are the same whatever the split.

    Raises:
        ValueError: on an unknown domain or split.
        AlignlabError: if the data cannot be had.
    """
    if domain not in DOMAINS or split not in (None, "train", "test"):
        raise ValueError(
            f"domain is {domain!r} and split {split!r}; expected one of "
            f"{', '.join(DOMAINS)}, and 'train', 'test' or None"
        )
    rng = np.random.default_rng(seed)
    table = sources.load(DOMAINS[domain])
    texts = [
        divide_raters(text, ratings, rng)
        for text, ratings in zip(table["text"], table["ratings"], strict=True)
    ]
    return [t for t in texts if split is None or split_of(t.text) == split]


def divide_raters(
    text: str, ratings: Sequence[int], rng: np.random.Generator
) -> RatedText:
    """A text with half of its raters, drawn at random and rounded down, held out.

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
    """Compare texts two at a time, by what one rater said of each.

    The label is a person's, so nobody knows its probability; what the held-out raters
    say of it is given instead.

    Args:
        texts: of one split; each may be in many pairs.
        n: comparisons to ask for. Where both raters gave the same score there is no
            label, so that fewer come back.
        rng: draws the pairs, and a rater for each side.

    Returns:
        Rows, and what was dropped. The columns: ``prompt`` (always ``PROMPT``),
        ``chosen``, ``rejected``; ``probability``: how often one held-out rater of the
        chosen text scores higher than one of the rejected text, of all such twos that
        differ (0.5 if none does); ``gold_chosen`` and ``gold_rejected``: means of the
        held-out raters, -4 to 4; ``panel_chosen`` and ``panel_rejected``: means of the
        others; ``tie``: equal held-out means; ``noisy``: the held-out means have the
        other order.

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
    for one, other in ((texts[i], texts[j]) for i, j in zip(first, second)):
        scores = [
            text.ratings[rng.integers(len(text.ratings))] for text in (one, other)
        ]
        if one.text == other.text:
            dropped["identical"] += 1
        elif scores[0] == scores[1]:
            dropped["rated alike"] += 1
        else:
            order = (one, other) if scores[0] > scores[1] else (other, one)
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
    """How often a rater of the first text scores higher than one of the second, of all
    twos with different scores; 0.5 if there is none. Exact, over every two of them."""
    difference = np.subtract.outer(np.asarray(first), np.asarray(second))
    wins, losses = (difference > 0).sum(), (difference < 0).sum()
    return float(wins / (wins + losses)) if wins + losses else 0.5


# --- How far people agree -------------------------------------------------------------
# What to hold a reward model's ``gold_order_accuracy`` on the same pairs against.


def agreement_between_raters(pairs: Sequence[Row]) -> float:
    """How often one held-out rater a side agrees with the label, another rater's: what
    studies report as agreement between annotators. Twos of raters who gave the same
    score do not count.

    Raises:
        ValueError: if there is no pair or a probability is missing.
    """
    require_columns(pairs, ("probability",))
    return float(np.mean([pair["probability"] for pair in pairs]))


def rater_agreement(pairs: Sequence[Row]) -> float:
    """How often the label, one rater a side, has the order of the held-out means. What
    a single person reaches; a model trained on many of them can reach more.

    It counts only twos of raters who differed, and leaves out ties of the held-out
    means.

    Raises:
        ValueError: if there is no pair, a column is missing, or all are ties.
    """
    return gold_order_accuracy(pairs, np.ones(len(pairs)))


def panel_agreement(pairs: Sequence[Row]) -> float:
    """How often the mean of the raters that labels are made of has the order of the
    held-out means: what some ten people reach together, and the ceiling in practice.

    It is no bound in theory: who knew what everybody thinks, and not ten people only,
    would agree with the held-out ones a little more often.

    Raises:
        ValueError: if there is no pair, a column is missing, or all are ties.
    """
    require_columns(pairs, ("panel_chosen", "panel_rejected"))
    differences = [pair["panel_chosen"] - pair["panel_rejected"] for pair in pairs]
    return gold_order_accuracy(pairs, differences)


def label_ceiling(pairs: Sequence[Row]) -> tuple[float, float]:
    """The best accuracy on the labels themselves, between two limits.

    Nobody knows a person's probabilities exactly. The lower limit is a forecast that
    can be made: whom the held-out raters prefer is right so often. The upper one takes
    their frequencies for the probabilities, which is too good on average: the larger of
    p and 1-p grows with the noise in p.

    Raises:
        ValueError: if there is no pair or a probability is missing or out of range.
    """
    require_columns(pairs, ("probability",))
    probability = np.array([pair["probability"] for pair in pairs])
    upper = accuracy_ceiling(probability)
    lower = np.where(probability == 0.5, 0.5, probability > 0.5).mean()
    return float(lower), upper


# --- Whole dialogues ------------------------------------------------------------------


def hh_rlhf_pairs(
    split: str | None = None, path: str | Path | None = None
) -> tuple[list[Row], Summary]:
    """Anthropic's harmless-base comparisons, in the columns of all other pairs.

    ``prompt``, ``chosen`` and ``rejected`` are lists of chat messages. Contains
    offensive language.

    Args:
        split: "train", "test", or None for the test set (see ``sources.load``).
        path: a local folder with its files; by default they come from the Hub.

    Returns:
        Rows, and how many were dropped: dialogues that share no question, and those
        in which a reply is empty.

    Raises:
        AlignlabError: if neither the folder nor the Hub has them, with what to do; a
            notebook prints that and goes on without.
    """
    table = sources.load("hh_rlhf", split, path)
    pairs, dropped = [], {"without a prompt": 0, "with an empty reply": 0}
    for row in table.select_columns(["prompt", "chosen", "rejected"]).to_list():
        if not row["prompt"]:
            dropped["without a prompt"] += 1
        elif not all(message["content"] for message in row["chosen"] + row["rejected"]):
            dropped["with an empty reply"] += 1
        else:
            pairs.append(row)
    return pairs, Summary(len(pairs), dropped)
