"""Is judging easier than writing? The policy as author and judge of the same answers,
and its own likelihood in place of a reward."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from alignlab.chapters.reward_modeling.runs import TEST_REPLIES
from alignlab.evaluation import answers
from alignlab.models.positions import completion_log_probs
from alignlab.models.sampler import complete
from alignlab.seeds import stream
from alignlab.study import artifacts
from alignlab.study.arms import run_each
from alignlab.study.tuning import TEST_SEED
from alignlab.training import sft
from alignlab.world import tasks
from alignlab.world.facts import normalise


def author_arm(*, n: int, seed: int, size: str, steps: int) -> dict:
    """The policy as author and as judge of answers to the same questions.

    As author it answers. As judge it is shown a right answer and a wrong one, taken
    from another fact of the same relation, and prefers the likelier.

    Args:
        n: questions, see :func:`shown_questions`.
        seed: draws the questions and the wrong answers.
        size, steps: of the reference policy.

    Returns:
        ``author`` and ``judge``, accuracies; ``chance``, the accuracy of an author who
        knows nothing and always makes the best guess for the relation. A judge who
        knows nothing has an accuracy of one half.
    """
    policy, tokenizer = artifacts.reference_policy(size, steps)
    questions = shown_questions(n, seed)
    prompts = [question.prompt for question in questions]
    replies = complete(policy, tokenizer, prompts, max_new_tokens=24)
    right, wrong = (
        np.nansum(log_probs(policy, tokenizer, prompts, texts), axis=1)
        for texts in zip(*right_and_wrong(questions, seed), strict=True)
    )
    facts = [question.fact for question in questions]
    return {
        "author": float(np.mean(answers.score(questions, replies)["correct"])),
        "judge": float(np.mean(right > wrong)),
        "chance": answers.best_guess_rate(tasks.default_world(), facts),
    }


def shown_questions(n: int, seed: int) -> list:
    """n questions about subjects that tuning never asks about: half on facts that
    pretraining showed often, half on those it showed rarely."""
    world = tasks.default_world()
    untrained = set(world.subjects()) - tasks.trained_subjects()
    questions = partial(tasks.world_questions, world, untrained, seed=TEST_SEED + seed)
    rare = questions(facts="rare", n=n // 2)
    return questions(facts="known", n=n - len(rare)) + rare


def right_and_wrong(questions: Sequence, seed: int) -> list[list[str]]:
    """For each question the right answer and a wrong one. The wrong one is that of a
    random fact of the same relation, so frequent answers give nothing away."""
    rng = stream(seed, "wrong answers")
    facts = tasks.default_world().facts
    pairs = []
    for question in questions:
        right = {normalise(answer) for answer in question.answers}
        related = [
            f for f in facts if f.relation == question.fact.relation and f.stated
        ]
        wrong = [f.stated[0] for f in related if normalise(f.stated[0]) not in right]
        pairs.append([question.completion, f"{wrong[rng.integers(len(wrong))]}."])
    return pairs


def likelihood_arm(*, size: str, steps: int) -> dict:
    """The policy's log-probability of each of its own test replies, in place of a
    reward: ``rewards``, in nats, and ``per_token``, the mean over tokens."""
    policy, tokenizer = artifacts.reference_policy(size, steps)
    candidates = artifacts.candidates("test", TEST_REPLIES, size=size, steps=steps)
    prompts = [c.prompt for c in candidates for _ in c.replies]
    texts = [reply.text for c in candidates for reply in c.replies]
    by_token = log_probs(policy, tokenizer, prompts, texts)  # (N, T)
    total, tokens = np.nansum(by_token, axis=1), np.isfinite(by_token).sum(axis=1)
    shape = len(candidates), TEST_REPLIES
    return {
        "rewards": total.reshape(shape).tolist(),
        "per_token": (total / tokens).reshape(shape).tolist(),
    }


@torch.no_grad()
def log_probs(
    policy, tokenizer, prompts: Sequence[str], texts: Sequence[str]
) -> np.ndarray:
    """Log-probability in nats of each token of each reply, its EOS token included,
    (N, T); NaN elsewhere."""
    examples = [dict(prompt=p, completion=t) for p, t in zip(prompts, texts)]
    batch = sft.collate(sft.encode(tokenizer, examples), tokenizer.pad_token_id)
    batch = {name: value.to(policy.device) for name, value in batch.items()}
    parts = zip(*(batch[name].split(256) for name in batch), strict=True)
    values = torch.cat([completion_log_probs(policy, *part) for part in parts])
    completion = batch["mask"][:, 1:].bool()
    return values.masked_fill(~completion, float("nan")).double().cpu().numpy()


def sweep(
    *, seeds: Sequence[int], n: int, size: str, steps: int, jobs: int = 2
) -> tuple[list[dict], dict]:
    """Rows of :func:`author_arm`, one for each seed, and the row of
    :func:`likelihood_arm`."""
    policy = dict(size=size, steps=steps)
    calls = [(likelihood_arm, policy)]
    calls += [(author_arm, dict(n=n, seed=seed, **policy)) for seed in seeds]
    likelihood, *rows = run_each(calls, jobs=jobs, label="author and judge")
    return rows, likelihood
