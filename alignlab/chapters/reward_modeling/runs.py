"""The arms of notebook 03 on the world's comparisons: how many, how noisy, rankings or
pairs, and labels biased towards length. ``raters`` and ``judging`` hold the others.

An arm returns the rewards of replies about unseen subjects; ``analysis`` does the rest.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from alignlab.models.reward import reward_model_from, score
from alignlab.seeds import stream
from alignlab.study import artifacts
from alignlab.study.arms import run_arms, run_each
from alignlab.study.tuning import TEST_SEED
from alignlab.training.reward import train_reward_model
from alignlab.world import comparisons as preferences
from alignlab.world.annotators import Annotator
from alignlab.world.ceilings import gold_order_accuracy
from alignlab.world.comparisons import Candidates, Row

TEMPERATURE = 1.0  # in gold; such annotators contradict the gold order in 1 pair of 6
LENGTH_BIAS = 0.1  # in gold per word: ten more words count about as much as a courtesy
BATCH = 32  # pairs
TOSSED = 0.5  # rate of wrong labels at which they carry no information
TEST_REPLIES = 8  # to each test request, the same ones for every reward model

Score = Callable[[Sequence[str]], np.ndarray]


def train_from_reference(
    examples: Sequence[Row],
    *,
    seed: int,
    size: str,
    steps: int,
    epochs: int = 1,
    batch_size: int = BATCH,
    **options,
):
    """A reward model trained from the reference policy: ``(model, tokenizer)``.

    The recipe is that of ``artifacts.reward_model``, for comparisons of any kind.

    Args:
        examples: pairs or rankings.
        seed: of the head and of the order of the examples.
        size, steps: of the reference policy.
        epochs: passes over the examples; more fit the labels more closely.
        batch_size: comparisons in a batch.
        options: further arguments of ``train_reward_model``.
    """
    policy, tokenizer = artifacts.reference_policy(size, steps)
    model = reward_model_from(policy, seed)
    train_reward_model(
        model,
        tokenizer,
        examples,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=artifacts.REWARD_RATE[size],
        seed=seed,
        progress=False,
        **options,
    )
    return model, tokenizer


def held_out_rewards(model, tokenizer, *, size: str, steps: int) -> list:
    """Rewards of the replies to the test requests, at [subject][reply]."""
    replies = artifacts.candidates("test", TEST_REPLIES, size=size, steps=steps)
    return artifacts.score_candidates(model, tokenizer, replies).tolist()


# --- How many comparisons, and how noisy ----------------------------------------------


def comparisons_arm(
    *, n: int, flips: float, seed: int, k: int, size: str, steps: int
) -> dict:
    """A reward model from n noisy comparisons: its ``rewards``, see
    :func:`held_out_rewards`.

    Args:
        n: comparisons of training subjects.
        flips: rate of wrong labels; 0.5 carries no information.
        seed: draws the comparisons, their labels, the head and the order.
        k: replies to each training request that they are drawn from.
        size, steps: of the reference policy.
    """
    policy = dict(size=size, steps=steps)
    if flips == artifacts.FLIPS:  # the model that later notebooks use too
        reward_model = artifacts.reward_model(n, k=k, seed=seed, **policy)
    else:
        replies = artifacts.candidates("train", k, **policy)
        pairs = artifacts.comparisons(replies, n, flips=flips, seed=seed)
        reward_model = train_from_reference(pairs, seed=seed, **policy)
    return {"rewards": held_out_rewards(*reward_model, **policy)}


def tossed_arm(*, n: int, places: Sequence[int], k: int, size: str, steps: int) -> dict:
    """The control: gold-order ``accuracy`` of reward models trained on tossed coins.

    By chance alone, one such model can be far above or below one half. So each has a
    twin with the same head and the same comparisons but every label reversed, and the
    mean of the two is taken: chance mostly cancels (antithetic variates), while a leak
    of gold into training would remain.

    Args:
        n: comparisons for each pair of twins.
        places: which twins to train. Each have comparisons and a head of their own.
        k, size, steps: as for :func:`comparisons_arm`.

    Returns:
        ``accuracy``, the mean over the twins at each place.

    Raises:
        ValueError: if there are too few comparisons.
    """
    policy = dict(size=size, steps=steps)
    replies = artifacts.candidates("train", k, **policy)
    pairs = artifacts.comparisons(replies, n * (max(places) + 1), flips=TOSSED)
    rng = stream(TEST_SEED, "test pairs")
    test_pairs, _ = preferences.make_pairs(
        artifacts.candidates("test", TEST_REPLIES, **policy),
        Annotator(0.0),
        rng,
        per_prompt=1,
    )
    prompts = [pair["prompt"] for pair in test_pairs]
    accuracy = []
    for place in places:
        own = pairs[n * place : n * (place + 1)]
        twins = []
        for labelled in (own, reverse_labels(own)):
            reward_model = train_from_reference(labelled, seed=place, **policy)
            reward = partial(score, *reward_model, prompts)
            differences = reward_differences(reward, test_pairs)
            twins.append(gold_order_accuracy(test_pairs, differences))
        accuracy.append(float(np.mean(twins)))
    return {"accuracy": accuracy}


def reverse_labels(pairs: Sequence[Row]) -> list[Row]:
    """The pairs with chosen and rejected exchanged."""
    return [
        {"prompt": p["prompt"], "chosen": p["rejected"], "rejected": p["chosen"]}
        for p in pairs
    ]


def reward_differences(score: Score, pairs: Sequence[Row]) -> np.ndarray:
    """Score of each pair's chosen text minus that of its rejected one."""
    chosen, rejected = (
        score([pair[side] for pair in pairs]) for side in ("chosen", "rejected")
    )
    return chosen - rejected


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
    """Rows of :func:`comparisons_arm` for each n at the usual noise, and for each rate
    of noise at ``n_noise``; and the accuracies of ``tossed`` twins, each trained on
    ``n_tossed`` comparisons (:func:`tossed_arm`)."""
    cells = [(n, artifacts.FLIPS, s) for n in ns for s in seeds]
    cells += [(n_noise, flips, s) for flips in noise for s in noise_seeds]
    cells = sorted(dict.fromkeys(cells), key=lambda cell: -cell[0])  # longest first
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
        kind: "pairs" splits a group into pairs, so that each reply is compared once;
            "rankings" ranks the group and trains with Plackett–Luce; "all pairs" trains
            on the same rankings with InstructGPT's loss; "one by one" compares every
            two replies of a group separately, which takes (group - 1) times the
            reading.
        n: groups. All kinds see the same replies, with as many in a batch.
        group: replies in a group, an even number.
        seed: draws groups, labels, head and order.
        k, size, steps: as for :func:`comparisons_arm`.

    Returns:
        ``rewards``, see :func:`held_out_rewards`; ``read``, replies that annotators
        read; ``comparisons``, pairs of replies that the labels put in order.
    """
    policy = dict(size=size, steps=steps)
    groups = in_groups(artifacts.candidates("train", k, **policy), group, n, seed)
    examples, options = label_groups(kind, groups, stream(seed, "labelled groups"))
    reward_model = train_from_reference(examples, seed=seed, **policy, **options)
    in_group = group * (group - 1) // 2
    pairs = n * (group // 2 if kind == "pairs" else in_group)
    return {
        "rewards": held_out_rewards(*reward_model, **policy),
        "read": 2 * pairs if kind == "one by one" else n * group,
        "comparisons": pairs,
    }


RANKING_KINDS = ("rankings", "pairs", "all pairs", "one by one")


def in_groups(
    candidates: Sequence[Candidates], group: int, n: int, seed: int
) -> list[Candidates]:
    """n groups of distinct replies that ended by themselves, each group to one request.
    No reply is in two groups.

    Raises:
        ValueError: if the replies make fewer than n groups.
    """
    groups = []
    for of_request in candidates:
        replies = list({r.text: r for r in of_request.replies if r.ended}.values())
        groups += [
            replace(of_request, replies=tuple(replies[i : i + group]))
            for i in range(0, len(replies) - group + 1, group)
        ]
    if len(groups) < n:
        raise ValueError(f"n is {n}, and the replies make {len(groups)} of {group}")
    order = stream(seed, "order of groups").permutation(len(groups))
    return [groups[i] for i in order[:n]]


def label_groups(
    kind: str, groups: Sequence[Candidates], rng: np.random.Generator
) -> tuple[list[Row], dict]:
    """Examples that the annotator makes of the groups, and options to train on them."""
    annotator, group = Annotator(TEMPERATURE), len(groups[0].replies)
    if kind in ("rankings", "all pairs"):
        rankings, _ = preferences.make_rankings(groups, annotator, rng, group)
        loss = "plackett_luce" if kind == "rankings" else "all_pairs"
        return rankings, dict(batch_size=2 * BATCH // group, ranking_loss=loss)
    if kind == "pairs":
        groups = [
            replace(of_request, replies=of_request.replies[i : i + 2])
            for of_request in groups
            for i in range(0, group, 2)
        ]
    elif kind != "one by one":
        raise ValueError(f"kind is {kind!r}; it can be one of {RANKING_KINDS}")
    pairs, _ = preferences.make_pairs(groups, annotator, rng)
    return [pairs[i] for i in rng.permutation(len(pairs))], {}


def ranking_sweep(
    *, seeds: Sequence[int], costly_seeds: Sequence[int], jobs: int = 2, **common
) -> list[dict]:
    """Rankings and pairs with all seeds, the other two kinds with ``costly_seeds``."""
    arms = [
        dict(kind=kind, seed=seed, **common)
        for kind in reversed(RANKING_KINDS)
        for seed in (seeds if kind in ("rankings", "pairs") else costly_seeds)
    ]
    return run_arms(ranking_arm, arms, jobs=jobs, label="rankings and pairs")


# --- Annotators biased towards length -------------------------------------------------


def length_arm(
    *, kind: str, n: int, bias: float, seed: int, k: int, size: str, steps: int
) -> dict:
    """A reward model from annotators who may favour length: its ``rewards``, see
    :func:`held_out_rewards`.

    Args:
        kind: "unbiased" annotators; "biased" ones, on the same pairs with the same
            random numbers; "equal lengths", biased ones on pairs that differ by at most
            one word, which leaves the bias little to act on.
        bias: in gold per word; higher favours longer replies more.
        n, seed, k, size, steps: as for :func:`comparisons_arm`.
    """
    policy = dict(size=size, steps=steps)
    pairs = length_pairs(kind, n, bias=bias, seed=seed, k=k, **policy)
    reward_model = train_from_reference(pairs, seed=seed, **policy)
    return {"rewards": held_out_rewards(*reward_model, **policy)}


LENGTH_KINDS = ("unbiased", "biased", "equal lengths")


def length_pairs(
    kind: str, n: int | None, *, bias: float, seed: int, k: int, size: str, steps: int
) -> list[Row]:
    """The pairs that :func:`length_arm` trains on; n None returns all there are.

    Raises:
        ValueError: on an unknown kind, or if there are fewer than n pairs.
    """
    if kind not in LENGTH_KINDS:
        raise ValueError(f"kind is {kind!r}; it can be one of {LENGTH_KINDS}")
    replies = artifacts.candidates("train", k, size=size, steps=steps)
    annotator = Annotator(TEMPERATURE, length_bias=0.0 if kind == "unbiased" else bias)
    pairs = artifacts.comparisons(replies, None, seed=seed, annotator=annotator)
    if kind == "equal lengths":
        pairs = [pair for pair in pairs if abs(extra_words(pair)) <= 1]
    if n is not None and len(pairs) < n:
        raise ValueError(f"n is {n}, and there are {len(pairs)} pairs of {kind}")
    return pairs[:n]


def extra_words(pair: Row) -> int:
    """Words of the chosen reply minus those of the rejected one."""
    return len(pair["chosen"].split()) - len(pair["rejected"].split())


def length_sweep(*, seeds: Sequence[int], jobs: int = 2, **common) -> list[dict]:
    """Every kind of :func:`length_arm` with every seed."""
    arms = [dict(kind=kind, seed=s, **common) for kind in LENGTH_KINDS for s in seeds]
    return run_arms(length_arm, arms, jobs=jobs, label="length bias")


# --- Controls without a network -------------------------------------------------------


def bag_of_words(pairs: Sequence[Row], seed: int = 0) -> Score:
    """A reward that is linear in word counts: Bradley–Terry by logistic regression, its
    penalty chosen by cross-validation.

    Args:
        pairs: to train on.
        seed: draws which reply of each pair comes first.
    """
    words = CountVectorizer(token_pattern=r"\w+|[^\w\s]")
    words.fit([pair[side] for pair in pairs for side in ("chosen", "rejected")])
    return _linear(words.transform, pairs, seed)


def length_only(pairs: Sequence[Row], seed: int = 0) -> Score:
    """A reward that is linear in the number of words; see :func:`bag_of_words`."""
    return _linear(
        lambda texts: np.array([[len(text.split())] for text in texts], float),
        pairs,
        seed,
    )


def _linear(features: Callable, pairs: Sequence[Row], seed: int) -> Score:
    # Which text comes first is random: logistic regression needs both outcomes, and
    # adding each pair's mirror image would leak across the folds.
    wins = stream(seed, "first of a pair").integers(2, size=len(pairs))
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
    """A reward of ``CONTROLS``, fitted to the comparisons that :func:`comparisons_arm`
    trains on at the usual noise: its ``rewards``, see :func:`held_out_rewards`."""
    policy = dict(size=size, steps=steps)
    pairs = artifacts.comparisons(
        artifacts.candidates("train", k, **policy), n, seed=seed
    )
    reward = CONTROLS[kind](pairs, seed)
    texts = [
        [reply.text for reply in of_request.replies]
        for of_request in artifacts.candidates("test", TEST_REPLIES, **policy)
    ]
    return {"rewards": [reward(replies).tolist() for replies in texts]}


CONTROLS = {"bag of words": bag_of_words, "length only": length_only}


def control_sweep(*, seeds: Sequence[int], jobs: int = 2, **common) -> list[dict]:
    """Both controls with every seed."""
    arms = [dict(kind=kind, seed=s, **common) for kind in CONTROLS for s in seeds]
    return run_arms(control_arm, arms, jobs=jobs, label="controls")
