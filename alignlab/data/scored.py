"""Several scored completions of one prompt, as UltraFeedback has them: the best against
the worst, or all of them in order."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from alignlab.data.dialogues import Message, is_blank, messages_or_text

Row = dict[str, object]

# Of one completion, or in a list beside them; the first that is there counts.
SCORE_NAMES = ("overall_score", "score", "rating", "reward")
TEXT_NAMES = ("response", "text", "content", "completion")


class Scored(NamedTuple):
    """A completion and its score; higher is better."""

    text: list[Message] | str
    score: float


def score_column(rows: Sequence[Mapping]) -> str | None:
    """Where the scores are: the name of a column of lists, or of an entry of every
    completion; None where completions are texts in their order, best first.

    Raises:
        ValueError: if completions are dicts and have no score.
    """
    for name in SCORE_NAMES:
        for column in (name, f"{name}s"):
            if any(isinstance(row.get(column), list | tuple) for row in rows):
                return column
    entries = [entry for row in rows for entry in row.get("completions") or []]
    if not any(map(_is_scored_entry, entries)):
        return None
    for name in SCORE_NAMES:
        if any(_is_scored_entry(e) and e.get(name) is not None for e in entries):
            return name
    raise ValueError(f"the completions have no score: none of {', '.join(SCORE_NAMES)}")


def _is_scored_entry(entry: object) -> bool:
    return isinstance(entry, Mapping) and "role" not in entry and "from" not in entry


def best_first(row: Mapping, column: str) -> list[Scored]:
    """The completions that have a score and a text, the best first; the order of equal
    ones stays.

    Raises:
        ValueError: if there are not as many scores as completions, or a score is
            neither a number nor missing.
    """
    entries = list(row.get("completions") or [])
    scores = row.get(column)
    if not isinstance(scores, list | tuple):
        scores = [entry.get(column) for entry in entries]
    if len(scores) != len(entries):
        raise ValueError(f"{len(entries)} completions have {len(scores)} scores")
    pairs = zip(map(_text, entries), map(_number, scores), strict=True)
    known = [Scored(*pair) for pair in pairs]
    known = [s for s in known if not math.isnan(s.score) and not is_blank(s.text)]
    return sorted(known, key=lambda scored: -scored.score)


def _text(entry: object) -> list[Message] | str:
    if not _is_scored_entry(entry):
        return messages_or_text(entry)
    name = next((name for name in TEXT_NAMES if name in entry), None)
    if name is None:
        raise ValueError(f"a completion has none of {', '.join(TEXT_NAMES)}")
    return messages_or_text(entry[name])


def _number(score: object) -> float:
    """A score; NaN where there is none, as UltraFeedback's "N/A"."""
    if score is None or str(score).strip().upper() in ("", "N/A", "NA", "NONE"):
        return math.nan
    try:
        return float(score)
    except (TypeError, ValueError):
        raise ValueError(f"the score {score!r} is no number") from None


def pairs_of_best_and_worst(
    rows: Sequence[Mapping], column: str
) -> tuple[list[Row], dict[str, int]]:
    """Rows with chosen, rejected and their scores instead of completions, and how many
    rows hold no preference.

    Raises:
        ValueError: see :func:`best_first`.
    """
    kept, left_out = [], Counter()
    for row in rows:
        scored = best_first(row, column)
        if len(scored) < 2:
            left_out["with fewer than two scored completions"] += 1
        elif scored[0].score == scored[-1].score:
            left_out["whose completions all have the same score"] += 1
        else:
            best, worst = scored[0], scored[-1]
            kept.append(
                _without(row, column)
                | {"chosen": best.text, "rejected": worst.text}
                | {"score_chosen": best.score, "score_rejected": worst.score}
            )
    return kept, dict(left_out)


def rankings(rows: Sequence[Mapping], column: str) -> tuple[list[Row], dict[str, int]]:
    """Rows whose completions are texts, best first and the same number in each, and how
    many rows have equal scores or another number.

    Raises:
        ValueError: see :func:`best_first`.
    """
    ranked = [best_first(row, column) for row in rows]
    sizes = Counter(len(scored) for scored in ranked if len(scored) > 1)
    size = sizes.most_common(1)[0][0] if sizes else 2
    kept, left_out = [], Counter()
    for row, scored in zip(rows, ranked, strict=True):
        if len(scored) != size:
            left_out[f"without {size} scored completions"] += 1
        elif len({entry.score for entry in scored}) < size:
            left_out["with completions of equal score"] += 1
        else:
            texts = [entry.text for entry in scored]
            scores = [entry.score for entry in scored]
            kept.append(
                _without(row, column) | {"completions": texts, "scores": scores}
            )
    return kept, dict(left_out)


def _without(row: Mapping, column: str) -> Row:
    names = {"completions", column}
    return {name: value for name, value in row.items() if name not in names}
