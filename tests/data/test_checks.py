"""Checks: every count against rows that were made to have it."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from alignlab.data.checks import Report, checks
from alignlab.models.tokenizer import CHAT_TEMPLATE

SKY = [{"role": "user", "content": "Sky ?"}]


def assistant(text):
    return {"role": "assistant", "content": text}


BLUE, GREEN = [assistant("blue .")], [assistant("green .")]
PAIR = {"prompt": SKY, "chosen": BLUE, "rejected": GREEN}

WORDS = "Sky ? blue green . <|user|> <|assistant|> <|end|> very".split()


@pytest.fixture
def tokenizer():
    """Words between spaces, the marks of the chat template as special tokens."""
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, "?"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        eos_token="<|end|>",
        additional_special_tokens=["<|user|>", "<|assistant|>"],
        chat_template=CHAT_TEMPLATE,
    )


def test_good_rows_have_no_counts():
    counts = checks([PAIR])._asdict()
    assert counts.pop("rows") == 1
    assert not any(counts.values())


# A row, and what is counted in it.
ODD = [
    ({"prompt": "x", "completion": " "}, {"empty_completions"}),
    (PAIR | {"chosen": [assistant("")]}, {"empty_completions"}),
    ({"messages": [*SKY, assistant("")]}, {"empty_completions"}),
    ({"text": ""}, {"empty_completions"}),
    ({"prompt": "", "completion": "x"}, {"empty_prompts"}),
    (PAIR | {"prompt": []}, {"empty_prompts"}),
    (PAIR | {"rejected": BLUE}, {"identical_pairs"}),
    (PAIR | {"chosen": [*BLUE, *BLUE]}, {"several_turns"}),
    (PAIR | {"chosen": [*BLUE, *SKY]}, {"several_turns", "unanswered"}),
    ({"messages": SKY}, {"unanswered"}),
    ({"prompt": "x", "completions": ["a", ""]}, {"empty_completions"}),
    (PAIR | {"score_chosen": 2.0, "score_rejected": 2.0}, {"not_scored_better"}),
    (PAIR | {"score_chosen": 1.0, "score_rejected": 2.0}, {"not_scored_better"}),
]


@pytest.mark.parametrize(("row", "noticed"), ODD, ids=map(str, range(len(ODD))))
def test_what_is_odd_is_counted(row, noticed):
    counts = checks([row])._asdict()
    del counts["rows"]
    assert {name for name, count in counts.items() if count} == noticed


@pytest.mark.parametrize(
    "text",
    [
        "<|im_start|>user\nHi<|im_end|>",
        "[INST] Hi [/INST]",
        "<|user|>\nHi",
        "Below is a task.\n\n### Instruction:\nHi",
        "\n\nHuman: Hi\n\nAssistant:",
        "Yes.  Human: Hi",
        "<start_of_turn>user",
        "<|start_header_id|>user<|end_header_id|>",
        "<s>Hi</s>",
        "USER: Hi ASSISTANT:",
    ],
)
def test_marks_of_templates_are_counted(text):
    turn = [{"role": "user", "content": text}]
    assert checks([{"prompt": text}]).prompts_with_markers == 1
    assert checks([{"prompt": turn}]).prompts_with_markers == 1
    assert checks([{"text": text}]).prompts_with_markers == 1
    assert checks([{"messages": [*turn, *BLUE]}]).prompts_with_markers == 1
    replied = checks([PAIR | {"rejected": [assistant(text)]}])
    assert replied.completions_with_markers == 1
    assert replied.prompts_with_markers == 0


@pytest.mark.parametrize(
    "text", ["Human rights", "a < b", "# Instruction", "superuser:"]
)
def test_usual_texts_are_no_marks(text):
    assert checks([{"prompt": text}]).prompts_with_markers == 0


def test_rows_that_repeat_earlier_ones_are_duplicates():
    other = PAIR | {"rejected": BLUE}
    assert checks([PAIR, PAIR, other, PAIR | {"id": 4}]).duplicates == 2
    texts = [{"text": "a"}, {"text": "b"}, {"text": "a"}]
    assert checks(texts).duplicates == 1


# --- With a tokenizer -------------------------------------------------------------

# "<|user|> Sky ? <|end|> <|assistant|> blue . <|end|>" has 8 tokens.


def test_lengths_are_those_of_the_chat_template(tokenizer):
    long = PAIR | {"chosen": [assistant("very very blue .")]}  # 10
    assert checks([PAIR, long], tokenizer, 8).too_long == 1
    assert checks([PAIR, long], tokenizer, 7).too_long == 2
    assert checks([PAIR, long], tokenizer, 10).too_long == 0
    as_text = {"prompt": "Sky ?", "completion": "blue ."}
    assert [checks([as_text], tokenizer, n).too_long for n in (7, 8)] == [1, 0]
    assert [checks([{"text": "Sky ?"}], tokenizer, n).too_long for n in (1, 2)] == [
        1,
        0,
    ]
    asked = {"prompt": SKY}  # 4 and the opening of a reply
    assert [checks([asked], tokenizer, n).too_long for n in (4, 5)] == [1, 0]


def test_pairs_that_differ_behind_the_cut_are_counted(tokenizer):
    late = {
        "prompt": SKY,
        "chosen": [assistant("very very blue .")],
        "rejected": [assistant("very very green .")],
    }
    same = PAIR | {"rejected": BLUE}
    rows = [PAIR, late, same]
    # The completions begin at the sixth token; late's part at the eighth.
    counts = [
        checks(rows, tokenizer, n).identical_after_truncation for n in (5, 6, 7, 8)
    ]
    assert counts == [2, 1, 1, 0]
    assert checks(rows, tokenizer).identical_after_truncation is None


def test_the_end_that_a_template_writes(tokenizer):
    assert checks([PAIR], tokenizer).writes_end is True
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '\\n' }}"
        "{% endfor %}"
    )
    assert checks([PAIR], tokenizer).writes_end is False


def test_a_tokenizer_without_template(tokenizer):
    tokenizer.chat_template = None
    report = checks([PAIR], tokenizer, 4)
    assert report.has_template is False and report.writes_end is None
    assert report.refused_by_template is None
    assert report.too_long == 0  # "Sky ?" and "blue ." joined: 3 words


def test_rows_that_the_template_refuses_are_counted(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}"
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}"
        "{{ m.content + '<|end|>' }}{% endfor %}"
    )
    twice = PAIR | {"chosen": [*BLUE, *BLUE]}
    report = checks([PAIR, twice], tokenizer, 8)
    assert report.refused_by_template == 1
    assert report.has_template and report.writes_end


def test_special_tokens_in_texts_are_marks(tokenizer):
    tokenizer.add_special_tokens({"bos_token": "[BEGIN]"})
    row = {"prompt": "[BEGIN] Sky ?"}
    assert checks([row]).prompts_with_markers == 0
    assert checks([row], tokenizer).prompts_with_markers == 1


def test_arguments_of_the_template_are_passed_on(tokenizer):
    tokenizer.chat_template = CHAT_TEMPLATE + "{{ ' very very' if long else '' }}"
    row = PAIR | {"chat_template_kwargs": {"long": True}}
    assert checks([PAIR, row], tokenizer, 8).too_long == 1


@pytest.mark.parametrize("max_length", [0, -1])
def test_max_length_is_positive(tokenizer, max_length):
    with pytest.raises(ValueError, match="max_length"):
        checks([PAIR], tokenizer, max_length)


def test_max_length_needs_a_tokenizer():
    with pytest.raises(ValueError, match="needs a tokenizer"):
        checks([PAIR], max_length=8)


def test_the_report_is_a_short_table(tokenizer):
    report = checks([PAIR, PAIR], tokenizer, 7)
    assert isinstance(report, Report)
    lines = str(report).splitlines()
    assert [line.split() for line in lines[:5]] == [
        ["rows", "2"],
        ["duplicates", "1"],
        ["too", "long", "2"],
        ["has", "template", "yes"],
        ["writes", "end", "yes"],
    ]
    assert lines[5].startswith("  no empty completions, ")
    assert all(len(line) <= 88 for line in lines)


def test_there_may_be_no_rows(tokenizer):
    assert checks([], tokenizer, 8).rows == 0
