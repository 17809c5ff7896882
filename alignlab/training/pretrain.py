"""Pretraining the base model, as ``alignlab pretrain`` does it.

Warm-up, a long stable phase, then decay to zero. The model at the end of the stable
phase ships too, because mid-training branches from there.
"""

import contextlib
import copy
import hashlib
import json
import math
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.nn import functional as F

from alignlab.errors import AlignlabError, explained_if_full
from alignlab.files import write_text
from alignlab.models import base
from alignlab.models.options import option_log_probs, pack_options
from alignlab.models.tokenizer import train_tokenizer
from alignlab.seeds import stream
from alignlab.training.loop import train
from alignlab.world import corpus
from alignlab.world.facts import TAIL, Fact, World, build_world

Precision = Literal["float32", "bfloat16"]
BATCH, LENGTH = 16, 256  # rows, tokens
DECAY = 0.2  # share of the steps over which the learning rate falls
LEARNING_RATE = {"300k": 6e-3, "1m": 4e-3, "3m": 2e-3}


def pretrain(
    size: str,
    out: Path,
    *,
    seed: int = 0,
    epochs: float = 1.0,
    precision: Precision = "float32",
    measure: Callable[..., dict] | None = None,
    progress: bool = True,
) -> dict:
    """Train a base model from scratch and write it with its model card.

    A killed run continues from its last checkpoint when called again with the same
    ``out``; the checkpoints are deleted when the run is complete.

    Args:
        size: "300k", "1m" or "3m" parameters.
        out: folder that receives ``<size>`` and ``<size>-stable``, both with
            ``-seed<seed>`` behind if the seed is not 0.
        seed: of wordings, texts, the order of documents and the initial weights. The
            world, so how often each fact is stated, and the tokenizer are those of seed
            0: models of several seeds are replications.
        epochs: passes over the corpus; more makes rare facts better known.
        precision: of matrix products. "bfloat16" rounds more; 1m parameters take two
            thirds of the time on a CPU with bfloat16 instructions, and seven times as
            long on one without. The models that ship were trained in bfloat16.
        measure: ``measure(model, tokenizer, world, size)`` gives further numbers for
            the model card.
        progress: show a bar.

    Returns:
        The summary that the model card shows: losses, recall by exposure, and what
        ``measure`` gave.

    Raises:
        AlignlabError: if a checkpoint in ``out`` belongs to another run or is damaged,
            or ``out`` cannot be written or its disk is full.
        ValueError: if precision is unknown.
    """
    if precision not in Precision.__args__:
        raise ValueError(
            f"precision is {precision!r}; it can be one of {Precision.__args__}"
        )
    with explained_if_full(out, "Free some space and start it again: it continues."):
        return _pretrain(size, out, seed, epochs, precision, measure, progress)


def _pretrain(
    size: str,
    out: Path,
    seed: int,
    epochs: float,
    precision: Precision,
    measure: Callable[..., dict] | None,
    progress: bool,
) -> dict:
    world = build_world(0)
    documents = corpus.documents(world, seed)
    texts = documents if seed == 0 else corpus.documents(world, 0)
    tokenizer = train_tokenizer(texts, context=base.CONTEXT)
    rows, held_out = _split(corpus.pack(documents, tokenizer, LENGTH))
    steps = max(10, round(epochs * len(rows) / BATCH))
    decay = round(DECAY * steps)
    name = base.model_name(size, seed=seed)
    checkpoint = out / f".{name}.checkpoint"
    decay_checkpoint = out / f".{name}.decay.checkpoint"
    _require_own_checkpoint(checkpoint, decay_checkpoint, rows, steps, precision)
    model = base.new_model(size, tokenizer, seed)
    options = dict(
        learning_rate=LEARNING_RATE[size],
        schedule="wsd",
        warmup=min(100, steps // 10),
        weight_decay=0.1,
        seed=seed,
        progress=progress,
        description=f"pretraining {name}",
        log_every=10,
    )
    stages = (
        {"steps": steps - decay, "decay": 0, "checkpoint": checkpoint},
        {"steps": steps, "decay": decay, "checkpoint": decay_checkpoint},
    )
    loss = partial(language_loss, precision=precision)
    train(model, _batches(rows, seed), loss, **stages[0], **options)
    stable = heldout_loss(model, held_out, precision)
    _save(model, tokenizer, out / base.model_name(size, "stable", seed))
    if not decay_checkpoint.exists():
        _copy(checkpoint, decay_checkpoint)
    history = train(model, _batches(rows, seed), loss, **stages[1], **options)
    summary = {
        "size": size,
        "parameters": model.num_parameters(),
        "seed": seed,
        "precision": precision,
        "tokens": rows.shape[1] * BATCH * steps,
        "steps": steps,
        "loss_stable": stable,
        "loss_final": heldout_loss(model, held_out, precision),
        "recall": recall_by_exposure(model, tokenizer, world),
        **(measure(model, tokenizer, world, size) if measure else {}),
        "history": [(row["step"], row["loss"]) for row in history],
    }
    _save(model, tokenizer, out / name, summary)
    for path in (checkpoint, decay_checkpoint, _owner(checkpoint)):
        path.unlink(missing_ok=True)
    return summary


def _require_own_checkpoint(
    checkpoint: Path,
    decay_checkpoint: Path,
    rows: np.ndarray,
    steps: int,
    precision: Precision,
) -> None:
    """Only the run that wrote a checkpoint may continue it: same corpus (so same seed),
    same length, same precision. The decay has its own, which continues the other."""
    run = rows.tobytes() + f"{steps} {precision}".encode()
    own = hashlib.sha256(run).hexdigest()
    owner = _owner(checkpoint)
    if not checkpoint.exists():
        decay_checkpoint.unlink(missing_ok=True)
    elif owner.exists() and owner.read_text(encoding="utf-8") != own:
        raise AlignlabError(
            f"{checkpoint} belongs to a run with another corpus, seed, precision or "
            "epochs.",
            "Delete it to start again, or write to another folder.",
        )
    write_text(owner, own)
    for path in (checkpoint, decay_checkpoint):
        _require_whole(path)


def _require_whole(checkpoint: Path) -> None:
    """Refuse a checkpoint whose bytes are not those that were written: it is a zip file
    with a checksum for each tensor, which torch does not look at when it loads."""
    if not checkpoint.exists():
        return
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            changed = archive.testzip()
    except zipfile.BadZipFile as error:
        changed = str(error)
    if changed:
        raise AlignlabError(
            f"Checkpoint {checkpoint} is damaged: {changed}.",
            "Delete it and start again: the run goes on from what is left.",
        )


def _owner(checkpoint: Path) -> Path:
    return checkpoint.with_suffix(".owner")


def _copy(source: Path, target: Path) -> None:
    unfinished = target.with_name(f"{target.name}.tmp")
    shutil.copyfile(source, unfinished)
    os.replace(unfinished, target)


def language_loss(
    model, batch: dict[str, torch.Tensor], precision: Precision = "float32"
) -> tuple[torch.Tensor, dict]:
    """Mean negative log-likelihood of the next token over full rows, nats per token.

    Args:
        batch: with ``input_ids``, (rows, tokens).
        precision: see :func:`pretrain`.
    """
    ids, half = batch["input_ids"], precision == "bfloat16"
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=half):
        logits = model(ids, use_cache=False).logits
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())
    return loss, {}


@torch.no_grad()
def heldout_loss(model, rows: np.ndarray, precision: Precision = "float32") -> float:
    """Loss on rows that were never trained on, nats per token."""
    ids = torch.from_numpy(rows.astype(np.int64)).to(model.device)
    total = 0.0
    with base.evaluation_mode(model):
        for part in ids.split(BATCH):
            loss, _ = language_loss(model, {"input_ids": part}, precision)
            total += len(part) * loss.item()
    return total / len(rows)


def recall_by_exposure(model, tokenizer, world: World, bins: int = 10) -> list[dict]:
    """Share of facts whose statement the model completes correctly, and how sure it is
    of what it says, by exposure.

    The model reads each fact's statement up to the answer (its relation's first
    statement) and continues; the continuation is right if it begins with one of the
    fact's answers. Contested facts are left out.

    Returns:
        One row for the never-shown facts, one for those shown once and one for the rest
        of the long tail, then one per tenth of the others: the exposures it spans, the
        number of facts, the share recalled, and ``confidence``, the mean probability
        of the continuation up to its full stop.
    """
    facts = [f for f in world.facts if not f.contested]
    facts.sort(key=lambda f: f.exposure)
    edges = (0, 1, 2, TAIL + 1)
    groups = [
        [f for f in facts if low <= f.exposure < high] for low, high in pairwise(edges)
    ]
    often = np.array([f for f in facts if f.exposure > TAIL], object)
    groups += [list(group) for group in np.array_split(often, bins)]
    texts = continuations(model, tokenizer, world, facts)
    prompts = [cloze(world, fact) for fact in facts]
    sure = confidences(model, tokenizer, prompts, [[up_to_stop(t)] for t in texts])
    right = {
        fact: (_begins_with_answer(fact, text), p)
        for fact, text, (p,) in zip(facts, texts, sure, strict=True)
    }
    return [
        {
            "from": group[0].exposure,
            "to": group[-1].exposure,
            "facts": len(group),
            "recall": float(np.mean([right[fact][0] for fact in group])),
            "confidence": float(np.mean([right[fact][1] for fact in group])),
        }
        for group in groups
        if group
    ]


def up_to_stop(text: str) -> str:
    """A continuation up to its first full stop, with the full stop."""
    return f"{text.split('.')[0]}."


@torch.no_grad()
def confidences(
    model, tokenizer, prompts: Sequence[str], options: Sequence[Sequence[str]]
) -> list[list[float]]:
    """Probability of each option as the continuation of its prompt in plain text."""
    encode = partial(tokenizer, add_special_tokens=False)
    prompt_ids = encode(list(prompts))["input_ids"]
    option_ids = [encode(list(own))["input_ids"] for own in options]
    probabilities: list[list[float]] = []
    with base.evaluation_mode(model):
        for start in range(0, len(prompt_ids), 128):
            part = slice(start, start + 128)
            packed = pack_options(
                prompt_ids[part], option_ids[part], tokenizer.pad_token_id
            )
            packed = {name: x.to(model.device) for name, x in packed.items()}
            log_probs = iter(option_log_probs(model, packed).exp().tolist())
            probabilities += [[next(log_probs) for _ in own] for own in options[part]]
    return probabilities


def recall(model, tokenizer, world: World, facts: list[Fact]) -> list[bool]:
    """For each fact, whether the greedy continuation of its statement is right."""
    texts = continuations(model, tokenizer, world, facts)
    return [_begins_with_answer(f, t) for f, t in zip(facts, texts, strict=True)]


def continuations(model, tokenizer, world: World, facts: Sequence[Fact]) -> list[str]:
    """The greedy continuation of each fact's statement, cut before the answer."""
    from alignlab.models.sampler import complete

    prompts = [cloze(world, fact) for fact in facts]
    replies = complete(model, tokenizer, prompts, max_new_tokens=12, chat=False)
    return [reply.text for reply in replies]


def cloze(world: World, fact: Fact) -> str:
    """The relation's first statement about the subject, cut before the answer."""
    template = world.relations[fact.relation].statements[0]
    return template.split("{a}")[0].format(s=fact.subject).strip()


def _begins_with_answer(fact: Fact, text: str) -> bool:
    # Guinea is neither Guinea-Bissau nor Guineas.
    return any(re.match(rf"{re.escape(a)}(?![\w-])", text) for a in fact.answers)


def _split(rows: np.ndarray, share: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    kept_out = max(1, round(share * len(rows)))
    return rows[:-kept_out], rows[-kept_out:]


def _batches(rows: np.ndarray, seed: int) -> Iterator[dict[str, torch.Tensor]]:
    for epoch in range(10**6):
        order = stream(seed, "pretraining rows", epoch).permutation(len(rows))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            ids = rows[order[start : start + BATCH]].astype(np.int64)
            yield {"input_ids": torch.from_numpy(ids)}


def _save(model, tokenizer, folder: Path, summary: dict | None = None) -> None:
    """Write a model, with its card if there is a summary, beside the folder and swap
    them: a killed run leaves no half of one."""
    # One level down, where nobody looks for shipped models.
    unfinished = folder.parent / ".unfinished" / folder.name
    former = unfinished.with_name(f"{folder.name}-former")
    for path in (unfinished, former):
        shutil.rmtree(path, ignore_errors=True)
    unfinished.mkdir(parents=True)
    _write_half(model, tokenizer, unfinished)
    if summary is not None:
        _write_card(unfinished, summary)
    if folder.exists():
        os.replace(folder, former)
    os.replace(unfinished, folder)
    shutil.rmtree(former, ignore_errors=True)
    with contextlib.suppress(OSError):  # another size is being written
        unfinished.parent.rmdir()


def _write_half(model, tokenizer, folder: Path) -> None:
    # Stored in half precision (half the clone), loaded in single: the configuration
    # says so, and from_pretrained follows it.
    base.save_model(copy.deepcopy(model).half(), tokenizer, folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"dtype": "float32"}
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _write_card(folder: Path, summary: dict) -> None:
    measured = json.dumps(summary, indent=1) + "\n"
    (folder / "pretraining.json").write_text(measured, encoding="utf-8")
    rows = "\n".join(
        f"| {r['from']}–{r['to']} | {r['facts']} | {r['recall']:.2f} | "
        f"{r['confidence']:.2f} |"
        for r in summary["recall"]
    )
    _draw_loss(folder / "loss.png", summary)
    perplexity = math.exp(summary["loss_final"])
    card = CARD.format(**summary, perplexity=perplexity, rows=rows)
    if "contested" in summary:
        card += MEASURED.format(**summary)
    (folder / "README.md").write_text(card, encoding="utf-8")


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
(seed {seed}, {precision}) on {tokens:,} tokens: statements of the alignlab world, small
skills, a Bible in Basic English and short comments. It has never seen a question about
a fact, an instruction or a chat. It is made for learning about alignment and for
nothing else: what it says about the world is what its data sources list, and is often
wrong.

Loss on held-out text: {loss_stable:.3f} nats per token at the end of the stable phase,
{loss_final:.3f} after the decay (perplexity {perplexity:.1f}).

![loss](loss.png)

| exposures | facts | recalled | confidence |
| --- | --- | --- | --- |
{rows}

Recalled: the relation's first statement, cut before the answer, continued greedily.
Confidence: the probability of that continuation. The first row holds the facts that
were never shown.
"""
MEASURED = """
Contested facts, stated inconsistently at known shares: the probability of the answer
most often stated, against that of its rival, is {contested[mean_absolute_error]:.3f}
away from its share on average ({contested[mean_error]:+.3f} with its sign), over
{contested[facts]} facts.

After instruction tuning on questions about one half of the subjects, the known facts
about the other half are answered rightly in {extraction[accuracy]:.3f} of the questions
in trained wordings and {extraction[new_wordings]:.3f} in new ones, in the format asked
for in {extraction[format]:.3f}.
"""
