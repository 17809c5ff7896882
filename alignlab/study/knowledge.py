"""What somebody else's model knows of the world, found by asking it.

How often it has read a fact nobody can say. So in the world as it knows it, "never
shown" are the made-up subjects, nothing is contested, and how well a fact is known is
one of four classes: right whenever asked, right now and then, right only when sampled,
never right (Gekhman et al., 2024, "Does fine-tuning LLMs on new knowledge encourage
hallucinations?", section 3: SliCK).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from alignlab import cache, provenance
from alignlab.errors import AlignlabError
from alignlab.models.base import device_in_use, is_shipped, load_base, weights_hash
from alignlab.models.sampler import complete
from alignlab.models.text import context_length
from alignlab.seeds import stream, torch_seed
from alignlab.study.scale import cap
from alignlab.world import tasks
from alignlab.world.facts import (
    Fact,
    World,
    build_world,
    is_right,
    read_relations,
    split_subjects,
)

CLASSES = ("HighlyKnown", "MaybeKnown", "WeaklyKnown", "Unknown")
# What takes the place of a fact's exposure: a number in the band whose part the class
# plays, known, rare and tail. It says nothing of how often the model read the fact.
STANDING: Mapping[str, int] = dict(zip(CLASSES, (300, 25, 3, 1), strict=True))
# Of each relation and half of the subjects, at least so large a share of the facts
# takes each of the first three parts, lest there be nothing to train on or to ask.
LEAST = 0.2
ANSWER = 12  # tokens of the shipped tokenizer
TEMPERATURE = 0.5  # as in the paper


@dataclass(frozen=True)
class Asking:
    """How thoroughly a model is asked.

    Args:
        facts: of each relation that are kept in the world; 0 keeps all.
        prompts: different sets of worked examples, each asked greedily.
        shots: worked examples; fewer where the model's context is short.
        samples: answers to each question that was never answered rightly so. More of
            any tell the classes apart better, and take longer.
    """

    facts: int
    prompts: int
    shots: int
    samples: int


THOROUGH = Asking(facts=0, prompts=5, shots=4, samples=16)  # on a GPU
BRIEF = Asking(facts=30, prompts=2, shots=2, samples=1)

# --- The base model of a process ------------------------------------------------------

_base = "1m"


def base_in_use() -> str:
    """The base model whose world this process has; see :func:`use_base`."""
    return _base


def use_base(base: str | Path) -> None:
    """Let ``tasks.default_world`` be the world as this base model knows it, from now
    on: for a shipped size the one it has read; any other model is asked the first time,
    which may take minutes. Call it before anything of the world is read.

    Raises:
        AlignlabError: if the process has already read another world, or there is no
            such model.
    """
    global _base
    if is_shipped(base) == is_shipped(_base) and (
        is_shipped(base) or str(base) == _base
    ):
        _base = str(base)
        return
    if tasks.default_world.cache_info().currsize:
        raise AlignlabError(
            f"base is {str(base)!r}, and this process has already read the world as "
            f"{_base!r} knows it.",
            "Restart the kernel, and name the model before anything else.",
        )
    if is_shipped(base):
        tasks.use_world(None)
        provenance.SETTINGS.pop("world", None)
    else:
        answers = ask(base)
        digest = hashlib.sha256(json.dumps(answers).encode()).hexdigest()[:12]
        tasks.use_world(known_world(answers))
        provenance.SETTINGS["world"] = lambda: digest  # results depend on it
    _base = str(base)


# --- Asking ---------------------------------------------------------------------------


def ask(base: str | Path, asking: Asking | None = None) -> list[list]:
    """What a base model answers to a question about each real fact, from the cache if
    it was asked before.

    Args:
        base: the model to ask, see ``models.base.base_path``.
        asking: by default ``THOROUGH`` on a GPU and ``BRIEF`` on a CPU.

    Returns:
        Rows of subject, relation, class, share of right answers greedily, and share of
        right answers sampled (0 if it was not sampled).
    """
    if asking is None:
        asking = BRIEF if device_in_use() == "cpu" else THOROUGH

    def compute() -> list[list]:
        facts = _kept(build_world(0).facts, asking)
        model, tokenizer = load_base(base)
        greedy, sampled = _shares_right(model, tokenizer, facts, asking)
        return [
            [fact.subject, fact.relation, slick_class(g, s), g, s]
            for fact, g, s in zip(facts, greedy, sampled, strict=True)
        ]

    key = {"weights_hash": weights_hash(base), **asdict(asking)}
    return cache.remember("knowledge", compute, key=key)


def slick_class(greedy: float, sampled: float) -> str:
    """The class of a fact, from the shares of right answers."""
    if greedy > 0:
        return "HighlyKnown" if greedy == 1 else "MaybeKnown"
    return "WeaklyKnown" if sampled > 0 else "Unknown"


def _shares_right(
    model, tokenizer, facts: Sequence[Fact], asking: Asking
) -> tuple[list[float], list[float]]:
    """Of each fact the share of right answers, greedily and sampled."""
    prompts = _prompts(model, tokenizer, facts, asking)
    greedy = _right(model, tokenizer, facts, prompts)
    doubtful = [number for number, share in enumerate(greedy) if share == 0]
    sampled = [0.0] * len(facts)
    shares = _right(
        model,
        tokenizer,
        [facts[number] for number in doubtful],
        [prompts[number][:1] * asking.samples for number in doubtful],
        temperature=TEMPERATURE,
        seed=torch_seed(0, "what a model knows"),
    )
    for number, share in zip(doubtful, shares, strict=True):
        sampled[number] = share
    return greedy, sampled


def _right(
    model, tokenizer, facts: Sequence[Fact], prompts: Sequence[list[str]], **options
) -> list[float]:
    """Of each fact the share of its prompts that the model goes on rightly with."""
    flat = [prompt for own in prompts for prompt in own]
    longest = cap(tokenizer, ANSWER)
    options |= dict(chat=False, batch_size=128)
    replies = iter(complete(model, tokenizer, flat, longest, **options))
    shares = []
    for fact, own in zip(facts, prompts, strict=True):
        answers = [first_line(next(replies).text) for _ in own]
        right = [is_right(fact, answer) for answer in answers]
        shares.append(sum(right) / len(right))
    return shares


def first_line(text: str) -> str:
    """A reply up to where a base model would go on with the next question."""
    return text.strip().partition("\n")[0].strip()


def _prompts(
    model, tokenizer, facts: Sequence[Fact], asking: Asking
) -> list[list[str]]:
    """Of each fact ``asking.prompts`` prompts, with as many worked examples as fit."""
    room = context_length(model) - cap(tokenizer, ANSWER)
    for shots in range(asking.shots, -1, -1):
        prompts = list(_with_shots(facts, asking.prompts, shots))
        flat = [prompt for own in prompts for prompt in own]
        if max(len(ids) for ids in tokenizer(flat)["input_ids"]) <= room:
            return prompts
    raise AlignlabError(
        f"The model reads {context_length(model)} tokens: too few for a question.",
        "Take a model with a longer context.",
    )


def _with_shots(facts: Sequence[Fact], n: int, shots: int) -> Iterator[list[str]]:
    """Questions about the facts, each behind other facts of the same relation."""
    by_relation: dict[str, list[Fact]] = {}
    for fact in facts:
        by_relation.setdefault(fact.relation, []).append(fact)
    drawn = {
        relation: [
            [own[i] for i in stream(0, f"worked examples: {relation}", k)
             .permutation(len(own))[: shots + 1]]
            for k in range(n)
        ]
        for relation, own in by_relation.items()
    }  # fmt: skip
    for fact in facts:
        yield [_prompt(fact, shown, k) for k, shown in enumerate(drawn[fact.relation])]


def _prompt(fact: Fact, shown: Sequence[Fact], number: int) -> str:
    """A question behind all of the others that are shown but itself and the last."""
    questions = read_relations()[fact.relation].questions
    question = questions[number % len(questions)]
    others = [other for other in shown if other.subject != fact.subject]
    parts = [
        f"Question: {question.format(s=other.subject)}\nAnswer: {other.answer}\n\n"
        for other in others[: len(shown) - 1]
    ]
    return "".join(parts) + f"Question: {question.format(s=fact.subject)}\nAnswer:"


# --- The world as it is known ---------------------------------------------------------


def _kept(facts: Sequence[Fact], asking: Asking) -> list[Fact]:
    """The real facts about some subjects, drawn once: as few as give every relation
    ``asking.facts`` facts, where there are so many."""
    real = [fact for fact in facts if not fact.made_up]
    if not asking.facts:
        return real
    about: dict[str, list[Fact]] = {}
    for fact in real:
        about.setdefault(fact.subject, []).append(fact)
    names, kept, counts = list(about), set(), Counter()
    for i in stream(0, "subjects to ask about").permutation(len(names)):
        relations = [fact.relation for fact in about[names[i]]]
        if any(counts[relation] < asking.facts for relation in relations):
            kept.add(names[i])
            counts.update(relations)
    return [fact for fact in real if fact.subject in kept]


def known_world(answers: Sequence[Sequence]) -> World:
    """The world as a model knows it that answered so, see :func:`ask`.

    Facts that it was not asked about are left out. ``exposure`` has what ``STANDING``
    says of the class, or of a better one for the best-known facts of a relation, where
    fewer than ``LEAST`` of them belong to that; ``knowledge`` has the class itself.
    """
    world = build_world(0)
    rows = {(subject, relation): rest for subject, relation, *rest in answers}
    facts = [
        replace(fact, shares=(), stated=fact.answers, knowledge=rows[place][0])
        if (place := (fact.subject, fact.relation)) in rows
        else fact
        for fact in world.facts
        if fact.made_up or (fact.subject, fact.relation) in rows
    ]
    standing = _standings(facts, rows, split_subjects(world, 0)[0])
    return replace(
        world,
        facts=tuple(
            replace(fact, exposure=standing.get((fact.subject, fact.relation), 0))
            for fact in facts
        ),
    )


def _standings(
    facts: Sequence[Fact], rows: Mapping[tuple, Sequence], first: set[str]
) -> dict[tuple, int]:
    """What takes the place of each real fact's exposure."""
    groups: dict[tuple, list[tuple]] = {}
    for fact in facts:
        if not fact.made_up:
            group = fact.relation, fact.subject in first
            groups.setdefault(group, []).append((fact.subject, fact.relation))
    standings = {}
    for places in groups.values():
        best = sorted(places, key=lambda p: (-rows[p][1], -rows[p][2]))
        least = max(1, round(LEAST * len(best)))
        for rank, place in enumerate(best):
            own = CLASSES.index(rows[place][0])
            standings[place] = STANDING[CLASSES[min(own, rank // least)]]
    return standings


def summary(world: World) -> dict[str, int]:
    """How many facts of a world belong to each class, and how many of them
    ``stand_in`` for better-known ones; nothing where exposures are counted."""
    facts = [fact for fact in world.facts if fact.knowledge]
    counts = Counter(fact.knowledge for fact in facts)
    moved = sum(fact.exposure != STANDING[fact.knowledge] for fact in facts)
    return {**{c: counts[c] for c in CLASSES}, "stand_in": moved} if facts else {}
