"""Every profile sets every setting, and what a profile promises is so."""

from pathlib import Path

import pytest

from alignlab.errors import AlignlabError
from alignlab.runs import profiles
from alignlab.runs.profiles import (
    budget_seconds,
    chapter_folders,
    load_profiles,
    notebook_settings,
    timeout_seconds,
)

PROFILES = ("smoke", "cpu", "full", "gpu")
NOTEBOOKS = sorted(load_profiles()["notebooks"])


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("number", NOTEBOOKS)
def test_every_notebook_has_its_settings_and_budget_in_every_profile(number, profile):
    settings = notebook_settings(number, profile)
    assert settings["seeds"] >= {"smoke": 1, "cpu": 3, "full": 5, "gpu": 1}[profile]
    assert not any(isinstance(value, dict) for value in settings.values())
    assert 0 < budget_seconds(number, profile) <= timeout_seconds(profile)


def test_there_are_the_four_profiles():
    assert tuple(load_profiles()["profiles"]) == PROFILES


@pytest.fixture
def written(tmp_path, monkeypatch):
    file = tmp_path / "profiles.yaml"
    (tmp_path / "chapters" / "first").mkdir(parents=True)
    own = tmp_path / "chapters" / "first" / "profiles.yaml"
    own.write_text(
        'notebook: "00"\n'
        "budget: {cpu: 7}\n"
        "settings: {steps: {smoke: 2, cpu: 20}, seeds: 2, name: abc}\n"
    )
    file.write_text(
        "reference_gflops: 60\n"
        "profiles: {smoke: {timeout: 5}, cpu: {timeout: 9}}\n"
        "defaults: {seeds: {smoke: 1, cpu: 3}, shots: 4}\n"
    )
    monkeypatch.setattr(profiles, "PROFILES_FILE", file)
    monkeypatch.setattr(profiles, "CHAPTERS", tmp_path / "chapters")


def test_a_notebooks_settings_come_before_the_defaults(written):
    expected = {"seeds": 2, "shots": 4, "steps": 20, "name": "abc"}
    assert notebook_settings("00", "cpu") == expected
    assert notebook_settings("00", "smoke")["steps"] == 2
    assert notebook_settings("01", "cpu") == {"seeds": 3, "shots": 4}
    assert (budget_seconds("00", "cpu"), budget_seconds("00", "smoke")) == (7, None)
    assert budget_seconds("01", "cpu") is None
    assert timeout_seconds("cpu") == 9.0


def test_a_setting_may_leave_profiles_to_the_default(written, tmp_path):
    own = tmp_path / "chapters" / "first" / "profiles.yaml"
    own.write_text('notebook: "00"\nsettings: {seeds: {cpu: 7}, steps: {cpu: 20}}\n')
    assert notebook_settings("00", "cpu")["seeds"] == 7
    own.write_text('notebook: "00"\nsettings: {seeds: {cpu: 7}}\n')
    assert notebook_settings("00", "smoke")["seeds"] == 1


@pytest.mark.parametrize("profile", PROFILES)
def test_every_notebook_has_a_model(profile):
    for number in NOTEBOOKS:
        assert isinstance(notebook_settings(number, profile)["model"], str)


def test_overrides_are_checked(written):
    assert notebook_settings("00", "cpu", steps=5, name="x")["steps"] == 5
    for overrides, said in [
        ({"stps": 1}, "Notebook 00 has no setting 'stps'. Did you mean 'steps'"),
        ({"steps": "many"}, "'steps' is a number; got 'many'"),
        ({"steps": True}, "'steps' is a number; got True"),
    ]:
        with pytest.raises(AlignlabError, match=said):
            notebook_settings("00", "cpu", **overrides)
    with pytest.raises(AlignlabError, match="no profile 'full'. Known: smoke, cpu"):
        notebook_settings("00", "full")


def test_a_chapter_has_a_number_of_its_own(written, tmp_path):
    assert list(chapter_folders()) == ["00"]
    (tmp_path / "chapters" / "second").mkdir()
    (tmp_path / "chapters" / "second" / "profiles.yaml").write_text('notebook: "00"')
    with pytest.raises(ValueError, match="two chapters have the number 00"):
        load_profiles()


def test_every_chapter_has_the_number_of_its_notebook():
    sources = Path(__file__).parents[2] / "notebooks" / "source"
    numbers = {path.stem[3:]: path.stem[:2] for path in sources.glob("*.py")}
    assert {f.name: number for number, f in chapter_folders().items()} == numbers
