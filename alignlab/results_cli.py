"""What a run came to, and whether it still holds: `alignlab check`, `compare`,
`history`, `baseline`, `report` and `claims`.

Like all commands, these import what they need when they run.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from alignlab.errors import AlignlabError, Status, explained_if_full
from alignlab.files import write_text

RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run's folder, or 'latest'.")
]


def check(
    run: RunFolder,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="RECORD",
            help="A run, its metrics.json, or a baseline; by default what ships.",
        ),
    ] = None,
    alone: Annotated[
        bool, typer.Option("--alone", help="Check the run by itself; compare nothing.")
    ] = False,
    identical: Annotated[
        bool,
        typer.Option(
            "--identical", help="Every number must be the record's to the last digit."
        ),
    ] = False,
    timings: Annotated[
        bool, typer.Option("--timings", help="Compare measured times as well.")
    ] = False,
    unlike: Annotated[
        bool,
        typer.Option("--unlike", help="Compare even if profile or settings differ."),
    ] = False,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write JUnit XML there.")
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a summary for a pull request there."),
    ] = None,
) -> None:
    """Check that a run is sound and agrees with its record.

    Each metric is judged by the spread of the recorded seeds, and all metrics of a
    notebook together; other seeds give a false alarm in one check of a hundred. Runs of
    another profile, with other settings or fewer seeds are refused. What is merely
    different (commit, libraries, machine, verdicts that became less certain) is told.

    Exits with 0 if it is sound, 1 if the run failed, 2 on wrong arguments or unlike
    runs, 3 if it drifted, 4 if alignlab crashed.

    Examples:

    - `alignlab check latest`
    - `alignlab check latest --identical` — after a change that should change nothing
    - `alignlab check runs/nightly --against runs/release --junit check.xml`
    - `alignlab check latest --alone` — finished, and every number finite?
    """
    from alignlab.runs.compare import DRIFTED, FAILED, SOUND, check_run
    from alignlab.runs.records import read_metrics, read_record, shipped_record
    from alignlab.runs.summary import as_junit, as_markdown, as_text

    if alone and (against or identical or timings or unlike):
        raise AlignlabError(
            "--alone compares nothing.",
            "Omit it, or --against, --identical, --timings and --unlike.",
        )
    folder = folder_of(run)
    metrics, record = read_metrics(folder), None
    if not alone:
        place = folder_of(against) if against else shipped_record(metrics["profile"])
        record = read_record(place)
    options = dict(identical=identical, timings=timings, unlike=unlike)
    outcome = check_run(metrics, record, **options)
    title = f"alignlab check {folder.name}"
    if junit:
        write_text(junit, as_junit(outcome, title))
    if markdown:
        write_text(markdown, as_markdown(outcome, title))
    *lines, last = as_text(outcome)
    for line in lines:
        typer.echo(line, err=True)
    typer.echo(last)
    status = {SOUND: Status.SOUND, FAILED: Status.FAILED, DRIFTED: Status.DRIFTED}
    raise typer.Exit(status[outcome.state])


def compare(
    first: RunFolder,
    second: RunFolder,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write a page, with the figures side by side."
        ),
    ] = None,
) -> None:
    """Show the metrics of two runs side by side, and where they differ.

    Where both have the same seeds, they are compared seed by seed. A star marks a
    difference whose 95% interval leaves out 0.

    Examples:

    - `alignlab compare runs/before latest`
    - `alignlab compare runs/before latest --html compare.html` — with the figures
    """
    from alignlab.runs.pairs import pairs, verdicts_of, write_page
    from alignlab.runs.records import read_metrics
    from alignlab.runs.report import number

    folders = folder_of(first), folder_of(second)
    runs = read_metrics(folders[0]), read_metrics(folders[1])
    table = Table(
        "notebook", "metric", str(first), str(second), "difference", "±", "by"
    )
    for pair in pairs(*runs):
        numbers = pair.first, pair.second, pair.difference, pair.half
        by = "seed" if pair.paired else "" if pair.half is None else "mean"
        mark = " *" if pair.differs else ""
        table.add_row(pair.notebook, pair.metric + mark, *map(number, numbers), by)
    for claim, before, now in verdicts_of(*runs):
        mark = "" if before == now else " *"
        table.add_row("claim", claim + mark, before, now)
    Console().print(table)
    if html:
        typer.echo(f"page: {write_page(html, folders, runs)}")


def history(
    metric: Annotated[
        str, typer.Argument(metavar="METRIC", help="A metric's name, or 03/NAME.")
    ],
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN", help="Folders; by default all of runs/."),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Which runs; by default the latest's profile.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The picture; by default METRIC.png."),
    ] = None,
) -> None:
    """Draw a metric over many runs, with the band in which its record expects it.

    Examples:

    - `alignlab history label_accuracy` — in every run of runs/
    - `alignlab history 05/dpo_gold runs/nightly-* --out dpo.png`
    """
    from alignlab.runs.history import band_in, draw, find_runs, points
    from alignlab.runs.records import read_metrics, read_record, shipped_record
    from alignlab.runs.report import number

    folders = [folder_of(run) for run in runs] if runs else find_runs()
    notebook, profile, measured = points(metric, folders, profile)
    name = metric.rpartition("/")[2]
    latest = next(f for f in folders if f.name == measured[-1].run)
    like = read_metrics(latest)["notebooks"][notebook]["metrics"][name]
    try:
        record = read_record(shipped_record(profile))
        band = band_in(record, notebook, name, like)
    except AlignlabError:  # no record ships for this profile
        band = None
    table = Table("run", "started", "commit", name, "95% interval")
    for point in measured:
        limits = "–"
        if point.low is not None:
            limits = f"{number(point.low)} to {number(point.high)}"
        row = point.run, point.started, point.commit, number(point.value), limits
        table.add_row(*row)
    Console().print(table)
    target = out or Path(f"{name}.png")
    draw(f"{notebook[:2]} {name}", measured, band).savefig(target, dpi=120)
    typer.echo(f"picture: {target}")


def baseline(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Finished runs with different seeds, or a baseline to add to.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="By default the one that ships."),
    ] = None,
) -> None:
    """Make a record for `alignlab check` of several runs that differ in their seeds.

    Three runs or more tell how far chance moves a metric; each has a first seed of its
    own, so that seeds of different runs do not overlap.

    Examples:

    - `alignlab baseline runs/seed0 runs/seed3 runs/seed6`
    - `alignlab baseline runs/a runs/b runs/c --out mine.json` — for `check --against`
    - `alignlab baseline mine.json runs/d --out mine.json` — one run more
    """
    from alignlab.runs.folders import short_path
    from alignlab.runs.records import read_record, write_baseline

    target = write_baseline([folder_of(run) for run in runs], out)
    typer.echo(f"baseline of {len(read_record(target))} runs: {short_path(target)}")


def report(run: RunFolder) -> None:
    """Write a run's report.html again, from what its folder holds.

    Its claims are judged as they stood when it was run.

    Example: `alignlab report latest`
    """
    from alignlab.runs.folders import short_path
    from alignlab.runs.report import write_report

    folder = folder_of(run)
    with explained_if_full(folder, "Free some space."):
        typer.echo(f"report: {short_path(write_report(folder))}")


def claims(
    name: Annotated[
        str | None, typer.Argument(metavar="ID", help="One claim, in full.")
    ] = None,
    former: Annotated[
        bool, typer.Option("--former", help="Replaced claims, and what was wrong.")
    ] = False,
    run: Annotated[
        Path | None,
        typer.Option(help="A run to judge by; by default figures/recorded.json."),
    ] = None,
) -> None:
    """Show what is claimed, what would show it, and what came out.

    With an ID: every condition with the smallest effect worth the name and the power to
    see it, every control with the result that would break it, and what it replaces.

    Examples:

    - `alignlab claims` — all of them
    - `alignlab claims sft-mask-2` — one in full
    - `alignlab claims --former` — those that were replaced, and why
    - `alignlab claims --run latest` — with the verdicts of your own run
    """
    from alignlab.runs.judging import SIGNS, show_power
    from alignlab.runs.ledger import explain, find_claim, former_claims, judged_claims

    verdicts = judged_claims(folder_of(run) if run else None)
    if name:
        typer.echo(explain(find_claim(name, verdicts)))
        return
    if former:
        table = Table("former", "verdict", "now", "why")
        for old, claim in former_claims():
            table.add_row(old.id, old.verdict, claim.id, escape(old.why.strip()))
    else:
        table = Table("claim", "verdict", "power", "what is claimed")
        for id, item in verdicts.items():
            sign = f"{SIGNS[item.verdict]} {item.verdict}"
            text = escape(item.claim.claim.strip())
            table.add_row(id, sign, show_power(item.power), text)
    Console().print(table)


def folder_of(given: Path) -> Path:
    """A run's folder: "latest" is the one that was started last."""
    from alignlab.runs.folders import latest_run

    return latest_run() if str(given) == "latest" else given
