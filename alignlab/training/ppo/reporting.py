"""What a PPO run reports: numbers of each update, and tables of completions."""

import math
import time
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from alignlab.objectives import kl_estimate, masked_mean
from alignlab.training.ppo.rollout import Episodes


class Clock:
    """Seconds since it was made, and of each lap."""

    def __init__(self):
        self.start = self.last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[f"seconds_{name}"] = now - self.last
        self.last = now

    @property
    def total(self) -> float:
        return time.perf_counter() - self.start


def rollout_metrics(
    episodes: Episodes,
    scores: Float[Tensor, "batch"],
    function_rewards: Float[Tensor, "batch functions"],
    names: Sequence[str],
) -> dict[str, float]:
    """What the episodes say about the policy that was sampled. A reward function's mean
    is over the completions that it applies to, NaN if there are none."""
    mask = episodes.mask
    log_ratio = kl_estimate(episodes.old_log_probs, episodes.ref_log_probs, "k1")
    metrics = {
        "score": scores.mean().item(),
        "score_std": scores.std(correction=0).item(),
    }
    for name, column in zip(names, function_rewards.T, strict=True):
        metrics[f"reward/{name}"] = column[~column.isnan()].mean().item()
    metrics["kl"] = (log_ratio * mask).sum(1).mean().item()
    metrics["kl_exact"] = episodes.exact_kl.sum(1).mean().item()
    metrics["entropy"] = masked_mean(episodes.entropy, mask).item()
    metrics["completion_length"] = episodes.lengths.float().mean().item()
    metrics["eos_rate"] = episodes.ended.float().mean().item()
    return metrics


def completion_rows(
    prompts: list,
    texts: list[str],
    episodes: Episodes,
    scores: Float[Tensor, "batch"],
    function_rewards: Float[Tensor, "batch functions"],
    names: Sequence[str],
    first: int = 0,
) -> list[dict]:
    """One dict per prompt and completion; reward/NAME is None where that function does
    not apply.

    Args:
        first: where the first of them is among the episodes, beyond whose end come the
            first again.
    """
    places = (first + np.arange(len(texts))) % len(scores)
    own = episodes.take(places)
    kl = ((own.old_log_probs - own.ref_log_probs) * own.mask).sum(1)
    columns = {"prompt": prompts, "completion": texts, "score": scores[places].tolist()}
    for name, column in zip(names, function_rewards[places].T, strict=True):
        columns[f"reward/{name}"] = [None if x != x else x for x in column.tolist()]
    columns |= {
        "kl": kl.tolist(),
        "length": own.lengths.tolist(),
        "ended": own.ended.tolist(),
    }
    return [dict(zip(columns, row)) for row in zip(*columns.values(), strict=True)]


def mean_of(rows: list[dict[str, float]], name: str) -> float:
    """Mean over the rows that have this number, NaN if none has."""
    numbers = [row[name] for row in rows if name in row]
    applying = [x for x in numbers if x == x]  # a reward may apply in no episode
    return float(np.mean(applying)) if applying else math.nan


def print_completions(completions: list[dict], step: int) -> None:
    """Print completions as a table, with their scores."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Completions of update {step}", show_lines=True)
    for name in completions[0]:
        table.add_column(name)
    for row in completions:
        table.add_row(
            *(f"{x:.3g}" if isinstance(x, float) else str(x) for x in row.values())
        )
    Console().print(table)
