"""SFT on unknown facts: fair controls, no leaks, replies read rightly."""

import numpy as np
import pytest

from alignlab.chapters.limits_of_imitation import hallucination
from alignlab.models.sampler import Completion
from alignlab.world import tasks
from alignlab.world.gold import ADMISSIONS


def keys(examples):
    return {(e.fact.subject, e.fact.relation) for e in examples}


def test_training_and_test_questions_share_no_subject():
    train, test = hallucination.three_quarters()
    assert not train & test
    assert train | test == set(tasks.default_world().subjects())
    assert len(train) == pytest.approx(3 * len(test), rel=0.03)
    for seed in (0, 1):
        known, never = hallucination.training_facts(104, 104, seed)
        assert {e.fact.subject for e in known + never} <= train
    asked = hallucination.test_questions(150)
    assert {e.fact.subject for group in asked.values() for e in group} <= test


def test_known_and_never_shown_facts_are_as_many_as_asked_for_and_each_is_there_once():
    for n_known, n_never in ((208, 0), (100, 60)):
        known, never = hallucination.training_facts(n_known, n_never, seed=3)
        assert (len(known), len(never)) == (n_known, n_never)
        assert all(e.fact.known for e in known)
        assert not any(e.fact.exposure for e in never)
        assert len(keys(known + never)) == n_known + n_never
    made_up = [e.fact.made_up for e in never]
    assert any(made_up) and not all(made_up), "never-shown: real and made up"
    first, _ = hallucination.training_facts(10, 0, seed=3)
    assert first == known[:10]
    asked = hallucination.test_questions(150)
    assert all(e.fact.known for e in asked["known"]) and len(asked["known"]) == 150
    assert all(5 < e.fact.exposure < 100 for e in asked["rare"])
    assert all(1 <= e.fact.exposure <= 5 for e in asked["tail"])
    assert not any(e.fact.exposure for e in asked["never"])


def test_other_labels_change_the_replies_and_nothing_else():
    _, true = hallucination.training_facts(20, 20, 0)
    for labels in ("admitted", "first", "second"):
        _, other = hallucination.training_facts(20, 20, 0, labels)
        assert [e.prompt for e in other] == [e.prompt for e in true]
        assert [e.completion for e in other] != [e.completion for e in true]
        for example in other:
            if labels == "admitted":
                assert example.completion == ADMISSIONS[0]
            else:
                text = example.completion
                side = hallucination.half_of(example.fact, text)
                assert side == float(labels == "first")
    with pytest.raises(ValueError, match="labels is 'idk'"):
        hallucination.relabel(true, "idk", 0)


def test_a_quarter_is_admitted_and_the_rest_answered_truly():
    _, true = hallucination.training_facts(20, 40, 0)
    _, quarter = hallucination.training_facts(20, 40, 0, "quarter admitted")
    admitted = [e.completion == ADMISSIONS[0] for e in quarter]
    assert sum(admitted) == 10
    for e, other, is_admitted in zip(true, quarter, admitted, strict=True):
        assert e.prompt == other.prompt and (is_admitted or e == other)


def test_more_facts_than_there_are_is_an_error():
    with pytest.raises(ValueError, match="n_never is 5000, and there are .* 'never'"):
        hallucination.training_facts(1, 5000, 0)


def test_halves_of_answers_have_none_in_common_and_nearly_as_many_facts():
    for relation in tasks.default_world().relations:
        one, other = hallucination.answer_halves(relation)
        assert one and other and not one.keys() & other.keys()
        largest = max(max(one.values()), max(other.values()))
        assert abs(one.total() - other.total()) <= largest


def test_each_question_is_measured(monkeypatch):
    asked = hallucination.test_questions(2)
    replies = [
        *[e.answers[0] + "." for e in asked["known"]],
        asked["rare"][0].answers[0],
        "Nonsense.",
        *["I do not know."] * 4,
    ]
    sure = np.array([0.5, 1.0, 0.25, 0.75, 0.1, 0.3, 0.1, 0.3])
    completions = [Completion(text, [], True) for text in replies]
    monkeypatch.setattr(hallucination, "complete", lambda *a: completions)
    monkeypatch.setattr(hallucination, "cap", lambda tokenizer, tokens: tokens)
    monkeypatch.setattr(hallucination, "reply_probabilities", lambda *a: sure)
    measured, shown = hallucination.read_replies(None, None, asked)
    kinds = ("known", "rare", "never")
    assert [measured[k]["right"] for k in kinds] == [[1, 1], [1, 0], [0, 0]]
    assert [measured[k]["answered"] for k in kinds] == [[1, 1], [1, 1], [0, 0]]
    assert measured["rare"]["confidence"] == [0.25, 0.75]
    assert measured["rare"]["half"][1] is None and measured["known"]["half"][0] in (
        0,
        1,
    )
    assert shown["rare"] == [(replies[2], 0.25), ("Nonsense.", 0.75)]


def test_an_arm_is_looked_at_after_the_updates_asked_for(
    monkeypatch, tiny_model, tiny_tokenizer
):
    monkeypatch.setattr(
        hallucination, "trainable_base", lambda base: (tiny_model, tiny_tokenizer)
    )
    runs = []
    true_finetune = hallucination.finetune

    def finetune(*args, **options):
        runs.append((options["steps"], options["schedule"], len(args[2])))
        return true_finetune(*args, **options)

    monkeypatch.setattr(hallucination, "finetune", finetune)
    arm = dict(seed=0, base="300k", n_known=20, looks=[1, 3], n_test=3)
    mixture = hallucination.facts_arm(**arm, n_never=20)
    alone = hallucination.facts_arm(**arm, n_never=0)
    assert [point["update"] for point in mixture["curve"]] == [1, 3]
    assert runs == [(3, "constant", 40), (3, "constant", 20)], "equal updates"
    kinds = ["known_fit", "never_fit", *hallucination.KINDS]
    assert list(mixture["curve"][0])[1:] == kinds
    assert "never_fit" not in alone["curve"][0]
    assert {f["kind"] for f in mixture["replies"]} == set(kinds)
    for fact in mixture["replies"]:
        assert len(fact["replies"]) == 2 and fact["answers"]
    asked = [
        [f["prompt"] for f in row["replies"] if f["kind"] in hallucination.KINDS]
        for row in (mixture, alone)
    ]
    assert asked[0] == asked[1]
    assert len(mixture["made_up"]) == 3


def test_the_side_of_a_reply_is_its_half_of_the_answers():
    [question] = hallucination.test_questions(1)["known"]
    first, second = hallucination.answer_halves(question.fact.relation)
    texts = [f"{next(iter(first))}.", next(iter(second)), "Nonsense.", f"{min(first)}."]
    sides = [hallucination.half_of(question.fact, text) for text in texts]
    assert sides == [1.0, 0.0, None, 1.0]
