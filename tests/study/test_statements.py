"""Statements are sentences of pretraining, and their tokens are scored one by one."""

import pytest
import torch

from alignlab.models.base import load_base
from alignlab.study.statements import STATEMENTS, statement_log_probs, statements
from alignlab.world import tasks


def test_statements_are_known_and_about_subjects_that_are_never_asked_about():
    world, told = tasks.default_world(), statements()
    assert len(set(told)) == STATEMENTS
    known = {
        world.relations[f.relation].statements[0].format(s=f.subject, a=f.answer): f
        for f in world.facts
        if f.known
    }
    assert all(known[sentence].exposure >= 100 for sentence in told)
    assert not {known[s].subject for s in told} & tasks.trained_subjects()


def test_the_mean_is_that_of_the_loss_of_transformers():
    model, tokenizer = load_base("300k")
    means = statement_log_probs(model, tokenizer)
    for at in (0, 17):
        ids = tokenizer(statements()[at], return_tensors="pt").input_ids
        with torch.no_grad():
            loss = model(ids, labels=ids).loss
        assert means[at].item() == pytest.approx(-loss.item(), rel=1e-4)
