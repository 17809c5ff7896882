"""Mid-training: instructions inside the end of pretraining, or in a stage after it.

Every arm starts where the constant learning rate ends and reads the same text and the
same examples, each once; the arms differ only in when, and at what learning rate.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from alignlab import cache
from alignlab.models.base import load_model, save_model, stages, weights_hash
from alignlab.seeds import stream
from alignlab.study import tuning
from alignlab.study.scale import rate, trainable_base
from alignlab.training import pretrain
from alignlab.training.loop import Schedule, train
from alignlab.training.pretrain import LENGTH
from alignlab.training.sft import Encoded, collate, encode, sft_step
from alignlab.world import corpus, tasks

Rows = Int[np.ndarray, "rows length"]

ARMS = ("after", "mid", "replay", "after_high_rate")  # the longest first
ROWS = 8  # rows of text in an update: half of pretraining's, for twice as many updates
HELD_OUT = 0.009  # share of the documents, from the end; pretraining held out 1%
WEIGHT_DECAY = 0.1  # as in pretraining, in every stage: the arms must not differ in it


def mid_training_arm(
    *,
    arm: str,
    seed: int,
    base: str = "300k",
    decay_steps: int = 120,
    sft_share: float = 0.2,
    replay_share: float = 0.05,
    n_questions: int = 1024,
    n_documents: int | None = None,
) -> dict:
    """Train one arm, then measure what it learnt and what it forgot.

    All arms start from the checkpoint at the end of the stable phase, see
    :func:`branching_point`:

    * "after": the learning rate decays to zero on text; then SFT at its usual rate.
    * "mid": the learning rate decays on text and examples mixed; no later stage.
    * "replay": like "after", but part of the text is kept for the SFT stage.
    * "after_high_rate": like "after", but the examples meet exactly the learning rates
      they meet in "mid". The difference between the two is the effect of mixing.

    MiniCPM decays over the last tenth of its tokens and finds a fortieth too short. A
    tenth of what the shipped base model reads is 300 ``decay_steps``; the default of
    120, a twenty-fifth, saves time. Updates have half of pretraining's rows: the SFT
    stage learns more from the same tokens in more updates. In a mixed batch the mean
    loss of each source is weighted by its share of the tokens. The checkpoint holds no
    optimizer state, so every stage warms up over a twentieth of its updates.

    Args:
        arm: one of ``ARMS``.
        seed: draws text, examples and their order; the arms of a seed share them.
        base: the model to start from, see ``models.base.base_path``. Of one that does
            not ship there is no stable checkpoint: the arms branch off from the model
            itself, whose learning rate has decayed before.
        decay_steps: updates of a decay on text, 8 rows of 256 tokens each. More learn
            more, from text and, at the same share, from more examples.
        sft_share: the examples' share of all tokens, prompts included. Higher teaches
            the tasks better and leaves less text in a mixed batch.
        replay_share: in "replay", the text's share of the tokens in the SFT stage.
            Higher forgets less, but shortens the decay.
        n_questions: test questions of the trained families.
        n_documents: documents of the corpus to build the text from; None takes all of
            them. Fewer are tokenized sooner.

    Returns:
        ``accuracy`` and ``format`` on the questions; ``text_loss`` on held-out text in
        nats per token; ``text_loss_before``, that of the model after a pure decay on
        the same text, and ``forgetting``, the rise over it; ``text_tokens`` and
        ``sft_tokens`` (without padding), ``updates``, and ``curve``: for each update
        [tokens so far, learning rate, loss].

    Raises:
        ValueError: unknown arm, a share outside (0, 1), or too few rows or examples.

    Source: Hu et al. (2024, MiniCPM), section 5; Ibrahim et al. (2024) for replay.
    """
    _require_valid(arm, sft_share, replay_share)
    reference = partial(
        decayed_base,
        seed=seed,
        base=base,
        decay_steps=decay_steps,
        n_documents=n_documents,
    )
    model, tokenizer = branching_point(base)
    text, held_out = text_rows(tokenizer, n_documents)
    rows = draw_rows(text, decay_steps * ROWS, seed)
    encoded = draw_examples(tokenizer, token_budget(rows.size, sft_share), seed)
    _require_one_each(encoded, decay_steps)
    planned = plan_stages(
        arm,
        n_rows=len(rows),
        n_replayed=round(token_budget(_tokens(encoded), replay_share) / LENGTH),
        updates=decay_steps,
        decay_rate=rate("text", base),
        sft_rate=rate("tasks", base),
    )
    done = None
    if planned[0].is_pure_decay(len(rows)):  # shared by all arms that start with it
        model, done = load_model(reference())[0], _measured(reference())
        planned = planned[1:]
    pad = tokenizer.pad_token_id
    trained = run_stages(model, planned, rows, encoded, pad, seed, done)
    questions = tasks.mixture(n_questions, split="test", seed=0)
    scores = tuning.judge(questions, tuning.reply(model, tokenizer, questions))
    loss = pretrain.heldout_loss(model, held_out)
    # As late as possible: another process may still be training the reference.
    before = _measured(reference())["text_loss"]
    losses = {"text_loss": loss, "text_loss_before": before}
    return trained | scores | losses | {"forgetting": loss - before}


def branching_point(base: str):
    """``(model, tokenizer)`` that the arms start from: the checkpoint at the end of the
    stable phase, and the base model itself where there is none."""
    return trainable_base(base, stages(base)[-1])


def _measured(folder: Path) -> dict:
    return json.loads((folder / "measured.json").read_text())


# --- The arms -----------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """A stretch of training with one learning-rate schedule.

    ``rows`` are the first and the last (exclusive) of the arm's rows of text to read;
    ``examples`` says whether the stage also reads all the examples.
    """

    rows: tuple[int, int]
    examples: bool
    updates: int
    learning_rate: float
    schedule: Schedule

    def is_pure_decay(self, n_rows: int) -> bool:
        return self.rows == (0, n_rows) and not self.examples


def plan_stages(
    arm: str,
    *,
    n_rows: int,
    n_replayed: int,
    updates: int,
    decay_rate: float,
    sft_rate: float,
) -> list[Stage]:
    """The stages of an arm.

    Args:
        arm: one of ``ARMS``.
        n_rows: rows of text in every arm.
        n_replayed: how many of them "replay" keeps for the SFT stage.
        updates: of the decay and of the SFT stage: equal, so that the examples come in
            the same batches in every arm.
        decay_rate: learning rate from which the decay falls to zero. Higher learns more
            from text and forgets more of it in "after_high_rate".
        sft_rate: peak of the usual SFT stage, which falls as a cosine. Higher learns
            the examples faster and forgets more text.
    """
    if not 0 <= n_replayed < n_rows:
        raise ValueError(
            f"replay_share asks for {n_replayed} of {n_rows} rows of text: lower it"
        )
    no_rows, all_rows, first_rows = (0, 0), (0, n_rows), (0, n_rows - n_replayed)
    if arm == "mid":
        return [Stage(all_rows, True, updates, decay_rate, "linear")]
    if arm == "replay":
        shorter = round(updates * first_rows[1] / n_rows)
        return [
            Stage(first_rows, False, shorter, decay_rate, "linear"),
            Stage((first_rows[1], n_rows), True, updates, sft_rate, "cosine"),
        ]
    decay = Stage(all_rows, False, updates, decay_rate, "linear")
    if arm == "after":
        return [decay, Stage(no_rows, True, updates, sft_rate, "cosine")]
    return [decay, Stage(no_rows, True, updates, decay_rate, "linear")]


def stage_batches(
    stage: Stage, rows: Rows, encoded: list[Encoded], pad_token_id: int
) -> list[dict[str, Tensor]]:
    """One batch per update: its rows as ``text_input_ids`` (B, 256), and its examples
    as :func:`alignlab.training.sft.collate` lays them out. Both are spread evenly over
    the updates; a source that an update has none of is left out of its batch."""
    text = rows[slice(*stage.rows)]
    examples = encoded if stage.examples else []
    text_cuts = _cuts(len(text), stage.updates)
    example_cuts = _cuts(len(examples), stage.updates)
    batches: list[dict[str, Tensor]] = [{} for _ in range(stage.updates)]
    for k, batch in enumerate(batches):
        if len(own_rows := text[text_cuts[k] : text_cuts[k + 1]]):
            batch["text_input_ids"] = torch.from_numpy(own_rows.astype(np.int64))
        if own_examples := examples[example_cuts[k] : example_cuts[k + 1]]:
            batch |= collate(own_examples, pad_token_id)
    return batches


def _cuts(n: int, parts: int) -> list[int]:
    """Where to cut n items into parts of nearly equal size; if there are fewer items
    than parts, the empty parts are spread out."""
    return [n * k // parts for k in range(parts + 1)]


def mixture_loss(
    model: nn.Module, batch: dict[str, Tensor]
) -> tuple[Tensor, dict[str, float]]:
    """Mean loss on the text and on the examples, in nats per learnt token, weighted by
    the number of tokens that each has in the batch."""
    parts = []
    if "text_input_ids" in batch:
        text = {"input_ids": batch["text_input_ids"]}
        parts.append((_text_tokens(batch), pretrain.language_loss(model, text)[0]))
    if "input_ids" in batch:
        columns = ("input_ids", "attention_mask", "mask")
        examples = {name: batch[name] for name in columns}
        parts.append((_example_tokens(batch), sft_step(model, examples)[0]))
    total = sum(tokens for tokens, _ in parts)
    return sum(tokens / total * loss for tokens, loss in parts), {}


def run_stages(
    model: nn.Module,
    stages: Sequence[Stage],
    rows: Rows,
    encoded: list[Encoded],
    pad_token_id: int,
    seed: int,
    done: dict | None = None,
) -> dict:
    """Train through the stages, in place.

    Args:
        done: what this function returned for the stages the model already went through.

    Returns:
        ``text_tokens``, ``sft_tokens``, ``updates`` and ``curve``, as in
        :func:`mid_training_arm`.
    """
    counts = ("text_tokens", "sft_tokens", "updates")
    total = {name: done[name] if done else 0 for name in counts}
    curve = list(done["curve"]) if done else []
    for stage in stages:
        batches = stage_batches(stage, rows, encoded, pad_token_id)
        before = total["text_tokens"] + total["sft_tokens"]
        history = train(
            model,
            batches,
            mixture_loss,
            steps=stage.updates,
            learning_rate=stage.learning_rate,
            schedule=stage.schedule,
            weight_decay=WEIGHT_DECAY,
            seed=seed,
            progress=False,
        )
        for row in history:
            curve.append([before + row["tokens"], row["learning_rate"], row["loss"]])
        total["text_tokens"] += sum(map(_text_tokens, batches))
        total["sft_tokens"] += sum(map(_example_tokens, batches))
        total["updates"] += stage.updates
    return total | {"curve": curve}


def decayed_base(
    *, seed: int, base: str, decay_steps: int, n_documents: int | None
) -> Path:
    """Folder of the model after the pure decay on text, trained once per seed: two arms
    continue from it and all are compared with it. Its ``measured.json`` holds what
    :func:`run_stages` returned, and the model's ``text_loss``."""

    def build(folder: Path) -> None:
        model, tokenizer = branching_point(base)
        text, held_out = text_rows(tokenizer, n_documents)
        rows = draw_rows(text, decay_steps * ROWS, seed)
        decay_rate = rate("text", base)
        stage = Stage((0, len(rows)), False, decay_steps, decay_rate, "linear")
        trained = run_stages(model, [stage], rows, [], tokenizer.pad_token_id, seed)
        measured = trained | {"text_loss": pretrain.heldout_loss(model, held_out)}
        save_model(model, tokenizer, folder)
        (folder / "measured.json").write_text(json.dumps(measured))

    key = dict(seed=seed, base=base, decay_steps=decay_steps, n_documents=n_documents)
    key["weights_hash"] = weights_hash(base)
    return cache.artifact("decayed", build, key=key)


# --- Text and examples --------------------------------------------------------------


def text_rows(tokenizer, n_documents: int | None = None) -> tuple[Rows, Rows]:
    """Rows of the pretraining corpus to train on, and held-out rows, each (rows, 256).

    Pretraining never read the held-out documents. With ``n_documents`` there are at
    most that many documents to train on, and a tenth as many held out.

    Raises:
        ValueError: if the held-out documents do not fill a row.
    """

    def build(folder: Path) -> None:
        documents = corpus.documents(tasks.default_world())
        train_on, held_out = split_documents(documents, n_documents)
        np.save(folder / "train.npy", corpus.pack(train_on, tokenizer, LENGTH))
        np.save(folder / "held_out.npy", corpus.pack(held_out, tokenizer, LENGTH))

    definition = tokenizer.backend_tokenizer.to_str().encode()
    key = {
        "tokenizer": hashlib.sha256(definition).hexdigest()[:12],
        "length": LENGTH,
        "held_out": HELD_OUT,
        "n_documents": n_documents,
    }
    folder = cache.artifact("text_rows", build, key=key)
    rows, held_out = (np.load(folder / f"{x}.npy") for x in ("train", "held_out"))
    if not len(held_out):
        raise ValueError(
            f"n_documents={n_documents} holds out less than a row of {LENGTH} tokens: "
            "raise it"
        )
    return rows, held_out


def split_documents(
    documents: list[str], n_documents: int | None = None
) -> tuple[list[str], list[str]]:
    """Documents to train on, from the start, and held-out ones, from the end."""
    last = max(1, round(HELD_OUT * len(documents)))
    few = last if n_documents is None else max(1, min(last, n_documents // 10))
    return documents[:-last][:n_documents], documents[-few:]


def draw_rows(text: Rows, n: int, seed: int) -> Rows:
    """n different rows in random order.

    Raises:
        ValueError: if there are fewer.
    """
    if n > len(text):
        raise ValueError(
            f"decay_steps asks for {n} rows of text and there are {len(text)}: "
            f"lower it to {len(text) // ROWS}, or raise n_documents"
        )
    return text[stream(seed, "mid-training text").permutation(len(text))[:n]]


def draw_examples(tokenizer, budget: int, seed: int) -> list[Encoded]:
    """Encoded examples of the instruction mixture: the fewest with ``budget`` tokens in
    total."""
    drawn = tasks.mixture(budget // 16 + 1, seed=seed)  # the average has about 25
    columns = [{"prompt": e.prompt, "completion": e.completion} for e in drawn]
    encoded = encode(tokenizer, columns)
    tokens = np.cumsum([len(example.input_ids) for example in encoded])
    return encoded[: int(np.searchsorted(tokens, budget)) + 1]


def token_budget(others: int, share: float) -> int:
    """How many tokens make up ``share`` of the total, beside ``others`` of another
    kind."""
    return round(share / (1 - share) * others)


def _tokens(encoded: list[Encoded]) -> int:
    return sum(len(example.input_ids) for example in encoded)


def _text_tokens(batch: dict[str, Tensor]) -> int:
    return batch["text_input_ids"].numel() if "text_input_ids" in batch else 0


def _example_tokens(batch: dict[str, Tensor]) -> int:
    return int(batch["attention_mask"].sum()) if "attention_mask" in batch else 0


def _require_valid(arm: str, sft_share: float, replay_share: float) -> None:
    if arm not in ARMS:
        raise ValueError(f"arm is {arm!r}; it can be one of {', '.join(ARMS)}")
    for name, share in (("sft_share", sft_share), ("replay_share", replay_share)):
        if not 0 < share < 1:
            raise ValueError(f"{name} is {share}: it must lie between 0 and 1")


def _require_one_each(encoded: list[Encoded], updates: int) -> None:
    if len(encoded) < updates:
        raise ValueError(
            f"sft_share gives {len(encoded)} examples for {updates} updates, which "
            "need at least one each: raise it"
        )
