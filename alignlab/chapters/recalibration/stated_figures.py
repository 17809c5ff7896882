"""Figures of notebook 08 about stated confidence, and an explorer of the weight."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from alignlab.chapters.recalibration import stated_analysis as analysis
from alignlab.chapters.recalibration.stated import CONFIDENCES
from alignlab.evaluation.intervals import t_interval, wilson_interval
from alignlab.plots.explorers import explore
from alignlab.plots.style import PALETTE, series_style

EDGES = np.linspace(0, 1, 6)  # of the shares of contested facts


# --- Digits -------------------------------------------------------------------------


def digit_panel(axes, replies: analysis.Replies, number: int = 0) -> None:
    """The share that is right of the replies with each digit, with Wilson's interval;
    larger marks stand for more replies."""
    counts = analysis.by_digit(replies)
    total = sum(n for n, _ in counts.values())
    color = PALETTE[number % len(PALETTE)]
    for digit, (n, right) in counts.items():
        x, interval = CONFIDENCES[digit], wilson_interval(right, n)
        axes.vlines(x, interval.low, interval.high, color=color, linewidth=1.5)
        axes.plot(
            x, right / n, "o", color=color, markersize=4 + 14 * np.sqrt(n / total)
        )
    axes.plot([0, 1], [0, 1], color="0.4", linestyle="--", linewidth=1.2)
    axes.axhline(replies.right.mean(), color="0.6", linestyle=":", linewidth=1.2)
    axes.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.05), aspect="equal")
    axes.set_xlabel("stated confidence (digit / 9)")


def reliability_panels(groups: Mapping[str, Sequence[Mapping]], title: str):
    """A :func:`digit_panel` for each arm, the replies of all seeds together.

    Args:
        groups: rows of ``stated.judged`` by the name of the arm.
        title: of the figure.
    """
    figure, panels = plt.subplots(
        1, len(groups), figsize=(3.3 * len(groups), 4.1), sharey=True, squeeze=False
    )
    for number, (axes, name) in enumerate(zip(panels[0], groups)):
        digit_panel(axes, analysis.pooled(groups[name]), number)
        axes.set_title(name, fontsize=11)
    panels[0][0].set_ylabel("share right (95%)")
    panels[0][0].text(
        0.03, 0.95, "dashed: calibrated\ndotted: all replies", fontsize=8, va="top"
    )
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=13)
    return figure


# --- The frontier -------------------------------------------------------------------


def frontier(
    by_arm: Mapping[str, Sequence[Mapping]],
    others: Mapping[str, Sequence[Mapping]],
    chosen: str = "",
    axes=None,
):
    """Accuracy against calibration error over the weights of the Brier score.

    Args:
        by_arm: scores by arm and seed; those called "weight W" are joined.
        others: further arms to mark, by name.
        chosen: an arm to draw a ring around.
        axes: where to draw; None makes a figure.
    """
    figure = axes.figure if axes is not None else None
    if axes is None:
        figure, axes = plt.subplots(figsize=(7.6, 4.6))
    names = list(analysis.weights_of(by_arm))
    for seed in range(len(by_arm[names[0]])):
        line = [by_arm[name][seed] for name in names]
        axes.plot(
            [s["squared"] for s in line],
            [s["accuracy"] for s in line],
            color="0.6",
            linewidth=0.7,
            label="a seed" if seed == 0 else None,
        )
    groups = {name: by_arm[name] for name in names} | dict(others)
    for number, (name, values) in enumerate(groups.items()):
        x, y = (t_interval([v[m] for v in values]) for m in ("squared", "accuracy"))
        style = series_style(number, "color", "marker")
        axes.plot(x.value, y.value, **style, linestyle="", markersize=9, label=name)
        if np.isfinite([*x, *y]).all():
            axes.plot([x.low, x.high], [y.value] * 2, color=style["color"], linewidth=1)
            axes.plot([x.value] * 2, [y.low, y.high], color=style["color"], linewidth=1)
        if name == chosen:
            axes.plot(
                x.value, y.value, "o", markersize=20, fillstyle="none", color="0.2"
            )
    axes.set(
        xlabel="mean squared calibration error of what it states (0: calibrated)",
        ylabel="share of answers right",
        title="Right, and honest about it",
    )
    axes.legend(fontsize=9)
    return figure


def weight_picture(rows: Mapping[str, Sequence[Mapping]], by_arm, name: str):
    """The frontier with one weight marked, beside that arm's digits."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6), width_ratios=(1.6, 1))
    frontier(by_arm, {}, chosen=name, axes=left)
    digit_panel(right, analysis.pooled(rows[name]))
    right.set_title(name)
    right.set_ylabel("share right (95%)")
    return figure


def weight_explorer(rows: Mapping[str, Sequence[Mapping]], by_arm) -> None:
    """A slider for the weight of the Brier score, which starts at 1, over
    :func:`weight_picture`.

    Args:
        rows: of the arms, by name.
        by_arm: their scores.
    """
    import ipywidgets

    weights = analysis.weights_of(rows)
    slider = ipywidgets.SelectionSlider(
        options=[(f"{w:g}", name) for name, w in weights.items()],
        value="weight 1",
        description="weight",
    )
    explore([slider], lambda: weight_picture(rows, by_arm, slider.value))


def reward_curves(p: float, weights: Sequence[float]):
    """The mean reward of each digit behind an answer that is right with probability p,
    for several weights; a ring marks the best digit."""
    figure, axes = plt.subplots(figsize=(7.2, 4))
    for number, weight in enumerate(weights):
        values = analysis.mean_reward(p, weight)
        style = series_style(number, "color", "marker")
        axes.plot(range(10), values, **style, label=f"weight {weight:g}")
        best = int(values.argmax())
        if weight:
            axes.plot(
                best, values[best], "o", markersize=18, fillstyle="none", color="0.2"
            )
    axes.axvline(9 * p, color="0.4", linestyle="--", linewidth=1.2)
    axes.axhline(0, color="0.6", linewidth=1)
    axes.set_xticks(range(10))
    axes.set(
        xlabel="digit stated",
        ylabel="mean reward",
        title=f"Right with probability {p:.2f} (dashed): which digit pays?",
    )
    axes.legend(fontsize=9)
    return figure


# --- Contested facts ----------------------------------------------------------------


def contested_lines(groups: Mapping[str, Sequence[Mapping]]):
    """Stated confidence against Bayes' on contested facts: means in classes of the
    share of the statements that give the answer, thin lines for seeds.

    Args:
        groups: rows of ``stated.judged`` by the name of the arm.
    """
    figure, axes = plt.subplots(figsize=(7.8, 4.8))
    for number, (name, rows) in enumerate(groups.items()):
        table = [bayes_classes(analysis.read_replies(row)) for row in rows]
        style = series_style(number, "color", "linestyle")
        for line in table:
            axes.plot(*line, **style, linewidth=0.6, alpha=0.4)
        x, y = bayes_classes(analysis.pooled(rows))
        axes.plot(x, y, **style, marker="o", label=name)
    axes.plot([0, 1], [0, 1], color="0.4", linestyle="--", label="Bayes")
    axes.set(
        xlim=(-0.03, 1.03),
        ylim=(-0.03, 1.03),
        xlabel="share of the statements that give this answer",
        ylabel="mean confidence stated",
        title="Contested facts: as sure as the texts?",
    )
    axes.legend(fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def bayes_classes(replies: analysis.Replies) -> tuple[np.ndarray, np.ndarray]:
    """Mean share and mean stated confidence of the contested facts, in the classes of
    ``EDGES`` that hold any."""
    own = replies.where(np.isfinite(replies.bayes))
    place = np.clip(np.digitize(own.bayes, EDGES) - 1, 0, len(EDGES) - 2)
    held = np.unique(place)
    means = [
        [column[place == k].mean() for k in held] for column in (own.bayes, own.stated)
    ]
    return np.array(means[0]), np.array(means[1])


# --- Asked in several ways ------------------------------------------------------------


def selective_points(groups: Mapping[str, Sequence[analysis.Selective]]):
    """The share answered behind the control prompt, and the share of those right: a
    small mark for each seed, a large one for the mean.

    Args:
        groups: by the name of what was taught, a value a seed.
    """
    figure, axes = plt.subplots(figsize=(7.2, 4.2))
    for number, (name, values) in enumerate(groups.items()):
        style = series_style(number, "color", "marker")
        x, y = [v.answered for v in values], [v.right for v in values]
        axes.plot(x, y, **style, linestyle="", alpha=0.5, markersize=5)
        axes.plot(
            np.mean(x), np.nanmean(y), **style, linestyle="", markersize=11, label=name
        )
    axes.set(
        xlim=(0, 1.05),
        ylim=(0, 1.05),
        xlabel="share of the questions answered",
        ylabel="share of the answers right",
        title="“Answer only if you are sure.”",
    )
    axes.legend(fontsize=9)
    return figure
