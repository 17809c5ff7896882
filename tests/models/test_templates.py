"""What a chat template writes around turns is found, for templates of every kind."""

import warnings

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import GenerationConfig

from alignlab.errors import AlignlabError
from alignlab.models.templates import (
    chat_text,
    closing_ids,
    end_token_ids,
    ending_of,
    marker_ids,
    marker_texts,
    plain_ids,
)
from alignlab.models.text import completion_text
from tests.tiny_models import tokenizer

ALPACA = (
    "{% for m in messages %}{{ '### Input:\n' if m['role'] == 'user' else "
    "'### Output:\n' }}{{ m['content'] }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}### Output:\n{% endif %}"
)
LAST_ONLY = (  # ends the whole dialogue, not its turns
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% else %}{{ eos_token }}{% endif %}"
)
NOT_LAST = (  # ends all turns but the last
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
    "{% if not loop.last %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_end|>\n<|im_start|>assistant\n{% endif %}"
)
PARTS = (  # for texts and pictures: it writes nothing of a string
    "{% for m in messages %}<|{{ m['role'] }}|>{% for p in m['content'] %}"
    "{% if p['type'] == 'text' %}{{ p['text'] }}{% endif %}{% endfor %}<|end|>"
    "{% endfor %}"
)
PHI = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% else %}{{ eos_token }}{% endif %}"
)


def with_template(template, style="chatml"):
    made = tokenizer(style)
    made.chat_template = template
    return made


def tokens(tok, ids):
    return tok.convert_ids_to_tokens(ids)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


# --- How a reply ends -----------------------------------------------------------------


@pytest.mark.parametrize(
    "tok, ends, closing",
    [
        (tokenizer("plain"), ["<|end|>"], ["<|end|>"]),
        (tokenizer("chatml"), ["<|im_end|>"], ["<|im_end|>", "Ċ"]),
        (tokenizer("llama3"), ["<|text_end|>", "<|eot|>"], ["<|eot|>"]),
        (tokenizer("endless"), ["<|end|>"], ["<|end|>"]),
        (with_template(ALPACA, "plain"), ["<|end|>"], ["<|end|>"]),
        (with_template(LAST_ONLY), ["<|im_end|>"], ["Ċ", "<|im_end|>"]),
        (with_template(NOT_LAST, "plain"), ["<|end|>", "<|im_end|>"], ["<|im_end|>"]),
        (
            with_template(PHI, "llama3"),
            ["<|text_end|>", "<|end|>"],
            ["<|end|>", "Ċ", "<|text_end|>"],
        ),
        (with_template(None), ["<|im_end|>"], ["<|im_end|>"]),
    ],
)
def test_what_ends_a_reply_and_what_follows_its_content(tok, ends, closing):
    assert tokens(tok, end_token_ids(tok)) == ends
    assert tokens(tok, closing_ids(tok)) == closing


def test_the_models_generation_config_may_name_further_ends():
    tok = tokenizer("llama3")
    own = end_token_ids(tok)

    class Model:
        generation_config = GenerationConfig(eos_token_id=7)

    assert end_token_ids(tok, Model()) == [*own, 7]
    Model.generation_config.eos_token_id = [own[1], 10, 50256]  # no such token
    assert end_token_ids(tok, Model()) == [*own, 10]
    Model.generation_config.eos_token_id = None
    assert end_token_ids(tok, Model()) == own


def test_a_changed_tokenizer_is_asked_anew():
    tok = tokenizer("plain")
    assert tokens(tok, end_token_ids(tok)) == ["<|end|>"]
    tok.eos_token = "<|eot|>"
    assert tokens(tok, end_token_ids(tok)) == ["<|eot|>", "<|end|>"]
    tok.chat_template = ALPACA
    assert tokens(tok, end_token_ids(tok)) == ["<|eot|>"]
    assert tokens(tok, closing_ids(tok)) == ["<|eot|>"]
    tok.chat_template = tokenizer("chatml").chat_template
    assert tokens(tok, closing_ids(tok)) == ["<|im_end|>", "Ċ"]


def test_the_template_is_asked_once(monkeypatch):
    tok = tokenizer("llama3")
    calls = []
    usual = type(tok).apply_chat_template

    def counted(self, *args, **kwargs):
        calls.append(kwargs)
        return usual(self, *args, **kwargs)

    monkeypatch.setattr(type(tok), "apply_chat_template", counted)
    first = completion_text(tok, [20, 21]), end_token_ids(tok), closing_ids(tok)
    asked = len(calls)
    again = completion_text(tok, [20, 21]), end_token_ids(tok), closing_ids(tok)
    assert first == again and len(calls) == asked > 0


def test_arguments_of_the_template_may_change_the_closing():
    template = "{% for m in messages %}{{ m['content'] }}<|end|>{{ tail }}{% endfor %}"
    tok = with_template(template, "plain")
    assert ending_of(tok, tail="<|eot|>").text == "<|end|><|eot|>"
    assert tokens(tok, closing_ids(tok, tail="<|eot|>")) == ["<|end|>", "<|eot|>"]
    assert tokens(tok, closing_ids(tok)) == ["<|end|>"]


def test_nothing_to_end_with_is_told():
    tok = with_template(ALPACA, "plain")
    tok.eos_token = None
    assert end_token_ids(tok) == []
    with pytest.raises(AlignlabError, match="ends a reply.*eos_token"):
        closing_ids(tok)


# --- What is said ---------------------------------------------------------------------


@pytest.mark.parametrize("style", ["plain", "chatml", "llama3"])
def test_a_replys_text_is_what_is_said(style):
    tok = tokenizer(style)
    start = {"plain": "<|user|>", "chatml": "<|im_start|>", "llama3": "<|head|>"}[style]
    closed = tok.decode(closing_ids(tok))
    sampled = f"<|pad|>{start} <think>Yes</think> Oslo.{closed} Peru{closed}"
    ids = tok(sampled, add_special_tokens=False)["input_ids"]
    assert completion_text(tok, ids) == "<think>Yes</think> Oslo."
    assert completion_text(tok, []) == ""
    assert tok.convert_tokens_to_ids("<think>") not in marker_ids(tok)


def test_our_own_tokenizers_replies_read_as_ever(tiny_tokenizer):
    ids = tiny_tokenizer("<|pad|><|system|><|user|> Oslo.<|assistant|> Yes")[
        "input_ids"
    ]
    expected = tiny_tokenizer.decode(ids, skip_special_tokens=True).strip()
    assert completion_text(tiny_tokenizer, [*ids, 1, *ids]) == expected != ""
    assert set(marker_texts(tiny_tokenizer)) == {"<|user|>", "<|assistant|>", "<|end|>"}


@pytest.mark.parametrize(
    "tok, markers",
    [
        (tokenizer("chatml"), {"<|im_start|>", "<|im_end|>"}),
        (with_template(ALPACA, "plain"), {"### Input:", "### Output:"}),
        (tokenizer("endless"), set()),  # "user:" says little
        (with_template(None), set()),
    ],
)
def test_what_tells_that_a_template_was_applied(tok, markers):
    assert set(marker_texts(tok)) == markers


def test_plain_text_gets_special_tokens_in_front_only():
    ids = tokenizer()("Is gold?")["input_ids"]
    appending = tokenizer(appends_eos=True)
    assert appending("Is gold?")["input_ids"] == ids + [appending.eos_token_id]
    assert plain_ids(appending, "Is gold?") == ids == plain_ids(tokenizer(), "Is gold?")
    written = plain_ids(appending, "Is gold?<|end|>")  # by hand
    assert written == ids + [appending.eos_token_id]
    assert plain_ids(appending, "") == []


def test_bos_stays_in_front_and_eos_goes():
    tok = tokenizer()
    tok.bos_token = "<|head|>"
    bos, eos = tok.bos_token_id, tok.eos_token_id
    tok._tokenizer.post_processor = TemplateProcessing(
        single="<|head|> $A <|end|>",
        special_tokens=[("<|head|>", bos), ("<|end|>", eos)],
    )
    words = tokenizer()("Is gold?")["input_ids"]
    assert tok("Is gold?")["input_ids"] == [bos, *words, eos]
    for text in ("Is gold?", "<|head|>Is gold?"):
        assert plain_ids(tok, text) == [bos, *words]
    assert plain_ids(tok, "") == [bos]


# --- Messages -------------------------------------------------------------------------


def test_contents_are_given_as_the_template_reads_them():
    parts = [{"type": "text", "text": "Is "}, {"type": "text", "text": "gold?"}]
    for tok in (tokenizer("plain"), with_template(PARTS, "plain")):
        for content in ("Is gold?", parts):
            text = chat_text(tok, [user(content), assistant("Yes")])
            assert text == "<|user|>Is gold?<|end|><|assistant|>Yes<|end|>"
    picture = [{"type": "image", "url": "x.png"}]
    with pytest.raises(AlignlabError, match="writes text only.*'image'"):
        chat_text(tokenizer("plain"), [user(picture)])


@pytest.mark.parametrize(
    "message, words",
    [
        ({"from": "human", "value": "Hi"}, "Message 1 has no role.*data.load"),
        ({"role": "assistant", "content": None}, "Message 1 has no content"),
        ("Hi", "Message 1 has no role"),
    ],
)
def test_what_is_no_message_is_named(message, words):
    with pytest.raises(AlignlabError, match=words):
        chat_text(tokenizer(), [user("Hi"), message])


def test_what_the_template_refuses_or_does_not_read_is_told():
    strict = (
        "{% if messages[0]['role'] == 'system' %}"
        "{{ raise_exception('No system role') }}{% endif %}" + tokenizer().chat_template
    )
    tok = with_template(strict, "plain")
    with pytest.raises(AlignlabError, match="No system role.*roles"):
        chat_text(tok, [{"role": "system", "content": "Be brief."}, user("Hi")])
    assert tokens(tok, end_token_ids(tok)) == ["<|end|>"]
    assert completion_text(tok, tok("<|user|>Oslo")["input_ids"]) == "Oslo"
    with pytest.warns(UserWarning, match="does not read 'enable_thinkin'"):
        chat_text(tokenizer("chatml"), [user("Hi")], enable_thinkin=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chat_text(tokenizer("chatml"), [user("Hi")], enable_thinking=False)
