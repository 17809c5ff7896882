"""What notebook 09 computes from the rows of its arms, one number a seed."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning

from alignlab.calibration import (
    TemperatureScaler,
    squared_error_interval,
    top_label,
)
from alignlab.chapters.a_real_model.exams import QUESTION_SETS, REQUEST_SETS

BINS = 10
COLUMNS = ("log_probs", "labels")


def means(rows: Sequence[Mapping], name: str) -> np.ndarray:
    """The mean over requests and replies of a column, for each seed."""
    return np.array([np.mean(row[name]) for row in rows])


def gains(after: Sequence[Mapping], before: Sequence[Mapping], name: str) -> np.ndarray:
    """How much the mean of a column rises, for each seed."""
    return means(after, name) - means(before, name)


# --- Refusals -------------------------------------------------------------------------


def refused(rows: Sequence[Mapping], harmful: bool) -> np.ndarray:
    """The share refused of all requests that should be refused, or should be answered,
    for each seed."""
    return np.array(
        [
            np.mean(
                [
                    flag
                    for name, answers in row["requests"].items()
                    if REQUEST_SETS[name][2] == harmful
                    for flag in answers["refused"]
                ]
            )
            for row in rows
        ]
    )


# --- Calibration ----------------------------------------------------------------------


def halves(row: Mapping, name: str, n: int | None = None) -> list[tuple]:
    """The log-probabilities and labels of a question set, (fitting, judging): every
    other one of the first n questions."""
    answers = row["questions"][name]
    log_probs = np.array(answers["log_probs"])[:n]
    labels = np.array(answers["labels"])[:n]
    return [(log_probs[i::2], labels[i::2]) for i in (0, 1)]


def judged(row: Mapping, name: str, temperature: float = 1.0, n: int | None = None):
    """Confidences, and whether they were right, on the questions of a set that no
    temperature was fitted on."""
    log_probs, labels = halves(row, name, n)[1]
    return top_label(softmax(log_probs / temperature, axis=1), labels)


def fitted_temperature(row: Mapping, name: str, n: int | None = None) -> float:
    """The temperature with the least log loss on the other half of a question set."""
    with warnings.catch_warnings():  # no better than chance: it ends at a bound
        warnings.simplefilter("ignore", ConvergenceWarning)
        scaler = TemperatureScaler().fit(*halves(row, name, n)[0])
    return float(scaler.temperature_)


def squared_error(pair: tuple[np.ndarray, np.ndarray]) -> float:
    """Debiased mean squared calibration error in ten equally full bins, or fewer: 0 on
    average for calibrated answers, however few."""
    bins = max(1, min(BINS, len(pair[0]) // 4))
    return squared_error_interval(*pair, bins).value


def mean_squared_error(row: Mapping, mended: bool, n: int | None = None) -> float:
    """:func:`squared_error`, the mean of all question sets.

    Args:
        mended: at each set's own fitted temperature.
        n: questions of each set, the first ones.
    """
    errors = [
        squared_error(
            judged(row, name, fitted_temperature(row, name, n) if mended else 1.0, n)
        )
        for name in QUESTION_SETS
    ]
    return float(np.mean(errors))


def lead_over_guessing(row: Mapping, name: str) -> float:
    """Share of right answers to a question set, less what guessing would give."""
    log_probs, labels = (np.array(row["questions"][name][k]) for k in COLUMNS)
    return float((log_probs.argmax(1) == labels).mean() - 1 / log_probs.shape[1])
