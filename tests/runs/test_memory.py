"""What a GPU's memory has to hold, against models and against what docs/gpu.md says."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import DynamicCache, Qwen2Config, Qwen2ForCausalLM

from alignlab.runs import memory
from alignlab.runs.memory import BASE, QWEN, Stage, reckoned, table
from alignlab.study.scale import LORA
from alignlab.training.parts import ACTIVATIONS

DOCS = Path(__file__).parents[2] / "docs" / "gpu.md"


def qwen(**changes) -> Qwen2Config:
    """As Qwen/Qwen2.5-0.5B has it."""
    sizes = dict(
        vocab_size=151_936, hidden_size=896, intermediate_size=4864,
        num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
    )  # fmt: skip
    return Qwen2Config(**sizes | changes, tie_word_embeddings=True)


def test_the_shape_is_that_of_the_model():
    from peft import LoraConfig, get_peft_model

    with torch.device("meta"):
        model = Qwen2ForCausalLM(qwen())
        assert model.num_parameters() == QWEN.parameters
        assert model.get_input_embeddings().weight.numel() == QWEN.embeddings
        settings = LoraConfig(**LORA, task_type="CAUSAL_LM")
        model = get_peft_model(model, settings, low_cpu_mem_usage=True)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == QWEN.trained


def test_the_cache_is_what_a_model_keeps():
    small = dict(vocab_size=50, hidden_size=128, intermediate_size=16)
    small |= dict(num_attention_heads=2, num_key_value_heads=2, num_hidden_layers=24)
    config = qwen(**small)  # heads of 64 numbers, two of them kept, in 24 layers
    model, cache = Qwen2ForCausalLM(config), DynamicCache(config=config)
    ids = torch.ones(3, 5, dtype=torch.long)
    with torch.no_grad():
        model.bfloat16()(ids, past_key_values=cache, use_cache=True)
    kept = sum(x.nbytes for layer in cache.layers for x in (layer.keys, layer.values))
    stage = Stage("04", "PPO", 3, 5, "ppo", sampled=3)
    assert reckoned(stage)["KV cache"] == kept


def test_batches_beyond_the_limits_take_no_more():
    for stage in BASE:
        if stage.kind == "ask":
            continue
        twice = reckoned(replace(stage, rows=2 * stage.rows))
        for name in ("activations", "logits"):
            assert twice.get(name) == reckoned(stage).get(name), (stage, name)
    sft = BASE[1]
    assert reckoned(sft)["activations"] == ACTIVATIONS
    assert reckoned(replace(sft, rows=1))["activations"] < ACTIVATIONS / 4
    assert reckoned(replace(sft, rows=1))["logits"] == 160 * 151_936 * 12


def test_reward_models_are_in_float32_and_have_no_logits():
    judged = reckoned(Stage("06", "PPO", 64, 160, "ppo", judges=3))
    assert judged["reward models"] == 3 * 4 * QWEN.parameters
    parts = reckoned(Stage("03", "reward model", 64, 160, "reward"))
    assert "logits" not in parts
    assert parts["weights"] == pytest.approx(4 * QWEN.parameters, rel=0.01)


def test_every_notebook_fits_into_16_gb_and_has_its_line():
    assert [stage.notebook for stage in BASE] == [f"{n:02}" for n in range(9)]
    for stage in BASE:
        assert sum(reckoned(stage).values()) < 14.5e9, stage


def test_the_docs_have_the_table():
    text = DOCS.read_text(encoding="utf-8")
    assert table() in text
    assert len(table().splitlines()) == len(memory.BASE) + 2
