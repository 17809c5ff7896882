"""Figures of notebook 05, and its explorer: the margin and β on loss and gradient."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch

from alignlab.chapters.dpo.analysis import GRID, envelopes, gradient_weights
from alignlab.evaluation.intervals import t_interval
from alignlab.objectives.preference import dpo_loss
from alignlab.plots.style import LINESTYLES, MARKERS, PALETTE, interval_line

LOSSES = {"DPO": "sigmoid", "IPO": "ipo", "hinge": "hinge", "unweighted": "unweighted"}

# --- The exact laboratory -------------------------------------------------------------


def optimum(
    policies: Mapping[str, Sequence[float]],
    reward: Sequence[float],
    implicit: Sequence[float],
    names: Sequence[str],
):
    """Every reply's probability under several policies, and the reward that DPO has
    learnt against the true one.

    Args:
        policies: probabilities of all replies, by the policy's name.
        reward: of every reply. implicit: the same, read back from the policy.
        names: the replies.
    """
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 4), gridspec_kw={"width_ratios": [2.2, 1]}
    )
    order = np.argsort(reward)[::-1]
    for number, (name, probabilities) in enumerate(policies.items()):
        left.plot(
            np.asarray(probabilities)[order], linestyle="",
            marker=MARKERS[number % len(MARKERS)], markersize=9 - 1.5 * number,
            color=PALETTE[number % len(PALETTE)], label=name,
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
    nothing = torch.zeros_like(h)
    losses = dpo_loss(h, nothing, nothing, nothing, beta, loss_type)
    [slopes] = torch.autograd.grad(losses.sum(), h)
    return losses.detach().numpy(), slopes.numpy()


def loss_and_gradient(beta: float = 0.1, margin: float = 0.0, reach: float = 30.0):
    """Losses of a pair and how hard each pulls, against the pair's margin.

    Args:
        beta: the same for all losses.
        margin: the pair to mark, in nats.
        reach: margins are drawn from minus this to this.
    """
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.8))
    margins = np.linspace(-reach, reach, 241)
    for number, (name, loss_type) in enumerate(LOSSES.items()):
        style = dict(color=PALETTE[number], linestyle=LINESTYLES[number])
        at_zero = np.array([0.0])
        # Each loss by its own pull at margin 0, so that shapes can be compared.
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
    panels[0].set_title(f"Loss, β = {beta:g}")
    panels[1].set(ylabel="pull on the margin (1 at h = 0)", ylim=(-1, 3))
    panels[1].axhline(0, color="0.6", linewidth=1)
    panels[1].set_title("How hard a pair pulls")
    panels[1].legend(fontsize=10)
    return figure


def margin_story(beta: float, margin: float) -> str:
    """What DPO makes of one pair, in words."""
    sure = 1 / (1 + np.exp(-beta * margin))
    return (
        f"At β = {beta:g} a margin of {margin:+.1f} nats says that the chosen reply is "
        f"preferred with probability {sure:.2f}. DPO's weight is {1 - sure:.2f} (0.50 "
        f"at the start); IPO wants a margin of {1 / (2 * beta):.1f} and pulls "
        f"{'on' if margin < 1 / (2 * beta) else 'back'}."
    )


def margin_explorer():
    """Sliders for β and the margin of a pair, over losses and gradients."""
    import ipywidgets
    from IPython.display import display

    beta = ipywidgets.FloatLogSlider(
        0.1, base=10, min=-2, max=0.5, step=0.1, description="β",
        continuous_update=False,
    )  # fmt: skip
    margin = ipywidgets.FloatSlider(
        0.0, min=-30, max=30, step=1, description="margin", continuous_update=False
    )

    def draw(beta: float, margin: float) -> None:
        loss_and_gradient(beta, margin)
        plt.show()
        print(margin_story(beta, margin))

    out = ipywidgets.interactive_output(draw, {"beta": beta, "margin": margin})
    display(ipywidgets.HBox([beta, margin]), out)


def gradients(rows: Sequence[Mapping], beta: float):
    """Every held-out pair's measured weight against the one it should have, and the
    length of its gradient."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
    for number, row in enumerate(rows):
        weights = gradient_weights(row["gradients"], beta)
        style = dict(
            linestyle="", marker=MARKERS[number % len(MARKERS)], alpha=0.6, markersize=6
        )
        style |= dict(color=PALETTE[number % len(PALETTE)], label=f"seed {row['seed']}")
        left.plot(weights["expected"], weights["measured"], **style)
        right.plot(weights["expected"], row["gradients"]["gradient"], **style)
    ends = np.array(left.get_xlim())
    left.plot(ends, ends, "--", color="0.4", linewidth=1)
    left.set(xlabel="σ(-β margin)", ylabel="|gradient| / (β |gradient of margin|)")
    left.set_title("The weight is what it should be")
    right.set(xlabel="σ(-β margin)", ylabel="|gradient| of the pair")
    right.set_title("Who pulls most")
    right.legend(fontsize=10)
    return figure


# --- Chosen and rejected --------------------------------------------------------------


def followed(groups: Mapping[str, Sequence[Mapping]]):
    """Log-ratios of chosen and rejected replies along runs, on pairs learnt from and on
    unseen ones, a row of panels for each kind of run."""
    figure, panels = plt.subplots(
        len(groups), 2, figsize=(10, 3.4 * len(groups)), squeeze=False, sharey="row"
    )
    where = {"train": "pairs learnt from", "held_out": "pairs about unseen subjects"}
    for line, (name, rows) in zip(panels, groups.items(), strict=True):
        looks = [row["followed"] for row in rows if not row.get("stopped")]
        for axes, (key, label) in zip(line, where.items(), strict=True):
            for number, side in enumerate(("chosen", "rejected")):
                lines = [look[f"{key}/{side}"] for look in looks]
                interval_line(axes, looks[0]["pairs"], lines, side, color=number)
            axes.axhline(0, color="0.6", linewidth=1)
            axes.set_title(f"{name}: {label}", fontsize=12)
            axes.set_xlabel("comparisons seen")
        line[0].set_ylabel("log(π / π_ref), nats a reply")
    panels[0, 0].legend(fontsize=10)
    return figure


# --- Strength, noise ------------------------------------------------------------------


def strengths(rows: Sequence[Mapping], start: Sequence[Mapping]):
    """KL and gold gained at the end of DPO runs against β, a dot a seed."""
    before = {row["seed"]: row["gold"] for row in start}
    rows = [row for row in rows if not row.get("stopped")]
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4))
    seeds = sorted({row["seed"] for row in rows})
    for axes, value in zip(
        panels,
        (lambda row: row["kl"], lambda row: row["gold"] - before[row["seed"]]),
        strict=True,
    ):
        for seed in seeds:
            own = sorted(
                (row["beta"], value(row)) for row in rows if row["seed"] == seed
            )
            axes.plot(*zip(*own), "o-", color=PALETTE[0], alpha=0.5, linewidth=1)
        axes.set_xscale("log")
        axes.set_xlabel("β (log scale)")
    panels[0].set(ylabel="KL (nats a reply)", title="How far it goes")
    panels[1].set(ylabel="gold gained", title="What that brings")
    panels[1].axhline(0, color="0.6", linewidth=1)
    return figure


def noise(groups: Mapping[str, Sequence[Mapping]], start: Sequence[Mapping]):
    """Gold gained and KL at the end of runs on labels of which more and more are wrong.

    Args:
        groups: rows by loss, with ``flips``.
    """
    before = {row["seed"]: row["gold"] for row in start}
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.6))
    for number, (name, rows) in enumerate(groups.items()):
        rows = [row for row in rows if not row.get("stopped")]
        rates = sorted({row["flips"] for row in rows})
        place = np.array(rates) + 0.008 * (number - (len(groups) - 1) / 2)
        style = dict(
            color=PALETTE[number % len(PALETTE)], marker=MARKERS[number % len(MARKERS)]
        )
        for axes, value in zip(
            panels,
            (lambda row: row["gold"] - before[row["seed"]], lambda row: row["kl"]),
            strict=True,
        ):
            by_rate = [[value(r) for r in rows if r["flips"] == rate] for rate in rates]
            for at, values in zip(place, by_rate, strict=True):
                axes.plot([at] * len(values), values, ".", color=style["color"])
            means = [np.mean(values) for values in by_rate]
            axes.plot(
                place, means, linestyle=LINESTYLES[number % len(LINESTYLES)],
                linewidth=1.2, label=name, **style,
            )  # fmt: skip
    for axes in panels:
        axes.set_xlabel("share of wrong labels")
    panels[0].set(ylabel="gold gained", title="Worth on unseen subjects")
    panels[0].axhline(0, color="0.6", linewidth=1)
    panels[1].set(ylabel="KL (nats a reply)", title="Distance gone for it")
    panels[0].legend(fontsize=10)
    return figure


# --- The frontier ---------------------------------------------------------------------


def frontier(
    panels_of: Mapping[str, Mapping[str, Sequence[Mapping]]], start: Sequence[Mapping]
):
    """Gold gained against KL: every run a point, every method its upper envelope with
    the seeds' 95% interval.

    Args:
        panels_of: a panel by its title, with the rows of each of its methods.
        start: the reference, measured with each seed.
    """
    figure, all_axes = plt.subplots(
        1, len(panels_of), figsize=(6.5 * len(panels_of), 5), sharey=True, squeeze=False
    )
    before = {row["seed"]: np.mean(row["golds"]) for row in start}
    for axes, (title, methods) in zip(all_axes[0], panels_of.items(), strict=True):
        for number, (name, rows) in enumerate(methods.items()):
            rows = [row for row in rows if not row.get("stopped")]
            lines = list(envelopes(rows, start).values())
            interval_line(axes, GRID, lines, name, color=number)
            axes.plot(
                [row["kl"] for row in rows],
                [np.mean(row["golds"]) - before[row["seed"]] for row in rows],
                MARKERS[number % len(MARKERS)], color=PALETTE[number % len(PALETTE)],
                markersize=5, alpha=0.7, linestyle="",
            )  # fmt: skip
        axes.axhline(0, color="0.6", linewidth=1)
        axes.set_xlim(-0.1, 1.5 * GRID[-1])
        axes.axvline(GRID[-1], color="0.8", linewidth=1)
        axes.set(xlabel="exact KL to the reference (nats a reply)", title=title)
        axes.legend(
            fontsize=10, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3
        )
    all_axes[0, 0].set_ylabel("gold gained on unseen subjects")
    return figure


def area_dots(areas_of: Mapping[str, Mapping[int, float]]):
    """Mean height of each method's envelope, a dot a seed, mean and interval."""
    figure, axes = plt.subplots(figsize=(8, 0.42 * len(areas_of) + 1.3))
    for place, by_seed in enumerate(areas_of.values()):
        values = list(by_seed.values())
        axes.plot(values, [place] * len(values), "o", color=PALETTE[0], alpha=0.6)
        interval = t_interval(values)
        axes.plot([interval.value] * 2, [place - 0.25, place + 0.25], color="0.2")
        if len(values) > 1:
            ends = [interval.low, interval.high]
            axes.plot(ends, [place] * 2, color="0.2", linewidth=1)
    axes.set_yticks(range(len(areas_of)), list(areas_of))
    axes.set(ylim=(len(areas_of) - 0.5, -0.5), xlabel="gold gained, mean over KL")
    axes.set_title("Height of the envelope (dots: seeds; line: 95% interval)")
    return figure
