"""The instruction mixture: families of small tasks whose replies can all be checked.

A family has a table of items and several instructions to put them in. Some families,
and some instructions of every family, are held out to test for generalisation.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Literal

from alignlab.seeds import stream
from alignlab.world import items
from alignlab.world.facts import (
    RELATIONS,
    TAIL,
    Fact,
    World,
    build_world,
    split_subjects,
)
from alignlab.world.items import Item
from alignlab.world.texts import read_texts

Split = Literal["train", "test"]
Facts = Literal["known", "rare", "tail", "never", "made_up", "contested", "all"]
Phrasing = Literal["trained", "held_out"] | int


@dataclass(frozen=True)
class Example:
    """One instruction with its reply.

    ``completion`` is what is trained on: one line, closed by a full stop. ``answers``
    are all the replies that count as right. ``fact`` is the fact that the question asks
    for, if any; ``entry`` is reasoning-gym's own record, which its verifier reads.
    """

    family: str
    prompt: str
    completion: str
    answers: tuple[str, ...]
    fact: Fact | None = None
    entry: dict | None = field(default=None, compare=False, repr=False)

    @property
    def category(self) -> str:
        return FAMILIES[self.family].category

    @property
    def labels(self) -> tuple[str, ...]:
        """The allowed replies of a classification, else empty."""
        return FAMILIES[self.family].labels


@dataclass(frozen=True)
class Family:
    """One task.

    ``held_out`` families are never trained on. ``items`` builds the table (use
    ``table``, which keeps it). ``labels`` are the allowed replies of a classification.
    ``check`` says how replies are compared with the answers: "normal" ignores case and
    a leading article, "exact" does not, "gym" asks reasoning-gym's verifier.
    """

    name: str
    category: str
    instructions: tuple[str, ...]
    held_out_instructions: tuple[str, ...]
    items: Callable[[], Iterable[Item]]
    description: str
    held_out: bool = False
    labels: tuple[str, ...] = ()
    check: Literal["normal", "exact", "gym"] = "normal"


# --- Examples -------------------------------------------------------------------------


_given: World | None = None


@cache
def default_world() -> World:
    """The world that the shipped base model has read, unless :func:`use_world` gave
    another."""
    return build_world(0) if _given is None else _given


def use_world(world: World | None) -> None:
    """Let this be the default world from now on, None the one of before. What has been
    read of another is forgotten here, and not elsewhere: call it first."""
    global _given
    _given = world
    for remembered in (default_world, table, _chosen, trained_subjects):
        remembered.cache_clear()


@cache
def table(family: str) -> tuple[Item, ...]:
    """Every item of a family, in a fixed order, each input once."""
    return tuple(items.distinct(_family(family).items()))


def examples(
    family: str,
    n: int | None = None,
    *,
    split: Split = "train",
    phrasing: Phrasing = "trained",
    facts: Facts = "known",
    seed: int = 0,
) -> list[Example]:
    """At most n examples of one family, in random order, each input once.

    Args:
        family: a key of ``FAMILIES``, held out or not.
        n: how many; None means all, and a family with fewer inputs gives all it has.
        split: no input of "train" occurs in "test". Facts are split by subject, real
            texts and generated inputs by a hash of their text.
        phrasing: "trained" or "held_out" draws one of those instructions for each
            example; a number uses that one throughout, counting the trained ones first.
        facts: in the world's families, those shown often ("known", 100 times or more),
            seldom ("rare", 6 times or more), hardly ("tail"), "never", or "all". Of the
            never shown, some subjects are "made_up"; those shown inconsistently are
            "contested", whatever their number. Training on "known" ones teaches to
            answer, not to guess.
        seed: draws order and wording, never the split.

    Raises:
        ValueError: on an unknown family, split, phrasing or facts.
        AlignlabError: if a data source is missing and cannot be fetched.
    """
    chosen = _chosen(family, split, facts)
    rng = stream(seed, f"examples of {family}")
    order = rng.permutation(len(chosen))[:n]
    wordings = _wordings(_family(family), phrasing)
    return [_example(family, chosen[index], wordings, rng) for index in order]


def world_questions(
    world: World,
    subjects: Iterable[str],
    *,
    phrasing: Literal["trained", "held_out"] = "trained",
    facts: Facts = "known",
    inverse: bool = False,
    seed: int = 0,
    n: int | None = None,
) -> list[Example]:
    """Questions about some of the world's subjects, one per fact, in random order.

    Args:
        world: whose facts to ask for.
        subjects: for instance one half of ``split_subjects``.
        phrasing: wordings that are trained, or those that never are.
        facts: "known", "rare", "tail", "never", "made_up", "contested" or "all", see
            :func:`examples`.
        inverse: give the answer and ask for the subject, in the relations where each
            answer has one subject.
        seed: draws order and wording.
        n: at most this many; None means all.
    """
    subjects = set(subjects)
    rng = stream(seed, "questions about the world", int(inverse))
    candidates: list[tuple[str, Item]] = []
    for relation in world.relations:
        family = INVERSES.get(relation) if inverse else relation
        if family is not None:
            made = _fact_items(world, relation, inverse, lambda subject: "test")
            candidates += [(family, i) for i in made if i.fact.subject in subjects]
    candidates = [(f, item) for f, item in candidates if _is_wanted(item.fact, facts)]
    order = rng.permutation(len(candidates))[:n]
    families = {family for family, _ in candidates}
    wordings = {f: _wordings(FAMILIES[f], phrasing) for f in families}
    chosen = (candidates[index] for index in order)
    return [_example(family, item, wordings[family], rng) for family, item in chosen]


@cache
def _chosen(family: str, split: Split, facts: Facts) -> tuple[Item, ...]:
    _require_known("split", split, ("train", "test"))
    chosen = (i for i in table(family) if i.split == split)
    return tuple(i for i in chosen if _is_wanted(i.fact, facts))


def _example(family: str, item: Item, wordings: Sequence[str], rng) -> Example:
    prompt = wordings[rng.integers(len(wordings))].format(**item.fields)
    reply = item.replies[rng.integers(len(item.replies))]
    completion = reply if reply.endswith(".") else f"{reply}."
    return Example(family, prompt, completion, item.answers, item.fact, item.entry)


def _wordings(family: Family, phrasing: Phrasing) -> tuple[str, ...]:
    every = family.instructions + family.held_out_instructions
    if phrasing == "trained":
        return family.instructions
    if phrasing == "held_out":
        return family.held_out_instructions
    if isinstance(phrasing, int) and 0 <= phrasing < len(every):
        return (every[phrasing],)
    raise ValueError(
        f"phrasing={phrasing!r}: '{family.name}' knows 'trained', 'held_out' and the "
        f"numbers 0 to {len(every) - 1}"
    )


def _is_wanted(fact: Fact | None, facts: Facts) -> bool:
    """Whether items of this fact are among those chosen; items without one always
    are."""
    _require_known("facts", facts, Facts.__args__)
    if fact is None or facts == "all":
        return True
    if facts == "made_up":
        return fact.made_up
    return facts == _kind(fact)


def _kind(fact: Fact) -> Facts:
    if not fact.exposure:
        return "never"
    if fact.contested:
        return "contested"
    if fact.known:
        return "known"
    return "tail" if fact.exposure <= TAIL else "rare"


def _family(name: str) -> Family:
    _require_known("family", name, FAMILIES)
    return FAMILIES[name]


def _require_known(what: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise ValueError(f"unknown {what} {value!r}: choose from {', '.join(known)}")


# --- Mixtures -------------------------------------------------------------------------


def sizes(
    families: Iterable[str] | None = None,
    *,
    split: Split = "train",
    facts: Facts = "known",
) -> dict[str, int]:
    """Number of distinct inputs of each family, by default of all families."""
    names = FAMILIES if families is None else families
    return {name: len(_chosen(name, split, facts)) for name in names}


def mixture_weights(
    sizes: Mapping[str, int],
    scheme: Literal["proportional", "capped", "temperature", "equal"] = "capped",
    cap: int = 100,
    temperature: float = 2.0,
) -> dict[str, float]:
    r"""The share of each family in training: probabilities that sum to 1.

    They are proportional to the size of the family ("proportional"), to
    :math:`\min(size, cap)` ("capped", FLAN's examples-proportional mixing), to
    :math:`size^{1/T}` ("temperature"), or all the same ("equal").

    Args:
        sizes: number of examples of each family, all positive.
        scheme: one of the four.
        cap: for "capped"; a lower one gives small families a larger share, so that they
            are repeated more often.
        temperature: T, for "temperature"; a higher one gives small families a larger
            share (1 is proportional, infinity equal).

    Raises:
        ValueError: on an unknown scheme, or if a size, cap or temperature is not
            positive.

    Source: Raffel et al. (2020), section 3.5.2; Wei et al. (2021). TRL's
    ``DatasetMixtureConfig.fraction`` cannot express these: it takes a fraction of each
    data set, and so never repeats a small one.
    """
    _require_known("scheme", scheme, ("proportional", "capped", "temperature", "equal"))
    if not sizes or min(sizes.values()) <= 0 or cap <= 0 or temperature <= 0:
        raise ValueError(
            f"sizes, cap and temperature must be positive: {dict(sizes)}, {cap}, "
            f"{temperature}"
        )
    share = {
        "proportional": lambda size: float(size),
        "capped": lambda size: float(min(size, cap)),
        "temperature": lambda size: size ** (1 / temperature),
        "equal": lambda size: 1.0,
    }[scheme]
    total = sum(share(size) for size in sizes.values())
    return {name: share(size) / total for name, size in sizes.items()}


def mixture(
    n: int,
    *,
    families: Iterable[str] | None = None,
    weights: str | Mapping[str, float] = "capped",
    split: Split = "train",
    phrasing: Phrasing = "trained",
    facts: Facts = "known",
    cap: int = 100,
    temperature: float = 2.0,
    seed: int = 0,
) -> list[Example]:
    """n examples of many families, shuffled.

    The number from each family is drawn by its weight. Within a family every input is
    used once before any is repeated, in a new order and in newly drawn wordings.

    Args:
        n: how many in all.
        families: by default all that are not held out.
        weights: a scheme of ``mixture_weights``, or the probabilities themselves.
        split, phrasing, facts: as in ``examples``.
        cap, temperature: as in ``mixture_weights``.
        seed: draws everything that is random.

    Raises:
        ValueError: on unknown names, weights for other families than ``families``, or a
            family without examples of the chosen split and facts.
    """
    names = list(trained_families() if families is None else families)
    draw = partial(examples, split=split, phrasing=phrasing, facts=facts)
    if isinstance(weights, str):
        have = sizes(names, split=split, facts=facts)
        weights = mixture_weights(have, weights, cap, temperature)
    if set(weights) != set(names):
        raise ValueError(f"weights are for {sorted(weights)}, families are {names}")
    rng = stream(seed, "mixture")
    counts = rng.multinomial(n, [weights[name] for name in names])
    drawn = [
        example
        for name, count in zip(names, counts, strict=True)
        for example in _epochs(partial(draw, name), int(count), rng)
    ]
    return [drawn[index] for index in rng.permutation(n)]


def _epochs(draw: Callable[..., list[Example]], n: int, rng) -> list[Example]:
    drawn: list[Example] = []
    while len(drawn) < n:
        drawn += (epoch := draw(n=n - len(drawn), seed=int(rng.integers(2**31))))
        if not epoch:
            raise ValueError(f"{draw.args[0]!r}: no examples of that split and facts")
    return drawn


def trained_families() -> tuple[str, ...]:
    return tuple(f.name for f in FAMILIES.values() if not f.held_out)


def held_out_families() -> tuple[str, ...]:
    return tuple(f.name for f in FAMILIES.values() if f.held_out)


# --- Items about the world's facts ----------------------------------------------------

INVERSES = {
    "capital": "capital_of",
    "symbol": "symbol_of",
    "atomic_number": "number_of",
    "opposite": "opposite_of",
    "plural": "plural_of",
}


@cache
def trained_subjects() -> frozenset[str]:
    """The half of the default world's subjects whose questions are trained on."""
    return frozenset(split_subjects(default_world(), 0)[0])


def _side(subject: str) -> str:
    return "train" if subject in trained_subjects() else "test"


def _fact_items(world: World, relation: str, inverse: bool, side) -> Iterator[Item]:
    facts = [f for f in world.facts if f.relation == relation]
    if inverse:  # a made-up country may have any capital
        facts = [f for f in facts if not f.made_up]
    holders: dict[str, list[str]] = {}
    for fact in facts:
        holders.setdefault(fact.answer, []).append(fact.subject)
    for fact in facts:
        if inverse:
            fields, replies = {"a": fact.answer}, (fact.subject,)
            answers = tuple(holders[fact.answer])
        else:
            # Pretraining may have stated only some answers, and of a hidden fact none.
            # Of a contested fact only the answer that most statements give is a reply.
            fields, replies = {"s": fact.subject}, fact.stated or fact.answers
            replies = replies[:1] if fact.contested else replies
            answers = fact.answers
        yield Item(fields, replies, answers, side(fact.subject), fact)


def _world_items(relation: str, inverse: bool = False) -> Iterator[Item]:
    yield from _fact_items(default_world(), relation, inverse, _side)


def _swap_items() -> Iterator[Item]:
    """Neighbours from the same half of the world, known from both sides: rewriting must
    not reveal what the experiments hide from the model."""
    facts = {f.subject: f for f in default_world().facts if f.relation == "neighbour"}
    known = {(f.subject, a) for f in facts.values() if f.known for a in f.stated}
    for first, second in sorted(known):
        if (second, first) in known and _side(first) == _side(second):
            for verb in ("is next to", "has a border with", "is a neighbour of"):
                fields = {"x": f"{first} {verb} {second}."}
                reply = f"{second} {verb} {first}."
                yield Item(fields, (reply,), (reply,), _side(first))


# --- The families ---------------------------------------------------------------------


def _of_relation(name: str) -> Family:
    relation = RELATIONS[name]
    category = "words" if relation.kind == "word" else "world_facts"
    questions = relation.questions, relation.held_out_questions
    what = f"the {name.replace('_', ' ')} of a {relation.kind}"
    return Family(name, category, *questions, partial(_world_items, name), what)


def _of_inverse(relation: str, name: str, held_out: bool = False) -> Family:
    kind = RELATIONS[relation].kind
    category = "words" if kind == "word" else "world_facts"
    trained = RELATIONS[relation].inverse_questions
    untrained = tuple(read_texts("instructions")["inverse_held_out"][relation])
    make = partial(_world_items, relation, inverse=True)
    what = f"which {kind} has this {relation.replace('_', ' ')}"
    return Family(name, category, trained, untrained, make, what, held_out)


def _of(name: str, category: str, make: Callable, what: str, **more) -> Family:
    wordings = read_texts("instructions")["tasks"][name]
    trained, untrained = tuple(wordings["trained"]), tuple(wordings["held_out"])
    kept = partial(items.remembered, name, make)
    return Family(name, category, trained, untrained, kept, what, **more)


def _of_skill(name: str, category: str, what: str, **more) -> Family:
    return _of(name, category, partial(items.skill_items, name), what, **more)


def _of_gym(name: str, category: str, what: str) -> Family:
    return _of(name, category, partial(items.gym_items, name), what, check="gym")


def _of_labels(
    name: str, labels: dict[str, str], what: str, balance=True, dataset="", **more
) -> Family:
    make = partial(items.labelled_items, dataset or name, labels, balance)
    more["labels"] = tuple(labels.values())
    return _of(name, "classification", make, what, **more)


def _of_rewriting(name: str, pairs: Callable, what: str, **more) -> Family:
    more = {"check": "exact"} | more
    return _of(name, "rewriting", lambda: items.rewritten(pairs()), what, **more)


_POLARITY = {"positive": "positive", "negative": "negative"}
_TREC = {  # "abbreviation" is left out: 1.6% of the questions
    "human": "person",
    "location": "place",
    "number": "number",
    "entity": "thing",
    "description": "description",
}

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *map(_of_relation, RELATIONS),
        _of_inverse("capital", "capital_of"),
        _of_inverse("symbol", "symbol_of", held_out=True),
        _of_inverse("atomic_number", "number_of"),
        _of_inverse("opposite", "opposite_of"),
        _of_inverse("plural", "plural_of", held_out=True),
        _of_labels("sms_spam", {"spam": "spam", "ham": "ham"}, "is a message spam"),
        _of_labels("trec", _TREC, "what a question asks for", balance=False),
        _of_labels("movie_polarity", _POLARITY, "is a film comment positive"),
        _of_labels(
            "tweet_polarity",
            _POLARITY,
            "is a tweet positive",
            dataset="tweet_ratings",
            held_out=True,
        ),
        _of_skill("copy", "lists", "say a list again"),
        _of_skill("first", "lists", "the first word of a list"),
        _of_skill("second", "lists", "the second word of a list"),
        _of_skill("last", "lists", "the last word of a list", held_out=True),
        _of_skill("backwards", "lists", "a list from its end"),
        _of_skill("count", "lists", "how many words a list has"),
        _of_skill("sorted", "lists", "digits in order"),
        _of_skill("largest", "lists", "the largest number"),
        _of_skill("smallest", "lists", "the smallest number", held_out=True),
        _of_gym("word_sorting", "lists", "words in alphabetical order"),
        _of_skill("sum", "numbers_dates", "the sum of two numbers"),
        _of_skill("next", "numbers_dates", "the number after", held_out=True),
        _of_skill("parity", "numbers_dates", "even or odd", labels=("even", "odd")),
        _of_skill("date", "numbers_dates", "a date in words"),
        _of_skill("month", "numbers_dates", "the name of a month"),
        _of_gym("chain_sum", "numbers_dates", "plus and minus"),
        _of_gym("products", "numbers_dates", "the product of two digits"),
        _of_rewriting(
            "first_word", items.first_words, "a sentence's first word", check="normal"
        ),
        _of_rewriting(
            "last_word",
            items.last_words,
            "a sentence's last word",
            check="normal",
            held_out=True,
        ),
        _of_rewriting("capitals", items.capitals, "a word in capital letters"),
        _of_rewriting("replace_word", items.replacements, "one word for another"),
        _of_rewriting("remove_word", items.removals, "a sentence without one word"),
        _of_rewriting("polite", items.orders, "an order that starts with please"),
        _of_rewriting("negate", items.negations, "a sentence with not"),
        _of("swap", "rewriting", _swap_items, "two names change places", check="exact"),
    )
}
