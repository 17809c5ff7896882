"""Dialogues: a prompt and its completion as one conversation in tokens, with a mask on
the turns to learn."""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, takewhile
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from alignlab.errors import AlignlabError
from alignlab.models.templates import (
    Ending,
    as_messages,
    chat_text,
    content_text,
    end_of,
    ending_of,
    plain_ids,
    prompt_text,
    require_messages,
    usual_ending,
)

Prompt = str | list[dict]  # a string is one user turn
Reply = str | list[dict]  # a string is one assistant turn


class Dialogue(NamedTuple):
    """A prompt and the conversation that continues it.

    Attributes:
        prompt: chat messages; the last one may be an unfinished assistant turn.
        messages: the whole conversation, which ends in an assistant turn.
        start: the number of the message where the completion begins, or goes on with
            the prompt's unfinished one.
    """

    prompt: list[dict]
    messages: list[dict]
    start: int

    @property
    def continues(self) -> bool:
        return self.start < len(self.prompt)


class Plain(NamedTuple):
    """A prompt, which may be empty, and its completion as plain text."""

    prompt: str
    completion: str


def join(prompt: Prompt | None, completion: Reply) -> Dialogue:
    """The conversation that a prompt and its completion make.

    The completion follows the prompt, continues its unfinished assistant turn, or is
    the whole conversation and holds the prompt already. System messages at the
    beginning of such a conversation may be missing from the prompt, and an empty prompt
    is all but the last message.

    Raises:
        AlignlabError: if the completion is a whole conversation that does not begin
            with the prompt, or does not end in an assistant turn.
    """
    asked = [] if prompt is None else as_messages(prompt, "user")
    reply = as_messages(completion, "assistant")
    require_messages(asked)
    require_messages(reply)
    if not reply or not _is_by(reply[-1], "assistant"):
        raise AlignlabError(
            f"The completion does not end in an assistant's message: {reply!r:.200}",
            "Leave out what follows the last reply.",
        )
    if is_whole(reply):
        asked = _prompt_in(reply, asked) if prompt else reply[:-1]
        unfinished = asked[-1] != reply[len(asked) - 1]
        return Dialogue(asked, reply, len(asked) - unfinished)
    if asked and _is_by(asked[-1], "assistant") and _is_by(reply[0], "assistant"):
        whole = {**asked[-1], **reply[0]}
        whole["content"] = content_text(asked[-1]) + content_text(reply[0])
        return Dialogue(asked, [*asked[:-1], whole, *reply[1:]], len(asked) - 1)
    return Dialogue(asked, asked + reply, len(asked))


def is_whole(completion: Reply) -> bool:
    """Whether a completion is a whole conversation, which begins before the reply."""
    first = as_messages(completion, "assistant")[:1]
    return bool(first) and _is_by(first[0], "system", "developer", "user")


def _is_by(message: Mapping, *roles: str) -> bool:
    return isinstance(message, Mapping) and message.get("role") in roles


def _prompt_in(conversation: list[dict], prompt: list[dict]) -> list[dict]:
    """The beginning of a conversation that is this prompt, whose last turn may be
    unfinished."""

    def turns(messages: list[dict]) -> list[tuple]:
        return [(m.get("role"), content_text(m).strip()) for m in messages]

    unfinished = _is_by(prompt[-1], "assistant")
    finished, last = (prompt[:-1], prompt[-1:]) if unfinished else (prompt, [])
    first = takewhile(lambda m: _is_by(m, "system", "developer"), conversation)
    for left_out in (0, len(list(first))):
        end = left_out + len(finished)
        if turns(conversation[left_out:end]) == turns(finished):
            following = conversation[end] if end < len(conversation) else {}
            begun = content_text(last[0]) if last else ""
            if _is_by(following, "assistant") and content_text(following).startswith(
                begun
            ):
                return conversation[:end] + last
    raise AlignlabError(
        "A completion is a whole conversation, and does not begin with its prompt "
        f"{content_text(prompt[-1])!r:.100}.",
        "Leave out the prompt column, or leave the prompt out of the conversation.",
    )


def encode_conversations(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[list[dict]],
    kwargs: Sequence[Mapping],
) -> list[list[int]]:
    """Token ids of whole conversations that end in an assistant turn, each with its own
    arguments of the chat template; see :func:`encode_dialogues`."""
    texts = [
        conversation_text(tokenizer, messages, **each)
        for messages, each in zip(conversations, kwargs, strict=True)
    ]
    if not texts:
        return []
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return with_ends(tokenizer, ids, kwargs)


def conversation_text(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict], **chat_template_kwargs
) -> str:
    """A whole conversation as the chat template writes it, up to the end of its last
    turn: where the template writes only white space behind it, without that."""
    text = chat_text(tokenizer, messages, **chat_template_kwargs)
    ending = ending_of(tokenizer, **chat_template_kwargs)
    blank = not ending.written and not ending.text.strip()
    return text.removesuffix(ending.text) if blank else text


def with_ends(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[list[int]],
    kwargs: Sequence[Mapping],
) -> list[list[int]]:
    """The rows of :func:`conversation_text`, with an end of turn behind those that have
    none. Warns once if there are any.

    Raises:
        AlignlabError: if there is none to put there.
    """
    ended, missing = [], []
    for ids, each in zip(rows, kwargs, strict=True):
        ending = ending_of(tokenizer, **each)
        if not _is_ended(tokenizer, ids, ending):
            missing.append(end_of(tokenizer, ending))
            ids = ids + missing[-1:]
        ended.append(ids)
    if missing:
        warnings.warn(
            f"The chat template writes no end of turn behind {len(missing)} of "
            f"{len(rows)} last turns: {tokenizer.convert_ids_to_tokens(missing[0])!r} "
            "was put there, or models would learn never to stop. When you sample, stop "
            "at it",
            stacklevel=5,
        )
    return ended


def _is_ended(tokenizer, ids: list[int], ending: Ending) -> bool:
    last = ids[-len(ending.ids) :] if ending.written else ids[-1:]
    return not {ending.token, tokenizer.eos_token_id}.isdisjoint(last)


# --- Which tokens are learned ---------------------------------------------------------


@dataclass(frozen=True)
class Encoded:
    """One example as tokens; the mask is 1 on those that are learned or compared."""

    input_ids: list[int]
    completion_mask: list[int]

    @property
    def prompt(self) -> list[int]:
        """The tokens before the first one to learn."""
        return self.input_ids[: self.completion_mask.index(1)]

    @property
    def completion(self) -> list[int]:
        """The tokens from the first one to learn."""
        return self.input_ids[self.completion_mask.index(1) :]


def encode_turns(
    tokenizer: PreTrainedTokenizerBase,
    dialogues: Sequence[Dialogue],
    scored: Sequence[Sequence[int]],
    kwargs: Sequence[Mapping],
    names: Sequence[str],
) -> list[Encoded]:
    """Whole dialogues with a mask on some assistant turns: from what opens the turn, or
    the end of the prompt's unfinished one, to what the template writes behind it.

    Where the template ends a turn only at the end of a dialogue, earlier turns are
    learned without an end.

    Args:
        scored: of each dialogue, the numbers of those messages, the last one among
            them.
        kwargs: of each dialogue, arguments of the chat template.
        names: what each dialogue is called in error messages.

    Raises:
        AlignlabError: if the template writes a prompt differently once a completion
            follows, or a turn once others follow, so that no mask would be right.
    """
    if not dialogues:
        return []
    texts = [
        _texts(tokenizer, dialogue, turns, each)
        for dialogue, turns, each in zip(dialogues, scored, kwargs, strict=True)
    ]
    flat = tokenizer(list(chain.from_iterable(texts)), add_special_tokens=False)
    ids = iter(flat["input_ids"])
    ids = [list(islice(ids, len(own))) for own in texts]
    rows = with_ends(tokenizer, [own[0] for own in ids], kwargs)
    encoded, number = [], 0
    try:
        for number, row in enumerate(rows):
            start = _start_of_completion(texts[number], ids[number])
            mask = [0] * start + [1] * (len(row) - start)
            turns = dialogues[number], row, texts[number], ids[number], kwargs[number]
            for place in _earlier_places(tokenizer, *turns):
                mask[place] = 1
            encoded.append(Encoded(row, mask))
    except AlignlabError as error:
        asked = content_text(dialogues[number].messages[0])
        raise AlignlabError(
            f"{names[number]} ({asked!r:.100}): {error.message}", error.remedy
        ) from error
    _warn_of_split_tokens(encoded, ids)
    return encoded


def encode_plain(
    tokenizer: PreTrainedTokenizerBase, plains: Sequence[Plain]
) -> list[Encoded]:
    """Plain prompts and completions, with EOS behind them and a mask on the completion;
    on everything where there is no prompt.

    Raises:
        AlignlabError: if there is no EOS token.
    """
    encoded, parts = [], []
    ending = usual_ending(tokenizer)  # of a text that was a dialogue
    for prompt, completion in plains:
        texts = [prompt + completion, prompt]
        ids = [plain_ids(tokenizer, text) for text in texts]
        row, start = ids[0], _start_of_completion(texts, ids) if prompt else 0
        if not _is_ended(tokenizer, row, ending):
            row = row + [end_of(tokenizer, ending)]
        encoded.append(Encoded(row, [0] * start + [1] * (len(row) - start)))
        parts.append(ids if prompt else [[], []])
    _warn_of_split_tokens(encoded, parts)
    return encoded


def _texts(tokenizer, dialogue: Dialogue, turns: Sequence[int], kwargs) -> list[str]:
    """The whole dialogue, its text up to where the last turn is learned, and of each
    turn before up to there, to the end of its content, and to the end of what the
    template writes behind it."""
    texts = [
        conversation_text(tokenizer, dialogue.messages, **kwargs),
        _opened(tokenizer, dialogue, turns[-1], kwargs),
    ]
    for turn in turns[:-1]:
        closed = chat_text(tokenizer, dialogue.messages[: turn + 1], **kwargs)
        open_ended = closed.removesuffix(ending_of(tokenizer, **kwargs).text)
        texts += [_opened(tokenizer, dialogue, turn, kwargs), open_ended, closed]
    return texts


def _opened(tokenizer, dialogue: Dialogue, number: int, kwargs: Mapping) -> str:
    """The text up to where an assistant turn begins to be learned."""
    if dialogue.continues and number == dialogue.start:
        return prompt_text(tokenizer, dialogue.prompt, **kwargs)
    if number:
        before = dialogue.messages[:number]
        return chat_text(tokenizer, before, add_generation_prompt=True, **kwargs)
    first = dialogue.messages[:1]  # no template writes an opening alone
    written = chat_text(tokenizer, first, **kwargs)
    written = written.removesuffix(ending_of(tokenizer, **kwargs).text)
    return written.removesuffix(content_text(first[0]).strip())


def _start_of_completion(texts: Sequence[str], ids: Sequence[list[int]]) -> int:
    """The first token of a dialogue that is not all its prompt's.

    Args:
        texts, ids: of the dialogue and of its prompt.
    """
    if texts[0].startswith(texts[1]):
        return _shared(ids[1], ids[0])
    raise AlignlabError(
        "its tokens do not begin with its prompt's tokens, so there is no boundary to "
        f"mask at. The prompt ends in {texts[1][-30:]!r}.",
        "The chat template must write prompts alike with and without a reply. If it "
        "opens replies with more than it keeps of them, such as a thought, put that "
        "into the completion, or pass chat_template_kwargs.",
    )


def _warn_of_split_tokens(
    encoded: Sequence[Encoded], ids: Sequence[Sequence[list[int]]]
) -> None:
    """Warn of prompts whose last token, as they are sampled from, goes on into the
    completion."""
    both = zip(encoded, ids, strict=True)
    split = sum(row.input_ids[: len(own[1])] != own[1] for row, own in both)
    if split:
        warnings.warn(
            f"In {split} of {len(ids)} dialogues one token holds the end of the prompt "
            "and the beginning of the completion, and is learned as a whole; sampled "
            "from, the prompt ends in other tokens. Let prompts end where words do, "
            "without white space",
            stacklevel=5,
        )


def _earlier_places(tokenizer, dialogue, row, texts, ids, kwargs) -> list[int]:
    """The places in a dialogue's tokens of the turns before the last that are learned.

    Where the dialogue does not have them as each was written when it was the last, the
    template has to mark them by ``{% generation %}``.
    """
    if len(texts) == 2:
        return []
    ends = {tokenizer.eos_token_id, ending_of(tokenizer, **kwargs).token}
    places: list[int] = []
    for turn in range(2, len(texts), 3):
        opened, content, closed = ids[turn : turn + 3]
        whole, before, content_end = texts[0], texts[turn], texts[turn + 1]
        if not whole.startswith(before) or not whole.startswith(content_end):
            return _marked_places(tokenizer, dialogue, row, ids, kwargs)
        end, through = _shared(content, row), _shared(closed, row)
        if not ends.isdisjoint(row[end : max(through, end + 1)]):
            end = max(through, end + 1)
        places += range(_shared(opened, row), end)
    return places


def _marked_places(tokenizer, dialogue, row, ids, kwargs) -> list[int]:
    first, last = _shared(ids[2], row), _shared(ids[1], row)
    if re.search(r"{%-?\s*generation\b", str(tokenizer.chat_template)):
        marked = tokenizer.apply_chat_template(
            dialogue.messages, return_assistant_tokens_mask=True, **kwargs
        )
        learned = marked["assistant_masks"][:last]
        if marked["input_ids"][:last] == row[:last] and any(learned[first:]):
            return [place for place in range(first, last) if learned[place]]
    raise AlignlabError(
        "the chat template writes an assistant's turn differently once others follow, "
        "so that what would be learned there is not what the model has to write.",
        'Learn the last turn only (loss_on="completion", or earlier turns in the '
        "prompt), make a row of each turn, or mark the turns by {% generation %} in "
        "the template.",
    )


def _shared(tokens: Sequence[int], others: Sequence[int]) -> int:
    """How many tokens at the beginning are the same."""
    pairs = enumerate(zip(tokens, others))
    return next((i for i, (a, b) in pairs if a != b), min(len(tokens), len(others)))
