"""How well a model expects statements that pretraining made often."""

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.objectives import token_log_probs
from alignlab.world import tasks
from alignlab.world.facts import split_subjects

STATEMENTS = 60


@cache
def statements() -> tuple[str, ...]:
    """Sentences of pretraining about facts that it states 100 times or more, of
    subjects that no training question of notebook 01 is about."""
    world = tasks.default_world()
    _, untaught = split_subjects(world, 0)
    facts = [f for f in world.facts if f.known and f.subject in untaught]
    shown = [facts[i * len(facts) // STATEMENTS] for i in range(STATEMENTS)]
    return tuple(
        world.relations[f.relation].statements[0].format(s=f.subject, a=f.answer)
        for f in shown
    )


@torch.no_grad()
def statement_log_probs(model, tokenizer) -> Float[Tensor, "statements"]:
    """The mean log-probability of the tokens after the first of each of
    :func:`statements`, in nats."""
    means = []
    for sentence in statements():
        ids = tokenizer(sentence, return_tensors="pt").input_ids.to(model.device)
        means.append(token_log_probs(model(ids).logits, ids).mean().cpu())
    return torch.stack(means)
