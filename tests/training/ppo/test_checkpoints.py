"""A run that was stopped and goes on ends with the same bits as one that was not."""

import copy
import json
import shutil

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    TrainerCallback,
)

from alignlab.errors import AlignlabError
from alignlab.models.reward import reward_model_from
from alignlab.ppo import PPOConfig, PPOTrainer
from tests.training.ppo.helpers import (
    config,
    make_and_train,
    make_trainer,
    train_by_sgd,
)

PROMPTS = [{"prompt": text} for text in ("Peru", "Is gold a metal?", "Say it:")]
TIMES = ("seconds_rollout", "seconds_reward", "seconds_update", "tokens_per_second")


class StopBefore(TrainerCallback):
    """What a kill leaves behind: whatever had been written before this step."""

    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            raise KeyboardInterrupt


def vowels(completions):
    return [sum(c in "aeiou" for c in text) / 5 for text in completions]


@pytest.fixture
def model(tiny_tokenizer):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tiny_tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=64,
        initializer_range=0.2,
        resid_pdrop=0.1,
        bos_token_id=None,
        eos_token_id=tiny_tokenizer.eos_token_id,
    )
    return GPT2LMHeadModel(config)


def trainer_of(model, tokenizer, folder, *callbacks, **settings):
    """With everything on that has a memory: Adam, a schedule, an adaptive
    coefficient, running statistics of the scores."""
    defaults = dict(
        output_dir=str(folder),
        max_steps=5,
        save_steps=2,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        num_mini_batches=2,
        num_ppo_epochs=2,
        max_completion_length=6,
        learning_rate=1e-3,
        kl_target=0.5,
        kl_horizon=100,
        normalize_rewards="running",
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
    )
    args = PPOConfig(**defaults | settings)
    return PPOTrainer(
        copy.deepcopy(model),
        vowels,
        args,
        PROMPTS,
        eval_dataset=None if args.eval_strategy == "no" else PROMPTS,
        processing_class=tokenizer,
        ref_model=copy.deepcopy(model),
        callbacks=list(callbacks),
    )


def rows(trainer):
    kept = [row for row in trainer.state.log_history if "score" in row]
    return [{k: v for k, v in row.items() if k not in TIMES} for row in kept]


@pytest.mark.parametrize("step", [3, 4])
def test_a_resumed_run_ends_with_the_same_bits(model, tiny_tokenizer, tmp_path, step):
    uninterrupted = trainer_of(model, tiny_tokenizer, tmp_path / "uninterrupted")
    uninterrupted.train()
    stopped = trainer_of(model, tiny_tokenizer, tmp_path / "stopped", StopBefore(step))
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    resumed = trainer_of(model, tiny_tokenizer, tmp_path / "stopped")
    resumed.train(resume_from_checkpoint=True)

    assert resumed.state.global_step == 5
    moved = 0.0
    before = dict(model.named_parameters())
    for name, parameter in uninterrupted.policy.named_parameters():
        assert torch.equal(dict(resumed.policy.named_parameters())[name], parameter)
        moved += (parameter - before[name]).abs().max().item()
    assert moved > 0.01
    for a, b in zip(
        resumed.model.value_head.parameters(),
        uninterrupted.model.value_head.parameters(),
    ):
        assert torch.equal(a, b) and a.abs().sum() > 0
    assert rows(resumed) == rows(uninterrupted)
    actual = resumed.state.stateful_callbacks["PPOTrainer"]
    assert actual == uninterrupted.state.stateful_callbacks["PPOTrainer"]
    assert actual["kl_coef"] != 0.05 and actual["scores"][0] == 5 * 16


def test_a_checkpoint_cut_short_is_passed_over(model, tiny_tokenizer, tmp_path):
    uninterrupted = trainer_of(model, tiny_tokenizer, tmp_path / "uninterrupted")
    uninterrupted.train()
    stopped = trainer_of(model, tiny_tokenizer, tmp_path / "stopped", StopBefore(5))
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    for number, keep in ((4, b""), (6, b'{"epoch": 1')):
        folder = tmp_path / "stopped" / f"checkpoint-{number}"
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.write_bytes(b"")
        if keep:
            (folder / "trainer_state.json").write_bytes(keep)
    resumed = trainer_of(model, tiny_tokenizer, tmp_path / "stopped")
    resumed.train(resume_from_checkpoint=True)
    for a, b in zip(resumed.model.parameters(), uninterrupted.model.parameters()):
        assert torch.equal(a, b)


def test_without_a_checkpoint_there_is_nothing_to_resume(
    model, tiny_tokenizer, tmp_path
):
    with pytest.raises(AlignlabError, match="no complete checkpoint"):
        trainer_of(model, tiny_tokenizer, tmp_path).train(resume_from_checkpoint=True)


def test_the_best_model_is_found_again(model, tiny_tokenizer, tmp_path):
    trainer = trainer_of(
        model,
        tiny_tokenizer,
        tmp_path,
        save_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="score",
        learning_rate=0.05,
    )
    trainer.train()
    scores = [r["eval_score"] for r in trainer.state.log_history if "eval_score" in r]
    assert len(set(scores)) > 1
    assert trainer.evaluate()["eval_score"] == max(scores)


def test_training_goes_on_after_its_end(model, tiny_tokenizer, tmp_path):
    """Two calls of train are two runs: counts and coefficients begin anew."""
    trainer = trainer_of(model, tiny_tokenizer, tmp_path, max_steps=2)
    trainer.train()
    shutil.rmtree(tmp_path)
    trainer.train()
    assert trainer.state.global_step == 2
    assert rows(trainer)[0]["kl_coef"] == 0.05 and rows(trainer)[0]["kl_exact"] > 0


def test_a_saved_policy_is_a_plain_model_with_its_values_beside_it(
    tiny_model, tiny_tokenizer, tmp_path
):
    trainer = train_by_sgd(tiny_model, tiny_tokenizer)
    trainer.save_model(str(tmp_path))
    loaded, info = AutoModelForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not info["unexpected_keys"]
    ids = torch.randint(5, 350, (2, 8))
    torch.testing.assert_close(loaded(ids).logits, trainer.policy(ids).logits)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    from safetensors.torch import load_file

    value = load_file(tmp_path / "value.safetensors")
    assert value.keys() == {"value_head.weight", "value_head.bias"}
    torch.testing.assert_close(
        value["value_head.weight"], trainer.model.value_head.weight.detach()
    )


def test_a_value_model_is_saved_and_found_again(
    tiny_model, tiny_tokenizer, judge, tmp_path
):
    args = config(output_dir=str(tmp_path), save_steps=1, max_steps=1)
    trainer = make_and_train(tiny_model, tiny_tokenizer, args=args, value_model=judge)
    args = config(output_dir=str(tmp_path), save_steps=1, max_steps=1)
    fresh = make_trainer(
        copy.deepcopy(tiny_model),
        tiny_tokenizer,
        args=args,
        value_model=reward_model_from(tiny_model, seed=5),
    )
    fresh.train(resume_from_checkpoint=True)
    for a, b in zip(fresh.model.parameters(), trainer.model.parameters(), strict=True):
        assert torch.equal(a, b)
    shared = make_trainer(copy.deepcopy(tiny_model), tiny_tokenizer, args=args)
    with pytest.raises(AlignlabError, match="another value function"):
        shared.train(resume_from_checkpoint=True)
