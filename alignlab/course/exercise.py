"""What an exercise is made of: cases with the right outputs, and readers that turn
whatever an answer returns into numbers to compare.
"""

import copy
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-5  # of the right answer's mean size: float32 passes, zeros never do


@dataclass(frozen=True)
class Case:
    """Arguments in the order of the signature, and the right output.

    ``about`` completes "wrong for ...", for an answer that gets other cases right.
    """

    args: dict[str, Any]
    expected: "Tensor"
    about: str = ""


@dataclass(frozen=True)
class Exercise:
    """One exercise of a notebook.

    Attributes:
        call: the signature that the answer must have.
        cases: the arguments to try, with the right outputs.
        read: turns an output and the case's arguments into a tensor, or raises Misfit.
        mistakes: for a case, what each known mistake gives, by the words that name it.
        praise: what a right answer is told.
        hints: what helps, one after the other; the first does not hold the answer.
        minutes, stars: how long it takes, and how hard it is (1 to 3).
        agrees: whether an output is the expected one.
        also: a last check once all values are right; returns what is wrong, or "".
        library: functions of ours that an answer may not call, by their full names.
        tensor_for: what later cells do with the output, if that takes a tensor.
        padded: arguments that may be overwritten where the mask is 0.
    """

    call: str
    cases: Callable[[], list[Case]]
    read: Callable[..., "Tensor"]
    mistakes: Callable[[Case], dict[str, list["Tensor"]]]
    praise: str
    hints: tuple[str, ...]
    minutes: int
    stars: int
    agrees: Callable[["Tensor", "Tensor"], bool] | None = None
    also: Callable[[Callable], str] | None = None
    library: tuple[str, ...] = ()
    tensor_for: str = ""
    padded: tuple[str, ...] = ()

    def is_right(self, got: "Tensor", expected: "Tensor") -> bool:
        return (self.agrees or close)(got, expected)


@dataclass(frozen=True)
class Interpretation:
    """A question in words, which a person grades by a rubric; fields as of an
    ``Exercise``."""

    hints: tuple[str, ...]
    minutes: int
    stars: int


class Misfit(Exception):
    """An output that is not the kind of thing the exercise wants; says why."""


class NotFinite(Misfit):
    """An output with NaN or infinity in it."""


# --- Reading an output ------------------------------------------------------------


def close(got: "Tensor", expected: "Tensor", tolerance: float = TOLERANCE) -> bool:
    """Whether values agree up to ``tolerance`` of the expected values' mean size; NaN
    never agrees."""
    error = (got - expected).abs().max()
    return bool(error <= tolerance * expected.abs().mean() + 1e-12)


def tensor(
    output, shape: tuple, notes: Mapping[tuple, str] | None = None, remedy: str = ""
) -> "Tensor":
    """The output as float64 numbers of this shape: a tensor, an array, or any nest of
    lists and tuples of them.

    Raises:
        Misfit: if it has another shape, in the words that ``notes`` has for it, or is
            no real numbers at all.
        NotFinite: if some of them are NaN or infinite; ``remedy`` ends the message.
    """
    import torch

    numbers = numbers_of(output)
    kind = type(output).__name__
    if numbers is None:
        raise Misfit(f"returns a {kind}; it must return numbers of shape {shape}")
    if numbers.shape != shape:
        returned = tuple(numbers.shape)
        mismatch = f"returns shape {returned}, not {shape}"
        raise Misfit((notes or {}).get(returned, mismatch))
    if numbers.is_meta:
        raise Misfit("returns a tensor on the meta device, which holds no numbers")
    if numbers.is_complex():
        raise Misfit("returns complex numbers; the right ones are real")
    if numbers.dtype in (torch.float16, torch.bfloat16):
        digits = "three" if numbers.dtype == torch.float16 else "two"
        raise Misfit(f"computes in {_name(numbers)}, which has {digits} digits only")
    numbers = numbers.detach().to("cpu", torch.float64)
    if not numbers.isfinite().all():
        raise NotFinite(_not_finite(numbers) + (f": {remedy}" if remedy else ""))
    return numbers


def numbers_of(output) -> "Tensor | None":
    """A tensor of whatever can be one; None if nothing can be made of it."""
    import numpy as np
    import torch

    if isinstance(output, torch.Tensor):
        return output.to_dense() if output.layout != torch.strided else output
    if isinstance(output, (list, tuple)) and output:
        parts = [numbers_of(part) for part in output]
        if any(part is None for part in parts):
            return None
        if len({part.shape for part in parts}) > 1:
            raise Misfit("returns rows of unequal lengths")
        dtype = functools.reduce(torch.promote_types, (part.dtype for part in parts))
        return torch.stack([part.detach().to(dtype) for part in parts])
    try:
        array = np.array(output)  # a copy: torch takes no negative strides
        if array.dtype == object:
            array = array.astype(float)
        return None if output is None else torch.from_numpy(array)
    except (TypeError, ValueError):
        return None


def _name(numbers: "Tensor") -> str:
    return str(numbers.dtype).removeprefix("torch.")


def _not_finite(numbers: "Tensor") -> str:
    bad = ~numbers.isfinite()
    what = "NaN" if numbers.isnan().any() else "infinity"
    if numbers.numel() == 1:
        return f"returns {what}"
    return f"returns {what}, at {int(bad.sum())} of {numbers.numel()} places"


def scalar(
    output, shapes: Iterable[tuple], advice: str = "", remedy: str = ""
) -> "Tensor":
    """The output as one number; ``shapes`` are those of numbers not yet reduced, and
    ``advice`` says how to reduce them. A shape of (1,) is one number as well.

    Raises:
        Misfit: if it is not one number.
        NotFinite: if it is none; ``remedy`` ends the message.
    """
    note = "not reduced to one number: returns shape {}"
    note += f"; {advice}" if advice else ""
    notes = {shape: note.format(shape) for shape in shapes if math.prod(shape) > 1}
    numbers = numbers_of(output)
    if numbers is not None and numbers.numel() == 1:
        return tensor(numbers.reshape(()), (), remedy=remedy)
    return tensor(output, (), notes, remedy)


# --- Making cases -----------------------------------------------------------------


def normal(seed: int, *shape: int) -> "Tensor":
    """Standard normal numbers in float64, the same for the same seed."""
    import torch

    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def generator(seed: int):
    """A torch generator with this seed."""
    import torch

    return torch.Generator().manual_seed(seed)


def random_texts(seed: int, batch: int, time: int, vocabulary: int):
    """Logits (B, T, V) and token ids (B, T)."""
    import torch

    random = generator(seed)
    shape = batch, time, vocabulary
    logits = torch.randn(*shape, dtype=torch.float64, generator=random).mul(2)
    return logits, torch.randint(vocabulary, (batch, time), generator=random)


def unshift(logits: "Tensor", *others: "Tensor") -> list["Tensor"]:
    """Logits (B, T, V) and tokens (B, T), longer by one so that the library's functions
    score each token by the logits at its own position."""
    import torch

    doubled = [torch.cat([x[:, :1], x], dim=1) for x in others]
    return [torch.cat([logits, logits[:, -1:]], dim=1), *doubled]


def copied(args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that an answer may change without changing the case."""

    def copy_of(value):
        if hasattr(value, "clone"):
            return value.clone()
        return copy.deepcopy(value) if isinstance(value, (dict, list)) else value

    return {name: copy_of(value) for name, value in args.items()}


def told_apart(mistakes: dict[str, list], case: Case) -> dict[str, list["Tensor"]]:
    """The mistakes that have a finite output in this case, and not the right one: a
    case in which a mistake happens to be right says nothing of it."""
    shown = {}
    for message, outputs in mistakes.items():
        wrong = [x for x in outputs if x.isfinite().all()]
        if wrong and not any(close(x, case.expected, 1e-3) for x in wrong):
            shown[message] = wrong
    return shown


# --- Gradients --------------------------------------------------------------------


def gradient_fault(
    answer: Callable, right: Callable, cases: Sequence[Case], inputs: Sequence[str] = ()
) -> str:
    """What is wrong with the gradient of a loss whose value is right; "" if nothing.

    Args:
        answer, right: the loss to check and the correct one.
        cases: the arguments to call both with.
        inputs: which of them the loss must have a gradient for; all if empty.
    """
    faults = (_gradient_fault_of(answer, right, case, inputs) for case in cases)
    return next((fault for fault in faults if fault), "")


def _gradient_fault_of(answer, right, case: Case, inputs: Sequence[str]) -> str:
    import torch

    args = copied(case.args)
    names = inputs or list(args)
    args |= {name: torch.as_tensor(args[name]).double() for name in names}
    leaves = [args[name].requires_grad_() for name in names]
    with torch.enable_grad():
        loss = answer(*args.values())
        if not getattr(loss, "requires_grad", False):
            return (
                f"no gradient: the value is right but cut off from "
                f"{' and '.join(names)}, so nothing can be learnt; leave out "
                "`.item()`, `.detach()`, `float()`, `no_grad`, and anything of numpy"
            )
        gradients = torch.autograd.grad(loss.sum(), leaves, allow_unused=True)
        expected = torch.autograd.grad(right(*args.values()), leaves)
    about = f", for {case.about}" if case.about else ""
    for name, got, wanted in zip(names, gradients, expected):
        if got is not None and not got.isfinite().all():
            return f"the gradient is NaN or infinite: the value is right{about}"
        if got is None or not close(got, wanted):
            return (
                f"wrong gradient: the value is right, but part of {name} is detached"
                f"{about}"
            )
    return ""
