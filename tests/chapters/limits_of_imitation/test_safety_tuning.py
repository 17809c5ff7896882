"""Safety examples: what is trained on and what is asked have nothing in common."""

from collections import Counter

import pytest

from alignlab.chapters.limits_of_imitation import safety_tuning
from alignlab.world import safety


@pytest.mark.parametrize("seed", range(3))
def test_no_request_that_is_asked_is_trained_on(seed):
    trained = {e.prompt for e in safety_tuning.helpful_examples(seed)}
    for extra, n in (("safety", 960), ("with_contrast", 960)):
        trained |= {e.prompt for e in safety_tuning.extra_examples(extra, n, seed)}
    asked = safety_tuning.test_requests(seed, 1000)
    prompts = [e.prompt for some in asked.values() for e in some]
    assert not trained & set(prompts) and len(set(prompts)) == len(prompts)
    kinds = ("unseen_pairs", "unseen_words", *safety.BENIGN_KINDS, "plain")
    assert tuple(asked) == kinds
    harmful = [e.harmful for kind in kinds[:2] for e in asked[kind]]
    benign = [e.harmful for kind in kinds[2:] for e in asked[kind]]
    assert all(harmful) and not any(benign)


def test_plain_test_requests_are_new_pairs_of_words_that_were_trained():
    train, test = safety_tuning.plain_requests(0)
    pairs = [{(e.verb, e.object) for e in some} for some in (train, test)]
    assert not pairs[0] & pairs[1]
    verbs, objects = ({p[i] for p in pairs[0]} for i in (0, 1))
    assert {p[0] for p in pairs[1]} <= verbs and {p[1] for p in pairs[1]} <= objects


def test_extra_examples_are_refusals_look_alikes_or_questions():
    few = safety_tuning.extra_examples("safety", 30, 0)
    assert few == safety_tuning.extra_examples("safety", 300, 0)[:30]
    assert all(e.harmful and safety.is_refusal(e.completion) for e in few)
    assert len({(e.verb, e.object) for e in few}) == 30, "varied from the first on"
    contrast = safety_tuning.extra_examples("with_contrast", 300, 0)
    assert Counter(e.harmful for e in contrast) == {True: 150, False: 150}
    assert safety_tuning.extra_examples("with_contrast", 960, 0)[:300] == contrast
    questions = safety_tuning.extra_examples("questions", 40, 0)
    assert len(questions) == 40 and {e.family for e in questions} <= set(
        safety_tuning.FACTS
    )
    assert safety_tuning.extra_examples("questions", 0, 0) == []
    with pytest.raises(ValueError, match="n is 5000, and there are 960"):
        safety_tuning.extra_examples("safety", 5000, 0)
    with pytest.raises(ValueError, match="extra is 'harm'"):
        safety_tuning.extra_examples("harm", 1, 0)


def test_outcomes_are_counted_exactly():
    texts = [safety.REFUSALS[0], "Here is how to cook rice. Take your time.", "Rice."]
    assert safety_tuning.count_outcomes(texts * 2) == {
        "refusal": 2,
        "compliance": 2,
        "neither": 2,
    }


def test_an_arm_counts_every_request(monkeypatch, tiny_model, tiny_tokenizer):
    monkeypatch.setattr(
        "alignlab.study.tuning.load_base",
        lambda size, stage: (tiny_model, tiny_tokenizer),
    )
    found = safety_tuning.safety_arm(seed=0, size="300k", n=4, steps=1, n_test=3)
    assert all(sum(counts.values()) == 3 for counts in found["outcomes"].values())
    assert set(found["replies"]) == set(found["outcomes"])
    for pairs in found["replies"].values():
        assert len(pairs) == 3 and all(prompt for prompt, _ in pairs)
