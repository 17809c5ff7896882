"""From a recorded run to the repository: README table, figures, notebooks' outputs.

`alignlab publish RUN` is the only way results get into the README, so that none is ever
typed in.
"""

import shutil
from pathlib import Path

from alignlab.errors import AlignlabError
from alignlab.runs.claims import SIGNS, Verdict, judge_notebook
from alignlab.runs.compare import read_metrics
from alignlab.runs.context import METRICS_FILE
from alignlab.runs.files import read_json, write_json, write_text
from alignlab.runs.folders import FINISHED

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
RECORDED = "recorded.json"  # in figures/: the metrics behind the README


def publish(run: Path, root: Path) -> None:
    """Copy a finished run's figures and metrics, and write the README's table.

    Args:
        run: the folder of a run on profile full.
        root: the checkout: the folder with README.md and figures/.

    Raises:
        AlignlabError: if a notebook of the run did not finish.
    """
    metrics = read_metrics(run)
    for name, section in metrics["notebooks"].items():
        if section["status"] != FINISHED:
            raise AlignlabError(
                f"Notebook {name} of {run} is {section['status']}.",
                f"Finish it: `alignlab run --resume --out {run}`.",
            )
        recorded = read_json(run / name / METRICS_FILE)
        for figure in recorded["figures"]:
            target = root / "figures" / f"{name[:2]}_{figure['name']}.png"
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(run / name / figure["file"], target)
    write_json(root / "figures" / RECORDED, metrics)
    readme = root / "README.md"
    write_text(readme, with_results(readme.read_text(encoding="utf-8"), metrics))


def with_results(readme: str, metrics: dict) -> str:
    """The README with the table between its markers made anew."""
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{results_table(metrics)}\n{END}{rest.split(END)[1]}"


def results_table(metrics: dict) -> str:
    """The claims and their verdicts as a Markdown table."""
    lines = [
        "| | claim | measured (95% interval over seeds) | wanted |",
        "| --- | --- | --- | --- |",
    ]
    for name, section in metrics["notebooks"].items():
        lines += [_row(v) for v in judge_notebook(name[:2], section["metrics"])]
    seeds = {len(s["seeds"]) for s in metrics["notebooks"].values()}
    lines += [
        "",
        f"Profile {metrics['profile']}, {' to '.join(map(str, sorted(seeds)))} seeds, "
        f"torch {metrics['versions']['torch']}. What each quantity is, and its "
        "control: [claims.yaml](alignlab/runs/claims.yaml). Every recorded number: "
        f"[figures/{RECORDED}](figures/{RECORDED}).",
    ]
    return "\n".join(lines)


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
