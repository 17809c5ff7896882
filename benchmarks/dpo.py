"""Our DPO beside `trl.DPOTrainer` and a bare PyTorch loop: the cost of a step, and of a
whole run.

Steps: all train the shipped model of a million parameters on the same pairs again and
again, and start at the same loss. Whole runs: from 512 pairs to the policy after one
epoch, preparation included. They take turns on one thread; times are medians of its CPU
seconds, so other load on the machine does not count, and ratios are medians over the
turns. Run it as `python benchmarks/dpo.py [turns]`.

* "trl": with its defaults, so in bfloat16 (its loss differs a little), with gradient
  checkpointing, and with the reference reading the pairs at every step.
* "trl, plain": `bf16=False, gradient_checkpointing=False`.
* "trl, reference once": that and `precompute_ref_log_probs=True`, as ours does.
* "bare": the batch is ready as tensors, chosen and rejected are separate rows, all
  logits are computed, nothing is logged.
* "bare, packed": the same with `alignlab.models.pairs`; what is left of the difference
  is our loop.
"""

import copy
import itertools
import logging
import os
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable

os.environ["TQDM_DISABLE"] = "1"

import torch
import torch.nn.functional as F
from datasets import Dataset, disable_progress_bars
from transformers import PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer

from alignlab.models.base import load_base
from alignlab.models.pairs import pair_log_probs
from alignlab.training.dpo import train_dpo
from alignlab.training.pairs import batches, encode_pairs, log_probs_of
from alignlab.training.sft import Encoded, collate

STEPS, BETA, RATE = 10, 0.1, 1e-4
PLAIN = dict(bf16=False, gradient_checkpointing=False)
ONCE = PLAIN | dict(precompute_ref_log_probs=True)
SUBJECTS = ("France", "Norway", "Japan", "Peru", "gold", "iron", "Kenya", "Canada")
FACTS = (
    "The capital of {} is Paris.",
    "The people of {} pay with the euro.",
    "One of its neighbours is Spain.",
    "{} lies in Europe.",
)
# A run takes ten steps and gives the thread's seconds per step, and the first loss.
Run = Callable[[], tuple[float, float]]


def preference_pairs(count: int, most: int) -> list[dict]:
    """Replies of 1 to ``most`` sentences to "Tell me about ..."."""
    pairs = []
    for number, subject in zip(range(count), itertools.cycle(SUBJECTS)):
        facts = itertools.islice(itertools.cycle(FACTS), number, number + 2 * most + 1)
        sentences = [fact.format(subject) for fact in facts]
        lengths = 1 + number % most, 1 + number // most % most
        replies = sentences[: lengths[0]], sentences[most + 1 :][: lengths[1]]
        texts = [f"Tell me about {subject}.", *map(" ".join, replies)]
        columns = ("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant")
        pairs.append(
            {
                name: [{"role": role, "content": text}]
                for (name, role), text in zip(columns, texts, strict=True)
            }
        )
    return pairs


class Stopwatch(TrainerCallback):
    """The thread's clock at the end of each step."""

    def on_train_begin(self, *_, **__):
        self.ends = []

    def on_step_end(self, *_, **__):
        self.ends.append(time.process_time())


def seconds_per_step(ends: list[float]) -> float:
    """The first step also starts things up, so it only starts the clock."""
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def trl_trainer(policy, reference, tokenizer, pairs, batch_size, **settings):
    trainer = DPOTrainer(
        copy.deepcopy(policy),
        copy.deepcopy(reference),
        DPOConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=batch_size,
            learning_rate=RATE,
            beta=BETA,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **settings,
        ),
        train_dataset=Dataset.from_list(pairs),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def trl_run(policy, reference, tokenizer, pairs, **settings) -> Run:
    settings |= dict(max_steps=STEPS + 1, train_sampling_strategy="sequential")
    settings |= dict(logging_first_step=True)
    repeated = (STEPS + 1) * pairs
    trainer = trl_trainer(
        policy, reference, tokenizer, repeated, len(pairs), **settings
    )
    watch = Stopwatch()
    trainer.add_callback(watch)

    def run() -> tuple[float, float]:
        trainer.train()
        return seconds_per_step(watch.ends), trainer.state.log_history[0]["loss"]

    return run


def our_run(policy, reference, tokenizer, pairs) -> Run:
    policy = copy.deepcopy(policy)

    def run() -> tuple[float, float]:
        ends: list[float] = []
        history = train_dpo(
            policy,
            tokenizer,
            pairs,
            reference=reference,
            beta=BETA,
            steps=STEPS + 1,
            batch_size=len(pairs),
            learning_rate=RATE,
            progress=False,
            on_log=lambda row: ends.append(time.process_time()),
        )
        return seconds_per_step(ends), history[0]["loss"]

    return run


def bare_run(policy, reference, tokenizer, pairs, packed: bool) -> Run:
    policy, pad = copy.deepcopy(policy).train(), tokenizer.pad_token_id
    encoded = encode_pairs(tokenizer, pairs)
    columns = dict(zip(("chosen", "rejected"), log_probs_of(reference, encoded, pad)))
    rows = next(batches(encoded, columns, len(pairs), 0, pad))
    texts = [
        Encoded(pair.prompt + reply, [0] * len(pair.prompt) + [1] * len(reply))
        for side in (1, 2)
        for pair in encoded
        for reply in [pair[side]]
    ]
    apart = collate(texts, pad)
    fixed = (rows["chosen"], rows["rejected"]) if packed else tuple(columns.values())
    optimizer = torch.optim.AdamW(policy.parameters(), lr=RATE, fused=True)

    def log_probs() -> tuple[torch.Tensor, torch.Tensor]:
        if packed:
            return pair_log_probs(policy, rows)
        ids, mask = apart["input_ids"], apart["mask"][:, 1:]
        logits = policy(ids, attention_mask=apart["attention_mask"]).logits[:, :-1]
        of_tokens = logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        return (of_tokens * mask).sum(1).chunk(2)

    def run() -> tuple[float, float]:
        ends, first = [], None
        for _ in range(STEPS + 1):
            chosen, rejected = log_probs()
            margin = (chosen - fixed[0]) - (rejected - fixed[1])
            loss = -F.logsigmoid(BETA * margin).mean()
            first = loss.item() if first is None else first
            loss.backward()
            torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            ends.append(time.process_time())
        return seconds_per_step(ends), first

    return run


def compare_steps(count: int, most: int, turns: int) -> None:
    reference, tokenizer = load_base()
    pairs = preference_pairs(count, most)
    policy = copy.deepcopy(reference)
    torch.manual_seed(0)
    with torch.no_grad():  # moved, or all would start at log 2, right or wrong
        for parameter in policy.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    case = policy, reference, tokenizer, pairs
    runs = {
        "trl": trl_run(*case),
        "trl, plain": trl_run(*case, **PLAIN),
        "trl, reference once": trl_run(*case, **ONCE),
        "bare": bare_run(*case, packed=False),
        "bare, packed": bare_run(*case, packed=True),
        "ours": our_run(*case),
    }
    losses = {name: run()[1] for name, run in runs.items()}  # also warms up
    for name, loss in losses.items():
        assert abs(loss - losses["ours"]) < (0.02 if name == "trl" else 1e-4), losses
    title = f"a step on {count} pairs, {lengths_of(tokenizer, pairs)}"
    report(title, in_turns({n: lambda run=r: run()[0] for n, r in runs.items()}, turns))


def compare_whole_runs(turns: int) -> None:
    reference, tokenizer = load_base()
    pairs, size = preference_pairs(512, 4), 32
    random.Random(0).shuffle(pairs)

    def theirs(**settings):
        settings |= dict(num_train_epochs=1)
        trl_trainer(reference, reference, tokenizer, pairs, size, **settings).train()

    def ours():
        train_dpo(
            copy.deepcopy(reference),
            tokenizer,
            pairs,
            beta=BETA,
            steps=len(pairs) // size,
            batch_size=size,
            learning_rate=RATE,
            progress=False,
        )

    def seconds_of(run) -> float:
        start = time.process_time()
        run()
        return time.process_time() - start

    runs = {
        "trl": theirs,
        "trl, plain": lambda: theirs(**PLAIN),
        "trl, reference once": lambda: theirs(**ONCE),
        "ours": ours,
    }
    title = f"a run over 512 pairs, {lengths_of(tokenizer, pairs)}"
    runs = {name: lambda run=run: seconds_of(run) for name, run in runs.items()}
    report(title, in_turns(runs, turns))


def in_turns(
    runs: dict[str, Callable[[], float]], turns: int
) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(turns):
        for name in list(runs) if turn % 2 else reversed(runs):
            seconds[name].append(runs[name]())
    return seconds


def lengths_of(tokenizer, pairs) -> str:
    lengths = [
        len(pair.prompt) + len(pair[side])
        for pair in encode_pairs(tokenizer, pairs)
        for side in (1, 2)
    ]
    mean = sum(lengths) / len(lengths)
    return f"texts of {min(lengths)} to {max(lengths)} tokens, {mean:.0f} on average"


def report(title: str, times: dict[str, list[float]]) -> None:
    print(f"\n{title}")
    print(f"{'':21}{'CPU time':>12}{'a second':>11}{'against ours':>14}")
    for name, seconds in times.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, times["ours"]))
        middle = statistics.median(seconds)
        print(f"{name:21}{1e3 * middle:9.0f} ms{1 / middle:11.2f}{ratio:14.2f}")
    sys.stdout.flush()


def main(turns: int = 9) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    disable_progress_bars()
    torch.set_num_threads(1)
    for count, most in ((32, 1), (32, 4), (8, 4)):
        compare_steps(count, most, turns)
    compare_whole_runs(max(1, turns // 3))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
