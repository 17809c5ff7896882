"""A course for nbgrader or otter: what it holds, and what students do not see."""

import ast
import re

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from alignlab.course.notebooks import copy_notebooks, shipped_notebooks
from alignlab.course.opening import with_opening
from alignlab.course.otter import (
    export_for_otter,
    for_otter,
    quarters_of,
    with_otters_markers,
)
from alignlab.course.teaching import (
    CONFIG,
    for_nbgrader,
    is_check,
    new_course,
    profile_from_outside,
)
from alignlab.errors import AlignlabError

SOLUTION = '''\
def my_answer(x):
    """Doc."""
    ### BEGIN SOLUTION
    return x + 1
    ### END SOLUTION


after = 1'''


def marks(grade_id, **others):
    plain = dict(grade=False, locked=False, solution=False, task=False)
    return {"nbgrader": plain | dict(grade_id=grade_id, schema_version=3) | others}


@pytest.fixture
def notebook():
    check = marks("nb00-q1-check", grade=True, locked=True, points=2)
    parameters = 'profile = "cpu"  # how much\nseed = 0'
    return new_notebook(
        cells=[
            new_markdown_cell("# Title"),
            new_code_cell(parameters, metadata={"tags": ["parameters"]}),
            new_code_cell(SOLUTION, metadata=marks("nb00-q1", solution=True)),
            new_code_cell('check("00.1", my_answer)', metadata=check),
        ]
    )


# --- nbgrader -----------------------------------------------------------------------


def test_only_checks_change_and_solutions_go(notebook):
    preprocessors = pytest.importorskip("nbgrader.preprocessors")
    source = for_nbgrader(notebook)
    assert [is_check(cell) for cell in source.cells] == [False, False, False, True]
    ast.parse(source.cells[3].source)
    assert '["partial_credit"](2)' in source.cells[3].source
    resources = {"nbgrader": {"notebook": "x"}}
    released, _ = preprocessors.ClearSolutions().preprocess(source, resources)
    assert "x + 1" not in released.cells[2].source
    assert notebook.cells[3].source == 'check("00.1", my_answer)'


def test_the_profile_comes_from_outside(notebook, monkeypatch):
    names = {}
    source = profile_from_outside(notebook).cells[1].source
    monkeypatch.setenv("ALIGNLAB_PROFILE", "smoke")
    exec(source, names)
    assert names["profile"] == "smoke"
    monkeypatch.delenv("ALIGNLAB_PROFILE")
    exec(source, names)
    assert names["profile"] == "cpu"


def test_a_course_holds_assignments_settings_and_a_roster(tmp_path):
    written = new_course(tmp_path / "my course", ["04", "07"])
    names = [str(path.relative_to(tmp_path / "my course")) for path in written]
    assert names == [
        "nbgrader_config.py",
        "roster.csv",
        "source/04_ppo/04_ppo.ipynb",
        "source/07_calibration/07_calibration.ipynb",
    ]
    config = written[0].read_text()
    compile(config, "nbgrader_config.py", "exec")
    assert "c.Execute.timeout = 1800" in config and '"my_course"' in config
    notebook = nbformat.read(written[2], as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    checks = [cell for cell in notebook.cells if is_check(cell)]
    assert checks and all('["partial_credit"](' in cell.source for cell in checks)


def test_the_settings_are_nbgraders_own():
    execute = pytest.importorskip("nbgrader.preprocessors").Execute
    names = re.findall(r"^c\.Execute\.(\w+)", CONFIG, flags=re.MULTILINE)
    assert names and set(names) <= set(execute.class_trait_names())


@pytest.mark.parametrize("write", [new_course, export_for_otter])
def test_a_folder_in_use_and_an_unknown_notebook_are_refused(tmp_path, write):
    with pytest.raises(AlignlabError, match="There is no notebook '44'. Did you mean"):
        write(tmp_path / "new", ["44"])
    (tmp_path / "work.txt").write_text("mine")
    with pytest.raises(AlignlabError, match="is not empty"):
        write(tmp_path)


# --- Otter --------------------------------------------------------------------------


def test_otters_source_runs_and_has_a_test_for_each_quarter(notebook):
    cells = for_otter(notebook, "00_base_model").cells
    raw = [cell.source for cell in cells if cell.cell_type == "raw"]
    assert raw[0].startswith("# ASSIGNMENT CONFIG\nname: 00_base_model")
    assert raw[1] == "# BEGIN QUESTION\nname: nb00_q1\npoints: 2"
    assert sum("result[" in cell.source for cell in cells) == 4
    names = {}
    exec(cells[3].source, names)
    assert names["my_answer"](1) == 2


@pytest.mark.parametrize("score, passed", [(0, 0), (1 / 3, 1), (0.5, 2), (1, 4)])
def test_otters_tests_grade_once_and_pass_by_quarters(monkeypatch, score, passed):
    asked = []

    def grade(exercise, answer):
        asked.append((exercise, answer))
        return {"score": score, "message": "half"}

    award = {"grade": grade, "told": lambda result: result["message"]}
    monkeypatch.setattr("runpy.run_path", lambda path: award)
    names = {}
    tests = list(quarters_of('scale = 2\ncheck("00.1", scale * my_answer)'))
    exec("\n".join(tests), names)
    first, *others = [names[f"at_least_{percent}"] for percent in (25, 50, 75, 100)]
    results = [reached(first, my_answer=1), *map(reached, others)]
    assert asked == [("00.1", 2)]
    assert results == [True] * passed + [False] * (4 - passed)


def reached(test, **names):
    try:
        test(**names)
    except AssertionError as error:
        assert "half" in str(error) or "percent of the cases" in str(error)
        return False
    return True


def test_an_interpretation_is_graded_by_hand_and_keeps_its_rubric_back():
    rubric = "<!-- BEGIN MARK SCHEME -->\nTwo points.\n<!-- END MARK SCHEME -->"
    task = marks("nb00-t1", task=True, points=2)
    cell = new_markdown_cell(f"Why?\n\n{rubric}", metadata=task)
    cells = for_otter(new_notebook(cells=[cell]), "00_base_model").cells
    sources = [cell.source for cell in cells[1:]]
    assert sources == [
        "# BEGIN QUESTION\nname: nb00_t1\npoints: 2\nmanual: true",
        "Why?",
        "# BEGIN SOLUTION",
        "Two points.",
        "# END SOLUTION",
        "# END QUESTION",
    ]


@pytest.mark.parametrize("address", ["", "https://github.com/ann/lab"])
def test_otter_installs_from_the_repository(notebook, address):
    with_opening(notebook, "notebooks/00_base_model.ipynb", address)
    config = yaml.safe_load(for_otter(notebook, "00_base_model").cells[0].source)
    expected = address or "https://github.com/OWNER/NAME"
    assert config["requirements"] == [f"alignlab @ {expected}/archive/HEAD.zip"]


def test_otter_leaves_our_stub():
    lines = with_otters_markers(SOLUTION).splitlines()
    kept, inside = [], False
    for line in lines:  # as otter.assign.solutions.replace_solutions does
        inside = inside or line.endswith("# BEGIN SOLUTION NO PROMPT")
        if not inside and not line.endswith(("# BEGIN PROMPT", "# END PROMPT")):
            kept.append(line)
        inside = inside and not line.endswith("# END SOLUTION")
    assert "    raise NotImplementedError()" in kept and kept[-1] == "after = 1"
    assert "    return x + 1" not in kept


# --- Copies for readers -------------------------------------------------------------


def test_notebooks_are_copied_once(tmp_path):
    copied, kept = copy_notebooks(tmp_path)
    assert {"00_base_model.ipynb", "04_ppo.ipynb"} <= {path.name for path in copied}
    assert (tmp_path / "exercises/04_ppo.ipynb").exists() and not kept
    (tmp_path / "04_ppo.ipynb").write_text("my work")
    (tmp_path / "00_base_model.ipynb").unlink()
    copied, kept = copy_notebooks(tmp_path)
    assert [path.name for path in copied] == ["00_base_model.ipynb"]
    assert (tmp_path / "04_ppo.ipynb").read_text() == "my work"
    assert tmp_path / "04_ppo.ipynb" in kept


def test_a_package_without_notebooks_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("alignlab.__file__", str(tmp_path / "a/alignlab/__init__.py"))
    with pytest.raises(AlignlabError, match="came without notebooks"):
        shipped_notebooks()
