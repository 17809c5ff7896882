"""What answers are worth, against closed forms and answers that are calibrated by
construction."""

import numpy as np
import pytest

from alignlab.calibration import expected_calibration_error
from alignlab.chapters.calibration import analysis
from alignlab.chapters.calibration.artifacts import EXPOSURES, Answers
from alignlab.evaluation.intervals import Interval


def calibrated(n, scale=1.5, sharper=1.0, seed=0):
    """Options right with the probabilities of their logits, then made sharper."""
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(n, 4))
    right = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return Answers(
        sharper * logits,
        right,
        rng.integers(0, 500, n),
        np.arange(n),
        np.arange(n) % 3 != 0,
        np.array(["capital"] * n),
    )


def test_a_reward_makes_a_calibrated_policy_over_confident_by_the_known_amount():
    answers = calibrated(60_000, scale=1.7)
    accuracy = answers.top_label[1].mean()
    best = {
        beta: answers._replace(
            log_probs=analysis.optimum(answers.log_probs, answers.probabilities, beta)
        )
        for beta in (2.0, 0.5, 0.1)
    }
    errors = [expected_calibration_error(*tuned.top_label) for tuned in best.values()]
    temperatures = [analysis.fitted_temperature(tuned) for tuned in best.values()]
    assert errors == sorted(errors) and temperatures == sorted(temperatures)
    assert expected_calibration_error(*answers.top_label) < 0.01 < errors[0]
    assert all(tuned.top_label[1].mean() == accuracy for tuned in best.values())
    # In expectation over what is right, over-confidence is confidence less confidence.
    for beta, tuned in best.items():
        surer = tuned.top_label[0].mean() - answers.top_label[0].mean()
        assert tuned.gap == pytest.approx(surer, abs=0.01), beta


def test_the_optimum_by_hand():
    p = np.array([[0.6, 0.4]])
    result = np.exp(analysis.optimum(np.log(p) + 7.0, p, 0.5))
    raw = p * np.exp(2 * p)
    assert result == pytest.approx(raw / raw.sum())
    with pytest.raises(ValueError, match="beta is 0; it must be above 0"):
        analysis.optimum(np.log(p), p, 0)


def test_the_prediction_for_a_calibrated_policy_is_its_own_optimum():
    answers = calibrated(20_000)
    tested = answers.where(answers.test)
    best = analysis.optimum(tested.log_probs, tested.probabilities, 0.3)
    result = analysis.optimal_answers(answers, 0.3)
    assert len(result.right) == answers.test.sum()
    assert result.probabilities == pytest.approx(np.exp(best), abs=0.02)


def test_a_temperature_is_found_on_one_part_and_repairs_the_other():
    answers = calibrated(9_000, sharper=2.5)
    result = analysis.temperature_repair(answers)
    assert result["temperature"] == pytest.approx(2.5, rel=0.05)
    assert result["before"] > 0.02 and result["share"] > 0.9
    assert analysis.at_temperature(answers, 2.5).gap == pytest.approx(0, abs=0.02)


def test_measures_of_calibrated_answers():
    answers = calibrated(9_000)
    result = analysis.measures(answers)
    p = answers.probabilities
    assert result["n"] == 9_000 and abs(result["squared"]) < 1e-3
    assert result["ece"] == pytest.approx(result["null"], abs=0.01)
    nll = -np.log(p[range(9_000), answers.right]).mean()
    assert result["nll"] == pytest.approx(nll)
    assert answers.gap == pytest.approx(result["confidence"] - result["accuracy"])


def test_the_sharper_of_two_is_worse_on_the_same_items():
    answers, other = calibrated(4_000, sharper=3.0), calibrated(4_000)
    [worse] = analysis.squared_increase([answers], [other])
    assert worse == pytest.approx(
        analysis.squared_error(answers) - analysis.squared_error(other)
    )
    assert worse > 0.02
    with pytest.raises(ValueError, match="were asked different items"):
        analysis.squared_increase([answers], [calibrated(4_000, seed=1)])


def test_intervals_look_at_each_fact_once():
    answers = calibrated(500)
    twice = Answers(*(np.concatenate([column, column]) for column in answers))
    assert analysis.rms_interval(twice) == analysis.rms_interval(answers)
    assert analysis.squared_interval(twice) == analysis.squared_interval(answers)


def test_intervals_of_means_and_differences():
    a, b = Interval(1.0, 0.7, 1.3), Interval(3.0, 2.6, 3.4)
    assert analysis.mean_interval([a, b]) == pytest.approx((2.0, 1.65, 2.35))
    assert analysis.difference(b, a) == pytest.approx((2.0, 1.5, 2.5))


def test_exposure_classes_cover_every_number_once():
    edges = list(EXPOSURES.values())
    assert edges[0][0] == 0 and edges[-1][1] == np.inf
    assert all(left[1] == right[0] for left, right in zip(edges, edges[1:]))
    answers = calibrated(400)
    parts = [analysis.with_exposure(answers, between) for between in edges]
    assert sum(len(part.right) for part in parts) == 400
    assert (parts[0].exposure == 0).all() and (parts[1].exposure < 25).all()


def test_kl_by_hand():
    first, second = np.array([[0.7, 0.3]]), np.array([[0.5, 0.5]])
    answers = calibrated(1)._replace(log_probs=np.log(first) + 5)
    other = answers._replace(log_probs=np.log(second))
    expected = 0.7 * np.log(1.4) + 0.3 * np.log(0.6)
    assert analysis.kl_between(answers, other) == pytest.approx(expected)


def test_a_perfect_model_has_an_ece_but_no_debiased_error():
    confidence = calibrated(2_000).top_label[0]
    rows = analysis.plug_in_bias(confidence, (100, 1000), (5, 50), draws=60)
    ece = {(row["n"], row["bins"]): row["ece"] for row in rows}
    assert ece[100, 50] > ece[100, 5] > ece[1000, 5] > 0.01
    assert all(abs(row["squared"]) < 0.15 * row["ece"] ** 2 + 2e-3 for row in rows)
