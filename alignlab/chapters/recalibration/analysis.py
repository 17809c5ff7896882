"""Recalibration of what models said in notebooks 07 and 08: fitted on some subjects,
judged on others. Nothing is trained or asked here.
"""

import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from scipy.special import logit
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
from alignlab.calibration.ensembles import ensemble_probabilities
from alignlab.chapters.calibration.analysis import EXPOSURES, Said, bins

FLOOR = 1e-3  # of probabilities in the log loss; a staircase ends at 0 and 1
SMALLEST = 1e-6
Answers = tuple[Float[np.ndarray, "items"], Float[np.ndarray, "items"]]

FROM_LOGITS = {
    "temperature": TemperatureScaler,
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


def recalibrated(method: str, fitting: Said, judged: Said) -> Answers:
    """Confidence and correctness on some items after recalibration on others.

    Args:
        method: one of ``METHODS``, or "none".
        fitting: what to fit on.
        judged: what to recalibrate.

    Raises:
        ValueError: if there is no such method, or what there is to fit on is all right
            or all wrong.
    """
    if method == "none":
        return judged.answers
    if method in FROM_LOGITS:
        scaler = FROM_LOGITS[method]()
        with warnings.catch_warnings():  # a bound is what little data deserve
            warnings.simplefilter("ignore", ConvergenceWarning)
            scaler.fit(fitting.log_probs, fitting.right)
        return top_label(scaler.predict_proba(judged.log_probs), judged.right)
    if method not in FROM_CONFIDENCE:
        raise ValueError(f"method is {method!r}; it can be one of {METHODS}")
    confidence, correct = judged.answers
    calibrator = FROM_CONFIDENCE[method]()
    calibrator.fit(_as_read(method, fitting.answers[0]), fitting.answers[1])
    return calibrator.predict_proba(_as_read(method, confidence))[:, 1], correct


def _as_read(method: str, confidence: np.ndarray) -> np.ndarray:
    """Platt's curve goes through log-odds, which are finite short of 0 and 1."""
    if method != "Platt":
        return confidence
    return logit(np.clip(confidence, SMALLEST, 1 - SMALLEST))


def scores(answers: Answers) -> dict[str, float]:
    """``accuracy``, ``squared`` (mean squared calibration error, without bias),
    ``brier`` and ``nll`` of the confidence in the answer, and ``auroc`` and ``aurc`` of
    how it tells right from wrong."""
    confidence, correct = answers
    return proper(answers) | {
        "accuracy": float(correct.mean()),
        "auroc": auroc(confidence, correct),
        "aurc": area_under_risk_coverage(confidence, correct),
    }


def proper(answers: Answers) -> dict[str, float]:
    """``squared``, ``brier`` and ``nll`` of :func:`scores` alone."""
    return {
        "squared": squared_error_interval(*answers, bins(len(answers[0]))).value,
        "brier": brier_score(*answers),
        "nll": negative_log_likelihood(*answers, floor=FLOOR),
    }


def every_method(one: Said) -> dict[str, dict[str, float]]:
    """:func:`scores` on the test subjects of each method, fitted on the others."""
    fitting, judged = one.where(~one.test), one.where(one.test)
    return {
        method: scores(recalibrated(method, fitting, judged))
        for method in ("none", *METHODS)
    }


def gaps_by_exposure(method: str, one: Said) -> list[float]:
    """Mean confidence less accuracy on the test subjects after a recalibration on the
    others, for each class of ``EXPOSURES``; NaN where there is no item."""
    judged = one.where(one.test)
    confidence, correct = recalibrated(method, one.where(~one.test), judged)
    found = []
    for low, high in EXPOSURES.values():
        mask = (judged.exposure >= low) & (judged.exposure < high)
        gap = (confidence - correct)[mask]
        found.append(float(gap.mean()) if mask.any() else math.nan)
    return found


def repaired_share(before: float, after: float) -> float:
    """Share of a mean squared error that is gone; above 1 where the estimate of what is
    left is negative."""
    return 1 - after / before


def shuffled(one: Said, seed: int) -> Said:
    """The same with the places of the right options dealt out at random."""
    order = np.random.default_rng([seed, 80]).permutation(len(one.right))
    return one._replace(right=one.right[order])


def by_size(
    one: Said,
    ns: Sequence[int],
    methods: Sequence[str],
    draws: int,
    seed: int = 0,
) -> list[dict]:
    """How good a recalibration is by the number of items it is fitted on.

    Args:
        one: fitted on items of its subjects for fitting, judged on its test subjects.
        ns: items to fit on, drawn without replacement; 0 takes all there are.
        methods: of ``METHODS``.
        draws: of the items. Those of which all are right, or all wrong, are drawn anew.
        seed: of the draws.

    Returns:
        Rows of ``method``, ``n`` and the means of ``squared``, ``brier`` and ``nll``.
    """
    rng = np.random.default_rng([seed, 81])
    whole, judged = one.where(~one.test), one.where(one.test)
    rows = []
    for n in ns:
        drawn = [_mixed(whole, n, rng) for _ in range(draws)] if n else [whole]
        for method in methods:
            found = [proper(recalibrated(method, some, judged)) for some in drawn]
            means = {
                name: float(np.mean([f[name] for f in found])) for name in found[0]
            }
            rows.append({"method": method, "n": n or len(whole.right), **means})
    return rows


def _mixed(whole: Said, n: int, rng: np.random.Generator) -> Said:
    """n items, some answered rightly and some wrongly."""
    _, correct = whole.answers
    while True:
        chosen = rng.permutation(len(correct))[:n]
        if 0 < correct[chosen].sum() < n:
            return whole.where(chosen)


# --- From one task, or one stage, to another ------------------------------------------


def halves(one: Said, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the items of two halves of the relations."""
    names = np.unique(one.relation)
    first = names[np.random.default_rng([seed, 82]).permutation(len(names))[::2]]
    mask = np.isin(one.relation, first)
    return mask, ~mask


def transfer_share(one: Said, seed: int) -> float:
    """Share of the squared error that one temperature repairs on other relations (and
    other subjects) than it was fitted on; mean of both directions between halves."""
    first, second = halves(one, seed)
    shares = []
    for fit, judge in ((first, second), (second, first)):
        fitting, judged = one.where(fit & ~one.test), one.where(judge & one.test)
        before = scores(judged.answers)["squared"]
        after = scores(recalibrated("temperature", fitting, judged))["squared"]
        shares.append(repaired_share(before, after))
    return float(np.mean(shares))


def transfer(
    fitting: Mapping[str, Said], judged: Mapping[str, Said]
) -> Float[np.ndarray, "fitted judged"]:
    """Mean squared error of each judged set at the temperature of each fitted one; the
    first row is at none."""
    rows = [[scores(one.answers)["squared"] for one in judged.values()]]
    for one in fitting.values():
        rows.append(
            [
                scores(recalibrated("temperature", one, other))["squared"]
                for other in judged.values()
            ]
        )
    return np.array(rows)


# --- Several models -------------------------------------------------------------------


def whole_scores(probabilities: Float[np.ndarray, "items options"], one: Said) -> dict:
    """``nll`` over the options, in nats; ``accuracy``, ``squared`` and ``aurc`` of the
    favourite."""
    answers = top_label(probabilities, one.right)
    found = scores(answers)
    found["nll"] = negative_log_likelihood(probabilities, one.right)
    return {name: found[name] for name in ("accuracy", "nll", "squared", "aurc")}


def by_members(
    members: Float[np.ndarray, "members items options"], one: Said
) -> list[dict]:
    """:func:`whole_scores` of the mean of the first 1, 2, ... members.

    Args:
        members: their probabilities.
        one: what is true of the items.
    """
    return [
        {"members": m, **whole_scores(ensemble_probabilities(members[:m]), one)}
        for m in range(1, len(members) + 1)
    ]
