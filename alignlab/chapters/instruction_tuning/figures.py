"""Figures of notebook 01. Each takes the rows of one sweep and shows every seed."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np

from alignlab.chapters.instruction_tuning.analysis import accuracy_on, small_families
from alignlab.plots.style import (
    MARKERS,
    PALETTE,
    by_seed,
    dots,
    interval_line,
    series_style,
)
from alignlab.study.arms import pick
from alignlab.world import tasks


def few_examples(rows: Sequence[dict]):
    """Format and accuracy against the number of examples."""
    figure, axes = plt.subplots(figsize=(7, 3.8))
    for number, measure in enumerate(("format", "accuracy")):
        xs, values = by_seed(pick(rows, shuffled=False), "n", measure)
        places = np.log2(1 + np.array(xs))
        interval_line(
            axes, places, values, label=measure, color=PALETTE[number],
            linestyle=("-", "--")[number],
        )  # fmt: skip
        control = [row[measure] for row in pick(rows, shuffled=True)]
        axes.plot(
            [places[-1] + 0.4] * len(control), control, MARKERS[number],
            color=PALETTE[number], markerfacecolor="white",
        )  # fmt: skip
    axes.set_xticks([*places, places[-1] + 0.4], [*xs, "\nshuffled"])
    axes.set(
        ylim=(-0.03, 1.03),
        xlabel="SFT examples",
        ylabel="share of replies",
        title="Format comes from few examples",
    )
    axes.legend(loc=(0.66, 0.38))
    return figure


def diversity(rows: Sequence[dict]):
    """Held-out accuracy against the number of training tasks, at each size."""
    figure, axes = plt.subplots(figsize=(7, 3.8))
    for number, size in enumerate(dict.fromkeys(r["size"] for r in rows)):
        xs, values = by_seed(pick(rows, size=size), "k", "held_out")
        interval_line(
            axes, np.log2(xs), values, label=f"{size} parameters",
            **series_style(number, "color", "linestyle"),
        )  # fmt: skip
    axes.set_xticks(np.log2(xs), [str(x) for x in xs])
    axes.set(
        xlabel="task families in the mixture (the same number of examples)",
        ylabel="accuracy on held-out families",
        title="Does variety of tasks carry over to new ones?",
    )
    axes.legend()
    return figure


def families(arms: dict[str, Sequence[dict]], names: Sequence[str], title: str):
    """Accuracy in each family: a marker per group of arms, and a dot per seed."""
    figure, axes = plt.subplots(figsize=(7.5, 0.34 * len(names) + 1.2))
    places = np.arange(len(names))[::-1]
    for number, (label, rows) in enumerate(arms.items()):
        shift = 0.14 * (number - (len(arms) - 1) / 2)
        values = np.array([[r["by_family"][name] for name in names] for r in rows])
        color = PALETTE[number]
        for row in values:
            axes.plot(row, places - shift, ".", color=color, markersize=3, alpha=0.5)
        axes.plot(
            values.mean(0), places - shift, MARKERS[number], color=color, label=label,
            markersize=6,
        )  # fmt: skip
    axes.set_yticks(places, [name.replace("_", " ") for name in names])
    axes.set(xlim=(-0.03, 1.03), xlabel="accuracy on test questions", title=title)
    axes.grid(axis="y", color="0.92")
    axes.legend(loc="lower right", fontsize=9)
    return figure


def mixture(rows: Sequence[dict]):
    """Accuracy on small and large families under each scheme of weights."""
    small = small_families()
    large = [name for name in tasks.trained_families() if name not in small]
    figure, axes = plt.subplots(figsize=(7, 3.6))
    schemes = list(dict.fromkeys(r["weights"] for r in rows))
    for number, (label, group) in enumerate(
        {
            f"{len(small)} smallest families": small,
            f"{len(large)} largest families": large,
        }.items()
    ):
        seeds = [accuracy_on(rows, group, scheme) for scheme in schemes]
        places = np.arange(len(schemes)) + 0.16 * (number - 0.5)
        for place, values in zip(places, seeds, strict=True):
            axes.plot([place] * len(values), values, ".", color=PALETTE[number])
        axes.plot(
            places, [np.mean(v) for v in seeds], MARKERS[number], color=PALETTE[number],
            label=label, markersize=9, linestyle="",
        )  # fmt: skip
    axes.set_xticks(np.arange(len(schemes)), schemes)
    axes.set(
        ylabel="accuracy on test questions",
        title="What the weights of the mixture change (dots: seeds)",
    )
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right")
    return figure


def wordings(rows: Sequence[dict], names: Sequence[str]):
    """Accuracy in every wording of each family and their mean, before and after SFT."""
    figure, panels = plt.subplots(
        1, 2, figsize=(8.5, 0.28 * len(names) + 1.2), sharey=True
    )
    places = np.arange(len(names))[::-1]
    for axes, tuned in zip(panels, (False, True), strict=True):
        by_seed_and_family = [row["by_wording"] for row in pick(rows, tuned=tuned)]
        for place, per_seed in zip(places, zip(*by_seed_and_family), strict=True):
            accuracy = np.mean(per_seed, axis=0)
            axes.plot([accuracy.min(), accuracy.max()], [place] * 2, color="0.7")
            axes.plot(accuracy, [place] * len(accuracy), "|", color=PALETTE[0])
            axes.plot(accuracy.mean(), place, "o", color=PALETTE[1], markersize=5)
        title = "instruction-tuned" if tuned else "base, bare instruction"
        axes.set(xlim=(-0.03, 1.03), xlabel="accuracy", title=title)
    panels[0].set_yticks(places, [name.replace("_", " ") for name in names])
    return figure


def compared(values: dict[str, Sequence[float]], ylabel: str, title: str):
    """Values of each group of arms: a dot per seed and a bar at their mean."""
    figure, axes = plt.subplots(figsize=(7, 3.2))
    dots(axes, values)
    axes.set(ylabel=ylabel, title=title)
    axes.set_ylim(min(0, axes.get_ylim()[0]), 1.1 * max(0.02, axes.get_ylim()[1]))
    return figure


def mask(pairs: Sequence[tuple[str, bool]]):
    """HTML of one example: learnt text in colour, the rest in grey."""
    import html

    from IPython.display import HTML

    style = {
        True: "background:#cfe8f7;border-bottom:2px solid #0072B2",
        False: "color:#555;border-bottom:1px solid #ccc",
    }
    spans = (
        f'<span style="{style[trained]};margin-right:3px">{html.escape(text)}</span>'
        for text, trained in pairs
    )
    pre = "white-space:pre-wrap;font-size:1.05em"
    return HTML(f"<code style='{pre}'>{''.join(spans)}</code>")
