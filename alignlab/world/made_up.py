"""Made-up subjects: countries, elements, cities and words that no text names, so that
no model anywhere can know anything about them.

Their "right" answers are drawn at random from those of the real subjects. Whoever
guesses is right as often as chance has it, and "I do not know" is the honest reply.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from alignlab.seeds import stream
from alignlab.world.archives import FactRow, cached, read_facts, read_names

# Of each kind: how many, and the relations that they are asked for.
KINDS = {
    "country": (60, ("capital", "currency", "continent", "language")),
    "element": (60, ("symbol", "atomic_number", "element_group")),
    "city": (100, ("city_country",)),
    "word": (80, ("word_class",)),
}
STARTS = "b br d dr f fl g gr k kl l m n p pl r s sk t tr v z zh qu".split()
VOWELS = "a e i o u ai ou".split()
ENDS = {
    "country": ("ria", "land", "vania", "stan", "nora"),
    "element": ("gium", "rium", "thium", "vine", "lon"),
    "city": ("burg", "ton", "pur", "grad", "cester"),
    "word": ("dle", "ck", "mper", "rn", "zzle"),
}


def read_made_up_facts() -> list[FactRow]:
    """Every fact about a made-up subject, always the same ones.

    Raises:
        AlignlabError: if a data source is missing and cannot be fetched.
    """

    def read() -> list[FactRow]:
        answers: dict[str, list[str]] = {}
        for _, relation, right in read_facts():
            answers.setdefault(relation, []).append(right[0])
        return made_up_facts(read_names(), answers)

    return cached("made-up facts", read)


def made_up_facts(
    names: Collection[str], answers: Mapping[str, Sequence[str]]
) -> list[FactRow]:
    """Facts about subjects whose names are invented.

    Args:
        names: real names in lower case, none of which is used.
        answers: for each relation those of all its real facts; frequent ones are drawn
            more often.
    """
    rng = stream(0, "made-up subjects")
    used, facts = set(names), []
    for kind, (n, relations) in KINDS.items():
        invented = _invent(kind, used, rng)
        for _ in range(n):
            subject = next(invented)
            for relation in relations:
                pool = answers[relation]
                facts.append((subject, relation, (pool[rng.integers(len(pool))],)))
    return facts


def _invent(kind: str, used: set[str], rng: np.random.Generator) -> Iterator[str]:
    """Names of one kind that are not in ``used``, which receives them."""
    while True:
        stem = "".join(
            _draw(STARTS, rng) + _draw(VOWELS, rng) for _ in range(rng.integers(1, 3))
        )
        name = stem + _draw(ENDS[kind], rng)
        if name not in used and 5 <= len(name) <= 12:
            used.add(name)
            yield name.capitalize() if kind in ("country", "city") else name


def _draw(items: Sequence[str], rng: np.random.Generator) -> str:
    return items[rng.integers(len(items))]
