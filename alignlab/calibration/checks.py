"""Checks of the metrics' inputs: errors name the argument and its first wrong entry.

Everything that metrics, estimators and ensembles are given comes through
:func:`as_array`: arrays, tensors, data frames and lists become numpy here.
"""

import warnings

import numpy as np
from jaxtyping import Float
from numpy import ndarray

HALF = 1e-2  # how far from 1 a row in half precision may sum
SINGLE = 1e-5  # and one in single or double precision


# --- From what people have to numpy -----------------------------------------------


def as_array(values, name: str, text: bool = False) -> ndarray:
    """Numbers as numpy: of an array, of a tensor of any float type, on any device and
    with gradients, of anything else with ``__array__``, of a Series or DataFrame (by
    position), or of a list of these.

    bfloat16 and 8-bit floats become float32; other types stay.

    Args:
        text: let labels that are strings pass.

    Raises:
        ValueError: if there is text, a masked or missing entry, a sparse matrix, rows
            of different lengths, or what is no sequence of numbers at all.
    """
    if type(values) is ndarray and values.dtype.kind in "biuf":
        return values
    _require_dense(values, name)
    if holds_tensors(values):
        values = [as_array(value, name, text) for value in values]
    elif hasattr(values, "detach"):  # torch, without importing it
        values = values.detach().cpu()
        wide = str(values.dtype).removeprefix("torch.")
        narrow = "float" in wide and wide not in ("float16", "float32", "float64")
        values = (values.float() if narrow else values).numpy()
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{name} is no array of numbers: {error} (top_label, all_options and the "
            "estimators of logits take rows of different lengths)"
        ) from error
    if "float" in array.dtype.name and array.dtype.kind == "V":  # of ml_dtypes
        array = array.astype(np.float32)
    if array.dtype.kind == "O":
        array = _numbers_of_objects(array, name)
    if array.dtype.kind not in ("biufUS" if text else "biuf"):
        raise ValueError(f"{name} holds {_kind(array)}; expected numbers")
    return array


def is_half(values) -> bool:
    """Whether these are 16-bit floats, or a list of them."""
    while _is_sequence(values) and len(values):
        values = values[0]
    types = getattr(values, "dtypes", getattr(values, "dtype", None))
    types = types if hasattr(types, "__iter__") and types is not None else [types]
    return any("float16" in str(dtype).lower() for dtype in types)


def in_full_precision(rows: Float[ndarray, "... classes"]) -> ndarray:
    """Rows that were rounded to half precision, as float64 rows that sum to 1; rows
    that are too far from it stay as they are, for later checks to name."""
    rows = rows.astype(float)
    sums = rows.sum(axis=-1, keepdims=True)
    near = np.abs(sums - 1) <= HALF
    return np.divide(rows, sums, out=rows, where=near)


def as_rows(values, name: str) -> ndarray | list[ndarray]:
    """A matrix, or, where rows have different lengths, a list of arrays."""
    values = list(values) if is_column_of_objects(values) else values
    if not _is_sequence(values) or not len(values) or not np.ndim(values[0]):
        return as_array(values, name)
    rows = [as_array(row, f"{name}[{number}]") for number, row in enumerate(values)]
    same = len({row.shape for row in rows}) == 1
    return np.asarray(rows) if same else rows


def _is_sequence(values) -> bool:
    return isinstance(values, (list, tuple))


def is_column_of_objects(values) -> bool:
    """Such as the lists in a column of a DataFrame."""
    return getattr(getattr(values, "dtype", None), "kind", "") == "O" and (
        len(values.shape) == 1
    )


def holds_tensors(values) -> bool:
    """Whether this is a list of tensors, or of lists of them."""
    while _is_sequence(values) and len(values):
        values = values[0]
        if hasattr(values, "detach"):
            return True
    return False


def _require_dense(values, name: str) -> None:
    if hasattr(values, "tocsr"):
        raise ValueError(f"{name} is a sparse matrix; pass {name}.toarray()")
    if np.ma.is_masked(values):
        first = tuple(np.argwhere(np.ma.getmaskarray(values))[0].tolist())
        raise ValueError(
            f"{name}{list(first)} is masked; drop masked entries from all arguments"
        )


def _numbers_of_objects(array: ndarray, name: str) -> ndarray:
    """Python objects as numbers; missing ones become NaN, which later checks name."""
    if not array.ndim:
        kind = type(array.item()).__name__
        raise ValueError(f"{name} is of type {kind}; expected an array or a list")
    if any(isinstance(value, str) for value in array.flat):
        return array.astype(str)
    absent = ("None", "<NA>", "NaT")  # of pandas, which need not be installed
    try:
        numbers = [np.nan if str(v) in absent else float(v) for v in array.flat]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} holds what is no number: {error}") from error
    return np.array(numbers).reshape(array.shape)


def _kind(array: ndarray) -> str:
    names = {"U": "text", "S": "text", "c": "complex numbers", "M": "dates"}
    first = f" ({array.flat[0]!s})" if array.size else ""
    return names.get(array.dtype.kind, f"values of type {array.dtype}") + first


def _one_per_item(values, name: str) -> ndarray:
    array = as_array(values, name)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        rows = array.ndim == 2 and array.shape[1] > 1
        hint = "; top_label and all_options turn rows of probabilities into that"
        raise ValueError(
            f"{name} has shape {array.shape}; expected one number per item"
            + (hint if rows else "")
        )
    return array


# --- One event per prediction -----------------------------------------------------


def check_events(confidence, correct, names=("confidence", "correct")):
    """A probability for each prediction, in float32 or float64, and whether what it
    predicts happened, 0 or 1.

    Raises:
        ValueError: as :func:`check_probabilities`, :func:`check_binary` and
            :func:`check_same_length`.
    """
    if type(confidence) is not ndarray:
        warn_if_reordered(**{names[0]: confidence, names[1]: correct})
    confidence = check_probabilities(confidence, names[0])
    correct = check_binary(correct, names[1])
    if len(confidence) != len(correct):
        check_same_length(**{names[0]: confidence, names[1]: correct})
    return confidence, correct


def check_probabilities(values, name: str) -> Float[ndarray, "items"]:
    """One probability per prediction, in float32 or float64; a column too. Half
    precision is read as the numbers it holds.

    Raises:
        ValueError: if the shape is another, or a value is NaN or outside [0, 1].
    """
    array = _floats(_one_per_item(values, name), name)
    _require_inside(array, name)
    return array


def check_binary(values, name: str) -> ndarray:
    """0 or 1 per prediction; booleans, whole floats and a column too.

    Raises:
        ValueError: if the shape is another or a value is neither.
    """
    array = _one_per_item(values, name)
    if not len(array):
        raise ValueError(f"{name} is empty")
    if array.dtype.kind in "biu" and array.min() >= 0 and array.max() <= 1:
        return array  # a tenth of the time of comparing every entry
    good = (array == 0) | (array == 1)
    if not np.all(good):
        first = int(np.flatnonzero(~good)[0])
        signs = np.isin(array, (-1, 1)).all()
        hint = f" (of labels -1 and 1, pass {name} > 0)" if signs else ""
        raise ValueError(f"{name}[{first}] is {array[first]}; it can be 0 or 1{hint}")
    return array


# --- All classes of each item -----------------------------------------------------


def check_rows(probabilities) -> Float[ndarray, "items classes"]:
    """A probability for each class of each item, rows summing to 1. Rows in half
    precision are divided by their sums, in float64; others stay as they are.

    Raises:
        ValueError: if the shape is another, a value is NaN or outside [0, 1], a row
            does not sum to 1 (within 1e-5; 1e-2 in half precision), or the columns of a
            DataFrame are numbered in another order.
    """
    _require_columns_in_order(probabilities)
    half = is_half(probabilities)
    array = _floats(as_array(probabilities, "probabilities"), "probabilities")
    if array.ndim != 2 or array.shape[1] < 2:
        raise ValueError(
            f"probabilities have shape {array.shape}; expected (items, classes), with "
            "at least two classes"
        )
    _require_inside(array, "probabilities")
    total = array.sum(axis=1, dtype=float)
    wrong = np.abs(total - 1) > (HALF if half else SINGLE)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        near = np.abs(total - 1).max() <= HALF
        hint = " (if they were rounded, divide each row by its sum)" if near else ""
        raise ValueError(
            f"probabilities[{first}] sum to {total[first]:.6g}; each row must sum to 1"
            + hint
        )
    return in_full_precision(array) if half else array


def check_labels(labels, probabilities: Float[ndarray, "items classes"]) -> ndarray:
    """The right class of each item, as whole numbers from 0 to K-1; a column too.

    Raises:
        ValueError: if there are not as many as rows, one is not such a number, or they
            are booleans and there are more than two classes.
    """
    labels = as_array(labels, "labels")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    classes = probabilities.shape[1]
    if labels.ndim != 1:
        one_hot = " (of one-hot labels, pass labels.argmax(axis=1))"
        hint = one_hot if labels.shape == probabilities.shape else ""
        raise ValueError(
            f"labels have shape {labels.shape}; expected one per item{hint}"
        )
    check_same_length(probabilities=probabilities, labels=labels)
    if labels.dtype == bool and classes > 2:
        raise ValueError(
            f"labels are booleans and there are {classes} classes; pass the number of "
            "the right class (whether an answer was right goes with its confidence)"
        )
    good = (labels >= 0) & (labels < classes) & (labels % 1 == 0)
    if not np.all(good):
        first = int(np.flatnonzero(~good)[0])
        from_one = labels.min() == 1 and labels.max() == classes
        hint = " (of labels from 1 up, pass labels - 1)" if from_one else ""
        raise ValueError(
            f"labels[{first}] is {labels[first]}; the classes are 0 to {classes - 1}"
            + hint
        )
    return labels.astype(np.intp)


def check_forecasts(probabilities, labels) -> tuple[ndarray, ndarray]:
    """Probabilities of an event, (n,), or of all classes, (n, K), in float64, with
    labels that fit.

    Raises:
        ValueError: as the checks above.
    """
    if _are_events(probabilities):
        names = "probabilities", "labels"
        probabilities, labels = check_events(probabilities, labels, names)
        return probabilities.astype(float, copy=False), labels.astype(float)
    warn_if_reordered(probabilities=probabilities, labels=labels)
    probabilities = check_rows(probabilities)
    labels = check_labels(labels, probabilities)
    return probabilities.astype(float, copy=False), labels


def _are_events(probabilities) -> bool:
    """One number per item; a column of ones is a single class, which knows nothing."""
    shape = getattr(probabilities, "shape", None)
    if shape is None or shape[1:] == (1,):
        array = as_array(probabilities, "probabilities")
        return array.ndim == 1 or array.shape[1:] == (1,) and not (array == 1).all()
    return len(shape) == 1


def check_rows_and_labels(probabilities, labels):
    """Rows of probabilities, and labels that fit: a matrix where all rows are equally
    long, else a list of rows.

    Raises:
        ValueError: as the checks above, naming the item of a list.
    """
    warn_if_reordered(probabilities=probabilities, labels=labels)
    if is_column_of_objects(probabilities):
        probabilities = list(probabilities)
    if not _is_sequence(probabilities) or len(set(map(len, probabilities))) == 1:
        rows = check_rows(probabilities)
        return rows, check_labels(labels, rows)
    labels = _one_per_item(labels, "labels")
    check_same_length(probabilities=probabilities, labels=labels)
    rows, checked = [], []
    for number, row in enumerate(probabilities):
        try:
            rows.append(check_rows([row])[0])
            checked.append(check_labels(labels[number : number + 1], rows[-1][None])[0])
        except ValueError as error:
            raise ValueError(f"item {number}: {error}") from error
    return rows, np.array(checked)


# --- Shared -----------------------------------------------------------------------


def check_same_length(**arrays) -> None:
    """Raise ValueError, naming the first entry that is missing, if lengths differ."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        short = min(lengths, key=lengths.get)
        counts = " and ".join(f"{name} has {n}" for name, n in lengths.items())
        raise ValueError(f"{counts} values: {short}[{lengths[short]}] is missing")


def warn_if_reordered(**values) -> None:
    """Warn if two Series or DataFrames hold the same index in different orders: items
    are matched by position."""
    indexed = {
        name: value.index
        for name, value in values.items()
        if not callable(getattr(value, "index", len))  # a list's index is a method
    }
    names = list(indexed)
    for name, other in zip(names, names[1:]):
        own, others = indexed[name], indexed[other]
        if len(own) == len(others) and not own.equals(others):
            if own.is_unique and own.isin(others).all():
                warnings.warn(
                    f"{name} and {other} have the same index in different orders, and "
                    "are matched by position: sort both by index first if items should "
                    "be matched by index",
                    stacklevel=4,
                )


def check_weights(weights, n: int) -> Float[ndarray, "items"]:
    """A finite weight of at least 0 for each of n items, not all of them 0."""
    weights = as_array(weights, "weights").astype(float, copy=False)
    if weights.shape == (n, 1):
        weights = weights[:, 0]
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


def _require_columns_in_order(probabilities) -> None:
    """Of a DataFrame with the columns 1, 0, 2, column 0 would not be class 0."""
    columns = list(map(str, getattr(probabilities, "columns", ())))
    numbers = list(map(str, range(len(columns))))
    if columns != numbers and sorted(columns) == sorted(numbers):
        raise ValueError(
            f"probabilities have the columns {', '.join(columns)}; sort them, so that "
            "column k is that of class k"
        )


def _floats(array: ndarray, name: str) -> ndarray:
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
        + _remedy(array)
    )


def _remedy(array: ndarray) -> str:
    """What numbers outside [0, 1] are likely to be."""
    low, high = array.min(), array.max()
    if not np.isfinite([low, high]).all():
        return ""
    if -1e-3 < low and high < 1 + 1e-3:
        return " (if it is rounding, clip it)"
    if low >= 0 and 1.5 < high <= 100:
        return " (of per cent, pass a hundredth)"
    if high <= 0:
        return " (of log-probabilities, pass their exponential)"
    return " (of logits, pass their softmax, or the sigmoid of log-odds)"
