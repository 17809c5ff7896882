"""What a reader of notebook 01 measures and explains: whether a model that learns to
answer questions forgets the statements that it had read.
"""

from functools import cache
from typing import TYPE_CHECKING

from alignlab.course.exercise import Interpretation
from alignlab.course.experiment import Experiment, unlike

if TYPE_CHECKING:
    from torch import Tensor

STATEMENTS = 60


@cache
def statements() -> tuple[str, ...]:
    """Sentences of pretraining about facts that it states 100 times or more, of
    subjects that no training question of notebook 01 is about."""
    from alignlab.world.facts import RELATIONS, build_world, split_subjects

    world = build_world(0)
    _, untaught = split_subjects(world, 0)
    facts = [f for f in world.facts if f.known and f.subject in untaught]
    shown = [facts[i * len(facts) // STATEMENTS] for i in range(STATEMENTS)]
    return tuple(
        RELATIONS[f.relation].statements[0].format(s=f.subject, a=f.answer)
        for f in shown
    )


def statement_log_probs(model, tokenizer) -> "Tensor":
    """How well a model expects each of :func:`statements`: the mean log-probability of
    its tokens after the first, in nats, (N,)."""
    import torch

    from alignlab.objectives import token_log_probs

    means = []
    for sentence in statements():
        ids = tokenizer(sentence, return_tensors="pt").input_ids.to(model.device)
        with torch.no_grad():
            means.append(token_log_probs(model(ids).logits, ids).mean().cpu())
    return torch.stack(means)


@cache
def untrained() -> "Tensor":
    """The same of the shipped model of 300,000 parameters."""
    from alignlab.models.base import load_base

    return statement_log_probs(*load_base("300k")).double()


def _compare(steps: "Tensor", measured: "Tensor") -> str:
    import torch

    if measured.shape[1] != STATEMENTS:
        return f"measured has {measured.shape[1]} items, and there are {STATEMENTS}"
    right = torch.full_like(measured, torch.nan)
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
            "`experiments.statement_log_probs(model, words)` gives a number for each "
            "statement. The statements are the same at each setting, so compare them "
            "one by one.",
            "`change = measured[-1] - measured[0]`, then `change.mean()` and "
            "`change.std() / len(change) ** 0.5`.",
        ),
        minutes=20,
        stars=2,
        start=0,
        items=STATEMENTS,
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
