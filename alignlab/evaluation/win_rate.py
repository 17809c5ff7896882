"""Win rates: how often one policy's reply beats another's."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from alignlab.evaluation.intervals import Interval, t_interval

TIE = 1e-9  # scores closer than this are equal


@dataclass(frozen=True)
class WinRate:
    """Counts of wins, ties and losses; a tie counts as half a win."""

    wins: int
    ties: int
    losses: int

    def __post_init__(self):
        if min(self.wins, self.ties, self.losses) < 0 or not self.n:
            raise ValueError(f"{self}: expected counts that are not all 0")

    @property
    def n(self) -> int:
        return self.wins + self.ties + self.losses

    @property
    def rate(self) -> float:
        """(wins + ties / 2) / n; 0.5 means that both are equally good."""
        return (self.wins + self.ties / 2) / self.n


def win_rate(
    first: Float[np.ndarray, "..."], second: Float[np.ndarray, "..."], tie: float = TIE
) -> WinRate:
    """How often the first score is higher, compared element by element.

    Args:
        first, second: scores of replies to the same prompts, on one scale.
        tie: scores closer than this are equal; higher counts more ties.

    Raises:
        ValueError: if the shapes differ, or a score is not finite.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.shape != second.shape or not np.isfinite([first, second]).all():
        raise ValueError(
            f"first has shape {first.shape} and second {second.shape}: expected equal "
            "shapes and finite scores"
        )
    gap = first - second
    wins, losses = int((gap >= tie).sum()), int((gap <= -tie).sum())
    return WinRate(wins, gap.size - wins - losses, losses)


def over_seeds(rates: Sequence[WinRate], level: float = 0.95) -> Interval:
    """Mean win rate over seeds, with Student's interval: the unit is the policy, not
    the prompt. A single seed gives infinite limits; a higher level is wider."""
    return t_interval([win_rate.rate for win_rate in rates], level)
