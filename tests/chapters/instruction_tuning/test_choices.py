"""Options: one right answer, wrong ones that are wrong, and a known chance."""

import numpy as np
import pytest

from alignlab.chapters.instruction_tuning import choices
from alignlab.chapters.instruction_tuning.choices import Question
from alignlab.evaluation import answers
from alignlab.world import tasks
from alignlab.world.tasks import Example

FAMILIES = ("capital", "neighbour", "opposite_of", "last", "smallest", "sum", "parity")


@pytest.fixture(scope="module")
def questions():
    return choices.choice_questions(FAMILIES, 12, seed=3)


def test_the_first_option_is_right_and_no_other(questions):
    assert len(questions) == 12 * len(FAMILIES)
    for example, (right, *wrong) in questions:
        assert answers.is_correct(example, right)
        assert not any(answers.is_correct(example, option) for option in wrong)
        assert len({right, *wrong}) == (2 if example.labels else choices.OPTIONS)


def test_options_are_drawn_by_the_seed_alone(questions):
    assert choices.choice_questions(FAMILIES, 12, seed=3) == questions
    example = questions[0].example
    drawn = {choices.with_options(example, seed).options for seed in range(9)}
    assert len(drawn) > 5


def test_wrong_options_come_from_the_prompt_where_they_can():
    example = Example("last", "Last of moon, dog, salt?", "salt.", ("salt",))
    for seed in range(5):
        right, *wrong = choices.with_options(example, seed).options
        assert right == "salt" and {"moon", "dog"} < set(wrong)
    example = Example("smallest", "Smallest of 12, 5, 70?", "5.", ("5",))
    assert {"12", "70"} < set(choices.with_options(example, 0).options)
    assert "2" not in choices.with_options(example, 0).options[1:3], "a part of 12"


def test_labels_are_the_options_of_a_classification():
    example = tasks.examples("parity", 1, split="test")[0]
    assert set(choices.with_options(example, 0).options) == {"even", "odd"}


def test_a_guess_is_right_as_often_as_chance_says(questions):
    guess = choices.chance(questions)
    assert guess == {f: 0.5 if f == "parity" else 0.25 for f in FAMILIES}
    rng = np.random.default_rng(0)
    won = [rng.integers(len(q.options)) == 0 for q in questions for _ in range(500)]
    expected = np.mean(list(guess.values()))
    assert np.mean(won) == pytest.approx(expected, abs=0.01)


def test_under_another_question_options_stay_and_prompts_move(questions):
    moved = choices.under_another(questions)
    assert [q.options for q in moved] == [q.options for q in questions]
    for before, after in zip(questions, moved, strict=True):
        assert after.example.family == before.example.family
        assert after.example.prompt != before.example.prompt
    assert {q.example.prompt for q in moved} == {q.example.prompt for q in questions}


class Known:
    """Stands in for a model: gives each option the log-probability it is told."""

    def __init__(self, monkeypatch, log_prob):
        def multiple_choice(model, tokenizer, prompts, options, chat):
            rows = [
                np.exp([log_prob(p, o) for o in own])
                for p, own in zip(prompts, options, strict=True)
            ]
            self.options = options
            return type("C", (), {"probabilities": [r / r.sum() for r in rows]})

        monkeypatch.setattr(choices, "multiple_choice", multiple_choice)


def test_a_model_that_knows_wins_everywhere_and_only_with_its_question(
    questions, monkeypatch
):
    right = {(q.example.prompt, f"{q.options[0]}.") for q in questions}
    Known(monkeypatch, lambda p, o: 3.0 * ((p, o) in right))
    scored = choices.probabilities(None, None, questions)
    assert scored[:, 1].min() == 1
    summary = choices.summary(questions, scored)
    assert summary["accuracy"] == 1 == np.mean(summary["items"])
    # The control: under another question it knows no better than a guess.
    moved = choices.under_another(questions)
    other = choices.summary(moved, choices.probabilities(None, None, moved))
    guess = np.mean(list(choices.chance(questions).values()))
    assert other["accuracy"] == pytest.approx(guess, abs=0.12)


def test_the_control_finds_a_model_that_tells_answers_without_their_question(
    questions, monkeypatch
):
    right = {q.options[0] for q in questions}
    Known(monkeypatch, lambda p, o: 3.0 * (o.removesuffix(".") in right))
    moved = choices.under_another(questions)
    other = choices.summary(moved, choices.probabilities(None, None, moved))
    guess = np.mean(list(choices.chance(questions).values()))
    assert other["accuracy"] > guess + 0.2


def test_ties_count_as_their_share(questions, monkeypatch):
    Known(monkeypatch, lambda p, o: 0.0)
    scored = choices.probabilities(None, None, questions)
    guess = np.mean(list(choices.chance(questions).values()))
    assert choices.summary(questions, scored)["accuracy"] == pytest.approx(guess)


def test_options_are_closed_and_follow_plain_text_after_a_space(questions, monkeypatch):
    known = Known(monkeypatch, lambda p, o: 0.0)
    choices.probabilities(None, None, questions[:1], chat=False)
    assert known.options[0][0] == f" {questions[0].options[0]}."
    choices.probabilities(None, None, questions[:1])
    assert known.options[0][0] == f"{questions[0].options[0]}."


def test_families_weigh_the_same_whatever_their_size():
    def question(family):
        return Question(Example(family, "?", "a.", ("a",)), ("a", "b"))

    questions = [question("capital")] * 3 + [question("last")]
    scored = np.array([[0.9, 1.0], [0.9, 1.0], [0.3, 0.0], [0.25, 0.0]])
    summary = choices.summary(questions, scored)
    assert summary["accuracy"] == pytest.approx((2 / 3 + 0) / 2)
    assert np.mean(summary["items"]) == pytest.approx(summary["accuracy"])
    logs = np.log([0.9, 0.9, 0.3]).mean(), np.log(0.25)
    assert summary["log_likelihood"] == pytest.approx(np.mean(logs))
    assert summary["by_family"]["last"]["accuracy"] == 0
