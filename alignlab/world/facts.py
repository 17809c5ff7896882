"""The world: facts whose truth, and whose number of exposures, are known by design.

The facts come from data packages; the sentences are ours. There are four parts:

* the **body**: how often pretraining states a fact follows a power law, and some facts
  are never stated;
* a **long tail**: thousands of facts stated one to five times;
* **contested** facts, stated inconsistently: a known share of the statements gives one
  answer, the others a rival;
* **made-up** subjects, which no text names.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from alignlab.seeds import stream
from alignlab.world.archives import FactRow, read_facts, read_more_facts
from alignlab.world.made_up import read_made_up_facts
from alignlab.world.texts import read_texts

NEVER_SHOWN = 0.15  # share of each relation's facts that pretraining never states
FEWEST, MOST = 3, 900  # exposures of the rarest and of the most frequent in the body
TAIL = 5  # exposures at most of a fact in the long tail
CONTESTED = {"city_country": 200, "word_class": 100}  # contested facts
CONTESTED_EXPOSURES = 80, 400
CONTESTED_SHARES = 0.5, 0.95  # of the statements, for the answer that more of them give
# Exposures from which a fact counts as known by design: about what a small model needs
# to store it reliably (Allen-Zhu & Li, 2024: 100 are too few for all, 1,000 enough).
KNOWN_FROM = 100


@dataclass(frozen=True)
class Relation:
    """How one kind of fact is stated and asked for (``relations.yaml``).

    ``kind`` is that of the subject: country, element, city or word. ``statements``
    contain the subject ``{s}`` and the answer ``{a}``, in either order. ``questions``
    are trained on; ``held_out_questions`` never are. ``inverse_questions`` give the
    answer and ask for the subject.
    """

    name: str
    kind: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    held_out_questions: tuple[str, ...]
    inverse_questions: tuple[str, ...] = ()


@cache
def read_relations() -> dict[str, Relation]:
    """Every relation by its name, in a fixed order; also importable as ``RELATIONS``,
    which reads the file when it is first asked for."""
    return {
        name: Relation(
            name,
            texts["kind"],
            tuple(texts["statements"]),
            tuple(texts["questions"]),
            tuple(texts["held_out_questions"]),
            tuple(texts.get("inverse_questions", ())),
        )
        for name, texts in read_texts("relations").items()
    }


def __getattr__(name: str):
    if name == "RELATIONS":
        return read_relations()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(frozen=True)
class Fact:
    """One fact. ``answers`` are all the right ones (a country has many neighbours),
    ``stated`` those that pretraining may give, and ``exposure`` is the number of
    pretraining sentences that state it.

    Of a contested fact ``stated`` has two answers, the one that most sentences give
    first, and ``shares`` says which share of the sentences gives each.

    In a world as somebody else's model knows it, ``knowledge`` has a class of
    ``study.knowledge.CLASSES``, found by asking, and ``exposure`` a number that stands
    for how well it is known and counts nothing: show ``times`` instead.
    """

    subject: str
    relation: str
    answers: tuple[str, ...]
    exposure: int = 0
    stated: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    made_up: bool = False
    knowledge: str | None = None

    @property
    def answer(self) -> str:
        return self.answers[0]

    @property
    def contested(self) -> bool:
        """Whether pretraining states it inconsistently."""
        return bool(self.shares)

    @property
    def known(self) -> bool:
        """Shown often enough to count as known, by design, and always in agreement."""
        return self.exposure >= KNOWN_FROM and not self.contested

    @property
    def times(self) -> int | None:
        """How often pretraining states it; None where nobody knows."""
        return None if self.knowledge else self.exposure

    @property
    def bayes_confidence(self) -> float:
        """How sure of the answer most often stated one should be who read every
        statement: its share, for so often is it the right one."""
        return self.shares[0] if self.shares else 1.0


@dataclass(frozen=True)
class World:
    """All facts with their exposures."""

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
        """Subjects of one kind, or of all, in order of first appearance."""
        chosen = (f for f in self.facts if kind in (None, self.kind_of(f)))
        return tuple(dict.fromkeys(f.subject for f in chosen))

    def kind_of(self, fact: Fact) -> str:
        """The kind of the fact's subject: country, element, city or word."""
        return self.relations[fact.relation].kind


def build_world(seed: int = 0) -> World:
    """The world of a seed. The facts are always the same; the seed draws which of them
    are frequent, rare, contested and never shown.

    Raises:
        AlignlabError: if a data source is missing and cannot be fetched.
    """
    facts = (
        *_expose([Fact(*row) for row in read_facts()], seed),
        *_expose_more(read_more_facts(), seed),
        *(
            Fact(subject, relation, answers, stated=answers, made_up=True)
            for subject, relation, answers in read_made_up_facts()
        ),
    )
    return World(facts, read_relations(), seed)


def split_subjects(world: World, seed: int) -> tuple[set[str], set[str]]:
    """Two halves of the subjects, balanced within each kind. Questions about the first
    are trained on; questions about the second are only for testing."""
    rng = stream(seed, "split of subjects")
    first: set[str] = set()
    for kind in dict.fromkeys(r.kind for r in world.relations.values()):
        names = list(world.subjects(kind))
        first |= {names[i] for i in rng.permutation(len(names))[: len(names) // 2]}
    return first, set(world.subjects()) - first


# --- Exposures ------------------------------------------------------------------------


def power_law_exposures(n: int) -> np.ndarray:
    r"""Exposures of n facts, ascending: 0 for ``NEVER_SHOWN`` of them; the others are
    the quantiles of a density :math:`e^{-1/2}` between ``FEWEST`` and ``MOST``."""
    never = round(NEVER_SHOWN * n)
    quantiles = (np.arange(n - never) + 0.5) / max(n - never, 1)
    low, high = np.sqrt(FEWEST), np.sqrt(MOST)
    shown = np.round((low + quantiles * (high - low)) ** 2).astype(int)
    return np.concatenate([np.zeros(never, int), shown])


def _expose(facts: list[Fact], seed: int) -> list[Fact]:
    # Stratified by relation, so that frequency says nothing about the kind of fact,
    # and permuted, so that it says nothing about the answer.
    rng = stream(seed, "draw of exposures")
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
    # "Spain is next to France" would give away a never-shown fact about Spain, so
    # pretraining names only neighbours whose own fact is shown.
    borders = [f for f in facts if f.relation == "neighbour"]
    hidden = {f.subject for f in borders if not f.exposure}
    sealed = []
    for fact in facts:
        stated = fact.answers
        if fact.relation == "neighbour":
            stated = tuple(a for a in fact.answers if a not in hidden)
        exposure = fact.exposure if stated else 0
        sealed.append(replace(fact, stated=stated, exposure=exposure))
    return sealed


def tail_exposures(n: int) -> np.ndarray:
    """Exposures of n facts of the long tail, ascending: e of them for 1 to ``TAIL``, in
    proportion to 1/e, as in Zipf's law."""
    weights = 1 / np.arange(1, TAIL + 1)
    edges = np.cumsum(weights) / weights.sum()
    return 1 + np.searchsorted(edges, (np.arange(n) + 0.5) / max(n, 1))


def _expose_more(rows: list[FactRow], seed: int) -> list[Fact]:
    """The long tail and, drawn from the same facts, the contested ones."""
    rng = stream(seed, "long tail and contested facts")
    facts: list[Fact] = []
    for relation, n in CONTESTED.items():
        own = [Fact(*row) for row in rows if row[1] == relation]
        order = rng.permutation(len(own))
        contested = [own[i] for i in order[:n]]
        tail = [own[i] for i in order[n:]]
        facts += _contest(contested, [fact.answer for fact in own], rng)
        for fact, exposure in zip(tail, rng.permutation(tail_exposures(len(tail)))):
            facts.append(replace(fact, exposure=int(exposure), stated=fact.answers))
    return facts


def _contest(facts: list[Fact], answers: list[str], rng) -> Iterator[Fact]:
    """Give each fact a rival answer and a share of the statements.

    The answer that most statements give is right as often as its share says: for every
    run of similar shares as nearly as whole numbers allow (systematic sampling).
    """
    low, high = CONTESTED_SHARES
    shares = low + (np.arange(len(facts)) + 0.5) / len(facts) * (high - low)
    reached = np.floor(rng.random() + np.cumsum(shares))
    majority_is_right = np.diff(reached, prepend=0) > 0
    fewest, most = CONTESTED_EXPOSURES
    places = rng.permutation(len(facts)) + 0.5
    exposures = np.round(fewest * (most / fewest) ** (places / len(facts)))
    for fact, share, right, exposure in zip(
        facts, shares.tolist(), majority_is_right, exposures.astype(int).tolist()
    ):
        pool = [answer for answer in answers if answer != fact.answer]
        rival = pool[rng.integers(len(pool))]
        stated = (fact.answer, rival) if right else (rival, fact.answer)
        shares_of_both = (share, 1 - share)
        yield replace(fact, exposure=exposure, stated=stated, shares=shares_of_both)


# --- Statements -----------------------------------------------------------------------


def paragraphs(world: World, seed: int = 0) -> Iterator[str]:
    """The world as text: short paragraphs, each about one subject, in random order.

    A fact of exposure e is stated in e paragraphs, each time in a random wording. A
    subject has as many paragraphs as its most frequent fact; its rarer facts are
    spread over them, in shuffled order.
    """
    rng = stream(seed, "paragraphs")
    by_subject: dict[str, list[Fact]] = {}
    for fact in world.facts:
        if fact.exposure:
            by_subject.setdefault(fact.subject, []).append(fact)
    texts = []
    for facts in by_subject.values():
        texts.extend(_paragraphs_about(facts, world.relations, rng))
    for index in rng.permutation(len(texts)):
        yield texts[index]


def _paragraphs_about(facts: list[Fact], relations, rng) -> list[str]:
    n = max(f.exposure for f in facts)
    paragraphs: list[list[str]] = [[] for _ in range(n)]
    for fact in facts:
        places = rng.choice(n, fact.exposure, replace=False).tolist()
        sentences = statements(fact, relations, rng, len(places))
        for place, sentence in zip(places, sentences):
            paragraphs[place].append(sentence)
    # A permutation of a single sentence would draw nothing from ``rng``.
    return [
        s[0] if len(s) == 1 else " ".join(s[i] for i in rng.permutation(len(s)))
        for s in paragraphs
        if s
    ]


def state(fact: Fact, relations: dict[str, Relation], rng: np.random.Generator) -> str:
    """A sentence that states the fact; ``rng`` draws the wording, and the answer where
    there are several."""
    return next(statements(fact, relations, rng, 1))


def statements(
    fact: Fact, relations: dict[str, Relation], rng: np.random.Generator, n: int
) -> Iterator[str]:
    """n sentences that state the fact, in random wordings. Where there are several
    answers each sentence draws one; of a contested fact, each answer has its share of
    the n sentences."""
    templates = relations[fact.relation].statements
    wordings = rng.integers(len(templates), size=n).tolist()
    if fact.contested:
        majority = int(np.floor(n * fact.shares[0] + rng.random()))
        choices = (rng.permutation(n) >= majority).astype(int).tolist()
    else:
        choices = rng.integers(len(fact.stated), size=n).tolist()
    for wording, choice in zip(wordings, choices):
        yield templates[wording].format(s=fact.subject, a=fact.stated[choice])


# --- Answers --------------------------------------------------------------------------


def is_right(fact: Fact, reply: str) -> bool:
    """Whether the reply is one of the fact's answers. Case, spaces, a closing full stop
    and a leading article do not matter."""
    return normalise(reply) in {normalise(a) for a in fact.answers}


def normalise(text: str) -> str:
    """Lower case, one space between words, no closing full stop, no leading article."""
    text = " ".join(text.strip().rstrip(".").lower().split())
    return re.sub(r"^(the|a|an) ", "", text)
