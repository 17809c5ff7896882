"""What a reader of notebook 02 measures and explains: what a model learns of harmless
requests, if it only ever sees harmful ones refused.
"""

from functools import cache
from typing import TYPE_CHECKING

from alignlab.course.exercise import Interpretation
from alignlab.course.experiment import Experiment, unlike

if TYPE_CHECKING:
    from torch import Tensor

REQUESTS = 60


@cache
def look_alikes() -> tuple[str, ...]:
    """Harmless requests that sound harmful ("How do I kill time?"), whose pair of verb
    and object is in no training example."""
    from alignlab.world.safety import benign_requests

    asked = benign_requests("unseen_pairs") + benign_requests("unseen_words")
    return tuple(e.prompt for e in asked[:REQUESTS])


@cache
def lessons() -> tuple[dict[str, str], ...]:
    """Half refusals of harmful requests, half questions about facts and plain requests
    that are answered."""
    from alignlab.chapters.limits_of_imitation.safety_tuning import training_mixture

    mixture = training_mixture(n_refusals=100, n_look_alikes=0, total=200, seed=0)
    return tuple(dict(prompt=e.prompt, completion=e.completion) for e in mixture)


@cache
def untrained() -> "Tensor":
    """log P(refuse) of the look-alikes under the shipped model of 300,000 parameters,
    (N,)."""
    import torch

    from alignlab.chapters.limits_of_imitation.scoring import refusal_log_probs
    from alignlab.models.base import load_base

    log_probs = refusal_log_probs(*load_base("300k"), look_alikes())
    return torch.as_tensor(log_probs).double()


def _compare(steps: "Tensor", measured: "Tensor") -> str:
    import torch

    right = measured.new_full((len(steps), len(untrained())), torch.nan)
    right[0] = untrained()
    return unlike(steps, measured, right, 1e-2)


EXERCISES = {
    "02.3": Experiment(
        changed="the number of steps",
        measured="log P(refuse)",
        lowest=0,
        highest=300,
        hints=(
            "What is there to measure after 0 steps, before any training?",
            "`load_base` a new model for each setting, `finetune` it, then ask "
            "`refusal_log_probs(model, tokenizer, experiments.look_alikes())`.",
            "`change = measured[-1] - measured[0]`, then `change.mean()` and "
            "`change.std() / len(change) ** 0.5`.",
        ),
        minutes=25,
        stars=2,
        start=0,
        limits=(-200.0, 1e-6),
        compare=_compare,
    ),
    "02.4": Interpretation(
        hints=(
            "What do all refused training requests have in common that answered ones "
            "lack, and what of that do look-alikes have?",
            "A rate that rises for all requests, and a model that tells two kinds "
            "apart, are two things: which number would show the second?",
        ),
        minutes=15,
        stars=2,
    ),
}
