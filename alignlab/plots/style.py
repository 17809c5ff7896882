"""How every figure looks: large enough for slides, legible in grey and colour-blind.

``use_style()`` once per notebook; ``interval_line`` shows seeds, mean and interval.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alignlab.evaluation.intervals import Interval, t_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, ordered so that neighbours differ in grey as well.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "//", "..", "xx")
LINESTYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))

_SETTINGS = {
    "figure.figsize": (7.2, 4.2),
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e3e3e3",
    "legend.frameon": False,
    "lines.linewidth": 2.2,
}


def use_style() -> None:
    """Set seaborn's theme for all figures that follow. Calling it twice is harmless."""
    import seaborn as sns

    sns.set_theme("talk", "whitegrid", list(PALETTE), font_scale=0.75, rc=_SETTINGS)


def interval_line(
    ax: "Axes",
    x: Sequence[float],
    per_seed_values: Sequence[Sequence[float]],
    label: str,
    color: int | str = 0,
    linestyle: str | tuple | None = None,
    level: float = 0.95,
) -> list[Interval]:
    """Draw a measured curve: a thin line per seed, their mean, and a t-interval band.

    Args:
        ax: where to draw.
        x: positions, as many as each seed has values.
        per_seed_values: one row per seed, each as long as ``x``. With one row there is
            a line and no band.
        label: the curve's name in the legend.
        color: a matplotlib colour, or a place in the palette.
        linestyle: by default the palette's place also sets it, so that curves differ in
            grey too.
        level: coverage of the band; a higher level gives a wider one.

    Returns:
        The mean and its interval at every x.

    Raises:
        ValueError: if a row is not as long as ``x``, or there is none.
    """
    rows = [list(row) for row in per_seed_values]
    if not rows or any(len(row) != len(x) for row in rows):
        lengths = [len(row) for row in rows]
        raise ValueError(
            f"per_seed_values needs one row per seed with {len(x)} values, as x has; "
            f"got rows of {lengths}"
        )
    if isinstance(color, int):
        linestyle = (
            LINESTYLES[color % len(LINESTYLES)] if linestyle is None else linestyle
        )
        color = PALETTE[color % len(PALETTE)]
    style = {"color": color, "linestyle": linestyle or "-"}
    intervals = [t_interval(values, level) for values in zip(*rows)]
    if len(rows) > 1:
        for row in rows:
            ax.plot(x, row, **style, linewidth=0.7, alpha=0.5, label="_seed")
        low, high = [item.low for item in intervals], [item.high for item in intervals]
        ax.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
    ax.plot(x, [item.value for item in intervals], **style, label=label)
    return intervals
