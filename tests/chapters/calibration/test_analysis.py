"""What answers are worth, against closed forms and answers that are calibrated by
construction."""

import numpy as np
import pytest

from alignlab.calibration import expected_calibration_error
from alignlab.chapters.calibration import analysis
from alignlab.chapters.calibration.artifacts import EXPOSURES, Answers
from alignlab.evaluation.intervals import two_level_interval


def calibrated(n, scale=1.5, sharper=1.0, seed=0):
    """Options right with the probabilities of their logits, then made sharper."""
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(n, 4))
    right = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return Answers(
        sharper * logits,
        right,
        np.full(n, -1),
        np.ones(n),
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
    best = analysis.optimum(answers.log_probs, answers.probabilities, 0.3)
    result = analysis.optimal_answers(answers, 0.3)
    assert result.probabilities == pytest.approx(np.exp(best), abs=0.02)


@pytest.mark.parametrize("method", ["temperature, log loss", "temperature, Brier"])
def test_a_temperature_is_found_on_one_part_and_repairs_the_other(method):
    answers = calibrated(9_000, sharper=2.5)
    loss = "nll" if "log" in method else "brier"
    assert analysis.fitted_temperature(answers, loss) == pytest.approx(2.5, rel=0.06)
    before, after = (
        analysis.squared_error(analysis.mended(name, answers))
        for name in ("none", method)
    )
    assert before > 0.02 and after < 0.1 * before
    assert analysis.at_temperature(answers, 2.5).gap == pytest.approx(0, abs=0.02)


def test_items_can_have_a_temperature_each():
    answers = calibrated(5)
    each = analysis.at_temperature(answers, np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert each.log_probs[4] == pytest.approx(answers.log_probs[4] / 5)


def two_kinds(n=30_000, seed=0):
    """Facts read often, on which answers are calibrated, and facts never read, whose
    right options are drawn at random whatever the confidence."""
    answers = calibrated(n, scale=2.0, seed=seed)
    rng = np.random.default_rng(seed + 1)
    never = rng.random(n) < 0.5
    right = np.where(never, rng.integers(0, 4, n), answers.right)
    return answers._replace(right=right, exposure=np.where(never, 0, 400))


def test_one_temperature_mends_the_average_and_one_for_each_class_what_it_hides():
    answers = two_kinds()
    classes = analysis.strata(answers.where(answers.test))
    assert set(classes) == {0, len(EXPOSURES) - 1}
    pairs = {m: analysis.mended(m, answers) for m in analysis.REPAIRS}
    hidden = {m: analysis.grouping_loss(p, classes) for m, p in pairs.items()}
    assert hidden["isotonic"] > 0.02 and hidden["temperature, Brier"] > 0.02
    assert hidden["temperature by exposure"] < 0.1 * hidden["temperature, Brier"]
    assert abs(analysis.squared_error(pairs["isotonic"])) < 0.002
    temperatures = analysis.by_stratum(answers)
    assert temperatures[-2] == pytest.approx(1, abs=0.1) and temperatures[0] > 8
    with pytest.raises(ValueError, match="method is 'magic'; it can be one of"):
        analysis.mended("magic", answers)


def test_grouping_loss_by_hand_and_none_by_chance():
    rng = np.random.default_rng(0)
    n = 40_000
    groups = rng.integers(0, 2, n)
    confidence = np.full(n, 0.6)
    correct = (rng.random(n) < np.where(groups, 0.8, 0.4)).astype(int)
    # Half of the items 0.2 above the mean, half of them 0.2 below.
    assert analysis.grouping_loss((confidence, correct), groups) == pytest.approx(
        0.04, rel=0.05
    )
    small = [
        analysis.grouping_loss(
            (np.full(60, 0.6), (rng.random(60) < 0.6).astype(int)),
            rng.integers(0, 6, 60),
        )
        for _ in range(400)
    ]
    assert abs(np.mean(small)) < 0.1 * np.std(small)


def test_measures_of_calibrated_answers():
    answers = calibrated(9_000)
    result = analysis.measures(answers)
    p = answers.probabilities
    assert result["n"] == 9_000 and abs(result["squared"]) < 1e-3
    assert result["ece"] == pytest.approx(result["null"], abs=0.01)
    nll = -np.log(p[range(9_000), answers.right]).mean()
    assert result["nll"] == pytest.approx(nll)
    assert answers.gap == pytest.approx(result["confidence"] - result["accuracy"])


def test_the_contributions_of_facts_have_the_error_as_their_mean():
    answers = calibrated(4_000, sharper=3.0)
    each = analysis.squared_by_fact(answers)
    assert each.mean() == pytest.approx(analysis.squared_error(answers.top_label))
    twice = Answers(*(np.concatenate([column, column]) for column in answers))
    assert len(analysis.squared_by_fact(twice)) == 4_000
    pairs = [calibrated(4_000, sharper=s, seed=1) for s in (3.0, 1.0)]
    table = analysis.squared_table(pairs)
    assert table.shape == (2, 4_000) and table[0].mean() > table[1].mean() + 0.02


def test_their_spread_is_the_error_of_their_mean():
    """Over many samples of facts the mean varies as its contributions say."""
    for sharper in (1.0, 2.5):
        tables = [
            analysis.squared_by_fact(calibrated(600, sharper=sharper, seed=s))
            for s in range(150)
        ]
        error = np.mean([t.std(ddof=1) / np.sqrt(600) for t in tables])
        spread = np.std([t.mean() for t in tables], ddof=1)
        # Where nothing is wrong they are on the safe side.
        assert 0.85 * spread < error < (2.0 if sharper == 1.0 else 1.2) * spread


def test_the_variances_of_means_about_different_facts_add_up():
    rng = np.random.default_rng(0)
    first, second = rng.normal(1, 1, (5, 300)), rng.normal(0, 2, (5, 100))
    parts = [two_level_interval(t) for t in (first, second)]
    result = analysis.difference_of_tables(first, second)
    assert result.value == pytest.approx(first.mean() - second.mean())
    halves = [part.high - part.value for part in parts]
    assert result.high - result.value == pytest.approx(np.hypot(*halves))
    assert analysis.difference_of_tables(first[:1], second[:1]).high == np.inf


# --- Earnings -------------------------------------------------------------------------


def test_believing_a_calibrated_confidence_earns_as_much_as_hindsight():
    costs = [0.0, 1.0, 4.0]
    pair = calibrated(60_000).top_label
    believed = analysis.earnings(pair, costs)
    assert believed == pytest.approx(analysis.earnings(pair, costs, "best"), abs=0.01)
    sure = calibrated(60_000, sharper=4.0).top_label
    assert analysis.earnings(sure, costs)[2] < believed[2] - 0.1
    assert analysis.earnings(sure, costs)[0] == pytest.approx(sure[1].mean())


def test_earnings_by_hand():
    pair = np.array([0.9, 0.6, 0.7]), np.array([1, 0, 0])
    # At a cost of 2 the threshold is 2/3: right, then wrong.
    assert analysis.earnings(pair, [2.0]) == pytest.approx([(1 - 2) / 3])
    assert analysis.earnings(pair, [2.0], "best") == pytest.approx([1 / 3])
    assert analysis.earnings(pair, [2.0], "none") == pytest.approx([(1 - 4) / 3])
    with pytest.raises(ValueError, match="threshold is 'mine'"):
        analysis.earnings(pair, [1.0], "mine")


# --- Contested facts ------------------------------------------------------------------


def contested(n=20_000, sharper=1.0, seed=0):
    """Two stated answers among four options, said with their share, then sharper."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.05, 0.95, n)
    log_odds = sharper * np.log(share / (1 - share))
    log_probs = np.full((n, 4), -20.0)
    right, rival = rng.integers(0, 2, n), rng.integers(2, 4, n)
    log_probs[np.arange(n), right], log_probs[np.arange(n), rival] = log_odds, 0.0
    answers = calibrated(n)
    return answers._replace(log_probs=log_probs, right=right, rival=rival, share=share)


def test_of_contested_facts_the_known_shares_are_the_right_confidences():
    fair = analysis.between_two(contested())
    confidence, share = analysis.expected_top_label(fair)
    assert confidence == pytest.approx(share, abs=1e-6) and confidence.min() >= 0.5
    assert analysis.expected_gap(fair) == pytest.approx(0, abs=1e-6)
    probabilities, shares = analysis.both_answers(fair)
    assert probabilities == pytest.approx(shares, abs=1e-6)
    sure = analysis.between_two(contested(sharper=3.0))
    assert analysis.contested_temperature(sure) == pytest.approx(3.0, rel=0.01)
    assert analysis.expected_table([sure]).mean() > 0.02
    mended = analysis.at_temperature(sure, 3.0)
    assert abs(analysis.expected_table([mended]).mean()) < 1e-6


def test_the_optimum_on_contested_facts_is_that_of_the_belief_behind_the_policy():
    sure = analysis.between_two(contested(sharper=2.0))
    result = analysis.optimal_answers(sure, 0.5)
    share = sure.share
    log_odds = 2 * np.log(share / (1 - share)) + (2 * share - 1) / 0.5
    expected = 1 / (1 + np.exp(-log_odds))
    assert result.probabilities[:, 0] == pytest.approx(expected, abs=0.01)


def test_exposure_classes_cover_every_number_once():
    edges = list(EXPOSURES.values())
    assert edges[0][0] == 0 and edges[-1][1] == np.inf
    assert all(left[1] == right[0] for left, right in zip(edges, edges[1:]))
    answers = calibrated(400)
    parts = [analysis.with_exposure(answers, between) for between in edges]
    assert sum(len(part.right) for part in parts) == 400
    assert (parts[0].exposure == 0).all() and (parts[1].exposure == 1).all()
    for number, part in enumerate(parts):
        assert set(analysis.strata(part)) <= {number}
    answers.rival[:100] = 0
    assert (analysis.strata(answers)[:100] == len(edges)).all()


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
