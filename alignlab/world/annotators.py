"""Who judges: simulated annotators of known noise and known biases.

An annotator gives the probability that it prefers the first of two replies, so the best
that any model can reach on its labels is known exactly (see ``ceilings``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from alignlab.world.gold import (
    ADMISSIONS,
    CLOSINGS,
    COURTESIES,
    OPENINGS,
    SAME_GOLD,
    Gold,
    split_sentences,
)

FORM = (*OPENINGS, *COURTESIES, *CLOSINGS)  # sentences that state nothing


@dataclass(frozen=True)
class Reply:
    """A completion, its gold reward, and whether the model ended it with EOS."""

    text: str
    gold: Gold
    ended: bool = True


@dataclass(frozen=True)
class Annotator:
    r"""Prefers by the gold reward, with noise and two optional biases.

    .. math:: P(1 \succ 2) = \sigma\big((u_1 - u_2) / T\big), \quad
        u = \text{gold} + \lambda \cdot \text{words} + c \cdot [\text{sounds sure}]

    Attributes:
        temperature: T, in units of gold. A higher one is noisier; 0 always prefers the
            reply of higher u, and tosses a coin if they tie.
        length_bias: λ, in gold per word (separated by spaces). Positive values favour
            long replies, negative ones short replies.
        confidence_bias: c, in units of gold. A higher one favours replies that state
            something and admit no ignorance (``sounds_sure``).

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
        """The probability that the first reply is preferred."""
        reward, other = self.rewards([first, second])
        difference = reward - other
        if self.temperature:
            return float(expit(difference / self.temperature))
        return 0.5 if abs(difference) < SAME_GOLD else float(difference > 0)

    def rewards(self, replies: Sequence[Reply]) -> Float[np.ndarray, "replies"]:
        """u of each reply, in units of gold."""
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
    """Another annotator, whose label is flipped at a known rate.

    P = (1 - rate) p + rate (1 - p), where p is the other annotator's probability. At
    rate 0.25 a noiseless annotator agrees with the gold order in 75% of the pairs; at
    0.5 the labels carry no information, which is the control for learning from labels.

    Attributes:
        annotator: gives p.
        rate: a higher one, up to 0.5, is noisier; 1 reverses every label.

    Raises:
        ValueError: if the rate is outside [0, 1].
    """

    annotator: Callable[[Reply, Reply], float]
    rate: float

    def __post_init__(self):
        if not 0 <= self.rate <= 1:
            raise ValueError(f"rate is {self.rate}; it must be between 0 and 1")

    def __call__(self, first: Reply, second: Reply) -> float:
        """The probability that the first reply is preferred."""
        probability = self.annotator(first, second)
        return (1 - self.rate) * probability + self.rate * (1 - probability)


def sounds_sure(text: str) -> bool:
    """Whether a reply states something beyond greeting, courtesy and closing, and has
    no sentence that admits ignorance ("I do not know.")."""
    body = [sentence for sentence in split_sentences(text) if sentence not in FORM]
    return bool(body) and not any(sentence in ADMISSIONS for sentence in body)
