"""The experiments of notebook 01: which arms each one trains, and with which seeds.

Most of them run ``artifacts.instruction_arm`` with one thing changed, so that arms are
shared between experiments and trained once.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np

from alignlab.chapters.instruction_tuning import mid_training, self_instruct
from alignlab.chapters.instruction_tuning.artifacts import (
    instruction_arm,
    questions_about,
    untuned_arm,
)
from alignlab.evaluation import answers
from alignlab.models.base import load_base
from alignlab.models.sampler import complete
from alignlab.seeds import stream
from alignlab.study.arms import is_remembered, run_arms
from alignlab.study.tuning import (
    FACTS_RATE,
    TEST_SEED,
    judge,
    reply,
    sft_policy,
    tune,
)
from alignlab.world import tasks
from alignlab.world.facts import build_world, split_subjects
from alignlab.world.tasks import Example

# --- Instruction tuning with one thing changed ----------------------------------------


def sweep_losses(*, seeds, size, n_examples, steps, n_test, jobs=2) -> list[dict]:
    """The loss on the completion alone, and on prompt and completion."""
    common = dict(size=size, n_examples=n_examples, steps=steps, n_test=n_test)
    arms = [
        dict(seed=seed, loss_on=loss_on, **common)
        for loss_on in ("completion", "all")
        for seed in seeds
    ]
    return run_arms(instruction_arm, arms, jobs=jobs, label="where the loss goes")


def sweep_mixtures(
    *, seeds, size, schemes, n_examples, steps, n_test, jobs=2
) -> list[dict]:
    """All trained families under each scheme of sampling weights."""
    common = dict(size=size, n_examples=n_examples, steps=steps, n_test=n_test)
    arms = [dict(seed=s, weights=w, **common) for s in seeds for w in schemes]
    return run_arms(instruction_arm, arms, jobs=jobs, label="mixture weights")


def sweep_diversity(
    *, seeds, sizes, ks, n_examples, steps, n_test, jobs=2
) -> list[dict]:
    """The same number of examples from k families; k = 1 is the control.

    Returns:
        The arms' rows, each with its number of families ``k``.
    """
    common = dict(n_examples=n_examples, steps=steps, weights="equal", n_test=n_test)
    arms = [
        dict(seed=seed, size=size, families=draw_families(k, seed), **common)
        for size in sizes
        for seed in seeds
        for k in ks
    ]
    rows = run_arms(instruction_arm, arms, jobs=jobs, label="number of tasks")
    return [{**row, "k": len(row["families"])} for row in rows]


def draw_families(k: int, seed: int) -> list[str]:
    """k of the trained families, at most all of them. For one seed, a larger k adds
    families to those of a smaller one."""
    names = list(tasks.trained_families())
    order = stream(seed, "drawn families").permutation(len(names))
    return [names[i] for i in order[:k]]


def sweep_untuned(*, seeds, size, shots, n_test, jobs=2) -> list[dict]:
    """The base model, bare and with worked examples. Nothing is drawn for the bare
    questions, so one run stands for every seed."""
    common = dict(size=size, n_test=n_test)
    arms = [dict(seed=seed, shots=shots, **common) for seed in seeds]
    arms.append(dict(seed=seeds[0], shots=0, **common))
    *few_shot, bare = run_arms(untuned_arm, arms, jobs=jobs, label="the base model")
    return [{**bare, "seed": seed} for seed in seeds] + few_shot


# --- How few examples teach the format ------------------------------------------------


def few_examples_arm(
    *, seed: int, size: str, n: int, steps: int, shuffled: bool, n_test: int
) -> dict:
    """SFT on n questions about half of the world's subjects, then questions about the
    other half.

    Args:
        seed: draws the n questions.
        size: of the base model.
        n: examples; with 0 the base model is asked as it is, through the chat template.
        steps: updates, the same for every n, so that only the data differ.
        shuffled: control: shuffle the completions within each relation.
        n_test: questions about known facts of the other half.

    Returns:
        ``accuracy`` and ``format``.
    """
    world = build_world(0)
    first, second = split_subjects(world, 0)
    if n:
        examples = questions_about(world, first, n, seed)
        if shuffled:
            examples = shuffle_completions(examples, seed)
        model, tokenizer = tune(
            examples, size=size, steps=steps, seed=seed, rates=FACTS_RATE
        )
    else:
        model, tokenizer = load_base(size)
    questions = tasks.world_questions(world, second, seed=TEST_SEED, n=n_test)
    return judge(questions, reply(model, tokenizer, questions))


def shuffle_completions(examples: Sequence[Example], seed: int) -> list[Example]:
    """The same prompts with the completions shuffled within each family: the form of
    the answers stays, their truth is lost."""
    rng = stream(seed, "shuffled completions")
    families = np.array([e.family for e in examples])
    shuffled = list(examples)
    for family in dict.fromkeys(families):
        places = np.flatnonzero(families == family)
        for place, source in zip(places, rng.permutation(places), strict=True):
            completion = examples[source].completion
            shuffled[place] = replace(examples[place], completion=completion)
    return shuffled


def sweep_few_examples(*, seeds, size, ns, steps, n_test, jobs=2) -> list[dict]:
    """Every n for every seed, and the shuffled control at the largest n."""
    common = dict(size=size, steps=steps, n_test=n_test)
    arms = [dict(seed=s, n=n, shuffled=False, **common) for s in seeds for n in ns]
    arms += [dict(seed=s, n=max(ns), shuffled=True, **common) for s in seeds]
    return run_arms(few_examples_arm, arms, jobs=jobs, label="format from n examples")


# --- Wordings -------------------------------------------------------------------------


def wording_arm(
    *, seed: int, size: str, tuned: bool, n_examples: int, steps: int, n_test: int
) -> dict:
    """The same questions in every wording, to the base model or the tuned one.

    Args:
        seed: of the SFT and of the questions.
        size: of the base model.
        tuned: False asks the base model, in plain text.
        n_examples, steps: of the SFT.
        n_test: questions per family and wording.

    Returns:
        ``by_wording``: for each trained family the accuracy in its first, second, ...
        wording; the last ones are never trained.
    """
    if tuned:
        model, tokenizer = sft_policy(
            seed, size=size, n_examples=n_examples, steps=steps
        )
    else:
        model, tokenizer = load_base(size)
    by_family = questions_in_every_wording(n_test, TEST_SEED + seed)
    questions = [q for family in by_family for wording in family for q in wording]
    prompts = [q.prompt for q in questions]
    replies = complete(model, tokenizer, prompts, max_new_tokens=24, chat=tuned)
    correct = iter(answers.score(questions, replies)["correct"])
    accuracies = [
        [float(np.mean(list(islice(correct, len(wording))))) for wording in family]
        for family in by_family
    ]
    return {"by_wording": accuracies}


def questions_in_every_wording(n: int, seed: int) -> list[list[list[Example]]]:
    """n test questions for each wording of each trained family, at [family][wording];
    the wordings of a family ask about the same inputs."""
    draw = partial(tasks.examples, n=n, split="test", seed=seed)
    by_family = []
    for name in tasks.trained_families():
        family = tasks.FAMILIES[name]
        count = len(family.instructions + family.held_out_instructions)
        by_family.append([draw(name, phrasing=number) for number in range(count)])
    return by_family


def sweep_wordings(*, seeds, size, n_examples, steps, n_test, jobs=2) -> list[dict]:
    """Every wording, before and after instruction tuning."""
    common = dict(size=size, n_examples=n_examples, steps=steps, n_test=n_test)
    arms = [dict(seed=s, tuned=t, **common) for s in seeds for t in (False, True)]
    return run_arms(wording_arm, arms, jobs=jobs, label="wordings")


# --- Generated instructions, and mid-training -----------------------------------------


def sweep_self_instruct(
    *,
    seeds,
    size,
    n_seeds,
    n_generated,
    generator_steps,
    steps,
    n_test,
    jobs=2,
) -> list[dict]:
    """SFT on seed questions and on what each kind of source adds to them."""
    common = dict(size=size, n_seeds=n_seeds, n_generated=n_generated, steps=steps)
    common |= dict(generator_steps=generator_steps, n_test=n_test)
    # Seeds vary fastest, so that two arms at a time train two generators, not one.
    arms = [
        dict(kind=kind, seed=seed, **common)
        for kind in self_instruct.KINDS
        for seed in seeds
    ]
    run = self_instruct.self_instruct_arm
    return run_arms(run, arms, jobs=jobs, label="self-instruct")


def sweep_mid_training(
    *, seeds, size, decay_steps, n_questions, n_documents, jobs=2
) -> list[dict]:
    """Instructions within the learning-rate decay, and in a stage after it."""
    common = dict(size=size, decay_steps=decay_steps, n_questions=n_questions)
    common |= dict(n_documents=n_documents)
    # Not seed by seed: some arms wait for another arm of their seed.
    arms = [
        dict(arm=arm, seed=seed, **common)
        for arm in mid_training.ARMS
        for seed in seeds
    ]
    run = mid_training.mid_training_arm
    if not all(is_remembered(run, arm) for arm in arms):
        # Here rather than in an arm: writing the corpus leaves a process large.
        mid_training.text_rows(load_base(size, "stable")[1], n_documents)
    return run_arms(run, arms, jobs=jobs, label="mid-training")
