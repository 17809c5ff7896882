"""What answers are worth, against closed forms and answers that are calibrated by
construction."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from alignlab.calibration import expected_calibration_error
from alignlab.chapters.calibration import analysis
from alignlab.chapters.calibration import runs as arms
from alignlab.evaluation.intervals import Interval


def calibrated(n, scale=1.5, sharper=1.0, seed=0):
    """Options right with the probabilities of their logits, then made sharper."""
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(n, 4))
    right = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return analysis.Said(
        sharper * logits,
        right,
        rng.integers(0, 500, n),
        np.arange(n),
        np.arange(n) % 3 != 0,
        np.array(["capital"] * n),
    )


def test_a_reward_makes_a_calibrated_policy_over_confident_by_the_known_amount():
    one = calibrated(60_000, scale=1.7)
    accuracy = one.answers[1].mean()
    best = {
        beta: one._replace(
            log_probs=analysis.optimum(one.log_probs, one.probabilities, beta)
        )
        for beta in (2.0, 0.5, 0.1)
    }
    errors = [expected_calibration_error(*said.answers) for said in best.values()]
    temperatures = [analysis.fitted_temperature(said) for said in best.values()]
    assert errors == sorted(errors) and temperatures == sorted(temperatures)
    assert expected_calibration_error(*one.answers) < 0.01 < errors[0]
    assert all(said.answers[1].mean() == accuracy for said in best.values())
    # In expectation over what is right, over-confidence is confidence less confidence.
    for beta, said in best.items():
        surer = said.answers[0].mean() - one.answers[0].mean()
        assert said.gap == pytest.approx(surer, abs=0.01), beta


def test_the_optimum_by_hand():
    p = np.array([[0.6, 0.4]])
    found = np.exp(analysis.optimum(np.log(p) + 7.0, p, 0.5))
    raw = p * np.exp(2 * p)
    assert found == pytest.approx(raw / raw.sum())
    with pytest.raises(ValueError, match="beta is 0; it must be above 0"):
        analysis.optimum(np.log(p), p, 0)


def test_the_prediction_for_a_calibrated_policy_is_its_own_optimum():
    one = calibrated(20_000)
    tested = one.where(one.test)
    best = analysis.optimum(tested.log_probs, tested.probabilities, 0.3)
    found = analysis.predicted(one, 0.3)
    assert len(found.right) == one.test.sum()
    assert found.probabilities == pytest.approx(np.exp(best), abs=0.02)


def test_a_temperature_is_found_on_one_part_and_repairs_the_other():
    one = calibrated(9_000, sharper=2.5)
    found = analysis.repaired(one)
    assert found["temperature"] == pytest.approx(2.5, rel=0.05)
    assert found["before"] > 0.02 and found["share"] > 0.9
    assert analysis.at_temperature(one, 2.5).gap == pytest.approx(0, abs=0.02)


def test_measures_of_calibrated_answers():
    one = calibrated(9_000)
    found = analysis.measures(one)
    p = one.probabilities
    assert found["n"] == 9_000 and abs(found["squared"]) < 1e-3
    assert found["ece"] == pytest.approx(found["null"], abs=0.01)
    nll = -np.log(p[range(9_000), one.right]).mean()
    assert found["nll"] == pytest.approx(nll)
    assert one.gap == pytest.approx(found["confidence"] - found["accuracy"])


def test_the_sharper_of_two_is_worse_on_the_same_items():
    one, other = calibrated(4_000, sharper=3.0), calibrated(4_000)
    [worse] = analysis.worse_by([one], [other])
    assert worse == pytest.approx(analysis.squared(one) - analysis.squared(other))
    assert worse > 0.02
    with pytest.raises(ValueError, match="were asked different items"):
        analysis.worse_by([one], [calibrated(4_000, seed=1)])


def test_intervals_look_at_each_fact_once():
    one = calibrated(500)
    twice = analysis.Said(*(np.concatenate([column, column]) for column in one))
    assert analysis.rms(twice) == analysis.rms(one)
    assert analysis.squared_interval(twice) == analysis.squared_interval(one)


def test_intervals_of_means_and_differences():
    a, b = Interval(1.0, 0.7, 1.3), Interval(3.0, 2.6, 3.4)
    assert analysis.mean_limits([a, b]) == pytest.approx((2.0, 1.65, 2.35))
    assert analysis.difference(b, a) == pytest.approx((2.0, 1.5, 2.5))


def test_exposure_classes_cover_every_number_once():
    edges = list(analysis.EXPOSURES.values())
    assert edges[0][0] == 0 and edges[-1][1] == np.inf
    assert all(one[1] == other[0] for one, other in zip(edges, edges[1:]))
    one = calibrated(400)
    parts = [analysis.exposed(one, between) for between in edges]
    assert sum(len(part.right) for part in parts) == 400
    assert (parts[0].exposure == 0).all() and (parts[1].exposure < 25).all()


def test_kl_by_hand():
    first, second = np.array([[0.7, 0.3]]), np.array([[0.5, 0.5]])
    one = calibrated(1)._replace(log_probs=np.log(first) + 5)
    other = one._replace(log_probs=np.log(second))
    expected = 0.7 * np.log(1.4) + 0.3 * np.log(0.6)
    assert analysis.kl_between(one, other) == pytest.approx(expected)


def test_a_perfect_model_has_an_ece_but_no_debiased_error():
    confidence = calibrated(2_000).answers[0]
    rows = analysis.plug_in_bias(confidence, (100, 1000), (5, 50), draws=60)
    ece = {(row["n"], row["bins"]): row["ece"] for row in rows}
    assert ece[100, 50] > ece[100, 5] > ece[1000, 5] > 0.01
    assert all(abs(row["squared"]) < 0.15 * row["ece"] ** 2 + 2e-3 for row in rows)


def test_a_row_is_read_with_what_is_true_of_its_items():
    some = arms.items(("calibration", "test"), 2, 5, 30)
    row = dict(seed=5, draws=2, limit=30, temperature=2.0)
    row["log_probs"] = np.arange(240.0).reshape(60, 4).tolist()
    row["mean"] = np.zeros((60, 4)).tolist()
    one = analysis.said(row)
    assert one.log_probs[1, 1] == 5.0 / 2.0
    assert one.right.tolist() == [item.right for item in some]
    assert one.exposure.tolist() == [item.fact.exposure for item in some]
    assert one.fact.tolist() == [*range(30), *range(30)]
    tested = arms.subjects("test")
    assert one.test.tolist() == [item.fact.subject in tested for item in some]
    assert (analysis.said(row, "mean").log_probs == 0).all()
    assert one.probabilities == pytest.approx(softmax(one.log_probs, axis=1))
    assert log_softmax(one.log_probs, axis=1).shape == (60, 4)
