"""From the answers of notebook 07 to its numbers: confidence against accuracy by stage
and exposure, what a temperature mends, and the closed form of what a reward does.
"""

import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning

from alignlab.calibration.estimators import IsotonicCalibrator, TemperatureScaler
from alignlab.calibration.inference import (
    null_calibration_error,
    squared_error_interval,
)
from alignlab.calibration.metrics import (
    bin_edges,
    bin_index,
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
    top_label,
)
from alignlab.chapters.calibration.artifacts import (
    EXPOSURES,
    Answers,
    TopLabel,
    bin_count,
    contributions,
    fact_means,
)
from alignlab.evaluation.intervals import Interval, two_level_interval
from alignlab.seeds import stream


def with_exposure(answers: Answers, between: tuple[float, float]) -> Answers:
    """Answers about uncontested facts that pretraining stated from ``low`` to below
    ``high`` times, ``between`` being these two."""
    low, high = between
    inside = (answers.exposure >= low) & (answers.exposure < high)
    return answers.where(inside & (answers.rival < 0))


def strata(answers: Answers) -> Int[np.ndarray, "items"]:
    """The class of ``EXPOSURES`` that each item's fact is in; contested ones are in the
    class after the last."""
    edges = [low for low, _ in EXPOSURES.values()][1:]
    by_exposure = np.searchsorted(edges, answers.exposure, side="right")
    return np.where(answers.rival < 0, by_exposure, len(EXPOSURES))


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
        "squared": squared_error(answers.top_label),
        "brier": brier_score(answers.probabilities, answers.right),
        "nll": negative_log_likelihood(answers.probabilities, answers.right),
    }


def squared_error(pair: TopLabel) -> float:
    """Mean squared calibration error without bias, so that it can be averaged over
    seeds. It may be negative."""
    return squared_error_interval(*pair, bin_count(len(pair[0]))).value


def squared_by_fact(answers: Answers) -> Float[np.ndarray, "facts"]:
    """:func:`contributions` of the likeliest options, a mean for each fact."""
    return fact_means(answers, contributions(*answers.top_label))


def squared_table(answers: Sequence[Answers]) -> Float[np.ndarray, "seeds facts"]:
    """:func:`squared_by_fact` of each seed, all asked about the same facts: both are
    samples, and an interval has to allow for both."""
    return np.array([squared_by_fact(a) for a in answers])


def gap_table(answers: Sequence[Answers]) -> Float[np.ndarray, "seeds facts"]:
    """Confidence minus correctness of each fact, a row a seed."""
    return np.array([fact_means(a, np.subtract(*a.top_label)) for a in answers])


def difference_of_tables(
    first: Float[np.ndarray, "seeds facts"], second: Float[np.ndarray, "seeds facts"]
) -> Interval:
    """First minus second mean, where the two are about different facts: the variances
    of both means add up."""
    if len(first) < 2:
        return Interval(float(first.mean() - second.mean()), -np.inf, np.inf)
    minuend, subtrahend = (two_level_interval(table) for table in (first, second))
    value = minuend.value - subtrahend.value
    half = math.hypot(minuend.high - minuend.value, subtrahend.high - subtrahend.value)
    return Interval(value, value - half, value + half)


# --- What confidence is for -----------------------------------------------------------


def earnings(
    pair: TopLabel, costs: Sequence[float], threshold: str = "stated"
) -> list[float]:
    """Mean earnings a question where a right answer earns 1, a wrong one costs
    ``cost``, and no answer earns nothing.

    Who believes a confidence answers where it is at least cost / (1 + cost), the point
    at which an answer is worth nothing.

    Args:
        costs: of a wrong answer, at least 0.
        threshold: "stated" believes the confidences; "best" takes the threshold that
            earns most in hindsight; "none" always answers.

    Raises:
        ValueError: if there is no such threshold.
    """
    if threshold not in ("stated", "best", "none"):
        raise ValueError(f'threshold is {threshold!r}; "stated", "best" or "none"')
    confidence, correct = pair
    order = np.argsort(-confidence, kind="stable")
    confidence, correct = confidence[order], np.asarray(correct, float)[order]
    results = []
    for cost in costs:
        earned = np.append(0.0, np.cumsum(correct - cost * (1 - correct)))
        if threshold == "best":
            results.append(float(earned.max()) / len(correct))
            continue
        answered = len(correct)
        if threshold == "stated":
            answered = int((confidence >= cost / (1 + cost)).sum())
        results.append(float(earned[answered]) / len(correct))
    return results


# --- Temperature ----------------------------------------------------------------------


def fitted_temperature(answers: Answers, loss: str = "nll") -> float:
    """The temperature that is best for the fitting subjects' items.

    Args:
        loss: "nll", under which few answers that are sure and wrong outweigh all
            others, or "brier", under which no answer costs more than 2.
    """
    fitting = answers.where(~answers.test)
    with warnings.catch_warnings():  # with little data it may end at a bound
        warnings.simplefilter("ignore", ConvergenceWarning)
        scaler = TemperatureScaler(loss=loss).fit(fitting.log_probs, fitting.right)
    return scaler.temperature_


def at_temperature(answers: Answers, temperature) -> Answers:
    """The same with all logits divided; a higher temperature is less sure.

    Args:
        temperature: a number, or one for each item.
    """
    divisor = np.broadcast_to(temperature, answers.right.shape)[:, None]
    return answers._replace(log_probs=answers.log_probs / divisor)


def mended(method: str, answers: Answers) -> TopLabel:
    """Confidence and correctness on the test subjects, after a repair that was fitted
    on the fitting subjects.

    Args:
        method: "none"; "temperature, log loss"; "temperature, Brier"; "temperature by
            exposure", one for each class of ``EXPOSURES``, by Brier score, which only
            who knows what was read can fit; "isotonic".

    Raises:
        ValueError: if there is no such method.
    """
    test, fitting = answers.where(answers.test), answers.where(~answers.test)
    if method == "none":
        return test.top_label
    if method in ("temperature, log loss", "temperature, Brier"):
        loss = "nll" if method.endswith("loss") else "brier"
        temperature = fitted_temperature(answers, loss)
        return at_temperature(test, temperature).top_label
    if method == "temperature by exposure":
        return at_temperature(test, by_stratum(answers)[strata(test)]).top_label
    if method != "isotonic":
        raise ValueError(f"method is {method!r}; it can be one of {REPAIRS}")
    confidence, correct = fitting.top_label
    curve = IsotonicCalibrator().fit(confidence, correct)
    confidence, correct = test.top_label
    return curve.predict_proba(confidence)[:, 1], correct


REPAIRS = (
    "none",
    "temperature, log loss",
    "temperature, Brier",
    "isotonic",
    "temperature by exposure",
)


def by_stratum(answers: Answers) -> Float[np.ndarray, "strata"]:
    """The temperature that fits each class of :func:`strata` best by Brier score."""
    where = strata(answers)
    return np.array(
        [
            fitted_temperature(answers.where(where == stratum), "brier")
            if (~answers.test & (where == stratum)).sum() >= 10
            else 1.0
            for stratum in range(len(EXPOSURES) + 1)
        ]
    )


def grouping_loss(pair: TopLabel, groups: Int[np.ndarray, "items"]) -> float:
    """What calibration over all items hides: the variance, between the groups in a bin
    of equal confidence, of the shares that are right, mean over items, without bias.

    It is 0 if answers of the same confidence are right equally often in every group.

    Source: Kull & Flach (2015); Perez-Lebel, Le Morvan & Varoquaux (2023), who find
    groups by a tree, where these are known.
    """
    confidence, correct = pair
    edges = bin_edges(confidence, bin_count(len(confidence)), "quantile")
    where = bin_index(confidence, edges)
    total = 0.0
    for b in np.unique(where):
        inside = where == b
        total += _between(np.asarray(correct, float)[inside], groups[inside])
    return total / len(confidence)


def _between(correct: np.ndarray, groups: np.ndarray) -> float:
    """Sum over items of the squared deviation of their group's share from the share of
    all, without what chance within the groups adds."""
    names, where, count = np.unique(groups, return_inverse=True, return_counts=True)
    if len(correct) < 2:
        return 0.0
    share = np.bincount(where, correct) / count
    between = float((count * (share - correct.mean()) ** 2).sum())
    spread = share * (1 - share) * count / np.maximum(count - 1, 1)
    return between - float(((1 - count / len(correct)) * spread).sum())


# --- Contested facts, where the right confidence is known -----------------------------


def between_two(answers: Answers) -> Answers:
    """The two stated answers alone, the right one first: the others hardly count."""
    rows = np.arange(len(answers.right))
    both = np.stack([answers.right, answers.rival], axis=1)
    return answers._replace(
        log_probs=answers.log_probs[rows[:, None], both],
        right=np.zeros_like(answers.right),
        rival=np.ones_like(answers.rival),
    )


def expected_top_label(answers: Answers) -> TopLabel:
    """Confidence in the likelier of the two stated answers, and the share of statements
    that give it: the probability that it is right, without the noise of a toss."""
    probabilities = answers.probabilities
    first = probabilities[:, 0] >= 0.5
    confidence = np.where(first, probabilities[:, 0], probabilities[:, 1])
    return confidence, np.where(first, answers.share, 1 - answers.share)


def expected_table(answers: Sequence[Answers]) -> Float[np.ndarray, "seeds facts"]:
    """:func:`squared_table` where outcomes are probabilities."""
    return np.array(
        [fact_means(a, contributions(*expected_top_label(a))) for a in answers]
    )


def expected_gap(answers: Answers) -> float:
    """Mean confidence in the likelier answer minus its mean share of the statements."""
    confidence, share = expected_top_label(answers)
    return float(confidence.mean() - share.mean())


def both_answers(answers: Answers) -> TopLabel:
    """The probability of each of the two stated answers, and its share."""
    probabilities = answers.probabilities
    shares = np.concatenate([answers.share, 1 - answers.share])
    return np.concatenate([probabilities[:, 0], probabilities[:, 1]]), shares


def contested_temperature(answers: Answers) -> float:
    """The temperature that fits the shares of the fitting subjects' facts, by log
    loss: each stated answer counts as right as often as its share says."""
    fitting = answers.where(~answers.test)
    n = len(fitting.right)
    scaler = TemperatureScaler().fit(
        np.concatenate([fitting.log_probs, fitting.log_probs]),
        np.repeat([0, 1], n),
        sample_weight=np.concatenate([fitting.share, 1 - fitting.share]),
    )
    return scaler.temperature_


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
    """The optimum's answers if nothing can be known beyond what the policy that gave
    ``answers`` knows: p is its own probability at the temperature that fits."""
    if (answers.rival >= 0).all():
        belief = at_temperature(answers, contested_temperature(answers)).probabilities
    else:
        fitted = fitted_temperature(answers, "brier")
        belief = at_temperature(answers, fitted).probabilities
    return answers._replace(log_probs=optimum(answers.log_probs, belief, beta))


def kl_between(answers: Answers, reference: Answers) -> float:
    """Mean KL of one model's probabilities among the options to another's, in nats."""
    first = log_softmax(answers.log_probs, axis=1)
    second = log_softmax(reference.log_probs, axis=1)
    return float((np.exp(first) * (first - second)).sum(axis=1).mean())


# --- With the share outside the options -----------------------------------------------


def open_top_label(answers: Answers) -> TopLabel:
    """The likeliest option with its probability among *all* completions: what is said
    outside the options counts as neither."""
    probabilities = np.exp(np.minimum(answers.log_probs, 0.0))
    confidence = probabilities.max(axis=1)
    return confidence, top_label(answers.probabilities, answers.right)[1]


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
            with warnings.catch_warnings():  # of bins that hold a single prediction
                warnings.simplefilter("ignore", UserWarning)
                error = [squared_error_interval(*pair, n_bins).value for pair in pairs]
            row = dict(n=n, bins=n_bins, ece=float(np.mean(ece)))
            rows.append(row | {"squared": float(np.mean(error))})
    return rows


def mean_of(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean over seeds of each measure."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
