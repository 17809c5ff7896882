"""What a reader of notebook 09 measures and explains: how much of a training of all
weights an adapter of low rank can hold.
"""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from alignlab.course.exercise import Interpretation
from alignlab.course.experiment import Experiment, unlike

if TYPE_CHECKING:
    from torch import Tensor

HIGHEST = 64  # the rank of the linear layers of the small model


def with_adapters(rank: int, merged_weight: Callable):
    """A model whose linear layers hold the part of a given rank of what training made
    of them: the shipped model of 300,000 parameters before and after the last phase of
    its pretraining. All other weights are as they were before.

    Args:
        rank: of the adapters; 0 leaves the model as it was.
        merged_weight: folds an adapter in, as exercise 09.2 has it.

    Returns:
        The model and its tokenizer.
    """
    import torch

    from alignlab.models.base import load_base

    before, tokenizer = load_base("300k", stage="stable")
    after, _ = load_base("300k")
    if rank == 0:
        return before, tokenizer
    after_of = dict(after.base_model.named_modules())
    for name, layer in before.base_model.named_modules():
        if isinstance(layer, torch.nn.Linear):
            weight = layer.weight.data
            u, s, v = torch.linalg.svd(after_of[name].weight.data - weight, False)
            down, up = s[:rank, None] * v[:rank], u[:, :rank]
            layer.weight.data = merged_weight(weight, down, up, len(down))
    return before, tokenizer


@cache
def expected_at(rank: int) -> "Tensor":
    """What a right measurement has at a rank: for each statement the mean
    log-probability of its tokens, (N,)."""
    from alignlab.chapters.a_real_model.lora import merged_weight
    from alignlab.study.statements import statement_log_probs

    return statement_log_probs(*with_adapters(rank, merged_weight)).double()


def _compare(ranks: "Tensor", measured: "Tensor") -> str:
    import torch

    if (ranks != ranks.round()).any():
        return "settings that are no whole numbers: they are ranks"
    right = torch.stack([expected_at(int(rank)) for rank in ranks])
    return unlike(ranks, measured, right, 2e-3)


EXERCISES = {
    "09.3": Experiment(
        changed="the rank",
        measured="the mean log-probability of a statement's tokens",
        lowest=0,
        highest=HIGHEST,
        hints=(
            "`experiments.with_adapters(rank, my_merged_weight)` gives a model; what "
            "is it at rank 0?",
            "`statement_log_probs(model, tokenizer)` has a number for each statement; "
            "the statements are the same at each rank.",
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
    "09.4": Interpretation(
        hints=(
            "What else did training change, besides the linear layers?",
            "An adapter of rank 8 that is trained is not the same as the best part of "
            "rank 8 of another training. Which of the two can be better, and why?",
        ),
        minutes=15,
        stars=3,
    ),
}
