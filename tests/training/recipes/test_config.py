"""Recipes: what is unknown, missing or of the wrong type is refused by name, with the
nearest known one; overrides reach what is nested."""

import pytest

from alignlab.errors import AlignlabError
from alignlab.ppo import PPOConfig
from alignlab.training.recipes.config import (
    make_config,
    make_recipe,
    read_recipe,
    require_type,
)

LEAST = {"model": "1m", "data": "pairs.jsonl", "output_dir": "out"}


def recipe(stage="dpo", **more):
    return make_recipe(stage, LEAST | more)


def refused(message, stage="dpo", **more):
    with pytest.raises(AlignlabError) as error:
        recipe(stage, **more)
    assert message in str(error.value), str(error.value)


def test_the_least_recipe():
    made = recipe()
    assert made.data == {"source": "pairs.jsonl"}
    assert (made.args, made.lora, made.seed, made.device) == ({}, None, 0, None)


def test_unknown_keys_suggest_the_nearest():
    refused("unknown key 'modle'. Did you mean 'model'?", modle="1m")
    refused(
        "data has an unknown key 'colums'. Did you mean 'columns'?",
        data={"source": "x", "colums": {}},
    )


@pytest.mark.parametrize("key", ["model", "data", "output_dir"])
def test_a_missing_key_is_named_with_an_example(key):
    refused(f"has no `{key}`. Add one: `{key}: ", **{key: None})


def test_wrong_types_are_told_in_words():
    refused("seed is 'one'. Set it to a whole number.", seed="one")
    refused("lora is 16. Set it to a mapping", lora=16)
    refused("seed is True", seed=True)
    refused("reward_funcs is 'f'", "ppo", reward_funcs="f")


def test_keys_of_another_stage_are_refused():
    refused("which dpo does not use", reward_funcs=["f.py:g"])
    refused("it is for dpo, kto, ppo", "sft", ref_model="1m")


def test_what_does_not_go_together_is_refused():
    refused("cannot be trained. Add `lora", quantization={"load_in_4bit": True})
    refused("PPO needs a reward", "ppo")
    refused("device is 'gpu'", device="gpu")
    refused("num_processes is 0", num_processes=0)


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


TEXT = "model: 1m\ndata: pairs.jsonl\noutput_dir: out\nargs:\n  learning_rate: 1e-5\n"


def test_numbers_are_read_as_people_write_them(file):
    assert read_recipe("dpo", file(TEXT)).args == {"learning_rate": 1e-5}
    made = read_recipe("dpo", file(TEXT), ["args.beta=5E-2", "args.max_length=null"])
    assert made.args == {"learning_rate": 1e-5, "beta": 0.05, "max_length": None}
    made = read_recipe("dpo", file(TEXT), ["args.save_strategy=no", "args.bf16=true"])
    assert made.args["save_strategy"] == "no" and made.args["bf16"] is True


def test_overrides_reach_what_is_nested_or_not_there_yet(file):
    changes = ["lora.r=4", "data.limit=10", "data.columns={a: prompt}", "seed=3"]
    made = read_recipe("dpo", file(TEXT), changes)
    assert made.lora == {"r": 4} and made.seed == 3
    assert made.data == {
        "source": "pairs.jsonl",
        "limit": 10,
        "columns": {"a": "prompt"},
    }


@pytest.mark.parametrize(
    "change, said",
    [
        ("args.beta", "is not KEY=VALUE"),
        ("=3", "is not KEY=VALUE"),
        ("model.size=3", "model is '1m' and has nothing inside"),
        ("args.beta=[", "no YAML"),
        ("bete=1", "unknown key 'bete'"),
    ],
)
def test_overrides_that_cannot_be(file, change, said):
    with pytest.raises(AlignlabError, match=".*") as error:
        read_recipe("dpo", file(TEXT), [change])
    assert said in str(error.value)


@pytest.mark.parametrize(
    "text, said",
    [
        ("model: [", "is no YAML"),
        ("just words", "holds no keys"),
        (TEXT + "model: 300k\n", "the key 'model' is there twice"),
    ],
)
def test_files_that_are_no_recipes(file, text, said):
    with pytest.raises(AlignlabError) as error:
        read_recipe("dpo", file(text))
    assert said in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(AlignlabError, match="recipes/1m/sft.yaml"):
        read_recipe("dpo", tmp_path / "none.yaml")


def test_fields_of_a_config_are_checked_by_name_and_type(tmp_path):
    fixed = dict(output_dir=str(tmp_path), use_cpu=True)
    made = make_config(PPOConfig, {"kl_coef": 0.2, "max_steps": 3}, "args", **fixed)
    assert made.kl_coef == 0.2 and made.max_steps == 3
    for values, said in (
        ({"kl_coeff": 1.0}, "Did you mean 'kl_coef'?"),
        ({"qqq": 1.0}, "docs/training.md"),
        ({"kl_coef": "high"}, "args.kl_coef is 'high'. Set it to a number."),
        ({"use_cpu": True}, "at the top of the recipe: `device: cpu`"),
        ({"lr_scheduler_type": "cosin"}, "args was refused by PPOConfig: cosin is"),
        ({"kl_coef": -1.0}, "kl_coef is -1.0"),
    ):
        with pytest.raises(AlignlabError) as error:
            make_config(PPOConfig, values, "args", **fixed)
        assert said in str(error.value)


def test_types_that_say_more_than_plain_ones_are_let_through():
    require_type("anything", dict[str, int] | str, "x")
    require_type(3, float, "x")
    require_type(None, int | None, "x")
    require_type(object(), type(PPOConfig), "x")
    with pytest.raises(AlignlabError, match="x is None. Set it to a whole number"):
        require_type(None, int, "x")
