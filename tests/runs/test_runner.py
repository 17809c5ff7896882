"""A run executes, stops, resumes and explains itself; half-done work never counts."""

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from filelock import FileLock
from rich.console import Console

from alignlab.course.notebooks import find_notebooks
from alignlab.errors import AlignlabError
from alignlab.files import write_json
from alignlab.runs import runner
from alignlab.runs.folders import executed_notebooks, latest_run, run_folder
from alignlab.runs.notebooks import (
    assign_parameters,
    cell_parameters,
    read_parameters,
    select_notebooks,
)
from alignlab.runs.progress import Progress
from alignlab.runs.runner import run_series

from .conftest import write_notebook

RECORDS = (
    "import json, os\n"
    'record("answer", limit * 2, seeds=[seed + limit, seed + 2 * limit])\n'
    "print(json.dumps([profile, seed, device, len(run.seeds)]))"
)
FIGURE = (
    "import matplotlib.pyplot as plt\n"
    "figure, axes = plt.subplots(figsize=(2, 1))\n"
    'save_figure(figure, "empty", "Nothing to see.")\n'
    "show_verdicts()"
)
FAILS = "# first, a comment\nnumber = 1\nraise ValueError('two\\nlines')"


def text_of(path):
    notebook = nbformat.read(path, as_version=4)
    return "".join(
        output.get("text", "")
        for cell in notebook.cells
        for output in cell.get("outputs", ())
    )


def state_of(folder):
    return json.loads((folder / "run.json").read_text())["notebooks"]


# --- A whole run, shared by the tests that look at it ------------------------------


@pytest.fixture(scope="module")
def failed_run(tmp_path_factory):
    """00 works, 01 fails, 02 is reached only because of keep_going."""
    folder = tmp_path_factory.mktemp("series")
    notebooks, out = folder / "notebooks", folder / "run"
    notebooks.mkdir()
    write_notebook(notebooks / "00_works.ipynb", RECORDS, FIGURE)
    write_notebook(notebooks / "01_fails.ipynb", "a = 1", FAILS, "b = 2")
    write_notebook(notebooks / "02_dies.ipynb", "import os; os.kill(os.getpid(), 9)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "matrix_gflops", lambda: 30.0)
        patch.setattr(runner, "package_hash", lambda: "code")
        result = run_series(
            profile="smoke",
            params=["seed=5", "limit=2.5", "seeds=2"],
            out=out,
            notebooks=notebooks,
            keep_going=True,
        )
    return result, notebooks, out


def test_a_finished_notebook_is_whole_and_has_its_metrics(failed_run):
    _, _, out = failed_run
    assert text_of(out / "00_works.ipynb") == '["smoke", 5, "cpu", 2]\n'
    metrics = json.loads((out / "00_works/metrics.json").read_text())
    assert metrics["metrics"]["answer"]["value"] == 5.0
    assert metrics["metrics"]["answer"]["seeds"] == [7.5, 10.0]
    assert (out / "00_works/figures/empty.png").exists()
    entry = state_of(out)["00_works"]
    assert entry["status"] == "finished"
    assert entry["parameters"] == {
        "profile": "smoke", "device": "cpu", "seed": 5, "limit": 2.5
    }  # fmt: skip
    assert entry["settings"] == {"seeds": 2}
    assert entry["seconds"] > 0 and entry["peak_memory_mb"] > 10


def test_a_failure_names_notebook_cell_line_and_exception(failed_run):
    result, _, out = failed_run
    failure = result.failures[0]
    assert str(failure) == (
        "01_fails failed in cell [5] `# first, a comment`: ValueError: two lines"
    )
    executed = nbformat.read(out / "01_fails.failed.ipynb", as_version=4)
    assert [
        cell.source for cell in executed.cells if cell.get("execution_count") == 5
    ] == [FAILS]
    assert not (out / "01_fails.ipynb").exists()
    assert state_of(out)["01_fails"]["status"] == "failed"


def test_a_kernel_that_dies_is_told_as_such(failed_run):
    result, _, out = failed_run
    assert (
        "02_dies failed in cell [4] `import os; os.kill(os.getpid(), 9)`: the kernel"
        in (str(result.failures[1]))
    )
    assert state_of(out)["02_dies"]["status"] == "failed"
    assert not list(out.glob("*.partial.ipynb"))


def test_the_run_says_what_it_ran_on(failed_run):
    _, _, out = failed_run
    run = json.loads((out / "run.json").read_text())
    assert run["gflops"] == 30.0 and run["profile"] == "smoke"
    assert run["versions"]["torch"] and run["params"] == [
        "seed=5",
        "limit=2.5",
        "seeds=2",
    ]
    everything = json.loads((out / "metrics.json").read_text())
    assert everything["notebooks"]["00_works"]["metrics"]["answer"]["value"] == 5.0
    for name in ("commit", "dirty", "package", "weights", "versions", "platform"):
        assert everything[name] == run[name]
    assert run["package"] == "code" and set(run["weights"]) >= {"1m", "tokenizer"}
    assert state_of(out)["00_works"]["commit"] == run["commit"]


def test_the_report_links_only_to_what_is_there(failed_run):
    import re

    _, _, out = failed_run
    page = (out / "report.html").read_text()
    links = re.findall(r'(?:href|src)="([^"#][^"]*)"', page)
    assert {"00_works.html", "00_works.ipynb", "00_works/figures/empty.png"} <= set(
        links
    )
    assert "01_fails.failed.ipynb" in links
    assert [link for link in links if not (out / link).exists()] == []
    anchors = set(re.findall(r'href="#([^"]+)"', page))
    assert anchors <= set(re.findall(r'id="([^"]+)"', page))
    assert "ValueError: two lines" in page and "Nothing to see." in page
    assert "http://" not in page and "https://" not in page and "<script" not in page


def test_resume_keeps_what_finished_and_runs_the_rest(failed_run, tmp_path):
    import shutil

    _, notebooks, run = failed_run
    out = shutil.copytree(run, tmp_path / "copy")
    before = (out / "00_works.ipynb").stat().st_mtime_ns
    before_page = (out / "00_works.html").stat().st_mtime_ns
    mended = shutil.copytree(notebooks, tmp_path / "mended")
    write_notebook(mended / "01_fails.ipynb", "a = 1")
    (mended / "02_dies.ipynb").unlink()
    result = run_series(["00-01"], out=out, resume=True, notebooks=mended)
    assert not result.failures
    assert (out / "00_works.ipynb").stat().st_mtime_ns == before
    assert (out / "00_works.html").stat().st_mtime_ns == before_page
    statuses = {name: entry["status"] for name, entry in state_of(out).items()}
    assert statuses == {
        "00_works": "finished", "01_fails": "finished", "02_dies": "failed"
    }  # fmt: skip
    assert "reason" not in state_of(out)["01_fails"]
    assert not (out / "01_fails.failed.ipynb").exists()


@pytest.mark.parametrize(
    "spoil, kept",
    [
        (lambda out, notebooks, patch: None, True),
        (lambda out, notebooks, patch: (out / "00_works.ipynb").unlink(), False),
        (lambda out, notebooks, patch: _set_status(out, "running"), False),
        (lambda out, notebooks, patch: _set_status(out, "waiting"), False),
        (
            lambda out, notebooks, patch: write_notebook(
                notebooks / "00_works.ipynb", RECORDS + "  "
            ),
            False,
        ),
        (
            lambda out, notebooks, patch: patch.setattr(
                runner, "package_hash", lambda: "other code"
            ),
            False,
        ),
    ],
    ids=["same", "lost", "killed", "waiting", "edited", "code"],
)
def test_only_the_same_finished_content_is_kept(
    failed_run, tmp_path, monkeypatch, spoil, kept
):
    import shutil

    _, notebooks, run = failed_run
    out = shutil.copytree(run, tmp_path / "copy")
    notebooks = shutil.copytree(notebooks, tmp_path / "notebooks")
    ran = []

    def pretend(notebook, out, *_):
        ran.append(notebook.stem)
        shutil.copy(notebook, out)

    monkeypatch.setattr(runner, "execute", pretend)
    spoil(out, notebooks, monkeypatch)
    run_series(["0"], out=out, resume=True, notebooks=notebooks)
    assert ran == ([] if kept else ["00_works"])
    # Another parameter is other content too.
    ran.clear()
    params = ["seed=6", "limit=2.5", "seeds=2"]
    run_series(["0"], out=out, resume=True, notebooks=notebooks, params=params)
    assert ran == ["00_works"]
    ran.clear()
    params[2] = "seeds=3"
    run_series(["0"], out=out, resume=True, notebooks=notebooks, params=params)
    assert ran == ["00_works"]


def _set_status(out, status):
    run = json.loads((out / "run.json").read_text())
    run["notebooks"]["00_works"]["status"] = status
    (out / "run.json").write_text(json.dumps(run))


# --- Stopping ----------------------------------------------------------------------


def test_a_timeout_stops_the_kernel_and_all_it_started(notebooks, tmp_path):
    sleeper = "import subprocess\nchild = subprocess.Popen(['sleep', '600'])\n"
    sleeper += "print(child.pid, flush=True)\nchild.wait()"
    write_notebook(notebooks / "00_slow.ipynb", "import time", sleeper)
    began = time.monotonic()
    result = run_series(out=tmp_path / "run", notebooks=notebooks, timeout=20)
    assert time.monotonic() - began < 60
    assert "stopped after 20 seconds" in str(result.failures[0])
    assert "cell [5] `import subprocess`" in str(result.failures[0])
    child = int(text_of(tmp_path / "run/00_slow.failed.ipynb").split()[0])
    assert not _lives(child)


@pytest.mark.parametrize("leaves", ["import sys; sys.exit(0)", "raise SystemExit"])
def test_a_notebook_that_leaves_before_its_last_cell_is_not_finished(
    notebooks, tmp_path, leaves
):
    write_notebook(notebooks / "00_leaves.ipynb", leaves, "late = 1")
    out = tmp_path / "run"
    result = run_series(out=out, notebooks=notebooks)
    told = str(result.failures[0])
    assert told.startswith(f"00_leaves failed in cell [4] `{leaves}`: it left")
    assert state_of(out)["00_leaves"]["status"] == "failed"
    assert (out / "00_leaves.failed.ipynb").exists()
    assert not (out / "00_leaves.ipynb").exists()


@pytest.mark.parametrize(
    "leaves, told",
    [
        ("exit()", "the kernel"),
        ("import os; os._exit(0)", "the kernel"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGINT)", "Interrupt"),
    ],
)
@pytest.mark.slow
def test_other_ways_to_leave_early_are_failures_too(notebooks, tmp_path, leaves, told):
    later = "import time; time.sleep(1)"
    write_notebook(notebooks / "00_leaves.ipynb", leaves + "\n" + later, later)
    result = run_series(out=tmp_path / "run", notebooks=notebooks)
    assert told in str(result.failures[0])
    assert state_of(tmp_path / "run")["00_leaves"]["status"] == "failed"


def test_leaving_in_the_last_cell_or_skipping_one_is_no_failure(notebooks, tmp_path):
    path = write_notebook(
        notebooks / "00_x.ipynb", "1 / 0", "", "import sys; sys.exit()"
    )
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[3].source == "1 / 0"
    notebook.cells[3].metadata["tags"] = ["skip-execution"]
    notebook.cells.append(nbformat.v4.new_markdown_cell("The end."))
    nbformat.write(notebook, path)
    assert not run_series(out=tmp_path / "run", notebooks=notebooks).failures
    assert state_of(tmp_path / "run")["00_x"]["status"] == "finished"


def test_it_stops_at_the_first_failure_unless_told_otherwise(
    notebooks, tmp_path, monkeypatch
):
    def fails(notebook, *rest):
        raise runner.NotebookFailed(notebook.stem, "no luck")

    monkeypatch.setattr(runner, "execute", fails)
    for number in range(3):
        write_notebook(notebooks / f"0{number}_x.ipynb")
    result = run_series(out=tmp_path / "run", notebooks=notebooks)
    assert [str(item) for item in result.failures] == [
        "00_x failed before its first cell: no luck"
    ]
    assert [entry["status"] for entry in state_of(tmp_path / "run").values()] == [
        "failed", "waiting", "waiting"
    ]  # fmt: skip


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_leaves_no_kernel(notebooks, tmp_path):
    write_notebook(notebooks / "00_slow.ipynb", "import time\ntime.sleep(600)")
    command = [sys.executable, "-m", "alignlab.cli", "run", "--profile", "smoke"]
    process = subprocess.Popen(
        [*command, "--notebooks", str(notebooks), "--out", "run"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(runner.__file__).parents[2])},
        # Tests started in the background ignore Ctrl-C, and so would their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    partial = tmp_path / "run/00_slow.partial.ipynb"
    _wait_for(lambda: partial.exists() and "time.sleep" in partial.read_text())
    time.sleep(1)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "alignlab run --resume --out run" in told and "Traceback" not in told
    assert not [child for child in children if _lives(child.pid)]
    assert state_of(tmp_path / "run")["00_slow"]["status"] == "running"


def _lives(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


# --- Wrong arguments and a full disk -------------------------------------------------


@pytest.fixture
def two(notebooks, monkeypatch):
    """Two notebooks that would run, were anything executed."""
    monkeypatch.setattr(runner, "execute", lambda *arguments: None)
    write_notebook(notebooks / "00_first.ipynb")
    write_notebook(notebooks / "03_second.ipynb")
    return notebooks


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"wanted": ["07"]}, "no notebook 07. Known: 00_first, 03_second"),
        ({"wanted": ["02-03"]}, "no notebook 02"),
        ({"wanted": ["first"]}, "'first' is not the number"),
        ({"wanted": ["03-00"]}, "'03-00' is no"),
        ({"profile": "cppu"}, "no profile 'cppu'. Did you mean 'cpu'"),
        ({"params": ["limt=3"]}, "'limt'. Did you mean 'limit'"),
        ({"params": ["seed"]}, "'seed' is not of the form NAME=VALUE"),
        ({"params": ["=3"]}, "'=3' is not of the form"),
        ({"params": ["profile=full"]}, "cannot set profile. Use --profile"),
        (
            {"params": ["size=1m"]},
            "'size' is called 'model' now. Write --param model=1m",
        ),
        ({"params": ["model=5"]}, "'model' is text; got 5"),
        ({"params": ["seeds=many"]}, "'seeds' is a number; got 'many'"),
        ({"params": ["seed=abc"]}, "'seed' is a number; got 'abc'. Give a number"),
        ({"params": ["seed=1.5"]}, "seed is a whole number; got 1.5"),
        ({"params": ["limit=[1]"]}, "parameter 'limit' is a number; got [1]"),
        ({"params": ["device=3"]}, "parameter 'device' is text; got 3"),
    ],
)
def test_wrong_arguments_are_named_with_the_remedy(two, tmp_path, arguments, said):
    out = tmp_path / "run"
    with pytest.raises(AlignlabError, match=re.escape(said)):
        run_series(**{"out": out, "notebooks": two, **arguments})
    assert not out.exists()


def test_a_model_has_to_be_there_before_a_kernel_starts(two, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for model, said in (
        ("./nowhere", "'./nowhere' is not there.*Pass a folder with config.json"),
        ("empty", "'.*empty' is no model: it has no config.json.*save_pretrained"),
    ):
        with pytest.raises(AlignlabError, match=said):
            run_series(params=[f"model={model}"], out=tmp_path / "run", notebooks=two)
        assert not (tmp_path / "run").exists()


def test_a_models_folder_is_found_from_any_kernel(two, tmp_path, monkeypatch):
    """And a run is resumed only as long as the folder holds the same model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    jobs = runner._jobs([two / "00_first.ipynb"], "smoke", ["model=mine"])
    assert jobs[0].settings == {"model": str(tmp_path / "mine")}
    same = runner._jobs([two / "00_first.ipynb"], "smoke", ["model=./mine"])
    assert same[0].fingerprint == jobs[0].fingerprint
    (tmp_path / "mine" / "config.json").write_text('{"other": 1}')
    other = runner._jobs([two / "00_first.ipynb"], "smoke", ["model=mine"])
    assert other[0].fingerprint != jobs[0].fingerprint
    # A size that ships is never taken for a folder.
    (tmp_path / "1m").mkdir()
    shipped = runner._jobs([two / "00_first.ipynb"], "smoke", ["model=1m"])
    assert shipped[0].settings == {"model": "1m"}


def test_a_folder_in_use_is_not_written_to(two, tmp_path):
    out = tmp_path / "run"
    run_series(out=out, profile="smoke", notebooks=two)
    with pytest.raises(AlignlabError, match="already holds a run. Add --resume"):
        run_series(out=out, notebooks=two)
    with pytest.raises(AlignlabError, match="run of profile smoke, not full"):
        run_series(out=out, profile="full", resume=True, notebooks=two)
    run_series(out=out, profile="smoke", resume=True, notebooks=two)
    strange = tmp_path / "letters"
    strange.mkdir()
    (strange / "dear.txt").touch()
    for resume in (False, True):
        with pytest.raises(AlignlabError, match="not a run and not empty"):
            run_series(out=strange, notebooks=two, resume=resume)
    assert [path.name for path in strange.iterdir()] == ["dear.txt"]
    barely = tmp_path / "barely"
    barely.mkdir()
    (barely / ".lock").touch()  # killed before it had begun
    run_series(out=barely, resume=True, notebooks=two)
    with (
        FileLock(out / ".lock"),
        pytest.raises(AlignlabError, match="Another alignlab"),
    ):
        run_series(out=out, resume=True, notebooks=two)


def test_by_default_a_run_has_a_new_folder_and_is_the_latest(
    two, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    first = run_series(profile="smoke", notebooks=two).folder
    second = run_series(profile="smoke", notebooks=two).folder
    assert first != second and first.parent == second.parent == tmp_path / "runs"
    assert first.name.startswith("smoke-")
    assert latest_run() == second
    assert run_folder(None, True, None)[0] == second
    # Resuming the latest takes its profile and notebooks.
    again = run_series(resume=True, notebooks=two)
    assert again.folder == second
    assert json.loads((second / "run.json").read_text())["profile"] == "smoke"


@pytest.mark.parametrize("profile, dirty, told", [
    ("full", True, True), ("full", False, False), ("full", None, False),
    ("smoke", True, False),
])  # fmt: skip
def test_who_cannot_publish_a_run_hears_it_before_the_hours(
    two, tmp_path, monkeypatch, profile, dirty, told
):
    made = {**runner.origin(), "dirty": dirty}
    monkeypatch.setattr(runner, "origin", lambda: made)
    monkeypatch.setattr(runner, "_run_all", lambda *_: [])
    monkeypatch.setattr("alignlab.runs.report.write_report", lambda folder: None)
    console = Console(file=io.StringIO())
    run_series(profile=profile, out=tmp_path / "x", notebooks=two, console=console)
    assert ("publish" in console.file.getvalue()) is told


def test_resuming_finds_the_notebooks_again_and_leaves_other_files(two, tmp_path):
    out = tmp_path / "run"
    run_series(out=out, notebooks=two)
    mine = [out / name for name in ("00_first.txt", "00_first.old.ipynb", "note")]
    for file in mine:
        file.write_text("mine")
    for ending in runner.OF_A_NOTEBOOK[1:]:  # without its copy it does not count
        (out / f"00_first{ending}").write_text("former")
    run_series(out=out, resume=True)  # without the notebooks' folder
    assert all(file.read_text() == "mine" for file in mine)
    assert not [e for e in runner.OF_A_NOTEBOOK if (out / f"00_first{e}").exists()]


def test_there_may_be_nothing_to_resume(tmp_path, monkeypatch, two):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AlignlabError, match="There is no run"):
        run_series(resume=True, notebooks=two)


def test_a_full_disk_is_told_with_the_remedy(two, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runner, "execute", full)
    with pytest.raises(AlignlabError, match="is full. Free some.*--resume --out"):
        run_series(out=tmp_path / "run", notebooks=two)
    assert state_of(tmp_path / "run")["00_first"]["status"] == "running"


def test_a_run_that_is_going_on_has_no_metrics_to_be_taken_for_whole(
    two, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    run_series(out=out, notebooks=two)
    assert (out / "metrics.json").exists()

    def killed(*_):
        raise MemoryError

    monkeypatch.setattr(runner, "execute", killed)
    with pytest.raises(MemoryError):
        run_series(out=out, resume=True, params=["seed=1"], notebooks=two)
    assert not (out / "metrics.json").exists()


def test_progress_is_a_line_per_notebook_in_a_log_and_bars_on_a_terminal():
    def shown(**options):
        console = Console(file=io.StringIO(), width=120, **options)
        with Progress(console, ["00_x", "01_longer", "02_kept"]) as progress:
            progress.begin("00_x")
            progress.cell("00_x", 2, 7)
            progress.end("00_x", "finished")
            progress.begin("01_longer")
            progress.cell("01_longer", 3, 9)
            progress.end("01_longer", "failed", "ValueError: [no]")
            progress.end("02_kept", "kept")
        return console.file.getvalue()

    assert shown().splitlines() == [
        "00_x: finished in 0 s",
        "01_longer: failed in 0 s, ValueError: [no]",
        "02_kept: kept",
    ]
    *_, first, second, third, _ = shown(force_terminal=True).splitlines()
    assert "✓" in first and "00_x" in first and "finished" in first
    assert "✗" in second and "01_longer" in second and "failed" in second
    assert "=" in third and "02_kept" in third and "kept" in third


def test_the_package_hash_changes_with_code_that_numbers_depend_on(
    tmp_path, monkeypatch
):
    package = tmp_path / "alignlab"
    (package / "runs").mkdir(parents=True)
    (package / "__pycache__").mkdir()
    (package / "__init__.py").touch()
    monkeypatch.setattr(runner.alignlab, "__file__", str(package / "__init__.py"))
    seen = [runner.package_hash()]
    for name, counts in [
        ("runs/context.py", True),
        ("weights.safetensors", True),
        ("__pycache__/x.pyc", False),
        ("cli.py", False),
        ("runs/report.py", False),
    ]:
        (package / name).write_text("x")
        assert (runner.package_hash() != seen[-1]) == counts, name
        seen.append(runner.package_hash())


def test_a_missing_kernel_is_told_with_the_remedy(notebooks, tmp_path, monkeypatch):
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    def none(self, name):
        raise NoSuchKernel(name)

    monkeypatch.setattr(KernelSpecManager, "get_kernel_spec", none)
    write_notebook(notebooks / "00_x.ipynb")
    with pytest.raises(AlignlabError, match="no kernel 'python3'.*ipykernel"):
        run_series(out=tmp_path / "run", notebooks=notebooks)


# --- Choosing notebooks and parameters ----------------------------------------------


def test_numbers_and_ranges_choose_notebooks_in_order(notebooks):
    for number in ("00", "01", "02", "10"):
        write_notebook(notebooks / f"{number}_x.ipynb")
    (notebooks / "notes.ipynb").touch()
    (notebooks / "00_x.failed.ipynb").touch()

    def chosen(*wanted):
        return [path.name[:2] for path in select_notebooks(notebooks, wanted)]

    assert chosen() == ["00", "01", "02", "10"]
    assert chosen("10", "0-1") == ["00", "01", "10"]
    assert chosen("2", "02", "01-02") == ["01", "02"]


def test_some_notebooks_run_only_when_they_are_named(notebooks):
    for number in ("00", "01", "02"):
        write_notebook(notebooks / f"{number}_x.ipynb")

    def chosen(*wanted):
        return [p.name[:2] for p in select_notebooks(notebooks, wanted, {"01"})]

    assert chosen() == ["00", "02"]
    assert chosen("01") == ["01"] and chosen("00-01") == ["00", "01"]


def test_two_notebooks_of_one_number_are_an_error(notebooks):
    write_notebook(notebooks / "00_x.ipynb")
    write_notebook(notebooks / "00_y.ipynb")
    with pytest.raises(AlignlabError, match="number 00: 00_x.ipynb and 00_y.ipynb"):
        find_notebooks(notebooks)


@pytest.mark.parametrize(
    "text, value",
    [
        ("3", 3), ("1e-4", 1e-4), ("true", True), ("False", False), ("None", None),
        ("[1, 2]", [1, 2]), ("abc", "abc"), ("", ""), ("'3'", "3"), ("a=b", "a=b"),
        ("EleutherAI/pythia-70m", "EleutherAI/pythia-70m"),
        ("[300k, 1m]", ["300k", "1m"]), ("[5.0e-5, x]", [5e-5, "x"]), ("[a", "[a"),
    ],
)  # fmt: skip
def test_parameters_are_read_as_python_or_lists_of_yaml_or_text(text, value):
    read = read_parameters([f"name={text}"])["name"]
    assert read == value and type(read) is type(value)


def test_a_parameter_goes_to_the_notebooks_that_know_it(notebooks):
    with_limit = write_notebook(notebooks / "00_x.ipynb")
    plain = notebooks / "01_y.ipynb"
    nbformat.write(nbformat.v4.new_notebook(), plain)
    assert cell_parameters(with_limit) == {
        "profile": "cpu", "seed": 0, "device": "cpu", "out_dir": "", "limit": 1.5
    }  # fmt: skip
    shared = assign_parameters({"limit": 3, "seeds": 4}, [with_limit, plain], "cpu")
    assert shared == {
        with_limit: ({"limit": 3}, {"seeds": 4}),
        plain: ({}, {"seeds": 4}),
    }
    # Its own cell comes before the setting of the same name.
    both = notebooks / "02_z.ipynb"
    cell = nbformat.v4.new_code_cell("seeds = 1", metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), both)
    assert assign_parameters({"seeds": 4}, [both], "cpu") == {both: ({"seeds": 4}, {})}


@pytest.mark.parametrize(
    "line",
    [
        "%matplotlib inline", "!pip install x", "%load_ext autoreload", "seed?",
        "import os", "print(1)", "seed += 1", "low, high = 1, 2", "a[0] = 1",
        "x.y = 1", "name: int", "if True: seed = 2", "for i in (): pass", "seed =",
    ],
)  # fmt: skip
def test_a_parameters_cell_holds_plain_assignments_only(notebooks, line):
    path = notebooks / "00_x.ipynb"
    source = f"# Settings\nseed = 0\n{line}\nlast = 1"
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    with pytest.raises(AlignlabError) as raised:
        assign_parameters({"seed": 1}, [path], "cpu")
    told = str(raised.value)
    assert (
        f"Line 3 of the parameters cell of 00_x.ipynb is no plain assignment: `{line}`"
        in told
    )
    assert "a cell of their own" in told


def test_comments_annotations_and_several_lines_are_plain(notebooks):
    path = notebooks / "00_x.ipynb"
    source = '"""Settings"""\nseed: int = 0  # of all\na = b = [\n    1,\n]\n'
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    assert cell_parameters(path) == {"seed": 0, "a": [1], "b": [1]}


def test_two_parameters_cells_are_refused(notebooks):
    path, tagged = notebooks / "00_x.ipynb", {"metadata": {"tags": ["parameters"]}}
    cells = [nbformat.v4.new_code_cell("seed = 0", **tagged) for _ in range(2)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    with pytest.raises(AlignlabError, match="2 cells with the tag.*into one cell"):
        cell_parameters(path)


def test_executed_notebooks_are_those_of_a_finished_run(tmp_path):
    entries = {"00_a": {"status": "finished"}, "01_b": {"status": "failed"}}
    write_json(tmp_path / "run.json", {"notebooks": entries})
    with pytest.raises(AlignlabError, match="01_b is not finished.*--resume --out"):
        executed_notebooks(tmp_path)
    entries.pop("01_b")
    write_json(tmp_path / "run.json", {"notebooks": entries})
    assert executed_notebooks(tmp_path) == {"00_a": tmp_path / "00_a.ipynb"}


@pytest.mark.parametrize(
    "options",
    [dict(profile="gpu"), dict(profile="smoke", params=["device='cuda'"])],
)
def test_a_device_that_is_not_there_is_refused_before_anything_starts(
    options, notebooks, tmp_path, monkeypatch
):
    import torch

    write_notebook(notebooks / "00_works.ipynb", RECORDS)
    monkeypatch.setattr(torch, "empty", _no_gpu)
    out = tmp_path / "run"
    with pytest.raises(AlignlabError, match="device is 'cuda', and torch cannot") as e:
        run_series(["00"], out=out, notebooks=notebooks, **options)
    assert "--param device=cpu" in e.value.remedy
    assert not list(out.glob("*.ipynb")) and not (out / "run.json").exists()


def _no_gpu(*size, device):
    raise AssertionError("Torch not compiled with CUDA enabled")
