"""Author and judge, and likelihoods as rewards, on a tiny model."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from alignlab.chapters.reward_modeling import judging
from alignlab.objectives.log_probs import token_log_probs
from alignlab.study import artifacts
from alignlab.world import tasks
from alignlab.world.annotators import Reply
from alignlab.world.comparisons import Candidates
from alignlab.world.facts import normalise
from alignlab.world.gold import Gold

POLICY = dict(size="tiny", steps=1)


@pytest.fixture
def tiny_policy(monkeypatch, tiny_model, tiny_tokenizer):
    policy = tiny_model, tiny_tokenizer
    monkeypatch.setattr(artifacts, "reference_policy", lambda size, steps: policy)


@pytest.fixture
def replies(monkeypatch):
    """Replies of one to k words, in place of those sampled from the policy."""

    def candidates(split, k, **policy):
        texts = [[" ".join([name] * (i + 1)) for i in range(k)] for name in "abcde"]
        return [
            Candidates(
                f"Tell me about {name}.",
                name,
                tuple(Reply(text, Gold(0.0, 0.0, 0.0, 0.0, {})) for text in row),
            )
            for name, row in zip("abcde", texts)
        ]

    monkeypatch.setattr(artifacts, "candidates", candidates)


def test_log_probs_are_the_policys(tiny_model, tiny_tokenizer):
    prompts, texts = ["Say it.", "Is gold a metal?"], ["Oslo.", ""]
    found = judging.log_probs(tiny_model, tiny_tokenizer, prompts, texts)
    for row, prompt, text in zip(found, prompts, texts, strict=True):
        chat = [dict(role="user", content=prompt), dict(role="assistant", content=text)]
        render = tiny_tokenizer.apply_chat_template
        whole = render(chat, tokenize=False)
        start = render(chat[:1], tokenize=False, add_generation_prompt=True)
        ids, prefix = (
            tiny_tokenizer(x, add_special_tokens=False)["input_ids"]
            for x in (whole, start)
        )
        with torch.no_grad():
            logits = tiny_model(torch.tensor([ids])).logits
        expected = token_log_probs(logits, torch.tensor([ids]))[0, len(prefix) - 1 :]
        kept = row[np.isfinite(row)]
        assert kept == pytest.approx(expected.numpy(), rel=1e-4)
        assert len(kept) == len(ids) - len(prefix) >= 1, "its end counts too"


def test_likelihoods_come_by_subject_and_reply(replies, tiny_policy, monkeypatch):
    monkeypatch.setattr(judging, "TEST_REPLIES", 3)
    found = judging.likelihood_arm(**POLICY)
    total, mean = np.array(found["rewards"]), np.array(found["per_token"])
    assert total.shape == mean.shape == (5, 3)
    tokens = total / mean
    assert tokens == pytest.approx(np.round(tokens)) and (tokens >= 2).all()
    assert (np.diff(tokens, axis=1) > 0).all(), "longer replies have more tokens"


def test_questions_are_about_facts_shown_often_and_seldom():
    questions = judging.shown_questions(60, seed=1)
    assert len(questions) == 60
    known = [question.fact.known for question in questions]
    assert sum(known) == 30 and all(q.fact.exposure > 0 for q in questions)
    asked = {question.fact.subject for question in questions}
    assert not asked & tasks.trained_subjects()
    assert questions == judging.shown_questions(60, seed=1)
    assert questions != judging.shown_questions(60, seed=2)


def test_the_wrong_answer_is_another_facts_of_the_same_relation():
    questions = judging.shown_questions(60, seed=0)
    facts = tasks.default_world().facts
    for question, (right, wrong) in zip(
        questions, judging.right_and_wrong(questions, 0), strict=True
    ):
        answers = {normalise(answer) for answer in question.answers}
        assert normalise(right) in answers and normalise(wrong) not in answers
        assert wrong.endswith(".")
        relation = question.fact.relation
        assert wrong[:-1] in {a for f in facts if f.relation == relation
                              for a in f.stated}  # fmt: skip


def test_author_and_judge_are_asked_the_same(tiny_policy, monkeypatch):
    questions = judging.shown_questions(6, seed=0)
    said = [q.answers[0] if i < 2 else "no" for i, q in enumerate(questions)]
    monkeypatch.setattr(
        judging,
        "complete",
        lambda policy, tokenizer, prompts, **o: [
            SimpleNamespace(text=t, ended=True) for t in said
        ],
    )
    options = judging.right_and_wrong(questions, 0)
    wins = [1, 1, 1, 0, 1, 0]

    def log_probs(policy, tokenizer, prompts, texts):
        assert prompts == [q.prompt for q in questions]
        right = list(texts) == [o[0] for o in options]
        assert right or list(texts) == [o[1] for o in options]
        score = -np.array(wins if not right else [1 - w for w in wins], float)
        return np.column_stack([score, np.full(6, np.nan)])

    monkeypatch.setattr(judging, "log_probs", log_probs)
    monkeypatch.setattr(
        judging.answers, "guess_baselines", lambda world, relation: {"best": 0.25}
    )
    found = judging.author_arm(n=6, seed=0, **POLICY)
    expected = {"author": 2 / 6, "judge": 4 / 6, "chance": 0.25}
    assert found == pytest.approx(expected)
