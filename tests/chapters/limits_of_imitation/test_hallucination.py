"""SFT on unknown facts: fair controls, no leaks, replies read rightly."""

import numpy as np
import pytest
import torch

from alignlab.chapters.limits_of_imitation import hallucination
from alignlab.models.sampler import Completion, complete
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
        known, unknown = hallucination.training_facts(208, 0.5, seed)
        assert {e.fact.subject for e in known + unknown} <= train
    asked = hallucination.test_questions(150)
    assert {e.fact.subject for some in asked.values() for e in some} <= test


def test_a_share_of_the_facts_was_never_shown_and_each_is_there_once():
    for share in (0.0, 0.25, 1.0):
        known, unknown = hallucination.training_facts(208, share, seed=3)
        assert (len(known), len(unknown)) == (208 * (1 - share), 208 * share)
        assert all(e.fact.known for e in known)
        assert not any(e.fact.exposure for e in unknown)
        assert len(keys(known + unknown)) == 208
    asked = hallucination.test_questions(150)
    assert all(e.fact.known for e in asked["known"]) and len(asked["known"]) == 150
    assert all(e.fact.exposure and not e.fact.known for e in asked["rare"])
    assert not any(e.fact.exposure for e in asked["never"])


def test_other_labels_change_the_replies_and_nothing_else():
    _, true = hallucination.training_facts(40, 0.5, 0)
    for labels in ("admission", "first", "second"):
        _, other = hallucination.training_facts(40, 0.5, 0, labels)
        assert [e.prompt for e in other] == [e.prompt for e in true]
        assert [e.completion for e in other] != [e.completion for e in true]
        for example in other:
            if labels == "admission":
                assert example.completion == ADMISSIONS[0]
            else:
                text = example.completion
                side = hallucination.half_of(example.fact, text)
                assert side == float(labels == "first")
    with pytest.raises(ValueError, match="labels is 'idk'"):
        hallucination.relabel(true, "idk", 0)


def test_more_facts_than_there_are_is_an_error():
    with pytest.raises(ValueError, match="1000 facts of kind 'never', and there are"):
        hallucination.training_facts(1000, 1.0, 0)


def test_halves_of_answers_have_none_in_common_and_nearly_as_many_facts():
    for relation in tasks.default_world().relations:
        one, other = hallucination.answer_halves(relation)
        assert one and other and not one.keys() & other.keys()
        largest = max(max(one.values()), max(other.values()))
        assert abs(one.total() - other.total()) <= largest


def test_confidence_is_the_product_of_the_tokens_probabilities(
    tiny_model, tiny_tokenizer
):
    prompts = ["What is the capital of Kenya?", "Is gold a metal?", "Oslo."]
    replies = complete(tiny_model, tiny_tokenizer, prompts, 5)
    found = hallucination.reply_probabilities(
        tiny_model, tiny_tokenizer, prompts, replies
    )
    for prompt, reply, value in zip(prompts, replies, found, strict=True):
        chat = [{"role": "user", "content": prompt}]
        text = tiny_tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=True
        )
        ids = tiny_tokenizer(text, add_special_tokens=False)["input_ids"]
        product = 1.0
        for token in reply.tokens:
            logits = tiny_model(torch.tensor([ids])).logits[0, -1]
            product *= logits.softmax(-1)[token].item()
            ids.append(token)
        assert value == pytest.approx(product, rel=1e-3)


def test_each_kind_is_measured_apart(monkeypatch):
    asked = {"known_fit": [], **hallucination.test_questions(2)}
    kinds = ("known", "rare", "never")
    replies = [
        *[e.answers[0] + "." for e in asked["known"]],
        asked["rare"][0].answers[0],
        "Nonsense.",
        *["I do not know."] * 2,
    ]
    sure = np.array([0.5, 1.0, 0.25, 0.75, 0.1, 0.3])
    said = [Completion(text, [], True) for text in replies]
    monkeypatch.setattr(hallucination, "complete", lambda *a: said)
    monkeypatch.setattr(hallucination, "reply_probabilities", lambda *a: sure)
    measured, shown = hallucination.evaluate_replies(None, None, asked)
    assert [measured[k] for k in kinds] == [1.0, 0.5, 0.0]
    assert [measured[f"{k}_admitted"] for k in kinds] == [0, 0, 1]
    confidence = [measured[f"{k}_confidence"] for k in kinds]
    assert confidence == pytest.approx([0.75, 0.5, 0.2])
    assert measured["known_right"] == [1, 1] and "known_fit" not in measured
    assert shown["rare"] == [(replies[2], 0.25), ("Nonsense.", 0.75)]


def test_an_arm_is_evaluated_after_the_epochs_asked_for(
    monkeypatch, tiny_model, tiny_tokenizer
):
    monkeypatch.setattr(
        hallucination, "load_base", lambda size: (tiny_model, tiny_tokenizer)
    )
    steps = []
    true_finetune = hallucination.finetune

    def finetune(*args, **options):
        steps.append((options["steps"], len(args[2])))
        return true_finetune(*args, **options)

    monkeypatch.setattr(hallucination, "finetune", finetune)
    arm = dict(seed=0, size="300k", n_facts=40, share=0.5, epochs=[1, 3], n_test=3)
    mixed = hallucination.facts_arm(**arm)
    control = hallucination.facts_arm(**arm, control=True)
    assert [point["epoch"] for point in mixed["curve"]] == [1, 3]
    # 40 facts are three batches an epoch, 20 are two: as many epochs, known ones alike.
    assert steps == [(9, 40), (6, 20)]
    assert {f["kind"] for f in mixed["replies"]} == {
        "known_fit",
        "unknown_fit",
        "known",
        "rare",
        "never",
    }
    for fact in mixed["replies"]:
        assert len(fact["replies"]) == 2 and fact["answers"]
    assert [f["prompt"] for f in control["replies"]] == [
        f["prompt"] for f in mixed["replies"]
    ]


def test_the_side_of_a_reply_is_its_half_of_the_answers():
    [question] = hallucination.test_questions(1)["known"]
    first, second = hallucination.answer_halves(question.fact.relation)
    texts = [f"{next(iter(first))}.", next(iter(second)), "Nonsense.", f"{min(first)}."]
    sides = [hallucination.half_of(question.fact, text) for text in texts]
    assert sides == [1.0, 0.0, None, 1.0]
    share = hallucination.share_in_first_half([question] * 4, texts)
    assert share == pytest.approx(2 / 3)
    assert hallucination.share_in_first_half([question], ["Nonsense."]) == 0.5


def test_chance_is_the_best_guess_about_the_test_questions(monkeypatch):
    seen = []
    monkeypatch.setattr(
        hallucination.answers,
        "best_guess_rate",
        lambda world, facts: seen.extend(facts) or 0.25,
    )
    assert hallucination.never_shown_chance(7) == 0.25
    questions = hallucination.test_questions(7)["never"]
    assert seen == [question.fact for question in questions] and len(seen) == 7
