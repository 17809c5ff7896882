"""Notebooks are what their sources say, exercises hold no answers, drift is named."""

import json

import nbformat
import pytest

from alignlab.course.build import (
    build_all,
    check_all,
    lint,
    read_source,
    student_version,
    with_outputs,
    without_paths,
    without_solutions,
)
from alignlab.course.opening import is_generated
from alignlab.errors import AlignlabError

SOURCE = '''\
# ---
# jupyter:
#   kernelspec:
#     display_name: Other
#     name: other
# ---
# %% [markdown]
# # A title
#
# Text.

# %% tags=["parameters"]
profile = "cpu"
seed = 0
device = "cpu"
out_dir = ""

# %%
print("the same")

# %%
print("the same")

# %% grade_id="nb03-q2"
def double(x):
    """Twice x."""
    ### BEGIN SOLUTION
    y = x
    return y + x
    ### END SOLUTION


# %% grade_id="nb03-check2" points=2
assert double(2) == 4

# %%
### BEGIN SOLUTION
answer = 42
### END SOLUTION
after = 1
'''


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "notebooks/source").mkdir(parents=True)
    (tmp_path / "notebooks/source/03_reward.py").write_text(SOURCE)
    return tmp_path / "notebooks"


def rewrite(folder, old, new):
    source = folder / "source/03_reward.py"
    assert old in source.read_text()
    source.write_text(source.read_text().replace(old, new))


def complete(folder):
    return from_source(folder / "03_reward.ipynb")


def exercise(folder):
    return from_source(folder / "exercises/03_reward.ipynb")


def from_source(path):
    """A built notebook without the cells that tests/course/test_opening.py is about."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if not is_generated(cell)]
    return notebook


def test_both_notebooks_are_built_and_valid(folder):
    assert [path.name for path in build_all(folder)] == ["03_reward.ipynb"] * 2
    for notebook in (complete(folder), exercise(folder)):
        nbformat.validate(notebook)
        assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
        assert notebook.metadata.kernelspec.name == "python3"
        assert notebook.cells[0].source == "# A title\n\nText."
        assert notebook.cells[1].metadata.tags == ["parameters"]
        assert all(not cell.get("outputs") for cell in notebook.cells)
    assert check_all(folder) == []


def test_the_exercise_holds_no_answer_and_says_so_when_run(folder):
    build_all(folder)
    text = json.dumps(exercise(folder))
    assert "y + x" not in text and "42" not in text and "SOLUTION" not in text
    function = exercise(folder).cells[4].source
    assert function == (
        'def double(x):\n    """Twice x."""\n'
        "    # YOUR CODE HERE\n    raise NotImplementedError()"
    )
    names = {}
    exec(function, names)
    with pytest.raises(NotImplementedError):
        names["double"](1)
    # What lies outside the markers stays, and the complete one holds everything.
    assert exercise(folder).cells[6].source.endswith("after = 1")
    exec(complete(folder).cells[4].source, names)
    assert names["double"](2) == 4


def test_stubs_are_those_of_nbgrader(folder):
    preprocessors = pytest.importorskip("nbgrader.preprocessors")
    notebook = read_source(folder / "source/03_reward.py")
    theirs, _ = preprocessors.ClearSolutions().preprocess(
        nbformat.from_dict(notebook), {"nbgrader": {"student": ""}}
    )
    ours = student_version(read_source(folder / "source/03_reward.py"))
    assert [cell.source for cell in ours.cells] == [
        cell.source for cell in theirs.cells
    ]


def test_nbgrader_accepts_the_metadata(folder):
    validator = pytest.importorskip("nbgrader.nbgraderformat").MetadataValidator()
    build_all(folder)
    validator.validate_nb(exercise(folder))
    marked = [cell.metadata.get("nbgrader") for cell in exercise(folder).cells]
    assert [item and item["grade_id"] for item in marked] == [
        None, None, None, None, "nb03-q2", "nb03-check2", "nb03-s3"
    ]  # fmt: skip
    question, graded = marked[4], marked[5]
    assert question == {
        "grade": False, "grade_id": "nb03-q2", "locked": False, "schema_version": 3,
        "solution": True, "task": False,
    }  # fmt: skip
    assert graded["grade"] and graded["points"] == 2 and graded["locked"]
    assert not graded["solution"]


def test_metadata_given_in_full_is_kept(folder):
    given = '{"grade": true, "grade_id": "nb03-own", "locked": false, "points": 3}'
    rewrite(folder, 'grade_id="nb03-q2"', f"nbgrader={given}")
    cell = read_source(folder / "source/03_reward.py").cells[4]
    assert cell.metadata == {
        "nbgrader": {
            "grade": True, "grade_id": "nb03-own", "locked": False, "points": 3,
            "schema_version": 3, "solution": True, "task": False,
        }
    }  # fmt: skip


TASK = (
    '{"grade": false, "grade_id": "nb03-q4", "locked": true, "points": 3, '
    '"schema_version": 3, "solution": false, "task": true}'
)
QUESTION = f"""# %% [markdown] nbgrader={TASK}
# Why?
#
# <!-- === BEGIN MARK SCHEME === -->
# One point for a reason.
# <!-- === END MARK SCHEME === -->
#
# Answer below.

"""


def test_rubrics_are_shown_with_the_solutions_only(folder):
    rewrite(folder, "# %%\n### BEGIN", QUESTION + "# %%\n### BEGIN")
    build_all(folder)
    assert "One point for a reason" in complete(folder).cells[6].source
    question = exercise(folder).cells[6]
    assert question.source == "Why?\n\n\nAnswer below."
    assert question.metadata.nbgrader.task and question.metadata.nbgrader.points == 3


def test_rubrics_are_cleared_as_nbgrader_does(folder):
    nbgrader = pytest.importorskip("nbgrader.preprocessors")
    pytest.importorskip("nbgrader.nbgraderformat")
    rewrite(folder, "# %%\n### BEGIN", QUESTION + "# %%\n### BEGIN")
    notebook = read_source(folder / "source/03_reward.py")
    theirs, _ = nbgrader.ClearMarkScheme().preprocess(
        nbformat.from_dict(notebook), {"nbgrader": {"student": ""}}
    )
    ours = student_version(read_source(folder / "source/03_reward.py"))
    assert ours.cells[6].source == theirs.cells[6].source.rstrip()


def test_ids_are_stable_and_unique(folder):
    before = [cell.id for cell in read_source(folder / "source/03_reward.py").cells]
    assert len(set(before)) == len(before)
    rewrite(folder, "# # A title", "# New.\n\n# %% [markdown]\n# # B")
    after = [cell.id for cell in read_source(folder / "source/03_reward.py").cells]
    assert after[2:] == before[1:]


def test_building_twice_changes_nothing(folder):
    build_all(folder)
    first = (folder / "03_reward.ipynb").read_bytes()
    build_all(folder)
    assert (folder / "03_reward.ipynb").read_bytes() == first


@pytest.mark.parametrize(
    "place, named",
    [
        ("03_reward.ipynb", "notebooks/03_reward.ipynb"),
        ("exercises/03_reward.ipynb", "notebooks/exercises/03_reward.ipynb"),
    ],
)
def test_drift_is_named(folder, place, named):
    build_all(folder)
    file = folder / place
    built = file.read_text()
    notebook = nbformat.reads(built, as_version=4)
    notebook.cells[3].source += "  # edited by hand"
    nbformat.write(notebook, file)
    (problem,) = check_all(folder)
    assert problem.startswith(f"{named}: cell 4 ('print(\"the same\")' in the source)")
    notebook = nbformat.reads(built, as_version=4)
    del notebook.cells[-1]
    nbformat.write(notebook, file)
    assert check_all(folder) == [
        f"{named}: it has 7 cells, its source 8; run `alignlab build`"
    ]
    notebook = nbformat.reads(built, as_version=4)
    notebook.cells[5].metadata.nbgrader.grade_id = "other"
    nbformat.write(notebook, file)
    assert "cell 6" in check_all(folder)[0]
    file.unlink()
    assert check_all(folder) == [f"{named}: it is missing; run `alignlab build`"]


def test_a_changed_source_is_drift_in_both(folder):
    build_all(folder)
    rewrite(folder, "Twice x", "Two times x")
    assert [problem.split(":")[0] for problem in check_all(folder)] == [
        "notebooks/03_reward.ipynb", "notebooks/exercises/03_reward.ipynb"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "old, new, said",
    [
        ('tags=["parameters"]', "", "0 cells are tagged parameters"),
        ("seed = 0\n", "", "the parameters cell does not set seed"),
        ('device = "cpu"\nout_dir = ""', "x = 1", "does not set device, out_dir"),
        ("answer = 42", f"answer = {'4' * 80}", "a line has 89 columns, 88 fit"),
    ],
)
def test_lint_names_what_every_notebook_must_have(folder, old, new, said):
    assert list(lint(read_source(folder / "source/03_reward.py"))) == []
    rewrite(folder, old, new)
    (fault,) = lint(read_source(folder / "source/03_reward.py"))
    assert said in fault
    build_all(folder)
    assert check_all(folder) == [f"03_reward.py: {fault}"]


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("    ### END SOLUTION\n\n\n", "\n", "do not pair up in the cell that begins"),
        ("### BEGIN SOLUTION\nanswer", "answer", "do not pair up"),
        ('grade_id="nb03-check2"', 'grade_id="nb03-q2"', "grade_id 'nb03-q2'"),
        ("# Text.", "# BEGIN MARK SCHEME", "has no beginning or no end"),
    ],
)
def test_a_source_that_cannot_be_built_is_named(folder, old, new, said):
    rewrite(folder, old, new)
    with pytest.raises(AlignlabError, match="03_reward.py.*" + said):
        build_all(folder)
    assert not (folder / "03_reward.ipynb").exists()


def test_several_solutions_in_a_cell_are_each_replaced():
    stub = "# YOUR CODE HERE\nraise NotImplementedError()"
    region = "### BEGIN SOLUTION\na = 1\n### END SOLUTION"
    assert without_solutions(f"{region}\nb\n{region}\n") == f"{stub}\nb\n{stub}"


# --- Outputs of a run ------------------------------------------------------------


@pytest.fixture
def run(folder, tmp_path):
    """The executed notebooks of a run, as papermill leaves them."""
    notebook = read_source(folder / "source/03_reward.py")
    injected = nbformat.v4.new_code_cell(
        'out_dir = "/home/ann/runs/x"', metadata={"tags": ["injected-parameters"]}
    )
    notebook.cells.insert(2, injected)
    notebook.metadata.papermill = {
        "output_path": "/home/ann/odd/run/03_reward.partial.ipynb",
        "input_path": "/home/ann/lab/notebooks/03_reward.ipynb",
    }
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, start=1):
        cell.execution_count = count
        cell.metadata.papermill = {"start_time": "2026-01-01"}
        cell.metadata.execution = {"iopub.status.busy": "2026-01-01"}
        cell.outputs = []
    text = "saved /home/ann/odd/run/03/metrics.json, read /home/ann/lab/data.csv\n"
    widget = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "0%"}
    code[2].outputs = [
        nbformat.v4.new_output("stream", text=text),
        nbformat.v4.new_output(
            "execute_result", {"text/plain": "3"}, execution_count=3
        ),
        nbformat.v4.new_output("display_data", widget),
    ]
    place = tmp_path / "run" / "03_reward.ipynb"
    place.parent.mkdir()
    nbformat.write(notebook, place)
    return {"03_reward": place}


def test_outputs_of_a_run_are_taken_over_clean(folder, run):
    build_all(folder, run)
    notebook = complete(folder)
    counts = [
        cell.execution_count for cell in notebook.cells if cell.cell_type == "code"
    ]
    assert counts == [1, 2, 3, 4, 5, 6]
    stream, result = notebook.cells[2].outputs
    assert stream.text == "saved runs/run/03/metrics.json, read data.csv\n"
    assert result.execution_count == 2 and result.data["text/plain"] == "3"
    raw = (folder / "03_reward.ipynb").read_text()
    for trace in ("papermill", "/home", "2026-01-01", "injected", "widget"):
        assert trace not in raw
    assert all(not cell.get("outputs") for cell in exercise(folder).cells)
    assert check_all(folder) == []


def test_outputs_stay_until_code_changes(folder, run):
    build_all(folder, run)
    rewrite(folder, "# Text.", "# Better text.")
    build_all(folder)
    assert complete(folder).cells[0].source.endswith("Better text.")
    assert len(complete(folder).cells[2].outputs) == 2
    rewrite(folder, "answer = 42", "answer = 43")
    build_all(folder)
    assert all(not cell.get("outputs") for cell in complete(folder).cells)


def test_a_run_of_other_sources_is_refused(folder, run):
    rewrite(folder, "answer = 42", "answer = 43")
    with pytest.raises(AlignlabError, match="other sources"):
        build_all(folder, run)


def test_a_run_without_a_notebook_leaves_its_outputs(folder, run):
    build_all(folder, run)
    build_all(folder, {})
    assert len(complete(folder).cells[2].outputs) == 2


def test_without_a_copy_there_are_no_outputs(folder):
    notebook = read_source(folder / "source/03_reward.py")
    assert with_outputs(notebook, None, required=False) == notebook


@pytest.mark.parametrize(
    "text, clean",
    [
        ("/tmp/ipykernel_12/345.py:3: Warning", "cell:3: Warning"),
        ("/a/b/lib/python3.11/site-packages/torch/x.py", "torch/x.py"),
        (".venv/lib/python3.11/site-packages/torch/x.py:3: W", "torch/x.py:3: W"),
        ("/home/ann/project/alignlab/data/x.py", "alignlab/data/x.py"),
        ("PosixPath('/home/ann/runs/full/00_x')", "PosixPath('runs/full/00_x')"),
        ("a/b and 1/2, runs/x", "a/b and 1/2, runs/x"),
        ("https://example.org/page", "https://example.org/page"),
    ],
)
def test_paths_lose_what_is_only_this_machines(text, clean):
    assert without_paths(text) == clean
