"""The arms of notebook 03: reward models from comparisons of one kind or another.

An arm gives the reward of every reply about subjects that no comparison is about; what
these rewards are worth is worked out in ``reward_analysis``, without training anything.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from alignlab.chapters.reward_modeling import raters
from alignlab.evaluation import answers
from alignlab.models.likelihood import completion_log_probs
from alignlab.models.reward import reward_model_from, score
from alignlab.models.sampler import complete
from alignlab.study import artifacts as alignment
from alignlab.study.arms import run_arms, run_each
from alignlab.training import sft
from alignlab.training.reward import train_reward_model
from alignlab.world import comparisons as preferences
from alignlab.world import tasks
from alignlab.world.comparisons import Annotator, Candidates, Row, gold_order_accuracy
from alignlab.world.facts import normalise

TEMPERATURE = 1.0  # in gold: its annotators miss the gold order in one pair of six
LENGTH_BIAS = 0.1  # in gold per word: ten words are worth about a courtesy to them
BATCH = 32  # pairs in a batch
TOSSED = 0.5  # of the labels flipped: they say nothing
TESTED = 8  # replies to each test request, to judge every reward model on
TEST_SEED = 7919  # what is asked of every arm; seeds vary the training

Score = Callable[[Sequence[str]], np.ndarray]


def learn(
    examples: Sequence[Row],
    *,
    seed: int,
    size: str,
    steps: int,
    epochs: int = 1,
    batch_size: int = BATCH,
    **options,
):
    """A reward model on the reference policy's trunk: ``(model, tokenizer)``.

    The recipe of ``alignment.reward_model``, for comparisons of any kind.

    Args:
        examples: pairs or rankings.
        seed: of the head and of the order.
        size, steps: of the reference policy.
        epochs: passes over the examples; more fit the labels more closely.
        batch_size: comparisons in a batch.
        options: further arguments of ``train_reward_model``.
    """
    policy, tokenizer = alignment.reference_policy(size, steps)
    model = reward_model_from(policy, seed)
    train_reward_model(
        model,
        tokenizer,
        examples,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=alignment.REWARD_RATE[size],
        seed=seed,
        progress=False,
        **options,
    )
    return model, tokenizer


def unseen_rewards(model, tokenizer, *, size: str, steps: int) -> list:
    """The reward of every reply to the test requests, at [subject][reply]."""
    some = alignment.candidates("test", TESTED, size=size, steps=steps)
    return alignment.score_candidates(model, tokenizer, some).tolist()


# --- How much of it, and how noisy ----------------------------------------------------


def comparisons_arm(
    *, n: int, flips: float, seed: int, k: int, size: str, steps: int
) -> dict:
    """A reward model from n comparisons of which a share is wrong: its ``rewards``.

    Args:
        n: comparisons of training subjects.
        flips: rate of wrong labels; 0.5 says nothing at all.
        seed: draws the comparisons, their labels, the head and the order.
        k: replies of each training subject that they are drawn from.
        size, steps: of the reference policy.
    """
    policy = dict(size=size, steps=steps)
    if flips == alignment.FLIPS:  # the series' own, which later notebooks need too
        learnt = alignment.reward_model(n, k=k, seed=seed, **policy)
    else:
        some = alignment.candidates("train", k, **policy)
        pairs = alignment.comparisons(some, n, flips=flips, seed=seed)
        learnt = learn(pairs, seed=seed, **policy)
    return {"rewards": unseen_rewards(*learnt, **policy)}


def tossed_arm(*, n: int, places: Sequence[int], k: int, size: str, steps: int) -> dict:
    """The control: reward models from tossed coins, and their gold-order ``accuracy``.

    By luck a single one agrees with gold in much more or much less than half of the
    pairs. So each has a twin, with the same head and the same comparisons, of which
    every coin fell the other way: also tossed, and what luck gives to one it mostly
    takes from the other (antithetic variates). What is no luck stays in their mean.

    Args:
        n: comparisons of each model.
        places: which twins; each have n comparisons, labels and a head of their own.
        k, size, steps: as for :func:`comparisons_arm`.

    Returns:
        In ``accuracy`` the mean of the two, for each place.

    Raises:
        ValueError: if there are too few comparisons for twins of their own each.
    """
    policy = dict(size=size, steps=steps)
    some = alignment.candidates("train", k, **policy)
    pairs = alignment.comparisons(some, n * (max(places) + 1), flips=TOSSED)
    rng = np.random.default_rng(TEST_SEED)
    tested, _ = preferences.make_pairs(
        alignment.candidates("test", TESTED, **policy),
        Annotator(0.0),
        rng,
        per_prompt=1,
    )
    prompts = [pair["prompt"] for pair in tested]
    accuracy = []
    for place in places:
        own = pairs[n * place : n * (place + 1)]
        twins = []
        for labelled in (own, turned_round(own)):
            reward = partial(score, *learn(labelled, seed=place, **policy), prompts)
            twins.append(gold_order_accuracy(tested, between(reward, tested)))
        accuracy.append(float(np.mean(twins)))
    return {"accuracy": accuracy}


def turned_round(pairs: Sequence[Row]) -> list[Row]:
    """The texts of the pairs with every label the other way."""
    return [
        {"prompt": p["prompt"], "chosen": p["rejected"], "rejected": p["chosen"]}
        for p in pairs
    ]


def accuracy_sweep(
    *,
    seeds: Sequence[int],
    ns: Sequence[int],
    noise: Sequence[float],
    n_noise: int,
    noise_seeds: Sequence[int],
    n_tossed: int,
    tossed: int,
    jobs: int = 2,
    **common,
) -> tuple[list[dict], list[float]]:
    """Over n at the usual noise, and over the noise at ``n_noise``: one row an arm; and
    the mean accuracies of ``tossed`` control twins of ``n_tossed`` comparisons."""
    cells = [(n, alignment.FLIPS, s) for n in ns for s in seeds]
    cells += [(n_noise, flips, s) for flips in noise for s in noise_seeds]
    cells = sorted(dict.fromkeys(cells), key=lambda cell: -cell[0])  # the longest first
    calls = [
        (comparisons_arm, dict(n=n, flips=flips, seed=s, **common))
        for n, flips, s in cells
    ]
    blocks = np.array_split(np.arange(tossed), -(-tossed // 6))
    calls += [
        (tossed_arm, dict(n=n_tossed, places=block.tolist(), **common))
        for block in blocks
    ]
    rows = run_each(calls, jobs=jobs, label="comparisons")
    control = [value for row in rows[len(cells) :] for value in row["accuracy"]]
    return rows[: len(cells)], control


# --- Rankings against pairs -----------------------------------------------------------


def ranking_arm(
    *,
    kind: str,
    n: int,
    group: int,
    seed: int,
    k: int,
    size: str,
    steps: int,
) -> dict:
    """A reward model from n groups of replies, labelled in one of four ways.

    Args:
        kind: "pairs" compares the replies of a group two and two, each once;
            "rankings" ranks them, learnt by Plackett–Luce; "all pairs" the same
            rankings by InstructGPT's loss; "one by one" has every two of a group
            judged on their own, which is read (group - 1) times as much.
        n: groups; all kinds but the last read n * group replies, and all have the
            same replies in a batch.
        group: replies in a group, an even number.
        seed: draws groups, labels, head and order.
        k, size, steps: as for :func:`comparisons_arm`.

    Returns:
        ``rewards``; ``read``, replies read by the labeller, and ``comparisons``, the
        pairs that the labels put in order.
    """
    policy = dict(size=size, steps=steps)
    groups = in_groups(alignment.candidates("train", k, **policy), group, n, seed)
    examples, options = labelled(kind, groups, np.random.default_rng([seed, 33]))
    model, tokenizer = learn(examples, seed=seed, **policy, **options)
    orders = group * (group - 1) // 2
    pairs = n * (group // 2 if kind == "pairs" else orders)
    return {
        "rewards": unseen_rewards(model, tokenizer, **policy),
        "read": 2 * pairs if kind == "one by one" else n * group,
        "comparisons": pairs,
    }


RANKING_KINDS = ("rankings", "pairs", "all pairs", "one by one")


def in_groups(
    some: Sequence[Candidates], group: int, n: int, seed: int
) -> list[Candidates]:
    """n groups of different whole replies to one request; no reply is in two of them.

    Raises:
        ValueError: if the replies make fewer than n.
    """
    groups = []
    for one in some:
        replies = list({r.text: r for r in one.replies if r.ended}.values())
        starts = range(0, len(replies) - group + 1, group)
        groups += [replace(one, replies=tuple(replies[i : i + group])) for i in starts]
    if len(groups) < n:
        raise ValueError(f"n is {n}, and the replies make {len(groups)} of {group}")
    order = np.random.default_rng([seed, 32]).permutation(len(groups))
    return [groups[i] for i in order[:n]]


def labelled(
    kind: str, groups: Sequence[Candidates], rng: np.random.Generator
) -> tuple[list[Row], dict]:
    """What the annotator makes of the groups, and how to learn from it."""
    annotator, group = Annotator(TEMPERATURE), len(groups[0].replies)
    if kind in ("rankings", "all pairs"):
        rankings, _ = preferences.make_rankings(groups, annotator, rng, group)
        loss = "plackett_luce" if kind == "rankings" else "all_pairs"
        return rankings, dict(batch_size=2 * BATCH // group, ranking_loss=loss)
    if kind == "pairs":
        groups = [
            replace(one, replies=one.replies[i : i + 2])
            for one in groups
            for i in range(0, group, 2)
        ]
    elif kind != "one by one":
        raise ValueError(f"kind is {kind!r}; it can be one of {RANKING_KINDS}")
    pairs, _ = preferences.make_pairs(groups, annotator, rng)
    return [pairs[i] for i in rng.permutation(len(pairs))], {}


def ranking_sweep(
    *, seeds: Sequence[int], costly_seeds: Sequence[int], jobs: int = 2, **common
) -> list[dict]:
    """Rankings and pairs with all seeds, the two other kinds with some of them."""
    arms = [
        dict(kind=kind, seed=seed, **common)
        for kind in reversed(RANKING_KINDS)
        for seed in (seeds if kind in ("rankings", "pairs") else costly_seeds)
    ]
    return run_arms(ranking_arm, arms, jobs=jobs, label="rankings and pairs")


# --- An annotator who likes length ----------------------------------------------------


def length_arm(
    *, kind: str, n: int, bias: float, seed: int, k: int, size: str, steps: int
) -> dict:
    """A reward model from annotators who may favour length: its ``rewards``.

    Args:
        kind: "unbiased" annotators; "biased" ones, of the same pairs and with the same
            coins; "equal lengths": the biased ones, but only pairs that differ by one
            word at most, in which the bias has nothing to speak of.
        bias: gold per word that the biased annotator gives for length.
        n, seed, k, size, steps: as for :func:`comparisons_arm`.
    """
    policy = dict(size=size, steps=steps)
    pairs = length_pairs(kind, n, bias=bias, seed=seed, k=k, **policy)
    learnt = learn(pairs, seed=seed, **policy)
    return {"rewards": unseen_rewards(*learnt, **policy)}


LENGTH_KINDS = ("unbiased", "biased", "equal lengths")


def length_pairs(
    kind: str, n: int | None, *, bias: float, seed: int, k: int, size: str, steps: int
) -> list[Row]:
    """What :func:`length_arm` learns from; n None takes all pairs there are.

    Raises:
        ValueError: on an unknown kind, or if there are fewer than n pairs.
    """
    if kind not in LENGTH_KINDS:
        raise ValueError(f"kind is {kind!r}; it can be one of {LENGTH_KINDS}")
    some = alignment.candidates("train", k, size=size, steps=steps)
    annotator = Annotator(TEMPERATURE, length_bias=0.0 if kind == "unbiased" else bias)
    pairs = alignment.comparisons(some, None, seed=seed, annotator=annotator)
    if kind == "equal lengths":
        pairs = [pair for pair in pairs if abs(more_words(pair)) <= 1]
    if n is not None and len(pairs) < n:
        raise ValueError(f"n is {n}, and there are {len(pairs)} pairs of {kind}")
    return pairs[:n]


def more_words(pair: Row) -> int:
    """How many words longer the chosen reply is than the rejected one."""
    return len(pair["chosen"].split()) - len(pair["rejected"].split())


def length_sweep(*, seeds: Sequence[int], jobs: int = 2, **common) -> list[dict]:
    """Every kind of :func:`length_arm` with every seed."""
    arms = [dict(kind=kind, seed=s, **common) for kind in LENGTH_KINDS for s in seeds]
    return run_arms(length_arm, arms, jobs=jobs, label="length bias")


# --- Controls without a network -------------------------------------------------------


def bag_of_words(pairs: Sequence[Row], seed: int = 0) -> Score:
    """A reward that only counts words: Bradley–Terry by logistic regression.

    The penalty is chosen by cross-validation within the pairs.

    Args:
        pairs: to learn from.
        seed: which reply of each pair is called the first.
    """
    words = CountVectorizer(token_pattern=r"\w+|[^\w\s]")
    words.fit([pair[side] for pair in pairs for side in ("chosen", "rejected")])
    return _linear(words.transform, pairs, seed)


def length_only(pairs: Sequence[Row], seed: int = 0) -> Score:
    """A reward that only counts how many words there are."""
    return _linear(
        lambda texts: np.array([[len(text.split())] for text in texts], float),
        pairs,
        seed,
    )


def _linear(features: Callable, pairs: Sequence[Row], seed: int) -> Score:
    # Which of the two comes first is tossed: logistic regression wants both outcomes,
    # and a pair and its mirror image must not be on two sides of a cross-validation.
    wins = np.random.default_rng(seed).integers(2, size=len(pairs))
    sides = [("rejected", "chosen"), ("chosen", "rejected")]
    first, second = (
        features([pair[sides[won][place]] for pair, won in zip(pairs, wins)])
        for place in (0, 1)
    )
    search = GridSearchCV(
        LogisticRegression(fit_intercept=False, max_iter=500),
        {"C": np.logspace(-4, 1, 6)},
        scoring="neg_log_loss",
    )
    weights = search.fit(first - second, wins).best_estimator_.coef_[0]
    return lambda texts: features(texts) @ weights


def control_arm(*, kind: str, n: int, seed: int, k: int, size: str, steps: int) -> dict:
    """A "bag of words" or "length only", from the very comparisons of
    :func:`comparisons_arm` at the usual noise: its ``rewards``."""
    policy = dict(size=size, steps=steps)
    pairs = alignment.comparisons(
        alignment.candidates("train", k, **policy), n, seed=seed
    )
    reward = CONTROLS[kind](pairs, seed)
    tested = alignment.candidates("test", TESTED, **policy)
    return {
        "rewards": [reward([r.text for r in one.replies]).tolist() for one in tested]
    }


CONTROLS = {"bag of words": bag_of_words, "length only": length_only}


def control_sweep(*, seeds: Sequence[int], jobs: int = 2, **common) -> list[dict]:
    """Both controls with every seed."""
    arms = [dict(kind=kind, seed=s, **common) for kind in CONTROLS for s in seeds]
    return run_arms(control_arm, arms, jobs=jobs, label="controls")


# --- Real raters ----------------------------------------------------------------------


def rater_arm(
    *, domain: str, n: int, n_test: int, seed: int, size: str, steps: int
) -> dict:
    """A reward model from what people said of texts, asked about texts of each domain.

    Args:
        domain: to learn from, one of ``raters.DOMAINS``.
        n: comparisons to ask for; those in which both people gave the same score are
            no comparison.
        n_test: the same for the test texts of each domain, the same for all arms.
        seed: draws the comparisons, the head and the order.
        size, steps: of the reference policy.

    Returns:
        ``kept`` comparisons, and in ``accuracy`` for each domain how often the order of
        the held-out raters' means was found by the ``reward_model``, by the
        ``bag_of_words``, by ``one_rater`` and by the ``panel``.
    """
    rng = np.random.default_rng([seed, 34])
    pairs, _ = raters.rated_pairs(raters.load_rated(domain, "train"), n, rng)
    model, tokenizer = learn(pairs, seed=seed, size=size, steps=steps)
    counted = bag_of_words(pairs, seed)
    accuracy = {}
    for name in raters.DOMAINS:
        tested = rated_test_pairs(name, n_test)
        read = partial(_read, model, tokenizer)
        accuracy[name] = {
            "reward_model": gold_order_accuracy(tested, between(read, tested)),
            "bag_of_words": gold_order_accuracy(tested, between(counted, tested)),
            "one_rater": raters.rater_agreement(tested),
            "panel": raters.panel_agreement(tested),
        }
    return {"kept": len(pairs), "accuracy": accuracy}


def _read(model, tokenizer, texts: Sequence[str]) -> np.ndarray:
    return score(model, tokenizer, [raters.PROMPT] * len(texts), texts)


def rated_test_pairs(domain: str, n: int) -> list[Row]:
    """Comparisons of test texts, the same ones for every arm."""
    texts = raters.load_rated(domain, "test")
    return raters.rated_pairs(texts, n, np.random.default_rng(TEST_SEED))[0]


def between(score: Score, pairs: Sequence[Row]) -> np.ndarray:
    """Score of each pair's chosen text minus that of its rejected one."""
    chosen, rejected = (
        score([pair[side] for pair in pairs]) for side in ("chosen", "rejected")
    )
    return chosen - rejected


def rater_sweep(
    *, domains: Sequence[str], seeds: Sequence[int], jobs: int = 2, **common
) -> list[dict]:
    """:func:`rater_arm` with every seed, learnt on each of the domains."""
    arms = [dict(domain=d, seed=s, **common) for d in domains for s in seeds]
    return run_arms(rater_arm, arms, jobs=jobs, label="real raters")


# --- Author and judge -----------------------------------------------------------------


def author_arm(*, n: int, seed: int, size: str, steps: int) -> dict:
    """The policy as author and as judge of answers to the same questions.

    As author it answers; as judge it is shown a right answer and a wrong one, another
    fact's of the same kind, and prefers the likelier.

    Args:
        n: questions, about facts that pretraining showed and whose subjects were never
            asked about in tuning.
        seed: draws them, and the wrong answers.
        size, steps: of the reference policy.

    Returns:
        ``author`` and ``judge``, shares that are right; ``chance``, how often an author
        without knowledge is right: the best guess for each kind of fact. A judge
        without knowledge is right half of the time.
    """
    policy, tokenizer = alignment.reference_policy(size, steps)
    questions = shown_questions(n, seed)
    prompts = [question.prompt for question in questions]
    said = complete(policy, tokenizer, prompts, max_new_tokens=24)
    right, wrong = (
        np.nansum(log_probs(policy, tokenizer, prompts, texts), axis=1)
        for texts in zip(*two_answers(questions, seed), strict=True)
    )
    world = tasks.default_world()
    guesses = {
        name: answers.guess_baselines(world, name)["best"]
        for name in {question.fact.relation for question in questions}
    }
    return {
        "author": float(np.mean(answers.score(questions, said)["correct"])),
        "judge": float(np.mean(right > wrong)),
        "chance": float(np.mean([guesses[q.fact.relation] for q in questions])),
    }


def shown_questions(n: int, seed: int) -> list:
    """n questions, half about facts that pretraining showed often and half about those
    that it showed seldom, of subjects that tuning never asks about."""
    world = tasks.default_world()
    untrained = set(world.subjects()) - tasks.trained_subjects()
    asked = partial(tasks.world_questions, world, untrained, seed=TEST_SEED + seed)
    rare = asked(facts="rare", n=n // 2)
    return asked(facts="known", n=n - len(rare)) + rare


def two_answers(questions: Sequence, seed: int) -> list[list[str]]:
    """For each question its right answer and a wrong one: that of another fact of the
    same relation, so that who only knows which answers are frequent is at chance."""
    rng = np.random.default_rng([seed, 35])
    facts = tasks.default_world().facts
    options = []
    for question in questions:
        right = {normalise(answer) for answer in question.answers}
        alike = [f for f in facts if f.relation == question.fact.relation and f.stated]
        wrong = [f.stated[0] for f in alike if normalise(f.stated[0]) not in right]
        options.append([question.completion, f"{wrong[rng.integers(len(wrong))]}."])
    return options


def likelihood_arm(*, size: str, steps: int) -> dict:
    """How likely the policy finds each of its own test replies, in place of a reward:
    ``rewards``, log-probabilities in nats, and ``per_token``, their means."""
    policy, tokenizer = alignment.reference_policy(size, steps)
    some = alignment.candidates("test", TESTED, size=size, steps=steps)
    prompts = [one.prompt for one in some for _ in one.replies]
    texts = [reply.text for one in some for reply in one.replies]
    found = log_probs(policy, tokenizer, prompts, texts)  # (N, T)
    total, tokens = np.nansum(found, axis=1), np.isfinite(found).sum(axis=1)
    shape = len(some), TESTED
    return {
        "rewards": total.reshape(shape).tolist(),
        "per_token": (total / tokens).reshape(shape).tolist(),
    }


@torch.no_grad()
def log_probs(
    policy, tokenizer, prompts: Sequence[str], texts: Sequence[str]
) -> np.ndarray:
    """Log-probability of each token of each reply and of its end, (N, T), in nats; NaN
    beyond them."""
    examples = [dict(prompt=p, completion=t) for p, t in zip(prompts, texts)]
    batch = sft.collate(sft.encode(tokenizer, examples), tokenizer.pad_token_id)
    batch = {name: value.to(policy.device) for name, value in batch.items()}
    parts = zip(*(batch[name].split(256) for name in batch), strict=True)
    found = torch.cat(
        [completion_log_probs(policy, *part) for part in parts]  # (256, T-1)
    )
    asked = batch["mask"][:, 1:].bool()
    return found.masked_fill(~asked, math.nan).double().cpu().numpy()


def judging_sweep(
    *, seeds: Sequence[int], n: int, size: str, steps: int, jobs: int = 2
) -> tuple[list[dict], dict]:
    """Rows of :func:`author_arm`, one a seed, and that of :func:`likelihood_arm`."""
    policy = dict(size=size, steps=steps)
    calls = [(likelihood_arm, policy)]
    calls += [(author_arm, dict(n=n, seed=seed, **policy)) for seed in seeds]
    likelihood, *rows = run_each(calls, jobs=jobs, label="author and judge")
    return rows, likelihood
