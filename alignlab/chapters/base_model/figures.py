"""Figures of notebook 00: the road, what the base model expects and knows, and how it
answers."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from alignlab.chapters.base_model.analysis import rate
from alignlab.evaluation.intervals import Interval
from alignlab.plots.style import HATCHES, MARKERS, PALETTE

# --- The road from text to assistant --------------------------------------------------

STEPS = {  # name: left edge, lower edge, title, what goes in and out
    "pretraining": (0.0, 2.0, "Pretraining", "text → base model\nnotebook 00"),
    "sft": (2.6, 2.0, "1 · SFT", "demonstrations → policy\nnotebooks 01, 02"),
    "reward": (5.2, 2.0, "2 · Reward model", "comparisons → reward\nnotebook 03"),
    "ppo": (7.8, 2.0, "3 · PPO", "reward − β · KL → policy\nnotebook 04"),
    "dpo": (6.5, 0.2, "DPO, in place of 2 and 3", "comparisons → policy\nnotebook 05"),
}
WIDTH, HEIGHT = 2.2, 1.1


def road_map():
    """The three steps of InstructGPT, DPO's short cut, and where each is measured."""
    figure, axes = plt.subplots(figsize=(10, 4.4))
    colors = dict(zip(STEPS, ("0.92", "#cfe5f3", "#cfe5f3", "#cfe5f3", "#fbe0cf")))
    for name, (x, y, title, what) in STEPS.items():
        width = WIDTH + 1.3 * (name == "dpo")
        box = dict(boxstyle="round,pad=0.05", facecolor=colors[name], edgecolor="0.3")
        axes.add_patch(_box((x, y), width, HEIGHT, **box))
        middle = x + width / 2
        axes.text(middle, y + 0.82, title, ha="center", va="center", weight="bold")
        axes.text(middle, y + 0.35, what, ha="center", va="center", fontsize=10)
    for start, end in (((2.25, 2.55), (2.55, 2.55)), ((4.85, 2.55), (5.15, 2.55))):
        _arrow(axes, start, end)
    _arrow(axes, (7.45, 2.55), (7.75, 2.55))
    _arrow(axes, (3.7, 1.95), (6.45, 0.75))
    axes.plot([2.5, 10.1], [3.35, 3.35], color=PALETTE[0], linewidth=1.5)
    steps = "the three steps of InstructGPT (Ouyang et al., 2022)"
    axes.text(6.3, 3.45, steps, ha="center", color=PALETTE[0], fontsize=11)
    asks = (
        "What it costs, and repairs:\n06 side effects\n07 calibration\n08 recalibration"
    )
    axes.text(0.0, 1.3, asks, va="top", fontsize=11)
    axes.set(xlim=(-0.1, 10.2), ylim=(0, 3.9), title="The road from text to assistant")
    axes.set_axis_off()
    return figure


def _box(corner, width, height, boxstyle, **style):
    from matplotlib.patches import FancyBboxPatch

    return FancyBboxPatch(corner, width, height, boxstyle=boxstyle, **style)


def _arrow(axes, start, end) -> None:
    arrow = dict(arrowstyle="-|>", color="0.3", linewidth=1.5)
    axes.annotate("", xytext=start, xy=end, arrowprops=arrow)


# --- What it expects ------------------------------------------------------------------


def surprise_bars(axes, tokens: Sequence[str], log_probs: Sequence[float], title: str):
    """Surprise of each token of a text, minus its log-probability, in nats."""
    places = np.arange(len(tokens))
    axes.bar(places, -np.asarray(log_probs), color=PALETTE[0])
    axes.set_xticks(places, [t.strip() for t in tokens], rotation=60, ha="right")
    axes.set(ylabel="surprise (nats)", title=title)
    return axes


def temperatures(likeliest: Mapping[float, Sequence[tuple[str, float]]], text: str):
    """Probability of the next token at several temperatures.

    Args:
        likeliest: for each temperature the same tokens, each with its probability.
        text: what they follow.
    """
    figure, axes = plt.subplots(figsize=(7, 3.2))
    width = 0.8 / len(likeliest)
    for number, (temperature, pairs) in enumerate(likeliest.items()):
        places = np.arange(len(pairs)) + (number - (len(likeliest) - 1) / 2) * width
        axes.bar(
            places,
            [share for _, share in pairs],
            0.9 * width,
            label=f"temperature {temperature}",
            color=PALETTE[number],
            hatch=HATCHES[number],
            edgecolor="white",
        )
    axes.set_xticks(np.arange(len(pairs)), [token.strip() for token, _ in pairs])
    axes.set(
        ylim=(0, 1.02),
        xlabel=f"next token after “{text}”",
        ylabel="probability",
        title="A higher temperature evens out the next token",
    )
    axes.legend()
    return figure


# --- The world ------------------------------------------------------------------------


def exposures(card: Mapping[str, Mapping[str, int]]):
    """Number of facts by how often pretraining states them, from ``data_card``."""
    figure, axes = plt.subplots(figsize=(7.5, 3.6))
    places, left = np.arange(len(card)), np.zeros(len(card))
    kinds = list(next(iter(card.values())))
    for number, kind in enumerate(kinds):
        counts = np.array([row[kind] for row in card.values()])
        style = dict(color=PALETTE[number], hatch=HATCHES[number], edgecolor="white")
        axes.barh(places, counts, left=left, label=kind, **style)
        left = left + counts
    axes.set_yticks(places, list(card))
    axes.invert_yaxis()
    axes.set(
        xlabel="facts",
        ylabel="stated",
        title="How often pretraining states a fact",
    )
    axes.legend(title="about a", loc="upper left", bbox_to_anchor=(1, 1))
    return figure


# --- What it knows --------------------------------------------------------------------


def recall(rows: Sequence[Mapping], chance: float, threshold: int):
    """Share of facts completed rightly, by exposure, with Wilson intervals, and how
    probable the completions are to the model, where that was measured."""
    figure, axes = plt.subplots(figsize=(7.5, 3.8))
    places = np.arange(len(rows))
    _with_intervals(axes, places, [rate(row) for row in rows], "completed rightly")
    if all("confidence" in row for row in rows):
        sure = [row["confidence"] for row in rows]
        axes.plot(places, sure, "s--", color=PALETTE[1], label="confidence")
    axes.axhline(chance, linestyle=":", color="0.3", label="best guess without it")
    axes.set_xticks(places, [_span(row) for row in rows], rotation=30, ha="right")
    axes.set(
        ylim=(0, 1.03),
        xlabel=f"times the fact was read ({threshold} and more: known by design)",
        ylabel="share, probability",
        title="How often must a fact be read to be known?",
    )
    axes.legend(loc="center right")
    return figure


def _with_intervals(axes, places, rates: Sequence[Interval], label: str) -> None:
    # At 0 and 1 a limit equals the rate, and rounding can put it on the wrong side.
    below = [max(rate.value - rate.low, 0) for rate in rates]
    above = [max(rate.high - rate.value, 0) for rate in rates]
    values = [rate.value for rate in rates]
    style = dict(fmt="o-", color=PALETTE[0], capsize=3, label=label)
    axes.errorbar(places, values, (below, above), **style)


def _span(row: Mapping) -> str:
    if not row["to"]:
        return "never"
    once = row["from"] == row["to"]
    return f"{row['from']}" if once else f"{row['from']}–{row['to']}"


def contested(bins: Sequence[Mapping]):
    """Confidence in the answer most often stated against its share of the statements.

    Args:
        bins: groups of facts, with mean ``share``, mean ``confidence`` and number of
            ``facts``.
    """
    figure, axes = plt.subplots(figsize=(5.2, 4.2))
    axes.plot([0.45, 1], [0.45, 1], "--", color="0.3", label="Bayes: the share itself")
    shares = [row["share"] for row in bins]
    sure = [row["confidence"] for row in bins]
    n = sum(row["facts"] for row in bins)
    axes.plot(shares, sure, "o-", color=PALETTE[0], label=f"the model ({n} facts)")
    axes.set(
        xlim=(0.45, 1),
        ylim=(0, 1.03),
        xlabel="share of the statements that give the answer",
        ylabel="confidence in it",
        title="Contested facts: how sure is it?",
    )
    axes.legend(loc="lower right")
    return figure


# --- How it answers -------------------------------------------------------------------


def answering(rates: Mapping[str, Mapping[str, Interval]], chance: float):
    """A row for each way to ask: accuracy and format with their 95% intervals.

    Args:
        rates: ``rates[way]["accuracy"]`` and, where a form is asked for, its
            ``["format"]``.
        chance: accuracy of who knows no fact.
    """
    figure, axes = plt.subplots(figsize=(7.5, 0.5 * len(rates) + 1.6))
    for number, measure in enumerate(("accuracy", "format")):
        known = [(i, r[measure]) for i, r in enumerate(rates.values()) if measure in r]
        for place, interval in known:
            limits = np.clip([interval.low, interval.high], 0, 1)
            at = [place + 0.22 * (number - 0.5)] * 2
            axes.plot(limits, at, color=PALETTE[number], linewidth=1.5)
        axes.plot(
            [interval.value for _, interval in known],
            [place + 0.22 * (number - 0.5) for place, _ in known],
            MARKERS[number],
            color=PALETTE[number],
            label={"accuracy": "names a right answer", "format": "in format"}[measure],
        )
    axes.axvline(chance, linestyle=":", color="0.3", label="the commonest answer")
    axes.set_yticks(range(len(rates)), list(rates))
    axes.invert_yaxis()
    axes.set(
        xlim=(-0.02, 1.02),
        xlabel="share of replies (95% intervals)",
        title="The same facts, asked of three models",
    )
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
