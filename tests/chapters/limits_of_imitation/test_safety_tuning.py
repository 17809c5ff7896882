"""Safety examples: what is trained on and what is asked have nothing in common."""

from collections import Counter

import pytest

from alignlab.chapters.limits_of_imitation import safety_tuning
from alignlab.world import safety
from alignlab.world.tasks import Example


@pytest.mark.parametrize("seed", range(3))
def test_no_request_that_is_asked_is_trained_on(seed):
    trained = {e.prompt for e in safety_tuning.training_mixture(400, 300, 1700, seed)}
    asked = safety_tuning.test_requests(seed, 1000)
    prompts = [e.prompt for group in asked.values() for e in group]
    assert not trained & set(prompts) and len(set(prompts)) == len(prompts)
    kinds = ("unseen_pairs", "unseen_words", *safety.BENIGN_KINDS, "plain")
    assert tuple(asked) == kinds
    harmful = [e.harmful for kind in kinds[:2] for e in asked[kind]]
    benign = [e.harmful for kind in kinds[2:] for e in asked[kind]]
    assert all(harmful) and not any(benign)


def test_plain_test_requests_are_new_pairs_of_words_that_were_trained():
    train, test = safety_tuning.plain_requests(0)
    pairs = [{(e.verb, e.object) for e in group} for group in (train, test)]
    assert not pairs[0] & pairs[1]
    verbs, objects = ({p[i] for p in pairs[0]} for i in (0, 1))
    assert {p[0] for p in pairs[1]} <= verbs and {p[1] for p in pairs[1]} <= objects


def kinds_of(examples):
    """Numbers of refusals, look-alikes, plain requests and questions."""
    return Counter(
        "question"
        if isinstance(e, Example)
        else "refusal"
        if e.harmful
        else "plain"
        if e.kind == "everyday"
        else "look-alike"
        for e in examples
    )


def test_a_mixture_is_as_large_with_and_without_safety_examples():
    mix = safety_tuning.training_mixture
    assert kinds_of(mix(0, 0, 200, 0)) == {"plain": 100, "question": 100}
    few, many, contrast = mix(30, 0, 200, 0), mix(60, 0, 200, 0), mix(60, 40, 200, 0)
    assert kinds_of(few) == {"refusal": 30, "plain": 85, "question": 85}
    assert kinds_of(contrast) == {
        "refusal": 60,
        "look-alike": 40,
        "plain": 50,
        "question": 50,
    }
    assert many[:30] == few[:30] and contrast[:60] == many[:60], "the same refusals"
    assert all(safety.is_refusal(e.completion) for e in many[:60])
    assert all(safety.is_compliance(e.completion) for e in contrast[60:100])
    assert len({(e.verb, e.object) for e in few[:30]}) == 30, "varied from the first on"


def test_more_examples_than_there_are_is_an_error():
    with pytest.raises(ValueError, match="5000 examples are asked for"):
        safety_tuning.training_mixture(5000, 0, 6000, 0)
    with pytest.raises(ValueError, match="-5 examples are asked for"):
        safety_tuning.training_mixture(20, 0, 10, 0)


@pytest.mark.parametrize("seed", range(3))
def test_look_alikes_stand_with_the_harmful_requests_whose_verbs_they_have(seed):
    groups = safety_tuning.requests_to_tell_apart(seed)
    for split in ("pairs", "words"):
        verbs = {e.verb for e in groups[f"unseen_{split}"]}
        look_alikes = groups[f"look_alikes_of_{split}"]
        assert {e.verb for e in look_alikes} <= verbs and len(look_alikes) >= 45
    in_kinds = safety_tuning.test_requests(seed, 1000)
    assert sum(map(len, in_kinds.values())) == sum(map(len, groups.values()))


def test_requests_to_hurt_somebody_are_not_shown():
    hidden = [e for e in safety.harmful_requests("train", 0) if e.kind == "violence"]
    assert hidden and not any(map(safety_tuning.is_mild, hidden))
    for e in safety.benign_requests("train", 0):
        in_game = e.kind == "safe_context" and e.verb in safety.verbs_of("violence")
        assert safety_tuning.is_mild(e) is not in_game
    assert all(
        safety_tuning.is_mild(e)
        for e in safety.harmful_requests("train", 0)
        if e.kind == "theft"
    )


def test_outcomes_are_counted_exactly():
    texts = [safety.REFUSALS[0], "Here is how to cook rice. Take your time.", "Rice."]
    assert safety_tuning.count_outcomes(texts * 2) == {
        "refusal": 2,
        "compliance": 2,
        "neither": 2,
    }


def test_an_arm_counts_every_request(monkeypatch, tiny_model, tiny_tokenizer):
    monkeypatch.setattr(
        "alignlab.study.tuning.trainable_base",
        lambda base, stage: (tiny_model, tiny_tokenizer),
    )
    monkeypatch.setattr(safety_tuning, "cap", lambda tokenizer, tokens: tokens)
    found = safety_tuning.safety_arm(
        seed=0, base="300k", n_refusals=2, n_look_alikes=2, total=10, steps=1, n_test=3
    )
    assert all(sum(counts.values()) == 3 for counts in found["outcomes"].values())
    assert set(found["replies"]) == set(found["outcomes"])
    for pairs in found["replies"].values():
        assert len(pairs) <= 3 and all(prompt for prompt, _ in pairs)
    for scores in found["log_p_refuse"].values():
        assert len(scores) == 3 and max(scores) < 0
