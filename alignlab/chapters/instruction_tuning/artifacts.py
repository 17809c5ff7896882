"""What other chapters use of this one: instruction-tuned and untuned models asked about
every task family, and what SFT elicits about subjects it never mentioned.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from alignlab.evaluation import answers
from alignlab.models.base import load_base
from alignlab.models.sampler import Completion, complete
from alignlab.study.arms import run_arms
from alignlab.study.scale import cap
from alignlab.study.tuning import (
    BATCH,
    REPLY,
    TEST_SEED,
    accuracy_by_family,
    judge,
    reply,
    sft_policy,
    tune,
)
from alignlab.world import tasks
from alignlab.world.facts import World, split_subjects
from alignlab.world.tasks import Example

# --- Questions of every task family, to a tuned and to an untuned model --------------


def instruction_arm(
    *,
    seed: int,
    base: str = "1m",
    n_examples: int = 4096,
    steps: int = 200,
    weights: str = "capped",
    families: Sequence[str] | None = None,
    loss_on: str = "completion",
    n_test: int = 20,
) -> dict:
    """SFT on a mixture of task families, then test questions from *every* family.

    Args:
        seed: draws the mixture and the order of training.
        base: the model to start from, see ``models.base.base_path``.
        n_examples: training examples in total, over all families.
        steps: updates of 16 examples; more of them fit the examples more closely.
        weights: sampling weights of the families (``tasks.mixture_weights``).
        families: which to train on; by default all but the held-out ones.
        loss_on: "completion", or "all" to learn the prompts as well.
        n_test: test questions per family.

    Returns:
        As :func:`score_by_family`.
    """
    recipe = dict(base=base, steps=steps, seed=seed)
    if families is None and loss_on == "completion":  # the series' SFT policy
        model, tokenizer = sft_policy(n_examples=n_examples, weights=weights, **recipe)
    else:
        mixed = tasks.mixture(n_examples, families=families, weights=weights, seed=seed)
        model, tokenizer = tune(mixed, loss_on=loss_on, **recipe)
    questions = test_questions(n_test)
    return score_by_family(questions, reply(model, tokenizer, questions))


def untuned_arm(
    *, seed: int, base: str = "1m", shots: int = 0, n_test: int = 20
) -> dict:
    """The same questions to the base model, as plain text.

    Args:
        seed: draws the worked examples.
        base: the model to start from, see ``models.base.base_path``.
        shots: worked examples from the same family before each question; with 0 the
            model reads the bare instruction.
        n_test: test questions per family.

    Returns:
        As :func:`score_by_family`.
    """
    model, tokenizer = load_base(base)
    questions = test_questions(n_test)
    prompts = [plain_prompt(tokenizer, q, shots, seed) for q in questions]
    # Worked examples make long prompts: batches of the usual size would fill a GB.
    longest = cap(tokenizer, REPLY)
    replies = complete(model, tokenizer, prompts, longest, batch_size=64, chat=False)
    if shots:
        replies = [cut_after_answer(completion) for completion in replies]
    return score_by_family(questions, replies)


def plain_prompt(tokenizer, question: Example, shots: int, seed: int) -> str:
    """The question as a base model reads it, after as many worked examples."""
    if not shots:
        return question.prompt
    examples = tasks.examples(question.family, shots, split="train", seed=seed)
    return answers.few_shot_prompt(examples, question, tokenizer=tokenizer)


def cut_after_answer(completion: Completion) -> Completion:
    """A few-shot reply without the next question that the model went on to write.

    Going on counts as ending: the worked examples show the model no other way to end.
    """
    text = answers.first_answer(completion.text)
    ended = completion.ended or text != completion.text
    return replace(completion, text=text, ended=ended)


def test_questions(n: int) -> list[Example]:
    """n test questions from every family, the same for every arm."""
    return [
        example
        for family in tasks.FAMILIES
        for example in tasks.examples(family, n, split="test", seed=TEST_SEED)
    ]


def score_by_family(
    questions: Sequence[Example], replies: Sequence[Completion]
) -> dict:
    """``by_family``: accuracy in each task family; ``trained`` and ``held_out``: its
    means over the series' trained and held-out families, whatever this model was
    trained on; ``format``: share of well-formed replies."""
    by_family = accuracy_by_family(questions, replies)
    return {
        "by_family": by_family,
        "trained": mean_over(by_family, tasks.trained_families()),
        "held_out": mean_over(by_family, tasks.held_out_families()),
        "format": judge(questions, replies)["format"],
    }


def mean_over(by_family: dict[str, float], families: Sequence[str]) -> float:
    """Mean accuracy over families, each with the same weight; a family of which a model
    knows nothing is not asked about, and does not count."""
    return float(np.mean([by_family[name] for name in families if name in by_family]))


# --- What SFT elicits -----------------------------------------------------------------


def elicitation_arm(*, seed: int, base: str, steps: int, n_test: int) -> dict:
    """SFT on questions about half of the world's subjects, then questions about the
    other half.

    Args:
        seed: draws the training questions and their order.
        base: the model to start from, see ``models.base.base_path``.
        steps: updates of 16 examples.
        n_test: test questions of each kind, at most.

    Returns:
        Accuracy on the other half: on ``known`` facts, on known facts in wordings that
        are never trained (``known_new_wording``), on ``rare`` and on ``never`` stated
        facts; ``chance``, the accuracy of the best guess about the never stated ones;
        and ``format`` on the known ones.
    """
    world = tasks.default_world()
    first, second = split_subjects(world, 0)
    n = min(4096, steps * BATCH)  # training reads no more
    examples = questions_about(world, first, n, seed)
    model, tokenizer = tune(
        examples, base=base, steps=steps, seed=seed, teaches="facts"
    )
    kinds = {
        "known": dict(facts="known"),
        "known_new_wording": dict(facts="known", phrasing="held_out"),
        "rare": dict(facts="rare"),
        "never": dict(facts="never"),
    }
    questions = {
        kind: tasks.world_questions(world, second, seed=TEST_SEED, n=n_test, **options)
        for kind, options in kinds.items()
    }
    scores = {
        kind: judge(group, reply(model, tokenizer, group))
        for kind, group in questions.items()
    }
    never = [question.fact for question in questions["never"]]
    return {
        **{kind: score["accuracy"] for kind, score in scores.items()},
        "format": scores["known"]["format"],
        "chance": answers.best_guess_rate(world, never),
    }


def questions_about(
    world: World, subjects: frozenset[str], n: int, seed: int
) -> list[Example]:
    """n questions about known facts: each fact once, then again in another wording."""
    questions: list[Example] = []
    while len(questions) < n:
        round_seed = len(questions) + seed
        questions += tasks.world_questions(world, subjects, seed=round_seed)
    return questions[:n]


def sweep_elicitation(*, seeds, base, steps, n_test, jobs=2) -> list[dict]:
    """The elicitation arm for every seed."""
    arms = [dict(seed=s, base=base, steps=steps, n_test=n_test) for s in seeds]
    return run_arms(elicitation_arm, arms, jobs=jobs, label="what SFT elicits")
