"""Checks of the metrics' inputs: errors name the argument and its first wrong entry."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray


def check_probabilities(values, name: str) -> Float[ndarray, "items"]:
    """One probability per prediction, in float32 or float64.

    Raises:
        ValueError: if the shape is another, or a value is NaN or outside [0, 1].
    """
    array = _floats(values, name)
    if array.ndim != 1:
        raise ValueError(
            f"{name} has shape {array.shape}; expected one number per item"
        )
    _require_inside(array, name)
    return array


def check_binary(values, name: str) -> ndarray:
    """0 or 1 per prediction; booleans too.

    Raises:
        ValueError: if the shape is another or a value is neither.
    """
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(
            f"{name} has shape {array.shape}; expected one number per item"
        )
    if not len(array):
        raise ValueError(f"{name} is empty")
    if array.dtype.kind in "biu" and array.min() >= 0 and array.max() <= 1:
        return array  # a tenth of the time of comparing every entry
    good = (array == 0) | (array == 1)
    if not np.all(good):
        first = int(np.flatnonzero(~good)[0])
        raise ValueError(f"{name}[{first}] is {array[first]}; it can be 0 or 1")
    return array


def check_rows(probabilities) -> Float[ndarray, "items classes"]:
    """A probability for each class of each item, rows summing to 1.

    Raises:
        ValueError: if the shape is another, a value is NaN or outside [0, 1], or a row
            does not sum to 1 (within 1e-5; 1e-2 in half precision).
    """
    given = np.asarray(probabilities)
    array = _floats(probabilities, "probabilities")
    if array.ndim != 2 or array.shape[1] < 2:
        raise ValueError(
            f"probabilities have shape {array.shape}; expected (items, classes), with "
            "at least two classes"
        )
    _require_inside(array, "probabilities")
    total = array.sum(axis=1, dtype=float)
    wrong = np.abs(total - 1) > (1e-2 if given.dtype == np.float16 else 1e-5)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"probabilities[{first}] sum to {total[first]:.6g}; each row must sum to 1"
        )
    return array


def check_labels(labels, probabilities: Float[ndarray, "items classes"]) -> ndarray:
    """The right class of each item, as whole numbers from 0 to K-1.

    Raises:
        ValueError: if there are not as many as rows, or one is not such a number.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise ValueError(f"labels have shape {labels.shape}; expected one per item")
    check_same_length(probabilities=probabilities, labels=labels)
    classes = probabilities.shape[1]
    good = (labels >= 0) & (labels < classes) & (labels % 1 == 0)
    if not np.all(good):
        first = int(np.flatnonzero(~good)[0])
        raise ValueError(
            f"labels[{first}] is {labels[first]}; the classes are 0 to {classes - 1}"
        )
    return labels.astype(np.intp)


def check_same_length(**arrays) -> None:
    """Raise ValueError, naming the first entry that is missing, if lengths differ."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        short = min(lengths, key=lengths.get)
        counts = " and ".join(f"{name} has {n}" for name, n in lengths.items())
        raise ValueError(f"{counts} values: {short}[{lengths[short]}] is missing")


def check_weights(weights, n: int) -> Float[ndarray, "items"]:
    """A finite weight of at least 0 for each of n items, not all of them 0."""
    weights = np.asarray(weights, dtype=float)
    if weights.shape != (n,):
        raise ValueError(f"weights have shape {weights.shape}; expected ({n},)")
    good = (weights >= 0) & np.isfinite(weights)
    if not good.all():
        first = int(np.flatnonzero(~good)[0])
        raise ValueError(
            f"weights[{first}] is {weights[first]}; weights are at least 0"
        )
    if not weights.any():
        raise ValueError("weights are all zero, from weights[0] on")
    return weights


def check_two_classes(correct, name: str) -> None:
    """Raise ValueError if every entry is the same."""
    if np.all(correct == correct[0]):
        raise ValueError(
            f"{name} holds a single class, {correct[0]}, from {name}[0] on: right and "
            "wrong predictions are needed"
        )


def check_forecasts(probabilities, labels) -> tuple[ndarray, ndarray]:
    """Probabilities of an event, (n,), or of all classes, (n, K), in float64, with
    labels that fit.

    Raises:
        ValueError: as the checks above.
    """
    if np.ndim(probabilities) == 1:
        probabilities = check_probabilities(probabilities, "probabilities")
        labels = check_binary(labels, "labels")
        check_same_length(probabilities=probabilities, labels=labels)
        return probabilities.astype(float, copy=False), labels.astype(float)
    probabilities = check_rows(probabilities)
    labels = check_labels(labels, probabilities)
    return probabilities.astype(float, copy=False), labels


def check_rows_and_labels(probabilities, labels):
    """Rows of probabilities, and labels that fit: a matrix where all rows are equally
    long, else a list of rows.

    Raises:
        ValueError: as the checks above, naming the item of a list.
    """
    if isinstance(probabilities, ndarray) or len({len(r) for r in probabilities}) == 1:
        rows = check_rows(probabilities)
        return rows, check_labels(labels, rows)
    labels = np.asarray(labels)
    check_same_length(probabilities=probabilities, labels=labels)
    rows, checked = [], []
    for number, row in enumerate(probabilities):
        try:
            rows.append(check_rows(np.asarray(row)[None])[0])
            checked.append(check_labels(labels[number : number + 1], rows[-1][None])[0])
        except ValueError as error:
            raise ValueError(f"item {number}: {error}") from error
    return rows, np.array(checked)


def _floats(values, name: str) -> ndarray:
    array = np.asarray(values)
    if array.dtype != np.float32:
        array = array.astype(float, copy=False)
    if not array.size:
        raise ValueError(f"{name} is empty")
    return array


def _require_inside(array: ndarray, name: str) -> None:
    if array.min() >= 0 and array.max() <= 1:  # NaN fails either
        return
    first = np.argwhere(~((array >= 0) & (array <= 1)))[0]
    place = ", ".join(map(str, first))
    raise ValueError(
        f"{name}[{place}] is {array[tuple(first)]}; a probability is from 0 to 1"
    )
