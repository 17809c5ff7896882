"""What a reward model reads of an episode: the whole dialogue, as it was trained on."""

import dataclasses
from collections.abc import Mapping

from transformers import PreTrainedTokenizerBase

from alignlab.models.dialogues import Prompt, join
from alignlab.models.text import (
    chat_text,
    closing_ids,
    completion_text,
    encode_dialogues,
    encode_prompt,
    end_token_ids,
)


@dataclasses.dataclass
class Episode:
    """A prompt with its completion.

    Args:
        prompt: as it is in the data.
        ended: whether the completion ends in a stop token; False if it was cut.
        template_kwargs: further arguments of the chat template.
    """

    prompt: Prompt
    prompt_ids: list[int]
    completion_ids: list[int]
    ended: bool
    template_kwargs: Mapping

    @property
    def is_chat(self) -> bool:
        return not isinstance(self.prompt, str)

    def end(self, marks: set[int]) -> int | None:
        """The token that marks the completion's end; None if nothing does."""
        marked = self.ended and self.completion_ids[-1] in marks
        return self.completion_ids[-1] if marked else None

    def content(self, marks: set[int]) -> list[int]:
        """The completion's tokens without that one."""
        marked = self.end(marks) is not None
        return self.completion_ids[:-1] if marked else self.completion_ids


def as_tokens(
    episodes: list[Episode], tokenizer: PreTrainedTokenizerBase
) -> list[list[int]]:
    """The tokens as they were sampled. Where a chat's completion ended, it ends as the
    chat template writes it, which may be more than the token that the policy ends by.
    """
    marks, options = end_marks(tokenizer), {}
    for episode in episodes:
        if episode.is_chat and episode.ended:
            options[repr(episode.template_kwargs)] = episode.template_kwargs
    closings = {key: closing_ids(tokenizer, **kw) for key, kw in options.items()}
    rows = []
    for episode in episodes:
        ids = episode.completion_ids
        if episode.is_chat and episode.ended:
            ids = episode.content(marks) + closings[repr(episode.template_kwargs)]
        rows.append(episode.prompt_ids + ids)
    return rows


def as_text(
    episodes: list[Episode],
    tokenizer: PreTrainedTokenizerBase,
    own_tokenizer: PreTrainedTokenizerBase,
) -> list[list[int]]:
    """The tokens of the text, for a reward model with a tokenizer of its own: the same
    as :func:`as_tokens` where that is the policy's. A chat goes through the reward
    model's chat template, plain text stays as it is in the data.

    Args:
        tokenizer: of the policy.
        own_tokenizer: of the reward model.
    """
    marks, rows, ended = end_marks(tokenizer), [], []
    for episode in episodes:
        content = episode.content(marks)
        text = continuation(tokenizer, episode.prompt_ids, content)
        if not episode.is_chat:
            ids = encode_prompt(own_tokenizer, episode.prompt + text)
            end = episode.end(marks)
            closing = _separator(own_tokenizer, episode.prompt + text)
            ids += closing or _translated(end, tokenizer, own_tokenizer)
        elif episode.ended:
            ended.append((episode, _reply(episode, text, own_tokenizer)))
            ids = None
        else:
            ids = _encode_cut(episode, text, own_tokenizer)
        rows.append(ids)
    dialogues = iter(_encode_ended(ended, own_tokenizer))
    return [next(dialogues) if ids is None else ids for ids in rows]


def end_marks(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The tokens that mark an end where they stop a completion. Another stop token,
    such as a line break, is a part of what is said."""
    added = tokenizer.added_tokens_decoder.items()
    special = (number for number, token in added if token.special)
    return {*end_token_ids(tokenizer), *tokenizer.all_special_ids, *special}


def continuation(
    tokenizer: PreTrainedTokenizerBase, prompt_ids: list[int], content: list[int]
) -> str:
    """The content as it follows the prompt: the text that reward functions see, with
    the white space around it."""

    def decode(ids: list[int]) -> str:
        return tokenizer.decode(ids, clean_up_tokenization_spaces=False)

    # Behind another token, as some tokenizers drop the space that a text begins with.
    before, text = decode(prompt_ids[-1:]), decode(prompt_ids[-1:] + content)
    text = text.removeprefix(before) if text.startswith(before) else decode(content)
    seen = completion_text(tokenizer, content)
    if not seen:
        return text if text.isspace() else ""
    start = text[: len(text) - len(text.lstrip())]
    return start + seen + text[len(text.rstrip()) :]


def _encode_ended(
    dialogues: list[tuple[Episode, dict]], tokenizer: PreTrainedTokenizerBase
) -> list[list[int]]:
    prompts = [episode.prompt for episode, _ in dialogues]
    replies = [[reply] for _, reply in dialogues]
    options = [episode.template_kwargs for episode, _ in dialogues]
    return encode_dialogues(tokenizer, prompts, replies, options)


def _encode_cut(
    episode: Episode, text: str, tokenizer: PreTrainedTokenizerBase
) -> list[int]:
    """A chat whose last turn has no end."""
    dialogue = episode.prompt
    if text:
        dialogue = join(dialogue, [_reply(episode, text, tokenizer)]).messages
    return encode_prompt(tokenizer, dialogue, **episode.template_kwargs)


def _reply(episode: Episode, text: str, tokenizer: PreTrainedTokenizerBase) -> dict:
    """The completion as a message: without the white space around it, unless it takes
    that for the chat template to write what was sampled."""
    texts, options = (text.strip(), text), episode.template_kwargs
    stripped, whole = ({"role": "assistant", "content": content} for content in texts)
    if episode.prompt[-1]["role"] == "assistant":  # the completion continues that turn
        return whole
    if stripped == whole:
        return stripped
    opening = chat_text(
        tokenizer, episode.prompt, add_generation_prompt=True, **options
    )
    for message in (stripped, whole):
        written = chat_text(tokenizer, [*episode.prompt, message], **options)
        if written.startswith(opening + text):
            return message
    return stripped


def _separator(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """What an encoder's tokenizer puts behind every text, ended or cut, if it does."""
    separator = tokenizer.sep_token_id
    behind = separator is not None and tokenizer(text)["input_ids"][-1] == separator
    return [separator] if behind else []


def _translated(
    end: int | None, tokenizer: PreTrainedTokenizerBase, own: PreTrainedTokenizerBase
) -> list[int]:
    """The token that marks an end, if there is one, in the reward model's tokenizer:
    the same one where it has that, else its EOS token."""
    if end is None:
        return []
    token = tokenizer.convert_ids_to_tokens(end)
    number = own.convert_tokens_to_ids(token)
    if number is None or own.convert_ids_to_tokens(number) != token:
        number = own.eos_token_id
    return [] if number is None else [number]
