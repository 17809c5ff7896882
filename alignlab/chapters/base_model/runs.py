"""What notebook 00 trains and shows: sample documents, and three ways to ask.

The measurements of the base model itself are in ``analysis``.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from alignlab.chapters.instruction_tuning.artifacts import instruction_arm, untuned_arm
from alignlab.seeds import stream
from alignlab.study.arms import run_each
from alignlab.study.tuning import sft_policy
from alignlab.world import corpus, skills
from alignlab.world.facts import World, paragraphs


def sample_documents(world: World, seed: int, n: int = 3) -> list[dict]:
    """n documents of each ``kind`` in the pretraining corpus, shortened to a line."""
    rng = stream(seed, "sampled documents")
    # A few subjects are enough: paragraphs about all of them would take seconds.
    part = draw_subjects(world, 10 * n, rng)
    kinds = {
        "world": islice(paragraphs(part, seed), n),
        "skills": skills.statements(n, seed),
        "prose": rng.choice(corpus.prose(seed), n, replace=False),
    }
    return [
        {"kind": kind, "document": textwrap.shorten(str(text), 160)}
        for kind, texts in kinds.items()
        for text in texts
    ]


def draw_subjects(world: World, n: int, rng: np.random.Generator) -> World:
    """The world reduced to n of its subjects."""
    subjects = set(rng.choice(world.subjects(), n, replace=False))
    return replace(world, facts=tuple(f for f in world.facts if f.subject in subjects))


def tuned_policy(seed: int, size: str, settings):
    """The instruction-tuned policy of this seed: ``(model, tokenizer)``."""
    return sft_policy(
        seed,
        size=size,
        n_examples=settings.n_examples,
        steps=settings.steps,
        progress=True,
    )


def ask_three_ways(seeds: Sequence[int], size: str, settings) -> dict[str, list[dict]]:
    """Rows of "bare", "few-shot" and "tuned" arms, one per seed each: the base model
    with the bare question, with worked examples, and after instruction tuning.

    Args:
        settings: the profile's ``n_examples``, ``steps``, ``shots``, ``n_test`` and
            ``jobs``.
    """
    common = dict(size=size, n_test=settings.n_test)
    recipe = dict(n_examples=settings.n_examples, steps=settings.steps, **common)
    calls = [(instruction_arm, dict(seed=seed, **recipe)) for seed in seeds]
    calls += [
        (untuned_arm, dict(seed=seed, shots=settings.shots, **common)) for seed in seeds
    ]
    # Nothing is drawn for the bare questions: one run stands for every seed.
    calls.append((untuned_arm, dict(seed=seeds[0], shots=0, **common)))
    *rows, bare = run_each(calls, jobs=settings.jobs, label="three ways to ask")
    n = len(seeds)
    return {"bare": [bare] * n, "few-shot": rows[n:], "tuned": rows[:n]}
