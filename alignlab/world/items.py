"""What fills the tasks: generated inputs, real texts to classify, sentences to rewrite.

Each family of tasks has a table of items; every item is in the train or the test split.
"""

import html
import importlib
import random
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType

from alignlab.cache import remember
from alignlab.data import sources
from alignlab.data.readers import POLARITY_DEAD_ZONE, split_of
from alignlab.seeds import stream
from alignlab.world.facts import Fact
from alignlab.world.skills import SKILLS
from alignlab.world.texts import UNFIT

LONGEST = 130  # characters of a real text in a prompt: a student reads 256 tokens
POOL = 2000  # items drawn for a family whose inputs are generated


@dataclass(frozen=True)
class Item:
    """A row of a family's table.

    ``fields`` fill the braces of an instruction, ``replies`` may be trained on,
    ``answers`` are all right ones, and ``split`` is "train" or "test".
    """

    fields: dict[str, str]
    replies: tuple[str, ...]
    answers: tuple[str, ...]
    split: str
    fact: Fact | None = None
    entry: dict | None = None


def distinct(items: Iterable[Item]) -> Iterable[Item]:
    """The first item of each input."""
    by_input: dict[tuple[str, ...], Item] = {}
    for item in items:
        by_input.setdefault(tuple(item.fields.values()), item)
    return by_input.values()


def remembered(name: str, items: Callable[[], Iterable[Item]]) -> Iterator[Item]:
    """The distinct items of a family, kept in the cache because texts and generators
    take seconds. They must have no ``fact``."""
    rows = remember(
        "items",
        lambda: [vars(item) for item in distinct(items())],
        key={"family": name},
    )
    for row in rows:
        row |= {"replies": tuple(row["replies"]), "answers": tuple(row["answers"])}
        yield Item(**row)


# --- Generated ------------------------------------------------------------------------


def skill_items(name: str) -> Iterator[Item]:
    """``POOL`` draws of a skill; inputs may repeat."""
    rng = stream(0, f"items of {name}")
    for _ in range(POOL):
        x, answer = SKILLS[name].sample(rng)
        yield Item({"x": x}, (answer,), (answer,), split_of(f"{name} {x}"))


GYM = {  # reasoning-gym's generators: module, and a configuration with short items
    "word_sorting": (
        "algorithmic.word_sorting",
        {"min_words": 3, "max_words": 4, "min_word_length": 3, "max_word_length": 6},
    ),
    "chain_sum": (
        "arithmetic.chain_sum",
        {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
    ),
    "products": (
        "arithmetic.products",
        {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
    ),
}


@cache
def gym(name: str):
    """A generator of the pinned reasoning-gym, with its verifier ``score_answer``.

    It is imported from the archive, which is not installed. The package's ``__init__``
    would import all 106 generators and their dependencies, so a stand-in with the same
    search path lets Python import one module alone, and is removed afterwards.

    Raises:
        AlignlabError: if the archive is missing and cannot be fetched.
    """
    module, settings = GYM[name]
    with _gym_package() as package:
        importlib.import_module(f"{package}.{module}")
        factory = importlib.import_module(f"{package}.factory")
        return factory.create_dataset(name, seed=0, size=4 * POOL, **settings)


@contextmanager
def _gym_package() -> Iterator[str]:
    name = "reasoning_gym"
    archive = sources.fetch("reasoning-gym")

    def loaded() -> list[str]:
        return [m for m in sys.modules if m == name or m.startswith(f"{name}.")]

    installed = {module: sys.modules.pop(module) for module in loaded()}
    for package in (name, f"{name}.algorithmic", f"{name}.arithmetic"):
        stand_in = ModuleType(package)
        stand_in.__path__ = [f"{archive}/{package.replace('.', '/')}"]
        sys.modules[package] = stand_in
    try:
        yield name
    finally:
        for module in loaded():
            del sys.modules[module]
        sys.modules.update(installed)


def gym_items(name: str) -> Iterator[Item]:
    """The first ``POOL`` usable items of a reasoning-gym generator."""
    inputs = {"word_sorting": _ascending, "chain_sum": _expression, "products": _pair}
    n = 0
    for entry in gym(name):
        x = inputs[name](entry["metadata"])
        if x and n < POOL:
            n += 1
            answer = (entry["answer"],)
            yield Item({"x": x}, answer, answer, split_of(f"{name} {x}"), entry=entry)


def _ascending(metadata: dict) -> str | None:
    words = metadata["transformed_words"]
    plain = all(w.isalpha() and w.isascii() and w.islower() for w in words)
    return ", ".join(words) if plain and metadata["direction"] == "ascending" else None


def _expression(metadata: dict) -> str:
    return metadata["expression"]


def _pair(metadata: dict) -> str:
    return metadata["expression"].replace(" * ", " and ")


# --- Real texts to classify -----------------------------------------------------------


def labelled_items(
    dataset: str, labels: Mapping[str, str], balance: bool
) -> Iterator[Item]:
    """Short texts with their label in plain words. ``balance`` gives all labels as many
    texts as the rarest has, so that guessing the most frequent one does not pay."""
    rows = [r for r in _rows(dataset) if r["label"] in labels]
    texts = {tidy(r["text"]): labels[r["label"]] for r in rows}
    texts = {x: label for x, label in texts.items() if not UNFIT.search(x)}
    if dataset == "sms_spam":  # half of the spam is longer, and obvious from its start
        texts = {_clip(x): label for x, label in texts.items()}
    short = {x: label for x, label in texts.items() if 12 <= len(x) <= LONGEST}
    for split in ("train", "test"):
        kept = {x: label for x, label in short.items() if split_of(x) == split}
        rarest = min(Counter(kept.values()).values()) if balance else len(kept)
        left = Counter(dict.fromkeys(labels.values(), rarest))
        for x in sorted(kept, key=lambda x: zlib.crc32(x.encode())):
            if left[kept[x]]:
                left[kept[x]] -= 1
                yield Item({"x": x}, (kept[x],), (kept[x],), split)


def _rows(dataset: str) -> list[dict]:
    if dataset != "tweet_ratings":
        return sources.load(dataset).to_list()
    return [
        row | {"label": "positive" if row["mean"] > 0 else "negative"}
        for row in sources.load(dataset).to_list()
        if abs(row["mean"]) >= POLARITY_DEAD_ZONE
    ]


def _clip(text: str) -> str:
    """As many words as fit in ``LONGEST`` characters."""
    return text if len(text) <= LONGEST else text[: LONGEST + 1].rpartition(" ")[0]


def tidy(text: str) -> str:
    """Spaced as people type; the data sets put spaces before punctuation."""
    text = " ".join(html.unescape(text).split())
    text = re.sub(r" (?=[.,?!;:%)]|'(?:s|t|m|d|re|ve|ll)\b|' |n't\b)", "", text)
    text = re.sub(r"``\s?|\s?''", '"', text)
    return re.sub(r"(?<=[(]) ", "", text)


# --- Sentences to rewrite -------------------------------------------------------------


@cache
def _sentences() -> tuple[str, ...]:
    """Short sentences and clauses of the Bible in Basic English, words only."""
    sentences = []
    for verse in sources.load("bible_bbe")["text"][:]:
        for part in re.split(r"(?<=[.?!;:]) ", verse):
            words = part.split()
            plain = re.fullmatch(r"[A-Za-z]+(,? [A-Za-z]+)+[.;:]", part)
            if plain and 4 <= len(words) <= 8 and words[0].lower() not in _FRAGMENT:
                sentences.append(part[0].upper() + part[1:-1] + ".")
    return tuple(dict.fromkeys(sentences))


_FRAGMENT = {"who", "whose", "whom", "which", "to", "what", "how", "why", "where"}


Rewriting = Iterator[tuple[dict[str, str], str]]  # fields of the item, and its reply


def rewritten(pairs: Rewriting) -> Iterator[Item]:
    for fields, reply in pairs:
        yield Item(fields, (reply,), (reply,), split_of(fields["x"]))


def first_words() -> Rewriting:
    seen: Counter[str] = Counter()
    for x in _shuffled("first_word"):
        word = x.split()[0].rstrip(",")
        seen[word] += 1
        if seen[word] <= 60:  # otherwise "And" would be right for one in three
            yield {"x": x}, word


def last_words() -> Rewriting:
    for x in _shuffled("last_word")[:POOL]:
        yield {"x": x}, x.split()[-1].rstrip(".")


def capitals() -> Rewriting:
    words = Counter(re.findall(r"\b[a-z]{3,7}\b", " ".join(_sentences())))
    for word, _ in words.most_common(600):
        yield {"x": word}, word.upper()


def replacements() -> Rewriting:
    """A noun after "the" is replaced by another such noun."""
    after = "of|and|in|to|was|is|on|were"
    pattern = re.compile(rf"\bthe ([a-z]{{3,9}})(?=[,.]| (?:{after}) )")
    matches = [(x, m[1]) for x in _sentences() if (m := pattern.search(x))]
    matches = [(x, word) for x, word in matches if word not in _NO_NOUN]
    nouns = [w for w, n in Counter(w for _, w in matches).most_common(60) if n > 3]
    draw = random.Random(0)
    for x, word in matches:
        alike = [n for n in nouns if _is_plural(n) == _is_plural(word)]
        other = draw.choice([n for n in alike if n not in x.lower()])
        if len(re.findall(rf"\b{word}\b", x, re.I)) == 1:
            fields = {"x": x, "w": word, "v": other}
            yield fields, re.sub(rf"\b{word}\b", other, x)


_NO_NOUN = (
    "same wise dark poor first last evil dead north south east west end way".split()
)


def _is_plural(noun: str) -> bool:
    return noun in ("men", "people", "women", "children") or noun.endswith("s")


_REMOVABLE = "very certainly completely truly also again great little now all".split()


def removals() -> Rewriting:
    # "a great and strong nation" needs its "great", so not before one of these.
    after = "and|or|of|in|to|as|than|that|from|on|by|for|with|at|over|is|are|was|were"
    after += "|I|he|she|we|you|they|who"
    pattern = re.compile(rf"(?<! at) ({'|'.join(_REMOVABLE)})(?! (?:{after})\b)(?= )")
    for x in _sentences():
        hits = pattern.findall(x)
        if len(hits) == 1 and len(re.findall(rf"\b{hits[0]}\b", x, re.I)) == 1:
            yield {"x": x, "w": hits[0]}, pattern.sub("", x)


_ORDERS = "Give Put Keep Take Make Go Come Say Send Do Let Have Get".split()


def orders() -> Rewriting:
    for x in _sentences():
        if x.split()[0] in _ORDERS:
            yield {"x": x}, f"Please {x[0].lower()}{x[1:]}"


def negations() -> Rewriting:
    pattern = re.compile(r"\b(was|were|is|are|will)\b")
    negative = re.compile(r"\b(not|no|never|nor|neither|nothing|only|let)\b", re.I)
    for x in _sentences():
        # The verb comes second or third: "They were sad", not "So great was he".
        early = pattern.search(" ".join(x.split()[1:3]))
        if (
            early
            and f"{early[0]} " in x
            and len(pattern.findall(x)) == 1
            and not negative.search(x)
        ):
            yield {"x": x}, pattern.sub(r"\1 not", x)


def _shuffled(name: str) -> list[str]:
    return sorted(_sentences(), key=lambda x: zlib.crc32(f"{name} {x}".encode()))
