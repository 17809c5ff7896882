"""The runs of notebook 09: each stage of the road on each seed, and what the policy it
leads to is like.

A stage's policy is looked at in its own arm, so that no model has to be kept.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from alignlab.chapters.a_real_model import exams, reviews, training
from alignlab.evaluation.diversity import per_input_diversity
from alignlab.models.base import evaluation_mode, load_base
from alignlab.models.sampler import Completion, complete
from alignlab.models.text import encode_prompt, pad_right, pad_token_id
from alignlab.objectives.policy import entropy_of, kl_of
from alignlab.seeds import stream
from alignlab.study.arms import run_groups
from alignlab.training.ppo.policy_value import completion_logits
from alignlab.training.sft import finetune

START, SFT, DPO = "as it comes", "SFT", "DPO"
STAGES = (START, SFT, *training.METHODS, DPO)
# What is kept of a training: of PPO and RLOO for each update, of DPO for each step.
LOGGED = ("score", "kl_exact", "entropy", "completion_length", "eos_rate", "loss")
LOGGED += ("rewards/margins", "rewards/accuracies", "log_probs/chosen")
REFUSING = {"refusals alone": False, "with answers": True}
REAL = 100  # real sentences that put scores on the raters' scale
GROUP = 8  # replies whose logits are kept at once: 8 x 24 x 49,152 numbers


# --- The arms -------------------------------------------------------------------------


def stage_arm(
    *,
    stage: str,
    seed: int,
    base: str,
    sft_steps: int,
    n_pairs: int,
    updates: int,
    n_prompts: int,
    n_replies: int,
    n_questions: int,
    n_requests: int,
    xstest: str,
) -> dict:
    """One stage of the road, and a look at the policy that it ends with.

    Args:
        stage: one of ``STAGES``.
        seed: draws all that is random, but for the base model.
        base: see :func:`alignlab.models.base.load_base`.
        sft_steps, n_pairs, updates: see :mod:`training`.
        n_prompts, n_replies: held-out requests for a sentence, and replies to each.
        n_questions, n_requests: of each set of :mod:`exams`; 0 leaves them out.
        xstest: a folder with XSTest, or "" to leave it out.

    Returns:
        What :func:`look` gives, ``history`` of the training, and ``questions`` and
        ``requests``, see :mod:`exams`, which are empty where there are none.
    """
    if stage == START:
        policy, tokenizer = load_base(base)
    else:
        policy, tokenizer = training.tuned(base, seed, sft_steps)
    history: list[dict] = []
    reward = None  # not in memory before it is needed
    if stage in training.METHODS:
        reward = training.reward_score(base, seed, n_pairs)
        policy, history = training.optimise(
            policy, tokenizer, reward, seed, stage, updates
        )
    elif stage == DPO:
        policy, history = training.prefer(policy, tokenizer, seed, n_pairs)
    reward = reward or training.reward_score(base, seed, n_pairs)
    return {
        **look(policy, tokenizer, reward, seed, n_prompts, n_replies),
        "history": {
            name: [row[name] for row in history if name in row]
            for name in LOGGED
            if any(name in row for row in history)
        },
        "questions": exams.answer_questions(policy, tokenizer, n_questions, seed),
        "requests": exams.answer_requests(policy, tokenizer, n_requests, seed, xstest),
    }


def reward_arm(*, seed: int, base: str, n_pairs: int, n_test: int) -> dict:
    """How often scores have the order of the held-out raters, on pairs of sentences
    that no training was about: ``reward_model``, ``judge``, ``length``, ``one_rater``
    and ``panel``, which is ten people or so together."""
    parts = reviews.draw_parts(seed)
    pairs = reviews.comparisons(parts.test, n_test, stream(seed, "test pairs"))
    scores = {
        "reward_model": training.reward_score(base, seed, n_pairs),
        "judge": reviews.fit_judge(parts.others),
        "length": reviews.count_words,
    }
    accuracies = {
        name: reviews.in_order(pairs, reviews.differences(score, pairs))
        for name, score in scores.items()
    }
    accuracies["one_rater"] = reviews.in_order(pairs, np.ones(len(pairs)))
    accuracies["panel"] = reviews.in_order(pairs, [pair["panel"] for pair in pairs])
    return accuracies


def refusal_arm(
    *,
    kind: str,
    seed: int,
    base: str,
    n_refused: int,
    steps: int,
    n_requests: int,
    xstest: str,
) -> dict:
    """SFT on refusals, and ``requests``, what becomes of real ones afterwards.

    Args:
        kind: a key of ``REFUSING``: whether harmless questions of like form are
            answered among the examples.
        n_refused: harmful questions in the examples.
        steps: of ``BATCH`` examples with refusals alone; twice as many with answers,
            so that every refusal is seen as often.
    """
    model, tokenizer = load_base(base)
    policy = training.with_adapters(model, seed)
    finetune(
        policy,
        tokenizer,
        exams.refusal_examples(n_refused, seed, answered=REFUSING[kind]),
        steps=steps * (2 if REFUSING[kind] else 1),
        batch_size=training.BATCH,
        learning_rate=training.SFT_RATE,
        seed=seed,
        progress=False,
    )
    return {
        "requests": exams.answer_requests(policy, tokenizer, n_requests, seed, xstest)
    }


# --- A look at a policy ---------------------------------------------------------------


def look(
    policy, tokenizer, reward: reviews.Score, seed: int, n_prompts: int, n_replies: int
) -> dict:
    """What a policy writes when it is asked for sentences with certain words.

    Returns:
        At [prompt][reply]: ``texts``; ``proxies`` and ``judges``, their scores by the
        reward model and by the held-out judge, see :func:`on_raters_scale`; ``obeyed``,
        whether they have the word; ``words``; and ``ended``. ``asked``, the words.
        ``kl`` to the policy that the adapters were put on, in nats a reply, and
        ``entropy`` in nats a token, both None without adapters. ``diversity`` of the
        replies to each prompt.
    """
    parts = reviews.draw_parts(seed)
    order = stream(seed, "requests to look at").permutation(len(parts.test))
    asked = [parts.test[i].word for i in order[:n_prompts]]
    real = [parts.test[i] for i in order[n_prompts : n_prompts + REAL]]
    prompts = [reviews.request(word) for word in asked for _ in range(n_replies)]
    replies = complete(
        policy,
        tokenizer,
        prompts,
        training.MAX_NEW_TOKENS,
        training.TEMPERATURE,
        seed,
        batch_size=32,
    )
    texts = [reply.text for reply in replies]
    tokens = [[r.tokens for r in row] for row in in_rows(replies, n_replies)]
    values = {
        "texts": texts,
        "proxies": on_raters_scale(reward, texts, real),
        "judges": on_raters_scale(reviews.fit_judge(parts.others), texts, real),
        "words": [len(text.split()) for text in texts],
        "ended": [reply.ended for reply in replies],
    }
    columns = {name: in_rows(list(row), n_replies) for name, row in values.items()}
    columns["obeyed"] = [
        [reviews.obeys(word, text) for text in row]
        for word, row in zip(asked, columns["texts"], strict=True)
    ]
    kl, spread = None, None
    if hasattr(policy, "disable_adapter"):
        kl, spread = kl_and_entropy(policy, tokenizer, prompts, replies)
    diversity = per_input_diversity(tokens, len(tokenizer))
    return dict(asked=asked, kl=kl, entropy=spread, **columns) | {
        "diversity": float(np.nanmean(diversity))
    }


def in_rows(values: Sequence, width: int) -> list[list]:
    """A flat list as rows of ``width``."""
    return [list(values[i : i + width]) for i in range(0, len(values), width)]


def on_raters_scale(
    score: reviews.Score, texts: Sequence[str], real: Sequence[reviews.Rated]
) -> list[float]:
    """The ratings from -4 to 4 that scores of texts promise, if a point of score means
    what it means for real sentences: a straight line through those and their mean
    ratings. A score that knows little of people promises little."""
    scores = score([sentence.text for sentence in real])
    means = [np.mean(sentence.ratings + sentence.held_out) for sentence in real]
    return np.polyval(np.polyfit(scores, means, 1), score(texts)).tolist()


@torch.no_grad()
def kl_and_entropy(
    policy, tokenizer, prompts: Sequence, replies: Sequence[Completion]
) -> tuple[float, float]:
    """KL of a reply to the policy without its adapters, entropy of a token, in nats.

    The whole distribution of every token enters; only the replies are a sample.
    """
    ids = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    kls, entropies, count = 0.0, 0.0, 0
    for start in range(0, len(ids), GROUP):
        rows = list(zip(ids, [r.tokens for r in replies]))[start : start + GROUP]
        whole, _ = pad_right([[*p, *t] for p, t in rows], pad_token_id(tokenizer))
        mask, _ = pad_right([[0] * len(p) + [1] * len(t) for p, t in rows], 0)
        inputs = whole.to(policy.device), F.pad(mask[:, 1:].bool(), (0, 1))
        with evaluation_mode(policy):
            log_p = _log_probs(policy, inputs)
            with policy.disable_adapter():
                log_q = _log_probs(policy, inputs)
        kls += kl_of(log_p, log_q).sum().item()
        entropies += entropy_of(log_p).sum().item()
        count += len(log_p)
    return kls / len(ids), entropies / count


def _log_probs(policy, inputs: tuple) -> torch.Tensor:
    """Of every token's whole distribution, at the temperature that samples."""
    logits, _ = completion_logits(policy, *inputs)
    return (logits.float() / training.TEMPERATURE).log_softmax(-1)


# --- All of them ----------------------------------------------------------------------


def run_all(
    *,
    seeds: Sequence[int],
    jobs: int,
    reward: dict,
    stage: dict,
    refusal: dict,
    n_questions: int,
) -> dict[str, list[dict]]:
    """Every arm of the notebook, ``jobs`` at a time. Reward models and SFT come first,
    since the other stages wait for them.

    Args:
        reward, stage, refusal: arguments of the three kinds of arms.
        n_questions: of each set, for the model as it comes; those after training are
            asked as many as ``stage`` says, the first ones of the same.

    Returns:
        By the name of a stage, of a kind of ``REFUSING``, or "reward": a row a seed.
    """
    exams_of = {
        START: dict(n_questions=n_questions),
        "RLOO": dict(n_questions=0, n_requests=0),  # PPO stands for both
    }
    first = [(reward_arm, dict(seed=s, **reward)) for s in seeds]
    calls = {
        name: [
            (
                stage_arm,
                {**stage, **exams_of.get(name, {}), "stage": name, "seed": seed},
            )
            for seed in seeds
        ]
        for name in STAGES
    } | {
        kind: [(refusal_arm, dict(kind=kind, seed=s, **refusal)) for s in seeds]
        for kind in REFUSING
    }
    soon = {"reward": first, SFT: calls.pop(SFT)}
    longest = {name: calls[name] for name in (*training.METHODS, DPO, START, *REFUSING)}
    return {
        **run_groups(soon, jobs=jobs, label="reward models and SFT"),
        **run_groups(longest, jobs=jobs, label="the other stages"),
    }
