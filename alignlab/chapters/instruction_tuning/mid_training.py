"""Mid-training: instructions inside the end of pretraining, or in a stage after it.

Every arm starts where the constant learning rate ends, reads the same rows of text and
the same examples, each once, and differs only in when and at what learning rate.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from alignlab import cache
from alignlab.models.base import load_base, load_model, save_model, weights_hash
from alignlab.study import tuning
from alignlab.study.arms import is_remembered, run_arms
from alignlab.training import pretrain
from alignlab.training.loop import Schedule, train
from alignlab.training.pretrain import LENGTH
from alignlab.training.sft import Encoded, LossOn, collate, encode, sft_step
from alignlab.world import corpus, tasks

ARMS = ("after", "mid", "replay", "after_high_rate")  # the longest first
ROWS = 8  # of text in an update: half of pretraining's, for twice as many updates
HELD_OUT = 0.009  # of the documents, from the end: pretraining kept out the last 1%
WEIGHT_DECAY = 0.1  # pretraining's, in every stage: the arms are not to differ in it


def mid_training(
    seeds: Sequence[int],
    size: str = "300k",
    *,
    arms: Sequence[str] = ARMS,
    jobs: int = 2,
    **dials,
) -> list[dict]:
    """Every arm with every seed: see :func:`mid_training_arm`, which takes the dials.

    Returns:
        One dict per arm and seed, arm by arm.
    """
    # Not seed by seed: some arms of a seed wait for the first to make their reference.
    settings = [
        {"arm": arm, "seed": seed, "size": size, **dials}
        for arm in arms
        for seed in seeds
    ]
    if not all(is_remembered(mid_training_arm, setting) for setting in settings):
        # Here, for an arm that wrote the corpus would leave its process large.
        text_rows(load_base(size, "stable")[1], dials.get("n_documents"))
    return run_arms(mid_training_arm, settings, jobs=jobs, label="mid-training")


def paired(
    results: Sequence[dict], metric: str, arm: str = "mid", than: str = "after"
) -> list[float]:
    """``metric`` of one arm minus that of another, seed by seed."""
    values = {(row["arm"], row["seed"]): row[metric] for row in results}
    seeds = dict.fromkeys(row["seed"] for row in results)
    return [values[arm, seed] - values[than, seed] for seed in seeds]


def mid_training_arm(
    *,
    arm: str,
    seed: int,
    size: str = "300k",
    decay_steps: int = 120,
    sft_share: float = 0.2,
    replay_share: float = 0.05,
    loss_on: LossOn = "completion",
    n_questions: int = 1024,
    n_facts: int = 512,
    n_documents: int | None = None,
) -> dict:
    """Train one arm and measure what it learnt and what it forgot.

    The arms, all from the checkpoint at the end of the stable phase:

    * "after": the learning rate decays to zero on text; then SFT, at SFT's usual rate.
    * "mid": it decays on text and examples mixed; there is no later stage.
    * "replay": as "after", but some of the rows of text wait for the SFT stage.
    * "after_high_rate": as "after", but the examples meet exactly the learning rates
      that they meet in "mid", so that "mid" minus this arm is the mixing alone.

    What was chosen, and why. MiniCPM decays over about the last tenth of its tokens and
    finds a fortieth too short. The shipped base reads some 6.2 million tokens, so a
    tenth is 300 ``decay_steps``; the default of 120 is a twenty-fifth, for time's sake.
    An update has half of pretraining's rows: at equal tokens, the SFT stage learns more
    tasks in more updates. The default ``sft_share`` is the usual upper end. In a mixed
    batch each source's mean loss counts by its share of the tokens; with
    ``loss_on="all"`` that is the mean over all tokens, as in pretraining. The default
    learns completions only, as an SFT stage usually does. The examples come in the same
    batches in every arm. The checkpoint holds no state of the optimiser, so each stage
    warms up over a twentieth of its updates.

    Args:
        arm: one of ``ARMS``.
        seed: draws the rows, the examples and their order; the arms of one seed share
            them.
        size: "300k" or "1m".
        decay_steps: updates of a decay on text, 8 rows of 256 tokens each. More of
            them learn more, from text and, at the same share, from more examples.
        sft_share: examples' share of all the tokens, prompts included. Higher teaches
            the tasks better and leaves a mixed batch less text.
        replay_share: in "replay", the text's share of the tokens of the SFT stage.
            Higher forgets less, but shortens the decay.
        loss_on: "completion", or "all" to learn the examples' prompts as well.
        n_questions: held-out questions of the families that are trained.
        n_facts: statements to complete, of well-known facts that no example asks about.
        n_documents: build the rows from so many documents only; None takes the whole
            corpus. Fewer are sooner tokenised.

    Returns:
        ``accuracy`` and ``format`` on the questions; ``text_loss`` on held-out text
        (nats per token) and ``recall`` of the facts; each also ``_before``, which is
        the model of the pure decay on the same text; ``forgetting``, the rise of the
        text loss over it; ``text_tokens`` and ``sft_tokens`` (real ones, no padding)
        and ``updates``; and ``curve``, for each update [tokens so far, learning rate,
        loss].

    Raises:
        ValueError: unknown arm, a share outside (0, 1), or too few rows or examples.

    Source: Hu et al. (2024, MiniCPM), section 5; Ibrahim et al. (2024) for replay.
    """
    _require_sensible(arm, sft_share, replay_share)
    reference = partial(
        decayed_base,
        seed=seed,
        size=size,
        decay_steps=decay_steps,
        n_questions=n_questions,
        n_facts=n_facts,
        n_documents=n_documents,
    )
    model, tokenizer = load_base(size, "stable")
    text, held_out = text_rows(tokenizer, n_documents)
    rows = draw_rows(text, decay_steps * ROWS, seed)
    budget = token_budget(rows.size, sft_share)
    encoded = draw_examples(tokenizer, budget, seed, loss_on)
    _require_one_each(encoded, decay_steps)
    stages = plan(
        arm,
        n_rows=len(rows),
        n_replayed=round(token_budget(_tokens(encoded), replay_share) / LENGTH),
        updates=decay_steps,
        high=pretrain.LEARNING_RATE[size],
        low=tuning.LEARNING_RATE[size],
    )
    done = None
    if stages[0].is_pure_decay(len(rows)):  # done once, for every arm that begins so
        model, done = load_model(reference())[0], _measured(reference())
        stages = stages[1:]
    pad = tokenizer.pad_token_id
    trained = run_stages(model, stages, rows, encoded, pad, seed, done)
    after = measure(model, tokenizer, held_out, n_questions, n_facts)
    # Asked for as late as can be: another process may be making it.
    return trained | after | compare(_measured(reference()), after)


def _measured(folder: Path) -> dict:
    return json.loads((folder / "measured.json").read_text())


# --- The arms -----------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """A stretch of training with one learning-rate curve.

    ``rows`` are the first and the last (exclusive) of the arm's rows of text that it
    reads; ``examples`` says whether it reads all the examples as well.
    """

    rows: tuple[int, int]
    examples: bool
    updates: int
    learning_rate: float
    schedule: Schedule

    def is_pure_decay(self, n_rows: int) -> bool:
        return self.rows == (0, n_rows) and not self.examples


def plan(
    arm: str, *, n_rows: int, n_replayed: int, updates: int, high: float, low: float
) -> list[Stage]:
    """The stages of an arm.

    Args:
        arm: one of ``ARMS``.
        n_rows: rows of text that every arm reads.
        n_replayed: how many of them "replay" reads in the SFT stage.
        updates: of the decay, and as many of the SFT stage: the examples come in the
            same batches everywhere.
        high: learning rate from which the decay falls to zero.
        low: the peak of the usual SFT stage, which falls as a cosine.
    """
    if not 0 <= n_replayed < n_rows:
        raise ValueError(
            f"replay_share asks for {n_replayed} of {n_rows} rows of text: lower it"
        )
    nothing, every, early = (0, 0), (0, n_rows), (0, n_rows - n_replayed)
    if arm == "mid":
        return [Stage(every, True, updates, high, "linear")]
    if arm == "replay":
        shorter = round(updates * early[1] / n_rows)
        return [
            Stage(early, False, shorter, high, "linear"),
            Stage((early[1], n_rows), True, updates, low, "cosine"),
        ]
    decay = Stage(every, False, updates, high, "linear")
    if arm == "after":
        return [decay, Stage(nothing, True, updates, low, "cosine")]
    return [decay, Stage(nothing, True, updates, high, "linear")]


def stage_batches(
    stage: Stage, rows: np.ndarray, encoded: list[Encoded], pad_token_id: int
) -> list[dict[str, Tensor]]:
    """The stage's batches: its rows as ``text_input_ids`` (B, 256), and its examples as
    :func:`alignlab.training.sft.collate` gives them, each spread evenly over the
    updates. What an update has none of is left out."""
    text = rows[slice(*stage.rows)]
    examples = encoded if stage.examples else []
    text_cuts = _cuts(len(text), stage.updates)
    example_cuts = _cuts(len(examples), stage.updates)
    batches: list[dict[str, Tensor]] = [{} for _ in range(stage.updates)]
    for k, batch in enumerate(batches):
        if len(some := text[text_cuts[k] : text_cuts[k + 1]]):
            batch["text_input_ids"] = torch.from_numpy(some.astype(np.int64))
        if some := examples[example_cuts[k] : example_cuts[k + 1]]:
            batch |= collate(some, pad_token_id)
    return batches


def _cuts(n: int, parts: int) -> list[int]:
    """Where to cut n things into parts of nearly equal size; fewer things than parts
    are spread out."""
    return [n * k // parts for k in range(parts + 1)]


def mixture_loss(
    model: nn.Module, batch: dict[str, Tensor]
) -> tuple[Tensor, dict[str, float]]:
    """Mean loss on the text and on the examples, nats per learnt token, weighted by the
    tokens that each has in the batch."""
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
    rows: np.ndarray,
    encoded: list[Encoded],
    pad_token_id: int,
    seed: int,
    done: dict | None = None,
) -> dict:
    """Train through the stages, in place.

    Args:
        done: what this function returned for the stages that the model has behind it.

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
    *,
    seed: int,
    size: str,
    decay_steps: int,
    n_questions: int,
    n_facts: int,
    n_documents: int | None,
) -> Path:
    """Folder of the model after the pure decay on text, made once for all arms of a
    seed: two of them go on from it, and all are compared with it. ``measured.json`` in
    it holds its measurements."""

    def build(folder: Path) -> None:
        model, tokenizer = load_base(size, "stable")
        text, held_out = text_rows(tokenizer, n_documents)
        rows = draw_rows(text, decay_steps * ROWS, seed)
        rate = pretrain.LEARNING_RATE[size]
        stage = Stage((0, len(rows)), False, decay_steps, rate, "linear")
        trained = run_stages(model, [stage], rows, [], tokenizer.pad_token_id, seed)
        measured = measure(model, tokenizer, held_out, n_questions, n_facts)
        save_model(model, tokenizer, folder)
        (folder / "measured.json").write_text(json.dumps(trained | measured))

    key = {
        "seed": seed,
        "size": size,
        "decay_steps": decay_steps,
        "n_questions": n_questions,
        "n_facts": n_facts,
        "n_documents": n_documents,
        "base": weights_hash(),
    }
    code = [sys.modules[__name__]]
    return cache.artifact("decayed", build, key=key, code=code)


# --- What is read -------------------------------------------------------------------


def text_rows(
    tokenizer, n_documents: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and held-out rows of the pretraining corpus, each (rows, 256).

    The held-out documents are among those that the shipped model never read. With
    ``n_documents`` there are at most so many to train on, and a tenth as many held out.
    """

    def build(folder: Path) -> None:
        documents = corpus.documents(tasks.default_world())
        train_on, kept_out = split_documents(documents, n_documents)
        np.save(folder / "train.npy", corpus.pack(train_on, tokenizer, LENGTH))
        np.save(folder / "held_out.npy", corpus.pack(kept_out, tokenizer, LENGTH))

    spelling = tokenizer.backend_tokenizer.to_str().encode()
    key = {
        "tokenizer": hashlib.sha256(spelling).hexdigest()[:12],
        "length": LENGTH,
        "held_out": HELD_OUT,
        "n_documents": n_documents,
    }
    folder = cache.artifact("text_rows", build, key=key, code=[corpus])
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
    """Documents to train on, from the beginning, and held-out ones, from the end."""
    last = max(1, round(HELD_OUT * len(documents)))
    few = last if n_documents is None else max(1, min(last, n_documents // 10))
    return documents[:-last][:n_documents], documents[-few:]


def draw_rows(text: np.ndarray, n: int, seed: int) -> np.ndarray:
    """n different rows, in random order."""
    if n > len(text):
        raise ValueError(
            f"decay_steps asks for {n} rows of text and there are {len(text)}: "
            f"lower it to {len(text) // ROWS}, or raise n_documents"
        )
    return text[np.random.default_rng([seed, 7]).permutation(len(text))[:n]]


def draw_examples(tokenizer, budget: int, seed: int, loss_on: LossOn) -> list[Encoded]:
    """Examples of the instruction mixture, encoded: the fewest that have ``budget``
    tokens together."""
    drawn = tasks.mixture(budget // 16 + 1, seed=seed)  # the average has about 25
    columns = [{"prompt": e.prompt, "completion": e.completion} for e in drawn]
    encoded = encode(tokenizer, columns, loss_on)
    tokens = np.cumsum([len(example.input_ids) for example in encoded])
    return encoded[: int(np.searchsorted(tokens, budget)) + 1]


def _require_one_each(encoded: list[Encoded], updates: int) -> None:
    if len(encoded) < updates:
        raise ValueError(
            f"sft_share gives {len(encoded)} examples for {updates} updates, which "
            "need one each: raise it"
        )


def token_budget(others: int, share: float) -> int:
    """How many tokens make up ``share`` of the whole, next to ``others`` of another
    kind."""
    return round(share / (1 - share) * others)


def _tokens(encoded: list[Encoded]) -> int:
    return sum(len(example.input_ids) for example in encoded)


def _text_tokens(batch: dict[str, Tensor]) -> int:
    return batch["text_input_ids"].numel() if "text_input_ids" in batch else 0


def _example_tokens(batch: dict[str, Tensor]) -> int:
    return int(batch["attention_mask"].sum()) if "attention_mask" in batch else 0


# --- What is measured ---------------------------------------------------------------


def measure(
    model, tokenizer, held_out: np.ndarray, n_questions: int, n_facts: int
) -> dict:
    """Accuracy and format on held-out questions, loss on held-out text (nats per token)
    and recall of facts in statement form; questions and facts are always the same."""
    questions = tasks.mixture(n_questions, split="test", seed=0)
    scores = tuning.judge(questions, tuning.reply(model, tokenizer, questions))
    facts = untouched_facts(n_facts)
    right = pretrain.recall(model, tokenizer, tasks.default_world(), facts)
    loss = pretrain.heldout_loss(model, held_out)
    return scores | {"text_loss": loss, "recall": float(np.mean(right))}


def compare(before: dict, after: dict) -> dict:
    """What the model was like ``_before``, and its ``forgetting``: by how many nats per
    token the loss on held-out text rose."""
    names = ("accuracy", "format", "text_loss", "recall")
    earlier = {f"{name}_before": before[name] for name in names}
    return earlier | {"forgetting": after["text_loss"] - before["text_loss"]}


def untouched_facts(n: int) -> list:
    """n well-known facts about subjects that no training example asks about."""
    trained = tasks.trained_subjects()
    facts = [
        f for f in tasks.default_world().facts if f.known and f.subject not in trained
    ]
    order = np.random.default_rng([0, 8]).permutation(len(facts))
    return [facts[i] for i in order[:n]]


def _require_sensible(arm: str, sft_share: float, replay_share: float) -> None:
    if arm not in ARMS:
        raise ValueError(f"unknown arm {arm!r}: choose from {', '.join(ARMS)}")
    for name, share in (("sft_share", sft_share), ("replay_share", replay_share)):
        if not 0 < share < 1:
            raise ValueError(f"{name} is {share}: it must lie between 0 and 1")
