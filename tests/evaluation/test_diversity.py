"""Diversity against closed forms, simulation and BLEU counted by hand."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from alignlab.evaluation.diversity import (
    across_input_diversity,
    adjusted_distinct_n,
    distinct_share,
    mean_adjusted_distinct,
    per_input_diversity,
    self_bleu,
    self_bleu_signature,
    token_entropy,
)

# --- Entropy ------------------------------------------------------------------------


def test_token_entropy_of_known_distributions():
    sure = torch.tensor([100.0, 0, 0, 0])
    even = torch.zeros(4)
    half = torch.tensor([0.0, 0.0, -torch.inf, -torch.inf])
    logits = torch.stack([sure, even, half])[None]
    assert token_entropy(logits, torch.tensor([[1, 0, 0]])) == pytest.approx(0)
    assert token_entropy(logits, torch.tensor([[0, 1, 0]])) == pytest.approx(
        math.log(4)
    )
    both = token_entropy(logits, torch.tensor([[0, 1, 1]]))
    assert both == pytest.approx((math.log(4) + math.log(2)) / 2)


def test_padding_is_never_looked_at_and_every_token_counts_once():
    logits = torch.zeros(2, 3, 8)
    logits[1, :, 0] = 50.0  # one reply of three sure tokens
    logits[0, 1:] = torch.nan  # and one of a single uncertain one
    mask = torch.tensor([[1, 0, 0], [1, 1, 1]])
    assert token_entropy(logits, mask) == pytest.approx(math.log(8) / 4)


def test_entropy_needs_tokens_of_the_logits():
    with pytest.raises(ValueError, match="at least one token"):
        token_entropy(torch.zeros(1, 2, 3), torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"mask \(1, 3\)"):
        token_entropy(torch.zeros(1, 2, 3), torch.ones(1, 3))


# --- Distinct n-grams ---------------------------------------------------------------


def test_n_grams_are_counted_within_replies_only():
    replies = ["a b a b".split(), "b c".split(), "c".split()]
    many = 10**9  # possible words: the adjustment is nearly 1
    assert adjusted_distinct_n(replies, 1, many) == pytest.approx(3 / 7)
    assert adjusted_distinct_n(replies, 2, many) == pytest.approx(3 / 4)  # ab ba ab, bc
    assert adjusted_distinct_n(replies, 4, many) == pytest.approx(1)
    assert math.isnan(adjusted_distinct_n(replies, 5, many))


@pytest.mark.parametrize("n, vocabulary, count", [(1, 10, 5), (2, 3, 7), (3, 50, 2)])
def test_the_adjustment_is_the_mean_number_of_different_draws(n, vocabulary, count):
    possible = vocabulary**n
    expected = possible * (1 - (1 - 1 / possible) ** count)
    replies = [(i % vocabulary,) * n for i in range(count)]
    found = adjusted_distinct_n(replies, n, vocabulary)
    assert found == pytest.approx(min(count, vocabulary) / expected)


def test_random_words_score_one_at_every_length():
    """Where plain distinct-n falls with length, this does not."""
    random = np.random.default_rng(0)
    plain = []
    for length in (10, 100, 1000):
        texts = random.integers(50, size=(400, length)).tolist()
        found = np.mean([adjusted_distinct_n([text], 1, 50) for text in texts])
        assert found == pytest.approx(1, abs=0.01)
        plain.append(np.mean([len(set(text)) / len(text) for text in texts]))
    assert plain[0] > 1.8 * plain[1] > 3 * plain[2]


def test_one_word_again_and_again_is_as_poor_as_can_be():
    count = 40
    expected = 1 / (9 * (1 - (8 / 9) ** count))
    assert adjusted_distinct_n([["no"] * count], 1, 9) == pytest.approx(expected)


def test_large_vocabularies_keep_their_digits():
    """With more n-grams than a float can count, all of them differ: 1."""
    assert adjusted_distinct_n([range(60)], 4, 100_000) == pytest.approx(1, rel=1e-12)


def test_one_possible_word_and_none_at_all():
    assert adjusted_distinct_n([["a", "a"]], 1, 1) == 1
    assert math.isnan(adjusted_distinct_n([[]], 1, 5))
    assert mean_adjusted_distinct([["a", "b"]], 5) == pytest.approx(
        (adjusted_distinct_n([["a", "b"]], 1, 5) + 1) / 2
    ), "orders without an n-gram are left out"
    assert math.isnan(mean_adjusted_distinct([[]], 5))
    with pytest.raises(ValueError, match="n is 0"):
        adjusted_distinct_n([["a"]], 0, 5)
    with pytest.raises(ValueError, match="vocabulary is 0"):
        adjusted_distinct_n([["a"]], 1, 0)


def test_per_input_and_across_inputs_are_two_things():
    one, two = "a b c".split(), "x y z".split()
    same_to_each = [[one, one], [two, two]]
    same_to_all = [[one, two], [one, two]]
    assert per_input_diversity(same_to_each, 100).tolist() == pytest.approx(
        [mean_adjusted_distinct([one, one], 100)] * 2
    )
    assert per_input_diversity(same_to_all, 100)[0] > 0.95
    assert per_input_diversity(same_to_each, 100)[0] < 0.6
    assert across_input_diversity(same_to_each, 100) > 0.95
    assert across_input_diversity(same_to_all, 100) < 0.6
    with pytest.raises(ValueError, match=r"have \[1, 2\] replies"):
        across_input_diversity([[one], [one, two]], 100)


# --- BLEU ---------------------------------------------------------------------------


def bleu_by_hand(text, references, max_order):
    """Papineni et al. (2002) for one sentence, with sacrebleu's exponential smoothing:
    orders without a match count as 1/2, 1/4, ... match."""
    words, others = text.split(), [r.split() for r in references]
    logs, smooth, orders = [], 1.0, 0
    for n in range(1, max_order + 1):

        def grams(ws, n=n):
            return Counter(tuple(ws[i : i + n]) for i in range(len(ws) - n + 1))

        mine = grams(words)
        total = sum(mine.values())
        if not total:
            break
        orders += 1
        top = Counter()
        for other in others:
            top |= grams(other)
        hits = sum(min(c, top[g]) for g, c in mine.items())
        if not hits:
            smooth *= 2
        logs.append(math.log(hits / total if hits else 1 / (smooth * total)))
    near = min((abs(len(o) - len(words)), len(o)) for o in others)[1]
    brevity = min(1.0, math.exp(1 - near / len(words)))
    return brevity * math.exp(sum(logs) / orders)


def test_self_bleu_is_the_mean_of_each_against_the_others():
    texts = [
        "the cat sat on the mat",
        "the cat sat on a chair today",
        "a dog sat on the mat",
        "nobody came",
    ]
    expected = [
        bleu_by_hand(text, texts[:i] + texts[i + 1 :], 4)
        for i, text in enumerate(texts)
    ]
    # sacrebleu gives a text without any match 0.
    expected[3] = 0.0
    assert self_bleu(texts) == pytest.approx(np.mean(expected), rel=1e-6)


def test_self_bleu_runs_from_nothing_shared_to_all_the_same():
    assert self_bleu(["a b c d e"] * 3) == pytest.approx(1)
    assert self_bleu(["a b c d e", "f g h i j"]) == pytest.approx(0, abs=0.1)
    assert self_bleu(["I hope so."] * 2) == pytest.approx(1), "short replies too"
    with pytest.raises(ValueError, match="needs at least 2"):
        self_bleu(["alone"])


def test_the_signature_names_tokens_and_version():
    signature = self_bleu_signature(["a b c", "a b d"])
    assert "tok:13a" in signature and "version:" in signature


def test_a_changed_word_makes_another_text():
    assert distinct_share(["a", "a", "b", "c"]) == 0.75
    assert math.isnan(distinct_share([]))
