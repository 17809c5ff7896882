"""Narrow against diverse data of equal size: the last arms of notebook 02.

Questions about the world's facts, answered in a whole sentence. Narrow: one kind of
subject, one wording of each question, one form of each reply. Diverse: all of them.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

import numpy as np

from alignlab.chapters.instruction_tuning.runs import TEST_SEED
from alignlab.models.sampler import complete
from alignlab.study.arms import run_arms
from alignlab.study.tuning import FACTS_RATE, tune
from alignlab.world import tasks
from alignlab.world.facts import Fact, normalise, split_subjects, state
from alignlab.world.tasks import Example

LONGEST_REPLY = 24  # tokens; a statement with a long name in it
KIND = "country"  # of subject that the narrow data are about
FEWEST = 8  # replies about a relation that its forms are counted from
SHOWN = 6


def narrow_arm(
    *, seed: int, size: str, data: str, n: int, steps: int, n_test: int
) -> dict:
    """SFT on n questions, narrow or diverse, then questions about other subjects.

    Args:
        seed: draws the facts, their wordings and forms, and the order.
        size: of the base model.
        data: "narrow" or "diverse".
        n: examples, each about another fact.
        steps: updates, the same for both.
        n_test: questions of each kind.

    Returns:
        ``accuracy``: share of replies that say the right answer, to questions about
        all kinds of subjects in wordings that neither has seen; of these
        ``kind_accuracy`` on the narrow data's kind of subject and ``other_accuracy`` on
        other kinds; ``own_accuracy``: to what the narrow data are like; ``styles``:
        forms of reply in use at temperature 1 (:func:`forms_in_use`); ``replies``: some
        greedy ones, word for word.
    """
    model, tokenizer = tune(
        sentences(data, n, seed), size=size, steps=steps, seed=seed, rates=FACTS_RATE
    )
    other, own = questions("diverse", n_test), questions("narrow", n_test)
    prompts = [e.prompt for e in other + own]
    said = [r.text for r in complete(model, tokenizer, prompts, LONGEST_REPLY)]
    right = np.array([says(e, text) for e, text in zip(other + own, said, strict=True)])
    sampled = complete(
        model,
        tokenizer,
        prompts[:n_test] * 4,
        LONGEST_REPLY,
        temperature=1.0,
        seed=seed,
    )
    facts = [e.fact for e in other]
    world = tasks.default_world()
    inside = np.array([world.kind_of(fact) == KIND for fact in facts])
    return {
        "accuracy": mean(right[:n_test]),
        "kind_accuracy": mean(right[:n_test][inside]),
        "other_accuracy": mean(right[:n_test][~inside]),
        "own_accuracy": mean(right[n_test:]),
        "styles": forms_in_use(facts * 4, [r.text for r in sampled]),
        "replies": [[e.prompt, text] for e, text in zip(other, said)][:SHOWN],
    }


def mean(right: np.ndarray) -> float:
    """Share of the replies that are right; 0 of none."""
    return float(right.mean()) if len(right) else 0.0


def sentences(data: str, n: int, seed: int) -> list[Example]:
    """n questions about known facts of one half of the subjects, with a whole sentence
    for a reply.

    Raises:
        ValueError: if ``data`` is neither "narrow" nor "diverse", or there are not as
            many facts.
    """
    world, rng = tasks.default_world(), np.random.default_rng([seed, 23])
    facts = known_facts(data, 0)
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


def questions(data: str, n: int) -> list[Example]:
    """n questions about known facts of the other half: all kinds in wordings that are
    never trained, or as the narrow data have them."""
    world, facts = tasks.default_world(), known_facts(data, 1)
    rng = np.random.default_rng(TEST_SEED)
    asked = []
    for fact in (facts[i] for i in rng.permutation(len(facts))[:n]):
        relation = world.relations[fact.relation]
        wording = relation.questions[0]
        if data == "diverse":
            unseen = relation.held_out_questions
            wording = unseen[rng.integers(len(unseen))]
        prompt = wording.format(s=fact.subject)
        asked.append(Example(fact.relation, prompt, "", fact.answers, fact))
    return asked


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
    """Whether one of the right answers is in the reply, as whole words."""
    return any(
        re.search(rf"(?<!\w){re.escape(normalise(a))}(?!\w)", text.lower())
        for a in example.answers
    )


def form_of(fact: Fact, text: str) -> str:
    """Which of the world's statements a reply about a fact's subject is made like, as
    its template; "" if like none. What it gives for an answer does not matter."""
    for template, before, after in _templates(fact.subject):
        if len(text) > len(before) + len(after):
            if text.startswith(before) and text.endswith(after):
                return template
    return ""


@cache
def _templates(subject: str) -> list[tuple[str, str, str]]:
    """Every statement's template, with what stands before and after the answer. Those
    with the most words of their own come first, as others fit the same sentences."""
    relations = tasks.default_world().relations.values()
    every = dict.fromkeys(s for r in relations for s in r.statements)
    split = [(t, *t.replace("{s}", subject).split("{a}")) for t in every]
    return sorted(split, key=lambda parts: -len(parts[1] + parts[2]))


def forms_in_use(facts: Sequence[Fact], texts: Sequence[str]) -> float:
    r"""How many forms the replies about a relation have, mean over relations.

    The effective number :math:`\exp(-\sum_f p_f \log p_f)` over forms of frequencies
    :math:`p_f`: 1 if all replies have one form, k if k forms are equally frequent. All
    replies that are like no statement count as one form.
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


def narrow_sweep(*, seeds, jobs=2, **common) -> list[dict]:
    """Both kinds of data for every seed."""
    arms = [
        dict(seed=s, data=data, **common)
        for data in ("diverse", "narrow")
        for s in seeds
    ]
    return run_arms(narrow_arm, arms, jobs=jobs, label="narrow and diverse data")
