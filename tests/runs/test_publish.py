"""The README shows what the recorded run measured, and nothing else."""

import json
from pathlib import Path

import pytest

from alignlab.errors import AlignlabError
from alignlab.runs.claims import load_claims
from alignlab.runs.publish import BEGIN, END, RECORDED, publish, with_results

ROOT = Path(__file__).parents[2]


def test_readme_is_what_the_recorded_run_gives():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    metrics = json.loads((ROOT / "figures" / RECORDED).read_text(encoding="utf-8"))
    assert with_results(readme, metrics) == readme
    for claim in load_claims().values():
        assert f"`{claim.id}`" in readme


def test_recorded_run_is_full_and_drops_no_seed():
    metrics = json.loads((ROOT / "figures" / RECORDED).read_text(encoding="utf-8"))
    assert metrics["profile"] == "full"
    for section in metrics["notebooks"].values():
        assert len(section["seeds"]) >= 5
        for metric in section["metrics"].values():
            if metric["claim"]:
                assert len(metric["seeds"]) == len(section["seeds"])


def _run(folder: Path, status: str) -> Path:
    metric = dict(value=0.9, low=0.8, high=1.0, claim="base-ignores", seeds=[0.9] * 5)
    section = dict(status=status, seeds=[0, 1, 2, 3, 4])
    section["metrics"] = {"sft_minus_base_format": metric}
    metrics = dict(profile="full", versions={"torch": "x"})
    metrics["notebooks"] = {"00_base_model": section}
    (folder / "00_base_model" / "figures").mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    figures = [dict(name="recall", file="figures/recall.png", caption="")]
    path = folder / "00_base_model"
    (path / "metrics.json").write_text(json.dumps({"figures": figures}))
    (path / "figures" / "recall.png").write_bytes(b"picture")
    return folder


def test_publish_writes_table_figures_and_metrics(tmp_path):
    run, root = _run(tmp_path / "run", "finished"), tmp_path / "root"
    root.mkdir()
    (root / "README.md").write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n")
    publish(run, root)
    readme = (root / "README.md").read_text()
    assert readme.startswith("above\n") and readme.endswith("below\n")
    assert "0.900 (0.800 to 1.000)" in readme and "old" not in readme
    assert (root / "figures" / "00_recall.png").read_bytes() == b"picture"
    publish(run, root)
    assert (root / "README.md").read_text() == readme


def test_publish_refuses_a_run_that_did_not_finish(tmp_path):
    with pytest.raises(AlignlabError, match=r"00_base_model.*failed.*--resume"):
        publish(_run(tmp_path / "run", "failed"), tmp_path)
