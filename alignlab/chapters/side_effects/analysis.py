"""What the runs of notebook 06 show, worked out from what was said along the way.

Rows come from the arms of ``side_effects``. Proxies of different reward models have no
common unit, so they are in standard deviations of the reference policy's replies, above
their mean. Nothing is trained here.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float

from alignlab.chapters.side_effects.runs import BUDGET
from alignlab.evaluation import exact
from alignlab.evaluation.diversity import (
    across_input_diversity,
    distinct_share,
    per_input_diversity,
    self_bleu,
)
from alignlab.evaluation.over_optimisation import (
    Curve,
    Turn,
    best_of_n_values,
    fit_curves,
    turn,
)
from alignlab.models.reward import combine
from alignlab.study import artifacts as alignment
from alignlab.world import gold, tasks

Row = Mapping[str, object]
KL_RANGE = (1.0, 5.0)  # nats, where best-of-n and PPO are held against each other
BLEU_PROMPTS = 20  # self-BLEU takes its time; the first so many requests will do

# --- Along a run ----------------------------------------------------------------------


def over_points(row: Row, measure: str) -> np.ndarray:
    """One number for each look: a mean that was kept ("kl", "entropy", ...), or the
    mean of "golds"."""
    values = [point[measure] for point in row["points"]]
    return np.array([float(np.mean(value)) for value in values])


def distance(row: Row) -> Float[np.ndarray, "points"]:
    """√KL to the reference at each look, in nats^½."""
    return np.sqrt(np.maximum(over_points(row, "kl"), 0))


def by_prompt(row: Row, measure: str) -> Float[np.ndarray, "points prompts"]:
    """Mean gold ("golds") or standardised proxy ("proxies") of each request's replies
    at each look."""
    values = np.array([point[measure] for point in row["points"]], float)
    if measure == "proxies":
        values = (values - values[0].mean()) / values[0].std()
    return values.mean(axis=2)


def gold_curve(row: Row) -> Curve:
    """Distance, and gold above that at the first look."""
    golds = by_prompt(row, "golds").mean(axis=1)
    return Curve(distance(row), golds - golds[0])


def on_grid(rows: Sequence[Row], measure: str, points: int = 40) -> tuple:
    """Curves of several runs at common distances, by straight lines between looks.

    Args:
        measure: "golds" or "proxies", see :func:`by_prompt`, or what
            :func:`over_points` knows.
        points: distances, from 0 to the nearest end of a run.

    Returns:
        Distances, (D,), and a curve for each run, (runs, D).
    """
    grid = np.linspace(0, min(distance(row).max() for row in rows), points)
    curves = []
    for row in rows:
        whole = measure in ("golds", "proxies")
        values = by_prompt(row, measure).mean(1) if whole else over_points(row, measure)
        order = np.argsort(distance(row), kind="stable")
        curves.append(np.interp(grid, distance(row)[order], values[order]))
    return grid, np.array(curves)


def picking(prompts: int) -> Bool[np.ndarray, "prompts"]:
    """Every other request picks the peak; the rest measure."""
    return np.arange(prompts) % 2 == 0


def turn_of(row: Row) -> Turn:
    """Where gold peaks on one half of the requests, and its rise and fall on the other.

    See :func:`alignlab.evaluation.over_optimisation.turn`.
    """
    golds = by_prompt(row, "golds")
    return turn(golds, picking(golds.shape[1]))


def proxy_after_peak(row: Row) -> float:
    """How far the proxy rose from the peak of gold to the end, in standard deviations,
    on the requests that did not pick that peak."""
    proxies = by_prompt(row, "proxies")
    seen = proxies[:, ~picking(proxies.shape[1])].mean(axis=1)
    return float(seen[-1] - seen[turn_of(row).point])


def beyond_budget(row: Row, nats: float = BUDGET) -> int:
    """The first look that is so far from the reference, or the last one."""
    far = np.flatnonzero(over_points(row, "kl") >= nats)
    return int(far[0]) if len(far) else len(row["points"]) - 1


def contents(row: Row) -> dict[str, np.ndarray]:
    """How often each thing that gold counts stands in a reply, at each look, by the
    names of ``gold.GOLD_WEIGHTS``."""
    world, names = tasks.default_world(), alignment.subjects("test")
    found: dict[str, list[float]] = {name: [] for name in gold.GOLD_WEIGHTS}
    for point in row["points"]:
        counts = [
            gold.count_reply(world, name, text)
            for name, texts in zip(names, point["texts"])
            for text in texts
        ]
        for name, values in found.items():
            values.append(float(np.mean([count[name] for count in counts])))
    return {name: np.array(values) for name, values in found.items()}


# --- Remedies -------------------------------------------------------------------------


def stopped_early(rows: Sequence[Row], form: str = "RL") -> list[dict]:
    """Each run, stopped where the *others'* fit has its peak: nobody has looked at its
    own gold to say when.

    Returns:
        A row for each run: ``seed``, ``d`` (where it stops), ``stopped`` and ``end``
        (gold there and at the end) and ``best`` (gold at its own best look).
    """
    found = []
    for place, row in enumerate(rows):
        others = [gold_curve(other) for i, other in enumerate(rows) if i != place]
        d, golds = distance(row), by_prompt(row, "golds").mean(axis=1)
        stop = min(fit_curves(others, form).peak, float(d.max()))
        order = np.argsort(d, kind="stable")
        found.append(
            {
                "seed": row["seed"],
                "d": stop,
                "stopped": float(np.interp(stop, d[order], golds[order])),
                "end": float(golds[-1]),
                "best": float(golds.max()),
            }
        )
    return found


# --- Best of n ------------------------------------------------------------------------


def pool_golds(
    pool: int, size: str, steps: int
) -> Float[np.ndarray, "prompts samples"]:
    """Gold of the pool's replies; see ``side_effects.pool_arm``."""
    return alignment.golds_of(
        alignment.candidates("test", pool, size=size, steps=steps)
    )


def best_of_n_curve(
    proxies: Float[np.ndarray, "prompts samples"],
    golds: Float[np.ndarray, "prompts samples"],
    ns: Sequence[int],
) -> list[dict]:
    """Best-of-n by these proxies: rows of ``n``, ``kl`` (nats, at most), ``gold`` and
    ``proxy`` (in standard deviations), means over the requests without a draw."""
    proxies = np.asarray(proxies, float)
    proxies = (proxies - proxies.mean()) / proxies.std()
    return [
        {
            "n": n,
            "kl": exact.best_of_n_kl(n),
            "gold": float(best_of_n_values(proxies, golds, n).mean()),
            "proxy": float(best_of_n_values(proxies, proxies, n).mean()),
        }
        for n in ns
    ]


def ensemble_proxies(
    rows: Sequence[Row], how: str
) -> Float[np.ndarray, "prompts samples"]:
    """The pool as an ensemble of these reward models sees it."""
    scores = np.array([row["proxies"] for row in rows], float)  # (M, P, S)
    flat = scores.reshape(len(scores), -1)
    return combine(flat, how, reference=flat).reshape(scores.shape[1:])


def doublings(most: int) -> list[int]:
    """1, 2, 4, ... up to ``most``."""
    return [2**i for i in range(int(math.log2(most)) + 1)]


def best_of_n_lead(curve: Sequence[Mapping], row: Row) -> float:
    """Gold of best-of-n minus that of a run at the same KL, mean over the n whose KL is
    within ``KL_RANGE`` and that the run reaches."""
    kl, golds = over_points(row, "kl"), by_prompt(row, "golds").mean(axis=1)
    order = np.argsort(kl, kind="stable")
    low, high = KL_RANGE
    leads = [
        one["gold"] - np.interp(one["kl"], kl[order], golds[order])
        for one in curve
        if low <= one["kl"] <= min(high, kl.max())
    ]
    return float(np.mean(leads)) if leads else 0.0


def exact_kl_of_best_of_n(
    ns: Sequence[int], words: int = 8, length: int = 4, seed: int = 0
) -> list[dict]:
    """The formula against the truth, on a transformer whose every completion is known:
    rows of ``n``, ``formula`` and ``exact``, in nats. Rewards are drawn at random."""
    model, _ = exact.few_word_model(words, seed)
    completions = exact.every_completion(words + 1, length)
    with torch.no_grad():
        log_probs = exact.log_probs_of_all(model, [1, 2], completions)
    reference = log_probs.double().softmax(dim=0)
    reward = np.random.default_rng(seed).normal(size=len(completions))
    return [
        {
            "n": n,
            "formula": exact.best_of_n_kl(n),
            "exact": float(exact.kl(exact.best_of_n(reference, reward, n), reference)),
        }
        for n in ns
    ]


# --- Diversity ------------------------------------------------------------------------


def tokens_of(texts: Sequence[Sequence[str]], tokenizer) -> list[list[list[int]]]:
    """Token ids of replies at [subject][reply], without special tokens."""
    return [
        [tokenizer(text, add_special_tokens=False)["input_ids"] for text in some]
        for some in texts
    ]


def diversity_of(texts: Sequence[Sequence[str]], tokenizer) -> dict[str, float]:
    """Four measures of replies at [subject][reply]: expectation-adjusted distinct
    n-grams ``per_input`` and ``across_inputs``, ``self_bleu`` among the replies to a
    request, and the ``distinct`` share of these."""
    tokens, vocabulary = tokens_of(texts, tokenizer), len(tokenizer)
    bleus = [self_bleu(some) for some in texts[:BLEU_PROMPTS] if len(some) > 1]
    return {
        "per_input": float(np.nanmean(per_input_diversity(tokens, vocabulary))),
        "across_inputs": across_input_diversity(tokens, vocabulary),
        "self_bleu": float(np.mean(bleus)) if bleus else math.nan,
        "distinct": float(np.mean([distinct_share(some) for some in texts])),
    }


def diversity_along(row: Row, tokenizer) -> dict[str, np.ndarray]:
    """:func:`diversity_of` at each look."""
    found = [diversity_of(point["texts"], tokenizer) for point in row["points"]]
    return {name: np.array([one[name] for one in found]) for name in found[0]}


def warmed_curve(row: Row, tokenizer) -> list[dict]:
    """Rows of ``temperature``, ``diversity`` (per input) and ``gold``, for each
    temperature that the policy was sampled at."""
    return [
        {
            "temperature": one["temperature"],
            "diversity": diversity_of(one["texts"], tokenizer)["per_input"],
            "gold": float(np.mean(one["golds"])),
        }
        for one in row["warmed"]
    ]


def restored(
    policy: Sequence[Mapping], reference: Sequence[Mapping]
) -> dict[str, float]:
    """At which temperature the policy is as diverse as the reference is at 1, and what
    that does to its gold; straight lines between temperatures.

    Args:
        policy, reference: of :func:`warmed_curve`, with temperature 1 in both.

    Returns:
        ``temperature`` and ``price``: gold there minus gold at 1. If no temperature is
        enough, the highest is taken; if 1 is, nothing has to be restored.
    """
    [wanted] = [one["diversity"] for one in reference if one["temperature"] == 1]
    rows = sorted(policy, key=lambda one: one["temperature"])
    rows = [one for one in rows if one["temperature"] >= 1]
    heat, diversity, golds = (
        np.array([one[name] for one in rows])
        for name in ("temperature", "diversity", "gold")
    )
    reached = np.maximum.accumulate(diversity)
    above = np.flatnonzero(reached >= wanted)
    if len(above) and above[0] > 0:
        place = above[0]
        low, high = reached[place - 1], reached[place]
        share = (wanted - low) / (high - low)
        temperature = heat[place - 1] + share * (heat[place] - heat[place - 1])
    else:
        temperature = heat[0] if len(above) else heat[-1]
    there = np.interp(temperature, heat, golds)
    return {"temperature": float(temperature), "price": float(there - golds[0])}
