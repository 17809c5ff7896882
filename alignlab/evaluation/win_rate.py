"""Win rates: how often one policy's reply beats another's, ties and the order of
showing accounted for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from alignlab.evaluation.intervals import Interval, t_interval, wilson_interval

TIE = 1e-9  # scores closer than this are equal

Judge = Callable[[str, str, str], float]


@dataclass(frozen=True)
class WinRate:
    """Counts of one side's wins, ties and losses; a tie is half a win."""

    wins: int
    ties: int
    losses: int

    def __post_init__(self):
        if min(self.wins, self.ties, self.losses) < 0 or not self.n:
            raise ValueError(f"{self}: expected counts, not all of them 0")

    @property
    def n(self) -> int:
        return self.wins + self.ties + self.losses

    @property
    def rate(self) -> float:
        """(wins + ties / 2) / n: 0.5 is as good as the other."""
        return (self.wins + self.ties / 2) / self.n

    def interval(self, level: float = 0.95) -> Interval:
        """Wilson's interval for comparisons of independent prompts. A tie varies less
        than a win or a loss, so where there are ties it is wider than it need be.

        Args:
            level: coverage; higher is wider.

        Source: Wilson (1927).
        """
        return wilson_interval(self.wins + self.ties / 2, self.n, level)


def win_rate(
    first: Float[np.ndarray, "..."], second: Float[np.ndarray, "..."], tie: float = TIE
) -> WinRate:
    """How often the first score is higher, place by place.

    Args:
        first, second: scores of replies to the same prompts, on one scale.
        tie: scores closer than this are equal; higher counts more ties.

    Raises:
        ValueError: if the shapes differ, or a score is not finite.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.shape != second.shape or not np.isfinite([first, second]).all():
        raise ValueError(
            f"first has shape {first.shape} and second {second.shape}: expected as "
            "many finite scores in each"
        )
    gap = first - second
    wins, losses = int((gap >= tie).sum()), int((gap <= -tie).sum())
    return WinRate(wins, gap.size - wins - losses, losses)


@dataclass(frozen=True)
class SwappedJudgement:
    """What a judge said who was shown every pair in both orders.

    Attributes:
        win_rate: of the first replies; a win takes a win in both orders, or a win in
            one and a tie in the other.
        consistency: share of pairs on which both orders agree.
        first_place: share of showings that went to the reply shown first, ties one
            half: 0.5 for a judge who does not care about the order.
    """

    win_rate: WinRate
    consistency: float
    first_place: float


def judge_both_orders(
    judge: Judge,
    prompts: Sequence[str],
    first: Sequence[str],
    second: Sequence[str],
) -> SwappedJudgement:
    """Show a judge each pair in both orders, so that a liking for the first place gives
    ties instead of wins.

    Args:
        judge: ``judge(prompt, shown first, shown second)``: above 0.5 for the reply
            shown first, 0.5 for a tie. A probability will do: only its side counts.
        prompts, first, second: two replies to each prompt.

    Raises:
        ValueError: if the lengths differ or there is no pair.

    Source: Zheng et al. (2023), Judging LLM-as-a-judge, section 3.4.
    """
    if not len(prompts) or not len(prompts) == len(first) == len(second):
        raise ValueError(
            f"{len(prompts)} prompts with {len(first)} and {len(second)} replies: "
            "expected one of each, and one prompt or more"
        )
    triples = list(zip(prompts, first, second, strict=True))
    straight = np.sign([judge(p, a, b) - 0.5 for p, a, b in triples])
    swapped = np.sign([0.5 - judge(p, b, a) for p, a, b in triples])
    outcome = np.sign(straight + swapped)
    counts = [int((outcome == sign).sum()) for sign in (1, 0, -1)]
    return SwappedJudgement(
        WinRate(*counts),
        consistency=float((straight == swapped).mean()),
        first_place=float(0.5 + (straight - swapped).mean() / 4),
    )


def over_seeds(rates: Sequence[WinRate], level: float = 0.95) -> Interval:
    """Mean win rate over seeds, with Student's interval: policies are the unit, not
    prompts. One seed gives no limits; see ``WinRate.interval``."""
    return t_interval([one.rate for one in rates], level)
