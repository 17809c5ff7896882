"""From a recorded run to the repository: the README's table, and the figures.

Only `alignlab publish RUN` writes results into the README; none is typed in.
"""

import shutil
from pathlib import Path

from alignlab.errors import AlignlabError
from alignlab.files import read_json, write_json, write_text
from alignlab.runs.claims import SIGNS, Verdict, judge_notebook, load_claims
from alignlab.runs.compare import read_metrics
from alignlab.runs.context import METRICS_FILE
from alignlab.runs.folders import FINISHED

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
RECORDED = "recorded.json"  # in figures/: the metrics behind the README


def publish(run: Path, root: Path) -> None:
    """Copy a finished run's figures and metrics, and write the README's table.

    Notebooks that the run did not execute keep their earlier results.

    Args:
        run: the folder of a run; verdicts need profile full.
        root: the checkout: the folder with README.md and figures/.

    Raises:
        AlignlabError: if a notebook of the run did not finish.
    """
    metrics = read_metrics(run)
    made = {name: metrics[name] for name in ("profile", "started", "versions")}
    path = root / "figures" / RECORDED
    earlier = read_json(path, default={"notebooks": {}, "claims": {}})
    notebooks = earlier["notebooks"]
    for name, section in metrics["notebooks"].items():
        if section["status"] != FINISHED:
            raise AlignlabError(
                f"Notebook {name} of {run} is {section['status']}.",
                f"Finish it: `alignlab run --resume --out {run}`.",
            )
        notebooks[name] = made | section
    for name in metrics["notebooks"]:
        _copy_figures(run / name, root / "figures")
    recorded = {
        "notebooks": dict(sorted(notebooks.items())),
        "claims": earlier["claims"] | metrics["claims"],
    }
    write_json(path, recorded)
    readme = root / "README.md"
    write_text(readme, with_results(readme.read_text(encoding="utf-8"), recorded))


def _copy_figures(notebook: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    number = notebook.name[:2]
    for old in target.glob(f"{number}_*.png"):
        old.unlink()
    for figure in read_json(notebook / METRICS_FILE)["figures"]:
        shutil.copyfile(
            notebook / figure["file"], target / f"{number}_{figure['name']}.png"
        )


def with_results(readme: str, metrics: dict) -> str:
    """The README with a new table between its markers."""
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{results_table(metrics)}\n{END}{rest.split(END)[1]}"


def results_table(recorded: dict) -> str:
    """The claims and their verdicts as a Markdown table; without a recorded run they
    count as not measured."""
    lines = [
        "| | claim | measured (95% interval over seeds) | wanted |",
        "| --- | --- | --- | --- |",
    ]
    sections = {name[:2]: section for name, section in recorded["notebooks"].items()}
    for number in sorted({claim.notebook for claim in load_claims().values()}):
        metrics = sections.get(number, {}).get("metrics", {})
        lines += [_row(v) for v in judge_notebook(number, metrics)]
    made: dict[str, list[str]] = {}
    for number, section in sections.items():
        made.setdefault(_how(section), []).append(number)
    lines += ["", *(f"Notebook {', '.join(n)}: {how}." for how, n in made.items())]
    lines.append(
        "What each quantity is, and its control: the `claims.yaml` of each chapter in "
        "[alignlab/chapters](alignlab/chapters). Every recorded number: "
        f"[figures/{RECORDED}](figures/{RECORDED})."
    )
    return "\n".join(lines)


def _how(section: dict) -> str:
    return (
        f"profile {section['profile']}, {len(section['seeds'])} seeds, "
        f"torch {section['versions']['torch']}, {section['started'][:10]}"
    )


def _row(verdict: Verdict) -> str:
    measured, wanted = [], []
    for finding in verdict.findings:
        name = finding.condition.metric.replace("_", " ")
        value = "–" if finding.value is None else f"{finding.value:.3f}"
        if finding.low is not None:
            value += f" ({finding.low:.3f} to {finding.high:.3f})"
        measured.append(f"{name}: {value}")
        condition = finding.condition
        wanted.append(f"{condition.direction} {condition.threshold:g}")
    cells = (
        f"{SIGNS[verdict.verdict]} **{verdict.verdict}**",
        f"{verdict.claim.claim.strip()} (`{verdict.claim.id}`)",
        "<br>".join(measured),
        "<br>".join(wanted),
    )
    return f"| {' | '.join(cells)} |"
