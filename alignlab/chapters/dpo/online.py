"""Online DPO: pairs of the policy's own replies, ordered by a reward model, round after
round. Only the reference stays what it was.

Beside it stands the same procedure with replies of the reference, which tells what it
is worth that they are fresh, and DPO and PPO as they are.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
from torch import Tensor

from alignlab.errors import AlignlabError
from alignlab.models.sampler import complete
from alignlab.plots.style import PALETTE, interval_line, series_style
from alignlab.seeds import stream
from alignlab.study import artifacts
from alignlab.study.chains import Chain
from alignlab.study.optimising import DPO_RECIPE, Looks, dpo_arm, proxy_of, rl_arm
from alignlab.study.scale import cap, scaled
from alignlab.training.dpo import preference_step
from alignlab.training.loop import train
from alignlab.training.pairs import batches, encode_pairs, log_probs_of
from alignlab.world import gold

REQUESTS = 64  # of one round
REPLIES = 4  # to each request
STEPS = 4  # of one round: once over its pairs
BATCH = 16  # pairs: fewer than in DPO_RECIPE, since a round has few
# Below DPO_RECIPE's 2.5e-4, for these labels agree with each other, and so do their
# gradients. Chosen on seed 0, where that rate and twice the steps went to 40 nats.
RATE = 1e-4
LOOKS = (0.25, 0.6, 1.0)  # shares of a run

# --- The arm --------------------------------------------------------------------------


def online_arm(*, chain: dict, rounds: int, n: int, writer: str = "policy") -> dict:
    """DPO on pairs that are made while it runs.

    In each round ``REPLIES`` replies to each of ``REQUESTS`` requests are sampled, the
    chain's reward model picks the best and the worst of each, and DPO takes ``STEPS``
    steps on these pairs, at ``RATE``. All else is as in ``DPO_RECIPE``.

    Args:
        chain: arguments of :class:`alignlab.study.chains.Chain`.
        rounds: more go further.
        n: replies to each test request at a look.
        writer: of the replies, "policy" as it is by then, or "reference".

    Returns:
        ``points`` and ``stopped`` as :func:`alignlab.study.optimising.rl_arm` does;
        seconds include the sampling and the reward model. ``history``, for each round
        what :func:`fresh_pairs` says of its pairs, and ``accuracy``, how often the
        policy already had their order right at the first step on them.

    Raises:
        ValueError: if the writer is neither.

    Source: Guo et al. (2024), Direct language model alignment from online AI feedback.
    """
    if writer not in ("policy", "reference"):
        raise ValueError(f'writer is {writer!r}; it can be "policy" or "reference"')
    link = Chain(**chain)
    policy, tokenizer = link.policy()
    due = _due(rounds)
    looks = Looks(link, [STEPS * number for number in due], n)
    models = dict(reference=looks.reference, reward_model=looks.proxy)
    writes = policy if writer == "policy" else looks.reference
    history: list[dict] = []
    rounds_of_pairs = _batches(writes, tokenizer, history, seed=link.seed, **models)

    def after_step(row: Mapping) -> None:
        if row["step"] % STEPS == 1:
            history[-1]["accuracy"] = row["rewards/accuracies"]
        looks.look(row["step"], policy)

    stopped = None
    try:
        train(
            policy,
            rounds_of_pairs,
            partial(preference_step, beta=DPO_RECIPE["beta"]),
            steps=STEPS * rounds,
            learning_rate=scaled(RATE, link.base),
            schedule="constant",
            disable_dropout=True,
            seed=link.seed,
            progress=False,
            on_log=after_step,
        )
    except AlignlabError as error:
        stopped = str(error)
    names = sorted({name for row in history for name in row})
    columns = {name: [row.get(name) for row in history] for name in names}
    return {"points": looks.points, "history": columns, "stopped": stopped}


def _due(rounds: int) -> list[int]:
    return sorted({max(1, round(share * rounds)) for share in LOOKS})


def _batches(
    writer, tokenizer, history: list[dict], *, reference, reward_model, seed: int
) -> Iterator[dict[str, Tensor]]:
    """Batches without end, of new pairs after every ``STEPS`` of them. Since the loop
    asks for a batch only when it needs one, the writer has learnt from all before."""
    number = 0
    while True:
        round_seed = 1000 * seed + number
        pairs, row = fresh_pairs(writer, tokenizer, reward_model, seed=round_seed)
        history.append(row)
        encoded = encode_pairs(tokenizer, pairs)
        pad = tokenizer.pad_token_id
        chosen, rejected = log_probs_of(reference, encoded, pad)
        columns = {"ref_chosen": chosen, "ref_rejected": rejected}
        source = batches(encoded, columns, BATCH, round_seed, pad)
        for _ in range(STEPS):
            yield next(source)
        number += 1


def fresh_pairs(
    writer, tokenizer, reward_model, *, seed: int
) -> tuple[list[dict], dict[str, float]]:
    """Pairs of a policy's replies: best and worst of ``REPLIES`` by a reward model.

    Args:
        writer: replies, at temperature 1.
        seed: of the requests and the sampling.

    Returns:
        Rows of prompt, chosen and rejected, fewer than ``REQUESTS`` where all replies
        to one are the same; and ``pairs``, their number, ``reward``, the mean over all
        replies, and ``gap``, that between chosen and rejected.
    """
    names = artifacts.subjects("train")
    drawn = stream(seed, "requests of online DPO").permutation(len(names))[:REQUESTS]
    subjects = [names[i] for i in drawn for _ in range(REPLIES)]
    prompts = [gold.request(name) for name in subjects]
    longest = cap(tokenizer, artifacts.MAX_NEW_TOKENS)
    replies = complete(writer, tokenizer, prompts, longest, 1.0, seed=seed)
    texts = [reply.text for reply in replies]
    rewards = proxy_of(reward_model, tokenizer, subjects, texts)
    pairs, gaps = best_and_worst(prompts, texts, rewards)
    row = {"pairs": len(pairs), "reward": float(np.mean(rewards))}
    return pairs, row | {"gap": float(np.mean(gaps))}


def best_and_worst(
    prompts: Sequence[str], texts: Sequence[str], rewards: Sequence[float]
) -> tuple[list[dict], list[float]]:
    """A pair from every ``REPLIES`` replies, and the gap between the rewards of each.
    Without a difference in reward there is no pair."""
    pairs, gaps = [], []
    for start in range(0, len(texts), REPLIES):
        own = np.array(rewards[start : start + REPLIES])
        best, worst = int(own.argmax()), int(own.argmin())
        if own[best] > own[worst]:
            pair = dict(chosen=texts[start + best], rejected=texts[start + worst])
            pairs.append({"prompt": prompts[start], **pair})
            gaps.append(float(own[best] - own[worst]))
    return pairs, gaps


def calls(
    *, chains: Sequence[dict], rounds: int, updates: int, n_used: int, n: int
) -> dict[str, list[tuple]]:
    """The arms of the section by method, for ``alignlab.study.arms.run_groups``.

    Args:
        chains: one of each arm for each chain.
        rounds: of online DPO.
        updates: of PPO as ``RECIPE`` has it.
        n_used: comparisons of DPO as ``DPO_RECIPE`` has it.
        n: replies to each test request at a look.
    """
    online = dict(rounds=rounds, n=n)
    people = dict(at=[0.15, 0.4, 1.0], n=n, n_used=n_used)
    people |= dict(loss_type="sigmoid", beta=DPO_RECIPE["beta"])
    arms = {
        "online": (online_arm, online),
        "offline, reward model": (online_arm, dict(writer="reference", **online)),
        "offline, people": (dpo_arm, people),
        "PPO": (rl_arm, dict(at=_due(updates), n=n)),
    }
    return {
        name: [(run, dict(chain=chain, **arm)) for chain in chains]
        for name, (run, arm) in arms.items()
    }


# --- From rows to numbers -------------------------------------------------------------


def path_of(row: Mapping, before: float) -> tuple[np.ndarray, np.ndarray]:
    """KL in nats a reply, and gold gained over ``before``, at each look of a run, from
    the reference on."""
    points = row["points"]
    kl = np.array([0.0, *(point["kl"] for point in points)])
    return kl, np.array([0.0, *(point["gold"] - before for point in points)])


def gain_at(row: Mapping, before: float, nats: float) -> float:
    """Gold gained at a distance in nats a reply, between two looks in proportion. A run
    that never gets as far has its last look's.

    Args:
        row: of one of the arms of :func:`calls`.
        before: gold of the reference, measured with the same random numbers.
    """
    kl, gained = path_of(row, before)
    return float(np.interp(nats, np.maximum.accumulate(kl), gained))


def gains_at(
    rows: Sequence[Mapping], before: Mapping[int, float], nats: float
) -> dict[int, float]:
    """:func:`gain_at` of each run, by the seed of its chain, as ``before`` is."""
    seeds = [row["chain"]["seed"] for row in rows]
    return {
        s: gain_at(row, before[s], nats) for s, row in zip(seeds, rows, strict=True)
    }


# --- Figure ---------------------------------------------------------------------------


def paths(groups: Mapping[str, Sequence[Mapping]], before: Mapping[int, float]):
    """Gold gained against KL along the runs, and the reward of the replies that pairs
    are made of, round by round.

    Args:
        groups: rows of each group of :func:`calls`.
        before: gold of the reference by the seed of the chain.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4))
    for number, (name, rows) in enumerate(groups.items()):
        style = series_style(number, "color", "marker", "linestyle")
        lines = [path_of(row, before[row["chain"]["seed"]]) for row in rows]
        if len(lines) > 1:
            for line in lines:
                left.plot(*line, color=PALETTE[number], linewidth=0.8, alpha=0.5)
        looks = min(len(kl) for kl, _ in lines)  # fewer where a run was stopped
        means = np.mean([[kl[:looks], gold[:looks]] for kl, gold in lines], axis=0)
        left.plot(*means, label=name, **style)
        if "reward" in rows[0]["history"]:
            rewards = [row["history"]["reward"] for row in rows]
            rounds = range(1, len(rewards[0]) + 1)
            interval_line(right, rounds, rewards, name, color=number)
    left.axhline(0, color="0.6", linewidth=1)
    left.set(xlabel="KL to the reference (nats a reply)", ylabel="gold gained")
    left.set_title("Gold against distance")
    left.legend(fontsize=10)
    right.set(xlabel="round", ylabel="proxy reward of the replies")
    right.set_title("What the pairs are made of")
    right.legend(fontsize=10)
    return figure
