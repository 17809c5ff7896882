"""The lean log-probabilities against those of all logits."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GraniteConfig, GraniteForCausalLM

from alignlab.models.likelihood import completion_log_probs
from alignlab.objectives import token_log_probs


def gpt2():
    return GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=16, n_layer=2, n_head=2))


def granite():
    """It scales its logits after the output layer, which a short cut could miss."""
    config = GraniteConfig(
        vocab_size=60,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        logits_scaling=4.0,
    )
    return GraniteForCausalLM(config)


def lora():
    from peft import LoraConfig, get_peft_model

    return get_peft_model(
        gpt2(), LoraConfig(init_lora_weights=False, fan_in_fan_out=True)
    )


@pytest.fixture(params=["llama", "gpt2", "granite", "lora"])
def model(request, tiny_model):
    torch.manual_seed(0)
    chosen = {"llama": lambda: tiny_model, "gpt2": gpt2, "granite": granite}
    chosen["lora"] = lora
    model = chosen[request.param]().double().eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(20)  # logits worth telling apart
    return model


@pytest.fixture
def batch():
    torch.manual_seed(1)
    ids = torch.randint(0, 60, (4, 9))
    lengths = torch.tensor([9, 5, 7, 2])[:, None]
    attention = (torch.arange(9) < lengths).long()
    mask = attention * (torch.arange(9) >= torch.tensor([4, 4, 0, 9])[:, None])
    return ids, attention, mask  # the last row has nothing masked in


def test_masked_tokens_have_the_log_probabilities_of_all_logits(model, batch):
    ids, attention, mask = batch
    every = token_log_probs(model(ids, attention_mask=attention).logits, ids)
    found = completion_log_probs(model, *batch)
    torch.testing.assert_close(found, every * mask[:, 1:], rtol=1e-10, atol=1e-12)
    assert every.std() > 0.1


def test_the_side_of_the_padding_changes_nothing(model, batch):
    ids, attention, mask = batch
    right = completion_log_probs(model, *batch)
    order = attention.argsort(dim=1, stable=True)  # padding first
    left = completion_log_probs(
        model, ids.gather(1, order), attention.gather(1, order), mask.gather(1, order)
    )
    torch.testing.assert_close(left.sum(1), right.sum(1), rtol=1e-9, atol=1e-12)


def test_the_model_is_left_as_it_was(tiny_model, batch):
    ids, attention, mask = batch
    completion_log_probs(tiny_model, *batch)
    assert tiny_model(ids).logits.shape == (4, 9, tiny_model.config.vocab_size)
    with pytest.raises(IndexError):
        completion_log_probs(tiny_model, ids + 1000, attention, mask)
    assert tiny_model(ids).logits.shape == (4, 9, tiny_model.config.vocab_size)


def test_nothing_asked_is_nothing_found_and_shapes_must_agree(tiny_model, batch):
    ids, attention, mask = batch
    assert (completion_log_probs(tiny_model, ids, attention, 0 * mask) == 0).all()
    with pytest.raises(ValueError, match=r"\(4, 9\), \(4, 9\) and \(4, 8\)"):
        completion_log_probs(tiny_model, ids, attention, mask[:, 1:])
