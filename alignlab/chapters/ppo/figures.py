"""Figures of notebook 04, and its explorer of one reply."""

import html
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from alignlab.chapters.ppo.analysis import mean_path
from alignlab.evaluation.intervals import Interval, t_interval
from alignlab.plots.explorers import explore
from alignlab.plots.style import MARKERS, PALETTE, series_style
from alignlab.seeds import stream

DIAGNOSTICS = {
    "score": "proxy reward (sd)",
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


def _lines(axes, rows: Sequence[dict], name: str, label: str, number: int) -> None:
    """A thin line for each run's logged numbers, and a thick one for their mean over
    the updates that all reached."""
    style = series_style(number, "color", "linestyle")
    lines = [row["history"][name] for row in rows]
    for line in lines if len(lines) > 1 else []:
        updates = range(1, len(line) + 1)
        axes.plot(updates, line, color=style["color"], linewidth=0.6, alpha=0.5)
    length = min(map(len, lines))
    mean = np.mean([line[:length] for line in lines], axis=0)
    axes.plot(range(1, length + 1), mean, **style, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _rows(axes, groups: Mapping[str, Sequence[float]], intervals: bool = True) -> None:
    """A row for each group, the first on top: a dot for each seed, their mean and,
    from three seeds on, its 95% interval."""
    for place, values in enumerate(groups.values()):
        values = [value for value in values if np.isfinite(value)]
        color = PALETTE[0]
        axes.plot(values, [place] * len(values), ".", color=color, alpha=0.5)
        if not values:
            continue
        middle = t_interval(values)
        if intervals and len(values) > 2:
            axes.plot(middle[1:], [place] * 2, color="0.2", linewidth=1.6)
        axes.plot(middle.value, place, "D", color="0.2", markersize=6)
    axes.axvline(0, color="0.6", linewidth=1)
    axes.set_yticks(range(len(groups)), list(groups))
    axes.set_ylim(len(groups) - 0.5, -0.5)


# --- From REINFORCE to PPO ------------------------------------------------------------


def ladder(
    completions: Mapping[str, Sequence[float]],
    seconds: Mapping[str, Sequence[float]],
    budget: float,
    title: str,
):
    """Gold that each rung gained, a dot per seed: after equally many completions, on
    unseen subjects, and in equal time, on training subjects.

    Args:
        budget: that time, in processor's seconds.
    """
    figure, panels = plt.subplots(
        1, 2, figsize=(11, 0.42 * len(completions) + 1.6), sharey=True
    )
    for axes, groups in zip(panels, (completions, seconds), strict=True):
        _rows(axes, groups)
    panels[1].set_ylim(len(completions) - 0.5, -0.5)
    panels[0].set(xlabel="gold gained, unseen subjects", title="At equal completions")
    panels[1].set(
        xlabel="gold gained, training subjects",
        title=f"In {budget:.0f} processor's seconds",
    )
    figure.suptitle(f"{title} (dots: seeds; diamonds: means, 95%)", fontsize=12)
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
            xlabel=r"ratio $\pi\,/\,\pi_{\mathrm{old}}$",
            ylabel="objective",
            title=f"A {kind} token (advantage {advantage:+d})",
        )
    panels[0].legend()
    return figure


# --- The price of KL ------------------------------------------------------------------


def price(path: Mapping[str, Sequence[float]], target: float, right_price: float):
    """KL and price along a run whose price adapts, beside what they should become."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.2))
    goals = {"kl": (target, "target"), "beta": (right_price, "by the closed form")}
    for axes, (name, (goal, label)) in zip(panels, goals.items(), strict=True):
        updates = np.arange(1, len(path[name]) + 1)
        axes.plot(updates, path[name], color=PALETTE[0], label="adaptive")
        axes.axhline(goal, color=PALETTE[1], linestyle="--", linewidth=1.2, label=label)
        axes.set(xlabel="update", xlim=(1, len(updates)))
        axes.legend()
    panels[0].set(ylabel="nats", title="The KL finds its target")
    panels[1].set(ylabel="β (reward a nat)", title="The price finds its level")
    panels[1].set_yscale("log")
    return figure


def sweep(
    rows: Mapping[float, Sequence[dict]],
    gains: Mapping[str, Mapping[float, Sequence[float]]],
    title: str,
):
    """KL along the runs at every β, and what was gained on unseen subjects.

    Args:
        rows: runs at each β.
        gains: for "gold" and "proxy (sd)", a number per seed at each β.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
    for number, (beta, runs) in enumerate(rows.items()):
        _lines(left, runs, "kl_exact", f"β = {beta:g}", number)
    for number, (name, by_beta) in enumerate(gains.items()):
        place = np.arange(len(by_beta)) + 0.14 * (number - 0.5)
        color = PALETTE[number]
        for at, values in zip(place, by_beta.values(), strict=True):
            right.plot([at] * len(values), values, ".", color=color, alpha=0.5)
            if len(values) > 2:
                right.plot([at] * 2, t_interval(values)[1:], color=color, linewidth=1.4)
        means = [np.mean(values) for values in by_beta.values()]
        right.plot(place, means, MARKERS[number], color=color, markersize=8, label=name)
    right.axhline(0, color="0.6", linewidth=1)
    right.set_xticks(np.arange(len(rows)), [f"{beta:g}" for beta in rows])
    left.set(xlabel="update", ylabel="nats a reply", title="KL to the reference")
    right.set(xlabel="β", ylabel="gain on unseen subjects", title="What it bought")
    left.legend()
    right.legend()
    figure.suptitle(title, fontsize=12)
    return figure


def frontier(
    best: Sequence[Sequence[dict]],
    runs: Mapping[str, Sequence[tuple[float, float, float]]],
    title: str,
):
    """Gold and proxy reward gained against KL: best of n of the reference's replies,
    and the ends of PPO runs.

    Args:
        best: for each seed, rows with ``n``, ``kl``, ``gold`` and ``proxy``, gained.
        runs: for each setting ``(kl, gold, proxy)`` of its runs, gained.
    """
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.8))
    labels = ("gold gained", "proxy reward gained (sd)")
    for part, (axes, label) in enumerate(zip(panels, labels, strict=True)):
        name = ("gold", "proxy")[part]
        kl = [row["kl"] for row in best[0]]
        curves = np.array([[row[name] for row in curve] for curve in best])
        for curve in curves if len(curves) > 1 else []:
            axes.plot(kl, curve, color=PALETTE[1], linewidth=0.6, alpha=0.5)
        mean = curves.mean(0)
        axes.plot(kl, mean, "s--", color=PALETTE[1], markersize=5, label="best of n")
        for x, y, row in list(zip(kl, mean, best[0]))[1:]:
            axes.annotate(
                str(row["n"]), (x, y), textcoords="offset points", xytext=(4, -12),
                fontsize=9, color=PALETTE[1],
            )  # fmt: skip
        for number, (setting, ends) in enumerate(runs.items()):
            x, y = [end[0] for end in ends], [end[1 + part] for end in ends]
            style = series_style(number + (number > 0), "color", "marker")
            axes.plot(x, y, linestyle="", **style, alpha=0.45, markersize=5)
            axes.plot(np.mean(x), np.mean(y), **style, markersize=10, label=setting,
                      linestyle="")  # fmt: skip
        axes.axhline(0, color="0.6", linewidth=1)
        axes.set(xlabel="KL to the reference (nats a reply)", ylabel=label)
        axes.set_title(label.partition(" gained")[0].capitalize())
    panels[1].legend(fontsize=9)
    figure.suptitle(title, fontsize=12)
    return figure


# --- Pieces ---------------------------------------------------------------------------


def pieces(lost: Mapping[str, Sequence[float]], threshold: float, title: str):
    """Gold lost without each piece, a dot per seed, and the least effect that
    counts."""
    figure, axes = plt.subplots(figsize=(8, 3.2))
    _rows(axes, {f"without {name}": values for name, values in lost.items()})
    axes.axvline(threshold, color=PALETTE[1], linestyle="--", linewidth=1)
    axes.set(
        xlabel="gold lost after equal updates (dots: seeds; diamonds: means, 95%; "
        "dashed: counts)",
        title=title,
    )
    axes.xaxis.label.set_size(10)
    return figure


def paths(whole: Sequence[dict], without: Mapping[str, Sequence[dict]], title: str):
    """Gold over KL in the order of the updates: all of PPO, and without a piece."""
    count = max(1, len(without))
    figure, panels = plt.subplots(
        1, count, figsize=(3.1 * count, 3.6), sharex=True, sharey=True, squeeze=False
    )
    for axes, (name, rows) in zip(panels[0], without.items(), strict=True):
        for number, (label, runs) in enumerate(
            {"all of PPO": whole, "without it": rows}.items()
        ):
            style = series_style(number, "color", "linestyle")
            for row in runs if len(runs) > 1 else []:
                axes.plot(
                    *mean_path([row]), color=style["color"], linewidth=0.5, alpha=0.4
                )
            kl, gold = mean_path(runs)
            axes.plot(kl, gold, **style, label=label)
            axes.plot(kl[-1], gold[-1], "o", color=style["color"], markersize=6)
        axes.set(xlabel="KL (nats a reply)", title=name)
    panels[0, 0].set_ylabel("gold, training subjects")
    panels[0, 0].legend(fontsize=9)
    figure.suptitle(f"{title} (thin: seeds; dot: last update)", fontsize=12)
    return figure


# --- Random search --------------------------------------------------------------------


def failures(
    groups: Mapping[str, Sequence[tuple[float, bool]]], limit: float, title: str
):
    """The end of every run by method: a dot, or a cross where it failed.

    Args:
        groups: ``(gold gained, failed)`` of the runs of each method. Gains below -2 are
            drawn at -2.
        limit: gold gained below which a run has failed.
    """
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(groups) + 1.6))
    rng = stream(0, "heights of dots")  # moves them apart, nothing else
    for place, runs in enumerate(groups.values()):
        heights = place + rng.uniform(-0.25, 0.25, len(runs))
        for bad, marker in ((False, "o"), (True, "X")):
            drawn = [
                (max(value, -2.0), height)
                for (value, failed), height in zip(runs, heights, strict=True)
                if failed is bad
            ]
            axes.plot(
                [x for x, _ in drawn], [y for _, y in drawn], marker,
                color=PALETTE[int(bad)], linestyle="", alpha=0.7, markersize=6,
                label="failed" if bad else "did not fail",
            )  # fmt: skip
    axes.axvline(0, color="0.6", linewidth=1)
    axes.axvline(-limit, color=PALETTE[1], linestyle="--", linewidth=1)
    axes.set_yticks(range(len(groups)), list(groups))
    axes.set(
        ylim=(len(groups) - 0.5, -0.5),
        xlabel="gold gained on unseen subjects (dashed: failed; below -2 drawn at -2)",
        title=title,
    )
    axes.xaxis.label.set_size(10)
    handles = dict(zip(*axes.get_legend_handles_labels()[::-1]))
    axes.legend(handles.values(), handles, fontsize=9)
    return figure


def search(curves: Mapping[str, Sequence[Interval]], default: Interval, title: str):
    """Expected gold of the best of so many configurations, for each method, with the
    default configuration of PPO as a line.

    Args:
        curves: for each method an interval at 1, 2, ... trials.
        default: gold gained by PPO's default configuration.
    """
    figure, axes = plt.subplots(figsize=(8, 4.2))
    for number, (method, intervals) in enumerate(curves.items()):
        style = series_style(number, "color", "marker", "linestyle")
        trials = np.arange(1, len(intervals) + 1) + 0.07 * (number - 1.5)
        means = [interval.value for interval in intervals]
        axes.plot(trials, means, **style, markersize=6, label=method)
        for x, interval in zip(trials, intervals, strict=True):
            if np.isfinite(interval.low):
                axes.plot([x, x], interval[1:], color=style["color"], linewidth=1)
    axes.axhline(
        default.value, color="0.3", linestyle="--", linewidth=1.4,
        label="PPO, default configuration",
    )  # fmt: skip
    axes.axhline(0, color="0.7", linewidth=1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(
        xlabel="configurations tried (bars: 95%, over seeds)",
        ylabel="gold gained, unseen subjects",
        title=title,
    )
    axes.legend(fontsize=9)
    return figure


# --- Is it healthy? -------------------------------------------------------------------


def diagnostics(groups: Mapping[str, Sequence[dict]], title: str):
    """Every diagnostic along the runs of each group, such as a healthy and a sick
    one."""
    figure, panels = plt.subplots(3, 4, figsize=(13, 7.5), sharex=True)
    for axes, (name, label) in zip(panels.flat, DIAGNOSTICS.items(), strict=True):
        for number, (group, rows) in enumerate(groups.items()):
            _lines(axes, rows, name, group, number)
        axes.set_title(label, fontsize=10)
        if name in LINEAR_UP_TO:
            axes.set_yscale("symlog", linthresh=LINEAR_UP_TO[name])
    for axes in panels[-1]:
        axes.set_xlabel("update")
    handles = dict(zip(*panels[0, 0].get_legend_handles_labels()[::-1]))
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=2)
    figure.suptitle(title, fontsize=12)
    return figure


# --- One reply ------------------------------------------------------------------------


def token_table(tokens: Sequence[str], **columns) -> pd.DataFrame:
    """A row per token of one reply, from tensors (1, T)."""
    numbers = {name: x.detach().cpu().numpy()[0] for name, x in columns.items()}
    return pd.DataFrame({"token": list(tokens), **numbers})


def rollout(table: pd.DataFrame, clip_range: float = 0.2, at: int | None = None):
    """What PPO knows about each token of a reply.

    Args:
        table: with columns token, log_ratio, kl, reward, value, advantage, ratio.
        clip_range: of the clipped loss; tokens clipped at it are hatched.
        at: a token to mark; those after it are pale.
    """
    panels = {
        "log_ratio": "log-ratio",
        "kl": "KL",
        "reward": "reward",
        "value": "value",
        "advantage": "advantage",
        "ratio": "ratio after",
    }
    figure, all_axes = plt.subplots(len(panels), 1, figsize=(11, 9), sharex=True)
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
        axes.grid(axis="x", visible=False)
        if at is not None:
            axes.axvspan(at - 0.5, at + 0.5, color=PALETTE[5], alpha=0.2)
    for edge in (1 - clip_range, 1 + clip_range):
        all_axes[-1].axhline(edge, color=PALETTE[1], linestyle="--", linewidth=1)
    labels = [token.strip().replace("$", r"\$") or "·" for token in table["token"]]
    all_axes[-1].set_xticks(places, labels, rotation=90, fontsize=9)
    for axes in all_axes[:-1]:
        axes.xaxis.set_visible(False)  # ticks of many tokens are slow to draw
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


def rollout_explorer(tables: Mapping[str, pd.DataFrame], clip_range: float = 0.2):
    """A menu of replies and a slider over the tokens of one, above its numbers in words
    and :func:`rollout`. It starts at the token with the greatest advantage.

    Args:
        tables: of replies, by what to call each.
    """
    import ipywidgets

    reply = ipywidgets.Dropdown(options=list(tables), description="reply")
    first = tables[reply.value]
    token = ipywidgets.IntSlider(
        int(first["advantage"].abs().argmax()),
        min=0,
        max=len(first) - 1,
        description="token",
        layout={"width": "36em"},
    )

    def end_with_reply(change) -> None:
        token.max = len(tables[change.new]) - 1  # a token beyond it becomes the last

    reply.observe(end_with_reply, "value")
    explore(
        [reply, token],
        lambda: _preformatted(
            describe_token(tables[reply.value], token.value, clip_range)
        ),
        lambda: rollout(tables[reply.value], clip_range, token.value),
    )


def _preformatted(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>"
