"""The sweeps of notebook 01: what instruction tuning teaches, from how much of what.

Almost every arm is the same run with one thing changed (``instruction_arm``): the
loss, the weights of the mixture, the number of families, the size of the model. So
arms are shared between questions, and each is trained once.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np

from alignlab.evaluation import answers
from alignlab.models.base import load_base
from alignlab.models.sampler import complete
from alignlab.study.arms import run_arms
from alignlab.study.tuning import (
    BATCH,
    FACTS_RATE,
    accuracy_by_family,
    judge,
    reply,
    sft_policy,
    tune,
)
from alignlab.world import tasks
from alignlab.world.facts import build_world, split_subjects

TEST_SEED = 7919  # test questions are the same for every arm; seeds vary the training


# --- One arm: a mixture, learnt, and asked back ------------------------------------


def instruction_arm(
    *,
    seed: int,
    size: str = "1m",
    n_examples: int = 4096,
    steps: int = 200,
    weights: str = "capped",
    families: Sequence[str] | None = None,
    loss_on: str = "completion",
    n_test: int = 20,
) -> dict:
    """SFT on a mixture of task families, then test questions of *every* family.

    Args:
        seed: of the mixture and its order.
        size: of the base model.
        n_examples: examples in all, however many families they come from.
        steps: updates of 16 examples; equal in all arms that are compared.
        weights: scheme of the mixture's weights (``data.tasks.mixture_weights``).
        families: which to train on; by default all that are not held out.
        loss_on: "completion", or "all" for the whole sequence.
        n_test: questions for each family.

    Returns:
        ``by_family`` accuracies, their means over the ``trained`` and the ``held_out``
        families of the series (whatever this arm was trained on), and ``format``, the
        share of well-formed replies over all of them.
    """
    recipe = dict(size=size, steps=steps, seed=seed)
    if families is None and loss_on == "completion":  # the series' SFT policy
        model, tokenizer = sft_policy(n_examples=n_examples, weights=weights, **recipe)
    else:
        mixed = tasks.mixture(n_examples, families=families, weights=weights, seed=seed)
        model, tokenizer = tune(mixed, loss_on=loss_on, **recipe)
    questions = test_questions(n_test)
    return summary(questions, reply(model, tokenizer, questions))


def untuned_arm(*, seed: int, size: str = "1m", shots: int = 0, n_test: int = 20):
    """The base model on the same questions, as plain text: bare, or after ``shots``
    worked examples of the same family (the seed draws them)."""
    model, tokenizer = load_base(size)
    questions = test_questions(n_test)
    prompts = [plain_prompt(tokenizer, q, shots, seed) for q in questions]
    # With worked examples prompts are long: batches as usual would fill a gigabyte.
    replies = complete(
        model, tokenizer, prompts, max_new_tokens=24, batch_size=64, chat=False
    )
    return summary(
        questions, [cut_after_answer(r) for r in replies] if shots else replies
    )


def plain_prompt(tokenizer, question, shots: int, seed: int) -> str:
    """How a base model is asked: the bare instruction, or worked examples first."""
    if not shots:
        return question.prompt
    pool = tasks.examples(question.family, shots, split="train", seed=seed)
    return answers.few_shot_prompt(pool, question, len(pool), tokenizer=tokenizer)


def cut_after_answer(completion):
    """A few-shot reply up to where it goes on to the next question. To end there counts
    as ending: the examples showed the model no other way."""
    text = answers.first_answer(completion.text)
    ended = completion.ended or text != completion.text
    return replace(completion, text=text, ended=ended)


def test_questions(n: int) -> list:
    """n test questions of every family, the same ones whatever was trained."""
    return [
        example
        for family in tasks.FAMILIES
        for example in tasks.examples(family, n, split="test", seed=TEST_SEED)
    ]


def summary(questions, replies) -> dict:
    """Accuracy by family, over the trained and the held-out ones, and format."""
    by_family = accuracy_by_family(questions, replies)
    return {
        "by_family": by_family,
        "trained": mean_over(by_family, tasks.trained_families()),
        "held_out": mean_over(by_family, tasks.held_out_families()),
        "format": judge(questions, replies)["format"],
    }


def mean_over(by_family: dict[str, float], families: Sequence[str]) -> float:
    """Mean over families, each counting the same whatever its size."""
    return float(np.mean([by_family[name] for name in families]))


# --- How few examples teach the format ---------------------------------------------


def few_examples_arm(
    *, seed: int, size: str, n: int, steps: int, shuffled: bool = False, n_test: int
) -> dict:
    """SFT on n questions about one half of the world's subjects, asked of the other.

    Args:
        seed: draws the n questions.
        n: examples; 0 leaves the base model as it is, asked as a chat.
        steps: updates, the same for every n, so that only the data differ.
        shuffled: the control: replies go to other prompts of the same relation.
        n_test: questions about known facts of the other half.
    """
    world = build_world(0)
    first, second = split_subjects(world, 0)
    if n:
        examples = questions_about(world, first, n, seed)
        if shuffled:
            examples = shuffle_replies(examples, seed)
        model, tokenizer = tune(
            examples, size=size, steps=steps, seed=seed, rates=FACTS_RATE
        )
    else:
        model, tokenizer = load_base(size)
    questions = tasks.world_questions(world, second, seed=TEST_SEED, n=n_test)
    return judge(questions, reply(model, tokenizer, questions))


def questions_about(world, subjects, n: int, seed: int) -> list:
    """n questions about known facts: each fact once, then again in another wording."""
    questions: list = []
    while len(questions) < n:
        epoch = len(questions) + seed
        questions += tasks.world_questions(world, subjects, seed=epoch)
    return questions[:n]


def shuffle_replies(examples: list, seed: int) -> list:
    """The same prompts with each other's completions, within each family: the form of
    an answer stays, its truth goes."""
    rng = np.random.default_rng([seed, 8])
    families = np.array([e.family for e in examples])
    shuffled = list(examples)
    for family in dict.fromkeys(families):
        places = np.flatnonzero(families == family)
        for place, source in zip(places, rng.permutation(places), strict=True):
            completion = examples[source].completion
            shuffled[place] = replace(examples[place], completion=completion)
    return shuffled


def few_examples(*, seeds, size, ns, steps, n_test, jobs=2) -> list[dict]:
    """The curve over n for every seed, and the control at the largest n."""
    common = dict(size=size, steps=steps, n_test=n_test)
    arms = [dict(seed=s, n=n, **common) for s in seeds for n in ns]
    arms += [dict(seed=s, n=max(ns), shuffled=True, **common) for s in seeds]
    return run_arms(few_examples_arm, arms, jobs=jobs, label="format from n examples")


def n_at_share(ns: Sequence[int], values: Sequence[float], share: float = 0.9) -> float:
    """Examples needed for a share of the curve's ceiling, read off between the points.

    The ceiling is the highest value; n is interpolated in log2(1 + n) where the curve
    first crosses. A curve that starts above gives its first n, at least 1.
    """
    target = share * max(values)
    places = np.log2(1 + np.asarray(ns, float))
    for i, value in enumerate(values):
        if value >= target:
            if i == 0:
                return float(max(ns[0], 1))
            part = (target - values[i - 1]) / (value - values[i - 1])
            place = places[i - 1] + part * (places[i] - places[i - 1])
            return float(max(2**place - 1, 1))
    raise ValueError(f"values={values!r} never reach {share} of their own maximum")


# --- One thing changed --------------------------------------------------------------


def drawn_families(k: int, seed: int) -> list[str]:
    """k of the trained families, drawn by the seed; a larger draw holds the smaller
    ones, so that a seed's arms differ by what was added."""
    names = list(tasks.trained_families())
    order = np.random.default_rng([seed, 9]).permutation(len(names))
    return [names[i] for i in order[:k]]


def diversity(*, seeds, sizes, ks, n_examples, steps, n_test, jobs=2) -> list[dict]:
    """The same number of examples from k families, k = 1 being the control."""
    every = len(tasks.trained_families())
    arms = []
    for size in sizes:
        for seed in seeds:
            for k in ks:
                arm = dict(seed=seed, size=size, n_examples=n_examples, steps=steps)
                arm |= dict(weights="equal", n_test=n_test)
                arm |= dict(families=drawn_families(min(k, every), seed))
                arms.append(arm)
    return run_arms(instruction_arm, arms, jobs=jobs, label="number of tasks")


def mixtures(*, seeds, size, schemes, n_examples, steps, n_test, jobs=2) -> list[dict]:
    """All trained families under each scheme of weights."""
    common = dict(size=size, n_examples=n_examples, steps=steps, n_test=n_test)
    arms = [dict(seed=s, weights=w, **common) for s in seeds for w in schemes]
    return run_arms(instruction_arm, arms, jobs=jobs, label="mixture weights")


def losses(*, seeds, size, n_examples, steps, n_test, jobs=2) -> list[dict]:
    """The loss on the completion against the loss on everything."""
    common = dict(size=size, n_examples=n_examples, steps=steps, n_test=n_test)
    arms = [dict(seed=s, **common) for s in seeds]
    arms += [dict(seed=s, loss_on="all", **common) for s in seeds]
    return run_arms(instruction_arm, arms, jobs=jobs, label="where the loss goes")


def untuned(*, seeds, size, shots, n_test, jobs=2) -> list[dict]:
    """The base model with worked examples, and bare: one run, for nothing in it is
    drawn, whose row stands for every seed."""
    common = dict(size=size, n_test=n_test)
    arms = [dict(seed=s, shots=shots, **common) for s in seeds]
    arms.append(dict(seed=seeds[0], shots=0, **common))
    *shown, bare = run_arms(untuned_arm, arms, jobs=jobs, label="the base model")
    return [{**bare, "seed": s} for s in seeds] + shown


def slope_per_doubling(ks: Sequence[int], values: Sequence[float]) -> float:
    """Least-squares slope of the values on log2 k: what twice as many tasks bring."""
    return float(np.polyfit(np.log2(ks), values, 1)[0])


def small_families(share: float = 0.5) -> tuple[str, ...]:
    """The trained families with the fewest distinct examples, ``share`` of them."""
    have = tasks.sizes()
    ordered = sorted(tasks.trained_families(), key=lambda name: have[name])
    return tuple(ordered[: round(share * len(ordered))])


def worst_family_gain(rows: Sequence[dict], one: str, other: str) -> list[float]:
    """Per seed, accuracy of the family that fares worst under one scheme of weights
    minus that of the worst under the other; only families count that some scheme gets
    right at least half of the time, over all seeds."""
    schemes = dict.fromkeys(row["weights"] for row in rows)
    mean = {
        name: max(
            np.mean([r["by_family"][name] for r in rows if r["weights"] == scheme])
            for scheme in schemes
        )
        for name in tasks.trained_families()
    }
    solved = [name for name, best in mean.items() if best >= 0.5]
    worst = {
        scheme: {
            r["seed"]: min((r["by_family"][n] for n in solved), default=0.0)
            for r in rows
            if r["weights"] == scheme
        }
        for scheme in (one, other)
    }
    return [worst[one][seed] - worst[other][seed] for seed in worst[one]]


# --- Phrasings -----------------------------------------------------------------------


def phrasing_arm(
    *, seed: int, size: str, tuned: bool, n_examples: int, steps: int, n_test: int
) -> dict:
    """Accuracy for each wording of the same questions, base or tuned.

    Args:
        seed: of the SFT, and of the questions that are asked.
        tuned: False asks the base model in plain text.
        n_test: questions per family and wording.

    Returns:
        ``by_wording``: for each trained family, accuracy of its first, second ...
        wording, the last ones never trained; and ``spread`` (see ``relative_spread``).
    """
    if tuned:
        model, tokenizer = sft_policy(
            seed, size=size, n_examples=n_examples, steps=steps
        )
    else:
        model, tokenizer = load_base(size)
    asked = in_every_wording(n_test, TEST_SEED + seed)
    questions = [q for family in asked for wording in family for q in wording]
    prompts = [q.prompt for q in questions]
    replies = complete(model, tokenizer, prompts, max_new_tokens=24, chat=tuned)
    correct = iter(answers.score(questions, replies)["correct"])
    rows = [
        [float(np.mean(list(islice(correct, len(wording))))) for wording in family]
        for family in asked
    ]
    return {"by_wording": rows, "spread": relative_spread(rows)}


def in_every_wording(n: int, seed: int) -> list[list[list]]:
    """n test questions for each wording of each trained family, at [family][wording];
    the inputs are the same in all wordings."""
    ask = partial(tasks.examples, n=n, split="test", seed=seed)
    asked = []
    for name in tasks.trained_families():
        family = tasks.FAMILIES[name]
        count = len(family.instructions + family.held_out_instructions)
        asked.append([ask(name, phrasing=number) for number in range(count)])
    return asked


def relative_spread(rows: Sequence[Sequence[float]]) -> float:
    """What is lost by not knowing the best wording: the mean over families of
    1 - mean accuracy / best accuracy. 0: any wording does; 1 - 1/k: one of k does.
    Families that no wording solves say nothing and are left out."""
    lost = [1 - np.mean(row) / max(row) for row in rows if max(row) > 0]
    return float(np.mean(lost)) if lost else 1.0


def phrasings(*, seeds, size, n_examples, steps, n_test, jobs=2) -> list[dict]:
    """Every wording, before and after instruction tuning."""
    common = dict(size=size, n_examples=n_examples, steps=steps, n_test=n_test)
    arms = [dict(seed=s, tuned=t, **common) for s in seeds for t in (False, True)]
    return run_arms(phrasing_arm, arms, jobs=jobs, label="wordings")


# --- What it elicits ------------------------------------------------------------------


def elicitation_arm(*, seed: int, size: str, steps: int, n_test: int) -> dict:
    """SFT on questions about one half of the subjects; the *other* half is asked.

    Args:
        seed: of the SFT questions and their order.
        steps: updates.
        n_test: questions of each kind at most.

    Returns:
        Accuracy on the untouched half: ``known`` facts in trained wordings,
        ``known_new_wording``, ``rare`` facts, ``never`` shown ones; ``chance``, what
        the best guess that knows only a fact's kind and its subject's spelling reaches
        on the never-shown; and ``format``.
    """
    world = build_world(0)
    first, second = split_subjects(world, 0)
    n = min(4096, steps * BATCH)  # no more than are read
    examples = questions_about(world, first, n, seed)
    model, tokenizer = tune(
        examples, size=size, steps=steps, seed=seed, rates=FACTS_RATE
    )
    asked = {
        "known": dict(facts="known"),
        "known_new_wording": dict(facts="known", phrasing="held_out"),
        "rare": dict(facts="rare"),
        "never": dict(facts="never"),
    }
    result = {}
    for name, options in asked.items():
        questions = tasks.world_questions(
            world, second, seed=TEST_SEED, n=n_test, **options
        )
        scores = judge(questions, reply(model, tokenizer, questions))
        result[name] = scores["accuracy"]
        if name == "known":
            result["format"] = scores["format"]
        if name == "never":
            result["chance"] = chance(world, questions)
    return result


def chance(world, questions) -> float:
    """Mean over the questions of the best guess for a relation: what a model reaches
    that knows the kind of answer and the subject's spelling, but no fact."""
    best = {
        r: answers.guess_baselines(world, r)["best"]
        for r in {q.fact.relation for q in questions}
    }
    return float(np.mean([best[q.fact.relation] for q in questions]))


def elicitation(*, seeds, size, steps, n_test, jobs=2) -> list[dict]:
    """The elicitation arm for every seed."""
    arms = [dict(seed=s, size=size, steps=steps, n_test=n_test) for s in seeds]
    return run_arms(elicitation_arm, arms, jobs=jobs, label="what SFT elicits")
