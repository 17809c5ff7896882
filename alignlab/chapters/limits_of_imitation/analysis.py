"""From the rows of notebook 02's arms to its numbers. Nothing is trained here."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from alignlab.evaluation.curves import mean_height
from alignlab.evaluation.refusals import rates
from alignlab.study.arms import pick
from alignlab.world.facts import KNOWN_FROM, TAIL
from alignlab.world.safety import BENIGN_KINDS

HARMFUL = "unseen_pairs"  # the kind of request that measures compliance with harm

# --- What SFT brings out --------------------------------------------------------------

# Exposures of each band of the curve, both ends included.
BANDS = {
    "0": (0, 0),
    f"1–{TAIL}": (1, TAIL),
    f"{TAIL + 1}–24": (TAIL + 1, 24),
    f"25–{KNOWN_FROM - 1}": (25, KNOWN_FROM - 1),
    f"{KNOWN_FROM}–299": (KNOWN_FROM, 299),
    "300+": (300, 10**9),
}
PLAIN = ("known", "rare", "tail", "never")  # trained wordings, nothing contested


def asked_of(row: dict, **wanted) -> list[dict]:
    """The questions of an elicitation arm with these properties."""
    return [q for q in row["asked"] if all(q[k] == v for k, v in wanted.items())]


def share_of(questions: Sequence[dict], measure: str = "right") -> float:
    """Mean of a measure over questions; NaN if there are none."""
    return float(np.mean([q[measure] for q in questions])) if questions else np.nan


def shares_right(rows: Sequence[dict], **wanted) -> list[float]:
    """Share of right answers to the questions with these properties, one value per
    row."""
    return [share_of(asked_of(row, **wanted)) for row in rows]


def contested_table(rows: Sequence[dict]) -> dict[str, dict[str, str]]:
    """Answers to contested facts, by the share of statements that give the answer most
    often stated: how often that one is given, its rival, or another; all rows together,
    as text."""
    asked = [question for row in rows for question in asked_of(row, kind="contested")]
    table = {}
    for low, high in ((0.5, 0.65), (0.65, 0.8), (0.8, 0.95)):
        own = [q for q in asked if low <= q["share"] < high]
        if own:
            majority, rival = share_of(own, "majority"), share_of(own, "rival")
            shares = {"majority's": majority, "rival's": rival}
            shares["another"] = 1 - majority - rival
            name = f"stated in {low:.0%} to {high:.0%}"
            table[name] = {k: f"{v:.2f}" for k, v in shares.items()}
            table[name]["questions"] = str(len(own))
    return table


def by_exposure(
    rows: Sequence[dict], relations: Sequence[str]
) -> dict[str, list[float]]:
    """Share of right answers in each of ``BANDS``, one value per row: the mean over
    these relations, so that no band owes its height to an easy one. Made-up subjects
    are a band of their own, "made up"; a band where a relation has no question is left
    out."""
    asked = [[q for q in row["asked"] if q["kind"] in PLAIN] for row in rows]
    shares = {"made up": [_over(a, relations, (0, 0), True) for a in asked]}
    shares |= {
        name: [_over(a, relations, band, False) for a in asked]
        for name, band in BANDS.items()
    }
    return {name: own for name, own in shares.items() if not np.isnan(own).any()}


def _over(asked, relations, band: tuple[int, int], made_up: bool) -> float:
    low, high = band
    own = [q for q in asked if low <= q["exposure"] <= high and q["made_up"] == made_up]
    return float(
        np.mean([share_of([q for q in own if q["relation"] == r]) for r in relations])
    )


# --- Facts ----------------------------------------------------------------------------


def items(
    rows: Sequence[dict], kind: str, measure: str, update: int | None = None
) -> Float[np.ndarray, "seeds questions"]:
    """A measure of each question of a kind after an update, by default the last.

    Raises:
        ValueError: if an arm was not looked at after that update.
    """
    values = []
    for row in rows:
        updates = [point["update"] for point in row["curve"]]
        if update is not None and update not in updates:
            raise ValueError(f"update is {update}; there are looks at {updates}")
        place = -1 if update is None else updates.index(update)
        values.append(row["curve"][place][kind][measure])
    return np.array(values, dtype=float)


def at_end(rows: Sequence[dict], kind: str, measure: str = "right") -> list[float]:
    """Mean of a measure after the last update, one value per row."""
    return items(rows, kind, measure).mean(axis=1).tolist()


def fit_behind_known(rows: Sequence[dict]) -> list[float]:
    """How far the fit of never-shown facts is behind that of known ones, below 0 if it
    is: the difference in the mean height of their curves over the updates."""
    return [
        _mean_over_updates(row["curve"], "never_fit")
        - _mean_over_updates(row["curve"], "known_fit")
        for row in rows
    ]


def stated(fact: Mapping) -> str:
    """How often pretraining stated a fact of a row's ``replies``, for a reader."""
    if fact["made_up"]:
        return "never: made up"
    return "unknown" if fact["exposure"] is None else f"{fact['exposure']} times"


def _mean_over_updates(curve: Sequence[dict], kind: str) -> float:
    updates = [point["update"] for point in curve]
    return mean_height(updates, [np.mean(point[kind]["right"]) for point in curve])


def answer_rates(rows: Sequence[dict]) -> dict[str, list[float]]:
    """Share of replies that are no admission, one value per row, by what pretraining
    had shown of the fact; never-shown facts of real and of made-up subjects apart."""
    kinds = ("known", "rare", "tail")
    rates = {kind: at_end(rows, kind, "answered") for kind in kinds}
    never = items(rows, "never", "answered")
    for name, made_up in (("never", False), ("made up", True)):
        own = np.array(rows[0]["made_up"]) == made_up
        if own.any():
            rates[name] = never[:, own].mean(axis=1).tolist()
    return rates


def confidence_of_wrong(rows: Sequence[dict]) -> list[float]:
    """Mean probability of the answers to never-shown facts that are wrong, one value
    per row; admissions are no answers. 0 if there is none."""
    wrong = (1 - items(rows, "never", "right")) * items(rows, "never", "answered")
    sure = items(rows, "never", "confidence")
    return ((wrong * sure).sum(axis=1) / np.maximum(wrong.sum(axis=1), 1)).tolist()


def early_stop(curve: Sequence[dict]) -> dict[str, float]:
    """What stopping at the best look would have saved, without hindsight.

    The best ``update`` (the first, if several are) has the highest accuracy on every
    other question about known facts. The accuracies ``stopped`` there and at the
    ``end`` are on the rest: where a peak was picked, it is partly luck.
    """
    right = np.array([point["known"]["right"] for point in curve])  # (looks, questions)
    best = int(right[:, ::2].mean(axis=1).argmax())
    stopped, end = right[best, 1::2].mean(), right[-1, 1::2].mean()
    return {
        "update": curve[best]["update"],
        "stopped": float(stopped),
        "end": float(end),
        "drop": float(stopped - end),
    }


def first_half_share(rows: Sequence[dict], kind: str) -> list[float]:
    """Share of answers in the first half of their relation's answers, among those in
    either half, one value per row; 0.5 if there are none."""
    halves = items(rows, kind, "half")  # None became NaN
    return [float(np.nanmean(h)) if not np.isnan(h).all() else 0.5 for h in halves]


def label_pull(first: Sequence[dict], second: Sequence[dict], kind: str) -> list[float]:
    """How far the labels of never-shown facts pull the answers to a kind of question:
    share of answers in the first half after labels from the first half, minus that
    after labels from the second. 0: not at all; 1: all the way."""
    pairs = zip(
        first_half_share(first, kind), first_half_share(second, kind), strict=True
    )
    return [a - b for a, b in pairs]


# --- Safety ---------------------------------------------------------------------------


def pooled_outcomes(rows: Sequence[dict], kinds: Sequence[str]) -> dict[str, int]:
    """Outcomes of the replies to some kinds of request, over all rows."""
    counts = [row["outcomes"][kind] for row in rows for kind in kinds]
    return {name: sum(c[name] for c in counts) for name in counts[0]}


def outcome_rates(rows: Sequence[dict], kinds: Sequence[str]) -> Mapping:
    """Share of each outcome among the pooled replies, with Wilson's interval."""
    return rates(pooled_outcomes(rows, kinds))


def outcome_share(row: dict, outcome: str, kinds: Sequence[str]) -> float:
    """Share of an arm's replies to some kinds of request that have an outcome."""
    counts = pooled_outcomes([row], kinds)
    return counts[outcome] / sum(counts.values())


def harmful_compliance(rows: Sequence[dict], kind: str = HARMFUL) -> list[float]:
    """Share of unseen harmful requests that get help, one value per row."""
    return [outcome_share(row, "compliance", [kind]) for row in rows]


def look_alike_refusal(rows: Sequence[dict]) -> list[float]:
    """Share of benign look-alikes of all types that are refused, one value per row."""
    return [outcome_share(row, "refusal", BENIGN_KINDS) for row in rows]


def plain_refusal(rows: Sequence[dict]) -> list[float]:
    """Share of plain requests that are refused, one value per row."""
    return [outcome_share(row, "refusal", ["plain"]) for row in rows]


def compliance_cut(before: Sequence[dict], after: Sequence[dict]) -> list[float]:
    """Share of the harmful compliance that is gone, seed by seed: 0 if there was none
    before, -1 if it doubled or more."""
    pairs = zip(harmful_compliance(before), harmful_compliance(after), strict=True)
    return [max(1 - later / first, -1.0) if first else 0.0 for first, later in pairs]


def discrimination(
    rows: Sequence[dict], harmful: str = HARMFUL, benign: str = "look_alikes_of_pairs"
) -> list[float]:
    """Area under the ROC curve of log P(refuse), one value per row: how often a harmful
    request is likelier to be refused than a benign one. 0.5 is chance. It does not
    change if all requests get likelier to be refused alike."""
    scores = [row["log_p_refuse"] for row in rows]
    return [area_under_roc(own[harmful], own[benign]) for own in scores]


def area_under_roc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Share of pairs in which the positive has the higher score; ties count half."""
    difference = np.subtract.outer(np.asarray(positive), np.asarray(negative))
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def curve_of(rows: Sequence[dict]) -> list[dict]:
    """The rows without look-alikes in SFT."""
    return pick(rows, n_look_alikes=0)


def sum_of_errors(rows: Sequence[dict]) -> dict[int, list[float]]:
    """Harmful compliance plus refusal of look-alikes, by the number of refusals in SFT:
    one value per seed."""
    sums = {}
    for n in sorted({row["n_refusals"] for row in rows}):
        at_n = pick(curve_of(rows), n_refusals=n)
        errors = zip(harmful_compliance(at_n), look_alike_refusal(at_n), strict=True)
        sums[n] = [helped + refused for helped, refused in errors]
    return sums


def best_n(rows: Sequence[dict]) -> int:
    """The number of refusals with the lowest sum of errors, mean over seeds."""
    errors = sum_of_errors(rows)
    return min(errors, key=lambda n: np.mean(errors[n]))


# --- Narrow data ----------------------------------------------------------------------


def narrow_items(
    rows: Sequence[dict], name: str
) -> Float[np.ndarray, "seeds questions"]:
    """Whether each question of a set was answered rightly."""
    return np.array([row["right"][name] for row in rows], dtype=float)


# --- Real prompts ---------------------------------------------------------------------


def real_table(rows: Sequence[dict]) -> dict[str, dict[str, str]]:
    """For each set the share of every outcome with Wilson's interval, as text."""
    return {
        row["prompts"]: {k: f"{v:.2f}" for k, v in rates(row["outcomes"]).items()}
        for row in rows
    }


# --- Recording ------------------------------------------------------------------------


def over_items(matrix: Float[np.ndarray, "seeds items"]) -> dict:
    """What ``runs.record`` needs of a metric whose items are the same for all seeds:
    value and items; of a single seed its value alone, for it has no spread."""
    value = float(matrix.mean())
    if len(matrix) < 2:
        return dict(value=value, seeds=[value], n=matrix.shape[1])
    return dict(value=value, items=matrix.tolist())
