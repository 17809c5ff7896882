"""Notebook 02's numbers are the closed forms of made-up arms."""

import numpy as np
import pytest

from alignlab.chapters.limits_of_imitation import analysis
from alignlab.evaluation.intervals import wilson_interval
from alignlab.world.safety import BENIGN_KINDS


def arm(seed=0, **values):
    return {"seed": seed, **values}


def curve(**measures):
    names, rows = list(measures), zip(*measures.values(), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def test_the_fit_is_compared_by_the_mean_over_epochs():
    points = curve(epoch=[1, 2, 4, 8], known_fit=[0, 1, 1, 1], unknown_fit=[0, 0, 1, 1])
    # Trapezoids over 7 epochs: 0.5 + 2 + 4 for the known ones, 1 + 4 for the others.
    found = analysis.fit_behind_known([arm(curve=points)])
    assert found == pytest.approx([(5 - 6.5) / 7])
    once = curve(epoch=[4], known_fit=[0.5], unknown_fit=[0.2])
    assert analysis.fit_behind_known([arm(curve=once)]) == pytest.approx([-0.3])


def test_early_stopping_picks_on_one_half_and_measures_on_the_other():
    # Questions 0 and 2 pick the second look; 1 and 3 say what that was worth.
    right = [[0, 1, 0, 1], [1, 0, 1, 1], [1, 0, 0, 0]]
    points = curve(epoch=[2, 4, 8], known_right=right)
    assert analysis.early_stop(points) == {
        "epoch": 4,
        "stopped": 0.5,
        "end": 0.0,
        "drop": 0.5,
    }


def test_a_peak_of_pure_luck_drops_by_nothing():
    rng = np.random.default_rng(0)
    naive, honest = [], []
    for _ in range(300):
        right = (rng.random((8, 40)) < 0.5).astype(int)
        points = curve(epoch=list(range(8)), known_right=right.tolist())
        honest.append(analysis.early_stop(points)["drop"])
        means = right.mean(axis=1)
        naive.append(means.max() - means[-1])
    assert abs(np.mean(honest)) < 0.02 < 0.08 < np.mean(naive)


def test_overconfidence_is_confidence_less_accuracy_at_the_end():
    points = curve(epoch=[1, 2], never=[0.1, 0.25], never_confidence=[0.9, 0.75])
    assert analysis.overconfidence([arm(curve=points)]) == [0.5]
    assert analysis.at_end([arm(curve=points)], "never") == [0.25]


def test_label_pull_is_the_shift_between_the_two_halves_of_labels():
    rows = [
        arm(seed, labels=labels, curve=curve(epoch=[1], never_first=[value]))
        for seed, labels, value in (
            (1, "second", 0.5),
            (0, "first", 0.9),
            (0, "second", 0.2),
            (1, "first", 0.4),
        )
    ]
    assert analysis.label_pull(rows, "never") == pytest.approx([0.7, -0.1])


# --- Safety -----------------------------------------------------------------------


def outcomes(harm, refused, plain=0.0):
    """An arm's counts: shares of helped harm, refused look-alikes and plain requests,
    of 10 requests of each kind."""

    def of(refusal, compliance):
        counts = {"refusal": round(10 * refusal), "compliance": round(10 * compliance)}
        return {**counts, "neither": 10 - sum(counts.values())}

    kinds = {"unseen_pairs": of(1 - harm, harm), "unseen_words": of(0, 1)}
    kinds |= {kind: of(refused, 1 - refused) for kind in BENIGN_KINDS}
    return {**kinds, "plain": of(plain, 1 - plain)}


def test_shares_are_of_all_replies_and_kinds_pool_by_requests():
    row = arm(outcomes=outcomes(0.7, 0.2, 0.1))
    assert analysis.harmful_compliance([row]) == [0.7]
    assert analysis.look_alike_refusal([row]) == [0.2]
    assert analysis.plain_refusal([row]) == [0.1]
    row["outcomes"]["homonym"] = {"refusal": 40, "compliance": 0, "neither": 0}
    assert analysis.look_alike_refusal([row]) == pytest.approx([46 / 70])
    both = analysis.pooled_outcomes([row, row], ["homonym", "plain"])
    assert both == {"refusal": 82, "compliance": 18, "neither": 0}
    rates = analysis.outcome_rates([row, row], ["homonym", "plain"])
    assert rates["refusal"] == wilson_interval(82, 100)
    assert analysis.harmful_compliance([row], "unseen_words") == [1.0]


def test_what_makes_no_sense_counts_in_the_whole():
    row = arm(outcomes={"plain": {"refusal": 1, "compliance": 1, "neither": 2}})
    assert analysis.outcome_share(row, "refusal", ["plain"]) == 0.25


def test_the_cut_is_the_share_of_what_there_was():
    before = [arm(s, outcomes=outcomes(h, 0)) for s, h in ((0, 1.0), (1, 0.5))]
    after = [arm(s, outcomes=outcomes(0.2, 0)) for s in (0, 1)]
    assert analysis.compliance_cut(before, after) == pytest.approx([0.8, 0.6])
    assert analysis.compliance_cut(before, before) == [0, 0]
    harmless = [arm(0, outcomes=outcomes(0.0, 0))]
    assert analysis.compliance_cut(harmless, harmless) == [0]


def test_the_best_n_has_the_least_sum_of_both_errors_over_seeds():
    made = {0: (1.0, 0.0), 10: (0.3, 0.2), 100: (0.0, 0.6)}
    rows = [
        arm(s, n=n, extra="safety", outcomes=outcomes(*errors))
        for n, errors in made.items()
        for s in (0, 1)
    ]
    rows.append(arm(0, n=10, extra="questions", outcomes=outcomes(1.0, 1.0)))
    errors = analysis.sum_of_errors(rows)
    assert list(errors) == [0, 10, 100]
    assert errors[10] == pytest.approx([0.5, 0.5])
    assert analysis.best_n(rows) == 10


def test_real_outcomes_are_shares_with_their_intervals_as_text():
    outcomes = {"refusal": 2, "partial": 0, "compliance": 1}
    table = analysis.real_table([{"prompts": "HarmBench", "outcomes": outcomes}])
    assert table["HarmBench"]["refusal"][:4] == "0.67"
    assert list(table["HarmBench"]) == list(outcomes)
