"""Sentences of film reviews that 15 people and more have rated: what notebook 09 asks
for, compares and rewards.

All that is drawn depends on the seed. The test sentences are the same for all seeds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from alignlab.data import sources
from alignlab.data.readers import split_of
from alignlab.seeds import stream

SYSTEM = "You write film reviews."
ASK = 'Write a sentence of a film review with the word "{word}".'
ASK_FREELY = "Write a sentence of a film review."
MOST_WORDS = 14  # of a sentence: short ones cost less
LEAST_LETTERS = 5  # of a word that is asked for
SHOWN, COMPARED = 800, 800  # sentences for SFT, and for comparisons
OTHER_DOMAINS = ("tweet_ratings", "amazon_ratings", "nyt_ratings")

Score = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Rated:
    """A sentence with a word of it to ask for, and its ratings from -4 (extremely
    negative) to 4: those that labels are made from, and those of held-out raters."""

    text: str
    word: str
    ratings: tuple[int, ...]
    held_out: tuple[int, ...]


@dataclass(frozen=True)
class Parts:
    """What each stage of one seed reads; no sentence is in two of them.

    Attributes:
        shown: replies that SFT shows.
        compared: what raters compare, for the reward model and for DPO.
        others: what the judge learns from, beside other kinds of text.
        test: sentences of the test split.
    """

    shown: list[Rated]
    compared: list[Rated]
    others: list[Rated]
    test: list[Rated]


@cache
def draw_parts(seed: int) -> Parts:
    """The short sentences, dealt out by the seed, which also draws the words that are
    asked for, and which half of the raters of each sentence is held out."""
    rng = stream(seed, "raters and words of review sentences")
    by_split: dict[str, list[Rated]] = {"train": [], "test": []}
    for text, ratings in _short_sentences():
        words = [w for w in _words(text) if w.isalpha() and len(w) >= LEAST_LETTERS]
        shuffled = [ratings[i] for i in rng.permutation(len(ratings))]
        half = len(shuffled) // 2
        word = words[rng.integers(len(words))] if words else ""
        halves = tuple(shuffled[half:]), tuple(shuffled[:half])
        if word:
            by_split[split_of(text)].append(Rated(text, word, *halves))
    train = by_split["train"]
    order = stream(seed, "review sentences by stage").permutation(len(train))
    dealt = [train[i] for i in order]
    ends = SHOWN, SHOWN + COMPARED
    return Parts(
        dealt[: ends[0]], dealt[ends[0] : ends[1]], dealt[ends[1] :], by_split["test"]
    )


@cache
def _short_sentences() -> list[tuple[str, list[int]]]:
    table = sources.load("movie_ratings")
    rows = zip(table["text"], table["ratings"], strict=True)
    cleaned = ((" ".join(text.split()), ratings) for text, ratings in rows)
    return [(t, r) for t, r in cleaned if 3 <= len(t.split()) <= MOST_WORDS]


def _words(text: str) -> list[str]:
    return [word.strip(".,;:!?()'\"-").lower() for word in text.split()]


# --- What is asked ----------------------------------------------------------------


def request(word: str = "") -> list[dict]:
    """Chat messages that ask for a sentence, with a certain word if one is given."""
    asked = ASK.format(word=word) if word else ASK_FREELY
    return [dict(role="system", content=SYSTEM), dict(role="user", content=asked)]


def dialogues(sentences: Sequence[Rated], turns: int = 2) -> list[dict]:
    """Rows of ``messages``: a request and a sentence, ``turns`` times over."""
    rows = []
    for first in range(0, len(sentences) - turns + 1, turns):
        messages = request()[:1]
        for sentence in sentences[first : first + turns]:
            messages += request(sentence.word)[1:]
            messages.append(dict(role="assistant", content=sentence.text))
        rows.append(dict(messages=messages))
    return rows


def obeys(word: str, text: str) -> bool:
    """Whether a reply has the word that was asked for, as a word of its own."""
    return word in _words(text)


# --- What people said ------------------------------------------------------------


def comparisons(
    sentences: Sequence[Rated], n: int, rng: np.random.Generator
) -> list[dict]:
    """n pairs of different sentences, each labelled by one rating of either.

    Returns:
        Rows with ``chosen`` and ``rejected``; ``gold``, the mean of the held-out raters
        of the chosen sentence minus that of the other; and ``panel``, the same of the
        other half of the raters. Pairs that two raters scored alike are drawn again.
    """
    pairs = []
    while len(pairs) < n:
        left, right = (sentences[i] for i in rng.choice(len(sentences), 2, False))
        scores = [s.ratings[rng.integers(len(s.ratings))] for s in (left, right)]
        if scores[0] == scores[1]:
            continue
        best, worst = (left, right) if scores[0] > scores[1] else (right, left)
        pairs.append(
            dict(
                chosen=best.text,
                rejected=worst.text,
                gold=float(np.mean(best.held_out) - np.mean(worst.held_out)),
                panel=float(np.mean(best.ratings) - np.mean(worst.ratings)),
            )
        )
    return pairs


def in_order(pairs: Sequence[dict], differences: Sequence[float]) -> float:
    """Share of the pairs that differences (chosen minus rejected) put in the order of
    the held-out raters' means. A difference of 0 counts one half; pairs whose means are
    equal are left out."""
    golds = np.sign([pair["gold"] for pair in pairs])
    agree = 0.5 + 0.5 * golds * np.sign(differences)
    return float(agree[golds != 0].mean())


def differences(score: Score, pairs: Sequence[dict]) -> np.ndarray:
    """Scores of the chosen minus those of the rejected sentences."""
    return score([p["chosen"] for p in pairs]) - score([p["rejected"] for p in pairs])


# --- Scores without a language model ------------------------------------------------


def fit_judge(others: Sequence[Rated]) -> Score:
    """A mean rating, predicted from words and pairs of words by ridge regression.

    It learns from all ratings of the ``others`` and of every text of three more kinds,
    about 14,000 texts with 15 ratings and more: a reward model learns from hundreds of
    single ratings.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    texts = [sentence.text for sentence in others]
    means = [np.mean(sentence.ratings + sentence.held_out) for sentence in others]
    for name in OTHER_DOMAINS:
        table = sources.load(name)
        texts += table["text"]
        means += table["mean"]
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    model = Ridge(alpha=2.0).fit(words.fit_transform(texts), means)
    return lambda texts: model.predict(words.transform(texts))


def count_words(texts: Sequence[str]) -> np.ndarray:
    """The number of words, as a score."""
    return np.array([len(text.split()) for text in texts], float)
