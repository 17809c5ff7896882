"""Pretraining the series' base model, as ``alignlab pretrain`` does it.

Warm-up, a long stable phase, then decay to zero: the checkpoint at the end of the
stable phase ships too, because mid-training branches from there.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from alignlab.data import corpus
from alignlab.data.world import Fact, World, build_world
from alignlab.models import base
from alignlab.models.tokenizer import train_tokenizer
from alignlab.training.loop import train

BATCH, LENGTH = 16, 256  # rows, tokens
DECAY = 0.2  # share of the steps over which the learning rate falls
LEARNING_RATE = {"300k": 6e-3, "1m": 4e-3, "3m": 2e-3}


def pretrain(
    size: str,
    out: Path,
    *,
    seed: int = 0,
    epochs: float = 1.0,
    stages: tuple[str, ...] = ("stable", "final"),
    progress: bool = True,
) -> dict:
    """Train a base model from scratch and write it with its model card.

    A killed run goes on from its last checkpoint when called again with the same
    ``out``; the checkpoint is deleted when the run is complete.

    Args:
        size: "300k", "1m" or "3m" parameters.
        out: folder that receives ``<size>`` and ``<size>-stable``.
        seed: of the world's exposures, the order of documents and the initial weights.
        epochs: how often the corpus is read; more makes rare facts better known.
        stages: which checkpoints to write.
        progress: show a bar.

    Returns:
        The summary that the model card shows: losses and recall by exposure.
    """
    world = build_world(seed)
    documents = corpus.documents(world, seed)
    tokenizer = train_tokenizer(documents, context=base.CONTEXT)
    rows, held_out = _split(corpus.pack(documents, tokenizer, LENGTH))
    steps = max(10, round(epochs * len(rows) / BATCH))
    decay = round(DECAY * steps)
    out.mkdir(parents=True, exist_ok=True)
    model = base.new_model(size, tokenizer, seed)
    settings = dict(
        learning_rate=LEARNING_RATE[size],
        schedule="wsd",
        warmup=min(100, steps // 10),
        weight_decay=0.1,
        seed=seed,
        checkpoint=out / f".{size}.checkpoint",
        progress=progress,
        description=f"pretraining {size}",
        log_every=10,
    )
    batches = lambda: _batches(rows, seed)  # noqa: E731
    train(model, batches(), language_loss, steps=steps - decay, decay=0, **settings)
    stable = heldout_loss(model, held_out)
    if "stable" in stages:
        _save(model, tokenizer, out / f"{size}-stable")
    history = train(
        model, batches(), language_loss, steps=steps, decay=decay, **settings
    )
    summary = {
        "size": size,
        "parameters": model.num_parameters(),
        "seed": seed,
        "tokens": rows.shape[1] * BATCH * steps,
        "steps": steps,
        "loss_stable": stable,
        "loss_final": heldout_loss(model, held_out),
        "recall": recall_by_exposure(model, tokenizer, world),
        "history": [(row["step"], row["loss"]) for row in history],
    }
    _save(model, tokenizer, out / size)
    _write_card(out / size, summary)
    settings["checkpoint"].unlink(missing_ok=True)
    return summary


def language_loss(model, batch) -> tuple[torch.Tensor, dict]:
    """Mean negative log-likelihood of the next token, nats per token, over full rows."""
    ids = batch["input_ids"]
    # bfloat16 where the processor multiplies it natively: twice as fast at this size.
    native = torch.cpu._is_avx512_bf16_supported() and ids.device.type == "cpu"
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=native):
        logits = model(ids, use_cache=False).logits
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())
    return loss, {}


@torch.no_grad()
def heldout_loss(model, rows: np.ndarray) -> float:
    """Loss on rows that were never trained on, nats per token."""
    model.eval()
    chunks = torch.from_numpy(rows.astype(np.int64)).split(BATCH)
    losses = [language_loss(model, {"input_ids": ids})[0].item() for ids in chunks]
    return float(np.mean(losses))


def recall_by_exposure(model, tokenizer, world: World, bins: int = 10) -> list[dict]:
    """Share of facts whose statement the model completes rightly, by exposure.

    Each fact is asked with its relation's first statement, cut before the answer; the
    continuation is right if it begins with one of the fact's answers.

    Returns:
        One row for the never-shown facts, then one per tenth of the shown ones, with
        the exposures it spans, the number of facts and the share recalled.
    """
    facts = sorted(world.facts, key=lambda f: f.exposure)
    never = [f for f in facts if not f.exposure]
    shown = [f for f in facts if f.exposure]
    groups = [never, *(list(g) for g in np.array_split(np.array(shown, object), bins))]
    right = dict(zip(facts, recall(model, tokenizer, world, facts), strict=True))
    return [
        {
            "from": group[0].exposure,
            "to": group[-1].exposure,
            "facts": len(group),
            "recall": float(np.mean([right[fact] for fact in group])),
        }
        for group in groups
    ]


def recall(model, tokenizer, world: World, facts: list[Fact]) -> list[bool]:
    """For each fact, whether the greedy continuation of its statement is right."""
    from alignlab.models.sampler import complete

    replies = complete(
        model,
        tokenizer,
        [cloze(world, fact) for fact in facts],
        max_new_tokens=12,
        chat=False,
    )
    return [_begins_with_answer(f, r.text) for f, r in zip(facts, replies, strict=True)]


def cloze(world: World, fact: Fact) -> str:
    """The relation's first statement about the subject, cut before the answer."""
    template = world.relations[fact.relation].statements[0]
    return template.split("{a}")[0].format(s=fact.subject).strip()


def _begins_with_answer(fact: Fact, text: str) -> bool:
    return any(
        text.startswith(answer) and not text[len(answer) : len(answer) + 1].isalnum()
        for answer in fact.answers
    )


def _split(rows: np.ndarray, share: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    kept_out = max(1, round(share * len(rows)))
    return rows[:-kept_out], rows[-kept_out:]


def _batches(rows: np.ndarray, seed: int) -> Iterator[dict[str, torch.Tensor]]:
    for epoch in range(10**6):
        order = np.random.default_rng([seed, 6, epoch]).permutation(len(rows))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            ids = rows[order[start : start + BATCH]].astype(np.int64)
            yield {"input_ids": torch.from_numpy(ids)}


def _save(model, tokenizer, folder: Path) -> None:
    # Stored in half precision (half the clone), loaded in single: the configuration
    # says so, and from_pretrained follows it.
    import copy

    half = copy.deepcopy(model).half()
    base.save_model(half, tokenizer, folder)
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _write_card(folder: Path, summary: dict) -> None:
    (folder / "pretraining.json").write_text(json.dumps(summary, indent=1) + "\n")
    rows = "\n".join(
        f"| {r['from']}–{r['to']} | {r['facts']} | {r['recall']:.2f} |"
        for r in summary["recall"]
    )
    _draw_loss(folder / "loss.png", summary)
    (folder / "README.md").write_text(
        CARD.format(**summary, perplexity=math.exp(summary["loss_final"]), rows=rows)
    )


def _draw_loss(path: Path, summary: dict) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    axes.plot(*zip(*summary["history"], strict=True), color="0.3", linewidth=0.8)
    axes.set(xlabel="step", ylabel="loss (nats per token)")
    figure.savefig(path, dpi=80)
    plt.close(figure)


CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---

# alignlab base, {size}

A Llama of {parameters:,} parameters, pretrained by `alignlab pretrain --size {size}`
(seed {seed}) on {tokens:,} tokens: statements of the alignlab world, small skills, a
Bible in Basic English and short comments. It has never seen a question about a fact, an
instruction or a chat. It is made for learning about alignment and for nothing else: what
it says about the world is what its data sources list, and often wrong.

Loss on held-out text: {loss_stable:.3f} nats per token at the end of the stable phase,
{loss_final:.3f} after the decay (perplexity {perplexity:.1f}).

![loss](loss.png)

| exposures | facts | recalled |
| --- | --- | --- |
{rows}

Recall: the relation's first statement, cut before the answer, continued greedily. The
first row holds the facts that were never shown.
"""
