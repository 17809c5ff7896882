"""Figures of notebook 04, and its explorer of one reply."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from alignlab.plots.style import MARKERS, PALETTE, dots, interval_line, series_style

DIAGNOSTICS = {
    "score": "proxy reward",
    "reward/gold": "gold reward",
    "kl_exact": "KL to the reference (nats a reply)",
    "entropy": "entropy (nats a token)",
    "approx_kl": "KL of one update (nats a token)",
    "clip_fraction": "share of tokens clipped",
    "ratio": "mean ratio",
    "explained_variance": "explained variance",
    "value_loss": "value loss",
    "grad_norm": "norm of the gradient",
    "completion_length": "tokens a reply",
    "eos_rate": "share of replies that end",
}
# Where the sick run is out by orders of magnitude, the scale is linear up to here and
# logarithmic beyond.
LINEAR_UP_TO = {"kl_exact": 1.0, "approx_kl": 0.01, "grad_norm": 1.0}


def _curve(rows: Sequence[dict], name: str) -> tuple[np.ndarray, list[list[float]]]:
    """Updates, from 1, and a line per run, cut to the shortest."""
    lines = [row["history"][name] for row in rows]
    length = min(map(len, lines))
    return np.arange(1, length + 1), [line[:length] for line in lines]


# --- From REINFORCE to PPO ------------------------------------------------------------


def ladder(rows: Sequence[dict]):
    """Gold reward, proxy reward and KL along the runs, a line per rung."""
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.8))
    names = {
        "reward/gold": "gold reward",
        "score": "proxy reward",
        "kl_exact": "KL (nats a reply)",
    }
    for axes, (name, label) in zip(panels, names.items(), strict=True):
        for number, rung in enumerate(dict.fromkeys(r["rung"] for r in rows)):
            x, lines = _curve([r for r in rows if r["rung"] == rung], name)
            axes.plot(
                x, np.mean(lines, axis=0), label=rung,
                **series_style(number, "color", "linestyle"),
            )  # fmt: skip
        axes.set(xlabel="update", ylabel=label, title=label.split(" (")[0])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3
    )
    return figure


def clipping(clip_range: float = 0.2):
    """The clipped and the unclipped objective against the ratio, for a token with a
    positive advantage and one with a negative."""
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.2))
    ratio = np.linspace(0.4, 1.6, 200)
    for axes, advantage in zip(panels, (1, -1), strict=True):
        clipped = np.clip(ratio, 1 - clip_range, 1 + clip_range)
        axes.plot(ratio, ratio * advantage, ":", color=PALETTE[1], label="plain")
        axes.plot(
            ratio, np.minimum(ratio * advantage, clipped * advantage),
            color=PALETTE[0], label="clipped",
        )  # fmt: skip
        axes.axvline(1, color="0.6", linewidth=1)
        kind = "good" if advantage > 0 else "bad"
        axes.set(
            xlabel="ratio: probability now over when sampled",
            ylabel="objective",
            title=f"A {kind} token (advantage {advantage:+d})",
        )
    panels[0].legend()
    return figure


# --- Sweeps ---------------------------------------------------------------------------


def sweep(rows: Sequence[dict], start: Sequence[dict]):
    """KL along the runs for every β, and the gold and proxy reward gained against β."""
    before = {row["seed"]: row for row in start}
    betas = sorted({row["beta"] for row in rows})
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
    for number, beta in enumerate(betas):
        x, lines = _curve([r for r in rows if r["beta"] == beta], "kl_exact")
        interval_line(left, x, lines, label=f"β = {beta:g}", color=number)
    for number, (name, label) in enumerate(
        {"gold": "gold reward", "proxy": "proxy reward"}.items()
    ):
        gains = [
            [r[name] - before[r["seed"]][name] for r in rows if r["beta"] == beta]
            for beta in betas
        ]
        place = np.arange(len(betas)) + 0.12 * (number - 0.5)
        for at, values in zip(place, gains, strict=True):
            right.plot([at] * len(values), values, ".", color=PALETTE[number])
        right.plot(
            place, [np.mean(values) for values in gains], MARKERS[number],
            color=PALETTE[number], markersize=9, label=label,
        )  # fmt: skip
    right.axhline(0, color="0.6", linewidth=1)
    right.set_xticks(np.arange(len(betas)), [f"{beta:g}" for beta in betas])
    left.set(xlabel="update", ylabel="nats a reply", title="KL to the reference")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set(xlabel="β", ylabel="gain on unseen subjects", title="What it bought")
    left.legend()
    right.legend()
    return figure


def frontier(runs: Sequence[dict], best: Sequence[dict], start: Sequence[dict]):
    """Gold and proxy reward against KL: the ends of PPO runs, and best-of-n."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.8))
    betas = sorted({row["beta"] for row in runs})
    labels = {"gold": "gold reward", "proxy": "proxy reward"}
    for axes, (name, label) in zip(panels, labels.items(), strict=True):
        axes.plot(
            [r["kl"] for r in best], [r[name] for r in best], "--",
            color=PALETTE[1], marker=MARKERS[1], markersize=5, label="best of n",
        )  # fmt: skip
        for row in best[1:]:
            axes.annotate(
                str(row["n"]), (row["kl"], row[name]), textcoords="offset points",
                xytext=(4, -12), fontsize=9, color=PALETTE[1],
            )  # fmt: skip
        for number, beta in enumerate(betas):
            group = [r for r in runs if r["beta"] == beta]
            axes.plot(
                [r["kl"] for r in group], [r[name] for r in group], linestyle="",
                **series_style(number, "marker"), color=PALETTE[0],
                alpha=0.35 + 0.65 * number / max(1, len(betas) - 1),
                label=f"PPO, β = {beta:g}",
            )  # fmt: skip
        axes.axhline(
            np.mean([row[name] for row in start]), color="0.6", linewidth=1
        )  # the reference
        axes.set(xlabel="KL to the reference (nats a reply)", ylabel=label)
        axes.set_title(label[0].upper() + label[1:])
    panels[0].legend(fontsize=9)
    return figure


def pieces(lost: Mapping[str, Sequence[float]], threshold: float):
    """Gold lost without each piece, a dot per seed, and the least effect that
    counts."""
    figure, axes = plt.subplots(figsize=(7.5, 3.2))
    dots(axes, lost, horizontal=True)
    axes.axvline(0, color="0.6", linewidth=1)
    axes.axvline(threshold, color=PALETTE[1], linestyle="--", linewidth=1)
    axes.set_yticks(range(len(lost)), [f"without {name}" for name in lost])
    axes.set(
        xlabel="gold lost at matched KL (dashed: the least that counts)",
        title="What each piece is worth (dots: seeds, bars: means)",
    )
    return figure


def diagnostics(groups: Mapping[str, Sequence[dict]]):
    """Every diagnostic along the runs of each group, such as a healthy and a sick
    one."""
    figure, panels = plt.subplots(3, 4, figsize=(13, 7.5), sharex=True)
    for axes, (name, label) in zip(panels.flat, DIAGNOSTICS.items(), strict=True):
        for number, (group, rows) in enumerate(groups.items()):
            x, lines = _curve(rows, name)
            for line in lines:
                axes.plot(
                    x, line, label=group, **series_style(number, "color", "linestyle")
                )
        axes.set_title(label, fontsize=10)
        if name in LINEAR_UP_TO:
            axes.set_yscale("symlog", linthresh=LINEAR_UP_TO[name])
    for axes in panels[-1]:
        axes.set_xlabel("update")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles = dict(zip(*panels[0, 0].get_legend_handles_labels()[::-1]))
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=2)
    return figure


def failures(groups: Mapping[str, Sequence[tuple[float, bool]]], unit: str):
    """The end of every run by setting: a dot, or a cross where it failed.

    Args:
        groups: ``(gain, failed)`` of the runs of each setting.
        unit: label of the gain.
    """
    figure, axes = plt.subplots(figsize=(8, 0.42 * len(groups) + 1.4))
    for place, runs in enumerate(groups.values()):
        for bad, marker in ((False, "o"), (True, "X")):
            values = [value for value, failed in runs if failed is bad]
            axes.plot(
                values, [place] * len(values), marker, color=PALETTE[int(bad)],
                linestyle="", alpha=0.7, label="failed" if bad else "fine",
            )  # fmt: skip
    axes.axvline(0, color="0.6", linewidth=1)
    axes.set_yticks(range(len(groups)), list(groups))
    axes.set(ylim=(len(groups) - 0.5, -0.5), xlabel=unit, title="Every run's end")
    handles = dict(zip(*axes.get_legend_handles_labels()[::-1]))
    axes.legend(handles.values(), handles, loc="best", fontsize=9)
    return figure


# --- One reply ------------------------------------------------------------------------


def token_table(tokens: Sequence[str], **columns) -> pd.DataFrame:
    """A row per token of one reply, from tensors (1, T)."""
    numbers = {name: x.detach().cpu().numpy()[0] for name, x in columns.items()}
    return pd.DataFrame({"token": list(tokens), **numbers})


def rollout(table: pd.DataFrame, clip_range: float = 0.2, at: int | None = None):
    """What PPO knows about each token of a reply.

    Args:
        table: with columns token, log_ratio, kl, value, advantage, ratio.
        clip_range: of the clipped loss; tokens clipped at it are hatched.
        at: a token to mark; those after it are pale.
    """
    panels = {
        "log_ratio": "log-ratio",
        "kl": "KL",
        "value": "value",
        "advantage": "advantage",
        "ratio": "ratio after",
    }
    figure, all_axes = plt.subplots(len(panels), 1, figsize=(11, 8), sharex=True)
    places = np.arange(len(table))
    for axes, (name, label) in zip(all_axes, panels.items(), strict=True):
        base = 1.0 if name == "ratio" else 0.0
        bars = axes.bar(places, table[name] - base, bottom=base, color=PALETTE[0])
        for place, bar in enumerate(bars):
            if name == "ratio" and _is_clipped(table.iloc[place], clip_range):
                bar.set(facecolor=PALETTE[1], hatch="//", edgecolor="white")
            if at is not None and place > at:
                bar.set_alpha(0.25)
        axes.set_ylabel(label)
        axes.axhline(base, color="0.6", linewidth=1)
        if at is not None:
            axes.axvspan(at - 0.5, at + 0.5, color=PALETTE[5], alpha=0.2)
    for edge in (1 - clip_range, 1 + clip_range):
        all_axes[-1].axhline(edge, color=PALETTE[1], linestyle="--", linewidth=1)
    labels = [token.strip().replace("$", r"\$") or "·" for token in table["token"]]
    all_axes[-1].set_xticks(places, labels, rotation=90, fontsize=9)
    all_axes[0].set_title("One reply, token by token (hatched: clipped)")
    return figure


def _is_clipped(row, clip_range: float) -> bool:
    """Whether clipping has removed the token's gradient."""
    good, bad = row["advantage"] > 0, row["advantage"] < 0
    return bool(
        (good and row["ratio"] > 1 + clip_range)
        or (bad and row["ratio"] < 1 - clip_range)
    )


def describe_token(table: pd.DataFrame, at: int, clip_range: float = 0.2) -> str:
    """One token's numbers in words."""
    row = table.iloc[at]
    read = "".join(table["token"][:at]).strip()
    ratio = row["ratio"]
    if _is_clipped(row, clip_range):
        pull = "so it pulls no further: its gradient is clipped away"
    else:
        pull = "and it still pulls" + (" up" if row["advantage"] > 0 else " down")
    return "\n".join(
        [
            f"after  “{read}”",
            f"comes  “{row['token'].strip() or row['token']}”   "
            f"({at + 1} of {len(table)})",
            f"log-ratio to the reference  {row['log_ratio']:+.3f} nats",
            f"KL of the next token        {row['kl']:.3f} nats",
            f"reward of this token        {row['reward']:+.3f}",
            f"expected from here on       {row['value']:+.3f}",
            f"advantage                   {row['advantage']:+.3f}",
            f"ratio after the update      {ratio:.3f}, {pull}",
        ]
    )


def rollout_explorer(table: pd.DataFrame, clip_range: float = 0.2):
    """A slider over the tokens of one reply, with the figure and the numbers in words.

    Args:
        table: as for :func:`rollout`, with a column reward too.
    """
    import ipywidgets
    from IPython.display import display

    slider = ipywidgets.IntSlider(
        0, min=0, max=len(table) - 1, description="token", layout={"width": "40em"}
    )

    def draw(at: int) -> None:
        print(describe_token(table, at, clip_range))
        rollout(table, clip_range, at)
        plt.show()

    display(slider, ipywidgets.interactive_output(draw, {"at": slider}))
