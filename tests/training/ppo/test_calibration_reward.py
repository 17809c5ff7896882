"""The reward for calibrated confidence, against exact values and enumerations."""

import math

import numpy as np
import pytest

from alignlab.errors import AlignlabError
from alignlab.ppo import calibration_reward
from alignlab.training.ppo.calibration_reward import stated_answer
from tests.training.ppo.helpers import CHAT, make_and_train

GRID = np.arange(101) / 100


def rewards(weight, completions=None, answers=("Paris",), **options):
    reward = calibration_reward("answer", weight=weight, **options)
    texts = completions or ["Paris. Confidence: 80%", "Rome. Confidence: 80%"]
    return reward([""] * len(texts), texts, answer=list(answers) * len(texts))


def test_the_reward_is_right_less_the_brier_score():
    assert rewards(1.0) == pytest.approx([1 - 0.2**2, 0 - 0.8**2])
    assert rewards(0.25) == pytest.approx([1 - 0.01, -0.16])
    assert rewards(0.0) == [1.0, 0.0]


def test_no_confidence_counts_as_the_worst():
    assert rewards(0.5, ["Paris.", "Rome."]) == [0.5, -0.5]
    worst = rewards(0.5, ["Paris. Confidence: 0%", "Rome. Confidence: 100%"])
    assert worst == [0.5, -0.5]


@pytest.mark.parametrize("weight", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("p", [0.0, 0.03, 0.5, 0.77, 1.0])
def test_the_honest_confidence_is_the_best_one(weight, p):
    texts = [f"{a}. Confidence: {c:.2f}" for a in ("Paris", "Rome") for c in GRID]
    right, wrong = np.reshape(rewards(weight, texts), (2, -1))
    mean = p * right + (1 - p) * wrong
    assert GRID[mean.argmax()] == pytest.approx(p)
    assert mean.max() == pytest.approx(p - weight * p * (1 - p))


@pytest.mark.parametrize(
    ("weight", "pays"), [(0.5, False), (1.0, False), (1.5, True), (4.0, True)]
)
def test_above_weight_one_it_pays_to_be_wrong_on_purpose(weight, pays):
    [on_purpose] = rewards(weight, ["Rome. Confidence: 0%"])
    assert on_purpose == 0
    right, wrong = (
        np.array(rewards(weight, [f"{a}. Confidence: {c:.2f}" for c in GRID]))
        for a in ("Paris", "Rome")
    )
    honest = GRID * right + (1 - GRID) * wrong  # at P(right) = c, stating c
    loses = GRID[honest < on_purpose - 1e-9]
    assert (len(loses) > 0) == pays
    if pays:
        assert loses.max() == pytest.approx(1 - 1 / weight, abs=0.011)


def test_right_is_read_from_a_column_or_by_a_function():
    assert stated_answer("St. Louis") == "St."  # where a tag helps:
    assert stated_answer("So <answer>St. Louis</answer>, 90%") == "St. Louis"
    several = calibration_reward("answer", weight=0)
    texts = ["The yen. 90%", "yen or sol. 90%"]
    assert several(["", ""], texts, answer=[["yen", "sol"], "yen"]) == [1, 0]
    seen = {}

    def correct(prompts, completions, answer, **others):
        seen.update(prompts=prompts, answer=answer, others=others)
        return [c.startswith(a) for c, a in zip(completions, answer)]

    reward = calibration_reward(correct, confidence=lambda text: 0.5)
    assert reward(["q"], ["Oslo"], answer=["Oslo"], level=[3]) == [0.75]
    assert seen == dict(prompts=["q"], answer=["Oslo"], others={"level": [3]})


@pytest.mark.parametrize("weight", [-0.1, math.inf, math.nan])
def test_a_weight_that_makes_no_sense_is_refused(weight):
    with pytest.raises(ValueError, match="weight is"):
        calibration_reward("answer", weight=weight)


def test_what_is_wrong_is_named():
    with pytest.raises(ValueError, match="answer is given"):
        calibration_reward(lambda **_: [1], answer=str)
    with pytest.raises(AlignlabError, match="correct is 'answer'.*level"):
        calibration_reward("answer")(["q"], ["Oslo"], level=[3])
    with pytest.raises(AlignlabError, match="correct returned .0.5. for 1"):
        calibration_reward(lambda **_: [0.5])(["q"], ["Oslo 50%"])
    with pytest.raises(AlignlabError, match="confidence returned 50"):
        calibration_reward("a", confidence=lambda text: 50)(["q"], ["Oslo"], a=["Oslo"])


def test_the_trainer_gives_it_its_columns(tiny_model, tiny_tokenizer):
    reward = calibration_reward("answer", weight=0.5)
    trainer = make_and_train(tiny_model, tiny_tokenizer, reward, CHAT)
    for row in trainer.state.log_history[:1]:
        assert -0.5 <= row["reward/calibration"] <= 1
    assert all(-0.5 <= row["score"] <= 1 for row in trainer.completions)
