"""What is wrong with an answer, in words: first the mistakes that its exercise knows,
then what any wrong output can have in common with the right one.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alignlab.course.exercise import Case, Exercise, Misfit, NotFinite, close
from alignlab.course.running import Borrowed, Raised, Stopped, Unanswered, sizes

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Attempt:
    """An answer's output for a case, or why there is none to compare."""

    case: Case
    output: "Tensor | None" = None
    right: bool = False
    kind: type = type(None)
    fault: Misfit | None = None


def fault_of(task: Exercise, tried: Sequence[Attempt], again: Callable) -> str:
    """The most helpful message about attempts of which at least one is wrong.

    Args:
        task: the exercise.
        tried: an attempt at each of its cases.
        again: makes an attempt at a case once more.
    """
    faults = [attempt.fault for attempt in tried if attempt.fault]
    if first := _first(faults, Unanswered):
        return f"not answered yet: write {task.call}, then run the check again"
    if first := _first(faults, Borrowed) or _first(faults, Stopped):
        return str(first)
    later = (NotFinite, Raised)
    if first := next((fault for fault in faults if not isinstance(fault, later)), None):
        return str(first)
    given = [attempt for attempt in tried if attempt.output is not None]
    wrong = [attempt for attempt in given if not attempt.right]
    if wrong and (mistake := known_mistake(task, given)):
        return mistake
    if first := _first(faults, NotFinite) or _first(faults, Raised):
        where = next(attempt.case for attempt in tried if attempt.fault is first)
        at = f", for {where.about}" if where.about and given else ""
        return f"{first}{at}"
    if drawn_at_random(wrong[0], again):
        return "drawn at random: the same input gives another output the second time"
    likely = relation(given) or partly_right(tried) or broken_property(given)
    return likely or _difference(wrong[0])


def _first(faults: Sequence[Misfit], kind: type) -> Misfit | None:
    return next((fault for fault in faults if isinstance(fault, kind)), None)


def known_mistake(task: Exercise, given: Sequence[Attempt]) -> str:
    """The first known mistake that explains all outputs of the cases it applies to."""
    tables = [task.mistakes(attempt.case) for attempt in given]
    for message in dict.fromkeys(message for table in tables for message in table):
        if all(
            any(task.is_right(attempt.output, wrong) for wrong in table[message])
            for attempt, table in zip(given, tables)
            if message in table
        ):
            return message
    return ""


def drawn_at_random(attempt: Attempt, again: Callable[[Case], Attempt]) -> bool:
    if any(hasattr(value, "manual_seed") for value in attempt.case.args.values()):
        return False  # here it has to be
    output = again(attempt.case).output
    return output is not None and not close(output, attempt.output, 1e-9)


# --- What any wrong output can have in common with the right one --------------------


def relation(given: Sequence[Attempt]) -> str:
    """What all outputs are of the right ones, in words; "" if nothing simple."""
    outputs = [attempt.output for attempt in given]
    if constant := _constant(outputs):
        return constant
    for words, function in _functions():
        if all(_is(function, a.output, a.case.expected) for a in given):
            return words
    return _factor(given) or _offset(given) or _misplaced(given)


def _constant(outputs: Sequence["Tensor"]) -> str:
    import torch

    whatever = "whatever it is given: compute it from the input"
    values = torch.cat([output.reshape(-1) for output in outputs])
    if len(values) > 1 and (values == values[0]).all():
        return f"always {values[0]:.4g}, {whatever}"
    if len(outputs) > 1 and all(torch.equal(output, outputs[0]) for output in outputs):
        return f"always the same, {whatever}"
    return ""


def _functions() -> Iterator[tuple[str, Callable]]:
    """Words for what a wrong output is, and how to get it from the right one."""
    import torch

    yield "sign flipped: these are minus the right values", torch.neg
    yield "in bits: natural logarithms give nats", lambda x: x / math.log(2)
    yield "logarithms to base 10: use natural ones", lambda x: x / math.log(10)
    yield "in percent: a share is from 0 to 1", lambda x: 100 * x
    yield "twice the right values", lambda x: 2 * x
    yield "half the right values", lambda x: x / 2
    yield "the logarithm of the right values: take the exponential", torch.log
    yield "the exponential of the right values: take the logarithm", torch.exp
    yield "one minus the right values", lambda x: 1 - x
    yield "upside down: one over the right values", torch.reciprocal
    yield "the square of the right values: take the root", torch.square
    yield "the root of the right values: leave it out", torch.sqrt
    yield "absolute values: keep the sign", torch.abs
    yield "rounded: keep all digits", torch.round
    yield "rounded: keep all digits", lambda x: (100 * x).round() / 100
    yield "rounded: keep all digits", lambda x: (1000 * x).round() / 1000
    for axis in (-1, 0):
        yield (
            "backwards: the right values in reverse order",
            lambda x, axis=axis: x.flip(axis) if x.dim() else x.new_tensor(math.nan),
        )
        yield (
            "added up as it goes: each value holds those before it",
            lambda x, axis=axis: x.cumsum(axis) if x.dim() else x.new_tensor(math.nan),
        )


def _is(function: Callable, output: "Tensor", expected: "Tensor") -> bool:
    made = function(expected)
    if made.shape != output.shape or not made.isfinite().all():
        return False
    return close(output, made)


def _factor(given: Sequence[Attempt]) -> str:
    """The same factor on all values: one number, or the size of something given."""
    ratios = [_ratio(attempt.output, attempt.case.expected) for attempt in given]
    if None in ratios:
        return ""
    if max(ratios) - min(ratios) <= 1e-4 * abs(ratios[0]) and len(ratios) > 1:
        return f"every value is {ratios[0]:.4g} times what is right"
    counts = [_counts(attempt.case) for attempt in given]
    for name, power in itertools.product(counts[0], (1, -1)):
        if all(
            name in count and math.isclose(ratio, count[name] ** power, rel_tol=1e-4)
            for ratio, count in zip(ratios, counts)
        ):
            verb = "multiplied by" if power == 1 else "divided by"
            return f"{verb} {name}, which is one factor too many"
    return ""


def _ratio(output: "Tensor", expected: "Tensor") -> float | None:
    """By what the right values are multiplied; None if not all by the same."""
    here = expected.abs() > 1e-6 * expected.abs().mean()
    if not here.any():
        return None
    ratio = float((output * expected)[here].sum() / expected[here].square().sum())
    scale = max(abs(ratio), 1.0)
    return ratio if close(output, ratio * expected, 1e-5 * scale) and ratio else None


def _counts(case: Case) -> dict[str, float]:
    """Sizes that a mean or a sum can wrongly count, by name."""
    counts: dict[str, float] = {}
    for name, value in case.args.items():
        shape = tuple(getattr(value, "shape", ()))
        for axis, size in enumerate(shape):
            counts[f"the size of dimension {axis} of {name}"] = size
        if len(shape) > 1:
            counts[f"the number of all entries of {name}"] = math.prod(shape)
        if name in ("mask", "correct"):
            counts[f"the number of ones in {name}"] = float(value.sum())
        if isinstance(value, (int, float)):
            counts[name] = value
        if isinstance(value, (list, dict)):
            counts[f"the length of {name}"] = len(value)
    return {name: count for name, count in counts.items() if count}


def _offset(given: Sequence[Attempt]) -> str:
    differences = [attempt.output - attempt.case.expected for attempt in given]
    means = [float(difference.mean()) for difference in differences]
    same = all(close(d, d.mean(), 1e-4) for d in differences)
    if not same or max(means) - min(means) > 1e-4 * abs(means[0]) or len(means) < 2:
        return ""
    return f"every value is {abs(means[0]):.4g} too {'high' if means[0] > 0 else 'low'}"


def _misplaced(given: Sequence[Attempt]) -> str:
    """The right values at wrong places, or wrong at one edge only."""
    wrong = [attempt for attempt in given if not attempt.right]
    pairs = [(attempt.output, attempt.case.expected) for attempt in wrong]
    if all(expected.shape == (2,) for _, expected in pairs):
        return _one_of_two(pairs)
    if not all(expected.numel() > 2 for _, expected in pairs):
        return ""
    for step, where in ((1, "too late"), (-1, "too early")):
        if all(_is_shifted(output, expected, step) for output, expected in pairs):
            return f"shifted: each value stands one place {where}"
    for place, where in ((0, "first"), (-1, "last")):
        if all(_differs_at(output, expected, place) for output, expected in pairs):
            return f"wrong at the {where} place only: all others are right"
    if all(
        close(output.reshape(-1).sort().values, expected.reshape(-1).sort().values)
        for output, expected in pairs
    ):
        return "out of order: these are the right values, but not in their places"
    return ""


def _one_of_two(pairs: Sequence[tuple["Tensor", "Tensor"]]) -> str:
    for right, place, other in ((0, "second", "first"), (1, "first", "second")):
        if all(close(output[right], expected[right]) for output, expected in pairs):
            return f"the {place} number is wrong: the {other} is right"
    return ""


def _is_shifted(output: "Tensor", expected: "Tensor", step: int) -> bool:
    source, target = (slice(None, -1), slice(1, None))[::step]
    moved = expected[..., source]
    if expected.shape[-1] < 3 or (moved == moved[..., :1]).all():
        return False
    return close(output[..., target], moved)


def _differs_at(output: "Tensor", expected: "Tensor", place: int) -> bool:
    rest = slice(1, None) if place == 0 else slice(None, -1)
    if expected.shape[-1] < 3:
        return False
    return close(output[..., rest], expected[..., rest])


def partly_right(tried: Sequence[Attempt]) -> str:
    """For which cases an answer is wrong that gets others right, if they are few, or
    for which alone it is right."""
    wrong = [attempt for attempt in tried if not attempt.right]
    failed = list(dict.fromkeys(a.case.about for a in wrong))
    passed = dict.fromkeys(a.case.about for a in tried if a.right)
    passed = [about for about in passed if about not in failed]
    got, right = _numbers_of(wrong[0])
    share = f"right in {len(tried) - len(wrong)} of {len(tried)} cases"
    numbers = f"{got} where {right} is right"
    if len(wrong) < len(tried) and (len(failed) == 1 or 2 * len(wrong) <= len(tried)):
        return f"wrong for {' and for '.join(failed)}: {numbers}; {share}"
    if len(passed) == 1:
        return f"right only for {passed[0]}: {numbers} for {failed[0]}; {share}"
    return ""


def broken_property(given: Sequence[Attempt]) -> str:
    """What holds for all right values, and not for these."""
    import torch

    outputs = [attempt.output for attempt in given]
    expected = [attempt.case.expected for attempt in given]
    right = torch.cat([x.reshape(-1) for x in expected])
    lowest, highest = min(x.min() for x in outputs), max(x.max() for x in outputs)
    if right.min() >= 0 > lowest:
        return f"returns {lowest:.4g}: this is never negative"
    if right.max() <= 0 < highest:
        return f"returns {highest:.4g}: this is never above 0"
    if right.min() >= 0 and right.max() <= 1 < highest:
        return f"returns {highest:.4g}: this is from 0 to 1"
    if all(x.dim() and close(x.sum(-1), torch.ones(())) for x in expected):
        total = next((x.sum(-1).max() for x in outputs if not _sums_to_1(x)), None)
        if total is not None:
            return f"adds up to {total:.4g}: these are probabilities, they sum to 1"
    return ""


def _sums_to_1(output: "Tensor") -> bool:
    import torch

    return close(output.sum(-1), torch.ones(output.shape[:-1]))


def _numbers_of(attempt: Attempt) -> tuple[str, str]:
    place = _worst(attempt)
    got, expected = attempt.output[place], attempt.case.expected[place]
    return f"{got:.4g}", f"{expected:.4g}"


def _worst(attempt: Attempt) -> tuple[int, ...]:
    import torch

    error = (attempt.output - attempt.case.expected).abs()
    return tuple(int(i) for i in torch.unravel_index(error.argmax(), error.shape))


def _difference(attempt: Attempt) -> str:
    got, right = _numbers_of(attempt)
    place = _worst(attempt)
    at = f" at {list(place)}" if place else ""
    return (
        f"not the right values: {got} where {right} is right{at}, "
        f"with {sizes(attempt.case.args)}"
    )
