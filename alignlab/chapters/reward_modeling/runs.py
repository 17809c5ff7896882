"""The arms of notebook 03 on the world's comparisons: how many, how noisy, reversed,
rankings or pairs, and labels biased towards length. ``raters``, ``judging`` and
``costs`` hold the others.

An arm returns the rewards of replies about unseen subjects; ``analysis`` does the rest.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from alignlab.seeds import stream
from alignlab.study import artifacts
from alignlab.study.arms import run_arms, run_groups
from alignlab.study.scale import rate, reward_model_of
from alignlab.training.reward import train_reward_model
from alignlab.world import comparisons as preferences
from alignlab.world.annotators import Annotator
from alignlab.world.comparisons import Candidates, Row

# In gold. Two such annotators agree on 73% of the demonstrations that the reference
# imitates, as often as labellers do in Ouyang et al. (2022).
TEMPERATURE = 0.7
LENGTH_BIAS = 0.07  # in gold per word: ten more words count as much as a chance of 73%
BATCH = 32  # pairs
TEST_REPLIES = 8  # to each test request, the same ones for every reward model
DRAWS = 1000  # the n-th further draw of a seed has the seed's number plus n times this

Score = Callable[[Sequence[str]], np.ndarray]

# --- The chain that a seed stands on --------------------------------------------------


def links(seeds: Sequence[int], nested: bool) -> list[dict[str, int]]:
    """For each seed its number and that of its reference policy and replies: its own if
    seeds nest, else those of seed 0 for all, so that what is measured holds *given this
    reference*."""
    return [dict(seed=s, reference_seed=s if nested else 0) for s in seeds]


def replies(
    split: str, k: int, *, base: str, steps: int, reference_seed: int
) -> list[Candidates]:
    """k replies of a reference policy to each request of a split. Policy and sampling
    have one seed."""
    seeds = dict(seed=reference_seed, reference_seed=reference_seed)
    return artifacts.candidates(split, k, base=base, steps=steps, **seeds)


def train_from_reference(
    examples: Sequence[Row],
    *,
    seed: int,
    base: str,
    steps: int,
    reference_seed: int,
    epochs: int = 1,
    batch_size: int = BATCH,
    **options,
):
    """A reward model trained from the reference policy: ``(model, tokenizer)``.

    The recipe is that of ``artifacts.reward_model``, for comparisons of any kind.

    Args:
        examples: pairs or rankings.
        seed: of the head and of the order of the examples.
        base, steps, reference_seed: of the reference policy.
        epochs: passes over the examples; more fit the labels more closely.
        batch_size: comparisons in a batch.
        options: further arguments of ``train_reward_model``.
    """
    policy, tokenizer = artifacts.reference_policy(base, steps, seed=reference_seed)
    model = reward_model_of(policy, seed)
    train_reward_model(
        model,
        tokenizer,
        examples,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=rate("reward", base),
        seed=seed,
        progress=False,
        **options,
    )
    return model, tokenizer


def held_out_rewards(model, tokenizer, **policy) -> list:
    """Rewards of the policy's replies to the test requests, at [subject][reply]."""
    tested = replies("test", TEST_REPLIES, **policy)
    return artifacts.score_candidates(model, tokenizer, tested).tolist()


# --- How many comparisons, how noisy, and reversed ------------------------------------


def comparisons_arm(
    *,
    n: int,
    flips: float,
    seed: int,
    k: int,
    base: str,
    steps: int,
    reference_seed: int,
    draw: int = 0,
) -> dict:
    """A reward model from n noisy comparisons: its ``rewards``, see
    :func:`held_out_rewards`.

    Args:
        n: comparisons of training subjects.
        flips: rate of wrong labels.
        seed: draws the comparisons, their labels, the head and the order.
        k: replies to each training request that they are drawn from.
        base, steps, reference_seed: of the reference policy and its replies.
        draw: the number of a further draw of all that ``seed`` draws.
    """
    reward_model = artifacts.reward_model(
        n,
        k=k,
        flips=flips,
        seed=seed + DRAWS * draw,
        base=base,
        steps=steps,
        reference_seed=reference_seed,
        reply_seed=reference_seed,
    )
    policy = dict(base=base, steps=steps, reference_seed=reference_seed)
    return {"rewards": held_out_rewards(*reward_model, **policy)}


def twin_arm(*, n: int, flips: float, seed: int, k: int, **policy) -> dict:
    """The twin of :func:`comparisons_arm`'s model: the same comparisons, head and order
    with every label reversed. Its ``rewards``, see :func:`held_out_rewards`."""
    pairs = artifacts.comparisons(
        replies("train", k, **policy), n, flips=flips, seed=seed
    )
    twin = train_from_reference(reverse_labels(pairs), seed=seed, **policy)
    return {"rewards": held_out_rewards(*twin, **policy)}


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
    return np.asarray(chosen) - np.asarray(rejected)


def accuracy_sweep(
    chains: Sequence[dict],
    *,
    n_reward: int,
    flips: float,
    ns: Sequence[int],
    noise: Sequence[float],
    n_noise: int,
    twins: Sequence[dict],
    noisy: Sequence[dict],
    draws: int,
    jobs: int = 2,
    **common,
) -> dict[str, list[dict]]:
    """Reward models of the chains, :func:`links`, in four groups.

    Args:
        chains: seeds of the first two groups and of ``draws``.
        n_reward, flips: comparisons and rate of wrong labels of the series.
        ns: sizes of the curve.
        noise, n_noise: other rates of wrong labels, at this many comparisons.
        twins: chains whose model has a reversed twin.
        noisy: chains of the other rates.
        draws: reward models on each reference, the series' one among them.
        common: further arguments of the arms.

    Returns:
        ``series``, the series' models; ``curve``, all sizes; ``twins``; ``noise``, with
        the usual rate among the others; ``draws``.
    """

    def arms(links, n=n_reward, flips=flips, draw=0):
        arm = dict(n=n, flips=flips, draw=draw, **common)
        return [(comparisons_arm, arm | link) for link in links]

    usual = dict(n=n_reward, flips=flips, **common)
    groups = {
        "series": arms(chains),
        "twins": [(twin_arm, usual | link) for link in twins],
        "draws": [a for d in range(draws) for a in arms(chains, draw=d)],
        "curve": [a for n in sorted(ns, reverse=True) for a in arms(chains, n)],
        "noise": [a for f in (flips, *noise) for a in arms(noisy, n_noise, f)],
    }
    return run_groups(groups, jobs=jobs, label="comparisons")


# --- Rankings against pairs -----------------------------------------------------------


def ranking_arm(
    *, kind: str, n: int, group: int, seed: int, k: int, draw: int = 0, **policy
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
        k, policy, draw: as for :func:`comparisons_arm`.

    Returns:
        ``rewards``, see :func:`held_out_rewards`; ``read``, replies that annotators
        read; ``comparisons``, pairs of replies that the labels put in order.
    """
    seed = seed + DRAWS * draw
    groups = in_groups(replies("train", k, **policy), group, n, seed)
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
    chains: Sequence[dict], *, draws: dict[str, int], jobs: int = 2, **common
) -> list[dict]:
    """Every kind in ``draws``, with as many draws of each chain as it says there."""
    arms = [
        dict(kind=kind, draw=draw, **common, **link)
        for kind in reversed(RANKING_KINDS)
        for draw in range(draws.get(kind, 0))
        for link in chains
    ]
    return run_arms(ranking_arm, arms, jobs=jobs, label="rankings and pairs")


# --- Annotators biased towards length -------------------------------------------------


def length_arm(*, kind: str, n: int, bias: float, seed: int, k: int, **policy) -> dict:
    """A reward model from annotators who may favour length: its ``rewards``, see
    :func:`held_out_rewards`.

    Args:
        kind: "unbiased" annotators; "biased" ones, on the same pairs with the same
            random numbers; "equal lengths", biased ones on pairs that differ by at most
            one word, which leaves the bias little to act on.
        bias: in gold per word; higher favours longer replies more.
        n, seed, k, policy: as for :func:`comparisons_arm`.
    """
    pairs = length_pairs(kind, n, bias=bias, seed=seed, k=k, **policy)
    reward_model = train_from_reference(pairs, seed=seed, **policy)
    return {"rewards": held_out_rewards(*reward_model, **policy)}


LENGTH_KINDS = ("unbiased", "biased", "equal lengths")


def length_pairs(
    kind: str, n: int | None, *, bias: float, seed: int, k: int, **policy
) -> list[Row]:
    """The pairs that :func:`length_arm` trains on; n None returns all there are.

    Raises:
        ValueError: on an unknown kind, or if there are fewer than n pairs.
    """
    if kind not in LENGTH_KINDS:
        raise ValueError(f"kind is {kind!r}; it can be one of {LENGTH_KINDS}")
    annotator = Annotator(TEMPERATURE, length_bias=0.0 if kind == "unbiased" else bias)
    pairs = artifacts.comparisons(
        replies("train", k, **policy), None, seed=seed, annotator=annotator
    )
    if kind == "equal lengths":
        pairs = [pair for pair in pairs if abs(extra_words(pair)) <= 1]
    if n is not None and len(pairs) < n:
        raise ValueError(f"n is {n}, and there are {len(pairs)} pairs of {kind}")
    return pairs[:n]


def extra_words(pair: Row) -> int:
    """Words of the chosen reply minus those of the rejected one."""
    return len(pair["chosen"].split()) - len(pair["rejected"].split())


def length_sweep(chains: Sequence[dict], *, jobs: int = 2, **common) -> list[dict]:
    """Every kind of :func:`length_arm` on every chain."""
    arms = [dict(kind=kind, **common, **c) for kind in LENGTH_KINDS for c in chains]
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


def control_arm(
    *, kind: str, n: int, flips: float, seed: int, k: int, **policy
) -> dict:
    """A reward of ``CONTROLS``, fitted to the comparisons that :func:`comparisons_arm`
    trains on: its ``rewards``, see :func:`held_out_rewards`."""
    pairs = artifacts.comparisons(
        replies("train", k, **policy), n, flips=flips, seed=seed
    )
    reward = CONTROLS[kind](pairs, seed)
    texts = [
        [reply.text for reply in of_request.replies]
        for of_request in replies("test", TEST_REPLIES, **policy)
    ]
    return {"rewards": [reward(of_request).tolist() for of_request in texts]}


CONTROLS = {"bag of words": bag_of_words, "length only": length_only}


def control_sweep(chains: Sequence[dict], *, jobs: int = 2, **common) -> list[dict]:
    """Both controls on every chain."""
    arms = [dict(kind=kind, **common, **link) for kind in CONTROLS for link in chains]
    return run_arms(control_arm, arms, jobs=jobs, label="controls")
