"""A measured curve as one number: its slope per doubling, its mean height."""

from collections.abc import Sequence

import numpy as np


def slope_per_doubling(ns: Sequence[float], values: Sequence[float]) -> float:
    """Least-squares slope of the values on log2(n): the gain from twice as large an n.

    Args:
        ns: sizes, above 0.
        values: one measured value per size.
    """
    return float(np.polyfit(np.log2(ns), values, 1)[0])


def mean_height(x: Sequence[float], values: Sequence[float]) -> float:
    """Area under a curve (trapezoids) over its width: a curve that rises sooner is
    higher. A single point has its own height.

    Args:
        x: places in ascending order, at any distance from each other.
        values: one measured value per place.
    """
    if len(x) == 1:
        return float(values[0])
    return float(np.trapezoid(values, x) / (x[-1] - x[0]))
