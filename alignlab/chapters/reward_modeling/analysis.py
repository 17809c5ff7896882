"""From the rewards of notebook 03's arms to its numbers.

Rewards are at [subject][reply]; pairs are ``artifacts.comparisons`` of those replies.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit
from scipy.stats import norm

from alignlab.calibration.estimators import TemperatureScaler
from alignlab.calibration.inference import squared_error_interval
from alignlab.chapters.reward_modeling.runs import extra_words
from alignlab.evaluation.intervals import Interval
from alignlab.seeds import stream
from alignlab.study.tuning import TEST_SEED
from alignlab.world.ceilings import gold_order_accuracy
from alignlab.world.comparisons import Candidates, Row
from alignlab.world.gold import PARTS, SAME_GOLD, demonstration, gold_reward
from alignlab.world.tasks import default_world


def differences(
    rewards: Sequence[Sequence[float]],
    candidates: Sequence[Candidates],
    pairs: Sequence[Row],
) -> Float[np.ndarray, "pairs"]:
    """Reward of each pair's chosen reply minus that of its rejected one.

    Raises:
        ValueError: if there is not one reward for each reply.
        KeyError: if a pair compares replies that are not among the candidates.
    """
    if [len(row) for row in rewards] != [len(c.replies) for c in candidates]:
        raise ValueError("rewards: expected one for each reply of each request")
    table = {
        (c.prompt, reply.text): reward
        for c, row in zip(candidates, rewards, strict=True)
        for reply, reward in zip(c.replies, row, strict=True)
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
    r"""Four scores of reward differences.

    Returns:
        ``label``: share of the labels that the rewards agree with; ``gold``: share of
        the pairs that they put in gold order (``gold_order_accuracy``); ``brier`` and
        ``nll``: of the probability :math:`\sigma(d)` of the label. The ``nll`` is in
        nats per pair, and is the Bradley–Terry loss.
    """
    return {
        "label": float((0.5 + 0.5 * np.sign(difference)).mean()),
        "gold": gold_order_accuracy(pairs, difference),
        "brier": float((expit(-difference) ** 2).mean()),
        "nll": float(np.logaddexp(0, -difference).mean()),
    }


def order_by_subject(
    pairs: Sequence[Row],
    difference: Float[np.ndarray, "pairs"],
    candidates: Sequence[Candidates],
) -> Float[np.ndarray, "subjects"]:
    """``gold`` of :func:`measures` for each subject, in the order of the candidates, to
    be averaged over subjects, which are the same for all seeds. A subject whose replies
    are all worth the same, or without pairs, has no order and counts one half.

    Raises:
        KeyError: if a pair is about a subject that is not among the candidates.
    """
    right: dict[str, list[float]] = {c.subject: [] for c in candidates}
    for pair, d in zip(pairs, difference, strict=True):
        gap = pair["gold_chosen"] - pair["gold_rejected"]
        of_subject = right[pair["subject"]]
        if abs(gap) >= SAME_GOLD:
            of_subject.append(0.5 + 0.5 * float(np.sign(d * gap)))
    return np.array([np.mean(values) if values else 0.5 for values in right.values()])


def score_rows(
    rows: Sequence[dict],
    tested: Mapping[int, Sequence[Candidates]],
    pairs: Mapping[int, Sequence[Row]],
) -> list[dict]:
    """The rows with what their rewards are worth on the pairs of their seed.

    Args:
        rows: with ``seed`` and ``rewards``.
        tested, pairs: replies and their comparisons, by seed.

    Returns:
        The rows with ``difference``, see :func:`differences`; what :func:`measures`
        gives; ``subjects``, see :func:`order_by_subject`; and ``gold``, its mean.
    """
    scored = []
    for row in rows:
        replies, of = tested[row["seed"]], pairs[row["seed"]]
        difference = differences(row["rewards"], replies, of)
        by_subject = order_by_subject(of, difference, replies)
        scores = {"difference": difference, **measures(of, difference)}
        scores |= {"subjects": by_subject, "gold": float(by_subject.mean())}
        scored.append(row | scores)
    return scored


def subject_table(
    rows: Sequence[dict], seeds: Sequence[int]
) -> Float[np.ndarray, "seeds subjects"]:
    """``subjects`` of :func:`score_rows`, a row for each seed: the mean over the arms
    that it has.

    Raises:
        ValueError: if a seed has none.
    """
    of_seed = {s: [row["subjects"] for row in rows if row["seed"] == s] for s in seeds}
    lacking = [s for s, tables in of_seed.items() if not tables]
    if lacking:
        raise ValueError(f"no rows of seeds {lacking} among {len(rows)}")
    return np.array([np.mean(tables, axis=0) for tables in of_seed.values()])


# --- Which parts of gold a reward sees ------------------------------------------------


def part_differences(pairs: Sequence[Row]) -> Float[np.ndarray, "pairs 3"]:
    """Form, completeness and truth of each chosen reply minus the rejected one's."""
    return np.array(
        [[pair[f"{p}_chosen"] - pair[f"{p}_rejected"] for p in PARTS] for pair in pairs]
    )


def seen_parts(
    pairs: Sequence[Row], difference: Float[np.ndarray, "pairs"]
) -> dict[str, dict[str, float]]:
    """How much a reward depends on each part of gold.

    Returns:
        For each part: ``weight``, its slope in a least-squares fit of the reward to the
        three parts, in reward (log-odds) per unit of gold; equal weights would mean
        that all are seen alike. ``accuracy``, share of the pairs in the right order
        among those that differ in this part alone, NaN if there is none; ``pairs``, how
        many these are. ``share``, how much of the variance of gold differences is due
        to this part; the three add up to 1.
    """
    parts = part_differences(pairs)
    slopes = np.linalg.lstsq(parts, difference, rcond=None)[0]
    shares = parts.T @ parts.sum(axis=1) / (parts.sum(axis=1) ** 2).sum()
    result = {}
    for place, name in enumerate(PARTS):
        alone = only_in(parts, place)
        right = np.sign(difference[alone]) * np.sign(parts[alone, place])
        result[name] = {
            "weight": float(slopes[place]),
            "accuracy": float((0.5 + 0.5 * right).mean()) if alone.any() else np.nan,
            "pairs": int(alone.sum()),
            "share": float(shares[place]),
        }
    return result


def only_in(
    parts: Float[np.ndarray, "pairs 3"], place: int
) -> Bool[np.ndarray, "pairs"]:
    """Mask of the pairs that differ in this part of gold alone."""
    differs = np.abs(parts) >= SAME_GOLD
    return differs[:, place] & (differs.sum(axis=1) == 1)


# --- Length ---------------------------------------------------------------------------


def length_coefficient(pairs: Sequence[Row], level: float = 0.95) -> Interval:
    r"""Length bias of the annotators behind these labels, in gold per word.

    Maximum likelihood of the model that biased annotators follow,

    .. math:: P(1 \succ 2) = \sigma(a \, \Delta\text{gold} + b \, \Delta\text{words}),
        \qquad \hat\lambda = \hat b / \hat a,

    with the delta method's interval from the inverse information. The estimate is
    consistent. Gold has to be in the model, or length would be credited with everything
    that longer replies do better.

    Args:
        pairs: with gold, labelled independently; more narrow the interval.
        level: coverage; higher is wider.

    Raises:
        ValueError: if gold and words separate the labels perfectly, so that the
            likelihood has no maximum.
    """
    gold = [pair["gold_chosen"] - pair["gold_rejected"] for pair in pairs]
    x = np.column_stack([gold, [extra_words(pair) for pair in pairs]])  # (N, 2)
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
        f"pairs: gold and words separate all {len(pairs)} labels perfectly, so the "
        "likelihood has no maximum; give noisier or more labels"
    )


def _ratio(slopes, covariance, level: float) -> Interval:
    """Second over first slope, with the interval of the delta method."""
    a, b = slopes
    gradient = np.array([-b / a, 1.0]) / a
    half = norm.ppf((1 + level) / 2) * np.sqrt(gradient @ covariance @ gradient)
    return Interval(float(b / a), float(b / a - half), float(b / a + half))


def length_weight(
    pairs: Sequence[Row], difference: Float[np.ndarray, "pairs"]
) -> float:
    """What a word more is worth to a reward, in log-odds: the slope of words in a
    least-squares fit of the reward to the three parts of gold and the number of words.
    To compare with the annotators' λ / T."""
    words = np.array([extra_words(pair) for pair in pairs], float)
    columns = np.column_stack([part_differences(pairs), words])
    return float(np.linalg.lstsq(columns, difference, rcond=None)[0][3])


def without_length(
    rewards: Sequence[Sequence[float]], candidates: Sequence[Candidates]
) -> Float[np.ndarray, "subjects replies"]:
    """Rewards minus what length explains of them, by least squares on the number of
    words, centred for each request. This needs neither labels nor gold, so it also
    removes what longer replies deserve."""
    rewards = np.asarray(rewards, float)
    words = np.array([[len(r.text.split()) for r in c.replies] for c in candidates])
    centred = words - words.mean(axis=1, keepdims=True)
    slope = (centred * rewards).sum() / (centred**2).sum()
    return rewards - slope * words


# --- Calibration ----------------------------------------------------------------------


def calibrate(pairs: Sequence[Row], difference: Float[np.ndarray, "pairs"]) -> dict:
    """Fit a temperature on the pairs of every other subject and test it on the rest.

    Returns:
        ``temperature``. For the test pairs, arrays of ``sure``, the probability that
        the model gives to its own choice, ``repaired``, the same with the temperature,
        and ``right``, whether the label agrees; and the unbiased squared calibration
        error ``before`` and ``after``.
    """
    subjects = list(dict.fromkeys(pair["subject"] for pair in pairs))
    fitting = set(subjects[::2])
    fit = np.array([pair["subject"] in fitting for pair in pairs])
    margin, right = np.abs(difference), (difference > 0).astype(int)
    logits = np.column_stack([-margin, margin]) / 2  # of "no" and "yes"
    scaler = TemperatureScaler().fit(logits[fit], right[fit])
    sure, right = expit(margin[~fit]), right[~fit]
    repaired = scaler.predict_proba(logits[~fit])[:, 1]
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
    """Accuracy corrected for guessing: 0 at chance, 1 if everything is right."""
    return (accuracy - chance) / (1 - chance)


def against(
    golds: Float[np.ndarray, "subjects replies"],
    others: Float[np.ndarray, "subjects others"],
    chosen: Float[np.ndarray, "subjects replies"],
    temperature: float,
) -> dict[str, Float[np.ndarray, "subjects"]]:
    """Compare replies with others to the same requests, over all pairs of them.

    Args:
        golds: of the replies.
        others: golds of the replies they are compared with.
        chosen: probability of each reply; rows sum to 1.
        temperature: of the annotators, in gold; higher is noisier.

    Returns:
        For each subject ``wins``, how often the reply has the higher gold, ties
        counting one half; ``preferred``, the share of Bradley–Terry annotators who
        prefer it.
    """
    gaps = golds[:, :, None] - others[:, None, :]  # (subjects, replies, others)
    gaps[np.abs(gaps) < SAME_GOLD] = 0
    wins, preferred = 0.5 + 0.5 * np.sign(gaps), expit(gaps / temperature)
    return {
        name: (chosen * values.mean(axis=2)).sum(axis=1)
        for name, values in (("wins", wins), ("preferred", preferred))
    }


def demonstration_golds(
    candidates: Sequence[Candidates], quality: float, per_subject: int = 16
) -> Float[np.ndarray, "subjects demonstrations"]:
    """Gold of demonstrations for each request, by writers of this quality in [0, 1]:
    higher is better, and 1 is as good as they can."""
    world, rng = default_world(), stream(TEST_SEED, "demonstrations to beat")
    return np.array(
        [
            [
                gold_reward(world, c.subject, text).total
                for text in (
                    demonstration(world, c.subject, rng, quality)
                    for _ in range(per_subject)
                )
            ]
            for c in candidates
        ]
    )
