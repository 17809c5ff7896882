"""Text to token ids: the template once, special tokens once, padding, room."""

import types

import pytest
import torch

from alignlab.errors import AlignlabError
from alignlab.models.text import (
    as_messages,
    chat_text,
    context_length,
    encode_dialogues,
    encode_prompt,
    pad_left,
    pad_right,
    pad_token_id,
    require_room,
)

PROMPTS = ["What is the capital of France?", "Is gold a metal?"]
REPLIES = ["Paris. The capital of France is Paris.", "Yes."]


def test_a_string_is_one_message():
    assert as_messages("Hi", "user") == [{"role": "user", "content": "Hi"}]
    chat = [{"role": "system", "content": "Be brief."}]
    assert as_messages(chat, "user") == chat


def test_a_chat_opens_the_assistants_turn_on_demand(tiny_tokenizer):
    chat = as_messages("Peru", "user")
    closed = chat_text(tiny_tokenizer, chat)
    assert closed == "<|user|>Peru<|end|>"
    opened = chat_text(tiny_tokenizer, chat, add_generation_prompt=True)
    assert opened == closed + "<|assistant|>"


def test_without_a_chat_template_chats_are_refused(tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(tiny_tokenizer, "chat_template", None)
    for encode in (
        lambda: chat_text(tiny_tokenizer, as_messages("Peru", "user")),
        lambda: encode_prompt(tiny_tokenizer, as_messages("Peru", "user")),
        lambda: encode_dialogues(
            tiny_tokenizer, [as_messages(prompt, "user") for prompt in PROMPTS], REPLIES
        ),
    ):
        with pytest.raises(AlignlabError, match="no chat template.*chat=False"):
            encode()
    assert encode_prompt(tiny_tokenizer, "Peru") == tiny_tokenizer("Peru")["input_ids"]
    plain = tiny_tokenizer(["Peru? sol<|end|>"])["input_ids"]
    assert encode_dialogues(tiny_tokenizer, ["Peru?"], [" sol"]) == plain


class AddsBOS:
    """A tokenizer that opens every text with token 1, as Llama's does."""

    bos_token, chat_template, name_or_path = "<s>", "a template", "adds BOS"

    def __call__(self, text, add_special_tokens=True):
        written = [1] * text.count("<s>")
        words = [7] * len(text.replace("<s>", "").split())
        return {"input_ids": [1] * add_special_tokens + written + words}

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        return "<s>" + " ".join(m["content"] for m in messages) + " go"


@pytest.mark.parametrize(
    "prompt, ids",
    [
        ("two words", [1, 7, 7]),
        ("<s>two words", [1, 7, 7]),
        ([{"role": "user", "content": "two words"}], [1, 7, 7, 7]),
    ],
)
def test_a_prompt_gets_its_special_tokens_once(prompt, ids):
    assert encode_prompt(AddsBOS(), prompt) == ids


def test_a_dialogue_goes_through_the_template_once_and_ends(tiny_tokenizer):
    messages = [{"role": "user", "content": PROMPTS[0]}]
    reply = [{"role": "assistant", "content": REPLIES[0]}]
    (as_text,) = encode_dialogues(tiny_tokenizer, PROMPTS[:1], REPLIES[:1])
    assert encode_dialogues(tiny_tokenizer, [messages], [reply]) == [as_text]
    assert tiny_tokenizer.decode(as_text) == (
        f"<|user|> {PROMPTS[0]}<|end|><|assistant|> {REPLIES[0]}<|end|>"
    )
    assert encode_dialogues(tiny_tokenizer, [], []) == []


def test_a_template_that_never_ends_replies_gets_eos(tiny_tokenizer, monkeypatch):
    endless = "{% for m in messages %}{{ m.content }}{% endfor %}"
    monkeypatch.setattr(tiny_tokenizer, "chat_template", endless)
    with pytest.warns(UserWarning, match="no end of turn behind 2 of 2"):
        rows = encode_dialogues(tiny_tokenizer, PROMPTS, REPLIES)
    for ids, prompt, reply in zip(rows, PROMPTS, REPLIES, strict=True):
        assert tiny_tokenizer.decode(ids) == f" {prompt}{reply}<|end|>"


def test_an_unfinished_turn_is_continued(tiny_tokenizer):
    prompt = as_messages(PROMPTS[0], "user") + as_messages("The capital", "assistant")
    opened = f"<|user|>{PROMPTS[0]}<|end|><|assistant|>The capital"
    ids = encode_prompt(tiny_tokenizer, prompt)
    assert ids == tiny_tokenizer(opened)["input_ids"]
    (dialogue,) = encode_dialogues(tiny_tokenizer, [prompt], [" is Paris."])
    whole = tiny_tokenizer(f"{opened} is Paris.<|end|>")["input_ids"]
    assert dialogue == whole and whole[: len(ids)] == ids


def test_a_prompt_beside_a_whole_dialogue_is_not_read_twice(tiny_tokenizer):
    whole = as_messages(PROMPTS[0], "user") + as_messages(REPLIES[0], "assistant")
    expected = encode_dialogues(tiny_tokenizer, PROMPTS[:1], REPLIES[:1])
    assert encode_dialogues(tiny_tokenizer, PROMPTS[:1], [whole]) == expected
    with pytest.raises(AlignlabError, match="Dialogue 0: .* not begin with its prompt"):
        encode_dialogues(tiny_tokenizer, PROMPTS[1:], [whole])


def test_arguments_of_the_template_are_for_all_or_for_each(tiny_tokenizer, monkeypatch):
    loud = tiny_tokenizer.chat_template.replace(
        "{{ message['content']", "{{ tone }}{{ message['content']"
    )
    monkeypatch.setattr(tiny_tokenizer, "chat_template", loud)
    chat = as_messages("Peru", "user")
    assert chat_text(tiny_tokenizer, chat, tone="Yes. ") == "<|user|>Yes. Peru<|end|>"
    said = [
        tiny_tokenizer.decode(ids)
        for ids in encode_dialogues(
            tiny_tokenizer, ["Peru"] * 2, ["sol"] * 2, [{"tone": "Yes "}, None]
        )
    ]
    assert said == [
        "<|user|> Yes Peru<|end|><|assistant|> Yes sol<|end|>",
        "<|user|> Peru<|end|><|assistant|> sol<|end|>",
    ]
    both = encode_dialogues(tiny_tokenizer, ["Peru"] * 2, ["sol"] * 2, {"tone": "Yes "})
    assert [tiny_tokenizer.decode(ids) for ids in both] == said[:1] * 2
    ids = encode_prompt(tiny_tokenizer, chat, tone="Yes ")
    assert tiny_tokenizer.decode(ids) == "<|user|> Yes Peru<|end|><|assistant|>"


def test_a_reply_without_its_prompt_is_refused(tiny_tokenizer):
    with pytest.raises(ValueError, match="2 entries and completions 1"):
        encode_dialogues(tiny_tokenizer, PROMPTS, REPLIES[:1])


def test_the_context_is_what_the_config_says(tiny_model):
    from transformers import LlamaConfig, LlavaConfig, MambaConfig

    assert context_length(tiny_model) == 128
    mamba = types.SimpleNamespace(config=MambaConfig())
    assert context_length(mamba) == float("inf")
    llava = LlavaConfig(text_config=LlamaConfig(max_position_embeddings=77))
    assert context_length(types.SimpleNamespace(config=llava)) == 77


@pytest.mark.parametrize("kind", ["Roberta", "Camembert", "MPNet", "Bert"])
def test_positions_may_start_behind_the_one_of_padding(kind):
    """The longest text counted is the longest that the model can read."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        vocab_size=60, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=20, pad_token_id=1,
    )  # fmt: skip
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    room = context_length(model)
    model(torch.full((1, room), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, room + 1), 5))
    with pytest.raises(AlignlabError, match=f"{room + 1} tokens"):
        require_room(model, [[5] * (room + 1)])


def test_a_limit_of_minus_one_is_none():
    config = types.SimpleNamespace(max_position_embeddings=-1)  # XLNet's
    assert context_length(types.SimpleNamespace(config=config)) == float("inf")


def test_the_row_without_room_is_named(tiny_model):
    require_room(tiny_model, [[5] * 100, [5] * 128])
    require_room(tiny_model, [[5] * 100], new_tokens=28)
    with pytest.raises(
        AlignlabError,
        match="Prompt 1 has 100 .* 29 new .* 128 pos.*max_new",
    ):
        require_room(tiny_model, [[5], [5] * 100], new_tokens=29)
    with pytest.raises(AlignlabError, match="Dialogue 0 has 129 tokens.* 128 posi"):
        require_room(tiny_model, [[5] * 129], what="Dialogue")
    with pytest.raises(AlignlabError, match="Prompt 1 is empty"):
        require_room(tiny_model, [[5], []])


def test_padding_goes_to_its_side():
    rows = [[7, 8, 9], [5]]
    ids, mask = pad_left(rows, 0)
    assert ids.tolist() == [[7, 8, 9], [0, 0, 5]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    ids, mask = pad_right(rows, 3)
    assert ids.tolist() == [[7, 8, 9], [5, 3, 3]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert ids.dtype == mask.dtype == torch.long
    assert rows == [[7, 8, 9], [5]]


def test_without_padding_and_eos_there_is_nothing_to_pad_with():
    bare = types.SimpleNamespace(pad_token_id=None, eos_token_id=None)
    with pytest.raises(AlignlabError, match="neither a padding nor an EOS token"):
        pad_token_id(bare)


def test_eos_pads_where_there_is_no_padding_token(tiny_tokenizer):
    assert pad_token_id(tiny_tokenizer) == tiny_tokenizer.pad_token_id == 0
    assert pad_token_id(types.SimpleNamespace(pad_token_id=None, eos_token_id=2)) == 2
