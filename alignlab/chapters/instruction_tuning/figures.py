"""Figures of notebook 01, of the rows of one sweep or of the losses of one run."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from alignlab.chapters.instruction_tuning.analysis import accuracy_on, small_families
from alignlab.evaluation.intervals import t_interval
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
        ylabel="share of replies (95% bands)",
        title="How many examples does each take?",
    )
    axes.legend(loc=(0.66, 0.38))
    return figure


def diversity(rows: Sequence[dict], guess: float, larger: Sequence[dict] = ()):
    """Choices in held-out families against the number of training families.

    Args:
        guess: accuracy of a random choice.
        larger: rows of the larger model, of one pretraining; drawn as dots only.
    """
    figure, axes = plt.subplots(figsize=(7, 3.8))
    ks, values = by_seed(rows, "k", "accuracy")
    interval_line(
        axes, np.log2(ks), values, label=f"{rows[0]['base']} parameters", color=0
    )
    if larger:
        base = larger[0]["base"]
        axes.plot(
            [np.log2(row["k"]) for row in larger],
            [row["accuracy"] for row in larger],
            MARKERS[1], color=PALETTE[1], label=f"{base} (pretrained once)",
        )  # fmt: skip
    axes.axhline(guess, color="0.4", linestyle=":", label="a guess")
    axes.set_xticks(np.log2(ks), [str(k) for k in ks])
    axes.set(
        xlabel="task families in the mixture (the same number of examples)",
        ylabel="likeliest option is right\n(held-out families)",
        title="Does variety of tasks carry over to new ones?",
    )
    axes.legend(fontsize=10)
    return figure


def families(arms: dict[str, Sequence[dict]], guess: Mapping[str, float], title: str):
    """How often the likeliest option is right in each family: a marker per group of
    arms, a dot per seed, and a grey stroke at the accuracy of a guess."""
    names = list(guess)
    figure, axes = plt.subplots(figsize=(7.5, 0.55 * len(names) + 1.4))
    places = np.arange(len(names))[::-1]
    for number, (label, rows) in enumerate(arms.items()):
        shift = 0.16 * (number - (len(arms) - 1) / 2)
        values = np.array(
            [[row["by_family"][name]["accuracy"] for name in names] for row in rows]
        )
        color = PALETTE[number]
        for row in values:
            axes.plot(row, places - shift, ".", color=color, markersize=3, alpha=0.5)
        axes.plot(
            values.mean(0), places - shift, MARKERS[number], color=color, label=label,
            markersize=6,
        )  # fmt: skip
    axes.plot(
        list(guess.values()), places, "|", color="0.3", markersize=26, label="a guess"
    )
    axes.set_yticks(places, [name.replace("_", " ") for name in names])
    axes.set(xlim=(-0.03, 1.03), xlabel="likeliest option is right", title=title)
    axes.grid(axis="y", color="0.92")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    return figure


def mixture(rows: Sequence[dict]):
    """Accuracy on small and large families under each scheme of weights."""
    small = small_families()
    large = [name for name in tasks.trained_families() if name not in small]
    figure, axes = plt.subplots(figsize=(9, 3.6))
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
            interval = t_interval(values)
            if np.isfinite(interval.low):
                axes.plot([place + 0.05] * 2, interval[1:], color=PALETTE[number])
        axes.plot(
            places, [np.mean(v) for v in seeds], MARKERS[number], color=PALETTE[number],
            label=label, markersize=9, linestyle="",
        )  # fmt: skip
    axes.set_xticks(np.arange(len(schemes)), schemes)
    axes.set(
        ylabel="accuracy on test questions\n(95% intervals)",
        title="What do the weights of the mixture change?",
    )
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=10)
    return figure


def wordings(before: Sequence[dict], after: Sequence[dict], names: Sequence[str]):
    """Probability of the right option in every wording of each family, and their mean,
    before and after SFT; means over seeds. Families without a question are left out."""
    names = [name for name in names if name in before[0]["wordings"]]
    figure, panels = plt.subplots(
        1, 2, figsize=(8.5, 0.28 * len(names) + 1.2), sharey=True
    )
    places = np.arange(len(names))[::-1]
    titles = ("base, bare instruction", "instruction-tuned")
    for axes, rows, title in zip(panels, (before, after), titles, strict=True):
        for place, name in zip(places, names, strict=True):
            right = np.mean([row["wordings"][name] for row in rows], axis=0)
            axes.plot([right.min(), right.max()], [place] * 2, color="0.7")
            axes.plot(right, [place] * len(right), "|", color=PALETTE[0])
            axes.plot(right.mean(), place, "o", color=PALETTE[1], markersize=5)
        axes.set(xlim=(-0.03, 1.03), xlabel="P(right option)", title=title)
    panels[0].set_yticks(places, [name.replace("_", " ") for name in names])
    return figure


def compared(
    values: dict[str, Sequence[float]],
    ylabel: str,
    title: str,
    guess: float | None = None,
):
    """Values of each group of arms: a dot per seed, a bar at their mean with its 95%
    interval, and a line at the value of a guess."""
    figure, axes = plt.subplots(figsize=(7, 3.2))
    dots(axes, values)
    for place, own in enumerate(values.values()):
        interval = t_interval(own)
        if np.isfinite(interval.low):
            axes.plot([place + 0.22] * 2, interval[1:], color="0.2", linewidth=2)
    if guess is not None:
        axes.axhline(guess, color="0.4", linestyle=":", label="a guess")
        axes.legend(fontsize=10)
    axes.set(ylabel=ylabel, title=title)
    axes.set_ylim(min(0, axes.get_ylim()[0]), 1.1 * max(0.02, axes.get_ylim()[1]))
    return figure


def losses(curves: Mapping[str, Sequence[float]]):
    """What each training run minimised, step by step, in nats per token."""
    figure, axes = plt.subplots(figsize=(7, 3.4))
    for number, (label, values) in enumerate(curves.items()):
        axes.plot(values, label=label, **series_style(number, "color", "linestyle"))
    axes.axhline(0, color="0.4", linestyle=":", linewidth=1)
    axes.set(
        xlabel="step (16 examples each)",
        ylabel="loss it trains on\n(nats per token)",
        title="A falling loss is no proof that the right thing is learnt",
    )
    axes.set_ylim(max(-12, axes.get_ylim()[0]), min(12, axes.get_ylim()[1]))
    axes.legend(fontsize=10)
    return figure


LEARNT = "background:#cfe8f7;border-bottom:2px solid #0072B2"
READ = "color:#555;border-bottom:1px solid #ccc"


def masks(texts: Mapping[str, Sequence[tuple[str, bool]]]):
    """HTML table of token sequences by name: learnt tokens in colour, the rest grey."""
    import html

    from IPython.display import HTML

    rows = []
    for name, pairs in texts.items():
        spans = "".join(
            f'<span style="{LEARNT if learnt else READ};margin-right:3px">'
            f"{html.escape(text)}</span>"
            for text, learnt in pairs
        )
        code = f"<code style='white-space:pre-wrap'>{spans}</code>"
        cell = "text-align:left;vertical-align:top"
        rows.append(
            f'<tr><th style="{cell}">{html.escape(name)}</th>'
            f'<td style="{cell}">{code}</td></tr>'
        )
    return HTML(f"<table>{''.join(rows)}</table>")
