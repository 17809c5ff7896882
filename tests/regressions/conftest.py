"""The table of who notices what, which docs/regression.md shows."""

from .planting import mutants

ROWS: dict[str, dict[str, str]] = {}  # of each mutant, what each kind of test saw


def pytest_runtest_logreport(report):
    """What a test recorded as ``mutant`` and ``sees``; also out of pytest-xdist."""
    properties = dict(report.user_properties)
    if report.when == "call" and "mutant" in properties:
        seen = properties["sees"] if report.passed else "nothing"
        ROWS.setdefault(properties["mutant"], {})[properties["who"]] = seen


def pytest_terminal_summary(terminalreporter):
    if not ROWS:
        return
    terminalreporter.section("who notices what")
    terminalreporter.write_line("| mistake | unit test | run |\n| --- | --- | --- |")
    for name, mutant in mutants().items():
        if name in ROWS:
            unit, run = (ROWS[name].get(who, "not asked") for who in ("unit", "run"))
            terminalreporter.write_line(f"| {mutant.why} | {unit} | {run} |")
