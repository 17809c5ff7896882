"""Two replies to one prompt, and a column that says which is the better one, as many
preference data sets have them: rows with chosen and rejected instead.

A data set of another layout gets the names of one of these by ``columns``.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, NoReturn

from alignlab.data.columns import Row, column_names, in_row, listed
from alignlab.data.dialogues import messages_or_text
from alignlab.data.scored import SCORE_NAMES
from alignlab.errors import AlignlabError


class Layout(NamedTuple):
    """How a data set writes comparisons.

    Attributes:
        replies: where the first and the second are; "a.0.b" is b of the first in a.
        verdicts: what each column that can decide says: 0 if the first reply is better,
            1 if the second is, None if neither. Of several, the first decides.
        prompt: where it may be, if there is no column `prompt`; the first that is full.
    """

    replies: tuple[str, str]
    verdicts: Mapping[str, Callable[[object], int | None]]
    prompt: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(_column(path) for path in self.replies))


# --- What a verdict says --------------------------------------------------------------


def _place(verdict: object) -> int:
    number = _number(verdict)
    if number not in (0, 1):
        raise ValueError(f"is {verdict!r}; it can be 0 or 1")
    return int(number)


def _first_if_one(verdict: object) -> int:
    return 1 - _place(verdict)


def _second_if_positive(verdict: object) -> int | None:
    number = _number(verdict)
    if number is None or number != number:
        raise ValueError(f"is {verdict!r}; it can be a number, 0 for a tie")
    return int(number > 0) if number else None


def _winner(verdict: object) -> int | None:
    word = re.sub(r"^(model|response|assistant)_|\W|_", "", str(verdict).casefold())
    if word not in ("a", "b", "tie", "bothbad", "tiebothbad"):
        raise ValueError(f"is {verdict!r}; it can be model_a, model_b or tie")
    return {"a": 0, "b": 1}.get(word)


def _number(verdict: object) -> float | None:
    try:
        return float(verdict)
    except (TypeError, ValueError):
        return None


LAYOUTS = (
    # PKU-SafeRLHF
    Layout(
        ("response_0", "response_1"),
        {"better_response_id": _place, "safer_response_id": _place},
    ),
    # SHP
    Layout(("human_ref_A", "human_ref_B"), {"labels": _first_if_one}, ("history",)),
    # HelpSteer 2 and 3
    Layout(("response_1", "response_2"), {"preference_strength": _second_if_positive}),
    Layout(
        ("response1", "response2"),
        {"overall_preference": _second_if_positive},
        ("context",),
    ),
    # OpenAI: summaries of posts and of articles; WebGPT, whose replies have scores
    Layout(
        ("summaries.0.text", "summaries.1.text"),
        {"choice": _place},
        ("info.post", "info.article"),
    ),
    Layout(("answer_0", "answer_1"), {}, ("question.full_text",)),
    # Chatbot Arena, MT-Bench
    Layout(("conversation_a", "conversation_b"), {"winner": _winner}),
    Layout(("response_a", "response_b"), {"winner": _winner}),
)

_REPLY = "response answer completion output reply generation summary conversation"
_BESIDE_REPLY = "model assistant human candidate text"
_NUMBERED = {"0": "1", "1": "2", "a": "b"}
_DECIDED = {"chosen", "rejected", "completion", "completions"}


# --- Rows -----------------------------------------------------------------------------


def pairs_by_verdict(
    rows: Sequence[Row], alone: set[str], decided_by: str | None = None
) -> tuple[list[Row], list[str], dict[str, int]]:
    """Rows with chosen and rejected instead of two replies, notes about it, and how
    many rows are left out because neither is better.

    Replies that have scores instead of a verdict become `completions` with `scores`.
    Rows of any other kind are returned as they are.

    Args:
        rows: dicts.
        alone: columns that are not to be read.
        decided_by: the column that says which reply is better, where several do.

    Raises:
        AlignlabError: if nothing that is known says which reply is better, the verdict
            of a row is unknown, decided_by is no such column, or all are ties.
    """
    names = [name for name in column_names(rows) if name not in alone]
    layout = None if _DECIDED.intersection(names) else _layout(names)
    verdicts = [] if layout is None else [v for v in layout.verdicts if v in names]
    if decided_by is not None and decided_by not in verdicts:
        raise AlignlabError(
            f"decided_by is {decided_by!r}, which is no verdict on two replies that is "
            f"known here; the columns are {listed(names)}.",
            f"Name one of {', '.join(verdicts)}." if verdicts else "Leave it out.",
        )
    if layout is None:
        return list(rows), [], {}
    _require_no_third(layout, names)
    if verdicts:
        return _judged(rows, layout, decided_by or verdicts[0], verdicts)
    if scores := _score_columns(layout, names):
        return _with_scores(rows, layout, scores), [], {}
    _refuse_undecided(layout, names)


def _layout(names: Sequence[str]) -> Layout | None:
    """The first that has its replies and a verdict here, else the first with replies,
    else two columns that look like replies and are not beside a completion."""
    known = [each for each in LAYOUTS if set(each.columns) <= set(names)]
    decided = [each for each in known if set(each.verdicts).intersection(names)]
    unknown = [] if known else [Layout(pair, {}) for pair in _numbered(names)]
    return next(iter(decided + known + unknown), None)


def _numbered(names: Sequence[str]) -> list[tuple[str, str]]:
    """Columns such as output_1 and output_2, or answerA and answerB."""
    if {"response", "output", "answer", "messages", "conversations"} & {*names}:
        return []
    words = {
        tuple(re.findall(r"[a-z]+|\d+", re.sub(r"([A-Z])", r"_\1", name).lower())): name
        for name in names
    }
    pairs = []
    for first in words:
        for place, word in enumerate(first):
            others = {*first[:place], *first[place + 1 :]}
            second = (*first[:place], _NUMBERED.get(word), *first[place + 1 :])
            is_reply = others.intersection(_REPLY.split())
            known = f"{_REPLY} {_BESIDE_REPLY}".split()
            if second in words and is_reply and others.issubset(known):
                pairs.append((words[first], words[second]))
    return pairs


def _judged(
    rows: Sequence[Row], layout: Layout, verdict: str, verdicts: Sequence[str]
) -> tuple[list[Row], list[str], dict[str, int]]:
    kept, left_out, otherwise = [], Counter(), Counter()
    for number, row in enumerate(rows):
        with in_row(number):
            replies, others = _parts(row, layout, [verdict])
            better = _better(row, verdict, layout)
        for name in verdicts:
            with suppress(ValueError):  # it decides nothing
                otherwise[name] += _better(row, name, layout) != better
        if better is None:
            left_out[f"whose {verdict} is a tie"] += 1
        else:
            sides = {"chosen": replies[better], "rejected": replies[1 - better]}
            kept.append(others | sides)
    if not kept and rows:
        raise AlignlabError(
            f"No row holds a preference: {verdict} is a tie in all {len(rows)}.",
            "Pass others.",
        )
    notes = [f"{verdict} decides which of {' and '.join(layout.replies)} is chosen"]
    notes += [
        f"{name} says otherwise in {count:,} of {len(rows):,} rows; "
        f'decided_by="{name}" goes by it'
        for name, count in otherwise.items()
        if count
    ]
    return kept, notes, dict(left_out)


def _better(row: Row, verdict: str, layout: Layout) -> int | None:
    try:
        return layout.verdicts[verdict](row.get(verdict))
    except ValueError as error:
        raise ValueError(f"{verdict} {error}") from error


def _parts(
    row: Row, layout: Layout, needed: Sequence[str]
) -> tuple[tuple[object, object], Row]:
    """The replies, and the other columns with the prompt among them."""
    if missing := [n for n in (*layout.columns, *needed) if n not in row]:
        raise ValueError(f"there is no {' and no '.join(missing)}")
    replies = tuple(messages_or_text(_at(row, path)) for path in layout.replies)
    others = {name: row[name] for name in row if name not in layout.columns}
    if "prompt" not in row:
        prompts = {path: _at(row, path) for path in layout.prompt}
        path = next((path for path in prompts if prompts[path]), None)
        if path is not None:
            others = {"prompt": prompts[path]} | others
            others.pop(path, None)
    return replies, others


def _at(row: object, path: str) -> object:
    """What is there; None where there is nothing. A list of dicts may also be written
    as a dict of lists."""
    value = row
    for key in path.split("."):
        if isinstance(value, list | tuple):
            value = value[int(key)] if int(key) < len(value) else None
        elif not isinstance(value, Mapping):
            return None
        elif key.isdigit():
            cells = {name: cell[int(key) :] for name, cell in value.items()}
            value = {name: cell[0] for name, cell in cells.items() if len(cell)}
        else:
            value = value.get(key)
    return value


def _column(path: str) -> str:
    return path.partition(".")[0]


def _score_columns(layout: Layout, names: Sequence[str]) -> list[str]:
    """Such as score_0 and score_1 beside answer_0 and answer_1."""
    ends = [re.search(r"_?.$", path)[0] for path in layout.replies]
    scores = [[name + end for end in ends] for name in SCORE_NAMES]
    return next((pair for pair in scores if set(pair) <= set(names)), [])


def _with_scores(
    rows: Sequence[Row], layout: Layout, scores: Sequence[str]
) -> list[Row]:
    """Rows with `completions` and `scores` instead of replies with a score each."""
    made = []
    for number, row in enumerate(rows):
        with in_row(number):
            replies, others = _parts(row, layout, scores)
        others = {name: value for name, value in others.items() if name not in scores}
        values = [row[name] for name in scores]
        made.append(others | {"completions": list(replies), "scores": values})
    return made


def _require_no_third(layout: Layout, names: Sequence[str]) -> None:
    second = layout.replies[1]
    third = second[:-1] + chr(ord(second[-1]) + 1)
    if third in names:
        raise AlignlabError(
            f"There are more than two replies: {', '.join((*layout.replies, third))}.",
            "Put them into one list, `completions`, and their scores into another, "
            f'`scores`; or pass columns={{"{third}": "{third}"}} to read two of them.',
        )


def _refuse_undecided(layout: Layout, names: Sequence[str]) -> NoReturn:
    first, second = layout.replies
    if layout.verdicts:
        decides = next(iter(layout.verdicts))
        remedy = f'columns={{"theirs": "{decides}"}}'
    else:
        remedy = (
            f'columns={{"{first}": "response_0", "{second}": "response_1", "theirs": '
            '"better_response_id"}, where theirs is 0 or 1'
        )
    alone = f'columns={{"{layout.columns[0]}": "{layout.columns[0]}"}}'
    raise AlignlabError(
        f"There are two replies, {first} and {second}, and nothing that is known says "
        f"which is better; the columns are {listed(names)}.",
        f"Name the column that does: {remedy}; or pass {alone} if they are not to be "
        "read.",
    )
