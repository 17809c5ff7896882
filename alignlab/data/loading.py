"""One call for data in any of its usual forms: read, in TRL's columns, looked over."""

import csv
import gzip
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from alignlab.data import sources
from alignlab.data.checks import checks
from alignlab.data.columns import Row, column_names
from alignlab.data.formats import Formatted, leave_out_empty, to_columns
from alignlab.errors import AlignlabError, did_you_mean

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")


def load(
    source: object,
    split: str | None = None,
    path: str | Path | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    ranking: bool = False,
    decided_by: str | None = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    max_length: int | None = None,
    quiet: bool = False,
) -> "datasets.Dataset":
    """Data in TRL's columns: text | messages | prompt | prompt, completion (and label)
    | prompt, chosen, rejected. Columns of other names stay as they are.

    Which formats of rows are understood, says :func:`alignlab.data.formats.to_columns`.
    Prints what the data are, what was left out, and the counts of
    :func:`alignlab.data.checks.checks`.

    Args:
        source: dicts in a list, a generator or another iterable; a Dataset or streaming
            IterableDataset, or several by split (DatasetDict, or a dict of them); a
            dict of columns; a DataFrame of pandas or polars, or an Arrow table; a file
            (.jsonl, .json, .csv, .tsv, .parquet; the texts also as .gz); a folder with
            such files or from `save_to_disk`; a Hub id ("owner/name"), which is looked
            for in the folder ``$ALIGNLAB_HUB_MIRROR`` first; a name of the catalogue
            (``sources.DATASETS``), whose columns are those of its card.
        split: which one, where there are several. In the catalogue, "train", "test", or
            None; see :func:`alignlab.data.sources.load`.
        path: for names of the catalogue that come from the Hub: a folder with the
            files.
        columns: other names for columns, {theirs: ours}, where they are unknown or
            ambiguous.
        limit: read this many rows at most, before any is left out.
        ranking: of several scored completions give all, best first, instead of the best
            and the worst.
        decided_by: of two replies, the column that says which is better, where several
            do; in PKU-SafeRLHF it is "better_response_id" unless this is
            "safer_response_id".
        tokenizer: also check the rows as this tokenizer's chat template writes them.
        max_length: also count what is longer, in tokens; needs ``tokenizer``.
        quiet: print nothing.

    Raises:
        AlignlabError: if the source cannot be read, has no rows or several splits of
            which none is named, or its rows cannot be understood.
        ValueError: if ``path`` does not go with the source, limit is not positive, or
            max_length comes without a tokenizer.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; it is a number of rows, 1 or more")
    if max_length is not None and (tokenizer is None or max_length < 1):
        raise ValueError(f"max_length is {max_length}; it needs a tokenizer and is > 0")
    if card := _card_name(source):
        data = sources.load(card, split, path)
        data = data.select(range(min(limit or len(data), len(data))))
        data, formatted = _as_its_card_says(data)
        if columns or decided_by:
            formatted = to_columns(formatted.rows, columns, ranking, decided_by)
            data = None
    elif path is not None:
        raise ValueError(f"path is {path!r}; pass it as the source instead")
    else:
        rows = _rows(source, split, limit)
        if not rows:
            raise AlignlabError(f"{_name(source)} has no rows.", "Pass some.")
        data, formatted = None, to_columns(rows, columns, ranking, decided_by)
    if not formatted.rows:
        raise AlignlabError(
            f"No row of {_name(source)} is left: {_counted(formatted)}.",
            "See which columns were read, and say so with columns={theirs: ours}.",
        )
    if data is None:
        data = _dataset(formatted.rows)
    if not quiet:
        print(_summary(_name(source), formatted))
        print(checks(formatted.rows, tokenizer, max_length))
    return data


def _card_name(source: object) -> str | None:
    """The name in the catalogue, of a name or of a Hub id; None if there is none."""
    if not isinstance(source, str):
        return None
    return source if source in sources.DATASETS else sources.by_hub_id(source)


def _as_its_card_says(
    data: "datasets.Dataset",
) -> tuple["datasets.Dataset", Formatted]:
    """A data set of the catalogue without empty completions. Its columns stay: labels
    there are those of a question's options and the like."""
    rows, left_out = data.to_list(), {}
    if {"chosen", "completion"} & {*data.column_names}:
        format = "preference" if "chosen" in data.column_names else "prompt-completion"
        kept = [not leave_out_empty([row], format)[1] for row in rows]
        _, left_out = leave_out_empty(rows, format)
        data = data.select([number for number, keep in enumerate(kept) if keep])
        rows = [row for row, keep in zip(rows, kept, strict=True) if keep]
    return data, Formatted(rows, "as its card says", [], left_out)


def _summary(name: str, formatted: Formatted) -> str:
    columns = ", ".join(formatted.rows[0])
    lines = [f"{name}: {formatted.format} ({columns})"]
    lines += [f"  {note}" for note in formatted.notes]
    if formatted.left_out:
        lines.append(f"  left out: {_counted(formatted)}")
    return "\n".join(lines)


def _counted(formatted: Formatted) -> str:
    return ", ".join(f"{n:,} {reason}" for reason, n in formatted.left_out.items())


def _name(source: object) -> str:
    if isinstance(source, str | Path):
        return Path(source).name if Path(source).exists() else str(source)
    return f"The {type(source).__name__}"


def _dataset(rows: list[Row]) -> "datasets.Dataset":
    import datasets

    table = {name: [row[name] for row in rows] for name in column_names(rows)}
    loose = {name: _loose_feature(cells) for name, cells in table.items()}
    loose = {name: feature for name, feature in loose.items() if feature is not None}
    strict = {name: cells for name, cells in table.items() if name not in loose}
    try:
        plain = datasets.Dataset.from_dict(strict)
        if not loose:
            return plain
        return datasets.Dataset.from_dict(
            table, datasets.Features({**plain.features, **loose})
        )
    except Exception as error:  # of Arrow, about one of the columns
        for name, values in strict.items():
            try:
                datasets.Dataset.from_dict({name: values})
            except Exception as reason:
                raise AlignlabError(
                    f"The column {name} holds values of different types: {reason}.",
                    "Give it one type in every row, or leave it out.",
                ) from error
        raise


def _loose_feature(cells: list) -> object | None:
    """A type for dicts, or lists of them, that differ in their keys: Arrow would give
    each the keys of all, and a chat template take a tool call of None for one."""
    import datasets

    def differ(dicts: list) -> bool:
        return len({frozenset(each) for each in dicts}) > 1

    full = [cell for cell in cells if cell is not None]
    if full and all(isinstance(cell, dict) for cell in full) and differ(full):
        return datasets.Json()
    parts = [p for cell in full for p in (cell if isinstance(cell, list) else [None])]
    if parts and all(isinstance(part, dict) for part in parts) and differ(parts):
        return datasets.List(datasets.Json())
    return None


# --- Rows of whatever it is -------------------------------------------------------


def _rows(source: object, split: str | None, limit: int | None) -> list[Row]:
    if isinstance(source, str | Path):
        source = _from_disk_or_hub(source)
    source = _one_split(source, split)
    if type(source).__module__.partition(".")[0] == "pyarrow":
        import datasets

        source = datasets.Dataset(source)  # reads the names of class labels
    if hasattr(source, "features") and hasattr(source, "with_format"):
        return _dataset_rows(source, limit)
    return [_plain_row(i, row) for i, row in enumerate(islice(_iterate(source), limit))]


def _one_split(source: object, split: str | None) -> object:
    """The data of one split; what has no splits is returned as it is."""
    by_split = isinstance(source, Mapping) and source
    if not by_split or not all(map(_is_data, source.values())):
        if split is not None:
            raise AlignlabError(
                f"split is {split!r}, and {_name(source)} has no splits.",
                "Leave split out.",
            )
        return source
    first = next(iter(source))
    if split is None and len(source) > 1:
        raise AlignlabError(
            f"There are several splits: {', '.join(map(str, source))}.",
            f'Name one: split="{first}".',
        )
    if split is not None and split not in source:
        raise AlignlabError(
            f"There is no split {split!r}.", did_you_mean(split, source)
        )
    return source[first if split is None else split]


def _is_data(value: object) -> bool:
    """Whether this is data of its own, not a column."""
    if isinstance(value, list):
        rows = [isinstance(row, Mapping) and not _is_message(row) for row in value]
        return bool(rows) and all(rows)
    return hasattr(value, "column_names") or hasattr(value, "columns")


def _is_message(row: object) -> bool:
    return isinstance(row, Mapping) and not {"role", "from"}.isdisjoint(row)


def _dataset_rows(data: object, limit: int | None) -> list[Row]:
    """Rows of a Dataset or IterableDataset, a class label by its name."""
    rows = [dict(row) for row in islice(data.with_format(None), limit)]
    label = (data.features or {}).get("label")
    if hasattr(label, "int2str"):
        for row in rows:
            has_label = row["label"] is not None and row["label"] >= 0
            row["label"] = label.int2str(row["label"]) if has_label else None
    return rows


def _iterate(source: object) -> Iterator:
    if hasattr(source, "iter_rows"):  # polars
        return source.iter_rows(named=True)
    if hasattr(source, "to_dict") and hasattr(source, "columns"):  # pandas
        return iter(source.to_dict(orient="records"))
    if isinstance(source, Mapping):
        return iter(_rows_of_columns(source))
    is_sequence = hasattr(source, "__getitem__") and not isinstance(source, bytes)
    if isinstance(source, Iterable) or is_sequence:  # torch's have no __iter__
        return iter(source)
    raise AlignlabError(
        f"{_name(source)} is no data that can be read.",
        "Call it and pass what it gives."
        if callable(source)
        else "Pass a list of dicts.",
    )


def _rows_of_columns(table: Mapping) -> list[Row]:
    columns = {name: list(cells) for name, cells in table.items() if _is_column(cells)}
    sizes = {len(cells) for cells in columns.values()}
    if len(columns) < len(table) or len(sizes) > 1:
        raise AlignlabError(
            f"The dict with {', '.join(map(str, table))} is neither columns of one "
            "length nor data by split.",
            "A single row goes into a list: [row].",
        )
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _is_column(cells: object) -> bool:
    """Whether this has a cell for each row; a list of messages is one cell."""
    if isinstance(cells, str | bytes | Mapping) or not isinstance(cells, Iterable):
        return False
    return not (isinstance(cells, list) and any(map(_is_message, cells)))


def _plain_row(number: int, row: object) -> Row:
    if not isinstance(row, Mapping):
        raise AlignlabError(
            f"Row {number} is a {type(row).__name__} ({str(row)[:60]!r}), not a dict.",
            'Name its columns: [{"prompt": …}, …] or [{"text": …}, …].',
        )
    return {str(name): _plain(value) for name, value in row.items()}


def _plain(value: object) -> object:
    """Without the types of numpy and pandas, in which a table holds lists and gaps."""
    if isinstance(value, str | bool | int):
        return value
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    is_gap = isinstance(value, float) and math.isnan(value)
    return None if is_gap or type(value).__name__ in ("NAType", "NaTType") else value


# --- Files, folders, the Hub ------------------------------------------------------


def _from_disk_or_hub(source: str | Path) -> object:
    """Rows of a file, or the splits of a folder or of a data set on the Hub."""
    place = Path(source).expanduser()
    if place.is_file():
        return _file_rows(place)
    if place.is_dir():
        return _load_dataset(str(place), "Give a folder with files of one format.")
    text = str(source)
    is_file = text.removesuffix(".gz").endswith(SUFFIXES)
    if is_file or isinstance(source, Path) or text.startswith((".", "/", "~")):
        raise AlignlabError(
            f"There is no file or folder '{text}'.",
            f"Give a path as seen from {Path.cwd()}, or a Hub id.",
        )
    if text.count("/") != 1:
        raise AlignlabError(
            f"Unknown data set '{text}': neither in the catalogue nor a file.",
            f"{did_you_mean(text, sorted(sources.DATASETS))} On the Hub it has an "
            f'owner: "owner/{text}".',
        )
    remedy = "Reach the Hub, or give the path of a file or folder."
    return _load_dataset(sources.hub_place(text), remedy)


def _load_dataset(where: str, remedy: str) -> object:
    import datasets

    saved = ("dataset_dict.json", "state.json")
    try:
        if any((Path(where) / name).is_file() for name in saved):
            return datasets.load_from_disk(where)
        return datasets.load_dataset(where)
    except Exception as error:  # a dozen types: no network, no such id, odd files
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise AlignlabError(
            f"Cannot load data from '{where}': {reason.rstrip('.')}.", remedy
        ) from error


def _file_rows(file: Path) -> object:
    """Rows of one file; JSON may also hold columns, or rows by split."""
    kind = "".join(file.suffixes[-2:]).removesuffix(".gz").lower()
    kind = "." + kind.rsplit(".", 1)[-1]
    if kind not in SUFFIXES:
        raise AlignlabError(
            f"'{file}' is of no format that is read.", f"Give {', '.join(SUFFIXES)}."
        )
    try:
        if kind == ".parquet":
            import datasets

            return datasets.Dataset.from_parquet(str(file), keep_in_memory=True)
        opened = gzip.open if file.suffix == ".gz" else open
        with opened(file, "rt", encoding="utf-8-sig", newline="") as text:
            if kind in (".csv", ".tsv"):
                return _table_rows(text, "\t" if kind == ".tsv" else ",")
            return _json_rows(text.read(), by_line=kind != ".json")
    except Exception as error:  # of the file, or of what reads Parquet
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise AlignlabError(
            f"Cannot read '{file}': {reason.rstrip('.')}.", "Mend the file."
        ) from error


def _table_rows(text: Iterable[str], delimiter: str) -> list[Row]:
    csv.field_size_limit(2**31 - 1)
    rows = list(csv.DictReader(text, delimiter=delimiter))
    for number, row in enumerate(rows):
        if None in row or None in row.values():
            raise ValueError(f"row {number} has more or fewer cells than the header")
    return rows


def _json_rows(text: str, by_line: bool) -> object:
    """One row a line, or a list of rows, or a dict of columns or of splits."""
    try:
        whole = (
            None if by_line and not text.lstrip().startswith("[") else json.loads(text)
        )
    except ValueError:  # some .json files have a row a line
        whole = None
    if isinstance(whole, Mapping):
        cells = list(whole.values())
        return (
            whole
            if all(map(_is_data, cells)) or all(map(_is_column, cells))
            else [whole]
        )
    if whole is not None:
        return whole
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
    return rows
