"""Runs that are stopped, end too early or never, print too much or find no network."""

import json
import os
import signal
import time

import nbformat
import psutil
import pytest

from .killing import finish, lives, start, wait_for
from .test_kills import finished, results

pytestmark = pytest.mark.faults


@pytest.mark.parametrize(
    "number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_run_that_is_stopped(write_notebook, tmp_path, fault, number, status):
    row = fault("Ctrl-C" if number == signal.SIGINT else "SIGTERM")
    write_notebook("90_first")
    endless = "open('{}', 'w').close()\nwhile True: pass".format(tmp_path / "going")
    folder = write_notebook("91_second", endless)
    row.tried += 1
    run = ("run", "--profile", "smoke")
    process = start(*run, "--notebooks", folder, cwd=tmp_path, cache=tmp_path / "cache")
    wait_for((tmp_path / "going").exists)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    told = finish(process, status)
    assert "Traceback" not in told
    assert not any(map(lives, children)), "no kernel stays"
    [out] = (tmp_path / "runs").glob("smoke-*")
    assert f"alignlab run --resume --out runs/{out.name}" in told
    row.survived += 1
    assert finished(out).keys() == {"90_first"}
    page = (out / "report.html").read_text()
    assert "1 of 2</b> notebooks finished" in page and "90_first.html" in page
    metrics = json.loads((out / "metrics.json").read_text())["notebooks"]
    assert metrics["90_first"]["metrics"]["answer"]["value"] > 0
    # The command it named goes on, with the same notebooks.
    write_notebook("91_second")
    before = finished(out)
    finish(
        start("run", "--resume", "--out", out, cwd=tmp_path, cache=tmp_path / "cache")
    )
    assert before.items() <= finished(out).items() and len(results(out)) == 2
    row.kept += 1


def test_a_kernel_that_is_killed(write_notebook, tmp_path, fault):
    row = fault("kernel killed with -9")
    slow = "open('{}', 'w').write(str(__import__('os').getpid()))\ntime.sleep(60)"
    write_notebook("90_first", slow.format(tmp_path / "pid"))
    folder = write_notebook("91_second")
    process = start(
        *("run", "--profile", "smoke", "--keep-going", "--out", "out"),
        *("--notebooks", folder),
        cwd=tmp_path,
        cache=tmp_path / "cache",
    )
    pid = tmp_path / "pid"
    wait_for(lambda: pid.exists() and pid.read_text())
    row.tried += 1
    os.kill(int(pid.read_text()), signal.SIGKILL)
    told = finish(process, 1)
    assert "90_first failed in cell [4]" in told and "the kernel died" in told
    row.survived += 1
    row.kept += finished(tmp_path / "out").keys() == {"91_second"}


def test_a_cell_without_an_end(write_notebook, tmp_path, fault):
    row = fault("a cell without an end, in compiled code")
    folder = write_notebook("90_first", "sum(iter(int, 1))")
    row.tried += 1
    began = time.monotonic()
    command = ("run", "--profile", "smoke", "--timeout", 15, "--notebooks", folder)
    process = start(*command, "--out", "out", cwd=tmp_path, cache=tmp_path / "cache")
    told = finish(process, 1)
    assert "it was stopped after 15 seconds" in told and "--resume" in told
    assert time.monotonic() - began < 60
    row.survived += 1
    row.kept += (tmp_path / "out" / "90_first.failed.ipynb").exists()


FLOODS = {
    "100 MB are printed": "for _ in range(100):\n    print('x' * 1_000_000)",
    "100 MB on one line of an exception": "raise ValueError('x' * 100_000_000)",
    "a page of 100 MB": (
        "from IPython.display import HTML\nHTML('<p>' + 'x' * 100_000_000 + '</p>')"
    ),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_output_without_measure(write_notebook, tmp_path, fault, flood):
    row = fault(f"output: {flood}")
    folder = write_notebook("90_first", "print('before')", FLOODS[flood], "last = 1")
    row.tried += 1
    command = ("run", "--profile", "smoke", "--notebooks", folder, "--out", "out")
    process = start(*command, cwd=tmp_path, cache=tmp_path / "cache")
    told = finish(process, (0, 1))
    assert len(told) < 10_000
    fails = "exception" in flood
    file = tmp_path / "out" / f"90_first{'.failed' if fails else ''}.ipynb"
    notebook = nbformat.read(file, as_version=4)
    assert notebook.cells[-1].source == "last = 1"
    assert file.stat().st_size < 3e6
    assert file.with_suffix(".html").stat().st_size < 5e6
    text = file.read_text()
    assert "before" in text
    assert (
        fails or "output is longer than 1,000,000 characters; the rest is not" in text
    )
    row.survived, row.kept = row.survived + 1, row.kept + 1


NEEDS_A_SOURCE = """from alignlab.data import sources
sources.read_text("countryinfo", "countryinfo/data/france.json")"""


def test_no_network(write_notebook, tmp_path, fault):
    row = fault("no network and an empty cache, in a kernel")
    folder = write_notebook("90_first", NEEDS_A_SOURCE)
    row.tried += 1
    nowhere = {name: "" for name in os.environ if name.startswith("PIP_")}
    nowhere |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/x"}
    nowhere |= {"PIP_NO_INDEX": "", "PIP_RETRIES": "0"}
    command = ("run", "--profile", "smoke", "--notebooks", folder, "--out", "out")
    process = start(*command, cwd=tmp_path, cache=tmp_path / "cache", **nowhere)
    told = finish(process, 1)
    assert "no connection to the package index" in told and "pip's last line" in told
    assert "[0m" not in told and "alignlab data pull countryinfo" in told
    row.survived += 1
    reason = json.loads((tmp_path / "out" / "run.json").read_text())
    row.kept += "\x1b" not in json.dumps(reason) and "[0m" not in json.dumps(reason)


@pytest.mark.parametrize("given", ["seed=abc", "seed=1.5", "limit=[1]", "device=3"])
def test_parameters_of_the_wrong_type_start_no_kernel(series, tmp_path, fault, given):
    row = fault("--param of the wrong type")
    row.tried += 1
    command = ("run", "--profile", "smoke", "--notebooks", series, "--out", "out")
    process = start(*command, "--param", given, cwd=tmp_path, cache=tmp_path / "cache")
    told = finish(process, 2)
    assert "error:" in told and given.partition("=")[0] in told
    row.survived += 1
    row.kept += not (tmp_path / "out").exists()


def test_files_of_the_users_own_stay(series, tmp_path, fault):
    row = fault("the user's own files in a run's folder")
    command = ("run", "90", "--profile", "smoke", "--notebooks", series, "--out", "out")
    options = dict(cwd=tmp_path, cache=tmp_path / "cache")
    finish(start(*command, **options))
    mine = tmp_path / "out" / "90_first.notes.txt"
    mine.write_text("mine")
    row.tried += 1
    finish(start(*command, "--resume", "--param", "seed=1", **options))
    row.survived += 1
    row.kept += mine.read_text() == "mine"


def test_a_clock_that_was_set_between_run_and_resume(series, tmp_path, fault):
    row = fault("clock set by 20 years: run --resume")
    command = ("run", "90-91", "--profile", "smoke", "--notebooks", series)
    options = dict(cwd=tmp_path, cache=tmp_path / "cache")
    finish(start(*command, "--out", "out", **options))
    for years in (-20, 20):
        for place in ("out", "cache"):
            for path in (tmp_path / place).rglob("*"):
                then = path.stat().st_mtime + years * 365 * 86_400
                os.utime(path, (then, then))
        before = finished(tmp_path / "out")
        row.tried += 1
        told = finish(start(*command, "--out", "out", "--resume", **options))
        assert told.count("kept") == 2
        row.survived += 1
        row.kept += finished(tmp_path / "out") == before
