"""The numbers of notebook 00: perplexity, recall of facts, three ways to ask."""

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from alignlab.data import sources
from alignlab.evaluation.answers import best_guess_rate
from alignlab.models.base import base_path
from alignlab.objectives import sft_loss
from alignlab.seeds import stream
from alignlab.world.facts import build_world, paragraphs


def perplexity_by_text(model, tokenizer, n_texts: int, seed: int = 0) -> list[dict]:
    """Perplexity in tokens on texts of each kind, as they are and ``shuffled``: with
    their words in random order.

    Args:
        n_texts: texts of each kind.
        seed: draws the texts and the shuffles.
    """
    rng = stream(seed, "perplexity texts")
    kinds = {
        "world": list(paragraphs(build_world(0), seed=1)),  # not the wordings it read
        "bible": sources.load("bible_bbe")["text"][:],
        "film_comments": sources.load("movie_ratings")["text"][:],
    }
    rows = []
    for kind, texts in kinds.items():
        chosen = [texts[i] for i in rng.permutation(len(texts))[:n_texts]]
        shuffled = [" ".join(rng.permutation(text.split())) for text in chosen]
        rows.append(
            {
                "text": kind,
                "perplexity": perplexity(model, tokenizer, chosen),
                "shuffled": perplexity(model, tokenizer, shuffled),
            }
        )
    return rows


@torch.no_grad()
def perplexity(model, tokenizer, texts: Sequence[str]) -> float:
    """exp of the mean negative log-likelihood per token, each text on its own."""
    model.eval()
    batch = tokenizer(
        list(texts), return_tensors="pt", padding=True, padding_side="right"
    )
    batch = batch.to(model.device)
    logits = model(input_ids=batch.input_ids).logits
    return math.exp(sft_loss(logits, batch.input_ids, batch.attention_mask).item())


def recorded_recall(size: str) -> list[dict]:
    """Share of facts that the base model completes rightly, by exposure, as measured at
    the end of its pretraining."""
    return json.loads((base_path(size) / "pretraining.json").read_text())["recall"]


def never_shown_chance() -> float:
    """Accuracy of the best guess about the facts that pretraining never showed."""
    world = build_world(0)
    return best_guess_rate(world, [fact for fact in world.facts if not fact.exposure])


def replies_by_way(
    rows: Mapping[str, Sequence[dict]],
) -> dict[str, dict[str, list[float]]]:
    """``accuracy`` (mean over families) and ``format`` for each way to ask, one value
    per seed."""
    return {
        way: {
            "accuracy": [np.mean(list(row["by_family"].values())) for row in arms],
            "format": [row["format"] for row in arms],
        }
        for way, arms in rows.items()
    }
