"""The measurements of notebook 00: what the base model knows and how it fails."""

import json
import math
import textwrap
from dataclasses import replace
from itertools import islice

import numpy as np
import torch

from alignlab.chapters.instruction_tuning import runs as sweeps
from alignlab.data import sources
from alignlab.evaluation import answers
from alignlab.models.base import base_path
from alignlab.objectives import sft_loss
from alignlab.study.arms import run_each
from alignlab.study.tuning import sft_policy
from alignlab.world import corpus, skills
from alignlab.world.facts import World, build_world, paragraphs


def sample_documents(world, seed: int, n: int = 3) -> list[dict]:
    """n documents of each kind that pretraining reads, cut to their first words; those
    of the world are about a few of its subjects, the rest need not be written."""
    rng = np.random.default_rng(seed)
    kinds = {
        "world": islice(paragraphs(about_some(world, 10 * n, rng), seed), n),
        "skills": skills.statements(n, seed),
        "prose": rng.choice(corpus.prose(seed), n, replace=False),
    }
    return [
        {"kind": kind, "document": textwrap.shorten(str(text), 160)}
        for kind, texts in kinds.items()
        for text in texts
    ]


def about_some(world: World, n: int, rng) -> World:
    """The world reduced to n of its subjects."""
    subjects = set(rng.choice(world.subjects(), n, replace=False))
    return replace(world, facts=tuple(f for f in world.facts if f.subject in subjects))


def perplexities(model, tokenizer, n_texts: int, seed: int = 0) -> list[dict]:
    """Perplexity of texts of each kind, and with each text's words shuffled.

    Args:
        n_texts: texts of each kind.
        seed: draws the texts and the shuffles.
    """
    rng = np.random.default_rng(seed)
    world = build_world(0)
    kinds = {
        "world": list(paragraphs(world, seed=1)),  # other wordings than were read
        "bible": sources.load("bible_bbe")["text"][:],
        "film_comments": sources.load("movie_ratings")["text"][:],
    }
    rows = []
    for name, texts in kinds.items():
        chosen = [texts[i] for i in rng.permutation(len(texts))[:n_texts]]
        shuffled = [" ".join(rng.permutation(text.split())) for text in chosen]
        rows.append(
            {
                "text": name,
                "perplexity": perplexity(model, tokenizer, chosen),
                "shuffled": perplexity(model, tokenizer, shuffled),
            }
        )
    return rows


@torch.no_grad()
def perplexity(model, tokenizer, texts: list[str]) -> float:
    """exp of the mean negative log-likelihood per token, each text on its own."""
    model.eval()
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
    batch = batch.to(model.device)
    logits = model(input_ids=batch.input_ids).logits
    return math.exp(sft_loss(logits, batch.input_ids, batch.attention_mask).item())


def knowledge(size: str) -> dict:
    """Recall by exposure, as measured when the base model was made, and ``chance``: the
    best guess about the never-shown facts, weighted as the facts are."""
    world = build_world(0)
    recorded = json.loads((base_path(size) / "pretraining.json").read_text())
    never = [fact for fact in world.facts if not fact.exposure]
    best = {r: answers.guess_baselines(world, r)["best"] for r in world.relations}
    chance = float(np.mean([best[fact.relation] for fact in never]))
    return {"recall": recorded["recall"], "chance": chance}


def tuned(seed: int, size: str, settings):
    """The instruction-tuned policy of this seed: ``(model, tokenizer)``."""
    return sft_policy(
        seed,
        size=size,
        n_examples=settings.n_examples,
        steps=settings.steps,
        progress=True,
    )


def three_ways(seeds, size: str, settings) -> dict:
    """Accuracy and format, one value per seed, for each way to ask."""
    asked = dict(size=size, n_test=settings.n_test)
    recipe = dict(n_examples=settings.n_examples, steps=settings.steps, **asked)
    calls = [(sweeps.instruction_arm, dict(seed=s, **recipe)) for s in seeds]
    shots = dict(shots=settings.shots, **asked)
    calls += [(sweeps.untuned_arm, dict(seed=s, **shots)) for s in seeds]
    # Nothing is drawn for the bare questions: one run stands for every seed.
    calls.append((sweeps.untuned_arm, dict(seed=seeds[0], shots=0, **asked)))
    *rows, bare = run_each(calls, jobs=settings.jobs, label="three ways to ask")
    n = len(seeds)
    ways = {"bare": [bare] * n, "few-shot": rows[n:], "tuned": rows[:n]}
    return {
        way: {
            "accuracy": [np.mean(list(row["by_family"].values())) for row in rows],
            "format": [row["format"] for row in rows],
        }
        for way, rows in ways.items()
    }
