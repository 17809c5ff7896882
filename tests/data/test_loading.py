"""Loading: data in every usual form, and what is said about it."""

import gzip
import json

import datasets
import numpy as np
import pandas as pd
import pyarrow
import pytest

from alignlab import data
from alignlab.data import sources
from alignlab.errors import AlignlabError
from tests.data.test_checks import tokenizer  # noqa: F401  a fixture

ROWS = [
    {"prompt": f"Question {i}?", "completion": f"Answer {i}.", "id": i}
    for i in range(4)
]
OTHERS = [{"prompt": "Other?", "completion": "Yes."}]
SKY = [{"role": "user", "content": "Sky?"}]
BLUE = [{"role": "assistant", "content": "Blue."}]
GREEN = [{"role": "assistant", "content": "Green."}]
PAIR = {"prompt": SKY, "chosen": BLUE, "rejected": GREEN}
TRANSCRIPTS = {
    "chosen": "\n\nHuman: Sky?\n\nAssistant: Blue.",
    "rejected": "\n\nHuman: Sky?\n\nAssistant: Green.",
}
EMPTY = TRANSCRIPTS | {"chosen": "\n\nHuman: Sky?\n\nAssistant: "}


def generator():
    yield from ROWS


class Indexed:
    """A data set as torch has them: by number, until there is none."""

    def __getitem__(self, number):
        return ROWS[number]


def stream():
    return datasets.IterableDataset.from_generator(generator)


def columns_of(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


FORMS = {
    "list": lambda: ROWS,
    "tuple": lambda: tuple(ROWS),
    "generator": generator,
    "map": lambda: map(dict, ROWS),
    "indexed": Indexed,
    "Dataset": lambda: datasets.Dataset.from_list(ROWS),
    "Dataset that gives arrays": lambda: datasets.Dataset.from_list(ROWS).with_format(
        "numpy"
    ),
    "IterableDataset": stream,
    "DatasetDict of one": lambda: datasets.DatasetDict(
        train=datasets.Dataset.from_list(ROWS)
    ),
    "columns": lambda: columns_of(ROWS),
    "DataFrame": lambda: pd.DataFrame(ROWS, index=list("abcd")),
    "Arrow": lambda: pyarrow.Table.from_pylist(ROWS),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_a_dataset(form, capsys):
    loaded = data.load(FORMS[form]())
    assert isinstance(loaded, datasets.Dataset)
    assert loaded.to_list() == ROWS
    out = capsys.readouterr().out
    assert "prompt-completion (prompt, completion, id)" in out
    assert out.splitlines()[1].split() == ["rows", "4"]


@pytest.mark.parametrize("form", FORMS)
def test_limit_takes_the_first_rows(form):
    assert data.load(FORMS[form](), limit=2, quiet=True).to_list() == ROWS[:2]


def test_limit_stops_a_stream_early():
    def endless():
        while True:
            yield ROWS[0]

    assert len(data.load(endless(), limit=3, quiet=True)) == 3
    streaming = datasets.IterableDataset.from_generator(endless)
    assert len(data.load(streaming, limit=3, quiet=True)) == 3


@pytest.mark.parametrize(
    "make",
    [
        datasets.Dataset.from_list,
        pd.DataFrame,
        list,
        lambda rows: datasets.Dataset.from_list(rows).to_iterable_dataset(),
    ],
)
def test_splits_are_named(make):
    parts = {"train": make(ROWS), "test": make(OTHERS)}
    assert data.load(parts, "test", quiet=True).to_list() == OTHERS
    assert data.load(parts, split="train", quiet=True).to_list() == ROWS
    with pytest.raises(AlignlabError, match="several splits: train, test") as error:
        data.load(parts)
    assert 'split="train"' in error.value.remedy
    with pytest.raises(AlignlabError, match="Did you mean 'test'"):
        data.load(parts, "tests")


def test_a_split_of_data_without_splits_is_refused():
    with pytest.raises(AlignlabError, match="'train', and The list has no splits"):
        data.load(ROWS, "train")


def test_a_single_row_is_neither_columns_nor_splits():
    with pytest.raises(AlignlabError, match="single row goes into a list"):
        data.load({"prompt": "x", "completion": "y"})
    with pytest.raises(AlignlabError, match="single row goes into a list"):
        data.load({"messages": [*SKY, *BLUE]})


@pytest.mark.parametrize(
    ("source", "message", "remedy"),
    [
        ([], "The list has no rows", ""),
        (["Sky?"], "Row 0 is a str", '[{"text": …}, …]'),
        ([SKY], "Row 0 is a list", ""),
        (generator, "no data that can be read", "Call it"),
        (3, "no data that can be read", "list of dicts"),
        ([{"prompt": "x", "completion": ""}], "left: 1 with an empty completion", ""),
    ],
)
def test_what_is_no_data_is_refused(source, message, remedy):
    with pytest.raises(AlignlabError) as error:
        data.load(source)
    assert message in error.value.message and remedy in error.value.remedy


def test_wrong_arguments():
    with pytest.raises(ValueError, match="limit is 0"):
        data.load(ROWS, limit=0)
    with pytest.raises(ValueError, match="pass it as the source"):
        data.load(ROWS, path="folder")
    with pytest.raises(ValueError, match="needs a tokenizer"):
        data.load(ROWS, max_length=8, quiet=True)


def test_arrays_in_a_table_are_messages():
    """As pandas reads Parquet."""
    frame = pd.DataFrame([PAIR])
    for name in frame:
        frame[name] = [np.array(cell, dtype=object) for cell in frame[name]]
    assert data.load(frame, quiet=True).to_list() == [PAIR]


def test_a_dataset_that_gives_arrays_is_read_as_it_is_stored():
    table = datasets.Dataset.from_list([PAIR | {"scores": [0.1, 2.0]}])
    loaded = data.load(table.with_format("torch"), quiet=True)
    assert loaded.to_list() == [PAIR | {"scores": [0.1, 2.0]}]


def test_gaps_in_a_table_are_empty():
    rows = [{"prompt": "x", "completion": text} for text in ("y", np.nan, None, pd.NA)]
    loaded = data.load(pd.DataFrame(rows), quiet=True)
    assert loaded.to_list() == [{"prompt": "x", "completion": "y"}]


def test_rows_with_further_columns_keep_them():
    """datasets.Dataset.from_list would take the columns of the first row alone."""
    rows = [{"prompt": "x"}, {"prompt": "y", "solution": "z"}]
    loaded = data.load(rows, quiet=True)
    assert loaded["solution"][:] == [None, "z"]


def test_dicts_keep_the_keys_they_have():
    """Arrow alone would give each the keys of all, with None."""
    call = {"role": "assistant", "content": "", "tool_calls": [{"name": "look"}]}
    rows = [
        {"messages": [*SKY, *BLUE], "chat_template_kwargs": {}},
        {"messages": [*SKY, call], "chat_template_kwargs": {"think": False}},
    ]
    assert data.load(rows, quiet=True).to_list() == rows
    assert list(data.load(data.load(rows, quiet=True), quiet=True)) == rows


def test_columns_of_mixed_types_are_named():
    rows = [{"prompt": "x", "note": "a"}, {"prompt": "y", "note": [1]}]
    with pytest.raises(AlignlabError, match="column note holds values of different"):
        data.load(rows)


def test_columns_are_renamed():
    rows = [{"q": "Sky?", "a": "Blue."}]
    loaded = data.load(rows, columns={"q": "prompt", "a": "completion"}, quiet=True)
    assert loaded.to_list() == [{"prompt": "Sky?", "completion": "Blue."}]


def test_class_labels_are_read_by_their_names():
    """Here 0 is the good one."""
    features = datasets.Features(
        prompt=datasets.Value("string"),
        completion=datasets.Value("string"),
        label=datasets.ClassLabel(names=["chosen", "rejected"]),
    )
    rows = {"prompt": ["x", "y"], "completion": ["a", "b"], "label": [0, 1]}
    table = datasets.Dataset.from_dict(rows, features)
    for form in (table, table.to_iterable_dataset(), table.data.table):
        loaded = data.load(form, quiet=True)
        assert loaded["label"][:] == [True, False]


@pytest.mark.parametrize("labels", [["true", "false"], [1, -1], [1.0, 0.0], ["1", "0"]])
def test_labels_become_booleans(labels):
    rows = [{"prompt": "x", "completion": "y", "label": label} for label in labels]
    loaded = data.load(rows, quiet=True)
    assert loaded["label"][:] == [True, False]
    assert loaded.features["label"].dtype == "bool"


# --- Files ------------------------------------------------------------------------


def json_lines(rows):
    return "\n".join(json.dumps(row) for row in rows) + "\n\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.jsonl", json_lines(ROWS)),
        ("rows.jsonl", "\ufeff" + json_lines(ROWS)),
        ("rows.jsonl", json_lines(ROWS).replace("\n", "\r\n")),
        ("rows.json", json.dumps(ROWS)),
        ("rows.json", json.dumps(ROWS, indent=1)),
        ("rows.json", json_lines(ROWS)),
        ("rows.json", json.dumps({"data": ROWS}, indent=1)),
        ("rows.json", json.dumps(columns_of(ROWS))),
        ("v1.2-rows.jsonl", json_lines(ROWS)),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_json_files(tmp_path, name, text, packed):
    if packed:
        file = tmp_path / f"{name}.gz"
        file.write_bytes(gzip.compress(text.encode()))
    else:
        file = tmp_path / name
        file.write_bytes(text.encode())
    assert data.load(file, quiet=True).to_list() == ROWS
    assert data.load(str(file), quiet=True).to_list() == ROWS


def test_a_file_of_one_row(tmp_path):
    row = {"messages": [*SKY, *BLUE]}
    for name in ("row.json", "row.jsonl"):
        (tmp_path / name).write_text(json.dumps(row))
        assert data.load(tmp_path / name, quiet=True).to_list() == [row]


def test_a_json_file_with_splits(tmp_path):
    file = tmp_path / "rows.json"
    file.write_text(json.dumps({"train": ROWS, "test": OTHERS}))
    assert data.load(file, "test", quiet=True).to_list() == OTHERS
    with pytest.raises(AlignlabError, match="several splits: train, test"):
        data.load(file)


def test_tables(tmp_path):
    """Texts stay as they are: "NA" is no gap, and labels may be words."""
    rows = [
        {"prompt": "NA", "completion": 'two\nlines, "quoted"', "label": "false"},
        {"prompt": "007", "completion": "null", "label": "1"},
    ]
    expected = [rows[0] | {"label": False}, rows[1] | {"label": True}]
    frame = pd.DataFrame(rows)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.to_csv(tmp_path / "rows.tsv", index=False, sep="\t")
    frame.to_csv(tmp_path / "rows.csv.gz", index=False)
    for name in ("rows.csv", "rows.tsv", "rows.csv.gz"):
        assert data.load(tmp_path / name, quiet=True).to_list() == expected


def test_conversations_in_a_table(tmp_path):
    pd.DataFrame([PAIR]).to_csv(tmp_path / "pairs.csv", index=False)
    assert data.load(tmp_path / "pairs.csv", quiet=True).to_list() == [PAIR]


def test_parquet(tmp_path):
    datasets.Dataset.from_list([PAIR]).to_parquet(tmp_path / "pairs.parquet")
    assert data.load(tmp_path / "pairs.parquet", quiet=True).to_list() == [PAIR]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rows.jsonl", '{"prompt": "x"}\n{"prompt": \n', "line 2"),
        ("rows.csv", "prompt,completion\nx\n", "row 0 has more or fewer cells"),
        ("rows.csv", "prompt,completion\nx,y,z\n", "row 0 has more or fewer cells"),
        ("rows.jsonl", "", "has no rows"),
        ("rows.xlsx", "", "no format that is read"),
        ("rows.parquet", "nothing", "Cannot read"),
        ("rows.jsonl.gz", "nothing", "Cannot read"),
        ("rows.json", "3", "no data that can be read"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(AlignlabError, match=message):
        data.load(tmp_path / name)


def test_a_folder_with_files_of_splits(tmp_path):
    (tmp_path / "train.jsonl").write_text(json_lines(ROWS))
    (tmp_path / "test.jsonl").write_text(json_lines(ROWS[:1]))
    assert data.load(tmp_path, "test", quiet=True).to_list() == ROWS[:1]
    with pytest.raises(AlignlabError, match="several splits: train, test"):
        data.load(str(tmp_path))


def test_a_folder_that_was_saved(tmp_path):
    table = datasets.Dataset.from_list(ROWS)
    table.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=table, test=table.select([0])).save_to_disk(
        tmp_path / "two"
    )
    assert data.load(tmp_path / "one", quiet=True).to_list() == ROWS
    assert data.load(tmp_path / "two", "test", quiet=True).to_list() == ROWS[:1]


def test_what_is_nowhere_says_so(tmp_path, monkeypatch):
    with pytest.raises(AlignlabError, match="There is no file or folder 'rows.jsonl'"):
        data.load("rows.jsonl")
    with pytest.raises(AlignlabError, match="There is no file or folder"):
        data.load(tmp_path / "rows")
    with pytest.raises(AlignlabError, match="Did you mean 'sms_spam'") as error:
        data.load("sms_spma")
    assert "owner" in error.value.remedy
    with pytest.raises(AlignlabError, match="Cannot load data from"):
        data.load(tmp_path)  # an empty folder


def test_a_hub_id_goes_to_the_hub(monkeypatch):
    asked = []

    def offline(where):
        asked.append(where)
        raise ConnectionError("Couldn't reach the Hub\nlong trace")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(AlignlabError, match="Couldn't reach the Hub") as error:
        data.load("owner/name")
    assert len(str(error.value).splitlines()) == 1
    assert "path of a file or folder" in error.value.remedy

    parts = datasets.DatasetDict(test=datasets.Dataset.from_list([TRANSCRIPTS]))
    monkeypatch.setattr(datasets, "load_dataset", lambda where: parts)
    assert data.load("owner/name", quiet=True).to_list() == [PAIR]
    assert asked == ["owner/name"]


# --- The catalogue ----------------------------------------------------------------


@pytest.fixture
def hub_pairs(monkeypatch):
    """HH-RLHF with six rows, of which two have an empty completion."""
    rows = [TRANSCRIPTS, EMPTY, TRANSCRIPTS, TRANSCRIPTS, EMPTY, TRANSCRIPTS]
    parts = datasets.DatasetDict(test=datasets.Dataset.from_list(rows))
    monkeypatch.setattr(sources, "_load_hub", lambda card, where: parts)


def test_a_name_of_the_catalogue_goes_without_empty_completions(hub_pairs, capsys):
    loaded = data.load("hh_rlhf")
    assert len(loaded) == 4 and len(sources.load("hh_rlhf")) == 6
    texts = {
        name: TRANSCRIPTS[name.removesuffix("_text")]
        for name in ("chosen_text", "rejected_text")
    }
    assert loaded[0] == PAIR | texts
    assert loaded.info.license == "MIT"
    out = capsys.readouterr().out
    assert out.startswith("hh_rlhf: as its card says (prompt, chosen, rejected,")
    assert "left out: 2 with an empty completion" in out
    assert len(data.load("hh_rlhf", limit=2, quiet=True)) == 1


def test_labels_of_the_catalogue_are_those_of_its_cards(monkeypatch):
    """An index of the right option says nothing about good and bad."""
    rows = [{"prompt": "Which?", "completion": "C. c", "label": 2}]
    monkeypatch.setattr(sources, "load", lambda *_: datasets.Dataset.from_list(rows))
    assert data.load("mmlu", quiet=True).to_list() == rows
    renamed = data.load("mmlu", columns={"label": "option"}, quiet=True)
    assert renamed.to_list() == [
        {"prompt": "Which?", "completion": "C. c", "option": 2}
    ]


# --- What is printed --------------------------------------------------------------


def test_what_was_done_is_printed(capsys):
    odd = {
        "chosen": "\n\nHuman: Sky?\n\nAssistant: Blue.  Human: Sure?"
        "\n\nAssistant: Yes.",
        "rejected": "\n\nHuman: Sky?\n\nAssistant: Green.",
    }
    loaded = data.load([TRANSCRIPTS, EMPTY, odd, TRANSCRIPTS])
    assert loaded["chosen"][1] == [
        {"role": "assistant", "content": "Blue.  Human: Sure?"},
        {"role": "assistant", "content": "Yes."},
    ]
    assert capsys.readouterr().out.splitlines() == [
        "The list: preference (prompt, chosen, rejected)",
        "  chosen was a transcript (Human: … Assistant: …)",
        "  rejected was a transcript (Human: … Assistant: …)",
        "  left out: 1 with an empty completion",
        "  rows                            3",
        "  several turns                   1",
        "  completions with markers        1",
        "  duplicates                      1",
        "  no empty completions, empty prompts, identical pairs, unanswered, "
        "prompts with",
        "  markers, not scored better",
    ]


def test_lengths_are_printed(tokenizer, capsys):  # noqa: F811
    data.load([PAIR], tokenizer=tokenizer, max_length=5)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["too", "long", "1"] in lines and ["writes", "end", "yes"] in lines


def test_quiet_prints_nothing(capsys):
    data.load([TRANSCRIPTS, EMPTY], quiet=True)
    assert capsys.readouterr().out == ""
