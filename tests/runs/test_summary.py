"""The same outcome for a terminal, a pull request and a CI server."""

import xml.etree.ElementTree as xml

from alignlab.runs.compare import check_run
from alignlab.runs.summary import as_junit, as_markdown, as_text

from .recorded_runs import NAME, changed, make_run

RECORD = [make_run(0), make_run(3), make_run(6)]
SOUND = check_run(make_run(20), RECORD)
METRICS = ("notebooks", NAME, "metrics")
DRIFTED = check_run(
    changed(
        changed(make_run(20), *METRICS, "m3", "value", to=0.9),
        "claims", "gain", "verdict", to="inconclusive",
    ),
    RECORD,
)  # fmt: skip
FAILED = check_run(
    changed(
        changed(make_run(20), "notebooks", NAME, "status", to="failed"),
        "notebooks", NAME, "reason", to="ValueError: a|b \x1b[0m<i>",
    ),
    RECORD,
)  # fmt: skip


def test_the_last_line_is_the_state_and_what_was_compared():
    assert list(as_text(SOUND))[-1].startswith(
        "sound: 0 failures, 0 drifts; 12 metrics compared, "
    )
    lines = list(as_text(DRIFTED))
    assert lines[-1].startswith("drifted: 0 failures, 1 drifts")
    assert any(line.startswith(f"drifted: {NAME}: m3 is 0.9") for line in lines)
    assert any(line.startswith("changed: claim gain was reproduced") for line in lines)
    assert list(as_text(check_run(make_run(0))))[-1] == (
        "sound: 0 problems; compared with nothing"
    )


def test_markdown_has_the_state_the_problems_and_the_metrics_that_moved():
    text = as_markdown(DRIFTED, "check")
    assert text.startswith("### ≠ check: drifted\n")
    assert f"- {NAME.replace('_', chr(92) + '_')}: m3 is 0.9" in text
    assert "**Verdicts that changed" in text
    row = next(line for line in text.splitlines() if line.startswith("| 00 | **m3**"))
    assert row.count("|") == 6
    assert "a\\|b" in as_markdown(FAILED, "check") and "\\<i>" in as_markdown(
        FAILED, ""
    )
    assert as_markdown(SOUND, "check").startswith("### ✓ check: sound\n")


def test_junit_counts_cases_failures_and_errors():
    suite = xml.fromstring(as_junit(SOUND, "check")).find("testsuite")
    assert (suite.get("failures"), suite.get("errors")) == ("0", "0")
    names = {case.get("name") for case in suite}
    assert {"m0", "m11", "execution", "all metrics"} <= names
    assert int(suite.get("tests")) == len(suite.findall("testcase"))
    suite = xml.fromstring(as_junit(DRIFTED, "check")).find("testsuite")
    assert (suite.get("failures"), suite.get("errors")) == ("1", "0")
    (failure,) = suite.findall("testcase[@name='m3']/failure")
    assert failure.get("message").startswith("m3 is 0.9")
    assert suite.find("testcase[@name='gain']") is not None


def test_junit_survives_what_a_terminal_prints():
    suite = xml.fromstring(as_junit(FAILED, "check")).find("testsuite")
    assert suite.get("errors") == "1"
    error = suite.find("testcase[@name='execution']/error")
    assert "ValueError: a|b \N{REPLACEMENT CHARACTER}[0m<i>" in error.get("message")
