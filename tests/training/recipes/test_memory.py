"""The memory arithmetic: of small cases by hand, of the recipes as their comments have
it, of real models as torch counts them."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from alignlab.training.recipes.config import read_recipe
from alignlab.training.recipes.memory import Load, Shape, estimate, in_words

RECIPES = Path(__file__).parents[3] / "recipes"
LARGE = sorted(RECIPES.glob("*-*/*.yaml"))
PROMPT = {"smollm2-cpu": 64, "qwen-0.5b-t4": 256, "qwen-7b-8gpu": 256}
LINE = re.compile(r"#   ([a-zA-Z]+(?: [a-z]+)?) +(.+) = ([\d.]+) GB")
SIZES = {
    "smollm2": (
        "LlamaConfig",
        dict(vocab_size=49152, hidden_size=576, intermediate_size=1536)
        | dict(num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3)
        | dict(tie_word_embeddings=True),
    ),
    "Qwen/Qwen2.5-0.5B-Instruct": (
        "Qwen2Config",
        dict(vocab_size=151936, hidden_size=896, intermediate_size=4864)
        | dict(num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2)
        | dict(tie_word_embeddings=True),
    ),
    "Qwen/Qwen2.5-7B-Instruct": (
        "Qwen2Config",
        dict(vocab_size=152064, hidden_size=3584, intermediate_size=18944)
        | dict(num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4)
        | dict(tie_word_embeddings=False),
    ),
}


def model_of(recipe, scalar=False, lora=True):
    """The recipe's model without weights, as published; with its adapters."""
    import transformers
    from peft import LoraConfig, get_peft_model

    kind, sizes = SIZES[recipe.model]
    config = getattr(transformers, kind)(**sizes, num_labels=1, pad_token_id=0)
    auto = "AutoModelForSequenceClassification" if scalar else "AutoModelForCausalLM"
    with torch.device("meta"):
        model = getattr(transformers, auto).from_config(config)
        if recipe.lora is not None and lora:
            task = "SEQ_CLS" if scalar else "CAUSAL_LM"
            model = get_peft_model(model, LoraConfig(**recipe.lora, task_type=task))
    return model


def shape_of(recipe):
    model = model_of(recipe, scalar=recipe.stage == "reward")
    config = model.config
    first = model.get_input_embeddings().weight.numel()
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()),
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        embeddings=first * (1 if config.tie_word_embeddings else 2),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        vocabulary=config.vocab_size,
    )


def load_of(recipe, folder):
    args, stage = recipe.args, recipe.stage
    rows = args["per_device_train_batch_size"]
    rows *= 2 if stage in ("reward", "dpo") else 1
    length = args.get("max_length") or PROMPT[folder] + args["max_completion_length"]
    logits, judges, frozen = 0, 0, 0
    if stage == "sft":
        logits = rows * length
    if stage == "ppo":
        update = rows * args.get("gradient_accumulation_steps", 1)
        update *= args["num_mini_batches"]
        at_once = args.get("local_rollout_forward_batch_size", update)
        logits = max(rows, at_once) * args["max_completion_length"]
        if recipe.reward_funcs[0].startswith("out/"):
            judge = model_of(recipe, scalar=True)
            judges = sum(p.numel() for p in judge.parameters())
    if recipe.lora is None and stage in ("dpo", "ppo"):
        frozen = sum(p.numel() for p in model_of(recipe).parameters())
    half = "bfloat16" if args.get("bf16") else "float16" if args.get("fp16") else None
    return Load(
        weights="4bit" if recipe.quantization else recipe.dtype,
        computes=half or recipe.dtype,
        rows=rows,
        length=length,
        logits=logits,
        checkpointing=args.get("gradient_checkpointing", False),
        frozen=frozen,
        judges=judges,
        shards=recipe.num_processes or 1,
    )


@pytest.mark.parametrize("path", LARGE, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_the_arithmetic_in_a_recipe_is_right(path):
    recipe = read_recipe(path.stem, path)
    parts = estimate(shape_of(recipe), load_of(recipe, path.parent.name))
    lines = LINE.findall(path.read_text())
    assert [name for name, *_ in lines] == list(parts)
    for name, expression, told in lines:
        assert parts[name] / 1e9 == pytest.approx(float(told), abs=0.006), name
        assert evaluated(expression) == pytest.approx(parts[name], rel=1e-4), name
    total = re.search(r"about ([\d.]+) GB", path.read_text()).group(1)
    assert sum(parts.values()) / 1e9 == pytest.approx(float(total), abs=0.06)


def evaluated(expression):
    plain = re.sub(r"\b(bytes|tokens|tok)\b", "", expression)
    plain = re.sub(r"(\d),(?=\d)", r"\1", plain).replace(" x ", " * ")
    plain = plain.replace("  ", " ").replace("x (", "* (").replace(" x", " *")
    assert re.fullmatch(r"[\d.+*/() ]+", plain), plain
    return eval(plain)


@pytest.mark.parametrize("path", LARGE, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_recipe_fits_its_device(path):
    room = {"smollm2-cpu": 6, "qwen-0.5b-t4": 16, "qwen-7b-8gpu": 80}
    room = room.get(path.parent.name, 24)
    total = float(re.search(r"about ([\d.]+) GB", path.read_text()).group(1))
    assert total + 1.5 < room  # what torch, CUDA and fragmentation take


SHAPE = Shape(1000, 1000, 300, layers=2, hidden=10, intermediate=30, vocabulary=100)
ONE = dict(rows=2, length=5, logits=10, checkpointing=False)


def test_of_all_weights_in_float32_there_are_sixteen_bytes_each():
    parts = estimate(SHAPE, Load("float32", "float32", **ONE))
    assert parts == {
        "weights": 4000,
        "gradients": 4000,
        "AdamW": 8000,
        "activations": 2 * 5 * 2 * (80 + 120) * 4,
        "logits": 10 * 100 * 12,
    }


def test_adapters_stay_in_float32_beside_a_base_in_float16():
    shape = Shape(1100, 100, 300, layers=2, hidden=10, intermediate=30, vocabulary=100)
    parts = estimate(shape, Load("float16", "float16", **ONE))
    assert parts["weights"] == 1000 * 2 + 100 * 4
    assert parts["gradients"] == 400 and parts["AdamW"] == 800


def test_shards_share_weights_and_state_but_not_activations():
    whole = estimate(SHAPE, Load("float32", "bfloat16", **ONE, frozen=1000))
    shared = estimate(SHAPE, Load("float32", "bfloat16", **ONE, frozen=1000, shards=8))
    assert shared["activations"] == whole["activations"]
    for name in ("weights", "gradients", "AdamW", "reference"):
        assert shared[name] == whole[name] / 8
    assert "half copies" in whole and "half copies" not in shared
    zero2 = Load("float32", "float32", **ONE, shards=8, shards_weights=False)
    zero2 = estimate(SHAPE, zero2)
    assert zero2["weights"] == 4000 and zero2["AdamW"] == 1000


def test_checkpointing_keeps_one_vector_a_layer():
    kept = estimate(SHAPE, Load("float32", "float32", **ONE | {"checkpointing": True}))
    assert kept["activations"] == 2 * 5 * (2 * 10 + 80 + 120) * 4


def test_little_memory_is_told_in_megabytes():
    assert in_words({"weights": 4e6, "logits": 1e6}) == "5 MB: weights 4, logits 1"
    assert in_words({"weights": 1.5e9}) == "1.50 GB: weights 1.50"


def test_every_recipe_is_yaml_of_its_stage():
    for path in RECIPES.glob("*/*.yaml"):
        assert read_recipe(path.stem, path).output_dir.startswith("out/"), path
        assert f"train {path.stem} --config recipes/{path.parent.name}/{path.name}" in (
            " ".join(path.read_text().replace("#", " ").replace("\\", " ").split())
        )
        assert yaml.safe_load(path.read_text())
