"""What the README and docs/claims.md show of the recorded run.

`alignlab publish` writes both; nothing of them is typed in.
"""

import re
from collections import Counter
from collections.abc import Iterable

from alignlab.runs.claims import load_claims
from alignlab.runs.judging import (
    LEGEND,
    POWER_MEANS,
    PRETRAINING_UNKNOWN,
    SIGNS,
    Finding,
    Verdict,
    holm_over,
    judge_recorded,
    show_p,
    show_power,
)

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
LEDGER = "docs/claims.md"


def with_results(readme: str, recorded: dict) -> str:
    """The README with a new table between its markers."""
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{results_table(recorded)}\n{END}{rest.split(END)[1]}"


def results_table(recorded: dict) -> str:
    """A line for each claim: verdict, headline, and the first effect measured. Without
    a recorded run all claims count as not measured."""
    verdicts = judge_recorded(recorded["notebooks"])
    counts = Counter(item.verdict for item in verdicts)
    summary = ", ".join(f"{counts[name]} {name}" for name in LEGEND if counts[name])
    return "\n".join(
        [
            f"{len(verdicts)} claims: {summary}.",
            "",
            "| | | claim | first effect (95% interval over seeds) |",
            "| --- | --- | --- | --- |",
            *(_row(item) for item in verdicts),
            "",
            _signs(counts),
            "",
            *_runs(recorded),
        ]
    )


def _row(verdict: Verdict) -> str:
    claim = verdict.claim
    link = f"[`{claim.id}`]({LEDGER}#{claim.id})"
    cells = [
        claim.notebook,
        SIGNS[verdict.verdict],
        f"{headline(claim.claim)} ({link})",
    ]
    first = next(item for item in verdict.findings if not item.condition.control)
    effect = measured(first).partition(" (null")[0]
    return f"| {' | '.join([*cells, effect])} |"


def headline(claim: str) -> str:
    """A claim's first clause: what stands before a colon, semicolon or full stop."""
    return re.split(r"[:;.]\s", " ".join(claim.split()) + " ")[0].strip(" .")


def _signs(given: Iterable[str]) -> str:
    signs = (
        f"{SIGNS[verdict]} {verdict}: {text}"
        for verdict, text in LEGEND.items()
        if verdict != PRETRAINING_UNKNOWN or verdict in given
    )
    return "; ".join(signs) + "."


def _runs(recorded: dict) -> list[str]:
    """Which run each notebook's numbers come from."""
    made: dict[str, list[str]] = {}
    for name, section in recorded["notebooks"].items():
        made.setdefault(_how(section), []).append(name[:2])
    return [f"Notebook {', '.join(names)}: {how}." for how, names in made.items()]


def _how(section: dict) -> str:
    return (
        f"profile {section['profile']}, {len(section['seeds'])} seeds, "
        f"torch {section['versions']['torch']}, {section['started'][:10]}"
    )


def claims_page(recorded: dict) -> str:
    """The ledger, docs/claims.md: each claim with all that was measured for it."""
    verdicts = judge_recorded(recorded["notebooks"])
    adjusted = holm_over(verdicts)
    titles = {name[:2]: name for name in recorded["notebooks"]}
    lines = ["# The claims", "", "`alignlab publish` writes this page.", ""]
    lines += [f"- {SIGNS[name]} **{name}**: {text}" for name, text in LEGEND.items()]
    lines += ["", f"Null: the value of no effect. {POWER_MEANS}", ""]
    lines += [
        "Holm: the claim's p-value, the largest of its conditions', adjusted over "
        "every claim of this page that has a verdict; ✓ if it is at most 0.025 "
        "(one-sided).",
        "",
        *_runs(recorded),
        "",
        "What each quantity is, and its control: `alignlab claims ID`.",
    ]
    for notebook in sorted({item.claim.notebook for item in verdicts}):
        lines += ["", f"## {_title(titles.get(notebook, notebook))}"]
        for item in verdicts:
            if item.claim.notebook == notebook:
                lines += _entry(item, adjusted.get(item.claim.id))
    return "\n".join([*lines, *_changes()]) + "\n"


def _title(name: str) -> str:
    if len(name) == 2:  # no run of it is recorded
        return f"Notebook {name}"
    return f"[{name[:2]} · {name[3:].replace('_', ' ')}](../notebooks/{name}.ipynb)"


def _entry(verdict: Verdict, adjusted: float | None) -> list[str]:
    claim = verdict.claim
    lines = ["", f"### {claim.id}", "", " ".join(claim.claim.split()), ""]
    lines += [
        f"{SIGNS[verdict.verdict]} **{verdict.verdict}**, "
        f"power {show_power(verdict.power)}, Holm {show_p(adjusted)}",
        "",
    ]
    lines += [f"- {measured(finding)}" for finding in verdict.findings]
    if claim.chosen_by_looking:
        looked = " ".join(claim.chosen_by_looking.split())
        lines.append(f"- *Chosen by looking:* {looked}")
    return lines


def measured(finding: Finding) -> str:
    """A condition as text: "gain: 0.90 (0.80 to 1.00), wanted above 0.1 (null 0)"."""
    name = finding.condition.metric.replace("_", " ")
    control = " (control)" if finding.condition.control else ""
    value = "–" if finding.value is None else f"{finding.value:.3f}"
    if finding.low is not None:
        value += f" ({finding.low:.3f} to {finding.high:.3f})"
    return f"{name}{control}: {value}, wanted {finding.wanted}"


def _changes() -> list[str]:
    """Claims that replaced others, with the former verdict and what was wrong."""
    changed = [claim for claim in load_claims().values() if claim.former]
    if not changed:
        return []
    lines = ["", "## What changed, and why", ""]
    lines += [
        "| former claim | verdict then | now | why |",
        "| --- | --- | --- | --- |",
    ]
    for claim in changed:
        for former in claim.former:
            then = f"{SIGNS.get(former.verdict, '')} {former.verdict}".strip()
            why = " ".join(former.why.split())
            lines.append(f"| `{former.id}` | {then} | `{claim.id}` | {why} |")
    return lines
