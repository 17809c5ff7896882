"""What often goes wrong with data, counted before a model learns from it."""

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from alignlab.data.dialogues import as_turns, is_blank

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARKERS = re.compile(
    r"<\|\w+\|>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>|</?s>"
    r"|^#{2,3} ?(?:Instruction|Input|Response|Human|Assistant|User)\b"
    r"|(?:^|\s)(?:Human|Assistant):|\b(?:USER|ASSISTANT):",
    re.M,
)
# Every mark has one of these, and most texts none: quicker than the expression.
_HINTS = (
    "<|",
    "_of_turn>",
    "INST]",
    "SYS>>",
    "s>",
    "##",
    "Human:",
    "ssistant:",
    "USER:",
    "ANT:",
)
_SIDES = ("completion", "chosen", "rejected")
_INDENT = {"initial_indent": "  ", "subsequent_indent": "  "}


class Report(NamedTuple):
    """Counts of rows; ``str(report)`` is what `load` prints.

    Attributes:
        rows: all of them.
        empty_completions: rows where a completion, or the last reply of a conversation,
            says nothing.
        empty_prompts: with a prompt that says nothing.
        identical_pairs: with chosen and rejected the same.
        several_turns: with a completion of more than one turn.
        unanswered: conversations whose last turn is not the assistant's.
        prompts_with_markers: whose prompt, or text, holds marks of a chat template
            (``<|im_start|>``, "[INST]", "### Instruction", "Human:"), or, with a
            tokenizer, its special tokens: the template writes its own around them.
        completions_with_markers: the same of completions.
        duplicates: that repeat the prompt and completions of an earlier row.
        not_scored_better: whose `score_chosen` is not above their `score_rejected`.
        too_long: with a text of more than ``max_length`` tokens; None without one.
        identical_after_truncation: with chosen and rejected the same in the first
            ``max_length`` tokens, and different behind; None without one.
        has_template: whether the tokenizer has a chat template; None without tokenizer.
        refused_by_template: rows that the chat template does not write, for example
            because two turns of the assistant follow each other; None without one.
        writes_end: whether the chat template writes an end behind the assistant's last
            turn, so that a model can learn to stop; None without one.
    """

    rows: int
    empty_completions: int
    empty_prompts: int
    identical_pairs: int
    several_turns: int
    unanswered: int
    prompts_with_markers: int
    completions_with_markers: int
    duplicates: int
    not_scored_better: int
    too_long: int | None = None
    identical_after_truncation: int | None = None
    has_template: bool | None = None
    refused_by_template: int | None = None
    writes_end: bool | None = None

    def __str__(self) -> str:
        counts = {k: v for k, v in self._asdict().items() if v is not None}
        shown = {k: v for k, v in counts.items() if v is False or v or k == "rows"}
        none = [_words(k) for k, v in counts.items() if k not in shown]
        width = max(map(len, shown))
        lines = [f"  {_words(k):<{width}} {_value(v):>8}" for k, v in shown.items()]
        rest = f"no {', '.join(none)}" if none else ""
        return "\n".join([*lines, *textwrap.wrap(rest, 84, **_INDENT)])


def _words(name: str) -> str:
    return name.replace("_", " ")


def _value(value: int | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}"


def checks(
    rows: Iterable[Mapping],
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    max_length: int | None = None,
) -> Report:
    """Count what often goes wrong with data; nothing is changed.

    Args:
        rows: in TRL's columns, see :func:`alignlab.data.formats.to_columns`.
        tokenizer: of the model that is to learn from them. Prompts and completions are
            counted as its chat template writes them, a text being one turn; without a
            chat template, and in `text`, as they stand.
        max_length: in tokens, of prompt and completion together.

    Raises:
        ValueError: if max_length is not positive or comes without a tokenizer.
    """
    if max_length is not None and (tokenizer is None or max_length < 1):
        raise ValueError(f"max_length is {max_length}; it needs a tokenizer and is > 0")
    rows = list(rows)
    prompts = [_prompt(row) for row in rows]
    completions = [_completions(row) for row in rows]
    special = tuple(tokenizer.all_special_tokens) if tokenizer is not None else ()
    seen = [repr((p, c)) for p, c in zip(prompts, completions, strict=True)]
    report = Report(
        rows=len(rows),
        empty_completions=sum(any(map(is_blank, texts)) for texts in completions),
        empty_prompts=sum(
            is_blank(p) for row, p in zip(rows, prompts, strict=True) if "prompt" in row
        ),
        identical_pairs=sum(map(_is_identical, rows)),
        several_turns=sum(
            any(not isinstance(text, str) and len(text) > 1 for text in texts)
            for texts in completions
        ),
        unanswered=sum(map(_is_unanswered, rows)),
        prompts_with_markers=sum(_has_marker([p], special) for p in prompts),
        completions_with_markers=sum(_has_marker(c, special) for c in completions),
        duplicates=len(seen) - len(set(seen)),
        not_scored_better=sum(map(_is_not_scored_better, rows)),
    )
    if tokenizer is None:
        return report
    return report._replace(**_checked_tokens(rows, tokenizer, max_length))


def _prompt(row: Mapping) -> object:
    """The prompt, or what comes before the last reply; a text is all prompt."""
    if row.get("messages"):
        turns = row["messages"]
        return turns[:-1] if turns[-1]["role"] == "assistant" else turns
    return row.get("prompt", row.get("text", ""))


def _completions(row: Mapping) -> list:
    if "messages" in row:
        turns = row["messages"]
        return [turns[-1:]] if not turns or turns[-1]["role"] == "assistant" else []
    if "text" in row and "prompt" not in row:
        return [row["text"]] if is_blank(row["text"]) else []
    sides = [row[name] for name in _SIDES if name in row]
    return [*sides, *row.get("completions", [])]


def _is_identical(row: Mapping) -> bool:
    return "chosen" in row and row["chosen"] == row["rejected"]


def _is_unanswered(row: Mapping) -> bool:
    chats = [row[name] for name in ("messages", *_SIDES) if name in row]
    return any(
        not isinstance(chat, str) and len(chat) and chat[-1]["role"] != "assistant"
        for chat in chats
    )


def _is_not_scored_better(row: Mapping) -> bool:
    scores = row.get("score_chosen"), row.get("score_rejected")
    return None not in scores and not float(scores[0]) > float(scores[1])


def _has_marker(values: Sequence, special: tuple[str, ...]) -> bool:
    texts = [
        turn["content"] or "" for value in values for turn in as_turns(value, "user")
    ]
    return any(
        any(token in text for token in special)
        or (any(hint in text for hint in _HINTS) and _MARKERS.search(text))
        for text in texts
    )


# --- As a model reads them --------------------------------------------------------


def _checked_tokens(
    rows: list[Mapping], tokenizer: "PreTrainedTokenizerBase", max_length: int | None
) -> dict[str, int | bool | None]:
    has_template = tokenizer.chat_template is not None
    texts = [_written(row, tokenizer, has_template) for row in rows]
    counts: dict = {"has_template": has_template}
    if has_template:
        counts["refused_by_template"] = sum(None in written for written in texts)
        counts["writes_end"] = _writes_end(tokenizer)
    if max_length is None or not texts:
        return counts
    flat = [text or "" for written in texts for text in written]
    flat_ids = iter(tokenizer(flat, add_special_tokens=not has_template)["input_ids"])
    ids = [[tuple(next(flat_ids)) for _ in written] for written in texts]
    too_long = [any(len(tokens) > max_length for tokens in row) for row in ids]
    cut = [len({tokens[:max_length] for tokens in row}) for row in ids]
    whole = [len(set(row)) for row in ids]
    counts["too_long"] = sum(too_long)
    counts["identical_after_truncation"] = sum(
        before > after for before, after in zip(whole, cut, strict=True)
    )
    return counts


def _written(
    row: Mapping, tokenizer: "PreTrainedTokenizerBase", has_template: bool
) -> list[str | None]:
    """The texts of a row as a model reads them, None where the template refuses."""
    if "text" in row and "prompt" not in row:
        return [row["text"]]
    if "messages" in row:
        dialogues = [list(row["messages"])]
    else:
        asked = as_turns(row.get("prompt", ""), "user")
        replies = [as_turns(text, "assistant") for text in _completions(row)] or [[]]
        dialogues = [[*asked, *reply] for reply in replies]
    if not has_template:
        return ["".join(turn["content"] for turn in turns) for turns in dialogues]
    arguments = row.get("chat_template_kwargs") or {}
    arguments = {name: value for name, value in arguments.items() if value is not None}
    if not _completions(row) and "messages" not in row:
        arguments = {"add_generation_prompt": True, **arguments}
    return [_from_template(tokenizer, turns, arguments) for turns in dialogues]


def _from_template(
    tokenizer: "PreTrainedTokenizerBase", turns: list, arguments: Mapping
) -> str | None:
    try:
        return tokenizer.apply_chat_template(turns, tokenize=False, **arguments)
    except Exception:  # whatever a template raises
        return None


def _writes_end(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether anything but space follows the assistant's last words."""
    probe = "alpha omega"
    turns = [*as_turns("beta", "user"), *as_turns(probe, "assistant")]
    text = _from_template(tokenizer, turns, {}) or ""
    _, _, after = text.rpartition(probe)
    return bool(after.strip())
