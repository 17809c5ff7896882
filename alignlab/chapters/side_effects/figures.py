"""Figures of notebook 06, and its explorers: replies along a run, the price of KL."""

import html
import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from alignlab.chapters.side_effects import analysis
from alignlab.evaluation.intervals import Interval
from alignlab.evaluation.over_optimisation import (
    FORMS,
    NEAR,
    Curve,
    can_be_fitted,
    fit_curves,
)
from alignlab.plots.explorers import as_html, explore, html_table
from alignlab.plots.style import (
    LINESTYLES,
    MARKERS,
    PALETTE,
    dots,
    interval_line,
    series_style,
)

DISTANCE = "distance √KL (nats$^{½}$)"
GOLD, PROXY = "gold reward", "proxy reward (sd of the reference)"
# What gold counts in a reply, in words.
CONTENTS = {
    "relation": "facts stated",
    "right": "right facts",
    "wrong": "wrong facts",
    "repeat": "repeats",
    "opening": "opens politely",
    "closing": "closes politely",
    "filler": "empty phrases",
    "empty": "says nothing of the subject",
}
DIVERSITY = {
    "entropy": ("Entropy", "nats a token"),
    "per_input": ("Per input", "adjusted distinct n-grams"),
    "across_inputs": ("Across inputs", "adjusted distinct n-grams"),
    "self_bleu": ("Self-BLEU per input", "BLEU (higher: less diverse)"),
}


def _ordered(x, y) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(x, kind="stable")
    return np.asarray(x)[order], np.asarray(y)[order]


def _on_grid(rows: Sequence[dict], values: Sequence) -> tuple[np.ndarray, list]:
    """What was seen at every look of each run, at common distances, up to where the
    shortest run ends."""
    grid = np.linspace(0, min(analysis.distance(row).max() for row in rows), 40)
    return grid, [
        np.interp(grid, *_ordered(analysis.distance(row), seen))
        for row, seen in zip(rows, values, strict=True)
    ]


# --- Rise and fall --------------------------------------------------------------------


def rise_and_fall(groups: Mapping[str, Sequence[dict]]):
    """Gold and proxy reward against the distance: a thin line and dots for each run, a
    mean with its interval over seeds for each group.

    Args:
        groups: runs by what they optimised.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), sharex=True)
    for number, (label, rows) in enumerate(groups.items()):
        for axes, measure in ((left, "golds"), (right, "proxies")):
            grid, lines = analysis.on_grid(rows, measure)
            interval_line(axes, grid, lines, label=label, color=number)
            for row in rows:
                values = analysis.by_prompt(row, measure).mean(axis=1)
                axes.plot(
                    analysis.distance(row), values, MARKERS[number], markersize=3,
                    color=PALETTE[number], alpha=0.5, linestyle="",
                )  # fmt: skip
    left.set(xlabel=DISTANCE, ylabel=GOLD, title="What people prefer")
    right.set(xlabel=DISTANCE, ylabel=PROXY, title="What the reward model sees")
    left.legend()
    return figure


def halves(rows: Sequence[dict]):
    """Gold on the half of the requests that picks the peak and on the half that
    measures it, with a panel for each run."""
    lines, columns = -(-len(rows) // 5), min(5, len(rows))
    figure, panels = plt.subplots(
        lines, columns, figsize=(3.7 * columns, 3.6 * lines), sharey=True, squeeze=False
    )
    for axes in panels.flat[len(rows) :]:
        axes.remove()
    for axes, row in zip(panels.flat, rows):
        golds, d = analysis.by_prompt(row, "golds"), analysis.distance(row)
        picks = analysis.picking(golds.shape[1])
        for number, (label, mask) in enumerate(
            {"picks": picks, "measures": ~picks}.items()
        ):
            axes.plot(
                d, golds[:, mask].mean(axis=1), color=PALETTE[number], label=label,
                linestyle=LINESTYLES[number], marker=MARKERS[number], markersize=4,
            )  # fmt: skip
        axes.axvline(d[analysis.turn_of(row).point], color="0.5", linestyle=":")
        axes.set(xlabel=DISTANCE, title=f"Seed {row['seed']}")
    for axes in panels[:, 0]:
        axes.set_ylabel(GOLD)
    panels[0, 0].legend(fontsize=9)
    return figure


def contents(rows: Sequence[dict]):
    """Mean counts per reply of what gold counts, against the distance."""
    figure, axes = plt.subplots(figsize=(8.5, 4.6))
    counts = [analysis.contents(row) for row in rows]
    for number, (name, label) in enumerate(CONTENTS.items()):
        grid, lines = _on_grid(rows, [by_name[name] for by_name in counts])
        axes.plot(
            grid, np.mean(lines, axis=0), label=label,
            **series_style(number, "color", "linestyle"),
        )  # fmt: skip
    axes.set(xlabel=DISTANCE, ylabel="times a reply", title="What replies are made of")
    figure.legend(loc="outside right center", fontsize=10)
    return figure


# --- Methods, fits --------------------------------------------------------------------


def methods(groups: Mapping[str, Sequence[Curve]]):
    """Gold gained against the distance for every method: a thin line for each reward
    model, the fit of Gao's form to all of them in bold, and its peak as a star."""
    figure, axes = plt.subplots(figsize=(8.5, 4.6))
    for number, (label, curves) in enumerate(groups.items()):
        style = series_style(number, "color", "linestyle")
        for curve in curves:
            axes.plot(
                *_ordered(curve.d, curve.gain), **style, linewidth=0.8, alpha=0.6,
                marker=MARKERS[number], markersize=4,
            )  # fmt: skip
        form = "best-of-n" if label == "best of n" else "RL"
        if not can_be_fitted(curves, form):
            axes.plot([], [], **style, label=f"{label} (too near to fit)")
            continue
        fit = fit_curves(curves, form)
        far = np.linspace(NEAR, max(np.max(curve.d) for curve in curves), 100)
        axes.plot(far, fit(far), **style, linewidth=2.6, label=label)
        if fit.peak <= far[-1]:
            axes.plot(
                fit.peak, fit(np.array([fit.peak])), marker="*", markersize=15,
                color=PALETTE[number], markeredgecolor="black",
            )  # fmt: skip
    axes.plot([], [], "*", color="1", markeredgecolor="black", label="peak of the fit")
    axes.axhline(0, color="0.6", linewidth=1)
    axes.set(xlabel=DISTANCE, ylabel="gold gained", title="Three ways to optimise")
    axes.legend()
    return figure


def fits(curves: Sequence[Curve], errors: Mapping[str, float]):
    """Every form fitted to the points of all runs, with its held-out error."""
    figure, axes = plt.subplots(figsize=(8, 4.4))
    for number, curve in enumerate(curves):
        axes.plot(
            curve.d, curve.gain, **series_style(number, "marker"), color="0.35",
            markersize=5, alpha=0.7, linestyle="",
            label="_run" if number else "looks, a marker a run",
        )  # fmt: skip
    far = np.linspace(NEAR, max(np.max(curve.d) for curve in curves), 100)
    forms = [form for form in FORMS if can_be_fitted(curves, form)]
    for number, form in enumerate(forms):
        fit = fit_curves(curves, form)
        axes.plot(
            far, fit(far), **series_style(number, "color", "linestyle"),
            label=f"{form}: {FORMS[form].formula}  (held out: {errors[form]:.2f})",
        )  # fmt: skip
    axes.axvspan(0, NEAR, color="0.9", zorder=0)
    axes.set(xlabel=DISTANCE, ylabel="gold gained", title="Which curve is it?")
    axes.legend(fontsize=9)
    return figure


def analytic_kl(rows: Sequence[dict]):
    """The formula for best-of-n's KL and its exact value, against n.

    Args:
        rows: of ``analysis.exact_kl_of_best_of_n``.
    """
    figure, axes = plt.subplots(figsize=(6.5, 3.6))
    ns = [row["n"] for row in rows]
    axes.plot(ns, [r["formula"] for r in rows], label="log n - (n-1)/n")
    axes.plot(
        ns, [r["exact"] for r in rows], MARKERS[1], color=PALETTE[1], label="exact"
    )
    axes.set_xscale("log", base=2)
    axes.set(xlabel="n", ylabel="KL (nats)", title="Best of n: bound and truth")
    axes.legend()
    return figure


def mean_frontiers(
    runs: Mapping[str, Sequence[dict]], best: Sequence[Sequence[Mapping]]
) -> dict[str, dict[str, np.ndarray]]:
    """What each method has at every KL, mean over seeds: ``kl`` in nats, ``proxy`` in
    standard deviations of the reference, and ``gold`` gained.

    Args:
        runs: by method, as far as the shortest of them goes.
        best: of best of n, a curve for each seed.
    """
    keys = "kl", "proxy", "gold"
    curve = {k: np.mean([[row[k] for row in c] for c in best], axis=0) for k in keys}
    frontiers = {"best of n": curve}
    for method, rows in runs.items():
        distances, proxies = analysis.on_grid(rows, "proxies")
        _, golds = analysis.on_grid(rows, "golds")
        means = distances**2, np.mean(proxies, axis=0), np.mean(golds, axis=0)
        frontiers[method] = dict(zip(keys, means, strict=True))
    for curve in frontiers.values():
        curve["gold"] = curve["gold"] - curve["gold"][0]
    return frontiers


def priced(frontiers: Mapping[str, Mapping[str, np.ndarray]], price: float):
    """Proxy reward and gold against KL for every method. Where proxy reward less the
    price of the KL is greatest, a mark; a line of slope ``price`` touches the curve.

    Args:
        frontiers: of :func:`mean_frontiers`.
        price: of a nat, in standard deviations of proxy reward.
    """
    figure, panels = plt.subplots(1, 2, figsize=(10.5, 4.2), sharex=True)
    far = max(curve["kl"].max() for curve in frontiers.values())
    for number, (method, curve) in enumerate(frontiers.items()):
        kl, at = curve["kl"], stopped_at(curve, price)
        style = series_style(number, "color", "linestyle")
        for axes, measure in zip(panels, ("proxy", "gold")):
            axes.plot(kl, curve[measure], **style, label=method)
            axes.plot(
                kl[at], curve[measure][at], **series_style(number, "color", "marker"),
                markersize=11, markeredgecolor="black", linestyle="",
            )  # fmt: skip
        ends = np.array([0.0, far])
        tangent = curve["proxy"][at] + price * (ends - kl[at])
        panels[0].plot(ends, tangent, ":", color=style["color"], linewidth=1)
    top = max(curve["proxy"].max() for curve in frontiers.values())
    panels[0].set(ylim=(-0.1 * top - 0.1, 1.1 * top + 0.1))
    panels[0].set(ylabel=PROXY, title=f"What {price:.2f} sd a nat buys")
    panels[1].set(ylabel="gold gained", title="What it is worth")
    panels[1].axhline(0, color="0.6", linewidth=1)
    for axes in panels:
        axes.set_xlabel("KL to the reference (nats)")
    panels[1].legend(fontsize=10)
    return figure


def stopped_at(curve: Mapping[str, np.ndarray], price: float) -> int:
    """Where on a curve proxy reward less the price of its KL is greatest."""
    return int(np.argmax(curve["proxy"] - price * curve["kl"]))


def price_card(frontiers: Mapping[str, Mapping[str, np.ndarray]], price: float) -> str:
    """HTML of where each method stops at a price, and what it has there."""
    rows = []
    for method, curve in frontiers.items():
        at = stopped_at(curve, price)
        kl, proxy, gold = (curve[k][at] for k in ("kl", "proxy", "gold"))
        cells = [f"{value:+.2f}" for value in (proxy, proxy - price * kl, gold)]
        rows.append((f"<b>{method}</b>", f"{kl:.2f}", *cells))
    head = ("", "stops at (nats)", "proxy reward (sd)", "less its price", "gold gained")
    return html_table(head, rows)


def price_explorer(frontiers: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """A slider for the price of a nat over :func:`priced` and :func:`price_card`."""
    import ipywidgets

    price = ipywidgets.FloatSlider(
        0.2,
        min=0.0,
        max=2.0,
        step=0.05,
        description="price of a nat (sd)",
        layout={"width": "28em"},
    )
    explore(
        [price],
        lambda: priced(frontiers, price.value),
        lambda: price_card(frontiers, price.value),
    )


# --- Data, size, remedies -------------------------------------------------------------


def weaker(curves: Mapping[int, Sequence[Sequence[dict]]]):
    """Gold of best of n against the distance, by reward models of several amounts of
    comparisons.

    Args:
        curves: by comparisons, a curve of best of n for each seed.
    """
    figure, axes = plt.subplots(figsize=(7, 4))
    for number, (count, own) in enumerate(curves.items()):
        d = np.sqrt([row["kl"] for row in own[0]])
        golds = [[row["gold"] for row in curve] for curve in own]
        interval_line(axes, d, golds, label=f"{count:,} comparisons", color=number)
    axes.set(xlabel=DISTANCE, ylabel=GOLD, title="Best of n, by reward model")
    axes.set_xlim(left=0)
    axes.legend(fontsize=10)
    return figure


def stopping(gains: Mapping[str, Sequence[float]]):
    """Gold gained over the reference where each rule stops, a dot for each seed, the
    mean as a bar."""
    figure, axes = plt.subplots(figsize=(7.5, 0.5 * len(gains) + 1.2))
    dots(axes, gains, horizontal=True)
    axes.axvline(0, color="0.6", linewidth=1)
    axes.set(xlabel="gold gained over the reference (dots: seeds, bar: mean)")
    axes.set_title("Where to stop")
    return figure


def monitor(looks: Sequence[Mapping]):
    """What the monitor saw along a run: proxy and judge, in standard deviations of the
    first look, with 95% intervals over prompts of the change since then.

    Args:
        looks: rows of ``RewardHackingCallback.looks``.
    """
    figure, axes = plt.subplots(figsize=(7, 3.4))
    steps = [look["step"] for look in looks]
    for number, name in enumerate(("proxy", "judge")):
        values = np.array([look[name] for look in looks])
        changes = (values - values[0]) / values[0].std()
        error = 1.96 * changes.std(axis=1, ddof=1) / math.sqrt(changes.shape[1])
        style = series_style(number, "color", "marker", "linestyle")
        axes.errorbar(
            steps, changes.mean(axis=1), error, label=name, capsize=3, **style
        )
    axes.axhline(0, color="0.6", linewidth=1)
    axes.set(xlabel="update", ylabel="change (sd of the start)")
    axes.set_title("What the monitor sees (bars: 95%)")
    axes.legend(fontsize=10)
    return figure


def noticed(rows: Sequence[dict], seen: Sequence[Mapping[str, np.ndarray]]):
    """What can be seen of the runs without gold, against the distance: the reward that
    is optimised and a held-out judge; and how much three reward models disagree.

    Args:
        seen: of each run, ``analysis.noticed``.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), sharex=True)
    panels = {"proxy": left, "judge": left, "disagreement": right}
    for number, (name, axes) in enumerate(panels.items()):
        grid, lines = _on_grid(rows, [values[name] for values in seen])
        interval_line(axes, grid, lines, label=name, color=number)
    left.set(xlabel=DISTANCE, ylabel="reward (sd of the reference)")
    left.set_title("Proxy and held-out judge")
    right.set(xlabel=DISTANCE, ylabel="sd between three (sd of the reference)")
    right.set_title("How much three reward models disagree")
    left.legend()
    return figure


def remedies(groups: Mapping[str, Sequence[dict]]):
    """Gold against the distance with each remedy, a thin line a run and their mean as
    far as the shortest goes; and every run's gold at its peak and at its end, on the
    requests that did not pick the peak.

    Args:
        groups: runs by remedy.
    """
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11.5, 4.4), width_ratios=(1.2, 1)
    )
    for number, (label, rows) in enumerate(groups.items()):
        line = series_style(number, "color", "linestyle")
        means = [analysis.by_prompt(row, "golds").mean(axis=1) for row in rows]
        for row, golds in zip(rows, means):
            left.plot(*_ordered(analysis.distance(row), golds), **line, linewidth=0.7)
        grid, lines = _on_grid(rows, means)
        left.plot(grid, np.mean(lines, axis=0), **line, linewidth=2.4, label=label)
        for place, row in enumerate(rows):
            golds, at = analysis.look_gold(row), number + 0.2 * (place - len(rows) // 2)
            best, color = golds[analysis.turn_of(row).point], line["color"]
            right.plot([best, golds[-1]], [at] * 2, "-", color=color, linewidth=1)
            right.plot([best], [at], "|", color=color, markersize=10)
            right.plot([golds[-1]], [at], "o", color=color, markersize=5)
    right.set_yticks(range(len(groups)), list(groups))
    right.set(ylim=(len(groups) - 0.5, -0.5), xlabel=GOLD)
    right.set_title("From the peak (bar) to the end (dot)")
    left.set(xlabel=DISTANCE, ylabel=GOLD, title="Along the way")
    left.legend(fontsize=9)
    return figure


# --- Diversity ------------------------------------------------------------------------


def diversity(rows: Sequence[dict], along: Sequence[Mapping[str, np.ndarray]]):
    """Entropy and three measures of diversity against the distance: a thin line a run,
    their mean and its interval.

    Args:
        along: of each run, ``analysis.diversity_along`` and "entropy".
    """
    figure, panels = plt.subplots(1, 4, figsize=(15, 3.8), sharex=True)
    for axes, (name, (title, label)) in zip(panels, DIVERSITY.items(), strict=True):
        grid, lines = _on_grid(rows, [values[name] for values in along])
        interval_line(axes, grid, lines, label="mean (band: 95%)")
        axes.set_title(title, fontsize=11)
        axes.set_ylabel(label, fontsize=10)
        axes.set_xlabel(DISTANCE, fontsize=10)
    return figure


def entropy_and_reward(rows: Sequence[dict]):
    """Entropy against gold and against the proxy reward, along every run."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True)
    for axes, measure, label in zip(panels, ("golds", "proxies"), (GOLD, PROXY)):
        for number, row in enumerate(rows):
            axes.plot(
                analysis.by_prompt(row, measure).mean(axis=1),
                analysis.over_points(row, "entropy"),
                **series_style(number, "color", "linestyle", "marker"),
                markersize=4,
                label=f"seed {row['seed']}",
            )
        axes.set(xlabel=label, title=f"Entropy and {label.split(' (')[0]}")
    panels[0].set_ylabel("entropy (nats a token)")
    panels[1].legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def temperature(policy: Sequence[Sequence[dict]], reference: Sequence[Sequence[dict]]):
    """Gold against diversity per input, sampled at several temperatures.

    Args:
        policy, reference: for each seed the rows of ``analysis.temperature_curve``.
    """
    figure, axes = plt.subplots(figsize=(7.5, 4.4))
    groups = {"reference": reference, "after PPO": policy}
    for number, (label, curves) in enumerate(groups.items()):
        style = series_style(number, "color", "linestyle")
        x, y = (
            np.array([[point[name] for point in curve] for curve in curves])
            for name in ("diversity", "gold")
        )
        for of_seed in zip(x, y):
            axes.plot(*of_seed, **style, linewidth=0.7, alpha=0.5)
        axes.plot(x.mean(0), y.mean(0), **style, marker=MARKERS[number], label=label)
        for place, row in enumerate(curves[0]):
            axes.annotate(
                f"{row['temperature']:g}", (x.mean(0)[place], y.mean(0)[place]),
                textcoords="offset points", xytext=(5, 5), fontsize=9,
                color=PALETTE[number],
            )  # fmt: skip
    at_one = [row for curve in reference for row in curve if row["temperature"] == 1]
    across, up = (
        np.mean([row[name] for row in at_one]) for name in ("diversity", "gold")
    )
    axes.axvline(across, color="0.5", linestyle=":", linewidth=1)
    axes.axhline(
        up, color="0.5", linestyle=":", linewidth=1, label="reference at temperature 1"
    )
    axes.set(
        xlabel="diversity of replies to one request (adjusted distinct n-grams)",
        ylabel=GOLD,
        title="Can temperature buy it back? (numbers: temperature)",
    )
    axes.legend()
    return figure


# --- Reading the replies --------------------------------------------------------------


def point_card(row: dict, point: int, subject: int, request: str, most: int = 4) -> str:
    """HTML of one evaluation of a run: its replies to one request, with gold and
    standardised proxy rewards.

    Args:
        point: index of the evaluation.
        subject: index of the request, whose text is ``request``.
        most: replies to show.
    """
    evaluation = row["points"][point]
    scale = np.array(row["points"][0]["proxies"], float)

    def standardised(proxy: float) -> float:
        return (proxy - scale.mean()) / scale.std()

    columns = (evaluation[name][subject] for name in ("texts", "golds", "proxies"))
    cells = [
        (
            as_html(text),
            f"{gold:+.1f}",
            f"{standardised(proxy):+.2f}",
        )
        for text, gold, proxy in list(zip(*columns))[:most]
    ]
    head = (f"“{html.escape(request)}”", "gold", "proxy reward (sd)")
    mean_proxy = standardised(np.mean(evaluation["proxies"]))
    return (
        f"<p>Step {evaluation['step']}, {evaluation['kl']:.1f} nats from the "
        f"reference. Over all requests: gold {np.mean(evaluation['golds']):+.2f}, "
        f"proxy reward {mean_proxy:+.2f} sd, entropy {evaluation['entropy']:.2f} nats "
        f"a token.</p>{html_table(head, cells)}"
    )


def run_explorer(row: dict, requests: Sequence[str]) -> None:
    """:func:`point_card` with a slider for the evaluation and a menu for the request.

    Args:
        row: of ``runs.ppo_arm`` or ``runs.dpo_arm``.
        requests: the test requests, in their order.
    """
    import ipywidgets

    slider = ipywidgets.IntSlider(
        0, min=0, max=len(row["points"]) - 1, description="evaluation"
    )
    chooser = ipywidgets.Dropdown(
        options=[(name, place) for place, name in enumerate(requests)],
        description="request",
    )

    def card() -> str:
        return point_card(row, slider.value, chooser.value, requests[chooser.value])

    explore([slider, chooser], card)


def interval_words(interval: Interval) -> str:
    """A peak with its interval, in words; infinite limits mean there may be none."""
    if math.isinf(interval.value):
        return "no peak in sight"
    high = "∞" if math.isinf(interval.high) else f"{interval.high:.2f}"
    low = "?" if math.isinf(interval.low) else f"{interval.low:.2f}"
    if math.isinf(interval.low) and math.isinf(interval.high):
        return f"{interval.value:.2f}"
    return f"{interval.value:.2f} ({low} to {high})"
