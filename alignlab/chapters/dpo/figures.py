"""Figures of notebook 05, and its explorers: one pair, and two replies."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.special import expit, log_expit, logit, rel_entr

from alignlab.chapters.dpo import analysis
from alignlab.evaluation.intervals import t_interval
from alignlab.objectives.preference import dpo_loss
from alignlab.plots.explorers import explore
from alignlab.plots.style import PALETTE, dots, series_style

BETAS = 0.1, 10.0  # of the explorer of two replies
LOSSES = {"DPO": "sigmoid", "IPO": "ipo", "hinge": "hinge", "unweighted": "unweighted"}

# --- The exact laboratory -------------------------------------------------------------


def optimum(
    policies: Mapping[str, Sequence[float]],
    reward: Sequence[float],
    implicit: Sequence[float],
    names: Sequence[str],
):
    """Probability of every completion under several policies, and DPO's implicit reward
    against the true one.

    Args:
        policies: probabilities of all completions, by the policy's name.
        reward, implicit: true and implicit reward of every completion.
        names: the completions as text.
    """
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 4), gridspec_kw={"width_ratios": [2.2, 1]}
    )
    order = np.argsort(reward)[::-1]
    for number, (name, probabilities) in enumerate(policies.items()):
        left.plot(
            np.asarray(probabilities)[order], linestyle="", label=name,
            markersize=9 - 1.5 * number, **series_style(number, "color", "marker"),
        )  # fmt: skip
    left.set_xticks(range(len(order)), np.asarray(names)[order], rotation=90)
    left.set(xlabel="reply, best reward first", ylabel="probability")
    left.set_title("All that it can say")
    left.legend(fontsize=10)
    right.plot(reward, implicit, "o", color=PALETTE[0])
    shift = np.mean(implicit) - np.mean(reward)
    ends = np.array([min(reward), max(reward)])
    right.plot(ends, ends + shift, "--", color="0.4", linewidth=1, label="r - β log Z")
    right.set(xlabel="true reward", ylabel="β log(π / π_ref)")
    right.set_title("Read back")
    right.legend(fontsize=10)
    return figure


# --- Loss and gradient ----------------------------------------------------------------


def _curves(loss_type: str, beta: float, margins: np.ndarray):
    """Loss and its slope at margins in nats."""
    h = torch.as_tensor(margins, dtype=torch.float64).requires_grad_()
    zero = torch.zeros_like(h)
    losses = dpo_loss(h, zero, zero, zero, beta, loss_type)
    [slopes] = torch.autograd.grad(losses.sum(), h)
    return losses.detach().numpy(), slopes.numpy()


def loss_and_gradient(beta: float = 0.1, margin: float = 0.0, reach: float = 30.0):
    """Losses of a pair, and how hard each pulls on its margin, against the margin.

    Args:
        beta: of all losses; higher makes DPO let go at a smaller margin.
        margin: in nats, of the pair to mark.
        reach: the horizontal axis goes from minus this to plus this.
    """
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.8))
    margins = np.linspace(-reach, reach, 241)
    for number, (name, loss_type) in enumerate(LOSSES.items()):
        style = series_style(number, "color", "linestyle")
        at_zero = np.array([0.0])
        # Divided by the loss's pull at margin 0, so that shapes can be compared.
        scale = abs(_curves(loss_type, beta, at_zero)[1][0])
        lines = _curves(loss_type, beta, margins)
        marks = _curves(loss_type, beta, np.array([margin]))
        for axes, sign, line, mark in zip(panels, (1, -1), lines, marks, strict=True):
            axes.plot(margins, sign * line / scale, label=name, **style)
            axes.plot(margin, sign * mark[0] / scale, "o", color=PALETTE[number])
    for axes in panels:
        axes.axvline(margin, color="0.6", linewidth=1)
        axes.set_xlabel("margin h (nats)")
    panels[0].set(ylabel="loss over its slope at 0", ylim=(-reach, 2 * reach))
    panels[0].set_title(f"Loss, β = {beta:.2g}")
    panels[1].set(ylabel="pull on the margin (1 at h = 0)", ylim=(-1, 3))
    panels[1].axhline(0, color="0.6", linewidth=1)
    panels[1].set_title("How hard a pair pulls")
    panels[1].legend(fontsize=10)
    return figure


def margin_story(beta: float, margin: float) -> str:
    """What DPO and IPO do with one pair, in words."""
    preferred = 1 / (1 + np.exp(-beta * margin))
    target = 1 / (2 * beta)
    return (
        f"At β = {beta:.2g} a margin of {margin:+.1f} nats means the chosen reply is "
        f"preferred with probability {preferred:.2f}. DPO's weight is "
        f"{1 - preferred:.2f} (0.50 at the start); IPO aims at a margin of "
        f"{target:.1f} and pulls {'on' if margin < target else 'back'}."
    )


def margin_explorer():
    """Losses and gradients of a pair, with sliders for β and its margin."""
    import ipywidgets

    beta = ipywidgets.FloatLogSlider(
        0.1, base=10, min=-2, max=0.5, step=0.1, description="β"
    )
    margin = ipywidgets.FloatSlider(
        0.0, min=-30, max=30, step=1, description="margin h (nats)"
    )
    explore(
        [beta, margin],
        lambda: loss_and_gradient(beta.value, margin.value),
        lambda: f"<p>{margin_story(beta.value, margin.value)}</p>",
    )


# --- Two replies ----------------------------------------------------------------------


def margins(preferred: float, betas) -> dict[str, np.ndarray]:
    """The margin in nats at which each loss is least, if of two replies this share of
    the labels prefers the first; infinite for DPO if all do."""
    betas = np.asarray(betas, float)
    return {"DPO": logit(preferred) / betas, "IPO": (2 * preferred - 1) / (2 * betas)}


def two_replies(preferred: float, reference: float, beta: float):
    """Two replies and nothing else: DPO's expected loss by the probability of the first
    one, and the probability where DPO and IPO end, against β.

    Args:
        preferred: share of the labels that prefer the first reply.
        reference: the reference's probability of it.
        beta: strength of both losses.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2))
    log_odds = np.linspace(-6, 6, 241)
    h = log_odds - logit(reference)
    parts = {
        "labels for the first": -preferred * log_expit(beta * h),
        "labels for the second": -(1 - preferred) * log_expit(-beta * h),
    }
    for number, (name, loss) in enumerate(parts.items(), start=2):
        style = series_style(number, "color", "linestyle")
        left.plot(expit(log_odds), loss, **style, linewidth=1.5, label=name)
    left.plot(expit(log_odds), sum(parts.values()), color=PALETTE[0], label="the loss")
    end = expit(logit(reference) + margins(preferred, beta)["DPO"])
    left.axvline(end, color=PALETTE[0], linewidth=1, label="where DPO ends")
    left.axvline(reference, color="0.4", linestyle=":", label="reference")
    left.set(xlabel="probability of the first reply", ylabel="expected loss (nats)")
    left.set(xlim=(0, 1), ylim=(0, None), title=f"DPO's loss, β = {beta:.2g}")
    betas = np.geomspace(*BETAS, 101)
    for number, (name, h) in enumerate(margins(preferred, betas).items()):
        style = series_style(number, "color", "linestyle")
        right.plot(betas, expit(logit(reference) + h), **style, label=name)
        mark = expit(logit(reference) + margins(preferred, beta)[name])
        right.plot(beta, mark, **series_style(number, "color", "marker"), markersize=9)
    right.axhline(reference, color="0.4", linestyle=":", label="reference")
    right.axhline(preferred, color="0.6", linestyle="--", label="share of the labels")
    right.set(xscale="log", xlabel="β", ylim=(-0.02, 1.02), title="Where it ends")
    right.set(ylabel="probability of the first reply")
    for axes in (left, right):
        axes.legend(fontsize=10, frameon=True, edgecolor="none")  # lines are behind
    return figure


def two_replies_story(preferred: float, reference: float, beta: float) -> str:
    """Where DPO and IPO end with two replies, in words."""
    margin_of = margins(preferred, beta)
    dpo, ipo = (float(expit(logit(reference) + margin_of[name])) for name in margin_of)
    kl = float(rel_entr([dpo, 1 - dpo], [reference, 1 - reference]).sum())
    if np.isinf(margin_of["DPO"]):
        asked = (
            "No label is for the second reply, so the reward of the first is without "
            "bound: DPO's loss has no minimum, and the policy goes on until it says "
            "nothing else."
        )
    else:
        asked = (
            f"Labels that prefer the first reply {preferred:.0%} of the time mean that "
            f"its reward is higher by {logit(preferred):.2f}. DPO's loss is least at a "
            f"margin of {logit(preferred):.2f} / β = {margin_of['DPO']:.2f} nats, "
            f"where the first reply has probability {dpo:.2f}."
        )
    return (
        f"{asked} The best policy for that reward at a price of {beta:.2g} a nat is "
        f"the same one: {kl:.2f} nats from the reference. IPO stops at a margin of "
        f"{margin_of['IPO']:.2f} nats, with probability {ipo:.2f}."
    )


def two_replies_explorer() -> None:
    """Sliders for β, the labels and the reference over :func:`two_replies`."""
    import ipywidgets

    least, most = np.log10(BETAS)
    beta = ipywidgets.FloatLogSlider(
        1.0, base=10, min=least, max=most, step=0.1, description="β"
    )
    preferred = ipywidgets.FloatSlider(
        0.8,
        min=0.5,
        max=1.0,
        step=0.05,
        description="labels for the first",
        layout={"width": "28em"},
    )
    reference = ipywidgets.FloatSlider(
        0.3, min=0.05, max=0.95, step=0.05, description="reference"
    )

    def values() -> tuple[float, float, float]:
        return preferred.value, reference.value, beta.value

    explore(
        [beta, preferred, reference],
        lambda: two_replies(*values()),
        lambda: f"<p>{two_replies_story(*values())}</p>",
    )


# --- One pair, token by token ---------------------------------------------------------


def token_log_ratios(tokens: Mapping[str, Sequence[str]], ratios: Mapping):
    """log π/π_ref of each token of a chosen and a rejected reply, as bars whose sum is
    the reply's log-ratio.

    Args:
        tokens: of "chosen" and "rejected", as text.
        ratios: of the same, in nats a token.
    """
    figure, panels = plt.subplots(2, 1, figsize=(11, 5.2), sharey=True)
    for number, (axes, side) in enumerate(zip(panels, tokens, strict=True)):
        places = range(len(tokens[side]))
        axes.bar(places, ratios[side], color=PALETTE[number])
        axes.set_xticks(places, tokens[side], rotation=60, fontsize=9)
        axes.axhline(0, color="0.4", linewidth=1)
        axes.set_ylabel("nats")
        axes.set_title(f"{side}: {sum(ratios[side]):+.2f} nats in all", fontsize=12)
    return figure


# --- The family -----------------------------------------------------------------------


def paths(groups: Mapping[str, Sequence[Mapping]], start: analysis.Golds, reach: float):
    """Gold gained against KL along the runs of each loss, a panel each, with DPO in
    grey behind the others.

    Args:
        groups: rows by loss, DPO's among them.
        reach: nats at which the axes end.
    """
    others = [name for name in groups if name != "DPO"]
    columns = 4
    lines = -(-len(others) // columns)
    figure, panels = plt.subplots(
        lines, columns, figsize=(12, 2.9 * lines), sharex=True, sharey=True,
        squeeze=False,
    )  # fmt: skip
    for axes in panels.flat[len(others) :]:
        axes.remove()
    for number, (axes, name) in enumerate(zip(panels.flat, others)):
        for label, color in (("DPO", "0.6"), (name, PALETTE[number % len(PALETTE)])):
            _draw_paths(axes, groups[label], start, label, color)
        axes.axvline(analysis.NATS, color="0.8", linewidth=1, linestyle=":")
        axes.axhline(0, color="0.6", linewidth=1)
        axes.set_title(name, fontsize=12)
        axes.set_xlim(0, reach)
    for axes in panels[-1]:
        axes.set_xlabel("KL (nats a reply)")
    for axes in panels[:, 0]:
        axes.set_ylabel("gold gained")
    panels[0, 0].legend(fontsize=9)
    return figure


def _draw_paths(axes, rows, start, label: str, color: str) -> None:
    lines = []
    for row in rows:
        before = np.mean(start[row["chain"]["seed"]]["golds"])
        kl = [0.0, *(point["kl"] for point in row["points"])]
        gained = [0.0, *(point["gold"] - before for point in row["points"])]
        lines.append((kl, gained))
        if len(rows) > 1:
            axes.plot(kl, gained, color=color, linewidth=0.7, alpha=0.6)
    looks = min(len(kl) for kl, _ in lines)
    mean = np.mean([[kl[:looks], gold[:looks]] for kl, gold in lines], axis=0)
    axes.plot(*mean, color=color, linewidth=2.2, marker="o", markersize=4, label=label)


def gain_rows(gains: Mapping[str, Mapping[int, float]], title: str, label: str):
    """A row for each method: a dot for each seed, their mean and its interval.

    Args:
        gains: by method and seed.
        label: of the horizontal axis, with its unit.
    """
    figure, axes = plt.subplots(figsize=(8, 0.42 * len(gains) + 1.3))
    values = {name: list(by_seed.values()) for name, by_seed in gains.items()}
    dots(axes, values, horizontal=True)
    for place, own in enumerate(values.values()):
        if len(own) > 1:
            interval = t_interval(own)
            ends = [interval.low, interval.high]
            axes.plot(ends, [place] * 2, color="0.2", linewidth=1)
    axes.axvline(0, color="0.6", linewidth=1)
    axes.set_xlabel(label)
    axes.set_title(title)
    return figure


# --- DPO against PPO ------------------------------------------------------------------


def frontier(groups: Mapping[str, Sequence[Mapping]], start: analysis.Golds):
    """Gold gained against KL: a dot for every look of every run, and the upper envelope
    of every method: thick the mean over seeds, thin the seeds.

    Args:
        groups: rows by method; of best of n, its points are of the same form.
    """
    figure, axes = plt.subplots(figsize=(9.5, 5.2))
    for number, (name, rows) in enumerate(groups.items()):
        style = series_style(number, "color", "linestyle")
        lines = list(analysis.envelopes(rows, start).values())
        for line in lines if len(lines) > 1 else ():
            axes.plot(analysis.GRID, line, **style, linewidth=0.7, alpha=0.5)
        axes.plot(
            analysis.GRID, np.mean(lines, axis=0), **style, linewidth=2.6, label=name
        )
        marks = series_style(number, "color", "marker")
        for row in rows:
            before = np.mean(start[row["chain"]["seed"]]["golds"])
            inside = [p for p in row["points"] if p["kl"] <= analysis.REACH]
            axes.plot(
                [p["kl"] for p in inside],
                [np.mean(p["golds"]) - before for p in inside],
                linestyle="", markersize=4, alpha=0.35, **marks,
            )  # fmt: skip
    axes.axhline(0, color="0.4", linewidth=1, linestyle=":", label="reference")
    axes.set(
        xlim=(0, analysis.REACH),
        xlabel="exact KL to the reference (nats a reply)",
        ylabel="gold gained on unseen subjects",
        title="The best of what was tried, within every distance",
    )
    axes.legend(fontsize=10, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def time_to_gold(groups: Mapping[str, Sequence[tuple]]):
    """Gold gained against the processor's seconds, along the best run of each seed.

    Args:
        groups: by method, the pairs of ``analysis.gold_by_seconds``, one a seed.
    """
    figure, axes = plt.subplots(figsize=(8, 4.2))
    for number, (name, lines) in enumerate(groups.items()):
        style = series_style(number, "color", "marker", "linestyle")
        for line in lines if len(lines) > 1 else ():
            axes.plot(*line, color=style["color"], linewidth=0.8, alpha=0.5)
        looks = min(len(seconds) for seconds, _ in lines)
        means = np.mean([[s[:looks], g[:looks]] for s, g in lines], axis=0)
        axes.plot(*means, **style, label=name)
    axes.axhline(0, color="0.4", linewidth=1, linestyle=":")
    axes.set(
        xlabel="CPU seconds, the reward model's training included",
        ylabel="gold gained on unseen subjects",
        title="The best run of each seed (thick: mean)",
    )
    axes.set_xlim(left=0)
    axes.legend(fontsize=10)
    return figure
