"""Rows of training data: what is refused, what is left out and counted."""

import warnings

import pytest

from alignlab.errors import AlignlabError
from alignlab.training.rows import (
    batches_of_like_length,
    drop_long,
    drop_uninformative,
    pair_of,
    require_columns,
)


def test_missing_columns_are_named_with_the_row():
    require_columns(0, {"prompt": "", "completion": "", "more": ""}, ("prompt",))
    with pytest.raises(AlignlabError, match=r"Row 3 has no b and no c; it has \['a'\]"):
        require_columns(3, {"a": 1}, ("a", "b", "c"))


def test_a_prompt_that_two_conversations_share_is_taken_out():
    turns = [{"role": "user", "content": "Is gold a metal?"}]
    replies = [[{"role": "assistant", "content": text}] for text in ("Yes.", "No.")]
    chosen, rejected = (turns + reply for reply in replies)
    expected = dict(prompt=turns, chosen=replies[0], rejected=replies[1])
    assert pair_of(0, dict(chosen=chosen, rejected=rejected)) == expected
    given = dict(prompt="", chosen=chosen, rejected=rejected)
    assert pair_of(0, given | {"margin": 1}) == given
    with pytest.raises(AlignlabError, match="row 2 differ before their last"):
        pair_of(2, dict(chosen=chosen, rejected=rejected[1:]))
    with pytest.raises(AlignlabError, match="Row 2 has no prompt"):
        pair_of(2, dict(chosen="Yes.", rejected="No."))


def test_what_is_left_out_is_counted_and_what_stays_keeps_its_order():
    items = [[[1], [2]], [[3], [3]], [[1, 2, 3], [4]], [[5, 5], [4]]]
    with pytest.warns(UserWarning, match="of 4 sets, 1 have .* 2 tokens and 1 compare"):
        kept = drop_uninformative(items, list, 2, "sets")
    assert kept == [items[0], items[3]]
    with pytest.warns(UserWarning, match="1 of 4 texts are longer than 2 tokens"):
        assert drop_long([[1], [2], [1, 2, 3], [3]], len, 2, "texts") == [[1], [2], [3]]
    with pytest.raises(AlignlabError, match="None is left"):
        drop_uninformative(items[1:3], list, 2)
    with pytest.raises(AlignlabError, match="2 examples fits into 0 .* shortest has 1"):
        drop_long([[1], [2, 3]], len, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert drop_uninformative(items[:1], list, 2) == items[:1]
        assert drop_long(items, len, 2) == items


def test_batches_without_rows_or_size_are_refused():
    for lengths, batch_size in (([], 4), ([1, 2], 0)):
        with pytest.raises(ValueError, match=f"batch_size is {batch_size} with"):
            next(batches_of_like_length(lengths, batch_size, 0))
