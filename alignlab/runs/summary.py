"""What `alignlab check` says, for a terminal, a pull request (Markdown) and a CI server
(JUnit XML)."""

import xml.etree.ElementTree as xml
from collections.abc import Iterator

from alignlab.runs.compare import DRIFTED, FAILED, SOUND, Comparison, Outcome

SIGNS = {SOUND: "✓", DRIFTED: "≠", FAILED: "✗"}
MOST = 20  # rows of a table in a pull request


def as_text(outcome: Outcome) -> Iterator[str]:
    """Lines for a terminal: notes, changed verdicts, what is wrong, and the state."""
    yield from (f"note: {note}" for note in outcome.notes)
    yield from (f"changed: {change}" for change in _merely_changed(outcome))
    yield from (f"failed: {problem}" for problem in outcome.failures)
    yield from (f"drifted: {problem}" for problem in outcome.drifts)
    yield f"{outcome.state}: {counts(outcome)}"


def counts(outcome: Outcome) -> str:
    """What was compared, and what is wrong, in one line."""
    rows = outcome.comparisons
    if not rows:
        wrong = len(outcome.failures) + len(outcome.drifts)
        return f"{wrong} problems; compared with nothing"
    outside = sum(not row.inside for row in rows)
    return (
        f"{len(outcome.failures)} failures, {len(outcome.drifts)} drifts; {len(rows)} "
        f"metrics compared, {outside} outside their 95% bands where chance puts "
        f"{0.05 * len(rows):.0f}; {len(outcome.changes)} verdicts changed"
    )


def _merely_changed(outcome: Outcome) -> list:
    return [change for change in outcome.changes if not change.drifted]


# --- Markdown ---------------------------------------------------------------------


def as_markdown(outcome: Outcome, title: str) -> str:
    """A summary for a pull request: state, problems, verdicts, the metrics that moved
    most."""
    lines = [f"### {SIGNS[outcome.state]} {title}: {outcome.state}", ""]
    lines += [counts(outcome) + ".", ""]
    for name, problems in (("Failed", outcome.failures), ("Drifted", outcome.drifts)):
        if problems:
            lines += [f"**{name}**", "", *(f"- {_plain(p)}" for p in problems[:MOST])]
            if len(problems) > MOST:
                lines.append(f"- and {len(problems) - MOST} more")
            lines.append("")
    if changed := _merely_changed(outcome):
        lines += ["**Verdicts that changed, as other seeds may change them**", ""]
        lines += [*(f"- {_plain(change)}" for change in changed), ""]
    outside = [row for row in outcome.comparisons if not row.inside]
    if outside:
        lines += _table(sorted(outside, key=lambda row: row.p)[:MOST])
    if outcome.notes:
        lines += ["<details><summary>How it was made</summary>", ""]
        lines += [*(f"- {_plain(note)}" for note in outcome.notes), "", "</details>"]
    return "\n".join(lines).rstrip() + "\n"


def _table(rows: list[Comparison]) -> list[str]:
    lines = ["| notebook | metric | recorded | this run | p |"]
    lines += ["| --- | --- | ---: | ---: | ---: |"]
    for row in rows:
        recorded = f"{row.recorded:.4g} ± {row.half:.2g}"
        mark = "**" if row.drifted else ""
        name = f"{mark}{row.metric}{mark}".replace("_", "\\_")
        lines.append(
            f"| {row.notebook[:2]} | {name} | {recorded} | {row.value:.4g} | "
            f"{row.p:.1g} |"
        )
    return [*lines, ""]


def _plain(text: object) -> str:
    """Text that Markdown shows as it is, on one line."""
    shown = " ".join(str(text).split())
    for sign in ("\\", "`", "*", "_", "<", "|", "["):
        shown = shown.replace(sign, "\\" + sign)
    return shown


# --- JUnit ------------------------------------------------------------------------


def as_junit(outcome: Outcome, title: str) -> str:
    """The check as a test suite of JUnit's: a case for each notebook that ran, each
    metric that was compared, each notebook's metrics together, and each other problem.
    Failures of the run are errors there, drift is a failure."""
    suite = xml.Element("testsuite", name=title)
    cases: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for row in outcome.comparisons:
        cases[row.notebook, row.metric] = []
        cases[row.notebook, "execution"] = []
    for name in outcome.joint:
        cases[name, "all metrics"] = []
    for change in outcome.changes:
        cases[change.notebook, change.claim] = []
    for tag, problems in (("error", outcome.failures), ("failure", outcome.drifts)):
        for problem in problems:
            key = problem.notebook, problem.what
            cases.setdefault(key, []).append((tag, problem.text))
    for (notebook, name), wrong in cases.items():
        case = xml.SubElement(suite, "testcase", classname=notebook or "run", name=name)
        for tag, text in wrong[:1]:
            detail = xml.SubElement(case, tag, message=_printable(text))
            detail.text = _printable("\n".join(line for _, line in wrong))
    suite.set("tests", str(len(cases)))
    for tag, attribute in (("error", "errors"), ("failure", "failures")):
        suite.set(attribute, str(len(suite.findall(f"testcase/{tag}"))))
    root = xml.Element("testsuites")
    root.append(suite)
    xml.indent(root)
    return xml.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _printable(text: str) -> str:
    """Without control characters, such as a terminal's colours, which XML forbids."""
    return "".join(c if c in "\n\t" or c >= " " else "�" for c in text)
