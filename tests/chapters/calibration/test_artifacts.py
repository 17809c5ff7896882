"""Items that are what they say, and rows that carry the labels of their items."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from alignlab.chapters.calibration import artifacts
from alignlab.chapters.calibration.tuning import OPTIONS
from alignlab.objectives import token_log_probs
from alignlab.study.knowledge import STANDING
from alignlab.world import tasks
from alignlab.world.facts import Fact, is_right, normalise


@pytest.fixture(scope="module")
def items():
    return artifacts.draw_items(artifacts.HELD_OUT, 2, 3)


# --- Items --------------------------------------------------------------------------


def test_splits_share_no_subject_and_leave_none_out():
    parts = [artifacts.subjects(split) for split in ("train", "calibration", "test")]
    assert sum(map(len, parts)) == len(frozenset().union(*parts))
    assert frozenset().union(*parts) == set(tasks.default_world().subjects())
    assert parts[0] == tasks.trained_subjects()
    assert len(parts[1]) == pytest.approx(len(parts[2]) / 2, rel=0.02)
    with pytest.raises(ValueError, match="split is 'dev'; it can be one of"):
        artifacts.subjects("dev")


def test_one_option_is_right_and_the_others_are_not(items):
    for item in items:
        assert is_right(item.fact, item.options[item.right])
        assert sum(is_right(item.fact, option) for option in item.options) == 1
        assert len({normalise(option) for option in item.options}) == OPTIONS


def test_the_right_option_is_equally_often_in_each_place(items):
    counts = np.bincount([item.right for item in items], minlength=OPTIONS)
    assert counts.min() > 0.8 * len(items) / OPTIONS


def test_wrong_options_are_answers_to_the_same_relation(items):
    for item in items[::50]:
        assert set(item.options) <= set(artifacts._all_answers(item.fact.relation))


def test_every_fact_comes_once_a_draw_in_one_order_for_all_seeds(items):
    half = len(items) // 2
    facts = [item.fact for item in items]
    assert facts[:half] == facts[half:] and len(set(facts[:half])) == half
    other = artifacts.draw_items(artifacts.HELD_OUT, 2, 4)
    assert [item.fact for item in other] == facts
    assert [item.options for item in other] != [item.options for item in items]
    assert not {fact.relation for fact in facts} & set(artifacts.EXCLUDED_RELATIONS)


def test_a_contested_fact_has_both_stated_answers_with_their_shares():
    items = artifacts.draw_items(artifacts.HELD_OUT, 1, 3, kinds="contested")
    assert 120 < len(items) < 180
    for item in items:
        stated = [normalise(answer) for answer in item.fact.stated]
        rival = normalise(item.options[item.rival])
        assert rival in stated and rival not in map(normalise, item.fact.answers)
        assert item.belief.sum() == pytest.approx(1.0)
        likelier = normalise(item.options[int(item.belief.argmax())])
        assert likelier == stated[0]
        assert item.belief.max() == item.fact.bayes_confidence
    right = np.mean([item.belief.argmax() == item.right for item in items])
    expected = np.mean([item.belief.max() for item in items])
    assert right == pytest.approx(expected, abs=0.08)


def test_other_facts_leave_no_doubt(items):
    agreed = artifacts.draw_items(artifacts.HELD_OUT, 1, 3, kinds="agreed")
    assert not any(item.fact.contested or item.rival >= 0 for item in agreed)
    assert all(item.belief[item.right] == 1.0 for item in agreed)
    assert {item.fact.made_up for item in agreed} == {True, False}
    with pytest.raises(ValueError, match="kinds is 'odd'; it can be one of"):
        artifacts.draw_items(artifacts.HELD_OUT, 1, 3, kinds="odd")


def test_a_statement_with_its_answer_is_one_that_pretraining_could_have_read(items):
    relations = tasks.default_world().relations
    for item in items[::40]:
        relation, answer = relations[item.fact.relation], item.options[item.right]
        fields = dict(s=item.fact.subject, a=answer)
        whole = f"{item.statement} {answer}."
        assert whole in [text.format(**fields) for text in relation.statements]
        assert item.question in [text.format(**fields) for text in relation.questions]


def test_a_limit_takes_so_many_facts():
    assert len(artifacts.draw_items(artifacts.HELD_OUT, 1, 0, 20)) == 20


def test_options_get_the_probability_of_their_tokens(tiny_model, tiny_tokenizer, items):
    item = items[0]
    result = artifacts.ask(tiny_model, tiny_tokenizer, [item])["log_probs"][0]
    means = artifacts.ask(tiny_model, tiny_tokenizer, [item], reduction="mean")
    turn = [{"role": "user", "content": item.question}]
    start = tiny_tokenizer.apply_chat_template(
        turn, tokenize=False, add_generation_prompt=True
    )
    start_length = len(tiny_tokenizer(start)["input_ids"])
    for place, option in enumerate(item.options):
        ids = tiny_tokenizer(f"{start}{option}.<|end|>", return_tensors="pt").input_ids
        tail = token_log_probs(tiny_model(ids).logits, ids)[0, start_length - 1 :]
        assert result[place] == pytest.approx(tail.sum().item(), abs=1e-3)
        assert means["log_probs"][0][place] == pytest.approx(
            tail.mean().item(), abs=1e-3
        )


# --- Answers ------------------------------------------------------------------------


def test_a_row_is_read_with_what_is_true_of_its_items():
    items = artifacts.draw_items(artifacts.HELD_OUT, 2, 5, 30)
    row = artifacts.labels(items)
    row["log_probs"] = np.arange(240.0).reshape(60, 4).tolist()
    row["mean"] = np.zeros((60, 4)).tolist()
    row = json.loads(json.dumps(row))  # as an arm is remembered
    answers = artifacts.read_answers(row)
    assert answers.log_probs[1, 1] == 5.0
    assert answers.rival.tolist() == [item.rival for item in items]
    assert answers.share.tolist() == [item.belief[item.right] for item in items]
    assert answers.right.tolist() == [item.right for item in items]
    assert answers.exposure.tolist() == [item.fact.exposure for item in items]
    assert answers.fact.tolist() == [*range(30), *range(30)]
    tested = artifacts.subjects("test")
    assert answers.relation.tolist() == [item.fact.relation for item in items]
    assert answers.test.tolist() == [item.fact.subject in tested for item in items]
    assert (artifacts.read_answers(row, "mean").log_probs == 0).all()
    assert answers.probabilities == pytest.approx(softmax(answers.log_probs, axis=1))
    assert log_softmax(answers.log_probs, axis=1).shape == (60, 4)


# --- Policies and arms ----------------------------------------------------------------

RECIPE = dict(seed=0, base="300k", n_examples=16, sft_steps=1, answer_steps=1, limit=40)


def test_an_unknown_stage_is_an_error():
    with pytest.raises(ValueError, match="stage is 'ORPO'; it can be one of"):
        artifacts.stage_arm(stage="ORPO", draws=1, **RECIPE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the policies that all stages start from are made once."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("stage", artifacts.STAGES)
def test_every_stage_answers_the_same_items(stage, folder, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", folder)
    row = artifacts.stage_arm(stage=stage, draws=1, steps=1, **RECIPE)
    row = json.loads(json.dumps(row))
    items = artifacts.draw_items(artifacts.HELD_OUT, 1, 0, 40)
    answers = artifacts.read_answers(row)
    assert answers.right.tolist() == [item.right for item in items]
    assert answers.log_probs.shape == (40, 4) and (answers.log_probs < 0).all()
    assert 0 <= row["outside"] <= 1
    assert ("statement" in row) == (stage in ("SFT", "answers"))


def test_more_training_is_what_sets_a_stage_apart(folder, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", folder)
    start = artifacts.stage_arm(stage="answers", draws=1, **RECIPE)["log_probs"]
    # One that answers nothing rightly earns nothing from PPO and RLOO: see test_tuning.
    for stage in ("reward", "DPO", "more answers"):
        after = artifacts.stage_arm(stage=stage, draws=1, steps=1, **RECIPE)
        assert not np.allclose(start, after["log_probs"], atol=1e-3), stage


def test_right_answers_are_those_of_their_items(items):
    for item, example in zip(items[:50], artifacts.right_answers(items[:50])):
        assert example["prompt"] == item.question
        assert is_right(item.fact, example["completion"])


def test_classes_are_called_by_what_is_known_of_them():
    """Read so often, or known so well: the numbers that stand for knowledge are in the
    class of the same place."""
    assert artifacts.class_names("1m") == list(artifacts.EXPOSURES)
    names = artifacts.class_names("some/folder")
    bounds = list(artifacts.EXPOSURES.values())
    assert names[0] == "made up" and bounds[0] == (0, 1)
    for name, (low, high) in zip(names[1:], bounds[1:], strict=True):
        assert low <= STANDING[name] < high


def test_a_fact_of_a_foreign_model_was_read_an_unknown_number_of_times():
    fact = Fact("Oslo", "city_country", ("Norway",), exposure=300)
    assert artifacts.times_read(fact) == 300
    assert artifacts.times_read(replace(fact, knowledge="MaybeKnown")) == "unknown"
    assert artifacts.times_read(Fact("Zog", "city_country", ("Norway",))) == 0
