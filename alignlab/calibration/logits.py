"""Logits as people have them: rows of different lengths, masked options, tensors, and
probabilities by mistake.
"""

import warnings

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from alignlab.calibration.checks import (
    as_array,
    as_rows,
    holds_tensors,
    is_column_of_objects,
)

MASKED = 1e3  # below 0 and its row's largest, a logit may be a masked option
STRETCH = 10  # if it is also so many times deeper than any that is not masked


# --- Reading ----------------------------------------------------------------------


def padded(X, columns: int = 0):
    """Rows of different lengths as a matrix of at least so many columns, with -inf for
    options that there are not."""
    if not isinstance(X, (list, tuple)) and not is_column_of_objects(X):
        return X
    rows = as_rows(X, "X")
    if isinstance(rows, ndarray) and (rows.ndim != 2 or rows.shape[1] >= columns):
        return rows if rows.ndim == 2 else X
    width = max(columns, *map(len, rows))
    matrix = np.full((len(rows), width), -np.inf)
    for own, row in zip(matrix, rows):
        own[: len(row)] = row
    return matrix


def without_tensors(values, name: str):
    """Tensors and other arrays as numpy; what scikit-learn reads itself, as it is."""
    known = isinstance(values, (ndarray, list, tuple)) or hasattr(values, "iloc")
    foreign = not known and hasattr(values, "__array__")
    if foreign or hasattr(values, "detach") or holds_tensors(values):
        return as_array(values, name, text=True)
    return values


def warn_of_probabilities(array) -> None:
    if array.min() < 0 or array.max() > 1:
        return
    alone = array.shape[1] == 1
    if alone or np.allclose(array.sum(axis=1), 1, atol=1e-2):
        what, remedy = ("probabilities", "log-odds") if alone else ("rows", "logarithm")
        warnings.warn(
            f"X may hold probabilities ({what} from 0 to 1"
            f"{'' if alone else ', summing to 1'}), and logits are expected: pass "
            f"their {remedy} if so",
            stacklevel=3,
        )


def require_columns_in_order(X, classes) -> None:
    """Classes are sorted; a DataFrame with their names must be, too."""
    columns = list(map(str, getattr(X, "columns", ())))
    names = list(map(str, classes))
    if columns != names and sorted(columns) == sorted(names):
        raise ValueError(
            f"X has the columns {', '.join(columns)} and the sorted labels are "
            f"{', '.join(names)}; put the columns into that order"
        )


# --- Masked options ---------------------------------------------------------------


def depths_of(logits) -> Float[ndarray, "items classes"]:
    """How far each logit is below the largest of its row; infinite if masked."""
    with np.errstate(over="ignore"):
        return logits.max(axis=1, keepdims=True) - logits


def spread_of(depths, logits) -> float:
    """The median depth of options that are not the likeliest; 0 if every row is
    constant, up to rounding. Unlike a standard deviation, few items do not move it."""
    real = np.isfinite(depths)
    rounding = 8 * np.finfo(float).eps * np.abs(logits[real]).max()
    below = depths[real & (depths > 0)]
    return float(np.median(below)) if (below > rounding).any() else 0.0


def masked_depth(logits) -> float:
    """The depth beyond which an option is masked.

    Between real logits and masked ones there is an empty stretch. It is looked for from
    the typical row's second option on, which is a real one.
    """
    depths = depths_of(logits)
    second = np.partition(depths, 1, axis=1)[:, 1]
    second = second[np.isfinite(second)]
    if not len(second):
        return MASKED
    near = second[second <= MASKED]
    typical = np.median(near if 4 * len(near) >= len(second) else second)
    ordered = np.unique(depths[np.isfinite(depths) & (depths >= typical)])
    after = ordered[1:]
    jumps = np.flatnonzero((after > MASKED) & (after / STRETCH > ordered[:-1]))
    deepest = ordered[jumps[0]] if len(jumps) else ordered[-1]
    return max(MASKED, float(STRETCH * deepest))


def require_right_not_masked(logits, array, codes, y, rows) -> None:
    masked = np.isneginf(logits[np.arange(len(codes)), codes])
    if masked.any():
        first = int(np.flatnonzero(masked)[0])
        row, column = rows[first], codes[first]
        raise ValueError(
            f"X[{row}, {column}] is {array[first, column]:g}, a masked option, and "
            f"y[{row}] is {y[first]}: the right class cannot be masked"
        )


def require_none_masked(logits) -> None:
    if np.isneginf(logits).any():
        row, column = np.argwhere(np.isneginf(logits))[0]
        raise ValueError(
            f"X[{row}, {column}] is a masked option, which MatrixScaler cannot leave "
            "out: take TemperatureScaler or VectorScaler"
        )
