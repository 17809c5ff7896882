"""The experiments of notebook 01: which arms each one trains, and with which seeds."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from alignlab.chapters.instruction_tuning import mid_training, self_instruct, transfer
from alignlab.chapters.instruction_tuning.artifacts import (
    instruction_arm,
    questions_about,
)
from alignlab.chapters.instruction_tuning.transfer import (
    draw_families,
    draw_large_family,
    mask_arm,
    transfer_arm,
    untuned_choices_arm,
)
from alignlab.models.base import load_base, pretraining_seeds
from alignlab.seeds import stream
from alignlab.study.arms import is_remembered, run_arms
from alignlab.study.tuning import TEST_SEED, judge, reply, tune
from alignlab.world import tasks
from alignlab.world.facts import split_subjects
from alignlab.world.tasks import Example

# --- Instruction tuning with one thing changed ----------------------------------------


def sweep_losses(*, seeds, base, n_examples, steps, n_test, jobs=2) -> list[dict]:
    """The loss on the reply alone, on everything, and on both in equal parts."""
    common = dict(base=base, n_examples=n_examples, steps=steps, n_test=n_test)
    arms = [
        dict(seed=seed, loss_on=loss_on, **common)
        for seed in seeds
        for loss_on in transfer.LOSSES
    ]
    return run_arms(mask_arm, arms, jobs=jobs, label="where the loss goes")


def sweep_mixtures(
    *, seeds, base, schemes, n_examples, steps, n_test, jobs=2
) -> list[dict]:
    """All trained families under each scheme of sampling weights."""
    common = dict(base=base, n_examples=n_examples, steps=steps, n_test=n_test)
    arms = [dict(seed=s, weights=w, **common) for s in seeds for w in schemes]
    return run_arms(instruction_arm, arms, jobs=jobs, label="mixture weights")


# --- What carries over to other families and wordings ---------------------------------


def sweep_diversity(
    *, seeds, base, ks, n_examples, steps, n_test, jobs=2
) -> list[dict]:
    """The same number of examples from k families, drawn by the seed.

    Returns:
        The arms' rows, each with its number of families ``k``.
    """
    common = dict(base=base, n_examples=n_examples, steps=steps, n_test=n_test)
    arms = [
        dict(seed=s, families=draw_families(k, s), weights="equal", **common)
        for s in seeds
        for k in ks
    ]
    rows = run_arms(transfer_arm, arms, jobs=jobs, label=f"number of tasks, {base}")
    return [{**row, "k": len(row["families"])} for row in rows]


def sweep_volume(*, seeds, base, ns, steps, n_test, jobs=2) -> list[dict]:
    """Control of the number of families: one large family, drawn by the seed, with so
    many examples."""
    common = dict(base=base, steps=steps, n_test=n_test, weights="equal")
    arms = [
        dict(seed=s, families=[draw_large_family(s, max(ns))], n_examples=n, **common)
        for s in seeds
        for n in ns
    ]
    return run_arms(transfer_arm, arms, jobs=jobs, label="one large task")


def sweep_mixed(
    *, seeds, base, n_examples, steps, n_test, n_wording_test, jobs=2
) -> list[dict]:
    """SFT on all trained families: options of the held-out families, and of the trained
    ones in every wording."""
    common = dict(base=base, n_examples=n_examples, steps=steps, n_test=n_test)
    common |= dict(families=None, weights="capped", n_wording_test=n_wording_test)
    arms = [dict(seed=seed, **common) for seed in seeds]
    return run_arms(transfer_arm, arms, jobs=jobs, label="all training tasks")


def sweep_untuned(*, seeds, base, shots, n_test, n_wording_test, jobs=2) -> list[dict]:
    """The base models, bare and after worked examples. For the bare questions nothing
    but pretraining changes with the seed, so each model answers once."""
    shipped = len(pretraining_seeds(base))
    common = dict(base=base, n_test=n_test)
    bare = dict(shots=0, n_wording_test=n_wording_test, **common)
    arms = [dict(seed=s, **bare) for s in sorted({s % shipped for s in seeds})]
    arms += [dict(seed=s, shots=shots, **common) for s in seeds]
    rows = run_arms(untuned_choices_arm, arms, jobs=jobs, label="the base model")
    by_model = {row["seed"]: row for row in rows if not row["shots"]}
    few_shot = [row for row in rows if row["shots"]]
    return [{**by_model[s % shipped], "seed": s} for s in seeds] + few_shot


# --- How few examples teach the format ------------------------------------------------


def few_examples_arm(
    *, seed: int, base: str, n: int, steps: int, shuffled: bool, n_test: int
) -> dict:
    """SFT on n questions about half of the world's subjects, then questions about the
    other half.

    Args:
        seed: draws the n questions.
        base: the model to start from, see ``models.base.base_path``.
        n: examples; with 0 the base model is asked as it is, through the chat template.
        steps: updates, the same for every n, so that only the data differ.
        shuffled: control: shuffle the completions within each relation.
        n_test: questions about known facts of the other half.

    Returns:
        ``accuracy`` and ``format``.
    """
    world = tasks.default_world()
    first, second = split_subjects(world, 0)
    if n:
        examples = questions_about(world, first, n, seed)
        if shuffled:
            examples = shuffle_completions(examples, seed)
        model, tokenizer = tune(
            examples, base=base, steps=steps, seed=seed, teaches="facts"
        )
    else:
        model, tokenizer = load_base(base)
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


def sweep_few_examples(*, seeds, base, ns, steps, n_test, jobs=2) -> list[dict]:
    """Every n for every seed, and the shuffled control at the largest n."""
    common = dict(base=base, steps=steps, n_test=n_test)
    arms = [dict(seed=s, n=n, shuffled=False, **common) for s in seeds for n in ns]
    arms += [dict(seed=s, n=max(ns), shuffled=True, **common) for s in seeds]
    return run_arms(few_examples_arm, arms, jobs=jobs, label="format from n examples")


# --- Generated instructions, and mid-training -----------------------------------------


def sweep_self_instruct(
    *,
    seeds,
    base,
    n_seeds,
    n_generated,
    generator_steps,
    steps,
    n_test,
    jobs=2,
) -> list[dict]:
    """SFT on seed questions and on what each kind of source adds to them."""
    common = dict(base=base, n_seeds=n_seeds, n_generated=n_generated, steps=steps)
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
    *, seeds, base, decay_steps, n_questions, n_documents, jobs=2
) -> list[dict]:
    """Instructions within the learning-rate decay, and in a stage after it."""
    common = dict(base=base, decay_steps=decay_steps, n_questions=n_questions)
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
        mid_training.text_rows(load_base(base)[1], n_documents)
    return run_arms(run, arms, jobs=jobs, label="mid-training")
