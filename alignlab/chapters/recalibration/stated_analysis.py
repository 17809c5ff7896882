"""From the rows of ``stated`` and ``stated_ways`` to the numbers of notebook 08."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit, logit

from alignlab.calibration import (
    TemperatureScaler,
    area_under_risk_coverage,
    auroc,
    brier_score,
    squared_error_interval,
)
from alignlab.chapters.calibration.artifacts import bin_count
from alignlab.chapters.recalibration.stated import CONFIDENCES

SMALLEST = 1e-4  # of a probability of which log-odds are taken; rows have four digits
# Confidences, and whether the answers were right (1 or 0).
TopLabel = tuple[Float[np.ndarray, "items"], Float[np.ndarray, "items"]]


class Replies(NamedTuple):
    """What one policy replied to questions."""

    right: Float[np.ndarray, "items"]  # 1 or 0
    stated: Float[np.ndarray, "items"]  # the confidence of the digit that it said
    expected: Float[np.ndarray, "items"]  # the mean over its probabilities of digits
    answer_prob: Float[np.ndarray, "items"]  # of the answer's very words
    bayes: Float[np.ndarray, "items"]  # share of the statements; NaN: not contested
    kind: np.ndarray  # names

    def where(self, mask: Bool[np.ndarray, "items"]) -> "Replies":
        """Only the items of a mask, or of indices."""
        return Replies(*(column[mask] for column in self))

    def pair(self, confidence: str = "stated") -> TopLabel:
        """One of the confidences, and whether the answers were right."""
        return getattr(self, confidence), self.right


def read_replies(row: Mapping, test: bool = True) -> Replies:
    """The replies in a row of ``stated.judged`` about test subjects, or about those for
    fitting. One that states no confidence counts as in the reward, as the worst: sure
    of a wrong answer, or sure that a right one is wrong. See :func:`stated_share`."""
    columns = [_numbers(row[name]) for name in Replies._fields[:-1]]
    replies = Replies(*columns, np.array(row["kind"]))
    states = np.isfinite(replies.stated)
    replies = replies._replace(
        stated=np.where(states, replies.stated, 1 - replies.right)
    )
    return replies.where(np.array(row["test"]) == test)


def _numbers(column: Sequence) -> Float[np.ndarray, "items"]:
    return np.array([np.nan if x is None else x for x in column], float)


def stated_share(row: Mapping) -> float:
    """The share of the replies to test questions that state a confidence."""
    stated = _numbers(row["stated"])[np.array(row["test"]) == 1]
    return float(np.isfinite(stated).mean())


def tempered(row: Mapping) -> TopLabel:
    r"""The answer's probability after one temperature, and whether it was right, on the
    test questions.

    .. math:: \hat p = \sigma(\operatorname{logit}(p) / T)

    with T fitted by log loss on the questions for fitting; 1 where all the answers to
    these are right, or all wrong.
    """
    fitting, judged = read_replies(row, test=False), read_replies(row)
    if not 0 < fitting.right.mean() < 1:
        return judged.pair("answer_prob")
    odds = [
        logit(np.clip(r.answer_prob, SMALLEST, 1 - SMALLEST)) for r in (fitting, judged)
    ]
    logits = np.column_stack([np.zeros_like(odds[0]), odds[0]])
    scaler = TemperatureScaler().fit(logits, fitting.right.astype(int))
    return expit(odds[1] / scaler.temperature_), judged.right


def scored(pair: TopLabel) -> dict[str, float]:
    """``accuracy``, ``squared`` (mean squared calibration error, without bias),
    ``brier``, ``aurc``, and ``auroc``: 0.5 where there is nothing to tell apart, as all
    answers are right or all wrong."""
    confidence, right = pair
    mixed = 0 < right.mean() < 1
    return {
        "accuracy": float(right.mean()),
        "squared": squared_error_interval(*pair, bin_count(len(right))).value,
        "brier": brier_score(*pair),
        "auroc": auroc(*pair) if mixed else 0.5,
        "aurc": area_under_risk_coverage(*pair),
    }


def by_arm(rows: Mapping[str, Sequence[Mapping]]) -> dict[str, list[dict]]:
    """:func:`scored` of the stated confidence in each arm, a dict a seed."""
    return {
        name: [scored(read_replies(row).pair()) for row in own]
        for name, own in rows.items()
    }


def after_the_fact(rows: Mapping[str, Sequence[Mapping]]) -> dict[str, list[dict]]:
    """The same of the answer's probability in the start and in right alone, as it is
    and after one temperature."""
    named = {"start": "start", "weight 0": "right alone"}
    plain = {
        f"{label}: answer's probability": [
            scored(read_replies(row).pair("answer_prob")) for row in rows[name]
        ]
        for name, label in named.items()
    }
    return plain | {
        f"{label}: then a temperature": [scored(tempered(row)) for row in rows[name]]
        for name, label in named.items()
    }


def differences(
    first: Sequence[Mapping], second: Sequence[Mapping], measure: str
) -> list[float]:
    """A measure of the first arm minus that of the second, by seed."""
    return [a[measure] - b[measure] for a, b in zip(first, second, strict=True)]


def skill(of_arm: Mapping[str, float]) -> float:
    r"""How much lower the Brier score is than that of the best constant.

    .. math:: a(1 - a) - \text{Brier}

    with a the accuracy: 0 for a constant at the base rate, a(1 - a) for one that knows.
    """
    accuracy = of_arm["accuracy"]
    return accuracy * (1 - accuracy) - of_arm["brier"]


def weights_of(rows: Mapping[str, Sequence]) -> dict[str, float]:
    """The weight of each arm "weight W", by its name, in rising order."""
    weights = {n: float(n.split()[1]) for n in rows if n.startswith("weight ")}
    return dict(sorted(weights.items(), key=lambda pair: pair[1]))


def pooled(rows: Sequence[Mapping]) -> Replies:
    """The replies of several seeds to the test questions, one behind another."""
    parts = [read_replies(row) for row in rows]
    return Replies(*(np.concatenate(columns) for columns in zip(*parts)))


def by_digit(replies: Replies) -> dict[int, tuple[int, int]]:
    """How many replies state each digit, and how many of these are right: of the digits
    that occur."""
    digits = np.round(9 * replies.stated).astype(int)
    return {
        int(d): (int((digits == d).sum()), int(replies.right[digits == d].sum()))
        for d in np.unique(digits)
    }


def contested_error(replies: Replies, confidence: str = "stated") -> float:
    """Mean squared distance of a confidence to Bayes' on contested facts: how often the
    answer that was given is the right one, by the share of the statements for it."""
    own = replies.where(np.isfinite(replies.bayes))
    return float(np.mean((getattr(own, confidence) - own.bayes) ** 2))


def contested_correlation(replies: Replies) -> float:
    """Correlation of what is stated on contested facts with Bayes' confidence; 0 if one
    of them is the same for all answers."""
    own = replies.where(np.isfinite(replies.bayes))
    if np.ptp(own.stated) == 0 or np.ptp(own.bayes) == 0:
        return 0.0
    return float(np.corrcoef(own.stated, own.bayes)[0, 1])


def honest_value(p: float, weight: float) -> float:
    """The mean reward of an honest answer that is right with probability p."""
    return p - weight * p * (1 - p)


def mean_reward(p: float, weight: float) -> Float[np.ndarray, "digits"]:
    """The mean reward of each digit behind an answer that is right with probability
    p."""
    return p - weight * (p * (1 - CONFIDENCES) ** 2 + (1 - p) * CONFIDENCES**2)


# --- Asked in several ways ------------------------------------------------------------

WAYS = {
    "answer_prob": "probability of the answer",
    "p_true": "P(True)",
    "digit": "a digit, asked for",
    "agreeing": "share of samples that agree",
}


def by_way(row: Mapping) -> dict[str, dict]:
    """:func:`scored` of each way to ask, on the test questions of a row of
    ``stated_ways.ways_arm``; agreement is about the most frequent answer, the others
    about the greedy one."""
    rights = dict.fromkeys(WAYS, row["right"]) | {"agreeing": row["agreed_right"]}
    return {
        name: scored((np.array(row[name], float), np.array(rights[name], float)))
        for name in WAYS
    }


class Selective(NamedTuple):
    """What the control prompt does to a policy's answers."""

    answered: float  # share of the questions
    right: float  # share of these that its greedy reply gets right
    gain: float  # right, less the share of all that its greedy reply gets right
    known_answered: float  # share answered of the questions about known facts


def selective(row: Mapping) -> Selective:
    """What a policy chooses to answer behind the control prompt (a sampled reply), and
    how often it knows that (its greedy reply to the bare question is right)."""
    answered = np.array(row["answered"]) == 1
    right = np.array(row["right"], float)
    known = np.array(row["kind"]) == "known"
    share = float(right[answered].mean()) if answered.any() else float(right.mean())
    return Selective(
        float(answered.mean()),
        share,
        share - float(right.mean()),
        float(answered[known].mean()) if known.any() else np.nan,
    )
