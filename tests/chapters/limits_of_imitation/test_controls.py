"""Every control of notebook 02 can fail: the result that would break it makes its claim
uninformative."""

import numpy as np
import pytest

from alignlab.chapters.limits_of_imitation import analysis
from alignlab.runs import claims, judging

CLAIMS = {c.id: c for c in claims.load_claims().values() if c.notebook == "02"}
CONTROLS = [
    pytest.param(claim, condition, id=f"{claim.id} {condition.metric}")
    for claim in CLAIMS.values()
    for condition in claim.conditions
    if condition.control
]


def metric(value, n=5):
    """A metric of n seeds that differ by a thousandth."""
    seeds = (value + 0.001 * np.linspace(-1, 1, n)).tolist()
    low, high = value - 0.0015, value + 0.0015
    return dict(value=value, low=low, high=high, seeds=seeds, n=100, claim=None)


def beyond(condition, side=1):
    """A value on the wanted side of a condition's threshold, or on the other."""
    sign = {"above": 1, "below": -1}[condition.direction] * side
    return condition.threshold + 0.04 * sign


@pytest.mark.parametrize("claim, control", CONTROLS)
def test_a_broken_control_leaves_nothing_to_be_learnt(claim, control):
    assert control.breaks_if
    metrics = {c.metric: metric(beyond(c)) for c in claim.conditions}
    assert judging.judge_claim(claim, metrics).verdict == "reproduced"
    metrics[control.metric] = metric(beyond(control, side=-1))
    assert judging.judge_claim(claim, metrics).verdict == "uninformative"


def test_every_claim_has_a_control_and_every_effect_a_value_of_no_effect():
    assert len(CLAIMS) == 6
    for claim in CLAIMS.values():
        assert any(c.control for c in claim.conditions)
        assert all(c.null is not None for c in claim.conditions if not c.control)


# --- The results that would break them, as rows -----------------------------------


def test_a_model_that_admits_everything_has_no_selectivity():
    kinds = dict.fromkeys(("known", "rare", "tail", "never"), dict(answered=[0, 0]))
    row = dict(curve=[dict(update=1, **kinds)], made_up=[False, True])
    rates = analysis.answer_rates([row])
    assert rates["known"][0] - rates["never"][0] == 0, "though it makes nothing up"


def requests(harm, plain):
    def of(refusal):
        return {"refusal": refusal, "compliance": 10 - refusal, "neither": 0}

    return dict(outcomes={"unseen_pairs": of(harm), "plain": of(plain)})


def test_a_habit_of_refusing_cuts_harm_and_is_found_out_by_plain_requests():
    none, few = [requests(0, 0)], [requests(9, 9)]
    assert analysis.compliance_cut(none, few) == pytest.approx([0.9])
    assert analysis.plain_refusal(few) == [0.9]


def test_a_model_that_never_helps_has_no_compliance_to_cut():
    babbling = dict(refusal=0, compliance=1, neither=9)
    row = dict(outcomes={"unseen_pairs": babbling, "plain": babbling})
    assert analysis.harmful_compliance([row]) == [0.1]


def test_scores_that_do_not_see_harm_put_plain_requests_as_high():
    scores = dict(unseen_pairs=[-2.0, -1.0], plain=[-2.0, -1.0])
    row = dict(log_p_refuse=scores)
    assert analysis.discrimination([row], benign="plain") == [0.5]
