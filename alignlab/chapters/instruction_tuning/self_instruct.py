"""Self-instruct: a model writes questions after a few seeds, a filter drops bad ones.

The base model has read plain sentences and never a question. A few people's questions,
each beside the sentence it asks about, make a *generator* of it, which then asks about
other sentences. Wang et al. (2023), Self-Instruct; Li et al. (2024), back-translation.
"""

import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache as once
from itertools import chain, zip_longest

import numpy as np

from alignlab import cache
from alignlab.models.base import weights_hash
from alignlab.models.sampler import complete
from alignlab.study.arms import run_arms
from alignlab.study.tuning import judge, reply, tune
from alignlab.world import tasks
from alignlab.world.facts import RELATIONS, Fact, World, is_right, state
from alignlab.world.tasks import Example

KINDS = ("seeds", "filtered", "unfiltered", "human")
SUBJECT, ANSWER = "X", "Y"  # masks, in what the generator reads and writes
TEST_SEED = 7919  # test questions are the same for every arm; seeds vary the training
MAX_TOKENS = 40  # of a line, question and answer
MAX_WORDS = 16  # of a question; people's have 12 at most
MAX_ANSWER_WORDS = 5
REASONS = (  # in the order they are looked at: a pair is dropped for the first
    "unparsed",
    "too_long",
    "not_an_instruction",
    "subject_missing",
    "answer_in_question",
    "answer_not_in_statement",
    "off_topic",
    "duplicate",
)


@dataclass(frozen=True)
class Statement:
    """A plain sentence with its two names, subject and answer, masked."""

    masked: str
    answer: str
    fact: Fact

    @property
    def text(self) -> str:
        return fill(self.masked, self.fact.subject, self.answer)


@dataclass(frozen=True)
class Pair:
    """What the generator wrote about a statement: ``line``, still masked, then parsed
    and filled into a question and its answer (both empty where that failed); ``reason``
    why the filter drops it, empty if it keeps it; ``right`` whether the world agrees,
    which the filter never sees."""

    statement: str
    subject: str
    relation: str
    masked: str
    line: str
    question: str
    answer: str
    reason: str
    right: bool

    @property
    def kept(self) -> bool:
        return not self.reason


# --- Seeds, and sentences to ask about ---------------------------------------------


def seeds_and_sources(
    world: World, trained: Iterable[str], *, n_seeds: int, n_sources: int, seed: int
) -> tuple[list[Statement], list[Statement]]:
    """Statements for people to ask about, and others for the generator.

    Seeds go round the relations, as people would who want to show every kind, each
    about another subject and a known fact. Sources are sentences as they come in
    pretraining, frequent facts more often, about subjects that no seed is about. A
    neighbour from outside ``trained`` is never named: a border is a fact about both
    its countries.

    Args:
        world: where the facts are from.
        trained: subjects that may occur; questions about the others are the test.
        n_seeds: seeds; more show the generator more wordings.
        n_sources: sources, with repetition.
        seed: decides everything that is drawn.

    Raises:
        ValueError: if there are too few subjects, or none is left for the sources.
    """
    rng = np.random.default_rng([seed, 11])
    facts = list(_usable(world, set(trained)))
    seeds = _round_robin([f for f in facts if f.known], rng)[:n_seeds]
    taken = {f.subject for f in seeds}
    left = [f for f in facts if f.subject not in taken]
    if len(seeds) < n_seeds or not left:
        raise ValueError(
            f"n_seeds is {n_seeds}, but {len(seeds)} subjects with a known fact can be "
            f"seeds and {len(left)} facts are left: ask for fewer seeds"
        )
    weights = np.array([f.exposure for f in left], float)
    drawn = rng.choice(len(left), n_sources, p=weights / weights.sum())
    return (
        [_say(f, world, rng) for f in seeds],
        [_say(left[i], world, rng) for i in drawn],
    )


def _usable(world: World, trained: set[str]) -> Iterator[Fact]:
    for fact in world.facts:
        stated = fact.stated
        if fact.relation == "neighbour":
            stated = tuple(a for a in stated if a in trained)
        if fact.subject in trained and fact.exposure and stated:
            yield replace(fact, stated=stated)


def _round_robin(facts: Sequence[Fact], rng) -> list[Fact]:
    """One fact of each relation, then a second of each, ..., one a subject."""
    by_relation: dict[str, list[Fact]] = {}
    for index in rng.permutation(len(facts)):
        fact = facts[index]
        by_relation.setdefault(fact.relation, []).append(fact)
    rounds = zip_longest(*by_relation.values())
    chosen: dict[str, Fact] = {}
    for fact in filter(None, chain.from_iterable(rounds)):
        chosen.setdefault(fact.subject, fact)
    return list(chosen.values())


def _say(fact: Fact, world: World, rng) -> Statement:
    answer = fact.stated[rng.integers(len(fact.stated))]
    nameless = replace(fact, subject=SUBJECT, stated=(ANSWER,))
    return Statement(state(nameless, world.relations, rng), answer, fact)


def fill(text: str, subject: str, answer: str) -> str:
    """The text with the names in the place of their masks."""
    given = {SUBJECT: subject, ANSWER: answer}
    return re.sub(rf"\b[{SUBJECT}{ANSWER}]\b", lambda m: given[m[0]], text)


def human_questions(
    statements: Sequence[Statement], world: World, seed: int
) -> list[Example]:
    """The questions that people (our templates) ask about the statements, one each."""
    rng = np.random.default_rng([seed, 12])
    asked = []
    for statement in statements:
        fact = statement.fact
        wordings = world.relations[fact.relation].questions
        question = wordings[rng.integers(len(wordings))].format(s=fact.subject)
        asked.append(_example(question, statement.answer, fact))
    return asked


def _example(question: str, answer: str, fact: Fact) -> Example:
    return Example(fact.relation, question, f"{answer}.", fact.answers, fact)


# --- The generator -----------------------------------------------------------------


def request(statement: Statement) -> str:
    """How the generator is asked for a question about the statement."""
    return f"Write a question and its answer. {statement.masked}"


def write(question: str, answer: str) -> str:
    """A question and its answer on one line, as the generator is to write them."""
    return f"{question} {answer.rstrip('.')}."


_PAIR = re.compile(r"([^?]+\?|.+\.) ([^?]+?)\.?")


def parse(line: str) -> tuple[str, str] | None:
    """The question and the answer of a line, or None if it does not have the two.

    The question ends at its question mark, or else at the last full stop before the
    answer: "Name the capital of Mali. Bamako." is read too.
    """
    match = _PAIR.fullmatch(line.strip())
    return (match[1].strip(), match[2].strip()) if match else None


def generate_pairs(
    *,
    seed: int,
    size: str,
    n_seeds: int,
    n_generated: int,
    generator_steps: int,
    temperature: float = 0.8,
    progress: bool = False,
) -> list[Pair]:
    """Question and answer pairs that a base model wrote after a few seeds, judged by
    the filter; computed once and then remembered.

    The generator reads "Y is the capital of X." and writes "What is the capital of X?
    Y."; the program takes the names out and puts them back. That is a concession to its
    size. Tried, looking at the pairs only: with the names left in, it repeated the
    seeds' names whatever it was told to ask about (0 to 5% of the pairs usable at
    either size, whether taught for 15 or 250 updates, with 48 or 128 seeds, in plain
    text, or with copying as a second task), and without any statement it repeated whole
    seeds (under 3% new). Masked, nearly every pair has the right form at once. At the
    smaller size a quarter are right after 30 updates, four in ten after 60, six in ten
    after 120 and seven in ten after 200; temperatures from 0.6 to 1 differ little.
    Without its rule on shared words the filter kept 95% of them, wrong ones too; with
    it about a third, of which nine in ten are right. That rule has a price: it keeps
    few questions about some relations, where people ask in other words than they tell.

    Args:
        seed: draws the seeds, the statements and the words that are sampled.
        size: of the base model.
        n_seeds: people's questions the generator learns from; more make it better.
        n_generated: statements it is asked about, one pair each.
        generator_steps: its updates; more copy subjects and answers more faithfully,
            and the seeds' wordings as well.
        temperature: of the sampling; higher is more varied and breaks more questions.
    """
    key = {
        "seed": seed,
        "size": size,
        "n_seeds": n_seeds,
        "n_generated": n_generated,
        "generator_steps": generator_steps,
        "temperature": temperature,
    }

    def compute() -> list[dict]:
        return [asdict(pair) for pair in _generate(**key, progress=progress)]

    rows = cache.remember(
        "self_instruct",
        compute,
        key=key | {"base": weights_hash()},
        code=[sys.modules[__name__]],
    )
    return [Pair(**row) for row in rows]


def _generate(
    seed, size, n_seeds, n_generated, generator_steps, temperature, progress
) -> list[Pair]:
    world = tasks.default_world()
    seeds, sources = _draw(seed, n_seeds, n_generated)
    model, tokenizer = tune(
        lessons(seeds, world, seed),
        size=size,
        steps=generator_steps,
        seed=seed,
        progress=progress,
    )
    replies = complete(
        model,
        tokenizer,
        [request(s) for s in sources],
        max_new_tokens=MAX_TOKENS,
        temperature=temperature,
        seed=seed,
        progress=progress,
    )
    lines = [r.text if r.ended else "" for r in replies]
    return judge_lines(sources, lines, world)


def _draw(seed: int, n_seeds: int, n_sources: int):
    return seeds_and_sources(
        tasks.default_world(),
        tasks.trained_subjects(),
        n_seeds=n_seeds,
        n_sources=n_sources,
        seed=seed,
    )


def lessons(seeds: Sequence[Statement], world: World, seed: int) -> list[Example]:
    """The seeds turned round: the statement is the prompt, the question and its answer
    are what to write, all with masked names."""
    asked = human_questions(seeds, world, seed)
    nameless = human_questions([_nameless(s) for s in seeds], world, seed)
    return [
        replace(e, prompt=request(s), completion=write(n.prompt, n.completion))
        for s, e, n in zip(seeds, asked, nameless, strict=True)
    ]


def _nameless(statement: Statement) -> Statement:
    fact = replace(statement.fact, subject=SUBJECT)
    return replace(statement, answer=ANSWER, fact=fact)


# --- The filter ---------------------------------------------------------------------


def judge_lines(
    sources: Sequence[Statement], lines: Sequence[str], world: World
) -> list[Pair]:
    """The generator's lines as pairs, each with why the filter drops it (or "") and,
    apart from that, whether it is right."""
    seen: set[str] = set()
    pairs = []
    for source, line in zip(sources, lines, strict=True):
        subject = source.fact.subject
        question, answer = (
            fill(part, subject, source.answer) for part in parse(line) or ("", "")
        )
        reason = reason_to_drop(source.text, subject, question, answer, seen)
        if not reason:
            seen.add(_folded(question))
        pairs.append(
            Pair(
                source.text,
                subject,
                source.fact.relation,
                source.masked,
                line,
                question,
                answer,
                reason,
                is_right_pair(world, subject, question, answer),
            )
        )
    return pairs


def reason_to_drop(
    statement: str, subject: str, question: str, answer: str, seen: Iterable[str] = ()
) -> str:
    """Which of ``REASONS`` speaks first against a pair, or "" if none does.

    It needs nothing but the statement and what that is about: someone with plain texts
    and no answers could use it.

    Args:
        statement: what the generator was asked about.
        subject: what the statement is about.
        question, answer: what it wrote; empty if that could not be parsed.
        seen: questions kept before, in lower case.
    """
    failed = {
        "unparsed": not question or not answer,
        "too_long": len(question.split()) > MAX_WORDS
        or len(answer.split()) > MAX_ANSWER_WORDS,
        "not_an_instruction": not is_instruction(question),
        "subject_missing": not mentions(question, subject),
        "answer_in_question": mentions(question, answer),
        "answer_not_in_statement": not mentions(statement, answer),
        "off_topic": not shared_words(question, statement, subject, answer),
        "duplicate": _folded(question) in seen,
    }
    return next((reason for reason in REASONS if failed[reason]), "")


def is_instruction(question: str) -> bool:
    """Whether it ends as a question does, or begins as an order does."""
    order = question.startswith(("Name ", "Tell ", "Say ", "Give ", "Write "))
    return question.endswith("?") or order


_EMPTY = frozenset(
    "a an the this that is are was be do does has have can of in on at to for from "
    "with by as and or not what which who where how one more than it its".split()
)


def shared_words(question: str, statement: str, *names: str) -> set[str]:
    """The words that question and statement share, names and words like "the" aside:
    "What is the money of Mali?" takes up no word of "Bamako is the capital of Mali."
    """
    for name in names:
        question, statement = without(question, name), without(statement, name)
    return (_words(question) & _words(statement)) - _EMPTY


def mentions(text: str, phrase: str) -> bool:
    """Whether the phrase occurs as whole words: Niger is not in Nigeria, nor Guinea in
    Guinea-Bissau."""
    return bool(_whole(phrase).search(text))


def without(text: str, phrase: str) -> str:
    """The text with the phrase taken out wherever it occurs as whole words."""
    return _whole(phrase).sub(" ", text)


def _whole(phrase: str) -> re.Pattern:
    return re.compile(rf"(?<![\w-]){re.escape(phrase)}(?![\w-])")


def _folded(question: str) -> str:
    return " ".join(question.lower().split())


# --- What the filter cannot see -----------------------------------------------------


def is_right_pair(world: World, subject: str, question: str, answer: str) -> bool:
    """Whether the pair asks for a fact about the subject and gives its answer.

    A pair may pass the filter and be wrong: "What is the money of Mali? Bamako." What a
    question in the model's own words asks for is told by its words: those of one
    relation's wordings count for it, the more the fewer relations share them.
    """
    if not question or not mentions(question, subject):
        return False
    facts = (world.find(subject, name) for name in asked_relations(question, subject))
    return any(fact is not None and is_right(fact, answer) for fact in facts)


def asked_relations(question: str, subject: str) -> list[str]:
    """The relations that a question about the subject may ask for: the likeliest, more
    than one only where they tie, none where no word points to any."""
    words = _words(without(question, subject))
    telling = _telling_words()
    scores = {
        name: sum(weight for word, weight in telling[name].items() if word in words)
        for name in telling
    }
    best = max(scores.values())
    return [name for name, s in scores.items() if best > 0 and math.isclose(s, best)]


@once
def _telling_words() -> dict[str, dict[str, float]]:
    """Of each relation, the words of its questions (held-out ones too) and statements,
    with how much they tell: the logarithm of relations over relations with the word."""
    words = {
        name: _words(" ".join(r.questions + r.held_out_questions + r.statements))
        for name, r in RELATIONS.items()
    }
    shared = Counter(chain.from_iterable(words.values()))
    return {
        name: {w: math.log(len(words) / shared[w]) for w in sorted(found)}
        for name, found in words.items()
    }


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", re.sub(r"{\w}", " ", text.lower())))


def summary(pairs: Sequence[Pair], n_samples: int = 12) -> dict:
    """What came of the generator's pairs.

    Returns:
        ``generated`` and ``kept`` counts, their ratio ``filter_yield``, ``reasons``
        with how often each dropped a pair, ``precision_generated`` and
        ``precision_kept`` (shares that the world agrees with; the first of all that
        could be parsed), and ``samples``, the first few pairs as dicts.
    """
    kept = [p for p in pairs if p.kept]
    parsed = [p for p in pairs if p.question]
    counted = Counter(p.reason for p in pairs if p.reason)
    return {
        "generated": len(pairs),
        "kept": len(kept),
        "filter_yield": len(kept) / len(pairs) if pairs else 0.0,
        "reasons": {reason: counted[reason] for reason in REASONS},
        "precision_generated": _share_right(parsed),
        "precision_kept": _share_right(kept),
        "samples": [asdict(p) for p in pairs[:n_samples]],
    }


def _share_right(pairs: Sequence[Pair]) -> float | None:
    return float(np.mean([p.right for p in pairs])) if pairs else None


# --- The arms -----------------------------------------------------------------------


def synthetic_arm(
    *,
    kind: str,
    seed: int,
    size: str,
    n_seeds: int,
    n_generated: int,
    steps: int,
    generator_steps: int,
    n_test: int,
    temperature: float = 0.8,
) -> dict:
    """SFT on the seeds and what one kind of source adds to them, then questions about
    known facts of the other half of the subjects.

    Args:
        kind: "seeds" adds nothing; "filtered" the generated pairs that the filter
            keeps; "unfiltered" as many as that, the first ones that can be parsed;
            "human" as many questions of people about statements drawn alike.
        steps: updates of the SFT, the same for every kind.
        n_test: test questions in trained phrasings, and as many in held-out ones.
        seed, size, n_seeds, n_generated, generator_steps, temperature: see
            ``generate_pairs``.

    Returns:
        ``accuracy`` over all test questions, ``accuracy_trained`` and
        ``accuracy_held_out`` by phrasing, ``format``, ``added`` (examples beside the
        seeds), ``precision`` (share of them that the world agrees with), and the keys
        of ``summary``.

    Raises:
        ValueError: if the kind is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; it can be one of {', '.join(KINDS)}")
    world = tasks.default_world()
    pairs = generate_pairs(
        seed=seed,
        size=size,
        n_seeds=n_seeds,
        n_generated=n_generated,
        generator_steps=generator_steps,
        temperature=temperature,
    )
    seeds, sources = _draw(seed, n_seeds, n_generated)
    added = _added(kind, pairs, sources, world, seed)
    examples = human_questions(seeds, world, seed) + added
    model, tokenizer = tune(examples, size=size, steps=steps, seed=seed)
    right = [
        is_right_pair(world, e.fact.subject, e.prompt, e.completion) for e in added
    ]
    return {
        **ask(model, tokenizer, world, n_test),
        "added": len(added),
        "precision": float(np.mean(right)) if right else None,
        **summary(pairs),
    }


def _added(kind, pairs, sources, world, seed) -> list[Example]:
    """The examples beside the seeds: as many as the filter keeps, whatever the kind."""
    n = sum(p.kept for p in pairs)
    if kind == "seeds":
        return []
    if kind == "human":
        return human_questions(sources[:n], world, seed + 1)
    chosen = [
        _example(p.question, p.answer, s.fact)
        for p, s in zip(pairs, sources, strict=True)
        if (p.kept if kind == "filtered" else p.question)
    ]
    return chosen[:n]


def ask(model, tokenizer, world: World, n_test: int) -> dict:
    """Accuracy and format on known facts about subjects that were never trained."""
    untrained = set(world.subjects()) - set(tasks.trained_subjects())
    scores = {}
    for phrasing in ("trained", "held_out"):
        questions = tasks.world_questions(
            world, untrained, phrasing=phrasing, seed=TEST_SEED, n=n_test
        )
        scores[phrasing] = judge(questions, reply(model, tokenizer, questions))
    each = scores.values()
    return {
        "accuracy": float(np.mean([s["accuracy"] for s in each])),
        "accuracy_trained": scores["trained"]["accuracy"],
        "accuracy_held_out": scores["held_out"]["accuracy"],
        "format": float(np.mean([s["format"] for s in each])),
    }


def synthetic(
    seeds: Sequence[int],
    size: str = "1m",
    *,
    n_seeds: int = 48,
    n_generated: int = 512,
    steps: int = 100,
    generator_steps: int = 120,
    n_test: int = 200,
    temperature: float = 0.8,
    jobs: int = 2,
) -> list[dict]:
    """Every kind of arm with every seed, see ``synthetic_arm``: one dict an arm.

    A seed, with its generator and four arms, takes about 25 core-seconds with the
    smaller base model and 45 with the larger.

    Args:
        jobs: arms at a time.
    """
    dials = {
        "size": size,
        "n_seeds": n_seeds,
        "n_generated": n_generated,
        "steps": steps,
        "generator_steps": generator_steps,
        "n_test": n_test,
        "temperature": temperature,
    }
    # Seeds vary fastest, so that two arms at a time train two generators, not one.
    arms = [{"kind": kind, "seed": seed, **dials} for kind in KINDS for seed in seeds]
    return run_arms(synthetic_arm, arms, jobs=jobs, label="self-instruct")


def differences(results: Sequence[dict]) -> dict[str, list[float]]:
    """The two differences of accuracy that the claim is about, a number a seed."""
    accuracy = {(r["kind"], r["seed"]): r["accuracy"] for r in results}
    seeds = sorted({seed for _, seed in accuracy})

    def minus(one: str, other: str) -> list[float]:
        return [accuracy[one, s] - accuracy[other, s] for s in seeds]

    return {
        "generated_minus_seeds_accuracy": minus("filtered", "seeds"),
        "filtered_minus_unfiltered_accuracy": minus("filtered", "unfiltered"),
    }
