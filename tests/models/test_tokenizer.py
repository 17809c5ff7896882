"""The tokenizer: lossless, one spelling per word, one chat template."""

import pytest
from transformers import AutoTokenizer

from alignlab.models.base import base_path, tokenizer_path
from alignlab.models.tokenizer import (
    ASSISTANT,
    END,
    PAD,
    SYSTEM,
    USER,
    VOCABULARY,
    train_tokenizer,
)

LEARNT_FROM = [
    "The capital of France is Paris, and Paris is in France.",
    "Iron has number 26; in 1998 there were 1998 of them.",
    "Zanzibar, Zanzibar, Zanzibar and once more Zanzibar.",
]
TEXTS = [
    "Paris",
    "The capital of France is Paris.",
    "Bogotá, São Tomé – “quoted” 日本 🙂",
    "two  spaces, a tab\tand\nlines\n\n",
    "3,000.50 + 7x = x²½",
    "so ? do n't , I 'm ... ok",
    "don't <b>html</b> &amp; \\n {a} %s <| |> <|pad <end|>",
    "".join(chr(c) for c in range(33, 0x250)),
]


@pytest.fixture(scope="module")
def trained():
    return train_tokenizer(LEARNT_FROM, vocabulary=310, context=77)


@pytest.fixture(scope="module")
def shipped():
    return AutoTokenizer.from_pretrained(tokenizer_path(base_path("300k")))


@pytest.fixture(params=["trained", "shipped"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


# --- Text to tokens and back --------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS)
def test_texts_survive_encoding(tokenizer, text):
    assert tokenizer.decode(ids(tokenizer, text)) == f" {text}"


def test_numbers_are_split_into_digits(tokenizer):
    written = [tokenizer.decode([i]) for i in range(len(tokenizer))]
    with_digits = [text for text in written if any(c in "0123456789" for c in text)]
    assert sorted(with_digits) == list("0123456789")
    number = [tokenizer.decode([i]) for i in ids(tokenizer, "26+1998")]
    assert "".join(number).strip() == "26+1998"
    assert [text for text in number if text.isdigit()] == list("261998")


@pytest.mark.parametrize("word", ["Paris", "Zanzibar", "iron", "26", "“Oh”"])
def test_a_word_has_the_same_tokens_everywhere(tokenizer, word):
    alone = ids(tokenizer, word)
    assert ids(tokenizer, f" {word}") == alone
    assert ids(tokenizer, f"It is {word}")[-len(alone) :] == alone
    for special in (ASSISTANT, USER, END):
        [first] = tokenizer.convert_tokens_to_ids([special])
        assert ids(tokenizer, f"{special}{word}") == [first, *alone]
    reply = ids(tokenizer, f"{ASSISTANT}{word}.{END}")
    assert reply[1 : 1 + len(alone)] == alone


def test_frequent_words_become_one_token(trained):
    assert len(ids(trained, "Zanzibar")) == 1
    assert len(ids(trained, "Tanzania")) > 1


def test_only_text_that_spells_special_tokens_gives_them(tokenizer):
    special = set(tokenizer.all_special_ids)
    assert special == {0, 1, 2, 3, 4}
    for text in (*TEXTS, "<|end |>", "<|END|>", "<| user |>", "pad end user assistant"):
        assert not special & set(ids(tokenizer, text))
    # As in other chat models: prompts from strangers need care.
    assert tokenizer.eos_token_id in ids(tokenizer, "He wrote <|end|> here")


# --- The vocabulary -----------------------------------------------------------------


def test_the_same_texts_give_the_same_tokenizer(trained):
    again = train_tokenizer(iter(LEARNT_FROM), vocabulary=310, context=77)
    assert again.backend_tokenizer.to_str() == trained.backend_tokenizer.to_str()
    other = train_tokenizer(LEARNT_FROM[::-1][:2], vocabulary=310)
    assert other.get_vocab() != trained.get_vocab()


def test_the_vocabulary_holds_special_tokens_and_every_byte(trained, shipped):
    assert len(trained) == trained.vocab_size == 310 and trained.model_max_length == 77
    assert len(shipped) == shipped.vocab_size == VOCABULARY == 2048
    for tokenizer in (trained, shipped):
        found = tokenizer.convert_ids_to_tokens(range(5))
        assert found == [PAD, END, USER, ASSISTANT, SYSTEM]
        assert tokenizer.pad_token == PAD and tokenizer.eos_token == END
        assert tokenizer.bos_token is None and tokenizer.unk_token is None


# --- The chat template --------------------------------------------------------------

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Where is Oslo?"},
    {"role": "assistant", "content": "Norway."},
    {"role": "user", "content": "And Paris?"},
    {"role": "assistant", "content": "France."},
]


def test_a_chat_is_written_by_the_template(tokenizer):
    written = tokenizer.apply_chat_template(CHAT[1:3], tokenize=False)
    assert written == "<|user|>Where is Oslo?<|end|><|assistant|>Norway.<|end|>"
    whole = tokenizer.apply_chat_template(CHAT, tokenize=False)
    assert whole.startswith("<|system|>Be brief.<|end|><|user|>Where")
    assert whole.count("<|end|>") == len(CHAT)


@pytest.mark.parametrize("turns", [2, 4])
def test_a_chat_begins_with_its_prompt(tokenizer, turns):
    def rendered(chat, **options):
        return tokenizer.apply_chat_template(chat, tokenize=False, **options)

    prompt = rendered(CHAT[:turns], add_generation_prompt=True)
    whole = rendered(CHAT[: turns + 1])
    assert prompt == rendered(CHAT[:turns]) + "<|assistant|>"
    assert whole == f"{prompt}{CHAT[turns]['content']}<|end|>"
    # The same in tokens:
    reply = ids(tokenizer, CHAT[turns]["content"])
    end = tokenizer.eos_token_id
    assert ids(tokenizer, whole) == [*ids(tokenizer, prompt), *reply, end]


def test_a_saved_tokenizer_comes_back(trained, tmp_path):
    trained.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        assert ids(loaded, text) == ids(trained, text)
        assert loaded.decode(ids(loaded, text)) == f" {text}"
    for options in ({}, {"add_generation_prompt": True}):
        chats = [
            t.apply_chat_template(CHAT, tokenize=False, **options)
            for t in (trained, loaded)
        ]
        assert chats[0] == chats[1]
    assert loaded.padding_side == "left" and loaded.model_max_length == 77
    assert loaded.all_special_ids == trained.all_special_ids


def test_prompts_are_padded_on_the_left(tokenizer):
    batch = tokenizer(["Paris", "Paris is in France."], padding=True)
    assert batch.input_ids[0][0] == tokenizer.pad_token_id
    assert batch.attention_mask[0][0] == 0 and batch.attention_mask[0][-1] == 1
