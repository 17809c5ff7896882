"""Self-instruct: a model writes questions from a few seeds, a filter drops bad ones.

A few human questions, each beside the sentence it asks about, turn a base model into a
generator. Wang et al. (2023), Self-Instruct; Li et al. (2024), back-translation.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, zip_longest

import numpy as np

from alignlab import cache
from alignlab.chapters.instruction_tuning.pair_filter import (
    fold,
    is_right_pair,
    reason_to_drop,
)
from alignlab.models.base import weights_hash
from alignlab.models.sampler import complete
from alignlab.seeds import stream
from alignlab.study.scale import cap
from alignlab.study.tuning import TEST_SEED, judge, reply, tune
from alignlab.world import tasks
from alignlab.world.facts import Fact, World, state
from alignlab.world.tasks import Example

KINDS = ("seeds", "filtered", "unfiltered", "human")
SUBJECT, ANSWER = "X", "Y"  # masks, in what the generator reads and writes
MAX_TOKENS = 40  # of a generated line, question and answer


@dataclass(frozen=True)
class Statement:
    """A plain sentence with its subject and answer masked."""

    masked: str
    answer: str
    fact: Fact

    @property
    def text(self) -> str:
        return fill(self.masked, self.fact.subject, self.answer)


@dataclass(frozen=True)
class Pair:
    """What the generator wrote about a statement.

    ``question`` and ``answer`` are parsed, with the names put back; both are empty if
    parsing failed. ``reason`` says why the filter drops the pair and is empty if it
    keeps it; ``right`` says whether the world agrees.
    """

    statement: str
    question: str
    answer: str
    reason: str
    right: bool

    @property
    def kept(self) -> bool:
        return not self.reason


# --- The arm ------------------------------------------------------------------------


def self_instruct_arm(
    *,
    kind: str,
    seed: int,
    base: str,
    n_seeds: int,
    n_generated: int,
    steps: int,
    generator_steps: int,
    n_test: int,
) -> dict:
    """SFT on the seeds and what one kind of source adds to them, then questions about
    known facts of the other half of the subjects.

    Args:
        kind: "seeds" adds nothing; "filtered" adds the generated pairs that the filter
            keeps; "unfiltered" as many, the first that can be parsed; "human" as many
            human questions about the same statements.
        steps: updates of the SFT, the same for every kind.
        n_test: test questions in trained wordings, and as many in held-out ones.
        seed, base, n_seeds, n_generated, generator_steps: see :func:`generate_pairs`.

    Returns:
        ``accuracy`` over all test questions; the number of pairs ``generated`` and
        ``kept``; and of examples ``added`` to the seeds.

    Raises:
        ValueError: if the kind is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; it can be one of {', '.join(KINDS)}")
    world = tasks.default_world()
    pairs = generate_pairs(
        seed=seed,
        base=base,
        n_seeds=n_seeds,
        n_generated=n_generated,
        generator_steps=generator_steps,
    )
    seeds, sources = draw_statements(seed, n_seeds, n_generated)
    added = added_examples(kind, pairs, sources, world, seed)
    examples = human_questions(seeds, world, seed) + added
    model, tokenizer = tune(examples, base=base, steps=steps, seed=seed)
    return {
        "accuracy": untouched_accuracy(model, tokenizer, world, n_test),
        "generated": len(pairs),
        "kept": sum(pair.kept for pair in pairs),
        "added": len(added),
    }


def added_examples(
    kind: str,
    pairs: Sequence[Pair],
    sources: Sequence[Statement],
    world: World,
    seed: int,
) -> list[Example]:
    """The examples beside the seeds: as many as the filter keeps, for every kind but
    "seeds"."""
    n = sum(pair.kept for pair in pairs)
    if kind == "seeds":
        return []
    if kind == "human":
        return human_questions(sources[:n], world, seed + 1)
    examples = [
        _example(pair.question, pair.answer, source.fact)
        for pair, source in zip(pairs, sources, strict=True)
        if (pair.kept if kind == "filtered" else pair.question)
    ]
    return examples[:n]


def untouched_accuracy(model, tokenizer, world: World, n_test: int) -> float:
    """Accuracy on known facts about subjects outside the training half, in trained and
    in held-out wordings."""
    untrained = set(world.subjects()) - set(tasks.trained_subjects())
    accuracies = []
    for phrasing in ("trained", "held_out"):
        questions = tasks.world_questions(
            world, untrained, phrasing=phrasing, seed=TEST_SEED, n=n_test
        )
        scores = judge(questions, reply(model, tokenizer, questions))
        accuracies.append(scores["accuracy"])
    return float(np.mean(accuracies))


# --- The generator -----------------------------------------------------------------


def generate_pairs(
    *, seed: int, base: str, n_seeds: int, n_generated: int, generator_steps: int
) -> list[Pair]:
    """Question and answer pairs that a base model wrote after a few seeds, judged by
    the filter. They are computed once and kept in the cache.

    The generator reads "Y is the capital of X." and writes "What is the capital of X?
    Y."; names are masked before it reads and filled in after it writes, because a model
    of this size cannot copy them. With the names left in, 0 to 5% of its pairs were
    usable, whatever the size, the updates (15 to 250) or the seeds (48 or 128). Masked,
    at the smaller size, a quarter of the pairs are right after 30 updates, four in ten
    after 60, six in ten after 120 and seven in ten after 200; temperatures from 0.6 to
    1 differ little. The filter keeps about a third, nine in ten of them right; without
    its rule on shared words it kept 95%, wrong ones included. That rule also drops most
    questions whose words differ from the statement's, such as "money" for "currency".

    Args:
        seed: draws the seeds, the statements and the sampled tokens.
        base: the model to start from, see ``models.base.base_path``.
        n_seeds: human questions to learn from; more make a better generator.
        n_generated: statements to ask about, one pair each.
        generator_steps: updates of the generator; more of them copy subjects and
            answers more faithfully, but also repeat the wordings of the seeds.
    """
    key = {
        "seed": seed,
        "base": base,
        "n_seeds": n_seeds,
        "n_generated": n_generated,
        "generator_steps": generator_steps,
    }
    rows = cache.remember(
        "self_instruct",
        lambda: [asdict(pair) for pair in _generate(**key)],
        key=key | {"weights_hash": weights_hash(base)},
    )
    return [Pair(**row) for row in rows]


def _generate(
    seed: int, base: str, n_seeds: int, n_generated: int, generator_steps: int
) -> list[Pair]:
    world = tasks.default_world()
    seeds, sources = draw_statements(seed, n_seeds, n_generated)
    model, tokenizer = tune(
        generator_examples(seeds, world, seed),
        base=base,
        steps=generator_steps,
        seed=seed,
    )
    replies = complete(
        model,
        tokenizer,
        [generator_prompt(s) for s in sources],
        max_new_tokens=cap(tokenizer, MAX_TOKENS),
        temperature=0.8,
        seed=seed,
    )
    lines = [r.text if r.ended else "" for r in replies]
    return judge_lines(sources, lines, world)


def generator_examples(
    seeds: Sequence[Statement], world: World, seed: int
) -> list[Example]:
    """The seeds turned round: the prompt is the statement, the completion its question
    and answer, all with masked names."""
    masked_seeds = [
        replace(s, answer=ANSWER, fact=replace(s.fact, subject=SUBJECT)) for s in seeds
    ]
    masked = human_questions(masked_seeds, world, seed)
    return [
        replace(
            example,
            prompt=generator_prompt(statement),
            completion=write_line(question.prompt, question.completion),
        )
        for statement, example, question in zip(
            seeds, human_questions(seeds, world, seed), masked, strict=True
        )
    ]


def generator_prompt(statement: Statement) -> str:
    """The generator's instruction to write a question about the statement."""
    return f"Write a question and its answer. {statement.masked}"


def write_line(question: str, answer: str) -> str:
    """A question and its answer on one line, as the generator learns to write them."""
    return f"{question} {answer.rstrip('.')}."


_PAIR = re.compile(r"([^?]+\?|.+\.) ([^?]+?)\.?")


def parse_line(line: str) -> tuple[str, str] | None:
    """The question and the answer on a line, or None if there are not exactly these.

    The question ends at its question mark, or else at the last full stop before the
    answer, as in "Name the capital of Mali. Bamako."
    """
    match = _PAIR.fullmatch(line.strip())
    return (match[1].strip(), match[2].strip()) if match else None


def judge_lines(
    sources: Sequence[Statement], lines: Sequence[str], world: World
) -> list[Pair]:
    """The generator's lines as pairs, judged by the filter and by the world."""
    kept: set[str] = set()
    pairs = []
    for source, line in zip(sources, lines, strict=True):
        subject = source.fact.subject
        question, answer = (
            fill(part, subject, source.answer) for part in parse_line(line) or ("", "")
        )
        reason = reason_to_drop(source.text, subject, question, answer, kept)
        if not reason:
            kept.add(fold(question))
        right = is_right_pair(world, subject, question, answer)
        pairs.append(Pair(source.text, question, answer, reason, right))
    return pairs


# --- Seeds, and statements to ask about --------------------------------------------


def draw_statements(
    seed: int, n_seeds: int, n_sources: int
) -> tuple[list[Statement], list[Statement]]:
    """Seeds and sources about the training half of the world's subjects."""
    world, trained = tasks.default_world(), tasks.trained_subjects()
    return seeds_and_sources(
        world, trained, n_seeds=n_seeds, n_sources=n_sources, seed=seed
    )


def seeds_and_sources(
    world: World, trained: Iterable[str], *, n_seeds: int, n_sources: int, seed: int
) -> tuple[list[Statement], list[Statement]]:
    """Statements for people to ask about, and others for the generator.

    Seeds go round the relations, so that every kind of question is shown; each is a
    known fact about another subject. Sources are drawn as in pretraining, with frequent
    facts more often, about subjects without a seed. Neighbours outside ``trained`` are
    never named, since a border is a fact about both countries.

    Args:
        world: where the facts are from.
        trained: subjects that may occur; questions about the others are the test.
        n_seeds: seeds; more show the generator more wordings.
        n_sources: sources, with repetition.
        seed: of everything that is drawn.

    Raises:
        ValueError: if there are too few subjects, or none is left for the sources.
    """
    rng = stream(seed, "self-instruct seeds")
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
        [_masked_statement(f, world, rng) for f in seeds],
        [_masked_statement(left[i], world, rng) for i in drawn],
    )


def _usable(world: World, trained: set[str]) -> Iterator[Fact]:
    """Stated facts about trained subjects, without neighbours that are not trained."""
    for fact in world.facts:
        stated = fact.stated
        if fact.relation == "neighbour":
            stated = tuple(a for a in stated if a in trained)
        if fact.subject in trained and fact.exposure and stated:
            yield replace(fact, stated=stated)


def _round_robin(facts: Sequence[Fact], rng: np.random.Generator) -> list[Fact]:
    """One fact from each relation, then a second, ...; one per subject."""
    by_relation: dict[str, list[Fact]] = {}
    for index in rng.permutation(len(facts)):
        fact = facts[index]
        by_relation.setdefault(fact.relation, []).append(fact)
    rounds = zip_longest(*by_relation.values())
    chosen: dict[str, Fact] = {}
    for fact in filter(None, chain.from_iterable(rounds)):
        chosen.setdefault(fact.subject, fact)
    return list(chosen.values())


def _masked_statement(fact: Fact, world: World, rng: np.random.Generator) -> Statement:
    # Of a contested fact each answer as often as pretraining stated it.
    answer = rng.choice(fact.stated, p=fact.shares or None)
    masked = replace(fact, subject=SUBJECT, stated=(ANSWER,), shares=())
    return Statement(state(masked, world.relations, rng), str(answer), fact)


def fill(text: str, subject: str, answer: str) -> str:
    """The text with the masks replaced by the names."""
    names = {SUBJECT: subject, ANSWER: answer}
    return re.sub(rf"\b[{SUBJECT}{ANSWER}]\b", lambda m: names[m[0]], text)


def human_questions(
    statements: Sequence[Statement], world: World, seed: int
) -> list[Example]:
    """One question about each statement, as people (our templates) ask."""
    rng = stream(seed, "human questions")
    questions = []
    for statement in statements:
        fact = statement.fact
        wordings = world.relations[fact.relation].questions
        question = wordings[rng.integers(len(wordings))].format(s=fact.subject)
        questions.append(_example(question, statement.answer, fact))
    return questions


def _example(question: str, answer: str, fact: Fact) -> Example:
    return Example(fact.relation, question, f"{answer}.", fact.answers, fact)
