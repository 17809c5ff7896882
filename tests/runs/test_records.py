"""A record is a run, or a baseline of several that belong together."""

import json

import pytest

from alignlab.errors import AlignlabError
from alignlab.runs import records
from alignlab.runs.compare import SOUND, check_run
from alignlab.runs.folders import FINISHED
from alignlab.runs.records import (
    read_metrics,
    read_record,
    shipped_record,
    write_baseline,
)

from .recorded_runs import NAME, changed, make_run


@pytest.fixture
def save(tmp_path):
    """A function that makes a folder of a run."""

    def write(name, run):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(json.dumps(run))
        return tmp_path / name

    return write


def test_a_baseline_judges_as_its_runs_do(save, tmp_path):
    runs = [make_run(seed) for seed in (0, 3, 6)]
    folders = [save(f"seed{run['started'][8:10]}", run) for run in runs]
    file = write_baseline(folders, tmp_path / "base.json")
    new = make_run(20)
    by_file, by_runs = check_run(new, read_record(file)), check_run(new, runs)
    assert by_file == by_runs and by_file.state == SOUND
    assert check_run(make_run(3), read_record(file), identical=True).state == SOUND
    assert file.stat().st_size < 3 * len(json.dumps(runs[0]))


def test_a_baseline_grows_by_a_run(save, tmp_path):
    folders = [save(str(seed), make_run(seed)) for seed in (0, 3, 6, 9)]
    at_once = write_baseline(folders, tmp_path / "at_once.json")
    grown = write_baseline(folders[:3], tmp_path / "grown.json")
    write_baseline([grown, folders[3]], grown)
    assert grown.read_text() == at_once.read_text()
    with pytest.raises(AlignlabError, match="share seeds"):
        write_baseline([grown, folders[0]], grown)
    assert grown.read_text() == at_once.read_text()


def test_a_metric_is_a_line(save, tmp_path):
    """So that a new baseline shows in a diff as the metrics that moved."""
    runs = [save(str(seed), make_run(seed)) for seed in (0, 3, 6)]
    file = write_baseline(runs, tmp_path / "base.json")
    lines = [line for line in file.read_text().splitlines() if '"m3": {' in line]
    assert len(lines) == 3 and all(line.rstrip(",").endswith("}") for line in lines)


def test_a_run_is_a_record_of_one(save):
    folder = save("a", make_run(0))
    assert read_record(folder) == [make_run(0)] == read_record(folder / "metrics.json")


@pytest.mark.parametrize(
    "path, to, said",
    [
        (("notebooks", NAME, "status"), "failed", f"{NAME} is failed in"),
        (("notebooks", NAME, "settings", "steps"), 7, "steps is 200 and 7"),
        (("profile",), "smoke", "profile is cpu and smoke"),
        (("notebooks", NAME, "seeds"), [2, 3, 4], "share seeds"),
    ],
)
def test_runs_that_do_not_belong_together_make_no_baseline(
    save, tmp_path, path, to, said
):
    runs = [make_run(0), changed(make_run(3), *path, to=to), make_run(6)]
    folders = [save(f"run{k}", run) for k, run in enumerate(runs)]
    with pytest.raises(AlignlabError, match=said):
        write_baseline(folders, tmp_path / "base.json")
    assert not (tmp_path / "base.json").exists()


def test_what_holds_no_metrics_is_named(tmp_path):
    with pytest.raises(AlignlabError, match=f"{tmp_path}/metrics.json holds no metric"):
        read_metrics(tmp_path)
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(AlignlabError, match="other.json holds no metrics"):
        read_record(tmp_path / "other.json")
    (tmp_path / "no.json").write_text("{")
    with pytest.raises(AlignlabError, match="no.json is damaged: it is no JSON"):
        read_metrics(tmp_path / "no.json")


def test_a_profile_without_a_record_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(records, "BASELINES", tmp_path)
    with pytest.raises(AlignlabError, match="No record of profile gpu .* --alone"):
        shipped_record("gpu")
    (tmp_path / "gpu.json").write_text("{}")
    assert shipped_record("gpu") == tmp_path / "gpu.json"


# --- What ships -------------------------------------------------------------------


def shipped():
    paths = [*records.BASELINES.glob("*.json"), records.RECORDED]
    return [path for path in paths if path.exists()]


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.name)
def test_every_recorded_metric_has_a_spread_or_a_tolerance(path):
    """By two runs, by seeds, by an interval, by the number of questions, or by its
    chapter's profiles.yaml."""
    from alignlab.runs.compare import tolerances_of

    record = read_record(path)
    lacking = [
        f"{name[:2]} {metric}"
        for run in record
        for name, section in run["notebooks"].items()
        for metric, entry in section["metrics"].items()
        if len(record) == 1
        and metric not in tolerances_of(name)
        and len(entry.get("seeds") or []) < 2
        and entry.get("low") is None
        and not entry.get("n")
    ]
    assert lacking == []


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.name)
def test_what_ships_is_sound_by_itself(path):
    record = read_record(path)
    for run in record:
        run = finished({"profile": path.stem, **run})
        if path.name == "recorded.json":
            run["profile"] = "full"
        outcome = check_run(run, record, identical=True)
        assert outcome.state == SOUND, [str(p) for p in outcome.drifts]


SHIPPED = sorted(records.BASELINES.glob("*.json"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_no_run_of_a_baseline_that_ships_drifted_from_the_others(path):
    """Repeats with other seeds raise no alarm."""
    runs = read_record(path)
    assert len(runs) >= records.FEWEST
    for run in runs:
        others = [other for other in runs if other is not run]
        outcome = check_run(finished(run), others)
        assert outcome.state == SOUND, list(map(str, outcome.drifts))
        assert check_run(finished(run), runs, identical=True).state == SOUND


def finished(run: dict) -> dict:
    """A baseline's run as metrics.json has it; runs that did not finish are in none."""
    sections = run["notebooks"].items()
    status = {"status": FINISHED}
    return run | {"notebooks": {name: status | section for name, section in sections}}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_baselines_were_run_from_a_commit(path):
    made = {(run["commit"], run["package"]) for run in read_record(path)}
    assert len(made) == 1 and not any(run["dirty"] for run in read_record(path))
