"""What rewards are worth, worked out from the replies' known gold.

Rewards come as an arm of ``reward_modeling`` gives them, at [subject][reply], and pairs
as ``alignment.comparisons`` makes them of the same replies. Nothing is trained here.
"""

from collections.abc import Sequence
from math import comb

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit
from scipy.stats import norm

from alignlab.calibration.estimators import TemperatureScaler
from alignlab.calibration.inference import squared_error_interval
from alignlab.chapters.reward_modeling.runs import more_words
from alignlab.evaluation.intervals import Interval
from alignlab.study import artifacts as alignment
from alignlab.world.comparisons import SAME_GOLD, Candidates, Row, gold_order_accuracy
from alignlab.world.gold import PARTS, gold_reward
from alignlab.world.tasks import default_world


def differences(
    rewards: Sequence[Sequence[float]], some: Sequence[Candidates], pairs: Sequence[Row]
) -> Float[np.ndarray, "pairs"]:
    """Reward of each pair's chosen reply minus that of its rejected one.

    Raises:
        ValueError: if there is not one reward for each reply.
        KeyError: if a pair compares replies that are none of these.
    """
    if [len(row) for row in rewards] != [len(one.replies) for one in some]:
        raise ValueError("rewards: expected one for each reply of each request")
    table = {
        (one.prompt, reply.text): reward
        for one, row in zip(some, rewards, strict=True)
        for reply, reward in zip(one.replies, row, strict=True)
    }
    return np.array(
        [
            table[pair["prompt"], pair["chosen"]]
            - table[pair["prompt"], pair["rejected"]]
            for pair in pairs
        ]
    )


def measures(
    pairs: Sequence[Row], difference: Float[np.ndarray, "pairs"]
) -> dict[str, float]:
    r"""How good differences of rewards are, in four ways.

    Returns:
        ``label``: share of the labels that have the larger reward first; ``gold``:
        share of the pairs in their gold order (``gold_order_accuracy``); ``brier`` and
        ``nll`` of the probability :math:`\sigma(d)` that the chosen reply is chosen,
        the second in nats per pair: it is the Bradley–Terry loss.
    """
    return {
        "label": float((0.5 + 0.5 * np.sign(difference)).mean()),
        "gold": gold_order_accuracy(pairs, difference),
        "brier": float((expit(-difference) ** 2).mean()),
        "nll": float(np.logaddexp(0, -difference).mean()),
    }


# --- Which parts of gold a reward sees ------------------------------------------------


def part_differences(pairs: Sequence[Row]) -> Float[np.ndarray, "pairs 3"]:
    """Form, completeness and truth of each chosen reply minus the rejected one's."""
    return np.array(
        [[pair[f"{p}_chosen"] - pair[f"{p}_rejected"] for p in PARTS] for pair in pairs]
    )


def seen_parts(
    pairs: Sequence[Row], difference: Float[np.ndarray, "pairs"]
) -> dict[str, dict[str, float]]:
    """What a reward sees of each part of gold.

    Returns:
        For each part ``weight``: what one unit of gold in this part is worth to the
        reward, in units of what one of form is worth (least squares on the three
        differences); a reward that saw everything would give 1 to each. ``accuracy``:
        share of the pairs in the right order, of those that differ in this part and in
        no other; ``pairs``: how many these are. NaN where there is none.
    """
    parts = part_differences(pairs)
    slopes = np.linalg.lstsq(parts, difference, rcond=None)[0]
    found = {}
    for place, name in enumerate(PARTS):
        alone = only_in(parts, place)
        right = np.sign(difference[alone]) * np.sign(parts[alone, place])
        found[name] = {
            "weight": float(slopes[place] / slopes[0]),
            "accuracy": float((0.5 + 0.5 * right).mean()) if alone.any() else np.nan,
            "pairs": int(alone.sum()),
        }
    return found


def only_in(
    parts: Float[np.ndarray, "pairs 3"], place: int
) -> Bool[np.ndarray, "pairs"]:
    """Which pairs differ in this part of gold and in no other."""
    differs = np.abs(parts) >= SAME_GOLD
    return differs[:, place] & (differs.sum(axis=1) == 1)


# --- Length ---------------------------------------------------------------------------


def length_coefficient(pairs: Sequence[Row], level: float = 0.95) -> Interval:
    r"""What a word more is worth to whoever made these labels, in gold per word.

    Maximum likelihood of the very model that biased annotators follow,

    .. math:: P(1 \succ 2) = \sigma(a \, \Delta\text{gold} + b \, \Delta\text{words}),
        \qquad \hat\lambda = \hat b / \hat a,

    so that the estimate is consistent, and its interval (from the inverse information,
    by the delta method) covers in the long run as often as it says. Without gold beside
    it, words would get the credit for all that longer replies do better.

    Args:
        pairs: with gold, labelled independently; more of them narrow the interval.
        level: coverage; higher is wider.

    Raises:
        ValueError: if the labels follow gold and words without exception: no finite
            coefficient is likeliest then.
    """
    gold = [pair["gold_chosen"] - pair["gold_rejected"] for pair in pairs]
    x = np.column_stack([gold, [more_words(pair) for pair in pairs]])  # (N, 2)
    scale = np.abs(x).mean(axis=0)
    weights = np.zeros(2)
    for _ in range(100):  # Newton's method; the likelihood is concave
        wrong = expit(-(x / scale) @ weights)  # probability of the other label, (N,)
        spread = (wrong * (1 - wrong))[:, None] * (x / scale)
        information = (x / scale).T @ spread
        if np.linalg.eigvalsh(information)[0] < 1e-9:
            break
        step = np.linalg.solve(information, (x / scale).T @ wrong)
        weights = weights + step
        if np.abs(step).max() < 1e-10:
            covariance = np.linalg.inv(information) / np.outer(scale, scale)
            return _ratio(weights / scale, covariance, level)
    raise ValueError(
        f"pairs: all {len(pairs)} labels follow gold and words without exception, so "
        "no finite coefficient is the likeliest; give noisier or more labels"
    )


def _ratio(slopes, covariance, level: float) -> Interval:
    """Second over first of two estimates, with the interval of the delta method."""
    a, b = slopes
    gradient = np.array([-b / a, 1.0]) / a
    half = norm.ppf((1 + level) / 2) * np.sqrt(gradient @ covariance @ gradient)
    return Interval(float(b / a), float(b / a - half), float(b / a + half))


def length_weight(pairs: Sequence[Row], difference: Float[np.ndarray, "pairs"]):
    """What a word more is worth to a reward, in gold (of form) per word: least squares
    on the three parts of gold and the words, the words' slope over that of form. It
    compares with the annotators' λ."""
    words = np.array([more_words(pair) for pair in pairs], float)
    columns = np.column_stack([part_differences(pairs), words])
    slopes = np.linalg.lstsq(columns, difference, rcond=None)[0]
    return float(slopes[3] / slopes[0])


def without_length(
    rewards: Sequence[Sequence[float]], some: Sequence[Candidates]
) -> Float[np.ndarray, "subjects replies"]:
    """Rewards less what length explains of them: the residuals of least squares on the
    number of words, both centred for each request. It needs no label and no gold, and
    so also takes away what longer replies rightly earn."""
    rewards = np.asarray(rewards, float)
    words = np.array([[len(r.text.split()) for r in one.replies] for one in some])
    centred = words - words.mean(axis=1, keepdims=True)
    slope = (centred * rewards).sum() / (centred**2).sum()
    return rewards - slope * words


# --- Calibration ----------------------------------------------------------------------


def calibrate(pairs: Sequence[Row], difference: Float[np.ndarray, "pairs"]) -> dict:
    """A temperature, fitted on the pairs of every other subject, and what it changes on
    those of the rest.

    Returns:
        ``temperature``; of the other half ``sure``, the model's probability of its own
        answer, ``repaired``, the same at that temperature, and ``right``, whether the
        label agrees, (pairs,) arrays; ``before`` and ``after``, mean squared
        calibration errors without bias.
    """
    subjects = list(dict.fromkeys(pair["subject"] for pair in pairs))
    fitting = set(subjects[::2])
    fit = np.array([pair["subject"] in fitting for pair in pairs])
    margin, right = np.abs(difference), (difference > 0).astype(int)
    scaler = TemperatureScaler().fit(margin[fit], right[fit])
    sure, right = expit(margin[~fit]), right[~fit]
    repaired = scaler.predict_proba(margin[~fit])[:, 1]
    return {
        "temperature": scaler.temperature_,
        "sure": sure,
        "repaired": repaired,
        "right": right,
        "before": squared_error_interval(sure, right).value,
        "after": squared_error_interval(repaired, right).value,
    }


# --- Picking the best -----------------------------------------------------------------


def corrected(accuracy: float, chance: float) -> float:
    """Accuracy beyond guessing: 0 at chance, 1 where everything is right."""
    return (accuracy - chance) / (1 - chance)


def pick_probabilities(
    rewards: Float[np.ndarray, "subjects replies"], n: int
) -> Float[np.ndarray, "subjects replies"]:
    """How probable it is that each reply is the one with the highest reward among n
    drawn without replacement. Exact; of equal rewards the later reply counts as higher.

    Raises:
        ValueError: if n is not between 1 and the number of replies.
    """
    rewards = np.asarray(rewards, float)
    k = rewards.shape[1]
    if not 1 <= n <= k:
        raise ValueError(f"n is {n}; of {k} replies it can be 1 to {k}")
    below = rewards.argsort(axis=1, kind="stable").argsort(axis=1)
    ways = np.array([comb(rank, n - 1) for rank in range(k)]) / comb(k, n)
    return ways[below]


def against(
    golds: Float[np.ndarray, "subjects replies"],
    others: Float[np.ndarray, "subjects others"],
    chosen: Float[np.ndarray, "subjects replies"],
    temperature: float,
) -> dict[str, float]:
    """How replies fare against others to the same requests, over every two of them.

    Args:
        golds: of the replies.
        others: golds of what they are held against.
        chosen: how probable each reply is; rows sum to 1.
        temperature: of the annotators, in gold.

    Returns:
        ``wins``: how often the reply has the higher gold, ties one half; ``preferred``:
        the share of Bradley–Terry annotators who take it.
    """
    gaps = golds[:, :, None] - others[:, None, :]  # (subjects, replies, others)
    gaps[np.abs(gaps) < SAME_GOLD] = 0
    wins, preferred = 0.5 + 0.5 * np.sign(gaps), expit(gaps / temperature)
    return {
        name: float((chosen * values.mean(axis=2)).sum(axis=1).mean())
        for name, values in (("wins", wins), ("preferred", preferred))
    }


def demonstration_golds(
    some: Sequence[Candidates], per_subject: int = 16
) -> Float[np.ndarray, "subjects demonstrations"]:
    """Gold of the very demonstrations, for each of the requests, that the reference
    policy was taught to imitate."""
    world = default_world()
    written: dict[str, list[float]] = {one.prompt: [] for one in some}
    subject_of = {one.prompt: one.subject for one in some}
    for row in alignment.demonstrations(world, per_subject, seed=0):
        if row["prompt"] in written:
            worth = gold_reward(world, subject_of[row["prompt"]], row["completion"])
            written[row["prompt"]].append(worth.total)
    return np.array(list(written.values()))
