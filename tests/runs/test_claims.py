"""A claims.yaml that could not be judged, or not fail, is refused when it is read."""

import json
from pathlib import Path

import pytest
import yaml

from alignlab.runs.claims import claims_as_json, claims_from_json, load_claims
from alignlab.runs.judging import SIGNS

FIXED = Path(__file__).with_name("fixed_thresholds.yaml")
ROOT = Path(__file__).parents[2]


def claim(*conditions, **changes):
    return {
        "claim": "c",
        "measured_as": "m",
        "control": "n",
        "reference": "r",
        "min_seeds": 3,
        "conditions": list(conditions),
        **changes,
    }


def condition(metric="gain", direction="above", threshold=0.1, **changes):
    entry = dict(metric=metric, direction=direction, threshold=threshold, why="x")
    return entry | changes


def test_every_field_is_read(demo_claim):
    effect, control = demo_claim.conditions
    assert (effect.null, effect.bounds, effect.control) == (0.0, (-1.0, 1.0), False)
    assert (control.null, control.control) == (None, True)
    assert control.breaks_if == "the twin gains as much"
    (former,) = demo_claim.former
    assert (former.id, former.verdict) == ("demo", "reproduced")
    assert demo_claim.chosen_by_looking == "five seeds"


def test_conditions_that_can_be_judged_are_accepted(write_claims):
    accepted = [
        condition("a", threshold=0.9),  # a level
        condition("b", "below", -0.1, null=0),
        condition("c", "above", 0.0, null=-0.1),
        # A control that has to show nothing.
        condition("d", "below", 0.1, null=0, control=True, breaks_if="it gains"),
    ]
    write_claims({"demo": claim(*accepted)})
    wants_null = [item.wants_null for item in load_claims()["demo"].conditions]
    assert wants_null == [False, False, False, True]


BREAKS = {"control": True, "breaks_if": "b"}


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"direction": "under"}, "'under'"),
        ({"threshold": 0.0}, "threshold 0 makes every effect count"),
        ({"threshold": 0.1, "null": 0.1}, "null and threshold are both 0.1"),
        ({"threshold": 0.0, "null": 0}, "null and threshold are both 0"),
        ({"threshold": -0.1, "null": 0}, "above -0.1 is no effect beside null 0"),
        ({"direction": "below", "null": 0}, "below 0.1 is no effect beside null 0"),
        ({"control": True}, "needs breaks_if"),
        ({"control": True, "breaks_if": " "}, "needs breaks_if"),
        ({**BREAKS, "threshold": 0.0}, "threshold 0 makes every effect count"),
        ({"threshold": 1, "bounds": [0, 1]}, "must lie within bounds"),
        ({"bound": [0, 1]}, "bound"),
    ],
)
def test_a_condition_that_cannot_be_judged_is_refused(write_claims, changes, said):
    write_claims({"demo": claim(condition(**changes))})
    with pytest.raises(ValueError, match=f"claims.yaml, demo.*{said}"):
        load_claims()


@pytest.mark.parametrize(
    "claims, said",
    [
        ({"a": claim(condition()), "b": claim(condition())}, "own metric"),
        ({"a": claim(condition(), clame="x")}, "claims.yaml, a: .*clame"),
        (
            {
                "a": claim(condition()),
                "a-2": claim(
                    condition("loss"),
                    former=[{"id": "a", "verdict": "reproduced", "why": "w"}],
                ),
            },
            "a-2 replaces a, which is still there",
        ),
    ],
)
def test_claims_that_do_not_fit_together_are_refused(write_claims, claims, said):
    write_claims(claims)
    with pytest.raises(ValueError, match=said):
        load_claims()


def test_a_control_needs_what_would_break_it(write_claims):
    write_claims({"demo": claim(condition(control=True))})
    with pytest.raises(ValueError, match="needs breaks_if"):
        load_claims()


def test_every_claim_says_what_it_is_about():
    for item in load_claims().values():
        assert item.min_seeds >= 3
        assert all([item.claim, item.measured_as, item.control, item.reference])
        assert all(former.verdict in SIGNS and former.why for former in item.former)


def test_the_fixed_thresholds_have_not_moved():
    """A threshold is fixed before measuring. To change one, give the claim a new id."""
    written = {
        item.id: {
            f"{c.metric} {c.direction}": [c.threshold, c.null] for c in item.conditions
        }
        for item in load_claims().values()
    }
    assert written == yaml.safe_load(FIXED.read_text(encoding="utf-8"))


def test_the_page_on_real_models_has_what_each_claim_has_to_know():
    page = (ROOT / "docs" / "real_models.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for item in load_claims().values():
        named = [row for row in rows if f"`{item.id}`" in row]
        if item.needs_known_pretraining:
            reason = " ".join(item.needs_known_pretraining.split())
            assert len(named) == 1 and reason in named[0]
        else:
            assert not named


def test_claims_come_back_from_what_a_run_keeps_of_them(demo_claim):
    kept = json.loads(json.dumps(claims_as_json("00")))
    assert claims_from_json(kept) == {"demo-2": demo_claim}
    assert claims_as_json("01") == {}
