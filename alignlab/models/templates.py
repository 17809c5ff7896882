"""The chat template of a tokenizer: what it writes of a conversation, and how it ends
the turns.

What it writes around messages is found by asking it; nothing here knows any template by
name.
"""

import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from typing import NamedTuple
from weakref import WeakKeyDictionary

from torch import nn
from transformers import PreTrainedTokenizerBase

from alignlab.errors import AlignlabError


def as_messages(text: str | list[dict], role: str) -> list[dict]:
    """Chat messages: a string becomes one message of that role, a list stays.

    Raises:
        AlignlabError: if it is neither.
    """
    if isinstance(text, str):
        return [{"role": role, "content": text}]
    if isinstance(text, Mapping):  # one message
        return [text]
    if not isinstance(text, Iterable):
        raise AlignlabError(
            f"{text!r} is neither a text nor a list of chat messages.",
            "Pass texts as strings, also where they are numbers.",
        )
    return list(text)


def chat_text(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict],
    *,
    add_generation_prompt: bool = False,
    continue_final_message: bool = False,
    **chat_template_kwargs,
) -> str:
    """The conversation as the tokenizer's chat template writes it.

    Contents are strings or lists of parts such as ``{"type": "text", "text": ...}``,
    and are given to the template in the form that it writes.

    Args:
        add_generation_prompt: end with the opening of an assistant turn, so that the
            model replies next.
        continue_final_message: end within the last message, so that the model goes on
            with it.
        chat_template_kwargs: what else the template reads, such as ``enable_thinking``;
            a warning names what it does not read.

    Raises:
        AlignlabError: if the tokenizer has no chat template, a message has no role or
            no content, or the template does not take these messages.
    """
    if tokenizer.chat_template is None:
        raise AlignlabError(
            f"The tokenizer {tokenizer.name_or_path!r} has no chat template.",
            "Take an instruct model's tokenizer, set tokenizer.chat_template, or use "
            "plain text (chat=False where there is such an argument).",
        )
    for name in chat_template_kwargs:
        if not re.search(rf"\b{re.escape(name)}\b", str(tokenizer.chat_template)):
            warnings.warn(
                f"The chat template does not read {name!r}; it changes nothing",
                stacklevel=2,
            )
    messages = _as_the_template_reads(tokenizer, messages)
    options = {"continue_final_message": True} if continue_final_message else {}
    try:
        return tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **options,
            **chat_template_kwargs,
        )
    except Exception as error:  # of many kinds, from inside the template
        raise AlignlabError(
            f"The chat template does not take these messages: {error} They are "
            f"{messages!r:.300}",
            "Change their roles, their order or chat_template_kwargs, or set another "
            "tokenizer.chat_template.",
        ) from error


def prompt_text(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict], **chat_template_kwargs
) -> str:
    """A conversation up to where the model goes on: with its unfinished assistant turn
    if it ends in one, else with a new one."""
    unfinished = bool(messages) and messages[-1].get("role") == "assistant"
    return chat_text(
        tokenizer,
        messages,
        add_generation_prompt=not unfinished,
        continue_final_message=unfinished,
        **chat_template_kwargs,
    )


def content_text(message: Mapping) -> str:
    """The text of a message, whose content is a string or a list of parts."""
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.get("text") or "" for part in content)


def require_messages(messages: list[dict]) -> None:
    """Refuse what are no chat messages, such as those with `from` and `value`.

    Raises:
        AlignlabError: naming the message without a role or a content.
    """
    for number, message in enumerate(messages):
        named = isinstance(message, Mapping) and message.get("role") is not None
        if named and (message.get("content") is None) <= bool(
            message.get("tool_calls")
        ):
            continue
        raise AlignlabError(
            f"Message {number} has no {'content' if named else 'role'}: "
            f"{message!r:.200}",
            "Give every chat message role and content; alignlab.data.load reads other "
            "forms.",
        )


def _as_the_template_reads(tokenizer, messages: list[dict]) -> list[dict]:
    """The messages with their contents as strings or in parts, as the template writes
    them: a template for parts writes nothing of a string."""
    require_messages(messages)
    strings, parts = _contents_read(tokenizer)
    read = []
    for message in messages:
        content = message.get("content")
        if isinstance(content, str) and parts and not strings:
            content = [{"type": "text", "text": content}]
        elif isinstance(content, list) and strings and not parts:
            others = [
                p for p in content if not isinstance(p, Mapping) or "text" not in p
            ]
            if others:
                raise AlignlabError(
                    f"The chat template writes text only, and a message has a part "
                    f"{others[0]!r:.100}.",
                    "Leave such messages out.",
                )
            content = content_text(message)
        read.append(message if content is None else {**message, "content": content})
    return read


def _contents_read(tokenizer) -> tuple[bool, bool]:
    """Whether the template writes contents that are strings, and those in parts."""

    def writes(content) -> bool:
        try:
            text = tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                tokenize=False,
                add_generation_prompt=False,
            )
        except Exception:  # it may refuse in any way
            return False
        return _ASKED in text and "'text'" not in text  # not as Python writes a list

    def ask() -> tuple[bool, bool]:
        return writes(_ASKED), writes([{"type": "text", "text": _ASKED}])

    return _remembered(tokenizer, ("contents", str(tokenizer.chat_template)), ask)


def plain_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a plain text that something may follow: with the tokenizer's special
    tokens in front, unless it already starts with BOS, and none behind it."""
    plain = tokenizer(text, add_special_tokens=False)["input_ids"]
    bos = tokenizer.bos_token
    if bos is not None and text.startswith(bos):
        return plain
    if not plain:
        word = tokenizer("0", add_special_tokens=False)["input_ids"]
        return plain_ids(tokenizer, "0")[: -len(word)]
    ids = tokenizer(text)["input_ids"]
    behind = (start + len(plain) for start in range(len(ids) - len(plain) + 1))
    end = next((e for e in behind if ids[e - len(plain) : e] == plain), len(ids))
    return ids[:end]


# --- When a reply ends ----------------------------------------------------------------


class Ending(NamedTuple):
    """What the chat template writes behind the content of the last assistant turn.

    Attributes:
        text, ids: as text and as tokens.
        token: the special token that ends an assistant turn, if the template has one.
        written: whether it is among ``ids``; some templates leave it out at the last.
    """

    text: str
    ids: list[int]
    token: int | None
    written: bool


def end_token_ids(
    tokenizer: PreTrainedTokenizerBase, model: nn.Module | None = None
) -> list[int]:
    """Every token that ends a reply: the tokenizer's EOS token, what ends a turn of its
    chat template, and those of the model's generation config; each once, in this order.
    """
    ends = [tokenizer.eos_token_id, usual_ending(tokenizer).token]
    configured = getattr(model, "generation_config", None)
    configured = getattr(configured, "eos_token_id", None)
    for token in configured if isinstance(configured, list | tuple) else [configured]:
        if token is not None and tokenizer.convert_ids_to_tokens(token) is not None:
            ends.append(token)
    return list(dict.fromkeys(token for token in ends if token is not None))


def closing_ids(
    tokenizer: PreTrainedTokenizerBase, **chat_template_kwargs
) -> list[int]:
    """What a whole dialogue has behind the content of its last assistant turn: the
    template's end of turn and what follows it, such as ``<|im_end|>`` and a line break;
    where the template writes no end, EOS."""
    if tokenizer.chat_template is None:
        return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    ending = ending_of(tokenizer, **chat_template_kwargs)
    if ending.written:
        return list(ending.ids)
    kept = ending.ids if ending.text.strip() else []
    return [*kept, end_of(tokenizer, ending)]


def ending_of(tokenizer: PreTrainedTokenizerBase, **chat_template_kwargs) -> Ending:
    """See :class:`Ending`.

    Raises:
        AlignlabError: if the chat template refuses a plain dialogue, or does not write
            what the assistant says.
    """

    def ask() -> Ending:
        before, behind = _parts_of(
            tokenizer, [_USER, _ASSISTANT], _REPLIED, **chat_template_kwargs
        )
        ids = _ids_behind(tokenizer, before + _REPLIED, behind)
        special = _special_ids(tokenizer)
        token = next((token for token in ids if token in special), None)
        written = token is not None
        if not written:
            token = _end_between_turns(tokenizer, **chat_template_kwargs)
        return Ending(behind, ids, token, written)

    given = chat_template_kwargs
    arguments = json.dumps(given, sort_keys=True, default=repr) if given else ""
    return _remembered(tokenizer, ("ending", arguments, *_state(tokenizer)), ask)


_ASKED, _REPLIED, _ASKED_AGAIN = "qzasked", "qzreplied", "qzagain"  # in no template
_USER = {"role": "user", "content": _ASKED}
_ASSISTANT = {"role": "assistant", "content": _REPLIED}
_USER_AGAIN = {"role": "user", "content": _ASKED_AGAIN}
_SYSTEM = {"role": "system", "content": _ASKED_AGAIN}


def usual_ending(tokenizer: PreTrainedTokenizerBase) -> Ending:
    """:func:`ending_of` without arguments; of a tokenizer without a chat template, or
    with one that refuses a plain dialogue, nothing."""

    def ask() -> Ending:
        nothing = Ending("", [], None, False)
        try:
            return nothing if tokenizer.chat_template is None else ending_of(tokenizer)
        except AlignlabError:
            return nothing

    return _remembered(tokenizer, ("usual", *_state(tokenizer)), ask)


def end_of(tokenizer: PreTrainedTokenizerBase, ending: Ending) -> int:
    """The token to put behind a reply; an encoder's separator where there is no EOS."""
    ends = ending.token, tokenizer.eos_token_id, tokenizer.sep_token_id
    end = next((token for token in ends if token is not None), None)
    if end is None:
        raise AlignlabError(
            "Neither chat template nor tokenizer has a token that ends a reply.",
            "Set tokenizer.eos_token.",
        )
    return end


def _end_between_turns(tokenizer, **chat_template_kwargs) -> int | None:
    """The special token that the template writes between what the assistant has said
    and the opening of the next turn."""
    turns = [_USER, _ASSISTANT, _USER_AGAIN]
    try:
        text = chat_text(tokenizer, turns, **chat_template_kwargs)
    except AlignlabError:
        return None
    opening = text.partition(_ASKED)[0][::-1]
    between = text.partition(_REPLIED)[2].partition(_ASKED_AGAIN)[0]
    shared = sum(
        1 for _ in takewhile(lambda a: a[0] == a[1], zip(opening, between[::-1]))
    )
    ids = tokenizer(between[: len(between) - shared], add_special_tokens=False)
    special = _special_ids(tokenizer)
    return next((token for token in ids["input_ids"] if token in special), None)


def _parts_of(tokenizer, messages, content: str, **kwargs) -> tuple[str, str]:
    """The text before and behind a content, as the template writes it."""
    text = chat_text(tokenizer, messages, **kwargs)
    before, written, behind = text.rpartition(content)
    if not written:
        raise AlignlabError(
            "The chat template does not write what the assistant says.",
            "Set another tokenizer.chat_template.",
        )
    return before, behind


def _ids_behind(tokenizer, before: str, behind: str) -> list[int]:
    """Tokens of a text that follows another one."""
    try:
        texts = [before, before + behind]
        start, whole = tokenizer(texts, add_special_tokens=False)["input_ids"]
    except Exception:  # a small vocabulary may not have the words of the other one
        start, whole = [], None
    if whole is not None and whole[: len(start)] == start:
        return whole[len(start) :]
    return tokenizer(behind, add_special_tokens=False)["input_ids"]


def _ids_around(tokenizer, turns: list[dict]) -> set[int]:
    """Tokens that the template writes around what is said in these turns."""
    contents = "|".join(content_text(turn) for turn in turns)
    around = [part for part in re.split(contents, chat_text(tokenizer, turns)) if part]
    ids = tokenizer(around, add_special_tokens=False)["input_ids"] if around else []
    return {token for part in ids for token in part}


def _special_ids(tokenizer) -> set[int]:
    return {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}


def marker_texts(tokenizer) -> tuple[str, ...]:
    """What the chat template writes around turns and hardly anybody else would: special
    tokens, and lines such as "### Response:"."""

    def ask() -> tuple[str, ...]:
        turns = [_USER, _ASSISTANT, _USER_AGAIN]
        markers = marker_ids(tokenizer) | set(end_token_ids(tokenizer))
        markers &= _ids_around(tokenizer, turns)
        tokens = tokenizer.convert_ids_to_tokens(sorted(markers))
        contents = "|".join(content_text(turn) for turn in turns)
        around = re.sub(contents, "\n", chat_text(tokenizer, turns))
        lines = {line.strip() for line in around.splitlines()}
        telling = [line for line in lines if re.match(r"[#\[<|]{2}.*\w", line)]
        return tuple(tokens or sorted(telling))

    if tokenizer.chat_template is None:
        return ()
    return _remembered(tokenizer, ("markers", *_state(tokenizer)), ask)


def marker_ids(tokenizer) -> frozenset[int]:
    """Special tokens that are no part of what is said: named ones such as padding, and
    those that the template writes around turns."""

    def ask() -> frozenset[int]:
        named = tokenizer.special_tokens_map.values()
        hidden = {tokenizer.convert_tokens_to_ids(str(token)) for token in named}
        for start in ([_SYSTEM], []):  # some templates refuse system messages
            try:
                turns = [*start, _USER, _ASSISTANT, _USER_AGAIN]
                hidden |= _ids_around(tokenizer, turns)
            except AlignlabError:
                continue
        return frozenset(hidden & set(tokenizer.all_special_ids))

    return _remembered(tokenizer, ("hidden", *_state(tokenizer)), ask)


_ASKED_BEFORE: WeakKeyDictionary = WeakKeyDictionary()  # answers, by tokenizer


def _remembered(tokenizer, question: tuple, ask: Callable):
    """The answer to a question about a tokenizer, which is asked only once. What may
    change and change the answer is part of the question."""
    answers = _ASKED_BEFORE.setdefault(tokenizer, {})
    if question not in answers:
        answers[question] = ask()
    return answers[question]


def _state(tokenizer) -> tuple:
    return (
        str(tokenizer.chat_template),
        tokenizer.eos_token,
        tuple(tokenizer.all_special_tokens),
        len(tokenizer),
    )


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Meanwhile, errors begin with where they come from, such as "Row 3"."""
    try:
        yield
    except AlignlabError as error:
        raise AlignlabError(f"{place}: {error.message}", error.remedy) from error
