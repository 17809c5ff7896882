"""Rated sentences: dealt out, compared by single ratings, judged by held-out ones."""

import numpy as np
import pytest

from alignlab.chapters.a_real_model import reviews
from alignlab.seeds import stream


def test_no_sentence_is_in_two_stages_and_the_test_ones_are_the_same_for_all_seeds():
    one, other = reviews.draw_parts(0), reviews.draw_parts(1)
    parts = [one.shown, one.compared, one.others, one.test]
    texts = [sentence.text for part in parts for sentence in part]
    assert len(texts) == len(set(texts)) == 100
    assert len(one.shown) == len(one.compared) == 30
    assert [s.text for s in one.test] == [s.text for s in other.test]
    assert [s.text for s in one.shown] != [s.text for s in other.shown]
    assert any(a.ratings != b.ratings for a, b in zip(one.test, other.test))


def test_each_rater_is_in_one_half_and_the_word_is_one_of_the_sentence():
    for sentence in reviews.draw_parts(0).others:
        both = sorted(sentence.ratings + sentence.held_out)
        assert len(sentence.held_out) == 6 and len(both) == 12
        worth = reviews.np.mean(both)
        assert set(both) == {worth - 1, worth, worth + 1}
        assert reviews.obeys(sentence.word, sentence.text)
        assert sentence.word.isalpha() and len(sentence.word) >= 5


@pytest.mark.parametrize(
    "word, text, heard",
    [
        ("warm", "It is warm.", True),
        ("warm", "(Warm!)", True),
        ("warm", "Lukewarm at best", False),
        ("warm", "warmth", False),
    ],
)
def test_a_word_is_heard_as_a_word_of_its_own(word, text, heard):
    assert reviews.obeys(word, text) == heard


def test_dialogues_ask_for_a_word_of_the_reply_in_every_turn():
    sentences = reviews.draw_parts(0).shown[:5]
    rows = reviews.dialogues(sentences)
    assert len(rows) == 2  # the fifth has no second
    for row in rows:
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["system", "user", "assistant", "user", "assistant"]
        for asked, reply in ((1, 2), (3, 4)):
            word = row["messages"][asked]["content"].split('"')[1]
            assert reviews.obeys(word, row["messages"][reply]["content"])


def test_a_comparison_takes_one_rating_of_each_and_no_equal_ones():
    sentences = reviews.draw_parts(0).compared
    pairs = reviews.comparisons(sentences, 200, stream(0, "pairs"))
    of = {sentence.text: sentence for sentence in sentences}
    assert len(pairs) == 200
    for pair in pairs:
        chosen, rejected = of[pair["chosen"]], of[pair["rejected"]]
        assert max(chosen.ratings) > min(rejected.ratings)  # else no label was possible
        gold = np.mean(chosen.held_out) - np.mean(rejected.held_out)
        assert pair["gold"] == pytest.approx(gold)
    # Raters scatter by one around worths: labels err where those are equal, or next to
    # each other.
    wrong = np.mean([pair["gold"] < 0 for pair in pairs])
    assert 0 < wrong < 0.25


def test_order_counts_ties_of_the_score_half_and_leaves_out_equal_raters():
    pairs = [{"gold": 1.0}, {"gold": -1.0}, {"gold": 0.0}, {"gold": 2.0}]
    assert reviews.in_order(pairs, [3, -2, 9, 1]) == 1
    assert reviews.in_order(pairs, [3, 2, 9, 0]) == pytest.approx(0.5)
    assert reviews.in_order(pairs, [0, 0, 5, 0]) == pytest.approx(0.5)


def test_the_judge_learns_words_and_words_counted_do_not():
    parts = reviews.draw_parts(0)
    pairs = reviews.comparisons(parts.test, 60, stream(1, "test"))
    judge = reviews.fit_judge(parts.others)
    assert reviews.in_order(pairs, reviews.differences(judge, pairs)) > 0.9
    assert reviews.count_words(["one two", "one"]).tolist() == [2, 1]
