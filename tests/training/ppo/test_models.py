"""What a policy may be made of: adapters, wide heads, several ends, foreign caches."""

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaForCausalLM, MambaConfig, MambaForCausalLM

from alignlab.errors import AlignlabError
from alignlab.ppo import PPOTrainer
from tests.training.ppo.helpers import (
    CHAT,
    PROMPTS,
    assert_same,
    config,
    letters,
    make_trainer,
    parameters,
    talkative,
    train_by_sgd,
)

LORA = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_alpha=64)


@pytest.fixture
def adapted(tiny_model):
    """A policy with an adapter that says something, as after fine-tuning."""
    torch.manual_seed(0)
    model = get_peft_model(tiny_model, LORA)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    return model


def test_the_reference_of_an_adapter_is_the_policy_as_it_came(
    adapted, tiny_tokenizer, tmp_path
):
    with adapted.disable_adapter(), torch.no_grad():
        ids = torch.tensor([[5, 6, 7]])
        bare = adapted(ids).logits
    assert (adapted(ids).logits - bare).abs().max() > 0.1
    trainer = train_by_sgd(adapted, tiny_tokenizer, max_steps=3)
    rows = trainer.state.log_history
    assert rows[0]["kl_exact"] == 0
    assert rows[1]["kl_exact"] > 1e-4


@pytest.mark.parametrize(
    "settings", [{}, dict(kl_estimator="exact"), dict(kl_estimator="k3", kl_in="loss")]
)
def test_it_is_the_same_as_a_copy_of_the_policy(adapted, tiny_tokenizer, settings):
    other, args = copy.deepcopy(adapted), dict(max_steps=3) | settings
    expected = make(other, tiny_tokenizer, args, ref_model=copy.deepcopy(other))
    actual = make(adapted, tiny_tokenizer, args)
    assert_same(parameters(actual), parameters(expected), rtol=0, atol=0)


def make(model, tokenizer, settings, **models):
    args = config(learning_rate=1e-2, kl_coef=0.5, **settings)
    trainer = make_trainer(model, tokenizer, letters, PROMPTS, args=args, **models)
    trainer.train()
    return trainer


def test_only_the_trained_weights_are_kept_twice(adapted, tiny_tokenizer):
    trainer = make_trainer(adapted, tiny_tokenizer, letters)
    kept = sum(x.numel() for x in trainer._initial)
    assert trainer.ref_model is None
    assert kept < 0.2 * sum(p.numel() for p in adapted.parameters())


def test_a_frozen_adapter_is_refused(adapted, tiny_model, tiny_tokenizer, tmp_path):
    adapted.save_pretrained(tmp_path)
    bare = adapted.unload()
    frozen = PeftModel.from_pretrained(bare, tmp_path)
    with pytest.raises(AlignlabError) as error:
        make_trainer(frozen, tiny_tokenizer, letters)
    assert "is_trainable=True" in error.value.remedy


def widened(model, extra):
    """The same model with more ids, which it prefers to all others."""
    model.resize_token_embeddings(model.config.vocab_size + extra, mean_resizing=False)
    head = model.get_output_embeddings()
    hidden = torch.randn(64, head.weight.shape[1])
    with torch.no_grad():
        head.weight[-extra:] = 20 * hidden.mean(0)
    return model


def test_ids_that_the_tokenizer_lacks_are_never_sampled(tiny_model, tiny_tokenizer):
    vocabulary = len(tiny_tokenizer)
    narrow = copy.deepcopy(tiny_model)
    wide = widened(tiny_model, extra=24)
    seen = []

    def reward(completion_ids):
        seen.extend(token for ids in completion_ids for token in ids)
        return [float(len(ids)) for ids in completion_ids]

    with torch.no_grad():
        wide.get_output_embeddings().weight[vocabulary:] *= 100
    for model in (wide, narrow):
        trainer = train_by_sgd(model, tiny_tokenizer, reward, max_steps=2)
    assert seen and max(seen) < vocabulary
    ours, plain = (dict(m.named_parameters()) for m in (wide, narrow))
    name = "model.layers.0.mlp.up_proj.weight"
    torch.testing.assert_close(ours[name], plain[name], rtol=1e-4, atol=1e-6)
    assert trainer.state.log_history[0]["kl_exact"] == 0


def test_every_end_of_a_reply_ends_one(tiny_model, tiny_tokenizer):
    a = tiny_tokenizer.convert_tokens_to_ids("a")
    tiny_model.generation_config.eos_token_id = [tiny_tokenizer.eos_token_id, a]
    head = tiny_model.get_output_embeddings()
    with torch.no_grad():
        head.weight[a] = 3 * head.weight[a]
    trainer = make_trainer(
        tiny_model,
        tiny_tokenizer,
        letters,
        args=config(per_device_train_batch_size=64, max_completion_length=20),
    )
    assert a in trainer.stop_token_ids
    trainer.train()
    ended = [row["ended"] for row in trainer.completions]
    assert any(ended) and not all(ended)


def test_templates_take_arguments(tiny_model, tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }}{% endfor %}{{ mood or 'plain' }}"
    )
    rows = [CHAT[0], CHAT[0] | {"chat_template_kwargs": {"mood": "sad"}}]
    trainer = make_trainer(tiny_model, tokenizer, letters, rows)
    texts = [tokenizer.decode(ids) for ids in trainer.prompts.ids]
    assert texts[0].endswith("plain") and texts[1].endswith("sad")
    args = config(chat_template_kwargs={"mood": "glad"})
    trainer = make_trainer(tiny_model, tokenizer, letters, rows, args=args)
    texts = [tokenizer.decode(ids) for ids in trainer.prompts.ids]
    assert texts[0].endswith("glad") and texts[1].endswith("sad")


def test_a_model_whose_memory_is_not_in_our_cache_is_sampled_all_the_same(
    tiny_tokenizer,
):
    torch.manual_seed(0)
    model = MambaForCausalLM(
        MambaConfig(
            vocab_size=len(tiny_tokenizer),
            hidden_size=16,
            num_hidden_layers=2,
            state_size=4,
            initializer_range=0.3,
        )
    )
    talkative(model, tiny_tokenizer, by=2.0)
    trainer = train_by_sgd(model, tiny_tokenizer, max_steps=2, num_ppo_epochs=1)
    rows = trainer.state.log_history
    assert rows[0]["kl_exact"] == 0
    for row in rows[:2]:  # sampled and scored alike: the first pass has ratio 1
        assert row["ratio"] == pytest.approx(1, abs=1e-5)


class Forgetful(LlamaForCausalLM):
    """Sees only the last token once there is a cache: sampling goes wrong."""

    def forward(self, input_ids=None, past_key_values=None, **kwargs):
        seen = past_key_values is not None and past_key_values.get_seq_length()
        if seen:
            kwargs["position_ids"] = torch.zeros_like(input_ids)
        return super().forward(input_ids, past_key_values=past_key_values, **kwargs)


def test_a_model_that_is_sampled_otherwise_than_scored_is_refused(
    tiny_model, tiny_tokenizer
):
    tiny_model.__class__ = Forgetful
    trainer = make_trainer(tiny_model, tiny_tokenizer, letters)
    with pytest.raises(AlignlabError, match="when it samples them"):
        trainer.train()


def test_the_check_leaves_the_random_numbers_alone(tiny_model, tiny_tokenizer):
    trainer = make_trainer(tiny_model, tiny_tokenizer, letters)
    torch.manual_seed(3)
    expected = torch.get_rng_state()
    trainer._require_sampled_is_scored()
    assert torch.equal(torch.get_rng_state(), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_policy_given_by_name_is_trained_in_float32(
    tiny_model, tiny_tokenizer, tmp_path, dtype
):
    tiny_model.to(dtype).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    for asked, expected in (("float32", torch.float32), ("auto", dtype)):
        args = config(dtype=asked)
        trainer = PPOTrainer(str(tmp_path), letters, args, CHAT)
        assert trainer.policy.dtype == expected
