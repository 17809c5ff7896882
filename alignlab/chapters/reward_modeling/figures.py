"""Figures of notebook 03. Seeds are thin lines or dots, bars their 95% intervals, exact
values dashed lines."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import expit

from alignlab.evaluation.intervals import Interval, t_interval
from alignlab.plots.calibration import reliability_diagram
from alignlab.plots.style import (
    MARKERS,
    PALETTE,
    by_seed,
    dots,
    interval_line,
    series_style,
)

EXACT = {"linestyle": "--", "color": "0.2"}
CHANCE = {"linestyle": ":", "color": "0.4"}


def spread(axes, groups: Mapping[str, Sequence[float]], number=0, shift=0.0):
    """A dot for each seed, their mean and its 95% t-interval, a column each group."""
    dots(axes, groups, number, shift)
    for place, values in enumerate(groups.values()):
        if len(values) > 1:
            mean, low, high = t_interval(values)
            axes.errorbar(
                place + shift + 0.22, mean, [[mean - low], [high - mean]],
                color="0.2", capsize=4, linewidth=1.5,
            )  # fmt: skip


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
    curve: Sequence[dict],
    noise: Sequence[dict],
    twins: Sequence[dict],
    ceiling: Mapping[float, float],
    title: str,
):
    """Accuracy against the number of comparisons, and against the noise.

    Args:
        curve: rows with ``n``, ``flips``, ``seed``, ``gold`` and ``label``, of several
            sizes at one rate of wrong labels.
        noise: rows of several rates at one size.
        twins: rows of models that learnt from reversed labels.
        ceiling: for each rate, the highest expected accuracy on such labels.
        title: what there is to see.
    """
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9.5, 4.2), sharey=True, width_ratios=(3, 2)
    )
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    for number, (measure, label) in enumerate(ORDERS.items()):
        ns, values = by_seed(curve, "n", measure)
        interval_line(left, np.log2(ns), values, label, number)
    flips = curve[0]["flips"]
    left.axhline(ceiling[flips], **EXACT, label="best possible on labels")
    twin = [np.log2(row["n"]) for row in twins], [row["gold"] for row in twins]
    left.plot(*twin, MARKERS[2], color=PALETTE[2], label="labels reversed (gold order)")
    left.set_xticks(np.log2(ns), [f"{n:,}" for n in ns])
    left.set(
        xlabel=f"comparisons, {flips:.0%} of the labels wrong",
        ylabel="share of unseen pairs in order",
        title="More comparisons",
    )
    rates = sorted({row["flips"] for row in noise})
    for number, measure in enumerate(ORDERS):
        groups = {
            f"{rate:.0%}": [row[measure] for row in noise if row["flips"] == rate]
            for rate in rates
        }
        spread(right, groups, number, 0.24 * (number - 0.5))
    for place, rate in enumerate(rates):
        right.plot([place - 0.4, place + 0.4], [ceiling[rate]] * 2, **EXACT)
    sizes = {row["n"] for row in noise}
    right.set(
        xlabel="labels that are wrong",
        title=f"More noise (n = {max(sizes):,})",
    )
    for axes in (left, right):
        axes.axhline(0.5, **CHANCE)
    left.plot([], [], **CHANCE, label="chance")
    left.legend(fontsize=8, loc="best")
    return figure


ORDERS = {"gold": "against the gold order", "label": "against noisy labels"}


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
        axes.axhline(floor[measure], **EXACT, label="exact floor")
        axes.axhline(coin[measure], **CHANCE, label="a coin")
        axes.set_xticks(np.log2(ns), [f"{n:,}" for n in ns])
        axes.set(
            xlabel="comparisons",
            ylabel=name,
            title=name.partition(" (")[0].capitalize(),
        )
    panels[0].legend(loc="center right", fontsize=9)
    return figure


def parts(seeds: Sequence[Mapping[str, Mapping[str, float]]], title: str):
    """What makes gold differ, and how much reward models depend on each part of it.

    Args:
        seeds: for each seed, what ``analysis.seen_parts`` gives.
        title: what there is to see.
    """
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.9))
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    names = list(seeds[0])
    texts = {
        "share": ("share of the variance of gold", "What there is to see", 0.0),
        "weight": ("log-odds for one unit of gold", "What it pays for", 0.0),
        "accuracy": ("share in order", "Pairs that differ in this alone", 0.5),
    }
    for axes, (measure, text) in zip(panels, texts.items(), strict=True):
        ylabel, heading, line = text
        groups = {name: [seed[name][measure] for seed in seeds] for name in names}
        if measure == "accuracy":
            pairs = {name: np.mean([seed[name]["pairs"] for seed in seeds])
                     for name in names}  # fmt: skip
            groups = {
                f"{name}\n{pairs[name]:,.0f} pairs": [v for v in values if v == v]
                for name, values in groups.items()
            }
            axes.set_ylim(0, 1.03)
        spread(axes, {k: v or [np.nan] for k, v in groups.items()})
        axes.axhline(line, **CHANCE)
        axes.tick_params(axis="x", labelsize=9)
        axes.set(ylabel=ylabel, title=heading)
    return figure


def kinds(arms: Mapping[str, Sequence[float]], title: str):
    """Gold-order accuracy of several kinds of reward."""
    figure, axes = plt.subplots(figsize=(7.5, 3.6))
    spread(axes, arms)
    axes.axhline(0.5, **CHANCE)
    axes.annotate("chance", (len(arms) - 0.55, 0.502), ha="right", fontsize=9)
    axes.tick_params(axis="x", labelsize=9)
    axes.set(ylabel="share in the gold order", title=title)
    return figure


def chains(values: Mapping[int, Sequence[float]], title: str):
    """Gold-order accuracy of several reward models on each reference: a column for each
    reference, named by its seed."""
    figure, axes = plt.subplots(figsize=(7, 3.4))
    for place, on_reference in enumerate(values.values()):
        style = series_style(place, "color", "marker")
        axes.plot([place] * len(on_reference), on_reference, linestyle="", **style)
        mean = [np.mean(on_reference)] * 2
        axes.plot([place - 0.2, place + 0.2], mean, color="0.2")
    axes.set_xticks(range(len(values)), [str(seed) for seed in values])
    axes.set(
        xlabel="seed of the reference policy and its replies",
        ylabel="share in the gold order",
        title=title,
    )
    return figure


def length(arms: Mapping[str, Sequence[float]], injected: float, recovered: Interval):
    """Length bias in log-odds per word: of the annotators, as injected and as recovered
    from their labels, and of the reward models of each arm."""
    figure, axes = plt.subplots(figsize=(7.5, 3.6))
    axes.axhline(injected, **EXACT, label="injected")
    axes.axhline(0, **CHANCE, label="no taste for length")
    axes.errorbar(
        [0], [recovered.value],
        [[recovered.value - recovered.low], [recovered.high - recovered.value]],
        fmt=MARKERS[1], color=PALETTE[1], capsize=5, label="recovered, 95%",
    )  # fmt: skip
    spread(axes, arms, shift=1)
    axes.set_xticks(np.arange(len(arms) + 1), ["labels", *arms])
    axes.tick_params(axis="x", labelsize=9)
    axes.set(
        xlim=(-0.5, len(arms) + 0.5),
        ylabel="log-odds for one word",
        title="What one word more is worth",
    )
    axes.legend(fontsize=9)
    return figure


def raters(rows: Sequence[dict], title: str):
    """Accuracy on the texts of each domain of reward models and bags of words that
    learnt from one of them, and of one person and of ten people.

    Args:
        rows: of ``raters.sweep``.
        title: what there is to see.
    """
    figure, axes = plt.subplots(figsize=(8, 4))
    seeds = [row["accuracy"] for row in rows]
    domains = list(seeds[0])
    for number, kind in enumerate(("reward_model", "bag_of_words")):
        groups = {d: [seed[d][kind] for seed in seeds] for d in domains}
        spread(axes, groups, number, 0.3 * (number - 0.6))
        label = kind.replace("_", " ")
        axes.plot([], [], MARKERS[number], color=PALETTE[number], label=label)
    styles = {"one_rater": ("-.", "one person"), "panel": ("--", "ten people")}
    for kind, (style, label) in styles.items():
        for place, name in enumerate(domains):
            axes.plot(
                [place - 0.35, place + 0.35], [seeds[0][name][kind]] * 2, style,
                color="0.2", label=label if not place else None,
            )  # fmt: skip
    axes.axhline(0.5, **CHANCE, label="chance")
    axes.set(ylabel="share in the held-out order", title=title)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)
    return figure


def calibration(calibrated: Mapping[str, np.ndarray]):
    """Reliability of a reward model's own choices as it is and with a temperature.

    Args:
        found: what ``analysis.calibrate`` gives.
    """
    figure, panels = plt.subplots(1, 2, figsize=(9.5, 5))
    titles = {
        "sure": "As it is",
        "repaired": f"Rewards divided by {calibrated['temperature']:.2f}",
    }
    for number, (axes, (name, title)) in enumerate(zip(panels, titles.items())):
        reliability_diagram(
            calibrated[name],
            calibrated["right"],
            ax=axes,
            label="first seed",
            color=number,
        )
        axes.legend(loc="upper left", fontsize=9)
        axes.set_title(title)
    return figure


def judging(
    answers: Mapping[str, Sequence[float]],
    qualities: Sequence[float],
    wins: Mapping[str, Sequence[Sequence[float]]],
    title: str,
):
    """Accuracy beyond guessing as author and as judge, and how often a reply beats
    demonstrations by writers of several qualities.

    Args:
        answers: accuracies by role, a value for each seed.
        qualities: of the writers.
        wins: by how the reply was picked, win rates for each seed and quality.
        title: what there is to see.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2))
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    spread(left, answers)
    left.axhline(0, **CHANCE)
    left.tick_params(axis="x", labelsize=9)
    left.set(ylabel="accuracy beyond guessing", title="The same questions")
    for number, (how, rates) in enumerate(wins.items()):
        interval_line(right, qualities, rates, how, number)
    right.axhline(0.5, **CHANCE)
    right.set(
        xlabel="quality of the demonstrations' writers",
        ylabel="beats a demonstration",
        title="Whole replies",
        ylim=(0, 1.03),
    )
    right.legend(fontsize=9)
    return figure


def hours(golds: Mapping[str, Sequence[float]], title: str):
    """Mean gold of replies, by what people's hours were spent on."""
    figure, axes = plt.subplots(figsize=(7.5, 3.6))
    spread(axes, golds)
    axes.tick_params(axis="x", labelsize=9)
    axes.set(ylabel="gold of a reply", title=title)
    return figure
