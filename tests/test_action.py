"""The GitHub Action: its steps do what they say, whatever `alignlab` exits with."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from alignlab.errors import Status
from alignlab.runs.profiles import load_profiles

ROOT = Path(__file__).resolve().parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS = {step.get("id") or step.get("name"): step for step in ACTION["runs"]["steps"]}

# Stands in for alignlab and gh: writes down its arguments, and what check would write.
PRETENDER = """#!/bin/bash
echo "$(basename "$0") $*" >> "$CALLS"
for last; do
  if [ "$previous" = --markdown ]; then mkdir -p "$(dirname "$last")"
    echo "### it is so" > "$last"; fi
  previous="$last"
done
exit "${STATUS:-0}"
"""

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.fixture
def step(tmp_path):
    """A function that runs a step's script, and gives its status, the calls it made and
    the files that GitHub reads."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("alignlab", "gh"):
        (programs / name).write_text(PRETENDER)
        (programs / name).chmod(0o755)

    def run(name, status=0, **variables):
        names = ("CALLS", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")
        files = {each: str(tmp_path / each) for each in names}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"]
            + [STEPS[name]["run"]],
            cwd=tmp_path,
            env={
                "PATH": f"{programs}:{os.environ['PATH']}",
                "STATUS": str(int(status)),
                **files,
                **variables,
            },
            capture_output=True,
            text=True,
        )
        texts = [Path(files[each]) for each in names]
        return done.returncode, *(t.read_text() if t.exists() else "" for t in texts)

    return run


RUN = dict(NOTEBOOKS="03 05", PROFILE="smoke", SEED="0", FRESH="false")


def test_the_run_takes_its_inputs(step):
    code, calls, output, _ = step("run", **RUN)
    assert code == 0 and output == "folder=runs/regression-smoke\n"
    assert calls == (
        "alignlab run 03 05 --profile smoke --param seed=0 --keep-going "
        "--out runs/regression-smoke\n"
    )
    assert "--fresh" in step("run", **RUN | {"FRESH": "true"})[1]


@pytest.mark.parametrize(
    "status, code",
    [
        (Status.SOUND, 0),
        (Status.FAILED, 0),  # the check tells it, and comments
        (Status.WRONG, 2),
        (Status.CRASHED, 4),
    ],
)
def test_a_failed_notebook_goes_on_to_the_check_and_nothing_else(step, status, code):
    assert step("run", status, **RUN)[0] == code


CHECK = dict(FOLDER="runs/x", AGAINST="", IDENTICAL="false")


@pytest.mark.parametrize(
    "status, state",
    [
        (Status.SOUND, "sound"),
        (Status.FAILED, "failed"),
        (Status.WRONG, "error"),
        (Status.DRIFTED, "drifted"),
        (Status.CRASHED, "error"),
    ],
)
def test_the_check_gives_its_state_and_its_status(step, status, state):
    code, calls, output, summary = step("check", status, **CHECK)
    assert (code, output) == (int(status), f"state={state}\n")
    assert summary == "### it is so\n"
    assert "--against" not in calls and "--identical" not in calls


def test_the_check_takes_a_record(step):
    calls = step("check", **CHECK | {"AGAINST": "a b.json", "IDENTICAL": "true"})[1]
    assert "--against a b.json --identical" in calls


def test_a_comment_that_is_refused_ends_nothing(step, tmp_path):
    name = "Comment on the pull request"
    given = dict(FOLDER="runs/x", NUMBER="7", REPOSITORY="me/it")
    code, calls, *_ = step(name, **given)
    assert code == 0 and calls == ""  # there is no summary to comment with
    (tmp_path / "runs/x").mkdir(parents=True)
    (tmp_path / "runs/x/check.md").write_text("text")
    code, calls, *_ = step(name, 1, **given)
    assert code == 0
    assert calls.startswith("gh pr comment 7 --repo me/it --body-file runs/x/check.md")


def test_what_stands_in_expressions_and_options_exists():
    """No input goes into a script as text, where it could be a command."""
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step.get("run", "")
        assert ("run" in step) == ("shell" in step)
    for name in ACTION["inputs"]:
        assert f"inputs.{name}" in text
    assert ACTION["inputs"]["profile"]["default"] in load_profiles()["profiles"]
