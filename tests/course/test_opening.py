"""Badges and set-up stand behind the title, do nothing outside Colab, and leave the
recorded outputs where they are."""

import sys
import types

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import alignlab
from alignlab.course import colab
from alignlab.course.build import build_all, check_all, read_source
from alignlab.course.opening import (
    is_generated,
    read_repository,
    set_repository,
    set_up_cell,
    with_opening,
)
from alignlab.errors import AlignlabError
from alignlab.runs.notebooks import cell_parameters

HOME = "https://github.com/ann/lab"
SOURCE = """\
# %% [markdown]
# # A title

# %% tags=["parameters"]
profile = "cpu"
seed = 0
device = "cpu"
out_dir = ""

# %%
print(profile)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "notebooks/source").mkdir(parents=True)
    (tmp_path / "notebooks/source/04_ppo.py").write_text(SOURCE)
    return tmp_path / "notebooks"


def built(folder, name="04_ppo.ipynb"):
    return nbformat.read(folder / name, as_version=4)


def run_cell(source, monkeypatch, installed=True, in_colab=True):
    """What a set-up cell asks the shell for and passes to set_up."""
    asked, prepared = [], []
    if in_colab:
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("colab"))
    else:
        monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    version = alignlab.__version__ if installed else "0.0.1"
    distribution = types.SimpleNamespace(version=version)
    monkeypatch.setattr("importlib.metadata.distributions", lambda name: [distribution])
    monkeypatch.setattr(colab, "set_up", lambda *given: prepared.append(given))
    shell = types.SimpleNamespace(system=asked.append)
    exec(source, {"get_ipython": lambda: shell})
    return asked, prepared


# --- In a built notebook ------------------------------------------------------------


def test_the_set_up_stands_between_title_and_parameters(folder):
    build_all(folder)
    for name in ("04_ppo.ipynb", "exercises/04_ppo.ipynb"):
        title, set_up, parameters, _ = built(folder, name).cells
        assert title.source == "# A title"
        assert is_generated(set_up) and set_up.metadata.cellView == "form"
        assert parameters.metadata.tags == ["parameters"]
        nbformat.validate(built(folder, name))
    names = cell_parameters(folder / "04_ppo.ipynb")
    assert list(names) == ["profile", "seed", "device", "out_dir"]
    assert check_all(folder) == []


def test_the_sources_hold_no_set_up(folder):
    cells = read_source(folder / "source/04_ppo.py").cells
    assert not any(map(is_generated, cells))


def test_badges_open_the_notebook_that_they_stand_in(folder):
    build_all(folder)
    assert not any("badge" in cell.source for cell in built(folder).cells)
    set_repository(folder / "source", HOME + ".git")
    build_all(folder)
    badges = built(folder, "exercises/04_ppo.ipynb").cells[1].source
    opened = "ann/lab/blob/main/notebooks/exercises/04_ppo.ipynb"
    assert f"https://colab.research.google.com/github/{opened}" in badges
    assert "urlpath=lab/tree/notebooks/exercises/04_ppo.ipynb" in badges
    assert check_all(folder) == []


def test_a_notebook_of_another_repository_has_drifted(folder):
    build_all(folder)
    set_repository(folder / "source", HOME)
    assert len(check_all(folder)) == 2


def test_outputs_of_a_run_older_than_the_set_up_stay(folder):
    build_all(folder)
    notebook = built(folder)
    notebook.cells = [cell for cell in notebook.cells if not is_generated(cell)]
    for count, cell in enumerate(notebook.cells[1:], start=1):
        cell.execution_count = count
    notebook.cells[2].outputs = [nbformat.v4.new_output("stream", text="cpu\n")]
    nbformat.write(notebook, folder / "04_ppo.ipynb")
    set_repository(folder / "source", HOME)
    build_all(folder)
    title, badges, set_up, parameters, last = built(folder).cells
    assert set_up.execution_count is None and not set_up.outputs
    assert parameters.execution_count == 1 and last.outputs[0].text == "cpu\n"


def test_a_notebook_without_a_title_begins_with_the_set_up():
    notebook = new_notebook(cells=[new_code_cell("1")])
    assert is_generated(with_opening(notebook, "notebooks/00_x.ipynb", "").cells[0])
    notebook = new_notebook(cells=[new_markdown_cell("# T"), new_code_cell("1")])
    assert is_generated(with_opening(notebook, "notebooks/00_x.ipynb", "").cells[1])


@pytest.mark.parametrize(
    "url", ["", "ann/lab", "https://gitlab.com/ann/lab", HOME + "/x"]
)
def test_what_colab_cannot_open_is_refused(folder, url):
    with pytest.raises(AlignlabError, match="not the address of a GitHub repository"):
        set_repository(folder / "source", url)
    assert read_repository(folder / "source") == ""


# --- What the cell does -------------------------------------------------------------


@pytest.mark.parametrize("repository", ["", HOME])
def test_outside_colab_the_cell_does_nothing(monkeypatch, repository):
    source = set_up_cell("notebooks/04_ppo.ipynb", repository).source
    assert run_cell(source, monkeypatch, in_colab=False) == ([], [])


def test_on_colab_it_installs_once(monkeypatch):
    source = set_up_cell("notebooks/04_ppo.ipynb", HOME).source
    asked, prepared = run_cell(source, monkeypatch, installed=False)
    assert asked == [f"pip install -q {HOME}/archive/HEAD.zip"]
    assert prepared == [(alignlab.__version__, "")]
    assert run_cell(source, monkeypatch) == ([], [(alignlab.__version__, "")])


def test_without_a_repository_it_says_what_to_fill_in(monkeypatch):
    source = set_up_cell("notebooks/04_ppo.ipynb", "").source
    with pytest.raises(AssertionError, match="fill in `repository`"):
        run_cell(source, monkeypatch, installed=False)
    filled = source.replace('repository = ""', f'repository = "{HOME}"')
    assert run_cell(filled, monkeypatch, installed=False)[0]


def test_the_cell_is_short():
    source = set_up_cell("notebooks/04_ppo.ipynb", "").source
    assert max(map(len, source.splitlines())) <= 88
    shown = [line for line in source.splitlines() if "@param" in line]
    assert len(shown) <= 2


# --- What it calls ------------------------------------------------------------------


@pytest.fixture
def pulled(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr("alignlab.data.sources.pull", lambda: calls.append("pull"))
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    return calls


def test_set_up_fetches_the_data(pulled, capsys):
    colab.set_up(alignlab.__version__)
    assert pulled == ["pull"] and "is ready" in capsys.readouterr().out


def test_another_release_is_named_with_a_remedy(pulled):
    with pytest.raises(AlignlabError, match="of alignlab 9.9; .*Open the notebook"):
        colab.set_up("9.9")
    assert pulled == []


def test_a_folder_of_the_drive_keeps_what_is_trained(pulled, monkeypatch, capsys):
    mounted = []
    package = types.ModuleType("google.colab")
    package.drive = types.SimpleNamespace(mount=mounted.append)
    monkeypatch.setitem(sys.modules, "google.colab", package)
    colab.set_up(alignlab.__version__, "lab")
    assert mounted == ["/content/drive"]
    assert "/content/drive/MyDrive/lab" in capsys.readouterr().out
