"""From a recorded run to the repository: figures, README table and claims page."""

from functools import partial
from pathlib import Path

from alignlab.errors import AlignlabError, explained_if_full
from alignlab.files import read_json, write_atomically, write_json, write_text
from alignlab.plots.png import compressed
from alignlab.runs.arc import draw_arc
from alignlab.runs.claims import load_claims
from alignlab.runs.context import METRICS_FILE
from alignlab.runs.folders import FINISHED
from alignlab.runs.records import MADE_BY, read_metrics
from alignlab.runs.results import LEDGER, claims_page, with_results

RECORDED = "recorded.json"  # in figures/: the metrics behind the README


def publish(run: Path, root: Path) -> None:
    """Copy a finished run's figures and metrics, and draw and write what is made of
    them: figures/arc.png, the README's table, docs/claims.md.

    Notebooks that the run did not execute keep their earlier results.

    Args:
        run: the folder of a run; verdicts need profile full.
        root: the checkout: the folder with README.md and figures/.

    Raises:
        AlignlabError: if a notebook of the run did not finish, or was run with changes
            that no commit holds, or the checkout cannot be written or its disk is full.
    """
    metrics = read_metrics(run)
    with explained_if_full(root, "Free some space and publish again."):
        _publish(run, root, metrics)


def _publish(run: Path, root: Path, metrics: dict) -> None:
    made = {name: metrics[name] for name in MADE_BY if name in metrics}
    path = root / "figures" / RECORDED
    earlier = read_json(path, default={"notebooks": {}, "claims": {}})
    notebooks = earlier["notebooks"]
    for name, section in metrics["notebooks"].items():
        if section["status"] != FINISHED:
            raise AlignlabError(
                f"Notebook {name} of {run} is {section['status']}.",
                f"Finish it: `alignlab run --resume --out {run}`.",
            )
        if section.get("dirty"):
            raise AlignlabError(
                f"Notebook {name} of {run} was run with changes that are in no commit, "
                "so that nobody could run it again.",
                f"Commit them, and run it anew: `alignlab run {name[:2]}`.",
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
    draw_arc(recorded, root / "figures" / "arc.png")
    readme = root / "README.md"
    write_text(readme, with_results(readme.read_text(encoding="utf-8"), recorded))
    (root / LEDGER).parent.mkdir(exist_ok=True)
    write_text(root / LEDGER, claims_page(recorded))


def _copy_figures(notebook: Path, target: Path) -> None:
    """Replace a notebook's figures, each of them whole, and then remove those that it
    no longer draws: a kill loses none."""
    number = notebook.name[:2]
    copies = {
        target / f"{number}_{figure['name']}.png": notebook / figure["file"]
        for figure in read_json(notebook / METRICS_FILE)["figures"]
    }
    for copy, figure in copies.items():
        picture = compressed(figure.read_bytes())
        write_atomically(copy, partial(Path.write_bytes, data=picture))
    for old in set(target.glob(f"{number}_*.png")) - copies.keys():
        old.unlink()
