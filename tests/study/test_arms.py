"""Arms: in the order given, each once, the same numbers in one process and in two."""

import importlib
import os
import sys
import textwrap
from types import SimpleNamespace

import pytest
from joblib.externals.loky import get_reusable_executor

from alignlab import imported
from alignlab.errors import AlignlabError
from alignlab.models import base
from alignlab.study import arms
from alignlab.study.arms import is_remembered, run_alone, run_arms, run_each, run_groups

MODULE = """
    import os
    from pathlib import Path

    import torch

    from alignlab.models.base import device_in_use


    def draw(*, seed, n=3):
        log = Path(os.environ["ALIGNLAB_CACHE"]) / "computed"
        with log.open("a") as file:
            file.write(f"{seed} ")
        if (log.parent / f"broken-{seed}").exists():
            raise ZeroDivisionError
        generator = torch.Generator().manual_seed(seed)
        a, b = torch.randn(2, 64, 64, generator=generator)
        values = torch.linalg.matrix_power(a @ b / 64, n)
        return {
            "value": values.sum().item(),
            "threads": torch.get_num_threads(),
            "process": os.getpid(),
            "device": device_in_use(),
            "pair": (1, 2),
        }
    """


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A module that worker processes can import too, and an empty cache."""
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "drawing_lots.py"

    def write(source):
        path.write_text(textwrap.dedent(source))
        imported.SOURCES.pop("drawing_lots", None)
        importlib.invalidate_caches()
        sys.modules.pop("drawing_lots", None)
        return importlib.import_module("drawing_lots").draw

    def computed():
        log = tmp_path / "cache" / "computed"
        return log.read_text().split() if log.exists() else []

    get_reusable_executor().shutdown(wait=True)  # workers of before know no new folder
    yield SimpleNamespace(write=write, computed=computed, cache=tmp_path / "cache")
    get_reusable_executor().shutdown(wait=True)
    sys.modules.pop("drawing_lots", None)
    imported.SOURCES.pop("drawing_lots", None)


SEEDS = [5, 3, 8, 1]


def numbers(rows):
    return [(row["seed"], row["value"]) for row in rows]


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one_in_the_order_given(lab, monkeypatch):
    draw = lab.write(MODULE)
    given = [dict(seed=seed) for seed in SEEDS]
    one = run_arms(draw, given, jobs=1)
    assert {row["process"] for row in one} == {os.getpid()}
    monkeypatch.setenv("ALIGNLAB_CACHE", str(lab.cache / "another"))
    (lab.cache / "another").mkdir()
    monkeypatch.setattr(base, "_device", "meta")
    two = run_arms(draw, given, jobs=2)
    assert numbers(two) == numbers(one)
    assert [row["seed"] for row in two] == SEEDS
    assert os.getpid() not in {row["process"] for row in two}
    assert {row["threads"] for row in two} == {1}
    assert {row["device"] for row in two} == {"meta"}, "workers are told the device"


def test_a_result_is_computed_once_and_holds_its_parameters(lab, monkeypatch):
    draw = lab.write(MODULE)
    given = [dict(seed=1, n=2), dict(seed=2, n=2)]
    first = run_arms(draw, given, jobs=1)
    assert [(row["seed"], row["n"]) for row in first] == [(1, 2), (2, 2)]
    assert first[0]["pair"] == [1, 2], "as JSON gives it, also the first time"
    monkeypatch.setattr(arms, "Parallel", None)  # what is known needs no processes
    assert run_arms(draw, given, jobs=2) == first
    assert lab.computed() == ["1", "2"]
    again = run_arms(draw, [dict(seed=2, n=2), dict(seed=2, n=3)], jobs=1)
    assert again[0] == first[1] and lab.computed() == ["1", "2", "2"]
    assert again[0]["value"] != again[1]["value"]


def test_a_run_that_was_stopped_goes_on_where_it_was(lab):
    draw = lab.write(MODULE)
    given = [dict(seed=seed) for seed in SEEDS]
    (lab.cache / "broken-8").touch()
    with pytest.raises(ZeroDivisionError):
        run_arms(draw, given, jobs=1)
    assert [is_remembered(draw, arm) for arm in given] == [True, True, False, False]
    (lab.cache / "broken-8").unlink()
    rows = run_arms(draw, given, jobs=1)
    assert [row["seed"] for row in rows] == SEEDS
    assert lab.computed() == ["5", "3", "8", "8", "1"]


def test_other_weights_or_other_code_make_other_results(lab, monkeypatch):
    draw, arm = lab.write(MODULE), dict(seed=1)
    [before] = run_arms(draw, [arm], jobs=1)
    monkeypatch.setattr(arms, "weights_behind", lambda arm: "retrained")
    assert not is_remembered(draw, arm)
    run_arms(draw, [arm], jobs=1)
    monkeypatch.undo()
    monkeypatch.setenv("ALIGNLAB_CACHE", str(lab.cache))
    monkeypatch.syspath_prepend(lab.cache.parent)
    assert is_remembered(draw, arm)
    draw = lab.write(MODULE.replace("n=3):", 'n=3):\n        "Comments do not count."'))
    assert is_remembered(draw, arm)
    draw = lab.write(MODULE.replace("b / 64", "b / 65"))
    assert not is_remembered(draw, arm)
    [after] = run_arms(draw, [arm], jobs=1)
    assert after["value"] != before["value"]


def test_two_functions_of_one_module_are_kept_apart(lab):
    source = textwrap.dedent(MODULE)
    source += "def other(*, seed):\n    return {'value': 0}\n"
    draw = lab.write(source)
    run_arms(draw, [dict(seed=1)], jobs=1)
    other = sys.modules["drawing_lots"].other
    assert run_arms(other, [dict(seed=1)], jobs=1) == [{"seed": 1, "value": 0}]
    calls = [(other, dict(seed=1)), (draw, dict(seed=2)), (draw, dict(seed=1))]
    rows = run_each(calls, jobs=1, label="both")
    assert rows[0] == {"seed": 1, "value": 0}
    assert rows[1:] == run_arms(draw, [dict(seed=2), dict(seed=1)], jobs=1)
    assert lab.computed() == ["1", "2"]


def test_groups_get_their_rows_and_share_what_both_name(lab):
    draw = lab.write(MODULE)
    one, two, three = ((draw, dict(seed=seed)) for seed in (1, 2, 3))
    found = run_groups(
        {"a": [two, one], ("b", 0): [one, three], "c": []}, jobs=1, label=""
    )
    seeds = {name: [row["seed"] for row in rows] for name, rows in found.items()}
    assert seeds == {"a": [2, 1], ("b", 0): [1, 3], "c": []}
    assert found["a"][1] == found["b", 0][0]
    assert lab.computed() == ["2", "1", "3"]


def test_no_arm_gives_no_row(lab):
    draw = lab.write(MODULE)
    assert run_arms(draw, [], jobs=1) == run_arms(draw, [], jobs=2) == []


def test_arms_are_picked_by_their_parameters_in_order_of_seeds():
    rows = [{"seed": s, "n": n} for n in (1, 2) for s in (2, 0, 1)]
    assert [row["seed"] for row in arms.pick(rows, n=2)] == [0, 1, 2]
    assert arms.pick(rows, n=2, seed=1) == [{"seed": 1, "n": 2}]
    with pytest.raises(ValueError, match="no arm with {'n': 3} among 6"):
        arms.pick(rows, n=3)


def test_arms_that_run_alone_are_computed_every_time_on_one_thread(lab):
    draw = lab.write(MODULE)
    calls = [(draw, dict(seed=1)), (draw, dict(seed=2))]
    cached = run_each(calls, jobs=1, label="")
    rows = run_alone(calls)
    assert numbers(rows) == numbers(cached)
    assert {(row["process"], row["threads"]) for row in rows} == {(os.getpid(), 1)}
    assert lab.computed() == ["1", "2", "1", "2"]


@pytest.mark.slow
def test_workers_refuse_code_that_was_edited_since_the_parent_read_it(lab):
    draw = lab.write(MODULE)
    assert not is_remembered(draw, dict(seed=1))
    path = lab.cache.parent / "drawing_lots.py"
    path.write_text(path.read_text().replace("b / 64", "b / 65"))
    with pytest.raises(AlignlabError, match="draw depends on changed after"):
        run_arms(draw, [dict(seed=1), dict(seed=2)], jobs=2)
    assert lab.computed() == []
