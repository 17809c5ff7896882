"""How every figure looks: large enough for slides, legible in grey and colour-blind.

``use_style()`` once per notebook; lines and dots show every seed and their mean.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float

from alignlab.evaluation.intervals import Interval, t_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, ordered so that neighbours differ in grey as well.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "//", "..", "xx")
LINESTYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))

Trait = Literal["color", "marker", "linestyle", "hatch"]
_CYCLES = {
    "color": PALETTE,
    "marker": MARKERS,
    "linestyle": LINESTYLES,
    "hatch": HATCHES,
}

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


def series_style(number: int, *traits: Trait) -> dict:
    """Colour, marker, line style or hatch of a series, as arguments for matplotlib.

    Args:
        number: of the series in its figure, from 0. Colours repeat after seven, then
            with other markers, lines and hatches.
        traits: which of the four to return.
    """
    shifted = number + number // len(PALETTE)
    return {
        trait: cycle[(number if trait == "color" else shifted) % len(cycle)]
        for trait, cycle in _CYCLES.items()
        if trait in traits
    }


def by_seed(
    rows: Sequence[Mapping], x: str, y: str
) -> tuple[list, Float[np.ndarray, "seeds xs"]]:
    """Rows of a sweep as a table: the sorted values of column ``x``, and the values of
    column ``y`` for each seed at each of them.

    Raises:
        KeyError: if a seed has no row at one of the values.
    """
    xs = sorted({row[x] for row in rows})
    seeds = sorted({row["seed"] for row in rows})
    table = {(row["seed"], row[x]): row[y] for row in rows}
    return xs, np.array([[table[seed, value] for value in xs] for seed in seeds])


def dots(
    ax: "Axes",
    groups: Mapping[str, Sequence[float]],
    number: int = 0,
    shift: float = 0.0,
    horizontal: bool = False,
) -> None:
    """Draw a column for each group: a dot for each seed and a bar at their mean.

    Args:
        ax: where to draw.
        groups: the seeds' values, by the name of the group.
        number: a place in the palette, for several series on the same axes.
        shift: of the columns to the right, so that series stand side by side.
        horizontal: draw rows, the first on top, instead of columns.
    """
    style = series_style(number, "color", "marker")
    for place, values in enumerate(groups.values()):
        at = place + shift
        seeds = [at] * len(values), values
        mean = [at - 0.15, at + 0.15], [np.mean(values)] * 2
        if horizontal:
            seeds, mean = seeds[::-1], mean[::-1]
        ax.plot(*seeds, **style, linestyle="", alpha=0.6)
        ax.plot(*mean, color="0.2", linewidth=2)
    if horizontal:
        ax.set_yticks(range(len(groups)), list(groups))
        ax.set_ylim(len(groups) - 0.5, -0.5)
    else:
        ax.set_xticks(range(len(groups)), list(groups))
        ax.set_xlim(-0.5, len(groups) - 0.5)


def dot_rows(ax: "Axes", groups: Mapping[str, Sequence[float]]) -> None:
    """Draw a row for each group, the first on top: a small dot for each seed and a
    large marker at their mean, each row in a colour of its own.

    Args:
        ax: where to draw.
        groups: the seeds' values, by the name of the group.
    """
    for place, values in enumerate(groups.values()):
        style = series_style(place, "color", "marker")
        ax.plot(values, [place] * len(values), ".", color=style["color"], alpha=0.6)
        ax.plot(np.mean(values), place, **style, markersize=9)
    ax.set_yticks(range(len(groups)), list(groups))
    ax.set_ylim(len(groups) - 0.5, -0.5)


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
    style = {"color": color, "linestyle": "-"}
    if isinstance(color, int):
        style = series_style(color, "color", "linestyle")
    if linestyle is not None:
        style["linestyle"] = linestyle
    intervals = [t_interval(values, level) for values in zip(*rows)]
    if len(rows) > 1:
        for row in rows:
            ax.plot(x, row, **style, linewidth=0.7, alpha=0.5, label="_seed")
        low, high = [item.low for item in intervals], [item.high for item in intervals]
        ax.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
    ax.plot(x, [item.value for item in intervals], **style, label=label)
    return intervals
