"""Regressions planted on purpose: a unit test notices each, and so does a run.

It takes an hour or more: `python -m pytest -m regressions tests/regressions`. With
`-k unit_test` only the unit tests are asked, which takes some minutes.
"""

import pytest

from alignlab.errors import Status

from .planting import ROOT, check, mutants, noticed, planted, run_notebook, unit_test

MUTANTS = mutants()
STALE = "stale-artifact"  # shows only when something else has changed as well


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_fits_the_code_of_today(name, tmp_path):
    """It is quick, so it runs with all other tests."""
    mutant = MUTANTS[name]
    assert mutant.before != mutant.after
    planted(tmp_path, mutant)


def test_the_guide_tells_of_every_mutant():
    guide = (ROOT / "docs" / "regression.md").read_text(encoding="utf-8")
    table = guide.partition("## What it catches")[2]
    listed = [line.split(" | ")[0] for line in table.splitlines() if "| " in line]
    assert listed[2:] == [f"| {mutant.why}" for mutant in MUTANTS.values()]


@pytest.mark.regressions
@pytest.mark.parametrize("name", MUTANTS)
def test_a_unit_test_notices(name, tmp_path, record_property):
    mutant = MUTANTS[name]
    _record(record_property, mutant=name, who="unit", sees="✓")
    done = unit_test(planted(tmp_path, mutant), mutant.test)
    assert done.returncode == 1, done.stdout[-2000:]  # 1: a test failed


def _record(record_property, **properties):
    for name, value in properties.items():
        record_property(name, value)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A function that gives a run of a notebook without any regression."""
    copy, runs = planted(tmp_path_factory.mktemp("pristine")), {}

    def run(notebook, seeds=1):
        key = notebook, seeds
        if key not in runs:
            out = tmp_path_factory.mktemp("runs") / notebook
            done = run_notebook(copy, notebook, out, seeds=seeds)
            assert done.returncode == Status.SOUND, done.stderr[-2000:]
            runs[key] = out
        return runs[key]

    return run


@pytest.mark.regressions
@pytest.mark.parametrize("name", [name for name in MUTANTS if name != STALE])
def test_a_run_notices(name, tmp_path, pristine, record_property):
    mutant = MUTANTS[name]
    record = pristine(mutant.notebook, mutant.seeds)
    copy = planted(tmp_path / "copy", mutant)
    run_notebook(copy, mutant.notebook, tmp_path / "run", seeds=mutant.seeds)
    sees = noticed(tmp_path / "run", record)
    _record(record_property, mutant=name, who="run", sees=sees)
    done = check(copy, tmp_path / "run", record, "--identical")
    assert done.returncode in (Status.FAILED, Status.DRIFTED), done.stdout[-2000:]


@pytest.mark.regressions
def test_a_run_without_regression_is_sound_to_the_digit(tmp_path, pristine):
    """From an empty cache, so that everything is trained again."""
    copy = planted(tmp_path / "copy")
    run_notebook(copy, "00", tmp_path / "run", "--fresh")
    done = check(copy, tmp_path / "run", pristine("00"), "--identical")
    assert done.returncode == Status.SOUND, done.stderr[-2000:]


@pytest.mark.regressions
def test_a_stale_artifact_shows_against_a_fresh_run(tmp_path, record_property):
    """An optimizer that does nothing gives yesterday's numbers out of such a cache."""
    stale, broken = MUTANTS[STALE], MUTANTS["optimizer-no-op"]
    before = planted(tmp_path / "before", stale)
    after = planted(tmp_path / "after", stale, broken)
    cache = dict(ALIGNLAB_CACHE=str(own_cache(tmp_path / "cache")))
    for copy, name, options in (
        (before, "yesterday", ()),
        (after, "today", ()),
        (after, "fresh", ("--fresh",)),
    ):
        run_notebook(copy, "00", tmp_path / name, *options, **cache)
    done = check(after, tmp_path / "today", tmp_path / "yesterday")
    assert done.returncode == Status.SOUND, done.stderr[-2000:]
    sees = f"fresh {noticed(tmp_path / 'fresh', tmp_path / 'today')}"
    _record(record_property, mutant=STALE, who="run", sees=sees)
    done = check(after, tmp_path / "fresh", tmp_path / "today", "--identical")
    assert done.returncode == Status.DRIFTED, done.stdout[-2000:]


def own_cache(folder):
    """An empty cache with the data archives of the usual one."""
    from alignlab.cache import cache_dir

    folder.mkdir()
    if (cache_dir() / "sources").exists():
        (folder / "sources").symlink_to((cache_dir() / "sources").resolve())
    return folder
