"""What a reader of notebook 01 measures and explains: whether a model that learns to
answer questions forgets the statements that it had read.
"""

from functools import cache
from typing import TYPE_CHECKING

from alignlab.course.exercise import Interpretation
from alignlab.course.experiment import Experiment, unlike

if TYPE_CHECKING:
    from torch import Tensor


@cache
def untrained() -> "Tensor":
    """Mean log-probabilities of the statements' tokens under the shipped model of
    300,000 parameters, (N,)."""
    from alignlab.models.base import load_base
    from alignlab.study.statements import statement_log_probs

    return statement_log_probs(*load_base("300k")).double()


def _compare(steps: "Tensor", measured: "Tensor") -> str:
    import torch

    right = measured.new_full((len(steps), len(untrained())), torch.nan)
    right[0] = untrained()
    return unlike(steps, measured, right, 1e-3)


EXERCISES = {
    "01.3": Experiment(
        changed="the number of steps",
        measured="the mean log-probability of a statement's tokens",
        lowest=0,
        highest=500,
        hints=(
            "`train_by_hand(as_it_should_be, steps=...)` trains a new model on your "
            "loss; what is it after 0 steps?",
            "`statement_log_probs(model, words)` gives a number for each "
            "statement. The statements are the same at each setting, so compare them "
            "one by one.",
            "`change = measured[-1] - measured[0]`, then `change.mean()` and "
            "`change.std() / len(change) ** 0.5`.",
        ),
        minutes=20,
        stars=2,
        start=0,
        items=60,
        limits=(-50.0, 0.0),
        compare=_compare,
    ),
    "01.4": Interpretation(
        hints=(
            "The loss is on replies in a chat. What says to the model that this here "
            "is no chat?",
            "Which examples would you have to mix in, so that statements are not "
            "forgotten?",
        ),
        minutes=15,
        stars=2,
    ),
}
