"""The exercises of notebook 02 ask for what its analysis computes."""

import pytest

from alignlab.chapters.limits_of_imitation.analysis import area_under_roc, early_stop
from alignlab.chapters.limits_of_imitation.exercises import EXERCISES


def test_the_drop_is_what_the_analysis_finds():
    for case in EXERCISES["02.1"].cases():
        looks = [
            {"update": look, "known": {"right": row}}
            for look, row in enumerate(case.args["right"].tolist())
        ]
        found = early_stop(looks)
        assert [found["update"], found["drop"]] == pytest.approx(case.expected.tolist())


def test_the_area_is_what_the_analysis_finds():
    for case in EXERCISES["02.6"].cases():
        assert area_under_roc(*case.args.values()) == pytest.approx(
            float(case.expected)
        )
