"""Models and tokenizers that PPO takes, and those it refuses."""

import copy

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from alignlab.errors import AlignlabError
from alignlab.models.base import save_model
from alignlab.ppo import PPOTrainer
from tests.training.ppo.helpers import (
    TEXT,
    config,
    lora,
    make_and_train,
    make_trainer,
    ones,
)


def test_a_model_is_loaded_by_its_folder(tiny_model, tiny_tokenizer, tmp_path):
    save_model(tiny_model, tiny_tokenizer, tmp_path)
    trainer = PPOTrainer(str(tmp_path), ones, config(), TEXT)
    assert trainer.processing_class.pad_token == tiny_tokenizer.pad_token
    for name, tensor in trainer.policy.state_dict().items():
        assert torch.equal(tensor, tiny_model.state_dict()[name])


def test_with_adapters_there_is_no_second_model(tiny_model, tiny_tokenizer, tmp_path):
    before = copy.deepcopy(tiny_model.state_dict())
    args = config(max_steps=2, learning_rate=0.05)
    trainer = make_and_train(tiny_model, tiny_tokenizer, args=args, peft_config=lora())
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
        trainer = make_and_train(
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


def test_a_tokenizer_needs_a_padding_token(tiny_model, tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.pad_token = None
    with pytest.raises(AlignlabError, match="no padding token"):
        make_trainer(tiny_model, tokenizer)
    with pytest.raises(AlignlabError, match="processing_class is None"):
        make_trainer(tiny_model, None)


def test_the_reference_cannot_be_the_policy(tiny_model, tiny_tokenizer):
    with pytest.raises(AlignlabError, match="ref_model is the policy itself"):
        make_trainer(tiny_model, tiny_tokenizer, ref_model=tiny_model)


def test_models_that_do_not_fit_are_refused(tiny_model, tiny_tokenizer, judge):
    with pytest.raises(AlignlabError, match="no output layer"):
        make_trainer(tiny_model.model, tiny_tokenizer)
    with pytest.raises(AlignlabError, match="also the policy or a reward model"):
        make_trainer(tiny_model, tiny_tokenizer, judge, value_model=judge)
    with pytest.raises(AlignlabError, match="0 of reward_funcs are models"):
        make_trainer(tiny_model, tiny_tokenizer, value_model="reward model")
    sizes = dict(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    small = LlamaForSequenceClassification(
        LlamaConfig(vocab_size=20, num_labels=1, pad_token_id=0, **sizes)
    )
    with pytest.raises(
        AlignlabError, match="has a vocabulary of 20 tokens and needs one of 356"
    ):
        make_trainer(tiny_model, tiny_tokenizer, small)
    two = LlamaForSequenceClassification(
        LlamaConfig(vocab_size=356, num_labels=2, pad_token_id=0, **sizes)
    )
    for models in (dict(reward=two), dict(value_model=two)):
        with pytest.raises(AlignlabError, match="2 labels gives no single number"):
            make_trainer(tiny_model, tiny_tokenizer, **models)
    other = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=400, **sizes))
    with pytest.raises(AlignlabError, match="has a vocabulary of 400 tokens"):
        make_trainer(tiny_model, tiny_tokenizer, ref_model=other)
    judge.config.max_position_embeddings = 8
    with pytest.raises(AlignlabError, match="the reward model has 8 positions"):
        make_trainer(tiny_model, tiny_tokenizer, judge)


def test_adapters_cannot_be_put_on_twice(tiny_model, tiny_tokenizer):
    adapted = make_trainer(tiny_model, tiny_tokenizer, peft_config=lora()).policy
    with pytest.raises(AlignlabError, match="has adapters already"):
        make_trainer(adapted, tiny_tokenizer, peft_config=lora())


def test_endings_must_exist_to_be_missed(tiny_model, tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(AlignlabError, match="missing_eos_penalty is set"):
        make_trainer(tiny_model, tokenizer, args=config(missing_eos_penalty=1.0))
    with pytest.raises(AlignlabError, match="stop_token_id is 999"):
        make_trainer(tiny_model, tiny_tokenizer, args=config(stop_token_id=999))
