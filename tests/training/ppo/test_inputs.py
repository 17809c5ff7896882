"""What PPO takes (prompts, rewards, models, adapters), and what it refuses, and how."""

import copy
import math
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    HfArgumentParser,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from alignlab.errors import AlignlabError
from alignlab.models.base import save_model
from alignlab.models.reward import reward_model_from, score
from alignlab.ppo import PPOConfig, PPOTrainer

QUESTION = "What is the capital of France?"
TEXT = [{"prompt": QUESTION}, {"prompt": "Peru"}]
CHAT = [
    {"prompt": [{"role": "user", "content": QUESTION}], "answer": "Paris"},
    {"prompt": [{"role": "user", "content": "Peru"}], "answer": "sol"},
]


def config(**settings):
    defaults = dict(
        max_steps=1,
        per_device_train_batch_size=4,
        max_completion_length=5,
        learning_rate=1e-2,
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
    )
    return PPOConfig(**defaults | settings)


def ones(completions):
    return [1.0] * len(completions)


def made(model, tokenizer, reward=ones, data=TEXT, args=None, **models):
    args = config() if args is None else args
    return PPOTrainer(model, reward, args, data, processing_class=tokenizer, **models)


def trained(*args, **kwargs):
    trainer = made(*args, **kwargs)
    trainer.train()
    return trainer


# --- Prompts -----------------------------------------------------------------------


def test_chats_go_through_the_template_once(tiny_model, tiny_tokenizer):
    trainer = made(tiny_model, tiny_tokenizer, data=CHAT)
    expected = tiny_tokenizer.apply_chat_template(
        CHAT[0]["prompt"], add_generation_prompt=True, tokenize=False
    )
    expected = tiny_tokenizer(expected, add_special_tokens=False)["input_ids"]
    assert trainer.prompts.ids[0] == expected
    assert trainer.prompts.ids[0].count(2) == 1  # <|user|>


def test_text_is_read_as_it_is(tiny_model, tiny_tokenizer):
    trainer = made(tiny_model, tiny_tokenizer)
    assert trainer.prompts.ids[0] == tiny_tokenizer(QUESTION)["input_ids"]


def test_a_begin_token_is_never_put_twice(tiny_model, tiny_tokenizer):
    from tokenizers.processors import TemplateProcessing

    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.bos_token = "<|system|>"
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="<|system|> $A", special_tokens=[("<|system|>", 4)]
    )
    tokenizer.chat_template = "<|system|>" + tiny_tokenizer.chat_template
    data = [*CHAT, {"prompt": "Peru"}, {"prompt": "<|system|>Peru"}]
    trainer = made(tiny_model, tokenizer, data=data)
    for ids in trainer.prompts.ids:
        assert ids[0] == 4 and ids.count(4) == 1


def test_every_epoch_has_every_prompt_once(tiny_model, tiny_tokenizer):
    data = [{"prompt": str(number)} for number in range(7)]
    prompts = made(tiny_model, tiny_tokenizer, data=data).prompts
    series = [row for update in range(7) for row in prompts.shuffled(update, 3, seed=0)]
    epochs = [tuple(series[start : start + 7]) for start in (0, 7, 14)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len(set(epochs)) == 3
    assert series != [r for u in range(7) for r in prompts.shuffled(u, 3, seed=1)]


def test_a_datasets_dataset_is_taken(tiny_model, tiny_tokenizer):
    datasets = pytest.importorskip("datasets")
    trainer = made(tiny_model, tiny_tokenizer, data=datasets.Dataset.from_list(CHAT))
    assert trainer.prompts.columns == {"answer": ["Paris", "sol"]}
    assert trainer.prompts.given == [row["prompt"] for row in CHAT]


# --- Rewards -----------------------------------------------------------------------


def test_reward_functions_are_given_the_columns_they_name(tiny_model, tiny_tokenizer):
    seen = {}

    def named(prompts, completions, answer):
        seen["named"] = prompts, completions, answer
        return ones(completions)

    def everything(prompts, completions, **columns):
        seen["everything"] = sorted(columns)
        return ones(completions)

    trained(tiny_model, tiny_tokenizer, [named, everything], CHAT)
    prompts, completions, answers = seen["named"]
    assert len(prompts) == len(completions) == 4
    assert all(isinstance(text, str) and text == text.strip() for text in completions)
    assert all("<|" not in text for text in completions)
    expected = {row["prompt"][0]["content"]: row["answer"] for row in CHAT}
    assert answers == [expected[prompt[0]["content"]] for prompt in prompts]
    assert seen["everything"] == ["answer", "completion_ids", "prompt_ids"]


def test_two_functions_of_one_name_are_told_apart(tiny_model, tiny_tokenizer):
    trainer = trained(tiny_model, tiny_tokenizer, [ones, ones])
    row = trainer.state.log_history[0]
    assert row["reward/ones"] == row["reward/ones#2"] == 1
    assert row["score"] == 2


@pytest.fixture
def judge(tiny_model):
    model = reward_model_from(tiny_model, seed=1)
    with torch.no_grad():
        model.score.weight *= 20
    return model


def test_a_reward_model_reads_what_was_sampled(tiny_model, tiny_tokenizer, judge):
    seen = {}

    def listen(completions, prompt_ids, completion_ids):
        seen["ids"] = [p + c for p, c in zip(prompt_ids, completion_ids)]
        return ones(completions)

    trainer = trained(tiny_model, tiny_tokenizer, [judge, listen])
    with torch.no_grad():
        hidden = [
            judge.model(torch.tensor([ids])).last_hidden_state for ids in seen["ids"]
        ]
        expected = [judge.score(h[0, -1]).item() for h in hidden]
    name = "reward/LlamaForSequenceClassification"
    found = [row[name] for row in trainer.completions]
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert max(expected) - min(expected) > 0.01


def test_a_reward_model_with_a_tokenizer_reads_text(tiny_model, tiny_tokenizer, judge):
    other = copy.deepcopy(tiny_tokenizer)
    trainer = trained(tiny_model, tiny_tokenizer, (judge, other), CHAT)
    rows = trainer.completions
    expected = score(
        judge, other, [r["prompt"] for r in rows], [r["completion"] for r in rows]
    )
    assert [row["score"] for row in rows] == pytest.approx(list(expected), rel=1e-4)


def test_a_reward_model_with_a_tokenizer_reads_plain_text(
    tiny_model, tiny_tokenizer, judge
):
    trainer = trained(tiny_model, tiny_tokenizer, (judge, tiny_tokenizer), TEXT)
    again = trained(tiny_model, tiny_tokenizer, (judge, tiny_tokenizer), TEXT)
    assert all(math.isfinite(row["score"]) for row in again.completions)
    assert trainer.completions != again.completions  # the policy has moved


def test_a_reward_model_is_loaded_from_its_folder(
    tiny_model, tiny_tokenizer, judge, tmp_path
):
    save_model(judge, tiny_tokenizer, tmp_path)
    expected = trained(
        copy.deepcopy(tiny_model), tiny_tokenizer, (judge, tiny_tokenizer), CHAT
    )
    found = trained(tiny_model, tiny_tokenizer, str(tmp_path), CHAT)
    scores = [[row["score"] for row in t.completions] for t in (found, expected)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


# --- Value models and adapters -----------------------------------------------------


def test_a_separate_value_model_is_trained_beside_the_policy(
    tiny_model, tiny_tokenizer, judge
):
    before = copy.deepcopy(judge.state_dict())
    policy = copy.deepcopy(tiny_model.state_dict())
    trainer = trained(tiny_model, tiny_tokenizer, value_model=judge)
    for name, parameter in judge.named_parameters():
        if "embed" not in name:
            assert not torch.equal(parameter, before[name]), name
    assert any(not torch.equal(x, policy[n]) for n, x in tiny_model.named_parameters())
    assert "value_head" not in dict(trainer.model.named_children())


def test_the_value_model_can_start_as_the_reward_model(
    tiny_model, tiny_tokenizer, judge
):
    before = copy.deepcopy(judge.state_dict())
    trainer = made(tiny_model, tiny_tokenizer, judge, value_model="reward model")
    value_model = trainer.model.value_model
    for name, tensor in value_model.state_dict().items():
        assert torch.equal(tensor, before[name])
    trainer.train()
    assert not torch.equal(value_model.score.weight, before["score.weight"])
    for name, tensor in judge.state_dict().items():
        assert torch.equal(tensor, before[name])  # the judge stays what it was


def test_a_folder_that_nobody_asked_for_goes_whoever_takes_it_away(
    tiny_model, tiny_tokenizer, tmp_path, monkeypatch
):
    remove = Path.rmdir

    def after_another_process(folder):
        remove(folder)
        remove(folder)  # FileNotFoundError: arms run side by side share the folder

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "rmdir", after_another_process)
    made(tiny_model, tiny_tokenizer)
    assert not any(tmp_path.iterdir())


def test_a_value_model_is_saved_and_found_again(
    tiny_model, tiny_tokenizer, judge, tmp_path
):
    args = config(output_dir=str(tmp_path), save_steps=1, max_steps=1)
    trainer = trained(tiny_model, tiny_tokenizer, args=args, value_model=judge)
    args = config(output_dir=str(tmp_path), save_steps=1, max_steps=1)
    fresh = made(
        copy.deepcopy(tiny_model),
        tiny_tokenizer,
        args=args,
        value_model=reward_model_from(tiny_model, seed=5),
    )
    fresh.train(resume_from_checkpoint=True)
    for a, b in zip(fresh.model.parameters(), trainer.model.parameters(), strict=True):
        assert torch.equal(a, b)
    shared = made(copy.deepcopy(tiny_model), tiny_tokenizer, args=args)
    with pytest.raises(AlignlabError, match="another value function"):
        shared.train(resume_from_checkpoint=True)


def lora():
    peft = pytest.importorskip("peft")
    return peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )


def test_with_adapters_there_is_no_second_model(tiny_model, tiny_tokenizer, tmp_path):
    before = copy.deepcopy(tiny_model.state_dict())
    args = config(max_steps=2, learning_rate=0.05)
    trainer = trained(tiny_model, tiny_tokenizer, args=args, peft_config=lora())
    assert trainer.ref_model is None
    rows = trainer.state.log_history
    assert rows[0]["kl_exact"] == 0 and rows[1]["kl_exact"] > 0
    with trainer.policy.disable_adapter():
        plain = trainer.policy.get_base_model()
        for name, tensor in plain.state_dict().items():
            if "lora" not in name:
                key = name.replace(".base_layer", "")
                assert torch.equal(tensor, before[key]), name
    trained_names = [n for n, p in trainer.model.named_parameters() if p.requires_grad]
    assert all("lora" in n or n.startswith("value_head") for n in trained_names)

    trainer.save_model(str(tmp_path / "adapter"))
    from peft import PeftModel

    base = AutoModelForCausalLM.from_config(tiny_model.config)
    base.load_state_dict(before)
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter")
    ids = torch.randint(5, 350, (2, 7))
    torch.testing.assert_close(loaded(ids).logits, trainer.policy(ids).logits)


def test_adapters_off_is_the_reference_that_a_copy_would_be(tiny_model, tiny_tokenizer):
    """The first two updates are the same whichever way the reference is held."""
    rows = []
    for ref_model in (None, copy.deepcopy(tiny_model)):
        torch.manual_seed(0)
        trainer = trained(
            copy.deepcopy(tiny_model),
            tiny_tokenizer,
            args=config(max_steps=3, learning_rate=0.05, kl_estimator="exact"),
            ref_model=ref_model,
            peft_config=lora(),
        )
        rows.append(trainer.state.log_history[2])
    assert rows[0]["kl_exact"] > 0
    for name in ("kl", "kl_exact", "loss", "return"):
        assert rows[0][name] == pytest.approx(rows[1][name], rel=1e-4, abs=1e-7)


def test_a_model_is_loaded_by_its_folder(tiny_model, tiny_tokenizer, tmp_path):
    save_model(tiny_model, tiny_tokenizer, tmp_path)
    trainer = PPOTrainer(str(tmp_path), ones, config(), TEXT)
    assert trainer.processing_class.pad_token == tiny_tokenizer.pad_token
    for name, tensor in trainer.policy.state_dict().items():
        assert torch.equal(tensor, tiny_model.state_dict()[name])


def test_half_precision_runs(tiny_model, tiny_tokenizer):
    trainer = trained(tiny_model, tiny_tokenizer, args=config(bf16=True, max_steps=2))
    assert all(p.dtype == torch.float32 for p in trainer.policy.parameters())
    assert math.isfinite(trainer.state.log_history[1]["loss"])
    args = config(num_ppo_epochs=1)
    half = trained(tiny_model.bfloat16(), tiny_tokenizer, args=args)
    assert half.policy.dtype == torch.bfloat16
    assert abs(half.state.log_history[0]["ratio"] - 1) < 0.05


def test_the_config_is_read_from_a_command_line():
    line = "--total_episodes 64 --kl_target 3 --kl_estimator exact --whiten_rewards"
    (args,) = HfArgumentParser(PPOConfig).parse_args_into_dataclasses(
        [*line.split(), "--use_cpu", "--per_device_train_batch_size", "16"]
    )
    assert (args.max_steps, args.kl_target, args.whiten_rewards) == (4, 3.0, True)


# --- What is refused before training -----------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "train_dataset is NoneType"),
        ([], "train_dataset holds no row"),
        (iter(TEXT), "has no length"),
        ([{"question": "x"}], r"train_dataset\[0\] has no `prompt`"),
        (["x"], r"train_dataset\[0\] has no `prompt`"),
        ([*TEXT, {"prompt": ""}], r"train_dataset\[2\] is no prompt: ''"),
        ([*TEXT, {"prompt": []}], r"train_dataset\[2\] is no prompt"),
        ([*TEXT, {"prompt": None}], r"train_dataset\[2\] is no prompt: None"),
        ([*TEXT, {"prompt": 7}], r"train_dataset\[2\] is no prompt: 7"),
        ([*TEXT, {"prompt": "a b " * 99}], r"train_dataset\[2\] has \d+ tokens; .*123"),
    ],
)
def test_bad_prompts_are_named(tiny_model, tiny_tokenizer, data, message):
    with pytest.raises(AlignlabError, match=message):
        made(tiny_model, tiny_tokenizer, data=data)


def test_eval_prompts_are_checked_as_well(tiny_model, tiny_tokenizer):
    with pytest.raises(AlignlabError, match=r"eval_dataset\[0\] is no prompt"):
        made(tiny_model, tiny_tokenizer, eval_dataset=[{"prompt": ""}])


def test_a_chat_without_a_template_is_refused(tiny_model, tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(AlignlabError, match=r"train_dataset\[0\] is a chat"):
        made(tiny_model, tokenizer, data=CHAT)


def test_a_tokenizer_needs_a_padding_token(tiny_model, tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.pad_token = None
    with pytest.raises(AlignlabError, match="no padding token"):
        made(tiny_model, tokenizer)
    with pytest.raises(AlignlabError, match="processing_class is None"):
        made(tiny_model, None)


def test_the_reference_cannot_be_the_policy(tiny_model, tiny_tokenizer):
    with pytest.raises(AlignlabError, match="ref_model is the policy itself"):
        made(tiny_model, tiny_tokenizer, ref_model=tiny_model)


def test_models_that_do_not_fit_are_refused(tiny_model, tiny_tokenizer, judge):
    with pytest.raises(AlignlabError, match="no output layer"):
        made(tiny_model.model, tiny_tokenizer)
    with pytest.raises(AlignlabError, match="also the policy or a reward model"):
        made(tiny_model, tiny_tokenizer, judge, value_model=judge)
    with pytest.raises(AlignlabError, match="0 of reward_funcs are models"):
        made(tiny_model, tiny_tokenizer, value_model="reward model")
    sizes = dict(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    small = LlamaForSequenceClassification(
        LlamaConfig(vocab_size=20, num_labels=1, pad_token_id=0, **sizes)
    )
    with pytest.raises(AlignlabError, match="knows 20 tokens and has to read 356"):
        made(tiny_model, tiny_tokenizer, small)
    two = LlamaForSequenceClassification(
        LlamaConfig(vocab_size=356, num_labels=2, pad_token_id=0, **sizes)
    )
    for models in (dict(reward=two), dict(value_model=two)):
        with pytest.raises(AlignlabError, match="2 labels gives no single number"):
            made(tiny_model, tiny_tokenizer, **models)
    other = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=400, **sizes))
    with pytest.raises(AlignlabError, match="knows 400 tokens"):
        made(tiny_model, tiny_tokenizer, ref_model=other)
    judge.config.max_position_embeddings = 8
    with pytest.raises(AlignlabError, match="the reward model has 8 positions"):
        made(tiny_model, tiny_tokenizer, judge)


def test_adapters_cannot_be_put_on_twice(tiny_model, tiny_tokenizer):
    adapted = made(tiny_model, tiny_tokenizer, peft_config=lora()).policy
    with pytest.raises(AlignlabError, match="has adapters already"):
        made(adapted, tiny_tokenizer, peft_config=lora())


def test_reward_functions_are_checked(tiny_model, tiny_tokenizer):
    def wants(completions, solution):
        return ones(completions)

    with pytest.raises(AlignlabError, match="'wants' asks for 'solution'.*answer"):
        made(tiny_model, tiny_tokenizer, wants, CHAT)
    for bad in (7, [ones, None], []):
        with pytest.raises(AlignlabError, match="reward_funcs holds"):
            made(tiny_model, tiny_tokenizer, bad)
    with pytest.raises(AlignlabError, match="reward_weights has 2 numbers for 1"):
        made(tiny_model, tiny_tokenizer, args=config(reward_weights=[1.0, 2.0]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(kl_estimator="k3"), "'k3' with kl_in='reward' has the wrong gradient"),
        (dict(kl_estimator="k2"), "'k2' with kl_in='reward' has the wrong gradient"),
        (dict(kl_in="loss"), "'k1' with kl_in='loss'.*0 on average"),
        (dict(kl_estimator="k4"), "kl_estimator is 'k4'"),
        (dict(kl_in="both"), "kl_in is 'both'"),
        (dict(normalize_rewards="batch"), "normalize_rewards is 'batch'"),
        (dict(temperature=0.0), "temperature is 0.0"),
        (dict(num_ppo_epochs=0), "num_ppo_epochs is 0"),
        (dict(num_mini_batches=-1), "num_mini_batches is -1"),
        (dict(max_completion_length=0), "max_completion_length is 0"),
        (dict(cliprange=0), "cliprange is 0"),
        (dict(cliprange_value=-0.2), "cliprange_value is -0.2"),
        (dict(kl_coef=-0.1), "kl_coef is -0.1"),
        (dict(kl_coef=math.nan), "kl_coef is nan"),
        (dict(lam=1.5), "lam is 1.5"),
        (dict(gamma=-1), "gamma is -1"),
        (dict(kl_target=0), "kl_target is 0"),
        (dict(fp16=True), "fp16=True"),
        (dict(max_steps=3, total_episodes=8), "total_episodes is 8 and max_steps 3"),
        (
            dict(max_steps=-1, total_episodes=10),
            r"total_episodes=10 is not a whole number of batches of 4 .*Take 8 or 12",
        ),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(AlignlabError, match=message):
        config(**settings)


def test_endings_must_exist_to_be_missed(tiny_model, tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(AlignlabError, match="missing_eos_penalty is set"):
        made(tiny_model, tokenizer, args=config(missing_eos_penalty=1.0))
    with pytest.raises(AlignlabError, match="stop_token_id is 999"):
        made(tiny_model, tiny_tokenizer, args=config(stop_token_id=999))


# --- What stops a run --------------------------------------------------------------


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
        trained(tiny_model, tiny_tokenizer, bad)


@pytest.mark.parametrize("kind", ["array", "tensor"])
def test_rewards_may_come_as_arrays(tiny_model, tiny_tokenizer, kind):
    def reward(completions):
        values = torch.arange(len(completions)) / 2
        return values if kind == "tensor" else values.numpy()

    trainer = trained(tiny_model, tiny_tokenizer, reward)
    assert [row["score"] for row in trainer.completions] == [0, 0.5, 1, 1.5]


def test_a_loss_that_is_no_number_stops_before_the_step(
    tiny_model, tiny_tokenizer, tmp_path
):
    args = config(
        max_steps=5,
        output_dir=str(tmp_path),
        save_steps=1,
        cliprange_value=None,
        vf_coef=1.0,
        whiten_advantages=False,
    )
    calls = []

    def explodes(completions):
        calls.append(1)
        return [1e30 if len(calls) > 2 else 1.0] * len(completions)

    trainer = made(tiny_model, tiny_tokenizer, explodes, args=args)
    with pytest.raises(AlignlabError, match=r"In update 3 the loss is .*checkpoint-2"):
        trainer.train()
    for parameter in tiny_model.parameters():
        assert parameter.isfinite().all()


def test_an_exploded_loss_stops_without_a_checkpoint(tiny_model, tiny_tokenizer):
    args = config(loss_limit=0.01, vf_coef=1.0)
    with pytest.raises(AlignlabError, match="In update 1 the loss.*none was written"):
        trained(tiny_model, tiny_tokenizer, args=args)


def test_the_run_stops_at_its_kl_limit(tiny_model, tiny_tokenizer):
    args = config(max_steps=30, kl_limit=0.2, kl_coef=0.0, learning_rate=0.05)

    def vowels(completions):
        return [sum(c in "aeiou" for c in text) for text in completions]

    trainer = made(tiny_model, tiny_tokenizer, vowels, args=args)
    with pytest.warns(UserWarning, match="beyond kl_limit=0.2"):
        trainer.train()
    rows = [row for row in trainer.state.log_history if "kl_exact" in row]
    assert len(rows) < 30
    assert rows[-1]["kl_exact"] > 0.2 >= max(row["kl_exact"] for row in rows[:-1])
    assert rows[-1]["epochs"] == 0
