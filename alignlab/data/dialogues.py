"""Conversations: from every usual way of writing one to chat messages, and where a
prompt ends and a completion begins."""

import ast
import json
import re
from collections.abc import Mapping, Sequence

Message = dict[str, object]

_ROLES = {"human": "user", "prompter": "user"} | dict.fromkeys(
    ("gpt", "chatgpt", "bard", "bing", "bot", "model"), "assistant"
)
_KNOWN_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_TRANSCRIPT = re.compile(r"\s*Human:.*\n\nAssistant:", re.S)
_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


def is_transcript(text: object) -> bool:
    """Whether a text is a dialogue as HH-RLHF writes them: it begins with "Human:" and
    has "Assistant:" behind an empty line."""
    return isinstance(text, str) and bool(_TRANSCRIPT.match(text))


def transcript_turns(dialogue: str) -> list[Message]:
    """The messages of a dialogue such as "\\n\\nHuman: Hi\\n\\nAssistant: Hello"."""
    parts = _TURN.split(dialogue)[1:]
    role = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": role[who], "content": text.strip()}
        for who, text in zip(parts[::2], parts[1::2], strict=True)
    ]


def messages_or_text(value: object) -> list[Message] | str:
    """A text as it is, anything that is a conversation as chat messages.

    Args:
        value: a text; messages with `role` and `content`, or with ShareGPT's `from` and
            `value`, a list of them or one alone; the same written as JSON; None, which
            is an empty text.

    Raises:
        ValueError: for anything else, for an unknown role, and for images and sound.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        value = _written_messages(value) or value
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, Sequence) or isinstance(value, bytes):
        raise ValueError(f"{value!r} is neither a text nor a list of messages")
    return [_message(turn) for turn in value]


def _written_messages(text: str) -> list | None:
    """Messages that a table holds as text, in JSON or as Python writes them."""
    if not re.match(r"\s*\[\s*\{", text):
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            turns = parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return turns if all(map(_is_message, turns)) else None
    return None


def _is_message(turn: object) -> bool:
    return isinstance(turn, Mapping) and not {"role", "from"}.isdisjoint(turn)


def _message(turn: object) -> Message:
    if not isinstance(turn, Mapping):
        raise ValueError(f"{turn!r} is no message with role and content")
    turn = {name: value for name, value in turn.items() if value is not None}
    role = turn.pop("role", None) or turn.pop("from", None)
    if not isinstance(role, str):
        raise ValueError(f"the message {turn!r} has no role")
    known = _ROLES.get(role.casefold(), role.casefold())
    if known not in _KNOWN_ROLES:
        raise ValueError(f"the role {role!r} is none of {', '.join(_KNOWN_ROLES)}")
    content = turn.pop("content", None)
    if content is None:
        content = turn.pop("value", "")
    return {"role": known, "content": _content(content), **turn}


def _content(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and all(isinstance(c, Mapping) for c in content):
        if all(part.get("type", "text") == "text" for part in content):
            return "".join(part.get("text") or "" for part in content)
    raise ValueError(f"the content {content!r} is no text; only text is read")


def as_turns(value: list[Message] | str, role: str) -> list[Message]:
    """A text becomes one turn of that role, messages stay."""
    return [{"role": role, "content": value}] if isinstance(value, str) else value


def is_blank(value: list[Message] | str) -> bool:
    """Whether a completion says nothing: no text, or nothing in its last turn."""
    if isinstance(value, str):
        return not value.strip()
    if not value:
        return True
    last = value[-1]
    return not (last["content"] or "").strip() and not last.get("tool_calls")


def part(
    first: list[Message], second: list[Message]
) -> tuple[list[Message], list[Message], list[Message]]:
    """What two conversations share, up to its last turn that asks for a reply, and what
    follows it in each, at least one turn. If they part before, they share nothing."""
    shared = 0
    while shared < min(len(first), len(second)) and first[shared] == second[shared]:
        shared += 1
    shared = max(0, min(shared, len(first) - 1, len(second) - 1))
    while shared > 0 and first[shared - 1]["role"] not in ("user", "tool", "function"):
        shared -= 1
    return first[:shared], first[shared:], second[shared:]


def take_off_prompt(
    prompt: list[Message], conversation: list[Message]
) -> tuple[list[Message], list[Message]]:
    """The prompt, and the completion, which may come as a whole conversation.

    A conversation that starts with the assistant is the completion. Another must begin
    with the prompt, which is taken off; a system turn may stand in one of them alone.

    Raises:
        ValueError: if the prompt is not the beginning of the conversation.
    """
    if not conversation or conversation[0]["role"] == "assistant":
        return prompt, conversation
    (system, asked), (own_system, turns) = map(_without_system, (prompt, conversation))
    begins = [_same(a, b) for a, b in zip(asked, turns, strict=False)]
    rest = turns[len(asked) :]
    if asked and asked[-1]["role"] == "assistant" and begins and not begins[-1]:
        begins[-1], rest = _continued(asked[-1], turns[len(asked) - 1 :], rest)
    if len(begins) < len(asked) or not all(begins):
        raise ValueError("the prompt is not the beginning of the conversation")
    if system and own_system and not _same(system[0], own_system[0]):
        raise ValueError("the prompt and the conversation have different system turns")
    return [*(system or own_system), *asked], rest


def _without_system(turns: list[Message]) -> tuple[list[Message], list[Message]]:
    count = int(bool(turns) and turns[0]["role"] in ("system", "developer"))
    return turns[:count], turns[count:]


def _same(first: Message, second: Message) -> bool:
    texts = [(turn["role"], turn["content"].strip()) for turn in (first, second)]
    return texts[0] == texts[1]


def _continued(
    unfinished: Message, turns: list[Message], rest: list[Message]
) -> tuple[bool, list[Message]]:
    """Whether the first turn goes on where an unfinished one of the prompt stopped, and
    what it adds, with the turns after it."""
    begun, content = unfinished["content"], turns[0]["content"]
    if turns[0]["role"] != "assistant" or not content.startswith(begun):
        return False, rest
    return True, [turns[0] | {"content": content[len(begun) :]}, *rest]
