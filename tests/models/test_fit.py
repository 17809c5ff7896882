"""What fits and what is refused, in words a user knows."""

import copy
import warnings

import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BartForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertLMHeadModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2ForTokenClassification,
    GPT2Model,
    RobertaConfig,
    RobertaForCausalLM,
)

from alignlab.errors import AlignlabError
from alignlab.models.fit import (
    output_width,
    require_causal_lm,
    require_scalar_head,
    require_trainable,
    require_vocabulary,
    text_inputs,
    vocabulary_size,
)
from tests.models.conftest import KINDS

peft = pytest.importorskip("peft")

TINY_BERT = dict(
    vocab_size=60,
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
)
TINY_GPT2 = dict(vocab_size=60, n_embd=16, n_layer=1, n_head=2)


# --- Causal language models -----------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_causal_language_models_fit(model_of, kind):
    model = model_of(kind).float().train()
    require_causal_lm(model)
    require_trainable(model)
    assert model.training
    size = 60 if kind != "llama" and kind != "lora" else model.config.vocab_size
    assert vocabulary_size(model) == size
    hidden = model(torch.tensor([[1, 2, 3]]), **told(model)).logits.shape[-1]
    assert hidden == size


def told(model):
    return text_inputs(model, torch.tensor([[1, 2, 3]]))


def test_sizes_are_those_of_the_output_layer(model_of, tiny_model):
    opt = model_of("opt")
    assert (output_width(opt), opt.config.hidden_size) == (8, 16)
    adapted = peft.get_peft_model(
        tiny_model,
        peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"]),
    )
    assert output_width(adapted) == 32
    assert vocabulary_size(adapted) == tiny_model.config.vocab_size


def test_what_is_no_causal_language_model_is_refused():
    bart = BartForConditionalGeneration(
        BartConfig(
            vocab_size=60,
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
        )
    )
    with pytest.raises(AlignlabError, match="encoder-decoder"):
        require_causal_lm(bart)
    with pytest.raises(AlignlabError, match="GPT2Model has no output layer"):
        require_causal_lm(GPT2Model(GPT2Config(**TINY_GPT2)))


def test_encoders_fit_only_as_decoders_that_count_from_zero():
    torch.manual_seed(0)
    with pytest.raises(AlignlabError, match="sees those that follow.*is_decoder=True"):
        require_causal_lm(BertLMHeadModel(BertConfig(**TINY_BERT)))
    require_causal_lm(BertLMHeadModel(BertConfig(**TINY_BERT, is_decoder=True)))
    roberta = RobertaForCausalLM(RobertaConfig(**TINY_BERT, is_decoder=True))
    with pytest.raises(AlignlabError, match="does not count the positions"):
        require_causal_lm(roberta)


@pytest.mark.parametrize("kind", ["PrefixTuningConfig", "PromptTuningConfig"])
def test_virtual_tokens_are_refused(tiny_model, kind):
    settings = getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(AlignlabError, match="virtual tokens.*Train LoRA"):
        require_causal_lm(peft.get_peft_model(tiny_model, settings))


def test_models_of_images_are_told_in_training_that_all_is_text(model_of):
    ids = torch.tensor([[1, 2, 3]])
    model = model_of("gemma3 multimodal")
    assert text_inputs(model, ids, use_cache=False) == {"use_cache": False}
    told = text_inputs(model.train(), ids)["token_type_ids"]
    assert torch.equal(told, torch.zeros_like(ids))
    gpt2 = model_of("gpt2").train()  # would add an embedding
    assert "token_type_ids" not in text_inputs(gpt2, ids)
    bloom = model_of("bloom")
    assert "position_ids" not in text_inputs(bloom, ids, position_ids=ids)


# --- Training -------------------------------------------------------------------------


def test_what_training_would_not_change_is_refused(tiny_model, tmp_path):
    settings = peft.LoraConfig(target_modules=["q_proj"])
    adapted = peft.get_peft_model(copy.deepcopy(tiny_model), settings)
    require_trainable(adapted)
    adapted.save_pretrained(tmp_path)
    frozen = peft.PeftModel.from_pretrained(copy.deepcopy(tiny_model), tmp_path)
    with pytest.raises(AlignlabError, match="policy.*is_trainable=True"):
        require_trainable(frozen)
    require_trainable(
        peft.PeftModel.from_pretrained(
            copy.deepcopy(tiny_model), tmp_path, is_trainable=True
        )
    )
    tiny_model.requires_grad_(False)
    with pytest.raises(AlignlabError, match=r"value model.*requires_grad_\(True\)"):
        require_trainable(tiny_model, "value model")


def test_an_adapter_that_is_not_in_use_does_not_count(tiny_model, tmp_path):
    settings = peft.LoraConfig(target_modules=["q_proj"])
    adapted = peft.get_peft_model(tiny_model, settings)
    adapted.save_pretrained(tmp_path)
    adapted.load_adapter(tmp_path, "frozen", is_trainable=False)
    require_trainable(adapted)
    adapted.set_adapter("frozen")
    for name, parameter in adapted.named_parameters():
        parameter.requires_grad_(".default." in name)
    with pytest.raises(AlignlabError, match="active adapter"):
        require_trainable(adapted)


def test_coarse_weights_bring_a_warning_and_coarse_frozen_ones_do_not(tiny_model):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        require_trainable(tiny_model)
        settings = peft.LoraConfig(target_modules=["q_proj"])
        coarse = copy.deepcopy(tiny_model).bfloat16()
        require_trainable(peft.get_peft_model(coarse, settings))
    with pytest.warns(UserWarning, match='bfloat16.*dtype="float32".*bf16=True'):
        require_trainable(tiny_model.bfloat16())


# --- Tokens ---------------------------------------------------------------------------


def test_tokens_without_an_embedding_are_refused(tiny_model, tiny_tokenizer):
    require_vocabulary(tiny_model, tiny_tokenizer)
    more = copy.deepcopy(tiny_tokenizer)
    more.add_special_tokens({"pad_token": "<|new|>"})
    size = len(tiny_tokenizer)
    with pytest.raises(
        AlignlabError, match=rf"'<\|new\|>', number {size} .*resize_token_embeddings"
    ):
        require_vocabulary(tiny_model, more)
    tiny_model.resize_token_embeddings(len(more))
    require_vocabulary(tiny_model, more)


def test_places_of_images_need_no_embedding(tiny_model, tiny_tokenizer):
    """Gemma 3's small models share the tokenizer of those that see images."""
    more = copy.deepcopy(tiny_tokenizer)
    more.add_special_tokens({"additional_special_tokens": ["<image>"]})
    more.image_token = "<image>"
    require_vocabulary(tiny_model, more)


# --- One number per text --------------------------------------------------------------


def test_one_label_makes_a_reward_model_whatever_the_head_is_called():
    for kind, config in (
        (GPT2ForSequenceClassification, GPT2Config(**TINY_GPT2, num_labels=1)),
        (BertForSequenceClassification, BertConfig(**TINY_BERT, num_labels=1)),
    ):
        model = kind(config)
        require_scalar_head(model)
        settings = peft.LoraConfig(task_type="SEQ_CLS", target_modules="all-linear")
        require_scalar_head(peft.get_peft_model(model, settings))


def test_what_gives_no_single_number_is_refused(tiny_model):
    two = GPT2ForSequenceClassification(GPT2Config(**TINY_GPT2, num_labels=2))
    with pytest.raises(AlignlabError, match="with 2 labels.*num_labels=1"):
        require_scalar_head(two)
    tiny_model.config.num_labels = 1
    tagger = GPT2ForTokenClassification(GPT2Config(**TINY_GPT2, num_labels=1))
    for model in (tiny_model, tagger):
        with pytest.raises(AlignlabError, match="no head that gives one number"):
            require_scalar_head(model)


def test_what_has_virtual_tokens_or_two_texts_gives_no_reward(tiny_model):
    judge = GPT2ForSequenceClassification(GPT2Config(**TINY_GPT2, num_labels=1))
    settings = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2)
    with pytest.raises(AlignlabError, match="virtual tokens.*LoRA"):
        require_scalar_head(peft.get_peft_model(judge, settings))
    config = BartConfig(vocab_size=60, d_model=16, encoder_layers=1, decoder_layers=1)
    config.num_labels = 1
    with pytest.raises(AlignlabError, match="encoder-decoder"):
        require_scalar_head(BartForSequenceClassification(config))


@pytest.mark.parametrize("check", [require_causal_lm, require_scalar_head])
def test_names_are_no_models(check):
    with pytest.raises(AlignlabError, match="The model is 'org/name'.*load_model"):
        check("org/name")


def test_the_try_of_a_model_is_made_once_and_draws_nothing(tiny_model):
    calls = []
    tiny_model.register_forward_hook(lambda *_: calls.append(1))
    state = torch.get_rng_state()
    require_causal_lm(tiny_model.train())
    tried = len(calls)
    require_causal_lm(tiny_model)
    assert tried == len(calls) > 0 and tiny_model.training
    assert torch.equal(state, torch.get_rng_state())
