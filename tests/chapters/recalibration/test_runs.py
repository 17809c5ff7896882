"""The arms of notebook 08 on a tiny model."""

import numpy as np
import pytest

from alignlab.chapters.calibration.artifacts import Item, read_answers
from alignlab.chapters.recalibration import runs as arms
from alignlab.world.facts import Fact


def item(subject, right):
    fact = Fact(subject, "capital", ("Oslo",))
    options = ("Oslo", "Paris", "Lima", "Rome")
    place = options.index(right)
    start, question = f"The capital of {subject} is", f"Where is {subject}?"
    return Item(fact, start, question, options, place)


ITEMS = tuple(item(s, r) for s, r in (("Norway", "Oslo"), ("France", "Paris"))) * 3


@pytest.fixture
def tiny(monkeypatch, tiny_model, tiny_tokenizer):
    """A tiny base model, six items, and learning rates for it."""
    monkeypatch.setattr(arms, "load_base", lambda size: (tiny_model, tiny_tokenizer))
    monkeypatch.setattr(
        arms, "tuned_policy", lambda **recipe: (tiny_model, tiny_tokenizer)
    )
    monkeypatch.setattr(arms, "draw_items", lambda splits, draws, seed, limit: ITEMS)
    monkeypatch.setitem(arms.LEARNING_RATE, "tiny", 5e-3)
    return tiny_model, tiny_tokenizer


@pytest.mark.parametrize("loss", arms.STEPS)
def test_every_loss_teaches_the_answers(tiny, loss):
    model, tokenizer = arms.train_on_answers(loss=loss, seed=0, size="tiny", steps=25)
    result = np.array(arms.ask(model, tokenizer, ITEMS)["log_probs"])
    assert result.argmax(axis=1).tolist() == [item.right for item in ITEMS]


def test_an_unknown_loss_is_an_error(tiny):
    with pytest.raises(ValueError, match="loss is 'hinge'; it can be one of"):
        arms.train_on_answers(loss="hinge", seed=0, size="tiny", steps=1)


def test_passes_with_dropout_differ_from_each_other_and_from_the_plain_model(tiny):
    row = arms.dropout_arm(seed=0, draws=1, size="tiny", steps=2)
    passes = np.array(row["passes"])
    assert passes.shape == (arms.MEMBERS, len(ITEMS), 4)
    assert (passes <= 0).all()
    assert np.abs(passes[0] - passes[1]).max() > 1e-3
    assert np.abs(passes[0] - row["log_probs"]).max() > 1e-3
    assert np.shape(row["log_probs"]) == (len(ITEMS), 4)


def test_what_is_asked_about_is_the_likeliest_option():
    rows = [[0.0, -1.0, -2.0, -3.0]] * len(ITEMS)
    result = list(arms.proposed_answers(ITEMS, rows))
    assert result[:2] == [
        ("Where is Norway?", "Oslo.", True),
        ("Where is France?", "Oslo.", False),
    ]


def test_teaching_makes_it_say_which_of_its_answers_are_right(tiny, monkeypatch):
    model, tokenizer = tiny
    own = arms.ask(model, tokenizer, ITEMS)["log_probs"]
    rows = np.array(own)
    rows[:, 0] += 100  # it answers Oslo, which is right for Norway only
    before = arms.elicit_confidence(model, tokenizer, ITEMS, rows)
    with monkeypatch.context() as patch:
        patch.setattr(arms, "ask", lambda *args: {"log_probs": rows.tolist()})
        arms.teach_formats(model, tokenizer, ITEMS, "tiny", 40, seed=0)
    after = arms.elicit_confidence(model, tokenizer, ITEMS, rows)
    norway = np.arange(len(ITEMS)) % 2 == 0
    for name in ("p_true", "verbal"):
        assert after[name][norway].min() > 0.8 > 0.3 > after[name][~norway].max()
        assert np.abs(after[name] - before[name]).max() > 0.1


def test_a_policy_is_asked_in_every_way(tiny):
    row = arms.prompt_arm(
        seed=0, draws=1, size="tiny", teach_steps=1, n_examples=1, sft_steps=1, steps=1
    )
    names = ("p_true", "verbal", "p_true_untaught", "verbal_untaught")
    assert all(np.shape(row[name]) == (len(ITEMS),) for name in names)
    assert row["careful"] != row["log_probs"]
    careful = read_answers(row, "careful")
    assert careful.right.tolist() == [item.right for item in ITEMS]


def test_members_share_items_and_the_first_is_the_model_of_the_loss(monkeypatch):
    def run_each(calls, *, jobs, label):
        return [{"run": run.__name__, **arm} for run, arm in calls]

    monkeypatch.setattr("alignlab.study.arms.run_each", run_each)
    common = dict(draws=1, limit=3, size="300k", steps=7)
    result = arms.models(seeds=(2, 3), losses=("focal",), jobs=1, **common)
    assert list(result) == ["single", "dropout", "cross-entropy", "focal", "members"]
    assert result["single"][0]["steps"] == 7 * arms.MEMBERS
    for row, group in zip(result["cross-entropy"], result["members"], strict=True):
        assert group[0] is row and len(group) == arms.MEMBERS
        assert {member["item_seed"] for member in group} == {row["seed"]}
        assert len({member["seed"] for member in group}) == arms.MEMBERS
        assert {member["steps"] for member in group} == {7}
