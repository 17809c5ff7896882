"""A run says what it was made by: commit, weights, libraries, machine."""

import shutil
import subprocess

import pytest

import alignlab
from alignlab.runs import origin as module
from alignlab.runs.origin import library_versions, origin, weight_hashes


@pytest.fixture
def weights(tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    for name in ("1m", "tokenizer"):
        (folder / name).mkdir(parents=True)
    (folder / "1m/model.safetensors").write_bytes(b"numbers")
    (folder / "1m/README.md").write_text("a model card")
    (folder / "tokenizer/chat_template.jinja").write_text("{{ x }}<|end|>")
    monkeypatch.setattr(module, "WEIGHTS", folder)
    return folder


@pytest.mark.parametrize(
    "file, changes",
    [
        ("1m/model.safetensors", {"1m"}),
        ("1m/config.json", {"1m"}),
        ("1m/README.md", set()),
        ("tokenizer/chat_template.jinja", {"tokenizer"}),
        ("tokenizer/tokenizer.json", {"tokenizer"}),
    ],
)
def test_each_folder_of_weights_has_a_hash_of_all_that_counts(weights, file, changes):
    before = weight_hashes()
    (weights / file).write_text("something else")
    after = weight_hashes()
    assert {name for name in after if after[name] != before[name]} == changes


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_commit_and_changes_are_those_of_the_checkout(tmp_path, monkeypatch, weights):
    package = tmp_path / "checkout/alignlab"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(alignlab, "__file__", str(package / "__init__.py"))
    assert (origin()["commit"], origin()["dirty"]) == (None, None)
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", package.parent, *command], check=True)
    made = origin()
    assert len(made["commit"]) == 40 and made["dirty"] is False
    (package / "__init__.py").write_text("changed = True")
    assert origin()["dirty"] is True and origin()["commit"] == made["commit"]


def test_versions_and_machine_are_named():
    versions = library_versions()
    assert {"python", "alignlab", "torch", "tokenizers", "peft"} <= versions.keys()
    assert "cores" in origin()["platform"]
