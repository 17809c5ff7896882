"""Figures of notebook 05, and its explorer: the margin and β on loss and gradient."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch

from alignlab.chapters.dpo.analysis import GRID, envelopes, gradient_weights
from alignlab.evaluation.intervals import t_interval
from alignlab.objectives.preference import dpo_loss
from alignlab.plots.style import PALETTE, dots, interval_line, series_style

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
    panels[0].set_title(f"Loss, β = {beta:g}")
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
        f"At β = {beta:g} a margin of {margin:+.1f} nats means the chosen reply is "
        f"preferred with probability {preferred:.2f}. DPO's weight is "
        f"{1 - preferred:.2f} (0.50 at the start); IPO aims at a margin of "
        f"{target:.1f} and pulls {'on' if margin < target else 'back'}."
    )


def margin_explorer():
    """Losses and gradients of a pair, with sliders for β and its margin."""
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
    """Measured weight and gradient norm of every held-out pair, against the weight
    expected by theory."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
    for number, row in enumerate(rows):
        weights = gradient_weights(row["gradients"], beta)
        style = series_style(number, "color", "marker")
        style |= dict(
            linestyle="", alpha=0.6, markersize=6, label=f"seed {row['seed']}"
        )
        left.plot(weights["expected"], weights["measured"], **style)
        right.plot(weights["expected"], row["gradients"]["gradient"], **style)
    ends = np.array(left.get_xlim())
    left.plot(ends, ends, "--", color="0.4", linewidth=1)
    left.set(xlabel="σ(-β margin)", ylabel="|gradient| / (β |gradient of margin|)")
    left.set_title("Measured weight")
    right.set(xlabel="σ(-β margin)", ylabel="|gradient| of the pair")
    right.set_title("Which pairs pull most")
    right.legend(fontsize=10)
    return figure


# --- Chosen and rejected --------------------------------------------------------------


def log_ratios(groups: Mapping[str, Sequence[Mapping]]):
    """Log-ratios of chosen and rejected replies along runs, on training pairs and on
    unseen ones, with a row of panels for each kind of run."""
    figure, panels = plt.subplots(
        len(groups), 2, figsize=(10, 3.4 * len(groups)), squeeze=False, sharey="row"
    )
    splits = {"train": "training pairs", "held_out": "pairs about unseen subjects"}
    for panel_row, (name, rows) in zip(panels, groups.items(), strict=True):
        series = [row["log_ratios"] for row in rows if not row.get("stopped")]
        for axes, (split, label) in zip(panel_row, splits.items(), strict=True):
            for number, side in enumerate(("chosen", "rejected")):
                lines = [by_name[f"{split}/{side}"] for by_name in series]
                interval_line(axes, series[0]["pairs"], lines, side, color=number)
            axes.axhline(0, color="0.6", linewidth=1)
            axes.set_title(f"{name}: {label}", fontsize=12)
            axes.set_xlabel("comparisons seen")
        panel_row[0].set_ylabel("log(π / π_ref), nats a reply")
    panels[0, 0].legend(fontsize=10)
    return figure


# --- Strength, noise ------------------------------------------------------------------


def strengths(rows: Sequence[Mapping], start: Sequence[Mapping]):
    """KL and gold gained at the end of DPO runs against β, a line for each seed."""
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
    panels[0].set(ylabel="KL (nats a reply)", title="Distance")
    panels[1].set(ylabel="gold gained", title="Gain")
    panels[1].axhline(0, color="0.6", linewidth=1)
    return figure


def noise(groups: Mapping[str, Sequence[Mapping]], start: Sequence[Mapping]):
    """Gold gained and KL at the end of runs, against the rate of wrong labels.

    Args:
        groups: rows of ``runs.noise_sweep``, by loss.
        start: the reference, measured with each seed.
    """
    before = {row["seed"]: row["gold"] for row in start}
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.6))
    for number, (name, rows) in enumerate(groups.items()):
        rows = [row for row in rows if not row.get("stopped")]
        rates = sorted({row["flips"] for row in rows})
        place = np.array(rates) + 0.008 * (number - (len(groups) - 1) / 2)
        style = series_style(number, "color", "marker", "linestyle")
        for axes, value in zip(
            panels,
            (lambda row: row["gold"] - before[row["seed"]], lambda row: row["kl"]),
            strict=True,
        ):
            by_rate = [[value(r) for r in rows if r["flips"] == rate] for rate in rates]
            for at, values in zip(place, by_rate, strict=True):
                axes.plot([at] * len(values), values, ".", color=style["color"])
            means = [np.mean(values) for values in by_rate]
            axes.plot(place, means, linewidth=1.2, label=name, **style)
    for axes in panels:
        axes.set_xlabel("share of wrong labels")
    panels[0].set(ylabel="gold gained", title="Gain on unseen subjects")
    panels[0].axhline(0, color="0.6", linewidth=1)
    panels[1].set(ylabel="KL (nats a reply)", title="Distance")
    panels[0].legend(fontsize=10)
    return figure


# --- The frontier ---------------------------------------------------------------------


def frontier(
    panels_of: Mapping[str, Mapping[str, Sequence[Mapping]]], start: Sequence[Mapping]
):
    """Gold gained against KL: a point for every run, and the upper envelope of every
    method with its 95% interval over seeds.

    Args:
        panels_of: by the title of a panel, the rows of each of its methods.
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
                markersize=5, alpha=0.7, linestyle="",
                **series_style(number, "color", "marker"),
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
    """Mean height of each method's envelope: a dot for each seed, their mean and its
    interval."""
    figure, axes = plt.subplots(figsize=(8, 0.42 * len(areas_of) + 1.3))
    areas = {name: list(by_seed.values()) for name, by_seed in areas_of.items()}
    dots(axes, areas, horizontal=True)
    for place, values in enumerate(areas.values()):
        if len(values) > 1:
            interval = t_interval(values)
            ends = [interval.low, interval.high]
            axes.plot(ends, [place] * 2, color="0.2", linewidth=1)
    axes.set_xlabel("gold gained, mean over KL")
    axes.set_title("Height of the envelope (dots: seeds; line: 95% interval)")
    return figure
