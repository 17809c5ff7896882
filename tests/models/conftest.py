"""Small models of several architectures."""

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

SMALL = dict(
    vocab_size=60,
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
)


def lora(model):
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(init_lora_weights=False))


KINDS = {
    "llama": lambda tiny: tiny,
    "gpt2": lambda tiny: GPT2LMHeadModel(
        GPT2Config(vocab_size=60, n_embd=16, n_layer=2, n_head=2)
    ),
    # Scales its logits after the output layer, which a short cut could miss.
    "granite": lambda tiny: GraniteForCausalLM(
        GraniteConfig(**SMALL, logits_scaling=4.0)
    ),
    "qwen3": lambda tiny: Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=8)),
    "eager": lambda tiny: Qwen3ForCausalLM(
        Qwen3Config(**SMALL, head_dim=8, attn_implementation="eager")
    ),
    # Attends to a window of four tokens.
    "window": lambda tiny: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=4)),
    # Has no keys and values.
    "recurrent": lambda tiny: MambaForCausalLM(
        MambaConfig(vocab_size=60, hidden_size=16, num_hidden_layers=2)
    ),
    "lora": lora,
}


@pytest.fixture
def model_of(tiny_model):
    """A function from a name in ``KINDS`` to a random model whose logits differ
    clearly."""

    def build(kind: str):
        torch.manual_seed(0)
        model = KINDS[kind](tiny_model).double().eval()
        with torch.no_grad():
            model.get_output_embeddings().weight.mul_(20)
        return model

    return build
