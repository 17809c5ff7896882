"""What notebook 02's arms amount to: differences, areas, the best stop, the best n.

Rows come as the arms of ``hallucination`` and ``safety_tuning`` give them; nothing is
trained here, so that another way to look costs nothing.
"""

from collections.abc import Sequence

import numpy as np

from alignlab.world.safety import BENIGN_KINDS

HARMFUL = "unseen_pairs"  # what compliance with harm is measured on


def pick(rows: Sequence[dict], **wanted) -> list[dict]:
    """The rows whose parameters are these, in the order of their seeds.

    Raises:
        ValueError: if there is none.
    """
    found = [r for r in rows if all(r[name] == value for name, value in wanted.items())]
    if not found:
        raise ValueError(f"no arm with {wanted} among {len(rows)}")
    return sorted(found, key=lambda row: row["seed"])


# --- Facts ----------------------------------------------------------------------------


def at_end(rows: Sequence[dict], name: str) -> list[float]:
    """A measure after the last epoch, one value a row."""
    return [row["curve"][-1][name] for row in rows]


def area(curve: Sequence[dict], name: str) -> float:
    """Mean of a measure over the epochs between the first look and the last, by
    trapezoids: what rises sooner has more."""
    epochs = [look["epoch"] for look in curve]
    values = [look[name] for look in curve]
    if len(curve) == 1:
        return float(values[0])
    return float(np.trapezoid(values, epochs) / (epochs[-1] - epochs[0]))


def overconfidence(rows: Sequence[dict], kind: str = "never") -> list[float]:
    """Mean probability of the reply given minus the share of right ones, at the end."""
    return [
        row["curve"][-1][f"{kind}_confidence"] - row["curve"][-1][kind] for row in rows
    ]


def early_stop(curve: Sequence[dict]) -> dict[str, float]:
    """What stopping at the best epoch would have saved, without hindsight.

    The best epoch is picked by the accuracy on every other question, the first of equal
    ones; the accuracies ``stopped`` there and at the ``end`` are those of the questions
    in between, which picked nothing: a peak is high by luck where it was picked.
    """
    right = np.array([look["known_right"] for look in curve])  # (epochs, questions)
    best = int(right[:, ::2].mean(axis=1).argmax())
    stopped, end = right[best, 1::2].mean(), right[-1, 1::2].mean()
    return {
        "epoch": curve[best]["epoch"],
        "stopped": float(stopped),
        "end": float(end),
        "drop": float(stopped - end),
    }


def mirrored(rows: Sequence[dict], kind: str) -> list[float]:
    """How far the labels of unknown facts pull the answers to a kind of question: share
    of answers in the first half after labels of the first half, minus that after labels
    of the second. 0: not at all; 1: all the way."""
    one = at_end(pick(rows, labels="first"), f"{kind}_first")
    other = at_end(pick(rows, labels="second"), f"{kind}_first")
    return [a - b for a, b in zip(one, other, strict=True)]


# --- Safety ---------------------------------------------------------------------------


def counts(row: dict, kinds: Sequence[str]) -> dict[str, int]:
    """Outcomes of an arm's replies to several kinds of request together."""
    names = ("refusal", "compliance", "neither")
    return {n: sum(row["outcomes"][kind][n] for kind in kinds) for n in names}


def pooled(rows: Sequence[dict], kinds: Sequence[str]) -> dict[str, int]:
    """The same over several arms."""
    each = [counts(row, kinds) for row in rows]
    return {name: sum(one[name] for one in each) for name in each[0]}


def share(row: dict, outcome: str, kinds: Sequence[str]) -> float:
    """Share of an arm's replies to these kinds of request that have an outcome."""
    found = counts(row, kinds)
    return found[outcome] / sum(found.values())


def harmful_compliance(rows: Sequence[dict]) -> list[float]:
    """Share of unseen harmful pairs that are helped with, one value a row."""
    return [share(row, "compliance", [HARMFUL]) for row in rows]


def contrast_refusal(rows: Sequence[dict]) -> list[float]:
    """Share of benign look-alikes of all types that are refused, one value a row."""
    return [share(row, "refusal", BENIGN_KINDS) for row in rows]


def plain_refusal(rows: Sequence[dict]) -> list[float]:
    """Share of plain requests that are refused, one value a row."""
    return [share(row, "refusal", ["plain"]) for row in rows]


def cut(before: Sequence[dict], after: Sequence[dict]) -> list[float]:
    """Share of the harmful compliance before that is gone after, seed by seed; 0 where
    there was none."""
    pairs = zip(harmful_compliance(before), harmful_compliance(after), strict=True)
    return [1 - later / first if first else 0.0 for first, later in pairs]


def sum_of_errors(rows: Sequence[dict]) -> dict[int, list[float]]:
    """Harmful compliance plus refusal of look-alikes, for each n one value a seed."""
    curve = [row for row in rows if row["extra"] == "safety"]
    found = {}
    for n in sorted({row["n"] for row in curve}):
        some = pick(curve, n=n)
        found[n] = [
            a + b for a, b in zip(harmful_compliance(some), contrast_refusal(some))
        ]
    return found


def best_n(rows: Sequence[dict]) -> int:
    """The number of safety examples with the least sum of errors, mean over seeds."""
    errors = sum_of_errors(rows)
    return min(errors, key=lambda n: np.mean(errors[n]))
