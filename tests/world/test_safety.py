"""Safety requests: the splits keep words and pairs apart, look-alikes look alike."""

import re
from collections import Counter

import pytest

from alignlab.world import safety
from alignlab.world.safety import (
    BENIGN_KINDS,
    SPLITS,
    benign_requests,
    everyday_requests,
    harmful_requests,
    is_compliance,
    is_refusal,
)
from alignlab.world.texts import read_texts

HARM, LOOKALIKES = read_texts("safety")["harm"], read_texts("safety")["lookalikes"]
SEEDS = range(5)
SMALL_WORDS = {"a", "an", "of", "to", "out", "up", "into", "over"}


def pairs(examples):
    return {(e.verb, e.object) for e in examples}


def words(text):
    return set(re.findall(r"[a-z]+", text.lower())) - SMALL_WORDS


def everything(split, seed):
    return harmful_requests(split, seed) + benign_requests(split, seed)


def test_the_grammar_is_as_large_as_promised():
    verbs = [v for words in HARM.values() for v in words["verbs"]]
    objects = [o for words in HARM.values() for o in words["objects"]]
    assert len(verbs) >= 20 and len(set(verbs)) == len(verbs)
    assert len(objects) >= 20 and len(set(objects)) == len(objects)
    # No two objects share a word: an unseen object is made of unseen words.
    assert max(Counter(w for o in objects for w in words(o)).values()) == 1
    assert sum(len(w["verbs"]) * len(w["objects"]) for w in HARM.values()) >= 300
    assert LOOKALIKES.keys() == set(verbs)


def test_every_look_alike_is_used_once_and_all_types_are_there():
    kinds = Counter(
        k for table in LOOKALIKES.values() for k, os in table.items() for _ in os
    )
    objects = [o for t in LOOKALIKES.values() for os in t.values() for o in os]
    assert len(objects) >= 120 and len(set(objects)) == len(objects)
    assert (
        set(kinds) == set(BENIGN_KINDS) - {"safe_context"} and min(kinds.values()) > 30
    )


@pytest.mark.parametrize(
    "split, n", [("train", 160), ("unseen_pairs", 80), ("unseen_words", 56)]
)
def test_sizes(split, n):
    for seed in SEEDS:
        harmful, benign = harmful_requests(split, seed), benign_requests(split, seed)
        assert abs(len(harmful) - n) <= 2 and all(e.harmful for e in harmful)
        assert not any(e.harmful for e in benign)
        assert {e.kind for e in benign} == set(BENIGN_KINDS)
        assert len(benign) >= 45


def test_the_same_seed_gives_the_same_and_another_seed_another():
    for split in SPLITS:
        for make in (harmful_requests, benign_requests):
            assert make(split, 3) == make(split, 3)
            assert make(split, 3) != make(split, 4)
    train = [pairs(harmful_requests("train", seed)) for seed in (3, 4)]
    assert train[0] != train[1]


@pytest.mark.parametrize("seed", SEEDS)
def test_splits_share_no_pair_and_no_prompt(seed):
    by_split = [everything(split, seed) for split in SPLITS]
    for i, one in enumerate(by_split):
        for other in by_split[:i]:
            assert not pairs(one) & pairs(other)
            assert not {e.prompt for e in one} & {e.prompt for e in other}


@pytest.mark.parametrize("seed", SEEDS)
def test_unseen_pairs_are_of_seen_words(seed):
    train = harmful_requests("train", seed)
    for e in harmful_requests("unseen_pairs", seed):
        assert e.verb in {t.verb for t in train}
        assert e.object in {t.object for t in train}


@pytest.mark.parametrize("seed", SEEDS)
def test_unseen_words_are_in_no_request_of_train(seed):
    train = everything("train", seed)
    verbs = {e.verb for e in train}
    seen = {word for e in train for word in words(e.prompt)}
    for e in everything("unseen_words", seed):
        assert e.verb not in verbs
    for e in harmful_requests("unseen_words", seed):
        assert not words(e.object) & seen and not words(e.verb) & seen


@pytest.mark.parametrize("seed", SEEDS)
def test_each_benign_request_shares_a_word_with_a_harmful_one_of_its_split(seed):
    for split in SPLITS:
        harmful = harmful_requests(split, seed)
        verbs, harmful_pairs = {e.verb for e in harmful}, pairs(harmful)
        for e in benign_requests(split, seed):
            assert e.verb in verbs and (e.verb, e.object) not in harmful_pairs
            if e.kind == "safe_context":
                assert any(
                    v == e.verb and e.object.startswith(o) for v, o in harmful_pairs
                )


def test_wordings_come_in_rounds_without_repeating_a_prompt():
    once = harmful_requests("train", 0)
    often = harmful_requests("train", 0, per_pair=6)
    assert len(often) == 6 * len(once) == len({e.prompt for e in often})
    for n in range(6):
        part = often[n * len(once) : (n + 1) * len(once)]
        assert pairs(part) == pairs(once)
    assert len(often) >= 900


def test_everyday_requests_share_no_verb_or_object_word_with_harm():
    everyday = everyday_requests(0, per_pair=6)
    assert len({e.prompt for e in everyday}) == len(everyday) >= 700
    assert not any(e.harmful for e in everyday)
    harm = {
        w for g in HARM.values() for x in (*g["verbs"], *g["objects"]) for w in words(x)
    }
    assert not {w for e in everyday for w in words(f"{e.verb} {e.object}")} & harm


@pytest.mark.parametrize("seed", SEEDS)
def test_completions_are_told_apart_exactly(seed):
    examples = [e for split in SPLITS for e in everything(split, seed)]
    for e in examples + everyday_requests(seed):
        assert is_refusal(e.completion) == e.harmful
        assert is_compliance(e.completion) != e.harmful
    assert {e.completion for e in examples if e.harmful} == set(safety.REFUSALS)


def test_refusals_are_recognised_exactly():
    for refusal in safety.REFUSALS:
        assert is_refusal(refusal) and is_refusal(f" {refusal.upper()}\n")
        assert is_refusal(refusal + " Ask me something else.")
        assert not is_refusal(refusal[:-5]) and not is_refusal("Well. " + refusal)
    for text in ("", "I do not know.", "I will help with that.", "Here is how"):
        assert not is_refusal(text)
    for text in ("", "Here is how", "Here is how to.", "There is a capital."):
        assert not is_compliance(text)


def test_verbs_of_a_class_of_harm_are_its_own():
    harmful = harmful_requests("train", 0) + harmful_requests("unseen_words", 0)
    for kind in HARM:
        own = {e.verb for e in harmful if e.kind == kind}
        assert own == set(safety.verbs_of(kind))


def test_wrong_arguments_say_what_is_right():
    for make in (harmful_requests, benign_requests):
        with pytest.raises(ValueError, match="Did you mean 'unseen_pairs'"):
            make("unseen_pair")
    with pytest.raises(ValueError, match="per_pair is 7; it must be 1 to 6"):
        harmful_requests("train", per_pair=7)
    with pytest.raises(ValueError, match="per_pair is 0"):
        everyday_requests(per_pair=0)
