"""Asking one model about the same facts in several ways, and whether it answers."""

from collections.abc import Sequence

from alignlab.chapters.instruction_tuning.artifacts import cut_after_answer
from alignlab.evaluation import answers
from alignlab.models.sampler import Completion, complete
from alignlab.study.scale import cap
from alignlab.study.tuning import REPLY, TEST_SEED
from alignlab.training.pretrain import cloze
from alignlab.world import tasks
from alignlab.world.tasks import Example

Asked = dict[str, list[bool]]  # for each question, whether the reply is right, ...


def ask(
    model, tokenizer, ways: Sequence[str], *, shots: int, n_test: int, seed: int
) -> dict[str, Asked]:
    """For each way to ask, whether each reply is ``right`` and ``formatted``.

    Args:
        ways: "bare" (the question as plain text), "cloze" (the fact's statement, cut
            before the answer), "few-shot" (worked examples first) or "chat".
        shots: worked examples; more show the form more often and leave less room.
        n_test: questions, the same for every model, way and seed.
        seed: draws the worked examples.
    """
    questions = test_questions(n_test)
    asked = {}
    for way in ways:
        prompts = prompts_for(questions, way, tokenizer, shots, seed)
        replies = reply_to(model, tokenizer, prompts, way)
        pairs = list(zip(questions, replies, strict=True))
        asked[way] = {
            "right": [names_answer(q.answers, r.text) for q, r in pairs],
            "formatted": [answers.is_formatted(q, r) for q, r in pairs],
        }
    return asked


def prompts_for(
    questions: Sequence[Example], way: str, tokenizer, shots: int, seed: int
) -> list[str]:
    """The questions, put in one of the ways of :func:`ask`."""
    if way == "cloze":
        return [cloze(tasks.default_world(), question.fact) for question in questions]
    if way != "few-shot":
        return [question.prompt for question in questions]
    examples = {
        family: tasks.examples(family, shots, split="train", seed=seed)
        for family in {question.family for question in questions}
    }
    return [
        answers.few_shot_prompt(examples[q.family], q, tokenizer=tokenizer)
        for q in questions
    ]


def reply_to(model, tokenizer, prompts: Sequence[str], way: str) -> list[Completion]:
    """Greedy replies; after worked examples only up to the next question."""
    replies = complete(
        model,
        tokenizer,
        prompts,
        max_new_tokens=cap(tokenizer, REPLY),
        batch_size=64,  # worked examples make long prompts
        chat=way == "chat",
    )
    if way == "few-shot":
        return [cut_after_answer(reply) for reply in replies]
    return replies


def test_questions(n: int) -> list[Example]:
    """n questions about facts that pretraining states often, and about subjects whose
    questions are never trained on."""
    world = tasks.default_world()
    subjects = set(world.subjects()) - tasks.trained_subjects()
    return tasks.world_questions(world, subjects, seed=TEST_SEED, n=n)


def names_answer(right: Sequence[str], text: str) -> bool:
    """Whether the first sentence of a reply names one of the right answers, wherever
    in it: an answer in the wrong form is still an answer."""
    words = f" {_bare_words(answers.first_answer(text))} "
    return any(f" {_bare_words(answer)} " in words for answer in right)


def _bare_words(text: str) -> str:
    kept = (letter if letter.isalnum() or letter in "-'" else " " for letter in text)
    return " ".join("".join(kept).lower().split())
