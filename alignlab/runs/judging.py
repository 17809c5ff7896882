"""Verdicts: computed from recorded intervals and fixed thresholds, never typed.

Each condition gets one of four results. Its p-values are one-sided, from Student's t
over seeds (inside bounds on the logit scale) or from the interval that was recorded.

============== ========================================================================
result         if
============== ========================================================================
reproduced     the 95% interval lies wholly beyond the threshold
equivalent     else, if the 90% interval lies within null +- the smallest effect worth
               the name: two one-sided tests at 5%. Never for a control.
not reproduced else, if the mean lies on the other side of the threshold at 2.5%, after
               Holm over the claim's effects (or, for controls, over its controls)
inconclusive   else
============== ========================================================================

The verdict on a claim is the first row that fits; "any" and "all" are of conditions.

=================== ================= ========================= ======================
verdict             controls          effects                   note
=================== ================= ========================= ======================
pretraining unknown whatever          whatever                  what the claim rests on
not measured        any missing       any missing
needs profile full  too few seeds     too few seeds             fewer than ``min_seeds``
uninformative       any not repr.     whatever                  nothing is learnt
inconclusive        any inconclusive  whatever                  nor can anything fail
not reproduced      all reproduced    any not reproduced
inconclusive        all reproduced    any inconclusive
equivalent          all reproduced    any equivalent            the rest reproduced
reproduced          all reproduced    all reproduced
=================== ================= ========================= ======================

*Reproduced* needs all conditions and so errs in at most 2.5% of cases without a
correction (an intersection-union test); *not reproduced* needs one of several, and Holm
keeps its error at 2.5%.
"""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from alignlab.evaluation.intervals import (
    EqualValues,
    Estimate,
    Interval,
    estimate_of_interval,
    mean_of_seeds,
    t_interval,
)
from alignlab.models.base import is_shipped
from alignlab.runs.claims import Claim, Condition, load_claims

REPRODUCED = "reproduced"
EQUIVALENT = "equivalent"
NOT_REPRODUCED = "not reproduced"
INCONCLUSIVE = "inconclusive"
UNINFORMATIVE = "uninformative"
NEEDS_FULL = "needs profile full"
PRETRAINING_UNKNOWN = "pretraining unknown"
NOT_MEASURED = "not measured"

SIGNS = {
    REPRODUCED: "✓",
    EQUIVALENT: "=",
    NOT_REPRODUCED: "✗",
    INCONCLUSIVE: "≈",
    UNINFORMATIVE: "∅",
    NEEDS_FULL: "…",
    PRETRAINING_UNKNOWN: "?",
    NOT_MEASURED: "–",
}

LEGEND = {
    REPRODUCED: "every 95% interval lies beyond its threshold",
    EQUIVALENT: "an effect is smaller than the smallest worth the name",
    NOT_REPRODUCED: "an effect falls short of its threshold",
    INCONCLUSIVE: "an interval is too wide to say",
    UNINFORMATIVE: "a control failed, so the measurement shows nothing",
    NEEDS_FULL: "measured on too few seeds for a verdict",
    PRETRAINING_UNKNOWN: "it needs a model whose pretraining is known",
    NOT_MEASURED: "no run has recorded it",
}

# One-sided errors: of a 95% interval, and of each of the two tests of equivalence.
ERROR, EQUIVALENCE_ERROR = 0.025, 0.05


@dataclass(frozen=True)
class Finding:
    """A condition and what was measured; ``result`` is None if nothing was.

    Attributes:
        condition: what was wanted.
        result: reproduced, equivalent, not reproduced or inconclusive.
        value, low, high: the estimate and its 95% interval, if it has one.
        seeds: how many there are.
        p: one-sided p-value for a mean beyond the threshold.
        p_against: the same for a mean on its other side, before Holm.
        power: the chance of *reproduced* if the effect is twice the smallest worth the
            name, with this spread and these seeds; None without a null.
    """

    condition: Condition
    result: str | None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int = 0
    p: float = 1.0
    p_against: float = 1.0
    power: float | None = None

    @property
    def wanted(self) -> str:
        """The side of the threshold, and the value of no effect if there is one."""
        text = f"{self.condition.direction} {self.condition.threshold:g}"
        null = self.condition.null
        return text if null is None else f"{text} (null {null:g})"

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.condition.metric}: not measured, wanted {self.wanted}"
        limits = "" if self.low is None else f" ({self.low:.3g} to {self.high:.3g})"
        return (
            f"{self.condition.metric} = {self.value:.3g}{limits}, wanted {self.wanted}"
        )


@dataclass(frozen=True)
class Verdict:
    """What the measurements say about a claim, and why."""

    claim: Claim
    verdict: str
    reason: str
    findings: tuple[Finding, ...]

    @property
    def p(self) -> float | None:
        """The largest p-value of its conditions: that of the claim as a whole. None
        without a verdict."""
        if self.verdict in (NOT_MEASURED, NEEDS_FULL, PRETRAINING_UNKNOWN):
            return None
        return max(finding.p for finding in self.findings)

    @property
    def power(self) -> float | None:
        """The least power of its conditions; None if no condition has one."""
        powers = [f.power for f in self.findings if f.power is not None]
        return min(powers, default=None)


def judge_claim(
    claim: Claim, metrics: Mapping[str, Mapping], model: str | None = None
) -> Verdict:
    """The verdict on a claim, from the metrics that a notebook recorded.

    A metric without values per seed counts as one seed; one that was recorded for a
    claim of another id does not count.

    Args:
        claim: with its conditions, including controls.
        metrics: what ``record`` wrote, by name: value, low, high, seeds, claim.
        model: the base model that was run, by default one that ships. Of any other the
            pretraining is not known: a claim that rests on it has no verdict, nor have
            its conditions, whose values are shown all the same.
    """
    findings = _with_results(
        _find(item, _metric_of(claim, item, metrics)) for item in claim.conditions
    )
    if claim.needs_known_pretraining and model is not None and not is_shipped(model):
        unjudged = tuple(replace(f, result=None, power=None) for f in findings)
        reason = (
            f"nobody knows {' '.join(claim.needs_known_pretraining.split())} in the "
            f"pretraining of {model}; the models that ship can show it"
        )
        return Verdict(claim, PRETRAINING_UNKNOWN, reason, unjudged)
    verdict, at_fault = _decide(claim, findings)
    return Verdict(claim, verdict, "; ".join(map(str, at_fault)), findings)


def _metric_of(claim: Claim, condition: Condition, metrics: Mapping) -> Mapping | None:
    metric = metrics.get(condition.metric)
    recorded_for = (metric or {}).get("claim")
    return metric if recorded_for in (None, claim.id) else None


def _find(condition: Condition, metric: Mapping | None) -> Finding:
    """What was measured; the result is that of the condition by itself."""
    if metric is None:
        return Finding(condition, None)
    value, low, high = metric["value"], metric.get("low"), metric.get("high")
    seeds = len(metric.get("seeds") or [value])
    if low is None or high is None:
        return Finding(condition, INCONCLUSIVE, value, None, None, seeds)
    estimate = _estimate(metric, condition.bounds)
    beyond, against = estimate.p_above, estimate.p_below
    if condition.direction == "below":
        beyond, against = against, beyond
    threshold = condition.threshold
    p, p_against = beyond(threshold), against(threshold)
    if estimate.value == threshold and low == high:
        p, p_against = 1.0, 0.0  # no width: on the threshold is not beyond it
    result = INCONCLUSIVE
    if low > threshold if condition.direction == "above" else high < threshold:
        result = REPRODUCED
    elif _is_equivalent(condition, estimate):
        result = EQUIVALENT
    return Finding(
        condition, result, value, low, high, seeds, p, p_against,
        _power(condition, estimate),
    )  # fmt: skip


def _estimate(
    metric: Mapping, bounds: tuple[float, float] | None
) -> Estimate | EqualValues:
    """What the recorded interval was computed from, or else the interval itself."""
    interval = Interval(metric["value"], metric["low"], metric["high"])
    source = metric.get("interval") or _source(metric, interval)
    if source == "seeds":
        return mean_of_seeds(metric["seeds"], bounds, metric.get("n"))
    if source == "items":
        if metric["df"] is None:
            return EqualValues(interval.value, metric["n"], bounds)
        return estimate_of_interval(interval, bounds, metric["df"])
    return estimate_of_interval(interval)


def _source(metric: Mapping, interval: Interval) -> str:
    """Of a metric that does not say: whether its limits are those of its seeds."""
    seeds = metric.get("seeds") or []
    computed = len(seeds) > 1 and all(
        math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
        for a, b in zip(t_interval(seeds), interval)
    )
    return "seeds" if computed else "given"


def _is_equivalent(condition: Condition, estimate: Estimate | EqualValues) -> bool:
    if condition.null is None or condition.control:
        return False
    null, smallest = condition.null, abs(condition.threshold - condition.null)
    above = estimate.p_above(null - smallest)
    return max(above, estimate.p_below(null + smallest)) < EQUIVALENCE_ERROR


def _power(condition: Condition, estimate: Estimate | EqualValues) -> float | None:
    """By the noncentral t, supposing twice the smallest effect, or what the bounds
    allow. No effect, for a control that has to show none, is as far from its
    threshold."""
    if condition.null is None or not estimate.df:
        return None
    supposed = 2 * condition.threshold - condition.null
    if condition.bounds:
        supposed = min(max(supposed, condition.bounds[0]), condition.bounds[1])
    distance = abs(supposed - condition.threshold)
    error = estimate.standard_error
    return 1.0 if error == 0 else _chance_beyond(distance / error, estimate.df)


def _chance_beyond(noncentrality: float, df: float) -> float:
    from scipy.special import nctdtr, ndtr, ndtri, stdtrit

    if math.isinf(df):
        return float(ndtr(noncentrality - ndtri(1 - ERROR)))
    if noncentrality > 30:  # where nctdtr may give nan
        return 1.0
    return float(1 - nctdtr(df, noncentrality, stdtrit(df, 1 - ERROR)))


def _with_results(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings with *not reproduced* where Holm leaves it."""
    findings = list(findings)
    for control in (False, True):
        family = [i for i, f in enumerate(findings) if f.condition.control == control]
        adjusted = holm([findings[i].p_against for i in family])
        for i, p in zip(family, adjusted):
            if findings[i].result == INCONCLUSIVE and p <= ERROR:
                findings[i] = replace(findings[i], result=NOT_REPRODUCED)
    return tuple(findings)


def holm(p_values: Sequence[float]) -> list[float]:
    r"""Holm's adjusted p-values, in the order given.

    The i-th smallest of m becomes :math:`\max_{j \le i} (m - j + 1)\,p_{(j)}`, at most
    1: rejecting those below an error rate keeps the chance of any false rejection below
    it, however the tests depend on each other.

    Source: Holm (1979), A simple sequentially rejective multiple test procedure.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def _decide(claim: Claim, findings: tuple[Finding, ...]) -> tuple[str, list[Finding]]:
    """The verdict and the findings that decide it: the table above, row by row."""
    everything = list(findings)
    controls = [finding for finding in findings if finding.condition.control]
    effects = [finding for finding in findings if not finding.condition.control]
    for verdict, among, decides in (
        (NOT_MEASURED, everything, lambda finding: finding.result is None),
        (NEEDS_FULL, everything, lambda finding: finding.seeds < claim.min_seeds),
        (UNINFORMATIVE, controls, lambda finding: finding.result == NOT_REPRODUCED),
        (INCONCLUSIVE, controls, lambda finding: finding.result == INCONCLUSIVE),
        (NOT_REPRODUCED, effects, lambda finding: finding.result == NOT_REPRODUCED),
        (INCONCLUSIVE, effects, lambda finding: finding.result == INCONCLUSIVE),
        (EQUIVALENT, effects, lambda finding: finding.result == EQUIVALENT),
    ):
        at_fault = [finding for finding in among if decides(finding)]
        if at_fault:
            return verdict, at_fault
    return REPRODUCED, everything


def judge_notebook(
    number: str,
    metrics: Mapping[str, Mapping],
    model: str | None = None,
    claims: Mapping[str, Claim] | None = None,
) -> list[Verdict]:
    """Verdicts on every claim of one notebook, in the order of claims.yaml.

    Args:
        number: the notebook's two digits.
        metrics, model: as for :func:`judge_claim`.
        claims: what to judge, by default today's.
    """
    claims = load_claims() if claims is None else claims
    return [
        judge_claim(claim, metrics, model)
        for claim in claims.values()
        if claim.notebook == number
    ]


def judge_recorded(notebooks: Mapping[str, Mapping]) -> list[Verdict]:
    """Verdicts on all claims, in the order of the chapters.

    Args:
        notebooks: recorded sections by name, each with its ``metrics`` and
            ``settings``; the claims of a notebook that is not among them are not
            measured.
    """
    sections = {name[:2]: section for name, section in notebooks.items()}
    return [
        judge_claim(claim, section.get("metrics", {}), model_of(section))
        for claim in load_claims().values()
        for section in [sections.get(claim.notebook, {})]
    ]


def model_of(section: Mapping) -> str | None:
    """The base model of a recorded section; None if its settings name none, as before
    there was a choice."""
    return section.get("settings", {}).get("model")


def holm_over(verdicts: Iterable[Verdict]) -> dict[str, float]:
    """Adjusted p-value of each claim that has a verdict, by id, over all of them.

    A claim survives if it is at most 0.025: one-sided, as its 95% intervals are.
    """
    p_values = {item.claim.id: item.p for item in verdicts if item.p is not None}
    return dict(zip(p_values, holm(list(p_values.values()))))


def show_p(p: float | None) -> str:
    """An adjusted p-value with a tick if it survives; a dash if there is none."""
    if p is None:
        return "–"
    text = "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
    return f"✓ {text}" if p <= ERROR else text


def show_power(power: float | None) -> str:
    """A power in percent; a dash if there is none."""
    if power is None:
        return "–"
    return "> 99%" if power > 0.99 else f"{100 * power:.0f}%"


class VerdictTable(list):
    """Verdicts, shown as a table in a notebook and as text elsewhere."""

    def __init__(self, verdicts: Iterable[Verdict]):
        super().__init__(verdicts)

    def __repr__(self) -> str:
        lines = []
        for item in self:
            power = "" if item.power is None else f", power {show_power(item.power)}"
            sign = SIGNS[item.verdict]
            lines.append(f"{sign} {item.verdict:18} {item.claim.id}{power}")
            lines += [f"    {_marked(finding)}" for finding in item.findings]
            if item.verdict == PRETRAINING_UNKNOWN:
                lines.append(f"    {item.reason}")
            if item.claim.chosen_by_looking:
                looked = item.claim.chosen_by_looking.strip()
                lines.append(f"    chosen by looking: {looked}")
        return "\n".join(lines) or "this notebook has no claims"

    def _repr_html_(self) -> str:
        heads = ("verdict", "claim", "measured", "value (95%)", "wanted", "power")
        head = "".join(f"<th {CELL}>{name}</th>" for name in heads)
        body = "".join(row for item in self for row in _html_rows(item))
        legend = "; ".join(
            f"{SIGNS[verdict]} {text}"
            for verdict, text in LEGEND.items()
            if verdict in {item.verdict for item in self}
        )
        return (
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"<p>{legend}. Null: the value of no effect; its distance from what is "
            f"wanted is the smallest effect worth the name. {POWER_MEANS}</p>"
        )


CELL = 'style="text-align:left;vertical-align:top"'
POWER_MEANS = (
    "Power: the chance of “reproduced” if the effect is twice the smallest worth the "
    "name, with the spread and the number of seeds measured; of a claim, the least of "
    "its conditions'."
)


def _marked(finding: Finding) -> str:
    text = f"(control) {finding}" if finding.condition.control else str(finding)
    if finding.power is None:
        return text
    return f"{text}; power {show_power(finding.power)}"


def _html_rows(verdict: Verdict) -> Iterable[str]:
    """A row for each condition; the verdict and the claim span them all."""
    claim = verdict.claim
    described = f"<code>{claim.id}</code><br>{html.escape(claim.claim)}"
    if verdict.verdict == PRETRAINING_UNKNOWN:
        described += f"<br><i>No verdict:</i> {html.escape(verdict.reason)}"
    if claim.chosen_by_looking:
        looked = html.escape(claim.chosen_by_looking)
        described += f"<br><i>Chosen by looking:</i> {looked}"
    sign = f"<b>{SIGNS[verdict.verdict]}&nbsp;{verdict.verdict}</b>"
    span = f'rowspan="{len(verdict.findings)}" {CELL}'
    first = f"<td {span}>{sign}</td><td {span}>{described}</td>"
    for finding in verdict.findings:
        cells = "".join(f"<td {CELL}>{text}</td>" for text in _html_cells(finding))
        yield f"<tr>{first}{cells}</tr>"
        first = ""


def _html_cells(finding: Finding) -> tuple[str, ...]:
    name = f"<code>{html.escape(finding.condition.metric)}</code>"
    if finding.condition.control:
        name += " (control)"
    value = "–" if finding.value is None else f"{finding.value:.3f}"
    if finding.low is not None:
        value += f" ({finding.low:.3f}&nbsp;to&nbsp;{finding.high:.3f})"
    sign = SIGNS[finding.result or NOT_MEASURED]
    wanted, power = (
        text.replace(" ", "&nbsp;")
        for text in (finding.wanted, html.escape(show_power(finding.power)))
    )
    return f"{sign}&nbsp;{name}", value, wanted, power
