"""Candidate replies to a prompt, and the pairs and rankings an annotator makes of them.

Rows are plain dicts in TRL's columns, which the cache keeps as JSON.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from alignlab.world.annotators import Annotator, Reply
from alignlab.world.facts import World
from alignlab.world.gold import PARTS, SAME_GOLD, gold_reward, request

Row = dict[str, object]


@dataclass(frozen=True)
class Candidates:
    """The K replies to one prompt, among which an annotator chooses."""

    prompt: str
    subject: str
    replies: tuple[Reply, ...]


@dataclass(frozen=True)
class Summary:
    """How many rows were kept, how many were dropped for which reason, and how many of
    those kept are worth noting. ``str`` gives it in one line."""

    kept: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    noted: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        total = self.kept + sum(self.dropped.values())
        lost = ", ".join(f"{n:,} {why}" for why, n in self.dropped.items() if n)
        noted = ", ".join(f"{n:,} {what}" for what, n in self.noted.items())
        line = f"{self.kept:,} of {total:,} kept; dropped: {lost or 'none'}"
        return f"{line}; of those kept: {noted}" if noted else line


# --- Candidates: K completions of each prompt, scored ---------------------------------


def sample_completions(
    complete: Callable[[list[str]], list], prompts: Sequence[str], k: int
) -> list[list]:
    """K completions of each prompt, in the order of the prompts.

    Args:
        complete: gives one completion for each of a list of prompts: the sampler with
            its settings, ``partial(sampler.complete, policy, tokenizer, seed=0,
            temperature=1.0, max_new_tokens=96)``. A higher temperature makes the K
            differ more.
        prompts: at least one.
        k: completions of each.

    Raises:
        ValueError: if there is no prompt, k is less than 1, or ``complete`` gives
            another number of completions than it got prompts.
    """
    if not len(prompts) or k < 1:
        raise ValueError(f"prompts are {len(prompts)} and k is {k}; both at least 1")
    flat = complete([prompt for prompt in prompts for _ in range(k)])
    if len(flat) != k * len(prompts):
        raise ValueError(
            f"complete gave {len(flat)} completions for {k * len(prompts)} prompts; "
            "it must give one for each, in their order"
        )
    return [list(flat[start : start + k]) for start in range(0, len(flat), k)]


def score_completions(
    world: World, subjects: Sequence[str], completions: Sequence[Sequence]
) -> list[Candidates]:
    """Completions of "Tell me about {subject}." with their gold rewards.

    Args:
        world: decides what is true.
        subjects: one for each prompt (``gold.request(subject)``).
        completions: as ``sample_completions`` gives them; each has ``text`` and
            ``ended``, as the sampler's ``Completion`` does.

    Raises:
        ValueError: if there are not as many lists of completions as subjects.
    """
    if len(subjects) != len(completions):
        raise ValueError(
            f"subjects has {len(subjects)} entries and completions {len(completions)}: "
            "each subject needs its list of completions"
        )
    return [
        Candidates(
            request(subject),
            subject,
            tuple(
                Reply(c.text, gold_reward(world, subject, c.text), c.ended)
                for c in of_subject
            ),
        )
        for subject, of_subject in zip(subjects, completions, strict=True)
    ]


# --- Pairs ----------------------------------------------------------------------------


def make_pairs(
    candidates: Sequence[Candidates],
    annotator: Callable[[Reply, Reply], float],
    rng: np.random.Generator,
    per_prompt: int | None = None,
) -> tuple[list[Row], Summary]:
    """Let an annotator compare replies to the same prompt, two at a time.

    Neither the choice of replies nor the random numbers depend on the annotator: with
    equal generators two annotators judge the same pairs, and their labels differ only
    where their probabilities do.

    Args:
        candidates: at least two replies to each prompt.
        annotator: gives the probability that the first of two replies is preferred.
        rng: draws the pairs and the labels.
        per_prompt: comparisons of each prompt, drawn without replacement; None makes
            all K(K-1)/2. Further comparisons of the same replies are not independent.

    Returns:
        Rows, and what was dropped: pairs of identical texts, and those with a reply
        that has not ended (training would give it an EOS token that it never had). Ties
        in gold are kept and counted. The columns: ``prompt``, ``chosen``, ``rejected``,
        ``subject``; ``probability`` that this annotator prefers the chosen reply;
        ``gold_chosen``, ``gold_rejected`` and the same for ``form``, ``completeness``
        and ``truth``, which add up to gold; ``tie``: equal gold; ``noisy``: the
        rejected reply has the higher gold.

    Raises:
        ValueError: if there are no candidates, a prompt has fewer than two replies, a
            gold reward is not finite, ``per_prompt`` is not positive, or no pair is
            left.
    """
    _require_candidates(candidates, k=2)
    if per_prompt is not None and per_prompt < 1:
        raise ValueError(f"per_prompt is {per_prompt}; it must be at least 1, or None")
    compared, dropped = [], {"identical": 0, "not ended": 0}
    for candidate in candidates:
        usable = []
        for first, second in combinations(candidate.replies, 2):
            if first.text == second.text:
                dropped["identical"] += 1
            elif not (first.ended and second.ended):
                dropped["not ended"] += 1
            else:
                usable.append((candidate, first, second))
        compared += _draw(usable, per_prompt, rng)
    if not compared:
        raise ValueError(
            f"candidates leave no pair to compare: dropped {dropped}. Sample at "
            "a higher temperature, or with more max_new_tokens"
        )
    pairs = _label(compared, annotator, rng)
    noted = {
        "ties": sum(pair["tie"] for pair in pairs),
        "noisy": sum(pair["noisy"] for pair in pairs),
    }
    return pairs, Summary(len(pairs), dropped, noted)


def _draw(items: list, n: int | None, rng: np.random.Generator) -> list:
    if n is None or len(items) <= n:
        return items
    return [items[i] for i in rng.choice(len(items), n, replace=False)]


def _label(compared, annotator, rng: np.random.Generator) -> list[Row]:
    rows = []
    for (source, first, second), coin in zip(compared, rng.random(len(compared))):
        probability = annotator(first, second)
        if coin < probability:
            rows.append(_pair(source, first, second, probability))
        else:
            rows.append(_pair(source, second, first, 1 - probability))
    return rows


def _pair(
    source: Candidates, chosen: Reply, rejected: Reply, probability: float
) -> Row:
    parts = {
        f"{part}_{side}": getattr(reply.gold, part)
        for part in PARTS
        for side, reply in (("chosen", chosen), ("rejected", rejected))
    }
    gap = chosen.gold.total - rejected.gold.total
    return {
        "prompt": source.prompt,
        "chosen": chosen.text,
        "rejected": rejected.text,
        "subject": source.subject,
        "probability": float(probability),
        "gold_chosen": chosen.gold.total,
        "gold_rejected": rejected.gold.total,
        **parts,
        "tie": abs(gap) < SAME_GOLD,
        "noisy": gap <= -SAME_GOLD,
    }


# --- Rankings -------------------------------------------------------------------------


def make_rankings(
    candidates: Sequence[Candidates],
    annotator: Annotator,
    rng: np.random.Generator,
    k: int,
) -> tuple[list[Row], Summary]:
    r"""Let an annotator rank K different replies to each prompt, best first.

    Rankings are drawn from Plackett–Luce: the best of the K is chosen in proportion to
    :math:`e^{u/T}`, then the best of the rest, and so on. Of any two replies, the first
    is ahead with the probability that the annotator prefers it in a pair.

    Args:
        candidates: replies to each prompt; the first k that are different and have
            ended are ranked.
        annotator: one that gives each reply a reward; ``Flipped`` judges pairs only.
        rng: draws the rankings.
        k: replies in each ranking, at least 2; the same for all, so that rewards make a
            matrix for ``plackett_luce_loss``.

    Returns:
        Rows, and how many prompts had too few replies. The columns: ``prompt``,
        ``subject``; and, best first, ``completions``, ``gold``, ``form``,
        ``completeness``, ``truth``.

    Raises:
        ValueError: if k is less than 2, the annotator has no rewards, there are no
            candidates, a gold reward is not finite, or no prompt has k replies to rank.
    """
    if k < 2:
        raise ValueError(f"k is {k}; a ranking needs at least 2 replies")
    if not hasattr(annotator, "rewards"):
        raise ValueError(
            f"annotator is {annotator}, which judges pairs only; a ranking needs one "
            "that gives each reply a reward, such as Annotator(temperature=1.0)"
        )
    _require_candidates(candidates, k=1)
    rankings = []
    for candidate in candidates:
        by_text = {r.text: r for r in reversed(candidate.replies) if r.ended}
        replies = list(reversed(by_text.values()))[:k]
        if len(replies) == k:
            order = _plackett_luce(annotator, replies, rng)
            rankings.append(_ranking(candidate, [replies[i] for i in order]))
    if not rankings:
        raise ValueError(
            f"candidates: no prompt has k={k} different replies that ended. Sample "
            "more of each, at a higher temperature, or lower k"
        )
    few = {"with too few replies": len(candidates) - len(rankings)}
    return rankings, Summary(len(rankings), few)


def _plackett_luce(
    annotator: Annotator, replies: list[Reply], rng: np.random.Generator
) -> np.ndarray:
    # Gumbel noise on u/T makes the order of the sums a Plackett–Luce draw.
    rewards, noise = annotator.rewards(replies), rng.gumbel(size=len(replies))
    if annotator.temperature:
        return np.argsort(-(rewards / annotator.temperature + noise))
    return np.lexsort((noise, -np.round(rewards / SAME_GOLD)))  # ties by a coin


def _ranking(source: Candidates, best_first: list[Reply]) -> Row:
    return {
        "prompt": source.prompt,
        "subject": source.subject,
        "completions": [reply.text for reply in best_first],
        "gold": [reply.gold.total for reply in best_first],
        **{part: [getattr(r.gold, part) for r in best_first] for part in PARTS},
    }


# --- Checks ---------------------------------------------------------------------------


def _require_candidates(candidates: Sequence[Candidates], k: int) -> None:
    if not len(candidates):
        raise ValueError("candidates is empty: nothing to compare")
    for number, candidate in enumerate(candidates):
        if len(candidate.replies) < k:
            raise ValueError(
                f"candidates[{number}] ({candidate.prompt!r}) has "
                f"{len(candidate.replies)} replies; expected at least {k}"
            )
        for reply in candidate.replies:
            if not np.isfinite(reply.gold.total):
                raise ValueError(
                    f"candidates[{number}] ({candidate.prompt!r}) has a gold reward of "
                    f"{reply.gold.total}; rewards must be finite numbers"
                )


def require_columns(
    rows: Sequence[Row],
    columns: Iterable[str] = ("prompt", "chosen", "rejected"),
    name: str = "pairs",
) -> None:
    """Check that there are rows and that each has these columns.

    Raises:
        ValueError: naming the row and what it lacks.
    """
    if not len(rows):
        raise ValueError(f"{name} is empty; expected at least one row")
    for number, row in enumerate(rows):
        missing = [column for column in columns if column not in row]
        if missing:
            raise ValueError(
                f"{name}[{number}] has no {' and no '.join(missing)}; it has "
                f"{sorted(row)}"
            )
