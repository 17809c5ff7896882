"""Several scored or ranked completions of one prompt, as UltraFeedback and Nectar have
them: the best against the worst, or all of them in order."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from alignlab.data.columns import (
    COMPLETION_NAMES,
    MESSAGES_NAMES,
    Row,
    column_names,
    listed,
    refuse_ambiguous,
)
from alignlab.data.dialogues import Message, is_blank, messages_or_text
from alignlab.errors import AlignlabError

# Of one completion, or in a list beside them; the first that is there counts.
SCORE_NAMES = ("overall_score", "score", "rating", "reward", "pm_score")
RANK_NAMES = ("rank", "ranking")  # 1 is the best
TEXT_NAMES = ("response", "text", "content", "completion", "answer", "generation")
# Other names of `completions`, if they have scores or ranks; see as_completions.
LIST_NAMES = ("generations", "generation_responses", "responses", "answers")


class Scored(NamedTuple):
    """A completion and its score; higher is better, so ranks are negative."""

    text: list[Message] | str
    score: float


def as_completions(rows: Sequence[Row], alone: set[str]) -> list[Row]:
    """Rows with `completions` instead of a list of another name, unless they have
    something else to learn from or that column is to be left alone.

    A list `answers` without scores is of right answers, and is left alone too.

    Raises:
        AlignlabError: if nothing says which of the replies is better, or there are two
            such lists.
        ValueError: if the replies are dicts and have no score.
    """
    names = {*column_names(rows)} - alone
    lists = [name for name in LIST_NAMES if name in names and _holds_lists(rows, name)]
    if not lists or names & {"chosen", "rejected", "completion", "completions"}:
        return list(rows)
    if len(lists) > 1:
        refuse_ambiguous([*names], lists)
    renamed = [
        {"completions" if name == lists[0] else name: row[name] for name in row}
        for row in rows
    ]
    if score_column(renamed) is not None:
        return renamed
    if names & {*COMPLETION_NAMES, *MESSAGES_NAMES}:
        return list(rows)
    raise AlignlabError(
        f"There are several replies in {lists[0]} and no scores or ranks that say "
        f"which is better; the columns are {listed(names)}.",
        'Name the list of their scores, columns={"theirs": "scores"}; or pass '
        f'columns={{"{lists[0]}": "{lists[0]}"}} if they are not to be read.',
    )


def _holds_lists(rows: Sequence[Row], name: str) -> bool:
    cells = [row[name] for row in rows if isinstance(row.get(name), list | tuple)]
    if name != "answers":
        return bool(cells)
    entries = [e for cell in cells for e in cell if isinstance(e, Mapping)]
    return any({*SCORE_NAMES, *RANK_NAMES}.intersection(entry) for entry in entries)


def score_column(rows: Sequence[Mapping]) -> str | None:
    """Where the scores are: the name of a column of lists, or of an entry of every
    completion; None where completions are texts in their order, best first.

    Raises:
        ValueError: if completions are dicts and have no score.
    """
    for name in SCORE_NAMES + RANK_NAMES:
        for column in (name, f"{name}s"):
            if any(isinstance(row.get(column), list | tuple) for row in rows):
                return column
    entries = [entry for row in rows for entry in row.get("completions") or []]
    if not any(map(_is_scored_entry, entries)):
        return None
    for name in SCORE_NAMES + RANK_NAMES:
        if any(_is_scored_entry(e) and e.get(name) is not None for e in entries):
            return name
    known = ", ".join(SCORE_NAMES + RANK_NAMES)
    raise ValueError(f"the completions have no score: none of {known}")


def _is_scored_entry(entry: object) -> bool:
    return isinstance(entry, Mapping) and "role" not in entry and "from" not in entry


def best_first(row: Mapping, column: str) -> list[Scored]:
    """The completions that have a score and a text, the best first; the order of equal
    ones stays.

    Raises:
        ValueError: if there are not as many scores as completions, or a score is
            neither a number nor missing.
    """
    entries = list(row.get("completions") or [])
    scores = row.get(column)
    if not isinstance(scores, list | tuple):
        scores = [entry.get(column) for entry in entries]
    if len(scores) != len(entries):
        raise ValueError(f"{len(entries)} completions have {len(scores)} scores")
    _, sign = _measure(column)
    pairs = zip(entries, scores, strict=True)
    known = [Scored(_text(entry), sign * _number(score)) for entry, score in pairs]
    known = [s for s in known if not math.isnan(s.score) and not is_blank(s.text)]
    return sorted(known, key=lambda scored: -scored.score)


def _text(entry: object) -> list[Message] | str:
    if not _is_scored_entry(entry):
        return messages_or_text(entry)
    name = next((name for name in TEXT_NAMES if name in entry), None)
    if name is None:
        raise ValueError(f"a completion has none of {', '.join(TEXT_NAMES)}")
    return messages_or_text(entry[name])


def _measure(column: str) -> tuple[str, int]:
    """What a column measures, and 1 if more of it is better, else -1."""
    return ("rank", -1) if column.removesuffix("s") in RANK_NAMES else ("score", 1)


def _number(score: object) -> float:
    """A score; NaN where there is none, as UltraFeedback's "N/A"."""
    if score is None or str(score).strip().upper() in ("", "N/A", "NA", "NONE"):
        return math.nan
    try:
        return float(score)
    except (TypeError, ValueError):
        raise ValueError(f"the score {score!r} is no number") from None


def pairs_of_best_and_worst(
    rows: Sequence[Mapping], column: str
) -> tuple[list[Row], dict[str, int]]:
    """Rows with chosen, rejected and their scores instead of completions, and how many
    rows hold no preference.

    Raises:
        ValueError: see :func:`best_first`.
    """
    kept, left_out = [], Counter()
    measure, sign = _measure(column)
    for row in rows:
        scored = best_first(row, column)
        if len(scored) < 2:
            left_out["with fewer than two scored completions"] += 1
        elif scored[0].score == scored[-1].score:
            left_out[f"whose completions all have the same {measure}"] += 1
        else:
            best, worst = scored[0], scored[-1]
            kept.append(
                _without(row, column)
                | {"chosen": best.text, "rejected": worst.text}
                | {f"{measure}_chosen": sign * best.score}
                | {f"{measure}_rejected": sign * worst.score}
            )
    return kept, dict(left_out)


def rankings(rows: Sequence[Mapping], column: str) -> tuple[list[Row], dict[str, int]]:
    """Rows whose completions are texts, best first and the same number in each, and how
    many rows have equal scores or another number.

    Raises:
        ValueError: see :func:`best_first`.
    """
    ranked = [best_first(row, column) for row in rows]
    measure, sign = _measure(column)
    sizes = Counter(len(scored) for scored in ranked if len(scored) > 1)
    size = sizes.most_common(1)[0][0] if sizes else 2
    kept, left_out = [], Counter()
    for row, scored in zip(rows, ranked, strict=True):
        if len(scored) != size:
            left_out[f"without {size} scored completions"] += 1
        elif len({entry.score for entry in scored}) < size:
            left_out[f"with completions of equal {measure}"] += 1
        else:
            texts = [entry.text for entry in scored]
            values = [sign * entry.score for entry in scored]
            kept.append(
                _without(row, column) | {"completions": texts, f"{measure}s": values}
            )
    return kept, dict(left_out)


def _without(row: Mapping, column: str) -> Row:
    names = {"completions", column}
    return {name: value for name, value in row.items() if name not in names}
