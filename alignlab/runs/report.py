"""report.html: times, claims, metrics, figures and notebooks of a run on one page.

Everything on it comes from the run's folder, so it can be written again at any time.
"""

from collections import Counter
from pathlib import Path

from alignlab.files import read_json, write_json, write_text
from alignlab.runs.claims import claims_from_json
from alignlab.runs.context import METRICS_FILE
from alignlab.runs.folders import FINISHED, read_run
from alignlab.runs.judging import (
    LEGEND,
    POWER_MEANS,
    SIGNS,
    Finding,
    holm_over,
    judge_notebook,
    model_of,
    show_p,
    show_power,
)
from alignlab.runs.profiles import budget_seconds, load_profiles
from alignlab.runs.records import MADE_BY

TEMPLATES = Path(__file__).with_name("templates")


def write_report(folder: Path) -> Path:
    """Write report.html, metrics.json (all notebooks in one) and readable copies of the
    executed notebooks into a run's folder.

    Raises:
        AlignlabError: if the folder holds no run.
    """
    run = read_run(folder)
    sections = [_section(folder, run, name) for name in run["notebooks"]]
    earlier = read_json(folder / METRICS_FILE, default={"claims": {}})
    write_json(folder / METRICS_FILE, _everything(run, sections, earlier["claims"]))
    verdicts = [verdict for section in sections for verdict in section["verdicts"]]
    page = template("report.html.j2").render(
        run=run,
        name=folder.name,
        sections=sections,
        counts=Counter(verdict.verdict for verdict in verdicts),
        holm=holm_over(verdicts),
        finished=sum(section["status"] == FINISHED for section in sections),
        total_seconds=sum(section.get("seconds", 0) for section in sections),
        reference=load_profiles()["reference_gflops"],
        signs=SIGNS,
        legend=LEGEND,
        power_means=POWER_MEANS,
        interval_plot=interval_plot,
    )
    return write_text(folder / "report.html", page)


def _section(folder: Path, run: dict, name: str) -> dict:
    """What the page shows for one notebook. Its claims are those that it was run with;
    runs that have kept none are judged by today's."""
    entry = run["notebooks"][name]
    recorded = read_json(folder / name / METRICS_FILE, default={})
    metrics = recorded.get("metrics", {})
    kept = recorded.get("claims")
    claims = None if kept is None else claims_from_json(kept)
    took = entry.get("seconds")
    scale = run["gflops"] / load_profiles()["reference_gflops"]
    return {
        **entry,
        "name": name,
        "title": name[3:].replace("_", " "),
        "metrics": metrics,
        "figures": recorded.get("figures", []),
        "settings": recorded.get("settings", {}),
        "seeds": recorded.get("seeds", []),
        "verdicts": judge_notebook(name[:2], metrics, model_of(recorded), claims),
        "todays_claims": kept is None and bool(metrics),
        "page": _readable_copy(folder, name),
        "budget": budget_seconds(name[:2], run["profile"]),
        "reference_seconds": None if took is None else took * scale,
    }


def _everything(run: dict, sections: list[dict], earlier: dict) -> dict:
    """What `alignlab check` and `compare` read. Verdicts of before runs kept their
    claims stay as they are, for nobody knows what they were judged by."""
    kept = ("status", "reason", "seconds", "commit", "dirty", "model_hash")
    kept += ("seeds", "settings", "metrics")
    old = {s["name"][:2] for s in sections if s["todays_claims"]}
    return {
        **{name: run[name] for name in MADE_BY if name in run},
        "notebooks": {
            section["name"]: {key: section[key] for key in kept if key in section}
            for section in sections
        },
        "claims": {
            verdict.claim.id: {
                "notebook": verdict.claim.notebook,
                "verdict": verdict.verdict,
                "reason": verdict.reason,
                "power": verdict.power,
            }
            for section in sections
            for verdict in section["verdicts"]
            if not (earlier and verdict.claim.notebook in old)
        }
        | (earlier if old else {}),
    }


def _readable_copy(folder: Path, name: str) -> str | None:
    """The executed notebook as an HTML page, converted if it is new."""
    from alignlab.runs.webpages import as_html

    for stem in (name, f"{name}.failed"):
        notebook, page = folder / f"{stem}.ipynb", folder / f"{stem}.html"
        if notebook.exists():
            if not page.exists() or page.stat().st_mtime < notebook.stat().st_mtime:
                write_text(page, as_html(notebook))
            return page.name
    return None


def template(name: str):
    """A page of runs/templates, with its filters."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        number=number, seconds=seconds, show_p=show_p, show_power=show_power
    )
    return environment.get_template(name)


def number(value: float | None) -> str:
    """A number with about three significant digits, and an exponent only if needed."""
    if value is None:
        return "–"
    if value == 0 or 0.001 <= abs(value) < 1e6:
        digits = 3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
        return f"{value:,.{digits}f}"
    return f"{value:.2e}"


def seconds(value: float | None) -> str:
    """A duration in seconds; short ones with one decimal."""
    return "–" if value is None else f"{value:.{1 if value < 10 else 0}f}"


def interval_plot(finding: Finding, width: int = 180, height: int = 22) -> dict | None:
    """Where to draw a finding: interval, estimate, threshold, no effect and the
    wanted side.

    Returns:
        x coordinates in pixels, or None if there is no interval to draw.
    """
    if finding.low is None:
        return None
    threshold = finding.condition.threshold
    null = finding.condition.null
    points = [finding.low, finding.high, threshold, threshold if null is None else null]
    left, right = min(points), max(points)
    margin = 0.12 * (right - left or 1.0)
    left, right = left - margin, right + margin

    def at(value: float) -> float:
        return round((value - left) / (right - left) * width, 1)

    above = finding.condition.direction == "above"
    return {
        "width": width,
        "height": height,
        "low": at(finding.low),
        "high": at(finding.high),
        "value": at(finding.value),
        "threshold": at(threshold),
        "null": None if null is None else at(null),
        "wanted_from": at(threshold) if above else 0,
        "wanted_width": width - at(threshold) if above else at(threshold),
    }
