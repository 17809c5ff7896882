"""What notebook 00 trains, and how it asks: the same facts, put to the base model, to a
reader of question-answer pairs, and to the tuned model.

The measurements of the base model itself are in ``analysis``.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from alignlab import cache
from alignlab.chapters.base_model.asking import Asked, ask
from alignlab.chapters.base_model.showing import thinned
from alignlab.models.base import load_base, load_model, save_model, weights_hash
from alignlab.seeds import stream
from alignlab.study.arms import run_each
from alignlab.study.scale import rate, trainable_base
from alignlab.study.tuning import sft_policy
from alignlab.training.loop import train
from alignlab.training.pretrain import language_loss
from alignlab.world import corpus, skills, tasks

ROWS, LENGTH = 16, 128  # of a reader's batch, rows and tokens
PAIR_ROWS = 4  # of them with pairs; more teach the form sooner and leave less text
TEXT_SHARE = 0.05  # of the pretraining corpus that a reader may read again
WEIGHT_DECAY = 0.1  # as in pretraining


# --- Arms -----------------------------------------------------------------------------


def base_arm(
    *, seed: int, base: str, ways: Sequence[str], shots: int, n_test: int
) -> dict[str, Asked]:
    """The base model, asked in some ``ways``; see :func:`ask`.

    Args:
        seed: draws the worked examples.
    """
    model, tokenizer = load_base(base)
    return ask(model, tokenizer, ways, shots=shots, n_test=n_test, seed=seed)


def reader_arm(
    *, seed: int, base: str, steps: int, shots: int, n_test: int
) -> dict[str, Asked]:
    """A :func:`reader`, asked without a chat template."""
    model, tokenizer = reader(seed, base, steps)
    ways = ("bare", "cloze", "few-shot")
    return ask(model, tokenizer, ways, shots=shots, n_test=n_test, seed=seed)


def tuned_arm(
    *, seed: int, base: str, n_examples: int, steps: int, n_test: int
) -> dict[str, Asked]:
    """The base model after SFT on the instruction mixture, asked as a chat."""
    model, tokenizer = sft_policy(seed, base=base, n_examples=n_examples, steps=steps)
    return ask(model, tokenizer, ("chat",), shots=0, n_test=n_test, seed=seed)


def ask_all(seeds: Sequence[int], base: str, settings) -> dict[str, dict]:
    """Every model asked in every way, side by side for the seeds.

    Args:
        settings: the profile's ``n_examples``, ``steps``, ``reader_steps``, ``shots``,
            ``n_test`` and ``jobs``.

    Returns:
        For "base, bare", "base, cloze", ... "tuned": ``right`` and ``formatted``, each
        a list for every seed with one value for every question.
    """
    common = dict(base=base, n_test=settings.n_test)
    plain = dict(shots=settings.shots, **common)
    tuned = dict(n_examples=settings.n_examples, steps=settings.steps, **common)
    read = dict(steps=settings.reader_steps, **plain)
    few_shot = dict(ways=["few-shot"], **plain)
    # Nothing is drawn for these: one run stands for every seed.
    fixed = dict(ways=["bare", "cloze"], **plain)
    calls = [(reader_arm, dict(seed=seed, **read)) for seed in seeds]
    calls += [(tuned_arm, dict(seed=seed, **tuned)) for seed in seeds]
    calls += [(base_arm, dict(seed=seed, **few_shot)) for seed in seeds]
    calls.append((base_arm, dict(seed=seeds[0], **fixed)))
    *rows, once = run_each(calls, jobs=settings.jobs, label="the same facts, asked")
    n = len(seeds)
    readers, tuneds, few_shots = rows[:n], rows[n : 2 * n], rows[2 * n :]
    return {
        "base, bare": by_seed([once] * n, "bare"),
        "base, cloze": by_seed([once] * n, "cloze"),
        "base, few-shot": by_seed(few_shots, "few-shot"),
        "reader, bare": by_seed(readers, "bare"),
        "reader, cloze": by_seed(readers, "cloze"),
        "reader, few-shot": by_seed(readers, "few-shot"),
        "tuned": by_seed(tuneds, "chat"),
    }


def by_seed(rows: Sequence[Mapping[str, Asked]], way: str) -> dict[str, list]:
    """``right`` and ``formatted`` of one way to ask: a row for each seed."""
    return {
        measure: [row[way][measure] for row in rows]
        for measure in ("right", "formatted")
    }


# --- The reader of pairs --------------------------------------------------------------


def reader(seed: int, base: str, steps: int):
    """The base model after more plain text, some of which is question-answer pairs:
    ``(model, tokenizer)``, from the cache if it was made before. It meets no chat
    template, no instruction, and no question about a subject that it is tested on.

    Args:
        seed: draws the texts, the pairs and their order.
        base: the model to start from, see ``models.base.base_path``.
        steps: of ``ROWS`` rows; more make it more used to pairs.
    """

    def build(folder: Path) -> None:
        model, tokenizer = trainable_base(base)
        text = corpus.pack(plain_documents(seed), tokenizer, LENGTH)
        pairs = corpus.pack(list(pair_documents(seed, 8 * steps)), tokenizer, LENGTH)
        train(
            model,
            reading_batches(text, pairs, seed),
            language_loss,
            steps=steps,
            learning_rate=rate("tasks", base),
            weight_decay=WEIGHT_DECAY,
            seed=seed,
            progress=False,
        )
        save_model(model, tokenizer, folder)

    key = dict(seed=seed, base=base, steps=steps, weights_hash=weights_hash(base))
    return load_model(cache.artifact("reader", build, key=key))


def plain_documents(seed: int) -> list[str]:
    """A part of the pretraining corpus, of every kind in its usual proportion."""
    rng = stream(seed, "documents for a reader")
    world = thinned(tasks.default_world(), TEXT_SHARE, rng)
    prose = corpus.prose(seed)
    texts = [*corpus.paragraphs(world, seed)]
    texts += skills.statements(round(TEXT_SHARE * corpus.SKILL_PARAGRAPHS), seed)
    texts += [prose[i] for i in rng.permutation(len(prose))[: len(prose) // 20]]
    return [texts[i] for i in rng.permutation(len(texts))]


def pair_documents(seed: int, n: int) -> Iterator[str]:
    """n documents of two to six pairs each, "Question: ... Answer: ...", about known
    facts of the subjects whose questions are trained on."""
    world, subjects = tasks.default_world(), tasks.trained_subjects()
    rng, waiting = stream(seed, "pairs for a reader"), []
    for _ in range(n):
        size = int(rng.integers(2, 7))
        while len(waiting) < size:
            draw = int(rng.integers(2**31))
            waiting += tasks.world_questions(world, subjects, seed=draw)
        shown, waiting = waiting[:size], waiting[size:]
        yield " ".join(f"Question: {e.prompt} Answer: {e.completion}" for e in shown)


def reading_batches(
    text: np.ndarray, pairs: np.ndarray, seed: int
) -> Iterator[dict[str, torch.Tensor]]:
    """Batches without end of ``ROWS`` rows, ``PAIR_ROWS`` of them with pairs.

    Args:
        text, pairs: rows of tokens, (rows, LENGTH), taken in random order and begun
            again when all are read.
    """
    rng = stream(seed, "rows for a reader")
    drawn = _rows_forever(text, rng), _rows_forever(pairs, rng)
    counts = ROWS - PAIR_ROWS, PAIR_ROWS
    while True:
        rows = [next(d) for d, count in zip(drawn, counts) for _ in range(count)]
        yield {"input_ids": torch.from_numpy(np.stack(rows).astype(np.int64))}


def _rows_forever(rows: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    while True:
        for number in rng.permutation(len(rows)):
            yield rows[number]
