"""`alignlab train`: its help teaches, and every usual mistake is one clear message that
names the remedy, with status 2 and no traceback."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

import alignlab.train
from alignlab.models.base import base_path, load_model, save_model

ROOT = Path(alignlab.train.__file__).parents[1]
STAGES = ("sft", "reward", "dpo", "kto", "orpo", "ppo")


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """A function that runs a stage's recipe of recipes/1m with changes, and gives what
    it printed on stderr."""

    def run_train(stage, *changes):
        monkeypatch.chdir(ROOT)
        changes = [f"output_dir={tmp_path / 'out'}", "model=300k", *changes]
        sets = [word for change in changes for word in ("--set", change)]
        recipe = ["--config", f"recipes/1m/{stage}.yaml"]
        monkeypatch.setattr(sys, "argv", ["alignlab train", stage, *recipe, *sets])
        with pytest.raises(SystemExit) as ended:
            alignlab.train.main()
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert said.count("error: ") == 1 and "Traceback" not in said
        return said[said.index("error: ") :]

    return run_train


def test_help_teaches():
    for words in ([], *([stage] for stage in STAGES)):
        done = subprocess.run(
            [sys.executable, "-m", "alignlab.cli", "train", *words, "--help"],
            env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        wanted = "A recipe is one YAML file" if not words else f"recipes/1m/{words[0]}"
        assert wanted in done.stdout
        assert "--resume" in done.stdout or not words


def test_an_error_of_the_command_is_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "alignlab.cli", "train", "sft", "-c", "none.yaml"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: Cannot read the recipe none.yaml: No such")
    assert done.stderr.count("\n") == 1


def test_unknown_keys(run):
    assert "Did you mean 'model'" in run("sft", "modell=1m")
    assert "Did you mean 'learning_rate'" in run("sft", "args.learn_rate=1e-4")
    assert "Did you mean 'beta'" in run("dpo", "args.betta=0.1")
    assert "Did you mean 'kl_coef'" in run("ppo", "args.kl_coeff=0.1")
    assert "Did you mean 'lora_alpha'" in run("sft", "lora.lora_alfa=8")


def test_keys_in_the_wrong_place(run):
    said = run("sft", "args.model_init_kwargs={dtype: bfloat16}")
    assert "at the top of the recipe: `dtype`" in said
    assert "at the top of the recipe" in run("ppo", "args.dtype=bfloat16")
    assert "`push_to_hub: owner/name`" in run("dpo", "args.push_to_hub=true")


def test_a_config_that_trl_refuses(run):
    assert "Did you mean 'nll'" in run("sft", "args.loss_type=nlll")
    said = run("dpo", "args.loss_type=[exo_pair]")
    assert "DPOTrainer refused the recipe: Label smoothing must be" in said
    assert "Correct it in recipes/1m/dpo.yaml" in said


# --- Models -------------------------------------------------------------------------


def test_a_folder_that_is_not_there_or_holds_no_model(run, tmp_path):
    assert "no such folder" in run("sft", "model=./nowhere/model")
    assert "is a file that is no model" in run("sft", "model=README.md")
    assert "no config.json" in run("sft", f"model={tmp_path}")


def test_a_broken_model(run, tmp_path):
    folder = tmp_path / "model"
    save_model(*load_model(base_path("300k")), folder)
    (folder / "model.safetensors").write_bytes(b"no weights")
    assert "cannot be loaded" in run("sft", f"model={folder}")
    (folder / "config.json").write_text("{}")
    assert "cannot be loaded" in run("sft", f"model={folder}")


@pytest.fixture
def hub(monkeypatch):
    """A stand-in Hub that knows no model."""

    class NoSuchModel(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = b'{"error": "Repository not found"}'
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), NoSuchModel)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def of_the_hub(endpoint, tmp_path, model="nobody/no-such-model"):
    """What the command says about a model of the Hub, in a process of its own: its
    library reads the address when it is imported."""
    environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf")}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(ROOT)}
    environment |= {"HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-m", "alignlab.cli", "train", "sft"]
        + ["-c", "recipes/1m/sft.yaml", "--set", f"model={model}"]
        + ["--set", f"output_dir={tmp_path / 'out'}"],
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_model_that_does_not_exist(hub, tmp_path):
    said = of_the_hub(hub, tmp_path)
    assert "'nobody/no-such-model' is neither a folder nor on the Hub" in said
    assert "Check the spelling" in said


def test_no_network(tmp_path):
    said = of_the_hub("http://127.0.0.1:9", tmp_path)  # where nobody listens
    assert "cannot be reached" in said and "smollm2" in said


def saved(folder, change):
    """A copy of the shipped model whose tokenizer was changed."""
    model, tokenizer = load_model(base_path("300k"))
    change(tokenizer)
    save_model(model, tokenizer, folder)
    return f"model={folder}"


def test_no_chat_template(run, tmp_path):
    def without(tokenizer):
        tokenizer.chat_template = None

    model = saved(tmp_path / "model", without)
    for stage in ("sft", "dpo", "ppo"):
        said = run(stage, model)
        assert "no chat template" in said and "instruct version" in said


def test_no_padding_token(run, tmp_path):
    def without(tokenizer):
        tokenizer.pad_token = tokenizer.eos_token = None

    model = saved(tmp_path / "model", without)
    said = run("dpo", model)
    assert "neither a padding nor an EOS token" in said and "Set pad_token" in said
    assert "no token of the model" in run("dpo", model, "pad_token='<none>'")


# --- Data ---------------------------------------------------------------------------


def test_data_without_the_columns(run, tmp_path):
    pairs, ratings = tmp_path / "pairs.jsonl", tmp_path / "ratings.jsonl"
    pairs.write_text(json.dumps({"prompt": "a", "better": "b", "worse": "c"}) + "\n")
    ratings.write_text(json.dumps({"prompt": "a", "completion": "b", "label": 2}))
    said = run("dpo", f"data={pairs}")
    assert "the columns prompt, better, worse; dpo needs chosen and rejected" in said
    assert "columns: {theirs: chosen}" in said
    assert "no file or folder" in run("sft", "data=nowhere.jsonl")
    assert "no row has it" in run("dpo", f"data={pairs}", "data.columns={bad: chosen}")
    assert "label" in run("kto", f"data={ratings}")


def test_rewards_that_are_none(run):
    said = run("ppo", "reward_funcs=[recipes/rewards.py:brevti]")
    assert "Did you mean 'brevity'" in said
    assert "no config.json" in run("ppo", "reward_funcs=[recipes/1m]")


# --- The machine --------------------------------------------------------------------


def test_a_gpu_that_is_not_there(run):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    said = run("sft", "device=cuda")
    assert "device is 'cuda'" in said and "--set device=cpu" in said


def test_bfloat16_where_there_is_none(run):
    import torch

    if torch.cuda.is_available():
        pytest.skip("it may have it")
    said = run("sft", "device=null", "args.bf16=true")
    assert "bfloat16" in said and "fp16: true" in said


def test_quantization_without_bitsandbytes(run, monkeypatch):
    from alignlab.training.recipes import loading

    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    said = run("sft", "lora={r: 2}", "quantization.load_in_4bit=true")
    assert "pip install bitsandbytes" in said


def test_a_reporter_that_is_not_installed(run):
    assert "args.report_to is 'trackoi'. Did you mean 'trackio'?" in (
        run("sft", "args.report_to=trackoi")
    )
    from importlib.util import find_spec

    if find_spec("swanlab") is None:
        assert "pip install swanlab" in run("sft", "args.report_to=swanlab")


@pytest.mark.parametrize("where", ["training", "loading"])
def test_out_of_memory(run, monkeypatch, where):
    """torch's own error, of more than any machine has."""
    import torch
    import transformers

    def need_more(*args, **kwargs):
        return torch.empty(2**50)

    if where == "training":
        monkeypatch.setattr(transformers.Trainer, "train", need_more)
    else:
        kind = transformers.LlamaForCausalLM
        monkeypatch.setattr(kind, "_load_pretrained_model", need_more)
    said = run("sft")
    assert "out of memory" in said and "per_device_train_batch_size" in said
    assert ("weights" in said) == (where == "training")


def test_too_many_processes_for_the_recipe(run):
    assert "The recipe is for 2 processes, and there is 1" in (
        run("sft", "num_processes=2")
    )


def test_recipes_are_plain_yaml():
    for path in (ROOT / "recipes").rglob("*.yaml"):
        assert isinstance(yaml.safe_load(path.read_text()), dict)
