"""The training loop that pretraining, SFT, reward models and DPO share.

The learning rate first, then one pass over the steps. The loss function decides what is
learned.
"""

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from alignlab.errors import AlignlabError
from alignlab.models.base import modes_restored
from alignlab.models.fit import require_trainable, says_how_to_save_memory
from alignlab.models.lean import lean_layers
from alignlab.seeds import torch_seed

Schedule = Literal["constant", "linear", "cosine", "wsd"]
Batch = dict[str, Tensor]
Logs = Mapping[str, float | Tensor]
LossFunction = Callable[[nn.Module, Batch], tuple[Tensor, Logs]]


def lr_at(
    step: int,
    *,
    steps: int,
    learning_rate: float,
    schedule: Schedule = "cosine",
    warmup: int = 0,
    decay: int = 0,
) -> float:
    """The learning rate of one step; the first is step 0.

    Every schedule rises linearly over ``warmup`` steps and is at ``learning_rate`` in
    the last of them. Then "constant" stays there; "linear" and "cosine" fall towards
    zero, which they would reach at ``step == steps``; "wsd" (warm-up, stable, decay)
    stays until ``decay`` steps are left and falls linearly over those.

    Before it decays, a "wsd" run does not depend on its length. So one run with
    ``decay=0`` can be continued by any number of decays, each as if it had had that
    length from the start: mid-training branches off like this.

    Source: Loshchilov & Hutter (2017) for cosine; Hu et al. (2024, MiniCPM) for "wsd".
    """
    if step < warmup:
        return learning_rate * (step + 1) / warmup
    if schedule == "constant":
        return learning_rate
    if schedule == "wsd":
        return learning_rate * min(1.0, (steps - step) / max(decay, 1))
    left = (steps - step) / max(steps - warmup, 1)  # from 1 down to 0
    if schedule == "linear":
        return learning_rate * left
    return learning_rate * 0.5 * (1 - math.cos(math.pi * left))


def len_of_batch(batch: Batch) -> int:
    """Its rows."""
    return len(next(iter(batch.values())))


def train(
    model: nn.Module,
    batches: Iterable[Batch | list[Batch]],
    loss_fn: LossFunction,
    *,
    steps: int,
    learning_rate: float,
    schedule: Schedule = "cosine",
    warmup: int | None = None,
    decay: int | None = None,
    weight_decay: float = 0.0,
    max_grad_norm: float = 1.0,
    disable_dropout: bool = False,
    seed: int = 0,
    checkpoint: Path | None = None,
    checkpoint_every: int = 500,
    progress: bool = True,
    description: str = "training",
    log_every: int = 1,
    on_log: Callable[[dict], None] | None = None,
    weigh: Callable[[Batch], int] = len_of_batch,
    autocast: str | None = None,
    gradient_checkpointing: bool = False,
) -> list[dict]:
    """Train a model in place with AdamW and return its history.

    Args:
        model: anything with parameters; those that need no gradient stay as they are.
            It ends in the mode it came in, also after an error.
        batches: one dict of tensors per step, the same ones in the same order every
            time: a resumed run starts the iterable anew and skips the steps it has
            already taken. Or a list of dicts, the parts of a batch too large for
            memory: their gradients add up to the batch's (see ``weigh``).
        loss_fn: ``loss_fn(model, batch)`` gives the loss, a mean over the batch, and
            numbers to log, also as tensors without dimensions.
        steps: optimizer steps in all, including those of an earlier interrupted run.
        learning_rate: the peak. Higher learns faster until it diverges; about 1e-3
            suits a million parameters, 1e-5 a billion.
        schedule, warmup, decay: see :func:`lr_at`. By default a twentieth of the steps
            warm up, and under "wsd" a fifth decay.
        weight_decay: pull of the weight matrices towards zero; higher keeps them
            smaller. Embeddings, norms and biases are exempt.
        max_grad_norm: longer gradients are scaled down to this length; lower is
            steadier and slower.
        disable_dropout: see :func:`set_training_mode`.
        seed: of what the model draws while it trains (dropout).
        checkpoint: a file for the state of the run. If it exists, the run continues
            from there and ends with the same bits as one that never stopped. A finished
            run can be continued with more steps if the learning rates of the steps
            already taken stay the same.
        checkpoint_every: steps between two writes of that file; the last step always
            writes it.
        progress: show a bar with the loss and tokens per second.
        log_every: keep the row of every so many steps, and of the last. On a GPU the
            host waits for the numbers of those steps only; higher is faster, and a loss
            that is not finite shows as late.
        on_log: called with each row that is kept.
        weigh: of how many things a part's loss is the mean, so that parts count by
            them; by default its rows.
        autocast: "bfloat16" or another dtype that matrix products are computed in, from
            weights that stay as they are; None computes in the weights' own.
        gradient_checkpointing: True keeps only each layer's input for the backward
            pass, and computes the rest again: less memory, a third more time.

    Returns:
        Rows with step (1 for the first), loss (of that step, in the loss function's
        units), learning_rate, grad_norm (before clipping), tokens and seconds (both
        since the start), and what the loss function logs.

    Raises:
        AlignlabError: if no parameter requires a gradient, the loss or the norm of the
            gradient is not finite, the batches or the memory run out, or the checkpoint
            is damaged or belongs to another run.
        ValueError: if a hyperparameter is out of range.
    """
    rate = partial(
        lr_at,
        steps=steps,
        learning_rate=learning_rate,
        schedule=schedule,
        warmup=max(1, steps // 20) if warmup is None else warmup,
        decay=max(1, steps // 5) if decay is None else decay,
    )
    _require_valid_schedule(**rate.keywords)
    require_trainable(model, "model")
    torch.manual_seed(torch_seed(seed, "dropout"))
    device = next(model.parameters()).device
    optimizer = _adamw(model, weight_decay)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    done, tokens, earlier, history = 0, 0, 0.0, []
    unread: list[Logs] = []  # numbers of the steps since the host last looked
    if checkpoint is not None and Path(checkpoint).exists():
        done, tokens, earlier, history = _load(checkpoint, model, optimizer)
        _require_same_run(checkpoint, done, steps, history, rate)

    start = time.perf_counter()
    iterator = islice(iter(batches), done, None)
    bar = tqdm(total=steps, initial=done, desc=description, disable=not progress)
    with (
        modes_restored(model),
        _checkpointing(model, gradient_checkpointing),
        lean_layers(model),
        says_how_to_save_memory(REMEDY),
        bar,
    ):
        set_training_mode(model, dropout=not disable_dropout)
        for step in range(done, steps):
            batch = next(iterator, None)
            if batch is None:
                raise AlignlabError(
                    f"The batches ended after {step} of {steps} steps.",
                    "Pass batches that never end, or ask for fewer steps.",
                )
            parts = batch if isinstance(batch, list) else [batch]
            tokens += sum(map(count_tokens, parts))
            for group in optimizer.param_groups:
                group["lr"] = rate(step)

            weights = [weigh(part) for part in parts] if len(parts) > 1 else [1]
            compute = partial(_gradient, model, loss_fn, device=device, dtype=autocast)
            loss, logs = compute(parts, weights)
            grad_norm = nn.utils.clip_grad_norm_(parameters, max_grad_norm)
            unread.append({"loss": loss, "grad_norm": grad_norm, **logs})
            last = step + 1 == steps
            keep = last or (step + 1) % log_every == 0
            save = checkpoint and (last or (step + 1) % checkpoint_every == 0)
            if keep or save or device.type == "cpu":
                numbers = read(unread)
                _require_finite(numbers, step, description, learning_rate)
                unread.clear()
            optimizer.step()
            optimizer.zero_grad()

            seconds = earlier + time.perf_counter() - start
            bar.update()
            speed = f"{tokens / seconds:,.0f} tokens/s"
            if not unread:
                loss = numbers[-1]["loss"]
                bar.set_postfix_str(f"loss {loss:.3f}, {speed}", refresh=False)
            if keep:
                row = {"step": step + 1, "loss": None, "learning_rate": rate(step)}
                row |= {"grad_norm": None, "tokens": tokens, "seconds": seconds}
                history.append(row | numbers[-1])
                if on_log is not None:
                    on_log(history[-1])
            if save:
                state = (step + 1, tokens, seconds, history)
                _save(checkpoint, model, optimizer, state)
    return history


REMEDY = (
    "Cut each batch into more parts (accumulate), set gradient_checkpointing=True, "
    "train adapters (LoRA) instead of all weights, or leave out the longest texts."
)


@contextmanager
def _checkpointing(model: nn.Module, wanted: bool) -> Iterator[None]:
    parts = model.modules()
    if not wanted or any(getattr(p, "gradient_checkpointing", False) for p in parts):
        yield
        return
    # `transformers` is about to change the first word of both names.
    new = hasattr(model, "activation_checkpointing_enable")
    name = "activation_checkpointing" if new else "gradient_checkpointing"
    getattr(model, f"{name}_enable")({"use_reentrant": False})
    try:
        yield
    finally:
        getattr(model, f"{name}_disable")()


def _gradient(
    model: nn.Module,
    loss_fn: LossFunction,
    parts: list[Batch],
    weights: list[int],
    *,
    device: torch.device,
    dtype: str | None,
) -> tuple[Tensor, Logs]:
    """Add the gradient of a batch in parts; its loss, and what it logs, as means."""
    context = nullcontext()
    if dtype is not None:
        context = torch.autocast(device.type, getattr(torch, dtype))
    total, sums = sum(weights), {}
    for part, weight in zip(parts, weights, strict=True):
        part = {name: x.to(device, non_blocking=True) for name, x in part.items()}
        with context:
            loss, logs = loss_fn(model, part)
        if len(parts) == 1:
            loss.backward()
            return loss.detach(), logs
        share = weight / total
        (share * loss).backward()
        for name, x in {"loss": loss.detach(), **logs}.items():
            sums[name] = sums.get(name, 0) + share * x
    return sums.pop("loss"), sums


def read(rows: list[Logs]) -> list[dict[str, float]]:
    """The same rows in numbers. The host waits for a GPU once for all of them."""
    tensors = [x for row in rows for x in row.values() if isinstance(x, Tensor)]
    if not tensors:
        return [dict(row) for row in rows]
    values = iter(torch.stack([exact(x.detach()) for x in tensors]).tolist())
    return [
        {name: next(values) if isinstance(x, Tensor) else x for name, x in row.items()}
        for row in rows
    ]


def exact(x: Tensor) -> Tensor:
    """In float64, as Python computes, where the device has that."""
    return x.float() if x.device.type == "mps" else x.double()


def _require_finite(
    rows: list[dict[str, float]], step: int, description: str, learning_rate: float
) -> None:
    """Stop at the first of the last steps whose loss or gradient has exploded."""
    for number, row in enumerate(rows, start=step - len(rows) + 2):
        if not math.isfinite(row["loss"]) or not math.isfinite(row["grad_norm"]):
            raise AlignlabError(
                f"At step {number} of {description} the loss is {row['loss']} "
                f"and the norm of its gradient {row['grad_norm']}.",
                f"Lower learning_rate (now {learning_rate}), or look at that batch.",
            )


def set_training_mode(model: nn.Module, dropout: bool = True) -> None:
    """Put a model in training mode, with or without its dropout.

    Without dropout every module is in eval mode, except those that checkpoint their
    activations, which they do in training mode only. Losses that compare the policy
    with a reference, or two completions with each other, go without: dropout adds noise
    to the log-ratios, and a policy that equals its reference no longer starts at
    DPO's log 2. It also fights overfitting, so fine-tuning keeps it.
    """
    model.train(dropout)
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            module.training = True


def count_tokens(batch: dict[str, Tensor]) -> int:
    """Real tokens of a batch: those of each ``*input_ids`` that its attention mask
    keeps."""
    total = 0
    for name, ids in batch.items():
        if name.endswith("input_ids"):
            mask = batch.get(name.removesuffix("input_ids") + "attention_mask")
            total += ids.numel() if mask is None else int(mask.sum())
    return total


def _adamw(model: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """AdamW with betas 0.9 and 0.95: gradients of language models change fast, so their
    squares are averaged over some 20 steps. ``fused`` passes over the memory once: on a
    million parameters and one core, 0.7 ms per step instead of 3 ms."""
    embeddings = {m.weight for m in model.modules() if isinstance(m, nn.Embedding)}
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim >= 2 and p not in embeddings]
    others = [p for p in trained if p.ndim < 2 or p in embeddings]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)


def _save(checkpoint: Path, model: nn.Module, optimizer, progress: tuple) -> None:
    """Write beside the checkpoint, then rename: a kill leaves the old one intact."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": progress,
        "random": torch.get_rng_state(),
        "cuda": cuda,
    }
    checkpoint = Path(checkpoint)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    unfinished = checkpoint.with_name(checkpoint.name + ".tmp")
    torch.save(state, unfinished)
    os.replace(unfinished, checkpoint)


def _load(checkpoint: Path, model: nn.Module, optimizer) -> tuple:
    remedy = "Delete it to start again, or pass another file."
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except Exception as error:  # torch has many kinds for a file that does not fit
        reason = str(error).splitlines()[0]
        raise AlignlabError(
            f"Cannot continue from checkpoint {checkpoint}: {reason}", remedy
        ) from error
    torch.set_rng_state(state["random"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    return state["progress"]


def _require_valid_schedule(*, steps, learning_rate, schedule, warmup, decay) -> None:
    if schedule not in Schedule.__args__:
        raise ValueError(
            f"schedule is {schedule!r}; it can be one of {Schedule.__args__}"
        )
    if steps < 1 or not learning_rate > 0:
        raise ValueError(
            f"steps is {steps} and learning_rate {learning_rate}: both must be > 0"
        )
    if warmup < 0 or decay < 0 or (schedule == "wsd" and warmup + decay > steps):
        raise ValueError(
            f"warmup is {warmup} and decay {decay} of {steps} steps: "
            "neither can be negative, and together they must fit"
        )


def _require_same_run(checkpoint, done: int, steps: int, history, rate) -> None:
    remedy = "Delete it to start again, pass another file, or set that back."
    if done > steps:
        raise AlignlabError(
            f"Checkpoint {checkpoint} is at step {done}, past the {steps} asked for.",
            remedy,
        )
    for row in history:
        then, now = row["learning_rate"], rate(row["step"] - 1)
        if then != now:
            raise AlignlabError(
                f"Checkpoint {checkpoint} took step {row['step']} at learning rate "
                f"{then:g}; with this learning_rate, schedule, warmup, decay and steps "
                f"it would have been {now:g}.",
                remedy,
            )
