"""Models and tokenizers that PPO takes, and those it refuses."""

import copy

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BartForConditionalGeneration,
    BartForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from alignlab.errors import AlignlabError
from alignlab.models.base import save_model
from alignlab.models.reward import reward_model_from
from alignlab.ppo import PPOTrainer
from tests import tiny_models
from tests.training.ppo.helpers import (
    CHAT,
    TEXT,
    config,
    lora,
    make_and_train,
    make_trainer,
    ones,
    talkative,
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


def test_the_eos_token_pads_where_there_is_no_other(tiny_model, tiny_tokenizer, judge):
    scores = []
    for pad_token in ("<|pad|>", None):
        tokenizer = copy.deepcopy(tiny_tokenizer)
        tokenizer.pad_token = pad_token
        model = talkative(copy.deepcopy(tiny_model), tokenizer, by=3.0)
        sources = [judge, (judge, tokenizer)]
        trainer = make_and_train(model, tokenizer, sources, CHAT)
        scores.append([row["score"] for row in trainer.completions])
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)
    tokenizer.eos_token = None
    with pytest.raises(AlignlabError, match="neither a padding nor an EOS"):
        make_trainer(tiny_model, tokenizer)
    with pytest.raises(AlignlabError, match="neither a padding nor an EOS"):
        make_trainer(tiny_model, tiny_tokenizer, (judge, tokenizer), TEXT)
    with pytest.raises(AlignlabError, match="processing_class is None"):
        make_trainer(tiny_model, None)


def test_the_reference_cannot_be_the_policy(tiny_model, tiny_tokenizer):
    with pytest.raises(AlignlabError, match="ref_model is the policy itself"):
        make_trainer(tiny_model, tiny_tokenizer, ref_model=tiny_model)


SIZES = dict(
    hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
)


def test_models_that_do_not_fit_are_refused(tiny_model, tiny_tokenizer, judge):
    with pytest.raises(AlignlabError, match="no output layer"):
        make_trainer(tiny_model.model, tiny_tokenizer)
    with pytest.raises(AlignlabError, match="also the policy or a reward model"):
        make_trainer(tiny_model, tiny_tokenizer, judge, value_model=judge)
    with pytest.raises(AlignlabError, match="0 of reward_funcs are models"):
        make_trainer(tiny_model, tiny_tokenizer, value_model="reward model")
    small = LlamaForSequenceClassification(
        LlamaConfig(vocab_size=20, num_labels=1, pad_token_id=0, **SIZES)
    )
    for models in (
        dict(reward=small),
        dict(reward=(small, tiny_tokenizer)),
        dict(value_model=small),
    ):
        with pytest.raises(AlignlabError, match="336 tokens that Llama.* no embedding"):
            make_trainer(tiny_model, tiny_tokenizer, **models)
    two = LlamaForSequenceClassification(
        LlamaConfig(vocab_size=356, num_labels=2, pad_token_id=0, **SIZES)
    )
    for models in (
        dict(reward=two),
        dict(reward=(two, tiny_tokenizer)),
        dict(value_model=two),
    ):
        with pytest.raises(AlignlabError, match="2 labels gives no single number"):
            make_trainer(tiny_model, tiny_tokenizer, **models)
    other = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=400, **SIZES))
    with pytest.raises(AlignlabError, match="ref_model has a vocabulary of 400 tokens"):
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
    tokenizer.eos_token = tokenizer.chat_template = None
    tiny_model.generation_config.eos_token_id = None
    with pytest.raises(AlignlabError, match="missing_eos_penalty is set"):
        make_trainer(tiny_model, tokenizer, args=config(missing_eos_penalty=1.0))
    with pytest.raises(AlignlabError, match="stop_token_id is 999"):
        make_trainer(tiny_model, tiny_tokenizer, args=config(stop_token_id=999))


# --- Given by name ------------------------------------------------------------------


@pytest.mark.parametrize("with_tokenizer", [True, False])
def test_a_folder_of_adapters_is_trained_further(
    tiny_model, tiny_tokenizer, tmp_path, with_tokenizer
):
    peft = pytest.importorskip("peft")
    save_model(tiny_model, tiny_tokenizer, tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    adapted = peft.get_peft_model(base, lora())
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    adapted.save_pretrained(tmp_path / "adapter")
    ids = torch.tensor([[5, 6, 7]])
    tokenizer = tiny_tokenizer if with_tokenizer else None
    trainer = PPOTrainer(
        str(tmp_path / "adapter"), ones, config(), TEXT, processing_class=tokenizer
    )
    trained = [n for n, p in trainer.policy.named_parameters() if p.requires_grad]
    assert trained and all("lora" in name for name in trained)
    with torch.no_grad():
        assert torch.equal(trainer.policy(ids).logits, adapted(ids).logits)


def test_a_folder_needs_no_tokenizer_where_one_is_passed(
    tiny_model, tiny_tokenizer, tmp_path
):
    tiny_model.to(torch.bfloat16).save_pretrained(tmp_path)
    trainer = PPOTrainer(
        str(tmp_path), ones, config(), TEXT, processing_class=tiny_tokenizer
    )
    assert trainer.policy.dtype == torch.float32


# --- What cannot be used ------------------------------------------------------------


def bart(kind):
    sizes = dict(d_model=16, encoder_ffn_dim=8, decoder_ffn_dim=8)
    sizes |= dict(encoder_layers=1, decoder_layers=1)
    sizes |= dict(encoder_attention_heads=2, decoder_attention_heads=2)
    return kind(BartConfig(vocab_size=356, num_labels=1, **sizes))


def test_encoder_decoders_are_refused(tiny_model, tiny_tokenizer):
    with pytest.raises(AlignlabError, match="encoder-decoder"):
        make_trainer(bart(BartForConditionalGeneration), tiny_tokenizer)
    reward = bart(BartForSequenceClassification)
    for source in (reward, (reward, tiny_tokenizer)):
        with pytest.raises(AlignlabError, match="encoder-decoder"):
            make_trainer(tiny_model, tiny_tokenizer, source)


@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PrefixTuningConfig"])
def test_virtual_tokens_are_refused(tiny_model, tiny_tokenizer, judge, kind):
    peft = pytest.importorskip("peft")
    settings = getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=3)
    with pytest.raises(AlignlabError, match="virtual tokens"):
        make_trainer(copy.deepcopy(tiny_model), tiny_tokenizer, peft_config=settings)
    tuned = peft.get_peft_model(copy.deepcopy(tiny_model), settings)
    with pytest.raises(AlignlabError, match="virtual tokens"):
        make_trainer(tuned, tiny_tokenizer)
    with pytest.raises(AlignlabError, match="virtual tokens"):
        make_trainer(tiny_model, tiny_tokenizer, ref_model=tuned)
    settings = getattr(peft, kind)(task_type="SEQ_CLS", num_virtual_tokens=3)
    reader = peft.get_peft_model(judge, settings)
    for source in (reader, (reader, tiny_tokenizer)):
        with pytest.raises(AlignlabError, match="virtual tokens"):
            make_trainer(tiny_model, tiny_tokenizer, source)


def test_an_added_token_needs_an_embedding(tiny_model, tiny_tokenizer, judge):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.add_special_tokens({"pad_token": "<|new|>"})
    with pytest.raises(AlignlabError) as refused:
        make_trainer(tiny_model, tokenizer)
    assert "'<|new|>'" in refused.value.message
    assert "resize_token_embeddings" in refused.value.remedy
    wide = copy.deepcopy(tiny_model)
    wide.resize_token_embeddings(len(tokenizer))
    make_trainer(wide, tokenizer)
    for models in (
        dict(ref_model=tiny_model),
        dict(reward=judge),
        dict(reward=(judge, tokenizer)),
        dict(value_model=judge),
    ):
        with pytest.raises(AlignlabError, match="no embedding for"):
            make_trainer(wide, tokenizer, **models)
    make_trainer(wide, tokenizer, (judge, tiny_tokenizer))


def test_a_reference_may_have_more_ids_that_nobody_uses(tiny_model, tiny_tokenizer):
    models = [copy.deepcopy(tiny_model) for _ in range(2)]
    for model, size in zip(models, (360, 384)):
        model.resize_token_embeddings(size)
    policy, reference = models
    trainer = make_and_train(policy, tiny_tokenizer, ref_model=reference)
    assert trainer.state.log_history[0]["kl_exact"] == pytest.approx(0, abs=1e-6)
    with pytest.raises(AlignlabError, match="ref_model has a vocabulary of 384"):
        make_trainer(tiny_model, tiny_tokenizer, ref_model=reference)


class Judge(nn.Module):
    def forward(self, input_ids):
        return input_ids.float().mean(1)


def test_a_module_of_ones_own_is_no_reward_model(tiny_model, tiny_tokenizer):
    for models in (
        dict(reward=Judge()),
        dict(reward=(Judge(), tiny_tokenizer)),
        dict(value_model=Judge()),
        dict(value_model="a folder"),
        dict(ref_model="a folder"),
    ):
        with pytest.raises(AlignlabError, match="no model of `transformers`") as error:
            make_trainer(tiny_model, tiny_tokenizer, **models)
        argument = next(iter(models)).replace("reward", "reward_funcs")
        assert error.value.message.startswith(argument)


def test_models_that_share_weights_are_refused(tiny_model, tiny_tokenizer, judge):
    judge.model = tiny_model.model
    for source in (judge, (judge, tiny_tokenizer)):
        with pytest.raises(AlignlabError, match="reward model shares weights with the"):
            make_trainer(tiny_model, tiny_tokenizer, source)
    with pytest.raises(AlignlabError, match="value_model .* shares weights"):
        make_trainer(tiny_model, tiny_tokenizer, value_model=judge)
    twin = copy.deepcopy(tiny_model)
    twin.model = tiny_model.model
    with pytest.raises(AlignlabError, match="ref_model shares weights with the policy"):
        make_trainer(tiny_model, tiny_tokenizer, ref_model=twin)


def test_a_model_with_another_tokenizer_does_not_read_the_policys_tokens(
    tiny_model, tiny_tokenizer, tmp_path
):
    other, chatml = tiny_models.judge(), tiny_models.tokenizer("chatml")
    other.resize_token_embeddings(len(tiny_tokenizer))
    save_model(other, chatml, tmp_path)
    loaded = LlamaForSequenceClassification.from_pretrained(tmp_path)
    with pytest.raises(AlignlabError, match="has a tokenizer of its own, in which"):
        make_trainer(tiny_model, tiny_tokenizer, loaded)
    make_trainer(tiny_model, tiny_tokenizer, (loaded, chatml))
    save_model(other, tiny_tokenizer, tmp_path)
    make_trainer(tiny_model, tiny_tokenizer, loaded)


# --- Value models -------------------------------------------------------------------


def test_a_value_model_has_to_be_trained(tiny_model, tiny_tokenizer, judge):
    judge.requires_grad_(False)
    with pytest.raises(AlignlabError, match="Nothing of the value model can be train"):
        make_trainer(tiny_model, tiny_tokenizer, value_model=judge)


def test_a_copy_of_a_frozen_reward_model_is_trained(tiny_model, tiny_tokenizer, judge):
    judge.requires_grad_(False).to(torch.bfloat16)
    trainer = make_and_train(
        tiny_model, tiny_tokenizer, judge, value_model="reward model"
    )
    value = trainer.model.value_model
    assert value.dtype == torch.float32
    assert all(parameter.requires_grad for parameter in value.parameters())
    assert (value.score.weight - judge.score.weight.float()).abs().max() > 1e-3


def test_a_value_model_starts_as_a_reward_model_with_its_adapters(
    tiny_model, tiny_tokenizer, judge
):
    peft = pytest.importorskip("peft")
    settings = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["q_proj"])
    reader = peft.get_peft_model(judge, settings)
    with torch.no_grad():
        for name, parameter in reader.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    trainer = make_trainer(
        tiny_model, tiny_tokenizer, reader, value_model="reward model"
    )
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        value = trainer.model.values_by_model(ids, ids == 7)
        expected = reader(ids).logits[0]
        with reader.disable_adapter():
            bare = reader(ids).logits[0]
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert abs(bare.item() - expected.item()) > 0.01
    trainer.train()
    with pytest.raises(AlignlabError, match="value_model has peft adapters"):
        make_trainer(tiny_model, tiny_tokenizer, value_model=reader)


def test_a_value_model_does_not_know_the_future():
    tokenizer = tiny_models.tokenizer("plain")
    encoder = tiny_models.classifier("bert")
    for models in (
        dict(value_model=encoder),
        dict(reward=encoder, value_model="reward model"),
    ):
        with pytest.raises(AlignlabError, match="a token sees those that follow it"):
            make_trainer(tiny_models.model(), tokenizer, **models)


def test_a_value_model_may_have_another_size(tiny_model, tiny_tokenizer):
    value = LlamaForSequenceClassification(
        LlamaConfig(vocab_size=356, num_labels=1, pad_token_id=0, **SIZES)
    )
    before = value.score.weight.detach().clone()
    make_and_train(tiny_model, tiny_tokenizer, value_model=value)
    assert (value.score.weight - before).abs().max() > 1e-3


def test_every_model_has_the_positions(tiny_model, tiny_tokenizer):
    for argument, model in dict(
        ref_model=copy.deepcopy(tiny_model), value_model=reward_model_from(tiny_model)
    ).items():
        model.config.max_position_embeddings = 8
        with pytest.raises(AlignlabError, match=f"{argument} has 8 positions"):
            make_trainer(tiny_model, tiny_tokenizer, **{argument: model})
