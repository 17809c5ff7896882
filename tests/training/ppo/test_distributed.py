"""Several processes make the update that one makes, whole models or sharded ones."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

RECIPES = Path(__file__).parents[3] / "recipes"

SCRIPT = """
import json
import sys

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alignlab.ppo import PPOConfig, PPOTrainer


def train(folder, sharded=False, **settings):
    torch.set_num_threads(1)
    words = ["<pad>", "<end>", *"abcdefghijklmnop"]
    tokenizer = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<pad>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>"
    )
    # Sharded models sample on behind the end, which draws other random numbers.
    settings |= {"stop_token_id": []} if settings.pop("endless") else {}
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(words),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=32,
            initializer_range=0.2,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
        )
    )
    args = PPOConfig(
        output_dir=folder,
        save_strategy="no",
        max_steps=2,
        per_device_train_batch_size=4,
        num_mini_batches=2,
        num_ppo_epochs=2,
        local_rollout_forward_batch_size=8,
        max_completion_length=6,
        learning_rate=0.01,
        kl_target=0.5,
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
        **settings,
    )
    if sharded:  # accelerate shards on GPUs only; torch itself does on CPUs too
        from accelerate.state import PartialState
        from accelerate.utils import DistributedType

        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    data = [{"prompt": text} for text in ("a b c", "d", "e f", "g h i j", "k")]
    trainer = PPOTrainer(
        model,
        lambda completions: [c.count("a") - 0.1 * len(c) for c in completions],
        args,
        data,
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model(folder)
    if sharded:
        assert "FSDP" in type(trainer.model).__name__
        assert "FSDP" in type(trainer.ref_model).__name__
    if trainer.is_world_process_zero():
        with open(folder + "/rows.json", "w") as file:
            json.dump(trainer.state.log_history, file)


if __name__ == "__main__":
    train(sys.argv[1], **json.loads(sys.argv[2]))
"""


def alone(folder, endless):
    path = folder / "script.py"
    path.write_text(SCRIPT)
    spec = importlib.util.spec_from_file_location("ppo_script", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.train(str(folder / "alone"), gradient_accumulation_steps=4, endless=endless)
    return load_run(folder / "alone")


def together(folder, recipe, **settings):
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--config_file", str(RECIPES / recipe), "--num_processes", "2"]
    command += ["--mixed_precision", "no", "--main_process_port", "0"]
    settings = {"gradient_accumulation_steps": 2} | settings
    done = subprocess.run(
        [*command, folder / "script.py", folder / "together", json.dumps(settings)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return load_run(folder / "together")


def load_run(folder):
    policy = load_file(folder / "model.safetensors")
    value = load_file(folder / "value.safetensors")
    return policy | value, json.loads((folder / "rows.json").read_text())


def assert_same_run(one, two):
    (parameters, rows), (others, other_rows) = one, two
    assert parameters.keys() == others.keys()
    for name, tensor in parameters.items():
        assert (tensor - others[name]).abs().max() < 1e-5, name
    assert len(rows) == len(other_rows) == 3
    for row, other in zip(rows[:2], other_rows[:2], strict=True):
        for name, number in row.items():
            if "second" not in name:
                assert other[name] == pytest.approx(number, rel=1e-3, abs=1e-5), name
    assert rows[1]["kl_exact"] > 0.1  # it did move


@pytest.mark.slow
def test_two_processes_make_the_update_of_one(tmp_path):
    expected = alone(tmp_path, endless=False)
    assert 0 < expected[1][0]["eos_rate"] < 1
    assert_same_run(expected, together(tmp_path, "ddp_cpu.yaml", endless=False))


@pytest.mark.slow
def test_sharded_models_make_the_same_update(tmp_path):
    expected = alone(tmp_path, endless=True)
    sharded = together(tmp_path, "fsdp.yaml", endless=True, sharded=True)
    assert_same_run(expected, sharded)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_makes_the_same_update(tmp_path, stage):
    pytest.importorskip("deepspeed")
    expected = alone(tmp_path, endless=True)
    recipe = f"deepspeed_zero{stage}.yaml"
    assert_same_run(expected, together(tmp_path, recipe, endless=True))
