"""Reward functions and models, and what becomes of their scores."""

import copy
import math

import pytest
import torch

from alignlab.errors import AlignlabError
from alignlab.models.base import save_model
from alignlab.models.reward import score
from tests.training.ppo.helpers import (
    CHAT,
    TEXT,
    config,
    letters,
    make_and_train,
    make_trainer,
    ones,
    talkative,
    train_by_sgd,
)


def test_reward_functions_are_given_the_columns_they_name(tiny_model, tiny_tokenizer):
    seen = {}

    def named(prompts, completions, answer):
        seen["named"] = prompts, completions, answer
        return ones(completions)

    def everything(prompts, completions, **columns):
        seen["everything"] = sorted(columns)
        return ones(completions)

    make_and_train(tiny_model, tiny_tokenizer, [named, everything], CHAT)
    prompts, completions, answers = seen["named"]
    assert len(prompts) == len(completions) == 4
    assert all(isinstance(text, str) and text == text.strip() for text in completions)
    assert all("<|" not in text for text in completions)
    expected = {row["prompt"][0]["content"]: row["answer"] for row in CHAT}
    assert answers == [expected[prompt[0]["content"]] for prompt in prompts]
    assert seen["everything"] == ["answer", "completion_ids", "prompt_ids"]


def test_two_functions_of_one_name_are_told_apart(tiny_model, tiny_tokenizer):
    trainer = make_and_train(tiny_model, tiny_tokenizer, [ones, ones])
    row = trainer.state.log_history[0]
    assert row["reward/ones"] == row["reward/ones#2"] == 1
    assert row["score"] == 2


def test_a_reward_model_reads_what_was_sampled(tiny_model, tiny_tokenizer, judge):
    seen = {}

    def listen(completions, prompt_ids, completion_ids):
        seen["ids"] = [p + c for p, c in zip(prompt_ids, completion_ids)]
        return ones(completions)

    trainer = make_and_train(tiny_model, tiny_tokenizer, [judge, listen])
    with torch.no_grad():
        hidden = [
            judge.model(torch.tensor([ids])).last_hidden_state for ids in seen["ids"]
        ]
        expected = [judge.score(h[0, -1]).item() for h in hidden]
    name = "reward/LlamaForSequenceClassification"
    actual = [row[name] for row in trainer.completions]
    assert actual == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert max(expected) - min(expected) > 0.01


def test_a_reward_model_with_a_tokenizer_reads_text(tiny_model, tiny_tokenizer, judge):
    other = copy.deepcopy(tiny_tokenizer)
    trainer = make_and_train(tiny_model, tiny_tokenizer, (judge, other), CHAT)
    rows = trainer.completions
    expected = score(
        judge, other, [r["prompt"] for r in rows], [r["completion"] for r in rows]
    )
    assert [row["score"] for row in rows] == pytest.approx(list(expected), rel=1e-4)


def test_a_reward_model_with_a_tokenizer_reads_plain_text(
    tiny_model, tiny_tokenizer, judge
):
    trainer = make_and_train(tiny_model, tiny_tokenizer, (judge, tiny_tokenizer), TEXT)
    again = make_and_train(tiny_model, tiny_tokenizer, (judge, tiny_tokenizer), TEXT)
    assert all(math.isfinite(row["score"]) for row in again.completions)
    assert trainer.completions != again.completions  # the policy has moved


def test_a_reward_model_is_loaded_from_its_folder(
    tiny_model, tiny_tokenizer, judge, tmp_path
):
    save_model(judge, tiny_tokenizer, tmp_path)
    expected = make_and_train(
        copy.deepcopy(tiny_model), tiny_tokenizer, (judge, tiny_tokenizer), CHAT
    )
    actual = make_and_train(tiny_model, tiny_tokenizer, str(tmp_path), CHAT)
    scores = [[row["score"] for row in t.completions] for t in (actual, expected)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


def test_reward_functions_are_checked(tiny_model, tiny_tokenizer):
    def wants(completions, solution):
        return ones(completions)

    with pytest.raises(
        AlignlabError, match="'wants' has an argument 'solution'.*answer"
    ):
        make_trainer(tiny_model, tiny_tokenizer, wants, CHAT)
    for bad in (7, [ones, None], []):
        with pytest.raises(AlignlabError, match="reward_funcs contains"):
            make_trainer(tiny_model, tiny_tokenizer, bad)
    with pytest.raises(AlignlabError, match="reward_weights has 2 numbers for 1"):
        make_trainer(tiny_model, tiny_tokenizer, args=config(reward_weights=[1.0, 2.0]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (lambda n: [0.0] * (n - 1), "'bad' returned 3 numbers for 4 completions"),
        (lambda n: None, "'bad' returned NoneType for 4 completions"),
        (lambda n: 1.0, "'bad' returned float for 4 completions"),
        (
            lambda n: [0.0, None] * 2,
            "'bad' returned None for completion 1, .* of prompt",
        ),
        (lambda n: [0.0, math.nan] * 2, "returned nan for completion 1"),
        (lambda n: [0.0, 0.0, 0.0, math.inf], "returned inf for completion 3"),
        (lambda n: [0.0, "good", 0.0, 0.0], "returned 'good' for completion 1"),
    ],
)
def test_a_bad_reward_stops_with_the_sample(
    tiny_model, tiny_tokenizer, values, message
):
    def bad(completions):
        return values(len(completions))

    with pytest.raises(AlignlabError, match=message):
        make_and_train(tiny_model, tiny_tokenizer, bad)


@pytest.mark.parametrize("kind", ["array", "tensor"])
def test_rewards_may_come_as_arrays(tiny_model, tiny_tokenizer, kind):
    def reward(completions):
        values = torch.arange(len(completions)) / 2
        return values if kind == "tensor" else values.numpy()

    trainer = make_and_train(tiny_model, tiny_tokenizer, reward)
    assert [row["score"] for row in trainer.completions] == [0, 0.5, 1, 1.5]


def test_missing_endings_cost_their_penalty(tiny_model, tiny_tokenizer):
    talkative(tiny_model, tiny_tokenizer)
    trainer = train_by_sgd(
        tiny_model, tiny_tokenizer, missing_eos_penalty=2.0, kl_coef=0
    )
    row = trainer.state.log_history[0]
    assert 0.1 < row["eos_rate"] < 0.9
    expected = row["score"] - 2.0 * (1 - row["eos_rate"])
    assert row["return"] == pytest.approx(expected, rel=1e-5)


def test_rewards_are_weighted_and_normalised(tiny_model, tiny_tokenizer):
    def longer(completions):
        return [float(len(text)) for text in completions]

    trainer = train_by_sgd(
        tiny_model,
        tiny_tokenizer,
        [letters, longer],
        reward_weights=[2.0, 0.5],
        normalize_rewards="initial",
        kl_coef=0,
    )
    row = trainer.state.log_history[0]
    mix = 2 * row["reward/letters"] + 0.5 * row["reward/longer"]
    assert row["score"] == pytest.approx(mix, rel=1e-5)
    scores = torch.tensor([c["score"] for c in trainer.completions])
    assert scores.std() > 0.1
    # Without KL, the return of an episode is its normalised score.
    assert row["return"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("how", ["initial", "running"])
def test_score_statistics_are_the_first_updates_or_all(tiny_model, tiny_tokenizer, how):
    seen = []

    def remembered(completions):
        seen.append(letters(completions))
        return seen[-1]

    trainer = train_by_sgd(
        tiny_model, tiny_tokenizer, remembered, max_steps=3, normalize_rewards=how
    )
    numbers = torch.tensor(seen[:1] if how == "initial" else seen).flatten()
    count, mean, squares = trainer.state.stateful_callbacks["PPOTrainer"]["scores"]
    assert count == len(numbers)
    assert mean == pytest.approx(numbers.mean().item(), rel=1e-5)
    assert squares / count == pytest.approx(numbers.var(correction=0).item(), rel=1e-4)
