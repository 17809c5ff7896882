"""One picture of the whole series, drawn from the recorded metrics: figures/arc.png."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from alignlab.files import write_atomically
from alignlab.plots.png import compressed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Title, what is drawn, the line of no effect, and of each bar: notebook, metric, label,
# place in the palette.
PANELS = (
    (
        "Completing is not answering;\ninstruction tuning teaches it",
        "share of facts right",
        0.0,
        [
            ("00", "base_cloze_accuracy", "base,\nto complete", 0),
            ("00", "base_bare_accuracy", "base,\nasked", 0),
            ("00", "tuned_accuracy", "tuned,\nasked", 1),
        ],
    ),
    (
        "A reward model sees form,\nnot truth",
        "pairs in the right order,\nby what they differ in",
        0.5,
        [
            ("03", "form_accuracy", "form", 0),
            ("03", "completeness_accuracy", "completeness", 1),
            ("03", "truth_accuracy", "truth", 2),
        ],
    ),
    (
        "PPO, pushed on, buys reward\nwith what people want",
        "change of reward",
        0.0,
        [
            ("04", "ppo_proxy_gain", "proxy,\n8 updates", 0),
            ("04", "ppo_gold_gain", "gold,\n8 updates", 1),
            ("06", "end_minus_peak_proxy", "proxy,\non from\nits peak", 0),
            ("06", "end_minus_peak_gold", "gold,\non from\nits peak", 1),
        ],
    ),
    (
        "Sure of what it never read;\none temperature is not enough",
        "confidence minus accuracy",
        0.0,
        [
            ("08", "gap_often_none", "often\nread", 0),
            ("08", "gap_never_none", "never\nread", 1),
            ("08", "gap_often_temperature", "often,\ntempered", 0),
            ("08", "gap_never_temperature", "never,\ntempered", 1),
        ],
    ),
)


def draw_arc(recorded: dict, path: Path) -> bool:
    """Draw the arc of the series, and say whether all of its metrics were there."""
    import matplotlib.pyplot as plt

    from alignlab.plots.style import use_style

    metrics = {
        name[:2]: section["metrics"] for name, section in recorded["notebooks"].items()
    }
    bars = [bar for *_, of_panel in PANELS for bar in of_panel]
    if not all(metric in metrics.get(number, {}) for number, metric, *_ in bars):
        return False
    use_style()
    figure, axes = plt.subplots(2, 2, figsize=(9, 8), layout="constrained")
    for ax, panel in zip(axes.flat, PANELS, strict=True):
        _draw_panel(ax, panel, metrics)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=90)
    plt.close(figure)
    small = compressed(picture.getvalue())
    write_atomically(path, lambda file: file.write_bytes(small))
    return True


def _draw_panel(ax: "Axes", panel: tuple, metrics: dict) -> None:
    from alignlab.plots.style import PALETTE

    title, ylabel, line, bars = panel
    for place, (number, name, _, colour) in enumerate(bars):
        metric = metrics[number][name]
        value, low, high = (metric[key] for key in ("value", "low", "high"))
        ax.bar(place, value, 0.6, color=PALETTE[colour])
        ax.vlines(place, low, high, color="0.15", linewidth=2)
    ax.axhline(line, color="0.4", linestyle="--" if line else "-", linewidth=1.3)
    if line:
        ax.annotate("chance", (0.5, line), (0, 4), ha="center", **_ABOVE)
    ax.set_xticks(range(len(bars)), [label for _, _, label, _ in bars], fontsize=11)
    ax.set_ylabel(ylabel)
    ax.set_title(title, fontsize=13)
    ax.grid(axis="x", visible=False)


_ABOVE = dict(textcoords="offset points", fontsize=11)
