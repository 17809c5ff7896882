"""Claims and verdicts: what the lectures say, what would show it, what was measured.

Claims stand in each chapter's claims.yaml; a verdict is computed here from recorded
intervals, never typed.
"""

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from alignlab.runs.profiles import chapter_folders

# Thresholds were fixed before anything was measured and are never moved. If a quantity
# turns out to be the wrong one, its claim stays as it is, with its verdict, and a new
# claim is added that says what changed. Controls are conditions like the others. Rates,
# accuracies and their differences are shares from 0 to 1.

REPRODUCED = "reproduced"
NOT_REPRODUCED = "not reproduced"
INCONCLUSIVE = "inconclusive"
NEEDS_FULL = "needs profile full"
NOT_MEASURED = "not measured"

SIGNS = {
    REPRODUCED: "✓",
    NOT_REPRODUCED: "✗",
    INCONCLUSIVE: "≈",
    NEEDS_FULL: "…",
    NOT_MEASURED: "–",
}


@dataclass(frozen=True)
class Condition:
    """A recorded metric and the side of a threshold its interval must lie on."""

    metric: str
    direction: str  # "above" or "below"
    threshold: float
    why: str


@dataclass(frozen=True)
class Claim:
    """One entry of a claims.yaml; it holds if *all* of its conditions do."""

    id: str
    notebook: str
    claim: str
    measured_as: str
    control: str
    reference: str
    conditions: tuple[Condition, ...]
    min_seeds: int


@dataclass(frozen=True)
class Finding:
    """A condition and what was measured; ``result`` is None if nothing was."""

    condition: Condition
    result: str | None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int = 0

    def __str__(self) -> str:
        wanted = f"{self.condition.direction} {self.condition.threshold:g}"
        if self.value is None:
            return f"{self.condition.metric}: not measured (wanted {wanted})"
        limits = "" if self.low is None else f" ({self.low:.3g} to {self.high:.3g})"
        return f"{self.condition.metric} = {self.value:.3g}{limits}, wanted {wanted}"


@dataclass(frozen=True)
class Verdict:
    """What the measurements say about a claim, and why."""

    claim: Claim
    verdict: str
    reason: str
    findings: tuple[Finding, ...]


@cache
def load_claims() -> dict[str, Claim]:
    """The claims of all chapters by id, in the order of the chapters.

    Raises:
        ValueError: for an id given twice, or a condition that cannot be judged.
    """
    claims: dict[str, Claim] = {}
    owners: dict[str, str] = {}
    for number, folder in chapter_folders().items():
        for claim in _read_claims(folder, number):
            if claim.id in claims:
                raise ValueError(f"claims.yaml: two claims have the id {claim.id}")
            claims[claim.id] = claim
            for condition in claim.conditions:
                _check_condition(claim.id, condition, owners)
    return claims


def _read_claims(folder: Path, number: str) -> list[Claim]:
    import yaml

    entries = yaml.safe_load((folder / "claims.yaml").read_text(encoding="utf-8"))
    claims = []
    for name, entry in entries.items():
        conditions = tuple(Condition(**item) for item in entry.pop("conditions"))
        claims.append(Claim(id=name, notebook=number, conditions=conditions, **entry))
    return claims


def _check_condition(claim: str, condition: Condition, owners: dict[str, str]) -> None:
    """Refuse a misspelt direction, and a metric that belongs to another claim."""
    if condition.direction not in ("above", "below"):
        raise ValueError(
            f"claims.yaml, {claim}: direction of {condition.metric} must be 'above' or "
            f"'below', not {condition.direction!r}"
        )
    other = owners.setdefault(condition.metric, claim)
    if other != claim:
        raise ValueError(
            f"claims.yaml: {condition.metric} is a condition of {other} and {claim}; "
            "give each its own metric"
        )


def judge_interval(low: float, high: float, direction: str, threshold: float) -> str:
    """Whether an interval lies strictly beyond the threshold, on its other side (which
    it may touch), or across it.

    Args:
        low, high: limits of the interval, in the metric's unit.
        direction: "above" or "below": the side that shows the claim.
        threshold: the smallest effect that counts, fixed beforehand.
    """
    if direction == "below":
        low, high, threshold = -high, -low, -threshold
    if low > threshold:
        return REPRODUCED
    if high <= threshold:
        return NOT_REPRODUCED
    return INCONCLUSIVE


def judge_claim(claim: Claim, metrics: Mapping[str, Mapping]) -> Verdict:
    """The verdict on a claim, from the metrics that a notebook recorded.

    It is *not measured* if a metric is missing, and *needs profile full* if there are
    fewer seeds than the claim requires. Otherwise it is *reproduced* if all of its
    conditions are, *not reproduced* if any is not, and else *inconclusive*. A metric
    without values per seed counts as one seed.

    Args:
        claim: with its conditions, including controls.
        metrics: what ``record`` wrote, by name: value, low, high, seeds, claim.
    """
    findings = tuple(_find(item, metrics.get(item.metric)) for item in claim.conditions)
    verdict, at_fault = _decide(claim, findings)
    return Verdict(claim, verdict, "; ".join(map(str, at_fault)), findings)


def _find(condition: Condition, metric: Mapping | None) -> Finding:
    if metric is None:
        return Finding(condition, None)
    value, low, high = metric["value"], metric.get("low"), metric.get("high")
    seeds = len(metric.get("seeds") or [value])
    if low is None or high is None:
        return Finding(condition, INCONCLUSIVE, value, None, None, seeds)
    result = judge_interval(low, high, condition.direction, condition.threshold)
    return Finding(condition, result, value, low, high, seeds)


def _decide(claim: Claim, findings: tuple[Finding, ...]) -> tuple[str, list[Finding]]:
    """The verdict and the findings that decide it."""
    for verdict, decides in (
        (NOT_MEASURED, lambda finding: finding.result is None),
        (NEEDS_FULL, lambda finding: finding.seeds < claim.min_seeds),
        (NOT_REPRODUCED, lambda finding: finding.result == NOT_REPRODUCED),
        (INCONCLUSIVE, lambda finding: finding.result == INCONCLUSIVE),
    ):
        at_fault = [finding for finding in findings if decides(finding)]
        if at_fault:
            return verdict, at_fault
    return REPRODUCED, list(findings)


def judge_notebook(number: str, metrics: Mapping[str, Mapping]) -> list[Verdict]:
    """Verdicts on every claim of one notebook, in the order of claims.yaml."""
    return [
        judge_claim(claim, metrics)
        for claim in load_claims().values()
        if claim.notebook == number
    ]


class VerdictTable(list):
    """Verdicts, shown as a table in a notebook and as text elsewhere."""

    def __init__(self, verdicts: Iterable[Verdict]):
        super().__init__(verdicts)

    def __repr__(self) -> str:
        lines = []
        for item in self:
            lines.append(f"{SIGNS[item.verdict]} {item.verdict:18} {item.claim.id}")
            lines += [f"    {finding}" for finding in item.findings]
        return "\n".join(lines) or "this notebook has no claims"

    def _repr_html_(self) -> str:
        cell = 'style="text-align:left;vertical-align:top"'
        heads = ("verdict", "claim", "measured (95% interval)", "wanted")
        head = "".join(f"<th {cell}>{name}</th>" for name in heads)
        rows = []
        for item in self:
            verdict = f"<b>{SIGNS[item.verdict]}&nbsp;{item.verdict}</b>"
            claim = f"<code>{item.claim.id}</code><br>{html.escape(item.claim.claim)}"
            measured = "<br>".join(_measured(finding) for finding in item.findings)
            wanted = "<br>".join(
                f"{finding.condition.direction}&nbsp;{finding.condition.threshold:g}"
                for finding in item.findings
            )
            cells = (verdict, claim, measured, wanted)
            rows.append("".join(f"<td {cell}>{text}</td>" for text in cells))
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _measured(finding: Finding) -> str:
    name = f"<code>{html.escape(finding.condition.metric)}</code>"
    if finding.value is None:
        return f"{name} –"
    if finding.low is None:
        return f"{name} {finding.value:.3f}"
    return f"{name} {finding.value:.3f} ({finding.low:.3f} to {finding.high:.3f})"
