"""From the rows of notebook 06's arms to its numbers.

Proxy rewards of different reward models share no unit. They are standardised by mean
and standard deviation over the reference policy's replies.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float

from alignlab.evaluation import best_of_n, exact
from alignlab.evaluation.diversity import (
    across_input_diversity,
    distinct_share,
    per_input_diversity,
    self_bleu,
)
from alignlab.evaluation.over_optimisation import Curve, Turn, turn
from alignlab.seeds import stream
from alignlab.study import artifacts
from alignlab.world import gold, tasks

Row = Mapping[str, object]
REACH = 8.0  # nats a reply: runs are compared up to here
KL_RANGE = (0.5, 2.5)  # nats, where best-of-n and PPO are compared
BLEU_PROMPTS = 20  # self-BLEU is slow, so only the first requests are used

# --- Along a run ----------------------------------------------------------------------


def followed(rows: Sequence[Row], start: Sequence[Row]) -> list[dict]:
    """Runs from the reference on, up to ``REACH`` nats: with the reference's own look
    first, and without those that are further away. ``golds`` and ``proxies`` of a point
    are of each reply, at [subject][reply]; ``kept`` are the places of the looks that
    are left, 0 the reference's.

    Args:
        rows: of runs with texts.
        start: the reference of every chain, looked at with the same random numbers.
    """
    before = {row["chain"]["seed"]: row["points"][0] | {"kl": 0.0} for row in start}
    result = []
    for row in rows:
        seed = row["chain"]["seed"]
        looks = [before[seed], *row["points"]]
        kept = [i for i, look in enumerate(looks) if look["kl"] <= REACH]
        points = [
            looks[i]
            | {"golds": looks[i]["each_gold"], "proxies": looks[i]["each_proxy"]}
            for i in kept
        ]
        result.append({**row, "seed": seed, "points": points, "kept": kept})
    return result


def over_points(row: Row, measure: str) -> np.ndarray:
    """A mean ("kl", "entropy", ...), or the mean of "golds", at each evaluation."""
    values = [point[measure] for point in row["points"]]
    return np.array([float(np.mean(value)) for value in values])


def distance(row: Row) -> Float[np.ndarray, "points"]:
    """√KL to the reference at each evaluation, in nats^½."""
    return np.sqrt(np.maximum(over_points(row, "kl"), 0))


def by_prompt(row: Row, measure: str) -> Float[np.ndarray, "points prompts"]:
    """Mean gold ("golds") or standardised proxy ("proxies") of each request's replies
    at each evaluation."""
    values = np.array([point[measure] for point in row["points"]], float)
    if measure == "proxies":
        values = (values - values[0].mean()) / values[0].std()
    return values.mean(axis=2)


def gold_curve(row: Row) -> Curve:
    """Distance, and gold gained since the first evaluation."""
    golds = by_prompt(row, "golds").mean(axis=1)
    return Curve(distance(row), golds - golds[0])


def on_grid(rows: Sequence[Row], measure: str, points: int = 40) -> tuple:
    """Curves of several runs at common distances, interpolated between evaluations.

    Args:
        measure: "golds" or "proxies", see :func:`by_prompt`, or another one of
            :func:`over_points`.
        points: distances, from 0 to where the shortest run ends.

    Returns:
        Distances, (D,), and a curve for each run, (runs, D).
    """
    grid = np.linspace(0, min(distance(row).max() for row in rows), points)
    curves = []
    for row in rows:
        by_reply = measure in ("golds", "proxies")
        values = (
            by_prompt(row, measure).mean(1) if by_reply else over_points(row, measure)
        )
        order = np.argsort(distance(row), kind="stable")
        curves.append(np.interp(grid, distance(row)[order], values[order]))
    return grid, np.array(curves)


def picking(prompts: int) -> Bool[np.ndarray, "prompts"]:
    """Mask of the requests that pick the peak, every other one; the rest measure."""
    return np.arange(prompts) % 2 == 0


def turn_of(row: Row) -> Turn:
    """Where gold peaks on one half of the requests, and its rise and fall on the other;
    see :func:`alignlab.evaluation.over_optimisation.turn`."""
    golds = by_prompt(row, "golds")
    return turn(golds, picking(golds.shape[1]))


def proxy_after_peak(row: Row) -> float:
    """Change of the proxy from the peak of gold to the end, in standard deviations, on
    the requests that did not pick the peak."""
    proxies = by_prompt(row, "proxies")
    measured = proxies[:, ~picking(proxies.shape[1])].mean(axis=1)
    return float(measured[-1] - measured[turn_of(row).point])


def contents(row: Row) -> dict[str, np.ndarray]:
    """Mean count per reply of each thing that gold counts, at each evaluation, by the
    names of ``gold.GOLD_WEIGHTS``."""
    world, subjects = tasks.default_world(), artifacts.subjects("test")
    means: dict[str, list[float]] = {name: [] for name in gold.GOLD_WEIGHTS}
    for point in row["points"]:
        counts = [
            gold.count_reply(world, subject, text)
            for subject, texts in zip(subjects, point["texts"])
            for text in texts
        ]
        for name, values in means.items():
            values.append(float(np.mean([count[name] for count in counts])))
    return {name: np.array(values) for name, values in means.items()}


# What a person would say who knows the facts, by what gold counts.
REMARKS = {
    "right": "{} right",
    "wrong": "{} wrong",
    "repeat": "repeats itself",
    "off_subject": "strays from the subject",
    "extra": "says too much",
    "filler": "empty phrases",
    "empty": "nothing about the subject",
    "honest": "admits not to know",
}


def remarks(subject: str, reply: str) -> str:
    """What a person who knows the facts would say of a reply, such as "2 right, 1
    wrong, repeats itself, polite"."""
    counts = gold.count_reply(tasks.default_world(), subject, reply)
    remarked = [
        text.format(counts[name]) for name, text in REMARKS.items() if counts[name]
    ]
    if any(counts[name] for name in ("opening", "courtesy", "closing")):
        remarked.append("polite")
    return ", ".join(remarked)


# --- When to stop ---------------------------------------------------------------------


def look_gold(row: Row) -> Float[np.ndarray, "points"]:
    """Gold at each look, on the requests that do not pick the peak."""
    golds = by_prompt(row, "golds")
    return golds[:, ~picking(golds.shape[1])].mean(axis=1)


def opinions(row: Row, judged: Row) -> Float[np.ndarray, "judges points prompts n"]:
    """What three reward models say of every reply along a run, each in its own standard
    deviations over the reference's replies: first the one that is optimised, then two
    of other comparisons.

    Args:
        row: of :func:`followed`.
        judged: of ``runs.judge_arm``, on the same run.
    """
    looks = [[first, *rest] for first, rest in zip(judged["start"], judged["scores"])]
    scores = np.array(looks)[:, row["kept"]]
    level = scores[:, :1].mean(axis=2, keepdims=True)
    spread = scores[:, :1].std(axis=2, keepdims=True)
    prompts = len(row["points"][0]["golds"])
    return ((scores - level) / spread).reshape(*scores.shape[:2], prompts, -1)


def noticed(row: Row, judged: Row) -> dict[str, Float[np.ndarray, "points"]]:
    """What can be seen of a run without gold, at each look, in standard deviations:
    ``proxy`` and ``judge``, means over the replies, and ``disagreement``, the standard
    deviation between three reward models' opinions of a reply, mean over the replies.
    The arguments are those of :func:`opinions`."""
    seen = opinions(row, judged)
    proxy, judge, _ = seen.mean(axis=(2, 3))
    spread = seen.std(axis=0).mean(axis=(1, 2))
    return {"proxy": proxy, "judge": judge, "disagreement": spread}


def stops(row: Row, judged: Row) -> dict[str, int]:
    """The look at which each rule stops a run: an index of its points. All of them see
    the requests that pick the peak, so that what they gain can be measured on the rest.

    Args:
        row, judged: see :func:`opinions`.

    Returns:
        ``end``, the last look; ``proxy``, where what is optimised is highest;
        ``judge``, where a reward model of other comparisons is; ``worst``, where the
        least of three is; ``oracle``, where gold is.
    """
    seen = opinions(row, judged)
    means = seen[:, :, picking(seen.shape[2])].mean(axis=(2, 3))
    return {
        "end": means.shape[1] - 1,
        "proxy": int(means[0].argmax()),
        "judge": int(means[1].argmax()),
        "worst": int(means.min(axis=0).argmax()),
        "oracle": turn_of(row).point,
    }


# --- Best of n ------------------------------------------------------------------------


def best_of_n_curve(
    proxies: Float[np.ndarray, "prompts samples"],
    golds: Float[np.ndarray, "prompts samples"],
    ns: Sequence[int],
) -> list[dict]:
    """:func:`alignlab.evaluation.best_of_n.best_of_n_curve`, with ``proxy`` in standard
    deviations."""
    proxies = np.asarray(proxies, float)
    proxies = (proxies - proxies.mean()) / proxies.std()
    return best_of_n.best_of_n_curve(proxies, golds, ns)


def doublings(most: int) -> list[int]:
    """1, 2, 4, ... up to ``most``."""
    return [2**i for i in range(int(math.log2(most)) + 1)]


def best_of_n_lead(curve: Sequence[Mapping], row: Row) -> float:
    """Gold of best-of-n minus that of a run at the same KL, mean over the n whose KL
    lies within ``KL_RANGE`` and within the run's reach; 0 if there is none."""
    kl, golds = over_points(row, "kl"), by_prompt(row, "golds").mean(axis=1)
    order = np.argsort(kl, kind="stable")
    low, high = KL_RANGE
    leads = [
        point["gold"] - np.interp(point["kl"], kl[order], golds[order])
        for point in curve
        if low <= point["kl"] <= min(high, kl.max())
    ]
    return float(np.mean(leads)) if leads else 0.0


def exact_kl_of_best_of_n(
    ns: Sequence[int], words: int = 8, length: int = 4, seed: int = 0
) -> list[dict]:
    """The formula for best-of-n's KL against its exact value, on a small transformer
    with random rewards: rows of ``n``, ``formula`` and ``exact``, in nats."""
    model, _ = exact.few_word_model(words, seed)
    completions = exact.every_completion(words + 1, length)
    with torch.no_grad():
        log_probs = exact.log_probs_of_all(model, [1, 2], completions)
    reference = log_probs.double().softmax(dim=0)
    reward = stream(seed, "reward on an enumerable policy").normal(
        size=len(completions)
    )
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
        [tokenizer(text, add_special_tokens=False)["input_ids"] for text in replies]
        for replies in texts
    ]


def diversity_of(texts: Sequence[Sequence[str]], tokenizer) -> dict[str, float]:
    """Four measures of replies at [subject][reply]: expectation-adjusted distinct
    n-grams ``per_input`` and ``across_inputs``; ``self_bleu`` of the replies to one
    request, and their ``distinct`` share."""
    tokens, vocabulary = tokens_of(texts, tokenizer), len(tokenizer)
    bleus = [self_bleu(row) for row in texts[:BLEU_PROMPTS] if len(row) > 1]
    return {
        "per_input": float(np.nanmean(per_input_diversity(tokens, vocabulary))),
        "across_inputs": across_input_diversity(tokens, vocabulary),
        "self_bleu": float(np.mean(bleus)) if bleus else math.nan,
        "distinct": float(np.mean([distinct_share(row) for row in texts])),
    }


def diversity_along(row: Row, tokenizer) -> dict[str, np.ndarray]:
    """:func:`diversity_of` at each evaluation."""
    measures = [diversity_of(point["texts"], tokenizer) for point in row["points"]]
    return {name: np.array([m[name] for m in measures]) for name in measures[0]}


def temperature_curve(row: Row, tokenizer) -> list[dict]:
    """``temperature``, ``diversity`` (per input) and ``gold``, for each temperature
    that the policy was sampled at."""
    return [
        {
            "temperature": sampled["temperature"],
            "diversity": diversity_of(sampled["texts"], tokenizer)["per_input"],
            "gold": float(np.mean(sampled["golds"])),
        }
        for sampled in row["by_temperature"]
    ]


def restored(
    policy: Sequence[Mapping], reference: Sequence[Mapping]
) -> dict[str, float]:
    """The temperature at which the policy is as diverse as the reference is at 1, by
    interpolation, and its price in gold.

    Args:
        policy, reference: of :func:`temperature_curve`, both with temperature 1.

    Returns:
        ``temperature``; ``gold`` there, and ``price``, that minus gold at 1. If no
        temperature is enough, the highest is taken; if 1 is enough, 1.
    """
    [wanted] = [row["diversity"] for row in reference if row["temperature"] == 1]
    rows = sorted(policy, key=lambda row: row["temperature"])
    rows = [row for row in rows if row["temperature"] >= 1]
    heat, diversity, golds = (
        np.array([row[name] for row in rows])
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
    return {
        "temperature": float(temperature),
        "gold": float(there),
        "price": float(there - golds[0]),
    }


def cooled(policy: Sequence[Mapping], reference: Sequence[Mapping]) -> dict[str, float]:
    """The temperature at which the reference has the gold that the policy has at 1, and
    its diversity there, by interpolation; at its best if it never has as much.

    Args:
        policy, reference: of :func:`temperature_curve`, both with temperature 1.
    """
    [wanted] = [row["gold"] for row in policy if row["temperature"] == 1]
    rows = sorted(reference, key=lambda row: -row["temperature"])
    golds = np.maximum.accumulate([row["gold"] for row in rows])
    place = int(np.searchsorted(golds, wanted))
    if place in (0, len(rows)):
        row = rows[min(place, len(rows) - 1)]
        return {name: row[name] for name in ("temperature", "diversity", "gold")}
    share = (wanted - golds[place - 1]) / (golds[place] - golds[place - 1])
    return {
        name: (1 - share) * rows[place - 1][name] + share * rows[place][name]
        for name in ("temperature", "diversity", "gold")
    }
