"""From the answers of notebooks 07 and 08 to the numbers of 08: recalibrations, fitted
on some subjects and judged on others.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax, logit
from sklearn.exceptions import ConvergenceWarning

from alignlab.calibration import (
    BetaCalibrator,
    HistogramCalibrator,
    IsotonicCalibrator,
    MatrixScaler,
    PlattScaler,
    TemperatureScaler,
    VectorScaler,
    area_under_risk_coverage,
    auroc,
    brier_score,
    negative_log_likelihood,
    squared_error_interval,
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
from alignlab.seeds import stream

FLOOR = 1e-3  # of probabilities in the log loss; a staircase ends at 0 and 1
SMALLEST = 1e-6

FROM_LOGITS = {
    "temperature": partial(TemperatureScaler, loss="brier"),
    "temperature, log loss": TemperatureScaler,
    "vector": VectorScaler,
    "matrix": MatrixScaler,
}
FROM_CONFIDENCE = {
    "Platt": PlattScaler,
    "beta": BetaCalibrator,
    "isotonic": IsotonicCalibrator,
    "histogram": HistogramCalibrator,
}
METHODS = (*FROM_LOGITS, *FROM_CONFIDENCE)


def recalibrated(method: str, fitting: Answers, judged: Answers) -> TopLabel:
    """Confidence and correctness on some items after recalibration on others.

    Args:
        method: one of ``METHODS``, or "none". "temperature" is chosen by Brier score.
        fitting: items to fit on.
        judged: items to recalibrate.

    Raises:
        ValueError: if there is no such method, or the items to fit on are all right or
            all wrong.
    """
    if method == "none":
        return judged.top_label
    if method in FROM_LOGITS:
        scaler = FROM_LOGITS[method]()
        with warnings.catch_warnings():  # with little data it may end at a bound
            warnings.simplefilter("ignore", ConvergenceWarning)
            scaler.fit(fitting.log_probs, fitting.right)
        return top_label(scaler.predict_proba(judged.log_probs), judged.right)
    if method not in FROM_CONFIDENCE:
        raise ValueError(f"method is {method!r}; it can be one of {METHODS}")
    calibrator = FROM_CONFIDENCE[method]()
    confidence, correct = fitting.top_label
    calibrator.fit(_as_input(method, confidence), correct)
    confidence, correct = judged.top_label
    return calibrator.predict_proba(_as_input(method, confidence))[:, 1], correct


def _as_input(method: str, confidence: np.ndarray) -> np.ndarray:
    """Platt's curve takes log-odds, which are finite short of 0 and 1."""
    if method != "Platt":
        return confidence
    return logit(np.clip(confidence, SMALLEST, 1 - SMALLEST))


def scores(pair: TopLabel) -> dict[str, float]:
    """:func:`proper_scores`, ``accuracy``, and ``auroc`` and ``aurc``: how well the
    confidence tells right from wrong. Where all answers are right, or all wrong, there
    is nothing to tell apart: 0.5."""
    confidence, correct = pair
    mixed = 0 < np.sum(correct) < len(correct)
    return proper_scores(pair) | {
        "accuracy": float(correct.mean()),
        "auroc": auroc(confidence, correct) if mixed else 0.5,
        "aurc": area_under_risk_coverage(confidence, correct),
    }


def proper_scores(pair: TopLabel) -> dict[str, float]:
    """``squared`` (mean squared calibration error, without bias), ``brier`` and ``nll``
    of the confidence in the likeliest option."""
    return {
        "squared": squared_error_interval(*pair, bin_count(len(pair[0]))).value,
        "brier": brier_score(*pair),
        "nll": negative_log_likelihood(*pair, floor=FLOOR),
    }


def fitting_and_test(answers: Answers) -> tuple[Answers, Answers]:
    """Answers about the fitting subjects, and about the test subjects."""
    return answers.where(~answers.test), answers.where(answers.test)


def every_method(answers: Answers) -> dict[str, dict[str, float]]:
    """:func:`scores` on the test subjects after each method, "none" first."""
    parts = fitting_and_test(answers)
    return {
        method: scores(recalibrated(method, *parts)) for method in ("none", *METHODS)
    }


def gaps_by_exposure(method: str, answers: Answers) -> list[float]:
    """Mean confidence minus accuracy on the test subjects after a recalibration, for
    uncontested facts of each class of ``EXPOSURES``; NaN where there is no item."""
    fitting, test = fitting_and_test(answers)
    confidence, correct = recalibrated(method, fitting, test)
    gaps = []
    for low, high in EXPOSURES.values():
        mask = (test.exposure >= low) & (test.exposure < high) & (test.rival < 0)
        gap = (confidence - correct)[mask]
        gaps.append(float(gap.mean()) if mask.any() else math.nan)
    return gaps


def shares_of_worst_tenth(answers: Answers) -> dict[str, float]:
    """What the tenth of the items on which it is greatest contributes to the log loss
    (``dragged``) and to the Brier score (``brier_share``)."""
    rows = np.arange(len(answers.right))
    p = answers.probabilities
    right = np.eye(p.shape[1])[answers.right]
    losses = {
        "dragged": -log_softmax(answers.log_probs, axis=1)[rows, answers.right],
        "brier_share": ((p - right) ** 2).sum(axis=1),
    }
    worst = max(1, len(rows) // 10)
    return {
        name: float(np.sort(loss)[-worst:].sum() / loss.sum())
        for name, loss in losses.items()
    }


def shuffled(answers: Answers, seed: int) -> Answers:
    """The same with the right options dealt out to the items at random."""
    order = stream(seed, "shuffled items").permutation(len(answers.right))
    return answers._replace(right=answers.right[order])


def by_size(
    answers: Answers,
    ns: Sequence[int],
    methods: Sequence[str],
    draws: int,
    seed: int = 0,
) -> list[dict]:
    """How good a recalibration is by the number of items it is fitted on.

    Args:
        answers: their fitting subjects to fit on, their test subjects to judge on.
        ns: items to fit on, drawn without replacement; 0 takes all there are.
        methods: of ``METHODS``.
        draws: of the items. A draw that is all right, or all wrong, is drawn anew.
        seed: of the draws.

    Returns:
        Rows of ``method``, ``n`` and the means of :func:`proper_scores`.
    """
    rng = stream(seed, "fitting items")
    fitting, test = fitting_and_test(answers)
    rows = []
    for n in ns:
        drawn = [_draw_mixed(fitting, n, rng) for _ in range(draws)] if n else [fitting]
        for method in methods:
            results = [proper_scores(recalibrated(method, d, test)) for d in drawn]
            means = {
                name: float(np.mean([r[name] for r in results])) for name in results[0]
            }
            rows.append({"method": method, "n": n or len(fitting.right), **means})
    return rows


def _draw_mixed(answers: Answers, n: int, rng: np.random.Generator) -> Answers:
    """n items, not all of them answered rightly and not all wrongly."""
    _, correct = answers.top_label
    while True:
        chosen = rng.permutation(len(correct))[:n]
        if 0 < correct[chosen].sum() < n:
            return answers.where(chosen)


# --- From one task, or one stage, to another ------------------------------------------


def halves(answers: Answers, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the items of two halves of the relations."""
    names = np.unique(answers.relation)
    first = names[stream(seed, "halves of relations").permutation(len(names))[::2]]
    mask = np.isin(answers.relation, first)
    return mask, ~mask


def transferred(answers: Answers, seed: int) -> TopLabel:
    """Confidence and correctness on the test items, each at the temperature of the half
    of the relations that it is not from, fitted on other subjects as well."""
    first, second = halves(answers, seed)
    test = answers.where(answers.test)
    confidence, correct = (x.copy() for x in test.top_label)
    for fit, judge in ((first, second), (second, first)):
        fitting = answers.where(fit & ~answers.test)
        judged = judge[answers.test]
        pair = recalibrated("temperature", fitting, test.where(judged))
        confidence[judged], correct[judged] = pair
    return confidence, correct


def transfer(
    fitting: Mapping[str, Answers], judged: Mapping[str, Answers]
) -> Float[np.ndarray, "fitted judged"]:
    """Mean squared error of each judged set at the temperature of each fitted one; the
    first row is at none."""
    rows = [[scores(test.top_label)["squared"] for test in judged.values()]]
    for fit in fitting.values():
        rows.append(
            [
                scores(recalibrated("temperature", fit, test))["squared"]
                for test in judged.values()
            ]
        )
    return np.array(rows)


# --- Fact by fact ---------------------------------------------------------------------


def by_fact(test: Answers, pair: TopLabel) -> dict[str, Float[np.ndarray, "facts"]]:
    """``squared``, ``brier``, ``nll`` and ``accuracy`` of a confidence on test items, a
    number for each fact, so that an interval can allow for other facts. Their means are
    those of :func:`scores`."""
    confidence, correct = pair
    p = np.where(correct == 1, confidence, 1 - confidence)
    values = {
        "squared": contributions(confidence, correct),
        "brier": (confidence - correct) ** 2,
        "nll": -np.log(np.maximum(p, FLOOR)),
        "accuracy": np.asarray(correct, float),
    }
    return {name: fact_means(test, column) for name, column in values.items()}


def tables(
    tests: Sequence[Answers], pairs: Sequence[TopLabel]
) -> dict[str, Float[np.ndarray, "seeds facts"]]:
    """:func:`by_fact` of every seed, a row each."""
    rows = [by_fact(test, pair) for test, pair in zip(tests, pairs, strict=True)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}
