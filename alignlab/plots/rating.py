"""You as the annotator: a blind comparison of systems, pair by pair, kept as JSON.

Two replies to one prompt, sides shuffled, names hidden until all pairs are rated. What
was preferred is fitted with Bradley and Terry's model after every rating; the rater is
a person at the panel of :mod:`rating_panel`, or simulated.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.stats import norm

from alignlab.errors import AlignlabError
from alignlab.evaluation.intervals import Interval, wilson_interval
from alignlab.evaluation.strengths import bradley_terry_strengths
from alignlab.files import read_json, write_json
from alignlab.seeds import stream

Prefer = Callable[[str, str, str], float]
Choice = Literal["left", "right", "tie", "skip"]
CHOICES: tuple[Choice, ...] = ("left", "right", "tie", "skip")
REMEDY = "Choose another path to start anew, or delete the file."
PRIOR_WINS = 0.5  # each way between two systems: Jeffreys' prior, if there are two


# --- Pairs ----------------------------------------------------------------------------


@dataclass(frozen=True)
class BlindPair:
    """Two systems' replies to one prompt, as a rater sees them.

    Attributes:
        left, right: the replies.
        names: of the first and the second system.
        swapped: whether the first system's reply stands on the right. Printing a pair
            does not show it.
    """

    prompt: str
    left: str
    right: str
    names: tuple[str, str]
    swapped: bool = field(repr=False)

    @property
    def sides(self) -> tuple[str, str]:
        """The names of the systems on the left and on the right."""
        return self.names[::-1] if self.swapped else self.names


def pairs_to_rate(
    prompts: Sequence[str],
    replies_a: Sequence[str],
    replies_b: Sequence[str],
    names: tuple[str, str] = ("SFT", "best of 8"),
    seed: int = 0,
    n: int = 20,
) -> list[BlindPair]:
    """Blind pairs of two systems' replies, in random order. Each system stands on the
    left in half of them, so a rater who prefers a side favours no system.

    Equal replies leave nothing to choose: they are left out, so win rates are those
    over replies that differ. Pairs of several calls can be rated in one session.

    Args:
        prompts: what both systems replied to.
        replies_a, replies_b: a reply of each system to each prompt.
        names: of the two systems; the first is what the others are measured against.
        seed: draws the prompts, their order and the sides.
        n: most pairs to rate; higher narrows the intervals and takes longer.

    Raises:
        ValueError: if the lengths or n do not fit, the two names are the same, or all
            replies are equal.
    """
    if not len(prompts) == len(replies_a) == len(replies_b):
        raise ValueError(
            f"{len(prompts)} prompts, {len(replies_a)} replies_a and {len(replies_b)} "
            "replies_b: each prompt needs a reply of each system"
        )
    if len(set(names)) != 2 or n < 1:
        raise ValueError(f"names are {names} and n is {n}; expected two names, n >= 1")
    differ = [i for i in range(len(prompts)) if replies_a[i] != replies_b[i]]
    if not differ:
        raise ValueError("replies_a and replies_b are the same: nothing is to be rated")
    rng = stream(seed, "pairs to rate, and their sides")
    drawn = rng.permutation(differ)[:n]
    swapped = rng.permutation((np.arange(len(drawn)) + rng.integers(2)) % 2 == 1)
    return [
        _pair(prompts[i], (replies_a[i], replies_b[i]), tuple(names), bool(swap))
        for i, swap in zip(drawn.tolist(), swapped, strict=True)
    ]


def _pair(prompt: str, replies: tuple[str, str], names, swapped: bool) -> BlindPair:
    left, right = replies[::-1] if swapped else replies
    return BlindPair(prompt, left, right, names, swapped)


# --- Ratings --------------------------------------------------------------------------


class RatingSession:
    """Ratings of pairs, in their order; with a path, they outlive the kernel.

    Args:
        pairs: of :func:`pairs_to_rate`.
        path: a JSON file, written whole after each rating. If it exists, the session
            goes on from it. It holds the pairs with the systems' names: whoever opens
            it before the end is no longer blind. None keeps ratings in memory.

    Attributes:
        ratings: a choice for each pair so far.
        revealed: whether the rater has been told which system wrote what; then
            ratings are closed.

    Raises:
        ValueError: without pairs.
        AlignlabError: if the file is of other pairs, or cannot be read.
    """

    def __init__(self, pairs: Sequence[BlindPair], path: str | Path | None = None):
        if not pairs:
            raise ValueError("pairs is empty: there is nothing to rate")
        self.pairs = list(pairs)
        self.path = None if path is None else Path(path)
        self.systems = list(dict.fromkeys(n for pair in self.pairs for n in pair.names))
        self.ratings: list[Choice] = []
        self.revealed = False
        if self.path is not None and self.path.exists():
            self.ratings, self.revealed = _read_ratings(self.path, self.pairs)

    @property
    def current(self) -> BlindPair | None:
        """The pair to rate next; None after the last."""
        return None if self.done else self.pairs[len(self.ratings)]

    @property
    def done(self) -> bool:
        """Whether every pair is rated or skipped."""
        return len(self.ratings) == len(self.pairs)

    def rate(self, choice: Choice) -> None:
        """Say which reply of the current pair is better, and save.

        Args:
            choice: "left", "right", "tie" (about equal: half a win for each) or "skip"
                (no opinion: the pair counts for nothing).

        Raises:
            ValueError: on another choice.
            AlignlabError: if all pairs are rated, or the ratings cannot be saved; then
                the choice is not kept.
        """
        if choice not in CHOICES:
            raise ValueError(f"choice is {choice!r}; expected one of {CHOICES}")
        if self.done:
            raise AlignlabError(
                f"All {len(self.pairs)} pairs are rated.",
                "Undo a rating, or start a session of other pairs.",
            )
        self._save([*self.ratings, choice])

    def undo(self) -> None:
        """Take the last rating back, and save; without one, nothing happens.

        Raises:
            AlignlabError: if the systems are revealed already.
        """
        if self.revealed:
            raise AlignlabError(
                "The systems are revealed, so these ratings are closed.",
                "Start a session of other pairs, or delete its file.",
            )
        if self.ratings:
            self._save(self.ratings[:-1])

    def reveal(self) -> None:
        """End the blind: from now on the systems are called by their names.

        Raises:
            AlignlabError: if a pair is neither rated nor skipped.
        """
        if not self.done:
            left = len(self.pairs) - len(self.ratings)
            raise AlignlabError(
                f"{left} of {len(self.pairs)} pairs are not rated yet.",
                "Rate or skip them first: who knows the systems is no longer blind.",
            )
        self._save(self.ratings, revealed=True)

    def _save(self, ratings: list[Choice], revealed: bool = False) -> None:
        if self.path is not None:
            content = {
                "pairs": [_as_row(pair) for pair in self.pairs],
                "ratings": ratings,
                "revealed": revealed,
            }
            try:
                write_json(self.path, content)
            except OSError as error:
                raise AlignlabError(
                    f"{self.path} cannot be written: {error.strerror or error}.",
                    "The rating is not kept; make room or choose another path.",
                ) from error
        self.ratings, self.revealed = ratings, revealed

    # What the ratings say

    def wins(self) -> Float[np.ndarray, "systems systems"]:
        """How often each system (row) was preferred to each other one (column), in the
        order of ``systems``; a tie is half a win for both."""
        counts = np.zeros((len(self.systems),) * 2)
        left_share = {"left": 1.0, "tie": 0.5, "right": 0.0}
        for pair, choice in zip(self.pairs, self.ratings):
            if choice != "skip":
                left, right = map(self.systems.index, pair.sides)
                counts[left, right] += left_share[choice]
                counts[right, left] += 1 - left_share[choice]
        return counts

    def fit(self, level: float = 0.95) -> dict[str, Interval]:
        """Bradley–Terry strength of each system but the first, minus that of the first,
        in logits: 0 is equally good, 1.1 is preferred three times in four.

        It exists from the first rating on, see :func:`bradley_terry_strengths`.

        Args:
            level: coverage; a higher one gives wider intervals.
        """
        return self._strengths(self.systems, level)

    def _strengths(self, systems: Sequence[str], level: float) -> dict[str, Interval]:
        order = [self.systems.index(name) for name in systems]
        compared = np.zeros((len(systems),) * 2)
        for pair in self.pairs:
            first, second = map(list(systems).index, pair.names)
            compared[first, second] = compared[second, first] = 1
        strengths, covariance = bradley_terry_strengths(
            self.wins()[np.ix_(order, order)] + PRIOR_WINS * compared
        )
        half = norm.ppf((1 + level) / 2) * np.sqrt(np.diag(covariance))
        limits = zip(strengths, strengths - half, strengths + half)
        intervals = [Interval(*map(float, three)) for three in limits]
        return dict(zip(systems[1:], intervals[1:], strict=True))

    def win_rate(self, system: str | None = None, level: float = 0.95) -> Interval:
        """How often a system was preferred in its comparisons, ties counting half, with
        Wilson's interval: for this rater, over prompts. 0.5 (0 to 1) without ratings.

        Args:
            system: its name; by default the second one.
            level: coverage; a higher one gives a wider interval.

        Raises:
            ValueError: on an unknown system.
        """
        system = self.systems[1] if system is None else system
        if system not in self.systems:
            raise ValueError(f"system is {system!r}; expected one of {self.systems}")
        wins, number = self.wins(), self.systems.index(system)
        won, lost = wins[number].sum(), wins[:, number].sum()
        if won + lost == 0:
            return Interval(0.5, 0.0, 1.0)
        return wilson_interval(float(won), int(round(won + lost)), level)

    def called(self) -> dict[str, str]:
        """What to call each system: until the end by a letter, in random order."""
        if self.revealed:
            return {name: name for name in self.systems}
        seed = int(digest(self.pairs)[:8], 16)
        order = stream(seed, "letters in place of names").permutation(self.systems)
        return {str(name): f"System {'ABCDEFGHIJ'[i]}" for i, name in enumerate(order)}

    def summary(self) -> str:
        """What the ratings say so far, in sentences. It names no system before the
        end."""
        counts = Counter(self.ratings)
        rated = len(self.ratings) - counts["skip"]
        if not rated:
            return "Nothing is rated yet."
        called = self.called()
        first, *others = called
        text = f"{rated} of {len(self.pairs)} pairs rated"
        text += f", {counts['tie']} of them about equal." if counts["tie"] else "."
        for name, strength in self._strengths([first, *others], 0.95).items():
            name, other, rate = called[name], called[first], self.win_rate(name)
            text += (
                f" {name} is preferred in {rate:.0%} of its comparisons. Its lead over "
                f"{other} on Bradley and Terry's scale, where 0 is equally good, is "
                f"{strength:+.2f}, {_told(strength, name, other)}."
            )
        return text


def simulate(session: RatingSession, prefer: Prefer, seed: int = 0) -> RatingSession:
    """Rate what is left of a session with a simulated rater, without widget or person.

    Args:
        session: is rated to its end, not revealed, and returned.
        prefer: gives the probability that the first of two replies to a prompt is
            preferred: ``prefer(prompt, first, second)``. It is not told who wrote them.
        seed: draws the choices.

    Raises:
        ValueError: if a probability is outside [0, 1].
    """
    rng = stream(seed, "a simulated rater's choices")
    while (pair := session.current) is not None:
        probability = prefer(pair.prompt, pair.left, pair.right)
        if not 0 <= probability <= 1:
            raise ValueError(f"prefer gave {probability}; expected a probability")
        session.rate("left" if rng.random() < probability else "right")
    return session


def _told(strength: Interval, name: str, other: str) -> str:
    if strength.low > 0:
        return f"so to this rater {name} is better"
    if strength.high < 0:
        return f"so to this rater {other} is better"
    return "which does not yet tell which of them is better"


# --- The file -------------------------------------------------------------------------


def _as_row(pair: BlindPair) -> dict:
    left, right = pair.sides
    return {
        "prompt": pair.prompt,
        "left": pair.left,
        "right": pair.right,
        "left_system": left,
        "right_system": right,
    }


def _read_ratings(path: Path, pairs: Sequence[BlindPair]) -> tuple[list[Choice], bool]:
    try:
        content = read_json(path)
        rows, ratings = content["pairs"], content["ratings"]
        revealed = bool(content["revealed"])
        if len(ratings) > len(rows) or not set(ratings) <= set(CHOICES):
            raise ValueError("more ratings than pairs, or unknown ones")
    except (ValueError, TypeError, KeyError) as error:
        raise AlignlabError(f"{path} holds no ratings.", REMEDY) from error
    if rows != [_as_row(pair) for pair in pairs]:
        raise AlignlabError(
            f"{path} holds ratings of other pairs than these {len(pairs)}: the replies,"
            " the seed or the systems have changed since.",
            REMEDY,
        )
    return ratings, revealed


def digest(pairs: Sequence[BlindPair]) -> str:
    """A name for these pairs and no others."""
    rows = json.dumps([_as_row(pair) for pair in pairs])
    return hashlib.sha256(rows.encode()).hexdigest()
