"""What a run reports and writes, what stops it, how it evaluates."""

import copy
import math
from pathlib import Path

import pytest
import torch

from alignlab.models.reward import reward_model_from
from alignlab.ppo import PPOConfig, PPOTrainer
from tests.training.ppo.helpers import (
    PROMPTS,
    QUIET,
    Recorder,
    config,
    letters,
    make_and_train,
    make_trainer,
    recompute,
    talkative,
    train_by_sgd,
)


def test_kl_is_held_at_its_target(tiny_model, tiny_tokenizer):
    trainer = train_by_sgd(
        tiny_model,
        tiny_tokenizer,
        max_steps=4,
        kl_target=1e-4,
        kl_horizon=100,
        learning_rate=0.5,
    )
    rows = trainer.state.log_history[:4]
    coefficient = 0.2
    for row in rows:
        assert row["kl_coef"] == pytest.approx(coefficient, rel=1e-9)
        error = min(max(row["kl_exact"] / 1e-4 - 1, -0.2), 0.2)
        coefficient *= 1 + error * 16 / 100
    assert rows[1]["kl_coef"] < 0.2 < rows[3]["kl_coef"]


def test_the_run_stops_at_its_kl_limit(tiny_model, tiny_tokenizer):
    args = config(max_steps=30, kl_limit=0.2, kl_coef=0.0, learning_rate=0.05)

    def vowels(completions):
        return [sum(c in "aeiou" for c in text) for text in completions]

    trainer = make_trainer(tiny_model, tiny_tokenizer, vowels, args=args)
    with pytest.warns(UserWarning, match="beyond kl_limit=0.2"):
        trainer.train()
    rows = [row for row in trainer.state.log_history if "kl_exact" in row]
    assert len(rows) < 30
    assert rows[-1]["kl_exact"] > 0.2 >= max(row["kl_exact"] for row in rows[:-1])
    assert rows[-1]["epochs"] == 0


def test_rows_say_what_happened(tiny_model, tiny_tokenizer):
    talkative(tiny_model, tiny_tokenizer)
    start = copy.deepcopy(tiny_model)
    recorder = Recorder()
    trainer = train_by_sgd(
        tiny_model, tiny_tokenizer, recorder, max_steps=2, learning_rate=0.3
    )
    first, second, _ = trainer.state.log_history
    assert [first["step"], second["step"]] == [1, 2]
    assert [first["episodes"], second["episodes"]] == [16, 32]
    assert first["kl"] == first["kl_exact"] == 0 and second["kl_exact"] > 0
    lengths = torch.tensor([len(c) for c in recorder.completions])
    ended = torch.tensor(
        [c[-1] == tiny_tokenizer.eos_token_id for c in recorder.completions]
    )
    assert second["completion_length"] == pytest.approx(lengths.float().mean().item())
    assert second["eos_rate"] == pytest.approx(ended.float().mean().item())
    assert 0 < second["eos_rate"] < 1
    assert second["score"] == pytest.approx(
        torch.tensor(recorder.rewards).mean().item()
    )
    assert first["explained_variance"] == pytest.approx(0, abs=1e-6)
    for row in (first, second):
        assert all(math.isfinite(value) for value in row.values())
        assert row["tokens_per_second"] > 0

    # Entropy and KL again, of the first update: nothing has been trained yet.
    head = {"weight": torch.zeros(1, 32), "bias": torch.zeros(1)}
    fresh = Recorder()
    trainer = train_by_sgd(copy.deepcopy(start), tiny_tokenizer, fresh)
    entropies = []
    with torch.no_grad():
        for prompt, completion in zip(fresh.prompts, fresh.completions):
            _, _, log_p = recompute(start, head, prompt, completion, 1.0)
            entropies += (-(log_p.exp() * log_p).sum(-1)).tolist()
    expected = sum(entropies) / len(entropies)
    assert trainer.state.log_history[0]["entropy"] == pytest.approx(expected, rel=1e-4)


def test_kl_in_the_rows_is_that_of_the_models(tiny_model, tiny_tokenizer):
    talkative(tiny_model, tiny_tokenizer)
    reference = copy.deepcopy(tiny_model)
    torch.manual_seed(5)
    with torch.no_grad():
        for p in reference.parameters():
            p += 0.02 * torch.randn_like(p)
    policy, recorder = copy.deepcopy(tiny_model), Recorder()
    args = PPOConfig(
        max_steps=1, per_device_train_batch_size=16, max_completion_length=10, **QUIET
    )
    trainer = PPOTrainer(
        tiny_model,
        recorder,
        args,
        PROMPTS,
        processing_class=tiny_tokenizer,
        ref_model=copy.deepcopy(reference),
    )
    trainer.train()
    head = {"weight": torch.zeros(1, 32), "bias": torch.zeros(1)}
    sampled, exact = [], []
    with torch.no_grad():
        for prompt, completion in zip(recorder.prompts, recorder.completions):
            a, _, log_p = recompute(policy, head, prompt, completion, 1.0)
            b, _, log_q = recompute(reference, head, prompt, completion, 1.0)
            sampled.append((a - b).sum().item())
            exact.append((log_p.exp() * (log_p - log_q)).sum().item())
    row = trainer.state.log_history[0]
    assert row["kl"] == pytest.approx(sum(sampled) / 16, rel=1e-4)
    assert row["kl_exact"] == pytest.approx(sum(exact) / 16, rel=1e-4)
    assert row["kl_exact"] > 0.05
    actual = [c["kl"] for c in trainer.completions]
    assert actual == pytest.approx(sampled, rel=1e-3, abs=1e-4)


def test_rows_between_logs_are_averaged(tiny_model, tiny_tokenizer):
    other = copy.deepcopy(tiny_model)
    each = train_by_sgd(tiny_model, tiny_tokenizer, max_steps=4).state.log_history[:4]
    pairs = train_by_sgd(other, tiny_tokenizer, max_steps=4, logging_steps=2)
    rows = pairs.state.log_history[:2]
    assert [row["step"] for row in rows] == [2, 4]
    assert [row["episodes"] for row in rows] == [32, 64]
    for name in ("score", "entropy", "loss", "grad_norm"):
        expected = (each[2][name] + each[3][name]) / 2
        assert rows[1][name] == pytest.approx(expected, rel=1e-5)


def test_evaluation_repeats_itself_and_reports_samples(tiny_model, tiny_tokenizer):
    args = PPOConfig(
        max_steps=2,
        per_device_train_batch_size=4,
        per_device_eval_batch_size=2,
        max_completion_length=6,
        eval_strategy="steps",
        eval_steps=1,
        learning_rate=0.0,
        **QUIET,
    )
    trainer = PPOTrainer(
        tiny_model,
        letters,
        args,
        PROMPTS,
        eval_dataset=PROMPTS[:3],
        processing_class=tiny_tokenizer,
    )
    before = trainer.evaluate()
    trainer.train()
    rows = [row for row in trainer.state.log_history if "eval_score" in row]
    assert len(rows) == 2
    for row in rows:
        assert row["eval_score"] == before["eval_score"] > 0
        assert row["eval_kl_exact"] == 0
    table = trainer.eval_completions
    assert [row["prompt"] for row in table] == [row["prompt"] for row in PROMPTS[:3]]
    score = sum(row["score"] for row in table) / 3
    assert before["eval_score"] == pytest.approx(score, rel=1e-6)


def test_completions_are_printed_when_asked_for(tiny_model, tiny_tokenizer, capsys):
    train_by_sgd(tiny_model, tiny_tokenizer, log_completions=3)
    assert "Completions of update 1" in capsys.readouterr().out


def test_scalars_reach_tensorboard(tiny_model, tiny_tokenizer, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_by_sgd(
        tiny_model,
        tiny_tokenizer,
        output_dir=str(tmp_path),
        report_to="tensorboard",
        save_strategy="no",
        max_steps=2,
    )
    events = EventAccumulator(str(next(tmp_path.rglob("events.*")).parent))
    events.Reload()
    assert len(events.Scalars("train/kl_exact")) == 2


def test_half_precision_runs(tiny_model, tiny_tokenizer):
    trainer = make_and_train(
        tiny_model, tiny_tokenizer, args=config(bf16=True, max_steps=2)
    )
    assert all(p.dtype == torch.float32 for p in trainer.policy.parameters())
    assert math.isfinite(trainer.state.log_history[1]["loss"])
    args = config(num_ppo_epochs=1)
    half = make_and_train(tiny_model.bfloat16(), tiny_tokenizer, args=args)
    assert half.policy.dtype == torch.bfloat16
    assert abs(half.state.log_history[0]["ratio"] - 1) < 0.05


def test_nothing_is_written_unless_a_folder_is_named(
    tiny_model, tiny_tokenizer, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    train_by_sgd(tiny_model, tiny_tokenizer)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_nobody_asked_for_goes_whoever_takes_it_away(
    tiny_model, tiny_tokenizer, tmp_path, monkeypatch
):
    remove = Path.rmdir

    def after_another_process(folder):
        remove(folder)
        remove(folder)  # FileNotFoundError: arms run side by side share the folder

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "rmdir", after_another_process)
    make_trainer(tiny_model, tiny_tokenizer)
    assert not any(tmp_path.iterdir())


def test_the_config_is_left_as_it_was(tiny_model, tiny_tokenizer):
    before = tiny_model.config.to_dict()
    train_by_sgd(tiny_model, tiny_tokenizer)
    assert tiny_model.config.to_dict() == before


def test_all_models_have_lean_layers_while_ppo_trains_and_evaluates(
    tiny_model, tiny_tokenizer
):
    judge, value = (reward_model_from(tiny_model, seed) for seed in (0, 1))
    usual, seen = type(tiny_model.model.norm), []

    def norms():
        models = tiny_model, trainer.ref_model, judge, value
        return [type(model.model.norm) for model in models]

    def reward(completions):
        seen.append(norms())
        return [0.0] * len(completions)

    args = PPOConfig(
        **QUIET, max_steps=1, per_device_train_batch_size=2, max_completion_length=2
    )
    trainer = PPOTrainer(
        tiny_model,
        [reward, judge],
        args,
        PROMPTS,
        PROMPTS,
        processing_class=tiny_tokenizer,
        value_model=value,
    )
    trainer.train()
    trainer.evaluate()
    assert len(seen) == 2 and all(usual not in inside for inside in seen)
    assert norms() == [usual] * 4
