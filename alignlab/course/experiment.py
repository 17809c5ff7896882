"""Experiments: readers change one thing, predict, measure item by item, and report.

A report is a dict of six entries, and each is worth a sixth of the points. A prediction
that fails costs nothing. Numbers are held against each other and, where the shipped
model gives them quickly, against what it gives at the reader's own settings.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignlab.course.diagnosis import Attempt, relation
from alignlab.course.exercise import Case, Misfit, numbers_of

if TYPE_CHECKING:
    from torch import Tensor

WORDS = ("rises", "falls", "stays")
ENTRIES = {
    "prediction": f"what you expected before the run: {', '.join(WORDS)}",
    "settings": "the values that you tried, lowest first",
    "measured": "a row for each setting, a number for each item",
    "difference": "the mean over items of the last row less the first",
    "error": "the standard error of that mean",
    "outcome": f"what happened: {', '.join(WORDS)}",
}
CLEAR = 2  # standard errors; a smaller difference is none that was seen
EXACT = 5e-3  # of a difference or an error: three digits are enough


@dataclass(frozen=True)
class Experiment:
    """One experiment of a notebook.

    Attributes:
        changed, measured: what the settings and the items' numbers are, in words.
        lowest, highest: between which settings must lie, both included.
        minutes, stars, hints: as of an ``Exercise``.
        start: the setting that must come first; None leaves it to the reader.
        at_least: how many settings.
        items: the least number of items.
        limits: between which measurements can lie.
        counted: whether they are shares of a few draws, so that values may come twice.
        compare: what is wrong with measurements, given the settings (S,) and them
            (S, N), by what we measure at the same settings; "" if nothing.
    """

    changed: str
    measured: str
    lowest: float
    highest: float
    minutes: int
    stars: int
    hints: tuple[str, ...]
    start: float | None = None
    at_least: int = 3
    items: int = 8
    limits: tuple[float, float] = (-math.inf, math.inf)
    counted: bool = False
    compare: Callable[["Tensor", "Tensor"], str] | None = None


def graded_report(task: Experiment, report: Any) -> tuple[int, str]:
    """How many of the six entries of a report are right, and what is wrong with the
    first that is not, or what the report shows."""
    if report is None:
        return 0, "not answered yet: run the experiment, then fill in `my_report`"
    if not isinstance(report, Mapping):
        what = "a function" if callable(report) else f"a {type(report).__name__}"
        return 0, f"no report: hand in the dict `my_report`, not {what}"
    faults = list(_faults(task, report))
    wrong = [fault for fault in faults if fault]
    return len(faults) - len(wrong), wrong[0] if wrong else _summary(report)


def _faults(task: Experiment, report: Mapping):
    """For each entry what is wrong with it, "" if nothing. What rests on measurements
    that cannot be right earns nothing."""
    yield _word_fault(report, "prediction")
    settings, fault = _entry(report, "settings", lambda x: _settings(task, x))
    yield fault
    measured, fault = _entry(report, "measured", lambda x: _measured(task, x, settings))
    yield fault
    if fault:
        for name in ("difference", "error", "outcome"):
            yield f"no {name} without measurements: {fault}"
        return
    change = measured[-1] - measured[0]
    yield _number_fault(report, "difference", [change.mean()], _differences(measured))
    errors = [change.std(correction=k) / len(change) ** 0.5 for k in (1, 0)]
    yield _number_fault(report, "error", errors, _errors(measured))
    yield _word_fault(report, "outcome") or _outcome_fault(report, change)


def _entry(report: Mapping, name: str, read: Callable) -> tuple[Any, str]:
    """An entry as ``read`` has it, or None and what is wrong with it."""
    if report.get(name) is None:
        return None, f"no {name} in the report: {ENTRIES[name]}"
    try:
        return read(report[name])
    except Misfit as misfit:
        return None, str(misfit)


def _word_fault(report: Mapping, name: str) -> str:
    word = report.get(name)
    if word is None:
        return f"no {name} in the report: {ENTRIES[name]}"
    if not isinstance(word, str) or word.strip().lower() not in WORDS:
        return f"{name} is {str(word)[:40]!r}: it is one of {', '.join(WORDS)}"
    return ""


# --- Settings and measurements ----------------------------------------------------


def _settings(task: Experiment, given) -> tuple["Tensor | None", str]:
    """The settings if measurements can be read with them, and what is wrong."""
    settings = _real(given, "settings")
    if settings.dim() != 1 or len(settings) < 2:
        return None, "settings is no list of numbers: one for each time you measured"
    steps = settings.diff()
    if (steps < 0).all():
        return None, "settings in falling order: the lowest comes first"
    if not (steps > 0).all():
        return None, "settings out of order, or one twice: the lowest comes first"
    first, last = settings[0].item(), settings[-1].item()
    if first < task.lowest or last > task.highest:
        return None, (
            f"settings from {first:g} to {last:g}: try {task.changed} between "
            f"{task.lowest:g} and {task.highest:g}"
        )
    if task.start is not None and first != task.start:
        return settings, f"settings begin at {first:g}: the first is {task.start:g}"
    if len(settings) < task.at_least:
        return settings, f"settings: only {len(settings)}, try {task.at_least} or more"
    return settings, ""


def _measured(task: Experiment, given, settings) -> tuple["Tensor | None", str]:
    """The measurements (S, N), and what is wrong with them."""
    if settings is None:
        return None, "no settings to which the measurements could belong"
    if isinstance(given, Mapping):
        given = list(given.values())
    measured = _real(given, "measured")
    count = len(settings)
    if measured.shape == (count,):
        return None, (
            "measured has means only: without the number of each item there is no error"
        )
    if measured.dim() != 2 or len(measured) != count:
        turned = measured.dim() == 2 and measured.shape[1] == count
        remedy = "turn it round: " if turned else ""
        shape = tuple(measured.shape)
        return None, f"measured has shape {shape}: {remedy}{ENTRIES['measured']}"
    if measured.shape[1] < task.items:
        few = measured.shape[1]
        return None, f"measured has {few} items: take {task.items} or more"
    fault = _invented(task, measured)
    if not fault and task.compare:
        fault = task.compare(settings, measured)
    return measured, fault


def _real(given, name: str) -> "Tensor":
    import torch

    try:
        numbers = numbers_of(given)
    except Misfit:
        unequal = f"{name} has rows of unequal lengths: the same items each time"
        raise Misfit(unequal) from None
    if numbers is None or numbers.is_complex() or numbers.is_meta:
        raise Misfit(f"{name} is no numbers but a {type(given).__name__}")
    numbers = numbers.detach().to("cpu", torch.float64)
    if not numbers.isfinite().all():
        raise Misfit(f"{name} has NaN or infinity in it: look for where it begins")
    return numbers


def _invented(task: Experiment, measured: "Tensor") -> str:
    """Why numbers cannot have been measured; "" if they can."""
    lowest, highest = task.limits
    if measured.min() < lowest or measured.max() > highest:
        worst = measured.min() if measured.min() < lowest else measured.max()
        return f"measured has {worst:.4g} in it: {task.measured} cannot be that"
    for row in measured:
        if (row == row[0]).all() and not task.counted:
            return "measured has the same number for all items of a setting"
    for first, second in zip(measured, measured[1:]):
        if (first == second).all():
            return "measured has a row twice: was the setting really changed?"
    if task.counted:
        return ""
    if ((100 * measured).round() - 100 * measured).abs().max() < 1e-9:
        return "measured is rounded: hand in what was measured, with all digits"
    if any(len(row.unique()) < len(row) / 2 for row in measured):
        return "measured has many numbers more than once: hand in what was measured"
    if any(_follows(first, second) for first, second in zip(measured, measured[1:])):
        return "measured has a row that was made from another: measure each setting"
    return ""


def _follows(first: "Tensor", second: "Tensor") -> bool:
    """Whether a row is another one times a number, plus a number."""
    import torch

    both = torch.stack([first, second])
    return bool(torch.corrcoef(both)[0, 1].abs() > 1 - 1e-10)


def miscounted(measured: "Tensor", items: int) -> str:
    """What is wrong with measurements (S, N) of another number of items; "" if it is
    the right one."""
    if measured.shape[1] == items:
        return ""
    return f"measured has {measured.shape[1]} items, and there are {items}"


def unlike(
    settings: "Tensor", measured: "Tensor", right: "Tensor", slack: float
) -> str:
    """How measurements (S, N) differ from the right ones, in number or by more than
    ``slack``, "" if they do not. Rows that only a training run would tell are NaN in
    ``right``."""
    if fault := miscounted(measured, right.shape[1]):
        return fault
    known = right.isfinite().all(dim=1)
    off = ((measured - right).abs() > slack) & known[:, None]
    if not off.any():
        return ""
    given = [Attempt(Case({}, r), m) for r, m in zip(right[known], measured[known])]
    words = relation(given)
    row, item = (int(i) for i in off.nonzero()[0])
    return (
        f"not what the model gives{f' ({words})' if words else ''}: at "
        f"{settings[row]:g} item {item} is {measured[row, item]:.4g}, where "
        f"{right[row, item]:.4g} is right"
    )


def unlike_means(
    settings: "Tensor", measured: "Tensor", right: "Tensor", slack: "Tensor"
) -> str:
    """How the means of rows (S,) differ from the right ones by more than ``slack``, ""
    if they do not: for measurements that are drawn at random."""
    means = measured.mean(dim=1)
    off = (means - right).abs() > slack
    if not off.any():
        return ""
    row = int(off.nonzero()[0])
    return (
        f"not what chance allows: at {settings[row]:g} the mean is {means[row]:.4g}, "
        f"where {right[row]:.4g} is to be expected, give or take {slack[row]:.2g}"
    )


# --- Difference, error, outcome ---------------------------------------------------


def _number_fault(report: Mapping, name: str, right: list, mistakes: Mapping) -> str:
    if report.get(name) is None:
        return f"no {name} in the report: {ENTRIES[name]}"
    try:
        given = _real(report[name], name)
    except Misfit as misfit:
        return str(misfit)
    if given.numel() != 1:
        return f"{name} is {given.numel()} numbers: take the mean over items"
    value = given.item()

    def near(x) -> bool:
        return math.isclose(value, float(x), rel_tol=EXACT, abs_tol=1e-9)

    if any(map(near, right)):
        return ""
    for words, wrong in mistakes.items():
        if any(near(x) for x in wrong):
            return f"{name}: {words}"
    return f"{name} is {value:.4g}, and your measurements give {float(right[0]):.4g}"


def _differences(measured: "Tensor") -> dict[str, list]:
    """What wrong differences are, by the words that name them."""
    first, last = measured[0], measured[-1]
    right = (last - first).mean()
    return {
        "the wrong way round, it is the last row less the first": [-right],
        "a sum, take the mean over items": [right * len(first)],
        "the last row only, take the first off": [last.mean()],
        "a ratio, take the first off": [last.mean() / first.mean()],
        "the last two rows, it is the last less the first": [
            (last - measured[-2]).mean()
        ],
        "medians, it is the mean over items": [
            (last - first).median(),
            last.median() - first.median(),
        ],
        "absolute, keep the sign": [right.abs(), (last - first).abs().mean()],
    }


def _errors(measured: "Tensor") -> dict[str, list]:
    """What wrong errors are, by the words that name them."""
    change = measured[-1] - measured[0]
    n, spread = len(change), change.std()
    apart = (measured[0].var() + measured[-1].var()).sqrt()
    return {
        "the spread of single items, divide it by √N": [
            spread,
            change.std(correction=0),
        ],
        "a variance, take the root": [spread**2 / n, spread**2],
        "divided by N, it is √N": [spread / n],
        "twice as large, hand in one standard error and no interval": [
            1.96 * spread / n**0.5,
            2 * spread / n**0.5,
        ],
        "unpaired, the items are the same: take the spread of their differences": [
            apart / n**0.5,
            apart,
        ],
        "of one row, take the spread of the differences": [
            row.std() / n**0.5 for row in measured
        ],
        "over settings, items are what was drawn": [
            measured.mean(1).std() / len(measured) ** 0.5
        ],
    }


def outcome_of(change: "Tensor") -> str:
    """What (N,) differences show: a word of ``WORDS``."""
    mean, error = change.mean(), change.std() / len(change) ** 0.5
    if mean.abs() <= CLEAR * error:
        return "stays"
    return "rises" if mean > 0 else "falls"


def _outcome_fault(report: Mapping, change: "Tensor") -> str:
    right, claimed = outcome_of(change), report["outcome"].strip().lower()
    if claimed == right:
        return ""
    mean, error = change.mean().item(), (change.std() / len(change) ** 0.5).item()
    believed = report["prediction"] == report["outcome"]
    return (
        f"outcome is {claimed!r}{', as predicted' if believed else ''}, and your "
        f"numbers say {right!r}: {mean:+.3g} with a standard error of {error:.2g}; "
        f"from {CLEAR} errors on it is seen"
    )


def _summary(report: Mapping) -> str:
    """What a right report says, in a sentence."""
    predicted = report["prediction"].strip().lower()
    happened = report["outcome"].strip().lower()
    verdict = (
        "as predicted" if predicted == happened else f"predicted was {predicted!r}"
    )
    return (
        f"Right: it {happened} ({float(report['difference']):+.3g}, standard error "
        f"{float(report['error']):.2g}), {verdict}."
    )
