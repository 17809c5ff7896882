"""The README shows what the recorded run measured, and nothing else."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from alignlab.errors import AlignlabError
from alignlab.plots.png import compressed
from alignlab.runs.claims import load_claims
from alignlab.runs.publish import RECORDED, publish
from alignlab.runs.results import (
    BEGIN,
    END,
    LEDGER,
    claims_page,
    headline,
    with_results,
)

ROOT = Path(__file__).parents[2]


def _picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (90, 60), "teal").save(file, "PNG", compress_level=0)
    return file.getvalue()


PICTURE = _picture()


def test_readme_is_what_the_recorded_run_gives():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    metrics = json.loads((ROOT / "figures" / RECORDED).read_text(encoding="utf-8"))
    assert with_results(readme, metrics) == readme
    ledger = (ROOT / LEDGER).read_text(encoding="utf-8")
    assert claims_page(metrics) == ledger
    for claim in load_claims().values():
        assert f"({LEDGER}#{claim.id})" in readme and f"\n### {claim.id}\n" in ledger


def test_headlines_are_first_clauses():
    assert headline("It works: here is\nhow. And why.") == "It works"
    assert headline("A ratio of 1.5 is\nenough.") == "A ratio of 1.5 is enough"
    for claim in load_claims().values():
        assert 20 < len(headline(claim.claim)) <= 220, claim.id


def test_recorded_runs_drop_no_seed():
    recorded = json.loads((ROOT / "figures" / RECORDED).read_text(encoding="utf-8"))
    for section in recorded["notebooks"].values():
        assert len(section["seeds"]) >= {"full": 5, "cpu": 3}[section["profile"]]
        for metric in section["metrics"].values():
            if metric["claim"] and section["profile"] == "full":
                # What is dear to train is measured on the first five alone; 04's
                # pieces on ten.
                assert len(metric["seeds"]) in (5, 10)


def _run(folder: Path, status: str) -> Path:
    metric = dict(value=0.9, low=0.8, high=1.0, claim="demo-2", seeds=[0.9] * 5)
    section = dict(status=status, seeds=[0, 1, 2, 3, 4])
    section["metrics"] = {"gain": metric, "twin": {**metric, "value": -0.9}}
    section["metrics"]["twin"] |= {"low": -1.0, "high": -0.8}
    metrics = dict(profile="full", versions={"torch": "x"}, started="2026-01-02T03:04")
    metrics["notebooks"] = {"00_base_model": section}
    metrics["claims"] = {"demo-2": {"verdict": "reproduced"}}
    (folder / "00_base_model" / "figures").mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    figures = [dict(name="recall", file="figures/recall.png", caption="")]
    path = folder / "00_base_model"
    (path / "metrics.json").write_text(json.dumps({"figures": figures}))
    (path / "figures" / "recall.png").write_bytes(PICTURE)
    return folder


def test_publish_writes_table_figures_and_metrics(tmp_path, demo_claim):
    run, root = _run(tmp_path / "run", "finished"), tmp_path / "root"
    root.mkdir()
    (root / "README.md").write_text(f"above\n{BEGIN}\nstale line\n{END}\nbelow\n")
    publish(run, root)
    readme = (root / "README.md").read_text()
    assert readme.startswith("above\n") and readme.endswith("below\n")
    assert "| gain: 0.900 (0.800 to 1.000), wanted above 0.1 |" in readme
    assert "stale line" not in readme and "twin" not in readme
    ledger = (root / LEDGER).read_text()
    assert "- gain: 0.900 (0.800 to 1.000), wanted above 0.1 (null 0)\n" in ledger
    assert "- twin (control): -0.900 (-1.000 to -0.800), wanted below 0.05" in ledger
    assert "power 50%, Holm ✓ < 0.001" in ledger
    assert "*Chosen by looking:* five seeds" in ledger and "∅ **uninformative" in ledger
    _, changes = ledger.split("## What changed, and why")
    assert "| `demo` | ✓ reproduced | `demo-2` | the twin could not win |" in changes
    assert (root / "figures" / "00_recall.png").read_bytes() == compressed(PICTURE)
    publish(run, root)
    assert (root / "README.md").read_text() == readme


def test_publish_takes_no_run_with_changes_that_are_in_no_commit(tmp_path, demo_claim):
    run, root = _run(tmp_path / "run", "finished"), tmp_path / "root"
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["notebooks"]["00_base_model"]["dirty"] = True
    (run / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(AlignlabError, match="00_base_model .* in no commit"):
        publish(run, root)
    assert not root.exists()


def test_the_record_was_run_from_one_commit():
    recorded = json.loads((ROOT / "figures" / RECORDED).read_text(encoding="utf-8"))
    sections = recorded["notebooks"].values()
    assert len({section["commit"] for section in sections} - {None}) == 1
    assert all(section["dirty"] is False for section in sections)


def test_publish_keeps_what_other_notebooks_recorded(tmp_path, demo_claim):
    root = tmp_path
    (root / "README.md").write_text(f"{BEGIN}\n{END}")
    (root / "figures").mkdir()
    for picture in ("00_gone.png", "01_mask.png"):
        (root / "figures" / picture).write_bytes(b"old")
    earlier = dict(status="finished", seeds=[0, 1, 2], metrics={}, profile="cpu")
    earlier |= dict(versions={"torch": "y"}, started="2025-12-31T00:00")
    kept = {"notebooks": {"01_instruction_tuning": earlier}}
    # A claim that was replaced is dropped.
    kept["claims"] = {"demo": {"verdict": "reproduced"}}
    (root / "figures" / RECORDED).write_text(json.dumps(kept))
    publish(_run(tmp_path / "run", "finished"), root)
    recorded = json.loads((root / "figures" / RECORDED).read_text())
    assert list(recorded["claims"]) == ["demo-2"]
    recorded = recorded["notebooks"]
    assert list(recorded) == ["00_base_model", "01_instruction_tuning"]
    assert recorded["01_instruction_tuning"] == earlier
    readme = (root / "README.md").read_text()
    assert "Notebook 00: profile full, 5 seeds, torch x, 2026-01-02." in readme
    assert "Notebook 01: profile cpu, 3 seeds, torch y, 2025-12-31." in readme
    names = sorted(p.name for p in (root / "figures").glob("*.png"))
    assert names == ["00_recall.png", "01_mask.png"]


def test_publish_refuses_a_run_that_did_not_finish(tmp_path):
    with pytest.raises(AlignlabError, match=r"00_base_model.*failed.*--resume"):
        publish(_run(tmp_path / "run", "failed"), tmp_path)


def test_notebooks_and_pictures_are_small():
    for file in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
        assert file.stat().st_size < 1.5e6, file.name
    for file in (ROOT / "figures").glob("*.png"):
        assert file.stat().st_size < 150e3, file.name


def test_every_recorded_notebook_shows_its_outputs():
    """Where a code cell changes, building drops the outputs of the whole notebook."""
    for file in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        shown = [cell["outputs"] for cell in cells if cell["cell_type"] == "code"]
        assert sum(map(bool, shown)) > len(shown) / 2, file.name
