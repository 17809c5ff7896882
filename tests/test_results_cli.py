"""`alignlab check` and its relatives: five exit codes, and a file for every reader."""

import json
import sys
import xml.etree.ElementTree as xml

import pytest
from typer.testing import CliRunner

from alignlab import cli
from alignlab.errors import AlignlabError, Status
from alignlab.runs import records
from tests.runs.recorded_runs import NAME, changed, make_run

METRICS = ("notebooks", NAME, "metrics")
SECTION = ("notebooks", NAME)


def invoke(*arguments):
    return CliRunner().invoke(cli.app, [str(item) for item in arguments])


@pytest.fixture
def save(tmp_path, monkeypatch):
    """A function that makes a folder of a run in runs/; the baseline that ships is of
    seeds 0, 3 and 6."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(records, "BASELINES", tmp_path)

    def write(name, run):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(run))
        return folder

    runs = [write(f"seed{seed}", make_run(seed)) for seed in (0, 3, 6)]
    records.write_baseline(runs)
    return write


def status_of(monkeypatch, *arguments):
    """What the process would exit with."""
    monkeypatch.setattr(sys, "argv", ["alignlab", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


def test_five_exit_codes_stand_for_five_things(save, monkeypatch, capsys):
    def crashes(*_, **__):
        raise KeyError("a bug")

    sound = save("sound", make_run(20))
    drifted = save("drifted", changed(make_run(20), *METRICS, "m3", "value", to=9.0))
    failed = save("failed", changed(make_run(20), *SECTION, "status", to="failed"))
    assert status_of(monkeypatch, "check", sound) == Status.SOUND == 0
    assert status_of(monkeypatch, "check", failed) == Status.FAILED == 1
    assert status_of(monkeypatch, "check", "nowhere") == Status.WRONG == 2
    assert status_of(monkeypatch, "check", sound, "--nonsense") == Status.WRONG
    assert status_of(monkeypatch, "check", drifted) == Status.DRIFTED == 3
    monkeypatch.setattr("alignlab.runs.compare.check_run", crashes)
    capsys.readouterr()
    assert status_of(monkeypatch, "check", sound) == Status.CRASHED == 4
    said = capsys.readouterr().err
    assert "Traceback" in said and "alignlab crashed: KeyError('a bug')" in said


@pytest.mark.parametrize("command", [[], ["check"]])
def test_help_lists_the_exit_codes(command):
    text = " ".join(invoke(*command, "--help").output.replace("│", " ").split())
    for code, word in enumerate(("sound", "failed", "wrong arguments", "drifted")):
        assert f"{code} {word}" in text or word in text
    assert "4 alignlab crashed" in text or "4 if alignlab crashed" in text


@pytest.mark.parametrize(
    "run, options, said",
    [
        (changed(make_run(20), "profile", to="gpu"), [], "No record of profile gpu"),
        (changed(make_run(20), *SECTION, "settings", "steps", to=1), [], "--unlike"),
        (changed(make_run(20), *SECTION, "settings", "seeds", to=1), [], "1 seeds"),
        (changed(make_run(20), "notebooks", to={}), [], "holds no notebook"),
        (make_run(20), ["--alone", "--identical"], "--alone compares nothing"),
        (make_run(20), ["--against", "nowhere"], "holds no metrics"),
    ],
)
def test_what_cannot_be_checked_is_refused(save, run, options, said):
    error = invoke("check", save("run", run), *options).exception
    assert isinstance(error, AlignlabError) and said in str(error)


def test_a_run_can_be_checked_alone_or_against_anything(save):
    gpu = save("gpu", changed(make_run(20), "profile", to="gpu"))
    done = invoke("check", gpu, "--alone")
    assert done.exit_code == 0 and "compared with nothing" in done.output
    other = save("other", changed(make_run(30), "profile", to="gpu"))
    assert invoke("check", gpu, "--against", other).exit_code == 0
    assert invoke("check", gpu, "--against", other / "metrics.json").exit_code == 0
    few = save("few", changed(make_run(20), *SECTION, "settings", "steps", to=1))
    done = invoke("check", few, "--unlike")
    assert done.exit_code == 0
    assert f"note: {NAME}: steps is 200 and 1 here" in done.output


def test_identical_is_strict_and_timings_are_asked_for(save):
    again = save("again", make_run(3))
    assert invoke("check", again, "--identical").exit_code == 0
    other = save("other", make_run(20))
    assert invoke("check", other, "--identical").exit_code == 3
    assert invoke("check", other, "--timings").exit_code == 0


def test_check_writes_for_a_ci_server_and_a_pull_request(save, tmp_path):
    run = save("run", changed(make_run(20), *METRICS, "m3", "value", to=9.0))
    done = invoke("check", run, "--junit", "a.xml", "--markdown", "a.md")
    assert done.exit_code == 3
    suite = xml.fromstring((tmp_path / "a.xml").read_text()).find("testsuite")
    assert suite.get("failures") == "1" and suite.get("name") == "alignlab check run"
    assert (tmp_path / "a.md").read_text().startswith("### ≠ alignlab check run")


def test_compare_marks_what_differs_and_writes_a_page(save, tmp_path):
    moved = save("moved", changed(make_run(0), *METRICS, "m3", "value", to=9.0))
    done = invoke("compare", "runs/seed0", moved, "--html", "page.html")
    assert "m3 *" in done.output and "m4 *" not in done.output
    assert "<code>m3</code>" in (tmp_path / "page.html").read_text()


def test_history_draws_a_picture_of_all_runs(save, tmp_path):
    done = invoke("history", "m3")
    assert done.exit_code == 0, done.exception
    assert [f"seed{seed}" in done.output for seed in (0, 3, 6)] == [True] * 3
    assert (tmp_path / "m3.png").read_bytes().startswith(b"\x89PNG")
    done = invoke("history", "m3", "runs/seed0", "runs/seed3", "--out", "two.png")
    assert "seed6" not in done.output and (tmp_path / "two.png").exists()
    assert "Did you mean" in str(invoke("history", "m33").exception)


def test_baseline_says_where_it_went(save, tmp_path):
    runs = "runs/seed0", "runs/seed3", "runs/seed6"
    done = invoke("baseline", *runs, "--out", "mine.json")
    assert done.output == "baseline of 3 runs: mine.json\n"
    assert len(records.read_record(tmp_path / "mine.json")) == 3
    assert "2 runs do not tell" in str(invoke("baseline", *runs[:2]).exception)


def test_fresh_is_for_this_machine(tmp_path):
    done = invoke("run", "00", "--fresh", "--store", tmp_path)
    assert "--fresh is for runs on this machine" in str(done.exception)
