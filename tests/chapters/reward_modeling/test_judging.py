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

POLICY = dict(base="tiny", steps=1, reference_seed=6)


@pytest.fixture
def tiny_policy(monkeypatch, tiny_model, tiny_tokenizer):
    policy = tiny_model, tiny_tokenizer

    def reference_policy(base, steps, seed):
        assert seed == POLICY["reference_seed"]
        return policy

    monkeypatch.setattr(artifacts, "reference_policy", reference_policy)


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


def test_likelihoods_come_by_subject_and_reply(
    replies, tiny_model, tiny_tokenizer, tiny_policy, monkeypatch
):
    monkeypatch.setattr(judging, "TEST_REPLIES", 3)
    found = np.array(judging.likelihood_arm(seed=0, **POLICY)["rewards"])
    assert found.shape == (5, 3)
    one = judging.log_probs(tiny_model, tiny_tokenizer, ["Tell me about c."], ["c c"])
    assert found[2, 1] == pytest.approx(np.nansum(one), rel=1e-4)
    assert (np.diff(found, axis=1) < 0).all(), "longer replies are less likely"


def test_questions_are_about_facts_shown_often_and_seldom():
    questions = judging.shown_questions(60, seed=1)
    assert len(questions) == 60
    known = [question.fact.known for question in questions]
    assert sum(known) == 30 and all(q.fact.exposure > 0 for q in questions)
    asked = {question.fact.subject for question in questions}
    assert not asked & tasks.trained_subjects()
    assert questions == judging.shown_questions(60, seed=1)
    assert questions != judging.shown_questions(60, seed=2)


def test_what_nobody_can_know_was_never_shown():
    questions = judging.unknowable_questions(20, seed=1)
    assert questions and all(not q.fact.exposure for q in questions)
    assert not {q.fact.subject for q in questions} & tasks.trained_subjects()


def test_the_wrong_answer_is_the_policys_own_where_it_has_one():
    questions = judging.shown_questions(3, seed=0)
    right = [f"{q.answers[0]}." for q in questions]
    sampled = [[right[0], "Nonsense.", "Nonsense.", "Other."], [right[1]] * 4, []]
    drawn = [
        judging.wrong_answers(questions, sampled, np.random.default_rng(seed))
        for seed in range(60)
    ]
    assert all(own == [True, False, False] for _, own in drawn)
    first = [chosen[0] for chosen, _ in drawn]
    assert set(first) == {"Nonsense.", "Other."}
    assert first.count("Nonsense.") > first.count("Other."), "as often as it is sampled"
    facts = tasks.default_world().facts
    for chosen, _ in drawn[:10]:
        for question, text in list(zip(questions, chosen))[1:]:
            related = {a for f in facts if f.relation == question.fact.relation
                       for a in f.stated}  # fmt: skip
            assert text[:-1] in related
            answers = {normalise(answer) for answer in question.answers}
            assert normalise(text) not in answers


def test_author_and_judge_are_asked_the_same(tiny_policy, monkeypatch):
    shown = judging.shown_questions(6, seed=0)
    unknowable = judging.unknowable_questions(6, seed=0)
    sampled = []

    def complete(policy, tokenizer, prompts, max_new_tokens, temperature=0.0, **o):
        if not temperature:
            assert prompts == [q.prompt for q in shown]
            said = [q.answers[0] if i < 2 else "no" for i, q in enumerate(shown)]
        else:
            sampled.append(prompts)
            said = ["Nonsense."] * len(prompts)
        return [SimpleNamespace(text=text, ended=True) for text in said]

    monkeypatch.setattr(judging, "complete", complete)
    wins = np.array([1, 1, 1, 0, 1, 0], float)  # of the right answer, where shown

    def log_probs(policy, tokenizer, prompts, texts):
        right = list(texts) != ["Nonsense."] * 6
        known = prompts == [q.prompt for q in shown]
        found = wins if known else np.zeros(6)
        return (found if right else 0.5 + 0 * found)[:, None]

    monkeypatch.setattr(judging, "log_probs", log_probs)
    monkeypatch.setattr(
        judging.answers, "guess_baselines", lambda world, relation: {"best": 0.25}
    )
    found = judging.author_arm(n=6, samples=3, seed=0, **POLICY)
    assert found == pytest.approx(
        {"author": 2 / 6, "judge": 4 / 6, "unknowable": 0, "chance": 0.25, "own": 1}
    )
    expected = [[q.prompt for q in qs for _ in range(3)] for qs in (shown, unknowable)]
    assert sampled == expected
