"""What a reader of notebook 08 measures and explains: which costs more, to be four
times too sure or four times too unsure.
"""

from functools import cache
from typing import TYPE_CHECKING

from alignlab.course.exercise import Interpretation
from alignlab.course.experiment import Experiment, unlike

if TYPE_CHECKING:
    from torch import Tensor

ITEMS = 200


@cache
def base_answers() -> tuple["Tensor", "Tensor"]:
    """What the shipped model of 300,000 parameters gives to four options of ``ITEMS``
    facts, which it is asked to complete: logits (N, 4) and right options (N,)."""
    import torch

    from alignlab.chapters.calibration import artifacts
    from alignlab.models.base import load_base

    items = artifacts.draw_items(artifacts.HELD_OUT, 1, 0, ITEMS)
    log_probs = artifacts.ask(*load_base("300k"), items, form="statement")["log_probs"]
    right = [item.right for item in items]
    return torch.tensor(log_probs, dtype=torch.float64), torch.tensor(right)


def _compare(temperatures: "Tensor", measured: "Tensor") -> str:
    import torch

    logits, labels = base_answers()
    right = [
        torch.nn.functional.cross_entropy(logits / t, labels, reduction="none")
        for t in temperatures
    ]
    return unlike(temperatures, measured, torch.stack(right), 1e-3)


EXERCISES = {
    "08.2": Experiment(
        changed="the temperature",
        measured="the log loss",
        lowest=0.25,
        highest=4.0,
        hints=(
            "`my_scaled_nll` gives the mean over the items that it is given. What "
            "does it give for a single item?",
            "`my_scaled_nll(logits[i : i + 1], labels[i : i + 1], T)` for each item "
            "and each T; go from 0.25 over 1 to 4.",
            "`change = measured[-1] - measured[0]`, then `change.mean()` and "
            "`change.std() / len(change) ** 0.5`.",
        ),
        minutes=20,
        stars=1,
        start=0.25,
        items=ITEMS,
        limits=(0.0, 1e4),
        compare=_compare,
    ),
    "08.3": Interpretation(
        hints=(
            "What is the loss of a single wrong answer as the temperature goes to 0, "
            "and what as it goes to infinity?",
            "Sort the items by what they cost at 0.25: how many of them make up most "
            "of the mean?",
        ),
        minutes=15,
        stars=2,
    ),
}
