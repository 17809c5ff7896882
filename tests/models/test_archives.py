"""A GGUF file becomes a plain folder that loads, saves and answers, once."""

import pytest
import torch

from alignlab.errors import AlignlabError
from alignlab.models import archives
from alignlab.models.base import load_base, save_model


def test_a_build_is_made_once_and_a_killed_one_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    built = []

    def build(folder):
        built.append(folder)
        (folder / "config.json").write_text("{}")
        if len(built) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        archives._once("it", build)
    assert not (tmp_path / "models" / "it").exists()
    folder = archives._once("it", build)
    assert archives._once("it", build) == folder and len(built) == 2
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_a_file_that_is_no_gguf_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("gguf")
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "bad.gguf"
    file.write_bytes(b"GGUF but not really")
    with pytest.raises(AlignlabError, match="cannot read the GGUF file"):
        archives.gguf_folder(file)
    assert not list((tmp_path / "cache" / "models").glob("gguf-*"))


def test_without_the_reader_the_package_is_named(tmp_path, monkeypatch):
    import transformers

    def from_pretrained(*_, **__):
        raise ImportError("no gguf")

    auto = transformers.AutoModelForCausalLM
    monkeypatch.setattr(auto, "from_pretrained", from_pretrained)
    (tmp_path / "model.gguf").write_bytes(b"")
    with pytest.raises(AlignlabError, match="pip install gguf"):
        archives._convert(tmp_path, "model.gguf")


@pytest.mark.network
@pytest.mark.slow
def test_smollm2_loads_saves_and_knows_a_capital(tmp_path):
    pytest.importorskip("gguf")
    from alignlab.models.sampler import complete

    model, tokenizer = load_base("smollm2")
    assert model.num_parameters() == 134_515_008
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    [reply] = complete(model, tokenizer, ["What is the capital of France?"], 12)
    assert reply.text == "The capital of France is Paris." and reply.ended
    save_model(model, tokenizer, tmp_path / "again")
    again, _ = load_base(tmp_path / "again")
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(again(ids).logits, model(ids).logits)
