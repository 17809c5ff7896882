"""Figures of notebook 03. Seeds are thin lines or dots, exact values dashed lines."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import expit

from alignlab.evaluation.intervals import Interval
from alignlab.plots.style import (
    HATCHES,
    MARKERS,
    PALETTE,
    by_seed,
    dots,
    interval_line,
)


def votes(
    gaps: Sequence[float], shares: Sequence[float], temperature: float, annotators: int
):
    """Share of annotators who prefer the first reply of each pair against its lead in
    gold, and the Bradley–Terry curve that they are drawn from."""
    figure, axes = plt.subplots(figsize=(7, 3.6))
    axes.plot(gaps, shares, MARKERS[0], color=PALETTE[0], alpha=0.6, markersize=5)
    reach = max(np.abs(gaps)) * 1.05
    line = np.linspace(-reach, reach, 200)
    axes.plot(line, expit(line / temperature), "--", color="0.2", label="σ(Δ / T)")
    axes.set(
        ylim=(-0.03, 1.03),
        xlabel="gold of the first reply minus gold of the second",
        ylabel="share that prefers the first",
        title=f"Votes of {annotators} annotators on each pair",
    )
    axes.legend(loc="upper left")
    return figure


def accuracy(
    rows: Sequence[dict],
    ceiling: Mapping[float, float],
    flips: float,
    n_noise: int,
    tossed: Sequence[float],
):
    """Accuracy against the number of comparisons, and against the noise.

    Args:
        rows: of ``accuracy_sweep``, each with its ``gold`` and ``label`` accuracy.
        ceiling: for each rate of flips, the highest expected accuracy on such labels.
        flips: rate of the left panel.
        n_noise: comparisons in the right panel; a rate without arms of that many shows
            its largest ones.
        tossed: gold-order accuracies of the control, one for each pair of twins.
    """
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9.5, 3.9), sharey=True, width_ratios=(3, 2)
    )
    usual = [row for row in rows if row["flips"] == flips]
    for number, (measure, label) in enumerate(ORDERS.items()):
        ns, values = by_seed(usual, "n", measure)
        interval_line(left, np.log2(ns), values, label, number)
    best = {"linestyle": "--", "color": "0.2"}
    left.axhline(ceiling[flips], **best, label="best possible on labels")
    left.set_xticks(np.log2(ns), [f"{n:,}" for n in ns])
    left.set(
        xlabel=f"comparisons, {flips:.0%} of the labels wrong",
        ylabel="share of unseen pairs in order",
        title="More comparisons",
    )
    left.legend(loc="lower right", fontsize=9)
    ticks = []
    for place, rate in enumerate(sorted({row["flips"] for row in rows})):
        n, at_rate = _at_noise(rows, rate, n_noise)
        ticks.append(f"{rate:.0%}\nn = {n:,}")
        for number, measure in enumerate(ORDERS):
            spot, color = place + 0.12 * (2 * number - 1), PALETTE[number]
            values = [row[measure] for row in at_rate]
            right.plot([spot] * len(values), values, ".", color=color, alpha=0.5)
            right.plot(spot, np.mean(values), MARKERS[number], color=color)
        right.plot([place - 0.3, place + 0.3], [ceiling[rate]] * 2, **best)
    place = len(ticks)
    ticks.append(f"tossed\n{len(tossed)} twins")
    right.plot([place] * len(tossed), tossed, ".", color=PALETTE[0], alpha=0.3)
    right.plot(place, np.mean(tossed), MARKERS[0], color=PALETTE[0])
    right.plot([place - 0.3, place + 0.3], [0.5] * 2, **best)
    right.set_xticks(np.arange(len(ticks)), ticks)
    right.set(xlabel="labels that are wrong", title="More noise")
    return figure


ORDERS = {"gold": "against the gold order", "label": "against noisy labels"}


def _at_noise(rows: Sequence[dict], rate: float, n: int) -> tuple[int, list[dict]]:
    numbers = {row["n"] for row in rows if row["flips"] == rate}
    n = n if n in numbers else max(numbers)
    return n, [row for row in rows if row["flips"] == rate and row["n"] == n]


def floors(rows: Sequence[dict], floor: Mapping[str, float]):
    """Brier score and log loss against the number of comparisons, with their exact
    floors and the scores of a coin.

    Args:
        rows: with ``n``, ``brier`` and ``nll``, of one rate of flips.
        floor: of ``brier`` and of ``nll``.
    """
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.5))
    names = {"brier": "Brier score", "nll": "loss (nats per pair)"}
    coin = {"brier": 0.25, "nll": np.log(2)}
    for axes, (measure, name) in zip(panels, names.items(), strict=True):
        ns, values = by_seed(rows, "n", measure)
        interval_line(axes, np.log2(ns), values, "reward model")
        axes.axhline(floor[measure], linestyle="--", color="0.2", label="exact floor")
        axes.axhline(coin[measure], linestyle=":", color="0.5", label="a coin")
        axes.set_xticks(np.log2(ns), [f"{n:,}" for n in ns])
        axes.set(
            xlabel="comparisons",
            ylabel=name,
            title=name.partition(" (")[0].capitalize(),
        )
    panels[0].legend(loc="upper right", fontsize=9)
    return figure


def parts(seeds: Sequence[Mapping[str, Mapping[str, float]]]):
    """How much reward models depend on each part of gold.

    Args:
        seeds: for each seed, what ``analysis.seen_parts`` gives.
    """
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.5))
    names = list(seeds[0])
    texts = {
        "weight": (
            "worth of one unit of gold\n(form = 1)",
            "What the reward pays for",
            1.0,
        ),
        "accuracy": (
            "share in order",
            "Pairs that differ in this part only",
            0.5,
        ),
    }
    for axes, (measure, (ylabel, title, line)) in zip(
        panels, texts.items(), strict=True
    ):
        values = np.array([[seed[name][measure] for name in names] for seed in seeds])
        places = np.arange(len(names))
        axes.bar(
            places,
            values.mean(axis=0),
            0.6,
            color=[PALETTE[i] for i in places],
            hatch=[HATCHES[i] for i in places],
            edgecolor="white",
        )
        for row in values:
            axes.plot(places, row, "k.", markersize=5)
        axes.axhline(line, linestyle="--", color="0.2")
        pairs = [f"\n{seeds[0][name]['pairs']:,} pairs" for name in names]
        shown = pairs if measure == "accuracy" else [""] * len(names)
        axes.set_xticks(places, [f"{n}{p}" for n, p in zip(names, shown)])
        axes.set(ylabel=ylabel, title=title)
    panels[0].annotate("sees all alike", (len(names) - 0.55, 1.02), ha="right")
    panels[1].annotate("chance", (len(names) - 0.55, 0.51), ha="right")
    panels[1].set_ylim(0, 1.03)
    return figure


def kinds(arms: Mapping[str, Sequence[float]], title: str):
    """Gold-order accuracy of several kinds of reward: a dot for each seed."""
    figure, axes = plt.subplots(figsize=(7, 3.4))
    dots(axes, arms)
    axes.axhline(0.5, linestyle="--", color="0.2")
    axes.annotate("chance", (len(arms) - 0.55, 0.505), ha="right")
    axes.set_ylabel("share in the gold order")
    axes.set_title(title)
    return figure


def length(arms: Mapping[str, Sequence[float]], injected: float, recovered: Interval):
    """Length bias: of the annotators, as injected and as recovered from their labels,
    and of the reward models of each arm."""
    figure, axes = plt.subplots(figsize=(7, 3.4))
    axes.axhline(injected, linestyle="--", color="0.2", label="injected")
    axes.axhline(0, color="0.7", linewidth=1)
    axes.errorbar(
        [0], [recovered.value],
        [[recovered.value - recovered.low], [recovered.high - recovered.value]],
        fmt=MARKERS[1], color=PALETTE[1], capsize=5, label="recovered, 95%",
    )  # fmt: skip
    dots(axes, arms, shift=1)
    axes.set_xticks(np.arange(len(arms) + 1), ["labels", *arms])
    axes.set(
        xlim=(-0.5, len(arms) + 0.5),
        ylabel="gold per word",
        title="What one word more is worth (dots: seeds)",
    )
    axes.legend(fontsize=9)
    return figure


def raters(rows: Sequence[dict], domain: str):
    """Accuracy on the texts of each domain of reward models and bags of words trained
    on one, and of one person and of ten people.

    Args:
        rows: of ``raters.sweep``.
        domain: that was trained on.
    """
    figure, axes = plt.subplots(figsize=(7.5, 3.8))
    chosen = [row["accuracy"] for row in rows if row["domain"] == domain]
    domains = list(chosen[0])
    for number, kind in enumerate(("reward_model", "bag_of_words")):
        values = np.array([[seed[d][kind] for d in domains] for seed in chosen])
        places = np.arange(len(domains)) + 0.14 * (2 * number - 1)
        axes.plot(
            places, values.mean(axis=0), MARKERS[number], color=PALETTE[number],
            markersize=9, label=kind.replace("_", " "),
        )  # fmt: skip
        for row in values:
            axes.plot(places, row, ".", color=PALETTE[number], alpha=0.6)
    styles = {"one_rater": (":", "one person"), "panel": ("--", "ten people")}
    for kind, (style, label) in styles.items():
        for place, name in enumerate(domains):
            axes.plot(
                [place - 0.35, place + 0.35], [chosen[0][name][kind]] * 2, style,
                color="0.2", label=label if not place else None,
            )  # fmt: skip
    axes.axhline(0.5, color="0.7", linewidth=1)
    axes.set_xticks(np.arange(len(domains)), domains)
    axes.set(
        ylabel="share of pairs in the held-out order",
        title=f"Trained on people's judgement of {domain}",
    )
    axes.legend(loc=(0.01, 0.4), fontsize=9, ncols=2)  # between guessing and people
    return figure


def judging(
    author: Mapping[str, Sequence[float]], replies: Mapping[str, Sequence[float]]
):
    """Accuracy beyond guessing as author and as judge, and how often a reply beats a
    demonstration: one value for each seed.

    Args:
        author: accuracies by role. replies: win rates by how the reply was picked.
    """
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6))
    texts = (
        (author, "accuracy beyond guessing", "The same questions", None),
        (replies, "beats a demonstration", "Whole replies", 0.5),
    )
    for axes, (groups, ylabel, title, line) in zip(panels, texts, strict=True):
        dots(axes, groups)
        if line is not None:
            axes.axhline(line, linestyle="--", color="0.2")
        axes.set(ylabel=ylabel, title=title)
        axes.set_ylim(0, 1.03)
    return figure
