"""From a recorded run to the repository: the README's table, and the figures.

Only `alignlab publish RUN` writes results into the README; none is typed in.
"""

import shutil
from functools import partial
from pathlib import Path

from alignlab.errors import AlignlabError, explained_if_full
from alignlab.files import read_json, write_atomically, write_json, write_text
from alignlab.runs.claims import load_claims
from alignlab.runs.compare import read_metrics
from alignlab.runs.context import METRICS_FILE
from alignlab.runs.folders import FINISHED
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
RECORDED = "recorded.json"  # in figures/: the metrics behind the README


def publish(run: Path, root: Path) -> None:
    """Copy a finished run's figures and metrics, and write the README's table.

    Notebooks that the run did not execute keep their earlier results.

    Args:
        run: the folder of a run; verdicts need profile full.
        root: the checkout: the folder with README.md and figures/.

    Raises:
        AlignlabError: if a notebook of the run did not finish, or the checkout cannot
            be written or its disk is full.
    """
    metrics = read_metrics(run)
    with explained_if_full(root, "Free some space and publish again."):
        _publish(run, root, metrics)


def _publish(run: Path, root: Path, metrics: dict) -> None:
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
    claims = earlier["claims"] | metrics["claims"]
    recorded = {
        "notebooks": dict(sorted(notebooks.items())),
        "claims": {name: claims[name] for name in claims if name in load_claims()},
    }
    write_json(path, recorded)
    readme = root / "README.md"
    write_text(readme, with_results(readme.read_text(encoding="utf-8"), recorded))


def _copy_figures(notebook: Path, target: Path) -> None:
    """Replace a notebook's figures, each of them whole, and then remove those that it
    no longer draws: a kill loses none."""
    number = notebook.name[:2]
    copies = {
        target / f"{number}_{figure['name']}.png": notebook / figure["file"]
        for figure in read_json(notebook / METRICS_FILE)["figures"]
    }
    for copy, figure in copies.items():
        write_atomically(copy, partial(shutil.copyfile, figure))
    for old in set(target.glob(f"{number}_*.png")) - copies.keys():
        old.unlink()


def with_results(readme: str, metrics: dict) -> str:
    """The README with a new table between its markers."""
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{results_table(metrics)}\n{END}{rest.split(END)[1]}"


def results_table(recorded: dict) -> str:
    """The claims and their verdicts as a Markdown table; without a recorded run they
    count as not measured. What changed since former claims is folded below it."""
    verdicts = judge_recorded(recorded["notebooks"])
    adjusted = holm_over(verdicts)
    made: dict[str, list[str]] = {}
    for name, section in recorded["notebooks"].items():
        made.setdefault(_how(section), []).append(name[:2])
    return "\n".join(
        [
            "| | claim | measured (95% interval over seeds) | power | Holm |",
            "| --- | --- | --- | --- | --- |",
            *(_row(item, adjusted.get(item.claim.id)) for item in verdicts),
            "",
            *(f"Notebook {', '.join(n)}: {how}." for how, n in made.items()),
            "What each quantity is, and its control: `alignlab claims ID`, or the "
            "`claims.yaml` of each chapter in [alignlab/chapters](alignlab/chapters). "
            "Every recorded number: "
            f"[figures/{RECORDED}](figures/{RECORDED}).",
            "",
            *_legend({item.verdict for item in verdicts}),
            *_changes(),
        ]
    )


def _legend(given: set[str]) -> list[str]:
    signs = "; ".join(
        f"{SIGNS[verdict]} {verdict}: {text}"
        for verdict, text in LEGEND.items()
        if verdict != PRETRAINING_UNKNOWN or verdict in given
    )
    return [
        f"{signs}. Null: the value of no effect. {POWER_MEANS} Holm: the claim's "
        "p-value, the largest of its conditions', adjusted over every claim of this "
        "table that has a verdict; ✓ if it is at most 0.025 (one-sided)."
    ]


def _changes() -> list[str]:
    """Claims that replaced others, with the former verdict and what was wrong."""
    changed = [claim for claim in load_claims().values() if claim.former]
    if not changed:
        return []
    lines = ["", "<details><summary>What changed, and why</summary>", ""]
    lines += [
        "| former claim | verdict then | now | why |",
        "| --- | --- | --- | --- |",
    ]
    for claim in changed:
        for former in claim.former:
            then = f"{SIGNS.get(former.verdict, '')} {former.verdict}".strip()
            why = " ".join(former.why.split())
            lines.append(f"| `{former.id}` | {then} | `{claim.id}` | {why} |")
    return [*lines, "", "</details>"]


def _how(section: dict) -> str:
    return (
        f"profile {section['profile']}, {len(section['seeds'])} seeds, "
        f"torch {section['versions']['torch']}, {section['started'][:10]}"
    )


def _row(verdict: Verdict, adjusted: float | None) -> str:
    claim = f"{' '.join(verdict.claim.claim.split())} (`{verdict.claim.id}`)"
    if verdict.claim.chosen_by_looking:
        looked = " ".join(verdict.claim.chosen_by_looking.split())
        claim += f"<br>*Chosen by looking:* {looked}"
    cells = (
        f"{SIGNS[verdict.verdict]} **{verdict.verdict}**",
        claim,
        "<br>".join(measured(finding) for finding in verdict.findings),
        show_power(verdict.power),
        show_p(adjusted),
    )
    return f"| {' | '.join(cells)} |"


def measured(finding: Finding) -> str:
    name = finding.condition.metric.replace("_", " ")
    control = " (control)" if finding.condition.control else ""
    value = "–" if finding.value is None else f"{finding.value:.3f}"
    if finding.low is not None:
        value += f" ({finding.low:.3f} to {finding.high:.3f})"
    return f"{name}{control}: {value}, wanted {finding.wanted}"
