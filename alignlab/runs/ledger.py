"""`alignlab claims`: what is claimed, what would show it, what was claimed before."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from alignlab.errors import AlignlabError, did_you_mean
from alignlab.files import read_json
from alignlab.runs.claims import Claim, Former, load_claims
from alignlab.runs.judging import (
    NOT_MEASURED,
    SIGNS,
    Finding,
    Verdict,
    judge_recorded,
    show_power,
)
from alignlab.runs.records import read_metrics

RECORDED = Path("figures/recorded.json")  # in a checkout


def judged_claims(run: Path | None = None) -> dict[str, Verdict]:
    """Every claim with its verdict, by id.

    Args:
        run: a run's folder or a file of metrics; by default what the checkout records.
    """
    metrics = read_metrics(run) if run else read_json(RECORDED, {"notebooks": {}})
    return {item.claim.id: item for item in judge_recorded(metrics["notebooks"])}


def former_claims() -> list[tuple[Former, Claim]]:
    """Claims that were replaced, each with the one that replaced it."""
    return [
        (former, claim) for claim in load_claims().values() for former in claim.former
    ]


def find_claim(name: str, verdicts: Mapping[str, Verdict]) -> Verdict:
    """The verdict on a claim, or on the one that replaced it.

    Raises:
        AlignlabError: if there never was such a claim.
    """
    replaced = {former.id: claim.id for former, claim in former_claims()}
    name = replaced.get(name, name)
    if name not in verdicts:
        raise AlignlabError(
            f"There is no claim {name!r}.", did_you_mean(name, verdicts)
        )
    return verdicts[name]


def explain(verdict: Verdict) -> str:
    """All that there is to say about one claim, as text."""
    claim = verdict.claim
    lines = [
        f"{claim.id}, notebook {claim.notebook}: "
        f"{SIGNS[verdict.verdict]} {verdict.verdict}",
        _plain(claim.claim),
        "",
        f"Measured as: {_plain(claim.measured_as)}",
        f"Held against: {_plain(claim.control)}",
        f"After: {_plain(claim.reference)}",
        f"At least {claim.min_seeds} seeds; power {show_power(verdict.power)}, the "
        "least of its conditions.",
    ]
    if claim.needs_known_pretraining:
        rests_on = _plain(claim.needs_known_pretraining)
        lines.append(f"Needs to be known of the pretraining: {rests_on}.")
    for finding in verdict.findings:
        lines += ["", *_explain_finding(finding)]
    if claim.chosen_by_looking:
        lines += ["", f"Chosen by looking: {_plain(claim.chosen_by_looking)}"]
    for former in claim.former:
        lines += ["", f"Replaces {former.id} ({former.verdict}): {_plain(former.why)}"]
    return "\n".join(lines)


def _explain_finding(finding: Finding) -> Iterator[str]:
    condition = finding.condition
    sign = SIGNS[finding.result or NOT_MEASURED]
    yield f"{sign} {'control, ' if condition.control else ''}{finding}"
    yield f"    why: {_plain(condition.why)}"
    if condition.null is not None and not condition.wants_null:
        smallest = abs(condition.threshold - condition.null)
        yield (
            f"    smallest effect worth the name: {smallest:g}; "
            f"power to see twice that: {show_power(finding.power)}"
        )
    elif condition.null is not None:
        yield f"    power if there is no effect: {show_power(finding.power)}"
    if condition.bounds:
        yield f"    cannot leave {condition.bounds[0]:g} to {condition.bounds[1]:g}"
    if condition.control:
        yield f"    broken if: {_plain(condition.breaks_if)}"


def _plain(text: str) -> str:
    return " ".join(text.split())
