"""From the answers of notebook 07 to its numbers: confidence against accuracy by stage
and exposure, and the closed form of what a reward does to them.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax

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
)
from alignlab.chapters.calibration.artifacts import Answers, bin_count
from alignlab.evaluation.intervals import Interval
from alignlab.seeds import stream
from alignlab.world.facts import KNOWN_FROM

SELDOM = (1, KNOWN_FROM)  # exposures, from one number to below the other
OFTEN = (KNOWN_FROM, math.inf)


def with_exposure(answers: Answers, between: tuple[float, float]) -> Answers:
    """Answers about facts that pretraining stated from ``low`` to below ``high`` times,
    ``between`` being these two."""
    low, high = between
    return answers.where((answers.exposure >= low) & (answers.exposure < high))


# --- Calibration errors ---------------------------------------------------------------


def measures(answers: Answers) -> dict[str, float]:
    """``n``, ``accuracy``, ``confidence``, ``ece`` with the ``null`` that chance alone
    would show, ``squared`` (mean squared calibration error, without bias), and
    ``brier`` and ``nll`` over all options."""
    confidence, correct = answers.top_label
    return {
        "n": len(correct),
        "accuracy": float(correct.mean()),
        "confidence": float(confidence.mean()),
        "ece": expected_calibration_error(confidence, correct),
        "null": null_calibration_error(confidence),
        "squared": squared_error(answers),
        "brier": brier_score(answers.probabilities, answers.right),
        "nll": negative_log_likelihood(answers.probabilities, answers.right),
    }


def squared_error(answers: Answers) -> float:
    """Mean squared calibration error of the likeliest option, without bias, so that it
    can be averaged over seeds. It may be negative."""
    n_bins = bin_count(len(answers.right))
    return squared_error_interval(*answers.top_label, n_bins).value


def squared_interval(answers: Answers) -> Interval:
    """:func:`squared_error` with its interval, of the first item of each fact."""
    once = first_of_each_fact(answers)
    return squared_error_interval(*once.top_label, bin_count(len(once.right)))


def rms_interval(answers: Answers) -> Interval:
    """Root mean square calibration error with its interval, of the first item of each
    fact: the interval takes items as independent."""
    once = first_of_each_fact(answers)
    return calibration_error_interval(*once.top_label, bin_count(len(once.right)))


def first_of_each_fact(answers: Answers) -> Answers:
    """Items that share no fact, so that they are independent."""
    _, first = np.unique(answers.fact, return_index=True)
    return answers.where(np.sort(first))


def squared_increase(first: Sequence[Answers], second: Sequence[Answers]) -> list:
    """For each seed the mean squared calibration error of the first model minus that of
    the second, on the same items.

    Raises:
        ValueError: if the two were not asked the same items.
    """
    differences = []
    for a, b in zip(first, second, strict=True):
        if not (np.array_equal(a.right, b.right) and np.array_equal(a.fact, b.fact)):
            raise ValueError("first and second were asked different items")
        n_bins = bin_count(len(a.right))
        interval = squared_error_difference(a.top_label, b.top_label, n_bins)
        differences.append(interval.value)
    return differences


def mean_interval(intervals: Sequence[Interval]) -> Interval:
    """Mean estimate and mean limits. Seeds that draw other items of the same facts do
    not narrow an interval that is about the facts."""
    return Interval(*(float(x) for x in np.mean(intervals, axis=0)))


def difference(first: Interval, second: Interval) -> Interval:
    """First minus second of two independent estimates, with symmetric intervals."""
    value = first.value - second.value
    half = math.hypot(first.high - first.value, second.high - second.value)
    return Interval(value, value - half, value + half)


# --- Temperature ----------------------------------------------------------------------


def fitted_temperature(answers: Answers) -> float:
    """The temperature at which the right options of the fitting subjects' items are
    likeliest."""
    fitting = answers.where(~answers.test)
    return TemperatureScaler().fit(fitting.log_probs, fitting.right).temperature_


def at_temperature(answers: Answers, temperature: float) -> Answers:
    """The same with all logits divided; a higher temperature is less sure."""
    return answers._replace(log_probs=answers.log_probs / temperature)


def temperature_repair(answers: Answers) -> dict[str, float]:
    """What a temperature repairs: fitted on the fitting subjects, judged on the test
    subjects.

    Returns:
        ``temperature``; ``before`` and ``after``, mean squared errors without bias; and
        the ``share`` that is gone, which may be above 1 or negative.
    """
    temperature, test = fitted_temperature(answers), answers.where(answers.test)
    before = squared_error(test)
    after = squared_error(at_temperature(test, temperature))
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
    r"""Log-probabilities of the policy with the highest expected reward minus beta
    times its KL to the reference.

    .. math:: \pi(y) \propto \pi_\text{ref}(y) \, e^{p(y) / \beta}

    where each option is right, and rewarded with 1, with probability p. It is surer
    than p justifies, and the more so the lower beta is.

    Args:
        log_probs: of the reference.
        belief: p, as far as it can be known.
        beta: reward per nat of KL; higher keeps closer to the reference.

    Raises:
        ValueError: if beta is not above 0.
    """
    if not beta > 0:
        raise ValueError(f"beta is {beta}; it must be above 0")
    return log_softmax(np.asarray(log_probs) + np.asarray(belief) / beta, axis=1)


def optimal_answers(answers: Answers, beta: float) -> Answers:
    """The optimum's answers to the test items, if nothing can be known beyond what the
    policy that gave ``answers`` knows: p is its own probability at the fitted
    temperature."""
    belief = at_temperature(answers, fitted_temperature(answers)).probabilities
    best = answers._replace(log_probs=optimum(answers.log_probs, belief, beta))
    return best.where(best.test)


def kl_between(answers: Answers, reference: Answers) -> float:
    """Mean KL of one model's probabilities among the options to another's, in nats."""
    first = log_softmax(answers.log_probs, axis=1)
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
        confidence: of a real model, so that the spread is realistic.
        ns: predictions to draw, with replacement.
        bins: numbers of bins.
        draws: for each n and number of bins.
        seed: of the draws.

    Returns:
        Rows of ``n``, ``bins``, ``ece`` and ``squared``, means over the draws.
    """
    rng = stream(seed, "plug-in bias")
    rows = []
    for n in ns:
        drawn = [rng.choice(confidence, n) for _ in range(draws)]
        outcomes = [(rng.random(n) < c).astype(int) for c in drawn]
        for n_bins in bins:
            pairs = list(zip(drawn, outcomes))
            ece = [expected_calibration_error(*pair, n_bins) for pair in pairs]
            error = [squared_error_interval(*pair, n_bins).value for pair in pairs]
            row = dict(n=n, bins=n_bins, ece=float(np.mean(ece)))
            rows.append(row | {"squared": float(np.mean(error))})
    return rows
