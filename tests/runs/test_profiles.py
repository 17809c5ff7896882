"""Every profile sets every dial, and what a profile promises is so."""

import pytest

from alignlab.errors import AlignlabError
from alignlab.runs import profiles
from alignlab.runs.profiles import (
    budget_seconds,
    load_profiles,
    notebook_dials,
    timeout_seconds,
)

PROFILES = ("smoke", "cpu", "full", "gpu")
NOTEBOOKS = sorted(load_profiles()["notebooks"])


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("number", NOTEBOOKS)
def test_every_notebook_has_its_dials_and_budget_in_every_profile(number, profile):
    dials = notebook_dials(number, profile)
    assert dials["seeds"] >= {"smoke": 1, "cpu": 3, "full": 5, "gpu": 1}[profile]
    assert not any(isinstance(value, dict) for value in dials.values())
    assert 0 < budget_seconds(number, profile) <= timeout_seconds(profile)


def test_there_are_the_four_profiles():
    assert tuple(load_profiles()["profiles"]) == PROFILES


@pytest.fixture
def written(tmp_path, monkeypatch):
    file = tmp_path / "profiles.yaml"
    file.write_text(
        "reference_gflops: 60\n"
        "profiles: {smoke: {timeout: 5}, cpu: {timeout: 9}}\n"
        "defaults: {seeds: {smoke: 1, cpu: 3}, shots: 4}\n"
        "notebooks:\n"
        '  "00":\n'
        "    budget: {cpu: 7}\n"
        "    dials: {steps: {smoke: 2, cpu: 20}, seeds: 2, name: abc}\n"
    )
    monkeypatch.setattr(profiles, "PROFILES_FILE", file)


def test_a_notebooks_dials_come_before_the_defaults(written):
    expected = {"seeds": 2, "shots": 4, "steps": 20, "name": "abc"}
    assert notebook_dials("00", "cpu") == expected
    assert notebook_dials("00", "smoke")["steps"] == 2
    assert notebook_dials("01", "cpu") == {"seeds": 3, "shots": 4}
    assert (budget_seconds("00", "cpu"), budget_seconds("00", "smoke")) == (7, None)
    assert budget_seconds("01", "cpu") is None
    assert timeout_seconds("cpu") == 9.0


def test_overrides_are_checked(written):
    assert notebook_dials("00", "cpu", steps=5, name="x")["steps"] == 5
    for overrides, said in [
        ({"stps": 1}, "notebook 00 has no dial 'stps'. Did you mean 'steps'"),
        ({"steps": "many"}, "'steps' is a number; got 'many'"),
        ({"steps": True}, "'steps' is a number; got True"),
    ]:
        with pytest.raises(AlignlabError, match=said):
            notebook_dials("00", "cpu", **overrides)
    with pytest.raises(AlignlabError, match="no profile 'full'. Known: smoke, cpu"):
        notebook_dials("00", "full")
