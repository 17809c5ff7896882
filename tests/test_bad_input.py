"""What people get wrong about models, data and machines, through the public calls: each
time one AlignlabError in one line that names it, and what to do."""

import json

import httpx
import pytest
import torch

from alignlab import data
from alignlab.errors import AlignlabError
from alignlab.models import base, named
from alignlab.models.base import load_base, load_model, use_device
from alignlab.models.reward import load_reward_model
from alignlab.models.sampler import complete
from alignlab.ppo import PPOConfig, PPOTrainer
from alignlab.training.dpo import train_dpo
from alignlab.training.sft import finetune

ROWS = [{"prompt": "What is gold?", "completion": "A metal."}] * 4
PAIRS = [{"prompt": "What is gold?", "chosen": "A metal.", "rejected": "No."}] * 4
ONE_STEP = dict(steps=1, learning_rate=1e-3, progress=False)


def told(call, *arguments, **options):
    """The message and the remedy of the error, which is one line."""
    with pytest.raises(AlignlabError) as error:
        call(*arguments, **options)
    assert error.value.remedy, "no remedy"
    assert len(str(error.value).splitlines()) == 1
    return error.value.message, error.value.remedy


# --- Models -----------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    """A function that makes the Hub answer each request by raising this."""
    import huggingface_hub

    def answers(error):
        def fails(*arguments, **options):
            raise error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
        monkeypatch.setattr(named, "_from_the_hub", named._from_the_hub.__wrapped__)

    return answers


LOADERS = [load_base, load_model, load_reward_model]


@pytest.mark.parametrize("load", LOADERS)
def test_a_model_that_does_not_exist(hub, load):
    from huggingface_hub.errors import RepositoryNotFoundError

    request = httpx.Request("GET", "https://huggingface.co/nobody/nothing")
    hub(RepositoryNotFoundError("404", response=httpx.Response(404, request=request)))
    message, remedy = told(load, "nobody/nothing")
    assert "'nobody/nothing' is neither a folder nor on the Hub" in message
    assert "spelling (owner/name)" in remedy and "hf auth login" in remedy


def test_a_name_that_is_nearly_one_of_ours(hub):
    from huggingface_hub.errors import RepositoryNotFoundError

    request = httpx.Request("GET", "https://huggingface.co/smolm2")
    hub(RepositoryNotFoundError("404", response=httpx.Response(404, request=request)))
    assert "Did you mean 'smollm2'?" in told(load_base, "smolm2")[1]


@pytest.mark.parametrize("load", LOADERS)
def test_no_network(hub, load):
    hub(ConnectionError("[Errno -2] Name or service not known"))
    message, remedy = told(load, "nobody/nothing")
    assert "the Hub cannot be reached: [Errno -2] Name or service" in message
    assert "Check the network" in remedy and "smollm2" in remedy


def config_without_weights(folder):
    folder.mkdir()
    config = dict(model_type="llama", hidden_size=8, num_attention_heads=2)
    config |= dict(num_hidden_layers=1, intermediate_size=8, vocab_size=10)
    (folder / "config.json").write_text(json.dumps(config))


def broken_weights(folder):
    config_without_weights(folder)
    (folder / "model.safetensors").write_bytes(b"no tensors")


NO_MODELS = {
    "a text": (lambda path: path.write_text("hello"), "is a file that is no model"),
    "GGUF in name": (lambda path: path.write_text("no"), "cannot read the GGUF file"),
    "nothing": (lambda path: None, "there is no such folder"),
    "an empty folder": (lambda path: path.mkdir(), "it has no config.json"),
    "no weights": (config_without_weights, "no file named model.safetensors"),
    "broken weights": (broken_weights, "cannot be loaded"),
}


@pytest.mark.parametrize("kind", NO_MODELS)
@pytest.mark.parametrize("load", LOADERS)
def test_files_and_folders_that_are_no_model(tmp_path, monkeypatch, load, kind):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    make, said = NO_MODELS[kind]
    if load is load_reward_model and "weights" in kind:
        said = "is no reward model: it has 2 labels"  # as its config is read first
    path = tmp_path / ("model.gguf" if kind == "GGUF in name" else "model")
    make(path)
    assert said in told(load, path)[0]


def test_another_kind_of_model(tmp_path, tiny_model, tiny_tokenizer):
    tiny_model.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    assert "is no reward model" in told(load_reward_model, tmp_path)[0]


def test_models_that_a_trainer_is_to_load(hub, tiny_model, tiny_tokenizer, tmp_path):
    hub(ConnectionError("no network"))
    for wrong in ("nobody/nothing", str(tmp_path / "nowhere")):
        said = told(ppo, wrong, tiny_tokenizer, tmp_path)[0]
        said += told(ppo, tiny_model, tiny_tokenizer, tmp_path, reward=wrong)[0]
        assert said.count(f"The model {wrong!r}") == 2


def test_a_model_without_a_tokenizer(tmp_path, tiny_model):
    tiny_model.save_pretrained(tmp_path)
    message, remedy = told(load_base, tmp_path)
    assert str(tmp_path) in message and "with its tokenizer" in remedy


# --- Tokenizers -------------------------------------------------------------------


@pytest.fixture
def bare_tokenizer(tiny_tokenizer):
    """A function that gives a tokenizer without something."""
    import copy

    def without(*names):
        tokenizer = copy.deepcopy(tiny_tokenizer)
        for name in names:
            setattr(tokenizer, name, None)
        return tokenizer

    return without


def steps(model, tokenizer, rows=ROWS):
    return finetune(model, tokenizer, rows, steps=1, learning_rate=1e-3, progress=False)


def nothing(completions, **columns):
    return [0.0 for _ in completions]


def ppo(model, tokenizer, folder, rows=None, reward=nothing):
    args = PPOConfig(str(folder), use_cpu=True, report_to="none")
    prompts = [{"prompt": "What is gold?"}] * 4 if rows is None else rows
    return PPOTrainer(model, reward, args, prompts, processing_class=tokenizer)


def test_a_tokenizer_without_padding_and_end(tiny_model, bare_tokenizer, tmp_path):
    tokenizer = bare_tokenizer("pad_token", "eos_token")
    for train in (steps, lambda *both: ppo(*both, tmp_path)):
        message, remedy = told(train, tiny_model, tokenizer)
        assert "EOS token" in message and "Set tokenizer.eos_token" in remedy
    tiny_model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    message, remedy = told(load_base, tmp_path)
    assert str(tmp_path) in message and "no EOS token" in message


def test_padding_and_a_template_are_given_where_they_are_missing(
    tiny_model, bare_tokenizer, tmp_path
):
    tiny_model.save_pretrained(tmp_path)
    bare_tokenizer("pad_token", "chat_template").save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="has no chat template; it is given a plain"):
        model, tokenizer = load_base(tmp_path)
    assert tokenizer.pad_token == tokenizer.eos_token
    assert steps(model, tokenizer)[0]["loss"] > 0


MESSAGES = [{"role": "user", "content": "What is gold?"}]
REPLY = [{"role": "assistant", "content": "A metal."}]


def test_messages_without_a_chat_template(tiny_model, bare_tokenizer, tmp_path):
    tokenizer = bare_tokenizer("chat_template")
    rows = [{"messages": [*MESSAGES, *REPLY]}]
    message, remedy = told(steps, tiny_model, tokenizer, rows)
    assert "chat template" in message and "chat_template" in remedy
    rows = [{"prompt": MESSAGES}] * 4
    message, remedy = told(ppo, tiny_model, tokenizer, tmp_path, rows)
    assert "chat template" in message and "chat_template" in remedy


# --- Data -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([{"a": "x", "b": "y"}], ("columns a, b", "columns={theirs: ours}")),
        ([{"chosen": "x", "b": "y"}], ("no rejected", '"rejected"')),
        ([], ("no rows", "Pass some")),
    ],
)
def test_data_without_the_columns(rows, named):
    assert all(map(str.__contains__, told(data.load, rows), named))


def test_trainers_name_the_column_that_is_missing(tiny_model, tiny_tokenizer, tmp_path):
    rows = [{"question": "What is gold?", "answer": "A metal."}]
    both = tiny_model, tiny_tokenizer
    for message, remedy in (
        told(steps, *both, rows),
        told(train_dpo, *both, rows, **ONE_STEP),
        told(ppo, *both, tmp_path, rows),
    ):
        assert "question" in message + remedy, "which columns there are"
        assert any(name in message + remedy for name in ("prompt", "completion"))


def test_data_of_the_hub_without_the_hub(monkeypatch):
    import datasets

    def fails(where, **options):
        raise ConnectionError(f"Couldn't reach '{where}' on the Hub (ConnectError)\n")

    monkeypatch.setattr(datasets, "load_dataset", fails)
    monkeypatch.delenv("ALIGNLAB_HUB_MIRROR", raising=False)
    for source in ("nobody/nothing", "Bertievidgen/SimpleSafetyTests"):
        message, remedy = told(data.load, source)
        assert source in message and "Couldn't reach" in message
        assert "each the Hub" in remedy


# --- Machines ---------------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_where_there_is_none(monkeypatch):
    monkeypatch.setattr(base, "_device", "cpu")
    message, remedy = told(use_device, "cuda")
    assert "device is 'cuda', and torch cannot use it" in message
    assert "device='cpu'" in remedy and "build of torch" in remedy
    assert base.device_in_use() == "cpu", "it stays as it was"


class OutOfMemory(torch.nn.Module):
    """A layer for which the memory does not suffice."""

    def forward(self, *arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")


def test_out_of_memory(tiny_model, tiny_tokenizer, tmp_path):
    trainer = ppo(tiny_model, tiny_tokenizer, tmp_path)
    tiny_model.model.layers[0].mlp = OutOfMemory()
    for message, remedy in (
        told(steps, tiny_model, tiny_tokenizer),
        told(complete, tiny_model, tiny_tokenizer, ["What is gold?"]),
        told(train_dpo, tiny_model, tiny_tokenizer, PAIRS, **ONE_STEP),
        told(trainer.train),
    ):
        assert "memory has run out" in message and "9 GiB" in message
        assert remedy.startswith(("Cut each batch", "Lower", "Leave out", "Take a"))
