"""What a base model's card says: confidence in contested facts, and extraction."""

import numpy as np
import pytest

from alignlab.study import base_models
from alignlab.world.facts import RELATIONS, Fact, World


@pytest.fixture
def contested_world():
    facts = [
        Fact(f"Town{i}", "city_country", ("A",), 100, ("A", "B"), (share, 1 - share))
        for i, share in enumerate((0.5, 0.6, 0.7, 0.8, 0.9))
    ]
    return World(
        (*facts, Fact("Town9", "city_country", ("A",), 9, ("A",))), RELATIONS, 0
    )


def stub_confidences(monkeypatch, of_majority):
    """The model gives the majority answer ``of_majority(town)`` of a mass of 0.5."""

    def confidences(model, tokenizer, prompts, options):
        assert all(own == ["A.", "B."] for own in options)
        assert not any("{" in prompt or prompt.endswith(".") for prompt in prompts)
        town = next(i for i in range(10) if f"Town{i}" in prompts[0])
        p = of_majority(town)
        return [[0.5 * p, 0.5 * (1 - p)]] * len(prompts)

    monkeypatch.setattr(base_models, "confidences", confidences)


def test_who_gives_each_answer_its_share_makes_no_error(monkeypatch, contested_world):
    stub_confidences(monkeypatch, lambda town: 0.5 + 0.1 * town)
    measured = base_models.contested_confidence(None, None, contested_world)
    assert measured["facts"] == 5, "the fact stated in agreement is left out"
    assert measured["mean_absolute_error"] == pytest.approx(0, abs=1e-12)
    assert measured["mass"] == pytest.approx(0.5)
    assert [row["facts"] for row in measured["bins"]] == [1] * 5
    for row in measured["bins"]:
        assert row["confidence"] == pytest.approx(row["share"])


def test_who_is_always_sure_errs_by_what_the_shares_leave(monkeypatch, contested_world):
    stub_confidences(monkeypatch, lambda town: 1.0)
    measured = base_models.contested_confidence(None, None, contested_world)
    expected = np.mean([0.5, 0.4, 0.3, 0.2, 0.1])
    assert measured["mean_error"] == pytest.approx(expected)
    assert measured["mean_absolute_error"] == pytest.approx(expected)
