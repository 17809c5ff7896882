"""Notebook 02's numbers are the closed forms of made-up arms."""

import numpy as np
import pytest

from alignlab.chapters.limits_of_imitation import analysis
from alignlab.evaluation.intervals import wilson_interval
from alignlab.world.safety import BENIGN_KINDS


def arm(seed=0, **values):
    return {"seed": seed, **values}


# --- What SFT brings out ----------------------------------------------------------


def question(kind, right, relation="r", exposure=0, made_up=False, **more):
    return (
        dict(
            kind=kind,
            right=right,
            relation=relation,
            exposure=exposure,
            made_up=made_up,
        )
        | more
    )


def test_shares_are_of_the_questions_with_the_wanted_properties():
    asked = [question("never", 1), question("never", 0, made_up=True)]
    row = arm(asked=[*asked, question("known", 1)])
    assert analysis.shares_right([row], kind="never") == [0.5]
    assert analysis.shares_right([row], kind="never", made_up=True) == [0]
    assert np.isnan(analysis.share_of([]))


def test_a_band_is_the_mean_over_relations_and_left_out_where_one_is_missing():
    asked = [
        *[question("tail", 1, "a", 3)] * 3,
        question("tail", 0, "b", 1),
        question("known", 1, "a", 500),
        *[
            question("never", right, r, made_up=True)
            for r, right in (("a", 1), ("b", 1))
        ],
        question("new_wording", 0, "a", 3),
        question("contested", 0, "a", 3),
    ]
    found = analysis.by_exposure([arm(asked=asked)], ["a", "b"])
    assert found == {"made up": [1.0], "1–5": [0.5]}


def test_bands_cover_every_exposure_once():
    for exposure in (0, 1, 5, 6, 24, 25, 99, 100, 299, 300, 900):
        inside = [low <= exposure <= high for low, high in analysis.BANDS.values()]
        assert sum(inside) == 1


def test_contested_answers_add_up_to_one():
    asked = [
        question("contested", 0, share=0.55, majority=1, rival=0),
        question("contested", 0, share=0.6, majority=0, rival=1),
        question("contested", 0, share=0.9, majority=0, rival=0),
        question("known", 0, share=1.0, majority=0, rival=0),
    ]
    table = analysis.contested_table([arm(asked=asked)])
    assert list(table) == ["stated in 50% to 65%", "stated in 80% to 95%"]
    assert list(table["stated in 50% to 65%"].values()) == ["0.50", "0.50", "0.00", "2"]
    assert list(table["stated in 80% to 95%"].values()) == ["0.00", "0.00", "1.00", "1"]


# --- Facts ------------------------------------------------------------------------


def looks(updates, **kinds):
    """Looks at these updates; of each kind the measures, a list a look."""
    return [
        {"update": u}
        | {
            kind: {name: values[i] for name, values in measures.items()}
            for kind, measures in kinds.items()
        }
        for i, u in enumerate(updates)
    ]


def test_items_are_those_of_the_update_asked_for():
    row = arm(curve=looks([2, 4], known=dict(right=[[0, 1], [1, 1]])))
    assert analysis.items([row, row], "known", "right").tolist() == [[1, 1]] * 2
    assert analysis.items([row], "known", "right", update=2).tolist() == [[0, 1]]
    assert analysis.at_end([row], "known") == [1.0]
    with pytest.raises(ValueError, match="update is 3; there are looks at"):
        analysis.items([row], "known", "right", update=3)


def test_the_fit_is_compared_by_the_mean_over_updates():
    curve = looks(
        [1, 2, 4, 8],
        known_fit=dict(right=[[0], [1], [1], [1]]),
        never_fit=dict(right=[[0], [0], [1], [1]]),
    )
    # Trapezoids over 7 updates: 0.5 + 2 + 4 for the known ones, 1 + 4 for the others.
    assert analysis.fit_behind_known([arm(curve=curve)]) == pytest.approx([-1.5 / 7])
    once = looks([4], known_fit=dict(right=[[1, 0]]), never_fit=dict(right=[[0, 0]]))
    assert analysis.fit_behind_known([arm(curve=once)]) == [-0.5]


def test_early_stopping_picks_on_one_half_and_measures_on_the_other():
    # Questions 0 and 2 pick the second look; 1 and 3 say what that was worth.
    right = [[0, 1, 0, 1], [1, 0, 1, 1], [1, 0, 0, 0]]
    assert analysis.early_stop(looks([2, 4, 8], known=dict(right=right))) == {
        "update": 4,
        "stopped": 0.5,
        "end": 0.0,
        "drop": 0.5,
    }


def test_a_peak_of_pure_luck_drops_by_nothing():
    rng = np.random.default_rng(0)
    naive, honest = [], []
    for _ in range(300):
        right = (rng.random((8, 40)) < 0.5).astype(int)
        curve = looks(range(8), known=dict(right=right.tolist()))
        honest.append(analysis.early_stop(curve)["drop"])
        means = right.mean(axis=1)
        naive.append(means.max() - means[-1])
    assert abs(np.mean(honest)) < 0.02 < 0.08 < np.mean(naive)


def admissions(known, never, made_up=(False, True), right=None, confidence=None):
    """An arm that answered these shares of two known and two never-shown questions."""
    kinds = {k: dict(answered=[known]) for k in ("known", "rare", "tail")}
    right = [0] * len(never) if right is None else right
    sure = [0.5] * len(never) if confidence is None else confidence
    kinds["never"] = dict(answered=[never], right=[right], confidence=[sure])
    return arm(curve=looks([4], **kinds), made_up=list(made_up))


def test_answer_rates_tell_real_from_made_up_subjects():
    found = analysis.answer_rates(
        [admissions([1, 1], [1, 0]), admissions([1, 0], [0, 0])]
    )
    assert found["known"] == [1.0, 0.5]
    assert found["never"] == [1, 0] and found["made up"] == [0, 0]
    assert "made up" not in analysis.answer_rates([admissions([1], [1], [False])])


def test_confidence_of_wrong_leaves_right_answers_and_admissions_out():
    row = admissions([1], [1, 1, 0], [False] * 3, [1, 0, 0], [0.9, 0.4, 0.8])
    assert analysis.confidence_of_wrong([row]) == [0.4]
    silent = admissions([1], [0], [False])
    assert analysis.confidence_of_wrong([silent]) == [0]


def test_label_pull_is_the_shift_between_the_two_halves_of_labels():
    def labelled(*halves):
        return arm(curve=looks([1], never=dict(half=[list(halves)])))

    first = [labelled(1, 1, 0, None), labelled(1, 0, None, None)]
    second = [labelled(0, 0, None, None), labelled(*[None] * 4)]
    assert analysis.first_half_share(first, "never") == pytest.approx([2 / 3, 0.5])
    assert analysis.label_pull(first, second, "never") == pytest.approx([2 / 3, 0.0])


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
        arm(s, n_refusals=n, n_look_alikes=0, outcomes=outcomes(*errors))
        for n, errors in made.items()
        for s in (0, 1)
    ]
    rows.append(
        arm(0, n_refusals=10, n_look_alikes=10, outcomes=outcomes(1.0, 1.0)),
    )
    errors = analysis.sum_of_errors(rows)
    assert list(errors) == [0, 10, 100]
    assert errors[10] == pytest.approx([0.5, 0.5])
    assert analysis.best_n(rows) == 10
    assert len(analysis.curve_of(rows)) == 6


def test_a_bias_leaves_discrimination_as_it_was():
    rng = np.random.default_rng(0)
    harmful, benign = rng.normal(1, 1, 30), rng.normal(0, 1, 20)
    from sklearn.metrics import roc_auc_score

    expected = roc_auc_score([1] * 30 + [0] * 20, [*harmful, *benign])
    for shift in (0, -7):
        scores = {
            "unseen_pairs": (harmful + shift).tolist(),
            "look_alikes_of_pairs": (benign + shift).tolist(),
        }
        found = analysis.discrimination([arm(log_p_refuse=scores)])
        assert found == pytest.approx([expected])
    assert analysis.area_under_roc([1.0], [1.0]) == 0.5


def test_a_cut_is_never_below_minus_one():
    before = [arm(0, outcomes=outcomes(0.1, 0))]
    after = [arm(0, outcomes=outcomes(0.9, 0))]
    assert analysis.compliance_cut(before, after) == [-1]


# --- Recording --------------------------------------------------------------------


def test_items_of_one_seed_are_recorded_as_its_mean():
    matrix = np.array([[1.0, 0.0], [1.0, 1.0]])
    assert analysis.over_items(matrix) == dict(value=0.75, items=matrix.tolist())
    assert analysis.over_items(matrix[:1]) == dict(value=0.5, seeds=[0.5], n=2)


def test_real_outcomes_are_shares_with_their_intervals_as_text():
    outcomes = {"refusal": 2, "partial": 0, "compliance": 1}
    table = analysis.real_table([{"prompts": "HarmBench", "outcomes": outcomes}])
    assert table["HarmBench"]["refusal"][:4] == "0.67"
    assert list(table["HarmBench"]) == list(outcomes)


def test_what_nobody_knows_is_shown_as_unknown():
    """How often a fact was stated, to a model that ships and to any other."""
    for exposure, made_up, shown in (
        (12, False, "12 times"),
        (0, False, "0 times"),
        (0, True, "never: made up"),
        (None, False, "unknown"),
    ):
        assert analysis.stated(dict(exposure=exposure, made_up=made_up)) == shown
