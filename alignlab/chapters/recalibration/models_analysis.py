"""From the runs of ``models`` to numbers: measures on the test subjects at each
checkpoint, and of every contender stopped at its best one.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from alignlab.calibration import (
    TemperatureScaler,
    area_under_risk_coverage,
    brier_score,
    negative_log_likelihood,
    squared_error_interval,
    top_label,
)
from alignlab.calibration.ensembles import ensemble_probabilities
from alignlab.chapters.calibration.artifacts import Answers, bin_count, read_answers
from alignlab.chapters.recalibration.models import (
    KINDS,
    LONG,
    MEMBERS,
    PLAIN,
    best_checkpoint,
)

Probabilities = Float[np.ndarray, "items options"]
Rows = Mapping[str, Sequence[Mapping]]  # those of ``models.calls``


def measure(p: Probabilities, right: Int[np.ndarray, "items"]) -> dict[str, float]:
    """``nll`` (nats) and ``brier`` over the options; ``squared`` (mean squared
    calibration error, without bias), ``aurc`` (area under risk-coverage), ``accuracy``
    and ``confidence`` of the likeliest one."""
    confidence, correct = top_label(p, right)
    return {
        "nll": negative_log_likelihood(p, right),
        "brier": brier_score(p, right),
        "squared": squared_error_interval(
            confidence, correct, bin_count(len(right))
        ).value,
        "aurc": area_under_risk_coverage(confidence, correct),
        "accuracy": float(correct.mean()),
        "confidence": float(confidence.mean()),
    }


def answers_at(row: Mapping, checkpoint: int) -> Answers:
    """A run's answers at one of its checkpoints; -1 is the last."""
    return read_answers({**row, "log_probs": row["log_probs"][checkpoint]})


def on_test(row: Mapping, p: Probabilities) -> dict[str, float]:
    """:func:`measure` on the test subjects of a row."""
    test = np.array(row["test"])
    return measure(p[test], np.array(row["right"])[test])


def along(row: Mapping) -> list[dict[str, float]]:
    """:func:`measure` on the test subjects at each checkpoint of a run."""
    p = softmax(np.array(row["log_probs"]), axis=2)
    return [on_test(row, q) for q in p]


def at_end(row: Mapping) -> dict[str, float]:
    """:func:`measure` on the test subjects at the end of a run."""
    return on_test(row, answers_at(row, -1).probabilities)


def at_best(row: Mapping) -> dict[str, float]:
    """The same where it is best to stop by the fitting subjects."""
    return on_test(row, answers_at(row, row["best"]).probabilities)


def tempered(row: Mapping, checkpoint: int) -> dict[str, float]:
    """:func:`measure` on the test subjects at a checkpoint, with one temperature fitted
    by Brier score on the fitting subjects."""
    answers = answers_at(row, checkpoint)
    fitting = answers.where(~answers.test)
    scaler = TemperatureScaler(loss="brier").fit(fitting.log_probs, fitting.right)
    return on_test(row, scaler.predict_proba(answers.log_probs))


# --- Several models -------------------------------------------------------------------


def ensemble_at_best(members: Sequence[Mapping]) -> dict[str, float]:
    """:func:`measure` of the mean of several runs on the same items, at the checkpoint
    that is best for this mean on the fitting subjects."""
    p = np.array([softmax(np.array(row["log_probs"]), axis=2) for row in members])
    means = [ensemble_probabilities(p[:, c]) for c in range(p.shape[1])]
    best = best_checkpoint(np.log(means), members[0])
    return on_test(members[0], means[best])


def dropout_mean(row: Mapping) -> dict[str, float]:
    """:func:`measure` of the mean of a run's passes with dropout."""
    passes = softmax(np.array(row["passes"]), axis=2)
    return on_test(row, ensemble_probabilities(passes))


def chosen_gaussian(row: Mapping, name: str = "laplace") -> dict[str, float]:
    """:func:`measure` of a posterior predictive, at the prior precision that is best on
    the fitting subjects.

    Args:
        name: "laplace" or "isotropic".
    """
    best = best_checkpoint(row[name], row)  # of the precisions
    return on_test(row, softmax(np.array(row[name][best]), axis=1))


def members_of(rows: Rows, seed: int) -> list[Mapping]:
    """The ensemble's runs of one seed, given by its place."""
    names = (PLAIN, *(f"member {m}" for m in range(2, MEMBERS + 1)))
    return [rows[name][seed] for name in names]


def by_members(rows: Rows) -> list[list[dict]]:
    """For each seed :func:`ensemble_at_best` of the first 1, 2, ... members."""
    groups = [members_of(rows, s) for s in range(len(rows[PLAIN]))]
    sizes = range(1, MEMBERS + 1)
    return [
        [{"members": m, **ensemble_at_best(group[:m])} for m in sizes]
        for group in groups
    ]


CONTENDERS = {
    "one model": (PLAIN, at_best),
    "one model, then T": (PLAIN, lambda row: tempered(row, row["best"])),
    f"one model, {LONG}": (LONG, at_best),
    "trained with dropout": ("dropout", at_best),
    "MC dropout": ("dropout", dropout_mean),
    "Laplace": (PLAIN, chosen_gaussian),
    "as wide everywhere": (PLAIN, lambda row: chosen_gaussian(row, "isotropic")),
}


def contenders(rows: Rows) -> dict[str, list[dict[str, float]]]:
    """:func:`measure` of each way to predict, stopped at its best checkpoint, a dict a
    seed: one model, with a temperature, of the ensemble's compute; the ensemble; with
    dropout at prediction and without; Laplace, and its control."""
    table = {
        name: [judge(row) for row in rows[run]]
        for name, (run, judge) in CONTENDERS.items()
    }
    table["ensemble"] = [of_seed[-1] for of_seed in by_members(rows)]
    return table


def by_loss(rows: Rows, losses: Sequence[str]) -> dict[str, list[dict[str, float]]]:
    """:func:`measure` of each loss at the end of training, a dict a seed, and of
    cross-entropy stopped at its best step and with a temperature afterwards."""
    table = {loss: [at_end(row) for row in rows[loss]] for loss in losses}
    table[f"{PLAIN}, stopped"] = [at_best(row) for row in rows[PLAIN]]
    table[f"{PLAIN}, then T"] = [tempered(row, -1) for row in rows[PLAIN]]
    return table


def differences(
    table: Mapping[str, Sequence[Mapping]], first: str, second: str, measure: str
) -> list[float]:
    """A measure of ``first`` minus that of ``second``, for each seed."""
    pairs = zip(table[first], table[second], strict=True)
    return [a[measure] - b[measure] for a, b in pairs]


def by_kind(row: Mapping, checkpoint: int) -> dict[str, dict[str, float]]:
    """``accuracy`` and ``confidence`` on the test subjects at a checkpoint, for each of
    ``models.KINDS`` that has an item."""
    answers = answers_at(row, checkpoint)
    confidence, correct = answers.top_label
    table = {}
    for kind in KINDS:
        mask = answers.test & (np.array(row["kind"]) == kind)
        if mask.any():
            table[kind] = {
                "accuracy": float(correct[mask].mean()),
                "confidence": float(confidence[mask].mean()),
            }
    return table
