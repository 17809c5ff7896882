"""Recalibration of answers whose true calibration is known by construction."""

import numpy as np
import pytest

from alignlab.calibration import top_label
from alignlab.chapters.calibration.analysis import Said
from alignlab.chapters.recalibration import analysis as recalibration

RELATIONS = np.array(["capital", "symbol", "plural", "opposite"])


def sharpened(n=6_000, sharper=2.5, seed=0):
    """Options right with the probabilities of their logits, then made sharper."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(n, 4))
    right = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return Said(
        sharper * logits,
        right,
        rng.integers(0, 500, n),
        np.arange(n),
        np.arange(n) % 2 == 0,
        RELATIONS[np.arange(n) // 2 % 4],
    )


@pytest.mark.parametrize("method", recalibration.METHODS)
def test_every_method_repairs_what_a_temperature_did(method):
    one = sharpened()
    found = recalibration.every_method(one)
    assert found["none"]["squared"] > 0.02
    assert abs(found[method]["squared"]) < 0.1 * found["none"]["squared"]
    assert found[method]["brier"] < found["none"]["brier"]
    assert found[method]["nll"] < found["none"]["nll"]


@pytest.mark.parametrize("method", ["temperature", "Platt", "beta", "isotonic"])
def test_answers_stay_as_they_were(method):
    one = sharpened(2_000)
    found = recalibration.every_method(one)
    assert found[method]["accuracy"] == found["none"]["accuracy"]


def test_gaps_by_exposure_are_those_of_the_items_in_each_class():
    one = sharpened(4_000)
    one = one._replace(exposure=np.where(one.exposure < 250, 0, 400))
    found = recalibration.gaps_by_exposure("none", one)
    confidence, correct = one.where(one.test).answers
    never = one.where(one.test).exposure == 0
    assert found[0] == pytest.approx((confidence - correct)[never].mean())
    assert found[-1] == pytest.approx((confidence - correct)[~never].mean())
    assert np.isnan(found[1:-1]).all()  # no item there
    repaired = recalibration.gaps_by_exposure("temperature", one)
    assert abs(repaired[0]) < 0.05 < found[0]


def test_an_unknown_method_is_an_error():
    one = sharpened(100)
    with pytest.raises(ValueError, match="method is 'magic'; it can be one of"):
        recalibration.recalibrated("magic", one, one)


def test_shuffled_answers_repair_nothing():
    one = sharpened(4_000)
    judged = one.where(one.test)
    wrong = recalibration.shuffled(one.where(~one.test), seed=0)
    assert sorted(wrong.right) == sorted(one.where(~one.test).right)
    answers = recalibration.recalibrated("temperature", wrong, judged)
    left = recalibration.proper(answers)["squared"]
    before = recalibration.proper(judged.answers)["squared"]
    assert recalibration.repaired_share(before, left) < 0.5


def test_little_data_is_dearer_for_a_staircase_than_for_one_number():
    rows = recalibration.by_size(
        sharpened(3_000), (30, 0), ("temperature", "isotonic"), draws=20
    )
    brier = {(row["method"], row["n"]): row["brier"] for row in rows}
    assert brier["isotonic", 30] > brier["temperature", 30] + 0.005
    assert brier["isotonic", 1500] < brier["isotonic", 30]
    assert brier["isotonic", 1500] == pytest.approx(
        brier["temperature", 1500], abs=0.003
    )


def test_halves_of_the_relations_share_none():
    one = sharpened(80)
    first, second = recalibration.halves(one, seed=1)
    assert (first ^ second).all()
    assert len(set(one.relation[first])) == len(set(one.relation[second])) == 2


def test_one_sharpness_for_all_relations_carries_over():
    assert recalibration.transfer_share(sharpened(), seed=0) > 0.9


def test_transfer_has_none_first_and_then_each_temperature():
    sharp, fair = sharpened(4_000), sharpened(4_000, sharper=1.0, seed=1)
    table = recalibration.transfer({"sharp": sharp}, {"sharp": sharp, "fair": fair})
    assert table.shape == (2, 2)
    assert table[0, 0] > 0.02 > abs(table[0, 1])
    assert abs(table[1, 0]) < 0.005 < table[1, 1]  # too much for the calibrated one


def test_members_that_agree_are_as_good_as_one():
    one = sharpened(500)
    same = np.stack([one.probabilities] * 3)
    rows = recalibration.by_members(same, one)
    assert [row["members"] for row in rows] == [1, 2, 3]
    assert rows[2]["nll"] == pytest.approx(rows[0]["nll"])
    p = one.probabilities[range(500), one.right]
    assert rows[0]["nll"] == pytest.approx(-np.log(p).mean())


def test_members_that_err_apart_are_better_together():
    fair = sharpened(2_000, sharper=1.0)
    rng = np.random.default_rng(3)
    noisy = np.stack(
        [
            fair._replace(
                log_probs=fair.log_probs + 2 * rng.normal(size=(2_000, 4))
            ).probabilities
            for _ in range(5)
        ]
    )
    rows = recalibration.by_members(noisy, fair)
    assert rows[4]["nll"] < rows[0]["nll"] - 0.1
    assert rows[4]["squared"] < rows[0]["squared"]


def test_scores_of_answers_by_hand():
    answers = np.array([0.9, 0.8, 0.6, 0.5]), np.array([1, 1, 0, 1])
    found = recalibration.scores(answers)
    assert found["accuracy"] == 0.75
    assert found["brier"] == pytest.approx((0.01 + 0.04 + 0.36 + 0.25) / 4)
    assert found["auroc"] == pytest.approx(2 / 3)
    assert found["aurc"] == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)
    p, right = sharpened(50).probabilities, sharpened(50).right
    assert recalibration.recalibrated("none", None, sharpened(50))[0] == pytest.approx(
        top_label(p, right)[0]
    )
