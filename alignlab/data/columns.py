"""Which column of the rows is what: TRL's names, the usual other ones, and what to say
where two readings are possible."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, NoReturn

from alignlab.errors import AlignlabError

Row = dict[str, object]

TRL_NAMES = (
    "text",
    "messages",
    "prompt",
    "completion",
    "completions",
    "chosen",
    "rejected",
    "label",
)
# Other names of TRL's columns. Where a row has TRL's own name, these mean nothing.
PROMPT_NAMES = ("question", "instruction", "query", "input")
COMPLETION_NAMES = ("response", "output", "answer", "generation")
MESSAGES_NAMES = ("messages", "conversations", "conversation")
SYSTEM_NAMES = ("system", "system_prompt")
ABOUT_NAMES = (
    "input",
    "context",
    "passage",
)  # what an instruction or question is about
# Names that can mean one thing only.
SYNONYMS = {
    "chosen_response": "chosen",
    "rejected_response": "rejected",
    "preferred_output": "chosen",
    "non_preferred_output": "rejected",
    "response_j": "chosen",  # of pairs from Stack Exchange
    "response_k": "rejected",
}


class Reading(NamedTuple):
    """How rows are read.

    Attributes:
        columns: names of the columns, {ours: theirs}.
        context: further columns whose texts become part of the prompt.
        beside: columns that must repeat what these say, or the rows are ambiguous.
    """

    columns: dict[str, str]
    context: frozenset[str] = frozenset()
    beside: tuple[str, ...] = ()

    @property
    def format(self) -> str:
        if "chosen" in self.columns:
            return "preference"
        if "completions" in self.columns:
            return "ranking"
        if "completion" in self.columns:
            unpaired = "label" in self.columns
            return "unpaired preference" if unpaired else "prompt-completion"
        return "prompt-only" if "prompt" in self.columns else "language modelling"


@contextmanager
def in_row(number: int) -> Iterator[None]:
    """Say which row a ValueError is about, as an error for users."""
    try:
        yield
    except ValueError as error:
        raise AlignlabError(
            f"Row {number}: {error}.",
            "Mend the row or leave it out; if a column is something else, say so with "
            "columns={theirs: ours}.",
        ) from error


def column_names(rows: Sequence[Mapping]) -> list[str]:
    """Every column that some row has, in the order of their first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def rename(rows: Sequence[Mapping], columns: Mapping[str, str]) -> list[Row]:
    """Rows with the names that ``columns`` gives, {theirs: ours}, and with ours for
    names that can mean one thing only.

    Raises:
        AlignlabError: if a column is not there, or two would have the same name.
    """
    names = column_names(rows)
    if missing := [name for name in columns if name not in names]:
        raise AlignlabError(
            f"columns names {missing[0]!r}, and no row has it.",
            f"The columns are {listed(names)}; give columns={{theirs: ours}}.",
        )
    unchanged = [name for name in names if name not in columns]
    for theirs, ours in columns.items():
        if ours in unchanged or list(columns.values()).count(ours) > 1:
            raise AlignlabError(
                f"columns calls {theirs!r} {ours!r}, and another column is called so.",
                f'Give that one a new name: columns={{"{ours}": "other_{ours}", …}}.',
            )
    taken = {*names, *columns.values()}
    new = {old: ours for old, ours in SYNONYMS.items() if ours not in taken}
    new |= columns
    return [{new.get(name, name): row[name] for name in row} for row in rows]


def find_columns(names: Sequence[str]) -> Reading:
    """How rows with these columns are read.

    Raises:
        AlignlabError: if there is nothing to train on, half of a pair, or more than one
            way to read them.
    """
    columns = _columns(names)
    context = {name for name in SYSTEM_NAMES if "text" not in columns}
    if columns.get("prompt") in ("instruction", "question"):
        context |= {*ABOUT_NAMES, "history"}
    beside = [name for name in (*MESSAGES_NAMES, "text") if name in names]
    if columns.keys() & {"messages", "text"} and "prompt" in names:
        beside.append("prompt")
    if columns.keys() == {"prompt"}:
        beside = []
    beside = tuple(name for name in beside if name not in columns.values())
    return Reading(columns, frozenset(context.intersection(names)), beside)


def _columns(names: Sequence[str]) -> dict[str, str]:
    prompt = _prompt(names)
    label = {"label": "label"} if "label" in names else {}
    if sides := [name for name in ("chosen", "rejected") if name in names]:
        rivals = [name for name in ("completion", "completions") if name in names]
        if len(sides) < 2:
            _refuse_half(names, sides[0])
        if rivals:
            refuse_ambiguous(names, [*rivals, *sides])
        return prompt | {"chosen": "chosen", "rejected": "rejected"}
    for name in ("completions", "completion"):
        if name in names and not prompt:
            raise AlignlabError(
                f"There is a {name} and no prompt; the columns are {listed(names)}.",
                'Say which column is the prompt: columns={"theirs": "prompt"}.',
            )
    if "completions" in names:
        if "completion" in names:
            refuse_ambiguous(names, ["completion", "completions"])
        return prompt | {"completions": "completions"}
    if "completion" in names:
        return prompt | {"completion": "completion"} | label
    if chats := [name for name in MESSAGES_NAMES if name in names]:
        if len(chats) > 1:
            refuse_ambiguous(names, chats)
        return {"messages": chats[0]}
    if prompt and (answers := [name for name in COMPLETION_NAMES if name in names]):
        asked = _asked(names)
        # `answer` beside TRL's own `prompt`: to learn, or to check replies by?
        if (
            len(asked) > 1
            or len(answers) > 1
            or asked + answers == ["prompt", "answer"]
        ):
            refuse_ambiguous(names, [*answers, *asked])
        return prompt | {"completion": answers[0]} | label
    if "text" in names:
        return {"text": "text"}
    if prompt:
        return prompt
    raise AlignlabError(
        f"Nothing to train on was found in the columns {listed(names)}.",
        "Say what they are: columns={theirs: ours}, where ours are "
        f"{', '.join(TRL_NAMES)}.",
    )


def _asked(names: Sequence[str]) -> list[str]:
    """Columns that can be the prompt; Alpaca's `input` belongs to its `instruction`."""
    asked = [name for name in ("prompt", *PROMPT_NAMES) if name in names]
    return [n for n in asked if n != "input" or "instruction" not in names]


def _prompt(names: Sequence[str]) -> dict[str, str]:
    asked = ["prompt"] if "prompt" in names else _asked(names)
    if len(asked) > 1:
        refuse_ambiguous(names, asked)
    return {"prompt": asked[0]} if asked else {}


def refuse_ambiguous(names: Sequence[str], rivals: Sequence[str]) -> NoReturn:
    """Say which columns leave open how to read the rows, the one to ask about first.

    Raises:
        AlignlabError: always.
    """
    asked = rivals[0]
    is_ours = asked in TRL_NAMES
    ours = "prompt" if asked in PROMPT_NAMES else "completion"
    alone = f'columns={{"{asked}": "{f"other_{asked}" if is_ours else asked}"}}'
    read = "" if is_ours else f' or columns={{"{asked}": "{ours}"}} if it is that'
    raise AlignlabError(
        f"The columns {' and '.join(rivals)} can be read in more than one way (there "
        f"are {listed(names)}).",
        f"Pass {alone} if {asked} is not to be read{read}.",
    )


def _refuse_half(names: Sequence[str], side: str) -> NoReturn:
    other = {"chosen": "rejected", "rejected": "chosen"}[side]
    raise AlignlabError(
        f"There is a column {side} and no {other}; the columns are {listed(names)}.",
        f'Name the other, columns={{"theirs": "{other}"}}, or learn from one alone: '
        f'columns={{"{side}": "completion"}}.',
    )


def listed(names: Iterable[str]) -> str:
    """Names in their order, for a message."""
    return ", ".join(sorted(map(str, names)))
