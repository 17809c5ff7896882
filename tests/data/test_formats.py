"""Rows of every usual format, and what they are in TRL's columns."""

import json

import numpy as np
import pytest
import torch
import trl

from alignlab.data.formats import is_desirable, to_columns
from alignlab.errors import AlignlabError


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


def human(text):
    return {"from": "human", "value": text}


def gpt(text):
    return {"from": "gpt", "value": text}


CHAT = [user("Sky?"), assistant("Blue.")]
SKY, BLUE, GREEN = [user("Sky?")], [assistant("Blue.")], [assistant("Green.")]
PAIR = {"prompt": SKY, "chosen": BLUE, "rejected": GREEN}
HISTORY = [user("Hi"), assistant("Hello"), user("Sky?")]

# What is given, and what it is in TRL's columns.
SUPPORTED = {
    "text": ({"text": "Sky"}, {"text": "Sky"}),
    "messages": ({"messages": CHAT}, {"messages": CHAT}),
    "prompt": ({"prompt": "Sky?"}, {"prompt": "Sky?"}),
    "prompt of messages": ({"prompt": SKY}, {"prompt": SKY}),
    "completion": (
        {"prompt": "Sky is", "completion": " blue."},
        {"prompt": "Sky is", "completion": " blue."},
    ),
    "completion of messages": (
        {"prompt": SKY, "completion": BLUE},
        {"prompt": SKY, "completion": BLUE},
    ),
    "pair": (
        {"prompt": "Sky is", "chosen": " blue.", "rejected": " green."},
        {"prompt": "Sky is", "chosen": " blue.", "rejected": " green."},
    ),
    "pair of messages": (PAIR, PAIR),
    "pair without prompt": (
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
    ),
    "pair that parts inside a word": (
        {"chosen": "The sky is grey.", "rejected": "The sky is green."},
        {"prompt": "The sky is", "chosen": " grey.", "rejected": " green."},
    ),
    "pair of conversations without prompt": (
        {"chosen": SKY + BLUE, "rejected": SKY + GREEN},
        PAIR,
    ),
    "unpaired": (
        {"prompt": "Sky is", "completion": " blue.", "label": True},
        {"prompt": "Sky is", "completion": " blue.", "label": True},
    ),
    "unpaired messages": (
        {"prompt": SKY, "completion": GREEN, "label": False},
        {"prompt": SKY, "completion": GREEN, "label": False},
    ),
    "a label as text": (
        {"prompt": "Sky is", "completion": " green.", "label": "false"},
        {"prompt": "Sky is", "completion": " green.", "label": False},
    ),
    "HH-RLHF": (
        {
            "chosen": "\n\nHuman: Sky?\n\nAssistant: Blue.",
            "rejected": "\n\nHuman: Sky?\n\nAssistant: Green.",
        },
        PAIR,
    ),
    "HH-RLHF, several turns": (
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Sky?"
            "\n\nAssistant: Blue.  Human: Sure?\n\nAssistant: Yes.",
            "rejected": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Sky?"
            "\n\nAssistant: Green.",
        },
        {
            "prompt": HISTORY,
            "chosen": [assistant("Blue.  Human: Sure?"), assistant("Yes.")],
            "rejected": GREEN,
        },
    ),
    "HH-RLHF that parts early": (
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Sky?"
            "\n\nAssistant: Blue.",
            "rejected": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Why?"
            "\n\nAssistant: Green.",
        },
        {
            "prompt": [user("Hi")],
            "chosen": [assistant("Hello"), user("Sky?"), *BLUE],
            "rejected": [assistant("Yes?"), user("Why?"), *GREEN],
        },
    ),
    "conversations that part at a user's turn": (
        {
            "chosen": [*CHAT, user("Sure?"), assistant("Yes.")],
            "rejected": [*CHAT, user("Why?"), assistant("Light.")],
        },
        {
            "prompt": SKY,
            "chosen": [*BLUE, user("Sure?"), assistant("Yes.")],
            "rejected": [*BLUE, user("Why?"), assistant("Light.")],
        },
    ),
    "conversations that share no turn": (
        {"chosen": [user("A"), assistant("B")], "rejected": [user("C"), *GREEN]},
        {
            "prompt": [],
            "chosen": [user("A"), assistant("B")],
            "rejected": [user("C"), *GREEN],
        },
    ),
    "a transcript as prompt": (
        {
            "prompt": "\n\nHuman: Sky?\n\nAssistant:",
            "chosen": " Blue.",
            "rejected": " Green.",
        },
        PAIR,
    ),
    "a transcript as prompt alone": (
        {"prompt": "Human: Hi\n\nAssistant: Hello\n\nHuman: Sky?\n\nAssistant:"},
        {"prompt": HISTORY},
    ),
    "a prompt beside transcripts": (
        {
            "prompt": "Sky?",
            "chosen": "Human: Sky?\n\nAssistant: Blue.",
            "rejected": "Human: Sky?\n\nAssistant: Green.",
        },
        PAIR,
    ),
    "UltraFeedback, binarized": (
        {
            "prompt": "Sky?",
            "prompt_id": "1",
            "chosen": SKY + BLUE,
            "rejected": SKY + GREEN,
            "messages": SKY + BLUE,
            "score_chosen": 8.0,
            "score_rejected": 2.0,
        },
        PAIR | {"prompt_id": "1", "score_chosen": 8.0, "score_rejected": 2.0},
    ),
    "UltraFeedback": (
        {
            "instruction": "Sky?",
            "models": ["a", "b", "c", "d"],
            "completions": [
                {"model": "a", "response": "Grey.", "overall_score": 5.0},
                {"model": "b", "response": "Green.", "overall_score": 1.0},
                {"model": "c", "response": "Blue.", "overall_score": 9.5},
                {"model": "d", "response": "Red.", "overall_score": "N/A"},
            ],
        },
        {
            "prompt": "Sky?",
            "chosen": "Blue.",
            "rejected": "Green.",
            "models": ["a", "b", "c", "d"],
            "score_chosen": 9.5,
            "score_rejected": 1.0,
        },
    ),
    "scores beside completions": (
        {"prompt": "Sky?", "completions": ["Green.", "Blue."], "scores": ["1", 2]},
        {
            "prompt": "Sky?",
            "chosen": "Blue.",
            "rejected": "Green.",
            "score_chosen": 2.0,
            "score_rejected": 1.0,
        },
    ),
    "ranking": (
        {"prompt": "Sky?", "completions": ["Blue.", "Green."]},
        {"prompt": "Sky?", "completions": ["Blue.", "Green."]},
    ),
    "ranking of messages": (
        {"prompt": "Sky?", "completions": [SKY + BLUE, GREEN]},
        {"prompt": SKY, "completions": [BLUE, GREEN]},
    ),
    "ShareGPT": (
        {"id": "x", "conversations": [human("Sky?"), gpt("Blue.")]},
        {"messages": CHAT, "id": "x"},
    ),
    "ShareGPT with a system prompt": (
        {"system": "Be brief.", "conversations": [human("Sky?"), gpt("Blue.")]},
        {"messages": [system("Be brief."), *CHAT]},
    ),
    "ShareGPT pairs": (
        {
            "conversations": [human("Sky?")],
            "chosen": gpt("Blue."),
            "rejected": gpt("Green."),
        },
        PAIR,
    ),
    "Alpaca": (
        {"instruction": "Translate.", "input": "Himmel", "output": "sky"},
        {"prompt": "Translate.\n\nHimmel", "completion": "sky"},
    ),
    "Dolly": (
        {"instruction": "Colour?", "context": "The sky.", "response": "Blue."},
        {"prompt": "Colour?\n\nThe sky.", "completion": "Blue."},
    ),
    "question about a passage": (
        {"question": "Colour?", "passage": "The sky.", "answer": "Blue."},
        {"prompt": "Colour?\n\nThe sky.", "completion": "Blue."},
    ),
    "messages with a label": (
        {"messages": CHAT, "label": False},
        {"prompt": SKY, "completion": BLUE, "label": False},
    ),
    "ShareGPT with a label": (
        {"conversations": [human("Sky?"), gpt("Blue.")], "label": "True"},
        {"prompt": SKY, "completion": BLUE, "label": True},
    ),
    "messages with a class": (
        {"messages": CHAT, "label": 1},
        {"messages": CHAT, "label": 1},
    ),
    "text with a class": (
        {"text": "x", "label": "spam"},
        {"text": "x", "label": "spam"},
    ),
    "Alpaca without input": (
        {"instruction": "Sky?", "input": "", "output": "Blue."},
        {"prompt": "Sky?", "completion": "Blue."},
    ),
    "Alpaca with its text": (
        {
            "instruction": "Sky?",
            "input": "",
            "output": "Blue.",
            "text": "### Instruction:\nSky?\n\n### Response:\nBlue.",
        },
        {"prompt": "Sky?", "completion": "Blue."},
    ),
    "Alpaca with history and system": (
        {
            "system": "Be brief.",
            "history": [["Hi", "Hello"]],
            "instruction": "Sky?",
            "input": None,
            "output": "Blue.",
        },
        {"prompt": [system("Be brief."), *HISTORY], "completion": BLUE},
    ),
    "Alpaca pairs": (
        {"instruction": "Sky?", "input": "", "chosen": "Blue.", "rejected": "Green."},
        {"prompt": "Sky?", "chosen": "Blue.", "rejected": "Green."},
    ),
    "OpenAI": (
        {"messages": [system("Be brief."), user("Sky?"), assistant("Blue.")]},
        {"messages": [system("Be brief."), user("Sky?"), assistant("Blue.")]},
    ),
    "OpenAI's content in parts": (
        {"messages": [user([{"type": "text", "text": "Sky?"}]), *BLUE]},
        {"messages": CHAT},
    ),
    "OpenAI's pairs": (
        {
            "input": {"messages": SKY, "tools": []},
            "preferred_output": BLUE,
            "non_preferred_output": GREEN,
        },
        PAIR,
    ),
    "question and answer": (
        {"question": "Sky?", "answer": "Blue."},
        {"prompt": "Sky?", "completion": "Blue."},
    ),
    "question and pair, with a system prompt": (
        {"system": "", "question": "Sky?", "chosen": "Blue.", "rejected": "Green."},
        {"prompt": "Sky?", "chosen": "Blue.", "rejected": "Green."},
    ),
    "prompt and response": (
        {"prompt": "Sky?", "response": "Blue."},
        {"prompt": "Sky?", "completion": "Blue."},
    ),
    "UltraChat": (
        {"prompt": "Sky?", "prompt_id": "x", "messages": CHAT},
        {"messages": CHAT, "prompt_id": "x"},
    ),
    "messages as JSON": (
        {"chosen": json.dumps(SKY + BLUE), "rejected": json.dumps(SKY + GREEN)},
        PAIR,
    ),
    "messages as Python writes them": ({"messages": str(CHAT)}, {"messages": CHAT}),
    "a prompt beside whole conversations": (
        {"prompt": "Sky?", "completion": SKY + BLUE},
        {"prompt": SKY, "completion": BLUE},
    ),
    "a prompt beside completions of messages": (
        {"prompt": "Sky?", "chosen": BLUE, "rejected": GREEN},
        PAIR,
    ),
    "a first prompt beside long conversations": (
        {"prompt": "Hi", "chosen": HISTORY + BLUE, "rejected": HISTORY + GREEN},
        {"prompt": HISTORY, "chosen": BLUE, "rejected": GREEN},
    ),
    "a prompt of messages beside whole conversations": (
        {"prompt": HISTORY, "chosen": HISTORY + BLUE, "rejected": HISTORY + GREEN},
        {"prompt": HISTORY, "chosen": BLUE, "rejected": GREEN},
    ),
    "a system turn in the conversations alone": (
        {"prompt": "Sky?", "completion": [system("Be brief."), *CHAT]},
        {"prompt": [system("Be brief."), *SKY], "completion": BLUE},
    ),
    "one conversation whole": (
        {"prompt": "Sky?", "chosen": SKY + BLUE, "rejected": GREEN},
        PAIR,
    ),
    "an unfinished turn": (
        {"prompt": [*SKY, assistant("It is")], "completion": [assistant(" blue.")]},
        {"prompt": [*SKY, assistant("It is")], "completion": [assistant(" blue.")]},
    ),
    "an unfinished turn in the conversation": (
        {
            "prompt": [*SKY, assistant("It is")],
            "completion": [*SKY, assistant("It is blue.")],
        },
        {"prompt": [*SKY, assistant("It is")], "completion": [assistant(" blue.")]},
    ),
    "texts with their prompt": (
        {"prompt": "Sky is", "chosen": "Sky is blue.", "rejected": "Sky is green."},
        {"prompt": "Sky is", "chosen": " blue.", "rejected": " green."},
    ),
    "messages with gaps": (
        {"messages": [user("Sky?") | {"name": None}, *BLUE]},
        {"messages": CHAT},
    ),
    "further columns": (
        {"prompt": SKY, "solution": "blue", "chat_template_kwargs": {"think": True}},
        {"prompt": SKY, "solution": "blue", "chat_template_kwargs": {"think": True}},
    ),
}


@pytest.mark.parametrize("name", SUPPORTED)
def test_every_format_becomes_trls_columns(name):
    given, expected = SUPPORTED[name]
    before = json.dumps(given)
    formatted = to_columns([given, given])
    assert formatted.rows == [expected, expected]
    assert formatted.left_out == {}
    assert json.dumps(given) == before
    again = to_columns(formatted.rows).rows
    assert again == formatted.rows or name == "an unfinished turn in the conversation"


@pytest.mark.parametrize(
    "name",
    ["pair without prompt", "pair of conversations without prompt"],
)
def test_implicit_prompts_are_trls(name):
    given, expected = SUPPORTED[name]
    assert trl.extract_prompt(given) == expected


@pytest.mark.parametrize(
    ("row", "format"),
    [
        ({"text": "x"}, "language modelling"),
        ({"messages": CHAT}, "language modelling"),
        ({"prompt": "x"}, "prompt-only"),
        ({"prompt": "x", "completion": "y"}, "prompt-completion"),
        ({"prompt": "x", "completion": "y", "label": 1}, "unpaired preference"),
        (PAIR, "preference"),
        ({"prompt": "x", "completions": ["y", "z"]}, "ranking"),
    ],
)
def test_formats_have_names(row, format):
    assert to_columns([row]).format == format


# --- What is refused, in which words ----------------------------------------------

REFUSED = {
    "prompt is not the beginning": (
        {"prompt": "Sea?", "chosen": SKY + BLUE, "rejected": SKY + GREEN},
        "Row 0: the prompt is not the beginning of the conversation",
        "columns=",
    ),
    "prompt of messages is not the beginning": (
        {"prompt": HISTORY, "completion": SKY + BLUE},
        "not the beginning",
        "columns=",
    ),
    "prompt is the last turn only": (
        {"prompt": "Sky?", "completion": HISTORY + BLUE},
        "not the beginning",
        "columns=",
    ),
    "prompt beside other messages": (
        {"prompt": "Sea?", "messages": CHAT},
        "not the beginning",
        "columns=",
    ),
    "two system turns": (
        {
            "prompt": [system("A"), *SKY],
            "completion": [system("B"), *SKY, *BLUE],
        },
        "different system turns",
        "columns=",
    ),
    "system turns of the two sides": (
        {
            "prompt": "Sky?",
            "chosen": [system("A"), *SKY, *BLUE],
            "rejected": [system("B"), *SKY, *GREEN],
        },
        "different system turns",
        "columns=",
    ),
    "two system prompts": (
        {"system": "A", "messages": [system("B"), *CHAT]},
        "two different system prompts",
        "columns=",
    ),
    "prompt and answer": (
        {"prompt": "Sky?", "answer": "blue"},
        "answer and prompt can be read in more than one way",
        '{"answer": "answer"} if answer is not to be read '
        'or columns={"answer": "completion"}',
    ),
    "two completions": (
        {"question": "Sky?", "answer": "a", "response": "b"},
        "response and answer and question",
        'columns={"response": "response"}',
    ),
    "two prompts": (
        {"question": "Sky?", "instruction": "x", "output": "y"},
        "question and instruction",
        'columns={"question": "question"}',
    ),
    "pairs and completions": (
        PAIR | {"completion": "x"},
        "completion and chosen and rejected",
        'columns={"completion": "other_completion"}',
    ),
    "text that says something else": (
        {"question": "Sky?", "answer": "Blue.", "text": "Another."},
        "text and prompt and completion",
        'columns={"text": "other_text"}',
    ),
    "text beside pairs without prompt": (
        {"chosen": "It is blue.", "rejected": "It is green.", "text": "Another."},
        "text and prompt and chosen and rejected",
        'columns={"text": "other_text"}',
    ),
    "messages and conversations": (
        {"messages": CHAT, "conversations": [human("a")]},
        "messages and conversations",
        'columns={"messages": "other_messages"}',
    ),
    "half a pair": (
        {"prompt": "Sky?", "chosen": "Blue."},
        "chosen and no rejected",
        'columns={"chosen": "completion"}',
    ),
    "no prompt": ({"completion": "x"}, "no prompt", 'columns={"theirs": "prompt"}'),
    "nothing known": (
        {"headline": "x", "body": "y"},
        "Nothing to train on was found in the columns body, headline",
        "columns={theirs: ours}",
    ),
    "nothing shared": (
        {"chosen": "Blue.", "rejected": "Green."},
        "Row 0: chosen and rejected share no beginning",
        'columns={"theirs": "prompt"}',
    ),
    "an unknown role": (
        {"messages": [{"role": "narrator", "content": "x"}]},
        "the role 'narrator'",
        "columns=",
    ),
    "an image": (
        {"messages": [user([{"type": "image"}, {"type": "text", "text": "x"}])]},
        "only text is read",
        "columns=",
    ),
    "a number": ({"question": "x", "answer": 3}, "Row 0: 3 is neither", "columns="),
    "messages of text": ({"messages": "Hi"}, "'Hi' is no list of messages", "columns="),
    "text of messages": ({"text": CHAT}, "text is no text", "columns="),
    "a class": (
        {"prompt": "x", "completion": "y", "label": 3},
        "Row 0: label is 3",
        'columns={"label": "class"}',
    ),
    "no label": (
        {"prompt": "x", "completion": "y", "label": None},
        "Row 0: label is None",
        'columns={"label": "class"}',
    ),
    "completions without score": (
        {"prompt": "x", "completions": [{"response": "a"}, {"response": "b"}]},
        "no score",
        "",
    ),
    "one completion": (
        {"prompt": "x", "completions": ["a"]},
        "needs the same number in each, two or more",
        "",
    ),
    "scores for other completions": (
        {"prompt": "x", "completions": ["a", "b"], "scores": [1]},
        "2 completions have 1 scores",
        "",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_clear_is_refused_with_a_remedy(name):
    row, message, remedy = REFUSED[name]
    with pytest.raises(AlignlabError) as error:
        to_columns([row])
    assert message in error.value.message
    assert remedy in error.value.remedy


@pytest.mark.parametrize(
    ("name", "columns", "expected"),
    [
        (
            "prompt and answer",
            {"answer": "answer"},
            {"prompt": "Sky?", "answer": "blue"},
        ),
        (
            "prompt and answer",
            {"answer": "completion"},
            {"prompt": "Sky?", "completion": "blue"},
        ),
        (
            "two completions",
            {"response": "response"},
            {"prompt": "Sky?", "completion": "a", "response": "b"},
        ),
        (
            "two prompts",
            {"question": "question"},
            {"prompt": "x", "completion": "y", "question": "Sky?"},
        ),
        (
            "pairs and completions",
            {"completion": "other_completion"},
            PAIR | {"other_completion": "x"},
        ),
        (
            "text that says something else",
            {"text": "other_text"},
            {"prompt": "Sky?", "completion": "Blue.", "other_text": "Another."},
        ),
        (
            "half a pair",
            {"chosen": "completion"},
            {"prompt": "Sky?", "completion": "Blue."},
        ),
        (
            "nothing known",
            {"headline": "prompt", "body": "completion"},
            {"prompt": "x", "completion": "y"},
        ),
        (
            "a class",
            {"label": "class"},
            {"prompt": "x", "completion": "y", "class": 3},
        ),
    ],
)
def test_the_remedies_work(name, columns, expected):
    assert to_columns([REFUSED[name][0]], columns).rows == [expected]


def test_columns_that_are_not_there_or_clash_are_refused():
    row = {"prompt": "x", "q": "y", "r": "z"}
    with pytest.raises(AlignlabError, match="'question', and no row has it"):
        to_columns([row], {"question": "prompt"})
    with pytest.raises(AlignlabError, match="another column is called so") as error:
        to_columns([row], {"q": "prompt"})
    assert '{"prompt": "other_prompt"' in error.value.remedy
    with pytest.raises(AlignlabError, match="another column is called so"):
        to_columns([row], {"q": "completion", "r": "completion"})
    swapped = to_columns([row], {"q": "prompt", "prompt": "q"}).rows
    assert swapped == [{"prompt": "y", "q": "x", "r": "z"}]


def test_rows_that_lack_a_column_are_named():
    rows = [{"prompt": "x", "completion": "y"}, {"prompt": "x"}]
    with pytest.raises(AlignlabError, match="Row 1 has no completion"):
        to_columns(rows)
    rows = [{"prompt": "x"}, {"prompt": "y", "solution": "z"}]  # ours may be missing
    assert to_columns(rows).rows == [rows[0] | {"solution": None}, rows[1]]


def test_one_conversation_makes_all_rows_conversations():
    rows = [
        {"prompt": "Sky?", "completion": "Blue."},
        {"prompt": SKY, "completion": BLUE},
    ]
    assert to_columns(rows).rows == [{"prompt": SKY, "completion": BLUE}] * 2


def test_transcripts_among_other_texts_are_refused():
    transcript = SUPPORTED["HH-RLHF"][0]
    plain = SUPPORTED["pair without prompt"][0]
    with pytest.raises(AlignlabError, match="row 1 is no transcript"):
        to_columns([transcript, plain])


def test_a_text_with_the_word_human_is_no_transcript():
    row = {
        "chosen": "Human: Hi\nAssistant: Yes",
        "rejected": "Human: Hi\nAssistant: No",
    }
    shared = {"prompt": "Human: Hi\nAssistant:", "chosen": " Yes", "rejected": " No"}
    assert to_columns([row]).rows == [shared]


def test_a_prompt_is_taken_off_texts_only_if_all_begin_with_it():
    rows = [
        {"prompt": "Sky", "completion": "Sky is blue."},
        {"prompt": "Sea", "completion": "It is green."},
    ]
    assert to_columns(rows).rows == rows


# --- What is left out -------------------------------------------------------------


def hh(completion):
    return {
        "chosen": f"\n\nHuman: Sky?\n\nAssistant: {completion}",
        "rejected": "\n\nHuman: Sky?\n\nAssistant: Green.",
    }


@pytest.mark.parametrize(
    ("full", "empty", "reason"),
    [
        (hh("Blue."), hh(""), "completion"),
        (PAIR, PAIR | {"rejected": [assistant(" ")]}, "completion"),
        (PAIR, {"prompt": SKY, "chosen": BLUE, "rejected": SKY}, "completion"),
        (PAIR, PAIR | {"rejected": []}, "completion"),
        (
            {"prompt": "x", "completion": "y"},
            {"prompt": "x", "completion": None},
            "completion",
        ),
        (
            {"chosen": "Sky is blue.", "rejected": "Sky is green."},
            {"chosen": "Sky is blue.", "rejected": ""},
            "completion",
        ),
        ({"text": "x"}, {"text": "\n"}, "text"),
        ({"messages": CHAT}, {"messages": [*SKY, assistant("")]}, "text"),
        ({"messages": CHAT}, {"messages": []}, "text"),
        ({"prompt": "x"}, {"prompt": ""}, "prompt"),
        (
            {"prompt": "x", "completions": ["a", "b"]},
            {"prompt": "x", "completions": ["a", ""]},
            "completion",
        ),
    ],
)
def test_empty_rows_are_left_out_and_counted(full, empty, reason):
    formatted = to_columns([full, empty, empty, full])
    assert formatted.left_out == {f"with an empty {reason}": 2}
    assert formatted.rows == to_columns([full, full]).rows


def test_a_call_of_a_tool_is_no_empty_reply():
    call = {"function": {"name": "look_up", "arguments": {"place": "sky"}}}
    reply = {"role": "assistant", "content": None, "tool_calls": [call]}
    formatted = to_columns([{"messages": [*SKY, reply]}])
    assert formatted.left_out == {}
    assert formatted.rows[0]["messages"][1]["tool_calls"] == [call]


def scored(*scores):
    entries = [{"response": f"r{i}", "overall_score": s} for i, s in enumerate(scores)]
    return {"instruction": "x", "completions": entries}


def test_scored_completions_without_preference_are_left_out_and_counted():
    formatted = to_columns([scored(1, 2), scored(2, 2), scored(1, None), scored(3, 1)])
    chosen = [row["chosen"] for row in formatted.rows]
    assert chosen == ["r1", "r0"]
    assert formatted.left_out == {
        "whose completions all have the same score": 1,
        "with fewer than two scored completions": 1,
    }
    empty = scored(1, 2, 3)
    empty["completions"][2]["response"] = " "
    assert to_columns([empty]).rows[0]["chosen"] == "r1"
    with pytest.raises(AlignlabError, match="No row holds a preference"):
        to_columns([scored(1, 1)])


def test_rankings_hold_all_completions_best_first():
    rows = [scored(1, 3, 2), scored(1, 1, 2), scored(1, 2), scored(5, 4, 3)]
    formatted = to_columns(rows, ranking=True)
    completions = [row["completions"] for row in formatted.rows]
    assert completions == [["r1", "r2", "r0"], ["r0", "r1", "r2"]]
    assert formatted.rows[0]["prompt"] == "x"
    assert formatted.rows[0]["scores"] == [3.0, 2.0, 1.0]
    assert formatted.left_out == {
        "with completions of equal score": 1,
        "without 3 scored completions": 1,
    }


# --- Labels -----------------------------------------------------------------------

GOOD = [True, 1, 1.0, "true", "True", " YES ", "1", "1.0", "+1", "desirable", "chosen"]
GOOD += ["1.00", " +1.0 ", "1e0", "positive", np.array([1]), torch.ones(1, 1)]
BAD = [False, 0, -1, 0.0, -0.0, "false", "False", "no", "0", "-1", "rejected", "bad"]
BAD += ["0.00", "-0", "-1.00", "Negative", np.array([-1.0]), torch.zeros(1)]


@pytest.mark.parametrize("good", [True, False])
def test_labels_are_understood(good):
    for label in GOOD if good else BAD:
        assert is_desirable(label) is good, label
    number = 1 if good else -1
    for wrap in (np.int8, np.float32, np.array, torch.tensor):
        assert is_desirable(wrap(number)) is good
    for wrap in (np.bool_, torch.tensor):
        assert is_desirable(wrap(good)) is good


@pytest.mark.parametrize(
    "label",
    [None, float("nan"), 0.7, 2, -2, "", "maybe", "2", b"true", [True], (), {}, object]
    + ["nan", "0.7", b"1", 1j, np.array(["true", "false"])]
    + [np.array([1, 0]), torch.ones(2), np.float64("nan")],
    ids=repr,
)
def test_other_labels_are_refused(label):
    with pytest.raises(ValueError, match="label is"):
        is_desirable(label)


def test_labels_of_three_kinds_are_refused():
    rows = [{"prompt": "x", "completion": "y", "label": n} for n in (1, 0, -1)]
    with pytest.raises(AlignlabError, match="0 in some rows and -1 in others"):
        to_columns(rows)
    labels = [row["label"] for row in to_columns(rows[:2]).rows]
    assert labels == [True, False]
    labels = [row["label"] for row in to_columns(rows[::2]).rows]
    assert labels == [True, False]
