"""Rows of training data: what is refused, what is left out and counted."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset, DatasetDict

from alignlab.errors import AlignlabError
from alignlab.models.dialogues import Dialogue, Plain
from alignlab.training.rows import (
    batches_of_like_length,
    drop_long,
    drop_uninformative,
    example_of,
    is_desirable,
    pair_of,
    require_columns,
    rows_of,
    template_arguments,
    warn_of_oddities,
)


def test_missing_columns_are_named_with_the_row():
    require_columns(0, {"prompt": "", "completion": "", "more": ""}, ("prompt",))
    with pytest.raises(AlignlabError, match=r"Row 3 has no b and no c; it has \['a'\]"):
        require_columns(3, {"a": 1}, ("a", "b", "c"))


ROWS = [{"prompt": "a", "label": True}, {"prompt": "b", "label": False}]


@pytest.mark.parametrize(
    "form",
    [
        lambda: tuple(ROWS),
        lambda: iter(ROWS),
        lambda: (row for row in ROWS),
        lambda: Dataset.from_list(ROWS),
        lambda: Dataset.from_list(ROWS).to_iterable_dataset(),
        lambda: Dataset.from_list(ROWS).data.table,
        lambda: pd.DataFrame(ROWS),
        lambda: Indexed(),
    ],
)
def test_rows_come_in_many_forms(form):
    assert rows_of(form()) == ROWS


class Indexed:
    """A data set as torch has them."""

    def __len__(self):
        return len(ROWS)

    def __getitem__(self, number):
        return ROWS[number]


def test_a_frames_empty_cells_are_missing_and_arrays_are_lists():
    turns = np.array([{"role": "user", "content": "Hi"}], dtype=object)
    frame = pd.DataFrame({"messages": [turns, turns], "margin": [0.5, None]})
    rows = rows_of(frame)
    assert rows == [{"messages": [*turns], "margin": 0.5}, {"messages": [*turns]}]


@pytest.mark.parametrize(
    "given, words",
    [
        (DatasetDict(train=Dataset.from_list(ROWS)), r"DatasetDict.*rows_\['train'\]"),
        ({"prompt": ["a", "b"]}, "from_dict"),
        ("rows.jsonl", "rows_ is 'rows.jsonl'.*data.load"),
        (None, "rows_ is None"),
        (lambda: ROWS, "has no rows"),
        ([ROWS[0], "b"], r"rows_\[1\] is no row with columns: 'b'"),
    ],
)
def test_what_has_no_rows_is_named(given, words):
    with pytest.raises(AlignlabError, match=words):
        rows_of(given, "rows_")


def test_labels_say_good_or_bad_or_are_refused():
    good = [True, 1, 1.0, np.True_, np.int64(1), torch.tensor(1), "true", " Yes", "+1"]
    good += ["accepted", "thumbs_up"]
    bad = [False, 0, -1, -1.0, np.False_, np.array(0), "false", "NO", "0", "-1", "bad"]
    assert all(is_desirable(0, label) is True for label in good)
    assert all(is_desirable(0, label) is False for label in bad)
    for label in (None, 2, 0.5, float("nan"), "perhaps", "", [1], np.array([1, 0])):
        with pytest.raises(AlignlabError, match="label of row 7 is"):
            is_desirable(7, label)


# --- Dialogues of a row ---------------------------------------------------------------

ASKED = {"role": "user", "content": "Is gold a metal?"}
YES, NO, SURE = (
    {"role": "assistant", "content": text} for text in ("Yes.", "No.", "Sure?")
)


def test_a_prompt_that_two_conversations_share_is_taken_out():
    whole = dict(chosen=[ASKED, YES], rejected=[ASKED, NO])
    expected = [Dialogue([ASKED], [ASKED, reply], 1) for reply in (YES, NO)]
    assert [*pair_of(0, whole)] == expected
    assert [*pair_of(0, whole | {"prompt": None, "margin": 1})] == expected
    assert [*pair_of(0, whole | {"prompt": ASKED["content"]})] == expected
    with pytest.raises(AlignlabError, match="Row 2 has no prompt"):
        pair_of(2, dict(chosen="Yes.", rejected="No."))
    with pytest.raises(AlignlabError, match="Row 2: .* does not begin with its prompt"):
        pair_of(2, whole | {"prompt": "Peru?"})


def test_completions_begin_where_conversations_part():
    chosen, rejected = [ASKED, YES, ASKED, YES], [ASKED, NO, ASKED, YES]
    starts = [side.start for side in pair_of(0, dict(chosen=chosen, rejected=rejected))]
    assert starts == [1, 1]
    longer = pair_of(0, dict(chosen=chosen[:2], rejected=chosen))  # one in the other
    assert [side.start for side in longer] == [1, 1]
    early = pair_of(0, dict(chosen=[SURE, *chosen][1:], rejected=[SURE, ASKED, NO][1:]))
    assert [side.start for side in early] == [1, 1]


def test_examples_have_many_formats():
    expected = Dialogue([ASKED], [ASKED, YES], 1)
    for row in (
        dict(prompt=ASKED["content"], completion="Yes."),
        dict(prompt=[ASKED], completion=[ASKED, YES]),
        dict(messages=[ASKED, YES]),
        dict(messages=[ASKED, YES], prompt=ASKED["content"], text=None),
        dict(prompt=ASKED["content"], completion=YES),
    ):
        assert example_of(0, row) == expected
    assert example_of(0, dict(text="Gold.")) == Plain("", "Gold.")
    plain = dict(prompt="Is gold", completion=" a metal?")
    assert example_of(0, plain, plain=True) == Plain(*plain.values())
    longer = example_of(0, dict(messages=[ASKED, NO, ASKED, YES]))
    assert longer.start == 3
    for row, words in (
        (dict(messages=[ASKED, YES], prompt="Peru?"), "not begin with its prompt"),
        (dict(messages=[ASKED]), "Row 4: .*does not end in an assistant"),
        (dict(prompt="Its number?", completion=79), "Row 4: 79 is neither a text"),
        (dict(prompt=[{"from": "human"}], completion="79"), "Row 4: Message 0 has no"),
        (dict(messages="Is gold?"), "Row 4: Its messages are 'Is gold"),
        (dict(chosen="Yes.", rejected="No."), "Row 4 has no prompt and no completion"),
    ):
        with pytest.raises(AlignlabError, match=words):
            example_of(4, row)


def test_a_rows_own_arguments_win_and_tools_come_along():
    given = {"enable_thinking": True, "tone": 1}
    assert template_arguments(0, {}, given) == given
    own = {"enable_thinking": False, "unset": None}  # as a table has them
    assert template_arguments(0, {"chat_template_kwargs": own}, given) == {
        "enable_thinking": False,
        "tone": 1,
    }
    as_text = {"chat_template_kwargs": '{"tone": 2}', "tools": '[{"name": "add"}]'}
    expected = {"tone": 2, "tools": [{"name": "add"}]}
    assert template_arguments(0, as_text) == expected
    for column, value in (("chat_template_kwargs", "quiet"), ("tools", {"name": 1})):
        with pytest.raises(AlignlabError, match=f"The {column} of row 3 are"):
            template_arguments(3, {column: value})
    with pytest.raises(AlignlabError, match="have add_generation_prompt"):
        template_arguments(3, {}, {"add_generation_prompt": True})


def test_what_is_odd_is_counted_once(tiny_tokenizer):
    empty, twice, marked, fine = (
        [Dialogue([], [ASKED, {"role": "assistant", "content": text}], 1)]
        for text in ("", "Is gold a metal? Yes.", "Yes.<|end|>", "Yes.")
    )
    asked = ASKED | {"content": "Is gold a metal, or is it not?"}
    reply = {"role": "assistant", "content": asked["content"] + " Yes."}
    twice = [Dialogue([], [asked, reply], 1)]
    with pytest.warns(UserWarning) as told:
        warn_of_oddities(tiny_tokenizer, [empty, twice, marked, fine, marked + fine])
    assert len(told) == 1
    for words in ("rows, those with an empty completion: 1;", "twice?): 1;", "?): 2"):
        assert words in str(told[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_oddities(tiny_tokenizer, [fine, [Plain("", "Yes.<|end|>")]])


# --- What is left out, and batches ----------------------------------------------------


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
