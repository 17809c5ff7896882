"""Narrow against diverse data of equal size: questions answered in whole sentences.

Narrow: one kind of subject, one wording of each question, one form of each reply.
Diverse: all of them.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

import numpy as np

from alignlab.models.sampler import complete
from alignlab.seeds import stream
from alignlab.study.scale import cap
from alignlab.study.tuning import TEST_SEED, tune
from alignlab.world import tasks
from alignlab.world.facts import Fact, normalise, split_subjects, state
from alignlab.world.tasks import Example

LONGEST_REPLY = 24  # tokens; a statement with a long name in it
KIND = "country"  # the narrow data's kind of subject
FEWEST = 8  # replies about a relation, to count its forms
SAMPLES = 4  # replies to each question at temperature 1
SHOWN = 6


def narrow_arm(
    *, seed: int, base: str, data: str, n: int, steps: int, n_test: int
) -> dict:
    """SFT on n questions, narrow or diverse, then questions about other subjects.

    Args:
        seed: draws the facts, their wordings and forms, and the order of training.
        base: the model to start from, see ``models.base.base_path``.
        data: "narrow" or "diverse".
        n: examples, each about another fact.
        steps: updates, the same for both.
        n_test: questions of each set, at most.

    Returns:
        ``right``: for each set of :func:`test_questions` whether each reply contains a
        right answer, 0 or 1; ``styles``: forms of reply in use at temperature 1
        (:func:`forms_in_use`) to questions about other kinds of subjects; ``replies``:
        some greedy ones about these, word for word.
    """
    model, tokenizer = tune(
        training_sentences(data, n, seed),
        base=base,
        steps=steps,
        seed=seed,
        teaches="facts",
    )
    sets = test_questions(n_test)
    questions = [question for group in sets.values() for question in group]
    prompts = [question.prompt for question in questions]
    longest = cap(tokenizer, LONGEST_REPLY)
    texts = iter([c.text for c in complete(model, tokenizer, prompts, longest)])
    replies = {name: [(e, next(texts)) for e in group] for name, group in sets.items()}
    sampled = complete(
        model,
        tokenizer,
        [e.prompt for e in sets["other"]] * SAMPLES,
        longest,
        temperature=1.0,
        seed=seed,
    )
    facts = [e.fact for e in sets["other"]]
    return {
        "right": {
            name: [int(says(e, text)) for e, text in pairs]
            for name, pairs in replies.items()
        },
        "styles": forms_in_use(facts * SAMPLES, [c.text for c in sampled]),
        "replies": [[e.prompt, text] for e, text in replies["other"]][:SHOWN],
    }


# --- Training and test questions ------------------------------------------------------


def training_sentences(data: str, n: int, seed: int) -> list[Example]:
    """n questions about known facts of the training half of the subjects, answered in
    whole sentences; of somebody else's model, which may know fewer, as many of either
    kind as there are of the rarer.

    Raises:
        ValueError: if ``data`` is neither "narrow" nor "diverse", or there are fewer
            facts.
    """
    world, rng = tasks.default_world(), stream(seed, "narrow data")
    facts = known_facts(data, 0)
    if any(fact.knowledge for fact in world.facts):
        n = min(n, *(len(known_facts(kind, 0)) for kind in ("narrow", "diverse")))
    if len(facts) < n:
        raise ValueError(f"n is {n}, and there are {len(facts)} facts for {data} data")
    examples = []
    for fact in (facts[i] for i in rng.permutation(len(facts))[:n]):
        relation = world.relations[fact.relation]
        wordings, answer = relation.questions, fact.stated[0]
        reply = relation.statements[0].format(s=fact.subject, a=answer)
        if data == "diverse":
            reply = state(fact, world.relations, rng)
        wording = wordings[0 if data == "narrow" else rng.integers(len(wordings))]
        prompt = wording.format(s=fact.subject)
        examples.append(Example(fact.relation, prompt, reply, fact.answers, fact))
    return examples


def test_questions(n: int) -> dict[str, list[Example]]:
    """At most n questions each about known facts of the test half: ``own``, about the
    narrow data's kind of subject as these ask; ``kind``, about that kind in wordings
    that neither data have; ``other``, about other kinds of subjects in such wordings.
    """
    inside = known_facts("narrow", 1)
    outside = [fact for fact in known_facts("diverse", 1) if fact not in set(inside)]
    return {
        "own": _ask("own", inside, n),
        "kind": _ask("kind", inside, n),
        "other": _ask("other", outside, n),
    }


def _ask(name: str, facts: Sequence[Fact], n: int) -> list[Example]:
    world, rng = tasks.default_world(), stream(TEST_SEED, f"narrow data test, {name}")
    questions = []
    for fact in (facts[i] for i in rng.permutation(len(facts))[:n]):
        relation = world.relations[fact.relation]
        wordings = relation.held_out_questions
        if name == "own":
            wordings = relation.questions[:1]
        prompt = wordings[rng.integers(len(wordings))].format(s=fact.subject)
        questions.append(Example(fact.relation, prompt, "", fact.answers, fact))
    return questions


def known_facts(data: str, half: int) -> list[Fact]:
    """Known facts about one half of the subjects, of the kind that the data have."""
    if data not in ("narrow", "diverse"):
        raise ValueError(f'data is {data!r}; it can be "narrow" or "diverse"')
    world = tasks.default_world()
    subjects = split_subjects(world, 0)[half]
    return [
        fact
        for fact in world.facts
        if fact.known
        and fact.subject in subjects
        and (data == "diverse" or world.kind_of(fact) == KIND)
    ]


# --- Reading the replies --------------------------------------------------------------


def says(example: Example, text: str) -> bool:
    """Whether the reply contains one of the right answers, as whole words."""
    return any(
        re.search(rf"(?<!\w){re.escape(normalise(a))}(?!\w)", text.lower())
        for a in example.answers
    )


def form_of(fact: Fact, text: str) -> str:
    """The template of the world's statements that a reply about the fact's subject
    follows, whatever its answer; "" if it follows none."""
    for template, before, after in _templates(fact.subject):
        if len(text) > len(before) + len(after):
            if text.startswith(before) and text.endswith(after):
                return template
    return ""


@cache
def _templates(subject: str) -> list[tuple[str, str, str]]:
    """Every statement's template, and its text before and after the answer. The longest
    come first, since shorter ones also fit their sentences."""
    relations = tasks.default_world().relations.values()
    templates = dict.fromkeys(s for r in relations for s in r.statements)
    parts = [(t, *t.replace("{s}", subject).split("{a}")) for t in templates]
    return sorted(parts, key=lambda part: -len(part[1] + part[2]))


def forms_in_use(facts: Sequence[Fact], texts: Sequence[str]) -> float:
    r"""How many forms the replies about a relation have, mean over relations.

    The effective number :math:`\exp(-\sum_f p_f \log p_f)` of forms with frequencies
    :math:`p_f`: 1 if all replies have the same form, k if k forms are equally frequent.
    Replies that follow no statement count as one form.
    """
    by_relation: dict[str, Counter] = {}
    for fact, text in zip(facts, texts, strict=True):
        by_relation.setdefault(fact.relation, Counter())[form_of(fact, text)] += 1
    numbers = []
    for forms in by_relation.values():
        if forms.total() >= FEWEST:
            share = np.array(list(forms.values())) / forms.total()
            numbers.append(float(np.exp(-(share * np.log(share)).sum())))
    return float(np.mean(numbers)) if numbers else 1.0
