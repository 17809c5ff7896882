"""`alignlab build`, `notebooks` and `course ...`: notebooks for readers and classes.

Like all commands, these import what they need when they run.
"""

from pathlib import Path
from typing import Annotated

import typer

course_app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")


def build(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail if a notebook differs.")
    ] = False,
    outputs: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Take the outputs from this run's notebooks."),
    ] = None,
    repository: Annotated[
        str | None,
        typer.Option(metavar="URL", help="For badges and set-up; kept for next time."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--notebooks", help="The folder that holds source/."),
    ] = None,
) -> None:
    """Make notebooks and exercises from notebooks/source.

    Each notebooks/source/NN_name.py gives a complete notebook and an exercise, which
    leaves out what stands between BEGIN SOLUTION and END SOLUTION.

    Examples:

    - `alignlab build` — after changing a source
    - `alignlab build --outputs runs/full` — with the outputs of a recorded run
    - `alignlab build --repository https://github.com/OWNER/NAME` — of a fork
    - `alignlab build --check` — for CI: exits with 1 and says what differs
    """
    from alignlab.course.build import build_all, check_all, sources
    from alignlab.course.opening import set_repository
    from alignlab.runs.folders import executed_notebooks, latest_run

    if repository is not None:
        set_repository(sources(folder)[0].parent, repository)
    if not check:
        run = latest_run() if str(outputs) == "latest" else outputs
        executed = executed_notebooks(run) if run else None
        for path in build_all(folder, executed):
            typer.echo(path)
        return
    problems = check_all(folder)
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(1)


def notebooks(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where they go.")],
) -> None:
    """Copy the notebooks and their exercises into a folder of yours.

    Files that are there already are kept.

    Example: `alignlab notebooks .`
    """
    from alignlab.course.notebooks import copy_notebooks

    copied, kept = copy_notebooks(folder)
    typer.echo(f"{len(copied)} notebooks copied to {folder}")
    for path in kept:
        typer.echo(f"kept: {path} was there already")


Numbers = Annotated[
    list[str] | None,
    typer.Argument(help="Numbers of notebooks: 04 07. By default all."),
]


@course_app.command()
def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    notebooks: Numbers = None,
) -> None:
    """Start a course for nbgrader: assignments, settings, an example roster.

    docs/teaching.md goes on from here to the first released assignment.

    Examples:

    - `alignlab course new alignment-2027` — with every notebook
    - `alignlab course new seminar 04 07` — PPO and calibration only
    """
    from alignlab.course.teaching import new_course

    written = new_course(folder, notebooks or ())
    typer.echo(f"{len(written)} files written. Now: cd {folder}")
    for path in written[2:]:
        typer.echo(f"  nbgrader generate_assignment {path.stem}")


@course_app.command()
def otter(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    notebooks: Numbers = None,
) -> None:
    """Write the notebooks as sources for otter-grader.

    `otter assign` makes of each a student version without solutions, and an autograder.

    Example: `alignlab course otter assignments 04 07`
    """
    from alignlab.course.otter import export_for_otter

    for path in export_for_otter(folder, notebooks or ()):
        typer.echo(f"otter assign {path} {path.parent / 'dist'}")


@course_app.command()
def grade(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of submissions.")],
    out: Annotated[
        Path | None, typer.Option(help="Where grades.csv and grades.json go.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=1, help="How long one submission may run.")
    ] = 900,
    profile: Annotated[
        str, typer.Option(help="How much the notebooks compute.")
    ] = "smoke",
) -> None:
    """Grade submitted exercises without nbgrader.

    FOLDER holds STUDENT/NAME.ipynb, or what nbgrader collected. The checks are put back
    to this release's first. Submissions run as you: docs/teaching.md has the way in a
    container.

    Example: `alignlab course grade submitted`
    """
    from alignlab.course.grades import grade_folder

    def show(item) -> None:
        given = f"{item.points:g} of {item.out_of:g}"
        trouble = f" ({item.problem})" if item.problem else ""
        typer.echo(f"{item.student} {item.notebook}: {given}{trouble}")

    grade_folder(folder, out, seconds, profile, on_grade=show)
    typer.echo(f"grades: {(out or folder) / 'grades.csv'}")
