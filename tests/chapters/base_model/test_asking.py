"""Every way of asking asks for the same facts, and an answer is found in a sentence."""

import pytest

from alignlab.chapters.base_model import asking
from alignlab.models.sampler import Completion
from alignlab.world.facts import RELATIONS, Fact, World
from alignlab.world.tasks import Example

FACT = Fact("Peru", "capital", ("Lima", "Lima City"), 200, ("Lima",))
QUESTION = Example("capital", "What is the capital of Peru?", "Lima.", ("Lima",), FACT)


@pytest.mark.parametrize(
    "text, names",
    [
        ("Lima.", True),
        ("the city of LIMA, of course. And so on.", True),
        ("Answer: Lima. Question: What is next?", True),
        ("Limassol.", False),
        ("Lima-Bissau.", False),
        ("It is large. Lima is its capital.", False),
        ("", False),
    ],
)
def test_an_answer_is_found_in_the_first_sentence(text, names):
    assert asking.names_answer(("Lima",), text) == names


def test_answers_of_several_words_are_found_whole():
    assert asking.names_answer(("San Jose",), "It is San Jose.")
    assert not asking.names_answer(("San Jose",), "It is San Juan.")
    assert asking.names_answer(("x", "7"), "number 7") and "7" not in "seven"


def test_each_way_asks_in_its_own_words(monkeypatch):
    world = World((FACT,), RELATIONS, 0)
    shots = [Example("capital", "What is the capital of Chad?", "N.", ("N",))]
    drawn = []

    def examples(family, n, split, seed):
        drawn.append((family, n, split, seed))
        return shots

    monkeypatch.setattr(asking.tasks, "default_world", lambda: world)
    monkeypatch.setattr(asking.tasks, "examples", examples)
    count = lambda text, **options: {"input_ids": text.split()}  # noqa: E731
    ask = lambda way: asking.prompts_for([QUESTION], way, count, 4, 3)  # noqa: E731
    assert ask("bare") == ask("chat") == ["What is the capital of Peru?"]
    assert ask("cloze") == ["The capital of Peru is"]
    [few_shot] = ask("few-shot")
    assert few_shot.startswith("Question: What is the capital of Chad? Answer: N.")
    assert few_shot.endswith("Question: What is the capital of Peru? Answer:")
    assert drawn == [("capital", 4, "train", 3)]


def test_only_few_shot_replies_are_cut_at_the_next_question(monkeypatch):
    text, chats = "Lima. Question: What", []

    def complete(model, tokenizer, prompts, chat, **options):
        chats.append(chat)
        return [Completion(text, [1], False)]

    monkeypatch.setattr(asking, "complete", complete)
    monkeypatch.setattr(asking, "cap", lambda tokenizer, tokens: tokens)
    replies = {
        way: asking.reply_to(None, None, ["x"], way)[0]
        for way in ("bare", "cloze", "few-shot", "chat")
    }
    assert chats == [False, False, False, True]
    assert replies["few-shot"].text == "Lima." and replies["few-shot"].ended
    assert all(replies[way].text == text for way in ("bare", "cloze", "chat"))


def test_replies_are_judged_one_by_one(monkeypatch):
    monkeypatch.setattr(asking, "test_questions", lambda n: [QUESTION] * n)
    monkeypatch.setattr(asking, "prompts_for", lambda *args: ["a", "b", "c"])
    replies = [("Lima.", True), ("It is Lima and so on", False), ("Cuzco.", True)]
    monkeypatch.setattr(
        asking,
        "reply_to",
        lambda *args: [Completion(text, [1], ended) for text, ended in replies],
    )
    monkeypatch.setattr(asking.answers, "longest_answer", lambda family: 2)
    [found] = asking.ask(None, None, ["bare"], shots=0, n_test=3, seed=0).values()
    assert found == {"right": [True, True, False], "formatted": [True, False, True]}


@pytest.mark.network
def test_questions_are_about_known_facts_that_no_training_asks_for():
    from alignlab.world import tasks

    questions = asking.test_questions(300)
    assert len({q.family for q in questions}) == 12 and len(questions) == 300
    assert all(q.fact.known for q in questions)
    assert not {q.fact.subject for q in questions} & tasks.trained_subjects()
    assert questions == asking.test_questions(300)
