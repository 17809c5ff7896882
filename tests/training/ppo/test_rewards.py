"""Reward functions and models, and what becomes of their scores."""

import copy
import math

import pytest
import torch
from transformers import ProcessorMixin

from alignlab.errors import AlignlabError
from alignlab.models.base import save_model
from alignlab.models.reward import score
from alignlab.models.text import closing_ids
from alignlab.ppo import PPOTrainer
from alignlab.training.ppo.rewards import Reward
from tests import tiny_models
from tests.conftest import CHAT_TEMPLATE
from tests.training.ppo.helpers import (
    CHAT,
    QUESTION,
    TEXT,
    Recorder,
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
    talkative(tiny_model, tiny_tokenizer, by=3.0)
    bare = []

    def listen(completions, completion_ids):
        for text, ids in zip(completions, completion_ids):
            bare.append(text == tiny_tokenizer.decode(ids[:-1]))  # no white space
        return [0.0] * len(completions)

    args = config(per_device_train_batch_size=32)
    sources = [(judge, other), listen]
    trainer = make_and_train(tiny_model, tiny_tokenizer, sources, CHAT, args)
    rows = zip(trainer.completions, bare)
    rows = [row for row, is_bare in rows if row["ended"] and is_bare]
    assert 1 < len(rows) < 32
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


def wants(completions, solution):
    return ones(completions)


def wants_more(completions, solution, **columns):
    return ones(completions)


def test_reward_functions_are_checked(tiny_model, tiny_tokenizer, judge):
    for function in (wants, wants_more):
        with pytest.raises(
            AlignlabError, match="has an argument 'solution'.*train_dataset.*answer"
        ):
            make_trainer(tiny_model, tiny_tokenizer, function, CHAT)
    pair = [judge, tiny_tokenizer]  # a list has several sources
    for bad in (7, [ones, None], [], (), {"a": ones}, [(ones, ones)], pair, Recorder):
        with pytest.raises(AlignlabError, match="reward_funcs contains"):
            make_trainer(tiny_model, tiny_tokenizer, bad)
    with pytest.raises(AlignlabError, match=r"reward_weights is \[nan\]"):
        make_trainer(tiny_model, tiny_tokenizer, args=config(reward_weights=[math.nan]))
    with pytest.raises(AlignlabError, match="reward_weights has 2 numbers for 1"):
        make_trainer(tiny_model, tiny_tokenizer, args=config(reward_weights=[1.0, 2.0]))


def test_a_bad_reward_stops_with_the_sample(tiny_model, tiny_tokenizer):
    def bad(completions):
        return [0.0, math.nan] * (len(completions) // 2)

    with pytest.raises(
        AlignlabError, match="'bad' returned nan for completion 1, .* of prompt"
    ):
        make_and_train(tiny_model, tiny_tokenizer, bad)


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


def test_two_reward_models_in_a_tuple_are_two_sources(
    tiny_model, tiny_tokenizer, judge, tmp_path
):
    second = copy.deepcopy(judge)
    with torch.no_grad():
        second.score.weight *= -2
    save_model(second, tiny_tokenizer, tmp_path)
    args = config(per_device_train_batch_size=2)
    name = "reward/LlamaForSequenceClassification"
    scores = []
    for sources in (
        (judge, second),
        [(judge, tiny_tokenizer), (second, tiny_tokenizer)],
        ((judge, tiny_tokenizer), (second, tiny_tokenizer)),
        ((judge, tiny_tokenizer), str(tmp_path)),
        ((judge, tiny_tokenizer), (tmp_path, tiny_tokenizer)),
    ):
        trainer = make_and_train(
            copy.deepcopy(tiny_model), tiny_tokenizer, sources, TEXT, args
        )
        for row in trainer.completions:
            assert row[name + "#2"] == pytest.approx(-2 * row[name], rel=1e-4)
            assert row["score"] == pytest.approx(-row[name], rel=1e-4)
        scores.append([row["score"] for row in trainer.completions])
    for other in scores[2:]:
        assert other == pytest.approx(scores[1], rel=1e-5)


def test_a_reward_models_folder_needs_no_tokenizer_where_one_is_passed(
    tiny_model, tiny_tokenizer, judge, tmp_path
):
    judge.save_pretrained(tmp_path)
    scores = []
    for model in (judge, str(tmp_path)):
        source = model, tiny_tokenizer
        policy = copy.deepcopy(tiny_model)
        trainer = make_and_train(policy, tiny_tokenizer, source, CHAT)
        scores.append([row["score"] for row in trainer.completions])
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)
    tiny_model.save_pretrained(tmp_path)  # `transformers` would add a random head
    with pytest.raises(AlignlabError, match="2 labels"):
        make_trainer(tiny_model, tiny_tokenizer, (tmp_path, tiny_tokenizer))


def test_a_processor_stands_for_its_tokenizer(tiny_model, tiny_tokenizer, judge):
    class Processor(ProcessorMixin):
        def __init__(self, tokenizer):
            self.tokenizer = tokenizer

    processor = Processor(tiny_tokenizer)
    trainer = make_trainer(tiny_model, processor, (judge, processor), CHAT)
    assert trainer.processing_class is tiny_tokenizer
    assert trainer.rewards[0].tokenizer is tiny_tokenizer


def test_a_tuple_of_functions_is_several_sources(tiny_model, tiny_tokenizer):
    trainer = make_and_train(tiny_model, tiny_tokenizer, (ones, letters))
    assert trainer.reward_names == ["ones", "letters"]


def test_a_reward_model_given_by_name_is_read_in_float32(
    tiny_model, tiny_tokenizer, judge, tmp_path
):
    save_model(judge.to(torch.bfloat16), tiny_tokenizer, tmp_path)
    for source in (str(tmp_path), (str(tmp_path), tiny_tokenizer)):
        trainer = make_trainer(tiny_model, tiny_tokenizer, source, CHAT)
        assert trainer.rewards[0].model.dtype == torch.float32


def test_evaluation_data_has_to_fit_the_rewards(tiny_model, tiny_tokenizer, judge):
    def knows(completions, answer):
        return ones(completions)

    without = [{"prompt": row["prompt"]} for row in CHAT]
    make_trainer(tiny_model, tiny_tokenizer, knows, CHAT, eval_dataset=CHAT)
    with pytest.raises(AlignlabError, match="'answer', and eval_dataset has no such"):
        make_trainer(tiny_model, tiny_tokenizer, knows, CHAT, eval_dataset=without)
    trainer = make_trainer(tiny_model, tiny_tokenizer, knows, CHAT)
    with pytest.raises(AlignlabError, match="'answer', and eval_dataset has no such"):
        trainer.evaluate(without)

    judge.config.max_position_embeddings = 40
    long = [{"prompt": "What is the capital of France? " * 6}]
    for source in (judge, (judge, tiny_tokenizer)):
        make_trainer(tiny_model, tiny_tokenizer, source, TEXT, eval_dataset=TEXT)
        with pytest.raises(
            AlignlabError, match="prompt of eval_dataset .* the reward model has 40 pos"
        ):
            make_trainer(tiny_model, tiny_tokenizer, source, TEXT, eval_dataset=long)


def test_a_column_with_a_default_may_be_missing(tiny_model, tiny_tokenizer):
    seen = []

    def may_know(completions, answer=None):
        seen.append(answer)
        return ones(completions)

    without = [{"prompt": row["prompt"]} for row in CHAT]
    trainer = make_trainer(tiny_model, tiny_tokenizer, may_know, CHAT)
    trainer.evaluate(without)
    trainer.evaluate(CHAT)
    assert seen == [None, ["Paris", "sol"]]


def test_a_dialogues_end_takes_positions_too(tiny_model, tiny_tokenizer, judge):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = CHAT_TEMPLATE.replace("<|end|>", "<|end|>!!!")
    chat = [{"prompt": [{"role": "user", "content": "Peru"}]}]
    trainer = make_trainer(tiny_model, tokenizer, ones, chat)
    longest = len(trainer.prompts.ids[0]) + 5
    closing = len(closing_ids(tokenizer)) - 1
    assert closing > 0
    for source in (judge, (judge, tokenizer)):
        judge.config.max_position_embeddings = longest + closing
        make_trainer(tiny_model, tokenizer, source, chat)
        judge.config.max_position_embeddings = longest + closing - 1
        with pytest.raises(AlignlabError, match=f"may have {longest + closing} tokens"):
            make_trainer(tiny_model, tokenizer, source, chat)


def test_a_reward_models_tokenizer_needs_a_chat_template_for_chats(
    tiny_model, tiny_tokenizer, judge
):
    other = copy.deepcopy(tiny_tokenizer)
    other.chat_template = None
    make_trainer(tiny_model, tiny_tokenizer, (judge, other), TEXT)
    with pytest.raises(AlignlabError, match="no chat template"):
        make_trainer(tiny_model, tiny_tokenizer, (judge, other), CHAT)


def test_text_and_chats_may_be_mixed():
    tokenizer = tiny_models.tokenizer("plain")
    policy = tiny_models.speaker(tokenizer, "<|assistant|>", "Oslo.<|end|>")
    data = [{"prompt": "Say<|assistant|>"}, CHAT[0], {"prompt": "Peru<|assistant|>"}]
    judge = tiny_models.judge()
    args = config(per_device_train_batch_size=6)
    trainer = PPOTrainer(
        policy, (judge, tokenizer), args, data, processing_class=tokenizer
    )
    trainer.train()
    texts = {
        "Say<|assistant|>": "Say<|assistant|>Oslo.<|end|>",
        "Peru<|assistant|>": "Peru<|assistant|>Oslo.<|end|>",
        str(CHAT[0]["prompt"]): f"<|user|>{QUESTION}<|end|><|assistant|>Oslo.<|end|>",
    }
    for row in trainer.completions:
        ids = tokenizer(texts[str(row["prompt"])], return_tensors="pt")["input_ids"]
        with torch.no_grad():
            expected = judge(ids).logits.item()
        assert row["score"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", sorted(tiny_models.ENCODERS))
def test_an_encoder_may_give_the_reward(name):
    tokenizer = tiny_models.tokenizer("plain")
    model = tiny_models.classifier(name)
    policy = talkative(tiny_models.model(), tokenizer)
    args = config(per_device_train_batch_size=8)
    trainer = PPOTrainer(policy, model, args, TEXT, processing_class=tokenizer)
    seen = {}

    def listen(completions, prompt_ids, completion_ids):
        seen["ids"] = [p + c for p, c in zip(prompt_ids, completion_ids)]
        return ones(completions)

    trainer.rewards.append(Reward("listen", listen))
    trainer.reward_names.append("listen")
    trainer.train()
    with torch.no_grad():
        expected = [model(torch.tensor([ids])).logits.item() for ids in seen["ids"]]
    actual = [row[f"reward/{type(model).__name__}"] for row in trainer.completions]
    assert actual == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert max(expected) - min(expected) > 0.001
