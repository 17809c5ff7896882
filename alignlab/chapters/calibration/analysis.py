"""What the answers of notebook 07 are worth: confidence against accuracy by stage,
split and exposure, and the closed form of what a reward does to them.

Rows come as the arms of ``calibration`` give them. Nothing is trained or asked here.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import log_softmax, softmax

from alignlab.calibration.estimators import TemperatureScaler
from alignlab.calibration.inference import (
    calibration_error_interval,
    null_calibration_error,
    squared_error_difference,
    squared_error_interval,
)
from alignlab.calibration.metrics import (
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
    top_label,
)
from alignlab.chapters.calibration.runs import items, subjects
from alignlab.evaluation.intervals import Interval
from alignlab.world.facts import KNOWN_FROM

# By design a fact is known from KNOWN_FROM exposures on; "seldom" is cut once more.
EXPOSURES = {
    "never": (0, 1),
    "1 to 24": (1, 25),
    "25 to 99": (25, KNOWN_FROM),
    "100 to 299": (KNOWN_FROM, 300),
    "300 and more": (300, math.inf),
}
SELDOM = (1, KNOWN_FROM)
OFTEN = (KNOWN_FROM, math.inf)


class Said(NamedTuple):
    """What one model said of items, and what is true of them."""

    log_probs: Float[np.ndarray, "items options"]  # nats, up to a constant a row
    right: Int[np.ndarray, "items"]
    exposure: Int[np.ndarray, "items"]  # of the fact, in pretraining
    fact: Int[np.ndarray, "items"]  # a number for each fact: items that share it
    test: Bool[np.ndarray, "items"]  # about a test subject, not one for fitting
    relation: np.ndarray

    def where(self, mask: Bool[np.ndarray, "items"]) -> "Said":
        """Those items only."""
        return Said(*(column[mask] for column in self))

    @property
    def probabilities(self) -> Float[np.ndarray, "items options"]:
        """Among the options."""
        return softmax(self.log_probs, axis=1)

    @property
    def answers(self) -> tuple[Float[np.ndarray, "items"], Float[np.ndarray, "items"]]:
        """Confidence in the likeliest option, and whether it is right."""
        return top_label(self.probabilities, self.right)

    @property
    def gap(self) -> float:
        """Mean confidence minus accuracy: above 0 is over-confident."""
        confidence, correct = self.answers
        return float(confidence.mean() - correct.mean())


def said(row: Mapping, what: str = "log_probs") -> Said:
    """A row of an arm with what is known of its items.

    Args:
        row: of any arm of ``calibration``.
        what: its log-probabilities; SFT's rows also have "statement" and "mean". They
            are divided by the ``temperature`` at which a policy was tuned.
    """
    some = items(("calibration", "test"), row["draws"], row["seed"], row.get("limit"))
    facts = {fact: n for n, fact in enumerate(dict.fromkeys(i.fact for i in some))}
    tested = subjects("test")
    return Said(
        np.array(row[what], float) / row.get("temperature", 1.0),
        np.array([item.right for item in some]),
        np.array([item.fact.exposure for item in some]),
        np.array([facts[item.fact] for item in some]),
        np.array([item.fact.subject in tested for item in some]),
        np.array([item.fact.relation for item in some]),
    )


def exposed(one: Said, between: tuple[float, float]) -> Said:
    """Items of facts stated at least so often, and less often than so."""
    low, high = between
    return one.where((one.exposure >= low) & (one.exposure < high))


def measures(one: Said) -> dict[str, float]:
    """All numbers of one model on some items: ``n``, ``accuracy``, ``confidence``,
    ``ece`` with the ``null`` that chance alone would show, ``squared`` (mean squared
    error, without bias), ``brier`` and ``nll`` over all options."""
    confidence, correct = one.answers
    return {
        "n": len(correct),
        "accuracy": float(correct.mean()),
        "confidence": float(confidence.mean()),
        "ece": expected_calibration_error(confidence, correct),
        "null": null_calibration_error(confidence),
        "squared": squared(one),
        "brier": brier_score(one.probabilities, one.right),
        "nll": negative_log_likelihood(one.probabilities, one.right),
    }


def squared(one: Said) -> float:
    """Mean squared calibration error of the likeliest option, without bias; what to
    average over seeds. It may be negative."""
    return squared_error_interval(*one.answers, bins(len(one.right))).value


def bins(n: int) -> int:
    """15 bins of equal numbers, fewer where some would hold fewer than four items."""
    return max(1, min(15, n // 4))


def rms(one: Said) -> Interval:
    """Root mean square calibration error with its interval. Items of one fact hang
    together, so it is that of the first item of each fact."""
    once = first_of_each_fact(one)
    return calibration_error_interval(*once.answers, bins(len(once.right)))


def squared_interval(one: Said) -> Interval:
    """:func:`squared` with its interval, of the first item of each fact."""
    once = first_of_each_fact(one)
    return squared_error_interval(*once.answers, bins(len(once.right)))


def first_of_each_fact(one: Said) -> Said:
    """Items that share no fact, so that they are independent."""
    _, first = np.unique(one.fact, return_index=True)
    return one.where(np.sort(first))


def mean_limits(intervals: Sequence[Interval]) -> Interval:
    """Mean estimate and mean limits. Seeds that draw other items of the same facts do
    not make an interval that is about the facts narrower."""
    return Interval(*(float(x) for x in np.mean(intervals, axis=0)))


def worse_by(first: Sequence[Said], second: Sequence[Said]) -> list[float]:
    """For each seed how much larger the first model's mean squared calibration error is
    than the second's, on the same items.

    Raises:
        ValueError: if the two were not asked the same items.
    """
    found = []
    for one, other in zip(first, second, strict=True):
        n = bins(len(one.right))
        if not (
            np.array_equal(one.right, other.right)
            and np.array_equal(one.fact, other.fact)
        ):
            raise ValueError("first and second were asked different items")
        found.append(squared_error_difference(one.answers, other.answers, n).value)
    return found


def difference(first: Interval, second: Interval) -> Interval:
    """First minus second of two independent estimates, with symmetric intervals."""
    value = first.value - second.value
    half = math.hypot(first.high - first.value, second.high - second.value)
    return Interval(value, value - half, value + half)


# --- Temperature ----------------------------------------------------------------------


def fitted_temperature(one: Said) -> float:
    """The temperature at which these items' right answers are likeliest."""
    return TemperatureScaler().fit(one.log_probs, one.right).temperature_


def at_temperature(one: Said, temperature: float) -> Said:
    """The same with all logits divided; above 1 it is less sure."""
    return one._replace(log_probs=one.log_probs / temperature)


def repaired(one: Said) -> dict[str, float]:
    """A temperature fitted on the subjects for fitting, judged on the others.

    Returns:
        ``temperature``; ``before`` and ``after``, mean squared errors without bias; and
        the ``share`` of it that is gone, which may be above 1 or negative.
    """
    temperature = fitted_temperature(one.where(~one.test))
    tested = one.where(one.test)
    before, after = squared(tested), squared(at_temperature(tested, temperature))
    return {
        "temperature": temperature,
        "before": before,
        "after": after,
        "share": 1 - after / before,
    }


# --- What a reward does, in closed form -----------------------------------------------


def optimum(
    log_probs: Float[np.ndarray, "items options"],
    belief: Float[np.ndarray, "items options"],
    beta: float,
) -> Float[np.ndarray, "items options"]:
    r"""Log-probabilities of the policy that earns most, at a price beta of KL.

    .. math:: \pi(y) \propto \pi_\text{ref}(y) \, e^{p(y) / \beta}

    where each option is right, and rewarded with 1, with probability p: more sure than
    it can be, the more the lower beta is, although nobody asked for that.

    Args:
        log_probs: of the reference.
        belief: p, as far as it can be known.
        beta: price of a nat of KL.

    Raises:
        ValueError: if beta is not above 0.
    """
    if not beta > 0:
        raise ValueError(f"beta is {beta}; it must be above 0")
    return log_softmax(np.asarray(log_probs) + np.asarray(belief) / beta, axis=1)


def predicted(one: Said, beta: float) -> Said:
    """What the optimum would say of the test items, if nothing can be known beyond what
    the policy ``one`` knows: p is its own probability at the temperature that fits on
    the subjects for fitting."""
    temperature = fitted_temperature(one.where(~one.test))
    belief = at_temperature(one, temperature).probabilities
    best = one._replace(log_probs=optimum(one.log_probs, belief, beta))
    return best.where(best.test)


def kl_between(one: Said, reference: Said) -> float:
    """Mean KL of one model's probabilities among the options to another's, in nats."""
    first = log_softmax(one.log_probs, axis=1)
    second = log_softmax(reference.log_probs, axis=1)
    return float((np.exp(first) * (first - second)).sum(axis=1).mean())


# --- Pitfalls -------------------------------------------------------------------------


def plug_in_bias(
    confidence: Float[np.ndarray, "items"],
    ns: Sequence[int],
    bins: Sequence[int],
    draws: int = 200,
    seed: int = 0,
) -> list[dict]:
    """ECE and debiased error of answers that are calibrated by construction: outcomes
    are drawn from the confidences themselves.

    Args:
        confidence: of a real model, so that they are spread as such are.
        ns: predictions to draw, with replacement.
        bins: numbers of bins.
        draws: for each n and number of bins.
        seed: of the draws.

    Returns:
        Rows of ``n``, ``bins``, ``ece`` and ``squared``, means over the draws.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for n in ns:
        chosen = [rng.choice(confidence, n) for _ in range(draws)]
        happened = [(rng.random(n) < c).astype(int) for c in chosen]
        for count in bins:
            pairs = list(zip(chosen, happened))
            ece = [expected_calibration_error(*pair, count) for pair in pairs]
            error = [squared_error_interval(*pair, count).value for pair in pairs]
            row = dict(n=n, bins=count, ece=float(np.mean(ece)))
            rows.append(row | {"squared": float(np.mean(error))})
    return rows
