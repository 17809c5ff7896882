"""Dialogues: they fit together, and masks begin and end where turns do."""

import warnings

import pytest

from alignlab.errors import AlignlabError
from alignlab.models.dialogues import (
    Dialogue,
    Plain,
    encode_conversations,
    encode_plain,
    encode_turns,
    join,
)
from alignlab.models.text import encode_prompt
from tests.models.test_templates import (
    ALPACA,
    LAST_ONLY,
    NOT_LAST,
    PHI,
    assistant,
    user,
    with_template,
)
from tests.tiny_models import tokenizer

ASKED = "What is the capital of Norway?"
TURNS = [user(ASKED), assistant("Oslo."), user("Is gold?"), assistant("Yes")]
SYSTEM = {"role": "system", "content": "Say it in one word."}
THINKING = (  # keeps only the last turn's thoughts, as Qwen3's does
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and not loop.last %}"
    "{{ m['content'].split('</think>')[-1] }}{% elif m['role'] == 'assistant' and "
    "'</think>' not in m['content'] %}<think></think>{{ m['content'] }}"
    "{% else %}{{ m['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>"
    "{% endif %}{% endif %}"
)
MARKED = THINKING.replace(
    "{{ m['content'].split('</think>')[-1] }}",
    "{% generation %}{{ m['content'].split('</think>')[-1] }}{% endgeneration %}",
)


def encode(tok, messages, turns=None, start=None, **kwargs):
    start = len(messages) - 1 if start is None else start
    turns = [start] if turns is None else turns
    dialogue = Dialogue(messages[:start], messages, start)
    return encode_turns(tok, [dialogue], [turns], [kwargs], ["Row 0"])[0]


def learned(tok, encoded):
    """The parts of the text that are learned."""
    parts, before = [], 0
    for token, counts in zip(encoded.input_ids, encoded.completion_mask, strict=True):
        if counts:
            parts += [] if before else [[]]
            parts[-1].append(token)
        before = counts
    return [tok.decode(part) for part in parts]


# --- Joining --------------------------------------------------------------------------


def test_a_completion_follows_its_prompt():
    expected = Dialogue(TURNS[:1], TURNS[:2], 1)
    for prompt in (ASKED, TURNS[:1]):
        for completion in ("Oslo.", TURNS[1:2]):
            assert join(prompt, completion) == expected
    assert join(TURNS[:1], TURNS[1:]) == Dialogue(TURNS[:1], TURNS, 1)


def test_a_whole_conversation_holds_its_prompt_once():
    expected = Dialogue(TURNS[:1], TURNS, 1)
    assert join(ASKED, TURNS) == join(f" {ASKED}\n", TURNS) == expected
    assert join(TURNS[:1], TURNS) == expected
    assert join(TURNS[:3], TURNS) == Dialogue(TURNS[:3], TURNS, 3)
    led = [SYSTEM, *TURNS]
    assert join(ASKED, led) == Dialogue(led[:2], led, 2)
    assert join(led[:2], led) == Dialogue(led[:2], led, 2)
    for prompt in (None, "", []):
        assert join(prompt, TURNS) == Dialogue(TURNS[:3], TURNS, 3)
    parts = [{"type": "text", "text": ASKED}]
    assert join([user(parts)], TURNS) == expected


@pytest.mark.parametrize(
    "prompt, completion, words",
    [
        ("Is gold?", TURNS, "does not begin with its prompt 'Is gold"),
        (TURNS[:2], [user("Peru?"), assistant("Lima")], "does not begin with"),
        ([user("Peru?"), TURNS[0]], TURNS, "does not begin with its prompt"),
        (ASKED, [SYSTEM, user("Peru?"), assistant("Lima")], "does not begin"),
        (ASKED, TURNS[1:3], "does not end in an assistant's message"),
        (ASKED, [], "does not end in an assistant's"),
        (ASKED, [{"from": "gpt", "value": "Oslo"}], "Message 0 has no role"),
    ],
)
def test_what_does_not_fit_together_is_refused(prompt, completion, words):
    with pytest.raises(AlignlabError, match=words):
        join(prompt, completion)


def test_an_unfinished_turn_is_continued():
    prompt = [user(ASKED), assistant("It is")]
    whole = [user(ASKED), assistant("It is Oslo.")]
    assert join(prompt, " Oslo.") == Dialogue(prompt, whole, 1)
    assert join(prompt, [assistant(" Oslo.")]) == Dialogue(prompt, whole, 1)
    assert join(prompt, whole) == Dialogue(prompt, whole, 1)  # it holds the prompt
    for style in ("plain", "chatml", "llama3", "endless"):
        tok = tokenizer(style)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            encoded = encode_turns(tok, [join(prompt, whole)], [[1]], [{}], ["Row 0"])
            assert [encoded[0].input_ids] == encode_conversations(tok, [whole], [{}])
        assert encoded[0].prompt == encode_prompt(tok, prompt)
        ending = tok.decode(encoded[0].completion).removeprefix(" Oslo.")
        assert ending.strip() and "Oslo" not in tok.decode(encoded[0].prompt)


# --- Masks ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tok, first, last",
    [
        (tokenizer("plain"), "Oslo.<|end|>", "Yes<|end|>"),
        (tokenizer("chatml"), "Oslo.<|im_end|>\n", "Yes<|im_end|>\n"),
        (tokenizer("llama3"), "Oslo.<|eot|>", "Yes<|eot|>"),
        (tokenizer("endless"), " Oslo.", " Yes<|end|>"),
        (with_template(ALPACA, "plain"), "Oslo.", "Yes<|end|>"),
        (with_template(LAST_ONLY), " Oslo.", " Yes\n<|im_end|>"),
        (with_template(NOT_LAST), "Oslo.<|im_end|>", "Yes<|im_end|>"),
        (with_template(PHI), "Oslo.<|end|>\n", "Yes<|end|>\n<|im_end|>"),
    ],
)
@pytest.mark.filterwarnings("ignore:The chat template writes no end")
def test_all_turns_of_the_assistant_or_the_last_are_learned(tok, first, last):
    encoded = encode(tok, TURNS, [1, 3])
    assert learned(tok, encoded) == [first, last]
    only = encode(tok, TURNS)
    assert learned(tok, only) == [last] and only.input_ids == encoded.input_ids
    assert only.prompt == encode_prompt(tok, TURNS[:3])
    earlier = encoded.input_ids[: encoded.completion_mask.index(1)]
    assert earlier == encode_prompt(tok, TURNS[:1])


def test_a_template_that_never_ends_a_turn_gets_eos_once_and_says_so():
    tok = with_template(ALPACA, "plain")
    with pytest.warns(UserWarning, match="no end of turn behind 2 of 2") as told:
        rows = encode_conversations(tok, [TURNS, TURNS[:2]], [{}, {}])
    assert len(told) == 1
    for ids, content in zip(rows, ("Yes", "Oslo."), strict=True):
        assert ids.count(tok.eos_token_id) == 1  # earlier turns stay as in prompts
        assert tok.decode(ids).endswith(f"### Output:\n{content}<|end|>")
    by_hand = [*TURNS[:1], assistant("Oslo.<|end|>")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert encode_conversations(tok, [by_hand], [{}])[0] == rows[1]
    tok.eos_token = None
    with pytest.raises(AlignlabError, match="tokenizer.eos_token"):
        encode_conversations(tok, [TURNS], [{}])


def test_turns_whose_thoughts_are_left_out_are_not_masked_wrongly():
    tok = with_template(THINKING)
    thought = [user(ASKED), assistant("<think>Norway</think>Oslo."), *TURNS[2:]]
    last = encode(tok, thought)
    assert learned(tok, last) == ["<think></think>Yes<|im_end|>\n"]
    assert "Norway</think>" not in tok.decode(last.input_ids)
    for messages in (thought, TURNS):
        with pytest.raises(AlignlabError, match="Row 0 .*once others follow.*generat"):
            encode(tok, messages, [1, 3])
    quiet = encode(tok, TURNS, enable_thinking=False)
    assert learned(tok, quiet) == ["Yes<|im_end|>\n"]
    assert quiet.prompt == encode_prompt(tok, TURNS[:3], enable_thinking=False)


def test_a_template_may_mark_the_turns_itself():
    tok = with_template(MARKED)
    thought = [user(ASKED), assistant("<think>Norway</think>Oslo."), *TURNS[2:]]
    encoded = encode(tok, thought, [1, 3])
    assert learned(tok, encoded) == ["Oslo.", "<think></think>Yes<|im_end|>\n"]


def test_a_template_that_opens_replies_with_what_it_does_not_keep_is_refused():
    with pytest.raises(AlignlabError, match="Row 0 .*no boundary.*<think></think>'"):
        encode(tokenizer("chatml"), TURNS, enable_thinking=False)


def test_a_conversation_may_begin_with_the_assistant():
    tok = tokenizer("chatml")
    greeted = [assistant("Yes"), *TURNS]
    encoded = encode(tok, greeted, [0, 2, 4])
    expected = ["Yes<|im_end|>\n", "Oslo.<|im_end|>\n", "Yes<|im_end|>\n"]
    assert learned(tok, encoded) == expected


def test_tool_calls_and_two_turns_in_a_row_keep_their_places():
    tok = tokenizer("plain")
    messages = [user("Is gold?"), assistant("Yes"), assistant("Oslo."), assistant("No")]
    assert learned(tok, encode(tok, messages, [1, 3])) == ["Yes<|end|>", "No<|end|>"]


def test_a_token_across_the_boundary_is_learned_as_a_whole_and_told():
    tok = tokenizer("plain")
    prompt = [user("Is gold?"), assistant("The answer is ")]
    with pytest.warns(UserWarning, match="In 1 of 1 dialogues one token .* the prompt"):
        dialogue = join(prompt, "Yes")
        encoded = encode_turns(tok, [dialogue], [[1]], [{}], ["Row 0"])[0]
    whole = [user("Is gold?"), assistant("The answer is Yes")]
    assert [encoded.input_ids] == encode_conversations(tok, [whole], [{}])
    assert learned(tok, encoded) == [" Yes<|end|>"]


# --- Plain text -----------------------------------------------------------------------


@pytest.mark.parametrize("appends", [False, True])
def test_plain_text_ends_in_eos_once(appends):
    tok = tokenizer("plain", appends_eos=appends)
    end = tok.eos_token_id
    plains = [
        Plain("", "Is gold?"),
        Plain("Is gold?", " Yes."),
        Plain("Is", " Yes<|end|>"),
    ]
    encoded = encode_plain(tok, plains)
    words = tokenizer("plain")(["Is gold?", "Is gold? Yes.", "Is Yes"])["input_ids"]
    assert [e.input_ids for e in encoded] == [ids + [end] for ids in words]
    assert learned(tok, encoded[0]) == ["Is gold?<|end|>"]
    assert learned(tok, encoded[1]) == [" Yes.<|end|>"]
    assert encoded[1].prompt == encode_prompt(tok, "Is gold?")


def test_a_text_that_was_a_dialogue_is_not_ended_twice():
    tok = tokenizer("chatml")
    text = tok.apply_chat_template(TURNS, tokenize=False)
    ids = encode_plain(tok, [Plain("", text)])[0].input_ids
    assert [ids] == encode_conversations(tok, [TURNS], [{}])
