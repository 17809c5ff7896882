"""Every stage trains from its recipe: all weights or adapters, interrupted or not; the
model that comes out loads, has its card, and is what TRL alone would have made."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from alignlab.errors import AlignlabError
from alignlab.models.base import base_path, load_model
from alignlab.models.reward import load_reward_model
from alignlab.training.recipes.config import _read_yaml, make_recipe
from alignlab.training.recipes.run import train
from alignlab.training.recipes.stages import reward_source

ROOT = Path(__file__).parents[3]
STAGES = ("sft", "reward", "dpo", "kto", "orpo", "ppo")
SMALL = dict(per_device_train_batch_size=4, disable_tqdm=True, logging_steps=1)


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")


def recipe_of(stage, folder, max_steps=2, **more):
    values = _read_yaml(ROOT / f"recipes/1m/{stage}.yaml")
    args = values["args"] | SMALL | dict(max_steps=max_steps, save_steps=max_steps)
    if stage == "ppo":
        args |= dict(max_completion_length=6, local_rollout_forward_batch_size=4)
    args |= {"learning_rate": 1e-3} | more.pop("args", {})
    own = {"model": "300k", "args": args, "output_dir": str(folder)}
    return make_recipe(stage, values | own | more)


def losses(trainer):
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_trains_and_saves(stage, tmp_path, capsys):
    trainer = train(recipe_of(stage, tmp_path / "out"))
    assert len(losses(trainer)) == 2 and all(
        map(torch.isfinite, torch.tensor(losses(trainer)))
    )
    load = load_reward_model if stage == "reward" else load_model
    trained, tokenizer = load(tmp_path / "out")
    before = load_model(base_path("300k"))[0].model.layers[0].mlp.up_proj.weight
    assert not torch.equal(trained.model.layers[0].mlp.up_proj.weight, before)
    assert tokenizer.chat_template
    told = capsys.readouterr().out
    for part in ("parameters, of which", "(100.00%)", "1 process", "memory on each"):
        assert part in told


@pytest.mark.parametrize("stage", ["sft", "reward", "dpo", "ppo"])
def test_adapters_alone_are_trained_and_saved(stage, tmp_path, capsys):
    lora = {"r": 2, "target_modules": "all-linear"}
    trainer = train(recipe_of(stage, tmp_path / "out", lora=lora))
    trained = [n for n, p in trainer.model.named_parameters() if p.requires_grad]
    own = ("lora_", "modules_to_save", "value")  # the heads are new, and whole
    assert trained and all(any(part in name for part in own) for name in trained)
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()
    assert "(100.00%)" not in capsys.readouterr().out
    assert getattr(trainer, "ref_model", None) is None
    again = {"model": str(tmp_path / "out")}
    with pytest.raises(AlignlabError, match="Leave lora out to train those further"):
        train(recipe_of(stage, tmp_path / "again", lora=lora, **again))


def test_sft_is_trls_own(tmp_path):
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    ours = train(recipe_of("sft", tmp_path / "ours"))
    model = AutoModelForCausalLM.from_pretrained(base_path("300k"), dtype="float32")
    args = SFTConfig(
        output_dir=str(tmp_path / "theirs"),
        max_steps=2,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        max_length=128,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        seed=0,
        **SMALL,
    )
    data = ROOT / "recipes/1m/data/demonstrations.jsonl"
    data = load_dataset("json", data_files=str(data), cache_dir=str(tmp_path))["train"]
    tokenizer = AutoTokenizer.from_pretrained(base_path("300k").parent / "tokenizer")
    theirs = SFTTrainer(
        model, args=args, train_dataset=data, processing_class=tokenizer
    )
    theirs.train()
    assert losses(ours) == losses(theirs)


def test_dpo_starts_at_log_2_from_a_model_that_was_never_saved(tmp_path):
    """TRL would look for the reference where the policy came from."""
    trainer = train(recipe_of("dpo", tmp_path / "out"))
    assert losses(trainer)[0] == pytest.approx(0.6931, abs=1e-4)
    pairs = zip(trainer.ref_model.parameters(), trainer.model.parameters())
    assert all(one is not two for one, two in pairs)


def test_an_interrupted_run_ends_where_a_whole_one_does(tmp_path):
    whole = train(
        recipe_of("dpo", tmp_path / "whole", max_steps=4, args={"save_steps": 2})
    )
    parts = recipe_of("dpo", tmp_path / "parts", max_steps=4, args={"save_steps": 2})
    first = train(parts, resume=True)  # nothing is there yet: it starts
    for name in ("checkpoint-4", "model.safetensors"):
        path = tmp_path / "parts" / name
        path.unlink() if path.is_file() else path.rename(path.with_name("gone"))
    with pytest.raises(AlignlabError, match="Continue it with --resume"):
        train(parts)
    second = train(parts, resume=True)
    assert losses(first) == losses(whole) == losses(second)
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, second.model.state_dict()[name]), name


def test_to_resume_a_finished_run_changes_nothing(tmp_path):
    """`transformers` would train one step more."""
    recipe = recipe_of("dpo", tmp_path / "out")
    whole = train(recipe)
    (tmp_path / "out" / "model.safetensors").unlink()  # killed before it was saved
    again = train(recipe, resume=True)
    assert again.state.global_step == 2 and losses(again) == losses(whole)
    assert not (tmp_path / "out" / "checkpoint-3").exists()
    saved, _ = load_model(tmp_path / "out")
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, saved.state_dict()[name]), name


def test_a_dry_run_trains_nothing(tmp_path, capsys):
    trainer = train(recipe_of("reward", tmp_path / "out"), dry_run=True)
    assert trainer.state.global_step == 0 and "memory" in capsys.readouterr().out
    assert not (tmp_path / "out" / "README.md").exists()


def test_the_card_has_the_recipe_and_is_written_without_a_network(
    tmp_path, monkeypatch
):
    """A push that fails loses nothing, and says how to do it later."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    recipe = recipe_of("sft", tmp_path / "out", push_to_hub="me/my-model")
    with pytest.raises(AlignlabError, match="hf upload me/my-model"):
        train(recipe)
    card = (tmp_path / "out" / "README.md").read_text()
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata["tags"] == ["alignlab", "sft"] and "base_model" not in metadata
    assert "# my-model" in card and "demonstrations.jsonl, 128 rows" in card
    assert "- loss: " in card
    again = yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())
    assert make_recipe("sft", again).args == recipe.args
    assert again["push_to_hub"] == "me/my-model" and again["model"] == "300k"
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_rewards_are_functions_or_models(tmp_path):
    brevity = reward_source("recipes/rewards.py:brevity")
    assert brevity(["", "a b c d"]) == [1, 0.9]
    assert reward_source("json:dumps") is json.dumps
    assert reward_source("300k") == str(base_path("300k"))
    for name, said in (
        ("recipes/rewards.py:brevty", "Did you mean 'brevity'?"),
        ("nowhere.py:brevity", "nowhere.py"),
        ("no_such_module:f", "no_such_module"),
    ):
        with pytest.raises(AlignlabError) as error:
            reward_source(name)
        assert said in str(error.value)


def test_ppo_for_a_reward_model_that_was_trained_here(tmp_path):
    reward = tmp_path / "reward"
    train(recipe_of("reward", reward))
    trainer = train(recipe_of("ppo", tmp_path / "ppo", reward_funcs=[str(reward)]))
    assert trainer.rewards[0].model is not None and len(losses(trainer)) == 2
