"""Two replies and a verdict, in the layout of every data set that is known, and lists
of ranked or scored replies."""

import json

import datasets
import numpy as np
import pytest

from alignlab.data import load, sources
from alignlab.data.formats import to_columns
from alignlab.errors import AlignlabError


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


SKY, BLUE, GREEN = [user("Sky?")], [assistant("Blue.")], [assistant("Green.")]
TEXTS = {"prompt": "Sky?", "chosen": "Blue.", "rejected": "Green."}
TURNS = {"prompt": SKY, "chosen": BLUE, "rejected": GREEN}

PKU = {
    "prompt": "Sky?",
    "response_0": "Green.",
    "response_1": "Blue.",
    "prompt_source": "a",
    "is_response_0_safe": True,
    "is_response_1_safe": False,
    "response_0_sha256": "x",
    "better_response_id": 1,
    "safer_response_id": 0,
}
PKU_BESIDE = {name: PKU[name] for name in [*PKU][3:]}
SHP = {
    "post_id": "p",
    "history": "Sky?",
    "human_ref_A": "Blue.",
    "human_ref_B": "Green.",
    "labels": 1,
    "score_A": 3,
    "score_B": 2,
}
SHP_BESIDE = {"post_id": "p", "score_A": 3, "score_B": 2}
NECTAR = {
    "prompt": "\n\nHuman: Sky?\n\nAssistant: ",
    "answers": [
        {"answer": "Grey.", "model": "a", "rank": 2.0},
        {"answer": "Blue.", "model": "b", "rank": 1.0},
        {"answer": "Green.", "model": "c", "rank": 3.0},
    ],
    "turns": 1,
}
SUMMARIES = {
    "info": {"id": "t", "post": "Sky?", "article": None},
    "summaries": [{"text": "Green.", "note": "x"}, {"text": "Blue.", "note": None}],
    "choice": 1,
    "worker": "w",
}
STRENGTH = {"prompt": "Sky?", "response_1": "Green.", "response_2": "Blue."}
HELPSTEER = STRENGTH | {"split": "train", "preference_strength": 2}
ARENA = {
    "question_id": "q",
    "model_a": "x",
    "model_b": "y",
    "winner": "model_b",
    "conversation_a": SKY + GREEN,
    "conversation_b": SKY + BLUE,
    "turn": 1,
}
ARENA_BESIDE = {"question_id": "q", "model_a": "x", "model_b": "y", "turn": 1}

ONLY_SAFER = {
    "prompt": "Sky?",
    "response_0": "Blue.",
    "response_1": "Green.",
    "safer_response_id": "0",
}

# What is given, and what it is in TRL's columns.
SUPPORTED = {
    "PKU-SafeRLHF": (PKU, TEXTS | PKU_BESIDE),
    "PKU-SafeRLHF, the first better": (
        PKU | {"better_response_id": 0},
        {"prompt": "Sky?", "chosen": "Green.", "rejected": "Blue."}
        | PKU_BESIDE
        | {"better_response_id": 0},
    ),
    "PKU-SafeRLHF, only which is safer": (
        ONLY_SAFER,
        TEXTS | {"safer_response_id": "0"},
    ),
    "SHP": (SHP, TEXTS | SHP_BESIDE | {"labels": 1}),
    "SHP, B better": (
        SHP | {"labels": 0, "human_ref_A": "Green.", "human_ref_B": "Blue."},
        TEXTS | SHP_BESIDE | {"labels": 0},
    ),
    "Nectar": (
        NECTAR,
        TURNS | {"turns": 1, "rank_chosen": 1.0, "rank_rejected": 3.0},
    ),
    "ranks beside completions": (
        {"prompt": "Sky?", "completions": ["Green.", "Blue."], "ranks": [2, 1]},
        TEXTS | {"rank_chosen": 1.0, "rank_rejected": 2.0},
    ),
    "OpenAI's summaries": (
        SUMMARIES,
        TEXTS | {"info": SUMMARIES["info"], "choice": 1, "worker": "w"},
    ),
    "OpenAI's summaries of an article, in columns": (
        {
            "info": {"id": "t", "post": None, "article": "Sky?"},
            "summaries": {"text": ["Blue.", "Green."], "note": ["", ""]},
            "choice": 0,
        },
        TEXTS | {"info": {"id": "t", "post": None, "article": "Sky?"}, "choice": 0},
    ),
    "WebGPT": (
        {
            "question": {"id": "i", "full_text": "Sky?"},
            "answer_0": "Green.",
            "answer_1": "Blue.",
            "score_0": -0.5,
            "score_1": 0.5,
        },
        TEXTS
        | {"question": {"id": "i", "full_text": "Sky?"}}
        | {"score_chosen": 0.5, "score_rejected": -0.5},
    ),
    "HelpSteer2": (HELPSTEER, TEXTS | {"split": "train", "preference_strength": 2}),
    "HelpSteer2, the first better": (
        HELPSTEER
        | {"response_1": "Blue.", "response_2": "Green.", "preference_strength": -1},
        TEXTS | {"split": "train", "preference_strength": -1},
    ),
    "HelpSteer3": (
        {
            "context": SKY,
            "response1": "Blue.",
            "response2": "Green.",
            "overall_preference": -3,
        },
        TURNS | {"overall_preference": -3},
    ),
    "Chatbot Arena": (ARENA, TURNS | ARENA_BESIDE | {"winner": "model_b"}),
    "Chatbot Arena, several turns": (
        {
            "conversation_a": [*SKY, *BLUE, user("Why?"), assistant("Light.")],
            "conversation_b": [*SKY, *GREEN, user("Why?"), assistant("Grass.")],
            "winner": "model_a",
        },
        {
            "prompt": SKY,
            "chosen": [*BLUE, user("Why?"), assistant("Light.")],
            "rejected": [*GREEN, user("Why?"), assistant("Grass.")],
            "winner": "model_a",
        },
    ),
    "a winner of two responses": (
        {
            "instruction": "Sky?",
            "response_a": "Blue.",
            "response_b": "Green.",
            "winner": "A",
        },
        TEXTS | {"winner": "A"},
    ),
    "distilabel": (
        {
            "instruction": "Sky?",
            "generations": ["Green.", "Blue.", "Grey."],
            "ratings": [1, 5, 3],
            "rationales": ["x", "y", "z"],
        },
        TEXTS
        | {"rationales": ["x", "y", "z"], "score_chosen": 5.0, "score_rejected": 1.0},
    ),
    "distilabel, responses of several models": (
        {
            "instruction": "Sky?",
            "generation_responses": ["Blue.", "Green."],
            "rating": [4.0, 2.0],
        },
        TEXTS | {"score_chosen": 4.0, "score_rejected": 2.0},
    ),
    "distilabel, one generation": (
        {"instruction": "Sky?", "generation": "Blue.", "model_name": "m"},
        {"prompt": "Sky?", "completion": "Blue.", "model_name": "m"},
    ),
    "distilabel, binarized": (
        {
            "instruction": "Sky?",
            "chosen_response": "Blue.",
            "rejected_response": "Green.",
            "chosen_rating": 4.0,
        },
        TEXTS | {"chosen_rating": 4.0},
    ),
    "distilabel, binarized beside its generations": (
        {
            "system": "",
            "input": "Sky?",
            "chosen": "Blue.",
            "rejected": "Green.",
            "generations": ["Green.", "Blue."],
            "rating": [1.0, 9.0],
        },
        TEXTS | {"generations": ["Green.", "Blue."], "rating": [1.0, 9.0]},
    ),
    "Orca DPO pairs": (
        {
            "system": "Be brief.",
            "question": "Sky?",
            "chosen": "Blue.",
            "rejected": "Green.",
        },
        TURNS | {"prompt": [{"role": "system", "content": "Be brief."}, *SKY]},
    ),
    "an instruction beside texts": (
        {"instruction": "Sky?", "chosen": "Blue.", "rejected": "Green."},
        TEXTS,
    ),
    "an instruction beside transcripts": (
        {
            "instruction": "Sky?",
            "chosen": "\n\nHuman: Sky?\n\nAssistant: Blue.",
            "rejected": "\n\nHuman: Sky?\n\nAssistant: Green.",
        },
        TURNS,
    ),
    "Stack Exchange, paired": (
        {"qid": 1, "question": "Sky?", "response_j": "Blue.", "response_k": "Green."},
        TEXTS | {"qid": 1},
    ),
    "Stack Exchange": (
        {
            "question": "Sky?",
            "answers": [
                {"pm_score": 1, "selected": False, "text": "Green."},
                {"pm_score": 4, "selected": True, "text": "Blue."},
            ],
        },
        TEXTS | {"score_chosen": 4.0, "score_rejected": 1.0},
    ),
    "right answers": (
        {"question": "Sky?", "answers": ["blue", "Blue"]},
        {"prompt": "Sky?", "answers": ["blue", "Blue"]},
    ),
    "right answers of SQuAD": (
        {"question": "Sky?", "answers": {"text": ["blue"], "answer_start": [3]}},
        {"prompt": "Sky?", "answers": {"text": ["blue"], "answer_start": [3]}},
    ),
    "an answer beside its generations": (
        {"question": "Sky?", "answer": "Blue.", "generations": ["a", "b"]},
        {"prompt": "Sky?", "completion": "Blue.", "generations": ["a", "b"]},
    ),
    "an answer beside its rivals": (
        {"question": "Sky?", "answer": "Blue.", "answer_1": "a", "answer_2": "b"},
        {"prompt": "Sky?", "completion": "Blue.", "answer_1": "a", "answer_2": "b"},
    ),
}


@pytest.mark.parametrize("name", SUPPORTED)
def test_every_layout_becomes_trls_columns(name):
    given, expected = SUPPORTED[name]
    before = json.dumps(given)
    formatted = to_columns([given, given])
    assert formatted.rows == [expected, expected]
    assert formatted.left_out == {}
    assert json.dumps(given) == before
    assert to_columns(formatted.rows).rows == formatted.rows


def test_load_reads_them_too(capsys):
    tie = HELPSTEER | {"preference_strength": 0}
    data = load([HELPSTEER, tie])
    assert data.to_list() == [SUPPORTED["HelpSteer2"][1]]
    printed = capsys.readouterr().out
    assert "preference_strength decides which of response_1 and response_2" in printed
    assert "left out: 1 whose preference_strength is a tie" in printed


def test_which_column_decides_is_said_and_can_be_chosen():
    agreed = PKU | {"safer_response_id": 1}
    usual = to_columns([PKU, agreed, agreed])
    assert [row["chosen"] for row in usual.rows] == ["Blue."] * 3
    assert usual.notes == [
        "better_response_id decides which of response_0 and response_1 is chosen",
        "safer_response_id says otherwise in 1 of 3 rows; "
        'decided_by="safer_response_id" goes by it',
    ]
    safer = load([PKU, agreed], decided_by="safer_response_id", quiet=True)
    assert safer["chosen"] == ["Green.", "Blue."]
    assert safer["rejected"] == ["Blue.", "Green."]
    assert to_columns([agreed]).notes == usual.notes[:1]
    unknown = PKU | {"safer_response_id": None}
    assert to_columns([unknown]).rows[0]["chosen"] == "Blue."


@pytest.mark.parametrize(
    ("row", "decided_by"),
    [
        (PKU, "is_response_0_safe"),
        (NECTAR, "rank"),
        (PKU, "worse_response_id"),
        (ONLY_SAFER, "better_response_id"),
        (TEXTS, "safer_response_id"),
    ],
)
def test_a_column_that_decides_nothing_is_refused(row, decided_by):
    with pytest.raises(AlignlabError, match=f"decided_by is '{decided_by}'"):
        to_columns([row], decided_by=decided_by)


def test_it_is_refused_of_the_catalogue_too(monkeypatch):
    pairs = datasets.Dataset.from_list([TEXTS])
    monkeypatch.setattr(sources, "load", lambda *_: pairs)
    with pytest.raises(AlignlabError, match="decided_by is 'choice'"):
        load("hh_rlhf", decided_by="choice", quiet=True)


def test_rankings_go_by_ranks():
    formatted = to_columns([NECTAR, NECTAR], ranking=True)
    replies = [BLUE, [assistant("Grey.")], GREEN]
    expected = {"prompt": SKY, "completions": replies, "ranks": [1.0, 2.0, 3.0]}
    assert formatted.rows == [expected | {"turns": 1}] * 2
    assert formatted.format == "ranking"
    equal = NECTAR | {"answers": [a | {"rank": 1.0} for a in NECTAR["answers"]]}
    left_out = to_columns([NECTAR, equal]).left_out
    assert left_out == {"whose completions all have the same rank": 1}
    left_out = to_columns([NECTAR, equal], ranking=True).left_out
    assert left_out == {"with completions of equal rank": 1}


@pytest.mark.parametrize("tie", ["tie", "tie (bothbad)", "both_bad", "Tie"])
def test_ties_are_left_out_and_counted(tie):
    rows = [ARENA, ARENA | {"winner": tie}, ARENA | {"winner": tie}]
    formatted = to_columns(rows)
    assert formatted.left_out == {"whose winner is a tie": 2}
    assert formatted.rows == [SUPPORTED["Chatbot Arena"][1]]
    with pytest.raises(AlignlabError, match="No row holds a preference"):
        to_columns(rows[1:])


def test_empty_replies_are_left_out_and_counted():
    formatted = to_columns([PKU, PKU | {"response_0": " "}, PKU | {"response_1": None}])
    assert formatted.left_out == {"with an empty completion": 2}


@pytest.mark.parametrize("wrap", [int, float, str, np.int64, np.float32, np.array])
def test_verdicts_of_any_type_are_understood(wrap):
    for place, chosen in enumerate(["Green.", "Blue."]):
        rows = to_columns([PKU | {"better_response_id": wrap(place)}]).rows
        assert rows[0]["chosen"] == chosen
        rows = to_columns([SHP | {"labels": wrap(place)}]).rows
        assert rows[0]["chosen"] == chosen
        strength = {"preference_strength": wrap(2 * place - 1)}
        assert to_columns([STRENGTH | strength]).rows[0]["chosen"] == chosen


# --- What is refused, in which words ----------------------------------------------

TWO = "There are two replies"
REFUSED = {
    "PKU without verdict": (
        {"prompt": "Sky?", "response_0": "a", "response_1": "b"},
        f"{TWO}, response_0 and response_1,",
        'columns={"theirs": "better_response_id"}',
    ),
    "SHP without verdict": (
        {"history": "Sky?", "human_ref_A": "a", "human_ref_B": "b"},
        f"{TWO}, human_ref_A and human_ref_B,",
        'columns={"theirs": "labels"}',
    ),
    "conversations without winner": (
        {"conversation_a": SKY + BLUE, "conversation_b": SKY + GREEN},
        f"{TWO}, conversation_a and conversation_b,",
        'columns={"theirs": "winner"}',
    ),
    "Arena with a column for each verdict": (
        {
            "prompt": "Sky?",
            "response_a": "a",
            "response_b": "b",
            "winner_model_a": 1,
            "winner_model_b": 0,
            "winner_tie": 0,
        },
        f"{TWO}, response_a and response_b,",
        'columns={"theirs": "winner"}',
    ),
    "other names": (
        {"prompt": "Sky?", "output_1": "a", "output_2": "b", "better": 1},
        f"{TWO}, output_1 and output_2,",
        'columns={"output_1": "response_0", "output_2": "response_1", '
        '"theirs": "better_response_id"}',
    ),
    "names of models": (
        {"prompt": "Sky?", "model_a_response": "a", "model_b_response": "b"},
        f"{TWO}, model_a_response and model_b_response,",
        'columns={"model_a_response": "model_a_response"}',
    ),
    "capitals": (
        {"question": "Sky?", "answerA": "a", "answerB": "b", "label": 1},
        f"{TWO}, answerA and answerB,",
        'columns={"answerA": "answerA"}',
    ),
    "a list without scores": (
        {"instruction": "Sky?", "generations": ["a", "b"]},
        "several replies in generations and no scores or ranks",
        'columns={"theirs": "scores"}',
    ),
    "a list of dicts without scores": (
        {"prompt": "Sky?", "responses": [{"response": "a"}, {"response": "b"}]},
        "no score",
        "",
    ),
    "more than two": (
        STRENGTH | {"response_3": "c", "score_1": 1, "score_2": 2, "score_3": 3},
        "more than two replies: response_1, response_2, response_3",
        'columns={"response_3": "response_3"}',
    ),
    "a third place": (
        PKU | {"better_response_id": 2},
        "Row 0: better_response_id is 2; it can be 0 or 1",
        "Mend the row",
    ),
    "no place": (
        PKU | {"better_response_id": None},
        "Row 0: better_response_id is None; it can be 0 or 1",
        "Mend the row",
    ),
    "a strength of words": (
        STRENGTH | {"preference_strength": "much"},
        "Row 0: preference_strength is 'much'",
        "Mend the row",
    ),
    "no strength": (
        STRENGTH | {"preference_strength": float("nan")},
        "Row 0: preference_strength is nan",
        "Mend the row",
    ),
    "an unknown winner": (
        ARENA | {"winner": "model_c"},
        "Row 0: winner is 'model_c'; it can be model_a, model_b or tie",
        "Mend the row",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_decided_is_refused_with_a_remedy(name):
    row, message, remedy = REFUSED[name]
    with pytest.raises(AlignlabError) as error:
        to_columns([row])
    assert message in error.value.message
    assert remedy in error.value.remedy


@pytest.mark.parametrize(
    ("row", "columns", "expected"),
    [
        (
            REFUSED["other names"][0],
            {
                "output_1": "response_0",
                "output_2": "response_1",
                "better": "better_response_id",
            },
            {
                "prompt": "Sky?",
                "chosen": "b",
                "rejected": "a",
                "better_response_id": 1,
            },
        ),
        (
            REFUSED["other names"][0],
            {"output_1": "output_1"},
            REFUSED["other names"][0],
        ),
        (
            REFUSED["PKU without verdict"][0],
            {"response_0": "response_0"},
            REFUSED["PKU without verdict"][0],
        ),
        (
            REFUSED["a list without scores"][0] | {"quality": [1, 2]},
            {"quality": "scores"},
            {
                "prompt": "Sky?",
                "chosen": "b",
                "rejected": "a",
                "score_chosen": 2.0,
                "score_rejected": 1.0,
            },
        ),
        (
            REFUSED["a list without scores"][0],
            {"generations": "generations"},
            {"prompt": "Sky?", "generations": ["a", "b"]},
        ),
    ],
)
def test_the_remedies_work(row, columns, expected):
    assert to_columns([row], columns).rows == [expected]


def test_a_row_without_its_reply_is_named():
    half = {name: PKU[name] for name in PKU if name != "response_1"}
    with pytest.raises(AlignlabError, match="Row 1: there is no response_1"):
        to_columns([PKU, half])
