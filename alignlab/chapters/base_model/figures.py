"""Figures of notebook 00: what the base model expects and knows, how it answers."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np

from alignlab.evaluation.intervals import wilson_interval
from alignlab.plots.style import HATCHES, PALETTE


def surprise_bars(axes, tokens: Sequence[str], log_probs: Sequence[float], title: str):
    """Surprise of each token of a text, minus its log-probability, in nats."""
    places = np.arange(len(tokens))
    axes.bar(places, -np.asarray(log_probs), color=PALETTE[0])
    axes.set_xticks(places, [t.strip() for t in tokens], rotation=60, ha="right")
    axes.set(ylabel="surprise (nats)", title=title)
    return axes


def exposures(world):
    """How often pretraining states each fact, most frequent first."""
    figure, axes = plt.subplots(figsize=(7, 3))
    shown = sorted((f.exposure for f in world.facts), reverse=True)
    axes.plot(np.arange(1, len(shown) + 1), shown, color=PALETTE[0])
    never = sum(e == 0 for e in shown)
    axes.axvspan(len(shown) - never, len(shown), color="0.9")
    axes.annotate(
        f"never shown: {never} facts", (len(shown), 0.9 * shown[0]), ha="right"
    )
    axes.set(
        xlabel="facts, most frequent first",
        ylabel="sentences that state it",
        title="How often the base model reads each fact",
    )
    return figure


def recall(rows: Sequence[dict], chance: float, threshold: int):
    """Share of facts completed rightly, by exposure, with Wilson intervals."""
    figure, axes = plt.subplots(figsize=(7, 3.6))
    places = np.arange(len(rows))
    rates = [wilson_interval(round(r["recall"] * r["facts"]), r["facts"]) for r in rows]
    # At 0 and 1 a limit equals the rate, and rounding can put it on the wrong side.
    below = [max(rate.value - rate.low, 0) for rate in rates]
    above = [max(rate.high - rate.value, 0) for rate in rates]
    values = [rate.value for rate in rates]
    axes.errorbar(places, values, (below, above), fmt="o-", color=PALETTE[0], capsize=3)
    axes.axhline(chance, linestyle="--", color="0.3")
    axes.annotate(
        "best guess without the fact", (places[-1], chance), ha="right", va="bottom"
    )
    names = [f"{r['from']}–{r['to']}" if r["to"] else "never" for r in rows]
    axes.set_xticks(places, names, rotation=30, ha="right")
    axes.set(
        ylim=(0, 1.03),
        xlabel=f"times the fact was read ({threshold} and more: known by design)",
        ylabel="share completed rightly",
        title="What it has read often, it can complete",
    )
    return figure


def answering(groups: dict[str, dict[str, Sequence[float]]]):
    """A bar per way to ask and measure, from ``groups[way][measure]``: one per seed."""
    figure, axes = plt.subplots(figsize=(7, 3.4))
    measures = list(next(iter(groups.values())))
    width = 0.8 / len(measures)
    for number, measure in enumerate(measures):
        places = np.arange(len(groups)) + (number - (len(measures) - 1) / 2) * width
        seeds = [groups[way][measure] for way in groups]
        means = [np.mean(s) for s in seeds]
        axes.bar(
            places,
            means,
            0.9 * width,
            label=measure,
            color=PALETTE[number],
            hatch=HATCHES[number],
            edgecolor="white",
        )
        for place, values in zip(places, seeds, strict=True):
            axes.plot([place] * len(values), values, "k.", markersize=4)
    axes.set_xticks(np.arange(len(groups)), list(groups))
    axes.set(
        ylim=(0, 1.05),
        ylabel="share of replies",
        title="The same questions, asked three ways (dots: seeds)",
    )
    axes.legend(loc="upper left")
    return figure
