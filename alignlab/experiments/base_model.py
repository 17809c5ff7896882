"""The measurements of notebook 00: what the base model knows and how it fails."""

import json
import math
import textwrap
from itertools import islice

import numpy as np
import torch

from alignlab.data import corpus, skills, sources
from alignlab.data.world import build_world, paragraphs
from alignlab.evaluation import answers
from alignlab.experiments import instruction_tuning as sweeps
from alignlab.experiments.tuning import sft_policy
from alignlab.models.base import base_path
from alignlab.objectives import sft_loss


def sample_documents(world, seed: int, n: int = 3) -> list[dict]:
    """n documents of each kind that pretraining reads, cut to their first words."""
    rng = np.random.default_rng(seed)
    kinds = {
        "world": islice(paragraphs(world, seed), n),
        "skills": skills.statements(n, seed),
        "prose": rng.choice(corpus.prose(seed), n, replace=False),
    }
    return [
        {"kind": kind, "document": textwrap.shorten(str(text), 160)}
        for kind, texts in kinds.items()
        for text in texts
    ]


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
        "bible": sources.load("bible_bbe")["text"],
        "film_comments": sources.load("movie_ratings")["text"],
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
    untuned = sweeps.untuned(
        seeds=seeds,
        size=size,
        shots=settings.shots,
        n_test=settings.n_test,
        jobs=settings.jobs,
    )
    common = dict(
        size=size,
        n_examples=settings.n_examples,
        steps=settings.steps,
        n_test=settings.n_test,
    )
    arms = [dict(seed=seed, **common) for seed in seeds]
    after = sweeps.run_arms(
        sweeps.instruction_arm, arms, jobs=settings.jobs, label="tuned"
    )
    ways = {
        "bare": [row for row in untuned if not row["shots"]],
        "few-shot": [row for row in untuned if row["shots"]],
        "tuned": after,
    }
    return {
        way: {
            "accuracy": [np.mean(list(row["by_family"].values())) for row in rows],
            "format": [row["format"] for row in rows],
        }
        for way, rows in ways.items()
    }
