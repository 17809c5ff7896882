"""Recalibration of answers whose true calibration is known by construction."""

import numpy as np
import pytest

from alignlab.calibration import top_label
from alignlab.chapters.calibration.artifacts import Answers
from alignlab.chapters.recalibration import analysis

RELATIONS = np.array(["capital", "symbol", "plural", "opposite"])


def sharpened(n=6_000, sharper=2.5, seed=0):
    """Options right with the probabilities of their logits, then made sharper."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(n, 4))
    right = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return Answers(
        sharper * logits,
        right,
        np.full(n, -1),
        np.ones(n),
        rng.integers(0, 500, n),
        np.arange(n),
        np.arange(n) % 2 == 0,
        RELATIONS[np.arange(n) // 2 % 4],
    )


@pytest.mark.parametrize("method", analysis.METHODS)
def test_every_method_repairs_what_a_temperature_did(method):
    answers = sharpened()
    result = analysis.every_method(answers)
    assert result["none"]["squared"] > 0.02
    assert abs(result[method]["squared"]) < 0.1 * result["none"]["squared"]
    assert result[method]["brier"] < result["none"]["brier"]
    assert result[method]["nll"] < result["none"]["nll"]


@pytest.mark.parametrize("method", ["temperature", "Platt", "beta", "isotonic"])
def test_answers_stay_as_they_were(method):
    answers = sharpened(2_000)
    result = analysis.every_method(answers)
    assert result[method]["accuracy"] == result["none"]["accuracy"]


def test_gaps_by_exposure_are_those_of_the_items_in_each_class():
    answers = sharpened(4_000)
    answers = answers._replace(exposure=np.where(answers.exposure < 250, 0, 400))
    result = analysis.gaps_by_exposure("none", answers)
    confidence, correct = answers.where(answers.test).top_label
    never = answers.where(answers.test).exposure == 0
    assert result[0] == pytest.approx((confidence - correct)[never].mean())
    assert result[-1] == pytest.approx((confidence - correct)[~never].mean())
    assert np.isnan(result[1:-1]).all()  # no item there
    repaired = analysis.gaps_by_exposure("temperature", answers)
    assert abs(repaired[0]) < 0.05 < result[0]


def test_an_unknown_method_is_an_error():
    answers = sharpened(100)
    with pytest.raises(ValueError, match="method is 'magic'; it can be one of"):
        analysis.recalibrated("magic", answers, answers)


def test_shuffled_answers_repair_nothing():
    answers = sharpened(4_000)
    judged = answers.where(answers.test)
    wrong = analysis.shuffled(answers.where(~answers.test), seed=0)
    assert sorted(wrong.right) == sorted(answers.where(~answers.test).right)
    pair = analysis.recalibrated("temperature", wrong, judged)
    left = analysis.proper_scores(pair)["squared"]
    before = analysis.proper_scores(judged.top_label)["squared"]
    assert left > 0.5 * before


def test_little_data_is_dearer_for_a_staircase_than_for_one_number():
    rows = analysis.by_size(
        sharpened(3_000), (30, 0), ("temperature", "isotonic"), draws=20
    )
    brier = {(row["method"], row["n"]): row["brier"] for row in rows}
    assert brier["isotonic", 30] > brier["temperature", 30] + 0.005
    assert brier["isotonic", 1500] < brier["isotonic", 30]
    assert brier["isotonic", 1500] == pytest.approx(
        brier["temperature", 1500], abs=0.003
    )


def test_halves_of_the_relations_share_none():
    answers = sharpened(80)
    first, second = analysis.halves(answers, seed=1)
    assert (first ^ second).all()
    assert len(set(answers.relation[first])) == len(set(answers.relation[second])) == 2


def test_one_sharpness_for_all_relations_carries_over():
    answers = sharpened()
    test = answers.where(answers.test)
    pair = analysis.transferred(answers, seed=0)
    before, after = (analysis.scores(p)["squared"] for p in (test.top_label, pair))
    assert before > 0.02 and after < 0.1 * before
    assert (pair[1] == test.top_label[1]).all()


def test_what_one_half_of_the_relations_needs_is_not_what_the_other_does():
    """Items of some relations sharpened, the others not: each half gets the
    temperature of the other, and both are off."""
    answers = sharpened(sharper=1.0)
    first, _ = analysis.halves(answers, seed=0)
    log_probs = np.where(first[:, None], 3.0, 1.0) * answers.log_probs
    answers = answers._replace(log_probs=log_probs)
    own = analysis.recalibrated("temperature", *analysis.fitting_and_test(answers))
    pair = analysis.transferred(answers, seed=0)
    assert analysis.scores(pair)["squared"] > analysis.scores(own)["squared"] + 0.01


def test_tables_have_the_scores_as_their_means_fact_by_fact():
    answers = sharpened(1_000)
    twice = Answers(*(np.concatenate([column, column]) for column in answers))
    test = twice.where(twice.test)
    table = analysis.tables([test, test], [test.top_label, test.top_label])
    scores = analysis.scores(test.top_label)
    for name in ("squared", "brier", "nll", "accuracy"):
        assert table[name].shape == (2, 500)
        assert table[name].mean() == pytest.approx(scores[name]), name


def test_few_items_are_most_of_the_log_loss_and_less_of_the_brier_score():
    answers = sharpened(1_000, sharper=4.0)
    result = analysis.shares_of_worst_tenth(answers)
    nll = -np.log(answers.probabilities[range(1_000), answers.right])
    assert result["dragged"] == pytest.approx(np.sort(nll)[-100:].sum() / nll.sum())
    assert 0.1 < result["brier_share"] < result["dragged"] < 1


def test_transfer_has_none_first_and_then_each_temperature():
    sharp, fair = sharpened(4_000), sharpened(4_000, sharper=1.0, seed=1)
    table = analysis.transfer({"sharp": sharp}, {"sharp": sharp, "fair": fair})
    assert table.shape == (2, 2)
    assert table[0, 0] > 0.02 > abs(table[0, 1])
    assert abs(table[1, 0]) < 0.005 < table[1, 1]  # too much for the calibrated one


def test_scores_of_answers_by_hand():
    pair = np.array([0.9, 0.8, 0.6, 0.5]), np.array([1, 1, 0, 1])
    result = analysis.scores(pair)
    assert result["accuracy"] == 0.75
    assert result["brier"] == pytest.approx((0.01 + 0.04 + 0.36 + 0.25) / 4)
    assert result["auroc"] == pytest.approx(2 / 3)
    assert result["aurc"] == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)
    assert analysis.scores((pair[0], np.ones(4)))["auroc"] == 0.5
    p, right = sharpened(50).probabilities, sharpened(50).right
    assert analysis.recalibrated("none", None, sharpened(50))[0] == pytest.approx(
        top_label(p, right)[0]
    )
