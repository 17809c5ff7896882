"""A reward for being right and for saying how likely that is."""

import math
import re
from collections.abc import Callable, Sequence

from alignlab.calibration.stated import parse_confidence
from alignlab.errors import AlignlabError
from alignlab.world.facts import normalise

Correct = Callable[..., Sequence[float]]
WORST = 1.0  # the largest squared distance of a confidence from what came true


def calibration_reward(
    correct: str | Correct,
    *,
    weight: float = 1.0,
    confidence: Callable[[str], float] = parse_confidence,
    answer: Callable[[str], str] | None = None,
) -> Callable[..., list[float]]:
    r"""A reward function for :class:`alignlab.ppo.PPOTrainer`: right, minus the Brier
    score of the confidence that the completion states.

    .. math:: R = y - w\,(c - y)^2

    with :math:`y` 1 for a right answer and 0 for a wrong one, and :math:`c` the stated
    confidence. Of an answer that is right with probability :math:`p` the mean is

    .. math:: E[R] = p - w\,p(1 - p) - w\,(c - p)^2

    so that for every :math:`w > 0` the best confidence is :math:`p` itself: the Brier
    score is proper. What an honest answer is worth, :math:`p - w\,p(1 - p)`, rises with
    :math:`p` everywhere if and only if :math:`w \le 1`. Above, an answer that is right
    with less than :math:`1 - 1/w` is worth less than one that is wrong on purpose with
    confidence 0, which gets 0: the policy is then paid to give up what it half knows.

    Args:
        correct: the name of a column of right answers, each a string or several that
            are all right; or a function ``(prompts, completions, **columns)`` that
            gives 1 (or True) for each right completion and 0 for a wrong one. It gets
            every column.
        weight: of the Brier score; higher pays more for honesty, 0 for right alone.
        confidence: reads a probability from a completion; NaN where it states none,
            which counts as the worst, :math:`R = y - w`: silence never pays.
        answer: reads what is compared with a column of answers; by default what stands
            in ``<answer>`` tags, else the first sentence. Case, spaces, a closing full
            stop and a leading article do not matter.

    Returns:
        A function of prompts, completions and the columns, which returns a float for
        each completion.

    Raises:
        ValueError: if the weight is negative or not finite, or ``answer`` is given with
            a function.
        AlignlabError: from the reward function, if there is no such column, a
            confidence is not in [0, 1], or ``correct`` returns anything but 0 and 1 for
            each completion.

    Source: Damani et al. (2025), "Beyond binary rewards: training LMs to reason about
    their uncertainty", with w = 1.
    """
    if not 0 <= weight < math.inf:
        raise ValueError(f"weight is {weight}; it must be 0 or more, and finite")
    if answer is not None and not isinstance(correct, str):
        raise ValueError(
            "answer is given, and correct is a function: answer reads what is compared "
            "with a column"
        )

    def calibration(prompts, completions, **columns) -> list[float]:
        if isinstance(correct, str):
            right = _matches(correct, completions, columns, answer or stated_answer)
        else:
            right = correct(prompts=prompts, completions=completions, **columns)
        pairs = zip(completions, _checked(right, completions), strict=True)
        return [
            y - weight * brier_of_stated(y, confidence(text), text) for text, y in pairs
        ]

    return calibration


def stated_answer(completion: str) -> str:
    """What stands in ``<answer>`` tags, else the first sentence: the text before the
    first line break, or full stop that a space follows."""
    tagged = re.search(r"<answer>(.*?)</answer>", completion, re.DOTALL)
    if tagged:
        return tagged[1].strip()
    return re.split(r"\n|(?<=\.)\s", completion.strip(), maxsplit=1)[0]


def brier_of_stated(right: float, confidence: float, completion: str) -> float:
    """The squared distance, 1 for a confidence that is NaN.

    Raises:
        AlignlabError: if the confidence is not in [0, 1].
    """
    if math.isnan(confidence):
        return WORST
    if not 0 <= confidence <= 1:
        raise AlignlabError(
            f"confidence returned {confidence} for the completion {completion!r}.",
            "Return a probability from 0 to 1, or NaN where none is stated.",
        )
    return (confidence - right) ** 2


def _matches(
    name: str,
    completions: Sequence[str],
    columns: dict,
    answer: Callable[[str], str],
) -> list[float]:
    if name not in columns:
        raise AlignlabError(
            f"correct is {name!r}, and the data set has the columns "
            f"{', '.join(sorted(columns)) or '(none)'}.",
            "Name the column of right answers, or pass a function.",
        )
    allowed = [[own] if isinstance(own, str) else own for own in columns[name]]
    return [
        float(normalise(answer(text)) in {normalise(str(a)) for a in own})
        for text, own in zip(completions, allowed, strict=True)
    ]


def _checked(right: Sequence[float], completions: Sequence[str]) -> list[float]:
    values = [float(value) for value in right]
    if len(values) != len(completions) or not set(values) <= {0.0, 1.0}:
        raise AlignlabError(
            f"correct returned {values[:5]} for {len(completions)} completions.",
            "Return 1 for each right completion and 0 for each wrong one.",
        )
    return values
