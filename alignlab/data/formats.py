"""From the rows that people have to TRL's columns.

Which columns there are decides how rows are read (:mod:`alignlab.data.columns`); where
two readings are possible, none is taken.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from os.path import commonprefix
from typing import NamedTuple

from alignlab.data.columns import (
    ABOUT_NAMES,
    MESSAGES_NAMES,
    SYSTEM_NAMES,
    TRL_NAMES,
    Reading,
    Row,
    column_names,
    find_columns,
    in_row,
    refuse_ambiguous,
    rename,
)
from alignlab.data.comparisons import pairs_by_verdict
from alignlab.data.dialogues import (
    Message,
    as_turns,
    is_blank,
    is_transcript,
    messages_or_text,
    part,
    take_off_prompt,
    transcript_turns,
)
from alignlab.data.scored import (
    as_completions,
    pairs_of_best_and_worst,
    rankings,
    score_column,
)
from alignlab.errors import AlignlabError


class Formatted(NamedTuple):
    """Rows in TRL's columns.

    Attributes:
        rows: with the same columns in each; columns that are not TRL's stay.
        format: "preference", "ranking", "unpaired preference", "prompt-completion",
            "language modelling" or "prompt-only".
        notes: what was read otherwise than it stood there, in words.
        left_out: how many rows are missing, by the reason ("with an empty completion").
    """

    rows: list[Row]
    format: str
    notes: list[str]
    left_out: dict[str, int]


def to_columns(
    rows: Sequence[Mapping],
    columns: Mapping[str, str] | None = None,
    ranking: bool = False,
    decided_by: str | None = None,
) -> Formatted:
    """Rows of any usual format in TRL's columns.

    Supported, each as plain texts or as conversations (a data set with any conversation
    becomes conversations throughout, a text being one turn):

    * TRL's formats: `text` or `messages`; `prompt`; `prompt` and `completion`, with a
      `label` too; `chosen` and `rejected`, with or without a `prompt`;
    * HH-RLHF: two transcripts, "\\n\\nHuman: …\\n\\nAssistant: …";
    * UltraFeedback: a prompt beside whole conversations, which does not get into them
      twice; or `completions` with scores, of which the best and the worst are taken;
      also Nectar's `answers` with ranks, Stack Exchange's with scores, distilabel's
      `generations` with `ratings`, and WebGPT's `answer_0` with `score_0`;
    * two replies and which is better, ties left out: PKU-SafeRLHF (`response_0`,
      `better_response_id`), SHP (`human_ref_A`, `labels`), HelpSteer 2 and 3
      (`response_1`, `preference_strength`; `response1`, `overall_preference`), OpenAI's
      summaries (`choice`), Chatbot Arena (`conversation_a` or `response_a`, `winner`);
    * ShareGPT: `conversations` of `from` and `value`; OpenAI: `messages`; with a
      `label` that is true or false, their last turn is an unpaired completion;
    * Alpaca: `instruction`, `input` and `output`, with its `history` and `system`, and
      Dolly's `context`;
    * `question` and `answer`, and other pairs of names in :mod:`alignlab.data.columns`.

    Without a prompt, what chosen and rejected share at their beginning is the prompt:
    up to the last turn that asks for a reply, of texts up to the last space. Labels
    become booleans (:func:`is_desirable`). Rows with an empty completion are left out.

    Args:
        rows: dicts.
        columns: other names for columns, {theirs: ours}. A name that would be read
            otherwise is left alone if it is given as its own: {"answer": "answer"}.
        ranking: of scored `completions`, give all, best first, instead of two.
        decided_by: of two replies, the column that says which is better, if not the
            usual one: "safer_response_id" in PKU-SafeRLHF.

    Raises:
        AlignlabError: if columns are missing or ambiguous, nothing says which of two
            replies is better, a prompt is not the beginning of its conversations, a
            label, verdict, role or message is unknown, or chosen and rejected share
            nothing and there is no prompt.
    """
    columns = columns or {}
    rows, own = rename(rows, columns), {*columns.values()}
    alone = {theirs for theirs, ours in columns.items() if theirs == ours}
    rows, notes, left_out = pairs_by_verdict(rows, alone, decided_by)
    rows, by_score, without = _unscored(rows, alone, ranking)
    rows, parted = _judged_messages(rows, own)
    notes, left_out = [*notes, *by_score, *parted], left_out | without
    reading = _history_as_prompt(rows, find_columns(_readable(rows, own)))
    parsed = [_parsed(number, row, reading) for number, row in enumerate(rows)]
    parsed, how = _together(parsed)
    _require_repeats(rows, parsed, reading.beside)
    if "label" in reading.columns:
        parsed = _labelled(rows, parsed)
    used = {*reading.columns.values(), *reading.context, *reading.beside}
    others = [name for name in column_names(rows) if name not in used]
    whole = [
        texts | {name: row.get(name) for name in others if name not in texts}
        for texts, row in zip(parsed, rows, strict=True)
    ]
    kept, empty = leave_out_empty(whole, reading.format)
    notes = [*notes, *_said(reading), *how]
    return Formatted(kept, reading.format, notes, left_out | empty)


def _readable(rows: Sequence[Mapping], own: set[str]) -> list[str]:
    """The columns without those that are to be left alone."""
    return [name for name in column_names(rows) if name in TRL_NAMES or name not in own]


def leave_out_empty(rows: list[Row], format: str) -> tuple[list[Row], dict[str, int]]:
    """Rows whose completions (or text, or prompt where there is nothing else) say
    something, and how many do not."""
    names = {
        "preference": ("chosen", "rejected"),
        "ranking": (),
        "prompt-only": ("prompt",),
        "language modelling": ("text", "messages"),
    }.get(format, ("completion",))
    kept = [
        row
        for row in rows
        if not any(name in row and is_blank(row[name]) for name in names)
        and not any(map(is_blank, row["completions"] if format == "ranking" else []))
    ]
    what = {"prompt-only": "prompt", "language modelling": "text"}.get(format)
    count = len(rows) - len(kept)
    return kept, {f"with an empty {what or 'completion'}": count} if count else {}


def _said(reading: Reading) -> list[str]:
    renamed = [(new, old) for new, old in reading.columns.items() if new != old]
    notes = [f"{new} is their {old}" for new, old in renamed]
    if reading.context:
        notes.append(f"prompts hold {' and '.join(sorted(reading.context))}")
    return notes + [f"{n} repeats the others and was left out" for n in reading.beside]


# --- One row ----------------------------------------------------------------------


def _parsed(number: int, row: Mapping, reading: Reading) -> Row:
    """The columns that are read, as texts and messages, the system turn in front."""
    columns = {new: old for new, old in reading.columns.items() if new != "label"}
    if missing := [old for old in reading.columns.values() if old not in row]:
        raise AlignlabError(
            f"Row {number} has no {' and no '.join(missing)}; it has {sorted(row)}.",
            "Give every row the same columns, or load each kind for itself.",
        )
    with in_row(number):
        texts = {new: _value(new, row[old]) for new, old in columns.items()}
        if "prompt" in columns and reading.context.difference(SYSTEM_NAMES):
            texts["prompt"] = _full_prompt(texts["prompt"], row, reading.context)
        names = [name for name in SYSTEM_NAMES if name in reading.context]
        system = next((row[name] for name in names if row.get(name)), None)
        return texts if system is None else _with_system(texts, system)


def _value(name: str, value: object) -> list[Message] | str | list:
    if name == "completions":
        return [messages_or_text(completion) for completion in value or []]
    if isinstance(value, Mapping) and "messages" in value:  # of OpenAI's `input`
        value = value["messages"]
    value = messages_or_text(value)
    if name == "messages" and isinstance(value, str) and value:
        raise ValueError(f"{value!r} is no list of messages")
    if name == "text" and isinstance(value, list):
        raise ValueError('text is no text; messages are columns={"text": "messages"}')
    return [] if name == "messages" and not value else value


def _full_prompt(
    instruction: list[Message] | str, row: Mapping, context: frozenset[str]
) -> list[Message] | str:
    """The instruction, what it is about, and the turns before it."""
    about = [row[name] for name in ABOUT_NAMES if name in context and row.get(name)]
    if not all(isinstance(text, str) for text in (instruction, *about)):
        raise ValueError(f"{' or '.join(context)} is no text")
    asked = "\n\n".join([instruction, *about])
    history = row.get("history") if "history" in context else None
    turns = [
        {"role": role, "content": text}
        for exchange in history or []
        for role, text in zip(("user", "assistant"), exchange, strict=True)
    ]
    return [*turns, {"role": "user", "content": asked}] if turns else asked


def _with_system(texts: Row, system: object) -> Row:
    """The row with a system turn before its prompt, or before its conversations."""
    if not isinstance(system, str):
        raise ValueError(f"the system prompt {system!r} is no text")
    names = [name for name in ("prompt", "messages") if name in texts]
    opened = {}
    for name in names or ("chosen", "rejected"):
        text = texts[name]
        if not names and not _is_whole(text):
            raise ValueError("there is a system prompt and no prompt")
        turns = transcript_turns(text) if is_transcript(text) else text
        turns = as_turns(turns, "user")
        has_own = bool(turns) and turns[0]["role"] == "system"
        if has_own and turns[0]["content"].strip() != system.strip():
            raise ValueError("there are two different system prompts")
        opening = [] if has_own else [{"role": "system", "content": system}]
        opened[name] = [*opening, *turns]
    return texts | opened


# --- All rows together ------------------------------------------------------------


def _together(rows: list[Row]) -> tuple[list[Row], list[str]]:
    """Rows of one kind, conversations or texts, whose prompts end where completions
    begin, and what was done to get them."""
    if not rows or rows[0].keys() & {"text", "messages"}:
        return rows, []
    if "completions" in rows[0]:
        return _each_completion(rows)
    rows, notes = _from_transcripts(rows)
    if any(isinstance(value, list) for row in rows for value in row.values()):
        return _conversations(rows), notes
    if "prompt" not in rows[0]:
        rows = [_parted_texts(number, row) for number, row in enumerate(rows)]
        return rows, [*notes, "the prompt is what chosen and rejected share"]
    sides = [name for name in rows[0] if name != "prompt"]
    whole = [_begins(row, side) for row in rows for side in sides]
    if not whole or not all(whole):
        return rows, notes
    cut = [
        row | {side: row[side].removeprefix(row["prompt"]) for side in sides}
        for row in rows
    ]
    return cut, [*notes, "completions began with their prompt, which was taken off"]


def _begins(row: Row, side: str) -> bool:
    return bool(row["prompt"].strip()) and row[side].startswith(row["prompt"])


def _each_completion(rows: list[Row]) -> tuple[list[Row], list[str]]:
    """Rankings, read as if each of their completions were in a column of its own."""
    sizes = {len(row["completions"]) for row in rows}
    if len(sizes) > 1 or min(sizes) < 2:
        raise AlignlabError(
            f"Rows have {', '.join(map(str, sorted(sizes)))} completions; a ranking "
            "needs the same number in each, two or more.",
            "Leave some out, or make pairs with chosen and rejected.",
        )
    names = [f"completion {place}" for place in range(sizes.pop())]
    spread = [
        {"prompt": row["prompt"]} | dict(zip(names, row["completions"], strict=True))
        for row in rows
    ]
    spread, notes = _together(spread)
    return [
        {"prompt": row["prompt"], "completions": [row[name] for name in names]}
        for row in spread
    ], notes


def _from_transcripts(rows: list[Row]) -> tuple[list[Row], list[str]]:
    """Columns that hold HH-RLHF's transcripts in every row become conversations."""
    are = {name: [is_transcript(row[name]) for row in rows] for name in rows[0]}
    names = [name for name in are if all(are[name])]
    for name in are.keys() - {"prompt"}:
        if any(are[name]) and not all(are[name]):
            _, odd = are[name].index(True), are[name].index(False)
            raise AlignlabError(
                f"{name} of row {odd} is no transcript (Human: … Assistant: …), and "
                "others are.",
                "Load each kind for itself.",
            )
    if names == ["prompt"]:  # as in transcripts, a space follows "Assistant:"
        rows = [{name: _stripped(value) for name, value in row.items()} for row in rows]
    for name in names:
        rows = [row | {name: _turns(row[name], name)} for row in rows]
    notes = [f"{name} was a transcript (Human: … Assistant: …)" for name in names]
    return rows, notes


def _stripped(value: list[Message] | str) -> list[Message] | str:
    return value.strip() if isinstance(value, str) else value


def _turns(transcript: str, name: str) -> list[Message]:
    turns = transcript_turns(transcript)
    opens_reply = name == "prompt" and turns[-1] == as_turns("", "assistant")[0]
    return turns[:-1] if opens_reply else turns


def _conversations(rows: list[Row]) -> list[Row]:
    parted = []
    for number, row in enumerate(rows):
        with in_row(number):
            parted.append(_conversation(row))
    return parted


def _conversation(row: Row) -> Row:
    """A row of messages, its prompt parted from what follows."""
    sides = {
        name: as_turns(value, "assistant")
        for name, value in row.items()
        if name != "prompt"
    }
    if "prompt" not in row:
        prompt, chosen, rejected = part(sides["chosen"], sides["rejected"])
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    asked = as_turns(row["prompt"], "user")
    split = {name: take_off_prompt(asked, turns) for name, turns in sides.items()}
    prompts = [prompt for prompt, _ in split.values()] or [asked]
    if any(prompt != prompts[0] for prompt in prompts):
        raise ValueError("its conversations have different system turns")
    answers = {name: answer for name, (_, answer) in split.items()}
    if "chosen" in row and all(map(_is_whole, sides.values())):
        shared, chosen, rejected = part(answers["chosen"], answers["rejected"])
        answers = {"chosen": chosen, "rejected": rejected}
        return {"prompt": [*prompts[0], *shared], **answers}
    return {"prompt": prompts[0], **answers}


def _is_whole(completion: list[Message] | str) -> bool:
    """Whether it is a conversation that starts before the assistant's turn."""
    if isinstance(completion, str):
        return is_transcript(completion)
    return bool(completion) and completion[0]["role"] != "assistant"


def _parted_texts(number: int, row: Row) -> Row:
    """Chosen and rejected texts that begin with their prompt: it ends before the last
    space that both have."""
    first, second = row["chosen"], row["rejected"]
    shared = len(commonprefix([first, second]))
    while shared > 0 and not first[shared : shared + 1].isspace():
        shared -= 1
    if first.strip() and second.strip() and not first[:shared].strip():
        raise AlignlabError(
            f"Row {number}: chosen and rejected share no beginning, and there is no "
            "prompt.",
            'Say which column is the prompt: columns={"theirs": "prompt"}.',
        )
    return {
        "prompt": first[:shared],
        "chosen": first[shared:],
        "rejected": second[shared:],
    }


# --- Columns beside those that are read -------------------------------------------


def _unscored(
    rows: list[Row], alone: set[str], ranking: bool
) -> tuple[list[Row], list[str], dict[str, int]]:
    """Rows with pairs, or with rankings, instead of scored completions."""
    try:
        rows = as_completions(rows, alone)
        names = column_names(rows)
        if "completions" not in names or "chosen" in names:
            return rows, [], {}
        column = score_column(rows)
        if column is None:  # a ranking as it is
            return rows, [], {}
        make = rankings if ranking else pairs_of_best_and_worst
        made, left_out = make(rows, column)
    except ValueError as error:
        raise AlignlabError(
            f"{error}.".capitalize(), "See alignlab.data.scored for what is read."
        ) from error
    if not made:
        raise AlignlabError(
            f"No row holds a preference: {_counted(left_out)}.", "Pass others."
        )
    how = "all, best first" if ranking else "the best against the worst"
    return made, [f"completions by {column}: {how}"], left_out


def _counted(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items())


def _judged_messages(rows: list[Row], own: set[str]) -> tuple[list[Row], list[str]]:
    """Conversations with a label of true or false: their last turn is what it is about.
    Other labels beside messages, such as classes, say nothing about it."""
    names = {*_readable(rows, own)}
    chats = [name for name in MESSAGES_NAMES if name in names]
    rivals = {"prompt", "completion", "completions", "chosen", "rejected"}
    words = {str(row.get("label")).strip().casefold() for row in rows}
    if len(chats) != 1 or rivals & names or not words <= {"true", "false"}:
        return rows, []
    judged = []
    for number, row in enumerate(rows):
        others = {name: value for name, value in row.items() if name != chats[0]}
        with in_row(number):
            turns = as_turns(messages_or_text(row.get(chats[0])), "user")
        judged.append({"prompt": turns[:-1], "completion": turns[-1:]} | others)
    return judged, [f"{chats[0]} have a label: their last turn is the completion"]


def _history_as_prompt(rows: Sequence[Mapping], reading: Reading) -> Reading:
    """Messages beside completions, and no prompt: they are the prompt, unless the
    completions are whole conversations."""
    columns, beside = reading.columns, reading.beside
    if "chosen" not in columns or "prompt" in columns or len(beside) != 1:
        return reading
    if beside == ("text",) or any(_is_whole(_chosen(row)) for row in rows):
        return reading
    return reading._replace(columns={"prompt": beside[0], **columns}, beside=())


def _chosen(row: Mapping) -> list[Message] | str:
    try:
        return messages_or_text(row.get("chosen"))
    except ValueError:  # said later, with its row
        return ""


def _require_repeats(
    rows: Sequence[Mapping], parsed: Sequence[Mapping], beside: Sequence[str]
) -> None:
    """Refuse a column that says something else than the columns that are read."""
    for name in beside:
        for number, (row, texts) in enumerate(zip(rows, parsed, strict=True)):
            with in_row(number):
                other = messages_or_text(row.get(name))
                if name == "prompt" and "messages" in texts:
                    take_off_prompt(as_turns(other, "user"), texts["messages"])
            first, second = _contents(other), _contents([*texts.values()])
            if not (_all_in(first, second) or _all_in(second, first)):
                refuse_ambiguous(column_names(rows), [name, *texts])


def _contents(value: object) -> list[str]:
    """Every text in messages or texts, nested in any way."""
    if isinstance(value, str):
        return [value.strip()]
    if isinstance(value, Mapping):
        return _contents(value["content"])
    return [text for item in value for text in _contents(item)]


def _all_in(texts: list[str], others: list[str]) -> bool:
    joined = "\n".join(others)
    return all(text in joined for text in texts)


# --- Labels -----------------------------------------------------------------------

_LABELS = {
    True: "true yes y t good desirable chosen accept accepted positive pos "
    "like liked up thumbs_up thumbs-up",
    False: "false no n f bad undesirable rejected reject negative neg "
    "dislike disliked down thumbs_down thumbs-down",
}
_MEANING = {word: good for good, words in _LABELS.items() for word in words.split()}
_MEANING |= {1: True, 0: False, -1: False}  # also for True, False and floats


def is_desirable(label: object) -> bool:
    """Whether a label of unpaired preference calls its completion good.

    Args:
        label: a boolean; 1, 0 or -1 as a number of any type, also of numpy or torch, or
            as text; or one of the usual words in any case, such as "true", "No",
            "rejected".

    Raises:
        ValueError: for anything else, None, NaN and scores such as 0.7 among them:
            nothing is taken for true because it is there.
    """
    value = label
    with suppress(ValueError, RuntimeError):  # arrays of several, unknown words
        value = label.item() if hasattr(label, "item") else label
        if isinstance(value, str):
            word = value.strip().casefold()
            value = _MEANING[word] if word in _MEANING else float(word)
    if not isinstance(value, int | float) or value not in _MEANING:
        raise ValueError(
            f"label is {label!r}; it can be true or false, 1 or 0, 1 or -1, or a word "
            'for one of them, such as "yes" or "rejected"'
        )
    return _MEANING[value]


def _labelled(rows: Sequence[Mapping], parsed: Sequence[Row]) -> list[Row]:
    """The parsed rows with their labels as booleans."""
    labels = [row["label"] for row in rows]
    made = []
    for number, (label, texts) in enumerate(zip(labels, parsed, strict=True)):
        try:
            made.append(texts | {"label": is_desirable(label)})
        except ValueError as error:
            raise AlignlabError(
                f"Row {number}: {error}.",
                "If it does not say whether the completion is good, give it another "
                'name: columns={"label": "class"}.',
            ) from error
    written = {str(label).strip().removesuffix(".0") for label in labels}
    if {"0", "-1"} <= written:
        raise AlignlabError(
            "label is 0 in some rows and -1 in others: is 0 bad, or neither?",
            "Leave out the rows that are neither good nor bad.",
        )
    return made
