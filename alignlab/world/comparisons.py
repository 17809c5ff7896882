"""Comparisons of replies by simulated annotators of known noise and known bias.

Rows are plain dicts in TRL's columns: JSON keeps them in the cache, every training
function here takes them, and ``datasets.Dataset.from_list`` makes a data set of them.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.special import entr, expit

from alignlab.data.readers import split_of
from alignlab.world.facts import World
from alignlab.world.gold import (
    ADMISSIONS,
    CLOSINGS,
    COURTESIES,
    OPENINGS,
    PARTS,
    Gold,
    gold_reward,
    request,
    split_sentences,
)

Row = dict[str, object]
FORM = (*OPENINGS, *COURTESIES, *CLOSINGS)  # sentences that state nothing
SAME_GOLD = 1e-9  # totals are sums of tenths in some order: closer than this is a tie


@dataclass(frozen=True)
class Reply:
    """One completion, what it is really worth, and whether the model ended it."""

    text: str
    gold: Gold
    ended: bool = True


@dataclass(frozen=True)
class Candidates:
    """The K replies to one prompt, among which an annotator is to choose."""

    prompt: str
    subject: str
    replies: tuple[Reply, ...]


# --- Candidates: K completions of each prompt, scored --------------------------------


def sample_completions(
    complete: Callable[[list[str]], list], prompts: Sequence[str], k: int
) -> list[list]:
    """K completions of each prompt, in the order of the prompts.

    Args:
        complete: replies to a list of prompts, one each: the sampler with its dials
            set, ``partial(sampler.complete, policy, tokenizer, temperature=1.0,
            seed=0, max_new_tokens=96)``. At a higher temperature the K differ more.
        prompts: what is asked.
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
    """What each completion of "Tell me about {subject}." is worth, ready to compare.

    Args:
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
    candidates = []
    for subject, some in zip(subjects, completions, strict=True):
        golds = [gold_reward(world, subject, completion.text) for completion in some]
        replies = [Reply(c.text, gold, c.ended) for c, gold in zip(some, golds)]
        candidates.append(Candidates(request(subject), subject, tuple(replies)))
    return candidates


# --- Annotators: the probability that the first of two replies is preferred ----------


@dataclass(frozen=True)
class Annotator:
    r"""Prefers by the gold reward, with noise and, if asked for, with two biases.

    .. math:: P(1 \succ 2) = \sigma\big((u_1 - u_2) / T\big), \quad
        u = \text{gold} + \lambda \cdot \text{words} + c \cdot [\text{sounds sure}]

    Attributes:
        temperature: T, in units of gold. A higher one is noisier; 0 always takes the
            reply of higher u, and tosses a coin where they tie.
        length_bias: λ, in gold per word (separated by spaces; a person sees no
            tokens). Above 0 it favours long replies, below 0 short ones.
        confidence_bias: c, in units of gold: what it is worth to this annotator that a
            reply states something and admits nothing (``sounds_sure``).

    Raises:
        ValueError: if a number is not finite, or the temperature is negative.

    Source: Bradley & Terry (1952).
    """

    temperature: float = 1.0
    length_bias: float = 0.0
    confidence_bias: float = 0.0

    def __post_init__(self):
        numbers = (self.temperature, self.length_bias, self.confidence_bias)
        if not np.isfinite(numbers).all() or self.temperature < 0:
            raise ValueError(f"{self}: expected finite numbers, the temperature >= 0")

    def __call__(self, first: Reply, second: Reply) -> float:
        reward, other = self.rewards([first, second])
        difference = reward - other
        if self.temperature:
            return float(expit(difference / self.temperature))
        return 0.5 if abs(difference) < SAME_GOLD else float(difference > 0)

    def rewards(self, replies: Sequence[Reply]) -> Float[np.ndarray, "replies"]:
        """u of each reply, in units of gold: what this annotator acts on."""
        return np.array(
            [
                reply.gold.total
                + self.length_bias * len(reply.text.split())
                + self.confidence_bias * sounds_sure(reply.text)
                for reply in replies
            ]
        )


@dataclass(frozen=True)
class Flipped:
    """Another annotator whose label is turned round at a known rate.

    P = (1 - rate) p + rate (1 - p), with p the other's. At rate 0.25 a sure annotator
    agrees with the gold order in 75% of the pairs; at 0.5 labels say nothing at all,
    which is the control for whatever is learnt from labels.

    Raises:
        ValueError: if the rate is outside [0, 1].
    """

    annotator: Callable[[Reply, Reply], float]
    rate: float

    def __post_init__(self):
        if not 0 <= self.rate <= 1:
            raise ValueError(f"rate is {self.rate}; it must be between 0 and 1")

    def __call__(self, first: Reply, second: Reply) -> float:
        probability = self.annotator(first, second)
        return (1 - self.rate) * probability + self.rate * (1 - probability)


@dataclass(frozen=True)
class Panel:
    """Several annotators: one of them, drawn anew for each pair, or their majority.

    Given the two replies they judge independently. A majority is less noisy than its
    members but keeps the biases they share; an even vote is settled by a coin.

    Raises:
        ValueError: if there is no member, or ``vote`` is neither "one" nor "majority".
    """

    members: tuple[Callable[[Reply, Reply], float], ...]
    vote: Literal["one", "majority"] = "one"

    def __post_init__(self):
        if not self.members or self.vote not in ("one", "majority"):
            raise ValueError(
                f"members are {len(self.members)} and vote is {self.vote!r}; expected "
                "at least one member, and 'one' or 'majority'"
            )

    def __call__(self, first: Reply, second: Reply) -> float:
        each = [member(first, second) for member in self.members]
        return float(np.mean(each)) if self.vote == "one" else majority(each)


def hold_out(panel: Panel, n: int, rng: np.random.Generator) -> tuple[Panel, Panel]:
    """The panel without n of its members, drawn at random, and a panel of those n:
    the first labels what is trained on, the second says what was to be learnt.

    Raises:
        ValueError: if either panel would be empty.
    """
    if not 0 < n < len(panel.members):
        raise ValueError(
            f"n is {n} of {len(panel.members)} members; each side needs at least one"
        )
    members = [panel.members[i] for i in rng.permutation(len(panel.members))]
    return Panel(tuple(members[n:]), panel.vote), Panel(tuple(members[:n]), panel.vote)


def majority(probabilities: Sequence[float]) -> float:
    """The probability that most of several independent events happen; half of an even
    split counts. Exact: the distribution of their number, one event after another."""
    number = np.ones(1)  # P(this many so far)
    for probability in probabilities:
        number = np.convolve(number, [1 - probability, probability])
    most = np.arange(len(number)) - len(probabilities) / 2
    # Rounding may leave the sum a hair above 1, which no probability is.
    return min(1.0, float(number @ np.where(most == 0, 0.5, most > 0)))


def sounds_sure(text: str) -> bool:
    """Whether a reply states something, beyond greeting, courtesy and closing, and none
    of its sentences is one of the world's admissions ("I do not know.")."""
    said = [s for s in split_sentences(text) if s not in FORM]
    return bool(said) and not any(sentence in ADMISSIONS for sentence in said)


# --- Pairs and rankings ---------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """How many rows were kept, how many were dropped for which reason, and what is
    worth knowing of those kept. ``str`` says it in one line."""

    kept: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    noted: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        of = self.kept + sum(self.dropped.values())
        lost = ", ".join(f"{n:,} {why}" for why, n in self.dropped.items() if n)
        noted = ", ".join(f"{n:,} {what}" for what, n in self.noted.items())
        line = f"{self.kept:,} of {of:,} kept; dropped: {lost or 'none'}"
        return f"{line}; of those kept: {noted}" if noted else line


def make_pairs(
    candidates: Sequence[Candidates],
    annotator: Callable[[Reply, Reply], float],
    rng: np.random.Generator,
    per_prompt: int | None = None,
    keep_unended: bool = False,
) -> tuple[list[Row], Summary]:
    """Let an annotator compare replies to the same prompt, two at a time.

    Which replies are compared does not depend on the annotator, and neither do the
    coins: from equal generators two annotators judge the same pairs, and differ only
    where their probabilities do.

    Args:
        candidates: at least two replies to each prompt.
        annotator: gives the probability that the first of two replies is preferred.
        rng: draws the pairs and the labels.
        per_prompt: comparisons of each prompt, drawn without replacement; None makes
            all K(K-1)/2. One is what a labeller's budget usually buys: further ones of
            the same replies are not independent.
        keep_unended: keep replies that ran into the length limit. In training they
            would be given an end that their writer never gave them.

    Returns:
        Rows, and what was dropped: pairs of identical texts, and those with a reply
        that has not ended. Ties in gold are kept and counted. The columns: ``prompt``,
        ``chosen``, ``rejected``, ``subject``; ``probability`` that this annotator
        prefers the chosen one; ``gold_chosen``, ``gold_rejected`` and the same of
        ``form``, ``completeness`` and ``truth``, which add up to gold; ``tie``: equal
        gold; ``noisy``: the rejected reply has the higher gold.

    Raises:
        ValueError: if there are no candidates, a prompt has fewer than two replies, a
            gold reward is not finite, ``per_prompt`` is not positive, or no pair is
            left.
    """
    _require_candidates(candidates, k=2)
    if per_prompt is not None and per_prompt < 1:
        raise ValueError(f"per_prompt is {per_prompt}; it must be at least 1, or None")
    compared, dropped = [], {"identical": 0, "not ended": 0}
    for one in candidates:
        usable = []
        for first, second in combinations(one.replies, 2):
            fault = _fault(first, second, keep_unended)
            if fault:
                dropped[fault] += 1
            else:
                usable.append((one, first, second))
        compared += _some(usable, per_prompt, rng)
    if not compared:
        raise ValueError(
            f"candidates leave no pair to compare: dropped {dropped}. Sample at "
            "a higher temperature, or with more max_new_tokens"
        )
    pairs = _label(compared, annotator, rng)
    return pairs, _summary(pairs, dropped)


def make_rankings(
    candidates: Sequence[Candidates],
    annotator: Annotator,
    rng: np.random.Generator,
    k: int,
) -> tuple[list[Row], Summary]:
    r"""Let an annotator rank K different replies to each prompt, best first.

    Drawn from Plackett–Luce: the best is chosen among all K in proportion to
    :math:`e^{u/T}`, the next among those that remain, and so on. Of any two replies the
    first is ahead with the very probability that the annotator prefers it in a pair.

    Args:
        candidates: replies to each prompt; the first k that are different and have
            ended are ranked.
        annotator: one with a reward for each reply; flips and panels judge pairs only.
        rng: draws the rankings.
        k: replies in each ranking, at least 2; the same for all, so that rewards make a
            matrix for ``plackett_luce_loss``.

    Returns:
        Rows, and how many prompts had too few replies. The columns: ``prompt``,
        ``subject``; and, best first, ``completions``, ``gold``, ``form``,
        ``completeness``, ``truth``.

    Raises:
        ValueError: if k is less than 2, the annotator has no rewards, the candidates
            are faulty (see :func:`make_pairs`), or no prompt has k replies to rank.
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
    for one in candidates:
        different = {r.text: r for r in reversed(one.replies) if r.ended}
        replies = list(reversed(different.values()))[:k]
        if len(replies) == k:
            order = _plackett_luce(annotator, replies, rng)
            rankings.append(_ranking_row(one, [replies[i] for i in order]))
    if not rankings:
        raise ValueError(
            f"candidates: no prompt has k={k} different replies that ended. Sample "
            "more of each, at a higher temperature, or lower k"
        )
    few = {"with too few replies": len(candidates) - len(rankings)}
    return rankings, Summary(len(rankings), few)


def all_pairs(
    rankings: Sequence[Row], annotator: Callable[[Reply, Reply], float]
) -> list[Row]:
    """The K(K-1)/2 comparisons that each ranking holds, as InstructGPT trains on them.

    They are not independent, so keep those of a ranking in one batch: ``ranking`` is
    its number. Other columns are those of :func:`make_pairs`.

    Args:
        rankings: as :func:`make_rankings` gives them.
        annotator: who ranked; says how probable each order of two was.

    Raises:
        ValueError: if a ranking lacks a column or has fewer than two replies.

    Source: Ouyang et al. (2022), section 3.5.
    """
    columns = ("prompt", "subject", "completions", "gold", *PARTS)
    require_columns(rankings, columns, "rankings")
    rows = []
    for number, ranking in enumerate(rankings):
        replies = _ranked_replies(number, ranking)
        one = Candidates(ranking["prompt"], ranking["subject"], tuple(replies))
        for better, worse in combinations(replies, 2):
            probability = annotator(better, worse)
            rows.append(_pair(one, better, worse, probability) | {"ranking": number})
    return rows


def judge(
    annotator: Callable[[Reply, Reply], float], pairs: Sequence[Row]
) -> Float[np.ndarray, "pairs"]:
    """The probability that an annotator prefers the chosen reply of each pair: of
    held-out ones, how much of the labels they share.

    Raises:
        ValueError: if a pair lacks a column.
    """
    _require_gold_columns(pairs)
    return np.array([annotator(*_replies(pair)) for pair in pairs])


def relabel(
    pairs: Sequence[Row],
    annotator: Callable[[Reply, Reply], float],
    rng: np.random.Generator,
) -> tuple[list[Row], Summary]:
    """The same pairs, judged again by another annotator.

    Whoever is chosen depends on the order of the two replies in no way, so labels of
    ``Flipped(annotator, 0.5)`` are pure noise.

    Raises:
        ValueError: if a pair lacks a column.
    """
    _require_gold_columns(pairs)
    compared = []
    for pair in pairs:
        replies = _replies(pair)
        one = Candidates(pair["prompt"], pair["subject"], replies)
        # In an order that tells nothing of the old label.
        first, second = sorted(replies, key=lambda reply: reply.text)
        compared.append((one, first, second))
    labelled = _label(compared, annotator, rng)
    return labelled, _summary(labelled, {})


def _require_candidates(candidates: Sequence[Candidates], k: int) -> None:
    if not len(candidates):
        raise ValueError("candidates is empty: nothing to compare")
    for number, one in enumerate(candidates):
        if len(one.replies) < k:
            raise ValueError(
                f"candidates[{number}] ({one.prompt!r}) has {len(one.replies)} "
                f"replies; expected at least {k}"
            )
        for reply in one.replies:
            if not np.isfinite(reply.gold.total):
                raise ValueError(
                    f"candidates[{number}] ({one.prompt!r}) has a gold reward of "
                    f"{reply.gold.total}; rewards must be finite numbers"
                )


def _fault(first: Reply, second: Reply, keep_unended: bool) -> str | None:
    if first.text == second.text:
        return "identical"
    if not keep_unended and not (first.ended and second.ended):
        return "not ended"
    return None


def _some(items: list, n: int | None, rng: np.random.Generator) -> list:
    if n is None or len(items) <= n:
        return items
    return [items[i] for i in rng.choice(len(items), n, replace=False)]


def _label(compared, annotator, rng: np.random.Generator) -> list[Row]:
    rows = []
    for (one, first, second), coin in zip(compared, rng.random(len(compared))):
        probability = annotator(first, second)
        if coin < probability:
            rows.append(_pair(one, first, second, probability))
        else:
            rows.append(_pair(one, second, first, 1 - probability))
    return rows


def _pair(one: Candidates, chosen: Reply, rejected: Reply, probability: float) -> Row:
    parts = {
        f"{part}_{side}": getattr(reply.gold, part)
        for part in PARTS
        for side, reply in (("chosen", chosen), ("rejected", rejected))
    }
    gap = chosen.gold.total - rejected.gold.total
    return {
        "prompt": one.prompt,
        "chosen": chosen.text,
        "rejected": rejected.text,
        "subject": one.subject,
        "probability": float(probability),
        "gold_chosen": chosen.gold.total,
        "gold_rejected": rejected.gold.total,
        **parts,
        "tie": abs(gap) < SAME_GOLD,
        "noisy": gap <= -SAME_GOLD,
    }


def _replies(pair: Row) -> tuple[Reply, Reply]:
    """The two replies of a row, chosen first, as they were before it was written."""
    return tuple(
        Reply(
            pair[side],
            Gold(pair[f"gold_{side}"], *(pair[f"{part}_{side}"] for part in PARTS), {}),
        )
        for side in ("chosen", "rejected")
    )


def _require_gold_columns(pairs: Sequence[Row]) -> None:
    golds = [f"{n}_{s}" for n in ("gold", *PARTS) for s in ("chosen", "rejected")]
    require_columns(pairs, ("prompt", "chosen", "rejected", "subject", *golds))


def _summary(pairs: list[Row], dropped: Mapping[str, int]) -> Summary:
    noted = {
        "ties": sum(pair["tie"] for pair in pairs),
        "noisy": sum(pair["noisy"] for pair in pairs),
    }
    return Summary(len(pairs), dropped, noted)


def _plackett_luce(
    annotator: Annotator, replies: list[Reply], rng: np.random.Generator
) -> np.ndarray:
    # Gumbel noise on u/T makes the order of the sums a Plackett–Luce draw.
    rewards, noise = annotator.rewards(replies), rng.gumbel(size=len(replies))
    if annotator.temperature:
        return np.argsort(-(rewards / annotator.temperature + noise))
    return np.lexsort((noise, -np.round(rewards / SAME_GOLD)))  # ties by a coin


def _ranking_row(one: Candidates, best_first: list[Reply]) -> Row:
    return {
        "prompt": one.prompt,
        "subject": one.subject,
        "completions": [reply.text for reply in best_first],
        "gold": [reply.gold.total for reply in best_first],
        **{part: [getattr(r.gold, part) for r in best_first] for part in PARTS},
    }


def _ranked_replies(number: int, ranking: Row) -> list[Reply]:
    columns = [ranking[name] for name in ("completions", "gold", *PARTS)]
    lengths = {len(column) for column in columns}
    if len(lengths) > 1 or min(lengths) < 2:
        raise ValueError(
            f"rankings[{number}] has lists of {sorted(lengths)} entries; expected "
            "equal lengths of at least 2"
        )
    return [
        Reply(text, Gold(total, *parts, {}))
        for text, total, *parts in zip(*columns, strict=True)
    ]


# --- Exact ceilings and floors --------------------------------------------------------
# What the best possible model can expect on labels that are drawn with known
# probabilities. Each is symmetric in p and 1-p: it does not matter whose probability is
# given, the first's or the chosen's.


def accuracy_ceiling(probability: Sequence[float]) -> float:
    r"""The best expected accuracy on the labels, :math:`E[\max(p, 1-p)]`: always say
    what is likelier. In [0.5, 1]; noisier annotators lower it.

    Raises:
        ValueError: if there is no probability, or one is outside [0, 1].
    """
    p = _probabilities(probability)
    return float(np.maximum(p, 1 - p).mean())


def brier_floor(probability: Sequence[float]) -> float:
    r"""The least expected Brier score, :math:`E[p(1-p)]`, of one forecast per pair.

    The forecast p errs by (1-p)² with probability p and by p² otherwise:
    :math:`p(1-p)^2 + (1-p)p^2 = p(1-p)`. It is not :math:`\min(p^2, (1-p)^2)`, the
    error of p when the likelier label comes, which no forecaster can count on. In
    [0, 0.25].

    Raises:
        ValueError: if there is no probability, or one is outside [0, 1].
    """
    p = _probabilities(probability)
    return float((p * (1 - p)).mean())


def nll_floor(probability: Sequence[float]) -> float:
    r"""The least expected Bradley–Terry loss, in nats per pair: the mean entropy
    :math:`E[H(p)] = E[-p \log p - (1-p) \log(1-p)]`. In [0, log 2].

    Raises:
        ValueError: if there is no probability, or one is outside [0, 1].
    """
    p = _probabilities(probability)
    return float((entr(p) + entr(1 - p)).mean())


def label_agreement(probability: Sequence[float]) -> float:
    r"""How often two labels of the same pair, drawn independently, agree:
    :math:`E[p^2 + (1-p)^2]`. What studies report as agreement between annotators; a
    model can do better, up to :func:`accuracy_ceiling`.

    Raises:
        ValueError: if there is no probability, or one is outside [0, 1].
    """
    p = _probabilities(probability)
    return float((p**2 + (1 - p) ** 2).mean())


def gold_order_accuracy(
    pairs: Sequence[Row], differences: Float[np.ndarray, "pairs"]
) -> float:
    """Share of the pairs that are put in the order of their gold, whatever the label.

    Pairs of equal gold are left out; a difference of 0 is half right, so that a
    constant reward is at chance. A perfect judge reaches 1, however noisy the labels.

    Args:
        pairs: with ``gold_chosen`` and ``gold_rejected``.
        differences: for each pair, a reward of the chosen minus that of the rejected.

    Raises:
        ValueError: if the lengths differ, a difference is NaN, a column is missing, or
            every pair is a tie.
    """
    require_columns(pairs, ("gold_chosen", "gold_rejected"))
    differences = np.asarray(differences, dtype=float)
    if differences.shape != (len(pairs),) or np.isnan(differences).any():
        raise ValueError(
            f"differences have shape {differences.shape} for {len(pairs)} pairs; "
            "expected one number for each, and no NaN"
        )
    gaps = np.array([pair["gold_chosen"] - pair["gold_rejected"] for pair in pairs])
    decided = np.abs(gaps) >= SAME_GOLD
    if not decided.any():
        raise ValueError(
            f"pairs: all {len(pairs)} are of equal gold, so none has an order"
        )
    return float((0.5 + 0.5 * np.sign(differences * gaps)[decided]).mean())


def _probabilities(probability: Sequence[float]) -> np.ndarray:
    p = np.asarray(probability, dtype=float)
    if p.ndim != 1 or not len(p) or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(
            f"probability has shape {p.shape} and values {p.ravel()[:5]}…; expected "
            "one number in [0, 1] per pair, and at least one pair"
        )
    return p


# --- Guards, for pairs of any origin --------------------------------------------------


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


def split_pairs(rows: Sequence[Row], by: str = "prompt") -> tuple[list, list]:
    """Train and test rows, all rows of one prompt on the same side.

    About one prompt in five is for testing, decided by its text alone
    (``readers.split_of``): no row changes sides when others come or go.

    Args:
        rows: pairs or rankings.
        by: the column that must not be on both sides.

    Raises:
        ValueError: if a row lacks the column, or one side would be empty.
    """
    require_columns(rows, (by,), "rows")
    train = [row for row in rows if split_of(str(row[by])) == "train"]
    test = [row for row in rows if split_of(str(row[by])) == "test"]
    if not train or not test:
        different = len({str(row[by]) for row in rows})
        raise ValueError(
            f"rows leave {len(train)} to train on and {len(test)} to test on: "
            f"{different} different values of {by!r} are too few to split"
        )
    return train, test


def require_disjoint(
    train: Sequence[Row], test: Sequence[Row], by: Sequence[str] = ("prompt",)
) -> None:
    """Check that nothing in these columns is in both splits, in whichever column; case,
    spaces and punctuation do not count.

    Raises:
        ValueError: if something is, naming it; or if a split is empty.
    """
    require_columns(train, by, "train")
    require_columns(test, by, "test")
    seen = {_words(row[column]) for row in train for column in by}
    leaked = {
        _words(row[column]): row[column]
        for row in test
        for column in by
        if _words(row[column]) in seen
    }
    if leaked:
        example = next(iter(leaked.values()))
        raise ValueError(
            f"train and test share {len(leaked)} of {', '.join(by)}, such as "
            f"{str(example)[:80]!r}: split by it before anything else (split_pairs)"
        )


def _words(value: object) -> str:
    return " ".join(re.findall(r"\w+", str(value).casefold())) or str(value)


def clean_pairs(
    pairs: Sequence[Row], tokenizer, max_length: int
) -> tuple[list[Row], Summary]:
    """What is fit to train on: pairs that still differ when cut to ``max_length``.

    Each reply is put through the chat template, once, behind its prompt. Pairs whose
    first ``max_length`` tokens agree are dropped. Kept and counted are pairs of which a
    side is cut short: it has lost the token that ends it.

    Args:
        pairs: `prompt`, `chosen`, `rejected` as plain texts or as chat messages, not
            yet in a template.
        tokenizer: of the reward model.
        max_length: of prompt and reply, in tokens; a larger one cuts less.

    Raises:
        ValueError: if a column is missing, a text already has the template's tokens,
            the template does not end a reply with the tokenizer's end token, or no
            pair is left.
    """
    require_columns(pairs)
    _require_plain(pairs, tokenizer)
    chosen, rejected = (
        _token_ids(pairs, side, tokenizer) for side in ("chosen", "rejected")
    )
    kept, cut = [], 0
    for pair, first, second in zip(pairs, chosen, rejected, strict=True):
        if first[:max_length] != second[:max_length]:
            kept.append(pair)
            cut += max(len(first), len(second)) > max_length
    if not kept:
        raise ValueError(
            f"pairs: all {len(pairs)} are identical in their first max_length="
            f"{max_length} tokens; raise it, or look at the data"
        )
    same = {"identical after truncation": len(pairs) - len(kept)}
    return kept, Summary(len(kept), same, {"cut short": cut})


def conversational(pairs: Sequence[Row]) -> list[Row]:
    """Pairs with chat messages in place of plain texts: TRL puts such rows, and only
    such, through the chat template. Other columns stay."""
    require_columns(pairs)
    return [
        pair
        | {
            "prompt": _messages(pair["prompt"], "user"),
            "chosen": _messages(pair["chosen"], "assistant"),
            "rejected": _messages(pair["rejected"], "assistant"),
        }
        for pair in pairs
    ]


def _messages(text: str | list[dict], role: str) -> list[dict]:
    return [{"role": role, "content": text}] if isinstance(text, str) else text


def _require_plain(pairs: Sequence[Row], tokenizer) -> None:
    special = [token for token in tokenizer.all_special_tokens if token]
    for number, pair in enumerate(conversational(pairs)):
        for column in ("prompt", "chosen", "rejected"):
            said = "".join(message["content"] for message in pair[column])
            found = [token for token in special if token in said]
            if found:
                raise ValueError(
                    f"pairs[{number}] has {found[0]!r} in its {column}; give plain "
                    "text or messages: the chat template is applied once, when encoding"
                )


def _token_ids(pairs: Sequence[Row], side: str, tokenizer) -> list[list[int]]:
    chats = [pair["prompt"] + pair[side] for pair in conversational(pairs)]
    texts = tokenizer.apply_chat_template(chats, tokenize=False)
    end = tokenizer.eos_token
    for number, text in enumerate(texts):
        if not end or not text.rstrip().endswith(end):
            raise ValueError(
                f"tokenizer: its chat template does not end the {side} reply of pairs"
                f"[{number}] with eos_token={end!r}, so a reward model could not know "
                "that it ended. Mend the template or eos_token"
            )
    return tokenizer(texts, add_special_tokens=False)["input_ids"]
