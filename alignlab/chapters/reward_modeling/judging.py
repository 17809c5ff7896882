"""Is judging easier than writing? The policy as author and as judge of its own wrong
answers, and its own likelihood in place of a reward."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from alignlab.chapters.reward_modeling.runs import TEST_REPLIES, replies
from alignlab.evaluation import answers
from alignlab.models.positions import completion_log_probs
from alignlab.models.sampler import complete
from alignlab.seeds import stream
from alignlab.study import artifacts
from alignlab.study.arms import run_each
from alignlab.study.scale import cap
from alignlab.study.tuning import TEST_SEED
from alignlab.training import sft
from alignlab.world import tasks
from alignlab.world.facts import normalise
from alignlab.world.tasks import Example

ANSWER_TOKENS = 24  # of an answer, at most


def author_arm(*, n: int, samples: int, seed: int, **policy) -> dict:
    """The policy as author and as judge of answers to the same questions.

    As author it answers greedily. As judge it is shown the right answer and a wrong one
    of its own, and prefers the likelier.

    Args:
        n: questions of :func:`shown_questions`, and of :func:`unknowable_questions`.
        samples: answers to each question, at temperature 1, that a wrong one is taken
            from; more find one where the policy is seldom wrong.
        seed: draws the questions and the answers.
        policy: base, steps and reference_seed of the reference policy.

    Returns:
        ``author`` and ``judge``, accuracies; ``unknowable``, the judge's where nobody
        can know; ``chance``, the accuracy of an author who knows nothing and always
        makes the best guess for the relation (of a judge it is one half); ``own``, the
        share of the questions to which the policy gave a wrong answer itself.
    """
    policy, tokenizer = artifacts.reference_policy(
        policy["base"], policy["steps"], seed=policy["reference_seed"]
    )
    questions = shown_questions(n, seed)
    prompts = [question.prompt for question in questions]
    written = complete(
        policy, tokenizer, prompts, max_new_tokens=cap(tokenizer, ANSWER_TOKENS)
    )
    judged = partial(judge, policy, tokenizer, samples=samples, seed=seed)
    right, own = judged(questions)
    unknowable, _ = judged(unknowable_questions(n, seed))
    facts = [question.fact for question in questions]
    return {
        "author": float(np.mean(answers.score(questions, written)["correct"])),
        "judge": float(np.mean(right)),
        "unknowable": float(np.mean(unknowable)),
        "chance": answers.best_guess_rate(tasks.default_world(), facts),
        "own": float(np.mean(own)),
    }


def judge(
    policy, tokenizer, questions: Sequence[Example], *, samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Whether the policy finds the right answer likelier than a wrong one of its own,
    and whether it had one, (n,) bool each."""
    prompts = [question.prompt for question in questions]
    sampled = complete(
        policy,
        tokenizer,
        [prompt for prompt in prompts for _ in range(samples)],
        max_new_tokens=cap(tokenizer, ANSWER_TOKENS),
        temperature=1.0,
        seed=seed,
    )
    texts = [
        [c.text for c in sampled[start : start + samples] if c.ended]
        for start in range(0, len(sampled), samples)
    ]
    wrong, own = wrong_answers(questions, texts, stream(seed, "wrong answers"))
    right = [question.completion for question in questions]
    likelihoods = (
        np.nansum(log_probs(policy, tokenizer, prompts, given), axis=1)
        for given in (right, wrong)
    )
    return np.greater(*likelihoods), np.array(own)


def shown_questions(n: int, seed: int) -> list[Example]:
    """n questions about subjects that tuning never asks about: half on facts that
    pretraining showed often, half on those it showed rarely."""
    world = tasks.default_world()
    untrained = set(world.subjects()) - tasks.trained_subjects()
    questions = partial(tasks.world_questions, world, untrained, seed=TEST_SEED + seed)
    rare = questions(facts="rare", n=n // 2)
    return questions(facts="known", n=n - len(rare)) + rare


def unknowable_questions(n: int, seed: int) -> list[Example]:
    """At most n questions on facts that pretraining never showed."""
    world = tasks.default_world()
    untrained = set(world.subjects()) - tasks.trained_subjects()
    return tasks.world_questions(
        world, untrained, facts="never", seed=TEST_SEED + seed, n=n
    )


def wrong_answers(
    questions: Sequence[Example],
    sampled: Sequence[Sequence[str]],
    rng: np.random.Generator,
) -> tuple[list[str], list[bool]]:
    """A wrong answer to each question, and whether it is one that was sampled.

    Of the wrong ones that were sampled, one is drawn: frequent ones come often. Where
    all were right, it is the answer of another fact of the same relation; left out,
    these questions would make the judge look worse than it is.
    """
    chosen, own = [], []
    for question, texts in zip(questions, sampled, strict=True):
        wrong = [t for t in texts if t and not answers.is_correct(question, t)]
        own.append(bool(wrong))
        pool = wrong or other_answers(question)
        chosen.append(pool[rng.integers(len(pool))])
    return chosen, own


def other_answers(question: Example) -> list[str]:
    """The wrong answers among those of all facts of the question's relation, once for
    each fact, so that frequent ones are as frequent."""
    right = {normalise(answer) for answer in question.answers}
    related = (
        fact.stated[0]
        for fact in tasks.default_world().facts
        if fact.relation == question.fact.relation and fact.stated
    )
    return [f"{answer}." for answer in related if normalise(answer) not in right]


def likelihood_arm(*, seed: int, **policy) -> dict:
    """The policy's log-probability of each of its own test replies, in place of a
    reward: ``rewards``, in nats. The seed names the row."""
    model, tokenizer = artifacts.reference_policy(
        policy["base"], policy["steps"], seed=policy["reference_seed"]
    )
    candidates = replies("test", TEST_REPLIES, **policy)
    prompts = [c.prompt for c in candidates for _ in c.replies]
    texts = [reply.text for c in candidates for reply in c.replies]
    total = np.nansum(log_probs(model, tokenizer, prompts, texts), axis=1)
    return {"rewards": total.reshape(len(candidates), TEST_REPLIES).tolist()}


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
    chains: Sequence[dict], *, n: int, samples: int, jobs: int = 2, **common
) -> tuple[list[dict], list[dict]]:
    """Rows of :func:`author_arm` and of :func:`likelihood_arm` on every chain."""
    asked = dict(n=n, samples=samples, **common)
    calls = [(author_arm, asked | link) for link in chains]
    calls += [(likelihood_arm, common | link) for link in chains]
    rows = run_each(calls, jobs=jobs, label="author and judge")
    return rows[: len(chains)], rows[len(chains) :]
